//! The bodies: which field has which number.
//!
//! Reading is one walk for all messages: numbers go to `numbers`, texts and bytes to `delimited`,
//! by field number. What they mean depends on the message alone ([`Fields::into_message`]).

use std::sync::Arc;

use bytes::Bytes;
use quorate_types::Index;
use quorate_zab::{
    Address, Command, Epoch, EpochAck, FollowerInfo, LeaderInfo, LogEntry, Message, MessageType,
    Op, PeerStatus, Proposal, Request, Snapshot, Vote, Zxid,
};

use super::FrameError;
use crate::wire::{Encode, Out, Reader, Value};

/// The version every message begins with. It is never looked at.
const VERSION: u64 = 1;

/// First of the two fields that are ours; gometa has none beyond 8.
const EXTRA: u32 = 100;

/// A message as it is written.
pub(super) struct View<'a>(pub(super) &'a Message);

impl Encode for View<'_> {
    fn write(&self, out: &mut impl Out) {
        out.number_field(1, VERSION);
        match self.0 {
            Message::Vote(vote) => {
                out.number_field(2, vote.round);
                out.number_field(3, vote.status as u64);
                out.number_field(4, vote.epoch.0.into());
                text(out, 5, vote.candidate.as_str());
                out.number_field(6, vote.logged.0);
                out.number_field(7, vote.committed.0);
                out.number_field(8, vote.solicit.into());
                out.optional_field(EXTRA + 1, vote.cluster);
            }
            Message::FollowerInfo(info) => {
                out.number_field(2, info.accepted_epoch.0.into());
                text(out, 3, info.fid.as_str());
                out.number_field(4, info.voting.into());
                out.optional_field(EXTRA, info.caps);
                if let Some(leader) = &info.accepted_leader {
                    text(out, EXTRA + 1, leader.as_str());
                }
            }
            Message::LeaderInfo(info) => {
                out.number_field(2, info.epoch.0.into());
                out.optional_field(EXTRA, info.caps);
            }
            Message::EpochAck(ack) => {
                out.number_field(2, ack.logged.0);
                out.number_field(3, ack.current_epoch.0.into());
                out.optional_field(EXTRA + 1, ack.committed.map(|zxid| zxid.0));
            }
            Message::LogEntry(entry) => {
                out.number_field(2, entry.zxid.0);
                command(out, 3, &entry.command);
                out.optional_field(EXTRA + 1, entry.keep.map(|zxid| zxid.0));
            }
            Message::NewLeader { epoch } => out.number_field(2, epoch.0.into()),
            Message::NewLeaderAck => {}
            Message::Request(request) => {
                out.number_field(2, request.id);
                command(out, 3, &request.command);
            }
            Message::Proposal(proposal) | Message::Inform(proposal) => {
                out.number_field(2, proposal.zxid.0);
                text(out, 3, proposal.fid.as_str());
                out.number_field(4, proposal.request);
                command(out, 5, &proposal.command);
            }
            Message::Accept { zxid, fid } => {
                out.number_field(2, zxid.0);
                text(out, 3, fid.as_str());
            }
            Message::Commit { zxid } => out.number_field(2, zxid.0),
            Message::Abort { request, fid, error } => {
                out.number_field(2, *request);
                text(out, 3, fid.as_str());
                text(out, 4, error);
            }
            Message::Response { request, fid, error, content } => {
                out.number_field(2, *request);
                text(out, 3, fid.as_str());
                text(out, 4, error);
                if let Some(content) = content {
                    out.payload_field(5, content);
                }
            }
            Message::Ping { number } | Message::Pong { number } => out.number_field(2, *number),
            Message::Snapshot(snapshot) => {
                out.number_field(2, snapshot.index.0);
                out.number_field(3, snapshot.zxid.0);
                out.payload_field(4, &snapshot.data);
            }
            Message::ReadIndex { id } => out.number_field(2, *id),
            Message::ReadIndexReply { id, index } => {
                out.number_field(2, *id);
                out.optional_field(3, index.map(|index| index.0));
            }
        }
    }
}

fn text(out: &mut impl Out, field: u32, text: &str) {
    out.length(field, text.len());
    out.bytes(text.as_bytes());
}

/// Operation, key and content, from field `first` on.
fn command(out: &mut impl Out, first: u32, command: &Command) {
    out.number_field(first, command.op.0.into());
    text(out, first + 1, &command.key);
    out.payload_field(first + 2, &command.content);
}

/// A body as it is read: fields 1 to 8, and ours, by number. Of a field that repeats the last one
/// counts.
#[derive(Default)]
pub(super) struct Fields {
    numbers: [Option<u64>; PLACES],
    delimited: [Option<Bytes>; PLACES],
    name: &'static str,
}

/// Field 0 does not exist; 1 to 8 are gometa's; the last two are ours.
const PLACES: usize = 11;

impl Fields {
    pub(super) fn read(kind: MessageType, body: &Bytes) -> Result<Self, FrameError> {
        let mut fields = Fields { name: kind.name(), ..Fields::default() };
        let mut reader = Reader::new(body);
        let malformed = |error| FrameError::Body { name: kind.name(), error };
        while let Some((number, value)) = reader.field().map_err(malformed)? {
            let Some(place) = place(number) else { continue };
            match value {
                Value::Number(number) => fields.numbers[place] = Some(number),
                Value::Delimited(value) => fields.delimited[place] = Some(value.payload()),
                Value::Other => {}
            }
        }
        Ok(fields)
    }

    pub(super) fn into_message(mut self, kind: MessageType) -> Result<Message, FrameError> {
        Ok(match kind {
            MessageType::Vote => Message::Vote(Vote {
                round: self.number(2),
                status: self.status(3)?,
                epoch: self.epoch(4),
                candidate: self.address(5)?,
                logged: self.zxid(6),
                committed: self.zxid(7),
                solicit: self.number(8) != 0,
                cluster: self.optional(EXTRA + 1),
            }),
            MessageType::FollowerInfo => Message::FollowerInfo(FollowerInfo {
                accepted_epoch: self.epoch(2),
                fid: self.address(3)?,
                voting: self.number(4) != 0,
                caps: self.optional(EXTRA),
                accepted_leader: match self.take(EXTRA + 1) {
                    Some(leader) => Some(self.text(EXTRA + 1, &leader)?.into()),
                    None => None,
                },
            }),
            MessageType::LeaderInfo => {
                Message::LeaderInfo(LeaderInfo { epoch: self.epoch(2), caps: self.optional(EXTRA) })
            }
            MessageType::EpochAck => Message::EpochAck(EpochAck {
                logged: self.zxid(2),
                current_epoch: self.epoch(3),
                committed: self.optional(EXTRA + 1).map(Zxid),
            }),
            MessageType::LogEntry => Message::LogEntry(LogEntry {
                zxid: self.zxid(2),
                command: self.command(3)?,
                keep: self.optional(EXTRA + 1).map(Zxid),
            }),
            MessageType::NewLeader => Message::NewLeader { epoch: self.epoch(2) },
            MessageType::NewLeaderAck => Message::NewLeaderAck,
            MessageType::Request => {
                Message::Request(Request { id: self.number(2), command: self.command(3)? })
            }
            MessageType::Proposal => Message::Proposal(self.proposal()?),
            MessageType::Inform => Message::Inform(self.proposal()?),
            MessageType::Accept => Message::Accept { zxid: self.zxid(2), fid: self.address(3)? },
            MessageType::Commit => Message::Commit { zxid: self.zxid(2) },
            MessageType::Abort => Message::Abort {
                request: self.number(2),
                fid: self.address(3)?,
                error: self.string(4)?,
            },
            MessageType::Response => Message::Response {
                request: self.number(2),
                fid: self.address(3)?,
                error: self.string(4)?,
                content: self.take(5),
            },
            MessageType::Ping => Message::Ping { number: self.number(2) },
            MessageType::Pong => Message::Pong { number: self.number(2) },
            MessageType::Snapshot => Message::Snapshot(Snapshot {
                index: Index(self.number(2)),
                zxid: self.zxid(3),
                data: self.take(4).unwrap_or_default(),
            }),
            MessageType::ReadIndex => Message::ReadIndex { id: self.number(2) },
            MessageType::ReadIndexReply => {
                Message::ReadIndexReply { id: self.number(2), index: self.optional(3).map(Index) }
            }
        })
    }

    fn optional(&self, field: u32) -> Option<u64> {
        self.numbers[place(field)?]
    }

    fn number(&self, field: u32) -> u64 {
        self.optional(field).unwrap_or_default()
    }

    /// A number of 32 bits; protobuf drops what is above them.
    fn short(&self, field: u32) -> u32 {
        self.number(field) as u32
    }

    fn epoch(&self, field: u32) -> Epoch {
        Epoch(self.short(field))
    }

    fn zxid(&self, field: u32) -> Zxid {
        Zxid(self.number(field))
    }

    fn status(&self, field: u32) -> Result<PeerStatus, FrameError> {
        match self.short(field) {
            0 => Ok(PeerStatus::Electing),
            1 => Ok(PeerStatus::Leading),
            2 => Ok(PeerStatus::Following),
            3 => Ok(PeerStatus::Watching),
            status => Err(FrameError::UnknownStatus { status }),
        }
    }

    fn take(&mut self, field: u32) -> Option<Bytes> {
        self.delimited[place(field)?].take()
    }

    fn text<'a>(&self, field: u32, bytes: &'a Bytes) -> Result<&'a str, FrameError> {
        std::str::from_utf8(bytes).map_err(|_| FrameError::NotText { name: self.name, field })
    }

    fn string(&mut self, field: u32) -> Result<String, FrameError> {
        let bytes = self.take(field).unwrap_or_default();
        Ok(self.text(field, &bytes)?.to_owned())
    }

    fn address(&mut self, field: u32) -> Result<Address, FrameError> {
        let bytes = self.take(field).unwrap_or_default();
        Ok(self.text(field, &bytes)?.into())
    }

    fn proposal(&mut self) -> Result<Proposal, FrameError> {
        Ok(Proposal {
            zxid: self.zxid(2),
            fid: self.address(3)?,
            request: self.number(4),
            command: self.command(5)?,
        })
    }

    fn command(&mut self, first: u32) -> Result<Command, FrameError> {
        let op = Op(self.short(first));
        let key = self.take(first + 1).unwrap_or_default();
        let key = Arc::from(self.text(first + 1, &key)?);
        Ok(Command { op, key, content: self.take(first + 2).unwrap_or_default() })
    }
}

/// Where a field is kept, if it is.
fn place(field: u32) -> Option<usize> {
    match field {
        1..=8 => Some(field as usize),
        EXTRA => Some(9),
        101 => Some(10),
        _ => None,
    }
}
