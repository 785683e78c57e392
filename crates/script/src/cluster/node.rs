//! One node with its storage and its application, which appends to its state all that is applied.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use quorate_raft::{
    Body, Config, Entries, Entry, EntryType, HardState, InitialState, MemoryStorage, Message,
    RawNode, Ready, Snapshot, SnapshotMetadata, Storage, StorageError, TraceLogger,
    decode_conf_change,
};
use quorate_types::{Index, NodeId, Term};

use super::Failure;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) raw: RawNode<ScriptStorage>,
    pub(super) storage: ScriptStorage,
    /// With asynchronous storage writes: messages to the append thread.
    pub(super) append_work: VecDeque<Message>,
    /// With asynchronous storage writes: messages to the apply thread.
    pub(super) apply_work: VecDeque<Message>,
}

impl Node {
    /// A node that starts from `snapshot`, or from nothing.
    pub(super) fn new(
        mut config: Config,
        snapshot: Option<Snapshot>,
        trace: Option<Arc<dyn TraceLogger>>,
    ) -> Result<Self, Failure> {
        let storage = ScriptStorage::default();
        if let Some(snapshot) = &snapshot {
            storage.memory.apply_snapshot(snapshot.clone())?;
            config.applied = snapshot.metadata.index;
        }
        storage.history.borrow_mut().push(snapshot.unwrap_or_default());
        let id = config.id;
        let raw = build(config, storage.clone(), trace)?;
        let (append_work, apply_work) = (VecDeque::new(), VecDeque::new());
        Ok(Node { id, raw, storage, append_work, apply_work })
    }

    /// Starts over from what its storage and its application hold.
    pub(super) fn restart(&mut self, trace: Option<Arc<dyn TraceLogger>>) -> Result<(), Failure> {
        let applied = self.storage.latest().metadata.index;
        let installed = self.storage.memory.snapshot()?.metadata.index;
        let config = Config { applied: applied.max(installed), ..self.raw.config().clone() };
        self.raw = build(config, self.storage.clone(), trace)?;
        self.append_work.clear();
        self.apply_work.clear();
        Ok(())
    }

    /// Does what `ready` asks for; messages for others go to `in_flight`.
    pub(super) fn work(
        &mut self,
        ready: Ready,
        in_flight: &mut Vec<Message>,
    ) -> Result<(), Failure> {
        let is_async = self.raw.config().async_storage_writes;
        if !is_async {
            self.store(ready.hard_state, ready.snapshot.as_ref(), &ready.entries)?;
            self.apply(&ready.committed_entries)?;
        }
        for message in ready.messages {
            match &message.body {
                Body::StorageAppend { .. } => self.append_work.push_back(message),
                Body::StorageApply { .. } => self.apply_work.push_back(message),
                _ => in_flight.push(message),
            }
        }
        if !is_async {
            self.raw.advance()?;
        }
        Ok(())
    }

    /// Writes what a message to the append thread asks for.
    pub(super) fn store_message(&mut self, message: Message) -> Result<(), Failure> {
        match message.body {
            Body::StorageAppend { hard_state, entries, snapshot, .. } => {
                self.store(hard_state, snapshot.as_deref(), &entries)
            }
            other => Err(Failure::Said(format!("{other:?} is no work for the append thread"))),
        }
    }

    /// Applies what a message to the apply thread asks for.
    pub(super) fn apply_message(&mut self, message: Message) -> Result<(), Failure> {
        match message.body {
            Body::StorageApply { entries, .. } => self.apply(&entries),
            other => Err(Failure::Said(format!("{other:?} is no work for the apply thread"))),
        }
    }

    fn store(
        &mut self,
        hard_state: Option<HardState>,
        snapshot: Option<&Snapshot>,
        entries: &[Entry],
    ) -> Result<(), Failure> {
        let memory = &self.storage.memory;
        if let Some(hard_state) = hard_state.filter(|state| !state.is_empty()) {
            memory.set_hard_state(hard_state);
        }
        match snapshot.filter(|snapshot| !snapshot.is_empty()) {
            Some(_) if !entries.is_empty() => {
                Err(Failure::Said("can't apply snapshot and entries at the same time".to_owned()))
            }
            Some(snapshot) => Ok(memory.apply_snapshot(snapshot.clone())?),
            None => Ok(memory.append(entries)?),
        }
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        for entry in entries {
            let before = self.storage.latest();
            let mut conf_state = before.metadata.conf_state;
            let update = match entry.entry_type() {
                EntryType::Normal => entry.data.clone().unwrap_or_default(),
                kind => {
                    let change = decode_conf_change(kind, entry.payload())
                        .map_err(|error| Failure::Said(error.to_string()))?;
                    conf_state = self.raw.apply_conf_change(&change)?;
                    change.as_v2().context
                }
            };
            self.storage.history.borrow_mut().push(Snapshot {
                data: Bytes::from([before.data, update].concat()),
                metadata: SnapshotMetadata { conf_state, index: entry.index, term: entry.term },
            });
        }
        Ok(())
    }
}

fn build(
    config: Config,
    storage: ScriptStorage,
    trace: Option<Arc<dyn TraceLogger>>,
) -> Result<RawNode<ScriptStorage>, quorate_raft::Error> {
    match trace {
        Some(trace) => RawNode::new_traced(config, storage, trace),
        None => RawNode::new(config, storage),
    }
}

/// Takes the responses out of a message to a storage thread.
pub(super) fn take_responses(message: &mut Message) -> Vec<Message> {
    match &mut message.body {
        Body::StorageAppend { responses, .. } | Body::StorageApply { responses, .. } => {
            std::mem::take(responses)
        }
        _ => Vec::new(),
    }
}

/// A storage in memory, whose snapshots are those of the application. Clones are handles to one and
/// the same.
#[derive(Clone, Debug, Default)]
pub(super) struct ScriptStorage {
    pub(super) memory: MemoryStorage,
    /// The application's state after each entry it applied. Never empty once the node exists.
    history: Rc<RefCell<Vec<Snapshot>>>,
}

impl ScriptStorage {
    /// The application's state.
    pub(super) fn latest(&self) -> Snapshot {
        self.history.borrow().last().cloned().unwrap_or_default()
    }
}

impl Storage for ScriptStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let mut initial = self.memory.initial_state()?;
        // The membership is the application's to remember, unless it is about to start over from a
        // snapshot it received.
        let latest = self.latest();
        if self.memory.snapshot()?.metadata.index < latest.metadata.index {
            initial.conf_state = latest.metadata.conf_state;
        }
        Ok(initial)
    }

    fn entries(&self, lo: Index, hi: Index, max_size: u64) -> Result<Entries, StorageError> {
        self.memory.entries(lo, hi, max_size)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.memory.term(index)
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        self.memory.last_index()
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        self.memory.first_index()
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        Ok(self.latest())
    }
}
