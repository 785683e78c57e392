//! The words of the project: ids, places in a log, entries, and quorum arithmetic.
//!
//! Everything here is a value: nothing reads a clock, a file or a socket.

pub mod bugs;
mod ids;
mod log;
pub mod quorum;

pub use ids::{GroupId, Index, Life, NodeId, Revision, Term};
pub use log::{EntryId, LogEntry, Mark};
pub use quorum::NodeSet;
