//! What the engine reads from the application's durable history, and a storage in memory.
//!
//! The engine only reads; the application writes what each `Ready` asks for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_types::Index;

use crate::{Entry, HardState, Snapshot, Write, Zxid};

/// Why storage could not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// What was asked for is older than what is kept.
    #[error("requested index is no longer kept")]
    Compacted,
    /// What was asked for is not there.
    #[error("requested entry is not there")]
    Unavailable,
    /// The snapshot is being prepared; ask later.
    #[error("snapshot is being prepared")]
    SnapshotPending,
    /// Anything else; the node cannot go on.
    #[error("{0}")]
    Other(String),
}

/// The durable history of one node, as the engine reads it.
///
/// An error other than those named at each method makes the node unusable. In particular one in
/// the middle of the history is an error, never its end.
pub trait Storage {
    /// The hard state stored last; the default if none ever was.
    ///
    /// # Errors
    ///
    /// Any error is final.
    fn hard_state(&self) -> Result<HardState, StorageError>;

    /// The first index kept; the one after the last when nothing is.
    ///
    /// # Errors
    ///
    /// Any error is final.
    fn first_index(&self) -> Result<Index, StorageError>;

    /// The last index; 0 when nothing was ever stored.
    ///
    /// # Errors
    ///
    /// Any error is final.
    fn last_index(&self) -> Result<Index, StorageError>;

    /// The id of the entry at `index`, which lies between the one before the first and the last.
    /// That of the one before the first stays known when the history is compacted.
    ///
    /// # Errors
    ///
    /// `Compacted` when `index` lies before that range, `Unavailable` when it lies after.
    fn zxid(&self, index: Index) -> Result<Zxid, StorageError>;

    /// Entries from `lo` on, without a gap, up to and excluding `hi`: as many as take `bytes_max`
    /// ([`Entry::bytes`]), and at least one.
    ///
    /// # Errors
    ///
    /// `Compacted` when `lo` is not kept any more.
    fn entries(&self, lo: Index, hi: Index, bytes_max: u64) -> Result<Vec<Entry>, StorageError>;

    /// The latest snapshot. It reaches at least to the entry before the first one kept.
    ///
    /// # Errors
    ///
    /// `SnapshotPending` when it is being prepared: the engine asks again.
    fn snapshot(&self) -> Result<Snapshot, StorageError>;
}

/// A history in memory. Clones are handles to one and the same, so that the application can write
/// what the engine reads.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    shared: Arc<Mutex<Stored>>,
}

#[derive(Debug, Default)]
struct Stored {
    hard_state: HardState,
    snapshot: Snapshot,
    /// The place before the first entry.
    before: (Index, Zxid),
    /// Dense, from the one after `before` on.
    entries: Vec<Entry>,
}

impl MemoryStorage {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out a write, whole.
    ///
    /// # Errors
    ///
    /// `Unavailable` when its entries do not follow what is stored, `Compacted` when they begin
    /// before what is kept; then nothing was changed.
    pub fn write(&self, write: &Write) -> Result<(), StorageError> {
        let mut stored = self.lock();
        let before = write.install.as_ref().map_or(stored.before, |made| (made.index, made.zxid));
        let last = match &write.install {
            Some(made) => made.index,
            None => stored.last_index(),
        };
        if let Some(from) = write.replace_from {
            if from <= before.0 {
                return Err(StorageError::Compacted);
            }
            if last.next() < from {
                return Err(StorageError::Unavailable);
            }
        }
        if let Some(snapshot) = &write.install {
            stored.before = before;
            stored.entries.clear();
            stored.snapshot = snapshot.clone();
        }
        if let Some(from) = write.replace_from {
            let kept = (from - stored.before.0 - 1) as usize;
            stored.entries.truncate(kept);
            stored.entries.extend_from_slice(&write.entries);
        }
        if let Some(hard_state) = &write.hard_state {
            stored.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// Keeps a snapshot of the application's state as of `index`. Entries stay.
    ///
    /// # Errors
    ///
    /// `Compacted` or `Unavailable` when `index` is not in the history.
    pub fn make_snapshot(&self, index: Index, data: Bytes) -> Result<(), StorageError> {
        let mut stored = self.lock();
        let zxid = stored.zxid(index)?;
        stored.snapshot = Snapshot { index, zxid, data };
        Ok(())
    }

    /// Drops all entries up to and including `index`, which must be applied and covered by the
    /// snapshot.
    ///
    /// # Errors
    ///
    /// `Compacted` when that was done before, `Unavailable` when it is beyond the snapshot.
    pub fn compact(&self, index: Index) -> Result<(), StorageError> {
        let mut stored = self.lock();
        if stored.snapshot.index < index {
            return Err(StorageError::Unavailable);
        }
        let zxid = stored.zxid(index)?;
        let count = (index - stored.before.0) as usize;
        stored.entries.drain(..count);
        stored.before = (index, zxid);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn last_index(&self) -> Index {
        self.before.0 + self.entries.len() as u64
    }

    fn zxid(&self, index: Index) -> Result<Zxid, StorageError> {
        if index < self.before.0 {
            return Err(StorageError::Compacted);
        }
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        let place = (index - self.before.0 - 1) as usize;
        self.entries.get(place).map(|entry| entry.zxid).ok_or(StorageError::Unavailable)
    }
}

impl Storage for MemoryStorage {
    fn hard_state(&self) -> Result<HardState, StorageError> {
        Ok(self.lock().hard_state.clone())
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.lock().before.0.next())
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.lock().last_index())
    }

    fn zxid(&self, index: Index) -> Result<Zxid, StorageError> {
        self.lock().zxid(index)
    }

    fn entries(&self, lo: Index, hi: Index, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        let stored = self.lock();
        if lo <= stored.before.0 {
            return Err(StorageError::Compacted);
        }
        if stored.last_index().next() < hi || hi <= lo {
            return Err(StorageError::Unavailable);
        }
        let place = |index: Index| (index - stored.before.0 - 1) as usize;
        Ok(limited(stored.entries[place(lo)..place(hi)].iter(), bytes_max))
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        Ok(self.lock().snapshot.clone())
    }
}

/// The first of `entries`, and those after it that fit in `bytes_max` with it.
pub(crate) fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut taken: Vec<Entry> = Vec::new();
    let mut bytes = 0_u64;
    for entry in entries {
        bytes = bytes.saturating_add(entry.bytes());
        if bytes_max < bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}
