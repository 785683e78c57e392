//! What comes in from outside: junk, strangers, gometa processes, the application's own requests.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_codec::zab::{decode_datagram, encode_datagram, encode_frame, next_frame};
use quorate_gometa::{
    Busy, CustomRequestHandler, CustomResponse, Lanes, Messages, MsgFactory, NoCustomRequests,
    PasswordAuth, Peer, Stream, Wrap, WrapFuture,
};
use quorate_zab::{Address, Command, Epoch, Message, Op, Outcome, PeerStatus, Request, Zxid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_with_a_key_elects_and_serves() {
    let nodes = ensemble(3, |config| config.vote_key = Some([7; 32])).await;
    for (at, node) in nodes.iter().enumerate() {
        node.must_set(&format!("key {at}"), "x").await;
    }
}

/// Throws junk at every port of every node; the connections stay open.
pub(crate) async fn throw_junk(nodes: &[Node], socket: &UdpSocket) -> Vec<TcpStream> {
    let junk: Vec<Bytes> = vec![
        Bytes::from_static(b""),
        Bytes::from_static(b"junk"),
        Bytes::from_static(&[0xff; 16]),
        Bytes::from_static(&[0; 1500]),
        Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
        // Whole messages in the wrong place.
        encode_frame(&Messages.create_commit(Zxid::new(Epoch(1), 1))),
        encode_frame(&Messages.create_proposal(
            Zxid::new(Epoch(9), 9),
            "x",
            1,
            Command::set("x", "y"),
        )),
        encode_frame(&Messages.create_new_leader(Epoch(77))),
        // A frame that never ends, and one that is too long for a stranger.
        Bytes::from_static(&[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, b'V']),
        [&[0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6][..], b"Accept", &[0; 200_000]]
            .concat()
            .into(),
    ];
    let mut open = Vec::new();
    for node in nodes {
        for bytes in &junk {
            socket.send_to(&bytes[..bytes.len().min(1400)], node.peer.election).await.unwrap();
            let mut stream = TcpStream::connect(node.peer.message).await.unwrap();
            let _ = stream.write_all(bytes).await;
            open.push(stream);
        }
    }
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_on_every_port_harms_nobody() {
    let nodes = ensemble(3, |_| {}).await;
    let leading = leader(&nodes);
    let socket = UdpSocket::bind(ANY).await.unwrap();
    let _open = throw_junk(&nodes, &socket).await;
    for (at, node) in nodes.iter().enumerate() {
        node.must_set(&format!("after {at}"), "x").await;
    }
    assert_eq!(leader(&nodes), leading, "nobody lost office over it");
    // The election port still answers whoever asks.
    let question =
        Messages.create_vote(1, PeerStatus::Electing, Epoch(0), "x", Zxid::ZERO, Zxid::ZERO, true);
    let mut answer = [0; 1000];
    for node in &nodes {
        socket.send_to(&encode_datagram(&question), node.peer.election).await.unwrap();
        let (count, from) = timeout(LONG, socket.recv_from(&mut answer)).await.unwrap().unwrap();
        assert_eq!(from, node.peer.election);
        let vote = decode_datagram(Bytes::copy_from_slice(&answer[..count])).unwrap();
        assert_eq!(vote.candidate, quorate_gometa::address(nodes[leading].peer.election));
    }
}

/// A connection that speaks as a gometa process does: without a word of ours.
pub(crate) struct Wire(TcpStream, BytesMut);

impl Wire {
    pub(crate) async fn connect(node: &Node) -> Wire {
        Wire::on(TcpStream::connect(node.peer.message).await.unwrap())
    }

    pub(crate) fn on(stream: TcpStream) -> Wire {
        Wire(stream, BytesMut::new())
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        self.0.write_all(&encode_frame(message)).await.unwrap();
    }

    /// The next message; nothing when the connection ends.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = next_frame(&mut self.1).unwrap() {
                return Some(message);
            }
            let read = timeout(LONG, self.0.read_buf(&mut self.1)).await.expect("something comes");
            if !matches!(read, Ok(count) if 0 < count) {
                return None;
            }
        }
    }

    pub(crate) async fn must(&mut self) -> Message {
        self.next().await.expect("a message")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gometa_watcher_is_served_as_gometa_would() {
    let nodes = ensemble(3, |_| {}).await;
    let leading = leader(&nodes);
    nodes[leading].must_set("x", "1").await;
    let mut wire = Wire::connect(&nodes[leading]).await;
    wire.send(&Messages.create_follower_info(Epoch(0), "10.0.0.1:9", false)).await;
    let Message::LeaderInfo(info) = wire.must().await else { panic!("LeaderInfo first") };
    wire.send(&Messages.create_epoch_ack(Zxid::ZERO, Epoch(0))).await;
    let mut streamed = Vec::new();
    loop {
        match wire.must().await {
            Message::LogEntry(entry) => streamed.push(entry.command),
            Message::NewLeader { epoch } => {
                assert_eq!(epoch, info.epoch);
                break;
            }
            other => panic!("{other:?} in the stream"),
        }
    }
    let ops: Vec<Op> = streamed.iter().map(|command| command.op).collect();
    assert_eq!(ops, [Op::STREAM_BEGIN, Op::SET, Op::STREAM_END]);
    wire.send(&Messages.create_new_leader_ack()).await;

    // It asks for something itself, and hears of it as of everything else.
    wire.send(&Messages.create_request(7, Command::set("y", "2"))).await;
    let mut proposed = None;
    loop {
        match wire.must().await {
            Message::Proposal(proposal) => {
                assert_eq!((proposal.fid.as_str(), proposal.request), ("10.0.0.1:9", 7));
                proposed = Some(proposal.zxid);
            }
            Message::Commit { zxid } if Some(zxid) == proposed => break,
            // Of before the stream's end, or a sign of life.
            Message::Commit { .. } | Message::Response { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // What may not be proposed is refused by name, and harms nobody.
    wire.send(&Messages.create_request(8, Command { op: Op::GET, ..Command::set("y", "") })).await;
    loop {
        match wire.must().await {
            Message::Abort { request, fid, .. } => {
                assert_eq!((request, fid.as_str()), (8, "10.0.0.1:9"));
                break;
            }
            Message::Commit { .. } | Message::Response { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    until("all have it", || nodes.iter().all(|node| node.value("y").is_some())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gometa_voter_is_refused_unless_allowed() {
    for allowed in [false, true] {
        let tune: Tune = match allowed {
            true => |config| config.engine.allow_gometa_voters = true,
            false => |_| {},
        };
        let mut nodes = ensemble(3, tune).await;
        let follower = (leader(&nodes) + 1) % 3;
        // Its place is taken by a gometa process of the same name.
        let (peer, _) = nodes.remove(follower).end().await;
        nodes[0].serves().await;
        let mut wire = Wire::connect(&nodes[leader(&nodes)]).await;
        let fid = quorate_gometa::address(peer.message);
        wire.send(&Messages.create_follower_info(Epoch(0), fid.as_str(), true)).await;
        let answer = wire.next().await;
        assert_eq!(answer.is_some(), allowed, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_lead_turns_learners_away_at_once() {
    let nodes = ensemble(3, |_| {}).await;
    let mut wire = Wire::connect(&nodes[(leader(&nodes) + 1) % 3]).await;
    assert_eq!(wire.next().await, None);
}

/// Answers with what it is sent, in upper case; takes two at a time.
struct Shouting {
    queue: mpsc::Sender<CustomResponse>,
    answers: tokio::sync::Mutex<mpsc::Receiver<CustomResponse>>,
    seen: Mutex<Vec<Address>>,
}

impl Shouting {
    fn new() -> Arc<Self> {
        let (queue, answers) = mpsc::channel(2);
        Arc::new(Shouting { queue, answers: answers.into(), seen: Mutex::default() })
    }
}

impl CustomRequestHandler for Shouting {
    fn on_new_request(&self, origin: Address, request: Request) -> Result<(), Busy> {
        self.seen.lock().unwrap().push(origin.clone());
        let text = String::from_utf8_lossy(&request.command.content).to_uppercase();
        let (error, content) = match text.as_str() {
            "" => ("nothing to say".to_owned(), None),
            _ => (String::new(), Some(text.into())),
        };
        let response = CustomResponse { origin, request: request.id, error, content };
        self.queue.try_send(response).map_err(|_| Busy)
    }

    async fn next_response(&self) -> Option<CustomResponse> {
        self.answers.lock().await.recv().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_outside_the_log_reach_the_leaders_handler() {
    let mut bound = Vec::new();
    for _ in 0..3 {
        bound.push(ports().await);
    }
    let members: Vec<_> = bound.iter().map(|(_, peer)| *peer).collect();
    let (mut nodes, mut handlers) = (Vec::new(), Vec::new());
    for (lanes, own) in bound {
        let handler = Shouting::new();
        handlers.push(handler.clone());
        let actions = Arc::default();
        nodes.push(Node::start_with(lanes, own, &members, actions, |_| {}, Some(handler)).await);
    }
    for node in &nodes {
        node.serves().await;
    }
    let ask = |text: &'static str| Command { op: Op(51), ..Command::set("k", text) };
    for node in &nodes {
        for (text, error, content) in
            [("hey", "", Some("HEY".into())), ("", "nothing to say", None)]
        {
            let outcome = timeout(LONG, node.requests.request(ask(text))).await.unwrap();
            assert_eq!(outcome, Outcome::Answered { error: error.to_owned(), content });
        }
    }
    let leading = leader(&nodes);
    for (at, handler) in handlers.iter().enumerate() {
        let seen = handler.seen.lock().unwrap().len();
        assert_eq!(seen, if at == leading { 6 } else { 0 });
    }
    assert_eq!(nodes[leading].actions.applied().len(), 0, "none of it is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_handler_the_answer_is_gometas() {
    let (lanes, own) = ports().await;
    let none = None::<Arc<NoCustomRequests>>;
    let node = Node::start_with(lanes, own, &[own], Arc::default(), |_| {}, none).await;
    let ask = Command { op: Op(51), ..Command::set("k", "x") };
    let outcome = timeout(LONG, node.requests.request(ask)).await.unwrap();
    let error = "No custom request handler".to_owned();
    assert_eq!(outcome, Outcome::Answered { error, content: None });
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_only_so_many_connections() {
    let few: Tune = |config| config.engine.connections_count_max = 3;
    let (lanes, own) = ports().await;
    let node = Node::start(lanes, own, &[own], Arc::default(), few).await;
    node.serves().await;
    // Three, and two more for the one member.
    let mut strangers = Vec::new();
    for _ in 0..5 {
        strangers.push(Wire::connect(&node).await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let meet = async |number: u64| {
        let mut wire = Wire::connect(&node).await;
        let fid = format!("10.0.0.1:{number}");
        wire.send(&Messages.create_follower_info(Epoch(0), &fid, false)).await;
        let is_served = wire.next().await.is_some();
        (wire, is_served)
    };
    let (first, is_served) = meet(1).await;
    assert!(is_served, "there is room for who comes,");
    assert_eq!(strangers.remove(0).next().await, None, "and it is that of the oldest stranger");
    let nothing = timeout(Duration::from_millis(50), strangers[0].next()).await;
    assert!(nothing.is_err(), "alone");
    // Of learners without a vote there are three.
    let (second, third) = (meet(2).await, meet(3).await);
    assert!(second.1 && third.1);
    assert!(!meet(4).await.1);
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(meet(5).await.1, "a place is free again");
    node.end().await;
}

/// Has as many connections to a node as it can get, and says nothing on them.
async fn crowd(peer: Peer) {
    let mut held: Vec<TcpStream> = Vec::new();
    loop {
        let would_wait = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        held.retain(|stream| stream.try_read(&mut [0]).is_err_and(would_wait));
        held.extend(TcpStream::connect(peer.message).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_keep_no_voter_out() {
    let few: Tune = |config| {
        config.engine.connections_count_max = 4;
        // They are not given up for their silence.
        config.engine.sync_timeout_ms = 60_000;
    };
    let mut nodes = ensemble(3, few).await;
    let peers = members(&nodes);
    let crowds: Vec<_> = peers.iter().map(|peer| tokio::spawn(crowd(*peer))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let leading = leader(&nodes);
    nodes[leading].must_set("x", "1").await;
    // A follower comes back, and a leader: the others then look for one.
    for at in [(leading + 1) % 3, leading] {
        let (peer, actions) = nodes.remove(at).end().await;
        let lanes = Lanes::bind(peer.election, peer.message).await.unwrap();
        let node = Node::start(lanes, peer, &peers, actions, few).await;
        node.serves().await;
        node.insist("x", "2").await;
        nodes.insert(at, node);
    }
    crowds.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_one_keeps_its_office_over_a_reset() {
    let (lanes, own) = ports().await;
    let node = Node::start(lanes, own, &[own], Arc::default(), |_| {}).await;
    node.must_set("x", "1").await;
    let epoch = node.status().epoch;
    let mut wire = Wire::connect(&node).await;
    wire.send(&Messages.create_follower_info(Epoch(0), "10.0.0.1:9", false)).await;
    assert!(wire.next().await.is_some());
    node.handle.reset().await;
    assert_eq!(wire.next().await, None, "its connection is closed");
    node.must_set("y", "2").await;
    assert_eq!(node.status().epoch, epoch);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_come_without_a_password_is_a_policy() {
    for admits_others in [false, true] {
        let (lanes, own) = ports().await;
        let guarded: Tune = match admits_others {
            true => |config| config.server_auth = Some(Arc::new(password(true))),
            false => |config| config.server_auth = Some(Arc::new(password(false))),
        };
        let node = Node::start(lanes, own, &[own], Arc::default(), guarded).await;
        node.must_set("x", "1").await;
        let mut wire = Wire::connect(&node).await;
        wire.send(&Messages.create_follower_info(Epoch(0), "10.0.0.1:9", false)).await;
        assert_eq!(wire.next().await.is_some(), admits_others);
        node.end().await;
    }
}

fn password(admits_others: bool) -> PasswordAuth {
    let (user, password) = ("admin".to_owned(), "right".to_owned());
    PasswordAuth { op: Op(60), user, password, admits_others }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_authenticate_takes_no_place_for_long() {
    let guarded: Tune = |config| {
        config.server_auth = Some(Arc::new(password(false)));
        config.auth_timeout_ms = 100;
        config.flush_ms = 100;
        config.engine.connections_count_max = 2;
    };
    let (lanes, own) = ports().await;
    let node = Node::start(lanes, own, &[own], Arc::default(), guarded).await;
    node.serves().await;
    // Four that say nothing take all places there are, for a moment.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Wire::connect(&node).await);
    }
    for wire in &mut silent {
        assert_eq!(wire.next().await, None);
    }
    // Whoever is refused is told so, and its place is free again.
    for _ in 0..5 {
        let mut wire = Wire::connect(&node).await;
        let auth = Command { op: Op(60), ..Command::set("auth request", "{}") };
        wire.send(&Messages.create_request(5, auth)).await;
        let Message::Response { request, error, content, .. } = wire.must().await else {
            panic!("an answer comes first");
        };
        assert_eq!((request, error.as_str()), (5, "authentication failed"));
        assert_eq!(content.as_deref(), Some(&br#"{"code":401}"#[..]));
        assert_eq!(wire.next().await, None);
        drop(wire);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.end().await;
}

/// Has no answers, ever.
struct Mute;

impl CustomRequestHandler for Mute {
    fn on_new_request(&self, _origin: Address, _request: Request) -> Result<(), Busy> {
        Err(Busy)
    }

    async fn next_response(&self) -> Option<CustomResponse> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_response_channel_ends_nothing() {
    let (lanes, own) = ports().await;
    let mute = Some(Arc::new(Mute));
    let node = Node::start_with(lanes, own, &[own], Arc::default(), |_| {}, mute).await;
    node.must_set("x", "1").await;
    let ask = Command { op: Op(51), ..Command::set("k", "x") };
    let outcome = timeout(LONG, node.requests.request(ask)).await.unwrap();
    assert_eq!(outcome, Outcome::Answered { error: "busy".to_owned(), content: None });
    node.must_set("y", "2").await;
    node.end().await;
}

/// Each side says a word first, and turns every byte around.
struct Secret;

const WORD: &[u8; 4] = b"word";

/// Bytes that are the other way round on the way.
struct Turned(TcpStream);

impl AsyncRead for Turned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(context, into);
        into.filled_mut()[before..].iter_mut().for_each(|byte| *byte = !*byte);
        polled
    }
}

impl AsyncWrite for Turned {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let turned: Vec<u8> = bytes.iter().map(|byte| !*byte).collect();
        Pin::new(&mut self.0).poll_write(context, &turned)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Wrap for Secret {
    fn connected(&self, mut stream: TcpStream, _to: SocketAddr) -> WrapFuture {
        Box::pin(async move {
            stream.write_all(WORD).await?;
            Ok(Box::new(Turned(stream)) as Box<dyn Stream>)
        })
    }

    fn accepted(&self, mut stream: TcpStream, _from: SocketAddr) -> WrapFuture {
        Box::pin(async move {
            let mut word = [0; 4];
            stream.read_exact(&mut word).await?;
            match word == *WORD {
                true => Ok(Box::new(Turned(stream)) as Box<dyn Stream>),
                false => Err(std::io::Error::other("not the word")),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_wrapped_before_anything_is_said() {
    let nodes = ensemble(3, |config| config.wrap = Some(Arc::new(Secret))).await;
    nodes[0].must_set("x", "1").await;
    let mut wire = Wire::connect(&nodes[leader(&nodes)]).await;
    wire.send(&Messages.create_follower_info(Epoch(0), "10.0.0.1:9", false)).await;
    assert_eq!(wire.next().await, None, "who does not know the word is not heard");
}
