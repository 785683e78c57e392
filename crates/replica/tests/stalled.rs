//! A member whose state cannot be flushed: its log takes no more than it may, what is sent to it
//! meanwhile does not go back and forth, and it goes on by itself once flushes work again.

use bytes::BytesMut;
use quorate_raft::{Body, ConfState, Entry, HardState, Message};
use quorate_replica::{Config, Event, Initial, Message as AnyMessage, Replica, RequestId, seal};
use quorate_types::{EntryId, Index, Mark, NodeId, Term, bugs};

const ENTRY_BYTES: usize = 1000;

fn initial() -> Initial {
    let voters = vec![NodeId(1), NodeId(2), NodeId(3)];
    Initial {
        mark: Mark { index: Index(1), stamp: 1, ..Mark::default() },
        entries: Vec::new(),
        hard_state: HardState { term: Term(1), commit: Index(1), ..HardState::default() }.into(),
        applied: Index(1),
        conf_state: ConfState { voters, ..ConfState::default() },
    }
}

fn follower() -> (Config, Replica) {
    let config = Config { log_bytes_max: 10_000, ..Config::new(NodeId(1), 1) };
    (config.clone(), Replica::new(config, initial()).unwrap())
}

/// Sends the entry at `index`, as committed.
fn send(replica: &mut Replica, index: u64) {
    let term = Term(2);
    let prev = EntryId { term: if index == 2 { Term(1) } else { term }, index: Index(index - 1) };
    let data = Some(vec![b'x'; ENTRY_BYTES].into());
    let entry = Entry { term, index: Index(index), data, ..Entry::default() };
    let entries = vec![entry].into();
    let body = Body::Append { prev, entries, commit: Index(index) };
    let message = Message { from: NodeId(2), term, ..Message::new(NodeId(1), body) };
    replica.handle(Event::Message(message.into())).unwrap();
}

/// Does so, and what the member asks for, but for flushes. Up to where the leader is told that logs
/// match, if it is told so.
fn append(replica: &mut Replica, index: u64) -> Option<Index> {
    send(replica, index);
    let mut told = None;
    while let Some(effects) = replica.ready().unwrap() {
        for message in effects.messages {
            if let AnyMessage::Raft(Message { body: Body::AppendReply { index }, .. }) = message {
                told = told.max(Some(index));
            }
        }
        if let Some(write) = effects.writes.last() {
            replica.handle(Event::Persisted(write.id)).unwrap();
        }
        if let Some(last) = effects.apply.last() {
            replica.handle(Event::Applied(last.index())).unwrap();
        }
    }
    told
}

#[test]
fn a_log_that_cannot_be_flushed_takes_no_more_than_it_may_and_goes_on_after_a_flush() {
    let (config, mut replica) = follower();
    let mut last = Index(1);
    for index in 2..200 {
        let told = append(&mut replica, index);
        let status = replica.status();
        assert!(status.log_bytes < config.stalled_bytes_max() + ENTRY_BYTES as u64, "{status:?}");
        if let Some(told) = told {
            assert!(told <= status.last, "it vouches for no more than it has");
        }
        last = status.last;
    }
    assert!(last < Index(100), "it has stopped taking entries, at {last}");
    assert_eq!(append(&mut replica, last.0 + 1), None, "the leader asks again with its heartbeats");

    let applied = replica.status().applied;
    assert_eq!(applied, last, "what it has is applied");
    replica.handle(Event::Flushed(applied)).unwrap();
    assert!(replica.status().log_bytes < config.log_bytes_max);
    assert_eq!(append(&mut replica, last.0 + 1), Some(last.next()), "it goes on by itself");
}

#[test]
fn what_is_not_written_yet_counts_as_part_of_a_log_that_cannot_be_flushed() {
    let (config, mut replica) = follower();
    let mut written = None;
    for index in 2..200 {
        send(&mut replica, index);
        while let Some(effects) = replica.ready().unwrap() {
            written = effects.writes.last().map(|write| write.id).or(written);
        }
    }
    replica.handle(Event::Persisted(written.unwrap())).unwrap();
    let status = replica.status();
    let least = config.stalled_bytes_max();
    assert!((least..least + ENTRY_BYTES as u64).contains(&status.log_bytes), "{status:?}");
}

#[test]
fn a_log_that_was_flushed_before_a_crash_is_let_go_of_after_it() {
    // The power went between the flush and the mark that the log may begin after it.
    let entry = |index| Entry {
        term: Term(1),
        index: Index(index),
        data: Some(vec![b'x'; ENTRY_BYTES].into()),
        ..Entry::default()
    };
    let (config, _) = follower();
    let last = Index(100);
    let initial = Initial {
        entries: (2..=last.0).map(entry).collect(),
        hard_state: HardState { term: Term(1), commit: last, ..HardState::default() }.into(),
        applied: last,
        ..initial()
    };
    let mut replica = Replica::new(config.clone(), initial).unwrap();
    assert!(config.stalled_bytes_max() < replica.status().log_bytes);
    replica.handle(Event::Tick).unwrap();
    let mut compacted = None;
    while let Some(effects) = replica.ready().unwrap() {
        compacted = compacted.or(effects.compact);
    }
    assert!(compacted.is_some_and(|mark| Index(90) < mark.index), "on disk as well");
    assert!(replica.status().log_bytes <= config.log_bytes_max);
}

/// A leader and a follower that cannot flush, and a network that loses nothing. Returns how many
/// messages there are between two ticks, once the follower takes no more.
fn messages_to_a_stalled_follower() -> Vec<usize> {
    let mut members: Vec<Replica> = (1..=2)
        .map(|id| {
            let config = Config {
                log_bytes_max: 10_000,
                message_bytes_max: 1000,
                ..Config::new(NodeId(id), id)
            };
            Replica::new(config, initial()).unwrap()
        })
        .collect();
    let mut count = 0;
    let mut settle = |members: &mut Vec<Replica>| {
        let before = count;
        loop {
            let mut messages = Vec::new();
            for (at, replica) in members.iter_mut().enumerate() {
                while let Some(effects) = replica.ready().unwrap() {
                    messages.extend(effects.messages);
                    if let Some(write) = effects.writes.last() {
                        replica.handle(Event::Persisted(write.id)).unwrap();
                    }
                    if let Some(last) = effects.apply.last() {
                        replica.handle(Event::Applied(last.index())).unwrap();
                    }
                    if effects.flush && at == 0 {
                        let applied = replica.glance().applied;
                        replica.handle(Event::Flushed(applied)).unwrap();
                    }
                }
            }
            if messages.is_empty() || before + 1000 < count {
                return count - before;
            }
            for message in messages.into_iter().filter(|message| message.to().0 <= 2) {
                count += 1;
                members[message.to().0 as usize - 1].handle(Event::Message(message)).unwrap();
            }
        }
    };
    members[0].handle(Event::Campaign).unwrap();
    settle(&mut members);
    let mut counts = Vec::new();
    for request in 1..400 {
        let mut entry = BytesMut::new();
        seal(RequestId(request), &mut entry);
        entry.extend_from_slice(&[b'x'; ENTRY_BYTES]);
        let entry = entry.freeze();
        let request = RequestId(request);
        members[0].handle(Event::Propose { request, entry }).unwrap();
        counts.push(settle(&mut members));
        for member in &mut members {
            member.handle(Event::Tick).unwrap();
        }
        counts.push(settle(&mut members));
    }
    let [leader, follower] = [0, 1].map(|at| members[at].status());
    assert!(follower.commit + 10 < leader.last, "{follower:?} has fallen behind {leader:?}");
    counts
}

#[test]
fn what_a_stalled_member_does_not_take_does_not_go_back_and_forth() {
    // For long it takes nothing any more: what comes with a proposal, and what with a tick.
    let late = |counts: Vec<usize>| counts[400..].to_vec();
    let at_ticks_only = |counts: &[usize]| counts.chunks(2).all(|of| of[0] == 0 && of[1] < 6);
    let counts = late(messages_to_a_stalled_follower());
    assert!(at_ticks_only(&counts), "{counts:?}");
    // Answered as if they had carried nothing, they would come again at once.
    bugs::put_back(Some("what-is-not-taken-in-is-answered"));
    let counts = late(messages_to_a_stalled_follower());
    bugs::put_back(None);
    assert!(!at_ticks_only(&counts), "{counts:?}");
}
