//! Whole ensembles in situations where something could go wrong.

use quorate_zab::{Event, Op, Outcome, Role};

use crate::net::{World, config};

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
