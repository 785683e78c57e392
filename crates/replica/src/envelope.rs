//! How a command travels in an entry: with the identity of the request that it came from.
//!
//! ```text
//! format (1) = 1 | request id (8, little-endian) | command
//! ```
//! The identity lets the member that took the request recognise it when it is applied, whichever
//! leader appended it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::{NodeId, Term, bug};

/// Bytes that stand before a command in its entry.
pub const ENVELOPE_BYTES: usize = 9;

const FORMAT: u8 = 1;

/// A request, unique over the cluster and over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A stream of request ids.
///
/// The node's low 16 bits, 5 bytes of the milliseconds at which it started, and a counter that
/// carries into them: two lives of a node collide only if the first one drew ids faster than 256 in
/// a millisecond for as long as it lived (etcd's scheme).
#[derive(Clone, Debug)]
pub struct RequestIds {
    next: u64,
}

impl RequestIds {
    /// Ids of `node` for the life that began at `started_ms` (milliseconds since 1970).
    pub fn new(node: NodeId, started_ms: u64) -> Self {
        let prefix = (node.0 & 0xffff) << 48;
        let started_ms = if bug!("requests-of-two-lives-are-one") { 0 } else { started_ms };
        let suffix = (started_ms & 0xff_ffff_ffff) << 8;
        RequestIds { next: prefix | suffix }
    }

    /// The next id.
    pub fn draw(&mut self) -> RequestId {
        self.next = self.next.wrapping_add(1);
        RequestId(self.next)
    }
}

/// Why an entry's bytes hold no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than the envelope itself.
    #[error("entry of {0} bytes is too short to hold a command")]
    TooShort(usize),
    /// Written by a release that this one does not understand.
    #[error("entry has format {0}; this release understands {FORMAT}: run the newer release")]
    Format(u8),
}

/// Begins an entry: writes the envelope of `request` to `buffer`; the command follows it.
pub fn seal(request: RequestId, buffer: &mut BytesMut) {
    buffer.put_u8(FORMAT);
    buffer.put_u64_le(request.0);
}

/// Takes an entry apart. The command shares the entry's memory.
///
/// # Errors
///
/// When the bytes were not written by [`seal`], or by a newer release.
pub fn open(mut entry: Bytes) -> Result<(RequestId, Bytes), EnvelopeError> {
    if entry.len() < ENVELOPE_BYTES {
        return Err(EnvelopeError::TooShort(entry.len()));
    }
    match entry.get_u8() {
        FORMAT => Ok((RequestId(entry.get_u64_le()), entry)),
        other => Err(EnvelopeError::Format(other)),
    }
}

const CHANGE_FORMAT: u8 = 2;
const CHANGE_BYTES: usize = 17;

/// Begins the context of a membership change: writes the request it came from and the term in which
/// its leader judged it to `buffer`; what it means to the machine follows.
///
/// ```text
/// format (2) = 1 | request id (8, little-endian) | term (8, little-endian) | for the machine
/// ```
/// A change is judged by what its leader has applied, and nobody else appends one in that term. One
/// that another leader appended, to whom it was forwarded, was judged by too little: it changes
/// nothing, on any member.
pub fn seal_change(request: RequestId, judged: Term, buffer: &mut BytesMut) {
    buffer.put_u8(CHANGE_FORMAT);
    buffer.put_u64_le(request.0);
    buffer.put_u64_le(judged.0);
}

/// Takes the context of a membership change apart; nothing for one that [`seal_change`] did not
/// begin, as the engine's own have it.
pub fn open_change(mut context: Bytes) -> Option<(RequestId, Term, Bytes)> {
    if context.len() < CHANGE_BYTES || context.get_u8() != CHANGE_FORMAT {
        return None;
    }
    Some((RequestId(context.get_u64_le()), Term(context.get_u64_le()), context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens() {
        let mut buffer = BytesMut::new();
        seal(RequestId(0x0102_0304_0506_0708), &mut buffer);
        buffer.put_slice(b"put x");
        assert_eq!(buffer[..9], [1, 8, 7, 6, 5, 4, 3, 2, 1], "the format is part of the log");
        let (request, command) = open(buffer.freeze()).unwrap();
        assert_eq!(request, RequestId(0x0102_0304_0506_0708));
        assert_eq!(command, "put x");
    }

    #[test]
    fn what_is_not_sealed_is_refused() {
        for (bytes, want) in [
            (&b""[..], EnvelopeError::TooShort(0)),
            (b"\x0112345", EnvelopeError::TooShort(6)),
            (b"\x0212345678x", EnvelopeError::Format(2)),
        ] {
            assert_eq!(open(Bytes::from_static(bytes)), Err(want));
        }
    }

    #[test]
    fn a_change_says_who_asked_and_when_it_was_judged() {
        let mut buffer = BytesMut::new();
        seal_change(RequestId(7), Term(9), &mut buffer);
        buffer.put_slice(b"add");
        let context = buffer.freeze();
        let opened = (RequestId(7), Term(9), Bytes::from_static(b"add"));
        assert_eq!(open_change(context.clone()), Some(opened));
        let mut other = BytesMut::from(&context[..]);
        other[0] = FORMAT;
        for nobodys in [Bytes::new(), context.slice(..16), other.freeze()] {
            assert_eq!(open_change(nobodys), None);
        }
    }

    #[test]
    fn ids_differ_between_nodes_lives_and_requests() {
        let mut drawn = std::collections::BTreeSet::new();
        for node in [1, 2] {
            for started_ms in [1_700_000_000_000, 1_700_000_000_001] {
                let mut ids = RequestIds::new(NodeId(node), started_ms);
                for _ in 0..200 {
                    assert!(drawn.insert(ids.draw()), "an id was drawn twice");
                }
            }
        }
    }
}
