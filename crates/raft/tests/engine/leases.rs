//! Check-quorum and pre-vote: who may disturb whom.

use quorate_raft::{Body, Config, Error, ReadOnlyOption, Role};
use quorate_types::{NodeId, Term};

use crate::net::{Member, Net, ack, append, heard, heartbeat, id, plain, pre_vote, vote};

fn checked(id: u64) -> Config {
    Config { check_quorum: true, ..plain(id) }
}

fn both(config: &mut Config) {
    config.check_quorum = true;
    config.pre_vote = true;
}

#[test]
fn a_leader_stays_while_a_quorum_answers() {
    let mut member = Member::new(checked(1), &[1, 2, 3]);
    member.lead(&[2]);
    for _ in 0..50 {
        member.hear(2, 1, heard());
        member.tick(1);
        member.work();
    }
    assert_eq!(member.node.role(), Role::Leader);
}

#[test]
fn a_quorum_is_asked_for_once_a_timeout() {
    let mut member = Member::new(checked(1), &[1, 2, 3]);
    member.lead(&[2]);
    for round in 0..5 {
        // One word in each election timeout is enough.
        member.hear(2, 1, heard());
        for elapsed in 1..10 {
            member.tick(1);
            assert_eq!(member.node.election_elapsed(), elapsed, "round {round}");
        }
        member.tick(1);
        member.work();
        assert_eq!(member.node.role(), Role::Leader, "round {round}");
        assert_eq!(member.node.election_elapsed(), 0);
    }
}

#[test]
fn a_leader_without_quorum_steps_down() {
    let mut member = Member::new(checked(1), &[1, 2, 3]);
    member.lead(&[2]);
    // What it heard before the first check counts; then a whole timeout passes in silence.
    member.tick(10 + 1);
    member.work();
    assert_eq!((member.node.role(), member.node.term().0), (Role::Follower, 1));
    assert_eq!(member.node.leader(), None);

    let mut careless = Member::new(plain(1), &[1, 2, 3]);
    careless.lead(&[2]);
    careless.tick(100);
    assert_eq!(careless.node.role(), Role::Leader, "without the check it never notices");
}

#[test]
fn learners_are_no_quorum() {
    let mut member = Member::with_members(checked(1), &[1, 2], &[3], &[]);
    member.lead(&[2]);
    for _ in 0..25 {
        member.hear(3, 1, heard());
        member.tick(1);
        member.work();
    }
    assert!(!member.node.is_leader());
}

#[test]
fn a_candidate_is_ignored_within_the_lease() {
    for (ticks, forced, want) in [(9, false, false), (10, false, true), (0, true, true)] {
        for pre in [false, true] {
            let mut member = Member::new(checked(1), &[1, 2, 3]);
            member.node.set_randomized_election_timeout(19);
            member.hear(2, 1, heartbeat(0));
            member.node.set_randomized_election_timeout(19);
            member.work();
            member.tick(ticks);
            let last = id(1, 5);
            let body = match pre {
                true => Body::PreVote { last, transfer: forced, priority: 0 },
                false => Body::Vote { last, transfer: forced, priority: 0 },
            };
            member.hear(3, 2, body);
            assert_eq!(!member.said().is_empty(), want, "after {ticks} ticks, forced {forced}");
            assert_eq!(member.node.term().0, if want && !pre { 2 } else { 1 });
        }
    }
}

#[test]
fn a_leader_has_a_lease_itself() {
    let mut member = Member::new(checked(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.work();
    member.hear(3, 2, vote(id(9, 9)));
    assert_eq!((member.node.role(), member.said()), (Role::Leader, vec![]));
}

#[test]
fn leadership_changes_after_the_timeout() {
    let mut net = Net::with(&[1, 2, 3], |config| config.check_quorum = true);
    for id in [1, 2, 3] {
        net.node(id).set_randomized_election_timeout(10 + id as u32);
    }
    net.campaign(1);
    assert_eq!(net.leaders(), [1], "nobody had a leader to keep");

    // Node 3 campaigns while node 2 still hears from the leader: nothing happens.
    net.campaign(3);
    assert_eq!((net.leaders(), net.node(3).role()), (vec![1], Role::Candidate));

    // Once node 2 heard nothing for a timeout, it votes.
    net.node(2).set_randomized_election_timeout(19);
    net.at(2).tick(10);
    net.campaign(3);
    assert!(net.node(3).is_leader(), "{:?}", net.roles());
}

#[test]
fn a_candidate_stuck_at_a_higher_term_frees_itself() {
    let mut net = Net::with(&[1, 2, 3], |config| config.check_quorum = true);
    net.campaign(1);
    net.isolate(1);
    // Twice: once would leave node 3 just one term ahead.
    net.campaign(3);
    net.campaign(3);
    let stuck = net.node(3).term();
    assert_eq!((net.node(2).role(), net.node(2).term().0), (Role::Follower, 1));

    net.heal();
    // Its answer to the old leader's heartbeat tells that leader about its term.
    net.tick(1, 1);
    assert_eq!(net.node(1).role(), Role::Follower);
    assert_eq!(net.node(1).term(), stuck);
    net.campaign(3);
    assert_eq!(net.leaders(), [3]);
}

#[test]
fn a_late_heartbeat_to_a_candidate_ends_the_leaders_term() {
    let mut net = Net::with(&[1, 2, 3], |config| config.check_quorum = true);
    net.campaign(1);
    net.isolate(3);
    net.at(3).timeout();
    net.settle();
    assert_eq!((net.node(3).role(), net.node(3).term().0), (Role::Candidate, 2));
    net.heal();
    net.at(3).hear(1, 1, heartbeat(0));
    net.settle();
    assert_eq!((net.node(1).role(), net.node(1).term().0), (Role::Follower, 2));
}

#[test]
fn with_pre_votes_a_returning_node_disturbs_nobody() {
    let mut net = Net::with(&[1, 2, 3], both);
    net.campaign(1);
    net.isolate(3);
    net.propose(1, "x").unwrap();
    net.at(3).timeout();
    net.settle();
    assert_eq!((net.node(3).role(), net.node(3).term().0), (Role::PreCandidate, 1));
    net.heal();
    net.tick(1, 1);
    assert_eq!(net.leaders(), [1]);
    assert_eq!(net.node(1).term().0, 1);
    assert_eq!(net.at(3).machine(), ["x"], "and it catches up");
}

#[test]
fn a_node_of_a_lower_term_does_not_stop_an_election() {
    let mut net = Net::with(&[1, 2, 3], |config| config.pre_vote = true);
    net.isolate(3);
    net.campaign(1);
    net.campaign(3);
    net.campaign(2);
    let want = [(1, Role::Follower, 2), (2, Role::Leader, 2), (3, Role::PreCandidate, 0)];
    assert_eq!(net.roles(), want);

    // Node 3 comes back, and the leader is gone.
    net.heal();
    net.isolate(2);
    net.campaign(3);
    net.campaign(1);
    assert!(net.node(1).is_leader() || net.node(3).is_leader(), "{:?}", net.roles());
}

#[test]
fn a_pre_candidate_forgets_its_leader_and_so_lets_others_win() {
    let mut net = Net::with(&[1, 2, 3], both);
    net.campaign(1);
    net.isolate(1);
    // Node 3 has just heard from the leader, and answers nothing.
    net.campaign(2);
    assert_eq!((net.node(2).role(), net.node(2).leader()), (Role::PreCandidate, None));
    assert_eq!(net.node(2).election_elapsed(), 0, "it heard from the leader just as lately");
    net.campaign(3);
    assert_eq!(net.roles()[1..], [(2, Role::Follower, 2), (3, Role::Leader, 2)]);
}

/// Nodes 1 (leader of term 1) and 2 use pre-votes. Node 3 did not, has campaigned itself to term 3
/// with a short log, and now uses them too.
fn migrating() -> Net {
    let mut net = Net::with(&[1, 2, 3], |config| config.pre_vote = config.id != NodeId(3));
    net.campaign(1);
    net.isolate(3);
    net.propose(1, "x").unwrap();
    net.campaign(3);
    net.campaign(3);
    let want = [(1, Role::Leader, 1), (2, Role::Follower, 1), (3, Role::Candidate, 3)];
    assert_eq!(net.roles(), want);
    let stopped = net.members.remove(&3).unwrap();
    let config = Config { pre_vote: true, ..plain(3) };
    net.members.insert(3, Member::on(config, stopped.storage));
    net.heal();
    net
}

#[test]
fn groups_that_start_to_use_pre_votes_still_elect() {
    let mut net = migrating();
    net.isolate(1);
    // Its refusals carry its term, with which node 2 then wins.
    for id in [3, 2, 3, 2] {
        net.campaign(id);
    }
    assert!(net.node(2).is_leader(), "{:?}", net.roles());
    assert_eq!(net.at(3).machine(), ["x"]);
}

#[test]
fn a_stuck_pre_candidate_is_freed_by_the_leaders_heartbeat() {
    let mut net = migrating();
    // The others refuse its pre-votes, its log being the shorter one, and it stays where it is.
    for _ in 0..2 {
        net.campaign(3);
        let stuck = [(1, Role::Leader, 1), (2, Role::Follower, 1)];
        assert_eq!(net.roles()[..2], stuck);
        assert_eq!(net.node(3).term(), Term(3));
        assert_ne!(net.node(3).role(), Role::Leader);
    }
    // The answer to the heartbeat carries its term.
    net.tick(1, 1);
    assert_eq!((net.node(1).role(), net.node(1).term()), (Role::Follower, Term(3)));
    net.campaign(1);
    assert_eq!(net.leaders(), [1]);
    assert_eq!(net.at(3).machine(), ["x"]);
}

#[test]
fn a_stale_leader_is_told_of_the_newer_term_by_who_uses_either_option() {
    for (check_quorum, pre_vote, want) in
        [(false, false, None), (true, false, Some(())), (false, true, Some(()))]
    {
        for body in [heartbeat(0), append(id(0, 0), &[], 0)] {
            let mut member = Member::new(Config { check_quorum, pre_vote, ..plain(1) }, &[1, 2, 3]);
            member.hear(2, 5, heartbeat(0));
            member.work();
            member.hear(3, 4, body);
            let told = want.map(|()| "1->3 MsgAppResp Term:5 Log:0/0".to_owned());
            assert_eq!(member.said(), Vec::from_iter(told));
        }
    }
}

#[test]
fn a_pre_vote_of_a_lower_term_is_refused_aloud_a_vote_silently() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.hear(2, 5, heartbeat(0));
    member.work();
    member.hear(3, 4, pre_vote(id(4, 9)));
    assert_eq!(member.said(), ["1->3 MsgPreVoteResp Term:5 Log:0/0 Rejected (Hint: 0)"]);
    member.hear(3, 4, vote(id(4, 9)));
    assert!(member.said().is_empty());
}

#[test]
fn a_node_outside_its_own_membership_follows_all_the_same() {
    let mut net = Net::of([Member::new(checked(1), &[1]), Member::new(checked(2), &[1])]);
    net.campaign(1);
    net.change(1, "v2").unwrap();
    net.tick(1, 1);
    assert_eq!(net.node(2).leader(), Some(NodeId(1)));
    assert_eq!(net.at(2).applied.len(), 2);
}

#[test]
fn a_silent_new_member_costs_leadership_only_after_a_full_timeout() {
    let mut member = Member::new(checked(1), &[1]);
    member.lead(&[]);
    member.tick(9);
    member.node.apply_conf_change(&crate::net::changes("v2")).unwrap();
    member.tick(1);
    assert_eq!(member.node.role(), Role::Leader, "it counts as heard from at first");
    member.tick(10);
    assert_eq!(member.node.role(), Role::Follower);
}

#[test]
fn a_follower_forgets_its_leader_but_nothing_else() {
    let mut member = Member::new(checked(1), &[1, 2, 3]);
    member.hear(2, 1, heartbeat(0));
    member.work();
    member.tick(2);
    for _ in 0..2 {
        member.node.forget_leader().unwrap();
        let status = member.node.basic_status();
        assert_eq!((member.node.leader(), status.hard_state.term.0), (None, 1));
        assert_eq!((member.node.role(), member.node.election_elapsed()), (Role::Follower, 2));
    }
    // No leader, no lease.
    member.hear(3, 2, vote(id(1, 1)));
    assert_eq!(member.said(), ["1->3 MsgVoteResp Term:2 Log:0/0"]);
    // And it follows whoever leads.
    member.hear(2, 2, heartbeat(0));
    assert_eq!(member.node.leader(), Some(NodeId(2)));
}

#[test]
fn others_forget_nothing() {
    let mut leader = Member::new(plain(1), &[1, 2, 3]);
    leader.lead(&[2]);
    leader.node.forget_leader().unwrap();
    assert_eq!(leader.node.leader(), Some(NodeId(1)));

    let lease = Config { read_only_option: ReadOnlyOption::LeaseBased, ..checked(1) };
    let mut follower = Member::new(lease, &[1, 2, 3]);
    follower.hear(2, 1, heartbeat(0));
    follower.node.forget_leader().unwrap();
    assert_eq!(follower.node.leader(), Some(NodeId(2)), "its lease may serve reads");
}

#[test]
fn answers_of_strangers_are_refused() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    for body in [ack(1), heard(), Body::VoteReply { reject: false }] {
        assert_eq!(member.step(9, 1, body), Err(Error::StepPeerNotFound));
    }
}
