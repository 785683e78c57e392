//! What has to be true of all that autopilot does. Of a vote that is given or taken it is judged by what the
//! leader knew when it decided so; of a removal, by how things are.

use std::collections::BTreeSet;
use std::fmt;

use quorate_autopilot::adapter::{node_id, server_id};
use quorate_autopilot::{Action, State, quorum};
use quorate_types::NodeId;

use super::told::Told;
use super::{CHANGES_A_FAULT, CHANGES_AT_FIRST, OLD, Pilot, READY_PERCENT, View};
use crate::node::Damage;
use crate::world::World;

impl Pilot {
    /// Goes by each state's health, and not by what states remember of it.
    pub(super) fn see_who_is_well(&mut self, now_us: u64) {
        let is_healthy = |id: &NodeId| is_healthy(&self.state, *id);
        self.well_since_us.retain(|id, _| is_healthy(id));
        for id in self.state.servers.keys().filter_map(node_id).filter(is_healthy) {
            self.well_since_us.entry(id).or_insert(now_us);
        }
    }

    /// Why a member was not to be given a vote, if it was not.
    fn is_unfit(
        &self,
        now_us: u64,
        leader: NodeId,
        promoted: NodeId,
        stable_us: u64,
    ) -> Option<String> {
        let reached = |id| self.reached.get(&id).map_or(0, |index| index.0);
        let (has, leaders) = (reached(promoted), reached(leader));
        if has == 0 || has * 100 < leaders * READY_PERCENT {
            return Some(format!("has the log up to {has} of {leaders}"));
        }
        let Some(since) = self.well_since_us.get(&promoted) else {
            return Some("is not healthy".to_owned());
        };
        let before = Votes::of(&self.state);
        let is_young = now_us <= self.began_us + stable_us;
        let cannot_wait = before.healthy < before.all.len() && !before.can_lose_one();
        let is_stable = since + stable_us <= now_us || is_young && cannot_wait;
        (!is_stable).then(|| format!("is healthy for {} us only", now_us - since))
    }
}

/// Who votes, and how many of them are healthy.
#[derive(Clone)]
struct Votes {
    all: BTreeSet<NodeId>,
    healthy: usize,
}

impl Votes {
    fn of(state: &State) -> Votes {
        Votes::new(state.voters.iter().filter_map(node_id).collect(), state)
    }

    fn new(all: BTreeSet<NodeId>, state: &State) -> Votes {
        let healthy = all.iter().filter(|id| is_healthy(state, **id)).count();
        Votes { all, healthy }
    }

    fn can_lose_one(&self) -> bool {
        quorum(self.all.len()) < self.healthy
    }
}

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} voters", self.healthy, self.all.len())
    }
}

fn is_healthy(state: &State, id: NodeId) -> bool {
    state.servers.get(&server_id(id)).is_some_and(|server| server.health.healthy)
}

impl World<'_> {
    /// Whoever is to get a vote has what it takes, and is not needed as soon as it has it.
    pub(super) fn check_promotions(&mut self, leader: NodeId, told: &Told) {
        let pilot = &self.operator.pilot;
        let state = &pilot.decided_by;
        let before = Votes::of(state);
        let mut voters = before.all.clone();
        let mut faults = Vec::new();
        for action in &pilot.actions {
            let (promoted, demoted) = match action {
                Action::AddVoter { id, .. } => (node_id(id), None),
                Action::DemoteVoter { id } => (None, node_id(id)),
                Action::ReplaceVoter { promoted, demoted, .. } => {
                    (node_id(promoted), node_id(demoted))
                }
                _ => (None, None),
            };
            voters.retain(|id| Some(*id) != demoted);
            if let Some(id) = promoted {
                voters.insert(id);
                let unfit = pilot.is_unfit(self.now, leader, id, told.stable_us());
                faults.extend(unfit.map(|why| format!("n{}, which {why}", id.0)));
            }
        }
        let after = Votes::new(voters, state);
        let promoted: Vec<String> =
            after.all.difference(&before.all).map(|id| format!("n{}", id.0)).collect();
        if !promoted.is_empty() && !after.can_lose_one() {
            let of_before = after.all.intersection(&before.all).copied().collect();
            let is_needed = quorum(before.all.len()) < quorum(after.all.len())
                && Votes::new(of_before, state).healthy < quorum(after.all.len());
            if before.can_lose_one() || is_needed && !self.may_be_needed(&before, told) {
                faults.push(format!(
                    "{}: {after} are healthy then, and {before} were",
                    promoted.join(", ")
                ));
            }
        }
        for fault in faults {
            self.checks.fail(format!("autopilot promotes {fault}"));
        }
    }

    /// While votes go over to newer members, and where a single voter is joined.
    fn may_be_needed(&self, before: &Votes, told: &Told) -> bool {
        let migrates = !told.settings.policy.disable_upgrade_migration;
        let is_old = |id: &NodeId| self.version(*id) == OLD;
        before.all.len() == 1 || migrates && before.all.iter().any(is_old)
    }

    /// When a promotion is proposed, whoever is promoted has the log in truth, and not only by what its leader
    /// believes. Of one that does not run, or that lost some of what it had, that cannot be told.
    pub(super) fn check_readiness(&mut self, leader: NodeId, promoted: NodeId) {
        let last = |id| {
            let node = &self.nodes[self.place(id)];
            let process = node.process.as_ref().filter(|_| node.damage == Damage::None)?;
            Some(process.replica.status().last.0)
        };
        let (Some(has), Some(leaders)) = (last(promoted), last(leader)) else { return };
        if has * 100 < leaders * READY_PERCENT {
            self.checks.fail(format!(
                "autopilot promotes n{}, whose log ends at {has}, and that of {leader} at {leaders}",
                promoted.0
            ));
        }
    }

    /// A vote that is taken never costs the quorum, by what its leader knew when it decided so.
    pub(super) fn check_vote(&mut self, view: &View, demoted: NodeId, promoted: Option<NodeId>) {
        let servers = &self.operator.pilot.decided_by.servers;
        let is_well =
            |id: &NodeId| servers.get(&server_id(*id)).is_some_and(|server| server.health.healthy);
        let voters = &view.membership.voters;
        let rest = voters.iter().copied().filter(|id| *id != demoted).chain(promoted);
        let rest: Vec<NodeId> = rest.collect();
        let before = voters.iter().filter(|id| is_well(id)).count();
        let after = rest.iter().filter(|id| is_well(id)).count();
        if quorum(voters.len()) <= before && after < quorum(rest.len()) {
            self.checks.fail(format!(
                "autopilot takes the vote of n{}, and the quorum with it: {after} of {} are left",
                demoted.0,
                rest.len()
            ));
        }
        // While votes go over to newer members, no vote that is well goes if another failure would then be one
        // too many, and before it would not.
        let policy = &self.operator.pilot.policy;
        let goes_over = !policy.disable_upgrade_migration && policy.redundancy_zone_tag.is_empty();
        if goes_over
            && is_well(&demoted)
            && quorum(voters.len()) < before
            && after <= quorum(rest.len())
        {
            self.checks.fail(format!(
                "autopilot takes the vote of n{}, and with it the last that can fail: {after} of {} are left",
                demoted.0,
                rest.len()
            ));
        }
    }

    /// Nor does a removal: if the leader reaches one, it reaches one of those that stay.
    pub(super) fn check_removal(&mut self, leader: NodeId, view: &View, removed: NodeId) {
        let told = Told::of(&self.plan);
        let voters = &view.membership.voters;
        let reached = |id: &&NodeId| self.is_reached(leader, **id);
        let before = voters.iter().filter(reached).count();
        let rest: Vec<&NodeId> = voters.iter().filter(|id| **id != removed).collect();
        let after = rest.iter().copied().filter(reached).count();
        if quorum(voters.len()) <= before && after < quorum(rest.len()) {
            self.checks.fail(format!(
                "autopilot removes n{}, and the quorum with it: {after} of {} are left",
                removed.0,
                rest.len()
            ));
        }
        // Nor does it come too early, by what the leader heard itself: one that has never run is not dead.
        let least_us = told.dead_us();
        let process = self.nodes[self.place(leader)].process.as_ref();
        let heard_us = process.and_then(|process| process.heard.get(&removed)).copied();
        let silent_us = self.now - heard_us.unwrap_or(0).max(self.operator.pilot.began_us);
        let has_run = 0 < self.nodes[self.place(removed)].life;
        if !has_run || silent_us < least_us {
            self.checks.fail(format!(
                "autopilot removes n{}, which is silent for {silent_us} us of {least_us} (has run: {has_run})",
                removed.0
            ));
        }
    }

    /// Whether a member runs, and its leader and it reach each other.
    pub(super) fn is_reached(&self, leader: NodeId, id: NodeId) -> bool {
        let node = &self.nodes[self.place(id)];
        let runs = node.process.is_some() && node.paused_until <= self.now;
        id == leader || runs && !self.net.is_cut(leader, id) && !self.net.is_cut(id, leader)
    }

    /// It comes to rest: no more changes than there were reasons.
    pub(super) fn check_rest(&mut self) {
        let faults: u64 = self.checks.ledger.faults.values().sum();
        let turns = self.operator.turns * self.plan.members as u64;
        let most = CHANGES_AT_FIRST + CHANGES_A_FAULT * faults + turns;
        let changes = self.operator.pilot.changes;
        if most < changes {
            self.checks.fail(format!("autopilot made {changes} changes, for {faults} faults"));
        }
    }
}
