//! Rounds and the stable promoter.

use super::model::{Model, text};
use crate::*;

fn ids(words: &str) -> Vec<ServerId> {
    words.split_whitespace().map(ServerId::from).collect()
}

/// `+` promotions, `-` demotions, `>` the leader.
fn changes(words: &str) -> RaftChanges {
    let of = |sign: char| -> Vec<ServerId> {
        words
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(sign))
            .map(Into::into)
            .collect()
    };
    RaftChanges {
        promotions: of('+'),
        demotions: of('-'),
        leader: of('>').pop(),
        ..RaftChanges::default()
    }
}

fn planned(model: &Model, wanted: &str) -> String {
    match model.plan(&changes(wanted)) {
        Ok(round) => text(&round.actions),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn one_class_of_change_a_round() {
    for (servers, wanted, want) in [
        ("LVn", "+n2", "add-voter n2"),
        ("LVVnV", "+n3 -V4", "add-voter n3"),
        ("LVFn", "+n3 -F2 >V1", "demote F2, add-voter n3"),
        ("LVVFn", "+n4 -F3 >V1", "add-voter n4"),
        ("LVVV", "-V3", "demote V3"),
        ("LVVFF", "-F3 -F4", "demote F3, demote F4"),
        ("LVVn", "-n3 >V1", "transfer to V1"),
        ("LVV", ">X", "error: X is to lead and is not in the state"),
        ("LVV", ">L0", ""),
        ("LVg", "+g2", "add-voter g2"),
        // All promotions in one round, in the order of the list.
        ("LVVnnn", "+n5 +n3 +n4", "add-voter n5, add-voter n3, add-voter n4"),
        // Who is unknown, votes already or is unhealthy is passed over without an error.
        ("LVfn", "+X +V1 +f2 +n3", "add-voter n3"),
        ("LVfn", "+X +V1 +f2", ""),
        // So is the demotion of who is unknown or has no vote.
        ("LVVVn", "-X -n4 -V3", "demote V3"),
        ("LVVVn", "-X -n4", ""),
        // Staging servers are demoted, and so is the leader, if that is asked for.
        ("LVVg", "-g3", "demote g3"),
        ("LVVV", "-L0", "demote L0"),
        // An even number of voters: no demotion together with a promotion, failed or not.
        ("LVFFn", "+n4 -F2 -F3", "add-voter n4"),
        ("LVFFn", "-F2 -F3", "demote F2, demote F3"),
        // An odd number: one failed one first, healthy ones are passed over for that.
        ("LVFn", "+n3 -V1 -F2", "demote F2, add-voter n3"),
        ("LVVFFn", "+n5 -V1 -F3 -F4", "demote F3, add-voter n5"),
        ("LVVn", "+n3 -V1 -V2", "add-voter n3"),
        // Without promotions all demotions, healthy or not; a failed one goes first and not twice.
        ("LVF", "-V1 -F2", "demote F2, demote V1"),
        ("LVVVF", "-V3 -F4", "demote F4, demote V3"),
        // After a demotion leadership stays, also after that of a failed one alone.
        ("LVVV", "-V3 >V1", "demote V3"),
        ("LVF", "-F2 >V1", "demote F2"),
        ("LVVn", "+n3 >V1", "add-voter n3"),
        // Nothing to do but leadership.
        ("LVVn", "+V1 -n3 >V2", "transfer to V2"),
        ("LVV", "", ""),
        // Nobody is named twice.
        ("LVVn", "+n3 +n3", "add-voter n3"),
        ("LVVV", "-V3 -V3", "demote V3"),
    ] {
        assert_eq!(planned(&Model::of(servers), wanted), want, "{servers}: {wanted}");
    }
}

#[test]
fn actions_use_the_address_in_the_state() {
    let model = Model::of("LVn");
    for (wanted, want) in [("+n2", "add-voter n2@n2:2380"), (">V1", "transfer to V1@V1:2380")] {
        let round = model.plan(&changes(wanted)).unwrap();
        assert_eq!(round.actions[0].to_string(), want);
    }
}

#[test]
fn without_a_leader_there_is_no_round() {
    let mut model = Model::of("VVn");
    assert_eq!(model.state.leader, None);
    assert_eq!(model.plan(&changes("+n2")), Err(RoundError::NoLeader));
    assert_eq!(model.round(), Err(RoundError::NoLeader));
}

#[test]
fn the_stable_promoter_types_everybody_a_voter() {
    let model = Model::of("LVFngfS");
    let promoter = default_promoter();
    let types = promoter.get_node_types(model.now, &model.config, &model.state);
    assert_eq!(types.len(), 7);
    assert!(types.values().all(|node_type| *node_type == NodeType::Voter));
    let server = &model.state.servers["n3"];
    assert_eq!(promoter.get_server_ext(model.now, &model.config, server), None);
    assert_eq!(promoter.get_state_ext(model.now, &model.config, &model.state), None);
}

#[test]
fn the_stable_promoter_promotes_stable_non_voters_only() {
    let mut model = Model::of("LVnfg");
    let fresh = super::model::Peer::new(Suffrage::NonVoter);
    model.peers.insert("fresh".into(), fresh);
    model.wait(9);
    let want = RaftChanges { promotions: ids("n2"), ..RaftChanges::default() };
    assert_eq!(model.changes(), want);
    model.wait(1);
    assert_eq!(model.changes().promotions, ids("n2 fresh"), "best first");
}

#[test]
fn whoever_is_healthy_is_stable_at_the_beginning() {
    let mut model = Model::of("LVV");
    model.state = State::default();
    model.update();
    model.wait(9);
    let fresh = super::model::Peer::new(Suffrage::NonVoter);
    model.peers.insert("fresh".into(), fresh);
    model.wait(1);
    assert_eq!(model.changes().promotions, ids("fresh"), "ten seconds after the first state");
    model.now = model.now.plus(Span(1));
    assert_eq!(model.changes().promotions, [], "and a nanosecond later");
}

#[test]
fn the_stabilization_time_counts_from_the_first_state() {
    let config = Config::default();
    let first = Time::from_unix(1_600_000_000, 0);
    let state = State::default().with_first_state_time(first);
    let ten = Span::from_secs(10);
    for (after, want) in [
        (Span::ZERO, Span::ZERO),
        (Span(9), Span::ZERO),
        (ten, Span::ZERO),
        (ten.plus(Span(1)), ten),
    ] {
        assert_eq!(state.server_stabilization_time(&config, first.plus(after)), want, "{after}");
    }
    assert_eq!(State::default().server_stabilization_time(&config, first), ten, "an empty state");
}

#[test]
fn the_stable_promoter_lets_all_go_and_counts_voters_only() {
    let model = Model::of("LVVSFsf");
    let promoter = StablePromoter;
    let failed = failed_servers(&model.configuration(), &model.known(), &Strictness::parity());
    let filtered = promoter.filter_failed_server_removals(
        model.now,
        &model.config,
        &model.state,
        failed.clone(),
    );
    assert_eq!(filtered, failed);
    for (word, want) in
        [("voter", true), ("", false), ("read-replica", false), ("zone-voter", false), ("x", false)]
    {
        assert_eq!(promoter.is_potential_voter(&NodeType::from(word)), want, "{word}");
    }
}
