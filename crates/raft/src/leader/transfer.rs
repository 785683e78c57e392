//! Handing the office over.
//!
//! A transfer begins when it is asked for and ends in exactly one [`TransferOutcome`]. The leader
//! knows most of them; who leads after it has given way, it learns as a follower (`core.rs`).
//!
//! Source: thesis 3.10; etcd's `MsgTransferLeader`.

use quorate_types::{NodeId, Term};

use super::Leader;
use crate::append::WhenEmpty;
use crate::core::{Core, HandedOver};
use crate::note::{Note, TransferOutcome};
use crate::{Body, Error, Progress, Storage};

impl Leader {
    pub(super) fn on_transfer<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        to: NodeId,
    ) -> Result<(), Error> {
        let last = core.log.last_index();
        let progress = core.tracker.progress.get(to);
        let may_lead = |progress: &&Progress| !progress.is_learner && self.departure.is_none();
        let Some(progress) = progress.filter(may_lead) else {
            self.refuse(core, to);
            return Ok(());
        };
        let has_all = progress.matched == last;
        if self.transferee == to {
            // Under way already; asking again does not prolong it.
            return Ok(());
        }
        if to == core.id {
            if self.transferee.is_none() {
                self.refuse(core, to);
            } else {
                self.end_transfer(core, TransferOutcome::Cancelled);
            }
            return Ok(());
        }
        self.end_transfer(core, TransferOutcome::Replaced { by: to });
        // It has one election timeout to succeed.
        core.election_since = core.now;
        core.transfer_outcome = None;
        self.transferee = to;
        core.note(Note::TransferStarted { to });
        if has_all {
            self.flush_appends(core)?;
            self.order_campaign(core, to);
        } else {
            core.send_append(to, WhenEmpty::Send)?;
        }
        Ok(())
    }

    /// One that is under way goes on.
    fn refuse<S: Storage>(&self, core: &mut Core<S>, to: NodeId) {
        if self.transferee.is_none() {
            core.transfer_outcome = Some(Box::new((to, TransferOutcome::Refused)));
        }
        core.note(Note::TransferRefused { to });
    }

    pub(super) fn order_campaign<S: Storage>(&mut self, core: &mut Core<S>, to: NodeId) {
        self.has_ordered = true;
        core.send(to, Body::TimeoutNow);
        core.note(Note::TransferOrdered { to });
    }

    /// Orders the next leader once more to campaign: the order may have been lost, or come before
    /// it could be obeyed.
    pub(super) fn repeat_order<S: Storage>(&mut self, core: &mut Core<S>) {
        if !core.config.retry_transfer {
            return;
        }
        let progress = core.tracker.progress.get(self.transferee);
        if progress.is_some_and(|progress| progress.matched == core.log.last_index()) {
            core.send(self.transferee, Body::TimeoutNow);
        }
    }

    pub(super) fn end_transfer<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        outcome: TransferOutcome,
    ) {
        if let Some(to) = std::mem::take(&mut self.transferee).known() {
            core.end_transfer(to, outcome);
        }
    }

    /// Leaves office, to go on in `term`, perhaps while handing over.
    pub(super) fn resign_in_transfer<S: Storage>(&mut self, core: &mut Core<S>, term: Term) {
        if term == core.term {
            self.end_transfer(core, TransferOutcome::LeadershipLost);
        } else if let Some(to) = std::mem::take(&mut self.transferee).known() {
            // Somebody campaigns: most likely the one that was told to. Who wins will be seen.
            let until = core.now + u64::from(core.config.election_tick);
            core.handed_over = Some(Box::new(HandedOver { to, until }));
        }
    }
}
