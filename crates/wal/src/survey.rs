//! A log as it is shown to people: what stands where, read with the owner's own checks, and without
//! taking the log from a member that runs.

use std::path::Path;

use quorate_types::Index;

use crate::recover::{self, Reading};
use crate::segment::LOCK;
use crate::{Disk, Identity, Record, Recovered, WalError};

/// How often a log that someone writes to is read before its damage is believed.
const LIVE_TRIES: u32 = 4;

/// Something in a log's files.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Seen<'a> {
    /// A segment's header.
    Segment {
        /// The segment's file.
        file: &'a Path,
        /// Its place in the order of segments.
        sequence: u64,
        /// The last index before it, plus one.
        first: Index,
        /// The file's length.
        bytes: u64,
        /// Whose it is.
        identity: Identity,
    },
    /// A whole record, its checksums found right. That it fits the log is found out only after it
    /// was shown.
    Record {
        /// The segment's file.
        file: &'a Path,
        /// Where in the file it begins.
        offset: u64,
        /// What it takes there.
        bytes: u64,
        /// What it holds.
        record: &'a Record,
    },
}

/// What a log was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What opening the log would give, and cut off.
    pub recovered: Recovered,
    /// How many segments it has.
    pub segments_count: u64,
    /// How many records these hold.
    pub records_count: u64,
    /// What they take on the volume.
    pub bytes: u64,
    /// Whether some process has the log open: what it wrote last may not be in here.
    pub is_live: bool,
}

pub(crate) fn survey(
    disk: &dyn Disk,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
    visit: &mut dyn FnMut(Seen<'_>),
) -> Result<Survey, WalError> {
    if !recover::exists(disk, dir)? {
        return Err(WalError::Absent { dir: dir.to_owned() });
    }
    // Where the last one shown stands: nothing is shown twice.
    let mut shown = None;
    let mut sequence = 0;
    let mut tries = 0;
    loop {
        tries += 1;
        let is_live = is_live(disk, dir)?;
        let (mut segments_count, mut records_count, mut bytes) = (0, 0, 0);
        let mut look = |seen: Seen<'_>| {
            let place = match seen {
                Seen::Segment { sequence: number, bytes: segment_bytes, .. } => {
                    segments_count += 1;
                    bytes += segment_bytes;
                    sequence = number;
                    (number, 0)
                }
                Seen::Record { offset, .. } => {
                    records_count += 1;
                    (sequence, offset)
                }
            };
            if shown < Some(place) {
                shown = Some(place);
                visit(seen);
            }
        };
        let reading = Reading::Look { is_live, visit: &mut look };
        match recover::read(disk, dir, reading, progress) {
            Ok(found) => {
                let recovered = found.recovered;
                return Ok(Survey { recovered, segments_count, records_count, bytes, is_live });
            }
            // It was opened, compacted or written to while it was read.
            Err(_) if tries < LIVE_TRIES && (is_live || self::is_live(disk, dir)?) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a process has the log open.
pub(crate) fn is_live(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    let path = dir.join(LOCK);
    disk.is_locked(&path).map_err(|error| WalError::io("look at", &path, error))
}
