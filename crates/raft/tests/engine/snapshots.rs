//! Snapshots: installed on followers that fell behind, and sent by leaders.

use std::collections::BTreeSet;

use quorate_raft::{
    Body, ConfState, Entries, Message, Note, ProgressState, Role, Snapshot, SnapshotStatus, Storage,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{Member, Net, ack, heard, id, ids, plain, snapshot};

fn install(snapshot: &Snapshot) -> Body {
    Body::Snapshot { snapshot: Box::new(snapshot.clone()) }
}

fn is_snapshot(message: &Message) -> bool {
    matches!(message.body, Body::Snapshot { .. })
}

/// A leader of term 2 of nodes 1 and 2 (and a silent 3 for elections), whose log starts after
/// 11@1 and holds the empty entry at 12; nothing is known of node 2.
fn leader_after_compaction() -> Member {
    let storage = quorate_raft::MemoryStorage::new();
    storage.apply_snapshot(snapshot(1, 11, &[1, 2, 3])).unwrap();
    storage.set_hard_state(quorate_raft::HardState {
        commit: Index(11),
        term: Term(1),
        vote: NodeId(0),
    });
    let mut member = Member::on(plain(1), storage);
    member.lead(&[3]);
    member.hear(3, 2, ack(12));
    member.work();
    member
}

/// The same, with node 2 waiting for the snapshot.
fn leader_with_snapshot_under_way() -> Member {
    let mut member = leader_after_compaction();
    // Its log is empty, says node 2.
    member.hear(2, 2, Body::AppendRefusal { index: Index(11), hint: id(0, 0) });
    assert_eq!(member.work().iter().filter(|message| is_snapshot(message)).count(), 1);
    let progress = member.progress(2);
    assert_eq!((progress.state, progress.pending_snapshot), (ProgressState::Snapshot, Index(11)));
    member
}

#[test]
fn a_snapshot_replaces_log_and_membership() {
    let mut member = Member::new(plain(1), &[1, 2]);
    let received = snapshot(11, 11, &[1, 2, 3]);
    member.hear(2, 11, install(&received));
    assert_eq!(member.node.leader(), Some(NodeId(2)), "whoever sends it leads");
    assert_eq!((member.node.last_index(), member.node.committed()), (Index(11), Index(11)));
    assert_eq!(member.node.entry_term(Index(11)), Some(Term(11)));
    assert_eq!(member.node.conf_state().voters, ids(&[1, 2, 3]));

    // Until it is installed the node is not to be elected.
    assert!(!member.node.is_promotable());
    member.tick(25);
    assert_eq!(member.node.role(), Role::Follower);

    let ready = member.node.ready();
    assert_eq!(ready.snapshot.as_ref(), Some(&received));
    assert_eq!(ready.committed_entries, []);
    member.write(&ready);
    member.node.advance().unwrap();
    assert_eq!(member.node.applied(), Index(11));
    assert!(member.node.is_promotable());
    let reply = "1->2 MsgAppResp Term:11 Log:0/11";
    assert_eq!(crate::net::texts(&ready.messages).last().unwrap(), reply);

    // The same again is old news.
    member.hear(2, 11, install(&received));
    let ready = member.node.ready();
    assert_eq!((ready.snapshot, crate::net::texts(&ready.messages)), (None, vec![reply.into()]));
}

fn voters_of(member: &Member) -> BTreeSet<NodeId> {
    member.node.status().config.voters.ids().iter().collect()
}

#[test]
fn nobody_campaigns_before_its_snapshot_is_installed() {
    let mut received = snapshot(1, 5, &[2, 3]);
    received.metadata.conf_state.voters_outgoing = ids(&[1, 2]);
    let mut member = Member::new(plain(1), &[1, 2]);
    member.hear(2, 1, install(&received));
    for _ in 0..2 {
        member.tick(30);
        member.node.campaign().unwrap();
        member.hear(2, 1, Body::TimeoutNow);
        assert_eq!((member.node.role(), member.node.term()), (Role::Follower, Term(1)));
    }
    member.work();
    member.node.campaign().unwrap();
    assert_eq!(member.node.role(), Role::Candidate, "an outgoing voter may");
}

#[test]
fn membership_comes_with_the_snapshot() {
    let state = |voters: &[u64], learners: &[u64], outgoing: &[u64]| ConfState {
        voters: ids(voters),
        learners: ids(learners),
        voters_outgoing: ids(outgoing),
        ..ConfState::default()
    };
    for (before, after, is_learner, what) in [
        ((&[2, 3][..], &[1][..]), state(&[2, 3], &[1], &[]), true, "a learner stays one"),
        ((&[1, 2], &[]), state(&[2], &[1], &[]), true, "a voter becomes a learner"),
        ((&[2], &[1]), state(&[1, 2], &[], &[]), false, "a learner becomes a voter"),
        ((&[1, 2], &[]), state(&[2, 3], &[], &[1, 2]), false, "an outgoing voter"),
    ] {
        let mut member = Member::with_members(plain(1), before.0, before.1, &[]);
        let mut received = snapshot(1, 5, &[]);
        received.metadata.conf_state = after.clone();
        member.hear(2, 1, install(&received));
        member.work();
        assert_eq!(member.node.committed(), Index(5), "{what}");
        assert!(member.node.conf_state().is_equivalent(&after), "{what}");
        assert_eq!(member.node.is_learner(), is_learner, "{what}");
        let members = after.voters.iter().chain(&after.voters_outgoing).copied();
        assert_eq!(voters_of(&member), members.collect::<BTreeSet<_>>(), "{what}");
    }
}

#[test]
fn snapshots_that_are_not_needed_or_not_meant_for_this_node_are_ignored() {
    let none = Snapshot::default();
    for (received, want, what) in [
        (none, 1, "an empty one"),
        (snapshot(1, 1, &[1, 2]), 1, "an old one"),
        (snapshot(1, 2, &[1, 2]), 2, "one that the log has: only the commit index moves"),
        (snapshot(1, 9, &[2, 3]), 1, "one without this node"),
        (snapshot(1, 9, &[1, 1, 2]), 1, "one that lists a voter twice"),
    ] {
        let mut member = Member::with_log(plain(1), &[1, 2], &[1, 1, 1]);
        member.hear(2, 1, crate::net::heartbeat(1));
        member.work();
        member.hear(2, 1, install(&received));
        let reply = format!("1->2 MsgAppResp Term:1 Log:0/{want}");
        assert_eq!(member.said(), [reply], "{what}");
        assert_eq!(
            (member.node.committed(), member.terms()),
            (Index(want), vec![1, 1, 1]),
            "{what}"
        );
    }
}

#[test]
fn a_peer_behind_the_start_of_the_log_gets_a_snapshot() {
    let mut member = leader_with_snapshot_under_way();
    // Nothing else is sent meanwhile.
    member.node.propose("x").unwrap();
    member.hear(2, 2, heard());
    assert!(member.work().iter().all(|message| message.to != NodeId(2)));
}

#[test]
fn a_silent_peer_gets_no_snapshot() {
    let config = quorate_raft::Config { check_quorum: true, ..plain(1) };
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[3]);
    for peer in [2, 3] {
        member.hear(peer, 1, ack(1));
    }
    member.work();
    // Node 2 falls silent for more than an election timeout, and what it lacks is compacted.
    member.tick(10);
    member.node.propose("x").unwrap();
    member.work();
    member.hear(3, 1, ack(2));
    member.work();
    let conf_state = member.node.conf_state();
    member.storage.create_snapshot(Index(2), Some(conf_state), "state".into()).unwrap();
    member.storage.compact(Index(2)).unwrap();
    member.node.report_unreachable(NodeId(2));
    member.node.propose("y").unwrap();
    assert!(member.work().iter().all(|message| message.to != NodeId(2)));
    let progress = member.progress(2);
    assert_eq!((progress.state, progress.next), (ProgressState::Probe, Index(2)));
    assert!(!progress.recent_active);
    // As soon as it gives a sign of life, it gets one.
    member.hear(2, 1, heard());
    assert!(member.work().iter().any(is_snapshot));
}

#[test]
fn reports_of_the_sender_end_the_waiting() {
    for (status, next) in [(SnapshotStatus::Failure, 1), (SnapshotStatus::Finish, 12)] {
        let mut member = leader_with_snapshot_under_way();
        member.node.report_snapshot(NodeId(2), status);
        let progress = member.progress(2);
        assert_eq!((progress.state, progress.next), (ProgressState::Probe, Index(next)));
        assert_eq!(progress.pending_snapshot, Index(0));
        assert!(progress.msg_app_flow_paused, "until it answers");
        // Said again, it means nothing.
        member.node.report_snapshot(NodeId(2), SnapshotStatus::Failure);
        assert_eq!(member.progress(2), progress);
    }
}

#[test]
fn an_acknowledgement_that_connects_to_the_log_ends_the_waiting() {
    for (index, want) in [
        (10, ProgressState::Snapshot),
        (11, ProgressState::Replicate),
        (12, ProgressState::Replicate),
    ] {
        let mut member = leader_with_snapshot_under_way();
        member.hear(2, 2, ack(index));
        assert_eq!(member.progress(2).state, want, "acknowledged up to {index}");
        let snapshots = member.work().iter().filter(|message| is_snapshot(message)).count();
        assert_eq!(snapshots, 0, "one is under way");
    }
}

#[test]
fn an_acknowledgement_below_the_snapshot_will_do_if_the_log_has_the_rest() {
    let mut member = leader_after_compaction();
    for _ in 0..3 {
        member.node.propose("x").unwrap();
    }
    member.work();
    member.hear(3, 2, ack(15));
    member.work();
    // The snapshot is newer than the start of the log.
    let conf_state = member.node.conf_state();
    member.storage.create_snapshot(Index(15), Some(conf_state), "state".into()).unwrap();
    member.hear(2, 2, Body::AppendRefusal { index: Index(11), hint: id(0, 0) });
    let progress = member.progress(2);
    assert_eq!((progress.state, progress.pending_snapshot), (ProgressState::Snapshot, Index(15)));
    for (index, want) in [(10, ProgressState::Snapshot), (12, ProgressState::Replicate)] {
        member.hear(2, 2, ack(index));
        assert_eq!(member.progress(2).state, want, "acknowledged up to {index}");
    }
    assert_eq!(member.progress(2).matched, Index(12));
}

#[test]
fn a_slow_node_catches_up_after_compaction() {
    let mut net = Net::new(&[1, 2, 3]);
    net.campaign(1);
    net.isolate(3);
    for _ in 0..100 {
        net.propose(1, "x").unwrap();
    }
    let leader = net.at(1);
    let (applied, conf_state) = (leader.node.applied(), leader.node.conf_state());
    leader.storage.create_snapshot(applied, Some(conf_state), "state".into()).unwrap();
    leader.storage.compact(applied).unwrap();

    net.heal();
    net.tick(1, 1);
    assert_eq!(net.at(1).progress(3).state, ProgressState::Replicate);
    net.propose(1, "y").unwrap();
    assert_eq!(net.node(3).committed(), net.node(1).committed());
    assert_eq!(net.at(3).storage.snapshot().unwrap().data, "state");
}

#[test]
fn learners_catch_up_by_snapshot_too() {
    let mut leader = Member::with_members(plain(1), &[1], &[2], &[]);
    leader.lead(&[]);
    leader.work();
    let conf_state = leader.node.conf_state();
    leader.storage.create_snapshot(Index(1), Some(conf_state), "state".into()).unwrap();
    leader.storage.compact(Index(1)).unwrap();
    let mut net = Net::of([leader, Member::with_members(plain(2), &[1], &[2], &[])]);
    net.tick(1, 1);
    assert_eq!(net.node(2).committed(), net.node(1).committed());
    assert!(net.node(2).is_learner());
}

#[test]
fn a_snapshot_that_is_not_ready_is_asked_for_again() {
    use quorate_raft::{InitialState, MemoryStorage, RawNode, StorageError};

    #[derive(Clone)]
    struct Preparing(MemoryStorage, std::rc::Rc<std::cell::Cell<bool>>);
    impl Storage for Preparing {
        fn initial_state(&self) -> Result<InitialState, StorageError> {
            self.0.initial_state()
        }
        fn entries(&self, lo: Index, hi: Index, max: u64) -> Result<Entries, StorageError> {
            self.0.entries(lo, hi, max)
        }
        fn term(&self, index: Index) -> Result<Term, StorageError> {
            self.0.term(index)
        }
        fn last_index(&self) -> Result<Index, StorageError> {
            self.0.last_index()
        }
        fn first_index(&self) -> Result<Index, StorageError> {
            self.0.first_index()
        }
        fn snapshot(&self) -> Result<Snapshot, StorageError> {
            match self.1.get() {
                true => self.0.snapshot(),
                false => Err(StorageError::SnapshotTemporarilyUnavailable),
            }
        }
    }

    let storage = MemoryStorage::new();
    storage.apply_snapshot(snapshot(1, 11, &[1, 2])).unwrap();
    let is_ready = std::rc::Rc::default();
    let preparing = Preparing(storage.clone(), std::rc::Rc::clone(&is_ready));
    let mut node = RawNode::new(plain(1), preparing).unwrap();
    let work = |node: &mut RawNode<Preparing>| -> Vec<Message> {
        let mut said = vec![];
        while node.has_ready() {
            let ready = node.ready();
            storage.append(&ready.entries).unwrap();
            node.advance().unwrap();
            said.extend(ready.messages);
        }
        said
    };
    let hear = |node: &mut RawNode<Preparing>, term, body| {
        node.step(Message { to: NodeId(1), from: NodeId(2), term: Term(term), body }).unwrap();
    };
    node.campaign().unwrap();
    work(&mut node);
    hear(&mut node, 1, Body::VoteReply { reject: false });
    work(&mut node);
    hear(&mut node, 1, Body::AppendRefusal { index: Index(11), hint: id(0, 0) });
    assert!(!work(&mut node).iter().any(is_snapshot));
    is_ready.set(true);
    hear(&mut node, 1, heard());
    assert!(work(&mut node).iter().any(is_snapshot));
}

#[test]
fn a_snapshot_older_than_what_the_peer_has_is_not_sent() {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.lead(&[2]);
    for _ in 0..4 {
        member.node.propose("x").unwrap();
    }
    member.work();
    for (peer, index) in [(2, 3), (3, 5)] {
        member.hear(peer, 1, ack(index));
        member.work();
    }
    member.storage.create_snapshot(Index(2), None, "state".into()).unwrap();
    member.storage.compact(Index(5)).unwrap();
    member.node.report_unreachable(NodeId(2));
    member.node.take_notes();
    member.hear(2, 1, heard());
    assert_eq!(member.work(), []);
    assert_eq!(member.node.take_notes(), [Note::SnapshotNotReady { peer: NodeId(2) }]);
    assert_eq!(member.progress(2).state, ProgressState::Probe);
    member.storage.create_snapshot(Index(5), None, "state".into()).unwrap();
    member.hear(2, 1, heard());
    assert!(member.work().iter().any(is_snapshot));
}
