//! What stands in a history, and what stands for the part of it that is gone.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::Index;

use crate::Zxid;

/// The text of an address. It is how nodes are named on the wire: by the address of their election
/// port in votes, by that of their message port (gometa's `fid`) everywhere else. Addresses order
/// by their bytes, so that `127.0.0.1:9001` is greater than `127.0.0.1:10001`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

impl Address {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Address {
    fn default() -> Self {
        Address(Arc::from(""))
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Address(Arc::from(text))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a transaction does, as a number on the wire.
///
/// Source: gometa's `common.OpCode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op(pub u32);

impl Op {
    /// Nothing; never proposed.
    pub const INVALID: Op = Op(0);
    /// Puts a key.
    pub const ADD: Op = Op(1);
    /// Puts a key.
    pub const SET: Op = Op(2);
    /// Removes a key.
    pub const DELETE: Op = Op(3);
    /// Reads a key; gometa knows the number but cannot apply it, so it is never proposed.
    pub const GET: Op = Op(4);
    /// Opens a stream of entries to a learner.
    pub const STREAM_BEGIN: Op = Op(5);
    /// Ends a stream of entries to a learner.
    pub const STREAM_END: Op = Op(6);
    /// Is logged and announced, but changes no state.
    pub const BROADCAST: Op = Op(7);
    /// Everything above this is the application's own: it never enters the log.
    pub const CUSTOM: Op = Op(50);

    /// Whether it belongs to the application and bypasses the log.
    pub fn is_custom(self) -> bool {
        Op::CUSTOM < self
    }

    /// Whether applying an entry with it changes the state. All others are passed over.
    pub fn is_applied(self) -> bool {
        matches!(self, Op::ADD | Op::SET | Op::DELETE)
    }

    /// Whether it may become an entry.
    pub fn is_logged(self) -> bool {
        self.is_applied() || self == Op::BROADCAST
    }
}

/// The operation that gometa's client port knows by this name; `INVALID` for any other.
impl From<&str> for Op {
    fn from(name: &str) -> Self {
        match name {
            "Add" => Op::ADD,
            "Set" => Op::SET,
            "Delete" => Op::DELETE,
            "Get" => Op::GET,
            "StreamBegin" => Op::STREAM_BEGIN,
            "StreamEnd" => Op::STREAM_END,
            _ => Op::INVALID,
        }
    }
}

/// What a client wants done: an operation on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The operation.
    pub op: Op,
    /// The key.
    pub key: Arc<str>,
    /// The value, or whatever the operation carries.
    pub content: Bytes,
}

impl Command {
    /// Puts `content` under `key`.
    pub fn set(key: &str, content: impl Into<Bytes>) -> Self {
        Command { op: Op::SET, key: Arc::from(key), content: content.into() }
    }

    /// Bytes of key and content.
    pub fn bytes(&self) -> u64 {
        (self.key.len() + self.content.len()) as u64
    }
}

impl Default for Command {
    fn default() -> Self {
        Command { op: Op::INVALID, key: Arc::from(""), content: Bytes::new() }
    }
}

/// One transaction in a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the history; dense. Two nodes that both have its id have it at the same place.
    pub index: Index,
    /// Its id; strictly increasing along a history.
    pub zxid: Zxid,
    /// What it does.
    pub command: Command,
}

impl Entry {
    /// About what it takes in memory or on the wire.
    pub fn bytes(&self) -> u64 {
        self.command.bytes() + ENTRY_FIELDS_BYTES
    }
}

/// Id, operation and lengths of an entry; so that many empty ones still count.
const ENTRY_FIELDS_BYTES: u64 = 32;

/// Stands for a history up to and including one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The place of the last entry it covers.
    pub index: Index,
    /// The id of that entry.
    pub zxid: Zxid,
    /// The application's state, or whatever names it; opaque to the engine.
    pub data: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_by_name_and_by_what_becomes_of_them() {
        for (name, number, applied, logged, custom) in [
            ("", 0, false, false, false),
            ("Add", 1, true, true, false),
            ("Set", 2, true, true, false),
            ("Delete", 3, true, true, false),
            ("Get", 4, false, false, false),
            ("StreamBegin", 5, false, false, false),
            ("StreamEnd", 6, false, false, false),
        ] {
            let op = Op::from(name);
            assert_eq!(op, Op(number), "{name}");
            let is = (op.is_applied(), op.is_logged(), op.is_custom());
            assert_eq!(is, (applied, logged, custom), "{name}");
        }
        assert!(Op::BROADCAST.is_logged() && !Op::BROADCAST.is_applied());
        assert!(!Op(50).is_custom() && Op(51).is_custom());
        // gometa would take it for SET, because it looks at eight bits only.
        assert!(!Op(258).is_logged());
    }

    #[test]
    fn addresses_order_by_their_bytes() {
        assert!(Address::from("127.0.0.1:10001") < Address::from("127.0.0.1:9001"));
    }
}
