//! The transport of one node: its peers, its tasks, and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_types::{Life, NodeId};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::accept::{self, Strangers};
use crate::config::NetConfig;
use crate::event::{NetEvent, SendError};
use crate::gate::Gate;
use crate::http::{Http, HttpConnection};
use crate::lives::Lives;
use crate::notes::Notes;
use crate::peer::{self, Peer};
use crate::senders::Senders;
use crate::snapshot::{self, Pace, SnapshotSource};

/// Time beyond `linger_ms_max` that tasks are given at shutdown before they are cut off.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// The transport of one node. Clones are handles to the same one; when the last is dropped without
/// [`shutdown`](Net::shutdown), all tasks are cut off.
#[derive(Debug, Clone)]
pub struct Net {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

/// What is known of one peer, for people and metrics. Counters start with the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// Since when our connection to it stands; nothing when there is none.
    pub connected_since: Option<Instant>,
    /// Which start of the peer it is connected to, as the peer says.
    pub incarnation: Option<u64>,
    /// Time from the last answered ping to its answer, waiting on both sides included.
    pub rtt: Option<Duration>,
    /// Payload bytes that wait or are being written.
    pub queue_bytes: u64,
    /// Messages that wait or are being written.
    pub queue_count: usize,
    /// Messages written out. That is no promise that they arrived.
    pub sent_messages: u64,
    /// Payload bytes of those.
    pub sent_bytes: u64,
    /// Messages dropped: no room, or lost with a connection before they were written.
    pub dropped_messages: u64,
    /// Messages that came from it.
    pub received_messages: u64,
    /// Payload bytes of those.
    pub received_bytes: u64,
    /// Connections from it that broke.
    pub receive_failures: u64,
    /// Connections to it that have ended.
    pub disconnects: u64,
}

/// How busy the peer port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboundStatus {
    /// Connections that have not said hello yet.
    pub pending_hellos: usize,
    /// Connections after their hello, snapshots included.
    pub connections: usize,
    /// Connections refused so far, by us or by a peer we dialed.
    pub refused: u64,
}

impl Net {
    /// Starts the transport: accepts on `listeners` and reports to `events`, whose capacity bounds
    /// what waits to be read: at most that many messages of `frame_bytes_max`.
    ///
    /// # Panics
    ///
    /// If [`NetConfig::check`] fails, or outside of a tokio runtime with time and I/O.
    pub fn start(
        config: NetConfig,
        listeners: Vec<TcpListener>,
        events: mpsc::Sender<NetEvent>,
    ) -> Net {
        Net::start_with_http(config, listeners, events, None)
    }

    /// As [`Net::start`]; a connection that begins an HTTP request goes to `http`, while that has
    /// room, instead of being refused.
    ///
    /// # Panics
    ///
    /// As `start`.
    pub fn start_with_http(
        config: NetConfig,
        listeners: Vec<TcpListener>,
        events: mpsc::Sender<NetEvent>,
        http: Option<mpsc::Sender<HttpConnection>>,
    ) -> Net {
        let checked = config.check();
        assert!(checked.is_ok(), "settings are checked before the start: {checked:?}");
        let shared = Arc::new(Shared {
            notes: Notes::new(events.clone()),
            events,
            senders: Senders::new(config.inbound_connections_max),
            strangers: Strangers::new(config.pending_hellos_max),
            seats: Arc::new(Semaphore::new(config.inbound_connections_max)),
            inbound_snapshots: Arc::new(Semaphore::new(config.inbound_snapshots_max)),
            outbound_snapshots: Arc::new(Semaphore::new(config.outbound_snapshots_max)),
            pace: Pace::new(config.snapshot_bytes_per_second_max),
            peers: RwLock::default(),
            lives: Lives::new(&config.lives, &config.removed),
            http: Http::new(http),
            gate: Gate::new(),
            start: Instant::now(),
            config,
        });
        let tasks = Arc::new(Tasks {
            runtime: Handle::current(),
            running: Mutex::default(),
            gate: shared.gate.clone(),
        });
        for listener in listeners {
            tasks.spawn(accept::run(Arc::clone(&shared), listener));
        }
        Net { shared, tasks }
    }

    /// Makes a node a peer, or gives a peer new addresses (`host:port`, tried in order, resolved
    /// anew for each attempt). With other addresses than before the connection is made anew; another
    /// spelling of the same is no change. For this node itself it does nothing.
    pub fn set_peer(&self, id: NodeId, addresses: Vec<String>) {
        if id.is_none() || id == self.shared.config.node {
            return;
        }
        let addresses: Vec<String> = addresses.iter().map(|text| normalised(text)).collect();
        let mut peers = self.shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&id) {
            peer.addresses.send_if_modified(|present| {
                let is_new = *present != addresses;
                *present = addresses;
                is_new
            });
            return;
        }
        let peer = Arc::new(Peer::new(&self.shared, id, addresses));
        if self.tasks.spawn(peer::run(Arc::clone(&self.shared), Arc::clone(&peer))) {
            peers.insert(id, peer);
        }
    }

    /// Says by which life each node is known, in place of all that was said before. A node that comes
    /// with another one is refused with [`Refusal::OtherLife`](crate::Refusal::OtherLife), and a
    /// connection with it that stands already ends; a node that is not named may come with any.
    pub fn set_lives(&self, known: BTreeMap<NodeId, Life>) {
        self.shared.lives.set(known);
    }

    /// Says who was removed for ever, in place of all that was said before. Such a node is refused with
    /// [`Refusal::Removed`](crate::Refusal::Removed), which tells it so, and its connections end.
    pub fn set_removed(&self, removed: BTreeSet<NodeId>) {
        self.shared.lives.set_removed(removed);
    }

    /// Forgets a peer. What is queued for it still has `linger_ms_max` to go out if it is connected;
    /// snapshots to it fail. Its own connections to us are left alone.
    pub fn remove_peer(&self, id: NodeId) {
        let mut peers = self.shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.remove(&id) {
            peer.gate.close();
        }
    }

    /// Queues one message, made of these chunks in this order. Never blocks; any thread may call it.
    ///
    /// That it is queued is no promise that it arrives. Long chunks are not copied.
    ///
    /// # Errors
    ///
    /// As [`SendError`] says; the message is dropped.
    pub fn send(&self, to: NodeId, payload: Vec<Bytes>) -> Result<(), SendError> {
        self.peer(to)?.send(&self.shared, payload)
    }

    /// Sends a snapshot on a connection of its own. The outcome comes as
    /// [`NetEvent::SnapshotSent`]; there is one try.
    ///
    /// # Errors
    ///
    /// As [`SendError`] says; then there is no such event.
    pub fn send_snapshot(
        &self,
        to: NodeId,
        header: Bytes,
        source: Box<dyn SnapshotSource>,
    ) -> Result<(), SendError> {
        let peer = self.peer(to)?;
        let (bytes, bytes_max) = (header.len() as u64, u64::from(peer.frame_bytes_max()));
        if bytes_max < bytes {
            return Err(SendError::TooLarge { bytes, bytes_max });
        }
        let lane = Arc::clone(&self.shared.outbound_snapshots).try_acquire_owned();
        let lane = lane.map_err(|_| SendError::Full { to })?;
        let sending = snapshot::send(Arc::clone(&self.shared), peer, header, source, lane);
        if self.tasks.spawn(sending) { Ok(()) } else { Err(SendError::Closed) }
    }

    /// All peers, by id.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers
            .values()
            .map(|peer| {
                let mut status = peer.status();
                if let Some(received) = self.shared.senders.received(peer.id()) {
                    status.received_messages = received.messages();
                    status.received_bytes = received.bytes();
                    status.receive_failures = received.failures();
                }
                status
            })
            .collect()
    }

    /// How busy the peer port is.
    pub fn inbound(&self) -> InboundStatus {
        let shared = &self.shared;
        InboundStatus {
            pending_hellos: shared.strangers.count(),
            connections: shared
                .config
                .inbound_connections_max
                .saturating_sub(shared.seats.available_permits()),
            refused: shared.notes.refused(),
        }
    }

    /// Ends everything: listeners close at once, what is queued for connected peers is given
    /// `linger_ms_max`, and every task is waited for. Takes at most some 500 ms more than that. A
    /// second call, on another clone, does not wait for the first.
    pub async fn shutdown(self) {
        self.close();
        let mut running = std::mem::take(&mut *self.tasks.running());
        let all_ended = async { while running.join_next().await.is_some() {} };
        let time_max = self.shared.config.linger_max() + SHUTDOWN_GRACE;
        if timeout(time_max, all_ended).await.is_err() {
            running.shutdown().await;
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn close(&self) {
        self.shared.gate.close();
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.values().for_each(|peer| peer.gate.close());
    }

    fn peer(&self, id: NodeId) -> Result<Arc<Peer>, SendError> {
        if self.shared.gate.is_closed() {
            return Err(SendError::Closed);
        }
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&id).cloned().ok_or(SendError::UnknownPeer { to: id })
    }
}

/// What all tasks of one transport share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NetConfig,
    pub(crate) events: mpsc::Sender<NetEvent>,
    pub(crate) notes: Notes,
    pub(crate) senders: Senders,
    pub(crate) strangers: Strangers,
    /// One permit for each connection from outside, after its hello.
    pub(crate) seats: Arc<Semaphore>,
    pub(crate) inbound_snapshots: Arc<Semaphore>,
    pub(crate) outbound_snapshots: Arc<Semaphore>,
    pub(crate) pace: Pace,
    pub(crate) lives: Lives,
    pub(crate) http: Http,
    pub(crate) gate: Gate,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    start: Instant,
}

impl Shared {
    /// The time, as a ping carries it: microseconds, never 0.
    pub(crate) fn token(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// How long ago a token was made; nothing for one that we did not make.
    pub(crate) fn since_token(&self, token: u64) -> Option<Duration> {
        (token != 0).then_some(())?;
        self.token().checked_sub(token).map(Duration::from_micros)
    }
}

/// The owner of all tasks. Dropped, it cuts them off.
#[derive(Debug)]
struct Tasks {
    runtime: Handle,
    running: Mutex<JoinSet<()>>,
    gate: Gate,
}

impl Tasks {
    /// Nothing is started once the gate is closed.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut running = self.running();
        // What has ended is let go here, so the set does not grow with every snapshot.
        while let Some(ended) = running.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a task did not end well");
            }
        }
        // Under the lock: `shutdown` closes the gate before it takes the set.
        if self.gate.is_closed() {
            return false;
        }
        running.spawn_on(task, &self.runtime);
        true
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One spelling for each address: IP addresses as the standard library writes them, names in lower
/// case.
fn normalised(address: &str) -> String {
    let address = address.trim();
    address
        .parse::<SocketAddr>()
        .map_or_else(|_| address.to_ascii_lowercase(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_are_one() {
        for (text, want) in [
            ("127.0.0.1:2380", "127.0.0.1:2380"),
            (" 127.0.0.1:2380", "127.0.0.1:2380"),
            ("[0:0::1]:2380", "[::1]:2380"),
            ("[FE80::A]:1", "[fe80::a]:1"),
            ("Node-1.Example.ORG:2380", "node-1.example.org:2380"),
            ("no port", "no port"),
        ] {
            assert_eq!(normalised(text), want, "{text:?}");
        }
    }
}
