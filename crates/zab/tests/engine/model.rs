//! An ensemble under random faults, watched by what ZAB promises (`net.rs`): one leader an epoch, and one
//! to whom a quorum promised it; one content and one predecessor for each id; one order of commits, each held by a quorum's disks at
//! that moment; leaders that lack nothing; promises kept over crashes; every request with one
//! outcome, and refused ones without effect; reads that see everything committed before. In the end,
//! once the faults stop, all agree and nothing waits.
//!
//! Votes prove nothing. So in some runs there is somebody who forges them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_types::{Index, bugs};
use quorate_zab::{Config, Event, Role, Status, Storage};

use crate::net::{Dice, World, config, seeds};

struct Model {
    world: World,
    size: u64,
    count: u64,
    /// Forged votes bring nodes to leaders whom nobody elects; and who has promised is cut off.
    is_misled: bool,
    /// Whose disk does nothing, up to which step, and whether it is fast otherwise.
    stalled: BTreeMap<u64, (u64, bool)>,
}

impl Model {
    /// One of `misled` worlds is misled.
    fn new(seed: u64, misled: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xabcd);
        let is_misled = dice.is_one_in(misled);
        // Where two leaders shall share an epoch, there must be voters for both.
        let size = if is_misled { 5 } else { [3, 3, 3, 4, 5, 5, 7][dice.roll(7) as usize] };
        let count = size + dice.roll(3);
        let connection_bytes_max = [64, 400, 1 << 20][dice.roll(3) as usize];
        let applying_count_max = [1, 3, 1000][dice.roll(3) as usize];
        let configs = (1..=count).map(|id| Config {
            seed: seed << 8 | id,
            ballot_ms: 20,
            ballot_ms_max: 100,
            finalize_ms: 40,
            keepalive_ms: 50,
            peer_silence_ms: 400,
            sync_timeout_ms: 500,
            establish_timeout_ms: 600,
            accept_timeout_ms: 500,
            outbid_ms: 800,
            backoff_ms: 50,
            backoff_ms_max: 200,
            behind_count_max: 50,
            proposals_count_max: 20,
            connection_bytes_max,
            applying_count_max,
            // Two of three watchers have nothing that is not committed.
            commit_only: !(seed + id).is_multiple_of(3),
            ..config(id, size)
        });
        let mut world = World::new(seed, configs.collect::<Vec<_>>());
        for id in 1..=count {
            world.at(id).is_fast = world.dice.is_one_in(3);
            world.start(id);
        }
        Model { world, size, count, is_misled, stalled: BTreeMap::new() }
    }

    fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.release(step);
            let world = &mut self.world;
            let id = 1 + world.dice.roll(self.count);
            if self.is_misled && world.dice.is_one_in(12) {
                self.mislead(id);
            }
            let world = &mut self.world;
            match world.dice.roll(1000) {
                0..=149 => {
                    world.now_ms += world.dice.roll(8);
                    let now_ms = world.now_ms;
                    world.handle(id, Event::Tick { now_ms });
                }
                150..=349 if !world.datagrams.is_empty() => {
                    let at = world.dice.roll(world.datagrams.len() as u64) as usize;
                    let (is_lost, is_doubled) =
                        (world.dice.is_one_in(20), world.dice.is_one_in(20));
                    world.deliver_datagram(at, is_lost, is_doubled);
                }
                350..=699 => {
                    let busy = world.busy_links();
                    if !busy.is_empty() {
                        let (link, end) = busy[world.dice.roll(busy.len() as u64) as usize];
                        for _ in 0..=world.dice.roll(4) {
                            world.deliver_on(link, end);
                        }
                    }
                }
                700..=749 if world.connecting() > 0 => {
                    let at = world.dice.roll(world.connecting() as u64) as usize;
                    world.connect_one(at);
                }
                750..=849 if !self.stalled.contains_key(&id) => {
                    world.sync_one(id);
                    world.drive(id);
                }
                850..=899 => {
                    world.apply_one(id);
                    world.drive(id);
                }
                900..=949 => drop(world.propose(id)),
                950..=959 => drop(world.read(id)),
                960..=965 => self.compact(id),
                966..=968 => world.crash(id),
                969..=979 => world.start(id),
                980..=981 => {
                    let other = 1 + world.dice.roll(self.count);
                    world.disconnect(id, other);
                }
                982 => {
                    let some = world.dice.roll(1 << self.count);
                    let some: Vec<u64> =
                        (1..=self.count).filter(|id| some >> (id - 1) & 1 == 1).collect();
                    world.partition(&some);
                }
                983..=987 => world.cut.clear(),
                988 => world.handle(id, Event::Resign),
                989 => self.stall(id, step),
                990..=991 => {
                    let now_ms = world.now_ms;
                    world.handle(id, Event::StandBack { now_ms });
                }
                _ => {}
            }
        }
    }

    /// Somebody sends a node that looks for a leader to one that was elected and has not got its quorums, or
    /// takes from such a one, once it was promised to, those who were to follow it.
    fn mislead(&mut self, id: u64) {
        let world = &mut self.world;
        let is_elected = |at: &u64| {
            let is_leading = |status: &Status| status.role == Role::Leading && !status.is_serving;
            world.is_up(*at) && is_leading(&world.status(*at))
        };
        let elected: Vec<u64> = (1..=self.size).filter(is_elected).collect();
        let at = match &elected[..] {
            elected if elected.is_empty() || world.dice.is_one_in(2) => {
                1 + world.dice.roll(self.size)
            }
            elected => elected[world.dice.roll(elected.len() as u64) as usize],
        };
        let status = world.is_up(at).then(|| world.status(at));
        let is_promised = status.is_some_and(|status| status.epoch == Some(status.current_epoch));
        match is_promised && elected.contains(&at) {
            true => (1..=self.size).for_each(|other| world.disconnect(at, other)),
            false => world.mislead(id, at),
        }
    }

    /// A node's disk stands still, maybe for longer than silence and a slow disk may last together; and
    /// maybe the leader dies meanwhile.
    fn stall(&mut self, id: u64, step: u64) {
        let world = &mut self.world;
        let until = step + world.dice.roll(4_000);
        let is_fast = std::mem::replace(&mut world.at(id).is_fast, false);
        self.stalled.entry(id).or_insert((until, is_fast));
        // Sooner or later that is noticed.
        if world.dice.is_one_in(2) {
            world.handle(id, Event::Stalled(true));
        }
        let leader = world.leader().filter(|leader| *leader != id);
        if let Some(leader) = leader.filter(|_| world.dice.is_one_in(2)) {
            world.crash(leader);
        }
    }

    /// The disks that stood still for long enough go on.
    fn release(&mut self, step: u64) {
        let is_due = |(_, (until, _)): &(&u64, &(u64, bool))| *until <= step;
        let due: Vec<u64> = self.stalled.iter().filter(is_due).map(|(id, _)| *id).collect();
        for id in due {
            if let Some((_, is_fast)) = self.stalled.remove(&id) {
                self.world.at(id).is_fast = is_fast;
                self.world.handle(id, Event::Stalled(false));
                self.world.drive(id);
            }
        }
    }

    /// Lets go of most of what a node has applied, or of what an older state stands for.
    fn compact(&mut self, id: u64) {
        let world = &mut self.world;
        let (kept, age) = (world.dice.roll(2), world.dice.roll(3));
        let node = world.at(id);
        let applied = Index(node.applied.len() as u64);
        let first = node.storage.first_index().unwrap();
        let known = node.storage.last_index().unwrap();
        if applied < first + 4 || known < applied || node.zab.is_none() {
            return;
        }
        let index = applied - age;
        if node.storage.snapshot().unwrap().index < index && first + kept < index {
            node.storage.make_snapshot(index, "state".into()).unwrap();
            node.storage.compact(index - kept).unwrap();
        }
    }

    /// No more faults.
    fn converge(&mut self) {
        let world = &mut self.world;
        world.cut.clear();
        for id in 1..=self.count {
            world.start(id);
            world.at(id).is_fast = true;
            while world.sync_one(id) || world.apply_one(id) {}
            world.drive(id);
        }
        world.deliver_all();
        for round in 0..400 {
            world.run_ms(50);
            if round % 10 == 3 {
                world.propose(1 + round % self.size);
            }
            if round > 20 && round % 10 == 0 && world.has_converged() {
                return;
            }
        }
        panic!("seed {}: no agreement:\n{}", world.seed, world.describe());
    }
}

#[test]
fn zab_keeps_its_promises_under_faults() {
    let (mut committed, mut answers, mut reads, mut leaders) = (0, 0, 0, 0);
    let seeds = seeds(0..60);
    let count = (seeds.end - seeds.start) as usize;
    for seed in seeds {
        let mut model = Model::new(seed, 4);
        model.run(8_000);
        model.converge();
        model.world.watch_all();
        committed += model.world.committed.len();
        answers += model.world.committed_answers;
        reads += model.world.answered_reads;
        leaders += model.world.leaders.len();
    }
    // The faults leave room for work.
    println!("{committed} entries, {answers} answers, {reads} reads, {leaders} leaderships");
    assert!(count * 15 < committed, "{committed} entries");
    assert!(count * 10 < answers, "{answers} answers");
    assert!(count < reads, "{reads} reads");
    assert!(count * 2 < leaders, "{leaders} leaderships");
}

/// gometa's weaknesses, put back one at a time: each breaks a promise within so many seeds.
const SEEDS_MAX: u64 = 1000;

#[test]
fn weaknesses_that_are_put_back_are_found() {
    let weaknesses = [
        "a-new-leader-passes-over-its-history",
        "joiners-miss-what-is-under-way",
        "ids-are-ordered-as-text",
        "a-promise-to-another-leader-counts",
        "a-snapshot-cuts-entries-that-match",
    ];
    let found = weaknesses.map(|weakness| {
        let breaks = |seed: &u64| {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let mut model = Model::new(*seed, 2);
                model.run(8_000);
                model.converge();
                model.world.watch_all();
            }));
            ran.is_err()
        };
        bugs::put_back(Some(weakness));
        let seed = (0..SEEDS_MAX).find(breaks);
        bugs::put_back(None);
        (weakness, seed)
    });
    println!("{found:?}");
    assert!(found.iter().all(|(_, seed)| seed.is_some()), "{found:?}");
}
