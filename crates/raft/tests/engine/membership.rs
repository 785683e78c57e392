//! Who is in the group, and how that changes.

use quorate_raft::{
    AnyConfChange, AppliedChange, Body, ChangeError, ChangeRefusal, ConfChange,
    ConfChangeTransition, ConfChangeType, ConfChangeV2, Config, DropReason, EntryType, Error,
    LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Role, Storage, conf_changes_from_string,
    decode_conf_change, describe_entry, encode_conf_change,
};
use quorate_types::{Index, NodeId};

use crate::net::{Member, Net, ack, append, change_v1, changes, id, ids, plain, snapshot, vote};

/// A leader of term 1, alone in its group, that has applied its empty entry.
fn alone() -> Member {
    let mut member = Member::new(plain(1), &[1]);
    member.lead(&[]);
    member.work();
    assert_eq!(member.node.applied(), Index(1));
    member
}

fn joint(text: &str, transition: ConfChangeTransition) -> AnyConfChange {
    let changes = conf_changes_from_string(text).unwrap();
    ConfChangeV2 { transition: Some(transition), changes, ..ConfChangeV2::default() }.into()
}

fn membership(member: &Member) -> String {
    member.node.status().config.to_string()
}

fn log_text(member: &mut Member) -> Vec<String> {
    member.work();
    member.applied.iter().map(|entry| describe_entry(entry, None)).collect()
}

#[test]
fn changes_take_effect_when_they_are_applied() {
    let mut member = alone();
    member.node.propose_conf_change(changes("v2")).unwrap();
    assert_eq!(membership(&member), "voters=(1)");
    member.work();
    assert_eq!(membership(&member), "voters=(1 2)");
}

#[test]
fn one_change_at_a_time_is_between_proposal_and_application() {
    let mut member = Member::new(plain(1), &[1, 2]);
    member.lead(&[2]);
    member.work();
    let pending = |member: &Member| member.node.pending_conf_index();
    assert_eq!(
        pending(&member),
        Index(0),
        "a new leader's is its last index, before its own entry"
    );
    member.hear(2, 1, ack(1));
    member.work();

    member.node.propose_conf_change(change_v1(ConfChangeType::AddNode, 3)).unwrap();
    assert_eq!(pending(&member), Index(2));
    assert_eq!(
        member.node.check_conf_change(&changes("v4")),
        Err(Error::ChangeRefused(ChangeRefusal::Unapplied))
    );
    // The second is taken, and turned into nothing.
    member.node.propose_conf_change(changes("v4")).unwrap();
    assert_eq!((pending(&member), member.node.last_index()), (Index(2), Index(3)));
    member.work();
    member.hear(2, 1, ack(3));
    member.work();
    assert_eq!(log_text(&mut member)[1..], ["1/2 EntryConfChange v3", "1/3 EntryNormal \"\""],);
    let replaced = member.storage.entries(Index(3), Index(4), u64::MAX).unwrap();
    assert_eq!((replaced[0].kind, &replaced[0].data), (Some(EntryType::Normal), &None));
    // Then another can come, but not before the application says that it is done.
    member.node.propose_conf_change(changes("u3")).unwrap();
    member.work();
    for peer in [2, 3] {
        member.hear(peer, 1, ack(4));
    }
    let ready = member.node.ready();
    assert_eq!(ready.committed_entries.len(), 1);
    member.write(&ready);
    member.apply(&ready);
    assert_eq!(
        member.node.check_conf_change(&changes("v4")),
        Err(Error::ChangeRefused(ChangeRefusal::Unapplied))
    );
    member.node.advance().unwrap();
    assert_eq!(member.node.check_conf_change(&changes("v4")), Ok(()));
}

#[test]
fn a_new_leader_waits_until_what_it_found_is_applied() {
    let mut member = Member::with_log(plain(1), &[1], &[1, 1, 1]);
    member.node.campaign().unwrap();
    member.turn();
    assert_eq!((member.node.role(), member.node.applied()), (Role::Leader, Index(0)));
    assert_eq!(member.node.pending_conf_index(), Index(3));
    assert_eq!(
        member.node.check_conf_change(&changes("v2")),
        Err(Error::ChangeRefused(ChangeRefusal::Unapplied))
    );
    member.work();
    assert_eq!(member.node.check_conf_change(&changes("v2")), Ok(()));
}

#[test]
fn validation_can_be_switched_off() {
    let config = Config { disable_conf_change_validation: true, ..plain(1) };
    let mut member = Member::new(config, &[1]);
    member.lead(&[]);
    member.work();
    for text in ["v2", "v3"] {
        member.node.propose_conf_change(changes(text)).unwrap();
    }
    assert_eq!(member.node.pending_conf_index(), Index(3));
    let ready = member.node.ready();
    let kinds: Vec<EntryType> = ready.entries.iter().map(quorate_raft::Entry::entry_type).collect();
    assert_eq!(kinds, [EntryType::ConfChangeV2; 2]);
}

#[test]
fn members_come_and_go() {
    let mut member = alone();
    for (change, want) in [
        (changes("v2"), "voters=(1 2)"),
        (changes("v2"), "voters=(1 2)"), // twice is once
        (changes("l3"), "voters=(1 2) learners=(3)"),
        (changes("v3"), "voters=(1 2 3)"),
        (changes("r2"), "voters=(1 3)"),
        (changes("l3"), "voters=(1) learners=(3)"),
        (changes("r3"), "voters=(1)"),
        (changes("u1"), "voters=(1)"),
        (change_v1(ConfChangeType::AddNode, 0), "voters=(1)"), // cancelled by the application
        (change_v1(ConfChangeType::AddLearnerNode, 4), "voters=(1) learners=(4)"),
    ] {
        let state = member.node.apply_conf_change(&change).unwrap();
        assert_eq!(membership(&member), want, "{change:?}");
        assert_eq!(state, member.node.conf_state());
    }
}

#[test]
fn a_change_that_cannot_be_carried_out_is_an_error_and_changes_nothing() {
    let mut member = alone();
    let both = joint("v2 v3", ConfChangeTransition::JointExplicit);
    for (change, want) in [
        (changes("r1"), ChangeError::RemovedAllVoters),
        (changes("l1"), ChangeError::RemovedAllVoters),
        (joint("", ConfChangeTransition::Auto), ChangeError::NotJoint),
    ] {
        assert_eq!(member.node.apply_conf_change(&change), Err(Error::Change(want)));
        assert_eq!(membership(&member), "voters=(1)");
    }
    member.node.apply_conf_change(&both).unwrap();
    assert_eq!(
        member.node.apply_conf_change(&changes("v4")),
        Err(Error::Change(ChangeError::SimpleInJoint))
    );
    assert_eq!(member.node.fatal(), None, "all nodes refuse it alike");
}

#[test]
fn a_node_knows_when_it_becomes_a_learner_and_a_voter_again() {
    let mut member = Member::new(plain(1), &[1, 2]);
    for (text, want) in [("l1", true), ("v1", false), ("r1", false)] {
        member.node.apply_conf_change(&changes(text)).unwrap();
        assert_eq!(member.node.is_learner(), want, "{text}");
        assert_eq!(member.node.is_promotable(), text == "v1", "{text}");
    }
}

#[test]
fn a_removal_commits_what_waited_for_the_larger_quorum() {
    let mut member = Member::new(plain(1), &[1, 2]);
    member.lead(&[2]);
    member.work();
    member.hear(2, 1, ack(1));
    member.work();
    member.node.propose_conf_change(changes("r2")).unwrap();
    member.node.propose("waits").unwrap();
    member.work();
    // Node 2 acknowledges its removal, and is never heard from again.
    member.hear(2, 1, ack(2));
    member.work();
    assert_eq!(member.node.committed(), Index(3));
    assert_eq!(member.machine().last().unwrap(), "waits");
}

#[test]
fn nobody_campaigns_before_committed_changes_are_applied() {
    for change in [change_v1(ConfChangeType::AddNode, 3), changes("v3")] {
        let mut net = Net::new(&[1, 2]);
        net.campaign(1);
        net.node(1).propose_conf_change(change).unwrap();
        // Node 2 learns that the change is committed, but does not apply it yet.
        for _ in 0..10 {
            let said = net.at(1).work();
            for message in said.into_iter().filter(|message| message.to == NodeId(2)) {
                net.node(2).step(message).unwrap();
            }
            let ready = net.node(2).ready();
            net.at(2).write(&ready);
            if ready.committed_entries.iter().any(|entry| entry.index == Index(2)) {
                net.node(2).campaign().unwrap();
                assert_eq!(net.node(2).role(), Role::Follower);
                // Not by order of the leader either.
                net.at(2).hear(1, 1, Body::TimeoutNow);
                assert_eq!(net.node(2).role(), Role::Follower);
                net.at(2).apply(&ready);
                net.node(2).advance().unwrap();
                net.node(2).campaign().unwrap();
                assert_eq!(net.node(2).role(), Role::Candidate);
                break;
            }
            net.at(2).apply(&ready);
            net.node(2).advance().unwrap();
            for message in ready.messages {
                net.node(1).step(message).unwrap();
            }
        }
        assert_eq!(net.node(2).role(), Role::Candidate, "it came that far");
    }
}

#[test]
fn learners_do_not_campaign_but_vote_if_they_are_asked() {
    let mut member = Member::with_members(plain(2), &[1], &[2], &[]);
    member.tick(25);
    member.stand();
    member.hear(1, 1, Body::TimeoutNow);
    assert_eq!((member.node.role(), member.node.term().0), (Role::Follower, 1));
    // It may be a voter by now without knowing.
    member.hear(1, 2, vote(id(1, 1)));
    assert_eq!(member.said(), ["2->1 MsgVoteResp Term:2 Log:0/0"]);
}

#[test]
fn a_promoted_learner_can_win() {
    let mut net = Net::of([
        Member::with_members(plain(1), &[1], &[2], &[]),
        Member::with_members(plain(2), &[1], &[2], &[]),
    ]);
    net.campaign(1);
    net.tick(1, 1);
    net.change(1, "v2").unwrap();
    net.campaign(2);
    assert_eq!(net.leaders(), [2]);
}

#[test]
fn each_form_of_change_leads_where_it_should() {
    use ConfChangeTransition::{Auto, JointExplicit, JointImplicit};
    for (change, entered, left) in [
        (change_v1(ConfChangeType::AddNode, 2), "voters=(1 2)", None),
        (changes("v2"), "voters=(1 2)", None),
        (changes("l2"), "voters=(1) learners=(2)", None),
        (
            joint("l2", JointExplicit),
            "voters=(1)&&(1) learners=(2)",
            Some("voters=(1) learners=(2)"),
        ),
        (
            joint("l2", JointImplicit),
            "voters=(1)&&(1) learners=(2) autoleave",
            Some("voters=(1) learners=(2)"),
        ),
        (
            joint("v2 l1 l3", Auto),
            "voters=(2)&&(1) learners=(3) learners_next=(1) autoleave",
            Some("voters=(2) learners=(1 3)"),
        ),
        (
            joint("v2 l1 l3", JointExplicit),
            "voters=(2)&&(1) learners=(3) learners_next=(1)",
            Some("voters=(2) learners=(1 3)"),
        ),
        (
            joint("v2 l1 l3", JointImplicit),
            "voters=(2)&&(1) learners=(3) learners_next=(1) autoleave",
            Some("voters=(2) learners=(1 3)"),
        ),
    ] {
        let mut member = alone();
        member.node.propose_conf_change(change.clone()).unwrap();
        // Until the change itself is applied.
        while member.node.applied() < Index(2) {
            let ready = member.node.ready();
            member.write(&ready);
            member.apply(&ready);
            if member.applied.len() == 2 {
                assert_eq!(membership(&member), entered, "{change:?}");
            }
            member.node.advance().unwrap();
        }
        let Some(left) = left else { continue };
        let is_auto = member.node.status().config.auto_leave;
        if !is_auto {
            member.work();
            assert_eq!(membership(&member), entered, "left only when asked");
            let leave = AnyConfChange::V2(ConfChangeV2 {
                context: "bye".into(),
                ..ConfChangeV2::default()
            });
            member.node.propose_conf_change(leave).unwrap();
        }
        assert_eq!(member.node.pending_conf_index(), Index(3), "leaving is a change too");
        // The other half must agree, where it has others in it.
        member.work();
        member.hear_if_member(2, 3);
        member.work();
        assert_eq!(membership(&member), left, "{change:?}");
    }
}

impl Member {
    fn hear_if_member(&mut self, from: u64, index: u64) {
        if self.node.conf_state().voters.contains(&NodeId(from)) {
            self.hear(from, 1, ack(index));
        }
    }
}

#[test]
fn adding_a_member_twice_blocks_nothing() {
    let mut member = alone();
    for node in [1, 1, 2] {
        member.node.propose_conf_change(change_v1(ConfChangeType::AddNode, node)).unwrap();
        member.work();
    }
    let added = ["1/2 EntryConfChange v1", "1/3 EntryConfChange v1", "1/4 EntryConfChange v2"];
    assert_eq!(log_text(&mut member)[1..], added);
    assert_eq!(membership(&member), "voters=(1 2)");
}

#[test]
fn changes_are_stored_as_they_were_proposed() {
    use ConfChangeTransition::{Auto, JointExplicit, JointImplicit};
    for change in [
        change_v1(ConfChangeType::AddNode, 2),
        change_v1(ConfChangeType::AddLearnerNode, 2),
        changes("v2"),
        changes("l2"),
        joint("l2", JointExplicit),
        joint("l2", JointImplicit),
        joint("v2 l1 l3", Auto),
        joint("v2 l1 l3", JointExplicit),
    ] {
        let mut member = alone();
        member.node.propose_conf_change(change.clone()).unwrap();
        let stored = member.node.ready().entries.into_vec().pop().unwrap();
        let (kind, data) = encode_conf_change(&change);
        assert_eq!((stored.kind, &stored.data), (Some(kind), &data));
        assert_eq!(decode_conf_change(kind, stored.payload()), Ok(change));
    }
}

#[test]
fn a_removed_learner_is_gone() {
    let mut member = Member::with_members(plain(1), &[1], &[2, 3], &[]);
    let state = member.node.apply_conf_change(&changes("r2")).unwrap();
    assert_eq!((state.voters, state.learners), (ids(&[1]), ids(&[3])));
    let state = member.node.apply_conf_change(&changes("r3")).unwrap();
    assert_eq!((state.voters, state.learners), (ids(&[1]), vec![]));
    let none_left = member.node.apply_conf_change(&changes("r1"));
    assert_eq!(none_left, Err(Error::Change(ChangeError::RemovedAllVoters)));
    assert_eq!(membership(&member), "voters=(1)");
}

#[test]
fn a_deposed_leader_does_not_leave_the_joint_state_and_a_new_one_does() {
    let mut member = alone();
    member.node.propose_conf_change(joint("v2", ConfChangeTransition::JointImplicit)).unwrap();
    // The change is applied, and before that is acknowledged another leader appears.
    let mut change_applied = false;
    while !change_applied {
        let ready = member.node.ready();
        member.write(&ready);
        member.apply(&ready);
        change_applied = member.applied.len() == 2;
        if change_applied {
            member.hear(2, 2, append(id(1, 2), &[], 2));
        }
        member.node.advance().unwrap();
    }
    member.work();
    assert_eq!(member.node.last_index(), Index(2), "it proposed nothing");
    assert_eq!(membership(&member), "voters=(1 2)&&(1) autoleave");

    member.lead(&[2]);
    member.work();
    member.hear(2, 3, ack(3));
    member.work();
    assert_eq!(member.node.last_index(), Index(4), "its empty entry, and the one that leaves");
    member.hear(2, 3, ack(4));
    member.work();
    assert_eq!(membership(&member), "voters=(1 2)");
}

#[test]
fn refusals_depend_on_the_joint_state() {
    let mut member = alone();
    let leave = joint("", ConfChangeTransition::Auto);
    let refused = |why| Err(Error::ChangeRefused(why));
    assert_eq!(member.node.check_conf_change(&leave), refused(ChangeRefusal::NotJoint));
    member.node.propose_conf_change(joint("l2", ConfChangeTransition::JointExplicit)).unwrap();
    member.work();
    assert_eq!(member.node.check_conf_change(&changes("v3")), refused(ChangeRefusal::StillJoint));
    assert_eq!(member.node.check_conf_change(&leave), Ok(()));
    let follower = Member::new(plain(1), &[1, 2]);
    assert!(matches!(
        follower.node.check_conf_change(&changes("v3")),
        Err(Error::ProposalDropped(_))
    ));
}

#[test]
fn a_removed_leader_steps_down_if_it_is_told_to() {
    for (step_down, text) in [(true, "r1"), (false, "r1"), (true, "l1"), (false, "l1")] {
        let config = Config { step_down_on_removal: step_down, ..plain(1) };
        let mut member = Member::new(config, &[1, 2]);
        member.lead(&[2]);
        member.work();
        member.node.apply_conf_change(&changes(text)).unwrap();
        let want = if step_down { Role::Follower } else { Role::Leader };
        assert_eq!((member.node.role(), member.node.term().0), (want, 1), "{text}");
        if text == "r1" {
            assert!(matches!(member.node.propose("x"), Err(Error::ProposalDropped(_))));
        }
    }
}

#[test]
fn a_new_member_is_probed_at_once() {
    let mut member = alone();
    member.node.propose_conf_change(changes("l2")).unwrap();
    let said = member.said();
    assert_eq!(said, ["1->2 MsgApp Term:1 Log:1/1 Commit:2 Entries:[1/2 EntryConfChangeV2 l2]"]);
}

#[test]
fn contexts_and_ids_reach_every_member() {
    let mut net = Net::new(&[1, 2]);
    net.campaign(1);
    let change = ConfChange {
        id: 77,
        change_type: ConfChangeType::UpdateNode,
        node_id: NodeId(2),
        context: "moved".into(),
    };
    net.node(1).propose_conf_change(change.clone()).unwrap();
    net.settle();
    let entry = net.at(2).applied.last().unwrap().clone();
    let read = quorate_raft::decode_conf_change(entry.entry_type(), entry.payload());
    assert_eq!(read, Ok(AnyConfChange::V1(change)));
    assert_eq!(net.node(2).conf_state().voters, ids(&[1, 2]));
}

/// With asynchronous writes a snapshot may be installed before the apply thread comes to entries that
/// were handed out earlier.
#[test]
fn a_change_that_a_snapshot_has_overtaken_is_ignored() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    let received = snapshot(2, 7, &[1, 2, 4]);
    member.hear(2, 2, Body::Snapshot { snapshot: Box::new(received) });
    for is_installed in [false, true] {
        if is_installed {
            member.work();
        }
        for index in [1, 6, 7] {
            let overtaken = member.node.apply_conf_change_at(Index(index), &changes("r2"));
            let now = member.node.conf_state();
            assert_eq!(now.voters, ids(&[1, 2, 4]));
            assert_eq!(overtaken, Ok(AppliedChange::Overtaken(now)), "{index} {is_installed}");
        }
    }
    let Ok(AppliedChange::Changed(now)) =
        member.node.apply_conf_change_at(Index(8), &changes("r2"))
    else {
        panic!("what comes after the snapshot is carried out");
    };
    assert_eq!(now.voters, ids(&[1, 4]));
    assert_eq!(member.node.apply_conf_change(&changes("r4")).unwrap().voters, ids(&[1]));
}

#[test]
fn storage_threads_are_no_members() {
    for id in [LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD] {
        for change_type in [ConfChangeType::AddNode, ConfChangeType::AddLearnerNode] {
            let mut member = alone();
            let change = change_v1(change_type, id.0);
            let malformed = Err(Error::ProposalDropped(DropReason::Malformed));
            assert_eq!(member.node.propose_conf_change(change.clone()), malformed);
            let want = Err(Error::Change(ChangeError::LocalTarget(id)));
            assert_eq!(member.node.apply_conf_change(&change), want);

            let mut member = Member::new(plain(1), &[1, 2]);
            let received = snapshot(2, 7, &[1, id.0]);
            member.hear(2, 2, Body::Snapshot { snapshot: Box::new(received) });
            assert_eq!(member.node.last_index(), Index(0), "no membership can be made of it");
        }
    }
}

#[test]
fn status_says_whether_a_joint_membership_leaves_by_itself() {
    for (transition, want) in [
        (ConfChangeTransition::JointImplicit, "voters=(1 2)&&(1) autoleave"),
        (ConfChangeTransition::JointExplicit, "voters=(1 2)&&(1)"),
    ] {
        let mut member = Member::new(plain(1), &[1]);
        member.node.apply_conf_change(&joint("v2", transition)).unwrap();
        assert_eq!(member.node.status().config.to_string(), want);
    }
}
