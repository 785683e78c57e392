//! What answers may cost: nothing where nobody waits, and never more than their limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const MIB: usize = 1 << 20;

fn large(key: &str) -> Command {
    let value = Bytes::from(vec![7; MIB]);
    Command::Put(PutRequest { key: bytes(key), value, ..PutRequest::default() })
}

/// A change that reads everything so many times.
fn greedy(times: usize) -> TxnRequest {
    let mut success = vec![RequestOp::Put(put("small", "v"))];
    success.extend((0..times).map(|_| RequestOp::Range(range("\0", "\0"))));
    TxnRequest { success, ..TxnRequest::default() }
}

#[test]
fn rows_are_read_only_where_somebody_waits() {
    let old = |put: PutRequest| RequestOp::Put(PutRequest { prev_kv: true, ..put });
    let all = || RequestOp::Range(range("\0", "\0"));
    let gone = DeleteRangeRequest { prev_kv: true, ..delete("b", "d") };
    let inner = TxnRequest { failure: vec![all()], success: vec![all()], ..TxnRequest::default() };
    let ops = vec![
        all(),
        old(put("a", "2")),
        RequestOp::DeleteRange(gone.clone()),
        RequestOp::Txn(inner),
    ];
    let commands = [
        Command::Put(PutRequest { prev_kv: true, ..put("a", "1") }),
        Command::Txn(TxnRequest { success: ops, ..TxnRequest::default() }),
        Command::DeleteRange(DeleteRangeRequest { range_end: bytes("\0"), ..gone }),
    ];
    let mut states = Vec::new();
    for (answer_wanted, want) in [(true, 10), (false, 0)] {
        let fetched = Arc::new(AtomicUsize::new(0));
        let mut disk = Watched::new(MemoryBackend::new());
        disk.on_get = Arc::new({
            let fetched = Arc::clone(&fetched);
            move |table| {
                fetched.fetch_add(usize::from(table == Table::Key), Ordering::Relaxed);
            }
        });
        let mut node = Node::on(disk);
        for key in ["a", "b", "c", "e"] {
            node.put(key, "0");
        }
        node.store.flush().unwrap();
        for command in &commands {
            let entry = entry(node.log.len() as u64 + 1, command);
            node.log.push(Entry { answer_wanted, ..entry.clone() });
            let outcome = node.store.apply(&node.log[node.log.len() - 1..]).unwrap();
            assert_eq!(outcome.responses == [Ok(Response::Nothing)], !answer_wanted);
            node.store.flush().unwrap();
        }
        assert_eq!(fetched.load(Ordering::Relaxed), want, "wanted: {answer_wanted}");
        states.push((node.store.hash_kv(0).unwrap(), node.all_at(0).unwrap()));
    }
    assert_eq!(states[0], states[1]);
}

#[test]
fn answers_are_handed_out_before_they_are_too_many() {
    let mut node = Node::new();
    node.run(&large("a")).unwrap();
    node.run(&large("b")).unwrap();
    let first = node.log.len() as u64 + 1;
    let mut entries: Vec<Entry> =
        (first..first + 7).map(|index| entry(index, &Command::Txn(greedy(1)))).collect();
    // Nobody waits for this one.
    entries[1].answer_wanted = false;
    let mut handed_out = Vec::new();
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let outcome = node.store.apply(rest).unwrap();
        handed_out.push(outcome.responses.len());
        rest = &rest[outcome.responses.len()..];
    }
    assert_eq!(handed_out, [3, 2, 2], "two mebibytes each, four and a bit at a time");
    assert_eq!(node.store.applied().index, entries[6].index);
}

#[test]
fn an_answer_over_its_limit_is_told_and_the_change_made() {
    let mut node = Node::new();
    for number in 0..8 {
        node.run(&large(&format!("k{number}"))).unwrap();
    }
    let deaf = Node::new();
    let deaf_log: Vec<Entry> =
        node.log.iter().map(|entry| Entry { answer_wanted: false, ..entry.clone() }).collect();
    deaf.store.apply(&deaf_log).unwrap();
    assert!(node.txn(greedy(15)).is_ok(), "under the limit");
    let before = node.store.revision();
    for txn in [
        greedy(17),
        TxnRequest {
            success: vec![RequestOp::Txn(greedy(9)), RequestOp::Txn(greedy(9))],
            ..TxnRequest::default()
        },
    ] {
        assert_eq!(node.txn(txn), Err(KvError::AppliedResponseTooLarge));
    }
    assert_eq!(node.store.revision(), before + 2, "both were made");
    // A read is refused, and in time: what it would have taken is not in memory.
    let mut reads = greedy(17);
    reads.success.remove(0);
    assert_eq!(node.store.read_txn(&reads), Err(KvError::ResponseTooLarge));
    // The state is the same where nobody waited.
    for entry in &node.log[deaf_log.len()..] {
        let entry = Entry { answer_wanted: false, ..entry.clone() };
        assert_eq!(deaf.store.apply(&[entry]).unwrap().responses, [Ok(Response::Nothing)]);
    }
    assert_eq!(deaf.store.hash_kv(0), node.store.hash_kv(0));
    // What sorting or keys-only leaves out does not count.
    let narrow = [
        RangeRequest { limit: 1, sort_target: SortTarget::Value, ..range("k", "l") },
        RangeRequest { keys_only: true, ..range("k", "l") },
        RangeRequest { count_only: true, ..range("k", "l") },
        RangeRequest { limit: 1, sort_target: SortTarget::Mod, ..range("k", "l") },
    ];
    for range in narrow {
        let success = vec![RequestOp::Range(range.clone()); 100];
        let txn = TxnRequest { success, ..TxnRequest::default() };
        assert!(node.store.read_txn(&txn).is_ok(), "{range:?}");
    }
}

#[test]
fn changes_that_wait_for_a_flush_are_bounded() {
    let mut node = Node::new();
    node.run(&large("k0")).unwrap();
    for number in 1..4 {
        node.run(&large(&format!("k{number}"))).unwrap();
    }
    // Some bytes of request that make megabytes of state.
    let keep = |number: usize| {
        let put = put(&format!("k{number}"), "");
        RequestOp::Put(PutRequest { ignore_value: true, ..put })
    };
    let txn = TxnRequest { success: (0..4).map(keep).collect(), ..TxnRequest::default() };
    let first = node.log.len() as u64 + 1;
    let entries: Vec<Entry> =
        (first..first + 24).map(|index| entry(index, &Command::Txn(txn.clone()))).collect();
    assert!(!node.store.needs_flush());
    let done = node.store.apply(&entries).unwrap().responses.len();
    assert_eq!(done, 15, "with the four puts, 64 mebibytes");
    assert!(node.store.needs_flush());
    assert_eq!(
        node.store.apply(&entries[done..]).unwrap().responses.len(),
        1,
        "and yet it goes on"
    );
    node.store.flush().unwrap();
    assert!(!node.store.needs_flush());
    assert_eq!(node.store.apply(&entries[done + 1..]).unwrap().responses.len(), 8);
}

#[test]
fn answers_under_way_share_their_room() {
    let mut node = Node::new();
    for number in 0..4 {
        node.run(&large(&format!("k{number}"))).unwrap();
    }
    let room = AnswerRoom::new(6 * MIB);
    let all = range("k", "l");
    let (first, drawn) = node.store.range_within(&room, &all).unwrap();
    assert_eq!(first.kvs.len(), 4);
    assert!(drawn.as_ref().is_some_and(|drawn| 3 * MIB < drawn.bytes()));
    let left_bytes = room.left_bytes();
    let crowded = |outcome: Result<(), Unanswered>| match outcome {
        // More than there was, and no more than it takes.
        Err(Unanswered::Crowded { needed_bytes }) => {
            left_bytes < needed_bytes && needed_bytes < 5 * MIB
        }
        _ => false,
    };
    assert!(crowded(node.store.range_within(&room, &all).map(drop)));
    assert_eq!(room.left_bytes(), left_bytes, "what it had taken is given back");
    let reads =
        TxnRequest { success: vec![RequestOp::Range(all.clone())], ..TxnRequest::default() };
    assert!(crowded(node.store.read_txn_within(&room, &reads).map(drop)));
    // A short answer needs none, and one is there for what is not so long.
    assert!(
        node.store.range_within(&room, &RangeRequest { count_only: true, ..all.clone() }).is_ok()
    );
    assert!(node.store.range_within(&room, &range("k1", "")).is_ok());
    drop(drawn);
    assert!(node.store.read_txn_within(&room, &reads).is_ok());
    assert_eq!(room.left_bytes(), 6 * MIB, "all of it is given back");
    // What could never have room is refused for good.
    let narrow = AnswerRoom::new(2 * MIB);
    let too_large = Err(Unanswered::Refused(KvError::ResponseTooLarge));
    assert_eq!(node.store.range_within(&narrow, &all).map(drop), too_large);
    assert_eq!(narrow.left_bytes(), 2 * MIB);
}

#[test]
fn one_key_is_read_from_memory_or_not_at_all() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let mut disk = Watched::new(MemoryBackend::new());
    disk.on_get = Arc::new({
        let fetched = Arc::clone(&fetched);
        move |table| {
            fetched.fetch_add(usize::from(table == Table::Key), Ordering::Relaxed);
        }
    });
    let mut node = Node::on(disk);
    node.put("old", "1");
    node.store.flush().unwrap();
    node.put("new", "2");
    let revision = node.put("old", "3");
    let in_memory = |key: &str, revision: i64| {
        let request = RangeRequest { revision, ..range(key, "") };
        node.store.range_in_memory(&request).map(|answer| answer.map(|answer| pairs(&answer.kvs)))
    };
    for (key, at, want) in [
        ("new", 0, Ok(Some(vec!["new=2".to_owned()]))),
        ("old", revision, Ok(Some(vec!["old=3".to_owned()]))),
        ("old", 2, Ok(None)), // only in storage
        ("none", 0, Ok(Some(vec![]))),
        ("new", 99, Err(KvError::FutureRev)),
        ("", 0, Err(KvError::EmptyKey)),
    ] {
        assert_eq!(in_memory(key, at), want, "{key} at {at}");
    }
    assert_eq!(node.store.range_in_memory(&range("new", "z")), Ok(None));
    assert_eq!(fetched.load(Ordering::Relaxed), 0);
    assert_eq!(node.store.range_in_memory(&range("new", "")).unwrap(), {
        node.store.range(&range("new", "")).map(Some).unwrap()
    });
}
