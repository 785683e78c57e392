//! A log shown to people.

use std::path::Path;

use super::{DIR, List, OWNER, fresh, inspect, mark, open, segments, write};
use crate::testing::{Fault, SimDisk};
use crate::{Damage, Record, Seen, Survey, Wal, WalError};

/// Segment, offset, length and kind of what a survey shows.
type Shown = Vec<(u64, u64, u64, &'static str)>;

fn survey(disk: &SimDisk) -> (Result<Survey, WalError>, Shown) {
    let (mut shown, mut segment) = (Vec::new(), 0);
    let mut visit = |seen: Seen<'_>| match seen {
        Seen::Segment { sequence, bytes, identity, .. } => {
            assert_eq!(identity, OWNER);
            segment = sequence;
            shown.push((segment, 0, bytes, "segment"));
        }
        Seen::Record { offset, bytes, record, .. } => {
            let kind = match record {
                Record::Base(_) => "base",
                Record::Write { .. } => "write",
                Record::Compact(_) => "compact",
                Record::Seal(_) => "seal",
            };
            shown.push((segment, offset, bytes, kind));
        }
    };
    let found = Wal::survey(disk, Path::new(DIR), &mut |_, _| {}, &mut visit);
    (found, shown)
}

fn sample() -> (SimDisk, Wal, List) {
    let (disk, mut wal, mut list) = fresh();
    for (first, count) in [(1, 8), (9, 8), (17, 3)] {
        let write = write(first, count, 1);
        wal.append(std::slice::from_ref(&write)).unwrap();
        list.write(&write);
    }
    wal.compact(&mark(10, 1)).unwrap();
    list.start_after(&mark(10, 1));
    (disk, wal, list)
}

#[test]
fn every_record_is_shown_in_its_place() {
    let (disk, wal, list) = sample();
    let while_open = survey(&disk);
    drop(wal);
    let (found, shown) = survey(&disk);
    let found = found.unwrap();
    assert_eq!(List::from(&found.recovered), list);
    assert_eq!(shown, while_open.1);
    assert_eq!(while_open.0.unwrap(), Survey { is_live: true, ..found.clone() });
    let kinds: Vec<_> = shown.iter().map(|(.., kind)| *kind).collect();
    let want = ["segment", "base", "write", "write", "seal", "segment", "base", "write", "compact"];
    assert_eq!(kinds, want[..]);
    // Record after record without a gap.
    for pair in shown.windows(2) {
        let [(segment, offset, bytes, kind), (next_segment, next_offset, ..)] = *pair else {
            unreachable!()
        };
        if segment == next_segment {
            let end = if kind == "segment" { 512 } else { offset + bytes };
            assert_eq!(next_offset, end, "{shown:?}");
        }
    }
    let count = |kind| kinds.iter().filter(|found| **found == kind).count() as u64;
    assert_eq!(found.segments_count, count("segment"));
    assert_eq!(found.records_count, kinds.len() as u64 - count("segment"));
    assert!(!found.is_live);
}

#[test]
fn whoever_looks_changes_nothing_and_keeps_nobody_out() {
    let (disk, wal, list) = sample();
    let before: Vec<_> = segments(&disk).iter().map(|file| disk.contents(file).unwrap()).collect();
    // Taken by its owner, and still the owner's afterwards.
    survey(&disk).0.unwrap();
    assert!(matches!(open(&disk), Err(WalError::Locked { .. })));
    drop(wal);
    // An unfinished write is told, and left for the owner to cut.
    let last = segments(&disk).pop().unwrap();
    disk.edit(&last, |bytes| bytes[4095] = 7);
    let torn = survey(&disk).0.unwrap().recovered.torn.unwrap();
    assert_eq!(torn.file, Path::new(&last));
    assert_eq!(disk.contents(&last).unwrap()[4095], 7);
    disk.edit(&last, |bytes| bytes[4095] = 0);
    let after: Vec<_> = segments(&disk).iter().map(|file| disk.contents(file).unwrap()).collect();
    assert_eq!(before, after);
    assert_eq!(List::from(&open(&disk).unwrap().1), list);
}

#[test]
fn a_write_under_way_is_no_damage() {
    let (disk, wal, list) = sample();
    // The owner is in the middle of a write: the later sectors arrived, or one that says that more
    // was synced than is there yet.
    let last = segments(&disk).pop().unwrap();
    let end = disk.contents(&last).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    disk.edit(&last, |bytes| bytes[end.next_multiple_of(512) + 512] = 1);
    let (found, shown) = survey(&disk);
    let found = found.unwrap();
    assert_eq!((List::from(&found.recovered), found.recovered.torn), (list, None));
    assert_eq!(shown.len() as u64, found.segments_count + found.records_count);
    drop(wal);
    assert!(survey(&disk).0.unwrap().recovered.torn.is_some(), "nobody is writing");
}

#[test]
fn damage_is_shown_up_to_where_it_is() {
    for is_live in [false, true] {
        let (disk, wal, _) = sample();
        let file = &segments(&disk)[0];
        disk.edit(file, |bytes| bytes[1024 + 100] ^= 1);
        let _wal = is_live.then_some(wal);
        let (found, shown) = survey(&disk);
        match found {
            Err(WalError::Damaged { offset: 1024, damage: Damage::RecordBody, .. }) => {}
            other => panic!("{other:?}"),
        }
        let kinds: Vec<_> = shown.iter().map(|(.., kind)| *kind).collect();
        assert_eq!(kinds, ["segment", "base"], "nothing twice, live {is_live}");
    }
}

#[test]
fn a_log_that_changes_while_it_is_looked_at_is_looked_at_again() {
    let (disk, _wal, list) = sample();
    // As if a file had been compacted away between two operations.
    for op in 0..6 {
        disk.fail_in(op, Fault::Error);
        let (found, shown) = survey(&disk);
        disk.clear_faults();
        match found {
            Ok(found) => {
                assert_eq!(List::from(&found.recovered), list);
                assert_eq!(shown.len() as u64, found.segments_count + found.records_count);
            }
            // Whether there is a log, and whether someone has it, is asked once.
            Err(error) => assert!(op < 2, "op {op}: {error}"),
        }
    }
    assert!(matches!(
        Wal::survey(&SimDisk::new(), Path::new(DIR), &mut |_, _| {}, &mut |_| {}),
        Err(WalError::Absent { .. })
    ));
}

#[test]
fn a_log_is_known_by_its_newest_segment() {
    let (disk, wal, _) = sample();
    let identify = |disk: &SimDisk| Wal::identify(disk, Path::new(DIR));
    assert!(matches!(identify(&disk), Err(WalError::Locked { .. })), "it is in use");
    drop(wal);
    // Nothing else is looked at.
    disk.edit(&segments(&disk)[0], |bytes| bytes[600] ^= 1);
    assert_eq!(identify(&disk).unwrap(), OWNER);
    inspect(&disk).unwrap_err();
    disk.edit(segments(&disk).pop().unwrap(), |bytes| bytes[20] ^= 1);
    let error = identify(&disk).unwrap_err();
    assert!(matches!(error, WalError::Damaged { damage: Damage::SegmentHeader, .. }), "{error}");
    assert!(matches!(identify(&SimDisk::new()), Err(WalError::Absent { .. })));
}
