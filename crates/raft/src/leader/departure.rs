//! Leaving office after a change that took this leader's vote away.
//!
//! Nobody but this node need know yet that the change is committed. Who does not know still counts
//! on this node's vote, and whose log is shorter than this node's would not get it: a leader that
//! just went could leave a group behind in which nobody can be elected. So it stays until enough of
//! the others know:
//! ```text
//! removed --append an empty entry--> departing --a quorum of the others has it--> hands over, goes
//!                                        `-- three election timeouts, no quorum --> goes
//! ```
//! The empty entry goes out with a commit index that covers the change, so whoever acknowledges it
//! knows, durably, that the change is committed. As a last entry it is committed exactly when a
//! quorum has it, and this node is not counted any more.
//!
//! If it goes before that, it judges candidates from then on by what it committed
//! ([`Core::is_good_candidate`]).
//!
//! Source: thesis 4.2.2, where a leader manages a group that it is not in.

use quorate_types::{Index, NodeId};

use super::Leader;
use crate::core::Core;
use crate::note::{Note, TransferOutcome};
use crate::raft::Next;
use crate::{Entry, Error, Storage};

/// How many election timeouts a leader stays that has no vote any more.
const TIMEOUTS: u64 = 3;

/// A leader without a vote, on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// It goes once this is committed.
    until: Index,
    /// Or at this tick.
    ends_at: u64,
}

impl Departure {
    pub(super) fn ends_at(&self) -> u64 {
        self.ends_at
    }
}

impl Leader {
    /// This node is no voter any more: stays a while, or goes at once.
    pub(super) fn depart<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Error> {
        if !core.config.hand_over_on_removal {
            return Ok(go(core));
        }
        if self.departure.is_some() {
            return Ok(Next::Stay);
        }
        self.end_transfer(core, TransferOutcome::LeadershipLost);
        if self.append(core, vec![Entry::default()]).is_err() {
            // There is no index left for it.
            return self.hand_over(core);
        }
        let until = core.log.last_index();
        let ends_at = core.now + u64::from(core.config.election_tick) * TIMEOUTS;
        self.departure = Some(Departure { until, ends_at });
        core.note(Note::Departing { until });
        self.announce(core)?;
        Ok(Next::Stay)
    }

    /// Goes if enough of the others know that this node has no vote any more.
    pub(super) fn depart_if_known<S: Storage>(
        &mut self,
        core: &mut Core<S>,
    ) -> Result<Next, Error> {
        match self.departure {
            Some(departure) if departure.until <= core.log.committed() => self.hand_over(core),
            Some(_) | None => Ok(Next::Stay),
        }
    }

    /// Goes if not enough of the others could be told in time.
    pub(super) fn depart_if_late<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Error> {
        match self.departure {
            Some(departure) if departure.ends_at <= core.now => self.hand_over(core),
            Some(_) | None => Ok(Next::Stay),
        }
    }

    /// Goes, and tells whoever should lead next to campaign.
    fn hand_over<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Error> {
        if let Some(to) = core.successor() {
            // So that it knows what is committed before it is told to act on it.
            self.flush_appends(core)?;
            self.order_campaign(core, to);
        }
        Ok(go(core))
    }
}

fn go<S: Storage>(core: &Core<S>) -> Next {
    Next::Follow { term: core.term, lead: NodeId::NONE }
}
