//! The log while it is open: every call ends durable, or with an error that says what is known.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{Index, Mark, bug};

use crate::create::{check_size, take_lock};
use crate::disk::{DiskDir, DiskFile, DiskLock, write_all};
use crate::ledger::{Ledger, Segment};
use crate::record::{self, Base, Pen, SECTOR, SegmentHeader, base_bytes, compact_bytes};
use crate::recover::Reading;
use crate::segment::{self, SPARE};
use crate::survey::{self, Seen, Survey};
use crate::{Disk, Identity, Options, Recovered, WalError, Write, create, recover};

const SECTOR_BYTES: u64 = SECTOR as u64;
/// How far ahead zeros are written. A sync of bytes that lie on zeros already written changes no
/// metadata and takes about two thirds of the time of one that does (ext4: 100 and 160 us); a
/// larger step makes the one append that writes the zeros slower (512 KiB: about 0.4 ms).
const ZERO_AHEAD_BYTES: u64 = 512 << 10;
/// Groups above this size gain less from zeros than these cost.
const ZERO_GROUP_BYTES_MAX: usize = 64 << 10;
/// What the buffer for records may keep between two appends.
const BUFFER_KEEP_BYTES_MAX: usize = 8 << 20;

/// An open log. See the crate's documentation for the contract.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// `dir`, open.
    names: Box<dyn DiskDir>,
    options: Options,
    identity: Identity,
    ledger: Ledger,
    hard_state: Option<Bytes>,
    /// The segment that is written to.
    file: Box<dyn DiskFile>,
    path: PathBuf,
    file_bytes: u64,
    pen: Pen,
    /// Zeros were written up to here.
    zeroed: u64,
    buffer: Vec<u8>,
    /// The next segment's file, with its length.
    spare: Option<(Box<dyn DiskFile>, u64)>,
    is_nearly_full: bool,
    poison: Option<String>,
    _lock: DiskLock,
}

impl Wal {
    /// Whether `dir` holds a log. A directory that is empty or not there holds none.
    ///
    /// # Errors
    ///
    /// [`WalError::Damaged`] when `dir` is a log's and its segments are gone: to create a new one
    /// there would make the node forget its promises.
    pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
        recover::exists(disk, dir)
    }

    /// Makes a log that starts after `first`, in a directory that is empty or not there, in a
    /// parent that is. It is built in `<dir>.tmp` and renamed when it is durable, so that a crash
    /// leaves it complete or absent.
    ///
    /// # Errors
    ///
    /// [`WalError::Occupied`] when there is anything in `dir`; [`WalError::Locked`] when another
    /// process is making the same log; [`WalError::TooLarge`]; [`WalError::Full`] and
    /// [`WalError::Io`], [`WalError::TooManyFiles`], after which it may be tried again.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
        options: Options,
        first: &Mark,
        hard_state: Option<Bytes>,
    ) -> Result<(), WalError> {
        create::create(&*disk, dir, identity, &options, first, hard_state)
    }

    /// Opens the log in `dir`, and reads all of it. `progress` hears how many bytes of how many
    /// are read. What is returned is durable: an unfinished write at the end is cut off for good,
    /// and everything else synced (again) before this returns.
    ///
    /// The log stays locked until the `Wal` is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// [`WalError::Absent`], [`WalError::Locked`]; [`WalError::Damaged`], [`WalError::Foreign`],
    /// [`WalError::Format`], which change nothing on disk; [`WalError::Full`],
    /// [`WalError::TooManyFiles`], [`WalError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Wal, Recovered), WalError> {
        let lock = lock_existing(&*disk, dir)?;
        let mut found = recover::read(&*disk, dir, Reading::Own, progress)?;
        found.recovered.loosened =
            disk.restrict_dir(dir).map_err(|error| WalError::io("restrict", dir, error))?;
        found.repair(&*disk, dir)?;
        let spare = dir.join(SPARE);
        match disk.remove(&spare) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(|error| WalError::io("remove", &spare, error))?,
        }

        // Held for the log's life: between the rename and the sync of a name nothing may be wanting.
        let names = disk.open_dir(dir).map_err(|error| WalError::io("open", dir, error))?;

        let recover::Found { recovered, ledger, file, path, pen, .. } = found;
        let mut wal = Wal {
            disk,
            dir: dir.to_owned(),
            names,
            options,
            identity: recovered.identity,
            file,
            path,
            file_bytes: ledger.segments().back().expect("a log has a segment").bytes,
            ledger,
            hard_state: recovered.hard_state.clone(),
            zeroed: pen.offset,
            pen,
            buffer: Vec::new(),
            spare: None,
            is_nearly_full: false,
            poison: None,
            _lock: lock,
        };
        // A crash may have come between a compaction and the removal of what it freed.
        wal.remove_dead()?;
        Ok((wal, recovered))
    }

    /// Reads the log in `dir` as [`open`](Wal::open) does, with the same checks, and changes
    /// nothing: for tools that verify or show a log that no process has open.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn inspect(
        disk: &dyn Disk,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Recovered, WalError> {
        let _lock = lock_existing(disk, dir)?;
        let reading = Reading::Look { is_live: false, visit: &mut |_| {} };
        Ok(recover::read(disk, dir, reading, progress)?.recovered)
    }

    /// Reads the log in `dir` for people: shows `visit` every segment and record in the order they
    /// were written, with all checks of [`open`](Wal::open), and changes nothing. It takes no lock,
    /// so a running member neither notices nor is kept from starting.
    ///
    /// While a process has the log open, the last record may be a write under way: reading ends
    /// there and says nothing of what stands behind it, and what looks like damage is looked at
    /// again before it is believed, since it may have been compacted or written meanwhile.
    ///
    /// # Errors
    ///
    /// As `open`, but for `Locked`.
    pub fn survey(
        disk: &dyn Disk,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
        visit: &mut dyn FnMut(Seen<'_>),
    ) -> Result<Survey, WalError> {
        survey::survey(disk, dir, progress, visit)
    }

    /// Whose log `dir` holds, as its newest segment says; nothing else is read or checked. For who is
    /// about to open it: one that is open already is refused.
    ///
    /// # Errors
    ///
    /// [`WalError::Absent`], [`WalError::Locked`], [`WalError::Damaged`], [`WalError::Format`];
    /// [`WalError::Io`], [`WalError::TooManyFiles`].
    pub fn identify(disk: &dyn Disk, dir: &Path) -> Result<Identity, WalError> {
        if !recover::exists(disk, dir)? {
            return Err(WalError::Absent { dir: dir.to_owned() });
        }
        if survey::is_live(disk, dir)? {
            return Err(WalError::Locked { dir: dir.to_owned() });
        }
        recover::identity(disk, dir)
    }

    /// Appends writes in their order, each of them whole or not at all, all of them in one write
    /// to the disk; then syncs once if any of them asks for it. When this returns, all that must
    /// be durable is, and with it all that came before.
    ///
    /// # Errors
    ///
    /// [`WalError::TooLarge`]: nothing was written, the log goes on.
    /// [`WalError::Full`] when the next segment found no space, [`WalError::TooManyFiles`] when its
    /// file could not be opened: nothing was written, and the log goes on once there is some, or it
    /// can be. All others are final, and so is a `Full` after which
    /// [`is_poisoned`](Wal::is_poisoned): what the disk now holds of these writes is unknown, and
    /// every later call returns [`WalError::Poisoned`] until the log is opened again.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), WalError> {
        self.check_alive()?;
        let mut bytes = 0;
        let (mut must_sync, mut installs) = (false, false);
        for write in writes {
            if !write.is_empty() {
                let write_bytes = record::write_bytes(write);
                check_size(write_bytes)?;
                bytes += write_bytes;
            }
            installs |= write.install.is_some();
            must_sync |= write.must_sync;
        }
        if 0 < bytes && self.room() < bytes + self.options.reserve_bytes() {
            match self.rotate(bytes) {
                Err(WalError::Full { .. }) if bug!("a-full-volume-is-passed-over") => {
                    return Ok(());
                }
                rotated => rotated?,
            }
        }
        let result = self.commit(writes, must_sync || installs);
        self.poison_on_error(result)?;
        if installs {
            match self.remove_dead() {
                // The writes are durable; files that could not be removed are tried again by the
                // next compaction. An error here would have them written a second time.
                Err(_) if !self.is_poisoned() => {}
                removed => removed?,
            }
        }
        self.reserve_next();
        Ok(())
    }

    /// Starts the log after `mark`, an entry of it that a snapshot stands for. The mark is durable
    /// before anything is removed, and every segment repeats the mark and the hard state it began
    /// with, so nothing is lost with the segments that go. Entries up to the mark may stay on disk
    /// for as long as they share a segment with later ones.
    ///
    /// A mark below the one the log has changes nothing.
    ///
    /// # Errors
    ///
    /// [`WalError::Misfit`] when the log does not hold that entry: nothing was written, the log
    /// goes on. [`WalError::Io`] from a removal: the log is compacted, goes on, and tries the
    /// removal again next time. All others as for [`append`](Wal::append).
    pub fn compact(&mut self, mark: &Mark) -> Result<(), WalError> {
        self.check_alive()?;
        if self.ledger.mark().index <= mark.index && self.ledger.mark() != mark {
            self.ledger.check_compact(mark).map_err(WalError::Misfit)?;
            let bytes = compact_bytes(mark);
            check_size(bytes)?;
            // The reserve is there for this; only the seal must still find room.
            if self.room() < bytes + SECTOR_BYTES {
                self.rotate(bytes)?;
            }
            let result = self.commit_compaction(mark);
            self.poison_on_error(result)?;
        }
        self.remove_dead()
    }

    /// Whose log it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it starts.
    pub fn mark(&self) -> &Mark {
        self.ledger.mark()
    }

    /// The last index it holds; the mark's when it is empty.
    pub fn last(&self) -> Index {
        self.ledger.last()
    }

    /// What its files take on the volume, reserved space included.
    pub fn size_bytes(&self) -> u64 {
        let spare = self.spare.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.ledger.segments().iter().map(|segment| segment.bytes).sum::<u64>() + spare
    }

    /// How many files it has, the reserved one not counted.
    pub fn segment_count(&self) -> usize {
        self.ledger.segments().len()
    }

    /// Whether a failure made the log refuse everything until it is opened again.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// Whether the volume had no space for the next segment when it was tried, which is when the
    /// current one is half full. Writes still succeed until that one is full.
    pub fn is_nearly_full(&self) -> bool {
        self.is_nearly_full
    }

    fn check_alive(&self) -> Result<(), WalError> {
        match &self.poison {
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn poison_on_error<T>(&mut self, result: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(error) = &result {
            self.poison = Some(error.to_string());
        }
        result
    }

    /// What is left of the current segment.
    fn room(&self) -> u64 {
        self.file_bytes.saturating_sub(self.pen.offset)
    }

    fn commit(&mut self, writes: &[Write], must_sync: bool) -> Result<(), WalError> {
        let start = self.pen.offset;
        self.buffer.clear();
        for write in writes.iter().filter(|write| !write.is_empty()) {
            let mut keeps_tail = false;
            if let Some(mark) = &write.install {
                keeps_tail = self.ledger.keeps_tail(mark);
                self.ledger.install(mark, keeps_tail).map_err(WalError::Misfit)?;
            }
            let before_cut = match write.cut_from {
                Some(from) => self.ledger.cut(from).map_err(WalError::Misfit)?,
                None => 0,
            };
            self.ledger.append(&write.entries).map_err(WalError::Misfit)?;
            self.pen.write(&mut self.buffer, write, keeps_tail, before_cut);
            if write.hard_state.is_some() {
                self.hard_state.clone_from(&write.hard_state);
            }
        }
        self.write_buffer(start)?;
        if must_sync { self.sync() } else { Ok(()) }
    }

    fn commit_compaction(&mut self, mark: &Mark) -> Result<(), WalError> {
        let start = self.pen.offset;
        self.buffer.clear();
        self.ledger.compact(mark).map_err(WalError::Misfit)?;
        self.pen.compact(&mut self.buffer, mark);
        self.write_buffer(start)?;
        if bug!("segments-go-before-their-mark-is-durable") {
            return Ok(());
        }
        self.sync()
    }

    /// Writes the buffer at `start`, in one call, with zeros behind it where that pays.
    fn write_buffer(&mut self, start: u64) -> Result<(), WalError> {
        let end = start + self.buffer.len() as u64;
        assert!(end + SECTOR_BYTES <= self.file_bytes, "room was made for the write and the seal");
        if start == end {
            return Ok(());
        }
        if self.zeroed < end {
            self.zeroed = end;
            if self.buffer.len() <= ZERO_GROUP_BYTES_MAX {
                self.zeroed = self.file_bytes.min(end + ZERO_AHEAD_BYTES);
            }
            self.buffer.resize((self.zeroed - start) as usize, 0);
        }
        let written = match write_all(&*self.file, &self.buffer, start) {
            Err(_) if bug!("a-failed-write-is-passed-over") => Ok(()),
            written => written.map_err(|error| WalError::io("write", &self.path, error)),
        };
        if BUFFER_KEEP_BYTES_MAX < self.buffer.capacity() {
            self.buffer = Vec::new();
        }
        written
    }

    fn sync(&mut self) -> Result<(), WalError> {
        if self.pen.synced < self.pen.offset && !bug!("log-is-not-synced") {
            match self.file.sync_data() {
                Err(_) if bug!("a-failed-sync-is-tried-again") => self.file.sync_data(),
                synced => synced,
            }
            .map_err(|error| WalError::io("sync", &self.path, error))?;
            self.pen.synced = self.pen.offset;
        }
        Ok(())
    }

    /// Goes on in a new segment that has room for `need` bytes. The old one is synced before the
    /// new one has a name, and sealed before the new one gets its first record. Where space is
    /// wanting, nothing has happened.
    fn rotate(&mut self, need: u64) -> Result<(), WalError> {
        let synced = self.sync();
        self.poison_on_error(synced)?;

        let base = Base {
            mark: self.ledger.mark().clone(),
            last: self.ledger.last(),
            last_stamp: self.ledger.last_stamp(),
            hard_state: self.hard_state.clone().filter(|_| !bug!("segment-forgets-the-hard-state")),
        };
        let need =
            base_bytes(&base.mark, base.hard_state.as_ref()) + need + self.options.reserve_bytes();
        let wanted = segment::file_bytes(self.options.segment_bytes(), need);
        let path = self.dir.join(SPARE);
        let (file, bytes) = match self.spare.take() {
            Some((file, bytes)) if wanted <= bytes => (file, bytes),
            _ => (self.reserve(wanted)?, wanted),
        };
        let header = SegmentHeader {
            identity: self.identity,
            sequence: self.pen.sequence + 1,
            first: self.ledger.last().next(),
            bytes,
            before_end: self.pen.offset,
            before_crc: self.pen.chain,
        };
        let pen = match segment::begin(&*file, &path, &header, &base) {
            Ok(pen) => pen,
            Err(error) => {
                // Nobody knows of the file yet. If it cannot be removed, the next try does.
                let _ = self.disk.remove(&path);
                return Err(error);
            }
        };
        let switched = self.switch(file, &path, pen, &header);
        self.poison_on_error(switched)
    }

    fn reserve(&mut self, bytes: u64) -> Result<Box<dyn DiskFile>, WalError> {
        let reserved = segment::reserve(&*self.disk, &self.dir.join(SPARE), bytes);
        self.is_nearly_full = matches!(reserved, Err(WalError::Full { .. }));
        reserved
    }

    fn switch(
        &mut self,
        file: Box<dyn DiskFile>,
        spare: &Path,
        mut pen: Pen,
        header: &SegmentHeader,
    ) -> Result<(), WalError> {
        file.sync_all().map_err(|error| WalError::io("sync", spare, error))?;
        pen.synced = pen.offset;
        let path = segment::publish(&*self.disk, &self.dir, &*self.names, spare, header)?;

        let end = self.pen.offset;
        self.buffer.clear();
        self.pen.seal(&mut self.buffer, header.sequence);
        write_all(&*self.file, &self.buffer, end)
            .map_err(|error| WalError::io("write", &self.path, error))?;
        self.sync()?;

        self.ledger.begin_segment(Segment::new(header.sequence, header.first, header.bytes));
        self.file = file;
        self.path = path;
        self.file_bytes = header.bytes;
        self.zeroed = pen.offset;
        self.pen = pen;
        Ok(())
    }

    /// Reserves the next segment's space when this one is half full, so that a full volume is
    /// noticed while there is still room. That it failed shows in `is_nearly_full`.
    fn reserve_next(&mut self) {
        if self.spare.is_some() || self.is_nearly_full || self.file_bytes / 2 < self.room() {
            return;
        }
        let bytes = segment::file_bytes(self.options.segment_bytes(), 0);
        self.spare = self.reserve(bytes).ok().map(|file| (file, bytes));
    }

    /// Removes the oldest segments for as long as nothing in them is part of the log, each for
    /// good before the next, so that no crash leaves a hole.
    fn remove_dead(&mut self) -> Result<(), WalError> {
        while let Some(segment) = self.ledger.retire() {
            // What made it dead may be a write that did not have to be durable.
            if !bug!("segments-go-before-their-mark-is-durable") {
                let synced = self.sync();
                self.poison_on_error(synced)?;
            }
            let path = self.dir.join(segment::name(segment.sequence, segment.first));
            match self.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    self.ledger.reinstate(segment);
                    return Err(WalError::io("remove", &path, error));
                }
                _ => {}
            }
            let synced = self.names.sync().map_err(|error| WalError::io("sync", &self.dir, error));
            self.poison_on_error(synced)?;
            self.is_nearly_full = false;
        }
        Ok(())
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("identity", &self.identity)
            .field("mark", &self.ledger.mark().index)
            .field("last", &self.ledger.last())
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

fn lock_existing(disk: &dyn Disk, dir: &Path) -> Result<DiskLock, WalError> {
    if !recover::exists(disk, dir)? {
        return Err(WalError::Absent { dir: dir.to_owned() });
    }
    take_lock(disk, dir)
}
