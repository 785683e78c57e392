//! Each call of the handle: what it waits for, what it answers, and what stops it.

use std::time::Duration;

use quorate_node::{Limits, Node};
use quorate_raft::{
    Body, ConfChange, ConfChangeType, ConfChangeV2, Config, DropReason, Entries, Error, Fatal,
    LOCAL_APPEND_THREAD, MemoryStorage, Message, Peer, RawNode, ReadState, Role, SnapshotStatus,
    Status,
};
use quorate_types::{Index, NodeId, Term};

use crate::embedder::{
    Embedder, append, blocks, config, data, entry, heartbeat, log_of, message, snapshot, soon,
};

fn proposal(data: &'static str) -> Body {
    Body::Propose { entries: vec![entry(0, 0, data)] }
}

fn add(id: u64, change_type: ConfChangeType) -> ConfChange {
    ConfChange { change_type, node_id: NodeId(id), ..ConfChange::default() }
}

#[tokio::test(start_paused = true)]
async fn proposals_wait_for_a_leader_and_other_messages_pass_them() {
    let one = Embedder::new(&[1, 2], |_| {});
    let node = one.node.clone();
    let waiting = tokio::spawn(async move { node.step(message(2, 0, proposal("x"))).await });
    tokio::task::yield_now().await;

    one.step(2, 5, heartbeat()).await;
    assert_eq!(soon(waiting).await.unwrap(), Ok(()));
    let ready = one.turn().await;
    assert_eq!(ready.hard_state.unwrap().term, Term(5));
    let forwarded = ready
        .messages
        .iter()
        .find(|message| message.to == NodeId(2) && matches!(message.body, Body::Propose { .. }));
    // Whoever it came from: this node answers for it now.
    assert_eq!(forwarded.unwrap().from, NodeId(1));
}

#[tokio::test(start_paused = true)]
async fn what_no_peer_may_send_is_ignored() {
    let one = Embedder::new(&[1, 2], |_| {});
    one.lead(&[2]).await;
    let before = one.node.status().await;
    for body in [
        Body::Hup,
        Body::Beat,
        Body::Unreachable,
        Body::SnapshotStatus { reject: true },
        Body::CheckQuorum,
        Body::StorageAppend {
            hard_state: None,
            entries: Entries::new(),
            snapshot: None,
            responses: Vec::new(),
        },
        Body::StorageAppendReply { stable: None, snapshot: None },
        Body::StorageApply { entries: Entries::new(), responses: Vec::new() },
        Body::StorageApplyReply { entries: vec![entry(1, 1, "x")].into() },
    ] {
        assert_eq!(one.node.step(message(2, 1, body.clone())).await, Ok(()));
        assert_eq!(one.node.status().await, before, "{body:?}");
        assert!(blocks(one.node.ready()).await, "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_strangers_are_dropped() {
    let one = Embedder::new(&[1, 2], |_| {});
    one.node.campaign().await.unwrap();
    one.settle().await;
    one.step(3, 1, Body::VoteReply { reject: false }).await;
    assert_eq!(one.role().await, Role::Candidate);
    one.step(3, 9, Body::HeartbeatReply { context: Default::default() }).await;
    assert_eq!(one.node.status().await.basic.hard_state.term, Term(1));
    one.step(2, 1, Body::VoteReply { reject: false }).await;
    assert_eq!(one.role().await, Role::Leader);
}

#[tokio::test(start_paused = true)]
async fn stopping_releases_every_blocked_call() {
    // Room for one input and one proposal, so that calls block in every way.
    let limits = Limits { inputs_max: 1, proposals_max: 1, ..Limits::default() };
    let one = Embedder::with(&[1, 2], |_| {}, limits);
    let mut calls = Vec::new();
    for _ in 0..3 {
        let node = one.node.clone();
        calls.push(tokio::spawn(async move { node.propose("x").await }));
        let node = one.node.clone();
        calls.push(tokio::spawn(async move { node.step(message(2, 0, proposal("x"))).await }));
        let node = one.node.clone();
        calls.push(tokio::spawn(async move { node.ready().await.map(drop) }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    one.node.stop().await;
    for call in calls {
        assert_eq!(soon(call).await.unwrap(), Err(Error::Stopped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_is_given_up_while_it_waits_is_not_made() {
    let limits = Limits { proposals_max: 2, ..Limits::default() };
    let one = Embedder::with(&[1], |_| {}, limits);
    for _ in 0..10 {
        // More of them than may wait: those given up take no room.
        assert!(blocks(one.node.propose("given up")).await);
    }
    let node = one.node.clone();
    let kept = tokio::spawn(async move { node.propose("kept").await });
    tokio::task::yield_now().await;
    one.node.campaign().await.unwrap();
    let committed = one.settle().await;
    assert_eq!(kept.await.unwrap(), Ok(()));
    assert_eq!(data(&committed), ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn a_proposal_waits_until_there_is_a_leader() {
    let one = Embedder::new(&[1], |_| {});
    assert!(blocks(one.node.propose("x")).await);
    let node = one.node.clone();
    let waiting = tokio::spawn(async move { node.propose("y").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    one.node.campaign().await.unwrap();
    assert_eq!(data(&one.settle().await), ["y"]);
    assert_eq!(waiting.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_the_log_as_it_was_proposed() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    let change = add(2, ConfChangeType::AddLearnerNode);
    one.node.propose_conf_change(change.clone()).await.unwrap();
    let committed = one.settle().await;
    let found = committed.iter().find(|entry| entry.kind.is_some()).unwrap();
    let want = quorate_raft::encode_conf_change(&change.into());
    assert_eq!((found.entry_type(), found.data.clone()), want);
}

#[tokio::test(start_paused = true)]
async fn a_refused_proposal_says_so_at_once() {
    let one = Embedder::new(&[1], |config| config.max_uncommitted_entries_size = 1);
    one.lead(&[]).await;
    assert_eq!(one.node.propose("x").await, Ok(()));
    let refused = Err(Error::ProposalDropped(DropReason::Uncommitted));
    assert_eq!(soon(one.node.propose("y")).await, refused);
    // Those who only wanted it taken in are not told.
    let change = add(2, ConfChangeType::AddNode);
    assert_eq!(soon(one.node.propose_conf_change(change)).await, Ok(()));
    assert_eq!(soon(one.node.step(message(2, 0, proposal("y")))).await, Ok(()));
    assert_eq!(data(&one.settle().await), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_forwards_proposals_unless_it_must_not() {
    for (disable_proposal_forwarding, verdict) in
        [(false, Ok(())), (true, Err(Error::ProposalDropped(DropReason::ForwardingDisabled)))]
    {
        let one = Embedder::new(&[1, 2], |config| {
            config.disable_proposal_forwarding = disable_proposal_forwarding;
        });
        one.step(2, 1, heartbeat()).await;
        assert_eq!(soon(one.node.propose("x")).await, verdict);
        let ready = one.turn().await;
        let is_proposal = |message: &Message| matches!(message.body, Body::Propose { .. });
        assert_eq!(ready.messages.iter().any(is_proposal), verdict.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn one_tick_moves_the_clock_by_one() {
    let mut raw = RawNode::new(config(), log_of(&[1])).unwrap();
    raw.set_randomized_election_timeout(7);
    let (node, task) = Node::new(raw, Limits::default());
    tokio::spawn(task.run());
    let role = async || node.status().await.basic.soft_state.role;
    for _ in 0..6 {
        assert!(node.tick());
        tokio::task::yield_now().await;
    }
    assert_eq!(role().await, Role::Follower);
    assert!(node.tick());
    tokio::task::yield_now().await;
    assert_eq!(role().await, Role::Candidate);
}

#[tokio::test(start_paused = true)]
async fn ticks_never_wait_and_are_lost_beyond_128() {
    let raw = RawNode::new(config(), log_of(&[1])).unwrap();
    let (node, task) = Node::new(raw, Limits::default());
    assert_eq!((0..200).filter(|_| node.tick()).count(), 128);
    drop(task);
    assert!(!node.tick());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_says_so_and_has_no_status() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    assert_eq!(one.node.status().await.basic.id, NodeId(1));
    // Several at once, and again.
    tokio::join!(one.node.stop(), one.node.stop());
    one.node.stop().await;

    let node = &one.node;
    assert_eq!(node.status().await, Status::default());
    assert_eq!(node.ready().await, Err(Error::Stopped));
    assert_eq!(node.campaign().await, Err(Error::Stopped));
    assert_eq!(node.propose("x").await, Err(Error::Stopped));
    let change = add(2, ConfChangeType::AddNode);
    assert_eq!(node.propose_conf_change(change.clone()).await, Err(Error::Stopped));
    assert_eq!(node.apply_conf_change(change).await, Err(Error::Stopped));
    assert_eq!(node.step(message(2, 1, heartbeat())).await, Err(Error::Stopped));
    assert_eq!(node.read_index("x").await, Err(Error::Stopped));
    assert_eq!(node.forget_leader().await, Err(Error::Stopped));
    node.transfer_leadership(NodeId(1), NodeId(2)).await;
    node.report_unreachable(NodeId(2)).await;
    node.report_snapshot(NodeId(2), SnapshotStatus::Failure).await;
    node.advance().await;
    assert!(!node.tick());
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_node_with_it() {
    let raw = RawNode::new(config(), log_of(&[1])).unwrap();
    let (node, task) = Node::new(raw, Limits::default());
    let task = tokio::spawn(task.run());
    let other = node.clone();
    drop(node);
    assert_eq!(other.status().await.basic.id, NodeId(1));
    drop(other);
    soon(task).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_fatal_ends_the_node_and_is_told_to_all() {
    let one = Embedder::new(&[1], |config| config.async_storage_writes = true);
    one.node.campaign().await.unwrap();
    one.node.ready().await.unwrap();
    let node = one.node.clone();
    let waiting = tokio::spawn(async move { node.propose("x").await });
    tokio::task::yield_now().await;
    one.node.advance().await;
    let fatal = Error::Fatal(Fatal::AdvanceWithAsyncWrites);
    assert_eq!(soon(waiting).await.unwrap(), Err(fatal.clone()));
    assert_eq!(one.node.ready().await, Err(fatal.clone()));
    assert_eq!(one.node.campaign().await, Err(fatal));
    one.node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_with_peers_and_restarts_without() {
    let none = Node::start(config(), MemoryStorage::new(), &[]).map(drop);
    assert_eq!(none, Err(Error::BootstrapWithoutPeers));
    let bad = Config { id: NodeId(0), ..config() };
    assert!(matches!(Node::restart(bad, MemoryStorage::new()), Err(Error::Config(_))));

    // With peers and a log, the log counts.
    let log = MemoryStorage::new();
    log.apply_snapshot(snapshot(3, 1, &[1, 2])).unwrap();
    let node = Node::start(config(), log, &[Peer::new(9)]).unwrap();
    let members: Vec<_> = node.status().await.config.conf_state().voters;
    assert_eq!(members, [NodeId(1), NodeId(2)]);
}

#[tokio::test(start_paused = true)]
async fn adding_a_member_twice_does_not_block_a_later_change() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    let mut members = Vec::new();
    for id in [1, 1, 2] {
        one.node.propose_conf_change(add(id, ConfChangeType::AddNode)).await.unwrap();
        let committed = one.settle().await;
        assert_eq!(committed.iter().filter(|entry| entry.kind.is_some()).count(), 1);
        members = one.node.status().await.config.conf_state().voters;
    }
    assert_eq!(members, [NodeId(1), NodeId(2)]);
}

#[tokio::test(start_paused = true)]
async fn applying_a_change_gives_the_membership_that_results() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    let change = add(2, ConfChangeType::AddLearnerNode);
    let members = one.node.apply_conf_change(change).await.unwrap();
    assert_eq!((members.voters, members.learners), (vec![NodeId(1)], vec![NodeId(2)]));
    let impossible = one.node.apply_conf_change(add(1, ConfChangeType::RemoveNode)).await;
    assert!(matches!(impossible, Err(Error::Change(_))), "{impossible:?}");
    // It goes on with what it had.
    let members = one.node.apply_conf_change(ConfChangeV2::default()).await;
    assert!(matches!(members, Err(Error::Change(_))), "{members:?}");
    assert_eq!(one.node.status().await.config.conf_state().learners, [NodeId(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_takes_no_proposals_until_the_leader_changes() {
    let one = Embedder::new(&[1, 2], |_| {});
    one.step(2, 1, heartbeat()).await;
    one.settle().await;
    assert_eq!(soon(one.node.propose("x")).await, Ok(()));
    one.node.apply_conf_change(add(1, ConfChangeType::RemoveNode)).await.unwrap();
    assert!(blocks(one.node.propose("y")).await);
    one.step(3, 2, heartbeat()).await;
    assert_eq!(soon(one.node.propose("z")).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn reads_are_answered_in_a_ready_with_their_bytes() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    one.node.read_index("a").await.unwrap();
    one.node.read_index("b").await.unwrap();
    let states = one.turn().await.read_states;
    let state =
        |request_ctx: &'static str| ReadState { index: Index(1), request_ctx: request_ctx.into() };
    assert_eq!(states, [state("a"), state("b")]);
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_and_forgotten_when_asked() {
    let one = Embedder::new(&[1, 2], |_| {});
    one.lead(&[2]).await;
    one.step(2, 1, Body::AppendReply { index: Index(1) }).await;
    one.settle().await;
    one.node.transfer_leadership(NodeId(1), NodeId(2)).await;
    let ready = one.turn().await;
    assert!(ready.messages.contains(&Message {
        to: NodeId(2),
        from: NodeId(1),
        term: Term(1),
        body: Body::TimeoutNow
    }));
    assert_eq!(one.node.status().await.basic.lead_transferee, NodeId(2));

    let two = Embedder::new(&[1, 2], |_| {});
    two.step(2, 1, heartbeat()).await;
    assert_eq!(two.node.status().await.basic.soft_state.lead, NodeId(2));
    two.node.forget_leader().await.unwrap();
    assert_eq!(two.node.status().await.basic.soft_state.lead, NodeId::NONE);
    // And with the leader gone, proposals wait again.
    assert!(blocks(two.node.propose("x")).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_transport_reports_reaches_the_leader() {
    use quorate_raft::ProgressState::{Probe, Replicate, Snapshot};
    let log = MemoryStorage::new();
    log.apply_snapshot(snapshot(5, 1, &[1, 2])).unwrap();
    let one = Embedder { node: Node::restart(config(), log.clone()).unwrap(), log };
    one.lead(&[2]).await;
    let progress = async || one.node.status().await.progress.get(NodeId(2)).unwrap().clone();
    // Each time the peer turns out to have nothing, and needs the snapshot; then it is reported.
    let mut refused = Index(5);
    for (status, next) in [(SnapshotStatus::Failure, Index(1)), (SnapshotStatus::Finish, Index(6))]
    {
        let hint = quorate_types::EntryId::default();
        one.step(2, 1, Body::AppendRefusal { index: refused, hint }).await;
        one.settle().await;
        assert_eq!(
            (progress().await.state, progress().await.pending_snapshot),
            (Snapshot, Index(5))
        );
        // A stranger's report means nothing.
        one.node.report_snapshot(NodeId(9), status).await;
        one.node.report_unreachable(NodeId(9)).await;
        assert_eq!(progress().await.state, Snapshot);
        one.node.report_snapshot(NodeId(2), status).await;
        assert_eq!((progress().await.state, progress().await.next), (Probe, next), "{status:?}");
        // It is asked again where it stands after a heartbeat's answer.
        one.step(2, 1, Body::HeartbeatReply { context: Default::default() }).await;
        one.settle().await;
        refused = Index(0);
    }
    one.step(2, 1, Body::AppendReply { index: Index(6) }).await;
    assert_eq!(progress().await.state, Replicate);
    one.node.report_unreachable(NodeId(2)).await;
    assert_eq!(progress().await.state, Probe);
}

#[tokio::test(start_paused = true)]
async fn storage_threads_are_heard() {
    let one = Embedder::new(&[1], |config| config.async_storage_writes = true);
    one.node.campaign().await.unwrap();
    // The vote, then the empty entry: each counts when the append thread says that it is written.
    for role in [Role::Candidate, Role::Leader] {
        assert_eq!(one.role().await, role);
        let ready = soon(one.node.ready()).await.unwrap();
        for message in ready.messages {
            if let Body::StorageAppend { hard_state, entries, responses, .. } = message.body {
                assert_eq!(message.to, LOCAL_APPEND_THREAD);
                one.log.append(&entries).unwrap();
                hard_state.into_iter().for_each(|hard_state| one.log.set_hard_state(hard_state));
                for response in responses {
                    one.node.step(response).await.unwrap();
                }
            }
        }
    }
    assert_eq!(one.node.status().await.basic.hard_state.commit, Index(1));
}

#[tokio::test(start_paused = true)]
async fn appends_of_a_leader_are_taken_in() {
    let one = Embedder::new(&[1, 2], |_| {});
    one.step(2, 1, append((0, 0), vec![entry(1, 1, "x"), entry(2, 1, "y")], 1)).await;
    let ready = one.turn().await;
    assert_eq!(data(&ready.entries), ["x", "y"]);
    assert_eq!(data(&ready.committed_entries), ["x"]);
    assert_eq!(one.log.initial_hard_state().term, Term(1));
}

trait InitialHardState {
    fn initial_hard_state(&self) -> quorate_raft::HardState;
}

impl InitialHardState for MemoryStorage {
    fn initial_hard_state(&self) -> quorate_raft::HardState {
        quorate_raft::Storage::initial_state(self).unwrap().hard_state.unwrap_or_default()
    }
}

#[tokio::test]
async fn limits_may_be_nothing_or_no_limit() {
    for max in [0, 1, usize::MAX] {
        let limits =
            Limits { inputs_max: max, proposals_max: max, outcomes_max: max, reads_max: max };
        let raw = RawNode::new(config(), log_of(&[1])).unwrap();
        let (node, task) = Node::new(raw, limits);
        let task = tokio::spawn(task.run());
        node.tick();
        node.stop().await;
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_was_held_up_does_not_take_its_leader_for_silent() {
    let mut raw = RawNode::new(config(), log_of(&[1, 2, 3])).unwrap();
    raw.step(message(2, 5, heartbeat())).unwrap();
    let (node, task) = Node::new(raw, Limits::default());
    for _ in 0..100 {
        assert!(node.tick());
        node.step(message(2, 5, heartbeat())).await.unwrap();
    }
    tokio::spawn(task.run());
    let basic = node.status().await.basic;
    assert_eq!((basic.soft_state.lead, basic.hard_state.term), (NodeId(2), Term(5)));
    // By now all ticks are counted.
    assert_eq!(basic.soft_state.role, Role::Follower);
}
