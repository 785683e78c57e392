//! Moving to storage of the size that is needed, while everything else goes on.

use super::crash::Disk;
use super::*;

fn redb(disk: &Disk) -> RedbBackend {
    RedbBackend::open(disk.plug_in(), 1 << 16).unwrap()
}

/// A node on a disk that holds far more than it needs.
fn bloated(disk: &Disk) -> Node {
    let mut node = Node::on(redb(disk));
    for number in 0..300 {
        node.put(&format!("k{}", number % 3), &"v".repeat(10_000));
    }
    node.grant(7, 60).unwrap();
    node.put_leased("leased", 7);
    node.store.flush().unwrap();
    node.compact(301).unwrap();
    assert!(node.store.compact_step(10).unwrap());
    node.store.flush().unwrap();
    node
}

#[test]
fn space_is_given_back_while_entries_are_applied_and_old_views_are_read() {
    let (old, fresh) = (Disk::new(1), Disk::new(2));
    let mut node = bloated(&old);
    let held = node.store.snapshot().unwrap();
    let (before, hash) = (node.store.size_bytes(), node.store.hash().unwrap());
    // Applied and not flushed: it is in neither storage.
    node.put("k1", "waits");
    let command = Command::Put(put("k2", "meanwhile"));
    let next = entry(node.log.len() as u64 + 1, &command);
    let store = &node.store;
    store
        .defragment(redb(&fresh), &mut |_, _| true, || {
            // Entries and readers are not kept waiting.
            store.apply(std::slice::from_ref(&next)).unwrap();
            assert_eq!(pairs(&store.range(&range("k2", "")).unwrap().kvs), ["k2=meanwhile"]);
            Ok(())
        })
        .unwrap();
    node.log.push(next);
    assert!(node.store.size_bytes() < before / 4, "{} of {before}", node.store.size_bytes());
    assert!(node.store.in_use_bytes() <= node.store.size_bytes());
    assert_eq!(
        pairs(&node.range(range("k1", "l")).unwrap().kvs)[..2],
        ["k1=waits", "k2=meanwhile"]
    );
    assert_eq!(node.store.leases().unwrap().ids, [7]);
    node.put("later", "v");
    node.store.flush().unwrap();
    let hash_now = node.store.hash().unwrap();
    let mut backend = MemoryBackend::new();
    super::snapshots::copy(&held, &mut backend);
    assert_eq!(Store::open(backend).unwrap().hash().unwrap(), hash, "a view that was held");
    drop(node);
    let again = Store::open(redb(&fresh)).unwrap();
    assert_eq!(again.hash().unwrap(), hash_now);
}

#[test]
fn whenever_the_power_goes_one_of_the_two_is_whole() {
    let mut whole = 0;
    for fuse in (1..40).chain((40..400).step_by(20)) {
        let (old, fresh) = (Disk::new(fuse), Disk::new(1000 + fuse));
        let node = bloated(&old);
        let hash = node.store.hash_kv(0).unwrap();
        let backend = redb(&fresh);
        fresh.light(fuse);
        let mut is_named = false;
        let moved = node.store.defragment(backend, &mut |_, _| true, || {
            is_named = true;
            Ok(())
        });
        if !is_named {
            let error = moved.unwrap_err();
            assert!(matches!(error, StoreError::Backend(_)), "after {fuse} calls: {error}");
            // The old one goes on as if nothing had been.
            let mut node = node;
            node.put("later", "v");
            node.store.flush().unwrap();
            continue;
        }
        whole += 1;
        drop(node);
        // What is not synced by the time it gets its name may be lost.
        let found = Store::open(redb(&fresh)).unwrap();
        assert_eq!(found.hash_kv(0).unwrap(), hash, "after {fuse} calls");
    }
    assert!(0 < whole);
}

#[test]
fn what_goes_wrong_before_the_name_changes_nothing_and_after_it_is_final() {
    let mut node = bloated(&Disk::new(1));
    let store = &node.store;
    let not_empty = MemoryBackend::new();
    drop(Store::create(not_empty.clone(), initial()).unwrap());
    let refused = store.defragment(not_empty, &mut |_, _| true, || Ok(()));
    assert!(matches!(refused, Err(StoreError::NotEmpty)), "{refused:?}");
    assert_eq!(store.failure(), None);
    node.put("k", "v");
    node.store.flush().unwrap();

    let failing = || Err(std::io::Error::other("no such directory"));
    let refused = node.store.defragment(MemoryBackend::new(), &mut |_, _| true, failing);
    assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    assert!(node.store.failure().is_some());
}

#[test]
fn it_can_be_broken_off() {
    let mut node = Node::new();
    for number in 0..40 {
        node.put(&format!("k{number}"), &"v".repeat(1_000_000));
    }
    node.store.flush().unwrap();
    let mut told = Vec::new();
    let mut go_on = |done, total| {
        told.push((done, total));
        told.len() < 2
    };
    let stopped = node.store.defragment(MemoryBackend::new(), &mut go_on, || Ok(()));
    assert!(matches!(stopped, Err(StoreError::Interrupted)), "{stopped:?}");
    assert!(told[0].0 < told[1].0 && told[1].0 <= told[1].1, "{told:?}");
    assert_eq!(node.store.failure(), None);
    assert_eq!(node.all_at(0).unwrap().len(), 40);
}
