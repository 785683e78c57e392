//! The durable part of the log, kept in memory beside the disk.
//!
//! Everything after the mark is here, so the engine never waits for a disk to read. What bounds it
//! is compaction, by count and by bytes (`snapshots.rs`). Entries arrive here only once they are
//! durable; until then the engine holds them itself.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_raft::{
    ConfState, Entries, HardState, InitialState, Runs, Snapshot, Storage, StorageError,
};
use quorate_types::{Index, Term};

use crate::{Fatal, Initial};

/// The log from the mark on.
#[derive(Debug)]
pub(crate) struct LogInMemory {
    mark: (Index, Term),
    /// What follows the mark, shared with the engine that gave it and the messages that carry it.
    entries: Runs,
    /// Payload bytes of the entries.
    bytes: u64,
    hard_state: HardState,
    conf_state: ConfState,
    /// What a lagging peer can have now; the machine keeps its state ready.
    snapshot: Option<Snapshot>,
    /// Whether the engine asked for a snapshot that is not there.
    wanted: AtomicBool,
}

impl LogInMemory {
    pub(crate) fn new(initial: &Initial) -> Result<Self, Fatal> {
        let mut log = LogInMemory {
            mark: (initial.mark.index, Term(initial.mark.stamp)),
            entries: Runs::default(),
            bytes: 0,
            hard_state: match initial.hard_state {
                crate::HardState::Raft(hard_state) => hard_state,
                crate::HardState::Zab(_) => HardState::default(),
            },
            conf_state: initial.conf_state.clone(),
            snapshot: None,
            wanted: AtomicBool::new(false),
        };
        log.append(initial.entries.clone().into())?;
        let (mark, last) = (log.mark.0, log.last());
        if initial.applied < mark {
            return Err(Fatal(format!(
                "the log begins after {mark}, but the machine's state reaches only {}: entries \
                 between them are missing",
                initial.applied
            )));
        }
        if last < initial.applied {
            return Err(Fatal(format!(
                "the machine's state reaches {}, but the log ends at {last}: the log has lost \
                 entries that were acknowledged",
                initial.applied
            )));
        }
        if last < log.hard_state.commit {
            return Err(Fatal(format!(
                "the log ends at {last}, but {} was known to be committed: the log has lost entries",
                log.hard_state.commit
            )));
        }
        // A commit index alone is not synced; what was applied was committed.
        log.hard_state.commit = log.hard_state.commit.max(initial.applied);
        Ok(log)
    }

    pub(crate) fn mark(&self) -> Index {
        self.mark.0
    }

    pub(crate) fn last(&self) -> Index {
        self.mark.0 + self.entries.len() as u64
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Payload bytes of the log.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Payload bytes after `index`.
    pub(crate) fn bytes_after(&self, index: Index) -> u64 {
        self.entries.payload_size_after(index)
    }

    /// Payload bytes after the mark up to and with `index`.
    pub(crate) fn bytes_through(&self, index: Index) -> u64 {
        self.bytes - self.bytes_after(index)
    }

    /// Term of the entry at `index`, if it is known here.
    pub(crate) fn stamp(&self, index: Index) -> Option<Term> {
        if index == self.mark.0 {
            return Some(self.mark.1);
        }
        self.entries.get(index).map(|entry| entry.term)
    }

    /// Puts entries in; they replace whatever stands at the first one's index and after.
    pub(crate) fn append(&mut self, entries: Entries) -> Result<(), Fatal> {
        // What the mark covers is part of the snapshot already.
        let old = entries.partition_point(|entry| entry.index <= self.mark.0);
        let entries = entries.part(old..entries.len());
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        let mut last = self.last().min(first.prev());
        for entry in &entries {
            if entry.index != last.next() {
                let index = entry.index;
                let text = format!("log entry {index} does not follow {last}: there is a gap");
                return Err(Fatal(text));
            }
            last = entry.index;
        }
        if first <= self.last() {
            self.entries.truncate(first);
            self.bytes = self.entries.payload_size();
        }
        self.bytes += entries.payload_size();
        self.entries.push(entries);
        Ok(())
    }

    /// Removes what stands at `from` and after.
    pub(crate) fn cut(&mut self, from: Index) {
        if from <= self.last() && self.mark.0 < from {
            self.entries.truncate(from);
            self.bytes = self.entries.payload_size();
        }
    }

    /// Starts anew after a place, without whatever was here.
    pub(crate) fn restart(&mut self, index: Index, stamp: Term, conf_state: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.mark = (index, stamp);
        self.conf_state = conf_state;
        self.snapshot = None;
    }

    /// The entries from `low` up to and excluding `high`, which are here: as many as take
    /// `bytes_max`, and at least one.
    pub(crate) fn slice(&self, low: Index, high: Index, bytes_max: u64) -> Entries {
        self.entries.slice(low, high, bytes_max)
    }

    /// A snapshot stands for everything up to its index. Entries after it stay if they connect.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) {
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        if self.stamp(index) == Some(term) {
            self.compact(index);
        } else {
            self.entries.clear();
            self.bytes = 0;
        }
        self.mark = (index, term);
        self.conf_state = snapshot.metadata.conf_state.clone();
        self.snapshot = None;
    }

    /// Drops everything up to `through`.
    pub(crate) fn compact(&mut self, through: Index) {
        let Some(term) = self.stamp(through) else { return };
        self.entries.drop_through(through);
        self.bytes = self.entries.payload_size();
        self.mark = (through, term);
    }

    pub(crate) fn keep_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn keep_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    pub(crate) fn keeps_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    pub(crate) fn drop_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Whether the engine asked in vain for a snapshot since the last call.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }
}

impl Storage for LogInMemory {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(InitialState { hard_state: Some(self.hard_state), conf_state: self.conf_state.clone() })
    }

    fn entries(&self, low: Index, high: Index, max_size: u64) -> Result<Entries, StorageError> {
        if low <= self.mark.0 {
            return Err(StorageError::Compacted);
        }
        if self.last().next() < high {
            return Err(StorageError::Unavailable);
        }
        Ok(self.entries.slice(low, high, max_size))
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        if index < self.mark.0 {
            return Err(StorageError::Compacted);
        }
        self.stamp(index).ok_or(StorageError::Unavailable)
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.mark.0.next())
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.last())
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        // One that ends before the log begins would leave the peer with a gap.
        match &self.snapshot {
            Some(snapshot) if self.mark.0 <= snapshot.metadata.index => Ok(snapshot.clone()),
            _ => {
                self.wanted.store(true, Ordering::Relaxed);
                Err(StorageError::SnapshotTemporarilyUnavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_raft::{Entry, SnapshotMetadata};
    use quorate_types::Mark;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        let data = Some(Bytes::from(vec![0; 10]));
        Entry { index: Index(index), term: Term(term), data, ..Entry::default() }
    }

    fn log(entries: &[(u64, u64)]) -> LogInMemory {
        let mark = Mark { index: Index(4), stamp: 1, ..Mark::default() };
        let entries = entries.iter().map(|&(index, term)| entry(index, term)).collect();
        LogInMemory::new(&Initial { mark, entries, applied: Index(4), ..Initial::default() })
            .unwrap()
    }

    fn held(log: &LogInMemory) -> Vec<(u64, u64)> {
        log.entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
    }

    #[test]
    fn entries_replace_what_stands_at_their_index_and_after() {
        let mut log = log(&[(5, 1), (6, 1), (7, 1)]);
        log.append(vec![entry(6, 2)].into()).unwrap();
        assert_eq!(held(&log), [(5, 1), (6, 2)]);
        let known = [entry(3, 1), entry(4, 1), entry(5, 1), entry(6, 2), entry(7, 2)];
        log.append(known.to_vec().into()).unwrap();
        assert_eq!(held(&log), [(5, 1), (6, 2), (7, 2)], "what the mark covers is cut off");
        for gap in [vec![entry(9, 2)], vec![entry(8, 2), entry(10, 2)]] {
            assert!(log.append(gap.into()).is_err(), "a gap is refused");
        }
        assert_eq!((log.bytes(), log.bytes_through(Index(5))), (30, 10));
    }

    #[test]
    fn bytes_are_known_on_both_sides_of_every_place() {
        let mut log = log(&[(5, 1), (6, 1), (7, 1)]);
        // Batches of one, of several, and of which only a part is left.
        for batch in [&[(8, 1)][..], &[(9, 2), (10, 2), (11, 2)], &[(11, 3)]] {
            let batch: Vec<Entry> = batch.iter().map(|&(index, term)| entry(index, term)).collect();
            log.append(batch.into()).unwrap();
        }
        for index in 0..14_u64 {
            let after = 10 * 11_u64.saturating_sub(index.max(4));
            assert_eq!(log.bytes_after(Index(index)), after, "after {index}");
            assert_eq!(log.bytes_through(Index(index)), 70 - after, "through {index}");
        }
    }

    #[test]
    fn a_snapshot_keeps_what_connects() {
        for (index, term, want) in [
            (6, 1, &[(7, 1)][..]), // in the log: the rest stays
            (6, 2, &[]),           // contradicts the log: all goes
            (9, 2, &[]),           // beyond the log
        ] {
            let mut log = log(&[(5, 1), (6, 1), (7, 1)]);
            let metadata = SnapshotMetadata {
                index: Index(index),
                term: Term(term),
                conf_state: ConfState::default(),
            };
            log.install(&Snapshot { metadata, ..Snapshot::default() });
            assert_eq!((held(&log).as_slice(), log.mark()), (want, Index(index)));
            assert_eq!(log.term(Index(index)), Ok(Term(term)));
        }
    }

    #[test]
    fn what_is_compacted_is_said_to_be() {
        let mut log = log(&[(5, 1), (6, 1), (7, 1)]);
        log.compact(Index(6));
        assert_eq!(log.entries(Index(6), Index(8), u64::MAX), Err(StorageError::Compacted));
        assert_eq!(log.entries(Index(7), Index(9), u64::MAX), Err(StorageError::Unavailable));
        assert_eq!(log.entries(Index(7), Index(8), 0).unwrap().len(), 1);
        assert_eq!(log.term(Index(5)), Err(StorageError::Compacted));
        assert_eq!(log.term(Index(6)), Ok(Term(1)));
        assert_eq!(log.bytes(), 10);
    }

    #[test]
    fn a_snapshot_that_would_leave_a_gap_is_not_offered() {
        let mut log = log(&[(5, 1), (6, 1), (7, 1)]);
        let made = |index| Snapshot {
            metadata: SnapshotMetadata { index: Index(index), ..SnapshotMetadata::default() },
            ..Snapshot::default()
        };
        assert!(log.snapshot().is_err());
        assert!(log.take_wanted() && !log.take_wanted());
        log.keep_snapshot(made(5));
        assert!(log.snapshot().is_ok());
        log.compact(Index(6));
        assert!(log.snapshot().is_err() && log.take_wanted());
    }

    #[test]
    fn storage_that_contradicts_itself_is_refused() {
        let mark = Mark { index: Index(4), stamp: 1, ..Mark::default() };
        for (applied, commit, want) in
            [(3, 0, "missing"), (6, 0, "lost"), (5, 6, "lost"), (5, 5, ""), (4, 0, "")]
        {
            let initial = Initial {
                mark: mark.clone(),
                entries: vec![entry(5, 1)],
                applied: Index(applied),
                hard_state: HardState { commit: Index(commit), ..HardState::default() }.into(),
                conf_state: ConfState::default(),
            };
            match LogInMemory::new(&initial) {
                Ok(log) => {
                    assert_eq!(want, "");
                    assert_eq!(log.hard_state.commit, Index(applied.max(commit)));
                }
                Err(Fatal(why)) => assert!(!want.is_empty() && why.contains(want), "{why}"),
            }
        }
    }
}
