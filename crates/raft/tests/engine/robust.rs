//! What comes from outside never panics a node, and hostile messages do no harm.

use bytes::Bytes;
use quorate_raft::{
    Body, ConfState, Config, DropReason, Entry, EntryType, Error, Message, MessageFault,
    MessageType, Note, Snapshot, SnapshotMetadata,
};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::net::{Dice, Member, ack, append, heartbeat, id, plain, vote};

/// A leader of term 1 with two entries that all of the group hold.
fn leader() -> Member {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.work();
    member.node.propose("x").unwrap();
    member.work();
    for peer in [2, 3] {
        member.hear(peer, 1, ack(2));
    }
    member.work();
    member
}

#[test]
fn messages_without_term_or_sender_are_dropped() {
    for body in [
        append(id(0, 0), &[1], 1),
        heartbeat(1),
        vote(id(9, 9)),
        Body::PreVote { last: id(9, 9), transfer: true, priority: 0 },
        Body::TimeoutNow,
        ack(1),
    ] {
        for (from, term) in [(2, 0), (0, 5), (1, 5), (u64::MAX, 5), (u64::MAX - 1, 5)] {
            // The node does answer itself, but only at its own term.
            let is_own = from == 1 && matches!(body, Body::AppendReply { .. });
            let mut member = Member::new(plain(1), &[1, 2, 3]);
            if is_own || (from == 0 && body == ack(1)) {
                continue;
            }
            member.hear(from, term, body.clone());
            assert_eq!(member.node.term(), Term(0), "{body:?} of {from} at {term}");
            assert!(!member.node.has_ready());
            let notes = member.node.take_notes();
            let dropped =
                |note: &Note| matches!(note, Note::Dropped { why: MessageFault::Envelope, .. });
            assert!(notes.iter().any(dropped), "{notes:?}");
        }
    }
}

#[test]
fn appends_that_contradict_themselves_are_dropped() {
    let entry = |term, index| Entry { term: Term(term), index: Index(index), ..Entry::default() };
    for entries in [
        vec![entry(1, 5)],
        vec![entry(1, 1), entry(1, 3)],
        vec![entry(2, 1), entry(1, 2)],
        vec![entry(9, 1)],
        vec![entry(1, 1), entry(1, 1)],
    ] {
        let mut member = Member::new(plain(1), &[1, 2, 3]);
        member.hear(
            2,
            3,
            Body::Append { prev: id(0, 0), entries: entries.into(), commit: Index(9) },
        );
        member.work();
        assert_eq!((member.node.last_index(), member.node.committed()), (Index(0), Index(0)));
    }
}

#[test]
fn acknowledgements_of_what_does_not_exist_commit_nothing() {
    let mut member = leader();
    let before = (member.node.committed(), member.progress(2));
    for index in [3, 1000, u64::MAX] {
        for peer in [2, 3] {
            member.hear(peer, 1, ack(index));
        }
    }
    member.work();
    assert_eq!((member.node.committed(), member.progress(2)), before);

    for (index, hint) in [(u64::MAX, id(u64::MAX, u64::MAX)), (2, id(7, u64::MAX)), (2, id(0, 0))] {
        member.hear(2, 1, Body::AppendRefusal { index: Index(index), hint });
        member.work();
        assert_eq!(member.progress(2).matched, Index(2));
    }
}

#[test]
fn odd_contexts_of_heartbeat_answers_confirm_nothing() {
    let mut member = leader();
    member.node.read_index("r");
    member.work();
    for context in [&[1][..], &[0; 7], &[0xff; 8], &2u64.to_le_bytes(), &[0; 100]] {
        for peer in [2, 3] {
            let context = Bytes::copy_from_slice(context);
            member.hear(peer, 1, Body::HeartbeatReply { context });
        }
        member.work();
        assert_eq!(member.reads, [], "{context:?}");
    }
}

#[test]
fn odd_proposals_and_reads_of_others_are_refused() {
    let mut member = leader();
    let change = |data: &'static [u8]| Entry {
        kind: Some(EntryType::ConfChangeV2),
        data: Some(Bytes::from_static(data)),
        ..Entry::default()
    };
    for entries in [vec![], vec![change(&[0xff])], vec![Entry::default(), change(&[0x12, 9])]] {
        let before = (member.node.last_index(), member.node.pending_conf_index());
        let result = member.step(2, 0, Body::Propose { entries });
        assert_eq!(result, Err(Error::ProposalDropped(DropReason::Malformed)));
        assert_eq!((member.node.last_index(), member.node.pending_conf_index()), before);
    }
    // A change in a proposal that is refused as a whole is not waited for.
    let add = crate::net::changes("v4");
    let (kind, data) = quorate_raft::encode_conf_change(&add);
    let good = Entry { kind: Some(kind), data, ..Entry::default() };
    let before = member.node.pending_conf_index();
    let result = member.step(2, 0, Body::Propose { entries: vec![good, change(&[0xff])] });
    assert_eq!(result, Err(Error::ProposalDropped(DropReason::Malformed)));
    assert_eq!(member.node.pending_conf_index(), before);
    assert_eq!(member.node.check_conf_change(&add), Ok(()));

    // A proposal cannot choose its own place.
    let forged = Entry { term: Term(77), index: Index(99), ..Entry::default() };
    member.step(2, 0, Body::Propose { entries: vec![forged] }).unwrap();
    assert_eq!(member.node.entry_term(Index(3)), Some(Term(1)));

    for entries in [vec![], vec![Entry::default(), Entry::default()]] {
        member.hear(2, 0, Body::ReadIndex { entries });
        assert_eq!(member.node.pending_reads(), 0);
    }
}

#[test]
fn the_last_term_ends_campaigns_not_the_node() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.hear(2, u64::MAX, vote(id(9, 9)));
    member.work();
    member.tick(100);
    assert_eq!(member.node.basic_status().hard_state.vote, NodeId(2), "one vote a term");
    assert_eq!(member.node.term(), Term(u64::MAX));
    assert_eq!(member.node.fatal(), None);
}

#[test]
fn a_commit_index_beyond_the_log_is_final() {
    let mut member = Member::with_log(plain(1), &[1, 2], &[1]);
    let result = member.step(2, 1, heartbeat(5));
    let text = "tocommit(5) is out of range [lastIndex(1)]. Was the raft log corrupted, \
                truncated, or lost?";
    assert_eq!(result.unwrap_err().to_string(), text);
    assert!(member.node.fatal().is_some());
    assert!(!member.node.has_ready());
}

#[test]
fn notes_are_bounded() {
    let config = Config { notes_max: 3, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.node.take_notes();
    for _ in 0..10 {
        member.hear(0, 1, heartbeat(0));
    }
    let notes = member.node.take_notes();
    assert_eq!(notes.len(), 4);
    assert_eq!(notes[3], Note::Missed { count: 7 });
    assert_eq!(
        notes[0],
        Note::Dropped {
            kind: MessageType::MsgHeartbeat,
            from: NodeId::NONE,
            why: MessageFault::Envelope
        }
    );
}

impl Dice {
    fn number(&mut self) -> u64 {
        match self.roll(12) {
            0 => u64::MAX,
            1 => u64::MAX - 1,
            small => small - 2,
        }
    }

    fn id(&mut self) -> EntryId {
        EntryId::new(self.number(), self.number())
    }

    fn bytes(&mut self) -> Bytes {
        (0..self.roll(12)).map(|_| self.roll(256) as u8).collect()
    }

    fn entries(&mut self) -> Vec<Entry> {
        let first = self.number();
        let entry = |place: u64, dice: &mut Dice| Entry {
            term: Term(dice.number()),
            index: Index(first.wrapping_add(place)),
            kind: [
                None,
                Some(EntryType::Normal),
                Some(EntryType::ConfChange),
                Some(EntryType::ConfChangeV2),
            ][dice.roll(4) as usize],
            data: (dice.roll(2) == 0).then(|| dice.bytes()),
        };
        (0..self.roll(4)).map(|place| entry(place, self)).collect()
    }

    fn snapshot(&mut self) -> Box<Snapshot> {
        let ids = |dice: &mut Dice| (0..dice.roll(3)).map(|_| NodeId(dice.number())).collect();
        let conf_state = ConfState {
            voters: ids(self),
            learners: ids(self),
            voters_outgoing: ids(self),
            learners_next: ids(self),
            auto_leave: self.roll(2) == 0,
        };
        let metadata =
            SnapshotMetadata { conf_state, index: Index(self.number()), term: Term(self.number()) };
        Box::new(Snapshot { data: self.bytes(), metadata })
    }

    pub(crate) fn body(&mut self) -> Body {
        match self.roll(18) {
            0 => Body::Propose { entries: self.entries() },
            1..=3 => Body::Append {
                prev: self.id(),
                entries: self.entries().into(),
                commit: Index(self.number()),
            },
            4 => Body::AppendReply { index: Index(self.number()) },
            5 => Body::AppendRefusal { index: Index(self.number()), hint: self.id() },
            6 => Body::Vote {
                last: self.id(),
                transfer: self.roll(2) == 0,
                priority: self.number() as i64,
            },
            7 => Body::VoteReply { reject: self.roll(2) == 0 },
            8 => Body::PreVote {
                last: self.id(),
                transfer: self.roll(2) == 0,
                priority: self.number() as i64,
            },
            9 => Body::PreVoteReply { reject: self.roll(2) == 0 },
            10 => Body::Snapshot { snapshot: self.snapshot() },
            11 => Body::Heartbeat { commit: Index(self.roll(3)), context: self.bytes() },
            12 => Body::HeartbeatReply { context: self.bytes() },
            13 => Body::TransferLeader,
            14 => Body::TimeoutNow,
            15 => Body::ReadIndex { entries: self.entries() },
            16 => Body::ReadIndexReply { index: Index(self.number()), entries: self.entries() },
            _ => Body::ForgetLeader,
        }
    }
}

#[test]
fn random_messages_never_panic_a_node() {
    for seed in 1..=300 {
        let mut dice = Dice::new(seed);
        let config = Config {
            check_quorum: dice.roll(2) == 0,
            pre_vote: dice.roll(2) == 0,
            max_inflight_msgs: 3,
            seed,
            ..plain(1)
        };
        let mut member = Member::new(config, &[1, 2, 3]);
        for _ in 0..300 {
            match dice.roll(8) {
                0 => drop(member.node.tick()),
                1 => drop(member.node.campaign()),
                2 => drop(member.node.propose("x")),
                3 => member.node.report_unreachable(NodeId(dice.number())),
                4 => {
                    // Applying what random entries hold may be refused, and that is all.
                    if member.node.has_ready() {
                        let ready = member.node.ready();
                        if ready.snapshot.is_none() {
                            member.write(&ready);
                        } else {
                            let received = ready.snapshot.clone().unwrap();
                            let _ = member.storage.apply_snapshot(received);
                        }
                        let _ = member.node.advance();
                    }
                }
                _ => {
                    let message = Message {
                        to: NodeId(1),
                        from: NodeId(dice.roll(5)),
                        term: Term(member.node.term().0.wrapping_add(dice.roll(4)).wrapping_sub(1)),
                        body: dice.body(),
                    };
                    let _ = member.node.step(message);
                }
            }
            if member.node.fatal().is_some() {
                break;
            }
            member.node.check();
        }
    }
}
