//! Lives in which the operator has a hand too: members are held, settings change, leadership is moved or does not
//! go over, servers join that never start, and the dead are removed by hand. The quorum is never lost by that, and
//! once everybody is back and nothing happens any more autopilot comes to rest, with votes as they are wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::model::{Model, Peer};
use super::random::hasty;
use crate::*;

/// What happens, to one of so many.
#[derive(Clone, Debug)]
enum Whim {
    Kill(usize),
    Return(usize),
    Suspect(usize),
    Upgrade(usize, u8),
    Hold(usize),
    Release(usize),
    Lack(usize),
    Unable(usize),
    Lead(usize),
    Remove(usize),
    Join { zone: u8, version: u8, is_replica: bool, has_started: bool },
    Set(PolicyConfig),
    Quiet,
}

fn whims() -> impl Strategy<Value = Vec<Whim>> {
    let join = (0..4u8, 0..3u8, proptest::bool::weighted(0.1), proptest::bool::weighted(0.8));
    let join = join.prop_map(|(zone, version, is_replica, has_started)| Whim::Join {
        zone,
        version,
        is_replica,
        has_started,
    });
    let whim = prop_oneof![
        5 => (0..12usize).prop_map(Whim::Kill),
        4 => (0..12usize).prop_map(Whim::Return),
        2 => (0..12usize).prop_map(Whim::Suspect),
        3 => (0..12usize, 0..3u8).prop_map(|(who, version)| Whim::Upgrade(who, version)),
        1 => (0..12usize).prop_map(Whim::Hold),
        2 => (0..12usize).prop_map(Whim::Release),
        1 => (0..12usize).prop_map(Whim::Lack),
        1 => (0..12usize).prop_map(Whim::Unable),
        1 => (0..12usize).prop_map(Whim::Lead),
        3 => (0..12usize).prop_map(Whim::Remove),
        4 => join,
        1 => policies().prop_map(Whim::Set),
        2 => Just(Whim::Quiet),
    ];
    proptest::collection::vec(whim, 1..24)
}

fn policies() -> impl Strategy<Value = PolicyConfig> {
    (0..4u8, any::<bool>(), 1..6u64).prop_map(|(kind, migrates, target)| PolicyConfig {
        redundancy_zone_tag: if kind == 1 { "zone".into() } else { String::new() },
        disable_upgrade_migration: !migrates,
        target_voters: if kind == 2 { target } else { 0 },
        ..PolicyConfig::default()
    })
}

fn version(number: u8) -> String {
    format!("{}.0.0", number + 1)
}

struct Life {
    model: Model,
    policy: PolicyConfig,
}

impl Life {
    fn new(
        policy: &PolicyConfig,
        voters: usize,
        learners: usize,
        floor: u64,
        prunes: bool,
    ) -> Life {
        let mut model = Model::new();
        model.strictness = hasty();
        model.can_replace = true;
        model.promoter = Arc::new(PolicyPromoter::new());
        model.config.min_quorum = floor;
        model.config.cleanup_dead_servers = prunes;
        for number in 0..voters + learners {
            let suffrage = if number < voters { Suffrage::Voter } else { Suffrage::NonVoter };
            let mut peer = Peer { version: version(0), ..Peer::new(suffrage) };
            peer.meta.insert("zone".into(), (number % 3).to_string());
            model.peers.insert(ServerId(format!("s{number}")), peer);
        }
        let mut life = Life { model, policy: PolicyConfig::default() };
        life.set(policy);
        life.model.elect();
        life.model.wait(20);
        life
    }

    fn set(&mut self, policy: &PolicyConfig) {
        self.policy = policy.clone();
        if 0 < self.policy.target_voters {
            // Fewer than the floor would be refused.
            let floor = self.model.config.min_quorum;
            self.policy.target_voters = self.policy.target_voters.max(floor);
        }
        self.model.config.ext = Some(self.policy.to_ext());
    }

    fn one_of(&self, number: usize) -> Option<ServerId> {
        let ids: Vec<&ServerId> = self.model.peers.keys().collect();
        (!ids.is_empty()).then(|| ids[number % ids.len()].clone())
    }

    /// A voter goes only where another failure can be borne.
    fn may_go(&mut self, id: &ServerId) -> bool {
        self.model.update();
        !self.model.voters().contains(id) || 0 < self.model.state.failure_tolerance
    }

    fn happen(&mut self, whim: &Whim) {
        let who = match whim {
            Whim::Kill(who)
            | Whim::Return(who)
            | Whim::Suspect(who)
            | Whim::Upgrade(who, _)
            | Whim::Hold(who)
            | Whim::Release(who)
            | Whim::Lack(who)
            | Whim::Unable(who)
            | Whim::Lead(who)
            | Whim::Remove(who) => self.one_of(*who),
            Whim::Join { .. } | Whim::Set(_) | Whim::Quiet => None,
        };
        if let Whim::Set(policy) = whim {
            self.set(policy);
        }
        if let Whim::Join { zone, version: number, is_replica, has_started } = whim {
            let mut peer = Peer { version: version(*number), ..Peer::new(Suffrage::NonVoter) };
            peer.meta.insert("zone".into(), zone.to_string());
            if *is_replica {
                peer.meta.insert("read_replica".into(), "true".into());
            }
            if !has_started {
                peer.status = NodeStatus::Unknown;
            }
            self.model.index += 1;
            let id = ServerId(format!("j{}", self.model.index));
            self.model.peers.insert(id, peer);
        }
        let Some(id) = who else { return };
        let may_go = self.may_go(&id);
        match whim {
            Whim::Kill(_) if may_go => self.model.peer(id.as_str()).status = NodeStatus::Failed,
            Whim::Suspect(_) if may_go => self.model.peer(id.as_str()).is_well = false,
            Whim::Return(_) => self.heal(&id),
            Whim::Upgrade(_, number) => self.model.peer(id.as_str()).version = version(*number),
            Whim::Hold(_) => _ = self.model.config.held.insert(id),
            Whim::Release(_) => _ = self.model.config.held.remove(&id),
            Whim::Lack(_) => self.model.peer(id.as_str()).is_ready = false,
            Whim::Unable(_) => self.model.peer(id.as_str()).may_lead = false,
            Whim::Lead(_) if self.model.voters().contains(&id) && self.model.peers[&id].is_up() => {
                self.model.lead(Some(id));
            }
            Whim::Remove(_) if !self.model.peers[&id].is_up() => {
                let peer = self.model.peers.remove(&id).expect("just seen");
                if !self.model.has_quorum() || self.model.voters().is_empty() {
                    self.model.peers.insert(id, peer);
                }
            }
            _ => {}
        }
    }

    fn heal(&mut self, id: &ServerId) {
        let peer = self.model.peer(id.as_str());
        peer.status = NodeStatus::Alive;
        (peer.is_well, peer.is_ready, peer.may_lead) = (true, true, true);
    }

    /// An election if one is due, and a few rounds, each as the engine has it.
    fn go_on(&mut self, rounds: usize) -> Vec<String> {
        let mut changes = Vec::new();
        for _ in 0..rounds {
            self.model.elect();
            self.model.wait(10);
            let actions = self.model.round().map(|round| round.actions).unwrap_or_default();
            changes.extend(actions.iter().map(Action::to_string));
            if self.model.config.cleanup_dead_servers {
                changes.extend(self.model.prune().actions().map(Action::to_string));
            }
        }
        self.model.elect();
        changes
    }

    /// What is not as the policies want it, where everybody is well.
    fn is_wanting(&mut self) -> Option<String> {
        self.model.update();
        let (model, policy) = (&self.model, &self.policy);
        let has_tag = |peer: &Peer| peer.meta.contains_key("read_replica");
        let eligible: BTreeSet<&ServerId> =
            model.peers.iter().filter(|(_, peer)| !has_tag(peer)).map(|(id, _)| id).collect();
        let all = model.voters();
        let voters: BTreeSet<&ServerId> = all.iter().filter(|id| eligible.contains(id)).collect();
        let ext = model.state.ext.as_ref()?;
        let status = ext["upgrade"]["status"].as_str().unwrap_or_default();
        let zones = |ids: &BTreeSet<&ServerId>| -> BTreeSet<String> {
            ids.iter().map(|id| model.peers[*id].meta["zone"].clone()).collect()
        };
        // Old ones without a vote get none again.
        let is_over = matches!(status, "await-new-servers" | "await-server-removal");
        let newest = eligible.iter().map(|id| &model.peers[*id].version).max()?;
        let eligible: BTreeSet<&ServerId> = eligible
            .iter()
            .filter(|id| !is_over || model.peers[**id].version == *newest)
            .copied()
            .collect();
        let floor = (model.config.min_quorum as usize).min(eligible.len());
        let has_zones = !policy.redundancy_zone_tag.is_empty();
        match status {
            "disabled" | "idle" | "await-new-servers" | "await-server-removal" if has_zones => {
                let (wanted, have) = (zones(&eligible), zones(&voters));
                let most = wanted.len().max(floor);
                (wanted != have || most < voters.len())
                    .then(|| format!("zones {wanted:?}, voters {voters:?}"))
            }
            "disabled" | "idle" | "await-new-servers" | "await-server-removal" => {
                let target = match policy.target_voters {
                    0 => eligible.len(),
                    target => eligible.len().min(target as usize),
                };
                // One learner alone does not join one voter.
                let is_lone = voters.len() == 1 && (eligible.len() == 2 || target == 2);
                (voters.len() < target && !is_lone)
                    .then(|| format!("{target} of {eligible:?} are to vote, voters {voters:?}"))
            }
            // Of three one can be spared, of two none; but two zones have no more than two.
            "demoting"
                if (!has_zones || 2 < zones(&eligible).len())
                    && eligible
                        .iter()
                        .filter(|id| model.peers[**id].version == *newest)
                        .count()
                        < 3 =>
            {
                None
            }
            "promoting" | "demoting" | "leader-transfer" => Some(format!("it stays {status}")),
            _ => {
                // One alone is joined by two, or by none.
                // A zone with newer ones only waits with them, while an old one stands by in another.
                let is_old = |id: &&&ServerId| model.peers[**id].version != *newest;
                let of_old = zones(&eligible.iter().filter(is_old).copied().collect()).len();
                let least = if has_zones { floor.min(of_old) } else { floor };
                (1 < voters.len() && voters.len() < least)
                    .then(|| format!("{status}, and of {eligible:?} only {voters:?} vote"))
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn an_operator_with_whims_gets_a_cluster_at_rest_in_the_end(
        policy in policies(),
        prunes in any::<bool>(),
        voters in 1..6usize,
        learners in 0..4usize,
        floor in 1..4u64,
        whims in whims(),
    ) {
        let mut life = Life::new(&policy, voters, learners, floor, prunes);
        for whim in &whims {
            life.happen(whim);
            life.go_on(3);
            prop_assert!(life.model.has_quorum(), "{:?} of {:?}", whim, life.model.voters());
            prop_assert!(life.model.leader.is_some());
        }
        life.model.config.held.clear();
        let all: Vec<ServerId> = life.model.peers.keys().cloned().collect();
        all.iter().for_each(|id| life.heal(id));
        life.go_on(30);
        prop_assert_eq!(life.go_on(10), Vec::<String>::new(), "it never comes to rest");
        prop_assert_eq!(life.is_wanting(), None);
    }
}
