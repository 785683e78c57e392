//! A snapshot as a file of an operator's: made by a running node, checked and restored without one.
//!
//! ```text
//! file: body · sha-256 of the body (32)
//! body: stream (see kv's `snapshot.rs`) · zeros · length of the stream (8, big-endian)
//! ```
//! The body is a multiple of 512 bytes, by which etcd's clients tell a file that is whole. Whatever is
//! cut off or changed, the checksum of the whole does not fit any more.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_kv::{SnapshotContents, SnapshotReader, Store, StoreError};
use sha2::{Digest, Sha256};

/// Bodies are multiples of this.
const UNIT_BYTES: u64 = 512;
/// The length at the end of a body.
const LENGTH_BYTES: u64 = 8;
const CHECKSUM_BYTES: u64 = 32;
/// Pieces are of this size, as etcd's are.
const PIECE_BYTES: usize = 32 << 10;
/// Where a file of etcd's own storage, `bbolt`, has its mark, and what that is.
const BBOLT_MAGIC_AT: usize = 16;
const BBOLT_MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();

/// A snapshot on its way into a file.
pub struct Saving {
    reader: SnapshotReader,
    stream_bytes: u64,
    body_bytes: u64,
    sent_bytes: u64,
    checksum: Sha256,
    has_ended: bool,
}

/// A piece of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPiece {
    /// What comes next in the file.
    pub bytes: Bytes,
    /// What is still to come of the body.
    pub remaining_bytes: u64,
}

impl Saving {
    /// Takes the state as of now. It is read once to know how long the file will be, and with that
    /// checked, before the first byte goes out.
    pub(crate) fn begin(store: &Store) -> Result<Saving, StoreError> {
        let snapshot = store.snapshot()?;
        let mut reader = snapshot.reader();
        let mut stream_bytes = 0;
        loop {
            match reader.read(1 << 20)?.len() {
                0 => break,
                count => stream_bytes += count as u64,
            }
        }
        Ok(Saving {
            reader: snapshot.reader(),
            stream_bytes,
            body_bytes: (stream_bytes + LENGTH_BYTES).next_multiple_of(UNIT_BYTES),
            sent_bytes: 0,
            checksum: Sha256::new(),
            has_ended: false,
        })
    }

    /// The next piece; none after the last. It may wait for the disk.
    ///
    /// # Errors
    ///
    /// When the storage fails. What has been sent is of no use.
    pub fn next_piece(&mut self) -> Result<Option<SavedPiece>, StoreError> {
        if self.has_ended {
            return Ok(None);
        }
        let bytes = if self.sent_bytes < self.stream_bytes {
            self.reader.read(PIECE_BYTES)?
        } else if self.sent_bytes < self.body_bytes {
            let zeros = self.body_bytes - self.sent_bytes - LENGTH_BYTES;
            let mut end = BytesMut::zeroed(zeros as usize);
            end.put_u64(self.stream_bytes);
            end.freeze()
        } else {
            self.has_ended = true;
            let checksum = Bytes::copy_from_slice(&self.checksum.finalize_reset());
            return Ok(Some(SavedPiece { bytes: checksum, remaining_bytes: 0 }));
        };
        assert!(!bytes.is_empty(), "a view is read twice alike");
        self.checksum.update(&bytes);
        self.sent_bytes += bytes.len() as u64;
        Ok(Some(SavedPiece { bytes, remaining_bytes: self.body_bytes - self.sent_bytes }))
    }
}

impl std::fmt::Debug for Saving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saving").field("sent_bytes", &self.sent_bytes).finish_non_exhaustive()
    }
}

/// What is in a saved file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedStatus {
    /// The beginning of its checksum.
    pub hash: u32,
    /// What it holds.
    pub contents: SnapshotContents,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Why a saved file cannot be used, or a directory not be made of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// A file or directory cannot be read or written.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
    /// The file is not a whole snapshot.
    #[error("{} is {bytes} bytes long, as no whole snapshot is: it was cut off; save it once more", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file is not as it was saved.
    #[error("{}: expected sha256 {expected}, got {found}: it was changed or cut off since it was saved", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The checksum at its end, in hexadecimal.
        expected: String,
        /// The checksum of what is before that.
        found: String,
    },
    /// The file is a snapshot of etcd itself.
    #[error(
        "{} is a snapshot of etcd, whose storage is another; copy the keys instead, with `etcdctl \
         make-mirror`", path.display()
    )]
    Etcd {
        /// The file.
        path: PathBuf,
    },
    /// The file is whole, and cannot be read.
    #[error("{}: {why}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is something where the directory is to be.
    #[error("data directory {} is not empty; name one that is, or that is not there yet", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
}

/// Checks a saved file from its first byte to its last, and says what is in it. `progress` hears every
/// so often how many bytes of how many are read.
///
/// # Errors
///
/// See [`SavedError`].
pub fn inspect_saved(
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SavedStatus, SavedError> {
    inspect(SavedFile::open(path)?, progress)
}

/// [`inspect_saved`] of a file that is open already, for reading, and is called `path`.
///
/// # Errors
///
/// See [`SavedError`].
pub fn inspect_open(
    file: File,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SavedStatus, SavedError> {
    inspect(SavedFile::of(file, path)?, progress)
}

fn inspect(
    mut saved: SavedFile,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SavedStatus, SavedError> {
    let total = 2 * saved.file_bytes;
    saved.check(&mut |done| progress(done, total))?;
    let mut done = saved.file_bytes;
    let contents = saved.stream(|next| {
        quorate_kv::contents(|| {
            let piece = next()?;
            done += piece.len() as u64;
            progress(done, total);
            Ok(piece)
        })
    })?;
    progress(total, total);
    Ok(SavedStatus { hash: saved.hash, contents, file_bytes: saved.file_bytes })
}

/// A file that is about to be read.
pub(crate) struct SavedFile {
    path: PathBuf,
    file: File,
    pub(crate) file_bytes: u64,
    stream_bytes: u64,
    pub(crate) hash: u32,
}

impl SavedFile {
    pub(crate) fn open(path: &Path) -> Result<Self, SavedError> {
        let failed = |error| SavedError::Io { what: "cannot read", path: path.to_owned(), error };
        SavedFile::of(File::open(path).map_err(failed)?, path)
    }

    fn of(file: File, path: &Path) -> Result<Self, SavedError> {
        let failed = |error| SavedError::Io { what: "cannot read", path: path.to_owned(), error };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let bytes = metadata.len();
        if bytes < UNIT_BYTES + CHECKSUM_BYTES || bytes % UNIT_BYTES != CHECKSUM_BYTES {
            return Err(SavedError::Cut { path: path.to_owned(), bytes });
        }
        Ok(SavedFile { path: path.to_owned(), file, file_bytes: bytes, stream_bytes: 0, hash: 0 })
    }

    /// Whether it is as it was saved; `progress` hears how many bytes are read.
    pub(crate) fn check(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), SavedError> {
        let body_bytes = self.file_bytes - CHECKSUM_BYTES;
        let mut checksum = Sha256::new();
        let mut first = None;
        let mut end = Bytes::new();
        let mut done = 0;
        self.rewind()?;
        while done < body_bytes {
            let piece = self.piece(body_bytes - done)?;
            checksum.update(&piece);
            done += piece.len() as u64;
            first.get_or_insert_with(|| piece.slice(..piece.len().min(UNIT_BYTES as usize)));
            end = piece;
            progress(done);
        }
        let expected = self.piece(CHECKSUM_BYTES)?;
        let found: [u8; CHECKSUM_BYTES as usize] = checksum.finalize().into();
        if expected[..] != found {
            return Err(SavedError::Checksum {
                path: self.path.clone(),
                expected: hex(&expected),
                found: hex(&found),
            });
        }
        let magic = first
            .and_then(|first| first.get(BBOLT_MAGIC_AT..BBOLT_MAGIC_AT + 4).map(<[u8]>::to_vec));
        if magic.as_deref() == Some(&BBOLT_MAGIC) {
            return Err(SavedError::Etcd { path: self.path.clone() });
        }
        self.hash = u32::from_be_bytes([found[0], found[1], found[2], found[3]]);
        // Pieces are multiples of the unit: the last one holds the length.
        let length = end.last_chunk::<{ LENGTH_BYTES as usize }>().copied().unwrap_or_default();
        self.stream_bytes = u64::from_be_bytes(length);
        let is_right = self
            .stream_bytes
            .checked_add(LENGTH_BYTES)
            .is_some_and(|bytes| bytes.next_multiple_of(UNIT_BYTES) == body_bytes);
        if !is_right {
            return Err(self.unreadable("it is no snapshot of this program"));
        }
        Ok(())
    }

    /// Has its stream read, once it is checked, piece by piece.
    pub(crate) fn stream<T>(
        &mut self,
        read: impl FnOnce(&mut dyn FnMut() -> io::Result<Bytes>) -> Result<T, StoreError>,
    ) -> Result<T, SavedError> {
        self.rewind()?;
        let mut left = self.stream_bytes;
        let file = &mut self.file;
        let mut next = || {
            let piece = read_piece(file, left)?;
            left -= piece.len() as u64;
            Ok(piece)
        };
        read(&mut next).map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, why: impl std::fmt::Display) -> SavedError {
        SavedError::Contents { path: self.path.clone(), why: why.to_string() }
    }

    fn rewind(&mut self) -> Result<(), SavedError> {
        self.file.seek(SeekFrom::Start(0)).map(drop).map_err(|error| self.failed(error))
    }

    fn piece(&mut self, bytes_max: u64) -> Result<Bytes, SavedError> {
        let piece = read_piece(&mut self.file, bytes_max).map_err(|error| self.failed(error))?;
        if piece.is_empty() {
            return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(piece)
    }

    fn failed(&self, error: io::Error) -> SavedError {
        SavedError::Io { what: "cannot read", path: self.path.clone(), error }
    }
}

/// The next bytes of a file, as many as there are up to a limit, and to what is well read at once.
fn read_piece(file: &mut File, bytes_max: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; bytes_max.min(1 << 20) as usize];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
