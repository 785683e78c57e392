//! Every task ends: in bounded time, in any state.
//!
//! That all have ended shows in the channel of events: each task keeps it open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_net::{Net, NetConfig, NetEvent, SnapshotSource};
use quorate_types::NodeId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::node::{DEADLINE, Node, config, pattern};
use crate::wire::{self, Hello};

/// Shuts down, and checks that nothing is left that could report an event.
async fn ends(net: Net, mut events: mpsc::Receiver<NetEvent>) {
    timeout(DEADLINE, net.shutdown()).await.expect("shutdown ends");
    let draining = async { while events.recv().await.is_some() {} };
    timeout(DEADLINE, draining).await.expect("a task is left");
}

struct Endless;

impl SnapshotSource for Endless {
    fn read(&mut self, max: usize) -> io::Result<Bytes> {
        Ok(pattern(0, max.min(64 << 10)))
    }
}

fn short(id: u64) -> NetConfig {
    NetConfig { linger_ms_max: 50, queue_bytes_max: 16 << 20, ..config(id) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h136_shutdown_under_load() {
    for round in 0..20 {
        let (a, b) = (Node::start(short(1)).await, Node::start(short(2)).await);
        a.knows(&b);
        b.knows(&a);
        // A peer that never reads, one that never says hello, and one that is not there.
        let (listener, stuck) = wire::listen().await;
        let (_silent, silent) = wire::listen().await;
        a.net.set_peer(NodeId(3), vec![stuck.to_string()]);
        a.net.set_peer(NodeId(4), vec![silent.to_string()]);
        a.net.set_peer(NodeId(5), vec!["127.0.0.1:1".into()]);
        let mut stream = wire::accept(&listener).await;
        let hello = Hello::new(3, 1).opening();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &hello).await.expect("it reads");
        // Strangers at our own port.
        let _waiting = wire::connect(a.address).await;
        let _member = wire::greeted(a.address, Hello::new(6, 1)).await;

        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = [(a.net.clone(), 2), (a.net.clone(), 3), (b.net.clone(), 1)]
            .into_iter()
            .map(|(net, to)| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let payload = pattern(to, 2_000);
                    while !stop.load(Ordering::Relaxed) {
                        if net.send(NodeId(to), vec![payload.clone()]).is_err() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for to in [2, 4, 5] {
            let _ = a.net.send_snapshot(NodeId(to), Bytes::new(), Box::new(Endless));
        }
        // In different states from round to round; nobody reads the events all the while.
        tokio::time::sleep(std::time::Duration::from_millis(round * 3)).await;
        let stopping = async {
            tokio::join!(
                async { timeout(DEADLINE, a.net.clone().shutdown()).await.expect("it ends") },
                async { timeout(DEADLINE, b.net.clone().shutdown()).await.expect("it ends") },
            )
        };
        stopping.await;
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no panic");
        }
        ends(a.net, a.events).await;
        ends(b.net, b.events).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h136_start_and_stop_again_and_again() {
    let b = Node::start(short(2)).await;
    for _ in 0..200 {
        let a = Node::start(short(1)).await;
        a.knows(&b);
        b.knows(&a);
        let _ = a.net.send(b.id, vec![pattern(0, 100)]);
        let _ = b.net.send(a.id, vec![pattern(0, 100)]);
        a.net.remove_peer(b.id);
        a.knows(&b);
        ends(a.net, a.events).await;
    }
    ends(b.net, b.events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_ends_all_tasks() {
    let (a, b) = (Node::start(short(1)).await, Node::start(short(2)).await);
    a.knows(&b);
    a.connected_to(b.id).await;
    let mut events = a.events;
    drop(a.net);
    let draining = async { while events.recv().await.is_some() {} };
    timeout(DEADLINE, draining).await.expect("a task is left");
    ends(b.net, b.events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_events_that_is_gone_stops_nothing() {
    let (mut a, b) = (Node::start(short(1)).await, Node::start(short(2)).await);
    a.knows(&b);
    a.connected_to(b.id).await;
    drop(b.events);
    // The connection ends, since nobody reads what it brings.
    crate::node::until("an end", || {
        let _ = a.net.send(NodeId(2), vec![pattern(0, 10)]);
        matches!(a.events.try_recv(), Ok(NetEvent::Unreachable { .. }))
    })
    .await;
    timeout(DEADLINE, b.net.shutdown()).await.expect("shutdown ends");
    ends(a.net, a.events).await;
}
