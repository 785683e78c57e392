//! Segment files: their names, and how one comes to be: complete and durable under a name that
//! nobody reads, then renamed.

use std::path::{Path, PathBuf};

use quorate_types::{Index, bug};

use crate::disk::{DiskDir, DiskFile, write_all};
use crate::record::{Base, Pen, SECTOR, SegmentHeader};
use crate::{Disk, WalError};

/// The file that is locked while a log is open.
pub(crate) const LOCK: &str = "LOCK";
/// The next segment, until it has its name. Left over from a former life it is removed.
pub(crate) const SPARE: &str = "spare.tmp";

/// The name of a segment's file: sequence number and first index, in hex, so that names sort.
pub(crate) fn name(sequence: u64, first: Index) -> String {
    format!("{sequence:016x}-{first:016x}.wal")
}

/// What a segment's name says; `None` for names of other files.
pub(crate) fn parse_name(file_name: &str) -> Option<(u64, Index)> {
    let (sequence, first) = file_name.strip_suffix(".wal")?.split_once('-')?;
    let sequence = u64::from_str_radix(sequence, 16).ok()?;
    let first = Index(u64::from_str_radix(first, 16).ok()?);
    // Only as we write it: no signs, no capitals, no lost zeros.
    (name(sequence, first) == file_name).then_some((sequence, first))
}

/// Makes the file of a future segment and reserves its space. One that a failed try left is gone.
pub(crate) fn reserve(
    disk: &dyn Disk,
    path: &Path,
    bytes: u64,
) -> Result<Box<dyn DiskFile>, WalError> {
    let created = match disk.create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(path).and_then(|()| disk.create(path))
        }
        other => other,
    };
    let file = created.map_err(|error| WalError::io("create", path, error))?;
    if let Err(error) = file.allocate(bytes) {
        // Half of a segment would only take up the space that is wanting.
        let _ = disk.remove(path);
        return Err(WalError::io("reserve space for", path, error));
    }
    Ok(file)
}

/// Writes what a segment starts with; the pen then stands behind it. Not synced.
pub(crate) fn begin(
    file: &dyn DiskFile,
    path: &Path,
    header: &SegmentHeader,
    base: &Base,
) -> Result<Pen, WalError> {
    let (sector, crc) = header.encode();
    let mut bytes = sector.to_vec();
    let mut pen = Pen::new(header.sequence, crc);
    pen.base(&mut bytes, base);
    write_all(file, &bytes, 0).map_err(|error| WalError::io("write", path, error))?;
    Ok(pen)
}

/// Gives a segment its name for good. Its contents must be durable by now. `names` is `dir`, open.
pub(crate) fn publish(
    disk: &dyn Disk,
    dir: &Path,
    names: &dyn DiskDir,
    spare: &Path,
    header: &SegmentHeader,
) -> Result<PathBuf, WalError> {
    let path = dir.join(name(header.sequence, header.first));
    disk.rename(spare, &path).map_err(|error| WalError::io("rename", spare, error))?;
    if !bug!("segment-is-named-but-not-for-good") {
        names.sync().map_err(|error| WalError::io("sync", dir, error))?;
    }
    Ok(path)
}

/// The directory that holds the name of this one.
pub(crate) fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The length of a segment's file that is to hold `need` bytes behind its header, in whole pages.
pub(crate) fn file_bytes(wanted: u64, need: u64) -> u64 {
    wanted.max(SECTOR as u64 + need).next_multiple_of(4096)
}
