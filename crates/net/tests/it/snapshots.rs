//! Snapshot streams: whole or not at all, and always with an end.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use quorate_net::{
    IncomingSnapshot, NetConfig, NetEvent, Refusal, SendError, SnapshotError, SnapshotSource,
};
use quorate_types::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::node::{DEADLINE, Node, config, pattern, until};
use crate::proxy::{Harm, Proxy};
use crate::wire::{self, Hello, frame, greeted};

/// A pattern of some length, and perhaps an error behind it.
struct Source {
    left: usize,
    number: u64,
    then: Option<&'static str>,
}

fn source(bytes: usize) -> Box<Source> {
    Box::new(Source { left: bytes, number: 0, then: None })
}

impl SnapshotSource for Source {
    fn read(&mut self, max: usize) -> io::Result<Bytes> {
        if self.left == 0 {
            return self.then.map_or(Ok(Bytes::new()), |why| Err(io::Error::other(why)));
        }
        let count = self.left.min(max).min(BLOCK);
        self.left -= count;
        self.number += 1;
        Ok(pattern(self.number - 1, count))
    }
}

/// What the source gives at once; smaller than the chunk of the config.
const BLOCK: usize = 64 << 10;

fn whole(bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut source = source(bytes);
    while let Ok(part @ [_, ..]) = source.read(BLOCK).as_deref() {
        all.extend_from_slice(part);
    }
    all
}

async fn pair() -> (Node, Node) {
    pair_of(config(1), config(2)).await
}

async fn pair_of(one: NetConfig, two: NetConfig) -> (Node, Node) {
    let (a, b) = (Node::start(one).await, Node::start(two).await);
    a.knows(&b);
    (a, b)
}

async fn incoming(node: &mut Node) -> (NodeId, Bytes, IncomingSnapshot) {
    node.event("a snapshot", |event| match event {
        NetEvent::Snapshot { from, header, stream } => Some((from, header, stream)),
        _ => None,
    })
    .await
}

async fn outcome(node: &mut Node) -> Result<(), SnapshotError> {
    node.event("the outcome", |event| match event {
        NetEvent::SnapshotSent { result, .. } => Some(result),
        _ => None,
    })
    .await
}

async fn read_all(stream: &mut IncomingSnapshot) -> Result<Vec<u8>, SnapshotError> {
    let reading = async {
        let mut all = Vec::new();
        while let Some(chunk) = stream.next_chunk().await? {
            all.extend_from_slice(&chunk);
        }
        assert_eq!(stream.received_bytes(), all.len() as u64);
        assert_eq!(stream.next_chunk().await, Ok(None), "the end stays the end");
        stream.accept()?;
        Ok(all)
    };
    timeout(DEADLINE, reading).await.expect("the stream ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_of_all_lengths_arrive_whole() {
    let (mut a, mut b) = pair().await;
    for bytes in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK + 7] {
        let header = Bytes::from(format!("{bytes} bytes"));
        a.net.send_snapshot(b.id, header.clone(), source(bytes)).expect("there is room");
        let (from, got, mut stream) = incoming(&mut b).await;
        assert_eq!((from, got), (a.id, header.clone()));
        assert!(read_all(&mut stream).await.expect("a good line") == whole(bytes), "{bytes}");
        let (to, echoed, result) = a
            .event("the outcome", |event| match event {
                NetEvent::SnapshotSent { to, header, result } => Some((to, header, result)),
                _ => None,
            })
            .await;
        assert_eq!((to, echoed, result), (b.id, header, Ok(())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h124_messages_pass_a_snapshot_that_stands_still() {
    const BYTES: usize = 32 << 20;
    let (mut a, mut b) = pair().await;
    a.net.send_snapshot(b.id, Bytes::new(), source(BYTES)).expect("there is room");
    let (_, _, mut stream) = incoming(&mut b).await;
    // Nobody reads the snapshot yet, so its line is full; that of the messages is not.
    for number in 0..1_000u32 {
        a.send(b.id, number.to_le_bytes().to_vec()).await;
        assert_eq!(b.message().await.1[..], number.to_le_bytes());
    }
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        while let Some(chunk) = stream.next_chunk_blocking().expect("a good line") {
            all.extend_from_slice(&chunk);
        }
        stream.accept().expect("its sender waits");
        all
    });
    for number in 0..1_000u32 {
        a.send(b.id, number.to_le_bytes().to_vec()).await;
        assert_eq!(b.message().await.1[..], number.to_le_bytes());
    }
    assert!(reading.await.expect("no panic") == whole(BYTES));
    assert_eq!(outcome(&mut a).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h055_a_bound_on_the_rate_only_makes_it_slower() {
    let slow = NetConfig {
        snapshot_bytes_per_second_max: Some(1 << 20),
        snapshot_chunk_bytes: 16 << 10,
        ping_interval_ms: 5,
        ..config(1)
    };
    let (mut a, mut b) = pair_of(slow, config(2)).await;
    a.net.send_snapshot(b.id, Bytes::new(), source(200_000)).expect("there is room");
    let (_, _, mut stream) = incoming(&mut b).await;
    assert_eq!(read_all(&mut stream).await.expect("a good line").len(), 200_000);
    assert_eq!(outcome(&mut a).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_lets_go_declines() {
    for (bytes, chunks) in [(32 << 20, 0), (32 << 20, 3), (0, 0), (100, 1)] {
        let (mut a, mut b) = pair().await;
        a.net.send_snapshot(b.id, Bytes::new(), source(bytes)).expect("there is room");
        let (_, _, mut stream) = incoming(&mut b).await;
        for _ in 0..chunks {
            stream.next_chunk().await.expect("a good line").expect("not the end");
        }
        drop(stream);
        assert_eq!(outcome(&mut a).await, Err(SnapshotError::Declined), "{bytes}, {chunks}");
        until("the seat is free", || b.net.inbound().connections <= 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_ends_both_sides() {
    struct Panics;
    impl SnapshotSource for Panics {
        fn read(&mut self, _: usize) -> io::Result<Bytes> {
            panic!("a fault in a source")
        }
    }
    let fails = Source { left: 100_000, number: 0, then: Some("disk on fire") };
    for (source, want) in
        [(Box::new(fails) as Box<dyn SnapshotSource>, "disk on fire"), (Box::new(Panics), "panic")]
    {
        let (mut a, mut b) = pair().await;
        a.net.send_snapshot(b.id, Bytes::new(), source).expect("there is room");
        let (_, _, mut stream) = incoming(&mut b).await;
        let error = read_all(&mut stream).await.expect_err("half a snapshot");
        assert!(matches!(error, SnapshotError::Lost { .. }), "{error}");
        match outcome(&mut a).await {
            Err(SnapshotError::Source { why }) => assert!(why.contains(want), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_gives_too_much_at_once_is_cut_up() {
    struct Lavish(bool);
    impl SnapshotSource for Lavish {
        fn read(&mut self, max: usize) -> io::Result<Bytes> {
            let first = std::mem::replace(&mut self.0, false);
            Ok(if first { pattern(3, 5 * max + 1) } else { Bytes::new() })
        }
    }
    let small = NetConfig { snapshot_chunk_bytes: 10_000, ..config(1) };
    let (mut a, mut b) = pair_of(small, config(2)).await;
    a.net.send_snapshot(b.id, Bytes::new(), Box::new(Lavish(true))).expect("there is room");
    let (_, _, mut stream) = incoming(&mut b).await;
    assert!(read_all(&mut stream).await.expect("a good line") == pattern(3, 50_001));
    assert_eq!(outcome(&mut a).await, Ok(()));
}

/// Sends 200,000 bytes over a line that does harm: what the receiver gets, if it hears of it at all
/// before the sender knows the outcome, and that outcome.
async fn over_a_bad_line(harm: Harm) -> (Option<Result<Vec<u8>, SnapshotError>>, bool) {
    // Where only silence tells, it tells soon.
    let quick = |id| NetConfig { silence_ms_max: 400, hello_timeout_ms: 400, ..config(id) };
    let (mut a, mut b) = (Node::start(quick(1)).await, Node::start(quick(2)).await);
    let proxy = Proxy::start(b.address, wire::FOR_A_SNAPSHOT, harm).await;
    a.net.set_peer(b.id, vec![proxy.address.to_string()]);
    a.net.send_snapshot(b.id, Bytes::from_static(b"head"), source(200_000)).expect("room");
    let receiving = tokio::spawn(async move {
        loop {
            match b.events.recv().await {
                Some(NetEvent::Snapshot { header, mut stream, .. }) => {
                    assert_eq!(header, "head");
                    return Some(read_all(&mut stream).await);
                }
                Some(_) => {}
                None => return None,
            }
        }
    });
    let sent = outcome(&mut a).await.is_ok();
    let got = timeout(Duration::from_millis(if sent { 60_000 } else { 800 }), receiving).await;
    (got.ok().and_then(|got| got.expect("no panic")), sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h050_a_cut_stream_is_never_a_whole_one() {
    // The opening has 69 bytes, the begin 13, each of four chunks 17 more than it carries, the end
    // 21: 200,171 in all, and pings if the machine is slow.
    for after in [85, 30_000, 150_000, 200_149, 200_170] {
        let (got, sent) = over_a_bad_line(Harm::CutAfter(after)).await;
        assert!(!sent, "cut after {after}");
        assert!(!matches!(got, Some(Ok(_))), "cut after {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h130_a_damaged_stream_is_never_a_good_one() {
    for (at_byte, bit) in [(75, 0), (79, 2), (84, 0), (95, 3), (100_000, 7), (200_155, 0)] {
        let (got, sent) = over_a_bad_line(Harm::FlipBit { at_byte, bit }).await;
        assert!(!sent, "byte {at_byte}");
        assert!(!matches!(got, Some(Ok(_))), "byte {at_byte}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h050_parts_must_meet_and_the_whole_must_be_right() {
    let chunk = |offset: u64, bytes: &[u8]| {
        frame(wire::SNAPSHOT_CHUNK, &[&offset.to_le_bytes()[..], bytes].concat())
    };
    let end = |length: u64, crc: u32| {
        frame(wire::SNAPSHOT_END, &[&length.to_le_bytes()[..], &crc.to_le_bytes()].concat())
    };
    let crc = crc32c::crc32c(b"abcdef");
    let (abc, def) = (chunk(0, b"abc"), chunk(3, b"def"));
    let (accepted, damaged) = (0, 3);
    for (name, frames, verdict) in [
        ("whole", vec![abc.clone(), def.clone(), end(6, crc)], accepted),
        ("with pings", vec![abc.clone(), frame(wire::PING, &[1; 8]), def.clone(), end(6, crc)], 0),
        ("a part twice", vec![abc.clone(), abc.clone(), def.clone(), end(6, crc)], damaged),
        ("a part missing", vec![abc.clone(), chunk(4, b"ef"), end(6, crc)], damaged),
        ("the first missing", vec![def.clone(), end(6, crc)], damaged),
        (
            "all there, in the wrong place",
            vec![abc.clone(), chunk(4, b"def"), end(6, crc)],
            damaged,
        ),
        ("an empty part", vec![abc.clone(), chunk(3, b""), def.clone(), end(6, crc)], damaged),
        ("no offset", vec![frame(wire::SNAPSHOT_CHUNK, &[0; 7])], damaged),
        ("too short", vec![abc.clone(), end(6, crc)], damaged),
        ("too long", vec![abc.clone(), def.clone(), end(5, crc)], damaged),
        ("another checksum", vec![abc.clone(), def.clone(), end(6, crc ^ 1)], damaged),
        ("half an end", vec![abc.clone(), frame(wire::SNAPSHOT_END, &[0; 11])], damaged),
        ("begun twice", vec![abc.clone(), frame(wire::SNAPSHOT_BEGIN, b"")], damaged),
        ("a message", vec![abc.clone(), frame(wire::MESSAGE, b"")], damaged),
    ] {
        // A sender that does not close after the verdict is not waited for long.
        let mut b = Node::start(NetConfig { linger_ms_max: 20, ..config(2) }).await;
        let hello = Hello { purpose: wire::FOR_A_SNAPSHOT, ..Hello::new(1, 2) };
        let mut stream = greeted(b.address, hello).await;
        stream.write_all(&frame(wire::SNAPSHOT_BEGIN, b"head")).await.expect("it reads");
        stream.write_all(&frames.concat()).await.expect("it reads");
        let (_, _, mut snapshot) = incoming(&mut b).await;
        let got = read_all(&mut snapshot).await;
        match verdict {
            0 => assert_eq!(got, Ok(b"abcdef".to_vec()), "{name}"),
            _ => assert!(matches!(got, Err(SnapshotError::Damaged { .. })), "{name}: {got:?}"),
        }
        let reply = loop {
            let (kind, payload) = wire::next(&mut stream).await;
            if kind != wire::PONG {
                break (kind, payload);
            }
        };
        assert_eq!(reply, (wire::SNAPSHOT_REPLY, vec![verdict, 0]), "{name}");
        wire::closed(&mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h057_one_limit_known_to_both() {
    let limit = 100_000;
    let limited = |id| NetConfig { snapshot_bytes_max: limit, ..config(id) };
    for (one, two) in [(limited(1), config(2)), (config(1), limited(2))] {
        for (bytes, want) in [
            (limit - 1, Ok(())),
            (limit, Ok(())),
            (limit + 1, Err(SnapshotError::TooLarge { bytes_max: limit })),
            (limit * 10, Err(SnapshotError::TooLarge { bytes_max: limit })),
        ] {
            let (mut a, mut b) = pair_of(one.clone(), two.clone()).await;
            a.net.send_snapshot(b.id, Bytes::new(), source(bytes as usize)).expect("room");
            let (_, _, mut stream) = incoming(&mut b).await;
            assert_eq!(read_all(&mut stream).await.is_ok(), want.is_ok(), "{bytes}");
            assert_eq!(outcome(&mut a).await, want, "{bytes}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h057_the_receiver_holds_its_limit_against_a_sender_that_does_not() {
    let mut b = Node::start(NetConfig { snapshot_bytes_max: 5, ..config(2) }).await;
    let hello = Hello { purpose: wire::FOR_A_SNAPSHOT, ..Hello::new(1, 2) };
    let mut stream = greeted(b.address, hello).await;
    let chunk = frame(wire::SNAPSHOT_CHUNK, b"\0\0\0\0\0\0\0\0abcdef");
    stream.write_all(&[frame(wire::SNAPSHOT_BEGIN, b""), chunk].concat()).await.expect("reads");
    let (_, _, mut snapshot) = incoming(&mut b).await;
    let got = read_all(&mut snapshot).await;
    assert_eq!(got, Err(SnapshotError::TooLarge { bytes_max: 5 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h056_a_receiver_that_never_answers_is_given_up() {
    // The receiver is written by hand: it reads all, and then ...
    #[derive(Debug, Clone, Copy)]
    enum Then {
        Dies,
        IsSilent,
        OnlySaysThatItLives,
    }
    for then in [Then::Dies, Then::IsSilent, Then::OnlySaysThatItLives] {
        let mut short = config(1);
        match then {
            Then::IsSilent => short.silence_ms_max = 500,
            Then::Dies | Then::OnlySaysThatItLives => short.snapshot_use_ms_max = 500,
        }
        let mut a = Node::start(short).await;
        let (listener, address) = wire::listen().await;
        a.net.set_peer(NodeId(3), vec![address.to_string()]);
        a.net.send_snapshot(NodeId(3), Bytes::new(), source(1_000)).expect("there is room");
        let receiving = tokio::spawn(async move {
            let mut messages = None;
            loop {
                let (mut stream, purpose) = wire::accept_any(&listener).await;
                if purpose != wire::FOR_A_SNAPSHOT {
                    messages = Some(stream);
                    continue;
                }
                let hello = Hello { purpose, ..Hello::new(3, 1) };
                stream.write_all(&hello.opening()).await.expect("it reads");
                while wire::next(&mut stream).await.0 != wire::SNAPSHOT_END {}
                match then {
                    Then::Dies => drop(stream),
                    Then::IsSilent => wire::closed(&mut stream).await,
                    Then::OnlySaysThatItLives => {
                        let alive = frame(wire::PONG, &[0; 8]);
                        while stream.write_all(&alive).await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                return messages;
            }
        });
        let result = outcome(&mut a).await;
        let right = match then {
            Then::Dies | Then::IsSilent => matches!(result, Err(SnapshotError::Lost { .. })),
            Then::OnlySaysThatItLives => result == Err(SnapshotError::TimedOut { ms: 500 }),
        };
        assert!(right, "{then:?}: {result:?}");
        receiving.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h056_a_reader_that_holds_the_stream_and_never_reads_is_given_up() {
    for bytes in [32 << 20, 10] {
        let short = NetConfig { snapshot_stall_ms_max: 300, ..config(2) };
        let (mut a, mut b) = pair_of(config(1), short).await;
        a.net.send_snapshot(b.id, Bytes::new(), source(bytes)).expect("there is room");
        let (_, _, mut stream) = incoming(&mut b).await;
        assert!(matches!(outcome(&mut a).await, Err(SnapshotError::TimedOut { .. })));
        let late = read_all(&mut stream).await;
        assert_eq!(late, Err(SnapshotError::TimedOut { ms: 300 }), "not whole for one side only");
    }
}

/// What has come is read back, and takes the place of what was there: a leader that sent the next one
/// meanwhile would never be done with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_delivered_once_it_is_of_use_and_no_sooner() {
    #[derive(Debug, Clone, Copy)]
    enum Then {
        Accepts,
        Drops,
        Keeps,
    }
    const LONG_MS: u64 = 600_000;
    const SHORT_MS: u64 = 1_500;
    for (then, [sender_ms, reader_ms], want) in [
        (Then::Accepts, [LONG_MS; 2], Ok(())),
        (Then::Drops, [LONG_MS; 2], Err(SnapshotError::Declined)),
        (Then::Keeps, [SHORT_MS, LONG_MS], Err(SnapshotError::TimedOut { ms: SHORT_MS })),
        // The reader's side says that its time is over; the sender says how long it waits itself.
        (Then::Keeps, [LONG_MS, SHORT_MS], Err(SnapshotError::TimedOut { ms: LONG_MS })),
    ] {
        let patient = |id, snapshot_use_ms_max| NetConfig {
            snapshot_stall_ms_max: 300,
            snapshot_use_ms_max,
            ..config(id)
        };
        let (mut a, mut b) = pair_of(patient(1, sender_ms), patient(2, reader_ms)).await;
        a.net.send_snapshot(b.id, Bytes::new(), source(1_000)).expect("there is room");
        let (_, _, mut stream) = incoming(&mut b).await;
        while stream.next_chunk().await.expect("a good line").is_some() {}
        // Longer than nothing may come for.
        let early = timeout(Duration::from_millis(700), outcome(&mut a)).await;
        assert!(early.is_err(), "{then:?}: {early:?}");
        let kept = match then {
            Then::Accepts => {
                stream.accept().expect("its sender waits");
                assert!(stream.accept().is_err(), "it has been said");
                None
            }
            Then::Drops => {
                drop(stream);
                None
            }
            Then::Keeps => Some(stream),
        };
        assert_eq!(outcome(&mut a).await, want, "{then:?}");
        if let Some(mut stream) = kept
            && reader_ms == SHORT_MS
        {
            let late = stream.accept();
            assert_eq!(late, Err(SnapshotError::TimedOut { ms: SHORT_MS }), "for one side only");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_hangs_is_given_up() {
    struct Hangs(std::sync::mpsc::Receiver<()>);
    impl SnapshotSource for Hangs {
        fn read(&mut self, _: usize) -> io::Result<Bytes> {
            let _ = self.0.recv();
            Ok(Bytes::new())
        }
    }
    let (release, held) = std::sync::mpsc::channel();
    let short = NetConfig { snapshot_stall_ms_max: 200, ..config(1) };
    let (mut a, mut b) = pair_of(short, config(2)).await;
    a.net.send_snapshot(b.id, Bytes::new(), Box::new(Hangs(held))).expect("there is room");
    let (_, _, mut stream) = incoming(&mut b).await;
    assert_eq!(outcome(&mut a).await, Err(SnapshotError::TimedOut { ms: 200 }));
    assert!(read_all(&mut stream).await.is_err());
    drop(release);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h165_snapshots_are_bounded_in_number_on_both_sides() {
    let one = NetConfig { outbound_snapshots_max: 2, ..config(1) };
    let two = NetConfig { inbound_snapshots_max: 1, ..config(2) };
    let (mut a, mut b) = pair_of(one, two).await;
    a.net.send_snapshot(b.id, Bytes::from_static(b"1"), source(32 << 20)).expect("room for one");
    let (_, _, mut first) = incoming(&mut b).await;
    a.net.send_snapshot(b.id, Bytes::from_static(b"2"), source(10)).expect("and another");
    let third = a.net.send_snapshot(b.id, Bytes::from_static(b"3"), source(10));
    // The second may be refused by now, and the third then is on its way to the same end.
    assert!(matches!(third, Ok(()) | Err(SendError::Full { .. })), "{third:?}");
    let refused = Err(SnapshotError::Refused { reason: Refusal::Busy });
    assert_eq!(outcome(&mut a).await, refused);
    assert_eq!(read_all(&mut first).await.expect("a good line").len(), 32 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_an_outcome_where_there_is_no_peer() {
    let (mut a, b) = pair().await;
    let unknown = a.net.send_snapshot(NodeId(8), Bytes::new(), source(1));
    assert_eq!(unknown, Err(SendError::UnknownPeer { to: NodeId(8) }));
    let long = Bytes::from(vec![0; (16 << 20) + 1]);
    assert!(matches!(a.net.send_snapshot(b.id, long, source(1)), Err(SendError::TooLarge { .. })));

    a.net.set_peer(NodeId(4), Vec::new());
    a.net.send_snapshot(NodeId(4), Bytes::new(), source(1)).expect("there is room");
    assert!(matches!(outcome(&mut a).await, Err(SnapshotError::Unreachable { .. })));

    a.net.set_peer(NodeId(5), vec![b.address.to_string()]);
    a.net.send_snapshot(NodeId(5), Bytes::new(), source(1)).expect("there is room");
    let wrong = SnapshotError::Refused { reason: Refusal::WrongReceiver };
    assert_eq!(outcome(&mut a).await, Err(wrong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_removed_ends_its_snapshots() {
    let (mut a, mut b) = pair().await;
    a.net.send_snapshot(b.id, Bytes::new(), source(32 << 20)).expect("there is room");
    let (_, _, mut stream) = incoming(&mut b).await;
    a.net.remove_peer(b.id);
    assert_eq!(outcome(&mut a).await, Err(SnapshotError::Closed));
    assert!(read_all(&mut stream).await.is_err());
}
