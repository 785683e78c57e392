use quorate_types::NodeId;

use super::*;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: Index(index), term: Term(term), ..Entry::default() }
}

/// Entries of these terms from `first` on.
fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().enumerate().map(|(at, term)| entry(first + at as u64, *term)).collect()
}

/// A log that was compacted at 3 (of term 3) and holds 4 and 5 of these terms.
fn compacted() -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.append(&entries(1, &[1, 2, 3, 4, 5])).unwrap();
    storage.compact(Index(3)).unwrap();
    storage
}

/// All entries, whatever was compacted.
fn all(storage: &MemoryStorage) -> Vec<Entry> {
    storage.lock().entries.iter().cloned().collect()
}

fn snapshot(index: u64, term: u64, voters: &[u64]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.metadata.index = Index(index);
    snapshot.metadata.term = Term(term);
    snapshot.metadata.conf_state.voters = voters.iter().copied().map(NodeId).collect();
    snapshot
}

#[test]
fn a_new_log_is_empty() {
    let storage = MemoryStorage::new();
    assert_eq!(storage.initial_state(), Ok(InitialState::default()));
    assert_eq!(storage.first_index(), Ok(Index(1)));
    assert_eq!(storage.last_index(), Ok(Index(0)));
    assert_eq!(storage.term(Index(0)), Ok(Term(0)));
    assert_eq!(storage.term(Index(1)), Err(StorageError::Unavailable));
    assert_eq!(storage.snapshot(), Ok(Snapshot::default()));
    assert_eq!(storage.entries(Index(1), Index(1), 1), Err(StorageError::Unavailable));
}

#[test]
fn terms_are_known_from_the_one_before_the_first() {
    for (index, want) in [
        (2, Err(StorageError::Compacted)),
        (3, Ok(Term(3))),
        (4, Ok(Term(4))),
        (5, Ok(Term(5))),
        (6, Err(StorageError::Unavailable)),
        (u64::MAX, Err(StorageError::Unavailable)),
    ] {
        assert_eq!(compacted().term(Index(index)), want, "{index}");
    }
}

#[test]
fn entries_are_limited_by_range_and_size() {
    use StorageError::{Compacted, EntriesOutOfBound};
    let storage = MemoryStorage::new();
    storage.append(&entries(1, &[1, 2, 3, 4, 5, 6])).unwrap();
    storage.compact(Index(3)).unwrap();
    let size = entry(4, 4).encoded_size();
    for (lo, hi, max_size, want) in [
        (2, 6, u64::MAX, Err(Compacted)),
        (3, 4, u64::MAX, Err(Compacted)),
        (4, 5, u64::MAX, Ok(&[4][..])),
        (4, 6, u64::MAX, Ok(&[4, 5])),
        (4, 7, u64::MAX, Ok(&[4, 5, 6])),
        (4, 8, u64::MAX, Err(EntriesOutOfBound { hi: Index(8), last: Index(6) })),
        (5, 5, u64::MAX, Ok(&[])),
        (4, 7, 0, Ok(&[4])), // one always
        (4, 7, 2 * size, Ok(&[4, 5])),
        (4, 7, 2 * size + size / 2, Ok(&[4, 5])),
        (4, 7, 3 * size - 1, Ok(&[4, 5])),
        (4, 7, 3 * size, Ok(&[4, 5, 6])),
    ] {
        let got = storage.entries(Index(lo), Index(hi), max_size);
        let got = got.map(|all| all.iter().map(|entry| entry.index.0).collect::<Vec<_>>());
        assert_eq!(got, want.map(<[u64]>::to_vec), "[{lo}, {hi}) in {max_size}");
    }
}

#[test]
fn first_and_last_index_move() {
    let storage = compacted();
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(Index(4)), Ok(Index(5))));
    storage.append(&entries(6, &[5])).unwrap();
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(Index(4)), Ok(Index(6))));
    storage.compact(Index(4)).unwrap();
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(Index(5)), Ok(Index(6))));
    storage.compact(Index(6)).unwrap();
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(Index(7)), Ok(Index(6))));
    assert_eq!(storage.term(Index(6)), Ok(Term(5)));
}

#[test]
fn compaction_keeps_the_last_term() {
    use StorageError::{CompactOutOfBound, Compacted};
    for (index, want, kept) in [
        (2, Err(Compacted), &[4, 5][..]),
        (3, Err(Compacted), &[4, 5]),
        (4, Ok(()), &[5]),
        (5, Ok(()), &[]),
        (6, Err(CompactOutOfBound { index: Index(6), last: Index(5) }), &[4, 5]),
    ] {
        let storage = compacted();
        assert_eq!(storage.compact(Index(index)), want, "{index}");
        let held: Vec<u64> = all(&storage).iter().map(|entry| entry.index.0).collect();
        assert_eq!(held, kept, "{index}");
        if want.is_ok() {
            assert_eq!(storage.term(Index(index)), Ok(Term(index)));
        }
    }
}

#[test]
fn snapshots_are_made_of_what_is_there() {
    let members = |id| ConfState { voters: vec![NodeId(id)], ..ConfState::default() };
    let storage = compacted();
    let made = storage.create_snapshot(Index(4), Some(members(1)), "four".into()).unwrap();
    assert_eq!(made.id(), EntryId::new(4, 4));
    assert_eq!((&made.metadata.conf_state, &made.data[..]), (&members(1), &b"four"[..]));
    assert_eq!(storage.snapshot(), Ok(made));
    // Entries stay, and a membership that is not given.
    assert_eq!(storage.first_index(), Ok(Index(4)));
    let made = storage.create_snapshot(Index(5), None, "five".into()).unwrap();
    assert_eq!((made.id(), &made.metadata.conf_state), (EntryId::new(5, 5), &members(1)));
    assert_eq!(storage.initial_state().unwrap().conf_state, members(1));
    for (index, error) in [
        (4, StorageError::SnapshotOutOfDate),
        (5, StorageError::SnapshotOutOfDate),
        (6, StorageError::SnapshotOutOfBound { index: Index(6), last: Index(5) }),
    ] {
        assert_eq!(storage.create_snapshot(Index(index), None, Bytes::new()), Err(error));
    }
    // The first snapshot of a log that was compacted beyond it.
    let early = compacted().create_snapshot(Index(2), None, Bytes::new());
    assert_eq!(early, Err(StorageError::Compacted));
}

#[test]
fn appending_replaces_the_tail() {
    for (first, terms, want) in [
        (1, &[1, 2][..], Ok(&[4, 5][..])),  // all compacted
        (3, &[3, 4, 5], Ok(&[4, 5])),       // what is there already
        (3, &[3, 6, 6], Ok(&[6, 6])),       // an overlap of other terms
        (3, &[3, 4, 5, 5], Ok(&[4, 5, 5])), // what is there and one more
        (2, &[3, 3, 5], Ok(&[5])),          // older ones are cut off
        (4, &[5], Ok(&[5])),                // everything replaced
        (5, &[7, 7], Ok(&[4, 7, 7])),       // the tail replaced
        (6, &[5], Ok(&[4, 5, 5])),          // the end
        (1, &[], Ok(&[4, 5])),              // nothing
        (7, &[5], Err((5, 7))),             // a gap
    ] {
        let storage = compacted();
        let got = storage.append(&entries(first, terms));
        let owned = compacted();
        assert_eq!(owned.append_shared(&entries(first, terms).into()), got, "{first} {terms:?}");
        assert_eq!(all(&owned), all(&storage), "{first} {terms:?}");
        let want_terms = match want {
            Ok(terms) => {
                assert_eq!(got, Ok(()), "{first} {terms:?}");
                terms
            }
            Err((last, at)) => {
                let error = StorageError::AppendGap { last: Index(last), at: Index(at) };
                assert_eq!(got, Err(error));
                &[4, 5]
            }
        };
        assert_eq!(all(&storage), entries(4, want_terms), "{first} {terms:?}");
    }
    // A gap inside what is appended is found before anything is stored.
    let storage = compacted();
    let got = storage.append(&[entry(6, 5), entry(8, 5)]);
    assert_eq!(got, Err(StorageError::AppendGap { last: Index(6), at: Index(8) }));
    assert_eq!(storage.last_index(), Ok(Index(5)));
}

#[test]
fn a_newer_snapshot_replaces_everything() {
    let storage = compacted();
    assert_eq!(storage.apply_snapshot(snapshot(4, 4, &[1, 2, 3])), Ok(()));
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(Index(5)), Ok(Index(4))));
    assert_eq!(storage.term(Index(4)), Ok(Term(4)));
    assert_eq!(storage.snapshot(), Ok(snapshot(4, 4, &[1, 2, 3])));
    for index in [3, 4] {
        let got = storage.apply_snapshot(snapshot(index, 3, &[1]));
        assert_eq!(got, Err(StorageError::SnapshotOutOfDate), "{index}");
    }
    assert_eq!(storage.snapshot(), Ok(snapshot(4, 4, &[1, 2, 3])));

    // A membership alone.
    let storage = MemoryStorage::new();
    assert_eq!(storage.apply_snapshot(snapshot(0, 0, &[1, 2])), Ok(()));
    assert_eq!(storage.initial_state().unwrap().conf_state.voters, [NodeId(1), NodeId(2)]);
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(Index(1)), Ok(Index(0))));
}

#[test]
fn hard_state_is_nothing_until_it_is_stored() {
    let storage = MemoryStorage::new();
    assert_eq!(storage.initial_state().unwrap().hard_state, None);
    let hard_state = HardState { term: Term(3), vote: NodeId(2), commit: Index(1) };
    storage.clone().set_hard_state(hard_state); // clones are handles to one log
    assert_eq!(storage.initial_state().unwrap().hard_state, Some(hard_state));
}

#[test]
fn what_was_handed_out_stays_as_it_was() {
    let storage = compacted();
    let before = storage.entries(Index(4), Index(6), u64::MAX).unwrap();
    storage.append(&entries(4, &[9, 9, 9])).unwrap();
    storage.compact(Index(5)).unwrap();
    assert_eq!(before, entries(4, &[4, 5]));
}

#[test]
fn texts_are_those_of_etcd() {
    let (hi, last, index, at) = (Index(9), Index(5), Index(7), Index(8));
    for (error, text) in [
        (StorageError::Compacted, "requested index is unavailable due to compaction"),
        (StorageError::SnapshotOutOfDate, "requested index is older than the existing snapshot"),
        (StorageError::Unavailable, "requested entry at index is unavailable"),
        (StorageError::SnapshotTemporarilyUnavailable, "snapshot is temporarily unavailable"),
        (
            StorageError::EntriesOutOfBound { hi, last },
            "entries' hi(9) is out of bound lastindex(5)",
        ),
        (
            StorageError::SnapshotOutOfBound { index, last },
            "snapshot 7 is out of bound lastindex(5)",
        ),
        (StorageError::CompactOutOfBound { index, last }, "compact 7 is out of bound lastindex(5)"),
        (StorageError::AppendGap { last, at }, "missing log entry [last: 5, append at: 8]"),
        (StorageError::Other("disk on fire".into()), "disk on fire"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
