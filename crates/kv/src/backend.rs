//! The seam between the machine and whatever keeps its rows.
//!
//! A backend is a set of ordered tables with two promises: a [`Batch`] is taken whole and durably or
//! not at all, and a [`View`] never changes, whatever is committed after it. Nothing else is asked,
//! so a file, memory or a simulated disk will do.

mod guarded;
mod memory;
mod redb;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

pub use memory::MemoryBackend;
pub use redb::{RedbBackend, hush_panics_of_damage};

/// One ordered table of rows.
///
/// Numbers are written into snapshots and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Table {
    /// What the state is as a whole: applied index, revision, compaction.
    Meta = 1,
    /// Every change of every key, by revision. Keys have 17 bytes.
    Key = 2,
    /// Members, present and removed.
    Member = 3,
    /// Leases. Keys have 8 bytes.
    Lease = 4,
    /// Active alarms. Keys have 9 bytes.
    Alarm = 5,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Table; 5] =
        [Table::Meta, Table::Key, Table::Member, Table::Lease, Table::Alarm];

    pub(crate) fn from_number(number: u8) -> Option<Table> {
        Table::ALL.into_iter().find(|table| *table as u8 == number)
    }
}

/// Keeps rows. One at a time uses it; views are read meanwhile.
pub trait Backend: Send {
    /// The rows as of the last commit, for as long as the view is held.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    fn view(&self) -> Result<Arc<dyn View>, BackendError>;

    /// Takes the batch: first its puts, then its deletes. Once this returns, all of it is durable.
    ///
    /// # Errors
    ///
    /// When the storage fails. It is then unknown whether the batch will be found at the next
    /// start, whole, or not at all; nothing else may be committed before that.
    fn commit(&mut self, batch: &Batch) -> Result<(), BackendError>;

    /// Bytes taken from whatever is below.
    fn size_bytes(&self) -> u64;

    /// Bytes of rows, keys included.
    fn in_use_bytes(&self) -> u64;

    /// How many views are held, for people; 0 where nobody counts.
    fn views_count(&self) -> usize {
        0
    }

    /// Gives unused space back. No view may be held.
    ///
    /// # Errors
    ///
    /// `Busy` while a view is held: try again. Otherwise when the storage fails.
    fn defragment(&mut self) -> Result<(), BackendError>;
}

impl Backend for Box<dyn Backend> {
    fn view(&self) -> Result<Arc<dyn View>, BackendError> {
        (**self).view()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BackendError> {
        (**self).commit(batch)
    }

    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn in_use_bytes(&self) -> u64 {
        (**self).in_use_bytes()
    }

    fn views_count(&self) -> usize {
        (**self).views_count()
    }

    fn defragment(&mut self) -> Result<(), BackendError> {
        (**self).defragment()
    }
}

/// Takes one row of a walk, its key and its value, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Rows that never change.
pub trait View: Send + Sync {
    /// One row.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Walks rows in the order of their keys, from the first at or after `from`, until `visit`
    /// breaks off.
    ///
    /// # Errors
    ///
    /// When the storage fails.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), BackendError>;
}

/// Why the storage did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A view is held, and this cannot be done meanwhile.
    #[error("a reader holds the storage; try again later")]
    Busy,
    /// Whatever keeps the rows failed.
    #[error("{0}")]
    Failed(String),
}

/// Changes that are committed together, in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    puts: Vec<(Table, Range<usize>, Range<usize>)>,
    deletes: Vec<(Table, Range<usize>)>,
}

impl Batch {
    /// Stores a row. Rows of one table that come in order are stored faster.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let key = self.append(key);
        let value = self.append(value);
        self.puts.push((table, key, value));
    }

    /// Stores a row that comes in two parts.
    pub(crate) fn put_parts(&mut self, table: Table, key: &[u8], parts: [&[u8]; 2]) {
        let key = self.append(key);
        let [first, second] = parts.map(|part| self.append(part));
        self.puts.push((table, key, first.start..second.end));
    }

    /// Deletes a row, also one that the same batch puts. A row that is not there is no error.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let key = self.append(key);
        self.deletes.push((table, key));
    }

    /// Rows to store: table, key, value.
    pub fn puts(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        let row = |(table, key, value): &(Table, Range<usize>, Range<usize>)| {
            (*table, &self.bytes[key.clone()], &self.bytes[value.clone()])
        };
        self.puts.iter().map(row)
    }

    /// Rows to delete: table, key.
    pub fn deletes(&self) -> impl Iterator<Item = (Table, &[u8])> {
        self.deletes.iter().map(|(table, key)| (*table, &self.bytes[key.clone()]))
    }

    /// How much memory the rows take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
