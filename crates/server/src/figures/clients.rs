//! What clients asked for, and what came of it.

use std::fmt;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::page::{Page, encode_durations};
use crate::calls::{CODES, Calls, Method, MethodFigures};

pub(super) fn write(page: &mut Page<'_>, calls: &Calls) -> fmt::Result {
    let (sent, received) = calls.bytes();
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
    for (version, counts) in calls.by_version() {
        for (kind, count) in ["unary", "stream"].into_iter().zip(counts) {
            let labels = [("type", kind), ("client_api_version", version.as_str())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    let methods: Vec<_> = calls.methods().map(|method| (method, method.figures())).collect();
    for (name, help, value) in [
        (
            "grpc_server_started",
            "Calls that began",
            (|figures| figures.started) as fn(&MethodFigures) -> u64,
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
    let timed = |method: &&Method| {
        method.is_unary() && ["etcdserverpb.KV", "etcdserverpb.Lease"].contains(&method.service)
    };
    for method in calls.methods().filter(timed) {
        for (success, word) in [(false, "false"), (true, "true")] {
            let labels = [("type", method.name), ("success", word)];
            encode_durations(&mut family.encode_family(&labels)?, method.durations(success))?;
        }
    }
    let (name, help) = ("etcd_server_range_duration_seconds", "How long ranges took");
    let mut family = page.family(name, help, MetricType::Histogram)?;
    for method in calls.methods().filter(|method| method.name == "Range") {
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
