//! Proposals, acceptance and commits on both sides, and what ends a connection.

use quorate_types::Index;
use quorate_zab::{
    Address, CloseReason, Command, Config, ConnId, Epoch, Event, FollowerInfo, KEEP_ALIVE_FID,
    LeaderInfo, LeaveReason, Message, Note, Op, Outcome, Proposal, ReadFailure, ReadId, Request,
    Role, Storage, Zxid, caps,
};

use crate::hand::{
    Hand, Past, accept, ack, begin, command, commit, end, entry, id, ids_in, info, inform,
    new_leader, proposal,
};
use crate::net::{config, member};

fn left(hand: &Hand) -> Option<LeaveReason> {
    hand.notes.iter().rev().find_map(|note| match note {
        Note::Left { why } => Some(*why),
        _ => None,
    })
}

// The follower.

#[test]
fn an_accept_waits_for_the_disk() {
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    hand.is_disk_held = true;
    hand.hear(conn, proposal(id(1, 1)));
    assert!(hand.sent(conn).is_empty());
    // A request of its own need not wait behind it.
    hand.propose("x");
    assert!(matches!(&hand.sent(conn)[..], [Message::Request(_)]));
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [accept(1, id(1, 1))]);
}

#[test]
fn proposals_and_commits_right_behind_new_leader() {
    let mut hand = Hand::of_three(1, &Past::default());
    let conn = hand.follow(3, 1, true);
    hand.sent(conn);
    for message in [
        begin(Zxid::ZERO, Zxid::ZERO),
        end(Zxid::ZERO),
        new_leader(1),
        proposal(id(1, 1)),
        proposal(id(1, 2)),
        commit(id(1, 1)),
    ] {
        hand.hear(conn, message);
    }
    let want = [Message::NewLeaderAck, accept(1, id(1, 1)), accept(1, id(1, 2))];
    assert_eq!(hand.sent(conn), want);
    assert_eq!(hand.committed, [id(1, 1)]);
}

#[test]
fn a_commit_of_a_streamed_entry_after_a_live_proposal() {
    let mut hand = Hand::of_three(1, &Past::default());
    let conn = hand.follow(3, 1, true);
    for message in [
        begin(Zxid::ZERO, Zxid::ZERO),
        entry(id(1, 1)),
        end(Zxid::ZERO),
        new_leader(1),
        proposal(id(1, 2)),
        commit(id(1, 1)),
    ] {
        hand.hear(conn, message);
    }
    assert!(hand.is_open(conn));
    assert_eq!(hand.committed, [id(1, 1)]);
    hand.hear(conn, commit(id(1, 2)));
    assert_eq!(hand.committed, [id(1, 1), id(1, 2)]);
}

#[test]
fn only_the_next_proposal_is_taken() {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2)], id(1, 1));
    for (zxid, want) in [
        (id(2, 1), None),
        (id(1, 2), Some(LeaveReason::Gap)), // of an earlier epoch: it was streamed
        (id(2, 2), Some(LeaveReason::Gap)),
        (id(2, 7), Some(LeaveReason::Gap)),
        (id(3, 1), Some(LeaveReason::Gap)),
        (id(1, 3), Some(LeaveReason::Gap)),
    ] {
        let (mut hand, conn) = Hand::following(&past, 2);
        hand.hear(conn, proposal(zxid));
        assert_eq!(left(&hand), want, "{zxid}");
        if want.is_some() {
            assert_eq!(hand.storage.last_index().unwrap().0, 2, "{zxid}");
        }
    }
}

#[test]
fn a_proposal_that_comes_twice_is_accepted_twice() {
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    hand.hear(conn, proposal(id(1, 1)));
    hand.hear(conn, proposal(id(1, 2)));
    hand.sent(conn);
    hand.hear(conn, proposal(id(1, 1)));
    assert_eq!(hand.sent(conn), [accept(1, id(1, 1))]);
    assert_eq!(hand.storage.last_index().unwrap().0, 2);
    // With another content it is a lie of somebody.
    let (fid, request) = (Address::default(), 0);
    let other = Proposal { zxid: id(1, 1), fid, request, command: command(id(9, 9)) };
    hand.hear(conn, Message::Proposal(other));
    assert!(hand.notes.contains(&Note::Diverged { zxid: id(1, 1) }));
    assert!(!hand.is_open(conn));
    let kept = hand.storage.entries(1.into(), 2.into(), 0).unwrap();
    assert_eq!(kept[0].command, command(id(1, 1)), "what is there stays");
}

#[test]
fn commits_go_up_to_what_they_name_and_no_further() {
    for (zxid, want, leaves) in [
        (id(1, 1), 1, false),
        (id(1, 3), 3, false),   // all up to it
        (id(1, 4), 0, true),    // beyond the history
        (Zxid::ZERO, 0, false), // long since
        (id(2, 1), 0, true),
    ] {
        let (mut hand, conn) = Hand::following(&Past::default(), 1);
        for counter in 1..=3 {
            hand.hear(conn, proposal(id(1, counter)));
        }
        hand.hear(conn, commit(zxid));
        assert_eq!(hand.committed.len(), want, "{zxid}");
        assert_eq!(!hand.is_open(conn), leaves, "{zxid}");
        if !leaves {
            hand.hear(conn, commit(zxid));
            assert_eq!(hand.committed.len(), want, "{zxid} once more");
        }
    }
}

#[test]
fn a_committed_entry_is_applied_once_it_is_durable_here() {
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    hand.is_disk_held = true;
    hand.hear(conn, proposal(id(1, 1)));
    hand.hear(conn, commit(id(1, 1)));
    assert!(hand.committed.is_empty());
    hand.sync_and_drive();
    assert_eq!(hand.committed, [id(1, 1)]);
}

#[test]
fn no_other_message_commits_anything() {
    let alien: Address = "10.9.9.9:1".into();
    for message in [
        entry(id(1, 1)),
        accept(3, id(1, 1)),
        Message::NewLeaderAck,
        new_leader(1),
        Message::FollowerInfo(info(3, 0)),
        ack(1, id(1, 1), id(1, 1)),
        Message::Pong { number: 1 },
        Message::Vote(quorate_zab::Vote::default()),
        crate::hand::request(1, quorate_zab::Op::SET),
    ] {
        let (mut hand, conn) = Hand::following(&Past::default(), 1);
        hand.hear(conn, proposal(id(1, 1)));
        let kind = message.message_type();
        hand.hear(conn, message);
        assert!(hand.committed.is_empty(), "{kind:?}");
        assert_eq!(left(&hand), Some(LeaveReason::OutOfPlace(kind)));
    }
    // These are for somebody else, or for nobody.
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    let (error, content) = (String::new(), None);
    let response = Message::Response { request: 0, fid: KEEP_ALIVE_FID.into(), error, content };
    hand.hear(conn, response);
    hand.hear(conn, Message::Abort { request: 9, fid: alien, error: "no".into() });
    assert!(hand.is_open(conn) && hand.answers.is_empty());
}

#[test]
fn a_follower_leaves_a_silent_leader() {
    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    hand.pass(4_900);
    hand.hear(conn, Message::Ping { number: 1 });
    assert_eq!(hand.sent(conn), [Message::Pong { number: 1 }]);
    hand.pass(4_900);
    assert!(hand.is_open(conn));
    hand.datagrams.clear();
    hand.pass(200);
    assert_eq!(left(&hand), Some(LeaveReason::Silent));
    assert_eq!(hand.role(), Role::Looking);
    assert!(!hand.datagrams.is_empty(), "and looks for another at once");
}

#[test]
fn a_gometa_leader_is_asked_on_its_election_port() {
    use quorate_zab::{Epoch, LeaderInfo, LogEntry, PeerStatus, Vote};
    let mixed = Config { allow_gometa_voters: true, ..config(1, 3) };
    let follow = || {
        let mut hand = Hand::new(mixed.clone(), &Past::default());
        hand.elect(3, 3);
        let conn = hand.connect_to(3);
        hand.hear(conn, Message::LeaderInfo(LeaderInfo { epoch: Epoch(1), caps: None }));
        hand.hear(conn, Message::LogEntry(LogEntry::begin(Zxid::ZERO, None)));
        hand.hear(conn, end(Zxid::ZERO));
        hand.hear(conn, new_leader(1));
        hand.sent(conn);
        hand.datagrams.clear();
        (hand, conn)
    };
    let (mut hand, conn) = follow();
    hand.pass(600);
    let (to, vote) = hand.datagrams.pop().unwrap();
    assert_eq!((to, vote.solicit, vote.status), (member(3).election, true, PeerStatus::Electing));
    let sign = Message::Accept { zxid: Zxid::ZERO, fid: member(1).message };
    assert_eq!(hand.sent(conn), [sign], "and shown a sign of life");
    let answer = Vote {
        status: PeerStatus::Leading,
        candidate: member(3).election,
        epoch: Epoch(1),
        round: 1,
        ..Vote::default()
    };
    hand.hear_vote(3, answer);
    hand.pass(4_900);
    assert!(hand.is_open(conn));
    hand.pass(300);
    assert_eq!(left(&hand), Some(LeaveReason::Silent), "it answered once, and then no more");
    // One that never answered at all may have lost its port to a stray datagram.
    let (mut hand, conn) = follow();
    hand.pass(20_000);
    assert!(hand.is_open(conn));
    let noted = Note::ElectionPortSilent { peer: member(3).election };
    assert_eq!(hand.notes.iter().filter(|note| **note == noted).count(), 1);
}

#[test]
fn no_signs_of_life_pile_up_behind_a_slow_disk() {
    let mixed = Config { allow_gometa_voters: true, ..config(1, 3) };
    let mut hand = Hand::new(mixed, &Past::default());
    let conn = hand.follow(3, 1, false);
    for message in [end(Zxid::ZERO), new_leader(1)] {
        hand.hear(conn, message);
    }
    hand.sent(conn);
    hand.is_disk_held = true;
    hand.hear(conn, proposal(id(1, 1)));
    hand.pass(4_000);
    assert!(hand.sent(conn).is_empty());
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [accept(1, id(1, 1))], "that shows well enough that it lives");
    hand.pass(600);
    assert_eq!(hand.sent(conn), [accept(1, Zxid::ZERO)]);
}

// The leader.

#[test]
fn a_quorum_of_disks_commits() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    hand.is_disk_held = true;
    hand.propose("a");
    assert!(matches!(&hand.sent(conn)[..], [Message::Proposal(_)]), "before its own disk has it");
    hand.hear(conn, accept(1, id(1, 1)));
    assert!(hand.sent(conn).is_empty(), "one disk of three");
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [commit(id(1, 1))]);
    // And the other way round.
    hand.is_disk_held = false;
    hand.propose("b");
    hand.sent(conn);
    assert!(hand.committed.len() == 1, "its own disk alone");
    hand.hear(conn, accept(1, id(1, 2)));
    assert_eq!(hand.committed, [id(1, 1), id(1, 2)]);
}

#[test]
fn an_accept_stands_for_all_before_it() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    for _ in 0..3 {
        hand.propose("x");
    }
    hand.sent(conn);
    hand.hear(conn, accept(1, id(1, 2)));
    assert_eq!(hand.sent(conn), [commit(id(1, 2))]);
    hand.hear(conn, accept(1, id(1, 1)));
    hand.hear(conn, accept(1, id(1, 2)));
    hand.hear(conn, accept(1, Zxid::ZERO));
    assert!(hand.is_open(conn) && hand.sent(conn).is_empty(), "late, or a sign of life");
}

#[test]
fn accepts_are_believed_from_whom_they_are() {
    let watcher = || FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) };
    for (from_watcher, message, why) in [
        (true, accept(1, id(1, 1)), CloseReason::OutOfPlace(quorate_zab::MessageType::Accept)),
        (false, accept(2, id(1, 1)), CloseReason::BadAccept), // in another's name
        (false, accept(1, id(1, 2)), CloseReason::BadAccept), // never proposed
        (false, accept(1, id(3, 2)), CloseReason::BadAccept),
        (false, proposal(id(1, 1)), CloseReason::OutOfPlace(quorate_zab::MessageType::Proposal)),
        (false, commit(id(1, 1)), CloseReason::OutOfPlace(quorate_zab::MessageType::Commit)),
    ] {
        let (mut hand, voter) = Hand::leading(&Past::default());
        hand.join(2, &Past { accepted: 1, ..Past::default() });
        let conn = hand.meet(watcher());
        hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
        hand.hear(conn, Message::NewLeaderAck);
        hand.propose("x");
        let from = if from_watcher { conn } else { voter };
        hand.hear(from, message.clone());
        assert_eq!(hand.why_closed(from), Some(why), "{message:?}");
        assert!(hand.committed.is_empty(), "{message:?}");
        assert!(hand.is_serving(), "the leadership stands: {message:?}");
    }
}

#[test]
fn a_leader_without_a_quorum_ends_at_once() {
    let mut hand = Hand::new(config(5, 5), &Past::default());
    hand.elect(5, 5);
    let conns = [1, 2, 3].map(|of| hand.meet(info(of, 0)));
    for conn in conns {
        hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    }
    for conn in conns {
        hand.hear(conn, Message::NewLeaderAck);
    }
    assert!(hand.is_serving());
    hand.handle(Event::Closed { conn: conns[0] });
    assert!(hand.is_serving(), "three of five");
    let watcher = FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) };
    let conn = hand.meet(watcher);
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(conn, Message::NewLeaderAck);
    hand.handle(Event::Closed { conn: conns[1] });
    assert_eq!(left(&hand), Some(LeaveReason::QuorumLost), "a watcher makes no quorum");
}

#[test]
fn two_acknowledgements_at_once_establish_a_leader_of_five() {
    let mut hand = Hand::new(config(5, 5), &Past::default());
    hand.elect(5, 5);
    let conns = [1, 2].map(|of| hand.meet(info(of, 0)));
    for conn in conns {
        hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    }
    for conn in conns {
        hand.hear(conn, Message::NewLeaderAck);
        assert_eq!(hand.role(), Role::Leading);
    }
    assert!(hand.is_serving());
}

#[test]
fn those_who_do_not_go_on_are_given_up() {
    let (mut hand, voter) = Hand::leading(&Past::default());
    let idle = hand.accept();
    let (other, _) = hand.join(2, &Past { accepted: 1, ..Past::default() });
    // An idle connection hinders nobody, and ends.
    for round in 0..1_000_u32 {
        hand.propose("x");
        hand.hear(voter, accept(1, id(1, round + 1)));
    }
    assert_eq!(hand.committed.len(), 1_000);
    for _ in 0..11 {
        hand.pass(1_000);
        for conn in [voter, other] {
            for message in hand.sent(conn) {
                match message {
                    Message::Ping { number } => hand.hear(conn, Message::Pong { number }),
                    Message::Proposal(of) if conn == other => {
                        hand.hear(conn, accept(2, of.zxid));
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!(hand.why_closed(idle), Some(CloseReason::Silent));
    assert!(hand.is_open(voter) && hand.is_open(other));
    // One that answers but accepts nothing.
    hand.propose("y");
    hand.hear(voter, accept(1, id(1, 1_001)));
    for _ in 0..6 {
        hand.pass(1_000);
        for conn in [voter, other] {
            for message in hand.sent(conn) {
                if let Message::Ping { number } = message {
                    hand.hear(conn, Message::Pong { number });
                }
            }
        }
    }
    assert_eq!(hand.why_closed(other), Some(CloseReason::NotAccepting));
    assert!(hand.is_serving());
    // And one that is silent altogether.
    hand.pass(5_600);
    assert_eq!(hand.why_closed(voter), Some(CloseReason::Silent));
    assert_eq!(left(&hand), Some(LeaveReason::QuorumLost));
}

/// Of node 3: a window of some thirty short entries, and a hundred that a learner may be behind.
fn tight() -> Config {
    Config {
        connection_bytes_max: 1_000,
        behind_count_max: 100,
        proposals_count_max: 100,
        ..config(3, 3)
    }
}

#[test]
fn a_learner_that_takes_nothing_is_given_up_and_slows_nobody() {
    let mut hand = Hand::new(tight(), &Past::default());
    hand.elect(3, 3);
    let (voter, _) = hand.join(1, &Past::default());
    let slow = hand.meet(FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) });
    hand.hear(slow, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(slow, Message::NewLeaderAck);
    hand.is_net_held = true;
    for round in 0..300_u32 {
        hand.propose("x");
        let count = hand.sent(voter).len();
        hand.handle(Event::Written { conn: voter, count });
        hand.hear(voter, accept(1, id(1, round + 1)));
    }
    assert_eq!(hand.committed.len(), 300, "nobody waits for it");
    assert!(hand.sent(slow).len() < 40, "and it is sent no more than fits");
    hand.pass(10);
    assert_eq!(hand.why_closed(slow), Some(CloseReason::Behind));
}

/// The next tick may be far away.
#[test]
fn a_learner_that_falls_too_far_behind_is_given_up_at_once() {
    let mut hand = Hand::new(tight(), &Past::default());
    hand.elect(3, 3);
    let (fast, _) = hand.join(1, &Past::default());
    let (slow, _) = hand.join(2, &Past::default());
    hand.sent(slow);
    hand.is_net_held = true;
    let (mut count, mut sent) = (0, 0);
    while count < sent + 100 {
        assert!(hand.now_ms < hand.zab.wake_ms(), "nothing is due after {count}");
        hand.propose("x");
        count += 1;
        sent += ids_in(&hand.sent(slow)).len();
        let written = hand.sent(fast).len();
        hand.handle(Event::Written { conn: fast, count: written });
        hand.hear(fast, accept(1, id(1, count as u32)));
    }
    hand.handle(Event::Closed { conn: fast });
    assert!(hand.is_serving() && hand.is_open(slow), "it may be as far behind as that");
    assert!(hand.now_ms < hand.zab.wake_ms());
    hand.propose("x");
    assert_eq!(hand.why_closed(slow), Some(CloseReason::Behind));
    assert_eq!(left(&hand), Some(LeaveReason::QuorumLost), "in the same step");
}

/// It takes a whole window at a time. Just when it is as far behind as anybody may be, more is written.
#[test]
fn a_learner_that_catches_up_is_not_given_up_on_its_way() {
    for written in 1..25 {
        let mut hand = Hand::new(tight(), &Past::default());
        hand.elect(3, 3);
        let (voter, _) = hand.join(1, &Past::default());
        let mut last = 0;
        let mut write = |hand: &mut Hand, count: u32| {
            for _ in 0..count {
                last += 1;
                hand.propose("x");
                let count = hand.sent(voter).len();
                hand.handle(Event::Written { conn: voter, count });
                hand.hear(voter, accept(1, id(1, last)));
            }
        };
        let slow =
            hand.meet(FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) });
        hand.hear(slow, ack(0, Zxid::ZERO, Zxid::ZERO));
        hand.is_net_held = true;
        write(&mut hand, 600);
        hand.hear(slow, Message::NewLeaderAck);
        for round in 0..100 {
            write(&mut hand, written);
            let count = hand.sent(slow).len();
            hand.handle(Event::Written { conn: slow, count });
            let why = hand.why_closed(slow);
            assert!(hand.is_open(slow), "{written} a round, round {round}: {why:?}");
        }
    }
}

/// Much may be written while a learner is brought up to date.
#[test]
fn a_learner_that_is_far_behind_when_it_takes_part_is_let_catch_up() {
    let mut hand = Hand::new(tight(), &Past::default());
    hand.elect(3, 3);
    let (voter, _) = hand.join(1, &Past::default());
    let write = |hand: &mut Hand, before: u32, count: u32| {
        for round in 1..=count {
            hand.propose("x");
            let count = hand.sent(voter).len();
            hand.handle(Event::Written { conn: voter, count });
            hand.hear(voter, accept(1, id(1, before + round)));
        }
    };
    let slow = hand.meet(FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) });
    hand.hear(slow, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.is_net_held = true;
    write(&mut hand, 0, 300);
    hand.hear(slow, Message::NewLeaderAck);
    hand.pass(10);
    assert!(hand.is_open(slow), "{:?}", hand.why_closed(slow));
    let take = |hand: &mut Hand| {
        let sent = hand.sent(slow);
        hand.handle(Event::Written { conn: slow, count: sent.len() });
        sent
    };
    // Who asked for what is forgotten where it lags behind: it asks for nothing until it is there.
    let command = Command::set("k", "v");
    hand.hear(slow, Message::Request(Request { id: 7, command: command.clone() }));
    let refused = |sent: &Message| matches!(sent, Message::Abort { request: 7, .. });
    assert!(take(&mut hand).iter().any(refused));
    while !take(&mut hand).is_empty() {}
    hand.pass(10);
    hand.hear(slow, Message::Request(Request { id: 8, command }));
    hand.hear(voter, accept(1, id(1, 301)));
    let is_its = |sent: &Message| matches!(sent, Message::Inform(entry) if entry.request == 8);
    assert!(take(&mut hand).iter().any(is_its));
    // From now on it may fall behind no more than anybody else.
    write(&mut hand, 301, 150);
    hand.pass(10);
    assert_eq!(hand.why_closed(slow), Some(CloseReason::Behind));
}

#[test]
fn gometa_learners_are_shown_signs_of_life() {
    let (mut hand, _) = Hand::leading(&Past::default());
    let watcher = FollowerInfo { caps: None, voting: false, ..info(1, 0) };
    let conn = hand.meet(FollowerInfo { fid: "10.9.9.9:2".into(), ..watcher });
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(conn, Message::NewLeaderAck);
    hand.sent(conn);
    hand.pass(600);
    let sent = hand.sent(conn);
    assert!(
        matches!(&sent[..], [Message::Response { request: 0, fid, .. }] if fid.as_str() == "hb"),
        "{sent:?}"
    );
    // And one of a watcher is taken no notice of.
    hand.hear(conn, Message::NewLeaderAck);
    assert!(hand.is_open(conn));
}

// Reads.

#[test]
fn a_read_is_confirmed_by_a_quorum_that_still_follows() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    hand.propose("x");
    hand.hear(conn, accept(1, id(1, 1)));
    hand.sent(conn);
    hand.zab.read(ReadId(1));
    hand.zab.read(ReadId(2));
    hand.drive();
    let sent = hand.sent(conn);
    let numbers: Vec<u64> = sent
        .iter()
        .filter_map(|message| match message {
            Message::Ping { number } => Some(*number),
            _ => None,
        })
        .collect();
    assert!(hand.reads.is_empty());
    // An answer to a question of before confirms nothing.
    hand.hear(conn, Message::Pong { number: numbers[0] - 1 });
    assert!(hand.reads.is_empty());
    hand.hear(conn, Message::Pong { number: numbers[0] });
    assert_eq!(hand.reads, [(ReadId(1), Ok(1.into()))]);
    hand.hear(conn, Message::Pong { number: *numbers.last().unwrap() });
    assert_eq!(hand.reads.len(), 2);
    // A number that was never sent confirms nothing either.
    hand.hear(conn, Message::Pong { number: u64::MAX });
    hand.zab.read(ReadId(3));
    hand.drive();
    assert_eq!(hand.reads.len(), 2);
    hand.handle(Event::Closed { conn });
    assert_eq!(hand.reads[2], (ReadId(3), Err(ReadFailure::NoLeader)));
}

#[test]
fn reads_of_followers_are_answered_by_the_leader() {
    let (mut hand, conn) = Hand::leading(&Past::default());
    hand.sent(conn);
    hand.hear(conn, Message::ReadIndex { id: 7 });
    let Some(Message::Ping { number }) = hand.sent(conn).last().cloned() else {
        panic!("no round was begun");
    };
    hand.hear(conn, Message::Pong { number });
    let index = Some(0.into());
    assert_eq!(hand.sent(conn), [Message::ReadIndexReply { id: 7, index }]);

    let (mut hand, conn) = Hand::following(&Past::default(), 1);
    hand.zab.read(ReadId(5));
    hand.drive();
    let Some(Message::ReadIndex { id }) = hand.sent(conn).last().cloned() else {
        panic!("the leader was not asked");
    };
    hand.hear(conn, Message::ReadIndexReply { id, index: Some(4.into()) });
    hand.hear(conn, Message::ReadIndexReply { id, index: Some(5.into()) });
    assert_eq!(hand.reads, [(ReadId(5), Ok(4.into()))]);
    hand.zab.read(ReadId(6));
    hand.handle(Event::Closed { conn });
    assert_eq!(hand.reads[1], (ReadId(6), Err(ReadFailure::NoLeader)));
    hand.zab.read(ReadId(8));
    hand.drive();
    assert_eq!(hand.reads[2], (ReadId(8), Err(ReadFailure::NoLeader)));
}

/// What is not committed yet is nothing that such a watcher lags behind.
#[test]
fn a_watcher_that_is_told_of_commits_hears_what_became_of_its_request_however_late() {
    let tight = Config {
        connection_bytes_max: 1_000_000,
        behind_count_max: 100,
        proposals_count_max: 10,
        ..config(3, 3)
    };
    let mut hand = Hand::new(tight, &Past::default());
    hand.elect(3, 3);
    let (voter, _) = hand.join(1, &Past::default());
    let watcher = FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(9, 0) };
    let slow = hand.meet(watcher);
    hand.hear(slow, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(slow, Message::NewLeaderAck);
    hand.sent(slow);
    hand.is_net_held = true;
    let take = |hand: &mut Hand, conn| {
        let sent = hand.sent(conn);
        hand.handle(Event::Written { conn, count: sent.len() });
        sent
    };
    // All that may be on the way to it.
    hand.zab.propose(Command::set("k", vec![0_u8; 1_000_000])).unwrap();
    hand.drive();
    hand.hear(slow, Message::Request(Request { id: 7, command: Command::set("k", "v") }));
    take(&mut hand, voter);
    hand.hear(voter, accept(1, id(1, 2)));
    for counter in 3..=104 {
        hand.propose("x");
        take(&mut hand, voter);
        if counter <= 96 {
            hand.hear(voter, accept(1, id(1, counter)));
        }
    }
    hand.pass(10);
    assert!(hand.is_open(slow), "{:?}", hand.why_closed(slow));
    let mut has_heard = false;
    loop {
        let sent = take(&mut hand, slow);
        if sent.is_empty() {
            break;
        }
        has_heard |= sent.iter().any(|sent| matches!(sent, Message::Inform(it) if it.request == 7));
    }
    assert!(has_heard);
}

/// A follower takes part before its leader is established.
#[test]
fn reads_that_come_before_a_leader_is_established_wait_for_that() {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2)], id(1, 1));
    let mut hand = Hand::new(config(5, 5), &past);
    hand.elect(5, 5);
    let (one, two) = (hand.meet(info(1, 1)), hand.meet(info(2, 1)));
    for conn in [one, two] {
        hand.hear(conn, ack(1, id(1, 2), id(1, 1)));
    }
    hand.hear(one, Message::NewLeaderAck);
    hand.hear(one, Message::ReadIndex { id: 7 });
    hand.zab.read(ReadId(1));
    hand.drive();
    let pongs = |hand: &mut Hand, conn| {
        let sent = hand.sent(conn);
        for message in &sent {
            if let Message::Ping { number } = message {
                hand.hear(conn, Message::Pong { number: *number });
            }
        }
        sent
    };
    let is_answer = |sent: &Message| matches!(sent, Message::ReadIndexReply { .. });
    assert!(!pongs(&mut hand, one).iter().any(is_answer));
    assert_eq!((hand.is_serving(), &hand.reads[..]), (false, &[][..]));

    hand.hear(two, Message::NewLeaderAck);
    assert!(hand.is_serving());
    pongs(&mut hand, one);
    pongs(&mut hand, two);
    // All of its history, of which not all was known to be committed when they were asked.
    let index = Some(2.into());
    assert!(hand.sent(one).contains(&Message::ReadIndexReply { id: 7, index }));
    assert_eq!(hand.reads, [(ReadId(1), Ok(2.into()))]);
}

fn barrier(message: &Message) -> bool {
    let (Message::Proposal(Proposal { command, .. }) | Message::Request(Request { command, .. })) =
        message
    else {
        return false;
    };
    command.op == Op::SET && &*command.key == "barrier" && command.content.is_empty()
}

/// Node 3 of three leads, with node 1 beside it, which is gometa's.
fn leading_gometa(barrier_key: Option<&str>) -> (Hand, ConnId) {
    let barrier_key = barrier_key.map(Into::into);
    let config = Config { allow_gometa_voters: true, barrier_key, ..config(3, 3) };
    let mut hand = Hand::new(config, &Past::default());
    hand.elect(3, 3);
    let conn = hand.meet(FollowerInfo { caps: None, accepted_leader: None, ..info(1, 0) });
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    hand.hear(conn, Message::NewLeaderAck);
    assert!(hand.is_serving(), "{:?}", hand.notes);
    hand.sent(conn);
    (hand, conn)
}

#[test]
fn a_read_among_gometa_voters_waits_for_a_transaction_of_its_own() {
    let (mut hand, conn) = leading_gometa(Some("barrier"));
    hand.zab.read(ReadId(1));
    hand.drive();
    assert!(hand.sent(conn).iter().any(barrier));
    // What comes after it was proposed may have been committed before by nobody that it tells of.
    hand.zab.read(ReadId(2));
    hand.drive();
    assert!(!hand.sent(conn).iter().any(barrier), "one at a time");
    assert_eq!(hand.reads, []);
    hand.hear(conn, accept(1, id(1, 1)));
    assert_eq!(hand.reads, [(ReadId(1), Ok(1.into()))]);
    assert!(hand.sent(conn).iter().any(barrier), "for all who came meanwhile");
    hand.hear(conn, accept(1, id(1, 2)));
    assert_eq!(hand.reads[1..], [(ReadId(2), Ok(2.into()))]);
    loses_its_reads(&mut hand, conn);

    let (mut hand, _) = leading_gometa(None);
    hand.zab.read(ReadId(1));
    hand.drive();
    assert_eq!(hand.reads, [(ReadId(1), Err(ReadFailure::Unsupported))]);
}

/// With a connection it loses a read whose transaction is under way, and one that waits for the next.
fn loses_its_reads(hand: &mut Hand, conn: ConnId) {
    hand.reads.clear();
    hand.zab.read(ReadId(3));
    hand.zab.read(ReadId(4));
    hand.drive();
    hand.handle(Event::Closed { conn });
    let lost = Err(ReadFailure::NoLeader);
    assert_eq!(hand.reads, [(ReadId(4), lost), (ReadId(3), lost)]);
    assert_eq!(hand.answers, [], "nobody asked for a transaction");
}

/// Node 1 of three follows 3, which is gometa's, in epoch 1.
fn following_gometa() -> (Hand, ConnId) {
    following(None, Some("barrier"))
}

/// Node 1 of three follows 3 in epoch 1, which offers `caps`.
fn following(caps: Option<u64>, barrier_key: Option<&str>) -> (Hand, ConnId) {
    let barrier_key = barrier_key.map(Into::into);
    let config = Config { allow_gometa_voters: true, barrier_key, ..config(1, 3) };
    let mut hand = Hand::new(config, &Past::default());
    hand.elect(3, 3);
    let conn = hand.connect_to(3);
    hand.hear(conn, Message::LeaderInfo(LeaderInfo { epoch: Epoch(1), caps }));
    for message in [begin(Zxid::ZERO, Zxid::ZERO), end(Zxid::ZERO), new_leader(1)] {
        hand.hear(conn, message);
    }
    hand.sent(conn);
    (hand, conn)
}

/// A follower has something to read; the transaction that it asks its leader for.
fn asks_for_barrier(hand: &mut Hand, conn: ConnId, read: ReadId) -> Request {
    hand.zab.read(read);
    hand.drive();
    let sent = hand.sent(conn);
    let Some(Message::Request(request)) = sent.into_iter().find(barrier) else {
        panic!("the leader was not asked");
    };
    request
}

/// As its leader proposes what node 1 has asked for.
fn proposal_of(zxid: Zxid, request: &Request) -> Message {
    let (fid, command) = (member(1).message, request.command.clone());
    Message::Proposal(Proposal { zxid, fid, request: request.id, command })
}

#[test]
fn a_follower_of_gometa_has_a_transaction_committed_for_its_reads() {
    let (mut hand, conn) = following_gometa();
    let request = asks_for_barrier(&mut hand, conn, ReadId(1));
    hand.hear(conn, proposal_of(id(1, 1), &request));
    assert_eq!(hand.reads, []);
    hand.hear(conn, commit(id(1, 1)));
    assert_eq!(hand.reads, [(ReadId(1), Ok(1.into()))]);

    let request = asks_for_barrier(&mut hand, conn, ReadId(2)).id;
    let fid = member(1).message;
    hand.hear(conn, Message::Abort { request, fid, error: "full".to_owned() });
    assert_eq!(hand.reads[1..], [(ReadId(2), Err(ReadFailure::Busy))]);
    loses_its_reads(&mut hand, conn);
}

#[test]
fn no_read_goes_by_the_place_that_another_names_among_gometa_voters() {
    // One that was offered no reads asks for some all the same, and a quorum would confirm them.
    let config = Config { allow_gometa_voters: true, ..config(3, 3) };
    let mut hand = Hand::new(config, &Past::default());
    hand.elect(3, 3);
    let (conn, _) = hand.join(1, &Past::default());
    hand.sent(conn);
    hand.hear(conn, Message::ReadIndex { id: 7 });
    hand.hear(conn, Message::Pong { number: 1 });
    hand.hear(conn, Message::Pong { number: 2 });
    let sent = hand.sent(conn);
    let is_answer = |message: &&Message| matches!(message, Message::ReadIndexReply { .. });
    let answers: Vec<&Message> = sent.iter().filter(is_answer).collect();
    assert_eq!(answers, [&Message::ReadIndexReply { id: 7, index: None }]);

    // Nor does one ask a leader of ours that does not offer it, or believe it.
    let offered = Some(caps::ALL & !caps::READ);
    let (mut hand, conn) = following(offered, Some("barrier"));
    let request = asks_for_barrier(&mut hand, conn, ReadId(1));
    hand.hear(conn, Message::ReadIndexReply { id: 1, index: Some(0.into()) });
    hand.hear(conn, proposal(id(1, 1)));
    hand.hear(conn, commit(id(1, 1)));
    assert_eq!(hand.reads, [], "its own transaction is not there yet");
    hand.hear(conn, proposal_of(id(1, 2), &request));
    hand.hear(conn, commit(id(1, 2)));
    assert_eq!(hand.reads, [(ReadId(1), Ok(2.into()))]);
    let (mut hand, conn) = following(offered, None);
    hand.zab.read(ReadId(1));
    hand.drive();
    assert_eq!(hand.sent(conn), []);
    assert_eq!(hand.reads, [(ReadId(1), Err(ReadFailure::Unsupported))]);
}

#[test]
fn a_leader_that_gets_nothing_committed_for_reads_is_given_up() {
    let gave_up = Note::Left { why: LeaveReason::TimedOut };
    // (how long it leads before the read, how long it then has)
    for (after_ms, patience_ms) in [(0, 15_000), (30_000, 5_000)] {
        for is_proposed in [false, true] {
            let (mut hand, conn) = following_gometa();
            hand.pass(after_ms);
            let request = asks_for_barrier(&mut hand, conn, ReadId(1));
            hand.zab.read(ReadId(2));
            if is_proposed {
                hand.hear(conn, proposal_of(id(1, 1), &request));
            }
            hand.pass(patience_ms);
            assert!(!hand.notes.contains(&gave_up), "after {after_ms}, {is_proposed}");
            assert_eq!(hand.reads, []);
            hand.pass(50);
            assert!(hand.notes.contains(&gave_up), "after {after_ms}, {is_proposed}");
            let lost = Err(ReadFailure::NoLeader);
            assert_eq!(hand.reads, [(ReadId(2), lost), (ReadId(1), lost)]);
        }
    }
}

#[test]
fn a_leader_is_not_given_up_while_reads_wait_for_this_node_alone() {
    let gave_up = Note::Left { why: LeaveReason::TimedOut };
    let (mut hand, conn) = following_gometa();
    hand.pass(30_000);
    let request = asks_for_barrier(&mut hand, conn, ReadId(1));
    hand.is_disk_held = true;
    hand.hear(conn, proposal_of(id(1, 1), &request));
    hand.pass(30_000);
    hand.is_disk_held = false;
    hand.sync_and_drive();
    assert!(hand.sent(conn).contains(&accept(1, id(1, 1))), "only now can its leader go on");
    hand.pass(4_900);
    // Committed, it is for the application, which takes its time.
    hand.zab.handle(Event::Received { conn, message: commit(id(1, 1)) }).unwrap();
    let committed = hand.zab.ready().unwrap().committed;
    assert_eq!(committed.len(), 1);
    hand.pass(30_000);
    assert_eq!((hand.reads.len(), hand.notes.contains(&gave_up)), (0, false));
    hand.handle(Event::Applied(1.into()));
    assert_eq!(hand.reads, [(ReadId(1), Ok(1.into()))]);
}

#[test]
fn a_lone_leader_confirms_its_reads_itself() {
    let mut hand = Hand::new(config(1, 1), &Past::default());
    hand.pass(10);
    hand.propose("x");
    hand.zab.read(ReadId(1));
    hand.drive();
    assert_eq!(hand.reads, [(ReadId(1), Ok(1.into()))]);
}

#[test]
fn a_watcher_of_ours_is_sent_what_is_committed_and_nothing_else() {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2)], id(1, 1));
    let watcher = |caps| FollowerInfo {
        voting: false,
        fid: "10.9.9.9:2".into(),
        caps: Some(caps),
        ..info(9, 0)
    };
    for (what, caps, is_informed) in [
        ("as it wants it", caps::ALL, true),
        ("one that does not say so", caps::ALL & !caps::COMMIT_ONLY, false),
    ] {
        let mut hand = Hand::of_three(3, &past);
        hand.elect(3, 3);
        // It comes before the leader is established, which then knows only that 1.2 is committed.
        let early = hand.meet(FollowerInfo { fid: "10.9.9.8:2".into(), ..watcher(caps) });
        let voter = hand.meet(info(1, 1));
        hand.hear(early, ack(0, Zxid::ZERO, Zxid::ZERO));
        hand.hear(voter, ack(1, id(1, 2), id(1, 2)));
        if !is_informed {
            hand.hear(early, Message::NewLeaderAck);
        }
        let first = hand.sent(early);
        assert_eq!(first.len() == 1, is_informed, "{what}: {first:?}");
        hand.hear(voter, Message::NewLeaderAck);
        assert!(hand.is_serving(), "{what}");
        let then = hand.sent(early);
        if is_informed {
            let both = [id(1, 1), id(1, 2)];
            let want = [
                begin(both[1], Zxid::ZERO),
                entry(both[0]),
                entry(both[1]),
                end(both[1]),
                new_leader(2),
            ];
            assert_eq!(then, want, "{what}");
            hand.hear(early, Message::NewLeaderAck);
        } else {
            assert_eq!(then, [commit(id(1, 2))], "{what}");
        }

        hand.propose("a");
        let late = hand.meet(watcher(caps));
        // It has 2.1 of an earlier connection on which it was sent proposals.
        let logged = if is_informed { id(2, 1) } else { id(1, 1) };
        hand.hear(late, ack(2, logged, id(1, 1)));
        hand.hear(late, Message::NewLeaderAck);
        hand.propose("b");
        let has = |sent: &[Message], zxid| ids_in(sent).contains(&zxid);
        let (sent, to_early) = (hand.sent(late), hand.sent(early));
        let kept = begin(id(1, 2), if is_informed { id(1, 2) } else { id(1, 1) });
        assert!(sent.contains(&kept), "{what}: {sent:?}");
        for zxid in [id(2, 1), id(2, 2)] {
            assert_eq!(has(&sent, zxid), !is_informed, "{what}");
            assert_eq!(has(&to_early, zxid), !is_informed, "{what}");
        }
        hand.hear(voter, accept(1, id(2, 2)));
        for conn in [early, late] {
            let sent = hand.sent(conn);
            match is_informed {
                true => {
                    let told = |message: &Message| matches!(message, Message::Inform(_));
                    assert!(sent.iter().all(told), "{what}: {sent:?}");
                    assert_eq!(ids_in(&sent), [id(2, 1), id(2, 2)], "{what}");
                }
                false => assert_eq!(sent, [commit(id(2, 2))], "{what}"),
            }
        }
        // A leader that resigns has told everybody.
        hand.handle(Event::Resign);
        assert_eq!(left(&hand), Some(LeaveReason::Resigned), "{what}");
    }
    // What it says that it has committed is not believed either.
    let (mut hand, _) = Hand::leading(&Past::default());
    hand.propose("x");
    let watcher = hand.meet(FollowerInfo { voting: false, fid: "10.9.9.9:2".into(), ..info(1, 0) });
    hand.hear(watcher, ack(0, id(9, 9), id(1, 1)));
    hand.hear(watcher, Message::NewLeaderAck);
    assert_eq!(hand.zab.status().commit, Index(0));
    // A voter is asked for its word first, whatever it says that it wants.
    let (mut hand, voter) = Hand::leading(&Past::default());
    hand.propose("x");
    assert!(matches!(&hand.sent(voter)[..], [Message::Proposal(_)]));
}

#[test]
fn a_watcher_of_ours_has_nothing_that_is_not_committed() {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2)], id(1, 1));
    for (wants, offers) in [(true, true), (true, false), (false, true)] {
        let watcher = Config { commit_only: wants, ..config(4, 3) };
        let offered = if offers { caps::ALL } else { caps::ALL & !caps::COMMIT_ONLY };
        let mut hand = Hand::new(watcher, &past);
        let (conn, sent) = hand.watch(2, Some(offered));
        let row = format!("wants {wants}, offers {offers}");
        if !(wants && offers) {
            assert_eq!(sent, [ack(1, id(1, 2), id(1, 1))], "{row}");
            let stream =
                [begin(id(1, 1), id(1, 2)), end(id(1, 1)), new_leader(2), commit(id(1, 2))];
            stream.into_iter().for_each(|message| hand.hear(conn, message));
            hand.hear(conn, proposal(id(2, 1)));
            assert_eq!(hand.committed, [id(1, 1), id(1, 2)], "{row}");
            hand.hear(conn, inform(id(2, 2)));
            assert!(!hand.is_open(conn), "{row}: it was never told that it would be informed");
            continue;
        }
        // What it had is not committed: the leader says so, and it goes.
        assert_eq!(sent, [ack(1, id(1, 2), id(1, 1))], "{row}");
        for message in [begin(id(1, 1), id(1, 1)), end(id(1, 1)), new_leader(2)] {
            hand.hear(conn, message);
        }
        assert_eq!(hand.zab.status().last, Index(1), "{row}");
        for (message, last) in [(inform(id(1, 2)), 2), (inform(id(2, 1)), 3), (inform(id(2, 2)), 4)]
        {
            hand.hear(conn, message);
            let status = hand.zab.status();
            assert_eq!(
                (status.last, status.commit, status.applied),
                (Index(last), Index(last), Index(last))
            );
        }
        // Its own request is answered once it is applied here.
        let asked = hand.propose("x");
        let Some(Message::Request(request)) = hand.sent(conn).pop() else { panic!("{row}") };
        let (zxid, fid) = (id(2, 3), member(4).message);
        let placed = Proposal { zxid, fid, request: request.id, command: request.command };
        hand.hear(conn, Message::Inform(placed));
        let outcome = Outcome::Committed { index: Index(5), zxid };
        assert_eq!(hand.answers, [(asked, outcome)], "{row}");
    }
}

#[test]
fn what_a_watcher_of_ours_is_informed_of_has_no_gaps() {
    for (what, message) in [
        ("a gap", inform(id(2, 2))),
        ("an epoch to come", inform(id(3, 1))),
        ("what it has", inform(id(1, 1))),
        ("a proposal", proposal(id(2, 1))),
        ("a commit", commit(id(1, 1))),
    ] {
        let mut hand = Hand::new(config(4, 3), &Past::of_epoch(1, &[id(1, 1)], id(1, 1)));
        let (conn, _) = hand.watch(2, Some(caps::ALL));
        for message in [begin(id(1, 1), id(1, 1)), end(id(1, 1)), new_leader(2)] {
            hand.hear(conn, message);
        }
        assert!(hand.is_open(conn), "{what}");
        hand.hear(conn, message);
        assert!(!hand.is_open(conn), "{what}");
        assert_eq!(hand.zab.status().last, Index(1), "{what}");
    }
}
