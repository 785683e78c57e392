//! What can go wrong with a log on disk, in words that say what would help.

use std::io;
use std::path::{Path, PathBuf};

use quorate_types::Index;

use crate::Identity;
use crate::disk::is_out_of_files;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// Nothing was ever created there.
    #[error("{} holds no log; create one first", dir.display())]
    Absent {
        /// Where a log was looked for.
        dir: PathBuf,
    },
    /// `create` found something already there, and never overwrites.
    #[error("{} is not empty; open the log in it, or choose another directory", dir.display())]
    Occupied {
        /// Where the log was to be made.
        dir: PathBuf,
    },
    /// Another process, or another `Wal` of this one, has the log open.
    #[error("{} is in use by another process; stop that one first", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// A file of another cluster, node or group stands among this log's.
    #[error("{} belongs to {found}, the log to {wanted}; move the file back", file.display())]
    Foreign {
        /// The file that does not belong.
        file: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Whose the log is.
        wanted: Identity,
    },
    /// The file was written in a format that this version does not know.
    #[error(
        "{} has log format {found}, this version knows {known}; use the version that wrote it",
        file.display()
    )]
    Format {
        /// The file.
        file: PathBuf,
        /// The format it names.
        found: u32,
        /// The only format this version reads.
        known: u32,
    },
    /// Bytes that were durable are not what they were. The log stays closed: cutting it would
    /// forget what others were told is safe.
    #[error(
        "{} is damaged at offset {offset}: {damage}; leave the files as they are: what this node \
         vouched for is in them. The other nodes go on while they are a majority; this one starts \
         again once its volume gives back what was written",
        file.display()
    )]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// One write is larger than a reader would accept. Nothing was written.
    #[error("a write of {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// What the record would have taken.
        bytes: u64,
        /// What it may take.
        bytes_max: u64,
    },
    /// The caller's write does not fit the log. Nothing of the call was written.
    #[error("the write does not fit the log: {0}")]
    Misfit(Misfit),
    /// The volume is full. [`Wal::is_poisoned`](crate::Wal::is_poisoned) tells whether the log
    /// noticed before it wrote anything, and so goes on once there is space again.
    #[error("no space left to {doing} {}; free some on that volume", path.display())]
    Full {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
    },
    /// No file can be opened at present. [`Wal::is_poisoned`](crate::Wal::is_poisoned) tells whether
    /// the log goes on once one can be; an open log needs one only to begin a segment, and then it
    /// does.
    #[error(
        "too many open files to {doing} {}; close some, or raise the limit (`ulimit -n`)",
        path.display()
    )]
    TooManyFiles {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write or sync failed, so what the disk holds is unknown. Open the log again.
    #[error("the log takes nothing more since an earlier failure ({cause}); open it again")]
    Poisoned {
        /// The first failure, in words.
        cause: String,
    },
}

/// What is wrong with a place in a log file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The file does not start as a segment does.
    #[error("this is no log segment")]
    NotSegment,
    /// The segment's header does not match its checksum.
    #[error("the segment header does not match its checksum")]
    SegmentHeader,
    /// The file's name and its header disagree.
    #[error("the header says segment {sequence} from index {first}, the name says otherwise")]
    Misnamed {
        /// The sequence number in the header.
        sequence: u64,
        /// The first index in the header.
        first: Index,
    },
    /// The file was cut or has grown. Segments have their full length before their first record.
    #[error("the file is {bytes} bytes long, and was made with {wanted}")]
    FileLength {
        /// Its length now.
        bytes: u64,
        /// The length its header names.
        wanted: u64,
    },
    /// A record's header does not match its checksum, and no interrupted write explains it.
    #[error("the record header does not match its checksum")]
    RecordHeader,
    /// A record's body does not match its checksum, and no interrupted write explains it.
    #[error("the record body does not match its checksum")]
    RecordBody,
    /// A whole record, but of another place.
    #[error("this record belongs to segment {sequence}, offset {offset}")]
    Misplaced {
        /// The segment it was written to.
        sequence: u64,
        /// The offset it was written to.
        offset: u64,
    },
    /// A whole record in its place, but not the successor of the one before it.
    #[error("the record does not continue the one before it")]
    Chain,
    /// A record that would reach past the end of its file.
    #[error("the record takes {bytes} bytes, and the file has {left} left")]
    TooLong {
        /// What the record's header asks for.
        bytes: u64,
        /// What there is.
        left: u64,
    },
    /// Checksums hold, yet the content cannot be.
    #[error("the record makes no sense: {what}")]
    Nonsense {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A record that was synced is gone: one behind it was written after that sync.
    #[error("a synced record is gone; the one at {witness} was written after it")]
    Lost {
        /// Where the later record stands.
        witness: u64,
    },
    /// Something stands behind the end of a finished segment.
    #[error("there are bytes behind the end of the segment")]
    Behind,
    /// A segment between the first and the last one is not there.
    #[error("segment {sequence} is missing")]
    MissingSegment {
        /// Its sequence number.
        sequence: u64,
    },
    /// Two files claim to be the same segment.
    #[error("there are two files of segment {sequence}")]
    DuplicateSegment {
        /// Their sequence number.
        sequence: u64,
    },
    /// The segment ends elsewhere, or otherwise, than when the next one was made.
    #[error("the segment ends here; the next one continues another end, at offset {wanted}")]
    Successor {
        /// Where the segment ended when the next one was made.
        wanted: u64,
    },
    /// A segment that is not the last one does not say that it is finished.
    #[error("the segment is not finished, and others follow it")]
    Unsealed,
    /// What the segment says came before it is not what came before it.
    #[error("the segment starts from another state than the one before it leads to")]
    Base,
    /// The log's files are gone, but not the directory.
    #[error("the directory is that of a log, and no segment is in it")]
    NoSegments,
    /// Entries the log should have were in segments before this one, which are gone.
    #[error("entries {first} to {last} were in segments before this one, which are gone")]
    MissingEntries {
        /// The first one missing.
        first: Index,
        /// The last one missing.
        last: Index,
    },
    /// A write that does not fit the log as it was when the write was made.
    #[error("the record does not fit the log: {0}")]
    Misfit(Misfit),
}

/// How a write does not fit the log it is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// An entry would leave a gap before it, or does not follow the one before it in the write.
    #[error("entry {index} where {wanted} is due")]
    Gap {
        /// The entry's index.
        index: Index,
        /// The highest index that would have done.
        wanted: Index,
    },
    /// An entry's stamp is below that of the entry before it.
    #[error("entry {index} has stamp {stamp}, the one before it {before}")]
    Backward {
        /// The entry's index.
        index: Index,
        /// Its stamp.
        stamp: u64,
        /// The stamp before it.
        before: u64,
    },
    /// The entry or mark lies where a snapshot already stands for the log.
    #[error("index {index} is covered by the mark at {mark}")]
    Covered {
        /// The index asked for.
        index: Index,
        /// Where the log's mark is.
        mark: Index,
    },
    /// A compaction to a place that the log has not reached.
    #[error("index {index} is past the last entry, {last}")]
    Beyond {
        /// The index asked for.
        index: Index,
        /// The log's last one.
        last: Index,
    },
    /// The mark names another stamp than the entry has.
    #[error("the mark names stamp {named} at index {index}, the log holds {held}")]
    Stamp {
        /// The mark's index.
        index: Index,
        /// The mark's stamp.
        named: u64,
        /// The entry's stamp.
        held: u64,
    },
}

impl WalError {
    /// The error of a failed operation, with what was being done and to what.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull
            || source.kind() == io::ErrorKind::QuotaExceeded
        {
            return WalError::Full { doing, path: path.to_owned() };
        }
        if is_out_of_files(&source) {
            return WalError::TooManyFiles { doing, path: path.to_owned() };
        }
        WalError::Io { doing, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(file: &Path, offset: u64, damage: Damage) -> Self {
        WalError::Damaged { file: file.to_owned(), offset, damage }
    }
}
