//! What is gathered for a state, in which order, and what makes it fail.

use super::site::{Site, epoch};
use crate::*;

const GATHERED: [&str; 8] = [
    "config",
    "configuration",
    "known",
    "leader",
    "last-index",
    "role",
    "raft-stats",
    "stats L0 V1 n2 within 1s",
];

#[test]
fn every_fact_is_asked_for_once_and_in_order() {
    let site = Site::new("LVn");
    let autopilot = site.autopilot(Options::default());
    let state = site.bench.wait(autopilot.compute_state()).unwrap();
    assert_eq!(site.asked(), GATHERED);
    assert_eq!(state.leader, Some("L0".into()));
    assert_eq!(state.first_state_time(), Some(epoch()));
    assert!(state.healthy);
}

#[test]
fn a_known_server_that_claims_to_lead_is_believed() {
    let site = Site::new("LVV");
    let autopilot = site.autopilot(Options::default());
    // Of several the first by id.
    for id in ["V2", "V1"] {
        site.with(|facts| facts.known.get_mut(id).unwrap().is_leader = true);
        let state = site.bench.wait(autopilot.compute_state()).unwrap();
        assert_eq!(state.leader, Some(id.into()));
    }
    assert!(!site.asked().contains(&"leader".to_owned()), "so that Raft need not be asked");
}

#[test]
fn a_leader_is_found_by_its_address() {
    for (address, want) in
        [("V1:2380", Some("V1")), ("V2:2380", Some("V2")), ("elsewhere:1", None), ("", None)]
    {
        let site = Site::new("LVV");
        site.with(|facts| {
            facts.leader = address.into();
            let Ok(configuration) = &mut facts.configuration else { panic!() };
            configuration.members.push(Member::new(Suffrage::Voter, "later", "V2:2380"));
            configuration.members.push(Member::new(Suffrage::Voter, "nowhere", ""));
        });
        let autopilot = site.autopilot(Options::default());
        let state = site.bench.wait(autopilot.compute_state()).unwrap();
        assert_eq!(state.leader, want.map(ServerId::from), "{address:?}");
    }
}

#[test]
fn who_has_left_is_not_asked_for_stats() {
    let site = Site::new("LVVVV");
    for (id, status) in [("V1", "left"), ("V2", "failed"), ("V3", "unknown"), ("V4", "")] {
        site.with(|facts| facts.known.get_mut(id).unwrap().node_status = status.into());
    }
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.compute_state()).unwrap();
    assert_eq!(site.asked().last().unwrap(), "stats L0 V2 V3 V4 within 1s");
}

#[test]
fn stats_have_half_an_update_interval() {
    let site = Site::new("LV");
    let options = Options::default().with_update_interval(Span::from_secs(9)).unwrap();
    site.bench.wait(site.autopilot(options).compute_state()).unwrap();
    assert_eq!(site.asked().last().unwrap(), "stats L0 V1 within 4.5s");
}

#[test]
fn without_a_fact_there_is_no_new_state() {
    type Break = fn(&mut super::site::Facts);
    let breaks: [(Break, &str); 6] = [
        (|facts| facts.config = None, "the application has no configuration for autopilot"),
        (
            |facts| facts.configuration = Err(RaftError::NotLeader { leader: Some("V1".into()) }),
            "cannot read the raft configuration: not the leader; ask V1",
        ),
        (|facts| facts.last_log_term = None, "raft's last_log_term is None and no number"),
        (
            |facts| facts.last_log_term = Some("three".into()),
            "raft's last_log_term is Some(\"three\") and no number",
        ),
        (
            |facts| facts.last_log_term = Some("-1".into()),
            "raft's last_log_term is Some(\"-1\") and no number",
        ),
        (
            |facts| facts.last_log_term = Some("18446744073709551616".into()),
            "raft's last_log_term is Some(\"18446744073709551616\") and no number",
        ),
    ];
    for (break_it, want) in breaks {
        let site = Site::new("LVV");
        let autopilot = site.autopilot(Options::default());
        site.bench.wait(autopilot.start(Signal::new()));
        let before = autopilot.get_state();
        site.asked();
        site.with(break_it);
        site.bench.pass(Span::from_secs(3));
        let error = site.bench.wait(autopilot.compute_state()).unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(autopilot.get_state(), before, "{want}");
        assert_eq!(site.count("notify"), 0, "{want}");
        assert_eq!(*site.notes.lock().unwrap(), [format!("no new state: {want}")]);
    }
}

#[test]
fn settings_that_a_promoter_cannot_read_stop_everything_and_are_named() {
    let site = Site::new("LVn");
    let promoter = std::sync::Arc::new(PolicyPromoter::new());
    let autopilot = site.autopilot(Options::default().with_promoter(promoter));
    let ext = serde_json::json!({"target_voters": "three"});
    site.with(|facts| facts.config.as_mut().unwrap().ext = Some(ext));
    let error = site.bench.wait(autopilot.compute_state()).unwrap_err();
    let want = "configuration: target_voters: is \"three\" and not a number of voters";
    assert_eq!(error.to_string(), want);
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(Span::from_secs(30));
    assert_eq!(site.changed(), "");
}

#[test]
fn an_update_that_is_cancelled_publishes_nothing() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.asked();
    site.with(|facts| facts.stats_take = Span::from_millis(500));
    site.bench.pass(Span::from_millis(2_200));
    assert_eq!(site.count("stats"), 1, "it is being gathered");
    let done = autopilot.stop();
    site.bench.pass(Span::from_secs(5));
    assert!(done.is_set());
    assert_eq!(site.count("notify"), 0);
}

#[test]
fn computing_a_state_publishes_and_tells_nothing() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.compute_state()).unwrap();
    assert_eq!(*autopilot.get_state(), State::default());
    assert_eq!(site.count("notify"), 0);
}

#[test]
fn an_application_that_never_answers_holds_nothing_up() {
    let site = Site::new("LVn");
    site.with(|facts| facts.stats_take = Span::from_secs(3600));
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    assert_eq!(site.bench.elapsed(), Span::from_secs(1), "start waits a second and no longer");
    assert_eq!(*autopilot.get_state(), State::default());
    site.bench.pass(Span::from_secs(30));
    assert!(2 < site.count("notify"), "states are made without stats");
    assert_eq!(autopilot.get_server_health(&"V1".into()).map(|health| health.healthy), Some(false));
    assert_eq!(site.changed(), "", "and nobody is promoted on them");
}

#[test]
fn a_published_state_never_changes() {
    let site = Site::new("LVn");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    let held = autopilot.get_state();
    let copy = State::clone(&held);
    site.with(|facts| {
        facts.known.get_mut("V1").unwrap().node_status = NodeStatus::Failed;
        facts.stats.clear();
    });
    site.bench.pass(Span::from_secs(60));
    site.bench.wait(autopilot.stop().wait());
    assert_eq!(*held, copy);
}
