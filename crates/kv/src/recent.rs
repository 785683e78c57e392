//! The last changes, as the watchers that keep up get them: from memory, whatever flushes and
//! compactions do meanwhile.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::revision::Revision;

/// How much memory they take. Whoever is further behind reads history.
const RECENT_BYTES_MAX: usize = 8 << 20;

/// Rows of whole revisions, oldest first.
#[derive(Debug)]
pub(crate) struct Recent {
    rows: VecDeque<(Revision, Bytes)>,
    bytes: usize,
    /// All changes after this revision are here.
    after: i64,
}

impl Recent {
    /// None yet, of a store that is at `revision`.
    pub(crate) fn new(revision: i64) -> Self {
        Recent { rows: VecDeque::new(), bytes: 0, after: revision }
    }

    pub(crate) fn push(&mut self, revision: Revision, row: Bytes) {
        if revision.main <= self.after {
            return; // the rest of one that takes too much by itself
        }
        self.bytes += bytes_of(&row);
        self.rows.push_back((revision, row));
        while RECENT_BYTES_MAX < self.bytes {
            self.forget_oldest();
        }
    }

    /// Whole revisions go: half of one would look like all of it.
    fn forget_oldest(&mut self) {
        let Some((oldest, _)) = self.rows.front() else { return };
        self.after = oldest.main;
        while let Some((revision, row)) = self.rows.front()
            && revision.main == self.after
        {
            self.bytes -= bytes_of(row);
            self.rows.pop_front();
        }
    }

    /// All changes after `revision`, if they are still here.
    pub(crate) fn after(&self, revision: i64) -> Option<impl Iterator<Item = &(Revision, Bytes)>> {
        if revision < self.after {
            return None;
        }
        let first = self.rows.partition_point(|(row, _)| row.main <= revision);
        Some(self.rows.range(first..))
    }
}

fn bytes_of(row: &Bytes) -> usize {
    row.len() + size_of::<(Revision, Bytes)>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_revisions_are_forgotten() {
        let mut recent = Recent::new(1);
        let mains = |recent: &Recent, revision| {
            let rows = recent.after(revision)?;
            Some(rows.map(|(revision, _)| revision.main).collect::<Vec<_>>())
        };
        assert_eq!(mains(&recent, 1), Some(vec![]));
        assert_eq!(mains(&recent, 0), None);
        let row = || Bytes::from(vec![0; RECENT_BYTES_MAX / 4 - 100]);
        for (main, sub) in [(2, 0), (2, 1), (3, 0), (4, 0)] {
            recent.push(Revision { main, sub }, row());
        }
        assert_eq!(mains(&recent, 1), Some(vec![2, 2, 3, 4]));
        assert_eq!(mains(&recent, 3), Some(vec![4]));
        recent.push(Revision { main: 5, sub: 0 }, row());
        assert_eq!(mains(&recent, 1), None);
        assert_eq!(mains(&recent, 2), Some(vec![3, 4, 5]));
        // One that takes too much by itself is not kept, and no half of it.
        for sub in 0..7 {
            recent.push(Revision { main: 6, sub }, row());
        }
        assert_eq!((mains(&recent, 5), mains(&recent, 6)), (None, Some(vec![])));
        recent.push(Revision { main: 7, sub: 0 }, row());
        assert_eq!(mains(&recent, 6), Some(vec![7]));
        assert_eq!(recent.bytes, bytes_of(&row()));
    }
}
