//! The durable part of the history, as the engine reads it: the same log as Raft's, in ZAB's words.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_codec as codec;
use quorate_raft::{Entries, Entry as LogEntry, Snapshot as AnySnapshot};
use quorate_types::{Index, Term};
use quorate_zab::{Command, Entry, HardState, Op, Snapshot, Storage, StorageError, Zxid};

use crate::storage::LogInMemory;
use crate::{Fatal, Write};

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) log: LogInMemory,
    hard_state: HardState,
    snapshot: Option<Snapshot>,
    /// Whether the engine asked for a snapshot that is not there.
    wanted: AtomicBool,
    /// The key of every command: none.
    key: Arc<str>,
}

impl History {
    pub(crate) fn new(log: LogInMemory, hard_state: HardState) -> Self {
        let (snapshot, wanted) = (None, AtomicBool::new(false));
        History { log, hard_state, snapshot, wanted, key: Arc::from("") }
    }

    /// A write is durable.
    pub(crate) fn keep(&mut self, write: Write) -> Result<(), Fatal> {
        if let (Some(snapshot), Some(mark)) = (write.install, write.mark) {
            self.log.restart(mark.index, Term(mark.stamp), snapshot.metadata.conf_state);
            self.snapshot = None;
        }
        if let Some(from) = write.cut_from {
            self.log.cut(from);
        }
        self.log.append(write.entries)?;
        if let Some(crate::HardState::Zab(hard_state)) = write.hard_state {
            self.hard_state = hard_state;
        }
        Ok(())
    }

    /// The machine keeps this ready for peers; of no use if the log does not know its place.
    pub(crate) fn keep_snapshot(&mut self, made: &AnySnapshot) {
        let index = made.metadata.index;
        self.snapshot = self.log.stamp(index).map(|stamp| Snapshot {
            index,
            zxid: Zxid(stamp.0),
            data: codec::encode_conf_state_record(&made.metadata.conf_state),
        });
    }

    pub(crate) fn keeps_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    pub(crate) fn drop_snapshot(&mut self) {
        self.snapshot = None;
    }

    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }
}

/// Entries as the log has them.
pub(crate) fn to_log(entries: Vec<Entry>) -> Entries {
    let entry = |entry: Entry| LogEntry {
        index: entry.index,
        term: Term(entry.zxid.0),
        kind: None,
        data: Some(entry.command.content),
    };
    entries.into_iter().map(entry).collect::<Vec<_>>().into()
}

impl Storage for History {
    fn hard_state(&self) -> Result<HardState, StorageError> {
        Ok(self.hard_state.clone())
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.log.mark().next())
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.log.last())
    }

    fn zxid(&self, index: Index) -> Result<Zxid, StorageError> {
        match self.log.stamp(index) {
            Some(stamp) => Ok(Zxid(stamp.0)),
            None if index < self.log.mark() => Err(StorageError::Compacted),
            None => Err(StorageError::Unavailable),
        }
    }

    fn entries(&self, lo: Index, hi: Index, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        if lo <= self.log.mark() {
            return Err(StorageError::Compacted);
        }
        if self.log.last().next() < hi || hi <= lo {
            return Err(StorageError::Unavailable);
        }
        let entry = |entry: &LogEntry| Entry {
            index: entry.index,
            zxid: Zxid(entry.term.0),
            command: Command {
                op: Op::SET,
                key: Arc::clone(&self.key),
                content: entry.data.clone().unwrap_or_default(),
            },
        };
        Ok(self.log.slice(lo, hi, bytes_max).iter().map(entry).collect())
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        // One that ends before the log begins would leave the learner with a gap.
        match &self.snapshot {
            Some(snapshot) if self.log.mark() <= snapshot.index => Ok(snapshot.clone()),
            _ => {
                self.wanted.store(true, Ordering::Relaxed);
                Err(StorageError::SnapshotPending)
            }
        }
    }
}
