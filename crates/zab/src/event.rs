//! What a node is told, and what it asks for.

use bytes::Bytes;
use quorate_types::{Index, NodeId};

use crate::{Address, Command, Entry, Epoch, Message, Note, Request, Role, Snapshot, Vote, Zxid};

/// A write to the durable history. Writes become durable in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A connection, named by the driver; never used for a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A request of this node, named by the engine. It is also the request's id on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// A linearizable read, named by whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What a node must not forget besides its history. Stored with it, in one write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The epoch this node has promised to.
    pub accepted_epoch: Epoch,
    /// Whom that was promised to: the address of its message port.
    pub accepted_leader: Option<Address>,
    /// The epoch whose leader's history this node's history is.
    pub current_epoch: Epoch,
    /// Everything up to here is known to be committed. A hint: it may lag.
    pub committed: Zxid,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is this late, by a clock that never goes back. Wanted some twenty times a second, or when
    /// [`Zab::wake_ms`](crate::Zab::wake_ms) says and before anything else is reported.
    Tick {
        /// Milliseconds since any moment.
        now_ms: u64,
    },
    /// A vote came in a datagram.
    Datagram {
        /// The address it came from.
        from: Address,
        /// What it says.
        vote: Vote,
    },
    /// Somebody has connected to the message port. The engine believes what a connection says of who
    /// it is: where that is not safe, authenticate it first.
    Accepted {
        /// The connection.
        conn: ConnId,
    },
    /// A connection that this node asked for stands.
    Connected {
        /// Whom to.
        to: Address,
        /// The connection.
        conn: ConnId,
    },
    /// A connection that this node asked for could not be made.
    ConnectFailed {
        /// Whom to.
        to: Address,
    },
    /// A message came on a connection. Those of one connection come in the order they were sent.
    Received {
        /// The connection.
        conn: ConnId,
        /// What it says.
        message: Message,
    },
    /// The first so many messages not yet reported as written are with the operating system.
    Written {
        /// The connection.
        conn: ConnId,
        /// How many.
        count: usize,
    },
    /// Something came on a connection that is no message yet: the other end lives.
    Heard {
        /// The connection.
        conn: ConnId,
    },
    /// Something that takes longer than a message is under way at the other end of a connection, or on
    /// the way there: the state that belongs to a snapshot comes, or is being installed. It counts as a
    /// sign of life of either side, and as if the synchronization had gone on.
    Progress {
        /// The connection.
        conn: ConnId,
    },
    /// A connection is over, whoever ended it.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// This node could neither lead nor follow for a while, such as when its disk stood still, and may
    /// not be able to again: in the next ballots, others that have as much go before it.
    StandBack {
        /// The moment, by the clock of [`Event::Tick`], which may have stood still meanwhile.
        now_ms: u64,
    },
    /// All writes up to this one are durable, and the snapshot in it, if any, is installed.
    Persisted(WriteId),
    /// The machine has applied everything up to here.
    Applied(Index),
    /// The application answers a request outside the log.
    Respond {
        /// Who asked, as [`CustomRequest::origin`] had it.
        origin: Address,
        /// The request's id there.
        request: u64,
        /// Why it failed; empty if it did not.
        error: String,
        /// The answer.
        content: Option<Bytes>,
    },
    /// Give up leadership in good order, if this node leads: outstanding proposals first.
    Resign,
    /// Whether the machine's state cannot be saved, so that the history can let go of nothing. While
    /// that is so, a leader refuses requests as [`ProposeError::Busy`](crate::ProposeError::Busy).
    Stalled(bool),
}

/// A numbered write. Whatever vouches for it waits inside the node until it is durable.
///
/// All of it is one atomic step: after a crash either all of it is there or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Its number.
    pub id: WriteId,
    /// Replaces the history and the machine's state, before anything below. What was handed out to
    /// be applied and is not applied yet is part of it.
    pub install: Option<Snapshot>,
    /// Everything from this index on is removed, and `entries` stand there instead.
    pub replace_from: Option<Index>,
    /// The entries from `replace_from` on; may be none.
    pub entries: Vec<Entry>,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
}

/// What became of a request. There is exactly one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed, and applied on this node.
    Committed {
        /// Its place in the history.
        index: Index,
        /// Its transaction.
        zxid: Zxid,
    },
    /// It was not executed and will not be: asking again is safe.
    Refused {
        /// Why not, in the leader's words.
        reason: String,
    },
    /// A request outside the log was answered.
    Answered {
        /// Why it failed; empty if it did not.
        error: String,
        /// The answer.
        content: Option<Bytes>,
    },
    /// It may have been executed, or may yet be: the leader or the way to it was lost.
    Unknown,
}

/// A request outside the log, for the application to answer with [`Event::Respond`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomRequest {
    /// Who asks.
    pub origin: Address,
    /// What.
    pub request: Request,
}

/// Why a request was not taken. Nothing was done, so it is safe to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Nobody is known to lead, or this node is not yet synchronized with who does.
    #[error("no leader")]
    NoLeader,
    /// The leader is about to give up its office.
    #[error("leadership is being given up; try again")]
    Resigning,
    /// Key or content are too long.
    #[error("{what} is {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Key or content.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The operation cannot become an entry.
    #[error("operation {op} cannot be proposed")]
    Op {
        /// Its number.
        op: u32,
    },
    /// Too much waits already.
    #[error("too many requests wait; try again later")]
    Busy,
}

/// Why a read was not confirmed. It has no effect, so it is safe to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFailure {
    /// Nobody is known to lead, or the leader changed while the read was under way.
    #[error("no leader, or leader changed")]
    NoLeader,
    /// Too many reads wait already.
    #[error("too many reads wait; try again later")]
    Busy,
    /// The leader, or too many voters, are gometa processes, which know no such reads, or the leader takes
    /// such voters and this node does not lead; and there is no
    /// [`barrier_key`](crate::Config::barrier_key).
    #[error("too few members can confirm a read")]
    Unsupported,
}

/// Who leads, and what this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftState {
    /// This node's role.
    pub role: Role,
    /// Whom it follows, or itself when it leads; [`NodeId::NONE`] while it looks.
    pub leader: NodeId,
    /// Whether it takes part in the broadcast: an established leader, or a synchronized learner.
    pub is_serving: bool,
}

/// What is to be done. Each field may be done the moment it is seen: a message that vouches for a
/// write stays inside the node until [`Event::Persisted`] names that write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Role and leader, if they changed.
    pub soft_state: Option<SoftState>,
    /// Send these; losing some is allowed.
    pub datagrams: Vec<(Address, Vote)>,
    /// Connect to these message ports; report [`Event::Connected`] or [`Event::ConnectFailed`].
    pub connect: Vec<Address>,
    /// Send these, in order; report [`Event::Written`].
    pub messages: Vec<(ConnId, Message)>,
    /// Close these, after what was sent on them. [`Event::Closed`] may follow or not.
    pub close: Vec<ConnId>,
    /// Make this durable; report [`Event::Persisted`].
    pub write: Option<Write>,
    /// Apply these in order; report [`Event::Applied`]. Of those whose operation is not
    /// [applied](crate::Op::is_applied) the machine passes over everything but the index.
    pub committed: Vec<Entry>,
    /// What became of requests.
    pub answers: Vec<(ProposalId, Outcome)>,
    /// Reads that may be served once the index is applied, or failed.
    pub reads: Vec<(ReadId, Result<Index, ReadFailure>)>,
    /// Requests outside the log.
    pub custom: Vec<CustomRequest>,
    /// What the node would have logged.
    pub notes: Vec<Note>,
}

impl Ready {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.soft_state.is_none()
            && self.datagrams.is_empty()
            && self.connect.is_empty()
            && self.messages.is_empty()
            && self.close.is_empty()
            && self.write.is_none()
            && self.committed.is_empty()
            && self.answers.is_empty()
            && self.reads.is_empty()
            && self.custom.is_empty()
            && self.notes.is_empty()
    }
}

/// What cannot be gone on from: a bug, a damaged storage, or a driver that broke the contract.
///
/// Whoever gets one must stop using the node: it must not vote or acknowledge anything any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Storage failed.
    #[error("storage failed: {0}")]
    Storage(#[from] crate::StorageError),
    /// Storage contradicts itself, or gave other entries than it was asked for.
    #[error("storage is damaged at entry {at}: {what}")]
    Damaged {
        /// Where.
        at: Index,
        /// What is wrong.
        what: &'static str,
    },
    /// A write was reported as durable that was never handed out.
    #[error("write {id} was reported as durable; the last one handed out is {last}")]
    UnknownWrite {
        /// What was reported.
        id: u64,
        /// The last one handed out.
        last: u64,
    },
    /// More was reported as applied than was handed out.
    #[error("{index} was reported as applied; the last entry handed out is {handed}")]
    UnknownApplied {
        /// What was reported.
        index: Index,
        /// The last one handed out.
        handed: Index,
    },
}

/// Why a command may not become an entry, if so; `local` if it was asked for on the leader itself.
pub(crate) fn refusal(
    command: &Command,
    config: &crate::Config,
    local: bool,
) -> Option<ProposeError> {
    let (key, content) = (command.key.len() as u64, command.content.len() as u64);
    let may_broadcast = local || config.allow_broadcast;
    if !command.op.is_logged() || (command.op == crate::Op::BROADCAST && !may_broadcast) {
        Some(ProposeError::Op { op: command.op.0 })
    } else if config.key_bytes_max < key {
        let bytes_max = config.key_bytes_max;
        Some(ProposeError::TooLarge { what: "key", bytes: key, bytes_max })
    } else if config.content_bytes_max < content {
        let bytes_max = config.content_bytes_max;
        Some(ProposeError::TooLarge { what: "content", bytes: content, bytes_max })
    } else {
        None
    }
}
