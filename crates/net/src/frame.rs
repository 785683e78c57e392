//! Frames: how bytes are cut into pieces on a connection, and how damage is noticed.
//!
//! Decoding takes bytes from anyone. It looks at the length before it asks for memory, asks only in
//! proportion to what has really come, and hands out a payload only after its checksum is right.

use bytes::{Buf, Bytes, BytesMut};

// One frame, little-endian: crc32c of all that follows (4), length of the payload (4), kind (1),
// payload. Kinds are never reused; an unknown one ends the connection.
pub(crate) const HEADER_BYTES: usize = 9;
const CRC_BYTES: usize = 4;

/// Smallest and largest `frame_bytes_max` that a config may ask for.
pub(crate) const FRAME_BYTES_FLOOR: u32 = 1 << 10;
pub(crate) const FRAME_BYTES_CEILING: u32 = 1 << 30;

/// Longest frame of those that only steer a connection: all but messages and snapshots.
pub(crate) const CONTROL_BYTES_MAX: u32 = 256;

/// What is read from a connection at once, and what an idle connection keeps.
const READ_BYTES: usize = 64 << 10;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Who speaks, and to whom; the first frame of each side.
    Hello = 1,
    /// In place of a hello: why not. Reason (2).
    Refused = 2,
    /// One message.
    Message = 3,
    /// Asks for a pong. Token (8).
    Ping = 4,
    /// Answers a ping with its token (8); unasked, with token 0, it says "still here".
    Pong = 5,
    /// First of a snapshot: its header.
    SnapshotBegin = 6,
    /// Offset in the stream (8), then a part of it.
    SnapshotChunk = 7,
    /// Length of the stream (8), crc32c of the stream (4).
    SnapshotEnd = 8,
    /// Verdict of the receiver (2): 0 is accepted.
    SnapshotReply = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Kind, FrameError> {
        Ok(match byte {
            1 => Kind::Hello,
            2 => Kind::Refused,
            3 => Kind::Message,
            4 => Kind::Ping,
            5 => Kind::Pong,
            6 => Kind::SnapshotBegin,
            7 => Kind::SnapshotChunk,
            8 => Kind::SnapshotEnd,
            9 => Kind::SnapshotReply,
            kind => return Err(FrameError::UnknownKind { kind }),
        })
    }
}

/// One frame, its checksum right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// Why bytes are no frame. The connection they came from cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes; the limit is {bytes_max}")]
    TooLong { bytes: u32, bytes_max: u32 },
    #[error("a frame of unknown kind {kind}")]
    UnknownKind { kind: u8 },
    #[error("a frame whose checksum is wrong")]
    Checksum,
    #[error("a frame of kind {kind:?} that does not belong here")]
    Unexpected { kind: Kind },
    #[error("a frame of kind {kind:?} with {bytes} bytes")]
    BadLength { kind: Kind, bytes: usize },
}

/// The header of a frame whose payload consists of these chunks. Their length was checked before.
pub(crate) fn header<'a>(
    kind: Kind,
    length: u32,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[CRC_BYTES..8].copy_from_slice(&length.to_le_bytes());
    header[8] = kind as u8;
    let mut crc = crc32c::crc32c(&header[CRC_BYTES..]);
    for chunk in chunks {
        crc = crc32c::crc32c_append(crc, chunk);
    }
    header[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Appends a whole frame. For short payloads: they are copied.
pub(crate) fn put(out: &mut BytesMut, kind: Kind, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are bounded far below 4 GiB");
    out.extend_from_slice(&header(kind, length, std::iter::once(payload)));
    out.extend_from_slice(payload);
}

/// Bytes that came from a connection, being cut into frames.
pub(crate) struct Decoder {
    buffer: BytesMut,
    frame_bytes_max: u32,
}

impl Decoder {
    pub(crate) fn new(frame_bytes_max: u32) -> Decoder {
        Decoder { buffer: BytesMut::new(), frame_bytes_max }
    }

    /// The next whole frame, if it is here. After an error the connection must end.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, kind)) = self.peek()? else {
            return Ok(None);
        };
        let whole = HEADER_BYTES + length as usize;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole).freeze();
        let crc = frame.get_u32_le();
        if crc32c::crc32c(&frame) != crc {
            return Err(FrameError::Checksum);
        }
        frame.advance(HEADER_BYTES - CRC_BYTES);
        Ok(Some(Frame { kind, payload: frame }))
    }

    /// The buffer, with room to read into.
    ///
    /// A long frame makes it grow step by step: who only claims a length gets no memory for it.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let missing = match self.peek() {
            Ok(Some((length, _))) => {
                (HEADER_BYTES + length as usize).saturating_sub(self.buffer.len())
            }
            Ok(None) | Err(_) => 0,
        };
        let step = self.buffer.len().max(READ_BYTES);
        if self.buffer.capacity() - self.buffer.len() < missing.clamp(READ_BYTES / 4, step) {
            self.buffer.reserve(missing.clamp(READ_BYTES, step));
        }
        &mut self.buffer
    }

    /// Length and kind of the frame at the front, once its header is here.
    fn peek(&self) -> Result<Option<(u32, Kind)>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [_, _, _, _, length @ .., kind] = *header;
        let bytes = u32::from_le_bytes(length);
        // Before it is used as a size: a flipped bit must not ask for gigabytes.
        if self.frame_bytes_max < bytes {
            return Err(FrameError::TooLong { bytes, bytes_max: self.frame_bytes_max });
        }
        Ok(Some((bytes, Kind::from_byte(kind)?)))
    }
}

/// Payloads of fixed length, as all control frames have.
impl Frame {
    /// The first `N` bytes. Longer payloads come from later versions, whose additions are ignored.
    pub(crate) fn fixed<const N: usize>(&self) -> Result<[u8; N], FrameError> {
        self.payload
            .first_chunk::<N>()
            .copied()
            .ok_or(FrameError::BadLength { kind: self.kind, bytes: self.payload.len() })
    }
}

#[cfg(test)]
mod tests;
