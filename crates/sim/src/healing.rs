//! The end of a run: a majority is healed, the rest stays broken for good, and within a bound every
//! healed voter must serve writes and linearizable reads again, and all must agree in the end. Only
//! whom a leader among the broken does not reach may wait for as long as that one has a majority.

use quorate_replica::Engine;
use quorate_types::NodeId;

use crate::clients::{CALM_US, Client, Part};
use crate::node::Damage;
use crate::plan::SECOND;
use crate::world::{Event, World};

/// Clients write no longer values than this, once all is healed: the shortest log has to hold what is
/// written while a snapshot travels.
const CALM_VALUE_BYTES_MAX: u64 = 100;
/// And states travel in pieces no shorter than this, however much has been written.
const CALM_CHUNK_BYTES: usize = 64 << 10;
/// Clients write as often as they read, so that every member is soon asked for both.
const CALM_MIX: [u64; 5] = [40, 40, 5, 5, 10];
/// How many times the bound it may take to work off what was asked for while faults were on.
const BACKLOG_BOUNDS: u64 = 10;

impl World<'_> {
    /// Heals a majority and waits until it works again; says so if it does not.
    pub(crate) fn heal_and_wait(&mut self) {
        self.faults_are_on = false;
        let broken = self.draw_broken();
        let healed: Vec<NodeId> =
            self.members().into_iter().filter(|id| !broken.contains(id)).collect();
        self.trace(NodeId(0), &format!("all is healed but {broken:?}"));
        self.net.calm();
        if self.plan.engine == Engine::Zab {
            // Whose disk stands still leaves its leader. Where every member that is left is needed, no
            // leader would stay for as long as a lease lives, and the next one begins all leases anew.
            self.plan.calm_disks();
        }
        // Nobody is asked to serve well who is asked for more than there is room for.
        self.plan.clients.is_open = false;
        self.plan.clients.think_us = self.plan.clients.think_us.max(CALM_US);
        self.plan.clients.mix = CALM_MIX;
        let value_bytes_max = &mut self.plan.clients.value_bytes_max;
        *value_bytes_max = CALM_VALUE_BYTES_MAX.min(*value_bytes_max);
        self.plan.chunk_bytes = CALM_CHUNK_BYTES.max(self.plan.chunk_bytes);
        self.net.heal(|from, to| broken.contains(&from) || broken.contains(&to));
        for id in broken.clone() {
            self.break_for_good(id);
        }
        for id in healed.clone() {
            let at = self.place(id);
            self.nodes[at].paused_until = 0;
            self.nodes[at].tick_us = self.plan.tick_us;
            self.nodes[at].slowness = 1;
            self.nodes[at].is_ambushed = false;
            self.nodes[at].disk.clear_faults();
            self.free_disk(id);
            self.push(self.now + SECOND, Event::Start(id));
        }
        let bound = 40 * SECOND + 60 * self.plan.election_us();
        self.wait_for_backlog(&healed, bound);
        // Whoever was made a member lately catches up and is made a voter; then nothing changes.
        let began = self.now;
        if self.plan.autopilot && !self.operator.is_done {
            self.run_until(self.now + bound / 2);
            self.wait_until_tended(began);
        }
        // However long that took: only now nothing changes any more.
        let began = self.now;
        while self.checks.violation().is_none()
            && self.now < began + bound / 2
            && !self.is_settled(&healed)
        {
            self.run_until(self.now + SECOND);
        }
        self.operator.is_done = true;
        let voters = self.checks.conf_state.voters.clone();
        // Where membership is fixed, nobody takes the place of a member that refused its damaged disk.
        let is_fixed = self.plan.engine == Engine::Zab;
        let is_lost = |id: &NodeId| is_fixed && self.nodes[self.place(*id)].is_gone;
        let may_serve = |id: &NodeId| voters.contains(id) && !is_lost(id);
        let probed: Vec<NodeId> = healed.iter().copied().filter(may_serve).collect();
        self.probed = vec![(false, false); self.nodes.len()];
        let told = self.checks.revision();
        self.watch_at = Some(probed.iter().map(|id| self.place(*id)).collect());
        for watcher in 0..self.watchers.len() {
            self.on_watch(watcher);
        }
        for id in &probed {
            let member = self.place(*id);
            self.clients.push(Client { part: Part::Probe, member, ..Client::default() });
            self.push(self.now, Event::Client(self.clients.len() - 1));
        }
        while self.checks.violation().is_none() && self.now < began + 2 * bound {
            self.run_until(self.now + SECOND);
            let all_serve = self.all_serve(&probed);
            if all_serve && self.all_told(told) && self.checks.leases_alive() == 0 && self.is_left()
            {
                self.ledger_healed(began);
                return;
            }
        }
        if self.checks.violation().is_none() {
            let waiting = probed.iter().filter(|id| self.probed[self.place(**id)] != (true, true));
            let waiting: Vec<_> = waiting
                .map(|id| {
                    (id.0, self.probed[self.place(*id)], self.nodes[self.place(*id)].glance())
                })
                .collect();
            let behind = self.watchers.iter().filter(|it| it.watched.next <= told).count();
            let (leases, left) = (self.checks.leases_alive(), self.is_left());
            self.checks.fail(format!(
                "liveness: {} s after a majority was healed, {waiting:?} have not served a write \
                 and a read (voters {voters:?}, broken {broken:?}); {behind} watchers were not told \
                 all, {leases} leases live on, a joint membership is left: {left}",
                (self.now - began) / SECOND
            ));
        }
    }

    /// What is in logs already comes before all that is asked for from here on, and may be much for slow
    /// disks. The clock of the bound starts when it is done, or no leader has got on with it for a
    /// quarter of the bound.
    fn wait_for_backlog(&mut self, healed: &[NodeId], bound: u64) {
        let found = healed.iter().filter_map(|id| self.nodes[self.place(*id)].process.as_ref());
        let mut last = found.map(|process| process.replica.status().last).max().unwrap_or_default();
        let until = self.now + BACKLOG_BOUNDS * bound;
        let (mut most, mut since) = (0, self.now);
        while self.checks.violation().is_none() && self.now < until.min(since + bound / 4) {
            let leader = self.leader().map(|id| &self.nodes[self.place(id)]);
            if let Some(process) = leader.and_then(|node| node.process.as_ref()) {
                let status = process.replica.status();
                // What it does not have is never committed.
                last = last.min(status.last);
                if last <= status.applied {
                    return;
                }
                // Entries of earlier terms are all committed at once, after the last of them has arrived.
                let arrived =
                    process.replica.matched().into_iter().map(|(_, index)| index.min(last).0);
                let done = status.applied.0 + arrived.sum::<u64>();
                if most < done {
                    (most, since) = (done, self.now);
                }
            }
            self.run_until(self.now + SECOND);
        }
    }

    /// Whether every one of these members has served a write and a read, but for those that a broken
    /// leader does not reach or hear, or too late: nobody listens to who misses a leader that others
    /// hear.
    fn all_serve(&self, probed: &[NodeId]) -> bool {
        let leader = self.leader().unwrap_or_default();
        let is_cut_off = |id| !self.net.is_whole(leader, id) || !self.net.is_whole(id, leader);
        let serves = |id: &NodeId| self.probed[self.place(*id)] == (true, true);
        probed.iter().any(serves) && probed.iter().all(|id| serves(id) || is_cut_off(*id))
    }

    /// Whether the healed members are as many as there are to be and run, all of them voters, and know
    /// one of them to lead: the operator has nothing left to do.
    fn is_settled(&self, healed: &[NodeId]) -> bool {
        let conf = &self.checks.conf_state;
        let runs = |id: &NodeId| self.nodes[self.place(*id)].glance().is_some();
        let is_gone = |id: &NodeId| self.nodes[self.place(*id)].is_gone;
        let is_done = self.operator.is_done || self.plan.engine == Engine::Zab;
        // Who lost everything is refused before long, and has to be replaced then.
        let is_wiped = |id: &NodeId| self.nodes[self.place(*id)].damage == Damage::Wiped;
        self.is_left()
            && !self.operator.is_changing
            && !self.operator.whim
            && conf.learners.is_empty()
            && conf.voters.len() == self.plan.members + usize::from(self.operator.wants_more)
            && (is_done || !conf.voters.iter().any(is_gone))
            && !conf.voters.iter().any(|id| is_wiped(id) && !is_gone(id))
            && healed.iter().filter(|id| conf.voters.contains(id)).all(runs)
            && self.leader().is_some_and(|id| healed.contains(&id))
    }

    /// Autopilot replaces who is gone, and lets who has come vote, within a bound.
    fn wait_until_tended(&mut self, began: u64) {
        let until = self.now + self.tended_us();
        while self.checks.violation().is_none() && !self.is_tended() {
            if until <= self.now {
                let conf = self.checks.conf_state.clone();
                let took = (self.now - began) / SECOND;
                let gone = self.nodes.iter().filter(|node| node.is_gone).map(|node| node.id);
                let gone: Vec<NodeId> = gone.collect();
                self.checks.fail(format!(
                    "autopilot has not healed the cluster after {took} s: {conf:?}, gone {gone:?}"
                ));
                return;
            }
            self.run_until(self.now + SECOND);
        }
        self.checks.count("tended");
        self.wait_until_at_rest();
    }

    /// Whoever heals a cluster has nothing to do then. What may come in between, as a leader that learns late
    /// what its members are, comes a few times and no more.
    fn wait_until_at_rest(&mut self) {
        let (rest_us, before) = (self.rest_us(), self.pilot_changes());
        let most = 2 * self.members().len() as u64;
        let (mut changes, mut since) = (before, self.now);
        while self.checks.violation().is_none() && self.now < since + rest_us {
            self.run_until(self.now + SECOND);
            if changes < self.pilot_changes() {
                (changes, since) = (self.pilot_changes(), self.now);
            }
            if before + most < changes {
                let conf = self.checks.conf_state.clone();
                self.checks.fail(format!(
                    "autopilot makes {} changes in a healed cluster, and does not come to rest: {conf:?}",
                    changes - before
                ));
            }
        }
    }

    /// Whether the newest membership is a plain one.
    fn is_left(&self) -> bool {
        self.checks.conf_state.voters_outgoing.is_empty()
    }

    fn ledger_healed(&mut self, began: u64) {
        let seconds = (self.now - began) / SECOND;
        self.trace(NodeId(0), &format!("all healed members serve after {seconds} s"));
        self.checks.count("healed");
    }

    /// A minority of the voters that stays broken.
    fn draw_broken(&mut self) -> Vec<NodeId> {
        let conf = self.checks.conf_state.clone();
        let mut broken = Vec::new();
        // While the membership may change, a minority of today is none of tomorrow.
        if !conf.voters_outgoing.is_empty() || self.operator.is_changing || self.operator.whim {
            return broken;
        }
        // Whose disk is damaged may have to be replaced.
        let is_lost = |id: &&NodeId| {
            let node = &self.nodes[self.place(**id)];
            node.is_gone || node.damage != Damage::None
        };
        let gone = conf.voters.iter().filter(is_lost).count();
        let may = (conf.voters.len() - 1) / 2;
        if may <= gone || 0 < gone || conf.voters.len() < self.plan.members {
            return broken;
        }
        let count = self.chance.below(may as u64 + 1) as usize;
        let mut voters = conf.voters;
        for _ in 0..count {
            let at = self.chance.below(voters.len() as u64) as usize;
            broken.push(voters.remove(at));
        }
        if !broken.is_empty() {
            self.operator.is_done = true;
        }
        broken
    }

    fn break_for_good(&mut self, id: NodeId) {
        let at = self.place(id);
        let others: Vec<NodeId> = self.members().into_iter().filter(|it| *it != id).collect();
        match self.chance.below(4) {
            0 => {
                self.crash(id, true);
                self.nodes[at].is_gone = true;
            }
            1 => self.nodes[at].disk_hangs = true,
            2 => {
                for other in others {
                    self.net.cut(id, other);
                }
            }
            _ => {
                for other in others {
                    self.net.cut(other, id);
                }
            }
        }
    }
}
