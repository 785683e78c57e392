//! Logs of every released format, kept as they were written: each must still open, or be refused by
//! its number.
//!
//! `fixtures/log-<format>/` holds the segments. When the format changes, and only then, a new one is
//! made: raise `FORMAT` below and run
//!
//! ```text
//! QUORATE_WRITE_FIXTURES=1 cargo test -p quorate-wal --test formats
//! ```
//! The older ones stay as they are, and this test says what becomes of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{GroupId, Index, Life, LogEntry, Mark, NodeId};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};

const FORMAT: u32 = 2;
const OWNER: Identity =
    Identity { cluster: 0xc0ffee, node: NodeId(0x17), group: GroupId(1), life: Life(0x11fe) };
const OPTIONS: Options = Options { segment_bytes: 4096 };

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/log-{format}"))
}

fn entry(index: u64, stamp: u64, bytes: usize) -> LogEntry {
    let data = (0..bytes).map(|at| (index as usize * 31 + at * 7) as u8).collect();
    LogEntry { index: Index(index), stamp, kind: (index % 4) as u8, data }
}

fn entries(first: u64, count: u64, stamp: u64) -> Vec<LogEntry> {
    (first..first + count).map(|index| entry(index, stamp, 40 + index as usize)).collect()
}

fn mark(index: u64, stamp: u64) -> Mark {
    Mark { index: Index(index), stamp, data: Bytes::from(format!("members at {index}")) }
}

fn state(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

/// Writes a log with every kind of record and every part of a write, in three segments.
fn write(dir: &Path) {
    let disk = Arc::new(RealDisk);
    Wal::create(disk.clone(), dir, OWNER, OPTIONS, &mark(5, 1), state("first")).unwrap();
    let (mut wal, _) = Wal::open(disk, dir, OPTIONS, &mut |_, _| {}).unwrap();
    let write = Write { must_sync: true, ..Write::default() };
    for group in [
        vec![Write { entries: entries(6, 12, 1), hard_state: state("second"), ..write.clone() }],
        vec![
            Write { hard_state: state("third"), must_sync: false, ..Write::default() },
            Write { entries: entries(15, 9, 2), ..write.clone() },
        ],
        vec![Write { install: Some(mark(20, 2)), ..write.clone() }],
        vec![Write { entries: entries(24, 20, 2), ..write.clone() }],
    ] {
        wal.append(&group).unwrap();
    }
    wal.compact(&mark(22, 2)).unwrap();
    let install = Write {
        install: Some(mark(60, 4)),
        entries: entries(61, 3, 5),
        hard_state: state("last"),
        ..write.clone()
    };
    // A snapshot that keeps nothing of the log makes the oldest segments go; so it comes last but one.
    wal.append(&[Write { entries: entries(40, 4, 3), ..write.clone() }]).unwrap();
    wal.append(&[install]).unwrap();
    wal.append(&[Write { entries: entries(64, 30, 5), ..write }]).unwrap();
}

/// The segments of a log: names and bytes.
fn segments(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn logs_of_every_released_format_open() {
    let parent = tempfile::tempdir().unwrap();
    let fresh = &parent.path().join("fresh");
    write(fresh);
    if std::env::var_os("QUORATE_WRITE_FIXTURES").is_some() {
        let dir = fixture(FORMAT);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in segments(fresh) {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }
    // What is written today is what was written then.
    assert!(segments(fresh) == segments(&fixture(FORMAT)), "the bytes differ: is it a new format?");
    assert!(2 <= segments(fresh).len());

    let copy = &parent.path().join("copy");
    fs::create_dir(copy).unwrap();
    for (name, bytes) in segments(&fixture(2)) {
        fs::write(copy.join(name), bytes).unwrap();
    }
    let (mut wal, recovered) =
        Wal::open(Arc::new(RealDisk), copy, OPTIONS, &mut |_, _| {}).unwrap();
    assert_eq!(recovered.identity, OWNER);
    assert_eq!(recovered.mark, mark(60, 4));
    assert_eq!(recovered.hard_state, state("last"));
    assert_eq!(recovered.torn, None);
    assert_eq!(recovered.entries, [entries(61, 3, 5), entries(64, 30, 5)].concat());
    // And it goes on.
    wal.append(&[Write { entries: entries(94, 1, 5), must_sync: true, ..Write::default() }])
        .unwrap();
}
