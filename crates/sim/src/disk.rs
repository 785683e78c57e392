//! One member's disk: files and directories in memory that fail as real ones do.
//!
//! It promises what [`Disk`] does and no more. Until a file is synced, a loss of power keeps any of
//! its unsynced writes, sector by sector, each sector as it was at the sync or after any later write
//! to it; names likewise until their directory is synced. A sync that fails drops what it should
//! have saved and leaves the memory as if it had not. Log files and the machine's file are on the
//! same disk, so that one loss of power meets both.
//!
//! Time is not here: how long work takes is the world's to say.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_wal::{Disk, DiskDir, DiskFile, DiskLock};

use crate::chance::Chance;

const SECTOR: usize = 512;
const ROOT: u64 = 0;

/// A disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Files that lost a name: gone for good once nothing can bring them back.
    unlinked: BTreeSet<u64>,
    locked: BTreeSet<u64>,
    /// Handles of an earlier life are dead.
    life: u64,
    is_off: bool,
    /// Operations until everything stops.
    fuse: Option<u64>,
    space_bytes_max: u64,
    fails_next: Option<Failing>,
    lies_next: Option<Lie>,
}

/// Which operation fails next, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    Read,
    Write,
    Sync,
}

/// How the disk lies at the next sync: it reports success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// One sector is not written.
    Lost,
    /// One sector is written to another place of the same file.
    Misdirected,
}

#[derive(Debug)]
enum Inode {
    File(Contents),
    Dir(Names),
}

#[derive(Debug, Default)]
struct Contents {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, in their order.
    unsynced: Vec<(usize, Vec<u8>)>,
    handles: usize,
}

#[derive(Debug, Default)]
struct Names {
    cached: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    unsynced: Vec<NameChange>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(String, u64),
    Take(String),
    Move(String, String, u64),
}

impl Default for Platter {
    fn default() -> Self {
        Platter {
            inodes: BTreeMap::from([(ROOT, Inode::Dir(Names::default()))]),
            next_inode: 1,
            unlinked: BTreeSet::new(),
            locked: BTreeSet::new(),
            life: 0,
            is_off: false,
            fuse: None,
            space_bytes_max: u64::MAX,
            fails_next: None,
            lies_next: None,
        }
    }
}

impl SimDisk {
    /// Everything stops after so many operations, in the middle of whatever is under way.
    pub(crate) fn light_fuse(&self, ops: u64) {
        self.platter().fuse = Some(ops);
    }

    /// Ends the process that uses the disk. Its writes stay in memory.
    pub(crate) fn kill(&self) {
        let mut platter = self.platter();
        platter.life += 1;
        platter.is_off = false;
        platter.fuse = None;
        platter.fails_next = None;
        platter.lies_next = None;
        platter.locked.clear();
        for inode in platter.inodes.values_mut() {
            if let Inode::File(contents) = inode {
                contents.handles = 0;
            }
        }
        platter.sweep();
    }

    /// Takes the power away and brings it back. What was not synced survives as chance has it.
    pub(crate) fn lose_power(&self, chance: &mut Chance) {
        self.kill();
        let mut platter = self.platter();
        for inode in platter.inodes.values_mut() {
            // In some lives nothing survives, in some everything does.
            let odds = *chance.pick(&[0, 20, 50, 80, 100]);
            match inode {
                Inode::File(contents) => contents.lose(chance, odds),
                Inode::Dir(names) => names.lose(chance, odds),
            }
        }
        platter.sweep();
    }

    pub(crate) fn set_space(&self, bytes_max: u64) {
        self.platter().space_bytes_max = bytes_max;
    }

    pub(crate) fn fail_next(&self, what: Failing) {
        self.platter().fails_next = Some(what);
    }

    /// Whether a failure that was asked for has not come yet; it is taken back.
    pub(crate) fn clear_failing(&self) -> bool {
        self.platter().fails_next.take().is_some()
    }

    pub(crate) fn lie_next(&self, how: Lie) {
        self.platter().lies_next = Some(how);
    }

    pub(crate) fn clear_lie(&self) -> bool {
        self.platter().lies_next.take().is_some()
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.platter().used_bytes()
    }

    /// Flips one bit somewhere in the files under a directory; its path, if there was any to flip.
    pub(crate) fn rot(&self, chance: &mut Chance) -> Option<u64> {
        let mut platter = self.platter();
        let files: Vec<u64> = platter
            .inodes
            .iter()
            .filter(|(_, inode)| matches!(inode, Inode::File(it) if !it.durable.is_empty()))
            .map(|(id, _)| *id)
            .collect();
        if files.is_empty() {
            return None;
        }
        let file = *chance.pick(&files);
        let Some(Inode::File(contents)) = platter.inodes.get_mut(&file) else { return None };
        // Most of a file is zeros that nobody reads: look for a place that holds something.
        for _ in 0..64 {
            let at = chance.below(contents.durable.len() as u64) as usize;
            if contents.durable[at] != 0 {
                contents.durable[at] ^= 1 << chance.below(8);
                contents.cached.clone_from(&contents.durable);
                contents.unsynced.clear();
                return Some(at as u64);
            }
        }
        None
    }

    /// Takes a directory away with all in it, for good.
    pub(crate) fn lose_dir(&self, path: &Path) {
        let mut platter = self.platter();
        let Ok((dir, name)) = platter.locate(path) else { return };
        let Ok(parent) = platter.dir(dir) else { return };
        parent.durable.remove(&name);
        parent.cached.remove(&name);
    }

    /// A file as storage for the machine's rows.
    pub(crate) fn storage(&self, path: &Path, creates: bool) -> io::Result<SimFile> {
        match self.open_file(path) {
            Err(error) if creates && error.kind() == io::ErrorKind::NotFound => {
                self.create_file(path)
            }
            opened => opened,
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.platter().find(path).is_ok()
    }

    pub(crate) fn create_file(&self, path: &Path) -> io::Result<SimFile> {
        let mut platter = self.op()?;
        let inode = platter.put(path, Inode::File(Contents::default()))?;
        Ok(self.handle(&mut platter, inode))
    }

    fn open_file(&self, path: &Path) -> io::Result<SimFile> {
        let mut platter = self.op()?;
        let inode = platter.find(path)?;
        platter.file(inode)?;
        Ok(self.handle(&mut platter, inode))
    }

    fn handle(&self, platter: &mut Platter, inode: u64) -> SimFile {
        if let Ok(contents) = platter.file(inode) {
            contents.handles += 1;
        }
        SimFile { disk: self.clone(), inode, life: platter.life }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation.
    fn op(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        platter.begin_op(None)?;
        Ok(platter)
    }
}

fn off() -> io::Error {
    io::Error::other("the process or the machine has ended")
}

fn injected() -> io::Error {
    io::Error::other("injected")
}

impl Platter {
    fn begin_op(&mut self, life: Option<u64>) -> io::Result<()> {
        if self.is_off || life.is_some_and(|life| life != self.life) {
            return Err(off());
        }
        match &mut self.fuse {
            Some(0) => {
                self.is_off = true;
                Err(off())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn fails(&mut self, what: Failing) -> bool {
        if self.fails_next == Some(what) {
            self.fails_next = None;
            return true;
        }
        false
    }

    fn used_bytes(&self) -> u64 {
        let used = self.inodes.iter().map(|(id, inode)| match inode {
            Inode::File(contents) if !self.unlinked.contains(id) => contents.cached.len() as u64,
            Inode::File(_) | Inode::Dir(_) => 0,
        });
        used.sum()
    }

    fn dir(&mut self, inode: u64) -> io::Result<&mut Names> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::Dir(names)) => Ok(names),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&mut self, inode: u64) -> io::Result<&mut Contents> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(contents)) => Ok(contents),
            Some(Inode::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<u64> {
        let mut inode = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let name = name.to_string_lossy();
                let names = self.dir(inode)?;
                inode = *names.cached.get(&*name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(inode)
    }

    fn locate(&mut self, path: &Path) -> io::Result<(u64, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    fn put(&mut self, path: &Path, inode: Inode) -> io::Result<u64> {
        let (dir, name) = self.locate(path)?;
        if self.dir(dir)?.cached.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
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
        let inode = *names.cached.get(&from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(target) = names.cached.get(&to).copied() {
            if self.dir(target).is_ok_and(|target| !target.cached.is_empty()) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            self.unlinked.insert(target);
        }
        let names = self.dir(from_dir)?;
        names.cached.remove(&from);
        names.cached.insert(to.clone(), inode);
        names.unsynced.push(NameChange::Move(from, to, inode));
        Ok(())
    }

    fn sync_names(&mut self, dir: u64) -> io::Result<()> {
        let fails = self.fails(Failing::Sync);
        let names = self.dir(dir)?;
        if fails {
            names.unsynced.clear();
            return Err(injected());
        }
        names.durable.clone_from(&names.cached);
        names.unsynced.clear();
        self.sweep();
        Ok(())
    }

    /// Removes files for good that have no name any more, durable ones included, and no handle.
    fn sweep(&mut self) {
        if self.unlinked.is_empty() {
            return;
        }
        let named: BTreeSet<u64> = self
            .inodes
            .values()
            .filter_map(|inode| match inode {
                Inode::Dir(names) => Some(names.cached.values().chain(names.durable.values())),
                Inode::File(_) => None,
            })
            .flatten()
            .copied()
            .collect();
        let cached: BTreeSet<u64> = self
            .inodes
            .values()
            .filter_map(|inode| match inode {
                Inode::Dir(names) => Some(names.cached.values()),
                Inode::File(_) => None,
            })
            .flatten()
            .copied()
            .collect();
        for inode in self.unlinked.clone() {
            let is_open = self.file(inode).is_ok_and(|contents| 0 < contents.handles);
            if cached.contains(&inode) {
                self.unlinked.remove(&inode); // a loss of power brought its name back
            } else if !named.contains(&inode) && !is_open {
                self.inodes.remove(&inode);
                self.unlinked.remove(&inode);
            }
        }
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
        self.op()?.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.op()?;
        let (dir, name) = platter.locate(path)?;
        let names = platter.dir(dir)?;
        let inode = names.cached.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        names.unsynced.push(NameChange::Take(name));
        platter.unlinked.insert(inode);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut platter = self.op()?;
        let inode = platter.find(dir)?;
        Ok(platter.dir(inode)?.cached.keys().cloned().collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.op()?.put(dir, Inode::Dir(Names::default())).map(drop)
    }

    fn restrict_dir(&self, dir: &Path) -> io::Result<Option<u32>> {
        self.op()?.find(dir).map(|_| None)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn DiskDir>> {
        let mut platter = self.op()?;
        let inode = platter.find(dir)?;
        platter.dir(inode)?;
        Ok(Box::new(SimDir { disk: self.clone(), inode, life: platter.life }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let mut platter = self.op()?;
        let inode = match platter.find(path) {
            Ok(inode) => inode,
            Err(_) => platter.put(path, Inode::File(Contents::default()))?,
        };
        if !platter.locked.insert(inode) {
            return Ok(None);
        }
        let lock = SimLock { disk: self.clone(), inode, life: platter.life };
        let lock: Box<dyn Any + Send> = Box::new(lock);
        Ok(Some(lock))
    }
}

struct SimDir {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

impl DiskDir for SimDir {
    fn sync(&self) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.begin_op(Some(self.life))?;
        platter.sync_names(self.inode)
    }
}

struct SimLock {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut platter = self.disk.platter();
        if platter.life == self.life {
            platter.locked.remove(&self.inode);
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut platter = self.disk.platter();
        if platter.life != self.life {
            return;
        }
        if let Ok(contents) = platter.file(self.inode) {
            contents.handles -= 1;
        }
        if platter.unlinked.contains(&self.inode) {
            platter.sweep();
        }
    }
}

impl SimFile {
    fn op(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.disk.platter();
        platter.begin_op(Some(self.life))?;
        Ok(platter)
    }

    fn resize(&self, bytes: u64, shrinks: bool) -> io::Result<()> {
        let mut platter = self.op()?;
        let free = platter.space_bytes_max.saturating_sub(platter.used_bytes());
        let contents = platter.file(self.inode)?;
        if free < bytes.saturating_sub(contents.cached.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if shrinks || contents.cached.len() < bytes as usize {
            contents.cached.resize(bytes as usize, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = self.op()?;
        let fails = platter.fails(Failing::Sync);
        let lie = platter.lies_next;
        let contents = platter.file(self.inode)?;
        if fails {
            contents.unsynced.clear();
            return Err(injected());
        }
        if contents.sync(lie) {
            platter.lies_next = None;
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut platter = self.op()?;
        if platter.fails(Failing::Read) {
            return Err(injected());
        }
        let cached = &platter.file(self.inode)?.cached;
        let from = cached.get(offset as usize..).unwrap_or_default();
        let bytes = from.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&from[..bytes]);
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut platter = self.op()?;
        if platter.fails(Failing::Write) {
            return Err(injected());
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        let grows = platter.file(self.inode)?.cached.len() < end;
        if grows {
            let free = platter.space_bytes_max.saturating_sub(platter.used_bytes());
            let contents = platter.file(self.inode)?;
            if free < (end - contents.cached.len()) as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            contents.cached.resize(end, 0);
        }
        let contents = platter.file(self.inode)?;
        contents.cached[start..end].copy_from_slice(bytes);
        contents.unsynced.push((start, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, false)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, true)
    }

    fn len(&self) -> io::Result<u64> {
        let mut platter = self.op()?;
        Ok(platter.file(self.inode)?.cached.len() as u64)
    }
}

impl redb::StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(self)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.read_at(out, offset)? {
            read if read == out.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        DiskFile::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(data, offset).map(drop)
    }
}

impl Contents {
    /// Makes all writes durable, or all but what the lie keeps back; whether it lied.
    fn sync(&mut self, lie: Option<Lie>) -> bool {
        self.durable.resize(self.cached.len(), 0);
        let mut lied = false;
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            // The file may have been cut since.
            let end = self.durable.len().min(offset + bytes.len());
            if end <= offset {
                continue;
            }
            let bytes = &bytes[..end - offset];
            let lies = lie.filter(|_| !lied && SECTOR <= bytes.len());
            match lies {
                Some(Lie::Lost) => {
                    self.durable[offset + SECTOR..end].copy_from_slice(&bytes[SECTOR..]);
                }
                Some(Lie::Misdirected) => {
                    let elsewhere = (offset / 2) / SECTOR * SECTOR;
                    self.durable[offset + SECTOR..end].copy_from_slice(&bytes[SECTOR..]);
                    self.durable[elsewhere..elsewhere + SECTOR].copy_from_slice(&bytes[..SECTOR]);
                }
                None => self.durable[offset..end].copy_from_slice(bytes),
            }
            lied |= lies.is_some();
        }
        lied
    }

    fn lose(&mut self, chance: &mut Chance, odds: u64) {
        // The length is metadata and may be lost by itself.
        if chance.percent(odds) {
            self.durable.resize(self.cached.len(), 0);
        }
        let mut sectors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, (offset, bytes)) in self.unsynced.iter().enumerate() {
            for sector in offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR) {
                sectors.entry(sector).or_default().push(number);
            }
        }
        let by_page = chance.percent(50);
        let mut page = (usize::MAX, false);
        let writes = std::mem::take(&mut self.unsynced);
        for (sector, touching) in sectors {
            let kept = if by_page {
                if page.0 != sector / 8 {
                    page = (sector / 8, chance.percent(odds));
                }
                if page.1 { touching.len() } else { 0 }
            } else if chance.percent(odds) {
                1 + chance.below(touching.len() as u64) as usize
            } else {
                0
            };
            for &number in &touching[..kept] {
                let (offset, bytes) = &writes[number];
                let start = (sector * SECTOR).max(*offset);
                let end = ((sector + 1) * SECTOR).min(offset + bytes.len()).min(self.durable.len());
                if start < end {
                    self.durable[start..end].copy_from_slice(&bytes[start - offset..end - offset]);
                }
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
                NameChange::Put(name, inode) => {
                    self.durable.insert(name, inode);
                }
                NameChange::Take(name) => {
                    self.durable.remove(&name);
                }
                NameChange::Move(from, to, inode) => {
                    if self.durable.get(&from) == Some(&inode) {
                        self.durable.remove(&from);
                    }
                    self.durable.insert(to, inode);
                }
            }
        }
        self.cached.clone_from(&self.durable);
    }
}
