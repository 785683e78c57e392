//! Hazards of storage that no other test is about alone, by their numbers in the project's list.

use bytes::Bytes;

use super::{DIR, List, create, entry, fresh, mark, open, segments, write};
use crate::record::SECTOR;
use crate::testing::{Fault, SimDisk};
use crate::{Options, WalError, Write};

#[test]
fn h077_nothing_is_written_behind_a_write_that_failed_halfway() {
    for fault in [Fault::Error, Fault::Full] {
        let (disk, mut wal, mut list) = fresh();
        let first = write(1, 3, 1);
        wal.append(std::slice::from_ref(&first)).unwrap();
        list.write(&first);
        // Half of it arrives, the rest fails: nothing may stand behind the hole.
        disk.fail_in(0, Fault::Short);
        disk.fail_in(1, fault);
        let second = write(4, 4, 1);
        wal.append(std::slice::from_ref(&second)).unwrap_err();
        assert!(wal.is_poisoned());
        let after = disk.contents(&segments(&disk)[0]).unwrap();
        for _ in 0..3 {
            let error = wal.append(&[write(4, 4, 1)]).unwrap_err();
            assert!(matches!(error, WalError::Poisoned { .. }), "{error}");
        }
        assert_eq!(disk.contents(&segments(&disk)[0]).unwrap(), after, "nothing more was written");
        drop(wal);
        disk.clear_faults();
        disk.kill();
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(List::from(&recovered), list, "{fault:?}");
        wal.append(std::slice::from_ref(&second)).unwrap();
        list.write(&second);
        drop(wal);
        assert_eq!(List::from(&open(&disk).unwrap().1), list);
    }
}

#[test]
fn h085_what_a_file_held_before_is_never_read_again() {
    for while_open in [false, true] {
        let (disk, mut wal, mut list) = fresh();
        for (first, count) in [(1, 8), (9, 8), (17, 3)] {
            let write = write(first, count, 1);
            wal.append(std::slice::from_ref(&write)).unwrap();
            list.write(&write);
        }
        assert_eq!(wal.segment_count(), 2);
        assert!(disk.contents(format!("{DIR}/spare.tmp")).is_err(), "not reserved yet");
        // The file of the next segment is there already, with valid records of an earlier life.
        let old = disk.contents(&segments(&disk)[1]).unwrap();
        let spare = format!("{DIR}/spare.tmp");
        if while_open {
            // Where a reservation failed halfway.
            let _ = disk.destroy(&spare);
            disk.put(&spare, old.clone()).unwrap();
        } else {
            drop(wal);
            disk.put(&spare, old.clone()).unwrap();
            wal = open(&disk).unwrap().0;
            assert!(disk.contents(&spare).is_err(), "not taken over");
        }
        let mut is_fresh = false;
        while wal.segment_count() < 3 {
            let write = write(list.last().0 + 1, 1, 1);
            wal.append(std::slice::from_ref(&write)).unwrap();
            list.write(&write);
            let reserved = disk.contents(&spare);
            is_fresh |= reserved.is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        }
        assert!(is_fresh, "it began as zeros, open {while_open}");
        drop(wal);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!((List::from(&recovered), recovered.torn), (list, None), "{while_open}");
    }
}

#[test]
fn h094_a_write_of_several_parts_is_there_whole_or_not_at_all() {
    let disk = SimDisk::new();
    create(&disk, &Options { segment_bytes: 8192 }).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    let mut before = List::from(&recovered);
    let first = write(1, 5, 1);
    wal.append(std::slice::from_ref(&first)).unwrap();
    before.write(&first);
    let file = &segments(&disk)[0];
    let old = disk.contents(file).unwrap();
    let parts = Write { install: Some(mark(3, 1)), ..write(5, 9, 2) };
    wal.append(std::slice::from_ref(&parts)).unwrap();
    drop(wal);
    let mut after = before.clone();
    after.write(&parts);
    let new = disk.contents(file).unwrap();
    let changed: Vec<_> = (0..new.len() / SECTOR)
        .filter(|sector| old[sector * SECTOR..][..SECTOR] != new[sector * SECTOR..][..SECTOR])
        .collect();
    assert!((3..8).contains(&changed.len()), "{changed:?}");
    for kept in 0..1u32 << changed.len() {
        let disk = disk.fork();
        disk.edit(file, |bytes| {
            for (bit, sector) in changed.iter().enumerate() {
                if kept & 1 << bit == 0 {
                    let place = sector * SECTOR..(sector + 1) * SECTOR;
                    bytes[place.clone()].copy_from_slice(&old[place]);
                }
            }
        });
        let whole = kept + 1 == 1 << changed.len();
        let want = if whole { &after } else { &before };
        assert_eq!(&List::from(&open(&disk).unwrap().1), want, "kept {kept:b}");
    }
}

#[test]
fn h096_a_log_is_reset_to_a_far_higher_index() {
    let (disk, mut wal, mut list) = fresh();
    for step in [
        write(1, 9, 1),
        Write { install: Some(mark(1 << 50, 8)), ..Write::default() },
        write((1 << 50) + 1, 9, 8),
        Write { install: Some(mark(u64::MAX - 100, 9)), ..write(u64::MAX - 99, 90, 9) },
    ] {
        wal.append(std::slice::from_ref(&step)).unwrap();
        list.write(&step);
        drop(wal);
        disk.restart(1);
        let (reopened, recovered) = open(&disk).unwrap();
        assert_eq!(List::from(&recovered), list);
        wal = reopened;
    }
    // The end of all indexes is an error, and no wrap.
    let beyond = Write { entries: vec![entry(u64::MAX, 9, 1)], ..Write::default() };
    assert!(wal.append(&[beyond]).is_err());
}

#[test]
fn h099_a_group_that_fails_takes_nothing_with_it_that_was_safe() {
    for (fault, at) in [Fault::Error, Fault::Full, Fault::PowerLoss]
        .into_iter()
        .flat_map(|fault| [(fault, 0), (fault, 1)])
    {
        for seed in 0..20 {
            let (disk, mut wal, mut list) = fresh();
            let safe = write(1, 5, 1);
            wal.append(std::slice::from_ref(&safe)).unwrap();
            list.write(&safe);
            disk.fail_in(at, fault);
            let state = Some(Bytes::from_static(b"unsafe"));
            let group = [write(6, 3, 1), Write { hard_state: state, ..write(2, 2, 2) }];
            wal.append(&group).unwrap_err();
            drop(wal);
            disk.restart(seed);
            let found = List::from(&open(&disk).unwrap().1);
            // All of the first group, and of the second any first part.
            let mut possible = vec![list.clone()];
            for write in &group {
                list.write(write);
                possible.push(list.clone());
            }
            assert!(possible.contains(&found), "{fault:?} at {at}, seed {seed}: {found:?}");
        }
    }
}
