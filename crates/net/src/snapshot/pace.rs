//! The rate that all outgoing snapshots share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second_max: Option<u64>,
    /// When all that was granted has had its time.
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second_max: Option<u64>) -> Pace {
        Pace { bytes_per_second_max, free_at: Mutex::new(None) }
    }

    /// Grants `bytes`, to be sent no earlier than the time returned.
    pub(crate) fn grant(&self, bytes: u64, now: Instant) -> Instant {
        let Some(rate) = self.bytes_per_second_max else {
            return now;
        };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free_at.map_or(now, |free_at| free_at.max(now));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Beyond what a clock can show there is no end anyway.
        *free_at = Some(start.checked_add(takes).unwrap_or(start));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_of_all_senders_share_the_rate() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let pace = Pace::new(Some(1_000));
        for (bytes, at, want) in [
            (500, 0, 0),
            (250, 0, 500),       // after the first
            (100, 600, 750),     // after the second
            (100, 2_000, 2_000), // what was not used is not saved up
            (100, 2_000, 2_100),
        ] {
            assert_eq!(pace.grant(bytes, now + ms(at)), now + ms(want), "{bytes} at {at}");
        }
        assert_eq!(Pace::new(None).grant(u64::MAX, now), now);
    }
}
