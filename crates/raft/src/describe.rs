//! What the engine deals in, as text for people. Scripts compare these texts, so they are etcd's to
//! the character.
//!
//! Ids in messages are hexadecimal, with names for "no node" and the storage threads; everywhere
//! else they are decimal. What an application puts into its entries is shown by an
//! [`EntryFormatter`], or quoted without one.

use std::fmt::{Display, Write};

use quorate_types::{EntryId, Index, NodeId};

use crate::change_wire::decode_conf_change;
use crate::{
    BasicStatus, Body, ConfChangeV2, ConfState, Entry, EntryType, HardState, LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD, Message, Progress, ReadState, Ready, Snapshot, SoftState, Status,
    conf_changes_to_string,
};

/// Shows the data of a normal entry. An empty text shows nothing at all.
pub type EntryFormatter<'a> = &'a dyn Fn(&[u8]) -> String;

/// `TERM/INDEX TYPE DATA`. The data of a membership entry is shown as the changes it makes
/// (`v1 l2 r3 u4`), or as the reason why it cannot be read.
pub fn describe_entry(entry: &Entry, formatter: Option<EntryFormatter<'_>>) -> String {
    let data = match (entry.entry_type(), formatter) {
        (EntryType::Normal, Some(formatter)) => formatter(entry.payload()),
        (EntryType::Normal, None) => quote(entry.payload()),
        (kind, _) => match decode_conf_change(kind, entry.payload()) {
            Ok(change) => conf_changes_to_string(&change.as_v2().changes),
            Err(error) => error.to_string(),
        },
    };
    let kind = match entry.entry_type() {
        EntryType::Normal => "EntryNormal",
        EntryType::ConfChange => "EntryConfChange",
        EntryType::ConfChangeV2 => "EntryConfChangeV2",
    };
    let mut text = format!("{}/{} {kind}", entry.term, entry.index);
    if !data.is_empty() {
        add(&mut text, format_args!(" {data}"));
    }
    text
}

/// One entry a line, the last line ended too.
pub fn describe_entries(entries: &[Entry], formatter: Option<EntryFormatter<'_>>) -> String {
    entries.iter().map(|entry| describe_entry(entry, formatter) + "\n").collect()
}

/// The message on one line, or on several if it carries more than one entry, a snapshot or
/// responses; the last line is not ended. A context is not shown.
pub fn describe_message(message: &Message, formatter: Option<EntryFormatter<'_>>) -> String {
    let mut text = String::new();
    add_message(&mut text, "", message, formatter);
    text
}

/// `Term:T Vote:V Commit:C`, without the vote when there is none.
pub fn describe_hard_state(hard_state: &HardState) -> String {
    let mut text = format!("Term:{}", hard_state.term);
    if let Some(vote) = hard_state.vote.known() {
        add(&mut text, format_args!(" Vote:{vote}"));
    }
    add(&mut text, format_args!(" Commit:{}", hard_state.commit));
    text
}

/// `Lead:L State:ROLE`.
pub fn describe_soft_state(soft_state: &SoftState) -> String {
    format!("Lead:{} State:{}", soft_state.lead, soft_state.role)
}

/// Each list in its own order, and whether a joint change is left without being asked.
pub fn describe_conf_state(conf_state: &ConfState) -> String {
    format!(
        "Voters:{} VotersOutgoing:{} Learners:{} LearnersNext:{} AutoLeave:{}",
        list(&conf_state.voters),
        list(&conf_state.voters_outgoing),
        list(&conf_state.learners),
        list(&conf_state.learners_next),
        conf_state.auto_leave,
    )
}

/// `Index:I Term:T ConfState:` and the membership. The data is not shown.
pub fn describe_snapshot(snapshot: &Snapshot) -> String {
    let metadata = &snapshot.metadata;
    let conf_state = describe_conf_state(&metadata.conf_state);
    format!("Index:{} Term:{} ConfState:{conf_state}", metadata.index, metadata.term)
}

/// Everything the Ready holds, a line for each thing, the last line ended too; or
/// `<empty Ready>`, on a line that is not ended.
pub fn describe_ready(ready: &Ready, formatter: Option<EntryFormatter<'_>>) -> String {
    let mut text = String::new();
    if let Some(soft_state) = &ready.soft_state {
        add(&mut text, format_args!("{}\n", describe_soft_state(soft_state)));
    }
    if let Some(hard_state) = ready.hard_state.as_ref().filter(|state| !state.is_empty()) {
        add(&mut text, format_args!("HardState {}\n", describe_hard_state(hard_state)));
    }
    if !ready.read_states.is_empty() {
        let states: Vec<_> = ready.read_states.iter().map(read_state).collect();
        add(&mut text, format_args!("ReadStates {}\n", list(&states)));
    }
    if !ready.entries.is_empty() {
        text.push_str("Entries:\n");
        text.push_str(&describe_entries(&ready.entries, formatter));
    }
    if let Some(snapshot) = ready.snapshot.as_ref().filter(|snapshot| !snapshot.is_empty()) {
        add(&mut text, format_args!("Snapshot {}\n", describe_snapshot(snapshot)));
    }
    if !ready.committed_entries.is_empty() {
        text.push_str("CommittedEntries:\n");
        text.push_str(&describe_entries(&ready.committed_entries, formatter));
    }
    if !ready.messages.is_empty() {
        text.push_str("Messages:\n");
        for message in &ready.messages {
            add_message(&mut text, "", message, formatter);
            text.push('\n');
        }
    }
    if text.is_empty() {
        return "<empty Ready>".to_owned();
    }
    format!("Ready MustSync={}:\n{text}", ready.must_sync)
}

/// `transition:NAME changes:{type:NAME node_id:N} context:"…"`, with as many changes as there are,
/// and without an empty context.
pub fn describe_conf_change(change: &ConfChangeV2) -> String {
    let mut text = format!("transition:{}", change.transition.unwrap_or_default());
    for single in &change.changes {
        let (kind, node) = (single.change_type, single.node_id);
        add(&mut text, format_args!(" changes:{{type:{kind} node_id:{node}}}"));
    }
    if !change.context.is_empty() {
        add(&mut text, format_args!(" context:{}", quote(&change.context)));
    }
    text
}

/// The status as one JSON object without spaces. Ids are strings, in hexadecimal; the progress is
/// empty unless the node leads. etcd's `Status.MarshalJSON`, but with the peers in order.
pub fn status_json(status: &Status) -> String {
    let BasicStatus { id, hard_state, soft_state, applied, lead_transferee } = status.basic;
    let mut text = format!(
        r#"{{"id":"{id:x}","term":{},"vote":"{:x}","commit":{},"lead":"{:x}","raftState":"{}","#,
        hard_state.term, hard_state.vote, hard_state.commit, soft_state.lead, soft_state.role,
    );
    add(&mut text, format_args!(r#""applied":{applied},"progress":{{"#));
    for (place, (id, progress)) in status.progress.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let Progress { matched, next, state, .. } = progress;
        add(
            &mut text,
            format_args!(
                r#"{comma}"{id:x}":{{"match":{matched},"next":{next},"state":"{state}"}}"#
            ),
        );
    }
    add(&mut text, format_args!(r#"}},"leadtransferee":"{lead_transferee:x}"}}"#));
    text
}

/// Bytes in double quotes. Text that can be printed stands as it is; all else is escaped, byte by
/// byte where it is no text. Go's `%q`.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            add_quoted(&mut text, char);
        }
        for byte in chunk.invalid() {
            add(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

/// What of a message is shown besides its envelope; zero and empty where its type has no such
/// field.
#[derive(Default)]
struct Shown<'a> {
    place: EntryId,
    refused: Option<Index>,
    commit: Index,
    vote: NodeId,
    entries: &'a [Entry],
    snapshot: Option<&'a Snapshot>,
    responses: &'a [Message],
}

impl<'a> Shown<'a> {
    fn of(body: &'a Body) -> Self {
        let nothing = Shown::default();
        let at = |index: Index| EntryId { index, ..EntryId::default() };
        let refusal = |reject: bool| reject.then_some(Index(0));
        match body {
            Body::Propose { entries } | Body::ReadIndex { entries } => Shown { entries, ..nothing },
            Body::StorageApplyReply { entries } => Shown { entries, ..nothing },
            Body::Append { prev, entries, commit } => {
                Shown { place: *prev, entries, commit: *commit, ..nothing }
            }
            Body::AppendReply { index } => Shown { place: at(*index), ..nothing },
            Body::AppendRefusal { index, hint } => Shown {
                place: EntryId { term: hint.term, index: *index },
                refused: Some(hint.index),
                ..nothing
            },
            Body::Vote { last, .. } | Body::PreVote { last, .. } => {
                Shown { place: *last, ..nothing }
            }
            Body::VoteReply { reject }
            | Body::PreVoteReply { reject }
            | Body::SnapshotStatus { reject } => Shown { refused: refusal(*reject), ..nothing },
            Body::Snapshot { snapshot } => Shown { snapshot: Some(snapshot), ..nothing },
            Body::Heartbeat { commit, .. } => Shown { commit: *commit, ..nothing },
            Body::ReadIndexReply { index, entries } => {
                Shown { place: at(*index), entries, ..nothing }
            }
            Body::StorageAppend { hard_state, entries, snapshot, responses } => {
                let HardState { vote, commit, .. } = hard_state.unwrap_or_default();
                let snapshot = snapshot.as_deref();
                Shown { commit, vote, entries, snapshot, responses, ..nothing }
            }
            Body::StorageAppendReply { stable, snapshot } => Shown {
                place: stable.unwrap_or_default(),
                snapshot: snapshot.as_deref(),
                ..nothing
            },
            Body::StorageApply { entries, responses } => Shown { entries, responses, ..nothing },
            Body::HeartbeatReply { .. }
            | Body::Hup
            | Body::Beat
            | Body::Unreachable
            | Body::CheckQuorum
            | Body::TransferLeader
            | Body::TimeoutNow
            | Body::ForgetLeader => nothing,
        }
    }
}

fn add_message(
    text: &mut String,
    indent: &str,
    message: &Message,
    formatter: Option<EntryFormatter<'_>>,
) {
    let shown = Shown::of(&message.body);
    let deeper = format!("{indent}  ");
    add(
        text,
        format_args!(
            "{indent}{}->{} {:?} Term:{} Log:{}/{}",
            target(message.from),
            target(message.to),
            message.message_type(),
            message.term,
            shown.place.term,
            shown.place.index,
        ),
    );
    if let Some(hint) = shown.refused {
        add(text, format_args!(" Rejected (Hint: {hint})"));
    }
    if shown.commit != Index(0) {
        add(text, format_args!(" Commit:{}", shown.commit));
    }
    if let Some(vote) = shown.vote.known() {
        add(text, format_args!(" Vote:{vote}"));
    }
    match shown.entries {
        [] => {}
        [entry] => add(text, format_args!(" Entries:[{}]", describe_entry(entry, formatter))),
        entries => {
            text.push_str(" Entries:[");
            for entry in entries {
                add(text, format_args!("\n{deeper}{}", describe_entry(entry, formatter)));
            }
            add(text, format_args!("\n{indent}]"));
        }
    }
    if let Some(snapshot) = shown.snapshot.filter(|snapshot| !snapshot.is_empty()) {
        add(text, format_args!("\n{deeper}Snapshot: {}", describe_snapshot(snapshot)));
    }
    if !shown.responses.is_empty() {
        text.push_str(" Responses:[");
        for response in shown.responses {
            text.push('\n');
            add_message(text, &deeper, response, formatter);
        }
        add(text, format_args!("\n{indent}]"));
    }
}

/// An id as messages show it.
fn target(id: NodeId) -> String {
    match id {
        NodeId::NONE => "None".to_owned(),
        LOCAL_APPEND_THREAD => "AppendThread".to_owned(),
        LOCAL_APPLY_THREAD => "ApplyThread".to_owned(),
        id => format!("{id:x}"),
    }
}

fn read_state(state: &ReadState) -> String {
    format!("{{{} {}}}", state.index, list(&state.request_ctx))
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(" "))
}

fn add_quoted(text: &mut String, char: char) {
    match char {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        ' '..='~' => text.push(char),
        '\0'..='\x7f' => add(text, format_args!("\\x{:02x}", u32::from(char))),
        _ if is_printable(char) => text.push(char),
        '\0'..='\u{ffff}' => add(text, format_args!("\\u{:04x}", u32::from(char))),
        _ => add(text, format_args!("\\U{:08x}", u32::from(char))),
    }
}

/// Whether a character beyond ASCII is a letter, mark, number, punctuation or symbol.
fn is_printable(char: char) -> bool {
    // The standard library knows, but tells only by not escaping it. At the start of a text it also
    // escapes marks, so the character stands second.
    let mut bytes = [b'x', 0, 0, 0, 0];
    let length = 1 + char.encode_utf8(&mut bytes[1..]).len();
    let text = str::from_utf8(&bytes[..length]).unwrap_or_default();
    text.escape_debug().nth(1) == Some(char)
}

fn add(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("a string takes all text");
}

#[cfg(test)]
mod tests;
