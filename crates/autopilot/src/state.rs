//! The picture of a cluster that every decision is made on: from what was gathered to one `State`.
//!
//! ```text
//! Raft configuration  <  previous state  <  application  <  leader, fetched stats  <  promoter
//! ```
//! What stands further right overrides what stands left of it; a server that is not in the Raft
//! configuration is not in the picture. A state is a function of the inputs alone, and is never
//! changed once it is made.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Index, Term, bug};

use crate::config::Config;
use crate::configuration::{Member, RaftConfiguration, quorum};
use crate::interface::Lack;
use crate::order::sort_servers;
use crate::promoter::Promoter;
use crate::server::{Ext, NodeStatus, RaftState, ServerHealth, ServerId, ServerState, ServerStats};
use crate::strict::{History, Reason, Strictness};
use crate::time::{Span, Time};

/// Whoever did not come to lead is passed over for so long, while there is another: that is six rounds.
const TRANSFER_AGAIN_AFTER: Span = Span::from_secs(60);

/// All that a state is computed from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The time at which they were gathered.
    pub now: Time,
    /// When the first state of this run was made; `now` if this is the first.
    pub first_state_time: Time,
    /// What the operator set.
    pub config: Config,
    /// The state before this one.
    pub current: Option<State>,
    /// Who is in, and who votes.
    pub configuration: RaftConfiguration,
    /// Whom the application knows.
    pub known_servers: BTreeMap<ServerId, crate::server::Server>,
    /// Last index of the local log.
    pub last_index: Index,
    /// Term of the entry there.
    pub last_term: Term,
    /// From those that answered in time.
    pub fetched_stats: BTreeMap<ServerId, ServerStats>,
    /// Who leads, if that is known.
    pub leader: Option<ServerId>,
    /// Whether the local node does.
    pub is_leader: bool,
    /// Who is being sent a snapshot (strict engine only).
    pub receiving_snapshot: BTreeSet<ServerId>,
    /// Who lacks too much of the log to be given a vote.
    pub lacking: BTreeMap<ServerId, Lack>,
    /// Who was to lead and did not come to, and when that was tried last.
    pub failed_transfers: BTreeMap<ServerId, Time>,
}

/// A cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Whether all servers are.
    pub healthy: bool,
    /// How many more voters may fail at once without an outage.
    pub failure_tolerance: u64,
    /// All servers of the Raft configuration.
    pub servers: BTreeMap<ServerId, ServerState>,
    /// Who leads, if that is known and it is in the configuration.
    pub leader: Option<ServerId>,
    /// Who votes, best first.
    pub voters: Vec<ServerId>,
    /// The promoter's.
    pub ext: Option<Ext>,

    pub(crate) first_state_time: Option<Time>,
    pub(crate) made_at: Option<Time>,
    pub(crate) reference: Reference,
    pub(crate) configuration_index: Index,
    pub(crate) receiving_snapshot: BTreeSet<ServerId>,
    pub(crate) lacking: BTreeMap<ServerId, Lack>,
    /// Those of late: another is to lead meanwhile, if there is one.
    pub(crate) failed_transfers: BTreeMap<ServerId, Time>,
    pub(crate) histories: BTreeMap<ServerId, History>,
    /// The rules that it was made by; nothing for one that was put together by hand.
    pub(crate) strictness: Option<Strictness>,
    /// Who comes and goes, and must prove itself for longer.
    pub(crate) damped: BTreeMap<ServerId, Reason>,
}

/// Where the leader's log ends: what the others are measured against. Zeros are "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) index: Index,
    pub(crate) term: Term,
}

impl State {
    /// The state that follows from `inputs`.
    pub fn next(inputs: &Inputs, promoter: &dyn Promoter, strictness: &Strictness) -> State {
        let before = inputs.current.as_ref();
        let unseen = strictness.unseen(before, inputs.now);
        let held_up = before.filter(|_| Span::ZERO < unseen).map(|before| before.later(unseen));
        let before = held_up.as_ref().or(before);
        let mut state = State {
            first_state_time: Some(inputs.first_state_time),
            made_at: Some(inputs.now),
            reference: reference(inputs),
            configuration_index: inputs.configuration.index,
            receiving_snapshot: inputs.receiving_snapshot.clone(),
            lacking: inputs.lacking.clone(),
            failed_transfers: inputs.failed_transfers.clone(),
            strictness: Some(strictness.clone()),
            ..State::default()
        };
        for member in &inputs.configuration.members {
            let (server, history) =
                build(inputs, before, state.reference, member, promoter, strictness);
            state.histories.insert(member.id.clone(), history);
            state.servers.insert(member.id.clone(), server);
        }
        state.failed_transfers.retain(|_, at| inputs.now.since(*at) < TRANSFER_AGAIN_AFTER);
        state.count();
        let flapping = |id: &ServerId| {
            Some((id.clone(), strictness.flapping(inputs.now, &inputs.config, &state, id)?))
        };
        state.damped = state.servers.keys().filter_map(flapping).collect();
        state.ext = promoter.get_state_ext(inputs.now, &inputs.config, &state);
        for (id, node_type) in promoter.get_node_types(inputs.now, &inputs.config, &state) {
            if let Some(server) = state.servers.get_mut(&id) {
                server.server.node_type = node_type;
            }
        }
        let mut voters = std::mem::take(&mut state.voters);
        sort_servers(&mut voters, &state);
        state.voters = voters;
        state
    }

    /// How long a server must have been healthy for now: nothing until the configured time has passed
    /// since the first state, for until then nobody can have been seen healthy for that long. Where the strict
    /// rules want that seen, it is so only for a cluster that cannot wait.
    pub fn server_stabilization_time(&self, config: &Config, now: Time) -> Span {
        let is_young = self
            .first_state_time
            .is_some_and(|first| now.since(first) <= config.server_stabilization_time);
        let is_seen = self.strictness.as_ref().is_some_and(|rules| rules.stability_is_seen)
            && !bug!("a-new-leader-takes-all-for-stable");
        let is_at_once = is_young && (!is_seen || self.is_at_risk());
        match is_at_once || bug!("a-learner-votes-before-it-is-stable") {
            true => Span::ZERO,
            false => config.server_stabilization_time,
        }
    }

    /// Whether a voter is unhealthy and none of the others can be spared.
    fn is_at_risk(&self) -> bool {
        self.failure_tolerance == 0 && !self.voters.iter().all(|id| self.is_healthy(id))
    }

    /// When the first state of this run was made; nothing in an empty state.
    pub fn first_state_time(&self) -> Option<Time> {
        self.first_state_time
    }

    /// This state as one of a run that began at `time`.
    #[must_use]
    pub fn with_first_state_time(self, time: Time) -> State {
        State { first_state_time: Some(time), ..self }
    }

    /// Index of the configuration that the state was made from.
    pub fn configuration_index(&self) -> Index {
        self.configuration_index
    }

    /// Why a server that is stable could not be given a vote.
    pub(crate) fn kept_back(&self, id: &ServerId) -> Option<Reason> {
        self.not_ready(id).or_else(|| self.damped.get(id).copied())
    }

    /// Whether it lacks too much of the log.
    pub(crate) fn not_ready(&self, id: &ServerId) -> Option<Reason> {
        if bug!("a-learner-votes-with-half-a-log") {
            return None;
        }
        let Lack { has, least } = *self.lacking.get(id)?;
        Some(Reason::NotReady { has, least })
    }

    /// For how long a server could not be given a vote for that. One that comes and goes had its time before.
    pub(crate) fn kept_back_for(&self, id: &ServerId, now: Time) -> Option<Span> {
        if self.damped.contains_key(id) {
            return Some(Span(i64::MAX));
        }
        let since = self.histories.get(id)?.lacking_since?;
        self.not_ready(id).map(|_| now.since(since))
    }

    /// When leadership did not come to go over to it, if that was not long ago. Whoever has none comes first.
    pub(crate) fn failed_transfer(&self, id: &ServerId) -> Option<Time> {
        self.failed_transfers.get(id).copied()
    }

    /// Whether a server is there and healthy.
    pub(crate) fn is_healthy(&self, id: &ServerId) -> bool {
        self.servers.get(id).is_some_and(|server| server.health.healthy)
    }

    /// The same, as if all that is measured from had been so much later.
    fn later(&self, span: Span) -> State {
        let mut state = self.clone();
        for server in state.servers.values_mut() {
            server.health.stable_since = server.health.stable_since.plus(span);
        }
        for history in state.histories.values_mut() {
            *history = history.later(span);
        }
        state
    }

    /// Fills in what follows from the servers alone.
    fn count(&mut self) {
        self.healthy = self.servers.values().all(|server| server.health.healthy);
        let is_leader = |server: &ServerState| server.state == RaftState::Leader;
        self.leader =
            self.servers.iter().find(|(_, server)| is_leader(server)).map(|(id, _)| id.clone());
        let voters = self.servers.iter().filter(|(_, server)| server.has_voting_rights());
        self.voters = voters.map(|(id, _)| id.clone()).collect();
        let healthy_count = self.voters.iter().filter(|id| self.is_healthy(id)).count();
        self.failure_tolerance = tolerance(self.voters.len(), healthy_count);
    }
}

/// How many of `healthy` voters may fail while the rest are still a quorum of all.
pub(crate) fn tolerance(voters: usize, healthy: usize) -> u64 {
    healthy.saturating_sub(quorum(voters)) as u64
}

/// Where the leader's log ends, as far as that can be known here.
fn reference(inputs: &Inputs) -> Reference {
    if inputs.is_leader {
        return Reference { index: inputs.last_index, term: inputs.last_term };
    }
    let stats = inputs.leader.as_ref().and_then(|leader| inputs.fetched_stats.get(leader));
    stats.map_or_else(Reference::default, |stats| Reference {
        index: stats.last_index,
        term: stats.last_term,
    })
}

/// `before` is the state before this one, as if no time had gone by unseen.
fn build(
    inputs: &Inputs,
    before: Option<&State>,
    reference: Reference,
    member: &Member,
    promoter: &dyn Promoter,
    strictness: &Strictness,
) -> (ServerState, History) {
    let id = &member.id;
    let mut built = ServerState { state: member.suffrage.into(), ..ServerState::default() };
    built.server.id = id.clone();

    let previous = before.and_then(|state| state.servers.get(id));
    if let Some(previous) = previous {
        built.server = previous.server.clone();
        built.stats = previous.stats;
    }
    match inputs.known_servers.get(id) {
        Some(known) => built.server = known.clone(),
        None => built.server.node_status = NodeStatus::Left,
    }
    // Raft's address is the one that votes and entries go to, whatever others believe.
    built.server.address = member.address.clone();
    if inputs.leader.as_ref() == Some(id) {
        built.state = RaftState::Leader;
        built.server.is_leader = true;
    }
    let fetched = inputs.fetched_stats.get(id);
    if let Some(stats) = fetched {
        built.stats = *stats;
    }

    let past = before.and_then(|state| state.histories.get(id));
    let is_first_state = before.is_none_or(|state| state.servers.is_empty());
    let mut history = past.cloned().unwrap_or_else(|| {
        History::new(inputs.now, is_first_state && built.state.has_voting_rights())
    });
    if fetched.is_some() {
        history.stats_at = Some(inputs.now);
    }
    history.lacking_since =
        inputs.lacking.contains_key(id).then(|| history.lacking_since.unwrap_or(inputs.now));
    history.saw_status(inputs.now, &built.server.node_status, strictness);

    let contact = strictness.contact(built.stats.last_contact, history.stats_at, inputs.now);
    let healthy = is_healthy(&built, contact, reference, &inputs.config);
    built.health = match previous {
        Some(previous) if previous.health.healthy == healthy => previous.health,
        _ => ServerHealth { healthy, stable_since: inputs.now },
    };
    if previous.is_some_and(|previous| previous.health.healthy != healthy) {
        history.flipped(inputs.now);
    }
    if let Some(ext) = promoter.get_server_ext(inputs.now, &inputs.config, &built) {
        built.server.ext = Some(ext);
    }
    (built, history)
}

/// `contact` is the time since the last contact, aged where the strict engine ages it.
fn is_healthy(built: &ServerState, contact: Span, reference: Reference, config: &Config) -> bool {
    let stats = &built.stats;
    reference.index != Index(0)
        && reference.term != Term(0)
        && built.server.node_status == NodeStatus::Alive
        && Span::ZERO <= contact
        && contact <= config.last_contact_threshold
        && stats.last_term == reference.term
        && reference.index.0 <= stats.last_index.0.saturating_add(config.max_trailing_logs)
}

/// Why a server is unhealthy, as a short code with the numbers that made it so.
pub(crate) fn unhealthy_reason(state: &State, id: &ServerId, config: &Config) -> Option<String> {
    let server = state.servers.get(id).filter(|server| !server.health.healthy)?;
    let (stats, reference) = (&server.stats, state.reference);
    let status = &server.server.node_status;
    Some(if *status != NodeStatus::Alive {
        format!(
            "not-alive: {}",
            if *status == NodeStatus::Unset { "no status" } else { status.as_str() }
        )
    } else if reference.index == Index(0) || reference.term == Term(0) {
        "no-reference: the end of the leader's log is not known".to_owned()
    } else if stats.last_contact.is_negative() {
        "no-contact: never heard from the leader".to_owned()
    } else if config.last_contact_threshold < stats.last_contact {
        format!("no-contact: {} of {}", stats.last_contact, config.last_contact_threshold)
    } else if stats.last_term != reference.term {
        format!("other-term: {} instead of {}", stats.last_term, reference.term)
    } else {
        let behind = reference.index.0.saturating_sub(stats.last_index.0);
        match behind <= config.max_trailing_logs {
            true => "stale-stats: no answer for too long".to_owned(),
            false => format!("behind: {behind} of {}", config.max_trailing_logs),
        }
    })
}
