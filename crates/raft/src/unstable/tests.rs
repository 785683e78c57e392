use super::*;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: Index(index), term: Term(term), ..Entry::default() }
}

/// Entries of these terms from `first` on.
fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().enumerate().map(|(at, term)| entry(first + at as u64, *term)).collect()
}

fn snapshot(index: u64, term: u64) -> Box<Snapshot> {
    let mut snapshot = Snapshot::default();
    snapshot.metadata.index = Index(index);
    snapshot.metadata.term = Term(term);
    Box::new(snapshot)
}

/// Entries of these terms from `offset` on, of which those before `in_progress` are.
fn unstable(offset: u64, terms: &[u64], in_progress: u64, held: Option<(u64, u64)>) -> Unstable {
    let mut runs = Runs::default();
    runs.append(entries(offset, terms));
    Unstable {
        snapshot: held.map(|(index, term)| snapshot(index, term)),
        snapshot_in_progress: false,
        entries: runs,
        offset: Index(offset),
        offset_in_progress: Index(in_progress),
    }
}

/// Offset, terms, and in-progress mark.
fn shape(unstable: &Unstable) -> (u64, Vec<u64>, u64) {
    for (at, entry) in unstable.entries.iter().enumerate() {
        assert_eq!(entry.index, unstable.offset + at as u64, "dense from the offset on");
    }
    let terms = unstable.entries.iter().map(|entry| entry.term.0).collect();
    (unstable.offset.0, terms, unstable.offset_in_progress.0)
}

#[test]
fn first_index_is_known_with_a_snapshot_only() {
    for (terms, held, want) in [
        (&[1][..], None, None),
        (&[], None, None),
        (&[1], Some((4, 1)), Some(Index(5))),
        (&[], Some((4, 1)), Some(Index(5))),
    ] {
        assert_eq!(unstable(5, terms, 5, held).first_index(), want);
    }
}

#[test]
fn last_index_is_that_of_what_comes_last() {
    for (terms, held, want) in [
        (&[1][..], None, 5),
        (&[1, 1], Some((4, 1)), 6),
        (&[], Some((4, 1)), 4),
        (&[], None, 4), // what is stable
    ] {
        assert_eq!(unstable(5, terms, 5, held).last_index(), Index(want));
    }
}

#[test]
fn terms_are_those_of_entries_and_snapshot() {
    for (terms, held, index, want) in [
        (&[1][..], None, 5, Some(1)),
        (&[1], None, 6, None),
        (&[1], None, 4, None),
        (&[1], Some((4, 1)), 5, Some(1)),
        (&[1], Some((4, 1)), 6, None),
        (&[1], Some((4, 1)), 4, Some(1)), // the snapshot's own
        (&[1], Some((4, 1)), 3, None),
        (&[], Some((4, 1)), 5, None),
        (&[], Some((4, 1)), 4, Some(1)),
        (&[], None, 5, None),
        (&[], None, u64::MAX, None),
    ] {
        let got = unstable(5, terms, 5, held).term(Index(index));
        assert_eq!(got, want.map(Term), "{terms:?} {held:?} {index}");
    }
}

#[test]
fn a_snapshot_replaces_everything() {
    let mut unstable = unstable(5, &[1, 1], 6, Some((4, 1)));
    unstable.accept_in_progress();
    for index in [8, 6] {
        unstable.restore(snapshot(index, 2));
        assert_eq!(shape(&unstable), (index + 1, vec![], index + 1));
        assert!(!unstable.has_next_entries());
        assert_eq!(unstable.next_snapshot().map(Snapshot::id), Some(EntryId::new(2, index)));
    }
}

#[test]
fn only_what_waits_is_handed_out() {
    for (terms, in_progress, want) in
        [(&[1, 1][..], 5, &[5, 6][..]), (&[1, 1], 6, &[6]), (&[1, 1], 7, &[]), (&[], 5, &[])]
    {
        let unstable = unstable(5, terms, in_progress, None);
        let got: Vec<u64> = unstable.next_entries().iter().map(|entry| entry.index.0).collect();
        assert_eq!(got, want);
    }
}

#[test]
fn a_snapshot_is_handed_out_once() {
    let mut unstable = unstable(5, &[1], 5, Some((4, 1)));
    assert!(unstable.next_snapshot().is_some());
    unstable.accept_in_progress();
    assert!(unstable.next_snapshot().is_none() && unstable.snapshot().is_some());
    unstable.stable_snapshot_to(Index(3)); // another one
    assert!(unstable.snapshot().is_some());
    unstable.stable_snapshot_to(Index(4));
    assert!(unstable.snapshot().is_none());
    assert_eq!(shape(&unstable), (5, vec![1], 6));
}

#[test]
fn accepting_moves_marks_to_the_end() {
    for (terms, in_progress, held, want) in [
        (&[][..], 5, None, 5),
        (&[1], 5, None, 6),
        (&[1, 1], 5, None, 7),
        (&[1, 1], 6, None, 7),
        (&[1, 1], 7, None, 7),
        (&[], 5, Some((4, 1)), 5),
        (&[1], 5, Some((4, 1)), 6),
    ] {
        let mut unstable = unstable(5, terms, in_progress, held);
        unstable.accept_in_progress();
        assert_eq!(unstable.offset_in_progress, Index(want));
        assert_eq!(unstable.snapshot_in_progress, held.is_some());
    }
}

#[test]
fn only_what_matches_becomes_stable() {
    for (terms, in_progress, held, (term, index), want) in [
        (&[][..], 5, None, (1, 5), (5, &[][..], 5)),
        (&[1], 6, None, (1, 5), (6, &[], 6)),
        (&[1, 1], 6, None, (1, 5), (6, &[1], 6)),
        (&[1, 1], 7, None, (1, 5), (6, &[1], 7)), // a mark beyond stays
        (&[1, 1], 5, None, (1, 6), (7, &[], 7)),  // a mark behind is taken along
        (&[2], 6, None, (1, 5), (5, &[2], 6)),    // replaced meanwhile
        (&[1], 6, None, (1, 4), (5, &[1], 6)),    // before
        (&[1], 6, None, (1, 6), (5, &[1], 6)),    // beyond
        (&[1], 6, Some((4, 1)), (1, 5), (6, &[], 6)),
        (&[1], 6, Some((4, 1)), (1, 4), (5, &[1], 6)), // the snapshot's own entry
        (&[3, 3, 3], 8, None, (3, 6), (7, &[3], 8)),
    ] {
        let mut unstable = unstable(5, terms, in_progress, held);
        let moved = unstable.stable_to(EntryId::new(term, index));
        let (offset, kept, mark) = want;
        assert_eq!(shape(&unstable), (offset, kept.to_vec(), mark), "{terms:?} {term}@{index}");
        assert_eq!(moved, offset != 5);
        assert_eq!(unstable.snapshot().is_some(), held.is_some());
    }
}

#[test]
fn appending_extends_replaces_or_truncates() {
    for (terms, in_progress, first, new, want) in [
        // At the end.
        (&[1][..], 5, 6, &[1, 1][..], (5, &[1, 1, 1][..], 5)),
        (&[1], 6, 6, &[1, 1], (5, &[1, 1, 1], 6)),
        (&[], 5, 5, &[1], (5, &[1], 5)),
        // At the offset or before.
        (&[1], 5, 5, &[2, 2], (5, &[2, 2], 5)),
        (&[1], 6, 5, &[2, 2], (5, &[2, 2], 5)),
        (&[1, 1, 1], 5, 4, &[2, 2, 2], (4, &[2, 2, 2], 4)),
        (&[1, 1, 1], 7, 4, &[2, 2, 2], (4, &[2, 2, 2], 4)),
        // In the middle.
        (&[1, 1, 1], 5, 6, &[2, 2], (5, &[1, 2, 2], 5)),
        (&[1, 1, 1], 5, 7, &[2, 2], (5, &[1, 1, 2, 2], 5)),
        (&[1, 1, 1], 6, 6, &[2], (5, &[1, 2], 6)),
        (&[1, 1, 1], 7, 6, &[2], (5, &[1, 2], 6)),
        (&[1, 1, 1], 8, 6, &[2, 2], (5, &[1, 2, 2], 6)),
        // Nothing.
        (&[1], 6, 0, &[], (5, &[1], 6)),
    ] {
        let mut unstable = unstable(5, terms, in_progress, None);
        unstable.truncate_and_append(entries(first, new));
        let (offset, kept, mark) = want;
        assert_eq!(shape(&unstable), (offset, kept.to_vec(), mark), "{terms:?} {first} {new:?}");
    }
}

#[test]
fn slices_are_limited_by_size() {
    let unstable = unstable(5, &[1, 1, 1], 5, None);
    let size = entry(5, 1).encoded_size();
    for (lo, hi, max_size, want) in [
        (5, 8, u64::MAX, &[5, 6, 7][..]),
        (6, 7, u64::MAX, &[6]),
        (6, 6, u64::MAX, &[]),
        (5, 8, 0, &[5]),
        (5, 8, 2 * size, &[5, 6]),
    ] {
        let got = unstable.slice(Index(lo), Index(hi), max_size);
        assert_eq!(got.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), want);
    }
}

#[test]
fn memory_goes_back_when_it_is_not_needed() {
    let mut unstable = Unstable::after(Index(0));
    for index in 1..=100 {
        unstable.truncate_and_share(entries(index, &[1]).into());
    }
    unstable.stable_to(EntryId::new(1, 90));
    assert!(unstable.entries.capacity() < 50, "{}", unstable.entries.capacity());
    unstable.stable_to(EntryId::new(1, 100));
    assert_eq!(unstable.entries.capacity(), 0, "most of many groups are quiet");
    assert_eq!((unstable.last_index(), unstable.len()), (Index(100), 0));
}
