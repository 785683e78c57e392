//! A node that lost its log is not heard under its old id, nor one that was removed.

use std::collections::BTreeMap;

use quorate_net::{NetConfig, NetEvent, Refusal, RefusedBy};
use quorate_types::{Life, NodeId};

use crate::node::{Node, config, pattern, until};

fn living(id: u64, life: u64) -> NetConfig {
    NetConfig { life: Life(life), ..config(id) }
}

fn known(lives: &[(u64, u64)]) -> BTreeMap<NodeId, Life> {
    lives.iter().map(|(id, life)| (NodeId(*id), Life(*life))).collect()
}

async fn refused(node: &mut Node) -> (RefusedBy, Refusal, Option<NodeId>) {
    node.event("a refusal", |event| match event {
        NetEvent::Message { .. } => panic!("a message of a node that is not the known one"),
        NetEvent::Refused { by, reason, peer, .. } => Some((by, reason, peer)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_life_is_refused_whoever_dials_and_both_sides_say_so() {
    let mut a = Node::start(living(1, 77)).await;
    let mut b = Node::start(NetConfig { lives: known(&[(1, 76)]), ..living(2, 5) }).await;
    a.knows(&b);
    let _ = a.net.send(b.id, vec![pattern(0, 10)]);
    assert_eq!(refused(&mut b).await, (RefusedBy::Us, Refusal::OtherLife, Some(a.id)));
    assert_eq!(refused(&mut a).await, (RefusedBy::Peer, Refusal::OtherLife, Some(b.id)));

    a.net.remove_peer(b.id);
    b.knows(&a);
    let _ = b.net.send(a.id, vec![pattern(0, 10)]);
    b.unreachable().await;
    assert!(b.status(a.id).connected_since.is_none());
    while let Ok(event) = a.events.try_recv() {
        assert!(!matches!(event, NetEvent::Message { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_is_known_or_not_known_yet_is_let_in() {
    for lives in [known(&[]), known(&[(1, 77)]), known(&[(3, 1)])] {
        let a = Node::start(living(1, 77)).await;
        let mut b = Node::start(NetConfig { lives, ..living(2, 5) }).await;
        a.knows(&b);
        a.gets_through_to(&mut b, "hello").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_learnt_ends_the_connections_that_contradict_it() {
    let mut a = Node::start(living(1, 77)).await;
    let mut b = Node::start(living(2, 5)).await;
    a.knows(&b);
    b.knows(&a);
    a.gets_through_to(&mut b, "before").await;
    b.connected_to(a.id).await;

    b.net.set_lives(known(&[(1, 77)]));
    a.gets_through_to(&mut b, "the same life").await;

    b.net.set_lives(known(&[(1, 76)]));
    until("the end of its connection", || b.status(a.id).connected_since.is_none()).await;
    a.event("a refusal", |event| match event {
        NetEvent::Refused { by: RefusedBy::Peer, reason: Refusal::OtherLife, .. } => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_is_told_so_and_not_heard() {
    let mut a = Node::start(config(1)).await;
    let mut b = Node::start(config(2)).await;
    a.knows(&b);
    a.gets_through_to(&mut b, "before").await;
    b.net.set_removed([NodeId(3)].into());
    a.gets_through_to(&mut b, "another was removed").await;

    b.net.set_removed([NodeId(1), NodeId(3)].into());
    a.event("a refusal", |event| match event {
        NetEvent::Refused { by: RefusedBy::Peer, reason: Refusal::Removed, .. } => Some(()),
        _ => None,
    })
    .await;

    // From the start, and before anything of it is heard.
    let removed = [NodeId(1)].into();
    let mut c = Node::start(NetConfig { removed, ..config(4) }).await;
    a.knows(&c);
    let _ = a.net.send(c.id, vec![pattern(0, 10)]);
    assert_eq!(refused(&mut c).await, (RefusedBy::Us, Refusal::Removed, Some(a.id)));
}
