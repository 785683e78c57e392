//! Loads against a server of a few lines that counts what it is sent.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_proto::etcdserverpb::*;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::tonic::transport::{Endpoint, Server};
use quorate_proto::tonic::{Request, Response, Status};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;

use crate::plan::{Dice, Values};
use crate::*;

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let load = |change: fn(&mut Load)| {
        let mut load = Load::new(Work::Put);
        change(&mut load);
        load.check()
    };
    let too_short = PlanError::KeyTooShort { bytes: 7, key_count: 11, bytes_min: 8 };
    for (change, want) in [
        ((|_| {}) as fn(&mut Load), Ok(())),
        (|load| load.client_count = 0, Err(PlanError::Clients { count: 0 })),
        (|load| load.client_count = 100_001, Err(PlanError::Clients { count: 100_001 })),
        (|load| load.key_count = 0, Err(PlanError::NoKeys)),
        (|load| (load.key_bytes, load.key_count) = (7, 10), Ok(())),
        (|load| (load.key_bytes, load.key_count) = (7, 11), Err(too_short)),
        (
            |load| load.key_count = u64::MAX,
            Err(PlanError::KeyTooShort { bytes: 24, key_count: u64::MAX, bytes_min: 26 }),
        ),
        (|load| load.key_bytes = 1 << 20, Err(PlanError::KeyTooLong { bytes: 1 << 20 })),
        (|load| load.value_bytes = 1 << 30, Err(PlanError::ValueTooLong { bytes: 1 << 30 })),
    ] {
        assert_eq!(load(change), want);
    }
}

#[test]
fn keys_and_values_have_their_length_and_differ() {
    let load = Load { key_bytes: 9, key_count: 1000, value_bytes: 100, ..Load::new(Work::Put) };
    assert_eq!(load.key(0), "bench/000");
    assert_eq!(load.key(999), "bench/999");
    let values = Values::new(&load);
    let mut dice = Dice::new(load.seed, 0);
    let drawn: BTreeSet<Bytes> = (0..50).map(|_| values.draw(&mut dice)).collect();
    assert!(drawn.iter().all(|value| value.len() == 100));
    assert!(40 < drawn.len(), "chance may repeat a value, not many of them");
}

#[test]
fn dice_stay_below_their_bound_and_reach_all_of_it() {
    for bound in [1, 2, 10] {
        let mut dice = Dice::new(7, 3);
        let seen: BTreeSet<u64> = (0..500).map(|_| dice.below(bound)).collect();
        assert_eq!(seen, (0..bound).collect());
    }
    assert_ne!(Dice::new(1, 0).next(), Dice::new(1, 1).next(), "clients draw different numbers");
}

#[test]
fn kinds_of_failures_are_bounded() {
    let mut measured = measured::Measured::new();
    for number in 0..1000 {
        let status = Status::invalid_argument(format!("{}{number}", "x".repeat(150)));
        measured.count_failure(Failure::from(&status), 2);
    }
    assert_eq!(measured.failures.len(), 33);
    assert_eq!(measured.failures[&Failure::Other], 2 * (1000 - 32));
    assert_eq!(measured.failed_count(), 2000);
    let long = Failure::from(&Status::invalid_argument("é".repeat(10_000)));
    assert!(long.to_string().len() < 400, "{long}");
}

#[tokio::test]
async fn every_request_is_sent_once_and_counted() {
    let server = Counting::start().await;
    for (work, clients, connections) in
        [(Work::Fill, 7, 3), (Work::Put, 1, 1), (Work::Get { serializable: true }, 20, 2)]
    {
        *server.seen.lock().unwrap() = Seen::default();
        let load = Load {
            client_count: clients,
            request_count: 500,
            key_count: 100,
            value_bytes: 10,
            ..Load::new(work)
        };
        let channels = connect(std::slice::from_ref(&server.endpoint), connections).await.unwrap();
        let progress = Progress::default();
        let measured = run(&load, &channels, &progress).await.unwrap();
        let seen = server.seen.lock().unwrap();
        assert_eq!(measured.answered_count(), 500, "{work:?}");
        assert_eq!(progress.ended_count(), 500);
        assert_eq!(measured.failed_count(), 0);
        assert!(measured.latency.quantile(0.5) <= measured.latency.quantile(0.99));
        assert!(measured.latency.quantile(0.99) <= measured.latency.max());
        match work {
            Work::Fill => assert_eq!((seen.puts, seen.keys.len()), (500, 100)),
            Work::Put => assert_eq!((seen.puts, seen.gets), (500, 0)),
            Work::Get { .. } => {
                assert_eq!((seen.puts, seen.gets, seen.serializable), (0, 500, 500));
                assert_eq!(measured.found_count, 500);
            }
            Work::Mixed => unreachable!("has a test of its own"),
        }
    }
}

#[tokio::test]
async fn a_mixed_load_does_a_bit_of_everything() {
    let server = Counting::start().await;
    let load = Load {
        client_count: 5,
        request_count: 1000,
        key_count: 50,
        value_bytes: 10,
        ..Load::new(Work::Mixed)
    };
    let channels = connect(std::slice::from_ref(&server.endpoint), 2).await.unwrap();
    let progress = Progress::default();
    let measured = run(&load, &channels, &progress).await.unwrap();
    assert_eq!((measured.answered_count(), measured.failed_count()), (1000, 0));
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.puts + seen.gets + seen.deletes + seen.txns, 1000);
    assert_eq!(progress.put_count(), seen.puts + seen.txns);
    for (count, want) in [(seen.puts, 500), (seen.gets, 300), (seen.deletes, 100), (seen.txns, 100)]
    {
        assert!(want / 2 < count && count < want * 2, "{count} instead of about {want}");
    }
    assert!(seen.keys.len() <= 50);
}

#[tokio::test]
async fn failures_are_counted_and_a_dead_server_is_given_up() {
    let server = Counting::start().await;
    server.seen.lock().unwrap().refuse = true;
    let silence_max = Duration::from_millis(30);
    let load = Load { client_count: 4, silence_max, ..Load::new(Work::Put) };
    let channels = connect(std::slice::from_ref(&server.endpoint), 1).await.unwrap();
    let measured = run(&load, &channels, &Progress::default()).await.unwrap();
    assert!(measured.given_up);
    assert_eq!(measured.answered_count(), 0);
    let failure = measured.failures.keys().next().unwrap();
    assert_eq!(failure.to_string(), "Unavailable: etcdserver: no leader");
    assert_eq!(measured.failures.len(), 1);
}

#[tokio::test]
async fn a_stopped_load_ends() {
    let server = Counting::start().await;
    let channels = connect(std::slice::from_ref(&server.endpoint), 1).await.unwrap();
    let progress = Progress::default();
    let load = Load { request_count: u64::MAX, client_count: 2, ..Load::new(Work::Put) };
    let (measured, ()) = tokio::join!(run(&load, &channels, &progress), async {
        while progress.ended_count() == 0 {
            tokio::task::yield_now().await;
        }
        progress.stop();
    });
    assert!(!measured.unwrap().given_up);

    let load = Load { duration_max: Some(Duration::ZERO), ..load };
    let measured = run(&load, &channels, &Progress::default()).await.unwrap();
    assert_eq!(measured.answered_count(), 0, "its time was up before it began");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let error = connect(&[endpoint], 1).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot connect to http://{address}: ")), "{error}");
}

#[derive(Default)]
struct Seen {
    puts: u64,
    gets: u64,
    deletes: u64,
    txns: u64,
    serializable: u64,
    keys: BTreeSet<Bytes>,
    refuse: bool,
}

#[derive(Clone)]
struct Counting {
    seen: Arc<Mutex<Seen>>,
    endpoint: Endpoint,
}

impl Counting {
    async fn start() -> Counting {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let counting = Counting { seen: Arc::default(), endpoint };
        let serve = Server::builder()
            .add_service(KvServer::new(counting.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        counting
    }

    fn refuse(&self) -> Result<(), Status> {
        match self.seen.lock().unwrap().refuse {
            true => Err(Status::unavailable("etcdserver: no leader")),
            false => Ok(()),
        }
    }
}

#[quorate_proto::tonic::async_trait]
impl Kv for Counting {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range(&self, asked: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.refuse()?;
        let mut seen = self.seen.lock().unwrap();
        seen.gets += 1;
        seen.serializable += u64::from(asked.get_ref().serializable);
        let kv = KeyValue { key: asked.into_inner().key, ..KeyValue::default() };
        Ok(Response::new(RangeResponse { kvs: vec![kv], count: 1, ..RangeResponse::default() }))
    }

    async fn put(&self, asked: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.refuse()?;
        let mut seen = self.seen.lock().unwrap();
        seen.puts += 1;
        seen.keys.insert(asked.into_inner().key);
        Ok(Response::new(PutResponse::default()))
    }

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not counted"))
    }

    async fn delete_range(
        &self,
        asked: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let mut seen = self.seen.lock().unwrap();
        seen.deletes += 1;
        seen.keys.insert(asked.into_inner().key);
        Ok(Response::new(DeleteRangeResponse::default()))
    }

    async fn txn(&self, asked: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let txn = asked.into_inner();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (1, 2, 1));
        self.seen.lock().unwrap().txns += 1;
        Ok(Response::new(TxnResponse::default()))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not counted"))
    }
}
