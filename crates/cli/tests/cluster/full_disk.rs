//! A volume without space: writes are refused in words, reads go on, and when there is space again
//! writes do too, without a restart. What was acknowledged is there throughout.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_chaos::Volume;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{PutRequest, SnapshotRequest};
use tonic::{Code, Status};

use crate::harness::{Cluster, PATIENCE, eventually, http_get};

/// Longer than a refused write may take, shorter than the deadline of one whose fate is unknown.
const REFUSAL: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_volume_refuses_writes_and_recovers_by_itself() {
    // Flushes come often, so the state meets the full volume first: the log has reserved its space.
    let mut cluster = Cluster::prepare(1, &["--snapshot-count", "50"]);
    let volume = match Volume::mount(&cluster.data_dir(0), 256) {
        Ok(volume) => volume,
        Err(why) => return eprintln!("skipped: cannot mount a small volume here: {why}"),
    };
    cluster.spawn(0);
    cluster.settle().await;
    let mut acknowledged = Vec::new();
    write_some(&cluster, &mut acknowledged, 100).await.unwrap();

    for round in 0..2 {
        volume.fill().unwrap();
        write_until_refused(&cluster, &mut acknowledged).await;
        for _ in 0..5 {
            let started = Instant::now();
            let refusal = write_some(&cluster, &mut acknowledged, 1).await.unwrap_err();
            assert!(started.elapsed() < REFUSAL, "a write waits on the full volume");
            assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
            assert_eq!(refusal.message(), "etcdserver: mvcc: database space exceeded");
            all_there(&cluster, &acknowledged).await;
        }
        assert!(cluster.is_running(0), "round {round}: the member gave up");
        everybody_is_told(&cluster).await;

        volume.free();
        write_when_possible(&cluster, &mut acknowledged).await;
        write_some(&cluster, &mut acknowledged, 200).await.unwrap();
        all_there(&cluster, &acknowledged).await;
        eventually("nothing is full any more", async || {
            let is_well = cluster.status(0).await?.errors.is_empty();
            (is_well && http_get(&cluster.endpoint(0), "/readyz").0 == 200).then_some(())
        })
        .await;
    }

    // A stop is not held up by a volume that is full, and no start forgets anything.
    volume.fill().unwrap();
    write_until_refused(&cluster, &mut acknowledged).await;
    let started = Instant::now();
    cluster.stop(0);
    assert!(started.elapsed() < Duration::from_secs(20), "the stop waited for space");
    volume.free();
    cluster.spawn(0);
    cluster.settle().await;
    all_there(&cluster, &acknowledged).await;
    cluster.kill(0);
}

/// Whoever looks hears that the volume is full, and nobody waits for a snapshot.
async fn everybody_is_told(cluster: &Cluster) {
    let full = "no space left on the volume of the ";
    let errors = cluster.status(0).await.unwrap().errors;
    assert!(errors.iter().any(|error| error.starts_with(full)), "{errors:?}");
    let (code, body) = http_get(&cluster.endpoint(0), "/readyz");
    assert!(code == 503 && body.contains("[-]disk_space failed: "), "{code}: {body}");
    let mut client = MaintenanceClient::new(cluster.channel(0));
    let snapshot = tokio::time::timeout(PATIENCE, client.snapshot(SnapshotRequest {})).await;
    let refusal = snapshot.expect("a snapshot waits for space").unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().starts_with(&format!("a snapshot failed: {full}")), "{refusal}");
}

/// Writes new keys one after the other.
async fn write_some(
    cluster: &Cluster,
    acknowledged: &mut Vec<String>,
    count: usize,
) -> Result<(), Status> {
    let mut client = KvClient::new(cluster.channel(0));
    for _ in 0..count {
        let key = format!("full/{:06}", acknowledged.len());
        let request = PutRequest {
            key: Bytes::from(key.clone()),
            value: Bytes::from(vec![b'v'; 4096]),
            ..Default::default()
        };
        client.put(request).await?;
        acknowledged.push(key);
    }
    Ok(())
}

/// Writes on until one is refused, which must come: the state can no longer be flushed.
async fn write_until_refused(cluster: &Cluster, acknowledged: &mut Vec<String>) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match write_some(cluster, acknowledged, 1).await {
            Ok(()) => assert!(Instant::now() < deadline, "a full volume takes writes for ever"),
            Err(status) => return status,
        }
    }
}

async fn write_when_possible(cluster: &Cluster, acknowledged: &mut Vec<String>) {
    eventually("there is space, and writes work", async || {
        write_some(cluster, acknowledged, 1).await.ok()
    })
    .await;
}

/// Every acknowledged key is read, from the member's own state and linearizably.
async fn all_there(cluster: &Cluster, acknowledged: &[String]) {
    use quorate_proto::etcdserverpb::RangeRequest;
    let mut client = KvClient::new(cluster.channel(0));
    for serializable in [true, false] {
        let request = RangeRequest {
            key: Bytes::from_static(b"full/"),
            range_end: Bytes::from_static(b"full0"),
            keys_only: true,
            serializable,
            ..Default::default()
        };
        let response = client.range(request).await.expect("reads go on").into_inner();
        let held: std::collections::BTreeSet<_> =
            response.kvs.iter().map(|kv| kv.key.as_ref()).collect();
        for key in acknowledged {
            assert!(held.contains(key.as_bytes()), "{key} was acknowledged and is gone");
        }
    }
}
