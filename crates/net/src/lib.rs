//! Frames, connections and snapshot streams between the nodes of one cluster.
//!
//! The crate carries opaque bytes and knows no engine. What it promises:
//!
//! * A message arrives whole and unchanged, or not at all. Between two nodes messages keep their
//!   order while a connection lasts; across connections they may be lost, and a late one may follow
//!   a newer one. A message from another cluster, meant for another node, or of a node that
//!   is known to have lost its log, or was removed, never arrives.
//! * Sending never blocks. Each peer has one bounded queue; a message that finds it full is refused.
//! * One slow, silent or hostile peer costs a bounded amount of memory and delays nobody else.
//! * Snapshots travel on connections of their own and end in success, failure or time-out.
//! * Every task has an owner, and [`Net::shutdown`] ends them all in bounded time.
//!
//! ```text
//!            this node                                     a peer
//!   send ─► queue ─► peer.rs     ══ messages, pings ══►    accept.rs ─► inbound.rs ─► events
//!   events ◄─ inbound.rs ◄─ accept.rs  ◄═ its messages ══  peer.rs (it dials its own connection)
//!   send_snapshot ─► snapshot/send.rs  ══ chunks ══►       accept.rs ─► snapshot/receive.rs ─► events
//! ```
//!
//! Not here: what a message means, whom to send it to, and what to do when it is lost.

mod accept;
mod backoff;
mod config;
mod dial;
mod event;
mod frame;
mod gate;
mod hello;
mod http;
mod inbound;
mod link;
mod lives;
mod net;
mod notes;
mod peer;
mod queue;
mod senders;
mod snapshot;

pub use config::{ConfigError, NetConfig};
pub use event::{NetEvent, Refusal, RefusedBy, SendError, SnapshotError};
pub use hello::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
pub use http::HttpConnection;
pub use net::{InboundStatus, Net, PeerStatus};
pub use snapshot::{IncomingSnapshot, SnapshotSource};

#[cfg(feature = "testing")]
pub mod testing;
