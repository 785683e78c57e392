//! The engines' values as the durable log keeps them: opaque to it, and exactly the same after a
//! restart.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_raft::{ConfState, Entry, EntryType, HardState, SnapshotMetadata};
use quorate_types::{Index, LogEntry, Mark, Term};
use quorate_zab::{Epoch, Zxid};

use crate::{
    DecodeError, decode_conf_state, decode_hard_state, encode_conf_state, encode_hard_state,
};

// A record: format version (1), then the raftpb value.
const VERSION: u8 = 1;

// What ZAB must not forget, big-endian: format version (1), which no record of Raft begins with;
// accepted epoch (4), current epoch (4), last id known to be committed (8), whether somebody was
// promised (1), and, as text to the end, who.
const ZAB_VERSION: u8 = 0x81;
const ZAB_BYTES_MIN: usize = 18;

// The kind byte of a log entry: entry type (bits 0 and 1), whether the type was written at all
// (bit 2), whether there is data (bit 3). The other bits are zero.
const KIND_TYPE: u8 = 0b0011;
const KIND_HAS_TYPE: u8 = 0b0100;
const KIND_HAS_DATA: u8 = 0b1000;

/// The entry as the log keeps it. Its data is shared, not copied.
pub fn to_log_entry(entry: &Entry) -> LogEntry {
    let mut kind = 0;
    if let Some(entry_type) = entry.kind {
        kind |= KIND_HAS_TYPE | entry_type as u8;
    }
    if entry.data.is_some() {
        kind |= KIND_HAS_DATA;
    }
    LogEntry {
        index: entry.index,
        stamp: entry.term.0,
        kind,
        data: entry.data.clone().unwrap_or_default(),
    }
}

/// The entry that [`to_log_entry`] was given.
///
/// # Errors
///
/// [`DecodeError::EntryKind`] if the log holds something that was not written by it.
pub fn from_log_entry(entry: LogEntry) -> Result<Entry, DecodeError> {
    let LogEntry { index, stamp, kind, data } = entry;
    let unknown = DecodeError::EntryKind { index: index.0, kind, bytes: data.len() };
    if kind & !(KIND_TYPE | KIND_HAS_TYPE | KIND_HAS_DATA) != 0 {
        return Err(unknown);
    }
    let entry_type = match (kind & KIND_HAS_TYPE != 0, kind & KIND_TYPE) {
        (false, 0) => None,
        (true, 0) => Some(EntryType::Normal),
        (true, 1) => Some(EntryType::ConfChange),
        (true, 2) => Some(EntryType::ConfChangeV2),
        _ => return Err(unknown),
    };
    let data = match (kind & KIND_HAS_DATA != 0, data.is_empty()) {
        (true, _) => Some(data),
        (false, true) => None,
        (false, false) => return Err(unknown),
    };
    Ok(Entry { term: Term(stamp), index, kind: entry_type, data })
}

/// The hard state as a record for the log.
pub fn encode_hard_state_record(hard_state: &HardState) -> Bytes {
    with_version(encode_hard_state(hard_state))
}

/// The hard state of a record of the log.
///
/// # Errors
///
/// [`DecodeError`] if the record is of another format version, or malformed.
pub fn decode_hard_state_record(record: Bytes) -> Result<HardState, DecodeError> {
    decode_hard_state(without_version("hard state", record)?)
}

/// What ZAB must not forget as a record for the log. It can be told from one of Raft.
pub fn encode_zab_hard_state_record(hard_state: &quorate_zab::HardState) -> Bytes {
    let quorate_zab::HardState { accepted_epoch, accepted_leader, current_epoch, committed } =
        hard_state;
    let leader = accepted_leader.as_ref().map_or("", |leader| leader.as_str());
    let mut record = BytesMut::with_capacity(ZAB_BYTES_MIN + leader.len());
    record.put_u8(ZAB_VERSION);
    record.put_u32(accepted_epoch.0);
    record.put_u32(current_epoch.0);
    record.put_u64(committed.0);
    record.put_u8(accepted_leader.is_some().into());
    record.put_slice(leader.as_bytes());
    record.freeze()
}

/// Whether a record of hard state is one of ZAB, of any version.
pub fn is_zab_hard_state_record(record: &[u8]) -> bool {
    record.first().is_some_and(|version| version & 0x80 != 0)
}

/// What ZAB must not forget, from a record of the log.
///
/// # Errors
///
/// [`DecodeError`] if the record is of another format version, or malformed.
pub fn decode_zab_hard_state_record(
    mut record: Bytes,
) -> Result<quorate_zab::HardState, DecodeError> {
    const RECORD: &str = "ZAB hard state";
    let found = record.first().copied().unwrap_or_default();
    if found != ZAB_VERSION {
        return Err(DecodeError::Version { record: RECORD, found, known: ZAB_VERSION });
    }
    if record.len() < ZAB_BYTES_MIN {
        let wanted = ZAB_BYTES_MIN as u64;
        return Err(DecodeError::Truncated { at: 0, wanted, left: record.len() });
    }
    record.advance(1);
    let (accepted_epoch, current_epoch) = (Epoch(record.get_u32()), Epoch(record.get_u32()));
    let committed = Zxid(record.get_u64());
    let promised = record.get_u8();
    let accepted_leader = match (promised, std::str::from_utf8(&record)) {
        (0, Ok("")) => None,
        (1, Ok(leader)) if !leader.is_empty() => Some(leader.into()),
        _ => return Err(DecodeError::Malformed { record: RECORD }),
    };
    Ok(quorate_zab::HardState { accepted_epoch, accepted_leader, current_epoch, committed })
}

/// The membership as a record for the log.
pub fn encode_conf_state_record(conf_state: &ConfState) -> Bytes {
    with_version(encode_conf_state(conf_state))
}

/// The membership of a record of the log.
///
/// # Errors
///
/// [`DecodeError`] if the record is of another format version, or malformed.
pub fn decode_conf_state_record(record: Bytes) -> Result<ConfState, DecodeError> {
    decode_conf_state(without_version("membership", record)?)
}

/// What a snapshot stands for, as the log keeps it.
pub fn to_mark(metadata: &SnapshotMetadata) -> Mark {
    Mark {
        index: metadata.index,
        stamp: metadata.term.0,
        data: encode_conf_state_record(&metadata.conf_state),
    }
}

/// What the log keeps of a snapshot. A mark without data is that of a log that never had one.
///
/// # Errors
///
/// [`DecodeError`] if the membership is of another format version, or malformed.
pub fn from_mark(mark: Mark) -> Result<SnapshotMetadata, DecodeError> {
    let (index, term) = (mark.index, Term(mark.stamp));
    if mark.data.is_empty() && index == Index(0) {
        return Ok(SnapshotMetadata { term, ..SnapshotMetadata::default() });
    }
    Ok(SnapshotMetadata { conf_state: decode_conf_state_record(mark.data)?, index, term })
}

fn with_version(value: Bytes) -> Bytes {
    let mut record = Vec::with_capacity(1 + value.len());
    record.push(VERSION);
    record.extend_from_slice(&value);
    Bytes::from(record)
}

fn without_version(record: &'static str, bytes: Bytes) -> Result<Bytes, DecodeError> {
    match bytes.first() {
        Some(&VERSION) => Ok(bytes.slice(1..)),
        found => Err(DecodeError::Version {
            record,
            found: found.copied().unwrap_or_default(),
            known: VERSION,
        }),
    }
}
