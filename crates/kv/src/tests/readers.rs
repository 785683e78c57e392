//! Reads beside applies, flushes and compactions.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Every entry puts the same number under both ends of a wide interval; whoever sees them differ
/// has seen half a revision.
#[test]
fn readers_see_whole_revisions_while_everything_goes_on() {
    let backend = RedbBackend::open(redb::backends::InMemoryBackend::new(), 1 << 20).unwrap();
    let mut node = Node::on(backend);
    for number in 0..3000 {
        node.put(&format!("m{number:05}"), "");
    }
    let write = |number: u64| {
        let number = number.to_string();
        let ops = ["a", "m01500", "z"].map(|key| RequestOp::Put(put(key, &number)));
        Command::Txn(TxnRequest { success: ops.to_vec(), ..TxnRequest::default() })
    };
    node.run(&write(0)).unwrap();
    let first = node.log.len() as u64;
    let store = &node.store;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2_u64 {
            let stop = &stop;
            scope.spawn(move || {
                let mut last = 0;
                let mut dice = Dice(reader + 1);
                while !stop.load(Ordering::Relaxed) {
                    let answer = store.range(&range("a", "zz")).unwrap();
                    assert_eq!((answer.count, answer.kvs.len()), (3002, 3002));
                    let numbers: Vec<_> = [0, 1501, 3001].map(|at| &answer.kvs[at].value).to_vec();
                    assert!(numbers[0] == numbers[1] && numbers[1] == numbers[2], "{numbers:?}");
                    assert!(last <= answer.revision, "revisions go back");
                    last = answer.revision;
                    let past = last - dice.roll(30) as i64;
                    let request = RangeRequest { revision: past, limit: 1, ..range("a", "zz") };
                    match store.range(&request) {
                        Ok(answer) => assert!(answer.kvs[0].mod_revision <= past),
                        Err(error) => assert_eq!(error, KvError::Compacted),
                    }
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.flush().unwrap();
                store.compact_step(500).unwrap();
            }
        });
        for number in 1..=400 {
            let mut entries = vec![entry(first + 2 * number - 1, &write(number))];
            let compact = CompactionRequest { revision: store.revision() - 5, physical: false };
            entries.push(entry(first + 2 * number, &Command::Compact(compact)));
            store.apply(&entries).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.failure(), None);
    store.flush().unwrap();
    assert_eq!(store.overlay_count(), 0);
}

#[test]
fn readers_of_a_replaced_state_finish_on_it() {
    let mut old = Node::new();
    for number in 0..10 {
        old.put(&format!("k{number}"), "old");
    }
    let mut new = Node::new();
    new.store.apply(&old.log).unwrap();
    new.log.clone_from(&old.log);
    new.put("k0", "new");
    let held = old.store.snapshot().unwrap();
    let mut backend = MemoryBackend::new();
    super::snapshots::copy(&new.store.snapshot().unwrap(), &mut backend);
    old.store.replace(backend).unwrap();
    assert_eq!(old.store.hash_kv(0), new.store.hash_kv(0));
    assert_eq!(old.store.applied(), new.store.applied());
    assert_eq!(old.store.flushed_index(), Index(11));
    let mut backend = MemoryBackend::new();
    super::snapshots::copy(&held, &mut backend);
    assert_eq!(Store::open(backend).unwrap().applied().index, Index(10));
    // Replayed entries that the new state holds are passed over.
    assert_eq!(old.store.apply(&new.log).unwrap().responses[10], Ok(Response::Nothing));
}

#[test]
fn a_state_is_only_replaced_by_a_newer_one_of_its_cluster() {
    let mut node = Node::new();
    node.put("a", "1");
    let mut backend = MemoryBackend::new();
    super::snapshots::copy(&node.store.snapshot().unwrap(), &mut backend);
    assert!(matches!(node.store.replace(backend), Err(StoreError::Stale { .. })));
    let backend = MemoryBackend::new();
    let other = Initial { cluster_id: 78, applied: Index(9), ..initial() };
    drop(Store::create(backend.clone(), other).unwrap());
    assert!(matches!(node.store.replace(backend), Err(StoreError::Snapshot(_))));
    assert!(matches!(node.store.replace(MemoryBackend::new()), Err(StoreError::Missing)));
    assert_eq!(node.put("b", "1"), 3, "it goes on");
}

#[test]
fn defragmentation_waits_for_snapshots() {
    let backend = RedbBackend::open(redb::backends::InMemoryBackend::new(), 1 << 20).unwrap();
    let mut node = Node::on(backend);
    for number in 0..300 {
        node.put(&format!("k{}", number % 3), &"v".repeat(10_000));
    }
    node.store.flush().unwrap();
    node.compact(301).unwrap();
    assert!(node.store.compact_step(10).unwrap());
    let snapshot = node.store.snapshot().unwrap();
    let before = node.store.size_bytes();
    let busy = node.store.defragment();
    assert!(matches!(busy, Err(StoreError::Backend(BackendError::Busy))), "{busy:?}");
    assert_eq!(node.all_at(0).unwrap().len(), 3);
    drop(snapshot);
    node.store.defragment().unwrap();
    assert!(node.store.size_bytes() < before / 4, "{} of {before}", node.store.size_bytes());
    assert_eq!(node.all_at(0).unwrap().len(), 3);
    node.put("k9", "v");
    node.store.flush().unwrap();
    assert_eq!(node.all_at(0).unwrap().len(), 4);
}
