//! The real file system: names, rights, locks.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use quorate_types::Mark;

use super::{OWNER, SMALL, mark, write};
use crate::{RealDisk, Wal, WalError};

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
