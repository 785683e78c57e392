//! One round: from what a policy wants to what is done about it now.
//!
//! A round has at most one failed voter's demotion with all promotions, or all demotions, or one
//! transfer of leadership. With an odd number of voters the failed one goes first: a promotion
//! before it would make the number even and raise the quorum, and one more failure in between could
//! be one too many.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use quorate_types::{Index, bug};

use crate::action::Action;
use crate::config::Config;
use crate::promoter::RaftChanges;
use crate::prune::is_due;
use crate::server::{RaftState, ServerId};
use crate::state::State;
use crate::strict::{Electorate, Reason, Refusal, Strictness, Wanted};
use crate::time::Time;

/// What a round does, and what it leaves undone and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// In this order. The first one that fails ends the round.
    pub actions: Vec<Action>,
    /// What the policy wanted and the strict rules forbid.
    pub refusals: Vec<Refusal>,
}

/// Why nothing can be done in a round.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// Nobody is known to lead.
    #[error("the state has no leader")]
    NoLeader,
    /// The policy wants a leader that is not there.
    #[error("{0} is to lead and is not in the state")]
    UnknownLeader(ServerId),
}

/// What to do about `changes`. `can_replace` says whether Raft offers joint replacement.
///
/// # Errors
///
/// When the state has no leader, and when a leader is wanted that is not in the state.
///
/// Source: the reference's `reconcile`.
pub fn plan_reconcile(
    now: Time,
    config: &Config,
    state: &State,
    changes: &RaftChanges,
    strictness: &Strictness,
    can_replace: bool,
) -> Result<Round, RoundError> {
    let Some(leader) = &state.leader else { return Err(RoundError::NoLeader) };
    let electorate = Electorate::new(state.voters.iter().cloned(), state);
    let mut plan = Plan { now, config, state, strictness, electorate, round: Round::default() };

    let demotions = plan.demotable(&changes.demotions, leader);
    let mut promotions = plan.promotable(changes);
    // In one change, a replacement leaves their number as it is.
    let is_joint = can_replace && strictness.replaces_jointly && !promotions.is_empty();
    let is_odd = state.voters.len() % 2 == 1;
    let failed = demotions.iter().find(|id| (is_odd || is_joint) && !state.is_healthy(id));
    let successor = promotions.first().filter(|_| is_joint);
    let refusal = failed.and_then(|failed| plan.keeps(failed, successor));
    let mut first_failed = failed.filter(|_| refusal.is_none()).cloned();
    if is_joint && first_failed.is_some() {
        // Each other replacement has a round of its own: whoever is to go may be back by then.
        let others = demotions.iter().filter(|id| Some(*id) != failed && !state.is_healthy(id));
        promotions.truncate(promotions.len().saturating_sub(others.count()).max(1));
    }
    let are_spare = strictness.newcomers_are_spare && !bug!("a-newcomer-is-needed-at-once");
    if are_spare && !changes.accepts_needed_newcomers {
        if is_joint && first_failed.is_none() {
            first_failed = plan.dead_at_the_floor(&promotions);
        }
        promotions = plan.spare(promotions, first_failed.as_ref());
    }
    if promotions.is_empty() && plan.waits_for_replacements() {
        return Ok(plan.round);
    }
    if let Some((failed, why)) = failed.zip(refusal) {
        plan.refuse(Wanted::Demotion, failed, why);
    }
    if let Some(failed) = &first_failed {
        plan.take_vote(failed);
    }
    plan.promote(&promotions);
    if !promotions.is_empty() {
        if let Some(failed) = first_failed.filter(|_| is_joint) {
            plan.join_replacement(failed.clone());
        }
        return Ok(plan.round);
    }
    plan.demote(demotions.iter().filter(|id| Some(*id) != failed));
    if !plan.round.actions.is_empty() {
        return Ok(plan.round);
    }
    plan.transfer(leader, changes)?;
    Ok(plan.round)
}

struct Plan<'a> {
    now: Time,
    config: &'a Config,
    state: &'a State,
    strictness: &'a Strictness,
    electorate: Electorate,
    round: Round,
}

impl Plan<'_> {
    /// Those of `ids` that have a vote to lose, each once. Staging servers count here: only a
    /// non-voter has nothing to lose.
    fn demotable(&mut self, ids: &[ServerId], leader: &ServerId) -> Vec<ServerId> {
        let mut seen = BTreeSet::new();
        let mut demotable = Vec::new();
        for id in ids.iter().filter(|id| seen.insert(*id)) {
            let Some(server) = self.state.servers.get(id) else { continue };
            if server.state == RaftState::NonVoter {
                continue;
            }
            if self.config.held.contains(id) {
                self.refuse(Wanted::Demotion, id, Reason::Held);
            } else if self.strictness.leader_stays && id == leader {
                self.refuse(Wanted::Demotion, id, Reason::Leader);
            } else {
                demotable.push(id.clone());
            }
        }
        demotable
    }

    /// Those to be promoted that are well and have no vote, each once.
    fn promotable(&mut self, changes: &RaftChanges) -> Vec<ServerId> {
        let mut seen = BTreeSet::new();
        let mut promotable = Vec::new();
        for id in changes.promotions.iter().filter(|id| seen.insert(*id)) {
            let Some(server) = self.state.servers.get(id) else { continue };
            if server.has_voting_rights() || !server.health.healthy {
                continue;
            }
            if self.config.held.contains(id) {
                self.refuse(Wanted::Promotion, id, Reason::Held);
                continue;
            }
            let flapping = || self.strictness.flapping(self.now, self.config, self.state, id);
            match self.state.not_ready(id).or_else(flapping) {
                Some(why) => self.refuse(Wanted::Promotion, id, why),
                None => promotable.push(id.clone()),
            }
        }
        let makes_two = self.state.voters.len() == 1 && promotable.len() == 1;
        if makes_two && self.strictness.lone_voter_stays && !changes.accepts_two_voters {
            for id in promotable.drain(..) {
                self.refuse(Wanted::Promotion, &id, Reason::TwoVoters);
            }
        }
        if self.state.voters.len() == 1 && self.strictness.lone_voter_stays {
            // Whoever lacks least comes second: two voters come about only if both can.
            promotable.sort_by_key(|id| Reverse(self.last_index(id)));
            if let [first, second, ..] = &promotable[..]
                && self.last_index(second) < self.last_index(first)
            {
                promotable.swap(0, 1);
            }
        }
        promotable
    }

    /// Those of `promotions` that are not needed at once, or not once all of them have come. The first takes
    /// the place of the voter that goes for it, if one does.
    fn spare(&mut self, promotions: Vec<ServerId>, first: Option<&ServerId>) -> Vec<ServerId> {
        let makes_room = self.makes_room_for_a_removal(promotions.len(), first);
        if self.state.voters.len() == 1 || makes_room {
            return promotions;
        }
        let mut after = self.electorate.clone();
        let mut failed = first;
        let (mut spare, mut needed) = (Vec::new(), Vec::new());
        for id in promotions {
            match failed.take() {
                Some(failed) => after.remove(failed),
                None => {
                    if let Some(why) = after.needs_newcomer() {
                        needed.push((id, why));
                        continue;
                    }
                }
            }
            after.add_healthy(&id);
            spare.push(id);
        }
        // No more of them than it takes, those that lack least. The others are not needed any more then.
        needed.sort_by_key(|(id, _)| Reverse(self.last_index(id)));
        let mut together = 0;
        while together < needed.len() && !after.can_lose_one() {
            after.add_healthy(&needed[together].0);
            together += 1;
        }
        if after.can_lose_one() {
            // As with those that join one voter: whoever may not be taken yet comes first.
            needed[..together].sort_by_key(|(id, _)| self.last_index(id));
            spare.extend(needed.into_iter().map(|(id, _)| id));
        } else {
            needed.into_iter().for_each(|(id, why)| self.refuse(Wanted::Promotion, &id, why));
        }
        spare
    }

    /// Whether nothing but the floor keeps a dead voter, and would no more with so many promotions.
    fn makes_room_for_a_removal(&self, count: usize, first: Option<&ServerId>) -> bool {
        let (state, config) = (self.state, self.config);
        let after = state.voters.len() - usize::from(first.is_some()) + count;
        let is_at_floor = state.voters.len() as u64 <= config.min_quorum;
        let is_above_then = config.min_quorum < after as u64;
        let mut others = state.voters.iter().filter(|id| Some(*id) != first);
        config.cleanup_dead_servers
            && is_at_floor
            && is_above_then
            && others.any(|id| self.is_due(id))
    }

    /// Whether a voter is to be removed as soon as the floor lets it go.
    fn is_due(&self, id: &ServerId) -> bool {
        let server = self.state.servers.get(id).map(|server| &server.server);
        server.is_some_and(|server| is_due(self.now, self.state, self.strictness, server))
            && !self.config.held.contains(id)
    }

    /// A dead voter that nothing but the floor keeps: the first of `promotions` comes in its place, in one
    /// change. If it came before the dead one went, it would be needed, and might be dead by then itself.
    fn dead_at_the_floor(&self, promotions: &[ServerId]) -> Option<ServerId> {
        let is_lone = self.state.voters.len() == 1;
        if is_lone || !self.makes_room_for_a_removal(promotions.len(), None) {
            return None;
        }
        let leader = self.state.leader.as_ref();
        let mut due = self.state.voters.iter().filter(|id| self.is_due(id) && Some(*id) != leader);
        due.find(|id| self.keeps(id, promotions.first()).is_none()).cloned()
    }

    fn last_index(&self, id: &ServerId) -> Index {
        self.state.servers.get(id).map_or(Index(0), |server| server.stats.last_index)
    }

    /// Whether somebody was to get a vote and does not yet: whoever was to go for it stays so long, since
    /// a failed voter may come back. A server that is held is not waited for, nor one that is to wait itself.
    fn waits_for_replacements(&self) -> bool {
        let is_due = |refusal: &Refusal| {
            let waits = matches!(refusal.why, Reason::Held | Reason::Newcomer { .. });
            refusal.wanted == Wanted::Promotion && !waits
        };
        self.round.refusals.iter().any(is_due)
    }

    fn demote<'i>(&mut self, ids: impl Iterator<Item = &'i ServerId>) {
        for id in ids {
            match self.keeps(id, None) {
                Some(why) => self.refuse(Wanted::Demotion, id, why),
                None => self.take_vote(id),
            }
        }
    }

    /// Why a voter cannot go, if it cannot; `successor` comes in the same change.
    fn keeps(&self, id: &ServerId, successor: Option<&ServerId>) -> Option<Reason> {
        let mut electorate = self.electorate.clone();
        successor.into_iter().for_each(|id| electorate.add_healthy(id));
        electorate.refuses_to_lose(id).filter(|_| self.strictness.quorum_stays)
    }

    fn take_vote(&mut self, id: &ServerId) {
        self.electorate.remove(id);
        self.round.actions.push(Action::DemoteVoter { id: id.clone() });
    }

    fn promote(&mut self, ids: &[ServerId]) {
        for id in ids {
            let address = self.address(id);
            self.electorate.add_healthy(id);
            self.round.actions.push(Action::AddVoter { id: id.clone(), address });
        }
    }

    /// Makes the round's first demotion and its first promotion one change.
    fn join_replacement(&mut self, demoted: ServerId) {
        if let [Action::DemoteVoter { .. }, Action::AddVoter { id, address }, ..] =
            &self.round.actions[..]
        {
            let (promoted, address) = (id.clone(), address.clone());
            let replacement = Action::ReplaceVoter { demoted, promoted, address };
            self.round.actions.splice(..2, [replacement]);
        }
    }

    fn transfer(&mut self, leader: &ServerId, changes: &RaftChanges) -> Result<(), RoundError> {
        let held = &self.config.held;
        let is_unwanted = self.strictness.leader_stays
            && changes.demotions.contains(leader)
            && !held.contains(leader);
        let wanted = match &changes.leader {
            Some(wanted) if wanted != leader => wanted.clone(),
            // A leader that is to lose its vote goes over to the best of those that keep theirs.
            _ if is_unwanted => match self.successor(leader, changes) {
                Some(successor) => successor,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let Some(server) = self.state.servers.get(&wanted) else {
            return Err(RoundError::UnknownLeader(wanted));
        };
        if let Some(id) = [leader, &wanted].into_iter().find(|id| held.contains(*id)) {
            self.refuse(Wanted::Leadership, id, Reason::Held);
            return Ok(());
        }
        if self.strictness.leader_is_healthy
            && !(server.has_voting_rights() && server.health.healthy)
        {
            self.refuse(Wanted::Leadership, &wanted, Reason::NotAHealthyVoter);
            return Ok(());
        }
        let address = self.address(&wanted);
        self.round.actions.push(Action::TransferLeadership { id: wanted, address });
        Ok(())
    }

    fn successor(&self, leader: &ServerId, changes: &RaftChanges) -> Option<ServerId> {
        let is_fit = |id: &&ServerId| {
            *id != leader && self.state.is_healthy(id) && !changes.demotions.contains(id)
        };
        let mut fit = self.state.voters.iter().filter(is_fit);
        // One that is held is refused, and that is said.
        let is_free = |id: &&ServerId| !self.config.held.contains(*id);
        let free = fit.clone().filter(is_free);
        free.min_by_key(|id| self.state.failed_transfer(id)).or_else(|| fit.next()).cloned()
    }

    fn address(&self, id: &ServerId) -> String {
        self.state.servers.get(id).map(|server| server.server.address.clone()).unwrap_or_default()
    }

    fn refuse(&mut self, wanted: Wanted, id: &ServerId, why: Reason) {
        self.round.refusals.push(Refusal { wanted, id: id.clone(), why });
    }
}
