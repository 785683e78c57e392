//! The cluster looks after its own membership: who is healthy, who is promoted to voter, who leads, and
//! which dead server is let go.
//!
//! Part of it is HashiCorp's raft-autopilot, under its names; the strict rules and the policies for
//! read replicas, zones and upgrades go beyond it.
//!
//! ```text
//! Inputs ─► State::next ─► State ─► Promoter ─► RaftChanges ─► plan_reconcile ─► [Action]
//!                            └───────────────────────────────► plan_prune ─────► [Action]
//! ```
//! These are functions of their arguments. [`Autopilot`] puts them to work over time, with a clock, a
//! consensus layer and an application that its surroundings bring along. Nothing here reads a clock,
//! starts a thread or opens a socket.
//!
//! ```
//! use quorate_autopilot::{
//!     Config, Inputs, Member, RaftConfiguration, Server, ServerStats, StablePromoter, State, Strictness,
//!     Suffrage, plan_reconcile, Promoter, NodeStatus, Time, Span,
//! };
//!
//! let now = Time::from_unix(1_600_000_000, 0);
//! let mut inputs = Inputs { now, first_state_time: now, is_leader: true, ..Inputs::default() };
//! (inputs.last_index, inputs.last_term) = (100.into(), 3.into());
//! inputs.leader = Some("a".into());
//! for (id, suffrage) in [("a", Suffrage::Voter), ("b", Suffrage::NonVoter)] {
//!     inputs.configuration.members.push(Member::new(suffrage, id, format!("{id}:2380")));
//!     let server = Server { id: id.into(), node_status: NodeStatus::Alive, ..Server::default() };
//!     inputs.known_servers.insert(id.into(), server);
//!     let stats = ServerStats { last_contact: Span::ZERO, last_term: 3.into(), last_index: 99.into() };
//!     inputs.fetched_stats.insert(id.into(), stats);
//! }
//! let (promoter, strictness) = (StablePromoter, Strictness::parity());
//! let state = State::next(&inputs, &promoter, &strictness);
//! assert!(state.healthy);
//!
//! let changes = promoter.calculate_promotions_and_demotions(now, &inputs.config, &state);
//! let round = plan_reconcile(now, &inputs.config, &state, &changes, &strictness, false)?;
//! assert_eq!(round.actions[0].to_string(), "add-voter b@b:2380");
//! # Ok::<(), quorate_autopilot::RoundError>(())
//! ```

mod action;
pub mod adapter;
mod autopilot;
mod config;
mod configuration;
mod errors;
mod interface;
mod json;
mod note;
mod order;
mod policy;
mod promoter;
mod prune;
mod reconcile;
mod server;
mod settings;
mod signal;
mod state;
mod strict;
mod time;

#[cfg(test)]
mod tests;

pub use action::Action;
pub use autopilot::{
    Autopilot, DEFAULT_RECONCILE_INTERVAL, DEFAULT_UPDATE_INTERVAL, ExecutionStatus, Options,
    Outlook,
};
pub use config::{Config, ConfigError};
pub use configuration::{
    Member, RaftConfiguration, Suffrage, UnsafeServerAddition, plan_add_server, plan_remove_server,
    quorum,
};
pub use errors::{AddServerError, OptionError, PruneError, ReconcileError, UpdateError};
pub use interface::{
    Answer, ApplicationIntegration, Host, Lack, Logger, Raft, RaftError, RaftRole, Silence,
    TimeProvider,
};
pub use json::{InputError, evaluate, read_inputs, write_state};
pub use note::Note;
pub use order::{server_less_than, sort_servers};
pub use policy::{
    PolicyConfig, PolicyMemory, PolicyPlan, PolicyPromoter, UpgradeStatus, is_older_version,
    is_version, plan,
};
pub use promoter::{FailedServers, Promoter, RaftChanges, StablePromoter, default_promoter};
pub use prune::{Prune, failed_servers, plan_prune};
pub use reconcile::{Round, RoundError, plan_reconcile};
pub use server::{
    Ext, NodeStatus, NodeType, RaftState, Server, ServerHealth, ServerId, ServerState, ServerStats,
};
pub use settings::{Settings, read_object};
pub use signal::Signal;
pub use state::{Inputs, State};
pub use strict::{Damping, FLIP_COUNT_MAX, Reason, Refusal, Strictness, Wanted};
pub use time::{NotASpan, NotATime, Span, Time};
