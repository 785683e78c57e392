//! Who is in the group, and what the leader knows about each of them.
//!
//! [`MembershipConfig`] says who votes and who learns; [`ProgressTracker`] adds a [`Progress`] for
//! every member and the votes of the running election. Every loop over members runs in ascending
//! order of ids, so that a run depends on nothing but its inputs.
//!
//! Source: etcd's package `tracker`, whose `Config` is [`MembershipConfig`] here. Not here: how one
//! membership follows from another (`changer.rs`).

use std::fmt;

use quorate_types::quorum::{Joint, VoteResult};
use quorate_types::{Index, NodeId, NodeSet};

use crate::progress::ProgressMap;
use crate::{ConfState, Inflights, Membership, Progress};

/// The membership in force.
///
/// Learners never overlap with either half of the voters. Outside a joint change there are no
/// outgoing voters, no `learners_next`, and no `auto_leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipConfig {
    /// Who votes; two halves while a joint change is under way.
    pub voters: Joint,
    /// Who receives the log without a vote.
    pub learners: NodeSet,
    /// Outgoing voters that become learners when the joint change is left: until then they vote.
    pub learners_next: NodeSet,
    /// Whether the leader leaves the joint change by itself.
    pub auto_leave: bool,
}

impl MembershipConfig {
    /// Whether a joint change is under way.
    pub fn is_joint(&self) -> bool {
        !self.voters.outgoing.0.is_empty()
    }

    /// Whether a single node decides everything.
    pub fn is_singleton(&self) -> bool {
        self.voters.incoming.0.len() == 1 && !self.is_joint()
    }

    /// As stored and sent, each list ascending.
    pub fn conf_state(&self) -> ConfState {
        let list = |ids: &NodeSet| ids.as_slice().to_vec();
        ConfState {
            voters: list(&self.voters.incoming.0),
            voters_outgoing: list(&self.voters.outgoing.0),
            learners: list(&self.learners),
            learners_next: list(&self.learners_next),
            auto_leave: self.auto_leave,
        }
    }
}

/// `voters=(1 2)&&(1) learners=(3) learners_next=(4) autoleave`, as far as present.
impl fmt::Display for MembershipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters={}", self.voters)?;
        if !self.learners.is_empty() {
            write!(f, " learners={}", self.learners)?;
        }
        if !self.learners_next.is_empty() {
            write!(f, " learners_next={}", self.learners_next)?;
        }
        if self.auto_leave {
            f.write_str(" autoleave")?;
        }
        Ok(())
    }
}

/// What the votes of an election come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Members other than learners that said yes.
    pub granted: usize,
    /// Members other than learners that said no.
    pub rejected: usize,
    /// How the election stands; only voters count.
    pub result: VoteResult,
}

/// The members, each one's progress, and the votes of the running election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressTracker {
    /// The membership in force.
    pub config: MembershipConfig,
    /// Every member, this node included.
    pub progress: ProgressMap,
    // In the order they came; at most one for each member.
    votes: Vec<(NodeId, bool)>,
    max_inflight: usize,
    max_inflight_bytes: u64,
}

impl ProgressTracker {
    /// A tracker without members. Windows of peers hold `max_inflight` appends and about
    /// `max_inflight_bytes`; 0 bytes means no limit by bytes. etcd's `MakeProgressTracker`.
    pub fn new(max_inflight: usize, max_inflight_bytes: u64) -> Self {
        ProgressTracker {
            config: MembershipConfig::default(),
            progress: ProgressMap::new(),
            votes: Vec::new(),
            max_inflight,
            max_inflight_bytes,
        }
    }

    /// Puts a membership in force. Votes of a running election stay.
    pub fn switch(&mut self, membership: Membership) {
        self.config = membership.config;
        self.progress = membership.progress;
    }

    /// An empty window with this tracker's limits.
    pub fn inflights(&self) -> Inflights {
        Inflights::new(self.max_inflight, self.max_inflight_bytes)
    }

    /// The membership as stored and sent.
    pub fn conf_state(&self) -> ConfState {
        self.config.conf_state()
    }

    /// Whether a single node decides everything.
    pub fn is_singleton(&self) -> bool {
        self.config.is_singleton()
    }

    /// The highest index that a quorum acknowledged.
    pub fn committed(&self) -> Index {
        self.config.voters.committed_index(|id| self.progress.get(id).map(|of| of.matched))
    }

    /// Calls `f` for every member, ascending.
    pub fn visit(&mut self, mut f: impl FnMut(NodeId, &mut Progress)) {
        for (id, progress) in self.progress.iter_mut() {
            f(id, progress);
        }
    }

    /// Whether those heard from lately are a quorum.
    pub fn quorum_active(&self) -> bool {
        let heard = |id| {
            let progress = self.progress.get(id).filter(|of| !of.is_learner)?;
            Some(progress.recent_active)
        };
        self.config.voters.vote_result(heard) == VoteResult::Won
    }

    /// Voters of either half, ascending.
    pub fn voter_nodes(&self) -> Vec<NodeId> {
        self.config.voters.ids().as_slice().to_vec()
    }

    /// Learners, ascending.
    pub fn learner_nodes(&self) -> Vec<NodeId> {
        self.config.learners.as_slice().to_vec()
    }

    /// Forgets all votes.
    pub fn reset_votes(&mut self) {
        self.votes = Vec::new();
    }

    /// Takes in the answer of `id`. Only its first one counts, and that of a stranger not at all.
    pub fn record_vote(&mut self, id: NodeId, granted: bool) {
        // Only members, so that strangers cannot make the list grow.
        if self.progress.contains(id) && self.vote(id).is_none() {
            self.votes.push((id, granted));
        }
    }

    /// What `id` answered, if it did.
    pub fn vote(&self, id: NodeId) -> Option<bool> {
        self.votes.iter().find(|(voter, _)| *voter == id).map(|(_, granted)| *granted)
    }

    /// Counts the votes.
    pub fn tally_votes(&self) -> Tally {
        let cast = self.progress.iter().filter(|(_, of)| !of.is_learner);
        let (mut granted, mut rejected) = (0, 0);
        for vote in cast.filter_map(|(id, _)| self.vote(id)) {
            if vote {
                granted += 1;
            } else {
                rejected += 1;
            }
        }
        let result = self.config.voters.vote_result(|id| self.vote(id));
        Tally { granted, rejected, result }
    }
}

#[cfg(test)]
mod tests;
