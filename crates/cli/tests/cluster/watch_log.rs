//! `quorate watch-log`: one log, whoever tells it, through every kill.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use quorate_proto::etcdserverpb::RangeRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use serde_json::Value;

use crate::harness::{Cluster, end_of, eventually, quorate, run, signal};

/// The command, with its output in a file.
struct Watching {
    process: Child,
    output: PathBuf,
}

impl Watching {
    fn start(cluster: &Cluster, name: &str, args: &[&str]) -> Watching {
        let output = cluster.directory.path().join(name);
        let endpoints: Vec<String> = (0..3).map(|at| cluster.endpoint(at)).collect();
        let process = quorate()
            .args(["watch-log", "-w", "json", "--endpoints", &endpoints.join(",")])
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Watching { process, output }
    }

    /// Whole lines, as objects.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until it has printed an entry with these words.
    async fn told(&self, what: &str) {
        eventually(what, async || {
            let lines = self.lines();
            lines.iter().any(|line| line["what"].as_str().unwrap().contains(what)).then_some(())
        })
        .await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn index(line: &Value) -> u64 {
    line["index"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_through_every_kill() {
    followed_through_every_kill("raft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_through_every_kill_with_zab() {
    followed_through_every_kill("zab").await;
}

async fn followed_through_every_kill(engine: &str) {
    let flags = ["--engine", engine, "--heartbeat-interval", "50", "--election-timeout", "500"];
    let mut cluster = Cluster::start(3, &flags).await;
    let mut first = Watching::start(&cluster, "first", &["--from", "0"]);
    cluster.fill(&[0, 1, 2], "a", 200).await;
    first.told("\"a/00000199\"").await;

    // The leader goes, and then whoever tells it, if that was another one.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let rest: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    cluster.fill(&rest, "b", 100).await;
    first.told("\"b/00000099\"").await;
    cluster.spawn(leader);
    cluster.settle().await;
    for at in 0..3 {
        cluster.kill(at);
        let rest: Vec<usize> = (0..3).filter(|other| *other != at).collect();
        cluster.fill(&rest, &format!("c{at}"), 50).await;
        first.told(&format!("\"c{at}/00000049\"")).await;
        cluster.spawn(at);
        cluster.settle().await;
    }

    // The watcher is killed amid writes; another one goes on where it left off.
    let follows = async {
        cluster.fill(&[0, 1, 2], "d", 400).await;
    };
    let killed = async {
        first.told("\"d/00000100\"").await;
    };
    tokio::join!(follows, killed);
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    let mut lines = first.lines();
    let from = (index(lines.last().unwrap()) + 1).to_string();
    let mut second = Watching::start(&cluster, "second", &["--from", &from]);
    cluster.fill(&[0, 1, 2], "e", 20).await;
    eventually("all of it is told", async || {
        let told = second.lines();
        let of_e = told.iter().filter(|line| line["what"].as_str().unwrap().starts_with("\"e/"));
        (20 <= of_e.count()).then_some(())
    })
    .await;
    signal(second.process.id(), "INT");
    assert_eq!(end_of(&mut second.process).code(), Some(0), "it ends well when it is stopped");
    lines.extend(second.lines());

    for (before, after) in lines.iter().zip(&lines[1..]) {
        assert_eq!(index(before) + 1, index(after), "{before} {after}");
        assert!(before["term"].as_u64() <= after["term"].as_u64(), "{before} {after}");
        assert_eq!(after["zxid"].is_string(), engine == "zab", "{after}");
    }
    // Every member tells the same log; revisions, where it knows them.
    let last = lines.last().map(index).unwrap().to_string();
    for at in 0..3 {
        let endpoint = cluster.endpoint(at);
        let mut all = quorate();
        all.args(["watch-log", "-w", "json", "--from", "0", "--to", &last]);
        let output = cluster.directory.path().join("all");
        all.args(["--endpoints", &endpoint]).stdout(File::create(&output).unwrap());
        let mut process = all.spawn().unwrap();
        assert!(end_of(&mut process).success());
        let text = std::fs::read_to_string(&output).unwrap();
        let told: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told.len(), lines.len(), "member {at}");
        for (told, line) in told.iter().zip(&lines) {
            for field in ["index", "term", "zxid", "kind", "bytes", "what"] {
                assert_eq!(told[field], line[field], "member {at}: {told} {line}");
            }
        }
    }
    // What was told of a key is what its store says.
    let range = RangeRequest {
        key: "e/00000007".into(),
        range_end: "e/00000008".into(),
        ..Default::default()
    };
    let answer = KvClient::new(cluster.channel(0)).range(range).await.unwrap().into_inner();
    let put = lines.iter().find(|line| line["what"] == "\"e/00000007\" (100 bytes)").unwrap();
    assert_eq!(put["revision"].as_i64(), Some(answer.kvs[0].mod_revision));

    let endpoint = cluster.endpoint(0);
    let plain =
        |args: &[&str]| run(quorate().args(["watch-log", "--endpoints", &endpoint]).args(args));
    let revision = put["revision"].to_string();
    let found = plain(&["--revision", &revision, "--to", &index(put).to_string()]);
    let place = put["zxid"].as_str().map_or(put["term"].to_string(), str::to_owned);
    let words = ["put", "rev", &revision, "\"e/00000007\"", "(100", "bytes)"];
    let place = format!("{}@{place}", index(put));
    let wanted = [&[&*place], &words[..]].concat();
    assert_eq!(found.output.split_whitespace().collect::<Vec<_>>(), wanted, "{}", found.errors);
    for (args, code) in [(&["-w", "table"][..], 4), (&["--revision", "0"], 1)] {
        assert_eq!(plain(args).code, code, "{args:?}");
    }
}
