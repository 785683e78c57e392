//! Transactions: checks before the log, compares, order, and answers.

use super::*;

fn compare(key: &str, target: CompareTarget, result: CompareResult) -> Compare {
    Compare { result, target, key: bytes(key), range_end: Bytes::new() }
}

fn puts(key: &str) -> RequestOp {
    RequestOp::Put(put(key, "new"))
}

fn ranges(key: &str, end: &str) -> RequestOp {
    RequestOp::Range(range(key, end))
}

fn deletes(key: &str, end: &str) -> RequestOp {
    RequestOp::DeleteRange(delete(key, end))
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    RequestOp::Txn(TxnRequest { success, failure, ..TxnRequest::default() })
}

fn sample() -> Node {
    let mut node = Node::new();
    node.put("a", "1"); // 2
    node.put("b", "2"); // 3
    node.put("b", "3"); // 4
    node
}

#[test]
fn compares() {
    use CompareResult::{Equal, Greater, Less, NotEqual, Unknown};
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let b = |target, result| compare("b", target, result);
    let x = |target, result| compare("x", target, result);
    let over = |end: &str, compare| Compare { range_end: bytes(end), ..compare };
    for (compare, want) in [
        (b(Version(2), Equal), true),
        (b(Version(2), NotEqual), false),
        (b(Create(2), Greater), true),
        (b(Create(3), Greater), false),
        (b(Mod(5), Less), true),
        (b(Mod(4), Less), false),
        (b(Lease(0), Equal), true),
        (b(Value(bytes("3")), Equal), true),
        (b(Value(bytes("2")), Greater), true),
        (b(Value(bytes("30")), Less), true),
        (b(Mod(99), Unknown(7)), true),
        (b(CompareTarget::Unknown(9), Equal), true),
        (x(Version(0), Equal), true),
        (x(Create(0), Equal), true),
        (x(Mod(1), Less), true),
        (x(Lease(0), NotEqual), false),
        (x(Value(Bytes::new()), Equal), false),
        (x(Value(bytes("v")), NotEqual), false),
        (over("c", self::compare("a", Version(0), Greater)), true),
        (over("c", self::compare("a", Version(1), Equal)), false),
        (over("\0", self::compare("a", Value(bytes("0")), Greater)), true),
        (over("z", self::compare("c", Version(0), Equal)), true),
        (over("z", self::compare("c", Value(Bytes::new()), Equal)), false),
        (over("a", self::compare("z", Mod(0), Equal)), true),
    ] {
        let txn = TxnRequest { compare: vec![compare.clone()], ..TxnRequest::default() };
        let mut node = sample();
        assert_eq!(node.txn(txn.clone()).unwrap().succeeded, want, "{compare:?}");
        assert_eq!(node.store.read_txn(&txn).unwrap().succeeded, want, "{compare:?}");
    }
}

#[test]
fn all_compares_have_to_hold() {
    let holds = compare("a", CompareTarget::Version(1), CompareResult::Equal);
    let fails = compare("a", CompareTarget::Version(9), CompareResult::Equal);
    for (compares, want) in [
        (vec![], true),
        (vec![holds.clone(), holds.clone()], true),
        (vec![holds, fails.clone()], false),
        (vec![fails], false),
    ] {
        let txn = TxnRequest {
            compare: compares,
            success: vec![puts("yes")],
            failure: vec![puts("no"), deletes("a", "")],
        };
        let mut node = sample();
        let answer = node.txn(txn).unwrap();
        assert_eq!(answer.succeeded, want);
        assert_eq!(answer.responses.len(), if want { 1 } else { 2 });
        assert_eq!(node.range(range("yes", "")).unwrap().count, i64::from(want));
        assert_eq!(node.store.revision(), 5);
    }
}

#[test]
fn later_operations_see_earlier_ones() {
    let mut node = sample();
    let answer = node
        .txn(then(vec![
            ranges("a", "z"),
            deletes("a", ""),
            ranges("a", "z"),
            puts("c"),
            ranges("a", "z"),
            RequestOp::Range(RangeRequest { revision: 3, ..range("a", "z") }),
        ]))
        .unwrap();
    let seen: Vec<_> = answer
        .responses
        .iter()
        .filter_map(|response| match response {
            ResponseOp::Range(range) => Some((range.revision, pairs(&range.kvs).join(" "))),
            _ => None,
        })
        .collect();
    let want = [(4, "a=1 b=3"), (5, "b=3"), (5, "b=3 c=new"), (5, "a=1 b=2")];
    assert_eq!(seen, want.map(|(revision, kvs)| (revision, kvs.to_owned())));
    assert_eq!((answer.revision, node.store.revision()), (5, 5));
}

#[test]
fn headers_inside_say_what_was_written_by_then() {
    let mut node = sample();
    let answer = node
        .txn(then(vec![
            deletes("x", ""),
            puts("c"),
            deletes("x", ""),
            nested(vec![puts("d")], vec![]),
        ]))
        .unwrap();
    let ResponseOp::Txn(inner) = &answer.responses[3] else { panic!() };
    let headers: Vec<i64> = answer
        .responses
        .iter()
        .chain(&inner.responses)
        .map(|response| match response {
            ResponseOp::Range(range) => range.revision,
            ResponseOp::Put(put) => put.revision,
            ResponseOp::DeleteRange(delete) => delete.revision,
            ResponseOp::Txn(txn) => txn.revision,
        })
        .collect();
    assert_eq!(headers, [4, 5, 5, 0, 5]);
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    for txn in [
        then(vec![]),
        then(vec![ranges("a", "z")]),
        then(vec![deletes("x", "z")]),
        then(vec![nested(vec![ranges("a", "")], vec![puts("c")])]),
    ] {
        let mut node = sample();
        assert_eq!(node.txn(txn.clone()).unwrap().revision, 4, "{txn:?}");
        assert_eq!(node.store.revision(), 4);
    }
}

#[test]
fn nested_compares_see_the_state_before_everything() {
    let mut node = sample();
    let inner = TxnRequest {
        compare: vec![compare("a", CompareTarget::Value(bytes("1")), CompareResult::Equal)],
        success: vec![puts("then")],
        failure: vec![puts("else")],
    };
    let answer = node.txn(then(vec![puts("a"), RequestOp::Txn(inner)])).unwrap();
    let ResponseOp::Txn(inner) = &answer.responses[1] else { panic!() };
    assert!(inner.succeeded);
    assert_eq!(node.all_at(0).unwrap(), ["a=new", "b=3", "then=new"]);
}

#[test]
fn a_transaction_happens_whole_or_not_at_all() {
    let at = |revision| RequestOp::Range(RangeRequest { revision, ..range("a", "") });
    let leased = RequestOp::Put(PutRequest { lease: 5, ..put("c", "") });
    let keeping = RequestOp::Put(PutRequest { ignore_value: true, ..put("x", "") });
    for (last, want) in [
        (at(5), KvError::FutureRev),
        (at(2), KvError::Compacted),
        (leased, KvError::LeaseNotFound),
        (keeping, KvError::KeyNotFound),
        (RequestOp::Empty, KvError::KeyNotFound),
    ] {
        let mut node = sample();
        node.compact(3).unwrap();
        for txn in [
            then(vec![puts("n"), deletes("a", ""), last.clone()]),
            then(vec![puts("n"), nested(vec![deletes("a", ""), last.clone()], vec![])]),
        ] {
            assert_eq!(node.txn(txn), Err(want), "{last:?}");
            assert_eq!(node.all_at(0).unwrap(), ["a=1", "b=3"]);
            assert_eq!(node.store.revision(), 4);
        }
        // The list that does not run is not checked.
        assert!(node.txn(then(vec![nested(vec![], vec![last.clone()])])).is_ok());
        // Nothing of the refused ones comes up later.
        node.put("z", "1");
        assert_eq!(node.all_at(0).unwrap(), ["a=1", "b=3", "z=1"]);
    }
}

#[test]
fn what_is_wrong_with_a_put_is_told_first() {
    let at = |revision| RequestOp::Range(RangeRequest { revision, ..range("a", "") });
    let leased = || RequestOp::Put(PutRequest { lease: 5, ..put("c", "") });
    let keeping = || RequestOp::Put(PutRequest { ignore_value: true, ..put("x", "") });
    let both = || RequestOp::Put(PutRequest { ignore_value: true, lease: 5, ..put("x", "") });
    for (ops, want) in [
        (vec![at(9), leased()], KvError::LeaseNotFound),
        (vec![at(2), keeping()], KvError::KeyNotFound),
        (vec![nested(vec![at(9)], vec![]), leased()], KvError::LeaseNotFound),
        (vec![at(9), nested(vec![leased()], vec![])], KvError::LeaseNotFound),
        // Among puts, and among ranges, the first in the list; nested ones in their place.
        (vec![nested(vec![leased()], vec![]), keeping()], KvError::LeaseNotFound),
        (vec![keeping(), nested(vec![leased()], vec![])], KvError::KeyNotFound),
        (vec![nested(vec![at(2)], vec![]), at(9)], KvError::Compacted),
        (vec![at(9), nested(vec![at(2)], vec![])], KvError::FutureRev),
        // Of one put, the key; outside of a transaction it is the lease.
        (vec![both()], KvError::KeyNotFound),
    ] {
        let mut node = sample();
        node.compact(3).unwrap();
        assert_eq!(node.txn(then(ops.clone())), Err(want), "{ops:?}");
    }
    let RequestOp::Put(both) = both() else { panic!() };
    assert_eq!(sample().run(&Command::Put(both)), Err(KvError::LeaseNotFound));
}

#[test]
fn negative_revisions_in_transactions_are_below_what_is_compacted() {
    for (compacted, revision, want) in [
        (None, -1, Ok(())), // as in etcd, whose compacted revision is -1 then
        (None, -2, Err(KvError::Compacted)),
        (Some(0), -1, Err(KvError::Compacted)),
        (Some(3), -1, Err(KvError::Compacted)),
        (Some(3), 0, Ok(())),
    ] {
        let mut node = sample();
        if let Some(revision) = compacted {
            node.compact(revision).unwrap();
        }
        let past = RangeRequest { revision, ..range("a", "") };
        let reads = then(vec![RequestOp::Range(past.clone())]);
        assert_eq!(node.store.read_txn(&reads).map(drop), want, "{compacted:?}, {revision}");
        let writes = then(vec![puts("n"), RequestOp::Range(past.clone())]);
        assert_eq!(node.txn(writes).map(drop), want, "{compacted:?}, {revision}");
        assert_eq!(node.range(past).unwrap().count, 1, "the newest, outside of one");
    }
}

#[test]
fn read_only_transactions_read_one_state() {
    let node = sample();
    let past = RequestOp::Range(RangeRequest { revision: 3, ..range("b", "") });
    let txn = then(vec![ranges("a", "z"), past]);
    assert!(txn.is_read_only());
    let answer = node.store.read_txn(&txn).unwrap();
    let seen: Vec<_> = answer
        .responses
        .iter()
        .map(|response| match response {
            ResponseOp::Range(range) => (range.revision, pairs(&range.kvs).join(" ")),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, [(4, "a=1 b=3".to_owned()), (4, "b=2".to_owned())]);
    assert_eq!(answer.revision, 4);
    let future = RequestOp::Range(RangeRequest { revision: 9, ..range("b", "") });
    assert_eq!(node.store.read_txn(&then(vec![future])), Err(KvError::FutureRev));
}

#[test]
fn kinds_of_transactions() {
    let stale = RequestOp::Range(RangeRequest { serializable: true, ..range("a", "") });
    for (ops, read_only, serializable) in [
        (vec![], true, true),
        (vec![stale.clone()], true, true),
        (vec![stale.clone(), ranges("a", "")], true, false),
        (vec![stale.clone(), puts("a")], false, false),
        (vec![nested(vec![stale], vec![])], false, false),
    ] {
        let txn = TxnRequest { failure: ops, ..TxnRequest::default() };
        assert_eq!((txn.is_read_only(), txn.is_serializable()), (read_only, serializable));
    }
}

#[test]
fn checks_come_in_etcds_order() {
    let many = |count: usize| (0..count).map(|n| ranges(&format!("k{n}"), "")).collect::<Vec<_>>();
    let anywhere = compare("", CompareTarget::Version(0), CompareResult::Equal);
    let twice = vec![puts("k"), puts("k")];
    let unsorted = RangeRequest { sort_order: SortOrder::Unknown(9), ..range("k", "") };
    for (txn, want) in [
        (then(many(128)), Ok(())),
        (then(many(129)), Err(KvError::TooManyOps)),
        (TxnRequest { failure: many(129), ..TxnRequest::default() }, Err(KvError::TooManyOps)),
        (
            TxnRequest { compare: vec![anywhere.clone()], ..then(many(129)) },
            Err(KvError::TooManyOps),
        ),
        (TxnRequest { compare: vec![anywhere; 129], ..then(vec![]) }, Err(KvError::TooManyOps)),
        (then(vec![nested(many(127), vec![])]), Ok(())),
        (then(vec![nested(many(128), vec![])]), Err(KvError::TooManyOps)),
        (
            TxnRequest {
                compare: vec![compare("", CompareTarget::Version(0), CompareResult::Equal)],
                ..then(vec![RequestOp::Empty])
            },
            Err(KvError::EmptyKey),
        ),
        (then(vec![RequestOp::Empty, puts("")]), Err(KvError::KeyNotFound)),
        (then(vec![puts(""), RequestOp::Empty]), Err(KvError::EmptyKey)),
        (then(vec![deletes("", "")]), Err(KvError::EmptyKey)),
        (then(vec![RequestOp::Range(unsorted)]), Err(KvError::InvalidSortOption)),
        (then([twice.clone(), vec![ranges("", "")]].concat()), Err(KvError::EmptyKey)),
        (then(twice), Err(KvError::DuplicateKey)),
    ] {
        assert_eq!(txn.validate(&Limits::default()), want, "{txn:?}");
        assert_eq!(Command::Txn(txn).validate(&Limits::default()), want);
    }
}

#[test]
fn a_key_is_written_once() {
    let refused = Err(KvError::DuplicateKey);
    for (ops, want) in [
        (vec![puts("a"), puts("b")], Ok(())),
        (vec![puts("a"), ranges("a", ""), puts("a")], refused),
        (vec![puts("b"), deletes("a", "c")], refused),
        (vec![deletes("a", "\0"), puts("b")], refused),
        (vec![deletes("a", "b"), puts("b")], Ok(())),
        (vec![deletes("c", "a"), puts("b")], Ok(())),
        (vec![deletes("a", "c"), deletes("b", "d")], Ok(())),
        (vec![puts("a"), nested(vec![puts("a")], vec![])], refused),
        (vec![nested(vec![], vec![puts("a")]), puts("a")], refused),
        (vec![deletes("a", "c"), nested(vec![puts("b")], vec![])], refused),
        (vec![puts("b"), nested(vec![deletes("a", "c")], vec![])], refused),
        (vec![nested(vec![puts("a")], vec![puts("a")])], Ok(())),
        (vec![nested(vec![puts("a")], vec![deletes("a", "")])], Ok(())),
        (vec![nested(vec![puts("a")], vec![]), nested(vec![puts("a")], vec![])], refused),
        (vec![nested(vec![puts("a")], vec![]), nested(vec![deletes("a", "")], vec![])], refused),
        (vec![nested(vec![puts("a"), puts("a")], vec![])], refused),
        (vec![nested(vec![nested(vec![puts("a")], vec![])], vec![]), puts("a")], refused),
    ] {
        for txn in [
            TxnRequest { success: ops.clone(), ..TxnRequest::default() },
            TxnRequest { failure: ops.clone(), ..TxnRequest::default() },
        ] {
            assert_eq!(txn.validate(&Limits::default()), want, "{txn:?}");
        }
    }
    let both = TxnRequest { compare: vec![], success: vec![puts("a")], failure: vec![puts("a")] };
    assert_eq!(both.validate(&Limits::default()), Ok(()), "only one of the lists runs");
}

#[test]
fn who_writes_what_is_found_out_in_few_steps() {
    // All of them stand at one place of the outer list, and every interval holds all the keys.
    let key = |number: usize| format!("{number:06}");
    let list = |op: &dyn Fn(usize) -> RequestOp| -> Vec<RequestOp> {
        let inner = |from: usize| nested((from..from + 100).map(op).collect(), vec![]);
        vec![nested((0..100).map(|part| inner(part * 100)).collect(), vec![])]
    };
    let written = list(&|number| puts(&key(number)));
    let deleted = list(&|_| deletes("\0", "\0"));
    let limits = Limits { txn_ops_max: 1000 };
    let within = then(vec![nested(written.clone(), deleted.clone())]);
    assert_eq!(within.validate(&limits), Ok(()));
    let beside = then([written, deleted].concat());
    assert_eq!(beside.validate(&limits), Err(KvError::DuplicateKey));
}

#[test]
fn intervals_and_puts_of_others_are_told_apart() {
    let mut dice = Dice(5);
    let key = |dice: &mut Dice| ["a", "b", "c", "d", "e"][dice.roll(5) as usize];
    for _ in 0..2000 {
        // One list, each element of which puts or deletes in a transaction of its own.
        let mut list = Vec::new();
        let mut expected = false;
        let mut writers = Vec::new();
        for _ in 0..1 + dice.roll(4) {
            let mut keys = vec![key(&mut dice), key(&mut dice)];
            keys.sort_unstable();
            keys.dedup();
            let span = (dice.roll(2) == 0).then(|| (key(&mut dice), key(&mut dice)));
            let success = keys.iter().map(|key| puts(key)).collect();
            let failure = span.iter().map(|(start, end)| deletes(start, end)).collect();
            list.push(nested(success, failure));
            writers.push((keys, span));
        }
        for (at, (keys, _)) in writers.iter().enumerate() {
            for (other, (others, span)) in writers.iter().enumerate() {
                let is_hit = |key: &&&str| {
                    span.is_some_and(|(start, end)| start <= **key && **key < end)
                        || others.contains(key)
                };
                expected |= at != other && keys.iter().any(|key| is_hit(&key));
            }
        }
        let wanted = if expected { Err(KvError::DuplicateKey) } else { Ok(()) };
        assert_eq!(then(list).validate(&Limits::default()), wanted, "{writers:?}");
    }
}
