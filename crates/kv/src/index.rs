//! Which versions each key has, and at which revisions: all of it in memory, values excluded.
//!
//! A key's history is a list of stamps, oldest first. Most keys have one version, so the newest
//! stamp stands in the map itself and only older ones cost an allocation.
//!
//! Not here: values (`overlay.rs`, the backend), and which revisions may be read (`read.rs`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::{Bound, ControlFlow};

use crate::interval::Interval;
use crate::revision::Revision;
use quorate_types::bug;

/// One version of a key, or its deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When.
    pub(crate) revision: Revision,
    /// Revision that created the key this time; 0 in a deletion.
    pub(crate) created: i64,
    /// 1 when created, one more with each put; 0 in a deletion.
    pub(crate) version: i64,
}

impl Stamp {
    pub(crate) fn put(revision: Revision, created: i64, version: i64) -> Self {
        Stamp { revision, created, version }
    }

    pub(crate) fn tombstone(revision: Revision) -> Self {
        Stamp { revision, created: 0, version: 0 }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// All versions of one key that are still known.
#[derive(Clone, Debug)]
struct History {
    newest: Stamp,
    /// Oldest first. The double pointer keeps the common case, none, at eight bytes.
    #[allow(clippy::box_collection)]
    older: Option<Box<Vec<Stamp>>>,
}

impl History {
    fn push(&mut self, stamp: Stamp) {
        assert!(self.newest.revision < stamp.revision, "history only grows at its end");
        self.older.get_or_insert_default().push(self.newest);
        self.newest = stamp;
    }

    fn older(&self) -> &[Stamp] {
        self.older.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The last stamp at or before `main`.
    fn last_at(&self, main: i64) -> Option<&Stamp> {
        if self.newest.revision.main <= main {
            return Some(&self.newest);
        }
        let older = self.older();
        let after = older.partition_point(|stamp| stamp.revision.main <= main);
        after.checked_sub(1).map(|place| &older[place])
    }

    /// The version to be seen at `main`.
    fn at(&self, main: i64) -> Option<&Stamp> {
        self.last_at(main).filter(|stamp| !stamp.is_tombstone())
    }

    /// Whether compaction at `target` keeps the last stamp at or before it: a version stays
    /// readable at `target`, a deletion only matters to a watch that begins at it.
    fn keeps(stamp: &Stamp, target: i64) -> bool {
        !stamp.is_tombstone() || stamp.revision.main == target
    }

    /// Forgets what compaction at `target` forgets. Returns whether nothing is left.
    fn compact(&mut self, target: i64, forgotten: &mut Vec<Revision>) -> bool {
        if self.newest.revision.main <= target {
            if let Some(older) = self.older.take() {
                forgotten.extend(older.iter().map(|stamp| stamp.revision));
            }
            if Self::keeps(&self.newest, target) {
                return false;
            }
            forgotten.push(self.newest.revision);
            return true;
        }
        let Some(older) = &mut self.older else { return false };
        let target_or_next = target + i64::from(bug!("compaction-takes-one-too-many"));
        let after = older.partition_point(|stamp| stamp.revision.main <= target_or_next);
        let Some(last) = after.checked_sub(1) else { return false };
        let gone = if Self::keeps(&older[last], target) { last } else { after };
        forgotten.extend(older.drain(..gone).map(|stamp| stamp.revision));
        if older.is_empty() {
            self.older = None;
        } else if older.len() * 2 < older.capacity() {
            older.shrink_to_fit();
        }
        false
    }
}

/// Every key's history.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Box<[u8]>, History>,
}

impl Index {
    /// Builds the index of what storage has, which gives stamps oldest first.
    ///
    /// Sorting first is faster than as many random insertions, and packs the map more tightly.
    pub(crate) fn build(mut stamps: Vec<(Box<[u8]>, Stamp)>) -> Self {
        stamps.sort_by(|(one, _), (other, _)| one.cmp(other)); // keeps stamps of a key in order
        let mut histories: Vec<(Box<[u8]>, History)> = Vec::with_capacity(stamps.len());
        for (key, stamp) in stamps {
            match histories.last_mut() {
                Some((last, history)) if *last == key => history.push(stamp),
                _ => histories.push((key, History { newest: stamp, older: None })),
            }
        }
        Index { keys: histories.into_iter().collect() }
    }

    /// Records a put at `revision`, and returns its stamp.
    pub(crate) fn put(&mut self, key: &[u8], revision: Revision) -> Stamp {
        // A copy of the key that is thrown away costs less than a second search.
        match self.keys.entry(key.into()) {
            Entry::Occupied(mut known) => {
                let newest = known.get().newest;
                let stamp = if newest.is_tombstone() {
                    Stamp::put(revision, revision.main, 1)
                } else {
                    Stamp::put(revision, newest.created, newest.version + 1)
                };
                known.get_mut().push(stamp);
                stamp
            }
            Entry::Vacant(place) => {
                let stamp = Stamp::put(revision, revision.main, 1);
                place.insert(History { newest: stamp, older: None });
                stamp
            }
        }
    }

    /// Records a deletion of a key that is there.
    pub(crate) fn delete(&mut self, key: &[u8], revision: Revision) {
        let history = self.keys.get_mut(key);
        let history = history.expect("a key to delete was found a moment ago");
        history.push(Stamp::tombstone(revision));
    }

    /// The version of `key` to be seen at `main`.
    pub(crate) fn at(&self, key: &[u8], main: i64) -> Option<Stamp> {
        self.keys.get(key)?.at(main).copied()
    }

    /// Walks the keys of `interval` that exist at `main`, in key order, going on after `from`.
    /// Looks at `keys_max` keys at most; if there may be more, returns the last one it looked at.
    /// The walk is over when `visit` breaks off.
    pub(crate) fn walk(
        &self,
        interval: Interval<'_>,
        from: Option<&[u8]>,
        main: i64,
        keys_max: usize,
        mut visit: impl FnMut(&[u8], &Stamp) -> ControlFlow<()>,
    ) -> Option<Box<[u8]>> {
        let mut keys = self.keys.range::<[u8], _>(interval.bounds(from)?);
        for place in 1.. {
            let (key, history) = keys.next()?;
            if let Some(stamp) = history.at(main)
                && visit(key, stamp).is_break()
            {
                return None;
            }
            if place == keys_max {
                return Some(key.clone());
            }
        }
        None
    }

    /// Walks every stamp that compaction at `compacted` keeps and that stands at or before `main`,
    /// whether or not compaction has got there: the same on every member.
    pub(crate) fn walk_retained(
        &self,
        from: Option<&[u8]>,
        compacted: i64,
        main: i64,
        keys_max: usize,
        mut visit: impl FnMut(&Stamp),
    ) -> Option<Box<[u8]>> {
        let start = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut keys = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        for place in 1.. {
            let (key, history) = keys.next()?;
            let base = history.last_at(compacted).map(|stamp| stamp.revision);
            for stamp in history.older().iter().chain([&history.newest]) {
                let is_kept = compacted < stamp.revision.main
                    || (base == Some(stamp.revision) && History::keeps(stamp, compacted));
                if is_kept && stamp.revision.main <= main {
                    visit(stamp);
                }
            }
            if place == keys_max {
                return Some(key.clone());
            }
        }
        None
    }

    /// Forgets what compaction at `target` forgets, for `keys_max` keys after `from`; returns the
    /// last key it looked at, if there are more.
    pub(crate) fn compact(
        &mut self,
        from: Option<&[u8]>,
        target: i64,
        keys_max: usize,
        forgotten: &mut Vec<Revision>,
    ) -> Option<Box<[u8]>> {
        let start = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut emptied = Vec::new();
        let mut last = None;
        let keys = self.keys.range_mut::<[u8], _>((start, Bound::Unbounded));
        for (place, (key, history)) in keys.enumerate() {
            if place == keys_max {
                break;
            }
            if place + 1 == keys_max {
                last = Some(key.clone());
            }
            if history.compact(target, forgotten) {
                emptied.push(key.clone());
            }
        }
        for key in emptied {
            self.keys.remove(&key);
        }
        last
    }

    /// How many keys are known, deleted ones included until compaction forgets them.
    pub(crate) fn keys_count(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Interval<'_> = Interval::From(b"\0");

    fn revision(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    /// k: put 2, put 4, deleted 6, put 8.   l: put 3.
    fn sample() -> Index {
        let mut index = Index::default();
        index.put(b"k", revision(2));
        index.put(b"l", revision(3));
        index.put(b"k", revision(4));
        index.delete(b"k", revision(6));
        index.put(b"k", revision(8));
        index
    }

    #[test]
    fn versions_are_seen_at_their_revisions() {
        let index = sample();
        for (main, want) in [
            (1, None),
            (2, Some((2, 2, 1))),
            (3, Some((2, 2, 1))),
            (4, Some((4, 2, 2))),
            (5, Some((4, 2, 2))),
            (6, None),
            (7, None),
            (8, Some((8, 8, 1))),
            (99, Some((8, 8, 1))),
        ] {
            let got = index
                .at(b"k", main)
                .map(|stamp| (stamp.revision.main, stamp.created, stamp.version));
            assert_eq!(got, want, "at {main}");
        }
    }

    #[test]
    fn compaction_keeps_what_is_still_asked_for() {
        for (target, want) in [
            (1, &[][..]),
            (2, &[]),
            (4, &[2]),
            (5, &[2]),
            (6, &[2, 4]), // the deletion at 6 is for watches from 6 on
            (7, &[2, 4, 6]),
            (8, &[2, 4, 6]),
        ] {
            let mut index = sample();
            let mut forgotten = Vec::new();
            assert_eq!(index.compact(None, target, 10, &mut forgotten), None);
            let forgotten: Vec<i64> = forgotten.iter().map(|revision| revision.main).collect();
            assert_eq!(forgotten, want, "at {target}");
            for main in target..9 {
                assert_eq!(index.at(b"k", main), sample().at(b"k", main), "{main} after {target}");
                assert_eq!(index.at(b"l", main), sample().at(b"l", main), "{main} after {target}");
            }
        }
    }

    #[test]
    fn a_deleted_key_goes_for_good() {
        let mut index = Index::default();
        index.put(b"k", revision(2));
        index.delete(b"k", revision(3));
        let mut forgotten = Vec::new();
        index.compact(None, 3, 10, &mut forgotten);
        assert_eq!((forgotten.len(), index.keys_count()), (1, 1));
        index.compact(None, 4, 10, &mut forgotten);
        assert_eq!((forgotten.len(), index.keys_count()), (2, 0));
    }

    #[test]
    fn what_is_retained_does_not_depend_on_progress() {
        for target in 1..9 {
            let stamps = |index: &Index| {
                let mut stamps = Vec::new();
                index.walk_retained(None, target, 8, 10, |stamp| stamps.push(*stamp));
                stamps
            };
            let mut index = sample();
            let before = stamps(&index);
            index.compact(None, target, 10, &mut Vec::new());
            assert_eq!(stamps(&index), before, "at {target}");
        }
    }

    #[test]
    fn walks_go_on_where_they_stopped() {
        let mut index = Index::default();
        for key in 0..10_u8 {
            index.put(&[key], revision(i64::from(key) + 2));
        }
        for keys_max in 1..12 {
            let mut seen = Vec::new();
            let mut from = None;
            loop {
                let visit = |key: &[u8], _: &Stamp| {
                    seen.push(key[0]);
                    ControlFlow::Continue(())
                };
                from = index.walk(ALL, from.as_deref(), 8, keys_max, visit);
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6], "{keys_max} at a time");
        }
    }
}
