//! Who becomes leader, and when.

use std::collections::BTreeSet;

use quorate_raft::{Body, Error, MessageType, Role};
use quorate_types::{NodeId, Term};

use crate::net::{Member, Net, ack, append, heartbeat, id, plain, vote};

/// A node of a group of three in this role, at term 1 (a follower: of node 2) or, as a
/// pre-candidate, at term 0.
pub(crate) fn in_role(role: Role) -> Member {
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

pub(crate) const ROLES: [Role; 4] =
    [Role::Follower, Role::Candidate, Role::Leader, Role::PreCandidate];

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
fn a_lone_voter_ignores_a_lower_term_too() {
    let mut member = Member::with_log(plain(1), &[1], &[2]);
    member.hear(2, 1, append(id(0, 0), &[1, 1], 2));
    assert!(member.said().is_empty());
    assert_eq!((member.terms(), member.node.term()), (vec![2], Term(2)));
    assert_eq!((member.node.leader(), member.node.election_elapsed()), (None, 0));
}

#[test]
fn an_old_leaders_append_changes_no_log() {
    let mut net = Net::new(&[1, 2, 3]);
    // Node 1 leads in terms 1 and 3, node 2 in term 2.
    for id in [1, 2, 1] {
        net.campaign(id);
    }
    assert_eq!((net.leaders(), net.node(1).term()), (vec![1], Term(3)));
    // From node 2's time comes an append that would replace what node 1 wrote since.
    for to in [1, 3] {
        net.at(to).hear(2, 2, append(id(2, 2), &[2], 3));
        assert_eq!(net.at(to).terms(), [1, 2, 3]);
    }
    net.settle();
    net.propose(1, "x").unwrap();
    for member in net.members.values() {
        assert_eq!((member.terms(), member.machine()), (vec![1, 2, 3, 3], vec!["x".to_owned()]));
        assert_eq!(member.node.committed().0, 4);
    }
}

#[test]
fn silence_starts_an_election() {
    for role in [Role::Follower, Role::Candidate] {
        // Within less than two election timeouts, and then once.
        for _ in 0..20 {
            let mut member = in_role(role);
            let term = member.node.term().0;
            member.tick(2 * 10 - 1);
            assert_eq!((member.node.role(), member.node.term().0), (Role::Candidate, term + 1));
        }
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
    for role in [Role::Follower, Role::Candidate] {
        let mut members: Vec<Member> =
            (1..=5).map(|id| Member::new(plain(id), &[1, 2, 3, 4, 5])).collect();
        let mut conflicts = 0;
        for round in 0..1000 {
            let mut timeouts = vec![];
            for member in &mut members {
                match role {
                    Role::Follower => {
                        member.hear(member.node.id().0 % 5 + 1, round + 1, heartbeat(0));
                    }
                    _ => member.node.campaign().unwrap(),
                }
                member.work();
                assert_eq!(member.node.role(), role);
                timeouts.push(member.node.randomized_election_timeout());
            }
            timeouts.sort_unstable();
            conflicts += usize::from(timeouts[0] == timeouts[1]);
        }
        assert!(conflicts <= 300, "{role}: {conflicts} of 1000 rounds");
    }
}

#[test]
fn the_longer_the_silence_the_likelier_an_election() {
    // Ticks without a word, and how many followers of ten have had enough.
    for (ticks, want) in [(5, 0), (9, 0), (10, 1), (13, 4), (15, 6), (18, 9), (19, 10), (20, 10)] {
        let mut member = Member::new(plain(1), &[1, 2, 3]);
        let mut impatient = 0;
        const ROUNDS: u32 = 1000;
        for _ in 0..ROUNDS {
            // Draws a new timeout.
            member.hear(2, member.node.term().0 + 1, heartbeat(0));
            member.work();
            member.tick(ticks);
            impatient += u32::from(member.node.role() == Role::Candidate);
            member.work();
        }
        let (least, most) = (want * ROUNDS / 10, want * ROUNDS / 10);
        let spread = if want == 0 || want == 10 { 0 } else { ROUNDS / 20 };
        let range = least - spread..=most + spread;
        assert!(range.contains(&impatient), "after {ticks} ticks: {impatient} of {ROUNDS}");
    }
}

#[test]
fn a_campaign_that_wins_nothing_waits_for_the_next_timeout() {
    let mut config = plain(1);
    config.pre_vote = true;
    let mut member = Member::new(config, &[1, 2, 3]);
    for _ in 0..3 {
        member.node.set_randomized_election_timeout(15);
        member.tick(14);
        assert!(member.said().is_empty());
        member.tick(1);
        assert_eq!(member.said().len(), 2, "requests to both");
        assert_eq!(member.node.election_elapsed(), 0);
    }
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
    use Role::{Candidate, Follower, Leader, PreCandidate};
    let (empty, long): (Option<&[u64]>, Option<&[u64]>) = (Some(&[]), Some(&[1, 1]));
    for (logs, role, term) in [
        (&[empty, empty][..], Leader, 1),
        (&[empty, None], Candidate, 1),
        (&[empty, empty, empty], Leader, 1),
        (&[empty, empty, None], Leader, 1),
        (&[empty, None, None], Candidate, 1),
        (&[empty, None, None, empty], Candidate, 1),
        (&[empty, None, None, empty, empty], Leader, 1),
        // Three others have more: they refuse, and in a term in which they could have voted.
        (&[empty, long, long, empty, empty], Leader, 1),
        (&[empty, long, long, long, empty], Follower, 1),
        // The candidate's own log is the better one.
        (&[long, empty, empty], Leader, 2),
    ] {
        for pre in [false, true] {
            let mut net = group(logs, pre);
            net.campaign(1);
            // One that only asks whether it would win stays at its term, unless a refusal says that
            // others are further.
            let want = match (role, pre) {
                (Candidate, true) => (PreCandidate, term - 1),
                (Leader, true) if logs[1] == long => (Follower, term),
                _ => (role, term),
            };
            let got = (net.node(1).role(), net.node(1).term().0);
            assert_eq!(got, want, "{logs:?}, pre-vote {pre}");
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
fn a_candidate_adopts_the_term_of_a_leader() {
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
    member.hear(2, 1, Body::VoteReply { reject: false });
    assert_eq!(member.node.role(), Role::Candidate, "one vote of three");
    member.node.advance().unwrap();
    assert_eq!(member.node.role(), Role::Candidate, "its own pre-vote came too late");
    // Its own vote, once it is stored, is the second.
    member.work();
    assert_eq!(member.node.role(), Role::Leader);
}

#[test]
fn roles_follow_each_other_as_allowed() {
    use Role::{Candidate, Follower, Leader, PreCandidate};
    // What happens: a leader of the next term speaks; the node is to campaign, with and without a
    // pre-election; the others vote for it, or refuse to.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        NewLeader,
        Campaign { pre: bool },
        Votes { reject: bool },
    }
    use Event::{Campaign, NewLeader, Votes};
    let (votes, refusals) = (Votes { reject: false }, Votes { reject: true });
    for (from, event, want, terms_later, leader) in [
        (Follower, NewLeader, Follower, 1, Some(3)),
        (Follower, Campaign { pre: true }, PreCandidate, 0, None),
        (Follower, Campaign { pre: false }, Candidate, 1, None),
        (Follower, votes, Follower, 0, Some(2)),
        (Follower, refusals, Follower, 0, Some(2)),
        (PreCandidate, NewLeader, Follower, 1, Some(3)),
        (PreCandidate, Campaign { pre: true }, PreCandidate, 0, None),
        (PreCandidate, votes, Candidate, 1, None),
        (PreCandidate, refusals, Follower, 0, None),
        (Candidate, NewLeader, Follower, 1, Some(3)),
        (Candidate, Campaign { pre: true }, PreCandidate, 0, None),
        (Candidate, Campaign { pre: false }, Candidate, 1, None),
        (Candidate, votes, Leader, 0, Some(1)),
        (Candidate, refusals, Follower, 0, None),
        (Leader, NewLeader, Follower, 1, Some(3)),
        (Leader, Campaign { pre: true }, Leader, 0, Some(1)),
        (Leader, Campaign { pre: false }, Leader, 0, Some(1)),
        (Leader, votes, Leader, 0, Some(1)),
        (Leader, refusals, Leader, 0, Some(1)),
    ] {
        let mut config = plain(1);
        config.pre_vote = from == PreCandidate || matches!(event, Campaign { pre: true });
        // So that the answers of pre-elections, too, are those of its own term.
        let mut member = Member::with_log(config.clone(), &[1, 2, 3], &[1]);
        match from {
            Follower => member.hear(2, 1, heartbeat(0)),
            PreCandidate => member.stand(),
            Candidate | Leader => {
                member.stand();
                if config.pre_vote {
                    member.hear(2, 2, Body::PreVoteReply { reject: false });
                    member.work();
                }
                if from == Leader {
                    member.hear(2, 2, Body::VoteReply { reject: false });
                }
            }
        }
        member.work();
        assert_eq!(member.node.role(), from, "{event:?}");
        let term = member.node.term().0;

        match event {
            NewLeader => member.hear(3, term + 1, heartbeat(0)),
            Campaign { .. } => member.node.campaign().unwrap(),
            Votes { reject } => {
                for peer in [2, 3] {
                    let (at, reply) = match from {
                        PreCandidate if reject => (term, Body::PreVoteReply { reject }),
                        PreCandidate => (term + 1, Body::PreVoteReply { reject }),
                        _ => (term, Body::VoteReply { reject }),
                    };
                    member.hear(peer, at, reply);
                }
            }
        }
        let node = &member.node;
        assert_eq!(
            (node.role(), node.term().0, node.leader()),
            (want, term + terms_later, leader.map(NodeId)),
            "{from}, {event:?}"
        );
    }
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
    let split = [(2, Role::Candidate, 2), (3, Role::Candidate, 2)];
    assert_eq!(net.roles()[1..], split);
    net.campaign(3);
    assert_eq!(net.roles()[1..], [(2, Role::Follower, 3), (3, Role::Leader, 3)]);
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
