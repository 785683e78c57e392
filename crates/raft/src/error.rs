//! Why a node refuses what it is asked.

use quorate_types::NodeId;

use crate::{ChangeError, ConfigError, Fatal, StorageError};

/// Why a call to a node failed. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A message that only the node itself may make came from outside. etcd's `ErrStepLocalMsg`.
    #[error("raft: cannot step raft local message")]
    StepLocalMsg,
    /// An answer came from a node that is no member. etcd's `ErrStepPeerNotFound`.
    #[error("raft: cannot step as peer not found")]
    StepPeerNotFound,
    /// The node runs no more. etcd's `ErrStopped`.
    #[error("raft: stopped")]
    Stopped,
    /// The proposal was not taken, and nothing was written: it is safe to try again. etcd's
    /// `ErrProposalDropped`.
    #[error("raft proposal dropped")]
    ProposalDropped(DropReason),
    /// A membership change cannot work now; nothing was written.
    #[error("membership change refused: {0}")]
    ChangeRefused(ChangeRefusal),
    /// A snapshot cannot be asked for now.
    #[error("snapshot request refused: {0}")]
    SnapshotRequestRefused(SnapshotRequestRefusal),
    /// A committed membership change cannot be carried out.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The options do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The first membership has no members.
    #[error("must provide at least one peer to Bootstrap")]
    BootstrapWithoutPeers,
    /// An id in the first membership that names no node.
    #[error("cannot bootstrap with {id}: it names no node")]
    BootstrapPeer {
        /// The id.
        id: NodeId,
    },
    /// The log is not empty, so that it has a membership already.
    #[error("can't bootstrap a nonempty Storage")]
    BootstrapNonempty,
    /// Storage failed while the node was built or bootstrapped.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node can no longer be trusted, and does nothing any more. Every later call fails the
    /// same way.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// No leader is known, or an election is under way.
    #[error("no leader")]
    NoLeader,
    /// This node is not the leader and does not forward.
    #[error("not the leader, and forwarding is disabled")]
    ForwardingDisabled,
    /// The leader was removed from the group.
    #[error("the leader is no member any more")]
    NotMember,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    TransferPending,
    /// Too many bytes wait for a quorum already.
    #[error("too much is uncommitted")]
    Uncommitted,
    /// It holds nothing, or a membership change that cannot be read.
    #[error("malformed proposal")]
    Malformed,
    /// Too many messages wait to be sent ([`Config::messages_max`](crate::Config::messages_max)).
    #[error("too many messages wait to be sent")]
    MessagesFull,
    /// The log ends at the last index there is.
    #[error("the log is full")]
    LogFull,
}

/// Why a follower does not ask its leader for a snapshot. Asking again later may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotRequestRefusal {
    /// Only a follower asks: a leader has the newest state there is, a candidate nobody to ask.
    #[error("not a follower")]
    NotFollower,
    /// There is nobody to ask.
    #[error("no leader")]
    NoLeader,
    /// A snapshot is being installed.
    #[error("a snapshot is being installed already")]
    Installing,
    /// It was asked for already.
    #[error("a snapshot was asked for already")]
    Pending,
    /// The log does not end with an entry of this leader, who may therefore replace what stands
    /// there, and never have a snapshot that goes so far.
    #[error("the log does not end in this term yet")]
    Behind,
}

/// Why a leader refuses a membership change. The texts are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeRefusal {
    /// An earlier change may not be applied yet.
    #[error("possible unapplied conf change")]
    Unapplied,
    /// A joint change is under way and must be left first.
    #[error("must transition out of joint config first")]
    StillJoint,
    /// It changes nobody, and there is no joint change to leave.
    #[error("not in joint state; refusing empty conf change")]
    NotJoint,
}
