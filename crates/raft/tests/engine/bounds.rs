//! Nothing refused is silent: membership changes and reads get a verdict, wherever they came from.

use quorate_raft::{
    Body, ChangeRefusal, Config, DropReason, Entry, Error, Message, MessageFault, MessageType,
    Note, ProgressState, encode_conf_change,
};
use quorate_types::{EntryId, Index, NodeId};

use crate::net::{Member, ack, changes, heard, heartbeat, plain};

/// A leader of term 1 whose empty entry is committed and applied.
fn leader(config: Config) -> Member {
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.work();
    member.node.take_notes();
    member
}

fn change(text: &str) -> Entry {
    let (kind, data) = encode_conf_change(&changes(text));
    Entry { kind: Some(kind), data, ..Entry::default() }
}

#[test]
fn a_refused_change_is_noted_by_the_leader_and_an_error_if_that_is_wanted() {
    for refuse in [false, true] {
        for forwarded in [false, true] {
            let mut member = leader(Config { refuse_changes: refuse, ..plain(1) });
            let mut propose = |text: &str| {
                let entries = vec![change(text)];
                match forwarded {
                    true => member.step(2, 0, Body::Propose { entries }),
                    false => member.node.propose_entries(entries).map(drop),
                }
            };
            assert_eq!(propose("v4"), Ok(()));
            let second = propose("v5");
            let why = ChangeRefusal::Unapplied;
            let note = Note::ChangeRefused { index: Index(3), why };
            assert_eq!(member.node.take_notes(), [note], "{refuse} {forwarded}");
            let want = if refuse { Err(Error::ChangeRefused(why)) } else { Ok(()) };
            assert_eq!(second, want);
            let last = if refuse { 2 } else { 3 };
            assert_eq!(member.node.last_index(), Index(last), "an empty entry, or none");
            assert_eq!(member.node.pending_conf_index(), Index(2));
        }
    }
}

#[test]
fn a_proposal_with_a_refused_change_is_refused_as_a_whole() {
    let mut member = leader(Config { refuse_changes: true, ..plain(1) });
    let entries = vec![Entry::default(), change("v4"), change("v5")];
    let want = Error::ChangeRefused(ChangeRefusal::Unapplied);
    assert_eq!(member.node.propose_entries(entries), Err(want));
    assert_eq!(member.node.last_index(), Index(1));
    assert_eq!(member.node.pending_conf_index(), Index(0));
    assert_eq!(member.node.propose_conf_change(changes("v4")), Ok(()), "the first may come alone");
}

#[test]
fn other_refusals_of_forwarded_proposals_are_noted_too() {
    let mut member = leader(plain(1));
    member.node.transfer_leader(NodeId(3));
    member.node.take_notes();
    for entries in [vec![change("v4")], vec![Entry::default()]] {
        let result = member.step(2, 0, Body::Propose { entries });
        let why = DropReason::TransferPending;
        assert_eq!(result, Err(Error::ProposalDropped(why)));
        assert_eq!(member.node.take_notes(), [Note::ProposalDropped { why }]);
    }
}

#[test]
fn postponed_reads_count_against_the_bound_and_are_answered_or_reported() {
    let config = Config { report_lost_reads: true, reads_max: 3, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    member.node.take_notes();
    for read in ["a", "b"] {
        member.node.read_index(read);
    }
    let asked = |context: &'static str| Body::ReadIndex {
        entries: vec![Entry { data: Some(context.into()), ..Entry::default() }],
    };
    member.hear(2, 0, asked("of node 2"));
    assert_eq!(member.node.pending_reads(), 3, "nothing is committed in this term yet");
    // One too many: of this node, and of another.
    member.node.read_index("c");
    member.hear(2, 0, asked("of node 2 again"));
    let dropped = |from| Note::Dropped {
        kind: MessageType::MsgReadIndex,
        from,
        why: MessageFault::TooManyReads,
    };
    assert_eq!(member.node.take_notes(), [dropped(NodeId::NONE), dropped(NodeId(2))]);
    member.work();
    assert_eq!(member.lost_reads, ["c"]);

    // Committed: they wait for a quorum now, and still count.
    member.hear(2, 1, ack(1));
    assert_eq!(member.node.pending_reads(), 3);
    member.node.read_index("d");
    member.work();
    assert_eq!(member.lost_reads, ["c", "d"]);

    // Another leader: all of this node's are reported, and there is room again.
    member.hear(3, 2, heartbeat(0));
    member.work();
    assert_eq!(member.lost_reads, ["c", "d", "a", "b"]);
    assert_eq!((member.node.pending_reads(), member.reads.len()), (0, 0));
    assert!(member.node.take_notes().is_empty(), "they came with the Ready");
}

fn full(max: usize) -> Config {
    Config { messages_max: max, ..plain(1) }
}

fn has_no_room(notes: &[Note]) -> bool {
    notes.iter().any(|note| matches!(note, Note::Dropped { why: MessageFault::NoRoom, .. }))
}

#[test]
fn messages_beyond_the_bound_are_lost_and_the_log_gets_through_all_the_same() {
    let mut member = leader(full(6));
    member.hear(2, 1, ack(1));
    member.hear(3, 1, ack(1));
    member.work();
    for _ in 0..10 {
        member.node.propose("x").unwrap();
    }
    assert!(has_no_room(&member.node.take_notes()));
    for peer in [2, 3] {
        let progress = member.progress(peer);
        assert_eq!((progress.state, progress.is_paused()), (ProgressState::Probe, true));
    }
    let said = member.work();
    let to_others = said.iter().filter(|message| message.to != NodeId(1)).count();
    assert!(to_others <= 6, "{said:?}");
    assert_eq!(member.progress(1).matched, Index(11), "what it says to itself is not lost");

    // Heartbeats are answered, and what was lost goes out again.
    for _ in 0..3 {
        member.tick(1);
        member.work();
        for peer in [2, 3] {
            member.hear(peer, 1, heard());
            let last = member.work().into_iter().filter_map(|message| match message.body {
                Body::Append { prev, entries, .. } if message.to == NodeId(peer) => {
                    Some(prev.index + entries.len() as u64)
                }
                _ => None,
            });
            if let Some(last) = last.max() {
                member.hear(peer, 1, ack(last.0));
                member.work();
            }
        }
    }
    assert_eq!(member.node.committed(), Index(11));
}

#[test]
fn what_a_node_says_to_itself_takes_nobodys_room() {
    // An append to each of two peers, and an acknowledgement of its own, for each proposal.
    let mut member = leader(full(8));
    for peer in [2, 3] {
        member.hear(peer, 1, ack(1));
    }
    member.work();
    for _ in 0..4 {
        member.node.propose("x").unwrap();
    }
    assert!(!has_no_room(&member.node.take_notes()));
    assert_eq!(member.work().iter().filter(|message| message.to != NodeId(1)).count(), 8);

    // A request for a vote to each, and a vote of its own.
    let mut member = Member::new(full(2), &[1, 2, 3]);
    member.node.campaign().unwrap();
    assert_eq!(member.work().len(), 2);
}

#[test]
fn a_snapshot_that_finds_no_room_is_sent_once_the_peer_is_heard_from_again() {
    let mut member = leader(full(1));
    let conf_state = member.node.conf_state();
    member.storage.create_snapshot(Index(1), Some(conf_state), "state".into()).unwrap();
    member.storage.compact(Index(1)).unwrap();
    // Something waits to be sent already.
    member.node.propose("x").unwrap();
    member.hear(3, 1, Body::AppendRefusal { index: Index(0), hint: EntryId::default() });
    let progress = member.progress(3);
    let how = (progress.state, progress.pending_snapshot, progress.next, progress.is_paused());
    assert_eq!(how, (ProgressState::Probe, Index(0), Index(1), true));
    member.work();
    member.hear(3, 1, heard());
    let is_snapshot = |message: &Message| matches!(message.body, Body::Snapshot { .. });
    assert!(member.work().iter().any(is_snapshot));
}

#[test]
fn what_a_follower_cannot_send_on_is_refused() {
    let mut member = Member::new(Config { report_lost_reads: true, ..full(2) }, &[1, 2, 3]);
    member.hear(2, 1, heartbeat(0));
    assert_eq!(member.node.propose("a"), Ok(()));
    member.node.take_notes();
    let dropped = Err(Error::ProposalDropped(DropReason::MessagesFull));
    assert_eq!(member.node.propose("b"), dropped);
    member.node.read_index("r");
    assert!(has_no_room(&member.node.take_notes()));
    member.work();
    assert_eq!(member.lost_reads, ["r"]);
    assert_eq!(member.node.propose("b"), Ok(()));
}
