//! The Cluster service, MoveLeader and the peer port of real servers in this process.

use std::net::TcpListener;
use std::time::Duration;

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, Member, MemberAddRequest,
    MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
    MoveLeaderRequest, PutRequest, RangeRequest, StatusRequest,
};
use quorate_proto::quoratepb::autopilot_client::AutopilotClient;
use quorate_proto::quoratepb::{
    AutopilotDemoteRequest, AutopilotSetConfigRequest, AutopilotStateRequest,
};
use quorate_server::Server;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::node::{self, PATIENCE, connect};
use crate::observing::get;

struct Running {
    server: Server,
    peer: String,
    _directory: TempDir,
}

fn free_peer_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl Running {
    /// One that founds a cluster of its own.
    async fn alone(flags: &[(&str, &str)]) -> Running {
        let peer = free_peer_url();
        let running = Running::start("a", &peer, &format!("a={peer}"), "new", flags).await;
        tokio::time::timeout(PATIENCE, running.server.ready()).await.unwrap();
        running
    }

    async fn start(
        name: &str,
        peer: &str,
        cluster: &str,
        state: &str,
        flags: &[(&str, &str)],
    ) -> Running {
        let directory = TempDir::new().unwrap();
        let usual = [
            ("name", name),
            ("advertise-client-urls", "http://node:2379"),
            ("listen-peer-urls", peer),
            ("initial-advertise-peer-urls", peer),
            ("initial-cluster", cluster),
            ("initial-cluster-state", state),
            // Who is promoted, and when, is for the tests to say.
            ("autopilot", "false"),
        ];
        let server = node::start(&directory, &[&usual, flags].concat()).await;
        Running { server, peer: peer.to_owned(), _directory: directory }
    }

    /// One more, which was added before.
    async fn joins(&self, name: &str, peer: &str) -> Running {
        let cluster = format!("a={},{name}={peer}", self.peer);
        Running::start(name, peer, &cluster, "existing", &[]).await
    }

    fn id(&self) -> u64 {
        self.server.identity().node.0
    }

    async fn channel(&self) -> Channel {
        connect(&self.server).await
    }

    async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    async fn members(&self) -> Vec<Member> {
        let request = MemberListRequest { linearizable: true };
        self.cluster().await.member_list(request).await.unwrap().into_inner().members
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

fn add(url: &str, is_learner: bool) -> MemberAddRequest {
    MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner }
}

fn words(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_be_are_refused_in_etcds_words() {
    let alone = Running::alone(&[]).await;
    let mut cluster = alone.cluster().await;
    let own = alone.id();

    let (invalid, failed, none) = (Code::InvalidArgument, Code::FailedPrecondition, Code::NotFound);
    for urls in [&[][..], &["foo"], &["http://h:1", "http://h"], &["http://h:1/path"]] {
        let peer_urls = urls.iter().map(ToString::to_string).collect();
        let refused = cluster.member_add(MemberAddRequest { peer_urls, is_learner: false }).await;
        let want = "etcdserver: given member URLs are invalid";
        assert_eq!(words(refused.unwrap_err()), (invalid, want.to_owned()), "{urls:?}");
    }
    let refused = cluster.member_add(add(&alone.peer, true)).await.unwrap_err();
    assert_eq!(words(refused), (failed, "etcdserver: Peer URLs already exists".to_owned()));
    let refused = cluster.member_remove(MemberRemoveRequest { id: own }).await.unwrap_err();
    let want = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(words(refused), (failed, want.to_owned()));
    let unknown = || (none, "etcdserver: member not found".to_owned());
    let refused = cluster.member_remove(MemberRemoveRequest { id: 7 }).await.unwrap_err();
    assert_eq!(words(refused), unknown());
    let refused = cluster.member_promote(MemberPromoteRequest { id: 7 }).await.unwrap_err();
    assert_eq!(words(refused), unknown());
    let update = |id, url: &str| MemberUpdateRequest { id, peer_urls: vec![url.to_owned()] };
    let refused = cluster.member_update(update(7, "http://h:9")).await.unwrap_err();
    assert_eq!(words(refused), unknown());
    let refused = cluster.member_promote(MemberPromoteRequest { id: own }).await.unwrap_err();
    assert_eq!(
        words(refused),
        (failed, "etcdserver: can only promote a learner member".to_owned())
    );

    // A learner that never starts can come and go.
    let urls = ["http://h:4", "http://h:1"].map(str::to_owned).to_vec();
    let request = MemberAddRequest { peer_urls: urls, is_learner: true };
    let added = cluster.member_add(request).await.unwrap().into_inner();
    let header = added.header.unwrap();
    assert_eq!((header.revision, header.member_id), (0, own));
    let learner = added.member.unwrap();
    assert_eq!(learner.peer_urls, ["http://h:1", "http://h:4"], "their order means nothing");
    assert!(learner.is_learner && learner.name.is_empty() && learner.client_urls.is_empty());
    assert_eq!(added.members.len(), 2);
    assert!(added.members.is_sorted_by_key(|member| member.id) && added.members.contains(&learner));
    let refused = cluster.member_add(add("http://h:2", true)).await.unwrap_err();
    let want = "etcdserver: too many learner members in cluster";
    assert_eq!(words(refused), (failed, want.to_owned()));
    let refused = cluster.member_add(add("http://h:1", false)).await.unwrap_err();
    assert_eq!(words(refused), (failed, "etcdserver: Peer URLs already exists".to_owned()));
    let promote = MemberPromoteRequest { id: learner.id };
    let refused = cluster.member_promote(promote).await.unwrap_err();
    let want = "etcdserver: can only promote a learner member which is in sync with leader";
    assert_eq!(words(refused), (failed, want.to_owned()));
    let refused = cluster.member_update(update(learner.id, &alone.peer)).await.unwrap_err();
    assert_eq!(words(refused), (failed, "etcdserver: Peer URLs already exists".to_owned()));
    let updated = cluster.member_update(update(learner.id, "http://h:3")).await.unwrap();
    let moved: Vec<_> = updated.into_inner().members;
    let moved = moved.iter().find(|member| member.id == learner.id).unwrap();
    assert!(moved.is_learner && moved.peer_urls == ["http://h:3"], "nothing else changed");

    let remove = MemberRemoveRequest { id: learner.id };
    let removed = cluster.member_remove(remove).await.unwrap().into_inner();
    assert_eq!(removed.members.iter().map(|member| member.id).collect::<Vec<_>>(), [own]);
    let refused = cluster.member_remove(remove).await.unwrap_err();
    assert_eq!(words(refused), unknown(), "once is for ever");
    assert_eq!(alone.members().await, removed.members);
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_can() {
    let alone = Running::alone(&[]).await;
    let mut maintenance = MaintenanceClient::new(alone.channel().await);
    let own = alone.id();
    let moved = maintenance.move_leader(MoveLeaderRequest { target_id: own }).await.unwrap();
    assert_eq!(moved.into_inner().header, None, "it leads already");
    let learner = alone.cluster().await.member_add(add("http://h:1", true)).await.unwrap();
    for target_id in [7, learner.into_inner().member.unwrap().id] {
        let refused = maintenance.move_leader(MoveLeaderRequest { target_id }).await.unwrap_err();
        let want = "etcdserver: bad leader transferee".to_owned();
        assert_eq!(words(refused), (Code::FailedPrecondition, want));
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_serves_little_and_gets_its_vote_through_anyone() {
    let a = Running::alone(&[]).await;
    let mut kv = KvClient::new(a.channel().await);
    let put = PutRequest { key: "k".into(), value: "before".into(), ..Default::default() };
    kv.put(put.clone()).await.unwrap();
    let peer = free_peer_url();
    let added = a.cluster().await.member_add(add(&peer, true)).await.unwrap().into_inner();
    let id = added.member.unwrap().id;
    let b = a.joins("b", &peer).await;
    tokio::time::timeout(PATIENCE, b.server.ready()).await.unwrap();
    assert_eq!(b.id(), id);
    assert_eq!(b.server.identity().cluster, a.server.identity().cluster);

    let mut theirs = KvClient::new(b.channel().await);
    let range = |serializable| RangeRequest { key: "k".into(), serializable, ..Default::default() };
    let read = theirs.range(range(true)).await.unwrap().into_inner();
    assert_eq!(&read.kvs[0].value[..], b"before");
    let refused =
        || (Code::FailedPrecondition, "etcdserver: rpc not supported for learner".to_owned());
    assert_eq!(words(theirs.range(range(false)).await.unwrap_err()), refused());
    assert_eq!(words(theirs.put(put.clone()).await.unwrap_err()), refused());
    let list = b.cluster().await.member_list(MemberListRequest::default()).await;
    assert_eq!(words(list.unwrap_err()), refused());
    let mut autopilot = AutopilotClient::new(b.channel().await);
    let demoted = autopilot.demote(AutopilotDemoteRequest { id }).await;
    assert_eq!(words(demoted.unwrap_err()), refused());
    let mut maintenance = MaintenanceClient::new(b.channel().await);
    let status = maintenance.status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.is_learner);
    let address = b.server.client_addresses()[0];
    let (head, body) = get(address, "/readyz?exclude=linearizable_read").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let not_ready = "[+]data_corruption ok\n[+]serializable_read ok\n\
                     [-]non_learner failed: not supported for learner\n[+]disk_space ok\n";
    assert_eq!(body, not_ready);

    // It runs, so it is in sync sooner or later.
    let mut cluster = a.cluster().await;
    let promoted = eventually("a vote", || {
        let mut cluster = cluster.clone();
        async move { cluster.member_promote(MemberPromoteRequest { id }).await.ok() }
    });
    assert!(promoted.await.into_inner().members.iter().all(|member| !member.is_learner));
    eventually("the new vote is known", || async {
        KvClient::new(b.channel().await).put(put.clone()).await.ok()
    })
    .await;
    let (head, _) = get(address, "/readyz/non_learner").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");

    // From now on it can ask for changes, which the leader makes, and it knows them at once.
    let moved = MaintenanceClient::new(b.channel().await);
    let refused = moved.clone().move_leader(MoveLeaderRequest { target_id: id }).await.unwrap_err();
    let not_leader = "etcdserver: not leader".to_owned();
    assert_eq!(words(refused), (Code::FailedPrecondition, not_leader));
    let asked = b.cluster().await;
    let third = eventually("a voter that has been connected for long enough", || {
        let mut asked = asked.clone();
        async move { asked.member_add(add("http://h:1", true)).await.ok() }
    });
    let third = third.await.into_inner();
    assert_eq!(third.header.unwrap().member_id, id, "it answers itself");
    let third = third.member.unwrap();
    let mut serializable = b.cluster().await;
    let list = serializable.member_list(MemberListRequest::default()).await.unwrap().into_inner();
    assert!(list.members.contains(&third));
    let refused = b.cluster().await.member_add(add("http://h:2", true)).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many learner members in cluster");
    b.cluster().await.member_remove(MemberRemoveRequest { id: third.id }).await.unwrap();

    // And leadership can go to it.
    let mut maintenance = MaintenanceClient::new(a.channel().await);
    maintenance.move_leader(MoveLeaderRequest { target_id: id }).await.unwrap();
    let status = moved.clone().status(StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.leader, id);

    // The old leader goes for good, by its own word, and stops.
    let removed = cluster.member_remove(MemberRemoveRequest { id: a.id() }).await;
    let removed = match removed {
        Ok(removed) => removed.into_inner().members,
        // Which it must not do as long as nobody knows how well the other is.
        Err(unhealthy) => {
            assert_eq!(unhealthy.message(), "etcdserver: unhealthy cluster");
            let id = a.id();
            let removed = eventually("health", || {
                let mut cluster = cluster.clone();
                async move { cluster.member_remove(MemberRemoveRequest { id }).await.ok() }
            });
            removed.await.into_inner().members
        }
    };
    assert_eq!(removed.iter().map(|member| member.id).collect::<Vec<_>>(), [id]);
    let reason = tokio::time::timeout(PATIENCE, a.server.broken()).await.unwrap();
    assert!(reason.contains("this member was removed from the cluster"), "{reason}");
    let mut theirs = KvClient::new(b.channel().await);
    eventually("the other goes on alone", || {
        let (mut theirs, put) = (theirs.clone(), put.clone());
        async move { theirs.put(put).await.ok() }
    })
    .await;
    assert_eq!(theirs.range(range(false)).await.unwrap().into_inner().count, 1);
    a.server.shutdown().await;
    b.server.shutdown().await;
}

/// What the leader advertises to clients leads nowhere here, and of its peer URLs one leads nowhere and
/// one to a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_asks_about_leases_and_autopilot_at_the_leaders_peer_port() {
    let a = Running::alone(&[]).await;
    let stranger = Running::alone(&[]).await;
    let peer = free_peer_url();
    let mut cluster = a.cluster().await;
    let added = cluster.member_add(add(&peer, true)).await.unwrap().into_inner();
    let id = added.member.unwrap().id;
    let b = a.joins("b", &peer).await;
    tokio::time::timeout(PATIENCE, b.server.ready()).await.unwrap();
    eventually("a vote", || {
        let mut cluster = cluster.clone();
        async move { cluster.member_promote(MemberPromoteRequest { id }).await.ok() }
    })
    .await;
    let urls = [free_peer_url(), stranger.peer.clone(), a.peer.clone()];
    let update = MemberUpdateRequest { id: a.id(), peer_urls: urls.to_vec() };
    cluster.member_update(update).await.unwrap();
    eventually("the vote and the URLs are known", || async {
        let members = b.cluster().await.member_list(MemberListRequest::default()).await.ok()?;
        let members = members.into_inner().members;
        members.iter().any(|member| member.peer_urls == urls).then_some(())
    })
    .await;

    let mut lease = LeaseClient::new(b.channel().await);
    let granted = lease.lease_grant(LeaseGrantRequest { id: 7, ttl: 600 }).await.unwrap();
    assert_eq!(granted.into_inner().ttl, 600);
    for (id, ttl) in [(7, 600), (8, 0)] {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut renewed = lease.lease_keep_alive(request).await.unwrap().into_inner();
        assert_eq!(renewed.message().await.unwrap().unwrap().ttl, ttl);
    }
    let request = LeaseTimeToLiveRequest { id: 7, keys: true };
    let left = lease.lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((left.id, left.granted_ttl), (7, 600));
    assert!((1..=600).contains(&left.ttl));

    let mut autopilot = AutopilotClient::new(b.channel().await);
    let refused = autopilot.state(AutopilotStateRequest {}).await.unwrap_err();
    assert!(refused.message().starts_with("autopilot is off on the leader"), "{refused:?}");
    // Of settings that nobody has made yet only the leader knows what they are.
    let request = AutopilotSetConfigRequest { json: "{}".to_owned(), ..Default::default() };
    autopilot.set_config(request).await.unwrap();

    // Nor does a change of the members go to the stranger.
    let added = eventually("a voter that has been connected for long enough", || async {
        b.cluster().await.member_add(add("http://h:1", true)).await.ok()
    });
    let added = added.await.into_inner().member.unwrap();
    let members = a.cluster().await.member_list(MemberListRequest { linearizable: true }).await;
    assert!(members.unwrap().into_inner().members.contains(&added));
    let members =
        stranger.cluster().await.member_list(MemberListRequest { linearizable: true }).await;
    assert_eq!(members.unwrap().into_inner().members.len(), 1);
    for running in [a, b, stranger] {
        running.server.shutdown().await;
    }
}

/// An address may be another member's by the time that a call comes there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_passed_on_is_taken_by_the_member_it_is_meant_for_and_by_no_other() {
    let alone = Running::alone(&[]).await;
    let mut maintenance = MaintenanceClient::new(alone.channel().await);
    let status = maintenance.status(StatusRequest::default()).await.unwrap().into_inner();
    let cluster = status.header.unwrap().cluster_id;
    let own = format!("{cluster:x}/{:x}", alone.id());
    let others = [format!("{:x}/{:x}", cluster ^ 1, alone.id()), format!("{cluster:x}/1")];
    let channel = Channel::from_shared(alone.peer.clone()).unwrap().connect().await.unwrap();
    let passed_on = |to: &str, json: &str| {
        let json = json.to_owned();
        let mut request =
            tonic::Request::new(AutopilotSetConfigRequest { json, ..Default::default() });
        request.metadata_mut().insert("quorate-passed-on", to.parse().unwrap());
        request
    };
    let mut autopilot = AutopilotClient::new(channel.clone());
    for other in &others {
        let refused =
            autopilot.set_config(passed_on(other, "{\"paused\":true}")).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: not leader", "{other}");
        let mut renewal = tonic::Request::new(LeaseTimeToLiveRequest { id: 7, keys: false });
        renewal.metadata_mut().insert("quorate-passed-on", other.parse().unwrap());
        let refused = LeaseClient::new(channel.clone()).lease_time_to_live(renewal).await;
        assert_eq!(refused.unwrap_err().message(), "etcdserver: not leader", "{other}");
    }
    // What builds before this one pass on names nobody.
    for to in [own.as_str(), "true"] {
        let set = autopilot.set_config(passed_on(to, "{\"target_voters\":5}")).await.unwrap();
        let json = set.into_inner().json;
        assert!(
            json.contains("\"paused\":false") && json.contains("\"target_voters\":5"),
            "{json}"
        );
    }
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_without_end_are_refused() {
    let alone = Running::alone(&[]).await;
    let mut cluster = alone.cluster().await;
    let url = |bytes: usize| format!("http://{}:1", "h".repeat(bytes - 9));
    let prefix = "etcdserver: given member URLs are invalid: ";
    for (peer_urls, why) in [
        (vec![url(20), url(2049)], "one is 2049 bytes long, the limit is 2048"),
        (vec![url(20); 101], "101 of them, and a member has at most 100"),
    ] {
        let refused = (Code::InvalidArgument, format!("{prefix}{why}"));
        let request = MemberAddRequest { peer_urls: peer_urls.clone(), is_learner: true };
        assert_eq!(words(cluster.member_add(request).await.unwrap_err()), refused);
        let request = MemberUpdateRequest { id: alone.id(), peer_urls };
        assert_eq!(words(cluster.member_update(request).await.unwrap_err()), refused);
    }
    cluster.member_add(add(&url(2048), true)).await.unwrap();
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_port_says_who_the_members_are() {
    let alone = Running::alone(&[]).await;
    let address = alone.peer.strip_prefix("http://").unwrap();
    let ask = async |asked: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{asked} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let members = ask("GET /members").await;
    let cluster = format!("x-etcd-cluster-id: {:x}\r\n", alone.server.identity().cluster);
    assert!(members.contains(&cluster), "{members}");
    let (_, body) = members.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let own = serde_json::json!([{
        "id": alone.id(),
        "name": "a",
        "peerURLs": [alone.peer],
        "clientURLs": ["http://node:2379"],
    }]);
    assert_eq!(body, own);
    assert!(ask("GET /version").await.contains("\"etcdserver\""));
    assert!(ask("GET /v3/kv/put").await.starts_with("HTTP/1.1 404"), "and nothing else");
    let page = ask("POST /etcdserverpb.Cluster/MemberList").await;
    assert!(page.starts_with("HTTP/1.1 404"), "what a web page may send is no call: {page}");
    let channel = Channel::from_shared(alone.peer.clone()).unwrap().connect().await.unwrap();
    let put = KvClient::new(channel.clone()).put(PutRequest::default()).await.unwrap_err();
    assert_eq!(put.code(), Code::Unimplemented);
    let grant = LeaseClient::new(channel).lease_grant(LeaseGrantRequest { id: 0, ttl: 9 }).await;
    assert_eq!(grant.unwrap_err().code(), Code::Unimplemented, "of Lease, only what is passed on");
    alone.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_of_a_zab_cluster_are_fixed_and_whoever_asks_for_others_hears_so_for_good() {
    let directory = TempDir::new().unwrap();
    let server = node::ready(&directory, &[("engine", "zab")]).await;
    let channel = connect(&server).await;
    let mut cluster = ClusterClient::new(channel.clone());
    let list = cluster.member_list(MemberListRequest { linearizable: true }).await.unwrap();
    let (own, url) = (list.into_inner().members[0].id, free_peer_url());
    let add = MemberAddRequest { peer_urls: vec![url.clone()], is_learner: false };
    let update = MemberUpdateRequest { id: own, peer_urls: vec![url] };
    let refused = [
        cluster.member_add(add).await.map(drop),
        cluster.member_update(update).await.map(drop),
        cluster.member_promote(MemberPromoteRequest { id: own }).await.map(drop),
        cluster.member_remove(MemberRemoveRequest { id: own }).await.map(drop),
    ];
    for refused in refused {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("ZAB engine are fixed"), "{status}");
    }
    let moved = MoveLeaderRequest { target_id: own };
    let moved = MaintenanceClient::new(channel).move_leader(moved).await.unwrap_err();
    assert_eq!(moved.code(), Code::Unimplemented);
    assert!(moved.message().contains("elects its leader"), "{moved}");
    server.shutdown().await;
}
