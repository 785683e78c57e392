//! The fate of requests: one outcome for each, and "refused" only for what never happens.

use bytes::Bytes;
use quorate_zab::{
    Command, Config, ConnId, Event, FollowerInfo, LeaveReason, Message, MessageType, Note, Op,
    Outcome, Proposal, ProposeError, Request, ResignReason, Role, Zxid,
};

use crate::hand::{Hand, Past, accept, ack, commit, id, ids_in, info, request};
use crate::net::{config, member};

#[test]
fn a_request_of_a_learner_goes_through_the_leader() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    hand.hear(conn, request(77, Op::SET));
    let want = Proposal {
        zxid: id(1, 1),
        fid: member(1).message, // that of its connection: a request has none
        request: 77,
        command: Command::set("k", "v"),
    };
    assert_eq!(hand.sent(conn), [Message::Proposal(want)]);
}

#[test]
fn operations_that_are_not_for_the_log_are_refused_by_name() {
    for (op, broadcast, want) in [
        (Op::INVALID, false, false),
        (Op::ADD, false, true),
        (Op::DELETE, false, true),
        (Op::GET, false, false),
        (Op::STREAM_BEGIN, false, false),
        (Op::STREAM_END, false, false),
        (Op::BROADCAST, false, false),
        (Op::BROADCAST, true, true),
        (Op(50), false, false),
    ] {
        let past = Past::default();
        let mut hand = Hand::new(Config { allow_broadcast: broadcast, ..config(3, 3) }, &past);
        hand.elect(3, 3);
        let (conn, _) = hand.join(1, &past);
        hand.sent(conn);
        hand.hear(conn, request(5, op));
        let sent = hand.sent(conn);
        match want {
            true => assert!(matches!(&sent[..], [Message::Proposal(_)]), "{op:?}: {sent:?}"),
            false => {
                let error = format!("operation {} cannot be proposed", op.0);
                let abort = Message::Abort { request: 5, fid: member(1).message, error };
                assert_eq!(sent, [abort], "{op:?}");
                assert!(hand.is_serving());
                assert_eq!(hand.zab.status().last.0, 0, "no id was used up");
            }
        }
    }
}

#[test]
fn a_refused_request_harms_none_that_wait() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    hand.hear(conn, request(1, Op::SET));
    hand.hear(conn, request(2, Op::SET));
    hand.hear(conn, request(3, Op::GET));
    hand.hear(conn, request(4, Op::SET));
    hand.hear(conn, accept(1, id(1, 3)));
    assert_eq!(hand.committed, [id(1, 1), id(1, 2), id(1, 3)]);
    let sent = hand.sent(conn);
    let aborts = sent.iter().filter(|message| matches!(message, Message::Abort { .. })).count();
    assert_eq!(aborts, 1, "{sent:?}");
}

#[test]
fn what_waits_is_bounded() {
    let small = Config { proposals_count_max: 2, requests_count_max: 3, ..config(3, 3) };
    let mut hand = Hand::new(small.clone(), &Past::default());
    hand.elect(3, 3);
    let (conn, _) = hand.join(1, &Past::default());
    hand.propose("a");
    hand.propose("b");
    assert_eq!(hand.zab.propose(Command::set("k", "c")), Err(ProposeError::Busy));
    hand.hear(conn, request(1, Op::SET));
    let sent = hand.sent(conn);
    assert!(
        matches!(sent.last(), Some(Message::Abort { error, .. }) if error.contains("too many")),
        "{sent:?}"
    );
    hand.hear(conn, accept(1, id(1, 2)));
    assert!(hand.zab.propose(Command::set("k", "c")).is_ok(), "there is room again");

    let short = Config { key_bytes_max: 2, content_bytes_max: 4, ..small.clone() };
    let mut hand = Hand::new(short, &Past::default());
    for (key, content, want) in
        [("kk", "1234", None), ("kkk", "", Some("key")), ("", "12345", Some("content"))]
    {
        let found = hand.zab.propose(Command::set(key, content));
        match (found, want) {
            (Err(ProposeError::NoLeader), None) => {}
            (Err(ProposeError::TooLarge { what, .. }), Some(want)) => assert_eq!(what, want),
            other => panic!("{other:?}"),
        }
    }

    let bytes = Config { proposals_bytes_max: 10, ..config(3, 3) };
    let mut hand = Hand::new(bytes, &Past::default());
    hand.elect(3, 3);
    hand.join(1, &Past::default());
    let big = || Command::set("k", vec![0; 100]);
    assert!(hand.zab.propose(big()).is_ok(), "one alone always goes");
    assert_eq!(hand.zab.propose(Command::set("k", "")), Err(ProposeError::Busy));

    // On a follower: those without an outcome.
    let past = Past::default();
    let mut hand = Hand::new(Config { requests_count_max: 3, ..config(1, 3) }, &past);
    let conn = hand.follow(3, 1, true);
    for message in [
        crate::hand::begin(Zxid::ZERO, Zxid::ZERO),
        crate::hand::end(Zxid::ZERO),
        crate::hand::new_leader(1),
    ] {
        hand.hear(conn, message);
    }
    for _ in 0..3 {
        hand.propose("x");
    }
    assert_eq!(hand.zab.propose(Command::set("k", "x")), Err(ProposeError::Busy));
}

#[test]
fn a_request_is_answered_where_it_was_asked_once_it_is_applied_there() {
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    let asked = hand.propose("x");
    let Some(Message::Request(sent)) = hand.sent(conn).pop() else { panic!("nothing was sent") };
    assert_eq!(sent.id, asked.0);
    let fid = member(1).message;
    let proposal =
        Proposal { zxid: id(1, 1), fid, request: sent.id, command: sent.command.clone() };
    hand.hear(conn, Message::Proposal(proposal.clone()));
    assert!(hand.answers.is_empty());
    hand.is_disk_held = true;
    hand.hear(conn, commit(id(1, 1)));
    let answer = (asked, Outcome::Committed { index: 1.into(), zxid: id(1, 1) });
    assert_eq!(hand.answers, [answer]);
    // The id of a request that is over means nothing any more.
    let again = Proposal { zxid: id(1, 2), ..proposal };
    hand.hear(conn, Message::Proposal(again));
    hand.sync_and_drive();
    hand.hear(conn, commit(id(1, 2)));
    assert_eq!(hand.answers.len(), 1);
}

#[test]
fn each_request_ends_exactly_once() {
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    let asked: Vec<_> = (0..4).map(|_| hand.propose("x")).collect();
    let sent = hand.sent(conn);
    let fid = member(1).message;
    let abort =
        |at: usize| Message::Abort { request: asked[at].0, fid: fid.clone(), error: "no".into() };
    // The first is refused, twice; the second is placed and committed; the third is placed; of the
    // fourth nobody hears any more.
    hand.hear(conn, abort(0));
    hand.hear(conn, abort(0));
    for (at, counter) in [(1, 1), (2, 2)] {
        let Message::Request(request) = &sent[at] else { panic!("{sent:?}") };
        let proposal = Proposal {
            zxid: id(1, counter),
            fid: fid.clone(),
            request: request.id,
            command: request.command.clone(),
        };
        hand.hear(conn, Message::Proposal(proposal));
    }
    hand.hear(conn, commit(id(1, 1)));
    hand.hear(conn, abort(1));
    hand.handle(Event::Closed { conn });
    let mut answers = hand.answers.clone();
    answers.sort_by_key(|(proposal, _)| asked.iter().position(|asked| asked == proposal));
    let outcomes: Vec<Outcome> = answers.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Refused { reason: "no".into() },
            Outcome::Committed { index: 1.into(), zxid: id(1, 1) },
            Outcome::Unknown,
            Outcome::Unknown,
        ]
    );
    assert_eq!(hand.zab.propose(Command::set("k", "x")), Err(ProposeError::NoLeader));
}

#[test]
fn a_leader_that_loses_its_office_does_not_know() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    let first = hand.propose("a");
    hand.hear(conn, accept(1, id(1, 1)));
    let second = hand.propose("b");
    hand.handle(Event::Closed { conn });
    assert_eq!(hand.answers[0].0, first);
    assert_eq!(hand.answers[1], (second, Outcome::Unknown));
}

#[test]
fn requests_that_are_faster_than_the_last_quorum_wait_for_it() {
    let (mut hand, conns) = Hand::short_of_one(config(5, 5));
    hand.hear(conns[0], request(1, Op::SET));
    hand.hear(conns[0], request(2, Op::GET));
    assert!(hand.sent(conns[0]).is_empty() && !hand.is_serving());
    hand.hear(conns[1], Message::NewLeaderAck);
    assert!(hand.is_serving());
    let sent = hand.sent(conns[0]);
    let kinds: Vec<_> = sent.iter().map(Message::message_type).collect();
    assert_eq!(kinds, [MessageType::Abort, MessageType::Proposal]);
}

#[test]
fn requests_that_come_before_a_leader_is_established_are_bounded_in_bytes() {
    let tight = Config { proposals_bytes_max: 1_000, ..config(5, 5) };
    let (mut hand, conns) = Hand::short_of_one(tight);
    let ask = |hand: &mut Hand, number, length| {
        let command = Command::set("k", vec![b'x'; length]);
        hand.hear(conns[0], Message::Request(Request { id: number, command }));
        let sent = hand.sent(conns[0]);
        let refused =
            |sent: &Message| matches!(sent, Message::Abort { request, .. } if *request == number);
        !sent.iter().any(refused)
    };
    let taken: Vec<u64> = (1..=20).filter(|number| ask(&mut hand, *number, 200)).collect();
    assert_eq!(taken, [1, 2, 3, 4]);
    assert!(ask(&mut hand, 21, 50), "this one still fits");
    // With the last quorum they get their places, in the order they came, and there is room again.
    hand.hear(conns[1], Message::NewLeaderAck);
    assert!(hand.is_serving());
    let want: Vec<Zxid> = (1..=5).map(|counter| id(1, counter)).collect();
    assert_eq!(ids_in(&hand.sent(conns[0])), want);
    for (of, conn) in [(1, conns[0]), (2, conns[1])] {
        hand.hear(conn, accept(of, id(1, 5)));
    }
    assert_eq!(hand.committed, want);
}

#[test]
fn requests_outside_the_log() {
    // Nobody here to answer them.
    let (mut hand, conn) = Hand::leading(&Past::default());
    hand.hear(conn, request(7, Op(60)));
    let error = "No custom request handler".to_owned();
    let fid = member(1).message;
    let want = Message::Response { request: 7, fid: fid.clone(), error, content: None };
    assert_eq!(hand.sent(conn), [want]);
    let own = hand.zab.propose(Command { op: Op(60), ..Command::default() }).unwrap();
    hand.drive();
    assert!(matches!(&hand.answers[..], [(asked, Outcome::Answered { .. })] if *asked == own));

    // The application answers.
    let past = Past::default();
    let mut hand = Hand::new(Config { custom_requests: true, ..config(3, 3) }, &past);
    hand.elect(3, 3);
    let (conn, _) = hand.join(1, &past);
    hand.sent(conn);
    hand.hear(conn, request(7, Op(51)));
    let asked = hand.custom.pop().unwrap();
    assert_eq!((&asked.origin, asked.request.id), (&fid, 7));
    let content = Some(Bytes::from_static(b"yes"));
    let respond = |origin| Event::Respond {
        origin,
        request: 7,
        error: String::new(),
        content: content.clone(),
    };
    hand.handle(respond(asked.origin));
    let want =
        Message::Response { request: 7, fid, error: String::new(), content: content.clone() };
    assert_eq!(hand.sent(conn), [want]);
    hand.handle(respond("10.9.9.9:1".into())); // gone meanwhile
    assert_eq!(hand.zab.status().last.0, 0, "nothing of it is logged");

    // And the one who asked hears of it.
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    let asked = hand.zab.propose(Command { op: Op(51), ..Command::default() }).unwrap();
    hand.drive();
    let fid = member(1).message;
    let response = Message::Response { request: asked.0, fid, error: "e".into(), content };
    hand.hear(conn, response);
    let content = Some(Bytes::from_static(b"yes"));
    let outcome = Outcome::Answered { error: "e".into(), content };
    assert_eq!(hand.answers, [(asked, outcome)]);
}

/// A follower takes part before its leader is established.
#[test]
fn requests_outside_the_log_wait_for_an_established_leader_as_others_do() {
    let custom = Op(51);
    for resigns in [false, true] {
        let settings = Config { custom_requests: true, proposals_count_max: 3, ..config(5, 5) };
        let (mut hand, conns) = Hand::short_of_one(settings);
        for (number, op) in [(1, custom), (2, Op::SET), (3, custom)] {
            hand.hear(conns[0], request(number, op));
        }
        assert_eq!(hand.custom, [], "its history may not be committed yet");
        assert_eq!(hand.sent(conns[0]), []);
        // Bounded with the others.
        hand.hear(conns[0], request(4, custom));
        let abort = |request, why: ProposeError| {
            let (fid, error) = (member(1).message, why.to_string());
            Message::Abort { request, fid, error }
        };
        assert_eq!(hand.sent(conns[0]), [abort(4, ProposeError::NoLeader)]);
        let own = Command { op: custom, ..Command::default() };
        assert_eq!(hand.zab.propose(own.clone()), Err(ProposeError::NoLeader));

        if resigns {
            hand.handle(Event::Resign);
        }
        hand.hear(conns[1], Message::NewLeaderAck);
        let asked: Vec<u64> = hand.custom.iter().map(|asked| asked.request.id).collect();
        let sent = hand.sent(conns[0]);
        if resigns {
            assert_eq!(asked, []);
            let want = [1, 2, 3].map(|number| abort(number, ProposeError::Resigning));
            assert_eq!(sent, want);
        } else {
            assert_eq!(asked, [1, 3]);
            assert_eq!(ids_in(&sent), [id(1, 1)]);
            assert!(hand.zab.propose(own).is_ok());
        }
    }
}

#[test]
fn a_leader_resigns_before_its_counter_ends() {
    let past = Past::default();
    let short = Config { counter_reserve: u32::MAX - 3, ..config(3, 3) };
    let mut hand = Hand::new(short, &past);
    hand.elect(3, 3);
    let (conn, _) = hand.join(1, &past);
    for _ in 0..3 {
        hand.propose("x");
    }
    assert!(hand.notes.contains(&Note::Resigning { why: ResignReason::CounterEnds }));
    assert_eq!(hand.zab.propose(Command::set("k", "x")), Err(ProposeError::Resigning));
    hand.hear(conn, request(1, Op::SET));
    let sent = hand.sent(conn);
    assert!(matches!(sent.last(), Some(Message::Abort { .. })), "{sent:?}");
    assert_eq!(hand.role(), Role::Leading, "what it took is finished first");
    hand.hear(conn, accept(1, id(1, 3)));
    assert_eq!(hand.answers.len(), 3);
    let is_committed = |outcome: &Outcome| matches!(outcome, Outcome::Committed { .. });
    assert!(hand.answers.iter().all(|(_, outcome)| is_committed(outcome)), "no error to anybody");
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::Resigned }));
    assert_eq!(hand.sent(conn), [commit(id(1, 3))], "and the others know");
    // A new epoch begins, with a new counter.
    hand.elect(3, 3);
    hand.join(1, &Past::of_epoch(1, &[id(1, 1), id(1, 2), id(1, 3)], id(1, 3)));
    hand.propose("y");
    assert_eq!(hand.zab.status().last_zxid, id(2, 1));
}

/// Somebody who has no vote, or node 2 of three, goes through synchronization.
fn third(hand: &mut Hand, is_voting: bool) -> ConnId {
    if is_voting {
        return hand.join(2, &Past::default()).0;
    }
    let conn = hand.meet(FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) });
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(conn, Message::NewLeaderAck);
    conn
}

#[test]
fn a_slow_learner_does_not_keep_a_leader_from_resigning() {
    let tight = Config { connection_bytes_max: 1_000, ..config(3, 3) };
    for is_voting in [false, true] {
        let mut hand = Hand::new(tight.clone(), &Past::default());
        hand.elect(3, 3);
        let (voter, _) = hand.join(1, &Past::default());
        let slow = third(&mut hand, is_voting);
        hand.sent(slow);
        hand.is_net_held = true;
        for round in 1..=100 {
            hand.propose("x");
            let count = hand.sent(voter).len();
            hand.handle(Event::Written { conn: voter, count });
            hand.hear(voter, accept(1, id(1, round)));
        }
        assert_eq!(hand.committed.len(), 100);
        assert!(hand.sent(slow).len() < 40, "the rest of it has yet to be sent");
        let count = hand.sent(voter).len();
        hand.handle(Event::Written { conn: voter, count });
        hand.handle(Event::Resign);
        let left = Note::Left { why: LeaveReason::Resigned };
        assert!(hand.notes.contains(&left), "voting {is_voting}: {:?}", hand.notes);
    }
}

#[test]
fn a_leader_that_resigns_waits_for_a_quorum_to_hear_what_is_committed_but_not_for_long() {
    let tight = Config { connection_bytes_max: 10, ..config(3, 3) };
    let left = Note::Left { why: LeaveReason::Resigned };
    for takes in [true, false] {
        let mut hand = Hand::new(tight.clone(), &Past::default());
        hand.elect(3, 3);
        let (voter, _) = hand.join(1, &Past::default());
        hand.is_net_held = true;
        hand.propose("x");
        hand.hear(voter, accept(1, id(1, 1)));
        assert_eq!(hand.committed, [id(1, 1)]);
        hand.handle(Event::Resign);
        let began_ms = hand.now_ms;
        while hand.now_ms < began_ms + 5_000 {
            hand.pass(100);
            hand.handle(Event::Heard { conn: voter });
            hand.handle(Event::Written { conn: voter, count: 0 });
        }
        assert_eq!(hand.role(), Role::Leading, "nobody knows of the commit");
        let count = hand.sent(voter).len();
        match takes {
            true => hand.handle(Event::Written { conn: voter, count }),
            false => hand.pass(10),
        }
        assert!(hand.notes.contains(&left), "{:?}", hand.notes);
        let told = hand.sent(voter).contains(&commit(id(1, 1)));
        assert_eq!(told, takes);
    }
}
