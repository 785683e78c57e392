//! Neither what others say, nor that they say nothing any more, holds writes up for longer than the
//! election that it takes.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};

use crate::harness::Cluster;

/// A write is tried again after this, and has to have worked after that: an election and one more try,
/// with what a slow, shared machine adds.
const TRY: Duration = Duration::from_secs(1);
const STALL_MAX: Duration = Duration::from_secs(30);

/// More than gometa's leader takes beside one connection that says nothing.
const WRITES: usize = 20_400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_others_do_or_leave_undone_holds_writes_up() {
    nothing_holds_writes_up("raft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_others_do_or_leave_undone_holds_writes_up_with_zab() {
    nothing_holds_writes_up("zab").await;
}

async fn nothing_holds_writes_up(engine: &str) {
    let mut cluster = Cluster::start(3, &["--engine", engine]).await;
    let mut connections = Vec::new();
    for member in &cluster.members {
        for port in [member.client_port, member.peer_port] {
            for said in [&b""[..], b"\0\0\0\x04junk", &[0xff; 4096]] {
                let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let _ = connection.write_all(said);
                connections.push(connection);
            }
        }
    }
    let leader = cluster.leader().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    write(&cluster, &[leader, follower, other], 0, WRITES / 2).await;

    cluster.signal(follower, "STOP");
    write(&cluster, &[leader, other], WRITES / 2, WRITES / 4).await;
    cluster.signal(follower, "CONT");
    cluster.settle().await;

    let leader = cluster.leader().await;
    cluster.signal(leader, "STOP");
    let rest: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    write(&cluster, &rest, 3 * WRITES / 4, WRITES / 4).await;
    cluster.signal(leader, "CONT");
    cluster.settle().await;

    for at in 0..3 {
        let mut client = KvClient::new(cluster.channel(at));
        let range = RangeRequest {
            key: Bytes::from_static(b"w/"),
            range_end: Bytes::from_static(b"w0"),
            count_only: true,
            ..Default::default()
        };
        assert_eq!(client.range(range).await.unwrap().into_inner().count, WRITES as i64, "{at}");
    }
}

/// Writes so many keys through these members, many at a time, none of them held up.
async fn write(cluster: &Cluster, through: &[usize], from: usize, count: usize) {
    const LANES: usize = 64;
    let lanes = (0..LANES).map(|lane| {
        let mut client = KvClient::new(cluster.channel(through[lane % through.len()]));
        async move {
            for number in (from + lane..from + count).step_by(LANES) {
                let key = Bytes::from(format!("w/{number:08}"));
                let put = PutRequest { key, ..Default::default() };
                let began = Instant::now();
                while !matches!(tokio::time::timeout(TRY, client.put(put.clone())).await, Ok(Ok(_)))
                {
                    assert!(began.elapsed() < STALL_MAX, "write {number} was held up");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    });
    join_all(lanes).await;
}
