//! Known bytes of known values, both ways.

use std::fmt::Write as _;

use bytes::Bytes;
use quorate_raft::{
    Body, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
    ConfState, Entries, Entry, EntryType, HardState, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD,
    Message, Snapshot, SnapshotMetadata,
};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::*;

fn hex(pieces: &[Bytes]) -> String {
    let mut text = String::new();
    for byte in pieces.iter().flatten() {
        write!(text, "{byte:02x} ").unwrap();
    }
    text.trim_end().to_owned()
}

pub(super) fn unhex(text: &str) -> Bytes {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn entry(term: u64, index: u64, kind: Option<EntryType>, data: Option<&'static str>) -> Entry {
    let data = data.map(|data| Bytes::from_static(data.as_bytes()));
    Entry { term: Term(term), index: Index(index), kind, data }
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn snapshot(data: &'static str, index: u64, term: u64) -> Snapshot {
    let conf_state = ConfState { voters: ids(&[1]), ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index: Index(index), term: Term(term) };
    Snapshot { data: Bytes::from_static(data.as_bytes()), metadata }
}

#[test]
fn entries() {
    for (value, want) in [
        (entry(1, 2, None, Some("ab")), "10 01 18 02 22 02 61 62"),
        (entry(1, 2, Some(EntryType::Normal), Some("ab")), "08 00 10 01 18 02 22 02 61 62"),
        (entry(300, 70000, None, None), "10 ac 02 18 f0 a2 04"),
        (entry(1, 1, None, Some("")), "10 01 18 01 22 00"),
        (entry(1, 9, Some(EntryType::ConfChangeV2), None), "08 02 10 01 18 09"),
        (entry(0, 0, None, Some("x")), "22 01 78"),
        (entry(0, 0, None, None), ""),
        (
            entry(u64::MAX, u64::MAX, None, None),
            "10 ff ff ff ff ff ff ff ff ff 01 18 ff ff ff ff ff ff ff ff ff 01",
        ),
    ] {
        assert_eq!(hex(&[encode_entry(&value)]), want);
        assert_eq!(decode_entry(unhex(want)), Ok(value));
    }
}

#[test]
fn changes() {
    let change = |id, change_type, node, context: &'static str| ConfChange {
        id,
        change_type,
        node_id: NodeId(node),
        context: Bytes::from_static(context.as_bytes()),
    };
    for (value, want) in [
        (change(0, ConfChangeType::AddNode, 2, ""), "10 00 18 02"),
        (change(7, ConfChangeType::AddLearnerNode, 2, "x"), "08 07 10 03 18 02 22 01 78"),
        (change(0, ConfChangeType::RemoveNode, 300, ""), "10 01 18 ac 02"),
        (change(0, ConfChangeType::UpdateNode, 1, ""), "10 02 18 01"),
    ] {
        assert_eq!(hex(&[encode_conf_change(&value)]), want);
        assert_eq!(decode_conf_change(unhex(want)), Ok(value));
    }

    let add = ConfChangeSingle { change_type: ConfChangeType::AddNode, node_id: NodeId(2) };
    let learn = ConfChangeSingle { change_type: ConfChangeType::AddLearnerNode, ..add };
    let auto = Some(ConfChangeTransition::Auto);
    for (transition, changes, context, want) in [
        (auto, vec![add], "", "08 00 12 04 08 00 10 02"),
        (None, vec![add], "", "12 04 08 00 10 02"),
        (auto, vec![], "", "08 00"),
        (None, vec![], "", ""),
        (Some(ConfChangeTransition::JointImplicit), vec![], "c", "08 01 1a 01 63"),
        (
            Some(ConfChangeTransition::JointExplicit),
            vec![add, learn],
            "",
            "08 02 12 04 08 00 10 02 12 04 08 03 10 02",
        ),
    ] {
        let context = Bytes::from_static(context.as_bytes());
        let value = ConfChangeV2 { transition, changes, context };
        assert_eq!(hex(&[encode_conf_change_v2(&value)]), want);
        assert_eq!(decode_conf_change_v2(unhex(want)), Ok(value));
    }
}

#[test]
fn states() {
    let hard_state = HardState { term: Term(3), vote: NodeId(0), commit: Index(9) };
    assert_eq!(hex(&[encode_hard_state(&hard_state)]), "08 03 10 00 18 09");
    assert_eq!(decode_hard_state(unhex("08 03 10 00 18 09")), Ok(hard_state));

    for (value, want) in [
        (
            ConfState {
                voters: ids(&[1, 2, 300]),
                voters_outgoing: ids(&[1]),
                ..ConfState::default()
            },
            "08 01 08 02 08 ac 02 18 01 28 00",
        ),
        (
            ConfState {
                voters: vec![],
                learners: ids(&[4]),
                voters_outgoing: vec![],
                learners_next: ids(&[5, 6]),
                auto_leave: true,
            },
            "10 04 20 05 20 06 28 01",
        ),
    ] {
        assert_eq!(hex(&[encode_conf_state(&value)]), want);
        assert_eq!(decode_conf_state(unhex(want)), Ok(value));
    }

    let want = "0a 01 64 12 0a 0a 04 08 01 28 00 10 05 18 01";
    assert_eq!(hex(&encode_snapshot(&snapshot("d", 5, 1))), want);
    assert_eq!(decode_snapshot(unhex(want)), Ok(snapshot("d", 5, 1)));
}

#[test]
fn records_of_the_log() {
    let hard_state = HardState { term: Term(3), vote: NodeId(2), commit: Index(9) };
    let record = encode_hard_state_record(&hard_state);
    assert_eq!(hex(std::slice::from_ref(&record)), "01 08 03 10 02 18 09");
    assert_eq!(decode_hard_state_record(record), Ok(hard_state));

    let metadata = snapshot("", 5, 1).metadata;
    let mark = to_mark(&metadata);
    assert_eq!((mark.index, mark.stamp), (Index(5), 1));
    assert_eq!(hex(std::slice::from_ref(&mark.data)), "01 08 01 28 00");
    assert_eq!(from_mark(mark), Ok(metadata));
    assert_eq!(from_mark(Default::default()), Ok(SnapshotMetadata::default()));

    for found in [0, 2, 255] {
        let wrong = DecodeError::Version { record: "hard state", found, known: 1 };
        assert_eq!(decode_hard_state_record(Bytes::from(vec![found])), Err(wrong));
    }
    let empty = DecodeError::Version { record: "membership", found: 0, known: 1 };
    assert_eq!(decode_conf_state_record(Bytes::new()), Err(empty));
}

#[test]
fn log_entries_keep_absent_and_empty_apart() {
    for (value, kind) in [
        (entry(2, 7, None, None), 0x00),
        (entry(2, 7, Some(EntryType::Normal), None), 0x04),
        (entry(2, 7, Some(EntryType::ConfChange), Some("")), 0x0d),
        (entry(2, 7, Some(EntryType::ConfChangeV2), None), 0x06),
        (entry(2, 7, None, Some("")), 0x08),
        (entry(2, 7, None, Some("x")), 0x08),
    ] {
        let kept = to_log_entry(&value);
        assert_eq!((kept.index, kept.stamp, kept.kind), (Index(7), 2, kind));
        assert_eq!(from_log_entry(kept), Ok(value));
    }
    for kind in 0..=255 {
        for data in [Bytes::new(), Bytes::from_static(b"x")] {
            let kept = quorate_types::LogEntry { index: Index(7), stamp: 2, kind, data };
            match from_log_entry(kept.clone()) {
                Ok(entry) => assert_eq!(to_log_entry(&entry), kept),
                Err(error) => {
                    let bytes = kept.data.len();
                    assert_eq!(error, DecodeError::EntryKind { index: 7, kind, bytes });
                }
            }
        }
    }
}

#[test]
fn every_type_of_message() {
    let place = |term, index| EntryId::new(term, index);
    let empty = || vec![entry(1, 3, None, None)];
    let request = || vec![entry(0, 0, None, Some("ctx"))];
    let reply = |from, body| Message { to: NodeId(1), from, term: Term(2), body };
    let hard_state = HardState { term: Term(2), vote: NodeId(1), commit: Index(3) };
    for (term, body, want) in [
        (0, Body::Hup, "08 00 10 02 18 01"),
        (0, Body::Beat, "08 01 10 02 18 01"),
        (0, Body::Propose { entries: request() }, "08 02 10 02 18 01 3a 05 22 03 63 74 78"),
        (
            1,
            Body::Append { prev: place(1, 2), entries: empty().into(), commit: Index(2) },
            "08 03 10 02 18 01 20 01 28 01 30 02 3a 04 10 01 18 03 40 02",
        ),
        (
            1,
            Body::Append { prev: place(0, 0), entries: Entries::new(), commit: Index(0) },
            "08 03 10 02 18 01 20 01 28 00 30 00 40 00",
        ),
        (1, Body::AppendReply { index: Index(5) }, "08 04 10 02 18 01 20 01 30 05"),
        (7, Body::AppendReply { index: Index(0) }, "08 04 10 02 18 01 20 07"),
        (
            8,
            Body::AppendRefusal { index: Index(20), hint: place(6, 19) },
            "08 04 10 02 18 01 20 08 28 06 30 14 50 01 58 13",
        ),
        (
            1,
            Body::Vote { last: place(1, 2), transfer: false, priority: 0 },
            "08 05 10 02 18 01 20 01 28 01 30 02",
        ),
        (
            1,
            Body::Vote { last: place(1, 2), transfer: true, priority: 0 },
            "08 05 10 02 18 01 20 01 28 01 30 02 \
             62 10 43 61 6d 70 61 69 67 6e 54 72 61 6e 73 66 65 72",
        ),
        (1, Body::VoteReply { reject: false }, "08 06 10 02 18 01 20 01"),
        (1, Body::VoteReply { reject: true }, "08 06 10 02 18 01 20 01 50 01"),
        (
            1,
            Body::Snapshot { snapshot: Box::new(snapshot("d", 5, 1)) },
            "08 07 10 02 18 01 20 01 4a 0f 0a 01 64 12 0a 0a 04 08 01 28 00 10 05 18 01",
        ),
        (
            1,
            Body::Heartbeat { commit: Index(3), context: unhex("01 00 00 00 00 00 00 00") },
            "08 08 10 02 18 01 20 01 40 03 62 08 01 00 00 00 00 00 00 00",
        ),
        (
            1,
            Body::Heartbeat { commit: Index(0), context: Bytes::new() },
            "08 08 10 02 18 01 20 01 40 00",
        ),
        (1, Body::HeartbeatReply { context: unhex("01") }, "08 09 10 02 18 01 20 01 62 01 01"),
        (0, Body::Unreachable, "08 0a 10 02 18 01"),
        (0, Body::SnapshotStatus { reject: true }, "08 0b 10 02 18 01 50 01"),
        (0, Body::CheckQuorum, "08 0c 10 02 18 01"),
        (0, Body::TransferLeader, "08 0d 10 02 18 01"),
        (1, Body::TimeoutNow, "08 0e 10 02 18 01 20 01"),
        (0, Body::ReadIndex { entries: request() }, "08 0f 10 02 18 01 3a 05 22 03 63 74 78"),
        (
            1,
            Body::ReadIndexReply { index: Index(4), entries: request() },
            "08 10 10 02 18 01 20 01 30 04 3a 05 22 03 63 74 78",
        ),
        (
            2,
            Body::PreVote { last: place(1, 2), transfer: false, priority: 0 },
            "08 11 10 02 18 01 20 02 28 01 30 02",
        ),
        (2, Body::PreVoteReply { reject: true }, "08 12 10 02 18 01 20 02 50 01"),
        (
            2,
            Body::StorageAppend {
                hard_state: Some(hard_state),
                entries: empty().into(),
                snapshot: Some(Box::new(snapshot("", 5, 1))),
                responses: vec![reply(NodeId(2), Body::AppendReply { index: Index(3) })],
            },
            "08 13 10 02 18 01 20 02 3a 04 10 01 18 03 40 03 \
             4a 0c 12 0a 0a 04 08 01 28 00 10 05 18 01 68 01 72 0a 08 04 10 01 18 02 20 02 30 03",
        ),
        (
            0,
            Body::StorageAppend {
                hard_state: None,
                entries: Entries::new(),
                snapshot: None,
                responses: vec![],
            },
            "08 13 10 02 18 01",
        ),
        (
            2,
            Body::StorageAppendReply { stable: Some(place(1, 3)), snapshot: None },
            "08 14 10 02 18 01 20 02 28 01 30 03",
        ),
        (
            0,
            Body::StorageApply {
                entries: empty().into(),
                responses: vec![reply(
                    LOCAL_APPLY_THREAD,
                    Body::StorageApplyReply { entries: empty().into() },
                )],
            },
            "08 15 10 02 18 01 3a 04 10 01 18 03 \
             72 17 08 16 10 01 18 fe ff ff ff ff ff ff ff ff 01 20 02 3a 04 10 01 18 03",
        ),
        (
            0,
            Body::StorageApplyReply { entries: empty().into() },
            "08 16 10 02 18 01 3a 04 10 01 18 03",
        ),
        (0, Body::ForgetLeader, "08 17 10 02 18 01"),
    ] {
        let message = Message { to: NodeId(2), from: NodeId(1), term: Term(term), body };
        assert_eq!(hex(&encode_message(&message)), want, "{message:?}");
        assert_eq!(decode_message(unhex(want)), Ok(message));
    }

    let unset = Message { term: Term(0), ..reply(NodeId::NONE, Body::Hup) };
    assert_eq!(hex(&encode_message(&Message { to: NodeId::NONE, ..unset })), "08 00");
    let local = Message::new(LOCAL_APPEND_THREAD, Body::Beat);
    assert_eq!(hex(&encode_message(&local)), "08 01 10 ff ff ff ff ff ff ff ff ff 01");
}

/// What etcd up to 3.6 sends: zeros written out, and an empty snapshot in every message.
#[test]
fn messages_of_old_writers() {
    let old = "08 08 10 02 18 01 20 01 28 00 30 00 40 03 \
               4a 08 12 06 0a 00 10 00 18 00 50 00 58 00 68 00";
    let body = Body::Heartbeat { commit: Index(3), context: Bytes::new() };
    let want = Message { to: NodeId(2), from: NodeId(1), term: Term(1), body };
    assert_eq!(decode_message(unhex(old)), Ok(want));

    let entry_of_old = "08 00 10 01 18 03";
    let want = entry(1, 3, Some(EntryType::Normal), None);
    assert_eq!(decode_entry(unhex(entry_of_old)), Ok(want));
}

#[test]
fn large_payloads_are_not_copied() {
    let payload = |byte: u8, length: usize| Bytes::from(vec![byte; length]);
    let (small, large) = (payload(1, SHARED_BYTES_MIN - 1), payload(2, SHARED_BYTES_MIN));
    let entries = [&small, &large, &large, &small]
        .map(|data| Entry { data: Some(data.clone()), ..Entry::default() });
    let body = Body::Propose { entries: entries.to_vec() };
    let message = Message::new(NodeId(1), body);

    let pieces = encode_message(&message);
    let shared: Vec<_> = pieces.iter().map(|piece| piece.as_ptr() == large.as_ptr()).collect();
    assert_eq!(shared, [false, true, false, true, false]);

    let whole: Bytes = pieces.iter().flatten().copied().collect();
    let read = decode_message(whole.clone()).unwrap();
    assert_eq!(read, message);
    let Body::Propose { entries } = read.body else { panic!("{read:?}") };
    for entry in entries {
        let data = entry.data.unwrap();
        assert!(whole.as_ptr_range().contains(&data.as_ptr()), "a slice of the input");
    }
}
