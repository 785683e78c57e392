use quorate_types::Index;

use super::*;

const HEALTHY: Duration = Duration::from_secs(5);

fn rules() -> Rules {
    Rules::new(true, 1, Duration::from_secs(1))
}

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://h:{id}")],
        ..Member::default()
    }
}

/// Voters from 1 on, which leads; all of them have started, and are connected and up to date.
fn standing(voters: u64) -> Standing {
    Standing {
        leader: NodeId(1),
        members: (1..=voters).map(member).collect(),
        matched: (1..=voters).map(|id| (NodeId(id), Index(100))).collect(),
        connected: (2..=voters).map(|id| (NodeId(id), HEALTHY)).collect(),
        ..Standing::default()
    }
}

/// With a learner, number 9, that has so much of the log.
fn with_learner(mut standing: Standing, matched: u64) -> Standing {
    standing.members.push(Member { is_learner: true, ..member(9) });
    standing.matched.insert(NodeId(9), Index(matched));
    standing.connected.insert(NodeId(9), Duration::ZERO);
    standing
}

fn down(mut standing: Standing, ids: &[u64]) -> Standing {
    standing.connected.retain(|id, _| !ids.contains(&id.0));
    standing
}

fn unstarted(mut standing: Standing, ids: &[u64]) -> Standing {
    for member in standing.members.iter_mut().filter(|member| ids.contains(&member.id)) {
        member.name = String::new();
    }
    down(standing, ids)
}

fn add(is_learner: bool) -> Ask {
    Ask::Add { id: NodeId(70), peer_urls: vec!["http://new:1".to_owned()], is_learner }
}

fn judged(ask: &Ask, standing: &Standing) -> Result<(), KvError> {
    rules().judge(ask, standing).map(drop)
}

#[test]
fn what_is_wrong_with_the_request_is_told_in_etcds_words() {
    let taken = Ask::Add {
        id: NodeId(70),
        peer_urls: vec!["http://new:1".to_owned(), "http://h:2".to_owned()],
        is_learner: false,
    };
    for (ask, standing, want) in [
        (add(false), standing(3), Ok(())),
        (taken, down(standing(3), &[2, 3]), Err(KvError::PeerURLExist)),
        (add(true), standing(3), Ok(())),
        (add(true), with_learner(standing(3), 1), Err(KvError::TooManyLearners)),
        (add(false), with_learner(standing(3), 1), Ok(())),
        (Ask::Remove(8), standing(3), Err(KvError::MemberNotFound)),
        (Ask::Remove(9), with_learner(down(standing(3), &[2, 3]), 0), Ok(())),
        (Ask::Promote(8), standing(3), Err(KvError::MemberNotFound)),
        (Ask::Promote(2), standing(3), Err(KvError::MemberNotLearner)),
        (Ask::Promote(9), with_learner(standing(3), 0), Err(KvError::LearnerNotReady)),
        (Ask::Promote(9), with_learner(standing(3), 89), Err(KvError::LearnerNotReady)),
        (Ask::Promote(9), with_learner(standing(3), 90), Ok(())),
        // Who it is about, and whose URLs they are, is checked against the list itself.
        (Ask::Update { id: 8, peer_urls: Vec::new() }, standing(1), Ok(())),
    ] {
        assert_eq!(judged(&ask, &standing), want, "{ask:?} {standing:?}");
    }
}

#[test]
fn a_new_voter_counts_as_one_that_does_not_run() {
    let (few, sick) = (Err(KvError::MemberNotEnoughStarted), Err(KvError::Unhealthy));
    for (standing, voter, learner) in [
        (standing(1), Ok(()), Ok(())),
        (standing(2), Ok(()), Ok(())),
        (unstarted(standing(2), &[2]), few, sick),
        (down(standing(2), &[2]), sick, sick),
        (standing(3), Ok(()), Ok(())),
        (down(standing(3), &[3]), sick, Ok(())),
        (unstarted(standing(3), &[3]), few, Ok(())),
        (down(standing(3), &[2, 3]), sick, sick),
        (standing(4), Ok(()), Ok(())),
        (down(standing(4), &[4]), Ok(()), Ok(())),
        (unstarted(standing(4), &[4]), Ok(()), Ok(())),
        (down(standing(5), &[5]), Ok(()), Ok(())),
        (down(standing(5), &[4, 5]), sick, Ok(())),
    ] {
        assert_eq!(judged(&add(false), &standing), voter, "voter: {standing:?}");
        assert_eq!(judged(&add(true), &standing), learner, "learner: {standing:?}");
    }
    // Long enough is as long as it says.
    let mut fresh = standing(2);
    fresh.connected.insert(NodeId(2), HEALTHY - Duration::from_millis(1));
    assert_eq!(judged(&add(false), &fresh), sick);
}

#[test]
fn a_voter_goes_if_the_others_can_do_without_it() {
    let (few, sick) = (Err(KvError::MemberNotEnoughStarted), Err(KvError::Unhealthy));
    for (standing, id, want) in [
        (standing(1), 1, few),
        (standing(2), 1, Ok(())),
        (standing(2), 2, Ok(())),
        (down(standing(2), &[2]), 2, Ok(())), // if that can be committed at all
        (unstarted(standing(2), &[2]), 2, Ok(())),
        (unstarted(standing(2), &[2]), 1, few),
        (down(standing(2), &[2]), 1, sick),
        (standing(3), 1, Ok(())),
        (down(standing(3), &[3]), 3, Ok(())),
        (down(standing(3), &[3]), 2, sick),
        (down(standing(3), &[3]), 1, sick),
        (unstarted(standing(3), &[3]), 2, few),
        (down(standing(4), &[4]), 3, Ok(())),
        (down(standing(5), &[4, 5]), 3, sick),
        (down(standing(5), &[4, 5]), 4, Ok(())),
    ] {
        assert_eq!(judged(&Ask::Remove(id), &standing), want, "{id}: {standing:?}");
    }
}

#[test]
fn a_learner_gets_a_vote_if_that_costs_no_quorum() {
    let (few, sick) = (Err(KvError::MemberNotEnoughStarted), Err(KvError::Unhealthy));
    for (standing, want) in [
        (standing(1), Ok(())),
        (down(standing(2), &[2]), Ok(())),
        (unstarted(standing(2), &[2]), Ok(())),
        (down(standing(3), &[3]), Ok(())),
        (unstarted(standing(3), &[3]), Ok(())),
        (unstarted(standing(3), &[2, 3]), few),
        (down(standing(3), &[2, 3]), sick),
    ] {
        let standing = with_learner(standing, 100);
        assert_eq!(judged(&Ask::Promote(9), &standing), want, "{standing:?}");
    }
    let away = down(with_learner(down(standing(3), &[3]), 100), &[9]);
    assert_eq!(judged(&Ask::Promote(9), &away), sick, "two of four are no majority");
}

/// However large the cluster is and whoever is down: what is allowed leaves a majority that runs, and
/// what is refused would not, or there is none as it is.
#[test]
fn what_is_allowed_never_costs_the_quorum_and_what_is_safe_is_allowed() {
    for voters in 1..=7_u64 {
        for pattern in 0..1_u64 << (voters - 1) {
            let ids: Vec<u64> = (2..=voters).filter(|id| pattern >> (id - 2) & 1 == 1).collect();
            let standing = down(standing(voters), &ids);
            let up = (voters as usize) - ids.len();
            let adds = judged(&add(false), &standing).is_ok();
            assert_eq!(adds, voters == 1 || majority(voters as usize + 1) <= up, "{standing:?}");
            for id in 1..=voters {
                let rest_up = up - usize::from(!ids.contains(&id));
                let runs = majority(voters as usize) <= up;
                let safe = voters != 1 && majority(voters as usize - 1) <= rest_up;
                let allowed = judged(&Ask::Remove(id), &standing).is_ok();
                assert!(!runs || allowed == safe, "{id} of {standing:?}");
            }
        }
    }
}

#[test]
fn a_vote_is_taken_away_if_the_others_can_do_without_it() {
    let rules = rules();
    let judged = |change: MemberChange, standing: &Standing| rules.judge_change(&change, standing);
    for voters in 1..=5 {
        for away in [&[][..], &[3], &[2, 3]] {
            let standing = with_learner(down(standing(voters), away), 100);
            for id in 1..=voters {
                let removed = judged(MemberChange::Remove(id), &standing);
                assert_eq!(judged(MemberChange::Demote(id), &standing), removed, "{standing:?}");
            }
            let promoted = rules.judge(&Ask::Promote(9), &standing).map(drop);
            assert_eq!(judged(MemberChange::Promote(9), &standing), promoted);
        }
    }
}

#[test]
fn a_vote_changes_hands_if_both_halves_can_agree() {
    let rules = rules();
    let judged = |demoted, promoted, standing: &Standing| {
        rules.judge_change(&MemberChange::Replace { demoted, promoted }, standing)
    };
    let ready = |away: &[u64]| down(with_learner(standing(3), 100), away);
    assert_eq!(judged(3, 9, &ready(&[])), Ok(()));
    assert_eq!(judged(3, 9, &ready(&[3])), Ok(()), "the usual case");
    assert_eq!(judged(2, 9, &ready(&[3])), Ok(()), "two of three stay well");
    assert_eq!(judged(3, 9, &ready(&[2, 3])), Err(KvError::Unhealthy), "nobody could agree to it");
    assert_eq!(judged(3, 9, &ready(&[3, 9])), Ok(()), "no worse than before");
    assert_eq!(judged(2, 9, &ready(&[3, 9])), Err(KvError::Unhealthy));
    assert_eq!(judged(1, 9, &ready(&[3])), Err(KvError::MemberNotEnoughStarted), "it leads");
    assert_eq!(judged(3, 2, &ready(&[])), Err(KvError::MemberNotLearner));
    assert_eq!(judged(7, 9, &ready(&[])), Err(KvError::MemberNotFound));
    let behind = with_learner(standing(3), 10);
    assert_eq!(judged(3, 9, &behind), Err(KvError::LearnerNotReady));
}

#[test]
fn without_the_strict_check_only_the_request_counts() {
    let rules = Rules { is_strict: false, learners_max: 2, ..rules() };
    let judged = |ask: &Ask, standing: &Standing| rules.judge(ask, standing).map(drop);
    let worst = with_learner(unstarted(standing(3), &[2, 3]), 100);
    for ask in [add(false), add(true), Ask::Remove(1), Ask::Remove(2), Ask::Promote(9)] {
        assert_eq!(judged(&ask, &worst), Ok(()), "{ask:?}");
    }
    let few = Err(KvError::MemberNotEnoughStarted);
    assert_eq!(judged(&Ask::Remove(1), &standing(1)), few, "somebody has to be left");
    let behind = with_learner(standing(3), 50);
    assert_eq!(judged(&Ask::Promote(9), &behind), Err(KvError::LearnerNotReady));
}
