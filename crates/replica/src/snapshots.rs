//! When the machine's state is flushed and how far the log may be compacted.
//!
//! ```text
//! mark <= flushed <= applied          the log holds everything after mark
//! ```
//! State that is flushed need not be replayed, so the log up to there may go, but for a tail that
//! lets slow peers catch up by log instead of by snapshot.

use quorate_types::Index;

use crate::Config;

/// How many times `log_bytes_max` the log may hold for peers that get snapshots: less than it may hold at all.
const SENDING_FACTOR: u64 = 6;

/// Bookkeeping for flushes, compaction, and snapshots to peers.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    flushed: Index,
    /// Bytes applied since the flush under way was begun, or since the last one.
    applied_bytes: u64,
    flushing: bool,
    last_flush_ticks: u64,
    /// Snapshots on their way to peers, and the lowest index among them.
    sending: usize,
    sending_index: Index,
}

impl Snapshots {
    pub(crate) fn new(flushed: Index) -> Self {
        Snapshots { flushed, ..Snapshots::default() }
    }

    pub(crate) fn flushed(&self) -> Index {
        self.flushed
    }

    /// Entries of this many bytes were handed to the machine.
    pub(crate) fn on_applying(&mut self, bytes: u64) {
        self.applied_bytes += bytes;
    }

    /// Whether to flush now; then a flush is under way until [`Snapshots::on_flushed`].
    pub(crate) fn flush_due(&mut self, config: &Config, applied: Index, now_ticks: u64) -> bool {
        // Whatever else is wished for: only what is flushed can leave the log.
        let bytes = config.flush_bytes.min(config.log_bytes_max);
        let due = !self.flushing
            && self.flushed < applied
            && (config.flush_entries <= applied - self.flushed
                || bytes <= self.applied_bytes
                || self.last_flush_ticks + config.flush_ticks <= now_ticks);
        if due {
            self.flushing = true;
            self.applied_bytes = 0;
            self.last_flush_ticks = now_ticks;
        }
        due
    }

    pub(crate) fn on_flushed(&mut self, index: Index) {
        self.flushing = false;
        self.flushed = self.flushed.max(index);
    }

    /// A snapshot with state up to `index` goes to a peer.
    pub(crate) fn on_sending(&mut self, index: Index) {
        self.sending_index = if self.sending == 0 { index } else { self.sending_index.min(index) };
        self.sending += 1;
    }

    /// One of them arrived or failed. Returns whether none is left.
    pub(crate) fn on_sent(&mut self) -> bool {
        self.sending = self.sending.saturating_sub(1);
        self.sending == 0
    }

    /// Whether no snapshot is on its way to a peer.
    pub(crate) fn none_sending(&self) -> bool {
        self.sending == 0
    }

    /// How far the log may be compacted, if that is worth a record.
    pub(crate) fn compact_through(
        &self,
        config: &Config,
        mark: Index,
        log_bytes: u64,
        bytes_through: impl Fn(Index) -> u64,
    ) -> Option<Index> {
        let mut through = self.flushed - config.tail_entries;
        if config.log_bytes_max < log_bytes {
            // Too long in bytes: give up the tail as far as needed, never more than is flushed.
            let excess = log_bytes - config.log_bytes_max / 2;
            let (mut low, mut high) = (mark.max(through), self.flushed);
            while low < high {
                let middle = low + (high - low) / 2;
                if bytes_through(middle) < excess { low = middle.next() } else { high = middle }
            }
            through = through.max(low);
        }
        // A peer that installs the snapshot on its way needs the log right after it. The bound on
        // bytes wins over that: the peer then gets another snapshot.
        if 0 < self.sending && log_bytes <= SENDING_FACTOR * config.log_bytes_max {
            through = through.min(self.sending_index);
        }
        let through = through.min(self.flushed);
        let worth = (config.tail_entries / 2).max(config.flush_entries / 2).max(1);
        let many = mark + worth <= through;
        (many || (config.log_bytes_max < log_bytes && mark < through)).then_some(through)
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::NodeId;

    use super::*;

    fn config() -> Config {
        Config {
            flush_entries: 100,
            flush_bytes: 1000,
            flush_ticks: 10,
            tail_entries: 50,
            log_bytes_max: 10_000,
            ..Config::new(NodeId(1), 1)
        }
    }

    #[test]
    fn flushes_come_by_count_bytes_or_age_and_one_at_a_time() {
        let config = config();
        let mut snapshots = Snapshots::new(Index(7));
        assert!(!snapshots.flush_due(&config, Index(7), 1000), "nothing to flush");
        assert!(!snapshots.flush_due(&config, Index(8), 9));
        assert!(snapshots.flush_due(&config, Index(8), 10), "by age");
        assert!(!snapshots.flush_due(&config, Index(1000), 100), "one is under way");
        snapshots.on_flushed(Index(8));
        assert!(!snapshots.flush_due(&config, Index(107), 11));
        assert!(snapshots.flush_due(&config, Index(108), 11), "by count");
        snapshots.on_flushed(Index(108));
        snapshots.on_applying(1000);
        assert!(snapshots.flush_due(&config, Index(109), 12), "by bytes");
        snapshots.on_flushed(Index(109));
        let config = Config { log_bytes_max: 500, ..config };
        snapshots.on_applying(499);
        assert!(!snapshots.flush_due(&config, Index(110), 13));
        snapshots.on_applying(1);
        assert!(snapshots.flush_due(&config, Index(110), 13), "before the log is too long");
    }

    #[test]
    fn the_log_keeps_a_tail_unless_it_is_too_long_in_bytes() {
        let config = config();
        let mut snapshots = Snapshots::new(Index(0));
        snapshots.on_flushed(Index(200));
        // Ten bytes an entry.
        let through = |mark, log_bytes| {
            snapshots.compact_through(&config, Index(mark), log_bytes, |index| index.0 * 10)
        };
        assert_eq!(through(0, 2_000), Some(Index(150)));
        assert_eq!(through(120, 2_000), None, "not worth a record");
        assert_eq!(
            through(0, 11_000),
            Some(Index(200)),
            "bytes beat the tail, flushed beats bytes"
        );
    }

    #[test]
    fn a_snapshot_on_its_way_keeps_the_log_after_it() {
        let config = config();
        let mut snapshots = Snapshots::new(Index(0));
        snapshots.on_flushed(Index(500));
        snapshots.on_sending(Index(130));
        snapshots.on_sending(Index(120));
        let through = |snapshots: &Snapshots, log_bytes| {
            snapshots.compact_through(&config, Index(0), log_bytes, |index| index.0 * 10)
        };
        assert_eq!(through(&snapshots, 5_000), Some(Index(120)));
        assert_eq!(through(&snapshots, 60_001), Some(Index(500)), "but not for ever");
        assert!(!snapshots.on_sent());
        assert!(snapshots.on_sent());
        assert_eq!(through(&snapshots, 5_000), Some(Index(450)));
    }
}
