//! `quorate`'s own client commands when some of their endpoints are gone.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Outcome, PATIENCE, free_port, quorate, run};

fn client(command: &str, endpoints: &[&str], flags: &[&str]) -> Outcome {
    let mut program = quorate();
    program.arg(command).args(["--endpoints", &endpoints.join(",")]).args(flags);
    run(&mut program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_endpoints_hide_no_other() {
    let mut cluster = Cluster::start(3, &[]).await;
    cluster.kill(0);
    let dead = cluster.endpoint(0);
    // Takes connections, says nothing.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let alive = [cluster.endpoint(1), cluster.endpoint(2)];
    let endpoints = [&dead, &alive[0], &silent, &alive[1]].map(String::as_str);
    let limits = ["--command-timeout", "3s", "--dial-timeout", "3s"];

    let begun = Instant::now();
    let status = client("status", &endpoints, &limits);
    assert_eq!(status.code, 1, "as etcdctl's: {}", status.errors);
    assert!(begun.elapsed() < PATIENCE);
    for (endpoint, word) in [
        (&dead, "cannot be reached"),
        (&alive[0], "3.6."),
        (&silent, "no status"),
        (&alive[1], "3.6."),
    ] {
        let row = status.output.lines().find(|line| line.contains(endpoint.as_str()));
        assert!(row.is_some_and(|row| row.contains(word)), "{endpoint}: {}", status.output);
    }
    for endpoint in [&dead, &silent] {
        let told = format!("Failed to get the status of endpoint {endpoint} (");
        assert!(status.errors.contains(&told), "{}", status.errors);
    }

    assert!(!status.errors.contains("take effect"), "it only asks: {}", status.errors);

    let json = client("status", &endpoints, &[&limits[..], &["-w", "json"]].concat());
    assert_eq!(json.code, 1);
    let answers: serde_json::Value = serde_json::from_str(&json.output).unwrap();
    let named: Vec<&str> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["Endpoint"].as_str().unwrap())
        .collect();
    assert_eq!(named, [&alive[0], &alive[1]]);

    let all_alive = client("status", &[&alive[0], &alive[1]], &[]);
    assert_eq!((all_alive.code, all_alive.errors.as_str()), (0, ""));

    // It would take as long as that takes, and no member is there to take it.
    let file = cluster.directory.path().join("saved");
    let save = ["snapshot", "save", file.to_str().unwrap(), "--endpoints", &silent];
    let saved = run(quorate().args(save).args(limits));
    assert_eq!(saved.code, 5, "as etcdctl's: {}", saved.errors);
    assert!(!file.exists());

    // One answer is as good as another, and comes long before the silent one is given up.
    let begun = Instant::now();
    let members = client("members", &endpoints, &["--command-timeout", "50s", "-w", "simple"]);
    assert_eq!(members.code, 0, "{}", members.errors);
    assert!(begun.elapsed() < Duration::from_secs(45), "the silent endpoint was waited for");
    assert_eq!(members.output.lines().count(), 3, "{}", members.output);

    // Nobody there at all.
    let nobody = format!("127.0.0.1:{}", free_port());
    for (command, code) in [("status", 1), ("members", 2)] {
        let outcome = client(command, &[&nobody, &dead], &[]);
        assert_eq!(outcome.code, code, "{command}");
        for endpoint in [&nobody, &dead] {
            assert!(outcome.errors.contains(endpoint.as_str()), "{command}: {}", outcome.errors);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_is_not_guessed_where_an_endpoint_says_nothing() {
    let cluster = Cluster::start(1, &[]).await;
    let alive = cluster.endpoint(0);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let nobody = format!("127.0.0.1:{}", free_port());
    let moved = |endpoints: &[&str]| {
        let words = ["move-leader", "1", "--endpoints", &endpoints.join(",")];
        run(quorate().args(words).args(["--command-timeout", "1s", "--dial-timeout", "1s"]))
    };

    let outcome = moved(&[&silent]);
    assert_eq!(outcome.code, 1, "{}", outcome.errors);
    let last = outcome.errors.lines().last().unwrap();
    assert!(last.starts_with("Error: ") && last.contains(&silent), "{last}");
    assert!(!last.contains("leader endpoint") && !last.contains("take effect"), "{last}");
    assert_eq!(moved(&[&nobody]).code, 2);
    // The leader itself is asked, whatever the others do.
    let outcome = moved(&[&silent, &nobody, &alive]);
    assert_eq!(outcome.errors, "Error: etcdserver: bad leader transferee\n");
}
