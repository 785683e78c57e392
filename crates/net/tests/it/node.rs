//! One transport under test, and waiting for what it should do.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quorate_net::{Net, NetConfig, NetEvent, PeerStatus, SendError};
use quorate_types::NodeId;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Reached only by a fault.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const CLUSTER: u64 = 0x0c;

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) net: Net,
    pub(crate) events: mpsc::Receiver<NetEvent>,
}

/// Quick to dial again, slow to take a busy machine for a dead peer.
pub(crate) fn config(id: u64) -> NetConfig {
    NetConfig {
        ping_interval_ms: 50,
        silence_ms_max: 30_000,
        write_ms_max: 30_000,
        hello_timeout_ms: 30_000,
        connect_timeout_ms: 30_000,
        backoff_min_ms: 5,
        backoff_max_ms: 50,
        linger_ms_max: 10_000,
        ..NetConfig::new(CLUSTER, NodeId(id))
    }
}

impl Node {
    pub(crate) async fn start(config: NetConfig) -> Node {
        Node::start_at(config, "127.0.0.1:0".parse().expect("an address")).await
    }

    /// On a given port, which a connection that was just closed may still hold for a moment.
    pub(crate) async fn start_at(config: NetConfig, address: SocketAddr) -> Node {
        let binding = async {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let listener = timeout(DEADLINE, binding).await.expect("the port is free in time");
        let (events, inbox) = mpsc::channel(1024);
        let id = config.node;
        let address = listener.local_addr().expect("it is bound");
        Node { id, address, net: Net::start(config, vec![listener], events), events: inbox }
    }

    pub(crate) fn knows(&self, other: &Node) {
        self.net.set_peer(other.id, vec![other.address.to_string()]);
    }

    /// The next event for which `pick` finds something; all others are dropped.
    pub(crate) async fn event<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(NetEvent) -> Option<T>,
    ) -> T {
        let picking = async {
            loop {
                let event = self.events.recv().await.expect("the transport runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, picking).await.unwrap_or_else(|_| panic!("never saw {what}"))
    }

    pub(crate) async fn message(&mut self) -> (NodeId, Bytes) {
        self.event("a message", |event| match event {
            NetEvent::Message { from, payload } => Some((from, payload)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn unreachable(&mut self) -> NodeId {
        self.event("a lost peer", |event| match event {
            NetEvent::Unreachable { to, .. } => Some(to),
            _ => None,
        })
        .await
    }

    pub(crate) async fn absent(&mut self) -> NodeId {
        self.event("a peer that is gone", |event| match event {
            NetEvent::Unreachable { to, is_absent: true } => Some(to),
            _ => None,
        })
        .await
    }

    pub(crate) fn status(&self, of: NodeId) -> PeerStatus {
        self.net.peers().into_iter().find(|status| status.id == of).expect("it is a peer")
    }

    pub(crate) async fn connected_to(&self, other: NodeId) {
        until("a connection", || self.status(other).connected_since.is_some()).await;
    }

    /// Sends, waiting for room.
    pub(crate) async fn send(&self, to: NodeId, payload: impl Into<Bytes>) {
        let payload = payload.into();
        let sending = async {
            while let Err(error) = self.net.send(to, vec![payload.clone()]) {
                assert_eq!(error, SendError::Full { to });
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, sending).await.expect("there is room in time");
    }

    /// Sends messages again and again until one arrives: connections under test may be broken.
    pub(crate) async fn gets_through_to(&self, other: &mut Node, text: &'static str) {
        let got = async {
            loop {
                let _ = self.net.send(other.id, vec![Bytes::from_static(text.as_bytes())]);
                let waiting = timeout(Duration::from_millis(50), other.events.recv());
                if let Ok(Some(NetEvent::Message { from, payload })) = waiting.await
                    && (from, &payload[..]) == (self.id, text.as_bytes())
                {
                    return;
                }
            }
        };
        timeout(DEADLINE, got).await.unwrap_or_else(|_| panic!("{text:?} never arrived"));
    }
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never saw {what}"));
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(seed: u64, length: usize) -> Bytes {
    (0..length as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed) >> 29) as u8)
        .collect()
}
