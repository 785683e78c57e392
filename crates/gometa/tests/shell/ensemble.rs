//! Voters: elections, broadcast, those who die, come back, or stand still.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_gometa::{
    ActionError, ElectionSite, Ended, Kill, Lanes, MemoryActions, NoCustomRequests, RequestQueue,
    ServerError, SiteConfig, SiteError, run_follower_server, run_leader_server, run_server,
};
use quorate_types::NodeId;
use quorate_zab::{Command, Outcome, QuorumVerifier, Quorums};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

use crate::doors::throw_junk;
use crate::failing::Failing;
use crate::harness::*;

/// Silence is noticed soon.
const QUICK: Tune = |config| {
    config.engine.keepalive_ms = 100;
    config.engine.peer_silence_ms = 600;
    config.engine.accept_timeout_ms = 600;
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_elect_a_leader_and_all_apply_what_each_asks_for() {
    let nodes = ensemble(3, |_| {}).await;
    let leader = leader(&nodes);
    for (at, node) in nodes.iter().enumerate() {
        let key = format!("from {at}");
        node.must_set(&key, "x").await;
        assert_eq!(node.value(&key).as_deref(), Some("x"), "the asker has it once it is told");
    }
    until("it is everywhere", || nodes.iter().all(|node| node.actions.count() == 3)).await;
    agree(&nodes.iter().map(|node| &node.actions).collect::<Vec<_>>()).await;
    until("both follow", || nodes[leader].status().active_ensemble_size == 3).await;
    let name = quorate_gometa::address(nodes[leader].peer.message);
    assert!(nodes.iter().all(|node| node.status().leader.as_ref() == Some(&name)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_and_leaders_die_and_come_back() {
    let mut nodes = ensemble(3, |_| {}).await;
    let members = members(&nodes);
    for round in 0..4 {
        let leading = leader(&nodes);
        // A follower first, then the leader, and again.
        let dies = if round % 2 == 0 { (leading + 1) % 3 } else { leading };
        let before = format!("before {round}");
        nodes[(dies + 1) % 3].must_set(&before, "x").await;
        let (peer, actions) = nodes.remove(dies).end().await;
        let meanwhile = format!("meanwhile {round}");
        // The two that are left may still be about to notice.
        nodes[0].insist(&meanwhile, "y").await;
        let lanes = Lanes::bind(peer.election, peer.message).await.unwrap();
        nodes.push(Node::start(lanes, peer, &members, actions, |_| {}).await);
        for node in &nodes {
            node.serves().await;
        }
        until("one that was away has all", || {
            nodes.iter().all(|node| node.value(&meanwhile).is_some())
        })
        .await;
        assert!(nodes.iter().all(|node| node.value(&before).is_some()), "nothing is lost");
    }
    agree(&nodes.iter().map(|node| &node.actions).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stands_still_stalls_nobody() {
    let nodes = ensemble(3, QUICK).await;
    let leading = leader(&nodes);
    let still = (leading + 1) % 3;
    nodes[still].stop(true);
    let began = Instant::now();
    for number in 0..100 {
        nodes[leading].must_set(&number.to_string(), "x").await;
    }
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    until("the leader gives it up", || nodes[leading].status().active_ensemble_size == 2).await;
    nodes[still].stop(false);
    until("it catches up", || nodes[still].actions.count() == 100).await;
    agree(&nodes.iter().map(|node| &node.actions).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_is_replaced() {
    let nodes = ensemble(3, QUICK).await;
    let old = leader(&nodes);
    nodes[old].must_set("before", "x").await;
    nodes[old].stop(true);
    let others: Vec<&Node> = (0..3).filter(|at| *at != old).map(|at| &nodes[at]).collect();
    let name = quorate_gometa::address(nodes[old].peer.message);
    until("another one leads", || {
        let statuses = others.iter().map(|node| node.status());
        statuses.into_iter().all(|now| now.is_serving && now.leader.as_ref() != Some(&name))
    })
    .await;
    others[0].must_set("after", "y").await;
    nodes[old].stop(false);
    until("it follows", || nodes[old].value("after").is_some()).await;
    agree(&nodes.iter().map(|node| &node.actions).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_resigns_when_asked_and_nothing_is_lost() {
    let nodes = ensemble(3, |_| {}).await;
    let old = leader(&nodes);
    let epoch = nodes[old].status().epoch;
    nodes[old].must_set("before", "x").await;
    nodes[old].handle.resign().await;
    until("a later epoch", || nodes.iter().all(|node| epoch < node.status().epoch)).await;
    for node in &nodes {
        node.serves().await;
        // What is committed is applied beside what the node does next.
        until("it is applied", || node.value("before").as_deref() == Some("x")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_writes_pass_an_idle_connection() {
    let nodes = ensemble(3, |_| {}).await;
    let leading = leader(&nodes);
    let mut idle = TcpStream::connect(nodes[leading].peer.message).await.unwrap();
    let requests = &nodes[leading].requests;
    let mut askers = Vec::new();
    for asker in 0..100 {
        let requests = Arc::clone(requests);
        askers.push(tokio::spawn(async move {
            for number in 0..200 {
                let key = format!("{asker}/{number}");
                let outcome = requests.request(Command::set(&key, "x")).await;
                assert!(matches!(outcome, Outcome::Committed { .. }), "{key}: {outcome:?}");
            }
        }));
    }
    for asker in askers {
        asker.await.unwrap();
    }
    until("all have all", || nodes.iter().all(|node| node.actions.count() == 20_000)).await;
    agree(&nodes.iter().map(|node| &node.actions).collect::<Vec<_>>()).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut idle).await;
}

/// All at once: somebody connects and says nothing, junk comes to every port, a follower stands still, then
/// the leader does. No write waits for longer than it takes to notice that, and to find another leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_twenty_thousand_is_held_up_for_long_whatever_stands_still() {
    let nodes = Arc::new(ensemble(3, QUICK).await);
    let leading = leader(&nodes);
    let (still, asked) = ((leading + 1) % 3, (leading + 2) % 3);
    let socket = UdpSocket::bind(ANY).await.unwrap();
    let _idle = TcpStream::connect(nodes[leading].peer.message).await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let mut askers = Vec::new();
    for asker in 0..100 {
        let (nodes, done) = (Arc::clone(&nodes), Arc::clone(&done));
        askers.push(tokio::spawn(async move {
            for number in 0..200 {
                // It says so if one waits for too long.
                nodes[asked].insist(&format!("{asker}/{number}"), "x").await;
                done.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let after = async |count: usize| {
        let is_there = || count <= done.load(Ordering::SeqCst);
        until("writes go on", is_there).await;
    };
    after(2_000).await;
    let _open = throw_junk(&nodes, &socket).await;
    after(4_000).await;
    nodes[still].stop(true);
    after(8_000).await;
    nodes[still].stop(false);
    let has = |key: &str| nodes[still].value(key).is_some();
    until("it catches up", || (0..100).all(|asker| has(&format!("{asker}/0")))).await;
    after(12_000).await;
    nodes[leading].stop(true);
    after(16_000).await;
    nodes[leading].stop(false);
    for asker in askers {
        asker.await.unwrap();
    }
    until("all have all", || nodes.iter().all(|node| node.actions.count() == 20_000)).await;
    agree(&nodes.iter().map(|node| &node.actions).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kill_switch_ends_all_and_frees_the_ports() {
    let mut nodes = ensemble(3, |_| {}).await;
    let leading = leader(&nodes);
    let mut connected = TcpStream::connect(nodes[leading].peer.message).await.unwrap();
    let node = nodes.swap_remove(leading);
    let (requests, handle) = (Arc::clone(&node.requests), node.handle.clone());
    let began = Instant::now();
    node.kill.kill(); // before it is killed again
    let (peer, actions) = node.end().await;
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert_eq!(requests.pending_count(), 0);
    assert_eq!(Arc::strong_count(&actions), 1, "nobody holds on to the application");
    let mut scratch = [0; 16];
    let read = tokio::io::AsyncReadExt::read(&mut connected, &mut scratch);
    let read = timeout(LONG, read).await.expect("the connection ends");
    assert!(matches!(read, Ok(0) | Err(_)));
    UdpSocket::bind(peer.election).await.expect("the election port is free");
    TcpListener::bind(peer.message).await.expect("the message port is free");
    // What is asked of a node that is gone is refused, not waited for.
    let (request, outcome) = quorate_gometa::RequestHandle::new(Command::set("late", "x"));
    handle.queue_request(request).await;
    assert!(matches!(outcome.await, Ok(Outcome::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_requests_wait_and_are_refused_at_the_end() {
    let mut nodes = ensemble(3, |_| {}).await;
    let last = nodes.remove(leader(&nodes));
    for node in nodes {
        node.end().await;
    }
    let requests = Arc::clone(&last.requests);
    until("it looks", || !last.status().is_serving).await;
    let asked = tokio::spawn(async move { requests.request(Command::set("x", "y")).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    last.requests.close().await;
    let outcome = timeout(LONG, asked).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    last.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_one_serves_without_anybody() {
    let (lanes, own) = ports().await;
    let actions = Arc::new(MemoryActions::new());
    let node = Node::start(lanes, own, &[own], actions, |_| {}).await;
    node.must_set("x", "1").await;
    let (peer, actions) = node.end().await;
    let lanes = Lanes::bind(peer.election, peer.message).await.unwrap();
    let node = Node::start(lanes, own, &[own], actions, |_| {}).await;
    node.must_set("y", "2").await;
    assert_eq!(node.value("x").as_deref(), Some("1"));
    assert_eq!(node.actions.applied().len(), 2, "nothing is applied twice");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_may_be_run_by_hand() {
    let mut bound = Vec::new();
    for _ in 0..3 {
        bound.push(ports().await);
    }
    let members: Vec<_> = bound.iter().map(|(_, own)| *own).collect();
    let (kill, mut tasks) = (Kill::new(), Vec::new());
    for (lanes, own) in bound {
        let (config, kill) = (SiteConfig::voter(own, &members), kill.clone());
        tasks.push(tokio::spawn(async move {
            let actions = Arc::new(MemoryActions::new());
            let mut site = ElectionSite::create(config, lanes, actions.clone()).await.unwrap();
            let requests = RequestQueue::new(10);
            let winner = site.start_election(&kill).await.unwrap().expect("a winner");
            let is_leader = winner == site.own().election;
            // The other role's server knows that it is not its turn.
            let other = match is_leader {
                true => {
                    run_follower_server(&mut site, &"127.0.0.1:1".into(), &requests, &kill).await
                }
                false => run_leader_server(&mut site, &requests, &kill).await,
            };
            assert!(matches!(other, Err(ServerError::NotElected(_))), "{other:?}");
            let asking = async {
                let asked = requests.request(Command::set("x", "1")).await;
                assert!(matches!(asked, Outcome::Committed { .. }), "{asked:?}");
                until("all have asked", || actions.applied().len() == 3).await;
            };
            let served = async {
                match is_leader {
                    true => run_leader_server(&mut site, &requests, &kill).await,
                    false => run_follower_server(&mut site, &winner, &requests, &kill).await,
                }
            };
            let ends = async {
                asking.await;
                sleep(Duration::from_millis(200)).await;
                kill.kill();
            };
            let (ended, ()) = tokio::join!(served, ends);
            let ended = ended.unwrap();
            assert!(matches!(ended, Ended::Killed | Ended::Left(_)), "{ended:?}");
            if ended == Ended::Killed {
                assert!(site.is_closed());
                assert!(matches!(site.start_election(&kill).await, Ok(None)));
                let again = run_leader_server(&mut site, &requests, &kill).await;
                assert!(matches!(again, Err(ServerError::Site(_))));
            }
            is_leader
        }));
    }
    let mut leaders = 0;
    for task in tasks {
        leaders += usize::from(timeout(LONG, task).await.unwrap().unwrap());
    }
    assert_eq!(leaders, 1);
}

/// The first member counts twice.
#[derive(Debug)]
struct FirstCountsTwice;

impl QuorumVerifier for FirstCountsTwice {
    fn has_quorum(&self, members: &BTreeSet<NodeId>) -> bool {
        3 <= members.len() + usize::from(members.contains(&NodeId(1)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_of_the_ensembles_own_decides_who_is_enough() {
    let mut nodes = ensemble(4, |config| {
        config.engine.quorums = Quorums::of(Arc::new(FirstCountsTwice));
    })
    .await;
    // Members are numbered in the order of their addresses; the first and any other one go on.
    nodes.sort_by_key(|node| node.peer);
    for node in nodes.drain(2..) {
        node.end().await;
    }
    nodes[1].insist("two of four", "x").await;
    // Without the first, the other one does not.
    nodes.remove(0).end().await;
    until("it looks", || !nodes[0].status().is_serving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_ends_the_node_and_nothing_is_acknowledged() {
    let (lanes, own) = ports().await;
    let actions = Arc::new(Failing::default());
    let config = SiteConfig::voter(own, &[own]);
    let mut site = ElectionSite::create(config, lanes, actions.clone()).await.unwrap();
    let (requests, kill) = (RequestQueue::new(10), Kill::new());
    let ask = async {
        let first = requests.request(Command::set("x", "1")).await;
        assert!(matches!(first, Outcome::Committed { .. }), "{first:?}");
        actions.fails.store(true, Ordering::SeqCst);
        requests.request(Command::set("y", "2")).await
    };
    let run = run_server(&mut site, &requests, None::<&NoCustomRequests>, &kill);
    let (ended, outcome) = timeout(LONG, async { tokio::join!(run, ask) }).await.unwrap();
    assert!(matches!(ended, Err(SiteError::Action(ActionError(why))) if why == "disk full"));
    assert_eq!(outcome, Outcome::Unknown, "it may be on the disk, or not");
    assert!(site.is_closed());
    assert!(matches!(site.start_election(&kill).await, Ok(None)));
    TcpListener::bind(own.message).await.expect("its ports are free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_ends_when_there_will_be_no_more_requests() {
    let (lanes, own) = ports().await;
    let node = Node::start(lanes, own, &[own], Arc::default(), |_| {}).await;
    node.must_set("x", "1").await;
    node.requests.close().await;
    let outcome = node.set("y", "2").await;
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    until("its port is free", || std::net::TcpListener::bind(own.message).is_ok()).await;
    node.end().await;
}
