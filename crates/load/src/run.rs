//! The clients themselves: they share connections, a counter that gives out the requests, and a few
//! records to write latencies into.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use quorate_proto::tonic::transport::{Channel, Endpoint};
use quorate_proto::tonic::{self, Status};
use tokio::task::JoinSet;

use crate::measured::{Failure, Measured};
use crate::plan::{Dice, Load, PlanError, Values, Work};

/// Clients share this many records: enough that they seldom meet, and few enough that the memory
/// does not grow with the clients.
const RECORDS_MAX: usize = 16;
/// A client whose request failed waits this long, twice as long after each further failure, ...
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// ... but no longer than this: a server that refuses at once must not be hammered.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How far a load has come, and the way to end it early. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Flow>,
}

#[derive(Debug, Default)]
struct Flow {
    ended: AtomicU64,
    put: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// No further request starts; those under way are waited for.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Requests that were answered or failed.
    pub fn ended_count(&self) -> u64 {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Requests that put a value and were answered, transactions among them.
    pub fn put_count(&self) -> u64 {
        self.shared.put.load(Ordering::Relaxed)
    }

    fn count_put(&self) {
        self.shared.put.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) {
        self.shared.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed)
    }
}

/// An endpoint that could not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {endpoint}: {}", innermost(reason))]
pub struct ConnectError {
    /// The address that was dialled.
    pub endpoint: String,
    /// What the transport said.
    #[source]
    pub reason: tonic::transport::Error,
}

/// Opens `count` connections, taking the endpoints in turn.
///
/// # Errors
///
/// The first endpoint that does not answer: a load that silently goes to fewer members than it was
/// meant for would measure something else.
pub async fn connect(endpoints: &[Endpoint], count: u32) -> Result<Vec<Channel>, ConnectError> {
    let mut channels = Vec::new();
    for endpoint in endpoints.iter().cycle().take(count as usize) {
        channels.push(endpoint.connect().await.map_err(|reason| ConnectError {
            endpoint: endpoint.uri().to_string().trim_end_matches('/').to_owned(),
            reason,
        })?);
    }
    Ok(channels)
}

/// Sends the load over the channels, client by client in turn, and waits for its end.
///
/// # Errors
///
/// A load that [`Load::check`] refuses. Requests that fail are no error but part of what is measured.
///
/// # Panics
///
/// Without a channel.
pub async fn run(
    load: &Load,
    channels: &[Channel],
    progress: &Progress,
) -> Result<Measured, PlanError> {
    load.check()?;
    assert!(!channels.is_empty(), "a load needs a connection");
    let records = RECORDS_MAX.min(load.client_count as usize);
    let started = Instant::now();
    let shared = Arc::new(Shared {
        load: load.clone(),
        values: Values::new(load),
        progress: progress.clone(),
        given_out: AtomicU64::new(0),
        started,
        last_answer_ms: AtomicU64::new(0),
        given_up: AtomicBool::new(false),
        // A duration past the end of the clock is no bound.
        end: load.duration_max.and_then(|duration| started.checked_add(duration)),
        records: (0..records).map(|_| Mutex::new(Measured::new())).collect(),
    });

    let mut clients = JoinSet::new();
    for (number, channel) in (0..load.client_count).zip(channels.iter().cycle()) {
        let client = Client {
            number,
            dice: Dice::new(load.seed, number),
            kv: KvClient::new(channel.clone()),
            pause: PAUSE_MIN,
        };
        clients.spawn(client.work(Arc::clone(&shared)));
    }
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    let mut all = Measured::new();
    all.wall = started.elapsed();
    all.given_up = shared.given_up.load(Ordering::Relaxed);
    for record in &shared.records {
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        all.merge(std::mem::replace(&mut *record, Measured::new()));
    }
    Ok(all)
}

/// What all clients of a load share.
struct Shared {
    load: Load,
    values: Values,
    progress: Progress,
    given_out: AtomicU64,
    started: Instant,
    /// When any client last had an answer, in milliseconds after the start.
    last_answer_ms: AtomicU64,
    given_up: AtomicBool,
    end: Option<Instant>,
    records: Vec<Mutex<Measured>>,
}

impl Shared {
    /// The number of the next request, unless there is none.
    fn next(&self) -> Option<u64> {
        let over = self.end.is_some_and(|end| end <= Instant::now());
        if over || self.progress.is_stopped() || self.given_up.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.given_out.fetch_add(1, Ordering::Relaxed);
        (number < self.load.request_count).then_some(number)
    }

    fn answered(&self) {
        let now_ms = self.elapsed_ms();
        // Read first: clients that write one place all the time wait for each other.
        if self.last_answer_ms.load(Ordering::Relaxed) < now_ms {
            self.last_answer_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    fn failed(&self) {
        let silent_ms =
            self.elapsed_ms().saturating_sub(self.last_answer_ms.load(Ordering::Relaxed));
        if self.load.silence_max <= Duration::from_millis(silent_ms) {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

struct Client {
    number: u32,
    dice: Dice,
    kv: KvClient<Channel>,
    /// How long to wait after the next failure.
    pause: Duration,
}

impl Client {
    async fn work(mut self, shared: Arc<Shared>) {
        let record = &shared.records[self.number as usize % shared.records.len()];
        while let Some(request) = shared.next() {
            let begun = Instant::now();
            let call = self.request(&shared, request);
            let answer = match tokio::time::timeout(shared.load.request_timeout, call).await {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(status)) => Err(Failure::from(&status)),
                Err(_) => Err(Failure::NoAnswer),
            };
            let latency = begun.elapsed();
            shared.progress.count();
            let failed = answer.is_err();
            {
                let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
                match answer {
                    Ok(found) => {
                        record.latency.record(latency);
                        record.found_count += found;
                    }
                    Err(failure) => record.count_failure(failure, 1),
                }
            }
            if failed {
                shared.failed();
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            } else {
                shared.answered();
                self.pause = PAUSE_MIN;
            }
        }
    }

    /// One request; answered with the number of keys that a read found.
    async fn request(&mut self, shared: &Shared, number: u64) -> Result<u64, Status> {
        let load = &shared.load;
        match load.work {
            Work::Put => self.put(shared).await,
            Work::Fill => self.put_to(shared, number % load.key_count).await,
            Work::Get { serializable } => self.read(shared, serializable).await,
            Work::Mixed => match self.dice.below(10) {
                0..5 => self.put(shared).await,
                5..8 => self.read(shared, false).await,
                8 => self.delete(shared).await,
                _ => self.transact(shared).await,
            },
        }
    }

    fn draw_key(&mut self, shared: &Shared) -> Bytes {
        shared.load.key(self.dice.below(shared.load.key_count))
    }

    async fn put(&mut self, shared: &Shared) -> Result<u64, Status> {
        let number = self.dice.below(shared.load.key_count);
        self.put_to(shared, number).await
    }

    async fn put_to(&mut self, shared: &Shared, number: u64) -> Result<u64, Status> {
        let (key, value) = (shared.load.key(number), shared.values.draw(&mut self.dice));
        self.kv.put(PutRequest { key, value, ..PutRequest::default() }).await?;
        shared.progress.count_put();
        Ok(0)
    }

    async fn read(&mut self, shared: &Shared, serializable: bool) -> Result<u64, Status> {
        let key = self.draw_key(shared);
        let range = RangeRequest { key, serializable, ..RangeRequest::default() };
        let answer = self.kv.range(range).await?.into_inner();
        Ok(answer.kvs.len() as u64)
    }

    async fn delete(&mut self, shared: &Shared) -> Result<u64, Status> {
        let key = self.draw_key(shared);
        self.kv.delete_range(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await?;
        Ok(0)
    }

    /// Puts a key, and when it was there before, reads another.
    async fn transact(&mut self, shared: &Shared) -> Result<u64, Status> {
        let (key, other) = (self.draw_key(shared), self.draw_key(shared));
        let exists = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Version(0)),
        };
        let value = shared.values.draw(&mut self.dice);
        let op = |request| RequestOp { request: Some(request) };
        let put = PutRequest { key, value, ..PutRequest::default() };
        let put = op(request_op::Request::RequestPut(put));
        let read = RangeRequest { key: other, ..RangeRequest::default() };
        let read = op(request_op::Request::RequestRange(read));
        self.kv
            .txn(TxnRequest {
                compare: vec![exists],
                success: vec![put.clone(), read],
                failure: vec![put],
            })
            .await?;
        shared.progress.count_put();
        Ok(0)
    }
}

/// The cause at the bottom: above it stand only words like "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
