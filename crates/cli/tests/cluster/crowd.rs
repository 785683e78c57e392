//! Many of everything on one member: watchers, leases, and more connections than it may have files
//! open. Those cost it nothing but their own places: who is connected goes on, and the log finds its
//! next file.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, PutRequest, WatchCreateRequest,
    WatchRequest,
};

use crate::harness::{Cluster, eventually, quick_directory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_take_no_file_that_the_member_needs() {
    let mut cluster = Cluster::prepare(1, &[]);
    cluster.open_files_max = Some(120);
    cluster.spawn(0);
    cluster.settle().await;
    let mut client = KvClient::new(cluster.channel(0));
    let request = |number: usize| PutRequest {
        key: Bytes::from(format!("crowd/{number}")),
        value: Bytes::from(vec![b'v'; 1 << 20]),
        ..Default::default()
    };
    client.put(request(0)).await.unwrap();

    let crowd = |port: u16| -> Vec<TcpStream> {
        (0..150).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect()
    };
    let clients = crowd(cluster.members[0].client_port);
    let _peers = crowd(cluster.members[0].peer_port);
    // A quarter of the files, and one of those places is taken.
    eventually("no more clients than there are places", async || {
        (clients.iter().filter(|client| is_open(client)).count() <= 29).then_some(())
    })
    .await;
    // Until the log needs another file, and the one after that.
    for number in 1..100 {
        client.put(request(number)).await.unwrap();
    }
    assert!(cluster.is_running(0));
    let log = cluster.log(0);
    assert!(log.contains("too many connections"), "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
    drop(clients);
    assert!(cluster.stop(0));
}

fn is_open(mut connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    connection.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

const STREAMS: u64 = 10;
const WATCHERS: u64 = 1_000;
const LEASES: i64 = 100_000;

/// Ten thousand watchers, each told of each change; a hundred thousand leases, any of which is renewed
/// at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_bears_many_watchers_and_leases() {
    let mut cluster = Cluster::prepare(1, &[]);
    cluster.directory = quick_directory("quorate-test-");
    cluster.spawn(0);
    cluster.settle().await;
    let begun = Instant::now();
    let streams = join_all((0..STREAMS).map(|_| watchers(&cluster))).await;
    let created = begun.elapsed();
    let mut kv = KvClient::new(cluster.channel(0));
    let changes = 20;
    for _ in 0..changes {
        kv.put(PutRequest { key: "many".into(), ..Default::default() }).await.unwrap();
    }
    join_all(streams.into_iter().map(|(mut told, requests)| async move {
        let mut events = 0;
        while events < changes * WATCHERS {
            events += told.message().await.unwrap().unwrap().events.len() as u64;
        }
        drop(requests);
    }))
    .await;
    println!(
        "{} watchers in {created:?}, {changes} changes told in {:?}",
        STREAMS * WATCHERS,
        begun.elapsed() - created
    );

    let begun = Instant::now();
    let channel = cluster.channel(0);
    let lanes = 1..=500;
    let grants = lanes.map(|lane| {
        let mut client = LeaseClient::new(channel.clone());
        async move {
            for id in (lane..=LEASES).step_by(500) {
                client.lease_grant(LeaseGrantRequest { ttl: 600, id }).await?;
            }
            Ok::<_, tonic::Status>(())
        }
    });
    try_join_all(grants).await.unwrap();
    println!("{LEASES} leases in {:?}", begun.elapsed());
    let mut client = LeaseClient::new(channel).max_decoding_message_size(1 << 30);
    let all = client.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(all.leases.len() as i64, LEASES);
    let some = (1..=LEASES).step_by(997).map(|id| LeaseKeepAliveRequest { id });
    let wanted = some.clone().count();
    let renewals = client.lease_keep_alive(futures_util::stream::iter(some)).await.unwrap();
    let (mut renewals, mut renewed) = (renewals.into_inner(), 0);
    while let Some(renewal) = renewals.message().await.unwrap() {
        assert_eq!(renewal.ttl, 600);
        renewed += 1;
    }
    assert_eq!(renewed, wanted);
    assert!(cluster.stop(0));
}

/// Watchers of one key on one stream, once all are there; and what keeps the stream open.
async fn watchers(
    cluster: &Cluster,
) -> (
    tonic::Streaming<quorate_proto::etcdserverpb::WatchResponse>,
    tokio::task::JoinHandle<tokio::sync::mpsc::Sender<WatchRequest>>,
) {
    let (requests, mut outgoing) = tokio::sync::mpsc::channel(1);
    let asking = tokio::spawn(async move {
        for _ in 0..WATCHERS {
            let create = WatchCreateRequest { key: "many".into(), ..Default::default() };
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            requests.send(create).await.unwrap();
        }
        requests
    });
    let outgoing = futures_util::stream::poll_fn(move |context| outgoing.poll_recv(context));
    let mut client = WatchClient::new(cluster.channel(0)).max_decoding_message_size(1 << 30);
    let mut told = client.watch(outgoing).await.unwrap().into_inner();
    for _ in 0..WATCHERS {
        assert!(told.message().await.unwrap().unwrap().created);
    }
    (told, asking)
}
