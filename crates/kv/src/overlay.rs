//! Rows that are applied but not yet in storage, oldest first.

use bytes::Bytes;

use crate::revision::Revision;

/// Rows in the order they were made, which is the order of their revisions.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    rows: Vec<(Revision, Bytes)>,
    bytes: usize,
}

impl Overlay {
    pub(crate) fn push(&mut self, revision: Revision, row: Bytes) {
        assert!(self.rows.last().is_none_or(|(last, _)| *last < revision), "rows come in order");
        self.bytes += row.len() + size_of::<(Revision, Bytes)>();
        self.rows.push((revision, row));
    }

    pub(crate) fn row(&self, revision: Revision) -> Option<&Bytes> {
        // Most rows asked for are older than all of these.
        if revision < self.rows.first()?.0 {
            return None;
        }
        let place = self.rows.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        Some(&self.rows[place].1)
    }

    /// The oldest one.
    pub(crate) fn first(&self) -> Option<Revision> {
        self.rows.first().map(|(revision, _)| *revision)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &(Revision, Bytes)> {
        self.rows.iter()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }
}
