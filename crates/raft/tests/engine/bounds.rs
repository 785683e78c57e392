//! Nothing refused is silent: membership changes and reads get a verdict, wherever they came from.

use quorate_raft::{
    Body, ChangeRefusal, Config, DropReason, Entry, Error, MessageFault, MessageType, Note,
    encode_conf_change,
};
use quorate_types::{Index, NodeId};

use crate::net::{Member, ack, changes, heartbeat, plain};

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
