use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_types::{Index, NodeId, Term};

use super::*;
use crate::{
    ConfChangeV2, ConfState, Config, EntryType, Error, MemoryStorage, RawNode, Snapshot,
    SnapshotMetadata, conf_changes_from_string, decode_conf_change,
};

/// Keeps the events as JSON, in the order they happened.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<String>>);

impl Kept {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Takes out the names.
    fn names(&self) -> Vec<String> {
        let name = |event: String| event.split('"').nth(3).unwrap().to_owned();
        self.take().into_iter().map(name).collect()
    }
}

impl TraceLogger for Kept {
    fn trace_event(&self, event: &TracingEvent<'_>) {
        self.0.lock().unwrap().push(event.json());
    }
}

/// Nodes with these ids as voters, that start from a snapshot at index 2.
fn nodes(ids: &[u64]) -> (Vec<RawNode<MemoryStorage>>, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let voters: Vec<_> = ids.iter().copied().map(NodeId).collect();
    let build = |&id: &u64| {
        let storage = MemoryStorage::new();
        let conf_state = ConfState { voters: voters.clone(), ..ConfState::default() };
        let metadata = SnapshotMetadata { conf_state, index: Index(2), term: Term(1) };
        storage.apply_snapshot(Snapshot { data: Bytes::new(), metadata }).unwrap();
        let config = Config {
            id: NodeId(id),
            election_tick: 3,
            heartbeat_tick: 1,
            max_size_per_msg: u64::MAX,
            max_inflight_msgs: 8,
            ..Config::default()
        };
        RawNode::new_traced(config, storage, kept.clone()).unwrap()
    };
    (ids.iter().map(build).collect(), kept)
}

/// Does what the node asks for; returns what it has to say.
fn work(node: &mut RawNode<MemoryStorage>) -> Vec<Message> {
    let ready = node.ready();
    let storage = node.storage().clone();
    storage.append(&ready.entries).unwrap();
    if let Some(snapshot) = ready.snapshot.filter(|snapshot| !snapshot.is_empty()) {
        storage.apply_snapshot(snapshot).unwrap();
    }
    for entry in ready.committed_entries {
        if entry.entry_type() != EntryType::Normal {
            let change = decode_conf_change(entry.entry_type(), entry.payload()).unwrap();
            node.apply_conf_change(&change).unwrap();
        }
    }
    node.advance().unwrap();
    ready.messages
}

/// Lets nodes 1, 2, ... work and hear from each other until nothing is left to do.
fn settle(nodes: &mut [RawNode<MemoryStorage>]) {
    while nodes.iter().any(RawNode::has_ready) {
        let messages: Vec<_> = nodes.iter_mut().flat_map(work).collect();
        for message in messages {
            if let Some(node) = nodes.get_mut(message.to.0 as usize - 1) {
                match node.step(message) {
                    Ok(()) | Err(Error::StepPeerNotFound) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fn change(text: &str) -> ConfChangeV2 {
    ConfChangeV2 { changes: conf_changes_from_string(text).unwrap(), ..ConfChangeV2::default() }
}

#[test]
fn a_node_is_traced_from_before_it_knows_anything() {
    let (_, kept) = nodes(&[1]);
    assert_eq!(
        kept.take(),
        [
            r#"{"name":"InitState","nid":"1","state":{"term":0,"vote":"0","commit":2},"role":"StateFollower","log":2,"conf":[[],[]]}"#,
            r#"{"name":"ApplyConfChange","nid":"1","state":{"term":0,"vote":"0","commit":2},"role":"StateFollower","log":2,"conf":[[],[]],"prop":{"cc":{"newconf":["1"]}}}"#,
            r#"{"name":"BecomeFollower","nid":"1","state":{"term":0,"vote":"0","commit":2},"role":"StateFollower","log":2,"conf":[["1"],[]]}"#,
        ]
    );
}

#[test]
fn an_election_is_traced_step_by_step() {
    let (mut nodes, kept) = nodes(&[1, 2]);
    kept.take();
    nodes[0].campaign().unwrap();
    assert_eq!(
        kept.take(),
        [
            r#"{"name":"BecomeCandidate","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateCandidate","log":2,"conf":[["1","2"],[]]}"#,
            r#"{"name":"SendRequestVoteResponse","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateCandidate","log":2,"conf":[["1","2"],[]],"msg":{"type":"MsgVoteResp","term":1,"from":"1","to":"1","entries":0,"logTerm":0,"index":0,"commit":0,"vote":"0","reject":false,"rejectHint":0}}"#,
            r#"{"name":"SendRequestVoteRequest","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateCandidate","log":2,"conf":[["1","2"],[]],"msg":{"type":"MsgVote","term":1,"from":"1","to":"2","entries":0,"logTerm":1,"index":2,"commit":0,"vote":"0","reject":false,"rejectHint":0}}"#,
        ]
    );
    let messages = work(&mut nodes[0]);
    assert_eq!(kept.names(), ["Ready", "ReceiveRequestVoteResponse"]);
    nodes[1].step(messages[0].clone()).unwrap();
    assert_eq!(
        kept.names(),
        ["ReceiveRequestVoteRequest", "BecomeFollower", "SendRequestVoteResponse"]
    );
    let messages = work(&mut nodes[1]);
    kept.take();
    nodes[0].step(messages[0].clone()).unwrap();
    assert_eq!(
        kept.take()[1..],
        [
            r#"{"name":"BecomeLeader","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateLeader","log":2,"conf":[["1","2"],[]]}"#,
            r#"{"name":"Replicate","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateLeader","log":2,"conf":[["1","2"],[]]}"#,
            r#"{"name":"SendAppendEntriesResponse","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateLeader","log":3,"conf":[["1","2"],[]],"msg":{"type":"MsgAppResp","term":1,"from":"1","to":"1","entries":0,"logTerm":0,"index":3,"commit":0,"vote":"0","reject":false,"rejectHint":0}}"#,
            r#"{"name":"SendAppendEntriesRequest","nid":"1","state":{"term":1,"vote":"1","commit":2},"role":"StateLeader","log":3,"conf":[["1","2"],[]],"msg":{"type":"MsgApp","term":1,"from":"1","to":"2","entries":1,"logTerm":1,"index":2,"commit":2,"vote":"0","reject":false,"rejectHint":0},"prop":{"match":2,"next":3}}"#,
        ]
    );
    let messages = work(&mut nodes[0]);
    assert_eq!(
        kept.names(),
        ["Ready", "ReceiveAppendEntriesResponse", "Commit"],
        "an attempt to commit is told even if nothing moves"
    );
    nodes[1].step(messages[0].clone()).unwrap();
    assert_eq!(kept.names(), ["ReceiveAppendEntriesRequest", "SendAppendEntriesResponse"]);
}

#[test]
fn membership_changes_are_traced_when_proposed_and_when_applied() {
    let (mut nodes, kept) = nodes(&[1]);
    nodes[0].campaign().unwrap();
    settle(&mut nodes);
    kept.take();
    nodes[0].propose_conf_change(change("v2 l3 u1 r4")).unwrap();
    let events = kept.take();
    assert_eq!(
        events[0],
        r#"{"name":"ChangeConf","nid":"1","state":{"term":1,"vote":"1","commit":3},"role":"StateLeader","log":3,"conf":[["1"],[]],"prop":{"cc":{"changes":[{"nid":"2","action":"AddNewServer"},{"nid":"3","action":"AddLearner"},{"nid":"4","action":"RemoveServer"}]}}}"#
    );
    assert_eq!(events.len(), 2, "a change is no normal entry: {events:?}");
    work(&mut nodes[0]);
    kept.take();
    work(&mut nodes[0]);
    let events = kept.take();
    let applied = events.iter().find(|event| event.contains("ApplyConfChange")).unwrap();
    assert!(applied.contains(r#""conf":[["1"],[]],"prop":{"cc":{"newconf":["1","2"]}}"#));
    assert!(events.iter().any(|event| event.contains(r#""conf":[["1","2"],["1"]]"#)));
}

#[test]
fn a_change_that_names_nobody_is_not_traced() {
    let (mut nodes, kept) = nodes(&[1]);
    nodes[0].campaign().unwrap();
    settle(&mut nodes);
    kept.take();
    nodes[0].propose_conf_change(change("u1")).unwrap();
    assert_eq!(kept.names(), ["SendAppendEntriesResponse"]);
}

#[test]
fn a_snapshot_is_traced_as_an_append_of_everything_up_to_it() {
    let (mut nodes, kept) = nodes(&[1]);
    let metadata = SnapshotMetadata {
        conf_state: ConfState { voters: vec![NodeId(1), NodeId(2)], ..ConfState::default() },
        index: Index(9),
        term: Term(3),
    };
    let snapshot = Box::new(Snapshot { data: Bytes::new(), metadata });
    kept.take();
    let message = Message {
        to: NodeId(1),
        from: NodeId(2),
        term: Term(4),
        body: Body::Snapshot { snapshot },
    };
    nodes[0].step(message).unwrap();
    let events = kept.take();
    assert!(events[0].starts_with(r#"{"name":"ReceiveAppendEntriesRequest","#), "{}", events[0]);
    assert!(events[0].ends_with(
        r#""msg":{"type":"MsgSnap","term":4,"from":"2","to":"1","entries":9,"logTerm":0,"index":0,"commit":0,"vote":"0","reject":false,"rejectHint":0}}"#
    ));
    let names: Vec<_> = events.iter().map(|event| event.split('"').nth(3).unwrap()).collect();
    assert_eq!(
        names,
        [
            "ReceiveAppendEntriesRequest",
            "BecomeFollower",
            "ApplyConfChange",
            "SendAppendEntriesResponse",
        ]
    );
}

#[test]
fn what_the_model_does_not_know_is_not_traced() {
    let (mut nodes, kept) = nodes(&[1, 2]);
    nodes[0].campaign().unwrap();
    settle(&mut nodes);
    kept.take();
    nodes[0].transfer_leader(NodeId(2));
    nodes[0].transfer_leader(NodeId(1));
    nodes[1].propose("x").unwrap();
    nodes[1].read_index("x");
    nodes[1].forget_leader().unwrap();
    assert_eq!(kept.names(), [""; 0]);
    nodes[0].tick().unwrap();
    assert_eq!(kept.names(), ["SendAppendEntriesRequest"], "a heartbeat counts as an append");
}

#[test]
fn every_event_occurs() {
    let (mut nodes, kept) = nodes(&[1, 2, 3]);
    nodes[0].campaign().unwrap();
    settle(&mut nodes);
    nodes[0].propose_conf_change(change("r3")).unwrap();
    settle(&mut nodes);
    let names = kept.names();
    for name in TracingEventName::ALL {
        assert!(names.contains(&name.to_string()), "{name}");
    }
}

#[test]
fn a_line_of_a_trace_file_has_its_tag() {
    let config = MembershipConfig::default();
    let event = TracingEvent {
        name: TracingEventName::Ready,
        node: NodeId(7),
        state: HardState::default(),
        role: Role::PreCandidate,
        last_index: Index(0),
        config: &config,
        message: None,
        conf_change: None,
        progress: None,
    };
    assert_eq!(
        trace_line(&event),
        r#"{"tag":"trace","event":{"name":"Ready","nid":"7","state":{"term":0,"vote":"0","commit":0},"role":"StatePreCandidate","log":0,"conf":[[],[]]}}"#
    );
}
