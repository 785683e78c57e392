//! A member that was away comes back: by log, and when the log is gone, by snapshot.

use crate::harness::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_catches_up_by_log_then_by_snapshot() {
    catches_up("raft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_catches_up_by_log_then_by_snapshot_with_zab() {
    catches_up("zab").await;
}

async fn catches_up(engine: &str) {
    let mut cluster = Cluster::start(3, &["--engine", engine, "--snapshot-count", "30000"]).await;
    away_and_back(&mut cluster, "log", 10_000).await;
    let away = 2;
    assert!(
        !cluster.log(away).contains("snapshot received"),
        "with the log still there no snapshot is needed"
    );

    // Less log is kept now, so the same absence outlasts it.
    for at in 0..3 {
        assert!(cluster.stop(at));
    }
    let mut compacting = Cluster::prepare(0, &["--engine", engine, "--snapshot-count", "500"]);
    std::mem::swap(&mut compacting.members, &mut cluster.members);
    std::mem::swap(&mut compacting.directory, &mut cluster.directory);
    let mut cluster = compacting;
    for at in 0..3 {
        cluster.spawn(at);
    }
    cluster.settle().await;
    away_and_back(&mut cluster, "snapshot", 10_000).await;
    assert!(
        cluster.log(away).contains("snapshot received"),
        "10,000 entries are more than the log keeps"
    );

    // What was installed survives a restart.
    cluster.kill(away);
    cluster.spawn(away);
    cluster.settle().await;
    equal_everywhere(&cluster).await;
}

async fn away_and_back(cluster: &mut Cluster, prefix: &str, writes: usize) {
    let away = 2;
    cluster.kill(away);
    cluster.fill(&[0, 1], prefix, writes).await;
    cluster.spawn(away);
    cluster.settle().await;
    equal_everywhere(cluster).await;
}

/// Waits until all members answer the same from their own state.
async fn equal_everywhere(cluster: &Cluster) {
    eventually("members have the same revision", async || {
        let mut seen = Vec::new();
        for at in 0..3 {
            let answer = cluster.read(at, b"none", true).await.unwrap();
            seen.push(answer.header.unwrap().revision);
        }
        seen.iter().all(|revision| *revision == seen[0]).then_some(())
    })
    .await;
    let mut counts = Vec::new();
    for at in 0..3 {
        counts.push(count(cluster, at).await);
    }
    assert!(counts.iter().all(|seen| *seen == counts[0]), "members differ: {counts:?}");
}

async fn count(cluster: &Cluster, at: usize) -> (i64, Vec<(Vec<u8>, i64)>) {
    use quorate_proto::etcdserverpb::RangeRequest;
    use quorate_proto::etcdserverpb::kv_client::KvClient;
    let request = RangeRequest {
        key: bytes::Bytes::from_static(b"\0"),
        range_end: bytes::Bytes::from_static(b"\0"),
        serializable: true,
        ..Default::default()
    };
    let mut client = KvClient::new(cluster.channel(at)).max_decoding_message_size(usize::MAX);
    let response = client.range(request).await.unwrap().into_inner();
    let keys = response.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.mod_revision)).collect();
    (response.count, keys)
}
