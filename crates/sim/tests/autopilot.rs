//! Autopilot in the operator's place: members die, come back, flap and are replaced while clients write,
//! and the cluster looks after itself.

use std::ops::Range;

use quorate_sim::{Fault, Ledger, Options, run};

/// What can happen to a member and to the ways between them. Whims of an operator are not among it.
const FAULTS: [Fault; 12] = [
    Fault::Crash,
    Fault::PowerLoss,
    Fault::Rolling,
    Fault::Replace,
    Fault::Partition,
    Fault::OneWay,
    Fault::Isolation,
    Fault::Loss,
    Fault::Delay,
    Fault::Pause,
    Fault::Transfer,
    Fault::DiskHang,
];

/// The checks are the run's own: a removal never costs the quorum, changes come to rest, and once nothing
/// goes wrong any more whoever is gone is replaced; besides all that a run checks anyway.
#[test]
fn autopilot_heals_what_can_be_healed_and_costs_no_quorum() {
    let mut total = Ledger::default();
    for seed in seeds() {
        let only = Some(FAULTS.to_vec());
        let options = Options { autopilot: true, seconds: Some(120), only, ..Options::default() };
        let outcome = run(seed, &options, None);
        assert_eq!(outcome.violation, None, "again: {} --trace", options.command(seed));
        total += &outcome.ledger;
    }
    println!("{total}\n{:?}\n{:?}", total.faults, total.notable);
    for what in ["autopilot promotions", "autopilot removals", "machines added", "tended"] {
        assert!(total.notable.contains_key(what), "no {what}: {:?}", total.notable);
    }
}

/// Some; others with `QUORATE_SEEDS=first..last`.
#[expect(clippy::disallowed_methods, reason = "what to run is for whoever runs the tests to say")]
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("QUORATE_SEEDS") else { return 1..13 };
    let (first, last) = text.split_once("..").expect("QUORATE_SEEDS=first..last");
    let number = |text: &str| text.parse().expect("QUORATE_SEEDS=first..last");
    number(first)..number(last)
}
