//! Logs that no writer of ours would write.

use std::path::Path;

use quorate_types::Mark;

use super::SimDisk;
use super::platter::SECTOR;
use crate::record::{Base, Pen, SegmentHeader};
use crate::{Identity, segment};

/// Makes a log of one segment on a disk: it starts after `mark`, and its records have valid checksums and
/// bodies as given, each with its kind. The directory must be there, and be empty.
///
/// # Panics
///
/// If it is not.
pub fn forge(
    disk: &SimDisk,
    dir: &Path,
    identity: Identity,
    mark: &Mark,
    records: &[(u8, Vec<u8>)],
) {
    let first = mark.index.next();
    let length = |body: &Vec<u8>| (body.len() + 2 * SECTOR) as u64;
    let bytes = 8192 + records.iter().map(|(_, body)| length(body)).sum::<u64>();
    let bytes = bytes.next_multiple_of(4096);
    // As if there had been segments before it.
    let header =
        SegmentHeader { identity, sequence: 7, first, bytes, before_end: 1024, before_crc: 5 };
    let (sector, crc) = header.encode();
    let mut file = sector.to_vec();
    let mut pen = Pen::new(header.sequence, crc);
    let base =
        Base { mark: mark.clone(), last: mark.index, last_stamp: mark.stamp, hard_state: None };
    pen.base(&mut file, &base);
    for (kind, body) in records {
        pen.raw(&mut file, *kind, body);
    }
    file.resize(bytes as usize, 0);
    disk.put(dir.join(segment::name(header.sequence, first)), file)
        .expect("the directory is there");
}
