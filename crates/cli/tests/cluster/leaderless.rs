//! A member that has lost the others: what it still answers, and in which words it says what it
//! cannot.

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchCreateRequest,
    WatchRequest,
};
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::harness::{Cluster, PATIENCE};

const NO_LEADER: (Code, &str) = (Code::Unavailable, "etcdserver: no leader");

fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

fn words(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

/// Requests that come one by one, and the end by which they are sent.
fn requests<T: Send + 'static>() -> (mpsc::Sender<T>, impl futures_util::Stream<Item = T> + Send) {
    let (sender, mut receiver) = mpsc::channel(1);
    (sender, futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)))
}

async fn end_of<T>(stream: &mut Streaming<T>) -> Status {
    let ended = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the stream ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_depends_on_a_leader_hears_that_there_is_none() {
    let mut cluster =
        Cluster::start(2, &["--heartbeat-interval", "50", "--election-timeout", "500"]).await;
    let channel = cluster.channel(1);
    let mut kv = KvClient::new(channel.clone());
    let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    kv.put(with_leader(put.clone())).await.unwrap();
    let mut lease = LeaseClient::new(channel.clone());
    lease.lease_grant(LeaseGrantRequest { ttl: 100, id: 7 }).await.unwrap();

    let (renew, renewals) = requests();
    renew.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let mut renewals = lease.lease_keep_alive(with_leader(renewals)).await.unwrap().into_inner();
    assert_eq!(renewals.message().await.unwrap().unwrap().ttl, 100);
    let create = || {
        let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    let mut watch = WatchClient::new(channel.clone());
    let (ask, asked) = requests();
    ask.send(create()).await.unwrap();
    let mut depending = watch.watch(with_leader(asked)).await.unwrap().into_inner();
    assert!(depending.message().await.unwrap().unwrap().created);
    let (ask_patiently, asked) = requests();
    ask_patiently.send(create()).await.unwrap();
    let mut patient = watch.watch(asked).await.unwrap().into_inner();
    assert!(patient.message().await.unwrap().unwrap().created);

    cluster.kill(0);
    assert_eq!(words(&end_of(&mut depending).await), NO_LEADER);
    assert_eq!(words(&end_of(&mut renewals).await), NO_LEADER);
    let read = |serializable| RangeRequest { key: "k".into(), serializable, ..Default::default() };
    assert_eq!(words(&kv.range(with_leader(read(true))).await.unwrap_err()), NO_LEADER);
    // Its own state it tells to whoever does not mind.
    let found = kv.range(read(true)).await.unwrap().into_inner();
    assert_eq!(&found.kvs[0].value[..], b"v");
    // What needs the others ends in time; a change may have taken effect, or may yet.
    for (what, refused) in [
        ("a read", kv.range(read(false)).await.unwrap_err()),
        ("a put", kv.put(put.clone()).await.unwrap_err()),
    ] {
        assert_eq!(refused.code(), Code::Unavailable, "{what}: {refused}");
        let text = refused.message();
        assert!(text.starts_with("etcdserver: request timed out"), "{what}: {text}");
    }

    cluster.spawn(0);
    cluster.settle().await;
    kv.put(with_leader(put)).await.unwrap();
    // The one that did not mind has missed nothing.
    let told = tokio::time::timeout(PATIENCE, patient.message()).await.unwrap();
    assert_eq!(told.unwrap().unwrap().events[0].kv.as_ref().unwrap().key, "k");
    drop((renew, ask, ask_patiently));
}
