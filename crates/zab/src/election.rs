//! Fast leader election of one node: the ballot in progress, and the answer to who asks afterwards.
//!
//! A node votes for itself, adopts any greater vote it hears, and is done when a quorum voted alike
//! for a while, at once when everybody did. Whoever already follows or leads answers with how it
//! was elected; a quorum of such answers, the leader's among them, lets a node join without an
//! election. A node that finds neither for long, because it does not reach enough of the others, goes by
//! the word of a leader alone. Votes prove nothing: a winner leads only once it has its three quorums
//! (`consent.rs`), and whoever follows one that never leads gives it up.
//!
//! A *round* numbers the ballots of a node since it started. Rounds, votes and winners die with
//! the process.
//!
//! Votes are passed on, so a candidate may win that hardly anybody can talk with, and win again whenever
//! nothing came of it. A node that has followed one in vain more than once passes it over for a
//! while, as long as there may be a quorum without it. A node that could not hold office stands back
//! likewise: at first it says nothing for itself, and it votes for whoever has as much as it has. And who
//! has looked for long votes for nobody any more of whom it only heard (`election/late.rs`).
//!
//! Source: gometa's `ElectionSite`, `ballotMaster` and `pollWorker`.

use std::collections::{BTreeMap, BTreeSet};

use crate::note::DatagramFault;
use crate::quorum::Electors;
use crate::rng::Rng;
use crate::{Address, Config, Epoch, PeerStatus, Vote, Zxid};

mod late;

use late::Word;

/// A candidate is passed over after so many failures: one may be chance.
const FAILURES_COUNT_MIN: u32 = 2;
/// The time for which it is passed over doubles with each further failure, so many times at most.
const DOUBLINGS_MAX: u32 = 2;

/// What a node would vote for if it were alone. Choices compare field by field, in this order; all
/// nodes, gometa's too, must compare alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choice {
    pub(crate) epoch: Epoch,
    pub(crate) logged: Zxid,
    pub(crate) committed: Zxid,
    pub(crate) candidate: Address,
}

/// What a node has to say for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) status: PeerStatus,
    pub(crate) epoch: Epoch,
    pub(crate) logged: Zxid,
    pub(crate) committed: Zxid,
}

/// What election needs to know and to touch besides itself.
pub(crate) struct Context<'a> {
    pub(crate) now_ms: u64,
    pub(crate) standing: Standing,
    pub(crate) rng: &'a mut Rng,
    pub(crate) out: &'a mut Vec<(Address, Vote)>,
}

/// A vote that was heard.
#[derive(Clone, Debug)]
struct Heard {
    round: u64,
    status: PeerStatus,
    choice: Choice,
}

/// The outcome of the last ballot, with the epoch that followed from it.
#[derive(Clone, Debug)]
pub(crate) struct Winner {
    pub(crate) round: u64,
    pub(crate) choice: Choice,
}

/// One election in progress.
#[derive(Clone, Debug)]
struct Ballot {
    round: u64,
    proposal: Choice,
    /// Whether the proposal is what an established ensemble reports.
    is_settled: bool,
    /// Votes of this round, own one included.
    received: BTreeMap<Address, Heard>,
    /// What those said who lead or follow, in whatever round.
    active: BTreeMap<Address, Heard>,
    resend_wait_ms: u64,
    resend_at_ms: u64,
    sent_at_ms: u64,
    finalize_at_ms: Option<u64>,
    /// Members that have said anything since it began.
    heard: BTreeSet<Address>,
    /// Who last said of itself that it leads.
    claim: Option<Claim>,
    /// From then on that is enough.
    content_at_ms: u64,
    /// Until then this node, which stands back, waits for a vote that is not for itself. Once it has said
    /// anything it is not silent any more: the others count on what they last heard.
    silent_until_ms: u64,
    /// This node stood back for another and came back to itself, since that one did as much: it does not do
    /// so again, or two that stand back would give way to each other for ever.
    took_back: bool,
    /// This node has nobody to vote for, not even itself.
    only_asks: bool,
    /// Since when it has voted for itself in vain, late as it is.
    in_vain_since_ms: Option<u64>,
    /// Whom it votes for and since when, late as it is, if that is another.
    backs: Option<(Address, u64)>,
}

/// A leader's own word.
#[derive(Clone, Debug)]
struct Claim {
    round: u64,
    choice: Choice,
    /// Later it may be true no more.
    good_until_ms: u64,
}

/// What became of following one candidate since this node last had a leader.
#[derive(Clone, Debug, Default)]
struct Failures {
    count: u32,
    /// Until then it is passed over.
    until_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Election {
    own: Address,
    members: Electors,
    /// Whether this node has no vote and only asks.
    solicit_only: bool,
    cluster: Option<u64>,
    base_ms: u64,
    base_ms_max: u64,
    finalize_ms: u64,
    /// The round of the last ballot that had a winner.
    last_round: u64,
    ballot: Option<Ballot>,
    winner: Option<Winner>,
    /// For how long quorums are looked for before a leader's own word is enough.
    patience_ms: u64,
    pass_over_ms: u64,
    failures: BTreeMap<Address, Failures>,
    /// What each member said last.
    words: BTreeMap<Address, Word>,
    /// Until then this node stands back.
    stands_back_until_ms: u64,
    /// When the first ballot since it last had a leader began.
    looks_since_ms: Option<u64>,
    /// Until then it does not vote for itself when it is late.
    makes_room_until_ms: u64,
}

impl Election {
    pub(crate) fn new(config: &Config) -> Self {
        Election {
            own: config.own.election.clone(),
            members: Electors::new(config),
            solicit_only: !config.is_voter(),
            cluster: config.cluster,
            base_ms: config.ballot_ms,
            base_ms_max: config.ballot_ms_max,
            finalize_ms: config.finalize_ms,
            last_round: 0,
            ballot: None,
            winner: None,
            patience_ms: config.establish_timeout_ms,
            // Others may follow it in vain until it gives up: they are waited for.
            pass_over_ms: config.establish_timeout_ms.saturating_mul(2),
            failures: BTreeMap::new(),
            words: BTreeMap::new(),
            stands_back_until_ms: 0,
            looks_since_ms: None,
            makes_room_until_ms: 0,
        }
    }

    /// Begins a ballot with a vote for this node. Names the winner if that is all it takes.
    pub(crate) fn start(&mut self, context: &mut Context<'_>) -> Option<Address> {
        self.winner = None;
        let round = self.last_round.saturating_add(1);
        let stands_back = context.now_ms < self.stands_back_until_ms;
        let silence_ms = if stands_back { self.base_ms_max } else { 0 };
        self.looks_since_ms.get_or_insert(context.now_ms);
        let ballot = Ballot {
            round,
            proposal: own_choice(&self.own, context.standing),
            is_settled: false,
            received: BTreeMap::new(),
            active: BTreeMap::new(),
            resend_wait_ms: self.base_ms,
            resend_at_ms: context.now_ms,
            sent_at_ms: context.now_ms,
            finalize_at_ms: None,
            heard: BTreeSet::new(),
            claim: None,
            content_at_ms: context.now_ms.saturating_add(self.patience_ms),
            silent_until_ms: context.now_ms.saturating_add(silence_ms),
            took_back: false,
            only_asks: false,
            in_vain_since_ms: None,
            backs: None,
        };
        self.ballot = Some(ballot);
        if self.is_late(context.now_ms) {
            self.reconsider(context);
        }
        self.record_own();
        self.send_to_all(context);
        self.settle(context, true)
    }

    /// Ends the ballot without a winner.
    pub(crate) fn abandon(&mut self) {
        self.ballot = None;
    }

    pub(crate) fn round(&self) -> u64 {
        self.ballot.as_ref().map_or(self.last_round, |ballot| ballot.round)
    }

    pub(crate) fn winner(&self) -> Option<&Winner> {
        self.winner.as_ref()
    }

    pub(crate) fn is_in_progress(&self) -> bool {
        self.ballot.is_some()
    }

    /// This node followed `candidate`, and nothing came of it.
    pub(crate) fn on_failed(&mut self, candidate: &Address, now_ms: u64) {
        let failures = self.failures.entry(candidate.clone()).or_default();
        if now_ms < failures.until_ms {
            return;
        }
        failures.count = failures.count.saturating_add(1);
        if FAILURES_COUNT_MIN <= failures.count {
            let doublings = (failures.count - FAILURES_COUNT_MIN).min(DOUBLINGS_MAX);
            let wait_ms = self.pass_over_ms.saturating_mul(1 << doublings);
            failures.until_ms = now_ms.saturating_add(wait_ms);
        }
    }

    /// There is a leader: whoever failed before may be elected next time.
    pub(crate) fn forget_failures(&mut self) {
        self.failures.clear();
        self.stands_back_until_ms = 0;
        self.looks_since_ms = None;
        self.makes_room_until_ms = 0;
    }

    /// For a while, others that have as much go before this node. A ballot that began before that begins
    /// anew: what was heard in it may be long past. Names the winner if that is all it takes.
    pub(crate) fn stand_back(&mut self, context: &mut Context<'_>) -> Option<Address> {
        self.stands_back_until_ms = context.now_ms.saturating_add(self.pass_over_ms);
        let ballot = self.ballot.take()?;
        self.last_round = ballot.round;
        self.start(context)
    }

    /// The epoch that answers show. Without a winner there are no answers, and nothing to show.
    pub(crate) fn update_winning_epoch(&mut self, epoch: Epoch) {
        if let Some(winner) = &mut self.winner {
            winner.choice.epoch = epoch;
        }
    }

    /// A vote came. Names the winner if it is the last that was wanted.
    pub(crate) fn on_vote(
        &mut self,
        from: &Address,
        vote: Vote,
        context: &mut Context<'_>,
    ) -> Result<Option<Address>, DatagramFault> {
        if let (Some(own), Some(other)) = (self.cluster, vote.cluster)
            && own != other
        {
            return Err(DatagramFault::Cluster);
        }
        if vote.solicit {
            self.answer(from, &vote, context);
            return Ok(self.on_question(from, context));
        }
        if !self.members.contains(from) || *from == self.own {
            return Err(DatagramFault::NotMember);
        }
        if !self.members.contains(&vote.candidate) {
            return Err(DatagramFault::Candidate);
        }
        if vote.status == PeerStatus::Watching {
            return Err(DatagramFault::Status);
        }
        let is_late = self.is_late(context.now_ms);
        let Some(ballot) = &mut self.ballot else {
            self.answer(from, &vote, context);
            return Ok(None);
        };
        if !is_late {
            // News: others may wait for an answer. But not for ever, or a busy neighbour would keep a
            // node mute.
            ballot.resend_wait_ms = self.base_ms;
            let latest = ballot.sent_at_ms.saturating_add(self.base_ms_max);
            let wanted = context.now_ms.saturating_add(context.rng.jittered(self.base_ms));
            ballot.resend_at_ms = wanted.min(latest);
        }

        let (round, status) = (vote.round, vote.status);
        let choice = Choice {
            epoch: vote.epoch,
            logged: vote.logged,
            committed: vote.committed,
            candidate: vote.candidate,
        };
        let heard = Heard { round, status, choice };
        self.keep_word(from, Some(&heard), context.now_ms);
        if !is_late {
            self.begin_anew_if_passed_over(context);
        }
        self.on_claim(from, &heard, context.now_ms);
        let is_changed = match status {
            PeerStatus::Electing if self.solicit_only => false,
            PeerStatus::Electing => self.on_electing(from, heard, context),
            PeerStatus::Leading | PeerStatus::Following => self.on_active(from, heard),
            PeerStatus::Watching => false,
        };
        Ok(self.settle(context, is_changed))
    }

    pub(crate) fn tick(&mut self, context: &mut Context<'_>) -> Option<Address> {
        let ballot = self.ballot.as_mut()?;
        if ballot.finalize_at_ms.is_some_and(|at| at <= context.now_ms) {
            return Some(self.finish());
        }
        if self.claim_at_ms() <= context.now_ms && self.takes_claim(context.now_ms) {
            return Some(self.finish());
        }
        let ballot = self.ballot.as_mut()?;
        if ballot.resend_at_ms <= context.now_ms {
            ballot.resend_wait_ms = (ballot.resend_wait_ms.saturating_mul(2)).min(self.base_ms_max);
            let is_changed = self.is_late(context.now_ms) && self.reconsider(context);
            self.send_to_all(context);
            return if is_changed { self.settle(context, true) } else { None };
        }
        None
    }

    /// When [`Election::tick`] next has something to do.
    pub(crate) fn wake_ms(&self) -> u64 {
        self.ballot.as_ref().map_or(u64::MAX, |ballot| {
            let at_ms = ballot.finalize_at_ms.unwrap_or_else(|| self.claim_at_ms());
            at_ms.min(ballot.resend_at_ms)
        })
    }

    /// A vote of somebody who looks for a leader, too. Says whether our proposal changed.
    fn on_electing(&mut self, from: &Address, heard: Heard, context: &mut Context<'_>) -> bool {
        let is_passed_over = self.is_passed_over(&heard.choice.candidate, context.now_ms);
        let goes_before = !is_passed_over && self.goes_before(&heard.choice, context);
        let is_late = self.is_late(context.now_ms);
        let Some(ballot) = &mut self.ballot else { return false };
        if ballot.is_settled {
            // An ensemble that has a leader is not given up for one that still looks. Two who did
            // that would raise each other's rounds for ever, since what they join has a lower one. But
            // one that has come to the same may be the last to agree.
            if (heard.round, &heard.choice) == (ballot.round, &ballot.proposal) {
                ballot.received.insert(from.clone(), heard);
            }
            return false;
        }
        if is_late {
            return self.on_electing_late(from, heard, context);
        }
        let gives_way = goes_before && ballot.proposal.candidate == self.own;
        if !gives_way && (heard.round, &heard.choice) < (ballot.round, &ballot.proposal) {
            // What was sent before it looked is lost to it; it must not wait until that is sent again.
            let vote = self.current_vote(context.standing);
            context.out.extend(vote.map(|vote| (from.clone(), vote)));
            return false;
        }
        let mut is_changed = false;
        if ballot.round < heard.round {
            ballot.round = heard.round;
            ballot.received.clear();
            ballot.active.clear();
            let own = own_choice(&self.own, context.standing);
            ballot.proposal = if is_passed_over {
                own
            } else if goes_before {
                heard.choice.clone()
            } else {
                own.max(heard.choice.clone())
            };
            is_changed = true;
        } else if gives_way || (ballot.proposal < heard.choice && !is_passed_over) {
            ballot.took_back |= heard.choice.candidate == self.own;
            ballot.proposal = heard.choice.clone();
            is_changed = true;
        }
        ballot.received.insert(from.clone(), heard);
        if is_changed {
            self.record_own();
            self.send_to_all(context);
        }
        is_changed
    }

    /// Whether this node stands back for a choice, whose history is as long. Who led last may know more of
    /// it as committed.
    fn goes_before(&self, choice: &Choice, context: &Context<'_>) -> bool {
        let Standing { epoch, logged, .. } = context.standing;
        let took_back = self.ballot.as_ref().is_some_and(|ballot| ballot.took_back);
        context.now_ms < self.stands_back_until_ms
            && !took_back
            && choice.candidate != self.own
            && (epoch, logged) <= (choice.epoch, choice.logged)
    }

    /// Whether a candidate failed too often, and enough others are there to do without it.
    fn is_passed_over(&self, candidate: &Address, now_ms: u64) -> bool {
        let Some(ballot) = &self.ballot else { return false };
        let has_failed = self.failures.get(candidate).is_some_and(|it| now_ms < it.until_ms);
        let others = ballot.heard.iter().filter(|member| *member != candidate);
        has_failed && self.members.is_quorum(others.chain([&self.own]))
    }

    /// A node that voted for such a candidate before it had heard of the others takes its vote back, in
    /// a round of its own: in this one nobody would believe it.
    fn begin_anew_if_passed_over(&mut self, context: &mut Context<'_>) {
        let Some(ballot) = &self.ballot else { return };
        if ballot.is_settled || !self.is_passed_over(&ballot.proposal.candidate, context.now_ms) {
            return;
        }
        let Some(ballot) = &mut self.ballot else { return };
        ballot.round = ballot.round.saturating_add(1);
        ballot.received.clear();
        ballot.active.clear();
        ballot.proposal = own_choice(&self.own, context.standing);
        ballot.finalize_at_ms = None;
        self.record_own();
        self.send_to_all(context);
    }

    /// Remembers who says that it leads, for as long as it says nothing else; of several, who does so for
    /// the latest epoch.
    fn on_claim(&mut self, from: &Address, heard: &Heard, now_ms: u64) {
        let Some(ballot) = &mut self.ballot else { return };
        let Heard { round, status, choice } = heard;
        if *status != PeerStatus::Leading || choice.candidate != *from {
            ballot.claim.take_if(|claim| claim.choice.candidate == *from);
            return;
        }
        let is_later = ballot
            .claim
            .as_ref()
            .is_none_or(|claim| claim.good_until_ms < now_ms || claim.choice.epoch <= choice.epoch);
        if is_later {
            let good_until_ms = now_ms.saturating_add(2 * self.base_ms_max);
            ballot.claim = Some(Claim { round: *round, choice: choice.clone(), good_until_ms });
        }
    }

    /// From when on a leader's own word is enough, if it is still good then: whoever was followed in vain
    /// must wait, and who has a quorum for anything needs none.
    fn claim_at_ms(&self) -> u64 {
        let claimed =
            self.ballot.as_ref().and_then(|ballot| Some((ballot, ballot.claim.as_ref()?)));
        let Some((ballot, claim)) = claimed else { return u64::MAX };
        let failed = self.failures.get(&claim.choice.candidate);
        let at_ms = ballot.content_at_ms.max(failed.map_or(0, |failed| failed.until_ms));
        match ballot.finalize_at_ms.is_none() && at_ms <= claim.good_until_ms {
            true => at_ms,
            false => u64::MAX,
        }
    }

    /// Takes what a leader says of itself for what is settled.
    fn takes_claim(&mut self, now_ms: u64) -> bool {
        let Some(ballot) = &mut self.ballot else { return false };
        let Some(Claim { round, choice, good_until_ms }) = &ballot.claim else { return false };
        if *good_until_ms < now_ms {
            ballot.claim = None;
            return false;
        }
        (ballot.round, ballot.proposal, ballot.is_settled) = (*round, choice.clone(), true);
        true
    }

    /// A vote of somebody who leads or follows. Says whether our proposal changed.
    fn on_active(&mut self, from: &Address, heard: Heard) -> bool {
        let own = &self.own;
        let Some(ballot) = &mut self.ballot else { return false };
        if heard.round == ballot.round {
            ballot.received.insert(from.clone(), heard.clone());
        }
        ballot.active.insert(from.clone(), heard.clone());
        let settled = Some(&ballot.proposal).filter(|_| ballot.is_settled);
        if settled.is_some_and(|settled| is_same_leader(settled, &heard.choice)) {
            // Each answers with the round it was elected in, or found the others settled in; were that
            // news, answers of several rounds would begin the wait anew for ever.
            return false;
        }
        let is_new = ballot.proposal != heard.choice || ballot.round != heard.round;
        if has_quorum(ballot, &heard.choice, heard.round, true, &self.members, own) {
            ballot.proposal = heard.choice;
            ballot.round = heard.round;
            ballot.is_settled = true;
            self.record_own();
            return is_new;
        }
        false
    }

    /// The ballot after a vote: whether it is decided, and since when.
    fn settle(&mut self, context: &mut Context<'_>, is_changed: bool) -> Option<Address> {
        // Who stands back, or goes by what it hears, may take back what it has said.
        let may_waver = context.now_ms < self.stands_back_until_ms || self.is_late(context.now_ms);
        let ballot = self.ballot.as_mut()?;
        let (proposal, round) = (&ballot.proposal, ballot.round);
        let is_settled = ballot.is_settled;
        if !has_quorum(ballot, proposal, round, is_settled, &self.members, &self.own) {
            ballot.finalize_at_ms = None;
            if is_settled {
                // They no longer say the same: this is a ballot like any other again.
                ballot.is_settled = false;
                ballot.proposal = own_choice(&self.own, context.standing);
                if self.is_late(context.now_ms) {
                    self.reconsider(context);
                }
                self.record_own();
                self.send_to_all(context);
            }
            return None;
        }
        let agree = |member: &Address| {
            let of = |votes: &BTreeMap<Address, Heard>| votes.get(member).cloned();
            *member == self.own
                || of(&ballot.received)
                    .is_some_and(|heard| supports(&heard, proposal, round, is_settled))
                || (is_settled
                    && of(&ballot.active)
                        .is_some_and(|heard| supports(&heard, proposal, round, is_settled)))
        };
        if (is_settled || !may_waver) && self.members.iter().all(agree) {
            return Some(self.finish());
        }
        if is_changed || ballot.finalize_at_ms.is_none() {
            let wait_ms = context.rng.jittered(self.finalize_ms);
            ballot.finalize_at_ms = Some(context.now_ms.saturating_add(wait_ms));
        }
        None
    }

    fn finish(&mut self) -> Address {
        let ballot = self.ballot.take().expect("only a ballot in progress is finished");
        self.last_round = ballot.round;
        let candidate = ballot.proposal.candidate.clone();
        self.winner = Some(Winner { round: ballot.round, choice: ballot.proposal });
        candidate
    }

    /// Tells somebody who asks how the last ballot ended, if this node stands by it.
    fn answer(&self, to: &Address, asked: &Vote, context: &mut Context<'_>) {
        let status = context.standing.status;
        let stands = matches!(status, PeerStatus::Leading | PeerStatus::Following);
        if asked.status != PeerStatus::Electing || !stands {
            return;
        }
        if let Some(winner) = &self.winner {
            let vote = self.vote(status, winner.round, &winner.choice);
            context.out.push((to.clone(), vote));
        }
    }

    fn record_own(&mut self) {
        let own = self.own.clone();
        if let Some(ballot) = &mut self.ballot
            && !self.solicit_only
            && !ballot.only_asks
        {
            let choice = ballot.proposal.clone();
            let heard = Heard { round: ballot.round, status: PeerStatus::Electing, choice };
            ballot.received.insert(own, heard);
        }
    }

    /// Tells all how this node votes, or asks, unless it is silent yet and votes for itself.
    fn send_to_all(&mut self, context: &mut Context<'_>) {
        let is_silent = self.ballot.as_ref().is_some_and(|ballot| {
            let votes = !self.solicit_only && !ballot.only_asks;
            let votes_for_itself = votes && ballot.proposal.candidate == self.own;
            votes_for_itself && context.now_ms < ballot.silent_until_ms
        });
        if let Some(vote) = self.current_vote(context.standing).filter(|_| !is_silent) {
            if let Some(ballot) = self.ballot.as_mut().filter(|ballot| !ballot.only_asks) {
                ballot.silent_until_ms = 0;
            }
            let others = self.members.iter().filter(|member| **member != self.own);
            context.out.extend(others.map(|member| (member.clone(), vote.clone())));
        }
        if let Some(ballot) = &mut self.ballot {
            let wait_ms = context.rng.jittered(ballot.resend_wait_ms);
            ballot.sent_at_ms = context.now_ms;
            ballot.resend_at_ms = context.now_ms.saturating_add(wait_ms);
        }
    }

    fn current_vote(&self, standing: Standing) -> Option<Vote> {
        let ballot = self.ballot.as_ref()?;
        // Members answer only those who say that they are electing, whatever they are.
        debug_assert!(standing.status == PeerStatus::Electing, "a ballot is for who looks");
        if ballot.only_asks {
            return Some(self.question(standing));
        }
        Some(self.vote(PeerStatus::Electing, ballot.round, &ballot.proposal))
    }

    fn vote(&self, status: PeerStatus, round: u64, choice: &Choice) -> Vote {
        Vote {
            round,
            status,
            epoch: choice.epoch,
            candidate: choice.candidate.clone(),
            logged: choice.logged,
            committed: choice.committed,
            solicit: self.solicit_only,
            cluster: self.cluster,
        }
    }

    /// A question to somebody who should be leading or following, to see whether it is there.
    pub(crate) fn question(&self, standing: Standing) -> Vote {
        let choice = own_choice(&self.own, standing);
        let mut vote = self.vote(PeerStatus::Electing, self.round(), &choice);
        vote.solicit = true;
        vote
    }
}

fn own_choice(own: &Address, standing: Standing) -> Choice {
    Choice {
        epoch: standing.epoch,
        logged: standing.logged,
        committed: standing.committed,
        candidate: own.clone(),
    }
}

/// Whether a vote that was heard is one for `proposal`. Those who have settled are compared by
/// candidate and epoch: what they say of the candidate's history is as of their election.
fn supports(heard: &Heard, proposal: &Choice, round: u64, is_settled: bool) -> bool {
    if is_settled && heard.status != PeerStatus::Electing {
        is_same_leader(&heard.choice, proposal)
    } else {
        heard.choice == *proposal && heard.round == round
    }
}

fn is_same_leader(one: &Choice, other: &Choice) -> bool {
    (&one.candidate, one.epoch) == (&other.candidate, other.epoch)
}

/// Whether enough members voted for `proposal`, and, if it is that of an established ensemble, the
/// one it names is among those who said so, as its leader.
fn has_quorum(
    ballot: &Ballot,
    proposal: &Choice,
    round: u64,
    is_settled: bool,
    members: &Electors,
    own: &Address,
) -> bool {
    let are_enough = |votes: &BTreeMap<Address, Heard>| {
        let supporting =
            votes.iter().filter(|(_, heard)| supports(heard, proposal, round, is_settled));
        members.is_quorum(supporting.map(|(from, _)| from))
    };
    if !is_settled {
        return are_enough(&ballot.received);
    }
    let leader = ballot.active.get(&proposal.candidate);
    let is_certified = match proposal.candidate == *own {
        true => round == ballot.round,
        false => leader.is_some_and(|heard| heard.status == PeerStatus::Leading),
    };
    is_certified && (are_enough(&ballot.received) || are_enough(&ballot.active))
}

#[cfg(test)]
mod tests;
