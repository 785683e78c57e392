//! What a simulated disk holds: what the process sees of files and names, what of it is durable, and
//! what happened in between, of which a loss of power keeps what chance likes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::{Chance, Lie};

pub(super) const SECTOR: usize = 512;
/// A page of the memory that files are kept in, in sectors.
const PAGE_SECTORS: usize = 8;
const ROOT: u64 = 0;

/// All files and directories, by number. What no name leads to any more is gone.
#[derive(Clone)]
pub(super) struct Platter {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    /// Files that lost a name: gone for good once nothing can bring them back.
    unlinked: BTreeSet<u64>,
}

#[derive(Clone)]
enum Node {
    File(Contents),
    Dir(Names),
}

#[derive(Clone, Default)]
pub(super) struct Contents {
    pub(super) cached: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in their order.
    unsynced: Vec<Change>,
    /// A sync failed: memory has what neither the disk nor `unsynced` has.
    is_dropped: bool,
    handles: usize,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    /// Everything from here on was cut off.
    Cut(usize),
}

#[derive(Clone, Default)]
pub(super) struct Names {
    pub(super) cached: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    unsynced: Vec<NameChange>,
    pub(super) mode: u32,
}

#[derive(Clone)]
enum NameChange {
    Put(String, u64),
    Take(String),
    Move(String, String, u64),
}

impl Default for Platter {
    fn default() -> Self {
        let root = Node::Dir(Names { mode: 0o700, ..Names::default() });
        Platter { nodes: BTreeMap::from([(ROOT, root)]), next_node: 1, unlinked: BTreeSet::new() }
    }
}

impl Platter {
    pub(super) fn used_bytes(&self) -> u64 {
        let used = self.nodes.iter().map(|(number, node)| match node {
            Node::File(contents) if !self.unlinked.contains(number) => contents.cached.len() as u64,
            Node::File(_) | Node::Dir(_) => 0,
        });
        used.sum()
    }

    pub(super) fn dir(&mut self, node: u64) -> io::Result<&mut Names> {
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file(&mut self, node: u64) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(contents)) => Ok(contents),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn find(&mut self, path: &Path) -> io::Result<u64> {
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
    pub(super) fn locate(&mut self, path: &Path) -> io::Result<(u64, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        self.create(path, Node::File(Contents::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<u64> {
        self.create(path, Node::Dir(Names { mode: 0o700, ..Names::default() }))
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<u64> {
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

    fn add(&mut self, node: Node) -> u64 {
        let number = self.next_node;
        self.next_node += 1;
        self.nodes.insert(number, node);
        number
    }

    /// A file out of nothing, or in place of another, durably.
    pub(super) fn put(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (dir, name) = self.locate(path)?;
        let contents = Contents { durable: bytes.clone(), cached: bytes, ..Contents::default() };
        let node = self.add(Node::File(contents));
        let names = self.dir(dir)?;
        names.durable.insert(name.clone(), node);
        if let Some(before) = names.cached.insert(name, node) {
            self.unlinked.insert(before);
        }
        Ok(())
    }

    /// Takes a file, or a directory with all in it, away durably.
    pub(super) fn destroy(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.locate(path)?;
        let names = self.dir(dir)?;
        names.durable.remove(&name);
        names.cached.remove(&name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.locate(path)?;
        let node = *self.dir(dir)?.cached.get(&name).ok_or(io::ErrorKind::NotFound)?;
        self.file(node)?;
        let names = self.dir(dir)?;
        names.cached.remove(&name);
        names.unsynced.push(NameChange::Take(name));
        self.unlinked.insert(node);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from) = self.locate(from)?;
        let (to_dir, to) = self.locate(to)?;
        if from_dir != to_dir {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let names = self.dir(from_dir)?;
        let node = *names.cached.get(&from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(target) = names.cached.get(&to).copied() {
            if self.dir(target).is_ok_and(|target| !target.cached.is_empty()) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            self.unlinked.insert(target);
        }
        let names = self.dir(from_dir)?;
        names.cached.remove(&from);
        names.cached.insert(to.clone(), node);
        names.unsynced.push(NameChange::Move(from, to, node));
        Ok(())
    }

    pub(super) fn sync_names(&mut self, dir: u64) -> io::Result<()> {
        let names = self.dir(dir)?;
        names.durable.clone_from(&names.cached);
        names.unsynced.clear();
        self.sweep();
        Ok(())
    }

    /// What a sync of a file or directory should have saved is not saved, and memory looks as if it
    /// were.
    pub(super) fn drop_unsynced(&mut self, node: u64) {
        match self.nodes.get_mut(&node) {
            Some(Node::File(contents)) => {
                contents.is_dropped |= !contents.unsynced.is_empty();
                contents.unsynced.clear();
            }
            Some(Node::Dir(names)) => names.unsynced.clear(),
            None => {}
        }
    }

    pub(super) fn open_handle(&mut self, node: u64) {
        if let Ok(contents) = self.file(node) {
            contents.handles += 1;
        }
    }

    pub(super) fn close_handle(&mut self, node: u64) {
        if let Ok(contents) = self.file(node) {
            contents.handles -= 1;
        }
        if self.unlinked.contains(&node) {
            self.sweep();
        }
    }

    pub(super) fn close_all(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(contents) = node {
                contents.handles = 0;
            }
        }
        self.sweep();
    }

    /// What was not synced survives as chance has it.
    pub(super) fn lose(&mut self, chance: &mut Chance) {
        for node in self.nodes.values_mut() {
            // In some lives nothing survives, in some everything does.
            let odds = [0, 20, 50, 80, 100][chance.below(5) as usize];
            match node {
                Node::File(contents) => contents.lose(chance, odds),
                Node::Dir(names) => names.lose(chance, odds),
            }
        }
        self.sweep();
    }

    /// Flips one bit of one file; whether there was any to flip.
    pub(super) fn rot(&mut self, chance: &mut Chance) -> bool {
        let holds = |node: &&mut Node| matches!(node, Node::File(it) if !it.durable.is_empty());
        let files = self.nodes.values_mut().filter(holds).count() as u64;
        if files == 0 {
            return false;
        }
        let which = chance.below(files) as usize;
        let Some(Node::File(contents)) = self.nodes.values_mut().filter(holds).nth(which) else {
            return false;
        };
        // Most of a file is zeros that nobody reads: look for a place that holds something.
        for _ in 0..64 {
            let at = chance.below(contents.durable.len() as u64) as usize;
            if contents.durable[at] != 0 {
                contents.durable[at] ^= 1 << chance.below(8);
                contents.forget();
                return true;
            }
        }
        false
    }

    /// Removes files for good that have no name any more, durable ones included, and no handle.
    fn sweep(&mut self) {
        if self.unlinked.is_empty() {
            return;
        }
        let (mut named, mut cached) = (BTreeSet::new(), BTreeSet::new());
        for node in self.nodes.values() {
            if let Node::Dir(names) = node {
                cached.extend(names.cached.values().copied());
                named.extend(names.durable.values().copied());
                // A loss of power may keep that it got a name, and not that it lost it.
                named.extend(names.unsynced.iter().filter_map(|change| match change {
                    NameChange::Put(_, node) | NameChange::Move(_, _, node) => Some(*node),
                    NameChange::Take(_) => None,
                }));
            }
        }
        for node in self.unlinked.clone() {
            let is_open = self.file(node).is_ok_and(|contents| 0 < contents.handles);
            if cached.contains(&node) {
                self.unlinked.remove(&node); // a loss of power brought its name back
            } else if !named.contains(&node) && !is_open {
                self.nodes.remove(&node);
                self.unlinked.remove(&node);
            }
        }
    }
}

impl Contents {
    pub(super) fn write(&mut self, bytes: &[u8], start: usize) {
        let end = start + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[start..end].copy_from_slice(bytes);
        let change = if self.is_dropped {
            // A sector is written as a whole, with what a failed sync has left of it in memory.
            let start = start / SECTOR * SECTOR;
            let end = end.next_multiple_of(SECTOR).min(self.cached.len());
            Change::Write(start, self.cached[start..end].to_vec())
        } else {
            Change::Write(start, bytes.to_vec())
        };
        self.unsynced.push(change);
    }

    pub(super) fn resize(&mut self, bytes: usize) {
        if bytes < self.cached.len() {
            self.unsynced.push(Change::Cut(bytes));
        }
        self.cached.resize(bytes, 0);
    }

    /// Replaces all of it, durably.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.cached);
        self.durable.clone_from(&self.cached);
        self.forget();
    }

    fn forget(&mut self) {
        self.cached.clone_from(&self.durable);
        self.unsynced.clear();
        self.is_dropped = false;
    }

    /// Makes all changes durable, or all but what a lie keeps back; whether it lied.
    ///
    /// Only what changed: pages that a failed sync dropped are clean, and stay dropped.
    pub(super) fn sync(&mut self, lie: Option<Lie>) -> bool {
        self.durable.resize(self.cached.len(), 0);
        let mut lied = false;
        for change in std::mem::take(&mut self.unsynced) {
            let (offset, bytes) = match change {
                Change::Write(offset, bytes) => (offset, bytes),
                Change::Cut(at) => {
                    let at = at.min(self.durable.len());
                    self.durable[at..].fill(0);
                    continue;
                }
            };
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
        let by_page = chance.percent(50);
        let mut page = (usize::MAX, false);
        let changes = std::mem::take(&mut self.unsynced);
        for (sector, touching) in self.touched(&changes) {
            // Of each sector, what some first part of its changes made of it.
            let kept = if by_page {
                if page.0 != sector / PAGE_SECTORS {
                    page = (sector / PAGE_SECTORS, chance.percent(odds));
                }
                if page.1 { touching.len() } else { 0 }
            } else if chance.percent(odds) {
                1 + chance.below(touching.len() as u64) as usize
            } else {
                0
            };
            let (from, until) = (sector * SECTOR, self.durable.len().min((sector + 1) * SECTOR));
            for &number in &touching[..kept] {
                match &changes[number] {
                    Change::Write(offset, bytes) => {
                        let (start, end) = (from.max(*offset), until.min(offset + bytes.len()));
                        if start < end {
                            let bytes = &bytes[start - offset..end - offset];
                            self.durable[start..end].copy_from_slice(bytes);
                        }
                    }
                    Change::Cut(at) if *at < until => self.durable[from.max(*at)..until].fill(0),
                    Change::Cut(_) => {}
                }
            }
        }
        self.forget();
    }

    /// By sector, which changes touch it.
    fn touched(&self, changes: &[Change]) -> BTreeMap<usize, Vec<usize>> {
        let mut sectors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, change) in changes.iter().enumerate() {
            let (start, end) = match change {
                Change::Write(offset, bytes) => (*offset, offset + bytes.len()),
                Change::Cut(at) => (*at, self.durable.len()),
            };
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                sectors.entry(sector).or_default().push(number);
            }
        }
        sectors
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> Contents {
        Contents { cached: bytes.to_vec(), durable: bytes.to_vec(), ..Contents::default() }
    }

    /// What a loss of power may leave of a file.
    fn left(contents: &Contents) -> BTreeSet<Vec<u8>> {
        let lose = |seed| {
            let mut contents = contents.clone();
            contents.lose(&mut Chance::new(seed), 50);
            assert_eq!(contents.cached, contents.durable, "memory begins anew");
            contents.durable
        };
        (0..200).map(lose).collect()
    }

    #[test]
    fn a_sector_is_as_it_was_or_as_any_later_write_made_it() {
        let mut contents = file(b"aa");
        contents.write(b"b", 0);
        contents.write(b"c", 1);
        let want = [b"aa", b"ba", b"bc"].map(|bytes: &[u8; 2]| bytes.to_vec());
        assert_eq!(left(&contents), want.into(), "never the second without the first");
        assert!(!contents.sync(None));
        assert_eq!(left(&contents), [b"bc".to_vec()].into(), "what is synced stays");
    }

    #[test]
    fn what_was_cut_off_does_not_come_back_after_a_sync() {
        let mut contents = file(b"abc");
        contents.resize(1);
        contents.resize(3);
        assert_eq!(left(&contents), [b"abc".to_vec(), b"a\0\0".to_vec()].into());
        contents.sync(None);
        assert_eq!(left(&contents), [b"a\0\0".to_vec()].into());
    }

    #[test]
    fn what_a_failed_sync_dropped_comes_with_its_sector_only() {
        let mut platter = Platter::default();
        let node = platter.create_file(Path::new("/file")).unwrap();
        let contents = platter.file(node).unwrap();
        contents.edit(|bytes| bytes.resize(2 * SECTOR, b'.'));
        contents.write(b"x", 0);
        contents.write(b"y", SECTOR);
        platter.drop_unsynced(node);
        let contents = platter.file(node).unwrap();
        contents.sync(None);
        assert!(contents.durable.iter().all(|byte| *byte == b'.'), "to sync again proves nothing");
        contents.write(b"z", 1);
        contents.sync(None);
        assert_eq!(&contents.durable[..2], b"xz");
        assert_eq!(contents.durable[SECTOR], b'.');
        assert_eq!(contents.cached[SECTOR], b'y', "memory looks as if it were there");
    }

    #[test]
    fn a_lie_keeps_one_sector_back() {
        for (lie, want) in [(Lie::Lost, *b"..b."), (Lie::Misdirected, *b".ab.")] {
            let mut contents = file(&[b'.'; 4 * SECTOR]);
            let bytes = [[b'a'; SECTOR], [b'b'; SECTOR]].concat();
            contents.write(&bytes[SECTOR..], 2 * SECTOR);
            contents.write(&bytes[..SECTOR], 2 * SECTOR);
            contents.unsynced.rotate_left(1);
            assert!(contents.sync(Some(lie)));
            let sectors: Vec<u8> = contents.durable.chunks(SECTOR).map(|it| it[0]).collect();
            assert_eq!(sectors, want, "{lie:?}");
        }
    }
}
