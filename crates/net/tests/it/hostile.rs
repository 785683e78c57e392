//! Strangers, broken peers and broken lines.

use quorate_net::{NetConfig, NetEvent, Refusal, RefusedBy};
use quorate_types::NodeId;
use tokio::io::AsyncWriteExt;

use crate::node::{Node, config, pattern, until};
use crate::proxy::{Harm, Proxy};
use crate::wire::{self, Hello, frame, greeted};

async fn refused(node: &mut Node) -> (RefusedBy, Refusal, Option<NodeId>) {
    node.event("a refusal", |event| match event {
        NetEvent::Refused { by, reason, peer, .. } => Some((by, reason, peer)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused_and_both_sides_say_so() {
    let mut a = Node::start(config(1)).await;
    let mut b = Node::start(NetConfig { cluster: 0xbad, ..config(2) }).await;
    a.knows(&b);
    let _ = a.net.send(b.id, vec![pattern(0, 10)]);
    let by_us = (RefusedBy::Us, Refusal::WrongCluster, Some(a.id));
    assert_eq!(refused(&mut b).await, by_us);
    let by_peer = (RefusedBy::Peer, Refusal::WrongCluster, Some(b.id));
    assert_eq!(refused(&mut a).await, by_peer);
    assert_eq!(a.unreachable().await, b.id);
    while let Ok(event) = b.events.try_recv() {
        assert!(!matches!(event, NetEvent::Message { .. }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h129_a_wrong_address_reaches_nobody() {
    let mut a = Node::start(config(1)).await;
    let mut b = Node::start(config(2)).await;
    // Node 3 is said to live where node 2 does.
    a.net.set_peer(NodeId(3), vec![b.address.to_string()]);
    let _ = a.net.send(NodeId(3), vec![pattern(0, 10)]);
    assert_eq!(refused(&mut b).await, (RefusedBy::Us, Refusal::WrongReceiver, Some(a.id)));
    let by_peer = (RefusedBy::Peer, Refusal::WrongReceiver, Some(NodeId(3)));
    assert_eq!(refused(&mut a).await, by_peer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h129_an_answer_from_the_wrong_node_is_refused() {
    for (answer, want) in [
        (Hello::new(4, 1), Refusal::WrongReceiver),
        (Hello::new(3, 9), Refusal::WrongReceiver),
        (Hello::new(1, 1), Refusal::WrongSender),
        (Hello { cluster: 5, ..Hello::new(3, 1) }, Refusal::WrongCluster),
        (Hello { versions: (7, 9), ..Hello::new(3, 1) }, Refusal::WrongVersion),
    ] {
        let mut a = Node::start(config(1)).await;
        let (listener, address) = wire::listen().await;
        a.net.set_peer(NodeId(3), vec![address.to_string()]);
        let mut stream = wire::accept(&listener).await;
        stream.write_all(&answer.opening()).await.expect("it reads");
        assert_eq!(refused(&mut a).await, (RefusedBy::Us, want, Some(NodeId(3))));
        wire::closed(&mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_are_answered_with_the_reason() {
    for (hello, want) in [
        (Hello::new(1, 2), None),
        (Hello { versions: (0, 99), ..Hello::new(1, 2) }, None),
        (Hello { purpose: wire::FOR_A_SNAPSHOT, ..Hello::new(1, 2) }, None),
        (Hello { cluster: 5, ..Hello::new(1, 2) }, Some((1, Refusal::WrongCluster))),
        (Hello::new(1, 3), Some((2, Refusal::WrongReceiver))),
        (Hello::new(0, 2), Some((3, Refusal::WrongSender))),
        (Hello::new(2, 2), Some((3, Refusal::WrongSender))),
        (Hello { versions: (3, 9), ..Hello::new(1, 2) }, Some((4, Refusal::WrongVersion))),
        (Hello { purpose: 9, ..Hello::new(1, 2) }, Some((7, Refusal::BadHello))),
    ] {
        let mut b = Node::start(config(2)).await;
        let mut stream = wire::connect(b.address).await;
        stream.write_all(&hello.opening()).await.expect("it reads");
        let (kind, payload) = wire::opening(&mut stream).await;
        match want {
            None => assert_eq!(kind, wire::HELLO),
            Some((code, reason)) => {
                assert_eq!((kind, &payload[..]), (wire::REFUSED, &[code, 0][..]), "{reason}");
                assert_eq!(refused(&mut b).await.1, reason);
                wire::closed(&mut stream).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_closed_at_once_and_peers_still_served() {
    let mut tls = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    tls.extend_from_slice(&pattern(1, 500));
    for (bytes, want) in [
        (&b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"[..], Some(Refusal::Http)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Refusal::Http)),
        (&tls, Some(Refusal::Tls)),
        (&[0xd1; 4_000], Some(Refusal::Garbage)),
        (&[0; 100], Some(Refusal::Garbage)),
        (&[], None), // connects and leaves, as port scanners do
    ] {
        let mut a = Node::start(config(1)).await;
        let mut b = Node::start(config(2)).await;
        let mut stream = wire::connect(b.address).await;
        stream.write_all(bytes).await.expect("it reads");
        match want {
            Some(reason) => {
                assert_eq!(refused(&mut b).await, (RefusedBy::Us, reason, None));
                wire::closed(&mut stream).await;
            }
            None => drop(stream),
        }
        a.knows(&b);
        a.gets_through_to(&mut b, "still here").await;
        until("no stranger left", || b.net.inbound().pending_hellos == 0).await;
        while let Ok(event) = a.events.try_recv() {
            assert!(!matches!(event, NetEvent::Refused { .. }), "{event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h164_who_never_says_hello_is_closed_in_time() {
    let mut b = Node::start(NetConfig { hello_timeout_ms: 100, ..config(2) }).await;
    let silent = Hello::new(1, 2).opening();
    for count in [0, 1, 8, 20] {
        let mut stream = wire::connect(b.address).await;
        stream.write_all(&silent[..count]).await.expect("it reads");
        wire::closed(&mut stream).await;
    }
    let (by, reason, peer) = refused(&mut b).await;
    assert_eq!((by, reason, peer), (RefusedBy::Us, Refusal::Silent, None));
    until("all four counted", || b.net.inbound().refused == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h164_a_crowd_that_never_says_hello_keeps_no_peer_out() {
    let mut a = Node::start(config(1)).await;
    let mut b = Node::start(NetConfig { pending_hellos_max: 16, ..config(2) }).await;
    let mut crowd = Vec::new();
    for number in 0..300 {
        let mut stream = wire::connect(b.address).await;
        if number % 2 == 0 {
            stream.write_all(&wire::MAGIC[..1]).await.expect("it reads");
        }
        crowd.push(stream);
        assert!(b.net.inbound().pending_hellos <= 16);
    }
    a.knows(&b);
    a.gets_through_to(&mut b, "through the crowd").await;
    assert!(b.net.inbound().pending_hellos <= 16);
    b.knows(&a);
    b.gets_through_to(&mut a, "and back").await;
    drop(crowd);
    until("the crowd is gone", || b.net.inbound().pending_hellos == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h165_connections_are_bounded_and_a_peer_may_replace_its_own() {
    let mut b = Node::start(NetConfig { inbound_connections_max: 1, ..config(2) }).await;
    let mut first = greeted(b.address, Hello::new(1, 2)).await;
    // Another sender finds no seat ...
    let mut other = wire::connect(b.address).await;
    other.write_all(&Hello::new(3, 2).opening()).await.expect("it reads");
    assert_eq!(wire::opening(&mut other).await, (wire::REFUSED, vec![6, 0]));
    assert_eq!(refused(&mut b).await, (RefusedBy::Us, Refusal::Busy, Some(NodeId(3))));
    // ... but the same one gets that of its older connection, as often as it likes.
    for number in 0..20u8 {
        let mut next = greeted(b.address, Hello::new(1, 2)).await;
        wire::closed(&mut first).await;
        next.write_all(&frame(wire::MESSAGE, &[number])).await.expect("it reads");
        let (from, payload) = b.message().await;
        assert_eq!((from, &payload[..]), (NodeId(1), &[number][..]));
        assert_eq!(b.net.inbound().connections, 1);
        first = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h129_an_earlier_start_is_refused_while_a_later_one_is_connected() {
    let b = Node::start(config(2)).await;
    let start = |incarnation| Hello { incarnation, ..Hello::new(1, 2) };
    let later = greeted(b.address, start(5)).await;
    for hello in [start(4), Hello { purpose: wire::FOR_A_SNAPSHOT, ..start(4) }] {
        let mut earlier = wire::connect(b.address).await;
        earlier.write_all(&hello.opening()).await.expect("it reads");
        assert_eq!(wire::opening(&mut earlier).await, (wire::REFUSED, vec![5, 0]));
    }
    let mut latest = greeted(b.address, start(6)).await;
    let mut later = later;
    wire::closed(&mut later).await;
    // The latest is untouched by all that.
    latest.write_all(&frame(wire::PING, &[9; 8])).await.expect("it reads");
    assert_eq!(wire::next(&mut latest).await, (wire::PONG, vec![9; 8]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h166_frames_that_do_not_belong_end_the_connection() {
    let limit = 1 << 10;
    let mut b = Node::start(NetConfig { frame_bytes_max: limit, ..config(2) }).await;
    let mut long = frame(wire::MESSAGE, &[0; 8]);
    long[4..8].copy_from_slice(&(limit + 1).to_le_bytes());
    let mut longest = long.clone();
    longest[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut damaged = frame(wire::MESSAGE, b"damaged");
    damaged[12] ^= 0x10;
    let good = frame(wire::MESSAGE, b"good");
    for bytes in [
        long,
        longest,
        damaged,
        frame(wire::MESSAGE, &vec![0; limit as usize + 1]),
        frame(0, b""),
        frame(77, b"unknown"),
        frame(wire::HELLO, &Hello::new(1, 2).payload()),
        frame(wire::REFUSED, &[1, 0]),
        frame(wire::PONG, &[0; 8]),
        frame(wire::PING, &[0; 7]),
        frame(wire::SNAPSHOT_BEGIN, b""),
        frame(wire::SNAPSHOT_CHUNK, &[0; 20]),
        frame(wire::SNAPSHOT_END, &[0; 12]),
        frame(wire::SNAPSHOT_REPLY, &[0; 2]),
    ] {
        let mut stream = greeted(b.address, Hello::new(1, 2)).await;
        stream.write_all(&[&good[..], &bytes, &good].concat()).await.expect("it reads");
        wire::closed(&mut stream).await;
        assert_eq!(b.message().await.1, "good", "what came before was right");
        until("its end", || b.net.inbound().connections == 0).await;
        while let Ok(event) = b.events.try_recv() {
            assert!(!matches!(event, NetEvent::Message { .. }), "{event:?} after {bytes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h166_answers_that_do_not_belong_end_the_connection() {
    let mut a = Node::start(config(1)).await;
    let (listener, address) = wire::listen().await;
    a.net.set_peer(NodeId(3), vec![address.to_string()]);
    for bytes in [
        frame(wire::MESSAGE, b"not on this connection"),
        frame(wire::PONG, &[1]),
        frame(wire::PING, &[0; 8]),
        frame(77, b""),
        frame(wire::PONG, &[0; 300]),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ] {
        let mut stream = wire::accept(&listener).await;
        stream.write_all(&Hello::new(3, 1).opening()).await.expect("it reads");
        // Tokens that were never given out are no reason to end, nor to believe them.
        stream.write_all(&frame(wire::PONG, &[0xff; 8])).await.expect("it reads");
        stream.write_all(&bytes).await.expect("it reads");
        wire::closed(&mut stream).await;
        assert_eq!(a.unreachable().await, NodeId(3));
    }
    while let Ok(event) = a.events.try_recv() {
        assert!(!matches!(event, NetEvent::Message { .. }), "{event:?}");
    }
}

/// Frames of every kind, half of them damaged, in any order, from a peer whose hello is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h166_no_sequence_of_frames_harms_a_node() {
    let small = NetConfig { frame_bytes_max: 1 << 10, linger_ms_max: 20, ..config(2) };
    let b = Node::start(small).await;
    let (address, mut events) = (b.address, b.events);
    let reading = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                NetEvent::Message { payload, .. } if payload == "done" => return,
                NetEvent::Snapshot { mut stream, .. } => {
                    while let Ok(Some(_)) = stream.next_chunk().await {}
                }
                _ => {}
            }
        }
    });
    let mut random = pattern(42, 1 << 20).into_iter();
    let mut draw = move |below: usize| {
        let [low, high] = [0, 1].map(|_| random.next().expect("enough for the test"));
        usize::from(u16::from_le_bytes([low, high])) % below
    };
    for _ in 0..300 {
        let purpose = [wire::FOR_MESSAGES, wire::FOR_A_SNAPSHOT][draw(2)];
        let mut stream = greeted(address, Hello { purpose, ..Hello::new(1, 2) }).await;
        let mut bytes = match purpose {
            wire::FOR_A_SNAPSHOT if draw(4) != 0 => frame(wire::SNAPSHOT_BEGIN, b"head"),
            _ => Vec::new(),
        };
        for _ in 0..draw(12) {
            let payload = pattern(draw(1_000) as u64, [0, 2, 8, 9, 12, 100, 1_024][draw(7)]);
            let start = bytes.len();
            bytes.extend_from_slice(&frame(draw(11) as u8, &payload));
            match draw(8) {
                0 => bytes.truncate(start + draw(9)),
                1 => {
                    let at = start + draw(bytes.len() - start);
                    bytes[at] ^= 1 << draw(8);
                }
                _ => {}
            }
        }
        // It may close before it has read all.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        wire::closed(&mut stream).await;
    }
    let mut stream = greeted(address, Hello::new(1, 2)).await;
    stream.write_all(&frame(wire::MESSAGE, b"done")).await.expect("it reads");
    tokio::time::timeout(crate::node::DEADLINE, reading)
        .await
        .expect("it serves")
        .expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h130_a_flipped_bit_ends_the_connection_and_changes_nothing() {
    // Opening: magic 0..8, frame header 8..17, hello 17..77. Then a ping of 17 bytes and messages.
    for (at_byte, bit) in [
        (0, 3),
        (7, 0),
        (9, 7),  // checksum of the hello
        (12, 0), // its length
        (16, 1), // its kind
        (25, 0), // its cluster
        (78, 0), // checksum of a frame
        (82, 6), // its length
        (83, 1), // its length, by a lot
        (84, 0), // far beyond the limit
        (86, 2), // its kind
        (98, 5), // somewhere behind
        (109, 1),
        (150, 0),
        (1_000, 4),
        (3_000, 7),
    ] {
        // A length that grew is noticed by silence.
        let quick = NetConfig { silence_ms_max: 400, hello_timeout_ms: 400, ..config(1) };
        let mut a = Node::start(quick).await;
        let mut b = Node::start(config(2)).await;
        let proxy =
            Proxy::start(b.address, wire::FOR_MESSAGES, Harm::FlipBit { at_byte, bit }).await;
        a.net.set_peer(b.id, vec![proxy.address.to_string()]);
        for number in 0..200u64 {
            let _ = a.net.send(b.id, vec![pattern(number, 20)]);
        }
        assert_eq!(a.unreachable().await, b.id, "byte {at_byte}");
        let mut messages = 0;
        while let Ok(event) = b.events.try_recv() {
            if let NetEvent::Message { payload, .. } = event {
                assert_eq!(payload, pattern(messages, 20), "byte {at_byte}, bit {bit}");
                messages += 1;
            }
        }
        a.gets_through_to(&mut b, "on a good line").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h126_a_line_that_goes_dead_without_a_word_is_replaced() {
    let mut a = Node::start(NetConfig { silence_ms_max: 500, ..config(1) }).await;
    let mut b = Node::start(NetConfig { silence_ms_max: 500, ..config(2) }).await;
    let mut c = Node::start(config(3)).await;
    let proxy = Proxy::start(b.address, wire::FOR_MESSAGES, Harm::Freeze).await;
    a.net.set_peer(b.id, vec![proxy.address.to_string()]);
    a.knows(&c);
    a.gets_through_to(&mut b, "before").await;
    proxy.freeze();
    assert_eq!(a.unreachable().await, b.id);
    a.gets_through_to(&mut b, "after").await;
    assert!(2 <= proxy.connections());
    a.gets_through_to(&mut c, "unharmed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h126_the_receiver_notices_a_dead_line_too() {
    let b = Node::start(NetConfig { silence_ms_max: 200, ..config(2) }).await;
    let mut stream = greeted(b.address, Hello::new(1, 2)).await;
    stream.write_all(&frame(wire::PING, &[1; 8])).await.expect("it reads");
    assert_eq!(wire::next(&mut stream).await.0, wire::PONG);
    wire::closed(&mut stream).await;
    until("its end", || b.net.inbound().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h126_a_peer_that_accepts_and_says_nothing_is_given_up() {
    let mut a = Node::start(NetConfig { hello_timeout_ms: 100, ..config(1) }).await;
    let mut b = Node::start(config(2)).await;
    let (_listener, address) = wire::listen().await;
    a.net.set_peer(NodeId(3), vec![address.to_string()]);
    a.knows(&b);
    assert_eq!(a.unreachable().await, NodeId(3));
    assert_eq!(a.unreachable().await, NodeId(3), "and again, for the next attempt");
    a.gets_through_to(&mut b, "unharmed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_answers_pings_but_reads_no_more_is_given_up() {
    let short = NetConfig { write_ms_max: 300, frame_bytes_max: 1 << 20, ..config(1) };
    let mut a = Node::start(short).await;
    let (listener, address) = wire::listen().await;
    a.net.set_peer(NodeId(3), vec![address.to_string()]);
    let stream = wire::accept(&listener).await;
    let (_unread, mut write) = stream.into_split();
    write.write_all(&Hello::new(3, 1).opening()).await.expect("it reads");
    a.connected_to(NodeId(3)).await;
    let ponging = tokio::spawn(async move {
        while write.write_all(&frame(wire::PONG, &[0; 8])).await.is_ok() {
            tokio::time::sleep(wire::SOON / 10).await;
        }
    });
    until("a full queue", || a.net.send(NodeId(3), vec![pattern(0, 1 << 20)]).is_err()).await;
    a.unreachable().await; // the queue is full
    a.unreachable().await; // the connection is given up
    ponging.abort();
}
