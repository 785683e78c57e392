//! The network between members: each direction of each pair for itself.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::NodeId;

use crate::chance::Chance;
use crate::plan::NetworkPlan;

/// Which ways are cut, and how long messages take on the others.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) plan: NetworkPlan,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Until when messages take longer, and by how much.
    slow: BTreeMap<(NodeId, NodeId), u64>,
    /// Whether messages come in the order in which they were sent, as on the connections of real members.
    keeps_order: bool,
    /// When the last message on a way arrives.
    last: BTreeMap<(NodeId, NodeId), u64>,
    /// When the last piece of a stream arrives: the next one comes after it.
    streams: BTreeMap<u64, u64>,
}

impl Network {
    pub(crate) fn new(plan: NetworkPlan) -> Network {
        Network {
            plan,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            keeps_order: false,
            last: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Whether what goes this way comes, and when it usually does.
    pub(crate) fn is_whole(&self, from: NodeId, to: NodeId) -> bool {
        !self.is_cut(from, to) && !self.slow.contains_key(&(from, to))
    }

    pub(crate) fn slow_down(&mut self, from: NodeId, to: NodeId, by_us: u64) {
        self.slow.insert((from, to), by_us);
    }

    /// Takes all cuts and delays back that `keeps` does not want to keep.
    pub(crate) fn heal(&mut self, keeps: impl Fn(NodeId, NodeId) -> bool) {
        self.cut.retain(|(from, to)| keeps(*from, *to));
        self.slow.retain(|(from, to), _| keeps(*from, *to));
    }

    /// From here on nothing is lost, doubled or overtaken by chance.
    pub(crate) fn calm(&mut self) {
        let delay_us = self.plan.delay_us;
        self.plan = NetworkPlan { delay_us, jitter_us: 50, loss_permille: 0, twice_permille: 0 };
        self.keeps_order = true;
    }

    /// After how long a message arrives; nothing if it is lost.
    pub(crate) fn delay(&self, chance: &mut Chance, from: NodeId, to: NodeId) -> Option<u64> {
        if self.is_cut(from, to) || chance.permille(self.plan.loss_permille) {
            return None;
        }
        Some(self.time(chance, from, to))
    }

    pub(crate) fn comes_twice(&self, chance: &mut Chance) -> bool {
        chance.permille(self.plan.twice_permille)
    }

    /// When a message arrives that would do so at this time, and whether it overtakes another.
    pub(crate) fn arrives(&mut self, from: NodeId, to: NodeId, time: u64) -> (u64, bool) {
        let last = self.last.entry((from, to)).or_default();
        let overtakes = time < *last;
        *last = time.max(*last);
        if self.keeps_order { (*last, false) } else { (time, overtakes) }
    }

    /// When the next piece of a stream arrives.
    pub(crate) fn stream(
        &mut self,
        chance: &mut Chance,
        now: u64,
        from: NodeId,
        to: NodeId,
        transfer: u64,
    ) -> u64 {
        let time = now + self.time(chance, from, to);
        let last = self.streams.entry(transfer).or_default();
        *last = time.max(*last + 1);
        *last
    }

    fn time(&self, chance: &mut Chance, from: NodeId, to: NodeId) -> u64 {
        let slow = self.slow.get(&(from, to)).copied().unwrap_or(0);
        self.plan.delay_us + chance.below(self.plan.jitter_us + 1) + slow
    }
}
