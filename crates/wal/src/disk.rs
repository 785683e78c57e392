//! The door to the file system: everything the log does to a disk goes through [`Disk`], so that
//! a disk that loses power, tears writes and runs full can stand in for the real one.
//!
//! The trait promises no more than a careful reading of POSIX does: a write or a name is durable
//! only once the file, or the directory that holds the name, was synced; before that any part of
//! it may survive a loss of power, in any order. After a failed sync nothing is known.

use std::any::Any;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use fs4::FileExt as _;
use rustix::io::Errno;

/// Holds a lock for as long as it lives. The end of the process ends it too, however it ends.
pub type DiskLock = Box<dyn Any + Send>;

/// A file system, as far as the log needs one.
pub trait Disk: Send + Sync + 'static {
    /// Makes a new, empty file, readable and writable by its owner only.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file to read and write.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file to read it only. Without an answer of its own a disk opens it as ever.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    /// Gives a file or directory another name, in one step. Durable once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable once the directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory that only its owner may enter.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is one.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the rights of all but the owner from a directory. Answers the mode bits it had, if
    /// there were any to take.
    fn restrict_dir(&self, dir: &Path) -> io::Result<Option<u32>>;

    /// Opens a directory, to make what happens to its names durable.
    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn DiskDir>>;

    /// Locks a file for this process alone, making it if need be. `None` when another holder has
    /// it; it never waits.
    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>>;

    /// Whether a file may be read by other threads than the one that opened it, several at once, ahead of
    /// it. Without an answer of its own a disk is asked by one thread only, one thing after the other.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Whether someone holds the lock of this file. One that is not there is not locked.
    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.lock(path).map(|lock| lock.is_none())
    }
}

/// An open directory. To sync it takes no further file descriptor.
pub trait DiskDir: Send + 'static {
    /// Makes the names in it durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; fewer is no sign of the end, only 0 is.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes `bytes` or a first part of them, in one positioned write.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes all written bytes durable, and of the metadata what it takes to read them.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes all written bytes and all metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Makes the file at least `bytes` long and reserves the space for it; what is new reads as
    /// zeros.
    ///
    /// # Errors
    ///
    /// `StorageFull` when the volume has no such space.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or stretches the file; what is new reads as zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|bytes| bytes == 0)
    }
}

/// Whether an operation failed only because this process, or the machine, has as many files open as
/// it may have. Nothing has happened then, and that it does so again is not to be expected.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(dir)
    }

    fn restrict_dir(&self, dir: &Path) -> io::Result<Option<u32>> {
        let mode = fs::metadata(dir)?.permissions().mode() & 0o7777;
        if mode & 0o077 == 0 {
            return Ok(None);
        }
        fs::set_permissions(dir, Permissions::from_mode(mode & 0o700))?;
        Ok(Some(mode))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn DiskDir>> {
        Ok(Box::new(RealDir(File::open(dir)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        // The lock belongs to this open file, not to the process: a second `Wal` of the same
        // process is kept out too.
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        // Shared, so that those who only look do not take each other for an owner; and given back
        // at once.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealDir(File);

impl DiskDir for RealDir {
    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self.0.allocate(bytes) {
            // Some file systems cannot reserve; a full volume then shows at the first write.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
        // Reserving does not lengthen the file everywhere.
        if self.0.metadata()?.len() < bytes { self.0.set_len(bytes) } else { Ok(()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Makes the names in a directory that is not open durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.open_dir(dir)?.sync()
}

/// Writes all of `bytes`, going on after a short or interrupted write.
pub(crate) fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills all of `buffer`, going on after a short or interrupted read. The end of the file inside
/// it is an error: who asks knows how long the file is.
pub(crate) fn read_all(
    file: &dyn DiskFile,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
