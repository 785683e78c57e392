//! What is written can be read, and reads as what was written.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_raft::{
    Body, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
    ConfState, Entry, EntryType, HardState, Message, Snapshot, SnapshotMetadata,
};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::*;

/// Numbers of all lengths, zero and the largest among them.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..=64_u32).prop_map(|(number, bits)| number.checked_shr(bits).unwrap_or(0))
}

fn term() -> impl Strategy<Value = Term> {
    number().prop_map(Term)
}

fn index() -> impl Strategy<Value = Index> {
    number().prop_map(Index)
}

fn node() -> impl Strategy<Value = NodeId> {
    number().prop_map(NodeId)
}

fn place() -> impl Strategy<Value = EntryId> {
    (term(), index()).prop_map(|(term, index)| EntryId { term, index })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..8).prop_map(Bytes::from),
        1 => vec(any::<u8>(), SHARED_BYTES_MIN..SHARED_BYTES_MIN + 2).prop_map(Bytes::from),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(EntryType::Normal),
        Just(EntryType::ConfChange),
        Just(EntryType::ConfChangeV2)
    ];
    (term(), index(), option::of(kind), option::of(bytes()))
        .prop_map(|(term, index, kind, data)| Entry { term, index, kind, data })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    vec(entry(), 0..4)
}

fn hard_state() -> impl Strategy<Value = HardState> {
    (term(), node(), index()).prop_map(|(term, vote, commit)| HardState { term, vote, commit })
}

fn conf_state() -> impl Strategy<Value = ConfState> {
    let ids = || vec(node(), 0..4);
    (ids(), ids(), ids(), ids(), any::<bool>()).prop_map(
        |(voters, learners, voters_outgoing, learners_next, auto_leave)| ConfState {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (bytes(), conf_state(), index(), term()).prop_map(|(data, conf_state, index, term)| Snapshot {
        data,
        metadata: SnapshotMetadata { conf_state, index, term },
    })
}

fn change_type() -> impl Strategy<Value = ConfChangeType> {
    prop_oneof![
        Just(ConfChangeType::AddNode),
        Just(ConfChangeType::RemoveNode),
        Just(ConfChangeType::UpdateNode),
        Just(ConfChangeType::AddLearnerNode),
    ]
}

pub(super) fn change() -> impl Strategy<Value = ConfChange> {
    (number(), change_type(), node(), bytes()).prop_map(|(id, change_type, node_id, context)| {
        ConfChange { id, change_type, node_id, context }
    })
}

pub(super) fn change_v2() -> impl Strategy<Value = ConfChangeV2> {
    let transition = prop_oneof![
        Just(ConfChangeTransition::Auto),
        Just(ConfChangeTransition::JointImplicit),
        Just(ConfChangeTransition::JointExplicit),
    ];
    let single = (change_type(), node())
        .prop_map(|(change_type, node_id)| ConfChangeSingle { change_type, node_id });
    (option::of(transition), vec(single, 0..4), bytes())
        .prop_map(|(transition, changes, context)| ConfChangeV2 { transition, changes, context })
}

/// A snapshot that counts as one; an empty one reads as none in storage messages.
fn full_snapshot() -> impl Strategy<Value = Box<Snapshot>> {
    snapshot().prop_filter("not empty", |it| !it.is_empty()).prop_map(Box::new)
}

fn plain_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        prop_oneof![
            Just(Body::Hup),
            Just(Body::Beat),
            Just(Body::Unreachable),
            Just(Body::CheckQuorum),
            Just(Body::TransferLeader),
            Just(Body::TimeoutNow),
            Just(Body::ForgetLeader),
        ],
        entries().prop_map(|entries| Body::Propose { entries }),
        (place(), entries(), index()).prop_map(|(prev, entries, commit)| Body::Append {
            prev,
            entries: entries.into(),
            commit
        }),
        index().prop_map(|index| Body::AppendReply { index }),
        (index(), place()).prop_map(|(index, hint)| Body::AppendRefusal { index, hint }),
        (place(), any::<bool>(), number()).prop_map(|(last, transfer, priority)| Body::Vote {
            last,
            transfer,
            priority: priority as i64
        }),
        any::<bool>().prop_map(|reject| Body::VoteReply { reject }),
        (place(), any::<bool>(), number()).prop_map(|(last, transfer, priority)| Body::PreVote {
            last,
            transfer,
            priority: priority as i64
        }),
        any::<bool>().prop_map(|reject| Body::PreVoteReply { reject }),
        snapshot().prop_map(|it| Body::Snapshot { snapshot: Box::new(it) }),
        (index(), bytes()).prop_map(|(commit, context)| Body::Heartbeat { commit, context }),
        bytes().prop_map(|context| Body::HeartbeatReply { context }),
        any::<bool>().prop_map(|reject| Body::SnapshotStatus { reject }),
        entries().prop_map(|entries| Body::ReadIndex { entries }),
        (index(), entries()).prop_map(|(index, entries)| Body::ReadIndexReply { index, entries }),
        (option::of(place()), option::of(full_snapshot())).prop_map(|(stable, snapshot)| {
            let stable = stable.filter(|it| *it != EntryId::default());
            Body::StorageAppendReply { stable, snapshot }
        }),
        entries().prop_map(|entries| Body::StorageApplyReply { entries: entries.into() }),
    ]
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    let plain = (node(), node(), term(), plain_body()).prop_map(|(to, from, term, body)| Message {
        to,
        from,
        term,
        body,
    });
    plain.prop_recursive(3, 12, 3, |inner| {
        let responses = vec(inner, 0..3);
        let content = (hard_state(), entries(), option::of(full_snapshot()), responses);
        (node(), node(), any::<bool>(), content).prop_map(|(to, from, append, content)| {
            let (hard_state, entries, snapshot, responses) = content;
            if append {
                // Term, vote and commit are set together or not at all.
                let hard_state = Some(hard_state).filter(|it| !it.is_empty());
                let term = hard_state.map(|it| it.term).unwrap_or_default();
                let body = Body::StorageAppend {
                    hard_state,
                    entries: entries.into(),
                    snapshot,
                    responses,
                };
                Message { to, from, term, body }
            } else {
                let body = Body::StorageApply { entries: entries.into(), responses };
                Message { to, from, term: Term(0), body }
            }
        })
    })
}

pub(super) fn joined(pieces: Vec<Bytes>) -> Bytes {
    pieces.into_iter().flatten().collect()
}

proptest! {
    #[test]
    fn entries_of_all_kinds(entry in entry()) {
        let bytes = encode_entry(&entry);
        prop_assert_eq!(bytes.len() as u64, entry.encoded_size());
        prop_assert_eq!(decode_entry(bytes), Ok(entry.clone()));
        prop_assert_eq!(from_log_entry(to_log_entry(&entry)), Ok(entry));
    }

    #[test]
    fn states_and_snapshots(hard in hard_state(), conf in conf_state(), snapshot in snapshot()) {
        prop_assert_eq!(decode_hard_state(encode_hard_state(&hard)), Ok(hard));
        prop_assert_eq!(decode_hard_state_record(encode_hard_state_record(&hard)), Ok(hard));
        prop_assert_eq!(decode_conf_state(encode_conf_state(&conf)), Ok(conf.clone()));
        prop_assert_eq!(decode_conf_state_record(encode_conf_state_record(&conf)), Ok(conf));
        prop_assert_eq!(from_mark(to_mark(&snapshot.metadata)), Ok(snapshot.metadata.clone()));
        prop_assert_eq!(decode_snapshot(joined(encode_snapshot(&snapshot))), Ok(snapshot));
    }

    #[test]
    fn membership_changes(v1 in change(), v2 in change_v2()) {
        prop_assert_eq!(decode_conf_change(encode_conf_change(&v1)), Ok(v1));
        prop_assert_eq!(decode_conf_change_v2(encode_conf_change_v2(&v2)), Ok(v2));
    }

    #[test]
    fn messages(message in message()) {
        let pieces = encode_message(&message);
        prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        prop_assert_eq!(decode_message(joined(pieces)), Ok(message));
    }
}
