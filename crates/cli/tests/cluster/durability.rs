//! Nothing acknowledged is lost, nothing appears twice, whoever is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};

use crate::harness::{Cluster, eventually};

/// What a writer was told about one key.
type Acknowledged = BTreeMap<String, i64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_every_kill() {
    survive_every_kill("raft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_every_kill_with_zab() {
    survive_every_kill("zab").await;
}

async fn survive_every_kill(engine: &str) {
    let flags = ["--engine", engine, "--heartbeat-interval", "50", "--election-timeout", "500"];
    let mut cluster = Cluster::start(3, &flags).await;
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged_count = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let channels = (0..3).map(|at| cluster.channel(at)).collect();
            tokio::spawn(write(
                writer,
                channels,
                Arc::clone(&stop),
                Arc::clone(&acknowledged_count),
            ))
        })
        .collect();

    for round in 0..5 {
        let before = acknowledged_count.load(Ordering::Relaxed);
        wait_for_writes(&acknowledged_count, before + 100).await;
        let leader = cluster.leader().await;
        let follower = (leader + 1) % 3;
        cluster.kill(leader);
        wait_for_writes(&acknowledged_count, acknowledged_count.load(Ordering::Relaxed) + 50).await;
        cluster.spawn(leader);
        cluster.settle().await;

        cluster.kill(follower);
        wait_for_writes(&acknowledged_count, acknowledged_count.load(Ordering::Relaxed) + 50).await;
        cluster.spawn(follower);
        cluster.settle().await;

        for at in 0..3 {
            cluster.kill((at + round) % 3);
        }
        for at in 0..3 {
            cluster.spawn(at);
        }
        cluster.settle().await;
        wait_for_writes(&acknowledged_count, acknowledged_count.load(Ordering::Relaxed) + 50).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Acknowledged::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(1000 < acknowledged.len(), "only {} writes: nothing was tested", acknowledged.len());

    let mut pictures = Vec::new();
    for at in 0..3 {
        let held = all_keys(&cluster, at).await;
        for (key, revision) in &acknowledged {
            let Some((version, mod_revision)) = held.get(key) else {
                panic!("member {at} lost {key}, acknowledged at revision {revision}");
            };
            assert_eq!(mod_revision, revision, "{key} has another revision than was answered");
            assert_eq!(*version, 1, "{key} was applied more than once");
        }
        for (key, (version, _)) in &held {
            assert_eq!(*version, 1, "{key} was applied more than once");
        }
        pictures.push(held);
    }
    assert!(pictures.iter().all(|held| *held == pictures[0]), "members differ");
}

/// Writes keys that are written once only, through any member; a key whose fate is unknown is left.
async fn write(
    writer: usize,
    channels: Vec<tonic::transport::Channel>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut clients: Vec<_> = channels.into_iter().map(KvClient::new).collect();
    let members = clients.len();
    for number in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("w/{writer}/{number:06}");
        let request = PutRequest {
            key: Bytes::from(key.clone()),
            value: Bytes::from(format!("value of {key}")),
            ..Default::default()
        };
        match clients[(writer + number) % members].put(request).await {
            Ok(response) => {
                let header = response.into_inner().header.expect("a put has a header");
                acknowledged.insert(key, header.revision);
                count.fetch_add(1, Ordering::Relaxed);
            }
            // As a client does, rather than hammer a member that is gone.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    acknowledged
}

async fn wait_for_writes(count: &AtomicU64, wanted: u64) {
    let goes_on = async || (wanted <= count.load(Ordering::Relaxed)).then_some(());
    eventually("writes go on", goes_on).await;
}

async fn all_keys(cluster: &Cluster, at: usize) -> BTreeMap<String, (i64, i64)> {
    let request = RangeRequest {
        key: Bytes::from_static(b"w/"),
        range_end: Bytes::from_static(b"w0"),
        ..Default::default()
    };
    let response = KvClient::new(cluster.channel(at)).range(request).await.unwrap().into_inner();
    response
        .kvs
        .into_iter()
        .map(|kv| {
            let key = String::from_utf8(kv.key.to_vec()).unwrap();
            assert_eq!(kv.value, format!("value of {key}"));
            (key, (kv.version, kv.mod_revision))
        })
        .collect()
}
