//! `quorate bench` against members that go away in the middle of it.

use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Outcome, outcome, quorate, start};

/// Starts a bench that would go on for an hour, and lets it run for a moment.
fn bench(endpoints: &[String], flags: &[&str]) -> Child {
    let mut command = quorate();
    command
        .args(["bench", "put", "--clients", "8", "--total", "1000000000", "-w", "json"])
        .args(["--request-timeout", "500ms", "--give-up-after", "1500ms"])
        .args(["--endpoints", &endpoints.join(",")])
        .args(flags);
    let bench = start(&mut command);
    std::thread::sleep(Duration::from_millis(700));
    bench
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.output).unwrap_or_else(|error| {
        panic!("{error}: {} {}", outcome.output, outcome.errors);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_counts_what_fails_and_goes_on_while_anyone_answers() {
    let mut cluster = Cluster::start(3, &[]).await;
    let endpoints: Vec<String> = (0..3).map(|at| cluster.endpoint(at)).collect();
    let bench = bench(&endpoints, &["--duration", "4s"]);
    cluster.kill(1);
    let outcome = outcome(bench);
    let report = report(&outcome);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(report["given_up"], false);
    assert!(0 < report["answered"].as_u64().unwrap(), "{report}");
    assert!(0 < report["failed"].as_u64().unwrap(), "{report}");
    let kinds = report["failures"].as_array().unwrap();
    let sum: u64 = kinds.iter().map(|kind| kind["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, report["failed"].as_u64().unwrap(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_ends_by_itself_when_nobody_answers_any_more() {
    let mut cluster = Cluster::start(1, &[]).await;
    // Killed, and still there but as if it hung.
    for name in ["KILL", "STOP"] {
        let bench = bench(&[cluster.endpoint(0)], &[]);
        cluster.signal(0, name);
        let outcome = outcome(bench);
        let report = report(&outcome);
        assert_eq!(outcome.code, 1, "after SIG{name}: {report}");
        assert!(outcome.errors.contains("stopped early: only failures"), "{}", outcome.errors);
        assert_eq!(report["given_up"], true);
        assert!(0 < report["answered"].as_u64().unwrap(), "{report}");
        assert!(
            8 <= report["failed"].as_u64().unwrap(),
            "every client had one under way: {report}"
        );
        cluster.kill(0);
        cluster.spawn(0);
        cluster.settle().await;
    }
}
