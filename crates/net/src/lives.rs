//! By which life each node is known, and what happens to one that comes with another.
//!
//! A node that lost its log has forgotten its votes and what it acknowledged. It must not be heard
//! under its old id, so it is refused in the hellos, before any message, whoever dialed.

use std::collections::BTreeMap;

use quorate_types::{Life, NodeId};
use tokio::sync::watch;

use crate::event::Refusal;
use crate::hello::Hello;

/// The known lives. A node that is not among them may come with any.
#[derive(Debug)]
pub(crate) struct Lives(watch::Sender<BTreeMap<NodeId, Life>>);

impl Lives {
    pub(crate) fn new(known: &BTreeMap<NodeId, Life>) -> Lives {
        Lives(watch::Sender::new(known.clone()))
    }

    pub(crate) fn set(&self, known: BTreeMap<NodeId, Life>) {
        self.0.send_if_modified(|present| {
            let is_new = *present != known;
            *present = known;
            is_new
        });
    }

    /// Whether the node that says this hello may be the one that is known.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        if contradict(&self.0.borrow(), hello) { Err(Refusal::OtherLife) } else { Ok(()) }
    }

    /// Returns once another life is known than the one of this hello. May be dropped at any time.
    pub(crate) async fn contradicted(&self, hello: &Hello) {
        // It fails only without a sender, and `self` is one.
        let _ = self.0.subscribe().wait_for(|known| contradict(known, hello)).await;
    }
}

fn contradict(known: &BTreeMap<NodeId, Life>, hello: &Hello) -> bool {
    known.get(&hello.from).is_some_and(|life| *life != hello.life)
}
