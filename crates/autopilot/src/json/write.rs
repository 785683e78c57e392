//! Writing states: three spaces an indent, members in the reference's order, keys of maps in byte order,
//! and the characters escaped that Go escapes. Nothing after the last brace.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::server::{Ext, Server, ServerHealth, ServerId, ServerState, ServerStats};
use crate::state::State;

/// A state as the reference writes it.
pub fn write_state(state: &State) -> String {
    let mut text = String::new();
    write(&mut text, 0, &shape_of_state(state));
    text
}

/// JSON with members in an order of our own.
enum Shape<'a> {
    Null,
    Bool(bool),
    Number(String),
    Text(&'a str),
    List(Vec<Shape<'a>>),
    Object(Vec<(&'a str, Shape<'a>)>),
}

fn shape_of_state(state: &State) -> Shape<'_> {
    let servers = state.servers.iter().map(|(id, server)| (id.as_str(), shape_of(server)));
    let leader = state.leader.as_ref().map(ServerId::as_str).unwrap_or_default();
    let voters = state.voters.iter().map(|id| Shape::Text(id.as_str()));
    Shape::Object(vec![
        ("Healthy", Shape::Bool(state.healthy)),
        ("FailureTolerance", Shape::Number(state.failure_tolerance.to_string())),
        ("Servers", Shape::Object(servers.collect())),
        ("Leader", Shape::Text(leader)),
        (
            "Voters",
            if state.voters.is_empty() { Shape::Null } else { Shape::List(voters.collect()) },
        ),
        ("Ext", shape_of_ext(state.ext.as_ref())),
    ])
}

fn shape_of(server: &ServerState) -> Shape<'_> {
    Shape::Object(vec![
        ("Server", shape_of_server(&server.server)),
        ("State", Shape::Text(server.state.as_str())),
        ("Stats", shape_of_stats(&server.stats)),
        ("Health", shape_of_health(&server.health)),
    ])
}

fn shape_of_server(server: &Server) -> Shape<'_> {
    Shape::Object(vec![
        ("ID", Shape::Text(server.id.as_str())),
        ("Name", Shape::Text(&server.name)),
        ("Address", Shape::Text(&server.address)),
        ("NodeStatus", Shape::Text(server.node_status.as_str())),
        ("Version", Shape::Text(&server.version)),
        ("Meta", shape_of_meta(server.meta.as_ref())),
        ("RaftVersion", Shape::Number(server.raft_version.to_string())),
        ("IsLeader", Shape::Bool(server.is_leader)),
        ("NodeType", Shape::Text(server.node_type.as_str())),
        ("Ext", shape_of_ext(server.ext.as_ref())),
    ])
}

fn shape_of_meta(meta: Option<&BTreeMap<String, String>>) -> Shape<'_> {
    meta.map_or(Shape::Null, |meta| {
        Shape::Object(meta.iter().map(|(key, value)| (key.as_str(), Shape::Text(value))).collect())
    })
}

fn shape_of_stats(stats: &ServerStats) -> Shape<'_> {
    Shape::Object(vec![
        ("LastContact", Shape::Number(stats.last_contact.0.to_string())),
        ("LastTerm", Shape::Number(stats.last_term.to_string())),
        ("LastIndex", Shape::Number(stats.last_index.to_string())),
    ])
}

fn shape_of_health(health: &ServerHealth) -> Shape<'_> {
    Shape::Object(vec![
        ("Healthy", Shape::Bool(health.healthy)),
        ("StableSince", Shape::Number(format!("\"{}\"", health.stable_since))),
    ])
}

fn shape_of_ext(ext: Option<&Ext>) -> Shape<'_> {
    ext.map_or(Shape::Null, shape_of_value)
}

fn shape_of_value(value: &Value) -> Shape<'_> {
    match value {
        Value::Null => Shape::Null,
        Value::Bool(truth) => Shape::Bool(*truth),
        Value::Number(number) => Shape::Number(number.to_string()),
        Value::String(text) => Shape::Text(text),
        Value::Array(list) => Shape::List(list.iter().map(shape_of_value).collect()),
        Value::Object(object) => {
            // Sorted here, for the JSON library may be built to keep the order it read.
            let members: BTreeMap<&str, &Value> =
                object.iter().map(|(key, value)| (key.as_str(), value)).collect();
            let members = members.into_iter().map(|(key, value)| (key, shape_of_value(value)));
            Shape::Object(members.collect())
        }
    }
}

fn write(text: &mut String, depth: usize, shape: &Shape<'_>) {
    match shape {
        Shape::Null => text.push_str("null"),
        Shape::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Shape::Number(number) => text.push_str(number),
        Shape::Text(string) => write_text(text, string),
        Shape::List(list) if list.is_empty() => text.push_str("[]"),
        Shape::Object(members) if members.is_empty() => text.push_str("{}"),
        Shape::List(list) => {
            text.push('[');
            for (number, shape) in list.iter().enumerate() {
                new_line(text, depth + 1, number);
                write(text, depth + 1, shape);
            }
            new_line(text, depth, 0);
            text.push(']');
        }
        Shape::Object(members) => {
            text.push('{');
            for (number, (key, shape)) in members.iter().enumerate() {
                new_line(text, depth + 1, number);
                write_text(text, key);
                text.push_str(": ");
                write(text, depth + 1, shape);
            }
            new_line(text, depth, 0);
            text.push('}');
        }
    }
}

fn new_line(text: &mut String, depth: usize, number: usize) {
    if 0 < number {
        text.push(',');
    }
    text.push('\n');
    text.extend(std::iter::repeat_n("   ", depth));
}

fn write_text(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            character => text.push(character),
        }
    }
    text.push('"');
}
