//! A disk in memory that fails like a real one, for tests of what is built on [`Disk`].
//!
//! It promises exactly what [`Disk`] does. What was written since a file's last sync may be lost,
//! in part and in any order, when the power goes: sector by sector or page by page, each of them
//! as it was at the sync or after any later write. The same holds for names since the last sync of
//! their directory. A sync that fails drops what it should have made durable, and leaves the
//! memory looking as if it had not: so do real systems.
//!
//! All chance comes from the seed of a restart; two runs of the same calls are the same.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use quorate_types::Mark;

use crate::disk::{Disk, DiskDir, DiskFile, DiskLock};
use crate::record::{Base, Pen, SegmentHeader};
use crate::{Identity, segment};

const SECTOR: usize = 512;
const ROOT: u64 = 0;

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
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Clone)]
struct World {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    locked: BTreeSet<u64>,
    /// Handles of an earlier life are dead.
    life: u64,
    is_off: bool,
    op_count: u64,
    faults: BTreeMap<u64, Fault>,
    space_bytes_max: u64,
    is_out_of_files: bool,
}

#[derive(Clone)]
enum Node {
    File(Contents),
    Dir(Names),
}

#[derive(Clone, Default)]
struct Contents {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// By sector, what it was after each write since the last sync.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Takes no space, but comes back if its removal does not last.
    is_removed: bool,
}

#[derive(Clone, Default)]
struct Names {
    cached: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    unsynced: Vec<NameChange>,
    mode: u32,
}

#[derive(Clone)]
enum NameChange {
    Put(String, u64),
    Take(String),
    Move(String, String, u64),
}

impl Default for World {
    fn default() -> Self {
        let root = Node::Dir(Names { mode: 0o700, ..Names::default() });
        World {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_node: 1,
            locked: BTreeSet::new(),
            life: 0,
            is_off: false,
            op_count: 0,
            faults: BTreeMap::new(),
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

    /// Takes all faults that did not happen yet back.
    pub fn clear_faults(&self) {
        self.world().faults.clear();
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
        self.world().used_bytes()
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
        world.faults.clear();
    }

    /// Takes the power away and brings it back. What was not synced survives as chance has it.
    pub fn restart(&self, seed: u64) {
        self.kill();
        let mut chance = Chance::new(seed);
        for node in self.world().nodes.values_mut() {
            // In some lives nothing survives, in some everything does.
            let odds = [0, 20, 50, 80, 100][chance.below(5) as usize];
            match node {
                Node::File(contents) => contents.lose(&mut chance, odds),
                Node::Dir(names) => names.lose(&mut chance, odds),
            }
        }
    }

    /// Changes a file behind everyone's back, durably.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn edit(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let node = world.find(path.as_ref()).expect("the file is there");
        let contents = world.file(node).expect("it is a file");
        change(&mut contents.cached);
        contents.durable.clone_from(&contents.cached);
        contents.unsynced.clear();
    }

    /// What a file holds.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut world = self.world();
        let node = world.find(path.as_ref())?;
        Ok(world.file(node)?.cached.clone())
    }

    /// Makes a file out of nothing, durably, or gives it other contents.
    ///
    /// # Errors
    ///
    /// `NotFound` when its directory is not there.
    pub fn put(&self, path: impl AsRef<Path>, bytes: Vec<u8>) -> io::Result<()> {
        let mut world = self.world();
        let (dir, name) = world.locate(path.as_ref())?;
        let contents = Contents { durable: bytes.clone(), cached: bytes, ..Contents::default() };
        let node = world.add(Node::File(contents));
        let names = world.dir(dir)?;
        names.cached.insert(name.clone(), node);
        names.durable.insert(name, node);
        Ok(())
    }

    /// Removes a file without a trace, durably.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn destroy(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut world = self.world();
        let (dir, name) = world.locate(path.as_ref())?;
        let names = world.dir(dir)?;
        names.durable.remove(&name);
        names.cached.remove(&name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives a directory other mode bits.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn set_mode(&self, dir: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let mut world = self.world();
        let node = world.find(dir.as_ref())?;
        world.dir(node)?.mode = mode;
        Ok(())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and does it, unless a fault is in its way.
    fn op<T>(&self, act: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        match world.begin_op(None)? {
            Some(Fault::Error | Fault::Full) => unreachable!("begin_op returns these as errors"),
            Some(Fault::PowerLoss) => {
                let done = act(&mut world);
                world.is_off = true;
                drop(world);
                // Only now: a lock asks for the world as it goes.
                drop(done);
                Err(off())
            }
            Some(Fault::Short | Fault::Interrupted) | None => act(&mut world),
        }
    }

    fn handle(&self, world: &World, node: u64) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), node, life: world.life })
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

impl World {
    fn begin_op(&mut self, life: Option<u64>) -> io::Result<Option<Fault>> {
        if self.is_off || life.is_some_and(|life| life != self.life) {
            return Err(off());
        }
        let fault = self.faults.remove(&self.op_count);
        self.op_count += 1;
        match fault {
            Some(Fault::Error) => Err(io::Error::other("injected")),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            other => Ok(other),
        }
    }

    /// Whether one more file or directory can be opened.
    fn spare_descriptor(&self) -> io::Result<()> {
        match self.is_out_of_files {
            true => Err(Errno::MFILE.into()),
            false => Ok(()),
        }
    }

    fn add(&mut self, node: Node) -> u64 {
        let number = self.next_node;
        self.next_node += 1;
        self.nodes.insert(number, node);
        number
    }

    fn used_bytes(&self) -> u64 {
        let files = self.nodes.values().map(|node| match node {
            Node::File(contents) if !contents.is_removed => contents.cached.len() as u64,
            Node::File(_) | Node::Dir(_) => 0,
        });
        files.sum()
    }

    fn dir(&mut self, node: u64) -> io::Result<&mut Names> {
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&mut self, node: u64) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(contents)) => Ok(contents),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<u64> {
        let mut node = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_string_lossy();
                let names = self.dir(node)?;
                node = *names.cached.get(&*name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    /// The directory a path is in, and its name there.
    fn locate(&mut self, path: &Path) -> io::Result<(u64, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    fn put(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        let (dir, name) = self.locate(path)?;
        if self.dir(dir)?.cached.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = self.add(node);
        let names = self.dir(dir)?;
        names.cached.insert(name.clone(), number);
        names.unsynced.push(NameChange::Put(name, number));
        Ok(number)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from) = self.locate(from)?;
        let (to_dir, to) = self.locate(to)?;
        if from_dir != to_dir {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let names = self.dir(from_dir)?;
        let node = *names.cached.get(&from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(target) = names.cached.get(&to).copied()
            && self.dir(target).is_ok_and(|target| !target.cached.is_empty())
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let names = self.dir(from_dir)?;
        names.cached.remove(&from);
        names.cached.insert(to.clone(), node);
        names.unsynced.push(NameChange::Move(from, to, node));
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = world.put(path, Node::File(Contents::default()))?;
            Ok(self.handle(world, node))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = world.find(path)?;
            world.file(node)?;
            Ok(self.handle(world, node))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|world| world.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.op(|world| {
            let (dir, name) = world.locate(path)?;
            let names = world.dir(dir)?;
            let node = names.cached.remove(&name).ok_or(io::ErrorKind::NotFound)?;
            names.unsynced.push(NameChange::Take(name));
            world.file(node)?.is_removed = true;
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = world.find(dir)?;
            Ok(world.dir(node)?.cached.keys().cloned().collect())
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.op(|world| {
            world.put(dir, Node::Dir(Names { mode: 0o700, ..Names::default() })).map(drop)
        })
    }

    fn restrict_dir(&self, dir: &Path) -> io::Result<Option<u32>> {
        self.op(|world| {
            let node = world.find(dir)?;
            let names = world.dir(node)?;
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
        let node = world.find(dir)?;
        world.dir(node)?;
        Ok(Box::new(SimDir { disk: self.clone(), node, life: world.life }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.op(|world| {
            world.spare_descriptor()?;
            let node = match world.find(path) {
                Ok(node) => node,
                Err(_) => world.put(path, Node::File(Contents::default()))?,
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
            Ok(world.find(path).is_ok_and(|node| world.locked.contains(&node)))
        })
    }
}

struct SimDir {
    disk: SimDisk,
    node: u64,
    life: u64,
}

impl DiskDir for SimDir {
    fn sync(&self) -> io::Result<()> {
        let file = SimFile { disk: self.disk.clone(), node: self.node, life: self.life };
        file.op(|world, _| {
            let names = world.dir(self.node)?;
            names.durable.clone_from(&names.cached);
            names.unsynced.clear();
            Ok(())
        })
    }
}

struct SimLock {
    disk: SimDisk,
    node: u64,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.life == self.life {
            world.locked.remove(&self.node);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    node: u64,
    life: u64,
}

impl SimFile {
    fn op<T>(&self, act: impl FnOnce(&mut World, Option<Fault>) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.disk.world();
        let fault = world.begin_op(Some(self.life))?;
        let done = act(&mut world, fault);
        if fault == Some(Fault::PowerLoss) {
            world.is_off = true;
            return Err(off());
        }
        done
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let fault = world.begin_op(Some(self.life));
        let contents = world.file(self.node)?;
        match fault {
            Ok(Some(Fault::PowerLoss)) => {
                world.is_off = true;
                Err(off())
            }
            Ok(_) => {
                // Only what changed: pages that a failed sync dropped are clean, and stay dropped.
                contents.durable.resize(contents.cached.len(), 0);
                for sector in std::mem::take(&mut contents.unsynced).into_keys() {
                    contents.settle(sector, None);
                }
                Ok(())
            }
            Err(error) => {
                contents.unsynced.clear();
                Err(error)
            }
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.op(|world, fault| {
            if fault == Some(Fault::Interrupted) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let cached = &world.file(self.node)?.cached;
            let from = cached.get(offset as usize..).unwrap_or_default();
            let mut bytes = from.len().min(buffer.len());
            if fault == Some(Fault::Short) {
                bytes = bytes.div_ceil(2);
            }
            buffer[..bytes].copy_from_slice(&from[..bytes]);
            Ok(bytes)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.op(|world, fault| {
            if fault == Some(Fault::Interrupted) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let bytes = match fault {
                Some(Fault::Short) => &bytes[..bytes.len().div_ceil(2)],
                _ => bytes,
            };
            let (start, end) = (offset as usize, offset as usize + bytes.len());
            let free = world.space_bytes_max.saturating_sub(world.used_bytes());
            let contents = world.file(self.node)?;
            if free < end.saturating_sub(contents.cached.len()) as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if contents.cached.len() < end {
                contents.cached.resize(end, 0);
            }
            contents.cached[start..end].copy_from_slice(bytes);
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                let version = contents.sector(sector);
                contents.unsynced.entry(sector).or_default().push(version);
            }
            Ok(bytes.len())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.op(|world, _| {
            let free = world.space_bytes_max.saturating_sub(world.used_bytes());
            let contents = world.file(self.node)?;
            if free < bytes.saturating_sub(contents.cached.len() as u64) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if contents.cached.len() < bytes as usize {
                contents.cached.resize(bytes as usize, 0);
            }
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.op(|world, _| {
            let contents = world.file(self.node)?;
            contents.cached.resize(bytes as usize, 0);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.op(|world, _| Ok(world.file(self.node)?.cached.len() as u64))
    }
}

impl Contents {
    fn sector(&self, number: usize) -> Vec<u8> {
        let end = self.cached.len().min((number + 1) * SECTOR);
        self.cached[number * SECTOR..end].to_vec()
    }

    /// Makes a sector durable: as it is, or as it was.
    fn settle(&mut self, number: usize, version: Option<&[u8]>) {
        let start = number * SECTOR;
        let end = self.durable.len().min(start + SECTOR);
        if end <= start {
            return;
        }
        let version = version.unwrap_or(&self.cached[start..end]);
        let bytes = version.len().min(end - start);
        self.durable[start..start + bytes].copy_from_slice(&version[..bytes]);
    }

    fn lose(&mut self, chance: &mut Chance, odds: u64) {
        self.is_removed = false;
        // The length is metadata and may be lost by itself.
        if chance.percent(odds) {
            self.durable.resize(self.cached.len(), 0);
        }
        let by_page = chance.percent(50);
        let mut page = (usize::MAX, false);
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            if by_page {
                if page.0 != sector / 8 {
                    page = (sector / 8, chance.percent(odds));
                }
                if page.1 {
                    self.settle(sector, versions.last().map(Vec::as_slice));
                }
            } else if chance.percent(odds) {
                let version = &versions[chance.below(versions.len() as u64) as usize];
                self.settle(sector, Some(version));
            }
        }
        self.cached.clone_from(&self.durable);
    }
}

impl Names {
    fn lose(&mut self, chance: &mut Chance, odds: u64) {
        for change in std::mem::take(&mut self.unsynced) {
            if !chance.percent(odds) {
                continue;
            }
            match change {
                NameChange::Put(name, node) => {
                    self.durable.insert(name, node);
                }
                NameChange::Take(name) => {
                    self.durable.remove(&name);
                }
                NameChange::Move(from, to, node) => {
                    if self.durable.get(&from) == Some(&node) {
                        self.durable.remove(&from);
                    }
                    self.durable.insert(to, node);
                }
            }
        }
        self.cached.clone_from(&self.durable);
    }
}

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

/// A stream of numbers from a seed (splitmix64), for tests.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Yes, so many times in a hundred.
    pub fn percent(&mut self, odds: u64) -> bool {
        self.below(100) < odds
    }
}
