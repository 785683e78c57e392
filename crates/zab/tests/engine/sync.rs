//! Synchronization: what is streamed, what is kept, what is replaced, and what is committed by it.

use quorate_types::Index;
use quorate_zab::{
    CloseReason, Command, Config, ConnId, Event, FollowerInfo, HardState, LeaveReason, LogEntry,
    Message, Note, Op, Snapshot, Storage, SyncPlan, Write, Zxid,
};

use crate::hand::{
    Hand, Past, accept, ack, begin, command, commit, end, entry, id, ids_in, info, new_leader,
    proposal,
};
use crate::net::{config, member};

/// A learner that is no process of ours.
fn gometa(of: u64, voting: bool) -> FollowerInfo {
    FollowerInfo { voting, caps: None, accepted_leader: None, ..info(of, 0) }
}

fn gometa_watcher() -> FollowerInfo {
    FollowerInfo { fid: "10.9.9.9:2".into(), ..gometa(7, false) }
}

fn gometa_ack(current: u32, logged: Zxid) -> Message {
    Message::EpochAck(quorate_zab::EpochAck {
        logged,
        current_epoch: quorate_zab::Epoch(current),
        committed: None,
    })
}

fn bare_begin(committed: Zxid) -> Message {
    Message::LogEntry(LogEntry::begin(committed, None))
}

// The leader's side.

#[test]
fn what_was_logged_before_the_election_is_committed_by_it() {
    // The old leader told a client that 1.1 is committed and died before it told its followers.
    let past = Past::of_epoch(1, &[id(1, 1)], Zxid::ZERO);
    let mut hand = Hand::of_three(3, &past);
    hand.elect(3, 3);
    let (conn, sent) = hand.join(1, &Past::of_epoch(1, &[], Zxid::ZERO));
    let streamed = [begin(Zxid::ZERO, Zxid::ZERO), entry(id(1, 1)), end(Zxid::ZERO)];
    assert_eq!(sent[1..4], streamed, "nobody says yet that it is committed");
    assert!(hand.is_serving());
    assert_eq!(hand.committed, [id(1, 1)], "applied here first of all");
    assert_eq!(hand.sent(conn), [commit(id(1, 1))], "and told to the others");
    hand.propose("x");
    hand.hear(conn, accept(1, id(2, 1)));
    assert_eq!(hand.committed, [id(1, 1), id(2, 1)], "before anything of its own");
}

#[test]
fn a_learner_gets_what_its_history_lacks() {
    let ids = [id(1, 1), id(1, 2), id(2, 1), id(3, 1)];
    let all: Vec<Message> = ids.iter().map(|zxid| entry(*zxid)).collect();
    for (learner, plan, keep, from) in [
        (Past::default(), SyncPlan::Difference { after: Index(0) }, Zxid::ZERO, 0),
        (
            Past::of_epoch(2, &ids[..3], id(1, 1)),
            SyncPlan::Difference { after: Index(3) },
            id(2, 1),
            3, // not lost behind ids with more digits
        ),
        (Past::of_epoch(3, &ids, id(1, 2)), SyncPlan::Difference { after: Index(4) }, id(3, 1), 4),
        (
            // It has 2.2, which nobody else has: back to what it has committed.
            Past::of_epoch(2, &[id(1, 1), id(1, 2), id(2, 1), id(2, 2)], id(1, 2)),
            SyncPlan::Truncation { keep: Index(2) },
            id(1, 2),
            2,
        ),
        (
            Past::of_epoch(2, &[id(1, 1), id(1, 2), id(1, 3)], Zxid::ZERO),
            SyncPlan::Truncation { keep: Index(0) },
            Zxid::ZERO,
            0,
        ),
    ] {
        let mut hand = Hand::of_three(3, &Past::of_epoch(3, &ids, id(3, 1)));
        hand.elect(3, 3);
        let (_, sent) = hand.join(1, &learner);
        let mut want = vec![begin(id(3, 1), keep)];
        want.extend_from_slice(&all[from..]);
        want.extend([end(id(3, 1)), new_leader(4)]);
        assert_eq!(sent[1..], want, "{learner:?}");
        let noted = Note::Planned { peer: member(1).message, plan };
        assert!(hand.notes.contains(&noted), "{plan:?} in {:?}", hand.notes);
    }
}

#[test]
fn nothing_falls_between_stream_and_proposals() {
    // 2.1 and 2.2 are proposed, not committed, when node 2 comes.
    let (mut hand, one) = Hand::leading(&Past::of_epoch(1, &[id(1, 1)], Zxid::ZERO));
    hand.sent(one);
    hand.is_disk_held = true;
    hand.propose("a");
    hand.propose("b");
    let two = hand.meet(info(2, 1));
    hand.sync_and_drive();
    hand.sent(two);
    hand.is_disk_held = true;
    hand.propose("c");
    hand.hear(two, ack(1, Zxid::ZERO, Zxid::ZERO));
    hand.propose("d");
    hand.hear(one, accept(1, id(2, 2)));
    hand.sync_and_drive();
    let sent = hand.sent(two);
    let ids = ids_in(&sent);
    assert_eq!(ids, [id(1, 1), id(2, 1), id(2, 2), id(2, 3), id(2, 4)], "{sent:?}");
    assert_eq!(sent.last(), Some(&commit(id(2, 2))), "{sent:?}");
    // Its acknowledgement stands for all that was streamed.
    hand.hear(two, Message::NewLeaderAck);
    hand.hear(two, accept(2, id(2, 4)));
    hand.sync_and_drive();
    assert_eq!(hand.committed.last(), Some(&id(2, 4)));
}

#[test]
fn a_new_leader_ack_vouches_for_everything_streamed() {
    let (mut hand, one) = Hand::leading(&Past::default());
    let first = hand.propose("a");
    assert!(hand.answers.is_empty());
    let (_two, _) = hand.join(2, &Past::default());
    // Node 1 has said nothing; node 2 got it by the stream.
    assert_eq!(hand.committed, [id(1, 1)]);
    assert_eq!(hand.answers[0].0, first);
    assert_eq!(hand.sent(one).last(), Some(&commit(id(1, 1))));
}

#[test]
fn who_needs_what_is_no_longer_kept_gets_a_snapshot() {
    let ids = [id(1, 1), id(1, 2), id(1, 3), id(1, 4)];
    let mut hand = Hand::of_three(3, &Past::of_epoch(1, &ids, id(1, 4)));
    hand.elect(3, 3);
    hand.join(1, &Past::of_epoch(1, &ids, id(1, 4)));
    hand.storage.make_snapshot(Index(3), "state".into()).unwrap();
    hand.storage.compact(Index(2)).unwrap();
    let (_, sent) = hand.join(2, &Past::of_epoch(1, &ids[..1], id(1, 1)));
    let snapshot = Snapshot { index: Index(3), zxid: id(1, 3), data: "state".into() };
    let want = [
        bare_begin(id(1, 4)),
        Message::Snapshot(snapshot),
        entry(id(1, 4)),
        end(id(1, 4)),
        new_leader(2),
    ];
    assert_eq!(sent[1..], want);
    // A gometa learner cannot take one that is not made of transactions.
    let conn = hand.meet(gometa_watcher());
    hand.hear(conn, gometa_ack(1, Zxid::ZERO));
    assert_eq!(hand.why_closed(conn), Some(CloseReason::NoPlan));
}

/// A lone leader whose history of these begins after `kept`, and which has the state there.
fn leader_with_state(settings: Config, ids: &[Zxid], kept: u64, keys: &[&str]) -> Hand {
    let last = *ids.last().expect("a history");
    let past = Past::of_epoch(last.epoch().0, ids, last);
    let zxid = ids[kept as usize - 1];
    let state: Vec<Command> = keys.iter().map(|key| Command::set(key, "v")).collect();
    let mut hand = Hand::new(settings, &past);
    hand.pass(10);
    let data = Snapshot::of_commands(Index(kept), zxid, &state).data;
    hand.storage.make_snapshot(Index(kept), data).unwrap();
    hand.storage.compact(Index(kept)).unwrap();
    assert!(hand.is_serving(), "{:?}", hand.notes);
    hand
}

#[test]
fn a_gometa_learner_that_has_nothing_is_sent_the_state() {
    let ids = [id(1, 1), id(1, 2), id(1, 3), id(1, 4), id(1, 5)];
    let of_key = |zxid, key| {
        Message::LogEntry(LogEntry { zxid, command: Command::set(key, "v"), keep: None })
    };
    let long = Config { replay_count_max: 1, ..config(1, 1) };
    let refused = CloseReason::NotEmpty;
    for (what, settings, kept, keys, logged, want) in [
        (
            "made-up ids for all keys but the last",
            config(1, 1),
            4,
            &["a", "b", "c"][..],
            Zxid::ZERO,
            Ok(vec![of_key(Zxid(1), "a"), of_key(Zxid(2), "b"), of_key(id(1, 4), "c")]),
        ),
        ("one key", config(1, 1), 4, &["a"], Zxid::ZERO, Ok(vec![of_key(id(1, 4), "a")])),
        ("none", config(1, 1), 4, &[], Zxid::ZERO, Ok(vec![])),
        ("what it has of it may not be applied", config(1, 1), 4, &["a"], id(1, 4), Err(refused)),
        ("it has less", config(1, 1), 4, &["a"], id(1, 3), Err(refused)),
        (
            "nothing, and too much to come after it",
            long,
            3,
            &["a"],
            Zxid::ZERO,
            Err(CloseReason::NoPlan),
        ),
    ] {
        let mut hand = leader_with_state(settings, &ids, kept, keys);
        let conn = hand.meet(gometa_watcher());
        hand.sent(conn);
        hand.hear(conn, gometa_ack(1, logged));
        let sent = hand.sent(conn);
        let want = want.map(|state| {
            let rest = [entry(id(1, 5)), end(id(1, 5)), new_leader(2)];
            [vec![bare_begin(id(1, 5))], state, rest.to_vec()].concat()
        });
        match want {
            Ok(want) => assert_eq!(sent, want, "{what}"),
            Err(why) => assert_eq!(hand.why_closed(conn), Some(why), "{what}"),
        }
    }
}

#[test]
fn a_gometa_learner_is_told_of_all_that_is_committed_while_it_is_streamed_to() {
    let tight = Config { connection_bytes_max: 1, ..config(3, 3) };
    let mut hand = Hand::new(tight, &Past::default());
    hand.elect(3, 3);
    let (one, _) = hand.join(1, &Past::default());
    let ids = [id(1, 1), id(1, 2), id(1, 3)];
    for content in ["a", "b", "c"] {
        hand.propose(content);
    }
    hand.hear(one, accept(1, ids[0]));
    let conn = hand.meet(gometa_watcher());
    hand.sent(conn);
    hand.is_net_held = true;
    hand.hear(conn, gometa_ack(0, Zxid::ZERO));
    // It takes each entry for what it is by the first marker.
    let mut sent = hand.sent(conn);
    assert_eq!(sent, [bare_begin(ids[0])]);
    hand.hear(one, accept(1, ids[1]));
    for _ in 0..10 {
        hand.handle(Event::Written { conn, count: 1 });
        sent.extend(hand.sent(conn));
    }
    assert_eq!(ids_in(&sent[1..4]), ids);
    assert_eq!(sent[4..], [end(ids[1]), new_leader(1), commit(ids[1])]);
}

#[test]
fn a_state_is_sent_no_faster_than_it_is_taken() {
    let keys: Vec<String> = (0..300).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let tight = Config { connection_bytes_max: 1000, ..config(1, 1) };
    let mut hand = leader_with_state(tight, &[id(1, 1)], 1, &keys);
    let conn = hand.meet(gometa_watcher());
    hand.sent(conn);
    hand.is_net_held = true;
    hand.hear(conn, gometa_ack(0, Zxid::ZERO));
    let (mut got, mut rounds) = (Vec::new(), 0);
    while got.last() != Some(&new_leader(2)) {
        let more = hand.sent(conn);
        assert!(!more.is_empty() && more.len() < 40, "{} at once", more.len());
        hand.handle(Event::Written { conn, count: more.len() });
        got.extend(more);
        rounds += 1;
    }
    assert_eq!(got.len(), 1 + 300 + 2);
    assert!(10 < rounds, "{rounds} rounds");
}

#[test]
fn a_learner_that_committed_something_else_is_refused() {
    let (mut hand, _) = Hand::leading(&Past::of_epoch(1, &[id(1, 1)], id(1, 1)));
    let conn = hand.meet(info(2, 1));
    hand.hear(conn, ack(1, id(1, 7), id(1, 6)));
    assert_eq!(hand.why_closed(conn), Some(CloseReason::NoPlan));
    assert!(hand.notes.contains(&Note::Diverged { zxid: id(1, 6) }));
}

#[test]
fn a_gometa_learner_gets_everything_and_each_commit() {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2)], id(1, 1));
    let (mut hand, one) = Hand::leading(&past);
    hand.sent(one);
    // 2.1 is on its way when the watcher comes.
    hand.propose("x");
    let conn = hand.meet(gometa_watcher());
    hand.sent(conn);
    // It says that it has 1.1 already; nothing says whether it has committed it.
    hand.hear(conn, gometa_ack(1, id(1, 1)));
    let sent = hand.sent(conn);
    assert_eq!(ids_in(&sent), [id(1, 1), id(1, 2), id(2, 1)]);
    assert_eq!(sent.first(), Some(&bare_begin(id(1, 2))));
    assert_eq!(sent[4..], [end(id(1, 2)), new_leader(2)]);
    hand.hear(conn, Message::NewLeaderAck);
    // A live proposal must wait until what was streamed is committed, or it would take the Commit
    // for one out of order.
    hand.propose("y");
    assert!(hand.sent(conn).is_empty());
    hand.hear(one, accept(1, id(2, 1)));
    let sent = hand.sent(conn);
    assert_eq!(sent[0], commit(id(2, 1)));
    assert!(matches!(&sent[1], Message::Proposal(proposal) if proposal.zxid == id(2, 2)));
    hand.propose("z");
    hand.sent(conn);
    hand.hear(one, accept(1, id(2, 3)));
    assert_eq!(hand.sent(conn), [commit(id(2, 2)), commit(id(2, 3))], "one for each");
    // One of ours is told once.
    assert_eq!(hand.sent(one).last(), Some(&commit(id(2, 3))));
}

#[test]
fn a_slow_learner_is_sent_no_more_than_it_takes() {
    let ids: Vec<Zxid> = (1..=500).map(|counter| id(1, counter)).collect();
    let tight = Config { connection_bytes_max: 1000, ..config(3, 3) };
    let mut hand = Hand::new(tight, &Past::of_epoch(1, &ids, Zxid::ZERO));
    hand.elect(3, 3);
    hand.is_net_held = true;
    let conn = hand.meet(info(1, 0));
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    let mut got = hand.sent(conn);
    let mut rounds = 0;
    let mut last = got.len();
    while got.last() != Some(&new_leader(2)) {
        hand.handle(Event::Written { conn, count: last });
        let more = hand.sent(conn);
        last = more.len();
        assert!(0 < last && last < 40, "{last} at once");
        got.extend(more);
        rounds += 1;
    }
    assert!(10 < rounds, "{rounds} rounds");
    assert_eq!(got.len(), 1 + 1 + 500 + 2);
}

// The learner's side.

#[test]
fn a_stream_is_settled_against_the_own_history() {
    let own = [id(1, 1), id(1, 2), id(1, 3)];
    for (committed, keep, streamed, want, replaced) in [
        (id(1, 1), id(1, 3), vec![id(2, 1)], vec![id(1, 1), id(1, 2), id(1, 3), id(2, 1)], None),
        // What is the same is kept as it is.
        (id(1, 1), id(1, 1), vec![id(1, 2), id(1, 3)], own.to_vec(), None),
        // What the leader does not have goes.
        (id(1, 1), id(1, 1), vec![id(1, 2)], vec![id(1, 1), id(1, 2)], Some(3)),
        (id(1, 1), id(1, 1), vec![id(2, 1)], vec![id(1, 1), id(2, 1)], Some(2)),
        (id(1, 1), id(1, 1), vec![], vec![id(1, 1)], Some(2)),
        (Zxid::ZERO, Zxid::ZERO, vec![id(2, 1), id(2, 2)], vec![id(2, 1), id(2, 2)], Some(1)),
    ] {
        let mut hand = Hand::of_three(1, &Past::of_epoch(1, &own, committed));
        let conn = hand.follow(3, 3, true);
        assert_eq!(hand.sent(conn), [ack(1, id(1, 3), committed)]);
        hand.hear(conn, begin(committed, keep));
        for zxid in &streamed {
            hand.hear(conn, entry(*zxid));
        }
        hand.hear(conn, end(committed));
        assert_eq!(hand.zab.status().current_epoch.0, 1, "not before NewLeader");
        hand.hear(conn, new_leader(3));
        assert_eq!(hand.sent(conn), [Message::NewLeaderAck], "{streamed:?} after {keep}");
        let found: Vec<Zxid> = (1..=hand.storage.last_index().unwrap().0)
            .map(|index| hand.storage.zxid(Index(index)).unwrap())
            .collect();
        assert_eq!(found, want, "{streamed:?} after {keep}");
        let noted = hand.notes.iter().find_map(|note| match note {
            Note::TailReplaced { from, .. } => Some(from.0),
            _ => None,
        });
        assert_eq!(noted, replaced, "{streamed:?} after {keep}");
        assert_eq!(hand.storage.hard_state().unwrap().current_epoch.0, 3);
    }
}

#[test]
fn what_was_logged_and_is_now_committed_is_applied() {
    // Killed with 1.1 and 1.2 logged; the others committed both meanwhile.
    let mut hand = Hand::of_three(1, &Past::of_epoch(1, &[id(1, 1), id(1, 2)], Zxid::ZERO));
    let conn = hand.follow(3, 2, true);
    for message in [begin(id(1, 2), id(1, 2)), end(id(1, 2))] {
        hand.hear(conn, message);
    }
    assert!(hand.committed.is_empty(), "an unfinished synchronization shows nothing");
    hand.hear(conn, new_leader(2));
    assert_eq!(hand.committed, [id(1, 1), id(1, 2)]);
    hand.hear(conn, proposal(id(2, 1)));
    hand.hear(conn, commit(id(2, 1)));
    assert_eq!(hand.committed, [id(1, 1), id(1, 2), id(2, 1)]);
}

#[test]
fn an_acknowledgement_waits_for_entries_and_epoch() {
    let mut hand = Hand::of_three(1, &Past::default());
    let conn = hand.follow(3, 1, true);
    hand.sent(conn);
    hand.is_disk_held = true;
    for message in [begin(Zxid::ZERO, Zxid::ZERO), entry(id(1, 1)), end(Zxid::ZERO), new_leader(1)]
    {
        hand.hear(conn, message);
    }
    assert!(hand.sent(conn).is_empty());
    // Entries first, or together: never the epoch before them.
    let epoch_at = hand.writes.iter().position(|write| {
        let hard_state: Option<&HardState> = write.hard_state.as_ref();
        hard_state.is_some_and(|hard_state| hard_state.current_epoch.0 == 1)
    });
    let entry_at = hand.writes.iter().position(|write: &Write| !write.entries.is_empty());
    assert!(entry_at.unwrap() <= epoch_at.unwrap(), "{:?}", hand.writes);
    hand.sync_and_drive();
    assert_eq!(hand.sent(conn), [Message::NewLeaderAck]);
}

#[test]
fn what_is_committed_is_never_given_up() {
    for (keep, streamed) in [
        (Zxid::ZERO, vec![]), // it is to forget 1.1
        (id(1, 1), vec![]),   // to keep less than is committed
        (id(7, 7), vec![]),   // to keep what it does not have
    ] {
        let past = Past::of_epoch(1, &[id(1, 1), id(1, 2)], id(1, 2));
        let mut hand = Hand::of_three(1, &past);
        let conn = hand.follow(3, 2, true);
        hand.hear(conn, begin(id(1, 2), keep));
        for zxid in streamed {
            hand.hear(conn, entry(zxid));
        }
        assert!(!hand.is_open(conn), "keep {keep}");
        assert_eq!(hand.storage.last_index(), Ok(Index(2)), "keep {keep}");
        assert!(hand.notes.contains(&Note::Left { why: LeaveReason::Diverged }), "keep {keep}");
    }
}

#[test]
fn one_id_has_one_content() {
    let mut hand = Hand::of_three(1, &Past::of_epoch(1, &[id(1, 1)], Zxid::ZERO));
    let conn = hand.follow(3, 2, true);
    hand.hear(conn, begin(Zxid::ZERO, Zxid::ZERO));
    let other = LogEntry { zxid: id(1, 1), command: command(id(9, 9)), keep: None };
    hand.hear(conn, Message::LogEntry(other));
    assert!(hand.notes.contains(&Note::Diverged { zxid: id(1, 1) }));
    assert!(!hand.is_open(conn));
    assert_eq!(hand.storage.entries(Index(1), Index(2), 0).unwrap()[0].command, command(id(1, 1)));
}

#[test]
fn a_snapshot_replaces_what_a_learner_has() {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2), id(1, 3)], id(1, 1));
    let mut hand = Hand::of_three(1, &past);
    assert!(hand.committed.is_empty());
    let conn = hand.follow(3, 3, true);
    hand.sent(conn);
    let snapshot = Snapshot { index: Index(8), zxid: id(2, 5), data: "state".into() };
    let stream = [
        bare_begin(id(2, 6)),
        Message::Snapshot(snapshot),
        entry(id(2, 6)),
        end(id(2, 6)),
        new_leader(3),
    ];
    for message in stream {
        hand.hear(conn, message);
    }
    assert_eq!(hand.sent(conn), [Message::NewLeaderAck]);
    assert_eq!(hand.storage.first_index(), Ok(Index(9)));
    assert_eq!(hand.storage.snapshot().unwrap().data, "state");
    assert_eq!(hand.committed.last(), Some(&id(2, 6)));
    let status = hand.zab.status();
    assert_eq!((status.commit, status.applied, status.last), (Index(9), Index(9), Index(9)));
}

#[test]
fn a_snapshot_removes_nothing_that_the_leader_has() {
    // It has what the state stands for, and more. All but its last entry is the leader's, too, which keeps no
    // entry before the fourth; and the fifth is committed already, because this node holds it.
    let ids: Vec<Zxid> = (1..=6).map(|counter| id(1, counter)).collect();
    let mut hand = Hand::of_three(1, &Past::of_epoch(1, &ids, id(1, 1)));
    let conn = hand.follow(3, 3, true);
    hand.sent(conn);
    let snapshot = Snapshot { index: Index(4), zxid: id(1, 4), data: "state".into() };
    let stream = [
        bare_begin(id(1, 4)),
        Message::Snapshot(snapshot),
        entry(id(1, 5)),
        entry(id(2, 1)),
        end(id(1, 5)),
        new_leader(3),
    ];
    for message in stream {
        hand.hear(conn, message);
        assert!(Index(5) <= hand.storage.last_index().unwrap());
        assert_eq!(hand.storage.zxid(Index(5)), Ok(id(1, 5)));
    }
    assert_eq!(hand.sent(conn), [Message::NewLeaderAck]);
    assert!(hand.writes.iter().all(|write| write.install.is_none()));
    assert_eq!(hand.storage.first_index(), Ok(Index(1)));
    assert_eq!(hand.storage.zxid(Index(6)), Ok(id(2, 1)));
    assert_eq!(hand.committed, ids[..5]);
}

#[test]
fn streams_that_are_no_history_are_refused() {
    let snapshot = |index| Snapshot { index: Index(index), zxid: id(1, 9), data: "s".into() };
    let with_gap = [begin(id(1, 1), id(1, 1)), entry(id(1, 3)), end(id(1, 3)), new_leader(2)];
    let rows: [(&str, Vec<Message>); 11] = [
        ("an entry where a snapshot must come", vec![bare_begin(id(1, 1)), entry(id(1, 1))]),
        ("an end instead of a snapshot", vec![bare_begin(id(1, 1)), end(id(1, 1))]),
        ("an older state", vec![bare_begin(id(1, 1)), Message::Snapshot(snapshot(1))]),
        ("a state beyond all", vec![bare_begin(id(1, 1)), Message::Snapshot(snapshot(u64::MAX))]),
        ("a state nobody announced", vec![Message::Snapshot(snapshot(9))]),
        ("no order", vec![begin(id(1, 1), id(1, 1)), entry(id(1, 2)), entry(id(1, 2))]),
        ("a gap", with_gap.to_vec()),
        ("an epoch without its first", vec![begin(id(1, 1), id(1, 1)), entry(id(2, 2))]),
        ("an epoch to come", vec![begin(id(1, 1), id(1, 1)), entry(id(9, 1))]),
        ("an end beyond it", vec![begin(id(1, 1), id(1, 1)), end(id(1, 5))]),
        ("another epoch", vec![begin(id(1, 1), id(1, 1)), end(id(1, 1)), new_leader(3)]),
    ];
    for (what, messages) in rows {
        let mut hand = Hand::of_three(1, &Past::of_epoch(1, &[id(1, 1)], id(1, 1)));
        let conn = hand.follow(3, 2, true);
        for message in messages {
            hand.hear(conn, message);
        }
        assert!(!hand.is_open(conn), "{what}");
        assert!(hand.zab.status().current_epoch.0 == 1, "{what}");
    }
    // Where a gometa leader may have made the history, it may well have one.
    let mixed = Config { allow_gometa_voters: true, ..config(1, 3) };
    let mut hand = Hand::new(mixed, &Past::of_epoch(1, &[id(1, 1)], id(1, 1)));
    let conn = hand.follow(3, 2, true);
    with_gap.into_iter().for_each(|message| hand.hear(conn, message));
    assert_eq!(hand.committed, [id(1, 1), id(1, 3)]);
}

#[test]
fn a_watcher_of_gometa_asks_for_all_and_sorts_it() {
    let mut hand = Hand::new(config(4, 3), &Past::default());
    let (conn, sent) = watch_gometa(&mut hand, 3);
    assert!(matches!(&sent[..], [Message::EpochAck(ack)] if ack.logged == Zxid::ZERO), "{sent:?}");
    // Its log is in the order of decimal text.
    for zxid in [id(3, 1), id(1, 1), id(2, 1)] {
        hand.hear(conn, entry(zxid));
    }
    hand.hear(conn, end(id(3, 1)));
    hand.hear(conn, new_leader(3));
    assert_eq!(hand.committed, [id(1, 1), id(2, 1), id(3, 1)]);
    assert_eq!(hand.sent(conn), [Message::NewLeaderAck]);
}

/// A watcher follows a gometa leader of `epoch` up to its EpochAck.
fn watch_gometa(hand: &mut Hand, epoch: u32) -> (quorate_zab::ConnId, Vec<Message>) {
    hand.watch(epoch, None)
}

#[test]
fn a_follower_of_gometa_names_what_it_has_committed_and_checks_the_stream() {
    let mixed = Config { allow_gometa_voters: true, ..config(1, 3) };
    let past = Past::of_epoch(2, &[id(2, 1), id(2, 2)], id(2, 1));
    let start = |hand: &mut Hand, conn| match &hand.sent(conn)[..] {
        [Message::EpochAck(ack)] => ack.logged,
        other => panic!("{other:?}"),
    };
    let mut hand = Hand::new(mixed, &past);
    let conn = hand.follow(3, 3, false);
    assert_eq!(start(&mut hand, conn), id(2, 1), "2.2 is to come again, or not");
    // Text order has lost 3.1 behind 2.x: the end shows that something is missing.
    hand.hear(conn, bare_begin(id(3, 1)));
    hand.hear(conn, end(id(3, 1)));
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::Disordered }));
    assert_eq!(hand.storage.last_index(), Ok(Index(2)), "nothing was changed");
    // Next time it asks for all of it.
    let conn = hand.follow(3, 3, false);
    assert_eq!(start(&mut hand, conn), Zxid::ZERO);
    for message in [
        bare_begin(id(3, 1)),
        entry(id(3, 1)),
        entry(id(2, 1)),
        entry(id(2, 3)),
        end(id(3, 1)),
        new_leader(3),
    ] {
        hand.hear(conn, message);
    }
    assert_eq!(hand.committed, [id(2, 1), id(2, 3), id(3, 1)], "2.2 was nobody's");
}

#[test]
fn a_state_that_poses_as_a_history_is_not_taken_for_one() {
    let mut hand = Hand::new(config(4, 3), &Past::default());
    let (conn, _) = watch_gometa(&mut hand, 3);
    hand.hear(conn, bare_begin(id(3, 2)));
    hand.hear(conn, entry(Zxid(1)));
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::StateStream }));
    let short = Config { stream_bytes_max: 100, ..config(4, 3) };
    let mut hand = Hand::new(short, &Past::default());
    let (conn, _) = watch_gometa(&mut hand, 3);
    for counter in 1..5 {
        hand.hear(conn, entry(id(3, counter)));
    }
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::TooLong }));
}

#[test]
fn a_state_without_keys_never_takes_the_place_of_the_own_one() {
    let watcher = Config { takes_states: true, ..config(4, 3) };
    let mut hand = Hand::new(watcher, &Past::default());
    let bare = |at| Some(Note::BareState { committed: at });
    for (epoch, key, committed, joins, own, noted) in [
        (1, None, Zxid::ZERO, true, Zxid::ZERO, None), // nothing was ever there
        (2, None, id(2, 2), false, Zxid::ZERO, bare(Zxid::ZERO)), // what follows would be incomplete
        (3, Some("a"), id(2, 3), true, id(2, 3), None),           // the only key
        (4, None, id(2, 3), false, id(2, 3), bare(id(2, 3))), // where "a" stands there is nothing
        (5, None, id(2, 4), false, id(2, 3), bare(id(2, 3))), // deleted, or not read
        (5, None, id(2, 4), false, id(2, 3), bare(id(2, 3))), // who knows, if it says so again
        (6, Some("b"), id(6, 1), true, id(6, 1), None),       // a new one
        (7, None, id(2, 4), false, id(6, 1), Some(Note::Diverged { zxid: id(6, 1) })), // it lost that
    ] {
        hand.notes.clear();
        let (conn, _) = watch_gometa(&mut hand, epoch);
        hand.hear(conn, bare_begin(committed));
        if let Some(key) = key {
            let command = Command::set(key, "v");
            hand.hear(conn, Message::LogEntry(LogEntry { zxid: committed, command, keep: None }));
        }
        hand.hear(conn, end(committed));
        hand.hear(conn, new_leader(epoch));
        let row = format!("epoch {epoch}, {committed}");
        assert_eq!(hand.is_serving(), joins, "{row}");
        let status = hand.zab.status();
        assert_eq!(hand.zab.zxid(status.commit), Some(own), "{row}");
        let is_told = |note: &&Note| matches!(note, Note::BareState { .. } | Note::Diverged { .. });
        assert_eq!(hand.notes.iter().find(is_told), noted.as_ref(), "{row}");
        hand.handle(Event::Closed { conn });
        hand.pass(70_000);
    }
}

#[test]
fn a_state_without_keys_is_taken_by_who_was_told_to() {
    let watcher = Config { takes_states: true, takes_bare_states: true, ..config(4, 3) };
    let ids = [id(1, 1), id(1, 2)];
    for (own, committed, joins, has) in [
        (&[][..], Zxid::ZERO, true, Zxid::ZERO),
        (&[], id(1, 2), true, id(1, 2)),
        (&ids, id(1, 3), true, id(1, 3)),
        (&ids, id(1, 2), true, id(1, 2)),
        (&ids, id(1, 1), false, id(1, 2)), // it has lost what was committed
    ] {
        let last = own.last().copied().unwrap_or_default();
        let mut hand = Hand::new(watcher.clone(), &Past::of_epoch(1, own, last));
        let (conn, _) = watch_gometa(&mut hand, 2);
        for message in [bare_begin(committed), end(committed), new_leader(2)] {
            hand.hear(conn, message);
        }
        let row = format!("{own:?}, {committed}");
        assert_eq!(hand.is_serving(), joins, "{row}");
        let status = hand.zab.status();
        assert_eq!((status.commit_zxid, status.last_zxid), (has, has), "{row}");
        let snapshot = hand.storage.snapshot().unwrap();
        let is_replaced = snapshot.zxid == committed && last < committed;
        assert_eq!(snapshot.commands(), is_replaced.then(Vec::new), "{row}");
        if joins {
            for message in [proposal(id(2, 1)), commit(id(2, 1))] {
                hand.hear(conn, message);
            }
            assert_eq!(hand.committed.last(), Some(&id(2, 1)), "{row}");
        }
    }
}

#[test]
fn a_watcher_without_anything_vouches_for_nothing_that_it_was_not_sent() {
    let watcher = Config { takes_states: true, ..config(4, 3) };
    let mut hand = Hand::new(watcher, &Past::default());
    let (conn, _) = watch_gometa(&mut hand, 2);
    // The first entry of the log has the operation of an end marker: the rest is still to come.
    for message in [bare_begin(id(1, 3)), end(id(1, 1)), entry(id(1, 2))] {
        hand.hear(conn, message);
    }
    assert!(!hand.is_open(conn));
    let status = hand.zab.status();
    assert_eq!((status.commit, status.last), (Index(0), Index(0)));
    // From another leader it gets all of it.
    let (conn, _) = watch_gometa(&mut hand, 3);
    let ids = [id(1, 1), id(1, 2), id(1, 3)];
    hand.hear(conn, bare_begin(ids[2]));
    ids.iter().for_each(|zxid| hand.hear(conn, entry(*zxid)));
    hand.hear(conn, end(ids[2]));
    hand.hear(conn, new_leader(3));
    assert_eq!(hand.committed, ids);
}

#[test]
fn a_leader_that_has_less_than_is_committed_is_not_followed() {
    let past = Past::of_epoch(2, &[id(1, 1), id(2, 1), id(2, 2)], id(2, 1));
    let watcher = |takes_states| Config { takes_states, ..config(4, 3) };
    for (streamed, committed, joins) in [
        (vec![id(1, 1), id(2, 1)], id(2, 1), true),
        (vec![id(2, 1), id(1, 1)], id(1, 1), true), // it will learn what is committed
        (vec![id(1, 1)], id(1, 1), false),
        (vec![id(1, 1)], id(2, 1), false), // what is committed was not sent
        (vec![], id(1, 1), false),
        (vec![], id(2, 1), false),
        (vec![], Zxid::ZERO, false),
    ] {
        for takes_states in [false, true] {
            let mut hand = Hand::new(watcher(takes_states), &past);
            let (conn, _) = watch_gometa(&mut hand, 3);
            hand.hear(conn, bare_begin(committed));
            streamed.iter().for_each(|zxid| hand.hear(conn, entry(*zxid)));
            hand.hear(conn, end(committed));
            hand.hear(conn, new_leader(3));
            let row = format!("{streamed:?} {committed} {takes_states}");
            assert_eq!(hand.is_serving(), joins, "{row}");
            let left = hand.notes.contains(&Note::Left { why: LeaveReason::Diverged });
            assert_eq!(left, !joins, "{row}");
            assert_eq!(hand.committed, [id(1, 1), id(2, 1)], "{row}");
        }
    }
}

#[test]
fn odd_operations_of_a_gometa_leader_are_noted() {
    let mut hand = Hand::new(config(4, 3), &Past::default());
    let (conn, _) = watch_gometa(&mut hand, 3);
    hand.hear(conn, bare_begin(id(3, 3)));
    for (counter, op) in [(1, Op::SET), (2, Op::GET), (3, Op::BROADCAST)] {
        let command = Command { op, ..Command::set("k", "v") };
        let entry = LogEntry { zxid: id(3, counter), command, keep: None };
        hand.hear(conn, Message::LogEntry(entry));
    }
    let odd = hand.notes.iter().filter(|note| matches!(note, Note::OddOperation { .. }));
    assert_eq!(odd.collect::<Vec<_>>(), [&Note::OddOperation { zxid: id(3, 2), op: Op::GET }]);
}

#[test]
fn a_learner_that_stands_still_gives_up() {
    let mut hand = Hand::of_three(1, &Past::default());
    hand.elect(3, 3);
    hand.pass(10_100);
    assert!(hand.notes.contains(&Note::Left { why: LeaveReason::TimedOut }), "never connected");
    let mut hand = Hand::of_three(1, &Past::default());
    let conn = hand.follow(3, 1, true);
    hand.pass(9_900);
    hand.hear(conn, begin(Zxid::ZERO, Zxid::ZERO));
    hand.pass(9_900);
    assert!(hand.is_open(conn), "it went on");
    hand.pass(200);
    assert!(!hand.is_open(conn));
}

#[test]
fn a_disk_that_hangs_excuses_a_silent_leader_only_for_a_while() {
    let stream = [begin(Zxid::ZERO, Zxid::ZERO), entry(id(1, 1)), end(Zxid::ZERO), new_leader(1)];
    for (what, is_native, heard, held_at, left_at, why) in [
        ("EpochAck", true, 0, 19_500, 20_500, LeaveReason::TimedOut),
        ("NewLeaderAck", true, 4, 14_500, 15_500, LeaveReason::Silent),
        ("EpochAck to gometa's", false, 0, 19_500, 20_500, LeaveReason::TimedOut),
    ] {
        let mixed = Config { allow_gometa_voters: true, ..config(1, 3) };
        let mut hand = Hand::new(mixed, &Past::default());
        hand.is_disk_held = heard == 0;
        let conn = hand.follow(3, 1, is_native);
        hand.is_disk_held = true;
        hand.sent(conn);
        for message in &stream[..heard] {
            hand.hear(conn, message.clone());
        }
        // Nothing is written any more, and the leader says nothing.
        let began_ms = hand.now_ms;
        hand.pass(held_at);
        assert!(hand.is_open(conn), "{what}: the leader may be waiting");
        assert!(hand.sent(conn).is_empty(), "{what}");
        hand.pass(left_at - held_at);
        assert!(hand.notes.contains(&Note::Left { why }), "{what}: {:?}", hand.notes);
        assert_eq!(hand.now_ms - began_ms, left_at, "{what}");
    }
}

/// A leader of three at the end of an epoch, with node 1 beside it, that sends a state to node 2.
fn shipping() -> (Hand, ConnId, ConnId) {
    let past = Past::of_epoch(1, &[id(1, 1), id(1, 2), id(1, 3)], id(1, 3));
    let mut hand = Hand::of_three(3, &past);
    hand.elect(3, 3);
    let (voter, _) = hand.join(1, &past);
    assert!(hand.is_serving());
    hand.storage.make_snapshot(3.into(), "state".into()).unwrap();
    hand.storage.compact(3.into()).unwrap();
    let conn = hand.meet(info(2, 0));
    hand.hear(conn, ack(0, Zxid::ZERO, Zxid::ZERO));
    let sent = hand.sent(conn);
    assert!(sent.iter().any(|message| matches!(message, Message::Snapshot(_))), "{sent:?}");
    (hand, voter, conn)
}

/// Time passes for a leader that a voter answers, in steps of 100 ms.
fn pass_beside(hand: &mut Hand, voter: ConnId, ms: u64, mut at_each: impl FnMut(&mut Hand)) {
    for _ in 0..ms / 100 {
        hand.pass(100);
        for message in hand.sent(voter) {
            if let Message::Ping { number } = message {
                hand.hear(voter, Message::Pong { number });
            }
        }
        at_each(hand);
    }
}

#[test]
fn a_learner_whose_snapshot_goes_on_is_kept_while_others_write() {
    for writes in [false, true] {
        let (mut hand, voter, conn) = shipping();
        if writes {
            hand.propose("x");
            hand.hear(voter, accept(1, id(2, 1)));
        }
        // Its state is on its way, or is being installed.
        pass_beside(&mut hand, voter, 60_000, |hand| hand.handle(Event::Progress { conn }));
        assert!(hand.is_open(conn), "writes {writes}: {:?}", hand.why_closed(conn));
        // Nothing more is heard of it.
        pass_beside(&mut hand, voter, 9_900, |_| {});
        assert!(hand.is_open(conn), "writes {writes}: {:?}", hand.why_closed(conn));
        pass_beside(&mut hand, voter, 200, |_| {});
        assert_eq!(hand.why_closed(conn), Some(CloseReason::Silent), "writes {writes}");
    }
}

#[test]
fn who_takes_part_is_not_excused_from_accepting_by_what_takes_long() {
    let (mut hand, voter, conn) = shipping();
    hand.hear(conn, Message::NewLeaderAck);
    hand.propose("x");
    hand.hear(voter, accept(1, id(2, 1)));
    pass_beside(&mut hand, voter, 5_100, |hand| hand.handle(Event::Progress { conn }));
    assert_eq!(hand.why_closed(conn), Some(CloseReason::NotAccepting));
}

/// As long as its leader is heard of: that one waits for it.
#[test]
fn a_learner_that_installs_a_state_stays_with_its_leader() {
    let state = || {
        let (index, zxid) = (7.into(), id(1, 7));
        Message::Snapshot(Snapshot { index, zxid, data: "state".into() })
    };
    let no_keep = || Message::LogEntry(LogEntry::begin(id(1, 7), None));
    // Before and after the leader has said all that it has to say.
    for rest in [vec![], vec![end(id(1, 7)), new_leader(2)]] {
        for is_heard in [true, false] {
            let mut hand = Hand::of_three(1, &Past::default());
            let conn = hand.follow(3, 2, true);
            hand.is_disk_held = true;
            for message in [no_keep(), state()].into_iter().chain(rest.clone()) {
                hand.hear(conn, message);
            }
            for _ in 0..300 {
                hand.pass(100);
                if is_heard && hand.is_open(conn) {
                    hand.handle(Event::Heard { conn });
                }
            }
            assert_eq!(hand.is_open(conn), is_heard, "{} more: {:?}", rest.len(), hand.notes);
        }
    }
}
