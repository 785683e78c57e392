//! What was applied, in order, for whoever follows it: copies that only serve reads, logs for people,
//! other systems. The same whichever engine runs, and straight from the log.
//!
//! ```text
//! mark <= place of a subscriber          told next: what follows it, up to what is applied
//! ```
//! Nothing is kept for a subscriber: it has a place, and asks for what comes after it. So one that is
//! slow holds up nobody and takes no memory; in the end compaction has passed it by, and it is told so.
//! It then takes the state as it is, and goes on from the index that the state stands for. One that
//! lost its connection goes on from its place, at any member.
//!
//! A subscriber has no vote and no part in any quorum. Only what is applied here is told, and that is
//! committed: nothing that was told is ever taken back.
//!
//! Source: ZAB contract O.4.

use bytes::Bytes;
use quorate_raft::{ChangeWireError, Entries, Entry, EntryType, decode_conf_change};
use quorate_types::{Index, Term};

use crate::storage::LogInMemory;
use crate::{EnvelopeError, FIRST, open, open_change};

/// Entries told at once: each is copied on the thread that all requests share.
const COUNT_MAX: u64 = 512;

/// How far a subscriber was told everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The last entry it was told of.
    pub index: Index,
    /// The stamp of that entry, if it knows it: then it is told nothing of a log in which another one
    /// stands there.
    pub stamp: Option<u64>,
}

/// Why there is nothing to tell from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// What comes next is compacted: take the state, and go on from there.
    #[error("what follows {after} is compacted; the first entry that is kept stands at {first}")]
    PassedBy {
        /// The place that was asked from.
        after: Index,
        /// The first entry that is kept, or would be the next.
        first: Index,
    },
    /// It is the place in another log.
    #[error("the entry at {index} is another one ({found:#x}) than was followed ({wanted:#x})")]
    OtherLog {
        /// The place that was asked from.
        index: Index,
        /// The stamp of the entry that stands there.
        found: u64,
        /// The stamp of the one that the subscriber was told of.
        wanted: u64,
    },
}

/// What an applied entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A command, as it was proposed.
    Command(Bytes),
    /// Nothing: a new leader's first, or a change of membership that came to nothing.
    Empty,
    /// A change of membership, in the machine's bytes. Nothing for one that the engine made itself, as
    /// when it leaves a joint membership.
    Change(Option<Bytes>),
}

/// Why an applied entry cannot be read. It then cannot be applied either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// It holds no command.
    #[error(transparent)]
    Command(#[from] EnvelopeError),
    /// It holds no change of membership.
    #[error(transparent)]
    Change(#[from] ChangeWireError),
}

impl Content {
    /// What an entry of the log holds.
    ///
    /// # Errors
    ///
    /// When a newer release wrote it.
    pub fn of(entry: &Entry) -> Result<Content, ContentError> {
        Ok(match (entry.entry_type(), &entry.data) {
            (EntryType::Normal, Some(data)) if !data.is_empty() => {
                Content::Command(open(data.clone())?.1)
            }
            (EntryType::Normal, _) => Content::Empty,
            (kind @ (EntryType::ConfChange | EntryType::ConfChangeV2), _) => {
                let change = decode_conf_change(kind, entry.payload())?;
                match open_change(change.as_v2().context) {
                    // A leader that did not judge it appended it.
                    Some((_, judged, _)) if judged != entry.term => Content::Empty,
                    opened => Content::Change(opened.map(|(_, _, bytes)| bytes)),
                }
            }
        })
    }
}

/// What follows `place` in `log`, of which everything up to `applied` is.
pub(crate) fn after(
    log: &LogInMemory,
    applied: Index,
    place: Place,
    bytes_max: u64,
) -> Result<Entries, FeedError> {
    let mut after = place.index;
    // What a cluster is founded with stands in no log.
    if after == Index(0) && log.mark() == FIRST.0 {
        after = FIRST.0;
    }
    if after < log.mark() {
        return Err(FeedError::PassedBy { after, first: log.mark().next() });
    }
    // What is told is both applied and at hand in the log.
    let end = applied.min(log.last());
    if end < after {
        return Ok(Entries::default());
    }
    if let (Some(wanted), Some(Term(found))) = (place.stamp, log.stamp(after))
        && found != wanted
    {
        return Err(FeedError::OtherLog { index: after, found, wanted });
    }
    if end == after {
        return Ok(Entries::default());
    }
    let end = end.min(after + COUNT_MAX);
    Ok(log.slice(after.next(), end.next(), bytes_max))
}

#[cfg(test)]
mod tests {
    use quorate_types::Mark;

    use super::*;
    use crate::Initial;

    /// A log after 4@1 with these entries of ten bytes.
    fn log(entries: &[(u64, u64)]) -> LogInMemory {
        let mark = Mark { index: Index(4), stamp: 1, ..Mark::default() };
        let entry = |&(index, term): &(u64, u64)| {
            let data = Some(Bytes::from(vec![index as u8; 10]));
            Entry { index: Index(index), term: Term(term), data, ..Entry::default() }
        };
        let entries = entries.iter().map(entry).collect();
        LogInMemory::new(&Initial { mark, entries, applied: Index(4), ..Initial::default() })
            .unwrap()
    }

    fn at(index: u64) -> Place {
        Place { index: Index(index), stamp: None }
    }

    fn told(
        log: &LogInMemory,
        applied: u64,
        place: Place,
        bytes_max: u64,
    ) -> Result<Vec<u64>, FeedError> {
        let entries = after(log, Index(applied), place, bytes_max)?;
        Ok(entries.iter().map(|entry| entry.index.0).collect())
    }

    #[test]
    fn a_subscriber_is_told_what_is_applied_after_its_place() {
        let log = log(&[(5, 1), (6, 1), (7, 2), (8, 2)]);
        for (applied, place, bytes_max, want) in [
            (8, 4, u64::MAX, &[5, 6, 7, 8][..]),
            (7, 4, u64::MAX, &[5, 6, 7]), // not what may still be replaced
            (8, 6, u64::MAX, &[7, 8]),
            (8, 6, 0, &[7]), // always one
            (8, 8, u64::MAX, &[]),
            (8, 9, u64::MAX, &[]),  // it is ahead of this member
            (9, 7, u64::MAX, &[8]), // the last one's write is under way
            (9, 8, u64::MAX, &[]),
        ] {
            let found = told(&log, applied, at(place), bytes_max);
            assert_eq!(found.as_deref(), Ok(want), "after {place} with {applied} applied");
        }
    }

    #[test]
    fn one_answer_is_bounded_in_count() {
        let entries: Vec<_> = (5..5 + 3 * COUNT_MAX).map(|index| (index, 1)).collect();
        let log = log(&entries);
        let (mut place, mut pieces) = (4, Vec::new());
        loop {
            let piece = told(&log, log.last().0, at(place), u64::MAX).unwrap();
            let Some(last) = piece.last() else { break };
            place = *last;
            pieces.push(piece.len() as u64);
        }
        assert_eq!((place, pieces.as_slice()), (log.last().0, &[COUNT_MAX; 3][..]));
    }

    #[test]
    fn who_is_passed_by_and_who_followed_another_log_is_told() {
        let mut log = log(&[(5, 1), (6, 1), (7, 2)]);
        log.compact(Index(6));
        let passed_by = |after| FeedError::PassedBy { after: Index(after), first: Index(7) };
        let other =
            |index, found, wanted| FeedError::OtherLog { index: Index(index), found, wanted };
        for (index, stamp, want) in [
            (0, None, Err(passed_by(0))),
            (5, None, Err(passed_by(5))),
            (5, Some(1), Err(passed_by(5))),
            (6, Some(1), Ok(vec![7])), // the mark has a stamp as well
            (6, Some(2), Err(other(6, 1, 2))),
            (7, Some(2), Ok(vec![])),
            (7, Some(1), Err(other(7, 2, 1))),
            (8, Some(1), Ok(vec![])), // not here yet, so nobody can say
        ] {
            let found = told(&log, 7, Place { index: Index(index), stamp }, u64::MAX);
            assert_eq!(found, want, "after {index}@{stamp:?}");
        }
    }

    #[test]
    fn a_subscriber_from_the_beginning_begins_behind_the_founding() {
        let (mark, hard_state) = crate::first_log(crate::Engine::Raft);
        let entry = Entry { index: Index(2), term: Term(2), ..Entry::default() };
        let initial = Initial {
            mark,
            entries: vec![entry],
            hard_state: crate::HardState::decode(hard_state).unwrap(),
            applied: FIRST.0,
            ..Initial::default()
        };
        let log = LogInMemory::new(&initial).unwrap();
        for place in [0, 1] {
            assert_eq!(told(&log, 2, at(place), u64::MAX), Ok(vec![2]), "after {place}");
        }
    }

    #[test]
    fn what_an_entry_holds_is_read_as_it_is_applied() {
        use bytes::BytesMut;
        use quorate_raft::{AnyConfChange, ConfChange, ConfChangeType};
        use quorate_types::NodeId;

        use crate::{RequestId, seal, seal_change};

        let mut command = BytesMut::new();
        seal(RequestId(7), &mut command);
        command.extend_from_slice(b"put");
        let change = |judged: Option<u64>| {
            let mut context = BytesMut::new();
            if let Some(judged) = judged {
                seal_change(RequestId(7), Term(judged), &mut context);
                context.extend_from_slice(b"add");
            }
            let change = ConfChange {
                change_type: ConfChangeType::AddNode,
                node_id: NodeId(4),
                context: context.freeze(),
                ..ConfChange::default()
            };
            AnyConfChange::V1(change)
        };
        let entry = |kind: Option<EntryType>, data: Option<Bytes>| Entry {
            index: Index(5),
            term: Term(3),
            kind,
            data,
        };
        let of_change = |judged| {
            let (kind, data) = quorate_raft::encode_conf_change(&change(judged));
            entry(Some(kind), data)
        };
        let add = || Content::Change(Some(Bytes::from_static(b"add")));
        for (entry, want) in [
            (entry(None, Some(command.freeze())), Content::Command(Bytes::from_static(b"put"))),
            (entry(None, Some(Bytes::new())), Content::Empty),
            (entry(None, None), Content::Empty),
            (of_change(Some(3)), add()),
            (of_change(Some(2)), Content::Empty), // judged by another leader
            (of_change(None), Content::Change(None)),
        ] {
            assert_eq!(Content::of(&entry), Ok(want), "{entry:?}");
        }
        let newer = Content::of(&entry(None, Some(Bytes::from_static(b"\xff12345678"))));
        assert!(matches!(newer, Err(ContentError::Command(_))), "{newer:?}");
    }
}
