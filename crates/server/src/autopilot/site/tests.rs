use quorate_autopilot::Suffrage;
use quorate_types::Term;

use super::*;

const ELECTION: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

fn rules() -> Rules {
    Rules::new(true, 64, ELECTION)
}

fn member(id: u64, is_learner: bool) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://h:{id}"), format!("http://g:{id}")],
        is_learner,
        ..Member::default()
    }
}

/// Voters 1 to 3, of which the first leads, and a learner; all of them are well.
fn standing() -> Standing {
    let members = [1, 2, 3, 9].map(|id| member(id, id == 9));
    let all = || members.iter().map(|member| NodeId(member.id));
    Standing {
        leader: NodeId(1),
        matched: all().map(|id| (id, Index(100))).collect(),
        matched_terms: all().map(|id| (id, Term(5))).collect(),
        connected: all().skip(1).map(|id| (id, LONG)).collect(),
        heard: all().skip(1).map(|id| (id, Duration::from_millis(50))).collect(),
        membership_index: Index(40),
        last_index: Index(120),
        last_term: Term(5),
        members: members.to_vec(),
        ..Standing::default()
    }
}

#[test]
fn a_wish_becomes_one_change_of_the_members() {
    let address = |id: u64| format!("http://h:{id},http://g:{id}");
    let urls = |id: u64| vec![format!("http://h:{id}"), format!("http://g:{id}")];
    let new = |is_learner| Member { id: 10, peer_urls: urls(10), is_learner, ..Member::default() };
    let id = |id: u64| server_id(NodeId(id));
    for (action, want) in [
        (Action::AddVoter { id: id(9), address: address(9) }, Ok(Some(MemberChange::Promote(9)))),
        (Action::AddVoter { id: id(2), address: address(2) }, Ok(None)),
        (
            Action::AddVoter { id: id(2), address: address(7) },
            Ok(Some(MemberChange::UpdatePeerUrls { id: 2, peer_urls: urls(7) })),
        ),
        (
            Action::AddNonvoter { id: id(10), address: address(10) },
            Ok(Some(MemberChange::Add(new(true)))),
        ),
        (
            Action::AddVoter { id: id(10), address: address(10) },
            Ok(Some(MemberChange::Add(new(false)))),
        ),
        // To add a learner that votes would take its vote: its address is all that may change.
        (Action::AddNonvoter { id: id(2), address: address(2) }, Ok(None)),
        (Action::DemoteVoter { id: id(2) }, Ok(Some(MemberChange::Demote(2)))),
        (Action::DemoteVoter { id: id(9) }, Ok(None)),
        (Action::DemoteVoter { id: id(10) }, Ok(None)),
        (Action::DemoteVoter { id: id(1) }, Err("leadership has to go over first")),
        (Action::RemoveServer { id: id(3) }, Ok(Some(MemberChange::Remove(3)))),
        (Action::RemoveServer { id: id(10) }, Ok(None)),
        (Action::RemoveServer { id: id(1) }, Err("leadership has to go over first")),
        (
            Action::ReplaceVoter { demoted: id(2), promoted: id(9), address: address(9) },
            Ok(Some(MemberChange::Replace { demoted: 2, promoted: 9 })),
        ),
        (
            Action::ReplaceVoter { demoted: id(1), promoted: id(9), address: address(9) },
            Err("leadership has to go over first"),
        ),
    ] {
        match (plan(&rules(), &standing(), &action), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{action}"),
            (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{action}: {got}"),
            (got, want) => panic!("{action}: {got:?} instead of {want:?}"),
        }
    }
}

#[test]
fn what_would_cost_the_quorum_is_refused_whoever_wants_it() {
    let mut standing = standing();
    standing.connected.remove(&NodeId(3));
    let (two, nine) = (server_id(NodeId(2)), server_id(NodeId(9)));
    for action in [Action::DemoteVoter { id: two.clone() }, Action::RemoveServer { id: two }] {
        let refused = plan(&rules(), &standing, &action).unwrap_err();
        assert!(refused.to_string().contains("unhealthy cluster"), "{action}: {refused}");
    }
    let address = "http://h:9,http://g:9".to_owned();
    let promote = Action::AddVoter { id: nine, address };
    assert!(plan(&rules(), &standing, &promote).is_ok(), "three of four are well");
    standing.matched.insert(NodeId(9), Index(10));
    let refused = plan(&rules(), &standing, &promote).unwrap_err();
    assert!(refused.to_string().contains("in sync with leader"), "{refused}");
}

#[test]
fn a_member_is_alive_while_it_is_heard_or_connected() {
    let silence = |looked_for| Silence { least: Duration::from_secs(10), looked_for };
    for (name, heard_ms, connected, want) in [
        ("n2", Some(50), true, NodeStatus::Alive),
        ("n2", Some(50), false, NodeStatus::Alive),
        // It is restarted: its health suffers, and it keeps its place.
        ("n2", Some(10_000), false, NodeStatus::Alive),
        ("n2", Some(10_001), false, NodeStatus::Failed),
        ("n2", None, false, NodeStatus::Failed),
        ("n2", None, true, NodeStatus::Alive),
        // It hangs: its connection will break, and its health suffers at once.
        ("n2", Some(90_000), true, NodeStatus::Alive),
        // Nobody has started it yet, and it is not dead for that.
        ("", None, false, NodeStatus::Unknown),
        ("", Some(50), true, NodeStatus::Unknown),
    ] {
        let mut standing = standing();
        let member = Member { name: name.to_owned(), ..member(2, false) };
        standing.heard.remove(&NodeId(2));
        if let Some(ms) = heard_ms {
            standing.heard.insert(NodeId(2), Duration::from_millis(ms));
        }
        if !connected {
            standing.connected.remove(&NodeId(2));
        }
        let got = node_status(&standing, &member, silence(LONG));
        assert_eq!(got, want, "{name} {heard_ms:?} {connected}");
    }
    let of = |id, heard: Option<Duration>, looked_for| {
        let mut standing = standing();
        standing.connected.clear();
        standing.heard = heard.map(|ago| (NodeId(id), ago)).into_iter().collect();
        node_status(&standing, &member(id, false), silence(looked_for))
    };
    assert_eq!(of(1, None, LONG), NodeStatus::Alive, "itself");
    let young = Duration::from_secs(9);
    assert_eq!(of(2, None, young), NodeStatus::Alive, "a new leader waits for it");
    let long_ago = Some(Duration::from_secs(7200));
    assert_eq!(of(2, long_ago, young), NodeStatus::Alive, "also if it heard it in another life");
    assert_eq!(of(2, long_ago, Duration::from_secs(11)), NodeStatus::Failed);
}

#[test]
fn the_leader_knows_how_far_everybody_is() {
    let mut standing = standing();
    standing.heard.remove(&NodeId(3));
    standing.matched_terms.remove(&NodeId(9));
    let stats = stats(&standing, &Stalls::default());
    let of = |id: u64| {
        let one = stats[&server_id(NodeId(id))];
        (one.last_contact.to_string(), one.last_term.0, one.last_index.0)
    };
    assert_eq!(of(1), ("0s".to_owned(), 5, 120), "its own log ends there");
    assert_eq!(of(2), ("50ms".to_owned(), 5, 100));
    assert!(stats[&server_id(NodeId(3))].last_contact.is_negative(), "never heard from");
    assert_eq!(of(9).1, 0, "the leader has that entry no more");

    // It is heard from, and stores nothing: its disk hangs.
    let mut stalls = Stalls::default();
    for seconds in [0, 3] {
        let matched = [(NodeId(2), Index(100))].into_iter();
        stalls.look(Time::from_unix(seconds, 0), standing.last_index, matched);
    }
    let two = super::stats(&standing, &stalls)[&server_id(NodeId(2))];
    assert_eq!(two.last_contact, Span::from_secs(3));
}

#[test]
fn whoever_could_not_be_promoted_is_no_candidate() {
    let promote = |id: u64| {
        let address = format!("http://h:{id},http://g:{id}");
        Action::AddVoter { id: server_id(NodeId(id)), address }
    };
    for (matched, is_lacking) in
        [(None, true), (Some(0), true), (Some(89), true), (Some(90), false), (Some(100), false)]
    {
        let mut standing = standing();
        standing.matched.remove(&NodeId(9));
        // A voter that lacks some of it is no concern of anybody's.
        standing.matched.insert(NodeId(2), Index(3));
        standing.matched.extend(matched.map(|last| (NodeId(9), Index(last))));
        let lacks = lacking(&standing);
        let has = Index(matched.unwrap_or(0));
        let want = is_lacking.then_some((server_id(NodeId(9)), Lack { has, least: Index(90) }));
        assert_eq!(lacks, want.into_iter().collect());
        let refused = plan(&rules(), &standing, &promote(9)).is_err();
        assert_eq!(refused, is_lacking, "as it is judged when it is proposed: {matched:?}");
    }
}

#[test]
fn the_membership_is_what_the_machine_has() {
    let configuration = membership(&standing()).configuration();
    assert_eq!(configuration.index, Index(40));
    assert_eq!(configuration.voter_count(), 3);
    let last = configuration.members.last().unwrap();
    assert_eq!((last.suffrage, last.id.as_str()), (Suffrage::NonVoter, "9"));
    assert_eq!(last.address, "http://h:9,http://g:9");
    assert_eq!(roster(&standing().members), roster(&standing().members));
    let mut other = standing().members;
    other[1].is_learner = true;
    assert_ne!(roster(&standing().members), roster(&other));
}
