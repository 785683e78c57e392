//! Numbers at the end of their range, from peers and from storage: refused, and no node is hurt.

use quorate_raft::{
    Body, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Config, DropReason, Entries,
    Entry, Error, Fatal, HardState, InitialState, MemoryStorage, Message, Note, ProgressState,
    RawNode, Role, Snapshot, SnapshotFault, SnapshotStatus, Storage, StorageError,
};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::net::{Member, ack, append, heartbeat, id, ids, log_of, plain, snapshot};

const MAX: u64 = u64::MAX;

/// A follower in term 2 whose log ends at 2@1, all of it committed.
fn follower() -> Member {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.hear(2, 2, append(id(0, 0), &[1, 1], 2));
    member.work();
    member
}

#[test]
fn snapshots_after_which_nothing_could_follow_are_ignored() {
    for (term, index) in [(2, MAX), (MAX, 9), (MAX, MAX)] {
        for asked in [false, true] {
            let mut member = follower();
            if asked {
                member.hear(2, 2, append(id(1, 2), &[2], 2));
                member.work();
                member.node.request_snapshot().unwrap();
            }
            member.node.take_notes();
            let body = Body::Snapshot { snapshot: Box::new(snapshot(term, index, &[1, 2, 3])) };
            member.hear(2, 2, body);
            let why = SnapshotFault::Malformed;
            let ignored = Note::SnapshotIgnored { snapshot: id(term, index), why };
            assert_eq!(member.node.take_notes(), [ignored]);
            member.work();
            assert_eq!(member.node.committed(), Index(2));
        }
    }
}

/// Each member costs time that grows with how many there are: a peer must not ask for hours.
#[test]
fn memberships_beyond_any_group_are_refused() {
    let many = |count: u64| (1..=count).collect::<Vec<u64>>();
    for (count, want) in [(1024, 9), (1025, 2), (1_000_000, 2)] {
        let mut member = follower();
        let body = Body::Snapshot { snapshot: Box::new(snapshot(2, 9, &many(count))) };
        member.hear(2, 2, body);
        assert_eq!(member.node.committed(), Index(want), "{count} members");
    }
    let learners = |count: u64| {
        let change = |id| ConfChangeSingle::new(ConfChangeType::AddLearnerNode, id + 10);
        ConfChangeV2 { changes: (0..count).map(change).collect(), ..ConfChangeV2::default() }
    };
    for (count, want) in
        [(1025, Err(Error::ProposalDropped(DropReason::Malformed))), (1024, Ok(()))]
    {
        let mut member = Member::new(plain(1), &[1]);
        member.lead(&[]);
        member.work();
        assert_eq!(member.node.propose_conf_change(learners(count)), want, "{count} members");
    }
}

#[test]
fn the_highest_snapshot_there_can_be_leaves_room_for_one_entry_less() {
    let mut member = follower();
    let body = Body::Snapshot { snapshot: Box::new(snapshot(2, MAX - 2, &[1, 2, 3])) };
    member.hear(2, 2, body);
    member.work();
    assert_eq!(member.node.last_index(), Index(MAX - 2));
    // One entry has a place, a second has not.
    for (terms, want) in [(&[2, 2][..], MAX - 2), (&[2, 2, 2], MAX - 2), (&[2], MAX - 1)] {
        member.hear(2, 2, append_at(id(2, MAX - 2), terms));
        member.work();
        assert_eq!(member.node.last_index(), Index(want), "{terms:?}");
    }
    member.hear(2, 2, append_at(id(2, MAX - 1), &[2]));
    member.hear(2, 2, heartbeat(MAX - 1));
    member.work();
    assert_eq!(member.node.applied(), Index(MAX - 1));
    // Nor could it lead.
    member.stand();
    assert_eq!(member.node.role(), Role::Follower);
    assert_eq!(member.node.fatal(), None);
}

/// As `append`, where the indexes end.
fn append_at(prev: EntryId, terms: &[u64]) -> Body {
    let mut entries = log_of(1, terms);
    for (entry, place) in entries.iter_mut().zip(1..) {
        entry.index = Index(prev.index.0.wrapping_add(place));
    }
    Body::Append { prev, entries: entries.into(), commit: Index(MAX) }
}

#[test]
fn appends_and_answers_at_the_edge_are_dropped_or_refused() {
    for body in [
        append_at(id(1, MAX), &[1]),
        append_at(id(1, MAX), &[]),
        append_at(id(1, MAX - 1), &[1, 1]),
        append_at(id(MAX, MAX), &[MAX]),
        append_at(id(1, 2), &[MAX]),
        Body::ReadIndexReply { index: Index(MAX), entries: vec![Entry::default()] },
        Body::AppendReply { index: Index(MAX) },
        Body::AppendRefusal { index: Index(MAX), hint: id(MAX, MAX) },
    ] {
        let mut member = follower();
        member.hear(2, 2, body.clone());
        member.work();
        assert_eq!(member.node.last_index(), Index(2), "{body:?}");
        assert_eq!(member.node.fatal(), None);
    }
    for on_request in [false, true] {
        let config = Config { snapshot_on_request: on_request, ..plain(1) };
        let mut member = Member::new(config, &[1, 2, 3]);
        member.lead(&[2]);
        for state in [ProgressState::Probe, ProgressState::Replicate] {
            for (index, hint) in [
                (0, id(0, MAX)),
                (0, id(MAX, MAX)),
                (0, id(MAX, 0)),
                (MAX, id(MAX, 0)),
                (MAX, id(0, MAX)),
                (MAX - 1, id(MAX, MAX - 1)),
                (1, id(MAX, MAX)),
            ] {
                member.hear(2, 1, Body::AppendRefusal { index: Index(index), hint });
                member.work();
            }
            for index in [MAX, MAX - 1, 2] {
                member.hear(2, 1, ack(index));
            }
            assert_eq!(member.node.committed(), Index(0), "{state}");
            assert!(member.progress(2).next <= Index(2));
            member.hear(2, 1, ack(0));
        }
    }
}

#[test]
fn a_full_log_takes_no_proposals() {
    let storage = MemoryStorage::new();
    storage.apply_snapshot(snapshot(1, MAX - 3, &[1])).unwrap();
    let hard_state = HardState { term: Term(1), commit: Index(MAX - 3), ..HardState::default() };
    storage.set_hard_state(hard_state);
    let mut member = Member::on(plain(1), storage);
    member.stand();
    assert_eq!(member.node.role(), Role::Leader);
    assert_eq!(member.node.last_index(), Index(MAX - 2));
    let full = Err(Error::ProposalDropped(DropReason::LogFull));
    let two = vec![Entry::default(), Entry::default()];
    assert_eq!(member.node.propose_entries(two).map(drop), full);
    member.node.propose("x").unwrap();
    assert_eq!(member.node.propose("y"), full);
    member.work();
    assert_eq!(member.node.applied(), Index(MAX - 1));
    assert_eq!(member.node.propose("y"), full);
    assert_eq!(member.node.fatal(), None);
}

/// A storage that says of itself what it is told to say.
struct Liar {
    first: u64,
    last: u64,
    hard_state: HardState,
    snapshot: Snapshot,
}

impl Storage for Liar {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let conf_state = ConfState { voters: ids(&[1, 2]), ..ConfState::default() };
        Ok(InitialState { hard_state: Some(self.hard_state), conf_state })
    }

    fn entries(&self, lo: Index, hi: Index, _: u64) -> Result<Entries, StorageError> {
        Ok((lo.0..hi.0).take(3).flat_map(|index| log_of(index, &[1])).collect())
    }

    fn term(&self, _: Index) -> Result<Term, StorageError> {
        Ok(Term(1))
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(Index(self.last))
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(Index(self.first))
    }

    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        Ok(self.snapshot.clone())
    }
}

fn liar(first: u64, last: u64) -> Liar {
    let hard_state = HardState { term: Term(1), ..HardState::default() };
    Liar { first, last, hard_state, snapshot: snapshot(1, first, &[1, 2]) }
}

#[test]
fn storage_that_ends_at_the_edge_is_refused() {
    for (first, last, commit) in [
        (1, MAX, 0),
        (MAX, MAX, MAX),
        (0, MAX, 0),
        (MAX, 5, 0),
        (1, 5, MAX),
        (7, 9, MAX - 1),
        (MAX, MAX - 1, MAX),
    ] {
        let mut storage = liar(first, last);
        storage.hard_state.commit = Index(commit);
        let node = RawNode::new(plain(1), storage);
        assert!(matches!(node, Err(Error::Fatal(_))), "{first} {last} {commit}");
    }
    for applied in [MAX, 6] {
        let config = Config { applied: Index(applied), ..plain(1) };
        assert!(matches!(RawNode::new(config, liar(1, 5)), Err(Error::Fatal(_))));
    }
    let mut storage = liar(1, 5);
    storage.hard_state.term = Term(MAX);
    let mut node = RawNode::new(plain(1), storage).unwrap();
    node.campaign().unwrap();
    assert_eq!((node.role(), node.fatal()), (Role::Follower, None));
}

#[test]
fn a_snapshot_of_what_is_not_in_the_log_makes_the_leader_unusable() {
    for index in [9, MAX - 1, MAX] {
        let mut storage = liar(5, 8);
        storage.hard_state.commit = Index(4);
        storage.snapshot.metadata.index = Index(index);
        let mut node = RawNode::new(plain(1), storage).unwrap();
        let message = |from: u64, term: u64, body: Body| Message {
            to: NodeId(1),
            from: NodeId(from),
            term: Term(term),
            body,
        };
        node.campaign().unwrap();
        drop(node.ready());
        node.advance().unwrap();
        node.step(message(2, 2, Body::VoteReply { reject: false })).unwrap();
        assert_eq!(node.role(), Role::Leader);
        let refusal = Body::AppendRefusal { index: Index(8), hint: id(0, 1) };
        let result = node.step(message(2, 2, refusal));
        let want = Fatal::SnapshotOutOfRange { index: Index(index), last: Index(9) };
        match index {
            9 => assert_eq!(result, Ok(())),
            _ => assert_eq!(result, Err(Error::Fatal(want))),
        }
        node.report_snapshot(NodeId(2), SnapshotStatus::Finish);
    }
}

#[test]
fn memory_storage_refuses_what_no_log_could_go_on_from() {
    let storage = MemoryStorage::new();
    let last = StorageError::LastIndex { index: Index(MAX) };
    assert_eq!(storage.apply_snapshot(snapshot(1, MAX, &[1])), Err(last.clone()));
    storage.apply_snapshot(snapshot(1, MAX - 2, &[1])).unwrap();
    let mut entries = log_of(MAX - 1, &[1]);
    storage.append(&entries).unwrap();
    entries[0].index = Index(MAX);
    assert_eq!(storage.append(&entries), Err(last));
    assert_eq!(storage.last_index(), Ok(Index(MAX - 1)));
    assert_eq!(storage.term(Index(MAX)), Err(StorageError::Unavailable));
    assert!(storage.entries(Index(MAX - 1), Index(MAX), 0).is_ok());
    assert!(storage.compact(Index(MAX)).is_err());
    storage.compact(Index(MAX - 1)).unwrap();
    assert_eq!(storage.first_index(), Ok(Index(MAX)));
}
