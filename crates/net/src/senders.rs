//! Who sends to us: at most one connection for messages from each node, the newest of the latest
//! start of that node.
//!
//! A node that dials again has given up its older connection, so the newer one takes the place, and
//! begins only when the older has ended: no message of the older follows one of the newer. While a
//! connection of a later start lives, an earlier start (a process that should be gone) is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_types::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::event::Refusal;

#[derive(Debug)]
pub(crate) struct Senders {
    slots_max: usize,
    slots: Mutex<BTreeMap<NodeId, Slot>>,
}

#[derive(Debug)]
struct Slot {
    incarnation: u64,
    /// Dropped, it ends the connection; closed, the connection has ended.
    replace: oneshot::Sender<()>,
    turn: Arc<Semaphore>,
    received: Arc<Received>,
}

/// What came from one node over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Received {
    messages: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl Received {
    pub(crate) fn count(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A connection has ended, and not because either side wanted it to.
    pub(crate) fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A connection's claim on the place of its node. It becomes a [`Place`] when its turn comes.
#[derive(Debug)]
pub(crate) struct Claim {
    replaced: oneshot::Receiver<()>,
    turn: Arc<Semaphore>,
    received: Arc<Received>,
}

/// The one connection of a node, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Place {
    /// Done when a newer connection wants the place.
    pub(crate) replaced: oneshot::Receiver<()>,
    pub(crate) received: Arc<Received>,
    _turn: OwnedSemaphorePermit,
}

impl Senders {
    pub(crate) fn new(connections_max: usize) -> Senders {
        Senders { slots_max: connections_max.saturating_mul(2), slots: Mutex::default() }
    }

    /// Whether a connection of this start may do anything.
    pub(crate) fn check(&self, from: NodeId, incarnation: u64) -> Result<(), Refusal> {
        check(&self.slots(), from, incarnation)
    }

    /// Claims the place of a node, and ends the connection that has it.
    pub(crate) fn claim(&self, from: NodeId, incarnation: u64) -> Result<Claim, Refusal> {
        let mut slots = self.slots();
        check(&slots, from, incarnation)?;
        if !slots.contains_key(&from) && self.slots_max <= slots.len() {
            let idle = slots.iter().find(|(_, slot)| !slot.is_alive()).map(|(id, _)| *id);
            slots.remove(&idle.ok_or(Refusal::Busy)?);
        }
        let (replace, replaced) = oneshot::channel();
        let (turn, received) = match slots.remove(&from) {
            Some(slot) => (slot.turn, slot.received),
            None => (Arc::new(Semaphore::new(1)), Arc::default()),
        };
        let claim = Claim { replaced, turn: Arc::clone(&turn), received: Arc::clone(&received) };
        slots.insert(from, Slot { incarnation, replace, turn, received });
        Ok(claim)
    }

    /// What came from each node that is remembered.
    pub(crate) fn received(&self, from: NodeId) -> Option<Arc<Received>> {
        self.slots().get(&from).map(|slot| Arc::clone(&slot.received))
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<NodeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(slots: &BTreeMap<NodeId, Slot>, from: NodeId, incarnation: u64) -> Result<(), Refusal> {
    match slots.get(&from) {
        Some(slot) if slot.is_alive() && incarnation < slot.incarnation => {
            Err(Refusal::StaleIncarnation)
        }
        Some(_) | None => Ok(()),
    }
}

impl Slot {
    fn is_alive(&self) -> bool {
        !self.replace.is_closed()
    }
}

impl Claim {
    /// Waits for the end of the connection before, or gives up when a newer one came meanwhile.
    pub(crate) async fn wait(mut self) -> Option<Place> {
        tokio::select! {
            biased;
            _ = &mut self.replaced => None,
            turn = self.turn.acquire_owned() => Some(Place {
                replaced: self.replaced,
                received: self.received,
                _turn: turn.expect("turns are never closed"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);

    #[tokio::test]
    async fn the_newest_takes_the_place_once_the_older_has_ended() {
        let senders = Senders::new(4);
        let mut first = senders.claim(A, 5).expect("free").wait().await.expect("its turn");
        first.received.count(10);
        let second = senders.claim(A, 5).expect("the same start may dial again");
        assert!(
            first.replaced.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        let waiting = tokio::spawn(second.wait());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the first has not ended");
        drop(first);
        let second = waiting.await.expect("no panic").expect("its turn");
        assert_eq!(second.received.bytes(), 10, "counted over all connections");
    }

    #[tokio::test]
    async fn of_three_the_one_between_gives_up() {
        let senders = Senders::new(4);
        let first = senders.claim(A, 0).expect("free").wait().await.expect("its turn");
        let second = senders.claim(A, 0).expect("newer");
        let third = senders.claim(A, 0).expect("newest");
        drop(first);
        assert!(second.wait().await.is_none());
        assert!(third.wait().await.is_some());
    }

    #[tokio::test]
    async fn an_earlier_start_is_refused_while_a_later_one_is_connected() {
        let senders = Senders::new(4);
        let later = senders.claim(A, 5).expect("free").wait().await.expect("its turn");
        assert_eq!(senders.claim(A, 4).err(), Some(Refusal::StaleIncarnation));
        assert_eq!(senders.check(A, 4), Err(Refusal::StaleIncarnation));
        drop(later);
        assert!(senders.claim(A, 4).is_ok(), "nothing contradicts it any more");
    }

    #[tokio::test]
    async fn the_table_is_bounded() {
        let senders = Senders::new(1);
        let one = senders.claim(NodeId(1), 0).expect("free");
        let _two = senders.claim(NodeId(2), 0).expect("free");
        assert_eq!(senders.claim(NodeId(3), 0).err(), Some(Refusal::Busy));
        drop(one);
        assert!(senders.claim(NodeId(3), 0).is_ok(), "an idle one is forgotten");
        assert!(senders.received(NodeId(1)).is_none());
    }
}
