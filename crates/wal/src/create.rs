//! How a log comes to be: built under a name that nobody reads, made durable, then renamed, so that a
//! crash leaves it complete or absent.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_types::Mark;

use crate::disk::{DiskLock, sync_dir};
use crate::record::{Base, SegmentHeader, WRITE_BYTES_MAX, base_bytes};
use crate::segment::{self, LOCK, SPARE};
use crate::{Disk, Identity, Options, WalError, recover};

/// See [`Wal::create`](crate::Wal::create).
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    options: &Options,
    first: &Mark,
    hard_state: Option<Bytes>,
) -> Result<(), WalError> {
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |error| WalError::io(doing, &path, error)
    };
    let base_bytes = base_bytes(first, hard_state.as_ref());
    check_size(base_bytes)?;
    if exists_or_occupied(disk, dir)? {
        return Err(WalError::Occupied { dir: dir.to_owned() });
    }
    let parent = segment::parent(dir);
    let mut temporary = dir.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = &*PathBuf::from(temporary);

    match disk.create_dir(temporary) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other.map_err(io("create", temporary))?,
    }
    disk.restrict_dir(temporary).map_err(io("restrict", temporary))?;
    let _lock = take_lock(disk, temporary)?;
    for name in disk.list(temporary).map_err(io("list", temporary))? {
        let path = temporary.join(&name);
        if name != LOCK {
            disk.remove(&path).map_err(io("remove", &path))?;
        }
    }

    let need = base_bytes + options.reserve_bytes();
    let header = SegmentHeader {
        identity,
        sequence: 1,
        first: first.index.next(),
        bytes: segment::file_bytes(options.segment_bytes(), need),
        before_end: 0,
        before_crc: 0,
    };
    let base = Base { mark: first.clone(), last: first.index, last_stamp: first.stamp, hard_state };
    let spare = temporary.join(SPARE);
    let file = segment::reserve(disk, &spare, header.bytes)?;
    segment::begin(&*file, &spare, &header, &base)?;
    file.sync_all().map_err(io("sync", &spare))?;
    let names = disk.open_dir(temporary).map_err(io("open", temporary))?;
    segment::publish(disk, temporary, &*names, &spare, &header)?;
    disk.rename(temporary, dir).map_err(io("rename", temporary))?;
    sync_dir(disk, parent).map_err(io("sync", parent))
}

/// Whether there is anything in `dir`. Its being a log without segments is an error by itself.
fn exists_or_occupied(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    if recover::exists(disk, dir)? {
        return Ok(true);
    }
    match disk.list(dir) {
        Ok(names) => Ok(!names.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(WalError::io("list", dir, error)),
    }
}

/// The lock of a log's directory, if nobody else has it.
pub(crate) fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<DiskLock, WalError> {
    let path = dir.join(LOCK);
    match disk.lock(&path).map_err(|error| WalError::io("lock", &path, error))? {
        Some(lock) => Ok(lock),
        None => Err(WalError::Locked { dir: dir.to_owned() }),
    }
}

/// Whether one write of so many bytes can be read back.
pub(crate) fn check_size(bytes: u64) -> Result<(), WalError> {
    if WRITE_BYTES_MAX < bytes {
        return Err(WalError::TooLarge { bytes, bytes_max: WRITE_BYTES_MAX });
    }
    Ok(())
}
