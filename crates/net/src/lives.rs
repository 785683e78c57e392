//! By which life each node is known, who was removed, and what happens to those that come all the same.
//!
//! A node that lost its log has forgotten its votes and what it acknowledged; one that was removed
//! may not know that it was. Neither must be heard, so both are refused in the hellos, before any
//! message, whoever dialed.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Life, NodeId};
use tokio::sync::watch;

use crate::event::Refusal;
use crate::hello::Hello;

/// What is known of nodes. One of which nothing is known may come with any life.
#[derive(Debug)]
pub(crate) struct Lives(watch::Sender<Known>);

#[derive(Debug, Default)]
struct Known {
    lives: BTreeMap<NodeId, Life>,
    removed: BTreeSet<NodeId>,
}

impl Lives {
    pub(crate) fn new(lives: &BTreeMap<NodeId, Life>, removed: &BTreeSet<NodeId>) -> Lives {
        Lives(watch::Sender::new(Known { lives: lives.clone(), removed: removed.clone() }))
    }

    pub(crate) fn set(&self, lives: BTreeMap<NodeId, Life>) {
        self.0.send_if_modified(|known| {
            let is_new = known.lives != lives;
            known.lives = lives;
            is_new
        });
    }

    pub(crate) fn set_removed(&self, removed: BTreeSet<NodeId>) {
        self.0.send_if_modified(|known| {
            let is_new = known.removed != removed;
            known.removed = removed;
            is_new
        });
    }

    /// Whether the node that says this hello may be heard.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        self.0.borrow().judge(hello)
    }

    /// Returns once the node of this hello may be heard no more, and why. May be dropped at any time.
    pub(crate) async fn contradicted(&self, hello: &Hello) -> Refusal {
        let mut known = self.0.subscribe();
        // It fails only without a sender, and `self` is one.
        let known = known.wait_for(|known| known.judge(hello).is_err()).await;
        known.ok().and_then(|known| known.judge(hello).err()).unwrap_or(Refusal::OtherLife)
    }
}

impl Known {
    fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        if self.removed.contains(&hello.from) {
            return Err(Refusal::Removed);
        }
        match self.lives.get(&hello.from) {
            Some(life) if *life != hello.life => Err(Refusal::OtherLife),
            Some(_) | None => Ok(()),
        }
    }
}
