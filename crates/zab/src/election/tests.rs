//! Which vote wins, when, and who is told.

use super::*;
use crate::Member;
use quorate_types::NodeId;

mod storm;

fn address(id: u64) -> Address {
    format!("10.0.0.{id}:5001").as_str().into()
}

fn id(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// One node's election, with a clock.
struct Site {
    election: Election,
    standing: Standing,
    rng: Rng,
    now_ms: u64,
    out: Vec<(Address, Vote)>,
}

impl Site {
    /// Node `own` of an ensemble of `size`; a greater id only asks.
    fn new(own: u64, size: u64) -> Self {
        let member = |id| Member {
            id: NodeId(id),
            election: address(id),
            message: format!("10.0.0.{id}:5002").as_str().into(),
        };
        let config = Config::new(member(own), (1..=size).map(member).collect());
        let (epoch, logged, committed) = (Epoch(0), Zxid::ZERO, Zxid::ZERO);
        let status = PeerStatus::Electing;
        Site {
            election: Election::new(&config),
            standing: Standing { status, epoch, logged, committed },
            rng: Rng::new(1, own),
            now_ms: 0,
            out: Vec::new(),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Election, &mut Context<'_>) -> T) -> T {
        let (now_ms, standing) = (self.now_ms, self.standing);
        let (rng, out) = (&mut self.rng, &mut self.out);
        work(&mut self.election, &mut Context { now_ms, standing, rng, out })
    }

    fn start(&mut self) -> Option<Address> {
        self.with(Election::start)
    }

    fn stand_back(&mut self) -> Option<Address> {
        self.with(Election::stand_back)
    }

    fn hear(&mut self, from: u64, vote: Vote) -> Option<Address> {
        self.try_hear(from, vote).unwrap()
    }

    fn try_hear(&mut self, from: u64, vote: Vote) -> Result<Option<Address>, DatagramFault> {
        self.with(|election, context| election.on_vote(&address(from), vote, context))
    }

    fn pass(&mut self, ms: u64) -> Option<Address> {
        self.now_ms += ms;
        self.with(Election::tick)
    }

    /// What was sent since the last look, as receiver and candidate.
    fn sent(&mut self) -> Vec<(Address, Vote)> {
        std::mem::take(&mut self.out)
    }

    fn winner(&self) -> Option<(u64, Address, u32)> {
        let winner = self.election.winner()?;
        Some((winner.round, winner.choice.candidate.clone(), winner.choice.epoch.0))
    }
}

/// A vote of somebody who looks, for `candidate`.
fn electing(round: u64, candidate: u64, epoch: u32) -> Vote {
    Vote { round, candidate: address(candidate), epoch: Epoch(epoch), ..Vote::default() }
}

fn active(round: u64, candidate: u64, epoch: u32, status: PeerStatus) -> Vote {
    Vote { status, ..electing(round, candidate, epoch) }
}

use PeerStatus::{Following, Leading};

#[test]
fn votes_compare_field_by_field() {
    let choice = |epoch, logged, committed, candidate: &str| Choice {
        epoch: Epoch(epoch),
        logged,
        committed,
        candidate: candidate.into(),
    };
    let ascending = [
        choice(0, id(9, 9), id(9, 9), "z"),
        choice(1, id(1, 1), id(1, 1), "z"),
        choice(1, id(1, 2), id(1, 0), "z"),
        choice(1, id(1, 2), id(1, 1), "127.0.0.1:10001"),
        choice(1, id(1, 2), id(1, 1), "127.0.0.1:9001"), // bytes, not numbers
        choice(2, Zxid::ZERO, Zxid::ZERO, ""),
    ];
    assert!(ascending.is_sorted());
}

#[test]
fn a_lone_member_wins_at_once_and_a_lone_asker_never() {
    assert_eq!(Site::new(1, 1).start(), Some(address(1)));
    let mut asker = Site::new(2, 1);
    assert_eq!(asker.start(), None);
    assert_eq!(asker.pass(10_000), None);
    assert!(asker.sent().iter().all(|(to, vote)| *to == address(1) && vote.solicit));
}

#[test]
fn the_greatest_vote_is_adopted_and_passed_on() {
    let mut site = Site::new(1, 3);
    site.start();
    let sent: Vec<_> = site.sent().into_iter().map(|(to, vote)| (to, vote.candidate)).collect();
    assert_eq!(sent, [(address(2), address(1)), (address(3), address(1))], "first for itself");

    assert_eq!(site.hear(2, electing(1, 2, 0)), None);
    let sent = site.sent();
    assert_eq!(sent.len(), 2, "adopted, and told to all");
    assert!(sent.iter().all(|(_, vote)| vote.candidate == address(2) && vote.round == 1));

    // A smaller vote is not recorded and disturbs nothing; its sender is told of the greater one.
    assert_eq!(site.hear(3, electing(1, 1, 0)), None);
    assert_eq!(site.sent(), [(address(3), electing(1, 2, 0))]);
    assert_eq!(site.pass(241), Some(address(2)), "a quorum, and the wait is over");
    assert_eq!(site.winner(), Some((1, address(2), 0)));
}

#[test]
fn who_begins_later_hears_at_once_what_it_has_missed() {
    let (mut early, mut late) = (Site::new(3, 3), Site::new(1, 3));
    early.start();
    early.sent(); // before the other looked
    late.start();
    let (_, vote) = late.sent().remove(1);
    assert_eq!(early.hear(1, vote), None);
    let (to, answer) = early.sent().remove(0);
    assert_eq!(to, address(1));
    assert_eq!(late.hear(3, answer), None);
    let (_, vote) = late.sent().remove(1);
    assert_eq!(vote.candidate, address(3));
    assert_eq!(early.hear(1, vote), None);
    assert!(early.sent().is_empty() && late.sent().is_empty(), "they agree");
    assert_eq!((early.pass(240), late.pass(240)), (Some(address(3)), Some(address(3))));
}

#[test]
fn when_all_agree_nobody_waits() {
    let mut site = Site::new(1, 3);
    site.start();
    assert_eq!(site.hear(3, electing(1, 3, 0)), None);
    assert_eq!(site.hear(2, electing(1, 3, 0)), Some(address(3)));
}

#[test]
fn the_last_to_agree_is_counted_whoever_has_settled_before() {
    let mut site = Site::new(3, 3);
    site.start();
    // It was done first, follows, and was asked again.
    assert_eq!(site.hear(2, active(1, 3, 0, Following)), None);
    assert_eq!(site.hear(1, electing(1, 3, 0)), Some(address(3)));
}

#[test]
fn a_vote_that_changes_nothing_does_not_postpone_the_end() {
    let mut site = Site::new(3, 3);
    site.start();
    assert_eq!(site.hear(1, electing(1, 3, 0)), None);
    site.pass(199);
    // A moment before the end: a smaller vote, and one that is out of date.
    assert_eq!(site.hear(2, electing(1, 2, 0)), None);
    assert_eq!(site.hear(2, active(1, 2, 0, Following)), None);
    assert_eq!(site.pass(42), Some(address(3)), "it ends on time");
}

#[test]
fn a_greater_vote_begins_the_wait_anew() {
    let mut site = Site::new(2, 3);
    site.start();
    assert_eq!(site.hear(1, electing(1, 2, 0)), None);
    site.pass(190);
    assert_eq!(site.hear(3, electing(1, 3, 0)), None, "adopted; two of three now say 3");
    assert_eq!(site.pass(190), None);
    assert_eq!(site.pass(60), Some(address(3)));
}

#[test]
fn rounds() {
    // (round heard, candidate heard, own round after it, candidate after it, sent to)
    for (round, candidate, want_round, want, to) in [
        (1, 1, 3, 2, vec![1]),    // behind: only the sender is told
        (3, 3, 3, 3, vec![1, 3]), // greater in the same round
        (3, 2, 3, 2, vec![]),     // the same vote
        (3, 1, 3, 2, vec![1]),    // smaller in the same round: only the sender is told
        (5, 1, 5, 2, vec![1, 3]), // ahead, but smaller than what this node has itself
        (5, 3, 5, 3, vec![1, 3]), // ahead and greater
    ] {
        let mut site = Site::new(2, 3);
        site.election.last_round = 2;
        site.start();
        site.sent();
        site.hear(1, electing(round, candidate, 0));
        let sent = site.sent();
        let receivers: Vec<_> = sent.iter().map(|(to, _)| to.clone()).collect();
        let wanted: Vec<_> = to.iter().map(|id| address(*id)).collect();
        assert_eq!(receivers, wanted, "round {round}, candidate {candidate}");
        let ballot = site.election.ballot.as_ref();
        let ballot = ballot.map(|ballot| (ballot.round, ballot.proposal.candidate.clone()));
        if let Some(ballot) = ballot {
            assert_eq!(ballot, (want_round, address(want)), "round {round} {candidate}");
        }
    }
}

#[test]
fn a_higher_round_forgets_what_was_heard_before() {
    let mut site = Site::new(1, 5);
    site.start();
    site.hear(2, electing(1, 5, 0));
    site.hear(3, electing(1, 5, 0));
    assert!(site.election.ballot.as_ref().unwrap().finalize_at_ms.is_some());
    site.hear(4, electing(2, 5, 0));
    assert_eq!(site.pass(1000), None, "two of five");
}

#[test]
fn a_settled_ensemble_is_joined_without_an_election() {
    let mut site = Site::new(1, 3);
    site.standing.epoch = Epoch(0);
    site.start();
    assert_eq!(site.hear(3, active(7, 3, 4, Leading)), None, "one answer");
    // A follower that has not had NewLeader shows another epoch, and does not count.
    assert_eq!(site.hear(2, active(7, 3, 3, Following)), None);
    assert_eq!(site.pass(500), None);
    assert_eq!(site.hear(2, active(7, 3, 4, Following)), Some(address(3)), "both others agree");
    assert_eq!(site.winner(), Some((7, address(3), 4)), "their round, their epoch");
}

#[test]
fn a_settled_ensemble_that_answers_with_several_rounds_is_joined_on_time() {
    // Node 2 looks, too, so not all agree; the others say again and again how they were elected, each
    // more often than the wait is long.
    let mut site = Site::new(1, 5);
    site.start();
    let answers = [(3, 4, Following), (4, 3, Following), (5, 4, Leading)];
    let mut winner = None;
    for _ in 0..10 {
        for (from, round, status) in answers {
            assert_eq!(site.hear(from, active(round, 5, 4, status)), None, "2 was not heard");
        }
        assert_eq!(site.hear(2, electing(9, 2, 4)), None);
        winner = winner.or(site.pass(50));
        if winner.is_some() {
            break;
        }
    }
    assert_eq!(winner, Some(address(5)), "after {} ms", site.now_ms);
    assert!(site.now_ms <= 250, "{} ms", site.now_ms);
}

#[test]
fn a_settled_ensemble_is_not_given_up_for_one_who_looks() {
    let mut site = Site::new(1, 5);
    site.start();
    site.hear(2, active(7, 3, 4, Following));
    site.hear(5, active(7, 3, 4, Following));
    assert_eq!(site.hear(3, active(7, 3, 4, Leading)), None, "three of five, and a wait");
    site.sent();
    site.hear(4, electing(9, 4, 8));
    assert!(site.sent().is_empty(), "two of these would answer each other for ever");
    assert_eq!(site.pass(241), Some(address(3)));
    // But it is no longer settled when they no longer agree.
    let mut site = Site::new(1, 5);
    site.start();
    for (from, status) in [(2, Following), (5, Following), (3, Leading)] {
        site.hear(from, active(7, 3, 4, status));
    }
    site.hear(3, active(7, 3, 5, Leading));
    assert_eq!(site.pass(1000), None);
    site.sent();
    site.hear(4, electing(9, 4, 8));
    assert!(!site.sent().is_empty(), "a ballot like any other");
}

#[test]
fn a_settled_ensemble_needs_its_leaders_own_word() {
    let mut site = Site::new(1, 5);
    site.start();
    for from in [2, 3, 4] {
        assert_eq!(site.hear(from, active(7, 5, 4, Following)), None);
    }
    assert_eq!(site.pass(1000), None, "three of five, but not the leader");
    assert_eq!(site.hear(5, active(7, 5, 4, Leading)), Some(address(5)));
    // And one that only says it follows does not lead.
    let mut site = Site::new(1, 3);
    site.start();
    site.hear(2, active(7, 3, 4, Following));
    assert_eq!(site.hear(3, active(7, 3, 4, Following)), None);
    assert_eq!(site.pass(1000), None);
}

/// Whom it does not reach are the followers: their answers, or their votes, would be the rest of a quorum.
#[test]
fn who_reaches_nobody_but_the_leader_goes_by_its_word_after_a_while() {
    let told = |until_ms: u64, every_ms: u64| {
        let mut site = Site::new(2, 3);
        site.standing.epoch = Epoch(4);
        assert_eq!(site.start(), None);
        let mut found = None;
        while site.now_ms < 30_000 && found.is_none() {
            if site.now_ms < until_ms {
                assert_eq!(site.hear(3, active(1, 3, 4, Leading)), None, "one of three");
            }
            found = site.pass(every_ms);
        }
        (found, site.now_ms, site.winner())
    };
    let (found, at_ms, winner) = told(u64::MAX, 100);
    assert_eq!((found, winner), (Some(address(3)), Some((1, address(3), 4))));
    assert!((10_000..10_500).contains(&at_ms), "{at_ms}: others may come meanwhile");
    assert_eq!(told(8_000, 100).0, None, "it has not said so for a while");
}

#[test]
fn a_leader_that_was_followed_in_vain_is_not_taken_at_its_word() {
    let mut site = Site::new(2, 3);
    for _ in 0..FAILURES_COUNT_MIN {
        site.election.on_failed(&address(3), 0);
    }
    site.start();
    let mut hear_until = |until_ms: u64| {
        let mut found = None;
        while site.now_ms < until_ms && found.is_none() {
            // A follower's word is none of a leader.
            site.hear(1, active(1, 1, 5, Following));
            site.hear(3, active(1, 3, 4, Leading));
            found = site.pass(100);
        }
        found
    };
    assert_eq!(hear_until(19_000), None);
    assert_eq!(hear_until(21_000), Some(address(3)), "it may have come to lead since");
}

#[test]
fn a_returning_leader_is_not_elected_by_what_others_remember() {
    let mut site = Site::new(3, 3);
    site.start();
    site.hear(1, active(2, 3, 4, Following));
    assert_eq!(site.hear(2, active(2, 3, 4, Following)), None, "another round: not this life");
    assert_eq!(site.pass(1000), None);
}

#[test]
fn own_votes_are_sent_again_less_and_less_often() {
    let mut site = Site::new(1, 3);
    site.start();
    let mut at = Vec::new();
    for _ in 0..400 {
        site.sent();
        site.pass(10);
        if !site.out.is_empty() {
            at.push(site.now_ms);
        }
    }
    let waits: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, base) in waits.iter().zip([100, 200, 400, 500, 500]) {
        assert!((base..=base * 6 / 5 + 10).contains(wait), "{waits:?}");
    }
}

#[test]
fn a_busy_neighbour_keeps_nobody_mute() {
    let mut site = Site::new(1, 3);
    site.start();
    site.sent();
    let mut silent_ms = 0;
    for _ in 0..200 {
        site.hear(2, electing(1, 1, 0)); // equal: changes nothing, and is not answered
        site.election.ballot.as_mut().unwrap().finalize_at_ms = None;
        site.pass(10);
        silent_ms = if site.sent().is_empty() { silent_ms + 10 } else { 0 };
        assert!(silent_ms <= 510, "mute for {silent_ms} ms");
    }
}

#[test]
fn votes_from_outside_are_dropped() {
    let mut site = Site::new(1, 3);
    site.start();
    let alien = Vote { candidate: "10.9.9.9:1".into(), ..electing(1, 3, 9) };
    assert_eq!(site.try_hear(9, electing(1, 9, 9)), Err(DatagramFault::NotMember));
    assert_eq!(site.try_hear(1, electing(1, 3, 9)), Err(DatagramFault::NotMember), "itself");
    assert_eq!(site.try_hear(2, alien), Err(DatagramFault::Candidate));
    assert_eq!(site.try_hear(2, active(1, 3, 9, PeerStatus::Watching)), Err(DatagramFault::Status));
    site.election.cluster = Some(7);
    let other = Vote { cluster: Some(8), ..electing(1, 3, 9) };
    assert_eq!(site.try_hear(2, other), Err(DatagramFault::Cluster));
    assert_eq!(site.pass(1000), None, "none of it counted");
    // gometa nodes do not say which ensemble they belong to.
    assert_eq!(site.try_hear(2, electing(1, 3, 9)), Ok(None));
}

#[test]
fn who_asks_is_answered_by_those_who_lead_or_follow() {
    let question = |status, solicit| Vote { status, solicit, ..electing(1, 9, 0) };
    for (status, from, vote, want) in [
        (Leading, 9, question(PeerStatus::Electing, true), true), // from anywhere
        (Following, 9, question(PeerStatus::Electing, true), true),
        (Following, 2, electing(4, 2, 0), true),
        (Following, 2, active(4, 3, 0, Following), false), // it does not ask
        (Following, 9, question(Leading, true), false),
        (PeerStatus::Electing, 9, question(PeerStatus::Electing, true), false),
    ] {
        let mut site = Site::new(1, 3);
        site.start();
        site.hear(3, electing(1, 3, 0));
        assert_eq!(site.hear(2, electing(1, 3, 0)), Some(address(3)));
        site.election.update_winning_epoch(Epoch(6));
        site.standing.status = status;
        site.standing.logged = id(6, 6);
        site.sent();
        assert_eq!(site.hear(from, vote.clone()), None);
        let sent = site.sent();
        assert_eq!(sent.len(), usize::from(want), "{status:?} asked by {from}: {vote:?}");
        for (to, answer) in sent {
            assert_eq!(to, address(from), "to who asked alone");
            let of_election = Vote { epoch: Epoch(6), status, ..electing(1, 3, 0) };
            assert_eq!(answer, of_election, "as elected, but for the epoch");
        }
    }
}

#[test]
fn who_only_asks_hears_only_those_who_have_settled() {
    let mut site = Site::new(9, 3);
    site.start();
    assert!(site.sent().iter().all(|(_, vote)| vote.solicit && vote.round == 1));
    site.hear(1, electing(5, 3, 0));
    site.hear(2, electing(5, 3, 0));
    assert_eq!(site.pass(1000), None);
    site.hear(1, active(5, 3, 2, Following));
    assert_eq!(site.hear(3, active(5, 3, 2, Leading)), None, "two of three, and a wait");
    assert_eq!(site.pass(241), Some(address(3)));

    // It has no vote that it could stand back with.
    let mut site = Site::new(9, 3);
    site.start();
    site.sent();
    site.stand_back();
    assert_eq!(site.sent().len(), 3);
}

#[test]
fn a_ballot_that_failed_does_not_count_as_a_round() {
    let mut site = Site::new(1, 3);
    site.start();
    assert_eq!(site.election.round(), 1);
    site.election.abandon();
    site.start();
    assert_eq!(site.election.round(), 1);
    site.hear(2, electing(1, 2, 0));
    assert_eq!(site.pass(241), Some(address(2)));
    site.start();
    assert_eq!(site.election.round(), 2);
    assert!(site.election.winner().is_none(), "a new election has none yet");
    site.election.update_winning_epoch(Epoch(9)); // and that hurts nobody
}

#[test]
fn who_was_followed_in_vain_is_passed_over_while_there_may_be_others() {
    let mut site = Site::new(1, 5);
    let hour_ms = 3_600_000;
    let votes_for = |site: &mut Site, heard: &[u64]| {
        site.start();
        for from in heard {
            site.hear(*from, electing(site.election.round(), 5, 1));
        }
        let last = site.sent().pop().unwrap();
        site.election.abandon();
        last.1.candidate
    };
    site.election.on_failed(&address(5), site.now_ms);
    assert_eq!(votes_for(&mut site, &[2, 3, 4]), address(5), "once may be chance");
    site.election.on_failed(&address(5), site.now_ms);
    assert_eq!(votes_for(&mut site, &[2, 3, 4]), address(1));
    assert_eq!(votes_for(&mut site, &[5, 2]), address(5), "there is no quorum without it");
    assert_eq!(votes_for(&mut site, &[5, 2, 3]), address(1));
    site.pass(hour_ms);
    assert_eq!(votes_for(&mut site, &[2, 3, 4]), address(1), "only by what was heard of it alone");
    assert_eq!(votes_for(&mut site, &[2, 3, 4, 5]), address(5), "not for ever");
    site.election.on_failed(&address(5), site.now_ms);
    assert_eq!(votes_for(&mut site, &[2, 3, 4]), address(1), "once more is enough");
    site.election.forget_failures();
    assert_eq!(votes_for(&mut site, &[2, 3, 4]), address(5), "there was a leader meanwhile");
}

#[test]
fn a_node_that_stands_back_votes_for_whoever_has_as_much() {
    for (wait_ms, begins_before, logged, committed, want) in [
        (0, false, id(3, 5), id(3, 4), 1),
        (0, false, id(3, 6), id(3, 4), 1),
        (0, false, id(3, 4), id(3, 4), 3), // would lose what this node has
        (1_000_000, false, id(3, 5), id(3, 4), 3), // that was long ago
        (1_000_000, true, id(3, 5), id(3, 4), 1),
    ] {
        let mut site = Site::new(3, 3);
        (site.standing.logged, site.standing.committed) = (id(3, 5), id(3, 5));
        site.stand_back();
        site.now_ms += wait_ms;
        site.start();
        if begins_before {
            site.sent();
            site.stand_back();
            site.pass(100);
        }
        let is_silent = site.sent().is_empty();
        assert_eq!(is_silent, wait_ms == 0 || begins_before, "it says nothing for itself");
        let round = site.election.round();
        site.hear(1, Vote { logged, committed, ..electing(round, 1, 0) });
        let sent = site.sent();
        assert!(!sent.is_empty());
        assert!(sent.iter().all(|(_, vote)| vote.candidate == address(want)), "{want}: {sent:?}");
    }
}

#[test]
fn a_node_that_stands_back_does_not_win_by_what_it_heard_before() {
    let mut site = Site::new(3, 3);
    site.start();
    assert_eq!(site.hear(1, electing(1, 3, 0)), None, "a quorum, and the wait begins");
    site.now_ms += 60_000; // mute
    assert_eq!(site.stand_back(), None);
    assert_eq!(site.pass(1_000), None);
}

#[test]
fn a_leader_that_looks_again_is_not_taken_at_its_former_word() {
    let mut site = Site::new(2, 5);
    site.start();
    for _ in 0..99 {
        site.hear(5, active(1, 5, 4, Leading));
        site.pass(100);
    }
    site.hear(5, electing(2, 5, 4));
    assert_eq!(site.pass(200), None);
}

#[test]
fn a_node_stands_back_in_a_later_round_too_and_not_for_ever() {
    let mut site = Site::new(3, 3);
    site.stand_back();
    site.start();
    assert_eq!(site.hear(1, electing(7, 1, 0)), None);
    assert_eq!(site.hear(2, electing(7, 1, 0)), None, "all agree, and may think better of it");
    assert_eq!(site.pass(2 * site.election.finalize_ms), Some(address(1)));
    assert_eq!(site.winner(), Some((7, address(1), 0)));
    // Somebody has led meanwhile.
    site.election.forget_failures();
    site.sent();
    site.start();
    assert!(site.sent().iter().all(|(_, vote)| vote.candidate == address(3)));

    // Nobody else is there to be voted for.
    let mut site = Site::new(3, 3);
    site.stand_back();
    site.start();
    while site.sent().is_empty() {
        site.pass(10);
        assert!(site.now_ms < 2 * site.election.base_ms_max, "it never speaks");
    }
}

#[test]
fn where_all_stand_back_one_of_them_wins_soon() {
    let mut sites: Vec<Site> = (1..=3).map(|own| Site::new(own, 3)).collect();
    for site in &mut sites {
        site.stand_back();
        assert_eq!(site.start(), None);
    }
    let mut winners = vec![None; 3];
    for _ in 0..200 {
        for at in 0..3 {
            let won = sites[at].pass(10);
            winners[at] = winners[at].take().or(won);
            for (to, vote) in sites[at].sent() {
                let other = (0..3).find(|other| address(*other as u64 + 1) == to).unwrap();
                if winners[other].is_none() {
                    winners[other] = sites[other].hear(at as u64 + 1, vote);
                }
            }
        }
    }
    assert!(
        winners[0].is_some() && winners.iter().all(|winner| *winner == winners[0]),
        "{winners:?}"
    );
}

/// A node that has looked for longer than a leader waits for a quorum, and heard nobody.
fn late(own: u64, size: u64) -> Site {
    let mut site = Site::new(own, size);
    site.start();
    for _ in 0..120 {
        site.pass(100);
    }
    site.sent();
    site
}

/// What a node said last, as its candidate; nothing if it asked.
fn last_word(site: &mut Site) -> Option<Address> {
    let (_, last) = site.sent().pop().expect("it says something");
    (!last.solicit).then_some(last.candidate)
}

#[test]
fn who_looks_for_long_votes_for_nobody_of_whom_it_only_heard() {
    let mut young = Site::new(1, 5);
    young.start();
    young.hear(2, electing(1, 5, 0));
    assert_eq!(last_word(&mut young), Some(address(5)));

    let mut site = late(1, 5);
    site.hear(2, electing(1, 5, 0));
    site.hear(3, electing(1, 4, 0));
    assert_eq!(last_word(&mut site), Some(address(1)), "three are a quorum");
    site.hear(4, electing(1, 4, 0));
    assert_eq!(last_word(&mut site), Some(address(4)), "that is its own word");
    site.hear(4, Vote { solicit: true, ..electing(1, 4, 0) });
    assert_eq!(last_word(&mut site), Some(address(1)), "it votes for itself no more");
    site.hear(4, electing(2, 4, 0));
    assert_eq!(last_word(&mut site), Some(address(4)));
    for _ in 0..30 {
        site.pass(100);
        site.hear(2, electing(2, 2, 0));
    }
    assert_eq!(last_word(&mut site), Some(address(2)), "nobody else was heard lately");
    // Who has less than this node must not lead it.
    site.standing.logged = id(1, 1);
    site.hear(3, electing(2, 2, 0));
    assert_eq!(last_word(&mut site), Some(address(1)));
}

#[test]
fn who_looks_for_long_asks_until_it_hears_a_quorum() {
    let mut site = late(3, 3);
    site.pass(1_000);
    assert_eq!(last_word(&mut site), None);
    let question = Vote { solicit: true, ..electing(1, 1, 0) };
    assert_eq!(site.hear(1, question.clone()), None);
    assert_eq!(last_word(&mut site), Some(address(3)), "another that asks is there as well");
    site.hear(1, electing(1, 3, 0));
    assert_eq!(site.pass(300), Some(address(3)));
    // Who leads or follows is there, but not to vote.
    let mut site = late(3, 3);
    site.hear(1, active(1, 2, 0, Following));
    site.pass(1_000);
    assert_eq!(last_word(&mut site), None);
    // A watcher is no member.
    site.hear(4, question);
    site.pass(1_000);
    assert_eq!(last_word(&mut site), None);
}

#[test]
fn who_votes_for_itself_in_vain_for_long_makes_room_for_a_while() {
    // Node 2 votes for another all the time: it does not hear this one.
    let seconds = |site: &mut Site, count: u64, candidate: u64| {
        for _ in 0..10 * count {
            site.pass(100);
            let round = site.election.round();
            site.hear(2, electing(round, candidate, 0));
        }
        last_word(site)
    };
    let mut site = late(3, 3);
    assert_eq!(seconds(&mut site, 1, 1), Some(address(3)));
    assert_eq!(seconds(&mut site, 2, 1), None);
    assert_eq!(seconds(&mut site, 15, 1), None);
    assert_eq!(seconds(&mut site, 10, 1), None, "once more in vain");
    // As long as it may be a greater one that has to make room, it does not.
    let mut site = late(1, 3);
    assert_eq!(seconds(&mut site, 60, 3), Some(address(1)));
    // Somebody who is new may be the one who was missing.
    let mut site = late(3, 3);
    seconds(&mut site, 5, 1);
    site.hear(1, electing(1, 1, 0));
    assert_eq!(last_word(&mut site), Some(address(3)));
}
