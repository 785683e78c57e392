//! The figures of this member under the names that dashboards and alerts for etcd look for, and some
//! of our own that begin with `quorate_`.
//!
//! All are read when they are asked for; nothing here is on the way of a request.

mod autopilot;
mod clients;
mod page;
mod peers;
mod process;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::calls::Calls;
use crate::local::Local;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION, QUORATE_VERSION};
use page::{Page, encode_durations, in_version_0_0_4};
use peers::RoundTrips;

/// All figures of a member.
pub(crate) struct Figures {
    registry: Registry,
    read: Arc<Reading>,
}

/// What figures are read from.
struct Reading {
    local: Local,
    calls: Arc<Calls>,
    health_successes: AtomicU64,
    health_failures: AtomicU64,
    round_trips: RoundTrips,
}

impl Figures {
    pub(crate) fn new(local: Local, calls: Arc<Calls>) -> Self {
        let read = Arc::new(Reading {
            local,
            calls,
            health_successes: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
            round_trips: RoundTrips::default(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&read)));
        Figures { registry, read }
    }

    pub(crate) fn on_health(&self, is_well: bool) {
        let counter =
            if is_well { &self.read.health_successes } else { &self.read.health_failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All figures as Prometheus reads them.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(in_version_0_0_4(&text))
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page::new(encoder);
        self.consensus(&mut page)?;
        self.disk(&mut page)?;
        self.store(&mut page)?;
        peers::write(&mut page, &self.local, &self.round_trips)?;
        clients::write(&mut page, &self.calls)?;
        self.own(&mut page)?;
        autopilot::write(&mut page, self.local.pilot())?;
        process::write(&mut page)
    }
}

impl Reading {
    fn consensus(&self, page: &mut Page<'_>) -> fmt::Result {
        let (status, metrics) = (self.local.status(), self.local.metrics());
        let gauge = |condition: bool| f64::from(u8::from(condition));
        for (name, help, value) in [
            (
                "etcd_server_has_leader",
                "Whether this member knows a leader",
                gauge(status.leader.is_some()),
            ),
            ("etcd_server_is_leader", "Whether this member leads", gauge(status.is_leader)),
            ("etcd_server_is_learner", "Whether this member has no vote", gauge(status.is_learner)),
            (
                "etcd_server_proposals_committed_total",
                "The highest index known to be committed",
                status.commit.0 as f64,
            ),
            (
                "etcd_server_proposals_applied_total",
                "The highest index applied here",
                status.applied.0 as f64,
            ),
            (
                "etcd_server_proposals_pending",
                "Proposals that wait for their answer",
                self.local.waiting() as f64,
            ),
            (
                "etcd_server_quota_backend_bytes",
                "Size of the state over which writes are refused; 0 for none",
                self.local.quota_bytes_max().unwrap_or(0) as f64,
            ),
            (
                "etcd_server_health_success",
                "Health checks that found this member well",
                self.health_successes.load(Ordering::Relaxed) as f64,
            ),
            (
                "etcd_server_health_failures",
                "Health checks that found this member unwell",
                self.health_failures.load(Ordering::Relaxed) as f64,
            ),
        ] {
            page.gauge(name, help, value)?;
        }
        let (promoted, refusals) = self.local.tally().promotions();
        page.gauge(
            "etcd_server_learner_promote_successes",
            "Learners that were given their vote on this member's word",
            promoted as f64,
        )?;
        let (name, help) =
            ("etcd_server_learner_promote_failures", "Learners that were not, by reason");
        let mut family = page.family(name, help, MetricType::Gauge)?;
        for (reason, count) in refusals {
            let labels = [("Reason", reason)];
            ConstGauge::new(count as f64).encode(family.encode_family(&labels)?)?;
        }
        let reads = self.local.reads();
        for (name, help, value) in [
            (
                "etcd_server_leader_changes_seen",
                "Changes of the leader that this member saw",
                metrics.leader_changes.value(),
            ),
            (
                "etcd_server_proposals_failed",
                "Proposals that were refused, or not answered in time",
                metrics.refused.value() + metrics.unknown.value(),
            ),
            (
                "etcd_server_slow_apply",
                "Batches of entries that took more than 0.1 s to apply",
                metrics.slow_applies.value(),
            ),
            (
                "etcd_server_heartbeat_send_failures",
                "Heartbeats that were more than an interval late",
                metrics.late_heartbeats.value(),
            ),
            (
                "etcd_server_slow_read_indexes",
                "Confirmations of reads that took more than 0.5 s",
                reads.slow.load(Ordering::Relaxed),
            ),
            (
                "etcd_server_read_indexes_failed",
                "Reads that were not confirmed",
                reads.failed.load(Ordering::Relaxed),
            ),
        ] {
            page.counter(name, help, value)?;
        }
        let minor = CLUSTER_VERSION.rsplit_once('.').map_or(CLUSTER_VERSION, |(minor, _)| minor);
        for (name, help, label, value) in [
            ("etcd_server_id", "Who this member is", "server_id", format!("{:x}", status.node)),
            (
                "etcd_server_version",
                "The release of etcd that this member behaves like",
                "server_version",
                ETCD_VERSION.to_owned(),
            ),
            (
                "etcd_cluster_version",
                "The version that the cluster has agreed on",
                "cluster_version",
                minor.to_owned(),
            ),
            ("quorate_version", "The release of Quorate", "version", QUORATE_VERSION.to_owned()),
        ] {
            let mut family = page.family(name, help, MetricType::Gauge)?;
            let labels = [(label, value.as_str())];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn disk(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.local.metrics();
        page.gauge(
            "etcd_disk_wal_write_bytes_total",
            "Bytes of the log on disk",
            metrics.wal_bytes.value() as f64,
        )?;
        for (name, help, histogram) in [
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "How long it took to make a group of writes durable in the log",
                &metrics.wal_sync,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "How long it took to make applied changes durable in the state",
                &metrics.flush,
            ),
            (
                "quorate_apply_batch_duration_seconds",
                "How long a batch of entries took to apply",
                &metrics.apply_batch,
            ),
            (
                "etcd_disk_backend_defrag_duration_seconds",
                "How long a defragmentation took",
                &self.local.tally().defragment,
            ),
            (
                "etcd_disk_backend_snapshot_duration_seconds",
                "How long it took to send a snapshot to a client",
                &self.local.tally().snapshot,
            ),
        ] {
            page.durations(name, help, histogram)?;
        }
        page.gauge(
            "etcd_server_snapshot_apply_in_progress_total",
            "Whether a snapshot of the leader is being put in place",
            metrics.installing.value() as f64,
        )?;
        let (name, help) = ("etcd_server_apply_duration_seconds", "How long changes took to apply");
        let mut family = page.family(name, help, MetricType::Histogram)?;
        for (operation, is_applied, times) in metrics.applied.durations() {
            let success = if is_applied { "true" } else { "false" };
            let labels = [("version", "v3"), ("op", operation), ("success", success)];
            encode_durations(&mut family.encode_family(&labels)?, times)?;
        }
        page.gauge(
            "etcd_disk_defrag_inflight",
            "Whether a defragmentation is under way",
            self.local.tally().defragmenting.load(Ordering::Relaxed) as f64,
        )
    }

    fn store(&self, page: &mut Page<'_>) -> fmt::Result {
        let (store, status, metrics) =
            (self.local.store(), self.local.status(), self.local.metrics());
        let watching = self.local.watching().counts();
        for (name, help, value) in [
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Bytes that the state takes on disk",
                status.db_bytes as f64,
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of those that hold something",
                status.db_in_use_bytes as f64,
            ),
            (
                "etcd_mvcc_db_open_read_transactions",
                "Views of the storage that are held",
                store.views_count() as f64,
            ),
            (
                "etcd_debugging_mvcc_keys_total",
                "Keys, deleted ones included until they are compacted",
                store.keys_count() as f64,
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "The current revision",
                store.revision() as f64,
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The revision below which history is forgotten",
                store.compact_revision().max(0) as f64,
            ),
            ("etcd_debugging_mvcc_watch_stream_total", "Watch streams", watching.streams as f64),
            ("etcd_debugging_mvcc_watcher_total", "Watchers", watching.watchers as f64),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watchers that are behind, or whose stream has no room",
                watching.slow as f64,
            ),
            (
                "etcd_debugging_mvcc_pending_events_total",
                "Events that wait for their stream's connection",
                watching.waiting_events as f64,
            ),
        ] {
            page.gauge(name, help, value)?;
        }
        let applied = &metrics.applied;
        for (name, help, value) in [
            ("etcd_mvcc_put", "Puts applied, but for those in transactions", applied.puts.value()),
            (
                "etcd_mvcc_delete",
                "Deletions applied, but for those in transactions",
                applied.deletes.value(),
            ),
            ("etcd_mvcc_txn", "Transactions applied", applied.txns.value()),
            (
                "etcd_mvcc_range",
                "Ranges answered, but for those in transactions",
                self.calls.handled_well("etcdserverpb.KV", "Range"),
            ),
            ("etcd_debugging_mvcc_events", "Events sent to watchers", watching.events),
            (
                "etcd_debugging_mvcc_db_compaction_keys",
                "Versions of keys that compaction has forgotten",
                store.forgotten_count(),
            ),
            (
                "etcd_debugging_lease_renewed",
                "Leases renewed on this member, as their leader",
                self.local.tally().leases_renewed.load(Ordering::Relaxed),
            ),
            ("etcd_debugging_lease_granted", "Leases granted", applied.leases_granted.value()),
            (
                "etcd_debugging_lease_revoked",
                "Leases that ended",
                applied.leases_revoked.value() + applied.leases_expired.value(),
            ),
            (
                "etcd_debugging_server_lease_expired",
                "Leases whose time was up",
                applied.leases_expired.value(),
            ),
        ] {
            page.counter(name, help, value)?;
        }
        Ok(())
    }

    fn own(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = self.local.metrics();
        for (name, help, value) in [
            ("quorate_wal_groups", "Groups of writes made durable", metrics.wal_groups.value()),
            ("quorate_wal_writes", "Writes made durable", metrics.wal_writes.value()),
            ("quorate_applied_entries", "Entries applied", metrics.applied_entries.value()),
            ("quorate_flushes", "Flushes of the state", metrics.flushes.value()),
            (
                "quorate_messages_dropped",
                "Messages that found a full queue or no connection",
                metrics.messages_dropped.value(),
            ),
            (
                "quorate_messages_malformed",
                "Messages from peers that were not understood",
                metrics.messages_malformed.value(),
            ),
            ("quorate_snapshots_sent", "Snapshots sent", metrics.snapshots_sent.value()),
            (
                "quorate_snapshots_installed",
                "Snapshots installed",
                metrics.snapshots_installed.value(),
            ),
            ("quorate_loop_turns", "Turns of the one loop", metrics.turns.value()),
            ("quorate_loop_events", "Events in those turns", metrics.events.value()),
            (
                "quorate_proposals_refused",
                "Proposals refused, safe to try again",
                metrics.refused.value(),
            ),
            (
                "quorate_proposals_unknown",
                "Proposals whose fate is unknown",
                metrics.unknown.value(),
            ),
        ] {
            page.counter(name, help, value)?;
        }
        for (name, help, value) in [
            (
                "quorate_disk_full",
                "Whether the volume of the log or the state has no space left",
                metrics.disk_full.value().max(metrics.state_full.value()),
            ),
            (
                "quorate_disk_out_of_files",
                "Whether the log waits until it can open its next file",
                metrics.disk_out_of_files.value(),
            ),
        ] {
            page.gauge(name, help, value as f64)?;
        }
        Ok(())
    }
}
