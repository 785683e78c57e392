//! Figures about a running node, for whoever exports them.
//!
//! Plain counters and gauges without names: the server gives them the names that dashboards know.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A figure that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A figure that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a histogram of durations: from 0.5 ms (the first) doubling to 4 s, and one above.
pub const BUCKETS: usize = 15;

/// Counts durations by size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BUCKETS - 1).find(|at| us <= Self::limit_us(*at)).unwrap_or(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The largest duration, in microseconds, that a bucket but the last counts.
    pub fn limit_us(bucket: usize) -> u64 {
        500 << bucket
    }

    /// Counts by bucket, and the sum of all durations in microseconds.
    pub fn picture(&self) -> ([u64; BUCKETS], u64) {
        let counts = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        (counts, self.sum_us.load(Ordering::Relaxed))
    }
}

/// The figures of one node.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Groups of writes made durable.
    pub wal_groups: Counter,
    /// Writes in them.
    pub wal_writes: Counter,
    /// How long a group took.
    pub wal_sync: Histogram,
    /// Whether the volume of the log has no space left: 0 or 1.
    pub disk_full: Gauge,
    /// Whether the volume of the state has no space left for a flush: 0 or 1.
    pub state_full: Gauge,
    /// Whether the log waits until it can open its next file: 0 or 1.
    pub disk_out_of_files: Gauge,
    /// Bytes of the log on disk.
    pub wal_bytes: Gauge,
    /// Entries applied by the machine.
    pub applied_entries: Counter,
    /// How long a batch took to apply.
    pub apply_batch: Histogram,
    /// Flushes of the machine's state.
    pub flushes: Counter,
    /// How long a flush took.
    pub flush: Histogram,
    /// Changes of the known leader.
    pub leader_changes: Counter,
    /// Requests that were refused.
    pub refused: Counter,
    /// Requests whose fate is unknown: their deadline passed.
    pub unknown: Counter,
    /// Messages that found a full queue or no connection.
    pub messages_dropped: Counter,
    /// Messages from peers that were not understood.
    pub messages_malformed: Counter,
    /// Snapshots sent to the end.
    pub snapshots_sent: Counter,
    /// Snapshots installed.
    pub snapshots_installed: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Events in them.
    pub events: Counter,
}

impl Metrics {
    pub(crate) fn on_group(&self, writes: usize, took: Duration) {
        self.wal_groups.add(1);
        self.wal_writes.add(writes as u64);
        self.wal_sync.observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_bucket() {
        let histogram = Histogram::default();
        for (us, bucket) in [(0, 0), (500, 0), (501, 1), (1000, 1), (4_096_000, 13), (u64::MAX, 14)]
        {
            let before = histogram.picture().0[bucket];
            histogram.observe(Duration::from_micros(us));
            assert_eq!(histogram.picture().0[bucket], before + 1, "{us} us");
        }
    }
}
