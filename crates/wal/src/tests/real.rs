//! The real file system: names, rights, locks.

use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use quorate_types::Mark;

use super::{OWNER, SMALL, entry, mark, write};
use crate::disk::{DiskDir, DiskFile, DiskLock};
use crate::{Disk, Options, RealDisk, Wal, WalError, Write};

const HOLD: &str = "QUORATE_WAL_TEST_HOLD";

fn open(dir: &Path) -> Result<(Wal, crate::Recovered), WalError> {
    Wal::open(Arc::new(RealDisk), dir, SMALL, &mut |_, _| {})
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_log_lives_on_a_real_disk() {
    let parent = tempfile::tempdir().unwrap();
    let dir = &parent.path().join("log");
    let create = || Wal::create(Arc::new(RealDisk), dir, OWNER, SMALL, &Mark::default(), None);
    assert!(!Wal::exists(&RealDisk, dir).unwrap());
    create().unwrap();
    assert!(matches!(create(), Err(WalError::Occupied { .. })));

    let (mut wal, _) = open(dir).unwrap();
    assert!(matches!(open(dir), Err(WalError::Locked { .. })));
    for first in (1..100).step_by(10) {
        wal.append(&[write(first, 10, 1)]).unwrap();
    }
    wal.compact(&mark(50, 1)).unwrap();
    assert!(1 < wal.segment_count());
    drop(wal);

    assert_eq!(mode(dir), 0o700);
    for file in std::fs::read_dir(dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    let (_wal, recovered) = open(dir).unwrap();
    assert_eq!((recovered.loosened, mode(dir)), (Some(0o755), 0o700));
    assert_eq!(recovered.mark, mark(50, 1));
    assert_eq!(recovered.entries.len(), 50);
    assert_eq!(recovered.entries[..], write(51, 50, 1).entries[..]);
}

#[test]
fn a_second_process_is_kept_out_until_the_first_is_killed() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("log");
    Wal::create(Arc::new(RealDisk), &dir, OWNER, SMALL, &Mark::default(), None).unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::real::hold", "--nocapture"])
        .env(HOLD, &dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("held")));
    assert!(matches!(open(&dir), Err(WalError::Locked { .. })));
    holder.kill().unwrap();
    holder.wait().unwrap();
    open(&dir).unwrap();
}

/// Run by the test above in a process of its own; alone it does nothing.
#[test]
fn hold() {
    if let Some(dir) = std::env::var_os(HOLD) {
        let _open = open(dir.as_ref()).unwrap();
        println!("held");
        // Until killed, or the test above is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

/// A real disk with a part that cannot be read, in every file: from there on.
struct Bad {
    reads_ahead: bool,
    from: u64,
}

struct BadFile(Box<dyn DiskFile>, u64);

/// A real disk of which nothing is read ahead.
const ONE_BY_ONE: Bad = Bad { reads_ahead: false, from: u64::MAX };

#[rustfmt::skip]
impl Disk for Bad {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> { RealDisk.create(path) }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> { Ok(Box::new(BadFile(RealDisk.open(path)?, self.from))) }
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
impl DiskFile for BadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.1 < offset + buffer.len() as u64 {
            return Err(io::Error::other(format!("nothing can be read at {offset}")));
        }
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> { self.0.write_at(bytes, offset) }
    fn sync_data(&self) -> io::Result<()> { self.0.sync_data() }
    fn sync_all(&self) -> io::Result<()> { self.0.sync_all() }
    fn allocate(&self, bytes: u64) -> io::Result<()> { self.0.allocate(bytes) }
    fn set_len(&self, bytes: u64) -> io::Result<()> { self.0.set_len(bytes) }
    fn len(&self) -> io::Result<u64> { self.0.len() }
}

#[test]
fn what_is_read_ahead_is_what_is_read_one_by_one() {
    let parent = tempfile::tempdir().unwrap();
    let dir = &parent.path().join("log");
    let options = Options { segment_bytes: 5 << 20 };
    Wal::create(Arc::new(RealDisk), dir, OWNER, options.clone(), &Mark::default(), None).unwrap();
    let open = |disk| Wal::open(disk, dir, options.clone(), &mut |_, _| {});
    let (mut wal, _) = open(Arc::new(RealDisk)).unwrap();
    let mut index = 1;
    // Records of many lengths, so that blocks end anywhere in them; some are longer than a block.
    for turn in 0..60 {
        let bytes = 150_000 + 70_001 * turn % 400_000 + if turn % 20 == 7 { 3 << 20 } else { 0 };
        let entries = (0..2).map(|next| entry(index + next, 1, bytes)).collect();
        wal.append(&[Write { entries, ..Write::default() }]).unwrap();
        index += 2;
    }
    wal.append(&[write(index, 3, 2)]).unwrap();
    assert!(4 < wal.segment_count() && 20 << 20 < wal.size_bytes());
    drop(wal);
    let both = || {
        let looked = [&RealDisk as &dyn Disk, &ONE_BY_ONE].map(|disk| {
            let mut heard = (0, 0);
            let found = Wal::inspect(disk, dir, &mut |done, total| heard = (done, total));
            (found.map_err(|error| error.to_string()), heard)
        });
        let [ahead, plain] = looked;
        assert_eq!(ahead.0, plain.0);
        (ahead, plain.1)
    };
    let ((found, heard), plain_heard) = both();
    assert_eq!(found.unwrap().entries.len() as u64, index + 2);
    assert_eq!(heard, plain_heard);
    assert_eq!(heard.0, heard.1, "all of it was read");

    // Who finds damage early leaves the rest unread.
    let names = RealDisk.list(dir).unwrap();
    let mut segments: Vec<_> = names.into_iter().filter(|name| name.ends_with(".wal")).collect();
    segments.sort();
    for (name, at) in [(&segments[0], 2 << 20), (&segments[2], (1 << 20) + 5)] {
        let path = dir.join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let ((found, _), _) = both();
        assert!(found.unwrap_err().contains(&path.display().to_string()));
        std::fs::write(&path, whole).unwrap();
    }
    assert!(both().0.0.is_ok());
    // What cannot be read is said of the block where that is, whoever reads it.
    for from in [10, 100_000, 1 << 20, (1 << 20) + 1, 3 << 20, (4 << 20) + 5] {
        let [ahead, plain] = [true, false].map(|reads_ahead| {
            let disk = Arc::new(Bad { reads_ahead, from });
            Wal::open(disk, dir, options.clone(), &mut |_, _| {}).unwrap_err().to_string()
        });
        assert!(ahead.contains("nothing can be read at"), "{ahead}");
        assert_eq!(ahead, plain);
    }
}
