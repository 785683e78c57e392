//! Locks and elections of one real node, asked over real connections.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest,
};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use quorate_server::Server;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::node::{self, PATIENCE, connect};

struct Alone {
    server: Server,
    channel: Channel,
    _directory: TempDir,
}

impl Alone {
    async fn start() -> Alone {
        let directory = TempDir::new().unwrap();
        let server = node::ready(&directory, &[]).await;
        Alone { channel: connect(&server).await, server, _directory: directory }
    }

    async fn lease(&self, ttl: i64) -> i64 {
        let grant = LeaseGrantRequest { ttl, id: 0 };
        let mut leases = LeaseClient::new(self.channel.clone());
        leases.lease_grant(grant).await.unwrap().into_inner().id
    }

    async fn revoke(&self, id: i64) {
        let mut leases = LeaseClient::new(self.channel.clone());
        leases.lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
    }

    /// Asks for a lock in a task of its own.
    fn lock(&self, name: &'static str, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
        let mut locks = LockClient::new(self.channel.clone());
        let request = LockRequest { name: name.into(), lease };
        tokio::spawn(async move { Ok(locks.lock(request).await?.into_inner()) })
    }

    async fn unlock(&self, key: &Bytes) -> i64 {
        let mut locks = LockClient::new(self.channel.clone());
        let answer = locks.unlock(UnlockRequest { key: key.clone() }).await.unwrap().into_inner();
        answer.header.unwrap().revision
    }

    /// What stands under a name, in the order in which it was created.
    async fn line(&self, name: &str) -> Vec<KeyValue> {
        let range = RangeRequest {
            key: format!("{name}/").into(),
            range_end: format!("{name}0").into(),
            ..Default::default()
        };
        let mut pairs =
            KvClient::new(self.channel.clone()).range(range).await.unwrap().into_inner().kvs;
        pairs.sort_by_key(|pair| pair.create_revision);
        pairs
    }

    async fn line_has(&self, name: &str, count: usize) {
        within(async {
            while self.line(name).await.len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("waited in vain")
}

async fn ended<T>(task: JoinHandle<T>) -> T {
    within(task).await.unwrap()
}

fn key(name: &str, lease: i64) -> Bytes {
    format!("{name}/{lease:x}").into()
}

fn words(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_hold_a_lock_in_the_order_in_which_they_came() {
    let alone = Alone::start().await;
    let mut waiting = Vec::new();
    for place in 0..4 {
        let lease = alone.lease(60).await;
        waiting.push((lease, alone.lock("l", lease)));
        alone.line_has("l", place + 1).await;
    }
    let mut last = 0;
    for (at, (lease, task)) in waiting.into_iter().enumerate() {
        let answer = ended(task).await.unwrap();
        assert_eq!(answer.key, key("l", lease), "place {at}");
        let revision = answer.header.unwrap().revision;
        assert!(last <= revision, "{last} {revision}");
        // Who holds it asks again and is told so, under the same key.
        let again = ended(alone.lock("l", lease)).await.unwrap();
        assert_eq!(again.key, answer.key);
        let line = alone.line("l").await;
        assert_eq!((line.len(), line[0].lease), (4 - at, lease));
        last = alone.unlock(&answer.key).await;
    }
    assert!(alone.line("l").await.is_empty());
    // A key that is not there is no error, and one that cannot be is.
    let revision = alone.unlock(&key("l", 7)).await;
    assert_eq!(revision, last);
    let mut locks = LockClient::new(alone.channel.clone());
    let refused = locks.unlock(UnlockRequest::default()).await.unwrap_err();
    assert_eq!(words(&refused), (Code::InvalidArgument, "etcdserver: key is not provided"));
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_passes_on_when_the_lease_of_its_holder_expires() {
    let alone = Alone::start().await;
    let (short, long) = (alone.lease(1).await, alone.lease(60).await);
    ended(alone.lock("l", short)).await.unwrap();
    let next = ended(alone.lock("l", long)).await.unwrap();
    assert_eq!(next.key, key("l", long));
    // Clients that stand in line by themselves are waited for too.
    let put = PutRequest { key: "m/own".into(), ..Default::default() };
    KvClient::new(alone.channel.clone()).put(put).await.unwrap();
    let waiting = alone.lock("m", long);
    alone.line_has("m", 2).await;
    assert!(!waiting.is_finished());
    alone.unlock(&"m/own".into()).await;
    assert_eq!(ended(waiting).await.unwrap().key, key("m", long));
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_ends_with_its_lease_and_with_its_caller() {
    let alone = Alone::start().await;
    let holder = alone.lease(60).await;
    let held = ended(alone.lock("l", holder)).await.unwrap();

    // The lease ends while it waits: told at once, not when it would be its turn.
    let lease = alone.lease(60).await;
    let waiting = alone.lock("l", lease);
    alone.line_has("l", 2).await;
    alone.revoke(lease).await;
    let lost = ended(waiting).await.unwrap_err();
    assert_eq!(words(&lost), (Code::Unknown, "mutex: session is expired"));

    // The caller goes: its place goes, and nothing else does.
    for lease in [alone.lease(60).await, 0] {
        let waiting = alone.lock("l", lease);
        alone.line_has("l", 2).await;
        waiting.abort();
        alone.line_has("l", 1).await;
        assert_eq!(alone.line("l").await[0].key, held.key);
    }
    // The server's own lease is gone too.
    within(async {
        loop {
            let mut leases = LeaseClient::new(alone.channel.clone());
            let found = leases.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
            if found.leases.len() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_without_a_lease_is_given_one_of_a_minute() {
    let alone = Alone::start().await;
    let held = ended(alone.lock("l", 0)).await.unwrap();
    let line = alone.line("l").await;
    assert_eq!(held.key, key("l", line[0].lease));
    let ask = LeaseTimeToLiveRequest { id: line[0].lease, keys: false };
    let mut leases = LeaseClient::new(alone.channel.clone());
    let answer = leases.lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!(answer.granted_ttl, 60);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_does_not_exist_is_named_as_the_reason_and_leaves_nothing_behind() {
    let alone = Alone::start().await;
    let not_found = (Code::NotFound, "etcdserver: requested lease not found");
    for lease in [7, -5] {
        let refused = ended(alone.lock("l", lease)).await.unwrap_err();
        assert_eq!(words(&refused), not_found);
        let campaign = CampaignRequest { name: "l".into(), lease, value: "v".into() };
        let refused = within(alone.elections().campaign(campaign)).await.unwrap_err();
        assert_eq!(words(&refused), not_found);
    }
    assert!(alone.line("l").await.is_empty());
    // As long as the key is not that place, nobody asks for its lease.
    let put = PutRequest { key: "k".into(), ..Default::default() };
    let put = KvClient::new(alone.channel.clone()).put(put).await.unwrap().into_inner();
    let created = put.header.unwrap().revision;
    for (rev, want) in
        [(created + 1, (Code::Unknown, "election: not leader")), (created, not_found)]
    {
        let leader = Some(LeaderKey { name: "l".into(), key: "k".into(), rev, lease: 7 });
        let proclaim = ProclaimRequest { leader, value: "v".into() };
        let refused = within(alone.elections().proclaim(proclaim)).await.unwrap_err();
        assert_eq!(words(&refused), want);
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_observed_through_its_leaders() {
    let alone = Alone::start().await;
    let mut elections = alone.elections();
    let name = LeaderRequest { name: "e".into() };
    let none = elections.leader(name.clone()).await.unwrap_err();
    assert_eq!(words(&none), (Code::Unknown, "election: no leader"));
    let mut observed = elections.observe(name.clone()).await.unwrap().into_inner();

    let campaign = |lease, value: &'static str| {
        let mut elections = alone.elections();
        let request = CampaignRequest { name: "e".into(), lease, value: value.into() };
        tokio::spawn(
            async move { Ok::<_, Status>(elections.campaign(request).await?.into_inner()) },
        )
    };
    let (first, second) = (alone.lease(60).await, alone.lease(60).await);
    let won = ended(campaign(first, "one")).await.unwrap();
    let leader = won.leader.unwrap();
    assert_eq!((&leader.name[..], leader.lease), (&b"e"[..], first));
    assert_eq!(leader.key, key("e", first));
    assert_eq!(leader.rev, won.header.unwrap().revision);
    let value = |answer: LeaderResponse| answer.kv.unwrap().value;
    assert_eq!(value(within(observed.message()).await.unwrap().unwrap()), "one");
    assert_eq!(value(elections.leader(name.clone()).await.unwrap().into_inner()), "one");

    // Again with the same lease: the same place, with another value.
    let again = ended(campaign(first, "one again")).await.unwrap();
    assert_eq!(again.leader.unwrap().rev, leader.rev);
    assert_eq!(value(within(observed.message()).await.unwrap().unwrap()), "one again");
    for text in ["a", "b"] {
        let request = ProclaimRequest { leader: Some(leader.clone()), value: text.into() };
        elections.proclaim(request).await.unwrap();
        let told = within(observed.message()).await.unwrap().unwrap();
        assert_eq!(told.header.unwrap().revision, told.kv.as_ref().unwrap().mod_revision);
        assert_eq!(value(told), text);
    }
    assert_eq!(alone.line("e").await[0].lease, first);

    let waiting = campaign(second, "two");
    alone.line_has("e", 2).await;
    // Whoever never led, or no longer does, proclaims nothing.
    let stale = LeaderKey { rev: leader.rev + 1, ..leader.clone() };
    let request = ProclaimRequest { leader: Some(stale.clone()), value: "x".into() };
    let refused = elections.proclaim(request).await.unwrap_err();
    assert_eq!(words(&refused), (Code::Unknown, "election: not leader"));
    elections.resign(ResignRequest { leader: Some(stale) }).await.unwrap();
    assert!(!waiting.is_finished());

    // Changed later than the next one's, whose turn is told all the same.
    let request = ProclaimRequest { leader: Some(leader.clone()), value: "c".into() };
    elections.proclaim(request).await.unwrap();
    assert_eq!(value(within(observed.message()).await.unwrap().unwrap()), "c");
    elections.resign(ResignRequest { leader: Some(leader) }).await.unwrap();
    let next = ended(waiting).await.unwrap().leader.unwrap();
    assert_eq!(next.key, key("e", second));
    assert_eq!(value(within(observed.message()).await.unwrap().unwrap()), "two");
    // The next one comes in the same stream, after a time without any.
    alone.revoke(second).await;
    let third = alone.lease(60).await;
    ended(campaign(third, "three")).await.unwrap();
    assert_eq!(value(within(observed.message()).await.unwrap().unwrap()), "three");
    alone.server.shutdown().await;
    assert!(!matches!(within(observed.message()).await, Ok(Some(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_about_no_leader_are_refused() {
    let alone = Alone::start().await;
    let mut elections = alone.elections();
    let missing = (Code::Unknown, "\"leader\" field must be provided");
    let proclaim = ProclaimRequest { leader: None, value: "v".into() };
    assert_eq!(words(&elections.proclaim(proclaim).await.unwrap_err()), missing);
    let resign = ResignRequest { leader: None };
    assert_eq!(words(&elections.resign(resign).await.unwrap_err()), missing);
    // A place that ends while it waits has not won, though those before it are gone.
    let (first, second) = (alone.lease(60).await, alone.lease(60).await);
    let campaign = |lease| CampaignRequest { name: "e".into(), lease, value: "v".into() };
    elections.campaign(campaign(first)).await.unwrap();
    let mut other = alone.elections();
    let waiting = tokio::spawn(async move { other.campaign(campaign(second)).await });
    alone.line_has("e", 2).await;
    alone.revoke(second).await;
    let lost = ended(waiting).await.unwrap_err();
    assert_eq!(words(&lost), (Code::Unknown, "election: not leader"));
    alone.server.shutdown().await;
}
