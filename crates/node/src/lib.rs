//! One Raft node that many tasks may use at once: etcd's `Node`.
//!
//! The engine ([`quorate_raft::RawNode`]) is a value with one owner. Here that owner is a task, and
//! a [`Node`] is a handle to it that can be cloned and called from everywhere. Storage, network
//! and state machine stay with the embedder, who takes one [`Ready`](quorate_raft::Ready) after the
//! other and does what it says:
//!
//! ```
//! use std::time::Duration;
//!
//! use quorate_node::Node;
//! use quorate_raft::{Config, EntryType, MemoryStorage, Message, Peer, decode_conf_change};
//! use tokio::time::MissedTickBehavior;
//!
//! fn send(_message: Message) { /* to the node it is addressed to */ }
//! fn apply(_command: &[u8]) { /* to the state machine */ }
//!
//! /// The loop of every embedder. Ends when the node does.
//! async fn drive(node: Node, log: MemoryStorage) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut clock = tokio::time::interval(Duration::from_millis(10));
//!     clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
//!     loop {
//!         let ready = tokio::select! {
//!             ready = node.ready() => match ready {
//!                 Ok(ready) => ready,
//!                 Err(_) => return Ok(()), // stopped
//!             },
//!             _ = clock.tick() => {
//!                 node.tick();
//!                 continue;
//!             }
//!         };
//!         // 1. Durably: the snapshot, the entries, the hard state.
//!         if let Some(snapshot) = &ready.snapshot {
//!             log.apply_snapshot(snapshot.clone())?;
//!         }
//!         log.append(&ready.entries)?;
//!         if let Some(hard_state) = ready.hard_state {
//!             log.set_hard_state(hard_state);
//!         }
//!         // 2. Only then: what vouches for it.
//!         ready.messages.into_iter().for_each(send);
//!         // 3. To the state machine, in order.
//!         for entry in ready.committed_entries {
//!             match entry.entry_type() {
//!                 EntryType::Normal => apply(entry.payload()),
//!                 kind => {
//!                     let change = decode_conf_change(kind, entry.payload())?;
//!                     node.apply_conf_change_at(entry.index, change).await?;
//!                 }
//!             }
//!         }
//!         // 4. Done: the next one may come.
//!         node.advance().await;
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = MemoryStorage::new();
//! let node = Node::start(Config::new(1.into()), log.clone(), &[Peer::new(1)])?;
//! let driver = tokio::spawn({
//!     let node = node.clone();
//!     async move { drive(node, log).await.map_err(|error| error.to_string()) }
//! });
//!
//! // Waits for a leader first; committed means that no majority will forget it.
//! let at = node.propose_and_wait("x = 1").await?;
//! let read = node.read().await?; // a state machine that applied this index may answer a read
//! assert!(at.index <= read);
//!
//! node.stop().await;
//! driver.await??;
//! # Ok(())
//! # }
//! ```
//!
//! With [`Config::async_storage_writes`](quorate_raft::Config::async_storage_writes) only the
//! messages of a Ready are acted on: those to the two storage threads carry the work, their
//! responses are sent on or [stepped](Node::step) when it is done, and [`Node::advance`] is not
//! called. The example program `replicated_kv` is a whole service around a node: a durable log, a
//! network, snapshots, membership changes.
//!
//! # What is bounded
//!
//! Everything: see [`Limits`]. A call that finds a queue full waits; one that finds a table of
//! waiting answers full is told so. A future that is dropped, by a timeout or otherwise, takes back
//! what it asked for unless the node had taken it in by then.
//!
//! # What ends
//!
//! [`Node::stop`], or the last handle's end, ends the task, and every call that waits is answered.
//! So does a [`Fatal`](quorate_raft::Fatal): every later call returns it.
//!
//! ```text
//! node      the handle        task     the loop that owns the engine
//! outcomes  what became of proposals   reads  what became of reads
//! ```

mod error;
mod limits;
mod node;
mod outcomes;
mod reads;
mod task;

pub use error::{ProposalError, ReadError};
pub use limits::Limits;
pub use node::Node;
pub use task::NodeTask;
