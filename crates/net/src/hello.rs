//! The first words of a connection: who speaks, to whom, and whether they may go on.
//!
//! ```text
//! dialer    magic, Hello ─────────────►
//!           ◄───────────── magic, Hello      accepted: the connection is open
//!           ◄───────────── magic, Refused    refused, with a reason: both sides close
//! ```
//!
//! Reading an opening takes no memory beyond a fixed buffer, and stops at the first byte that
//! cannot belong to one.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_types::{Life, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::NetConfig;
use crate::event::Refusal;
use crate::frame::{CONTROL_BYTES_MAX, HEADER_BYTES, Kind, put};
use crate::link::{LinkError, flush};

/// The protocol that this version speaks best.
///
/// ```text
/// 1   the first
/// 2   the log has autopilot's settings, members' versions and tags, and replacements of voters: a member
///     that cannot read these would stop at the first of them, so none is talked with
/// ```
pub const PROTOCOL_VERSION: u16 = 2;
/// The oldest protocol that this version still speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 2;

// No TLS record, no HTTP method and no text starts with this byte.
const MAGIC: [u8; 8] = *b"\xd1quorate";

// Payload of a hello, little-endian: oldest and newest version (2 + 2), purpose (1), dialect (1), zero
// (2), cluster (8), sender (8), intended receiver (8), incarnation of the sender (8), longest frame the
// sender takes (4), longest snapshot it takes (8), life of the sender's log (8). The layout is the
// same in all versions; later ones may append, and what is appended is ignored. The life was
// appended so: without it, none is known. The dialect was a zero before there was a second.
const HELLO_BYTES_MIN: usize = 52;
const HELLO_BYTES: usize = HELLO_BYTES_MIN + 8;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    Messages = 1,
    Snapshot = 2,
}

/// What one side says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version_min: u16,
    pub(crate) version_max: u16,
    pub(crate) purpose: Purpose,
    pub(crate) dialect: u8,
    pub(crate) cluster: u64,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) life: Life,
    pub(crate) frame_bytes_max: u32,
    pub(crate) snapshot_bytes_max: u64,
}

impl Hello {
    /// What this node says to `to`.
    pub(crate) fn new(config: &NetConfig, to: NodeId, purpose: Purpose) -> Hello {
        Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            purpose,
            dialect: config.dialect,
            cluster: config.cluster,
            from: config.node,
            to,
            incarnation: config.incarnation,
            life: config.life,
            frame_bytes_max: config.frame_bytes_max,
            snapshot_bytes_max: config.snapshot_bytes_max,
        }
    }

    /// Whether this hello may be said to us at all, whoever says it.
    pub(crate) fn judge(&self, config: &NetConfig) -> Result<(), Refusal> {
        if self.cluster != config.cluster {
            return Err(Refusal::WrongCluster);
        }
        if self.to != config.node {
            return Err(Refusal::WrongReceiver);
        }
        if self.from.is_none() || self.from == config.node {
            return Err(Refusal::WrongSender);
        }
        if self.version_max < PROTOCOL_VERSION_MIN || PROTOCOL_VERSION < self.version_min {
            return Err(Refusal::WrongVersion);
        }
        if self.dialect != config.dialect {
            return Err(Refusal::OtherDialect);
        }
        Ok(())
    }

    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        let mut at = 0;
        let mut field = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        field(&self.version_min.to_le_bytes());
        field(&self.version_max.to_le_bytes());
        field(&[self.purpose as u8, self.dialect, 0, 0]);
        field(&self.cluster.to_le_bytes());
        field(&self.from.0.to_le_bytes());
        field(&self.to.0.to_le_bytes());
        field(&self.incarnation.to_le_bytes());
        field(&self.frame_bytes_max.to_le_bytes());
        field(&self.snapshot_bytes_max.to_le_bytes());
        field(&self.life.0.to_le_bytes());
        assert_eq!(at, HELLO_BYTES, "every byte is written");
        bytes
    }

    /// Nothing when it is too short or its purpose is unknown.
    fn decode(bytes: &[u8]) -> Option<Hello> {
        let life = bytes
            .get(HELLO_BYTES_MIN..)
            .and_then(|rest| rest.first_chunk())
            .map_or(Life::NONE, |life| Life(u64::from_le_bytes(*life)));
        let bytes: &[u8; HELLO_BYTES_MIN] = bytes.first_chunk()?;
        let purpose = match bytes[4] {
            1 => Purpose::Messages,
            2 => Purpose::Snapshot,
            _ => return None,
        };
        let u16_at = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u64_at =
            |at| u64::from_le_bytes(*bytes[at..].first_chunk().expect("within the layout"));
        let frame_bytes_max =
            u32::from_le_bytes(*bytes[40..].first_chunk().expect("within the layout"));
        Some(Hello {
            version_min: u16_at(0),
            version_max: u16_at(2),
            purpose,
            dialect: bytes[5],
            cluster: u64_at(8),
            from: NodeId(u64_at(16)),
            to: NodeId(u64_at(24)),
            incarnation: u64_at(32),
            life,
            frame_bytes_max,
            snapshot_bytes_max: u64_at(44),
        })
    }
}

/// The first frame of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    Hello(Hello),
    Refused(Refusal),
}

/// Why there was no opening.
#[derive(Debug)]
pub(crate) enum OpeningError {
    /// Not one of ours, or damaged.
    Bad(Refusal),
    /// The beginning of an HTTP request; this much of it was read.
    Http(Bytes),
    /// The connection ended first.
    Lost(io::Error),
}

/// Reads the opening and not one byte more. The caller sets the deadline.
pub(crate) async fn read_opening<R: AsyncRead + Unpin>(
    read: &mut R,
) -> Result<Opening, OpeningError> {
    read_magic(read).await?;

    let mut head = [0; HEADER_BYTES];
    read.read_exact(&mut head).await.map_err(OpeningError::Lost)?;
    let [c0, c1, c2, c3, length @ .., kind] = head;
    let length = u32::from_le_bytes(length);
    if CONTROL_BYTES_MAX < length {
        return Err(OpeningError::Bad(Refusal::BadHello));
    }
    let mut payload = [0; CONTROL_BYTES_MAX as usize];
    let payload = &mut payload[..length as usize];
    read.read_exact(payload).await.map_err(OpeningError::Lost)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[4..]), payload);
    if crc != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(OpeningError::Bad(Refusal::BadHello));
    }

    let opening = if kind == Kind::Hello as u8 {
        Hello::decode(payload).map(Opening::Hello)
    } else if kind == Kind::Refused as u8 {
        payload.first_chunk().map(|code| Opening::Refused(refusal(u16::from_le_bytes(*code))))
    } else {
        None
    };
    opening.ok_or(OpeningError::Bad(Refusal::BadHello))
}

async fn read_magic<R: AsyncRead + Unpin>(read: &mut R) -> Result<(), OpeningError> {
    let mut magic = [0; MAGIC.len()];
    let mut count = 0;
    while count < MAGIC.len() {
        let more = read.read(&mut magic[count..]).await.map_err(OpeningError::Lost)?;
        if more == 0 {
            return Err(OpeningError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        count += more;
        if magic[..count] != MAGIC[..count] {
            return Err(match magic[0] {
                0x16 => OpeningError::Bad(Refusal::Tls), // a TLS record that carries a handshake
                b'A'..=b'Z' => OpeningError::Http(Bytes::copy_from_slice(&magic[..count])),
                _ => OpeningError::Bad(Refusal::Garbage),
            });
        }
    }
    Ok(())
}

/// Writes our hello. The caller sets the deadline for the whole exchange.
pub(crate) async fn write_hello<W: AsyncWrite + Unpin>(
    write: &mut W,
    hello: &Hello,
    stuck_max: Duration,
) -> Result<(), LinkError> {
    write_opening(write, Kind::Hello, &hello.encode(), stuck_max).await
}

/// Writes a refusal in place of a hello, and ends our direction.
pub(crate) async fn write_refusal<W: AsyncWrite + Unpin>(
    write: &mut W,
    reason: Refusal,
    stuck_max: Duration,
) -> Result<(), LinkError> {
    write_opening(write, Kind::Refused, &refusal_code(reason).to_le_bytes(), stuck_max).await?;
    Ok(write.shutdown().await?)
}

async fn write_opening<W: AsyncWrite + Unpin>(
    write: &mut W,
    kind: Kind,
    payload: &[u8],
    stuck_max: Duration,
) -> Result<(), LinkError> {
    let mut bytes = BytesMut::with_capacity(MAGIC.len() + HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    put(&mut bytes, kind, payload);
    write.write_all(&bytes).await?;
    flush(write, stuck_max).await
}

// Reasons on the wire. Numbers are never reused.
fn refusal_code(reason: Refusal) -> u16 {
    match reason {
        Refusal::WrongCluster => 1,
        Refusal::WrongReceiver => 2,
        Refusal::WrongSender => 3,
        Refusal::WrongVersion => 4,
        Refusal::StaleIncarnation => 5,
        Refusal::Busy => 6,
        Refusal::BadHello => 7,
        Refusal::Silent => 8,
        Refusal::Http => 9,
        Refusal::Tls => 10,
        Refusal::Garbage => 11,
        Refusal::OtherLife => 12,
        Refusal::Removed => 13,
        Refusal::OtherDialect => 14,
        Refusal::Other(code) => code,
    }
}

fn refusal(code: u16) -> Refusal {
    match code {
        1 => Refusal::WrongCluster,
        2 => Refusal::WrongReceiver,
        3 => Refusal::WrongSender,
        4 => Refusal::WrongVersion,
        5 => Refusal::StaleIncarnation,
        6 => Refusal::Busy,
        7 => Refusal::BadHello,
        8 => Refusal::Silent,
        9 => Refusal::Http,
        10 => Refusal::Tls,
        11 => Refusal::Garbage,
        12 => Refusal::OtherLife,
        13 => Refusal::Removed,
        14 => Refusal::OtherDialect,
        code => Refusal::Other(code),
    }
}

#[cfg(test)]
mod tests;
