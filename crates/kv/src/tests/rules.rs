//! Revisions, ranges, puts, deletions and compaction, as etcd's clients know them.

use super::*;

/// b, a, c, then b again: revisions 2 to 5.
fn sample() -> Node {
    let mut node = Node::new();
    for (key, value) in [("b", "3"), ("a", "1"), ("c", "2"), ("b", "4")] {
        node.put(key, value);
    }
    node
}

#[test]
fn revisions_count_changes() {
    let mut node = Node::new();
    assert_eq!((node.store.revision(), node.store.compact_revision()), (1, -1));
    assert_eq!(node.put("a", "1"), 2);
    assert_eq!(node.put("a", "1"), 3, "the same value again is a change");
    assert_eq!(node.delete("x", "").revision, 3, "nothing deleted, no revision");
    node.put("b", "1");
    let gone = node.delete("a", "z");
    assert_eq!((gone.revision, gone.deleted), (5, 2), "many keys, one revision");
    assert_eq!(pairs(&gone.prev_kvs), ["a=1", "b=1"]);
    assert_eq!(node.store.revision(), 5);
}

#[test]
fn pairs_carry_their_history() {
    let mut node = Node::new();
    let meta = |node: &Node| {
        let kvs = node.range(range("k", "")).unwrap().kvs;
        kvs.first().map(|kv| (kv.create_revision, kv.mod_revision, kv.version))
    };
    assert_eq!(meta(&node), None);
    node.put("k", "1");
    assert_eq!(meta(&node), Some((2, 2, 1)));
    node.put("other", "");
    node.put("k", "");
    assert_eq!(meta(&node), Some((2, 4, 2)));
    node.delete("k", "");
    assert_eq!(meta(&node), None);
    node.put("k", "3");
    assert_eq!(meta(&node), Some((6, 6, 1)));
}

#[test]
fn keys_and_values_are_any_bytes() {
    let mut node = Node::new();
    for key in [&b"\0"[..], b"\xff", b"a\0", b"a", b"\xff\xff"] {
        let put = PutRequest { key: Bytes::copy_from_slice(key), ..PutRequest::default() };
        node.run(&Command::Put(put)).unwrap();
    }
    let answer = node.range(range("\0", "\0")).unwrap();
    let keys: Vec<_> = answer.kvs.iter().map(|kv| kv.key.to_vec()).collect();
    assert_eq!(keys, [&b"\0"[..], b"a", b"a\0", b"\xff", b"\xff\xff"]);
    assert!(answer.kvs.iter().all(|kv| kv.value.is_empty()));
}

#[test]
fn intervals() {
    let node = sample();
    for (key, end, want) in [
        ("b", "", &["b=4"][..]),
        ("x", "", &[]),
        ("a", "c", &["a=1", "b=4"]),
        ("b", "\0", &["b=4", "c=2"]),
        ("\0", "\0", &["a=1", "b=4", "c=2"]),
        ("c", "a", &[]),
        ("b", "b", &[]),
    ] {
        let answer = node.range(range(key, end)).unwrap();
        assert_eq!(pairs(&answer.kvs), want, "{key:?} {end:?}");
        assert_eq!((answer.count, answer.more), (want.len() as i64, false));
        assert_eq!(answer.revision, 5);
    }
}

#[test]
fn the_past_is_readable_and_the_future_is_not() {
    let mut node = sample();
    node.delete("a", "");
    for (revision, want) in [
        (-1, Ok(&["b=4", "c=2"][..])),
        (0, Ok(&["b=4", "c=2"])),
        (1, Ok(&[])),
        (2, Ok(&["b=3"])),
        (3, Ok(&["a=1", "b=3"])),
        (5, Ok(&["a=1", "b=4", "c=2"])),
        (6, Ok(&["b=4", "c=2"])),
        (7, Err(KvError::FutureRev)),
    ] {
        let want = want.map(|want| want.iter().map(|pair| (*pair).to_owned()).collect());
        assert_eq!(node.all_at(revision), want, "{revision}");
    }
    let past = RangeRequest { revision: 2, ..range("\0", "\0") };
    assert_eq!(node.range(past).unwrap().revision, 6, "the header has the current revision");
}

#[test]
fn limits_counts_and_filters() {
    let node = sample(); // a: mod 3, b: mod 5 create 2, c: mod 4
    let all = || range("a", "z");
    for (request, want, count, more) in [
        (RangeRequest { limit: 2, ..all() }, &["a=1", "b=4"][..], 3, true),
        (RangeRequest { limit: 3, ..all() }, &["a=1", "b=4", "c=2"], 3, false),
        (RangeRequest { limit: -1, ..all() }, &["a=1", "b=4", "c=2"], 3, false),
        (RangeRequest { count_only: true, limit: 1, ..all() }, &[], 3, false),
        (RangeRequest { keys_only: true, ..all() }, &["a=", "b=", "c="], 3, false),
        (RangeRequest { min_mod_revision: 4, ..all() }, &["b=4", "c=2"], 3, false),
        (RangeRequest { max_mod_revision: 4, ..all() }, &["a=1", "c=2"], 3, false),
        (RangeRequest { min_create_revision: 3, ..all() }, &["a=1", "c=2"], 3, false),
        (RangeRequest { max_create_revision: 2, ..all() }, &["b=4"], 3, false),
        (RangeRequest { min_mod_revision: 4, limit: 1, ..all() }, &["b=4"], 3, true),
        (RangeRequest { max_create_revision: 2, limit: 1, ..all() }, &["b=4"], 3, false),
        (RangeRequest { revision: 3, limit: 1, ..all() }, &["a=1"], 2, true),
    ] {
        let answer = node.range(request.clone()).unwrap();
        assert_eq!(pairs(&answer.kvs), want, "{request:?}");
        assert_eq!((answer.count, answer.more), (count, more), "{request:?}");
    }
}

#[test]
fn sorting_comes_before_the_limit() {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    let node = sample(); // create: b a c; mod: a c b; version: b twice; value: a c b
    for (target, order, want) in [
        (Key, None, ["a=1", "b=4"]),
        (Key, Ascend, ["a=1", "b=4"]),
        (Key, Descend, ["c=2", "b=4"]),
        (Create, None, ["b=4", "a=1"]),
        (Create, Descend, ["c=2", "a=1"]),
        (Mod, Ascend, ["a=1", "c=2"]),
        (Mod, Descend, ["b=4", "c=2"]),
        (Version, Descend, ["b=4", "c=2"]),
        (Value, None, ["a=1", "c=2"]),
        (Value, Descend, ["b=4", "c=2"]),
    ] {
        let request =
            RangeRequest { limit: 2, sort_order: order, sort_target: target, ..range("a", "z") };
        let answer = node.range(request).unwrap();
        assert_eq!(pairs(&answer.kvs), want, "{target:?} {order:?}");
        assert!(answer.more);
    }
}

#[test]
fn ranges_are_checked_in_order() {
    let node = Node::new();
    let unsorted = RangeRequest { sort_target: SortTarget::from(5), ..range("", "") };
    for (request, want) in [
        (unsorted.clone(), KvError::EmptyKey),
        (RangeRequest { key: bytes("k"), ..unsorted }, KvError::InvalidSortOption),
        (
            RangeRequest { sort_order: SortOrder::from(-1), revision: 9, ..range("k", "") },
            KvError::InvalidSortOption,
        ),
        (RangeRequest { revision: 9, ..range("k", "") }, KvError::FutureRev),
    ] {
        assert_eq!(node.range(request.clone()), Err(want), "{request:?}");
    }
}

#[test]
fn keys_only_answers_keep_all_but_the_value() {
    let node = sample();
    let answer = node.range(RangeRequest { keys_only: true, ..range("b", "") }).unwrap();
    let want = KeyValue {
        key: bytes("b"),
        create_revision: 2,
        mod_revision: 5,
        version: 2,
        ..KeyValue::default()
    };
    assert_eq!(answer.kvs, [want]);
}

#[test]
fn puts_answer_what_was_asked() {
    let mut node = Node::new();
    let mut old = |put: PutRequest| match node.run(&Command::Put(put)) {
        Ok(Response::Put(response)) => {
            Ok(response.prev_kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
        }
        Ok(other) => panic!("{other:?}"),
        Err(refused) => Err(refused),
    };
    let asking = |put: PutRequest| PutRequest { prev_kv: true, ..put };
    let keeping = PutRequest { ignore_value: true, ..put("k", "") };
    assert_eq!(old(keeping.clone()), Err(KvError::KeyNotFound));
    assert_eq!(old(PutRequest { ignore_lease: true, ..put("k", "x") }), Err(KvError::KeyNotFound));
    assert_eq!(old(asking(put("k", "1"))), Ok(None));
    assert_eq!(old(put("k", "2")), Ok(None), "not asked for");
    assert_eq!(old(asking(keeping)), Ok(Some("2".to_owned())));
    assert_eq!(old(asking(put("k", "3"))), Ok(Some("2".to_owned())), "the value was kept");
    assert_eq!(old(PutRequest { lease: 7, ..put("k", "4") }), Err(KvError::LeaseNotFound));
    assert_eq!(
        old(PutRequest { ignore_lease: true, ..asking(put("k", "5")) }),
        Ok(Some("3".into()))
    );
    assert_eq!(node.store.revision(), 6, "what was refused made no revision");
}

#[test]
fn puts_are_checked_in_order() {
    let both = PutRequest { ignore_value: true, ignore_lease: true, lease: 1, ..put("", "v") };
    for (put, want) in [
        (both.clone(), Err(KvError::EmptyKey)),
        (PutRequest { key: bytes("k"), ..both.clone() }, Err(KvError::ValueProvided)),
        (PutRequest { value: Bytes::new(), ..both.clone() }, Err(KvError::EmptyKey)),
        (
            PutRequest { key: bytes("k"), value: Bytes::new(), ..both.clone() },
            Err(KvError::LeaseProvided),
        ),
        (PutRequest { key: bytes("k"), value: Bytes::new(), lease: 0, ..both }, Ok(())),
    ] {
        assert_eq!(put.validate(), want, "{put:?}");
    }
    assert_eq!(delete("", "").validate(), Err(KvError::EmptyKey));
}

#[test]
fn compactions_are_checked() {
    let mut node = Node::new();
    assert_eq!(node.compact(-1), Err(KvError::Compacted));
    assert_eq!(node.compact(0), Ok(1));
    assert_eq!(node.compact(0), Err(KvError::Compacted));
    assert_eq!(node.compact(2), Err(KvError::FutureRev));
    assert_eq!(node.compact(1), Ok(1));
    node.put("a", "1");
    node.put("a", "2");
    assert_eq!(node.compact(3), Ok(3), "the current revision is not too new");
    assert_eq!(node.compact(2), Err(KvError::Compacted));
    assert_eq!((node.store.revision(), node.store.compact_revision()), (3, 3));
}

#[test]
fn history_ends_at_the_compacted_revision() {
    let mut node = sample();
    node.delete("a", ""); // 6
    node.put("d", "5"); // 7
    for stage in ["at once", "after removal", "after a flush"] {
        if stage == "at once" {
            node.compact(6).unwrap();
        } else {
            assert!(node.store.compact_step(100).unwrap());
        }
        if stage == "after a flush" {
            node.store.flush().unwrap();
        }
        assert_eq!(node.all_at(5), Err(KvError::Compacted), "{stage}");
        assert_eq!(node.all_at(6).unwrap(), ["b=4", "c=2"], "{stage}");
        assert_eq!(node.all_at(0).unwrap(), ["b=4", "c=2", "d=5"], "{stage}");
    }
    // b@5, c@4, d@7, and the deletion of a at 6 for a watch that starts there.
    let view = node.store.state().unwrap().rows().into_view();
    let mut revisions = Vec::new();
    view.scan(Table::Key, &[], &mut |key, _| {
        revisions.push(key[7]);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(revisions, [4, 5, 6, 7]);
}

#[test]
fn removal_goes_in_steps_and_is_reported_when_durable() {
    let mut node = Node::new();
    for number in 0..50 {
        node.put(&format!("k{}", number % 10), "v");
    }
    node.store.flush().unwrap();
    let full = node.store.in_use_bytes();
    node.compact(node.store.revision()).unwrap();
    let mut steps = 1;
    while !node.store.compact_step(3).unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 4, "ten keys, three at a time");
    assert_eq!(node.store.removed_revision(), -1, "not durable yet");
    assert_eq!(node.store.overlay_count(), 40, "what is to be deleted waits for the flush");
    node.store.flush().unwrap();
    assert_eq!(node.store.removed_revision(), 51);
    assert_eq!(node.store.overlay_count(), 0);
    assert!(node.store.in_use_bytes() < full / 3);
}

#[test]
fn settings_of_autopilot_are_compared_and_set() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    assert_eq!(node.store.autopilot(), None);
    let hash = node.store.hash().unwrap().hash;
    let set = |node: &mut Node, value: &'static str, expected: Option<u64>| {
        let (settings, expected) = (Bytes::from_static(value.as_bytes()), expected.map(Index));
        match node.run(&Command::SetAutopilot { settings, expected }) {
            Ok(Response::SetAutopilot { succeeded, setting }) => {
                let setting = setting.map(|set| (set.value, set.created.0, set.modified.0));
                (succeeded, setting)
            }
            other => panic!("{other:?}"),
        }
    };
    let is = |value: &'static str, created, modified| {
        Some((Bytes::from_static(value.as_bytes()), created, modified))
    };
    assert_eq!(set(&mut node, "a", Some(7)), (false, None), "there is none of 7");
    assert_eq!(set(&mut node, "a", Some(0)), (true, is("a", 2, 2)));
    assert_eq!(set(&mut node, "b", Some(0)), (false, is("a", 2, 2)), "another was quicker");
    assert_eq!(set(&mut node, "b", Some(2)), (true, is("b", 2, 4)));
    assert_eq!(set(&mut node, "c", None), (true, is("c", 2, 5)), "whatever it was");
    assert_eq!(node.store.revision(), 1, "settings have no revisions");
    assert_ne!(node.store.hash().unwrap().hash, hash);
    let set = node.store.autopilot();
    assert!(set.is_some());
    node.store.flush().unwrap();
    drop(node);
    assert_eq!(Store::open(disk).unwrap().autopilot(), set, "it outlives a restart");
}

#[test]
fn members_change_by_entries() {
    let mut node = Node::new();
    let publish = |id, name: &str, life| Command::PublishMember {
        id,
        name: name.to_owned(),
        client_urls: vec!["http://c1".to_owned()],
        life: Life(life),
        version: String::new(),
        tags: std::collections::BTreeMap::new(),
    };
    assert_eq!(node.run(&publish(9, "nobody", 1)), Err(KvError::MemberNotFound));
    node.run(&publish(1, "one", 1)).unwrap();
    assert_eq!(node.run(&publish(1, "other", 2)), Err(KvError::MemberBootstrapped));
    let two = Member { id: 2, peer_urls: vec!["http://p2".to_owned()], ..Member::default() };
    let what = Apply::Membership {
        conf_state: Bytes::from_static(b"two"),
        change: Some(MemberChange::Add(two.clone())),
    };
    let outcome = node
        .store
        .apply(&[Entry { index: Index(4), term: Term(4), what, answer_wanted: true }])
        .unwrap();
    assert!(outcome.members_changed);
    let members = node.store.members();
    assert_eq!(outcome.responses, [Ok(Response::Members(members.clone()))]);
    assert_eq!((members[0].name.as_str(), &members[1]), ("one", &two));
    let applied = node.store.applied();
    assert_eq!(
        (applied.index, applied.term, &applied.conf_state[..]),
        (Index(4), Term(4), &b"two"[..])
    );
    assert_eq!(node.store.revision(), 1, "members have no revisions");
}

#[test]
fn a_piece_ends_before_it_is_too_long_but_holds_a_pair() {
    let mut node = Node::new();
    for (key, bytes) in [("k1", 10), ("k2", 10), ("k3", 5000), ("k4", 300), ("k5", 300)] {
        node.run(&Command::Put(PutRequest { value: vec![b'v'; bytes].into(), ..put(key, "") }))
            .unwrap();
    }
    let room = crate::AnswerRoom::new(1 << 20);
    for (from, limit, bytes_max, want, more) in [
        ("k", 0, 1000, &["k1", "k2"][..], true),
        ("k", 1, 1000, &["k1"], true),
        ("k3", 0, 1000, &["k3"], true), // alone, since it is too long for any
        ("k4", 0, 1000, &["k4", "k5"], false),
        ("k4", 0, 0, &["k4"], true),
        ("k5", 0, 0, &["k5"], false),
        ("k6", 0, 0, &[], false),
    ] {
        let ask = RangeRequest { limit, ..range(from, "l") };
        for is_first in [true, false] {
            let (piece, _) = match is_first {
                true => node.store.first_piece_within(&room, bytes_max, &ask).unwrap(),
                false => node.store.next_piece_within(&room, bytes_max, &ask).unwrap(),
            };
            let keys: Vec<_> = piece.kvs.iter().map(|pair| pair.key.clone()).collect();
            assert_eq!((keys, piece.more), (want.iter().map(|key| bytes(key)).collect(), more));
            let all = node.store.range(&RangeRequest { count_only: true, ..ask.clone() }).unwrap();
            assert!(!is_first || piece.count == all.count, "the first one counts all");
        }
    }
}

/// Page by page at one revision is the whole, however the pages are cut; and a page goes no further
/// than it has to.
#[test]
fn pages_make_up_the_whole() {
    let mut node = Node::new();
    for number in 0..25 {
        node.put(&format!("k{number:02}"), "old");
    }
    let revision = node.store.revision();
    node.delete("k00", "k10");
    let whole = node.range(RangeRequest { revision, ..range("k", "l") }).unwrap().kvs;
    assert_eq!(whole.len(), 25);
    for limit in [1, 2, 7, 24, 25, 26] {
        let mut ask = RangeRequest { revision, limit, ..range("k", "l") };
        let mut all = Vec::new();
        loop {
            let page = node.store.page(&ask).unwrap();
            assert!(page.kvs.len() as i64 <= limit && page.count <= limit + 1, "limit {limit}");
            all.extend(page.kvs);
            if !page.more {
                break;
            }
            let after = [&all.last().unwrap().key[..], &[0]].concat();
            ask.key = Bytes::from(after);
        }
        assert_eq!(all, whole, "limit {limit}");
    }
    let one = node.store.page(&RangeRequest { limit: 1, ..range("k10", "") }).unwrap();
    assert_eq!((pairs(&one.kvs), one.more), (vec!["k10=old".to_owned()], false));
    node.compact(revision + 1).unwrap();
    let gone = node.store.page(&RangeRequest { revision, ..range("k", "l") });
    assert_eq!(gone, Err(KvError::Compacted));
}
