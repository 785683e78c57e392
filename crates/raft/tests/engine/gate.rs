//! What a role does not answer to, what restarts a clock, and what draws a new timeout.

use bytes::Bytes;
use quorate_raft::{
    Body, ConfChangeTransition, ConfChangeV2, Config, Entry, EntryType, Message, ProgressState,
    Role, conf_changes_from_string, encode_conf_change,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{
    Dice, Member, Net, ack, append, change_v1, heard, heartbeat, id, log_of, plain, pre_vote,
    snapshot, texts, vote,
};

/// A node of a group of three in this role, at term 2; a follower follows node 2.
fn in_role(role: Role) -> Member {
    let config = Config { pre_vote: role == Role::PreCandidate, ..plain(1) };
    let mut member = Member::with_log(config, &[1, 2, 3], &[1]);
    match role {
        Role::Follower => member.hear(2, 2, heartbeat(0)),
        Role::PreCandidate => {
            member.hear(2, 2, ack(0));
            member.stand();
        }
        Role::Candidate => member.stand(),
        Role::Leader => member.lead(&[2]),
    }
    member.work();
    assert_eq!((member.node.role(), member.node.term()), (role, Term(2)));
    member
}

const ROLES: [Role; 4] = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader];

#[test]
fn a_role_ignores_what_is_not_its_business() {
    let entry = || Entry { data: Some("r".into()), ..Entry::default() };
    for role in ROLES {
        let is_campaigning = matches!(role, Role::Candidate | Role::PreCandidate);
        let (leads, follows) = (role == Role::Leader, role == Role::Follower);
        for (body, is_its_business) in [
            (append(id(1, 1), &[2], 0), !leads),
            (heartbeat(1), !leads),
            (Body::Snapshot { snapshot: Box::new(snapshot(1, 9, &[1, 2, 3])) }, !leads),
            (ack(1), leads),
            (Body::AppendRefusal { index: Index(1), hint: id(0, 0) }, leads),
            (heard(), leads),
            (Body::VoteReply { reject: false }, role == Role::Candidate),
            (Body::PreVoteReply { reject: false }, role == Role::PreCandidate),
            (Body::TimeoutNow, follows),
            (Body::TransferLeader, leads || follows),
            (Body::ReadIndex { entries: vec![entry()] }, leads || follows),
            (Body::ReadIndexReply { index: Index(1), entries: vec![entry()] }, follows),
            (Body::ForgetLeader, follows),
        ] {
            if is_its_business {
                continue;
            }
            let mut member = in_role(role);
            let before = (member.node.status(), member.node.election_elapsed(), member.terms());
            assert_eq!(member.step(3, 2, body.clone()), Ok(()), "{role} hears {body:?}");
            let after = (member.node.status(), member.node.election_elapsed(), member.terms());
            assert_eq!(after, before, "{role} hears {body:?}");
            assert!(!member.node.has_ready(), "{role} hears {body:?}");
        }
        if is_campaigning {
            let mut member = in_role(role);
            assert!(member.node.propose("x").is_err(), "{role}");
            assert!(!member.node.has_ready(), "{role}");
        }
    }
}

#[test]
fn a_promise_for_a_later_term_makes_no_term() {
    for role in ROLES {
        let mut member = in_role(role);
        member.hear(3, 9, Body::PreVoteReply { reject: false });
        // It counts where it was asked for, as an answer for the next term.
        let want = if role == Role::PreCandidate { Role::Candidate } else { role };
        let term = if role == Role::PreCandidate { 3 } else { 2 };
        assert_eq!((member.node.role(), member.node.term().0), (want, term));
    }
}

#[test]
fn every_word_of_the_leader_restarts_the_clock() {
    for (body, want) in [
        (append(id(1, 1), &[], 0), 0),
        (append(id(7, 7), &[], 0), 0), // refused, and a sign of life all the same
        (heartbeat(0), 0),
        (Body::Snapshot { snapshot: Box::default() }, 0),
        (Body::ReadIndex { entries: vec![] }, 5),
        (vote(id(0, 0)), 5), // refused
        (pre_vote(id(9, 9)), 5),
    ] {
        let mut member = in_role(Role::Follower);
        member.tick(5);
        member.hear(2, 2, body.clone());
        assert_eq!(member.node.election_elapsed(), want, "{body:?}");
        assert_eq!(member.node.leader(), Some(NodeId(2)));
    }
}

#[test]
fn a_timeout_lasts_until_the_next_change_of_role() {
    // A timeout that nobody draws, to see whether it was replaced.
    const MARK: u32 = 99;
    let mut member = Member::new(Config { pre_vote: true, ..plain(1) }, &[1, 2, 3]);
    let mut was_drawn = |what: &str, want: bool, act: &dyn Fn(&mut Member)| {
        member.node.set_randomized_election_timeout(MARK);
        act(&mut member);
        member.work();
        assert_eq!(member.node.randomized_election_timeout() != MARK, want, "{what}");
    };
    was_drawn("a higher term", true, &|member| member.hear(2, 1, ack(0)));
    was_drawn("a vote given", false, &|member| member.hear(2, 1, vote(id(0, 0))));
    was_drawn("a leader known", false, &|member| member.hear(2, 1, heartbeat(0)));
    was_drawn("a timeout, and so a pre-candidate", false, &|member| member.tick(MARK));
    was_drawn("another one", false, &|member| member.tick(MARK));
    was_drawn("a candidate", true, &|member| {
        member.hear(2, 2, Body::PreVoteReply { reject: false });
    });
    was_drawn("a leader", true, &|member| member.hear(2, 2, Body::VoteReply { reject: false }));
    was_drawn("a follower", true, &|member| member.hear(2, 3, heartbeat(0)));
}

#[test]
fn only_answers_show_that_a_peer_lives() {
    let config = Config { check_quorum: true, ..plain(1) };
    for (body, want) in [
        (ack(1), true),
        (ack(0), true),
        (Body::AppendRefusal { index: Index(9), hint: id(0, 0) }, true),
        (heard(), true),
        (Body::TransferLeader, false),
        (Body::ReadIndex { entries: vec![Entry::default()] }, false),
        (Body::VoteReply { reject: false }, false),
        (pre_vote(id(0, 0)), false),
    ] {
        let mut member = Member::new(config.clone(), &[1, 2, 3]);
        member.lead(&[3]);
        member.hear(3, 1, ack(1));
        member.work();
        assert!(!member.progress(2).recent_active, "not heard from since the election");
        let _ = member.step(2, 1, body.clone());
        assert_eq!(member.progress(2).recent_active, want, "{body:?}");
        // Reports about it are no sign of its life.
        member.node.report_unreachable(NodeId(2));
        assert_eq!(member.progress(2).recent_active, want);
    }
}

#[test]
fn reports_about_strangers_mean_nothing() {
    let mut member = in_role(Role::Leader);
    let before = member.node.status();
    member.node.report_unreachable(NodeId(9));
    member.node.report_snapshot(NodeId(9), quorate_raft::SnapshotStatus::Failure);
    member.node.transfer_leader(NodeId(9));
    assert_eq!(member.node.status(), before);
    assert!(!member.node.has_ready());
}

#[test]
fn a_new_leadership_knows_nothing_of_its_peers() {
    let mut member = in_role(Role::Leader);
    for peer in [2, 3] {
        member.hear(peer, 2, ack(2));
    }
    member.work();
    assert_eq!((member.progress(2).matched, member.progress(2).recent_active), (Index(2), true));
    member.hear(2, 3, heartbeat(0));
    member.work();
    member.lead(&[3]);
    let peer = member.progress(2);
    assert_eq!((peer.matched, peer.next), (Index(0), Index(3)), "what stood there at election");
    assert!(!peer.recent_active && peer.inflights.count() == 0);
    let own = member.progress(1);
    assert_eq!((own.matched, own.recent_active), (Index(3), true));
    // Its own progress is in the pipeline before anything came back from its disk.
    let mut member = in_role(Role::Candidate);
    member.hear(2, 2, Body::VoteReply { reject: false });
    let own = member.progress(1);
    assert_eq!((own.state, own.matched), (ProgressState::Replicate, Index(1)));
    assert!(own.recent_active);
    assert_eq!(member.node.uncommitted_size(), 0);
}

// Campaigns.

/// A member of a joint group: voters 1 and 2, before 1 and 3; learner 4.
fn in_joint_group() -> Member {
    let storage = quorate_raft::MemoryStorage::new();
    let mut first = snapshot(0, 0, &[1, 2]);
    first.metadata.conf_state.voters_outgoing = vec![NodeId(1), NodeId(3)];
    first.metadata.conf_state.learners = vec![NodeId(4)];
    storage.apply_snapshot(first).unwrap();
    Member::on(plain(1), storage)
}

#[test]
fn both_halves_of_a_joint_group_are_asked_and_must_agree() {
    for (voters, want) in [
        (&[][..], Role::Candidate),
        (&[2], Role::Candidate),
        (&[3], Role::Candidate),
        (&[4], Role::Candidate),
        (&[2, 4], Role::Candidate),
        (&[2, 3], Role::Leader),
    ] {
        let mut member = in_joint_group();
        member.node.campaign().unwrap();
        let asked = [2, 3].map(|to| format!("1->{to} MsgVote Term:1 Log:0/0"));
        assert_eq!(member.said(), asked, "and no learner");
        for &voter in voters {
            member.hear(voter, 1, Body::VoteReply { reject: false });
        }
        assert_eq!(member.node.role(), want, "{voters:?}");
    }
    // Either half can refuse.
    for voter in [2, 3] {
        let mut member = in_joint_group();
        member.stand();
        member.hear(voter, 1, Body::VoteReply { reject: true });
        assert_eq!(member.node.role(), Role::Follower, "refused by {voter}");
    }
}

#[test]
fn an_unapplied_change_is_found_page_by_page() {
    // Five entries are committed and none is applied; a page holds one of them.
    for change_at in [None, Some(1), Some(3), Some(5)] {
        let mut entries = log_of(1, &[1; 5]);
        if let Some(index) = change_at {
            let change = change_v1(quorate_raft::ConfChangeType::AddNode, 3);
            let (kind, data) = encode_conf_change(&change);
            let entry: &mut Entry = &mut entries[index - 1];
            (entry.kind, entry.data) = (Some(kind), data);
        }
        let config = Config { max_committed_size_per_ready: 1, ..plain(1) };
        let mut member = Member::new(config, &[1, 2]);
        member.hear(
            2,
            1,
            Body::Append { prev: id(0, 0), entries: entries.into(), commit: Index(5) },
        );
        let ready = member.node.ready();
        member.write(&ready);
        member.node.campaign().unwrap();
        let want = if change_at.is_some() { Role::Follower } else { Role::Candidate };
        assert_eq!(member.node.role(), want, "a change at {change_at:?}");
    }
}

#[test]
fn leaving_a_joint_group_waits_for_a_transfer_to_end() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    member.work();
    member.hear(2, 1, ack(1));
    member.work();
    let change = ConfChangeV2 {
        transition: Some(ConfChangeTransition::JointImplicit),
        changes: conf_changes_from_string("l4").unwrap(),
        context: Bytes::new(),
    };
    member.node.propose_conf_change(change).unwrap();
    // Node 3 is to lead, and is slow.
    member.node.transfer_leader(NodeId(3));
    member.work();
    member.hear(2, 1, ack(2));
    member.work();
    assert!(member.node.status().config.auto_leave);
    assert_eq!(member.node.last_index(), Index(2), "nothing can be proposed now");
    // The transfer times out. Nothing happens until something is applied again.
    member.tick(10);
    member.work();
    assert_eq!(member.node.basic_status().lead_transferee, NodeId::NONE);
    assert_eq!(member.node.last_index(), Index(2));
    member.node.propose("x").unwrap();
    member.work();
    member.hear(2, 1, ack(3));
    member.work();
    assert_eq!(member.node.last_index(), Index(4), "the change that leaves");
    member.hear(2, 1, ack(4));
    member.work();
    let last = member.applied.last().unwrap();
    assert_eq!((last.entry_type(), &last.data), (EntryType::ConfChangeV2, &None));
    assert_eq!(member.node.status().config.to_string(), "voters=(1 2 3) learners=(4)");
}

#[test]
fn leaving_a_joint_group_is_proposed_once() {
    // Entries are applied one by one, so that more is applied while leaving is under way.
    let config = Config { max_committed_size_per_ready: 1, ..plain(1) };
    let mut member = Member::new(config, &[1, 2]);
    member.lead(&[2]);
    member.work();
    member.hear(2, 1, ack(1));
    member.work();
    let change = ConfChangeV2 {
        transition: Some(ConfChangeTransition::JointImplicit),
        changes: conf_changes_from_string("l4").unwrap(),
        context: Bytes::new(),
    };
    member.node.propose_conf_change(change).unwrap();
    for data in ["a", "b"] {
        member.node.propose(data).unwrap();
    }
    member.work();
    member.hear(2, 1, ack(4));
    member.work();
    assert_eq!((member.node.applied(), member.node.last_index()), (Index(4), Index(5)));
    assert_eq!(member.node.pending_conf_index(), Index(5));
}

// Order and chance.

#[test]
fn what_vouches_for_a_write_comes_last() {
    let mut member = in_role(Role::Follower);
    member.hear(2, 2, append(id(1, 1), &[2], 0));
    member.hear(3, 2, vote(id(0, 0)));
    member.node.propose("x").unwrap();
    member.node.read_index("r");
    let kinds: Vec<String> = member
        .node
        .ready()
        .messages
        .iter()
        .map(|said| format!("{:?}", said.message_type()))
        .collect();
    assert_eq!(kinds, ["MsgProp", "MsgReadIndex", "MsgAppResp", "MsgVoteResp"]);
}

/// All that three nodes say in a random life.
fn life(seed: u64) -> Vec<String> {
    let mut net = Net::with(&[1, 2, 3], |config| {
        config.seed = seed;
        config.check_quorum = true;
        config.pre_vote = true;
    });
    let mut dice = Dice::new(7);
    let mut said = vec![];
    for _ in 0..600 {
        for id in [1, 2, 3] {
            net.at(id).tick(1);
            if dice.is_one_in(10) {
                let _ = net.node(id).propose("x");
                net.node(id).read_index("r");
            }
            let words = net.at(id).work();
            said.extend(texts(&words));
            // Some are lost.
            net.under_way.extend(words.into_iter().filter(|_| !dice.is_one_in(8)));
        }
        for message in std::mem::take(&mut net.under_way) {
            let Message { to, .. } = message;
            let _ = net.node(to.0).step(message);
        }
    }
    said
}

#[test]
fn a_life_is_a_function_of_its_seed() {
    let first = life(1);
    assert!(first.len() > 1000, "{} messages", first.len());
    assert_eq!(first, life(1));
    assert_ne!(first, life(2), "chance does come from the seed");
}
