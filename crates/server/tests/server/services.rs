//! The services of one real node, asked over a real connection.

use std::task::{Context, Poll};
use std::time::Duration;

use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AuthStatusRequest, CompactionRequest, Compare, DeleteRangeRequest,
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, MemberListRequest, PutRequest, RangeRequest, RequestOp, StatusRequest,
    TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse, request_op, response_op,
};
use quorate_proto::health::HealthCheckRequest;
use quorate_proto::health::health_client::HealthClient;
use quorate_server::{ETCD_VERSION, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::node::{self, PATIENCE, connect};

/// One server with a directory of its own.
struct Alone {
    server: Server,
    directory: TempDir,
}

impl Alone {
    async fn start() -> Alone {
        Self::with(&[]).await
    }

    async fn with(flags: &[(&str, &str)]) -> Alone {
        let directory = TempDir::new().unwrap();
        let server = node::ready(&directory, flags).await;
        Alone { server, directory }
    }

    async fn channel(&self) -> Channel {
        connect(&self.server).await
    }

    async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    /// Answer to a bare HTTP request: status line and headers, and body.
    async fn http(&self, request: &str) -> (String, String) {
        let address = self.server.client_addresses()[0];
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

fn put(key: &'static str, value: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn range(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn words(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_is_read_and_headers_tell_who_answered() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    let first = kv.put(put("k", "one")).await.unwrap().into_inner();
    let header = first.header.unwrap();
    assert_eq!(header.revision, 2, "a fresh store is at 1");
    assert_eq!(header.member_id, alone.server.identity().node.0);
    assert_eq!(header.cluster_id, alone.server.identity().cluster);
    assert!(0 < header.raft_term);
    assert_eq!(first.prev_kv, None);

    let second = PutRequest { prev_kv: true, ..put("k", "two") };
    let second = kv.put(second).await.unwrap().into_inner();
    assert_eq!(second.header.unwrap().revision, 3);
    assert_eq!(&second.prev_kv.unwrap().value[..], b"one");

    for serializable in [false, true] {
        let read = RangeRequest { serializable, ..range("k") };
        let read = kv.range(read).await.unwrap().into_inner();
        let pair = &read.kvs[0];
        assert_eq!((&pair.value[..], pair.create_revision, pair.mod_revision), (&b"two"[..], 2, 3));
        assert_eq!((read.count, read.more, read.header.unwrap().revision), (1, false, 3));
    }
    let old = RangeRequest { revision: 2, ..range("k") };
    let old = kv.range(old).await.unwrap().into_inner();
    assert_eq!(&old.kvs[0].value[..], b"one");
    assert_eq!(old.header.unwrap().revision, 3, "the current one, not the one asked for");

    kv.put(put("l", "")).await.unwrap();
    let all = RangeRequest { range_end: "\0".into(), limit: 1, ..range("\0") };
    let all = kv.range(all).await.unwrap().into_inner();
    assert_eq!((all.kvs.len(), all.count, all.more), (1, 2, true));

    let delete = DeleteRangeRequest { key: "k".into(), range_end: "z".into(), prev_kv: true };
    let deleted = kv.delete_range(delete.clone()).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (2, 2));
    assert_eq!(deleted.header.unwrap().revision, 5);
    let again = kv.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((again.deleted, again.header.unwrap().revision), (0, 5), "nothing changed");
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_answer_each_operation() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    let nested = TxnRequest {
        success: vec![op(request_op::Request::RequestPut(put("b", "2")))],
        ..Default::default()
    };
    let txn = TxnRequest {
        compare: vec![Compare { key: "a".into(), ..Default::default() }], // version 0: absent
        success: vec![
            op(request_op::Request::RequestPut(put("a", "1"))),
            op(request_op::Request::RequestRange(range("a"))),
            op(request_op::Request::RequestTxn(nested)),
        ],
        failure: vec![op(request_op::Request::RequestRange(range("a")))],
    };
    let done = kv.txn(txn.clone()).await.unwrap().into_inner();
    assert!(done.succeeded);
    assert_eq!(done.header.unwrap().revision, 2);
    let responses: Vec<_> = done.responses.into_iter().map(|op| op.response.unwrap()).collect();
    match &responses[..] {
        [
            response_op::Response::ResponsePut(put),
            response_op::Response::ResponseRange(range),
            response_op::Response::ResponseTxn(txn),
        ] => {
            let header = put.header.unwrap();
            assert_eq!((header.revision, header.member_id, header.raft_term), (2, 0, 0));
            assert_eq!(range.kvs.len(), 1);
            assert_eq!(txn.header, Some(Default::default()));
        }
        other => panic!("{other:?}"),
    }
    let other = kv.txn(txn).await.unwrap().into_inner();
    assert!(!other.succeeded);
    assert_eq!(other.header.unwrap().revision, 2, "only read");

    // Only reads: no place in the log. What the member itself has to say may come in between once.
    let mut maintenance = MaintenanceClient::new(alone.channel().await);
    let mut indices = Vec::new();
    for _ in 0..3 {
        for serializable in [false, true] {
            let read = RangeRequest { serializable, ..range("b") };
            let txn = TxnRequest {
                success: vec![op(request_op::Request::RequestRange(read))],
                ..Default::default()
            };
            let read = kv.txn(txn).await.unwrap().into_inner();
            assert!(read.succeeded);
            assert_eq!(read.header.unwrap().revision, 2);
        }
        let nothing = kv.txn(TxnRequest::default()).await.unwrap().into_inner();
        assert!(nothing.succeeded && nothing.responses.is_empty());
        let now = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        indices.push(now.raft_index);
    }
    assert!(indices.windows(2).any(|pair| pair[0] == pair[1]), "{indices:?}");
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_etcds_code_and_text() {
    let alone = Alone::with(&[("max-txn-ops", "2")]).await;
    let mut kv = alone.kv().await;
    kv.put(put("k", "1")).await.unwrap();
    kv.put(put("k", "2")).await.unwrap();
    kv.compact(CompactionRequest { revision: 3, physical: true }).await.unwrap();

    let invalid = Code::InvalidArgument;
    for (request, code, text) in [
        (range(""), invalid, "etcdserver: key is not provided"),
        (RangeRequest { sort_order: 9, ..range("k") }, invalid, "etcdserver: invalid sort option"),
        (
            RangeRequest { revision: 9, ..range("k") },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            RangeRequest { revision: 2, ..range("k") },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ] {
        let refused = words(kv.range(request.clone()).await.unwrap_err());
        assert_eq!(refused, (code, text.to_owned()), "{request:?}");
    }
    for (request, code, text) in [
        (put("", "v"), invalid, "etcdserver: key is not provided"),
        (
            PutRequest { ignore_value: true, ..put("k", "v") },
            invalid,
            "etcdserver: value is provided",
        ),
        (
            PutRequest { ignore_value: true, ..put("absent", "") },
            invalid,
            "etcdserver: key not found",
        ),
        (
            PutRequest { lease: 7, ..put("k", "v") },
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
    ] {
        let refused = words(kv.put(request.clone()).await.unwrap_err());
        assert_eq!(refused, (code, text.to_owned()), "{request:?}");
    }
    let one = || op(request_op::Request::RequestPut(put("k", "v")));
    let read = || op(request_op::Request::RequestRange(range("k")));
    for (success, text) in [
        (vec![read(), read(), read()], "etcdserver: too many operations in txn request"),
        (vec![one(), read(), read()], "etcdserver: too many operations in txn request"),
        (vec![one(), one()], "etcdserver: duplicate key given in txn request"),
        (vec![RequestOp::default()], "etcdserver: key not found"),
    ] {
        let txn = TxnRequest { success, ..Default::default() };
        let refused = words(kv.txn(txn.clone()).await.unwrap_err());
        assert_eq!(refused, (invalid, text.to_owned()), "{txn:?}");
    }
    for (revision, text) in [
        (3, "etcdserver: mvcc: required revision has been compacted"),
        (9, "etcdserver: mvcc: required revision is a future revision"),
    ] {
        let request = CompactionRequest { revision, physical: false };
        let refused = words(kv.compact(request).await.unwrap_err());
        assert_eq!(refused, (Code::OutOfRange, text.to_owned()));
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_requests_are_refused_as_etcd_refuses_them() {
    const LIMIT: usize = 1_572_864;
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    kv.put(put("k", vec![7; LIMIT - 200])).await.unwrap();
    let refused = words(kv.put(put("k", vec![7; LIMIT])).await.unwrap_err());
    assert_eq!(refused, (Code::InvalidArgument, "etcdserver: request is too large".to_owned()));
    let (code, text) = words(kv.put(put("k", vec![7; 2 << 20])).await.unwrap_err());
    assert_eq!(code, Code::ResourceExhausted);
    assert!(text.starts_with("grpc: received message larger than max (20971"), "{text}");
    assert!(text.ends_with(" vs. 2097152)"), "{text}");
    // And the connection is as good as before.
    kv.put(put("k", "short")).await.unwrap();
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_takes_deletions_and_no_puts() {
    let alone = Alone::with(&[("quota-backend-bytes", "100000")]).await;
    let mut kv = alone.kv().await;
    let until_refused = async {
        loop {
            if let Err(status) = kv.put(put("k", vec![7; 10_000])).await {
                return words(status);
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), until_refused).await.unwrap();
    let no_space = "etcdserver: mvcc: database space exceeded".to_owned();
    assert_eq!(refused, (Code::ResourceExhausted, no_space));
    let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
    assert_eq!(kv.delete_range(delete).await.unwrap().into_inner().deleted, 1);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_checked_before_the_call() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    let mut request = Request::new(range("k"));
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request.metadata_mut().insert("client-api-version", MetadataValue::from_static("3.5.9"));
    kv.range(request).await.unwrap();

    // Header values may hold any byte from 0x80 on; this is no UTF-8.
    let mut request = Request::new(range("k"));
    let strange = http_value(&[0xff, 0xfe]);
    request.metadata_mut().insert("client-api-version", strange);
    let refused = words(kv.range(request).await.unwrap_err());
    let text = "etcdserver: invalid client api version".to_owned();
    assert_eq!(refused, (Code::InvalidArgument, text));
    alone.server.shutdown().await;
}

fn http_value(bytes: &[u8]) -> MetadataValue<tonic::metadata::Ascii> {
    // Not what a well-meaning client can write: taken from raw headers.
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("v", axum::http::HeaderValue::from_bytes(bytes).unwrap());
    let metadata = tonic::metadata::MetadataMap::from_headers(headers);
    metadata.get("v").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_status_are_told() {
    let alone = Alone::with(&[("name", "n1")]).await;
    for linearizable in [false, true] {
        let mut cluster = ClusterClient::new(alone.channel().await);
        let list = cluster.member_list(MemberListRequest { linearizable }).await.unwrap();
        let list = list.into_inner();
        assert_eq!(list.header.unwrap().revision, 0, "no revision here");
        let member = &list.members[0];
        assert_eq!(member.id, alone.server.identity().node.0);
        assert_eq!(member.name, "n1");
        assert_eq!(member.peer_urls, ["http://localhost:2380"]);
        assert_eq!(member.client_urls, ["http://node-1:2379"]);
        assert!(!member.is_learner);
    }
    let mut maintenance = MaintenanceClient::new(alone.channel().await);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.version, ETCD_VERSION);
    assert_eq!(status.leader, alone.server.identity().node.0);
    assert!(0 < status.db_size && 0 < status.raft_term && !status.is_learner);
    assert!(0 < status.raft_applied_index && status.raft_applied_index <= status.raft_index);
    assert_eq!(status.db_size_quota, 2 << 30);
    assert_eq!(status.storage_version, "3.6.0");
    assert_eq!(status.errors, [""; 0]);
    assert!(!status.downgrade_info.unwrap().enabled);
    assert_eq!(status.header.unwrap().revision, 1);
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty());
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_in_every_language() {
    let alone = Alone::start().await;
    let mut health = HealthClient::new(alone.channel().await);
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert_eq!(health.check(check("")).await.unwrap().into_inner().status, 1);
    assert_eq!(health.check(check("x")).await.unwrap_err().code(), Code::NotFound);
    let mut words = health.watch(check("")).await.unwrap().into_inner();
    assert_eq!(words.message().await.unwrap().unwrap().status, 1);

    for (request, code, body) in [
        ("GET /health", "200", r#"{"health":"true","reason":""}"#),
        ("GET /health?serializable=true", "200", r#"{"health":"true","reason":""}"#),
        ("POST /health", "405", ""),
        ("HEAD /health", "405", ""),
        (
            "GET /version",
            "200",
            r#"{"etcdcluster":"3.6.0","etcdserver":"3.6.0","storage":"3.6.0"}"#,
        ),
        ("GET /nothing", "404", ""),
    ] {
        let (head, got) = alone.http(request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {code}")), "{request}: {head}");
        assert_eq!(got, body, "{request}");
    }
    // An open stream does not keep the server from stopping.
    tokio::time::timeout(Duration::from_secs(10), alone.server.shutdown()).await.unwrap();
}

/// A browser sends such requests for any page, without asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_web_page_may_send_is_no_call() {
    let alone = Alone::start().await;
    let message = quorate_proto::prost::Message::encode_to_vec(&put("greeting", "hello"));
    let body = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &message[..]].concat();
    let post = async |content: &str| {
        let address = alone.server.client_addresses()[0];
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /etcdserverpb.KV/Put HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{content}\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let pages = ["", "content-type: text/plain\r\n", "content-type: multipart/form-data\r\n"];
    for content in pages {
        let answer = post(content).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{content}: {answer}");
    }
    let mut kv = alone.kv().await;
    assert_eq!(kv.range(range("greeting")).await.unwrap().into_inner().count, 0);
    assert!(post("content-type: application/grpc\r\n").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(kv.range(range("greeting")).await.unwrap().into_inner().count, 1);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_granted_renewed_and_revoked() {
    let alone = Alone::start().await;
    let mut lease = LeaseClient::new(alone.channel().await);
    let mut kv = alone.kv().await;
    // At least one and a half election timeouts, in whole seconds; the server chooses an id.
    let grant = |id, ttl| LeaseGrantRequest { id, ttl };
    let short = lease.lease_grant(grant(0, -5)).await.unwrap().into_inner();
    assert_eq!((short.ttl, 0 < short.id, short.error.as_str()), (1, true, ""));
    assert_eq!(short.header.unwrap().revision, 1);
    assert_eq!(lease.lease_grant(grant(-7, 300)).await.unwrap().into_inner().id, -7);
    for (request, code, text) in [
        (grant(-7, 300), Code::FailedPrecondition, "etcdserver: lease already exists"),
        (grant(9, 9_000_000_001), Code::OutOfRange, "etcdserver: too large lease TTL"),
    ] {
        let refused = lease.lease_grant(request).await.unwrap_err();
        assert_eq!(words(refused), (code, text.to_owned()));
    }
    for key in ["b", "a"] {
        kv.put(PutRequest { lease: -7, ..put(key, "") }).await.unwrap();
    }
    let unknown = kv.put(PutRequest { lease: 5, ..put("c", "") }).await.unwrap_err();
    let not_found = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    assert_eq!(words(unknown), not_found);

    let ask = |id, keys| LeaseTimeToLiveRequest { id, keys };
    let left = lease.lease_time_to_live(ask(-7, true)).await.unwrap().into_inner();
    assert_eq!((left.id, left.granted_ttl, left.keys), (-7, 300, vec!["a".into(), "b".into()]));
    assert!((200..=300).contains(&left.ttl), "{}", left.ttl);
    let left = lease.lease_time_to_live(ask(99, true)).await.unwrap().into_inner();
    assert_eq!((left.id, left.ttl, left.granted_ttl, left.keys.len()), (99, -1, 0, 0));

    // One answer to each, in order; an unknown lease has 0 and the stream goes on.
    let asked = [-7, 99, -7].map(|id| LeaseKeepAliveRequest { id });
    let mut answers = lease.lease_keep_alive(tokio_stream::iter(asked)).await.unwrap().into_inner();
    for (id, ttl) in [(-7, 300), (99, 0), (-7, 300)] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    assert!(answers.message().await.unwrap().is_none());

    // The short one ends by itself, some time after its second.
    let ids = |answer: quorate_proto::etcdserverpb::LeaseLeasesResponse| {
        answer.leases.iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    tokio::time::timeout(Duration::from_secs(20), async {
        while ids(lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner()) != [-7] {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let revoked = lease.lease_revoke(LeaseRevokeRequest { id: -7 }).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, 4, "both keys in one revision");
    assert_eq!(kv.range(range("a")).await.unwrap().into_inner().count, 0);
    let again = lease.lease_revoke(LeaseRevokeRequest { id: -7 }).await.unwrap_err();
    assert_eq!(words(again), not_found);
    alone.server.shutdown().await;
}

/// A watch stream with its requests.
struct Watched {
    requests: tokio::sync::mpsc::Sender<WatchRequest>,
    answers: tonic::Streaming<WatchResponse>,
}

impl Watched {
    async fn open(alone: &Alone) -> Watched {
        let (requests, incoming) = tokio::sync::mpsc::channel(8);
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let answers = WatchClient::new(alone.channel().await).watch(incoming).await.unwrap();
        Watched { requests, answers: answers.into_inner() }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(Duration::from_secs(20), self.answers.message());
        next.await.unwrap().unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_told_to_who_watches() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    let mut watched = Watched::open(&alone).await;
    let create = |key: &'static str, start_revision| {
        let (range_end, prev_kv) = ("z".into(), true);
        let key = key.into();
        let create =
            WatchCreateRequest { key, range_end, start_revision, prev_kv, ..Default::default() };
        RequestUnion::CreateRequest(create)
    };
    watched.requests.send(WatchRequest { request_union: None }).await.unwrap(); // ignored
    watched.ask(create("a", 1)).await;
    let created = watched.next().await;
    assert_eq!((created.created, created.watch_id), (true, 0));
    let header = created.header.unwrap();
    assert_eq!((header.revision, header.member_id), (2, alone.server.identity().node.0));
    let past = watched.next().await;
    assert_eq!(&past.events[0].kv.as_ref().unwrap().value[..], b"1");
    kv.put(put("a", "2")).await.unwrap();
    let live = watched.next().await;
    let event = &live.events[0];
    let value = |kv: &Option<quorate_proto::mvccpb::KeyValue>| kv.as_ref().unwrap().value.clone();
    assert_eq!((value(&event.kv), value(&event.prev_kv)), ("2".into(), "1".into()));
    assert_eq!(live.header.unwrap().revision, 3);
    kv.delete_range(DeleteRangeRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    let gone = watched.next().await;
    assert_eq!((gone.events[0].r#type, gone.events[0].kv.as_ref().unwrap().version), (1, 0));
    watched.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = watched.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
    // What cannot be is refused, and the stream goes on.
    watched.ask(create("zz", 0)).await;
    let refused = watched.next().await;
    assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    kv.compact(CompactionRequest { revision: 3, physical: true }).await.unwrap();
    watched.ask(create("a", 2)).await;
    assert!(watched.next().await.created);
    let ended = watched.next().await;
    assert_eq!((ended.canceled, ended.compact_revision, ended.watch_id), (true, 3, 1));
    assert_eq!(ended.header.unwrap().revision, 0);
    watched.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 })).await;
    let ended = watched.next().await;
    assert_eq!((ended.canceled, ended.watch_id), (true, 0));
    // A stopping server says so.
    let stopping = alone.server.shutdown();
    let end = async { watched.answers.message().await.unwrap_err() };
    let (end, ()) = tokio::join!(end, stopping);
    assert_eq!(words(end), (Code::Unavailable, "etcdserver: server stopped".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_it_hears_that_nothing_has_happened() {
    let alone = Alone::with(&[("watch-progress-notify-interval", "100ms")]).await;
    alone.kv().await.put(put("k", "1")).await.unwrap();
    let mut watched = Watched::open(&alone).await;
    let create = |progress_notify| {
        let create = WatchCreateRequest { key: "k".into(), progress_notify, ..Default::default() };
        RequestUnion::CreateRequest(create)
    };
    watched.ask(create(false)).await;
    watched.ask(create(true)).await;
    for id in [0, 1] {
        let created = watched.next().await;
        assert_eq!((created.created, created.watch_id), (true, id));
    }
    for _ in 0..2 {
        let quiet = watched.next().await;
        assert_eq!((quiet.watch_id, quiet.header.unwrap().revision), (1, 2));
        assert!(!quiet.created && !quiet.canceled && quiet.events.is_empty());
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_holds_nobody_up() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    let mut slow = Watched::open(&alone).await;
    let mut quick = Watched::open(&alone).await;
    let create = || {
        let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
        RequestUnion::CreateRequest(create)
    };
    for watched in [&mut slow, &mut quick] {
        watched.ask(create()).await;
        assert!(watched.next().await.created);
    }
    let value = "v".repeat(100_000);
    for number in 0..150_i64 {
        kv.put(put("k", value.clone())).await.unwrap();
        let told = quick.next().await;
        assert_eq!(told.events[0].kv.as_ref().unwrap().mod_revision, number + 2);
    }
    let mut next = 2;
    while next < 152 {
        for event in slow.next().await.events {
            assert_eq!(event.kv.unwrap().mod_revision, next, "each once, in order");
            next += 1;
        }
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_unimplemented() {
    let alone = Alone::start().await;
    let mut auth = AuthClient::new(alone.channel().await);
    let refused = auth.auth_status(AuthStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_says_so_and_a_new_start_finds_everything() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    kv.put(put("k", "kept")).await.unwrap();
    let identity = alone.server.identity().clone();
    let directory = alone.directory;
    alone.server.shutdown().await;
    assert_eq!(kv.put(put("k", "late")).await.unwrap_err().code(), Code::Unavailable);

    // Another name for the flags' cluster: what the directory says stands.
    let server = node::ready(&directory, &[("initial-cluster-state", "existing")]).await;
    assert_eq!(
        (server.identity().node, server.identity().cluster),
        (identity.node, identity.cluster)
    );
    let alone = Alone { server, directory };
    let read = alone.kv().await.range(range("k")).await.unwrap().into_inner();
    assert_eq!(&read.kvs[0].value[..], b"kept");
    alone.server.shutdown().await;
}

/// What Go's clients say of several ages, and of targets of several kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_answered_whatever_it_says_as_the_authority() {
    let alone = Alone::start().await;
    let address = alone.server.client_addresses()[0];
    for authority in [
        "127.0.0.1:2379",
        "http://127.0.0.1:2379",
        "https://127.0.0.1:2379",
        "HTTP://h:1",
        "#initially=[127.0.0.1:2379]",
        "#initially=[127.0.0.1:2379;127.0.0.1:22379;127.0.0.1:32379]",
        "unix:///tmp/x.sock",
        "/tmp/x.sock",
        "etcd-endpoints://0xc0001/127.0.0.1:2379",
        "127.0.0.1:2379,127.0.0.1:22379",
        "",
    ] {
        for is_last in [true, false] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(&two_calls(authority, is_last)).await.unwrap();
            let kinds = tokio::time::timeout(PATIENCE, first_frames(&mut stream)).await.unwrap();
            let answered = [1, 1]; // headers of both calls, and no reset (3)
            assert_eq!(kinds, answered, "{authority:?}, {is_last}");
        }
    }
    alone.server.shutdown().await;
}

/// Asks for the status twice, as Go's library does: the second call refers to what the first one said. The
/// authority comes after the path, or before.
fn two_calls(authority: &str, is_last: bool) -> Vec<u8> {
    let mut first = vec![0x83, 0x86]; // :method POST, :scheme http
    let mut headers = [
        (&[0x44][..], "/etcdserverpb.Maintenance/Status"), // :path
        (&[0x41], authority),                              // :authority
        (b"\x40\x0ccontent-type", "application/grpc"),
        (b"\x40\x02te", "trailers"),
    ];
    if !is_last {
        headers.swap(0, 1);
    }
    for (name, value) in headers {
        first.extend_from_slice(name);
        first.push(value.len() as u8);
        first.extend_from_slice(value.as_bytes());
    }
    let second = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &frame(4, 0, 0, &[])[..],
        &frame(1, 4, 1, &first),
        &frame(0, 1, 1, &[0; 5]), // an empty message, and the end of the stream
        &frame(1, 4, 3, &second),
        &frame(0, 1, 3, &[0; 5]),
    ]
    .concat()
}

/// The kinds of the first frames of both calls, but for those that make room.
async fn first_frames(stream: &mut tokio::net::TcpStream) -> [u8; 2] {
    let mut kinds = [None; 2];
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if matches!(header[8], 1 | 3) && header[3] != 8 {
            kinds[usize::from(header[8] / 2)].get_or_insert(header[3]);
        }
        if let [Some(first), Some(second)] = kinds {
            return [first, second];
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_headers_are_taken() {
    let alone = Alone::start().await;
    let mut kv = alone.kv().await;
    for bytes in [20_000, 100_000, 1_000_000] {
        let mut request = Request::new(range("k"));
        let value = MetadataValue::try_from("v".repeat(bytes)).unwrap();
        request.metadata_mut().insert("authorization-of-mine", value);
        kv.range(request).await.unwrap_or_else(|status| panic!("{bytes} bytes: {status}"));
    }
    alone.server.shutdown().await;
}

/// A client's connection on which every call goes to one path.
#[derive(Clone)]
struct Astray(Channel, &'static str);

impl tower_service::Service<axum::http::Request<Body>> for Astray {
    type Response = axum::http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as tower_service::Service<axum::http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower_service::Service::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, mut request: axum::http::Request<Body>) -> Self::Future {
        *request.uri_mut() = self.1.parse().unwrap();
        tower_service::Service::call(&mut self.0, request)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_keep_alive_end_the_stream_with_an_error() {
    let alone = Alone::start().await;
    let path = "/etcdserverpb.Lease/LeaseKeepAlive";
    let mut client = WatchClient::new(Astray(alone.channel().await, path));
    let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut answers = client.watch(tokio_stream::once(request)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Internal);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_that_is_not_there_is_named() {
    let alone = Alone::start().await;
    let mut client = KvClient::new(Astray(alone.channel().await, "/etcdserverpb.KV/Rang"));
    let refused = client.range(range("k")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unimplemented, "unknown method Rang for service etcdserverpb.KV")
    );
    alone.server.shutdown().await;
}
