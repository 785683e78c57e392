//! Raft cores side by side: [`Quorate`] and [`RaftRs`], the same groups under the same work.
//!
//! A [`Group`] is every node of one group on one thread. Messages are carried in rounds: each node
//! does all its work, then each message is delivered; that goes on until nothing is left to carry.
//! Both libraries get the same options, keep their logs in their own memory storage, and are driven
//! as their documentation asks. So what differs is the libraries. The two files look alike, line by line,
//! for that reason, and share no code: what each library is called with should be seen, not looked up.
//!
//! Not here: what is measured ([`cases`]), and with what ([`measure`]).

pub mod cases;
pub mod handles;
pub mod measure;
mod quorate;
mod raft_rs;
pub mod small;

use bytes::{Bytes, BytesMut};

pub use quorate::Quorate;
pub use raft_rs::RaftRs;

/// A follower campaigns after so many ticks without a leader, or up to twice as many.
const ELECTION_TICKS: u32 = 10;
/// Most bytes of the entries of one append.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Most appends under way to one peer.
const INFLIGHT_COUNT_MAX: usize = 256;
/// Entries kept in a storage, besides those of the round under way.
const KEPT_BYTES: u64 = 16 << 20;

/// How a group is built and driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setup {
    /// How many nodes, all of them voters.
    pub members: u64,
    /// Whether appends that wait to be sent to a peer are merged into one.
    pub coalesce: bool,
    /// Whether messages go as bytes, encoded by the sender and decoded by the receiver.
    pub encoded: bool,
    /// Whether quorate writes by messages to its storage threads, which here answer at once.
    /// raft-rs is always driven by `ready` and `advance`.
    pub async_writes: bool,
    /// A leader sends heartbeats every so many ticks.
    pub heartbeat_ticks: u32,
    /// Whether quorate makes each Ready in the memory of the one before, with `ready_into`, which is
    /// faster, and costs each node some memory.
    pub reuse_ready: bool,
}

impl Setup {
    /// So many nodes that hand each other messages as they are.
    pub fn of(members: u64) -> Self {
        Setup {
            members,
            coalesce: false,
            encoded: false,
            async_writes: false,
            heartbeat_ticks: 1,
            reuse_ready: true,
        }
    }
}

/// How a batch is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proposing {
    /// All of it as one proposal.
    Batched,
    /// One entry after the other; only then the leader is asked for its work.
    Each,
}

/// What a node has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries that hold anything.
    pub entries: u64,
    /// What they hold.
    pub bytes: u64,
}

impl Applied {
    fn take(&mut self, payload: &[u8]) {
        // A new leader's own entry is empty.
        self.entries += u64::from(!payload.is_empty());
        self.bytes += payload.len() as u64;
    }
}

/// All nodes of one group of one library. Node 1 leads.
pub trait Group: Sized {
    /// The library's name.
    const NAME: &'static str;

    /// A group that has elected node 1 and has nothing left to do.
    fn new(setup: Setup) -> Self;

    /// Proposes `count` entries that hold `payload` to the leader.
    fn propose(&mut self, proposing: Proposing, payload: &Bytes, count: usize);

    /// Does all work there is on all nodes, and carries all messages.
    fn settle(&mut self);

    /// One tick of every node's clock.
    fn tick(&mut self);

    /// Drops from every node's storage what it has applied.
    fn compact(&mut self);

    /// What each node has applied.
    fn applied(&self) -> Vec<Applied>;

    /// Whether node 1 still leads.
    fn is_led(&self) -> bool;

    /// Hands over each node by itself, without its storage's share, to a function that drops it;
    /// and whether it leads.
    fn give_up(self, drop_node: impl FnMut(bool, Box<dyn std::any::Any>));
}

/// Proposes `rounds` batches of `batch` entries of `payload_bytes`, and waits for each.
///
/// # Panics
///
/// When not every node has applied every entry.
pub fn replicate<G: Group>(
    group: &mut G,
    proposing: Proposing,
    payload: &Bytes,
    batch: usize,
    rounds: usize,
) {
    let before = group.applied();
    let round_bytes = (payload.len() * batch) as u64;
    let kept_rounds = (KEPT_BYTES / round_bytes.max(1)).clamp(1, 1024) as usize;
    for round in 1..=rounds {
        group.propose(proposing, payload, batch);
        group.settle();
        if round % kept_rounds == 0 {
            group.compact();
        }
    }
    let entries = (batch * rounds) as u64;
    for (now, before) in group.applied().iter().zip(before) {
        let news = (now.entries - before.entries, now.bytes - before.bytes);
        assert!(news == (entries, entries * payload.len() as u64), "every node applies everything");
    }
}

/// What a network does with chunks of bytes: they arrive as one, somewhere else.
fn carry(chunks: &[impl AsRef<[u8]>]) -> Bytes {
    let length = chunks.iter().map(|chunk| chunk.as_ref().len()).sum();
    let mut received = BytesMut::with_capacity(length);
    for chunk in chunks {
        received.extend_from_slice(chunk.as_ref());
    }
    received.freeze()
}

#[cfg(test)]
mod tests;
