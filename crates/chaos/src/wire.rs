//! Requests of a history as etcd's messages, and etcd's answers as a history has them.

use bytes::Bytes;
use quorate_history::{Action, Compare, Done, Item, Relation, Request, Response, Span, Target};
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{self as pb, request_op, response_op};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::tonic::transport::Channel;
use quorate_proto::tonic::{Code, Status};
use quorate_types::Revision;

/// Why there is no answer that a history could hold.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was certainly not done.
    Refused(Status),
    /// It may have been done.
    Unknown(Status),
}

/// Asks one member. Each put is asked what it replaced if `wants_previous`.
pub(crate) async fn ask(
    channel: Channel,
    request: &Request,
    wants_previous: bool,
) -> Result<Response, Failure> {
    let mut client = KvClient::new(channel);
    let answer = match (&*request.compares, &*request.then) {
        ([], [Action::Put { key, value }]) => {
            client.put(put(key, value, wants_previous)).await.map(|answer| {
                let mut answer = answer.into_inner();
                let header = answer.header.take();
                response(header, true, vec![written(&answer, wants_previous)])
            })
        }
        ([], [Action::Delete(span)]) => client.delete_range(delete(span)).await.map(|answer| {
            let answer = answer.into_inner();
            response(answer.header, true, vec![deleted(answer.deleted)])
        }),
        ([], [Action::Range(span)]) => {
            let range = pb::RangeRequest { serializable: request.serializable, ..range(span) };
            client.range(range).await.map(|answer| {
                let answer = answer.into_inner();
                response(answer.header, true, vec![found(&answer.kvs)])
            })
        }
        _ => client.txn(txn(request, wants_previous)).await.map(|answer| {
            let answer = answer.into_inner();
            let done = |op: pb::ResponseOp| done(op.response?, wants_previous);
            let done = answer.responses.into_iter().filter_map(done).collect();
            response(answer.header, answer.succeeded, done)
        }),
    };
    answer.map_err(|status| match is_refusal(&status) {
        true => Failure::Refused(status),
        false => Failure::Unknown(status),
    })
}

/// Whether a failure says that nothing was done, or ever will be. The server's words for it are promises
/// that a history holds it to.
fn is_refusal(status: &Status) -> bool {
    let is_told = matches!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
            | (Code::ResourceExhausted, "etcdserver: too many requests")
            | (Code::Unavailable, "etcdserver: leader changed")
            | (Code::InvalidArgument | Code::FailedPrecondition, _)
    );
    is_told || is_unsent(status)
}

/// Whether there was no connection to send it on.
fn is_unsent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.to_string().contains("tcp connect error") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn put(key: &Bytes, value: &Bytes, prev_kv: bool) -> pb::PutRequest {
    pb::PutRequest { key: key.clone(), value: value.clone(), prev_kv, ..Default::default() }
}

fn delete(Span { key, end }: &Span) -> pb::DeleteRangeRequest {
    let range_end = end.clone().unwrap_or_default();
    pb::DeleteRangeRequest { key: key.clone(), range_end, prev_kv: false }
}

pub(crate) fn range(Span { key, end }: &Span) -> pb::RangeRequest {
    let range_end = end.clone().unwrap_or_default();
    pb::RangeRequest { key: key.clone(), range_end, ..Default::default() }
}

fn txn(request: &Request, wants_previous: bool) -> pb::TxnRequest {
    let ops = |actions: &[Action]| actions.iter().map(|it| op(it, wants_previous)).collect();
    pb::TxnRequest {
        compare: request.compares.iter().map(compare).collect(),
        success: ops(&request.then),
        failure: ops(&request.otherwise),
    }
}

fn op(action: &Action, wants_previous: bool) -> pb::RequestOp {
    use request_op::Request::{RequestDeleteRange, RequestPut, RequestRange};
    let request = match action {
        Action::Put { key, value } => RequestPut(put(key, value, wants_previous)),
        Action::Delete(span) => RequestDeleteRange(delete(span)),
        Action::Range(span) => RequestRange(range(span)),
    };
    pb::RequestOp { request: Some(request) }
}

fn compare(Compare { key, relation, target }: &Compare) -> pb::Compare {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let result = match relation {
        Relation::Equal => CompareResult::Equal,
        Relation::Unequal => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    let (target, union) = match target {
        Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
        Target::Version(it) => (CompareTarget::Version, TargetUnion::Version(number(*it))),
        Target::Created(it) => (CompareTarget::Create, TargetUnion::CreateRevision(number(it.0))),
        Target::Modified(it) => (CompareTarget::Mod, TargetUnion::ModRevision(number(it.0))),
    };
    pb::Compare {
        key: key.clone(),
        result: result.into(),
        target: target.into(),
        target_union: Some(union),
        ..Default::default()
    }
}

fn done(op: response_op::Response, wants_previous: bool) -> Option<Done> {
    use response_op::Response::{ResponseDeleteRange, ResponsePut, ResponseRange, ResponseTxn};
    match op {
        ResponsePut(answer) => Some(written(&answer, wants_previous)),
        ResponseDeleteRange(answer) => Some(deleted(answer.deleted)),
        ResponseRange(answer) => Some(found(&answer.kvs)),
        // Never asked for; the history will say that the answer does not fit.
        ResponseTxn(_) => None,
    }
}

fn written(answer: &pb::PutResponse, wants_previous: bool) -> Done {
    Done::Put { previous: wants_previous.then(|| answer.prev_kv.iter().map(item).collect()) }
}

fn deleted(count: i64) -> Done {
    Done::Deleted { count: u64::try_from(count).unwrap_or(u64::MAX) }
}

fn found(kvs: &[KeyValue]) -> Done {
    Done::Found { items: kvs.iter().map(item).collect() }
}

fn response(header: Option<pb::ResponseHeader>, succeeded: bool, done: Vec<Done>) -> Response {
    // One that is missing or below zero makes a history that cannot be.
    let revision = header.map_or(Revision(0), |header| revision(header.revision));
    Response { revision: Some(revision), succeeded, done }
}

pub(crate) fn item(kv: &KeyValue) -> Item {
    Item {
        created: Some(revision(kv.create_revision)),
        modified: Some(revision(kv.mod_revision)),
        version: Some(u64::try_from(kv.version).unwrap_or(0)),
        ..Item::new(kv.key.clone(), kv.value.clone())
    }
}

pub(crate) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}
