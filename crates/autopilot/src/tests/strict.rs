//! Each strict rule, with the situation it prevents.

use std::sync::Arc;

use super::model::{Model, Peer, text};
use super::site::Site;
use crate::*;

/// Parity but for what `change` switches on.
fn only(change: impl FnOnce(&mut Strictness)) -> Strictness {
    let mut strictness = Strictness::parity();
    change(&mut strictness);
    strictness
}

fn pruned(letters: &str, strictness: Strictness) -> String {
    let mut model = Model::of(letters);
    model.strictness = strictness;
    text(model.plan_prune().actions())
}

fn demotions(ids: &[&str]) -> RaftChanges {
    let demotions = ids.iter().map(|id| ServerId::from(*id)).collect();
    RaftChanges { demotions, ..RaftChanges::default() }
}

#[test]
fn the_leader_is_neither_pruned_nor_demoted_and_hands_over_instead() {
    let strict = || only(|rules| rules.leader_stays = true);
    // The application believes that the leader is gone.
    let mut model = Model::of("LVVV");
    model.peer("L0").is_known = false;
    assert_eq!(text(model.plan_prune().actions()), "remove L0", "without the rule");
    model.strictness = strict();
    assert_eq!(text(model.plan_prune().actions()), "");
    model.peer("L0").is_known = true;
    model.peer("L0").status = NodeStatus::Failed;
    assert_eq!(text(model.plan_prune().actions()), "");
    // And when nobody knows who leads, no voter goes.
    model.state.leader = None;
    assert_eq!(text(model.plan_prune().actions()), "");

    let mut model = Model::of("LVFV");
    let plan = |model: &Model, ids: &[&str]| text(&model.plan(&demotions(ids)).unwrap().actions);
    assert_eq!(plan(&model, &["L0"]), "demote L0", "without the rule");
    model.strictness = strict();
    assert_eq!(plan(&model, &["L0"]), "transfer to V1");
    assert_eq!(plan(&model, &["L0", "V1"]), "demote V1", "others first");
    assert_eq!(plan(&model, &["L0", "V1", "V3"]), "demote V1, demote V3");
    let alone = Model { strictness: strict(), ..Model::of("LFF") };
    let round = alone.plan(&demotions(&["L0"])).unwrap();
    assert_eq!(text(&round.actions), "", "there is nobody to hand over to");
    assert_eq!(round.refusals[0].why, Reason::Leader);
}

#[test]
fn no_change_takes_the_quorum() {
    let strict = || only(|rules| rules.quorum_stays = true);
    // Two failed and not handled yet: a demotion of a healthy one leaves two of four.
    let mut model = Model::of("LVVFF");
    let plan = |model: &Model| text(&model.plan(&demotions(&["V1"])).unwrap().actions);
    assert_eq!(plan(&model), "demote V1");
    model.strictness = strict();
    assert_eq!(plan(&model), "");
    let refusal = model.plan(&demotions(&["V1"])).unwrap().refusals.remove(0);
    assert_eq!(refusal.to_string(), "no demotion of V1: quorum: 2 healthy of 3");
    // Many at once: as many as there can be.
    let many = Model { strictness: strict(), ..Model::of("LVVVF") };
    let round = many.plan(&demotions(&["V1", "V2", "V3"])).unwrap();
    assert_eq!(text(&round.actions), "demote V1, demote V2");

    // The application takes healthy voters for unknown ones.
    let mut model = Model::of("LVVFF");
    model.peer("V1").is_known = false;
    model.peer("V2").status = NodeStatus::Left;
    model.update();
    assert_eq!(text(model.plan_prune().actions()), "remove V1, remove-failed F3");
    model.strictness = strict();
    // Only L0 is healthy by now: no voter goes that leaves it without a majority.
    assert_eq!(text(model.plan_prune().actions()), "");
}

#[test]
fn voters_that_the_application_lost_count() {
    let mut model = Model::of("LVSS");
    model.config.min_quorum = 3;
    // Without the rule three of six go at once.
    let mut other = Model::of("LVVSSF");
    assert_eq!(text(model.plan_prune().actions()), "");
    assert_eq!(text(other.plan_prune().actions()), "remove S3, remove S4, remove-failed F5");
    let strict = only(|rules| rules.stale_voters_count = true);
    (model.strictness, other.strictness) = (strict.clone(), strict);
    assert_eq!(text(model.plan_prune().actions()), "remove S2", "one of four, not below three");
    other.config.min_quorum = 5;
    assert_eq!(text(other.plan_prune().actions()), "remove S3", "the floor protects them");
}

#[test]
fn the_floor_holds_for_voters_alone() {
    // Somebody was added and has never started: it is no voter to fall back on.
    let mut model = Model::of("LVFn");
    model.config.min_quorum = 3;
    assert_eq!(text(model.plan_prune().actions()), "remove-failed F2", "without the rule");
    model.strictness = only(|rules| rules.voters_keep_floor = true);
    let prune = model.plan_prune();
    assert_eq!(text(prune.actions()), "");
    assert_eq!(prune.refusals[0].to_string(), "no removal of F2: min-quorum: 2 left of at least 3");
    // One of four may go, and a dead learner is none of them.
    for (letters, want) in [
        ("LVVF", "remove-failed F3"),
        ("LVVFF", "remove-failed F3, remove-failed F4"),
        ("LVVf", "remove-failed f3"),
        ("LVf", ""),
        ("LVVVf", "remove-failed f4"),
        ("LVFFnn", "remove-failed F2"),
        ("LVSn", ""),
    ] {
        let mut model = Model::of(letters);
        model.config.min_quorum = 3;
        model.strictness = only(|rules| rules.voters_keep_floor = true);
        assert_eq!(text(model.plan_prune().actions()), want, "{letters}");
    }
}

#[test]
fn one_voter_is_joined_by_two_or_by_none() {
    for (letters, want) in [
        ("Ln", ""),
        ("Lnn", "add-voter n1, add-voter n2"),
        ("Lnf", ""),
        ("LVn", "add-voter n2"),
        ("LVVn", "add-voter n3"),
    ] {
        let mut model = Model::of(letters);
        model.strictness = only(|rules| rules.lone_voter_stays = true);
        let round = model.plan(&model.changes()).unwrap();
        assert_eq!(text(&round.actions), want, "{letters}");
        assert_eq!(round.refusals.len(), usize::from(want.is_empty()));
    }
    let mut model = Model::of("Ln");
    assert_eq!(text(&model.plan(&model.changes()).unwrap().actions), "add-voter n1", "without it");
    model.strictness = only(|rules| rules.lone_voter_stays = true);
    let refusal = model.plan(&model.changes()).unwrap().refusals.remove(0);
    let want = "no promotion of n1: two-voters: two need both; a third has to come with it";
    assert_eq!(refusal.to_string(), want);
    let asked = RaftChanges { accepts_two_voters: true, ..model.changes() };
    assert_eq!(text(&model.plan(&asked).unwrap().actions), "add-voter n1", "a policy asks for it");
}

#[test]
fn of_two_that_join_one_voter_the_one_that_lacks_more_comes_first() {
    let mut model = Model::of("Lnnn");
    model.strictness = only(|rules| rules.lone_voter_stays = true);
    for (id, last) in [("n1", 1000), ("n2", 500), ("n3", 900)] {
        let server = model.state.servers.get_mut(id).unwrap();
        server.stats.last_index = last.into();
    }
    let round = model.plan(&model.changes()).unwrap();
    assert_eq!(text(&round.actions), "add-voter n3, add-voter n1, add-voter n2");
}

#[test]
fn who_lacks_too_much_of_the_log_is_refused_and_holds_nobody_up() {
    for (letters, want) in [
        ("LVVnn", "add-voter n4"),
        ("LVVn", ""),
        // Two voters need both: none comes before a third can.
        ("Lnn", ""),
        ("Lnnn", "add-voter n2, add-voter n3"),
    ] {
        let mut model = Model::of(letters);
        model.strictness = only(|rules| rules.lone_voter_stays = true);
        let first = model.peers.keys().find(|id| id.0.starts_with('n')).unwrap().clone();
        model.peer(first.as_str()).is_ready = false;
        model.update();
        let round = model.plan(&model.changes()).unwrap();
        assert_eq!(text(&round.actions), want, "{letters}");
        let why = round.refusals.iter().find(|refusal| refusal.id == first).unwrap().why;
        assert_eq!(why, Reason::NotReady { has: 899.into(), least: 900.into() });
        assert_eq!(why.to_string(), "not-ready: has the log up to 899, and needs it up to 900");
    }
}

#[test]
fn a_new_leader_sees_for_itself_who_is_stable() {
    for (letters, at_once, want) in [
        ("LVVn", "", "add-voter n3"),
        ("LVn", "", "add-voter n2"),
        // A voter is down, and another one can go: there is time.
        ("LVVVFn", "", "add-voter n5"),
        // None can.
        ("LVVFn", "add-voter n4", "add-voter n4"),
        ("LFn", "add-voter n2", "add-voter n2"),
    ] {
        let mut model = Model::of(letters);
        let planned = |model: &mut Model| {
            model.update();
            text(&model.plan(&model.changes()).unwrap().actions)
        };
        model.state = State::default();
        assert_eq!(planned(&mut model), want, "{letters}, without the rule");
        model.strictness = only(|rules| rules.stability_is_seen = true);
        model.state = State::default();
        assert_eq!(planned(&mut model), at_once, "{letters}");
        model.wait(9);
        assert_eq!(planned(&mut model), at_once, "{letters}, not seen for long enough");
        model.wait(1);
        assert_eq!(planned(&mut model), want, "{letters}, seen for long enough");
    }
    // One that was unhealthy meanwhile has to wait for itself.
    let mut model = Model::of("LVVn");
    model.strictness = only(|rules| rules.stability_is_seen = true);
    model.state = State::default();
    model.peer("n3").is_well = false;
    model.wait(6);
    model.peer("n3").is_well = true;
    model.wait(4);
    assert_eq!(text(&model.plan(&model.changes()).unwrap().actions), "");
    model.wait(8);
    assert_eq!(text(&model.plan(&model.changes()).unwrap().actions), "add-voter n3");
}

#[test]
fn nobody_gets_a_vote_who_would_be_needed_at_once() {
    let rule = || only(|rules| rules.newcomers_are_spare = true);
    for (letters, demoted, floor, want) in [
        ("LVVn", "", 0, "add-voter n3"),
        ("LVn", "", 0, "add-voter n2"),
        ("LVFn", "", 0, ""),
        ("LVFnn", "", 0, "add-voter n3, add-voter n4"),
        ("LVVFn", "", 0, "add-voter n4"),
        ("LVVVFn", "", 0, "add-voter n5"),
        ("LVVFFn", "", 0, ""),
        ("LVVFFnn", "", 0, "add-voter n5, add-voter n6"),
        // The quorum of three is that of two: it takes nothing from anybody.
        ("LFn", "", 0, "add-voter n2"),
        ("LVFFn", "", 0, "add-voter n4"),
        ("LVVFFFn", "", 0, "add-voter n6"),
        ("LVFnnn", "", 0, "add-voter n3, add-voter n4, add-voter n5"),
        // Of one voter another rule speaks.
        ("Ln", "", 0, "add-voter n1"),
        // It comes for one that failed; the next one is not needed any more.
        ("LVFn", "F2", 0, "demote F2, add-voter n3"),
        ("LVFnn", "F2", 0, "demote F2, add-voter n3, add-voter n4"),
        // The failed one can only be removed once another has come.
        ("LVFn", "", 3, "add-voter n3"),
        ("LVFn", "", 2, ""),
        // Not even then.
        ("LVFn", "", 4, ""),
        ("LVFn", "", 5, ""),
        ("LVVFFn", "", 5, "add-voter n5"),
        ("LVFFnn", "", 5, "add-voter n4, add-voter n5"),
        ("LVFFFnn", "F2", 5, "demote F2, add-voter n5, add-voter n6"),
    ] {
        let mut model = Model::of(letters);
        model.config.min_quorum = floor;
        let demotions = demoted.split_whitespace().map(ServerId::from).collect();
        let changes = RaftChanges { demotions, ..model.changes() };
        assert_ne!(text(&model.plan(&changes).unwrap().actions), "", "{letters}, without it");
        model.strictness = rule();
        let round = model.plan(&changes).unwrap();
        assert_eq!(text(&round.actions), want, "{letters}, floor {floor}");
        let asked = RaftChanges { accepts_needed_newcomers: true, ..changes };
        assert_ne!(text(&model.plan(&asked).unwrap().actions), "", "{letters}, if a policy asks");
    }
    // Without removals nobody ever makes room: it waits for the operator.
    let mut model = Model::of("LVFn");
    (model.config.min_quorum, model.config.cleanup_dead_servers) = (3, false);
    model.strictness = rule();
    let refusal = model.plan(&model.changes()).unwrap().refusals.remove(0);
    let want =
        "no promotion of n3: newcomer: 2 healthy voters of 3; remove or repair the failed first";
    assert_eq!(refusal.to_string(), want);
    model.peers.remove("F2");
    model.update();
    assert_eq!(text(&model.plan(&model.changes()).unwrap().actions), "add-voter n3");
}

#[test]
fn a_newcomer_takes_only_a_place_that_is_left() {
    // Two of five have failed, and one more is not well: whoever comes without that one goes would be needed.
    let mut model = Model::of("LVVFFn");
    model.peer("V2").is_well = false;
    model.update();
    model.strictness = only(|rules| {
        rules.newcomers_are_spare = true;
        rules.quorum_stays = true;
        rules.replaces_jointly = true;
    });
    let changes = RaftChanges { promotions: vec!["n5".into()], ..demotions(&["F3"]) };
    let round = model.plan(&changes).unwrap();
    assert_eq!(text(&round.actions), "");
    let refused: Vec<String> = round.refusals.iter().map(ToString::to_string).collect();
    let newcomer = "newcomer: 2 healthy voters of 4; remove or repair the failed first";
    let want = [
        format!("no promotion of n5: {newcomer}"),
        "no demotion of F3: quorum: 2 healthy of 3".into(),
    ];
    assert_eq!(refused, want);
    // In one change it is neither: three of five are well after it.
    model.can_replace = true;
    let round = model.plan(&changes).unwrap();
    assert_eq!((text(&round.actions).as_str(), round.refusals.len()), ("replace F3 by n5", 0));
    // Nor is a vote handed on where that would leave no quorum all the same.
    model.peer("V1").is_well = false;
    model.update();
    assert_eq!(text(&model.plan(&changes).unwrap().actions), "");
}

#[test]
fn of_those_that_come_together_no_more_are_waited_for_than_it_takes() {
    let mut model = Model::of("LVFnnn");
    model.config.min_quorum = 0;
    model.strictness = only(|rules| rules.newcomers_are_spare = true);
    for (id, last) in [("n3", 500), ("n4", 1000), ("n5", 900)] {
        let server = model.state.servers.get_mut(id).unwrap();
        server.stats.last_index = last.into();
    }
    // Two are enough; the one that Raft may not take yet holds nobody up.
    let round = model.plan(&model.changes()).unwrap();
    assert_eq!(text(&round.actions), "add-voter n5, add-voter n4, add-voter n3");
}

#[test]
fn a_newcomer_makes_room_for_a_removal_only_when_that_is_due() {
    let mut model = Model::of("LVVn");
    model.config.min_quorum = 3;
    model.strictness = only(|rules| {
        rules.newcomers_are_spare = true;
        rules.unknown_is_not_failed = true;
        rules.dead_server_threshold = Span::from_secs(60);
    });
    let planned = |model: &Model| text(&model.plan(&model.changes()).unwrap().actions);
    model.peer("V2").is_well = false;
    model.peer("V2").status = NodeStatus::Unknown;
    model.wait(100);
    assert_eq!(planned(&model), "", "nobody removes one of which nothing is known");
    model.peer("V2").status = NodeStatus::Failed;
    model.wait(58);
    assert_eq!(planned(&model), "");
    model.wait(4);
    assert_eq!(planned(&model), "add-voter n3");
    model.config.held.insert("V2".into());
    assert_eq!(planned(&model), "", "nor one that is held");
    model.config.held.clear();
    assert_eq!(text(&model.round().unwrap().actions), "add-voter n3");
    assert_eq!(text(model.plan_prune().actions()), "remove-failed V2");
}

#[test]
fn who_makes_room_for_a_removal_comes_in_the_place_of_the_dead() {
    // Were it added first, four would vote, of which it takes three: should it die meanwhile, only two are left.
    for (letters, floor, want) in [
        ("LVFn", 3, "replace F2 by n3"),
        ("LVFnn", 3, "replace F2 by n3, add-voter n4"),
        ("LVVFFn", 5, "replace F3 by n5"),
        ("LVFFnn", 5, "replace F2 by n4, add-voter n5"),
        // The floor does not keep it, or keeps it all the same: nobody takes its vote.
        ("LVFn", 2, ""),
        ("LVFn", 4, ""),
        ("LVVFn", 3, "add-voter n4"),
        ("LVVn", 3, "add-voter n3"),
        ("LFn", 2, "replace F1 by n2"),
    ] {
        let mut model = Model { can_replace: true, ..Model::of(letters) };
        model.config.min_quorum = floor;
        model.strictness = only(|rules| {
            rules.newcomers_are_spare = true;
            rules.replaces_jointly = true;
            rules.quorum_stays = true;
        });
        let planned = |model: &Model| text(&model.plan(&model.changes()).unwrap().actions);
        assert_eq!(planned(&model), want, "{letters}, floor {floor}");
        if want.starts_with("replace") {
            model.can_replace = false;
            assert!(
                planned(&model).starts_with("add-voter"),
                "{letters}, where Raft does not offer it"
            );
            model.can_replace = true;
            model
                .config
                .held
                .extend(model.peers.keys().filter(|id| id.0.starts_with('F')).cloned());
            assert!(!planned(&model).contains("replace"), "{letters}, if they are held");
        }
    }
    // Whoever leads is not replaced, even if the application believes that it is gone.
    let mut model = Model { can_replace: true, ..Model::of("LVVn") };
    model.config.min_quorum = 3;
    model.peer("L0").status = NodeStatus::Failed;
    model.update();
    model.strictness = Strictness {
        dead_server_threshold: Span::ZERO,
        join_grace: Span::ZERO,
        ..Strictness::server()
    };
    model.state.servers.get_mut("n3").unwrap().health.healthy = true;
    let round =
        model.plan(&RaftChanges { promotions: vec!["n3".into()], ..RaftChanges::default() });
    assert!(!text(&round.unwrap().actions).contains("replace"));
}

#[test]
fn who_was_never_started_is_not_dead_for_that_long() {
    let mut model = Model::of("LVVn");
    model.config.min_quorum = 3;
    model.strictness = only(|rules| {
        rules.unknown_is_not_failed = true;
        rules.dead_server_threshold = Span::from_secs(60);
        rules.join_grace = Span::from_secs(30);
    });
    model.state = State::default();
    model.peer("n3").status = NodeStatus::Unknown;
    model.wait(500);
    model.peer("n3").status = NodeStatus::Failed;
    let refusal = |model: &Model| model.plan_prune().refusals.first().map(ToString::to_string);
    model.update();
    let want = "no removal of n3: dead-too-short: 0s of 1m0s";
    assert_eq!(refusal(&model).as_deref(), Some(want));
    // Its grace begins with its first start as well.
    model.strictness.dead_server_threshold = Span::ZERO;
    model.wait(28);
    assert_eq!(refusal(&model).as_deref(), Some("no removal of n3: joining"));
    model.wait(4);
    assert_eq!(text(model.plan_prune().actions()), "remove-failed n3");
    // One that failed and of which nothing is known for a while was dead all the time.
    model.strictness.dead_server_threshold = Span::from_secs(60);
    model.peer("n3").status = NodeStatus::Unknown;
    model.wait(30);
    assert_eq!(text(model.plan_prune().actions()), "");
    model.peer("n3").status = NodeStatus::Failed;
    model.update();
    assert_eq!(text(model.plan_prune().actions()), "remove-failed n3");
}

#[test]
fn time_in_which_nobody_looked_counts_for_nothing() {
    let rule = only(|rules| {
        rules.dead_server_threshold = Span::from_secs(60);
        rules.unseen_after = Some(Span::from_secs(10));
    });
    for (rule, want) in [
        (only(|rules| rules.dead_server_threshold = Span::from_secs(60)), "remove-failed V3"),
        (rule.clone(), ""),
    ] {
        let mut model = Model::of("LVVV");
        model.strictness = rule;
        model.peer("V3").status = NodeStatus::Failed;
        model.wait(20);
        // The leader is held up for a day.
        model.now = model.now.plus(Span::from_secs(24 * 3600));
        model.update();
        assert_eq!(text(model.plan_prune().actions()), want);
        if want.is_empty() {
            let refusal = model.plan_prune().refusals.remove(0).to_string();
            assert_eq!(refusal, "no removal of V3: dead-too-short: 30s of 1m0s");
            model.wait(30);
            assert_eq!(
                text(model.plan_prune().actions()),
                "remove-failed V3",
                "what was seen counts"
            );
        }
    }
    // Nor does it make anybody stable.
    let mut model = Model::of("LVV");
    model.strictness = rule;
    model.peers.insert("n3".into(), Peer::new(Suffrage::NonVoter));
    model.wait(2);
    model.now = model.now.plus(Span::from_secs(3600));
    model.update();
    let health = model.state.servers["n3"].health;
    assert_eq!(model.now.since(health.stable_since), Span::from_secs(12));
}

#[test]
fn a_failed_voter_keeps_its_vote_until_who_replaces_it_may_come() {
    let damping =
        Damping { flips: 1, window: Span::from_secs(300), stabilization_max: Span::from_secs(60) };
    let mut model = Model::of("LVFn");
    model.strictness = only(|rules| rules.damping = Some(damping));
    model.peer("n3").is_well = false;
    model.wait(2);
    model.peer("n3").is_well = true;
    model.wait(12);
    let changes = RaftChanges {
        promotions: vec!["n3".into()],
        demotions: vec!["F2".into()],
        ..RaftChanges::default()
    };
    let round = model.plan(&changes).unwrap();
    assert_eq!(text(&round.actions), "", "{:?}", round.refusals);
    model.wait(60);
    assert_eq!(text(&model.plan(&changes).unwrap().actions), "demote F2, add-voter n3");
}

#[test]
fn nobody_is_pruned_for_being_unknown() {
    let rule = only(|rules| rules.unknown_is_not_failed = true);
    for (status, want) in [
        ("failed", "remove-failed V3"),
        ("left", "remove-failed V3"),
        ("unknown", ""),
        ("", ""),
        ("retired", ""),
    ] {
        let mut model = Model::of("LVVV");
        model.peer("V3").status = status.into();
        assert_eq!(text(model.plan_prune().actions()), "remove-failed V3", "without the rule");
        model.strictness = rule.clone();
        assert_eq!(text(model.plan_prune().actions()), want, "{status:?}");
    }
}

#[test]
fn a_failed_server_is_pruned_only_when_it_is_dead_for_long() {
    let mut model = Model::of("LVVV");
    model.strictness = only(|rules| rules.dead_server_threshold = Span::from_secs(60));
    let fails = |model: &mut Model, status: &str, seconds: i64| {
        model.peer("V3").status = status.into();
        model.wait(seconds);
        text(model.plan_prune().actions())
    };
    assert_eq!(fails(&mut model, "failed", 58), "");
    assert_eq!(fails(&mut model, "unknown", 1), "");
    assert_eq!(fails(&mut model, "alive", 2), "");
    assert_eq!(fails(&mut model, "failed", 59), "", "a break begins anew");
    assert_eq!(fails(&mut model, "failed", 2), "remove-failed V3");
    let mut model = Model::of("LVVV");
    model.strictness = only(|rules| rules.dead_server_threshold = Span::from_secs(60));
    assert_eq!(fails(&mut model, "left", 1), "remove-failed V3", "who left is exempt");
}

#[test]
fn a_joining_server_is_not_pruned_for_being_failed() {
    let mut model = Model::of("LVV");
    model.strictness = only(|rules| rules.join_grace = Span::from_secs(600));
    let failed = Peer { status: NodeStatus::Failed, ..Peer::new(Suffrage::NonVoter) };
    model.peers.insert("new".into(), failed);
    assert_eq!(text(model.plan_prune().actions()), "", "in no state yet");
    model.wait(598);
    assert_eq!(text(model.plan_prune().actions()), "");
    let refusal = model.plan_prune().refusals.remove(0);
    assert_eq!(refusal.to_string(), "no removal of new: joining");
    model.wait(3);
    assert_eq!(text(model.plan_prune().actions()), "remove-failed new");
    // While it is being sent a snapshot it is still joining, however long that takes.
    let mut inputs = model.inputs();
    inputs.receiving_snapshot.insert("new".into());
    model.state = State::next(&inputs, &StablePromoter, &model.strictness);
    assert_eq!(text(model.plan_prune().actions()), "");
    // A voter from before this leader was there already.
    let mut model = Model::of("LVVF");
    model.strictness = only(|rules| rules.join_grace = Span::from_secs(600));
    assert_eq!(text(model.plan_prune().actions()), "remove-failed F3");
}

#[test]
fn changes_name_the_configuration_they_were_decided_on() {
    let site = Site::new("LVVnnSs");
    site.with(|facts| {
        let Ok(configuration) = &mut facts.configuration else { panic!() };
        configuration.index = 7.into();
    });
    let options =
        Options::default().with_strictness(only(|rules| rules.names_configuration = true));
    let autopilot = site.autopilot(options);
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(Span::from_secs(9));
    // It moves on after the last update that the round knows of; this site does not look at guards.
    site.with(|facts| facts.configuration.as_mut().unwrap().index = 8.into());
    site.bench.pass(Span::from_secs(1));
    let want = "add-voter n3@n3:2380 after 7 within 0s, add-voter n4@n4:2380 after 17 within 0s, \
                remove s6 after 8 within 0s, remove S5 after 18 within 0s";
    assert_eq!(site.changed(), want, "each after the one before it");
}

#[test]
fn a_failed_voter_and_its_replacement_are_one_change() {
    let strict = only(|rules| rules.replaces_jointly = true);
    let changes = RaftChanges {
        promotions: vec!["n3".into(), "n4".into()],
        demotions: vec!["F2".into()],
        ..RaftChanges::default()
    };
    let plan = |can_replace, strictness: &Strictness| {
        let model = Model { can_replace, strictness: strictness.clone(), ..Model::of("LVFnn") };
        text(&model.plan(&changes).unwrap().actions)
    };
    assert_eq!(plan(true, &Strictness::parity()), "demote F2, add-voter n3, add-voter n4");
    assert_eq!(plan(false, &strict), "demote F2, add-voter n3, add-voter n4");
    assert_eq!(plan(true, &strict), "replace F2 by n3, add-voter n4");
    // Also of an even number: a promotion before it would raise the quorum.
    let of_four = Model { can_replace: true, strictness: strict.clone(), ..Model::of("LVFnnV") };
    let actions = of_four.plan(&changes).unwrap().actions;
    assert_eq!(text(&actions), "replace F2 by n3, add-voter n4");

    let site = Site::new("LVF");
    site.with(|facts| facts.can_replace = true);
    let error = site.bench.wait(NoReplacing.replace_voter(
        &"a".into(),
        &"b".into(),
        "b:1",
        0.into(),
        Span::ZERO,
    ));
    assert_eq!(error.unwrap_err().to_string(), "refused: a cannot be replaced in one change");
    assert!(site.can_replace_voters() && !NoReplacing.can_replace_voters());
}

/// A consensus layer with nothing but what the reference asks for.
struct NoReplacing;

impl Raft for NoReplacing {
    fn add_nonvoter(
        &self,
        _: &ServerId,
        _: &str,
        _: quorate_types::Index,
        _: Span,
    ) -> Answer<'_, Result<quorate_types::Index, RaftError>> {
        Box::pin(async { Err(RaftError::ProposalDropped) })
    }
    fn add_voter(
        &self,
        _: &ServerId,
        _: &str,
        _: quorate_types::Index,
        _: Span,
    ) -> Answer<'_, Result<quorate_types::Index, RaftError>> {
        Box::pin(async { Err(RaftError::ProposalDropped) })
    }
    fn demote_voter(
        &self,
        _: &ServerId,
        _: quorate_types::Index,
        _: Span,
    ) -> Answer<'_, Result<quorate_types::Index, RaftError>> {
        Box::pin(async { Err(RaftError::ProposalDropped) })
    }
    fn remove_server(
        &self,
        _: &ServerId,
        _: quorate_types::Index,
        _: Span,
    ) -> Answer<'_, Result<quorate_types::Index, RaftError>> {
        Box::pin(async { Err(RaftError::ProposalDropped) })
    }
    fn get_configuration(&self) -> Answer<'_, Result<RaftConfiguration, RaftError>> {
        Box::pin(async { Err(RaftError::Unknown) })
    }
    fn last_index(&self) -> quorate_types::Index {
        0.into()
    }
    fn leader(&self) -> String {
        String::new()
    }
    fn state(&self) -> RaftRole {
        RaftRole::Follower
    }
    fn stats(&self) -> std::collections::BTreeMap<String, String> {
        Default::default()
    }
    fn leadership_transfer_to_server(
        &self,
        id: &ServerId,
        _: &str,
    ) -> Answer<'_, Result<(), RaftError>> {
        let error = RaftError::NotAVoter(id.clone());
        Box::pin(async { Err(error) })
    }
}

#[test]
fn leadership_goes_to_healthy_voters_only() {
    let strict = only(|rules| rules.leader_is_healthy = true);
    for (to, without, with) in [
        ("V1", "transfer to V1", "transfer to V1"),
        ("F2", "transfer to F2", ""),
        ("n3", "transfer to n3", ""),
        ("g4", "transfer to g4", ""),
    ] {
        let mut model = Model::of("LVFng");
        let changes = RaftChanges { leader: Some(to.into()), ..RaftChanges::default() };
        assert_eq!(text(&model.plan(&changes).unwrap().actions), without);
        model.strictness = strict.clone();
        let round = model.plan(&changes).unwrap();
        assert_eq!(text(&round.actions), with);
        assert_eq!(round.refusals.len(), usize::from(with.is_empty()));
    }
}

#[test]
fn one_voter_is_pruned_a_round() {
    let strict = || only(|rules| rules.one_voter_a_prune = true);
    for (letters, without, with) in [
        ("VVVVFFF", "remove-failed F4, remove-failed F5, remove-failed F6", "remove-failed F4"),
        (
            "VVVFSsf",
            "remove s5, remove S4, remove-failed f6, remove-failed F3",
            "remove s5, remove S4, remove-failed f6",
        ),
        ("VVVff", "remove-failed f3, remove-failed f4", "remove-failed f3, remove-failed f4"),
    ] {
        assert_eq!(pruned(letters, Strictness::parity()), without);
        assert_eq!(pruned(letters, strict()), with);
    }
}

#[test]
fn stats_that_are_not_refreshed_grow_old() {
    for (age_max, want) in
        [(None, true), (Some(Span::from_secs(30)), true), (Some(Span::ZERO), false)]
    {
        let mut model = Model::of("LVV");
        model.strictness = only(|rules| rules.stats_age_max = age_max);
        let mut inputs = model.inputs();
        inputs.fetched_stats.remove("V1");
        inputs.now = inputs.now.plus(Span::from_secs(5));
        let state = State::next(&inputs, &StablePromoter, &model.strictness);
        assert_eq!(state.servers["V1"].health.healthy, want, "{age_max:?}");
        assert!(state.servers["V2"].health.healthy);
        assert_eq!(state.servers["V1"].stats.last_contact, Span::ZERO, "what was said stays");
    }
}

#[test]
fn after_losing_leadership_no_further_call_is_made() {
    for (strictness, want) in [
        (Strictness::parity(), "add-voter n3@n3:2380, add-voter n4@n4:2380, remove s5"),
        (only(|rules| rules.stops_without_leadership = true), "add-voter n3@n3:2380"),
    ] {
        let site = Site::new("LVVnns");
        let autopilot = site.autopilot(Options::default().with_strictness(strictness));
        site.bench.wait(autopilot.start(Signal::new()));
        site.with(|facts| facts.role_after_change = Some(RaftRole::Follower));
        site.bench.pass(Span::from_secs(10));
        assert_eq!(site.changed(), want);
    }
}

#[test]
fn who_comes_and_goes_must_be_stable_for_longer() {
    let damping =
        Damping { flips: 2, window: Span::from_secs(300), stabilization_max: Span::from_secs(35) };
    let mut model = Model::of("LVVn");
    model.strictness = only(|rules| rules.damping = Some(damping));
    let promoted = |model: &mut Model| {
        model.update();
        text(&model.plan(&model.changes()).unwrap().actions)
    };
    let flap = |model: &mut Model| {
        model.peer("n3").is_well = false;
        model.wait(2);
        model.peer("n3").is_well = true;
        model.wait(2);
    };
    assert_eq!(promoted(&mut model), "add-voter n3");
    flap(&mut model);
    model.wait(17);
    assert_eq!(promoted(&mut model), "", "two changes: 20 s instead of 10 s");
    let refusal = model.plan(&model.changes()).unwrap().refusals.remove(0);
    assert_eq!(refusal.to_string(), "no promotion of n3: flapping: 2 changes, stable for 20s");
    model.wait(1);
    assert_eq!(promoted(&mut model), "add-voter n3");
    for _ in 0..40 {
        flap(&mut model);
    }
    model.wait(32);
    assert_eq!(promoted(&mut model), "");
    model.wait(4);
    assert_eq!(promoted(&mut model), "add-voter n3", "no longer than the bound");
    flap(&mut model);
    model.wait(12);
    assert_eq!(promoted(&mut model), "");
    model.strictness = Strictness::parity();
    assert_eq!(promoted(&mut model), "add-voter n3", "without the rule");
}

#[test]
fn leadership_goes_to_another_after_it_failed_to_go_to_the_first() {
    let site = Site::new("LVV");
    site.with(|facts| {
        let leader = facts.known.get_mut("L0").unwrap();
        leader.meta = Some([("read_replica".to_owned(), "true".to_owned())].into());
        for id in ["V1", "V2"] {
            facts.failing.insert(format!("transfer {id}@{id}:2380"));
        }
    });
    let options = Options::default().with_promoter(Arc::new(PolicyPromoter::new()));
    let autopilot = site.autopilot(options.with_strictness(Strictness::server()));
    site.bench.wait(autopilot.start(Signal::new()));
    // Each a round later than the one before it; with all of them tried, the one that was so longest ago.
    for want in ["V1", "V2", "V1", "V2"] {
        site.bench.pass(Span::from_secs(10));
        assert_eq!(site.changed(), format!("transfer {want}@{want}:2380"));
    }
    // What failed under an earlier leadership says nothing.
    let done = autopilot.stop();
    site.bench.wait(done.wait());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(Span::from_secs(10));
    assert_eq!(site.changed(), "transfer V1@V1:2380");
}
