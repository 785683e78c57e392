//! What the clients of a key-value store saw, and whether a correct store could have shown it.
//!
//! A [`History`] is a list of operations: who asked, when, what, and what came back. The checkers know
//! nothing else: no log, no node, no leader. What they find wrong is wrong for a client.
//!
//! ```
//! use quorate_history::{History, Operation, Request, Response, Verdict, linearizable};
//!
//! let history = History::of([
//!     Operation::new(1, 10, Request::put("k", "a")).answered(20, Response::wrote(2)),
//!     // Asked after the put was answered, and yet it saw nothing.
//!     Operation::new(2, 30, Request::get("k")).answered(40, Response::found(1, [])),
//! ]);
//! assert!(matches!(linearizable(&history), Verdict::Violated(_)));
//! ```
//!
//! What happened to a request has three cases, and to mix them up is how such checkers lie:
//! *answered*, *refused* (it has certainly not been done and never will be) and *unknown* (it may have
//! been done at any moment after it was asked, also long after its client gave up, or never).
//!
//! # The promises
//!
//! | promise | checker | misses |
//! | --- | --- | --- |
//! | all operations happened in one order that respects real time | [`linearizable`] | what nobody asked about |
//! | what was acknowledged is there at the end | [`acknowledged_survive`] | losses that a later write to the key hides |
//! | no write happened twice | [`no_write_twice`] | a second time that no answer shows |
//! | no client sees the revision go back | [`revisions_never_go_back`] | anything between clients |
//! | a member's serializable reads show states that existed, in order | [`serializable_reads`] | how old they are |
//!
//! The smaller checkers are implied by the first one for the most part. They are written without its
//! code, so that a mistake in it does not hide what they see.
//!
//! # How an order is found
//!
//! Where every answer carries its revision, as etcd's do, the order of the writes is known and only
//! those of unknown outcome have to be placed: `revisions.rs`. Where one does not, a search tries
//! orders: `search.rs`. Both judge by the same model of the store, in `model.rs`. The tests hold
//! both against a third way, which tries every order there is.

mod model;
mod operation;
mod promises;
mod revisions;
mod search;
mod text;
mod verdict;

#[cfg(test)]
mod tests;

pub use model::{Held, State};
pub use operation::{
    Action, Compare, Done, History, Item, Operation, Outcome, Relation, Request, Response, Span,
    Target,
};
pub use promises::{
    Final, acknowledged_survive, no_write_twice, revisions_never_go_back, serializable_reads,
};
pub use text::TextError;
pub use verdict::{Verdict, Violation, linearizable, linearizable_within, work_max_default};
