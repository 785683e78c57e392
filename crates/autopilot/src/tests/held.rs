//! What an operator holds is left as it is, whatever a policy or a prune wants; and what would be done is
//! told without doing it.

use super::model::{Model, text};
use super::site::Site;
use crate::*;

fn ids(words: &str) -> Vec<ServerId> {
    words.split_whitespace().map(ServerId::from).collect()
}

/// One letter a server, as in [`Model::of`]; who is held; promotions, demotions and the new leader that
/// are wanted; what is done, and what is refused.
#[test]
fn who_is_held_is_left_as_it_is() {
    for (letters, held, [promotions, demotions, leader], want, refused) in [
        ("LVnn", "n2", ["n2 n3", "", ""], "add-voter n3", "no promotion of n2: held"),
        ("LVVF", "F3", ["", "F3 V1", ""], "demote V1", "no demotion of F3: held"),
        // Whoever is to come for one that is held comes all the same, and the other way round.
        ("LVVFn", "F3", ["n4", "F3", ""], "add-voter n4", "no demotion of F3: held"),
        ("LVFn", "n3", ["n3", "F2", ""], "demote F2", "no promotion of n3: held"),
        // Leadership is neither given to it nor taken from it.
        ("LVV", "V1", ["", "", "V1"], "", "no leadership of V1: held"),
        ("LVV", "L0", ["", "", "V1"], "", "no leadership of L0: held"),
        ("LVV", "L0", ["", "L0", ""], "", "no demotion of L0: held"),
        ("LVV", "V1", ["", "", "V2"], "transfer to V2", ""),
        ("LVV", "stranger", ["", "", "V1"], "transfer to V1", ""),
    ] {
        for strictness in [Strictness::parity(), Strictness::server()] {
            let mut model = Model::of(letters);
            model.strictness = strictness;
            model.config.held = ids(held).into_iter().collect();
            let changes = RaftChanges {
                promotions: ids(promotions),
                demotions: ids(demotions),
                leader: ids(leader).pop(),
                ..RaftChanges::default()
            };
            let round = model.plan(&changes).unwrap();
            assert_eq!(text(&round.actions), want, "{letters} {held}");
            let got: Vec<String> = round.refusals.iter().map(ToString::to_string).collect();
            assert_eq!(got.join(", "), refused, "{letters} {held}");
        }
    }
}

#[test]
fn a_leader_that_could_only_hand_over_to_one_that_is_held_says_so() {
    for (letters, held, want, refused) in [
        ("LVV", "V1", "transfer to V2", "no demotion of L0: leader"),
        ("LVV", "V1 V2", "", "no demotion of L0: leader, no leadership of V1: held"),
        ("LVF", "V1", "", "no demotion of L0: leader, no leadership of V1: held"),
    ] {
        let mut model = Model::of(letters);
        model.strictness = Strictness::server();
        model.config.held = ids(held).into_iter().collect();
        let changes = RaftChanges { demotions: ids("L0"), ..RaftChanges::default() };
        let round = model.plan(&changes).unwrap();
        assert_eq!(text(&round.actions), want, "{letters} {held}");
        let got: Vec<String> = round.refusals.iter().map(ToString::to_string).collect();
        assert_eq!(got.join(", "), refused, "{letters} {held}");
    }
}

#[test]
fn who_is_held_is_not_removed() {
    let mut model = Model::of("VVVFSsf");
    let all = "remove s5, remove S4, remove-failed f6, remove-failed F3";
    assert_eq!(text(model.plan_prune().actions()), all);
    model.config.held = ids("F3 s5").into_iter().collect();
    let prune = model.plan_prune();
    assert_eq!(text(prune.actions()), "remove S4, remove-failed f6");
    let held: Vec<String> = prune.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(held, ["no removal of s5: held", "no removal of F3: held"]);
}

#[test]
fn what_would_be_done_is_told_and_not_done() {
    let site = Site::new("LVVFn");
    let autopilot = site.autopilot(Options::default().with_reconciliation_disabled());
    assert!(site.bench.wait(autopilot.explain()).errors[0].contains("no leader"), "no state yet");
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(Span::from_secs(25));
    let outlook = site.bench.wait(autopilot.explain());
    assert_eq!(outlook.errors, [""; 0]);
    let actions = outlook.actions.iter().map(|(_, action)| action);
    assert_eq!(text(actions), "add-voter n4, remove-failed F3");
    assert!(outlook.actions[0].0.starts_with("healthy since "), "{outlook:?}");
    assert_eq!(outlook.actions[1].0, "its status is \"failed\"");
    assert_eq!(autopilot.round_count(), 0, "switched off");
    for asked in ["add-voter", "remove-failed"] {
        assert_eq!(site.count(asked), 0, "{asked} was asked for");
    }
    // What is refused is told as well; and the rounds go on as if nobody had asked.
    site.with(|facts| {
        facts.config.as_mut().unwrap().held = ids("n4").into_iter().collect();
        facts.config.as_mut().unwrap().cleanup_dead_servers = false;
    });
    let outlook = site.bench.wait(autopilot.explain());
    assert!(outlook.actions.is_empty(), "{outlook:?}");
    assert_eq!(outlook.refusals[0].to_string(), "no promotion of n4: held");
    site.with(|facts| facts.config.as_mut().unwrap().held.clear());
    autopilot.enable_reconciliation();
    site.bench.pass(Span::from_secs(10));
    assert_eq!((autopilot.round_count(), site.count("add-voter")), (1, 1));
    site.with(|facts| facts.config = None);
    assert_eq!(site.bench.wait(autopilot.explain()), Outlook::default());
}

#[test]
fn a_hold_counts_in_a_round_under_way() {
    for (letters, held, want) in [
        ("LVVnnn", None, "add-voter n3@n3:2380, add-voter n4@n4:2380, add-voter n5@n5:2380"),
        ("LVVnnn", Some("n4"), "add-voter n3@n3:2380"),
        ("LVVsss", None, "remove s3, remove s4, remove s5"),
        ("LVVsss", Some("s4"), "remove s3, remove s5"),
    ] {
        let site = Site::new(letters);
        site.with(|facts| facts.held_after_change = held.map(ServerId::from));
        let autopilot = site.autopilot(Options::default());
        site.bench.wait(autopilot.start(Signal::new()));
        site.bench.pass(Span::from_secs(11));
        assert_eq!(site.changed(), want, "{held:?}");
    }
}

#[test]
fn other_rules_make_it_forget_nothing() {
    let site = Site::new("LVVF");
    site.with(|facts| facts.config.as_mut().unwrap().min_quorum = 3);
    let dead_after = |seconds| Strictness {
        dead_server_threshold: Span::from_secs(seconds),
        ..Strictness::parity()
    };
    let autopilot = site.autopilot(Options::default().with_strictness(dead_after(600)));
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(Span::from_secs(65));
    assert_eq!(site.count("remove-failed"), 0);
    autopilot.set_strictness(dead_after(60));
    site.bench.pass(Span::from_secs(5));
    assert_eq!(site.count("remove-failed F3"), 1, "it was dead before as well");
}
