//! The end of the log that storage does not hold yet.
//!
//! Entries from `offset` on, and perhaps a snapshot just before them. Each is first *waiting*, then
//! *in progress* once it was handed out to be written, and leaves when the write is acknowledged:
//! ```text
//! snapshot < offset <= offset_in_progress <= offset + entries
//!            |-- in progress --|-- waiting --|
//! ```
//! A new leader may replace entries in progress. Their acknowledgement then no longer matches what
//! is here, and changes nothing.
//!
//! Source: etcd's `unstable`.

use std::collections::VecDeque;

use quorate_types::{EntryId, Index, Term};

use crate::entry::{copied, fitting};
use crate::{Entry, Snapshot};

/// What is kept of the memory for entries while there are few.
const KEPT_COUNT: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unstable {
    snapshot: Option<Box<Snapshot>>,
    snapshot_in_progress: bool,
    /// Dense, from `offset` on.
    entries: VecDeque<Entry>,
    offset: Index,
    offset_in_progress: Index,
}

impl Unstable {
    /// Nothing unstable after `last`.
    pub(crate) fn after(last: Index) -> Self {
        Unstable {
            snapshot: None,
            snapshot_in_progress: false,
            entries: VecDeque::new(),
            offset: last.next(),
            offset_in_progress: last.next(),
        }
    }

    /// The index from which on entries are not stable.
    pub(crate) fn offset(&self) -> Index {
        self.offset
    }

    /// The last index: of the entries, of the snapshot, or of what is stable.
    pub(crate) fn last_index(&self) -> Index {
        self.end().prev()
    }

    /// How many entries there are, waiting and in progress.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first index of the log, if a snapshot fixes it.
    pub(crate) fn first_index(&self) -> Option<Index> {
        self.snapshot.as_ref().map(|snapshot| snapshot.metadata.index.next())
    }

    /// The term at `index`, if it is known here.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if self.offset <= index {
            let entry = self.entries.get(self.place(index));
            return entry.map(|entry| entry.term);
        }
        let snapshot = self.snapshot.as_ref()?;
        (snapshot.metadata.index == index).then_some(snapshot.metadata.term)
    }

    /// Copies entries from `lo` up to and excluding `hi`, as many as are encoded in `max_size` bytes
    /// and at least one. The range lies within the entries.
    pub(crate) fn slice(&self, lo: Index, hi: Index, max_size: u64) -> Vec<Entry> {
        assert!(self.offset <= lo, "only what is unstable is here");
        let (start, end) = (self.place(lo), self.place(hi));
        let count = fitting(self.entries.range(start..end), max_size);
        copied(&self.entries, start..start + count)
    }

    /// Copies the entries that wait to be handed out.
    pub(crate) fn next_entries(&self) -> Vec<Entry> {
        copied(&self.entries, self.place(self.offset_in_progress)..self.entries.len())
    }

    /// Whether there are any.
    pub(crate) fn has_next_entries(&self) -> bool {
        self.offset_in_progress < self.end()
    }

    /// The snapshot, if it waits to be handed out.
    pub(crate) fn next_snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_deref().filter(|_| !self.snapshot_in_progress)
    }

    /// The snapshot, waiting or in progress.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_deref()
    }

    /// Everything that waited was handed out.
    pub(crate) fn accept_in_progress(&mut self) {
        self.offset_in_progress = self.end();
        self.snapshot_in_progress = self.snapshot.is_some();
    }

    /// Everything up to `id` is durable; says whether that entry was here. Another term at its
    /// index means that it was replaced meanwhile, and then nothing may leave.
    pub(crate) fn stable_to(&mut self, id: EntryId) -> bool {
        if id.index < self.offset || self.term(id.index) != Some(id.term) {
            return false;
        }
        let durable = self.place(id.index) + 1;
        if durable == self.entries.len() {
            self.entries.clear();
        } else {
            self.entries.drain(..durable);
        }
        self.offset = id.index.next();
        self.offset_in_progress = self.offset_in_progress.max(self.offset);
        self.release();
        true
    }

    /// The snapshot at `index` is durable.
    pub(crate) fn stable_snapshot_to(&mut self, index: Index) {
        if self.snapshot.as_ref().is_some_and(|held| held.metadata.index == index) {
            self.snapshot = None;
            self.snapshot_in_progress = false;
        }
    }

    /// Everything is replaced by `snapshot`.
    pub(crate) fn restore(&mut self, snapshot: Box<Snapshot>) {
        self.offset = snapshot.metadata.index.next();
        self.offset_in_progress = self.offset;
        self.entries = VecDeque::new();
        self.snapshot = Some(snapshot);
        self.snapshot_in_progress = false;
    }

    /// Appends `entries`, which are dense, at the end or in place of everything from the first
    /// one's index on.
    pub(crate) fn truncate_and_append(&mut self, entries: Vec<Entry>) {
        let Some(from) = entries.first().map(|entry| entry.index) else {
            return;
        };
        assert!(from <= self.end(), "entries follow each other");
        if from <= self.offset {
            self.offset = from;
            self.offset_in_progress = from;
            self.entries.clear();
        } else {
            self.entries.truncate(self.place(from));
            self.offset_in_progress = self.offset_in_progress.min(from);
        }
        if self.entries.is_empty() {
            // Takes the memory over instead of copying.
            self.entries = VecDeque::from(entries);
        } else {
            // Mostly it is one, for which this is cheaper than `extend`.
            self.entries.reserve(entries.len());
            for entry in entries {
                self.entries.push_back(entry);
            }
        }
    }

    /// Gives memory back that a few entries do not need.
    fn release(&mut self) {
        let kept = self.entries.len();
        if self.entries.capacity() <= KEPT_COUNT {
            // It may be needed again soon.
        } else if kept == 0 {
            self.entries = VecDeque::new();
        } else if 4 * kept < self.entries.capacity() {
            self.entries.shrink_to(2 * kept);
        }
    }

    /// Where the entry at `index`, which is not before the offset, stands in the list.
    fn place(&self, index: Index) -> usize {
        // It may be any index that a peer names.
        usize::try_from(index - self.offset).unwrap_or(usize::MAX)
    }

    /// One past the last index.
    fn end(&self) -> Index {
        self.offset + self.entries.len() as u64
    }
}

#[cfg(test)]
mod tests;
