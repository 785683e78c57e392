//! What replicas that run ZAB say to each other: votes, and what connections are made of.
//!
//! ```text
//! format (1) = 1 | kind (1) | from (8) | to (8) | what follows from the kind
//!
//! 1 vote     frame of the vote
//! 2 open     name of the end that dials (16)
//! 3 opened   name of the other end (16) | own name (16)
//! 4 data     both names, as above | flags (1): 1 a snapshot's state is under way, or being installed
//!            everything up to here has come (8) | number of the first message (8) | frames
//! 5 closed   both names
//! ```
//! Numbers are little-endian; the frames are those of `codec::zab`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_codec as codec;
use quorate_codec::zab::{FrameError, encode_frame, split_frame};
use quorate_raft::SnapshotMetadata;
use quorate_types::{NodeId, Term};
use quorate_zab::{Message, Vote};

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 18;
const NAME_BYTES: usize = 16;

const VOTE: u8 = 1;
const OPEN: u8 = 2;
const OPENED: u8 = 3;
const DATA: u8 = 4;
const CLOSED: u8 = 5;

const IS_BUSY: u8 = 1;

/// Something that a replica with the ZAB engine says to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Who says it.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    pub(crate) body: Body,
}

/// One end of a connection, unique among all that there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// Which life of the node it is of.
    pub(crate) life: u64,
    /// Which of that life.
    pub(crate) number: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Vote(Vote),
    Open { own: Name },
    Opened { peer: Name, own: Name },
    Data { peer: Name, own: Name, is_busy: bool, acked: u64, first: u64, messages: Vec<Message> },
    Closed { peer: Name, own: Name },
}

/// Why bytes are no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Shorter than what it is said to hold.
    #[error("packet of {0} bytes is cut short")]
    Short(usize),
    /// Written by a release that this one does not understand.
    #[error("packet has format {0}; this release understands {FORMAT}")]
    Format(u8),
    /// A kind that does not exist.
    #[error("packet of unknown kind {0}")]
    Kind(u8),
    /// What is in it is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Something follows it.
    #[error("packet with {0} bytes left over")]
    LeftOver(usize),
    /// A message in it is not one that replicas exchange.
    #[error("{0} has no place among replicas")]
    OutOfPlace(&'static str),
}

impl Packet {
    /// Whether it announces a snapshot.
    pub(crate) fn has_snapshot(&self) -> bool {
        matches!(&self.body, Body::Data { messages, .. }
            if messages.iter().any(|message| matches!(message, Message::Snapshot(_))))
    }

    /// What it asks the leader to put into the log.
    pub(crate) fn requested(&self) -> impl Iterator<Item = &Bytes> {
        let messages = match &self.body {
            Body::Data { messages, .. } => messages.as_slice(),
            _ => &[],
        };
        messages.iter().filter_map(|message| match message {
            Message::Request(request) => Some(&request.command.content),
            _ => None,
        })
    }

    /// The snapshot that it announces, as the machine knows it.
    pub(crate) fn snapshot(&self) -> Option<SnapshotMetadata> {
        let Body::Data { messages, .. } = &self.body else { return None };
        match messages.as_slice() {
            [Message::Snapshot(snapshot)] => metadata(snapshot),
            _ => None,
        }
    }

    /// As bytes, in pieces.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut head = BytesMut::with_capacity(HEAD_BYTES + 2 * NAME_BYTES + 17);
        head.put_u8(FORMAT);
        head.put_u8(match &self.body {
            Body::Vote(_) => VOTE,
            Body::Open { .. } => OPEN,
            Body::Opened { .. } => OPENED,
            Body::Data { .. } => DATA,
            Body::Closed { .. } => CLOSED,
        });
        head.put_u64_le(self.from.0);
        head.put_u64_le(self.to.0);
        match &self.body {
            Body::Vote(vote) => {
                return vec![head.freeze(), encode_frame(&Message::Vote(vote.clone()))];
            }
            Body::Open { own } => own.put(&mut head),
            Body::Opened { peer, own } | Body::Closed { peer, own } => {
                peer.put(&mut head);
                own.put(&mut head);
            }
            Body::Data { peer, own, is_busy, acked, first, messages } => {
                peer.put(&mut head);
                own.put(&mut head);
                head.put_u8(if *is_busy { IS_BUSY } else { 0 });
                head.put_u64_le(*acked);
                head.put_u64_le(*first);
                let mut pieces = Vec::with_capacity(1 + messages.len());
                pieces.push(head.freeze());
                pieces.extend(messages.iter().map(encode_frame));
                return pieces;
            }
        }
        vec![head.freeze()]
    }

    /// From bytes, which its payloads then share.
    ///
    /// # Errors
    ///
    /// [`PacketError`] when they are no packet.
    pub fn decode(mut bytes: Bytes) -> Result<Self, PacketError> {
        let length = bytes.len();
        let short = PacketError::Short(length);
        if length < HEAD_BYTES {
            return Err(short);
        }
        let format = bytes.get_u8();
        if format != FORMAT {
            return Err(PacketError::Format(format));
        }
        let kind = bytes.get_u8();
        let (from, to) = (NodeId(bytes.get_u64_le()), NodeId(bytes.get_u64_le()));
        let body = match kind {
            VOTE => match split_frame(&mut bytes)? {
                Message::Vote(vote) => Body::Vote(vote),
                other => return Err(PacketError::OutOfPlace(other.message_type().name())),
            },
            OPEN => Body::Open { own: Name::take(&mut bytes).ok_or(short)? },
            OPENED | CLOSED => {
                let peer = Name::take(&mut bytes).ok_or(short.clone())?;
                let own = Name::take(&mut bytes).ok_or(short)?;
                match kind {
                    OPENED => Body::Opened { peer, own },
                    _ => Body::Closed { peer, own },
                }
            }
            DATA => {
                let peer = Name::take(&mut bytes).ok_or(short.clone())?;
                let own = Name::take(&mut bytes).ok_or(short.clone())?;
                if bytes.len() < 17 {
                    return Err(short);
                }
                let is_busy = bytes.get_u8() & IS_BUSY != 0;
                let (acked, first) = (bytes.get_u64_le(), bytes.get_u64_le());
                let mut messages = Vec::new();
                while bytes.has_remaining() {
                    let message = split_frame(&mut bytes)?;
                    check(&message)?;
                    messages.push(message);
                }
                Body::Data { peer, own, is_busy, acked, first, messages }
            }
            other => return Err(PacketError::Kind(other)),
        };
        match bytes.len() {
            0 => Ok(Packet { from, to, body }),
            left => Err(PacketError::LeftOver(left)),
        }
    }
}

impl Name {
    fn put(self, bytes: &mut BytesMut) {
        bytes.put_u64_le(self.life);
        bytes.put_u64_le(self.number);
    }

    fn take(bytes: &mut Bytes) -> Option<Name> {
        (NAME_BYTES <= bytes.len())
            .then(|| Name { life: bytes.get_u64_le(), number: bytes.get_u64_le() })
    }
}

/// The log of a replica keeps commands alone: an entry with a key, or of another operation, could not
/// be told from one without when it is read back.
fn check(message: &Message) -> Result<(), PacketError> {
    let command = match message {
        Message::LogEntry(entry) => {
            use quorate_zab::Op;
            if [Op::STREAM_BEGIN, Op::STREAM_END].contains(&entry.command.op) {
                return Ok(());
            }
            &entry.command
        }
        Message::Request(request) => &request.command,
        Message::Proposal(proposal) | Message::Inform(proposal) => &proposal.command,
        Message::Snapshot(snapshot) if metadata(snapshot).is_some() => return Ok(()),
        Message::Snapshot(_) | Message::Vote(_) => {
            return Err(PacketError::OutOfPlace(message.message_type().name()));
        }
        _ => return Ok(()),
    };
    match command.op == quorate_zab::Op::SET && command.key.is_empty() {
        true => Ok(()),
        false => Err(PacketError::OutOfPlace(message.message_type().name())),
    }
}

/// What a snapshot of the engine stands for, as the machine knows it: by the epoch of its last entry.
pub(crate) fn metadata(snapshot: &quorate_zab::Snapshot) -> Option<SnapshotMetadata> {
    let conf_state = codec::decode_conf_state_record(snapshot.data.clone()).ok()?;
    let term = Term(snapshot.zxid.epoch().0.into());
    Some(SnapshotMetadata { conf_state, index: snapshot.index, term })
}

#[cfg(test)]
mod tests {
    use quorate_raft::ConfState;
    use quorate_types::Index;
    use quorate_zab::{Command, Epoch, Op, Proposal, Zxid};

    use super::*;

    const OWN: Name = Name { life: 7, number: 1 };
    const PEER: Name = Name { life: 9, number: 2 };

    fn data(messages: Vec<Message>) -> Packet {
        let body = Body::Data { peer: PEER, own: OWN, is_busy: true, acked: 3, first: 5, messages };
        Packet { from: NodeId(1), to: NodeId(2), body }
    }

    fn proposal(op: Op, key: &str) -> Proposal {
        let command = Command { op, key: key.into(), content: Bytes::from_static(b"xyz") };
        Proposal { zxid: Zxid::new(Epoch(2), 1), command, ..Proposal::default() }
    }

    fn snapshot(data: Bytes) -> Message {
        let zxid = Zxid::new(Epoch(3), 7);
        Message::Snapshot(quorate_zab::Snapshot { index: Index(40), zxid, data })
    }

    #[test]
    fn what_is_encoded_decodes() {
        let plain = |body| Packet { from: NodeId(1), to: NodeId(u64::MAX), body };
        let members = codec::encode_conf_state_record(&ConfState::default());
        for packet in [
            plain(Body::Vote(Vote { round: 4, candidate: "a:1".into(), ..Vote::default() })),
            plain(Body::Open { own: OWN }),
            plain(Body::Opened { peer: PEER, own: OWN }),
            plain(Body::Closed { peer: PEER, own: OWN }),
            data(Vec::new()),
            data(vec![Message::Proposal(proposal(Op::SET, "")), Message::Ping { number: 1 }]),
            data(vec![Message::Inform(proposal(Op::SET, ""))]),
            data(vec![snapshot(members)]),
        ] {
            let bytes = Bytes::from(packet.encode().concat());
            assert_eq!(Packet::decode(bytes.clone()).as_ref(), Ok(&packet));
            for length in 0..bytes.len() {
                let _ = Packet::decode(bytes.slice(..length));
            }
            let longer = Bytes::from([&bytes[..], b"x"].concat());
            assert!(Packet::decode(longer).is_err(), "{packet:?}");
        }
    }

    #[test]
    fn only_what_the_log_can_keep_is_taken() {
        for message in [
            Message::Proposal(proposal(Op::SET, "k")),
            Message::Proposal(proposal(Op::DELETE, "")),
            Message::Inform(proposal(Op::SET, "k")),
            Message::Vote(Vote::default()),
            snapshot(Bytes::from_static(b"nonsense")),
        ] {
            let bytes = Bytes::from(data(vec![message]).encode().concat());
            assert!(matches!(Packet::decode(bytes), Err(PacketError::OutOfPlace(_))));
        }
        let epoch = Term(3);
        let members = codec::encode_conf_state_record(&ConfState::default());
        let found = data(vec![snapshot(members)]).snapshot().unwrap();
        assert_eq!((found.index, found.term), (Index(40), epoch));
    }
}
