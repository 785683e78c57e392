//! One table of situations, two engines: what gometa makes of each, and what ours does. The node
//! under test is played against peers that speak gometa's dialect, so one script does for both.
//!
//! Situations that take whole ensembles are in `upheavals.rs`: crashes at every write, restarts of all
//! with tails of different length, partitions that move.

use quorate_types::Index;
use quorate_zab::{
    Command, Config, ConnId, Epoch, EpochAck, Event, FollowerInfo, LogEntry, Message, Op,
    PeerStatus, Proposal, Request, Snapshot, Vote, Zxid,
};

use crate::hand::{Hand, Past, entry, id, new_leader, proposal};
use crate::net::{config, member};
use crate::puppet::{Kind, Puppet, either, said, streamed};

/// How many transactions an epoch has in the test of that.
const COUNTER_MAX: u32 = 5;

type Play = fn(Kind) -> String;

/// The number of the situation in `PARITY`'s rules, what it is, how it is played, and how it ends with
/// gometa and with ours.
const TABLE: &[(&str, &str, Play, &str, &str)] = &[
    ("L1", "what the new leader logged before it", history_of_a_new_leader, "2.1", "1.1 2.1"),
    ("L2", "a tail that the follower was known to have", returning_tail, "2.1", "1.1 1.2 2.1"),
    ("L3", "a tail that nobody else has", alien_tail, "1.7 1.8 1.9 1.10 2.1", "1.7 2.1"),
    ("L4", "who joins while proposals are under way", joiner, "lacks 1.2", "has it all"),
    (
        "L5",
        "epochs of ten and of eleven digits",
        epochs,
        "3.1 1.1 2.1; lacks 3.1",
        "1.1 2.1 3.1; has it",
    ),
    ("L6", "a second connection that fails", second_connection, "epoch 2", "epoch 1"),
    ("L7", "a voter that knows more than its leader", better_voter, "taken", "refused"),
    ("L8", "a promise that was another leader's", promise_to_another, "leads epoch 1", "gives up"),
    ("L9", "a Commit of what was streamed", commit_of_streamed, "leaves", "1.1"),
    ("L10", "all in one write", all_at_once, "1.1", "1.1"),
    ("L11", "ids out of sequence", out_of_sequence, "accepts 1.7 1.3; leaves", "accepts ; leaves"),
    (
        "L12",
        "an entry that looks like a Commit",
        looks_like_commit,
        "2.1 2.2; stays",
        "2.1; leaves",
    ),
    ("L13", "a watcher that votes for others", voting_watcher, "resigns", "leads, watcher closed"),
    ("L14", "operation 4", operation_get, "resigns", "leads, refused"),
    ("L14", "operation 6", operation_marker, "in the log", "refused"),
    ("L15", "an idle connection", idle_connection, "9999 of 10400", "10400 of 10400"),
    ("L16", "a leader that stands still", still_leader, "waits", "looks"),
    ("L17", "junk on the election port", junk, "mute", "answers"),
    ("L18", "who connects to a follower", wrong_door, "waits", "closed"),
    ("L19", "two learners ready at once", both_at_once, "resigns", "leads"),
    ("L20", "a vote that changes nothing", late_vote, "waits on", "elected"),
    ("L21", "an answer of the epoch before", stale_answer, "not joined", "not joined"),
    ("L22", "a refusal while others are pending", refusal, "", "1.1 1.2"),
    (
        "L23",
        "committed, refused, sent and not answered, not sent",
        fates,
        "committed error error error",
        "committed refused unknown refused",
    ),
    ("L24", "the end of the counter", counter, "gone after 5", "resigned after 5"),
    ("L25", "a key that was deleted while a watcher was away", deleted_key, "a b", "b"),
];

#[test]
fn gometa_fails_where_it_was_seen_to_and_ours_does_not() {
    for (number, what, play, gometa, ours) in TABLE {
        assert_eq!(play(Kind::Gometa), *gometa, "{number}: {what}: gometa");
        assert_eq!(play(Kind::Ours), *ours, "{number}: {what}: ours");
    }
}

fn history_of_a_new_leader(kind: Kind) -> String {
    let past = Past::of_epoch(1, &[id(1, 1)], Zxid::ZERO);
    let (mut puppet, conns) = Puppet::leading(kind, 3, &past);
    puppet.request("a");
    puppet.hold(conns[0], 1, id(2, 1));
    puppet.applied()
}

fn returning_tail(kind: Kind) -> String {
    let ids = [id(1, 1), id(1, 2)];
    let past = Past::of_epoch(1, &ids, Zxid::ZERO);
    let (mut puppet, conn, start) = Puppet::promised(kind, &past, 2);
    puppet.stream(conn, start, &ids, ids[1], 2);
    puppet.hear(conn, proposal(id(2, 1)));
    puppet.hear(conn, Message::Commit { zxid: id(2, 1) });
    puppet.applied()
}

fn alien_tail(kind: Kind) -> String {
    let past = Past::of_epoch(1, &[id(1, 7), id(1, 8), id(1, 9), id(1, 10)], id(1, 7));
    let (mut puppet, conn, start) = Puppet::promised(kind, &past, 2);
    puppet.stream(conn, start, &[id(1, 7), id(2, 1)], id(2, 1), 2);
    puppet.history()
}

fn joiner(kind: Kind) -> String {
    let (mut puppet, conns) = Puppet::leading(kind, 3, &Past::default());
    puppet.request("a");
    puppet.request("b");
    let joiner = puppet.accept();
    puppet.hold(conns[0], 1, id(1, 1));
    puppet.introduce(joiner, 2, 0, true);
    puppet.promise(joiner, 0, Zxid::ZERO);
    puppet.hear(joiner, Message::NewLeaderAck);
    puppet.hold(conns[0], 1, id(1, 2));
    let sent = puppet.sent(joiner);
    let mut held = streamed(&sent);
    for message in &sent {
        match message {
            Message::Proposal(proposal) => held.push(proposal.zxid),
            Message::Commit { zxid } if !held.contains(zxid) => return format!("lacks {zxid}"),
            _ => {}
        }
    }
    "has it all".to_owned()
}

fn epochs(kind: Kind) -> String {
    let ids = [id(1, 1), id(2, 1), id(3, 1)];
    let past = Past::of_epoch(3, &ids, ids[2]);
    let (mut puppet, _) = Puppet::leading(kind, 3, &past);
    let (_, all) = puppet.join(2, 0, Zxid::ZERO, true);
    let (_, rest) = puppet.join(9, 2, ids[1], false);
    let has_last = streamed(&rest).contains(&ids[2]);
    format!("{}; {}", said(&streamed(&all)), either(has_last, "has it", "lacks 3.1"))
}

fn second_connection(kind: Kind) -> String {
    let (mut puppet, _) = Puppet::leading(kind, 5, &Past::default());
    puppet.join(3, 0, Zxid::ZERO, true);
    let second = puppet.accept();
    puppet.introduce(second, 1, 1, true);
    // It says no more.
    puppet.pass(if kind == Kind::Gometa { 301_000 } else { 11_000 });
    assert!(!puppet.is_open(second));
    let third = puppet.accept();
    puppet.introduce(third, 1, 1, true);
    let sent = puppet.sent(third);
    let [Message::LeaderInfo(info)] = &sent[..] else { panic!("{kind:?}: {sent:?}") };
    format!("epoch {}", info.epoch.0)
}

fn better_voter(kind: Kind) -> String {
    let mut puppet = Puppet::new(kind, 3, 3, &Past::default());
    puppet.elect(3);
    let (conn, _) = puppet.join(1, 5, id(5, 5), true);
    either(puppet.leads() && puppet.is_open(conn), "taken", "refused")
}

fn promise_to_another(kind: Kind) -> String {
    let mut puppet = Puppet::new(kind, 3, 3, &Past::default());
    puppet.elect(3);
    let first = puppet.accept();
    puppet.introduce(first, 1, 0, true);
    assert_eq!(puppet.sent(first).len(), 1, "it was told the epoch, and left");
    puppet.handle(Event::Closed { conn: first });
    let (_, _) = puppet.join(1, 1, id(1, 1), true);
    either(puppet.leads(), "leads epoch 1", "gives up")
}

fn commit_of_streamed(kind: Kind) -> String {
    let (mut puppet, conn, start) = Puppet::promised(kind, &Past::default(), 1);
    puppet.stream(conn, start, &[id(1, 1)], Zxid::ZERO, 1);
    puppet.hear(conn, proposal(id(1, 2)));
    puppet.hear(conn, Message::Commit { zxid: id(1, 1) });
    if puppet.follows() { puppet.applied() } else { "leaves".to_owned() }
}

fn all_at_once(kind: Kind) -> String {
    let (mut puppet, conn, _) = Puppet::promised(kind, &Past::default(), 1);
    puppet.stream(conn, Zxid::ZERO, &[], Zxid::ZERO, 1);
    for message in [proposal(id(1, 1)), proposal(id(1, 2)), Message::Commit { zxid: id(1, 1) }] {
        puppet.hear(conn, message);
    }
    assert!(puppet.follows());
    puppet.applied()
}

fn out_of_sequence(kind: Kind) -> String {
    let (mut puppet, conn) = Puppet::following(kind, 1);
    for message in [proposal(id(1, 7)), proposal(id(1, 3)), Message::Commit { zxid: id(1, 3) }] {
        puppet.hear(conn, message);
    }
    let accepted = puppet.sent(conn).into_iter().filter_map(|message| match message {
        Message::Accept { zxid, .. } => Some(zxid),
        _ => None,
    });
    let accepted = said(&accepted.collect::<Vec<_>>());
    format!("accepts {accepted}; {}", either(puppet.follows(), "stays", "leaves"))
}

fn looks_like_commit(kind: Kind) -> String {
    let (mut puppet, conn) = Puppet::following(kind, 2);
    for message in [
        proposal(id(2, 1)),
        proposal(id(2, 2)),
        Message::Commit { zxid: id(2, 1) },
        entry(id(2, 2)),
    ] {
        puppet.hear(conn, message);
    }
    format!("{}; {}", puppet.applied(), either(puppet.follows(), "stays", "leaves"))
}

fn voting_watcher(kind: Kind) -> String {
    let (mut puppet, _) = Puppet::leading(kind, 3, &Past::default());
    let (watcher, _) = puppet.join(9, 0, Zxid::ZERO, false);
    for of in [1, 2] {
        puppet.hold(watcher, of, id(1, 1));
    }
    let watches = either(puppet.is_open(watcher), "watcher stays", "watcher closed");
    if puppet.leads() { format!("leads, {watches}") } else { "resigns".to_owned() }
}

fn asks_for(puppet: &mut Puppet, conn: ConnId, op: Op) -> bool {
    let command = Command { op, ..Command::set("k", "v") };
    puppet.hear(conn, Message::Request(Request { id: 7, command }));
    let sent = puppet.sent(conn);
    sent.iter().any(|message| matches!(message, Message::Abort { request: 7, .. }))
}

fn operation_get(kind: Kind) -> String {
    let (mut puppet, conns) = Puppet::leading(kind, 3, &Past::default());
    let is_refused = asks_for(&mut puppet, conns[0], Op::GET);
    if !is_refused {
        puppet.hold(conns[0], 1, id(1, 1));
    }
    let answer = either(is_refused, "refused", "taken");
    if puppet.leads() { format!("leads, {answer}") } else { "resigns".to_owned() }
}

fn operation_marker(kind: Kind) -> String {
    let (mut puppet, conns) = Puppet::leading(kind, 3, &Past::default());
    let is_refused = asks_for(&mut puppet, conns[0], Op::STREAM_END);
    assert_eq!(is_refused, puppet.history().is_empty());
    either(is_refused, "refused", "in the log")
}

fn idle_connection(kind: Kind) -> String {
    let (mut puppet, conns) = Puppet::leading(kind, 3, &Past::default());
    puppet.accept();
    for at in 1..=10_400 {
        puppet.request("w");
        puppet.hold(conns[0], 1, id(1, at));
        puppet.out.clear();
    }
    // The write whose Commit finds no room is answered to nobody.
    let blocked = usize::from(puppet.applied.len() < 10_400);
    format!("{} of 10400", puppet.applied.len() - blocked)
}

fn still_leader(kind: Kind) -> String {
    let (mut puppet, _) = Puppet::following(kind, 1);
    // It was seen to live once.
    let (status, candidate) = (PeerStatus::Leading, member(3).election);
    puppet.hear_vote(3, Vote { status, candidate, epoch: Epoch(1), ..Vote::default() });
    puppet.pass(50_000);
    either(puppet.looks(), "looks", "waits")
}

fn junk(kind: Kind) -> String {
    let (mut puppet, _) = Puppet::leading(kind, 3, &Past::default());
    // With ours it is no datagram: whoever decodes it drops it, and the engine hears nothing.
    if let Some(node) = puppet.gometa() {
        node.hear_junk();
    }
    puppet.datagrams.clear();
    puppet.hear_vote(2, Vote { candidate: member(2).election, ..Vote::default() });
    either(puppet.datagrams.is_empty(), "mute", "answers")
}

fn wrong_door(kind: Kind) -> String {
    let (mut puppet, _) = Puppet::following(kind, 1);
    let conn = puppet.accept();
    puppet.introduce(conn, 2, 0, true);
    puppet.pass(8_000);
    let answers = !puppet.sent(conn).is_empty();
    assert!(!answers);
    either(puppet.is_open(conn), "waits", "closed")
}

fn both_at_once(kind: Kind) -> String {
    let mut puppet = Puppet::new(kind, 5, 5, &Past::default());
    if let Some(node) = puppet.gometa() {
        node.is_hasty = true;
    }
    puppet.elect(5);
    puppet.gather(&Past::default());
    either(puppet.leads(), "leads", "resigns")
}

fn late_vote(kind: Kind) -> String {
    let mut puppet = Puppet::new(kind, 2, 3, &Past::default());
    let for_of = |of: u64| Vote { round: 1, candidate: member(of).election, ..Vote::default() };
    puppet.hear_vote(3, for_of(3));
    let began_ms = puppet.now_ms;
    puppet.pass(190);
    puppet.hear_vote(1, for_of(1));
    // The longest wait there is, with all that chance adds.
    puppet.pass(began_ms + 250 - puppet.now_ms);
    either(puppet.looks(), "waits on", "elected")
}

fn stale_answer(kind: Kind) -> String {
    let mut puppet = Puppet::new(kind, 1, 3, &Past::default());
    let candidate = member(3).election;
    let answer = |status, epoch| Vote {
        round: 7,
        status,
        candidate: candidate.clone(),
        epoch: Epoch(epoch),
        ..Vote::default()
    };
    puppet.hear_vote(3, answer(PeerStatus::Leading, 4));
    puppet.hear_vote(2, answer(PeerStatus::Following, 3));
    puppet.pass(300);
    either(puppet.looks(), "not joined", "joined")
}

fn refusal(kind: Kind) -> String {
    let (mut puppet, conns) = Puppet::leading(kind, 3, &Past::default());
    puppet.request("a");
    puppet.request("b");
    if let Some(node) = puppet.gometa() {
        node.refuses_next = true;
    }
    // Ours refuses before there is an id: here because of what is asked.
    let op = if kind == Kind::Gometa { Op::SET } else { Op::GET };
    assert!(asks_for(&mut puppet, conns[0], op), "{kind:?}: refused");
    for counter in [1, 2] {
        puppet.hold(conns[0], 1, id(1, counter));
    }
    puppet.applied()
}

fn counter(kind: Kind) -> String {
    let mut puppet = match kind {
        Kind::Gometa => Puppet::new(kind, 3, 3, &Past::default()),
        Kind::Ours => {
            let counter_reserve = u32::MAX - COUNTER_MAX;
            let own = Config { allow_gometa_voters: true, counter_reserve, ..config(3, 3) };
            Puppet::of(Puppet::ours(own, &Past::default()), 3, 3)
        }
    };
    if let Some(node) = puppet.gometa() {
        node.counter_max = COUNTER_MAX;
    }
    puppet.elect(3);
    let conns = puppet.gather(&Past::default());
    for at in 1..=COUNTER_MAX + 1 {
        puppet.request("w");
        puppet.hold(conns[0], 1, id(1, at));
    }
    assert!(!puppet.leads());
    let how = if kind == Kind::Gometa { "gone" } else { "resigned" };
    format!("{how} after {}", puppet.applied.len())
}

fn fates(kind: Kind) -> String {
    let (mut puppet, conn) = Puppet::following(kind, 1);
    let fid = member(1).message;
    let ask = |puppet: &mut Puppet| {
        puppet.request("w");
        match &puppet.sent(conn)[..] {
            [Message::Request(Request { id, .. })] => *id,
            other => panic!("{kind:?}: {other:?}"),
        }
    };
    let (request, zxid) = (ask(&mut puppet), id(1, 1));
    let command = Command::set("k", "w");
    let placed = Proposal { zxid, fid: fid.clone(), request, command };
    puppet.hear(conn, Message::Proposal(placed));
    puppet.hear(conn, Message::Commit { zxid });
    puppet.sent(conn);
    let request = ask(&mut puppet);
    puppet.hear(conn, Message::Abort { request, fid, error: "no".to_owned() });
    ask(&mut puppet);
    puppet.handle(Event::Closed { conn });
    puppet.request("w");
    puppet.fates()
}

/// The leader keeps a state and no history: it makes up ids for all keys but the last.
fn deleted_key(kind: Kind) -> String {
    let mut puppet = Puppet::new(kind, 9, 3, &Past::default());
    for (epoch, keys, last) in [(1, &["a", "b"][..], id(1, 2)), (2, &["b"], id(1, 3))] {
        let conn = puppet.watch(epoch);
        let of_key = |(made_up, key): (u64, &&str)| {
            let zxid = if Some(key) == keys.last() { last } else { Zxid(made_up) };
            Message::LogEntry(LogEntry { zxid, command: Command::set(key, "v"), keep: None })
        };
        puppet.hear(conn, Message::LogEntry(LogEntry::begin(last, None)));
        for message in (1..).zip(keys).map(of_key) {
            puppet.hear(conn, message);
        }
        puppet.hear(conn, Message::LogEntry(LogEntry::end(last)));
        puppet.hear(conn, new_leader(epoch));
        puppet.handle(Event::Closed { conn });
        puppet.pass(3_000);
    }
    puppet.keys()
}

/// What a leader of ours sends that keeps its state alone is taken by a watcher of either kind; whoever
/// has something already has to be emptied, since a state has no deletions.
#[test]
fn a_state_of_ours_is_taken_by_whoever_watches() {
    for kind in [Kind::Gometa, Kind::Ours] {
        // A leader of one, by the name of the leader that the puppet knows.
        let alone = Config { members: vec![member(3)], ..config(3, 3) };
        let mut leader = Hand::new(alone, &Past::default());
        leader.pass(10);
        let mut puppet = Puppet::new(kind, 9, 3, &Past::default());
        for (round, keys, counter) in [(1, &["a", "b", "c"][..], 5), (2, &["b", "d"], 9)] {
            while leader.zab.status().last < Index(counter) {
                leader.propose("x");
            }
            let (index, zxid) = (Index(counter), id(1, counter as u32));
            let state: Vec<Command> = keys.iter().map(|key| Command::set(key, "v")).collect();
            let state = Snapshot::of_commands(index, zxid, &state);
            leader.storage.make_snapshot(index, state.data).unwrap();
            leader.storage.compact(index).unwrap();
            // The recorded watchers of such leaders keep nothing themselves.
            if kind == Kind::Gometa {
                puppet = Puppet::new(kind, 9, 3, &Past::default());
            }
            let conn = puppet.watch(1);
            puppet.sent(conn);
            let there = leader.accept();
            leader.hear(there, Message::FollowerInfo(watcher_of_gometa()));
            let ack = EpochAck { logged: Zxid::ZERO, current_epoch: Epoch(0), committed: None };
            leader.hear(there, Message::EpochAck(ack));
            for message in leader.sent(there).into_iter().skip(1) {
                puppet.hear(conn, message);
            }
            assert_eq!(puppet.keys(), keys.join(" "), "{kind:?}, round {round}");
            // It goes on with what is proposed.
            leader.hear(there, Message::NewLeaderAck);
            leader.zab.propose(Command::set("z", "v")).expect("it leads");
            leader.drive();
            for message in leader.sent(there) {
                puppet.hear(conn, message);
            }
            assert_eq!(puppet.keys(), format!("{} z", keys.join(" ")), "{kind:?}, round {round}");
            puppet.handle(Event::Closed { conn });
            puppet.pass(3_000);
        }
    }
}

fn watcher_of_gometa() -> FollowerInfo {
    FollowerInfo { fid: member(9).message, ..FollowerInfo::default() }
}
