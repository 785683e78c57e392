//! What the engine reads from the application's durable log, and a storage in memory.
//!
//! The engine only reads; the application writes what each `Ready` asks for. Entries handed out
//! are values: no later truncation or compaction changes what a caller already holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_types::{EntryId, Index, Term};

use crate::log::INDEX_MAX;
use crate::runs::Runs;
use crate::{ConfState, Entries, Entry, HardState, Snapshot};

/// Why storage could not answer. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The index asked for is older than what is kept. etcd's `ErrCompacted`.
    #[error("requested index is unavailable due to compaction")]
    Compacted,
    /// A snapshot was to be made or installed that is no newer than the present one. etcd's
    /// `ErrSnapOutOfDate`.
    #[error("requested index is older than the existing snapshot")]
    SnapshotOutOfDate,
    /// The entry asked for is not there (yet). etcd's `ErrUnavailable`.
    #[error("requested entry at index is unavailable")]
    Unavailable,
    /// The snapshot is being prepared; ask later. etcd's `ErrSnapshotTemporarilyUnavailable`.
    #[error("snapshot is temporarily unavailable")]
    SnapshotTemporarilyUnavailable,
    /// Entries were asked for beyond the end of the log.
    #[error("entries' hi({hi}) is out of bound lastindex({last})")]
    EntriesOutOfBound {
        /// One past the last index asked for.
        hi: Index,
        /// The last index stored.
        last: Index,
    },
    /// A snapshot was to be made beyond the end of the log.
    #[error("snapshot {index} is out of bound lastindex({last})")]
    SnapshotOutOfBound {
        /// The index asked for.
        index: Index,
        /// The last index stored.
        last: Index,
    },
    /// The log was to be compacted beyond its end.
    #[error("compact {index} is out of bound lastindex({last})")]
    CompactOutOfBound {
        /// The index asked for.
        index: Index,
        /// The last index stored.
        last: Index,
    },
    /// Entries were to be appended that do not follow what is stored, or each other.
    #[error("missing log entry [last: {last}, append at: {at}]")]
    AppendGap {
        /// The index they had to follow.
        last: Index,
        /// The index of the entry that does not.
        at: Index,
    },
    /// There is no index after this one, so that no log could go on from there.
    #[error("index {index} leaves no room after it")]
    LastIndex {
        /// The index.
        index: Index,
    },
    /// Anything else; the node cannot go on.
    #[error("{0}")]
    Other(String),
}

/// What a node remembers from before it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialState {
    /// The last hard state stored; nothing when none ever was.
    pub hard_state: Option<HardState>,
    /// The membership as of the latest snapshot, or of [`Config::applied`](crate::Config::applied)
    /// if that is later; possibly empty.
    pub conf_state: ConfState,
}

/// The durable log of one replica, as the engine reads it.
///
/// An error other than those named at each method makes the node unusable: it must not take part
/// in elections any more.
///
/// Source: etcd's `raft.Storage`.
pub trait Storage {
    /// The stored hard state and membership.
    ///
    /// # Errors
    ///
    /// Any error is final.
    fn initial_state(&self) -> Result<InitialState, StorageError>;

    /// Entries from `lo` on, without a gap, up to and excluding `hi`: as many as are encoded in
    /// `max_size` bytes, and at least one. [`limit_size`](crate::limit_size) cuts a list so.
    ///
    /// # Errors
    ///
    /// `Compacted` when `lo` is not kept any more, `Unavailable` when something in the range is
    /// missing.
    fn entries(&self, lo: Index, hi: Index, max_size: u64) -> Result<Entries, StorageError>;

    /// The term of the entry at `index`, which lies between the one before the first and the last.
    /// The term just before the first index stays known when the log is compacted.
    ///
    /// # Errors
    ///
    /// `Compacted` when `index` lies before that range, `Unavailable` when it lies after.
    fn term(&self, index: Index) -> Result<Term, StorageError>;

    /// The index of the last entry.
    ///
    /// # Errors
    ///
    /// Any error is final.
    fn last_index(&self) -> Result<Index, StorageError>;

    /// The first index that may be available; the one after the last when nothing is stored.
    ///
    /// # Errors
    ///
    /// Any error is final.
    fn first_index(&self) -> Result<Index, StorageError>;

    /// The latest snapshot.
    ///
    /// # Errors
    ///
    /// `SnapshotTemporarilyUnavailable` when it is being prepared: the engine asks again later.
    fn snapshot(&self) -> Result<Snapshot, StorageError>;

    /// The latest snapshot, for a peer that asked for one at `index` or after; `index` is applied.
    /// A storage that has only an older one may begin to make a newer one; the engine asks again.
    ///
    /// # Errors
    ///
    /// `SnapshotTemporarilyUnavailable` when there is only an older one.
    fn snapshot_from(&self, index: Index) -> Result<Snapshot, StorageError> {
        let snapshot = self.snapshot()?;
        if snapshot.metadata.index < index {
            return Err(StorageError::SnapshotTemporarilyUnavailable);
        }
        Ok(snapshot)
    }
}

/// A log in memory. Clones are handles to one and the same log, so that the application can write
/// what the engine reads.
///
/// Source: etcd's `raft.MemoryStorage`.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    shared: Arc<Mutex<Stored>>,
}

#[derive(Debug, Default)]
struct Stored {
    hard_state: Option<HardState>,
    snapshot: Snapshot,
    /// The entry before the first: its bytes are gone, its id is still known.
    before: EntryId,
    /// Dense, from `before.index + 1` on.
    entries: Runs,
}

impl MemoryStorage {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the hard state.
    pub fn set_hard_state(&self, hard_state: HardState) {
        self.lock().hard_state = Some(hard_state);
    }

    /// Replaces everything by a received snapshot.
    ///
    /// # Errors
    ///
    /// `SnapshotOutOfDate` when the present one is as new. Index 0 over index 0 is allowed: it
    /// gives an empty log its first membership. `LastIndex` when no entry could follow it.
    pub fn apply_snapshot(&self, snapshot: Snapshot) -> Result<(), StorageError> {
        if INDEX_MAX < snapshot.metadata.index {
            return Err(StorageError::LastIndex { index: snapshot.metadata.index });
        }
        let mut stored = self.lock();
        let present = stored.snapshot.metadata.index;
        if present != Index(0) && snapshot.metadata.index <= present {
            return Err(StorageError::SnapshotOutOfDate);
        }
        stored.before = snapshot.id();
        stored.entries.clear();
        stored.snapshot = snapshot;
        Ok(())
    }

    /// Makes a snapshot of the application's state as of `index`, and returns it. Without a
    /// membership the last snapshot's is kept. Entries stay; see [`MemoryStorage::compact`].
    ///
    /// # Errors
    ///
    /// `SnapshotOutOfDate` when the present one is as new, `SnapshotOutOfBound` when `index` is
    /// beyond the log, `Compacted` when its entry is not kept.
    pub fn create_snapshot(
        &self,
        index: Index,
        conf_state: Option<ConfState>,
        data: Bytes,
    ) -> Result<Snapshot, StorageError> {
        let mut stored = self.lock();
        if index <= stored.snapshot.metadata.index {
            return Err(StorageError::SnapshotOutOfDate);
        }
        let last = stored.last_index();
        if last < index {
            return Err(StorageError::SnapshotOutOfBound { index, last });
        }
        let term = stored.term(index)?;
        let snapshot = &mut stored.snapshot;
        snapshot.metadata.index = index;
        snapshot.metadata.term = term;
        snapshot.data = data;
        if let Some(conf_state) = conf_state {
            snapshot.metadata.conf_state = conf_state;
        }
        Ok(snapshot.clone())
    }

    /// Drops all entries up to and including `index`. The application must not compact beyond what
    /// it has applied.
    ///
    /// # Errors
    ///
    /// `Compacted` when that was done before, `CompactOutOfBound` when `index` is beyond the log.
    pub fn compact(&self, index: Index) -> Result<(), StorageError> {
        let mut stored = self.lock();
        if index <= stored.before.index {
            return Err(StorageError::Compacted);
        }
        let last = stored.last_index();
        if last < index {
            return Err(StorageError::CompactOutOfBound { index, last });
        }
        let term = stored.term(index)?;
        stored.entries.drop_through(index);
        stored.before = EntryId { term, index };
        Ok(())
    }

    /// Appends entries; those already compacted are left out, and stored ones from the first new
    /// index on are replaced.
    ///
    /// # Errors
    ///
    /// `AppendGap` when they do not follow what is stored, or each other, `LastIndex` when no entry
    /// could follow them; nothing is stored then.
    pub fn append(&self, entries: &[Entry]) -> Result<(), StorageError> {
        let mut stored = self.lock();
        let old = stored.make_way(entries)?;
        stored.entries.append(entries[old..].to_vec());
        Ok(())
    }

    /// As [`MemoryStorage::append`], but shares the entries instead of copying them.
    ///
    /// # Errors
    ///
    /// As [`MemoryStorage::append`].
    pub fn append_shared(&self, entries: &Entries) -> Result<(), StorageError> {
        let mut stored = self.lock();
        let old = stored.make_way(entries)?;
        stored.entries.push(entries.part(old..entries.len()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        // Nothing below panics halfway through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let stored = self.lock();
        Ok(InitialState {
            hard_state: stored.hard_state,
            conf_state: stored.snapshot.metadata.conf_state.clone(),
        })
    }

    fn entries(&self, lo: Index, hi: Index, max_size: u64) -> Result<Entries, StorageError> {
        let stored = self.lock();
        if lo <= stored.before.index {
            return Err(StorageError::Compacted);
        }
        let last = stored.last_index();
        if last.next() < hi {
            return Err(StorageError::EntriesOutOfBound { hi, last });
        }
        if stored.entries.is_empty() {
            return Err(StorageError::Unavailable);
        }
        if hi <= lo {
            return Ok(Entries::new());
        }
        Ok(stored.entries.slice(lo, hi, max_size))
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.lock().term(index)
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.lock().last_index())
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.lock().before.index.next())
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        Ok(self.lock().snapshot.clone())
    }
}

impl Stored {
    /// Drops what `entries` are to replace. Says how many of them are already compacted.
    fn make_way(&mut self, entries: &[Entry]) -> Result<usize, StorageError> {
        for pair in entries.windows(2) {
            let (last, at) = (pair[0].index, pair[1].index);
            if at != last.next() {
                return Err(StorageError::AppendGap { last, at });
            }
        }
        if let Some(last) = entries.last()
            && INDEX_MAX < last.index
        {
            return Err(StorageError::LastIndex { index: last.index });
        }
        let old = entries.partition_point(|entry| entry.index <= self.before.index);
        let Some(first) = entries.get(old).map(|entry| entry.index) else {
            return Ok(old);
        };
        let last = self.last_index();
        if last.next() < first {
            return Err(StorageError::AppendGap { last, at: first });
        }
        self.entries.truncate(first);
        Ok(old)
    }

    fn last_index(&self) -> Index {
        self.before.index + self.entries.len() as u64
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        if index < self.before.index {
            return Err(StorageError::Compacted);
        }
        if index == self.before.index {
            return Ok(self.before.term);
        }
        let entry = self.entries.get(index);
        entry.map(|entry| entry.term).ok_or(StorageError::Unavailable)
    }
}

#[cfg(test)]
mod tests;
