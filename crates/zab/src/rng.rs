//! Chance, from a seed: jitter of timers, and request ids.

/// SplitMix64: small, and good enough to keep timers apart.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Nodes of one ensemble draw different numbers from the same seed.
    pub(crate) fn new(seed: u64, id: u64) -> Self {
        let mut rng = Rng(seed);
        let mixed = rng.next() ^ id;
        Rng(mixed)
    }

    /// `base_ms`, and up to a fifth of it more.
    pub(crate) fn jittered(&mut self, base_ms: u64) -> u64 {
        base_ms.saturating_add(self.next() % (base_ms / 5 + 1))
    }

    pub(crate) fn next(&mut self) -> u64 {
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
    fn jitter_adds_a_fifth_at_most_and_repeats_from_its_seed() {
        let (mut one, mut same) = (Rng::new(7, 1), Rng::new(7, 1));
        let drawn: Vec<u64> = (0..1000).map(|_| one.jittered(200)).collect();
        assert!(drawn.iter().all(|ms| (200..=240).contains(ms)), "{drawn:?}");
        assert!(drawn.contains(&200) && drawn.contains(&240), "{drawn:?}");
        assert!(drawn.iter().all(|ms| *ms == same.jittered(200)));
        assert_ne!(Rng::new(7, 1).next(), Rng::new(7, 2).next());
    }
}
