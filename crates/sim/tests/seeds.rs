//! The share of the simulator that runs with every test: some seeds, each a whole cluster with faults
//! of its own. More with `QUORATE_SEEDS=first..last`, of `QUORATE_SECONDS` each, or with `quorate sim`.

use std::ops::Range;

use quorate_sim::{Engine, Fault, Ledger, Options, run};

#[expect(clippy::disallowed_methods, reason = "what to run is for whoever runs the tests to say")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds(usual: Range<u64>) -> Range<u64> {
    let Some(text) = setting("QUORATE_SEEDS") else { return usual };
    let (first, last) = text.split_once("..").expect("QUORATE_SEEDS=first..last");
    let number = |text: &str| text.parse().expect("QUORATE_SEEDS=first..last");
    number(first)..number(last)
}

/// With this many seeds, each kind of fault has to come this often.
const MANY_SEEDS: u64 = 1000;
const FAULTS_MIN: u64 = 50;

#[test]
fn clusters_keep_their_promises_under_faults() {
    let seconds = setting("QUORATE_SECONDS").map_or(90, |text| text.parse().expect("seconds"));
    let options = Options { seconds: Some(seconds), ..Options::default() };
    let mut total = Ledger::default();
    for seed in seeds(1..61) {
        let outcome = run(seed, &options, None);
        let again = options.command(seed);
        assert_eq!(outcome.violation, None, "again: {again} --trace");
        total += &outcome.ledger;
    }
    println!("{total}\n{:?}\n{:?}", total.faults, total.notable);
    assert!(20 < total.faults.len(), "few kinds of faults: {:?}", total.faults);
    let notable = [
        "snapshots installed",
        "damaged and refused",
        "members added",
        "members removed",
        "events told",
        "leases expired",
        "healed",
    ];
    for what in notable {
        assert!(total.notable.contains_key(what), "no {what}: {:?}", total.notable);
    }
    for fault in Fault::ALL {
        let count = total.faults.get(fault.name()).copied().unwrap_or(0);
        assert!(
            total.seeds < MANY_SEEDS || FAULTS_MIN <= count,
            "{} came {count} times",
            fault.name()
        );
    }
}

#[test]
fn clusters_keep_their_promises_with_the_second_engine() {
    let options = Options { engine: Engine::Zab, seconds: Some(90), ..Options::default() };
    let mut total = Ledger::default();
    for seed in seeds(1..21) {
        let outcome = run(seed, &options, None);
        let again = options.command(seed);
        assert_eq!(outcome.violation, None, "again: {again} --trace");
        total += &outcome.ledger;
    }
    println!("{total}");
    assert!(15 < total.faults.len(), "few kinds of faults: {:?}", total.faults);
    for what in ["snapshots installed", "healed"] {
        assert!(total.notable.contains_key(what), "no {what}: {:?}", total.notable);
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for (seed, engine) in [3, 7, 11, 16].into_iter().zip(Engine::ALL.into_iter().cycle()) {
        let options = Options { engine, seconds: Some(20), ..Options::default() };
        let [first, second] = [(); 2].map(|()| {
            let mut lines = Vec::new();
            let outcome = run(seed, &options, Some(&mut |line| lines.push(line)));
            (lines, outcome.ledger)
        });
        let differs = first.0.iter().zip(&second.0).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.1, second.1, "seed {seed}");
    }
}
