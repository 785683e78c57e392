use super::*;

fn tracker(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> ProgressTracker {
    let mut tracker = ProgressTracker::new(4, 0);
    let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<NodeSet>();
    tracker.config.voters.incoming.0 = set(voters);
    tracker.config.voters.outgoing.0 = set(outgoing);
    tracker.config.learners = set(learners);
    for id in voters.iter().chain(outgoing).chain(learners) {
        let mut progress = Progress::new(Index(1), tracker.inflights());
        progress.is_learner = learners.contains(id);
        tracker.progress.insert(NodeId(*id), progress);
    }
    tracker
}

#[test]
fn text_shows_what_is_present() {
    let mut config = tracker(&[26, 1], &[], &[]).config;
    assert_eq!(config.to_string(), "voters=(1 1a)");
    config.learners = [3, 27].into();
    assert_eq!(config.to_string(), "voters=(1 1a) learners=(3 1b)");
    config.voters.outgoing = [1, 2].into();
    config.learners_next = [2].into();
    config.auto_leave = true;
    let text = "voters=(1 1a)&&(1 2) learners=(3 1b) learners_next=(2) autoleave";
    assert_eq!(config.to_string(), text);
}

#[test]
fn stored_form_lists_all_members_ascending() {
    let mut tracker = tracker(&[3, 1], &[2, 1], &[9, 8]);
    tracker.config.learners_next = [2].into();
    tracker.config.auto_leave = true;
    let list = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    assert_eq!(
        tracker.conf_state(),
        ConfState {
            voters: list(&[1, 3]),
            learners: list(&[8, 9]),
            voters_outgoing: list(&[1, 2]),
            learners_next: list(&[2]),
            auto_leave: true,
        }
    );
    assert_eq!(tracker.voter_nodes(), list(&[1, 2, 3]));
    assert_eq!(tracker.learner_nodes(), list(&[8, 9]));
}

#[test]
fn one_voter_and_no_joint_change_is_a_singleton() {
    for (voters, outgoing, want) in
        [(&[1][..], &[][..], true), (&[1], &[1], false), (&[1, 2], &[], false), (&[], &[], false)]
    {
        let tracker = tracker(voters, outgoing, &[7]);
        assert_eq!(tracker.is_singleton(), want, "{}", tracker.config);
    }
}

#[test]
fn learners_commit_nothing() {
    let mut tracker = tracker(&[1, 2, 3], &[], &[4]);
    tracker.visit(|id, of| of.matched = Index(10 * id.0));
    assert_eq!(tracker.committed(), Index(20));
    tracker.config.voters.outgoing = [1, 2].into();
    assert_eq!(tracker.committed(), Index(10));
}

#[test]
fn a_quorum_is_active_without_learners() {
    for (voters, outgoing, active, want) in [
        (&[1, 2, 3][..], &[][..], &[1, 2][..], true),
        (&[1, 2, 3], &[], &[1, 4, 5], false),
        (&[1, 2, 3], &[3, 6], &[1, 2], false),
        (&[1, 2, 3], &[3, 6], &[1, 3, 6], true),
    ] {
        let mut tracker = tracker(voters, outgoing, &[4, 5]);
        tracker.visit(|id, of| of.recent_active = active.contains(&id.0));
        assert_eq!(tracker.quorum_active(), want, "{} {active:?}", tracker.config);
    }
}

#[test]
fn the_first_vote_of_each_member_counts() {
    let mut tracker = tracker(&[1, 2, 3], &[], &[4]);
    tracker.record_vote(NodeId(1), true);
    tracker.record_vote(NodeId(4), true); // a learner
    tracker.record_vote(NodeId(9), true); // a stranger
    tracker.record_vote(NodeId(2), false);
    tracker.record_vote(NodeId(2), true); // too late
    // However often strangers and members answer, what is kept does not grow.
    assert_eq!(tracker.votes.len(), 3);
    let tally = tracker.tally_votes();
    assert_eq!(tally, Tally { granted: 1, rejected: 1, result: VoteResult::Pending });
    assert_eq!((tracker.vote(NodeId(2)), tracker.vote(NodeId(9))), (Some(false), None));

    tracker.record_vote(NodeId(3), true);
    let tally = tracker.tally_votes();
    assert_eq!(tally, Tally { granted: 2, rejected: 1, result: VoteResult::Won });

    tracker.reset_votes();
    let tally = tracker.tally_votes();
    assert_eq!(tally, Tally { granted: 0, rejected: 0, result: VoteResult::Pending });
}
