//! Commands as bytes and back.

use bytes::{Bytes, BytesMut};
use quorate_types::{Index, Term};

use super::random::command;
use super::{Dice, bytes, put};
use crate::*;

fn encoded(command: &Command) -> Bytes {
    let mut out = BytesMut::new();
    command.encode(&mut out);
    assert_eq!(out.len(), command.encoded_len(), "{command:?}");
    out.freeze()
}

#[test]
fn commands_come_back() {
    let mut dice = Dice(11);
    for _ in 0..2000 {
        let command = command(&mut dice, 30);
        assert_eq!(Command::decode(encoded(&command)), Ok(command));
    }
    let publish = Command::PublishMember {
        id: u64::MAX,
        name: "näme".to_owned(),
        client_urls: vec!["http://a".to_owned(), String::new()],
        life: quorate_types::Life(u64::MAX),
        version: String::new(),
        tags: std::collections::BTreeMap::new(),
    };
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let tagged = Command::PublishMember {
        id: 1,
        name: "n1".to_owned(),
        client_urls: Vec::new(),
        life: quorate_types::Life(9),
        version: "1.2.0".to_owned(),
        tags: [tag("zone", "a"), tag("rack", "")].into(),
    };
    let settings = |expected| Command::SetAutopilot { settings: bytes("{}"), expected };
    let alarm = |action, alarm| Command::Alarm(AlarmRequest { action, member: u64::MAX, alarm });
    let checkpoint =
        |id, remaining_seconds| LeaseCheckpoint { id, granted: Index(u64::MAX), remaining_seconds };
    let checkpoints = vec![checkpoint(i64::MIN, i64::MAX), checkpoint(1, 0)];
    for command in [
        publish,
        tagged,
        settings(None),
        settings(Some(Index(0))),
        settings(Some(Index(u64::MAX))),
        Command::LeaseGrant { id: i64::MIN, ttl_seconds: i64::MAX },
        Command::LeaseRevoke { id: i64::MAX },
        Command::LeaseExpire { id: -1, granted: Index(300), term: Term(u64::MAX) },
        Command::LeaseCheckpoint { term: Term(7), order: u64::MAX, checkpoints },
        Command::LeaseCheckpoint { term: Term(0), order: 0, checkpoints: Vec::new() },
        alarm(AlarmAction::Get, AlarmType::None),
        alarm(AlarmAction::Unknown(-9), AlarmType::Unknown(i32::MAX)),
    ] {
        assert_eq!(Command::decode(encoded(&command)), Ok(command));
    }
}

#[test]
fn bytes_of_old_logs_are_still_read() {
    // version 1, put: key, value, lease -1, prev_kv and ignore_lease
    let put = Bytes::from_static(&[1, 1, 1, b'k', 2, b'v', b'w', 1, 0b101]);
    let want = PutRequest { lease: -1, prev_kv: true, ignore_lease: true, ..super::put("k", "vw") };
    assert_eq!(Command::decode(put), Ok(Command::Put(want)));
    // version 1, lease -2 of 60 s; its end, as the leader of term 9 found it granted at 300
    let grant = Bytes::from_static(&[1, 6, 3, 120]);
    assert_eq!(Command::decode(grant), Ok(Command::LeaseGrant { id: -2, ttl_seconds: 60 }));
    let revoke = Bytes::from_static(&[1, 7, 3]);
    assert_eq!(Command::decode(revoke), Ok(Command::LeaseRevoke { id: -2 }));
    let expire = Bytes::from_static(&[1, 8, 3, 0xac, 2, 9]);
    let want = Command::LeaseExpire { id: -2, granted: Index(300), term: Term(9) };
    assert_eq!(Command::decode(expire), Ok(want));
    let checkpoint = Bytes::from_static(&[1, 9, 9, 4, 1, 3, 0xac, 2, 10]);
    let one = LeaseCheckpoint { id: -2, granted: Index(300), remaining_seconds: 5 };
    let want = Command::LeaseCheckpoint { term: Term(9), order: 4, checkpoints: vec![one] };
    assert_eq!(Command::decode(checkpoint), Ok(want));
    let alarm = Bytes::from_static(&[1, 10, 2, 5, 4]);
    let (action, alarm_type) = (AlarmAction::Activate, AlarmType::Corrupt);
    let want = AlarmRequest { action, member: 5, alarm: alarm_type };
    assert_eq!(Command::decode(alarm), Ok(Command::Alarm(want)));
    // version 1, compaction to 300, physical
    let compact = Bytes::from_static(&[1, 4, 0xd8, 4, 1]);
    let want = CompactionRequest { revision: 300, physical: true };
    assert_eq!(Command::decode(compact), Ok(Command::Compact(want)));
}

#[test]
fn values_are_slices() {
    let bytes = encoded(&Command::Put(put("key", &"v".repeat(1000))));
    let Ok(Command::Put(put)) = Command::decode(bytes.clone()) else { panic!() };
    let (whole, value) = (bytes.as_ptr_range(), put.value.as_ptr_range());
    assert!(whole.start <= value.start && value.end <= whole.end, "the value was copied");
}

#[test]
fn nonsense_is_refused_and_named() {
    for (bytes, want) in [
        (&[][..], CommandError::Malformed(Malformed("cut off"))),
        (&[1], CommandError::Malformed(Malformed("cut off"))),
        (&[2, 1], CommandError::UnknownVersion(2)),
        (&[1, 0], CommandError::UnknownKind(0)),
        (&[1, 200, 1, 2, 3], CommandError::UnknownKind(200)),
        (&[1, 4, 2, 2], CommandError::Malformed(Malformed("a flag nobody knows"))),
        (&[1, 4, 2, 1, 0], CommandError::Malformed(Malformed("bytes left over"))),
        (&[1, 3, 99], CommandError::Malformed(Malformed("more items than bytes"))),
    ] {
        assert_eq!(Command::decode(Bytes::copy_from_slice(bytes)), Err(want), "{bytes:?}");
    }
}

#[test]
fn no_bytes_panic() {
    let mut dice = Dice(5);
    for _ in 0..3000 {
        let mut bytes = encoded(&command(&mut dice, 30)).to_vec();
        for _ in 0..=dice.roll(3) {
            let place = dice.roll(bytes.len() as u64) as usize;
            bytes[place] = dice.roll(256) as u8;
        }
        bytes.truncate(dice.roll(bytes.len() as u64 + 1) as usize);
        let _ = Command::decode(Bytes::from(bytes));
    }
}

#[test]
fn depth_is_bounded_in_reading_and_checking() {
    let nested = |depth| {
        let innermost = TxnRequest::default();
        (1..depth).fold(innermost, |inner, _| TxnRequest {
            success: vec![RequestOp::Txn(inner)],
            ..TxnRequest::default()
        })
    };
    let limits = Limits { txn_ops_max: 100_000 };
    let deepest = Command::Txn(nested(TXN_DEPTH_MAX));
    assert_eq!(deepest.validate(&limits), Ok(()));
    assert_eq!(Command::decode(encoded(&deepest)), Ok(deepest));
    let deeper = Command::Txn(nested(TXN_DEPTH_MAX + 1));
    assert_eq!(deeper.validate(&limits), Err(KvError::TooManyOps));
    assert!(Command::decode(encoded(&deeper)).is_err());
}

#[test]
fn a_target_made_by_hand_stays_unknown() {
    let compare =
        Compare { target: CompareTarget::Unknown(3), key: bytes("k"), ..Compare::default() };
    let txn = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
    let Ok(Command::Txn(txn)) = Command::decode(encoded(&Command::Txn(txn))) else { panic!() };
    assert_eq!(txn.compare[0].target, CompareTarget::Unknown(-1));
}
