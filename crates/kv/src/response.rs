//! What the machine answers, in etcd's terms but our own types.
//!
//! `revision` is what goes into the answer's header. Inside a transaction's answer it is what goes
//! into the inner header, which carries nothing else.

use bytes::Bytes;

use crate::alarm::Alarm;
use crate::member::Member;
use crate::setting::Setting;

/// A stored pair. etcd's `mvccpb.KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Revision that created it this time.
    pub create_revision: i64,
    /// Revision that changed it last.
    pub mod_revision: i64,
    /// 1 when created, one more with each put.
    pub version: i64,
    /// The value; empty in a keys-only answer.
    pub value: Bytes,
    /// The lease it belongs to; 0: none.
    pub lease: i64,
}

impl KeyValue {
    /// About what it takes in memory as a part of an answer.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<KeyValue>() + self.key.len() + self.value.len()
    }
}

/// Answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// Current revision as of the read.
    pub revision: i64,
    /// The pairs.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left any out.
    pub more: bool,
    /// Keys in the interval, before filters and limit.
    pub count: i64,
}

/// Answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The revision it made.
    pub revision: i64,
    /// The pair as it was, if asked for and there was one.
    pub prev_kv: Option<KeyValue>,
}

/// Answer to a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// The revision it made, or the current one if there was nothing to delete.
    pub revision: i64,
    /// How many keys are gone.
    pub deleted: i64,
    /// The pairs as they were, in key order, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// Answer to a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The revision it made, or the current one if it changed nothing. 0 in a nested answer,
    /// whose header is present but empty.
    pub revision: i64,
    /// Which list was done.
    pub succeeded: bool,
    /// One answer for each operation of that list.
    pub responses: Vec<ResponseOp>,
}

/// Answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOp {
    /// To a range.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a nested transaction.
    Txn(TxnResponse),
}

/// Answer to a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionResponse {
    /// The current revision.
    pub revision: i64,
}

/// Answer to a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseGrantResponse {
    /// The current revision: a grant makes none.
    pub revision: i64,
    /// The lease.
    pub id: i64,
    /// How long it was granted for.
    pub ttl_seconds: i64,
}

/// Answer to a revocation, or to the expiry of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRevokeResponse {
    /// The revision it made, or the current one if the lease had no keys.
    pub revision: i64,
}

/// Answer to a checkpoint of leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCheckpointResponse {
    /// The current revision.
    pub revision: i64,
}

/// How long a lease has to live, and its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTimeToLiveResponse {
    /// The current revision.
    pub revision: i64,
    /// The lease.
    pub id: i64,
    /// Whole seconds that are left; -1 if there is no such lease.
    pub ttl_seconds: i64,
    /// What it was granted for; 0 if there is no such lease.
    pub granted_seconds: i64,
    /// Its keys, in their order, if they were asked for.
    pub keys: Vec<Bytes>,
}

/// All leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseLeasesResponse {
    /// The current revision.
    pub revision: i64,
    /// Their ids.
    pub ids: Vec<i64>,
}

/// Answer to a request about alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlarmResponse {
    /// The current revision.
    pub revision: i64,
    /// What was asked for, raised, or ended.
    pub alarms: Vec<Alarm>,
}

/// Answer to `hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashResponse {
    /// The current revision.
    pub revision: i64,
    /// CRC-32C over the whole state.
    pub hash: u32,
}

/// Answer to `hash_kv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKvResponse {
    /// The current revision.
    pub revision: i64,
    /// CRC-32C over the retained history up to `hash_revision`.
    pub hash: u32,
    /// The compacted revision; -1 when nothing was ever compacted.
    pub compact_revision: i64,
    /// Up to where history was hashed.
    pub hash_revision: i64,
}

/// What applying one entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Response {
    /// The entry asked for nothing, or nobody wanted its answer: an empty one, one that was applied
    /// before and is only replayed, or one whose answer nobody waits for.
    Nothing,
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction. Data goes from storage by [`crate::Store::compact_step`].
    Compact(CompactionResponse),
    /// To a grant.
    LeaseGrant(LeaseGrantResponse),
    /// To a revocation, or to an expiry.
    LeaseRevoke(LeaseRevokeResponse),
    /// To a checkpoint.
    LeaseCheckpoint(LeaseCheckpointResponse),
    /// To a request about alarms.
    Alarm(AlarmResponse),
    /// The members after a change of membership or of a member's own data, by id.
    Members(Vec<Member>),
    /// To new settings of autopilot.
    SetAutopilot {
        /// Whether they are in force: the ones before were those that were expected.
        succeeded: bool,
        /// What is in force after it.
        setting: Option<Setting>,
    },
}
