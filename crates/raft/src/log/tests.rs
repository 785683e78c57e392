use super::*;
use crate::MemoryStorage;

mod appending;
mod applying;
mod reading;
mod writing;

const ALL: u64 = u64::MAX;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: Index(index), term: Term(term), ..Entry::default() }
}

/// Entries of these terms from `first` on.
fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().enumerate().map(|(at, term)| entry(first + at as u64, *term)).collect()
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.metadata.index = Index(index);
    snapshot.metadata.term = Term(term);
    snapshot
}

/// A log compacted at `before` (term, index), then `stable` terms in storage and `unstable` ones
/// after them.
fn log_after(before: (u64, u64), stable: &[u64], unstable: &[u64]) -> RaftLog<MemoryStorage> {
    let storage = MemoryStorage::new();
    storage.apply_snapshot(snapshot(before.1, before.0)).unwrap();
    storage.append(&entries(before.1 + 1, stable)).unwrap();
    let mut log = RaftLog::new(storage, ALL).unwrap();
    log.append(entries(before.1 + 1 + stable.len() as u64, unstable)).unwrap();
    log
}

/// A log of these terms from 1 on.
fn log_of(stable: &[u64], unstable: &[u64]) -> RaftLog<MemoryStorage> {
    log_after((0, 0), stable, unstable)
}

impl RaftLog<MemoryStorage> {
    /// All terms there are, from the first index on.
    fn terms(&self) -> Vec<u64> {
        let first = self.first_index().unwrap();
        let all = self.entries(first, ALL).unwrap();
        all.iter().map(|entry| entry.term.0).collect()
    }

    /// Writes everything unstable and has it acknowledged.
    fn persist(&mut self) {
        if let Some(snapshot) = self.next_unstable_snapshot().cloned() {
            self.storage().apply_snapshot(snapshot.clone()).unwrap();
            self.stable_snap_to(snapshot.metadata.index);
        }
        self.storage().append(&self.next_unstable_ents()).unwrap();
        self.accept_unstable();
        self.stable_to(self.last_entry_id().unwrap());
    }
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index.0).collect()
}

fn slice_of(prev: (u64, u64), terms: &[u64]) -> LogSlice {
    LogSlice::new(Term(99), EntryId::new(prev.0, prev.1), entries(prev.1 + 1, terms).into())
        .unwrap()
}

#[test]
fn an_idle_log_costs_little_memory() {
    assert!(size_of::<RaftLog<MemoryStorage>>() <= 160, "{}", size_of::<RaftLog<MemoryStorage>>());
}
