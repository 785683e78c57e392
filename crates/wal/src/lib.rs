//! A durable log for one replica: what [`Wal::append`] said is safe is there after every crash.
//!
//! It knows no engine. It keeps [`LogEntry`](quorate_types::LogEntry)s, a
//! [`Mark`](quorate_types::Mark) where the log starts (a snapshot stands for all before it), and
//! one opaque hard state.
//!
//! ```
//! # let parent = tempfile::tempdir()?;
//! # let dir = &parent.path().join("log");
//! use std::sync::Arc;
//! use quorate_types::{Index, LogEntry, Mark};
//! use quorate_wal::{Identity, Options, RealDisk, Wal, Write};
//!
//! let disk = Arc::new(RealDisk);
//! if !Wal::exists(&*disk, dir)? {
//!     let (owner, first) = (Identity::default(), Mark::default());
//!     Wal::create(disk.clone(), dir, owner, Options::default(), &first, None)?;
//! }
//! let (mut wal, recovered) = Wal::open(disk, dir, Options::default(), &mut |_done, _total| {})?;
//! assert!(recovered.entries.is_empty());
//!
//! let entry = LogEntry { index: Index(1), stamp: 1, kind: 0, data: "set x".into() };
//! let write = Write { entries: vec![entry], must_sync: true, ..Write::default() };
//! wal.append(&[write])?; // on return it is on the disk
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The contract
//!
//! *One write, whole or not at all.* A [`Write`] is one record under one checksum. After a crash
//! the log is what some first part of the writes made of it, and that part includes every write
//! that `append` returned for with `must_sync`, and every one before such a write.
//!
//! *An entry replaces what is there.* Appending index `i` takes `i` and all behind it away, in the
//! same atomic step. Reading repeats every such step in the order they happened and only then cuts
//! at the mark, so no entry that was ever taken away comes back.
//!
//! *Group commit.* All writes given to one `append` reach the disk in one write call and at most
//! one `fdatasync`. The caller collects what came in during the last sync and hands it over at
//! once. Every call blocks on the disk, so the log lives on a thread that does nothing else.
//!
//! *A failed write or sync is final.* After it nobody knows what the disk holds, and to sync again
//! proves nothing: systems drop what they could not write and report success the next time. The
//! log then refuses everything ([`WalError::Poisoned`]) until it is dropped and opened again.
//! Opening writes all that no later record vouches for a second time, so that what it gives back
//! is on the disk and not in memory only.
//!
//! *Torn is cut, damaged is refused.* Opening cuts off an unfinished write at the end and says so
//! ([`Recovered::torn`]). Anything else that is not as it was written is an error that names file
//! and offset ([`WalError::Damaged`]) and changes nothing, since a replica that forgets what it
//! acknowledged can take committed data with it. `recover.rs` tells how the two are told apart,
//! and the one case that remains in doubt: a disk that loses whole sectors of the very last synced
//! group, before anything was written behind it.
//!
//! *A full volume* is noticed early. Each segment's space is reserved before it is used, and the
//! next one's when the current one is half full: [`Wal::is_nearly_full`] is the time for an alarm
//! or a compaction. When there is no next segment, `append` returns [`WalError::Full`] with nothing
//! written, and works again when there is space. On file systems that cannot reserve space `Full`
//! may come from the write itself, and is final like any other failed write.
//!
//! *Compaction.* [`Wal::compact`] makes the new mark durable, then removes whole segments from the
//! old end, each durably before the next. Each segment begins with all that the removed ones said
//! and still counts: the mark, where the log ended, the hard state.
//!
//! *One owner.* An open log is locked for other processes and other `Wal`s of this one, until it
//! is dropped or the process ends. The directory is its owner's only; looser rights are taken away
//! and reported ([`Recovered::loosened`]). Every file carries the [`Identity`] it was made with,
//! and every record is bound to it; the caller compares [`Recovered::identity`] with its own.
//!
//! # On disk
//!
//! ```text
//! log/LOCK                                        locked while the log is open
//! log/0000000000000004-00000000000003e9.wal       segment 4; the log had reached entry 1000
//! log/0000000000000005-00000000000007d1.wal       segment 5, the one written to
//! log/spare.tmp                                   space for segment 6, no part of the log yet
//! ```
//!
//! `record.rs` draws the bytes. Format 2 is the only one that is read; a program that meets another one
//! says so and touches nothing.

mod disk;
mod error;
mod ledger;
mod reader;
mod record;
mod recover;
mod replay;
mod segment;
mod survey;
mod wal;

pub use disk::{Disk, DiskDir, DiskFile, DiskLock, RealDisk, is_out_of_files};
pub use error::{Damage, Misfit, WalError};
pub use record::{Base, Record, WRITE_BYTES_MAX};
pub use survey::{Seen, Survey};
pub use wal::{Identity, Options, Recovered, TornTail, Wal, Write};
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
