//! What the engine would have logged, as values.
//!
//! Notes come with each `Ready`, at most [`Config::notes_count_max`](crate::Config) of them; nothing
//! depends on whether anybody reads them. Nothing is noted on the path of an ordinary request.

use quorate_types::{Index, NodeId};

use crate::{Address, ConnId, Epoch, MessageType, Op, Role, Zxid};

/// Something worth telling an operator, or a test.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named by the sentences they stand in")]
pub enum Note {
    /// The node took a role.
    Became { role: Role },
    /// A ballot began.
    BallotStarted { round: u64 },
    /// No ballot is begun: the last epoch there is has been promised.
    LastEpoch,
    /// A ballot ended.
    Elected { leader: Address, round: u64 },
    /// A datagram was not handled.
    DatagramDropped { from: Address, why: DatagramFault },
    /// A connection was closed by this node.
    Closed { conn: ConnId, peer: Option<Address>, why: CloseReason },
    /// The epoch of this leadership is settled.
    EpochSettled { epoch: Epoch },
    /// A quorum has promised to it.
    EpochPromised { epoch: Epoch },
    /// A quorum holds the leader's history: all of it, up to here, is committed.
    Established { epoch: Epoch, initial: Index },
    /// A learner holds the leader's history up to here.
    Synchronized { peer: Address, index: Index },
    /// This learner holds the leader's history.
    Joined { leader: NodeId, epoch: Epoch },
    /// How a learner will be brought up to date.
    Planned { peer: Address, plan: SyncPlan },
    /// A learner's end of history, from here on, is not in the leader's and is replaced.
    TailReplaced { from: Index, last: Zxid },
    /// A leadership or followership ended.
    Left { why: LeaveReason },
    /// The leader stops taking requests and will give up its office.
    Resigning { why: ResignReason },
    /// A voter was connected that is a gometa process.
    GometaVoter { peer: Address },
    /// A gometa peer's election port has never answered: only its connection shows that it lives.
    ElectionPortSilent { peer: Address },
    /// A gometa leader's history has an operation that no machine applies; it is passed over.
    OddOperation { zxid: Zxid, op: Op },
    /// Two histories hold the same id with different contents. Nothing was changed.
    Diverged { zxid: Zxid },
    /// A gometa leader that may keep a state and no history sent nothing, though it has committed
    /// something, and this watcher has what is committed up to here. The leader's last key may be
    /// deleted, or its log be unreadable. It is not followed, until it sends a key; if it is right, and
    /// that cannot be waited for, set [`takes_bare_states`](crate::Config::takes_bare_states).
    BareState { committed: Zxid },
    /// So many notes found no room.
    Missed { count: u64 },
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DatagramFault {
    /// It came from outside the ensemble and does not merely ask.
    NotMember,
    /// It is for a candidate that is no member.
    Candidate,
    /// It belongs to another ensemble.
    Cluster,
    /// Its sender says that it watches, which voters do not.
    Status,
}

/// Why this node closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// This node does not lead.
    NotLeading,
    /// It is not known who will lead, and that takes too long.
    Waiting,
    /// There are too many connections: of learners without a vote, or it had not introduced itself when
    /// another one came.
    TooMany,
    /// The role that it belonged to is over.
    RoleOver,
    /// A message came that has no place there.
    OutOfPlace(MessageType),
    /// It introduced itself as a voter and is none.
    NotVoter,
    /// It introduced itself with a name longer than [`FID_BYTES_MAX`](crate::FID_BYTES_MAX).
    LongName,
    /// The same learner has connected again.
    Replaced,
    /// A voter of gometa's, which are not taken.
    GometaVoter,
    /// A voter has promised to a later epoch.
    Outbid,
    /// A voter's history is ahead of this leader's.
    Ahead,
    /// Nothing that this node has can bring the learner up to date.
    NoPlan,
    /// Something is no longer kept, and a gometa learner has something already, of which nobody knows
    /// what it has applied, and with which a state would only be merged: it must be emptied first.
    NotEmpty,
    /// It lags too far behind.
    Behind,
    /// It takes what it is sent too slowly.
    Full,
    /// No sign of life, or no progress, for too long.
    Silent,
    /// A proposal was not accepted for too long.
    NotAccepting,
    /// It vouches for something that it was never sent.
    BadAccept,
    /// Nobody waits for this connection.
    Stray,
}

/// Why a leadership, or a followership, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LeaveReason {
    /// The connection is gone, or could not be made.
    Disconnected,
    /// Nothing went on for too long.
    TimedOut,
    /// The leader showed no sign of life for too long.
    Silent,
    /// A message came that has no place there.
    OutOfPlace(MessageType),
    /// The leader begins an epoch that this node may not promise to.
    Epoch,
    /// The leader is a gometa process, which are not taken.
    GometaLeader,
    /// What came from the leader has a gap.
    Gap,
    /// What came contradicts what is known.
    Diverged,
    /// The leader's stream is in no order, or has a hole: all of it is wanted next.
    Disordered,
    /// The stream is too long to be held.
    TooLong,
    /// The stream stands for a state, not a history.
    StateStream,
    /// An elected leader did not get its quorums.
    NotEstablished,
    /// No quorum can come about in this epoch.
    OutOfReach,
    /// Too few voters are connected.
    QuorumLost,
    /// The leader resigned.
    Resigned,
}

/// Why a leader resigns in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ResignReason {
    /// It was told to.
    Asked,
    /// Its epoch has hardly any transactions left.
    CounterEnds,
    /// A voter that promised to a later epoch cannot come back otherwise.
    Outbid,
}

/// How a learner is brought up to date; decided at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncPlan {
    /// Its history is a prefix: what follows is streamed.
    Difference {
        /// The last entry they share.
        after: Index,
    },
    /// Its end is not in the leader's history: it goes back to what it has committed.
    Truncation {
        /// The last entry it may keep.
        keep: Index,
    },
    /// What it needs is no longer kept: a snapshot, then what follows.
    Snapshot {
        /// The last entry in the snapshot.
        index: Index,
    },
    /// A gometa learner that has nothing, and what it needs is no longer kept: the state as the
    /// transactions that lead to it, then what follows.
    State {
        /// The last entry in the state.
        index: Index,
    },
    /// A gometa learner: everything from here on again, since it settles nothing by itself.
    Replay {
        /// The entry before the first one sent.
        after: Index,
    },
}
