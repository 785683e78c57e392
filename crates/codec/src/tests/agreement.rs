//! The engine reads membership changes by itself (`quorate_raft::decode_conf_change`). What it makes
//! of any bytes, and of any value, is what this crate makes of it.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_raft::{AnyConfChange, EntryType};

use super::hostile::wrapped;
use super::round_trip::{change, change_v2};
use crate::*;

fn here(kind: EntryType, bytes: &Bytes) -> Result<AnyConfChange, DecodeError> {
    match kind {
        EntryType::ConfChange => decode_conf_change(bytes.clone()).map(AnyConfChange::V1),
        _ => decode_conf_change_v2(bytes.clone()).map(AnyConfChange::V2),
    }
}

fn agree(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    for kind in [EntryType::ConfChange, EntryType::ConfChangeV2] {
        let there = quorate_raft::decode_conf_change(kind, &bytes);
        match (here(kind, &bytes), there) {
            (Ok(here), Ok(there)) => assert_eq!(here, there, "{kind:?} {bytes:x?}"),
            (Err(_), Err(_)) => {}
            (here, there) => panic!("{kind:?} {bytes:x?}: here {here:?}, there {there:?}"),
        }
    }
}

/// Pieces of which something like a message may come: tags of all wire types and low numbers,
/// numbers, lengths, and whole fields.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![0..5_u64, any::<u64>()];
    prop_oneof![
        4 => (1..7_u8, 0..8_u8).prop_map(|(field, wire_type)| vec![field << 3 | wire_type]),
        4 => (1..5_u8, number()).prop_map(|(field, value)| {
            let mut bytes = vec![field << 3];
            bytes.extend(varint(value));
            bytes
        }),
        2 => (1..6_u8, vec(any::<u8>(), 0..6)).prop_map(|(field, inner)| wrapped(field, &inner)),
        2 => (0..4_u64, number()).prop_map(|(change, node)| {
            let mut inner = vec![0x08];
            inner.extend(varint(change));
            inner.push(0x10);
            inner.extend(varint(node));
            wrapped(2, &inner)
        }),
        1 => number().prop_map(varint),
        1 => (1..7_u8, vec(any::<u8>(), 8)).prop_map(|(field, fixed)| {
            [vec![field << 3 | 1], fixed].concat()
        }),
        1 => (1..7_u8).prop_map(|field| vec![field << 3 | 3, field << 3 | 4]),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while 0x80 <= value {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

proptest! {
    #[test]
    fn on_what_bytes_mean(pieces in vec(piece(), 0..8)) {
        agree(&pieces.concat());
    }

    #[test]
    fn on_damaged_changes(
        v1 in change(),
        v2 in change_v2(),
        at in any::<prop::sample::Index>(),
        flip in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        for whole in [encode_conf_change(&v1), encode_conf_change_v2(&v2)] {
            agree(&whole);
            agree(&whole[..cut.index(whole.len() + 1)]);
            let mut damaged = whole.to_vec();
            if !damaged.is_empty() {
                damaged[at.index(whole.len())] ^= flip;
            }
            agree(&damaged);
        }
    }

    #[test]
    fn on_the_bytes_of_a_change(v1 in change(), v2 in change_v2()) {
        let (_, bytes) = quorate_raft::encode_conf_change(&AnyConfChange::V1(v1.clone()));
        prop_assert_eq!(bytes, Some(encode_conf_change(&v1)));
        let (_, bytes) = quorate_raft::encode_conf_change(&AnyConfChange::V2(v2.clone()));
        prop_assert_eq!(bytes, Some(encode_conf_change_v2(&v2)));
    }
}

#[test]
fn on_how_deep_is_too_deep() {
    for depth in 98..=102 {
        let group: Vec<u8> = [vec![0x2b; depth], vec![0x2c; depth]].concat();
        agree(&group);
        agree(&wrapped(2, &group));
    }
}
