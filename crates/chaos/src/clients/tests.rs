//! Would the clients see it? A store that is right but for failures stands in for a cluster, and two bugs
//! are put into it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_history::{
    Action, Compare, Done, Item, Relation, Request, Response, Span, State, Target,
};
use quorate_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use quorate_proto::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_proto::etcdserverpb::{self as pb, request_op, response_op};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::tonic::codegen::tokio_stream;
use quorate_proto::tonic::transport::server::TcpIncoming;
use quorate_proto::tonic::transport::{Endpoint, Server};
use quorate_proto::tonic::{self, Status};
use quorate_types::Revision;
use tokio::task::JoinSet;

use super::*;
use crate::report::judge;

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    Nothing,
    /// A few of those whose time ran out are said to be refused, and are done later nevertheless.
    TimeoutsAreRefusals,
    /// A few of those that failed are done a second time.
    ProposesAgain,
}

/// One write in so many is hit by the bug.
const BUG_EVERY: usize = 60;

#[derive(Clone)]
struct Fake {
    bug: Bug,
    state: Arc<Mutex<State>>,
    chance: Arc<Mutex<Chance>>,
}

impl Fake {
    async fn answer(&self, request: Request) -> Result<Response, Status> {
        let (fails, hit, how, late) = {
            let mut chance = self.chance.lock().unwrap();
            let late = Duration::from_millis(chance.between(2, 40));
            (chance.percent(8), chance.below(BUG_EVERY) == 0, chance.below(3), late)
        };
        let now = || self.state.lock().unwrap().step(&request);
        let later = || {
            let (state, request) = (Arc::clone(&self.state), request.clone());
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                state.lock().unwrap().step(&request)
            })
        };
        let timeout = Err(Status::unavailable("etcdserver: request timed out"));
        let refusal = Err(Status::unavailable("etcdserver: leader changed"));
        if request.is_read() {
            return if fails { refusal } else { Ok(now()) };
        }
        match self.bug {
            Bug::TimeoutsAreRefusals if hit => {
                later();
                return refusal;
            }
            Bug::ProposesAgain if hit => {
                now();
                let second = later().await;
                return second.map_err(|error| Status::internal(error.to_string()));
            }
            _ if !fails => return Ok(now()),
            _ => {}
        }
        // As it is in a cluster: done, done later, or never done.
        match how {
            0 => drop(now()),
            1 => drop(later()),
            _ => return refusal,
        }
        timeout
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    async fn range(
        &self,
        request: tonic::Request<pb::RangeRequest>,
    ) -> Result<tonic::Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        let action = Action::Range(span(request.key, request.range_end));
        let response = self.answer(Request::of([action])).await?;
        let header = header(&response);
        match op(response.done.into_iter().next(), false) {
            response_op::Response::ResponseRange(answer) => {
                Ok(tonic::Response::new(pb::RangeResponse { header, ..answer }))
            }
            other => Err(Status::internal(format!("{other:?}"))),
        }
    }

    type RangeStreamStream = tokio_stream::Empty<Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: tonic::Request<pb::RangeRequest>,
    ) -> Result<tonic::Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn put(
        &self,
        request: tonic::Request<pb::PutRequest>,
    ) -> Result<tonic::Response<pb::PutResponse>, Status> {
        let pb::PutRequest { key, value, prev_kv, .. } = request.into_inner();
        let response = self.answer(Request::put(key, value)).await?;
        let header = header(&response);
        match op(response.done.into_iter().next(), prev_kv) {
            response_op::Response::ResponsePut(answer) => {
                Ok(tonic::Response::new(pb::PutResponse { header, ..answer }))
            }
            other => Err(Status::internal(format!("{other:?}"))),
        }
    }

    async fn delete_range(
        &self,
        request: tonic::Request<pb::DeleteRangeRequest>,
    ) -> Result<tonic::Response<pb::DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        let action = Action::Delete(span(request.key, request.range_end));
        let response = self.answer(Request::of([action])).await?;
        let header = header(&response);
        match op(response.done.into_iter().next(), false) {
            response_op::Response::ResponseDeleteRange(answer) => {
                Ok(tonic::Response::new(pb::DeleteRangeResponse { header, ..answer }))
            }
            other => Err(Status::internal(format!("{other:?}"))),
        }
    }

    async fn txn(
        &self,
        request: tonic::Request<pb::TxnRequest>,
    ) -> Result<tonic::Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        let asks = |op: &pb::RequestOp| matches!(&op.request, Some(request_op::Request::RequestPut(put)) if put.prev_kv);
        let wants_previous = request.success.iter().any(asks);
        let actions = |ops: Vec<pb::RequestOp>| -> Vec<Action> {
            ops.into_iter().filter_map(|op| action(op.request?)).collect()
        };
        let then = actions(request.success);
        let mut asked = Request::of(then).or_else(actions(request.failure));
        for compare in request.compare {
            let Some(TargetUnion::ModRevision(revision)) = compare.target_union else {
                return Err(Status::internal("an unexpected compare"));
            };
            assert_eq!(compare.result, i32::from(CompareResult::Equal));
            let target = Target::Modified(Revision(revision.unsigned_abs()));
            asked = asked.provided(Compare { key: compare.key, relation: Relation::Equal, target });
        }
        let response = self.answer(asked).await?;
        let (header, succeeded) = (header(&response), response.succeeded);
        let responses = (response.done.into_iter())
            .map(|done| pb::ResponseOp { response: Some(op(Some(done), wants_previous)) })
            .collect();
        Ok(tonic::Response::new(pb::TxnResponse { header, succeeded, responses }))
    }

    async fn compact(
        &self,
        _: tonic::Request<pb::CompactionRequest>,
    ) -> Result<tonic::Response<pb::CompactionResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

fn span(key: Bytes, end: Bytes) -> Span {
    Span { key, end: (!end.is_empty()).then_some(end) }
}

fn action(request: request_op::Request) -> Option<Action> {
    match request {
        request_op::Request::RequestPut(put) => {
            Some(Action::Put { key: put.key, value: put.value })
        }
        request_op::Request::RequestRange(it) => Some(Action::Range(span(it.key, it.range_end))),
        request_op::Request::RequestDeleteRange(it) => {
            Some(Action::Delete(span(it.key, it.range_end)))
        }
        request_op::Request::RequestTxn(_) => None,
    }
}

fn header(response: &Response) -> Option<pb::ResponseHeader> {
    let revision = number(response.revision.map_or(0, |revision| revision.0));
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn op(done: Option<Done>, wants_previous: bool) -> response_op::Response {
    match done {
        Some(Done::Put { previous }) => {
            let previous = previous.filter(|_| wants_previous);
            let prev_kv = previous.and_then(|items| items.iter().map(pair).next());
            response_op::Response::ResponsePut(pb::PutResponse { prev_kv, ..Default::default() })
        }
        Some(Done::Deleted { count }) => {
            let answer = pb::DeleteRangeResponse { deleted: number(count), ..Default::default() };
            response_op::Response::ResponseDeleteRange(answer)
        }
        Some(Done::Found { items }) => {
            let kvs = items.iter().map(pair).collect();
            let answer = pb::RangeResponse { kvs, ..Default::default() };
            response_op::Response::ResponseRange(answer)
        }
        None => unreachable!("each action has its answer"),
    }
}

fn pair(item: &Item) -> KeyValue {
    KeyValue {
        key: item.key.clone(),
        value: item.value.clone(),
        create_revision: number(item.created.unwrap().0),
        mod_revision: number(item.modified.unwrap().0),
        version: number(item.version.unwrap()),
        ..Default::default()
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

/// What the clients say of a store after so many answers.
async fn judged(bug: Bug, seed: u64) -> Vec<String> {
    let fake = Fake { bug, state: Arc::default(), chance: Arc::new(Mutex::new(Chance::new(seed))) };
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = Server::builder().add_service(KvServer::new(fake));
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    // Two members that are one: whom one asks makes no difference.
    let channels = vec![[channel.clone(), channel.clone()], [channel.clone(), channel]];
    let recorder = Arc::new(Recorder::new(channels));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..6 {
        let client = Client { number, keys: 4, think: Duration::from_millis(1) };
        let chance = Chance::new(seed * 1000 + number);
        clients.spawn(client.work(Arc::clone(&recorder), chance, Arc::clone(&stop)));
    }
    let answered = async {
        while recorder.ok.load(Ordering::Relaxed) < 1000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answered).await.expect("the fake answers");
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    server.abort();
    assert!(0 < recorder.refused.load(Ordering::Relaxed), "{bug:?}");
    assert!(0 < recorder.unknown.load(Ordering::Relaxed) || bug != Bug::Nothing);
    judge(&recorder.history())
}

/// So many runs may be without a chance to see a bug: how requests meet is the machine's to say, and what
/// was done twice shows only where another request came in between.
const RUNS_TO_BE_SEEN: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_what_was_refused_and_done_and_what_was_done_twice() {
    for seed in 1..=2 {
        assert_eq!(judged(Bug::Nothing, seed).await, [""; 0], "seed {seed}");
    }
    'bugs: for bug in [Bug::TimeoutsAreRefusals, Bug::ProposesAgain] {
        for seed in 1..=RUNS_TO_BE_SEEN {
            if let Some(failure) = judged(bug, seed).await.first() {
                println!("seed {seed}, {bug:?}: {failure}");
                continue 'bugs;
            }
        }
        panic!("{bug:?} goes unseen in {RUNS_TO_BE_SEEN} runs");
    }
}
