//! Terms and ranges of a log of which storage holds the beginning, and storage that fails.

use super::*;
use crate::InitialState;

#[test]
fn compaction_leaves_the_rest_right() {
    let terms: Vec<u64> = (1..=1000).collect();
    let mut log = log_of(&terms[..750], &terms[750..]);
    log.maybe_commit(EntryId::new(1000, 1000)).unwrap();
    log.applied_to(Index(1000), 0).unwrap();
    log.storage().compact(Index(500)).unwrap();

    assert_eq!((log.first_index(), log.last_index()), (Ok(Index(501)), Index(1000)));
    for index in 500..=1000 {
        assert_eq!(log.term(Index(index)), Ok(Term(index)));
        assert_eq!(log.match_term(EntryId::new(index, index)), Ok(true));
    }
    assert_eq!(log.term(Index(499)), Err(LogError::Compacted));
    assert_eq!(indexes(&log.next_unstable_ents()), (751..=1000).collect::<Vec<_>>());
    log.append(entries(1001, &[1001])).unwrap();
    assert_eq!(log.last_index(), Index(1001));
    assert_eq!(log.entries(Index(1001), ALL), Ok(entries(1001, &[1001]).into()));
    assert_eq!(log.terms(), (501..=1001).collect::<Vec<_>>());
}

#[test]
fn compactions_leave_what_is_beyond() {
    for (at, want, left) in [
        (
            &[1001][..],
            Err(StorageError::CompactOutOfBound { index: Index(1001), last: Index(1000) }),
            &[1000][..],
        ),
        (&[300, 500, 800, 900], Ok(()), &[700, 500, 200, 100]),
        (&[300, 299], Err(StorageError::Compacted), &[700, 700]),
    ] {
        let mut log = log_of(&[1; 1000], &[]);
        log.commit_to(Index(1000)).unwrap();
        log.applied_to(Index(1000), 0).unwrap();
        let mut got = Ok(());
        for (index, left) in at.iter().zip(left) {
            got = log.storage().compact(Index(*index));
            assert_eq!(log.terms().len(), *left);
        }
        assert_eq!(got, want);
    }
}

#[test]
fn a_log_can_start_after_a_snapshot() {
    let log = log_after((1000, 1000), &[], &[]);
    assert_eq!((log.first_index(), log.last_index()), (Ok(Index(1001)), Index(1000)));
    assert_eq!((log.committed(), log.applied()), (Index(1000), Index(1000)));
    assert_eq!(log.unstable.offset(), Index(1001));
    assert_eq!(log.term(Index(1000)), Ok(Term(1000)));
    assert_eq!(log.last_entry_id(), Ok(EntryId::new(1000, 1000)));
    assert_eq!(log.terms(), []);
}

#[test]
fn a_received_snapshot_replaces_the_log() {
    let mut log = log_of(&[1, 1], &[1, 1]);
    log.commit_to(Index(3)).unwrap();
    log.applied_to(Index(2), 0).unwrap();
    log.restore(snapshot(9, 4));
    assert_eq!((log.first_index(), log.last_index()), (Ok(Index(10)), Index(9)));
    assert_eq!((log.committed(), log.applied()), (Index(9), Index(2)));
    assert_eq!(log.last_entry_id(), Ok(EntryId::new(4, 9)));
    assert_eq!(log.snapshot(Index(0)), Ok(Some(snapshot(9, 4))));
    assert_eq!((log.has_unstable_ents(), log.has_unstable_snapshot()), (false, true));
    assert_eq!(log.term(Index(2)), Err(LogError::Compacted)); // though storage has it
    assert_eq!(log.slice(Index(9), Index(10), ALL), Err(LogError::Compacted));

    assert_eq!(log.next_unstable_snapshot(), Some(&snapshot(9, 4)));
    log.persist();
    assert_eq!((log.next_unstable_snapshot(), log.has_unstable_snapshot()), (None, false));
    log.applied_to(Index(9), 0).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (Ok(Index(10)), Index(9)));
    assert_eq!(log.snapshot(Index(0)), Ok(Some(snapshot(9, 4))));
}

#[test]
fn ranges_are_compacted_fine_or_fatal() {
    // Entries 101 to 200, the latter half unstable.
    let log = log_after((1, 100), &[1; 50], &[1; 50]);
    let (first, last) = (Index(101), Index(200));
    let out = |lo, hi| {
        LogError::Fatal(Fatal::SliceOutOfBound { lo: Index(lo), hi: Index(hi), first, last })
    };
    for (lo, hi, want) in [
        (99, 102, Err(LogError::Compacted)),
        (100, 101, Err(LogError::Compacted)),
        (100, 100, Err(LogError::Compacted)),
        (101, 101, Ok(())),
        (150, 151, Ok(())),
        (200, 200, Ok(())),
        (200, 201, Ok(())),
        (201, 201, Ok(())), // one past the end holds nothing
        (200, 202, Err(out(200, 202))),
        (201, 202, Err(out(201, 202))),
        (202, 202, Err(out(202, 202))),
        (202, 201, Err(Fatal::SliceInverted { lo: Index(202), hi: Index(201) }.into())),
    ] {
        assert_eq!(log.check_bounds(Index(lo), Index(hi)), want, "[{lo}, {hi})");
    }
}

#[test]
fn terms_are_known_inside_and_just_before() {
    // Entries 101 to 109 of terms 2 to 10.
    for cut in 0..=9 {
        let terms: Vec<u64> = (2..=10).collect();
        let log = log_after((1, 100), &terms[..cut], &terms[cut..]);
        for (index, want) in [
            (99, Err(LogError::Compacted)),
            (100, Ok(1)),
            (101, Ok(2)),
            (105, Ok(6)),
            (109, Ok(10)),
            (110, Err(LogError::Unavailable)),
            (u64::MAX, Err(LogError::Unavailable)),
        ] {
            assert_eq!(log.term(Index(index)), want.map(Term), "{index}, {cut} stable");
        }
    }
}

#[test]
fn terms_around_an_unstable_snapshot() {
    // Storage ends with a snapshot at 100, a newer one at 105 is not stable yet.
    let mut log = log_after((1, 100), &[], &[]);
    log.restore(snapshot(105, 1));
    for (index, want) in [
        (100, Err(LogError::Compacted)),
        (104, Err(LogError::Compacted)), // between the two
        (105, Ok(Term(1))),
        (106, Err(LogError::Unavailable)),
    ] {
        assert_eq!(log.term(Index(index)), want, "{index}");
    }
}

#[test]
fn slices_are_limited_by_size() {
    // 101 to 105 stable, 106 to 110 not; all entries are of one size.
    let log = log_after((1, 100), &[1; 5], &[1; 5]);
    let size = entry(101, 1).encoded_size();
    for (lo, hi, max_size, last) in [
        (101, 111, ALL, 110),
        (101, 103, ALL, 102),
        (103, 106, ALL, 105), // up to the border
        (104, 108, ALL, 107), // across
        (106, 109, ALL, 108), // unstable alone
        // At least one.
        (101, 111, 0, 101),
        (105, 111, 0, 105),
        (106, 111, 0, 106),
        // The limit in the stable part.
        (101, 111, 3 * size, 103),
        (101, 111, 4 * size - 1, 103),
        // At the border: the first unstable one would exceed what is left.
        (101, 111, 5 * size, 105),
        (101, 111, 6 * size - 1, 105),
        (105, 111, size + 1, 105),
        (105, 111, 2 * size - 1, 105),
        // In the unstable part.
        (101, 111, 6 * size, 106),
        (105, 111, 2 * size, 106),
        (105, 111, 3 * size - 1, 106),
        (106, 111, 2 * size, 107),
        (106, 111, 3 * size - 1, 107),
        (101, 111, 10 * size, 110),
    ] {
        let got = log.slice(Index(lo), Index(hi), max_size).unwrap();
        assert_eq!(indexes(&got), (lo..=last).collect::<Vec<_>>(), "[{lo}, {hi}) in {max_size}");
    }
    assert_eq!(log.slice(Index(100), Index(105), ALL), Err(LogError::Compacted));
    assert_eq!(log.slice(Index(104), Index(104), 0), Ok(Entries::new()));
    assert_eq!(log.entries(Index(111), ALL), Ok(Entries::new()));
    assert_eq!(indexes(&log.entries(Index(104), 3 * size).unwrap()), [104, 105, 106]);
}

#[test]
fn scans_show_what_one_read_would() {
    let log = log_after((1, 100), &[1; 5], &[1; 5]);
    let size = entry(101, 1).encoded_size();
    for lo in 101..=111 {
        for hi in lo..=111 {
            for page_bytes in [0, 1, size, 2 * size, 3 * size + 1, ALL] {
                let mut seen = Vec::new();
                let flow = log.scan(Index(lo), Index(hi), page_bytes, |page| {
                    assert!(page.len() == 1 || crate::encoded_size(page) <= page_bytes);
                    seen.extend(page.iter().cloned());
                    ControlFlow::<()>::Continue(())
                });
                assert_eq!(flow, Ok(ControlFlow::Continue(())));
                assert_eq!(log.slice(Index(lo), Index(hi), ALL).unwrap(), seen);
            }
        }
    }
    // Pages are as full as they can be.
    let mut pages = Vec::new();
    let flow = log.scan(Index(101), Index(109), 3 * size, |page| {
        pages.push(indexes(page));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(flow, Ok(ControlFlow::Continue(())));
    assert_eq!(pages, [vec![101, 102, 103], vec![104, 105, 106], vec![107, 108]]);
    // It breaks off when asked to, and fails as a read does.
    let flow = log.scan(Index(101), Index(111), 0, |page| match page[0].index {
        Index(104) => ControlFlow::Break(page[0].index),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(flow, Ok(ControlFlow::Break(Index(104))));
    let flow = log.scan(Index(100), Index(111), 0, |_| ControlFlow::<()>::Continue(()));
    assert_eq!(flow, Err(LogError::Compacted));
}

#[test]
fn what_was_handed_out_stays_as_it_was() {
    let mut log = log_of(&[1, 1], &[1, 1]);
    let (all, waiting) = (log.entries(Index(1), ALL).unwrap(), log.next_unstable_ents());
    log.append(entries(2, &[2, 2, 2])).unwrap();
    log.persist();
    assert_eq!(all, entries(1, &[1, 1, 1, 1]));
    assert_eq!(waiting, entries(3, &[1, 1]));
}

/// A storage that answers as a table says.
struct Broken {
    first: u64,
    last: u64,
    term: Result<Term, StorageError>,
    entries: Result<Entries, StorageError>,
}

impl Storage for Broken {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(InitialState::default())
    }
    fn entries(&self, _: Index, _: Index, _: u64) -> Result<Entries, StorageError> {
        self.entries.clone()
    }
    fn term(&self, _: Index) -> Result<Term, StorageError> {
        self.term.clone()
    }
    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(Index(self.last))
    }
    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(Index(self.first))
    }
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        Err(StorageError::SnapshotTemporarilyUnavailable)
    }
}

#[test]
fn a_storage_that_fails_or_lies_is_fatal() {
    let failed = || StorageError::Other("disk on fire".into());
    let (lo, hi) = (Index(2), Index(4));
    for (given, want) in [
        (Err(StorageError::Unavailable), Fatal::EntriesUnavailable { lo, hi }),
        (Err(failed()), Fatal::Storage(failed())),
        (Ok(vec![]), Fatal::EntriesMisplaced { lo, hi }),
        (Ok(entries(1, &[1, 1])), Fatal::EntriesMisplaced { lo, hi }), // before
        (Ok(entries(2, &[1, 1, 1])), Fatal::EntriesMisplaced { lo, hi }), // beyond
        (Ok(vec![entry(2, 1), entry(4, 1)]), Fatal::EntriesMisplaced { lo, hi }), // a gap
        (Ok(vec![entry(1, 1), entry(3, 1)]), Fatal::EntriesMisplaced { lo, hi }), // another
    ] {
        let storage =
            Broken { first: 1, last: 9, term: Ok(Term(1)), entries: given.map(Entries::from) };
        let log = RaftLog::new(storage, ALL).unwrap();
        assert_eq!(log.slice(lo, hi, ALL), Err(LogError::Fatal(want)));
    }
    let storage = |term| Broken { first: 1, last: 9, term, entries: Ok(Entries::new()) };
    let log = RaftLog::new(storage(Err(failed())), ALL).unwrap();
    assert_eq!(log.term(Index(3)), Err(LogError::Fatal(Fatal::Storage(failed()))));
    assert_eq!(log.match_term(EntryId::new(1, 3)), Err(Fatal::Storage(failed())));
    assert_eq!(log.last_entry_id(), Err(Fatal::Storage(failed())));
    let log = RaftLog::new(storage(Err(StorageError::Unavailable)), ALL).unwrap();
    assert_eq!(log.last_entry_id(), Err(Fatal::TermUnknown { index: Index(9) }));
    assert_eq!(log.snapshot(Index(0)), Ok(None));

    let inverted = Broken { first: 9, last: 1, term: Ok(Term(1)), entries: Ok(Entries::new()) };
    let got = RaftLog::new(inverted, ALL).err();
    assert_eq!(got, Some(Fatal::StorageInverted { first: Index(9), last: Index(1) }));

    // Compacted while it was still to be applied.
    let mut log = log_of(&[1, 1, 1], &[]);
    log.commit_to(Index(3)).unwrap();
    log.storage().compact(Index(2)).unwrap();
    let got = log.next_committed_ents(true);
    assert_eq!(got, Err(Fatal::EntriesCompacted { lo: Index(1), hi: Index(4) }));
}

/// A storage may give more than it was asked for by size; all of it counts.
#[test]
fn an_overfull_page_is_handed_out_whole() {
    let given = Ok(entries(1, &[1, 1, 1]));
    let storage =
        Broken { first: 1, last: 3, term: Ok(Term(1)), entries: given.map(Entries::from) };
    let mut log = RaftLog::new(storage, 1).unwrap();
    log.commit_to(Index(3)).unwrap();
    let got = log.next_committed_ents(true).unwrap();
    assert_eq!(indexes(&got), [1, 2, 3]);
    log.accept_applying(Index(3), got.encoded_size(), true).unwrap();
    assert!(log.applying_paused);
    log.applied_to(Index(3), got.encoded_size()).unwrap();
    assert_eq!(log.next_committed_ents(true), Ok(Entries::new()));
}
