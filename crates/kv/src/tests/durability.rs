//! Flushes, restarts, and what a store refuses.

use super::*;

#[test]
fn a_flush_keeps_all_and_a_restart_loses_the_rest() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    node.put("a", "1");
    assert_eq!((node.store.overlay_count(), node.store.flushed_index()), (1, Index(0)));
    assert_eq!(node.store.flush().unwrap(), Index(1));
    assert_eq!((node.store.overlay_count(), node.store.overlay_bytes()), (0, 0));
    node.put("b", "2");
    node.put("a", "3");
    drop(node.store);
    let store = Store::open(disk).unwrap();
    let applied = store.applied();
    assert_eq!((applied.index, applied.term), (Index(1), Term(3)));
    assert_eq!((store.revision(), store.cluster_id()), (2, 77));
    assert_eq!(pairs(&store.range(&range("\0", "\0")).unwrap().kvs), ["a=1"]);
    assert_eq!(store.members(), initial().members);
    store.apply(&node.log).unwrap();
    assert_eq!(pairs(&store.range(&range("\0", "\0")).unwrap().kvs), ["a=3", "b=2"]);
    assert_eq!(store.revision(), 4);
}

#[test]
fn entries_that_came_before_are_passed_over() {
    let mut node = Node::new();
    node.put("a", "1");
    node.put("a", "2");
    let outcome = node.store.apply(&node.log).unwrap();
    assert_eq!(outcome.responses, [Ok(Response::Nothing), Ok(Response::Nothing)]);
    assert_eq!(node.store.revision(), 3);
}

#[test]
fn empty_entries_move_the_applied_index_only() {
    let node = Node::new();
    let empty = Entry { index: Index(1), term: Term(9), what: Apply::Empty, answer_wanted: true };
    assert_eq!(node.store.apply(&[empty]).unwrap().responses, [Ok(Response::Nothing)]);
    assert_eq!((node.store.applied().index, node.store.revision()), (Index(1), 1));
    assert_eq!(node.store.flush().unwrap(), Index(1));
}

#[test]
fn what_cannot_be_applied_stops_the_member_before_anything_is_written() {
    let good = entry(1, &Command::Put(put("a", "1")));
    let bad = |bytes: &'static [u8]| {
        let what = Apply::Command(Bytes::from_static(bytes));
        Entry { index: Index(2), term: Term(3), what, answer_wanted: true }
    };
    let node = Node::new();
    for bytes in [&[1, 99][..], &[9, 1], &[1, 1, 5], &[]] {
        let got = node.store.apply(&[good.clone(), bad(bytes)]);
        assert!(matches!(got, Err(StoreError::Command { index: Index(2), .. })), "{got:?}");
    }
    let gap = Entry { index: Index(3), ..good.clone() };
    let got = node.store.apply(&[good.clone(), gap]);
    assert!(matches!(got, Err(StoreError::Gap { index: Index(3), applied: Index(1) })), "{got:?}");
    assert_eq!((node.store.applied().index, node.store.revision()), (Index(0), 1));
    node.store.apply(&[good]).unwrap();
    assert_eq!(node.store.revision(), 2);
}

#[test]
fn storage_is_told_apart() {
    let disk = MemoryBackend::new();
    assert!(matches!(Store::open(disk.clone()), Err(StoreError::Missing)));
    drop(Store::create(disk.clone(), initial()).unwrap());
    assert!(matches!(Store::create(disk.clone(), initial()), Err(StoreError::NotEmpty)));
    for (key, row, want) in [
        (&b"format"[..], &[1][..], "has format 1; this version reads formats 2 to 4"),
        (b"format", &[5], "has format 5"),
        (b"restoring", b"1", "half restored"),
        (b"state", b"?", "state row"),
    ] {
        let disk = MemoryBackend::new();
        drop(Store::create(disk.clone(), initial()).unwrap());
        let mut batch = Batch::default();
        match key {
            b"state" => batch.put_sealed(Table::Meta, key, row),
            _ => batch.put(Table::Meta, key, row),
        }
        disk.clone().commit(&batch).unwrap();
        let refused = Store::open(disk).unwrap_err().to_string();
        assert!(refused.contains(want), "{refused}");
    }
    for (table, key, row, want) in [
        (Table::Key, &[0; 17][..], &[1][..], "without a revision"),
        (Table::Key, b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0", &[1], "later than the current"),
        (Table::Key, b"\0\0\0\0\0\0\0\x01_\0\0\0\0\0\0\0\0", &[7], "kind of row"),
        (Table::Member, b"12345678", &[7], "member"),
    ] {
        let disk = MemoryBackend::new();
        drop(Store::create(disk.clone(), initial()).unwrap());
        let mut batch = Batch::default();
        batch.put_sealed(table, key, row);
        disk.clone().commit(&batch).unwrap();
        let refused = Store::open(disk).unwrap_err().to_string();
        assert!(refused.contains(want), "{refused}");
    }
}

#[test]
fn the_revision_survives_its_own_compaction() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    node.put("a", "1"); // 2
    node.delete("a", ""); // 3
    node.put("b", "1"); // 4
    node.delete("b", ""); // 5
    node.compact(5).unwrap();
    for stage in 0..3 {
        assert!(node.store.compact_step(100).unwrap());
        node.store.flush().unwrap();
        drop(node.store);
        node.store = Store::open(disk.clone()).unwrap();
        assert_eq!((node.store.revision(), node.store.compact_revision()), (5, 5), "{stage}");
        assert_eq!(node.all_at(4), Err(KvError::Compacted));
    }
    assert_eq!(node.put("c", "1"), 6);
    assert_eq!(node.put("c", "2"), 7);
    node.compact(7).unwrap();
    assert!(node.store.compact_step(100).unwrap());
    node.store.flush().unwrap();
    assert_eq!(node.store.keys_count(), 1, "nothing is left of a and b");
}

#[test]
fn removal_goes_on_after_a_restart() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    for number in 0..40 {
        node.put(&format!("k{}", number % 10), "v");
    }
    node.compact(41).unwrap();
    assert!(!node.store.compact_step(4).unwrap());
    node.store.flush().unwrap();
    drop(node.store);
    let store = Store::open(disk.clone()).unwrap();
    assert_eq!((store.compact_revision(), store.removed_revision()), (41, -1));
    while !store.compact_step(4).unwrap() {}
    store.flush().unwrap();
    assert_eq!(store.removed_revision(), 41);
    let mut rows = 0;
    disk.view()
        .unwrap()
        .scan(Table::Key, &[], &mut |_, _| {
            rows += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rows, 10);
}

#[test]
fn compactions_faster_than_removal_do_not_starve_it() {
    let mut node = Node::new();
    for number in 0..10 {
        node.put(&format!("k{number}"), "v");
    }
    for _ in 0..20 {
        let revision = node.put("k0", "v");
        node.compact(revision).unwrap();
        node.store.compact_step(3).unwrap();
        node.store.flush().unwrap();
    }
    assert!(12 < node.store.removed_revision(), "{}", node.store.removed_revision());
    while !node.store.compact_step(3).unwrap() {}
    node.store.flush().unwrap();
    assert_eq!(node.store.removed_revision(), node.store.compact_revision());
}

#[test]
fn removal_counts_as_far_as_it_was_meant_to_go() {
    let mut node = Node::new();
    for number in 0..10 {
        node.put(&format!("k{}", number % 5), "v"); // up to 11
    }
    node.compact(8).unwrap();
    assert!(!node.store.compact_step(3).unwrap());
    node.compact(11).unwrap();
    assert!(!node.store.compact_step(3).unwrap(), "the first walk ends, the second is due");
    node.store.flush().unwrap();
    assert_eq!(node.store.removed_revision(), 8);
    assert!(node.store.compact_step(100).unwrap());
    node.store.flush().unwrap();
    assert_eq!(node.store.removed_revision(), 11);
}

#[test]
fn a_missing_row_is_told_and_final() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    node.put("a", "1");
    node.put("b", "1");
    node.store.flush().unwrap();
    let mut batch = Batch::default();
    batch.delete(Table::Key, b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0");
    disk.clone().commit(&batch).unwrap();
    node.put("c", "1");
    node.store.flush().unwrap(); // and takes a new view
    assert_eq!(node.range(range("b", "")).unwrap().count, 1);
    assert_eq!(node.range(range("a", "")), Err(KvError::Corrupt));
    assert!(node.store.failure().unwrap().contains("no row at 2.0"));
    assert!(matches!(node.store.apply(&[]), Err(StoreError::Broken(_))));
}
