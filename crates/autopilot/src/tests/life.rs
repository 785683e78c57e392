//! Start, stop, rounds over time, and what is done by hand.

use super::model::address;
use super::site::{Site, epoch};
use crate::*;

const SECOND: Span = Span::from_secs(1);

fn secs(seconds: i64) -> Span {
    Span::from_secs(seconds)
}

fn member(id: &str) -> Server {
    Server { id: id.into(), address: address(&id.into()), ..Server::default() }
}

#[test]
fn a_new_one_does_nothing_and_has_an_empty_state() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.pass(secs(60));
    assert_eq!(site.asked(), [""; 0]);
    assert_eq!(*autopilot.get_state(), State::default());
    assert_eq!(autopilot.get_server_health(&"L0".into()), None);
    assert_eq!(autopilot.is_running().0, ExecutionStatus::NotRunning);
    assert!(autopilot.is_running().1.is_set());
    assert!(autopilot.reconciliation_enabled());
    for status in [
        (ExecutionStatus::NotRunning, "not-running"),
        (ExecutionStatus::Running, "running"),
        (ExecutionStatus::ShuttingDown, "shutting-down"),
    ] {
        assert_eq!(status.0.to_string(), status.1);
    }
}

#[test]
fn start_publishes_a_state_and_tells_once() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    assert_eq!(site.bench.elapsed(), Span::ZERO);
    assert_eq!(site.count("notify"), 1);
    assert_eq!(autopilot.get_state().servers.len(), 2);
    assert_eq!(autopilot.is_running().0, ExecutionStatus::Running);
    let health = autopilot.get_server_health(&"V1".into()).unwrap();
    assert_eq!(health, ServerHealth { healthy: true, stable_since: epoch() });
    assert_eq!(autopilot.get_server_health(&"stranger".into()), None);

    // A second start changes nothing and tells nobody.
    let done = autopilot.is_running().1;
    site.bench.wait(autopilot.start(Signal::new()));
    assert!(autopilot.is_running().1.is(&done));
    assert_eq!(site.count("notify"), 1);
    assert_eq!(site.bench.task_count(), 1);
}

#[test]
fn start_succeeds_without_a_first_state() {
    let site = Site::new("LV");
    site.with(|facts| facts.config = None);
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    assert_eq!(autopilot.is_running().0, ExecutionStatus::Running);
    assert_eq!(*autopilot.get_state(), State::default());
}

#[test]
fn a_start_that_is_given_up_leaves_a_running_one() {
    let site = Site::new("LV");
    site.with(|facts| facts.stats_take = Span::from_millis(300));
    let autopilot = site.autopilot(Options::default());
    {
        let mut start = Box::pin(autopilot.start(Signal::new()));
        let waker = std::task::Waker::noop();
        let polled = start.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
    }
    site.bench.pass(SECOND);
    assert_eq!(site.count("notify"), 1);
    site.bench.wait(autopilot.stop().wait());
}

#[test]
fn stop_without_start_is_done_at_once() {
    let autopilot = Site::new("LV").autopilot(Options::default());
    for _ in 0..3 {
        assert!(autopilot.stop().is_set());
    }
}

#[test]
fn after_the_end_nothing_is_left() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(25));
    let done = autopilot.stop();
    assert!(!done.is_set(), "the work has not noticed yet");
    assert_eq!(autopilot.is_running().0, ExecutionStatus::ShuttingDown);
    assert!(autopilot.stop().is(&done) && autopilot.is_running().1.is(&done));
    site.asked();
    site.bench.wait(done.wait());
    assert_eq!(autopilot.is_running().0, ExecutionStatus::NotRunning);
    assert_eq!(*autopilot.get_state(), State::default());
    assert_eq!(site.bench.task_count(), 0);
    site.bench.pass(secs(60));
    assert_eq!(site.asked(), [""; 0]);
}

#[test]
fn a_second_run_begins_anew() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(7));
    assert_eq!(autopilot.get_state().first_state_time(), Some(epoch()), "kept by later states");
    site.bench.wait(autopilot.stop().wait());
    site.bench.pass(secs(5));
    site.bench.wait(autopilot.start(Signal::new()));
    assert_eq!(autopilot.get_state().first_state_time(), Some(epoch().plus(secs(12))));
    for _ in 0..20 {
        site.bench.wait(autopilot.stop().wait());
        site.bench.wait(autopilot.start(Signal::new()));
    }
    assert_eq!(site.bench.task_count(), 1);
}

#[test]
fn a_start_while_one_is_ending_waits_for_its_end() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    let first = autopilot.stop();
    site.asked();
    // The first execution has not had time to notice.
    site.bench.wait(autopilot.start(Signal::new()));
    assert_eq!(autopilot.is_running().0, ExecutionStatus::Running);
    assert!(!first.is_set() && !autopilot.is_running().1.is_set());
    assert_eq!(site.asked(), [""; 0], "no state of its own at the start");
    site.bench.settle();
    assert!(first.is_set());
    assert_eq!(*autopilot.get_state(), State::default());
    assert_eq!(
        autopilot.is_running().0,
        ExecutionStatus::Running,
        "it is the second one that runs"
    );
    assert_eq!(site.asked(), [""; 0]);
    site.bench.pass(secs(2));
    assert_eq!(site.count("notify"), 1);

    // Stopped while it waits, one asks nobody anything.
    let second = autopilot.stop();
    site.bench.wait(autopilot.start(Signal::new()));
    let third = autopilot.stop();
    assert!(!third.is(&second));
    site.asked();
    site.bench.pass(secs(60));
    assert!(second.is_set() && third.is_set());
    assert_eq!(site.asked(), [""; 0]);
    assert_eq!(autopilot.is_running().0, ExecutionStatus::NotRunning);
    assert_eq!(site.bench.task_count(), 0);
}

#[test]
fn cancelling_the_context_ends_it() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    let context = Signal::new();
    site.bench.wait(autopilot.start(context.clone()));
    let (_, done) = autopilot.is_running();
    context.set();
    assert_eq!(autopilot.is_running().0, ExecutionStatus::Running, "until the work has ended");
    site.bench.settle();
    assert!(done.is_set());
    assert_eq!(autopilot.is_running().0, ExecutionStatus::NotRunning);
    assert_eq!(*autopilot.get_state(), State::default());
    assert_eq!(site.bench.task_count(), 0);
}

#[test]
fn a_host_that_drops_the_task_ends_it() {
    let site = Site::new("LV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    let (_, done) = autopilot.is_running();
    site.bench.drop_tasks();
    assert!(done.is_set());
    assert_eq!(autopilot.is_running().0, ExecutionStatus::NotRunning);
}

#[test]
fn updates_and_rounds_keep_to_their_intervals() {
    let site = Site::new("LVV");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.asked();
    let mut seen = Vec::new();
    for second in 1..=21 {
        site.bench.pass(SECOND);
        let asked = site.asked();
        if asked.iter().any(|call| call.starts_with("notify")) {
            seen.push(format!("u{second}"));
        }
        // A prune reads the configuration, an update does too: once more means a round.
        if 1 < asked.iter().filter(|call| *call == "configuration").count() {
            seen.push(format!("r{second}"));
        }
    }
    let want = "u2 u4 u6 u8 u10 r10 u12 u14 u16 u18 u20 r20";
    assert_eq!(seen.join(" "), want);
}

#[test]
fn intervals_are_options() {
    assert_eq!((DEFAULT_UPDATE_INTERVAL, DEFAULT_RECONCILE_INTERVAL), (secs(2), secs(10)));
    for (given, first) in [(Span::ZERO, 2), (secs(5), 5)] {
        let site = Site::new("LV");
        let options = Options::default().with_update_interval(given).unwrap();
        let autopilot = site.autopilot(options.with_reconcile_interval(Span::ZERO).unwrap());
        site.bench.wait(autopilot.start(Signal::new()));
        site.asked();
        site.bench.pass(secs(first - 1));
        assert_eq!(site.count("notify"), 0);
        site.bench.pass(SECOND);
        assert_eq!(site.count("notify"), 1, "{given}");
    }
    let refused = Options::default().with_update_interval(Span(-1)).err().unwrap();
    assert_eq!(refused.to_string(), "update_interval is -1ns: it cannot be less than no time");
    let refused = Options::default().with_reconcile_interval(secs(-10)).err().unwrap();
    assert_eq!(refused.to_string(), "reconcile_interval is -10s: it cannot be less than no time");
}

/// A clock that stands still.
struct Stopped(Time);

impl TimeProvider for Stopped {
    fn now(&self) -> Time {
        self.0
    }
}

#[test]
fn the_clock_is_an_option() {
    let site = Site::new("LV");
    let at = Time::from_unix(77, 0);
    let options = Options::default().with_time_provider(std::sync::Arc::new(Stopped(at)));
    let autopilot = site.autopilot(options);
    site.bench.wait(autopilot.start(Signal::new()));
    assert_eq!(autopilot.get_state().first_state_time(), Some(at));
}

#[test]
fn slow_stats_hold_no_round_up() {
    let site = Site::new("LVn");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.asked();
    site.with(|facts| facts.stats_take = Span::from_millis(1_900));
    site.bench.pass(secs(10));
    assert_eq!(site.changed(), "add-voter n2@n2:2380");
}

#[test]
fn a_round_promotes_and_a_prune_follows_even_if_it_failed() {
    let site = Site::new("LVVVnF");
    let autopilot = site.autopilot(Options::default());
    site.with(|facts| _ = facts.failing.insert("add-voter n4@n4:2380".into()));
    site.bench.wait(autopilot.start(Signal::new()));
    for round in 1..=2 {
        site.asked();
        site.bench.pass(secs(10));
        assert_eq!(site.changed(), "add-voter n4@n4:2380, remove-failed F5", "round {round}");
    }
    let notes = site.notes.lock().unwrap();
    let want =
        "round ended: cannot add-voter n4@n4:2380: the proposal was dropped; try again later";
    assert!(notes.contains(&want.to_owned()), "{notes:?}");
    let why = format!("add-voter n4@n4:2380: healthy since {}", epoch());
    assert!(notes.contains(&why), "{notes:?}");
    assert!(notes.contains(&"remove-failed F5: its status is \"failed\"".to_owned()), "{notes:?}");
}

#[test]
fn the_first_failure_ends_a_round() {
    let site = Site::new("LVVnnn");
    site.with(|facts| _ = facts.failing.insert("add-voter n4@n4:2380".into()));
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(10));
    assert_eq!(site.changed(), "add-voter n3@n3:2380, add-voter n4@n4:2380");
}

#[test]
fn nothing_is_guarded_and_nothing_timed_in_parity() {
    // The site writes guards and timeouts down where there are any.
    let site = Site::new("LVVnSs");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(10));
    assert_eq!(site.changed(), "add-voter n3@n3:2380, remove s5, remove S4");
}

#[test]
fn a_failing_removal_ends_the_prune_after_its_class() {
    let site = Site::new("LVVVVssSf");
    site.with(|facts| _ = facts.failing.insert("remove s5".into()));
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(10));
    assert_eq!(site.changed(), "remove s5, remove s6");
    let want = "prune ended: cannot remove s5: the proposal was dropped; try again later";
    assert!(site.notes.lock().unwrap().contains(&want.to_owned()));
}

#[test]
fn switched_off_pruning_asks_nothing() {
    let site = Site::new("LVVFs");
    let off = |facts: &mut super::site::Facts| {
        facts.config.as_mut().unwrap().cleanup_dead_servers = false;
    };
    site.with(off);
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.asked();
    autopilot.remove_dead_servers();
    site.bench.settle();
    assert_eq!(site.asked(), ["config"]);
    site.with(|facts| facts.config = None);
    autopilot.remove_dead_servers();
    site.bench.settle();
    assert_eq!(site.asked(), ["config"]);
    autopilot.disable_reconciliation();
    autopilot.remove_dead_servers();
    site.bench.settle();
    assert_eq!(site.asked(), [""; 0]);
    assert_eq!(*site.notes.lock().unwrap(), [""; 0], "none of it is an error");
}

#[test]
fn a_prune_needs_the_configuration() {
    let site = Site::new("LVVF");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.with(|facts| facts.configuration = Err(RaftError::Unknown));
    autopilot.remove_dead_servers();
    site.bench.settle();
    assert_eq!(site.changed(), "");
    let notes = site.notes.lock().unwrap().join("\n");
    assert!(notes.starts_with("prune ended: cannot read the raft configuration: "), "{notes}");
}

#[test]
fn reconciliation_can_be_switched_at_any_time() {
    let site = Site::new("LVVnF");
    let autopilot = site.autopilot(Options::default().with_reconciliation_disabled());
    assert!(!autopilot.reconciliation_enabled());
    site.bench.wait(autopilot.start(Signal::new()));
    autopilot.remove_dead_servers();
    site.bench.pass(secs(30));
    assert_eq!(site.count("notify"), 16, "states are made all the same");
    assert_eq!(site.changed(), "");
    autopilot.enable_reconciliation();
    site.bench.pass(secs(9));
    assert_eq!(site.changed(), "", "at the next round");
    site.bench.pass(SECOND);
    assert_eq!(site.changed(), "add-voter n3@n3:2380, remove-failed F4");
    autopilot.disable_reconciliation();
    site.bench.pass(secs(30));
    assert_eq!(site.changed(), "");
}

#[test]
fn without_settings_a_round_does_nothing() {
    let site = Site::new("LVn");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.with(|facts| facts.config = None);
    site.bench.pass(secs(10));
    assert_eq!(site.changed(), "");
    let notes = site.notes.lock().unwrap();
    assert!(notes.iter().all(|note| note.starts_with("no new state")), "{notes:?}");
}

#[test]
fn a_round_without_a_leader_is_an_error_and_asks_for_no_changes() {
    let site = Site::new("VVn");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(10));
    assert_eq!(site.changed(), "");
    let notes = site.notes.lock().unwrap();
    assert_eq!(*notes, ["round ended: the state has no leader"]);
}

#[test]
fn requests_for_a_prune_are_one() {
    let site = Site::new("LVVss");
    let autopilot = site.autopilot(Options::default());
    // One that is made before the start is served after it.
    autopilot.remove_dead_servers();
    site.bench.settle();
    assert_eq!(site.changed(), "");
    site.with(|facts| facts.changes_take = Span::from_millis(100));
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(SECOND);
    assert_eq!(site.changed(), "remove s3, remove s4");

    autopilot.remove_dead_servers();
    site.bench.pass(Span::from_millis(50));
    for _ in 0..10 {
        autopilot.remove_dead_servers();
    }
    site.bench.pass(SECOND);
    assert_eq!(
        site.changed(),
        "remove s3, remove s4, remove s3, remove s4",
        "one more for all ten"
    );
}

#[test]
fn everything_may_be_asked_from_inside_a_callback() {
    let site = Site::new("LVVnF");
    let autopilot = site.autopilot(Options::default());
    *site.asked_back.lock().unwrap() = Some(autopilot.clone());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(10));
    assert!(site.changed().contains("add-voter n3@n3:2380"));
    site.bench.wait(autopilot.stop().wait());
    *site.asked_back.lock().unwrap() = None;
}

#[test]
fn raft_that_never_answers_holds_nothing_up_for_ever() {
    let site = Site::new("LVVn");
    site.with(|facts| facts.changes_take = secs(3600));
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.pass(secs(41));
    let notes = site.notes.lock().unwrap().join("\n");
    assert!(notes.contains("no answer within 30s"), "{notes}");
    let done = autopilot.stop();
    site.bench.settle();
    assert!(done.is_set(), "stopping waits for no answer");
}

#[test]
fn a_server_added_by_hand_comes_in_and_a_prune_follows() {
    let site = Site::new("LVVs");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    site.bench.wait(autopilot.add_server(&member("new"))).unwrap();
    site.bench.settle();
    assert_eq!(site.changed(), "add-nonvoter new@new:2380, remove s3");

    // There already: nothing, not even a prune.
    site.bench.wait(autopilot.add_server(&member("V1"))).unwrap();
    site.bench.settle();
    assert_eq!(site.changed(), "");

    // Two at its address: the voter goes first.
    let squatter = Server { address: "V2:2380".into(), ..member("new") };
    site.with(|facts| {
        let Ok(configuration) = &mut facts.configuration else { panic!() };
        configuration.members.insert(0, Member::new(Suffrage::NonVoter, "n", "V2:2380"));
    });
    site.bench.wait(autopilot.add_server(&squatter)).unwrap();
    site.bench.settle();
    assert_eq!(
        site.changed(),
        "remove V2, remove n, add-nonvoter new@V2:2380, remove n, remove s3"
    );
}

#[test]
fn an_addition_that_fails_goes_no_further_and_asks_for_no_prune() {
    let site = Site::new("LVVs");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.start(Signal::new()));
    let squatter = Server { address: "V2:2380".into(), ..member("new") };
    for (failing, want) in [
        ("remove V2", "remove V2"),
        ("add-nonvoter new@V2:2380", "remove V2, add-nonvoter new@V2:2380"),
    ] {
        site.with(|facts| facts.failing = [failing.to_owned()].into());
        let error = site.bench.wait(autopilot.add_server(&squatter)).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert!(matches!(cause.downcast_ref(), Some(RaftError::ProposalDropped)), "{error}");
        site.bench.settle();
        assert_eq!(site.changed(), want);
    }
    // Half of two voters cannot go.
    let pair = Site::new("LV");
    let both = pair.autopilot(Options::default());
    let squatter = Server { address: "V1:2380".into(), ..member("new") };
    let error = pair.bench.wait(both.add_server(&squatter)).unwrap_err();
    assert!(matches!(error, AddServerError::Unsafe(_)), "{error}");
    assert_eq!(pair.changed(), "");

    site.with(|facts| facts.configuration = Err(RaftError::Unknown));
    let error = site.bench.wait(autopilot.add_server(&squatter)).unwrap_err();
    assert!(matches!(error, AddServerError::Configuration(RaftError::Unknown)), "{error}");
    site.bench.settle();
    assert_eq!(site.changed(), "");
}

#[test]
fn a_server_removed_by_hand_goes() {
    let site = Site::new("LVVn");
    let autopilot = site.autopilot(Options::default());
    site.bench.wait(autopilot.remove_server(&"V1".into())).unwrap();
    site.bench.wait(autopilot.remove_server(&"stranger".into())).unwrap();
    assert_eq!(site.changed(), "remove V1");
    site.with(|facts| facts.failing = ["remove V1".to_owned()].into());
    let error = site.bench.wait(autopilot.remove_server(&"V1".into())).unwrap_err();
    assert!(matches!(error, RaftError::ProposalDropped));
    site.with(|facts| facts.configuration = Err(RaftError::Unknown));
    let error = site.bench.wait(autopilot.remove_server(&"V1".into())).unwrap_err();
    assert!(matches!(error, RaftError::Unknown));
}

#[test]
fn voters_are_counted_by_the_configuration() {
    for (servers, want) in [("LVV", 3), ("LVg", 2), ("LVn", 2)] {
        let site = Site::new(servers);
        let autopilot = site.autopilot(Options::default());
        assert_eq!(site.bench.wait(autopilot.num_voters()).unwrap(), want, "{servers}");
        site.with(|facts| facts.configuration = Err(RaftError::Unknown));
        let error = site.bench.wait(autopilot.num_voters()).unwrap_err();
        assert!(matches!(error, RaftError::Unknown));
    }
}
