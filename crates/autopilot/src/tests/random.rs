//! What holds for any cluster and in any life.

use std::sync::Arc;

use proptest::prelude::*;

use super::model::{Model, Peer};
use crate::configuration::quorum;
use crate::*;

const VERSIONS: [&str; 4] = ["1.0.0", "2.0.0", "2.0.0-rc.1", ""];

/// As in the server, but without its delays, so that a short life has removals in it.
pub(super) fn hasty() -> Strictness {
    Strictness {
        dead_server_threshold: Span::from_secs(10),
        join_grace: Span::from_secs(10),
        damping: Some(Damping {
            flips: 4,
            window: Span::from_secs(600),
            stabilization_max: Span::from_secs(60),
        }),
        ..Strictness::server()
    }
}

/// One server: suffrage, status, whether it is well and known, zone, version, whether it is a replica.
type Draw = (u8, u8, bool, bool, u8, u8, bool);

fn draw() -> impl Strategy<Value = Draw> {
    let often = |odds: f64| proptest::bool::weighted(odds);
    (0..5u8, 0..8u8, often(0.8), often(0.85), 0..4u8, 0..4u8, often(0.1))
}

fn peer(draw: &Draw) -> Peer {
    let (suffrage, status, is_well, is_known, zone, version, is_replica) = *draw;
    let suffrage = match suffrage {
        0 | 1 => Suffrage::Voter,
        2 | 3 => Suffrage::NonVoter,
        _ => Suffrage::Staging,
    };
    let mut peer = Peer { is_well, is_known, ..Peer::new(suffrage) };
    peer.status = match status {
        0..=4 => NodeStatus::Alive,
        5 => NodeStatus::Failed,
        6 => NodeStatus::Left,
        _ => NodeStatus::Unknown,
    };
    peer.version = VERSIONS[usize::from(version)].to_owned();
    if zone < 3 {
        peer.meta.insert("zone".into(), zone.to_string());
    }
    if is_replica {
        peer.meta.insert("read_replica".into(), "true".into());
    }
    peer
}

fn cluster(draws: &[Draw], policy: Option<&PolicyConfig>, min_quorum: u64) -> Model {
    let mut model = Model::new();
    for (number, draw) in draws.iter().enumerate() {
        model.peers.insert(ServerId(format!("s{number}")), peer(draw));
    }
    if let Some(policy) = policy {
        model.promoter = Arc::new(PolicyPromoter::new());
        model.config.ext = Some(policy.to_ext());
    }
    model.config.min_quorum = min_quorum;
    model.elect();
    if model.leader.is_none() {
        model.leader = model.voters().first().cloned();
    }
    model.wait(20);
    model
}

fn policies() -> impl Strategy<Value = PolicyConfig> {
    (any::<bool>(), any::<bool>(), 0..5u64).prop_map(|(has_zones, is_off, target)| PolicyConfig {
        redundancy_zone_tag: if has_zones { "zone".into() } else { String::new() },
        disable_upgrade_migration: is_off,
        target_voters: if has_zones { 0 } else { target },
        ..PolicyConfig::default()
    })
}

fn servers() -> impl Strategy<Value = Vec<Draw>> {
    proptest::collection::vec(draw(), 1..10)
}

/// Healthy voters and all voters, once `round` was done.
fn after(model: &Model, actions: &[Action]) -> (usize, usize) {
    let mut voters: std::collections::BTreeMap<&ServerId, bool> =
        model.state.voters.iter().map(|id| (id, model.state.servers[id].health.healthy)).collect();
    for action in actions {
        match action {
            Action::AddVoter { id, .. } => _ = voters.insert(id, true),
            Action::ReplaceVoter { demoted, promoted, .. } => {
                voters.remove(demoted);
                voters.insert(promoted, true);
            }
            Action::DemoteVoter { id } | Action::RemoveServer { id } => _ = voters.remove(id),
            Action::RemoveFailedServer(server) => _ = voters.remove(&server.id),
            Action::AddNonvoter { .. } | Action::TransferLeadership { .. } => {}
        }
    }
    (voters.values().filter(|healthy| **healthy).count(), voters.len())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn with_all_policies_off_plans_are_the_stable_promoters(draws in servers()) {
        let off = PolicyConfig {
            disable_upgrade_migration: true,
            read_replica_tag: String::new(),
            ..PolicyConfig::default()
        };
        let model = cluster(&draws, Some(&off), 0);
        let want = StablePromoter.calculate_promotions_and_demotions(
            model.now, &model.config, &model.state);
        prop_assert_eq!(model.changes(), want);
    }

    #[test]
    fn no_plan_of_a_policy_costs_the_quorum(
        draws in servers(), policy in policies(), min_quorum in 0..5u64
    ) {
        let model = cluster(&draws, Some(&policy), min_quorum);
        let (healthy, voters) = after(&model, &[]);
        prop_assume!(quorum(voters) <= healthy);
        let changes = model.changes();
        // The whole plan at once, and what a round makes of it.
        let demoted = changes.demotions.iter().map(|id| Action::DemoteVoter { id: id.clone() });
        let promoted = changes.promotions.iter().map(|id| {
            Action::AddVoter { id: id.clone(), address: String::new() }
        });
        let whole: Vec<Action> = promoted.chain(demoted).collect();
        let round = model.plan(&changes).map(|round| round.actions).unwrap_or_default();
        for actions in [whole, round] {
            let (healthy, voters) = after(&model, &actions);
            prop_assert!(quorum(voters) <= healthy, "{:?}", actions);
        }
    }

    #[test]
    fn a_read_replica_is_never_promoted(draws in servers(), policy in policies()) {
        let model = cluster(&draws, Some(&policy), 0);
        for id in model.changes().promotions {
            prop_assert!(!model.peers[&id].meta.contains_key("read_replica"), "{}", id);
        }
    }

    #[test]
    fn a_round_has_one_class_of_change(
        draws in servers(),
        lists in (any::<u16>(), any::<u16>(), 0..12usize),
        is_strict in any::<bool>(),
        can_replace in any::<bool>(),
    ) {
        let mut model = cluster(&draws, None, 0);
        if is_strict {
            model.strictness = Strictness::server();
        }
        model.can_replace = can_replace;
        let of = |bits: u16| -> Vec<ServerId> {
            let numbers = (0..16).filter(|number| bits >> number & 1 == 1);
            numbers.map(|number| ServerId(format!("s{number}"))).collect()
        };
        let leader = Some(ServerId(format!("s{}", lists.2)));
        let changes = RaftChanges { promotions: of(lists.0), demotions: of(lists.1), leader, ..RaftChanges::default() };
        let Ok(round) = model.plan(&changes) else { return Ok(()) };
        let count = |is: fn(&Action) -> bool| round.actions.iter().filter(|action| is(action)).count();
        let promotions = count(|action| matches!(action, Action::AddVoter { .. }));
        let demotions = count(|action| matches!(action, Action::DemoteVoter { .. }));
        let swaps = count(|action| matches!(action, Action::ReplaceVoter { .. }));
        let transfers = count(|action| matches!(action, Action::TransferLeadership { .. }));
        prop_assert!(transfers == 0 || round.actions.len() == 1);
        prop_assert!(promotions == 0 || demotions + swaps <= 1, "{:?}", round.actions);
        prop_assert!(swaps <= 1 && (swaps == 0 || demotions == 0));
        if is_strict {
            let (healthy_before, voters_before) = after(&model, &[]);
            let (healthy, voters) = after(&model, &round.actions);
            prop_assert!(
                healthy_before < quorum(voters_before) || quorum(voters) <= healthy,
                "{:?}", round.actions
            );
        }
    }

    #[test]
    fn no_strict_prune_costs_the_quorum(draws in servers(), min_quorum in 0..5u64) {
        // Each of these rules, and nothing that only delays a removal.
        let strictness = Strictness {
            leader_stays: true,
            quorum_stays: true,
            stale_voters_count: true,
            unknown_is_not_failed: true,
            one_voter_a_prune: true,
            ..Strictness::parity()
        };
        let mut model = cluster(&draws, None, min_quorum);
        model.strictness = strictness;
        let actions: Vec<Action> = model.plan_prune().actions().cloned().collect();
        let (healthy_before, voters_before) = after(&model, &[]);
        let (healthy, voters) = after(&model, &actions);
        if quorum(voters_before) <= healthy_before {
            prop_assert!(quorum(voters) <= healthy, "{:?}", actions);
        }
        prop_assert!(voters_before <= voters + 1, "one voter a prune");
        for action in &actions {
            let id = match action {
                Action::RemoveServer { id } => id,
                Action::RemoveFailedServer(server) => &server.id,
                other => panic!("{other}"),
            };
            prop_assert_ne!(Some(id), model.state.leader.as_ref());
            let peer = &model.peers[id];
            prop_assert!(!peer.is_known || peer.status != NodeStatus::Unknown);
        }
    }

    #[test]
    fn healthy_zones_come_to_one_voter_each(
        zones in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 1..4), 1..5)
    ) {
        prop_assume!(zones.iter().flatten().any(|votes| *votes));
        let mut model = zoned(&zones.iter().map(Vec::len).collect::<Vec<_>>());
        for (zone, votes) in zones.iter().enumerate() {
            for (number, votes) in votes.iter().enumerate() {
                let suffrage = if *votes { Suffrage::Voter } else { Suffrage::NonVoter };
                model.peer(&format!("z{zone}-{number}")).suffrage = Some(suffrage);
            }
        }
        model.elect();
        model.wait(20);
        for _ in 0..2 * zones.len() {
            let _ = model.round();
        }
        let voters = model.voters();
        for zone in 0..zones.len() {
            let of_zone = voters.iter().filter(|id| id.as_str().starts_with(&format!("z{zone}-")));
            prop_assert_eq!(of_zone.count(), 1, "zone {} of {:?}", zone, &voters);
        }
        prop_assert_eq!(model.round().unwrap().actions, []);
    }

    #[test]
    fn servers_have_one_order(draws in servers()) {
        let model = cluster(&draws, None, 0);
        let ids: Vec<&ServerId> = model.state.servers.keys().collect();
        let less = |a: usize, b: usize| server_less_than(ids[a], ids[b], &model.state);
        for a in 0..ids.len() {
            for b in 0..ids.len() {
                prop_assert_eq!(less(a, b) || less(b, a), a != b);
                for c in 0..ids.len() {
                    prop_assert!(!(less(a, b) && less(b, c)) || less(a, c));
                }
            }
        }
    }
}

/// What happens to a cluster, one at a time.
#[derive(Clone, Debug)]
enum Event {
    Kill(usize),
    Return(usize),
    Suspect(usize),
    Well(usize),
    Upgrade(usize),
    Join(u8),
    Quiet,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..12usize).prop_map(Event::Kill),
        4 => (0..12usize).prop_map(Event::Return),
        2 => (0..12usize).prop_map(Event::Suspect),
        2 => (0..12usize).prop_map(Event::Well),
        2 => (0..12usize).prop_map(Event::Upgrade),
        1 => (0..3u8).prop_map(Event::Join),
        1 => Just(Event::Quiet),
    ];
    proptest::collection::vec(event, 1..16)
}

struct Life {
    model: Model,
}

impl Life {
    fn new(policy: &PolicyConfig, strictness: Strictness, min_quorum: u64, prunes: bool) -> Life {
        let mut model = Model::new();
        model.strictness = strictness;
        model.promoter = Arc::new(PolicyPromoter::new());
        model.config.ext = Some(policy.to_ext());
        model.config.min_quorum = min_quorum;
        model.config.cleanup_dead_servers = prunes;
        for number in 0..6 {
            let suffrage = if number < 3 { Suffrage::Voter } else { Suffrage::NonVoter };
            let mut peer = Peer { version: "1.0.0".into(), ..Peer::new(suffrage) };
            peer.meta.insert("zone".into(), (number % 3).to_string());
            model.peers.insert(ServerId(format!("s{number}")), peer);
        }
        model.elect();
        model.wait(20);
        Life { model }
    }

    fn one_of(&self, number: usize) -> Option<ServerId> {
        let ids: Vec<&ServerId> = self.model.peers.keys().collect();
        (!ids.is_empty()).then(|| ids[number % ids.len()].clone())
    }

    fn happen(&mut self, event: &Event) {
        self.model.update();
        let tolerance = self.model.state.failure_tolerance;
        match event {
            Event::Kill(number) | Event::Suspect(number) => {
                let Some(id) = self.one_of(*number) else { return };
                let is_voter = self.model.voters().contains(&id);
                if is_voter && tolerance == 0 {
                    return;
                }
                let peer = self.model.peer(id.as_str());
                match event {
                    Event::Kill(_) => peer.status = NodeStatus::Failed,
                    _ => peer.is_well = false,
                }
            }
            Event::Return(number) | Event::Well(number) => {
                let Some(id) = self.one_of(*number) else { return };
                let peer = self.model.peer(id.as_str());
                (peer.status, peer.is_well) = (NodeStatus::Alive, true);
            }
            Event::Upgrade(number) => {
                let Some(id) = self.one_of(*number) else { return };
                self.model.peer(id.as_str()).version = "2.0.0".into();
            }
            Event::Join(zone) => {
                let id = ServerId(format!("j{}", self.model.index));
                let mut peer = Peer { version: "2.0.0".into(), ..Peer::new(Suffrage::NonVoter) };
                peer.meta.insert("zone".into(), zone.to_string());
                self.model.peers.insert(id, peer);
            }
            Event::Quiet => {}
        }
    }

    /// An election if one is due, and a few rounds.
    fn go_on(&mut self, rounds: usize) -> usize {
        let mut changed = 0;
        for _ in 0..rounds {
            self.model.elect();
            self.model.wait(10);
            if let Ok(round) = self.model.round() {
                changed += round.actions.len();
            }
            if self.model.config.cleanup_dead_servers {
                changed += self.model.prune().actions().count();
            }
        }
        self.model.elect();
        changed
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn a_cluster_keeps_a_leader_and_comes_to_rest(
        policy in policies(),
        is_strict in any::<bool>(),
        prunes in any::<bool>(),
        min_quorum in 0..4u64,
        events in events(),
    ) {
        let strictness = match is_strict {
            true => hasty(),
            false => Strictness::parity(),
        };
        let mut life = Life::new(&policy, strictness, min_quorum, prunes);
        for event in &events {
            life.happen(event);
            life.go_on(3);
            prop_assert!(life.model.has_quorum(), "{:?} of {:?}", event, life.model.voters());
            prop_assert!(life.model.leader.is_some());
        }
        // Everybody comes back, and in the end nothing moves any more.
        for number in 0..life.model.peers.len() {
            life.happen(&Event::Return(number));
        }
        life.go_on(25);
        prop_assert_eq!(life.go_on(10), 0, "it never comes to rest");
    }
}

/// Zones by their sizes, with all servers healthy and at rest.
fn zoned(sizes: &[usize]) -> Model {
    let mut model = Model::new();
    model.promoter = Arc::new(PolicyPromoter::new());
    let policy = PolicyConfig { redundancy_zone_tag: "zone".into(), ..PolicyConfig::default() };
    model.config.ext = Some(policy.to_ext());
    for (zone, size) in sizes.iter().enumerate() {
        for number in 0..*size {
            let suffrage = if number == 0 { Suffrage::Voter } else { Suffrage::NonVoter };
            let mut peer = Peer::new(suffrage);
            peer.meta.insert("zone".into(), zone.to_string());
            model.peers.insert(ServerId(format!("z{zone}-{number}")), peer);
        }
    }
    model.elect();
    model.wait(20);
    model
}

fn optimistic(model: &Model) -> u64 {
    model.state.ext.as_ref().unwrap()["optimistic_failure_tolerance"].as_u64().unwrap()
}

#[test]
fn the_optimistic_tolerance_can_be_reached_and_not_passed() {
    for (sizes, voters, tolerance, want) in [
        (&[2, 2][..], 2, 0, 2),
        (&[2, 2, 2], 3, 1, 4),
        (&[3, 3, 3], 3, 1, 7),
        (&[2, 2, 2, 2, 2], 5, 2, 7),
        (&[3, 2], 2, 0, 3),
    ] {
        let mut model = zoned(sizes);
        let state = &model.state;
        let got = (state.voters.len(), state.failure_tolerance, optimistic(&model));
        assert_eq!(got, (voters, tolerance, want), "{sizes:?}");

        // Those that stand by first, then voters, with rounds in between.
        for count in 0..=want {
            let voting = model.voters();
            let is_up = |id: &&ServerId| model.peers[*id].is_up();
            let waiting = model.peers.keys().find(|id| !voting.contains(id) && is_up(id)).cloned();
            let next = waiting.or_else(|| voting.iter().rfind(is_up).cloned()).unwrap();
            model.peer(next.as_str()).status = NodeStatus::Failed;
            model.elect();
            assert_eq!(model.has_quorum(), count < want, "{sizes:?} after {}", count + 1);
            for _ in 0..3 {
                model.wait(10);
                let _ = model.round();
            }
        }
    }
}

#[test]
fn without_zones_the_optimistic_tolerance_is_the_tolerance() {
    let mut model = zoned(&[3, 3, 3]);
    model.config.ext = None;
    model.update();
    assert_eq!((model.state.failure_tolerance, optimistic(&model)), (1, 1));
}
