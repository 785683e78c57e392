//! The same random requests to one of ours and to a real etcd: every answer must be the same, but for
//! ids and terms. And so must be what a watcher of everything is told.
//!
//! It runs only when `QUORATE_TEST_DIFFERENTIAL=<seed>:<requests>` asks for it. Left out is what is known
//! to differ: see the list in PARITY.md.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse, compare, request_op, response_op,
};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::harness::{Cluster, PATIENCE, channel, end_of, eventually, free_port, signal};

/// Of the last requests, this many are shown with a difference.
const SHOWN: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_a_real_etcd() {
    let Some((seed, requests)) = settings() else {
        eprintln!("skipped: QUORATE_TEST_DIFFERENTIAL=<seed>:<requests> asks for it");
        return;
    };
    let Some(etcd) = Etcd::start().await else { return };
    let ours = Cluster::start(1, &[]).await;
    let mut ours = Side::new(ours.channel(0)).await;
    let mut theirs = Side::new(channel(&etcd.endpoint)).await;
    let mut dice = Dice(seed.max(1));
    let mut last = VecDeque::new();
    let mut state = Known::default();
    for number in 0..requests {
        let request = state.request(&mut dice);
        last.push_back(format!("{request:?}"));
        if SHOWN < last.len() {
            last.pop_front();
        }
        let (here, there) = tokio::join!(ours.ask(&request), theirs.ask(&request));
        let shown = || last.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        assert_eq!(
            here.text,
            there.text,
            "seed {seed}, request {number} is answered otherwise than by etcd; the last were\n{}",
            shown()
        );
        state.revision = state.revision.max(there.revision);
        state.learn(&request, there.is_refused);
    }
    let told = ours.told(state.revision).await;
    let want = theirs.told(state.revision).await;
    assert_eq!(told.len(), want.len(), "seed {seed}: events");
    for (told, want) in told.iter().zip(&want) {
        assert_eq!(told, want, "seed {seed}: an event");
    }
    println!("{requests} requests, {} revisions, {} events", state.revision, want.len());
}

/// Seed and number of requests, if any are asked for.
fn settings() -> Option<(u64, u64)> {
    let given = std::env::var("QUORATE_TEST_DIFFERENTIAL").ok()?;
    let (seed, count) = given.split_once(':').expect("written as <seed>:<requests>");
    Some((seed.parse().expect("a seed"), count.parse().expect("a number of requests")))
}

/// A real etcd with data in memory, if there is one.
struct Etcd {
    endpoint: String,
    process: Child,
    _directory: TempDir,
}

impl Etcd {
    async fn start() -> Option<Etcd> {
        let version = Command::new("etcd").arg("--version").output().ok();
        let Some(version) = version else {
            assert!(
                std::env::var_os("QUORATE_TEST_REQUIRE_ETCD").is_none(),
                "etcd is required here and not installed"
            );
            eprintln!("skipped: etcd is not installed (Debian's etcd-server)");
            return None;
        };
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        println!("compared with {}", version.lines().next().unwrap_or_default());
        let memory = std::path::Path::new("/dev/shm");
        let directory = match memory.is_dir() {
            true => TempDir::with_prefix_in("quorate-etcd-", memory),
            false => TempDir::with_prefix("quorate-etcd-"),
        }
        .unwrap();
        let (client, peer) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let process = Command::new("etcd")
            .args(["--name", "n", "--data-dir"])
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("n={}", url(peer))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Etcd { endpoint: format!("127.0.0.1:{client}"), process, _directory: directory };
        eventually("etcd answers", async || {
            let read = RangeRequest { key: "x".into(), ..Default::default() };
            KvClient::new(channel(&etcd.endpoint)).range(read).await.ok()
        })
        .await;
        Some(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        signal(self.process.id(), "TERM");
        end_of(&mut self.process);
    }
}

#[derive(Clone, Debug)]
enum Ask {
    Put(PutRequest),
    Range(RangeRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
}

/// What one of the two said.
struct Answer {
    text: String,
    revision: i64,
    is_refused: bool,
}

struct Side {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: Streaming<WatchResponse>,
    // A stream ends with its requests.
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

impl Side {
    async fn new(channel: Channel) -> Side {
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let all = Bytes::from_static(b"\0");
        let create = WatchCreateRequest {
            key: all.clone(),
            range_end: all,
            prev_kv: true,
            ..Default::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.unwrap();
        let outgoing = stream_of(outgoing);
        let watch = WatchClient::new(channel.clone()).max_decoding_message_size(1 << 30);
        let mut watch = { watch }.watch(outgoing).await.unwrap().into_inner();
        assert!(watch.message().await.unwrap().unwrap().created);
        Side {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel),
            watch,
            _requests: requests,
        }
    }

    async fn ask(&mut self, ask: &Ask) -> Answer {
        match ask.clone() {
            Ask::Put(put) => answer(self.kv.put(put).await, |put| put.header.as_mut()),
            Ask::Range(range) => answer(self.kv.range(range).await, |range| range.header.as_mut()),
            Ask::Delete(delete) => {
                answer(self.kv.delete_range(delete).await, |delete| delete.header.as_mut())
            }
            Ask::Txn(txn) => answer(self.kv.txn(txn).await, |txn| {
                inner_headers(txn);
                txn.header.as_mut()
            }),
            Ask::Compact(compact) => {
                answer(self.kv.compact(compact).await, |compact| compact.header.as_mut())
            }
            Ask::Grant(grant) => {
                answer(self.lease.lease_grant(grant).await, |grant| grant.header.as_mut())
            }
            Ask::Revoke(revoke) => {
                answer(self.lease.lease_revoke(revoke).await, |revoke| revoke.header.as_mut())
            }
            Ask::TimeToLive(of) => {
                answer(self.lease.lease_time_to_live(of).await, |lease| {
                    // The two were not granted at the same moment.
                    lease.ttl = lease.ttl.signum();
                    lease.keys.sort_unstable();
                    lease.header.as_mut()
                })
            }
            Ask::Leases => answer(self.lease.lease_leases(LeaseLeasesRequest {}).await, |leases| {
                leases.leases.sort_unstable_by_key(|lease| lease.id);
                leases.header.as_mut()
            }),
        }
    }

    /// All events up to a revision.
    async fn told(&mut self, revision: i64) -> Vec<String> {
        let mut events = Vec::new();
        let mut seen = 1;
        while seen < revision {
            let response = tokio::time::timeout(PATIENCE, self.watch.message()).await;
            let response = response.expect("events come").unwrap().unwrap();
            assert!(!response.canceled, "{response:?}");
            for event in response.events {
                seen = event.kv.as_ref().map_or(seen, |kv| kv.mod_revision);
                events.push(format!("{event:?}"));
            }
        }
        events
    }
}

fn stream_of(
    mut requests: tokio::sync::mpsc::Receiver<WatchRequest>,
) -> impl futures_util::Stream<Item = WatchRequest> {
    futures_util::stream::poll_fn(move |context| requests.poll_recv(context))
}

/// Without what is each server's own.
fn answer<T: Debug>(
    outcome: Result<Response<T>, Status>,
    tidy: impl FnOnce(&mut T) -> Option<&mut ResponseHeader>,
) -> Answer {
    match outcome {
        Ok(response) => {
            let mut response = response.into_inner();
            let revision = tidy(&mut response).map_or(0, |header| {
                (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
                header.revision
            });
            Answer { text: format!("{response:?}"), revision, is_refused: false }
        }
        Err(status) => Answer {
            text: format!("{:?}: {}", status.code(), status.message()),
            revision: 0,
            is_refused: true,
        },
    }
}

/// Nothing in them is a server's own; what only the older of two releases leaves out is.
fn inner_headers(txn: &mut TxnResponse) {
    for op in &mut txn.responses {
        let ResponseOp { response: Some(response_op::Response::ResponseTxn(inner)) } = op else {
            continue;
        };
        inner.header = None;
        inner_headers(inner);
    }
}

/// What the requests are drawn from.
struct Known {
    revision: i64,
    leases: Vec<i64>,
}

impl Default for Known {
    fn default() -> Self {
        Known { revision: 1, leases: Vec::new() }
    }
}

impl Known {
    fn request(&self, dice: &mut Dice) -> Ask {
        match dice.roll(100) {
            0..35 => Ask::Put(self.put(dice)),
            35..65 => Ask::Range(self.range(dice)),
            65..72 => Ask::Delete(delete(dice)),
            72..90 => Ask::Txn(self.txn(dice, 2)),
            90..92 => Ask::Compact(CompactionRequest {
                revision: self.revision - dice.roll(60) as i64 + 3,
                physical: dice.roll(4) == 0,
            }),
            92..95 => Ask::Grant(LeaseGrantRequest {
                ttl: 1000 + dice.roll(5) as i64,
                id: 1 + dice.roll(12) as i64,
            }),
            95..97 => Ask::Revoke(LeaseRevokeRequest { id: self.lease(dice) }),
            97..99 => Ask::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(dice),
                keys: dice.roll(2) == 0,
            }),
            _ => Ask::Leases,
        }
    }

    fn learn(&mut self, ask: &Ask, is_refused: bool) {
        match ask {
            Ask::Grant(grant) if !is_refused => self.leases.push(grant.id),
            Ask::Revoke(revoke) => self.leases.retain(|id| *id != revoke.id),
            _ => {}
        }
    }

    fn lease(&self, dice: &mut Dice) -> i64 {
        match self.leases.is_empty() || dice.roll(6) == 0 {
            true => 1 + dice.roll(20) as i64,
            false => self.leases[dice.roll(self.leases.len() as u64) as usize],
        }
    }

    fn put(&self, dice: &mut Dice) -> PutRequest {
        let (ignore_value, ignore_lease) = (dice.roll(12) == 0, dice.roll(12) == 0);
        let value = if ignore_value && dice.roll(5) != 0 { Bytes::new() } else { value(dice) };
        let lease = match (ignore_lease, dice.roll(5)) {
            (true, 1..) => 0,
            (_, 0) => self.lease(dice),
            _ => 0,
        };
        let prev_kv = dice.roll(3) == 0;
        PutRequest { key: key(dice), value, lease, prev_kv, ignore_value, ignore_lease }
    }

    fn range(&self, dice: &mut Dice) -> RangeRequest {
        let sort_order = dice.roll(3) as i32;
        // By key alone: the order of equals is nobody's promise, and one revision may be of many keys.
        let sort_target = 0;
        let mut near = |odds| match dice.roll(odds) {
            0 => self.revision - dice.roll(40) as i64 + 1,
            _ => 0,
        };
        let revision = near(3);
        let (min_mod_revision, max_mod_revision) = (near(10), near(10));
        let (min_create_revision, max_create_revision) = (near(10), near(10));
        RangeRequest {
            key: key(dice),
            range_end: range_end(dice),
            limit: [0, 0, 1, 2, 5, -1][dice.roll(6) as usize],
            revision,
            sort_order,
            sort_target,
            serializable: dice.roll(2) == 0,
            keys_only: dice.roll(6) == 0,
            count_only: dice.roll(8) == 0,
            min_mod_revision,
            max_mod_revision,
            min_create_revision,
            max_create_revision,
        }
    }

    fn txn(&self, dice: &mut Dice, depth: u32) -> TxnRequest {
        let compare = (0..dice.roll(3)).map(|_| self.compare(dice)).collect();
        let list = |dice: &mut Dice| {
            let mut ops: Vec<RequestOp> = (0..dice.roll(4)).map(|_| self.op(dice)).collect();
            // Never two: a put in one and a deletion in the next are taken otherwise, see PARITY.md.
            if 0 < depth && dice.roll(5) == 0 {
                let inner = request_op::Request::RequestTxn(self.txn(dice, depth - 1));
                ops.push(RequestOp { request: Some(inner) });
            }
            ops
        };
        let (success, failure) = (list(dice), list(dice));
        TxnRequest { compare, success, failure }
    }

    fn op(&self, dice: &mut Dice) -> RequestOp {
        RequestOp {
            request: Some(match dice.roll(20) {
                0..9 => request_op::Request::RequestPut(self.put(dice)),
                9..15 => request_op::Request::RequestRange(self.range(dice)),
                15..19 => {
                    let mut delete = delete(dice);
                    // etcd takes a put together with such a deletion of the same key: see PARITY.md.
                    if delete.range_end == b"\0"[..] {
                        delete.range_end = Bytes::new();
                    }
                    request_op::Request::RequestDeleteRange(delete)
                }
                _ => return RequestOp::default(),
            }),
        }
    }

    fn compare(&self, dice: &mut Dice) -> Compare {
        let number = match dice.roll(3) {
            0 => 0,
            1 => dice.roll(4) as i64,
            _ => self.revision - dice.roll(20) as i64,
        };
        let target = dice.roll(5) as i32;
        let target_union = match target {
            _ if dice.roll(12) == 0 => None,
            0 => Some(compare::TargetUnion::Version(number)),
            1 => Some(compare::TargetUnion::CreateRevision(number)),
            2 => Some(compare::TargetUnion::ModRevision(number)),
            3 => Some(compare::TargetUnion::Value(value(dice))),
            _ => Some(compare::TargetUnion::Lease(number)),
        };
        let range_end = if dice.roll(4) == 0 { range_end(dice) } else { Bytes::new() };
        Compare { result: dice.roll(4) as i32, target, key: key(dice), range_end, target_union }
    }
}

fn key(dice: &mut Dice) -> Bytes {
    match dice.roll(60) {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"\0"),
        2 => Bytes::from_static(b"\xff"),
        _ => Bytes::from(format!("k{:02}", dice.roll(30))),
    }
}

fn value(dice: &mut Dice) -> Bytes {
    Bytes::from(vec![b'a' + dice.roll(5) as u8; dice.roll(4) as usize])
}

fn range_end(dice: &mut Dice) -> Bytes {
    match dice.roll(8) {
        0..3 => Bytes::new(),
        3 => Bytes::from_static(b"\0"),
        4 => Bytes::from_static(b"l"),
        _ => key(dice),
    }
}

fn delete(dice: &mut Dice) -> DeleteRangeRequest {
    // Few of many keys at a time, or little would be there to find.
    let range_end = if dice.roll(3) == 0 { range_end(dice) } else { Bytes::new() };
    DeleteRangeRequest { key: key(dice), range_end, prev_kv: dice.roll(2) == 0 }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}
