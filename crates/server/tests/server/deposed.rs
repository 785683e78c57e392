//! What members say that have no majority, or know no leader.

use std::time::Duration;

use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MoveLeaderRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::observing::{figure, get};
use crate::trio::{Trio, eventually};

/// What is said without asking anybody is said within this.
const AT_ONCE: Duration = Duration::from_secs(1);

/// For how long a lease is renewed, once.
async fn renewed(mut lease: LeaseClient<Channel>, id: i64) -> Result<i64, Status> {
    let request = tokio_stream::once(LeaseKeepAliveRequest { id });
    let answer = lease.lease_keep_alive(request).await?.into_inner().message().await?;
    answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("the stream ended"))
}

fn put(value: &'static str) -> PutRequest {
    PutRequest { key: "k".into(), value: value.into(), ..Default::default() }
}

fn range(serializable: bool) -> RangeRequest {
    RangeRequest { key: "k".into(), serializable, ..Default::default() }
}

/// A transaction that reads a key once for each.
fn reads(serializable: &[bool]) -> TxnRequest {
    let read = |it: &bool| request_op::Request::RequestRange(range(*it));
    let success = serializable.iter().map(|it| RequestOp { request: Some(read(it)) });
    TxnRequest { success: success.collect(), ..Default::default() }
}

fn words(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

/// It has renewed a lease all the time that has ended elsewhere, and has never heard of another one that
/// was granted elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_says_nothing_about_leases_and_keys() {
    // Without the others it goes on believing for most of a minute that it leads.
    let (slow, quick) = ([("election-timeout", "50000")], [("election-timeout", "1000")]);
    let trio = Trio::start([&slow, &quick, &quick]).await;
    trio.lead(0).await;
    let grant = |id, ttl| LeaseGrantRequest { id, ttl };
    trio.lease(1).await.lease_grant(grant(7, 1)).await.unwrap();
    trio.kv(1).await.put(put("old")).await.unwrap();

    trio.cut_off(0);
    let leader = trio.leader(&[1, 2]).await;
    let (mut there, mut kv) = (trio.lease(leader).await, trio.kv(leader).await);
    there.lease_grant(grant(9, 600)).await.unwrap();
    kv.put(put("new")).await.unwrap();
    let cut_off = trio.lease(0).await;
    let mut renewals = tokio::task::JoinSet::new();
    eventually("the lease has ended", async || {
        renewals.spawn(renewed(cut_off.clone(), 7));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let request = LeaseTimeToLiveRequest { id: 7, keys: false };
        let left = there.lease_time_to_live(request).await.unwrap().into_inner();
        (left.ttl < 0).then_some(())
    })
    .await;

    let mut reader = trio.kv(0).await;
    let ended = tokio::spawn(renewed(cut_off.clone(), 7));
    let granted = tokio::spawn(renewed(cut_off.clone(), 9));
    let read = tokio::spawn(async move { reader.range(range(false)).await });
    // If they were to be answered by what it knows itself, they would be by now.
    tokio::time::sleep(AT_ONCE).await;
    trio.heal();
    if let Ok(ttl) = ended.await.unwrap() {
        assert_eq!(ttl, 0, "it has ended");
    }
    if let Ok(ttl) = granted.await.unwrap() {
        assert_eq!(ttl, 600, "it was granted");
    }
    if let Ok(read) = read.await.unwrap() {
        assert_eq!(&read.get_ref().kvs[0].value[..], b"new");
    }
    for (id, ttl) in [(7, 0), (9, 600)] {
        let answer =
            eventually("it is asked", async || renewed(cut_off.clone(), id).await.ok()).await;
        assert_eq!(answer, ttl, "{id}");
    }
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_knows_no_leader_says_so_and_answers_transactions_of_serializable_reads() {
    let mut trio = Trio::start([&[], &[], &[]]).await;
    let mut kv = trio.kv(0).await;
    kv.put(put("v")).await.unwrap();
    trio.stop(1).await;
    trio.stop(2).await;
    let errors = eventually("nobody leads", async || {
        let status = trio.status(0).await;
        (status.leader == 0).then_some(status.errors)
    });
    assert_eq!(errors.await, ["etcdserver: no leader"]);
    let read = kv.txn(reads(&[true, true])).await.unwrap().into_inner();
    assert!(read.succeeded && read.responses.len() == 2);
    // One that is to be confirmed is enough.
    kv.txn(reads(&[true, false])).await.unwrap_err();
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_when_a_member_stops_ends_with_its_word() {
    // It waits for most of a minute for a leader that it hears no more.
    let slow = [("election-timeout", "50000")];
    let mut trio = Trio::start([&slow, &[], &[]]).await;
    trio.lead(1).await;
    trio.cut_off(0);
    let mut kv = trio.kv(0).await;
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn({
        let mut kv = kv.clone();
        async move { kv.put(put("v")).await.map(drop) }
    });
    calls.spawn({
        let mut kv = kv.clone();
        async move { kv.range(range(false)).await.map(drop) }
    });
    calls.spawn(async move { kv.txn(reads(&[false])).await.map(drop) });
    let address = trio.server(0).client_addresses()[0];
    eventually("they are under way", async || {
        let page = get(address, "/metrics").await.1;
        let has_begun = |method: &str| {
            let labels = format!(
                "grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"{method}\""
            );
            figure(&page, &format!("grpc_server_started_total{{{labels}}}")) == Some(1.0)
        };
        ["Put", "Range", "Txn"].iter().all(|method| has_begun(method)).then_some(())
    })
    .await;
    assert!(calls.try_join_next().is_none());
    trio.stop(0).await;
    while let Some(outcome) = calls.join_next().await {
        let status = outcome.unwrap().unwrap_err();
        assert_eq!(words(&status), (Code::Unavailable, "etcdserver: server stopped"));
    }
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_does_not_go_to_a_member_that_is_down() {
    let calm = [("election-timeout", "1000")];
    let mut trio = Trio::start([&calm, &calm, &calm]).await;
    trio.lead(0).await;
    let target_id = trio.id(2);
    trio.stop(2).await;
    let mut maintenance = trio.maintenance(0).await;
    let refused = maintenance.move_leader(MoveLeaderRequest { target_id }).await.unwrap_err();
    let want = "etcdserver: request timed out, leader transfer took too long";
    assert_eq!(words(&refused), (Code::Unknown, want));
    // Nor is it lost.
    let mut kv = trio.kv(1).await;
    eventually("writes go on", async || kv.put(put("v")).await.ok()).await;
    trio.shutdown().await;
}
