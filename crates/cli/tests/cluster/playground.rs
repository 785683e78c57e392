//! `quorate playground` as a user meets it: what it says, what it leaves, what it does when something
//! is in its way.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::harness::{end_of, quorate, run, signal, within_patience};

/// A running playground; what it says is in a file, so that it never waits for a reader.
struct Playground {
    process: Child,
    /// Holds the file and, unless there is another, the data.
    directory: TempDir,
}

impl Playground {
    fn start(data: &Path, flags: &[&str]) -> Playground {
        let directory = TempDir::with_prefix("quorate-test-playground-").unwrap();
        let said = File::create(directory.path().join("said")).unwrap();
        let process = quorate()
            .arg("playground")
            .arg("--dir")
            .arg(data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        Playground { process, directory }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("said")).unwrap()
    }

    /// Waits until it has said something.
    fn says(&mut self, text: &str) {
        let said = within_patience(|| {
            let ended = self.process.try_wait().unwrap();
            let said = self.said().contains(text);
            assert!(said || ended.is_none(), "ended before it said {text:?}:\n{}", self.said());
            said.then_some(())
        });
        assert!(said.is_some(), "did not say {text:?}:\n{}", self.said());
    }

    fn end(&mut self) -> ExitStatus {
        end_of(&mut self.process)
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        // Its nodes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What is added to the ports so that those of three nodes are free now.
fn free_offset() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 2_000 + u16::try_from(std::process::id() % 300).unwrap() * 20;
    for _ in 0..500 {
        let offset = base + NEXT.fetch_add(1, Ordering::Relaxed) % 500 * 3;
        let ports = [2379, 12_379, 22_379].map(|port| port + offset);
        if ports.iter().all(|port| {
            [*port, *port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        }) {
            return offset;
        }
    }
    panic!("no free ports");
}

/// The nodes that keep their data there: process ids.
fn nodes_of(data: &Path) -> Vec<u32> {
    let listed = Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]).output().unwrap();
    let flag = format!("--data-dir={}/", data.display());
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.contains(&flag))
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_playground_says_how_to_use_it_stops_in_order_and_finds_its_data_again() {
    let scratch = TempDir::new().unwrap();
    let data = scratch.path().join("data");
    let offset = free_offset().to_string();
    let mut playground = Playground::start(&data, &["--offset", &offset]);
    playground.says("cluster is ready: 3 nodes");
    playground.says("Ctrl-C stops the nodes");
    assert_eq!(nodes_of(&data).len(), 3);
    let said = playground.said();
    assert!(said.contains("\nendpoints: http://127.0.0.1:"), "{said}");
    // What it shows works as it stands there.
    let shown: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.trim_start().starts_with(env!("CARGO_BIN_EXE_quorate")))
        .map(|line| line.split_whitespace().skip(1).collect())
        .collect();
    assert_eq!(shown.len(), 3, "{said}");
    for (words, want) in shown.iter().zip(["OK\n", "greeting\nhello\n", "ENDPOINT"]) {
        let outcome = run(quorate().args(words));
        assert_eq!(outcome.code, 0, "{words:?}: {}", outcome.errors);
        assert!(outcome.output.contains(want), "{words:?}: {}", outcome.output);
    }
    signal(playground.process.id(), "INT");
    assert!(playground.end().success(), "{}", playground.said());
    assert!(nodes_of(&data).is_empty());
    assert!(!playground.said().contains("did not stop in order"), "{}", playground.said());

    let mut again = Playground::start(&data, &[]);
    again.says("cluster is ready: 3 nodes");
    let outcome = run(quorate().args(&shown[1]));
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "greeting\nhello\n"));
    signal(again.process.id(), "TERM");
    assert!(again.end().success(), "{}", again.said());
    assert!(nodes_of(&data).is_empty());
}

#[test]
fn a_playground_tells_of_a_node_that_ends_and_takes_the_others_with_it_when_it_is_killed() {
    let scratch = TempDir::new().unwrap();
    let data = scratch.path().join("data");
    let offset = free_offset().to_string();
    let mut playground = Playground::start(&data, &["--offset", &offset]);
    playground.says("cluster is ready");

    // A second one on the same directory, wherever it would listen.
    for flags in [&[][..], &["--nodes", "3"]] {
        let mut second = Playground::start(&data, flags);
        assert_eq!(second.end().code(), Some(1));
        assert!(second.said().contains("another playground runs on"), "{}", second.said());
    }
    assert_eq!(nodes_of(&data).len(), 3, "the first one is not touched by it");

    let nodes = nodes_of(&data);
    signal(nodes[1], "KILL");
    playground.says("has ended (signal: 9 (SIGKILL)); 2 of 3 still run");
    let endpoints = playground.said();
    let endpoints =
        endpoints.lines().find_map(|line| line.strip_prefix("endpoints: ")).unwrap().to_owned();
    let outcome = run(quorate().args(["get", "x", "--endpoints", &endpoints]));
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert_eq!(nodes_of(&data), [nodes[0], nodes[2]], "nothing is restarted");

    signal(playground.process.id(), "KILL");
    playground.end();
    let gone = within_patience(|| nodes_of(&data).is_empty().then_some(()));
    assert!(gone.is_some(), "nodes outlive their playground");
}

#[test]
fn what_is_in_a_playgrounds_way_is_told_and_nothing_is_left_running() {
    let scratch = TempDir::new().unwrap();
    let offset = free_offset();
    let flags = ["--offset", &offset.to_string()];

    // A port, before anything is made.
    let data = scratch.path().join("port");
    let port = 12_380 + offset;
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut playground = Playground::start(&data, &flags);
    assert_eq!(playground.end().code(), Some(1));
    let said = playground.said();
    assert!(said.contains(&format!("port {port} (peers of n2)")), "{said}");
    assert!(said.contains("--offset"), "{said}");
    assert!(!data.exists());
    drop(taken);

    // A node that cannot start, when the others have.
    let data = scratch.path().join("node");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("n2"), "not a directory").unwrap();
    let mut playground = Playground::start(&data, &flags);
    assert_eq!(playground.end().code(), Some(1));
    let said = playground.said();
    assert!(said.contains("n2 ended before the cluster was ready"), "{said}");
    assert!(said.contains("n2 | error: "), "{said}");
    assert!(nodes_of(&data).is_empty());
}
