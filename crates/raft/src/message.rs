//! What Raft peers say to each other, and what a node says to its own storage threads.

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::{Entries, Entry, HardState, Snapshot};

/// Pseudo-id of the thread that appends to the log, when storage writes are asynchronous.
pub const LOCAL_APPEND_THREAD: NodeId = NodeId(u64::MAX);
/// Pseudo-id of the thread that applies entries, when storage writes are asynchronous.
pub const LOCAL_APPLY_THREAD: NodeId = NodeId(u64::MAX - 1);

/// A message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who is to have it; [`NodeId::NONE`] while unset.
    pub to: NodeId,
    /// Whose it is; [`NodeId::NONE`] while unset.
    pub from: NodeId,
    /// The sender's term, or the term campaigned for; 0 in messages that carry none.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says. Each variant names etcd's message type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `MsgHup`: campaign.
    Hup,
    /// `MsgBeat`: send heartbeats.
    Beat,
    /// `MsgProp`: append these (type and data only).
    Propose {
        /// The proposals.
        entries: Vec<Entry>,
    },
    /// `MsgApp`: append these after `prev`.
    Append {
        /// The entry just before the ones sent.
        prev: EntryId,
        /// The entries; none in a probe.
        entries: Entries,
        /// The leader's commit index, not clamped.
        commit: Index,
    },
    /// `MsgAppResp`, accepting: the log matches up to `index`. Index 0 only announces a term.
    AppendReply {
        /// Highest index known to match, durably.
        index: Index,
    },
    /// `MsgAppResp`, refusing.
    ///
    /// With index 0, at which all logs agree, it asks for a snapshot at or after `hint.index`
    /// ([`RawNode::request_snapshot`](crate::RawNode::request_snapshot)). A leader that does not
    /// know this takes it for a refusal that came late, and ignores it.
    AppendRefusal {
        /// The `prev.index` of the refused append.
        index: Index,
        /// The follower's guess where the logs may still agree.
        hint: EntryId,
    },
    /// `MsgVote`.
    Vote {
        /// The candidate's last entry.
        last: EntryId,
        /// Whether the leader itself asked for this election (context `CampaignTransfer`).
        transfer: bool,
        /// The candidate's [`Config::priority`](crate::Config::priority).
        priority: i64,
    },
    /// `MsgVoteResp`.
    VoteReply {
        /// Whether the vote was refused.
        reject: bool,
    },
    /// `MsgPreVote`.
    PreVote {
        /// The pre-candidate's last entry.
        last: EntryId,
        /// As in [`Body::Vote`].
        transfer: bool,
        /// As in [`Body::Vote`].
        priority: i64,
    },
    /// `MsgPreVoteResp`.
    PreVoteReply {
        /// Whether the vote was refused.
        reject: bool,
    },
    /// `MsgSnap`: install this.
    Snapshot {
        /// The snapshot; empty ones are ignored.
        snapshot: Box<Snapshot>,
    },
    /// `MsgHeartbeat`.
    Heartbeat {
        /// The smaller of the peer's match and the leader's commit.
        commit: Index,
        /// Position of the newest unconfirmed read (8 bytes, little-endian), or empty.
        context: Bytes,
    },
    /// `MsgHeartbeatResp`.
    HeartbeatReply {
        /// The heartbeat's context.
        context: Bytes,
    },
    /// `MsgUnreachable`: the sender could not be reached.
    Unreachable,
    /// `MsgSnapStatus`: a snapshot to the sender was sent, or not.
    SnapshotStatus {
        /// Whether it failed.
        reject: bool,
    },
    /// `MsgCheckQuorum`: step down unless a quorum was heard from.
    CheckQuorum,
    /// `MsgTransferLeader`: hand leadership to the sender.
    TransferLeader,
    /// `MsgTimeoutNow`: campaign at once.
    TimeoutNow,
    /// `MsgReadIndex`: where may a read that arrives now be served?
    ReadIndex {
        /// One entry whose data is the request's context.
        entries: Vec<Entry>,
    },
    /// `MsgReadIndexResp`: at this index.
    ReadIndexReply {
        /// Serve the read once this index is applied.
        index: Index,
        /// As in the request.
        entries: Vec<Entry>,
    },
    /// `MsgStorageAppend`: write these durably, then deliver the responses.
    StorageAppend {
        /// The new hard state, if it changed (its term also stands in the envelope).
        hard_state: Option<HardState>,
        /// Entries to append; they replace whatever stands at their indexes and after.
        entries: Entries,
        /// A snapshot to install.
        snapshot: Option<Box<Snapshot>>,
        /// To be delivered once all of it is durable, in this order.
        responses: Vec<Message>,
    },
    /// `MsgStorageAppendResp`: a write is durable.
    StorageAppendReply {
        /// The last entry of the log when the write was issued, if any was unstable.
        stable: Option<EntryId>,
        /// The snapshot that was written.
        snapshot: Option<Box<Snapshot>>,
    },
    /// `MsgStorageApply`: apply these.
    StorageApply {
        /// Committed entries in order.
        entries: Entries,
        /// To be delivered once they are applied.
        responses: Vec<Message>,
    },
    /// `MsgStorageApplyResp`: these are applied.
    StorageApplyReply {
        /// The entries that were applied.
        entries: Entries,
    },
    /// `MsgForgetLeader`: believe in no leader for now.
    ForgetLeader,
}

/// The number and name a message type has in etcd's wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each variant is described at its `Body`")]
pub enum MessageType {
    MsgHup,
    MsgBeat,
    MsgProp,
    MsgApp,
    MsgAppResp,
    MsgVote,
    MsgVoteResp,
    MsgSnap,
    MsgHeartbeat,
    MsgHeartbeatResp,
    MsgUnreachable,
    MsgSnapStatus,
    MsgCheckQuorum,
    MsgTransferLeader,
    MsgTimeoutNow,
    MsgReadIndex,
    MsgReadIndexResp,
    MsgPreVote,
    MsgPreVoteResp,
    MsgStorageAppend,
    MsgStorageAppendResp,
    MsgStorageApply,
    MsgStorageApplyResp,
    MsgForgetLeader,
}

impl MessageType {
    /// Whether such a message never crosses the network.
    pub fn is_local(self) -> bool {
        use MessageType::*;
        matches!(
            self,
            MsgHup
                | MsgBeat
                | MsgUnreachable
                | MsgSnapStatus
                | MsgCheckQuorum
                | MsgStorageAppend
                | MsgStorageAppendResp
                | MsgStorageApply
                | MsgStorageApplyResp
        )
    }

    /// Whether such a message is an answer.
    pub fn is_response(self) -> bool {
        use MessageType::*;
        matches!(
            self,
            MsgAppResp
                | MsgVoteResp
                | MsgHeartbeatResp
                | MsgUnreachable
                | MsgReadIndexResp
                | MsgPreVoteResp
                | MsgStorageAppendResp
                | MsgStorageApplyResp
        )
    }
}

/// Whether `id` names one of the two storage threads rather than a node.
pub fn is_local_target(id: NodeId) -> bool {
    id == LOCAL_APPEND_THREAD || id == LOCAL_APPLY_THREAD
}

impl Message {
    /// A message whose sender and term the engine fills in.
    pub fn new(to: NodeId, body: Body) -> Self {
        Message { to, from: NodeId::NONE, term: Term(0), body }
    }

    /// Its type in etcd's wire format.
    pub fn message_type(&self) -> MessageType {
        self.body.message_type()
    }
}

impl Body {
    /// Its type in etcd's wire format.
    pub fn message_type(&self) -> MessageType {
        match self {
            Body::Hup => MessageType::MsgHup,
            Body::Beat => MessageType::MsgBeat,
            Body::Propose { .. } => MessageType::MsgProp,
            Body::Append { .. } => MessageType::MsgApp,
            Body::AppendReply { .. } | Body::AppendRefusal { .. } => MessageType::MsgAppResp,
            Body::Vote { .. } => MessageType::MsgVote,
            Body::VoteReply { .. } => MessageType::MsgVoteResp,
            Body::PreVote { .. } => MessageType::MsgPreVote,
            Body::PreVoteReply { .. } => MessageType::MsgPreVoteResp,
            Body::Snapshot { .. } => MessageType::MsgSnap,
            Body::Heartbeat { .. } => MessageType::MsgHeartbeat,
            Body::HeartbeatReply { .. } => MessageType::MsgHeartbeatResp,
            Body::Unreachable => MessageType::MsgUnreachable,
            Body::SnapshotStatus { .. } => MessageType::MsgSnapStatus,
            Body::CheckQuorum => MessageType::MsgCheckQuorum,
            Body::TransferLeader => MessageType::MsgTransferLeader,
            Body::TimeoutNow => MessageType::MsgTimeoutNow,
            Body::ReadIndex { .. } => MessageType::MsgReadIndex,
            Body::ReadIndexReply { .. } => MessageType::MsgReadIndexResp,
            Body::StorageAppend { .. } => MessageType::MsgStorageAppend,
            Body::StorageAppendReply { .. } => MessageType::MsgStorageAppendResp,
            Body::StorageApply { .. } => MessageType::MsgStorageApply,
            Body::StorageApplyReply { .. } => MessageType::MsgStorageApplyResp,
            Body::ForgetLeader => MessageType::MsgForgetLeader,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MessageType::*;
    use super::*;

    /// Each type with its number, whether it stays inside a node, and whether it is an answer.
    const TYPES: [(MessageType, u8, bool, bool); 24] = [
        (MsgHup, 0, true, false),
        (MsgBeat, 1, true, false),
        (MsgProp, 2, false, false),
        (MsgApp, 3, false, false),
        (MsgAppResp, 4, false, true),
        (MsgVote, 5, false, false),
        (MsgVoteResp, 6, false, true),
        (MsgSnap, 7, false, false),
        (MsgHeartbeat, 8, false, false),
        (MsgHeartbeatResp, 9, false, true),
        (MsgUnreachable, 10, true, true),
        (MsgSnapStatus, 11, true, false),
        (MsgCheckQuorum, 12, true, false),
        (MsgTransferLeader, 13, false, false),
        (MsgTimeoutNow, 14, false, false),
        (MsgReadIndex, 15, false, false),
        (MsgReadIndexResp, 16, false, true),
        (MsgPreVote, 17, false, false),
        (MsgPreVoteResp, 18, false, true),
        (MsgStorageAppend, 19, true, false),
        (MsgStorageAppendResp, 20, true, true),
        (MsgStorageApply, 21, true, false),
        (MsgStorageApplyResp, 22, true, true),
        (MsgForgetLeader, 23, false, false),
    ];

    #[test]
    fn types_know_where_they_belong() {
        for (kind, number, is_local, is_response) in TYPES {
            assert_eq!(kind as u8, number, "{kind:?}");
            assert_eq!(kind.is_local(), is_local, "{kind:?}");
            assert_eq!(kind.is_response(), is_response, "{kind:?}");
        }
    }

    #[test]
    fn two_ids_are_no_nodes() {
        for (id, want) in [
            (LOCAL_APPEND_THREAD, true),
            (LOCAL_APPLY_THREAD, true),
            (NodeId(u64::MAX), true),
            (NodeId(u64::MAX - 1), true),
            (NodeId(u64::MAX - 2), false),
            (NodeId(1), false),
            (NodeId::NONE, false),
        ] {
            assert_eq!(is_local_target(id), want, "{id}");
        }
    }

    #[test]
    fn messages_cost_little_memory() {
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
        assert!(size_of::<Message>() <= 152, "{}", size_of::<Message>());
    }
}
