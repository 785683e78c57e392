//! From an election to an epoch: who is counted, who is refused, and when an elected leader gives up.

use quorate_types::NodeId;
use quorate_zab::{
    CloseReason, Config, Epoch, Event, FollowerInfo, LeaderInfo, LeaveReason, Message, Note,
    ResignReason, Role, SyncPlan, Zxid, caps,
};

use crate::hand::{Hand, Past, ack, id, info, new_leader};
use crate::net::{config, member};

fn leader_info(epoch: u32) -> Message {
    Message::LeaderInfo(LeaderInfo { epoch: Epoch(epoch), caps: Some(caps::ALL) })
}

#[test]
fn the_epoch_is_above_all_promises_of_a_quorum() {
    for (own, other, want) in [(0, 0, 1), (4, 2, 5), (2, 6, 7)] {
        let past = Past { accepted_leader: Some(9), ..Past { accepted: own, ..Past::default() } };
        let mut hand = Hand::of_three(3, &past);
        hand.elect(3, 3);
        assert_eq!(hand.role(), Role::Leading);
        let conn = hand.meet(info(1, other));
        assert_eq!(hand.sent(conn), [leader_info(want)], "own {own}, other {other}");
    }
}

#[test]
fn leader_info_waits_for_the_leaders_own_promise() {
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    hand.is_disk_held = true;
    let conn = hand.meet(info(1, 0));
    assert!(hand.sent(conn).is_empty(), "its own promise is not durable");
    let written = hand.writes[0].hard_state.clone().unwrap();
    assert_eq!(written.accepted_epoch, Epoch(1));
    assert_eq!(written.accepted_leader, Some(member(3).message));
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [leader_info(1)]);
}

#[test]
fn new_leader_waits_for_the_leaders_current_epoch() {
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    let conn = hand.meet(info(1, 0));
    hand.sent(conn);
    hand.is_disk_held = true;
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    let sent = hand.sent(conn);
    assert!(sent.iter().all(|message| matches!(message, Message::LogEntry(_))), "{sent:?}");
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [new_leader(1)]);
}

#[test]
fn a_followers_promise_waits_for_its_disk() {
    let mut hand = Hand::of_three(1, &Past::default());
    hand.is_disk_held = true;
    let conn = hand.follow(3, 5, true);
    assert!(hand.sent(conn).is_empty());
    let written = hand.writes[0].hard_state.clone().unwrap();
    assert_eq!((written.accepted_epoch, written.current_epoch), (Epoch(5), Epoch(0)));
    assert_eq!(written.accepted_leader, Some(member(3).message));
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [ack(0, Zxid::ZERO, Zxid::ZERO)]);
}

#[test]
fn an_epoch_is_promised_to_one_leader() {
    // (accepted, promised to, offered by 3, follows)
    for (accepted, leader, offered, want) in [
        (4, Some(2), 5, true),
        (5, Some(3), 5, true),  // its own promise, repeated
        (5, Some(2), 5, false), // another's
        (5, None, 5, false),    // nobody knows whose
        (6, Some(3), 5, false), // a later one
    ] {
        let past = Past { accepted, accepted_leader: leader, ..Past::default() };
        let mut hand = Hand::of_three(1, &past);
        let conn = hand.follow(3, offered, true);
        let row = format!("{accepted} of {leader:?}, offered {offered}");
        assert_eq!(!hand.sent(conn).is_empty(), want, "{row}");
        assert_eq!(hand.is_open(conn), want, "{row}");
        let left = hand.notes.contains(&Note::Left { why: LeaveReason::Epoch });
        assert_eq!(left, !want, "{row}");
    }
}

#[test]
fn watchers_promise_nothing_and_follow_no_leader_of_the_past() {
    for (accepted, offered, want) in [(5, 5, true), (4, 5, true), (6, 5, false)] {
        let past = Past { accepted, accepted_leader: Some(2), ..Past::default() };
        let mut hand = Hand::new(config(4, 3), &past);
        hand.pass(10);
        for from in [1, 2, 3] {
            hand.hear_vote(from, answer(from, 5));
        }
        let conn = hand.connect_to(3);
        let sent = hand.sent(conn);
        assert!(matches!(&sent[..], [Message::FollowerInfo(info)] if !info.voting), "{sent:?}");
        hand.hear(conn, leader_info(offered));
        assert_eq!(hand.is_open(conn), want, "accepted {accepted}, offered {offered}");
    }
}

#[test]
fn a_watcher_passes_over_a_leader_that_it_followed_in_vain() {
    let soon = Config { backoff_ms: 100, backoff_ms_max: 100, ..config(4, 3) };
    let mut hand = Hand::new(soon, &Past::default());
    let mut tried_ms = Vec::new();
    while hand.now_ms < 120_000 {
        // It is all that the watcher reaches, and only on its election port.
        hand.hear_vote(3, answer(3, 5));
        hand.pass(100);
        for to in std::mem::take(&mut hand.connect) {
            tried_ms.push(hand.now_ms);
            hand.handle(Event::ConnectFailed { to });
        }
    }
    let waits_ms: Vec<u64> = tried_ms.windows(2).map(|two| two[1] - two[0]).collect();
    let [once, twice, thrice, ..] = waits_ms[..] else { panic!("it never gives up: {tried_ms:?}") };
    assert!((10_000..11_000).contains(&once), "one failure may be chance: {waits_ms:?}");
    assert!((20_000..21_000).contains(&twice), "{waits_ms:?}");
    assert!((40_000..41_000).contains(&thrice), "{waits_ms:?}");
    // Another that leads meanwhile it follows as soon as ever.
    let until_ms = hand.now_ms + 11_000;
    while hand.connect.is_empty() && hand.now_ms < until_ms {
        let candidate = member(2).election;
        hand.hear_vote(2, quorate_zab::Vote { candidate, ..answer(3, 6) });
        hand.pass(100);
    }
    assert_eq!(hand.connect, [member(2).message]);
}

fn answer(from: u64, epoch: u32) -> quorate_zab::Vote {
    use quorate_zab::PeerStatus::{Following, Leading};
    quorate_zab::Vote {
        round: 1,
        status: if from == 3 { Leading } else { Following },
        epoch: Epoch(epoch),
        candidate: member(3).election,
        ..quorate_zab::Vote::default()
    }
}

#[test]
fn the_epoch_of_a_leader_at_work_never_rises() {
    // Five voters; one leaves after the epoch was settled and another comes with a higher promise.
    let mut hand = Hand::new(config(5, 5), &Past::default());
    hand.elect(5, 5);
    let one = hand.meet(info(1, 0));
    let two = hand.meet(info(2, 0));
    assert_eq!(hand.sent(one), [leader_info(1)]);
    hand.sent(two);
    hand.handle(Event::Closed { conn: one });
    let again = hand.meet(info(1, 0));
    assert_eq!(hand.sent(again), [leader_info(1)]);
    let three = hand.meet(info(3, 7));
    assert!(hand.sent(three).is_empty());
    assert_eq!(hand.why_closed(three), Some(CloseReason::Outbid));
    assert_eq!(hand.role(), Role::Leading, "three of five are enough without it");
    assert_eq!(hand.zab.status().epoch, Some(Epoch(1)));
}

#[test]
fn a_leader_that_is_outbid_and_cannot_do_without_gives_up_at_once() {
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    let one = hand.meet(info(1, 0));
    hand.handle(Event::Closed { conn: one });
    let two = hand.meet(info(2, 7));
    assert_eq!(hand.why_closed(two), Some(CloseReason::Outbid));
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::OutOfReach }));
}

#[test]
fn a_voter_ahead_of_its_leader_is_refused() {
    // (own epoch and history, the voter's, taken)
    for (own, theirs, want) in [
        (Past::default(), Past::default(), true),
        (Past::default(), Past::of_epoch(5, &[id(5, 5)], Zxid::ZERO), false),
        (
            Past::of_epoch(2, &[id(1, 9)], Zxid::ZERO),
            Past::of_epoch(1, &[id(1, 9)], Zxid::ZERO),
            true,
        ),
        (
            // A history of an earlier epoch, however long, is less than one of a later.
            Past::of_epoch(2, &[id(2, 1)], Zxid::ZERO),
            Past { accepted: 2, ..Past::of_epoch(1, &[id(1, 1), id(1, 2)], Zxid::ZERO) },
            true,
        ),
        (
            Past::of_epoch(2, &[id(1, 1)], Zxid::ZERO),
            Past::of_epoch(2, &[id(1, 1), id(2, 1)], Zxid::ZERO),
            false,
        ),
    ] {
        let mut hand = Hand::of_three(3, &own);
        hand.elect(3, 3);
        let conn = hand.meet(info(1, theirs.accepted));
        let last = theirs.ids.last().copied().unwrap_or_default();
        hand.hear(conn, ack(theirs.current, last, Zxid::ZERO));
        assert_eq!(hand.is_open(conn), want, "{own:?} {theirs:?}");
        if !want {
            assert_eq!(hand.why_closed(conn), Some(CloseReason::Ahead));
            let gone = Note::Left { why: LeaveReason::OutOfReach };
            assert!(hand.notes.contains(&gone), "and there is nobody else");
        }
    }
}

#[test]
fn a_promise_made_to_another_leader_is_not_counted() {
    // Five voters. Two come, the epoch is settled; a third has promised it to somebody else.
    let setup = |leader: Option<u64>| {
        let mut hand = Hand::new(config(5, 5), &Past::default());
        hand.elect(5, 5);
        let one = hand.meet(info(1, 0));
        let two = hand.meet(info(2, 0));
        let accepted_leader = leader.map(|leader| member(leader).message);
        let three = hand.meet(FollowerInfo { accepted_leader, ..info(3, 1) });
        for conn in [three, one] {
            hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
        }
        let promised = Note::EpochPromised { epoch: Epoch(1) };
        let is_promised = hand.notes.contains(&promised);
        hand.hear(two, ack(0, Zxid::ZERO, Zxid::ZERO));
        assert!(hand.notes.contains(&promised), "three of five without it");
        is_promised
    };
    assert!(setup(Some(5)), "promised to this leader: it counts");
    assert!(!setup(Some(4)));
    assert!(!setup(None));
}

#[test]
fn a_leader_that_only_has_promises_of_another_gives_up_at_once() {
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    let first = hand.meet(info(1, 0));
    hand.sent(first);
    hand.handle(Event::Closed { conn: first });
    // It left, promised epoch 1 to another, and comes back.
    let accepted_leader = Some(member(2).message);
    hand.meet(FollowerInfo { accepted_leader, ..info(1, 1) });
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::OutOfReach }));
    // The next epoch is greater than the one in doubt.
    hand.elect(3, 3);
    let again = hand.meet(info(1, 1));
    assert_eq!(hand.sent(again), [leader_info(2)]);
}

#[test]
fn only_members_vote() {
    let (mut hand, _) = Hand::leading(&Past::default());
    let alien = FollowerInfo { fid: "10.9.9.9:1".into(), ..info(1, 0) };
    let conn = hand.meet(alien);
    assert_eq!(hand.why_closed(conn), Some(CloseReason::NotVoter));
    let conn = hand.meet(info(3, 0));
    assert_eq!(hand.why_closed(conn), Some(CloseReason::NotVoter), "the leader itself");
}

#[test]
fn the_newer_connection_of_a_voter_wins() {
    let (mut hand, old) = Hand::leading(&Past::default());
    let new = hand.meet(info(1, 1));
    assert_eq!(hand.why_closed(old), Some(CloseReason::Replaced));
    assert!(hand.is_open(new));
    // One that has said nothing yet replaces nobody.
    let (mut hand, old) = Hand::leading(&Past::default());
    hand.accept();
    assert!(hand.is_open(old));
}

#[test]
fn gometa_voters_are_refused_unless_allowed() {
    let gometa = || FollowerInfo { caps: None, accepted_leader: None, ..info(1, 0) };
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    let conn = hand.meet(gometa());
    assert_eq!(hand.why_closed(conn), Some(CloseReason::GometaVoter));
    // A watcher of gometa's is always welcome.
    let watcher = hand.meet(FollowerInfo { voting: false, ..gometa() });
    assert!(hand.is_open(watcher));

    let mixed = |of| Config { allow_gometa_voters: true, ..config(of, 3) };
    let mut hand = Hand::new(mixed(3), &Past::default());
    hand.elect(3, 3);
    let conn = hand.meet(gometa());
    assert!(hand.is_open(conn));
    assert!(hand.notes.contains(&Note::GometaVoter { peer: member(1).message }));

    let mut hand = Hand::of_three(1, &Past::default());
    let conn = hand.follow(3, 1, false);
    assert!(!hand.is_open(conn), "nor do our voters follow a gometa leader");
    let mut hand = Hand::new(mixed(1), &Past::default());
    let conn = hand.follow(3, 1, false);
    assert!(hand.is_open(conn));
}

#[test]
fn who_takes_gometa_voters_does_not_offer_to_answer_reads() {
    for (allow_gometa_voters, want) in [(false, caps::ALL), (true, caps::ALL & !caps::READ)] {
        let config = Config { allow_gometa_voters, ..config(3, 3) };
        let mut hand = Hand::new(config, &Past::default());
        hand.elect(3, 3);
        // Whoever comes, and whether or not one of gometa's is there yet.
        let watcher = FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(9, 0) };
        for learner in [info(1, 0), watcher] {
            let conn = hand.meet(learner);
            let offer = LeaderInfo { epoch: Epoch(1), caps: Some(want) };
            let sent = hand.sent(conn);
            assert_eq!(sent, [Message::LeaderInfo(offer)], "allowed: {allow_gometa_voters}");
        }
    }
}

#[test]
fn watchers_wait_for_each_quorum_and_are_in_none() {
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    let proposals = Some(caps::ALL & !caps::COMMIT_ONLY);
    let watcher =
        |fid: &str, caps| FollowerInfo { voting: false, fid: fid.into(), caps, ..info(1, 99) };
    let conn = hand.meet(watcher("10.9.9.9:2", proposals));
    let informed = hand.meet(watcher("10.9.9.8:2", Some(caps::ALL)));
    assert!(hand.sent(conn).is_empty(), "no epoch yet");
    let voter = hand.meet(info(1, 0));
    assert_eq!(hand.sent(conn), [leader_info(1)], "and its promise did not raise it");
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(informed, ack(0, Zxid::ZERO, Zxid::ZERO));
    assert!(hand.sent(conn).is_empty(), "no quorum has promised");
    hand.hear(voter, ack(0, Zxid::ZERO, Zxid::ZERO));
    assert_eq!(hand.sent(conn).last(), Some(&new_leader(1)));
    hand.hear(conn, Message::NewLeaderAck);
    assert!(!hand.is_serving(), "no quorum holds the history");
    assert_eq!(hand.sent(informed), [leader_info(1)], "nothing is known to be committed");
    hand.hear(voter, Message::NewLeaderAck);
    assert!(hand.is_serving());
    assert_eq!(hand.sent(informed).last(), Some(&new_leader(1)));
}

#[test]
fn a_leader_without_its_quorums_gives_up() {
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    hand.pass(9_900);
    assert_eq!(hand.role(), Role::Leading);
    hand.pass(200);
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::NotEstablished }));
}

#[test]
fn a_leader_that_stands_still_before_any_of_its_quorums_gives_up() {
    // (what comes of the first follower: nothing, its introduction, its promise; gives up after)
    for (steps, until_ms) in [(0, 10_000), (1, 19_000), (2, 28_000)] {
        // Its followers would have more patience.
        let patient = Config { sync_timeout_ms: 60_000, ..config(3, 3) };
        let mut hand = Hand::new(patient, &Past::default());
        hand.elect(3, 3);
        let began_ms = hand.now_ms;
        let mut conn = None;
        for step in 0..steps {
            hand.pass(9_000);
            match (step, conn) {
                (1, Some(conn)) => hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO)),
                _ => conn = Some(hand.meet(info(1, 0))),
            }
        }
        if let Some(conn) = conn {
            let last = hand.sent(conn).pop();
            let want = if steps == 1 { leader_info(1) } else { new_leader(1) };
            assert_eq!(last, Some(want), "quorum {steps} is there");
        }
        let settled = hand.notes.iter().any(|note| matches!(note, Note::EpochSettled { .. }));
        let promised = hand.notes.iter().any(|note| matches!(note, Note::EpochPromised { .. }));
        assert_eq!((settled, promised), (1 <= steps, 2 <= steps));
        hand.pass(began_ms + until_ms - hand.now_ms);
        let gave_up = Note::Left { why: LeaveReason::NotEstablished };
        assert!(!hand.notes.contains(&gave_up), "after {steps} quorums");
        hand.pass(50);
        assert!(hand.notes.contains(&gave_up), "after {steps} quorums: {:?}", hand.notes);
    }
}

#[test]
fn a_lone_member_leads_at_once_and_durably() {
    let mut hand = Hand::new(config(1, 1), &Past::of_epoch(4, &[id(4, 1)], Zxid::ZERO));
    hand.is_disk_held = true;
    hand.pass(10);
    assert_eq!(hand.role(), Role::Leading);
    assert!(!hand.is_serving(), "not before its epoch is durable");
    hand.sync_and_drive();
    assert!(hand.is_serving());
    assert_eq!(hand.committed, [id(4, 1)], "its history is committed");
    let status = hand.zab.status();
    assert_eq!((status.accepted_epoch, status.current_epoch), (Epoch(5), Epoch(5)));
}

#[test]
fn who_does_not_lead_takes_no_connections() {
    let (mut hand, _) = Hand::following(&Past::default(), 1);
    let conn = hand.accept();
    assert_eq!(hand.why_closed(conn), Some(CloseReason::NotLeading), "at once");

    // While it is open who leads, they wait for as long as that may take.
    let mut hand = Hand::of_three(3, &Past::default());
    hand.pass(10);
    let conn = hand.meet(info(1, 0));
    hand.pass(300);
    assert!(hand.is_open(conn));
    hand.pass(100);
    assert_eq!(hand.why_closed(conn), Some(CloseReason::Waiting));
    let early = hand.meet(info(1, 0));
    hand.elect(3, 3);
    assert_eq!(hand.sent(early), [leader_info(1)], "who was early is served");
    let mut hand = Hand::of_three(2, &Past::default());
    hand.pass(10);
    let early = hand.meet(info(1, 0));
    hand.elect(3, 3);
    assert_eq!(hand.why_closed(early), Some(CloseReason::NotLeading));
}

/// A watcher with a name of its own.
fn watcher(number: u64) -> FollowerInfo {
    let fid = format!("10.9.9.{number}:2").as_str().into();
    FollowerInfo { voting: false, fid, ..info(1, 0) }
}

/// Of three members, with few places for watchers.
fn with_few_places(of: u64) -> Hand {
    Hand::new(Config { connections_count_max: 2, ..config(of, 3) }, &Past::default())
}

#[test]
fn connections_are_bounded_and_the_oldest_stranger_makes_room() {
    let mut hand = with_few_places(3);
    hand.pass(10);
    // Two, and two more for each member.
    let conns: Vec<_> = (0..8).map(|_| hand.accept()).collect();
    assert_eq!(hand.closed, []);
    hand.hear(conns[1], Message::FollowerInfo(info(1, 0)));
    let late = hand.accept();
    assert_eq!(hand.closed, [conns[0]]);
    assert_eq!(hand.why_closed(conns[0]), Some(CloseReason::TooMany));
    // While it is open who leads all are strangers, but who has said that it is a member goes last.
    let later = hand.meet(watcher(1));
    assert_eq!(hand.closed, [conns[0], conns[2]]);
    for _ in 0..6 {
        hand.accept();
    }
    assert!(!hand.is_open(late) && hand.is_open(later) && hand.is_open(conns[1]));
    for _ in 0..7 {
        hand.meet(info(2, 0));
    }
    assert!(!hand.is_open(later) && hand.is_open(conns[1]));
    hand.accept();
    assert!(!hand.is_open(conns[1]), "the oldest, where all say so");
}

#[test]
fn connections_that_say_nothing_keep_no_voter_out() {
    // Of a node that still looks,
    let mut hand = with_few_places(3);
    hand.pass(10);
    for _ in 0..100 {
        hand.accept();
    }
    let early = hand.meet(info(1, 0));
    for number in 0..100 {
        hand.meet(watcher(number));
        hand.accept();
    }
    hand.elect(3, 3);
    assert_eq!(hand.sent(early), [leader_info(1)]);
    hand.hear(early, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(early, Message::NewLeaderAck);
    assert!(hand.is_serving());
    // and of a leader.
    for _ in 0..100 {
        hand.accept();
    }
    assert!(hand.is_open(early), "it has said who it is");
    hand.join(2, &Past::default());
    assert_eq!(hand.zab.status().active_ensemble_size, 3);
}

#[test]
fn watchers_keep_no_voter_out() {
    let mut hand = with_few_places(3);
    hand.elect(3, 3);
    let watchers = [1, 2].map(|number| hand.meet(watcher(number)));
    let refused = hand.meet(watcher(3));
    assert_eq!(hand.why_closed(refused), Some(CloseReason::TooMany));
    let (one, _) = hand.join(1, &Past::default());
    assert!(hand.is_serving(), "{:?}", hand.notes);
    hand.join(2, &Past::default());
    let (again, _) = hand.join(1, &Past { accepted: 1, ..Past::default() });
    assert_eq!(hand.why_closed(one), Some(CloseReason::Replaced));
    assert!(hand.is_open(again));
    assert_eq!(hand.zab.status().active_ensemble_size, 3);
    // A watcher that comes again has its place, and one that goes leaves it to another.
    let back = hand.meet(watcher(1));
    assert_eq!(hand.why_closed(watchers[0]), Some(CloseReason::Replaced));
    hand.handle(Event::Closed { conn: watchers[1] });
    let other = hand.meet(watcher(4));
    assert!(hand.is_open(back) && hand.is_open(other));
}

#[test]
fn who_has_no_address_for_a_name_is_not_let_in() {
    let name = |length: usize| quorate_zab::Address::from("x".repeat(length).as_str());
    let named = |length| FollowerInfo { fid: name(length), voting: false, ..info(1, 0) };
    for leads in [false, true] {
        let mut hand = Hand::of_three(3, &Past::default());
        hand.pass(10);
        if leads {
            hand.elect(3, 3);
        }
        let longest = hand.meet(named(1024));
        assert!(hand.is_open(longest), "leads {leads}");
        let promised = FollowerInfo { accepted_leader: Some(name(1025)), ..info(1, 0) };
        for info in [named(1025), promised] {
            let conn = hand.meet(info);
            assert_eq!(hand.why_closed(conn), Some(CloseReason::LongName), "leads {leads}");
        }
    }
}

#[test]
fn no_election_is_begun_after_the_last_epoch() {
    let past = Past { accepted: u32::MAX, accepted_leader: Some(3), ..Past::default() };
    let mut hand = Hand::of_three(3, &past);
    hand.pass(1000);
    assert!(hand.datagrams.is_empty());
    assert!(hand.notes.contains(&Note::LastEpoch));
    // And a voter that has promised it is of no use to a leader.
    let mut hand = Hand::of_three(3, &Past::default());
    hand.elect(3, 3);
    let conn = hand.meet(info(1, u32::MAX));
    assert_eq!(hand.why_closed(conn), Some(CloseReason::Outbid));
}

#[test]
fn a_leader_makes_way_for_a_voter_that_it_can_never_have() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    let outbid = hand.meet(info(2, 7));
    assert_eq!(hand.why_closed(outbid), Some(CloseReason::Outbid));
    for _ in 0..31 {
        hand.pass(1000);
        let pings = hand.sent(conn);
        if let Some(Message::Ping { number }) = pings.last() {
            hand.hear(conn, Message::Pong { number: *number });
        }
    }
    assert!(hand.notes.contains(&Note::Resigning { why: ResignReason::Outbid }));
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::Resigned }));
}

#[test]
fn a_plan_is_made_once_for_each_learner() {
    let (mut hand, _) = Hand::leading(&Past::default());
    let (_, sent) = hand.join(2, &Past { accepted: 1, ..Past::default() });
    let plans = hand.notes.iter().filter(|note| matches!(note, Note::Planned { .. })).count();
    assert_eq!(plans, 2);
    assert!(sent.len() >= 3, "{sent:?}");
    let plan = SyncPlan::Difference { after: 0.into() };
    assert!(hand.notes.contains(&Note::Planned { peer: member(2).message, plan }));
    assert_eq!(hand.zab.status().active_ensemble_size, 3);
    assert_eq!(hand.zab.status().leader, Some(NodeId(3)));
}
