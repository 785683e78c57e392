//! Figures about a running node, for whoever exports them.
//!
//! Plain counters and gauges without names: the server gives them the names that dashboards know.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_kv::CommandKind;

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

/// Buckets of a [`Histogram`], and one above.
pub const BUCKETS: usize = 15;

/// Counts durations by size: up to 1 ms (the first bucket), doubling to 8.192 s (the last but one), and
/// above. etcd's buckets for what disks do.
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
        1000 << bucket
    }

    /// Counts by bucket, and the sum of all durations in microseconds.
    pub fn picture(&self) -> ([u64; BUCKETS], u64) {
        let counts = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        (counts, self.sum_us.load(Ordering::Relaxed))
    }
}

/// A batch that takes longer to apply is a slow one. etcd's default for a warning.
pub const SLOW_APPLY: Duration = Duration::from_millis(100);

/// Commands that were applied here, those asked for at other members included.
#[derive(Debug, Default)]
pub struct AppliedKinds {
    /// Puts outside transactions.
    pub puts: Counter,
    /// Deletions outside transactions.
    pub deletes: Counter,
    /// Transactions that may change something.
    pub txns: Counter,
    /// Leases granted.
    pub leases_granted: Counter,
    /// Leases revoked by a client.
    pub leases_revoked: Counter,
    /// Leases that ended because their time was up.
    pub leases_expired: Counter,
    /// How long they took, by [`AppliedKinds::OPERATIONS`], refused ones first.
    durations: [[Histogram; 2]; AppliedKinds::OPERATIONS.len()],
}

impl AppliedKinds {
    /// What is timed, by etcd's names.
    pub const OPERATIONS: [&str; 5] = ["Put", "DeleteRange", "Txn", "LeaseGrant", "LeaseRevoke"];

    /// How long commands took that were applied, or refused, by [`AppliedKinds::OPERATIONS`]: each its
    /// part of the batch that it was applied in.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, bool, &Histogram)> {
        let timed = AppliedKinds::OPERATIONS.into_iter().zip(&self.durations);
        timed.flat_map(|(operation, [refused, applied])| {
            [(operation, false, refused), (operation, true, applied)]
        })
    }

    pub(crate) fn on_applied(&self, kind: CommandKind, is_applied: bool, took: Duration) {
        let operation = match kind {
            CommandKind::Put => 0,
            CommandKind::DeleteRange => 1,
            CommandKind::Txn => 2,
            CommandKind::LeaseGrant => 3,
            CommandKind::LeaseRevoke | CommandKind::LeaseExpire => 4,
            _ => return,
        };
        self.durations[operation][usize::from(is_applied)].observe(took);
    }

    pub(crate) fn on_command(&self, kind: CommandKind) {
        let counter = match kind {
            CommandKind::Put => &self.puts,
            CommandKind::DeleteRange => &self.deletes,
            CommandKind::Txn => &self.txns,
            CommandKind::LeaseGrant => &self.leases_granted,
            CommandKind::LeaseRevoke => &self.leases_revoked,
            CommandKind::LeaseExpire => &self.leases_expired,
            _ => return,
        };
        counter.add(1);
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
    /// Batches that took longer than [`SLOW_APPLY`].
    pub slow_applies: Counter,
    /// What the machine was asked for, by kind.
    pub applied: AppliedKinds,
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
    /// Whether a received snapshot is being put in place: 0 or 1.
    pub installing: Gauge,
    /// Ticks of a leader that came more than one interval late, and with them its heartbeats.
    pub late_heartbeats: Counter,
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
    fn what_is_applied_is_timed_by_what_it_is() {
        let kinds = AppliedKinds::default();
        for (kind, is_applied) in [
            (CommandKind::Put, true),
            (CommandKind::Put, false),
            (CommandKind::LeaseExpire, true),
            (CommandKind::LeaseRevoke, true),
        ] {
            kinds.on_applied(kind, is_applied, Duration::from_micros(3));
        }
        let counted: Vec<_> = kinds
            .durations()
            .map(|(operation, is_applied, times)| (operation, is_applied, times.picture()))
            .filter(|(_, _, (counts, _))| 0 < counts[0])
            .map(|(operation, is_applied, (counts, sum_us))| {
                (operation, is_applied, counts[0], sum_us)
            })
            .collect();
        let want = [("Put", false, 1, 3), ("Put", true, 1, 3), ("LeaseRevoke", true, 2, 6)];
        assert_eq!(counted, want);
        assert_eq!(kinds.durations().count(), 2 * AppliedKinds::OPERATIONS.len());
    }

    #[test]
    fn durations_fall_into_their_bucket() {
        let histogram = Histogram::default();
        for (us, bucket) in
            [(0, 0), (1000, 0), (1001, 1), (2000, 1), (8_192_000, 13), (u64::MAX, 14)]
        {
            let before = histogram.picture().0[bucket];
            histogram.observe(Duration::from_micros(us));
            assert_eq!(histogram.picture().0[bucket], before + 1, "{us} us");
        }
    }
}
