//! Faults of all kinds on real processes, and a verdict on what clients saw. Longer, with other seeds:
//! `cargo build --release && cargo run --release -p quorate-chaos -- --minutes 10 --seed 1`.

use std::time::Duration;

use quorate_chaos::{Engine, Kind, Plan, Report, Round, Settings};

/// A round over all kinds of faults, in two halves so that each kind has its turn in a short time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_saw_under_faults_is_linearizable() {
    rounds(Engine::Raft, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_of_zab_saw_under_faults_is_linearizable() {
    rounds(Engine::Zab, 15).await;
}

async fn rounds(engine: Engine, seconds: u64) {
    let program = env!("CARGO_BIN_EXE_quorate").into();
    let settings = Settings { program, parent: std::env::temp_dir(), engine };
    let (processes, surroundings): (Vec<Kind>, Vec<Kind>) =
        engine.kinds().into_iter().partition(|kind| {
            use Kind::{Cut, CutOneWay, Kill, KillAll, Pause, Replace, Transfer};
            matches!(kind, Kill | KillAll | Pause | Cut | CutOneWay | Transfer | Replace)
        });
    let mut total = Report::default();
    for (seed, kinds) in [(3, processes), (4, surroundings)] {
        let plan = Plan::with(seed, Duration::from_secs(seconds), kinds);
        total.add(Round::run(&settings, plan, |_| ()).await.unwrap());
    }
    println!("{total}");
    assert!(total.failures.is_empty(), "{total}");
    assert_eq!(total.idle(), [""; 0], "{total}");
}
