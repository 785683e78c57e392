//! A payload stays where it is from its proposal to the wire, and from the wire to the log.

use bytes::{Bytes, BytesMut};
use quorate_codec::{SHARED_BYTES_MIN, decode_message, encode_message};
use quorate_raft::{Body, ConfState, Config, MemoryStorage, Message, RawNode, Ready, Snapshot};
use quorate_types::NodeId;

const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);

fn node(id: NodeId) -> RawNode<MemoryStorage> {
    let mut first = Snapshot::default();
    first.metadata.conf_state =
        ConfState { voters: vec![LEADER, FOLLOWER], ..ConfState::default() };
    let storage = MemoryStorage::new();
    storage.apply_snapshot(first).expect("the log is empty");
    RawNode::new(Config::new(id), storage).expect("the options are good")
}

/// Does all work of a node, and gives what it sends and what it hands out to be written and applied.
fn work(node: &mut RawNode<MemoryStorage>) -> (Vec<Message>, Vec<Bytes>) {
    let (mut sent, mut seen) = (Vec::new(), Vec::new());
    while node.has_ready() {
        let Ready { entries, hard_state, committed_entries, messages, .. } = node.ready();
        let held = entries.iter().chain(&committed_entries);
        seen.extend(held.filter_map(|entry| entry.data.clone()));
        node.storage().append_shared(&entries).expect("entries follow each other");
        if let Some(hard_state) = hard_state {
            node.storage().set_hard_state(hard_state);
        }
        sent.extend(messages);
        node.advance().expect("storage answers");
    }
    (sent, seen)
}

fn lies_within(inner: &[u8], outer: &[u8]) -> bool {
    let (inner, outer) = (inner.as_ptr_range(), outer.as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end
}

#[test]
fn payloads_are_shared_and_not_copied() {
    let (mut leader, mut follower) = (node(LEADER), node(FOLLOWER));
    leader.campaign().expect("it is a voter");
    let mut sent = work(&mut leader).0;
    let mut payload = Bytes::new();
    let mut received_appends = Vec::new();
    let mut applied_count = 0;
    for round in 0..20 {
        if round == 10 {
            assert!(leader.is_leader(), "it was elected long ago");
            payload = Bytes::from(vec![b'q'; SHARED_BYTES_MIN]);
            leader.propose(payload.clone()).expect("it leads");
        }
        let (more, seen) = work(&mut leader);
        sent.extend(more);
        for data in &seen {
            assert_eq!(data.as_ptr(), payload.as_ptr(), "the leader writes what was proposed");
        }
        for message in std::mem::take(&mut sent) {
            let chunks = encode_message(&message);
            if matches!(&message.body, Body::Append { entries, .. }
                if entries.iter().any(|entry| !entry.payload().is_empty()))
            {
                let is_shared = |chunk: &Bytes| chunk.as_ptr() == payload.as_ptr();
                assert!(chunks.iter().any(is_shared), "the proposed bytes go to the wire");
            }
            let received: BytesMut = chunks.iter().flatten().copied().collect();
            let received = received.freeze();
            received_appends.push(received.clone());
            let message = decode_message(received).expect("it was encoded just now");
            follower.step(message).expect("it comes from a member");
        }
        let (answers, seen) = work(&mut follower);
        for data in &seen {
            let is_slice = received_appends.iter().any(|received| lies_within(data, received));
            assert!(is_slice, "the follower writes and applies what came in");
            applied_count += 1;
        }
        for answer in answers {
            leader.step(answer).expect("it comes from a member");
        }
    }
    assert_eq!(applied_count, 2, "once to write and once to apply");
}
