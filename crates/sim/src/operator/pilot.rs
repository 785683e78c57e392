//! Autopilot in the operator's place: the operator only sets up machines, a new one for each that is
//! lost, and adds them as learners. Everything else is decided by the leader's autopilot, from what the
//! leader knows, as the server has it (`server/src/autopilot/site.rs`).

mod checks;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use quorate_autopilot::adapter::{
    CoreChange, CoreMembership, Stalls, admits, node_id, server_id, stats_of_leader, stats_of_peer,
};
use quorate_autopilot::{
    Action, Inputs, Lack, NodeStatus, PolicyConfig, PolicyPromoter, Promoter, Round, Server, Span,
    State, Strictness, Time, plan_prune, plan_reconcile, quorum,
};
use quorate_raft::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};
use quorate_replica::{RequestId, seal_change};
use quorate_types::{Index, NodeId, Term, bug};

use crate::plan::SECOND;
use crate::world::{What, World};
use told::Told;

/// What a learner must have of the leader's log, as in the server.
const READY_PERCENT: u64 = 90;
/// So many changes of health within ten minutes, and a member counts as one that comes and goes.
const FLAPS: usize = 4;
const FLAPPING_US: u64 = 600 * SECOND;
/// Changes that a run may take at the beginning, and for each thing that goes wrong.
const CHANGES_AT_FIRST: u64 = 20;
const CHANGES_A_FAULT: u64 = 4;

/// What the first members run, and what machines run that come later, or were upgraded.
const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

/// One leader's autopilot; a new leader begins anew.
#[derive(Debug, Default)]
pub(crate) struct Pilot {
    led_by: Option<(NodeId, Term)>,
    promoter: PolicyPromoter,
    state: State,
    /// The same by a leader that takes whoever is healthy for stable, while it is new.
    hasty: Option<State>,
    /// How much of the log each member had when the state was made.
    reached: BTreeMap<NodeId, Index>,
    /// Since when this leader has seen each member healthy, without a break.
    well_since_us: BTreeMap<NodeId, u64>,
    began_us: u64,
    stalls: Stalls,
    updated_us: u64,
    round_us: u64,
    /// What is left of a round, and the membership that it was decided on.
    actions: VecDeque<Action>,
    decided_on: Index,
    /// The state that it was decided on.
    decided_by: State,
    /// The policies that it was decided by.
    policy: PolicyConfig,
    /// The membership before the change under way.
    asked_on: Index,
    /// Whether the operator asked for that.
    is_by_hand: bool,
    changes: u64,
    transfers: u64,
    /// When each member's health last changed, as any leader saw it.
    flips: BTreeMap<NodeId, VecDeque<u64>>,
}

/// What a leader knows.
struct View {
    term: Term,
    inputs: Inputs,
    membership: CoreMembership,
    matched: Vec<(NodeId, Index)>,
    may_change: bool,
}

impl View {
    fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.membership.voters.iter().chain(&self.membership.learners).copied()
    }

    /// Whether it lacks too much of the log for a vote.
    fn lacks(&self, id: NodeId) -> bool {
        let bug = bug!("a-learner-votes-with-half-a-log");
        self.inputs.lacking.contains_key(&server_id(id)) && !bug
    }
}

impl World<'_> {
    /// Looks at the cluster once a second, and does what is due.
    pub(super) fn pilot(&mut self) {
        let Some(leader) = self.leader() else { return };
        let at = self.place(leader);
        let told = self.turn();
        let Some(mut view) = self.view_of(at, &told) else { return };
        self.stop_unlisted(&view.membership);
        if self.operator.is_changing && self.is_change_over(&view) {
            self.operator.is_changing = false;
            let pilot = &mut self.operator.pilot;
            if !pilot.is_by_hand {
                // What is left of the round was decided together with it.
                pilot.decided_on = view.membership.index;
            }
        }
        if self.operator.is_done {
            return;
        }
        self.see(leader, &mut view, &told);
        if self.operator.is_changing
            || !view.may_change
            || self.remove_by_hand(leader, &view, &told)
        {
            return;
        }
        if let Some(action) = self.operator.pilot.actions.pop_front() {
            self.act(leader, &view, &action);
            return;
        }
        if self.add_machines(leader, &view, &told) {
            return;
        }
        if self.operator.pilot.round_us + told.round_us <= self.now {
            self.decide(leader, &view, &told);
        }
    }

    /// What autopilot is told for now. Some operators change their minds, and set policies when it is the least
    /// convenient: right before a round, where no further voter can fail.
    fn turn(&mut self) -> Told {
        let told = Told::of(&self.plan);
        if !told.turns || !self.faults_are_on {
            return told;
        }
        let pilot = &self.operator.pilot;
        let is_round_due = pilot.round_us + told.round_us <= self.now;
        let is_weak = pilot.state.failure_tolerance == 0 && !pilot.state.healthy;
        let odds = if is_weak == self.operator.has_no_policies { 50 } else { 5 };
        if is_round_due && self.chance.percent(odds) {
            self.operator.has_no_policies ^= true;
            self.operator.turns += 1;
            self.checks.count("policies set or taken back");
        }
        match self.operator.has_no_policies {
            true => Told::without_policies(&self.plan),
            false => told,
        }
    }

    /// Whether the change under way has come, or never will.
    fn is_change_over(&self, view: &View) -> bool {
        let settled = 5 * SECOND + 10 * self.plan.election_us();
        let has_come = self.operator.pilot.asked_on < view.membership.index;
        let is_late = self.operator.changed_at + settled <= self.now;
        match self.operator.changed_term == view.term {
            true => has_come || is_late && self.is_decided(),
            // What was asked for in an earlier term is none in this one; and another leader may give the
            // same membership another index.
            false => self.is_decided(),
        }
    }

    /// Begins anew with a new leader, and makes a state when one is due.
    fn see(&mut self, leader: NodeId, view: &mut View, told: &Told) {
        let (now_us, pilot) = (self.now, &mut self.operator.pilot);
        if pilot.led_by != Some((leader, view.term)) {
            let led_by = Some((leader, view.term));
            let (changes, transfers) = (pilot.changes, pilot.transfers);
            let flips = std::mem::take(&mut pilot.flips);
            let (began_us, round_us) = (now_us, now_us);
            *pilot =
                Pilot { led_by, changes, transfers, flips, began_us, round_us, ..Pilot::default() };
        }
        if now_us < pilot.updated_us + told.update_us && pilot.updated_us != 0 {
            return;
        }
        pilot.updated_us = now_us;
        let (strictness, inputs) = (told.settings.strictness(), &mut view.inputs);
        let peers = view.matched.iter().copied().filter(|(id, _)| *id != leader);
        pilot.stalls.look(inputs.now, inputs.last_index, peers.clone());
        for (id, _) in peers {
            if let Some(stats) = inputs.fetched_stats.get_mut(&server_id(id)) {
                *stats = pilot.stalls.weigh(id, *stats);
            }
        }
        inputs.first_state_time = pilot.state.first_state_time().unwrap_or(inputs.now);
        inputs.current = Some(pilot.state.clone());
        inputs.config = told.settings.config();
        let before = std::mem::take(&mut pilot.state);
        pilot.state = State::next(inputs, &pilot.promoter, &strictness);
        pilot.reached = view.matched.iter().copied().collect();
        pilot.see_who_is_well(now_us);
        // What it would be if whoever is healthy were stable at first, as in the reference.
        let is_young = now_us <= pilot.began_us + told.stable_us();
        let hasty = Strictness { stability_is_seen: false, ..strictness };
        pilot.hasty = is_young.then(|| State::next(inputs, &PolicyPromoter::new(), &hasty));
        self.count_flips(&before);
    }

    /// Plans a round, and a prune if there is nothing to do in it.
    fn decide(&mut self, leader: NodeId, view: &View, told: &Told) {
        let (config, strictness) = (told.settings.config(), told.settings.strictness());
        let pilot = &mut self.operator.pilot;
        pilot.round_us = self.now;
        pilot.decided_on = view.membership.index;
        pilot.decided_by = pilot.state.clone();
        pilot.policy = told.settings.policy.clone();
        let (now, state) = (view.inputs.now, &pilot.decided_by);
        let wanted = pilot.promoter.calculate_promotions_and_demotions(now, &config, state);
        let round = plan_reconcile(now, &config, state, &wanted, &strictness, true);
        let Round { actions, mut refusals } = round.unwrap_or_default();
        pilot.actions = actions.into();
        self.check_promotions(leader, told);
        self.count_held_back(now, told);
        let pilot = &mut self.operator.pilot;
        if pilot.actions.is_empty() {
            let configuration = view.membership.configuration();
            let known = &view.inputs.known_servers;
            let prune = plan_prune(
                now,
                &config,
                &configuration,
                known,
                &pilot.decided_by,
                &pilot.promoter,
                &strictness,
            );
            pilot.actions = prune.actions().cloned().collect();
            refusals.extend(prune.refusals);
        }
        for refusal in refusals {
            self.trace(leader, &format!("autopilot: {refusal}"));
        }
    }

    /// Counts those that a new leader does not promote, since it has not seen them for long enough itself.
    fn count_held_back(&mut self, now: Time, told: &Told) {
        let (config, strictness) = (told.settings.config(), told.settings.strictness());
        let pilot = &mut self.operator.pilot;
        let Some(hasty) = pilot.hasty.take() else { return };
        let wanted = PolicyPromoter::new().calculate_promotions_and_demotions(now, &config, &hasty);
        let round = plan_reconcile(now, &config, &hasty, &wanted, &strictness, true);
        let would_come = promoted_by(&round.unwrap_or_default().actions);
        let come = promoted_by(&pilot.actions);
        for _ in would_come.difference(&come) {
            self.checks.count("learners held back by a new leader");
        }
    }

    /// Whether a learner may get a vote although it is lost, since its leader cannot know that yet: it is well
    /// by the last state, or its promotion is decided.
    pub(crate) fn may_be_promoted(&self, id: NodeId) -> bool {
        let pilot = &self.operator.pilot;
        let name = server_id(id);
        let is_well = pilot.state.servers.get(&name).is_none_or(|server| server.health.healthy);
        let is_its = |action: &Action| action.servers().contains(&&name);
        is_well || pilot.actions.iter().any(is_its)
    }

    fn version(&self, id: NodeId) -> &'static str {
        let is_later = self.plan.members < id.0 as usize;
        let is_upgraded = self.nodes[self.place(id)].settings != 0;
        if is_later || is_upgraded { NEW } else { OLD }
    }

    /// Whether every member runs for all that is known, and votes if it is to. One that was added and
    /// never ran is no concern of autopilot's: somebody may be about to start it.
    pub(crate) fn is_tended(&self) -> bool {
        let conf = &self.checks.conf_state;
        let has_run = |id: &&NodeId| 0 < self.nodes[self.place(**id)].life;
        let is_gone = |id: &NodeId| self.nodes[self.place(*id)].is_gone;
        let mut members = conf.voters.iter().chain(&conf.learners).filter(has_run);
        let learns = conf.learners.iter().any(|id| has_run(&id));
        let told = Told::of(&self.plan);
        let may_wait = told.lets_learners_wait() && self.has_voters_wanted(&told);
        conf.voters_outgoing.is_empty() && !members.any(is_gone) && (!learns || may_wait)
    }

    /// Whether as many vote as the policies want, of those that are there.
    fn has_voters_wanted(&self, told: &Told) -> bool {
        let conf = &self.checks.conf_state;
        let has_run = |id: &&NodeId| 0 < self.nodes[self.place(**id)].life;
        let present: Vec<NodeId> =
            conf.voters.iter().chain(&conf.learners).filter(has_run).copied().collect();
        let policy = &told.settings.policy;
        let zones = |of: &[NodeId]| of.iter().map(|id| zone(*id, told)).collect::<BTreeSet<_>>();
        if !policy.redundancy_zone_tag.is_empty() {
            // While a migration waits, a zone that has newer members only has no vote yet.
            return !policy.disable_upgrade_migration
                || zones(&present).is_subset(&zones(&conf.voters));
        }
        let least = match policy.target_voters {
            0 => told.settings.config.min_quorum,
            target => target,
        };
        (least as usize).min(present.len()) <= conf.voters.len()
    }

    /// How long autopilot may take to heal the cluster, once nothing goes wrong any more. A member that came
    /// and went has to be stable for up to ten minutes.
    pub(crate) fn tended_us(&self) -> u64 {
        let is_damped = |(id, flips): (&NodeId, &VecDeque<u64>)| {
            FLAPS <= flips.len() && !self.nodes[self.place(*id)].is_gone
        };
        let damped = self.operator.pilot.flips.iter().any(is_damped);
        Told::of(&self.plan).tended_us() + if damped { FLAPPING_US } else { 0 }
    }

    /// How long it stands still when there is nothing to do, and how often it has changed something.
    pub(crate) fn rest_us(&self) -> u64 {
        Told::of(&self.plan).rest_us()
    }

    pub(crate) fn pilot_changes(&self) -> u64 {
        self.operator.pilot.changes + self.operator.pilot.transfers
    }

    /// The smallest number of voters that autopilot may bring the cluster to, by what it is told.
    pub(crate) fn intended_voters_min(&self) -> usize {
        Told::of(&self.plan).voters_min(self.plan.members)
    }

    fn view_of(&self, at: usize, told: &Told) -> Option<View> {
        let process = self.nodes[at].process.as_ref()?;
        let (status, election_us) = (process.replica.status(), self.plan.election_us());
        let (leader, conf) = (self.nodes[at].id, &status.conf_state);
        let learners = conf.learners.iter().chain(&conf.learners_next);
        let mut membership = CoreMembership {
            voters: conf.voters.iter().copied().collect(),
            voters_outgoing: conf.voters_outgoing.iter().copied().collect(),
            learners: learners.copied().collect(),
            addresses: BTreeMap::new(),
            index: process.replica.membership_index(),
            leader: Some(leader),
        };
        let all: BTreeSet<NodeId> =
            membership.voters.iter().chain(&membership.learners).copied().collect();
        membership.addresses = all.iter().map(|id| (*id, address(*id))).collect();
        let now = time(self.now);
        let mut inputs = Inputs {
            now,
            configuration: membership.configuration(),
            last_index: status.last,
            last_term: process.replica.last_term().unwrap_or_default(),
            leader: Some(server_id(leader)),
            is_leader: true,
            ..Inputs::default()
        };
        let reaches = process.replica.reaches();
        let matched: Vec<(NodeId, Index)> =
            reaches.iter().map(|reach| (reach.node, reach.matched)).collect();
        let leaders = matched.iter().find(|(id, _)| *id == leader).map_or(0, |(_, last)| last.0);
        for reach in reaches {
            let (id, heard) = (reach.node, process.heard.get(&reach.node).copied());
            // As in the server: who is silent for less than it takes to be stable may be restarted.
            let patience = (2 * election_us).max(told.stable_us());
            let is_alive = id == leader || heard.is_some_and(|at| self.now < at + patience);
            let node_status = match (is_alive, heard) {
                (true, _) => NodeStatus::Alive,
                (false, Some(_)) => NodeStatus::Failed,
                // Added, and not started yet: a machine takes its time. A server knows by whether the
                // member has published itself.
                (false, None) if self.nodes[self.place(id)].life == 0 => NodeStatus::Unknown,
                (false, None) => NodeStatus::Failed,
            };
            let meta = [("zone".to_owned(), zone(id, told))];
            let server = Server {
                id: server_id(id),
                address: address(id),
                node_status,
                version: self.version(id).to_owned(),
                meta: Some(meta.into()),
                ..Server::default()
            };
            let stats = match id == leader {
                true => stats_of_leader(inputs.last_index, inputs.last_term),
                false => stats_of_peer(now, reach.matched, reach.term, heard.map(time)),
            };
            inputs.known_servers.insert(server_id(id), server);
            inputs.fetched_stats.insert(server_id(id), stats);
            let least = Index((leaders * READY_PERCENT).div_ceil(100).max(1));
            if conf.learners.contains(&id) && reach.matched < least {
                inputs.lacking.insert(server_id(id), Lack { has: reach.matched, least });
            }
            if reach.is_sent_snapshot {
                inputs.receiving_snapshot.insert(server_id(id));
            }
        }
        let may_change = process.replica.may_change();
        Some(View { term: status.term, inputs, membership, matched, may_change })
    }

    fn stop_unlisted(&mut self, membership: &CoreMembership) {
        let newest = &self.checks.conf_state;
        let known = [&newest.voters, &newest.voters_outgoing, &newest.learners];
        let mut known: Vec<NodeId> = known.into_iter().flatten().copied().collect();
        known.extend(membership.voters.iter().chain(&membership.learners));
        self.stop_removed(&known);
    }

    /// What the members went through, for the ledger.
    fn count_flips(&mut self, before: &State) {
        let (now_us, pilot) = (self.now, &mut self.operator.pilot);
        let mut counted = Vec::new();
        for (id, server) in &pilot.state.servers {
            let (Some(was), Some(node)) = (before.servers.get(id), node_id(id)) else { continue };
            if was.health.healthy == server.health.healthy {
                continue;
            }
            counted.push(if server.health.healthy {
                "members recovered"
            } else {
                "members failed"
            });
            let flips = pilot.flips.entry(node).or_default();
            flips.push_back(now_us);
            while flips.front().is_some_and(|at| *at + FLAPPING_US < now_us) {
                flips.pop_front();
            }
            if flips.len() == FLAPS {
                counted.push("members that came and went");
            }
        }
        counted.into_iter().for_each(|what| self.checks.count(what));
    }

    /// For each machine that is lost another one comes, and has to be made a voter by autopilot.
    fn add_machines(&mut self, leader: NodeId, view: &View, told: &Told) -> bool {
        let members: Vec<NodeId> = view.members().collect();
        let is_there = |id: &&NodeId| !self.nodes[self.place(**id)].is_gone;
        // Where so many are to vote, one more stands by.
        let spares = usize::from(0 < told.settings.policy.target_voters);
        if self.plan.members + spares <= members.iter().filter(is_there).count() {
            self.add_again(leader, view, &members);
            return false;
        }
        let id = self.spare_member(&members);
        self.checks.count("machines added");
        let changes = vec![ConfChangeSingle::new(ConfChangeType::AddLearnerNode, id)];
        self.propose(leader, view, changes, true);
        true
    }

    /// Where autopilot is not to remove anybody, the operator does, sooner or later, if the others can go on.
    fn remove_by_hand(&mut self, leader: NodeId, view: &View, told: &Told) -> bool {
        if told.settings.config.cleanup_dead_servers || !self.chance.permille(100) {
            return false;
        }
        let is_gone = |id: &NodeId| self.nodes[self.place(*id)].is_gone;
        let Some(gone) = view.members().find(is_gone) else { return false };
        let voters = &view.membership.voters;
        let rest: Vec<NodeId> = voters.iter().copied().filter(|id| *id != gone).collect();
        let reached = rest.iter().filter(|id| self.is_reached(leader, **id)).count();
        if reached < quorum(rest.len()) {
            return false;
        }
        self.trace(leader, &format!("n{} is removed by hand", gone.0));
        self.checks.count("members removed by hand");
        let changes = vec![ConfChangeSingle::new(ConfChangeType::RemoveNode, gone)];
        self.propose(leader, view, changes, true);
        true
    }

    /// Now and then a tool sees to it that a member is one. That must not change anything.
    fn add_again(&mut self, leader: NodeId, view: &View, members: &[NodeId]) {
        if !self.chance.permille(20) || members.is_empty() {
            return;
        }
        let id = *self.chance.pick(members);
        let again = Action::AddNonvoter { id: server_id(id), address: address(id) };
        if let Ok(Some(change)) = view.membership.plan(&again) {
            self.checks.fail(format!(
                "n{} is a member, and {leader} adds it again by {change}: a voter would lose its vote",
                id.0
            ));
        }
        self.checks.count("members added again");
    }

    fn act(&mut self, leader: NodeId, view: &View, action: &Action) {
        let pilot = &mut self.operator.pilot;
        // A change of one's own is what the next one is decided on; any other ends the round.
        if admits(view.membership.index, pilot.decided_on).is_err() {
            pilot.actions.clear();
            self.checks.count("autopilot rounds abandoned");
            return;
        }
        let removal = match action {
            Action::TransferLeadership { id, .. } => {
                if let Ok(to) = view.membership.plan_transfer(id) {
                    self.trace(leader, &format!("autopilot hands leadership to n{}", to.0));
                    self.checks.count("autopilot transfers");
                    self.operator.pilot.transfers += 1;
                    self.on_node(leader, What::Transfer(to));
                }
                return;
            }
            Action::RemoveFailedServer(server) => {
                let is_back = view.inputs.known_servers.get(&server.id);
                if is_back.is_some_and(|server| server.node_status == NodeStatus::Alive) {
                    return;
                }
                Some(Action::RemoveServer { id: server.id.clone() })
            }
            _ => None,
        };
        let Ok(Some(change)) = view.membership.plan(removal.as_ref().unwrap_or(action)) else {
            return;
        };
        let promoted = promoted_by([action]);
        // As in the server: what it lacks is looked at again when its promotion is proposed.
        if promoted.iter().any(|id| view.lacks(*id)) {
            pilot.actions.clear();
            self.checks.count("autopilot promotions that came too early");
            return;
        }
        for id in promoted {
            self.check_readiness(leader, id);
        }
        let single = |change_type, id| vec![ConfChangeSingle::new(change_type, id)];
        let (counted, changes) = match change {
            CoreChange::AddNode { id, .. } => {
                if self.version(id) != OLD {
                    self.checks.count("newer members promoted");
                }
                ("autopilot promotions", single(ConfChangeType::AddNode, id))
            }
            CoreChange::AddLearner { id, .. } => {
                self.check_vote(view, id, None);
                ("autopilot demotions", single(ConfChangeType::AddLearnerNode, id))
            }
            CoreChange::RemoveNode { id } => {
                self.check_removal(leader, view, id);
                ("autopilot removals", single(ConfChangeType::RemoveNode, id))
            }
            CoreChange::Replace { demoted, promoted, .. } => {
                self.check_vote(view, demoted, Some(promoted));
                let mut changes = single(ConfChangeType::AddNode, promoted);
                changes.push(ConfChangeSingle::new(ConfChangeType::AddLearnerNode, demoted));
                ("autopilot replacements", changes)
            }
            CoreChange::UpdateNode { .. } => return,
        };
        if self.costs_connections(leader, view, &changes) {
            self.operator.pilot.actions.clear();
            self.checks.count("autopilot changes refused by who is connected");
            return;
        }
        self.trace(leader, &format!("autopilot: {action}"));
        self.checks.count(counted);
        self.operator.pilot.changes += 1;
        self.check_rest();
        self.propose(leader, view, changes, false);
    }

    /// By the rules of everybody's, which the server judges every change by when it is proposed
    /// (`server/src/membership.rs`): whether too few of those that would vote are connected to the leader.
    fn costs_connections(&self, leader: NodeId, view: &View, changes: &[ConfChangeSingle]) -> bool {
        let before = &view.membership.voters;
        let mut after = before.clone();
        for change in changes {
            match change.change_type {
                ConfChangeType::AddNode => _ = after.insert(change.node_id),
                _ => _ = after.remove(&change.node_id),
            }
        }
        let too_few = |voters: &BTreeSet<NodeId>| {
            let reached = voters.iter().filter(|id| self.is_reached(leader, **id)).count();
            reached < quorum(voters.len())
        };
        // Without one that is down there is no less than there was.
        let mut gone = before.difference(&after);
        let is_joint = 1 < changes.len();
        let is_harmless =
            after.len() < before.len() && !gone.any(|id| self.is_reached(leader, *id));
        !is_harmless && (too_few(&after) || is_joint && too_few(before))
    }

    /// In the term in which it was judged, or never: as the runtime has it.
    fn propose(
        &mut self,
        leader: NodeId,
        view: &View,
        changes: Vec<ConfChangeSingle>,
        is_by_hand: bool,
    ) {
        let mut context = BytesMut::new();
        seal_change(RequestId(self.now), view.term, &mut context);
        let context = context.freeze();
        let change = match changes[..] {
            [ConfChangeSingle { change_type, node_id }] => {
                AnyConfChange::V1(ConfChange { id: 0, change_type, node_id, context })
            }
            _ => {
                let transition = Some(ConfChangeTransition::JointImplicit);
                AnyConfChange::V2(ConfChangeV2 { transition, changes, context })
            }
        };
        self.operator.is_changing = true;
        self.operator.changed_term = view.term;
        self.operator.changed_at = self.now;
        let pilot = &mut self.operator.pilot;
        pilot.asked_on = view.membership.index;
        pilot.is_by_hand = is_by_hand;
        self.checks.count("membership changes asked for");
        let at = self.place(leader);
        self.ask_membership(at, change);
    }
}

/// Whom actions give a vote.
fn promoted_by<'a>(actions: impl IntoIterator<Item = &'a Action>) -> BTreeSet<NodeId> {
    let promoted = actions.into_iter().filter_map(|action| match action {
        Action::AddVoter { id, .. } | Action::ReplaceVoter { promoted: id, .. } => node_id(id),
        _ => None,
    });
    promoted.collect()
}

fn zone(id: NodeId, told: &Told) -> String {
    format!("z{}", id.0 % told.zones)
}

fn address(id: NodeId) -> String {
    format!("n{}", id.0)
}

fn time(us: u64) -> Time {
    Time::from_unix(0, 0).plus(Span(i64::try_from(us * 1000).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_are_told_apart() {
        assert_eq!(node_id(&server_id(NodeId(31))), Some(NodeId(31)));
        assert_eq!(time(3 * SECOND).since(time(SECOND)), Span::from_secs(2));
    }
}
