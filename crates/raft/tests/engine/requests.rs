//! Snapshots that a follower asks for.

use quorate_raft::{
    Body, Config, Error, Message, MessageFault, MessageType, Note, ProgressState, Role,
    SnapshotRequestRefusal, SnapshotStatus, Storage,
};
use quorate_types::{Index, NodeId, Term};

use crate::net::{Member, Net, ack, append, heard, heartbeat, id, plain, snapshot};

fn ask(index: u64) -> Body {
    Body::AppendRefusal { index: Index(0), hint: id(0, index) }
}

/// A follower in term 2 whose log ends at 3@2, two of it committed and applied.
fn follower() -> Member {
    let mut member = Member::new(plain(1), &[1, 2, 3]);
    member.hear(2, 2, append(id(0, 0), &[1, 2, 2], 2));
    member.work();
    member
}

fn refusal(member: &mut Member) -> SnapshotRequestRefusal {
    match member.node.request_snapshot() {
        Err(Error::SnapshotRequestRefused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_refused_where_it_makes_no_sense() {
    use SnapshotRequestRefusal::*;
    let mut member = Member::new(plain(1), &[1]);
    assert_eq!(refusal(&mut member), NoLeader);
    member.stand();
    assert_eq!(refusal(&mut member), NotFollower, "it leads");

    let mut member = Member::with_log(plain(1), &[1, 2, 3], &[1, 1]);
    member.hear(2, 2, heartbeat(0));
    assert_eq!(refusal(&mut member), Behind, "the leader may replace what is there");
    member.stand();
    assert_eq!(refusal(&mut member), NotFollower, "it campaigns");

    let mut member = follower();
    member.node.request_snapshot().unwrap();
    assert_eq!(refusal(&mut member), Pending);

    let mut member = follower();
    member.hear(2, 2, Body::Snapshot { snapshot: Box::new(snapshot(2, 9, &[1, 2, 3])) });
    assert_eq!(refusal(&mut member), Installing);
}

#[test]
fn it_names_the_end_of_the_log_and_is_repeated_with_every_heartbeat() {
    let mut member = follower();
    member.node.request_snapshot().unwrap();
    assert_eq!(member.node.requested_snapshot(), Some(Index(3)));
    let want = Message { to: NodeId(2), from: NodeId(1), term: Term(2), body: ask(3) };
    assert_eq!(member.work(), std::slice::from_ref(&want));
    // The log stays as it is, for what comes must cover it.
    member.hear(2, 2, append(id(2, 3), &[2], 3));
    assert!(member.work().is_empty());
    assert_eq!(member.node.last_index(), Index(3));
    member.hear(2, 2, heartbeat(3));
    let said = member.work();
    assert!(said.contains(&want) && said.len() == 2, "{said:?}");
}

#[test]
fn what_comes_replaces_the_state_even_if_it_is_no_news() {
    for (index, term) in [(3, 2), (4, 2)] {
        let mut member = follower();
        member.hear(2, 2, heartbeat(3));
        member.work();
        assert_eq!(member.node.applied(), Index(3));
        member.node.request_snapshot().unwrap();
        member.work();
        let body = Body::Snapshot { snapshot: Box::new(snapshot(term, index, &[1, 2, 3])) };
        member.hear(2, 2, body);
        let ready = member.node.ready();
        assert_eq!(ready.snapshot.map(|it| it.metadata.index), Some(Index(index)));
        assert_eq!(ready.messages[0].body, ack(index));
        assert_eq!(member.node.requested_snapshot(), None);
        member.node.check();
    }
}

#[test]
fn what_does_not_cover_the_log_or_contradicts_it_is_not_installed() {
    for (index, term, commit) in [(2, 2, 2), (1, 1, 2), (3, 1, 2)] {
        let mut member = follower();
        member.node.request_snapshot().unwrap();
        member.work();
        let body = Body::Snapshot { snapshot: Box::new(snapshot(term, index, &[1, 2, 3])) };
        member.hear(2, 2, body);
        let ready = member.node.ready();
        assert_eq!(ready.snapshot, None, "{index}@{term}");
        assert_eq!(member.node.requested_snapshot(), Some(Index(3)));
        assert_eq!(member.node.last_index(), Index(3));
        assert_eq!(member.node.committed(), Index(commit));
    }
}

#[test]
fn it_is_forgotten_with_the_term_a_campaign_and_by_order() {
    let ends: [fn(&mut Member); 4] = [
        |member| member.hear(3, 3, heartbeat(0)),
        |member| member.stand(),
        |member| {
            member.node.campaign().unwrap();
        },
        |member| member.node.cancel_snapshot_request(),
    ];
    for (place, end) in ends.into_iter().enumerate() {
        let mut member = Member::new(Config { pre_vote: place == 2, ..plain(1) }, &[1, 2, 3]);
        member.hear(2, 2, append(id(0, 0), &[1, 2, 2], 2));
        member.work();
        member.node.request_snapshot().unwrap();
        member.work();
        member.node.take_notes();
        end(&mut member);
        assert_eq!(member.node.requested_snapshot(), None, "{place}");
    }
    let mut member = follower();
    member.node.request_snapshot().unwrap();
    member.node.take_notes();
    member.node.cancel_snapshot_request();
    assert_eq!(member.node.take_notes(), [Note::SnapshotRequestEnded { index: Index(3) }]);
    member.hear(2, 2, append(id(2, 3), &[2], 3));
    member.work();
    assert_eq!(member.node.last_index(), Index(4), "it takes entries again");
}

/// A leader of term 1 with two entries that all have, and a snapshot of the second one.
fn leader(config: Config) -> Member {
    let mut member = Member::new(config, &[1, 2, 3]);
    member.lead(&[2]);
    member.node.propose("x").unwrap();
    member.work();
    for peer in [2, 3] {
        member.hear(peer, 1, ack(2));
    }
    member.work();
    let conf_state = member.node.conf_state();
    member.storage.create_snapshot(Index(2), Some(conf_state), "state".into()).unwrap();
    member.node.take_notes();
    member
}

fn on_request() -> Config {
    Config { snapshot_on_request: true, ..plain(1) }
}

fn snapshots(messages: &[Message]) -> Vec<(u64, u64)> {
    let sent = |message: &Message| match &message.body {
        Body::Snapshot { snapshot } => Some((message.to.0, snapshot.metadata.index.0)),
        _ => None,
    };
    messages.iter().filter_map(sent).collect()
}

#[test]
fn a_leader_sends_what_it_has() {
    let mut member = leader(on_request());
    member.hear(3, 1, ask(2));
    assert_eq!(snapshots(&member.work()), [(3, 2)]);
    // Asked again while it is on its way.
    member.hear(3, 1, ask(2));
    assert_eq!(snapshots(&member.work()), []);
    // It was lost: the next request gets another.
    member.node.report_snapshot(NodeId(3), SnapshotStatus::Failure);
    member.hear(3, 1, ask(2));
    assert_eq!(snapshots(&member.work()), [(3, 2)]);
    member.node.report_snapshot(NodeId(3), SnapshotStatus::Finish);
    member.hear(3, 1, heard());
    member.work();
    member.hear(3, 1, ack(2));
    member.work();
    member.node.propose("y").unwrap();
    let said = member.work();
    assert!(said.iter().any(|message| message.to == NodeId(3)), "it gets entries again: {said:?}");
}

#[test]
fn a_leader_that_has_none_so_new_sends_it_later() {
    let mut member = leader(on_request());
    member.node.propose("y").unwrap();
    member.work();
    member.hear(3, 1, ack(3));
    member.hear(3, 1, ask(3));
    assert_eq!(snapshots(&member.work()), [], "its own is older");
    member.hear(3, 1, heard());
    assert_eq!(snapshots(&member.work()), []);
    member.storage.create_snapshot(Index(3), None, "state".into()).unwrap();
    member.hear(2, 1, heard());
    assert_eq!(snapshots(&member.work()), [], "it is another's");
    member.hear(3, 1, heard());
    assert_eq!(snapshots(&member.work()), [(3, 3)]);
    member.hear(3, 1, heard());
    assert_eq!(snapshots(&member.work()), [], "once");
}

#[test]
fn a_request_that_comes_late_or_is_over_is_forgotten() {
    let mut member = leader(on_request());
    member.hear(3, 1, ask(1));
    assert_eq!(snapshots(&member.work()), [], "it has two entries by now");
    member.node.propose("y").unwrap();
    member.work();
    member.hear(3, 1, ask(3));
    member.hear(2, 1, ack(3));
    member.hear(3, 1, ack(3));
    member.node.propose("z").unwrap();
    member.work();
    member.hear(3, 1, ack(4));
    member.storage.create_snapshot(Index(3), None, "state".into()).unwrap();
    member.hear(3, 1, heard());
    assert_eq!(snapshots(&member.work()), [], "it goes on with entries");
}

#[test]
fn a_leader_without_the_option_and_odd_requests_are_left_as_they_were() {
    let mut member = leader(plain(1));
    let before = member.progress(3);
    member.hear(3, 1, ask(2));
    assert_eq!((member.work(), member.progress(3)), (vec![], before.clone()));

    let mut member = leader(on_request());
    for index in [0, 3, u64::MAX] {
        member.hear(3, 1, ask(index));
        assert_eq!(member.work(), [], "{index}");
        let fault = MessageFault::Malformed;
        let dropped = Note::Dropped { kind: MessageType::MsgAppResp, from: NodeId(3), why: fault };
        assert_eq!(member.node.take_notes(), [dropped]);
    }
    assert_eq!(member.progress(3), before);
}

#[test]
fn a_group_heals_a_follower_that_asks() {
    for honoured in [true, false] {
        let mut net = Net::with(&[1, 2, 3], |config| config.snapshot_on_request = honoured);
        net.campaign(1);
        net.propose(1, "x").unwrap();
        let leader = net.at(1);
        let (applied, conf_state) = (leader.node.applied(), leader.node.conf_state());
        leader.storage.create_snapshot(applied, Some(conf_state), "state".into()).unwrap();

        net.node(3).request_snapshot().unwrap();
        net.settle();
        net.tick(1, 2);
        if honoured {
            let installed = net.at(3).storage.snapshot().unwrap();
            assert_eq!(installed.metadata.index, applied);
            assert_eq!(net.node(3).requested_snapshot(), None);
            net.node(1).report_snapshot(NodeId(3), SnapshotStatus::Finish);
        } else {
            net.node(3).cancel_snapshot_request();
        }
        net.tick(1, 2);
        net.propose(1, "y").unwrap();
        assert_eq!(net.at(3).machine().last().map(String::as_str), Some("y"), "{honoured}");
        assert_eq!(net.node(1).role(), Role::Leader);
    }
}

/// What was asked for is at the index that the follower had acknowledged before.
#[test]
fn a_snapshot_of_what_was_acknowledged_before_ends_the_wait() {
    for reported in [false, true] {
        let mut member = leader(on_request());
        member.hear(3, 1, ask(2));
        assert_eq!(snapshots(&member.work()), [(3, 2)]);
        assert_eq!(member.progress(3).state, ProgressState::Snapshot);
        if reported {
            member.node.report_snapshot(NodeId(3), SnapshotStatus::Finish);
        }
        member.hear(3, 1, ack(2));
        assert_eq!(member.progress(3).state, ProgressState::Replicate, "{reported}");
        member.node.propose("y").unwrap();
        assert!(member.work().iter().any(|message| message.to == NodeId(3)));
    }
}

#[test]
fn an_answer_from_before_a_newer_snapshot_ends_nothing() {
    let mut member = leader(on_request());
    member.hear(3, 1, ask(2));
    member.node.propose("y").unwrap();
    member.work();
    member.node.report_snapshot(NodeId(3), SnapshotStatus::Failure);
    member.hear(2, 1, ack(3));
    member.work();
    member.storage.create_snapshot(Index(3), None, "state".into()).unwrap();
    member.hear(3, 1, ask(2));
    assert_eq!(snapshots(&member.work()), [(3, 3)]);
    member.hear(3, 1, ack(2));
    assert_eq!(member.progress(3).state, ProgressState::Snapshot);
}
