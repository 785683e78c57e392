//! Linearizable reads: which round confirms them, and when the machine has caught up.
//!
//! A read joins the next round; a round asks the engine for one read index on behalf of all its
//! reads. A confirmed round waits until the machine has applied that index. A round is bound to the
//! leader under which it was asked: when that changes, its reads fail, because an index obtained
//! under one leader proves nothing under another.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::{Index, bug};

use crate::{Config, ReadFailure, ReadId};

/// Life and number of a round, as the engine carries them.
const CONTEXT_BYTES: usize = 16;

type Outcomes = Vec<(ReadId, Result<(), ReadFailure>)>;

/// Reads of this node that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Not yet in a round, oldest first, each with the tick at which it is no longer waited for.
    waiting: VecDeque<(u64, ReadId)>,
    /// Asked, oldest first.
    rounds: VecDeque<Round>,
    /// Confirmed at an index that is not applied yet, in order of index.
    confirmed: VecDeque<(Index, Vec<ReadId>)>,
    /// Which life of the node this is: an answer to an earlier life's question confirms nothing.
    life: u64,
    next_round: u64,
    count: usize,
}

#[derive(Debug)]
struct Round {
    number: u64,
    reads: Vec<ReadId>,
    asked_ticks: u64,
}

impl Reads {
    /// No reads yet, in the life of this number.
    pub(crate) fn new(life: u64) -> Self {
        Reads { life, ..Reads::default() }
    }

    /// A read arrives.
    pub(crate) fn ask(
        &mut self,
        config: &Config,
        read: ReadId,
        now_ticks: u64,
        outcomes: &mut Outcomes,
    ) {
        if config.reads_max <= self.count {
            outcomes.push((read, Err(ReadFailure::Busy)));
            return;
        }
        self.count += 1;
        self.waiting.push_back((now_ticks.saturating_add(config.parked_ticks_max), read));
    }

    /// Fails what waited too long for a leader, so that whoever comes later finds room.
    pub(crate) fn expire(&mut self, now_ticks: u64, outcomes: &mut Outcomes) {
        while self.waiting.front().is_some_and(|(deadline_ticks, _)| *deadline_ticks <= now_ticks) {
            let Some((_, read)) = self.waiting.pop_front() else { return };
            self.count -= 1;
            outcomes.push((read, Err(ReadFailure::NoLeader)));
        }
    }

    /// The context to ask the engine with, when there are reads for a round and room for one.
    pub(crate) fn next_round(&mut self, config: &Config, now_ticks: u64) -> Option<Bytes> {
        let number = self.next_number(config, now_ticks)?;
        Some(self.context(number))
    }

    /// The same, for an engine that knows rounds by their number.
    pub(crate) fn next_number(&mut self, config: &Config, now_ticks: u64) -> Option<u64> {
        if self.waiting.is_empty() || config.read_rounds_max <= self.rounds.len() {
            return None;
        }
        let reads = std::mem::take(&mut self.waiting).into_iter().map(|(_, read)| read).collect();
        Some(self.open(reads, now_ticks))
    }

    /// The context to ask again with, for a round whose message may be lost. The old context is
    /// forgotten, so a late answer to it confirms nothing.
    pub(crate) fn retry(&mut self, config: &Config, now_ticks: u64) -> Option<Bytes> {
        let oldest = self.rounds.front()?;
        if now_ticks < oldest.asked_ticks + config.read_retry_ticks {
            return None;
        }
        let round = self.rounds.pop_front()?;
        let number = self.open(round.reads, now_ticks);
        Some(self.context(number))
    }

    /// What the engine carries for the round of this number.
    pub(crate) fn context(&self, number: u64) -> Bytes {
        let mut context = BytesMut::with_capacity(CONTEXT_BYTES);
        context.put_u64(self.life);
        context.put_u64(number);
        context.freeze()
    }

    /// Whether reads are answered as soon as more is applied.
    pub(crate) fn await_applied(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// The engine confirmed the round of this context at `index`.
    pub(crate) fn on_confirmed(&mut self, context: &[u8], index: Index) {
        let Some(round) = self.take_round(context) else { return };
        let index = if bug!("reads-before-it-has-applied") { Index(0) } else { index };
        // Indexes of one leader only grow; the queue stays in order even if answers do not.
        let at = self.confirmed.partition_point(|(other, _)| *other <= index);
        self.confirmed.insert(at, (index, round.reads));
    }

    /// The engine can no longer confirm the round of this context.
    pub(crate) fn on_lost(&mut self, context: &[u8], outcomes: &mut Outcomes) {
        if let Some(round) = self.take_round(context) {
            self.fail(round, outcomes);
        }
    }

    /// The leader changed: everything asked under the former one fails.
    pub(crate) fn on_leader_change(&mut self, outcomes: &mut Outcomes) {
        for round in std::mem::take(&mut self.rounds) {
            self.fail(round, outcomes);
        }
    }

    /// The machine has applied everything up to `applied`.
    pub(crate) fn on_applied(&mut self, applied: Index, outcomes: &mut Outcomes) {
        while self.confirmed.front().is_some_and(|(index, _)| *index <= applied) {
            let Some((_, reads)) = self.confirmed.pop_front() else { return };
            self.count -= reads.len();
            outcomes.extend(reads.into_iter().map(|read| (read, Ok(()))));
        }
    }

    /// How many are not answered yet.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn fail(&mut self, round: Round, outcomes: &mut Outcomes) {
        self.count -= round.reads.len();
        outcomes
            .extend(round.reads.into_iter().map(|read| (read, Err(ReadFailure::LeaderChanged))));
    }

    fn open(&mut self, reads: Vec<ReadId>, now_ticks: u64) -> u64 {
        self.next_round += 1;
        let number = self.next_round;
        self.rounds.push_back(Round { number, reads, asked_ticks: now_ticks });
        number
    }

    fn take_round(&mut self, mut context: &[u8]) -> Option<Round> {
        if context.len() != CONTEXT_BYTES || context.get_u64() != self.life {
            return None;
        }
        let number = context.get_u64();
        let at = self.rounds.iter().position(|round| round.number == number)?;
        self.rounds.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::NodeId;

    use super::*;

    fn config() -> Config {
        Config { reads_max: 4, read_rounds_max: 2, ..Config::new(NodeId(1), 1) }
    }

    #[test]
    fn reads_share_rounds_and_wait_for_the_machine() {
        let (config, mut reads, mut outcomes) = (config(), Reads::default(), Vec::new());
        reads.ask(&config, ReadId(1), 0, &mut outcomes);
        let first = reads.next_round(&config, 0).unwrap();
        reads.ask(&config, ReadId(2), 0, &mut outcomes);
        reads.ask(&config, ReadId(3), 0, &mut outcomes);
        let second = reads.next_round(&config, 0).unwrap();
        reads.ask(&config, ReadId(4), 0, &mut outcomes);
        assert_eq!(reads.next_round(&config, 0), None, "two rounds at once are the limit");
        reads.ask(&config, ReadId(5), 0, &mut outcomes);
        assert_eq!(outcomes, [(ReadId(5), Err(ReadFailure::Busy))]);
        outcomes.clear();

        reads.on_confirmed(&second, Index(9));
        reads.on_confirmed(&first, Index(7));
        reads.on_confirmed(&first, Index(8));
        reads.on_applied(Index(6), &mut outcomes);
        assert_eq!(outcomes, []);
        reads.on_applied(Index(7), &mut outcomes);
        assert_eq!(outcomes, [(ReadId(1), Ok(()))]);
        reads.on_applied(Index(20), &mut outcomes);
        assert_eq!(outcomes[1..], [(ReadId(2), Ok(())), (ReadId(3), Ok(()))]);
        assert_eq!(reads.count(), 1);
    }

    #[test]
    fn a_late_answer_to_a_retried_round_confirms_nothing() {
        let (config, mut reads, mut outcomes) = (config(), Reads::default(), Vec::new());
        reads.ask(&config, ReadId(1), 0, &mut outcomes);
        let first = reads.next_round(&config, 0).unwrap();
        assert_eq!(reads.retry(&config, config.read_retry_ticks - 1), None);
        let again = reads.retry(&config, config.read_retry_ticks).unwrap();
        assert_ne!(first, again);
        reads.on_confirmed(&first, Index(3));
        reads.on_applied(Index(9), &mut outcomes);
        assert_eq!(outcomes, []);
        reads.on_confirmed(&again, Index(4));
        reads.on_applied(Index(9), &mut outcomes);
        assert_eq!(outcomes, [(ReadId(1), Ok(()))]);
    }

    #[test]
    fn a_change_of_leader_fails_what_was_asked() {
        let (config, mut reads, mut outcomes) = (config(), Reads::default(), Vec::new());
        reads.ask(&config, ReadId(1), 0, &mut outcomes);
        let context = reads.next_round(&config, 0).unwrap();
        reads.ask(&config, ReadId(2), 0, &mut outcomes);
        reads.on_leader_change(&mut outcomes);
        assert_eq!(outcomes, [(ReadId(1), Err(ReadFailure::LeaderChanged))]);
        reads.on_confirmed(&context, Index(1));
        reads.on_applied(Index(1), &mut outcomes);
        assert_eq!(outcomes.len(), 1, "an answer of the former leader's time is thrown away");
        assert!(reads.next_round(&config, 0).is_some(), "a read not yet asked joins a new round");
    }

    #[test]
    fn who_waits_for_a_leader_makes_room_in_time() {
        let (config, mut reads, mut outcomes) = (config(), Reads::default(), Vec::new());
        for read in 1..=4 {
            reads.ask(&config, ReadId(read), read, &mut outcomes);
        }
        reads.expire(config.parked_ticks_max, &mut outcomes);
        assert_eq!(outcomes, []);
        reads.expire(config.parked_ticks_max + 2, &mut outcomes);
        let failed = Err(ReadFailure::NoLeader);
        assert_eq!(outcomes, [(ReadId(1), failed), (ReadId(2), failed)]);
        reads.ask(&config, ReadId(5), 90, &mut outcomes);
        assert_eq!((reads.count(), outcomes.len()), (3, 2), "there is room again");
        reads.next_round(&config, 90).unwrap();
        reads.expire(u64::MAX, &mut outcomes);
        assert_eq!(outcomes.len(), 2, "what a leader was asked ends with that leader");
    }

    #[test]
    fn an_answer_to_an_earlier_life_confirms_nothing() {
        let (config, mut outcomes) = (config(), Vec::new());
        let (mut before, mut after) = (Reads::new(1), Reads::new(2));
        before.ask(&config, ReadId(1), 0, &mut outcomes);
        after.ask(&config, ReadId(1), 0, &mut outcomes);
        let late = before.next_round(&config, 0).unwrap();
        let own = after.next_round(&config, 0).unwrap();
        after.on_confirmed(&late, Index(1));
        after.on_applied(Index(1), &mut outcomes);
        assert_eq!(outcomes, []);
        after.on_confirmed(&own, Index(1));
        after.on_applied(Index(1), &mut outcomes);
        assert_eq!(outcomes, [(ReadId(1), Ok(()))]);
    }

    #[test]
    fn nonsense_contexts_are_ignored() {
        let mut reads = Reads::default();
        for context in [&b""[..], b"short", b"much too long a context"] {
            reads.on_confirmed(context, Index(1));
        }
    }
}
