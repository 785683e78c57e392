//! A node that has looked for long goes by what it hears itself.
//!
//! Votes are passed on, and a vote for somebody who has more is never taken back. Where some hear others
//! that do not hear them, that may leave a majority without a leader for ever, though all of it can talk with
//! each other: some vote for one who does not hear of it, the rest for others. So after as long as a leader
//! waits for a quorum, and until there is a leader, a node
//!
//! - votes for the greatest of those who say to it, themselves and lately, that they vote for themselves;
//! - is one of them only while it hears a quorum, and not for long if nothing comes of it although nobody
//!   it hears knows of a greater one: then it is not heard by enough of the others, and makes room for a while;
//! - asks, as a watcher does, if that leaves it nobody to vote for: so the others hear that it is there;
//! - takes whom it has voted for, until every other could have made room, for followed in vain.
//!
//! gometa's nodes never do that. What they say is taken likewise.

use super::{Choice, Context, Election, Heard, own_choice};
use crate::{Address, PeerStatus};

/// What a member said last.
#[derive(Clone, Debug)]
pub(super) struct Word {
    at_ms: u64,
    /// Whether it looks for a leader, too.
    looks: bool,
    /// Nothing if it does not vote.
    choice: Option<Choice>,
}

impl Election {
    /// Whether it has looked for so long that it goes by what it hears itself. A ballot or two that lost
    /// some datagrams are no sign of anything.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        let since_ms = self.looks_since_ms.filter(|_| !self.solicit_only);
        let patience_ms = self.patience_ms.max(2 * self.ballot_wait_ms());
        since_ms.is_some_and(|since_ms| since_ms.saturating_add(patience_ms) <= now_ms)
    }

    /// How long it takes at most until all have heard each other's votes, and then are sure of them.
    fn ballot_wait_ms(&self) -> u64 {
        self.base_ms_max.saturating_mul(2).saturating_add(self.finalize_ms)
    }

    /// The same for all members, one after the other.
    fn all_wait_ms(&self) -> u64 {
        self.ballot_wait_ms().saturating_mul(self.members.iter().count() as u64 + 1)
    }

    pub(super) fn keep_word(&mut self, from: &Address, heard: Option<&Heard>, now_ms: u64) {
        let looks = heard.is_none_or(|heard| heard.status == PeerStatus::Electing);
        let was_there = self.words.get(from).is_some_and(|word| self.is_fresh(word, now_ms));
        if looks && !was_there {
            // It may be the one who was missing.
            self.makes_room_until_ms = 0;
        }
        let choice = heard.filter(|_| looks).map(|heard| heard.choice.clone());
        self.words.insert(from.clone(), Word { at_ms: now_ms, looks, choice });
        if let Some(ballot) = &mut self.ballot {
            ballot.heard.insert(from.clone());
        }
    }

    /// A member that only asks votes for nobody.
    pub(super) fn on_question(
        &mut self,
        from: &Address,
        context: &mut Context<'_>,
    ) -> Option<Address> {
        if !self.members.contains(from) || *from == self.own {
            return None;
        }
        self.keep_word(from, None, context.now_ms);
        if !self.is_late(context.now_ms) {
            return None;
        }
        self.ballot.as_mut()?.received.remove(from);
        let is_changed = self.reconsider_and_tell(context);
        self.settle(context, is_changed)
    }

    /// A vote of somebody who looks for a leader, too. Says whether our proposal changed.
    pub(super) fn on_electing_late(
        &mut self,
        from: &Address,
        heard: Heard,
        context: &mut Context<'_>,
    ) -> bool {
        let Some(ballot) = &mut self.ballot else { return false };
        if heard.round < ballot.round {
            let vote = self.current_vote(context.standing);
            context.out.extend(vote.map(|vote| (from.clone(), vote)));
            return false;
        }
        let is_later = ballot.round < heard.round;
        if is_later {
            ballot.round = heard.round;
            ballot.received.clear();
            ballot.active.clear();
        }
        ballot.received.insert(from.clone(), heard);
        if is_later {
            self.reconsider(context);
            self.record_own();
            self.send_to_all(context);
            return true;
        }
        self.reconsider_and_tell(context)
    }

    fn reconsider_and_tell(&mut self, context: &mut Context<'_>) -> bool {
        let is_changed = self.reconsider(context);
        if is_changed {
            self.send_to_all(context);
        }
        is_changed
    }

    /// Votes anew by what was heard lately. Says whether that changed anything.
    pub(super) fn reconsider(&mut self, context: &mut Context<'_>) -> bool {
        self.make_room_if_in_vain(context);
        self.give_up_if_in_vain(context.now_ms);
        let own = own_choice(&self.own, context.standing);
        let best = self.best_heard(&own, context.now_ms);
        let (silent_until_ms, took_back) =
            self.ballot.as_ref().map_or((0, false), |it| (it.silent_until_ms, it.took_back));
        let stands_back_until_ms = match best {
            Some(_) if took_back => 0,
            Some(_) => self.stands_back_until_ms,
            None => silent_until_ms,
        };
        let stands = stands_back_until_ms <= context.now_ms && self.may_stand(context.now_ms);
        let Some(ballot) = &mut self.ballot else { return false };
        if ballot.is_settled {
            return false;
        }
        let only_asks = !stands && best.is_none();
        let proposal = match best {
            Some(best) if !stands || own < best => best,
            _ => own,
        };
        let is_changed = (ballot.only_asks, &ballot.proposal) != (only_asks, &proposal);
        ballot.took_back |= proposal.candidate == self.own && ballot.proposal.candidate != self.own;
        let backed = Some(&proposal.candidate).filter(|candidate| **candidate != self.own);
        if ballot.backs.as_ref().map(|(candidate, _)| candidate) != backed {
            ballot.backs = backed.map(|candidate| (candidate.clone(), context.now_ms));
        }
        (ballot.only_asks, ballot.proposal) = (only_asks, proposal);
        if only_asks {
            ballot.received.remove(&self.own);
        }
        self.record_own();
        is_changed
    }

    /// The greatest of those who vote for themselves, if it has as much as this node.
    fn best_heard(&self, own: &Choice, now_ms: u64) -> Option<Choice> {
        let candidates = self.fresh_words(now_ms).filter_map(|(from, word)| {
            let choice = word.choice.as_ref().filter(|choice| choice.candidate == *from)?;
            let has_as_much = (own.epoch, own.logged) <= (choice.epoch, choice.logged);
            (has_as_much && !self.is_passed_over(from, now_ms)).then_some(choice)
        });
        candidates.max().cloned()
    }

    /// Whether enough are heard by this node, and may hear it.
    fn may_stand(&self, now_ms: u64) -> bool {
        let others = self.fresh_words(now_ms).map(|(from, _)| from);
        self.makes_room_until_ms <= now_ms && self.members.is_quorum(others.chain([&self.own]))
    }

    /// For a while it votes for itself no more, if it did so for long enough, and nobody who is heard
    /// votes for a greater one, who may be the one to make room.
    fn make_room_if_in_vain(&mut self, context: &mut Context<'_>) {
        let Some(ballot) = &self.ballot else { return };
        let own = own_choice(&self.own, context.standing);
        let is_open = !ballot.only_asks && ballot.finalize_at_ms.is_none();
        let knows_greater = || {
            let mut words = self.fresh_words(context.now_ms);
            words.any(|(_, word)| word.choice.as_ref().is_some_and(|choice| own < *choice))
        };
        let is_in_vain = is_open && ballot.proposal == own && !knows_greater();
        let since_ms = ballot.in_vain_since_ms.unwrap_or(context.now_ms);
        let wait_ms = self.ballot_wait_ms();
        let is_over = is_in_vain && since_ms.saturating_add(wait_ms) <= context.now_ms;
        if is_over {
            // Longer than it takes until all others have made room, or it would stand again before.
            let room_ms = context.rng.jittered(self.pass_over_ms.max(self.all_wait_ms()));
            self.makes_room_until_ms = context.now_ms.saturating_add(room_ms);
        }
        if let Some(ballot) = &mut self.ballot {
            ballot.in_vain_since_ms = (is_in_vain && !is_over).then_some(since_ms);
        }
    }

    /// A candidate that it has voted for until every other could have made room, and that did not win, may
    /// hear nobody: as if it had been followed in vain.
    fn give_up_if_in_vain(&mut self, now_ms: u64) {
        let wait_ms = self.all_wait_ms();
        let Some(ballot) = self.ballot.as_mut().filter(|ballot| ballot.finalize_at_ms.is_none())
        else {
            return;
        };
        let in_vain =
            ballot.backs.take_if(|(_, since_ms)| since_ms.saturating_add(wait_ms) <= now_ms);
        if let Some((candidate, _)) = in_vain {
            self.on_failed(&candidate, now_ms);
        }
    }

    /// What those who look have said in this ballot, and so lately that it is still so.
    fn fresh_words(&self, now_ms: u64) -> impl Iterator<Item = (&Address, &Word)> {
        let heard = self.ballot.iter().flat_map(|ballot| &ballot.heard);
        let words = heard.filter_map(|member| self.words.get_key_value(member));
        words.filter(move |(_, word)| word.looks && self.is_fresh(word, now_ms))
    }

    /// Whether it is still so, unless two or three datagrams were lost.
    fn is_fresh(&self, word: &Word, now_ms: u64) -> bool {
        now_ms <= word.at_ms.saturating_add(self.base_ms_max.saturating_mul(4))
    }
}
