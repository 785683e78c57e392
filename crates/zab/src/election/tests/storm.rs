//! Whatever a few nodes make of each other's votes, they come to rest, in no time at all.

use super::*;

/// Datagrams that any of them may take, per pair of nodes: a third more than was ever seen.
const DATAGRAMS_PER_PAIR_MAX: usize = 24;

/// Nodes that begin at one moment, in any order, with histories of any length. Some stand back, some are
/// late, some were followed in vain by some.
struct Hall {
    dice: Rng,
    sites: Vec<Site>,
    under_way: Vec<(u64, Address, Vote)>,
}

impl Hall {
    fn new(seed: u64) -> Self {
        let mut dice = Rng::new(seed, 0);
        let size = 3 + below(&mut dice, 5);
        let (failed, late) = (below(&mut dice, 4), below(&mut dice, 3));
        let mut sites: Vec<Site> = (1..=size).map(|own| Site::new(own, size)).collect();
        for site in &mut sites {
            site.now_ms = 100_000;
            site.standing.logged = id(1, below(&mut dice, 3) as u32);
            for candidate in (1..=size).map(address) {
                if candidate != site.election.own && below(&mut dice, 6) < failed {
                    site.election.on_failed(&candidate, site.now_ms);
                    site.election.on_failed(&candidate, site.now_ms);
                }
            }
            site.election.looks_since_ms = (below(&mut dice, 6) < late).then_some(0);
        }
        Hall { dice, sites, under_way: Vec::new() }
    }

    /// How many datagrams are taken until none is left. No time passes.
    fn run(&mut self) -> usize {
        let size = self.sites.len();
        let mut to_start: Vec<usize> = (0..size).collect();
        let back = below(&mut self.dice, 4);
        let mut to_stand_back: Vec<usize> =
            (0..size).filter(|_| below(&mut self.dice, 4) < back).collect();
        let mut count = 0;
        while !(to_start.is_empty() && to_stand_back.is_empty() && self.under_way.is_empty()) {
            match below(&mut self.dice, 12) {
                0 if !to_start.is_empty() => {
                    let at = below(&mut self.dice, to_start.len() as u64) as usize;
                    self.sites[to_start.swap_remove(at)].start();
                }
                1 if !to_stand_back.is_empty() => {
                    let at = below(&mut self.dice, to_stand_back.len() as u64) as usize;
                    self.sites[to_stand_back.swap_remove(at)].stand_back();
                }
                _ if !self.under_way.is_empty() => {
                    let at = below(&mut self.dice, self.under_way.len() as u64) as usize;
                    let (from, to, vote) = self.under_way.swap_remove(at);
                    let to = (0..size).find(|at| address(*at as u64 + 1) == to).unwrap();
                    self.sites[to].hear(from, vote);
                    count += 1;
                }
                _ => {}
            }
            for (from, site) in (1..).zip(&mut self.sites) {
                self.under_way.extend(site.sent().into_iter().map(|(to, vote)| (from, to, vote)));
            }
            if DATAGRAMS_PER_PAIR_MAX * size * size < count {
                break;
            }
        }
        count
    }
}

fn below(dice: &mut Rng, sides: u64) -> u64 {
    dice.next() % sides
}

#[test]
fn votes_come_to_rest_whoever_stands_back_is_late_or_is_passed_over() {
    for seed in 0..3_000 {
        let mut hall = Hall::new(seed);
        let (count, size) = (hall.run(), hall.sites.len());
        assert!(count <= DATAGRAMS_PER_PAIR_MAX * size * size, "seed {seed}: {size} nodes");
    }
}
