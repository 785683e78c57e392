//! Messages between peers, as a `raftpb.Message`.
//!
//! On the wire a message is one flat record of which each type uses a few fields ([`Fields`] when
//! read, [`View`] when written); inside it is a [`Body`] that has no field too many.

use bytes::Bytes;
use quorate_raft::{Body, Entry, HardState, Message, MessageType, Snapshot};
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::values::pick;
use crate::wire::{self, Decode, Encode, Out, Reader, Value};
use crate::{DecodeError, SHARED_BYTES_MIN};

/// What an entry takes besides its payload in all but the longest of logs: a tag and a number of up
/// to ten bytes for its length, type, term and index, and the payload's length.
const ENTRY_FIELDS_BYTES_MAX: usize = 5 * 6;

/// The context of a vote request that the leader itself has asked for.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// The message in pieces that follow each other.
///
/// Payloads of [`SHARED_BYTES_MIN`](crate::SHARED_BYTES_MIN) bytes and more are pieces of their own
/// that share the memory of `message`; everything else is copied into the pieces between them.
pub fn encode_message(message: &Message) -> Vec<Bytes> {
    wire::encode_chunks(message, View::of(message).copied_bytes_max())
}

/// A message from its encoding. Payloads are slices of `bytes` and keep all of it in memory.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed, nested too deeply, or of a type this version does not
/// know. Fields that the type does not use are ignored.
pub fn decode_message(bytes: Bytes) -> Result<Message, DecodeError> {
    wire::decode::<Fields>(&bytes)?.into_message()
}

impl Encode for Message {
    fn write(&self, out: &mut impl Out) {
        View::of(self).write(out);
    }
}

/// A message as it is written: the fields that stand there, each absent unless its type uses it.
#[derive(Default)]
struct View<'a> {
    kind: u64,
    to: NodeId,
    from: NodeId,
    term: Option<Term>,
    /// `logTerm` and `index`, of types that always have both.
    place: Option<EntryId>,
    /// `index` alone.
    index: Option<Index>,
    entries: &'a [Entry],
    commit: Option<Index>,
    snapshot: Option<&'a Snapshot>,
    reject: bool,
    reject_hint: Option<Index>,
    context: &'a [u8],
    vote: Option<NodeId>,
    responses: &'a [Message],
    priority: i64,
}

impl<'a> View<'a> {
    fn of(message: &'a Message) -> Self {
        let mut view = View {
            kind: message.message_type() as u64,
            to: message.to,
            from: message.from,
            term: Some(message.term).filter(|term| *term != Term(0)),
            ..View::default()
        };
        match &message.body {
            Body::Propose { entries } | Body::ReadIndex { entries } => view.entries = entries,
            Body::StorageApplyReply { entries } => view.entries = entries,
            Body::Append { prev, entries, commit } => {
                view.place = Some(*prev);
                view.entries = entries;
                view.commit = Some(*commit);
            }
            Body::AppendReply { index } => {
                view.index = Some(*index).filter(|index| *index != Index(0));
            }
            Body::AppendRefusal { index, hint } => {
                view.place = Some(EntryId { term: hint.term, index: *index });
                view.reject = true;
                view.reject_hint = Some(hint.index);
            }
            Body::Vote { last, transfer, priority }
            | Body::PreVote { last, transfer, priority } => {
                view.place = Some(*last);
                view.priority = *priority;
                view.context = if *transfer { CAMPAIGN_TRANSFER } else { &[] };
            }
            Body::VoteReply { reject }
            | Body::PreVoteReply { reject }
            | Body::SnapshotStatus { reject } => view.reject = *reject,
            Body::Snapshot { snapshot } => view.snapshot = Some(snapshot),
            Body::Heartbeat { commit, context } => {
                view.commit = Some(*commit);
                view.context = context;
            }
            Body::HeartbeatReply { context } => view.context = context,
            Body::ReadIndexReply { index, entries } => {
                view.index = Some(*index);
                view.entries = entries;
            }
            Body::StorageAppend { hard_state, entries, snapshot, responses } => {
                if let Some(HardState { term, vote, commit }) = hard_state {
                    view.term = Some(*term);
                    view.vote = Some(*vote);
                    view.commit = Some(*commit);
                }
                view.entries = entries;
                view.snapshot = snapshot.as_deref();
                view.responses = responses;
            }
            Body::StorageAppendReply { stable, snapshot } => {
                view.place = *stable;
                view.snapshot = snapshot.as_deref();
            }
            Body::StorageApply { entries, responses } => {
                view.entries = entries;
                view.responses = responses;
            }
            Body::Hup
            | Body::Beat
            | Body::Unreachable
            | Body::CheckQuorum
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::ForgetLeader => {}
        }
        view
    }
}

impl View<'_> {
    /// Bytes of the encoding that are copied, at most, while nothing out of the ordinary is sent.
    fn copied_bytes_max(&self) -> usize {
        let fields = 14 * 11;
        let copied = |entry: &Entry| match entry.payload().len() {
            large if SHARED_BYTES_MIN <= large => ENTRY_FIELDS_BYTES_MAX,
            length => length + ENTRY_FIELDS_BYTES_MAX,
        };
        fields + self.context.len() + self.entries.iter().map(copied).sum::<usize>()
    }

    fn write(&self, out: &mut impl Out) {
        out.number_field(1, self.kind);
        out.optional_field(2, self.to.known().map(u64::from));
        out.optional_field(3, self.from.known().map(u64::from));
        out.optional_field(4, self.term.map(u64::from));
        out.optional_field(5, self.place.map(|place| place.term.0));
        out.optional_field(6, self.place.map(|place| place.index).or(self.index).map(u64::from));
        for entry in self.entries {
            out.value_field(7, entry);
        }
        out.optional_field(8, self.commit.map(u64::from));
        if let Some(snapshot) = self.snapshot {
            out.value_field(9, snapshot);
        }
        if self.reject {
            out.number_field(10, 1);
        }
        out.optional_field(11, self.reject_hint.map(u64::from));
        if !self.context.is_empty() {
            out.length(12, self.context.len());
            out.bytes(self.context);
        }
        out.optional_field(13, self.vote.map(u64::from));
        for response in self.responses {
            out.value_field(14, response);
        }
        // Not etcd's: its nodes skip it. The number and the form are those of the crate `raft`.
        if self.priority != 0 {
            out.number_field(16, self.priority as u64);
        }
    }
}

/// A message as it is read: every field of the flat record, zero where absent.
#[derive(Default)]
struct Fields {
    kind: u64,
    to: NodeId,
    from: NodeId,
    term: Term,
    log_term: Term,
    index: Index,
    entries: Vec<Entry>,
    commit: Index,
    snapshot: Snapshot,
    reject: bool,
    reject_hint: Index,
    context: Bytes,
    vote: NodeId,
    responses: Vec<Message>,
    priority: i64,
}

impl Decode for Fields {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Number(number)) => self.kind = number,
                (2, Value::Number(number)) => self.to = NodeId(number),
                (3, Value::Number(number)) => self.from = NodeId(number),
                (4, Value::Number(number)) => self.term = Term(number),
                (5, Value::Number(number)) => self.log_term = Term(number),
                (6, Value::Number(number)) => self.index = Index(number),
                (7, Value::Delimited(value)) => {
                    let mut entry = Entry::default();
                    entry.merge(value.descend()?)?;
                    self.entries.push(entry);
                }
                (8, Value::Number(number)) => self.commit = Index(number),
                (9, Value::Delimited(value)) => self.snapshot.merge(value.descend()?)?,
                (10, Value::Number(number)) => self.reject = number != 0,
                (11, Value::Number(number)) => self.reject_hint = Index(number),
                (12, Value::Delimited(value)) => self.context = value.payload(),
                (13, Value::Number(number)) => self.vote = NodeId(number),
                (14, Value::Delimited(value)) => {
                    let mut response = Fields::default();
                    response.merge(value.descend()?)?;
                    self.responses.push(response.into_message()?);
                }
                (16, Value::Number(number)) => self.priority = number as i64,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Fields {
    fn into_message(self) -> Result<Message, DecodeError> {
        let kind = pick("MessageType", self.kind, &TYPES)?;
        let Fields {
            to,
            from,
            term,
            log_term,
            index,
            entries,
            commit,
            reject,
            context,
            priority,
            ..
        } = self;
        let (snapshot, responses) = (self.snapshot, self.responses);
        let place = EntryId { term: log_term, index };
        let transfer = context == CAMPAIGN_TRANSFER;
        // Writers of old put an empty snapshot into every message.
        let written = |snapshot: Snapshot| (!snapshot.is_empty()).then(|| Box::new(snapshot));
        let body = match kind {
            MessageType::MsgHup => Body::Hup,
            MessageType::MsgBeat => Body::Beat,
            MessageType::MsgProp => Body::Propose { entries },
            MessageType::MsgApp => Body::Append { prev: place, entries: entries.into(), commit },
            MessageType::MsgAppResp if reject => {
                let hint = EntryId { term: log_term, index: self.reject_hint };
                Body::AppendRefusal { index, hint }
            }
            MessageType::MsgAppResp => Body::AppendReply { index },
            MessageType::MsgVote => Body::Vote { last: place, transfer, priority },
            MessageType::MsgVoteResp => Body::VoteReply { reject },
            MessageType::MsgSnap => Body::Snapshot { snapshot: Box::new(snapshot) },
            MessageType::MsgHeartbeat => Body::Heartbeat { commit, context },
            MessageType::MsgHeartbeatResp => Body::HeartbeatReply { context },
            MessageType::MsgUnreachable => Body::Unreachable,
            MessageType::MsgSnapStatus => Body::SnapshotStatus { reject },
            MessageType::MsgCheckQuorum => Body::CheckQuorum,
            MessageType::MsgTransferLeader => Body::TransferLeader,
            MessageType::MsgTimeoutNow => Body::TimeoutNow,
            MessageType::MsgReadIndex => Body::ReadIndex { entries },
            MessageType::MsgReadIndexResp => Body::ReadIndexReply { index, entries },
            MessageType::MsgPreVote => Body::PreVote { last: place, transfer, priority },
            MessageType::MsgPreVoteResp => Body::PreVoteReply { reject },
            MessageType::MsgStorageAppend => Body::StorageAppend {
                hard_state: Some(HardState { term, vote: self.vote, commit })
                    .filter(|hard_state| !hard_state.is_empty()),
                entries: entries.into(),
                snapshot: written(snapshot),
                responses,
            },
            MessageType::MsgStorageAppendResp => Body::StorageAppendReply {
                stable: Some(place).filter(|place| *place != EntryId::default()),
                snapshot: written(snapshot),
            },
            MessageType::MsgStorageApply => {
                Body::StorageApply { entries: entries.into(), responses }
            }
            MessageType::MsgStorageApplyResp => Body::StorageApplyReply { entries: entries.into() },
            MessageType::MsgForgetLeader => Body::ForgetLeader,
        };
        Ok(Message { to, from, term, body })
    }
}

/// Every type, at the place of its number.
const TYPES: [MessageType; 24] = {
    use MessageType::*;
    [
        MsgHup,
        MsgBeat,
        MsgProp,
        MsgApp,
        MsgAppResp,
        MsgVote,
        MsgVoteResp,
        MsgSnap,
        MsgHeartbeat,
        MsgHeartbeatResp,
        MsgUnreachable,
        MsgSnapStatus,
        MsgCheckQuorum,
        MsgTransferLeader,
        MsgTimeoutNow,
        MsgReadIndex,
        MsgReadIndexResp,
        MsgPreVote,
        MsgPreVoteResp,
        MsgStorageAppend,
        MsgStorageAppendResp,
        MsgStorageApply,
        MsgStorageApplyResp,
        MsgForgetLeader,
    ]
};
