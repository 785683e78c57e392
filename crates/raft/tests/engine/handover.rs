//! Giving way in good order: on removal, again when the order is lost, and with an outcome.

use quorate_raft::{
    Body, Config, DropReason, Error, LOCAL_APPLY_THREAD, Message, MessageType, Note, Role,
    TransferOutcome, TransferOutcome::*,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{
    Dice, Member, Net, ack, changes, heard, heartbeat, id, log_of, plain, snapshot, vote,
};

fn outcome(net: &mut Net, id: u64) -> Option<(u64, TransferOutcome)> {
    net.node(id).transfer_outcome().map(|(to, outcome)| (to.0, outcome))
}

fn transfer(net: &mut Net, to: u64) {
    net.node(1).transfer_leader(NodeId(to));
    net.settle();
}

/// A group led by node 1 whose node 3 missed an entry and is cut off.
fn with_slow_third() -> Net {
    let mut net = Net::with(&[1, 2, 3], |config| config.check_quorum = true);
    net.campaign(1);
    net.isolate(3);
    net.propose(1, "x").unwrap();
    net
}

#[test]
fn a_transfer_ends_in_one_outcome() {
    let transferred: fn(&mut Net) = |net| {
        net.heal();
        // The entry that it lacks was lost; the answer to a heartbeat has it sent again.
        net.tick(1, 2);
    };
    type End = (fn(&mut Net), TransferOutcome);
    let ends: [End; 7] = [
        (transferred, Transferred),
        (|net| net.tick(1, 10), TimedOut),
        (|net| transfer(net, 1), Cancelled),
        (|net| transfer(net, 2), Replaced { by: NodeId(2) }),
        (|net| drop(net.node(1).apply_conf_change(&changes("r3"))), TargetRemoved),
        (|net| drop(net.node(1).apply_conf_change(&changes("l3"))), TargetRemoved),
        (
            |net| {
                net.at(1).hear(2, 7, heartbeat(0));
                net.settle();
            },
            OtherLeader { leader: NodeId(2) },
        ),
    ];
    for (end, want) in ends {
        let mut net = with_slow_third();
        transfer(&mut net, 3);
        assert_eq!(outcome(&mut net, 1), None, "under way");
        net.node(1).take_notes();
        end(&mut net);
        if want == (Replaced { by: NodeId(2) }) {
            assert_eq!(outcome(&mut net, 1), Some((2, Transferred)), "of the second");
        } else {
            assert_eq!(outcome(&mut net, 1), Some((3, want)));
        }
    }
}

#[test]
fn every_outcome_is_noted_once() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.node.take_notes();
    let ended = |member: &mut Member| -> Vec<TransferOutcome> {
        let outcome = |note| match note {
            Note::TransferEnded { outcome, .. } => Some(outcome),
            _ => None,
        };
        member.node.take_notes().into_iter().filter_map(outcome).collect()
    };
    for to in [2, 3, 1] {
        member.node.transfer_leader(NodeId(to));
    }
    assert_eq!(ended(&mut member), [Replaced { by: NodeId(3) }, Cancelled]);
    member.node.transfer_leader(NodeId(2));
    // A candidate of a later term: who leads then is not known yet.
    member.hear(3, 5, vote(id(9, 9)));
    assert_eq!(ended(&mut member), []);
    assert_eq!(member.node.basic_status().lead_transferee, NodeId::NONE);
    member.work();
    member.hear(2, 5, heartbeat(0));
    assert_eq!(ended(&mut member), [Transferred]);
    member.hear(3, 6, heartbeat(0));
    assert_eq!(ended(&mut member), []);
}

#[test]
fn what_cannot_begin_is_refused() {
    for to in [1, 4, 9] {
        let mut member = Member::with_members(plain(1), &[1, 2, 3], &[4], &[]);
        member.lead(&[2]);
        member.node.take_notes();
        member.node.transfer_leader(NodeId(to));
        assert_eq!(member.node.transfer_outcome(), Some((NodeId(to), Refused)));
        assert_eq!(member.node.take_notes(), [Note::TransferRefused { to: NodeId(to) }]);
    }
    // While another is under way, which goes on.
    let mut member = Member::with_members(plain(1), &[1, 2, 3], &[4], &[]);
    member.lead(&[2]);
    member.node.transfer_leader(NodeId(2));
    member.node.take_notes();
    member.node.transfer_leader(NodeId(4));
    assert_eq!(member.node.take_notes(), [Note::TransferRefused { to: NodeId(4) }]);
    assert_eq!(member.node.transfer_outcome(), None);
    let mut lost = Member::new(plain(1), &[1, 2]);
    lost.node.transfer_leader(NodeId(2));
    let notes = lost.node.take_notes();
    assert!(matches!(notes[..], [Note::Dropped { kind: MessageType::MsgTransferLeader, .. }]));
}

#[test]
fn a_leader_that_gave_way_and_hears_of_nobody_stops_waiting() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.node.transfer_leader(NodeId(2));
    member.hear(3, 5, vote(id(0, 0)));
    member.tick(9);
    assert_eq!(member.node.transfer_outcome(), None);
    member.tick(1);
    assert_eq!(member.node.transfer_outcome(), Some((NodeId(2), TimedOut)));
}

#[test]
fn a_leader_that_loses_its_quorum_or_its_vote_says_so() {
    let mut member = Member::new(Config { check_quorum: true, ..plain(1) }, &[1, 2, 3]);
    member.lead(&[2]);
    member.tick(5);
    member.node.transfer_leader(NodeId(2));
    // Nobody answers for two timeouts.
    member.tick(20);
    assert_eq!(member.node.role(), Role::Follower);
    let (_, outcome) = member.node.transfer_outcome().unwrap();
    assert!(matches!(outcome, TimedOut | LeadershipLost), "{outcome}");

    let config = Config { step_down_on_removal: true, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    member.node.transfer_leader(NodeId(2));
    member.node.apply_conf_change(&changes("r1")).unwrap();
    assert_eq!(member.node.transfer_outcome(), Some((NodeId(2), LeadershipLost)));
}

#[test]
fn a_lost_order_is_repeated_with_the_heartbeats() {
    for retry in [false, true] {
        let mut net = Net::with(&[1, 2, 3], |config| config.retry_transfer = retry);
        net.campaign(1);
        net.lose(MessageType::MsgTimeoutNow);
        transfer(&mut net, 2);
        net.heal();
        net.tick(1, 3);
        assert_eq!(net.leaders(), [if retry { 2 } else { 1 }]);
        net.tick(1, 10);
        let want = if retry { Transferred } else { TimedOut };
        assert_eq!(outcome(&mut net, 1), Some((2, want)));
    }
}

#[test]
fn no_order_is_repeated_before_the_target_has_the_log() {
    let config = Config { retry_transfer: true, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    member.node.transfer_leader(NodeId(2));
    member.tick(3);
    let orders = |member: &mut Member| {
        let said = member.work();
        said.iter().filter(|message| message.body == Body::TimeoutNow).count()
    };
    assert_eq!(orders(&mut member), 0);
    member.hear(2, 1, ack(1));
    assert_eq!(orders(&mut member), 1);
    member.tick(3);
    assert_eq!(orders(&mut member), 3);
}

fn handing_over(config: &mut Config) {
    config.step_down_on_removal = true;
    config.hand_over_on_removal = true;
}

#[test]
fn a_leader_that_is_no_voter_any_more_has_the_best_voter_take_over_at_once() {
    for text in ["r1", "l1"] {
        for handing in [false, true] {
            for coalesce in [false, true] {
                let mut net = Net::with(&[1, 2, 3, 4], |config| {
                    config.step_down_on_removal = true;
                    config.hand_over_on_removal = handing;
                    config.coalesce_appends = coalesce;
                    config.check_quorum = true;
                    config.pre_vote = true;
                });
                net.campaign(1);
                // So that nodes 3 and 4 have more of the log.
                net.cut(1, 2);
                net.propose(1, "x").unwrap();
                net.change(1, text).unwrap();
                assert_eq!(net.node(1).role(), Role::Follower, "{text}");
                net.heal();
                net.settle();
                let want: &[u64] = if handing { &[3] } else { &[] };
                assert_eq!(net.leaders(), want, "{text} {coalesce}");
            }
        }
    }
}

#[test]
fn a_leader_without_a_vote_stays_until_enough_others_know_or_time_is_up() {
    for text in ["r1", "l1"] {
        for (answers, ticks, want) in [
            (true, 0, Role::Follower),
            (false, 0, Role::Leader),
            (false, 29, Role::Leader),
            (false, 30, Role::Follower),
        ] {
            let mut config = plain(1);
            handing_over(&mut config);
            let mut member = Member::new(config, &[1, 2, 3]);
            member.lead(&[2]);
            member.hear(2, 1, ack(1));
            member.work();
            member.node.propose_conf_change(changes(text)).unwrap();
            member.work();
            member.hear(2, 1, ack(2));
            member.work();
            assert_eq!((member.node.role(), member.node.last_index()), (Role::Leader, Index(3)));
            assert_eq!(
                member.node.propose("x"),
                Err(Error::ProposalDropped(DropReason::TransferPending)),
                "nothing more is taken in"
            );
            member.node.transfer_leader(NodeId(3));
            assert_eq!(member.node.transfer_outcome(), Some((NodeId(3), Refused)));
            // Node 2 alone is no quorum of those that are left.
            member.hear(2, 1, ack(3));
            if answers {
                member.hear(3, 1, ack(3));
            }
            member.tick(ticks);
            assert_eq!(member.node.role(), want, "{text} {ticks}");
            let orders = member.work().into_iter().filter(|said| said.body == Body::TimeoutNow);
            assert_eq!(orders.count(), usize::from(want == Role::Follower), "{text} {ticks}");
        }
    }
}

#[test]
fn whoever_went_without_a_vote_asks_for_what_it_committed_until_it_hears_of_a_leader() {
    for (handing, last, want) in [
        (true, id(1, 2), true),
        (true, id(1, 1), false),
        (true, id(2, 1), true),
        (false, id(1, 2), false),
    ] {
        let mut config = Config { step_down_on_removal: true, ..plain(1) };
        config.hand_over_on_removal = handing;
        let mut member = Member::new(config, &[1, 2, 3]);
        member.lead(&[2]);
        member.hear(2, 1, ack(1));
        member.work();
        member.node.propose_conf_change(changes("r1")).unwrap();
        // Nobody will get this.
        member.node.propose("tail").unwrap();
        member.work();
        member.hear(2, 1, ack(2));
        member.work();
        member.tick(30);
        assert_eq!(member.node.role(), Role::Follower);
        member.work();
        let mut granted = |term| {
            member.hear(3, term, vote(last));
            let said = member.work();
            said.iter().any(|said| said.body == Body::VoteReply { reject: false })
        };
        assert_eq!(granted(5), want, "{handing} {last}");
        member.hear(2, 6, heartbeat(2));
        let mut granted = |term| {
            member.hear(3, term, vote(id(1, 2)));
            let said = member.work();
            said.iter().any(|said| said.body == Body::VoteReply { reject: false })
        };
        assert!(!granted(7), "its log is longer");
    }
}

/// Whatever is lost around the removal, the group has a leader once nothing is lost any more.
#[test]
fn a_group_is_never_left_without_a_leader() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let voters: &[u64] = if dice.is_one_in(3) { &[1, 2, 3, 4] } else { &[1, 2] };
        let (check, coalesce) = (dice.is_one_in(2), dice.is_one_in(2));
        let (pre_vote, retry) = (dice.is_one_in(2), dice.is_one_in(2));
        let mut net = Net::with(voters, |config| {
            handing_over(config);
            config.seed = seed;
            (config.check_quorum, config.pre_vote) = (check, pre_vote);
            (config.coalesce_appends, config.retry_transfer) = (coalesce, retry);
        });
        net.campaign(1);
        let text = if dice.is_one_in(2) { "r1" } else { "l1" };
        net.node(1).propose_conf_change(changes(text)).unwrap();
        for _ in 0..60 {
            for (id, member) in &mut net.members {
                if dice.is_one_in(3) {
                    member.node.tick().unwrap();
                }
                if *id == 1 && dice.is_one_in(8) {
                    let _ = member.node.propose("tail");
                }
            }
            for member in net.members.values_mut() {
                net.under_way.extend(member.work());
            }
            for message in std::mem::take(&mut net.under_way) {
                if !dice.is_one_in(2) {
                    net.deliver(message);
                }
            }
        }
        for _ in 0..200 {
            for &id in voters {
                net.tick(id, 1);
            }
        }
        let leaders = net.leaders();
        assert_eq!(leaders.len(), 1, "seed {seed}: {:?}", net.roles());
        let membership = net.node(leaders[0]).conf_state();
        let has_gone = !membership.voters.contains(&NodeId(1));
        assert!(has_gone != (leaders == [1]), "seed {seed}: {membership:?}");
    }
}

#[test]
fn the_order_is_obeyed_once_the_change_is_applied() {
    for (handing, ticks, want) in
        [(false, 0, Role::Follower), (true, 0, Role::Candidate), (true, 10, Role::Follower)]
    {
        let mut config = plain(2);
        if handing {
            handing_over(&mut config);
        }
        let mut member = Member::new(config, &[1, 2, 3]);
        let (kind, data) = quorate_raft::encode_conf_change(&changes("r1"));
        let entry = quorate_raft::Entry { kind: Some(kind), data, index: Index(1), term: Term(1) };
        member.hear(
            1,
            1,
            Body::Append { prev: id(0, 0), entries: vec![entry].into(), commit: Index(1) },
        );
        member.hear(1, 1, Body::TimeoutNow);
        assert_eq!(member.node.role(), Role::Follower, "it has a change to apply");
        member.node.set_randomized_election_timeout(100);
        member.tick(ticks);
        member.work();
        assert_eq!(member.node.role(), want, "{handing} {ticks}");
    }
}

#[test]
fn a_late_order_waits_for_a_snapshot_too() {
    let mut config = Config { async_storage_writes: true, ..plain(2) };
    handing_over(&mut config);
    let mut member = Member::new(config, &[1, 2, 3]);
    let (kind, data) = quorate_raft::encode_conf_change(&changes("r1"));
    let mut entries = log_of(1, &[1, 1]);
    (entries[1].kind, entries[1].data) = (Some(kind), data);
    member.hear(1, 1, Body::Append { prev: id(0, 0), entries: entries.into(), commit: Index(2) });
    let ready = member.node.ready();
    member.write(&ready);
    let mut first = vec![];
    for message in ready.messages {
        if let Body::StorageAppend { responses, .. } = message.body {
            first.extend(responses.into_iter().filter(|response| response.to == NodeId(2)));
        }
    }
    for response in first {
        member.node.step(response).unwrap();
    }
    member.hear(1, 1, Body::TimeoutNow);
    // Handed out, and applied only after the snapshot came that covers more.
    let handed_out = member.node.ready().committed_entries;
    assert_eq!(handed_out.len(), 2);
    member.hear(1, 1, Body::Snapshot { snapshot: Box::new(snapshot(1, 7, &[2, 3])) });
    let applied = Message {
        to: NodeId(2),
        from: LOCAL_APPLY_THREAD,
        term: Term(0),
        body: Body::StorageApplyReply { entries: handed_out[..1].to_vec().into() },
    };
    member.node.step(applied).unwrap();
    assert_eq!((member.node.role(), member.node.fatal()), (Role::Follower, None));
    // Nor does a change that the snapshot covers undo what the snapshot says.
    let before = member.node.conf_state();
    assert_eq!(member.node.apply_conf_change(&changes("r3")), Ok(before));
}

#[test]
fn whoever_takes_over_is_told_first_what_is_committed() {
    for coalesce_appends in [false, true] {
        let mut config = Config { coalesce_appends, ..plain(1) };
        handing_over(&mut config);
        let mut member = Member::new(config, &[1, 2, 3]);
        member.lead(&[2]);
        member.hear(2, 1, ack(1));
        member.work();
        member.node.propose_conf_change(changes("r1")).unwrap();
        member.work();
        member.hear(2, 1, ack(2));
        member.work();
        // Both have the entry that it waits for.
        member.hear(2, 1, ack(3));
        member.hear(3, 1, ack(3));
        let said = member.said();
        let place = |words: &str| said.iter().position(|text| text == words);
        let told = place("1->2 MsgApp Term:1 Log:1/3 Commit:3");
        let ordered = place("1->2 MsgTimeoutNow Term:1 Log:0/0");
        assert!(told.is_some() && told < ordered, "{coalesce_appends}: {said:?}");
    }
}

#[test]
fn the_successor_is_the_voter_that_has_most_of_those_heard_from() {
    let mut member = Member::with_members(plain(1), &[1, 2, 3, 4], &[5], &[]);
    assert_eq!(member.node.successor(), None, "it does not lead");
    member.lead(&[2, 3]);
    member.node.propose("x").unwrap();
    member.work();
    assert_eq!(member.node.successor(), Some(NodeId(2)), "all alike");
    member.hear(5, 1, ack(2));
    assert_eq!(member.node.successor(), Some(NodeId(2)), "no learner");
    member.hear(4, 1, ack(1));
    assert_eq!(member.node.successor(), Some(NodeId(4)));
    member.hear(3, 1, ack(2));
    assert_eq!(member.node.successor(), Some(NodeId(3)));
    let mut alone = Member::new(plain(1), &[1]);
    alone.stand();
    assert_eq!(alone.node.successor(), None);

    // Who was silent since the last check of the quorum may be gone, whatever its log.
    let mut member = Member::new(Config { check_quorum: true, ..plain(1) }, &[1, 2, 3, 4]);
    member.lead(&[2, 3]);
    for (peer, index) in [(2, 1), (3, 1), (4, 0)] {
        member.hear(peer, 1, ack(index));
    }
    member.tick(10);
    assert_eq!(member.node.successor(), Some(NodeId(2)), "nobody was heard from since");
    member.hear(4, 1, heard());
    assert_eq!(member.node.successor(), Some(NodeId(4)));
}
