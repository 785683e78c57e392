//! The peer port: every connection from outside comes through here, is told apart, and is let in or
//! refused.
//!
//! Until its hello is read and found right, a connection costs a task, a socket and a fixed buffer;
//! how many there are and how long they stay is bounded. When too many wait, the oldest of the
//! address that has most of them makes room, so a flood from one place keeps no other out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::event::{Refusal, RefusedBy};
use crate::hello::{
    Hello, Opening, OpeningError, Purpose, read_opening, write_hello, write_refusal,
};
use crate::link::{Link, plain};
use crate::net::Shared;
use crate::senders::Place;
use crate::{inbound, snapshot};

/// Pause after a failed accept: most often there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the gate closes, then waits for all its connections to end.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    // One more than may wait: who must make room for it may take a moment to go, and until then no
    // other is accepted, so that a flood takes no more files than that.
    let rooms_max = shared.config.pending_hellos_max.saturating_add(1).min(Semaphore::MAX_PERMITS);
    let rooms = Arc::new(Semaphore::new(rooms_max));
    let accept = async || {
        let room = Arc::clone(&rooms).acquire_owned().await;
        (listener.accept().await, room)
    };
    loop {
        tokio::select! {
            biased;
            () = shared.gate.closed() => break,
            Some(ended) = connections.join_next() => report(ended),
            (accepted, room) = accept() => match accepted {
                Ok((stream, address)) => {
                    let ticket = shared.strangers.enter(address.ip());
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let admitted = greet(&shared, stream, address, ticket).await;
                        drop(room);
                        if let Some(admitted) = admitted {
                            serve(&shared, admitted).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task did not end well");
    }
}

/// A connection that was let in.
pub(crate) struct Admitted {
    pub(crate) link: Link,
    pub(crate) hello: Hello,
    pub(crate) access: Access,
}

/// What it was let in for, and what it holds while it lasts.
pub(crate) enum Access {
    Messages { seat: OwnedSemaphorePermit, place: Place },
    Snapshot { _seat: OwnedSemaphorePermit, _lane: OwnedSemaphorePermit },
}

/// One connection that was let in, to its end.
async fn serve(shared: &Shared, admitted: Admitted) {
    let Admitted { link, hello, access } = admitted;
    match access {
        Access::Messages { seat, place } => inbound::run(shared, link, hello, place, seat).await,
        Access::Snapshot { _seat, _lane } => tokio::select! {
            biased;
            _ = shared.lives.contradicted(&hello) => {}
            () = snapshot::receive(shared, link, hello) => {}
        },
    }
}

/// Hears a hello and answers it, in bounded time.
async fn greet(
    shared: &Shared,
    stream: TcpStream,
    address: SocketAddr,
    mut ticket: Ticket,
) -> Option<Admitted> {
    let mut peer = None;
    let greeting = async {
        let mut link = plain(stream);
        let hello = match read_opening(&mut link).await {
            Ok(Opening::Hello(hello)) => hello,
            Ok(Opening::Refused(_)) => return Err((link, Refusal::BadHello)),
            Err(OpeningError::Bad(reason)) => return Err((link, reason)),
            Err(OpeningError::Http(read)) => {
                return match shared.http.take(read, link, address) {
                    Ok(()) => Ok(None),
                    Err(link) => Err((link, Refusal::Http)),
                };
            }
            Err(OpeningError::Lost(_)) => return Ok(None),
        };
        peer = hello.from.known();
        let access = match admit(shared, &hello).await {
            Ok(Some(access)) => access,
            Ok(None) => return Ok(None),
            Err(reason) => return Err((link, reason)),
        };
        let ours = Hello::new(&shared.config, hello.from, hello.purpose);
        match write_hello(&mut link, &ours, shared.config.write_max()).await {
            Ok(()) => Ok(Some(Admitted { link, hello, access })),
            Err(_) => Ok(None),
        }
    };
    let (link, reason) = tokio::select! {
        biased;
        () = shared.gate.closed() => return None,
        _ = &mut ticket.evicted => (None, Refusal::Busy),
        greeted = timeout(shared.config.hello_timeout(), greeting) => match greeted {
            Ok(Ok(admitted)) => return admitted,
            Ok(Err((link, reason))) => (Some(link), reason),
            Err(_) => (None, Refusal::Silent),
        },
    };
    shared.notes.refusal(RefusedBy::Us, reason, peer, Some(address));
    if let Some(mut link) = link.filter(|_| speaks_our_tongue(reason)) {
        let answering = write_refusal(&mut link, reason, shared.config.write_max());
        let _ = timeout(shared.config.linger_max(), answering).await;
    }
    None
}

/// Whether who is refused so would understand a refusal; all others are just closed.
fn speaks_our_tongue(reason: Refusal) -> bool {
    !matches!(reason, Refusal::Http | Refusal::Tls | Refusal::Garbage | Refusal::Silent)
}

/// Finds a place for the sender of this hello. Nothing when a newer connection took it meanwhile.
async fn admit(shared: &Shared, hello: &Hello) -> Result<Option<Access>, Refusal> {
    hello.judge(&shared.config)?;
    shared.lives.judge(hello)?;
    match hello.purpose {
        Purpose::Messages => {
            // First the place: the connection it ends may hold the last seat.
            let claim = shared.senders.claim(hello.from, hello.incarnation)?;
            let Some(place) = claim.wait().await else {
                return Ok(None);
            };
            let seat = Arc::clone(&shared.seats).try_acquire_owned();
            Ok(Some(Access::Messages { seat: seat.map_err(|_| Refusal::Busy)?, place }))
        }
        Purpose::Snapshot => {
            shared.senders.check(hello.from, hello.incarnation)?;
            let lane = Arc::clone(&shared.inbound_snapshots).try_acquire_owned();
            let seat = Arc::clone(&shared.seats).try_acquire_owned();
            Ok(Some(Access::Snapshot {
                _seat: seat.map_err(|_| Refusal::Busy)?,
                _lane: lane.map_err(|_| Refusal::Busy)?,
            }))
        }
    }
}

/// Connections that have not said hello.
#[derive(Debug)]
pub(crate) struct Strangers {
    count_max: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_number: u64,
    /// In the order they came. Dropping a sender evicts.
    all: VecDeque<(u64, IpAddr, oneshot::Sender<()>)>,
}

/// The place of one stranger, given back when it is dropped.
#[derive(Debug)]
struct Ticket {
    number: u64,
    evicted: oneshot::Receiver<()>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Strangers {
    pub(crate) fn new(count_max: usize) -> Strangers {
        Strangers { count_max, waiting: Arc::default() }
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.waiting).all.len()
    }

    /// Lets one in, and another out if there are too many.
    fn enter(&self, address: IpAddr) -> Ticket {
        let mut waiting = lock(&self.waiting);
        if self.count_max <= waiting.all.len() {
            waiting.evict_one();
        }
        let (evict, evicted) = oneshot::channel();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.all.push_back((number, address, evict));
        Ticket { number, evicted, waiting: Arc::clone(&self.waiting) }
    }
}

impl Waiting {
    /// The oldest of the address that has most.
    fn evict_one(&mut self) {
        let mut counts = BTreeMap::new();
        for (_, address, _) in &self.all {
            *counts.entry(*address).or_insert(0) += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(address, _)| address);
        if let Some(at) = self.all.iter().position(|(_, address, _)| Some(*address) == most) {
            self.all.remove(at);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.waiting).all.retain(|(number, _, _)| *number != self.number);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_loudest_address_makes_room() {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let strangers = Strangers::new(4);
        let quiet = strangers.enter(address(1));
        let mut loud: Vec<_> = (0..100).map(|_| strangers.enter(address(2))).collect();
        let is_evicted = |ticket: &mut Ticket| {
            ticket.evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let mut quiet = quiet;
        assert!(!is_evicted(&mut quiet), "one flood does not keep others out");
        let kept = loud.iter_mut().map(is_evicted).filter(|evicted| !evicted).count();
        assert_eq!(kept, 3);
        assert!(!is_evicted(loud.last_mut().expect("a hundred")), "the newest stays");
        assert_eq!(strangers.count(), 4);
        drop((quiet, loud));
        assert_eq!(strangers.count(), 0);
    }
}
