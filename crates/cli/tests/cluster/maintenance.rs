//! What an operator does to three members: with an unchanged `etcdctl`, and with `quorate` in its place.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, HashKvRequest, MemberListRequest, PutRequest, RangeRequest,
};

use crate::harness::{Cluster, Outcome, eventually, quorate, run};

fn etcdctl(endpoint: &str, arguments: &[&str]) -> Outcome {
    run(Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .arg("--command-timeout=30s")
        .args(arguments))
}

fn etcdctl_is_installed() -> bool {
    let found = Command::new("etcdctl").arg("version").output().is_ok();
    assert!(
        found || std::env::var_os("QUORATE_TEST_REQUIRE_ETCDCTL").is_none(),
        "etcdctl is required here and not installed"
    );
    if !found {
        eprintln!("skipped: etcdctl is not installed (Debian's etcd-client)");
    }
    found
}

/// The hash of the whole history of each member, once they have all of it.
async fn hashes(cluster: &Cluster) -> Vec<(u32, i64, i64)> {
    let mut hashes = Vec::new();
    for at in 0..cluster.members.len() {
        // Confirmed, so that nothing is missing that was answered before.
        eventually("a read works", async || cluster.read(at, b"x", false).await).await;
        let mut client = MaintenanceClient::new(cluster.channel(at));
        let answer = client.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
        hashes.push((answer.hash, answer.compact_revision, answer.hash_revision));
    }
    hashes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_cluster_is_made_room_in_with_etcdctl() {
    if !etcdctl_is_installed() {
        return;
    }
    let cluster = Cluster::start(3, &["--quota-backend-bytes", "2000000"]).await;
    let endpoints = [0, 1, 2].map(|at| cluster.endpoint(at));
    let mut kv = KvClient::new(cluster.channel(1));
    let put = PutRequest { key: "k".into(), value: vec![7; 100_000].into(), ..Default::default() };
    let full = eventually("the quota is used up", async || kv.put(put.clone()).await.err()).await;
    assert_eq!(full.message(), "etcdserver: mvcc: database space exceeded");

    // All members refuse, and all list the alarm of the one that raised it.
    for endpoint in &endpoints {
        let refused = etcdctl(endpoint, &["put", "a", "b"]);
        assert_eq!(refused.code, 1);
        assert!(
            refused.errors.contains("etcdserver: mvcc: database space exceeded"),
            "{}",
            refused.errors
        );
        let list = etcdctl(endpoint, &["alarm", "list"]);
        assert!(list.output.starts_with("memberID:"), "{}", list.output);
        assert!(list.output.trim_end().ends_with(" alarm:NOSPACE"), "{}", list.output);
        assert_eq!(etcdctl(endpoint, &["get", "k", "--keys-only"]).code, 0);
    }
    let status = cluster.status(2).await.unwrap();
    assert!(status.errors[0].ends_with("alarm:NOSPACE "), "{:?}", status.errors);
    let revision = status.header.unwrap().revision.to_string();
    let compacted = etcdctl(&endpoints[0], &["compaction", "--physical", &revision]);
    assert_eq!(compacted.output.trim_end(), format!("compacted revision {revision}"));
    for endpoint in &endpoints {
        let defragmented = etcdctl(endpoint, &["defrag"]);
        assert!(defragmented.output.contains("Finished defragmenting"), "{}", defragmented.output);
    }
    let disarmed = etcdctl(&endpoints[2], &["alarm", "disarm"]);
    assert!(disarmed.output.contains("alarm:NOSPACE"), "{}", disarmed.output);
    for endpoint in &endpoints {
        assert_eq!(etcdctl(endpoint, &["alarm", "list"]).output, "");
        let written = eventually("writes work again", async || {
            let written = etcdctl(endpoint, &["put", "a", "b"]);
            (written.code == 0).then_some(written)
        });
        assert_eq!(written.await.output.trim_end(), "OK");
    }
    let same = etcdctl(&endpoints.join(","), &["endpoint", "hashkv"]);
    assert_eq!(same.code, 0, "{}", same.errors);
    let sums: Vec<_> = same.output.lines().filter_map(|line| line.split(", ").nth(1)).collect();
    assert!(sums.len() == 3 && sums.iter().all(|sum| *sum == sums[0]), "{}", same.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_the_same_hash_after_load_and_kills() {
    let flags =
        ["--snapshot-count", "200", "--corrupt-check-time", "1s", "--initial-corrupt-check=true"];
    let mut cluster = Cluster::start(3, &flags).await;
    for round in 0..3 {
        cluster.fill(&[0, 1, 2], &format!("r{round}"), 300).await;
        let leader = cluster.leader().await;
        let at = if round == 1 { (leader + 1) % 3 } else { leader };
        cluster.kill(at);
        let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
        cluster.fill(&others, &format!("s{round}"), 600).await;
        cluster.spawn(at);
        cluster.settle().await;
        let mut defragmented = MaintenanceClient::new(cluster.channel(round % 3));
        defragmented.defragment(quorate_proto::etcdserverpb::DefragmentRequest {}).await.unwrap();
    }
    let sums = hashes(&cluster).await;
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    for at in 0..3 {
        assert_eq!(cluster.status(at).await.unwrap().errors, Vec::<String>::new());
    }
}

/// Makes the data directory of a member of a cluster with the token `anew`; says what was said.
fn restore(cluster: &Cluster, at: usize, file: &str) -> String {
    let (directory, peer) = (cluster.data_dir(at), cluster.peer_url(at));
    let list = cluster.initial_cluster();
    let restored = run(quorate()
        .args(["snapshot", "restore", file, "--name", &cluster.members[at].name])
        .args(["--data-dir", directory.to_str().unwrap(), "--initial-cluster", &list])
        .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster-token", "anew"]));
    assert_eq!(restored.code, 0, "{}", restored.errors);
    restored.output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_from_the_others_serves_no_clients_when_it_compares_first() {
    let mut new = Cluster::prepare(3, &["--initial-cluster-token", "anew"]);
    // Of the same revision, and not the same.
    let mut files = Vec::new();
    for key in ["one", "two"] {
        let mut old = Cluster::start(1, &[]).await;
        old.fill(&[0], key, 1).await;
        let file = new.directory.path().join(key).to_str().unwrap().to_owned();
        let saved =
            run(quorate().args(["snapshot", "save", &file, "--endpoints", &old.endpoint(0)]));
        assert_eq!(saved.code, 0, "{}", saved.errors);
        old.stop(0);
        files.push(file);
    }
    for (at, file) in [&files[0], &files[0], &files[1]].into_iter().enumerate() {
        restore(&new, at, file);
    }
    new.spawn(0);
    new.spawn(1);
    new.settle().await;
    new.spawn_with(2, &["--initial-corrupt-check=true"]);
    new.logged(2, "this member's data differ from the others': it serves no clients").await;
    let list = MemberListRequest { linearizable: true };
    let list = ClusterClient::new(new.channel(0)).member_list(list).await.unwrap().into_inner();
    let differing = list.members.iter().find(|member| member.name == "n3").unwrap().id;
    let errors = new.status(0).await.unwrap().errors;
    assert_eq!(errors, [format!("memberID:{differing} alarm:CORRUPT ")]);
    assert!(!new.log(2).contains("ready to serve client requests"), "{}", new.log(2));
    // Nor does anybody answer at its port.
    let mut stream = TcpStream::connect(new.endpoint(2)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 64]).is_err());
    assert!(new.stop(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_saved_and_begins_anew() {
    let mut old = Cluster::start(1, &[]).await;
    old.fill(&[0], "k", 500).await;
    let file = old.directory.path().join("saved");
    let file = file.to_str().unwrap();
    let saved = run(quorate().args(["snapshot", "save", file, "--endpoints", &old.endpoint(0)]));
    assert_eq!((saved.code, saved.errors.as_str()), (0, ""));
    assert_eq!(saved.output, format!("Snapshot saved at {file}\nServer version 3.6.0\n"));
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it is nobody else's to read");
    if etcdctl_is_installed() {
        // An unchanged etcdctl saves the same bytes.
        let by_etcdctl = format!("{file}.etcdctl");
        let outcome = etcdctl(&old.endpoint(0), &["snapshot", "save", &by_etcdctl]);
        assert_eq!(outcome.code, 0, "{}", outcome.errors);
        let length = |path: &str| std::fs::metadata(path).unwrap().len();
        assert_eq!(length(&by_etcdctl) % 512, 32);
        assert_eq!(run(quorate().args(["snapshot", "status", &by_etcdctl])).code, 0);
    }
    let hash = hashes(&old).await[0].0;
    old.stop(0);

    let status = run(quorate().args(["snapshot", "status", file, "-w", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status.output).unwrap();
    assert_eq!(status["revision"], 501);
    assert!(500 < status["totalKey"].as_u64().unwrap());
    let table = run(quorate().args(["snapshot", "status", file])).output;
    assert!(table.contains("REVISION") && table.contains("501"), "{table}");
    let fields = run(quorate().args(["snapshot", "status", file, "-w", "fields"])).output;
    let names: Vec<_> = fields.lines().filter_map(|line| line.split_once(" : ")).collect();
    let want = ["\"Hash\"", "\"Revision\"", "\"Keys\"", "\"Size\""];
    assert_eq!(names.iter().map(|(name, _)| *name).collect::<Vec<_>>(), want);
    assert_eq!((names[0].1, names[1].1), (status["hash"].to_string().as_str(), "501"));

    // Three members of a new cluster, each from the same file.
    let mut new = Cluster::prepare(3, &["--initial-cluster-token", "anew"]);
    for at in 0..3 {
        let restored = restore(&new, at, file);
        assert!(restored.starts_with("Restored revision 501 into "), "{restored}");
    }
    for at in 0..3 {
        new.spawn(at);
    }
    new.settle().await;
    let all = RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        count_only: true,
        ..Default::default()
    };
    for at in 0..3 {
        let answer = KvClient::new(new.channel(at)).range(all.clone()).await.unwrap().into_inner();
        assert_eq!(answer.count, 500);
    }
    assert!(hashes(&new).await.iter().all(|sum| sum.0 == hash), "nothing but the members is new");
    new.fill(&[0, 1, 2], "new", 100).await;
}

#[test]
fn what_cannot_be_saved_or_restored_is_told() {
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("text"), vec![b'x'; 512 + 32]).unwrap();
    let (empty, text, absent, here) = (at("empty"), at("text"), at("absent"), at("."));
    for (arguments, code, want) in [
        (&["status", &empty][..], 1, "it was cut off"),
        (&["status", &text], 1, "expected sha256 7878"),
        (&["status", &absent], 1, "No such file"),
        (&["status", &here], 1, "directory"),
        (&["restore", &text, "--data-dir", &absent], 1, "expected sha256"),
        (&["restore", &text, "--data-dir", &here], 1, "is not empty"),
        (
            &["restore", &text, "--name", "n2", "--initial-cluster", "n1=http://h:1"],
            128,
            "names n1",
        ),
        (&["save", &absent, "--endpoints", "127.0.0.1:1"], 2, "no endpoint can be reached"),
        (&["save", &absent, "--endpoints", "a:1,b:1"], 5, "--endpoints names 2"),
    ] {
        let told = run(quorate().arg("snapshot").args(arguments));
        assert_eq!(told.code, code, "{arguments:?}: {}", told.errors);
        assert!(told.errors.contains(want), "{arguments:?}: {}", told.errors);
        assert_eq!(told.output, "");
    }
    assert!(!std::path::Path::new(&absent).exists());
}

/// Runs a command of `quorate`, and of `etcdctl` if that is installed, against the endpoints; both must end
/// with the same code. What `quorate` said, and what `etcdctl` did.
fn in_place(endpoints: &str, words: &[&str]) -> (Outcome, Option<Outcome>) {
    let flags = ["--endpoints", endpoints, "--command-timeout", "30s"];
    let ours = run(quorate().args(flags).args(words));
    let theirs = etcdctl_is_installed().then(|| etcdctl(endpoints, words));
    if let Some(theirs) = &theirs {
        assert_eq!(ours.code, theirs.code, "{words:?}: {} {}", ours.errors, theirs.errors);
    }
    (ours, theirs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorate_prints_alarms_as_etcdctl_does() {
    let cluster = Cluster::start(1, &[]).await;
    let endpoint = cluster.endpoint(0);
    let id = cluster.status(0).await.unwrap().header.unwrap().member_id;
    let raise = async |kind: AlarmType| {
        let request = AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: id,
            alarm: kind.into(),
        };
        MaintenanceClient::new(cluster.channel(0)).alarm(request).await.unwrap();
    };
    for (kind, number, name) in
        [(AlarmType::Nospace, 1, "NOSPACE"), (AlarmType::Corrupt, 2, "CORRUPT")]
    {
        raise(kind).await;
        for form in ["simple", "json", "fields"] {
            let want = match form {
                "simple" => format!("memberID:{id} alarm:{name} \n"),
                "json" => format!("\"alarms\":[{{\"memberID\":{id},\"alarm\":{number}}}]}}\n"),
                _ => format!("\"MemberID\" : {id}\n\"AlarmType\" : {name}\n\n"),
            };
            let (list, theirs) = in_place(&endpoint, &["alarm", "list", "-w", form]);
            assert!(list.code == 0 && list.output.ends_with(&want), "{form}: {}", list.output);
            if let Some(theirs) = theirs {
                assert_eq!(list.output, theirs.output, "{form}");
            }
            let disarm = ["alarm", "disarm", "-w", form];
            let ours = run(quorate().args(["--endpoints", &endpoint]).args(disarm));
            assert!(ours.code == 0 && ours.output.ends_with(&want), "{form}: {}", ours.output);
            raise(kind).await;
            // etcdctl 3.4 panics where it is to print the fields of what was ended.
            if form != "fields" && etcdctl_is_installed() {
                assert_eq!(ours.output, etcdctl(&endpoint, &disarm).output, "{form}");
                raise(kind).await;
            }
        }
        let table = run(quorate().args(["alarm", "list", "-w", "table", "--endpoints", &endpoint]));
        let row = table.output.lines().nth(3).unwrap_or_default();
        assert!(row.contains(&format!("{id:x}")) && row.contains(name), "{}", table.output);
        let disarmed = run(quorate().args(["alarm", "disarm", "--endpoints", &endpoint]));
        assert_eq!(disarmed.code, 0, "{}", disarmed.errors);
        let (none, _) = in_place(&endpoint, &["alarm", "list"]);
        assert_eq!((none.code, none.output.as_str()), (0, ""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorate_asks_all_members_as_etcdctl_does() {
    let mut cluster = Cluster::start(3, &["--autopilot=false"]).await;
    let leader = cluster.leader().await;
    let (next, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = async |at: usize| cluster.status(at).await.unwrap().header.unwrap().member_id;
    let (leader_id, next_id) = (id(leader).await, id(next).await);
    let all = [0, 1, 2].map(|at| cluster.endpoint(at));

    // All that the members advertise, whoever is asked.
    for words in [&["endpoint", "status", "-w", "simple"][..], &["endpoint", "hashkv"], &["defrag"]]
    {
        let (ours, theirs) = in_place(&all[other], &[words, &["--cluster"]].concat());
        assert_eq!(ours.code, 0, "{words:?}: {}", ours.errors);
        for output in [ours].iter().chain(&theirs).map(|outcome| &outcome.output) {
            assert_eq!(output.lines().count(), 3, "{words:?}: {output}");
            for endpoint in &all {
                let name = format!("http://{endpoint}");
                let line = output.lines().find(|line| line.contains(&name));
                assert!(line.is_some(), "{words:?}: {output}");
                if words[0] == "defrag" {
                    let want = format!("Finished defragmenting etcd member[{name}]");
                    assert_eq!(line, Some(want.as_str()));
                }
            }
        }
    }

    let moved = eventually("leadership moves", async || {
        let words = ["move-leader", &format!("{next_id:x}"), "--endpoints", &all.join(",")];
        let outcome = run(quorate().args(words));
        (outcome.code == 0).then_some(outcome.output)
    });
    let want = format!("Leadership transferred from {leader_id:x} to {next_id:x}\n");
    assert_eq!(moved.await, want);
    assert_eq!(cluster.leader().await, next);

    cluster.kill(other);
    let (dead, some) = (&all[other], all.join(","));
    let (health, theirs) = in_place(&some, &["endpoint", "health"]);
    assert_eq!(health.code, 1);
    let told = format!("{dead} is unhealthy: failed to commit proposal: ");
    assert!(health.errors.lines().any(|line| line.starts_with(&told)), "{}", health.errors);
    assert!(health.errors.ends_with("Error: unhealthy cluster\n"), "{}", health.errors);
    if let Some(theirs) = theirs {
        assert!(theirs.errors.contains(&told), "{}", theirs.errors);
        assert!(theirs.errors.ends_with("Error: unhealthy cluster\n"), "{}", theirs.errors);
    }
    for at in [leader, next] {
        let told = format!("{} is healthy: successfully committed proposal: took = ", all[at]);
        assert!(health.output.contains(&told), "{}", health.output);
    }
    assert_eq!(health.output.lines().count(), 2, "{}", health.output);

    let (defrag, theirs) = in_place(&some, &["defrag", "--dial-timeout", "3s"]);
    assert_eq!(defrag.code, 1);
    let told = format!("Failed to defragment etcd member[{dead}] (");
    for outcome in [defrag].iter().chain(&theirs) {
        assert!(outcome.errors.contains(&told), "{}", outcome.errors);
        for at in [leader, next] {
            let done = format!("Finished defragmenting etcd member[{}]\n", all[at]);
            assert!(outcome.output.contains(&done), "{}", outcome.output);
        }
    }
}

/// A bar is for people: whoever reads the errors from a pipe sees none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_long_snapshot_is_is_told_to_terminals_alone() {
    let cluster = Cluster::start(1, &[]).await;
    let mut kv = KvClient::new(cluster.channel(0));
    for number in 0..36 {
        let (key, value) = (format!("k{number}"), vec![7; 1_000_000]);
        let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let place = |name: &str| cluster.directory.path().join(name).to_str().unwrap().to_owned();
    let (file, anew) = (place("saved"), place("anew"));
    for words in [
        &["snapshot", "save", &file, "--endpoints", &cluster.endpoint(0)][..],
        &["snapshot", "status", &file],
        &["snapshot", "restore", &file, "--data-dir", &anew],
    ] {
        let outcome = run(quorate().args(words));
        assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""), "{words:?}");
    }
    std::fs::remove_dir_all(&anew).unwrap();
    if Command::new("script").arg("--version").output().is_ok() {
        let restore =
            format!("{} snapshot restore {file} --data-dir {anew}", env!("CARGO_BIN_EXE_quorate"));
        let seen = run(Command::new("script").args(["-qec", &restore, "/dev/null"]));
        assert!(seen.code == 0 && seen.output.contains("restoring"), "{}", seen.output);
    }
}
