//! The `raftpb` values other than messages.
//!
//! Which zero fields are written follows etcd 3.7: both or neither of an entry's term and index,
//! every field of a hard state, the auto-leave flag, and type and node of a change. Readers take
//! absent and zero for the same, except where [`Entry`] keeps them apart.

use bytes::Bytes;
use quorate_raft::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
    Entry, EntryType, HardState, Snapshot, SnapshotMetadata,
};
use quorate_types::{Index, NodeId, Term};

use crate::DecodeError;
use crate::wire::{self, Decode, Encode, Out, Reader, Value};

/// The entry as a `raftpb.Entry`. Its length is [`Entry::encoded_size`].
pub fn encode_entry(entry: &Entry) -> Bytes {
    wire::encode(entry)
}

/// A `raftpb.Entry`. Its data is a slice of `bytes`.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed or name an entry type this version does not know.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, DecodeError> {
    wire::decode(&bytes)
}

/// The snapshot as a `raftpb.Snapshot`, in pieces that follow each other, so that a large state is
/// not copied.
pub fn encode_snapshot(snapshot: &Snapshot) -> Vec<Bytes> {
    wire::encode_chunks(snapshot, 0)
}

/// A `raftpb.Snapshot`. Its data is a slice of `bytes`.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed.
pub fn decode_snapshot(bytes: Bytes) -> Result<Snapshot, DecodeError> {
    wire::decode(&bytes)
}

/// The hard state as a `raftpb.HardState`.
pub fn encode_hard_state(hard_state: &HardState) -> Bytes {
    wire::encode(hard_state)
}

/// A `raftpb.HardState`.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed.
pub fn decode_hard_state(bytes: Bytes) -> Result<HardState, DecodeError> {
    wire::decode(&bytes)
}

/// The membership as a `raftpb.ConfState`.
pub fn encode_conf_state(conf_state: &ConfState) -> Bytes {
    wire::encode(conf_state)
}

/// A `raftpb.ConfState`, its lists packed or not.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed.
pub fn decode_conf_state(bytes: Bytes) -> Result<ConfState, DecodeError> {
    wire::decode(&bytes)
}

/// The change as a `raftpb.ConfChange`, the data of an [`EntryType::ConfChange`].
pub fn encode_conf_change(change: &ConfChange) -> Bytes {
    wire::encode(change)
}

/// A `raftpb.ConfChange`.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed or name a type of change this version does not know.
pub fn decode_conf_change(bytes: Bytes) -> Result<ConfChange, DecodeError> {
    wire::decode(&bytes)
}

/// The change as a `raftpb.ConfChangeV2`, the data of an [`EntryType::ConfChangeV2`].
pub fn encode_conf_change_v2(change: &ConfChangeV2) -> Bytes {
    wire::encode(change)
}

/// A `raftpb.ConfChangeV2`.
///
/// # Errors
///
/// [`DecodeError`] if `bytes` are malformed or name a type of change or transition this version
/// does not know.
pub fn decode_conf_change_v2(bytes: Bytes) -> Result<ConfChangeV2, DecodeError> {
    wire::decode(&bytes)
}

impl Encode for Entry {
    fn write(&self, out: &mut impl Out) {
        out.optional_field(1, self.kind.map(|kind| kind as u64));
        // An entry in a log has both, in a proposal neither.
        if self.term != Term(0) || self.index != Index(0) {
            out.number_field(2, self.term.0);
            out.number_field(3, self.index.0);
        }
        if let Some(data) = &self.data {
            out.payload_field(4, data);
        }
    }
}

impl Decode for Entry {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Number(number)) => self.kind = Some(entry_type(number)?),
                (2, Value::Number(number)) => self.term = Term(number),
                (3, Value::Number(number)) => self.index = Index(number),
                (4, Value::Delimited(data)) => self.data = Some(data.payload()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Encode for Snapshot {
    fn write(&self, out: &mut impl Out) {
        if !self.data.is_empty() {
            out.payload_field(1, &self.data);
        }
        out.value_field(2, &self.metadata);
    }
}

impl Decode for Snapshot {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Delimited(data)) => self.data = data.payload(),
                (2, Value::Delimited(metadata)) => self.metadata.merge(metadata.descend()?)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Encode for SnapshotMetadata {
    fn write(&self, out: &mut impl Out) {
        out.value_field(1, &self.conf_state);
        out.number_field(2, self.index.0);
        out.number_field(3, self.term.0);
    }
}

impl Decode for SnapshotMetadata {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Delimited(state)) => self.conf_state.merge(state.descend()?)?,
                (2, Value::Number(number)) => self.index = Index(number),
                (3, Value::Number(number)) => self.term = Term(number),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Encode for HardState {
    fn write(&self, out: &mut impl Out) {
        out.number_field(1, self.term.0);
        out.number_field(2, self.vote.0);
        out.number_field(3, self.commit.0);
    }
}

impl Decode for HardState {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Number(number)) => self.term = Term(number),
                (2, Value::Number(number)) => self.vote = NodeId(number),
                (3, Value::Number(number)) => self.commit = Index(number),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Encode for ConfState {
    fn write(&self, out: &mut impl Out) {
        for (field, ids) in [
            (1, &self.voters),
            (2, &self.learners),
            (3, &self.voters_outgoing),
            (4, &self.learners_next),
        ] {
            for id in ids {
                out.number_field(field, id.0);
            }
        }
        out.number_field(5, u64::from(self.auto_leave));
    }
}

impl Decode for ConfState {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some((number, value)) = reader.field()? {
            let ids = match number {
                1 => &mut self.voters,
                2 => &mut self.learners,
                3 => &mut self.voters_outgoing,
                4 => &mut self.learners_next,
                5 => {
                    if let Value::Number(flag) = value {
                        self.auto_leave = flag != 0;
                    }
                    continue;
                }
                _ => continue,
            };
            match value {
                Value::Number(id) => ids.push(NodeId(id)),
                Value::Delimited(packed) => packed.packed(|id| ids.push(NodeId(id)))?,
                Value::Other => {}
            }
        }
        Ok(())
    }
}

impl Encode for ConfChange {
    fn write(&self, out: &mut impl Out) {
        out.optional_field(1, (self.id != 0).then_some(self.id));
        out.number_field(2, self.change_type as u64);
        out.number_field(3, self.node_id.0);
        if !self.context.is_empty() {
            out.payload_field(4, &self.context);
        }
    }
}

impl Decode for ConfChange {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Number(number)) => self.id = number,
                (2, Value::Number(number)) => self.change_type = change_type(number)?,
                (3, Value::Number(number)) => self.node_id = NodeId(number),
                (4, Value::Delimited(context)) => self.context = context.payload(),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Encode for ConfChangeV2 {
    fn write(&self, out: &mut impl Out) {
        out.optional_field(1, self.transition.map(|transition| transition as u64));
        for change in &self.changes {
            out.value_field(2, change);
        }
        if !self.context.is_empty() {
            out.payload_field(3, &self.context);
        }
    }
}

impl Decode for ConfChangeV2 {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Number(number)) => self.transition = Some(transition(number)?),
                (2, Value::Delimited(change)) => {
                    let mut single = ConfChangeSingle::default();
                    single.merge(change.descend()?)?;
                    self.changes.push(single);
                }
                (3, Value::Delimited(context)) => self.context = context.payload(),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Encode for ConfChangeSingle {
    fn write(&self, out: &mut impl Out) {
        out.number_field(1, self.change_type as u64);
        out.number_field(2, self.node_id.0);
    }
}

impl Decode for ConfChangeSingle {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Number(number)) => self.change_type = change_type(number)?,
                (2, Value::Number(number)) => self.node_id = NodeId(number),
                _ => {}
            }
        }
        Ok(())
    }
}

fn entry_type(number: u64) -> Result<EntryType, DecodeError> {
    pick("EntryType", number, &[EntryType::Normal, EntryType::ConfChange, EntryType::ConfChangeV2])
}

fn change_type(number: u64) -> Result<ConfChangeType, DecodeError> {
    use ConfChangeType::*;
    pick("ConfChangeType", number, &[AddNode, RemoveNode, UpdateNode, AddLearnerNode])
}

fn transition(number: u64) -> Result<ConfChangeTransition, DecodeError> {
    use ConfChangeTransition::*;
    pick("ConfChangeTransition", number, &[Auto, JointImplicit, JointExplicit])
}

/// The `number`-th of `known`. Protobuf enums are 32 bits wide, and what is above is cut off.
pub(crate) fn pick<T: Copy>(
    field: &'static str,
    number: u64,
    known: &[T],
) -> Result<T, DecodeError> {
    let number = number as i32;
    usize::try_from(number)
        .ok()
        .and_then(|place| known.get(place))
        .copied()
        .ok_or(DecodeError::UnknownEnum { field, number })
}
