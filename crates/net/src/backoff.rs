//! How long to wait before the next attempt: doubling, bounded, and never in step with others.

use std::time::Duration;

use crate::config::NetConfig;

#[derive(Debug)]
pub(crate) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(config: &NetConfig, salt: u64) -> Backoff {
        Backoff {
            min_ms: config.backoff_min_ms,
            max_ms: config.backoff_max_ms,
            next_ms: config.backoff_min_ms,
            random: config.seed ^ salt.rotate_left(32),
        }
    }

    /// The wait before the next attempt: between one half of the present bound and the whole.
    pub(crate) fn wait(&mut self) -> Duration {
        let bound = self.next_ms;
        self.next_ms = bound.saturating_mul(2).min(self.max_ms);
        let half = bound / 2;
        Duration::from_millis(bound - self.draw() % (half + 1))
    }

    pub(crate) fn reset(&mut self) {
        self.next_ms = self.min_ms;
    }

    /// SplitMix64: enough to keep nodes from knocking in step.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::NodeId;

    #[test]
    fn waits_double_up_to_the_bound_and_start_anew() {
        let mut config = NetConfig::new(7, NodeId(1));
        (config.backoff_min_ms, config.backoff_max_ms) = (100, 500);
        let mut backoff = Backoff::new(&config, 2);
        for round in 0..50 {
            for bound in [100, 200, 400, 500, 500] {
                let wait = backoff.wait().as_millis();
                assert!((bound / 2..=bound).contains(&wait), "round {round}: {wait} of {bound}");
            }
            backoff.reset();
        }
    }

    #[test]
    fn two_peers_do_not_knock_in_step() {
        let config = NetConfig::new(7, NodeId(1));
        let waits = |salt| {
            let mut backoff = Backoff::new(&config, salt);
            (0..8).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(2), waits(3));
        assert_eq!(waits(2), waits(2), "the same seed gives the same waits");
    }
}
