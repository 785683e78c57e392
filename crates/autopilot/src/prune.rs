//! Which dead servers are removed now.
//!
//! Stale ones first (Raft has them, the application does not), for that is what the application
//! wants; those without a vote before those with one, for they endanger nothing. Of each class no more
//! than a minority of the potential voters goes, and never below the floor that was set.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::bug;

use crate::action::Action;
use crate::config::Config;
use crate::configuration::{RaftConfiguration, Suffrage};
use crate::promoter::{FailedServers, Promoter};
use crate::server::{NodeStatus, NodeType, Server, ServerId};
use crate::state::State;
use crate::strict::{Electorate, Reason, Refusal, Strictness, Wanted};
use crate::time::{Span, Time};

/// What a prune does, and what it leaves undone and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prune {
    /// One list a class. All actions of a class are tried; if any of them fails, the later classes are
    /// left alone.
    pub classes: Vec<Vec<Action>>,
    /// Candidates that stay.
    pub refusals: Vec<Refusal>,
}

impl Prune {
    /// All actions in order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.classes.iter().flatten()
    }
}

/// Who of the Raft configuration could be removed, before the promoter was asked.
pub fn failed_servers(
    configuration: &RaftConfiguration,
    known: &BTreeMap<ServerId, Server>,
    strictness: &Strictness,
) -> FailedServers {
    let mut failed = FailedServers::default();
    let mut seen = BTreeSet::new();
    for member in configuration.members.iter().filter(|member| seen.insert(&member.id)) {
        let is_voter = member.suffrage == Suffrage::Voter;
        match known.get(&member.id) {
            None if is_voter => failed.stale_voters.push(member.id.clone()),
            None => failed.stale_nonvoters.push(member.id.clone()),
            Some(server) if is_gone(&server.node_status, strictness) => {
                // The key is who it is; the record's own id may be blank.
                let server = Server { id: member.id.clone(), ..server.clone() };
                match is_voter {
                    true => failed.failed_voters.push(server),
                    false => failed.failed_nonvoters.push(server),
                }
            }
            Some(_) => {}
        }
    }
    failed.stale_voters.sort();
    failed.stale_nonvoters.sort();
    failed.failed_voters.sort_by(|a, b| a.id.cmp(&b.id));
    failed.failed_nonvoters.sort_by(|a, b| a.id.cmp(&b.id));
    failed
}

fn is_gone(status: &NodeStatus, strictness: &Strictness) -> bool {
    match status {
        NodeStatus::Alive => false,
        NodeStatus::Failed | NodeStatus::Left => true,
        NodeStatus::Unset | NodeStatus::Unknown | NodeStatus::Other(_) => {
            !strictness.unknown_is_not_failed
        }
    }
}

/// Whom to remove. `state` is the latest there is; it may be empty.
///
/// Source: the reference's `pruneDeadServers` and its adjudication.
pub fn plan_prune(
    now: Time,
    config: &Config,
    configuration: &RaftConfiguration,
    known: &BTreeMap<ServerId, Server>,
    state: &State,
    promoter: &dyn Promoter,
    strictness: &Strictness,
) -> Prune {
    let found = failed_servers(configuration, known, strictness);
    let allowed = promoter.filter_failed_server_removals(now, config, state, found.clone());
    let failed = common(found, &allowed);

    let mut pruner = Pruner {
        now,
        config,
        state,
        strictness,
        registry: registry(configuration, known, state, promoter, strictness),
        electorate: Electorate::new(
            configuration
                .members
                .iter()
                .filter(|member| member.suffrage == Suffrage::Voter)
                .map(|member| member.id.clone()),
            state,
        ),
        voters_gone: 0,
        prune: Prune::default(),
    };
    let stale = |id: ServerId| Candidate { id, failed: None };
    let failing = |server: Server| Candidate { id: server.id.clone(), failed: Some(server) };
    pruner.class(failed.stale_nonvoters.into_iter().map(stale).collect());
    pruner.class(failed.stale_voters.into_iter().map(stale).collect());
    pruner.class(failed.failed_nonvoters.into_iter().map(failing).collect());
    pruner.class(failed.failed_voters.into_iter().map(failing).collect());
    pruner.prune
}

/// Those of `found` that are in `allowed`, each in its own list: what a filter invents is nobody.
fn common(found: FailedServers, allowed: &FailedServers) -> FailedServers {
    let ids = |found: Vec<ServerId>, allowed: &[ServerId]| {
        found.into_iter().filter(|id| allowed.contains(id)).collect()
    };
    let servers = |found: Vec<Server>, allowed: &[Server]| {
        let is_allowed = |server: &Server| allowed.iter().any(|allowed| allowed.id == server.id);
        found.into_iter().filter(is_allowed).collect()
    };
    FailedServers {
        stale_nonvoters: ids(found.stale_nonvoters, &allowed.stale_nonvoters),
        stale_voters: ids(found.stale_voters, &allowed.stale_voters),
        failed_nonvoters: servers(found.failed_nonvoters, &allowed.failed_nonvoters),
        failed_voters: servers(found.failed_voters, &allowed.failed_voters),
    }
}

/// What one server of the configuration counts for.
#[derive(Clone, Copy, Debug)]
struct Standing {
    is_voter: bool,
    is_potential_voter: bool,
}

fn registry(
    configuration: &RaftConfiguration,
    known: &BTreeMap<ServerId, Server>,
    state: &State,
    promoter: &dyn Promoter,
    strictness: &Strictness,
) -> BTreeMap<ServerId, Standing> {
    let standing = |id: &ServerId, suffrage: Suffrage| {
        let is_voter = suffrage == Suffrage::Voter;
        let is_potential_voter = match known.get(id) {
            Some(server) => promoter.is_potential_voter(node_type(server, id, state)),
            None => is_voter && strictness.stale_voters_count,
        };
        Standing { is_voter, is_potential_voter }
    };
    let members = configuration.members.iter();
    members.map(|member| (member.id.clone(), standing(&member.id, member.suffrage))).collect()
}

/// What a server is meant to be: as the application says, else as the latest state has it, else a voter.
fn node_type<'a>(server: &'a Server, id: &ServerId, state: &'a State) -> &'a NodeType {
    let of_state = state.servers.get(id).map(|server| &server.server.node_type);
    [Some(&server.node_type), of_state]
        .into_iter()
        .flatten()
        .find(|node_type| **node_type != NodeType::Untyped)
        .unwrap_or(&NodeType::Voter)
}

struct Candidate {
    id: ServerId,
    /// Nothing for a stale one.
    failed: Option<Server>,
}

struct Pruner<'a> {
    now: Time,
    config: &'a Config,
    state: &'a State,
    strictness: &'a Strictness,
    registry: BTreeMap<ServerId, Standing>,
    electorate: Electorate,
    voters_gone: usize,
    prune: Prune,
}

impl Pruner<'_> {
    /// Judges one class, in order, on what the classes before it left.
    fn class(&mut self, candidates: Vec<Candidate>) {
        let standings = self.registry.values();
        let potential = standings.filter(|standing| standing.is_potential_voter).count() as u64;
        let mut allowed = potential.saturating_sub(1) / 2;
        let (mut removed, mut actions) = (0, Vec::new());
        for candidate in candidates {
            let Some(&standing) = self.registry.get(&candidate.id) else { continue };
            let left = potential.saturating_sub(removed).saturating_sub(1);
            let floor = self.config.min_quorum;
            let voters_left = self.voters().saturating_sub(1);
            let keeps_floor = self.strictness.voters_keep_floor && standing.is_voter;
            let refusal = if self.config.held.contains(&candidate.id) {
                Some(Reason::Held)
            } else if standing.is_potential_voter && left < floor {
                Some(Reason::MinQuorum { left, floor })
            } else if keeps_floor && voters_left < floor {
                Some(Reason::MinQuorum { left: voters_left, floor })
            } else if standing.is_voter && allowed < 1 {
                Some(Reason::Majority)
            } else {
                self.strict_refusal(&candidate, standing)
            };
            if let Some(why) = refusal {
                let (wanted, id) = (Wanted::Removal, candidate.id);
                self.prune.refusals.push(Refusal { wanted, id, why });
                continue;
            }
            if standing.is_potential_voter {
                allowed = allowed.saturating_sub(1);
                removed += 1;
            }
            if standing.is_voter {
                self.electorate.remove(&candidate.id);
                self.voters_gone += 1;
            }
            actions.push(match candidate.failed {
                None => Action::RemoveServer { id: candidate.id.clone() },
                Some(server) => Action::RemoveFailedServer(Box::new(server)),
            });
            self.registry.remove(&candidate.id);
        }
        self.prune.classes.push(actions);
    }

    fn voters(&self) -> u64 {
        self.registry.values().filter(|standing| standing.is_voter).count() as u64
    }

    fn strict_refusal(&self, candidate: &Candidate, standing: Standing) -> Option<Reason> {
        let (strict, id) = (self.strictness, &candidate.id);
        let leader = self.state.leader.as_ref();
        let may_lead =
            leader.is_none_or(|leader| leader == id) && standing.is_voter || leader == Some(id);
        if strict.leader_stays && may_lead {
            return Some(Reason::Leader);
        }
        if let Some(server) = &candidate.failed
            && let Some(why) = too_early(self.now, self.state, strict, server)
        {
            return Some(why);
        }
        if !standing.is_voter {
            return None;
        }
        if strict.one_voter_a_prune && 0 < self.voters_gone {
            return Some(Reason::OneVoterARound);
        }
        self.electorate.refuses_to_lose(id).filter(|_| strict.quorum_stays)
    }
}

/// Whether a failed server may yet come.
fn too_early(now: Time, state: &State, strictness: &Strictness, server: &Server) -> Option<Reason> {
    let history = state.histories.get(&server.id);
    let least = strictness.dead_server_threshold;
    if server.node_status != NodeStatus::Left && Span::ZERO < least {
        let since = history.and_then(|history| history.not_alive_since);
        let dead_for = since.map_or(Span::ZERO, |since| now.since(since));
        if dead_for < least && !bug!("the-dead-are-removed-at-once") {
            return Some(Reason::DeadTooShort { dead_for, least });
        }
    }
    let grace = strictness.join_grace;
    if Span::ZERO < grace {
        // Who is in no state yet has joined since the last one was made.
        let is_new =
            history.is_none_or(|history| history.joined_at.is_some_and(|at| now.since(at) < grace));
        if is_new || state.receiving_snapshot.contains(&server.id) {
            return Some(Reason::Joining);
        }
    }
    None
}

/// Whether a server of the state is gone, and nothing but the number of voters can keep it.
pub(crate) fn is_due(now: Time, state: &State, strictness: &Strictness, server: &Server) -> bool {
    is_gone(&server.node_status, strictness) && too_early(now, state, strictness, server).is_none()
}
