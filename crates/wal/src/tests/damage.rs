//! Every byte of a log, damaged in every way that disks and people know.

use std::path::Path;

use bytes::Bytes;
use quorate_types::{GroupId, Index, Life, Mark, NodeId};

use super::{DIR, List, OWNER, SMALL, create, entry, fresh, inspect, mark, open, segments, write};
use crate::record::{Base, Pen, SECTOR, SegmentHeader};
use crate::testing::{Chance, SimDisk};
use crate::{Damage, Disk, Identity, Misfit, Options, Wal, WalError, Write};

/// A log of three segments, all synced.
fn log() -> (SimDisk, List) {
    let (disk, mut wal, mut list) = fresh();
    for (first, count) in [(1, 8), (9, 8), (17, 3), (20, 11), (31, 6)] {
        let write = write(first, count, 1);
        wal.append(std::slice::from_ref(&write)).unwrap();
        list.write(&write);
    }
    assert_eq!(wal.segment_count(), 3);
    (disk_of(wal, disk), list)
}

fn disk_of(wal: Wal, disk: SimDisk) -> SimDisk {
    drop(wal);
    disk
}

/// Whether this is a refusal that names the file and is no accident of the system.
fn is_damage(error: &WalError) -> bool {
    matches!(error, WalError::Damaged { .. })
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let (disk, list) = log();
    let files = segments(&disk);
    let last = disk.contents(&files[2]).unwrap();
    let end = last.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(SECTOR);
    let mut places = Vec::new();
    for file in &files {
        places.extend((0..disk.contents(file).unwrap().len()).map(|at| (file, at)));
    }
    // Each bit of it, and all of them.
    let flips = (0..8).map(|bit| 1 << bit).chain([0xff]).collect::<Vec<u8>>();
    let half = |places: &[(&String, usize)]| {
        let disk = disk.fork();
        for (file, at) in places {
            for flip in &flips {
                disk.edit(file, |bytes| bytes[*at] ^= flip);
                match inspect(&disk) {
                    Err(error) if is_damage(&error) => {}
                    // In space that was never written to it harms nothing, and is cleared.
                    Ok(recovered) if **file == files[2] && end + SECTOR <= *at => {
                        assert_eq!(List::from(&recovered), list);
                        assert_eq!(recovered.torn.unwrap().offset, end as u64);
                    }
                    other => panic!("{file} byte {at} flip {flip:x}: {other:?}"),
                }
                disk.edit(file, |bytes| bytes[*at] ^= flip);
            }
        }
    };
    std::thread::scope(|scope| {
        for places in places.chunks(places.len().div_ceil(2)) {
            scope.spawn(|| half(places));
        }
    });
    println!("{} damaged logs", places.len() * flips.len());
    assert!(100_000 < places.len() * flips.len());
    assert_eq!(List::from(&inspect(&disk).unwrap()), list);
}

#[test]
fn a_cut_file_is_found_wherever_it_is_cut() {
    let (disk, _) = log();
    for file in segments(&disk) {
        let whole = disk.contents(&file).unwrap();
        for length in 0..whole.len() {
            disk.edit(&file, |bytes| bytes.truncate(length));
            let error = inspect(&disk).unwrap_err();
            assert!(is_damage(&error), "{file} cut to {length}: {error}");
            disk.edit(&file, |bytes| bytes.clone_from(&whole));
        }
        disk.edit(&file, |bytes| bytes.push(0));
        assert!(is_damage(&inspect(&disk).unwrap_err()), "{file} with a byte more");
        disk.edit(&file, |bytes| bytes.truncate(whole.len()));
    }
}

#[test]
fn a_lost_sector_is_found_except_in_the_last_group() {
    let (disk, list) = log();
    let mut without_last = list.clone();
    without_last.entries.truncate(30);
    without_last.hard_state = Some(Bytes::from_static(b"state 1 at 20"));
    let files = segments(&disk);
    let mut torn_count = 0;
    for (number, file) in files.iter().enumerate() {
        let whole = disk.contents(file).unwrap();
        for sector in 0..whole.len() / SECTOR {
            let place = sector * SECTOR..(sector + 1) * SECTOR;
            if whole[place.clone()].iter().all(|byte| *byte == 0) {
                continue;
            }
            disk.edit(file, |bytes| bytes[place.clone()].fill(0));
            // Only the header and the base of the last segment are known to have been synced.
            match inspect(&disk) {
                Ok(recovered) if number == 2 && 2 <= sector => {
                    assert_eq!(List::from(&recovered), without_last, "sector {sector}");
                    assert!(recovered.torn.is_some());
                    torn_count += 1;
                }
                Err(error) if is_damage(&error) && !(number == 2 && 2 <= sector) => {}
                other => panic!("{file} without sector {sector}: {other:?}"),
            }
            disk.edit(file, |bytes| {
                bytes[place].copy_from_slice(&whole[sector * SECTOR..][..SECTOR]);
            });
        }
    }
    assert!(1 < torn_count);

    // One record behind it, and the group before is known to have been synced. The last of these
    // three is never synced.
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[write(37, 1, 1)]).unwrap();
    wal.append(&[Write { hard_state: Some(Bytes::new()), ..Write::default() }]).unwrap();
    assert_eq!(wal.segment_count(), 3);
    drop(wal);
    for sector in 2..3 + torn_count {
        let lost = disk.fork();
        lost.edit(&files[2], |bytes| bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0));
        let error = inspect(&lost).unwrap_err();
        let is_lost = matches!(&error, WalError::Damaged { damage: Damage::Lost { .. }, .. });
        assert!(is_lost, "sector {sector}: {error}");
    }
}

#[test]
fn any_part_of_the_last_write_is_a_torn_tail() {
    let disk = SimDisk::new();
    create(&disk, &Options { segment_bytes: 8192 }).unwrap();
    let (mut wal, recovered) = open(&disk).unwrap();
    let mut list = List::from(&recovered);
    let first = write(1, 3, 1);
    wal.append(std::slice::from_ref(&first)).unwrap();
    list.write(&first);
    let before = disk.contents(&segments(&disk)[0]).unwrap();
    // Two writes in one group, one of a single sector and one of several.
    let group = [write(4, 1, 1), Write { hard_state: None, ..write(5, 12, 1) }];
    wal.append(&group).unwrap();
    drop(wal);
    let file = &segments(&disk)[0];
    let after = disk.contents(file).unwrap();
    let changed: Vec<_> = (0..after.len() / SECTOR)
        .filter(|sector| before[sector * SECTOR..][..SECTOR] != after[sector * SECTOR..][..SECTOR])
        .collect();
    assert!((4..8).contains(&changed.len()));

    for kept in 0..1u32 << changed.len() {
        let disk = disk.fork();
        disk.edit(file, |bytes| {
            for (bit, sector) in changed.iter().enumerate() {
                if kept & 1 << bit == 0 {
                    bytes[sector * SECTOR..][..SECTOR].fill(0);
                }
            }
        });
        let mut want = list.clone();
        if kept & 1 == 1 {
            want.write(&group[0]);
        }
        let all = kept + 1 == 1 << changed.len();
        if all {
            want.write(&group[1]);
        }
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(List::from(&recovered), want, "kept {kept:b}");
        let nothing_left = if kept & 1 == 1 { kept == 1 } else { kept == 0 };
        assert_eq!(recovered.torn.is_none(), all || nothing_left, "kept {kept:b}");
        // What was cut never comes back, whatever is written over it.
        wal.append(&[write(want.last().0 + 1, 1, 1)]).unwrap();
        drop(wal);
        disk.restart(0);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.torn, None);
        assert_eq!(recovered.entries.len() as u64, want.last().0 + 1);
    }
}

#[test]
fn what_is_cut_off_is_gone_also_behind_a_large_write() {
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 1 << 20 };
    create(&disk, &options).unwrap();
    let open = |disk: &SimDisk| {
        let disk = std::sync::Arc::new(disk.clone());
        Wal::open(disk, Path::new(DIR), options.clone(), &mut |_, _| {}).unwrap()
    };
    let (mut wal, _) = open(&disk);
    let large = |index, bytes| Write {
        entries: vec![entry(index, 1, bytes)],
        must_sync: true,
        ..Write::default()
    };
    wal.append(&[large(1, 300_000)]).unwrap();
    drop(wal);
    // Its first sector is lost. What follows is too large to bring zeros of its own along.
    let file = &segments(&disk)[0];
    disk.edit(file, |bytes| bytes[2 * SECTOR..3 * SECTOR].fill(0));
    let (mut wal, recovered) = open(&disk);
    assert!(recovered.torn.is_some() && recovered.entries.is_empty());
    wal.append(&[large(1, 100_000)]).unwrap();
    drop(wal);
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.torn, recovered.entries.len()), (None, 1));
}

#[test]
fn a_write_torn_inside_a_sector_is_cut_or_refused_and_never_believed() {
    let (disk, mut wal, mut list) = fresh();
    let first = write(1, 2, 1);
    wal.append(std::slice::from_ref(&first)).unwrap();
    list.write(&first);
    let file = &segments(&disk)[0];
    let before = disk.contents(file).unwrap();
    let second = write(3, 6, 1);
    wal.append(std::slice::from_ref(&second)).unwrap();
    let mut both = list.clone();
    both.write(&second);
    drop(wal);
    let after = disk.contents(file).unwrap();
    let (mut cut, mut refused) = (0, 0);
    for at in 0..=after.len() {
        // The first bytes arrived, or the last ones did.
        for torn in [[&after[..at], &before[at..]].concat(), [&before[..at], &after[at..]].concat()]
        {
            disk.edit(file, |bytes| bytes.clone_from(&torn));
            match inspect(&disk) {
                Ok(recovered) if torn == after => assert_eq!(List::from(&recovered), both),
                Ok(recovered) => {
                    assert_eq!(List::from(&recovered), list, "torn at {at}");
                    assert_eq!(recovered.torn.is_none(), torn == before);
                    cut += 1;
                }
                Err(error) => {
                    assert!(is_damage(&error), "torn at {at}: {error}");
                    // Sectors are written whole or not at all; only a disk that breaks that is told.
                    assert_ne!(at % SECTOR, 0, "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(100 < cut && 100 < refused, "{cut} cut, {refused} refused");
}

#[test]
fn any_run_of_zeros_is_found_or_a_torn_tail() {
    let (disk, list) = log();
    let mut without_last = list.clone();
    without_last.entries.truncate(30);
    without_last.hard_state = Some(Bytes::from_static(b"state 1 at 20"));
    let files = segments(&disk);
    let mut count = 0;
    for file in &files {
        let whole = disk.contents(file).unwrap();
        for start in (0..whole.len()).step_by(SECTOR / 4) {
            for end in (start + SECTOR / 4..=whole.len()).step_by(SECTOR / 4) {
                if whole[start..end].iter().all(|byte| *byte == 0) {
                    continue;
                }
                count += 1;
                disk.edit(file, |bytes| bytes[start..end].fill(0));
                match inspect(&disk) {
                    // Whole sectors of the last group, or all of it.
                    Ok(recovered) => {
                        assert_eq!(file, &files[2], "{start}..{end}");
                        assert_eq!(List::from(&recovered), without_last, "{start}..{end}");
                    }
                    Err(error) => assert!(is_damage(&error), "{start}..{end}: {error}"),
                }
                disk.edit(file, |bytes| bytes[start..end].copy_from_slice(&whole[start..end]));
            }
        }
    }
    println!("{count} logs with zeros");
    assert!(1000 < count);
}

#[test]
fn segments_that_are_missing_doubled_or_swapped_are_found() {
    let (disk, _) = log();
    let files = segments(&disk);
    let contents: Vec<_> = files.iter().map(|file| disk.contents(file).unwrap()).collect();
    let damage = |disk: &SimDisk| match inspect(disk) {
        Err(WalError::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    };
    for (number, want) in [
        (0, Damage::MissingEntries { first: Index(1), last: Index(16) }),
        (1, Damage::MissingSegment { sequence: 2 }),
        (2, Damage::MissingSegment { sequence: 3 }),
    ] {
        let disk = disk.fork();
        disk.destroy(&files[number]).unwrap();
        assert_eq!(damage(&disk), want, "without {number}");
    }
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        let disk = disk.fork();
        disk.edit(&files[one], |bytes| bytes.clone_from(&contents[other]));
        disk.edit(&files[other], |bytes| bytes.clone_from(&contents[one]));
        assert!(matches!(damage(&disk), Damage::Misnamed { .. }), "{one} and {other} swapped");
        // Under names that agree with their headers they are the same files again.
    }
    let double = disk.fork();
    double
        .put(format!("{DIR}/0000000000000002-00000000000000ff.wal"), contents[1].clone())
        .unwrap();
    assert_eq!(damage(&double), Damage::DuplicateSegment { sequence: 2 });
    let renamed = disk.fork();
    renamed
        .put(format!("{DIR}/0000000000000004-0000000000000022.wal"), contents[2].clone())
        .unwrap();
    assert!(matches!(damage(&renamed), Damage::Misnamed { .. } | Damage::MissingSegment { .. }));
    // Files that are not ours are left alone.
    disk.put(format!("{DIR}/0000000000000002-00000000000000FF.wal"), vec![7]).unwrap();
    disk.put(format!("{DIR}/notes.txt"), vec![7]).unwrap();
    inspect(&disk).unwrap();
}

#[test]
fn a_segment_of_another_log_or_another_past_is_found() {
    let (disk, _) = log();
    let files = segments(&disk);
    for identity in [
        Identity { cluster: 1, ..OWNER },
        Identity { node: NodeId(9), ..OWNER },
        Identity { group: GroupId(9), ..OWNER },
        Identity { life: Life(9), ..OWNER },
    ] {
        let other = SimDisk::new();
        let disk_of_other = std::sync::Arc::new(other.clone());
        Wal::create(disk_of_other, DIR.as_ref(), identity, SMALL, &mark(0, 0), None).unwrap();
        let (mut wal, recovered) = open(&other).unwrap();
        assert_eq!(recovered.identity, identity);
        wal.append(&[write(1, 8, 1)]).unwrap();
        wal.append(&[write(9, 8, 1)]).unwrap();
        wal.append(&[write(17, 3, 1)]).unwrap();
        drop(wal);
        assert_eq!(segments(&other), files[..2], "the names alone do not tell");
        let mixed = disk.fork();
        mixed.edit(&files[1], |bytes| *bytes = other.contents(&files[1]).unwrap());
        match inspect(&mixed) {
            Err(WalError::Foreign { found, wanted, .. }) => {
                assert_eq!((found, wanted), (identity, OWNER));
            }
            other => panic!("{other:?}"),
        }
        // Single records of it do not fit either, though they lie at the same offset.
        let theirs = other.contents(&files[0]).unwrap();
        let mixed = disk.fork();
        mixed.edit(&files[0], |bytes| bytes[2 * SECTOR..].copy_from_slice(&theirs[2 * SECTOR..]));
        assert!(is_damage(&inspect(&mixed).unwrap_err()));
    }

    // The same owner, another history of the same shape.
    let (other, mut wal, _) = fresh();
    for (first, count) in [(1, 8), (9, 8), (17, 3)] {
        wal.append(&[write(first, count, 2)]).unwrap();
    }
    drop(wal);
    let mixed = disk.fork();
    mixed.edit(&files[1], |bytes| *bytes = other.contents(&files[1]).unwrap());
    match inspect(&mixed) {
        Err(WalError::Damaged { damage: Damage::Successor { .. }, file, .. }) => {
            assert_eq!(file, Path::new(&files[0]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_in_the_wrong_place_is_found() {
    let (disk, list) = log();
    let files = segments(&disk);
    let mut misplaced_count = 0;
    for (from_file, file) in [(0, 0), (0, 1), (1, 2), (2, 1)] {
        let from = disk.contents(&files[from_file]).unwrap();
        for source in 1..from.len() / SECTOR {
            for target in 1..from.len() / SECTOR {
                if (from_file, source) == (file, target) {
                    continue;
                }
                let old = disk.contents(&files[file]).unwrap();
                let sector = &from[source * SECTOR..][..SECTOR];
                // Zeros are a lost sector, which another test is about.
                if sector == &old[target * SECTOR..][..SECTOR] || sector.iter().all(|b| *b == 0) {
                    continue;
                }
                disk.edit(&files[file], |b| b[target * SECTOR..][..SECTOR].copy_from_slice(sector));
                match inspect(&disk) {
                    Err(WalError::Damaged { damage: Damage::Misplaced { .. }, .. }) => {
                        misplaced_count += 1;
                    }
                    Err(error) if is_damage(&error) => {}
                    // Behind the end of the last segment it is no record of the log.
                    Ok(recovered) if file == 2 => assert_eq!(List::from(&recovered), list),
                    other => panic!("{from_file}/{source} over {file}/{target}: {other:?}"),
                }
                disk.edit(&files[file], |b| b.clone_from(&old));
            }
        }
    }
    assert!(0 < misplaced_count);
}

#[test]
fn a_record_of_another_past_in_its_own_place_is_found() {
    let (disk, wal, _) = fresh();
    drop(wal);
    let live = |disk: &SimDisk, stamp| {
        let (mut wal, _) = open(disk).unwrap();
        wal.append(&[write(1, 2, stamp)]).unwrap();
        wal.append(&[write(3, 2, 5)]).unwrap();
        drop(wal);
        disk.contents(&segments(disk)[0]).unwrap()
    };
    let other = live(&disk.fork(), 2);
    live(&disk, 1);
    disk.edit(&segments(&disk)[0], |b| b[3 * SECTOR..].copy_from_slice(&other[3 * SECTOR..]));
    match inspect(&disk) {
        Err(WalError::Damaged { offset: 1536, damage: Damage::Chain, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_changes_nothing_and_says_where_it_is() {
    let (disk, _) = log();
    let files = segments(&disk);
    disk.edit(&files[1], |bytes| bytes[SECTOR + 600] ^= 4);
    let before: Vec<_> = files.iter().map(|file| disk.contents(file).unwrap()).collect();
    let error = open(&disk).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&files[1]) && text.contains("offset 1024"), "{text}");
    let after: Vec<_> = files.iter().map(|file| disk.contents(file).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (disk, _) = log();
    let file = &segments(&disk)[2];
    let old = disk.contents(file).unwrap();
    disk.edit(file, |bytes| {
        bytes[8] = 3;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..SECTOR]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    match open(&disk) {
        Err(WalError::Format { found: 3, known: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    disk.edit(file, |bytes| bytes[..SECTOR].copy_from_slice(&old[..SECTOR]));
    open(&disk).unwrap();
}

/// A log of one segment whose bytes are made by hand, with valid checksums.
fn forged(base: &Base, records: impl FnOnce(&mut Pen, &mut Vec<u8>)) -> SimDisk {
    let disk = SimDisk::new();
    create(&disk, &SMALL).unwrap();
    let header = SegmentHeader {
        identity: OWNER,
        sequence: 7,
        first: base.last.next(),
        bytes: 8192,
        before_end: 1024,
        before_crc: 5,
    };
    let (sector, crc) = header.encode();
    let mut bytes = sector.to_vec();
    let mut pen = Pen::new(7, crc);
    pen.base(&mut bytes, base);
    records(&mut pen, &mut bytes);
    bytes.resize(8192, 0);
    disk.destroy(&segments(&disk)[0]).unwrap();
    disk.put(format!("{DIR}/{}", crate::segment::name(7, header.first)), bytes).unwrap();
    disk
}

#[test]
fn valid_checksums_do_not_excuse_nonsense() {
    let base = Base { mark: mark(10, 3), last: Index(10), last_stamp: 3, hard_state: None };
    let damage = |disk: &SimDisk| match inspect(disk) {
        Ok(_) => None,
        Err(WalError::Damaged { damage, .. }) => Some(damage),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(damage(&forged(&base, |pen, out| pen.write(out, &write(11, 2, 3), false, 0))), None);
    for (write, keeps, want) in [
        (write(12, 1, 3), false, Some(Misfit::Gap { index: Index(12), wanted: Index(11) })),
        (write(10, 1, 3), false, Some(Misfit::Covered { index: Index(10), mark: Index(10) })),
        (write(11, 1, 2), false, Some(Misfit::Backward { index: Index(11), stamp: 2, before: 3 })),
        (Write { entries: vec![entry(u64::MAX, 3, 1)], ..Write::default() }, false, None),
        (Write { install: Some(mark(9, 3)), ..Write::default() }, false, None),
        (Write { install: Some(mark(12, 3)), ..Write::default() }, true, None),
        (Write { install: Some(mark(10, 3)), ..Write::default() }, false, None),
    ] {
        let found = damage(&forged(&base, |pen, out| pen.write(out, &write, keeps, 0)));
        match want {
            Some(misfit) => assert_eq!(found, Some(Damage::Misfit(misfit)), "{write:?}"),
            None => assert!(found.is_some(), "{write:?}"),
        }
    }
    for mark in [mark(9, 3), mark(11, 3), mark(10, 4)] {
        let found = damage(&forged(&base, |pen, out| pen.compact(out, &mark)));
        assert!(matches!(found, Some(Damage::Misfit(_))), "{mark:?}");
    }
    let found = damage(&forged(&base, |pen, out| pen.base(out, &base)));
    assert!(matches!(found, Some(Damage::Nonsense { .. })));
    let found = damage(&forged(&base, |pen, out| pen.seal(out, 8)));
    assert_eq!(found, Some(Damage::MissingSegment { sequence: 8 }));
    let found = damage(&forged(&base, |pen, out| pen.seal(out, 9)));
    assert!(matches!(found, Some(Damage::Nonsense { .. })));
    let found = damage(&forged(&base, |pen, out| {
        pen.synced = 8192;
        pen.write(out, &write(11, 1, 3), false, 0);
    }));
    assert!(found.is_some());
    for (last, last_stamp) in [(9, 3), (10, 4), (11, 2)] {
        let base = Base { last: Index(last), last_stamp, ..base.clone() };
        assert!(damage(&forged(&base, |_, _| {})).is_some(), "base to {last}, stamp {last_stamp}");
    }
    // Entries that were in segments before this one must be taken away or covered.
    let far = Base { last: Index(20), last_stamp: 4, ..base.clone() };
    let found = damage(&forged(&far, |pen, out| pen.write(out, &write(15, 9, 4), false, 0)));
    assert_eq!(found, Some(Damage::MissingEntries { first: Index(11), last: Index(14) }));
    for (mark, keeps) in [(mark(14, 3), true), (mark(15, 4), true), (mark(30, 9), false)] {
        let install = Write { install: Some(mark), ..Write::default() };
        let disk = forged(&far, |pen, out| {
            pen.write(out, &write(15, 9, 4), false, 0);
            pen.write(out, &install, keeps, 0);
        });
        assert_eq!(damage(&disk), None, "{install:?}");
    }
}

#[test]
fn a_record_longer_than_its_file_is_found() {
    let base = Base { mark: mark(10, 3), last: Index(10), last_stamp: 3, hard_state: None };
    for sectors in [1, 4, 12, 13, 14, 1000] {
        let body = vec![1; sectors * SECTOR - 48];
        let disk = forged(&base, |pen, out| pen.raw(out, 2, &body));
        let found = match inspect(&disk) {
            Err(WalError::Damaged { damage, .. }) => damage,
            other => panic!("{sectors} sectors: {other:?}"),
        };
        let bytes = (sectors * SECTOR) as u64;
        match 14 < sectors {
            true => assert_eq!(found, Damage::TooLong { bytes, left: 8192 - 1024 }),
            false => assert!(matches!(found, Damage::Nonsense { .. }), "{sectors}: {found}"),
        }
    }
}

#[test]
fn a_segment_that_starts_from_another_state_is_found() {
    let base = Base { mark: mark(10, 3), last: Index(10), last_stamp: 3, hard_state: None };
    let other = Some(Bytes::from_static(b"x"));
    for (next, fits) in [
        (base.clone(), true),
        (Base { mark: mark(10, 2), last_stamp: 2, ..base.clone() }, false),
        (Base { mark: mark(9, 3), ..base.clone() }, false),
        (Base { mark: Mark { data: Bytes::new(), ..base.mark.clone() }, ..base.clone() }, false),
        (Base { last: Index(11), ..base.clone() }, false),
        (Base { last_stamp: 4, ..base.clone() }, false),
        (Base { hard_state: other, ..base.clone() }, false),
    ] {
        let (mut before_end, mut before_crc) = (0, 0);
        let disk = forged(&base, |pen, out| {
            (before_end, before_crc) = (pen.offset, pen.chain);
            pen.seal(out, 8);
        });
        let (sequence, first, bytes) = (8, next.last.next(), 4096);
        let header =
            SegmentHeader { identity: OWNER, sequence, first, bytes, before_end, before_crc };
        let (sector, crc) = header.encode();
        let mut file = sector.to_vec();
        Pen::new(sequence, crc).base(&mut file, &next);
        file.resize(4096, 0);
        disk.put(format!("{DIR}/{}", crate::segment::name(sequence, first)), file).unwrap();
        match inspect(&disk) {
            Ok(_) => assert!(fits, "{next:?}"),
            Err(WalError::Damaged { damage: Damage::Base, .. }) => assert!(!fits, "{next:?}"),
            other => panic!("{next:?}: {other:?}"),
        }
    }
}

#[test]
fn random_bodies_with_valid_checksums_never_panic() {
    let base = Base { mark: mark(10, 3), last: Index(10), last_stamp: 3, hard_state: None };
    let mut chance = Chance::new(1);
    for _ in 0..3000 {
        let mut body: Vec<u8> = (0..chance.below(120)).map(|_| chance.number() as u8).collect();
        // Small numbers lead deeper.
        for byte in &mut body {
            if chance.percent(70) {
                *byte = 0;
            }
        }
        let kind = chance.below(6) as u8;
        let disk = forged(&base, |pen, out| pen.raw(out, kind, &body));
        let _ = inspect(&disk);
    }
}

#[test]
fn what_is_left_of_a_damaged_log_takes_no_writes() {
    let (disk, _) = log();
    disk.edit(&segments(&disk)[0], |bytes| bytes[700] ^= 1);
    for _ in 0..2 {
        assert!(is_damage(&open(&disk).map(drop).unwrap_err()));
    }
    assert!(disk.list(Path::new(DIR)).unwrap().iter().any(|name| name == "LOCK"));
}
