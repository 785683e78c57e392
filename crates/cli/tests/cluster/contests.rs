//! Locks and elections across members, through a change of the cluster's leader; and how the commands end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, RangeRequest};
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{CampaignRequest, LeaderRequest};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};

use crate::harness::{Cluster, PATIENCE, end_of, eventually, outcome, quorate, signal, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_and_an_election_outlive_the_leader() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.leader().await;
    let (holder, waiter) = ((leader + 1) % 3, (leader + 2) % 3);
    let lease = async |at: usize| {
        let mut leases = LeaseClient::new(cluster.channel(at));
        leases.lease_grant(LeaseGrantRequest { ttl: 300, id: 0 }).await.unwrap().into_inner().id
    };
    let (first, second) = (lease(holder).await, lease(waiter).await);
    let mut locks = LockClient::new(cluster.channel(holder));
    let held = locks.lock(LockRequest { name: "l".into(), lease: first }).await.unwrap();
    let mut elections = ElectionClient::new(cluster.channel(holder));
    let campaign = CampaignRequest { name: "e".into(), lease: first, value: "v".into() };
    elections.campaign(campaign).await.unwrap();

    // Another member's client waits while the leader goes. A channel of its own: calls on the
    // harness's have a limit of time.
    let endpoint = format!("http://{}", cluster.endpoint(waiter));
    let waiting = tokio::spawn(async move {
        let mut locks = LockClient::connect(endpoint).await.unwrap();
        locks.lock(LockRequest { name: "l".into(), lease: second }).await
    });
    eventually("two stand in line", async || {
        let key = format!("l/{second:x}").into_bytes();
        let found = cluster.read(holder, Vec::leak(key), false).await?;
        (found.count == 1).then_some(())
    })
    .await;
    cluster.kill(leader);
    eventually("another member leads", async || {
        let status = cluster.status(holder).await?;
        let is_alive = status.leader != 0 && cluster.read(holder, b"l", false).await.is_some();
        is_alive.then_some(())
    })
    .await;
    assert!(!waiting.is_finished(), "the lock was held all the time");
    let elected = eventually("the election is known", async || {
        elections.leader(LeaderRequest { name: "e".into() }).await.ok()
    })
    .await;
    assert_eq!(elected.into_inner().kv.unwrap().value, "v");

    let key = held.into_inner().key;
    eventually("the lock is released", async || {
        locks.unlock(UnlockRequest { key: key.clone() }).await.ok()
    })
    .await;
    let won = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(won.into_inner().key, format!("l/{second:x}"));
}

/// As with `etcdctl`: all is well where something was held, and a lock outlives the command that needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_given_up_when_it_is_asked_for_and_what_is_waited_for_is_an_error() {
    let cluster = Cluster::start(1, &[]).await;
    let endpoint = cluster.endpoint(0);
    let line = async |count: i64| stands_in_line(&cluster, 0, count).await;
    let begin = |words: &[&str]| {
        start(quorate().arg(words[0]).args(["--endpoints", &endpoint]).args(&words[1..]))
    };
    for words in [&["lock", "l"][..], &["elect", "l", "value"]] {
        for name in ["INT", "TERM"] {
            let mut holder = begin(words);
            line(1).await;
            let waiter = begin(words);
            line(2).await;
            signal(waiter.id(), name);
            let waited = outcome(waiter);
            assert_eq!(waited.code, 1, "{words:?} {name}");
            assert!(waited.errors.ends_with("context canceled\n"), "{}", waited.errors);
            line(1).await;
            let mut said = BufReader::new(holder.stdout.take().unwrap());
            assert!(0 < said.read_line(&mut String::new()).unwrap(), "it says what it holds");
            signal(holder.id(), name);
            assert_eq!(outcome(holder).code, 0, "{words:?} {name}");
            line(0).await;
        }
    }
    let place = |name: &str| cluster.directory.path().join(name);
    let (begun, stop) = (place("begun"), place("stop"));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done; exit 7",
        begun.display(),
        stop.display()
    );
    let lock = begin(&["lock", "l", "sh", "-c", &script]);
    eventually("the command runs", async || begun.exists().then_some(())).await;
    signal(lock.id(), "TERM");
    line(1).await;
    std::fs::write(&stop, "").unwrap();
    assert_eq!(outcome(lock).code, 7, "it is waited for");
    line(0).await;
}

/// Nobody else says so: the connections stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_rests_on_a_lease_knows_by_itself_when_it_may_have_ended() {
    let cluster = Cluster::start(1, &[]).await;
    let endpoint = cluster.endpoint(0);
    let begin = |words: &[&str]| start(quorate().args(["--endpoints", &endpoint]).args(words));
    let mut leases = LeaseClient::new(cluster.channel(0));
    let lease = LeaseGrantRequest { ttl: 5, id: 0x77 };
    leases.lease_grant(lease).await.unwrap();
    let holder = begin(&["lock", "--ttl", "5", "l"]);
    stands_in_line(&cluster, 0, 1).await;
    let waiter = begin(&["lock", "--ttl", "5", "l"]);
    stands_in_line(&cluster, 0, 2).await;
    let mut renewing = begin(&["lease", "keep-alive", "77"]);
    let mut said = BufReader::new(renewing.stdout.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    assert_eq!(first, "lease 0000000000000077 keepalived with TTL(5)\n");
    cluster.signal(0, "STOP");
    for lock in [holder, waiter] {
        let ended = outcome(lock);
        assert_eq!(ended.code, 1);
        assert!(ended.errors.ends_with("Error: session is expired\n"), "{}", ended.errors);
    }
    assert_eq!(outcome(renewing).code, 0);
    let last = said.lines().last().unwrap().unwrap();
    assert_eq!(last, "lease 0000000000000077 expired or revoked.");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rests_on_a_lease_goes_on_at_the_next_member() {
    let cluster = Cluster::start(3, &[]).await;
    let all = [0, 1, 2].map(|at| cluster.endpoint(at)).join(",");
    let place = |name: &str| cluster.directory.path().join(name);
    let begin = |endpoints: &str, words: &[&str], output: &str| {
        let mut command = quorate();
        command.args(["--endpoints", endpoints]).args(words);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(File::create(place(output)).unwrap()).spawn().unwrap()
    };
    let said = |output: &str| -> Vec<String> {
        std::fs::read_to_string(place(output)).unwrap().lines().map(str::to_owned).collect()
    };
    let mut leases = LeaseClient::new(cluster.channel(1));
    let lease = LeaseGrantRequest { ttl: 15, id: 0x77 };
    leases.lease_grant(lease).await.unwrap();
    let mut holder = begin(&all, &["lock", "--ttl", "15", "l"], "holder");
    stands_in_line(&cluster, 1, 1).await;
    let mut waiter = begin(&all, &["lock", "--ttl", "15", "l"], "waiter");
    stands_in_line(&cluster, 1, 2).await;
    let mut renewing = begin(&all, &["lease", "keep-alive", "77"], "renewing");
    let mut observer = begin(&all, &["elect", "--listen", "e"], "observer");
    let mut first = begin(&cluster.endpoint(1), &["elect", "e", "one"], "first");
    eventually("all have begun", async || {
        let begun = ["holder", "renewing", "observer"].map(|name| !said(name).is_empty());
        (begun == [true; 3]).then_some(())
    })
    .await;

    cluster.signal(0, "STOP");
    // Longer than the leases live.
    let renewed = said("renewing").len() + 4;
    eventually("it is renewed elsewhere", async || {
        (renewed <= said("renewing").len()).then_some(())
    })
    .await;
    stands_in_line(&cluster, 1, 2).await;
    for process in [&mut holder, &mut waiter, &mut renewing, &mut observer] {
        assert!(process.try_wait().unwrap().is_none(), "it goes on");
    }
    assert_eq!(said("waiter"), [""; 0]);
    signal(holder.id(), "TERM");
    assert_eq!(end_of(&mut holder).code(), Some(0));
    eventually("the next one is told", async || (!said("waiter").is_empty()).then_some(())).await;
    let mut second = begin(&cluster.endpoint(1), &["elect", "e", "two"], "second");
    signal(first.id(), "TERM");
    assert_eq!(end_of(&mut first).code(), Some(0));
    let told = |value: &str| said("observer").iter().filter(|line| *line == value).count();
    eventually("who is elected is told", async || (told("two") == 1).then_some(())).await;
    assert_eq!(told("one"), 1, "once");
    for process in [&mut second, &mut waiter] {
        signal(process.id(), "TERM");
        assert_eq!(end_of(process).code(), Some(0));
    }
    for process in [&mut renewing, &mut observer] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// It takes connections, and says nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_keeps_nobody_from_beginning_or_from_giving_up() {
    let cluster = Cluster::start(3, &[]).await;
    let leader = cluster.leader().await;
    let (hanging, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let all = [hanging, other, leader].map(|at| cluster.endpoint(at)).join(",");
    let begin = |endpoints: &str, patience: &str, words: &[&str]| {
        let flags = ["--endpoints", endpoints, "--command-timeout", patience];
        start(quorate().arg(words[0]).args(flags).args(&words[1..]))
    };
    let mut holder = begin(&all, "15s", &["elect", "l", "one"]);
    let mut said = BufReader::new(holder.stdout.take().unwrap());
    assert!(0 < said.read_line(&mut String::new()).unwrap(), "it says what it holds");
    let alone = begin(&cluster.endpoint(hanging), "5s", &["elect", "l", "two"]);
    stands_in_line(&cluster, other, 2).await;

    cluster.signal(hanging, "STOP");
    signal(holder.id(), "INT");
    let ended = outcome(holder);
    assert_eq!((ended.code, ended.errors.as_str()), (0, ""));
    // Long before the leases end, and at once.
    assert_eq!(in_line(&cluster, other).await, Some(1), "what is given up is gone");

    signal(alone.id(), "INT");
    let ended = outcome(alone);
    assert_eq!(ended.code, 1);
    let told = ended.errors.lines().next().unwrap();
    assert!(told.starts_with("Warning: lease ") && told.contains("perhaps not revoked"), "{told}");

    let lock = outcome(begin(&all, "15s", &["lock", "other", "true"]));
    assert_eq!((lock.code, lock.errors.as_str()), (0, ""));
}

/// Waits until so many stand in line for the lock, as a member says.
async fn stands_in_line(cluster: &Cluster, at: usize, count: i64) {
    eventually("so many stand in line", async || {
        (in_line(cluster, at).await? == count).then_some(())
    })
    .await;
}

/// How many stand in line for the lock, as a member says; nothing when it does not answer.
async fn in_line(cluster: &Cluster, at: usize) -> Option<i64> {
    let range = RangeRequest {
        key: "l/".into(),
        range_end: "l0".into(),
        count_only: true,
        ..Default::default()
    };
    Some(KvClient::new(cluster.channel(at)).range(range).await.ok()?.into_inner().count)
}
