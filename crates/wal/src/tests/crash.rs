//! Power loss, errors and a full volume at every single operation of a short life.

use bytes::Bytes;
use quorate_types::{Index, Mark};

use super::{DIR, List, SMALL, create, entry, fresh, inspect, open, segments, write};
use crate::testing::{Fault, SimDisk};
use crate::{Wal, WalError, Write};

enum Step {
    Append(Vec<Write>),
    Compact(Mark),
    Reopen,
}

/// Where the log of one life ends, and the next one begins.
const LIFE_ENTRIES: u64 = 115;
const LIFE_STAMPS: u64 = 8;

/// A life with everything in it: groups, writes that need not be durable, overwrites, rotation,
/// both kinds of install, compaction that frees segments. It follows `before` others.
fn life(before: u64) -> Vec<Step> {
    let (first, oldest) = (before * LIFE_ENTRIES, before * LIFE_STAMPS);
    let write = |from, count, stamp| super::write(first + from, count, oldest + stamp);
    let mark = |at, stamp| super::mark(first + at, oldest + stamp);
    let lazy = |write: Write| Write { must_sync: false, ..write };
    let state = |text: &'static str| Write {
        hard_state: Some(Bytes::from_static(text.as_bytes())),
        ..Write::default()
    };
    let cut = |at| Write { cut_from: Some(Index(first + at)), ..Write::default() };
    let install = |at, stamp| Write { install: Some(mark(at, stamp)), ..Write::default() };
    let large = entry(first + 95, oldest + 8, 2000);
    vec![
        Step::Append(vec![write(1, 5, 1)]),
        Step::Append(vec![state("lazy"), lazy(write(6, 6, 1)), state("lazier")]),
        Step::Append(vec![lazy(write(12, 1, 1)), write(13, 8, 1), write(15, 9, 2)]),
        Step::Append(vec![lazy(write(24, 10, 2))]),
        Step::Append(vec![state("before a rotation"), write(34, 12, 2)]),
        Step::Compact(mark(20, 2)),
        Step::Append(vec![lazy(write(30, 3, 3)), lazy(write(22, 20, 3))]),
        Step::Reopen,
        Step::Append(vec![cut(39), write(39, 2, 3), cut(40)]),
        Step::Append(vec![lazy(write(40, 2, 3))]),
        Step::Append(vec![install(30, 3), write(42, 2, 3)]),
        Step::Compact(mark(42, 3)),
        Step::Append(vec![Write { install: Some(mark(90, 7)), ..write(91, 12, 7) }]),
        Step::Append(vec![lazy(Write { entries: vec![large], ..write(95, 0, 8) })]),
        Step::Append(vec![write(96, 20, 8)]),
        Step::Compact(mark(LIFE_ENTRIES, LIFE_STAMPS)),
    ]
}

/// Lives until something fails. Answers which of `states` is known to be durable, and the last
/// one that was tried. `states` gets the list after each write.
fn live(disk: &SimDisk, before: u64, states: &mut Vec<List>) -> (usize, Result<(), WalError>) {
    let (mut durable, mut wal) = (0, None);
    let mut run = || {
        let (opened, recovered) = open(disk)?;
        wal = Some(opened);
        states.push(List::from(&recovered));
        for step in life(before) {
            let mut list = states.last().unwrap().clone();
            let opened = wal.as_mut().unwrap();
            match step {
                Step::Append(group) => {
                    for write in &group {
                        list.write(write);
                        states.push(list.clone());
                    }
                    opened.append(&group)?;
                    if group.iter().any(|write| write.must_sync || write.install.is_some()) {
                        durable = states.len() - 1;
                    }
                }
                Step::Compact(mark) => {
                    list.start_after(&mark);
                    states.push(list);
                    opened.compact(&mark)?;
                    durable = states.len() - 1;
                }
                Step::Reopen => {
                    wal = None;
                    let (opened, recovered) = open(disk)?;
                    assert_eq!(List::from(&recovered), list);
                    durable = states.len() - 1;
                    wal = Some(opened);
                }
            }
        }
        Ok(())
    };
    let result = run();
    (durable, result)
}

/// A recovered log takes writes and gives them back.
fn goes_on(disk: &SimDisk, wal: &mut Wal, mut list: List, seed: u64) {
    let write = write(list.last().0 + 1, 15, list.last_stamp() + 1);
    wal.append(std::slice::from_ref(&write)).unwrap();
    list.write(&write);
    disk.restart(seed);
    assert_eq!(List::from(&inspect(disk).unwrap()), list);
}

/// A log that has lived as often, and how many operations its next life takes.
fn start(lives: u64) -> (SimDisk, u64) {
    let disk = SimDisk::new();
    create(&disk, &SMALL).unwrap();
    for life in 0..lives {
        live(&disk, life, &mut Vec::new()).1.unwrap();
    }
    let whole = disk.fork();
    let before = whole.op_count();
    let mut states = Vec::new();
    let (durable, result) = live(&whole, lives, &mut states);
    result.unwrap();
    let ops = whole.op_count() - before;
    assert_eq!(durable, states.len() - 1);
    assert_eq!(List::from(&inspect(&whole).unwrap()), states[durable]);
    assert!(80 < ops, "{ops} operations are no whole life");
    (disk, ops)
}

/// What is found must be a state between the last durable one and the last one tried.
fn check(states: &[List], durable: usize, found: &List, when: &str) {
    assert!(
        states.is_empty() || states[durable..].contains(found),
        "{when}: at least state {durable} of {} is due: {:?}; found {found:?}",
        states.len() - 1,
        states[durable],
    );
}

#[test]
fn power_loss_at_every_operation() {
    let mut count = 0;
    for (lives, seeds) in [(0, 24), (1, 8), (4, 4)] {
        let (start, ops) = start(lives);
        for op in 0..ops {
            for seed in 0..seeds {
                let disk = start.fork();
                disk.fail_in(op, Fault::PowerLoss);
                let mut states = Vec::new();
                let (durable, result) = live(&disk, lives, &mut states);
                assert!(result.is_err() && disk.is_off());
                let when = format!("after {lives} lives, op {op}, seed {seed}");
                disk.restart(seed);
                let (mut wal, recovered) = open(&disk).unwrap_or_else(|e| panic!("{when}: {e}"));
                let found = List::from(&recovered);
                check(&states, durable, &found, &when);
                goes_on(&disk, &mut wal, found, seed);
                count += 1;
            }
        }
    }
    println!("{count} losses of power");
}

#[test]
fn power_loss_at_every_operation_of_every_recovery() {
    let mut count = 0;
    for lives in [0, 2] {
        let (start, ops) = start(lives);
        for op in 0..ops {
            let crashed = start.fork();
            crashed.fail_in(op, Fault::PowerLoss);
            let mut states = Vec::new();
            let (durable, _) = live(&crashed, lives, &mut states);
            crashed.restart(op);
            let whole = crashed.fork();
            let before = whole.op_count();
            open(&whole).unwrap();
            for again in 0..whole.op_count() - before {
                let disk = crashed.fork();
                disk.fail_in(again, Fault::PowerLoss);
                open(&disk).unwrap_err();
                assert!(disk.is_off());
                disk.restart(op + again);
                let when = format!("after {lives} lives, op {op}, op {again} of the recovery");
                let (mut wal, recovered) = open(&disk).unwrap_or_else(|e| panic!("{when}: {e}"));
                let found = List::from(&recovered);
                check(&states, durable, &found, &when);
                goes_on(&disk, &mut wal, found, again);
                count += 1;
            }
        }
    }
    println!("{count} losses of power while a log is opened");
    assert!(2000 < count);
}

#[test]
fn an_error_at_every_operation() {
    for (lives, fault) in [(0, Fault::Error), (0, Fault::Full), (2, Fault::Error)] {
        let (start, ops) = start(lives);
        for op in 0..ops {
            let disk = start.fork();
            disk.fail_in(op, fault);
            let mut states = Vec::new();
            let (durable, result) = live(&disk, lives, &mut states);
            let when = format!("{fault:?} at op {op} after {lives} lives");
            if let Err(error) = &result {
                match fault {
                    Fault::Full => assert!(matches!(error, WalError::Full { .. }), "{when}"),
                    _ => assert!(matches!(error, WalError::Io { .. }), "{when}"),
                }
            }
            disk.clear_faults();
            disk.kill();
            let (wal, recovered) = open(&disk).unwrap_or_else(|e| panic!("{when}: {e}"));
            let found = List::from(&recovered);
            check(&states, durable, &found, &when);
            drop(wal);

            // What was given out is durable, although a sync of it may have failed before.
            disk.restart(op);
            let (mut wal, again) = open(&disk).unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_eq!(List::from(&again), found, "{when}");
            goes_on(&disk, &mut wal, found, op);
        }
    }
}

/// The one entry behind the mark is overwritten segments later, and power goes while those before are
/// removed: what is left begins with several that name an entry none of them holds.
#[test]
fn power_loss_while_segments_of_an_overwritten_entry_are_removed() {
    for entries in 1..4 {
        let (disk, mut wal, mut list) = fresh();
        let mut append = |wal: &mut Wal, write: Write| {
            wal.append(std::slice::from_ref(&write)).unwrap();
            list.write(&write);
        };
        append(&mut wal, write(1, entries, 4));
        while wal.segment_count() < 5 {
            append(&mut wal, write(1, 0, 4));
        }
        append(&mut wal, write(1, 1, 5));
        drop(wal);
        let mut left_in_part = 0;
        for op in 0.. {
            let disk = disk.fork();
            disk.fail_in(op, Fault::PowerLoss);
            // Whoever opens a log removes what is dead.
            if open(&disk).is_ok() {
                disk.clear_faults();
                assert_eq!(segments(&disk).len(), 1);
                break;
            }
            disk.restart(op);
            left_in_part += usize::from((2..5).contains(&segments(&disk).len()));
            let found =
                inspect(&disk).unwrap_or_else(|e| panic!("{entries} entries, op {op}: {e}"));
            assert_eq!(List::from(&found), list);
        }
        assert!(1 < left_in_part);
    }
}

#[test]
fn creation_is_whole_or_absent() {
    let whole = SimDisk::new();
    create(&whole, &SMALL).unwrap();
    for seed in 0..60 {
        let disk = whole.fork();
        disk.restart(seed);
        assert!(Wal::exists(&disk, DIR.as_ref()).unwrap(), "what was reported as made is there");
    }
    for op in 0..whole.op_count() {
        for seed in 0..60 {
            let disk = SimDisk::new();
            let fault = [Fault::Error, Fault::Full, Fault::PowerLoss][seed as usize % 3];
            disk.fail_in(op, fault);
            create(&disk, &SMALL).unwrap_err();
            // Either the machine fails or only the process, and the machine later.
            if fault == Fault::PowerLoss || seed % 2 == 0 {
                disk.restart(seed);
            } else {
                disk.kill();
            }
            let when = format!("{fault:?} at op {op}, seed {seed}");
            let exists = Wal::exists(&disk, DIR.as_ref()).unwrap_or_else(|e| panic!("{when}: {e}"));
            if !exists {
                create(&disk, &SMALL).unwrap_or_else(|e| panic!("{when}: {e}"));
            }
            let (mut wal, recovered) = open(&disk).unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_eq!(recovered.hard_state, Some(Bytes::from_static(b"first")), "{when}");
            goes_on(&disk, &mut wal, List::from(&recovered), seed / 6);
        }
    }
}
