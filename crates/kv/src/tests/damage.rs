//! Storage that holds something else than was stored.

use std::ops::ControlFlow;

use super::*;

/// All rows, as storage has them.
fn rows(disk: &MemoryBackend) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let view = disk.view().unwrap();
    let mut rows = Vec::new();
    for table in Table::ALL {
        let mut visit = |key: &[u8], row: &[u8]| {
            rows.push((table, key.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        };
        view.scan(table, &[], &mut visit).unwrap();
    }
    rows
}

fn sample() -> (MemoryBackend, Node) {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    node.put("a", "alpha"); // 2
    node.put("b", "beta"); // 3
    node.delete("b", ""); // 4
    node.store.flush().unwrap();
    (disk, node)
}

fn overwrite(disk: &MemoryBackend, table: Table, key: &[u8], row: &[u8]) {
    let mut batch = Batch::default();
    batch.put(table, key, row);
    disk.clone().commit(&batch).unwrap();
}

#[test]
fn a_flipped_bit_in_any_row_is_found_at_the_start() {
    let (disk, _) = sample();
    let rows = rows(&disk);
    assert_eq!(rows.len(), 7, "format, owner, state, three changes, a member");
    for (table, key, row) in rows {
        for place in 0..row.len() {
            for bit in 0..8 {
                let mut damaged = row.clone();
                damaged[place] ^= 1 << bit;
                let (disk, _) = sample();
                overwrite(&disk, table, &key, &damaged);
                let opened = Store::open(disk);
                let found =
                    matches!(opened, Err(StoreError::Damaged(_) | StoreError::Format { .. }));
                assert!(found, "{table:?}, {key:?}, byte {place}, bit {bit}: {opened:?}");
            }
        }
    }
}

#[test]
fn a_row_that_is_cut_or_stands_elsewhere_is_found_at_the_start() {
    let (disk, _) = sample();
    let rows = rows(&disk);
    let changes: Vec<_> = rows.iter().filter(|(table, ..)| *table == Table::Key).collect();
    let (_, _, first) = changes[0];
    let (_, second, _) = changes[1];
    for row in [&first[..], &first[..first.len() - 1], &first[..3], b""] {
        let (disk, _) = sample();
        overwrite(&disk, Table::Key, second, row);
        let refused = Store::open(disk).unwrap_err().to_string();
        assert!(refused.contains("does not match its checksum"), "{refused}");
    }
}

/// A way to meet a damaged row, and whether it was told.
type Meets<'a> = (&'a str, &'a dyn Fn(&mut Node) -> bool);

#[test]
fn a_damaged_value_is_never_served() {
    let compare = Compare {
        result: CompareResult::Equal,
        target: CompareTarget::Value(bytes("alpha")),
        key: bytes("a"),
        range_end: Bytes::new(),
    };
    let txn = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
    let reads: [Meets<'_>; 5] = [
        ("range", &|node| node.range(range("a", "")) == Err(KvError::Corrupt)),
        ("range over all", &|node| node.range(range("\0", "\0")) == Err(KvError::Corrupt)),
        ("compare", &|node| node.store.read_txn(&txn) == Err(KvError::Corrupt)),
        ("hash", &|node| node.store.hash_kv(0) == Err(KvError::Corrupt)),
        ("previous pair", &|node| {
            let command = Command::Put(PutRequest { prev_kv: true, ..put("a", "new") });
            let entry = entry(node.log.len() as u64 + 1, &command);
            matches!(node.store.apply(&[entry]), Err(StoreError::Damaged(_)))
        }),
    ];
    for (name, read) in reads {
        let (disk, mut node) = sample();
        let (_, key, mut row) =
            rows(&disk).into_iter().find(|(table, ..)| *table == Table::Key).unwrap();
        let place = row.windows(5).position(|window| window == b"alpha").unwrap();
        row[place] ^= 0x20;
        overwrite(&disk, Table::Key, &key, &row);
        node.put("z", "1");
        node.store.flush().unwrap(); // and takes a new view
        assert!(read(&mut node), "{name}");
        let failure = node.store.failure().unwrap();
        assert!(failure.contains("does not match its checksum"), "{name}: {failure}");
    }
}

#[test]
fn no_snapshot_is_made_of_a_damaged_row() {
    let (disk, node) = sample();
    assert!(node.store.snapshot().unwrap().reader().read(1 << 20).is_ok());
    // The rows of the table `meta` are written anew with every flush.
    for (table, key, mut row) in rows(&disk).into_iter().filter(|(table, ..)| *table != Table::Meta)
    {
        let (disk, mut node) = sample();
        *row.last_mut().unwrap() ^= 0x80;
        overwrite(&disk, table, &key, &row);
        node.put("z", "1");
        let snapshot = node.store.snapshot().unwrap();
        let read = snapshot.reader().read(1 << 20);
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{table:?}, {key:?}: {read:?}");
    }
}
