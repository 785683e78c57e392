//! What one real node tells those who watch it: health, readiness, figures.

use std::net::SocketAddr;
use std::time::Duration;

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, WatchRequest,
};
use quorate_server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::node::{self, PATIENCE};

/// Members of a cluster of two have no leader alone.
const OTHER: &str = "default=http://localhost:2380,other=http://127.0.0.1:1";

async fn start(directory: &TempDir, flags: &[(&str, &str)]) -> Server {
    let metrics = [("listen-metrics-urls", "http://127.0.0.1:0")];
    node::start(directory, &[&metrics, flags].concat()).await
}

async fn ready(directory: &TempDir) -> Server {
    let server = start(directory, &[]).await;
    tokio::time::timeout(PATIENCE, server.ready()).await.unwrap();
    server
}

/// Status line and headers, and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a figure by its name and labels, as they are written.
pub(crate) fn figure(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_well_says_so_on_both_ports() {
    let directory = TempDir::new().unwrap();
    let server = ready(&directory).await;
    for address in [server.client_addresses()[0], server.metrics_addresses()[0]] {
        for (path, status, body) in [
            ("/health", "200 OK", r#"{"health":"true","reason":""}"#),
            ("/health?serializable=true", "200 OK", r#"{"health":"true","reason":""}"#),
            ("/health?exclude=NOSPACE", "200 OK", r#"{"health":"true","reason":""}"#),
            ("/livez", "200 OK", "ok\n"),
            ("/livez?verbose", "200 OK", "[+]serializable_read ok\nok\n"),
            ("/readyz", "200 OK", "ok\n"),
            (
                "/readyz?verbose",
                "200 OK",
                "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                 [+]non_learner ok\n[+]disk_space ok\nok\n",
            ),
            (
                "/readyz?verbose&exclude=linearizable_read&exclude=data_corruption",
                "200 OK",
                "[+]serializable_read ok\n[+]non_learner ok\n[+]disk_space ok\nok\n",
            ),
            ("/readyz/linearizable_read", "200 OK", "ok\n"),
            ("/readyz/non_learner?verbose", "200 OK", "[+]non_learner ok\nok\n"),
            ("/livez/linearizable_read", "404 Not Found", ""),
            ("/readyz/colour", "404 Not Found", ""),
        ] {
            let (head, found) = get(address, path).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {head}");
            assert_eq!(found, body, "{path}");
        }
        let (head, _) = get(address, "/metrics").await;
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    }
    let (_, vars) = get(server.client_addresses()[0], "/debug/vars").await;
    let vars: serde_json::Value = serde_json::from_str(&vars).unwrap();
    assert!(vars["cmdline"].is_array() && vars["file_descriptor_limit"].is_u64(), "{vars}");
    assert_eq!(vars["raft.status"]["raftState"], "StateLeader", "{vars}");
    assert_eq!(vars["raft.status"]["id"], vars["raft.status"]["lead"], "{vars}");
    let (head, _) = get(server.metrics_addresses()[0], "/debug/vars").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    // Nothing else is there on the second one.
    let mut kv = KvClient::connect(format!("http://{}", server.metrics_addresses()[0])).await;
    let range = RangeRequest { key: "k".into(), ..Default::default() };
    assert!(kv.as_mut().unwrap().range(range).await.is_err());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_quorum_is_alive_and_not_ready() {
    let directory = TempDir::new().unwrap();
    let server = start(&directory, &[("initial-cluster", OTHER)]).await;
    // Clients are not served yet; those who watch are.
    let address = server.metrics_addresses()[0];
    for (path, status, body) in [
        ("/health", "503", r#"{"health":"false","reason":"RAFT NO LEADER"}"#),
        ("/health?serializable=true", "200", r#"{"health":"true","reason":""}"#),
        ("/livez", "200", "ok\n"),
        ("/readyz?exclude=linearizable_read", "200", "ok\n"),
    ] {
        let (head, found) = get(address, path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        assert_eq!(found, body, "{path}");
    }
    let (head, body) = get(address, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let want = "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: \
                etcdserver: ";
    assert!(
        body.starts_with(want) && body.ends_with("\n[+]non_learner ok\n[+]disk_space ok\n"),
        "{body}"
    );
    let page = get(address, "/metrics").await.1;
    assert_eq!(figure(&page, "etcd_server_has_leader"), Some(0.0));
    assert_eq!(figure(&page, "etcd_server_health_success"), Some(1.0));
    assert_eq!(figure(&page, "etcd_server_health_failures"), Some(1.0));
    assert!(figure(&page, "etcd_server_read_indexes_failed_total") >= Some(1.0));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_an_alarm_is_not_well() {
    const ACTIVATE: i32 = 1;
    const DEACTIVATE: i32 = 2;
    const NOSPACE: i32 = 1;
    const CORRUPT: i32 = 2;
    let directory = TempDir::new().unwrap();
    let server = ready(&directory).await;
    let address = server.client_addresses()[0];
    let mut maintenance = MaintenanceClient::new(node::connect(&server).await);
    let well = r#"{"health":"true","reason":""}"#;
    let full = r#"{"health":"false","reason":"ALARM NOSPACE"}"#;
    let differs = r#"{"health":"false","reason":"ALARM CORRUPT"}"#;
    let corrupt = "[-]data_corruption failed: alarm activated: CORRUPT\n";
    let not_ready = format!(
        "{corrupt}[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n\
         [+]disk_space ok\n"
    );
    // Who raised it does not matter: it counts for all.
    for (action, member_id, alarm, answers) in [
        (
            ACTIVATE,
            5,
            NOSPACE,
            &[
                ("/health", 503, full),
                ("/health?serializable=true", 503, full),
                ("/health?exclude=CORRUPT", 503, full),
                ("/health?exclude=NOSPACE", 200, well),
                ("/livez", 200, "ok\n"),
                ("/readyz", 200, "ok\n"),
            ][..],
        ),
        (
            ACTIVATE,
            4,
            CORRUPT,
            &[
                ("/health?exclude=NOSPACE", 503, differs),
                ("/health?exclude=CORRUPT", 503, full),
                ("/health?exclude=NOSPACE&exclude=CORRUPT", 200, well),
                ("/livez", 200, "ok\n"),
                ("/readyz", 503, &not_ready),
                ("/readyz/data_corruption", 503, corrupt),
                ("/readyz?exclude=data_corruption", 200, "ok\n"),
            ],
        ),
        (DEACTIVATE, 5, NOSPACE, &[("/health", 503, differs), ("/readyz", 503, &not_ready)]),
        (DEACTIVATE, 4, CORRUPT, &[("/health", 200, well), ("/readyz", 200, "ok\n")]),
    ] {
        maintenance.alarm(AlarmRequest { action, member_id, alarm }).await.unwrap();
        for (path, code, want) in answers {
            let (head, body) = get(address, path).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{path}: {head}");
            assert_eq!(body, *want, "{path}");
        }
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_have_the_names_that_dashboards_know() {
    let directory = TempDir::new().unwrap();
    let server = ready(&directory).await;
    let address = server.client_addresses()[0];
    let page = get(address, "/metrics").await.1;
    // There from the start, where nothing has happened.
    for (name, kind) in [
        ("etcd_server_has_leader", "gauge"),
        ("etcd_server_is_leader", "gauge"),
        ("etcd_server_is_learner", "gauge"),
        ("etcd_server_leader_changes_seen_total", "counter"),
        ("etcd_server_proposals_committed_total", "gauge"),
        ("etcd_server_proposals_applied_total", "gauge"),
        ("etcd_server_proposals_pending", "gauge"),
        ("etcd_server_proposals_failed_total", "counter"),
        ("etcd_server_slow_apply_total", "counter"),
        ("etcd_server_slow_read_indexes_total", "counter"),
        ("etcd_server_heartbeat_send_failures_total", "counter"),
        ("etcd_server_apply_duration_seconds", "histogram"),
        ("etcd_server_snapshot_apply_in_progress_total", "gauge"),
        ("etcd_server_read_indexes_failed_total", "counter"),
        ("etcd_server_quota_backend_bytes", "gauge"),
        ("etcd_server_id", "gauge"),
        ("etcd_server_version", "gauge"),
        ("etcd_cluster_version", "gauge"),
        ("etcd_server_health_success", "gauge"),
        ("etcd_server_health_failures", "gauge"),
        ("etcd_server_client_requests_total", "counter"),
        ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
        ("etcd_disk_backend_commit_duration_seconds", "histogram"),
        ("etcd_disk_wal_write_bytes_total", "gauge"),
        ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
        ("etcd_mvcc_db_open_read_transactions", "gauge"),
        ("etcd_mvcc_put_total", "counter"),
        ("etcd_mvcc_delete_total", "counter"),
        ("etcd_mvcc_range_total", "counter"),
        ("etcd_mvcc_txn_total", "counter"),
        ("etcd_network_client_grpc_sent_bytes_total", "counter"),
        ("etcd_network_client_grpc_received_bytes_total", "counter"),
        ("etcd_network_peer_sent_bytes_total", "counter"),
        ("etcd_network_peer_received_bytes_total", "counter"),
        ("etcd_network_peer_sent_failures_total", "counter"),
        ("etcd_network_peer_received_failures_total", "counter"),
        ("etcd_network_disconnected_peers_total", "counter"),
        ("etcd_network_peer_round_trip_time_seconds", "histogram"),
        ("etcd_network_active_peers", "gauge"),
        ("etcd_network_known_peers", "gauge"),
        ("etcd_debugging_mvcc_keys_total", "gauge"),
        ("etcd_debugging_mvcc_watcher_total", "gauge"),
        ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
        ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
        ("etcd_debugging_mvcc_current_revision", "gauge"),
        ("etcd_debugging_mvcc_compact_revision", "gauge"),
        ("etcd_debugging_mvcc_events_total", "counter"),
        ("etcd_debugging_mvcc_pending_events_total", "gauge"),
        ("etcd_debugging_mvcc_db_compaction_keys_total", "counter"),
        ("etcd_debugging_lease_renewed_total", "counter"),
        ("etcd_server_request_duration_seconds", "histogram"),
        ("etcd_server_range_duration_seconds", "histogram"),
        ("etcd_server_learner_promote_successes", "gauge"),
        ("etcd_server_learner_promote_failures", "gauge"),
        ("etcd_disk_backend_defrag_duration_seconds", "histogram"),
        ("etcd_disk_backend_snapshot_duration_seconds", "histogram"),
        ("etcd_disk_defrag_inflight", "gauge"),
        ("etcd_debugging_lease_granted_total", "counter"),
        ("etcd_debugging_lease_revoked_total", "counter"),
        ("etcd_debugging_server_lease_expired_total", "counter"),
        ("grpc_server_started_total", "counter"),
        ("grpc_server_handled_total", "counter"),
        ("grpc_server_msg_received_total", "counter"),
        ("grpc_server_msg_sent_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("os_fd_used", "gauge"),
        ("os_fd_limit", "gauge"),
        ("quorate_applied_entries_total", "counter"),
    ] {
        let described = format!("\n# TYPE {name} {kind}\n");
        assert!(page.contains(&described), "{name} is no {kind} here");
    }
    assert!(!page.contains("# EOF") && page.ends_with('\n'));
    let refused = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",\
                   grpc_method=\"Txn\",grpc_code=\"InvalidArgument\"}";
    assert_eq!(figure(&page, refused), Some(0.0));

    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut kv = KvClient::new(channel.connect().await.unwrap());
    let put = |key: &'static str| PutRequest { key: key.into(), ..Default::default() };
    for key in ["a", "b", "c"] {
        let mut request = Request::new(put(key));
        request.metadata_mut().insert("client-api-version", MetadataValue::from_static("3.6.1"));
        kv.put(request).await.unwrap();
    }
    kv.put(put("")).await.unwrap_err();
    kv.range(RangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    kv.txn(TxnRequest::default()).await.unwrap();
    let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
    kv.delete_range(delete).await.unwrap();
    // A stream that its client leaves.
    let (requests, incoming) = tokio::sync::mpsc::channel::<WatchRequest>(1);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let mut watch = WatchClient::connect(format!("http://{address}")).await.unwrap();
    let open = watch.watch(incoming).await.unwrap();
    let page = get(address, "/metrics").await.1;
    assert_eq!(figure(&page, "etcd_debugging_mvcc_watch_stream_total"), Some(1.0));
    drop((open, requests, watch));

    let method = |service: &str, kind: &str, name: &str| {
        format!(
            "grpc_type=\"{kind}\",grpc_service=\"etcdserverpb.{service}\",grpc_method=\"{name}\""
        )
    };
    let (puts, watches) = (method("KV", "unary", "Put"), method("Watch", "bidi_stream", "Watch"));
    let left = format!("grpc_server_handled_total{{{watches},grpc_code=\"Canceled\"}}");
    let page = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let page = get(address, "/metrics").await.1;
            if figure(&page, &left) == Some(1.0) {
                return page;
            }
        }
    })
    .await
    .unwrap();
    for (name, want) in [
        (format!("grpc_server_started_total{{{puts}}}"), 4.0),
        (format!("grpc_server_handled_total{{{puts},grpc_code=\"OK\"}}"), 3.0),
        (format!("grpc_server_handled_total{{{puts},grpc_code=\"InvalidArgument\"}}"), 1.0),
        (format!("grpc_server_msg_received_total{{{puts}}}"), 4.0),
        (format!("grpc_server_msg_sent_total{{{puts}}}"), 3.0),
        (format!("grpc_server_started_total{{{watches}}}"), 1.0),
        (
            "etcd_server_client_requests_total{type=\"unary\",client_api_version=\"3.6.1\"}"
                .to_owned(),
            3.0,
        ),
        ("etcd_mvcc_put_total".to_owned(), 3.0),
        ("etcd_mvcc_delete_total".to_owned(), 1.0),
        (
            "etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"true\"}"
                .to_owned(),
            3.0,
        ),
        ("etcd_mvcc_range_total".to_owned(), 1.0),
        ("etcd_server_range_duration_seconds_count{success=\"true\"}".to_owned(), 1.0),
        (
            "etcd_server_request_duration_seconds_count{type=\"Put\",success=\"true\"}".to_owned(),
            3.0,
        ),
        (
            "etcd_server_request_duration_seconds_count{type=\"Put\",success=\"false\"}".to_owned(),
            1.0,
        ),
        // The deleted one is there until it is compacted.
        ("etcd_debugging_mvcc_keys_total".to_owned(), 3.0),
        ("etcd_debugging_mvcc_current_revision".to_owned(), 5.0),
        ("etcd_server_has_leader".to_owned(), 1.0),
        ("etcd_server_is_leader".to_owned(), 1.0),
        ("etcd_cluster_version{cluster_version=\"3.6\"}".to_owned(), 1.0),
    ] {
        assert_eq!(figure(&page, &name), Some(want), "{name}");
    }
    let count = figure(&page, "etcd_disk_wal_fsync_duration_seconds_count").unwrap();
    let all = figure(&page, "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}").unwrap();
    assert!(0.0 < count && count == all, "{count} {all}");
    for name in ["process_resident_memory_bytes", "process_open_fds", "os_fd_limit"] {
        assert!(Some(1.0) < figure(&page, name), "{name}");
    }
    assert!(Some(1.6e9) < figure(&page, "process_start_time_seconds"));
    server.shutdown().await;
}
