//! etcd's key-value state machine: every version of every key under one counter of revisions, with
//! ranges, transactions and compaction; leases, alarms, and the list of members; and who is told of
//! what changes.
//!
//! ```text
//! apply ─► index (which versions, in memory) + overlay (rows not yet flushed)
//! flush ─► backend (rows, applied index, members, leases: one durable transaction)
//! range ─► index at a pinned revision ─► rows from overlay or backend
//! ```
//! Pure: it opens no file, reads no clock, starts no thread. What it writes goes to a [`Backend`]
//! that its caller gives it; when to flush, to compact and to snapshot is the caller's to decide.
//!
//! Where to look: [`Store`] is the whole of it. `request.rs` and `response.rs` hold etcd's messages
//! as our own types, `validate.rs` the checks before the log, `apply.rs` what an entry does,
//! `read.rs` reading, `index.rs` versions and compaction, `snapshot.rs` the state as a stream,
//! `lease.rs` leases as all members know them and `lessor.rs` when they end, `watch.rs` watchers.

mod alarm;
mod allowance;
mod apply;
mod backend;
mod changes;
mod command;
mod defragment;
mod error;
mod hash;
mod index;
mod interval;
mod lease;
mod lessor;
mod member;
mod meta;
mod overlay;
mod read;
mod recent;
mod request;
mod response;
mod revision;
mod row;
mod sealed;
mod setting;
mod snapshot;
mod state;
mod store;
mod validate;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

pub use alarm::{ALARMS_MAX, Alarm};
pub use allowance::{
    AnswerRoom, CHANGE_ANSWER_BYTES_MAX, Drawn, FREE_ANSWER_BYTES, RANGE_ANSWER_BYTES_MAX,
    Unanswered,
};
pub use apply::{Apply, Entry, Outcome};
pub use backend::{
    Backend, BackendError, Batch, MemoryBackend, RedbBackend, Table, View, Visit,
    hush_panics_of_damage,
};
pub use command::{Command, CommandError, CommandKind, LeaseCheckpoint, TXN_DEPTH_MAX};
pub use error::{KvError, StoreError};
pub use lease::LEASE_TTL_SECONDS_MAX;
pub use lessor::{LEASE_CHECKPOINTS_MAX, Renewal};
pub use member::{Member, MemberChange, Members};
pub use meta::{Applied, owner};
pub use request::{
    AlarmAction, AlarmRequest, AlarmType, CompactionRequest, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};
pub use response::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, HashKvResponse, HashResponse, KeyValue,
    LeaseCheckpointResponse, LeaseGrantResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, PutResponse, RangeResponse, Response, ResponseOp, TxnResponse,
};
pub use setting::Setting;
pub use snapshot::{
    Founding, Snapshot, SnapshotContents, SnapshotReader, contents, refound, restore, verify,
};
pub use store::{Initial, OVERLAY_BYTES_MAX, Store};
pub use validate::{Limits, PAIR_BYTES_MAX};
pub use watch::{
    Event, EventKind, StreamId, WatchCreateRequest, WatchLimits, WatchResponse, Watches,
};
pub use wire::Malformed;
