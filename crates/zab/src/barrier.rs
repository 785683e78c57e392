//! Linearizable reads where too few voters can say that they still follow: gometa's know no Ping.
//!
//! A transaction that changes nothing is committed for them, as a request of the node that is asked. It
//! stands behind all that was committed when it was proposed, so a read may be served once it is applied
//! here. One is under way at a time, for all reads that were there before it; those that come meanwhile
//! wait for the next. A leader that does not get it committed is given up, or it would hold them all back.
//!
//! Among gometa voters no node goes by a place that another names, either: what a gometa leader has lost
//! some may have, so the same transaction may stand elsewhere in their histories. Hence a leader that takes
//! such voters does not say that it answers reads of others.

use bytes::Bytes;
use quorate_types::Index;

use crate::core::Core;
use crate::{Command, Outcome, ProposalId, ReadFailure, ReadId, Storage};

#[derive(Clone, Debug, Default)]
pub(crate) struct Barriers {
    waiting: Vec<ReadId>,
    under_way: Option<Barrier>,
}

/// A transaction that reads wait for.
#[derive(Clone, Debug)]
struct Barrier {
    request: u64,
    reads: Vec<ReadId>,
    /// Since when it is for the leader to get it committed.
    since_ms: u64,
    /// Where it stands in the history here, once it does.
    place: Option<Index>,
}

impl Barriers {
    /// How many reads wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting.len() + self.under_way.as_ref().map_or(0, |barrier| barrier.reads.len())
    }

    /// Since when the one under way is for the leader to get committed, as far as this node knew last.
    pub(crate) fn since_ms(&self) -> Option<u64> {
        self.under_way.as_ref().map(|barrier| barrier.since_ms)
    }
}

impl<S: Storage> Core<S> {
    /// A read that no round of messages can confirm.
    pub(crate) fn await_barrier(&mut self, read: ReadId) {
        match &self.config.barrier_key {
            Some(_) => self.barriers.waiting.push(read),
            None => self.ready.reads.push((read, Err(ReadFailure::Unsupported))),
        }
    }

    /// The next barrier, to be asked for under this id, if there is any need.
    pub(crate) fn next_barrier(&mut self) -> Option<(u64, Command)> {
        if self.barriers.waiting.is_empty() || self.barriers.under_way.is_some() {
            return None;
        }
        if self.config.requests_count_max <= self.requests.count() {
            self.fail_barriers(ReadFailure::Busy);
            return None;
        }
        let command = Command::set(self.config.barrier_key.as_deref()?, Bytes::new());
        let request = self.new_request();
        let reads = std::mem::take(&mut self.barriers.waiting);
        let since_ms = self.now_ms;
        self.barriers.under_way = Some(Barrier { request, reads, since_ms, place: None });
        Some((request, command))
    }

    /// Answers those who waited for a barrier of which it is known what became.
    pub(crate) fn settle_barrier(&mut self) {
        let Some(Barrier { request, .. }) = self.barriers.under_way else { return };
        let is_wanted = |(id, _): &(ProposalId, Outcome)| id.0 == request;
        let Some(at) = self.ready.answers.iter().position(is_wanted) else { return };
        let (_, outcome) = self.ready.answers.remove(at);
        let answer = match outcome {
            Outcome::Committed { index, .. } => Ok(index),
            Outcome::Refused { .. } | Outcome::Answered { .. } => Err(ReadFailure::Busy),
            Outcome::Unknown => Err(ReadFailure::NoLeader),
        };
        let reads = self.barriers.under_way.take().map_or_else(Vec::new, |barrier| barrier.reads);
        self.ready.reads.extend(reads.into_iter().map(|read| (read, answer)));
    }

    /// Lets the leader be for as long as its transaction waits for this node's own disk, and once it is
    /// committed.
    pub(crate) fn excuse_leader(&mut self) {
        let Some(barrier) = &mut self.barriers.under_way else { return };
        if barrier.place.is_none() {
            barrier.place = self.requests.place_of(barrier.request);
        }
        let is_excused = |place| self.history.durable() < place || place <= self.commit;
        if barrier.place.is_some_and(is_excused) {
            barrier.since_ms = self.now_ms;
        }
    }

    /// Those for whom no barrier is under way yet wait in vain.
    pub(crate) fn fail_barriers(&mut self, why: ReadFailure) {
        let waiting = std::mem::take(&mut self.barriers.waiting);
        self.ready.reads.extend(waiting.into_iter().map(|read| (read, Err(why))));
    }
}
