//! What the Kubernetes API server asks of its store, in the order in which it does: an object's life,
//! lists in pages, watches from a list on, compaction among several servers.

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::request_op::Request as Ask;
use quorate_proto::etcdserverpb::response_op::Response as Answer;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    RequestOp, StatusRequest, TxnRequest, TxnResponse, WatchCreateRequest, WatchProgressRequest,
    WatchRequest,
};
use tempfile::TempDir;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::node::{self, connect};

fn op(request: Ask) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

fn put(key: &str, value: &str, lease: i64) -> Ask {
    let (key, value) = [key, value].map(|text| Bytes::copy_from_slice(text.as_bytes())).into();
    Ask::RequestPut(PutRequest { key, value, lease, ..Default::default() })
}

fn delete(key: &str) -> Ask {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Ask::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
}

/// One compare, one change if it holds, and at most one read if it does not.
async fn guarded(
    kv: &mut KvClient<Channel>,
    key: &str,
    (target, given): (CompareTarget, TargetUnion),
    change: Ask,
    reads: bool,
) -> TxnResponse {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(given),
        ..Default::default()
    };
    let failure = if reads { vec![op(Ask::RequestRange(get(key)))] } else { Vec::new() };
    let txn = TxnRequest { compare: vec![compare], success: vec![op(change)], failure };
    kv.txn(txn).await.unwrap().into_inner()
}

fn modified(revision: i64) -> (CompareTarget, TargetUnion) {
    (CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

/// The one answer of a transaction, and its own header's revision.
fn only(answer: &TxnResponse) -> (i64, &Answer) {
    assert_eq!(answer.responses.len(), 1);
    let response = answer.responses[0].response.as_ref().unwrap();
    let header = match response {
        Answer::ResponseRange(answer) => &answer.header,
        Answer::ResponsePut(answer) => &answer.header,
        Answer::ResponseDeleteRange(answer) => &answer.header,
        Answer::ResponseTxn(answer) => &answer.header,
    };
    (header.as_ref().unwrap().revision, response)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubernetes_asks_for_is_answered_as_it_expects() {
    let directory = TempDir::new().unwrap();
    let server = node::ready(&directory, &[]).await;
    let channel = connect(&server).await;
    let mut kv = KvClient::new(channel.clone());

    // Its version is three numbers, and the size of the store is known.
    let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await;
    let status = status.unwrap().into_inner();
    assert!(
        status.version.split('.').all(|part| part.parse::<u32>().is_ok()) && 0 < status.db_size
    );
    assert_eq!(kv.range(get("/registry/health")).await.unwrap().into_inner().count, 0);

    // An object is created once, changed by who knows its revision, and deleted likewise.
    let name = "/registry/pods/default/a";
    let created = guarded(&mut kv, name, modified(0), put(name, "1", 0), false).await;
    assert!(created.succeeded);
    let (revision, _) = only(&created);
    assert_eq!(revision, created.header.unwrap().revision, "the put's own header says when");
    let twice = guarded(&mut kv, name, modified(0), put(name, "x", 0), true).await;
    assert!(!twice.succeeded);
    let (_, Answer::ResponseRange(found)) = only(&twice) else { panic!("{twice:?}") };
    assert_eq!((found.kvs[0].mod_revision, &found.kvs[0].value[..]), (revision, &b"1"[..]));
    let changed = guarded(&mut kv, name, modified(revision), put(name, "2", 0), true).await;
    assert!(changed.succeeded);
    let (changed, _) = only(&changed);
    let stale = guarded(&mut kv, name, modified(revision), delete(name), true).await;
    assert!(!stale.succeeded);
    let deleted = guarded(&mut kv, name, modified(changed), delete(name), true).await;
    let (at, Answer::ResponseDeleteRange(gone)) = only(&deleted) else { panic!("{deleted:?}") };
    assert_eq!(
        (at, gone.deleted),
        (deleted.header.unwrap().revision, 1),
        "and so does a deletion's"
    );

    // Events share a lease.
    let grant = LeaseGrantRequest { ttl: 3600, id: 0 };
    let lease = LeaseClient::new(channel.clone()).lease_grant(grant).await.unwrap().into_inner().id;
    for number in 0..25 {
        let name = format!("/registry/events/{number:02}");
        let put = put(&name, "event", lease);
        assert!(guarded(&mut kv, &name, modified(0), put, false).await.succeeded);
    }

    // A list in pages: each goes on after the last key of the one before, at the first one's revision.
    let list = RangeRequest { range_end: "/registry/events0".into(), ..get("/registry/events/") };
    let mut names = Vec::new();
    let (mut page, mut pinned) = (RangeRequest { limit: 10, ..list.clone() }, 0);
    for (left, more) in [(25, true), (15, true), (5, false)] {
        let answer = kv.range(page.clone()).await.unwrap().into_inner();
        assert_eq!((answer.count, answer.more), (left, more));
        if pinned == 0 {
            pinned = answer.header.unwrap().revision;
            // What comes in between is not in this list.
            let late = "/registry/events/99";
            assert!(
                guarded(&mut kv, late, modified(0), put(late, "", lease), false).await.succeeded
            );
        }
        names.extend(answer.kvs.iter().map(|pair| pair.key.clone()));
        let after = [names.last().unwrap().as_ref(), &[0]].concat();
        page = RangeRequest { key: after.into(), revision: pinned, ..page };
    }
    assert_eq!(names.len(), 25);
    assert!(names.is_sorted());
    let count = RangeRequest { count_only: true, ..list.clone() };
    assert_eq!(kv.range(count).await.unwrap().into_inner().count, 26);
    let keys = RangeRequest { keys_only: true, limit: 1, ..list.clone() };
    let keys = kv.range(keys).await.unwrap().into_inner();
    assert!(keys.kvs[0].value.is_empty() && 0 < keys.kvs[0].mod_revision && keys.more);

    // A watch goes on from the list, says how far it is when it is asked, and needs a leader.
    let (requests, outgoing) = tokio::sync::mpsc::channel(4);
    let create = WatchCreateRequest {
        key: list.key.clone(),
        range_end: list.range_end.clone(),
        start_revision: pinned + 1,
        prev_kv: true,
        progress_notify: true,
        ..Default::default()
    };
    let ask = RequestUnion::CreateRequest(create.clone());
    requests.send(WatchRequest { request_union: Some(ask) }).await.unwrap();
    let mut open = Request::new(tokio_stream::wrappers::ReceiverStream::new(outgoing));
    open.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut watch = WatchClient::new(channel.clone()).watch(open).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    let late = watch.message().await.unwrap().unwrap();
    assert_eq!(late.events[0].kv.as_ref().unwrap().key, "/registry/events/99");
    let old = guarded(&mut kv, "/registry/events/00", modified(0), delete("none"), true).await;
    let (_, Answer::ResponseRange(found)) = only(&old) else { panic!("{old:?}") };
    let last = found.kvs[0].mod_revision;
    let name = "/registry/events/00";
    assert!(guarded(&mut kv, name, modified(last), delete(name), true).await.succeeded);
    let gone = watch.message().await.unwrap().unwrap();
    let event = &gone.events[0];
    assert_eq!((event.r#type, &event.prev_kv.as_ref().unwrap().value[..]), (1, &b"event"[..]));
    let told = event.kv.as_ref().unwrap().mod_revision;
    requests
        .send(WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        })
        .await
        .unwrap();
    let progress = watch.message().await.unwrap().unwrap();
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert!(told <= progress.header.unwrap().revision);

    // Of several servers one compacts: whoever finds the version that it knew.
    let version = |version| (CompareTarget::Version, TargetUnion::Version(version));
    let turn = "compact_rev_key";
    for (known, succeeds) in [(0, true), (0, false), (1, true)] {
        let taken = guarded(&mut kv, turn, version(known), put(turn, "r", 0), true).await;
        assert_eq!(taken.succeeded, succeeds, "version {known}");
    }
    let revision = told;
    kv.compact(CompactionRequest { revision, physical: false }).await.unwrap();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    for refused in [
        kv.range(RangeRequest { revision: pinned, ..list.clone() }).await.map(drop),
        kv.compact(CompactionRequest { revision, physical: false }).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::OutOfRange, compacted));
    }
    requests
        .send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
        .await
        .unwrap();
    assert!(watch.message().await.unwrap().unwrap().created);
    let ended = watch.message().await.unwrap().unwrap();
    assert_eq!((ended.canceled, ended.compact_revision), (true, revision));
    server.shutdown().await;
}
