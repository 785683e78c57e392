//! What goes through the log: commands as bytes and back.
//!
//! ```text
//! version (1 byte, now 1) · kind (1 byte) · fields in the order of the type
//! ```
//! Fields are as `wire.rs` has them. Equal commands have equal bytes. A kind or version that this
//! code does not know is an error of its own, because the member has to stop: to skip an entry that
//! others apply would be to diverge from them.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Index, Life, Term};

use crate::request::{
    AlarmAction, AlarmRequest, AlarmType, CompactionRequest, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};
use crate::wire::{
    Malformed, Reader, bytes_len, put_bytes, put_signed, put_str, put_strings, put_tags,
    put_varint, read_tags, signed_len, strings_len, tags_len, varint_len,
};

/// How deeply transactions may stand in each other, the outermost counted.
pub const TXN_DEPTH_MAX: usize = 128;

const VERSION: u8 = 1;

// Kinds of commands. Numbers are never used again for another meaning.
const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const PUBLISH_MEMBER: u8 = 5;
const LEASE_GRANT: u8 = 6;
const LEASE_REVOKE: u8 = 7;
const LEASE_EXPIRE: u8 = 8;
const LEASE_CHECKPOINT: u8 = 9;
const ALARM: u8 = 10;
/// [`PUBLISH_MEMBER`], followed by version and tags.
const PUBLISH_MEMBER_TAGGED: u8 = 11;
const SET_AUTOPILOT: u8 = 12;

// Kinds of operations in a transaction.
const OP_EMPTY: u8 = 0;
const OP_RANGE: u8 = 1;
const OP_PUT: u8 = 2;
const OP_DELETE_RANGE: u8 = 3;
const OP_TXN: u8 = 4;

/// A change that every member applies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Store a pair.
    Put(PutRequest),
    /// Delete an interval.
    DeleteRange(DeleteRangeRequest),
    /// A transaction.
    Txn(TxnRequest),
    /// Forget history.
    Compact(CompactionRequest),
    /// A member tells its name and where clients reach it.
    PublishMember {
        /// Who.
        id: u64,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
        /// The life of its log.
        life: Life,
        /// Of its program, or whatever else its operator calls it.
        version: String,
        /// What else its operator says of it.
        tags: BTreeMap<String, String>,
    },
    /// A lease begins. etcd's `LeaseGrantRequest`; a client that leaves the choice of the id to the
    /// server gets one at the door.
    LeaseGrant {
        /// Its id; not 0, and maybe negative.
        id: i64,
        /// How long it lives without being renewed.
        ttl_seconds: i64,
    },
    /// A lease goes, and its keys with it. etcd's `LeaseRevokeRequest`.
    LeaseRevoke {
        /// Its id.
        id: i64,
    },
    /// The leader says that a lease's time was up. It goes like a revoked one, unless another member
    /// leads by now, or it is another lease of the same id.
    LeaseExpire {
        /// Its id.
        id: i64,
        /// The entry that granted it.
        granted: Index,
        /// The term in which it was judged.
        term: Term,
    },
    /// The leader says what is left of some leases, so that the next leader knows.
    LeaseCheckpoint {
        /// The term in which it was judged.
        term: Term,
        /// Its place among the checkpoints of that term. Of one lease, only a later one counts.
        order: u64,
        /// The leases.
        checkpoints: Vec<LeaseCheckpoint>,
    },
    /// Asks for alarms, raises or ends one.
    Alarm(AlarmRequest),
    /// Replaces what operators have told autopilot.
    SetAutopilot {
        /// The settings, in bytes that mean nothing here.
        settings: Bytes,
        /// Only if these are in force since the entry of this index; 0 for none yet.
        expected: Option<Index>,
    },
}

/// What an encoded command asks for, where that is worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandKind {
    /// See [`Command::Put`].
    Put,
    /// See [`Command::DeleteRange`].
    DeleteRange,
    /// See [`Command::Txn`].
    Txn,
    /// See [`Command::LeaseGrant`].
    LeaseGrant,
    /// See [`Command::LeaseRevoke`].
    LeaseRevoke,
    /// See [`Command::LeaseExpire`].
    LeaseExpire,
}

impl CommandKind {
    /// The kind of the command in these bytes; nothing for all others. It looks at two of them.
    pub fn of_encoded(bytes: &[u8]) -> Option<CommandKind> {
        match bytes {
            [VERSION, PUT, ..] => Some(CommandKind::Put),
            [VERSION, DELETE_RANGE, ..] => Some(CommandKind::DeleteRange),
            [VERSION, TXN, ..] => Some(CommandKind::Txn),
            [VERSION, LEASE_GRANT, ..] => Some(CommandKind::LeaseGrant),
            [VERSION, LEASE_REVOKE, ..] => Some(CommandKind::LeaseRevoke),
            [VERSION, LEASE_EXPIRE, ..] => Some(CommandKind::LeaseExpire),
            _ => None,
        }
    }
}

/// What is left of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseCheckpoint {
    /// Its id.
    pub id: i64,
    /// The entry that granted it.
    pub granted: Index,
    /// Seconds; 0 for the whole of its time, as after a renewal.
    pub remaining_seconds: i64,
}

/// Why bytes are no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Written by a newer version.
    #[error("command format {0} is not known to this version; upgrade it")]
    UnknownVersion(u8),
    /// Written by a newer version.
    #[error("command kind {0} is not known to this version; upgrade it")]
    UnknownKind(u8),
    /// Not what any version writes.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Command {
    /// Writes the command.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len());
        out.put_u8(VERSION);
        match self {
            Command::Put(put) => {
                out.put_u8(PUT);
                encode_put(put, out);
            }
            Command::DeleteRange(delete) => {
                out.put_u8(DELETE_RANGE);
                encode_delete_range(delete, out);
            }
            Command::Txn(txn) => {
                out.put_u8(TXN);
                encode_txn(txn, out);
            }
            Command::Compact(compact) => {
                out.put_u8(COMPACT);
                put_signed(out, compact.revision);
                put_flags(out, &[compact.physical]);
            }
            Command::PublishMember { id, name, client_urls, life, version, tags } => {
                let is_tagged = !version.is_empty() || !tags.is_empty();
                out.put_u8(if is_tagged { PUBLISH_MEMBER_TAGGED } else { PUBLISH_MEMBER });
                put_varint(out, *id);
                put_str(out, name);
                put_strings(out, client_urls);
                put_varint(out, life.0);
                if is_tagged {
                    put_tags(out, version, tags);
                }
            }
            Command::LeaseGrant { id, ttl_seconds } => {
                out.put_u8(LEASE_GRANT);
                put_signed(out, *id);
                put_signed(out, *ttl_seconds);
            }
            Command::LeaseRevoke { id } => {
                out.put_u8(LEASE_REVOKE);
                put_signed(out, *id);
            }
            Command::LeaseExpire { id, granted, term } => {
                out.put_u8(LEASE_EXPIRE);
                put_signed(out, *id);
                put_varint(out, granted.0);
                put_varint(out, term.0);
            }
            Command::LeaseCheckpoint { term, order, checkpoints } => {
                out.put_u8(LEASE_CHECKPOINT);
                put_varint(out, term.0);
                put_varint(out, *order);
                put_varint(out, checkpoints.len() as u64);
                for one in checkpoints {
                    put_signed(out, one.id);
                    put_varint(out, one.granted.0);
                    put_signed(out, one.remaining_seconds);
                }
            }
            Command::Alarm(AlarmRequest { action, member, alarm }) => {
                out.put_u8(ALARM);
                put_signed(out, i64::from(i32::from(*action)));
                put_varint(out, *member);
                put_signed(out, i64::from(i32::from(*alarm)));
            }
            Command::SetAutopilot { settings, expected } => {
                out.put_u8(SET_AUTOPILOT);
                put_flags(out, &[expected.is_some()]);
                put_varint(out, expected.unwrap_or_default().0);
                put_bytes(out, settings);
            }
        }
    }

    /// How many bytes [`Command::encode`] writes: the size that request limits count.
    pub fn encoded_len(&self) -> usize {
        let fields = match self {
            Command::Put(put) => put_len(put),
            Command::DeleteRange(delete) => delete_range_len(delete),
            Command::Txn(txn) => txn_len(txn),
            Command::Compact(compact) => signed_len(compact.revision) + 1,
            Command::PublishMember { id, name, client_urls, life, version, tags } => {
                let is_tagged = !version.is_empty() || !tags.is_empty();
                varint_len(*id)
                    + bytes_len(name.as_bytes())
                    + strings_len(client_urls)
                    + varint_len(life.0)
                    + if is_tagged { tags_len(version, tags) } else { 0 }
            }
            Command::LeaseGrant { id, ttl_seconds } => signed_len(*id) + signed_len(*ttl_seconds),
            Command::LeaseRevoke { id } => signed_len(*id),
            Command::LeaseExpire { id, granted, term } => {
                signed_len(*id) + varint_len(granted.0) + varint_len(term.0)
            }
            Command::LeaseCheckpoint { term, order, checkpoints } => {
                let each = |one: &LeaseCheckpoint| {
                    signed_len(one.id)
                        + varint_len(one.granted.0)
                        + signed_len(one.remaining_seconds)
                };
                varint_len(term.0)
                    + varint_len(*order)
                    + varint_len(checkpoints.len() as u64)
                    + checkpoints.iter().map(each).sum::<usize>()
            }
            Command::Alarm(AlarmRequest { action, member, alarm }) => {
                signed_len(i64::from(i32::from(*action)))
                    + varint_len(*member)
                    + signed_len(i64::from(i32::from(*alarm)))
            }
            Command::SetAutopilot { settings, expected } => {
                1 + varint_len(expected.unwrap_or_default().0) + bytes_len(settings)
            }
        };
        2 + fields
    }

    /// Reads a command. Keys and values are slices of `bytes`.
    ///
    /// # Errors
    ///
    /// See [`CommandError`]. It never panics, whatever the bytes.
    pub fn decode(bytes: Bytes) -> Result<Command, CommandError> {
        let mut reader = Reader::new(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(CommandError::UnknownVersion(version));
        }
        let kind = reader.byte()?;
        let command = match kind {
            PUT => Command::Put(decode_put(&mut reader)?),
            DELETE_RANGE => Command::DeleteRange(decode_delete_range(&mut reader)?),
            TXN => Command::Txn(decode_txn(&mut reader, 1)?),
            COMPACT => {
                let revision = reader.signed()?;
                let [physical] = flags(&mut reader)?;
                Command::Compact(CompactionRequest { revision, physical })
            }
            PUBLISH_MEMBER | PUBLISH_MEMBER_TAGGED => {
                let (id, name) = (reader.varint()?, reader.string()?);
                let client_urls = reader.strings()?;
                let life = Life(reader.varint()?);
                let (version, tags) = match kind {
                    PUBLISH_MEMBER => Default::default(),
                    _ => read_tags(&mut reader)?,
                };
                Command::PublishMember { id, name, client_urls, life, version, tags }
            }
            SET_AUTOPILOT => {
                let [is_expected] = flags(&mut reader)?;
                let expected = Index(reader.varint()?);
                if !is_expected && expected != Index(0) {
                    return Err(Malformed("an index where none is expected").into());
                }
                let expected = is_expected.then_some(expected);
                Command::SetAutopilot { settings: reader.bytes()?, expected }
            }
            LEASE_GRANT => {
                Command::LeaseGrant { id: reader.signed()?, ttl_seconds: reader.signed()? }
            }
            LEASE_REVOKE => Command::LeaseRevoke { id: reader.signed()? },
            LEASE_EXPIRE => Command::LeaseExpire {
                id: reader.signed()?,
                granted: Index(reader.varint()?),
                term: Term(reader.varint()?),
            },
            LEASE_CHECKPOINT => {
                let term = Term(reader.varint()?);
                let order = reader.varint()?;
                let checkpoints = (0..reader.count()?).map(|_| decode_checkpoint(&mut reader));
                let checkpoints = checkpoints.collect::<Result<_, Malformed>>()?;
                Command::LeaseCheckpoint { term, order, checkpoints }
            }
            ALARM => Command::Alarm(AlarmRequest {
                action: AlarmAction::from(narrow(&mut reader)?),
                member: reader.varint()?,
                alarm: AlarmType::from(narrow(&mut reader)?),
            }),
            unknown => return Err(CommandError::UnknownKind(unknown)),
        };
        reader.end()?;
        Ok(command)
    }
}

fn decode_checkpoint(reader: &mut Reader) -> Result<LeaseCheckpoint, Malformed> {
    let id = reader.signed()?;
    let granted = Index(reader.varint()?);
    Ok(LeaseCheckpoint { id, granted, remaining_seconds: reader.signed()? })
}

fn encode_put(put: &PutRequest, out: &mut BytesMut) {
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
    put_signed(out, put.lease);
    put_flags(out, &[put.prev_kv, put.ignore_value, put.ignore_lease]);
}

fn put_len(put: &PutRequest) -> usize {
    bytes_len(&put.key) + bytes_len(&put.value) + signed_len(put.lease) + 1
}

fn decode_put(reader: &mut Reader) -> Result<PutRequest, Malformed> {
    let key = reader.bytes()?;
    let value = reader.bytes()?;
    let lease = reader.signed()?;
    let [prev_kv, ignore_value, ignore_lease] = flags(reader)?;
    Ok(PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease })
}

fn encode_delete_range(delete: &DeleteRangeRequest, out: &mut BytesMut) {
    put_bytes(out, &delete.key);
    put_bytes(out, &delete.range_end);
    put_flags(out, &[delete.prev_kv]);
}

fn delete_range_len(delete: &DeleteRangeRequest) -> usize {
    bytes_len(&delete.key) + bytes_len(&delete.range_end) + 1
}

fn decode_delete_range(reader: &mut Reader) -> Result<DeleteRangeRequest, Malformed> {
    let key = reader.bytes()?;
    let range_end = reader.bytes()?;
    let [prev_kv] = flags(reader)?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv })
}

fn encode_range(range: &RangeRequest, out: &mut BytesMut) {
    put_bytes(out, &range.key);
    put_bytes(out, &range.range_end);
    for number in range_numbers(range) {
        put_signed(out, number);
    }
    put_flags(out, &[range.serializable, range.keys_only, range.count_only]);
}

fn range_len(range: &RangeRequest) -> usize {
    let numbers: usize = range_numbers(range).into_iter().map(signed_len).sum();
    bytes_len(&range.key) + bytes_len(&range.range_end) + numbers + 1
}

fn range_numbers(range: &RangeRequest) -> [i64; 8] {
    [
        range.limit,
        range.revision,
        i64::from(i32::from(range.sort_order)),
        i64::from(i32::from(range.sort_target)),
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ]
}

fn decode_range(reader: &mut Reader) -> Result<RangeRequest, Malformed> {
    let key = reader.bytes()?;
    let range_end = reader.bytes()?;
    let limit = reader.signed()?;
    let revision = reader.signed()?;
    let sort_order = SortOrder::from(narrow(reader)?);
    let sort_target = SortTarget::from(narrow(reader)?);
    let min_mod_revision = reader.signed()?;
    let max_mod_revision = reader.signed()?;
    let min_create_revision = reader.signed()?;
    let max_create_revision = reader.signed()?;
    let [serializable, keys_only, count_only] = flags(reader)?;
    Ok(RangeRequest {
        key,
        range_end,
        limit,
        revision,
        sort_order,
        sort_target,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

fn encode_txn(txn: &TxnRequest, out: &mut BytesMut) {
    put_varint(out, txn.compare.len() as u64);
    for compare in &txn.compare {
        encode_compare(compare, out);
    }
    for list in [&txn.success, &txn.failure] {
        put_varint(out, list.len() as u64);
        for op in list {
            encode_op(op, out);
        }
    }
}

fn txn_len(txn: &TxnRequest) -> usize {
    let compares: usize = txn.compare.iter().map(compare_len).sum();
    let lists: usize = [&txn.success, &txn.failure]
        .into_iter()
        .map(|list| varint_len(list.len() as u64) + list.iter().map(op_len).sum::<usize>())
        .sum();
    varint_len(txn.compare.len() as u64) + compares + lists
}

fn decode_txn(reader: &mut Reader, depth: usize) -> Result<TxnRequest, Malformed> {
    // Reading recurses: what is written must not decide how deep.
    if TXN_DEPTH_MAX < depth {
        return Err(Malformed("transactions nested too deeply"));
    }
    let compare =
        (0..reader.count()?).map(|_| decode_compare(reader)).collect::<Result<_, Malformed>>()?;
    let mut list = || -> Result<Vec<_>, Malformed> {
        (0..reader.count()?).map(|_| decode_op(reader, depth)).collect()
    };
    Ok(TxnRequest { compare, success: list()?, failure: list()? })
}

fn encode_op(op: &RequestOp, out: &mut BytesMut) {
    match op {
        RequestOp::Empty => out.put_u8(OP_EMPTY),
        RequestOp::Range(range) => {
            out.put_u8(OP_RANGE);
            encode_range(range, out);
        }
        RequestOp::Put(put) => {
            out.put_u8(OP_PUT);
            encode_put(put, out);
        }
        RequestOp::DeleteRange(delete) => {
            out.put_u8(OP_DELETE_RANGE);
            encode_delete_range(delete, out);
        }
        RequestOp::Txn(txn) => {
            out.put_u8(OP_TXN);
            encode_txn(txn, out);
        }
    }
}

fn op_len(op: &RequestOp) -> usize {
    1 + match op {
        RequestOp::Empty => 0,
        RequestOp::Range(range) => range_len(range),
        RequestOp::Put(put) => put_len(put),
        RequestOp::DeleteRange(delete) => delete_range_len(delete),
        RequestOp::Txn(txn) => txn_len(txn),
    }
}

fn decode_op(reader: &mut Reader, depth: usize) -> Result<RequestOp, Malformed> {
    Ok(match reader.byte()? {
        OP_EMPTY => RequestOp::Empty,
        OP_RANGE => RequestOp::Range(decode_range(reader)?),
        OP_PUT => RequestOp::Put(decode_put(reader)?),
        OP_DELETE_RANGE => RequestOp::DeleteRange(decode_delete_range(reader)?),
        OP_TXN => RequestOp::Txn(decode_txn(reader, depth + 1)?),
        _ => return Err(Malformed("kind of operation")),
    })
}

// One compare: result, target, given side, key, range end. The given side's form follows from the
// target: bytes for a value, nothing for an unknown target, a number otherwise.
fn encode_compare(compare: &Compare, out: &mut BytesMut) {
    put_signed(out, i64::from(i32::from(compare.result)));
    put_signed(out, i64::from(target_number(&compare.target)));
    match &compare.target {
        CompareTarget::Value(value) => put_bytes(out, value),
        CompareTarget::Unknown(_) => {}
        CompareTarget::Version(number)
        | CompareTarget::Create(number)
        | CompareTarget::Mod(number)
        | CompareTarget::Lease(number) => put_signed(out, *number),
    }
    put_bytes(out, &compare.key);
    put_bytes(out, &compare.range_end);
}

fn compare_len(compare: &Compare) -> usize {
    let given = match &compare.target {
        CompareTarget::Value(value) => bytes_len(value),
        CompareTarget::Unknown(_) => 0,
        CompareTarget::Version(number)
        | CompareTarget::Create(number)
        | CompareTarget::Mod(number)
        | CompareTarget::Lease(number) => signed_len(*number),
    };
    signed_len(i64::from(i32::from(compare.result)))
        + signed_len(i64::from(target_number(&compare.target)))
        + given
        + bytes_len(&compare.key)
        + bytes_len(&compare.range_end)
}

fn decode_compare(reader: &mut Reader) -> Result<Compare, Malformed> {
    let result = CompareResult::from(narrow(reader)?);
    let target = match narrow(reader)? {
        0 => CompareTarget::Version(reader.signed()?),
        1 => CompareTarget::Create(reader.signed()?),
        2 => CompareTarget::Mod(reader.signed()?),
        3 => CompareTarget::Value(reader.bytes()?),
        4 => CompareTarget::Lease(reader.signed()?),
        unknown => CompareTarget::Unknown(unknown),
    };
    Ok(Compare { result, target, key: reader.bytes()?, range_end: reader.bytes()? })
}

/// etcd's number of a target.
fn target_number(target: &CompareTarget) -> i32 {
    match target {
        CompareTarget::Version(_) => 0,
        CompareTarget::Create(_) => 1,
        CompareTarget::Mod(_) => 2,
        CompareTarget::Value(_) => 3,
        CompareTarget::Lease(_) => 4,
        // Made by hand from a known number, it must not be read back as that target.
        CompareTarget::Unknown(0..=4) => -1,
        CompareTarget::Unknown(unknown) => *unknown,
    }
}

fn narrow(reader: &mut Reader) -> Result<i32, Malformed> {
    i32::try_from(reader.signed()?).map_err(|_| Malformed("an enum of more than 32 bits"))
}

fn put_flags(out: &mut BytesMut, flags: &[bool]) {
    out.put_u8(flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag)));
}

fn flags<const COUNT: usize>(reader: &mut Reader) -> Result<[bool; COUNT], Malformed> {
    let byte = reader.byte()?;
    if byte >> COUNT != 0 {
        return Err(Malformed("a flag nobody knows"));
    }
    Ok(std::array::from_fn(|place| byte >> place & 1 == 1))
}
