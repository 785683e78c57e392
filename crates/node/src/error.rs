//! Why a proposal or a read came to nothing, and what its caller may do then.

use quorate_raft::Error;
use quorate_types::{EntryId, NodeId};

/// What became of a proposal that was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// This node does not lead, and cannot follow a proposal that it sends to another.
    #[error("not the leader{}", leader.map(|id| format!("; ask {id}")).unwrap_or_default())]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// Too many proposals wait for their outcome.
    #[error("{outcomes_max} proposals already wait for their outcome; try again later")]
    Busy {
        /// How many may.
        outcomes_max: usize,
    },
    /// It was not taken: refused by the engine, or the node had stopped before.
    #[error(transparent)]
    Refused(Error),
    /// Another leader's entries took the place it had in the log.
    #[error("entry {proposed} was superseded: {committed} is committed")]
    Superseded {
        /// The place it had.
        proposed: EntryId,
        /// A committed entry that excludes it.
        committed: EntryId,
    },
    /// It was appended, and the node stopped, or jumped over its place with a snapshot, before its
    /// fate was known. It may have been committed, or may yet be.
    #[error("nobody knows whether entry {proposed} will be committed")]
    Unknown {
        /// The place it had.
        proposed: EntryId,
    },
}

impl ProposalError {
    /// Whether the proposal is certain never to be committed, so that proposing it again cannot
    /// make it happen twice.
    pub fn is_safe_to_retry(&self) -> bool {
        !matches!(self, ProposalError::Unknown { .. })
    }
}

/// Why a read has no index. It changed nothing, so it may be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// The leader or its term changed before it answered.
    #[error("the leader changed")]
    LeaderChanged,
    /// Too many reads wait for an answer.
    #[error("{reads_max} reads already wait for their index; try again later")]
    Busy {
        /// How many may.
        reads_max: usize,
    },
    /// The node has stopped.
    #[error(transparent)]
    Ended(Error),
}
