//! Snapshots of the state machine.

use bytes::Bytes;
use quorate_kv::{MemoryBackend, Store, restore, verify};
use quorate_types::NodeId;

use crate::draw::Draw;

const MAGIC: &[u8] = b"QKVSNAP1";

/// A stream as it came, or (if the first byte is odd) one whose blocks have the checksums that belong to
/// them, so that what is in them is looked at.
pub(crate) fn snapshot(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let stream = if draw.is() { sealed(draw.rest()) } else { draw.rest().to_vec() };
    let pieces = || {
        let mut pieces = stream.chunks(700);
        move || Ok(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default())
    };
    let mut backend = MemoryBackend::new();
    let restored = restore(&mut backend, NodeId(1), pieces());
    let verified = verify(pieces());
    assert_eq!(restored.is_ok(), verified.is_ok(), "{restored:?}, {verified:?}");
    // What was not restored whole is no state; what was, is one or is refused.
    match (Store::open(backend), restored) {
        (Ok(store), Ok(applied)) => {
            assert_eq!(store.applied(), applied);
            let _ = store.hash_kv(0);
        }
        (Ok(_), Err(error)) => panic!("half a snapshot became a state: {error}"),
        (Err(_), _) => {}
    }
}

/// Blocks of `kind (1) length (2) payload`, made into a stream; the last one gets its count and its
/// checksum over the others.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut draw = Draw::new(bytes);
    let (mut stream, mut all) = (MAGIC.to_vec(), 0);
    while !draw.is_empty() {
        let kind = draw.byte() % 5;
        let length = usize::from(draw.byte()) << 8 | usize::from(draw.byte());
        let mut payload = Vec::new();
        while payload.len() < length && !draw.is_empty() {
            payload.push(draw.byte());
        }
        if kind == 3 {
            payload.extend_from_slice(&u32::to_be_bytes(all));
        }
        let checksum = crc32c::crc32c(&payload);
        let mut header = vec![kind];
        header.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        header.extend_from_slice(&checksum.to_be_bytes());
        let header_checksum = crc32c::crc32c(&header);
        header.extend_from_slice(&header_checksum.to_be_bytes());
        stream.extend_from_slice(&header);
        stream.extend_from_slice(&payload);
        all = crc32c::crc32c_append(all, &checksum.to_be_bytes());
    }
    stream
}
