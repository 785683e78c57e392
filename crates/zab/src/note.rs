//! What the engine would have logged, as values.
//!
//! Notes come with each `Ready`, at most [`Config::notes_count_max`](crate::Config) of them; nothing
//! depends on whether anybody reads them. Nothing is noted on the path of an ordinary request. Their
//! texts name nodes as logs do elsewhere: by the number in hexadecimal, or by the address.

use std::fmt;

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

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Became { role } => f.write_str(match role {
                Role::Looking => "looks for a leader",
                Role::Following => "became follower",
                Role::Leading => "became leader, to be established",
                Role::Observing => "became watcher",
            }),
            Note::BallotStarted { round } => write!(f, "votes in round {round}"),
            Note::LastEpoch => {
                write!(f, "begins no ballot: the last epoch there is has been promised")
            }
            Note::Elected { leader, round } => write!(f, "elected {leader} in round {round}"),
            Note::DatagramDropped { from, why } => {
                write!(f, "dropped a datagram from {from}: {why}")
            }
            Note::Closed { conn, peer: Some(peer), why } => {
                write!(f, "closed connection {} with {peer}: {why}", conn.0)
            }
            Note::Closed { conn, peer: None, why } => {
                write!(f, "closed connection {}: {why}", conn.0)
            }
            Note::EpochSettled { epoch } => write!(f, "leads in epoch {epoch}, to be promised"),
            Note::EpochPromised { epoch } => write!(f, "a quorum promised to epoch {epoch}"),
            Note::Established { epoch, initial } => {
                write!(f, "leads in epoch {epoch}, with all up to {initial} committed")
            }
            Note::Synchronized { peer, index } => {
                write!(f, "{peer} holds the history up to {index}")
            }
            Note::Joined { leader, epoch } => write!(f, "follows {leader:x} in epoch {epoch}"),
            Note::Planned { peer, plan } => write!(f, "brings {peer} up to date: {plan}"),
            Note::TailReplaced { from, last } => {
                write!(f, "replaces its history from {from} up to {last}, which the leader lacks")
            }
            Note::Left { why } => write!(f, "leads or follows no longer: {why}"),
            Note::Resigning { why } => write!(f, "resigns: {why}"),
            Note::GometaVoter { peer } => write!(f, "voter {peer} is a gometa process"),
            Note::ElectionPortSilent { peer } => {
                write!(f, "the election port {peer} has never answered")
            }
            Note::OddOperation { zxid, op } => {
                write!(f, "passes over {zxid}: no machine applies operation {}", op.0)
            }
            Note::Diverged { zxid } => {
                write!(f, "two histories differ in what {zxid} holds; nothing was changed")
            }
            Note::BareState { committed } => write!(
                f,
                "a gometa leader sent an empty state, and {committed} is committed here: it is not \
                 followed until it sends a key"
            ),
            Note::Missed { count } => write!(f, "{count} more notes"),
        }
    }
}

impl fmt::Display for DatagramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatagramFault::NotMember => "no member, and it does not merely ask",
            DatagramFault::Candidate => "its candidate is no member",
            DatagramFault::Cluster => "another ensemble's",
            DatagramFault::Status => "its sender watches",
        })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::NotLeading => "this node does not lead",
            CloseReason::Waiting => "it is not known yet who will lead",
            CloseReason::TooMany => "there are too many",
            CloseReason::RoleOver => "this node's role is over",
            CloseReason::OutOfPlace(kind) => return write!(f, "{kind:?} has no place there"),
            CloseReason::NotVoter => "it is no voter",
            CloseReason::LongName => "its name is too long",
            CloseReason::Replaced => "it has connected again",
            CloseReason::GometaVoter => "voters of gometa's are not taken",
            CloseReason::Outbid => "it has promised to a later epoch",
            CloseReason::Ahead => "its history is ahead of the leader's",
            CloseReason::NoPlan => "nothing here can bring it up to date",
            CloseReason::NotEmpty => "it must be emptied first",
            CloseReason::Behind => "it lags too far behind",
            CloseReason::Full => "it takes what it is sent too slowly",
            CloseReason::Silent => "it showed no sign of life, or made no progress",
            CloseReason::NotAccepting => "it did not accept a proposal for too long",
            CloseReason::BadAccept => "it vouches for what it was never sent",
            CloseReason::Stray => "nobody waits for it",
        })
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeaveReason::Disconnected => "there is no connection",
            LeaveReason::TimedOut => "nothing went on for too long",
            LeaveReason::Silent => "the leader showed no sign of life",
            LeaveReason::OutOfPlace(kind) => return write!(f, "{kind:?} has no place there"),
            LeaveReason::Epoch => "this node may not promise to the leader's epoch",
            LeaveReason::GometaLeader => "leaders of gometa's are not taken",
            LeaveReason::Gap => "what came has a gap",
            LeaveReason::Diverged => "what came contradicts what is known",
            LeaveReason::Disordered => "the leader's stream is in no order, or has a hole",
            LeaveReason::TooLong => "the leader's stream is too long",
            LeaveReason::StateStream => "the leader's stream stands for a state, not a history",
            LeaveReason::NotEstablished => "it did not get its quorums",
            LeaveReason::OutOfReach => "no quorum can come about in this epoch",
            LeaveReason::QuorumLost => "too few voters are connected",
            LeaveReason::Resigned => "the leader resigned",
        })
    }
}

impl fmt::Display for ResignReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResignReason::Asked => "it was told to",
            ResignReason::CounterEnds => "its epoch has hardly any transactions left",
            ResignReason::Outbid => "a voter promised to a later epoch",
        })
    }
}

impl fmt::Display for SyncPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncPlan::Difference { after } => write!(f, "what follows {after}"),
            SyncPlan::Truncation { keep } => write!(f, "back to {keep}, and what follows"),
            SyncPlan::Snapshot { index } => write!(f, "the state at {index}, and what follows"),
            SyncPlan::State { index } => {
                write!(f, "the state at {index} as transactions, and what follows")
            }
            SyncPlan::Replay { after } => write!(f, "all behind {after} once more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_sentences_that_name_nodes_as_logs_do() {
        let told = [
            (Note::Joined { leader: NodeId(0xe9ba), epoch: Epoch(2) }, "follows e9ba in epoch 2"),
            (
                Note::Established { epoch: Epoch(2), initial: Index(7) },
                "leads in epoch 2, with all up to 7 committed",
            ),
            (
                Note::Left { why: LeaveReason::OutOfPlace(MessageType::Ping) },
                "leads or follows no longer: Ping has no place there",
            ),
            (
                Note::Planned {
                    peer: Address::from("10.0.0.1:9001"),
                    plan: SyncPlan::Truncation { keep: Index(3) },
                },
                "brings 10.0.0.1:9001 up to date: back to 3, and what follows",
            ),
            (
                Note::Closed { conn: ConnId(4), peer: None, why: CloseReason::TooMany },
                "closed connection 4: there are too many",
            ),
        ];
        for (note, text) in told {
            assert_eq!(note.to_string(), text, "{note:?}");
        }
    }
}
