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

use quorate_types::{EntryId, Index, Term};

use crate::runs::Runs;
use crate::{Entries, Entry, Snapshot};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unstable {
    snapshot: Option<Box<Snapshot>>,
    snapshot_in_progress: bool,
    /// Dense, from `offset` on.
    entries: Runs,
    offset: Index,
    offset_in_progress: Index,
}

impl Unstable {
    /// Nothing unstable after `last`.
    pub(crate) fn after(last: Index) -> Self {
        Unstable {
            snapshot: None,
            snapshot_in_progress: false,
            entries: Runs::default(),
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
            return self.entries.get(index).map(|entry| entry.term);
        }
        let snapshot = self.snapshot.as_ref()?;
        (snapshot.metadata.index == index).then_some(snapshot.metadata.term)
    }

    /// Entries from `lo` up to and excluding `hi`, as many as are encoded in `max_size` bytes
    /// and at least one. The range lies within the entries.
    pub(crate) fn slice(&self, lo: Index, hi: Index, max_size: u64) -> Entries {
        assert!(self.offset <= lo, "only what is unstable is here");
        self.entries.slice(lo, hi, max_size)
    }

    /// The entries that wait to be handed out.
    pub(crate) fn next_entries(&self) -> Entries {
        self.entries.slice(self.offset_in_progress, self.end(), u64::MAX)
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
        self.entries.drop_through(id.index);
        self.offset = id.index.next();
        self.offset_in_progress = self.offset_in_progress.max(self.offset);
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
        self.entries = Runs::default();
        self.snapshot = Some(snapshot);
        self.snapshot_in_progress = false;
    }

    /// Appends `entries`, which are dense, at the end or in place of everything from the first
    /// one's index on.
    pub(crate) fn truncate_and_append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            self.make_way(first.index);
            self.entries.append(entries);
        }
    }

    /// As [`Unstable::truncate_and_append`], and goes on sharing the entries.
    pub(crate) fn truncate_and_share(&mut self, entries: Entries) {
        if let Some(first) = entries.first() {
            self.make_way(first.index);
            self.entries.push(entries);
        }
    }

    /// Drops what is to be replaced by entries from `from` on.
    fn make_way(&mut self, from: Index) {
        assert!(from <= self.end(), "entries follow each other");
        if from <= self.offset {
            self.offset = from;
            self.offset_in_progress = from;
            self.entries.clear();
        } else {
            self.entries.truncate(from);
            self.offset_in_progress = self.offset_in_progress.min(from);
        }
    }

    /// One past the last index.
    fn end(&self) -> Index {
        self.offset + self.entries.len() as u64
    }
}

#[cfg(test)]
mod tests;
