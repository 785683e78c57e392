//! The built-in policies: read replicas, redundancy zones, upgrade migration, a number of voters.
//!
//! All of them are one function, [`plan`]: from settings, a state, the time and a little memory to what
//! is to change and why. With all of them off it plans what the stable promoter plans.

mod picture;
mod settings;
mod upgrade;
mod view;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::config::{Config, ConfigError};
use crate::configuration::quorum;
use crate::promoter::{FailedServers, Promoter, RaftChanges};
use crate::reconcile::plan_reconcile;
use crate::server::{Ext, NodeType, ServerId, ServerState};
use crate::signal::lock;
use crate::state::{State, tolerance};
use crate::strict::{Reason, Wanted};
use crate::time::Time;
use quorate_types::bug;

pub use settings::PolicyConfig;
use upgrade::Upgrade;
pub use upgrade::{UpgradeStatus, is_older_version, is_version};
use view::View;
use zones::Assignment;

/// What a promoter remembers from plan to plan; lost with leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyMemory {
    /// How many eligible voters there were when no migration was under way, held ones and others.
    pub settled: usize,
}

/// What is to change, what everybody is meant to be, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyPlan {
    /// Who is to get a vote, best first.
    pub promotions: Vec<ServerId>,
    /// Whose vote is to go, the most urgent first.
    pub demotions: Vec<ServerId>,
    /// Who is to lead, if not who does.
    pub leader: Option<ServerId>,
    /// What each server is meant to be.
    pub node_types: BTreeMap<ServerId, NodeType>,
    /// Whether two voters are better than one: with zones, while votes go over, and if two are wanted.
    pub accepts_two_voters: bool,
    /// Whether a vote that is needed at once is better than none: while votes go over.
    pub accepts_needed_newcomers: bool,
    /// How the migration stands.
    pub status: UpgradeStatus,
    /// Tolerances, zones, migration and reasons, for operators.
    pub state_ext: Ext,
    /// For each server a short code of why it is as it is, with numbers.
    pub reasons: BTreeMap<ServerId, String>,
    /// What is to be remembered.
    pub memory: PolicyMemory,
    /// Who is of the version that a migration goes to.
    target_servers: BTreeSet<ServerId>,
}

/// Plans for one state; a function of its arguments.
///
/// # Errors
///
/// When the settings in `config.ext` cannot be read.
pub fn plan(
    config: &Config,
    state: &State,
    now: Time,
    memory: PolicyMemory,
) -> Result<PolicyPlan, ConfigError> {
    let settings = PolicyConfig::from_ext(config.ext.as_ref())?;
    let view = View::new(config, &settings, state, now);
    let upgrade = Upgrade::new(&view, memory);
    let mut draft = match upgrade.status {
        UpgradeStatus::Demoting => {
            // One or two that are to vote tolerate nothing.
            let keeps_tolerance = view.voters_max().is_none_or(|most| 2 < most);
            Draft { demotions: upgrade.demotions(&view), keeps_tolerance, ..Draft::default() }
        }
        UpgradeStatus::LeaderTransfer => {
            Draft { leader: upgrade.new_leader(&view), ..Draft::default() }
        }
        UpgradeStatus::Promoting => {
            let promotions = upgrade.promotions(&view);
            let demotions = replaced(&view, promotions.len());
            Draft { promotions, demotions, ..Draft::default() }
        }
        UpgradeStatus::Disabled
        | UpgradeStatus::Idle
        | UpgradeStatus::AwaitNewVoters
        | UpgradeStatus::AwaitNewServers
        | UpgradeStatus::AwaitServerRemoval => usual(&view, &upgrade),
    };
    draft.leave_held(&view);
    draft.guard(&view);
    if upgrade.status == UpgradeStatus::Demoting && draft.demotions.is_empty() {
        // The old ones stay until more of the new ones vote.
        draft.promotions = upgrade.further_promotions(&view);
        if draft.promotions.is_empty() {
            draft.let_go_with_the_dead(&view, &upgrade);
        }
    }

    // Everybody is typed, also those that take no part for now.
    let mut node_types = zones::assign(&view, &view.eligible, &view.eligible).node_types;
    node_types.append(&mut draft.node_types);
    let replicas = view.replicas.iter().map(|id| ((*id).clone(), NodeType::ReadReplica));
    node_types.extend(replicas);

    draft.accepts_needed_newcomers = upgrade.status.is_going_over();
    draft.accepts_two_voters =
        settings.has_zones() || settings.target_voters == 2 || upgrade.status.is_going_over();
    draft.hear_the_rules(&view);

    let reasons = picture::reasons(&view, &upgrade, &draft);
    let state_ext = picture::state_ext(&view, &upgrade, &reasons);
    let memory = PolicyMemory { settled: upgrade.settled(&view, memory) };
    Ok(PolicyPlan {
        promotions: draft.promotions,
        demotions: draft.demotions,
        leader: draft.leader,
        node_types,
        accepts_two_voters: draft.accepts_two_voters,
        accepts_needed_newcomers: draft.accepts_needed_newcomers,
        status: upgrade.status,
        state_ext,
        reasons,
        memory,
        target_servers: upgrade.target_servers(),
    })
}

/// The failed voters in whose place new ones come, as many at most as do: a new one beside a failed one might be
/// needed at once.
fn replaced(view: &View<'_>, count: usize) -> Vec<ServerId> {
    let leads = |id: &ServerId| view.state.leader.as_ref() == Some(id);
    let failed = view.eligible_voters().filter(|id| view.is_failed_voter(id) && !leads(id));
    failed.take(count).cloned().collect()
}

/// The policy of zones, or of a number of voters, on whoever takes part; and replicas go.
fn usual(view: &View<'_>, upgrade: &Upgrade<'_>) -> Draft {
    let active = upgrade.active(view);
    let present = upgrade.present(view);
    let Assignment { promotions, mut demotions, node_types } =
        zones::assign(view, &active, &present);
    demotions.retain(|id| !upgrade.is_halfway(view, id));
    let mut leader = None;
    for id in view.replicas.iter().filter(|id| view.state.servers[**id].has_voting_rights()) {
        match view.state.leader.as_ref() == Some(*id) {
            // Leadership goes over first; the next leader takes the vote.
            true => leader = view.best_voter().cloned(),
            false => demotions.push((*id).clone()),
        }
    }
    Draft { promotions, demotions, leader, node_types, ..Draft::default() }
}

/// A plan before it was checked against the quorum.
#[derive(Default)]
struct Draft {
    promotions: Vec<ServerId>,
    demotions: Vec<ServerId>,
    leader: Option<ServerId>,
    node_types: BTreeMap<ServerId, NodeType>,
    /// Whether demotions may not take the last bit of failure tolerance.
    keeps_tolerance: bool,
    /// See [`RaftChanges`].
    accepts_two_voters: bool,
    accepts_needed_newcomers: bool,
    /// Whose vote is not wanted, and cannot be spared.
    kept: Vec<ServerId>,
    /// Who is to get a vote, and does not by the strict rules.
    waiting: BTreeMap<ServerId, Reason>,
}

impl Draft {
    /// Whoever is held keeps its vote, and keeps leading.
    fn leave_held(&mut self, view: &View<'_>) {
        self.demotions.retain(|id| !view.is_held(id));
        if view.state.leader.as_ref().is_some_and(|leader| view.is_held(leader)) {
            self.leader = None;
        }
    }

    /// Drops demotions from the end until the plan leaves enough voters, and enough healthy ones.
    fn guard(&mut self, view: &View<'_>) {
        let (config, state) = (view.config, view.state);
        let present = state.voters.len();
        let floor = usize::try_from(config.min_quorum).unwrap_or(usize::MAX).min(present).max(1);
        // One that misses a look is not lost.
        let is_there = |id: &&ServerId| view.is_healthy(id) || view.is_suspect(id);
        let had_tolerance = 0 < tolerance(present, state.voters.iter().filter(is_there).count());
        while let Some(last) = self.demotions.pop() {
            let (voters, healthy) = self.voters_after(state);
            // Those before it may have made room for a failure that this one would take away again.
            let had_tolerance = had_tolerance || 0 < tolerance(voters, healthy);
            self.demotions.push(last);
            let (voters, healthy) = self.voters_after(state);
            let is_enough = floor <= voters && quorum(voters) <= healthy;
            let is_tolerant =
                0 < tolerance(voters, healthy) || !had_tolerance || !self.keeps_tolerance;
            if is_enough && is_tolerant || bug!("the-quorum-goes-with-a-vote") {
                return;
            }
            self.kept.extend(self.demotions.pop());
        }
    }

    /// Of an odd number of voters one of the new ones is dead, and without the old one none could be spared any more:
    /// with the dead one's vote gone before it, one can.
    fn let_go_with_the_dead(&mut self, view: &View<'_>, upgrade: &Upgrade<'_>) {
        let dead = upgrade.dead_new_voter(view).filter(|_| 0 < view.state.failure_tolerance);
        let Some(dead) = dead else { return };
        let demotions = std::iter::once(dead.clone()).chain(upgrade.demotions(view)).collect();
        let mut draft =
            Draft { demotions, keeps_tolerance: self.keeps_tolerance, ..Draft::default() };
        draft.leave_held(view);
        draft.guard(view);
        if 1 < draft.demotions.len() {
            (self.demotions, self.kept) = (draft.demotions, draft.kept);
        }
    }

    /// What the next round leaves undone of this, for operators.
    fn hear_the_rules(&mut self, view: &View<'_>) {
        let Some(strictness) = &view.state.strictness else { return };
        let changes = RaftChanges {
            promotions: self.promotions.clone(),
            demotions: self.demotions.clone(),
            leader: self.leader.clone(),
            accepts_two_voters: self.accepts_two_voters,
            accepts_needed_newcomers: self.accepts_needed_newcomers,
        };
        let can_replace = strictness.replaces_jointly;
        let round =
            plan_reconcile(view.now, view.config, view.state, &changes, strictness, can_replace);
        let refusals = round.map(|round| round.refusals).unwrap_or_default();
        let promotions = refusals.into_iter().filter(|one| one.wanted == Wanted::Promotion);
        self.waiting = promotions.map(|one| (one.id, one.why)).collect();
    }

    /// How many vote after this plan, and how many of them are healthy.
    fn voters_after(&self, state: &State) -> (usize, usize) {
        let after = |id: &ServerId, server: &ServerState| {
            let is_promoted = self.promotions.contains(id);
            (server.has_voting_rights() || is_promoted) && !self.demotions.contains(id)
        };
        let voters = state.servers.iter().filter(|(id, server)| after(id, server));
        voters.fold((0, 0), |(voters, healthy), (_, server)| {
            (voters + 1, healthy + usize::from(server.health.healthy))
        })
    }
}

/// The promoter that carries out [`plan`]. Its settings are in [`Config::ext`]; see [`PolicyConfig`].
#[derive(Debug, Default)]
pub struct PolicyPromoter {
    /// What is remembered, and of which run of states.
    memory: Mutex<(Option<Time>, PolicyMemory)>,
}

impl PolicyPromoter {
    /// One that remembers nothing yet.
    pub fn new() -> PolicyPromoter {
        PolicyPromoter::default()
    }

    /// Plans, and remembers. What was remembered of an earlier run of states is forgotten.
    fn plan(&self, now: Time, config: &Config, state: &State) -> Option<PolicyPlan> {
        let run = state.first_state_time();
        let (of_run, memory) = *lock(&self.memory);
        let memory = if of_run == run { memory } else { PolicyMemory::default() };
        let plan = plan(config, state, now, memory).ok()?;
        *lock(&self.memory) = (run, plan.memory);
        Some(plan)
    }
}

/// While the settings cannot be read, nothing is planned and nobody is typed or let go: the engine asks
/// `check_config` first and says what is wrong.
impl Promoter for PolicyPromoter {
    fn get_server_ext(&self, _now: Time, config: &Config, server: &ServerState) -> Option<Ext> {
        let settings = PolicyConfig::from_ext(config.ext.as_ref()).ok()?;
        Some(picture::server_ext(&settings, &server.server))
    }

    fn get_state_ext(&self, now: Time, config: &Config, state: &State) -> Option<Ext> {
        Some(self.plan(now, config, state)?.state_ext)
    }

    fn get_node_types(
        &self,
        now: Time,
        config: &Config,
        state: &State,
    ) -> BTreeMap<ServerId, NodeType> {
        self.plan(now, config, state).unwrap_or_default().node_types
    }

    fn calculate_promotions_and_demotions(
        &self,
        now: Time,
        config: &Config,
        state: &State,
    ) -> RaftChanges {
        let plan = self.plan(now, config, state).unwrap_or_default();
        RaftChanges {
            promotions: plan.promotions,
            demotions: plan.demotions,
            leader: plan.leader,
            accepts_two_voters: plan.accepts_two_voters,
            accepts_needed_newcomers: plan.accepts_needed_newcomers,
        }
    }

    /// While votes go over from old servers to new ones, none of the new ones is removed. Not where nothing can
    /// go over before one of them is: a dead one with a vote may be all that keeps the old ones from losing theirs.
    fn filter_failed_server_removals(
        &self,
        now: Time,
        config: &Config,
        state: &State,
        mut failed: FailedServers,
    ) -> FailedServers {
        let Some(plan) = self.plan(now, config, state) else { return FailedServers::default() };
        let is_going_over = match plan.status {
            UpgradeStatus::Demoting => !plan.demotions.is_empty(),
            UpgradeStatus::LeaderTransfer => plan.leader.is_some(),
            _ => false,
        };
        if is_going_over {
            let may_go = |id: &ServerId| !plan.target_servers.contains(id);
            failed.stale_voters.retain(may_go);
            failed.stale_nonvoters.retain(may_go);
            failed.failed_voters.retain(|server| may_go(&server.id));
            failed.failed_nonvoters.retain(|server| may_go(&server.id));
        }
        failed
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        match node_type {
            NodeType::Voter
            | NodeType::ZoneVoter
            | NodeType::ZoneExtraVoter
            | NodeType::ZoneStandby => true,
            NodeType::ReadReplica | NodeType::Untyped | NodeType::Other(_) => false,
        }
    }

    fn check_config(&self, config: &Config) -> Result<(), ConfigError> {
        PolicyConfig::from_ext(config.ext.as_ref()).map(|_| ())
    }
}
