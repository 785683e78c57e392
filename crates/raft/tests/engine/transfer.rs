//! Handing leadership over.

use quorate_raft::{Body, Error, MessageType, Note, Role, TransferOutcome};
use quorate_types::NodeId;

use crate::net::{Member, Net, ack, changes, id, plain, vote};

fn transfer(net: &mut Net, asked: u64, to: u64) {
    net.node(asked).transfer_leader(NodeId(to));
    net.settle();
}

fn transferee(net: &mut Net, id: u64) -> u64 {
    net.node(id).basic_status().lead_transferee.0
}

/// A group led by node 1 whose node 3 missed an entry and is cut off.
fn with_slow_third() -> Net {
    let mut net = Net::new(&[1, 2, 3]);
    net.campaign(1);
    net.isolate(3);
    net.propose(1, "x").unwrap();
    net
}

#[test]
fn leadership_goes_to_an_up_to_date_node_and_back() {
    for check_quorum in [false, true] {
        for asked_at_follower in [false, true] {
            let mut net = Net::with(&[1, 2, 3], |config| config.check_quorum = check_quorum);
            net.campaign(1);
            transfer(&mut net, if asked_at_follower { 2 } else { 1 }, 2);
            assert_eq!(net.leaders(), [2], "although the lease is valid: {check_quorum}");
            net.propose(2, "x").unwrap();
            transfer(&mut net, if asked_at_follower { 1 } else { 2 }, 1);
            assert_eq!(net.leaders(), [1]);
        }
    }
}

#[test]
fn a_transfer_skips_the_pre_election() {
    let mut net = Net::with(&[1, 2, 3], |config| {
        config.pre_vote = true;
        config.check_quorum = true;
    });
    net.campaign(1);
    net.lose(MessageType::MsgPreVote);
    transfer(&mut net, 1, 3);
    assert_eq!(net.leaders(), [3]);
}

#[test]
fn a_slow_target_gets_the_log_first() {
    let mut net = with_slow_third();
    net.heal();
    transfer(&mut net, 1, 3);
    assert_eq!(net.leaders(), [3]);
    assert_eq!(net.at(3).machine(), ["x"]);
}

#[test]
fn a_target_behind_the_start_of_the_log_gets_the_snapshot_first() {
    let mut net = with_slow_third();
    let leader = net.at(1);
    let (applied, conf_state) = (leader.node.applied(), leader.node.conf_state());
    leader.storage.create_snapshot(applied, Some(conf_state), "state".into()).unwrap();
    leader.storage.compact(applied).unwrap();
    net.heal();
    transfer(&mut net, 1, 3);
    net.tick(1, 1);
    assert_eq!(net.leaders(), [3]);
}

#[test]
fn transfers_that_make_no_sense_are_ignored() {
    let mut net = Net::of([
        Member::with_members(plain(1), &[1, 2], &[3], &[]),
        Member::with_members(plain(2), &[1, 2], &[3], &[]),
        Member::with_members(plain(3), &[1, 2], &[3], &[]),
    ]);
    net.campaign(1);
    for (to, what) in [(1, "itself"), (9, "a stranger"), (3, "a learner")] {
        transfer(&mut net, 1, to);
        assert_eq!((net.leaders(), transferee(&mut net, 1)), (vec![1], 0), "{what}");
    }
    // A node without a leader has nobody to ask.
    let mut lost = Member::new(plain(1), &[1, 2]);
    lost.node.transfer_leader(NodeId(2));
    assert!(lost.said().is_empty());
}

#[test]
fn the_order_comes_with_the_last_entry_not_before() {
    let config = quorate_raft::Config { max_size_per_msg: 0, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    for data in ["a", "b"] {
        member.node.propose(data).unwrap();
    }
    member.work();
    member.node.transfer_leader(NodeId(3));
    for index in 1..=3 {
        let ordered =
            |member: &mut Member| member.said().iter().any(|said| said.contains("MsgTimeoutNow"));
        assert!(!ordered(&mut member), "before {index} is acknowledged");
        member.hear(3, 1, ack(index));
        assert_eq!(ordered(&mut member), index == 3, "{index} of 3 entries");
    }
}

#[test]
fn a_transfer_has_one_election_timeout() {
    let mut net = with_slow_third();
    // It counts from when it was asked for.
    net.tick(1, 7);
    transfer(&mut net, 1, 3);
    assert_eq!(transferee(&mut net, 1), 3);
    net.tick(1, 9);
    // Asking again does not extend it.
    transfer(&mut net, 1, 3);
    assert_eq!(transferee(&mut net, 1), 3);
    net.tick(1, 1);
    assert_eq!((net.leaders(), transferee(&mut net, 1)), (vec![1], 0));
}

#[test]
fn proposals_are_refused_meanwhile() {
    let mut net = with_slow_third();
    transfer(&mut net, 1, 3);
    assert!(matches!(net.propose(1, "y"), Err(Error::ProposalDropped(_))));
    net.tick(1, 10);
    assert_eq!(net.propose(1, "y"), Ok(()));
}

#[test]
fn another_candidate_ends_it() {
    let mut net = with_slow_third();
    transfer(&mut net, 1, 3);
    net.at(1).hear(2, 2, vote(id(9, 9)));
    assert_eq!((net.node(1).role(), transferee(&mut net, 1)), (Role::Follower, 0));
}

#[test]
fn removing_or_demoting_the_target_ends_it() {
    for text in ["r3", "l3"] {
        let mut net = with_slow_third();
        transfer(&mut net, 1, 3);
        assert_eq!(transferee(&mut net, 1), 3);
        net.node(1).apply_conf_change(&changes(text)).unwrap();
        assert_eq!(transferee(&mut net, 1), 0, "{text}");
        let ended = Note::TransferEnded { to: NodeId(3), outcome: TransferOutcome::TargetRemoved };
        assert!(net.node(1).take_notes().contains(&ended));
    }
}

#[test]
fn a_transfer_to_itself_cancels_and_one_to_another_replaces() {
    let mut net = with_slow_third();
    transfer(&mut net, 1, 3);
    transfer(&mut net, 1, 1);
    assert_eq!((net.leaders(), transferee(&mut net, 1)), (vec![1], 0));

    transfer(&mut net, 1, 3);
    transfer(&mut net, 1, 2);
    assert_eq!(net.leaders(), [2]);
}

#[test]
fn a_removed_node_ignores_the_order_and_late_votes() {
    let mut member = Member::new(plain(1), &[2, 3, 4]);
    member.hear(2, 1, Body::TimeoutNow);
    assert_eq!(member.node.role(), Role::Follower);
    for from in [2, 3] {
        member.hear(from, 1, Body::VoteReply { reject: false });
        let _ = member.step(from, 1, ack(1));
    }
    assert_eq!((member.node.role(), member.said().len()), (Role::Follower, 0));
}
