//! Linearizable reads.

use bytes::Bytes;
use quorate_raft::{Body, Config, Entry, MessageType, ReadOnlyOption, Role};
use quorate_types::{Index, NodeId};

use crate::net::{Member, Net, ack, append, heartbeat, id, plain};

fn lease(config: &mut Config) {
    config.check_quorum = true;
    config.read_only_option = ReadOnlyOption::LeaseBased;
}

fn read(net: &mut Net, id: u64, context: &'static str) -> Vec<(u64, String)> {
    net.node(id).read_index(context);
    net.settle();
    std::mem::take(&mut net.at(id).reads)
}

fn asked(context: &'static str) -> Body {
    let entry = Entry { data: Some(context.into()), ..Entry::default() };
    Body::ReadIndex { entries: vec![entry] }
}

/// The answer of a follower to a heartbeat with this position.
fn confirms(position: u64) -> Body {
    Body::HeartbeatReply { context: Bytes::copy_from_slice(&position.to_le_bytes()) }
}

/// A leader of term 1 that has committed its empty entry, in a group of three.
fn leader(config: Config) -> Member {
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.hear(3, 1, ack(1));
    member.work();
    member
}

#[test]
fn reads_are_answered_with_the_commit_index_at_leader_and_followers() {
    for option in [ReadOnlyOption::Safe, ReadOnlyOption::LeaseBased] {
        let mut net = Net::with(&[1, 2, 3], |config| {
            lease(config);
            config.read_only_option = option;
        });
        net.campaign(1);
        let mut index = 1;
        for id in [1, 2, 3, 1, 2, 3] {
            for _ in 0..10 {
                net.propose(1, "x").unwrap();
                index += 1;
            }
            assert_eq!(read(&mut net, id, "ctx"), [(index, "ctx".to_owned())], "{option:?}");
        }
    }
}

#[test]
fn a_safe_read_costs_a_round_of_heartbeats_a_leased_one_nothing() {
    let mut safe = leader(plain(1));
    safe.node.read_index("r");
    assert_eq!(safe.said().len(), 2, "two heartbeats");
    assert!(safe.reads.is_empty());
    safe.hear(3, 1, confirms(1));
    safe.work();
    assert_eq!(safe.reads, [(1, "r".to_owned())]);

    let mut config = plain(1);
    lease(&mut config);
    let mut leased = leader(config);
    leased.node.read_index("r");
    assert!(leased.said().is_empty());
    assert_eq!(leased.reads, [(1, "r".to_owned())]);
}

#[test]
fn a_heartbeat_carries_the_newest_position_until_it_is_confirmed() {
    let mut member = leader(plain(1));
    let contexts = |member: &mut Member| -> Vec<Vec<u8>> {
        let heartbeat = |message: quorate_raft::Message| match message.body {
            Body::Heartbeat { context, .. } => Some(context.to_vec()),
            _ => None,
        };
        member.work().into_iter().filter_map(heartbeat).collect()
    };
    member.node.read_index("a");
    member.node.read_index("b");
    let (one, two) = (1u64.to_le_bytes().to_vec(), 2u64.to_le_bytes().to_vec());
    assert_eq!(contexts(&mut member), [one.clone(), one, two.clone(), two.clone()]);
    // A lost one is made up for by the next tick.
    member.tick(1);
    assert_eq!(contexts(&mut member), [two.clone(), two]);
    member.hear(2, 1, confirms(2));
    member.work();
    assert_eq!(member.reads.len(), 2);
    member.tick(1);
    assert_eq!(contexts(&mut member), [vec![], vec![]]);
}

#[test]
fn no_answer_confirms_a_read_that_was_asked_after_it() {
    let mut member = leader(plain(1));
    member.node.read_index("first");
    member.work();
    // The same context again, after something was committed.
    member.node.propose("x").unwrap();
    member.work();
    member.hear(2, 1, ack(2));
    member.node.read_index("first");
    member.work();
    // A delayed answer to the first round, twice.
    member.hear(2, 1, confirms(1));
    member.hear(3, 1, confirms(1));
    member.work();
    assert_eq!(member.reads, [(1, "first".to_owned())]);
    member.hear(2, 1, confirms(2));
    member.work();
    assert_eq!(member.reads, [(1, "first".to_owned()), (2, "first".to_owned())]);
    assert_eq!(member.node.pending_reads(), 0);
}

#[test]
fn a_deposed_leader_answers_nothing() {
    let mut net = Net::new(&[1, 2, 3]);
    net.campaign(1);
    net.isolate(1);
    assert_eq!(read(&mut net, 1, "stale"), []);
    net.campaign(2);
    net.propose(2, "x").unwrap();
    net.heal();
    net.tick(1, 1);
    net.tick(2, 1);
    assert_eq!(net.leaders(), [2]);
    assert_eq!(net.at(1).reads, []);
    // Answers of its own time come too late.
    net.at(1).hear(3, 1, confirms(1));
    net.settle();
    assert_eq!(net.at(1).reads, []);
}

#[test]
fn a_new_leader_lets_reads_wait_for_its_first_commit() {
    for option in [ReadOnlyOption::Safe, ReadOnlyOption::LeaseBased] {
        let mut net = Net::with(&[1, 2, 3], |config| {
            lease(config);
            config.read_only_option = option;
        });
        net.campaign(1);
        net.tick(1, 1);
        for id in [2, 3] {
            net.at(id).tick(10);
        }
        net.settle();
        net.lose(MessageType::MsgApp);
        net.campaign(2);
        if !net.node(2).is_leader() {
            net.campaign(2);
        }
        assert!(net.node(2).is_leader());
        assert_eq!(read(&mut net, 2, "early"), []);
        assert_eq!(net.node(2).pending_reads(), 1);
        net.heal();
        net.tick(2, 1);
        let committed = net.node(2).committed().0;
        assert_eq!(net.at(2).reads, [(committed, "early".to_owned())]);
        net.at(2).reads.clear();
        assert_eq!(read(&mut net, 2, "late"), [(committed, "late".to_owned())]);
    }
}

#[test]
fn a_lone_voter_answers_at_once_unless_told_to_wait() {
    for (postpone, want) in [(false, 1), (true, 0)] {
        let config = Config { postpone_single_voter_reads: postpone, ..plain(1) };
        let mut member = Member::with_members(config, &[1], &[2], &[]);
        // Elected, but its empty entry is not stored yet.
        member.node.campaign().unwrap();
        while !member.node.is_leader() {
            member.turn();
        }
        member.node.read_index("r");
        let ready = member.node.ready();
        assert_eq!(ready.read_states.len(), want);
        member.write(&ready);
        member.apply(&ready);
        member.node.advance().unwrap();
        member.work();
        let index = if postpone { 1 } else { 0 };
        assert_eq!(member.reads, [(index, "r".to_owned())]);
    }
}

#[test]
fn learners_confirm_nothing_but_may_ask() {
    let mut net = Net::of([
        Member::with_members(plain(1), &[1], &[2], &[]),
        Member::with_members(plain(2), &[1], &[2], &[]),
    ]);
    net.campaign(1);
    net.tick(1, 1);
    net.propose(1, "x").unwrap();
    for (asked, index) in [(1, 2), (2, 3), (1, 4), (2, 5)] {
        assert_eq!(read(&mut net, asked, "r"), [(index, "r".to_owned())], "asked at {asked}");
        net.propose(1, "x").unwrap();
    }

    let mut member = Member::with_members(plain(1), &[1, 2], &[3], &[]);
    member.lead(&[2]);
    member.hear(2, 1, ack(1));
    member.work();
    member.node.read_index("r");
    member.hear(3, 1, confirms(1));
    member.work();
    assert_eq!(member.reads, []);
}

#[test]
fn reads_of_others_are_answered_by_message_and_forwarded_with_their_origin() {
    let mut member = leader(plain(1));
    member.hear(3, 0, asked("theirs"));
    member.work();
    member.hear(2, 1, confirms(1));
    let said = member.said();
    assert_eq!(said, ["1->3 MsgReadIndexResp Term:1 Log:0/1 Entries:[0/0 EntryNormal \"theirs\"]"]);

    // Who no longer leads sends it on.
    member.hear(2, 2, heartbeat(0));
    member.work();
    member.hear(3, 0, asked("theirs"));
    let forwarded = "3->2 MsgReadIndex Term:0 Log:0/0 Entries:[0/0 EntryNormal \"theirs\"]";
    assert_eq!(member.said(), [forwarded]);
    // Its own, it sends in its own name.
    member.node.read_index("mine");
    let sent = "1->2 MsgReadIndex Term:0 Log:0/0 Entries:[0/0 EntryNormal \"mine\"]";
    assert_eq!(member.said(), [sent]);
}

#[test]
fn postponed_reads_outlive_a_leadership_unless_losses_are_reported() {
    for report in [false, true] {
        let config = Config { report_lost_reads: report, ..plain(1) };
        let mut member = Member::new(config, &[1, 2, 3]);
        member.lead(&[2]);
        member.work();
        member.node.read_index("r");
        member.hear(2, 2, append(id(0, 0), &[], 0));
        member.work();
        assert_eq!(member.lost_reads == ["r"], report);
        member.lead(&[2]);
        member.work();
        let last = member.node.last_index().0;
        member.hear(2, 3, ack(last));
        member.work();
        member.hear(2, 3, confirms(1));
        member.work();
        let want = if report { vec![] } else { vec![(last, "r".to_owned())] };
        assert_eq!(member.reads, want, "reported: {report}");
    }
}

#[test]
fn unconfirmed_reads_end_with_the_leadership() {
    for report in [false, true] {
        let mut member = leader(Config { report_lost_reads: report, ..plain(1) });
        member.node.read_index("mine");
        member.hear(2, 0, asked("theirs"));
        member.work();
        member.hear(2, 2, heartbeat(0));
        assert_eq!(member.node.pending_reads(), 0);
        member.work();
        let want: &[&str] = if report { &["mine"] } else { &[] };
        assert_eq!(member.lost_reads, want);
    }
}

#[test]
fn reads_nobody_can_answer_are_reported() {
    let config = Config { report_lost_reads: true, reads_max: 2, ..plain(1) };
    let mut member = Member::new(config.clone(), &[1, 2, 3]);
    member.node.read_index("no leader");
    member.stand();
    member.node.read_index("candidate");
    member.work();
    assert_eq!(member.lost_reads, ["no leader", "candidate"]);

    let mut member = leader(config);
    for context in ["a", "b", "c"] {
        member.node.read_index(context);
    }
    member.work();
    assert_eq!(member.lost_reads, ["c"], "the third is one too many");
    assert_eq!(member.node.pending_reads(), 2);
}

#[test]
fn a_lost_read_is_told_once_by_whoever_looks_before_taking() {
    let config = Config { report_lost_reads: true, ..plain(1) };
    let mut node = Member::new(config, &[1, 2, 3]).node;
    node.read_index("lost");
    assert!(node.has_ready());
    let ready = node.ready_without_accept();
    assert_eq!(ready.lost_reads, ["lost"]);
    assert_eq!(node.ready_without_accept(), ready, "a look takes nothing out");
    node.accept_ready(&ready).unwrap();
    node.advance().unwrap();
    assert!(!node.has_ready() && node.ready_without_accept().lost_reads.is_empty());
}

#[test]
fn a_malformed_answer_is_ignored() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.hear(2, 1, heartbeat(0));
    member.work();
    let entry = |data: &'static str| Entry { data: Some(data.into()), ..Entry::default() };
    for (entries, want) in [(vec![], 0), (vec![entry("a"), entry("b")], 0), (vec![entry("a")], 1)] {
        member.reads.clear();
        member.hear(2, 1, Body::ReadIndexReply { index: Index(4), entries });
        member.work();
        assert_eq!(member.reads.len(), want);
    }
}

#[test]
fn a_leader_that_has_no_vote_itself_asks_who_has() {
    // Made a learner or removed, it stays in office; the one voter may elect itself at any time.
    for text in ["r1", "l1"] {
        for postpone in [false, true] {
            let config = Config { postpone_single_voter_reads: postpone, ..plain(1) };
            let mut member = Member::new(config, &[1, 2]);
            member.lead(&[2]);
            member.hear(2, 1, ack(1));
            member.work();
            member.node.apply_conf_change(&crate::net::changes(text)).unwrap();
            member.work();
            assert_eq!(member.node.role(), Role::Leader);
            member.node.read_index("r");
            member.work();
            assert_eq!(member.reads, [], "{text}: node 2 was not asked");
            member.hear(2, 1, confirms(1));
            member.work();
            assert_eq!(member.reads, [(1, "r".to_owned())], "{text}");
        }
    }
}

#[test]
fn a_smaller_membership_confirms_reads_that_waited() {
    let mut member = leader(plain(1));
    member.node.read_index("r");
    member.work();
    assert_eq!(member.reads, []);
    member.node.apply_conf_change(&crate::net::changes("r2")).unwrap();
    member.node.apply_conf_change(&crate::net::changes("r3")).unwrap();
    member.work();
    assert_eq!(member.reads, [(1, "r".to_owned())]);
    assert_eq!(member.node.role(), Role::Leader);
}

#[test]
fn a_commit_by_a_smaller_membership_serves_postponed_reads() {
    let mut member = Member::new(plain(1), &[1, 2]);
    member.lead(&[2]);
    member.work();
    member.node.read_index("r");
    member.work();
    assert_eq!((member.reads.len(), member.node.pending_reads()), (0, 1));
    // Its empty entry is committed because node 2 need not have it any more.
    member.node.apply_conf_change(&crate::net::changes("r2")).unwrap();
    member.work();
    assert_eq!(member.reads, [(1, "r".to_owned())]);
}

/// Voters elect whoever was ordered to campaign in spite of the lease, be the order late or not.
#[test]
fn a_lease_counts_no_more_once_another_was_told_to_campaign() {
    let mut config = plain(1);
    lease(&mut config);
    let mut member = leader(config);
    member.node.propose("x").unwrap();
    member.work();
    member.node.transfer_leader(NodeId(2));
    member.node.read_index("before");
    member.work();
    assert_eq!(member.reads, [(1, "before".to_owned())], "nobody was told yet");

    member.hear(2, 1, ack(2));
    member.work();
    for (position, context, is_over) in [(1, "meanwhile", false), (2, "after", true)] {
        if is_over {
            member.node.transfer_leader(NodeId(1));
            assert_eq!(member.node.basic_status().lead_transferee, NodeId::NONE);
        }
        member.reads.clear();
        member.node.read_index(context);
        member.work();
        assert_eq!(member.reads, [], "{context}");
        member.hear(3, 1, confirms(position));
        member.work();
        assert_eq!(member.reads, [(2, context.to_owned())]);
    }
}
