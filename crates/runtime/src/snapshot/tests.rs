use quorate_kv::{Initial, MemoryBackend, Store};
use quorate_net::{NetConfig, NetEvent, SnapshotError};
use quorate_raft::{Body, ConfState, Message as RaftMessage};
use quorate_types::{Index, Term};
use tempfile::TempDir;

use super::*;

const CLUSTER: u64 = 7;

/// A state up to index 9 as a stream.
fn state(cluster_id: u64) -> Vec<u8> {
    let initial = Initial {
        node: NodeId(1),
        cluster_id,
        applied: Index(9),
        term: Term(2),
        conf_state: codec::encode_conf_state_record(&ConfState::default()),
        members: Vec::new(),
    };
    let store = Store::create(MemoryBackend::new(), initial).unwrap();
    let mut reader = store.snapshot().unwrap().reader();
    let mut stream = Vec::new();
    loop {
        let piece = reader.read(1 << 20).unwrap();
        if piece.is_empty() {
            return stream;
        }
        stream.extend_from_slice(&piece);
    }
}

/// Bytes as the transport reads them.
struct Pieces(Bytes);

impl SnapshotSource for Pieces {
    fn read(&mut self, max: usize) -> io::Result<Bytes> {
        Ok(self.0.split_to(max.min(self.0.len())))
    }
}

async fn incoming(events: &mut mpsc::Receiver<NetEvent>) -> (NodeId, Bytes, IncomingSnapshot) {
    loop {
        let event = events.recv().await.expect("the transport runs");
        if let NetEvent::Snapshot { from, header, stream } = event {
            return (from, header, stream);
        }
    }
}

async fn outcome(events: &mut mpsc::Receiver<NetEvent>) -> Result<(), SnapshotError> {
    loop {
        let event = events.recv().await.expect("the transport runs");
        if let NetEvent::SnapshotSent { result, .. } = event {
            return result;
        }
    }
}

/// The message of a snapshot.
fn announcement(from: NodeId, to: NodeId, metadata: SnapshotMetadata) -> Bytes {
    let snapshot = Box::new(described(metadata));
    let message = RaftMessage { from, ..RaftMessage::new(to, Body::Snapshot { snapshot }) };
    Message::Raft(message).encode().concat().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_could_not_be_installed_is_not_announced() {
    let (one, two) = (NodeId(1), NodeId(2));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (events, mut one_events) = mpsc::channel(100);
    let sender = Net::start(NetConfig::new(CLUSTER, one), Vec::new(), events);
    let (events, mut two_events) = mpsc::channel(100);
    let net = Net::start(NetConfig::new(CLUSTER, two), vec![listener], events);
    sender.set_peer(two, vec![address.clone()]);
    net.set_peer(one, Vec::new());

    let directory = TempDir::new().unwrap();
    let (done, mut inbox) = mpsc::unbounded_channel();
    let spawner = tokio::runtime::Handle::current();
    let mut receiver = Receiver::new(CLUSTER, directory.path().to_owned(), done, spawner);
    let whole = state(CLUSTER);
    let cut = whole[..whole.len() - 10].to_vec();
    let joint = ConfState { voters: vec![one], ..ConfState::default() };
    let mut kept = None;
    // All of them pass the transport's own checks.
    for (what, stream, (index, term), conf_state, is_announced) in [
        ("bytes of no state", vec![0x5a; 10_000], (9, 2), ConfState::default(), false),
        ("half a state", cut, (9, 2), ConfState::default(), false),
        ("another cluster's", state(8), (9, 2), ConfState::default(), false),
        ("an older one", whole.clone(), (10, 2), ConfState::default(), false),
        ("of another term", whole.clone(), (9, 3), ConfState::default(), false),
        ("with other members", whole.clone(), (9, 2), joint, false),
        ("as it should be", whole, (9, 2), ConfState::default(), true),
    ] {
        let metadata = SnapshotMetadata { conf_state, index: Index(index), term: Term(term) };
        let header = announcement(one, two, metadata);
        sender.send_snapshot(two, header, Box::new(Pieces(Bytes::from(stream)))).unwrap();
        let (from, header, stream) = incoming(&mut two_events).await;
        receiver.begin(two, Engine::Raft, from, header, stream);
        if is_announced {
            let Some(Done::SnapshotReceived(_, word)) = inbox.recv().await else {
                panic!("{what}")
            };
            kept = Some(word);
        } else {
            drop(receiver.place.acquire().await.unwrap());
            assert!(inbox.try_recv().is_err(), "{what}");
            // One transfer to a peer at a time: the next may begin once the sender knows of the end.
            assert_eq!(outcome(&mut one_events).await, Err(SnapshotError::Declined));
        }
        // What came whole is not taken in again soon; the next one of this test is.
        let declines = receiver.unusable().declines(Instant::now());
        assert_eq!(declines, !is_announced, "{what}");
        *receiver.unusable() = Unusable::default();
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, usize::from(is_announced), "{what}");
    }
    assert_eq!(receiver.place.available_permits(), 0, "it keeps its place");

    // While it does, no other is taken in.
    let (events, mut three_events) = mpsc::channel(100);
    let third = Net::start(NetConfig::new(CLUSTER, NodeId(3)), Vec::new(), events);
    third.set_peer(two, vec![address]);
    net.set_peer(NodeId(3), Vec::new());
    third.send_snapshot(two, Bytes::new(), Box::new(Pieces(Bytes::from(state(CLUSTER))))).unwrap();
    let (from, _, stream) = incoming(&mut two_events).await;
    let metadata =
        SnapshotMetadata { conf_state: ConfState::default(), index: Index(9), term: Term(2) };
    receiver.begin(two, Engine::Raft, from, announcement(from, two, metadata), stream);
    assert_eq!(outcome(&mut three_events).await, Err(SnapshotError::Declined));
    assert!(inbox.try_recv().is_err());

    // Its sender hears that it is delivered once no mark rests on it any more.
    let file = path(directory.path(), EntryId::new(2, 9));
    receiver.settle(false);
    receiver.announced(kept.unwrap());
    receiver.settle(true);
    let early = tokio::time::timeout(Duration::from_millis(300), outcome(&mut one_events)).await;
    assert!(early.is_err() && file.exists(), "{early:?}");
    assert_eq!(receiver.place.available_permits(), 0);
    receiver.settle(false);
    assert_eq!(outcome(&mut one_events).await, Ok(()));
    drop(receiver.place.acquire().await.unwrap());
    assert!(!file.exists());
}

#[tokio::test]
async fn a_snapshot_keeps_its_place_until_it_is_installed() {
    let directory = TempDir::new().unwrap();
    let (done, _inbox) = mpsc::unbounded_channel();
    let spawner = tokio::runtime::Handle::current();
    let mut receiver = Receiver::new(7, directory.path().to_owned(), done, spawner);
    let file = path(directory.path(), EntryId::new(2, 9));
    create(&file).unwrap();
    receiver.place.forget_permits(1);

    receiver.settle(false);
    tokio::task::yield_now().await;
    assert_eq!(receiver.place.available_permits(), 0, "the engine has not heard of it");
    receiver.announced(Box::new(|| ()));
    receiver.settle(true);
    tokio::task::yield_now().await;
    assert!(receiver.announced.is_some(), "a mark may rest on it");
    assert_eq!(receiver.place.available_permits(), 0);
    assert!(file.exists());
    receiver.settle(false);
    drop(receiver.place.acquire().await.unwrap());
    assert!(!file.exists());
}

#[test]
fn h057_what_cannot_be_used_is_taken_in_ever_more_rarely() {
    let mut unusable = Unusable::default();
    let start = Instant::now();
    assert!(!unusable.declines(start));
    let mut now = start;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let wait = unusable.note(now);
        waits.push(wait.as_secs());
        assert!(unusable.declines(now) && unusable.declines(now + wait - Duration::from_millis(1)));
        now += wait;
        assert!(!unusable.declines(now), "and then one is");
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
}
