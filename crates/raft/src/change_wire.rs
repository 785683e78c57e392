//! Membership changes as bytes: what the data of a membership entry holds.
//!
//! Messages are encoded outside the engine, but a leader must read the changes it appends, so this
//! one piece of raftpb lives here. What is written is byte for byte what etcd's library writes for
//! the same value; what is read may come from any writer of that schema.

use bytes::Bytes;
use quorate_types::NodeId;

use crate::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType,
    ConfChangeV2, EntryType,
};

/// Why the data of a membership entry could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeWireError {
    /// The bytes end within a field.
    #[error("membership change ends within a field")]
    Truncated,
    /// A varint longer than 64 bits, a field number 0, or a wire type that does not exist.
    #[error("membership change is not a protobuf message")]
    Malformed,
    /// A known field has the wrong wire type.
    #[error("field {field} of a membership change has wire type {wire_type}")]
    WireType {
        /// The field's number.
        field: u64,
        /// Its wire type.
        wire_type: u64,
    },
    /// etcd's library knows no such change.
    #[error("unexpected conf type {0}")]
    UnknownType(u64),
    /// etcd's library knows no such transition.
    #[error("unexpected transition {0}")]
    UnknownTransition(u64),
    /// A normal entry holds no membership change.
    #[error("not a membership entry")]
    NotAChange,
}

/// The type and data of the entry that holds `change`. etcd's `MarshalConfChange`.
///
/// The data is always present; absent data stands only in the entry with which a leader leaves a
/// joint configuration by itself.
pub fn encode_conf_change(change: &AnyConfChange) -> (EntryType, Option<Bytes>) {
    match change {
        AnyConfChange::V1(change) => (EntryType::ConfChange, Some(encode_v1(change))),
        AnyConfChange::V2(change) => (EntryType::ConfChangeV2, Some(encode_v2(change))),
    }
}

/// The membership change in the data of an entry. Unknown fields are skipped, the last of several
/// values of a field counts, and no data at all is a change with nothing set.
///
/// # Errors
///
/// When the data is no encoding of a membership change, or the entry's type is another.
pub fn decode_conf_change(kind: EntryType, data: &[u8]) -> Result<AnyConfChange, ChangeWireError> {
    match kind {
        EntryType::Normal => Err(ChangeWireError::NotAChange),
        EntryType::ConfChange => decode_v1(data).map(AnyConfChange::V1),
        EntryType::ConfChangeV2 => decode_v2(data).map(AnyConfChange::V2),
    }
}

// ConfChange: 1 id, 2 type, 3 node_id (varints), 4 context (bytes).
fn encode_v1(change: &ConfChange) -> Bytes {
    let mut out = Vec::new();
    if change.id != 0 {
        put_varint_field(&mut out, 1, change.id);
    }
    put_varint_field(&mut out, 2, type_number(change.change_type));
    put_varint_field(&mut out, 3, change.node_id.0);
    if !change.context.is_empty() {
        put_bytes_field(&mut out, 4, &change.context);
    }
    out.into()
}

// ConfChangeV2: 1 transition (varint), 2 changes (messages), 3 context (bytes).
// ConfChangeSingle: 1 type, 2 node_id (varints).
fn encode_v2(change: &ConfChangeV2) -> Bytes {
    let mut out = Vec::new();
    if let Some(transition) = change.transition {
        put_varint_field(&mut out, 1, transition_number(transition));
    }
    for single in &change.changes {
        let mut inner = Vec::new();
        put_varint_field(&mut inner, 1, type_number(single.change_type));
        put_varint_field(&mut inner, 2, single.node_id.0);
        put_bytes_field(&mut out, 2, &inner);
    }
    if !change.context.is_empty() {
        put_bytes_field(&mut out, 3, &change.context);
    }
    out.into()
}

fn decode_v1(data: &[u8]) -> Result<ConfChange, ChangeWireError> {
    let mut change = ConfChange::default();
    let mut fields = Fields { rest: data };
    while let Some(field) = fields.next()? {
        match field.number {
            1 => change.id = field.varint()?,
            2 => change.change_type = change_type(field.varint()?)?,
            3 => change.node_id = NodeId(field.varint()?),
            4 => change.context = Bytes::copy_from_slice(field.bytes()?),
            _ => {}
        }
    }
    Ok(change)
}

fn decode_v2(data: &[u8]) -> Result<ConfChangeV2, ChangeWireError> {
    let mut change = ConfChangeV2::default();
    let mut fields = Fields { rest: data };
    while let Some(field) = fields.next()? {
        match field.number {
            1 => change.transition = Some(transition(field.varint()?)?),
            2 => change.changes.push(decode_single(field.bytes()?)?),
            3 => change.context = Bytes::copy_from_slice(field.bytes()?),
            _ => {}
        }
    }
    Ok(change)
}

fn decode_single(data: &[u8]) -> Result<ConfChangeSingle, ChangeWireError> {
    let mut single = ConfChangeSingle::default();
    let mut fields = Fields { rest: data };
    while let Some(field) = fields.next()? {
        match field.number {
            1 => single.change_type = change_type(field.varint()?)?,
            2 => single.node_id = NodeId(field.varint()?),
            _ => {}
        }
    }
    Ok(single)
}

fn type_number(change_type: ConfChangeType) -> u64 {
    match change_type {
        ConfChangeType::AddNode => 0,
        ConfChangeType::RemoveNode => 1,
        ConfChangeType::UpdateNode => 2,
        ConfChangeType::AddLearnerNode => 3,
    }
}

fn change_type(number: u64) -> Result<ConfChangeType, ChangeWireError> {
    match number {
        0 => Ok(ConfChangeType::AddNode),
        1 => Ok(ConfChangeType::RemoveNode),
        2 => Ok(ConfChangeType::UpdateNode),
        3 => Ok(ConfChangeType::AddLearnerNode),
        other => Err(ChangeWireError::UnknownType(other)),
    }
}

fn transition_number(transition: ConfChangeTransition) -> u64 {
    match transition {
        ConfChangeTransition::Auto => 0,
        ConfChangeTransition::JointImplicit => 1,
        ConfChangeTransition::JointExplicit => 2,
    }
}

fn transition(number: u64) -> Result<ConfChangeTransition, ChangeWireError> {
    match number {
        0 => Ok(ConfChangeTransition::Auto),
        1 => Ok(ConfChangeTransition::JointImplicit),
        2 => Ok(ConfChangeTransition::JointExplicit),
        other => Err(ChangeWireError::UnknownTransition(other)),
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_varint_field(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3 | VARINT);
    put_varint(out, value);
}

fn put_bytes_field(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    put_varint(out, number << 3 | BYTES);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The fields of one message, in the order they stand.
struct Fields<'a> {
    rest: &'a [u8],
}

/// One field; a fixed-width value is held as its bytes, since no known field has one.
struct Field<'a> {
    number: u64,
    wire_type: u64,
    varint: u64,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, ChangeWireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        if number == 0 {
            return Err(ChangeWireError::Malformed);
        }
        let mut field = Field { number, wire_type, varint: 0, bytes: &[] };
        match wire_type {
            VARINT => field.varint = self.varint()?,
            FIXED64 => field.bytes = self.take(8)?,
            FIXED32 => field.bytes = self.take(4)?,
            BYTES => {
                let length = self.varint()?;
                field.bytes = self.take(length)?;
            }
            _ => return Err(ChangeWireError::Malformed),
        }
        Ok(Some(field))
    }

    fn varint(&mut self) -> Result<u64, ChangeWireError> {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            // The tenth byte has room for one bit only.
            if place == 9 && byte > 1 {
                return Err(ChangeWireError::Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ChangeWireError::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ChangeWireError> {
        let length = usize::try_from(length).map_err(|_| ChangeWireError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ChangeWireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Field<'a> {
    fn varint(&self) -> Result<u64, ChangeWireError> {
        if self.wire_type == VARINT { Ok(self.varint) } else { Err(self.wrong_wire_type()) }
    }

    fn bytes(&self) -> Result<&'a [u8], ChangeWireError> {
        if self.wire_type == BYTES { Ok(self.bytes) } else { Err(self.wrong_wire_type()) }
    }

    fn wrong_wire_type(&self) -> ChangeWireError {
        ChangeWireError::WireType { field: self.number, wire_type: self.wire_type }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1(id: u64, change_type: ConfChangeType, node: u64, context: &'static str) -> AnyConfChange {
        let context = Bytes::from_static(context.as_bytes());
        AnyConfChange::V1(ConfChange { id, change_type, node_id: NodeId(node), context })
    }

    fn v2(transition: Option<ConfChangeTransition>, nodes: &[u64]) -> AnyConfChange {
        let single = |&node| ConfChangeSingle {
            change_type: ConfChangeType::AddNode,
            node_id: NodeId(node),
        };
        let changes = nodes.iter().map(single).collect();
        AnyConfChange::V2(ConfChangeV2 { transition, changes, context: Bytes::new() })
    }

    #[test]
    fn changes_are_written_as_etcd_writes_them_and_read_back() {
        let auto = Some(ConfChangeTransition::Auto);
        for (change, want) in [
            (v1(0, ConfChangeType::AddNode, 2, ""), &[0x10, 0, 0x18, 2][..]),
            (
                v1(7, ConfChangeType::AddLearnerNode, 2, "x"),
                &[0x08, 7, 0x10, 3, 0x18, 2, 0x22, 1, b'x'],
            ),
            (v2(auto, &[2]), &[0x08, 0, 0x12, 4, 0x08, 0, 0x10, 2]),
            (v2(None, &[2]), &[0x12, 4, 0x08, 0, 0x10, 2]),
            (v2(auto, &[]), &[0x08, 0]),
            (v2(None, &[]), &[]),
            (v2(None, &[300]), &[0x12, 5, 0x08, 0, 0x10, 0xac, 2]),
        ] {
            let (kind, data) = encode_conf_change(&change);
            let data = data.expect("always present");
            assert_eq!(&data[..], want, "{change:?}");
            assert_eq!(decode_conf_change(kind, &data), Ok(change));
        }
    }

    #[test]
    fn foreign_bytes_are_read_or_refused() {
        let unknown_fields = [0x10, 1, 0x18, 3, 0x78, 5, 0x51, 1, 2, 3, 4, 5, 6, 7, 8];
        let read = decode_conf_change(EntryType::ConfChange, &unknown_fields);
        assert_eq!(read, Ok(v1(0, ConfChangeType::RemoveNode, 3, "")));

        use ChangeWireError::*;
        for (data, want) in [
            (&[0x08][..], Truncated),
            (&[0x12, 9, 0], Truncated),
            (&[0x00, 1], Malformed),
            (&[0x0b], Malformed),
            (&[0x08, 3], UnknownTransition(3)),
            (&[0x12, 2, 0x08, 4], UnknownType(4)),
            (&[0x10, 1], WireType { field: 2, wire_type: 0 }),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], Malformed),
        ] {
            assert_eq!(decode_conf_change(EntryType::ConfChangeV2, data), Err(want), "{data:x?}");
        }
        assert_eq!(decode_conf_change(EntryType::Normal, &[]), Err(NotAChange));
    }

    #[test]
    fn a_change_is_simple_or_joint_and_some_leave() {
        use ConfChangeTransition::{Auto, JointExplicit, JointImplicit};
        for (transition, nodes, joint, leaves) in [
            (None, &[][..], None, true),
            (Some(Auto), &[], None, true),
            (None, &[1], None, false),
            (None, &[1, 2], Some(true), false),
            (Some(JointImplicit), &[], Some(true), false),
            (Some(JointImplicit), &[1], Some(true), false),
            (Some(JointExplicit), &[1], Some(false), false),
            (Some(JointExplicit), &[], Some(false), false),
        ] {
            let change = v2(transition, nodes).as_v2();
            assert_eq!(change.enter_joint(), joint, "{change:?}");
            assert_eq!(change.leave_joint(), leaves, "{change:?}");
        }
    }
}
