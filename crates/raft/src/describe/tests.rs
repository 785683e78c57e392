use bytes::Bytes;
use quorate_types::Term;

use super::*;
use crate::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, Entries,
    Inflights, ProgressMap, Role, SnapshotMetadata, conf_changes_from_string,
};

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn normal(term: u64, index: u64, data: &'static str) -> Entry {
    let data = Some(Bytes::from_static(data.as_bytes())).filter(|data| !data.is_empty());
    Entry { term: Term(term), index: Index(index), kind: None, data }
}

fn change(term: u64, index: u64, change: impl Into<AnyConfChange>) -> Entry {
    let (kind, data) = crate::change_wire::encode_conf_change(&change.into());
    Entry { kind: Some(kind), data, ..normal(term, index, "") }
}

fn v1(change_type: ConfChangeType, node: u64) -> ConfChange {
    ConfChange { change_type, node_id: NodeId(node), ..ConfChange::default() }
}

fn v2(changes: &str) -> ConfChangeV2 {
    let changes = conf_changes_from_string(changes).unwrap();
    ConfChangeV2 { changes, ..ConfChangeV2::default() }
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let conf_state = ConfState { voters: ids(&[1]), learners: ids(&[2]), ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index: Index(index), term: Term(term) };
    Snapshot { data: Bytes::from_static(b"not shown"), metadata }
}

fn message(from: NodeId, to: NodeId, term: u64, body: Body) -> Message {
    Message { to, from, term: Term(term), body }
}

#[test]
fn entries() {
    let unreadable = Entry { data: Some(Bytes::from_static(b"\x08")), ..change(1, 8, v2("")) };
    for (entry, want) in [
        (normal(1, 3, ""), "1/3 EntryNormal \"\""),
        (normal(1, 4, "put k"), "1/4 EntryNormal \"put k\""),
        (change(1, 5, v1(ConfChangeType::AddNode, 2)), "1/5 EntryConfChange v2"),
        (change(1, 6, v2("v3 l4 r2 u1")), "1/6 EntryConfChangeV2 v3 l4 r2 u1"),
        (change(1, 7, v2("")), "1/7 EntryConfChangeV2"),
        (Entry { data: None, ..change(1, 7, v2("")) }, "1/7 EntryConfChangeV2"),
        (unreadable, "1/8 EntryConfChangeV2 membership change ends within a field"),
        (change(1, 9, v2("v26")), "1/9 EntryConfChangeV2 v26"),
    ] {
        assert_eq!(describe_entry(&entry, None), want);
    }
    let length = |data: &[u8]| data.len().to_string();
    let nothing = |_: &[u8]| String::new();
    assert_eq!(describe_entry(&normal(1, 4, "abc"), Some(&length)), "1/4 EntryNormal 3");
    assert_eq!(describe_entry(&normal(1, 4, "abc"), Some(&nothing)), "1/4 EntryNormal");
    let two = [normal(1, 4, "a"), normal(1, 5, "b")];
    assert_eq!(describe_entries(&two, None), "1/4 EntryNormal \"a\"\n1/5 EntryNormal \"b\"\n");
    assert_eq!(describe_entries(&[], None), "");
}

#[test]
fn quoted_bytes() {
    for (bytes, want) in [
        (&b"\x00\x01\n\x7f\xff\"\xe2\x80\x8b"[..], r#""\x00\x01\n\x7f\xff\"\u200b""#),
        (b"", r#""""#),
        (b" ~\\", r#"" ~\\""#),
        (b"\x07\x08\x0c\n\r\t\x0b\x1b", r#""\a\b\f\n\r\t\v\x1b""#),
        ("héllo 世界 ∞ 😀".as_bytes(), r#""héllo 世界 ∞ 😀""#),
        // Spaces other than the plain one, controls, private use, unassigned.
        (
            "\u{a0}\u{2003}\u{85}\u{ad}\u{feff}\u{e000}\u{10ffff}\u{e0001}".as_bytes(),
            r#""\u00a0\u2003\u0085\u00ad\ufeff\ue000\U0010ffff\U000e0001""#,
        ),
        // A mark is printable, alone or not; so is the sign for what could not be read.
        ("\u{301}e\u{301}\u{fffd}".as_bytes(), "\"\u{301}e\u{301}\u{fffd}\""),
        // Cut off, too long, half of a pair.
        (b"\xe2\x80 \xc0\x80 \xed\xa0\x80 \xf5", r#""\xe2\x80 \xc0\x80 \xed\xa0\x80 \xf5""#),
        (b"'", r#""'""#),
    ] {
        assert_eq!(quote(bytes), want);
    }
}

#[test]
fn states() {
    for (term, vote, commit, want) in [
        (3, 2, 9, "Term:3 Vote:2 Commit:9"),
        (1, 0, 0, "Term:1 Commit:0"),
        (1, 26, 0, "Term:1 Vote:26 Commit:0"),
    ] {
        let hard_state = HardState { term: Term(term), vote: NodeId(vote), commit: Index(commit) };
        assert_eq!(describe_hard_state(&hard_state), want);
    }
    let soft_state = SoftState { lead: NodeId(26), role: Role::PreCandidate };
    assert_eq!(describe_soft_state(&soft_state), "Lead:26 State:StatePreCandidate");

    let conf_state = ConfState {
        voters: ids(&[3, 1, 26]),
        learners: ids(&[4]),
        voters_outgoing: ids(&[5, 6]),
        learners_next: ids(&[7]),
        auto_leave: true,
    };
    let want = "Voters:[3 1 26] VotersOutgoing:[5 6] Learners:[4] LearnersNext:[7] AutoLeave:true";
    assert_eq!(describe_conf_state(&conf_state), want);
    let want = "Index:7 Term:1 ConfState:Voters:[1] VotersOutgoing:[] Learners:[2] \
                LearnersNext:[] AutoLeave:false";
    assert_eq!(describe_snapshot(&snapshot(7, 1)), want);
}

#[test]
fn conf_changes() {
    let context = Bytes::from_static(b"a\"b");
    let single = ConfChangeSingle::new(ConfChangeType::AddLearnerNode, 26);
    for (change, want) in [
        (v2(""), "transition:ConfChangeTransitionAuto"),
        (
            ConfChangeV2 {
                transition: Some(ConfChangeTransition::JointExplicit),
                changes: vec![single, ConfChangeSingle::new(ConfChangeType::RemoveNode, 1)],
                context,
            },
            "transition:ConfChangeTransitionJointExplicit \
             changes:{type:ConfChangeAddLearnerNode node_id:26} \
             changes:{type:ConfChangeRemoveNode node_id:1} context:\"a\\\"b\"",
        ),
    ] {
        assert_eq!(describe_conf_change(&change), want);
    }
}

#[test]
fn messages() {
    let (one, two, far) = (NodeId(1), NodeId(2), NodeId(26));
    let place = EntryId::new;
    let context = Bytes::from_static(b"not shown");
    let boxed = |snapshot| Some(Box::new(snapshot));
    let reply = |from, term, body| message(from, one, term, body);
    let learner = || vec![change(1, 7, v1(ConfChangeType::AddLearnerNode, 2))];
    for (message, want) in [
        (
            message(two, one, 8, Body::AppendRefusal { index: Index(20), hint: place(6, 19) }),
            "2->1 MsgAppResp Term:8 Log:6/20 Rejected (Hint: 19)",
        ),
        (
            message(two, one, 8, Body::AppendReply { index: Index(20) }),
            "2->1 MsgAppResp Term:8 Log:0/20",
        ),
        (
            message(one, two, 2, Body::Heartbeat { commit: Index(6), context: context.clone() }),
            "1->2 MsgHeartbeat Term:2 Log:0/0 Commit:6",
        ),
        (
            message(two, one, 2, Body::HeartbeatReply { context }),
            "2->1 MsgHeartbeatResp Term:2 Log:0/0",
        ),
        (
            message(two, one, 0, Body::Propose { entries: vec![normal(0, 0, "x")] }),
            "2->1 MsgProp Term:0 Log:0/0 Entries:[0/0 EntryNormal \"x\"]",
        ),
        (
            message(
                one,
                two,
                2,
                Body::Append {
                    prev: place(2, 6),
                    entries: vec![normal(2, 7, "a\"b"), normal(2, 8, "héllo")].into(),
                    commit: Index(6),
                },
            ),
            "1->2 MsgApp Term:2 Log:2/6 Commit:6 Entries:[\n  \
               2/7 EntryNormal \"a\\\"b\"\n  \
               2/8 EntryNormal \"héllo\"\n\
             ]",
        ),
        (
            message(one, two, 1, Body::Snapshot { snapshot: Box::new(snapshot(7, 1)) }),
            "1->2 MsgSnap Term:1 Log:0/0\n  \
               Snapshot: Index:7 Term:1 ConfState:Voters:[1] VotersOutgoing:[] Learners:[2] \
               LearnersNext:[] AutoLeave:false",
        ),
        (
            message(one, two, 1, Body::Snapshot { snapshot: Box::new(snapshot(0, 0)) }),
            "1->2 MsgSnap Term:1 Log:0/0",
        ),
        (
            message(
                one,
                LOCAL_APPEND_THREAD,
                0,
                Body::StorageAppend {
                    hard_state: None,
                    entries: vec![normal(1, 5, "p"), normal(1, 6, "q")].into(),
                    snapshot: None,
                    responses: vec![
                        reply(one, 1, Body::AppendReply { index: Index(5) }),
                        reply(
                            LOCAL_APPEND_THREAD,
                            1,
                            Body::StorageAppendReply { stable: Some(place(1, 6)), snapshot: None },
                        ),
                    ],
                },
            ),
            "1->AppendThread MsgStorageAppend Term:0 Log:0/0 Entries:[\n  \
               1/5 EntryNormal \"p\"\n  \
               1/6 EntryNormal \"q\"\n\
             ] Responses:[\n  \
               1->1 MsgAppResp Term:1 Log:0/5\n  \
               AppendThread->1 MsgStorageAppendResp Term:1 Log:1/6\n\
             ]",
        ),
        (
            message(
                one,
                LOCAL_APPLY_THREAD,
                0,
                Body::StorageApply {
                    entries: learner().into(),
                    responses: vec![reply(
                        LOCAL_APPLY_THREAD,
                        0,
                        Body::StorageApplyReply { entries: learner().into() },
                    )],
                },
            ),
            "1->ApplyThread MsgStorageApply Term:0 Log:0/0 Entries:[1/7 EntryConfChange l2] \
             Responses:[\n  \
               ApplyThread->1 MsgStorageApplyResp Term:0 Log:0/0 \
               Entries:[1/7 EntryConfChange l2]\n\
             ]",
        ),
        (
            message(
                two,
                LOCAL_APPEND_THREAD,
                1,
                Body::StorageAppend {
                    hard_state: Some(HardState {
                        term: Term(1),
                        vote: NodeId(0),
                        commit: Index(7),
                    }),
                    entries: Entries::new(),
                    snapshot: boxed(snapshot(7, 1)),
                    responses: vec![
                        message(two, one, 1, Body::AppendReply { index: Index(7) }),
                        message(
                            LOCAL_APPEND_THREAD,
                            two,
                            1,
                            Body::StorageAppendReply {
                                stable: None,
                                snapshot: boxed(snapshot(7, 1)),
                            },
                        ),
                    ],
                },
            ),
            "2->AppendThread MsgStorageAppend Term:1 Log:0/0 Commit:7\n  \
               Snapshot: Index:7 Term:1 ConfState:Voters:[1] VotersOutgoing:[] Learners:[2] \
               LearnersNext:[] AutoLeave:false Responses:[\n  \
               2->1 MsgAppResp Term:1 Log:0/7\n  \
               AppendThread->2 MsgStorageAppendResp Term:1 Log:0/0\n    \
                 Snapshot: Index:7 Term:1 ConfState:Voters:[1] VotersOutgoing:[] Learners:[2] \
                 LearnersNext:[] AutoLeave:false\n\
             ]",
        ),
        (
            message(far, NodeId::NONE, 3, Body::VoteReply { reject: true }),
            "1a->None MsgVoteResp Term:3 Log:0/0 Rejected (Hint: 0)",
        ),
        (
            message(far, one, 3, Body::PreVote { last: place(2, 9), transfer: true, priority: 7 }),
            "1a->1 MsgPreVote Term:3 Log:2/9",
        ),
        (message(two, one, 0, Body::TransferLeader), "2->1 MsgTransferLeader Term:0 Log:0/0"),
    ] {
        assert_eq!(describe_message(&message, None), want);
    }
}

#[test]
fn status() {
    let progress = |matched, next| {
        let matched = Index(matched);
        Progress { matched, ..Progress::new(Index(next), Inflights::new(1, 0)) }
    };
    let mut status = Status {
        basic: BasicStatus {
            id: NodeId(26),
            hard_state: HardState { term: Term(3), vote: NodeId(26), commit: Index(9) },
            soft_state: SoftState { lead: NodeId(26), role: Role::Leader },
            applied: Index(8),
            lead_transferee: NodeId(0),
        },
        ..Status::default()
    };
    let head = r#"{"id":"1a","term":3,"vote":"1a","commit":9,"lead":"1a","#;
    let head = head.to_owned() + r#""raftState":"StateLeader","applied":8,"progress":{"#;
    let tail = r#"},"leadtransferee":"0"}"#;
    assert_eq!(status_json(&status), format!("{head}{tail}"));

    status.progress = ProgressMap::new();
    status.progress.insert(NodeId(26), progress(9, 10));
    status.progress.insert(NodeId(2), progress(0, 1));
    let peers = r#""2":{"match":0,"next":1,"state":"StateProbe"},"#.to_owned()
        + r#""1a":{"match":9,"next":10,"state":"StateProbe"}"#;
    assert_eq!(status_json(&status), format!("{head}{peers}{tail}"));
}

#[test]
fn readies() {
    let read = |index, context: &'static [u8]| ReadState {
        index: Index(index),
        request_ctx: Bytes::from_static(context),
    };
    let message = message(
        NodeId(1),
        NodeId(2),
        1,
        Body::Append {
            prev: EntryId::new(1, 4),
            entries: vec![normal(1, 5, "a"), normal(1, 6, "b")].into(),
            commit: Index(4),
        },
    );
    for (ready, want) in [
        (Ready::default(), "<empty Ready>"),
        (
            Ready { read_states: vec![read(5, b"ctx"), read(6, b"")], ..Ready::default() },
            "Ready MustSync=false:\nReadStates [{5 [99 116 120]} {6 []}]\n",
        ),
        (
            Ready {
                soft_state: Some(SoftState { lead: NodeId(1), role: Role::Leader }),
                hard_state: Some(HardState { term: Term(1), ..HardState::default() }),
                entries: vec![normal(1, 5, "a")].into(),
                snapshot: Some(snapshot(3, 1)),
                committed_entries: vec![normal(1, 4, "")].into(),
                messages: vec![message],
                must_sync: true,
                ..Ready::default()
            },
            "Ready MustSync=true:\n\
             Lead:1 State:StateLeader\n\
             HardState Term:1 Commit:0\n\
             Entries:\n\
             1/5 EntryNormal \"a\"\n\
             Snapshot Index:3 Term:1 ConfState:Voters:[1] VotersOutgoing:[] Learners:[2] \
             LearnersNext:[] AutoLeave:false\n\
             CommittedEntries:\n\
             1/4 EntryNormal \"\"\n\
             Messages:\n\
             1->2 MsgApp Term:1 Log:1/4 Commit:4 Entries:[\n  \
               1/5 EntryNormal \"a\"\n  \
               1/6 EntryNormal \"b\"\n\
             ]\n",
        ),
    ] {
        assert_eq!(describe_ready(&ready, None), want);
    }
}
