//! The two ports of a node: datagrams for elections, connections for everything else.
//!
//! What comes in a datagram and is no vote is dropped and logged; it says nothing about the next
//! one. A listener that fails for a moment, for want of file descriptors say, is asked again soon.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quorate_codec::zab::{decode_datagram, encode_datagram};
use quorate_zab::Vote;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::Instant;

use crate::seal::Seal;

/// Longer datagrams than any node sends: what is cut off is no vote.
const DATAGRAM_BYTES_MAX: usize = 1500;

/// After an error of a port.
const PAUSE: Duration = Duration::from_millis(50);

/// The log has one line in so long about datagrams that are no votes.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The ports of one node, bound.
#[derive(Debug, Default)]
pub struct Lanes {
    election: Option<UdpSocket>,
    message: Option<TcpListener>,
    datagram: Vec<u8>,
    seal: Option<Seal>,
    paused_until: Option<Instant>,
    dropped_count: u64,
    logged_at: Option<Instant>,
}

impl Lanes {
    /// Binds both ports of a voter.
    ///
    /// # Errors
    ///
    /// That of the operating system.
    pub async fn bind(election: SocketAddr, message: SocketAddr) -> io::Result<Self> {
        let election = UdpSocket::bind(election).await?;
        let message = TcpListener::bind(message).await?;
        Ok(Self::of(Some(election), Some(message)))
    }

    /// Binds the election port alone: for a watcher that asks who leads.
    ///
    /// # Errors
    ///
    /// That of the operating system.
    pub async fn bind_election(election: SocketAddr) -> io::Result<Self> {
        Ok(Self::of(Some(UdpSocket::bind(election).await?), None))
    }

    /// No ports: for a watcher of a known leader.
    pub fn none() -> Self {
        Self::of(None, None)
    }

    /// Ports that are bound already.
    pub fn of(election: Option<UdpSocket>, message: Option<TcpListener>) -> Self {
        let datagram = vec![0; DATAGRAM_BYTES_MAX];
        Lanes { election, message, datagram, ..Lanes::default() }
    }

    /// From now on votes are sealed, and those that are not are dropped; or neither.
    pub(crate) fn seal(&mut self, key: Option<[u8; 32]>) {
        self.seal = key.map(Seal::new);
    }

    /// Waits until votes can be sent: a port that was only just bound takes none, and the first vote
    /// would be lost.
    pub(crate) async fn open(&self) -> io::Result<()> {
        match &self.election {
            Some(socket) => socket.writable().await,
            None => Ok(()),
        }
    }

    /// Where datagrams come in.
    pub fn election_address(&self) -> Option<SocketAddr> {
        self.election.as_ref().and_then(|socket| socket.local_addr().ok())
    }

    /// Where connections come in.
    pub fn message_address(&self) -> Option<SocketAddr> {
        self.message.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The next vote, or connection if any is wanted; others wait in the kernel. May be dropped at any time
    /// without losing one.
    pub(crate) async fn next(&mut self, wants_connections: bool) -> Arrival {
        loop {
            if let Some(until) = self.paused_until {
                tokio::time::sleep_until(until).await;
                self.paused_until = None;
            }
            let came = tokio::select! {
                came = receive(self.election.as_ref(), &mut self.datagram) => {
                    came.map(Came::Datagram)
                }
                came = accept(self.message.as_ref()), if wants_connections => {
                    came.map(|(stream, from)| Came::Connection(stream, from))
                }
            };
            match came {
                Ok(Came::Connection(stream, from)) => return Arrival::Connection { stream, from },
                Ok(Came::Datagram((count, from))) => {
                    let bytes = Bytes::copy_from_slice(&self.datagram[..count]);
                    if self.seal.as_ref().is_some_and(|seal| !seal.is_whole(&bytes)) {
                        self.log_dropped(from, &"without the ensemble's digest");
                        continue;
                    }
                    match decode_datagram(bytes) {
                        Ok(vote) => return Arrival::Vote { from, vote },
                        Err(error) => self.log_dropped(from, &error),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a port failed for a moment");
                    self.paused_until = Some(Instant::now() + PAUSE);
                }
            }
        }
    }

    /// Sends a vote, or loses it: the next one comes soon.
    pub(crate) fn send(&self, to: &str, vote: &Vote) {
        if let (Some(socket), Ok(to)) = (&self.election, to.parse::<SocketAddr>()) {
            let bare = encode_datagram(vote);
            let datagram =
                self.seal.as_ref().map_or_else(|| bare.clone(), |seal| seal.close(&bare));
            let _ = socket.try_send_to(&datagram, to);
        }
    }

    fn log_dropped(&mut self, from: SocketAddr, error: &dyn std::fmt::Display) {
        self.dropped_count += 1;
        if self.logged_at.is_none_or(|at| LOG_EVERY <= at.elapsed()) {
            let count = std::mem::take(&mut self.dropped_count);
            tracing::warn!(%from, %error, count, "dropped what is no vote");
            self.logged_at = Some(Instant::now());
        }
    }
}

enum Came {
    Datagram((usize, SocketAddr)),
    Connection(TcpStream, SocketAddr),
}

/// What came in at one of the ports.
pub(crate) enum Arrival {
    Vote { from: SocketAddr, vote: Vote },
    Connection { stream: TcpStream, from: SocketAddr },
}

async fn receive(socket: Option<&UdpSocket>, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(into).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_vote_is_not_lost() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut lanes = Lanes::bind_election(any).await.unwrap();
        let other = Lanes::bind_election(any).await.unwrap();
        let to = lanes.election_address().unwrap().to_string();
        other.open().await.unwrap();
        other.send(&to, &Vote { round: 7, ..Vote::default() });
        let came = tokio::time::timeout(Duration::from_secs(60), lanes.next(true)).await.unwrap();
        let Arrival::Vote { vote, .. } = came else { panic!("nobody connects") };
        assert_eq!(vote.round, 7);
    }

    #[tokio::test]
    async fn who_does_not_know_the_key_is_not_heard() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut lanes = Lanes::bind_election(any).await.unwrap();
        let mut other = Lanes::bind_election(any).await.unwrap();
        lanes.seal(Some([1; 32]));
        let to = lanes.election_address().unwrap().to_string();
        // Datagrams from one port to one other come in order here.
        for (round, key) in [(1, None), (2, Some([2; 32])), (3, Some([1; 32]))] {
            other.seal(key);
            other.open().await.unwrap();
            other.send(&to, &Vote { round, ..Vote::default() });
        }
        let came = tokio::time::timeout(Duration::from_secs(60), lanes.next(true)).await.unwrap();
        let Arrival::Vote { vote, .. } = came else { panic!("nobody connects") };
        assert_eq!(vote.round, 3);
    }
}
