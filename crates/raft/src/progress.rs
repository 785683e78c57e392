//! One peer as the leader sees it: how far its log matches, and how the next append goes to it.
//!
//! ```text
//! 0 <= matched < next      entries in (matched, next) are on their way
//! ```
//! `matched` never goes back within a term. A peer is probed until it acknowledges, then appends
//! are pipelined to it, and a peer that fell behind the start of the log waits for a snapshot:
//! ```text
//! Probe      at most one append with entries per acknowledgement or heartbeat answer
//! Replicate  `next` jumps past what was sent, the in-flight window bounds it
//! Snapshot   nothing is sent
//! ```
//! Not here: who sends, and when (`leader.rs`).
//!
//! | etcd's `tracker.Progress` | here |
//! | --- | --- |
//! | `Match`, `Next` | [`Progress::matched`], [`Progress::next`] |
//! | `State`, `PendingSnapshot`, `RecentActive`, `MsgAppFlowPaused`, `Inflights`, `IsLearner` | the same in snake case |
//! | `sentCommit` (private) | [`Progress::inflight_commit`] |
//! | the methods | the same in snake case |

use std::fmt;

use quorate_types::{Index, NodeId};

use crate::Inflights;

/// Maps up to this size are searched from the start, which is faster than by halves. Every
/// acknowledgement looks up every voter.
const WALKED_COUNT: usize = 8;

/// How appends go to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProgressState {
    /// One at a time, to find out where the logs agree.
    #[default]
    Probe,
    /// Pipelined.
    Replicate,
    /// Not at all, until a snapshot arrived.
    Snapshot,
}

/// etcd's constant names.
impl fmt::Display for ProgressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProgressState::Probe => "StateProbe",
            ProgressState::Replicate => "StateReplicate",
            ProgressState::Snapshot => "StateSnapshot",
        })
    }
}

/// One peer as the leader sees it. See the module's comment for what holds between the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Highest index known to be durable on the peer and equal to ours.
    pub matched: Index,
    /// First index to send next.
    pub next: Index,
    /// In Snapshot, the index of the snapshot on its way; otherwise 0.
    pub pending_snapshot: Index,
    /// Highest commit index believed to be on its way to the peer.
    pub inflight_commit: Index,
    /// What is on its way in Replicate.
    pub inflights: Inflights,
    /// How appends go to it.
    pub state: ProgressState,
    /// Whether it was heard from lately (since the last check of the quorum).
    pub recent_active: bool,
    /// Whether appends are held back until it acknowledges or answers a heartbeat.
    pub msg_app_flow_paused: bool,
    /// Whether it is a learner.
    pub is_learner: bool,
}

impl Progress {
    /// A peer about which nothing is known but that `next` may be sent to it.
    pub fn new(next: Index, inflights: Inflights) -> Self {
        Progress {
            matched: Index(0),
            next,
            pending_snapshot: Index(0),
            inflight_commit: Index(0),
            inflights,
            state: ProgressState::Probe,
            recent_active: false,
            msg_app_flow_paused: false,
            is_learner: false,
        }
    }

    /// Moves to `state`; nothing is paused, pending or in flight any more.
    pub fn reset_state(&mut self, state: ProgressState) {
        self.msg_app_flow_paused = false;
        self.pending_snapshot = Index(0);
        self.state = state;
        self.inflights.reset();
    }

    /// Starts probing: after what matches, or after the pending snapshot if there is one.
    pub fn become_probe(&mut self) {
        let pending = match self.state {
            ProgressState::Snapshot => self.pending_snapshot,
            ProgressState::Probe | ProgressState::Replicate => Index(0),
        };
        self.reset_state(ProgressState::Probe);
        self.next = self.matched.max(pending).next();
        self.clamp_inflight_commit();
    }

    /// Starts pipelining, after what matches.
    pub fn become_replicate(&mut self) {
        self.reset_state(ProgressState::Replicate);
        self.next = self.matched.next();
    }

    /// Waits for the snapshot at `index` to arrive.
    pub fn become_snapshot(&mut self, index: Index) {
        self.reset_state(ProgressState::Snapshot);
        self.pending_snapshot = index;
        self.next = index.next();
        self.inflight_commit = index;
    }

    /// An append of `count` entries and `bytes` payload bytes was sent from `next` on.
    pub fn sent_entries(&mut self, count: u64, bytes: u64) {
        match self.state {
            ProgressState::Replicate => {
                if count > 0 {
                    self.next += count;
                    self.inflights.add(self.next.prev(), bytes);
                }
                // Also after an empty append: it went out although the window is full, to be
                // answered.
                self.msg_app_flow_paused = self.inflights.is_full();
            }
            ProgressState::Probe => {
                if count > 0 {
                    self.msg_app_flow_paused = true;
                }
            }
            ProgressState::Snapshot => {
                panic!("nothing is sent to a peer that waits for a snapshot")
            }
        }
    }

    /// Whether it is worth telling the peer about `commit` on its own: it would learn something
    /// from it that nothing on its way tells it.
    pub fn can_bump_commit(&self, commit: Index) -> bool {
        self.inflight_commit < commit && self.inflight_commit < self.next.prev()
    }

    /// A message with this commit index was sent.
    pub fn sent_commit(&mut self, commit: Index) {
        self.inflight_commit = commit;
    }

    /// The peer acknowledged everything up to `index`; says whether that is news.
    pub fn maybe_update(&mut self, index: Index) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.msg_app_flow_paused = false;
        true
    }

    /// The peer refused the append after `rejected`, and may match at `hint`; says whether that is
    /// news. Refusals come late and twice, and only a genuine one may pull `next` back.
    pub fn maybe_decr_to(&mut self, rejected: Index, hint: Index) -> bool {
        match self.state {
            ProgressState::Replicate => {
                if rejected <= self.matched {
                    return false;
                }
                self.next = self.matched.next();
            }
            ProgressState::Probe | ProgressState::Snapshot => {
                // Only the one probe that is out can be refused.
                if self.next.prev() != rejected {
                    return false;
                }
                self.next = rejected.min(hint.next()).max(self.matched.next());
                self.msg_app_flow_paused = false;
            }
        }
        self.clamp_inflight_commit();
        true
    }

    /// Whether no append may be sent now.
    pub fn is_paused(&self) -> bool {
        match self.state {
            ProgressState::Probe | ProgressState::Replicate => self.msg_app_flow_paused,
            ProgressState::Snapshot => true,
        }
    }

    /// What is no longer on its way carries no commit index either.
    fn clamp_inflight_commit(&mut self) {
        self.inflight_commit = self.inflight_commit.min(self.next.prev());
    }
}

/// `STATE match=M next=N`, then what is out of the ordinary.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} match={} next={}", self.state, self.matched, self.next)?;
        if self.is_learner {
            f.write_str(" learner")?;
        }
        if self.is_paused() {
            f.write_str(" paused")?;
        }
        if self.pending_snapshot > Index(0) {
            write!(f, " pendingSnap={}", self.pending_snapshot)?;
        }
        if !self.recent_active {
            f.write_str(" inactive")?;
        }
        if self.inflights.count() > 0 {
            write!(f, " inflight={}", self.inflights.count())?;
            if self.inflights.is_full() {
                f.write_str("[full]")?;
            }
        }
        Ok(())
    }
}

/// The progress of every tracked node, in ascending order of ids.
///
/// A sorted list of just the length it needs: groups are small and change rarely, every loop over
/// peers walks all of it, and thousands of groups may share a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressMap(Box<[(NodeId, Progress)]>);

impl ProgressMap {
    /// A map without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The progress of `id`, if it is tracked.
    pub fn get(&self, id: NodeId) -> Option<&Progress> {
        self.find(id).ok().map(|at| &self.0[at].1)
    }

    /// The progress of `id`, if it is tracked.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.find(id).ok().map(|at| &mut self.0[at].1)
    }

    /// Whether `id` is tracked.
    pub fn contains(&self, id: NodeId) -> bool {
        self.find(id).is_ok()
    }

    /// Tracks `id`, with this progress from now on.
    pub fn insert(&mut self, id: NodeId, progress: Progress) {
        match self.find(id) {
            Ok(at) => self.0[at].1 = progress,
            Err(at) => self.edit(|list| list.insert(at, (id, progress))),
        }
    }

    /// Stops tracking `id`.
    pub fn remove(&mut self, id: NodeId) -> Option<Progress> {
        let at = self.find(id).ok()?;
        Some(self.edit(|list| list.remove(at)).1)
    }

    /// Every tracked node with its progress, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NodeId, &Progress)> + DoubleEndedIterator {
        self.0.iter().map(|(id, progress)| (*id, progress))
    }

    /// Every tracked node with its progress, ascending.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (NodeId, &mut Progress)> {
        self.0.iter_mut().map(|(id, progress)| (*id, progress))
    }

    /// The id at this place of the ascending order. With [`ProgressMap::len`] it lets a caller
    /// walk the map while it changes other things in between.
    pub fn id_at(&self, place: usize) -> Option<NodeId> {
        self.0.get(place).map(|(id, _)| *id)
    }

    /// The node at this place of the ascending order, with its progress.
    pub(crate) fn at(&self, place: usize) -> Option<(NodeId, &Progress)> {
        self.0.get(place).map(|(id, progress)| (*id, progress))
    }

    /// As [`ProgressMap::at`].
    pub(crate) fn at_mut(&mut self, place: usize) -> Option<(NodeId, &mut Progress)> {
        self.0.get_mut(place).map(|(id, progress)| (*id, progress))
    }

    /// How many nodes are tracked.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn edit<R>(&mut self, change: impl FnOnce(&mut Vec<(NodeId, Progress)>) -> R) -> R {
        let mut list = std::mem::take(&mut self.0).into_vec();
        let result = change(&mut list);
        self.0 = list.into_boxed_slice();
        result
    }

    /// Where `id` is, or belongs.
    fn find(&self, id: NodeId) -> Result<usize, usize> {
        if self.0.len() > WALKED_COUNT {
            return self.0.binary_search_by_key(&id, |(id, _)| *id);
        }
        for (at, (other, _)) in self.0.iter().enumerate() {
            if id <= *other {
                return if id == *other { Ok(at) } else { Err(at) };
            }
        }
        Err(self.0.len())
    }
}

/// A line `ID: PROGRESS` for each node.
impl fmt::Display for ProgressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, progress) in self.iter() {
            writeln!(f, "{id}: {progress}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
