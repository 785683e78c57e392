//! Messages between transports that both behave.

use bytes::Bytes;
use quorate_net::{NetConfig, NetEvent, SendError};
use quorate_types::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::node::{DEADLINE, Node, config, pattern, until};
use crate::wire::{self, Hello};

async fn pair() -> (Node, Node) {
    let (a, b) = (Node::start(config(1)).await, Node::start(config(2)).await);
    a.knows(&b);
    b.knows(&a);
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_whole_and_in_order_both_ways() {
    let (mut a, mut b) = pair().await;
    let lengths = [0, 1, 100, 4_096, 4_097, 65_535, 65_536, 1 << 20, 3, 5 << 20, 0, 7];
    for (seed, length) in lengths.into_iter().enumerate() {
        a.send(b.id, pattern(seed as u64, length)).await;
        b.send(a.id, pattern(!(seed as u64), length)).await;
    }
    for (seed, length) in lengths.into_iter().enumerate() {
        let (from, payload) = b.message().await;
        assert!((from, payload) == (a.id, pattern(seed as u64, length)), "{length} bytes");
        let (from, payload) = a.message().await;
        assert!((from, payload) == (b.id, pattern(!(seed as u64), length)), "{length} bytes");
    }
    until("answers to pings", || a.status(b.id).rtt.is_some()).await;
    let (there, here) = (a.status(b.id), b.status(a.id));
    assert_eq!(there.sent_messages, lengths.len() as u64);
    assert_eq!(there.sent_bytes, lengths.iter().sum::<usize>() as u64);
    assert_eq!(here.received_messages, there.sent_messages);
    assert_eq!(here.received_bytes, there.sent_bytes);
    assert_eq!((there.queue_bytes, there.queue_count, there.dropped_messages), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_arrive_as_one_message() {
    let (a, mut b) = pair().await;
    let parts =
        vec![pattern(1, 10), Bytes::new(), pattern(2, 100_000), pattern(3, 5), pattern(4, 9_000)];
    let want = parts.concat();
    a.net.send(b.id, parts).expect("there is room");
    assert!(b.message().await.1 == want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_messages_keep_their_order() {
    const COUNT: u64 = 50_000;
    let (a, mut b) = pair().await;
    let sending = async {
        for number in 0..COUNT {
            a.send(NodeId(2), number.to_le_bytes().to_vec()).await;
        }
    };
    let receiving = async {
        for number in 0..COUNT {
            assert_eq!(b.message().await.1[..], number.to_le_bytes());
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sending_works_from_any_thread() {
    let (a, mut b) = pair().await;
    let (net, to) = (a.net.clone(), b.id);
    std::thread::spawn(move || net.send(to, vec![Bytes::from_static(b"from a plain thread")]))
        .join()
        .expect("no panic")
        .expect("there is room");
    assert_eq!(b.message().await.1, "from a plain thread");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_found_again() {
    let (mut a, b) = pair().await;
    a.connected_to(b.id).await;
    let address = b.address;
    drop(b.events);
    b.net.shutdown().await;
    assert_eq!(a.unreachable().await, NodeId(2));
    assert_eq!(a.absent().await, NodeId(2), "and once more for the attempt that failed");

    let mut again = Node::start_at(NetConfig { incarnation: 1, ..config(2) }, address).await;
    again.knows(&a);
    a.gets_through_to(&mut again, "welcome back").await;
    again.gets_through_to(&mut a, "here I am").await;
    until("the new start", || a.status(NodeId(2)).incarnation == Some(1)).await;
}

/// Others may wait for that, and know it only from an attempt to connect again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_peer_is_gone_is_known_as_soon_as_its_connection_ends() {
    let hour_ms = 3_600_000;
    let slow = NetConfig { backoff_min_ms: hour_ms, backoff_max_ms: hour_ms, ..config(1) };
    let mut a = Node::start(slow).await;
    let (listener, address) = wire::listen().await;
    a.net.set_peer(NodeId(3), vec![address.to_string()]);
    let mut stream = wire::accept(&listener).await;
    stream.write_all(&Hello::new(3, 1).opening()).await.expect("it reads");
    for _ in 0..3 {
        let (kind, token) = wire::next(&mut stream).await;
        assert_eq!(kind, wire::PING);
        stream.write_all(&wire::frame(wire::PONG, &token)).await.expect("it reads");
    }
    drop((listener, stream));
    assert_eq!(a.absent().await, NodeId(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h132_a_peer_that_moves_is_followed() {
    let (a, b) = pair().await;
    a.connected_to(b.id).await;
    let since = a.status(b.id).connected_since;
    a.net.set_peer(b.id, vec![format!(" {}", b.address)]);
    let mut moved = Node::start(config(2)).await;
    assert_eq!(a.status(b.id).connected_since, since, "another spelling is no move");

    // The old address still answers; the new list counts, its first entry leading nowhere.
    let nowhere = "name.invalid:1".to_owned();
    a.net.set_peer(b.id, vec![nowhere, moved.address.to_string()]);
    a.gets_through_to(&mut moved, "at the new place").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_send() {
    let a = Node::start(NetConfig { frame_bytes_max: 1 << 10, ..config(1) }).await;
    let b = Node::start(config(2)).await;
    let send = |to, bytes| a.net.send(to, vec![pattern(0, bytes)]);
    assert_eq!(send(b.id, 1), Err(SendError::UnknownPeer { to: b.id }));
    a.knows(&b);
    for (bytes, want) in [
        (1_023, Ok(())),
        (1_024, Ok(())),
        (1_025, Err(SendError::TooLarge { bytes: 1_025, bytes_max: 1_024 })),
    ] {
        assert_eq!(send(b.id, bytes), want, "{bytes}");
    }
    a.knows(&a);
    assert_eq!(send(a.id, 1), Err(SendError::UnknownPeer { to: a.id }), "no peer of itself");
    a.net.remove_peer(b.id);
    assert_eq!(send(b.id, 1), Err(SendError::UnknownPeer { to: b.id }));
    a.net.clone().shutdown().await;
    assert_eq!(send(b.id, 1), Err(SendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_goes_out_before_a_peer_is_forgotten_and_before_the_end() {
    for by_shutdown in [false, true] {
        let (a, mut b) = pair().await;
        a.connected_to(b.id).await;
        let want: Vec<Bytes> = (0..100).map(|seed| pattern(seed, 10_000)).collect();
        for payload in &want {
            a.net.send(b.id, vec![payload.clone()]).expect("there is room");
        }
        if by_shutdown {
            a.net.clone().shutdown().await;
        } else {
            a.net.remove_peer(b.id);
        }
        for payload in want {
            assert!(b.message().await.1 == payload);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_still_gets_what_was_queued_before_the_end() {
    const COUNT: u8 = 16;
    for by_shutdown in [false, true] {
        let a = Node::start(config(1)).await;
        let (mut stream, peer) = dialed_by(&a, 3).await;
        // More than the sockets hold.
        for seed in 0..COUNT {
            a.net.send(peer, vec![pattern(u64::from(seed), 1 << 20)]).expect("there is room");
        }
        let net = a.net.clone();
        let ending = tokio::spawn(async move {
            if by_shutdown {
                net.shutdown().await;
            } else {
                net.remove_peer(peer);
            }
        });
        if by_shutdown {
            let closed = || a.net.send(peer, vec![]) == Err(SendError::Closed);
            until("the shutdown", closed).await;
        } else {
            ending.await.expect("no panic");
        }
        let mut seed = 0;
        while seed < COUNT {
            let (kind, payload) = wire::next(&mut stream).await;
            if kind == wire::MESSAGE {
                assert!(payload == pattern(u64::from(seed), 1 << 20), "{seed}");
                seed += 1;
            }
        }
    }
}

/// A peer written by hand that has said hello and does nothing further by itself.
async fn dialed_by(node: &Node, id: u64) -> (TcpStream, NodeId) {
    let (listener, address) = wire::listen().await;
    node.net.set_peer(NodeId(id), vec![address.to_string()]);
    let mut stream = wire::accept(&listener).await;
    stream.write_all(&Hello::new(id, node.id.0).opening()).await.expect("it reads");
    node.connected_to(NodeId(id)).await;
    (stream, NodeId(id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h131_what_was_queued_before_the_limit_was_known_is_dropped() {
    let mut a = Node::start(config(1)).await;
    let (listener, address) = wire::listen().await;
    a.net.set_peer(NodeId(3), vec![address.to_string()]);
    let mut stream = wire::accept(&listener).await;
    // By our own limit this fits; the hello will say 1 MiB.
    for bytes in [2 << 20, (1 << 20) + 1, 1 << 20, 7] {
        a.net.send(NodeId(3), vec![pattern(0, bytes)]).expect("there is room");
    }
    stream.write_all(&Hello::new(3, 1).opening()).await.expect("it reads");
    for want in [1 << 20, 7] {
        let length = loop {
            let (kind, payload) = wire::next(&mut stream).await;
            if kind == wire::MESSAGE {
                break payload.len();
            }
        };
        assert_eq!(length, want);
    }
    until("both counted", || a.status(NodeId(3)).dropped_messages == 2).await;
    assert_eq!(a.unreachable().await, NodeId(3), "and told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h131_the_limit_of_the_receiver_is_kept() {
    let mut b = Node::start(NetConfig { frame_bytes_max: 1 << 10, ..config(2) }).await;
    let a = Node::start(config(1)).await;
    a.knows(&b);
    // Perhaps queued before the limit is known; never sent.
    let _ = a.net.send(b.id, vec![pattern(0, 2_000)]);
    a.gets_through_to(&mut b, "hello").await;
    let since = a.status(b.id).connected_since;
    assert!(since.is_some());
    for (bytes, want) in [
        (1_024, Ok(())),
        (1_025, Err(SendError::TooLarge { bytes: 1_025, bytes_max: 1_024 })),
        (1_024_000, Err(SendError::TooLarge { bytes: 1_024_000, bytes_max: 1_024 })),
    ] {
        assert_eq!(a.net.send(b.id, vec![pattern(bytes, bytes as usize)]), want, "{bytes}");
    }
    b.event("the longest", |event| match event {
        NetEvent::Message { payload, .. } => (payload == pattern(1_024, 1_024)).then_some(()),
        _ => None,
    })
    .await;
    assert_eq!(a.status(b.id).connected_since, since, "no frame cost the connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h125_a_peer_that_never_reads_costs_one_queue_and_nobody_else() {
    let limits = NetConfig {
        queue_bytes_max: 4 << 20,
        queue_count_max: 500,
        frame_bytes_max: 1 << 20,
        ..config(1)
    };
    let mut a = Node::start(limits.clone()).await;
    let mut b = Node::start(config(2)).await;
    a.knows(&b);
    let (stream, stuck) = dialed_by(&a, 3).await;

    let big = pattern(0, 100_000);
    let filled = async {
        let mut refused = 0;
        while refused < 1_000 {
            match a.net.send(stuck, vec![big.clone()]) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error, SendError::Full { to: stuck });
                    refused += 1;
                }
            }
            let status = a.status(stuck);
            assert!(status.queue_bytes <= limits.queue_bytes_max);
            assert!(status.queue_count <= limits.queue_count_max);
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, filled).await.expect("the queue is full in time");
    assert!(1_000 <= a.status(stuck).dropped_messages);
    for number in 0..1_000u32 {
        a.send(b.id, number.to_le_bytes().to_vec()).await;
    }
    for number in 0..1_000u32 {
        assert_eq!(b.message().await.1[..], number.to_le_bytes());
    }
    // A word each time it became full, not a thousand.
    let mut words = 0;
    while let Ok(event) = a.events.try_recv() {
        words += u32::from(matches!(event, NetEvent::Unreachable { to, .. } if to == stuck));
    }
    assert!((1..100).contains(&words), "{words}");
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pauses_loses_nothing() {
    let (a, mut b) = pair().await;
    // More than the inbox holds, less than the queue and the sockets do.
    for number in 0..3_000u32 {
        a.send(b.id, number.to_le_bytes().to_vec()).await;
    }
    until("a full inbox", || b.events.capacity() == 0).await;
    for number in 0..3_000u32 {
        assert_eq!(b.message().await.1[..], number.to_le_bytes());
    }
}
