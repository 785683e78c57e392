//! Membership changes as bytes: what the data of a membership entry holds.
//!
//! Messages are encoded outside the engine, but a leader must read the changes it appends, so this
//! one piece of raftpb lives here. What is written is byte for byte what etcd's library writes for
//! the same value; what is read may come from any writer of that schema. The `codec` crate reads
//! and writes the same values for others, and a test there holds that the two agree.

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
    /// A varint longer than 64 bits, a field number that cannot be, a wire type that does not
    /// exist, or the end of a group that did not begin.
    #[error("membership change is not a protobuf message")]
    Malformed,
    /// Groups within groups.
    #[error("membership change is nested too deeply")]
    TooDeep,
    /// etcd's library knows no such change.
    #[error("unexpected conf type {0}")]
    UnknownType(i32),
    /// etcd's library knows no such transition.
    #[error("unexpected transition {0}")]
    UnknownTransition(i32),
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

/// The membership change in the data of an entry. Unknown fields, and known ones of another wire
/// type, are skipped, the last of several values of a field counts, and no data at all is a change
/// with nothing set.
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
    let mut fields = Fields { rest: data, depth: 0 };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => change.id = number,
            (2, Value::Number(number)) => change.change_type = change_type(number)?,
            (3, Value::Number(number)) => change.node_id = NodeId(number),
            (4, Value::Delimited(bytes)) => change.context = Bytes::copy_from_slice(bytes),
            _ => {}
        }
    }
    Ok(change)
}

fn decode_v2(data: &[u8]) -> Result<ConfChangeV2, ChangeWireError> {
    let mut change = ConfChangeV2::default();
    let mut fields = Fields { rest: data, depth: 0 };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => change.transition = Some(transition(number)?),
            (2, Value::Delimited(bytes)) => change.changes.push(decode_single(bytes)?),
            (3, Value::Delimited(bytes)) => change.context = Bytes::copy_from_slice(bytes),
            _ => {}
        }
    }
    Ok(change)
}

fn decode_single(data: &[u8]) -> Result<ConfChangeSingle, ChangeWireError> {
    let mut single = ConfChangeSingle::default();
    let mut fields = Fields { rest: data, depth: 1 };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => single.change_type = change_type(number)?,
            (2, Value::Number(number)) => single.node_id = NodeId(number),
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
    // Protobuf enums are 32 bits wide, and what is above is cut off.
    match number as i32 {
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
    match number as i32 {
        0 => Ok(ConfChangeTransition::Auto),
        1 => Ok(ConfChangeTransition::JointImplicit),
        2 => Ok(ConfChangeTransition::JointExplicit),
        other => Err(ChangeWireError::UnknownTransition(other)),
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const GROUP_BEGIN: u64 = 3;
const GROUP_END: u64 = 4;
const FIXED32: u64 = 5;

const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// Values within values, and groups within groups, that are followed before input is refused.
const NESTING_MAX: usize = 100;

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

/// What a field holds; values of other wire types are of no known field.
enum Value<'a> {
    Number(u64),
    Delimited(&'a [u8]),
    Other,
}

/// The fields of one message, in the order they stand.
struct Fields<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Fields<'a> {
    /// The next field's number and value, or nothing at the end.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, ChangeWireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            VARINT => Value::Number(self.varint()?),
            BYTES => Value::Delimited(self.delimited()?),
            GROUP_BEGIN => {
                self.skip_group(number)?;
                Value::Other
            }
            _ => {
                self.skip_plain(wire_type)?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u64, u64), ChangeWireError> {
        let tag = self.varint()?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        if number == 0 || FIELD_NUMBER_MAX < number {
            return Err(ChangeWireError::Malformed);
        }
        Ok((number, wire_type))
    }

    /// Steps over a field that is neither the start nor the end of a group.
    fn skip_plain(&mut self, wire_type: u64) -> Result<(), ChangeWireError> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            BYTES => self.delimited().map(drop),
            FIXED32 => self.take(4).map(drop),
            _ => Err(ChangeWireError::Malformed),
        }
    }

    /// Steps to the end of group `number`, whose start was just read.
    fn skip_group(&mut self, number: u64) -> Result<(), ChangeWireError> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            match self.tag()? {
                (_, GROUP_BEGIN) if self.depth + open.len() == NESTING_MAX => {
                    return Err(ChangeWireError::TooDeep);
                }
                (number, GROUP_BEGIN) => open.push(number),
                (number, GROUP_END) if number == innermost => {
                    open.pop();
                }
                (_, wire_type) => self.skip_plain(wire_type)?,
            }
        }
        Ok(())
    }

    fn delimited(&mut self) -> Result<&'a [u8], ChangeWireError> {
        let length = self.varint()?;
        self.take(length)
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
        // Numbers, a group with a group inside, a known field of another wire type, and an enum that
        // is wider than enums are.
        let others =
            [0x2b, 0x08, 1, 0x33, 0x34, 0x2c, 0x12, 1, 9, 0x10, 0x81, 0x80, 0x80, 0x80, 0x10];
        let last = [0x18, 3];
        for data in [&unknown_fields[..], &[&others[..], &last].concat()] {
            let read = decode_conf_change(EntryType::ConfChange, data);
            assert_eq!(read, Ok(v1(0, ConfChangeType::RemoveNode, 3, "")), "{data:x?}");
        }

        use ChangeWireError::*;
        for (data, want) in [
            (&[0x08][..], Truncated),
            (&[0x12, 9, 0], Truncated),
            (&[0x00, 1], Malformed),
            (&[0x0b], Truncated),
            (&[0x0c], Malformed),
            (&[0x0e], Malformed),
            (&[0x1b, 0x24], Malformed),
            (&[0x80, 0x80, 0x80, 0x80, 0x10, 0], Malformed),
            (&[0x1b; 101], TooDeep),
            (&[0x08, 3], UnknownTransition(3)),
            (&[0x12, 2, 0x08, 4], UnknownType(4)),
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
