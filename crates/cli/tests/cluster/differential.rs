//! The same random requests to one of ours and to a real etcd: every answer must be the same, but for
//! ids and terms. And so must be what watchers are told, in what revisions.
//!
//! It runs with a fixed seed; `QUORATE_TEST_DIFFERENTIAL=<seed>:<requests>` asks for another run. Left
//! out is what is known to differ, each where it is drawn or compared: either PARITY.md lists it, or
//! etcd 3.4 is older than the rule, which is said there.

mod asks;
mod side;
mod watchers;

use std::collections::{BTreeMap, VecDeque};

use self::asks::{Ask, Dice, Known};
use self::side::Side;
use self::watchers::Watchers;
use crate::harness::{Cluster, channel, quick_directory};
use crate::suite::Etcd;

/// Of the last requests, this many are shown with a difference, and so much of each.
const SHOWN: usize = 12;
const SHOWN_BYTES: usize = 600;
/// What is run when nothing else is asked for.
const SETTINGS: (u64, u64) = (1, 10_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_a_real_etcd() {
    let (seed, requests) = settings();
    let etcd = tokio::task::spawn_blocking(Etcd::start).await.unwrap();
    let Some(etcd) = etcd else { return };
    let mut cluster = Cluster::prepare(1, &[]);
    cluster.directory = quick_directory("quorate-test-");
    cluster.spawn(0);
    cluster.settle().await;
    let mut ours = Side::new(cluster.channel(0), true).await;
    let mut theirs = Side::new(channel(&etcd.endpoint), false).await;
    let mut watchers = Watchers::new(&mut ours, &mut theirs).await;
    let mut dice = Dice::new(seed);
    let mut known = Known::default();
    let mut last = VecDeque::new();
    let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..requests {
        let ask = known.ask(&mut dice);
        let mut shown = format!("{ask:?}");
        shown.truncate((0..=SHOWN_BYTES).rfind(|at| shown.is_char_boundary(*at)).unwrap_or(0));
        last.push_back(shown);
        if SHOWN < last.len() {
            last.pop_front();
        }
        let shown = || last.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        // Who watches must be told what happened before it is forgotten: whoever is late is told
        // something else, and who is late is chance.
        if let Ask::Compact(_) = ask {
            watchers.settle(&mut ours, &mut theirs, &known).await;
        }
        if let Ask::Watch(change) = &ask {
            let changed = watchers.change(change, &mut ours, &mut theirs, &known, &mut dice).await;
            changed.unwrap_or_else(|why| {
                panic!("seed {seed}, request {number}: {why}; the last were\n{}", shown())
            });
            continue;
        }
        let (here, there) = tokio::join!(ours.ask(&ask), theirs.ask(&ask));
        assert_eq!(
            here.text,
            there.text,
            "seed {seed}, request {number} is answered otherwise than by etcd; the last were\n{}",
            shown()
        );
        known.learn(&ask, &there);
        if there.is_refused {
            *refusals.entry(there.text).or_default() += 1;
        }
    }
    watchers.settle(&mut ours, &mut theirs, &known).await;
    for (refusal, count) in &refusals {
        println!("{count:6} {refusal}");
    }
    println!(
        "seed {seed}: {requests} requests, {} revisions, {}",
        known.revision,
        watchers.summary()
    );
    if SETTINGS.1 <= requests {
        let missing =
            asks::REFUSALS.iter().filter(|text| !refusals.keys().any(|it| it.contains(**text)));
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "seed {seed} never met {missing:?}");
        watchers.check_coverage();
    }
}

/// Seed and number of requests.
fn settings() -> (u64, u64) {
    let Ok(given) = std::env::var("QUORATE_TEST_DIFFERENTIAL") else { return SETTINGS };
    let (seed, count) = given.split_once(':').expect("written as <seed>:<requests>");
    (seed.parse().expect("a seed"), count.parse().expect("a number of requests"))
}
