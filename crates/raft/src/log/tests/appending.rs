//! Taking entries in, and where logs part.

use super::*;

#[test]
fn conflicts_are_the_first_that_differ_or_are_new() {
    for (first, terms, want) in [
        (1, &[][..], None),
        (1, &[1, 2, 3], None), // known
        (2, &[2, 3], None),
        (3, &[3], None),
        (1, &[1, 2, 3, 4, 4], Some(4)), // new after known
        (2, &[2, 3, 4, 5], Some(4)),
        (3, &[3, 4, 4], Some(4)),
        (4, &[4, 4], Some(4)),
        (1, &[4, 4], Some(1)), // another term
        (2, &[1, 4, 4], Some(2)),
        (3, &[1, 2, 4, 4], Some(3)),
    ] {
        for log in [log_of(&[], &[1, 2, 3]), log_of(&[1, 2], &[3]), log_of(&[1, 2, 3], &[])] {
            let got = log.find_conflict(&entries(first, terms));
            assert_eq!(got, Ok(want.map(Index)), "{first} {terms:?}");
        }
    }
}

#[test]
fn guesses_are_the_largest_place_that_may_be_shared() {
    for (before, terms, (index, term), want) in [
        ((0, 0), &[2, 2, 5, 5, 5][..], (100, 2), (100, 0)), // beyond: not known
        ((0, 0), &[2, 2, 5, 5, 5], (5, 6), (5, 5)),
        ((0, 0), &[2, 2, 5, 5, 5], (5, 5), (5, 5)),
        ((0, 0), &[2, 2, 5, 5, 5], (5, 4), (2, 2)),
        ((0, 0), &[2, 2, 5, 5, 5], (5, 2), (2, 2)),
        ((0, 0), &[2, 2, 5, 5, 5], (5, 1), (0, 0)),
        ((0, 0), &[2, 2, 5, 5, 5], (1, 2), (1, 2)),
        ((0, 0), &[2, 2, 5, 5, 5], (1, 1), (0, 0)),
        ((0, 0), &[2, 2, 5, 5, 5], (0, 0), (0, 0)),
        ((3, 10), &[3, 3, 4, 4, 4], (30, 3), (30, 0)),
        ((3, 10), &[3, 3, 4, 4, 4], (15, 3), (12, 3)),
        ((3, 10), &[3, 3, 4, 4, 4], (12, 3), (12, 3)),
        ((3, 10), &[3, 3, 4, 4, 4], (11, 3), (11, 3)),
        ((3, 10), &[3, 3, 4, 4, 4], (10, 3), (10, 3)), // just before the first
        ((3, 10), &[3, 3, 4, 4, 4], (13, 2), (9, 0)),  // compacted: not known
        ((3, 10), &[3, 3, 4, 4, 4], (10, 2), (9, 0)),
        ((3, 10), &[3, 3, 4, 4, 4], (9, 2), (9, 0)),
        ((3, 10), &[3, 3, 4, 4, 4], (4, 2), (4, 0)),
        ((3, 10), &[3, 3, 4, 4, 4], (0, 0), (0, 0)),
    ] {
        for cut in 0..=terms.len() {
            let log = log_after(before, &terms[..cut], &terms[cut..]);
            let got = log.find_conflict_by_term(Index(index), Term(term));
            assert_eq!(got, Ok(EntryId::new(want.1, want.0)), "{before:?} {index}@{term}");
        }
    }
}

/// The halving search agrees with the walk that defines the guess.
#[test]
fn guesses_agree_with_the_walk() {
    for before in [(0, 0), (1, 1), (1, 2), (2, 7)] {
        for pattern in 0..3_u64.pow(5) {
            let steps = (0..5).map(|at| pattern / 3_u64.pow(at) % 3);
            let terms: Vec<u64> = steps
                .scan(before.0.max(1), |term, step| {
                    *term += step;
                    Some(*term)
                })
                .collect();
            let log = log_after(before, &terms[..2], &terms[2..]);
            for index in 0..before.1 + 8 {
                for term in 0..12 {
                    let walked = (1..=index).rev().find_map(|at| match log.term(Index(at)) {
                        Ok(ours) if ours <= Term(term) => Some(EntryId::new(ours, at)),
                        Ok(_) => None,
                        Err(_) => Some(EntryId::new(0, at)),
                    });
                    let got = log.find_conflict_by_term(Index(index), Term(term));
                    assert_eq!(got, Ok(walked.unwrap_or_default()), "{terms:?} {index}@{term}");
                }
            }
        }
    }
}

#[test]
fn up_to_date_compares_term_then_index() {
    let log = log_of(&[1, 2], &[3]);
    for (term, index, want) in [
        (4, 2, true), // a higher term, whatever the index
        (4, 3, true),
        (4, 4, true),
        (2, 2, false), // a lower one, whatever the index
        (2, 3, false),
        (2, 4, false),
        (3, 2, false), // the same: by index
        (3, 3, true),
        (3, 4, true),
    ] {
        assert_eq!(log.is_up_to_date(EntryId::new(term, index)), Ok(want), "{index}@{term}");
    }
}

#[test]
fn appending_replaces_from_the_first_new_index_on() {
    for (first, terms, want, offset) in [
        (3, &[][..], &[1, 2][..], 3),
        (3, &[2], &[1, 2, 2], 3),
        (1, &[2], &[2], 1), // replaces what is stable, too
        (2, &[3, 3], &[1, 3, 3], 2),
    ] {
        let mut log = log_of(&[1, 2], &[]);
        assert_eq!(log.append(entries(first, terms)), Ok(Index(want.len() as u64)));
        assert_eq!((log.terms(), log.unstable.offset()), (want.to_vec(), Index(offset)));
    }
}

#[test]
fn appending_refuses_gaps_and_committed_places() {
    let mut log = log_of(&[1, 2], &[3]);
    log.commit_to(Index(2)).unwrap();
    let got = log.append(entries(2, &[3]));
    assert_eq!(got, Err(Fatal::AppendBeforeCommit { after: Index(1), committed: Index(2) }));
    let got = log.append(entries(5, &[3]));
    assert_eq!(got, Err(Fatal::AppendGap { last: Index(3), at: Index(5) }));
    assert_eq!(log.terms(), [1, 2, 3]);
}

#[test]
fn a_leaders_entries_are_taken_in_where_they_connect() {
    // The log holds terms 1, 2, 3 and has committed 1.
    for (prev, terms, committed, want, committed_after, terms_after) in [
        // No connection: another term, or beyond the end.
        ((2, 3), &[4][..], 3, None, 1, &[1, 2, 3][..]),
        ((3, 4), &[4], 3, None, 1, &[1, 2, 3]),
        // Nothing new: commit goes up to what was sent, and never down.
        ((3, 3), &[], 3, Some(3), 3, &[1, 2, 3]),
        ((3, 3), &[], 4, Some(3), 3, &[1, 2, 3]),
        ((3, 3), &[], 2, Some(3), 2, &[1, 2, 3]),
        ((3, 3), &[], 0, Some(3), 1, &[1, 2, 3]),
        ((0, 0), &[], 3, Some(0), 1, &[1, 2, 3]),
        ((1, 1), &[2], 3, Some(2), 2, &[1, 2, 3]), // what is known; the longer log stays
        // New at the end.
        ((3, 3), &[4], 3, Some(4), 3, &[1, 2, 3, 4]),
        ((3, 3), &[4], 4, Some(4), 4, &[1, 2, 3, 4]),
        ((3, 3), &[4], 5, Some(4), 4, &[1, 2, 3, 4]),
        ((3, 3), &[4, 4], 5, Some(5), 5, &[1, 2, 3, 4, 4]),
        ((2, 2), &[3, 4], 4, Some(4), 4, &[1, 2, 3, 4]), // after a known one
        // In place of others.
        ((2, 2), &[4], 3, Some(3), 3, &[1, 2, 4]),
        ((1, 1), &[4], 3, Some(2), 2, &[1, 4]),
        ((1, 1), &[4, 4], 3, Some(3), 3, &[1, 4, 4]),
    ] {
        for cut in 0..=3 {
            let mut log = log_of(&[1, 2, 3][..cut], &[1, 2, 3][cut..]);
            log.commit_to(Index(1)).unwrap();
            let got = log.maybe_append(slice_of(prev, terms), Index(committed));
            let case = format!("{prev:?} {terms:?} committed {committed}, {cut} stable");
            assert_eq!(got, Ok(want.map(Index)), "{case}");
            assert_eq!(log.committed(), Index(committed_after), "{case}");
            assert_eq!(log.terms(), terms_after, "{case}");
            log.persist();
            assert_eq!(log.terms(), terms_after, "{case}");
        }
    }
    let mut log = log_of(&[1, 2, 3], &[]);
    log.commit_to(Index(1)).unwrap();
    let got = log.maybe_append(slice_of((0, 0), &[4]), Index(1));
    assert_eq!(got, Err(Fatal::CommittedConflict { index: Index(1), committed: Index(1) }));
}

#[test]
fn a_reordered_append_does_no_harm() {
    let mut log = log_of(&[1], &[]);
    assert_eq!(log.maybe_append(slice_of((1, 2), &[1]), Index(0)), Ok(None));
    assert_eq!(log.maybe_append(slice_of((1, 1), &[1]), Index(0)), Ok(Some(Index(2))));
    assert_eq!(log.maybe_append(slice_of((1, 2), &[1]), Index(0)), Ok(Some(Index(3))));
    assert_eq!(log.terms(), [1, 1, 1]);
}

#[test]
fn pieces_of_a_log_are_checked() {
    let id = |term, index| EntryId::new(term, index);
    let new = |term, prev, entries| LogSlice::new(Term(term), prev, entries);
    let slice = new(5, id(1, 2), entries(3, &[2, 3, 5]).into()).unwrap();
    assert_eq!((slice.prev, &slice.entries), (id(1, 2), &entries(3, &[2, 3, 5]).into()));
    assert_eq!(slice.last_index(), Index(5));
    let slice = new(5, id(1, 2), Entries::new()).unwrap();
    assert_eq!(slice.last_index(), Index(2));

    for (term, prev, entries, text) in [
        (5, id(1, 2), vec![entry(4, 2)], "leader term 5: entries 2@1 and 4@2 not consistent"),
        (5, id(1, 2), vec![entry(2, 2)], "leader term 5: entries 2@1 and 2@2 not consistent"),
        (5, id(3, 2), vec![entry(3, 2)], "leader term 5: entries 2@3 and 3@2 not consistent"),
        (
            5,
            id(1, 2),
            vec![entry(3, 2), entry(4, 1)],
            "leader term 5: entries 3@2 and 4@1 not consistent",
        ),
        (
            5,
            id(1, 2),
            vec![entry(3, 2), entry(5, 2)],
            "leader term 5: entries 3@2 and 5@2 not consistent",
        ),
        (5, id(1, 2), vec![entry(3, 6)], "leader term 5: entry 3@6 has a newer term"),
        (5, id(6, 2), vec![], "leader term 5: entry 2@6 has a newer term"),
        (
            5,
            id(1, u64::MAX),
            vec![entry(u64::MAX, 1)],
            "leader term 5: entries 18446744073709551615@1 and 18446744073709551615@1 not \
             consistent",
        ),
    ] {
        let error = new(term, prev, entries.into()).expect_err(text);
        assert_eq!(error.to_string(), text);
    }
}
