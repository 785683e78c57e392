//! gometa's frames and messages, byte for byte, and back.
//!
//! ```text
//! frame   total, u64 big-endian: bytes of all that follows
//!         length of the name, u64 big-endian
//!         name, ASCII
//!         body, protobuf (proto2)
//! ```
//!
//! The layout is the same on connections, where frames follow each other ([`next_frame`]), and in
//! datagrams, where one is alone ([`decode_datagram`]). Every declared field is written, in
//! ascending order, zero or empty too; when read, a missing one is zero or empty and an unknown one
//! is skipped, as gometa does. Messages that only our own nodes exchange have the same form.
//!
//! Source: gometa's `common.PipeImpl` and its `protocol.proto`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_zab::{Message, MessageType, Vote};

use crate::DecodeError;
use crate::wire::{self, Encode};

mod body;

use body::{Fields, View};

/// The greatest total that gometa takes; a frame that says more ends its connection.
pub const FRAME_BYTES_MAX: u64 = 20 << 20;

/// The longest name that is taken. gometa takes up to 2048 bytes; the longest name has 14.
pub const NAME_BYTES_MAX: u64 = 64;

/// The longest datagram that a gometa node reads whole.
pub const DATAGRAM_BYTES_MAX: usize = 1000;

/// Before the name: two numbers of eight bytes.
const HEADER_BYTES: usize = 16;

/// Why bytes are not a frame, or not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame says that it is longer than anything that is taken.
    #[error("frame of {total} bytes; the limit is {FRAME_BYTES_MAX}")]
    TooLong {
        /// What it says.
        total: u64,
    },
    /// The name is longer than any name there is.
    #[error("name of {length} bytes; the limit is {NAME_BYTES_MAX}")]
    NameTooLong {
        /// What the frame says.
        length: u64,
    },
    /// Name and header do not fit in what the frame says is its length.
    #[error("frame of {total} bytes cannot hold a name of {name} bytes")]
    Inconsistent {
        /// The total it says.
        total: u64,
        /// The length of its name.
        name: u64,
    },
    /// The frame ends too early, or something follows it.
    #[error("frame of {want} bytes where there are {found}")]
    Length {
        /// How long it says it is, its first eight bytes included.
        want: u64,
        /// How many bytes there are.
        found: u64,
    },
    /// Nobody knows a message of this name.
    #[error("message name {name:?} is not known")]
    UnknownName {
        /// The name; what is not ASCII in it is escaped.
        name: String,
    },
    /// A datagram with anything but a vote.
    #[error("{name} in a datagram; only votes travel so")]
    NotVote {
        /// The name of the message.
        name: &'static str,
    },
    /// A vote of a status that does not exist.
    #[error("vote with status {status}")]
    UnknownStatus {
        /// The number.
        status: u32,
    },
    /// A text is not UTF-8.
    #[error("{name} field {field} is not UTF-8")]
    NotText {
        /// The name of the message.
        name: &'static str,
        /// The field's number.
        field: u32,
    },
    /// The body is no protobuf.
    #[error("{name}: {error}")]
    Body {
        /// The name of the message.
        name: &'static str,
        /// What is wrong with it.
        error: DecodeError,
    },
}

/// A message as a whole frame.
pub fn encode_frame(message: &Message) -> Bytes {
    let view = View(message);
    let name = message.message_type().name();
    let body_bytes = wire::count(&view);
    let total = 8 + name.len() + body_bytes;
    let mut frame = BytesMut::with_capacity(8 + total);
    frame.put_u64(total as u64);
    frame.put_u64(name.len() as u64);
    frame.put_slice(name.as_bytes());
    view.write(&mut wire::Copying(&mut frame));
    assert_eq!(frame.len(), 8 + total, "counted and written by the same calls");
    frame.freeze()
}

/// A vote as a datagram.
pub fn encode_datagram(vote: &Vote) -> Bytes {
    encode_frame(&Message::Vote(vote.clone()))
}

/// Takes the first message out of what a connection has brought; nothing while it is not whole.
///
/// The limits are checked as soon as the lengths are there: a hostile one costs no memory. After an
/// error the connection is of no use any more.
///
/// # Errors
///
/// [`FrameError`] if a frame begins that is too long, inconsistent, or not a message.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<Message>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let (total, name_bytes) = lengths(header)?;
    let frame_bytes = 8 + total;
    if buffer.len() < frame_bytes {
        return Ok(None);
    }
    let mut frame = buffer.split_to(frame_bytes).freeze();
    frame.advance(HEADER_BYTES);
    named(frame, name_bytes).map(Some)
}

/// The message of one frame, which `bytes` must hold exactly.
///
/// # Errors
///
/// [`FrameError`] as [`next_frame`], and if `bytes` are shorter or longer than the frame.
pub fn decode_frame(bytes: Bytes) -> Result<Message, FrameError> {
    let found = bytes.len() as u64;
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Length { want: HEADER_BYTES as u64, found });
    };
    let (total, name_bytes) = lengths(header)?;
    let want = 8 + total as u64;
    if want != found {
        return Err(FrameError::Length { want, found });
    }
    named(bytes.slice(HEADER_BYTES..), name_bytes)
}

/// Takes the message of the first of several whole frames off `bytes`. It shares their memory.
///
/// # Errors
///
/// [`FrameError`] as [`next_frame`], and if the frame is not whole.
pub fn split_frame(bytes: &mut Bytes) -> Result<Message, FrameError> {
    let found = bytes.len() as u64;
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Length { want: HEADER_BYTES as u64, found });
    };
    let (total, name_bytes) = lengths(header)?;
    let want = 8 + total as u64;
    if found < want {
        return Err(FrameError::Length { want, found });
    }
    let mut frame = bytes.split_to(8 + total);
    frame.advance(HEADER_BYTES);
    named(frame, name_bytes)
}

/// The vote in a datagram. Its total is not looked at: the body goes to the end, as gometa has it.
///
/// # Errors
///
/// [`FrameError`] if it is no vote. It says nothing about the datagrams after it.
pub fn decode_datagram(bytes: Bytes) -> Result<Vote, FrameError> {
    let found = bytes.len() as u64;
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Length { want: HEADER_BYTES as u64, found });
    };
    let name_bytes = name_length(header)?;
    if found < HEADER_BYTES as u64 + name_bytes as u64 {
        return Err(FrameError::Inconsistent { total: found, name: name_bytes as u64 });
    }
    match named(bytes.slice(HEADER_BYTES..), name_bytes)? {
        Message::Vote(vote) => Ok(vote),
        other => Err(FrameError::NotVote { name: other.message_type().name() }),
    }
}

/// Total and length of the name, both checked.
fn lengths(header: &[u8; HEADER_BYTES]) -> Result<(usize, usize), FrameError> {
    let [total, _] = numbers(header);
    // Before it is used as a size: a hostile length must not ask for gigabytes.
    if FRAME_BYTES_MAX < total {
        return Err(FrameError::TooLong { total });
    }
    let name = name_length(header)?;
    if total < 8 + name as u64 {
        return Err(FrameError::Inconsistent { total, name: name as u64 });
    }
    Ok((total as usize, name))
}

fn name_length(header: &[u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let [_, length] = numbers(header);
    match length <= NAME_BYTES_MAX {
        true => Ok(length as usize),
        false => Err(FrameError::NameTooLong { length }),
    }
}

fn numbers(header: &[u8; HEADER_BYTES]) -> [u64; 2] {
    let mut bytes = &header[..];
    [bytes.get_u64(), bytes.get_u64()]
}

/// What follows the header: a name of `name_bytes` and a body.
fn named(mut frame: Bytes, name_bytes: usize) -> Result<Message, FrameError> {
    let name = frame.split_to(name_bytes);
    let known = MessageType::ALL.into_iter().find(|kind| kind.name().as_bytes() == &name[..]);
    let Some(kind) = known else {
        return Err(FrameError::UnknownName { name: name.escape_ascii().to_string() });
    };
    Fields::read(kind, &frame)?.into_message(kind)
}

#[cfg(test)]
mod tests;
