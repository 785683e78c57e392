//! What an alarm stops, and what it does not.

use super::*;

fn alarm(node: &mut Node, action: AlarmAction, member: u64, alarm: AlarmType) -> Vec<Alarm> {
    match node.run(&Command::Alarm(AlarmRequest { action, member, alarm })) {
        Ok(Response::Alarm(response)) => {
            assert_eq!(response.revision, node.store.revision());
            response.alarms
        }
        other => panic!("{other:?}"),
    }
}

/// a=1 and b=2 under lease 7; lease 8 without keys.
fn sample() -> Node {
    let mut node = Node::new();
    node.grant(7, 60).unwrap();
    node.grant(8, 60).unwrap();
    node.put("a", "1");
    node.put_leased("b", 7);
    node
}

#[test]
fn alarms_refuse_what_they_are_about() {
    let put = || RequestOp::Put(put("k", ""));
    let delete_op = || RequestOp::DeleteRange(delete("a", ""));
    let range = || RequestOp::Range(range("a", ""));
    let txn = |success, failure| TxnRequest { success, failure, ..TxnRequest::default() };
    let nested = |inner| RequestOp::Txn(inner);
    let (no_space, corrupt) = (Some(KvError::NoSpace), Some(KvError::Corrupt));
    for (command, under_no_space, under_corrupt) in [
        (Command::Put(super::put("k", "")), no_space, corrupt),
        (Command::DeleteRange(delete("a", "")), None, corrupt),
        (Command::Txn(txn(vec![put()], vec![])), no_space, corrupt),
        (Command::Txn(txn(vec![], vec![put()])), no_space, corrupt),
        (Command::Txn(txn(vec![nested(txn(vec![], vec![put()]))], vec![])), no_space, corrupt),
        (Command::Txn(txn(vec![delete_op(), range()], vec![])), None, corrupt),
        (Command::Compact(CompactionRequest { revision: 2, physical: false }), None, corrupt),
        (Command::LeaseGrant { id: 9, ttl_seconds: 5 }, no_space, corrupt),
        (Command::LeaseRevoke { id: 8 }, None, corrupt),
        (Command::LeaseExpire { id: 7, granted: Index(1), term: Term(3) }, None, corrupt),
        (Command::LeaseCheckpoint { term: Term(3), order: 1, checkpoints: Vec::new() }, None, None),
        (Command::Alarm(AlarmRequest::default()), None, None),
    ] {
        for (kinds, want) in [
            (&[AlarmType::NoSpace][..], under_no_space),
            (&[AlarmType::Corrupt], under_corrupt),
            (&[AlarmType::NoSpace, AlarmType::Corrupt], under_corrupt),
        ] {
            let mut node = sample();
            for kind in kinds {
                alarm(&mut node, AlarmAction::Activate, 5, *kind);
            }
            let before = node.store.hash().unwrap();
            assert_eq!(node.run(&command).err(), want, "{kinds:?}: {command:?}");
            assert!(want.is_none() || node.store.hash().unwrap() == before, "{command:?}");
            // Reads go on whatever the alarm, and so does everything once it is over.
            assert!(node.range(super::range("b", "")).is_ok());
            for kind in kinds {
                alarm(&mut node, AlarmAction::Deactivate, 5, *kind);
            }
            assert!(want.is_none() || node.run(&command).is_ok(), "{command:?}");
        }
    }
}

#[test]
fn an_alarm_of_one_member_counts_until_each_is_over() {
    let mut node = Node::new();
    alarm(&mut node, AlarmAction::Activate, 1, AlarmType::NoSpace);
    alarm(&mut node, AlarmAction::Activate, 2, AlarmType::NoSpace);
    for (member, want) in [(1, Some(KvError::NoSpace)), (2, None)] {
        alarm(&mut node, AlarmAction::Deactivate, member, AlarmType::NoSpace);
        assert_eq!(node.run(&Command::Put(put("k", ""))).err(), want);
    }
}

#[test]
fn alarms_outlive_a_restart_and_travel_in_snapshots() {
    let disk = MemoryBackend::new();
    let mut node = Node::on(disk.clone());
    alarm(&mut node, AlarmAction::Activate, 1, AlarmType::NoSpace);
    alarm(&mut node, AlarmAction::Activate, 2, AlarmType::Corrupt);
    node.store.flush().unwrap();
    alarm(&mut node, AlarmAction::Deactivate, 2, AlarmType::Corrupt);
    let want = [Alarm { member: 1, alarm: AlarmType::NoSpace }];
    assert_eq!(node.store.alarms(), want);
    let mut copy = MemoryBackend::new();
    super::snapshots::copy(&node.store.snapshot().unwrap(), &mut copy);
    let hash = node.store.hash();
    for disk in [disk, copy] {
        let store = Store::open(disk).unwrap();
        assert_eq!(store.alarms(), want);
        assert_eq!(store.hash(), hash);
    }
}
