//! Where the history ends, what of it is durable, and what writes say.

use quorate_types::Index;

use super::*;
use crate::{Epoch, MemoryStorage};

fn id(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

struct Disk {
    storage: MemoryStorage,
    history: History<MemoryStorage>,
    cut: u64,
    pending: Vec<Write>,
}

impl Disk {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        let history = History::new(storage.clone()).unwrap();
        Disk { storage, history, cut: 0, pending: Vec::new() }
    }

    fn append(&mut self, ids: &[Zxid]) {
        for zxid in ids {
            self.history.append(*zxid, Command::set("k", zxid.to_string()));
        }
        self.history.check();
    }

    fn cut(&mut self) {
        self.cut += 1;
        let mut write = Write { id: WriteId(self.cut), ..Write::default() };
        self.history.cut(&mut write);
        self.pending.push(write);
        self.history.check();
    }

    fn sync(&mut self) {
        let write = self.pending.remove(0);
        self.storage.write(&write).unwrap();
        self.history.on_persisted(write.id);
        self.history.check();
    }

    fn ids(&self) -> Vec<Zxid> {
        let first = self.history.first().unwrap();
        let last = self.history.last();
        let mut ids = Vec::new();
        let mut lo = first;
        while lo <= last {
            let entries = self.history.entries(lo, last, 40).unwrap();
            lo += entries.len() as u64;
            ids.extend(entries.iter().map(|entry| entry.zxid));
        }
        ids
    }
}

#[test]
fn what_is_written_becomes_durable_in_order() {
    let mut disk = Disk::new();
    disk.append(&[id(1, 1), id(1, 2)]);
    assert_eq!((disk.history.last(), disk.history.durable()), (Index(2), Index(0)));
    disk.cut();
    disk.append(&[id(1, 3)]);
    assert!(disk.history.has_unsaved());
    disk.sync();
    assert_eq!(disk.history.durable(), Index(2));
    assert_eq!(disk.ids(), [id(1, 1), id(1, 2), id(1, 3)], "half of it from the disk");
    disk.cut();
    assert!(!disk.history.has_unsaved());
    disk.sync();
    assert_eq!(disk.history.durable(), Index(3));
}

#[test]
fn a_write_says_nothing_of_what_a_later_one_replaces() {
    let mut disk = Disk::new();
    disk.append(&[id(1, 1), id(1, 2), id(1, 3)]);
    disk.cut();
    disk.history.truncate(Index(1)).unwrap();
    disk.append(&[id(2, 1)]);
    disk.sync();
    assert_eq!(disk.history.durable(), Index(1), "the disk has other entries after it");
    assert_eq!(disk.ids(), [id(1, 1), id(2, 1)]);
    disk.cut();
    // And back again while that is on its way.
    disk.history.truncate(Index(1)).unwrap();
    disk.append(&[id(3, 1), id(3, 2)]);
    disk.cut();
    disk.sync();
    assert_eq!(disk.history.durable(), Index(1));
    disk.sync();
    assert_eq!(disk.history.durable(), Index(3));
    assert_eq!(disk.ids(), [id(1, 1), id(3, 1), id(3, 2)]);
}

#[test]
fn a_tail_is_removed_in_one_write_with_what_takes_its_place() {
    let mut disk = Disk::new();
    disk.append(&[id(1, 1), id(1, 2), id(1, 3)]);
    disk.cut();
    disk.sync();
    disk.history.truncate(Index(2)).unwrap();
    disk.append(&[id(2, 1)]);
    disk.cut();
    let write = disk.pending.last().unwrap();
    assert_eq!(write.replace_from, Some(Index(3)));
    assert_eq!(write.entries.len(), 1);
    disk.sync();
    // Nothing need take its place.
    disk.history.truncate(Index(1)).unwrap();
    disk.cut();
    let write = disk.pending.last().unwrap();
    assert_eq!((write.replace_from, write.entries.len()), (Some(Index(2)), 0));
    disk.sync();
    assert_eq!(disk.storage.last_index(), Ok(Index(1)));
}

#[test]
fn a_snapshot_stands_for_what_it_replaces() {
    let mut disk = Disk::new();
    disk.append(&[id(1, 1), id(1, 2)]);
    disk.cut();
    let snapshot = Snapshot { index: Index(9), zxid: id(4, 1), data: "s".into() };
    disk.history.install(snapshot.clone());
    disk.append(&[id(4, 2)]);
    assert_eq!((disk.history.first(), disk.history.last()), (Ok(Index(10)), Index(10)));
    assert_eq!(disk.history.place(id(4, 1)), Ok(Some(Index(9))));
    assert_eq!(disk.history.place(id(1, 1)), Ok(None));
    disk.sync();
    assert_eq!(disk.history.durable(), Index(0), "not even what was before is of use now");
    disk.cut();
    assert_eq!(disk.pending[0].install, Some(snapshot));
    disk.sync();
    assert_eq!(disk.history.durable(), Index(10));
    assert_eq!(disk.ids(), [id(4, 2)]);
    assert_eq!(disk.storage.zxid(Index(9)), Ok(id(4, 1)));
}

#[test]
fn places_are_found_by_id() {
    let mut disk = Disk::new();
    disk.append(&[id(1, 1), id(1, 2), id(2, 1), id(3, 1)]);
    disk.cut();
    disk.sync();
    disk.append(&[id(3, 2), id(5, 1)]);
    for (zxid, at_most, exactly) in [
        (Zxid::ZERO, Some(0), Some(0)),
        (id(1, 0), Some(0), None),
        (id(1, 1), Some(1), Some(1)),
        (id(1, 9), Some(2), None),
        (id(2, 1), Some(3), Some(3)),
        (id(3, 2), Some(5), Some(5)),
        (id(4, 4), Some(5), None),
        (id(5, 1), Some(6), Some(6)),
        (id(9, 9), Some(6), None),
    ] {
        assert_eq!(disk.history.place_at_most(zxid), Ok(at_most.map(Index)), "{zxid}");
        assert_eq!(disk.history.place(zxid), Ok(exactly.map(Index)), "{zxid}");
    }
    disk.storage.make_snapshot(Index(3), "s".into()).unwrap();
    disk.storage.compact(Index(3)).unwrap();
    for (zxid, want) in [(id(1, 2), None), (id(2, 1), Some(3)), (id(3, 1), Some(4))] {
        assert_eq!(disk.history.place(zxid), Ok(want.map(Index)), "{zxid}, compacted");
    }
    assert_eq!(disk.history.known_zxid(Index(2)), Ok(None));
}

/// A storage that gives other entries than it was asked for.
struct Damaged(MemoryStorage, fn(&mut Vec<Entry>));

impl Storage for Damaged {
    fn hard_state(&self) -> Result<crate::HardState, StorageError> {
        self.0.hard_state()
    }
    fn first_index(&self) -> Result<Index, StorageError> {
        self.0.first_index()
    }
    fn last_index(&self) -> Result<Index, StorageError> {
        self.0.last_index()
    }
    fn zxid(&self, index: Index) -> Result<Zxid, StorageError> {
        self.0.zxid(index)
    }
    fn entries(&self, lo: Index, hi: Index, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        let mut entries = self.0.entries(lo, hi, bytes_max)?;
        self.1(&mut entries);
        Ok(entries)
    }
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.0.snapshot()
    }
}

#[test]
fn damage_in_the_middle_is_never_taken_for_the_end() {
    let mut disk = Disk::new();
    disk.append(&[id(1, 1), id(1, 2), id(1, 3)]);
    disk.cut();
    disk.sync();
    type Damage = fn(&mut Vec<Entry>);
    let table: [(&str, Damage); 5] = [
        ("nothing", |entries| entries.clear()),
        ("a hole", |entries| drop(entries.remove(1))),
        ("another order", |entries| entries.swap(0, 1)),
        ("an id that goes back", |entries| entries[1].zxid = Zxid::ZERO),
        ("too much", |entries| entries.extend(entries.clone())),
    ];
    for (what, damage) in table {
        let history = History::new(Damaged(disk.storage.clone(), damage)).unwrap();
        let found = history.entries(Index(1), Index(3), u64::MAX);
        assert!(matches!(found, Err(Fatal::Damaged { .. })), "{what}: {found:?}");
    }
}
