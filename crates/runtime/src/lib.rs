//! tokio, threads and files around a [`Replica`](quorate_replica::Replica): one running node.
//!
//! ```text
//!   Node (handle) ─ calls ─► drive.rs: the one loop ─► disk.rs:  one write and one sync a group
//!        ▲                        ▲    │     └───────► apply.rs: the machine, answers
//!        └──── answers ───────────┼────┴─────────────► net:      peers
//!                                 └─ persisted, applied, flushed, messages, ticks
//! ```
//! The loop carries and decides nothing about consensus; what could be wrong about consensus lives
//! in the pure crates below. No blocking file operation happens on the loop or on a tokio worker.

mod apply;
mod autopilot;
mod board;
mod changing;
mod clock;
mod disk;
mod drive;
mod following;
mod force;
mod machine;
mod maintenance;
mod metrics;
mod node;
mod notes;
mod part;
mod peers;
mod progress;
mod restore;
mod revisions;
mod room;
mod snapshot;
mod start;
mod waiters;

pub use autopilot::{TokioHost, TracingLogger};
pub use following::{FollowError, FollowFrom, Followed, Following, What};
pub use maintenance::MaintenanceError;
pub use metrics::{AppliedKinds, BUCKETS, Counter, Gauge, Histogram, Metrics, SLOW_APPLY};
pub use node::{Node, NodeConfig, NodeStatus, ProposeError, ReadError, Standing};
pub use part::Part;
pub use quorate_net::{HttpConnection, PeerStatus};
pub use quorate_replica::{Engine, FeedError, Place, ReadFailure, Refusal, UnknownEngine};
pub use restore::{RestoreConfig, restore_saved};
pub use snapshot::{SavedError, SavedPiece, SavedStatus, Saving, inspect_open, inspect_saved};
pub use start::{StartError, inspect};
