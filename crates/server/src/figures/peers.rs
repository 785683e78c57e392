//! What is known of the other members.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use quorate_runtime::PeerStatus;
use quorate_types::NodeId;

use super::page::{Page, encode_histogram};
use crate::local::Local;

/// Round trips to peers: up to 0.1 ms, doubling to 3.2768 s, and above. etcd's buckets.
const RTT_BUCKETS: usize = 17;

/// Round trips to each peer.
pub(super) type RoundTrips = Mutex<BTreeMap<NodeId, Rtts>>;

/// Round trips to one peer, one each time the figures were asked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Rtts {
    counts: [u64; RTT_BUCKETS],
    sum_seconds: f64,
}

pub(super) fn write(page: &mut Page<'_>, local: &Local, round_trips: &RoundTrips) -> fmt::Result {
    let peers = local.peers();
    let name_of = |peer: NodeId| format!("{peer:x}");
    let mut rtts = round_trips.lock().unwrap_or_else(PoisonError::into_inner);
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
            (|peer| peer.sent_bytes) as fn(&PeerStatus) -> u64,
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
        (
            "etcd_network_peer_received_failures",
            "Connections from a peer that broke",
            "From",
            |peer| peer.receive_failures,
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
    let me = name_of(local.status().node);
    for peer in &peers {
        let labels = [("Local", me.clone()), ("Remote", name_of(peer.id))];
        let is_active = i64::from(peer.connected_since.is_some());
        ConstGauge::new(is_active).encode(family.encode_family(&labels)?)?;
    }
    let (name, help) = ("etcd_network_known_peers", "Peers there are");
    let mut family = page.family(name, help, MetricType::Gauge)?;
    for peer in &peers {
        let labels = [("Local", me.clone()), ("Remote", name_of(peer.id))];
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
    }
    let (name, help) = ("etcd_network_disconnected_peers", "Connections to a peer that have ended");
    let mut family = page.family(name, help, MetricType::Counter)?;
    for peer in &peers {
        let labels = [("Local", me.clone()), ("Remote", name_of(peer.id))];
        ConstCounter::new(peer.disconnects).encode(family.encode_family(&labels)?)?;
    }
    let (name, help) =
        ("etcd_network_peer_round_trip_time_seconds", "Round trips to a peer, as last measured");
    let mut family = page.family(name, help, MetricType::Histogram)?;
    for (peer, rtts) in &*rtts {
        let labels = [("To", name_of(*peer))];
        rtts.encode(&mut family.encode_family(&labels)?)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

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
