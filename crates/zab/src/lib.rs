//! The ZAB engine: one node of one ensemble, as a value that does no I/O.
//!
//! A [`Zab`] is given [`Event`]s (time, datagrams, connections and what comes on them, finished
//! writes) and asked for the work that follows from them ([`Ready`]). What it does is a function of
//! its [`Config`], its [`Storage`] and its events: no clock is read, no thread started, nothing drawn
//! but from the configured seed. It speaks the protocol of Couchbase's gometa, and keeps Zab's
//! promises where gometa does not; among nodes of ours alone it uses a few messages and fields more,
//! which gometa nodes neither need nor mind.
//!
//! # What happens
//!
//! ```text
//! looking ──► leading    election: the greatest vote wins (datagrams)
//!    │  ▲         │      discovery: a quorum promises to a new epoch
//!    │  └─────────┤      synchronization: a quorum holds the leader's history; it is committed
//!    ▼            ▼      broadcast: proposals, accepted by a quorum of disks, committed in order
//! following, observing   the same from the other side; an observer has no vote
//! ```
//!
//! Everything but votes travels on connections that keep the order and end visibly. A message that
//! vouches for a write stays inside the node until that write is durable, so a driver cannot send it
//! too early; everything else in a [`Ready`] may be done the moment it is seen.
//!
//! Messages from outside are doubted: the worst that one can do is end its own connection. What only
//! a bug, a damaged disk or a driver that breaks the contract can bring about is a [`Fatal`], after
//! which the node does nothing any more. A driver whose write failed drops the node.
//!
//! # The loop
//!
//! ```
//! use quorate_zab::{Command, Config, Event, Member, MemoryStorage, Outcome, Zab};
//!
//! let own = Member {
//!     id: 1.into(),
//!     election: "127.0.0.1:9998".into(),
//!     message: "127.0.0.1:9999".into(),
//! };
//! let storage = MemoryStorage::new(); // a real one is durable, and read through the same trait
//! let config = Config::new(own.clone(), vec![own]); // an ensemble of one
//! let mut node = Zab::new(config, storage.clone(), 0)?;
//!
//! let mut machine = Vec::new();
//! let mut outcomes = Vec::new();
//! let mut asked = None;
//! for now_ms in (0..1_000).step_by(50) {
//!     node.handle(Event::Tick { now_ms })?;
//!     while node.has_ready() {
//!         let ready = node.ready()?;
//!         // Datagrams, connections, messages: to the network, at once. Here there are no others.
//!         assert!(ready.datagrams.is_empty() && ready.messages.is_empty());
//!         if let Some(write) = ready.write {
//!             storage.write(&write)?; // by a thread, in real life
//!             node.handle(Event::Persisted(write.id))?;
//!         }
//!         for entry in ready.committed {
//!             machine.push(entry.command.content.clone());
//!             node.handle(Event::Applied(entry.index))?;
//!         }
//!         outcomes.extend(ready.answers);
//!     }
//!     if asked.is_none() && node.status().is_serving {
//!         asked = Some(node.propose(Command::set("x", "1"))?);
//!     }
//! }
//! assert_eq!(machine, ["1"]);
//! assert!(matches!(outcomes[..], [(id, Outcome::Committed { .. })] if Some(id) == asked));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod back_off;
mod barrier;
mod check;
mod config;
mod consent;
mod core;
mod election;
mod entry;
mod event;
mod following;
mod history;
mod leading;
mod learner;
mod looking;
mod message;
mod note;
mod observing;
mod quorum;
mod requests;
mod rng;
mod state;
mod status;
mod storage;
mod zab;
mod zxid;

pub use config::{Config, ConfigError, Member};
pub use entry::{Address, Command, Entry, Op, Snapshot};
pub use event::{
    ConnId, CustomRequest, Event, Fatal, HardState, Outcome, ProposalId, ProposeError, ReadFailure,
    ReadId, Ready, SoftState, Write, WriteId,
};
pub use leading::LeaderStage;
pub use learner::FollowerStage;
pub use message::{
    EpochAck, FID_BYTES_MAX, FollowerInfo, KEEP_ALIVE_FID, LeaderInfo, LogEntry, Message,
    MessageType, NO_CUSTOM_HANDLER, PeerStatus, Proposal, Request, STREAM_BEGIN_TEXT,
    STREAM_END_TEXT, Vote, caps,
};
pub use note::{CloseReason, DatagramFault, LeaveReason, Note, ResignReason, SyncPlan};
pub use quorum::{QuorumVerifier, Quorums};
pub use status::{Glance, LearnerStatus, Status};
pub use storage::{MemoryStorage, Storage, StorageError};
pub use zab::{Role, StartError, Stranger, Zab};
pub use zxid::{Epoch, Zxid};
