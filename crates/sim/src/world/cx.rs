//! What a member has of the world, and the queue of all that is to happen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;
use quorate_replica::{Engine, Message};
use quorate_types::{NodeId, bug};

use super::{Event, OpId, What};
use crate::chance::Chance;
use crate::check::Checks;
use crate::faults::Fault;
use crate::network::Network;
use crate::node::Said;
use crate::plan::{Plan, SECOND};
use crate::transfer::Chunk;
use crate::watching::Told;

/// What a member has of the world.
pub(crate) struct Cx<'a> {
    pub(crate) now: u64,
    pub(crate) chance: &'a mut Chance,
    pub(crate) plan: &'a Plan,
    pub(crate) checks: &'a mut Checks,
    pub(super) queue: &'a mut Queue,
    pub(super) net: &'a mut Network,
    pub(super) next_transfer: &'a mut u64,
}

impl Cx<'_> {
    pub(crate) fn after(&mut self, us: u64, id: NodeId, life: u64, what: What) {
        self.queue.push(self.now + us, Event::Node { id, life, what });
    }

    pub(crate) fn send(&mut self, from: NodeId, from_life: u64, to: NodeId, message: &Message) {
        let Some(delay) = self.net.delay(self.chance, from, to) else {
            self.checks.count_fault(Fault::Loss.name());
            if self.net.is_cut(from, to) {
                self.tell_unreachable(from, to);
            }
            return;
        };
        let bytes = match message.encode().as_slice() {
            [one] => one.clone(),
            several => Bytes::from(several.concat()),
        };
        // A connection delivers nothing twice; the engine is to bear it, but for a proposal that it
        // passes on, which would be made twice.
        let may_repeat = !message.is_proposal() || bug!("what-is-passed-on-comes-twice");
        if may_repeat && self.net.comes_twice(self.chance) {
            self.checks.count_fault(Fault::Duplication.name());
            let later = self.net.delay(self.chance, from, to).unwrap_or(delay);
            let what = What::Deliver { from, from_life, bytes: bytes.clone() };
            self.queue.push(self.now + later, Event::Any { id: to, what });
        }
        let (time, overtakes) = self.net.arrives(from, to, self.now + delay);
        if overtakes {
            self.checks.count_fault(Fault::Reordering.name());
        }
        let what = What::Deliver { from, from_life, bytes };
        self.queue.push(time, Event::Any { id: to, what });
    }

    /// The transport notices now and then that what it sends does not arrive.
    fn tell_unreachable(&mut self, from: NodeId, to: NodeId) {
        if self.plan.engine == Engine::Zab && self.chance.percent(30) {
            let delay = self.chance.between(1_000, 500_000);
            self.queue.push(self.now + delay, Event::Any { id: from, what: What::Unreachable(to) });
        }
    }

    pub(crate) fn answer(&mut self, client: usize, op: OpId, said: Said) {
        let delay = self.chance.between(50, 2_000);
        self.queue.push(self.now + delay, Event::Answer { client, op, said });
    }

    pub(crate) fn tell_watcher(&mut self, at: u64, watcher: usize, connection: u64, told: Told) {
        self.queue.push(at, Event::Told { watcher, connection, told });
    }

    pub(crate) fn next_transfer(&mut self) -> u64 {
        *self.next_transfer += 1;
        *self.next_transfer
    }

    /// Sends a piece of a stream, unless its connection is gone.
    pub(crate) fn send_chunk(
        &mut self,
        from: NodeId,
        life: u64,
        to: NodeId,
        transfer: u64,
        chunk: Chunk,
    ) -> bool {
        let breaks = self.chance.permille(self.net.plan.loss_permille / 10);
        if self.net.is_cut(from, to) || self.net.is_cut(to, from) || breaks {
            return false;
        }
        self.send_chunk_always(from, life, to, transfer, chunk);
        true
    }

    pub(crate) fn send_chunk_always(
        &mut self,
        from: NodeId,
        from_life: u64,
        to: NodeId,
        transfer: u64,
        chunk: Chunk,
    ) {
        // Also behind its end something may come: that its sender is gone.
        let time = self.net.stream(self.chance, self.now, from, to, transfer);
        let what = What::Chunk { from, from_life, transfer, chunk };
        self.queue.push(time, Event::Any { id: to, what });
    }

    /// Tells who sends a stream how it ended.
    pub(crate) fn tell_sender(&mut self, from: NodeId, to: NodeId, transfer: u64, ok: bool) {
        let delay = self.net.delay(self.chance, from, to).unwrap_or(5 * SECOND);
        // A lost word is a broken connection to the sender.
        let ok = ok && delay < 5 * SECOND;
        self.queue.push(self.now + delay, Event::Any { id: to, what: What::Sent { transfer, ok } });
    }
}

struct Queued {
    time: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.number) == (other.time, other.number)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.number).cmp(&(self.time, self.number))
    }
}

/// Events in the order of time, and of their coming where that is equal.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Queued>,
    count: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.heap.push(Queued { time, number: self.count, event });
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|queued| (queued.time, queued.event))
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
