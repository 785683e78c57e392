//! What goes into a log and comes out of it.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use quorate_types::{GroupId, Index, Life, LogEntry, Mark, NodeId};

use crate::record::SECTOR;

const SECTOR_BYTES: u64 = SECTOR as u64;

/// Whose log it is. Stands in every segment, and every record is bound to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster the node is of.
    pub cluster: u64,
    /// The node.
    pub node: NodeId,
    /// The group whose replica on the node keeps this log.
    pub group: GroupId,
    /// Which of the logs that this replica may ever have had. The caller draws one for each log it
    /// creates, so that a log made anew can be told from the one that was lost.
    pub life: Life,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster, node, group, life } = self;
        write!(f, "cluster {cluster:x}, node {node:x}, group {group:x}, life {life:x}")
    }
}

/// How a log is kept. Nothing in it must stay the same from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the files are that the log is cut into; they are reserved whole and removed whole.
    /// At least 4 KiB; an append that needs more gets a longer file. 64 MiB by default.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: 64 << 20 }
    }
}

impl Options {
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.max(4096)
    }

    /// Room at a segment's end that appends leave, so that a log whose volume is full can still be
    /// compacted, and every segment sealed.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        (self.segment_bytes() / 8).clamp(2 * SECTOR_BYTES, 64 << 10).next_multiple_of(SECTOR_BYTES)
    }
}

/// What an engine wants to be durable, in one piece: after a crash all of it is there or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The engine's small record of its own, if it changed.
    pub hard_state: Option<Bytes>,
    /// From here on all entries go, whether or not others come in their place. It comes after
    /// `install` and before `entries`; behind the mark, and no further than the log reaches.
    pub cut_from: Option<Index>,
    /// Entries without a gap among them. The first may replace one that is in the log; all behind
    /// that one goes with it.
    pub entries: Vec<LogEntry>,
    /// A leader's snapshot was taken in, and stands for everything up to its mark. It comes before
    /// `entries`. What the log holds behind the mark stays if the log has the entry that the mark
    /// names, with the same stamp; else all of it goes. Syncs, whatever `must_sync` says.
    pub install: Option<Mark>,
    /// Whether `append` returns only when this is durable. If not, it becomes durable with the
    /// next write that must, or never.
    pub must_sync: bool,
}

impl Write {
    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none()
            && self.cut_from.is_none()
            && self.entries.is_empty()
            && self.install.is_none()
    }
}

/// What a log held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is. The caller checks that it is its own.
    pub identity: Identity,
    /// Where the log starts.
    pub mark: Mark,
    /// All entries behind the mark, without a gap.
    pub entries: Vec<LogEntry>,
    /// The hard state written last.
    pub hard_state: Option<Bytes>,
    /// What a crash had left of an unfinished write, and is cut off now.
    pub torn: Option<TornTail>,
    /// The mode bits of the directory, if others than its owner had rights to it. They have been
    /// taken away; an operator should hear of it.
    pub loosened: Option<u32>,
}

/// An unfinished write at the end of a log. It had been vouched for to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment's file.
    pub file: PathBuf,
    /// Where the whole records end, in bytes.
    pub offset: u64,
    /// How many bytes from there on were not zeros.
    pub bytes: u64,
}
