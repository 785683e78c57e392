//! Whole ensembles in situations where something could go wrong.

use bytes::Bytes;
use quorate_types::Index;
use quorate_zab::{
    Address, Command, ConnId, Epoch, EpochAck, Event, FollowerInfo, LeaderInfo, LogEntry, Message,
    Note, Op, Outcome, PeerStatus, Proposal, Request, Role, Snapshot, Vote, Zxid, caps,
};

use crate::net::{Dice, World, config, member};

#[test]
fn an_ensemble_elects_and_commits() {
    let mut world = World::ensemble(3, 1);
    let leader = world.run_until_led();
    assert_eq!(leader, 3, "the greatest address wins among equals");
    world.run_ms(300);
    for id in 1..=4 {
        assert!(world.propose(id).is_some(), "node {id} takes requests");
    }
    world.run_ms(100);
    assert!(world.has_converged(), "{}", world.describe());
    assert_eq!(world.committed.len(), 4);
    assert_eq!(world.status(4).role, Role::Observing);
}

#[test]
fn a_lost_leader_is_replaced_and_comes_back_as_a_follower() {
    let mut world = World::ensemble(3, 1);
    let first = world.run_until_led();
    world.run_ms(200);
    world.propose(1);
    world.run_ms(50);
    world.crash(first);
    let began_ms = world.now_ms;
    let second = world.run_until_led();
    assert!(world.now_ms - began_ms <= 300, "{} ms", world.now_ms - began_ms);
    assert_ne!(second, first);
    world.propose(second);
    world.run_ms(100);
    world.start(first);
    world.run_ms(3_000);
    assert_eq!(world.status(first).leader, world.status(second).leader);
    assert!(world.has_converged(), "{}", world.describe());
    assert_eq!(world.committed.len(), 2);
}

#[test]
fn whoever_notices_first_that_the_leader_is_gone_nobody_waits_for_a_vote_to_be_repeated() {
    for seed in 0..100 {
        let mut world = World::new(seed, (1..=3).map(|id| config(id, 3)));
        (1..=3).for_each(|id| world.start(id));
        let first = world.run_until_led();
        world.run_ms(300);
        world.propose(first);
        world.run_ms(50);

        // All are there and agree: no clock needs to move.
        world.handle(first, Event::Resign);
        world.deliver_in_any_order();
        let second = world.leader();
        let second = second.unwrap_or_else(|| panic!("seed {seed}\n{}", world.describe()));
        assert!((1..=3).all(|id| world.status(id).is_serving), "seed {seed}");

        // One is missing: the longest wait for it, 240 ms, and nothing else.
        world.crash(second);
        let began_ms = world.now_ms;
        while world.leader().is_none() && world.now_ms < began_ms + 1_000 {
            world.deliver_in_any_order();
            world.now_ms += 5;
            for id in 1..=3 {
                let now_ms = world.now_ms;
                world.handle(id, Event::Tick { now_ms });
            }
        }
        world.deliver_in_any_order();
        let took_ms = world.now_ms - began_ms;
        assert!(world.leader().is_some() && took_ms <= 250, "seed {seed}: {took_ms} ms");
    }
}

#[test]
fn a_member_whose_disk_takes_longer_than_silence_may_last_stays_with_its_leader() {
    let mut world = World::ensemble(3, 0);
    world.run_until_led();
    world.run_ms(300);
    world.crash(1);
    for _ in 0..5 {
        world.propose(3);
        world.run_ms(10);
    }
    world.at(1).notes.clear();
    world.at(1).is_fast = false;
    world.start(1);
    for _ in 0..10 {
        world.run_ms(7_000); // longer than `peer_silence_ms`, shorter than `sync_timeout_ms`
        while world.sync_one(1) {}
        while world.apply_one(1) {}
        world.drive(1);
    }
    assert!(world.has_converged(), "{}", world.describe());
    let left = |note: &&Note| matches!(note, Note::Left { .. });
    assert_eq!(world.at(1).notes.iter().find(left), None, "it never had to begin anew");
}

#[test]
fn a_disk_too_slow_for_its_leaders_patience_goes_on_where_it_was() {
    let mut world = World::ensemble(3, 0);
    world.run_until_led();
    world.run_ms(300);
    world.crash(1);
    for _ in 0..400 {
        world.propose(3);
    }
    world.run_ms(50);
    world.at(1).is_fast = false;
    world.is_traced = true;
    world.start(1);
    // Ten writes a second, of one entry each; meanwhile one more comes each second.
    let mut begun = 0;
    for round in 0..1_200 {
        if round % 10 == 0 && round < 900 {
            world.propose(3);
        }
        world.run_ms(100);
        world.sync_one(1);
        while world.apply_one(1) {}
        world.drive(1);
        begun = world.at(1).notes.iter().filter(|note| matches!(note, Note::Left { .. })).count();
    }
    assert!(world.has_converged(), "{}", world.describe());
    assert!(1 < begun, "its leader gave it up, again and again");
    let streamed = world.trace.iter().filter_map(|(_, to, message)| match message {
        Message::LogEntry(entry) if *to == 1 && entry.command.op.is_logged() => Some(entry.zxid),
        _ => None,
    });
    let streamed: Vec<Zxid> = streamed.collect();
    assert!(400 <= streamed.len());
    assert!(streamed.is_sorted_by(|one, next| one < next), "nothing is sent twice");
}

/// What the disk of a follower is at when it stops.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stalls {
    /// It is to accept proposals.
    Accepting,
    /// It is to promise to a new epoch.
    Promising,
    /// It is to keep what it was streamed.
    Synchronizing,
}

#[test]
fn a_leader_that_dies_while_the_disk_of_a_follower_stalls_is_replaced_and_nothing_is_lost() {
    for size in [3, 5] {
        for at in [Stalls::Accepting, Stalls::Promising, Stalls::Synchronizing] {
            for is_silent in [false, true] {
                let row = format!("{size} members, {at:?}, silent {is_silent}");
                let mut world = World::ensemble(size, 1);
                let mut leader = world.run_until_led();
                world.run_ms(300);
                world.propose(leader);
                world.run_ms(50);
                match at {
                    Stalls::Accepting => world.at(1).is_fast = false,
                    Stalls::Promising => {
                        world.at(1).is_fast = false;
                        world.handle(leader, Event::Resign);
                        leader = world.run_until_led();
                        world.run_ms(300);
                    }
                    Stalls::Synchronizing => {
                        world.crash(1);
                        world.propose(leader);
                        world.run_ms(50);
                        world.at(1).is_fast = false;
                        world.start(1);
                        world.run_ms(500);
                    }
                }
                for _ in 0..3 {
                    world.propose(leader);
                }
                world.run_ms(50);
                assert!(!world.at(1).writes.is_empty(), "{row}: something waits for the disk");
                world.at(1).notes.clear();
                let committed = world.committed.len();

                match is_silent {
                    true => {
                        // Its connections stay, and nothing comes on them.
                        world.partition(&[leader]);
                        world.stopped.insert(leader);
                    }
                    false => world.crash(leader),
                }
                // Longer than silence and a slow disk may last together.
                world.run_ms(20_000);
                let left = |note: &Note| matches!(note, Note::Left { .. });
                assert!(world.at(1).notes.iter().any(left), "{row}: it does not wait for the dead");
                // One that is stopped does not know yet that nobody follows it.
                let next = world.leader().filter(|next| *next != leader);
                // Of three, two are left, and one cannot write.
                assert_eq!(next.is_some(), size == 5, "{row}: {next:?}");
                if let Some(next) = next {
                    world.propose(next);
                    world.run_ms(50);
                    assert!(committed < world.committed.len(), "{row}: it holds nobody up");
                }

                world.at(1).is_fast = true;
                while world.sync_one(1) || world.apply_one(1) {}
                world.drive(1);
                world.run_ms(15_000);
                let next = world.leader().unwrap_or_else(|| panic!("{row}: {}", world.describe()));
                assert!(next != leader, "{row}");
                world.propose(next);
                world.cut.clear();
                world.stopped.clear();
                world.start(leader);
                world.run_ms(15_000);
                assert!(world.has_converged(), "{row}: {}", world.describe());
                assert!(committed < world.committed.len(), "{row}");
                world.watch_all();
            }
        }
    }
}

#[test]
fn nodes_that_are_told_the_time_only_when_they_want_to_know_do_as_well() {
    let mut world = World::ensemble(3, 1);
    world.is_lazy = true;
    let first = world.run_until_led();
    world.run_ms(300);
    world.propose(1);
    world.run_ms(50);
    world.ticks = 0;
    world.run_ms(60_000);
    // Two signs of life a second are all there is to do.
    assert!(world.ticks < 200, "{} ticks", world.ticks);
    assert!(world.has_converged(), "{}", world.describe());
    assert_eq!(world.leaders.len(), 1, "nobody has given up anybody");

    world.crash(first);
    let began_ms = world.now_ms;
    let second = world.run_until_led();
    assert!(world.now_ms - began_ms <= 300, "{} ms", world.now_ms - began_ms);
    world.start(first);
    world.run_ms(3_000);
    // It says nothing any more.
    world.partition(&[second]);
    world.stopped.insert(second);
    world.run_ms(6_000);
    assert_eq!(world.leader().filter(|leader| *leader != second), Some(first));
    world.propose(first);
    world.cut.clear();
    world.stopped.clear();
    world.run_ms(12_000);
    assert!(world.has_converged(), "{}", world.describe());
}

#[test]
fn a_leader_has_patience_for_each_of_its_quorums() {
    let mut world = World::new(1, (1..=3).map(|id| config(id, 3)));
    for id in [2, 3] {
        world.at(id).is_fast = false;
        world.start(id);
    }
    // Four writes, one after the other, take longer than `establish_timeout_ms`.
    for _ in 0..5 {
        world.run_ms(3_000);
        for id in [2, 3] {
            while world.sync_one(id) {}
            world.drive(id);
        }
        world.deliver_all();
    }
    assert_eq!(world.leader(), Some(3), "{}", world.describe());
    assert_eq!(world.status(3).epoch, Some(Epoch(1)));
}

#[test]
fn a_leader_that_stands_still_is_replaced() {
    let mut world = World::ensemble(3, 0);
    let first = world.run_until_led();
    world.run_ms(200);
    world.propose(first);
    world.run_ms(50);
    // It is not dead, it only says nothing any more.
    let others: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    world.partition(&others);
    world.run_ms(6_000);
    let second = world.leader().unwrap();
    assert!(others.contains(&second), "{}", world.describe());
    world.propose(second);
    world.run_ms(100);
    assert_eq!(world.committed.len(), 2);
    // And it no longer believes that it leads.
    assert!(!world.status(first).is_serving);
    world.cut.clear();
    world.run_ms(12_000);
    assert!(world.has_converged(), "{}", world.describe());
}

#[test]
fn a_candidate_whom_few_can_talk_with_does_not_keep_the_others_from_a_leader() {
    // Of six, 4 is gone, and 6, whose vote is the greatest, is passed on by those whom it reaches.
    for (reaches, hears) in
        [(&[5][..], &[5][..]), (&[2, 5], &[2, 5]), (&[1], &[5]), (&[1, 2, 3], &[5])]
    {
        let mut world = World::ensemble(6, 0);
        world.crash(4);
        for id in 1..=5 {
            if !reaches.contains(&id) {
                world.cut.insert((6, id));
            }
            if !hears.contains(&id) {
                world.cut.insert((id, 6));
            }
        }
        world.run_ms(100_000);
        let leader = world.leader().unwrap_or_else(|| panic!("{hears:?}: {}", world.describe()));
        assert!(leader != 6 && (1..=5).all(|id| id == 4 || world.status(id).is_serving));
    }
}

#[test]
fn a_tail_that_nobody_else_has_is_given_up_on_return() {
    let mut world = World::ensemble(3, 0);
    let first = world.run_until_led();
    world.run_ms(200);
    for _ in 0..7 {
        world.propose(first);
    }
    world.run_ms(50);
    // Three more, which only it has.
    let others: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    world.partition(&others);
    let lost: Vec<_> = (0..3).map(|_| world.propose(first).unwrap()).collect();
    world.run_ms(50);
    assert_eq!(world.status(first).last.0, 10);
    world.crash(first);
    world.run_ms(8_000);
    let second = world.leader().unwrap();
    world.propose(second);
    world.run_ms(50);
    world.cut.clear();
    world.start(first);
    world.run_ms(3_000);
    assert!(world.has_converged(), "{}", world.describe());
    assert_eq!(world.committed.len(), 8, "{lost:?} never happened");
    // It leads again one day, with the history of all.
    world.crash(second);
    world.run_ms(3_000);
    world.start(second);
    world.run_ms(3_000);
    assert!(world.has_converged(), "{}", world.describe());
}

#[test]
fn all_restart_with_tails_of_different_length() {
    let mut world = World::ensemble(5, 0);
    let first = world.run_until_led();
    world.run_ms(500);
    for _ in 0..3 {
        world.propose(first);
    }
    world.run_ms(50);
    // 4 gets one more than the others, and nobody commits it.
    world.partition(&[first, 4]);
    world.propose(first);
    world.run_ms(20);
    let longest = (1..=5).map(|id| world.status(id).last.0).max().unwrap();
    assert_eq!((world.committed.len(), longest), (3, 4));
    for id in 1..=5 {
        world.crash(id);
    }
    world.cut.clear();
    for id in 1..=5 {
        world.start(id);
    }
    world.run_ms(5_000);
    assert!(world.has_converged(), "{}", world.describe());
    assert_eq!(
        world.committed.len(),
        4,
        "the longest of a quorum leads, and all of it is committed"
    );
}

#[test]
fn moving_partitions_lose_nothing_that_was_answered() {
    let mut world = World::ensemble(3, 0);
    world.run_until_led();
    world.run_ms(300);
    for part in [vec![1, 2], vec![2, 3], vec![1, 3], vec![3], vec![2]] {
        world.partition(&part);
        for _ in 0..40 {
            for id in 1..=3 {
                world.propose(id);
            }
            world.run_ms(200);
        }
    }
    world.cut.clear();
    world.run_ms(40_000);
    assert!(world.has_converged(), "{}", world.describe());
    let outcomes = world.nodes.values().flat_map(|node| &node.answers);
    let of = |want: fn(&Outcome) -> bool| outcomes.clone().filter(|(_, found)| want(found)).count();
    let committed = of(|outcome| matches!(outcome, Outcome::Committed { .. }));
    let unknown = of(|outcome| matches!(outcome, Outcome::Unknown));
    assert!(committed > 100 && unknown > 0, "{committed} committed, {unknown} unknown");
    assert!(committed <= world.committed.len());
    world.watch_all();
}

#[test]
fn what_a_quorum_holds_survives_a_crash_at_every_write() {
    // Members crash one after the other, each before its n-th write from then on.
    for victim in 1..=3 {
        for survived in 0..8 {
            let mut world = World::ensemble(3, 0);
            let first = world.run_until_led();
            world.run_ms(200);
            for _ in 0..3 {
                world.propose(first);
            }
            world.run_ms(50);
            assert_eq!(world.committed.len(), 3);
            world.crash(first);
            if world.is_up(victim) {
                world.crash(victim);
            }
            world.start(victim);
            world.at(victim).is_fast = false;
            for step in 0..400 {
                world.run_ms(10);
                while !world.at(victim).writes.is_empty() && step < survived {
                    world.sync_one(victim);
                    world.apply_one(victim);
                    world.drive(victim);
                }
                if step == survived + 3 {
                    world.crash(victim);
                    world.at(victim).is_fast = true;
                    world.start(victim);
                }
            }
            world.start(first);
            world.run_ms(12_000);
            assert!(world.has_converged(), "{victim} {survived}: {}", world.describe());
            assert_eq!(world.committed.len(), 3, "{victim} {survived}");
        }
    }
}

#[test]
fn a_bad_operation_harms_nobody() {
    let mut world = World::ensemble(3, 0);
    let leader = world.run_until_led();
    world.run_ms(200);
    for op in [Op::GET, Op::STREAM_END, Op::INVALID] {
        for id in 1..=3 {
            let command = quorate_zab::Command { op, ..quorate_zab::Command::set("k", "v") };
            assert!(world.propose_command(id, command).is_none(), "{op:?}");
        }
    }
    world.propose(1);
    world.run_ms(100);
    assert_eq!(world.leader(), Some(leader));
    assert!(world.has_converged(), "{}", world.describe());
    assert_eq!(world.committed.len(), 1);
}

#[test]
fn a_leader_hands_over_by_resigning() {
    let mut world = World::ensemble(3, 0);
    let first = world.run_until_led();
    world.run_ms(200);
    for _ in 0..5 {
        world.propose(first);
    }
    world.handle(first, Event::Resign);
    world.run_ms(1_000);
    assert!(world.has_converged(), "{}", world.describe());
    let unknown = world.nodes.values().flat_map(|node| &node.answers);
    assert!(unknown.clone().all(|(_, outcome)| matches!(outcome, Outcome::Committed { .. })));
    assert_eq!(unknown.count(), 5);
    assert_eq!(world.leaders.len(), 2, "another epoch");
}

#[test]
fn runs_repeat_from_their_seed() {
    let run = || {
        let mut world = World::new(7, (1..=3).map(|id| config(id, 3)));
        world.is_traced = true;
        for id in 1..=3 {
            world.start(id);
        }
        world.run_ms(500);
        world.propose(1);
        world.run_ms(500);
        world.trace
    };
    assert_eq!(run(), run());
}

/// Any message, with numbers that could be true.
fn anything(dice: &mut Dice) -> Message {
    let zxid = match dice.roll(4) {
        0 => Zxid(dice.roll(u64::MAX)),
        _ => Zxid::new(Epoch(dice.roll(4) as u32), dice.roll(6) as u32),
    };
    let epoch = Epoch(match dice.roll(5) {
        0 => u32::MAX,
        _ => dice.roll(4) as u32,
    });
    let fid = match dice.roll(3) {
        0 => Address::from("10.9.9.9:2"),
        _ => member(1 + dice.roll(3)).message,
    };
    let op = Op(dice.roll(9) as u32);
    let command = Command { op, ..Command::set("k", "h") };
    let (request, number) = (dice.roll(5), dice.roll(9));
    let (error, content) = ("e".to_owned(), Some(Bytes::new()));
    match dice.roll(18) {
        0 => Message::Vote(Vote::default()),
        // Who claims to be a member must be known to the connection below: not the engine's business.
        1 => Message::FollowerInfo(FollowerInfo {
            accepted_epoch: epoch,
            fid: "10.9.9.9:2".into(),
            voting: dice.is_one_in(3),
            caps: (!dice.is_one_in(3)).then_some(caps::ALL),
            accepted_leader: Some(fid),
        }),
        2 => Message::LeaderInfo(LeaderInfo { epoch, caps: Some(number) }),
        3 => Message::EpochAck(EpochAck {
            logged: zxid,
            current_epoch: epoch,
            committed: Some(zxid),
        }),
        4 => Message::LogEntry(LogEntry { zxid, command, keep: Some(zxid) }),
        5 => Message::NewLeader { epoch },
        6 => Message::NewLeaderAck,
        7 => Message::Request(Request { id: request, command }),
        8 => Message::Proposal(Proposal { zxid, fid, request, command }),
        9 => Message::Accept { zxid, fid },
        10 => Message::Commit { zxid },
        11 => Message::Abort { request, fid, error },
        12 => Message::Response { request, fid, error, content },
        13 => Message::Ping { number },
        14 => Message::Pong { number },
        15 => Message::Snapshot(Snapshot { index: Index(number), zxid, data: Bytes::new() }),
        16 => Message::ReadIndex { id: number },
        _ => Message::ReadIndexReply { id: number, index: Some(Index(number)) },
    }
}

#[test]
fn hostile_messages_end_no_more_than_their_connection() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut world = World::new(seed, (1..=3).map(|id| config(id, 3)));
        for id in 1..=3 {
            world.start(id);
        }
        let mut next = 1 << 40;
        for round in 0..150 {
            world.run_ms(10);
            let target = 1 + dice.roll(3);
            next += 1;
            let conn = ConnId(next);
            world.handle(target, Event::Accepted { conn });
            // Part of the way as a learner would go, then anything.
            let zxid = Zxid::ZERO;
            let handshake = [
                Message::FollowerInfo(FollowerInfo {
                    fid: "10.9.9.9:2".into(),
                    caps: (round % 2 == 0).then_some(caps::ALL),
                    ..FollowerInfo::default()
                }),
                Message::EpochAck(EpochAck {
                    logged: zxid,
                    current_epoch: Epoch(0),
                    committed: Some(zxid),
                }),
                Message::NewLeaderAck,
            ];
            for message in handshake.into_iter().take(dice.roll(4) as usize) {
                world.handle(target, Event::Received { conn, message });
            }
            for _ in 0..3 {
                let message = anything(&mut dice);
                world.handle(target, Event::Received { conn, message });
            }
            let vote = Vote {
                round: dice.roll(4),
                status: [PeerStatus::Electing, PeerStatus::Leading][dice.roll(2) as usize],
                candidate: member(1 + dice.roll(4)).election,
                solicit: dice.is_one_in(2),
                ..Vote::default()
            };
            world.handle(target, Event::Datagram { from: member(9).election, vote });
            if round > 60 && round % 10 == 0 {
                world.propose(1 + dice.roll(3));
            }
        }
        world.run_ms(13_000);
        assert!(world.has_converged(), "seed {seed}: {}", world.describe());
        assert_eq!(world.leaders.len(), 1, "seed {seed}: the leader was never disturbed");
        assert!(5 < world.committed_answers, "seed {seed}");
    }
}
