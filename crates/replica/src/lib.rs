//! One member of one group, as a pure state machine: events in, effects out.
//!
//! A [`Replica`] puts around the engine what every replicated service needs and what must be the
//! same in production and in the simulator: proposals with an outcome, linearizable reads, the
//! order "disk before word", the window of entries being applied, when state is flushed, when the
//! log is compacted, and how a lagging peer gets a snapshot.
//!
//! ```text
//!   Event ──► handle() ──► engine ──► ready() ──► Effects
//!     ▲                                              │ messages: send them now
//!     │                                              │ writes:   make them durable, in order
//!     └── Persisted, Applied, Flushed, ... ◄─────────┘ apply:    give them to the machine, in order
//! ```
//!
//! Nothing here reads a clock (time arrives as [`Event::Tick`]), touches a disk or a socket, or
//! draws from hidden chance: a run is a function of the configuration and the events.

mod config;
mod core;
mod engine;
mod envelope;
mod event;
mod feed;
mod message;
mod passed_on;
mod proposals;
mod raft;
mod reads;
mod replica;
mod snapshots;
mod start;
mod storage;
mod writing;
mod zab;

pub use config::{Config, ConfigError};
pub use engine::{Engine, HardState, UnknownEngine};
pub use envelope::{
    ENVELOPE_BYTES, EnvelopeError, RequestId, RequestIds, open, open_change, seal, seal_change,
};
pub use event::{
    Applying, Effects, Event, Fatal, Initial, Note, ReadFailure, ReadId, Refusal, Write, WriteId,
};
pub use feed::{Content, ContentError, FeedError, Place};
pub use message::{Asked, Message, MessageError, speaks_for};
pub use replica::{Glance, Reach, Replica, StartError, Status};
pub use start::{
    FIRST, Found, Start, first_conf_state, first_log, joining_conf_state, joining_log, snapshot_at,
    start,
};
pub use writing::{LogWrite, Step, Writing, Written};
pub use zab::packet::{Packet, PacketError};
