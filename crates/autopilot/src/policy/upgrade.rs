//! Votes and leadership go over from old servers to a full set of newer ones.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quorate_types::bug;
use semver::Version;

use crate::prune::is_due;
use crate::server::ServerId;
use crate::state::tolerance;

use super::PolicyMemory;
use super::view::View;

/// How a migration stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpgradeStatus {
    /// Migration is switched off.
    Disabled,
    /// All servers are of one version.
    #[default]
    Idle,
    /// There are newer servers, and not enough of them to take over.
    AwaitNewVoters,
    /// The newer ones get votes.
    Promoting,
    /// The old ones lose theirs.
    Demoting,
    /// The old leader hands over.
    LeaderTransfer,
    /// No old one votes, and there are fewer newer servers than old ones.
    AwaitNewServers,
    /// No old one votes: they can be removed.
    AwaitServerRemoval,
}

impl UpgradeStatus {
    /// As operators see it.
    pub fn as_str(self) -> &'static str {
        match self {
            UpgradeStatus::Disabled => "disabled",
            UpgradeStatus::Idle => "idle",
            UpgradeStatus::AwaitNewVoters => "await-new-voters",
            UpgradeStatus::Promoting => "promoting",
            UpgradeStatus::Demoting => "demoting",
            UpgradeStatus::LeaderTransfer => "leader-transfer",
            UpgradeStatus::AwaitNewServers => "await-new-servers",
            UpgradeStatus::AwaitServerRemoval => "await-server-removal",
        }
    }

    /// Whether votes and leadership go over.
    pub(super) fn is_going_over(self) -> bool {
        matches!(
            self,
            UpgradeStatus::Promoting | UpgradeStatus::Demoting | UpgradeStatus::LeaderTransfer
        )
    }

    /// Whether the voters of this moment are as many as there ought to be.
    pub(super) fn is_settled(self) -> bool {
        matches!(
            self,
            UpgradeStatus::Disabled | UpgradeStatus::Idle | UpgradeStatus::AwaitServerRemoval
        )
    }
}

impl fmt::Display for UpgradeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A migration, or that there is none.
pub(super) struct Upgrade<'a> {
    pub(super) status: UpgradeStatus,
    /// The version of each server, and the one all are to have; nothing if that cannot be told.
    pub(super) versions: Option<Versions<'a>>,
    /// Eligible voters of a lower version, healthy or not, but those that are held.
    old_voters: Vec<&'a ServerId>,
    /// Eligible voters of a lower version that are held.
    pub(super) held_old_voters: Vec<&'a ServerId>,
    /// Healthy eligible voters of the target version.
    new_voters: Vec<&'a ServerId>,
    /// Those of the target version that can be promoted; with zones one of each zone that has no new voter.
    new_candidates: Vec<&'a ServerId>,
    /// With zones, those that can be promoted beside them.
    new_spares: Vec<&'a ServerId>,
    /// How many new voters it takes.
    pub(super) baseline: usize,
    /// How many eligible voters there ought to be, as far as is known.
    size: usize,
    /// How many there are or could be.
    pub(super) ready: usize,
    /// The first zone that would be worse off with its new servers.
    pub(super) weaker_zone: Option<&'a str>,
}

pub(super) struct Versions<'a> {
    pub(super) of: BTreeMap<&'a ServerId, Version>,
    pub(super) target: Version,
}

/// Whether migrations can compare a version: others count as the leader's.
pub fn is_version(text: &str) -> bool {
    Version::parse(text).is_ok()
}

/// Whether a migration would go from `version` to `other`; not if either is none that it can compare.
pub fn is_older_version(version: &str, other: &str) -> bool {
    match (Version::parse(version), Version::parse(other)) {
        (Ok(version), Ok(other)) => version.cmp_precedence(&other).is_lt(),
        _ => false,
    }
}

impl<'a> Versions<'a> {
    /// Nothing if a server has no usable version and the leader has none either.
    fn new(view: &View<'a>) -> Option<Versions<'a>> {
        let parsed =
            |id: &ServerId| Version::parse(view.settings.version(&view.server(id).server)).ok();
        let of_leader = view.state.leader.as_ref().and_then(parsed);
        let mut of = BTreeMap::new();
        for id in view.state.servers.keys() {
            // Taken for the leader's: else it would be demoted after the next election.
            of.insert(id, parsed(id).or_else(|| of_leader.clone())?);
        }
        // A read replica takes nothing over, whatever it runs.
        let counts = |id: &&&ServerId| view.is_alive(id) || view.server(id).has_voting_rights();
        let counted = view.eligible.iter().filter(counts).filter_map(|id| of.get(*id));
        let target = counted.max_by(|a, b| a.cmp_precedence(b))?.clone();
        Some(Versions { of, target })
    }

    fn compare(&self, id: &ServerId) -> Ordering {
        self.of.get(id).map_or(Ordering::Equal, |version| version.cmp_precedence(&self.target))
    }

    pub(super) fn is_target(&self, id: &ServerId) -> bool {
        self.compare(id).is_eq()
    }

    fn are_different(&self, id: &ServerId, other: &ServerId) -> bool {
        let versions = self.of.get(id).zip(self.of.get(other));
        versions.is_some_and(|(version, other)| version.cmp_precedence(other).is_ne())
    }

    fn is_lower(&self, id: &ServerId) -> bool {
        self.compare(id).is_lt()
    }
}

impl<'a> Upgrade<'a> {
    pub(super) fn new(view: &View<'a>, memory: PolicyMemory) -> Upgrade<'a> {
        let mut upgrade = Upgrade {
            status: UpgradeStatus::Disabled,
            versions: Versions::new(view),
            old_voters: Vec::new(),
            held_old_voters: Vec::new(),
            new_voters: Vec::new(),
            new_candidates: Vec::new(),
            new_spares: Vec::new(),
            baseline: 0,
            size: 0,
            ready: 0,
            weaker_zone: None,
        };
        if view.settings.disable_upgrade_migration {
            return upgrade;
        }
        upgrade.status = UpgradeStatus::Idle;
        let Some(versions) = &upgrade.versions else { return upgrade };
        let counts = |id: &ServerId| view.is_alive(id) || view.server(id).has_voting_rights();
        let is_old = |id: &ServerId| counts(id) && versions.is_lower(id);
        if !view.state.servers.keys().any(is_old) {
            return upgrade;
        }
        let voters = |is: &dyn Fn(&ServerId) -> bool| -> Vec<&'a ServerId> {
            view.eligible_voters().filter(|id| is(id)).collect()
        };
        // Who is held keeps its vote: the migration does without it.
        upgrade.old_voters = voters(&|id| versions.is_lower(id) && !view.is_held(id));
        upgrade.held_old_voters = voters(&|id| versions.is_lower(id) && view.is_held(id));
        let takes_over = |id: &ServerId| view.is_healthy(id) || bug!("votes-go-over-to-the-dead");
        upgrade.new_voters = voters(&|id| versions.is_target(id) && takes_over(id));
        (upgrade.new_candidates, upgrade.new_spares) =
            new_candidates(view, versions, &upgrade.new_voters);

        let floor = usize::try_from(view.config.min_quorum).unwrap_or(usize::MAX);
        // More may vote than are wanted: those that take over are no more than that.
        let most = view.voters_max().unwrap_or(usize::MAX);
        let settled = memory.settled.min(most);
        upgrade.size = settled.max(floor);
        let settled = settled.saturating_sub(upgrade.held_old_voters.len());
        upgrade.baseline = upgrade.old_voters.len().max(settled).min(most).max(floor);
        upgrade.ready = upgrade.new_voters.len();
        upgrade.weaker_zone = weaker_zone(view, versions);
        let is_redundant = upgrade.weaker_zone.is_none();
        upgrade.status = if upgrade.old_voters.is_empty() {
            let eligible =
                |is: &dyn Fn(&ServerId) -> bool| view.eligible.iter().filter(|id| is(id)).count();
            let new_count = eligible(&|id| versions.is_target(id) && view.is_alive(id));
            match new_count < eligible(&is_old) {
                true => UpgradeStatus::AwaitNewServers,
                false => UpgradeStatus::AwaitServerRemoval,
            }
        } else if upgrade.baseline <= upgrade.ready && is_redundant {
            let is_leader = |id: &&ServerId| view.state.leader.as_ref() == Some(*id);
            match upgrade.old_voters.iter().all(is_leader) {
                true => UpgradeStatus::LeaderTransfer,
                false => UpgradeStatus::Demoting,
            }
        } else {
            upgrade.ready += upgrade.new_candidates.len();
            // Where the floor is above the number of zones that are left, some of them have more than one.
            let missing = upgrade.baseline.saturating_sub(upgrade.ready);
            let living = view.living_voters_max().unwrap_or(usize::MAX);
            let beside = floor.saturating_sub(living).min(missing);
            upgrade.ready += upgrade.new_spares.len().min(beside);
            match upgrade.baseline <= upgrade.ready && is_redundant {
                true => UpgradeStatus::Promoting,
                false => UpgradeStatus::AwaitNewVoters,
            }
        };
        upgrade
    }

    /// How many eligible voters there ought to be, to be remembered. While old ones are held this is what it was
    /// before; who does not know that takes those of now, of an even number one less, which tolerates as much.
    pub(super) fn settled(&self, view: &View<'_>, memory: PolicyMemory) -> usize {
        let voters = view.eligible_voters().count();
        let others_are_done = self.status == UpgradeStatus::AwaitNewServers;
        match (self.held_old_voters.is_empty(), memory.settled) {
            (true, _) if self.status.is_settled() => voters,
            (false, before) if self.status.is_settled() || others_are_done => match before {
                0 => voters - usize::from(voters.is_multiple_of(2)),
                _ => before.min(voters),
            },
            (_, before) => before,
        }
    }

    /// Old voters but the leader: the unhealthy first, then as many of the others as can be spared.
    pub(super) fn demotions(&self, view: &View<'_>) -> Vec<ServerId> {
        let others = self.old_voters.iter().filter(|id| view.state.leader.as_ref() != Some(**id));
        let (healthy, unhealthy): (Vec<&ServerId>, Vec<&ServerId>) =
            others.copied().partition(|id| view.is_healthy(id));
        unhealthy.into_iter().chain(healthy).cloned().collect()
    }

    pub(super) fn new_leader(&self, view: &View<'a>) -> Option<ServerId> {
        view.best_leader(&self.new_voters).cloned()
    }

    /// All that can be; where the number of voters is limited, no more than it takes.
    pub(super) fn promotions(&self, view: &View<'_>) -> Vec<ServerId> {
        let wanted = view.voters_max().map_or(usize::MAX, |_| self.baseline);
        self.promotions_up_to(wanted, view)
    }

    /// Beside those that take over, as many as may vote.
    pub(super) fn further_promotions(&self, view: &View<'_>) -> Vec<ServerId> {
        self.promotions_up_to(view.voters_max().unwrap_or(usize::MAX), view)
    }

    /// Until so many new ones vote. With zones one of each zone that has no new voter comes in any case.
    fn promotions_up_to(&self, wanted: usize, view: &View<'_>) -> Vec<ServerId> {
        let least = if view.settings.has_zones() { self.new_candidates.len() } else { 0 };
        let missing = wanted.saturating_sub(self.new_voters.len()).max(least);
        let candidates = self.new_candidates.iter().chain(&self.new_spares);
        candidates.take(missing).map(|id| (*id).clone()).collect()
    }

    /// A new voter that has failed for good, as far as can be seen.
    pub(super) fn dead_new_voter(&self, view: &View<'a>) -> Option<&'a ServerId> {
        let versions = self.versions.as_ref()?;
        let is_leader = |id: &ServerId| view.state.leader.as_ref() == Some(id);
        let is_dead = |id: &&ServerId| {
            versions.is_target(id) && view.is_failed_for_long(id) && !is_leader(id)
        };
        view.eligible_voters().filter(is_dead).last()
    }

    /// Whether a voter stays beside one of another version in its zone: while a migration waits, the votes that
    /// have gone over there are not given back, for it may go on in a moment.
    pub(super) fn is_halfway(&self, view: &View<'_>, id: &ServerId) -> bool {
        let (UpgradeStatus::AwaitNewVoters, Some(versions), Some(zone)) =
            (self.status, &self.versions, view.zone(id))
        else {
            return false;
        };
        let is_sound = |id: &ServerId| !view.is_failed_voter(id);
        let is_other =
            |other: &ServerId| view.zone(other) == Some(zone) && versions.are_different(other, id);
        is_sound(id) && view.eligible_voters().any(|other| is_sound(other) && is_other(other))
    }

    /// Who stands in a zone: also who is withheld, but no old one once all votes have gone over.
    pub(super) fn present(&self, view: &View<'a>) -> Vec<&'a ServerId> {
        match self.status {
            UpgradeStatus::AwaitNewVoters => view.eligible.clone(),
            _ => self.active(view),
        }
    }

    /// Who takes part in the usual policy.
    pub(super) fn active(&self, view: &View<'a>) -> Vec<&'a ServerId> {
        let Some(versions) = &self.versions else { return view.eligible.clone() };
        let returning = self.returning(view, versions);
        let relieving = self.relieving(view, versions);
        let takes_part = |id: &&'a ServerId| match self.status {
            UpgradeStatus::AwaitNewVoters if view.server(id).has_voting_rights() => true,
            UpgradeStatus::AwaitNewVoters if versions.is_target(id) => relieving.contains(id),
            UpgradeStatus::AwaitNewVoters => !versions.is_lower(id) || returning.contains(id),
            UpgradeStatus::AwaitNewServers | UpgradeStatus::AwaitServerRemoval => {
                !versions.is_lower(id)
            }
            UpgradeStatus::Promoting | UpgradeStatus::Demoting | UpgradeStatus::LeaderTransfer => {
                !versions.is_lower(id) || view.server(id).has_voting_rights()
            }
            UpgradeStatus::Disabled | UpgradeStatus::Idle => true,
        };
        view.eligible.iter().copied().filter(takes_part).collect()
    }

    /// Old servers without a vote that may get one: nobody while there are as many voters as there ought to be and
    /// one of them can be spared, for whoever lost its vote to a newer one may be stopped at any time. A voter that
    /// is unhealthy and has not failed is none that was lost. Without zones no more of them than it takes.
    fn returning(&self, view: &View<'a>, versions: &Versions<'_>) -> Vec<&'a ServerId> {
        let is_old =
            |id: &&'a ServerId| versions.is_lower(id) && !view.server(id).has_voting_rights();
        let old = view.eligible.iter().copied().filter(is_old);
        match self.missing_voters(view) {
            0 => Vec::new(),
            _ if view.settings.has_zones() => old.collect(),
            missing => old.filter(|id| view.is_candidate(id)).take(missing).collect(),
        }
    }

    /// How many more voters it takes until there are as many as there ought to be, and one can be spared. A single
    /// voter that is to be one lacks nothing.
    fn missing_voters(&self, view: &View<'_>) -> usize {
        let (voters, sound) = sound_voters(view);
        let is_enough = |more: &usize| {
            let can_spare_one = 0 < tolerance(voters + more, sound + more);
            self.size <= voters + more && (can_spare_one || voters + more == 1)
        };
        let for_a_dead_one = usize::from(has_dead_voter_at_the_floor(view));
        (for_a_dead_one..).find(is_enough).unwrap_or(0)
    }

    /// New servers without a vote that may get one although the migration waits for more of them, where there are none
    /// of the old ones to turn to: all while no voter can be spared or too few vote, and one in the place of a voter
    /// that would be removed if the floor allowed it. One that misses a look is not lost.
    fn relieving(&self, view: &View<'a>, versions: &Versions<'_>) -> Vec<&'a ServerId> {
        let mut eligible = view.eligible.iter().copied();
        if eligible.clone().any(|id| versions.is_lower(id) && view.is_candidate(id)) {
            return Vec::new();
        }
        let (voters, sound) = sound_voters(view);
        let is_weak = tolerance(voters, sound) == 0 || (voters as u64) < view.config.min_quorum;
        let is_new = |id: &&'a ServerId| versions.is_target(id);
        match has_dead_voter_at_the_floor(view) {
            _ if is_weak => eligible.filter(is_new).collect(),
            true if view.settings.has_zones() => eligible.filter(is_new).collect(),
            true => eligible.find(|id| is_new(id) && view.is_candidate(id)).into_iter().collect(),
            false => Vec::new(),
        }
    }

    pub(super) fn target_servers(&self) -> BTreeSet<ServerId> {
        let versions = self.versions.iter();
        versions
            .flat_map(|versions| versions.of.keys().filter(|id| versions.is_target(id)))
            .map(|id| (*id).clone())
            .collect()
    }

    /// Whether somebody is kept from a vote until enough others are there.
    pub(super) fn withholds(&self, view: &View<'a>, id: &ServerId) -> bool {
        !self.active(view).contains(&id)
    }
}

/// Candidates of the target version: all without a zone, and of each zone that has no new voter the best; and the others.
fn new_candidates<'a>(
    view: &View<'a>,
    versions: &Versions<'_>,
    new_voters: &[&ServerId],
) -> (Vec<&'a ServerId>, Vec<&'a ServerId>) {
    let mut zones: BTreeSet<&str> = new_voters.iter().filter_map(|id| view.zone(id)).collect();
    let is_new = |id: &&'a ServerId| versions.is_target(id) && view.is_candidate(id);
    let candidates = view.eligible.iter().copied().filter(is_new);
    candidates.partition(|id| view.zone(id).is_none_or(|zone| zones.insert(zone)))
}

/// How many there are, and how many of them have not failed.
fn sound_voters(view: &View<'_>) -> (usize, usize) {
    let voters = view.eligible_voters().count();
    (voters, view.eligible_voters().filter(|id| !view.is_failed_voter(id)).count())
}

/// Whether nothing but the floor keeps a voter that is to be removed.
fn has_dead_voter_at_the_floor(view: &View<'_>) -> bool {
    let Some(strictness) = &view.state.strictness else { return false };
    let is_due = |id: &ServerId| {
        !view.is_held(id) && is_due(view.now, view.state, strictness, &view.server(id).server)
    };
    view.config.cleanup_dead_servers
        && view.state.voters.len() as u64 <= view.config.min_quorum
        && view.eligible_voters().any(is_due)
}

/// The first zone that would be worse off with its new servers than it is with its old ones. Whoever is held
/// without a vote is none of them, nor an old one that is held and keeps its vote.
fn weaker_zone<'a>(view: &View<'a>, versions: &Versions<'_>) -> Option<&'a str> {
    let mut balance: BTreeMap<&str, i64> = BTreeMap::new();
    // An old voter that misses a look is not lost to its zone.
    let counts =
        |id: &ServerId| view.is_healthy(id) || versions.is_lower(id) && view.is_suspect(id);
    for id in view.eligible.iter().filter(|id| counts(id)) {
        let Some(zone) = view.zone(id) else { continue };
        let (votes, is_held) = (view.server(id).has_voting_rights(), view.is_held(id));
        let is_usable = votes || view.is_stable(id) && !is_held;
        let change = match versions.is_lower(id) {
            true => -i64::from(!is_held),
            false => i64::from(versions.is_target(id) && is_usable),
        };
        *balance.entry(zone).or_default() += change;
    }
    balance.into_iter().find(|(_, balance)| *balance < 0).map(|(zone, _)| zone)
}

/// How many servers may fail, in a good order and with time in between.
pub(super) fn optimistic_tolerance(view: &View<'_>) -> u64 {
    let state = view.state;
    if !view.settings.has_zones() {
        return state.failure_tolerance;
    }
    let healthy = state.voters.iter().filter(|id| view.is_healthy(id)).count();
    if healthy < crate::configuration::quorum(state.voters.len()) {
        return 0;
    }
    let is_waiting = |id: &&&ServerId| view.is_healthy(id) && !view.server(id).has_voting_rights();
    let waiting = view.eligible.iter().filter(is_waiting).count() as u64;
    tolerance(state.voters.len(), healthy) + waiting
}
