//! What a seed's cluster is told: autopilot's settings, and how often it looks at its members.

use quorate_autopilot::{PolicyConfig, Settings, Span};

use crate::chance::Chance;
use crate::plan::{Plan, SECOND};

/// What the promise of healing has to allow for besides: elections, machines that come, snapshots.
const TENDED_US: u64 = 120 * SECOND;

/// The same for a cluster as long as it lives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) settings: Settings,
    /// Between two states, and between two rounds.
    pub(crate) update_us: u64,
    pub(crate) round_us: u64,
    /// How many zones the machines stand in.
    pub(crate) zones: u64,
    /// Whether the operator takes the policies back and sets them again, while things go wrong.
    pub(crate) turns: bool,
}

impl Told {
    /// What it is told while the operator has taken the policies back.
    pub(crate) fn without_policies(plan: &Plan) -> Told {
        let mut told = Told::of(plan);
        told.settings.policy = policy(0);
        told
    }

    /// What it is told in the end.
    pub(crate) fn of(plan: &Plan) -> Told {
        let chance = &mut Chance::new(plan.cluster);
        let members = plan.members as u64;
        let seconds = |chance: &mut Chance, of: &[i64]| Span::from_secs(*chance.pick(of));
        let mut settings = Settings {
            dead_server_threshold: seconds(chance, &[10, 20, 40]),
            join_grace: seconds(chance, &[0, 10, 20, 60]),
            policy: policy(plan.cluster >> 16),
            ..Settings::default()
        };
        let (zones, target) =
            (&settings.policy.redundancy_zone_tag, &mut settings.policy.target_voters);
        // As many as there are members; one of them more is there, and stands by.
        let most = if *target == 0 || chance.percent(50) { members } else { members.max(5) - 2 };
        let most = most.min(members);
        let zone_count = *Chance::new(plan.cluster >> 18).pick(&[2, 2, 3, 3, 5]);
        // One a zone, however many members there are.
        let most_kept = if zones.is_empty() { most } else { most.min(zone_count) };
        if 0 < *target {
            *target = most;
        }
        if !zones.is_empty() && chance.percent(30) {
            settings.policy.disable_upgrade_migration = false;
        }
        let config = &mut settings.config;
        config.cleanup_dead_servers = chance.percent(75);
        config.min_quorum = most_kept.min(*chance.pick(&[1, 3, 3, 5]));
        config.server_stabilization_time = seconds(chance, &[2, 5, 5, 10, 20]);
        config.max_trailing_logs = *chance.pick(&[100, 200, 1_000, 10_000]);
        let contact_us = *chance.pick(&[1, 2, 2, 4]) * plan.election_us();
        config.last_contact_threshold = Span(i64::try_from(contact_us * 1000).unwrap_or(i64::MAX));
        let update_us = *chance.pick(&[1, 2, 2, 4]) * SECOND;
        let round_us = *chance.pick(&[3, 10, 10, 20]) * SECOND;
        let turns = settings.policy != policy(0) && chance.percent(60);
        Told { settings, update_us, round_us, zones: zone_count, turns }
    }

    pub(crate) fn stable_us(&self) -> u64 {
        self.settings.config.server_stabilization_time.0.unsigned_abs() / 1000
    }

    pub(crate) fn dead_us(&self) -> u64 {
        self.settings.dead_server_threshold.0.unsigned_abs() / 1000
    }

    /// The smallest number of voters that these settings may bring a cluster of so many members to, while all of
    /// them are well. Zones may come to be fewer with each machine that takes the place of a lost one: then
    /// nothing but the floor keeps more.
    pub(crate) fn voters_min(&self, members: usize) -> usize {
        let policy = &self.settings.policy;
        let floor = usize::try_from(self.settings.config.min_quorum).unwrap_or(usize::MAX);
        let wanted = if !policy.redundancy_zone_tag.is_empty() {
            floor
        } else if 0 < policy.target_voters {
            policy.target_voters as usize
        } else if !policy.disable_upgrade_migration {
            // As many newer ones as old ones, and no more of the old ones.
            floor.max(members.div_ceil(2))
        } else {
            members
        };
        wanted.clamp(1, members)
    }

    /// Whether a healed cluster may have learners.
    pub(crate) fn lets_learners_wait(&self) -> bool {
        self.settings.policy != policy(0)
    }

    /// How long autopilot may take to heal a cluster in which nothing goes wrong any more.
    pub(crate) fn tended_us(&self) -> u64 {
        TENDED_US + 12 * self.round_us + 4 * self.stable_us() + 4 * self.dead_us()
    }

    /// How long autopilot has to stand still, in a cluster that is healed, to be at rest.
    pub(crate) fn rest_us(&self) -> u64 {
        3 * self.round_us + 2 * self.stable_us() + self.dead_us()
    }
}

/// Every fourth cluster has zones, every fourth is moved to newer members, and every fourth has a spare.
fn policy(number: u64) -> PolicyConfig {
    let settled = PolicyConfig { disable_upgrade_migration: true, ..PolicyConfig::default() };
    match number % 4 {
        0 => settled,
        1 => PolicyConfig { redundancy_zone_tag: "zone".to_owned(), ..settled },
        2 => PolicyConfig { disable_upgrade_migration: false, ..settled },
        // How many that is, the cluster says.
        _ => PolicyConfig { target_voters: 1, ..settled },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Options;

    #[test]
    fn seeds_tell_their_clusters_different_things_that_fit_together() {
        let mut seen = BTreeSet::new();
        for seed in 1..200 {
            let plan = Plan::draw(seed, &Options { autopilot: true, ..Options::default() });
            let told = Told::of(&plan);
            assert_eq!(told, Told::of(&plan), "the same at any time");
            let (config, policy) = (&told.settings.config, &told.settings.policy);
            assert!((1..=plan.members as u64).contains(&config.min_quorum), "{seed}: {config:?}");
            assert!(policy.target_voters <= plan.members as u64, "{seed}: {policy:?}");
            assert!(policy.target_voters == 0 || config.min_quorum <= policy.target_voters);
            seen.insert(format!("cleanup {}", config.cleanup_dead_servers));
            seen.insert(format!("floor {}", config.min_quorum));
            seen.insert(format!("policy {policy:?}"));
            seen.insert(format!("stable {}", config.server_stabilization_time));
            seen.insert(format!("every {} and {}", told.update_us, told.round_us));
            seen.insert(format!("{} zones", told.zones));
            seen.insert(format!("turns {}", told.turns));
            assert!(!told.turns || Told::without_policies(&plan) != told, "{seed}: {told:?}");
            let fewest = told.voters_min(plan.members);
            assert!((1..=plan.members).contains(&fewest), "{seed}: {fewest}");
            assert!(policy.target_voters == 0 || fewest as u64 <= policy.target_voters);
        }
        assert!(30 < seen.len(), "{seen:?}");
    }
}
