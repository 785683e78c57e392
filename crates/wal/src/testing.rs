//! A disk in memory that fails like a real one, for tests of what is built on [`Disk`], and for
//! simulations.
//!
//! It promises exactly what [`Disk`] does. What was written since a file's last sync may be lost,
//! in part and in any order, when the power goes: sector by sector or page by page, each of them
//! as it was at the sync or after any later write. The same holds for names since the last sync of
//! their directory. A sync that fails drops what it should have made durable, and leaves the
//! memory looking as if it had not: so do real systems.
//!
//! All chance comes from the seed of a restart; two runs of the same calls are the same. Time is not
//! here: how long work takes is for whoever simulates to say.

mod chance;
mod forge;
mod open;
mod platter;

pub use chance::Chance;
pub use forge::forge;
pub use open::SimFile;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::disk::{Disk, DiskDir, DiskFile, DiskLock};
use open::{SimDir, SimLock};
use platter::Platter;

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an I/O error and has no effect; a sync loses what it should have saved.
    Error,
    /// It fails for want of space.
    Full,
    /// A read or write does only the first half, and says so. Others are not touched.
    Short,
    /// It fails once as a system call does that a signal interrupts. Only reads and writes.
    Interrupted,
    /// It happens in memory, and the machine dies. All fails until
    /// [`restart`](SimDisk::restart).
    PowerLoss,
    /// It does not happen any more, nor does anything after it, until [`kill`](SimDisk::kill) or
    /// [`restart`](SimDisk::restart).
    End,
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read of a file.
    Read,
    /// A write to one.
    Write,
    /// A sync of a file or directory.
    Sync,
}

/// How a disk lies at a sync of a file: it reports success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// One sector is not written.
    Lost,
    /// One sector is written to another place of the same file.
    Misdirected,
}

/// What was asked for and has happened by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// An operation of this kind has failed.
    Failed(Kind),
    /// The disk has lied.
    Lied(Lie),
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Clone)]
struct World {
    platter: Platter,
    locked: BTreeSet<u64>,
    /// Handles of an earlier life are dead.
    life: u64,
    is_off: bool,
    op_count: u64,
    faults: BTreeMap<u64, Fault>,
    fails_next: Option<Kind>,
    lies_next: Option<Lie>,
    happened: Vec<Happened>,
    lies_count: u64,
    space_bytes_max: u64,
    is_out_of_files: bool,
}

impl Default for World {
    fn default() -> Self {
        World {
            platter: Platter::default(),
            locked: BTreeSet::new(),
            life: 0,
            is_off: false,
            op_count: 0,
            faults: BTreeMap::new(),
            fails_next: None,
            lies_next: None,
            happened: Vec::new(),
            lies_count: 0,
            space_bytes_max: u64::MAX,
            is_out_of_files: false,
        }
    }
}

impl SimDisk {
    /// An empty disk, with a root directory.
    pub fn new() -> Self {
        SimDisk::default()
    }

    /// A disk of its own with the same contents.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut world = self.world().clone();
        world.locked.clear();
        world.platter.close_all();
        world.life += 1;
        SimDisk(Arc::new(Mutex::new(world)))
    }

    /// How many operations there were since the disk was made.
    pub fn op_count(&self) -> u64 {
        self.world().op_count
    }

    /// Lays a fault in the way of an operation: 0 is the next one.
    pub fn fail_in(&self, ops: u64, fault: Fault) {
        let mut world = self.world();
        let op = world.op_count + ops;
        world.faults.insert(op, fault);
    }

    /// The next operation of a kind fails, whenever it comes.
    pub fn fail_next(&self, kind: Kind) {
        self.world().fails_next = Some(kind);
    }

    /// The disk lies at the next sync of a file that leaves something to lie about.
    pub fn lie_next(&self, lie: Lie) {
        self.world().lies_next = Some(lie);
    }

    /// Takes all faults that did not happen yet back.
    pub fn clear_faults(&self) {
        self.world().clear_faults();
    }

    /// What of [`fail_next`](SimDisk::fail_next) and [`lie_next`](SimDisk::lie_next) has happened since
    /// this was asked last.
    pub fn take_happened(&self) -> Vec<Happened> {
        std::mem::take(&mut self.world().happened)
    }

    /// How many syncs have lied since the disk was made.
    pub fn lies_count(&self) -> u64 {
        self.world().lies_count
    }

    /// How many bytes all files may have together, from now on.
    pub fn set_space(&self, bytes_max: u64) {
        self.world().space_bytes_max = bytes_max;
    }

    /// Whether nothing more can be opened, as for a process that has as many files open as it may
    /// have, from now on.
    pub fn set_out_of_files(&self, is_out_of_files: bool) {
        self.world().is_out_of_files = is_out_of_files;
    }

    /// The bytes all files have together.
    pub fn used_bytes(&self) -> u64 {
        self.world().platter.used_bytes()
    }

    /// Whether the machine died and was not restarted.
    pub fn is_off(&self) -> bool {
        self.world().is_off
    }

    /// Ends the process that uses the disk: its locks and handles are gone, its writes are not.
    pub fn kill(&self) {
        let mut world = self.world();
        world.locked.clear();
        world.life += 1;
        world.is_off = false;
        world.clear_faults();
        world.platter.close_all();
    }

    /// Takes the power away and brings it back. What was not synced survives as chance has it.
    pub fn restart(&self, seed: u64) {
        self.kill();
        self.world().platter.lose(&mut Chance::new(seed));
    }

    /// Flips a bit in one of the files, durably, wherever the seed says. Whether there was any to flip.
    pub fn rot(&self, seed: u64) -> bool {
        self.world().platter.rot(&mut Chance::new(seed))
    }

    /// Changes a file behind everyone's back, durably.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn edit(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let node = world.platter.find(path.as_ref()).expect("the file is there");
        world.platter.file(node).expect("it is a file").edit(change);
    }

    /// What a file holds.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut world = self.world();
        let node = world.platter.find(path.as_ref())?;
        Ok(world.platter.file(node)?.cached.clone())
    }

    /// Whether there is a file or directory of this name.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.world().platter.find(path.as_ref()).is_ok()
    }

    /// Makes a file out of nothing, durably, or gives it other contents.
    ///
    /// # Errors
    ///
    /// `NotFound` when its directory is not there.
    pub fn put(&self, path: impl AsRef<Path>, bytes: Vec<u8>) -> io::Result<()> {
        self.world().platter.put(path.as_ref(), bytes)
    }

    /// Removes a file, or a directory with all in it, without a trace, durably.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn destroy(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.world().platter.destroy(path.as_ref())
    }

    /// Gives a directory other mode bits.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn set_mode(&self, dir: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let mut world = self.world();
        let node = world.platter.find(dir.as_ref())?;
        world.platter.dir(node)?.mode = mode;
        Ok(())
    }

    /// Makes a file as [`Disk::create`] does, for whoever needs its type.
    ///
    /// # Errors
    ///
    /// Those of [`Disk::create`].
    pub fn create_file(&self, path: &Path) -> io::Result<SimFile> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = world.platter.create_file(path)?;
            Ok(self.handle(world, node))
        })
    }

    /// Opens a file as [`Disk::open`] does, for whoever needs its type.
    ///
    /// # Errors
    ///
    /// Those of [`Disk::open`].
    pub fn open_file(&self, path: &Path) -> io::Result<SimFile> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = world.platter.find(path)?;
            world.platter.file(node)?;
            Ok(self.handle(world, node))
        })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and does it, unless a fault is in its way.
    fn op<T>(&self, act: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        match world.begin_op(None)? {
            Some(Fault::Error | Fault::Full | Fault::End) => {
                unreachable!("begin_op returns these as errors")
            }
            Some(Fault::PowerLoss) => {
                let done = act(&mut world);
                world.is_off = true;
                drop(world);
                // Only now: locks and files ask for the world as they go.
                drop(done);
                Err(off())
            }
            Some(Fault::Short | Fault::Interrupted) | None => act(&mut world),
        }
    }

    fn handle(&self, world: &mut World, node: u64) -> SimFile {
        world.platter.open_handle(node);
        SimFile { disk: self.clone(), node, life: world.life }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world();
        f.debug_struct("SimDisk").field("op_count", &world.op_count).finish_non_exhaustive()
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

fn injected() -> io::Error {
    io::Error::other("injected")
}

impl World {
    fn begin_op(&mut self, life: Option<u64>) -> io::Result<Option<Fault>> {
        if self.is_off || life.is_some_and(|life| life != self.life) {
            return Err(off());
        }
        let fault = match self.faults.is_empty() {
            true => None,
            false => self.faults.remove(&self.op_count),
        };
        self.op_count += 1;
        match fault {
            Some(Fault::Error) => Err(injected()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::End) => {
                self.is_off = true;
                Err(off())
            }
            other => Ok(other),
        }
    }

    /// Fails if the next operation of this kind is to.
    fn check_next(&mut self, kind: Kind) -> io::Result<()> {
        if self.fails_next != Some(kind) {
            return Ok(());
        }
        self.fails_next = None;
        self.happened.push(Happened::Failed(kind));
        Err(injected())
    }

    fn clear_faults(&mut self) {
        self.faults.clear();
        self.fails_next = None;
        self.lies_next = None;
    }

    /// Whether one more file or directory can be opened.
    fn spare_descriptor(&self) -> io::Result<()> {
        match self.is_out_of_files {
            true => Err(Errno::MFILE.into()),
            false => Ok(()),
        }
    }

    /// Whether a file may become so long.
    fn check_space(&mut self, node: u64, bytes: usize) -> io::Result<()> {
        let grows = bytes.saturating_sub(self.platter.file(node)?.cached.len()) as u64;
        if grows != 0 && self.space_bytes_max.saturating_sub(self.platter.used_bytes()) < grows {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.create_file(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.open_file(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|world| world.platter.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.op(|world| world.platter.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = world.platter.find(dir)?;
            Ok(world.platter.dir(node)?.cached.keys().cloned().collect())
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.op(|world| world.platter.create_dir(dir).map(drop))
    }

    fn restrict_dir(&self, dir: &Path) -> io::Result<Option<u32>> {
        self.op(|world| {
            let node = world.platter.find(dir)?;
            let names = world.platter.dir(node)?;
            let mode = names.mode;
            names.mode &= 0o700;
            Ok((mode & 0o077 != 0).then_some(mode))
        })
    }

    /// Not counted as an operation: without power there is no log that could ask for it.
    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn DiskDir>> {
        let mut world = self.world();
        if world.is_off {
            return Err(off());
        }
        world.spare_descriptor()?;
        let node = world.platter.find(dir)?;
        world.platter.dir(node)?;
        Ok(Box::new(SimDir { disk: self.clone(), node, life: world.life }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = match world.platter.find(path) {
                Ok(node) => node,
                Err(_) => world.platter.create_file(path)?,
            };
            if !world.locked.insert(node) {
                return Ok(None);
            }
            let lock = SimLock { disk: self.clone(), node, life: world.life };
            let lock: Box<dyn Any + Send> = Box::new(lock);
            Ok(Some(lock))
        })
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.op(|world| {
            world.spare_descriptor()?;
            Ok(world.platter.find(path).is_ok_and(|node| world.locked.contains(&node)))
        })
    }
}
