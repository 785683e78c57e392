//! How a state is made of its inputs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;

use super::model::Model;
use crate::*;

fn at(second: i64) -> Time {
    Time::from_unix(1_600_000_000 + second, 0)
}

/// A leader `l` that is the local node, at index 1000 of term 3, and one other voter `v`, healthy.
fn inputs() -> Inputs {
    let mut inputs = Inputs {
        now: at(0),
        first_state_time: at(0),
        config: Config {
            last_contact_threshold: Span::from_millis(100),
            max_trailing_logs: 200,
            ..Config::default()
        },
        last_index: 1000.into(),
        last_term: 3.into(),
        leader: Some("l".into()),
        is_leader: true,
        ..Inputs::default()
    };
    for id in ["l", "v"] {
        add(&mut inputs, id, Suffrage::Voter);
    }
    inputs
}

fn add(inputs: &mut Inputs, id: &str, suffrage: Suffrage) {
    inputs.configuration.members.push(Member::new(suffrage, id, format!("{id}:1")));
    inputs.known_servers.insert(id.into(), alive(id));
    inputs.fetched_stats.insert(id.into(), stats(0, 3, 1000));
}

fn alive(id: &str) -> Server {
    let node_status = NodeStatus::Alive;
    Server { id: id.into(), address: format!("{id}:1"), node_status, ..Server::default() }
}

fn stats(contact_nanos: i64, term: u64, index: u64) -> ServerStats {
    let last_contact = Span(contact_nanos);
    ServerStats { last_contact, last_term: term.into(), last_index: index.into() }
}

fn next(inputs: &Inputs) -> State {
    State::next(inputs, &StablePromoter, &Strictness::parity())
}

/// The same inputs so many seconds later, with `state` as the one before.
fn later(inputs: &Inputs, second: i64, state: &State) -> Inputs {
    Inputs { now: at(second), current: Some(state.clone()), ..inputs.clone() }
}

#[test]
fn healthy_is_alive_in_contact_of_the_same_term_and_not_far_behind() {
    let limit = 100_000_000;
    for (status, stats, want) in [
        ("alive", stats(99_000_000, 3, 801), true),
        ("failed", stats(0, 3, 1000), false),
        ("left", stats(0, 3, 1000), false),
        ("unknown", stats(0, 3, 1000), false),
        ("", stats(0, 3, 1000), false),
        ("Alive", stats(0, 3, 1000), false),
        ("alive", stats(0, 4, 1000), false),
        ("alive", stats(0, 2, 1000), false),
        ("alive", stats(limit, 3, 1000), true),
        ("alive", stats(limit + 1, 3, 1000), false),
        ("alive", stats(-1, 3, 1000), false),
        ("alive", stats(0, 3, 800), true),
        ("alive", stats(0, 3, 799), false),
        ("alive", stats(0, 3, 5000), true), // ahead
        ("alive", stats(0, 3, u64::MAX), true),
    ] {
        let mut inputs = inputs();
        inputs.known_servers.get_mut("v").unwrap().node_status = status.into();
        inputs.fetched_stats.insert("v".into(), stats);
        let state = next(&inputs);
        assert_eq!(state.servers["v"].health.healthy, want, "{status} {stats:?}");
        assert_eq!(state.healthy, want);
    }
}

#[test]
fn the_last_number_of_trailing_logs_never_overflows() {
    let mut inputs = inputs();
    inputs.config.max_trailing_logs = u64::MAX;
    inputs.fetched_stats.insert("v".into(), stats(0, 3, 1));
    assert!(next(&inputs).healthy);
    inputs.last_index = u64::MAX.into();
    assert!(next(&inputs).healthy);
}

#[test]
fn without_a_reference_nobody_is_healthy() {
    for (index, term) in [(0, 3), (1000, 0), (0, 0)] {
        let mut inputs = inputs();
        (inputs.last_index, inputs.last_term) = (index.into(), term.into());
        inputs.fetched_stats.insert("v".into(), stats(0, term, index));
        assert!(next(&inputs).servers.values().all(|server| !server.health.healthy), "{index}");
    }
}

#[test]
fn the_reference_is_the_local_log_or_what_the_leader_answered() {
    // The local node leads: its own log counts, whatever its stats say.
    let mut inputs = inputs();
    inputs.fetched_stats.insert("l".into(), stats(0, 9, 9000));
    let state = next(&inputs);
    assert!(state.servers["v"].health.healthy && !state.servers["l"].health.healthy);

    // It does not: what the leader answered counts, whatever the local log is.
    inputs.is_leader = false;
    let state = next(&inputs);
    assert!(!state.servers["v"].health.healthy && state.servers["l"].health.healthy);

    // And the leader does not answer: nobody is healthy, with stats of the state before neither.
    inputs.fetched_stats.remove("l");
    let state = next(&later(&inputs, 2, &state));
    assert!(state.servers.values().all(|server| !server.health.healthy));
}

#[test]
fn without_a_leader_voters_are_listed_and_nobody_is_healthy() {
    let mut inputs = inputs();
    (inputs.leader, inputs.is_leader) = (None, false);
    let state = next(&inputs);
    assert_eq!((state.healthy, state.failure_tolerance, state.leader), (false, 0, None));
    assert_eq!(state.voters, [ServerId::from("l"), ServerId::from("v")]);
}

#[test]
fn only_who_is_in_the_configuration_is_in_the_state() {
    let mut inputs = inputs();
    inputs.known_servers.insert("x".into(), alive("x"));
    inputs.fetched_stats.insert("x".into(), stats(0, 3, 1000));
    assert!(!next(&inputs).servers.contains_key("x"));
}

#[test]
fn suffrage_gives_the_standing_and_the_leader_is_singled_out() {
    let mut inputs = inputs();
    for (id, suffrage) in
        [("n", Suffrage::NonVoter), ("s", Suffrage::Staging), ("o", Suffrage::Other(7))]
    {
        add(&mut inputs, id, suffrage);
    }
    let standing = |state: &State, id: &str| state.servers[id].state.as_str();
    let state = next(&inputs);
    let got = ["l", "v", "n", "s", "o"].map(|id| standing(&state, id));
    assert_eq!(got, ["leader", "voter", "non-voter", "staging", "none"]);
    assert_eq!(state.voters, [ServerId::from("l"), ServerId::from("v")]);
    assert_eq!(state.leader, Some("l".into()));

    // Whatever its suffrage.
    inputs.leader = Some("n".into());
    let state = next(&inputs);
    assert_eq!((standing(&state, "n"), standing(&state, "l")), ("leader", "voter"));
    assert!(state.servers["n"].server.is_leader && !state.servers["l"].server.is_leader);
    assert_eq!(state.leader, Some("n".into()));

    // And who is not in the configuration leads nobody.
    inputs.leader = Some("x".into());
    assert_eq!(next(&inputs).leader, None);
}

#[test]
fn the_address_is_rafts() {
    let mut inputs = inputs();
    inputs.known_servers.get_mut("v").unwrap().address = "elsewhere:1".into();
    let state = next(&inputs);
    assert_eq!(state.servers["v"].server.address, "v:1");
    inputs.configuration.members[1].address = "v:2".into();
    inputs.known_servers.remove("v");
    assert_eq!(next(&later(&inputs, 2, &state)).servers["v"].server.address, "v:2");
}

#[test]
fn the_applications_record_replaces_the_one_before_with_its_blanks() {
    let mut inputs = inputs();
    let known = inputs.known_servers.get_mut("v").unwrap();
    known.name = "before".into();
    known.version = "1".into();
    known.meta = Some([("zone".to_owned(), "a".to_owned())].into());
    known.ext = Some(json!(1));
    known.is_leader = true;
    let state = next(&inputs);
    let before = state.servers["v"].server.clone();
    assert_eq!((before.name.as_str(), before.ext), ("before", Some(json!(1))));
    assert!(before.is_leader, "as the application says, though another leads");

    let blank = Server { id: "other".into(), node_status: NodeStatus::Failed, ..Server::default() };
    inputs.known_servers.insert("v".into(), blank.clone());
    let after = next(&later(&inputs, 2, &state)).servers["v"].server.clone();
    let want = Server { address: "v:1".into(), node_type: NodeType::Voter, ..blank };
    assert_eq!(after, want, "its id too");
}

#[test]
fn whom_the_application_does_not_know_has_left() {
    let mut inputs = inputs();
    inputs.known_servers.remove("v");
    let want = Server {
        id: "v".into(),
        address: "v:1".into(),
        node_status: NodeStatus::Left,
        node_type: NodeType::Voter,
        ..Server::default()
    };
    assert_eq!(next(&inputs).servers["v"].server, want);

    inputs.known_servers.insert("v".into(), Server { name: "known".into(), ..alive("v") });
    let state = next(&inputs);
    inputs.known_servers.remove("v");
    let server = next(&later(&inputs, 2, &state)).servers["v"].server.clone();
    assert_eq!((server.name.as_str(), server.node_status), ("known", NodeStatus::Left));
}

#[test]
fn stats_stay_until_others_are_fetched() {
    let mut inputs = inputs();
    inputs.fetched_stats.insert("v".into(), stats(5, 3, 900));
    let state = next(&inputs);
    inputs.fetched_stats.remove("v");
    let state = next(&later(&inputs, 3600, &state));
    assert_eq!(state.servers["v"].stats, stats(5, 3, 900), "and do not age");
    assert!(state.servers["v"].health.healthy);

    inputs.fetched_stats.insert("v".into(), ServerStats::default());
    let state = next(&later(&inputs, 3602, &state));
    assert_eq!(state.servers["v"].stats, ServerStats::default(), "zeros count");

    inputs.fetched_stats.remove("v");
    let server = &next(&inputs).servers["v"];
    assert_eq!((server.stats, server.health.healthy), (ServerStats::default(), false));
}

#[test]
fn stable_since_moves_with_every_change_of_health_and_only_then() {
    let mut inputs = inputs();
    let mut state = next(&inputs);
    for (second, is_well, want_since) in [
        (2, true, 0),
        (4, false, 4),
        (6, false, 4),
        (8, true, 8), // stable anew, not as long as it is known
        (10, true, 8),
        (12, false, 12),
    ] {
        inputs.fetched_stats.insert("v".into(), stats(if is_well { 0 } else { -1 }, 3, 1000));
        state = next(&later(&inputs, second, &state));
        let want = ServerHealth { healthy: is_well, stable_since: at(want_since) };
        assert_eq!(state.servers["v"].health, want, "second {second}");
    }
    // A new server, healthy or not.
    add(&mut inputs, "new", Suffrage::NonVoter);
    add(&mut inputs, "sick", Suffrage::NonVoter);
    inputs.fetched_stats.remove("sick");
    let state = next(&later(&inputs, 14, &state));
    let health = |id: &str| state.servers[id].health;
    assert_eq!(health("new"), ServerHealth { healthy: true, stable_since: at(14) });
    assert_eq!(health("sick"), ServerHealth { healthy: false, stable_since: at(14) });
}

#[test]
fn tolerance_is_what_a_quorum_can_spare() {
    for (voters, healthy, want) in [
        (1, 1, 0),
        (2, 2, 0),
        (3, 3, 1),
        (3, 2, 0),
        (3, 0, 0),
        (4, 4, 1),
        (5, 5, 2),
        (5, 4, 1),
        (6, 5, 1),
        (7, 7, 3),
        (0, 0, 0),
    ] {
        let mut inputs = inputs();
        inputs.configuration.members.clear();
        for number in 0..voters {
            add(&mut inputs, &format!("v{number}"), Suffrage::Voter);
            if healthy <= number {
                inputs.fetched_stats.remove(&*format!("v{number}"));
            }
        }
        assert_eq!(next(&inputs).failure_tolerance, want, "{healthy} of {voters}");
    }
}

#[test]
fn non_voters_and_staging_count_for_health_and_not_for_tolerance() {
    for suffrage in [Suffrage::NonVoter, Suffrage::Staging, Suffrage::Other(4)] {
        let mut inputs = inputs();
        add(&mut inputs, "w", Suffrage::Voter);
        add(&mut inputs, "x", suffrage);
        let state = next(&inputs);
        assert_eq!((state.healthy, state.failure_tolerance), (true, 1), "{suffrage:?}");
        inputs.fetched_stats.remove("x");
        let state = next(&inputs);
        assert_eq!((state.healthy, state.failure_tolerance), (false, 1), "{suffrage:?}");
        assert_eq!(state.voters.len(), 3);
    }
}

#[test]
fn an_empty_configuration_is_healthy() {
    let mut inputs = inputs();
    inputs.configuration.members.clear();
    let state = next(&inputs);
    assert_eq!((state.healthy, state.failure_tolerance), (true, 0));
    assert!(state.leader.is_none() && state.voters.is_empty() && state.servers.is_empty());
}

#[test]
fn voters_are_listed_best_first() {
    let mut inputs = inputs();
    for id in ["a", "b"] {
        add(&mut inputs, id, Suffrage::Voter);
    }
    inputs.fetched_stats.remove("a");
    let voters = next(&inputs).voters;
    assert_eq!(voters.iter().map(ServerId::as_str).collect::<Vec<_>>(), ["l", "b", "v", "a"]);
}

#[test]
fn a_server_twice_in_the_configuration_is_one_server() {
    let mut inputs = inputs();
    inputs.configuration.members.push(Member::new(Suffrage::NonVoter, "v", "v:9"));
    let state = next(&inputs);
    assert_eq!(state.servers.len(), 2);
    assert_eq!(state.servers["v"].state, RaftState::NonVoter);
    assert_eq!(state.servers["v"].server.address, "v:9");
}

/// Writes down what it is asked, and answers with what it saw.
#[derive(Debug, Default)]
struct Curious {
    asked: Mutex<Vec<String>>,
}

impl Promoter for Curious {
    fn get_server_ext(&self, _: Time, _: &Config, server: &ServerState) -> Option<Ext> {
        let id = server.server.id.as_str();
        self.asked.lock().unwrap().push(format!("server {id}"));
        (id == "v").then(|| json!({"healthy": server.health.healthy}))
    }
    fn get_state_ext(&self, _: Time, _: &Config, state: &State) -> Option<Ext> {
        self.asked.lock().unwrap().push("state".into());
        assert_eq!(state.servers["l"].server.node_type, NodeType::Untyped, "typed later");
        Some(json!({
            "tolerance": state.failure_tolerance,
            "healthy": state.healthy,
            "leader": state.leader.as_ref().map(ServerId::as_str),
            "voters": state.voters.len(),
        }))
    }
    fn get_node_types(&self, _: Time, _: &Config, state: &State) -> BTreeMap<ServerId, NodeType> {
        self.asked.lock().unwrap().push("types".into());
        assert!(state.ext.is_some());
        [("l".into(), NodeType::Voter), ("stranger".into(), NodeType::Voter)].into()
    }
    fn calculate_promotions_and_demotions(&self, _: Time, _: &Config, _: &State) -> RaftChanges {
        RaftChanges::default()
    }
    fn filter_failed_server_removals(
        &self,
        _: Time,
        _: &Config,
        _: &State,
        failed: FailedServers,
    ) -> FailedServers {
        failed
    }
    fn is_potential_voter(&self, _: &NodeType) -> bool {
        true
    }
}

#[test]
fn a_promoter_is_asked_in_order_and_sees_what_came_before() {
    let mut inputs = inputs();
    inputs.known_servers.get_mut("l").unwrap().ext = Some(json!("of the application"));
    inputs.known_servers.get_mut("v").unwrap().node_type = NodeType::Other("arbiter".into());
    inputs.known_servers.insert("x".into(), alive("x"));
    let promoter = Curious::default();
    let state = State::next(&inputs, &promoter, &Strictness::parity());
    assert_eq!(*promoter.asked.lock().unwrap(), ["server l", "server v", "state", "types"]);
    assert_eq!(state.servers["l"].server.ext, Some(json!("of the application")));
    assert_eq!(state.servers["v"].server.ext, Some(json!({"healthy": true})));
    let want = json!({"tolerance": 0, "healthy": true, "leader": "l", "voters": 2});
    assert_eq!(state.ext, Some(want));
    assert_eq!(state.servers["l"].server.node_type, NodeType::Voter);
    assert_eq!(
        state.servers["v"].server.node_type.as_str(),
        "arbiter",
        "kept, as it is not listed"
    );
    assert!(!state.servers.contains_key("stranger"));
}

#[test]
fn a_state_is_a_function_of_its_inputs() {
    let model = Model::of("LVFngs");
    let (one, other) = (model.inputs(), model.inputs());
    assert_eq!(next(&one), next(&other));
}
