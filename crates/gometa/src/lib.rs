//! Servers on the ZAB engine, in the shape of Couchbase gometa's `protocol` package: a replicated
//! log for an application that keeps its own storage.
//!
//! The application implements [`ActionHandler`] (its log, its promises, its machine) and asks for
//! transactions through a [`RequestMgr`]. An [`ElectionSite`] is one node; the servers run it in the
//! role that an election gave it. On the wire it is gometa: TCP for messages, UDP for votes, the
//! same frames to the byte. What it decides, the engine decides, so what gometa loses is not lost
//! here; voters that are gometa processes are refused unless that is asked for, since a leader of
//! theirs cannot be made safe from outside.
//!
//! ```
//! use std::sync::Arc;
//!
//! use quorate_gometa::{
//!     ElectionSite, Kill, Lanes, MemoryActions, NoCustomRequests, Peer, RequestQueue, SiteConfig,
//!     run_server,
//! };
//! use quorate_zab::{Command, Outcome};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // An ensemble of one. A real voter keeps its log on a disk.
//! let lanes = Lanes::bind("127.0.0.1:0".parse()?, "127.0.0.1:0".parse()?).await?;
//! let (Some(election), Some(message)) = (lanes.election_address(), lanes.message_address()) else {
//!     return Err("no ports".into());
//! };
//! let own = Peer::new(election, message);
//! let actions = Arc::new(MemoryActions::new());
//! let config = SiteConfig::voter(own, &[own]);
//! let mut site = ElectionSite::create(config, lanes, actions.clone()).await?;
//!
//! let requests = Arc::new(RequestQueue::new(100));
//! let kill = Kill::new();
//! let client = async {
//!     let outcome = requests.request(Command::set("x", "1")).await;
//!     assert!(matches!(outcome, Outcome::Committed { .. }));
//!     kill.kill();
//! };
//! let (served, ()) =
//!     tokio::join!(run_server(&mut site, &*requests, None::<&NoCustomRequests>, &kill), client);
//! served?;
//! assert_eq!(actions.value("x").as_deref(), Some(&b"1"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! The example program `replicated_map` is a whole service of three processes.
//!
//! # Who owns what
//!
//! ```text
//!                 ┌───────────── ElectionSite: the engine, and one loop ─────────────┐
//! UDP port  ──────┤ votes                                    calls that store ───────┼──► thread: ActionHandler
//! TCP port  ──────┤ connections                              what is done    ◄───────┤
//! a task each ◄──►│ messages                                 requests, answers ◄─────┼──► RequestMgr, CustomRequestHandler
//!                 └───────────────────────────────────────────────────────────────────┘
//! ```
//! The loop is whoever awaits [`ElectionSite::start_election`] or a server; nothing of a node lives
//! elsewhere but the tasks of its connections and one thread, and [`ElectionSite::close`] ends those.
//! The application's calls that read are made by the loop, those that store by the thread.
//!
//! # What is bounded
//!
//! | what | by |
//! | --- | --- |
//! | learners without a vote | `engine.connections_count_max` |
//! | connections from others, authenticated or not | `engine.connections_max()`; over it, the oldest stranger makes room |
//! | what has come on them and was not looked at | [`SiteConfig::inbox_count_max`], [`SiteConfig::inbox_bytes_max`] |
//! | a first message of a stranger | 64 KiB |
//! | what waits to be sent on one | `engine.connection_bytes_max`; over it, it is closed |
//! | proposals without a quorum | `engine.proposals_count_max`, `engine.proposals_bytes_max` |
//! | requests of this node without an outcome | `engine.requests_count_max` |
//! | what waits to be stored | [`SiteConfig::writing_bytes_max`] |
//! | what waits to be applied | `engine.applying_count_max` |
//! | requests that no role has taken | [`RequestQueue::new`] |
//! | the log's end in memory | [`SiteConfig::cache_bytes_max`] |
//! | authenticating, connecting, flushing a closed connection | [`SiteConfig`], in milliseconds |
//!
//! The log itself is kept whole, as gometa keeps its own, and so is the table of what it holds: one
//! line for each epoch. An application that [keeps its state alone](ActionHandler::keeps_history) is told
//! what it may forget; a state that a watcher is sent is in memory until it is sent.
//!
//! ```text
//! action   what the application implements     site     one node and its loop
//! log      its log, as the engine reads it     server   the roles: leader, follower, watcher
//! worker   the thread that makes its calls     conn     the task of one connection
//! request  where requests come from            lanes    the two ports
//! custom   requests outside the log            auth     who may connect
//! ```

mod action;
mod auth;
mod config;
mod conn;
mod custom;
mod error;
mod factory;
mod kill;
mod lanes;
mod log;
mod memory;
mod pipe;
mod request;
mod seal;
mod server;
mod site;
mod worker;

pub use action::{ActionError, ActionHandler};
pub use auth::{AuthError, AuthFuture, ClientAuth, PasswordAuth, ServerAuth};
pub use config::{Peer, SiteConfig, address};
pub use custom::{Busy, CustomRequestHandler, CustomResponse, NoCustomRequests};
pub use error::{Ended, ServerError, SiteError};
pub use factory::{Messages, MsgFactory};
pub use kill::Kill;
pub use lanes::Lanes;
pub use memory::MemoryActions;
pub use pipe::{Pipe, PipeError, Stream, Wrap, WrapFuture};
pub use request::{NoRequests, RequestHandle, RequestMgr, RequestQueue};
pub use server::{
    Signals, run_embedded_server, run_follower_server, run_leader_server,
    run_leader_server_with_custom_handler, run_server, run_watcher_server,
    run_watcher_server_with_auth, run_watcher_server_with_election,
    run_watcher_server_with_request,
};
pub use site::{ElectionSite, SiteHandle, SiteStatus};
