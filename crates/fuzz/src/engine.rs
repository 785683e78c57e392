//! The Raft engine among peers that say anything at all.

use quorate_raft::{
    Body, ConfState, Config, Entry, EntryType, MemoryStorage, Message, RawNode, Snapshot,
    SnapshotMetadata, decode_conf_change,
};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::draw::Draw;

/// One node of three hears the messages that the input spells, and does its own work in between. It
/// must never panic; it may stop, loudly, when what it was told breaks its promises.
pub(crate) fn step(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let storage = MemoryStorage::new();
    let members = ConfState { voters: [1, 2, 3].map(NodeId).to_vec(), ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state: members, index: Index(1), term: Term(1) };
    let first = Snapshot { metadata, ..Snapshot::default() };
    storage.apply_snapshot(first).expect("an empty log takes a snapshot");
    let options = draw.byte();
    let config = Config {
        pre_vote: options & 1 != 0,
        check_quorum: options & 2 != 0,
        applied: Index(1),
        ..Config::new(NodeId(1))
    };
    let Ok(mut node) = RawNode::new(config, storage.clone()) else { return };
    for _ in 0..200 {
        if draw.is_empty() || node.fatal().is_some() {
            break;
        }
        match draw.byte() % 8 {
            0 => {
                for _ in 0..draw.byte() % 32 {
                    let _ = node.tick();
                }
            }
            1 => {
                let _ = node.campaign();
            }
            2 => {
                let _ = node.propose(draw.bytes());
            }
            3 => node.read_index(draw.bytes()),
            4 => node.transfer_leader(NodeId(draw.number())),
            _ => {
                let message = message(&mut draw);
                let _ = node.step(message);
            }
        }
        if draw.is() {
            work(&mut node, &storage);
        }
    }
    work(&mut node, &storage);
    if node.fatal().is_none() {
        node.check();
    }
}

fn work(node: &mut RawNode<MemoryStorage>, storage: &MemoryStorage) {
    for _ in 0..100 {
        if node.fatal().is_some() || !node.has_ready() {
            return;
        }
        let ready = node.ready();
        if let Some(snapshot) = &ready.snapshot
            && storage.apply_snapshot(snapshot.clone()).is_err()
        {
            return;
        }
        if storage.append(&ready.entries).is_err() {
            return;
        }
        if let Some(hard_state) = ready.hard_state {
            storage.set_hard_state(hard_state);
        }
        for entry in ready.committed_entries {
            match entry.entry_type() {
                EntryType::Normal => {}
                kind => {
                    if let Ok(change) = decode_conf_change(kind, entry.payload()) {
                        let _ = node.apply_conf_change(&change);
                    }
                }
            }
        }
        if node.advance().is_err() {
            return;
        }
    }
}

fn message(draw: &mut Draw<'_>) -> Message {
    let (to, from, term) = (NodeId(1), NodeId(draw.number()), Term(draw.number()));
    Message { to, from, term, body: body(draw) }
}

fn id(draw: &mut Draw<'_>) -> EntryId {
    EntryId { term: Term(draw.number()), index: Index(draw.number()) }
}

fn entries(draw: &mut Draw<'_>) -> Vec<Entry> {
    let (mut term, mut index) = (draw.number(), draw.number());
    let mut entries = Vec::new();
    for _ in 0..draw.byte() % 6 {
        let kind = match draw.byte() % 6 {
            0 => Some(EntryType::ConfChange),
            1 => Some(EntryType::ConfChangeV2),
            2 => None,
            _ => Some(EntryType::Normal),
        };
        let data = draw.is().then(|| draw.bytes().into());
        entries.push(Entry { term: Term(term), index: Index(index), kind, data });
        // Mostly as they should be.
        match draw.byte() {
            0..8 => index = draw.number(),
            8..16 => term = draw.number(),
            16..32 => (term, index) = (term.wrapping_add(1), index.wrapping_add(1)),
            _ => index = index.wrapping_add(1),
        }
    }
    entries
}

fn snapshot(draw: &mut Draw<'_>) -> Snapshot {
    let mut ids = || (0..draw.byte() % 4).map(|_| NodeId(draw.number())).collect();
    let (voters, learners, voters_outgoing, learners_next) = (ids(), ids(), ids(), ids());
    let auto_leave = draw.is();
    let conf_state = ConfState { voters, learners, voters_outgoing, learners_next, auto_leave };
    let (index, term) = (Index(draw.number()), Term(draw.number()));
    let data = draw.bytes().into();
    Snapshot { data, metadata: SnapshotMetadata { conf_state, index, term } }
}

fn body(draw: &mut Draw<'_>) -> Body {
    match draw.byte() % 24 {
        0 => Body::Hup,
        1 => Body::Beat,
        2 => Body::Propose { entries: entries(draw) },
        3..6 => {
            let prev = id(draw);
            Body::Append { prev, entries: entries(draw).into(), commit: Index(draw.number()) }
        }
        6 => Body::AppendReply { index: Index(draw.number()) },
        7 => Body::AppendRefusal { index: Index(draw.number()), hint: id(draw) },
        8 => Body::Vote { last: id(draw), transfer: draw.is(), priority: draw.number() as i64 },
        9 | 10 => Body::VoteReply { reject: draw.is() },
        11 => Body::PreVote { last: id(draw), transfer: draw.is(), priority: draw.number() as i64 },
        12 => Body::PreVoteReply { reject: draw.is() },
        13 => Body::Snapshot { snapshot: Box::new(snapshot(draw)) },
        14 => Body::Heartbeat { commit: Index(draw.number()), context: draw.bytes().into() },
        15 => Body::HeartbeatReply { context: draw.bytes().into() },
        16 => Body::Unreachable,
        17 => Body::SnapshotStatus { reject: draw.is() },
        18 => Body::CheckQuorum,
        19 => Body::TransferLeader,
        20 => Body::TimeoutNow,
        21 => Body::ReadIndex { entries: entries(draw) },
        22 => Body::ReadIndexReply { index: Index(draw.number()), entries: entries(draw) },
        _ => Body::ForgetLeader,
    }
}
