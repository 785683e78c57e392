//! What the tests share: a log in memory to compare with, and writes to make.

mod ahead;
mod crash;
mod damage;
mod hazards;
mod model;
mod open;
mod real;
mod survey;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{GroupId, Index, Life, LogEntry, Mark, NodeId};

use crate::testing::SimDisk;
use crate::{Identity, Options, Recovered, Wal, WalError, Write};

const DIR: &str = "/log";
const OWNER: Identity =
    Identity { cluster: 0xc1, node: NodeId(2), group: GroupId(3), life: Life(4) };
/// The smallest segments there are, so that a few writes fill several.
const SMALL: Options = Options { segment_bytes: 4096 };

/// The log as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct List {
    mark: Mark,
    entries: Vec<LogEntry>,
    hard_state: Option<Bytes>,
}

impl List {
    fn write(&mut self, write: &Write) {
        if let Some(mark) = &write.install {
            let holds = *mark == Mark { data: mark.data.clone(), ..self.mark.clone() }
                || self.entries.iter().any(|e| (e.index, e.stamp) == (mark.index, mark.stamp));
            if !holds {
                self.entries.clear();
            }
            self.start_after(mark);
        }
        if let Some(from) = write.cut_from {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&write.entries);
        }
        if write.hard_state.is_some() {
            self.hard_state.clone_from(&write.hard_state);
        }
    }

    fn start_after(&mut self, mark: &Mark) {
        self.entries.retain(|entry| mark.index < entry.index);
        self.mark = mark.clone();
    }

    fn last(&self) -> Index {
        self.entries.last().map_or(self.mark.index, |entry| entry.index)
    }

    fn last_stamp(&self) -> u64 {
        self.entries.last().map_or(self.mark.stamp, |entry| entry.stamp)
    }
}

impl From<&Recovered> for List {
    fn from(recovered: &Recovered) -> Self {
        let Recovered { mark, entries, hard_state, .. } = recovered.clone();
        List { mark, entries, hard_state }
    }
}

fn mark(index: u64, stamp: u64) -> Mark {
    Mark { index: Index(index), stamp, data: Bytes::from(format!("members at {index}")) }
}

/// An entry whose data is not quite regular, and nowhere zero.
fn entry(index: u64, stamp: u64, bytes: usize) -> LogEntry {
    let data = (0..bytes).map(|at| (at as u64 * 7 + index % 256 * 13 + stamp) as u8 | 1).collect();
    LogEntry { index: Index(index), stamp, kind: (index % 3) as u8, data }
}

/// A synced write of `count` entries of 100 bytes, with a hard state.
fn write(first: u64, count: u64, stamp: u64) -> Write {
    Write {
        hard_state: Some(Bytes::from(format!("state {stamp} at {first}"))),
        entries: (first..first + count).map(|index| entry(index, stamp, 100)).collect(),
        must_sync: true,
        ..Write::default()
    }
}

fn create(disk: &SimDisk, options: &Options) -> Result<(), WalError> {
    let state = Some(Bytes::from_static(b"first"));
    Wal::create(Arc::new(disk.clone()), DIR.as_ref(), OWNER, options.clone(), &mark(0, 0), state)
}

fn open(disk: &SimDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), DIR.as_ref(), SMALL, &mut |_, _| {})
}

fn inspect(disk: &SimDisk) -> Result<Recovered, WalError> {
    Wal::inspect(disk, DIR.as_ref(), &mut |_, _| {})
}

/// A new log, open, and its list.
fn fresh() -> (SimDisk, Wal, List) {
    let disk = SimDisk::new();
    create(&disk, &SMALL).unwrap();
    let (wal, recovered) = open(&disk).unwrap();
    let list = List::from(&recovered);
    assert_eq!(list.mark, mark(0, 0));
    (disk, wal, list)
}

/// The segments of a log, oldest first.
fn segments(disk: &SimDisk) -> Vec<String> {
    let names = crate::Disk::list(disk, Path::new(DIR)).unwrap();
    let names = names.into_iter().filter(|name| name.ends_with(".wal"));
    names.map(|name| format!("{DIR}/{name}")).collect()
}
