//! What replicas say to each other, in the words of whichever engine they run.

use bytes::Bytes;
use quorate_codec as codec;
use quorate_codec::DecodeError;
use quorate_raft::{
    AnyConfChange, Body, Entry, EntryType, MessageType, SnapshotMetadata, is_local_target,
};
use quorate_types::NodeId;

use crate::envelope::{EnvelopeError, open, open_change};
use crate::zab::packet::{Packet, PacketError};
use crate::{Engine, Note};

/// Something said by one replica to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// By one that runs Raft.
    Raft(quorate_raft::Message),
    /// By one that runs ZAB.
    Zab(Packet),
}

/// Something that a message wants in the log, for a client of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A command of the machine.
    Command(Bytes),
    /// A membership change, as the machine has it.
    Change(Bytes),
}

/// Why bytes are no message, or one that must not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// An entry in it holds no command.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A membership change in it was judged by nobody.
    #[error("a membership change that no leader has judged")]
    Unjudged,
    /// Not one of Raft.
    #[error(transparent)]
    Raft(#[from] DecodeError),
    /// Not one of ZAB.
    #[error(transparent)]
    Zab(#[from] PacketError),
}

impl From<quorate_raft::Message> for Message {
    fn from(message: quorate_raft::Message) -> Self {
        Message::Raft(message)
    }
}

impl Message {
    /// Who says it.
    pub fn from(&self) -> NodeId {
        match self {
            Message::Raft(message) => message.from,
            Message::Zab(packet) => packet.from,
        }
    }

    /// Whom it is for.
    pub fn to(&self) -> NodeId {
        match self {
            Message::Raft(message) => message.to,
            Message::Zab(packet) => packet.to,
        }
    }

    /// The snapshot that it announces, whose state travels beside it.
    pub fn snapshot(&self) -> Option<SnapshotMetadata> {
        match self {
            Message::Raft(message) => match &message.body {
                Body::Snapshot { snapshot } => Some(snapshot.metadata.clone()),
                _ => None,
            },
            Message::Zab(packet) => packet.snapshot(),
        }
    }

    /// Whether it hands on what a client asks, and would do it twice if it came twice.
    pub fn is_proposal(&self) -> bool {
        match self {
            Message::Raft(message) => matches!(message.body, Body::Propose { .. }),
            // Its connections take everything once.
            Message::Zab(_) => false,
        }
    }

    /// What it wants in the log. Whoever takes it must know all of it to be what the machine can read:
    /// what is committed and can't be read stops every member.
    ///
    /// # Errors
    ///
    /// [`MessageError`] when it holds anything else.
    pub fn asked(&self) -> Result<Vec<Asked>, MessageError> {
        match self {
            Message::Raft(message) => match &message.body {
                Body::Propose { entries } => {
                    entries.iter().filter_map(|entry| of_entry(entry).transpose()).collect()
                }
                _ => Ok(Vec::new()),
            },
            Message::Zab(packet) => packet
                .requested()
                .map(|content| Ok(Asked::Command(open(content.clone())?.1)))
                .collect(),
        }
    }

    /// As bytes, in pieces; large payloads are shared, not copied, where the engine's form lets them.
    pub fn encode(&self) -> Vec<Bytes> {
        match self {
            Message::Raft(message) => codec::encode_message(message),
            Message::Zab(packet) => packet.encode(),
        }
    }

    /// From the bytes of a message among replicas that run `engine`.
    ///
    /// # Errors
    ///
    /// [`MessageError`] when they are not one.
    pub fn decode(engine: Engine, bytes: Bytes) -> Result<Self, MessageError> {
        Ok(match engine {
            Engine::Raft => Message::Raft(codec::decode_message(bytes)?),
            Engine::Zab => Message::Zab(Packet::decode(bytes)?),
        })
    }
}

fn of_entry(entry: &Entry) -> Result<Option<Asked>, MessageError> {
    let data = entry.data.clone().unwrap_or_default();
    match entry.entry_type() {
        // It asks for nothing, and is applied as nothing.
        EntryType::Normal if data.is_empty() => Ok(None),
        EntryType::Normal => Ok(Some(Asked::Command(open(data)?.1))),
        kind => {
            let change: AnyConfChange = match kind {
                EntryType::ConfChange => codec::decode_conf_change(data)?.into(),
                _ => codec::decode_conf_change_v2(data)?.into(),
            };
            let opened = open_change(change.as_v2().context).ok_or(MessageError::Unjudged)?;
            Ok(Some(Asked::Change(opened.2)))
        }
    }
}

/// Whether `from`, at the other end of a connection, may send this message: its own, or one that it
/// passes on for another node. Nobody speaks for this node's storage, and a snapshot counts only
/// with its state, which comes apart.
pub fn speaks_for(message: &Message, from: NodeId) -> bool {
    match message {
        Message::Raft(message) => {
            if is_local_target(message.from) || matches!(message.body, Body::Snapshot { .. }) {
                return false;
            }
            message.from == from
                || matches!(
                    message.message_type(),
                    MessageType::MsgProp
                        | MessageType::MsgReadIndex
                        | MessageType::MsgTransferLeader
                )
        }
        Message::Zab(packet) => packet.from == from && !packet.has_snapshot(),
    }
}

impl From<quorate_raft::Note> for Note {
    fn from(note: quorate_raft::Note) -> Self {
        Note::Raft(note)
    }
}

impl From<quorate_zab::Note> for Note {
    fn from(note: quorate_zab::Note) -> Self {
        Note::Zab(note)
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::LOCAL_APPEND_THREAD;
    use quorate_types::Index;

    use super::*;

    #[test]
    fn what_cannot_be_applied_is_not_asked_for() {
        let sealed = |command: &'static [u8]| {
            let mut entry = bytes::BytesMut::new();
            crate::seal(crate::RequestId(7), &mut entry);
            entry.extend_from_slice(command);
            entry.freeze()
        };
        let judged = |content: &'static [u8]| {
            let mut context = bytes::BytesMut::new();
            crate::seal_change(crate::RequestId(7), quorate_types::Term(3), &mut context);
            context.extend_from_slice(content);
            let context = context.freeze();
            let change = quorate_raft::ConfChange { context, ..Default::default() };
            codec::encode_conf_change(&change)
        };
        let bare = codec::encode_conf_change(&quorate_raft::ConfChange::default());
        let entry =
            |kind, data: Bytes| Entry { kind: Some(kind), data: Some(data), ..Entry::default() };
        let (normal, change) = (EntryType::Normal, EntryType::ConfChange);
        for (entry, want) in [
            (entry(normal, Bytes::new()), Ok(vec![])),
            (entry(normal, sealed(b"put")), Ok(vec![Asked::Command("put".into())])),
            (entry(normal, "x".into()), Err(EnvelopeError::TooShort(1).into())),
            (entry(change, judged(b"add")), Ok(vec![Asked::Change("add".into())])),
            (entry(change, bare), Err(MessageError::Unjudged)),
        ] {
            let body = Body::Propose { entries: vec![entry.clone()] };
            let message: Message = quorate_raft::Message::new(NodeId(1), body).into();
            assert_eq!(message.asked(), want, "{entry:?}");
        }
    }

    #[test]
    fn peers_speak_for_themselves_alone() {
        let raft = quorate_raft::Message::new;
        let from = |id| {
            let body = Body::StorageAppendReply { stable: None, snapshot: None };
            quorate_raft::Message { from: id, ..raft(NodeId(1), body) }
        };
        let snapshot = Body::Snapshot { snapshot: Box::default() };
        let forwarded = Body::Propose { entries: Vec::new() };
        let spoken = |body| quorate_raft::Message { from: NodeId(3), ..raft(NodeId(1), body) };
        for (message, sender, want) in [
            (spoken(Body::AppendReply { index: Index(1) }), 3, true),
            (spoken(Body::AppendReply { index: Index(1) }), 2, false),
            (spoken(forwarded), 2, true),
            // Without its state, it would leave a mark in the log that nothing stands behind.
            (spoken(snapshot), 3, false),
            (from(LOCAL_APPEND_THREAD), LOCAL_APPEND_THREAD.0, false),
        ] {
            let said = Message::Raft(message);
            assert_eq!(speaks_for(&said, NodeId(sender)), want, "{said:?} of {sender}");
        }
    }
}
