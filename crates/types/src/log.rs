//! A log as every engine and the durable log see it: dense, stamped, opaque.

use std::fmt;

use bytes::Bytes;

use crate::{Index, Term};

/// One place in a Raft log: which index, written in which term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader that appended it. Stands first, so that ids order as logs do.
    pub term: Term,
    /// Place in the log.
    pub index: Index,
}

impl EntryId {
    /// The id of the entry at `index`, of `term`.
    pub fn new(term: impl Into<Term>, index: impl Into<Index>) -> Self {
        EntryId { term: term.into(), index: index.into() }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// One entry as the durable log keeps it, whichever engine wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Place in the log; dense.
    pub index: Index,
    /// The engine's stamp: a Raft term, or a zxid. Never decreases along a log.
    pub stamp: u64,
    /// The engine's kind of entry, opaque to the log.
    pub kind: u8,
    /// What is in it.
    pub data: Bytes,
}

/// The place just before a log's first entry: a snapshot stands for everything up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The last index the snapshot covers.
    pub index: Index,
    /// The stamp of the entry at `index`.
    pub stamp: u64,
    /// What the engine keeps with it (the membership), opaque to the log.
    pub data: Bytes,
}
