//! Scripts that say what the Raft engine is to do, in the languages of etcd's own test files.
//!
//! ```text
//! campaign 1                        a command
//! ----
//! ok                                what it is to print
//! ```
//!
//! Three languages share one file format: whole clusters ([`run_raft`]), the arithmetic of quorums
//! ([`run_quorum`]) and changes of membership ([`run_confchange`]). Each runs a script from an empty
//! state and returns an [`Outcome`]: where it printed something else than it should, and the script
//! with what it did print, for a person to read and keep. A run depends on nothing but the text.
//! [`watch_raft`] also tells what the nodes noted and traced.
//!
//! The crate's README says which of its own scripts shows what.

mod cluster;
mod confchange;
mod file;
mod quorum;
mod run;

pub use cluster::{Watched, run_raft, watch_raft};
pub use confchange::run_confchange;
pub use file::{FileError, FileErrorReason, is_script_name};
pub use quorum::run_quorum;
pub use run::{Diff, Outcome};
