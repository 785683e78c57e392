//! Networks in which some ways lead in one direction only, for as long as it takes.

use std::collections::BTreeSet;

use quorate_zab::{Config, Event, PeerStatus, Role, Vote};

use crate::hand::{Hand, Past};
use crate::net::{Dice, World, config, member, seeds};

/// Where a majority can talk with each other there is a leader before long, and it stays, whatever else the
/// others reach, or are reached by.
#[test]
fn a_connected_majority_is_led_whatever_the_others_reach() {
    // In the latter some voted for ever for one that did not hear it.
    for seed in seeds(0..8).chain([291, 297, 440, 472, 492, 506]) {
        let mut dice = Dice::new(seed);
        let size = [3, 5, 5, 7][dice.roll(4) as usize];
        let mut world = World::new(seed, (1..=size).map(|id| config(id, size)));
        (1..=size).for_each(|id| world.start(id));
        if dice.is_one_in(2) {
            work_for_a_while(&mut world, &mut dice);
        }
        let majority = some_majority(size, &mut dice);
        cut_ways_of_others(&mut world, &mut dice, size, &majority);
        world.run_ms(60_000);
        let epochs = world.leaders.len();
        for _ in 0..3 {
            let committed = world.committed.len();
            for _ in 0..10 {
                for id in &majority {
                    world.propose(*id);
                }
                world.run_ms(1_000);
            }
            let row = || format!("seed {seed}: {majority:?}, cut {:?}", world.cut);
            assert!(committed < world.committed.len(), "{}: nobody leads", row());
        }
        assert!(world.leaders.len() <= epochs + 1, "seed {seed}: no leader stays");
    }
}

/// Some have more than others when it begins.
fn work_for_a_while(world: &mut World, dice: &mut Dice) {
    world.run_ms(1_000 + dice.roll(1_000));
    for _ in 0..dice.roll(20) {
        if let Some(leader) = world.leader() {
            world.propose(leader);
            if dice.is_one_in(3) {
                world.run_ms(10);
            }
        }
    }
    if dice.is_one_in(2)
        && let Some(leader) = world.leader()
    {
        world.crash(leader);
        world.start(leader);
    }
}

fn some_majority(size: u64, dice: &mut Dice) -> BTreeSet<u64> {
    let mut ids: Vec<u64> = (1..=size).collect();
    for at in (1..ids.len()).rev() {
        ids.swap(at, dice.roll(at as u64 + 1) as usize);
    }
    ids.into_iter().take(size as usize / 2 + 1).collect()
}

fn cut_ways_of_others(world: &mut World, dice: &mut Dice, size: u64, majority: &BTreeSet<u64>) {
    world.is_connecting_both_ways = true;
    let kinds = if dice.is_one_in(2) { 4 } else { 2 };
    for one in 1..=size {
        for other in one + 1..=size {
            if majority.contains(&one) && majority.contains(&other) {
                continue;
            }
            let (there, back) = ((one, other), (other, one));
            match dice.roll(kinds) {
                0 => world.cut.extend([there, back]),
                1 => {}
                2 => world.cut.extend([there]),
                _ => world.cut.extend([back]),
            }
        }
    }
}

/// Runs until there is a leader, for two minutes at most.
fn is_led(world: &mut World) -> bool {
    (0..120).any(|_| {
        world.run_ms(1_000);
        world.leader().is_some()
    })
}

/// As the replica sets its engine for an election timeout of so much.
fn of_replica(id: u64, size: u64, election_ms: u64) -> Config {
    let (default, keepalive_ms) = (config(id, size), (election_ms / 10).max(10));
    Config {
        keepalive_ms,
        peer_silence_ms: election_ms.max(2 * keepalive_ms),
        sync_timeout_ms: default.sync_timeout_ms.max(3 * election_ms),
        establish_timeout_ms: 3 * election_ms,
        outbid_ms: 3 * election_ms,
        accept_timeout_ms: default.accept_timeout_ms.max(3 * election_ms),
        commit_only: false,
        ..default
    }
}

/// All of a majority reach each other. The others hear all of them, and each is heard by one: whoever votes
/// for it has to make room, one after the other.
#[test]
fn whoever_makes_room_does_so_until_all_others_have_whatever_the_timeouts() {
    for (election_ms, outsiders) in [(1_000, 4), (500, 4), (300, 3), (100, 2), (100, 3)] {
        let (size, inner) = (2 * outsiders + 1, outsiders + 1);
        for seed in 1..=3 {
            let nodes = (1..=size).map(|id| of_replica(id, size, election_ms));
            let mut world = World::new(seed, nodes);
            world.is_lazy = true;
            world.is_connecting_both_ways = true;
            (1..=size).for_each(|id| world.start(id));
            for one in inner + 1..=size {
                let others = (1..=size).filter(|other| *other != one && *other != one - inner);
                world.cut.extend(others.map(|other| (one, other)));
                world.cut.insert((one - inner, one));
            }
            let row = format!("{election_ms} ms, {outsiders} outsiders, seed {seed}");
            assert!(is_led(&mut world), "{row}: nobody leads");
        }
    }
}

/// Node 2 hears 1, 3 and 4, and they hear it, but hardly each other.
#[test]
fn who_is_heard_by_a_majority_is_elected_although_that_hardly_hears_itself() {
    let mut world = World::new(1712, (1..=5).map(|id| config(id, 5)));
    world.is_lazy = true;
    world.is_connecting_both_ways = true;
    (1..=5).for_each(|id| world.start(id));
    world.cut.extend([(1, 3), (1, 4), (3, 4), (3, 5), (4, 5), (5, 2), (5, 3)]);
    assert!(is_led(&mut world));
}

/// Nodes 1, 2 and 3 of five reach each other again. Node 5 is gometa's and hears nobody: so it votes for
/// itself in its first round for ever, and node 1 alone hears it.
#[test]
fn who_hears_nobody_is_voted_for_in_vain_for_a_while_only() {
    for outage_ms in [3_000, 12_000] {
        let ours = |id| Config { allow_gometa_voters: true, ..config(id, 5) };
        let mut world = World::new(1, (1..=5).map(ours));
        world.is_connecting_both_ways = true;
        (1..=3).for_each(|id| world.start(id));
        world.cut.extend((1..=3).flat_map(|one| (1..=3).map(move |other| (one, other))));
        let mut is_led = false;
        for step in 0..1_200 {
            if step * 100 == outage_ms {
                world.cut.clear();
            }
            if step % 5 == 0 {
                let (status, candidate) = (PeerStatus::Electing, member(5).election);
                let vote = Vote { round: 1, status, candidate, ..Vote::default() };
                world.handle(1, Event::Datagram { from: member(5).election, vote });
            }
            world.run_ms(100);
            is_led |= world.leader().is_some();
        }
        assert!(is_led, "after {outage_ms} ms: nobody leads");
    }
}

/// Node 5 of five makes room, and follows the one it made room for, once in vain.
#[test]
fn who_makes_room_does_so_in_later_ballots_too() {
    let mut hand = Hand::new(config(5, 5), &Past::default());
    hand.pass(10_600);
    let hear = |hand: &mut Hand| {
        let round = hand.zab.status().round;
        for from in [1, 2] {
            let (status, candidate) = (PeerStatus::Electing, member(1).election);
            hand.hear_vote(from, Vote { round, status, candidate, ..Vote::default() });
        }
    };
    while hand.role() == Role::Looking && hand.now_ms < 30_000 {
        hear(&mut hand);
        hand.pass(100);
    }
    assert_eq!(hand.role(), Role::Following);
    hand.handle(Event::ConnectFailed { to: member(1).message });
    for _ in 0..4 {
        hand.pass(100);
        hear(&mut hand);
    }
    let (_, last) = hand.datagrams.last().expect("it says something");
    assert!(last.solicit || last.candidate != member(5).election, "it stands again: {last:?}");
}
