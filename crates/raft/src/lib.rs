//! The Raft engine: one node of one replicated log, as a value that does no I/O.
//!
//! A [`RawNode`] is given ticks, messages and proposals, and asked for the work that follows from
//! them ([`Ready`]). What it does is a function of its [`Config`], its [`Storage`] and its inputs:
//! no clock is read, no thread started, nothing drawn but from the configured seed. It behaves as
//! etcd's Raft library does, under the same names.
//!
//! Messages from outside are doubted and never panic a node; what only a bug or a damaged disk can
//! bring about is a [`Fatal`], after which the node does nothing any more.
//!
//! The crate `quorate-node` puts a node into a task with a handle that many may use; its example
//! `replicated_kv` is a whole service.
//!
//! # The loop
//!
//! Whoever owns a node calls [`RawNode::tick`] at regular times and [`RawNode::step`] with what
//! peers send, and after each of them does the work of one Ready, in this order:
//!
//! ```
//! use quorate_raft::{
//!     Config, EntryType, MemoryStorage, Message, Peer, RawNode, decode_conf_change,
//! };
//!
//! # fn send(_message: Message) {}
//! fn work(
//!     node: &mut RawNode<MemoryStorage>,
//!     log: &MemoryStorage,
//!     machine: &mut Vec<String>,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     while node.has_ready() {
//!         let ready = node.ready();
//!         // 1. To the disk, and wait for it: snapshot, entries, hard state.
//!         if let Some(snapshot) = &ready.snapshot {
//!             log.apply_snapshot(snapshot.clone())?;
//!         }
//!         log.append(&ready.entries)?;
//!         if let Some(hard_state) = ready.hard_state {
//!             log.set_hard_state(hard_state);
//!         }
//!         // 2. To the peers. Some of these messages vouch for what was just written.
//!         ready.messages.into_iter().for_each(send);
//!         // 3. To the state machine.
//!         for entry in ready.committed_entries {
//!             match entry.entry_type() {
//!                 // A new leader's first entry is empty.
//!                 EntryType::Normal if entry.payload().is_empty() => {}
//!                 EntryType::Normal => machine.push(String::from_utf8(entry.payload().to_vec())?),
//!                 kind => {
//!                     let change = decode_conf_change(kind, entry.payload())?;
//!                     node.apply_conf_change_at(entry.index, &change)?;
//!                 }
//!             }
//!         }
//!         // 4. Done.
//!         node.advance()?;
//!     }
//!     Ok(())
//! }
//!
//! let log = MemoryStorage::new(); // a real one is durable, and read through the same trait
//! let mut node = RawNode::new(Config::new(1.into()), log.clone())?;
//! node.bootstrap(&[Peer::new(1)])?; // only ever on the first start
//! let mut machine = Vec::new();
//! while !node.is_leader() {
//!     node.tick()?;
//!     work(&mut node, &log, &mut machine)?;
//! }
//! node.propose("x = 1")?;
//! work(&mut node, &log, &mut machine)?;
//! assert_eq!(machine, ["x = 1"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A leader may do the second step before the first is finished (thesis 10.2.1); nobody else may.
//! Of an application that crashes, [`Config::applied`] tells a restarted node what need not be
//! handed out again.
//! Who drives many groups has one Ready for all of them ([`RawNode::ready_into`]), and can share
//! one budget of bytes among them ([`Config::pull_appends`]).
//!
//! # Stopping and starting again
//!
//! Nothing has to be done to stop: what a node must not forget is in its storage. The next node is
//! built from that; `bootstrap` is for the first start alone. The membership that
//! [`Storage::initial_state`] gives is that of the snapshot or, if more is said to be applied, that
//! of the last applied change: what is applied is not handed out again.
//!
//! ```
//! use quorate_raft::{
//!     Config, ConfState, HardState, MemoryStorage, RawNode, Snapshot, SnapshotMetadata,
//! };
//! use quorate_types::{Index, NodeId, Term};
//!
//! // What an earlier life left behind: a snapshot at 5, nothing after it, and a vote in term 3.
//! let conf_state = ConfState { voters: vec![1.into(), 2.into()], ..ConfState::default() };
//! let metadata = SnapshotMetadata { conf_state, index: Index(5), term: Term(2) };
//! let log = MemoryStorage::new();
//! log.apply_snapshot(Snapshot { metadata, ..Snapshot::default() })?;
//! log.set_hard_state(HardState { term: Term(3), vote: NodeId(2), commit: Index(5) });
//!
//! // The application has its own state up to 5, too, and wants none of that again.
//! let config = Config { applied: Index(5), ..Config::new(1.into()) };
//! let node = RawNode::new(config, log)?;
//! assert_eq!((node.term(), node.committed(), node.leader()), (Term(3), Index(5), None));
//! assert!(!node.has_ready(), "what is stored is not asked for again");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The asynchronous loop
//!
//! With [`Config::async_storage_writes`] writing and applying are messages to two threads, and the
//! node goes on meanwhile. Each thread does its work in order and delivers what the message names as
//! responses. Nothing else of a Ready is looked at, and `advance` is not called. With it belongs
//! [`Config::lead_after_own_vote`], since requests for votes leave before the vote is stored.
//!
//! ```
//! use quorate_raft::{
//!     Body, Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage, Message, Peer, RawNode,
//! };
//!
//! /// What the append thread does. The responses are due when all of it is durable.
//! fn append(log: &MemoryStorage, work: Message) -> Result<Vec<Message>, Box<dyn std::error::Error>> {
//!     let Body::StorageAppend { hard_state, entries, snapshot, responses } = work.body else {
//!         return Err("not for this thread".into());
//!     };
//!     if let Some(snapshot) = snapshot {
//!         log.apply_snapshot(*snapshot)?;
//!     }
//!     log.append(&entries)?;
//!     hard_state.into_iter().for_each(|hard_state| log.set_hard_state(hard_state));
//!     Ok(responses)
//! }
//!
//! /// What the apply thread does; changes of the membership go to the node as above.
//! fn apply(machine: &mut Vec<Vec<u8>>, work: Message) -> Vec<Message> {
//!     let Body::StorageApply { entries, responses } = work.body else { return Vec::new() };
//!     machine.extend(entries.iter().map(|entry| entry.payload().to_vec()));
//!     responses
//! }
//!
//! let log = MemoryStorage::new();
//! let config =
//!     Config { async_storage_writes: true, lead_after_own_vote: true, ..Config::new(1.into()) };
//! let mut node = RawNode::new(config, log.clone())?;
//! node.bootstrap(&[Peer::new(1)])?;
//! let (mut machine, mut is_proposed) = (Vec::<Vec<u8>>::new(), false);
//! while machine.last().is_none_or(|last| last != b"x = 1") {
//!     node.tick()?;
//!     for message in node.ready().messages {
//!         let responses = match message.to {
//!             LOCAL_APPEND_THREAD => append(&log, message)?, // by a thread, in real life
//!             LOCAL_APPLY_THREAD => apply(&mut machine, message),
//!             _peer => continue, // to the network, at once
//!         };
//!         for response in responses {
//!             if response.to == node.id() {
//!                 node.step(response)?; // all others go to the network
//!             }
//!         }
//!     }
//!     if node.is_leader() && !is_proposed {
//!         is_proposed = true;
//!         node.propose("x = 1")?;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Changing the membership
//!
//! A change is an entry like others: it is proposed, committed, and in force on a node once that
//! node has called [`RawNode::apply_conf_change`]. One change at a time: a leader turns a second into
//! an empty entry, and [`RawNode::check_conf_change`] says so beforehand. Changes of more than one
//! voter go through a joint membership, which is left by itself unless asked otherwise
//! ([`ConfChangeTransition`]).
//!
//! ```
//! use quorate_raft::{
//!     AnyConfChange, Config, ConfChangeV2, EntryType, MemoryStorage, Peer, RawNode,
//!     conf_changes_from_string, decode_conf_change,
//! };
//! # fn work(node: &mut RawNode<MemoryStorage>, log: &MemoryStorage) -> Result<(), Box<dyn std::error::Error>> {
//! #     while node.has_ready() {
//! #         let ready = node.ready();
//! #         log.append(&ready.entries)?;
//! #         ready.hard_state.into_iter().for_each(|hard_state| log.set_hard_state(hard_state));
//! #         for entry in ready.committed_entries {
//! #             if entry.entry_type() != EntryType::Normal {
//! #                 let change = decode_conf_change(entry.entry_type(), entry.payload())?;
//! #                 node.apply_conf_change(&change)?;
//! #             }
//! #         }
//! #         node.advance()?;
//! #     }
//! #     Ok(())
//! # }
//! # let log = MemoryStorage::new();
//! # let mut node = RawNode::new(Config::new(1.into()), log.clone())?;
//! # node.bootstrap(&[Peer::new(1)])?;
//! # while !node.is_leader() {
//! #     node.tick()?;
//! #     work(&mut node, &log)?;
//! # }
//!
//! // Node 2 gets the log and does not vote yet, so it delays nobody while it catches up.
//! let changes = conf_changes_from_string("l2")?; // short for a list of `ConfChangeSingle`
//! let change = AnyConfChange::from(ConfChangeV2 { changes, ..ConfChangeV2::default() });
//! node.check_conf_change(&change)?;
//! node.propose_conf_change(change)?;
//! work(&mut node, &log)?; // the loop from above, which applies it
//! assert_eq!(node.conf_state().learners, [2.into()]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The membership that `apply_conf_change` returns belongs into the next snapshot. Who applies entries
//! beside other work gives the entry's index as well ([`RawNode::apply_conf_change_at`]): a snapshot
//! may have overtaken it. The id of a node that was removed is never used again.
//!
//! # Reads
//!
//! Reading a leader's state machine is not enough: another leader may have been elected. A node asks
//! with [`RawNode::read_index`], and gets the index at which the read may be served.
//!
//! ```
//! use quorate_raft::{Config, MemoryStorage, RawNode};
//! use quorate_types::Index;
//!
//! # use quorate_raft::{ConfState, Snapshot, SnapshotMetadata};
//! # let log = MemoryStorage::new();
//! # let conf_state = ConfState { voters: vec![1.into()], ..ConfState::default() };
//! # let metadata = SnapshotMetadata { conf_state, ..SnapshotMetadata::default() };
//! # log.apply_snapshot(Snapshot { metadata, ..Snapshot::default() })?;
//! # let mut node = RawNode::new(Config::new(1.into()), log.clone())?;
//! # node.campaign()?;
//! # let (mut applied, mut answers) = (Index(0), Vec::new());
//! # while node.has_ready() {
//! #     let ready = node.ready();
//! #     log.append(&ready.entries)?;
//! #     node.advance()?;
//! # }
//! node.read_index("the first read"); // the caller's bytes, to know the answer by
//! while node.has_ready() {
//!     let ready = node.ready();
//!     answers.extend(ready.read_states);
//!     // ... and all the rest that a Ready asks for ...
//! #   log.append(&ready.entries)?;
//! #   ready.hard_state.into_iter().for_each(|hard_state| log.set_hard_state(hard_state));
//!     if let Some(last) = ready.committed_entries.last() {
//!         applied = last.index;
//!     }
//!     node.advance()?;
//! }
//! # applied = applied.max(node.applied());
//! // Each read waits until this much is applied, then asks the state machine.
//! assert!(answers[0].request_ctx == "the first read" && answers[0].index <= applied);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A read may get no answer when the leader changes: give it a deadline, and ask again. Its bytes
//! must not be those of an earlier read, not even of one from before a restart.
//!
//! With [`ReadOnlyOption::LeaseBased`] a leader answers without asking anybody. That is a lease only
//! with [`Config::lease_ticks`], and rests on clocks.
//!
//! # Snapshots
//!
//! The log is cut off where the application has a snapshot of its state. A peer that needs what was
//! cut off gets the snapshot: the engine asks [`Storage::snapshot`] for it and makes it a message.
//! The application sends that however it likes, and must say what became of it.
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use quorate_raft::{
//!     Body, Config, ConfState, MemoryStorage, Message, RawNode, Snapshot, SnapshotMetadata,
//!     SnapshotStatus,
//! };
//! use quorate_types::{Index, Term};
//!
//! /// The loop from above. Gives what is to be sent.
//! fn work(
//!     node: &mut RawNode<MemoryStorage>,
//!     log: &MemoryStorage,
//! ) -> Result<Vec<Message>, Box<dyn std::error::Error>> {
//!     let mut messages = Vec::new();
//!     while node.has_ready() {
//!         let ready = node.ready();
//!         if let Some(snapshot) = &ready.snapshot {
//!             log.apply_snapshot(snapshot.clone())?; // and the state machine starts from its data
//!         }
//! #       log.append(&ready.entries)?;
//! #       ready.hard_state.into_iter().for_each(|hard_state| log.set_hard_state(hard_state));
//!         // ...
//! #       messages.extend(ready.messages);
//!         node.advance()?;
//!     }
//!     Ok(messages)
//! }
//!
//! // Node 1 begins with a snapshot of everything up to entry 9, and has no entries before. While it
//! // runs it gets there with `MemoryStorage::create_snapshot`, and `compact`, in this order.
//! let conf_state = ConfState { voters: vec![1.into(), 2.into()], ..ConfState::default() };
//! let metadata = SnapshotMetadata { conf_state, index: Index(9), term: Term(1) };
//! let log = MemoryStorage::new();
//! log.apply_snapshot(Snapshot { data: "x = 1".into(), metadata })?;
//! let mut leader = RawNode::new(Config::new(1.into()), log.clone())?;
//!
//! // Node 2 is a member, and knows nothing yet, not even that.
//! let empty = MemoryStorage::new();
//! let mut follower = RawNode::new(Config::new(2.into()), empty.clone())?;
//!
//! leader.campaign()?;
//! let mut mail = VecDeque::new();
//! loop {
//!     mail.extend(work(&mut leader, &log)?);
//!     mail.extend(work(&mut follower, &empty)?);
//!     let Some(message) = mail.pop_front() else { break };
//!     if let Body::Snapshot { .. } = message.body {
//!         // Until this is said, the peer gets no entries.
//!         leader.report_snapshot(message.to, SnapshotStatus::Finish);
//!     }
//!     match message.to == leader.id() {
//!         true => leader.step(message)?,
//!         false => follower.step(message)?,
//!     }
//! }
//! assert_eq!((follower.committed(), follower.conf_state().voters.len()), (Index(10), 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A snapshot carries the membership as of its index. A node takes none that does not name it: after
//! adding a member make a new one, or the member may wait for it for ever.
//!
//! # Inside
//!
//! ```text
//! raw_node   the driver's contract; render: its two ways of writing
//! raft       one message: term gate, what all roles do, the role; the one place where roles change
//! follower   candidate   leader   what each role does
//! core       what every role shares, and the queues of messages; append: how a log gets to peers
//! log        stable and unstable entries; membership, changer: who is in; progress: flow control
//! trace      what a node did, for checking a run against a model; note: for people
//! ```

mod append;
mod candidate;
mod change;
mod change_wire;
mod changer;
mod check;
mod config;
mod core;
mod describe;
mod entries;
mod entry;
mod error;
mod fatal;
mod follower;
mod inflight;
mod leader;
mod log;
mod membership;
mod message;
mod note;
mod progress;
mod raft;
mod raw_node;
mod reads;
mod ready;
mod render;
mod rng;
mod runs;
mod snapshot;
mod status;
mod storage;
mod trace;
mod unstable;

pub use change::{
    AnyConfChange, AppliedChange, ConfChange, ConfChangeSingle, ConfChangeTransition,
    ConfChangeType, ConfChangeV2, ParseChangesError, conf_changes_from_string,
    conf_changes_to_string, describe_conf_changes,
};
pub use change_wire::{ChangeWireError, decode_conf_change, encode_conf_change};
pub use changer::{ChangeError, Changer, Membership};
pub use config::{Config, ConfigError, ReadOnlyOption};
pub use describe::{
    EntryFormatter, describe_conf_change, describe_conf_state, describe_entries, describe_entry,
    describe_hard_state, describe_message, describe_ready, describe_snapshot, describe_soft_state,
    quote, status_json,
};
pub use entries::Entries;
pub use entry::{Entry, EntryType, HardState, encoded_size, limit_size, payload_size};
pub use error::{ChangeRefusal, DropReason, Error, SnapshotRequestRefusal};
pub use fatal::Fatal;
pub use inflight::Inflights;
pub use membership::{MembershipConfig, ProgressTracker, Tally};
pub use message::{
    Body, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Message, MessageType, is_local_target,
};
pub use note::{CampaignRefusal, MessageFault, Note, SnapshotFault, TransferOutcome};
pub use progress::{Progress, ProgressMap, ProgressState};
pub use raw_node::RawNode;
pub use ready::{Ready, must_sync};
pub use runs::Runs;
pub use snapshot::{ConfState, Snapshot, SnapshotMetadata};
pub use status::{
    BasicStatus, CampaignType, Peer, ReadState, ReplicaKind, Role, SnapshotStatus, SoftState,
    Status,
};
pub use storage::{InitialState, MemoryStorage, Storage, StorageError};
pub use trace::{
    STATE_TRACE_DEPLOYED, TraceLogger, TracingAction, TracingConfChange, TracingEvent,
    TracingEventName, trace_line,
};
