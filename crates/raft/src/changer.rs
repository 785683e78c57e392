//! How one membership follows from another.
//!
//! A [`Changer`] computes the next membership and leaves the present one as it is; the result is
//! put in force, or not, by its caller. What it returns always satisfies the invariants of
//! [`MembershipConfig`], and any two memberships that follow each other have quorums that overlap:
//! a simple change moves one voter at most, and larger ones go through a joint configuration.
//!
//! Source: thesis 4.1 and 4.3; etcd's package `confchange`.

use quorate_types::{Index, NodeId, NodeSet};

use crate::progress::ProgressMap;
use crate::{
    ConfChangeSingle, ConfChangeType, ConfState, MembershipConfig, Progress, ProgressTracker,
    is_local_target,
};

/// Why a membership change cannot be carried out. The present membership stays as it is.
///
/// The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// A simple change during a joint one.
    #[error("can't apply simple config change in joint config")]
    SimpleInJoint,
    /// A simple change may add or remove one voter.
    #[error("more than one voter changed without entering joint config")]
    TooManyVotersChanged,
    /// A second joint change.
    #[error("config is already joint")]
    AlreadyJoint,
    /// A joint change needs voters to start from.
    #[error("can't make a zero-voter config joint")]
    ZeroVoters,
    /// There is no joint change to leave.
    #[error("can't leave a non-joint config")]
    NotJoint,
    /// Nobody would vote any more.
    #[error("removed all voters")]
    RemovedAllVoters,
    /// A member is not tracked.
    #[error("no progress for {0}")]
    NoProgress(NodeId),
    /// A learner-to-be that is no outgoing voter.
    #[error("{0} is in LearnersNext, but not Voters[1]")]
    LearnerNextNotOutgoing(NodeId),
    /// A learner-to-be that is one already.
    #[error("{0} is in LearnersNext, but is already marked as learner")]
    LearnerNextIsLearner(NodeId),
    /// A learner that votes in the outgoing half.
    #[error("{0} is in Learners and Voters[1]")]
    LearnerIsOutgoing(NodeId),
    /// A learner that votes in the incoming half.
    #[error("{0} is in Learners and Voters[0]")]
    LearnerIsIncoming(NodeId),
    /// A learner whose progress does not say so.
    #[error("{0} is in Learners, but is not marked as learner")]
    LearnerNotMarked(NodeId),
    /// Learners-to-be outside a joint change.
    #[error("cfg.LearnersNext must be nil when not joint")]
    LearnersNextWithoutJoint,
    /// Automatic leaving outside a joint change.
    #[error("AutoLeave must be false when not joint")]
    AutoLeaveWithoutJoint,
    /// An id that stands for a storage thread.
    #[error("{0} names no node")]
    LocalTarget(NodeId),
    /// A membership could not be rebuilt from its stored form.
    #[error("ConfStates not equivalent after sorting: asked for {asked:?}, got {got:?}")]
    NotEquivalent {
        /// The stored form.
        asked: Box<ConfState>,
        /// What was rebuilt.
        got: Box<ConfState>,
    },
}

/// A membership and the progress of its members, before [`ProgressTracker::switch`] puts it in
/// force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Who votes and who learns.
    pub config: MembershipConfig,
    /// Every member; those that stay keep the progress they have.
    pub progress: ProgressMap,
}

/// Computes what follows from the membership in a tracker.
#[derive(Clone, Copy, Debug)]
pub struct Changer<'a> {
    /// The present membership.
    pub tracker: &'a ProgressTracker,
    /// Last index of the log: where new members are probed first.
    pub last_index: Index,
}

impl Changer<'_> {
    /// Alters at most one voter, and any number of learners.
    ///
    /// # Errors
    ///
    /// In a joint configuration; when more than one voter changes, counting both those that come
    /// and those that go; when no voter is left.
    pub fn simple(&self, changes: &[ConfChangeSingle]) -> Result<Membership, ChangeError> {
        let mut next = self.start()?;
        next.simple(changes)?;
        Ok(next.into())
    }

    /// Enters a joint configuration: the present voters become the outgoing half, and the changes
    /// are made to the incoming one.
    ///
    /// # Errors
    ///
    /// In a joint configuration; when there are no voters, before or after.
    pub fn enter_joint(
        &self,
        auto_leave: bool,
        changes: &[ConfChangeSingle],
    ) -> Result<Membership, ChangeError> {
        let mut next = self.start()?;
        next.enter_joint(auto_leave, changes)?;
        Ok(next.into())
    }

    /// Leaves a joint configuration: the outgoing half no longer counts.
    ///
    /// # Errors
    ///
    /// Outside a joint configuration.
    pub fn leave_joint(&self) -> Result<Membership, ChangeError> {
        let mut next = self.start()?;
        next.leave_joint()?;
        Ok(next.into())
    }

    /// Rebuilds a membership from its stored form. The present one does not matter, only the limits
    /// of the tracker's windows do. etcd's `Restore`.
    ///
    /// # Errors
    ///
    /// When there is no membership of that form: a node that votes and learns, an id twice, ...
    pub fn restore(&self, conf_state: &ConfState) -> Result<Membership, ChangeError> {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};

        let changes = |change_type, ids: &[NodeId]| -> Vec<ConfChangeSingle> {
            ids.iter().map(|&node_id| ConfChangeSingle { change_type, node_id }).collect()
        };
        let mut next = Draft {
            config: MembershipConfig::default(),
            progress: ProgressMap::new(),
            changer: *self,
        };
        let voters = changes(AddNode, &conf_state.voters);
        let learners = changes(AddLearnerNode, &conf_state.learners);
        if conf_state.voters_outgoing.is_empty() {
            for change in voters.into_iter().chain(learners) {
                next.simple(&[change])?;
            }
        } else {
            // First the old membership, then the step from it to the new one.
            for change in changes(AddNode, &conf_state.voters_outgoing) {
                next.simple(&[change])?;
            }
            let mut step = changes(RemoveNode, &conf_state.voters_outgoing);
            step.extend(voters);
            step.extend(learners);
            step.extend(changes(AddLearnerNode, &conf_state.learners_next));
            next.enter_joint(conf_state.auto_leave, &step)?;
        }
        let got = next.config.conf_state();
        if !conf_state.is_equivalent(&got) {
            let asked = Box::new(conf_state.clone());
            return Err(ChangeError::NotEquivalent { asked, got: Box::new(got) });
        }
        Ok(next.into())
    }

    fn start(&self) -> Result<Draft<'_>, ChangeError> {
        let draft = Draft {
            config: self.tracker.config.clone(),
            progress: self.tracker.progress.clone(),
            changer: *self,
        };
        draft.check()?;
        Ok(draft)
    }
}

/// A membership on its way from one to the next.
struct Draft<'a> {
    config: MembershipConfig,
    progress: ProgressMap,
    changer: Changer<'a>,
}

impl From<Draft<'_>> for Membership {
    fn from(draft: Draft<'_>) -> Self {
        Membership { config: draft.config, progress: draft.progress }
    }
}

impl Draft<'_> {
    fn simple(&mut self, changes: &[ConfChangeSingle]) -> Result<(), ChangeError> {
        if self.config.is_joint() {
            return Err(ChangeError::SimpleInJoint);
        }
        let before = self.config.voters.incoming.0.clone();
        self.apply(changes)?;
        if differing(&before, &self.config.voters.incoming.0) > 1 {
            return Err(ChangeError::TooManyVotersChanged);
        }
        self.check()
    }

    fn enter_joint(
        &mut self,
        auto_leave: bool,
        changes: &[ConfChangeSingle],
    ) -> Result<(), ChangeError> {
        if self.config.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        if self.config.voters.incoming.0.is_empty() {
            return Err(ChangeError::ZeroVoters);
        }
        self.config.voters.outgoing = self.config.voters.incoming.clone();
        self.apply(changes)?;
        self.config.auto_leave = auto_leave;
        self.check()
    }

    fn leave_joint(&mut self) -> Result<(), ChangeError> {
        if !self.config.is_joint() {
            return Err(ChangeError::NotJoint);
        }
        for id in std::mem::take(&mut self.config.learners_next).iter() {
            self.config.learners.insert(id);
            self.progress.get_mut(id).ok_or(ChangeError::NoProgress(id))?.is_learner = true;
        }
        for id in std::mem::take(&mut self.config.voters.outgoing).0.iter() {
            if !self.config.voters.incoming.0.contains(id) && !self.config.learners.contains(id) {
                self.progress.remove(id);
            }
        }
        self.config.auto_leave = false;
        self.check()
    }

    /// Makes the changes to the incoming half.
    fn apply(&mut self, changes: &[ConfChangeSingle]) -> Result<(), ChangeError> {
        for &ConfChangeSingle { change_type, node_id } in changes {
            // A change that the application cancelled.
            if node_id.is_none() {
                continue;
            }
            if is_local_target(node_id) {
                return Err(ChangeError::LocalTarget(node_id));
            }
            match change_type {
                ConfChangeType::AddNode => self.make_voter(node_id),
                ConfChangeType::AddLearnerNode => self.make_learner(node_id),
                ConfChangeType::RemoveNode => self.remove(node_id),
                ConfChangeType::UpdateNode => {}
            }
        }
        if self.config.voters.incoming.0.is_empty() {
            return Err(ChangeError::RemovedAllVoters);
        }
        Ok(())
    }

    fn make_voter(&mut self, id: NodeId) {
        match self.progress.get_mut(id) {
            Some(progress) => progress.is_learner = false,
            None => self.track(id, false),
        }
        self.config.learners.remove(id);
        self.config.learners_next.remove(id);
        self.config.voters.incoming.0.insert(id);
    }

    fn make_learner(&mut self, id: NodeId) {
        match self.progress.get(id) {
            Some(progress) if progress.is_learner => return,
            Some(_) => {}
            None => self.track(id, true),
        }
        self.config.voters.incoming.0.remove(id);
        if self.config.voters.outgoing.0.contains(id) {
            // It still votes there, so it cannot be a learner before the joint change is left.
            self.config.learners_next.insert(id);
        } else {
            self.config.learners.insert(id);
            if let Some(progress) = self.progress.get_mut(id) {
                progress.is_learner = true;
            }
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.config.voters.incoming.0.remove(id);
        self.config.learners.remove(id);
        self.config.learners_next.remove(id);
        // An outgoing voter is still needed to commit anything.
        if !self.config.voters.outgoing.0.contains(id) {
            self.progress.remove(id);
        }
    }

    fn track(&mut self, id: NodeId, is_learner: bool) {
        // The last index may well be too far for an empty log; one refused probe tells.
        let next = self.changer.last_index.max(Index(1));
        let mut progress = Progress::new(next, self.changer.tracker.inflights());
        progress.is_learner = is_learner;
        // Otherwise the next check of the quorum could depose the leader before the new member had
        // a chance to answer.
        progress.recent_active = true;
        self.progress.insert(id, progress);
    }

    /// What holds of every membership in force.
    fn check(&self) -> Result<(), ChangeError> {
        let MembershipConfig { voters, learners, learners_next, auto_leave } = &self.config;
        let is_learner = |id| self.progress.get(id).is_some_and(|of| of.is_learner);

        let members = voters.incoming.0.iter().chain(voters.outgoing.0.iter());
        for id in members.chain(learners.iter()).chain(learners_next.iter()) {
            if !self.progress.contains(id) {
                return Err(ChangeError::NoProgress(id));
            }
        }
        for id in learners_next.iter() {
            if !voters.outgoing.0.contains(id) {
                return Err(ChangeError::LearnerNextNotOutgoing(id));
            }
            if is_learner(id) {
                return Err(ChangeError::LearnerNextIsLearner(id));
            }
        }
        for id in learners.iter() {
            if voters.outgoing.0.contains(id) {
                return Err(ChangeError::LearnerIsOutgoing(id));
            }
            if voters.incoming.0.contains(id) {
                return Err(ChangeError::LearnerIsIncoming(id));
            }
            if !is_learner(id) {
                return Err(ChangeError::LearnerNotMarked(id));
            }
        }
        if !self.config.is_joint() {
            if !learners_next.is_empty() {
                return Err(ChangeError::LearnersNextWithoutJoint);
            }
            if *auto_leave {
                return Err(ChangeError::AutoLeaveWithoutJoint);
            }
        }
        Ok(())
    }
}

/// How many ids are in one set and not in the other.
fn differing(one: &NodeSet, other: &NodeSet) -> usize {
    let only = |in_this: &NodeSet, not_in: &NodeSet| {
        in_this.iter().filter(|id| !not_in.contains(*id)).count()
    };
    only(one, other) + only(other, one)
}

#[cfg(test)]
mod tests;
