//! One voter a zone, the others of the zone stand by. Without zones: a number of voters.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::{NodeType, ServerId};

use super::view::View;

/// Who is to vote among those that take part.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    /// Best first.
    pub(super) promotions: Vec<ServerId>,
    /// Failed voters first, then those that are too many.
    pub(super) demotions: Vec<ServerId>,
    pub(super) node_types: BTreeMap<ServerId, NodeType>,
}

/// `active` is in the order of servers and holds no read replica. So is `present`, which has those as well that are
/// withheld for now: a zone is there as long as one of its servers is, and votes that are kept for it stay.
pub(super) fn assign(view: &View<'_>, active: &[&ServerId], present: &[&ServerId]) -> Assignment {
    if !view.settings.has_zones() {
        return without_zones(view, active);
    }
    let mut assignment = Assignment::default();
    let mut promoted = BTreeSet::new();
    for id in active.iter().filter(|id| view.zone(id).is_none()) {
        assignment.node_types.insert((*id).clone(), NodeType::Voter);
        if view.is_candidate(id) {
            promoted.insert((*id).clone());
        }
    }

    let mut zones: BTreeMap<&str, Zone<'_>> = BTreeMap::new();
    let takes_part: BTreeSet<&ServerId> = active.iter().copied().collect();
    for id in present {
        let Some(name) = view.zone(id) else { continue };
        let zone = zones.entry(name).or_default();
        match takes_part.contains(*id) {
            true => zone.add(view, id),
            false => zone.members.push(id),
        }
    }
    zones.values_mut().for_each(Zone::choose_primary);

    let down_count = zones.values().filter(|zone| zone.is_down()).count();
    let recovering_count = zones.values().filter(|zone| zone.is_recovering()).count();
    let in_order = |ids: &BTreeSet<&ServerId>| -> Vec<ServerId> {
        active.iter().filter(|id| ids.contains(*id)).map(|id| (*id).clone()).collect()
    };
    let pool: BTreeSet<&ServerId> = zones.values().flat_map(Zone::pool).copied().collect();
    let mut extra = in_order(&pool);
    let missing = missing_voters(view, &zones);
    let kept_max = (down_count + recovering_count).max(missing);
    let surplus = extra.split_off(extra.len().min(kept_max));
    // For the votes that are lost, and for no others: a zone that has never had one moves none. One that recovers
    // has its voter soon, and is not replaced for that long.
    let lost: usize = zones.values().map(Zone::lost_count).sum();
    let wanted = down_count.min(extra.len() + lost).max(missing.saturating_sub(recovering_count));
    while extra.len() < wanted {
        let Some(spare) = take_spare(&mut zones) else { break };
        promoted.insert(spare.clone());
        extra.push(spare.clone());
    }

    // A leader is never demoted for its zone's sake.
    let is_leader = |id: &&ServerId| view.state.leader.as_ref() == Some(*id);
    let with_primary = zones.values().filter(|zone| zone.primary.is_some());
    let replaced = with_primary.flat_map(|zone| zone.failed.iter().copied());
    let of_down =
        zones.values().filter(|zone| zone.is_down()).flat_map(|zone| &zone.failed).copied();
    let demoted = replaced.chain(of_down.take(extra.len())).chain(&surplus);
    assignment.demotions = demoted.filter(|id| !is_leader(id)).cloned().collect();

    for zone in zones.values() {
        zone.type_members(&extra, &mut assignment.node_types);
        if let Some(primary) = zone.primary.filter(|primary| view.is_candidate(primary)) {
            promoted.insert(primary.clone());
        }
    }
    assignment.promotions =
        active.iter().filter(|id| promoted.contains(**id)).map(|id| (*id).clone()).collect();
    assignment
}

/// How many voters beside one a zone it takes to keep to the floor. It is no more than there are now:
/// one that fails is replaced, and zones that are fewer than the floor have a voter each all the same.
fn missing_voters(view: &View<'_>, zones: &BTreeMap<&str, Zone<'_>>) -> usize {
    let present = view.eligible_voters().count();
    let floor = usize::try_from(view.config.min_quorum).unwrap_or(usize::MAX).min(present);
    let without_zone = view.eligible_voters().filter(|id| view.zone(id).is_none()).count();
    let with_primary = zones.values().filter(|zone| zone.primary.is_some()).count();
    floor.saturating_sub(with_primary + without_zone)
}

/// All that can, or up to the number that is wanted; then those that wait take the place of failed voters.
fn without_zones(view: &View<'_>, active: &[&ServerId]) -> Assignment {
    let node_types = active.iter().map(|id| ((*id).clone(), NodeType::Voter)).collect();
    let candidates = active.iter().filter(|id| view.is_candidate(id)).map(|id| (*id).clone());
    let Some(target) = view.settings.voters_max() else {
        let promotions = candidates.collect();
        return Assignment { promotions, node_types, ..Assignment::default() };
    };
    let voter_count = view.eligible_voters().count();
    let is_leader = |id: &&ServerId| view.state.leader.as_ref() == Some(*id);
    let mut failed: Vec<&ServerId> =
        view.eligible_voters().filter(|id| view.is_failed_for_long(id) && !is_leader(id)).collect();
    // The one that failed first is the least likely to come back.
    failed.reverse();
    let wanted = target.saturating_sub(voter_count - failed.len());
    let promotions: Vec<ServerId> = candidates.take(wanted).collect();
    let too_many = (voter_count + promotions.len()).saturating_sub(target);
    failed.truncate(promotions.len().max(too_many));
    let demotions = failed.into_iter().cloned().collect();
    Assignment { promotions, demotions, node_types }
}

/// Those of one zone. Who is withheld is a member, and no more.
#[derive(Debug, Default)]
struct Zone<'a> {
    members: Vec<&'a ServerId>,
    /// Voters that have not failed.
    kept: Vec<&'a ServerId>,
    /// Voters that have.
    failed: Vec<&'a ServerId>,
    /// Those that could be promoted.
    candidates: Vec<&'a ServerId>,
    /// The first of the kept or else of the candidates.
    primary: Option<&'a ServerId>,
    /// Whether somebody is well and only has to stay so to vote, or does.
    has_hope: bool,
}

impl<'a> Zone<'a> {
    fn add(&mut self, view: &View<'a>, id: &'a ServerId) {
        self.members.push(id);
        self.has_hope |=
            view.is_healthy(id) && !view.is_held(id) && !view.is_kept_back_for_long(id);
        if view.is_failed_voter(id) {
            self.failed.push(id);
        } else if view.server(id).has_voting_rights() {
            self.kept.push(id);
        } else if view.is_candidate(id) {
            self.candidates.push(id);
        }
    }

    fn choose_primary(&mut self) {
        if self.kept.is_empty() && !self.candidates.is_empty() {
            self.primary = Some(self.candidates.remove(0));
        } else {
            self.primary = self.kept.first().copied();
        }
    }

    /// Nobody of it can vote, now or soon.
    fn is_down(&self) -> bool {
        self.primary.is_none() && !self.has_hope
    }

    /// Somebody of it is well and only has to prove it.
    fn is_recovering(&self) -> bool {
        self.primary.is_none() && self.has_hope
    }

    /// Votes that nobody of it takes over, now or soon.
    fn lost_count(&self) -> usize {
        let is_replaced = self.kept.is_empty() && self.primary.is_some();
        match self.is_recovering() {
            true => 0,
            false => self.failed.len().saturating_sub(usize::from(is_replaced)),
        }
    }

    /// Voters beside the first.
    fn pool(&self) -> &[&'a ServerId] {
        self.kept.get(1..).unwrap_or_default()
    }

    fn has_voter(&self) -> bool {
        !self.kept.is_empty() || !self.failed.is_empty()
    }

    fn type_members(&self, extra: &[ServerId], types: &mut BTreeMap<ServerId, NodeType>) {
        for id in &self.members {
            let is_last_hope = self.primary.is_none() && self.failed.contains(id);
            let node_type = if extra.contains(id) {
                NodeType::ZoneExtraVoter
            } else if !self.has_voter() || self.primary == Some(*id) || is_last_hope {
                NodeType::ZoneVoter
            } else {
                NodeType::ZoneStandby
            };
            types.insert((*id).clone(), node_type);
        }
    }
}

/// The best spare of the zone that has most of them; of two such zones, of the first by name.
fn take_spare<'a>(zones: &mut BTreeMap<&str, Zone<'a>>) -> Option<&'a ServerId> {
    let most = zones.values().map(|zone| zone.candidates.len()).max().filter(|most| 0 < *most)?;
    let zone = zones.values_mut().find(|zone| zone.candidates.len() == most)?;
    Some(zone.candidates.remove(0))
}
