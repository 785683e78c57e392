//! The state as a stream: whole, or refused.

use super::*;

/// Restores a snapshot, in pieces of awkward sizes.
pub(super) fn copy(snapshot: &Snapshot, backend: &mut dyn Backend) {
    let mut reader = snapshot.reader();
    let mut dice = Dice(3);
    let applied =
        restore(backend, NodeId(1), || Ok(reader.read(1 + dice.roll(5000) as usize).unwrap()))
            .unwrap();
    assert_eq!(&applied, snapshot.applied());
}

fn sample() -> Node {
    let mut node = Node::new();
    for number in 0..30 {
        node.put(&format!("k{}", number % 7), &"v".repeat(100 * number));
    }
    node.delete("k3", "");
    let big = "v".repeat(200_000);
    for _ in 0..30 {
        node.put("big", &big);
    }
    node.compact(10).unwrap();
    node
}

fn stream(snapshot: &Snapshot, piece: usize) -> Vec<u8> {
    let mut reader = snapshot.reader();
    let mut stream = Vec::new();
    loop {
        let bytes = reader.read(piece).unwrap();
        assert!(bytes.len() <= piece);
        if bytes.is_empty() {
            return stream;
        }
        stream.extend_from_slice(&bytes);
    }
}

fn restored(stream: &[u8]) -> Result<MemoryBackend, StoreError> {
    let disk = MemoryBackend::new();
    let pieces = || {
        let mut pieces = stream.chunks(70_000);
        move || Ok(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default())
    };
    let restored = restore(&mut disk.clone(), NodeId(1), pieces());
    // Whoever looks at a stream first sees what a restore of it would.
    match (&restored, verify(pieces())) {
        (Ok(applied), Ok((cluster_id, verified))) => {
            assert_eq!((cluster_id, &verified), (Node::new().store.cluster_id(), applied));
        }
        (Err(StoreError::Snapshot(why)), Err(StoreError::Snapshot(verified))) => {
            assert_eq!(*why, verified);
        }
        (restored, verified) => panic!("restored {restored:?}, verified {verified:?}"),
    }
    restored.map(|_| disk)
}

#[test]
fn a_snapshot_is_the_state_when_it_was_taken() {
    let mut node = sample();
    let snapshot = node.store.snapshot().unwrap();
    let hash = node.store.hash_kv(0).unwrap();
    assert_eq!(snapshot.applied(), &node.store.applied());
    node.put("later", "1");
    node.store.flush().unwrap();
    let whole = stream(&snapshot, 1 << 20);
    assert_eq!(stream(&snapshot, 777), whole, "whatever the size of pieces");
    let store = Store::open(restored(&whole).unwrap()).unwrap();
    assert_eq!(store.hash_kv(0).unwrap(), hash);
    assert_eq!(store.applied(), *snapshot.applied());
    assert_eq!((store.revision(), store.compact_revision()), (62, 10));
    assert_eq!(store.members(), node.store.members());
    assert_eq!(store.range(&range("later", "")).unwrap().count, 0);
    // It goes on as the others do.
    store.apply(&node.log).unwrap();
    assert_eq!(store.hash_kv(0).unwrap(), node.store.hash_kv(0).unwrap());
}

#[test]
fn a_stream_that_is_not_whole_is_refused() {
    let mut node = Node::new();
    for number in 0..300 {
        node.put(&format!("k{number}"), &"v".repeat(300));
    }
    let whole = stream(&node.store.snapshot().unwrap(), 4096);
    assert!(restored(&whole).is_ok());
    let refused = |stream: &[u8], what: &str| {
        let got = restored(stream);
        assert!(matches!(got, Err(StoreError::Snapshot(_))), "{what}: {got:?}");
    };
    for cut in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
        refused(&whole[..cut], &format!("cut at {cut}"));
    }
    for place in (0..whole.len()).step_by(499) {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x10;
        refused(&flipped, &format!("flipped at {place}"));
    }
    refused(&[&whole[..], b"x"].concat(), "bytes after the end");
    // Blocks, as they stand after the magic: header, rows..., end.
    let mut blocks = Vec::new();
    let mut rest = &whole[8..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize + 13;
        blocks.push(&rest[..length]);
        rest = &rest[length..];
    }
    assert!(4 < blocks.len(), "{} blocks", blocks.len());
    for (left_out, block) in blocks.iter().enumerate() {
        let others = blocks.iter().enumerate().filter(|(place, _)| *place != left_out);
        let kept: Vec<u8> = others.flat_map(|(_, block)| block.iter().copied()).collect();
        refused(&[b"QKVSNAP1", &kept[..]].concat(), &format!("without block {left_out}"));
        let twice = [&whole[..8], block, &whole[8..]].concat();
        refused(&twice, &format!("block {left_out} first"));
    }
    let mut swapped = blocks.clone();
    swapped.swap(2, 3);
    refused(&[b"QKVSNAP1", &swapped.concat()[..]].concat(), "rows out of order");
}

#[test]
fn half_a_restore_is_no_state() {
    let node = sample();
    let whole = stream(&node.store.snapshot().unwrap(), 4096);
    let disk = MemoryBackend::new();
    let mut pieces = whole[..whole.len() - 10].chunks(4096);
    let piece = || Ok(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default());
    assert!(restore(&mut disk.clone(), NodeId(1), piece).is_err());
    assert!(1 << 20 < disk.in_use_bytes(), "some of it was committed");
    assert!(matches!(Store::open(disk.clone()), Err(StoreError::Incomplete)));
    let again = restore(&mut disk.clone(), NodeId(1), || Ok(Bytes::new()));
    assert!(matches!(again, Err(StoreError::NotEmpty)), "{again:?}");
}

#[test]
fn a_source_that_fails_is_told() {
    let failing = || Err(std::io::Error::other("no such file"));
    let got = restore(&mut MemoryBackend::new(), NodeId(1), failing);
    assert!(matches!(got, Err(StoreError::Snapshot(why)) if why == "no such file"));
}

#[test]
fn a_restored_state_belongs_to_who_restored_it() {
    let node = sample();
    let snapshot = node.store.snapshot().unwrap();
    let mut disk = MemoryBackend::new();
    let mut reader = snapshot.reader();
    restore(&mut disk, NodeId(2), || Ok(reader.read(70_000).unwrap())).unwrap();
    let restored = Store::open(disk.clone()).unwrap();
    assert_eq!((node.store.node(), restored.node()), (NodeId(1), NodeId(2)));
    assert_eq!(stream(&restored.snapshot().unwrap(), 4000), stream(&snapshot, 4000));

    // Another member's, even if it is newer, is none to go on with.
    let mut node = Node::new();
    node.put("a", "1");
    assert!(matches!(node.store.replace(disk), Err(StoreError::Snapshot(_))));
}

fn founding(members: &[u64]) -> Founding {
    let member = |id: &u64| Member { id: *id, name: format!("m{id}"), ..Member::default() };
    let initial = Initial {
        node: NodeId(8),
        cluster_id: 99,
        applied: Index(1),
        term: Term(1),
        conf_state: Bytes::from_static(b"new conf"),
        members: members.iter().map(member).collect(),
    };
    Founding { initial, ..Founding::default() }
}

fn refounded(stream: &[u8], founding: &Founding) -> Result<Store, StoreError> {
    let disk = MemoryBackend::new();
    let mut pieces = stream.chunks(70_000);
    let next = || Ok(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default());
    let contents = refound(&mut disk.clone(), founding, next)?;
    assert_eq!(contents.cluster_id, 77);
    Store::open(disk)
}

#[test]
fn a_new_cluster_begins_with_keys_history_and_leases_of_the_old_one() {
    let mut node = sample();
    node.grant(5, 100).unwrap();
    node.put_leased("leased", 5);
    let noted = LeaseCheckpoint { id: 5, granted: Index(63), remaining_seconds: 40 };
    let noted = Command::LeaseCheckpoint { term: Term(3), order: 9, checkpoints: vec![noted] };
    node.run(&noted).unwrap();
    let alarm =
        AlarmRequest { action: AlarmAction::Activate, member: 1, alarm: AlarmType::NoSpace };
    node.run(&Command::Alarm(alarm)).unwrap();
    let old = &node.store;
    let whole = stream(&old.snapshot().unwrap(), 1 << 20);
    let contents = contents({
        let mut pieces = whole.chunks(70_000);
        move || Ok(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default())
    })
    .unwrap();
    assert_eq!((contents.revision, contents.compact_revision), (63, 10));

    let store = refounded(&whole, &founding(&[8, 9])).unwrap();
    assert_eq!((store.node(), store.cluster_id()), (NodeId(8), 99));
    assert_eq!(store.applied(), founding(&[]).initial.applied_mark());
    assert_eq!(store.members(), founding(&[8, 9]).initial.members);
    assert!(!store.membership().is_removed(1));
    assert_eq!(store.alarms(), []);
    assert_eq!(store.hash_kv(0).unwrap(), old.hash_kv(0).unwrap());
    assert_eq!(store.lease_keys(5), [bytes("leased")]);
    // Of every member the same, whoever it is.
    let mut other = founding(&[8, 9]);
    other.initial.node = NodeId(9);
    assert_eq!(refounded(&whole, &other).unwrap().hash(), store.hash());

    // Notes of the new log count, though its terms are lower; what was left of the lease is known.
    assert!(store.lead_leases(Term(1), 0, 0).unwrap());
    assert_eq!(store.lease_time_to_live(5, false, 0).unwrap().ttl_seconds, 40);
    let noted = LeaseCheckpoint { id: 5, granted: Index(0), remaining_seconds: 0 };
    let noted = Command::LeaseCheckpoint { term: Term(1), order: 1, checkpoints: vec![noted] };
    store.apply(&[Entry { term: Term(1), ..entry(2, &noted) }]).unwrap();
    let first = Entry { index: Index(3), term: Term(2), what: Apply::Empty, answer_wanted: false };
    store.apply(&[first]).unwrap();
    assert!(store.lead_leases(Term(2), 0, 0).unwrap());
    assert_eq!(store.lease_time_to_live(5, false, 0).unwrap().ttl_seconds, 100);
}

#[test]
fn a_new_cluster_may_begin_at_a_higher_revision_with_its_history_gone() {
    let node = sample();
    let whole = stream(&node.store.snapshot().unwrap(), 1 << 20);
    for (bump_revision, mark_compacted, want) in [
        (0, false, (62, 10)),
        (0, true, (62, 62)),
        (1_000_000, false, (1_000_062, 10)),
        (1_000_000, true, (1_000_062, 1_000_062)),
    ] {
        let founding = Founding { bump_revision, mark_compacted, ..founding(&[8]) };
        let store = refounded(&whole, &founding).unwrap();
        assert_eq!((store.revision(), store.compact_revision()), want);
        assert_eq!(store.range(&range("k1", "l")).unwrap().count, 5);
        let old = store.range(&RangeRequest { revision: 20, ..range("k1", "") });
        assert_eq!(old.is_ok(), !mark_compacted);
        let next = entry(2, &Command::Put(put("k1", "new")));
        store.apply(&[next]).unwrap();
        assert_eq!(store.revision(), want.0 + 1);
        while !store.compact_step(100).unwrap() {}
        store.flush().unwrap();
        assert_eq!(store.removed_revision(), want.1);
        assert_eq!(store.range(&range("k1", "l")).unwrap().count, 5);
    }
    for bump_revision in [i64::MAX as u64, u64::MAX] {
        let founding = Founding { bump_revision, ..founding(&[8]) };
        let refused = refounded(&whole, &founding);
        assert!(matches!(refused, Err(StoreError::Snapshot(_))), "{refused:?}");
    }
    for length in (0..whole.len()).step_by(whole.len() / 50) {
        assert!(refounded(&whole[..length], &founding(&[8])).is_err(), "cut at {length}");
    }
}

impl Initial {
    fn applied_mark(&self) -> Applied {
        let Initial { applied: index, term, conf_state, .. } = self.clone();
        Applied { index, term, conf_state }
    }
}
