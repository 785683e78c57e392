//! Beyond the reference: rules that keep a mistaken policy, a mistaken application or bad luck from
//! costing the quorum. Each can be switched by itself; [`Strictness::parity`] has none of them.

use std::collections::BTreeMap;
use std::fmt;

use quorate_types::{Index, bug};

use crate::config::Config;
use crate::configuration::quorum;
use crate::server::{NodeStatus, ServerId};
use crate::state::State;
use crate::time::{Span, Time};

/// Which of the strict rules hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strictness {
    /// The leader is neither pruned nor demoted. If a policy wants it gone, leadership goes over first.
    pub leader_stays: bool,
    /// No removal or demotion leaves fewer healthy voters than the quorum of the voters it leaves.
    pub quorum_stays: bool,
    /// A voter that the application does not know counts as one all the same, for the floor and for
    /// how many may go.
    pub stale_voters_count: bool,
    /// The floor of removals holds for voters alone as well: a server that does not vote yet is nobody to
    /// fall back on.
    pub voters_keep_floor: bool,
    /// A single voter is joined by two others in one round, or by none: two voters need both. A policy
    /// may ask for two all the same ([`RaftChanges::accepts_two_voters`](crate::RaftChanges)). Of two the one
    /// that lacks more comes first: if Raft does not take it yet, there is still one voter.
    pub lone_voter_stays: bool,
    /// Nobody gets a vote who would be needed at once: the healthy voters of before are a quorum of those
    /// after, or the quorum is no larger than it was. Else a server that has only just come takes the cluster
    /// down when it goes again. Several that come together are judged together: none of them is needed once
    /// as many have come as it takes. Not where it comes for a failed voter, where the policy asks for it all
    /// the same, and where a dead voter would be removed at once if the floor allowed it.
    pub newcomers_are_spare: bool,
    /// A server is stable once this leader has seen it healthy for the stabilization time, also in the first
    /// such time of its reign, in which the reference takes whoever is healthy for stable. Only promotions hang
    /// on it, and they can wait, since a vote may go as soon as it has come. Not where a voter is unhealthy and
    /// one more failure would cost the quorum: then the sooner the better.
    pub stability_is_seen: bool,
    /// Only servers that failed or left may be pruned, not those of which nothing is known.
    pub unknown_is_not_failed: bool,
    /// A failed server is pruned only after it was not alive for so long without a break. Servers that
    /// left are exempt. 0 is at once.
    pub dead_server_threshold: Span,
    /// A server that joined less than so long ago, or is being sent a snapshot, is not pruned for being
    /// failed. 0 is no grace at all.
    pub join_grace: Span,
    /// Each change names the configuration it was decided on, and is refused if that is no longer the
    /// latest one.
    pub names_configuration: bool,
    /// A failed voter goes and its replacement comes in one joint change, where Raft offers that.
    pub replaces_jointly: bool,
    /// Leadership goes to healthy voters only.
    pub leader_is_healthy: bool,
    /// At most one voter is pruned a round.
    pub one_voter_a_prune: bool,
    /// Stats that were not refreshed for longer count as the last contact plus their age. `None`: never.
    pub stats_age_max: Option<Span>,
    /// Of the time between two states, no more than this counts as seen: what is beyond it makes nobody
    /// stable and nobody dead, for the leader itself was held up. `None`: all of it counts.
    pub unseen_after: Option<Span>,
    /// No call is made any more once leadership is lost.
    pub stops_without_leadership: bool,
    /// Servers whose health comes and goes must be stable for longer.
    pub damping: Option<Damping>,
}

/// How much longer a flapping server must have been stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// So many changes of health within the window double the stabilization time, and each further one
    /// doubles it again. At most [`FLIP_COUNT_MAX`] are remembered.
    pub flips: usize,
    /// Within so long.
    pub window: Span,
    /// It never becomes longer than this.
    pub stabilization_max: Span,
}

/// Changes of health that are remembered of one server.
pub const FLIP_COUNT_MAX: usize = 32;

impl Strictness {
    /// None of the rules: exactly what the reference does.
    pub fn parity() -> Strictness {
        Strictness {
            leader_stays: false,
            quorum_stays: false,
            stale_voters_count: false,
            voters_keep_floor: false,
            lone_voter_stays: false,
            newcomers_are_spare: false,
            stability_is_seen: false,
            unknown_is_not_failed: false,
            dead_server_threshold: Span::ZERO,
            join_grace: Span::ZERO,
            names_configuration: false,
            replaces_jointly: false,
            leader_is_healthy: false,
            one_voter_a_prune: false,
            stats_age_max: None,
            unseen_after: None,
            stops_without_leadership: false,
            damping: None,
        }
    }

    /// All of them but the ageing of stats, as the server has it.
    pub fn server() -> Strictness {
        Strictness {
            leader_stays: true,
            quorum_stays: true,
            stale_voters_count: true,
            voters_keep_floor: true,
            lone_voter_stays: true,
            newcomers_are_spare: true,
            stability_is_seen: true,
            unknown_is_not_failed: true,
            dead_server_threshold: Span::from_secs(24 * 3600),
            join_grace: Span::from_secs(600),
            names_configuration: true,
            replaces_jointly: true,
            leader_is_healthy: true,
            one_voter_a_prune: true,
            stats_age_max: None,
            unseen_after: Some(Span::from_secs(10)),
            stops_without_leadership: true,
            damping: Some(Damping {
                flips: 4,
                window: Span::from_secs(600),
                stabilization_max: Span::from_secs(600),
            }),
        }
    }

    /// Time since the last contact as it counts for health: `reported`, at `stats_at`.
    pub(crate) fn contact(&self, reported: Span, stats_at: Option<Time>, now: Time) -> Span {
        let age = stats_at.map_or(Span::ZERO, |at| now.since(at));
        match self.stats_age_max {
            Some(age_max) if age_max < age && !reported.is_negative() => reported.plus(age),
            _ => reported,
        }
    }

    /// How much of the time since the state before went by unseen.
    pub(crate) fn unseen(&self, before: Option<&State>, now: Time) -> Span {
        let made_at = before.and_then(|state| state.made_at);
        match (self.unseen_after, made_at) {
            (Some(most), Some(at)) if most < now.since(at) => now.since(at).plus(Span(-most.0)),
            _ => Span::ZERO,
        }
    }

    /// Why a server is not promoted yet although the policy wants it.
    pub(crate) fn flapping(
        &self,
        now: Time,
        config: &Config,
        state: &State,
        id: &ServerId,
    ) -> Option<Reason> {
        let damping = self.damping?;
        let (history, server) = (state.histories.get(id)?, state.servers.get(id)?);
        let is_recent = |at: &&Time| now.since(**at) <= damping.window;
        let flips = history.flips.iter().filter(is_recent).count();
        let over = (flips + 1).checked_sub(damping.flips.max(1)).filter(|over| 0 < *over)?;
        let factor = 1_i64.checked_shl(over as u32).unwrap_or(i64::MAX).max(1);
        let usual = config.server_stabilization_time;
        let least = usual.times(factor).min(damping.stabilization_max).max(usual);
        let is_stable = server.health.is_stable(now, least);
        (!is_stable).then_some(Reason::Flapping { flips, least })
    }
}

/// What is remembered of one server from state to state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    /// Nothing for a voter that was there before this run began. A server of which nothing was known so far
    /// has only just joined.
    pub(crate) joined_at: Option<Time>,
    /// Whether the application ever said how it is.
    pub(crate) was_known: bool,
    pub(crate) not_alive_since: Option<Time>,
    pub(crate) stats_at: Option<Time>,
    /// Since when it has lacked too much of the log for a vote.
    pub(crate) lacking_since: Option<Time>,
    /// When its health changed, the last ones.
    pub(crate) flips: Vec<Time>,
}

impl History {
    pub(crate) fn new(now: Time, is_settled: bool) -> History {
        History { joined_at: (!is_settled).then_some(now), ..History::default() }
    }

    /// As if everything had been so much later.
    #[must_use]
    pub(crate) fn later(&self, span: Span) -> History {
        let later = |at: Time| at.plus(span);
        History {
            joined_at: self.joined_at.map(later),
            was_known: self.was_known,
            not_alive_since: self.not_alive_since.map(later),
            // Stats grow old whether anybody looks at them or not.
            stats_at: self.stats_at,
            lacking_since: self.lacking_since.map(later),
            flips: self.flips.iter().copied().map(later).collect(),
        }
    }

    /// Where unknown is not failed, time in which nothing is known begins no time of being dead.
    pub(crate) fn saw_status(&mut self, now: Time, status: &NodeStatus, strictness: &Strictness) {
        let is_known = match status {
            NodeStatus::Alive | NodeStatus::Failed | NodeStatus::Left => true,
            NodeStatus::Unset | NodeStatus::Unknown | NodeStatus::Other(_) => {
                !strictness.unknown_is_not_failed
            }
        };
        self.was_known |= is_known;
        if *status == NodeStatus::Alive {
            self.not_alive_since = None;
        } else if is_known {
            _ = self.not_alive_since.get_or_insert(now);
        } else if !self.was_known {
            self.joined_at = self.joined_at.map(|_| now);
        }
    }

    pub(crate) fn flipped(&mut self, now: Time) {
        if self.flips.len() == FLIP_COUNT_MAX {
            self.flips.remove(0);
        }
        self.flips.push(now);
    }
}

/// The voters as they will be, and who of them is healthy, while a round is planned.
#[derive(Clone, Debug)]
pub(crate) struct Electorate(BTreeMap<ServerId, bool>);

impl Electorate {
    pub(crate) fn new(voters: impl Iterator<Item = ServerId>, state: &State) -> Electorate {
        Electorate(
            voters
                .map(|id| {
                    let healthy = state.is_healthy(&id);
                    (id, healthy)
                })
                .collect(),
        )
    }

    pub(crate) fn add_healthy(&mut self, id: &ServerId) {
        self.0.insert(id.clone(), true);
    }

    pub(crate) fn remove(&mut self, id: &ServerId) {
        self.0.remove(id);
    }

    fn healthy(&self) -> usize {
        self.0.values().filter(|is_healthy| **is_healthy).count()
    }

    /// Whether they are a quorum without any one of the healthy.
    pub(crate) fn can_lose_one(&self) -> bool {
        quorum(self.0.len()) < self.healthy()
    }

    /// Why another one cannot have a vote, if it cannot without being needed. Of an even number it takes
    /// nothing from anybody: as many are a quorum as before.
    pub(crate) fn needs_newcomer(&self) -> Option<Reason> {
        let healthy = self.healthy();
        let (voters, needed) = (self.0.len(), quorum(self.0.len() + 1));
        (quorum(voters) < needed && healthy < needed)
            .then_some(Reason::Newcomer { healthy, needed })
    }

    /// Why `id` cannot lose its vote, if it cannot.
    pub(crate) fn refuses_to_lose(&self, id: &ServerId) -> Option<Reason> {
        let left = self.0.iter().filter(|(voter, _)| *voter != id);
        let (voters, healthy) = left.fold((0, 0), |(voters, healthy), (_, is_healthy)| {
            (voters + 1, healthy + usize::from(*is_healthy))
        });
        let needed = quorum(voters);
        let is_lost = healthy < needed && !bug!("the-quorum-goes-with-a-vote");
        is_lost.then_some(Reason::Quorum { healthy, needed })
    }
}

/// Something that was wanted and is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was to be done.
    pub wanted: Wanted,
    /// With which server.
    pub id: ServerId,
    /// Why it is not done.
    pub why: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} of {}: {}", self.wanted, self.id, self.why)
    }
}

/// What was to be done with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To give it a vote.
    Promotion,
    /// To take its vote.
    Demotion,
    /// To remove it.
    Removal,
    /// To let it lead.
    Leadership,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wanted::Promotion => "promotion",
            Wanted::Demotion => "demotion",
            Wanted::Removal => "removal",
            Wanted::Leadership => "leadership",
        })
    }
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Removals would go below the floor that was set.
    MinQuorum {
        /// Voters there would be, or potential ones.
        left: u64,
        /// The floor.
        floor: u64,
    },
    /// More than a minority of the potential voters would go at once.
    Majority,
    /// It leads, or nobody knows who does.
    Leader,
    /// An operator holds it.
    Held,
    /// Those left could not elect a leader.
    Quorum {
        /// Healthy voters there would be.
        healthy: usize,
        /// How many it takes.
        needed: usize,
    },
    /// It has not been dead for long enough.
    DeadTooShort {
        /// Since when it has, as far as is known.
        dead_for: Span,
        /// For how long it must have been.
        least: Span,
    },
    /// It is new, or is being sent a snapshot.
    Joining,
    /// A voter goes already in this round.
    OneVoterARound,
    /// It would be the second voter, and two need both.
    TwoVoters,
    /// It would be needed at once, with voters that are failed.
    Newcomer {
        /// Healthy voters of before.
        healthy: usize,
        /// How many it would take with its vote.
        needed: usize,
    },
    /// It lacks too much of the log.
    NotReady {
        /// The last entry it has.
        has: Index,
        /// The last entry it must have.
        least: Index,
    },
    /// It is no healthy voter.
    NotAHealthyVoter,
    /// Its health comes and goes.
    Flapping {
        /// How often it changed of late.
        flips: usize,
        /// How long it must be stable now.
        least: Span,
    },
}

impl Reason {
    /// A word for it that never changes, for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::MinQuorum { .. } => "min-quorum",
            Reason::Majority => "majority",
            Reason::Leader => "leader",
            Reason::Held => "held",
            Reason::Quorum { .. } => "quorum",
            Reason::DeadTooShort { .. } => "dead-too-short",
            Reason::Joining => "joining",
            Reason::OneVoterARound => "one-voter-a-round",
            Reason::TwoVoters => "two-voters",
            Reason::Newcomer { .. } => "newcomer",
            Reason::NotReady { .. } => "not-ready",
            Reason::NotAHealthyVoter => "not-a-healthy-voter",
            Reason::Flapping { .. } => "flapping",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())?;
        match self {
            Reason::MinQuorum { left, floor } => write!(f, ": {left} left of at least {floor}"),
            Reason::Quorum { healthy, needed } => write!(f, ": {healthy} healthy of {needed}"),
            Reason::DeadTooShort { dead_for, least } => write!(f, ": {dead_for} of {least}"),
            Reason::Flapping { flips, least } => write!(f, ": {flips} changes, stable for {least}"),
            Reason::NotReady { has, least } => {
                write!(f, ": has the log up to {has}, and needs it up to {least}")
            }
            Reason::TwoVoters => write!(f, ": two need both; a third has to come with it"),
            Reason::Newcomer { healthy, needed } => {
                write!(
                    f,
                    ": {healthy} healthy voters of {needed}; remove or repair the failed first"
                )
            }
            Reason::Majority
            | Reason::Leader
            | Reason::Held
            | Reason::Joining
            | Reason::OneVoterARound
            | Reason::NotAHealthyVoter => Ok(()),
        }
    }
}
