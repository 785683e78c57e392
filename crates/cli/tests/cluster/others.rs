//! Unchanged clients of etcd in other languages. Where they are is told by variables, which `.ci/run`
//! sets; without them they are looked for where their language looks.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, run};

/// Whether the client can be used; where a variable says where it is, it must.
fn is_there(probe: &mut Command, variable: &str, what: &str) -> bool {
    let found = probe.output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os(variable).is_none(), "{variable} is set, but: no {what}");
    if !found {
        eprintln!("skipped: {what} is not installed ({variable} says where it is)");
    }
    found
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/others").join(name);
    path.to_str().unwrap().to_owned()
}

fn succeeds(command: &mut Command) {
    let outcome = run(command);
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "ok\n"), "{}", outcome.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_etcd3() {
    const VARIABLE: &str = "QUORATE_TEST_PYTHON";
    let python = || {
        let program = std::env::var_os(VARIABLE).unwrap_or_else(|| "python3".into());
        Command::new(program)
    };
    if is_there(python().args(["-c", "import etcd3"]), VARIABLE, "Python's etcd3") {
        let cluster = Cluster::start(1, &[]).await;
        let endpoint = cluster.endpoint(0);
        let (host, port) = endpoint.split_once(':').unwrap();
        succeeds(python().args([&script("python.py"), host, port]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_etcd3() {
    const VARIABLE: &str = "QUORATE_TEST_NODE_MODULES";
    let node = || {
        let mut node = Command::new("node");
        if let Some(modules) = std::env::var_os(VARIABLE) {
            node.env("NODE_PATH", modules);
        }
        node
    };
    if is_there(node().args(["-e", "require('etcd3')"]), VARIABLE, "Node's etcd3") {
        let cluster = Cluster::start(1, &[]).await;
        succeeds(node().args([&script("node.js"), &cluster.endpoint(0)]));
    }
}

/// A program of its own, since the crate needs `protoc` when it is built: see `others/rust`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rusts_etcd_client() {
    const VARIABLE: &str = "QUORATE_TEST_RUST_CLIENT";
    let Some(program) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: {VARIABLE} does not say where the program with etcd-client is");
        return;
    };
    let cluster = Cluster::start(1, &[]).await;
    succeeds(Command::new(program).arg(cluster.endpoint(0)));
}
