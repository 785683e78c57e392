//! The three quorums that make a leader, each of which only ever comes about once:
//!
//! 1. *who will come*: FollowerInfos settle the epoch. It is frozen then and never raised again,
//!    whoever leaves or comes;
//! 2. *who has promised*: EpochAcks. No other leader of this or an earlier epoch can come about;
//! 3. *who holds the history*: NewLeaderAcks. What the leader held at its election is committed.
//!
//! The leader counts itself in all of them. Whoever comes after a quorum passes at once and is not
//! counted. Before it, a learner whose connection ends is taken out again. Watchers are never here.
//!
//! Source: gometa's `ConsentState`; Zab's discovery and synchronization.

use std::collections::BTreeSet;

use quorate_types::NodeId;

use crate::Epoch;
use crate::quorum::Voters;

#[derive(Clone, Debug)]
pub(crate) struct ConsentState {
    voters: Voters,
    /// Greater than every epoch that anybody counted has promised to.
    proposed: Epoch,
    infos: BTreeSet<NodeId>,
    promises: BTreeSet<NodeId>,
    histories: BTreeSet<NodeId>,
    /// Set once, at the first quorum.
    epoch: Option<Epoch>,
    is_promised: bool,
}

impl ConsentState {
    /// The state of leader `own`, whose own epoch would be `proposed`.
    pub(crate) fn new(own: NodeId, voters: Voters, proposed: Epoch) -> Self {
        let own = BTreeSet::from([own]);
        ConsentState {
            voters,
            proposed,
            infos: own.clone(),
            promises: own.clone(),
            histories: own,
            epoch: None,
            is_promised: false,
        }
    }

    /// A voter has come that has promised to `accepted`. Says whether it can be served: nothing
    /// comes after the last epoch.
    pub(crate) fn on_info(&mut self, from: NodeId, accepted: Epoch) -> bool {
        if self.epoch.is_none() {
            let Some(next) = accepted.next() else { return false };
            self.proposed = self.proposed.max(next);
            self.infos.insert(from);
        }
        true
    }

    /// The epoch, once a quorum has come. It stays.
    pub(crate) fn settle_epoch(&mut self) -> Option<Epoch> {
        if self.epoch.is_none() && self.is_quorum(&self.infos) {
            self.epoch = Some(self.proposed);
        }
        self.epoch
    }

    /// A voter has durably promised to the epoch.
    pub(crate) fn on_promise(&mut self, from: NodeId) {
        if !self.is_promised {
            self.promises.insert(from);
        }
    }

    /// Whether a quorum has promised. Once true it stays.
    pub(crate) fn settle_promise(&mut self) -> bool {
        self.is_promised = self.is_promised || self.is_quorum(&self.promises);
        self.is_promised
    }

    /// A voter holds the history, durably.
    pub(crate) fn on_history(&mut self, from: NodeId) {
        self.histories.insert(from);
    }

    /// Whether a quorum holds the history of which all but the leader are `connected`.
    pub(crate) fn has_histories(&self, connected: &BTreeSet<NodeId>) -> bool {
        let both: BTreeSet<NodeId> = self.histories.intersection(connected).copied().collect();
        self.is_quorum(&both)
    }

    /// A voter is gone. What it said counts no more where no quorum has come about yet. That it
    /// holds the history remains true.
    pub(crate) fn withdraw(&mut self, from: NodeId) {
        if self.epoch.is_none() {
            self.infos.remove(&from);
        }
        if !self.is_promised {
            self.promises.remove(&from);
        }
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.is_promised
    }

    /// Whether `nodes` are enough.
    pub(crate) fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.voters.is_quorum(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(size: u64, own_accepted: u32) -> ConsentState {
        let members = (1..=size).map(NodeId).collect();
        ConsentState::new(NodeId(1), members, Epoch(own_accepted + 1))
    }

    #[test]
    fn the_epoch_is_above_all_that_was_promised() {
        for (size, own, others, want) in [
            (1, 4, &[][..], Some(5)),
            (3, 0, &[], None), // one of three
            (3, 0, &[(2, 0)], Some(1)),
            (3, 0, &[(2, 7)], Some(8)),
            (3, 9, &[(2, 7)], Some(10)),
            (3, 0, &[(9, 7)], None), // not a member
            (5, 2, &[(2, 2)], None),
            (5, 2, &[(2, 2), (2, 2)], None), // the same again
            (5, 2, &[(2, 2), (3, 4)], Some(5)),
        ] {
            let mut state = state(size, own);
            for (from, accepted) in others {
                assert!(state.on_info(NodeId(*from), Epoch(*accepted)));
            }
            assert_eq!(state.settle_epoch(), want.map(Epoch), "{size} {own} {others:?}");
        }
        assert!(!state(3, 0).on_info(NodeId(2), Epoch::LAST), "nothing comes after it");
    }

    #[test]
    fn the_epoch_is_frozen_whoever_leaves_or_comes() {
        let mut state = state(5, 0);
        state.on_info(NodeId(2), Epoch(0));
        state.on_info(NodeId(3), Epoch(0));
        assert_eq!(state.settle_epoch(), Some(Epoch(1)));
        state.withdraw(NodeId(2));
        state.on_info(NodeId(4), Epoch(6));
        assert_eq!(state.settle_epoch(), Some(Epoch(1)));
    }

    #[test]
    fn before_a_quorum_those_who_leave_do_not_count() {
        let mut state = state(5, 0);
        state.on_info(NodeId(2), Epoch(3));
        state.withdraw(NodeId(2));
        state.on_info(NodeId(3), Epoch(0));
        assert_eq!(state.settle_epoch(), None);
        state.on_info(NodeId(4), Epoch(0));
        // Its promise was no lie, so the epoch may as well stay above it.
        assert_eq!(state.settle_epoch(), Some(Epoch(4)));

        state.on_promise(NodeId(3));
        state.withdraw(NodeId(3));
        state.on_promise(NodeId(4));
        assert!(!state.settle_promise());
        state.on_promise(NodeId(3));
        assert!(state.settle_promise());
        state.withdraw(NodeId(3));
        assert!(state.settle_promise(), "it has come about");
    }

    #[test]
    fn histories_count_of_those_who_are_connected() {
        let mut state = state(3, 0);
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        state.on_history(NodeId(2));
        assert!(!state.has_histories(&nodes(&[1])));
        assert!(!state.has_histories(&nodes(&[1, 3])));
        assert!(state.has_histories(&nodes(&[1, 2])));
        state.on_history(NodeId(9));
        assert!(!state.has_histories(&nodes(&[1, 9])), "not a member");
    }
}
