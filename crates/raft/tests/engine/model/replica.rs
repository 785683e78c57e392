//! One node of the model: an engine, what its disk holds, and what its disk is about to hold.

use std::collections::VecDeque;

use quorate_raft::{
    AnyConfChange, AppliedChange, ConfState, Config, Entry, Error, HardState, MemoryStorage,
    Message, RawNode, Snapshot, Storage, StorageError,
};
use quorate_types::{Index, NodeId};

pub(super) struct Replica {
    pub(super) config: Config,
    pub(super) storage: MemoryStorage,
    pub(super) node: Option<RawNode<MemoryStorage>>,
    /// With asynchronous storage writes: one piece of work in so many turns gets done.
    pub(super) slowness: u64,
    /// Work of the storage threads, lost in a crash.
    pub(super) writes: VecDeque<Message>,
    pub(super) applies: VecDeque<Message>,
    /// Written and not synced, since nobody asked for that; lost in a crash.
    unsynced: Option<HardState>,
    pub(super) applied: u64,
    pub(super) conf_state: ConfState,
    /// Whom it hands leadership to, by its notes.
    pub(super) transferring: Option<NodeId>,
}

impl Replica {
    /// A node of a group that begins with `voters`.
    pub(super) fn new(config: Config, voters: Vec<NodeId>, slowness: u64) -> Self {
        let storage = MemoryStorage::new();
        let mut snapshot = Snapshot::default();
        snapshot.metadata.conf_state.voters = voters;
        storage.apply_snapshot(snapshot).unwrap();
        let mut replica = Replica {
            config,
            storage,
            node: None,
            slowness,
            writes: VecDeque::new(),
            applies: VecDeque::new(),
            unsynced: None,
            applied: 0,
            conf_state: ConfState::default(),
            transferring: None,
        };
        replica.start();
        replica
    }

    pub(super) fn start(&mut self) {
        let snapshot = self.storage.snapshot().unwrap();
        self.applied = snapshot.metadata.index.0;
        self.conf_state = snapshot.metadata.conf_state;
        // What is stored after the snapshot is applied anew; before it, it may be compacted later.
        let config = Config { applied: Index(self.applied), ..self.config.clone() };
        let node = RawNode::new(config, self.storage.clone());
        self.node = Some(node.unwrap_or_else(|error| panic!("node {}: {error}", self.config.id)));
    }

    pub(super) fn crash(&mut self) {
        self.node = None;
        self.transferring = None;
        self.writes.clear();
        self.applies.clear();
        self.unsynced = None;
    }

    /// Whether there is something to do for its driver.
    pub(super) fn has_work(&self) -> bool {
        let node = self.node.as_ref();
        node.is_some_and(|node| {
            node.has_ready() || !self.writes.is_empty() || !self.applies.is_empty()
        })
    }

    /// As it would be after a crash now.
    pub(super) fn hard_state(&self) -> HardState {
        self.storage.initial_state().unwrap().hard_state.unwrap_or_default()
    }

    /// Does what a Ready, or a message to the append thread, asks to be written. Says whether a
    /// snapshot in it was no news.
    pub(super) fn write(
        &mut self,
        hard_state: Option<HardState>,
        entries: &[Entry],
        snapshot: Option<&Snapshot>,
        must_sync: bool,
    ) -> bool {
        self.unsynced = hard_state.or(self.unsynced);
        if must_sync || snapshot.is_some() {
            self.unsynced.take().into_iter().for_each(|state| self.storage.set_hard_state(state));
        }
        let mut is_old = false;
        if let Some(snapshot) = snapshot {
            let index = snapshot.metadata.index;
            is_old = index.0 <= self.applied;
            match self.storage.apply_snapshot(snapshot.clone()) {
                Ok(()) => {}
                // It has made one at the same place itself, and asked for this one after that.
                Err(StorageError::SnapshotOutOfDate) => {
                    let own = self.storage.snapshot().unwrap();
                    assert_eq!((own.id(), self.storage.last_index()), (snapshot.id(), Ok(index)));
                }
                Err(error) => panic!("node {}: {error}", self.config.id),
            }
            self.applied = index.0;
            self.conf_state = snapshot.metadata.conf_state.clone();
        }
        self.storage.append(entries).unwrap();
        is_old
    }

    /// Says whether the membership is another now.
    pub(super) fn apply_change(&mut self, index: Index, change: &AnyConfChange) -> bool {
        match self.node.as_mut().unwrap().apply_conf_change_at(index, change) {
            Ok(AppliedChange::Changed(conf_state)) => {
                self.conf_state = conf_state;
                true
            }
            Ok(AppliedChange::Overtaken(_)) => false,
            // It removes the last voter, or comes at the wrong time: all refuse it alike.
            Err(Error::Change(_)) => false,
            Err(error) => panic!("node {}: {error}", self.config.id),
        }
    }
}
