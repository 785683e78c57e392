//! Who leads rather than another: priorities and ranges of patience.

use quorate_raft::{Body, Config, Note, Role};
use quorate_types::{EntryId, NodeId, Term};

use crate::net::{Member, Net, heartbeat, id, plain};

fn ask(last: EntryId, priority: i64, pre_vote: bool, transfer: bool) -> Body {
    match pre_vote {
        true => Body::PreVote { last, transfer, priority },
        false => Body::Vote { last, transfer, priority },
    }
}

/// A voter of priority 5 in term 2 whose log ends at 2@1 and that is not in touch with a leader.
fn voter() -> Member {
    let config = Config { priority: 5, ..plain(1) };
    let mut member = Member::with_log(config, &[1, 2, 3], &[1, 1]);
    member.hear(2, 2, heartbeat(0));
    member.work();
    member
}

fn is_granted(member: &mut Member, from: u64, term: u64, body: Body) -> bool {
    member.hear(from, term, body);
    let said = member.work();
    assert_eq!(said.len(), 1, "{said:?}");
    matches!(said[0].body, Body::VoteReply { reject: false } | Body::PreVoteReply { reject: false })
}

#[test]
fn a_voter_holds_up_candidates_of_lower_priority_whose_log_ends_where_its_own_does() {
    for pre_vote in [false, true] {
        for (last, priority, transfer, want) in [
            (id(1, 2), 4, false, false),
            (id(1, 2), 0, false, false), // as etcd's nodes ask
            (id(1, 2), i64::MIN, false, false),
            (id(1, 2), 5, false, true),
            (id(1, 2), 6, false, true),
            (id(1, 2), 4, true, true),   // the leader wants it
            (id(1, 3), 4, false, true),  // this node could not win against it
            (id(2, 1), 4, false, true),  // nor here, although that log is shorter
            (id(1, 1), 9, false, false), // priority does not make up for a log
        ] {
            let granted = is_granted(&mut voter(), 3, 3, ask(last, priority, pre_vote, transfer));
            assert_eq!(granted, want, "{last:?} {priority} {transfer} {pre_vote}");
        }
    }
}

#[test]
fn it_does_so_only_until_it_had_its_chance() {
    let lower = |pre_vote| ask(id(1, 2), 4, pre_vote, false);
    for pre_vote in [false, true] {
        let mut member = voter();
        assert!(!is_granted(&mut member, 3, 3, lower(pre_vote)));
        // It stands, and nobody answers.
        member.timeout();
        member.work();
        assert_eq!(member.node.role(), Role::Candidate);
        assert!(is_granted(&mut member, 3, 9, lower(pre_vote)));
    }
    // A leader that it knew of since gives it a new one.
    let mut member = voter();
    member.timeout();
    member.work();
    member.hear(2, 9, heartbeat(0));
    member.work();
    assert!(!is_granted(&mut member, 3, 10, lower(true)));
}

#[test]
fn it_does_so_only_if_it_could_be_elected() {
    let config = || Config { priority: 5, ..plain(1) };
    let mut learner = Member::with_members(config(), &[2, 3], &[1], &[1, 1]);
    assert!(is_granted(&mut learner, 3, 3, ask(id(1, 2), 0, false, false)));
    let mut stranger = Member::with_log(config(), &[2, 3], &[1, 1]);
    assert!(is_granted(&mut stranger, 3, 3, ask(id(1, 2), 0, false, false)));
}

#[test]
fn a_vote_once_given_is_given_again() {
    let mut member = voter();
    assert!(is_granted(&mut member, 3, 3, ask(id(1, 2), 5, false, false)));
    assert!(is_granted(&mut member, 3, 3, ask(id(1, 2), 0, false, false)));
}

#[test]
fn a_low_priority_never_leaves_the_group_without_a_leader() {
    for pre_vote in [false, true] {
        let priority = |id: NodeId| [0, -7, 3, 9][id.0 as usize];
        let mut net = Net::with(&[1, 2, 3], |config| {
            config.priority = priority(config.id);
            config.pre_vote = pre_vote;
        });
        // Of equal logs the one of the highest priority wins, whoever campaigns first.
        net.campaign(1);
        assert_eq!(net.leaders(), [] as [u64; 0], "refused by both");
        for _ in 0..100 {
            if !net.leaders().is_empty() {
                break;
            }
            for id in 1..=3 {
                net.tick(id, 1);
            }
        }
        assert_eq!(net.leaders().len(), 1);
        // Alone with the others gone for good, two low ones still elect one of them.
        net.isolate(3);
        for _ in 0..200 {
            for id in 1..=2 {
                net.tick(id, 1);
            }
        }
        assert!(net.leaders().iter().any(|id| *id != 3), "{:?}", net.roles());
    }
}

#[test]
fn an_office_can_be_handed_to_a_node_of_low_priority() {
    let mut net = Net::with(&[1, 2, 3], |config| {
        config.priority = if config.id == NodeId(1) { 9 } else { 0 };
    });
    net.campaign(1);
    assert_eq!(net.leaders(), [1]);
    net.node(1).transfer_leader(NodeId(2));
    net.settle();
    assert_eq!(net.leaders(), [2]);
}

#[test]
fn patience_is_drawn_from_the_configured_range() {
    for (min, max, want) in [(0, 0, 10..20), (15, 0, 15..20), (30, 33, 30..33), (0, 11, 10..11)] {
        let mut drawn = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let range = Config { min_election_tick: min, max_election_tick: max, ..plain(1) };
            let member = Member::new(Config { seed, ..range }, &[1, 2]);
            drawn.insert(member.node.randomized_election_timeout());
        }
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), want.collect::<Vec<_>>());
    }
}

#[test]
fn later_patience_does_not_lengthen_the_lease() {
    let late =
        Config { check_quorum: true, min_election_tick: 40, max_election_tick: 50, ..plain(1) };
    let mut member = Member::new(late, &[1, 2, 3]);
    member.hear(2, 1, heartbeat(0));
    member.work();
    let ask = || ask(id(9, 9), 0, false, false);
    member.tick(9);
    member.hear(3, 2, ask());
    assert!(member.work().is_empty(), "it heard from its leader lately");
    member.tick(1);
    assert!(is_granted(&mut member, 3, 2, ask()));
    assert_eq!(member.node.term(), Term(2));
    assert!(member.node.take_notes().iter().all(|note| !matches!(note, Note::Campaigning { .. })));
}
