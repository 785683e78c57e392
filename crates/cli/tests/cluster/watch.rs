//! `quorate watch`: each event once, whoever tells it, through every kill.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Stdio;

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use serde_json::Value;

use crate::harness::{Cluster, eventually, quorate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_the_next_member_and_tells_each_event_once() {
    let flags = ["--heartbeat-interval", "50", "--election-timeout", "500"];
    let mut cluster = Cluster::start(3, &flags).await;
    let output = cluster.directory.path().join("output");
    let endpoints: Vec<String> = (0..3).map(|at| cluster.endpoint(at)).collect();
    let mut process = quorate()
        .args(["watch", "-w", "json", "--prefix", "w/", "--endpoints", &endpoints.join(",")])
        .stdin(Stdio::null())
        .stdout(File::create(&output).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = || -> Vec<Value> {
        let text = std::fs::read_to_string(&output).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let lines = text[..whole].lines();
        let of = |line| serde_json::from_str::<Value>(line).unwrap()["Events"].as_array().cloned();
        lines.flat_map(|line| of(line).unwrap_or_default()).collect()
    };
    // It tells what comes from when it has begun on.
    eventually("it has begun", async || {
        let put = PutRequest { key: "w/first".into(), ..PutRequest::default() };
        KvClient::new(cluster.channel(0)).put(put).await.unwrap();
        (!told().is_empty()).then_some(())
    })
    .await;
    let first = version(&told()[0]);
    // Whoever tells it is lost, while others write.
    for at in [0, 1, 2, 0] {
        cluster.kill(at);
        let rest: Vec<usize> = (0..3).filter(|other| *other != at).collect();
        cluster.fill(&rest, "w", 100).await;
        cluster.spawn(at);
        cluster.settle().await;
    }
    let range = RangeRequest { key: "w/".into(), range_end: "w0".into(), ..Default::default() };
    let held = KvClient::new(cluster.channel(0)).range(range).await.unwrap().into_inner();
    let last = held.kvs.iter().map(|pair| pair.mod_revision).max().unwrap();
    eventually("all is told", async || {
        told().iter().any(|event| revision(event) == last).then_some(())
    })
    .await;
    process.kill().unwrap();
    process.wait().unwrap();

    let events = told();
    let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (before, after) in events.iter().zip(&events[1..]) {
        assert!(revision(before) < revision(after), "{before} {after}");
    }
    for event in &events {
        let key = event["kv"]["key"].as_str().unwrap().to_owned();
        versions.entry(key).or_default().push(version(event));
    }
    assert_eq!(versions.len(), held.kvs.len());
    for (versions, pair) in versions.values().zip(&held.kvs) {
        let from = if pair.key == "w/first" { first } else { 1 };
        let wanted: Vec<i64> = (from..=pair.version).collect();
        assert_eq!(*versions, wanted, "{:?}", pair.key);
    }
}

fn revision(event: &Value) -> i64 {
    event["kv"]["mod_revision"].as_i64().unwrap()
}

fn version(event: &Value) -> i64 {
    event["kv"]["version"].as_i64().unwrap()
}
