//! The Raft engine: one node of one replicated log, as a value that does no I/O.
//!
//! A [`RawNode`] is given ticks, messages and proposals, and asked for the work that follows from
//! them ([`Ready`]). What it does is a function of its [`Config`], its [`Storage`] and its inputs:
//! no clock is read, no thread started, nothing drawn but from the configured seed. It behaves as
//! etcd's Raft library does, under the same names.
//!
//! ```text
//! raw_node   the driver's contract; render: its two ways of writing
//! raft       one message: term gate, what all roles do, the role; the one place where roles change
//! follower   candidate   leader   what each role does
//! core       what every role shares, and the queues of messages; append: how a log gets to peers
//! log        stable and unstable entries; membership, changer: who is in; progress: flow control
//! trace      what a node did, for checking a run against a model; note: for people
//! ```
//!
//! Messages from outside are doubted and never panic a node; what only a bug or a damaged disk can
//! bring about is a [`Fatal`], after which the node does nothing any more.

mod append;
mod candidate;
mod change;
mod change_wire;
mod changer;
mod check;
mod config;
mod core;
mod describe;
mod entry;
mod error;
mod fatal;
mod follower;
mod inflight;
mod leader;
mod log;
mod membership;
mod message;
mod note;
mod progress;
mod raft;
mod raw_node;
mod reads;
mod ready;
mod render;
mod rng;
mod snapshot;
mod status;
mod storage;
mod trace;
mod unstable;

pub use change::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType,
    ConfChangeV2, ParseChangesError, conf_changes_from_string, conf_changes_to_string,
    describe_conf_changes,
};
pub use change_wire::{ChangeWireError, decode_conf_change, encode_conf_change};
pub use changer::{ChangeError, Changer, Membership};
pub use config::{Config, ConfigError, ReadOnlyOption};
pub use describe::{
    EntryFormatter, describe_conf_change, describe_conf_state, describe_entries, describe_entry,
    describe_hard_state, describe_message, describe_ready, describe_snapshot, describe_soft_state,
    quote, status_json,
};
pub use entry::{Entry, EntryType, HardState, encoded_size, limit_size, payload_size};
pub use error::{ChangeRefusal, DropReason, Error, SnapshotRequestRefusal};
pub use fatal::Fatal;
pub use inflight::Inflights;
pub use membership::{MembershipConfig, ProgressTracker, Tally};
pub use message::{
    Body, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Message, MessageType, is_local_target,
};
pub use note::{CampaignRefusal, MessageFault, Note, SnapshotFault, TransferOutcome};
pub use progress::{Progress, ProgressMap, ProgressState};
pub use raw_node::RawNode;
pub use ready::{Ready, must_sync};
pub use snapshot::{ConfState, Snapshot, SnapshotMetadata};
pub use status::{
    BasicStatus, CampaignType, Peer, ReadState, ReplicaKind, Role, SnapshotStatus, SoftState,
    Status,
};
pub use storage::{InitialState, MemoryStorage, Storage, StorageError};
pub use trace::{
    STATE_TRACE_DEPLOYED, TraceLogger, TracingAction, TracingConfChange, TracingEvent,
    TracingEventName, trace_line,
};
