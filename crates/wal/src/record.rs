//! The log's bytes: segment headers, records, and what is in a record. Every byte of a segment is
//! under a checksum or is a zero that recovery checks to be one.
//!
//! A segment is a file of fixed length, all zeros where nothing was written yet. Everything in it
//! starts on a sector (512 bytes): a header can then not be torn in itself, and what was synced
//! shares no sector with what is written later. Numbers are little-endian, lengths in bytes.
//!
//! ```text
//! file    | segment header | base record | record ... record | seal record | zeros ...
//!         0                512
//! ```
//!
//! The segment header, one sector, zeros after byte 84. Its first 16 bytes keep their meaning in
//! every future format, so that an old program can tell a new format from damage:
//!
//! ```text
//!  0 magic (8)  8 format (4)  12 crc32c of the other 508 bytes (4)
//! 16 cluster (8)  24 node (8)  32 group (8)  40 sequence number of the segment (8)
//! 48 last index before this segment, plus one (8)  56 length of the file (8)
//! 64 where the records of the segment before this one end (8)  72 crc of the last of them (4)
//! 76 life of the log (8)
//! ```
//!
//! A record, padded with zeros to whole sectors:
//!
//! ```text
//!  0 crc32c of bytes 4 to 48 (4), which starts from the segment header's crc
//!  4 crc of the record before this one, or of the segment header (4)
//!  8 crc32c of all from byte 48, the padding included (4)  12 length of the body (4)
//! 16 kind (1)  17 zeros (3)  20 how many sectors after the first are all zeros (4)
//! 24 sequence number of the segment (8)  32 offset of this record in it (8)
//! 40 all below this offset was synced before this record was written (8)
//! 48 body
//! ```
//!
//! So a record is bound to cluster, node, group, life, segment and offset, and to all records before it.
//!
//! Bodies, where `mark` is `index (8) stamp (8) length (4) bytes` and `state` is
//! `length plus one, or 0 for none (4) bytes`:
//!
//! ```text
//! 1 base     mark, last index (8), last stamp (8), state: the log as the segments before left it
//! 2 write    parts (1): 1 state, 2 mark of an install, 4 which keeps the tail, 8 entries, 16 a cut
//!            [state] [mark] [first index that goes (8) stamp of the entry before it (8)]
//!            [first index (8) count (4) then each: stamp (8) length (4) kind (1) bytes]
//! 3 compact  mark
//! 4 seal     sequence number of the segment that follows (8)
//! ```

use std::ops::Range;

use bytes::{Buf, Bytes};
use quorate_types::{GroupId, Index, Life, LogEntry, Mark, NodeId};

use crate::{Damage, Identity, Write};

/// What a disk writes whole or not at all; also how records are aligned.
pub(crate) const SECTOR: usize = 512;
const MAGIC: [u8; 8] = *b"quorwal\n";
/// The only format that is read. 1 had no life in its headers.
pub(crate) const FORMAT: u32 = 2;
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 13;

/// The most one [`Write`] may take on disk: 1 GiB. A reader is bounded by the file's length alone,
/// so it never refuses what was written.
pub const WRITE_BYTES_MAX: u64 = 1 << 30;
const _: () = assert!(WRITE_BYTES_MAX <= u32::MAX as u64, "body lengths are written in four bytes");

const BASE: u8 = 1;
const WRITE: u8 = 2;
const COMPACT: u8 = 3;
const SEAL: u8 = 4;

const HAS_STATE: u8 = 1;
const HAS_INSTALL: u8 = 2;
const KEEPS_TAIL: u8 = 4;
const HAS_ENTRIES: u8 = 8;
const HAS_CUT: u8 = 16;

/// What a segment says of itself, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) sequence: u64,
    /// The index the log had reached when the segment was made, plus one.
    pub(crate) first: Index,
    pub(crate) bytes: u64,
    pub(crate) before_end: u64,
    pub(crate) before_crc: u32,
}

/// Why bytes are no segment header of ours.
pub(crate) enum HeaderFault {
    Damaged(Damage),
    Format(u32),
}

impl SegmentHeader {
    /// The header's sector, and its checksum.
    pub(crate) fn encode(&self) -> ([u8; SECTOR], u32) {
        let mut out = [0; SECTOR];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        for (at, number) in [
            (16, self.identity.cluster),
            (24, self.identity.node.0),
            (32, self.identity.group.0),
            (40, self.sequence),
            (48, self.first.0),
            (56, self.bytes),
            (64, self.before_end),
            (76, self.identity.life.0),
        ] {
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        out[72..76].copy_from_slice(&self.before_crc.to_le_bytes());
        let crc = segment_crc(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads a header's sector; also gives its checksum.
    pub(crate) fn decode(sector: &[u8]) -> Result<(Self, u32), HeaderFault> {
        if sector.len() != SECTOR || sector[..8] != MAGIC {
            return Err(HeaderFault::Damaged(Damage::NotSegment));
        }
        let crc = u32_at(sector, 12);
        if crc != segment_crc(sector) {
            return Err(HeaderFault::Damaged(Damage::SegmentHeader));
        }
        let format = u32_at(sector, 8);
        if format != FORMAT {
            return Err(HeaderFault::Format(format));
        }
        let header = SegmentHeader {
            identity: Identity {
                cluster: u64_at(sector, 16),
                node: NodeId(u64_at(sector, 24)),
                group: GroupId(u64_at(sector, 32)),
                life: Life(u64_at(sector, 76)),
            },
            sequence: u64_at(sector, 40),
            first: Index(u64_at(sector, 48)),
            bytes: u64_at(sector, 56),
            before_end: u64_at(sector, 64),
            before_crc: u32_at(sector, 72),
        };
        Ok((header, crc))
    }
}

fn segment_crc(sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..12]), &sector[16..])
}

/// The place where the next record goes, and what it is bound to.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    /// The segment header's checksum.
    pub(crate) seed: u32,
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    /// The checksum of the record before.
    pub(crate) chain: u32,
    /// All below this offset is durable.
    pub(crate) synced: u64,
}

impl Pen {
    /// A pen at the start of a fresh segment.
    pub(crate) fn new(sequence: u64, header_crc: u32) -> Self {
        let offset = SECTOR as u64;
        Pen { seed: header_crc, sequence, offset, chain: header_crc, synced: 0 }
    }

    /// Appends the base of a segment to `out`.
    pub(crate) fn base(&mut self, out: &mut Vec<u8>, base: &Base) {
        self.record(out, BASE, |out| {
            put_mark(out, &base.mark);
            out.extend_from_slice(&base.last.0.to_le_bytes());
            out.extend_from_slice(&base.last_stamp.to_le_bytes());
            put_state(out, base.hard_state.as_ref());
        });
    }

    /// Appends one write to `out`. `keeps_tail`: whether its install finds the log's entries
    /// behind the mark to be the leader's. `before_cut`: the stamp of the last entry that a cut
    /// leaves.
    pub(crate) fn write(
        &mut self,
        out: &mut Vec<u8>,
        write: &Write,
        keeps_tail: bool,
        before_cut: u64,
    ) {
        let mut parts = 0;
        for (present, part) in [
            (write.hard_state.is_some(), HAS_STATE),
            (write.install.is_some(), HAS_INSTALL),
            (keeps_tail, KEEPS_TAIL),
            (!write.entries.is_empty(), HAS_ENTRIES),
            (write.cut_from.is_some(), HAS_CUT),
        ] {
            if present {
                parts |= part;
            }
        }
        self.record(out, WRITE, |out| {
            out.push(parts);
            if write.hard_state.is_some() {
                put_state(out, write.hard_state.as_ref());
            }
            if let Some(mark) = &write.install {
                put_mark(out, mark);
            }
            if let Some(from) = write.cut_from {
                out.extend_from_slice(&from.0.to_le_bytes());
                out.extend_from_slice(&before_cut.to_le_bytes());
            }
            let Some(first) = write.entries.first() else { return };
            out.extend_from_slice(&first.index.0.to_le_bytes());
            out.extend_from_slice(&(write.entries.len() as u32).to_le_bytes());
            for entry in &write.entries {
                let mut head = [0; ENTRY_BYTES];
                head[..8].copy_from_slice(&entry.stamp.to_le_bytes());
                head[8..12].copy_from_slice(&(entry.data.len() as u32).to_le_bytes());
                head[12] = entry.kind;
                out.extend_from_slice(&head);
                out.extend_from_slice(&entry.data);
            }
        });
    }

    /// Appends a compaction to `out`.
    pub(crate) fn compact(&mut self, out: &mut Vec<u8>, mark: &Mark) {
        self.record(out, COMPACT, |out| put_mark(out, mark));
    }

    /// Appends the end of a segment to `out`.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>, next: u64) {
        self.record(out, SEAL, |out| out.extend_from_slice(&next.to_le_bytes()));
    }

    /// Appends any body at all.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn raw(&mut self, out: &mut Vec<u8>, kind: u8, body: &[u8]) {
        self.record(out, kind, |out| out.extend_from_slice(body));
    }

    fn record(&mut self, out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.resize(start + HEADER_BYTES, 0);
        body(out);
        let body_bytes = out.len() - start - HEADER_BYTES;
        assert!(
            body_bytes as u64 <= u32::MAX as u64,
            "writes are measured before they are encoded"
        );
        out.resize(start + padded(HEADER_BYTES + body_bytes), 0);

        let record = &mut out[start..];
        let body_crc = crc32c::crc32c(&record[HEADER_BYTES..]);
        record[4..8].copy_from_slice(&self.chain.to_le_bytes());
        record[8..12].copy_from_slice(&body_crc.to_le_bytes());
        record[12..16].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        record[16] = kind;
        let zeros = zero_sectors(&record[SECTOR..]);
        record[20..24].copy_from_slice(&zeros.to_le_bytes());
        record[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        record[32..40].copy_from_slice(&self.offset.to_le_bytes());
        record[40..48].copy_from_slice(&self.synced.to_le_bytes());
        let crc = crc32c::crc32c_append(self.seed, &record[4..HEADER_BYTES]);
        record[..4].copy_from_slice(&crc.to_le_bytes());

        self.chain = crc;
        self.offset += record.len() as u64;
    }
}

/// What a write will take on disk, in bytes.
pub(crate) fn write_bytes(write: &Write) -> u64 {
    let mut body = 1;
    if write.hard_state.is_some() {
        body += state_bytes(write.hard_state.as_ref());
    }
    if let Some(mark) = &write.install {
        body += mark_bytes(mark);
    }
    if write.cut_from.is_some() {
        body += 16;
    }
    if !write.entries.is_empty() {
        body += 12;
        body += write.entries.iter().map(|entry| ENTRY_BYTES + entry.data.len()).sum::<usize>();
    }
    padded(HEADER_BYTES + body) as u64
}

/// What a base will take on disk, in bytes.
pub(crate) fn base_bytes(mark: &Mark, hard_state: Option<&Bytes>) -> u64 {
    padded(HEADER_BYTES + mark_bytes(mark) + 16 + state_bytes(hard_state)) as u64
}

/// What a compaction will take on disk, in bytes.
pub(crate) fn compact_bytes(mark: &Mark) -> u64 {
    padded(HEADER_BYTES + mark_bytes(mark)) as u64
}

fn mark_bytes(mark: &Mark) -> usize {
    20 + mark.data.len()
}

fn state_bytes(state: Option<&Bytes>) -> usize {
    4 + state.map_or(0, Bytes::len)
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(SECTOR)
}

fn put_mark(out: &mut Vec<u8>, mark: &Mark) {
    out.extend_from_slice(&mark.index.0.to_le_bytes());
    out.extend_from_slice(&mark.stamp.to_le_bytes());
    out.extend_from_slice(&(mark.data.len() as u32).to_le_bytes());
    out.extend_from_slice(&mark.data);
}

fn put_state(out: &mut Vec<u8>, state: Option<&Bytes>) {
    let length = state.map_or(0, |state| state.len() as u32 + 1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(state.map_or(&[][..], |state| state));
}

/// How many of these sectors are all zeros.
pub(crate) fn zero_sectors(bytes: &[u8]) -> u32 {
    bytes.chunks(SECTOR).filter(|sector| is_zero(sector)).count() as u32
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Most that are not zero show it at once; the fold over the rest has no exits to slow it.
    bytes.first().is_none_or(|first| *first == 0)
        && bytes.chunks(4096).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

/// A record's header, its checksum already found right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) crc: u32,
    pub(crate) chain: u32,
    pub(crate) body_crc: u32,
    pub(crate) body_bytes: u32,
    pub(crate) kind: u8,
    pub(crate) zero_sectors: u32,
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) synced: u64,
}

impl RecordHeader {
    /// Reads the header at the start of `sector`, if its checksum holds in a segment whose header
    /// has the checksum `seed`.
    pub(crate) fn decode(sector: &[u8], seed: u32) -> Option<Self> {
        let crc = u32_at(sector, 0);
        if crc != crc32c::crc32c_append(seed, &sector[4..HEADER_BYTES]) {
            return None;
        }
        Some(RecordHeader {
            crc,
            chain: u32_at(sector, 4),
            body_crc: u32_at(sector, 8),
            body_bytes: u32_at(sector, 12),
            kind: sector[16],
            zero_sectors: u32_at(sector, 20),
            sequence: u64_at(sector, 24),
            offset: u64_at(sector, 32),
            synced: u64_at(sector, 40),
        })
    }

    /// What the whole record takes in its file.
    pub(crate) fn record_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(SECTOR as u64)
    }

    /// Whether the record's bytes are what was written.
    pub(crate) fn holds(&self, record: &[u8]) -> bool {
        self.body_crc == crc32c::crc32c(&record[HEADER_BYTES..])
    }

    /// Where the body is in the record.
    pub(crate) fn body(&self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.body_bytes as usize
    }
}

/// What the log was when a segment was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Where it started.
    pub mark: Mark,
    /// The last index it held; the mark's when it was empty.
    pub last: Index,
    /// The stamp there.
    pub last_stamp: u64,
    /// The hard state written last.
    pub hard_state: Option<Bytes>,
}

/// A record as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The first of every segment.
    Base(Base),
    /// One [`Write`].
    Write {
        /// The hard state, if it changed.
        hard_state: Option<Bytes>,
        /// A snapshot that was taken in, and whether the entries behind it stayed.
        install: Option<(Mark, bool)>,
        /// The first of the entries that were taken away, and the stamp of the one before.
        cut: Option<(Index, u64)>,
        /// The entries.
        entries: Vec<LogEntry>,
    },
    /// The log was compacted up to here.
    Compact(Mark),
    /// The segment is finished, and this is the sequence number of the next.
    Seal(u64),
}

impl Record {
    /// Takes a body apart. Its checksum held, so a fault is one of the writer, and no less damage.
    pub(crate) fn decode(kind: u8, body: Bytes) -> Result<Record, Damage> {
        let mut body = Body(body);
        let record = match kind {
            BASE => Record::Base(Base {
                mark: body.mark()?,
                last: Index(body.u64()?),
                last_stamp: body.u64()?,
                hard_state: body.state()?,
            }),
            WRITE => {
                let parts = body.u8()?;
                let has = |part| parts & part != 0;
                let hard_state = if has(HAS_STATE) { body.state()? } else { None };
                let install =
                    if has(HAS_INSTALL) { Some((body.mark()?, has(KEEPS_TAIL))) } else { None };
                let cut = if has(HAS_CUT) { Some((Index(body.u64()?), body.u64()?)) } else { None };
                let entries = if has(HAS_ENTRIES) { body.entries()? } else { Vec::new() };
                Record::Write { hard_state, install, cut, entries }
            }
            COMPACT => Record::Compact(body.mark()?),
            SEAL => Record::Seal(body.u64()?),
            _ => return Err(Damage::Nonsense { what: "its kind is unknown" }),
        };
        if body.0.has_remaining() {
            return Err(Damage::Nonsense { what: "there are bytes left over" });
        }
        Ok(record)
    }
}

const TOO_LONG: Damage = Damage::Nonsense { what: "its parts are longer than the whole" };

/// A body that is being taken apart from its front.
struct Body(Bytes);

impl Body {
    fn need(&self, bytes: usize) -> Result<(), Damage> {
        if self.0.len() < bytes {
            return Err(TOO_LONG);
        }
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, Damage> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }

    fn bytes(&mut self, length: u32) -> Result<Bytes, Damage> {
        self.need(length as usize)?;
        Ok(self.0.split_to(length as usize))
    }

    fn mark(&mut self) -> Result<Mark, Damage> {
        let (index, stamp, length) = (Index(self.u64()?), self.u64()?, self.u32()?);
        // A copy: the mark outlives by far the record it came in.
        Ok(Mark { index, stamp, data: Bytes::copy_from_slice(&self.bytes(length)?) })
    }

    fn state(&mut self) -> Result<Option<Bytes>, Damage> {
        match self.u32()? {
            0 => Ok(None),
            length => Ok(Some(Bytes::copy_from_slice(&self.bytes(length - 1)?))),
        }
    }

    fn entries(&mut self) -> Result<Vec<LogEntry>, Damage> {
        let (first, count) = (self.u64()?, self.u32()?);
        // Before it is used as a size.
        if self.0.len() / ENTRY_BYTES < count as usize {
            return Err(Damage::Nonsense { what: "it has no room for its entries" });
        }
        let mut entries = Vec::with_capacity(count as usize);
        let mut at = 0;
        for number in 0..u64::from(count) {
            let Some(index) = first.checked_add(number) else {
                return Err(Damage::Nonsense { what: "its indexes run over" });
            };
            let Some(head) = self.0.get(at..at + ENTRY_BYTES) else { return Err(TOO_LONG) };
            let (stamp, length, kind) = (u64_at(head, 0), u32_at(head, 8) as usize, head[12]);
            at += ENTRY_BYTES;
            if self.0.len() - at < length {
                return Err(TOO_LONG);
            }
            let data = self.0.slice(at..at + length);
            at += length;
            entries.push(LogEntry { index: Index(index), stamp, kind, data });
        }
        self.0.advance(at);
        Ok(entries)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
