//! What a node asks its driver to do.

use bytes::Bytes;

use crate::{Entries, HardState, Message, Note, ReadState, Snapshot, SoftState};

/// One batch of work for the driver. All of it is owned: it stays as it is whatever the node does
/// next.
///
/// With synchronous storage writes, in this order:
///
/// 1. durably install `snapshot`, append `entries` and store `hard_state`; writing an entry replaces
///    whatever stands at its index and after, and entries that come with a snapshot follow it;
/// 2. send `messages`. A leader may send before its own write is durable; a follower may not, since
///    its answers in `messages` vouch for the write;
/// 3. apply `snapshot`, then `committed_entries`, calling
///    [`apply_conf_change`](crate::RawNode::apply_conf_change) for each membership entry;
/// 4. [`advance`](crate::RawNode::advance).
///
/// With asynchronous storage writes only `messages` are acted on: they carry the rest, and
/// `advance` is not called.
///
/// Source: etcd's `raft.Ready`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Role and leader, if they changed.
    pub soft_state: Option<SoftState>,
    /// Term, vote and commit index, if they changed.
    pub hard_state: Option<HardState>,
    /// Answers to reads of this node; each is given once.
    pub read_states: Vec<ReadState>,
    /// Entries to append to the stored log.
    pub entries: Entries,
    /// A received snapshot that replaces the stored log.
    pub snapshot: Option<Snapshot>,
    /// Entries to apply. With synchronous writes some of them may stand in `entries` too.
    pub committed_entries: Entries,
    /// Messages to send, in order.
    pub messages: Vec<Message>,
    /// Whether the write must be durable before it counts as done. A change of the commit index
    /// alone need not be.
    pub must_sync: bool,
    /// What the node would have logged. Notes alone make no Ready: they wait for the next one.
    pub notes: Vec<Note>,
    /// With [`Config::report_lost_reads`](crate::Config::report_lost_reads): contexts of reads of
    /// this node that will not be answered.
    pub lost_reads: Vec<Bytes>,
}

impl Ready {
    /// Drops what it holds. Memory of its lists is kept for what comes next.
    pub fn clear(&mut self) {
        let Ready {
            soft_state,
            hard_state,
            read_states,
            entries,
            snapshot,
            committed_entries,
            messages,
            must_sync,
            notes,
            lost_reads,
        } = self;
        (*soft_state, *hard_state, *must_sync) = (None, None, false);
        read_states.clear();
        if !entries.is_empty() {
            *entries = Entries::new();
        }
        if snapshot.is_some() {
            *snapshot = None;
        }
        if !committed_entries.is_empty() {
            *committed_entries = Entries::new();
        }
        messages.clear();
        notes.clear();
        lost_reads.clear();
    }
}

/// Whether a write of `entry_count` new entries and of `hard_state` after `previous` must be
/// durable before anything that depends on it is done. etcd's `MustSync`.
pub fn must_sync(hard_state: &HardState, previous: &HardState, entry_count: usize) -> bool {
    entry_count > 0 || hard_state.term != previous.term || hard_state.vote != previous.vote
}
