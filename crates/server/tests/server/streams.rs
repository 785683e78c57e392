//! Long answers, long waits, and clients that ask for more than they take: one real node, asked over
//! real connections.

use bytes::Bytes;
use futures_util::future::join_all;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    RangeResponse, WatchCreateRequest, WatchRequest,
};
use quorate_proto::v3lockpb::LockRequest;
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::node::{self, PATIENCE, connect};

struct Alone {
    server: Server,
    _directory: TempDir,
}

impl Alone {
    async fn start() -> Alone {
        Alone::start_with(&[]).await
    }

    async fn start_with(flags: &[(&str, &str)]) -> Alone {
        let directory = TempDir::new().unwrap();
        let server = node::ready(&directory, flags).await;
        Alone { server, _directory: directory }
    }

    async fn channel(&self) -> Channel {
        connect(&self.server).await
    }

    async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }
}

fn put(key: String, bytes: usize) -> PutRequest {
    PutRequest { key: key.into(), value: vec![b'v'; bytes].into(), ..Default::default() }
}

fn range(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn words(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

/// The pieces of a streamed range; and how it ended, if not well.
async fn pieces(
    kv: &mut KvClient<Channel>,
    range: RangeRequest,
) -> (Vec<RangeResponse>, Option<Status>) {
    let mut stream = match kv.range_stream(range).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut pieces = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(piece)) => pieces.push(piece.range_response.expect("a piece holds a part")),
            Ok(None) => return (pieces, None),
            Err(status) => return (pieces, Some(status)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_range_is_the_range_in_pieces() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    let lanes = (0..500).map(|number| {
        let mut kv = kv.clone();
        async move { kv.put(put(format!("k{number:03}"), 10_000)).await.unwrap() }
    });
    join_all(lanes).await;
    let old = 300;
    kv.put(put("k007".to_owned(), 1)).await.unwrap();
    for (ask, pieces_min) in [
        (range("k", "l"), 4),
        (range("\0", "\0"), 4),
        (RangeRequest { keys_only: true, ..range("k", "l") }, 3),
        (RangeRequest { serializable: true, ..range("k250", "\0") }, 3),
        (RangeRequest { limit: 9, ..range("k", "l") }, 1),
        (RangeRequest { limit: 10, ..range("k", "l") }, 1),
        (RangeRequest { limit: 11, ..range("k", "l") }, 2),
        (RangeRequest { limit: 499, ..range("k", "l") }, 4),
        (RangeRequest { limit: 500, ..range("k", "l") }, 4),
        (RangeRequest { limit: 501, ..range("k", "l") }, 4),
        (RangeRequest { limit: -1, ..range("k490", "l") }, 1),
        (RangeRequest { revision: old, ..range("k", "l") }, 3),
        (RangeRequest { count_only: true, limit: 3, ..range("k", "l") }, 1),
        (range("k007", ""), 1),
        (range("none", ""), 1),
        (range("l", "k"), 1),
    ] {
        let want = kv.range(ask.clone()).await.unwrap().into_inner();
        let (pieces, status) = pieces(&mut kv, ask.clone()).await;
        assert!(status.is_none(), "{ask:?}: {status:?}");
        assert!(pieces_min <= pieces.len(), "{ask:?}: {} pieces", pieces.len());
        assert!(pieces[0].kvs.len() <= 10, "{ask:?}: who asks sees soon that there is an answer");
        let (last, before) = pieces.split_last().unwrap();
        for piece in before {
            let is_bare = piece.header.is_none() && !piece.more && piece.count == 0;
            assert!(is_bare && !piece.kvs.is_empty(), "{ask:?}");
            let bytes: usize = piece.kvs.iter().map(|kv| kv.value.len()).sum();
            assert!(bytes <= 3 << 20, "{ask:?}: {bytes} bytes in a piece");
        }
        let kvs = pieces.iter().flat_map(|piece| piece.kvs.clone()).collect();
        assert_eq!(RangeResponse { kvs, ..last.clone() }, want, "{ask:?}");
    }
    for (ask, code, text) in [
        (range("", ""), Code::InvalidArgument, "etcdserver: key is not provided"),
        (
            RangeRequest { sort_order: 1, ..range("k", "l") },
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        (
            RangeRequest { sort_target: 3, ..range("k", "l") },
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        (
            RangeRequest { max_create_revision: 3, ..range("k", "l") },
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ),
        (
            RangeRequest { revision: 1_000_000, ..range("k", "l") },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ] {
        let (pieces, status) = pieces(&mut kv, ask.clone()).await;
        assert!(pieces.is_empty(), "{ask:?}");
        assert_eq!(words(&status.unwrap()), (code, text), "{ask:?}");
    }
    alone.server.shutdown().await;
}

/// The whole does not wait in memory, so a compaction takes from a slow reader what it has not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_range_stays_at_its_revision_until_that_is_compacted() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    for number in 0..40 {
        kv.put(put(format!("k{number:02}"), 1 << 20)).await.unwrap();
    }
    for compacts in [false, true] {
        let mut stream = kv.range_stream(range("k", "l")).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!(first.kvs.len(), 1, "two are too long for a piece");
        let last = kv.put(put("k39".to_owned(), 5)).await.unwrap().into_inner();
        let revision = last.header.unwrap().revision;
        if compacts {
            kv.compact(CompactionRequest { revision, physical: false }).await.unwrap();
        }
        let mut lengths = vec![];
        let ended = loop {
            match stream.message().await {
                Ok(Some(piece)) => lengths
                    .extend(piece.range_response.unwrap().kvs.iter().map(|kv| kv.value.len())),
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        if compacts {
            let text = "etcdserver: mvcc: required revision has been compacted";
            assert_eq!(words(&ended.unwrap()), (Code::OutOfRange, text));
        } else {
            assert!(ended.is_none(), "{ended:?}");
            assert_eq!(lengths, [1 << 20; 39], "what came later is not seen");
        }
    }
    alone.server.shutdown().await;
}

/// Short pairs foretell nothing of those that follow, and a stream is bounded where a range is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_piece_is_too_long_whatever_came_before_it() {
    let alone = Alone::start_with(&[("max-answer-bytes", "16777216")]).await;
    let mut kv = alone.kv().await;
    let lanes = (0..100).map(|number| {
        let mut kv = kv.clone();
        async move { kv.put(put(format!("a{number:02}"), 1)).await.unwrap() }
    });
    join_all(lanes).await;
    for number in 0..20 {
        kv.put(put(format!("k{number:02}"), 1 << 20)).await.unwrap();
    }
    let refused = kv.range(range("a", "l")).await.unwrap_err();
    let too_large = (Code::ResourceExhausted, "etcdserver: response is too large");
    assert_eq!(words(&refused), too_large);
    let (pieces, status) = pieces(&mut kv, range("a", "l")).await;
    assert!(status.is_none(), "{status:?}");
    for piece in &pieces {
        let bytes: usize = piece.kvs.iter().map(|kv| kv.value.len()).sum();
        assert!(bytes <= 2 << 20, "{bytes} bytes in a piece of {}", pieces.len());
    }
    assert_eq!(pieces.iter().map(|piece| piece.kvs.len()).sum::<usize>(), 120);
    // Whoever takes none of it holds a few pieces, and room is left for others.
    let all = quorate_proto::prost::Message::encode_to_vec(&range("a", "l"));
    let mut unread = ask(&alone, "/etcdserverpb.KV/RangeStream", &all).await;
    let mut head = [0; 64];
    tokio::time::timeout(PATIENCE, unread.read_exact(&mut head)).await.unwrap().unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"), "{head:?}");
    assert_eq!(kv.range(range("k00", "k10")).await.unwrap().into_inner().kvs.len(), 10);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_when_its_client_waits_no_longer() {
    let alone = Alone::start().await;
    let mut locks = LockClient::new(alone.channel().await);
    locks.lock(LockRequest { name: "l".into(), lease: 0 }).await.unwrap();
    // A second one waits. Headers are readable in the older HTTP, which is served here as well.
    let message = [0, 0, 0, 0, 3, 0x0a, 1, b'l'];
    let request = format!(
        "POST /v3lockpb.Lock/Lock HTTP/1.1\r\nhost: h\r\nconnection: close\r\nte: trailers\r\n\
         content-type: application/grpc\r\ngrpc-timeout: 200m\r\ncontent-length: {}\r\n\r\n",
        message.len()
    );
    let mut stream = TcpStream::connect(alone.server.client_addresses()[0]).await.unwrap();
    stream.write_all(&[request.as_bytes(), &message].concat()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
    let text = answer.replace("%20", " ");
    assert!(text.contains("grpc-message: etcdserver: context deadline exceeded\r\n"), "{answer}");
    alone.server.shutdown().await;
}

/// A call in the older HTTP, whose answer waits where it can be left alone.
async fn ask(alone: &Alone, path: &str, message: &[u8]) -> TcpStream {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\nte: trailers\r\ncontent-type: application/grpc\r\n\
         content-length: {}\r\n\r\n",
        message.len() + 5
    );
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let mut stream = TcpStream::connect(alone.server.client_addresses()[0]).await.unwrap();
    let request = [request.as_bytes(), &[0], &length, message].concat();
    stream.write_all(&request).await.unwrap();
    stream
}

/// Long answers share what memory there is for them: who finds none waits until others are sent, or
/// their clients gone. Short ones are nobody's concern.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_waited_for() {
    let alone = Alone::start_with(&[("max-answer-bytes", "16777216")]).await;
    let mut kv = alone.kv().await;
    for number in 0..14 {
        kv.put(put(format!("k{number:02}"), 1 << 20)).await.unwrap();
    }
    let all = quorate_proto::prost::Message::encode_to_vec(&range("k", "l"));
    let mut unread = ask(&alone, "/etcdserverpb.KV/Range", &all).await;
    let mut head = [0; 64];
    tokio::time::timeout(PATIENCE, unread.read_exact(&mut head)).await.unwrap().unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"), "{head:?}");
    // Its answer has begun, and goes no further.
    let mut late = tonic::Request::new(range("k", "l"));
    late.set_timeout(std::time::Duration::from_millis(300));
    let refused = kv.range(late).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    assert_eq!(kv.range(range("k07", "")).await.unwrap().into_inner().kvs[0].value.len(), 1 << 20);
    let pair = kv.range(RangeRequest { keys_only: true, ..range("k", "l") }).await.unwrap();
    assert_eq!(pair.into_inner().kvs.len(), 14);
    let waits = tokio::spawn({
        let mut kv = kv.clone();
        async move { kv.range(range("k", "l")).await }
    });
    drop(unread);
    let answer = tokio::time::timeout(PATIENCE, waits).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.into_inner().kvs.len(), 14);
    // Who asks for more than there is for all of them waits for nothing.
    for number in 14..20 {
        kv.put(put(format!("k{number:02}"), 1 << 20)).await.unwrap();
    }
    let refused = kv.range(range("k", "l")).await.unwrap_err();
    let too_large = (Code::ResourceExhausted, "etcdserver: response is too large");
    assert_eq!(words(&refused), too_large);
    alone.server.shutdown().await;
}

/// What a client does not take of a lease's keys counts among the long answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_lease_take_their_room() {
    let alone = Alone::start_with(&[("max-answer-bytes", "16777216")]).await;
    let mut lease = LeaseClient::new(alone.channel().await);
    let id = 7;
    lease.lease_grant(LeaseGrantRequest { id, ttl: 600 }).await.unwrap();
    let mut kv = alone.kv().await;
    for number in 0..12 {
        let key = format!("{number:02}{}", "k".repeat(1 << 20));
        kv.put(PutRequest { key: key.into(), lease: id, ..PutRequest::default() }).await.unwrap();
    }
    let keys = LeaseTimeToLiveRequest { id, keys: true };
    let encoded = quorate_proto::prost::Message::encode_to_vec(&keys);
    let mut unread = ask(&alone, "/etcdserverpb.Lease/LeaseTimeToLive", &encoded).await;
    let mut head = [0; 64];
    tokio::time::timeout(PATIENCE, unread.read_exact(&mut head)).await.unwrap().unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"), "{head:?}");
    let refused = lease.lease_time_to_live(keys).await.unwrap_err();
    assert_eq!(words(&refused), (Code::ResourceExhausted, "etcdserver: too many requests"));
    let without = LeaseTimeToLiveRequest { id, keys: false };
    assert_eq!(lease.lease_time_to_live(without).await.unwrap().into_inner().granted_ttl, 600);
    drop(unread);
    let begun = std::time::Instant::now();
    let mut large = lease.clone().max_decoding_message_size(64 << 20);
    while let Err(refused) = large.lease_time_to_live(keys).await {
        assert_eq!(words(&refused), (Code::ResourceExhausted, "etcdserver: too many requests"));
        assert!(begun.elapsed() < PATIENCE, "its room is kept");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    alone.server.shutdown().await;
}

/// Answers that are not long add up where nobody takes them. Who leaves them loses its connection once others
/// need their room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_add_up_cost_whoever_leaves_them_its_connection() {
    let alone = Alone::start_with(&[("max-answer-bytes", "16777216")]).await;
    let mut kv = alone.kv().await;
    kv.put(put("k".to_owned(), 60 << 10)).await.unwrap();
    // It lets nothing come but the heads of answers.
    let address = alone.server.client_addresses()[0];
    let narrow = Channel::from_shared(format!("http://{address}")).unwrap();
    let narrow = KvClient::new(narrow.initial_stream_window_size(0).connect().await.unwrap());
    let left = (0..1000).map(|_| {
        let mut kv = narrow.clone();
        tokio::spawn(async move { kv.range(range("k", "")).await })
    });
    let left: Vec<_> = left.collect();
    let work = async {
        for call in left {
            assert!(call.await.unwrap().is_err(), "nobody took it");
        }
        // Others find room.
        let answers = (0..100).map(|_| {
            let mut kv = kv.clone();
            async move { kv.range(range("k", "")).await.unwrap() }
        });
        join_all(answers).await;
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the room is free again");
    alone.server.shutdown().await;
}

/// Requests whose clients stop in the midst of them hold a bounded part of the memory together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_are_given_up_once_they_hold_too_much() {
    for method in ["KV/Put", "KV/RangeStream"] {
        begin_requests_that_never_end(method).await;
    }
}

/// As long as a message may be.
const MESSAGE_BYTES: u32 = 2 << 20;

/// The beginning of a request with so much of its message.
fn begun(method: &str, sent_bytes: usize) -> Vec<u8> {
    let head = format!(
        "POST /etcdserverpb.{method} HTTP/1.1\r\nhost: h\r\nte: trailers\r\nconnection: close\r\n\
         content-type: application/grpc\r\ncontent-length: {}\r\n\r\n",
        MESSAGE_BYTES + 5
    );
    [head.as_bytes(), &[0], &MESSAGE_BYTES.to_be_bytes(), &vec![b'v'; sent_bytes]].concat()
}

async fn begin_requests_that_never_end(method: &str) {
    const HELD_MAX: usize = 256;
    let alone = Alone::start().await;
    let begun = begun(method, MESSAGE_BYTES as usize - 1);
    let mut waiting = tokio::task::JoinSet::new();
    let too_many = 12;
    for _ in 0..HELD_MAX + too_many {
        let mut stream = TcpStream::connect(alone.server.client_addresses()[0]).await.unwrap();
        let begun = begun.clone();
        waiting.spawn(async move {
            // It may be given up before all is sent.
            let _ = stream.write_all(&begun).await;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer).to_lowercase().replace("%20", " ")
        });
    }
    for _ in 0..too_many {
        let answer = tokio::time::timeout(PATIENCE, waiting.join_next()).await;
        let answer = answer.expect("the first are given up").unwrap().unwrap();
        assert!(answer.contains("grpc-status: 8\r\n"), "{answer}");
        assert!(answer.contains("grpc-message: etcdserver: too many requests\r\n"), "{answer}");
    }
    // Whoever finishes is served, however long it is.
    let mut kv = alone.kv().await;
    for _ in 0..10 {
        kv.put(put("k".to_owned(), 1 << 20)).await.unwrap();
    }
    let given_up = std::iter::from_fn(|| waiting.try_join_next()).count();
    assert!(given_up <= 20, "{given_up} more were given up, for requests of 10 MiB in all");
    alone.server.shutdown().await;
}

/// What clients only say that they will send takes nothing from others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcing_long_requests_makes_no_others_fail() {
    let alone = Alone::start().await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(alone.server.client_addresses()[0]).await.unwrap();
        stream.write_all(&begun("KV/Put", 9000)).await.unwrap();
        waiting.spawn(async move { stream.read_to_end(&mut Vec::new()).await });
    }
    let kv = alone.kv().await;
    let puts = (0..40).map(|number| {
        let mut kv = kv.clone();
        async move { kv.put(put(format!("k{number}"), 1 << 20)).await }
    });
    for outcome in join_all(puts).await {
        outcome.unwrap();
    }
    assert!(waiting.try_join_next().is_none(), "nor do they fail themselves");
    alone.server.shutdown().await;
}

/// More than may be proposed and not committed, and more than fits into the sockets between: they wait for
/// each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_long_puts_at_the_same_time_are_all_done() {
    // What waits, waits for as long as a request may take.
    let timers = [("heartbeat-interval", "500"), ("election-timeout", "10000")];
    let alone = Alone::start_with(&timers).await;
    let mut puts = Vec::new();
    for client in 0..3 {
        let kv = alone.kv().await;
        puts.extend((0..100).map(|number| {
            let mut kv = kv.clone();
            async move { kv.put(put(format!("k{client}/{number}"), 1 << 20)).await }
        }));
    }
    for outcome in join_all(puts).await {
        outcome.unwrap();
    }
    alone.server.shutdown().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Each message in a frame of its own, as clients send them that renew many leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_renewals_at_once_are_all_answered() {
    const RENEWALS: usize = 5000;
    let alone = Alone::start().await;
    let field = |name: &str, value: &str| -> Vec<u8> {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.Lease/LeaseKeepAlive"),
        (":authority", "h"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let headers = fields.map(|(name, value)| field(name, value)).concat();
    let wide = (1_u32 << 24).to_be_bytes();
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    all.extend(frame(4, 0, 0, &[&[0, 4], &wide[..]].concat()));
    all.extend(frame(8, 0, 0, &wide));
    all.extend(frame(1, 4, 1, &headers));
    for number in 1..=RENEWALS {
        let is_last = u8::from(number == RENEWALS);
        all.extend(frame(0, is_last, 1, &[0, 0, 0, 0, 2, 8, 1]));
    }
    let stream = TcpStream::connect(alone.server.client_addresses()[0]).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all(&all).await.unwrap();
    let answers = async {
        let mut answers = Vec::new();
        loop {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.expect("the connection is not ended");
            let [high, middle, low, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            read.read_exact(&mut payload).await.unwrap();
            match kind {
                0 => answers.extend(payload),
                1 if flags & 1 == 1 => return answers,
                _ => {}
            }
        }
    };
    let answers = tokio::time::timeout(PATIENCE, answers).await.expect("they are answered");
    let (mut left, mut count) = (&answers[..], 0);
    while let Some((head, rest)) = left.split_first_chunk::<5>() {
        let [_, length @ ..] = *head;
        left = &rest[u32::from_be_bytes(length) as usize..];
        count += 1;
    }
    assert_eq!(count, RENEWALS);
    alone.server.shutdown().await;
}

/// Thousands of streams whose clients never look at them, and requests as fast as one client can send
/// them: everybody else is served, and hears what happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_ask_for_more_than_they_take_stop_nobody_else() {
    const STREAMS: usize = 1000;
    let alone = Alone::start().await;
    let create = |key: &'static str| {
        let create = WatchCreateRequest { key: key.into(), prev_kv: true, ..Default::default() };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    // Whoever never reads.
    let mut unread = Vec::new();
    for _ in 0..3 {
        let channel = alone.channel().await;
        let opened = (0..STREAMS).map(|_| {
            let mut client = WatchClient::new(channel.clone());
            async move {
                let (requests, outgoing) = tokio::sync::mpsc::channel(1);
                requests.send(create("hot")).await.unwrap();
                let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
                (client.watch(outgoing).await.unwrap(), requests)
            }
        });
        unread.extend(join_all(opened).await);
    }
    // Whoever floods.
    let mut floods = Vec::new();
    for _ in 0..2 {
        let kv = KvClient::new(alone.channel().await);
        floods.push(tokio::spawn(async move {
            loop {
                let some = (0..500).map(|_| {
                    let mut kv = kv.clone();
                    async move { kv.put(put("flood".to_owned(), 100)).await }
                });
                join_all(some).await;
            }
        }));
    }
    // Somebody else.
    let mut kv = alone.kv().await;
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(create("hot")).await.unwrap();
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut watch = WatchClient::new(alone.channel().await);
    let mut watch = watch.watch(outgoing).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    let work = async {
        for number in 0..60_usize {
            let value = Bytes::from(vec![b'v'; 20_000 + number]);
            let put = PutRequest { key: "hot".into(), value: value.clone(), ..Default::default() };
            let revision = kv.put(put).await.unwrap().into_inner().header.unwrap().revision;
            let found = kv.range(range("hot", "")).await.unwrap().into_inner();
            assert_eq!(found.kvs[0].value, value);
            let told = watch.message().await.unwrap().unwrap();
            assert_eq!(told.events[0].kv.as_ref().unwrap().mod_revision, revision);
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("everybody else is served");
    for flood in &floods {
        flood.abort();
    }
    drop(unread);
    alone.server.shutdown().await;
}
