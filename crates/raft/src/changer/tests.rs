use std::collections::BTreeSet;
use std::fmt::Write;

use super::*;
use crate::conf_changes_from_string;

fn tracker() -> ProgressTracker {
    ProgressTracker::new(10, 0)
}

/// Runs a script of the form `simple v1 l2`, `enter-joint autoleave r1`, `leave-joint`, a line
/// each; the log grows by one entry each time. Prints what each line comes to.
fn run(script: &str) -> String {
    let mut tracker = tracker();
    let mut printed = String::new();
    for (at, line) in script.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let auto_leave = rest.starts_with("autoleave");
        let changes = conf_changes_from_string(rest.trim_start_matches("autoleave")).unwrap();
        let changer = Changer { tracker: &tracker, last_index: Index(at as u64) };
        let next = match command {
            "simple" => changer.simple(&changes),
            "enter-joint" => changer.enter_joint(auto_leave, &changes),
            _ => changer.leave_joint(),
        };
        match next {
            Ok(next) => {
                tracker.switch(next);
                write!(printed, "{}\n{}", tracker.config, tracker.progress).unwrap();
            }
            Err(error) => writeln!(printed, "{error}").unwrap(),
        }
    }
    printed
}

#[test]
fn worked_example() {
    let printed = run("leave-joint
        simple v5
        simple v6
        enter-joint r6 l5 v7
        simple v9
        leave-joint
        enter-joint autoleave v0");
    assert_eq!(
        printed,
        "can't leave a non-joint config\n\
         voters=(5)\n\
         5: StateProbe match=0 next=1\n\
         voters=(5 6)\n\
         5: StateProbe match=0 next=1\n\
         6: StateProbe match=0 next=2\n\
         voters=(7)&&(5 6) learners_next=(5)\n\
         5: StateProbe match=0 next=1\n\
         6: StateProbe match=0 next=2\n\
         7: StateProbe match=0 next=3\n\
         can't apply simple config change in joint config\n\
         voters=(7) learners=(5)\n\
         5: StateProbe match=0 next=1 learner\n\
         7: StateProbe match=0 next=3\n\
         voters=(7)&&(7) learners=(5) autoleave\n\
         5: StateProbe match=0 next=1 learner\n\
         7: StateProbe match=0 next=3\n"
    );
}

/// The last line of the membership that a script ends in.
fn outcome(script: &str) -> String {
    let printed = run(script);
    let is_progress = |line: &&str| line.contains(": State");
    printed.lines().rfind(|line| !is_progress(line)).unwrap_or_default().to_owned()
}

#[test]
fn simple_changes_move_one_voter() {
    for (script, want) in [
        ("simple l1", "removed all voters"),
        ("simple v1", "voters=(1)"),
        ("simple v1\nsimple v1", "voters=(1)"), // twice
        ("simple v1\nsimple v2 l3", "voters=(1 2) learners=(3)"),
        ("simple v1\nsimple v2 v3", "more than one voter changed without entering joint config"),
        (
            "simple v1\nsimple v2\nsimple r1 v3",
            "more than one voter changed without entering joint config",
        ),
        (
            "simple v1\nsimple v2\nsimple l1 v3",
            "more than one voter changed without entering joint config",
        ),
        ("simple v1\nsimple v2\nsimple r1 r2", "removed all voters"),
        ("simple v1\nsimple v2\nsimple l1 l2", "removed all voters"),
        ("simple v1\nsimple r1", "removed all voters"),
        ("simple v1\nsimple v2 r2", "voters=(1)"), // undone within one change
        ("simple v1\nsimple v2\nsimple l2 l3 l4 l5", "voters=(1) learners=(2 3 4 5)"),
        ("simple v1\nsimple l2 l3\nsimple r2 r3", "voters=(1)"),
        ("simple v1\nsimple l2\nsimple v2", "voters=(1 2)"), // promotion
        ("simple v1\nsimple u1 u7", "voters=(1)"),           // updates change nothing
        ("simple v1\nsimple r9", "voters=(1)"),              // a stranger is gone already
        ("simple v1\nsimple v0", "voters=(1)"),              // cancelled
        ("simple v0", "removed all voters"),
        ("simple v1\nsimple", "voters=(1)"),
    ] {
        assert_eq!(outcome(script), want, "{script}");
    }
}

#[test]
fn joint_changes_move_any_number() {
    for (script, want) in [
        ("enter-joint", "can't make a zero-voter config joint"),
        ("enter-joint v1", "can't make a zero-voter config joint"),
        ("simple v1\nenter-joint", "voters=(1)&&(1)"),
        ("simple v1\nenter-joint v2 v3", "voters=(1 2 3)&&(1)"),
        ("simple v1\nenter-joint autoleave v2 v3", "voters=(1 2 3)&&(1) autoleave"),
        ("simple v1\nenter-joint v2\nenter-joint v3", "config is already joint"),
        ("simple v1\nenter-joint r1", "removed all voters"),
        ("simple v1\nenter-joint l1", "removed all voters"),
        ("simple v1\nenter-joint autoleave v2 v3\nleave-joint", "voters=(1 2 3)"),
        ("simple v1\nenter-joint r1 v2 v3", "voters=(2 3)&&(1)"),
        ("simple v1\nenter-joint r1 v2 v3\nleave-joint", "voters=(2 3)"),
        // A voter that becomes a learner votes until the joint change is left.
        ("simple v1\nenter-joint l1 v2", "voters=(2)&&(1) learners_next=(1)"),
        ("simple v1\nenter-joint l1 l1 v2", "voters=(2)&&(1) learners_next=(1)"),
        ("simple v1\nenter-joint l1 v2\nleave-joint", "voters=(2) learners=(1)"),
        // It changes its mind within the change.
        ("simple v1\nenter-joint l1 v2 v1", "voters=(1 2)&&(1)"),
        ("simple v1\nenter-joint l1 r1 v2", "voters=(2)&&(1)"),
        ("simple v1\nenter-joint r1 l1 v2", "voters=(2)&&(1) learners_next=(1)"),
        // Learners need no care.
        ("simple v1\nsimple l2\nenter-joint v2 l3", "voters=(1 2)&&(1) learners=(3)"),
        ("simple v1\nsimple l2\nenter-joint r2", "voters=(1)&&(1)"),
    ] {
        assert_eq!(outcome(script), want, "{script}");
    }
}

#[test]
fn members_keep_their_progress() {
    let mut tracker = tracker();
    let step = |tracker: &mut ProgressTracker, joint: bool, text: &str| {
        let changes = conf_changes_from_string(text).unwrap();
        let changer = Changer { tracker, last_index: Index(20) };
        let next = if joint {
            changer.enter_joint(true, &changes)
        } else if changes.is_empty() {
            changer.leave_joint()
        } else {
            changer.simple(&changes)
        };
        tracker.switch(next.unwrap());
    };
    step(&mut tracker, false, "v1");
    step(&mut tracker, false, "v2");
    let new = tracker.progress.get(NodeId(2)).unwrap();
    assert_eq!((new.matched, new.next, new.recent_active), (Index(0), Index(20), true));
    assert_eq!((new.state, new.inflights.count()), (crate::ProgressState::Probe, 0));
    tracker.visit(|id, of| of.matched = Index(id.0));

    step(&mut tracker, true, "l1 r2 v3");
    let flags = |tracker: &ProgressTracker| -> Vec<(u64, u64, bool)> {
        tracker.progress.iter().map(|(id, of)| (id.0, of.matched.0, of.is_learner)).collect()
    };
    assert_eq!(flags(&tracker), [(1, 1, false), (2, 2, false), (3, 0, false)]);
    step(&mut tracker, false, "");
    assert_eq!(flags(&tracker), [(1, 1, true), (3, 0, false)]);
}

#[test]
fn a_change_leaves_the_present_as_it_is() {
    let mut tracker = tracker();
    for text in ["v1", "v2 l3"] {
        let changes = conf_changes_from_string(text).unwrap();
        let next = Changer { tracker: &tracker, last_index: Index(1) }.simple(&changes).unwrap();
        tracker.switch(next);
    }
    let before = tracker.clone();
    let changer = Changer { tracker: &tracker, last_index: Index(9) };
    let changes = conf_changes_from_string("r1 v4 v5").unwrap();
    assert!(changer.simple(&changes).is_err());
    assert!(changer.enter_joint(true, &changes).is_ok());
    assert_eq!(tracker, before);
}

#[test]
fn broken_memberships_are_found_before_they_are_changed() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<NodeSet>();
    // Voters, outgoing, learners, learners next, auto-leave; tracked with and without the flag.
    for (voters, outgoing, learners, next, auto_leave, plain, flagged, text) in [
        (&[1, 2][..], &[][..], &[][..], &[][..], false, &[1][..], &[][..], "no progress for 2"),
        (&[1], &[2], &[], &[3], false, &[1, 2, 3], &[], "3 is in LearnersNext, but not Voters[1]"),
        (
            &[1],
            &[2],
            &[],
            &[2],
            false,
            &[1],
            &[2],
            "2 is in LearnersNext, but is already marked as learner",
        ),
        (&[1], &[2], &[2], &[], false, &[1], &[2], "2 is in Learners and Voters[1]"),
        (&[1, 2], &[], &[2], &[], false, &[1], &[2], "2 is in Learners and Voters[0]"),
        (
            &[1],
            &[],
            &[2],
            &[],
            false,
            &[1, 2],
            &[],
            "2 is in Learners, but is not marked as learner",
        ),
        (&[1], &[], &[], &[], true, &[1], &[], "AutoLeave must be false when not joint"),
    ] {
        let mut tracker = tracker();
        tracker.config.voters.incoming.0 = ids(voters);
        tracker.config.voters.outgoing.0 = ids(outgoing);
        tracker.config.learners = ids(learners);
        tracker.config.learners_next = ids(next);
        tracker.config.auto_leave = auto_leave;
        for id in plain.iter().chain(flagged) {
            let mut progress = Progress::new(Index(1), tracker.inflights());
            progress.is_learner = flagged.contains(id);
            tracker.progress.insert(NodeId(*id), progress);
        }
        let changer = Changer { tracker: &tracker, last_index: Index(1) };
        for error in [changer.simple(&[]), changer.enter_joint(true, &[]), changer.leave_joint()] {
            assert_eq!(error.expect_err(text).to_string(), text);
        }
    }
}

fn conf_state(voters: &[u64], learners: &[u64], outgoing: &[u64], next: &[u64]) -> ConfState {
    let list = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    ConfState {
        voters: list(voters),
        learners: list(learners),
        voters_outgoing: list(outgoing),
        learners_next: list(next),
        auto_leave: false,
    }
}

fn restored(conf_state: &ConfState) -> Result<Membership, ChangeError> {
    Changer { tracker: &tracker(), last_index: Index(20) }.restore(conf_state)
}

#[test]
fn stored_memberships_are_rebuilt() {
    let mut auto = conf_state(&[1, 2, 3], &[5], &[1, 2, 4, 6], &[4]);
    auto.auto_leave = true;
    for stored in [
        ConfState::default(),
        conf_state(&[1, 2, 3], &[], &[], &[]),
        conf_state(&[1, 2, 3], &[4, 5, 6], &[], &[]),
        conf_state(&[3, 1, 2], &[6, 4], &[], &[]), // in any order
        conf_state(&[1, 2, 3], &[5], &[1, 2, 4, 6], &[4]),
        conf_state(&[1], &[], &[1], &[]),
        auto,
    ] {
        let rebuilt = restored(&stored).unwrap();
        assert!(stored.is_equivalent(&rebuilt.config.conf_state()), "{stored:?}");
        let members = rebuilt.config.voters.ids().len() + rebuilt.config.learners.len();
        assert_eq!(rebuilt.progress.len(), members, "{stored:?}");
        assert!(rebuilt.progress.iter().all(|(_, of)| of.next == Index(20) || of.next == Index(1)));
    }
}

#[test]
fn memberships_that_cannot_be_are_refused() {
    let mut leave = conf_state(&[1], &[], &[], &[]);
    leave.auto_leave = true;
    for stored in [
        conf_state(&[], &[1], &[], &[]), // nobody votes
        conf_state(&[], &[], &[1], &[]),
        conf_state(&[1, 1], &[], &[], &[]),  // twice
        conf_state(&[1, 0], &[], &[], &[]),  // nobody
        conf_state(&[1, 2], &[2], &[], &[]), // votes and learns
        conf_state(&[1], &[2], &[2], &[]),
        conf_state(&[1], &[], &[2], &[3]), // learns next without a vote before
        conf_state(&[1], &[], &[], &[2]),
        leave,
    ] {
        assert!(restored(&stored).is_err(), "{stored:?}");
    }
}

#[test]
fn equivalence_is_about_members_not_order() {
    let base = conf_state(&[1, 2, 3], &[5, 4], &[1, 6], &[6]);
    assert!(base.is_equivalent(&conf_state(&[3, 1, 2], &[4, 5], &[6, 1], &[6])));
    for other in [
        conf_state(&[1, 2], &[5, 4], &[1, 6], &[6]),
        conf_state(&[1, 2, 3], &[5], &[1, 6], &[6]),
        conf_state(&[1, 2, 3], &[5, 4], &[1], &[6]),
        conf_state(&[1, 2, 3], &[5, 4], &[1, 6], &[]),
        conf_state(&[1, 2, 3, 3], &[5, 4], &[1, 6], &[6]),
        ConfState { auto_leave: true, ..base.clone() },
    ] {
        assert!(!base.is_equivalent(&other) && !other.is_equivalent(&base), "{other:?}");
    }
}

/// A small generator of chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Some of the ids below `limit`, in any order.
    fn some(&mut self, limit: u64) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = (1..limit).map(NodeId).collect();
        for at in (1..ids.len()).rev() {
            ids.swap(at, self.below(at as u64 + 1) as usize);
        }
        ids.truncate(self.below(limit) as usize);
        ids
    }

    fn changes(&mut self, count_max: u64) -> Vec<ConfChangeSingle> {
        use ConfChangeType::*;
        (0..=self.below(count_max))
            .map(|_| {
                let change_type =
                    [AddNode, RemoveNode, AddLearnerNode, UpdateNode][self.below(4) as usize];
                ConfChangeSingle::new(change_type, 1 + self.below(9))
            })
            .collect()
    }
}

/// Whatever is done in one joint change can be done one by one, with the same result, as long as
/// somebody votes all the way.
#[test]
fn joint_and_step_by_step_agree() {
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let mut agreed = 0;
    while agreed < 1000 {
        // Node 1 always votes, so that no order of steps removes all voters.
        let mut start = tracker();
        let first = [ConfChangeSingle::new(ConfChangeType::AddNode, 1)];
        let setup = chance.changes(5);
        for change in first.iter().chain(setup.iter().filter(|change| change.node_id.0 != 1)) {
            let changer = Changer { tracker: &start, last_index: Index(10) };
            let next = changer.simple(&[*change]).unwrap();
            start.switch(next);
        }
        let mut changes = chance.changes(9);
        changes.retain(|change| change.node_id.0 != 1);

        let mut by_steps = start.clone();
        for change in &changes {
            let next = Changer { tracker: &by_steps, last_index: Index(10) }.simple(&[*change]);
            by_steps.switch(next.unwrap());
        }
        for auto_leave in [false, true] {
            let changer = Changer { tracker: &start, last_index: Index(10) };
            let joint = changer.enter_joint(auto_leave, &changes).unwrap();
            assert_eq!(joint.config.auto_leave, auto_leave);
            assert_eq!(joint.config.voters.outgoing, start.config.voters.incoming);
            let mut by_joint = start.clone();
            by_joint.switch(joint);
            let left = Changer { tracker: &by_joint, last_index: Index(10) }.leave_joint();
            by_joint.switch(left.unwrap());
            assert_eq!(by_joint, by_steps, "{} then {changes:?}", start.config);
        }
        agreed += 1;
    }
}

/// However memberships follow each other, their quorums overlap.
#[test]
fn quorums_of_neighbours_overlap() {
    let mut chance = Chance(0x1234_5678_9abc_def1);
    let mut tracker = tracker();
    for _ in 0..5000 {
        let changer = Changer { tracker: &tracker, last_index: Index(10) };
        let next = match chance.below(3) {
            0 => changer.simple(&chance.changes(3)),
            1 => changer.enter_joint(chance.below(2) == 1, &chance.changes(6)),
            _ => changer.leave_joint(),
        };
        let Ok(next) = next else {
            continue;
        };
        if !tracker.config.voters.incoming.0.is_empty() {
            assert!(overlap(&tracker.config, &next.config), "{} {}", tracker.config, next.config);
        }
        tracker.switch(next);
        assert!(restored(&tracker.conf_state()).is_ok(), "{}", tracker.config);
    }
}

/// Whether every set of nodes that decides in one membership leaves too few to decide in the other.
fn overlap(one: &MembershipConfig, other: &MembershipConfig) -> bool {
    use quorate_types::quorum::VoteResult::Won;
    let wins = |config: &MembershipConfig, yes: u32| {
        config.voters.vote_result(|id| Some(yes >> id.0 & 1 == 1)) == Won
    };
    (0..1 << 10).all(|yes: u32| !wins(one, yes) || !wins(other, !yes))
}

#[test]
fn any_stored_membership_is_rebuilt() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut rebuilt = 0;
    while rebuilt < 1000 {
        let members: Vec<NodeId> = chance.some(12);
        let mut stored = ConfState::default();
        for id in members {
            match chance.below(6) {
                0 | 1 => stored.voters.push(id),
                2 => stored.learners.push(id),
                3 => stored.voters_outgoing.push(id),
                4 => {
                    stored.voters.push(id);
                    stored.voters_outgoing.push(id);
                }
                _ => {
                    stored.voters_outgoing.push(id);
                    stored.learners_next.push(id);
                }
            }
        }
        if stored.voters.is_empty() {
            continue;
        }
        stored.auto_leave = !stored.voters_outgoing.is_empty() && chance.below(2) == 1;
        let got = restored(&stored).unwrap();
        assert!(stored.is_equivalent(&got.config.conf_state()), "{stored:?}");
        let tracked: BTreeSet<NodeId> = got.progress.iter().map(|(id, _)| id).collect();
        let members = [&stored.voters, &stored.learners, &stored.voters_outgoing];
        assert_eq!(tracked, members.into_iter().flatten().copied().collect());
        for (id, of) in got.progress.iter() {
            assert_eq!(of.is_learner, stored.learners.contains(&id));
        }
        rebuilt += 1;
    }
}
