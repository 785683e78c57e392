//! What a replica is told, and what it asks for.

use bytes::Bytes;
use quorate_raft::{AnyConfChange, ConfState, Entries, Entry, Snapshot, TransferOutcome};
use quorate_types::{Index, Mark, NodeId, Term};

use crate::{HardState, Message, RequestId};

/// A write to the durable log. They become durable in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// A linearizable read, named by whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What storage holds when a replica starts.
#[derive(Clone, Debug, Default)]
pub struct Initial {
    /// The place before the log's first entry.
    pub mark: Mark,
    /// The log after the mark, dense. An entry's `term` is its stamp: with ZAB, its id.
    pub entries: Vec<Entry>,
    /// The last hard state written. It tells which engine the log is of.
    pub hard_state: HardState,
    /// The machine's durable state covers the log up to here.
    pub applied: Index,
    /// The membership as of `applied`.
    pub conf_state: ConfState,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A heartbeat interval passed.
    Tick,
    /// So many milliseconds have passed since the last tick: it is told before anything else that happens
    /// between two ticks, and when the replica [wants it](crate::Replica::wake_ms). Only ZAB, whose elections
    /// may be over sooner than a tick, makes anything of it.
    Elapsed(u64),
    /// A peer said something. (A snapshot message comes only once its state is durable here.)
    Message(Message),
    /// A client asks for a command; `entry` was begun with [`seal`](crate::seal).
    Propose {
        /// Its identity.
        request: RequestId,
        /// Envelope and command.
        entry: Bytes,
    },
    /// A membership change is asked for; its identity is the change's context, which the machine
    /// reads.
    ProposeChange {
        /// Its identity.
        request: RequestId,
        /// The change.
        change: AnyConfChange,
    },
    /// A client asks for a linearizable read.
    Read(ReadId),
    /// All writes up to this one are durable, and the snapshot in it, if any, is installed.
    Persisted(WriteId),
    /// The machine has applied everything up to here.
    Applied(Index),
    /// The machine's state up to here is durable.
    Flushed(Index),
    /// The machine keeps this snapshot ready to be sent (its data is not in here).
    SnapshotMade(Snapshot),
    /// A snapshot was delivered, or not.
    SnapshotSent {
        /// The message it went with, as it was in [`Effects::snapshots`].
        message: Message,
        /// Whether the peer has all of it.
        ok: bool,
    },
    /// Messages to this peer are being lost.
    Unreachable(NodeId),
    /// Nobody listens where this peer was: it is not merely cut off.
    Absent(NodeId),
    /// Hand leadership to this peer. What becomes of it comes in [`Effects::transfers`].
    Transfer(NodeId),
    /// Hand leadership to the peer that is best prepared, if this replica leads.
    HandOver,
    /// Campaign now instead of after the timeout.
    Campaign,
}

/// A numbered write. Whatever vouches for it waits inside the replica until it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number.
    pub id: WriteId,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// From here on everything is removed, whether or not `entries` follow. Raft never asks for that
    /// alone.
    pub cut_from: Option<Index>,
    /// Entries that replace whatever stands at the first one's index and after. An entry's `term`
    /// is its stamp: with ZAB, its id.
    pub entries: Entries,
    /// A snapshot to install: first the mark in the log, then the machine's state.
    pub install: Option<Snapshot>,
    /// Where the log starts then.
    pub mark: Option<Mark>,
    /// Whether it holds entries, a vote or a term, which are to be durable before anything is built on
    /// them. Otherwise it may become durable with a later one.
    pub must_sync: bool,
}

impl Write {
    /// A write of a commit index that is to be durable by itself.
    pub(crate) fn commit(id: WriteId, hard_state: HardState) -> Write {
        Write {
            id,
            hard_state: Some(hard_state),
            cut_from: None,
            entries: Entries::default(),
            install: None,
            mark: None,
            must_sync: true,
        }
    }
}

/// One committed entry on its way into the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applying {
    /// A command.
    Command {
        /// Its place.
        index: Index,
        /// Its term, or epoch.
        term: Term,
        /// Envelope and command, as proposed.
        entry: Bytes,
    },
    /// An entry without a command: a new leader's first.
    Empty {
        /// Its place.
        index: Index,
        /// Its term, or epoch.
        term: Term,
    },
    /// A membership change, already in force in the engine.
    Membership {
        /// Its place.
        index: Index,
        /// Its term, or epoch.
        term: Term,
        /// What was proposed.
        change: AnyConfChange,
        /// The membership that results.
        conf_state: ConfState,
    },
}

impl Applying {
    /// Its place.
    pub fn index(&self) -> Index {
        match self {
            Applying::Command { index, .. }
            | Applying::Empty { index, .. }
            | Applying::Membership { index, .. } => *index,
        }
    }
}

/// Why a request was not taken. It will never be applied, so it is safe to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No leader was found in time.
    #[error("no leader")]
    NoLeader,
    /// Too much waits already.
    #[error("too many requests wait; try again later")]
    Busy,
    /// Longer than the limit.
    #[error("command is {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Leadership is being handed over.
    #[error("leadership is being transferred; try again")]
    Transferring,
    /// Another leader's entry took its place in the log.
    #[error("superseded by another leader's entry")]
    Superseded,
    /// A membership change that cannot be carried out, or that came while another was under way.
    #[error("the membership change does not fit the membership, or another is under way")]
    Change,
    /// This node is no longer a member.
    #[error("this node is not a member of the cluster")]
    Removed,
    /// The engine that the cluster runs cannot do it.
    #[error("the cluster's engine does not support this: its membership is fixed")]
    Unsupported,
}

/// Why a read was not confirmed. A read has no effect, so it is safe to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFailure {
    /// The leader changed while it was under way.
    #[error("leader changed")]
    LeaderChanged,
    /// There was no leader to ask for so long that nobody waits for it any more.
    #[error("there is no leader")]
    NoLeader,
    /// Too many reads wait already.
    #[error("too many reads wait; try again later")]
    Busy,
}

/// What is to be done. Each field may be done the moment it is seen.
#[derive(Debug, Default)]
pub struct Effects {
    /// Send these. Losing one is allowed.
    pub messages: Vec<Message>,
    /// Send these with the state of the snapshot made last; report
    /// [`Event::SnapshotSent`] for each.
    pub snapshots: Vec<Message>,
    /// Make these durable in order; report [`Event::Persisted`].
    pub writes: Vec<Write>,
    /// Apply these in order; report [`Event::Applied`].
    pub apply: Vec<Applying>,
    /// These requests were not taken.
    pub refused: Vec<(RequestId, Refusal)>,
    /// These reads may be answered from the machine as it is now, or failed.
    pub reads: Vec<(ReadId, Result<(), ReadFailure>)>,
    /// What became of transfers of leadership that this replica was told to make while it led, and
    /// to whom. One that was asked of a follower ends at the leader.
    pub transfers: Vec<(NodeId, TransferOutcome)>,
    /// Make the machine's state durable; report [`Event::Flushed`].
    pub flush: bool,
    /// Keep a snapshot of the machine ready to be sent; report [`Event::SnapshotMade`].
    pub make_snapshot: bool,
    /// The snapshot kept ready is no longer wanted.
    pub drop_snapshot: bool,
    /// The log may drop everything up to this mark.
    pub compact: Option<Mark>,
    /// What the engine would have logged.
    pub notes: Vec<Note>,
}

/// What an engine would have logged.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// By Raft.
    Raft(quorate_raft::Note),
    /// By ZAB.
    Zab(quorate_zab::Note),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::Raft(note) => note.fmt(f),
            Note::Zab(note) => note.fmt(f),
        }
    }
}

/// A broken promise of this node's own: the replica is unusable from here on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);
