use quorate_types::Term;

use super::*;
use crate::time::{Span, Time};

/// Voters 1 2 3 of which 1 leads, learner 4; all at `nX:1`.
fn membership() -> CoreMembership {
    let id = NodeId;
    CoreMembership {
        voters: [id(1), id(2), id(3)].into(),
        learners: [id(4)].into(),
        addresses: (1..=4).map(|number| (id(number), format!("n{number}:1"))).collect(),
        index: 70.into(),
        leader: Some(id(1)),
        ..CoreMembership::default()
    }
}

fn planned(membership: &CoreMembership, action: &Action) -> String {
    match membership.plan(action) {
        Ok(Some(change)) => change.to_string(),
        Ok(None) => String::new(),
        Err(error) => format!("error: {error}"),
    }
}

/// `add-voter 2@n2:1`, as actions print.
fn action(text: &str) -> Action {
    let (verb, rest) = text.split_once(' ').unwrap();
    let (id, address) = rest.split_once('@').unwrap_or((rest, ""));
    let (id, address) = (ServerId::from(id), address.to_owned());
    match verb {
        "add-nonvoter" => Action::AddNonvoter { id, address },
        "add-voter" => Action::AddVoter { id, address },
        "demote" => Action::DemoteVoter { id },
        "remove" => Action::RemoveServer { id },
        other => panic!("{other}"),
    }
}

#[test]
fn each_wish_is_one_change_of_the_core_or_none() {
    for (wish, want) in [
        ("add-nonvoter 5@n5:1", "add-learner 5@n5:1"),
        ("add-nonvoter 4@n4:1", ""),
        ("add-nonvoter 4@n4:2", "update-node 4@n4:2"),
        // A voter is never added as a learner: that would take its vote.
        ("add-nonvoter 2@n2:1", ""),
        ("add-nonvoter 2@n2:2", "update-node 2@n2:2"),
        ("add-voter 5@n5:1", "add-node 5@n5:1"),
        ("add-voter 4@n4:1", "add-node 4@n4:1"),
        ("add-voter 2@n2:1", ""),
        ("add-voter 2@n2:2", "update-node 2@n2:2"),
        ("demote 2", "add-learner 2@n2:1"),
        ("demote 4", ""),
        ("demote 9", ""),
        ("demote nobody", ""),
        ("remove 2", "remove-node 2"),
        ("remove 4", "remove-node 4"),
        ("remove 9", ""),
        ("remove 0", ""),
        // What the core would be killed by, or must not be asked.
        ("demote 1", "error: refused: 1 leads; leadership has to go over first"),
        ("remove 1", "error: refused: 1 leads; leadership has to go over first"),
        ("add-voter 0@n:1", "error: refused: \"0\" is no id of a node"),
        ("add-nonvoter @n:1", "error: refused: \"\" is no id of a node"),
        ("add-nonvoter 05@n:1", "error: refused: \"05\" is no id of a node"),
        ("add-nonvoter 5@", "error: refused: 5 has no address"),
        ("add-nonvoter 5@n2:1", "error: refused: n2:1 is the address of 2"),
        ("add-voter 4@n2:1", "error: refused: n2:1 is the address of 2"),
    ] {
        assert_eq!(planned(&membership(), &action(wish)), want, "{wish}");
    }
}

#[test]
fn the_last_voter_stays() {
    let mut alone = membership();
    alone.voters = [NodeId(1)].into();
    for leader in [None, Some(NodeId(1))] {
        alone.leader = leader;
        for wish in ["demote 1", "remove 1"] {
            let want = "error: refused: 1 is the last voter";
            assert_eq!(planned(&alone, &action(wish)), want, "{wish}");
        }
    }
}

#[test]
fn voters_of_both_halves_are_voters() {
    let mut joint = membership();
    joint.voters_outgoing = [NodeId(1), NodeId(0xab)].into();
    let configuration = joint.configuration();
    let members: Vec<(&str, Suffrage)> =
        configuration.members.iter().map(|member| (member.id.as_str(), member.suffrage)).collect();
    let voter = Suffrage::Voter;
    let want = [("1", voter), ("2", voter), ("3", voter), ("4", Suffrage::NonVoter), ("ab", voter)];
    assert_eq!(members, want);
    assert_eq!(configuration.index, Index(70));
    assert_eq!(planned(&joint, &action("add-nonvoter ab@nab:1")), "update-node ab@nab:1");
}

#[test]
fn a_replacement_is_one_change() {
    let wish = |demoted: &str, promoted: &str| Action::ReplaceVoter {
        demoted: demoted.into(),
        promoted: promoted.into(),
        address: format!("n{promoted}:1"),
    };
    for (demoted, promoted, want) in [
        ("2", "4", "replace 2 by 4"),
        ("4", "5", "error: 4 has no vote"),
        ("2", "3", "error: refused: 3 votes already"),
        ("2", "2", "error: 2 has no vote"),
        ("1", "4", "error: refused: 1 leads; leadership has to go over first"),
    ] {
        assert_eq!(planned(&membership(), &wish(demoted, promoted)), want);
    }
    let transfer = Action::TransferLeadership { id: "2".into(), address: String::new() };
    assert!(planned(&membership(), &transfer).starts_with("error: refused: "));
}

fn at(second: i64) -> Time {
    Time::from_unix(second, 0)
}

const TIMEOUT: Span = Span::from_secs(5);

fn begin(changes: &mut Changes, membership: &CoreMembership) -> Result<Tag, RaftError> {
    changes.begin(at(0), membership, Index(0), TIMEOUT, false)
}

#[test]
fn a_second_change_is_refused_and_does_not_vanish() {
    let (mut changes, membership) = (Changes::default(), membership());
    let first = begin(&mut changes, &membership).unwrap();
    assert!(changes.on_proposed(first, Some(71.into())).is_none());
    for _ in 0..2 {
        let refused = begin(&mut changes, &membership).unwrap_err();
        assert!(matches!(refused, RaftError::ConfigChangeInProgress), "{refused}");
    }
    // Others' entries change nothing.
    assert!(changes.on_applied(69.into(), None, Ok(())).is_none());
    assert!(changes.on_applied(70.into(), Some(Tag(9)), Ok(())).is_none());
    let fate = changes.on_applied(71.into(), Some(first), Ok(())).unwrap();
    assert_eq!((fate.tag, fate.result.unwrap()), (first, Index(71)));
    let second = begin(&mut changes, &membership).unwrap();
    assert_ne!(first, second);

    // Nor is there one while the core is joint, or drops proposals for a transfer.
    let mut changes = Changes::default();
    let mut joint = membership.clone();
    joint.voters_outgoing = joint.voters.clone();
    assert!(begin(&mut changes, &joint).is_err());
    assert!(changes.begin(at(0), &membership, Index(0), TIMEOUT, true).is_err());
    assert!(begin(&mut changes, &membership).is_ok());
}

#[test]
fn every_change_has_a_fate() {
    type End = fn(&mut Changes, Tag) -> Option<Fate>;
    let ends: [(End, &str); 5] = [
        (
            |changes, tag| changes.on_proposed(tag, None),
            "the proposal was dropped; try again later",
        ),
        // The core put an empty entry where it was to stand.
        (
            |changes, _| changes.on_applied(71.into(), None, Ok(())),
            "the proposal was dropped; try again later",
        ),
        (
            |changes, _| changes.on_lost_leadership(),
            "leadership was lost; whether the change was made is not known",
        ),
        (
            |changes, _| {
                assert!(changes.on_time(at(4)).is_none());
                changes.on_time(at(5))
            },
            "no answer within 5s; whether the change was made is not known",
        ),
        (
            |changes, tag| changes.on_applied(71.into(), Some(tag), admits(71.into(), 70.into())),
            "the configuration has changed: it is of 71, not of 70",
        ),
    ];
    for (end, want) in ends {
        let mut changes = Changes::default();
        let tag = begin(&mut changes, &membership()).unwrap();
        changes.on_proposed(tag, Some(71.into()));
        let fate = end(&mut changes, tag).unwrap();
        assert_eq!((fate.tag, fate.result.unwrap_err().to_string()), (tag, want.to_owned()));
        // And there is room for the next.
        assert!(begin(&mut changes, &membership()).is_ok());
        assert!(Changes::default().on_lost_leadership().is_none());
    }
}

#[test]
fn a_change_holds_for_the_configuration_it_was_decided_on() {
    for (index, prev_index, holds) in
        [(70, 0, true), (70, 70, true), (70, 69, false), (70, 71, false)]
    {
        assert_eq!(admits(index.into(), prev_index.into()).is_ok(), holds);
        let begun =
            Changes::default().begin(at(0), &membership(), prev_index.into(), TIMEOUT, false);
        assert_eq!(begun.is_ok(), holds, "also before it is proposed");
    }
}

#[test]
fn a_transfer_ends_one_way_or_the_other() {
    let begin = |to: &str| Transfer::begin(at(0), &membership(), &to.into(), TIMEOUT);
    for (to, want) in [
        ("4", "4 has no vote"),
        ("9", "9 is not in the configuration"),
        ("x", "x is not in the configuration"),
        ("1", "1 leads already"),
    ] {
        assert_eq!(begin(to).unwrap_err().to_string(), want);
    }
    let transfer = begin("2").unwrap();
    assert_eq!(transfer.to(), NodeId(2));
    let outcome = |second, leader: Option<u64>| {
        let ended = transfer.outcome(at(second), leader.map(NodeId), NodeId(1));
        ended.map(|result| result.map_err(|error| error.to_string()))
    };
    assert_eq!(outcome(0, Some(1)), None);
    assert_eq!(outcome(4, None), None, "an election");
    assert_eq!(outcome(3, Some(2)), Some(Ok(())));
    assert_eq!(outcome(3, Some(3)), Some(Err("not the leader; ask 3".to_owned())));
    let late = "no answer within 5s; whether the change was made is not known".to_owned();
    assert_eq!(outcome(5, Some(1)), Some(Err(late.clone())), "to an unreachable one");
    assert_eq!(outcome(5, None), Some(Err(late)));
}

#[test]
fn stats_come_without_asking_anybody() {
    let contact = |heard_at| stats_of_peer(at(10), 7.into(), Some(3.into()), heard_at).last_contact;
    assert_eq!(contact(Some(at(8))), Span::from_secs(2));
    assert_eq!(contact(Some(at(11))), Span::ZERO);
    assert_eq!(contact(None), Span(-1), "never heard from");
    for (matched, term, want) in [(7, Some(3), 3), (7, None, 0), (0, Some(3), 0), (0, None, 0)] {
        let stats = stats_of_peer(at(10), Index(matched), term.map(Term), None);
        assert_eq!((stats.last_index, stats.last_term), (Index(matched), Term(want)));
    }
    let stats = stats_of_leader(9.into(), 4.into());
    assert_eq!(
        (stats.last_contact, stats.last_index, stats.last_term),
        (Span::ZERO, Index(9), Term(4))
    );
}
