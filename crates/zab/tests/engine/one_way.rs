//! Networks in which some ways lead in one direction only, for as long as it takes.

use std::collections::BTreeSet;

use crate::net::{Dice, World, config, seeds};

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
