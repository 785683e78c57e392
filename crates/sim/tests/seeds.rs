//! The share of the simulator that runs with every test: some seeds, each a whole cluster with faults
//! of its own. More with `QUORATE_SEEDS=first..last`, of `QUORATE_SECONDS` each, or with `quorate sim`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use quorate_sim::{Engine, Fault, Ledger, Options, attempt, run};

/// What the program has: a fifth of a run is spent on memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

fn seconds() -> u64 {
    setting("QUORATE_SECONDS").map_or(90, |text| text.parse().expect("QUORATE_SECONDS=number"))
}

/// Runs seeds on all processors, one at a time on each. What they amount to; each that fails is
/// printed at once, and all of them fail the test.
fn sweep(seeds: Range<u64>, options: &Options) -> Ledger {
    let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(seeds.start);
    let (total, failed) = (Mutex::new(Ledger::default()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                return;
            }
            let outcome = attempt(seed, options, None);
            *total.lock().unwrap_or_else(PoisonError::into_inner) += &outcome.ledger;
            if let Some(why) = outcome.violation {
                println!("seed {seed}: {why}\nagain: {} --trace", options.command(seed));
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
            }
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{total}\n{:?}\n{:?}", total.faults, total.notable);
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "seeds that break a promise: {failed:?}");
    total
}

/// With fewer seeds than this, some things may not have happened; with many, each kind of fault has to
/// come often.
const SEEDS_MIN: u64 = 20;
const MANY_SEEDS: u64 = 1000;
const FAULTS_MIN: u64 = 50;

#[test]
fn clusters_keep_their_promises_under_faults() {
    let options = Options { seconds: Some(seconds()), ..Options::default() };
    let total = sweep(seeds(1..61), &options);
    let notable = [
        "snapshots installed",
        "damaged and refused",
        "members added",
        "members removed",
        "events told",
        "leases expired",
        "healed",
    ];
    assert_showed(&total, 20, &notable);
    assert_struck(&total, Fault::ALL);
}

#[test]
fn clusters_keep_their_promises_with_the_second_engine() {
    let options = Options { engine: Engine::Zab, seconds: Some(seconds()), ..Options::default() };
    let total = sweep(seeds(1..21), &options);
    assert_showed(
        &total,
        20,
        &["snapshots installed", "damaged and refused", "events told", "healed"],
    );
    // Its members are fixed, so that nobody can take the place of one that is lost.
    let changes_members = [Fault::Membership, Fault::Replace, Fault::Wipe];
    assert_struck(&total, Fault::ALL.into_iter().filter(|fault| !changes_members.contains(fault)));
}

/// Many seeds bring each kind of fault often.
fn assert_struck(total: &Ledger, faults: impl IntoIterator<Item = Fault>) {
    for fault in faults {
        let name = fault.name();
        let count = total.faults.get(name).copied().unwrap_or(0);
        assert!(total.seeds < MANY_SEEDS || FAULTS_MIN <= count, "{name} came {count} times");
    }
}

/// A run that showed nothing is no evidence.
fn assert_showed(total: &Ledger, kinds: usize, notable: &[&str]) {
    if total.seeds < SEEDS_MIN {
        return;
    }
    assert!(kinds < total.faults.len(), "few kinds of faults: {:?}", total.faults);
    for what in notable {
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
