//! Which entry made which revision of the keys, of those that were applied lately: the log knows nothing
//! of revisions, and the state nothing of entries.
//!
//! ```text
//! from: what is known begins behind this place and revision        made: (entry, revision), both rising
//! ```

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_types::Index;

/// More than the log keeps behind a flush; sixteen bytes each.
const COUNT_MAX: usize = 16_384;

/// Written by the apply thread, read by who follows what is applied.
pub(crate) struct Revisions {
    known: Mutex<Known>,
}

struct Known {
    from: (Index, i64),
    made: VecDeque<(Index, i64)>,
    /// Up to where it is known.
    through: Index,
}

/// A revision that was made before what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// The first one that is known, or will be.
    pub(crate) first: i64,
}

impl Revisions {
    /// Nothing is known of what was applied before.
    pub(crate) fn new(applied: Index, revision: i64) -> Self {
        let known = Known { from: (applied, revision), made: VecDeque::new(), through: applied };
        Revisions { known: Mutex::new(known) }
    }

    /// The machine has applied these entries, in order, and was at these revisions after them.
    pub(crate) fn on_applied(&self, entries: impl Iterator<Item = (Index, i64)>) {
        let mut known = self.known();
        for (index, revision) in entries {
            // What is replayed was known before.
            if index <= known.through {
                continue;
            }
            known.through = index;
            if known.last() < revision {
                known.made.push_back((index, revision));
            }
        }
        while COUNT_MAX < known.made.len() {
            let Some(oldest) = known.made.pop_front() else { break };
            known.from = oldest;
        }
    }

    /// The state was replaced by one that stands for everything up to `applied`.
    pub(crate) fn restart(&self, applied: Index, revision: i64) {
        let mut known = self.known();
        known.from = (applied, revision);
        known.made.clear();
        known.through = applied;
    }

    /// The revision after each of these entries, where it is known.
    pub(crate) fn after(&self, entries: impl Iterator<Item = Index>) -> Vec<Option<i64>> {
        let known = self.known();
        let after = |index: Index| {
            if index < known.from.0 || known.through < index {
                return None;
            }
            let made = known.made.partition_point(|(at, _)| *at <= index);
            Some(made.checked_sub(1).map_or(known.from.1, |at| known.made[at].1))
        };
        entries.map(after).collect()
    }

    /// The place behind which the entry stands that made `revision`, or where all is told if none has
    /// yet.
    pub(crate) fn place_before(&self, revision: i64) -> Result<Index, Forgotten> {
        let known = self.known();
        if revision <= known.from.1 {
            return Err(Forgotten { first: known.from.1 + 1 });
        }
        let before = known.made.partition_point(|(_, made)| *made < revision);
        Ok(known.made.get(before).map_or(known.through, |(index, _)| index.prev()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn last(&self) -> i64 {
        self.made.back().map_or(self.from.1, |(_, revision)| *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(revisions: &Revisions, index: u64) -> Option<i64> {
        revisions.after([Index(index)].into_iter())[0]
    }

    fn place(revisions: &Revisions, revision: i64) -> Result<u64, i64> {
        let place = revisions.place_before(revision);
        place.map(|index| index.0).map_err(|forgotten| forgotten.first)
    }

    #[test]
    fn entries_and_revisions_are_found_by_each_other() {
        let revisions = Revisions::new(Index(4), 10);
        let applied = [(3, 9), (4, 10), (5, 10), (6, 11), (7, 11), (8, 12)]; // the first are replayed
        revisions.on_applied(applied.map(|(index, made)| (Index(index), made)).into_iter());
        for (index, want) in [
            (3, None),
            (4, Some(10)),
            (5, Some(10)),
            (6, Some(11)),
            (7, Some(11)),
            (8, Some(12)),
            (9, None),
        ] {
            assert_eq!(after(&revisions, index), want, "after {index}");
        }
        for (revision, want) in
            [(0, Err(11)), (10, Err(11)), (11, Ok(5)), (12, Ok(7)), (13, Ok(8)), (99, Ok(8))]
        {
            assert_eq!(place(&revisions, revision), want, "before {revision}");
        }
        revisions.restart(Index(20), 30);
        assert_eq!((after(&revisions, 8), after(&revisions, 20)), (None, Some(30)));
        assert_eq!((place(&revisions, 30), place(&revisions, 31)), (Err(31), Ok(20)));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let revisions = Revisions::new(Index(0), 1);
        let count = COUNT_MAX as u64 + 5;
        revisions.on_applied((1..=count).map(|index| (Index(index), index as i64 + 1)));
        assert_eq!(revisions.known().made.len(), COUNT_MAX);
        assert_eq!((after(&revisions, 4), after(&revisions, 5)), (None, Some(6)));
        assert_eq!((place(&revisions, 6), place(&revisions, 7)), (Err(7), Ok(5)));
    }
}
