//! Linearizable reads where too few voters can say that they still follow: gometa's know no Ping.
//!
//! A transaction that changes nothing is committed for them, as a request of the node that is asked. It
//! stands behind all that was committed when it was proposed, so a read may be served once it is applied
//! here. One is under way at a time, for all reads that were there before it; those that come meanwhile
//! wait for the next.
//!
//! Among gometa voters no node goes by a place that another names, either: what a gometa leader has lost
//! some may have, so the same transaction may stand elsewhere in their histories. Hence a leader that takes
//! such voters does not say that it answers reads of others.

use bytes::Bytes;

use crate::core::Core;
use crate::{Command, Outcome, ProposalId, ReadFailure, ReadId, Storage};

#[derive(Clone, Debug, Default)]
pub(crate) struct Barriers {
    waiting: Vec<ReadId>,
    /// The request that is made for these.
    under_way: Option<(u64, Vec<ReadId>)>,
}

impl Barriers {
    /// How many reads wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting.len() + self.under_way.as_ref().map_or(0, |(_, reads)| reads.len())
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
        let id = self.new_request();
        self.barriers.under_way = Some((id, std::mem::take(&mut self.barriers.waiting)));
        Some((id, command))
    }

    /// Answers those who waited for a barrier of which it is known what became.
    pub(crate) fn settle_barrier(&mut self) {
        let Some((wanted, _)) = self.barriers.under_way else { return };
        let is_wanted = |(id, _): &(ProposalId, Outcome)| id.0 == wanted;
        let Some(at) = self.ready.answers.iter().position(is_wanted) else { return };
        let (_, outcome) = self.ready.answers.remove(at);
        let answer = match outcome {
            Outcome::Committed { index, .. } => Ok(index),
            Outcome::Refused { .. } | Outcome::Answered { .. } => Err(ReadFailure::Busy),
            Outcome::Unknown => Err(ReadFailure::NoLeader),
        };
        let reads = self.barriers.under_way.take().map_or_else(Vec::new, |(_, reads)| reads);
        self.ready.reads.extend(reads.into_iter().map(|read| (read, answer)));
    }

    /// Those for whom no barrier is under way yet wait in vain.
    pub(crate) fn fail_barriers(&mut self, why: ReadFailure) {
        let waiting = std::mem::take(&mut self.barriers.waiting);
        self.ready.reads.extend(waiting.into_iter().map(|read| (read, Err(why))));
    }
}
