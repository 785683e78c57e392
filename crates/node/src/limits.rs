//! How much a node lets wait.

/// How many ticks wait for a node that is busy; further ones are lost. As in etcd's library.
pub(crate) const TICKS_MAX: usize = 128;

/// Bounds of one node's queues. None of them may be 0; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most messages and calls that wait for the node's task. Callers beyond it wait for room.
    pub inputs_max: usize,
    /// Most proposals that wait to be taken in, among others while there is no leader. Callers
    /// beyond it wait for one of those to be decided or given up.
    pub proposals_max: usize,
    /// Most proposals, taken in, that wait to be committed or replaced; those beyond it are refused
    /// as [`Busy`](crate::ProposalError::Busy). Only for who asked to be told.
    pub outcomes_max: usize,
    /// Most reads that wait for their index; those beyond it are refused as
    /// [`Busy`](crate::ReadError::Busy). Only for [`Node::read`](crate::Node::read).
    pub reads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { inputs_max: 1024, proposals_max: 1024, outcomes_max: 4096, reads_max: 4096 }
    }
}
