//! Linearizable reads on a leader.
//!
//! A read may be served at the commit index of the moment it was asked, once it is certain that no
//! other leader had been elected by then. Reads get *positions* 1, 2, 3, ... in the order they were
//! asked. Each heartbeat carries the newest position, each answer gives it back, and when a quorum
//! has answered position `n`, every read up to `n` is confirmed:
//! ```text
//! confirmed <= acknowledged by a quorum <= last issued
//! ```
//! An answer can so never confirm a read that was asked after the heartbeat was sent. Positions
//! start anew with each leadership, and answers of an earlier one do not pass the term gate.
//!
//! With [`Config::lease_ticks`](crate::Config::lease_ticks) a heartbeat also carries the tick it was
//! sent at, behind the position; what a quorum has given back of that is when the lease began.
//!
//! Source: thesis 6.4; etcd's `readOnly`.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_types::quorum::Joint;
use quorate_types::{Index, NodeId};

use crate::Entry;

/// What a heartbeat carried, as it is given back by whoever makes no promise.
pub(crate) fn without_tick(context: &[u8]) -> Bytes {
    let (position, tick) = context.split_at(context.len().min(8));
    Bytes::from([position, &vec![0; tick.len()]].concat())
}

/// A read as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadRequest {
    /// Who asked; the node itself, or [`NodeId::NONE`] for the same.
    pub(crate) from: NodeId,
    /// One entry that holds the bytes of whoever asked.
    pub(crate) entries: Vec<Entry>,
}

impl ReadRequest {
    /// The bytes of whoever asked.
    pub(crate) fn context(&self) -> Bytes {
        self.entries.first().and_then(|entry| entry.data.clone()).unwrap_or_default()
    }
}

/// The reads that wait for a quorum.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Reads up to this position are answered.
    confirmed: u64,
    /// The read at `confirmed + 1`, and those after it, each with the index it may be served at.
    waiting: VecDeque<(ReadRequest, Index)>,
    /// What each member answered.
    acked: Vec<Acked>,
}

/// The highest that a member gave back.
#[derive(Clone, Copy, Debug)]
struct Acked {
    id: NodeId,
    position: u64,
    tick: u64,
}

impl Reads {
    /// Takes in a read that may be served at `index`. The leader `id` itself vouches for it.
    pub(crate) fn push(&mut self, id: NodeId, request: ReadRequest, index: Index) {
        self.waiting.push_back((request, index));
        self.record(id, self.last(), 0);
    }

    /// How many reads wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What a heartbeat carries: the position of the newest read that waits, or nothing; with a tick,
    /// always the newest position, and the tick.
    pub(crate) fn context(&self, now: Option<u64>) -> Bytes {
        let position = self.last().to_le_bytes();
        match now {
            Some(tick) => Bytes::from_iter(position.into_iter().chain(tick.to_le_bytes())),
            None if self.waiting.is_empty() => Bytes::new(),
            None => Bytes::copy_from_slice(&position),
        }
    }

    /// Takes in what came back with a heartbeat's answer, `now` if heartbeats carry a tick. Says
    /// whether it was a position, and a tick.
    pub(crate) fn acknowledge(&mut self, from: NodeId, context: &[u8], now: Option<u64>) -> bool {
        let number = |bytes: &[u8]| bytes.first_chunk().copied().map(u64::from_le_bytes);
        let Some(position) = number(context) else { return false };
        let tick = match now {
            Some(now) => number(&context[8..]).filter(|tick| *tick <= now),
            None => Some(0),
        };
        // Nobody was asked about a position that was not issued.
        let (Some(tick), true) = (tick, position <= self.last()) else { return false };
        self.record(from, position, tick);
        true
    }

    /// The tick that a quorum of `voters` has given back, where `id` itself needs not be asked; 0 if
    /// there is none.
    pub(crate) fn tick_of_quorum(&self, voters: &Joint, id: NodeId, now: u64) -> u64 {
        let tick = |member| match member == id {
            true => Some(Index(now)),
            false => self.acked(member).map(|acked| Index(acked.tick)),
        };
        voters.committed_index(tick).0.min(now)
    }

    /// Takes out the reads that a quorum of `voters` confirms, oldest first.
    pub(crate) fn take_confirmed(
        &mut self,
        voters: &Joint,
    ) -> impl Iterator<Item = (ReadRequest, Index)> + '_ {
        let mut confirmed = self.confirmed;
        if !self.waiting.is_empty() {
            let acked = |id| self.acked(id).map(|acked| Index(acked.position));
            confirmed = voters.committed_index(acked).0.clamp(self.confirmed, self.last());
        }
        let count = (confirmed - self.confirmed) as usize;
        self.confirmed = confirmed;
        self.waiting.drain(..count)
    }

    /// Takes out all reads that wait.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = ReadRequest> + '_ {
        self.confirmed = self.last();
        self.waiting.drain(..).map(|(request, _)| request)
    }

    fn last(&self) -> u64 {
        self.confirmed + self.waiting.len() as u64
    }

    fn acked(&self, id: NodeId) -> Option<&Acked> {
        self.acked.iter().find(|acked| acked.id == id)
    }

    fn record(&mut self, id: NodeId, position: u64, tick: u64) {
        match self.acked.iter_mut().find(|acked| acked.id == id) {
            // Answers come out of order.
            Some(acked) => {
                acked.position = acked.position.max(position);
                acked.tick = acked.tick.max(tick);
            }
            None => self.acked.push(Acked { id, position, tick }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn read(number: u8) -> ReadRequest {
        let data = Some(Bytes::copy_from_slice(&[number]));
        ReadRequest { from: ME, entries: vec![Entry { data, ..Entry::default() }] }
    }

    fn voters<const N: usize>(incoming: [u64; N]) -> Joint {
        Joint { incoming: incoming.into(), ..Joint::default() }
    }

    fn confirmed(reads: &mut Reads, voters: &Joint) -> Vec<(u8, u64)> {
        reads
            .take_confirmed(voters)
            .map(|(request, index)| (request.context()[0], index.0))
            .collect()
    }

    #[test]
    fn a_quorum_confirms_every_read_up_to_a_position() {
        let voters = voters([1, 2, 3]);
        let mut reads = Reads::default();
        assert!(reads.context(None).is_empty(), "nothing is asked");
        for number in 1..=3 {
            reads.push(ME, read(number), Index(10 + u64::from(number)));
        }
        assert_eq!(reads.context(None)[..], 3u64.to_le_bytes());
        assert_eq!(confirmed(&mut reads, &voters), [], "this node alone is no quorum");

        assert!(reads.acknowledge(NodeId(2), &2u64.to_le_bytes(), None));
        assert_eq!(confirmed(&mut reads, &voters), [(1, 11), (2, 12)]);
        // An old answer, one of a learner, and one that says nothing.
        assert!(reads.acknowledge(NodeId(3), &1u64.to_le_bytes(), None));
        assert!(reads.acknowledge(NodeId(4), &3u64.to_le_bytes(), None));
        assert!(!reads.acknowledge(NodeId(3), &[], None));
        assert_eq!(confirmed(&mut reads, &voters), []);

        assert!(reads.acknowledge(NodeId(3), &3u64.to_le_bytes(), None));
        assert_eq!(confirmed(&mut reads, &voters), [(3, 13)]);
        assert_eq!(reads.len(), 0);
        assert!(reads.context(None).is_empty());
    }

    #[test]
    fn late_answers_take_nothing_back() {
        let voters = voters([1, 2, 3, 4, 5]);
        let mut reads = Reads::default();
        for number in 1..=3 {
            reads.push(ME, read(number), Index(5));
        }
        for (from, position) in [(2, 3_u64), (2, 1), (3, 2)] {
            assert!(reads.acknowledge(NodeId(from), &position.to_le_bytes(), None));
        }
        assert_eq!(confirmed(&mut reads, &voters), [(1, 5), (2, 5)]);
        assert!(reads.acknowledge(NodeId(3), &3_u64.to_le_bytes(), None));
        assert_eq!(confirmed(&mut reads, &voters), [(3, 5)]);
    }

    #[test]
    fn foreign_positions_are_ignored() {
        let voters = voters([1, 2, 3]);
        let mut reads = Reads::default();
        reads.push(ME, read(1), Index(5));
        for context in [&[1][..], &[0; 7], &2u64.to_le_bytes(), &[0xff; 8]] {
            assert!(!reads.acknowledge(NodeId(2), context, None), "{context:?}");
            assert_eq!(confirmed(&mut reads, &voters), [], "{context:?}");
        }
        // More than a position: what follows it is not ours.
        assert!(reads.acknowledge(NodeId(2), &[1, 0, 0, 0, 0, 0, 0, 0, 9], None));
        assert_eq!(confirmed(&mut reads, &voters), [(1, 5)]);
    }

    #[test]
    fn both_halves_of_a_joint_membership_confirm() {
        let joint = Joint { incoming: [1, 2, 3].into(), outgoing: [1, 4, 5].into() };
        let mut reads = Reads::default();
        reads.push(ME, read(1), Index(5));
        assert!(reads.acknowledge(NodeId(2), &1u64.to_le_bytes(), None));
        assert_eq!(confirmed(&mut reads, &joint), []);
        assert!(reads.acknowledge(NodeId(5), &1u64.to_le_bytes(), None));
        assert_eq!(confirmed(&mut reads, &joint), [(1, 5)]);
    }
}
