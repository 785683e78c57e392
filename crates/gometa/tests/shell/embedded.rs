//! Leaders of one, which keep their state alone and no history, and whoever watches them: gometa's
//! "embedded" form, from both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_gometa::{
    ActionHandler, ElectionSite, Kill, Lanes, MemoryActions, Messages, MsgFactory,
    NoCustomRequests, Peer, RequestQueue, SiteConfig, run_embedded_server, run_watcher_server,
};
use quorate_types::Index;
use quorate_zab::{Command, Epoch, LogEntry, Message, Op, Outcome, Snapshot, Zxid};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, timeout};

use crate::doors::Wire;
use crate::failing::Failing;
use crate::harness::*;

/// A leader of one that forgets what it has applied as soon as it may.
async fn start(lanes: Lanes, own: Peer, actions: Arc<MemoryActions>) -> Node {
    Node::start(lanes, own, &[own], actions, |config| config.cache_bytes_max = 0).await
}

async fn must(node: &Node, command: Command) {
    let asked = timeout(LONG, node.requests.request(command)).await.expect("an outcome comes");
    assert!(matches!(asked, Outcome::Committed { .. }), "{asked:?}");
}

fn delete(key: &str) -> Command {
    Command { op: Op::DELETE, ..Command::set(key, "") }
}

/// Until nothing of what is applied is in the log.
async fn forgets(node: &Node) {
    let has_forgotten = || {
        let start = node.actions.log_start().unwrap();
        start.1 == node.actions.last_committed_txid().unwrap() && start.1 != Zxid::ZERO
    };
    until("it has forgotten its history", has_forgotten).await;
}

/// A leader with the keys "a" and "c", and nothing of how that came about.
async fn without_history() -> Node {
    let (lanes, own) = ports().await;
    let node = start(lanes, own, Arc::new(MemoryActions::of_state())).await;
    for key in ["a", "b", "c"] {
        node.must_set(key, "1").await;
    }
    must(&node, delete("b")).await;
    forgets(&node).await;
    node
}

fn watch(leader: Peer, actions: &Arc<MemoryActions>) -> (Kill, JoinHandle<()>) {
    let mut config = SiteConfig::watcher_of("127.0.0.1:1".parse().unwrap(), leader.message);
    config.engine.backoff_ms = 20;
    let (kill, actions) = (Kill::new(), Arc::clone(actions));
    let switch = kill.clone();
    let run = async move { run_watcher_server(config, actions, &switch, None).await.unwrap() };
    (kill, tokio::spawn(run))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_a_leader_without_history_has_its_state() {
    let node = without_history().await;
    let actions = Arc::new(MemoryActions::new());
    let (kill, watcher) = watch(node.peer, &actions);
    until("it has the state", || actions.count() == 2).await;
    assert!(actions.applied().is_empty(), "and nothing of how it came about");
    node.must_set("d", "1").await;
    until("it goes on", || actions.value("d").is_some()).await;
    kill.kill();
    timeout(LONG, watcher).await.expect("a killed watcher ends").unwrap();

    // While it is away a key goes, in an epoch of its own.
    let (own, stored) = node.end().await;
    let lanes = Lanes::bind(own.election, own.message).await.unwrap();
    let node = start(lanes, own, stored).await;
    must(&node, delete("a")).await;
    node.must_set("e", "1").await;
    forgets(&node).await;
    let (kill, watcher) = watch(own, &actions);
    until("it is told", || actions.value("e").is_some()).await;
    assert_eq!((actions.value("a"), actions.count()), (None, 3), "what was deleted is gone");
    kill.kill();
    timeout(LONG, watcher).await.expect("a killed watcher ends").unwrap();
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gometa_watcher_of_a_leader_without_history_is_sent_a_state() {
    let node = without_history().await;
    let committed = node.actions.last_committed_txid().unwrap();
    for (logged, is_served) in [(Zxid::ZERO, true), (Zxid(committed.0 - 1), false)] {
        let mut wire = Wire::connect(&node).await;
        wire.send(&Messages.create_follower_info(Epoch(0), "10.0.0.1:9", false)).await;
        let Message::LeaderInfo(info) = wire.must().await else { panic!("LeaderInfo first") };
        wire.send(&Messages.create_epoch_ack(logged, Epoch(0))).await;
        if !is_served {
            assert_eq!(wire.next().await, None, "it must be emptied first");
            continue;
        }
        let entry = |zxid, key| {
            Message::LogEntry(LogEntry { zxid, command: Command::set(key, "1"), keep: None })
        };
        for want in [
            Message::LogEntry(LogEntry::begin(committed, None)),
            entry(Zxid(1), "a"),
            entry(committed, "c"),
            Message::LogEntry(LogEntry::end(committed)),
            Message::NewLeader { epoch: info.epoch },
        ] {
            assert_eq!(wire.must().await, want);
        }
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_watcher_takes_the_state_of_a_gometa_leader_in_place_of_its_own() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    let actions = Arc::new(MemoryActions::new());
    let (kill, watcher) = watch(Peer::new(address, address), &actions);
    for (epoch, keys, last) in [(1, &["a", "b"][..], 7), (2, &["b", "c"], 3)] {
        let (stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
        let mut wire = Wire::on(stream);
        let Message::FollowerInfo(info) = wire.must().await else { panic!("FollowerInfo first") };
        assert!(!info.voting);
        // As gometa says it, without a word of ours.
        wire.send(&Message::LeaderInfo(quorate_zab::LeaderInfo {
            epoch: Epoch(epoch),
            caps: None,
        }))
        .await;
        let Message::EpochAck(ack) = wire.must().await else { panic!("EpochAck next") };
        assert_eq!(ack.logged, Zxid::ZERO, "it must ask for everything");
        let committed = Zxid::new(Epoch(epoch), last);
        wire.send(&Message::LogEntry(LogEntry::begin(committed, None))).await;
        for (at, key) in (1..).zip(keys) {
            let zxid = if at == keys.len() as u64 { committed } else { Zxid(at) };
            let command = Command::set(key, "1");
            wire.send(&Message::LogEntry(LogEntry { zxid, command, keep: None })).await;
        }
        wire.send(&Message::LogEntry(LogEntry::end(committed))).await;
        wire.send(&Message::NewLeader { epoch: Epoch(epoch) }).await;
        assert_eq!(wire.must().await, Message::NewLeaderAck);
        let has = |key: &&str| actions.value(key).is_some();
        until("it has the state", || keys.iter().all(has) && actions.count() == keys.len()).await;
        assert_eq!(actions.last_committed_txid().unwrap(), committed);
    }
    kill.kill();
    timeout(LONG, watcher).await.expect("a killed watcher ends").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_server_begins_again_whatever_ended_its_leader() {
    let (lanes, own) = ports().await;
    let (mut lanes, actions) = (Some(lanes), Arc::new(Failing::default()));
    let (requests, kill) = (Arc::new(RequestQueue::new(10)), Kill::new());
    let opened = Arc::new(AtomicUsize::new(0));
    let (handles, mut sites) = tokio::sync::mpsc::unbounded_channel();
    let open = {
        let (actions, opened) = (actions.clone(), opened.clone());
        move || {
            opened.fetch_add(1, Ordering::SeqCst);
            let (bound, actions, handles) = (lanes.take(), actions.clone(), handles.clone());
            async move {
                let lanes = match bound {
                    Some(lanes) => lanes,
                    None => Lanes::bind(own.election, own.message).await?,
                };
                let site = ElectionSite::create(SiteConfig::embedded(own), lanes, actions).await?;
                handles.send(site.handle()).expect("the test listens");
                Ok(site)
            }
        }
    };
    let server = tokio::spawn({
        let (requests, kill) = (requests.clone(), kill.clone());
        async move { run_embedded_server(open, &*requests, None::<&NoCustomRequests>, &kill).await }
    });
    let insist = async |key: &str| {
        let began = Instant::now();
        loop {
            let asked = timeout(LONG, requests.request(Command::set(key, "1"))).await.unwrap();
            if matches!(asked, Outcome::Committed { .. }) {
                return;
            }
            assert!(began.elapsed() < LONG, "{key} in vain");
        }
    };
    insist("a").await;
    let handle = sites.recv().await.expect("it was opened");
    let epoch = handle.status().borrow().epoch;
    let began = Instant::now();
    handle.resign().await;
    let mut status = handle.status();
    let led_again = timeout(LONG, status.wait_for(|now| now.is_serving && epoch < now.epoch));
    led_again.await.expect("it leads again").expect("on the same site");
    assert!(Duration::from_millis(200) <= began.elapsed(), "{:?}", began.elapsed());
    insist("b").await;
    assert_eq!(opened.load(Ordering::SeqCst), 1);

    actions.fails.store(true, Ordering::SeqCst);
    insist("c").await;
    assert_eq!(opened.load(Ordering::SeqCst), 2, "opened anew, on the same ports");
    let has = |key: &str| actions.memory.value(key) == Some(Bytes::from_static(b"1"));
    assert!(["a", "b", "c"].into_iter().all(has));
    kill.kill();
    timeout(LONG, server).await.expect("a killed server ends").unwrap().unwrap();
}

#[test]
fn an_application_without_states_says_so() {
    let actions = Failing::default();
    assert!(actions.keeps_history() && !actions.takes_states());
    assert_eq!(actions.state(), Ok(None));
    assert_eq!(actions.log_start(), Ok((Index(0), Zxid::ZERO)));
    assert!(actions.install(&Snapshot::default()).is_err());
}
