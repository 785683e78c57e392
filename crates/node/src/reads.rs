//! What became of the reads that somebody waits for.
//!
//! The engine gives a read's index back together with the bytes it was asked with. Those of
//! [`Node::read`](crate::Node::read) are made here, and its answers go to who waits and not to the
//! application. An answer may come late, even to a node that was restarted since, and would then be
//! too low for a read with the same bytes; so they hold a number that no other start draws.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use quorate_raft::ReadState;
use quorate_types::Index;
use tokio::sync::oneshot;

use crate::ReadError;

pub(crate) type ReadAnswer = Result<Index, ReadError>;

// The bytes of a read: this start's number (16), the read's own (8), little-endian.
const CONTEXT_BYTES: usize = 24;

#[derive(Debug)]
pub(crate) struct Reads {
    start: [u8; 16],
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<ReadAnswer>>,
    reads_max: usize,
}

impl Reads {
    pub(crate) fn new(reads_max: usize) -> Self {
        Reads {
            start: (u128::from(chance()) << 64 | u128::from(chance())).to_le_bytes(),
            last: 0,
            waiting: BTreeMap::new(),
            reads_max: reads_max.max(1),
        }
    }

    /// Lays down a waiter, and gives the bytes to ask with; or refuses the read.
    pub(crate) fn wait(&mut self, caller: oneshot::Sender<ReadAnswer>) -> Option<Bytes> {
        if self.waiting.len() >= self.reads_max {
            self.waiting.retain(|_, caller| !caller.is_closed());
        }
        if self.waiting.len() >= self.reads_max {
            // Who has left needs no answer.
            let _ = caller.send(Err(ReadError::Busy { reads_max: self.reads_max }));
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, caller);
        let mut context = Vec::with_capacity(CONTEXT_BYTES);
        context.extend_from_slice(&self.start);
        context.extend_from_slice(&self.last.to_le_bytes());
        Some(context.into())
    }

    /// Takes the answers to own reads out of what the engine answered.
    pub(crate) fn settle(&mut self, states: &mut Vec<ReadState>) {
        states.retain(|state| match self.own(&state.request_ctx) {
            Some(number) => {
                self.answer(number, Ok(state.index));
                false
            }
            None => true,
        });
    }

    /// As [`Reads::settle`], for reads that the engine reports lost.
    pub(crate) fn settle_lost(&mut self, contexts: &mut Vec<Bytes>) {
        contexts.retain(|context| match self.own(context) {
            Some(number) => {
                self.answer(number, Err(ReadError::LeaderChanged));
                false
            }
            None => true,
        });
    }

    /// The leader that was asked leads no more.
    pub(crate) fn fail(&mut self) {
        for (_, caller) in std::mem::take(&mut self.waiting) {
            let _ = caller.send(Err(ReadError::LeaderChanged));
        }
    }

    fn answer(&mut self, number: u64, answer: ReadAnswer) {
        if let Some(caller) = self.waiting.remove(&number) {
            let _ = caller.send(answer);
        }
    }

    /// The number of a read of this start.
    fn own(&self, context: &[u8]) -> Option<u64> {
        let number = context.strip_prefix(&self.start)?;
        Some(u64::from_le_bytes(number.try_into().ok()?))
    }
}

/// A number of the operating system's chance, which the standard library seeds its hashers from.
pub(crate) fn chance() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_reads_are_answered_and_others_left_alone() {
        let mut reads = Reads::new(2);
        let (sender, mut first) = oneshot::channel();
        let first_context = reads.wait(sender).unwrap();
        let (sender, mut second) = oneshot::channel();
        let second_context = reads.wait(sender).unwrap();
        let (sender, mut third) = oneshot::channel();
        assert_eq!(reads.wait(sender), None);
        assert_eq!(third.try_recv(), Ok(Err(ReadError::Busy { reads_max: 2 })));

        let state =
            |request_ctx: &Bytes| ReadState { index: Index(7), request_ctx: request_ctx.clone() };
        let foreign = Bytes::from_static(b"the application's");
        let earlier = Reads::new(1).wait(oneshot::channel().0).unwrap();
        let mut states = vec![state(&foreign), state(&second_context), state(&earlier)];
        reads.settle(&mut states);
        assert_eq!(states, [state(&foreign), state(&earlier)]);
        assert_eq!(second.try_recv(), Ok(Ok(Index(7))));

        let mut lost = vec![foreign.clone(), first_context.clone(), first_context];
        reads.settle_lost(&mut lost);
        assert_eq!(lost, [foreign]);
        assert_eq!(first.try_recv(), Ok(Err(ReadError::LeaderChanged)));
    }
}
