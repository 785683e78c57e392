//! State tracing: what a node did, event by event, for checking a run against a model of Raft.
//!
//! A node built by [`RawNode::new_traced`](crate::RawNode::new_traced) tells its [`TraceLogger`]
//! about every step that the model knows: messages queued and received, changes of role, what a
//! leader appends and commits, changes of membership. An event shows the node as it is at that
//! moment, so that all events of a run, in the order they happened, can be replayed against the
//! model. Pre-votes, proposals, reads, transfers and storage messages are not part of the model and
//! are not traced. A snapshot is traced as an append of everything up to it.
//!
//! Nothing depends on who listens. Without a logger a hook costs one comparison.
//!
//! ```text
//! {"name":"BecomeLeader","nid":"1","state":{"term":1,"vote":"1","commit":2},...}
//! ```
//!
//! Source: etcd's `state_trace.go`, whose JSON this is field for field. There it is compiled in by a
//! build tag, and delays each received message so that several processes can share a file; here one
//! logger can be given to many nodes, and sees their events in the order they happened.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use quorate_types::{EntryId, Index, NodeId, NodeSet};

use crate::core::Core;
use crate::{
    AnyConfChange, Body, ConfChangeType, HardState, MembershipConfig, Message, MessageType, Role,
    Storage,
};

/// Whether nodes can be traced. Always: etcd's `StateTraceDeployed` depends on how it was built.
pub const STATE_TRACE_DEPLOYED: bool = true;

/// Who is told what a node does.
///
/// It is called in the middle of the node's work: it should only take the event in. Given to several
/// nodes, it hears of all of them.
pub trait TraceLogger: fmt::Debug + Send + Sync {
    /// Something happened.
    fn trace_event(&self, event: &TracingEvent<'_>);
}

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingEvent<'a> {
    /// What.
    pub name: TracingEventName,
    /// On which node.
    pub node: NodeId,
    /// Term, vote and commit index at that moment.
    pub state: HardState,
    /// The node's role.
    pub role: Role,
    /// Last index of its log, stored or not.
    pub last_index: Index,
    /// The membership in force.
    pub config: &'a MembershipConfig,
    /// What was sent or received.
    pub message: Option<&'a Message>,
    /// How the membership changes.
    pub conf_change: Option<TracingConfChange>,
    /// When an append is sent: what the sender knows of itself, as matched and next index.
    pub progress: Option<(Index, Index)>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are etcd's; `TracingEventName::ALL` tells them apart")]
pub enum TracingEventName {
    InitState,
    BecomeCandidate,
    BecomeFollower,
    BecomeLeader,
    Commit,
    Replicate,
    ChangeConf,
    ApplyConfChange,
    Ready,
    SendAppendEntriesRequest,
    ReceiveAppendEntriesRequest,
    SendAppendEntriesResponse,
    ReceiveAppendEntriesResponse,
    SendRequestVoteRequest,
    ReceiveRequestVoteRequest,
    SendRequestVoteResponse,
    ReceiveRequestVoteResponse,
    SendSnapshot,
    ReceiveSnapshot,
}

impl TracingEventName {
    /// Every name that occurs. `SendSnapshot` and `ReceiveSnapshot` are reserved: a snapshot is
    /// reported as an append request.
    pub const ALL: [TracingEventName; 17] = [
        TracingEventName::InitState,
        TracingEventName::BecomeCandidate,
        TracingEventName::BecomeFollower,
        TracingEventName::BecomeLeader,
        TracingEventName::Commit,
        TracingEventName::Replicate,
        TracingEventName::ChangeConf,
        TracingEventName::ApplyConfChange,
        TracingEventName::Ready,
        TracingEventName::SendAppendEntriesRequest,
        TracingEventName::ReceiveAppendEntriesRequest,
        TracingEventName::SendAppendEntriesResponse,
        TracingEventName::ReceiveAppendEntriesResponse,
        TracingEventName::SendRequestVoteRequest,
        TracingEventName::ReceiveRequestVoteRequest,
        TracingEventName::SendRequestVoteResponse,
        TracingEventName::ReceiveRequestVoteResponse,
    ];

    /// What the sending of such a message is called, and its receipt; nothing if the model does not
    /// know it.
    fn of_message(kind: MessageType) -> Option<(Self, Self)> {
        use TracingEventName::*;
        match kind {
            MessageType::MsgApp | MessageType::MsgHeartbeat | MessageType::MsgSnap => {
                Some((SendAppendEntriesRequest, ReceiveAppendEntriesRequest))
            }
            MessageType::MsgAppResp | MessageType::MsgHeartbeatResp => {
                Some((SendAppendEntriesResponse, ReceiveAppendEntriesResponse))
            }
            MessageType::MsgVote => Some((SendRequestVoteRequest, ReceiveRequestVoteRequest)),
            MessageType::MsgVoteResp => Some((SendRequestVoteResponse, ReceiveRequestVoteResponse)),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgProp
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgPreVote
            | MessageType::MsgPreVoteResp
            | MessageType::MsgStorageAppend
            | MessageType::MsgStorageAppendResp
            | MessageType::MsgStorageApply
            | MessageType::MsgStorageApplyResp
            | MessageType::MsgForgetLeader => None,
        }
    }
}

impl Display for TracingEventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How the membership changes: what was proposed, or whom it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TracingConfChange {
    /// The single changes of a proposal; those that change nobody are left out.
    pub changes: Vec<(NodeId, TracingAction)>,
    /// The incoming voters of the next membership.
    pub new_conf: Vec<NodeId>,
}

/// What a single change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TracingAction {
    /// A voter joins. etcd's `ConfChangeAddNewServer`.
    AddNewServer,
    /// A member leaves. etcd's `ConfChangeRemoveServer`.
    RemoveServer,
    /// A learner joins. etcd's `ConfChangeAddLearner`.
    AddLearner,
}

impl Display for TracingAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl TracingEvent<'_> {
    /// The event as one JSON object, without spaces and without a line end.
    pub fn json(&self) -> String {
        let HardState { term, vote, commit } = self.state;
        let voters = &self.config.voters;
        let mut text = format!(
            r#"{{"name":"{}","nid":"{}","state":{{"term":{term},"vote":"{vote}","commit":{commit}}},"#,
            self.name, self.node,
        );
        add(
            &mut text,
            format_args!(
                r#""role":"{}","log":{},"conf":[{},{}]"#,
                self.role,
                self.last_index,
                ids(voters.incoming.0.as_slice()),
                ids(voters.outgoing.0.as_slice()),
            ),
        );
        if let Some(message) = self.message {
            add_message(&mut text, message);
        }
        if let Some(change) = &self.conf_change {
            add_conf_change(&mut text, change);
        }
        if let Some((matched, next)) = self.progress {
            add(&mut text, format_args!(r#","prop":{{"match":{matched},"next":{next}}}"#));
        }
        text.push('}');
        text
    }
}

/// The line that stands for `event` in a trace file: only lines with this tag count there.
pub fn trace_line(event: &TracingEvent<'_>) -> String {
    format!(r#"{{"tag":"trace","event":{}}}"#, event.json())
}

fn add_message(text: &mut String, message: &Message) {
    // What the fields of etcd's flat message hold; those a type does not have are zero.
    let (mut place, mut count, mut commit) = (EntryId::default(), 0, Index(0));
    let (mut reject, mut hint) = (false, Index(0));
    match &message.body {
        Body::Append { prev, entries, commit: up_to } => {
            (place, count, commit) = (*prev, entries.len() as u64, *up_to);
        }
        Body::Heartbeat { commit: up_to, .. } => commit = *up_to,
        Body::Snapshot { snapshot } => count = snapshot.metadata.index.0,
        Body::AppendReply { index } => place.index = *index,
        Body::AppendRefusal { index, hint: guess } => {
            place = EntryId { term: guess.term, index: *index };
            (reject, hint) = (true, guess.index);
        }
        Body::Vote { last, .. } | Body::PreVote { last, .. } => place = *last,
        Body::VoteReply { reject: refused } | Body::PreVoteReply { reject: refused } => {
            reject = *refused;
        }
        // Not traced.
        _ => {}
    }
    add(
        text,
        format_args!(
            r#","msg":{{"type":"{:?}","term":{},"from":"{}","to":"{}","entries":{count},"logTerm":{},"#,
            message.message_type(),
            message.term,
            message.from,
            message.to,
            place.term,
        ),
    );
    add(
        text,
        // Only storage messages carry a vote.
        format_args!(
            r#""index":{},"commit":{commit},"vote":"0","reject":{reject},"rejectHint":{hint}}}"#,
            place.index,
        ),
    );
}

fn add_conf_change(text: &mut String, change: &TracingConfChange) {
    let mut parts = Vec::new();
    if !change.changes.is_empty() {
        let single = |(id, action): &(NodeId, TracingAction)| {
            format!(r#"{{"nid":"{id}","action":"{action}"}}"#)
        };
        let singles: Vec<_> = change.changes.iter().map(single).collect();
        parts.push(format!(r#""changes":[{}]"#, singles.join(",")));
    }
    if !change.new_conf.is_empty() {
        parts.push(format!(r#""newconf":{}"#, ids(&change.new_conf)));
    }
    add(text, format_args!(r#","prop":{{"cc":{{{}}}}}"#, parts.join(",")));
}

fn ids(ids: &[NodeId]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", ids.join(","))
}

fn add(text: &mut String, part: fmt::Arguments<'_>) {
    text.write_fmt(part).expect("a string takes all text");
}

/// Who listens to one node, if anybody does.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    logger: Option<Arc<dyn TraceLogger>>,
    /// The node's role, which what all roles share does not know.
    pub(crate) role: Role,
}

impl Tracer {
    pub(crate) fn new(logger: Option<Arc<dyn TraceLogger>>) -> Self {
        Tracer { logger, role: Role::Follower }
    }

    /// Whether anybody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.logger.is_some()
    }
}

/// The hooks. Each is called where the model's step happens.
impl<S: Storage> Core<S> {
    /// Tells of something that is told by the node's state alone.
    pub(crate) fn trace(&self, name: TracingEventName) {
        self.trace_with(name, |event| event);
    }

    /// A message was queued.
    pub(crate) fn trace_sent(&self, message: &Message) {
        if self.tracer.logger.is_none() {
            return;
        }
        let Some(names) = TracingEventName::of_message(message.message_type()) else { return };
        self.trace_with(names.0, |event| {
            let own = match message.body {
                Body::Append { .. } => self.tracker.progress.get(message.from),
                _ => None,
            };
            let progress = own.map(|own| (own.matched, own.next));
            TracingEvent { message: Some(message), progress, ..event }
        });
    }

    /// A message arrived.
    pub(crate) fn trace_received(&self, message: &Message) {
        if self.tracer.logger.is_none() {
            return;
        }
        let Some(names) = TracingEventName::of_message(message.message_type()) else { return };
        self.trace_with(names.1, |event| TracingEvent { message: Some(message), ..event });
    }

    /// A leader takes in a membership change.
    pub(crate) fn trace_change(&self, change: &AnyConfChange) {
        if self.tracer.logger.is_none() {
            return;
        }
        let action = |change_type| match change_type {
            ConfChangeType::AddNode => Some(TracingAction::AddNewServer),
            ConfChangeType::RemoveNode => Some(TracingAction::RemoveServer),
            ConfChangeType::AddLearnerNode => Some(TracingAction::AddLearner),
            ConfChangeType::UpdateNode => None,
        };
        let changes: Vec<_> = change
            .as_v2()
            .changes
            .iter()
            .filter_map(|single| Some((single.node_id, action(single.change_type)?)))
            .collect();
        if !changes.is_empty() {
            let change = TracingConfChange { changes, new_conf: Vec::new() };
            let name = TracingEventName::ChangeConf;
            self.trace_with(name, |event| TracingEvent { conf_change: Some(change), ..event });
        }
    }

    /// Another membership, with these incoming voters, is about to be in force.
    pub(crate) fn trace_apply_change(&self, incoming: &NodeSet) {
        self.trace_with(TracingEventName::ApplyConfChange, |event| {
            let new_conf = incoming.as_slice().to_vec();
            let change = TracingConfChange { changes: Vec::new(), new_conf };
            TracingEvent { conf_change: Some(change), ..event }
        });
    }

    fn trace_with<'a>(
        &'a self,
        name: TracingEventName,
        complete: impl FnOnce(TracingEvent<'a>) -> TracingEvent<'a>,
    ) {
        let Some(logger) = &self.tracer.logger else { return };
        logger.trace_event(&complete(TracingEvent {
            name,
            node: self.id,
            state: self.hard_state(),
            role: self.tracer.role,
            last_index: self.log.last_index(),
            config: &self.tracker.config,
            message: None,
            conf_change: None,
            progress: None,
        }));
    }
}

#[cfg(test)]
mod tests;
