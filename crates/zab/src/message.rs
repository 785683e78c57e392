//! What nodes say to each other: gometa's thirteen messages, and a few that only our own nodes
//! exchange once both have said that they know them.
//!
//! ```text
//! any -> any (datagrams)   Vote
//! learner -> leader        FollowerInfo, EpochAck, NewLeaderAck, Request, Accept
//! leader -> learner        LeaderInfo, LogEntry, NewLeader, Proposal, Commit, Abort, Response
//! native, either way       Ping, Pong, Snapshot, ReadIndex, ReadIndexReply, Inform
//! ```
//!
//! Fields that are `Option`s with a "native" remark are ours: gometa skips them, and a message of
//! gometa's does not have them. Not here: bytes (the `codec` crate).

use bytes::Bytes;
use quorate_types::Index;

use crate::{Address, Command, Epoch, Op, Snapshot, Zxid};

/// What a node is doing, as votes show it. The numbers are gometa's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerStatus {
    /// It looks for a leader. Whoever asks says this, watchers too.
    #[default]
    Electing = 0,
    /// It was elected.
    Leading = 1,
    /// It follows the one who was elected.
    Following = 2,
    /// It watches; never said on the wire.
    Watching = 3,
}

/// A vote for a candidate, a question who leads, or the answer to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The sender's election round.
    pub round: u64,
    /// What the sender is doing.
    pub status: PeerStatus,
    /// The candidate's current epoch; in an answer, that of the leader.
    pub epoch: Epoch,
    /// The candidate: the address of its election port.
    pub candidate: Address,
    /// The last id in the candidate's history.
    pub logged: Zxid,
    /// The last id the candidate knows to be committed.
    pub committed: Zxid,
    /// Whether the sender only asks and must not be counted.
    pub solicit: bool,
    /// Native: the ensemble it belongs to.
    pub cluster: Option<u64>,
}

/// The longest name of a learner, in bytes. Names are addresses, host and port; a leader keeps one for
/// each connection, and each request that is on its way to somebody.
pub const FID_BYTES_MAX: usize = 1024;

/// A learner introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowerInfo {
    /// The epoch it has promised to; for a watcher, the highest it has seen.
    pub accepted_epoch: Epoch,
    /// Who it is: the address of its message port.
    pub fid: Address,
    /// Whether it votes.
    pub voting: bool,
    /// Native: what it can do, as bits of [`caps`]. A gometa peer says nothing.
    pub caps: Option<u64>,
    /// Native: whom the epoch was promised to.
    pub accepted_leader: Option<Address>,
}

/// The epoch that is to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The new epoch.
    pub epoch: Epoch,
    /// Native: what the leader can do, as bits of [`caps`].
    pub caps: Option<u64>,
}

/// A learner has promised to the new epoch, and says where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochAck {
    /// Where the stream shall begin: its last id, or, for a gometa leader, its last committed one.
    pub logged: Zxid,
    /// The epoch its history is of.
    pub current_epoch: Epoch,
    /// Native: the last id it knows to be committed.
    pub committed: Option<Zxid>,
}

/// A place in the stream that brings a learner up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// The entry's id; in the markers at both ends, the leader's last committed id.
    pub zxid: Zxid,
    /// What it does; [`Op::STREAM_BEGIN`] and [`Op::STREAM_END`] make it a marker.
    pub command: Command,
    /// Native, in the first marker: the learner may keep its history up to here, and the stream
    /// follows on it. Absent there: a [`Message::Snapshot`] comes next.
    pub keep: Option<Zxid>,
}

/// A client's request on its way to the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Random, and unique at its origin.
    pub id: u64,
    /// What is wanted.
    pub command: Command,
}

/// A transaction that the leader wants accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Its id.
    pub zxid: Zxid,
    /// Who asked for it.
    pub fid: Address,
    /// The id of the request there.
    pub request: u64,
    /// What it does.
    pub command: Command,
}

/// Everything that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named by the sentences they stand in")]
pub enum Message {
    /// Election; the only message in datagrams.
    Vote(Vote),
    /// First message on a connection.
    FollowerInfo(FollowerInfo),
    /// The epoch is settled.
    LeaderInfo(LeaderInfo),
    /// The epoch is promised.
    EpochAck(EpochAck),
    /// Part of the stream.
    LogEntry(LogEntry),
    /// The stream is over; this epoch begins.
    NewLeader { epoch: Epoch },
    /// The learner's history is the leader's, durably.
    NewLeaderAck,
    /// A client's request.
    Request(Request),
    /// A transaction to accept.
    Proposal(Proposal),
    /// The follower `fid` holds everything up to `zxid` durably.
    Accept { zxid: Zxid, fid: Address },
    /// Everything up to `zxid` is committed.
    Commit { zxid: Zxid },
    /// The request `request` of `fid` was refused before it became a transaction.
    Abort { request: u64, fid: Address, error: String },
    /// The answer to a request outside the log.
    Response { request: u64, fid: Address, error: String, content: Option<Bytes> },
    /// Native: are you there, and do you still follow? Answered by a Pong with the same number.
    Ping { number: u64 },
    /// Native: the answer to a Ping.
    Pong { number: u64 },
    /// Native: stands for the history up to an entry that the leader no longer has.
    ///
    /// The engine treats `data` as opaque. A driver may carry the application's state beside this
    /// message; then it hands the message over once the state has arrived.
    Snapshot(Snapshot),
    /// Native: from where on may a linearizable read be served?
    ReadIndex { id: u64 },
    /// Native: from `index` on; without one, this node cannot say.
    ReadIndexReply { id: u64, index: Option<Index> },
    /// Native: a transaction that is committed, to a watcher that wants no others. It stands for a
    /// Proposal and its Commit.
    Inform(Proposal),
}

/// What a native peer can do: bits in [`FollowerInfo::caps`] and [`LeaderInfo::caps`].
pub mod caps {
    /// It knows Ping and Pong.
    pub const PING: u64 = 1;
    /// It knows plans that cut its history or replace it by a snapshot.
    pub const PLAN: u64 = 2;
    /// A watcher: it wants committed entries only, each in one message. A leader: it sends such.
    pub const COMMIT_ONLY: u64 = 4;
    /// It knows ReadIndex.
    pub const READ: u64 = 8;
    /// What this version can do.
    pub const ALL: u64 = PING | PLAN | COMMIT_ONLY | READ;
}

/// gometa's text for a request that nobody here can answer.
pub const NO_CUSTOM_HANDLER: &str = "No custom request handler";

/// The name that keep-alives to gometa learners are addressed to, which is nobody's.
pub const KEEP_ALIVE_FID: &str = "hb";

/// Key and content of the marker that opens a stream.
pub const STREAM_BEGIN_TEXT: &str = "StreamBegin";

/// Key and content of the marker that ends a stream.
pub const STREAM_END_TEXT: &str = "StreamEnd";

/// The name of a message, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each stands for the variant of Message of the same name")]
pub enum MessageType {
    Vote,
    FollowerInfo,
    LeaderInfo,
    EpochAck,
    LogEntry,
    NewLeader,
    NewLeaderAck,
    Request,
    Proposal,
    Accept,
    Commit,
    Abort,
    Response,
    Ping,
    Pong,
    Snapshot,
    ReadIndex,
    ReadIndexReply,
    Inform,
}

impl MessageType {
    /// Every type.
    pub const ALL: [MessageType; 19] = {
        use MessageType::*;
        [
            Vote,
            FollowerInfo,
            LeaderInfo,
            EpochAck,
            LogEntry,
            NewLeader,
            NewLeaderAck,
            Request,
            Proposal,
            Accept,
            Commit,
            Abort,
            Response,
            Ping,
            Pong,
            Snapshot,
            ReadIndex,
            ReadIndexReply,
            Inform,
        ]
    };

    /// Its name on the wire. Case matters.
    pub fn name(self) -> &'static str {
        match self {
            MessageType::Vote => "Vote",
            MessageType::FollowerInfo => "FollowerInfo",
            MessageType::LeaderInfo => "LeaderInfo",
            MessageType::EpochAck => "EpochAck",
            MessageType::LogEntry => "LogEntry",
            MessageType::NewLeader => "NewLeader",
            MessageType::NewLeaderAck => "NewLeaderAck",
            MessageType::Request => "Request",
            MessageType::Proposal => "Proposal",
            MessageType::Accept => "Accept",
            MessageType::Commit => "Commit",
            MessageType::Abort => "Abort",
            MessageType::Response => "Response",
            MessageType::Ping => "Ping",
            MessageType::Pong => "Pong",
            MessageType::Snapshot => "Snapshot",
            MessageType::ReadIndex => "ReadIndex",
            MessageType::ReadIndexReply => "ReadIndexReply",
            MessageType::Inform => "Inform",
        }
    }
}

impl Message {
    /// Its type.
    pub fn message_type(&self) -> MessageType {
        match self {
            Message::Vote(_) => MessageType::Vote,
            Message::FollowerInfo(_) => MessageType::FollowerInfo,
            Message::LeaderInfo(_) => MessageType::LeaderInfo,
            Message::EpochAck(_) => MessageType::EpochAck,
            Message::LogEntry(_) => MessageType::LogEntry,
            Message::NewLeader { .. } => MessageType::NewLeader,
            Message::NewLeaderAck => MessageType::NewLeaderAck,
            Message::Request(_) => MessageType::Request,
            Message::Proposal(_) => MessageType::Proposal,
            Message::Accept { .. } => MessageType::Accept,
            Message::Commit { .. } => MessageType::Commit,
            Message::Abort { .. } => MessageType::Abort,
            Message::Response { .. } => MessageType::Response,
            Message::Ping { .. } => MessageType::Ping,
            Message::Pong { .. } => MessageType::Pong,
            Message::Snapshot(_) => MessageType::Snapshot,
            Message::ReadIndex { .. } => MessageType::ReadIndex,
            Message::ReadIndexReply { .. } => MessageType::ReadIndexReply,
            Message::Inform(_) => MessageType::Inform,
        }
    }

    /// Whether it is an introduction with a name in it that is too long for an address.
    pub(crate) fn has_long_name(&self) -> bool {
        let Message::FollowerInfo(info) = self else { return false };
        let mut names = [Some(&info.fid), info.accepted_leader.as_ref()].into_iter().flatten();
        names.any(|name| FID_BYTES_MAX < name.as_str().len())
    }

    /// About what it takes in memory or on the wire.
    pub fn bytes(&self) -> u64 {
        let varying = match self {
            Message::LogEntry(entry) => entry.command.bytes(),
            Message::Request(request) => request.command.bytes(),
            Message::Proposal(proposal) | Message::Inform(proposal) => proposal.command.bytes(),
            Message::Abort { error, .. } => error.len() as u64,
            Message::Response { error, content, .. } => {
                (error.len() + content.as_ref().map_or(0, Bytes::len)) as u64
            }
            Message::Snapshot(snapshot) => snapshot.data.len() as u64,
            _ => 0,
        };
        varying + MESSAGE_FIELDS_BYTES
    }
}

/// Frame, name, ids and addresses of a message.
const MESSAGE_FIELDS_BYTES: u64 = 64;

impl LogEntry {
    /// The marker that opens a stream.
    pub fn begin(committed: Zxid, keep: Option<Zxid>) -> Self {
        let command = marker(Op::STREAM_BEGIN, STREAM_BEGIN_TEXT);
        LogEntry { zxid: committed, command, keep }
    }

    /// The marker that ends a stream.
    pub fn end(committed: Zxid) -> Self {
        LogEntry { zxid: committed, command: marker(Op::STREAM_END, STREAM_END_TEXT), keep: None }
    }
}

fn marker(op: Op, text: &'static str) -> Command {
    Command { op, key: text.into(), content: Bytes::from_static(text.as_bytes()) }
}
