//! The durable log's files.

use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;

use bytes::Bytes;
use quorate_types::{GroupId, Index, Life, LogEntry, Mark, NodeId};
use quorate_wal::testing::{SimDisk, forge};
use quorate_wal::{Disk as _, Identity, Options, Recovered, Wal, WalError, Write};

use crate::draw::Draw;

const DIR: &str = "/log";
const OPTIONS: Options = Options { segment_bytes: 4096 };
const OWNER: Identity = Identity { cluster: 1, node: NodeId(2), group: GroupId(3), life: Life(4) };

fn open(disk: &SimDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS, &mut |_, _| {})
}

fn entry(index: u64, stamp: u64) -> LogEntry {
    LogEntry { index: Index(index), stamp, kind: 0, data: Bytes::from(vec![7; 100]) }
}

/// Records whose checksums hold, and whose contents are anything: each is kind, length and body.
pub(crate) fn record(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let mut records = Vec::new();
    while !draw.is_empty() && records.len() < 8 {
        let kind = draw.byte();
        let length = usize::from(draw.byte());
        let mut body: Vec<u8> = Vec::new();
        while body.len() < length && !draw.is_empty() {
            body.push(draw.byte());
        }
        records.push((kind, body));
    }
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).expect("a new disk takes a directory");
    let mark = Mark { index: Index(10), stamp: 3, data: Bytes::new() };
    forge(&disk, Path::new(DIR), OWNER, &mark, &records);
    goes_on(&disk);
}

/// A whole log of two segments, some bytes of which are others: `(which file, where, what)` each.
pub(crate) fn segment(bytes: &[u8]) {
    static WHOLE: LazyLock<(SimDisk, Vec<Recovered>)> = LazyLock::new(whole);
    let (disk, states) = &*WHOLE;
    let disk = disk.fork();
    let names = disk.list(Path::new(DIR)).expect("the log is there");
    let files: Vec<_> = names.into_iter().filter(|name| name.ends_with(".wal")).collect();
    let mut draw = Draw::new(bytes);
    let mut changes = 0;
    while !draw.is_empty() && changes < 64 {
        let file = &files[usize::from(draw.byte()) % files.len()];
        let place = usize::from(draw.byte()) << 8 | usize::from(draw.byte());
        let (what, value) = (draw.byte(), draw.byte());
        changes += 1;
        disk.edit(Path::new(DIR).join(file), |contents| {
            let place = place % contents.len().max(1);
            match what % 8 {
                0 => contents.truncate(place),
                1 => contents.resize(contents.len() + usize::from(value), value),
                2 => {
                    let sector = place / 512 * 512;
                    let end = contents.len().min(sector + 512);
                    contents[sector..end].fill(0);
                }
                3 if !contents.is_empty() => {
                    // A sector from elsewhere.
                    let (to, from) = (place / 512 * 512, usize::from(value) * 512 % contents.len());
                    let length = 512.min(contents.len() - to).min(contents.len() - from);
                    contents.copy_within(from..from + length, to);
                }
                _ => {
                    if let Some(byte) = contents.get_mut(place) {
                        *byte = value;
                    }
                }
            }
        });
    }
    // Nothing else than what it was at some time since what is known to be synced.
    if let Some(found) = goes_on(&disk) {
        let found = Recovered { torn: None, ..found };
        assert!(states.contains(&found), "{found:?}");
    }
}

/// A log of two segments, and the states it may be in when only its unsynced end is lost.
fn whole() -> (SimDisk, Vec<Recovered>) {
    let disk = SimDisk::new();
    let state = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    Wal::create(
        Arc::new(disk.clone()),
        Path::new(DIR),
        OWNER,
        OPTIONS,
        &Mark::default(),
        state("first"),
    )
    .expect("a new disk takes a log");
    let (mut wal, first) = open(&disk).expect("it was just made");
    let mut states = vec![first];
    for (from, count, stamp) in [(1, 8, 1), (9, 8, 1), (12, 9, 2), (21, 2, 2), (23, 1, 3)] {
        let entries = (from..from + count).map(|index| entry(index, stamp)).collect();
        let write = Write {
            entries,
            hard_state: state("later"),
            cut_from: None,
            install: None,
            must_sync: true,
        };
        wal.append(&[write]).expect("the disk works");
        let mut now = states[states.len() - 1].clone();
        now.entries.truncate(from as usize - 1);
        now.entries.extend((from..from + count).map(|index| entry(index, stamp)));
        now.hard_state = state("later");
        states.push(now);
    }
    // Each record tells that the one before it was synced: only the last one can be taken for torn.
    let states = states.split_off(states.len() - 2);
    (disk, states)
}

/// If the log opens, it takes a write and gives everything back. What it held, if it opened.
fn goes_on(disk: &SimDisk) -> Option<Recovered> {
    let looked = Wal::inspect(disk, Path::new(DIR), &mut |_, _| {});
    let opened = open(disk);
    let (mut wal, recovered) = match (looked, opened) {
        (Ok(looked), Ok((wal, recovered))) => {
            assert_eq!(looked, recovered, "looking at a log shows what opening it gives");
            (wal, recovered)
        }
        (Err(_), Err(_)) => return None,
        (looked, opened) => panic!("looked at: {looked:?}, opened: {opened:?}"),
    };
    let next = wal.last().next();
    let stamp = recovered.entries.last().map_or(recovered.mark.stamp, |entry| entry.stamp);
    let write = Write { entries: vec![entry(next.0, stamp)], must_sync: true, ..Write::default() };
    // The highest index has no successor.
    if wal.append(&[write]).is_ok() {
        drop(wal);
        disk.restart(1);
        let (_, again) = open(disk).expect("what was written is read");
        let mut want = recovered.entries.clone();
        want.push(entry(next.0, stamp));
        assert_eq!((again.entries, again.mark), (want, recovered.mark.clone()));
    }
    Some(recovered)
}
