//! Who becomes leader, and who votes for whom.

use std::collections::BTreeSet;

use quorate_raft::{Body, Error, MessageType, Role};
use quorate_types::{NodeId, Term};

use crate::net::{Member, Net, ack, append, heartbeat, id, plain, pre_vote, vote};

/// A node of a group of three in this role, at term 1 (a follower: of node 2) or, as a
/// pre-candidate, at term 0.
fn in_role(role: Role) -> Member {
    let mut config = plain(1);
    config.pre_vote = role == Role::PreCandidate;
    let mut member = Member::new(config, &[1, 2, 3]);
    match role {
        Role::Follower => member.hear(2, 1, heartbeat(0)),
        Role::Candidate | Role::PreCandidate => member.stand(),
        Role::Leader => member.lead(&[2]),
    }
    member.work();
    assert_eq!(member.node.role(), role);
    member
}

const ROLES: [Role; 4] = [Role::Follower, Role::Candidate, Role::Leader, Role::PreCandidate];

#[test]
fn a_node_starts_as_a_follower_without_leader_and_says_nothing() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    assert_eq!((member.node.role(), member.node.leader()), (Role::Follower, None));
    assert!(!member.node.has_ready());
    assert!(member.said().is_empty());
}

#[test]
fn a_higher_term_makes_a_follower_and_only_a_leader_is_known_by_it() {
    for role in ROLES {
        for (body, leader) in [
            (append(id(0, 0), &[], 0), Some(NodeId(3))),
            (heartbeat(0), Some(NodeId(3))),
            (vote(id(9, 9)), None),
            (Body::VoteReply { reject: true }, None),
            (Body::PreVoteReply { reject: true }, None),
            (ack(0), None),
        ] {
            let mut member = in_role(role);
            member.hear(3, 7, body.clone());
            let node = &member.node;
            assert_eq!(
                (node.role(), node.term().0, node.leader()),
                (Role::Follower, 7, leader),
                "{role} hears {body:?}"
            );
        }
    }
}

#[test]
fn a_lower_term_changes_nothing() {
    for role in [Role::Follower, Role::Candidate, Role::Leader] {
        let mut member = in_role(role);
        member.hear(3, 7, ack(0));
        let before = (member.node.basic_status(), member.terms());
        for body in [
            append(id(0, 0), &[6], 1),
            heartbeat(1),
            vote(id(9, 9)),
            Body::VoteReply { reject: false },
            ack(1),
            Body::TimeoutNow,
        ] {
            member.work();
            let before = (member.node.basic_status(), member.terms());
            member.hear(2, 6, body);
            assert_eq!((member.node.basic_status(), member.terms()), before);
            assert_eq!(member.said(), [""; 0]);
        }
        assert_eq!(member.node.term(), before.0.hard_state.term);
    }
}

#[test]
fn silence_starts_an_election() {
    for role in [Role::Follower, Role::Candidate] {
        let mut member = in_role(role);
        let term = member.node.term().0 + 1;
        member.timeout();
        let want = [2, 3].map(|peer| format!("1->{peer} MsgVote Term:{term} Log:0/0"));
        assert_eq!(member.said(), want);
        assert_eq!((member.node.role(), member.node.term().0), (Role::Candidate, term));
        assert_eq!(member.node.basic_status().hard_state.vote, NodeId(1), "votes for itself");
    }
}

#[test]
fn requests_carry_the_last_entry() {
    for terms in [&[1][..], &[1, 1, 3]] {
        let mut member = Member::with_log(plain(1), &[1, 2, 3], terms);
        member.timeout();
        let (last, index) = (terms[terms.len() - 1], terms.len());
        let want = [2, 3].map(|to| format!("1->{to} MsgVote Term:{} Log:{last}/{index}", last + 1));
        assert_eq!(member.said(), want);
    }
}

#[test]
fn an_election_takes_one_round() {
    let (yes, no) = (Some(false), Some(true));
    for (size, replies, want) in [
        // Won by a majority, the node's own vote included.
        (1, &[][..], Role::Leader),
        (3, &[(2, yes), (3, yes)], Role::Leader),
        (3, &[(2, yes)], Role::Leader),
        (5, &[(2, yes), (3, yes), (4, yes), (5, yes)], Role::Leader),
        (5, &[(2, yes), (3, yes), (4, yes)], Role::Leader),
        (5, &[(2, yes), (3, yes)], Role::Leader),
        // Lost when a majority says no.
        (3, &[(2, no), (3, no)], Role::Follower),
        (5, &[(2, no), (3, no), (4, no), (5, no)], Role::Follower),
        (5, &[(2, yes), (3, no), (4, no), (5, no)], Role::Follower),
        // Open while neither is certain; only the first answer of each counts.
        (3, &[], Role::Candidate),
        (5, &[(2, yes)], Role::Candidate),
        (5, &[(2, no), (3, no)], Role::Candidate),
        (5, &[(2, no), (2, yes), (2, yes)], Role::Candidate),
        (5, &[], Role::Candidate),
    ] {
        let voters: Vec<u64> = (1..=size).collect();
        let mut member = Member::new(plain(1), &voters);
        member.stand();
        for &(from, reject) in replies {
            member.hear(from, 1, Body::VoteReply { reject: reject.unwrap() });
        }
        assert_eq!(member.node.role(), want, "{size} voters, {replies:?}");
        assert_eq!(member.node.term().0, 1);
    }
}

#[test]
fn one_vote_a_term() {
    for (voted_for, candidate, want) in
        [(0, 2, true), (0, 3, true), (2, 2, true), (3, 3, true), (2, 3, false), (3, 2, false)]
    {
        let mut member = Member::new(plain(1), &[1, 2, 3]);
        if voted_for != 0 {
            member.hear(voted_for, 1, vote(id(0, 0)));
            member.work();
        }
        member.hear(candidate, 1, vote(id(0, 0)));
        let refused = if want { "" } else { " Rejected (Hint: 0)" };
        assert_eq!(
            member.said(),
            [format!("1->{candidate} MsgVoteResp Term:1 Log:0/0{refused}")],
            "voted for {voted_for}, asked by {candidate}"
        );
    }
}

#[test]
fn a_candidate_gives_way_to_a_leader_of_its_term_or_a_later_one() {
    for role in [Role::Candidate, Role::PreCandidate] {
        for later in [0, 1] {
            let mut member = in_role(role);
            let term = (member.node.term().0 + later).max(1);
            member.hear(2, term, append(id(0, 0), &[term], 0));
            let node = &member.node;
            assert_eq!((node.role(), node.term().0), (Role::Follower, term));
            assert_eq!(node.leader(), Some(NodeId(2)));
            assert_eq!(member.terms(), [term], "and it took the entry in");
        }
    }
}

#[test]
fn timeouts_are_spread_over_one_to_two_election_ticks() {
    for role in [Role::Follower, Role::Candidate] {
        let mut member = in_role(role);
        let mut seen = BTreeSet::new();
        for round in 0..500 {
            match role {
                Role::Follower => member.hear(2, round + 2, heartbeat(0)),
                _ => member.node.campaign().unwrap(),
            }
            member.work();
            seen.insert(member.node.randomized_election_timeout());
        }
        assert_eq!(seen, (10..20).collect(), "{role}");
    }
}

#[test]
fn nodes_with_one_seed_seldom_time_out_together() {
    let mut members: Vec<Member> =
        (1..=5).map(|id| Member::new(plain(id), &[1, 2, 3, 4, 5])).collect();
    let mut conflicts = 0;
    for round in 0..1000 {
        let mut timeouts = vec![];
        for member in &mut members {
            member.hear(member.node.id().0 % 5 + 1, round + 1, heartbeat(0));
            member.work();
            timeouts.push(member.node.randomized_election_timeout());
        }
        timeouts.sort_unstable();
        conflicts += usize::from(timeouts[0] == timeouts[1]);
    }
    assert!(conflicts <= 300, "{conflicts} of 1000 rounds");
}

#[test]
fn a_vote_goes_to_a_log_that_is_at_least_as_good() {
    for (own, candidate, want) in [
        // The last terms are equal: the longer log wins.
        (&[1][..], id(1, 1), true),
        (&[1], id(1, 2), true),
        (&[1, 1], id(1, 1), false),
        // The candidate's last term is higher.
        (&[1], id(2, 1), true),
        (&[1], id(2, 2), true),
        (&[1, 1], id(2, 1), true),
        // Ours is.
        (&[2], id(1, 1), false),
        (&[2], id(1, 2), false),
        (&[1, 2], id(1, 1), false),
        (&[], id(0, 0), true),
    ] {
        for pre in [false, true] {
            let mut member = Member::with_log(plain(1), &[1, 2], own);
            member.hear(2, 3, if pre { pre_vote(candidate) } else { vote(candidate) });
            let kind = if pre { "MsgPreVoteResp" } else { "MsgVoteResp" };
            // A refused pre-vote carries the voter's own term, which it did not change.
            let term = if pre && !want { own.last().copied().unwrap_or(0) } else { 3 };
            let refused = if want { "" } else { " Rejected (Hint: 0)" };
            let reply = format!("1->2 {kind} Term:{term} Log:0/0{refused}");
            assert_eq!(member.said(), [reply], "{own:?} asked by {candidate}");
        }
    }
}

#[test]
fn votes_depend_on_role_earlier_vote_and_log() {
    // The log ends at 2@2, the term is 3: who has voted in it, or knows a leader, refuses others.
    for (role, voted_for, candidate, last, want) in [
        (Role::Follower, 0, 2, id(0, 0), false),
        (Role::Follower, 0, 2, id(2, 1), false),
        (Role::Follower, 0, 2, id(2, 2), true),
        (Role::Follower, 0, 2, id(3, 1), true),
        (Role::Follower, 2, 2, id(2, 2), true),
        (Role::Follower, 3, 2, id(2, 2), false),
        (Role::Candidate, 1, 2, id(3, 3), false),
        (Role::Leader, 1, 2, id(3, 3), false),
    ] {
        let mut member = Member::with_log(plain(1), &[1, 2, 3], &[2, 2]);
        match role {
            Role::Follower if voted_for == 0 => member.hear(3, 3, ack(0)),
            Role::Follower => member.hear(voted_for, 3, vote(id(3, 3))),
            Role::Candidate => member.stand(),
            _ => member.lead(&[3]),
        }
        member.work();
        assert_eq!((member.node.role(), member.node.term().0), (role, 3));
        member.hear(candidate, 3, vote(last));
        let refused = if want { "" } else { " Rejected (Hint: 0)" };
        assert_eq!(
            member.said(),
            [format!("1->2 MsgVoteResp Term:3 Log:0/0{refused}")],
            "{role} that voted for {voted_for}, asked by {candidate} with {last}"
        );
    }
}

#[test]
fn every_role_votes_for_a_good_candidate_of_a_later_term() {
    for role in ROLES {
        let mut member = in_role(role);
        let term = member.node.term().0 + 1;
        member.hear(2, term, vote(id(term, 5)));
        assert_eq!(member.said(), [format!("1->2 MsgVoteResp Term:{term} Log:0/0")]);
        let state = member.node.basic_status();
        assert_eq!((member.node.role(), state.hard_state.vote), (Role::Follower, NodeId(2)));
        assert_eq!(state.hard_state.term.0, term);
    }
}

#[test]
fn a_pre_vote_changes_nothing_in_any_role() {
    for role in ROLES {
        let mut member = in_role(role);
        let before = (member.node.basic_status(), member.node.election_elapsed());
        let term = member.node.term().0 + 1;
        member.hear(2, term, pre_vote(id(term, 5)));
        assert_eq!(member.said(), [format!("1->2 MsgPreVoteResp Term:{term} Log:0/0")]);
        assert_eq!((member.node.basic_status(), member.node.election_elapsed()), before);
    }
}

#[test]
fn a_granted_vote_restarts_the_clock_a_pre_vote_does_not() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.tick(3);
    member.hear(2, 1, pre_vote(id(0, 0)));
    assert_eq!(member.node.election_elapsed(), 3);
    member.hear(2, 1, vote(id(0, 0)));
    assert_eq!(member.node.election_elapsed(), 0);
}

/// A group of nodes with these logs; `None` is a node that never answers.
fn group(logs: &[Option<&[u64]>], pre: bool) -> Net {
    let voters: Vec<u64> = (1..=logs.len() as u64).collect();
    let members = (1..).zip(logs).filter_map(|(id, log)| {
        let mut config = plain(id);
        config.pre_vote = pre;
        log.map(|terms| Member::with_log(config, &voters, terms))
    });
    Net::of(members)
}

#[test]
fn a_majority_with_logs_no_better_elects() {
    let (empty, long): (Option<&[u64]>, Option<&[u64]>) = (Some(&[]), Some(&[1, 1]));
    for (logs, wins) in [
        (&[empty, empty, empty][..], true),
        (&[empty, empty, None], true),
        (&[empty, None, None], false),
        (&[empty, None, None, empty], false),
        (&[empty, None, None, empty, empty], true),
        // Three others have more.
        (&[empty, long, long, empty, empty], true),
        (&[empty, long, long, long, empty], false),
        // The candidate's own log is the better one.
        (&[long, empty, empty], true),
    ] {
        for pre in [false, true] {
            let mut net = group(logs, pre);
            net.campaign(1);
            // The first attempt of a candidate behind may meet the others' newer term.
            if !net.node(1).is_leader() {
                net.campaign(1);
            }
            let role = net.node(1).role();
            let lost = if pre { Role::PreCandidate } else { Role::Candidate };
            match wins {
                true => assert_eq!(role, Role::Leader, "{logs:?}, pre-vote {pre}"),
                // One that lost clearly is a follower again.
                false => assert!(role == lost || role == Role::Follower, "{logs:?}: {role}"),
            }
            if !wins && pre {
                let known = net.members.values().map(|member| member.node.term()).max();
                assert!(known <= Some(Term(1)), "a lost pre-election leaves the term");
            }
        }
    }
}

#[test]
fn each_node_can_lead_in_turn() {
    for pre in [false, true] {
        let mut net = Net::with(&[1, 2, 3], |config| config.pre_vote = pre);
        for (term, id) in (1..).zip([1, 2, 3, 1]) {
            net.campaign(id);
            let want = [1, 2, 3]
                .map(|each| (each, if each == id { Role::Leader } else { Role::Follower }, term));
            assert_eq!(net.roles(), want, "pre-vote {pre}");
        }
    }
}

#[test]
fn a_leader_overwrites_newer_entries_that_were_not_committed() {
    // Node 1 won term 1 and replicated to 2; node 3 then won term 2, with the votes of 4 and 5, and
    // replicated to nobody.
    for pre in [false, true] {
        let mut members: Vec<Member> = [&[1][..], &[1], &[2], &[], &[]]
            .iter()
            .zip(1..)
            .map(|(terms, id)| {
                let mut config = plain(id);
                config.pre_vote = pre;
                Member::with_log(config, &[1, 2, 3, 4, 5], terms)
            })
            .collect();
        for member in &mut members[3..] {
            member.hear(3, 2, vote(id(2, 1)));
            member.work();
        }
        let mut net = Net::of(members);
        // The first attempt meets the newer term, the second wins.
        net.campaign(1);
        if net.leaders().is_empty() {
            assert_eq!(net.node(1).term().0, 2);
            net.campaign(1);
        }
        assert_eq!(net.leaders(), [1]);
        assert_eq!(net.node(1).term().0, 3);
        for member in net.members.values() {
            assert_eq!(member.terms(), [1, 3], "pre-vote {pre}");
        }
    }
}

#[test]
fn a_partitioned_candidate_disrupts_unless_pre_votes_are_used() {
    for (pre, want) in [(false, Role::Follower), (true, Role::Leader)] {
        let mut net = Net::with(&[1, 2, 3], |config| config.pre_vote = pre);
        net.cut(1, 3);
        net.campaign(1);
        net.campaign(3);
        // Node 2 follows node 1; the other could not win.
        assert_eq!(net.node(1).role(), Role::Leader);
        assert_eq!(net.leaders(), [1]);

        net.heal();
        net.campaign(3);
        // Its log lacks the empty entry of node 1, so that it cannot win now either.
        assert!(!net.node(3).is_leader());
        assert_eq!(net.node(1).role(), want, "pre-vote {pre}");
    }
}

#[test]
fn an_isolated_candidate_joins_the_leader_of_the_others() {
    let mut net = Net::new(&[1, 2, 3]);
    net.isolate(1);
    net.campaign(1);
    net.campaign(3);
    net.heal();
    net.tick(3, 1);
    net.propose(3, "force").unwrap();
    assert_eq!((net.node(1).role(), net.node(1).term().0), (Role::Follower, 1));
    for member in net.members.values() {
        assert_eq!((member.terms(), member.machine()), (vec![1, 1], vec!["force".to_owned()]));
    }
}

#[test]
fn a_lone_voter_elects_itself_once_its_vote_is_stored() {
    for pre in [false, true] {
        let mut config = plain(1);
        config.pre_vote = pre;
        let mut member = Member::new(config, &[1]);
        member.node.campaign().unwrap();
        assert!(!member.node.is_leader(), "not before its vote is durable");
        member.work();
        assert!(member.node.is_leader());
        assert_eq!(member.node.term().0, 1);
        assert_eq!(member.node.committed().0, 1);
    }
}

#[test]
fn an_isolated_candidate_adopts_a_lower_leaders_reply_to_nothing_but_the_leaders_next_word() {
    for body in [heartbeat(0), append(id(0, 0), &[5], 0)] {
        let mut member = in_role(Role::Candidate);
        member.hear(3, 5, body);
        assert_eq!((member.node.role(), member.node.term().0), (Role::Follower, 5));
        assert_eq!(member.node.leader(), Some(NodeId(3)));
    }
}

/// A candidate of a group of three whose own vote is not stored yet: the Ready was taken, the
/// acknowledgement is to come.
fn with_vote_under_way(pre: bool) -> Member {
    let mut config = plain(1);
    config.pre_vote = pre;
    let mut member = Member::new(config, &[1, 2, 3]);
    member.node.campaign().unwrap();
    let ready = member.node.ready();
    member.write(&ready);
    member
}

#[test]
fn an_own_vote_stored_after_the_election_was_lost_counts_no_more() {
    for pre in [false, true] {
        let mut member = with_vote_under_way(pre);
        let term = 1;
        member.hear(2, term, heartbeat(0));
        assert_eq!(member.node.role(), Role::Follower);
        member.node.advance().unwrap();
        assert_eq!((member.node.role(), member.node.term().0), (Role::Follower, 1));
        assert_eq!(member.node.leader(), Some(NodeId(2)));
    }
}

#[test]
fn an_own_pre_vote_does_not_count_in_the_election_proper() {
    let mut member = with_vote_under_way(true);
    member.hear(2, 1, Body::PreVoteReply { reject: false });
    member.hear(3, 1, Body::PreVoteReply { reject: false });
    assert_eq!(member.node.role(), Role::Candidate, "the others alone were enough");
    member.node.advance().unwrap();
    assert_eq!(member.node.role(), Role::Candidate, "its own pre-vote came too late");
    member.work();
    assert_eq!(member.node.role(), Role::Candidate);
    member.hear(2, 1, Body::VoteReply { reject: false });
    assert_eq!(member.node.role(), Role::Leader);
}

#[test]
fn answers_of_the_other_stage_do_not_count() {
    let mut candidate = in_role(Role::Candidate);
    candidate.hear(2, 1, Body::PreVoteReply { reject: false });
    assert_eq!(candidate.node.role(), Role::Candidate);
    let mut member = in_role(Role::PreCandidate);
    member.hear(2, 1, Body::VoteReply { reject: true });
    assert_eq!((member.node.role(), member.node.term().0), (Role::Follower, 1));
}

#[test]
fn a_lost_pre_election_keeps_the_term() {
    let mut member = in_role(Role::PreCandidate);
    member.hear(2, 0, Body::PreVoteReply { reject: true });
    assert_eq!(member.node.role(), Role::PreCandidate, "an answer without a term is none");
    let mut config = plain(1);
    config.pre_vote = true;
    let mut member = Member::with_log(config, &[1, 2, 3], &[4]);
    member.stand();
    for peer in [2, 3] {
        member.hear(peer, 4, Body::PreVoteReply { reject: true });
    }
    assert_eq!((member.node.role(), member.node.term().0), (Role::Follower, 4));
}

#[test]
fn a_leader_does_not_campaign() {
    for pre in [false, true] {
        let mut config = plain(1);
        config.pre_vote = pre;
        let mut member = Member::new(config, &[1]);
        member.lead(&[]);
        member.stand();
        assert_eq!((member.node.role(), member.node.term().0), (Role::Leader, 1));
    }
}

#[test]
fn only_a_member_can_be_elected() {
    for (voters, want) in [(&[1][..], true), (&[1, 2, 3], true), (&[], false), (&[2, 3], false)] {
        let mut member = Member::new(plain(1), voters);
        assert_eq!(member.node.is_promotable(), want, "{voters:?}");
        member.tick(25);
        let is_quiet = member.node.role() == Role::Follower;
        assert_eq!(is_quiet, !want, "{voters:?}");
        if !want {
            assert_eq!(member.node.election_elapsed(), 25, "the clock goes on");
        }
    }
}

#[test]
fn proposals_to_a_candidate_are_refused() {
    for role in [Role::Candidate, Role::PreCandidate] {
        let mut member = in_role(role);
        assert!(matches!(member.node.propose("x"), Err(Error::ProposalDropped(_))));
        member.hear(2, member.node.term().0.max(1), Body::TimeoutNow);
    }
}

#[test]
fn a_split_vote_is_settled_by_the_next_election() {
    let mut net = Net::with(&[1, 2, 3], |config| config.pre_vote = true);
    net.campaign(1);
    net.isolate(1);
    // Both pass the pre-election at once, and each votes for itself.
    for id in [2, 3] {
        net.node(id).campaign().unwrap();
    }
    net.settle();
    assert!(net.leaders().contains(&1));
    net.node(2).campaign().unwrap();
    net.settle();
    net.campaign(3);
    let led: Vec<u64> = net.leaders().into_iter().filter(|id| *id != 1).collect();
    assert_eq!(led.len(), 1, "one of the two leads: {:?}", net.roles());
}

#[test]
fn vote_requests_that_are_lost_are_repeated_by_the_next_timeout() {
    let mut net = Net::new(&[1, 2, 3]);
    net.lose(MessageType::MsgVote);
    net.campaign(1);
    assert_eq!(net.node(1).role(), Role::Candidate);
    net.heal();
    let ticks = net.node(1).randomized_election_timeout();
    net.tick(1, ticks);
    assert_eq!(net.roles()[0], (1, Role::Leader, 2));
}
