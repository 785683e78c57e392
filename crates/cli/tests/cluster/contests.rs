//! Locks and elections across members, through a change of the cluster's leader.

use quorate_proto::etcdserverpb::LeaseGrantRequest;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{CampaignRequest, LeaderRequest};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};

use crate::harness::{Cluster, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_and_an_election_outlive_the_leader() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.leader().await;
    let (holder, waiter) = ((leader + 1) % 3, (leader + 2) % 3);
    let lease = async |at: usize| {
        let mut leases = LeaseClient::new(cluster.channel(at));
        leases.lease_grant(LeaseGrantRequest { ttl: 300, id: 0 }).await.unwrap().into_inner().id
    };
    let (first, second) = (lease(holder).await, lease(waiter).await);
    let mut locks = LockClient::new(cluster.channel(holder));
    let held = locks.lock(LockRequest { name: "l".into(), lease: first }).await.unwrap();
    let mut elections = ElectionClient::new(cluster.channel(holder));
    let campaign = CampaignRequest { name: "e".into(), lease: first, value: "v".into() };
    elections.campaign(campaign).await.unwrap();

    // Another member's client waits while the leader goes. A channel of its own: calls on the
    // harness's have a limit of time.
    let endpoint = format!("http://{}", cluster.endpoint(waiter));
    let waiting = tokio::spawn(async move {
        let mut locks = LockClient::connect(endpoint).await.unwrap();
        locks.lock(LockRequest { name: "l".into(), lease: second }).await
    });
    eventually("two stand in line", async || {
        let key = format!("l/{second:x}").into_bytes();
        let found = cluster.read(holder, Vec::leak(key), false).await?;
        (found.count == 1).then_some(())
    })
    .await;
    cluster.kill(leader);
    eventually("another member leads", async || {
        let status = cluster.status(holder).await?;
        let is_alive = status.leader != 0 && cluster.read(holder, b"l", false).await.is_some();
        is_alive.then_some(())
    })
    .await;
    assert!(!waiting.is_finished(), "the lock was held all the time");
    let elected = eventually("the election is known", async || {
        elections.leader(LeaderRequest { name: "e".into() }).await.ok()
    })
    .await;
    assert_eq!(elected.into_inner().kv.unwrap().value, "v");

    let key = held.into_inner().key;
    eventually("the lock is released", async || {
        locks.unlock(UnlockRequest { key: key.clone() }).await.ok()
    })
    .await;
    let won = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(won.into_inner().key, format!("l/{second:x}"));
}
