use std::ops::ControlFlow;

use super::*;

fn key(number: u8) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[7] = number;
    key
}

fn backends() -> [Box<dyn Backend>; 2] {
    let storage = ::redb::backends::InMemoryBackend::new();
    [Box::new(MemoryBackend::new()), Box::new(RedbBackend::open(storage, 1 << 20).unwrap())]
}

fn rows(view: &dyn View, table: Table, from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    view.scan(table, from, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

#[test]
fn a_batch_puts_then_deletes() {
    for mut backend in backends() {
        let mut batch = Batch::default();
        for number in 0..5 {
            batch.put(Table::Key, &key(number), &[number]);
        }
        batch.delete(Table::Key, &key(3));
        batch.delete(Table::Key, &key(9));
        batch.put(Table::Meta, b"a", b"first");
        batch.put(Table::Meta, b"a", b"again");
        batch.put(Table::Member, b"12345678", b"m");
        backend.commit(&batch).unwrap();
        let view = backend.view().unwrap();
        let keys: Vec<u8> = rows(&*view, Table::Key, b"").iter().map(|row| row.0[7]).collect();
        assert_eq!(keys, [0, 1, 2, 4]);
        let keys: Vec<u8> = rows(&*view, Table::Key, &key(2)).iter().map(|row| row.0[7]).collect();
        assert_eq!(keys, [2, 4]);
        assert_eq!(view.get(Table::Key, &key(3)).unwrap(), None);
        assert_eq!(view.get(Table::Meta, b"a").unwrap().as_deref(), Some(&b"again"[..]));
        assert_eq!(rows(&*view, Table::Member, b"").len(), 1);
        assert_eq!(backend.in_use_bytes(), 4 * 18 + 6 + 9);
        assert!(0 < backend.size_bytes());
    }
}

#[test]
fn views_that_are_held_are_counted() {
    let storage = ::redb::backends::InMemoryBackend::new();
    let backend = RedbBackend::open(storage, 1 << 20).unwrap();
    assert_eq!(backend.views_count(), 0);
    let views = [backend.view().unwrap(), backend.view().unwrap()];
    assert_eq!(backend.views_count(), 2);
    drop(views);
    assert_eq!(backend.views_count(), 0);
}

#[test]
fn a_view_never_changes() {
    for mut backend in backends() {
        let mut batch = Batch::default();
        batch.put(Table::Key, &key(1), b"old");
        backend.commit(&batch).unwrap();
        let view = backend.view().unwrap();
        let mut batch = Batch::default();
        batch.put(Table::Key, &key(1), b"new");
        batch.put(Table::Key, &key(2), b"new");
        backend.commit(&batch).unwrap();
        assert_eq!(view.get(Table::Key, &key(1)).unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(rows(&*view, Table::Key, b"").len(), 1);
        let view = backend.view().unwrap();
        assert_eq!(view.get(Table::Key, &key(1)).unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(rows(&*view, Table::Key, b"").len(), 2);
    }
}

#[test]
fn defragmentation_waits_for_readers_and_gives_space_back() {
    let storage = ::redb::backends::InMemoryBackend::new();
    let mut backend = RedbBackend::open(storage, 1 << 20).unwrap();
    let mut batch = Batch::default();
    for number in 0..200 {
        batch.put(Table::Key, &key(number), &[7; 20_000]);
    }
    backend.commit(&batch).unwrap();
    let full = backend.size_bytes();
    let mut batch = Batch::default();
    for number in 1..200 {
        batch.delete(Table::Key, &key(number));
    }
    backend.commit(&batch).unwrap();
    let view = backend.view().unwrap();
    assert!(matches!(backend.defragment(), Err(BackendError::Busy)));
    drop(view);
    backend.defragment().unwrap();
    assert!(backend.size_bytes() < full / 4, "{} of {full}", backend.size_bytes());
    assert_eq!(rows(&*backend.view().unwrap(), Table::Key, b"").len(), 1);
}

#[test]
fn a_view_outlives_its_backend() {
    for mut backend in backends() {
        let mut batch = Batch::default();
        batch.put(Table::Key, &key(1), b"old");
        backend.commit(&batch).unwrap();
        let view = backend.view().unwrap();
        drop(backend);
        assert_eq!(view.get(Table::Key, &key(1)).unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(rows(&*view, Table::Key, b"").len(), 1);
    }
}
