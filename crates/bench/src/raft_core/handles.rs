//! Proposals through the handle of a node: etcd's `BenchmarkOneNode` and `BenchmarkProposal3Nodes`.
//!
//! Each node is a task with a driver beside it, all on one thread; messages between nodes go through
//! channels, as they are. What is measured therefore includes the tasks and their channels.

use std::time::Duration;

use bytes::Bytes;
use quorate_node::Node;
use quorate_raft::{Body, ConfState, Config, MemoryStorage, Message, Ready, Snapshot};
use quorate_types::{Index, NodeId};
use tokio::sync::{mpsc, watch};

use super::measure::{self, median};
use super::small::CallCost;
use super::{APPEND_BYTES_MAX, ELECTION_TICKS, INFLIGHT_COUNT_MAX};

const PROPOSALS: u64 = 5_000;
/// A message that meets a full inbox is lost; the next heartbeat makes up for it.
const INBOX_MAX: usize = 4_096;
const TICK: Duration = Duration::from_millis(5);

/// What a proposal costs from its handle to its commit, with one node and with three.
pub fn proposals(repeats: usize) -> Vec<CallCost> {
    let cost = |members, call| {
        let cpu_ns = median((0..repeats).map(|_| {
            let cost = proposing(members);
            cost.cpu.as_secs_f64() * 1e9 / PROPOSALS as f64
        }));
        CallCost { members, call, cpu_ns }
    };
    vec![cost(1, "Node::propose (BenchmarkOneNode)"), cost(3, "the same (BenchmarkProposal3Nodes)")]
}

/// What it costs to propose [`PROPOSALS`] times and to see all of it committed.
fn proposing(members: u64) -> measure::Cost {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime needs nothing");
    let (nodes, mut commit) = runtime.block_on(group(members));
    let before = commit.borrow_and_update().0;
    let payload = Bytes::from_static(b"somedata");
    let cost = measure::cost(|| {
        runtime.block_on(async {
            for _ in 0..PROPOSALS {
                nodes[0].propose(payload.clone()).await.expect("it leads");
            }
            let done = commit.wait_for(|commit| before + PROPOSALS <= commit.0).await;
            done.expect("the leader goes on");
        });
    });
    runtime.block_on(async {
        for node in &nodes {
            node.stop().await;
        }
    });
    cost
}

/// Nodes of a new group, of which the first leads, and what that one knows to be committed.
async fn group(members: u64) -> (Vec<Node>, watch::Receiver<Index>) {
    let voters: Vec<NodeId> = (1..=members).map(NodeId).collect();
    let (inboxes, received): (Vec<_>, Vec<_>) =
        voters.iter().map(|_| mpsc::channel(INBOX_MAX)).unzip();
    let (committed, mut commit) = watch::channel(Index(0));
    let mut nodes = Vec::new();
    for (id, inbox) in voters.iter().zip(received) {
        let mut first = Snapshot::default();
        first.metadata.conf_state = ConfState { voters: voters.clone(), ..ConfState::default() };
        let log = MemoryStorage::new();
        log.apply_snapshot(first).expect("the log is empty");
        let config = Config {
            election_tick: ELECTION_TICKS,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_COUNT_MAX,
            ..Config::new(*id)
        };
        let node = Node::restart(config, log.clone()).expect("the options are good");
        let committed = (id.0 == 1).then(|| committed.clone());
        let driver = Driver { node: node.clone(), log, peers: inboxes.clone(), committed };
        tokio::spawn(driver.run(inbox));
        nodes.push(node);
    }
    nodes[0].campaign().await.expect("it runs");
    // The empty entry of its term.
    commit.wait_for(|commit| Index(1) <= *commit).await.expect("its driver runs");
    (nodes, commit)
}

struct Driver {
    node: Node,
    log: MemoryStorage,
    peers: Vec<mpsc::Sender<Message>>,
    committed: Option<watch::Sender<Index>>,
}

impl Driver {
    async fn run(self, mut inbox: mpsc::Receiver<Message>) {
        let mut ticker = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                ready = self.node.ready() => match ready {
                    Ok(ready) => self.work(ready).await,
                    Err(_stopped) => return,
                },
                Some(message) = inbox.recv() => {
                    // What it refuses is for its peers to say again.
                    let _ = self.node.step(message).await;
                }
                _ = ticker.tick() => {
                    self.node.tick();
                }
            }
        }
    }

    async fn work(&self, ready: Ready) {
        self.log.append_shared(&ready.entries).expect("entries follow each other");
        if let Some(hard_state) = ready.hard_state {
            self.log.set_hard_state(hard_state);
            if let Some(committed) = &self.committed {
                committed.send_replace(hard_state.commit);
            }
        }
        for message in ready.messages {
            assert!(!matches!(message.body, Body::Snapshot { .. }), "nothing is compacted");
            let _ = self.peers[message.to.0 as usize - 1].try_send(message);
        }
        self.node.advance().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_is_committed() {
        for members in [1, 3] {
            assert!(proposing(members).cpu > Duration::ZERO, "{members}");
        }
    }
}
