//! What a log gives back, and to whom.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{Index, Mark};

use super::{DIR, List, OWNER, SMALL, create, entry, fresh, inspect, mark, open, segments, write};
use crate::testing::{Fault, SimDisk};
use crate::{Damage, Misfit, Options, WRITE_BYTES_MAX, Wal, WalError, Write};

#[test]
fn what_was_written_comes_back() {
    let (disk, mut wal, mut list) = fresh();
    let steps = [
        write(1, 3, 1),
        write(4, 20, 1), // more than a segment
        write(8, 2, 2),  // replaces 8 and all behind it
        Write { hard_state: Some(Bytes::new()), ..Write::default() },
        Write { entries: vec![entry(10, 3, 0)], ..Write::default() },
        Write { install: Some(mark(9, 2)), ..Write::default() }, // meets the log: 10 stays
        write(11, 1, 3),
        Write { install: Some(mark(11, 2)), ..Write::default() }, // another stamp: all goes
        write(12, 2, 3),
        // A snapshot and what follows it in one.
        Write { install: Some(mark(1 << 40, 5)), ..write((1 << 40) + 1, 2, 6) },
        Write { install: Some(mark((1 << 40) + 2, 6)), ..Write::default() },
        Write { must_sync: true, ..Write::default() },
        write((1 << 40) + 3, 50, 6),
    ];
    for (number, step) in steps.iter().enumerate() {
        wal.append(std::slice::from_ref(step)).unwrap();
        list.write(step);
        assert_eq!((wal.last(), wal.mark()), (list.last(), &list.mark), "step {number}");
        drop(wal);
        assert_eq!(List::from(&inspect(&disk).unwrap()), list, "step {number}");
        let (reopened, recovered) = open(&disk).unwrap();
        assert_eq!(List::from(&recovered), list, "step {number}");
        assert_eq!((recovered.torn, recovered.identity), (None, OWNER));
        wal = reopened;
    }
    let at = (1 << 40) + 30;
    wal.compact(&mark(at, 6)).unwrap();
    list.start_after(&mark(at, 6));
    drop(wal);
    assert_eq!(List::from(&open(&disk).unwrap().1), list);
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let disk = SimDisk::new();
    let large = Options { segment_bytes: 1 << 20 };
    create(&disk, &large).unwrap();
    let disk_of_wal = Arc::new(disk.clone());
    let (mut wal, _) = Wal::open(disk_of_wal, DIR.as_ref(), large, &mut |_, _| {}).unwrap();
    for (must_sync, ops) in [(true, 2), (false, 1)] {
        let first = wal.last().0 + 1;
        let group: Vec<_> = (first..first + 50)
            .map(|index| Write { must_sync: must_sync && index == first, ..write(index, 1, 1) })
            .collect();
        let before = disk.op_count();
        wal.append(&group).unwrap();
        assert_eq!(disk.op_count() - before, ops, "must_sync {must_sync}");
    }
}

#[test]
fn compaction_frees_segments_and_keeps_the_rest() {
    let (disk, mut wal, mut list) = fresh();
    for first in (1..200).step_by(5) {
        let write = write(first, 5, 1);
        wal.append(std::slice::from_ref(&write)).unwrap();
        list.write(&write);
    }
    let (full, count) = (wal.size_bytes(), wal.segment_count());
    assert!(10 < count);
    for at in [3, 100, 100, 50, 199, 200] {
        wal.compact(&mark(at, 1)).unwrap();
        if list.mark.index.0 < at {
            list.start_after(&mark(at, 1));
        }
        assert_eq!(List::from(&super::inspect(&disk.fork()).unwrap()), list, "compacted to {at}");
        assert_eq!(segments(&disk).len(), wal.segment_count());
    }
    assert_eq!(wal.segment_count(), 1);
    assert!(wal.size_bytes() < full / 5);
    for misfit in [mark(201, 1), mark(200, 2)] {
        assert!(matches!(wal.compact(&misfit), Err(WalError::Misfit(_))), "{misfit:?}");
    }
    // An overwrite that reaches far back kills whole segments without any compaction of theirs.
    wal.append(&[write(201, 100, 1)]).unwrap();
    wal.append(&[write(201, 1, 2)]).unwrap();
    wal.compact(&mark(200, 1)).unwrap();
    assert_eq!(wal.segment_count(), 1);
    // What is overwritten holds no segment either, not even one before it.
    wal.append(&[write(202, 16, 2)]).unwrap();
    wal.append(&[write(218, 16, 2)]).unwrap();
    wal.append(&[write(210, 16, 3)]).unwrap();
    assert!(2 < wal.segment_count());
    wal.compact(&mark(212, 3)).unwrap();
    assert_eq!(wal.segment_count(), 1);
}

#[test]
fn what_frees_a_segment_is_durable_first() {
    let (disk, mut wal, mut list) = fresh();
    let old = write(1, 16, 1);
    wal.append(std::slice::from_ref(&old)).unwrap();
    wal.compact(&mark(4, 1)).unwrap();
    list.write(&old);
    list.start_after(&mark(4, 1));
    // Nothing of the first segment is left, but for this write, and it need not be durable.
    let new = Write { must_sync: false, ..write(5, 14, 2) };
    wal.append(std::slice::from_ref(&new)).unwrap();
    assert_eq!(wal.segment_count(), 2);
    wal.compact(&mark(3, 1)).unwrap();
    assert_eq!(wal.segment_count(), 1);
    for seed in 0..20 {
        let disk = disk.fork();
        disk.restart(seed);
        let mut after = list.clone();
        after.write(&new);
        assert_eq!(List::from(&open(&disk).unwrap().1), after);
    }
}

#[test]
fn a_write_that_does_not_fit_is_refused() {
    let covered = Misfit::Covered { index: Index(5), mark: Index(5) };
    for (write, misfit) in [
        (write(12, 1, 3), Misfit::Gap { index: Index(12), wanted: Index(11) }),
        (write(5, 1, 3), covered),
        (write(11, 1, 2), Misfit::Backward { index: Index(11), stamp: 2, before: 3 }),
        (
            Write { entries: vec![entry(11, 3, 1), entry(13, 3, 1)], ..Write::default() },
            Misfit::Gap { index: Index(13), wanted: Index(12) },
        ),
        (
            Write { entries: vec![entry(11, 4, 1), entry(12, 3, 1)], ..Write::default() },
            Misfit::Backward { index: Index(12), stamp: 3, before: 4 },
        ),
        (
            Write { install: Some(mark(4, 1)), ..Write::default() },
            Misfit::Covered { index: Index(4), mark: Index(5) },
        ),
    ] {
        let (disk, mut wal, _) = fresh();
        wal.append(&[Write { install: Some(mark(5, 2)), ..super::write(6, 5, 3) }]).unwrap();
        let before = disk.contents(&segments(&disk)[0]).unwrap();
        let state = Write { hard_state: Some(Bytes::new()), ..Write::default() };
        match wal.append(&[state, write.clone()]) {
            Err(WalError::Misfit(found)) => assert_eq!(found, misfit, "{write:?}"),
            other => panic!("{write:?}: {other:?}"),
        }
        assert_eq!(disk.contents(&segments(&disk)[0]).unwrap(), before, "nothing is written");
        assert!(wal.is_poisoned());
        assert!(matches!(wal.append(&[]), Err(WalError::Poisoned { .. })));
        assert!(matches!(wal.compact(&mark(6, 3)), Err(WalError::Poisoned { .. })));
    }
}

#[test]
fn a_write_over_the_limit_is_refused_and_one_at_the_limit_comes_back() {
    let (disk, mut wal, _) = fresh();
    // One buffer shared by many entries: nothing of this size is ever made.
    let data = Bytes::from(vec![1; 1 << 20]);
    let entries = (1..=1024).map(|index| crate::tests::entry(index, 1, 0));
    let entries = entries.map(|entry| quorate_types::LogEntry { data: data.clone(), ..entry });
    let huge = Write { entries: entries.collect(), ..Write::default() };
    match wal.append(&[huge]) {
        Err(WalError::TooLarge { bytes, bytes_max: WRITE_BYTES_MAX }) => assert!(1 << 30 < bytes),
        other => panic!("{other:?}"),
    }
    // Far above the segment length, though: the segment grows with it.
    let large = Write { entries: vec![entry(1, 1, 3 << 20)], must_sync: true, ..Write::default() };
    wal.append(&[large.clone(), write(2, 1, 1)]).unwrap();
    wal.append(&[write(3, 1, 1)]).unwrap();
    drop(wal);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len(), 3);
    assert_eq!(recovered.entries[0], large.entries[0]);
}

#[test]
fn a_log_is_created_once_and_where_nothing_else_is() {
    let disk = SimDisk::new();
    assert!(!Wal::exists(&disk, DIR.as_ref()).unwrap());
    assert!(matches!(open(&disk), Err(WalError::Absent { .. })));
    // An empty directory will do, and what a broken try left does no harm.
    crate::Disk::create_dir(&disk, Path::new(DIR)).unwrap();
    assert!(!Wal::exists(&disk, DIR.as_ref()).unwrap());
    crate::Disk::create_dir(&disk, Path::new("/log.tmp")).unwrap();
    disk.put("/log.tmp/0000000000000001-0000000000000001.wal", vec![1]).unwrap();
    create(&disk, &SMALL).unwrap();
    assert!(Wal::exists(&disk, DIR.as_ref()).unwrap());
    assert!(matches!(create(&disk, &SMALL), Err(WalError::Occupied { .. })));
    open(&disk).unwrap();

    crate::Disk::create_dir(&disk, Path::new("/other")).unwrap();
    disk.put("/other/letter", vec![1]).unwrap();
    assert!(!Wal::exists(&disk, "/other".as_ref()).unwrap());
    let created = Wal::create(
        Arc::new(disk.clone()),
        "/other".as_ref(),
        OWNER,
        SMALL,
        &Mark::default(),
        None,
    );
    assert!(matches!(created, Err(WalError::Occupied { .. })));

    // A log whose files are gone is no empty directory.
    disk.destroy(&segments(&disk)[0]).unwrap();
    for error in [
        Wal::exists(&disk, DIR.as_ref()).map(drop).unwrap_err(),
        open(&disk).map(drop).unwrap_err(),
        create(&disk, &SMALL).unwrap_err(),
    ] {
        assert!(matches!(error, WalError::Damaged { damage: Damage::NoSegments, .. }), "{error}");
    }
}

#[test]
fn a_log_is_open_once() {
    let (disk, wal, _) = fresh();
    assert!(matches!(open(&disk), Err(WalError::Locked { .. })));
    assert!(matches!(inspect(&disk), Err(WalError::Locked { .. })));
    drop(wal);
    open(&disk).unwrap();
    disk.kill();
    open(&disk).unwrap();
}

#[test]
fn a_directory_open_to_others_is_closed_and_reported() {
    let (disk, wal, _) = fresh();
    drop(wal);
    disk.set_mode(DIR, 0o755).unwrap();
    assert_eq!(open(&disk).unwrap().1.loosened, Some(0o755));
    assert_eq!(open(&disk).unwrap().1.loosened, None);
}

#[test]
fn progress_is_told_and_ends_at_the_total() {
    let (disk, mut wal, _) = fresh();
    wal.append(&[write(1, 200, 1)]).unwrap();
    wal.append(&[write(201, 20, 1)]).unwrap();
    let size = wal.segment_count() as u64;
    drop(wal);
    let mut told = Vec::new();
    let disk = Arc::new(disk);
    Wal::open(disk, DIR.as_ref(), SMALL, &mut |done, total| told.push((done, total))).unwrap();
    assert!(size < told.len() as u64);
    assert!(told.is_sorted());
    let (done, total) = *told.last().unwrap();
    assert_eq!(done, total);
}

#[test]
fn a_full_volume_is_noticed_early_and_forgives() {
    let (disk, mut wal, mut list) = fresh();
    disk.set_space(disk.used_bytes() + 1000);
    let mut next = 1;
    let error = loop {
        let write = write(next, 1, 1);
        match wal.append(std::slice::from_ref(&write)) {
            Ok(()) => list.write(&write),
            Err(error) => break error,
        }
        next += 1;
        assert!(next < 50);
    };
    assert!(matches!(error, WalError::Full { .. }), "{error}");
    assert!(wal.is_nearly_full() && !wal.is_poisoned());
    assert_eq!(wal.last(), list.last(), "what was refused left no trace");
    let names = crate::Disk::list(&disk, Path::new(DIR)).unwrap();
    assert!(!names.iter().any(|name| name == "spare.tmp"), "half a file takes up what is wanting");
    // A compaction still finds room, and the log goes on when there is space again.
    wal.compact(&mark(2, 1)).unwrap();
    list.start_after(&mark(2, 1));
    disk.set_space(u64::MAX);
    let write = write(next, 1, 1);
    wal.append(std::slice::from_ref(&write)).unwrap();
    list.write(&write);
    drop(wal);
    assert_eq!(List::from(&open(&disk).unwrap().1), list);
}

#[test]
fn a_log_that_can_open_no_file_goes_on_once_it_can() {
    let mut waited = 0;
    // Files run out before any of the first writes: between two segments, and in the middle of one.
    for last_good in 0..30 {
        let (disk, mut wal, mut list) = fresh();
        for next in 1.. {
            disk.set_out_of_files(last_good < next);
            let write = write(next, 1, 1);
            match wal.append(std::slice::from_ref(&write)) {
                Ok(()) => list.write(&write),
                Err(error) => {
                    assert!(matches!(error, WalError::TooManyFiles { .. }), "{error}");
                    break;
                }
            }
        }
        assert!(!wal.is_poisoned());
        assert_eq!(wal.last(), list.last(), "what was refused left no trace");
        waited += 1;
        // Neither removal nor compaction takes a file.
        let at = Index(list.last().0 - 1);
        wal.compact(&mark(at.0, 1)).unwrap();
        list.start_after(&mark(at.0, 1));
        disk.set_out_of_files(false);
        for next in wal.last().0 + 1..wal.last().0 + 40 {
            let write = write(next, 1, 1);
            wal.append(std::slice::from_ref(&write)).unwrap();
            list.write(&write);
        }
        drop(wal);
        disk.set_out_of_files(true);
        let error = open(&disk).unwrap_err();
        assert!(error.to_string().starts_with("too many open files to "), "{error}");
        disk.set_out_of_files(false);
        assert_eq!(List::from(&open(&disk).unwrap().1), list);
    }
    assert_eq!(waited, 30);
}

#[test]
fn a_file_that_cannot_be_removed_fails_no_write() {
    let (disk, mut wal, mut list) = fresh();
    for first in (1..60).step_by(12) {
        let write = write(first, 12, 1);
        wal.append(std::slice::from_ref(&write)).unwrap();
        list.write(&write);
    }
    assert!(2 < segments(&disk).len(), "there is something to remove");
    let install = Write { install: Some(mark(90, 7)), ..write(91, 2, 7) };
    list.write(&install);
    let start = disk.fork();
    drop(wal);
    let mut left_for_later = 0;
    for fault in [Fault::Error, Fault::Full] {
        for op in 0.. {
            let disk = start.fork();
            let (mut wal, _) = open(&disk).unwrap();
            let before = disk.op_count();
            disk.fail_in(op, fault);
            let appended = wal.append(std::slice::from_ref(&install));
            if disk.op_count() - before <= op {
                break; // the fault was never met
            }
            disk.clear_faults();
            // Whatever failed, the log and its caller agree on what was written.
            match appended {
                Ok(()) => {
                    assert_eq!(wal.last(), list.last(), "{fault:?} at {op}");
                    left_for_later += usize::from(1 < wal.segment_count());
                    wal.append(&[write(93, 1, 7)]).unwrap();
                    wal.compact(&mark(93, 7)).unwrap();
                    assert_eq!(wal.segment_count(), 1, "{fault:?} at {op}: removed later");
                }
                Err(WalError::Full { .. }) if !wal.is_poisoned() => {
                    assert!(wal.last() < list.last(), "{fault:?} at {op}: written and refused");
                }
                Err(error) => assert!(wal.is_poisoned(), "{fault:?} at {op}: {error}"),
            }
        }
    }
    assert!(0 < left_for_later, "no removal failed");
}

#[test]
fn a_failed_sync_is_final() {
    let (disk, mut wal, list) = fresh();
    disk.fail_in(1, Fault::Error);
    assert!(matches!(wal.append(&[write(1, 1, 1)]), Err(WalError::Io { doing: "sync", .. })));
    for _ in 0..2 {
        let error = wal.append(&[write(1, 1, 1)]).unwrap_err();
        assert!(matches!(error, WalError::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains("injected"), "{error}");
    }
    drop(wal);
    // The write is there to read, and would be gone after a loss of power. Opening rewrites it.
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len(), 1);
    drop(wal);
    disk.restart(0);
    assert_eq!(open(&disk).unwrap().1.entries, recovered.entries);
    assert_ne!(List::from(&recovered), list);
}

#[test]
fn reads_and_writes_that_stop_halfway_go_on() {
    let (disk, mut wal, mut list) = fresh();
    let group = [write(1, 10, 1), write(11, 30, 1), write(5, 10, 2)];
    for write in &group {
        list.write(write);
    }
    let start = disk.fork();
    wal.append(&group).unwrap();
    drop(wal);
    open(&disk).unwrap();
    let ops = disk.op_count() - start.op_count();
    for fault in [Fault::Short, Fault::Interrupted] {
        for op in 0..=ops {
            let disk = start.fork();
            disk.fail_in(op, fault);
            let (mut wal, _) = open(&disk).unwrap();
            wal.append(&group).unwrap();
            drop(wal);
            assert_eq!(List::from(&open(&disk).unwrap().1), list, "{fault:?} at {op}");
        }
    }
}
