//! The decoder of frames by itself, for tests that give it bytes which no peer would send.

use bytes::{BufMut as _, Bytes};

use crate::frame::Decoder;

/// Cuts bytes into frames as they would come from a connection, in pieces of `piece_bytes`: the kind and
/// payload of each, and whether the connection would have been ended.
pub fn frames(bytes: &[u8], piece_bytes: usize, frame_bytes_max: u32) -> (Vec<(u8, Bytes)>, bool) {
    let mut decoder = Decoder::new(frame_bytes_max);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        decoder.room().put_slice(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push((frame.kind as u8, frame.payload)),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}
