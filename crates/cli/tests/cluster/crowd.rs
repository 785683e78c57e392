//! More connections than a member may have files open. They cost it nothing but their own places: who
//! is connected goes on, and the log finds its next file.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;

use crate::harness::{Cluster, eventually};

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
