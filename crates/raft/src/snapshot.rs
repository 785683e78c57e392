//! Snapshots and the membership that goes with them.

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::log::INDEX_MAX;

/// Most members that a peer may name, in a membership or a change of it: far more than any group
/// has. What follows from a membership takes time by the square of its size to work out.
pub(crate) const MEMBERS_MAX: usize = 1024;

/// The members of a group at one place of its log, as stored and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters of the incoming (or only) configuration.
    pub voters: Vec<NodeId>,
    /// Members that receive the log and do not vote.
    pub learners: Vec<NodeId>,
    /// Voters of the outgoing configuration; empty unless a joint change is under way.
    pub voters_outgoing: Vec<NodeId>,
    /// Outgoing voters that become learners when the joint change is left.
    pub learners_next: Vec<NodeId>,
    /// Whether the joint change is left as soon as possible, without being asked.
    pub auto_leave: bool,
}

impl ConfState {
    /// How many ids are in its lists.
    fn named_count(&self) -> usize {
        let ConfState { voters, learners, voters_outgoing, learners_next, .. } = self;
        voters.len() + learners.len() + voters_outgoing.len() + learners_next.len()
    }

    /// Whether this is the same membership as `other`, in whatever order either lists it. etcd's
    /// `Equivalent`.
    pub fn is_equivalent(&self, other: &ConfState) -> bool {
        let same = |one: &[NodeId], other: &[NodeId]| {
            let sorted = |ids: &[NodeId]| {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                ids
            };
            one == other || sorted(one) == sorted(other)
        };
        same(&self.voters, &other.voters)
            && same(&self.learners, &other.learners)
            && same(&self.voters_outgoing, &other.voters_outgoing)
            && same(&self.learners_next, &other.learners_next)
            && self.auto_leave == other.auto_leave
    }
}

/// What a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMetadata {
    /// Membership as of `index`.
    pub conf_state: ConfState,
    /// Last index it covers; 0 means "no snapshot".
    pub index: Index,
    /// Term of the entry at `index`.
    pub term: Term,
}

/// The application's state at one place of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The state, opaque to the engine. Large states keep only a reference here.
    pub data: Bytes,
    /// What it stands for.
    pub metadata: SnapshotMetadata,
}

impl Snapshot {
    /// Whether there is no snapshot.
    pub fn is_empty(&self) -> bool {
        self.metadata.index == Index(0)
    }

    /// Whether its index and term leave room for a log to go on from it, and its membership is of a
    /// size that a group may have.
    pub(crate) fn is_possible(&self) -> bool {
        let SnapshotMetadata { conf_state, index, term } = &self.metadata;
        *index <= INDEX_MAX && *term != Term(u64::MAX) && conf_state.named_count() <= MEMBERS_MAX
    }

    /// Term and index of the last entry it covers.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.metadata.term, index: self.metadata.index }
    }
}
