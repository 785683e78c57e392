//! The figures of this member under the names that dashboards and alerts for etcd look for, and some
//! of our own that begin with `quorate_`.
//!
//! All are read when they are asked for; nothing here is on the way of a request.

mod autopilot;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use quorate_runtime::{BUCKETS, Histogram};
use quorate_types::NodeId;

use crate::calls::{CODES, Calls};
use crate::local::Local;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION, QUORATE_VERSION};

/// Round trips to peers: up to 0.1 ms, doubling to 3.2768 s, and above. etcd's buckets.
const RTT_BUCKETS: usize = 17;

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
    rtts: Mutex<BTreeMap<NodeId, Rtts>>,
}

/// Round trips to one peer, one each time the figures were asked for.
#[derive(Clone, Copy, Default)]
struct Rtts {
    counts: [u64; RTT_BUCKETS],
    sum_seconds: f64,
}

impl Figures {
    pub(crate) fn new(local: Local, calls: Arc<Calls>) -> Self {
        let read = Arc::new(Reading {
            local,
            calls,
            health_successes: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
            rtts: Mutex::default(),
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

/// OpenMetrics in the older text format: it has no end mark, and a counter has one name everywhere.
fn in_version_0_0_4(text: &str) -> String {
    let mut older = String::with_capacity(text.len() + text.len() / 8);
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                older.push_str(&line[..7]);
                older.push_str(name);
                older.push_str("_total ");
                older.push_str(rest);
            }
            _ => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page { encoder };
        self.consensus(&mut page)?;
        self.disk(&mut page)?;
        self.store(&mut page)?;
        self.peers(&mut page)?;
        self.clients(&mut page)?;
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
                self.handled("etcdserverpb.KV", "Range"),
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

    /// Calls of a method that were answered well.
    fn handled(&self, service: &str, name: &str) -> u64 {
        let mut methods = self.calls.methods();
        let method = methods.find(|method| (method.service, method.name) == (service, name));
        method.map_or(0, |method| method.figures().handled[0])
    }

    fn peers(&self, page: &mut Page<'_>) -> fmt::Result {
        let peers = self.local.peers();
        let name_of = |peer: NodeId| format!("{peer:x}");
        let mut rtts = self.rtts.lock().unwrap_or_else(PoisonError::into_inner);
        rtts.retain(|known, _| peers.iter().any(|peer| peer.id == *known));
        for peer in &peers {
            let rtts = rtts.entry(peer.id).or_default();
            if let Some(rtt) = peer.rtt {
                rtts.observe(rtt);
            }
        }
        for (name, help, label, value) in [
            (
                "etcd_network_peer_sent_bytes",
                "Bytes of messages written to a peer",
                "To",
                (|peer| peer.sent_bytes) as fn(&quorate_runtime::PeerStatus) -> u64,
            ),
            (
                "etcd_network_peer_received_bytes",
                "Bytes of messages read from a peer",
                "From",
                |peer| peer.received_bytes,
            ),
            (
                "etcd_network_peer_sent_failures",
                "Messages for a peer that found no room or no connection",
                "To",
                |peer| peer.dropped_messages,
            ),
        ] {
            let mut family = page.family(name, help, MetricType::Counter)?;
            for peer in &peers {
                let labels = [(label, name_of(peer.id))];
                ConstCounter::new(value(peer)).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = ("etcd_network_active_peers", "Peers to which a connection stands");
        let mut family = page.family(name, help, MetricType::Gauge)?;
        let local = name_of(self.local.status().node);
        for peer in &peers {
            let labels = [("Local", local.clone()), ("Remote", name_of(peer.id))];
            let is_active = i64::from(peer.connected_since.is_some());
            ConstGauge::new(is_active).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("etcd_network_known_peers", "Peers there are");
        let mut family = page.family(name, help, MetricType::Gauge)?;
        for peer in &peers {
            let labels = [("Local", local.clone()), ("Remote", name_of(peer.id))];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = (
            "etcd_network_peer_round_trip_time_seconds",
            "Round trips to a peer, as last measured",
        );
        let mut family = page.family(name, help, MetricType::Histogram)?;
        for (peer, rtts) in &*rtts {
            let labels = [("To", name_of(*peer))];
            rtts.encode(&mut family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn clients(&self, page: &mut Page<'_>) -> fmt::Result {
        let (sent, received) = self.calls.bytes();
        for (name, help, value) in [
            ("etcd_network_client_grpc_sent_bytes", "Bytes of messages sent to clients", sent),
            (
                "etcd_network_client_grpc_received_bytes",
                "Bytes of messages received from clients",
                received,
            ),
        ] {
            page.counter(name, help, value)?;
        }
        let (name, help) =
            ("etcd_server_client_requests", "Calls of clients, by what they say they are");
        let mut family = page.family(name, help, MetricType::Counter)?;
        for (version, counts) in self.calls.by_version() {
            for (kind, count) in ["unary", "stream"].into_iter().zip(counts) {
                let labels = [("type", kind), ("client_api_version", version.as_str())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let methods: Vec<_> =
            self.calls.methods().map(|method| (method, method.figures())).collect();
        for (name, help, value) in [
            (
                "grpc_server_started",
                "Calls that began",
                (|figures| figures.started) as fn(&crate::calls::MethodFigures) -> u64,
            ),
            ("grpc_server_msg_received", "Messages received in calls", |figures| figures.received),
            ("grpc_server_msg_sent", "Messages sent in calls", |figures| figures.sent),
        ] {
            let mut family = page.family(name, help, MetricType::Counter)?;
            for (method, figures) in &methods {
                let labels = [
                    ("grpc_type", method.kind),
                    ("grpc_service", method.service),
                    ("grpc_method", method.name),
                ];
                ConstCounter::new(value(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) =
            ("etcd_server_request_duration_seconds", "How long calls took that ask once");
        let mut family = page.family(name, help, MetricType::Histogram)?;
        let timed = |method: &&crate::calls::Method| {
            method.is_unary() && ["etcdserverpb.KV", "etcdserverpb.Lease"].contains(&method.service)
        };
        for method in self.calls.methods().filter(timed) {
            for (success, word) in [(false, "false"), (true, "true")] {
                let labels = [("type", method.name), ("success", word)];
                encode_durations(&mut family.encode_family(&labels)?, method.durations(success))?;
            }
        }
        let (name, help) = ("etcd_server_range_duration_seconds", "How long ranges took");
        let mut family = page.family(name, help, MetricType::Histogram)?;
        for method in self.calls.methods().filter(|method| method.name == "Range") {
            for (success, word) in [(false, "false"), (true, "true")] {
                let labels = [("success", word)];
                encode_durations(&mut family.encode_family(&labels)?, method.durations(success))?;
            }
        }
        let (name, help) = ("grpc_server_handled", "Calls that ended, by what came of them");
        let mut family = page.family(name, help, MetricType::Counter)?;
        for (method, figures) in &methods {
            for (code, count) in CODES.into_iter().zip(figures.handled) {
                let labels = [
                    ("grpc_type", method.kind),
                    ("grpc_service", method.service),
                    ("grpc_method", method.name),
                    ("grpc_code", code),
                ];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
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

impl Rtts {
    fn observe(&mut self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..RTT_BUCKETS - 1).find(|at| us <= 100 << at).unwrap_or(RTT_BUCKETS - 1);
        self.counts[bucket] += 1;
        self.sum_seconds += rtt.as_secs_f64();
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        encode_histogram(encoder, self.sum_seconds, &self.counts, |at| 100 << at)
    }
}

/// `limit_us` says up to where a bucket but the last counts.
fn encode_histogram(
    encoder: &mut MetricEncoder<'_>,
    sum_seconds: f64,
    counts: &[u64],
    limit_us: impl Fn(usize) -> u64,
) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = counts
        .iter()
        .enumerate()
        .map(|(at, count)| match at + 1 == counts.len() {
            true => (f64::INFINITY, *count),
            false => (limit_us(at) as f64 / 1e6, *count),
        })
        .collect();
    encoder.encode_histogram::<NoLabelSet>(sum_seconds, counts.iter().sum(), &buckets, None)
}

/// What figures are written to.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    /// Its name gets `_total` at its end.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    /// A counter of seconds. Its name gets `_total` at its end.
    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, help, MetricType::Counter)?)
    }

    fn durations(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        encode_durations(&mut family, histogram)
    }
}

fn encode_durations(encoder: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let (counts, sum_us): ([u64; BUCKETS], u64) = histogram.picture();
    encode_histogram(encoder, sum_us as f64 / 1e6, &counts, Histogram::limit_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_one_name_in_the_older_format() {
        let newer = "# HELP a b c.\n# TYPE a counter\na_total 1\n# HELP b_total x.\n# TYPE b_total \
                     gauge\nb_total 2\n# EOF\n";
        let older = "# HELP a_total b c.\n# TYPE a_total counter\na_total 1\n# HELP b_total x.\n# \
                     TYPE b_total gauge\nb_total 2\n";
        assert_eq!(in_version_0_0_4(newer), older);
    }

    #[test]
    fn round_trips_fall_into_their_bucket() {
        let mut rtts = Rtts::default();
        for (us, bucket) in [(0, 0), (100, 0), (101, 1), (3_276_800, 15), (3_276_801, 16)] {
            let before = rtts.counts[bucket];
            rtts.observe(Duration::from_micros(us));
            assert_eq!(rtts.counts[bucket], before + 1, "{us} us");
        }
    }
}
