//! Long random lives against a list in memory.

use bytes::Bytes;
use quorate_types::{Index, Mark};

use super::{List, create, entry, open};
use crate::testing::{Chance, Fault, SimDisk};
use crate::{Options, Write};

#[test]
fn a_random_life_is_remembered() {
    for seed in 0..300 {
        let disk = SimDisk::new();
        let mut chance = Chance::new(seed);
        create(&disk, &Options { segment_bytes: 4096 << chance.below(3) }).unwrap();
        let mut possible = None;
        for _ in 0..12 {
            // No crash comes between what was recovered and its being compared.
            let (wal, recovered) = open(&disk).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            drop(wal);
            let found = List::from(&recovered);
            if let Some(states) = &possible {
                let states: &Vec<List> = states;
                assert!(states.contains(&found), "seed {seed}: found {found:?}");
            }
            disk.restart(chance.number());
            possible = Some(live(&disk, &mut chance, found, seed));
        }
    }
}

/// Opens the log and uses it until something fails or it has lived long enough. Answers all that
/// may be found afterwards.
fn live(disk: &SimDisk, chance: &mut Chance, found: List, seed: u64) -> Vec<List> {
    let mut states = vec![found];
    let (mut wal, recovered) = open(disk).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    assert_eq!(List::from(&recovered), states[0], "seed {seed}: what was recovered is durable");
    if chance.percent(70) {
        let fault = match chance.below(4) {
            0 => Fault::Error,
            1 => Fault::Full,
            _ => Fault::PowerLoss,
        };
        disk.fail_in(chance.below(100), fault);
    }
    for _ in 0..chance.below(40) {
        let mut list = states.last().expect("one is always possible").clone();
        let (mut tried, syncs, result);
        if chance.percent(12) && list.mark.index < list.last() {
            let mark = place(&list, chance);
            list.start_after(&mark);
            (tried, syncs, result) = (vec![list], true, wal.compact(&mark));
        } else {
            tried = Vec::new();
            let group: Vec<_> = (0..chance.below(4))
                .map(|_| {
                    let write = write(&list, chance);
                    list.write(&write);
                    tried.push(list.clone());
                    write
                })
                .collect();
            syncs = group.iter().any(|write| write.must_sync || write.install.is_some());
            result = wal.append(&group);
        }
        states.extend(tried);
        if result.is_err() {
            break;
        }
        if syncs {
            // Only the last one will do from now on.
            states.drain(..states.len() - 1);
        }
    }
    drop(wal);
    if chance.percent(50) || disk.is_off() {
        disk.restart(chance.number());
    } else {
        disk.kill();
    }
    disk.clear_faults();
    states
}

/// An entry of the list, as a mark.
fn place(list: &List, chance: &mut Chance) -> Mark {
    let entry = &list.entries[chance.below(list.entries.len() as u64) as usize];
    let data = Bytes::from(vec![b'm'; chance.below(40) as usize]);
    Mark { index: entry.index, stamp: entry.stamp, data }
}

fn write(list: &List, chance: &mut Chance) -> Write {
    let mut write = Write { must_sync: chance.percent(50), ..Write::default() };
    if chance.percent(40) {
        write.hard_state = Some(Bytes::from(vec![b's'; chance.below(30) as usize]));
    }
    let (mut last, mut stamp) = (list.last().0, list.last_stamp());
    if chance.percent(6) {
        let mark = if chance.percent(50) && !list.entries.is_empty() {
            place(list, chance)
        } else {
            let index = Index(list.mark.index.0 + chance.below(60));
            let stamp = list.last_stamp() + 1;
            Mark { index, stamp, data: Bytes::from_static(b"from a leader") }
        };
        let mut after = list.clone();
        after.write(&Write { install: Some(mark.clone()), ..Write::default() });
        (last, stamp) = (after.last().0, after.last_stamp());
        write.install = Some(mark);
    } else if chance.percent(15) && !list.entries.is_empty() {
        // A new leader replaces a tail.
        let back = chance.below(list.entries.len().min(50) as u64) as usize;
        last = list.entries[list.entries.len() - 1 - back].index.0 - 1;
        // Perhaps by nothing.
        write.cut_from = chance.percent(50).then_some(Index(last + 1));
        stamp += 1;
    }
    if chance.percent(80) {
        let bytes = if chance.percent(5) { 6000 } else { chance.below(300) as usize };
        let count = 1 + chance.below(8);
        write.entries = (last + 1..=last + count).map(|index| entry(index, stamp, bytes)).collect();
    }
    write
}
