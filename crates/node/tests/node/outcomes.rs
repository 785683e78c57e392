//! Every proposal, membership change and read that asks for it hears what became of it.

use quorate_node::{Limits, Node, ProposalError, ReadError};
use quorate_raft::{Body, ChangeRefusal, ConfChange, ConfChangeType, DropReason, Error, Ready};
use quorate_types::{EntryId, Index, NodeId};
use tokio::task::JoinHandle;

use crate::embedder::{Embedder, append, blocks, entry, heartbeat, snapshot, soon};

type Outcome = Result<EntryId, ProposalError>;

fn at(index: u64, term: u64) -> EntryId {
    EntryId::new(term, index)
}

/// Proposes, and goes on without the outcome.
async fn propose(node: &Node, data: &'static str) -> JoinHandle<Outcome> {
    let node = node.clone();
    let proposed = tokio::spawn(async move { node.propose_and_wait(data).await });
    tokio::task::yield_now().await;
    proposed
}

#[tokio::test(start_paused = true)]
async fn a_committed_proposal_gives_its_place() {
    let one = Embedder::new(&[1, 2], |_| {});
    one.lead(&[2]).await;
    let (x, y) = (propose(&one.node, "x").await, propose(&one.node, "y").await);
    one.settle().await;
    assert!(!x.is_finished(), "a quorum is missing");
    one.step(2, 1, Body::AppendReply { index: Index(2) }).await;
    assert_eq!(soon(x).await.unwrap(), Ok(at(2, 1)));
    assert!(!y.is_finished());
    one.step(2, 1, Body::AppendReply { index: Index(3) }).await;
    assert_eq!(soon(y).await.unwrap(), Ok(at(3, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leaders_proposals_hear_when_it_is_decided() {
    let one = Embedder::new(&[1, 2, 3], |_| {});
    one.lead(&[2]).await;
    let kept = propose(&one.node, "kept").await; // 2@1
    let lost = propose(&one.node, "lost").await; // 3@1
    let beyond = propose(&one.node, "beyond").await; // 4@1
    one.settle().await;
    // Another leader has the first of them, and puts its own in the place of the second.
    one.step(3, 2, append((2, 1), vec![entry(3, 2, "")], 0)).await;
    one.settle().await;
    assert!(!kept.is_finished() && !lost.is_finished() && !beyond.is_finished());
    one.step(3, 2, append((3, 2), Vec::new(), 3)).await;
    assert_eq!(soon(kept).await.unwrap(), Ok(at(2, 1)));
    for (call, place) in [(lost, 3), (beyond, 4)] {
        let superseded = ProposalError::Superseded { proposed: at(place, 1), committed: at(3, 2) };
        assert!(superseded.is_safe_to_retry());
        assert_eq!(soon(call).await.unwrap(), Err(superseded));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_covers_or_a_stop_cuts_off_is_unknown() {
    let one = Embedder::new(&[1, 2, 3], |_| {});
    one.lead(&[2]).await;
    let covered = propose(&one.node, "covered").await;
    one.settle().await;
    let snapshot = Box::new(snapshot(9, 2, &[1, 2, 3]));
    one.step(3, 2, Body::Snapshot { snapshot }).await;
    let unknown = ProposalError::Unknown { proposed: at(2, 1) };
    assert!(!unknown.is_safe_to_retry());
    assert_eq!(soon(covered).await.unwrap(), Err(unknown.clone()));

    let two = Embedder::new(&[1, 2], |_| {});
    two.lead(&[2]).await;
    let cut_off = propose(&two.node, "cut off").await;
    two.node.stop().await;
    assert_eq!(soon(cut_off).await.unwrap(), Err(unknown));
    let late = ProposalError::Refused(Error::Stopped);
    assert_eq!(two.node.propose_and_wait("late").await, Err(late));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_followed_or_taken_is_refused() {
    let limits = Limits { outcomes_max: 1, ..Limits::default() };
    let one = Embedder::with(&[1, 2], |config| config.max_uncommitted_entries_size = 4, limits);
    assert!(blocks(one.node.propose_and_wait("without a leader")).await);
    one.step(2, 1, heartbeat()).await;
    let not_leader = ProposalError::NotLeader { leader: Some(NodeId(2)) };
    assert_eq!(not_leader.to_string(), "not the leader; ask 2");
    assert_eq!(soon(one.node.propose_and_wait("x")).await, Err(not_leader));

    one.lead(&[2]).await;
    let waiting = propose(&one.node, "12345").await;
    let busy = ProposalError::Busy { outcomes_max: 1 };
    assert_eq!(soon(one.node.propose_and_wait("y")).await, Err(busy));
    // Who left makes room; then the engine itself refuses.
    waiting.abort();
    let _ = waiting.await;
    let refused = Error::ProposalDropped(DropReason::Uncommitted);
    let refused = Err(ProposalError::Refused(refused));
    assert_eq!(soon(one.node.propose_and_wait("z")).await, refused);
}

#[tokio::test(start_paused = true)]
async fn a_membership_change_is_committed_or_refused_with_a_reason() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    let learner = |id| ConfChange {
        change_type: ConfChangeType::AddLearnerNode,
        node_id: NodeId(id),
        ..ConfChange::default()
    };
    let node = one.node.clone();
    let added = tokio::spawn(async move { node.propose_conf_change_and_wait(learner(2)).await });
    tokio::task::yield_now().await;
    let refused = Error::ChangeRefused(ChangeRefusal::Unapplied);
    let refused = Err(ProposalError::Refused(refused));
    assert_eq!(soon(one.node.propose_conf_change_and_wait(learner(3))).await, refused);
    one.settle().await;
    assert_eq!(soon(added).await.unwrap(), Ok(at(2, 1)));
    assert_eq!(one.node.status().await.config.conf_state().learners, [NodeId(2)]);
}

/// Reads on `node`, and goes on without the answer.
async fn read(node: &Node) -> JoinHandle<Result<Index, ReadError>> {
    let node = node.clone();
    let asked = tokio::spawn(async move { node.read().await });
    tokio::task::yield_now().await;
    asked
}

fn read_context(ready: &Ready) -> bytes::Bytes {
    let context = ready.messages.iter().find_map(|message| match &message.body {
        Body::Heartbeat { context, .. } if !context.is_empty() => Some(context.clone()),
        _ => None,
    });
    context.expect("a heartbeat that asks for a read")
}

#[tokio::test(start_paused = true)]
async fn a_read_is_answered_once_a_quorum_confirms_the_leader() {
    let one = Embedder::new(&[1, 2, 3], |_| {});
    one.lead(&[2]).await;
    one.step(2, 1, Body::AppendReply { index: Index(1) }).await;
    one.settle().await;
    let asked = read(&one.node).await;
    let context = read_context(&one.turn().await);
    assert!(!asked.is_finished());
    one.step(2, 1, Body::HeartbeatReply { context }).await;
    // The application sees nothing of it: there is no Ready with the answer.
    assert!(blocks(one.node.ready()).await);
    assert_eq!(soon(asked).await.unwrap(), Ok(Index(1)));
}

#[tokio::test(start_paused = true)]
async fn a_followers_read_is_answered_by_its_leader() {
    let one = Embedder::new(&[1, 2], |_| {});
    assert_eq!(one.node.read().await, Err(ReadError::NoLeader));
    one.step(2, 1, heartbeat()).await;
    let asked = read(&one.node).await;
    let ready = one.turn().await;
    let question = ready.messages.iter().find_map(|message| match &message.body {
        Body::ReadIndex { entries } => Some(entries.clone()),
        _ => None,
    });
    let entries = question.expect("a question to the leader");
    one.step(2, 1, Body::ReadIndexReply { index: Index(7), entries }).await;
    assert!(blocks(one.node.ready()).await);
    assert_eq!(soon(asked).await.unwrap(), Ok(Index(7)));
}

#[tokio::test(start_paused = true)]
async fn a_read_hears_when_the_leader_changes_or_the_node_stops() {
    let limits = Limits { reads_max: 1, ..Limits::default() };
    let one = Embedder::with(&[1, 2, 3], |_| {}, limits);
    one.step(2, 1, heartbeat()).await;
    let asked = read(&one.node).await;
    assert_eq!(soon(one.node.read()).await, Err(ReadError::Busy { reads_max: 1 }));
    one.step(3, 2, heartbeat()).await;
    assert_eq!(soon(asked).await.unwrap(), Err(ReadError::LeaderChanged));
    let asked = read(&one.node).await;
    one.node.stop().await;
    assert_eq!(soon(asked).await.unwrap(), Err(ReadError::Ended(Error::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_given_up_is_not_answered_to_the_application() {
    let one = Embedder::new(&[1], |config| config.report_lost_reads = true);
    one.lead(&[]).await;
    let asked = read(&one.node).await;
    asked.abort();
    assert!(blocks(one.node.ready()).await);
    assert_eq!(soon(async { tokio::join!(one.node.read(), one.settle()).0 }).await, Ok(Index(1)));
}
