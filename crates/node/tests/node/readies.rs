//! What a Ready holds, and when the next one comes.

use std::time::Duration;

use quorate_node::{Limits, Node};
use quorate_raft::{
    Body, ConfChange, ConfChangeType, Entry, HardState, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD,
    MemoryStorage, Message, Peer, RawNode, Ready, Role, encode_conf_change,
};
use quorate_types::{Index, NodeId, Term};

use crate::embedder::{
    Embedder, NoLimit, append, blocks, config, data, entry, log_of, snapshot, soon, write,
};

fn hard_state(term: u64, vote: u64, commit: u64) -> Option<HardState> {
    Some(HardState { term: Term(term), vote: NodeId(vote), commit: Index(commit) })
}

/// A Ready without what people read.
fn work(ready: Ready) -> Ready {
    Ready { notes: Vec::new(), soft_state: None, ..ready }
}

#[tokio::test(start_paused = true)]
async fn a_first_start_up_to_a_committed_proposal() {
    let log = MemoryStorage::new();
    let node = Node::start(config(), log.clone(), &[Peer::new(1)]).unwrap();
    let one = Embedder { node, log };
    let change = ConfChange {
        change_type: ConfChangeType::AddNode,
        node_id: NodeId(1),
        ..ConfChange::default()
    };
    let (kind, data) = encode_conf_change(&change.into());
    let member = Entry { term: Term(1), index: Index(1), kind: Some(kind), data };
    let want = Ready {
        hard_state: hard_state(1, 0, 1),
        entries: vec![member.clone()].into(),
        committed_entries: vec![member].into(),
        must_sync: true,
        ..Ready::default()
    };
    assert_eq!(work(one.turn().await), want);

    one.node.campaign().await.unwrap();
    let vote = Ready { hard_state: hard_state(2, 1, 1), must_sync: true, ..Ready::default() };
    assert_eq!(work(one.turn().await), vote);
    let empty = Entry { term: Term(2), index: Index(2), ..Entry::default() };
    let office = Ready { entries: vec![empty.clone()].into(), must_sync: true, ..Ready::default() };
    assert_eq!(work(one.turn().await), office);

    one.node.propose("foo").await.unwrap();
    let foo = entry(3, 2, "foo");
    let want = Ready {
        hard_state: hard_state(2, 1, 2),
        entries: vec![foo.clone()].into(),
        committed_entries: vec![empty].into(),
        must_sync: true,
        ..Ready::default()
    };
    assert_eq!(work(one.turn().await), want);
    let want = Ready {
        hard_state: hard_state(2, 1, 3),
        committed_entries: vec![foo].into(),
        ..Ready::default()
    };
    assert_eq!(work(one.turn().await), want);
    assert!(blocks(one.node.ready()).await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_hands_out_what_is_committed_and_nothing_else() {
    for base in [0, 2] {
        let log = log_of(&[1]);
        if base > 0 {
            log.apply_snapshot(snapshot(base, 1, &[1, 2])).unwrap();
        }
        let entries = [entry(base + 1, 1, "x"), entry(base + 2, 1, "y")];
        log.append(&entries).unwrap();
        log.set_hard_state(hard_state(1, 0, base + 1).unwrap());
        let node = Node::restart(config(), log.clone()).unwrap();
        let one = Embedder { node, log };
        let want = Ready { committed_entries: vec![entries[0].clone()].into(), ..Ready::default() };
        assert_eq!(work(one.turn().await), want, "after {base}");
        assert!(blocks(one.node.ready()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_ready_comes_when_the_last_is_advanced() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    one.node.propose("x").await.unwrap();
    one.take().await;
    one.node.propose("y").await.unwrap();
    assert!(blocks(one.node.ready()).await);
    one.node.advance().await;
    assert_eq!(data(&one.take().await.entries), ["y"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_reported_applied_may_be_compacted() {
    for async_storage_writes in [false, true] {
        let one = Embedder::new(&[1, 2], |config| {
            config.async_storage_writes = async_storage_writes;
        });
        let entries = (1..=5).map(|index| entry(index, 1, "x")).collect();
        one.step(2, 1, append((0, 0), entries, 0)).await;
        let mut responses = Vec::new();
        for round in 0.. {
            if round == 1 {
                // Only now, when the engine has let go of its own copies.
                one.step(2, 1, append((5, 1), Vec::new(), 5)).await;
            }
            if one.node.status().await.basic.applied == Index(5) {
                break;
            }
            let ready = one.take().await;
            let count = ready.committed_entries.len();
            for message in ready.messages {
                match message.body {
                    Body::StorageAppend { responses, .. } => {
                        for response in responses.into_iter().filter(|it| it.to == NodeId(1)) {
                            one.node.step(response).await.unwrap();
                        }
                    }
                    Body::StorageApply { responses: applied, .. } => responses.extend(applied),
                    _ => {}
                }
            }
            if count > 0 {
                // Time enough to campaign, for which a node looks at all that is not applied.
                while one.node.tick() {}
                match async_storage_writes {
                    true => one.node.step(responses.remove(0)).await.unwrap(),
                    false => one.node.advance().await,
                }
                one.log.compact(Index(5)).unwrap();
            } else if !async_storage_writes {
                one.node.advance().await;
            }
        }
        assert_eq!(one.role().await, Role::Candidate, "asynchronous: {async_storage_writes}");
    }
}

#[tokio::test(start_paused = true)]
async fn advancing_without_a_ready_reports_nothing() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    one.node.advance().await;
    one.node.propose("x").await.unwrap();
    // A Ready is put together for somebody who leaves just before it comes.
    let node = one.node.clone();
    let leaver = tokio::spawn(async move { node.ready().await });
    leaver.abort();
    one.node.advance().await;
    one.node.advance().await;
    assert_eq!(data(&one.take().await.entries), ["x"]);
    assert!(one.node.status().await.basic.hard_state.commit < Index(2));
    one.node.advance().await;
    assert_eq!(data(&one.settle().await), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_ready_that_is_waited_for_in_vain_is_not_lost() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    let mut written = Vec::new();
    for round in 0..50 {
        // Everything up to the last moment before it would have been received.
        let node = one.node.clone();
        let impatient = tokio::spawn(async move { node.ready().await });
        one.node.propose(format!("{round}")).await.unwrap();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        impatient.abort();
        match impatient.await {
            Ok(ready) => {
                let ready = ready.unwrap();
                write(&one.log, &ready);
                written.extend(ready.entries);
                one.node.advance().await;
            }
            Err(_) => written.extend(one.turn().await.entries),
        }
    }
    let rest = tokio::time::timeout(Duration::from_secs(1), one.turn()).await;
    written.extend(rest.map(|ready| ready.entries).unwrap_or_default());
    let want: Vec<_> = (0..50).map(|round| format!("{round}")).collect();
    assert_eq!(data(&written), want);
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_gets_one_large_ready() {
    let one = Embedder::new(&[1], |_| {});
    one.lead(&[]).await;
    for data in ["a", "b", "c"] {
        one.node.propose(data).await.unwrap();
    }
    assert_eq!(data(&one.turn().await.entries), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn committed_entries_come_in_batches_below_the_limit() {
    let one = Embedder::new(&[1], |config| config.max_committed_size_per_ready = 2048);
    one.lead(&[]).await;
    for _ in 0..3 {
        one.node.propose(vec![b'a'; 1000]).await.unwrap();
    }
    let mut batches = Vec::new();
    assert_eq!(one.turn().await.entries.len(), 3);
    while let Ok(ready) = tokio::time::timeout(Duration::from_secs(1), one.turn()).await {
        batches.push(ready.committed_entries.len());
    }
    assert_eq!(batches, [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn with_asynchronous_writes_the_limit_spans_readies() {
    let one = Embedder::new(&[1], |config| {
        config.max_committed_size_per_ready = 2048;
        config.async_storage_writes = true;
    });
    let node = &one.node;
    /// What a Ready asks of the two threads: the first is done at once.
    async fn round(one: &Embedder) -> Option<(usize, Vec<Message>)> {
        let ready = soon(one.node.ready()).await.unwrap();
        let mut applies = None;
        for message in ready.messages {
            match message.body {
                Body::StorageAppend { hard_state, entries, responses, .. } => {
                    assert_eq!(message.to, LOCAL_APPEND_THREAD);
                    one.log.append(&entries).unwrap();
                    hard_state.into_iter().for_each(|state| one.log.set_hard_state(state));
                    for response in responses {
                        one.node.step(response).await.unwrap();
                    }
                }
                Body::StorageApply { entries, responses } => {
                    assert_eq!(message.to, LOCAL_APPLY_THREAD);
                    applies = Some((entries.len(), responses));
                }
                other => panic!("a single voter sends nothing: {other:?}"),
            }
        }
        applies
    }
    node.campaign().await.unwrap();
    let (count, responses) = loop {
        if let Some(applies) = round(&one).await {
            break applies;
        }
    };
    assert_eq!(count, 1); // the empty entry
    for response in responses {
        node.step(response).await.unwrap();
    }

    for _ in 0..3 {
        node.propose(vec![b'a'; 1000]).await.unwrap();
    }
    let mut handed = Vec::new();
    let mut acknowledgements = Vec::new();
    while let Ok(applies) = tokio::time::timeout(Duration::from_secs(1), round(&one)).await {
        if let Some((count, responses)) = applies {
            handed.push(count);
            acknowledgements.extend(responses);
        }
    }
    assert_eq!(handed, [2], "two are under way, and no more until they are acknowledged");
    for response in acknowledgements {
        node.step(response).await.unwrap();
    }
    let (count, _) = round(&one).await.expect("the third");
    assert_eq!(count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_overshoots_loses_and_repeats_nothing() {
    let log = log_of(&[1, 2]);
    let entries: Vec<_> = (1..=10).map(|index| entry(index, 1, "0123456789")).collect();
    log.append(&entries).unwrap();
    log.set_hard_state(hard_state(1, 0, 10).unwrap());
    let mut config = config();
    // One less than all of them, which the storage does not care about.
    config.max_size_per_msg = quorate_raft::encoded_size(&entries) - 1;
    let raw = RawNode::new(config, NoLimit(log.clone())).unwrap();
    let (node, task) = Node::new(raw, Limits::default());
    tokio::spawn(task.run());
    let one = Embedder { node, log };
    let committed = one.settle().await;
    assert_eq!(committed, entries);
    // The next append does not take the commit index back.
    one.step(2, 1, append((10, 1), vec![entry(11, 1, "x")], 11)).await;
    let ready = one.turn().await;
    assert_eq!(ready.hard_state, hard_state(1, 0, 11));
    assert_eq!(data(&ready.committed_entries), ["x"]);
}
