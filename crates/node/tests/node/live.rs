//! Five nodes, each with its own loop, over the network of `network.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_node::{Limits, Node, ProposalError};
use quorate_raft::{Body, Config, EntryType, MemoryStorage, RawNode, Role, decode_conf_change};
use quorate_types::{Index, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::embedder::{config, log_of, write};
use crate::network::Network;

const NODES: [u64; 5] = [1, 2, 3, 4, 5];
const TICK: Duration = Duration::from_millis(5);

struct Cluster {
    network: Network,
    adjust: fn(&mut Config),
    members: BTreeMap<NodeId, Member>,
}

struct Member {
    node: Node,
    log: MemoryStorage,
    applied: Arc<Mutex<Vec<(Index, Bytes)>>>,
    pause: watch::Sender<bool>,
    driver: JoinHandle<()>,
}

impl Cluster {
    fn new(seed: u64, adjust: fn(&mut Config)) -> Self {
        let mut cluster = Cluster { network: Network::new(seed), adjust, members: BTreeMap::new() };
        for id in NODES.map(NodeId) {
            cluster.start(id, log_of(&NODES), Arc::default());
        }
        cluster
    }

    fn start(&mut self, id: NodeId, log: MemoryStorage, applied: Arc<Mutex<Vec<(Index, Bytes)>>>) {
        let mut config = Config { id, seed: 7, ..config() };
        config.applied = applied.lock().unwrap().last().map_or(Index(0), |(index, _)| *index);
        (self.adjust)(&mut config);
        let raw = RawNode::new(config, log.clone()).unwrap();
        let (node, task) = Node::new(raw, Limits::default());
        tokio::spawn(task.run());
        let (pause, paused) = watch::channel(false);
        let driver = tokio::spawn(drive(
            node.clone(),
            log.clone(),
            applied.clone(),
            self.network.clone(),
            self.network.join(id),
            paused,
        ));
        self.members.insert(id, Member { node, log, applied, pause, driver });
    }

    async fn stop(&mut self, id: NodeId) -> (MemoryStorage, Arc<Mutex<Vec<(Index, Bytes)>>>) {
        let member = self.members.remove(&id).unwrap();
        member.node.stop().await;
        member.driver.await.unwrap();
        (member.log, member.applied)
    }

    async fn leader(&self) -> NodeId {
        for _ in 0..10_000 {
            for (id, member) in &self.members {
                let status = member.node.status().await;
                if status.basic.soft_state.role == Role::Leader {
                    return *id;
                }
            }
            tokio::time::sleep(TICK).await;
        }
        panic!("nobody was elected");
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.members[&id].node
    }

    /// Proposes on `id`, and trusts.
    async fn propose(&self, id: NodeId, data: std::ops::Range<u64>) {
        for number in data {
            self.node(id).propose(format!("{number}")).await.unwrap();
        }
    }

    fn applied(&self, id: NodeId) -> Vec<Bytes> {
        let applied = self.members[&id].applied.lock().unwrap();
        applied.iter().map(|(_, data)| data.clone()).filter(|data| !data.is_empty()).collect()
    }

    /// Waits until all have applied `count` commands, and gives them: they must be the same.
    async fn converge(&self, count: usize) -> Vec<Bytes> {
        for _ in 0..10_000 {
            if self.members.keys().all(|id| count <= self.applied(*id).len()) {
                let first = self.applied(NodeId(1));
                for id in self.members.keys() {
                    assert_eq!(self.applied(*id), first, "node {id}");
                }
                return first;
            }
            tokio::time::sleep(TICK).await;
        }
        let counts: Vec<_> = self.members.keys().map(|id| self.applied(*id).len()).collect();
        panic!("{count} commands were to be applied, not {counts:?}");
    }
}

/// The loop of one node.
async fn drive(
    node: Node,
    log: MemoryStorage,
    applied: Arc<Mutex<Vec<(Index, Bytes)>>>,
    network: Network,
    mut inbox: mpsc::Receiver<quorate_raft::Message>,
    mut paused: watch::Receiver<bool>,
) {
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        // Nothing happens meanwhile; what comes waits, or meets a full inbox.
        if paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        let ready = tokio::select! {
            biased;
            _ = clock.tick() => {
                node.tick();
                continue;
            }
            Some(message) = inbox.recv() => {
                // A proposal may wait for a leader, whom other messages bring.
                let node = node.clone();
                match message.body {
                    Body::Propose { .. } => drop(tokio::spawn(async move { node.step(message).await })),
                    _ => drop(node.step(message).await),
                }
                continue;
            }
            ready = node.ready() => match ready {
                Ok(ready) => ready,
                Err(_) => return,
            },
        };
        write(&log, &ready);
        // Disks take their time.
        tokio::time::sleep(Duration::from_millis(1)).await;
        ready.messages.into_iter().for_each(|message| network.send(message));
        for entry in ready.committed_entries {
            match entry.entry_type() {
                EntryType::Normal => {
                    let data = entry.data.clone().unwrap_or_default();
                    applied.lock().unwrap().push((entry.index, data));
                }
                kind => {
                    let change = decode_conf_change(kind, entry.payload()).unwrap();
                    let _ = node.apply_conf_change(change).await;
                }
            }
        }
        node.advance().await;
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|number| Bytes::from(format!("{number}"))).collect()
}

/// The two nodes after `leader`.
fn next_two(leader: NodeId) -> (NodeId, NodeId) {
    (NodeId(leader.0 % 5 + 1), NodeId((leader.0 + 1) % 5 + 1))
}

#[tokio::test(start_paused = true)]
async fn five_nodes_commit_a_hundred_proposals_alike() {
    let cluster = Cluster::new(1, |_| {});
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..100).await;
    assert_eq!(cluster.converge(100).await, numbers(0..100));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_stop_and_restart_catch_up() {
    let mut cluster = Cluster::new(2, |_| {});
    let leader = cluster.leader().await;
    let (one, two) = next_two(leader);
    cluster.propose(leader, 0..30).await;
    let (one_log, one_applied) = cluster.stop(one).await;
    cluster.propose(leader, 30..60).await;
    let (two_log, two_applied) = cluster.stop(two).await;
    cluster.propose(leader, 60..90).await;
    cluster.start(two, two_log, two_applied);
    cluster.propose(leader, 90..120).await;
    cluster.start(one, one_log, one_applied);
    assert_eq!(cluster.converge(120).await, numbers(0..120));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_pause_catch_up() {
    let cluster = Cluster::new(3, |_| {});
    let leader = cluster.leader().await;
    let (one, two) = next_two(leader);
    let pause = |id: NodeId, is_paused| cluster.members[&id].pause.send_replace(is_paused);
    cluster.propose(leader, 0..30).await;
    pause(one, true);
    cluster.propose(leader, 30..60).await;
    pause(two, true);
    cluster.propose(leader, 60..90).await;
    pause(two, false);
    cluster.propose(leader, 90..120).await;
    pause(one, false);
    assert_eq!(cluster.converge(120).await, numbers(0..120));
}

#[tokio::test(start_paused = true)]
async fn a_paused_leader_is_replaced_and_follows_when_it_comes_back() {
    let cluster = Cluster::new(4, |config| {
        config.check_quorum = true;
        config.pre_vote = true;
    });
    let old = cluster.leader().await;
    cluster.members[&old].pause.send_replace(true);
    let new = loop {
        tokio::time::sleep(20 * TICK).await;
        let mut leaders = Vec::new();
        for id in NODES.map(NodeId).into_iter().filter(|id| *id != old) {
            if cluster.node(id).status().await.basic.soft_state.role == Role::Leader {
                leaders.push(id);
            }
        }
        if let Some(leader) = leaders.first() {
            break *leader;
        }
    };
    cluster.propose(new, 0..10).await;
    cluster.members[&old].pause.send_replace(false);
    assert_eq!(cluster.converge(10).await, numbers(0..10));
    assert_eq!(cluster.node(old).status().await.basic.soft_state.role, Role::Follower);
}

/// Losses, delays and a cut that moves: what was called committed is applied everywhere, once; what
/// was called safe to retry, nowhere.
#[tokio::test(start_paused = true)]
async fn outcomes_are_true_on_a_bad_network() {
    let cluster = Cluster::new(5, |config| {
        config.check_quorum = true;
        config.pre_vote = true;
    });
    for from in NODES.map(NodeId) {
        for to in NODES.map(NodeId) {
            cluster.network.lose(from, to, 5);
            cluster.network.delay(from, to, 50, Duration::from_millis(10));
        }
    }
    let mut calls = Vec::new();
    for round in 0..40_u64 {
        let cut = NodeId(round / 4 % 5 + 1);
        cluster.network.set_cut(cut, round % 4 < 2);
        for id in NODES.map(NodeId) {
            for number in 0..5 {
                let node = cluster.node(id).clone();
                let data = format!("{round}.{id}.{number}");
                calls.push(tokio::spawn(async move {
                    let outcome = node.propose_and_wait(data.clone());
                    (data, tokio::time::timeout(Duration::from_secs(60), outcome).await)
                }));
            }
            tokio::time::sleep(3 * TICK).await;
        }
        tokio::time::sleep(10 * TICK).await;
    }
    NODES.iter().for_each(|id| cluster.network.set_cut(NodeId(*id), false));
    let (mut committed, mut never, mut superseded) = (Vec::new(), Vec::new(), 0);
    for call in calls {
        let (data, outcome) = call.await.unwrap();
        let outcome = outcome.expect("on a network that works again everything is decided");
        match outcome {
            Ok(at) => committed.push((at.index, Bytes::from(data))),
            Err(error) if error.is_safe_to_retry() => {
                superseded += u32::from(matches!(error, ProposalError::Superseded { .. }));
                never.push(Bytes::from(data));
            }
            Err(error) => panic!("nothing was stopped or covered: {error}"),
        }
    }
    assert!(50 < committed.len() && 0 < superseded, "{} {superseded}", committed.len());
    let applied = cluster.converge(committed.len()).await;
    let places = cluster.members[&NodeId(1)].applied.lock().unwrap().clone();
    for place in &committed {
        assert_eq!(places.iter().filter(|applied| *applied == place).count(), 1, "{place:?}");
    }
    for data in never {
        assert!(!applied.contains(&data), "{data:?} was to be safe to retry");
    }
    assert_eq!(applied.len(), committed.len());
}
