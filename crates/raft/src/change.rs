//! Membership changes as they are proposed and logged.

use std::fmt;
use std::num::IntErrorKind;

use bytes::Bytes;
use quorate_types::NodeId;

use crate::ConfState;

/// One alteration of the membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfChangeType {
    /// Adds a voter, or makes a learner one.
    #[default]
    AddNode,
    /// Removes a member.
    RemoveNode,
    /// Changes nothing; the context carries news about the member.
    UpdateNode,
    /// Adds a learner, or makes a voter one.
    AddLearnerNode,
}

/// etcd's constant names.
impl fmt::Display for ConfChangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConfChangeType::AddNode => "ConfChangeAddNode",
            ConfChangeType::RemoveNode => "ConfChangeRemoveNode",
            ConfChangeType::UpdateNode => "ConfChangeUpdateNode",
            ConfChangeType::AddLearnerNode => "ConfChangeAddLearnerNode",
        })
    }
}

/// How a change is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfChangeTransition {
    /// Simple if possible, else joint and left by itself.
    #[default]
    Auto,
    /// Joint, left by itself.
    JointImplicit,
    /// Joint, left when the application says so.
    JointExplicit,
}

/// etcd's constant names.
impl fmt::Display for ConfChangeTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConfChangeTransition::Auto => "ConfChangeTransitionAuto",
            ConfChangeTransition::JointImplicit => "ConfChangeTransitionJointImplicit",
            ConfChangeTransition::JointExplicit => "ConfChangeTransitionJointExplicit",
        })
    }
}

/// A change of one member, in etcd's first form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// The application's own number for it.
    pub id: u64,
    /// What to do.
    pub change_type: ConfChangeType,
    /// To whom.
    pub node_id: NodeId,
    /// The application's own bytes about it.
    pub context: Bytes,
}

/// One step of a [`ConfChangeV2`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeSingle {
    /// What to do.
    pub change_type: ConfChangeType,
    /// To whom.
    pub node_id: NodeId,
}

impl ConfChangeSingle {
    /// This step for this node.
    pub fn new(change_type: ConfChangeType, node_id: impl Into<NodeId>) -> Self {
        ConfChangeSingle { change_type, node_id: node_id.into() }
    }
}

/// A letter for what to do and the id, decimal: `v1` add a voter, `l1` add a learner, `r1` remove,
/// `u1` update.
impl fmt::Display for ConfChangeSingle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.change_type {
            ConfChangeType::AddNode => 'v',
            ConfChangeType::AddLearnerNode => 'l',
            ConfChangeType::RemoveNode => 'r',
            ConfChangeType::UpdateNode => 'u',
        };
        write!(f, "{letter}{}", self.node_id)
    }
}

/// A change of any number of members, in etcd's second form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeV2 {
    /// How; absent on the wire means [`ConfChangeTransition::Auto`].
    pub transition: Option<ConfChangeTransition>,
    /// What; nothing together with the automatic transition means "leave the joint configuration".
    pub changes: Vec<ConfChangeSingle>,
    /// The application's own bytes about it.
    pub context: Bytes,
}

/// Either form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyConfChange {
    /// The first form.
    V1(ConfChange),
    /// The second form.
    V2(ConfChangeV2),
}

impl From<ConfChange> for AnyConfChange {
    fn from(change: ConfChange) -> Self {
        AnyConfChange::V1(change)
    }
}

impl From<ConfChangeV2> for AnyConfChange {
    fn from(change: ConfChangeV2) -> Self {
        AnyConfChange::V2(change)
    }
}

impl AnyConfChange {
    /// The first form, if it is that.
    pub fn as_v1(&self) -> Option<&ConfChange> {
        match self {
            AnyConfChange::V1(change) => Some(change),
            AnyConfChange::V2(_) => None,
        }
    }

    /// The second form: a change of the first form becomes a single step with the same context,
    /// and no transition.
    pub fn as_v2(&self) -> ConfChangeV2 {
        match self {
            AnyConfChange::V1(change) => ConfChangeV2 {
                transition: None,
                changes: vec![ConfChangeSingle {
                    change_type: change.change_type,
                    node_id: change.node_id,
                }],
                context: change.context.clone(),
            },
            AnyConfChange::V2(change) => change.clone(),
        }
    }

    /// Whether it changes nobody: outside a joint change it means nothing, inside one it asks to
    /// leave.
    pub fn is_empty(&self) -> bool {
        match self {
            AnyConfChange::V1(_) => false,
            AnyConfChange::V2(change) => change.changes.is_empty(),
        }
    }
}

impl ConfChangeV2 {
    /// Whether it goes through a joint configuration, and if so, whether that is left without
    /// being asked. etcd's `EnterJoint`.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.transition.unwrap_or_default() {
            // More than one change at once is not safe without one.
            ConfChangeTransition::Auto => (self.changes.len() > 1).then_some(true),
            ConfChangeTransition::JointImplicit => Some(true),
            ConfChangeTransition::JointExplicit => Some(false),
        }
    }

    /// Whether it leaves a joint configuration. etcd's `LeaveJoint`.
    pub fn leave_joint(&self) -> bool {
        self.changes.is_empty() && self.transition.unwrap_or_default() == ConfChangeTransition::Auto
    }
}

/// What came of a committed membership change. See
/// [`RawNode::apply_conf_change_at`](crate::RawNode::apply_conf_change_at).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppliedChange {
    /// It is carried out; this membership is in force now, and belongs into the next snapshot.
    Changed(ConfState),
    /// It is not: a received snapshot covers it, whose membership this is. It is that of a later
    /// place in the log, so it does not belong into a snapshot at this one.
    Overtaken(ConfState),
}

impl AppliedChange {
    /// The membership in force, either way.
    pub fn into_conf_state(self) -> ConfState {
        match self {
            AppliedChange::Changed(conf_state) | AppliedChange::Overtaken(conf_state) => conf_state,
        }
    }
}

/// Why a text names no membership changes. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseChangesError {
    /// A token without a letter and an id.
    #[error("unknown token {0}")]
    TooShort(String),
    /// A letter that stands for nothing.
    #[error("unknown input: {0}")]
    UnknownLetter(String),
    /// An id that is no decimal number.
    #[error("strconv.ParseUint: parsing \"{0}\": invalid syntax")]
    NotANumber(String),
    /// An id beyond 64 bits.
    #[error("strconv.ParseUint: parsing \"{0}\": value out of range")]
    TooLarge(String),
}

/// Reads changes as [`conf_changes_to_string`] writes them; surrounding space is ignored.
///
/// # Errors
///
/// When a token is not of the form `v1`, `l1`, `r1` or `u1`.
///
/// Source: etcd's `ConfChangesFromString`.
pub fn conf_changes_from_string(text: &str) -> Result<Vec<ConfChangeSingle>, ParseChangesError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    // At every single space: two of them enclose an empty token, which is an error.
    text.split(' ').map(parse_change).collect()
}

/// `v1 l2 r3 u4`; nothing for no changes.
///
/// Source: etcd's `ConfChangesToString`.
pub fn conf_changes_to_string(changes: &[ConfChangeSingle]) -> String {
    join(changes.iter().map(ToString::to_string))
}

/// `ConfChangeAddNode(1) ConfChangeRemoveNode(2)`; nothing for no changes.
///
/// Source: etcd's `confchange.Describe`.
pub fn describe_conf_changes(changes: &[ConfChangeSingle]) -> String {
    join(changes.iter().map(|change| format!("{}({})", change.change_type, change.node_id)))
}

fn parse_change(token: &str) -> Result<ConfChangeSingle, ParseChangesError> {
    if token.len() < 2 {
        return Err(ParseChangesError::TooShort(token.to_owned()));
    }
    let change_type = match token.as_bytes()[0] {
        b'v' => ConfChangeType::AddNode,
        b'l' => ConfChangeType::AddLearnerNode,
        b'r' => ConfChangeType::RemoveNode,
        b'u' => ConfChangeType::UpdateNode,
        _ => return Err(ParseChangesError::UnknownLetter(token.to_owned())),
    };
    let number = &token[1..];
    // Rust's own parser takes a leading plus, etcd's does not.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseChangesError::NotANumber(number.to_owned()));
    }
    match number.parse::<u64>() {
        Ok(id) => Ok(ConfChangeSingle::new(change_type, id)),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(ParseChangesError::TooLarge(number.to_owned()))
        }
        Err(_) => Err(ParseChangesError::NotANumber(number.to_owned())),
    }
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
