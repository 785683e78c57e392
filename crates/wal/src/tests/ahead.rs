//! A long log is read ahead by several threads: what is found is what one finds that reads it in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_types::Mark;

use super::{OWNER, entry, write};
use crate::disk::{DiskDir, DiskFile, DiskLock};
use crate::testing::Chance;
use crate::{Disk, Options, RealDisk, Recovered, Seen, Wal, Write};

/// A real disk that may have a part that cannot be read, and may have moods.
#[derive(Clone, Default)]
struct Odd {
    reads_ahead: bool,
    /// From where on the files whose path ends like this cannot be read.
    bad: Option<(String, u64)>,
    /// Reads that are cut short, are interrupted, or take their time, drawn by their number.
    moods: Option<Arc<AtomicU64>>,
}

struct OddFile {
    file: Box<dyn DiskFile>,
    bad_from: u64,
    moods: Option<Arc<AtomicU64>>,
}

#[rustfmt::skip]
impl Disk for Odd {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> { RealDisk.create(path) }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let is_bad = |end: &str| path.to_string_lossy().ends_with(end);
        let bad_from = self.bad.as_ref().filter(|(end, _)| is_bad(end)).map_or(u64::MAX, |(_, from)| *from);
        Ok(Box::new(OddFile { file: RealDisk.open(path)?, bad_from, moods: self.moods.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> { RealDisk.rename(from, to) }
    fn remove(&self, path: &Path) -> io::Result<()> { RealDisk.remove(path) }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> { RealDisk.list(dir) }
    fn create_dir(&self, dir: &Path) -> io::Result<()> { RealDisk.create_dir(dir) }
    fn restrict_dir(&self, dir: &Path) -> io::Result<Option<u32>> { RealDisk.restrict_dir(dir) }
    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn DiskDir>> { RealDisk.open_dir(dir) }
    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> { RealDisk.lock(path) }
    fn reads_ahead(&self) -> bool { self.reads_ahead }
}

#[rustfmt::skip]
impl DiskFile for OddFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.bad_from < offset + buffer.len() as u64 {
            return Err(io::Error::other(format!("nothing can be read at {offset}")));
        }
        let mut length = buffer.len();
        if let Some(moods) = &self.moods {
            let mut chance = Chance::new(moods.fetch_add(1, Ordering::Relaxed));
            match chance.below(8) {
                0 => return Err(io::ErrorKind::Interrupted.into()),
                1 => std::thread::sleep(std::time::Duration::from_micros(chance.below(300))),
                2 | 3 => length = 1 + chance.below(length as u64) as usize,
                _ => {}
            }
        }
        self.file.read_at(&mut buffer[..length], offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> { self.file.write_at(bytes, offset) }
    fn sync_data(&self) -> io::Result<()> { self.file.sync_data() }
    fn sync_all(&self) -> io::Result<()> { self.file.sync_all() }
    fn allocate(&self, bytes: u64) -> io::Result<()> { self.file.allocate(bytes) }
    fn set_len(&self, bytes: u64) -> io::Result<()> { self.file.set_len(bytes) }
    fn len(&self) -> io::Result<u64> { self.file.len() }
}

/// What is found, what is shown of it, where each record begins, and how far reading came.
type Looked = (Result<Recovered, String>, Vec<u64>, (u64, u64));

fn look(disk: &Odd, dir: &Path) -> Looked {
    let (mut shown, mut heard) = (Vec::new(), (0, 0));
    let found = Wal::survey(disk, dir, &mut |done, total| heard = (done, total), &mut |seen| {
        shown.push(match seen {
            Seen::Segment { sequence, .. } => sequence,
            Seen::Record { offset, .. } => offset,
        });
    });
    (found.map(|survey| survey.recovered).map_err(|error| error.to_string()), shown, heard)
}

/// What is found in both ways, which is the same.
fn both(disk: &Odd, dir: &Path, what: &str) -> Looked {
    let [ahead, plain] =
        [true, false].map(|reads_ahead| look(&Odd { reads_ahead, ..disk.clone() }, dir));
    assert!(ahead.0 == plain.0, "{what}: {:?}, {:?}", ahead.0.err(), plain.0.err());
    assert_eq!((&ahead.1, ahead.2), (&plain.1, plain.2), "{what}");
    ahead
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = RealDisk.list(dir).unwrap().into_iter().filter(|name| name.ends_with(".wal"));
    let mut paths: Vec<_> = names.map(|name| dir.join(name)).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// A log of some 20 MiB, whose records have many lengths, so that blocks end anywhere in them; some are
/// longer than a block.
fn long(dir: &Path, segment_bytes: u64) -> u64 {
    let options = Options { segment_bytes };
    Wal::create(Arc::new(RealDisk), dir, OWNER, options.clone(), &Mark::default(), None).unwrap();
    let (mut wal, _) = Wal::open(Arc::new(RealDisk), dir, options, &mut |_, _| {}).unwrap();
    let mut index = 1;
    for turn in 0..40 {
        let bytes = 150_000 + 70_001 * turn % 400_000 + if turn % 20 == 7 { 3 << 20 } else { 0 };
        let entries = (0..2).map(|next| entry(index + next, 1, bytes)).collect();
        wal.append(&[Write { entries, ..Write::default() }]).unwrap();
        index += 2;
    }
    wal.append(&[write(index, 3, 2)]).unwrap();
    assert!(4 < wal.segment_count() && 20 << 20 < wal.size_bytes());
    index + 2
}

#[test]
fn what_is_read_ahead_is_what_is_read_one_by_one() {
    let parent = tempfile::tempdir().unwrap();
    let dir = &parent.path().join("log");
    let last = long(dir, 5 << 20);
    let (found, _, heard) = both(&Odd::default(), dir, "a whole log");
    assert_eq!(found.unwrap().entries.len() as u64, last);
    assert_eq!(heard.0, heard.1, "all of it was read");
    let moody = Odd { moods: Some(Arc::default()), ..Odd::default() };
    assert_eq!(both(&moody, dir, "a whole log").0.unwrap().entries.len() as u64, last);
    // What cannot be read is said of the block where that is, whoever reads it.
    for segment in segments(dir) {
        for from in [10, 100_000, 1 << 20, (1 << 20) + 1, 3 << 20, (4 << 20) + 5] {
            if std::fs::metadata(&segment).unwrap().len() < from {
                continue;
            }
            let disk = Odd { bad: Some((name(&segment), from)), ..Odd::default() };
            let error = both(&disk, dir, "a bad disk").0.unwrap_err();
            assert!(error.contains("nothing can be read at"), "{error}");
            assert!(error.contains(&name(&segment)), "{error}");
        }
    }
}

/// Spoils a file like a disk, a cut or a crash would; `used` bytes of it are.
fn spoil(bytes: &mut Vec<u8>, used: usize, chance: &mut Chance) {
    let sector = |at: usize| at / 512 * 512;
    let mut below = |limit: usize| chance.below(limit as u64) as usize;
    let at = match below(3) {
        0 => below(bytes.len()),
        1 => below(used),
        // Where blocks end.
        _ => ((64 << 10 << below(6)) + below(1024)).saturating_sub(512).min(bytes.len() - 1),
    };
    match below(6) {
        0 => bytes[at] ^= 1 << below(8),
        1 => {
            let end = (at + 1 + below(100_000)).min(bytes.len());
            bytes[sector(at)..end].fill(0);
        }
        2 => bytes.truncate(at),
        3 => bytes.resize(bytes.len() + below(3 << 20), 0),
        4 => bytes[sector(at)..].fill(0),
        // Some sectors of what was written last are missing.
        _ => {
            for from in (sector(used.saturating_sub(below(200_000) + 1))..used).step_by(512) {
                if below(2) == 0 {
                    let end = (from + 512).min(bytes.len());
                    bytes[from..end].fill(0);
                }
            }
        }
    }
}

#[test]
fn damage_and_torn_ends_are_told_apart_as_when_one_reads() {
    let (mut torn, mut damaged) = (0, 0);
    for (seed, segment_bytes) in [(1, 300_000), (2, 1 << 20), (3, 5 << 20)] {
        let mut chance = Chance::new(seed);
        let parent = tempfile::tempdir().unwrap();
        let dir = &parent.path().join("log");
        long(dir, segment_bytes);
        let files = segments(dir);
        for round in 0..25 {
            // Only the last one has an end that may be torn.
            let path = match chance.percent(50) {
                true => files.last().unwrap(),
                false => &files[chance.below(files.len() as u64) as usize],
            };
            let whole = std::fs::read(path).unwrap();
            let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let mut bytes = whole.clone();
            spoil(&mut bytes, used, &mut chance);
            std::fs::write(path, bytes).unwrap();
            let moods = chance.percent(20).then(Arc::default);
            let what = format!("seed {seed}, round {round}");
            match both(&Odd { moods, ..Odd::default() }, dir, &what).0 {
                Ok(found) => torn += usize::from(found.torn.is_some()),
                Err(_) => damaged += 1,
            }
            std::fs::write(path, whole).unwrap();
        }
    }
    assert!(0 < torn && 0 < damaged, "{torn} torn, {damaged} damaged");
}
