//! Handing out for writing, and committing.

use quorate_types::NodeId;

use super::*;
use crate::{Progress, ProgressTracker};

#[test]
fn unstable_entries_are_handed_out_until_stable() {
    for (stable, unstable) in [(&[1, 2][..], &[][..]), (&[1], &[2]), (&[], &[1, 2])] {
        let mut log = log_of(stable, unstable);
        let waiting = log.next_unstable_ents();
        assert_eq!(waiting, entries(stable.len() as u64 + 1, unstable));
        assert_eq!(log.has_next_unstable_ents(), !unstable.is_empty());
        assert_eq!(log.has_unstable_ents(), !unstable.is_empty());
        log.accept_unstable();
        assert!(!log.has_next_unstable_ents());
        assert_eq!(log.has_unstable_ents(), !unstable.is_empty());
        log.storage().append(&waiting).unwrap();
        log.stable_to(EntryId::new(2, 2));
        assert!(!log.has_unstable_ents());
        assert_eq!(log.unstable.offset(), Index(3));
    }
}

#[test]
fn commit_rises_to_the_end_at_most() {
    for (to, want) in [
        (3, Ok(3)),
        (1, Ok(2)), // never lowered
        (4, Err(Fatal::CommitOutOfRange { to: Index(4), last: Index(3) })),
    ] {
        let mut log = log_of(&[1], &[2, 3]);
        log.commit_to(Index(2)).unwrap();
        assert_eq!(log.commit_to(Index(to)).map(|()| log.committed().0), want);
    }
}

#[test]
fn only_the_very_entry_commits() {
    for (term, index, want) in [
        (3, 3, true),
        (2, 3, false), // another term
        (2, 2, false), // no news
        (0, 3, false),
        (3, 4, false),        // beyond the end
        (3, u64::MAX, false), // what a quorum of nobody holds
    ] {
        let mut log = log_of(&[1], &[2, 3]);
        log.commit_to(Index(2)).unwrap();
        assert_eq!(log.maybe_commit(EntryId::new(term, index)), Ok(want), "{index}@{term}");
        assert_eq!(log.committed(), Index(if want { 3 } else { 2 }));
    }
}

#[test]
fn commit_needs_a_majority_and_the_current_term() {
    // What each voter matches, the terms of the leader's log, and its term.
    for (matched, terms, term, want) in [
        (&[1][..], &[1][..], 1, 1),
        (&[1], &[1], 2, 0),
        (&[2], &[1, 2], 2, 2),
        (&[1], &[2], 2, 1),
        (&[2, 1, 1], &[1, 2], 1, 1),
        (&[2, 1, 1], &[1, 1], 2, 0),
        (&[2, 1, 2], &[1, 2], 2, 2),
        (&[2, 1, 2], &[1, 1], 2, 0),
        (&[2, 1, 1, 1], &[1, 2], 1, 1),
        (&[2, 1, 1, 1], &[1, 1], 2, 0),
        (&[2, 1, 1, 2], &[1, 2], 1, 1),
        (&[2, 1, 1, 2], &[1, 1], 2, 0),
        (&[2, 1, 2, 2], &[1, 2], 2, 2),
        (&[2, 1, 2, 2], &[1, 1], 2, 0),
    ] {
        let mut tracker = ProgressTracker::new(1, 0);
        for (voter, matched) in (1..).zip(matched) {
            tracker.config.voters.incoming.0.insert(NodeId(voter));
            let mut progress = Progress::new(Index(matched + 1), tracker.inflights());
            progress.matched = Index(*matched);
            tracker.progress.insert(NodeId(voter), progress);
        }
        for cut in 0..=terms.len() {
            let mut log = log_of(&terms[..cut], &terms[cut..]);
            let quorum_holds = EntryId { term: Term(term), index: tracker.committed() };
            assert_eq!(log.maybe_commit(quorum_holds), Ok(want > 0), "{matched:?} {terms:?}");
            assert_eq!(log.committed(), Index(want), "{matched:?} {terms:?}");
        }
    }
}

#[test]
fn stored_commit_is_one_of_the_log() {
    let (first, last) = (Index(3), Index(5));
    for (commit, fits) in [(2, false), (3, true), (4, true), (5, true), (6, false)] {
        let commit = Index(commit);
        let mut log = log_after((1, 3), &[1, 1], &[]);
        let want = if fits {
            Ok(commit)
        } else {
            Err(Fatal::StoredCommitOutOfRange { commit, first, last })
        };
        assert_eq!(log.load_commit(commit).map(|()| log.committed()), want);
    }
}

#[test]
fn acknowledged_writes_need_index_and_term() {
    for (term, index, offset) in [
        (1, 1, 2),
        (2, 2, 3),
        (1, 2, 1), // another term
        (1, 3, 1), // beyond
    ] {
        let mut log = log_of(&[], &[1, 2]);
        log.stable_to(EntryId::new(term, index));
        assert_eq!(log.unstable.offset(), Index(offset), "{index}@{term}");
    }
}

#[test]
fn acknowledged_writes_beside_a_snapshot() {
    for (terms, (term, index), offset) in [
        (&[][..], (2, 6), 6), // beyond
        (&[], (2, 5), 6),     // the snapshot's own entry
        (&[], (2, 4), 6),
        (&[], (1, 6), 6),
        (&[], (1, 5), 6),
        (&[2], (2, 6), 7),
        (&[2], (2, 5), 6),
        (&[2], (2, 4), 6),
        (&[2], (1, 6), 6),
        (&[2], (1, 5), 6),
        (&[2, 2], (2, 6), 7),
        (&[2, 2], (2, 7), 8),
    ] {
        // Whether the snapshot is stable or not makes no difference.
        let mut stable = log_after((2, 5), &[], terms);
        let mut unstable = log_of(&[], &[]);
        unstable.restore(snapshot(5, 2));
        unstable.append(entries(6, terms)).unwrap();
        for log in [&mut stable, &mut unstable] {
            log.stable_to(EntryId::new(term, index));
            assert_eq!(log.unstable.offset(), Index(offset), "{terms:?} {index}@{term}");
        }
    }
}

/// An entry that was replaced and came back is not the one whose write is acknowledged, as long as
/// acknowledgements of older terms are kept away.
#[test]
fn replaced_entries_stay_until_written_again() {
    let mut log = log_of(&[1, 1, 1, 1], &[2]);
    log.accept_unstable();
    log.append(entries(5, &[3])).unwrap();
    assert!(!log.stable_to(EntryId::new(2, 5)), "the first write names an entry that is gone");
    assert_eq!(indexes(&log.next_unstable_ents()), [5]);
    log.accept_unstable();
    assert!(log.stable_to(EntryId::new(3, 5)));
}
