//! Chance, from a seed. Only election timeouts depend on it.

use quorate_types::NodeId;

/// SplitMix64: small, and good enough to keep election timeouts apart.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Nodes of one group draw different numbers from the same seed.
    pub(crate) fn new(seed: u64, id: NodeId) -> Self {
        let mut rng = Rng(seed);
        let mixed = rng.next() ^ id.0;
        Rng(mixed)
    }

    /// A number from 0 up to and excluding `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        // The high half of a product: uniform but for one part in 2^32.
        ((u64::from(bound) * (self.next() >> 32)) >> 32) as u32
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_cover_the_range_evenly_and_repeat() {
        let mut counts = [0; 10];
        let (mut one, mut same) = (Rng::new(7, NodeId(1)), Rng::new(7, NodeId(1)));
        for _ in 0..10_000 {
            let drawn = one.below(10);
            assert_eq!(drawn, same.below(10));
            counts[drawn as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        let mut other = Rng::new(7, NodeId(2));
        let differ = (0..100).filter(|_| one.below(1000) != other.below(1000)).count();
        assert!(differ > 90, "nodes with one seed drew {differ} of 100 numbers differently");
    }
}
