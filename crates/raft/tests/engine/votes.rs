//! Who votes for whom.

use quorate_raft::Role;
use quorate_types::{NodeId, Term};

use crate::elections::{ROLES, in_role};
use crate::net::{Member, ack, id, plain, pre_vote, vote};

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

/// A node of a group of three whose log ends at 2@2, in this role at term 3, in which it has voted
/// as given (as a candidate or leader, for itself); it knows a leader only if it leads.
fn at_term_three(role: Role, voted_for: u64) -> Member {
    let mut config = plain(1);
    config.pre_vote = role == Role::PreCandidate;
    let mut member = Member::with_log(config, &[1, 2, 3], &[2, 2]);
    match role {
        Role::Follower if voted_for == 0 => member.hear(3, 3, ack(0)),
        Role::Follower | Role::PreCandidate if voted_for != 0 => {
            member.hear(voted_for, 3, vote(id(3, 3)));
        }
        Role::PreCandidate => member.hear(3, 3, ack(0)),
        _ => {}
    }
    member.work();
    match role {
        Role::Follower => {}
        Role::Candidate | Role::PreCandidate => member.stand(),
        Role::Leader => member.lead(&[3]),
    }
    member.work();
    let status = member.node.basic_status();
    assert_eq!((member.node.role(), member.node.term().0), (role, 3));
    assert_eq!(status.hard_state.vote.0, voted_for);
    member
}

#[test]
fn votes_depend_on_role_earlier_vote_and_log() {
    for (role, voted_for) in [
        (Role::Follower, 0),
        (Role::Follower, 2),
        (Role::Follower, 3),
        (Role::PreCandidate, 0),
        (Role::PreCandidate, 2),
        (Role::PreCandidate, 3),
        (Role::Candidate, 1),
        (Role::Leader, 1),
    ] {
        // Whoever voted in this term is bound by it, which a later term ends, and which the mere
        // question of a pre-vote for a later term does not touch.
        for (pre, term, is_free) in [
            (false, 3, voted_for == 0 || voted_for == 2),
            (true, 3, voted_for == 0 || voted_for == 2),
            (false, 4, true),
            (true, 4, true),
        ] {
            for (last, index) in (0..=3).flat_map(|last| (0..=4).map(move |index| (last, index))) {
                // A leader has an entry of term 3 of its own.
                let is_good = match role {
                    Role::Leader => last == 3 && index >= 3,
                    _ => last == 3 || (last == 2 && index >= 2),
                };
                let want = is_good && is_free;
                let mut member = at_term_three(role, voted_for);
                let asked = id(last, index);
                member.hear(2, term, if pre { pre_vote(asked) } else { vote(asked) });

                let kind = if pre { "MsgPreVoteResp" } else { "MsgVoteResp" };
                let answered_at = if pre && !want { 3 } else { term };
                let refused = if want { "" } else { " Rejected (Hint: 0)" };
                let reply = format!("1->2 {kind} Term:{answered_at} Log:0/0{refused}");
                let case = format!("{role} that voted for {voted_for}, {kind} {term}, {asked}");
                assert_eq!(member.said(), [reply], "{case}");

                let vote = member.node.basic_status().hard_state.vote.0;
                let bound = if term == 3 || pre { voted_for } else { 0 };
                assert_eq!(vote, if want && !pre { 2 } else { bound }, "{case}");
                let is_deposed = term == 4 && !pre;
                assert_eq!(member.node.role() == role, !is_deposed || role == Role::Follower);
            }
        }
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
    assert_eq!(member.node.term(), Term(0));
    // In the term it is in already, so that no change of term restarts it.
    member.hear(3, 1, ack(0));
    member.tick(3);
    member.hear(2, 1, vote(id(0, 0)));
    assert_eq!(member.node.election_elapsed(), 0);
}
