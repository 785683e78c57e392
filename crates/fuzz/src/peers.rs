//! What peers send: frames, and the messages in them.

use bytes::Bytes;
use quorate_codec as codec;
use quorate_types::{Index, LogEntry, Mark};

use crate::draw::Draw;

/// Bytes from a connection, in pieces of any length; the first byte says how long.
pub(crate) fn frames(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let (piece, bound) = (usize::from(draw.byte()).max(1), 1024 + 64 * u32::from(draw.byte()));
    let bytes = draw.rest();
    let whole = quorate_net::testing::frames(bytes, bytes.len().max(1), bound);
    // However they come, they are the same frames.
    assert_eq!(quorate_net::testing::frames(bytes, piece, bound), whole);
    let payloads: usize = whole.0.iter().map(|(_, payload)| payload.len()).sum();
    assert!(payloads <= bytes.len(), "more came out than went in");
}

/// The values of raftpb. What is understood is understood the same way when it is written again.
pub(crate) fn raftpb(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    macro_rules! comes_back {
        ($decode:path, $encode:expr) => {
            if let Ok(value) = $decode(bytes.clone()) {
                let again = $decode($encode(&value));
                assert_eq!(again.as_ref().ok(), Some(&value), "{:?}", again.as_ref().err());
            }
        };
    }
    comes_back!(codec::decode_message, |message| Bytes::from(
        codec::encode_message(message).concat()
    ));
    comes_back!(codec::decode_entry, codec::encode_entry);
    comes_back!(codec::decode_snapshot, |snapshot| Bytes::from(
        codec::encode_snapshot(snapshot).concat()
    ));
    comes_back!(codec::decode_hard_state, codec::encode_hard_state);
    comes_back!(codec::decode_conf_state, codec::encode_conf_state);
    comes_back!(codec::decode_conf_change, codec::encode_conf_change);
    comes_back!(codec::decode_conf_change_v2, codec::encode_conf_change_v2);
    comes_back!(codec::decode_hard_state_record, codec::encode_hard_state_record);
    comes_back!(codec::decode_conf_state_record, codec::encode_conf_state_record);
    let mark = Mark { index: Index(7), stamp: 2, data: bytes.clone() };
    if let Ok(metadata) = codec::from_mark(mark) {
        assert_eq!(codec::from_mark(codec::to_mark(&metadata)).ok(), Some(metadata));
    }
    let kind = bytes.first().copied().unwrap_or_default();
    let data = bytes.slice(bytes.len().min(1)..);
    let entry = LogEntry { index: Index(7), stamp: 2, kind, data };
    if let Ok(read) = codec::from_log_entry(entry.clone()) {
        assert_eq!(codec::to_log_entry(&read), entry);
    }
}
