//! Reads beside applies, flushes and compactions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use super::*;

/// Every entry puts the same number under both ends of a wide interval and in its middle; whoever
/// sees them differ has seen half a revision. Compaction follows on the heels of each, so reads and
/// hashes are overtaken all the time.
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
    let (first, mut log) = (node.store.revision(), node.log.clone());
    let store = &node.store;
    let reads = AtomicU64::new(0);
    let hashes = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let is_enough = || {
        stop.load(Ordering::Relaxed)
            || (300 < reads.load(Ordering::Relaxed) && 20 < hashes.lock().unwrap().len())
    };
    std::thread::scope(|scope| {
        for reader in 0..2_u64 {
            let (reads, is_enough, stop) = (&reads, &is_enough, &stop);
            scope.spawn(move || {
                let _stops = StopsOthers(stop);
                let mut last = 0;
                let mut dice = Dice(reader + 1);
                while !is_enough() {
                    let answer = store.range(&range("a", "zz")).unwrap();
                    assert_eq!((answer.count, answer.kvs.len()), (3002, 3002));
                    let numbers: Vec<_> = [0, 1501, 3001].map(|at| &answer.kvs[at].value).to_vec();
                    assert!(numbers[0] == numbers[1] && numbers[1] == numbers[2], "{numbers:?}");
                    assert!(last <= answer.revision, "revisions go back");
                    last = answer.revision;
                    let past = (last - dice.roll(3) as i64).max(first);
                    match store.range(&RangeRequest { revision: past, ..range("a", "zz") }) {
                        Ok(answer) => assert_eq!(answer.count, 3002),
                        Err(error) => assert_eq!(error, KvError::Compacted),
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let _stops = StopsOthers(&stop);
            while !is_enough() {
                store.flush().unwrap();
                hashes.lock().unwrap().push(store.hash_kv(0).unwrap());
            }
        });
        let _stops = StopsOthers(&stop);
        for number in 1.. {
            let revision = store.revision() + 1;
            let compact = Command::Compact(CompactionRequest { revision, physical: false });
            let at = log.len() as u64;
            log.extend([entry(at + 1, &write(number)), entry(at + 2, &compact)]);
            store.apply(&log[at as usize..]).unwrap();
            store.compact_step(5000).unwrap();
            if is_enough() {
                break;
            }
        }
    });
    assert_eq!(store.failure(), None);
    store.flush().unwrap();
    // Each hash is that of a member which stood just there, and did nothing else.
    let mut hashes = hashes.into_inner().unwrap().into_iter().peekable();
    let quiet = Node::new();
    for entry in log {
        quiet.store.apply(&[entry]).unwrap();
        let stands = (quiet.store.revision(), quiet.store.compact_revision());
        while let Some(hash) =
            hashes.next_if(|hash| (hash.revision, hash.compact_revision) == stands)
        {
            assert_eq!(quiet.store.hash_kv(0), Ok(hash));
        }
    }
    assert_eq!(hashes.next(), None);
}

/// A thread that panics lets the others end, so that the test fails rather than hangs.
struct StopsOthers<'a>(&'a AtomicBool);

impl Drop for StopsOthers<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn entries_are_applied_and_read_while_a_flush_commits() {
    let (rows, gate) = (MemoryBackend::new(), Arc::new(Barrier::new(2)));
    let is_gated = Arc::new(AtomicBool::new(false));
    let mut backend = Watched::new(rows.clone());
    backend.on_commit = Arc::new({
        let (gate, is_gated) = (Arc::clone(&gate), Arc::clone(&is_gated));
        move || {
            if is_gated.load(Ordering::Relaxed) {
                gate.wait(); // it commits
                gate.wait(); // it may
            }
        }
    });
    let mut node = Node::on(backend);
    node.put("stored", "1"); // 2
    node.put("gone", "1"); // 3
    node.store.flush().unwrap();
    node.put("flushing", "1"); // 4
    node.put("gone", "2"); // 5
    is_gated.store(true, Ordering::Relaxed);
    let want = ["flushing=1", "fresh=1", "stored=1"];
    std::thread::scope(|scope| {
        let store = &node.store;
        let flush = scope.spawn(|| store.flush());
        gate.wait();
        let commands = [
            Command::Put(put("fresh", "1")),                  // 6
            Command::DeleteRange(super::delete("gone", "")),  // 7
            Command::Put(put("later", "1")),                  // 8
            Command::DeleteRange(super::delete("later", "")), // 9
            Command::Compact(CompactionRequest { revision: 9, physical: false }),
        ];
        for (at, command) in commands.iter().enumerate() {
            store.apply(&[entry(5 + at as u64, command)]).unwrap();
        }
        assert!(store.compact_step(100).unwrap());
        assert_eq!((store.flushed_index(), store.applied().index), (Index(2), Index(9)));
        let read = || pairs(&store.range(&range("a", "z")).unwrap().kvs);
        assert_eq!(read(), want);
        gate.wait();
        assert_eq!(flush.join().unwrap().unwrap(), Index(4));
        assert_eq!(read(), want, "rows that came during the flush");
    });
    is_gated.store(false, Ordering::Relaxed);
    assert_eq!(node.store.flush().unwrap(), Index(9));
    assert_eq!(node.all_at(0).unwrap().len(), 3);
    let hash = node.store.hash_kv(0);
    drop(node);
    let store = Store::open(rows).unwrap();
    assert_eq!(store.hash_kv(0), hash);
    // fresh, flushing, stored, and the deletion at the compacted revision.
    assert_eq!(store.keys_count(), 4);
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
