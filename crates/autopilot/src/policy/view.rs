//! One state as the policies look at it. Every list is in the order of servers, best first.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::order::sort_servers;
use crate::server::{NodeStatus, RaftState, ServerId, ServerState};
use crate::state::State;
use crate::time::{Span, Time};

use super::settings::PolicyConfig;

pub(super) struct View<'a> {
    pub(super) config: &'a Config,
    pub(super) settings: &'a PolicyConfig,
    pub(super) state: &'a State,
    pub(super) now: Time,
    /// How long it takes to be stable, for now.
    pub(super) stable_after: Span,
    /// All but read replicas.
    pub(super) eligible: Vec<&'a ServerId>,
    /// The read replicas.
    pub(super) replicas: Vec<&'a ServerId>,
}

impl<'a> View<'a> {
    pub(super) fn new(
        config: &'a Config,
        settings: &'a PolicyConfig,
        state: &'a State,
        now: Time,
    ) -> View<'a> {
        let mut ids: Vec<ServerId> = state.servers.keys().cloned().collect();
        sort_servers(&mut ids, state);
        let sorted = ids.iter().filter_map(|id| state.servers.get_key_value(id));
        let (mut eligible, mut replicas) = (Vec::new(), Vec::new());
        for (id, server) in sorted {
            match settings.is_replica(&server.server) {
                true => replicas.push(id),
                false => eligible.push(id),
            }
        }
        let stable_after = state.server_stabilization_time(config, now);
        View { config, settings, state, now, stable_after, eligible, replicas }
    }

    /// `id` is one of the state's: the lists here hold no others.
    pub(super) fn server(&self, id: &ServerId) -> &'a ServerState {
        &self.state.servers[id]
    }

    pub(super) fn eligible_voters(&self) -> impl Iterator<Item = &'a ServerId> {
        self.eligible.iter().copied().filter(|id| self.server(id).has_voting_rights())
    }

    pub(super) fn zone(&self, id: &ServerId) -> Option<&'a str> {
        self.settings.zone(&self.server(id).server)
    }

    /// How many are to vote, if that is limited: as many as were set, or one a zone beside those without a zone.
    pub(super) fn voters_max(&self) -> Option<usize> {
        self.voters_max_of(|_| true)
    }

    /// The same, where zones of which nobody is left count for nothing: of those that are dead or held without a vote.
    pub(super) fn living_voters_max(&self) -> Option<usize> {
        let can_vote = |id: &ServerId| self.is_alive(id) && !self.is_held(id);
        self.voters_max_of(|id| can_vote(id) || self.server(id).has_voting_rights())
    }

    fn voters_max_of(&self, counts: impl Fn(&ServerId) -> bool) -> Option<usize> {
        if !self.settings.has_zones() {
            return self.settings.voters_max();
        }
        let counted = || self.eligible.iter().filter(|id| counts(id));
        let zones: BTreeSet<&str> = counted().filter_map(|id| self.zone(id)).collect();
        let without = counted().filter(|id| self.zone(id).is_none()).count();
        Some(zones.len() + without)
    }

    pub(super) fn is_stable(&self, id: &ServerId) -> bool {
        self.server(id).health.is_stable(self.now, self.stable_after)
    }

    pub(super) fn is_healthy(&self, id: &ServerId) -> bool {
        self.server(id).health.healthy
    }

    pub(super) fn is_alive(&self, id: &ServerId) -> bool {
        self.server(id).server.node_status == NodeStatus::Alive
    }

    /// Whether an operator wants it left as it is.
    pub(super) fn is_held(&self, id: &ServerId) -> bool {
        self.config.held.contains(id)
    }

    /// Whether it could be given a vote now. Only asked of eligible servers.
    pub(super) fn is_candidate(&self, id: &ServerId) -> bool {
        let is_kept_back = self.is_held(id) || self.state.kept_back(id).is_some();
        self.server(id).state == RaftState::NonVoter && self.is_stable(id) && !is_kept_back
    }

    /// Whether it was kept from a vote for so long that its zone is better off with another's.
    pub(super) fn is_kept_back_for_long(&self, id: &ServerId) -> bool {
        self.state
            .kept_back_for(id, self.now)
            .is_some_and(|span| self.config.server_stabilization_time <= span)
    }

    /// Whether its vote is as good as lost. A voter that is unhealthy and not failed keeps its place: a
    /// hiccup of one update must not move votes. So does one that is held.
    pub(super) fn is_failed_voter(&self, id: &ServerId) -> bool {
        self.is_unhealthy_voter(id) && (!self.is_alive(id) || self.is_failed_for_long(id))
    }

    /// Whether it was unhealthy for so long that another is to have its vote, where nothing hangs on a
    /// few seconds: a voter that is only restarted keeps it, and so does one of which nothing is known, for
    /// it may be on its way.
    pub(super) fn is_failed_for_long(&self, id: &ServerId) -> bool {
        let unhealthy_for = self.now.since(self.server(id).health.stable_since);
        let is_known = self.server(id).server.node_status != NodeStatus::Unknown;
        let is_over = self.config.server_stabilization_time <= unhealthy_for;
        self.is_unhealthy_voter(id) && is_known && is_over
    }

    /// Whether it is a voter that is unhealthy for so short a time that nothing is to come of it.
    pub(super) fn is_suspect(&self, id: &ServerId) -> bool {
        self.is_unhealthy_voter(id) && !self.is_failed_voter(id)
    }

    fn is_unhealthy_voter(&self, id: &ServerId) -> bool {
        let server = self.server(id);
        server.has_voting_rights() && !server.health.healthy && !self.is_held(id)
    }

    /// Who is to lead instead of a leader that ought not to.
    pub(super) fn best_voter(&self) -> Option<&'a ServerId> {
        let healthy: Vec<_> = self.eligible_voters().filter(|id| self.is_healthy(id)).collect();
        self.best_leader(&healthy)
    }

    /// The first that is not held, and that leadership has not failed to go over to of late if there is such a
    /// one. If all are held, the first: it gets no leadership, and it is said why.
    pub(super) fn best_leader(&self, of: &[&'a ServerId]) -> Option<&'a ServerId> {
        let free = of.iter().filter(|id| !self.is_held(id));
        free.min_by_key(|id| self.state.failed_transfer(id)).or(of.first()).copied()
    }
}
