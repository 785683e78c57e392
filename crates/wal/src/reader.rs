//! The files of a log as they are read: front to back, every byte once, in large blocks. Where the
//! disk lets us, threads of their own read a few blocks ahead of who checks them.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

use bytes::{Bytes, BytesMut};

use crate::disk::{DiskFile, read_all};
use crate::record::SECTOR;
use crate::{Damage, Disk, WalError};

/// How much is read from the disk at once, at the beginning of a file: entries that are kept keep the
/// whole block they are in, and most logs are short.
const BLOCK_BYTES_MIN: u64 = 64 << 10;
/// The same, further on.
pub(crate) const BLOCK_BYTES: u64 = 1 << 20;
/// How many threads read ahead, one block in turn each. Most of what a block costs is memory that was
/// never touched: one thread alone takes longer for it than the disk for the block, or who checks it.
const READERS: usize = 2;
/// How many blocks each of them may have read that were not looked at yet.
const AHEAD_MAX: usize = 4;
/// A shorter log is read before a thread has begun to.
const AHEAD_FROM_BYTES: u64 = 8 << 20;

/// A segment's file while it is read.
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: Box<dyn DiskFile>,
}

impl LogFile {
    pub(crate) fn new(path: PathBuf, bytes: u64, file: Box<dyn DiskFile>) -> Self {
        LogFile { path, bytes, file }
    }

    /// The file, when it has been read.
    pub(crate) fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }

    /// The block at this offset, into the memory of a former one if there is some.
    fn block(&self, offset: u64, spent: Option<BytesMut>) -> io::Result<Bytes> {
        let take = block_bytes(offset).min(self.bytes - offset) as usize;
        let spent = spent.filter(|block| (take..=2 * take).contains(&block.capacity()));
        let mut block = spent.unwrap_or_else(|| BytesMut::zeroed(take));
        block.resize(take, 0);
        read_all(&*self.file, &mut block, offset)?;
        Ok(block.freeze())
    }
}

/// The blocks of all files, in their order.
pub(crate) enum Blocks<'a> {
    /// Each is read when it is asked for.
    Now { files: &'a [LogFile], spent: Option<BytesMut> },
    /// Other threads read them, and the one whose turn it is has the next. Each ends with this, or at the
    /// first that it cannot read.
    Ahead { readers: Vec<Ahead>, turn: usize },
}

/// The way to one who reads ahead.
pub(crate) struct Ahead {
    ready: Receiver<Block>,
    spent: SyncSender<BytesMut>,
}

/// Which file it is of, where in it, and what was read there.
type Block = (usize, u64, io::Result<Bytes>);

impl<'a> Blocks<'a> {
    /// Reads these files, ahead of who asks if that pays and the disk has nothing against it.
    pub(crate) fn of<'scope>(
        files: &'a [LogFile],
        disk: &dyn Disk,
        scope: &'scope Scope<'scope, 'a>,
    ) -> Self {
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if AHEAD_FROM_BYTES <= bytes && disk.reads_ahead() {
            let readers = (0..READERS).map(|turn| Ahead::start(files, turn, scope));
            // A machine that has no more threads has time.
            if let Ok(readers) = readers.collect() {
                return Blocks::Ahead { readers, turn: 0 };
            }
        }
        Blocks::now(files)
    }

    /// Reads these files, each block when it is asked for.
    pub(crate) fn now(files: &'a [LogFile]) -> Self {
        Blocks::Now { files, spent: None }
    }

    /// A block of a file. They must be asked for in their order, and those at a file's end may be left
    /// out.
    fn at(&mut self, number: usize, offset: u64) -> io::Result<Bytes> {
        match self {
            Blocks::Now { files, spent } => files[number].block(offset, spent.take()),
            Blocks::Ahead { readers, turn } => loop {
                let next = readers[*turn].ready.recv();
                *turn = (*turn + 1) % READERS;
                match next {
                    Ok((of, at, block)) if (of, at) == (number, offset) => return block,
                    Ok((of, _, Err(error))) if of < number => return Err(error),
                    Ok((of, at, _)) => assert!(of < number, "{offset} asked for, {at} is next"),
                    Err(_) => unreachable!("the reader goes on to the end or says why not"),
                }
            },
        }
    }

    /// Takes the memory of a block back, if nobody keeps a part of it.
    fn spend(&mut self, block: Bytes) {
        let Ok(block) = block.try_into_mut() else { return };
        match self {
            Blocks::Now { spent, .. } => *spent = Some(block),
            // Who has the next turn may have read all by now, or have enough.
            Blocks::Ahead { readers, turn } => drop(readers[*turn].spent.try_send(block)),
        }
    }
}

impl Ahead {
    /// Has every block of this turn read by another thread.
    fn start<'scope, 'a>(
        files: &'a [LogFile],
        turn: usize,
        scope: &'scope Scope<'scope, 'a>,
    ) -> io::Result<Self> {
        let (sender, ready) = sync_channel(AHEAD_MAX);
        let (spent, spare) = sync_channel(AHEAD_MAX);
        let reading = move || read_ahead(files, turn, &sender, &spare);
        Builder::new().name("log-reader".into()).spawn_scoped(scope, reading)?;
        Ok(Ahead { ready, spent })
    }
}

fn read_ahead(
    files: &[LogFile],
    turn: usize,
    ready: &SyncSender<Block>,
    spent: &Receiver<BytesMut>,
) {
    let places = files.iter().enumerate().flat_map(|(number, file)| {
        let offsets = std::iter::successors(Some(0), |offset| Some(offset + block_bytes(*offset)));
        offsets.take_while(|offset| *offset < file.bytes).map(move |offset| (number, offset))
    });
    for (number, offset) in places.skip(turn).step_by(READERS) {
        let block = files[number].block(offset, spent.try_recv().ok());
        let was_read = block.is_ok();
        if ready.send((number, offset, block)).is_err() || !was_read {
            return;
        }
    }
}

/// How long the block at this offset is, where the file is long enough.
fn block_bytes(offset: u64) -> u64 {
    // From there on each ends at twice where it begins, until they are long enough.
    offset.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES)
}

/// One segment's file, from its front on.
pub(crate) struct Reader<'a, 'b> {
    pub(crate) file: &'a LogFile,
    number: usize,
    blocks: &'a mut Blocks<'b>,
    /// What can be asked for now begins here.
    start: u64,
    block: Bytes,
    /// Read too, and stands behind it.
    rest: Bytes,
    /// How far the file has been read.
    read_bytes: u64,
    report: &'a mut dyn FnMut(u64),
}

impl<'a, 'b> Reader<'a, 'b> {
    /// Reads the file of this number in `blocks`.
    pub(crate) fn new(
        file: &'a LogFile,
        number: usize,
        blocks: &'a mut Blocks<'b>,
        report: &'a mut dyn FnMut(u64),
    ) -> Self {
        let (block, rest) = (Bytes::new(), Bytes::new());
        Reader { file, number, blocks, start: 0, block, rest, read_bytes: 0, report }
    }

    /// These bytes of the file, which must be inside it. What is asked for never begins before what was
    /// asked for last.
    pub(crate) fn bytes(&mut self, offset: u64, bytes: u64) -> Result<&[u8], WalError> {
        let place = self.load(offset, bytes)?;
        Ok(&self.block[place])
    }

    /// The same, sharing memory with others of the block they are in.
    pub(crate) fn shared(&mut self, offset: u64, bytes: u64) -> Result<Bytes, WalError> {
        let place = self.load(offset, bytes)?;
        Ok(self.block.slice(place))
    }

    /// As much as is at hand from there on; a sector, if there is no more.
    pub(crate) fn at_hand(&mut self, offset: u64) -> Result<&[u8], WalError> {
        let place = self.load(offset, SECTOR as u64)?;
        Ok(&self.block[place.start..])
    }

    /// Damage of this file.
    pub(crate) fn damaged(&self, offset: u64, damage: Damage) -> WalError {
        WalError::damaged(&self.file.path, offset, damage)
    }

    /// Reads until these bytes are in one block; says where in it they are.
    fn load(&mut self, offset: u64, bytes: u64) -> Result<Range<usize>, WalError> {
        assert!(offset + bytes <= self.file.bytes, "lengths are checked before they are read");
        assert!(self.start <= offset, "a log is read front to back");
        while self.end() <= offset {
            let next = self.next()?;
            self.start = self.end();
            let used = std::mem::replace(&mut self.block, next);
            self.blocks.spend(used);
        }
        if self.end() < offset + bytes {
            // They go over a block's end, as one record in many does: a copy.
            let mut joined = BytesMut::with_capacity(bytes as usize);
            joined.extend_from_slice(&self.block[(offset - self.start) as usize..]);
            while joined.len() < bytes as usize {
                let mut next = self.next()?;
                let part = next.split_to(next.len().min(bytes as usize - joined.len()));
                joined.extend_from_slice(&part);
                self.rest = next;
            }
            (self.start, self.block) = (offset, joined.freeze());
        }
        let start = (offset - self.start) as usize;
        Ok(start..start + bytes as usize)
    }

    fn end(&self) -> u64 {
        self.start + self.block.len() as u64
    }

    /// What follows the block.
    fn next(&mut self) -> Result<Bytes, WalError> {
        if !self.rest.is_empty() {
            return Ok(std::mem::take(&mut self.rest));
        }
        let block = self.blocks.at(self.number, self.read_bytes);
        let block = block.map_err(|error| WalError::io("read", &self.file.path, error))?;
        self.read_bytes += block.len() as u64;
        (self.report)(self.read_bytes);
        Ok(block)
    }
}
