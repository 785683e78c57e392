//! One node driven by hand, and what tests say about waiting.

use std::future::Future;
use std::time::Duration;

use quorate_node::{Limits, Node};
use quorate_raft::{
    Body, ConfState, Config, Entry, EntryType, MemoryStorage, Message, RawNode, Ready, Role,
    Snapshot, SnapshotMetadata, Storage, decode_conf_change,
};
use quorate_types::{EntryId, Index, NodeId, Term};

/// A node and the log it reads.
pub(crate) struct Embedder {
    pub(crate) node: Node,
    pub(crate) log: MemoryStorage,
}

impl Embedder {
    /// Node 1 of a group with these voters, none of which was ever elected.
    pub(crate) fn new(voters: &[u64], adjust: impl FnOnce(&mut Config)) -> Self {
        Self::with(voters, adjust, Limits::default())
    }

    pub(crate) fn with(voters: &[u64], adjust: impl FnOnce(&mut Config), limits: Limits) -> Self {
        let log = log_of(voters);
        let mut config = config();
        adjust(&mut config);
        let (node, task) = Node::new(RawNode::new(config, log.clone()).unwrap(), limits);
        tokio::spawn(task.run());
        Embedder { node, log }
    }

    /// Takes a Ready and writes it; whoever calls this advances.
    pub(crate) async fn take(&self) -> Ready {
        let ready = soon(self.node.ready()).await.unwrap();
        write(&self.log, &ready);
        ready
    }

    /// Takes a Ready and does all of it.
    pub(crate) async fn turn(&self) -> Ready {
        let ready = self.take().await;
        for entry in &ready.committed_entries {
            if entry.entry_type() != EntryType::Normal {
                let change = decode_conf_change(entry.entry_type(), entry.payload()).unwrap();
                self.node.apply_conf_change(change).await.unwrap();
            }
        }
        self.node.advance().await;
        ready
    }

    /// Turns for as long as there is work; what was committed in them.
    pub(crate) async fn settle(&self) -> Vec<Entry> {
        let mut committed = Vec::new();
        while let Ok(ready) = tokio::time::timeout(Duration::from_millis(1), self.turn()).await {
            committed.extend(ready.committed_entries);
        }
        committed
    }

    /// Makes it the leader, with votes of `others`.
    pub(crate) async fn lead(&self, others: &[u64]) {
        self.node.campaign().await.unwrap();
        self.settle().await;
        let term = self.node.status().await.basic.hard_state.term;
        for &id in others {
            self.step(id, term.0, Body::VoteReply { reject: false }).await;
        }
        self.settle().await;
        assert_eq!(self.role().await, Role::Leader);
    }

    pub(crate) async fn step(&self, from: u64, term: u64, body: Body) {
        soon(self.node.step(message(from, term, body))).await.unwrap();
    }

    pub(crate) async fn role(&self) -> Role {
        self.node.status().await.basic.soft_state.role
    }
}

/// What `future` comes to, which it must without any time passing but for retries.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it comes to something")
}

/// Whether `future` waits for something that does not happen.
pub(crate) async fn blocks<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_secs(10), future).await.is_err()
}

pub(crate) fn config() -> Config {
    Config {
        id: NodeId(1),
        election_tick: 10,
        heartbeat_tick: 1,
        max_size_per_msg: u64::MAX,
        max_inflight_msgs: 256,
        ..Config::default()
    }
}

/// A log that holds nothing but a membership.
pub(crate) fn log_of(voters: &[u64]) -> MemoryStorage {
    let log = MemoryStorage::new();
    log.apply_snapshot(snapshot(0, 0, voters)).unwrap();
    log
}

pub(crate) fn snapshot(index: u64, term: u64, voters: &[u64]) -> Snapshot {
    let voters = voters.iter().copied().map(NodeId).collect();
    let conf_state = ConfState { voters, ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index: Index(index), term: Term(term) };
    Snapshot { metadata, ..Snapshot::default() }
}

pub(crate) fn entry(index: u64, term: u64, data: &'static str) -> Entry {
    let data = Some(data.into());
    Entry { index: Index(index), term: Term(term), data, ..Entry::default() }
}

pub(crate) fn message(from: u64, term: u64, body: Body) -> Message {
    Message { to: NodeId(1), from: NodeId(from), term: Term(term), body }
}

/// An append of a leader: `entries` after the entry at `index`, of `term`.
pub(crate) fn append(prev: (u64, u64), entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append {
        prev: EntryId::new(prev.1, prev.0),
        entries: entries.into(),
        commit: Index(commit),
    }
}

pub(crate) fn heartbeat() -> Body {
    Body::Heartbeat { commit: Index(0), context: Default::default() }
}

/// Does what a Ready says to the log.
pub(crate) fn write(log: &MemoryStorage, ready: &Ready) {
    if let Some(snapshot) = &ready.snapshot {
        log.apply_snapshot(snapshot.clone()).unwrap();
    }
    log.append(&ready.entries).unwrap();
    if let Some(hard_state) = ready.hard_state {
        log.set_hard_state(hard_state);
    }
}

/// The data of entries that have any.
pub(crate) fn data(entries: &[Entry]) -> Vec<&str> {
    let data = entries.iter().filter(|entry| entry.entry_type() == EntryType::Normal);
    let data = data.map(|entry| std::str::from_utf8(entry.payload()).unwrap());
    data.filter(|data| !data.is_empty()).collect()
}

/// A storage that gives everything at once, whatever the limit.
pub(crate) struct NoLimit(pub(crate) MemoryStorage);

impl Storage for NoLimit {
    fn initial_state(&self) -> Result<quorate_raft::InitialState, quorate_raft::StorageError> {
        self.0.initial_state()
    }

    fn entries(
        &self,
        lo: Index,
        hi: Index,
        _max_size: u64,
    ) -> Result<quorate_raft::Entries, quorate_raft::StorageError> {
        self.0.entries(lo, hi, u64::MAX)
    }

    fn term(&self, index: Index) -> Result<Term, quorate_raft::StorageError> {
        self.0.term(index)
    }

    fn last_index(&self) -> Result<Index, quorate_raft::StorageError> {
        self.0.last_index()
    }

    fn first_index(&self) -> Result<Index, quorate_raft::StorageError> {
        self.0.first_index()
    }

    fn snapshot(&self) -> Result<Snapshot, quorate_raft::StorageError> {
        self.0.snapshot()
    }
}
