//! What an operator asks of one real node, over a real connection.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, DefragmentRequest, DeleteRangeRequest,
    DowngradeRequest, HashKvRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp,
    SnapshotRequest, StatusRequest, TxnRequest, WatchRequest, request_op,
};
use quorate_server::Server;
use quorate_server::snapshot::inspect_saved;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::node::{self, connect};

const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;
const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;

const TOO_FULL: &str = "etcdserver: mvcc: database space exceeded";
const DIFFERS: &str = "etcdserver: corrupt cluster";

struct Alone {
    server: Server,
    directory: TempDir,
    flags: Vec<(&'static str, &'static str)>,
}

impl Alone {
    async fn with(flags: &[(&'static str, &'static str)]) -> Alone {
        let directory = TempDir::new().unwrap();
        let server = node::ready(&directory, flags).await;
        Alone { server, directory, flags: flags.to_vec() }
    }

    async fn again(self) -> Alone {
        let Alone { server, directory, flags } = self;
        server.shutdown().await;
        let server = node::ready(&directory, &flags).await;
        Alone { server, directory, flags }
    }

    async fn clients(&self) -> (KvClient<Channel>, MaintenanceClient<Channel>) {
        let channel = self.channel().await;
        (KvClient::new(channel.clone()), MaintenanceClient::new(channel))
    }

    async fn channel(&self) -> Channel {
        connect(&self.server).await
    }

    fn id(&self) -> u64 {
        self.server.identity().node.0
    }
}

fn put(key: &'static str, bytes: usize) -> PutRequest {
    PutRequest { key: key.into(), value: vec![7; bytes].into(), ..Default::default() }
}

fn range(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

fn delete(key: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), ..Default::default() }
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, failure, ..Default::default() }
}

fn words(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

/// The code and text of a refusal; nothing where there was none.
fn refusal<T>(outcome: Result<T, Status>) -> Option<(Code, String)> {
    outcome.err().map(words)
}

fn alarms(answer: &AlarmResponse) -> Vec<(u64, i32)> {
    answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect()
}

fn ask(action: i32, member_id: u64, alarm: i32) -> AlarmRequest {
    AlarmRequest { action, member_id, alarm }
}

async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_are_listed_raised_and_ended_as_in_etcd() {
    let alone = Alone::with(&[]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    kv.put(put("k", 1)).await.unwrap();
    for (action, member, alarm, want) in [
        (GET, 0, 0, &[][..]),
        (ACTIVATE, 5, 0, &[]),
        (ACTIVATE, 5, 9, &[]), // a kind nobody knows
        (ACTIVATE, 5, NOSPACE, &[(5, NOSPACE)]),
        (ACTIVATE, 5, NOSPACE, &[(5, NOSPACE)]),
        (ACTIVATE, 6, CORRUPT, &[(6, CORRUPT)]),
        (GET, 0, 0, &[(5, NOSPACE), (6, CORRUPT)]),
        (GET, 0, CORRUPT, &[(6, CORRUPT)]),
        (7, 5, NOSPACE, &[]), // an action nobody knows
        (DEACTIVATE, 5, CORRUPT, &[]),
        (DEACTIVATE, 6, NOSPACE, &[]),
        (DEACTIVATE, 5, NOSPACE, &[(5, NOSPACE)]),
        (DEACTIVATE, 5, NOSPACE, &[]),
        (GET, 0, 0, &[(6, CORRUPT)]),
    ] {
        let answer = maintenance.alarm(ask(action, member, alarm)).await.unwrap().into_inner();
        assert_eq!(alarms(&answer), want, "{action} {member} {alarm}");
        let header = answer.header.unwrap();
        assert_eq!((header.revision, header.member_id), (2, alone.id()));
    }
    // They are as durable as anything else.
    let alone = alone.again().await;
    let (_, mut maintenance) = alone.clients().await;
    let answer = maintenance.alarm(ask(GET, 0, 0)).await.unwrap().into_inner();
    assert_eq!(alarms(&answer), [(6, CORRUPT)]);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["memberID:6 alarm:CORRUPT "]);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_made_room_in_and_disarmed() {
    let alone = Alone::with(&[("quota-backend-bytes", "100000")]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    let mut lease = LeaseClient::new(alone.channel().await);
    let grant = |id| LeaseGrantRequest { ttl: 60, id };
    lease.lease_grant(grant(7)).await.unwrap();
    let full = eventually(async || refusal(kv.put(put("k", 10_000)).await)).await;
    let no_space = (Code::ResourceExhausted, TOO_FULL.to_owned());
    assert_eq!(full, no_space);

    // The member has raised its alarm by itself, and says so.
    let answer = maintenance.alarm(ask(GET, 0, 0)).await.unwrap().into_inner();
    assert_eq!(alarms(&answer), [(alone.id(), NOSPACE)]);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, [format!("memberID:{} alarm:NOSPACE ", alone.id())]);
    assert_eq!(status.db_size_quota, 100_000);

    let puts = || op(request_op::Request::RequestPut(put("a", 1)));
    let reads = || op(request_op::Request::RequestRange(range("k")));
    let deletes = || op(request_op::Request::RequestDeleteRange(delete("x")));
    let nested = op(request_op::Request::RequestTxn(txn(vec![puts()], vec![])));
    // However little it would add, and in whichever branch.
    assert_eq!(refusal(kv.put(put("a", 0)).await), Some(no_space.clone()));
    for (success, failure, want) in [
        (vec![puts()], vec![], Some(no_space.clone())),
        (vec![], vec![puts()], Some(no_space.clone())),
        (vec![nested], vec![], Some(no_space.clone())),
        (vec![deletes(), reads()], vec![], None),
        (vec![reads()], vec![reads()], None),
    ] {
        let request = txn(success, failure);
        assert_eq!(refusal(kv.txn(request.clone()).await), want, "{request:?}");
    }
    assert_eq!(refusal(lease.lease_grant(grant(8)).await), Some(no_space.clone()));
    lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap();
    kv.range(range("k")).await.unwrap();
    let revision =
        kv.delete_range(delete("k")).await.unwrap().into_inner().header.unwrap().revision;
    kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
    assert_eq!(
        maintenance.defragment(DefragmentRequest {}).await.unwrap().into_inner().header,
        None
    );
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.db_size_in_use < 10_000, "{}", status.db_size_in_use);
    // Room alone does not end the alarm.
    assert_eq!(refusal(kv.put(put("a", 1)).await), Some(no_space));
    let ended = maintenance.alarm(ask(DEACTIVATE, alone.id(), NOSPACE)).await.unwrap().into_inner();
    assert_eq!(alarms(&ended), [(alone.id(), NOSPACE)]);
    eventually(async || kv.put(put("a", 1)).await.ok()).await;
    lease.lease_grant(grant(8)).await.unwrap();
    let answer = maintenance.alarm(ask(GET, 0, 0)).await.unwrap().into_inner();
    assert_eq!(alarms(&answer), []);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_members_differ_nothing_is_changed() {
    let alone = Alone::with(&[]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    let mut lease = LeaseClient::new(alone.channel().await);
    lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap();
    kv.put(put("k", 1)).await.unwrap();
    maintenance.alarm(ask(ACTIVATE, 5, CORRUPT)).await.unwrap();
    let differs = Some((Code::DataLoss, DIFFERS.to_owned()));
    let deletes = op(request_op::Request::RequestDeleteRange(delete("x")));
    let reads = op(request_op::Request::RequestRange(range("k")));
    assert_eq!(refusal(kv.put(put("k", 1)).await), differs);
    assert_eq!(refusal(kv.delete_range(delete("k")).await), differs);
    assert_eq!(refusal(kv.txn(txn(vec![deletes], vec![])).await), differs);
    let compaction = CompactionRequest { revision: 2, physical: false };
    assert_eq!(refusal(kv.compact(compaction).await), differs);
    let grant = LeaseGrantRequest { ttl: 60, id: 8 };
    assert_eq!(refusal(lease.lease_grant(grant).await), differs);
    assert_eq!(refusal(lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await), differs);
    assert_eq!(kv.range(range("k")).await.unwrap().into_inner().count, 1);
    kv.txn(txn(vec![reads], vec![])).await.unwrap();
    maintenance.alarm(ask(DEACTIVATE, 5, CORRUPT)).await.unwrap();
    kv.put(put("k", 1)).await.unwrap();
    alone.server.shutdown().await;
}

/// While members differ no lease ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_renews_a_lease_whose_time_is_up_waits_for_its_end() {
    let alone = Alone::with(&[]).await;
    let (_, mut maintenance) = alone.clients().await;
    let mut lease = LeaseClient::new(alone.channel().await);
    lease.lease_grant(LeaseGrantRequest { ttl: 1, id: 7 }).await.unwrap();
    maintenance.alarm(ask(ACTIVATE, 5, CORRUPT)).await.unwrap();
    // Its time begins now at the latest.
    let request = LeaseTimeToLiveRequest { id: 7, keys: false };
    let left = lease.lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!(left.granted_ttl, 1, "it is there");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let renewed = async || {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id: 7 });
        let answer = lease.clone().lease_keep_alive(request).await?.into_inner().message().await?;
        Ok::<_, Status>(answer.unwrap().ttl)
    };
    // That it is not answered for so long is all that can be seen.
    let early = tokio::time::timeout(Duration::from_secs(1), renewed()).await;
    assert!(!matches!(early, Ok(Ok(_))), "{early:?}");
    let (renewed, ()) = tokio::join!(eventually(async || renewed().await.ok()), async {
        maintenance.alarm(ask(DEACTIVATE, 5, CORRUPT)).await.unwrap();
    });
    assert_eq!(renewed, 0);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_physical_compaction_is_answered_once_all_it_forgets_is_gone() {
    const KEYS: usize = 400;
    let alone = Alone::with(&[("max-txn-ops", "1000")]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    let mut revision = 0;
    for _ in 0..10 {
        let puts = (0..KEYS).map(|number| {
            let request = PutRequest { key: format!("k{number}").into(), ..put("", 1000) };
            op(request_op::Request::RequestPut(request))
        });
        let puts = txn(puts.collect(), vec![]);
        revision = kv.txn(puts).await.unwrap().into_inner().header.unwrap().revision;
    }
    // What is in a snapshot is in storage.
    let mut saved = maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    saved.message().await.unwrap().unwrap();
    drop(saved);
    let mut in_use = async || {
        let status = maintenance.status(StatusRequest {}).await;
        status.unwrap().into_inner().db_size_in_use
    };
    let before = in_use().await;
    assert!(10 * 1000 * (KEYS as i64) < before, "{before}");
    kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
    let after = in_use().await;
    assert!(after < before / 3, "{before} {after}");
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_are_of_retained_history() {
    let alone = Alone::with(&[]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    for _ in 0..4 {
        kv.put(put("k", 10)).await.unwrap();
    }
    let whole = maintenance.hash(HashRequest {}).await.unwrap().into_inner();
    assert_eq!(whole.header.unwrap().revision, 5);
    let at = |revision| HashKvRequest { revision };
    let all = maintenance.hash_kv(at(0)).await.unwrap().into_inner();
    assert_eq!((all.compact_revision, all.hash_revision), (-1, 5));
    assert_eq!(all.header.unwrap().revision, 5);
    assert_eq!(maintenance.hash_kv(at(5)).await.unwrap().into_inner().hash, all.hash);
    let early = maintenance.hash_kv(at(3)).await.unwrap().into_inner();
    assert_eq!((early.hash_revision, early.header.unwrap().revision), (3, 5));
    assert_ne!(early.hash, all.hash);
    kv.compact(CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let compacted = maintenance.hash_kv(at(0)).await.unwrap().into_inner();
    assert_eq!((compacted.compact_revision, compacted.hash_revision), (4, 5));
    for (revision, text) in [
        (3, "etcdserver: mvcc: required revision has been compacted"),
        (6, "etcdserver: mvcc: required revision is a future revision"),
    ] {
        let refused = refusal(maintenance.hash_kv(at(revision)).await);
        assert_eq!(refused, Some((Code::OutOfRange, text.to_owned())), "{revision}");
    }
    // Whatever a member has been through.
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    let alone = alone.again().await;
    let (_, mut maintenance) = alone.clients().await;
    assert_eq!(maintenance.hash_kv(at(0)).await.unwrap().into_inner().hash, compacted.hash);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_counts_down_and_ends_with_its_checksum() {
    let alone = Alone::with(&[]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    for key in ["a", "b", "c"] {
        kv.put(put(key, 50_000)).await.unwrap();
    }
    let mut pieces = maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    // Changes go on, and are not in it.
    kv.put(put("later", 1)).await.unwrap();
    let (mut blobs, mut remaining): (Vec<Bytes>, Vec<u64>) = Default::default();
    while let Some(piece) = pieces.message().await.unwrap() {
        assert_eq!((piece.header, piece.version.as_str()), (None, "3.6.0"));
        blobs.push(piece.blob);
        remaining.push(piece.remaining_bytes);
    }
    let checksum = blobs.last().unwrap();
    assert_eq!((checksum.len(), *remaining.last().unwrap()), (32, 0));
    let body: usize = blobs[..blobs.len() - 1].iter().map(Bytes::len).sum();
    assert_eq!(body % 512, 0);
    let mut left = body as u64;
    for (blob, remaining) in blobs[..blobs.len() - 1].iter().zip(&remaining) {
        assert!(blob.len() <= 32 << 10);
        left -= blob.len() as u64;
        assert_eq!(*remaining, left);
    }
    let file = alone.directory.path().join("saved");
    std::fs::write(&file, blobs.concat()).unwrap();
    let status = inspect_saved(&file, &mut |_, _| ()).unwrap();
    assert_eq!(status.contents.revision, 4);
    assert_eq!(status.contents.cluster_id, alone.server.identity().cluster);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_of_a_snapshot_keeps_only_so_many_others_from_one() {
    let alone = Alone::with(&[]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    // More than lies between the disk and a client that reads nothing.
    for at in 0..4 {
        kv.put(PutRequest { key: format!("k{at}").into(), ..put("", 1 << 20) }).await.unwrap();
    }
    // On a connection of their own, whose room they use up.
    let (_, mut slow) = alone.clients().await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(slow.snapshot(SnapshotRequest {}).await.unwrap());
    }
    let refused = refusal(maintenance.snapshot(SnapshotRequest {}).await);
    assert_eq!(refused.unwrap().1, "etcdserver: too many requests");
    // Defragmentation does not wait for any of them, nor do changes.
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    kv.put(put("k", 1)).await.unwrap();
    drop(idle);
    eventually(async || maintenance.snapshot(SnapshotRequest {}).await.ok()).await;
    alone.server.shutdown().await;
}

/// Whoever copies until the end must not take a part for the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_off_does_not_end_well() {
    let alone = Alone::with(&[]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    for at in 0..16 {
        kv.put(PutRequest { key: format!("k{at}").into(), ..put("", 1 << 20) }).await.unwrap();
    }
    let mut pieces = maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    pieces.message().await.unwrap().unwrap();
    // A watch ends once the server stops, however long it takes to come to that.
    let (asked, asks) = tokio::sync::mpsc::channel::<WatchRequest>(1);
    let asks = tokio_stream::wrappers::ReceiverStream::new(asks);
    let watch = WatchClient::new(alone.channel().await).watch(asks).await;
    let mut watch = watch.unwrap().into_inner();
    let stopped = tokio::spawn(alone.server.shutdown());
    watch.message().await.unwrap_err();
    drop(asked);
    let end = loop {
        match pieces.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(status) => break Some(status.code()),
        }
    };
    assert_eq!(end, Some(Code::Unavailable));
    drop((kv, maintenance, pieces));
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_nothing_to_go_back_to() {
    const VALIDATE: i32 = 0;
    const ENABLE: i32 = 1;
    const CANCEL: i32 = 2;
    let alone = Alone::with(&[]).await;
    let (_, mut maintenance) = alone.clients().await;
    let invalid = (Code::InvalidArgument, "etcdserver: invalid downgrade target version");
    let wrong = (Code::InvalidArgument, "etcdserver: wrong downgrade target version format");
    for (action, version, want) in [
        (VALIDATE, "3.5.0", invalid),
        (VALIDATE, "3.4", invalid),
        (VALIDATE, "three", wrong),
        (VALIDATE, "", wrong),
        (ENABLE, "3.5", invalid),
        (ENABLE, "3", wrong),
        (CANCEL, "", (Code::FailedPrecondition, "etcdserver: no inflight downgrade job")),
        (9, "", (Code::Unknown, "etcdserver: unknown method")),
    ] {
        let request = DowngradeRequest { action, version: version.to_owned() };
        let refused = words(maintenance.downgrade(request).await.unwrap_err());
        assert_eq!(refused, (want.0, want.1.to_owned()), "{action} {version:?}");
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_by_itself() {
    let alone =
        Alone::with(&[("auto-compaction-retention", "1s"), ("corrupt-check-time", "1s")]).await;
    let (mut kv, mut maintenance) = alone.clients().await;
    let old = RangeRequest { revision: 2, ..range("k") };
    kv.put(put("k", 1)).await.unwrap();
    let compacted = eventually(async || {
        kv.put(put("k", 1)).await.unwrap();
        refusal(kv.range(old.clone()).await)
    })
    .await;
    assert_eq!(compacted.1, "etcdserver: mvcc: required revision has been compacted");
    // A member alone has nobody to differ from.
    let answer = maintenance.alarm(ask(GET, 0, 0)).await.unwrap().into_inner();
    assert_eq!(alarms(&answer), []);
    alone.server.shutdown().await;
}
