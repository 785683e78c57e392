//! The Raft engine.

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
mod rng;
mod snapshot;
mod status;
mod storage;
mod unstable;

pub use change::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType,
    ConfChangeV2, ParseChangesError, conf_changes_from_string, conf_changes_to_string,
    describe_conf_changes,
};
pub use changer::{ChangeError, Changer, Membership};
pub use describe::{
    EntryFormatter, describe_conf_change, describe_conf_state, describe_entries, describe_entry,
    describe_hard_state, describe_message, describe_ready, describe_snapshot, describe_soft_state,
    quote, status_json,
};
pub use entry::{Entry, EntryType, HardState, encoded_size, limit_size, payload_size};
pub use fatal::Fatal;
pub use inflight::Inflights;
pub use membership::{MembershipConfig, ProgressTracker, Tally};
pub use message::{
    Body, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Message, MessageType, is_local_target,
};
pub use progress::{Progress, ProgressMap, ProgressState};
pub use snapshot::{ConfState, Snapshot, SnapshotMetadata};
pub use storage::{InitialState, MemoryStorage, Storage, StorageError};
pub use change_wire::{ChangeWireError, decode_conf_change, encode_conf_change};
pub use config::{Config, ConfigError, ReadOnlyOption};
pub use error::{ChangeRefusal, DropReason, Error};
pub use note::{CampaignRefusal, MessageFault, Note, SnapshotFault};
pub use raw_node::RawNode;
pub use ready::{Ready, must_sync};
pub use status::{
    BasicStatus, CampaignType, Peer, ReadState, ReplicaKind, Role, SnapshotStatus, SoftState,
    Status,
};
