//! The policy: which servers ought to vote, lead, and be let go. The engine decides when and whether.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::config::{Config, ConfigError};
use crate::order::sort_servers;
use crate::server::{Ext, NodeType, RaftState, Server, ServerId, ServerState};
use crate::state::State;
use crate::time::Time;

/// What a promoter wants changed. It may list servers that already are what it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftChanges {
    /// Who is to get a vote, in this order.
    pub promotions: Vec<ServerId>,
    /// Whose vote is to go, in this order.
    pub demotions: Vec<ServerId>,
    /// Who is to lead; nobody leaves it as it is.
    pub leader: Option<ServerId>,
    /// Whether a single voter may be joined by one other (strict engine only, which otherwise waits for a
    /// third; beyond the reference).
    pub accepts_two_voters: bool,
    /// Whether a newcomer may be needed at once (strict engine only, which otherwise waits for the failed
    /// voters; beyond the reference).
    pub accepts_needed_newcomers: bool,
}

/// Servers that could be removed, each list by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailedServers {
    /// In the Raft configuration, without a vote, and unknown to the application.
    pub stale_nonvoters: Vec<ServerId>,
    /// The same with a vote.
    pub stale_voters: Vec<ServerId>,
    /// In the Raft configuration without a vote, and not alive.
    pub failed_nonvoters: Vec<Server>,
    /// The same with a vote.
    pub failed_voters: Vec<Server>,
}

/// A policy. Its operations are asked at any time and must be quick: no I/O and no waiting.
///
/// The names are those of the reference; unlike there, every operation is told the time.
pub trait Promoter: Debug + Send + Sync {
    /// What replaces the server's own `ext` in the next state, if anything. Asked once per server of the
    /// configuration, while a state is made.
    fn get_server_ext(&self, now: Time, config: &Config, server: &ServerState) -> Option<Ext>;

    /// What is to stand in the state's `ext`. Asked once per state; counters, leader and voters are
    /// filled in already.
    fn get_state_ext(&self, now: Time, config: &Config, state: &State) -> Option<Ext>;

    /// What each server is meant to be. Asked once per state, after `get_state_ext`. Who is not listed
    /// keeps its type.
    fn get_node_types(
        &self,
        now: Time,
        config: &Config,
        state: &State,
    ) -> BTreeMap<ServerId, NodeType>;

    /// What is to change. Asked once per round.
    fn calculate_promotions_and_demotions(
        &self,
        now: Time,
        config: &Config,
        state: &State,
    ) -> RaftChanges;

    /// Who of `failed` may be removed. Asked once per prune; what it invents is ignored.
    fn filter_failed_server_removals(
        &self,
        now: Time,
        config: &Config,
        state: &State,
        failed: FailedServers,
    ) -> FailedServers;

    /// Whether a server of this type votes, or is to vote some day.
    fn is_potential_voter(&self, node_type: &NodeType) -> bool;

    /// Whether the promoter can read what the configuration has for it.
    ///
    /// # Errors
    ///
    /// The first setting it cannot read or that contradicts another. While there is one, no state is
    /// made and nothing is changed.
    fn check_config(&self, _config: &Config) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// The policy of the reference's open-source part: whoever has been stable for long enough votes.
#[derive(Clone, Copy, Debug, Default)]
pub struct StablePromoter;

/// The promoter for those who name none.
pub fn default_promoter() -> StablePromoter {
    StablePromoter
}

impl Promoter for StablePromoter {
    fn get_server_ext(&self, _now: Time, _config: &Config, _server: &ServerState) -> Option<Ext> {
        None
    }

    fn get_state_ext(&self, _now: Time, _config: &Config, _state: &State) -> Option<Ext> {
        None
    }

    fn get_node_types(
        &self,
        _now: Time,
        _config: &Config,
        state: &State,
    ) -> BTreeMap<ServerId, NodeType> {
        state.servers.keys().map(|id| (id.clone(), NodeType::Voter)).collect()
    }

    fn calculate_promotions_and_demotions(
        &self,
        now: Time,
        config: &Config,
        state: &State,
    ) -> RaftChanges {
        let least = state.server_stabilization_time(config, now);
        let is_due = |server: &ServerState| {
            server.state == RaftState::NonVoter && server.health.is_stable(now, least)
        };
        let due = state.servers.iter().filter(|(_, server)| is_due(server));
        let mut promotions: Vec<ServerId> = due.map(|(id, _)| id.clone()).collect();
        sort_servers(&mut promotions, state);
        RaftChanges { promotions, ..RaftChanges::default() }
    }

    fn filter_failed_server_removals(
        &self,
        _now: Time,
        _config: &Config,
        _state: &State,
        failed: FailedServers,
    ) -> FailedServers {
        failed
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        *node_type == NodeType::Voter
    }
}
