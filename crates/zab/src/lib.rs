//! The ZAB engine: one node of one ensemble, as a value that does no I/O.
mod back_off;
mod check;
mod config;
mod consent;
mod core;
mod election;
mod entry;
mod event;
mod following;
mod history;
mod leading;
mod learner;
mod looking;
mod message;
mod note;
mod observing;
mod requests;
mod rng;
mod status;
mod storage;
mod zab;
mod zxid;

pub use config::{Config, ConfigError, Member};
pub use entry::{Address, Command, Entry, Op, Snapshot};
pub use event::{
    ConnId, CustomRequest, Event, Fatal, HardState, Outcome, ProposalId, ProposeError, ReadFailure,
    ReadId, Ready, SoftState, Write, WriteId,
};
pub use leading::LeaderStage;
pub use learner::FollowerStage;
pub use message::{
    EpochAck, FollowerInfo, KEEP_ALIVE_FID, LeaderInfo, LogEntry, Message, MessageType,
    NO_CUSTOM_HANDLER, PeerStatus, Proposal, Request, STREAM_BEGIN_TEXT, STREAM_END_TEXT, Vote,
    caps,
};
pub use note::{CloseReason, DatagramFault, LeaveReason, Note, ResignReason, SyncPlan};
pub use status::{LearnerStatus, Status};
pub use storage::{MemoryStorage, Storage, StorageError};
pub use zab::{Role, StartError, Zab};
pub use zxid::{Epoch, Zxid};
