//! Reading a log back. What was durable comes back byte for byte or not at all: the only thing
//! that is ever cut off is what an interrupted write left at the very end.
//!
//! # What a torn tail is
//!
//! A write that power cut short leaves each of its sectors as it was before, which is zeros, or as
//! it should be. So a record that does not check is taken for torn only if all of this holds:
//!
//! - it is in the last segment, behind the base record (both were synced before they had names);
//! - whole sectors of it are zeros that were not written as zeros (each record says how many it
//!   has): a flipped bit or a foreign block is damage even in the very last record;
//! - no record behind it says that it was written after this place was synced. A record behind it
//!   that does *not* say so may be there: writes of one sync reach the disk in any order.
//!
//! Everything else is damage and refused. What remains in doubt is one case: a disk that loses
//! whole sectors of the last synced group, before any record was written behind it, looks the same
//! as a write cut short. Telling these apart would take a second write and sync for every group.

use std::path::{Path, PathBuf};

use quorate_types::{Index, bug};

use crate::disk::{DiskFile, read_all, sync_dir, write_all};
use crate::ledger::{Ledger, Segment};
use crate::reader::{BLOCK_BYTES, Blocks, LogFile, Reader};
use crate::record::{
    FORMAT, HeaderFault, Pen, Record, RecordHeader, SECTOR, SegmentHeader, is_zero, zero_sectors,
};
use crate::replay::Replay;
use crate::segment::{self, LOCK, SPARE};
use crate::survey::Seen;
use crate::{Damage, Disk, Identity, Recovered, TornTail, WalError};

const SECTOR_BYTES: u64 = SECTOR as u64;

/// A log as it was found, and what is left to do before it may be written to.
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    pub(crate) ledger: Ledger,
    /// The last segment.
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    /// Behind its last record.
    pub(crate) pen: Pen,
    /// All below this offset of it is known to have been synced.
    floor: u64,
    /// The segment before it, if the seal of that one must be written (again).
    seal: Option<(PathBuf, Pen)>,
}

/// Whether `dir` holds a log.
pub(crate) fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(WalError::io("list", dir, error)),
    };
    if names.iter().any(|name| segment::parse_name(name).is_some()) {
        return Ok(true);
    }
    // A log gets its directory and its first segment in one step, and always keeps one. To take
    // this for a new node would make it forget what it promised.
    if names.iter().any(|name| name == LOCK || name == SPARE) {
        return Err(WalError::damaged(dir, 0, Damage::NoSegments));
    }
    Ok(false)
}

/// How a log is read.
pub(crate) enum Reading<'a> {
    /// By its owner, who holds the lock and goes on to write.
    Own,
    /// By someone who shows what is there.
    Look {
        /// Whether a process may be writing to it meanwhile: what stands behind the last whole
        /// record is then a write under way, and judged by nobody.
        is_live: bool,
        visit: &'a mut dyn FnMut(Seen<'_>),
    },
}

impl Reading<'_> {
    fn is_live(&self) -> bool {
        matches!(self, Reading::Look { is_live: true, .. })
    }

    fn visit(&mut self, seen: Seen<'_>) {
        if let Reading::Look { visit, .. } = self {
            visit(seen);
        }
    }
}

/// Reads the whole log, changing nothing.
pub(crate) fn read(
    disk: &dyn Disk,
    dir: &Path,
    mut reading: Reading<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Found, WalError> {
    let (mut files, mut segments) = (Vec::new(), Vec::new());
    for (sequence, first) in names(disk, dir)? {
        let path = dir.join(segment::name(sequence, first));
        let opened = match reading {
            Reading::Own => disk.open(&path),
            Reading::Look { .. } => disk.open_to_read(&path),
        };
        let file = opened.map_err(|error| WalError::io("open", &path, error))?;
        let bytes = file.len().map_err(|error| WalError::io("measure", &path, error))?;
        segments.push(Segment::new(sequence, first, bytes));
        files.push(LogFile::new(path, bytes, file));
    }
    let (replay, end) = std::thread::scope(|scope| {
        let blocks = Blocks::of(&files, disk, scope);
        replay_all(&files, segments, blocks, &mut reading, progress)
    })?;
    let last = files.pop().expect("a log has a segment");
    finish(dir, last, end, replay)
}

/// Where the log ends, and how.
struct End {
    scan: Scan,
    /// The segment before the last.
    before: Option<Scan>,
    torn: Option<TornTail>,
}

/// Checks and applies all that the files hold.
fn replay_all(
    files: &[LogFile],
    segments: Vec<Segment>,
    mut blocks: Blocks<'_>,
    reading: &mut Reading<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Replay, End), WalError> {
    let total = files.iter().map(|file| file.bytes).sum();
    let last = files.len() - 1;
    let mut done = 0;
    progress(0, total);

    let mut replay: Option<Replay> = None;
    let mut before: Option<Scan> = None;
    for (number, (file, segment)) in files.iter().zip(segments).enumerate() {
        let mut report = |read| progress(done + read, total);
        let mut reader = Reader::new(file, number, &mut blocks, &mut report);
        let mut scan = Scan::start(&mut reader, &segment, before.as_ref())?;
        let identity = scan.identity;
        let Segment { sequence, first, bytes, .. } = segment;
        reading.visit(Seen::Segment { file: &scan.path, sequence, first, bytes, identity });
        scan.replay(&mut reader, segment, &mut replay, reading)?;
        let is_growing = number == last && reading.is_live();
        let torn = if is_growing { None } else { scan.check_end(&mut reader, number == last)? };
        if let Some(before) = &before
            && !before.sealed
            && (1 < scan.records || torn.is_some())
        {
            return Err(before.damaged(Damage::Unsealed));
        }
        done += bytes;
        if number == last {
            let replay = replay.expect("a scan begins with a base");
            return Ok((replay, End { scan, before, torn }));
        }
        before = Some(scan);
    }
    unreachable!("a log without segments is refused when its names are read")
}

/// Whose log it is, by its newest segment alone.
pub(crate) fn identity(disk: &dyn Disk, dir: &Path) -> Result<Identity, WalError> {
    let (sequence, first) = *names(disk, dir)?.last().expect("names gives at least one");
    let path = dir.join(segment::name(sequence, first));
    let file = disk.open_to_read(&path).map_err(|error| WalError::io("open", &path, error))?;
    let bytes = file.len().map_err(|error| WalError::io("measure", &path, error))?;
    let (mut unheard, files) = (|_| {}, [LogFile::new(path, bytes, file)]);
    let mut blocks = Blocks::now(&files);
    let mut reader = Reader::new(&files[0], 0, &mut blocks, &mut unheard);
    Ok(Scan::start(&mut reader, &Segment::new(sequence, first, bytes), None)?.identity)
}

/// The segments of a log in their order, none missing between the first and the last.
fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, Index)>, WalError> {
    let names = disk.list(dir).map_err(|error| WalError::io("list", dir, error))?;
    let mut segments: Vec<_> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
    segments.sort_unstable();
    if segments.is_empty() {
        return Err(WalError::damaged(dir, 0, Damage::NoSegments));
    }
    for pair in segments.windows(2) {
        let [(before, _), (sequence, first)] = *pair else { continue };
        let path = dir.join(segment::name(sequence, first));
        if sequence == before {
            return Err(WalError::damaged(&path, 0, Damage::DuplicateSegment { sequence }));
        }
        if sequence != before + 1 {
            let missing = Damage::MissingSegment { sequence: before + 1 };
            return Err(WalError::damaged(&path, 0, missing));
        }
    }
    Ok(segments)
}

fn finish(dir: &Path, last: LogFile, end: End, replay: Replay) -> Result<Found, WalError> {
    let End { scan, before, torn } = end;
    let Replay { ledger, entries, hard_state } = replay;
    if let Some((first, last)) = ledger.missing() {
        let oldest = &ledger.segments()[0];
        let oldest = dir.join(segment::name(oldest.sequence, oldest.first));
        return Err(WalError::damaged(&oldest, 0, Damage::MissingEntries { first, last }));
    }
    let mark = ledger.mark().clone();
    let seal = before.filter(|_| scan.records == 1).map(|before| (before.path, before.pen));
    let recovered = Recovered {
        identity: scan.identity,
        mark,
        entries: entries.into(),
        hard_state,
        torn,
        loosened: None,
    };
    let path = last.path.clone();
    let (file, floor, pen) = (last.into_file(), scan.floor, scan.pen);
    Ok(Found { recovered, ledger, file, path, floor, pen, seal })
}

impl Found {
    /// Makes what was read durable, and the log fit to be written to: cuts the torn tail, finishes
    /// what a crash left half done, and syncs. Only then may anyone act on what was read.
    pub(crate) fn repair(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |error| WalError::io(doing, &path, error)
        };
        if let Some(torn) = &self.recovered.torn {
            // Zeros, not a shorter file: the space stays reserved, and a tear stays recognisable.
            let zeros = vec![0; torn.bytes.min(BLOCK_BYTES) as usize];
            let mut cut = 0;
            while cut < torn.bytes {
                let part = zeros.len().min((torn.bytes - cut) as usize);
                write_all(&*self.file, &zeros[..part], torn.offset + cut)
                    .map_err(io("cut", &self.path))?;
                cut += part as u64;
            }
            self.file.sync_data().map_err(io("sync", &self.path))?;
        }

        // A process that died after a failed sync left pages that look written and are not: the
        // system marks them clean, and to sync them again does nothing. So all that no record
        // vouches for is written again.
        let mut block = Vec::new();
        let mut offset = self.floor;
        while offset < self.pen.offset {
            block.resize((self.pen.offset - offset).min(BLOCK_BYTES) as usize, 0);
            read_all(&*self.file, &mut block, offset).map_err(io("read", &self.path))?;
            write_all(&*self.file, &block, offset).map_err(io("write", &self.path))?;
            offset += block.len() as u64;
        }
        self.file.sync_all().map_err(io("sync", &self.path))?;
        self.pen.synced = self.pen.offset;
        // A process that died while it made the log, or a segment, may have left names unsynced.
        sync_dir(disk, dir).map_err(io("sync", dir))?;
        let parent = segment::parent(dir);
        sync_dir(disk, parent).map_err(io("sync", parent))?;

        if let Some((path, mut pen)) = self.seal.take() {
            let offset = pen.offset;
            pen.synced = offset;
            block.clear();
            pen.seal(&mut block, self.pen.sequence);
            let file = disk.open(&path).map_err(io("open", &path))?;
            write_all(&*file, &block, offset).map_err(io("write", &path))?;
            file.sync_data().map_err(io("sync", &path))?;
        }
        Ok(())
    }
}

/// One segment as far as it was read.
struct Scan {
    identity: Identity,
    path: PathBuf,
    /// Behind the last whole record; in a sealed segment, before the seal.
    pen: Pen,
    /// All below this offset is known to have been synced.
    floor: u64,
    /// How many records there are, the base included, the seal not.
    records: u64,
    sealed: bool,
}

impl Scan {
    /// Reads the segment's header and checks that the segment belongs behind `before`.
    fn start(
        reader: &mut Reader<'_, '_>,
        segment: &Segment,
        before: Option<&Scan>,
    ) -> Result<Self, WalError> {
        if reader.file.bytes < SECTOR_BYTES {
            return Err(reader.damaged(0, Damage::NotSegment));
        }
        let (header, crc) = match SegmentHeader::decode(reader.bytes(0, SECTOR_BYTES)?) {
            Ok(header) => header,
            Err(HeaderFault::Damaged(damage)) => return Err(reader.damaged(0, damage)),
            Err(HeaderFault::Format(found)) => {
                return Err(WalError::Format {
                    file: reader.file.path.clone(),
                    found,
                    known: FORMAT,
                });
            }
        };
        let SegmentHeader { identity, sequence, first, bytes, before_end, before_crc } = header;
        if let Some(before) = before
            && before.identity != identity
        {
            let (file, wanted) = (reader.file.path.clone(), before.identity);
            return Err(WalError::Foreign { file, found: identity, wanted });
        }
        if (sequence, first) != (segment.sequence, segment.first) {
            return Err(reader.damaged(0, Damage::Misnamed { sequence, first }));
        }
        if !(1..u64::MAX).contains(&sequence)
            || (sequence == 1 && (before_end, before_crc) != (0, 0))
        {
            let what = "the header's place in the order of segments is impossible";
            return Err(reader.damaged(0, Damage::Nonsense { what }));
        }
        if bytes != reader.file.bytes || !bytes.is_multiple_of(SECTOR_BYTES) {
            let damage = Damage::FileLength { bytes: reader.file.bytes, wanted: bytes };
            return Err(reader.damaged(0, damage));
        }
        if let Some(before) = before
            && (before_end, before_crc) != (before.pen.offset, before.pen.chain)
        {
            return Err(before.damaged(Damage::Successor { wanted: before_end }));
        }
        let pen = Pen::new(sequence, crc);
        let path = reader.file.path.clone();
        Ok(Scan { identity, path, pen, floor: 0, records: 0, sealed: false })
    }

    /// Reads and applies the segment's records, up to its seal or the first that is not whole.
    fn replay(
        &mut self,
        reader: &mut Reader<'_, '_>,
        segment: Segment,
        replay: &mut Option<Replay>,
        reading: &mut Reading<'_>,
    ) -> Result<(), WalError> {
        let mut segment = Some(segment);
        while !self.sealed
            && let Some((header, record)) = self.next(reader)?
        {
            let offset = self.pen.offset;
            let bytes = header.record_bytes();
            reading.visit(Seen::Record { file: &self.path, offset, bytes, record: &record });
            let applied = match (record, segment.take(), replay.as_mut()) {
                (Record::Base(base), Some(segment), _) => Replay::begin(replay, base, segment),
                (Record::Base(_), None, _) => Err(Damage::Nonsense { what: "a second base" }),
                (_, Some(_), _) | (_, _, None) => Err(Damage::Nonsense { what: "no base" }),
                (Record::Seal(next), ..) if next == self.pen.sequence.wrapping_add(1) => {
                    self.sealed = true;
                    Ok(())
                }
                (Record::Seal(_), ..) => Err(Damage::Nonsense { what: "it seals another segment" }),
                (record, None, Some(replay)) => replay.apply(record),
            };
            applied.map_err(|damage| reader.damaged(offset, damage))?;
            if !self.sealed {
                self.records += 1;
                self.floor = self.floor.max(header.synced);
                self.pen.chain = header.crc;
                self.pen.offset += header.record_bytes();
            }
        }
        if self.records == 0 {
            return Err(self.damaged(Damage::Nonsense { what: "no base" }));
        }
        Ok(())
    }

    /// The record at the pen; none where nothing was written, or not all.
    fn next(
        &mut self,
        reader: &mut Reader<'_, '_>,
    ) -> Result<Option<(RecordHeader, Record)>, WalError> {
        let (offset, left) = (self.pen.offset, reader.file.bytes - self.pen.offset);
        if left == 0 {
            return Ok(None);
        }
        let sector = reader.bytes(offset, SECTOR_BYTES)?;
        if is_zero(sector) {
            return Ok(None);
        }
        let Some(header) = RecordHeader::decode(sector, self.pen.seed) else {
            return Err(self.damaged(Damage::RecordHeader));
        };
        if (header.sequence, header.offset) != (self.pen.sequence, offset) {
            let RecordHeader { sequence, offset, .. } = header;
            return Err(self.damaged(Damage::Misplaced { sequence, offset }));
        }
        if header.chain != self.pen.chain {
            return Err(self.damaged(Damage::Chain));
        }
        // Before it is used as a size.
        let bytes = header.record_bytes();
        if left < bytes {
            return Err(self.damaged(Damage::TooLong { bytes, left }));
        }
        if offset < header.synced || !header.synced.is_multiple_of(SECTOR_BYTES) {
            let what = "it knows of a sync behind itself";
            return Err(self.damaged(Damage::Nonsense { what }));
        }
        let record = reader.shared(offset, bytes)?;
        if !header.holds(&record) && !bug!("records-are-believed-unchecked") {
            if bug!("damage-is-cut-off-as-a-torn-tail") {
                return Ok(None);
            }
            if header.zero_sectors < zero_sectors(&record[SECTOR..]) {
                return Ok(None);
            }
            return Err(self.damaged(Damage::RecordBody));
        }
        // No copy: entries share the block that was read, most of which is entries.
        let body = record.slice(header.body());
        let record = Record::decode(header.kind, body).map_err(|damage| self.damaged(damage))?;
        Ok(Some((header, record)))
    }

    /// Looks at all that stands behind the last whole record, and judges it.
    fn check_end(
        &mut self,
        reader: &mut Reader<'_, '_>,
        is_last: bool,
    ) -> Result<Option<TornTail>, WalError> {
        let end = self.pen.offset;
        let behind = if self.sealed { end + SECTOR_BYTES } else { end };
        let (mut dirt, mut witness) = (None, None);
        let mut offset = behind;
        while offset < reader.file.bytes {
            let block = reader.at_hand(offset)?;
            if !is_zero(block) {
                for (number, sector) in block.chunks(SECTOR).enumerate() {
                    if is_zero(sector) {
                        continue;
                    }
                    let place = offset + number as u64 * SECTOR_BYTES;
                    let (first, _) = dirt.unwrap_or((place, place));
                    dirt = Some((first, place + SECTOR_BYTES));
                    let header = RecordHeader::decode(sector, self.pen.seed).filter(|header| {
                        (header.sequence, header.offset) == (self.pen.sequence, place)
                    });
                    if header.is_some_and(|header| end < header.synced) {
                        witness.get_or_insert(place);
                    }
                }
            }
            offset += block.len() as u64;
        }
        if let Some(witness) = witness
            && !bug!("damage-is-cut-off-as-a-torn-tail")
        {
            return Err(self.damaged(Damage::Lost { witness }));
        }
        if (!is_last || self.sealed)
            && let Some((first, _)) = dirt
        {
            let damage = if first == end { Damage::RecordBody } else { Damage::Behind };
            return Err(reader.damaged(first, damage));
        }
        if is_last && self.sealed {
            let sequence = self.pen.sequence + 1;
            return Err(self.damaged(Damage::MissingSegment { sequence }));
        }
        if is_last && reader.file.bytes < end + SECTOR_BYTES {
            let what = "it leaves no room for the end of its segment";
            return Err(self.damaged(Damage::Nonsense { what }));
        }
        Ok(dirt.map(|(_, dirt_end)| TornTail {
            file: self.path.clone(),
            offset: end,
            bytes: dirt_end - end,
        }))
    }

    /// Damage where this segment's whole records end.
    fn damaged(&self, damage: Damage) -> WalError {
        WalError::damaged(&self.path, self.pen.offset, damage)
    }
}
