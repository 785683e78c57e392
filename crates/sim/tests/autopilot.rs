//! Autopilot in the operator's place: members die, come back, flap and are replaced while clients write,
//! and the cluster looks after itself.

use std::ops::Range;

use quorate_sim::{Fault, Ledger, Options, run};
use quorate_types::bugs;

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

/// The checks are the run's own: a removal never costs the quorum, whoever is promoted has been well for long
/// and has the log, and is not needed at once, changes come to rest, and once nothing
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
    // Members died, came back, flapped, joined, were upgraded and replaced.
    for what in [
        "members failed",
        "members recovered",
        "members that came and went",
        "machines added",
        "members added again",
        "newer members promoted",
        "autopilot promotions",
        "autopilot replacements",
        "autopilot removals",
        "tended",
    ] {
        assert!(total.notable.contains_key(what), "no {what}: {:?}", total.notable);
    }
}

/// A member that is added again loses its vote in a core like etcd's, unless somebody is careful.
#[test]
fn whoever_is_added_again_keeps_its_vote() {
    bugs::put_back(Some("an-added-learner-loses-its-vote"));
    let options = Options {
        autopilot: true,
        seconds: Some(120),
        only: Some(Vec::new()),
        ..Options::default()
    };
    let found = (1..20).find_map(|seed| run(seed, &options, None).violation);
    bugs::put_back(None);
    let found = found.expect("it is found");
    assert!(found.contains("would lose its vote"), "{found}");
}

/// A vote comes too early, or where it is needed as soon as it has come.
#[test]
fn whoever_is_promoted_has_what_it_takes_and_can_go_again() {
    for (bug, want) in [
        ("a-learner-votes-before-it-is-stable", "is healthy for"),
        ("a-newcomer-is-needed-at-once", "are healthy then"),
    ] {
        bugs::put_back(Some(bug));
        let found = (1..100).find_map(|seed| {
            let only = Some(FAULTS.to_vec());
            let options =
                Options { autopilot: true, seconds: Some(120), only, ..Options::default() };
            run(seed, &options, None).violation
        });
        bugs::put_back(None);
        let found = found.unwrap_or_else(|| panic!("{bug} is not found"));
        assert!(found.contains("autopilot promotes n") && found.contains(want), "{bug}: {found}");
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
