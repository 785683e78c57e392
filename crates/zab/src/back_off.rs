//! How long a node waits before it looks for a leader again.

use crate::Config;

/// Waits that double while nothing succeeds. A voter's first one is none at all: when a leader is
/// lost, the next election begins at once. But one that is turned away again and again, by a leader
/// that all others follow, must not keep everybody busy.
#[derive(Clone, Debug)]
pub(crate) struct BackOff {
    first_ms: u64,
    max_ms: u64,
    next_ms: u64,
    is_first_free: bool,
    is_next_free: bool,
}

impl BackOff {
    pub(crate) fn new(config: &Config) -> Self {
        let is_voter = config.is_voter();
        let (first_ms, max_ms) = match is_voter {
            true => (config.ballot_ms, config.ballot_ms_max),
            false => (config.backoff_ms, config.backoff_ms_max),
        };
        let (is_first_free, is_next_free) = (is_voter, is_voter);
        BackOff { first_ms, max_ms, next_ms: first_ms, is_first_free, is_next_free }
    }

    /// The next wait.
    pub(crate) fn take(&mut self) -> u64 {
        if std::mem::take(&mut self.is_next_free) {
            return 0;
        }
        let wait_ms = self.next_ms;
        self.next_ms = wait_ms.saturating_mul(2).min(self.max_ms);
        wait_ms
    }

    /// A leader was found and followed, or was this node: the next loss is a new one.
    pub(crate) fn reset(&mut self) {
        self.next_ms = self.first_ms;
        self.is_next_free = self.is_first_free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(back_off: &mut BackOff) -> Vec<u64> {
        (0..7).map(|_| back_off.take()).collect()
    }

    #[test]
    fn waits_double_and_begin_anew_after_a_success() {
        let (first_ms, max_ms) = (1000, 30_000);
        let mut watcher = BackOff {
            first_ms,
            max_ms,
            next_ms: first_ms,
            is_first_free: false,
            is_next_free: false,
        };
        assert_eq!(waits(&mut watcher), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        watcher.reset();
        assert_eq!(watcher.take(), 1000);
    }

    #[test]
    fn a_voter_does_not_wait_the_first_time() {
        let mut voter = BackOff {
            first_ms: 50,
            max_ms: 500,
            next_ms: 50,
            is_first_free: true,
            is_next_free: true,
        };
        assert_eq!(waits(&mut voter), [0, 50, 100, 200, 400, 500, 500]);
        voter.reset();
        assert_eq!((voter.take(), voter.take()), (0, 50));
    }
}
