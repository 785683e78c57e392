//! The etcd-compatible server process.
//!
//! ```text
//! config, urls, identity   what was asked for, whether it can work, and who this member is
//! serve                    a running server: what starts and stops in which order
//! http, grpc               the client port
//! calls, tally, figures    what happened, counted, under the names that dashboards know
//! deadline                 how long a client waits
//! unfinished, parts, patient  what requests hold that never end, and answers that nobody takes
//! convert, status          etcd's messages and words <-> the machine's types and errors
//! local, leadership, quota this member as the services see it
//! leases, watching         when leases end, and who is told what
//! line                     whose turn it is under a name: locks and elections
//! membership               which changes of the members may be made, and by whom
//! way                      the way to the leader, for what members pass on
//! autopilot                who sees to the members while no operator does
//! joining, peer_port       how a new member finds the cluster, and what it is told on the peer port
//! accept, authority        connections of clients, old ones included
//! open_files               how many connections there may be
//! ```
//! Nothing here decides about consensus or data: that is the runtime's and the machine's business.

mod accept;
mod authority;
mod autopilot;
mod boolean;
mod calls;
mod compaction;
pub mod config;
mod connection;
mod convert;
mod corruption;
mod deadline;
mod duration;
mod figures;
mod front;
mod grpc;
mod http;
pub mod identity;
mod in_words;
mod joining;
mod leadership;
mod leases;
mod line;
mod local;
mod long_commands;
mod membership;
mod open_files;
mod parts;
mod patient;
mod peer_port;
mod protocol;
mod quota;
mod reading;
mod serve;
pub mod snapshot;
mod status;
mod tally;
mod unfinished;
pub mod urls;
mod version;
mod watching;
mod way;

pub use autopilot::AutopilotConfig;
pub use boolean::parse_bool;
pub use duration::parse_duration;
pub use joining::JoinError;
pub use open_files::raise_open_files;
pub use quorate_kv::hush_panics_of_damage;
pub use quorate_runtime::Engine;
pub use serve::{ServeError, Server};
pub use version::{ETCD_VERSION, QUORATE_VERSION};
