//! Linearizable reads: a leader that a quorum still follows knows of everything that was committed
//! before.
//!
//! Whoever answers a Ping follows this leader at that moment, so it has not promised to a later one:
//! when a quorum has answered a Ping sent after a read was asked, no later leader had committed
//! anything when it was asked. Reads asked between two Pings share a round. The same Pings are the
//! signs of life on native connections. Where too few voters answer Pings, reads wait for a transaction
//! (`barrier.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_types::{Index, NodeId};

use crate::core::Core;
use crate::leading::{LeaderStage, Peer};
use crate::{ConnId, Message, ReadFailure, ReadId, Storage};

#[derive(Clone, Copy, Debug)]
enum Asker {
    /// This node itself.
    Own(ReadId),
    /// A learner, on its connection.
    Peer(ConnId, u64),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    asker: Asker,
    /// What may have been committed when it was asked.
    index: Index,
    /// The round that confirms it.
    round: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    waiting: VecDeque<Waiting>,
    /// The last round that was sent.
    round: u64,
    is_round_wanted: bool,
    pinged_ms: u64,
    /// The last round each voter has answered.
    answered: BTreeMap<NodeId, u64>,
}

impl Reads {
    /// A read of the leader itself. Up to `index` there is what may have been committed before.
    pub(crate) fn ask<S: Storage>(&mut self, core: &mut Core<S>, read: ReadId, index: Index) {
        self.add(core, Asker::Own(read), index);
    }

    pub(crate) fn ask_for_peer<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        id: u64,
        index: Index,
    ) {
        let asker = Asker::Peer(conn, id);
        match core.config.allow_gometa_voters {
            // It was not offered this: the same place may be another transaction's in its history.
            true => tell(core, asker, Err(ReadFailure::Unsupported)),
            false => self.add(core, asker, index),
        }
    }

    fn add<S: Storage>(&mut self, core: &mut Core<S>, asker: Asker, index: Index) {
        if core.config.reads_count_max <= self.waiting.len() + core.barriers.count() {
            tell(core, asker, Err(ReadFailure::Busy));
        } else {
            self.waiting.push_back(Waiting { asker, index, round: self.round + 1 });
            self.is_round_wanted = true;
        }
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn on_pong(&mut self, from: NodeId, number: u64) {
        // A number that was never sent confirms nothing.
        let answered = self.answered.entry(from).or_default();
        *answered = (*answered).max(number.min(self.round));
    }

    pub(crate) fn tick<S: Storage>(&mut self, core: &Core<S>) {
        self.is_round_wanted = self.is_round_wanted || self.wake_ms(core) <= core.now_ms;
    }

    /// When a round is due if nobody asks for one.
    pub(crate) fn wake_ms<S>(&self, core: &Core<S>) -> u64 {
        self.pinged_ms.saturating_add(core.config.keepalive_ms)
    }

    /// Those that were asked before this leader was established wait for no sign of life.
    pub(crate) fn on_established(&mut self) {
        self.is_round_wanted |= !self.waiting.is_empty();
    }

    /// Begins a round, if one is wanted.
    pub(crate) fn ping<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        peers: &BTreeMap<ConnId, Peer>,
        is_established: bool,
    ) {
        if !std::mem::take(&mut self.is_round_wanted) {
            return;
        }
        self.round += 1;
        self.pinged_ms = core.now_ms;
        for (conn, peer) in peers {
            if peer.is_native() && peer.stage == LeaderStage::Live {
                core.send(*conn, Message::Ping { number: self.round });
            }
        }
        let native = peers.values().filter(|peer| peer.is_native());
        let mut able: BTreeSet<NodeId> = native.filter_map(|peer| peer.voter).collect();
        able.insert(core.config.own.id);
        let has_gometa = peers.values().any(|peer| peer.voter.is_some() && !peer.is_native());
        if is_established && has_gometa && !is_quorum(core, &able) {
            // They would wait for ever.
            for waiting in std::mem::take(&mut self.waiting) {
                match waiting.asker {
                    Asker::Own(read) => core.await_barrier(read),
                    peer @ Asker::Peer(..) => tell(core, peer, Err(ReadFailure::Unsupported)),
                }
            }
        }
    }

    /// Answers what is confirmed.
    pub(crate) fn answer<S: Storage>(&mut self, core: &mut Core<S>, is_established: bool) {
        while let Some(first) = self.waiting.front().copied() {
            let answered = self.answered.iter().filter(|(_, round)| first.round <= **round);
            let mut nodes: BTreeSet<NodeId> = answered.map(|(node, _)| *node).collect();
            nodes.insert(core.config.own.id);
            if !is_established || self.round < first.round || !is_quorum(core, &nodes) {
                return;
            }
            self.waiting.pop_front();
            tell(core, first.asker, Ok(first.index));
        }
    }

    pub(crate) fn lose<S: Storage>(&mut self, core: &mut Core<S>) {
        for waiting in std::mem::take(&mut self.waiting) {
            tell(core, waiting.asker, Err(ReadFailure::NoLeader));
        }
    }
}

fn is_quorum<S: Storage>(core: &Core<S>, nodes: &BTreeSet<NodeId>) -> bool {
    core.voters.is_quorum(nodes)
}

fn tell<S: Storage>(core: &mut Core<S>, asker: Asker, answer: Result<Index, ReadFailure>) {
    match asker {
        Asker::Own(read) => core.ready.reads.push((read, answer)),
        Asker::Peer(conn, id) => {
            core.send(conn, Message::ReadIndexReply { id, index: answer.ok() });
        }
    }
}
