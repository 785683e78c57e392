//! What comes from outside is refused or read, and never hurts.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_raft::{Body, ConfState, EntryType, Message};
use quorate_types::{EntryId, Index, NodeId, Term};

use super::golden::unhex;
use super::round_trip::{joined, message};
use crate::*;

/// `content` as field `field`, whose number is below 16.
pub(super) fn wrapped(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    let mut length = content.len();
    while 0x80 <= length {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn malformed_input_is_named() {
    use DecodeError::*;
    for (input, want) in [
        ("08", Truncated { at: 1, wanted: 1, left: 0 }),
        ("88", Truncated { at: 1, wanted: 1, left: 0 }),
        ("22 03 61 62", Truncated { at: 2, wanted: 3, left: 2 }),
        // A length that would wrap, or ask for all memory.
        ("22 ff ff ff ff ff ff ff ff ff 01", Truncated { at: 11, wanted: u64::MAX, left: 0 }),
        ("10 80 80 80 80 80 80 80 80 80 02", NumberTooLong { at: 1 }),
        ("10 80 80 80 80 80 80 80 80 80 80 00", NumberTooLong { at: 1 }),
        ("00 00", FieldNumber { number: 0, at: 0 }),
        ("80 80 80 80 10 00", FieldNumber { number: 1 << 29, at: 0 }),
        ("26", WireType { wire_type: 6, at: 0 }),
        ("10 01 27", WireType { wire_type: 7, at: 2 }),
        ("24", GroupEnd { number: 4, at: 0 }),
        ("2b 34", GroupEnd { number: 6, at: 1 }),
        ("2b 10 01", Truncated { at: 3, wanted: 1, left: 0 }),
        ("2d 01 02 03", Truncated { at: 1, wanted: 4, left: 3 }),
        ("29 01 02 03", Truncated { at: 1, wanted: 8, left: 3 }),
        ("08 03", UnknownEnum { field: "EntryType", number: 3 }),
        ("08 ff ff ff ff ff ff ff ff ff 01", UnknownEnum { field: "EntryType", number: -1 }),
    ] {
        assert_eq!(decode_entry(unhex(input)), Err(want), "{input}");
    }
    let unknown = UnknownEnum { field: "MessageType", number: 24 };
    assert_eq!(decode_message(unhex("08 18")), Err(unknown));
    let unknown = UnknownEnum { field: "ConfChangeType", number: 4 };
    assert_eq!(decode_conf_change(unhex("10 04")), Err(unknown));
    assert_eq!(decode_conf_change_v2(unhex("12 02 08 04")), Err(unknown));
    let unknown = UnknownEnum { field: "ConfChangeTransition", number: 3 };
    assert_eq!(decode_conf_change_v2(unhex("08 03")), Err(unknown));
    // An inner value ends where its length says, whatever follows.
    let inner = Truncated { at: 3, wanted: 1, left: 0 };
    assert_eq!(decode_message(unhex("3a 01 10 20 01")), Err(inner));
}

#[test]
fn unknown_fields_are_skipped() {
    let want = decode_entry(unhex("10 01 18 02 22 01 61")).unwrap();
    for input in [
        "28 05 10 01 18 02 22 01 61",                         // a number
        "10 01 29 01 02 03 04 05 06 07 08 18 02 22 01 61",    // 64 bits
        "10 01 18 02 2d 01 02 03 04 22 01 61",                // 32 bits
        "10 01 18 02 2a 02 ff ff 22 01 61",                   // bytes
        "10 01 18 02 22 01 61 2b 10 07 33 22 00 34 2c",       // a group with a group inside
        "a2 06 00 10 01 18 02 22 01 61",                      // a large field number
        "12 01 00 10 01 18 02 25 00 00 00 00 22 01 61 20 07", // known numbers, other wire types
        "10 09 18 09 22 01 62 10 01 18 02 22 01 61",          // the last one counts
        "10 81 80 00 18 02 22 01 61",                         // a number longer than it need be
    ] {
        assert_eq!(decode_entry(unhex(input)).as_ref(), Ok(&want), "{input}");
    }
    // An enum is 32 bits wide.
    let entry = decode_entry(unhex("08 82 80 80 80 10")).unwrap();
    assert_eq!(entry.kind, Some(EntryType::ConfChangeV2));
}

#[test]
fn lists_may_be_packed() {
    let voters = [1, 2, 300].map(NodeId).to_vec();
    let want = ConfState { voters, auto_leave: true, ..ConfState::default() };
    for input in [
        "08 01 08 02 08 ac 02 28 01",
        "0a 04 01 02 ac 02 28 01",
        "08 01 28 07 0a 00 0a 03 02 ac 02",
    ] {
        assert_eq!(decode_conf_state(unhex(input)).as_ref(), Ok(&want), "{input}");
    }
    let cut = DecodeError::Truncated { at: 4, wanted: 1, left: 0 };
    assert_eq!(decode_conf_state(unhex("0a 02 01 ac 02")), Err(cut));
}

#[test]
fn a_value_in_two_parts_is_merged() {
    let parts = "08 07 4a 07 12 05 0a 03 08 01 28 4a 06 12 04 10 05 18 01";
    let want = "08 07 4a 0c 12 0a 0a 04 08 01 28 01 10 05 18 01";
    assert!(decode_message(unhex(parts)).is_err(), "the flag of the first part is cut off");
    let parts = "08 07 4a 08 12 06 0a 04 08 01 28 01 4a 06 12 04 10 05 18 01";
    assert_eq!(decode_message(unhex(parts)), decode_message(unhex(want)));
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: u32| {
        (0..levels).fold(vec![], |inner, _| {
            let mut bytes = vec![0x08, 0x13];
            bytes.extend(wrapped(14, &inner));
            bytes
        })
    };
    assert!(decode_message(Bytes::from(nested(NESTING_MAX))).is_ok());
    for levels in [NESTING_MAX + 1, 2_000] {
        let refused = decode_message(Bytes::from(nested(levels)));
        assert!(matches!(refused, Err(DecodeError::TooDeep { nesting_max: 100, .. })));
    }
    for (groups, fits) in [(NESTING_MAX as usize, true), (NESTING_MAX as usize + 1, false)] {
        let mut bytes = vec![0x2b; groups];
        bytes.extend(vec![0x2c; groups]);
        assert_eq!(decode_message(Bytes::from(bytes)).is_ok(), fits, "{groups} groups");
    }
}

#[test]
fn fields_of_other_types_are_ignored() {
    // A heartbeat that also carries a place, entries, a refusal, a vote and a response.
    let input = "08 08 28 01 30 02 3a 00 40 03 50 01 58 01 68 01 72 00";
    let body = Body::Heartbeat { commit: Index(3), context: Bytes::new() };
    assert_eq!(decode_message(unhex(input)), Ok(Message::new(NodeId::NONE, body)));
    // A vote whose context is not the one that forces it.
    let body = Body::Vote { last: EntryId::default(), transfer: false, priority: 0 };
    let want = Message { term: Term(1), ..Message::new(NodeId::NONE, body) };
    assert_eq!(decode_message(unhex("08 05 20 01 62 02 43 61")), Ok(want));
}

/// Reads `bytes` as everything there is.
fn read_as_anything(bytes: &Bytes) {
    let _ = decode_message(bytes.clone());
    let _ = decode_entry(bytes.clone());
    let _ = decode_snapshot(bytes.clone());
    let _ = decode_hard_state(bytes.clone());
    let _ = decode_conf_state(bytes.clone());
    let _ = decode_conf_change(bytes.clone());
    let _ = decode_conf_change_v2(bytes.clone());
    let _ = decode_hard_state_record(bytes.clone());
    let _ = decode_conf_state_record(bytes.clone());
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..64)) {
        read_as_anything(&Bytes::from(bytes));
    }

    #[test]
    fn bytes_that_look_like_fields(bytes in vec(prop_oneof![0_u8..8, 0x08_u8..0x78, Just(0xff)], 0..64)) {
        read_as_anything(&Bytes::from(bytes));
    }

    #[test]
    fn mutated_messages(
        message in message(),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = joined(encode_message(&message)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let bytes = Bytes::from(bytes);
        read_as_anything(&bytes);
        read_as_anything(&bytes.slice(..cut.index(bytes.len())));
        // Whatever can be read can be written, and then reads the same.
        if let Ok(read) = decode_message(bytes) {
            prop_assert_eq!(decode_message(joined(encode_message(&read))), Ok(read));
        }
    }
}
