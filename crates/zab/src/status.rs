//! A picture of a node, for people and tests.

use quorate_types::{Index, NodeId};

use crate::learner::FollowerStage;
use crate::zab::RoleState;
use crate::{Address, Epoch, LeaderStage, Role, SoftState, Storage, Zab, Zxid};

/// What changes all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Role, leader, and whether it takes part in the broadcast.
    pub soft_state: SoftState,
    /// The epoch whose leader's history its own is.
    pub epoch: Epoch,
    /// How much of its history is known to be committed.
    pub commit: Index,
    /// The end of its history.
    pub last: Index,
    /// Requests of this node that wait for their outcome.
    pub requests_count: usize,
    /// How often it has given up what it was, to look for a leader. What was asked for before that, and is
    /// not in the history with which it [serves](SoftState::is_serving) again, never will be once anything
    /// is committed in the epoch in which it does.
    pub roles_left: u64,
}

/// A picture of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who this is.
    pub id: NodeId,
    /// What it does.
    pub role: Role,
    /// Whom it follows, or itself when it leads; nobody while it looks.
    pub leader: Option<NodeId>,
    /// Whether it takes part in the broadcast: an established leader, or a synchronized learner.
    pub is_serving: bool,
    /// The round of its present or last ballot.
    pub round: u64,
    /// The epoch of its leadership or followership, once it is settled.
    pub epoch: Option<Epoch>,
    /// The epoch it has promised to.
    pub accepted_epoch: Epoch,
    /// The epoch whose leader's history its own is.
    pub current_epoch: Epoch,
    /// The end of its history.
    pub last: Index,
    /// The id there.
    pub last_zxid: Zxid,
    /// How much of it is durable.
    pub durable: Index,
    /// How much of it is known to be committed.
    pub commit: Index,
    /// The id there.
    pub commit_zxid: Zxid,
    /// How much of it the machine has applied.
    pub applied: Index,
    /// How far it is with its leader.
    pub stage: Option<FollowerStage>,
    /// The end of the history that a leader was elected with.
    pub initial: Option<Index>,
    /// Learners of a leader that have introduced themselves.
    pub learners: Vec<LearnerStatus>,
    /// Connected followers that take part in the broadcast, and the leader itself; 0 elsewhere.
    /// gometa's `GetActiveEnsembleSize`.
    pub active_ensemble_size: usize,
    /// Requests of this node that wait for their outcome.
    pub requests_count: usize,
}

/// One learner of a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnerStatus {
    /// Its name.
    pub fid: Address,
    /// Whether it votes.
    pub voting: bool,
    /// Whether it is one of ours.
    pub is_native: bool,
    /// How far it is.
    pub stage: LeaderStage,
    /// What was sent to it.
    pub sent: Index,
    /// What it holds durably, by its word; of voters only.
    pub matched: Index,
}

impl<S: Storage> Zab<S> {
    /// A picture of the node as it is now.
    pub fn status(&self) -> Status {
        let core = &self.core;
        let mut status = Status {
            id: core.config.own.id,
            role: Role::Looking,
            leader: None,
            is_serving: false,
            round: core.election.round(),
            epoch: None,
            accepted_epoch: core.hard_state.accepted_epoch,
            current_epoch: core.hard_state.current_epoch,
            last: core.history.last(),
            last_zxid: core.history.last_zxid(),
            durable: core.history.durable(),
            commit: core.commit,
            commit_zxid: core.committed_hint(),
            applied: core.applied,
            stage: None,
            initial: None,
            learners: Vec::new(),
            active_ensemble_size: 0,
            requests_count: core.requests.count(),
        };
        match &self.role {
            RoleState::Looking(_) => {}
            RoleState::Following(learner) | RoleState::Observing(learner) => {
                let soft_state = learner.soft_state();
                (status.role, status.is_serving) = (soft_state.role, soft_state.is_serving);
                status.leader = Some(learner.leader().id);
                status.stage = Some(learner.stage());
                status.epoch = Some(learner.epoch()).filter(|epoch| *epoch != Epoch(0));
            }
            RoleState::Leading(leading) => {
                status.role = Role::Leading;
                status.is_serving = leading.is_established();
                status.leader = Some(core.config.own.id);
                status.epoch = leading.epoch();
                status.initial = Some(leading.initial());
                status.active_ensemble_size = leading.active_ensemble_size(core);
                let known = leading.peers().filter(|(_, peer)| peer.is_known());
                status.learners = known
                    .map(|(_, peer)| LearnerStatus {
                        fid: peer.fid.clone(),
                        voting: peer.voter.is_some(),
                        is_native: peer.is_native(),
                        stage: peer.stage,
                        sent: peer.sent,
                        matched: peer
                            .voter
                            .and_then(|voter| leading.matched().get(&voter).copied())
                            .unwrap_or_default(),
                    })
                    .collect();
            }
        }
        status
    }
}
