//! Locks and elections across members, through a change of the cluster's leader; and how the commands end.

use std::io::{BufRead, BufReader};

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, RangeRequest};
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{CampaignRequest, LeaderRequest};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};

use crate::harness::{Cluster, PATIENCE, eventually, outcome, quorate, signal, start};

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
    let line = async |count: i64| {
        eventually("so many stand in line", async || {
            let range = RangeRequest {
                key: "l/".into(),
                range_end: "l0".into(),
                count_only: true,
                ..Default::default()
            };
            let answer = KvClient::new(cluster.channel(0)).range(range).await.ok()?.into_inner();
            (answer.count == count).then_some(())
        })
        .await;
    };
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
