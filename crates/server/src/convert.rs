//! etcd's messages as the machine's types, and its answers as etcd's messages.
//!
//! Nothing is judged here: numbers that nobody knows arrive as such and are refused by the machine,
//! in etcd's order of checks. Keys and values are shared, never copied.

use quorate_kv as kv;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::{request_op, response_op};
use quorate_proto::mvccpb;

pub(crate) fn range_request(request: pb::RangeRequest) -> kv::RangeRequest {
    kv::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order: request.sort_order.into(),
        sort_target: request.sort_target.into(),
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

pub(crate) fn put_request(request: pb::PutRequest) -> kv::PutRequest {
    kv::PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete_range_request(request: pb::DeleteRangeRequest) -> kv::DeleteRangeRequest {
    kv::DeleteRangeRequest {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

/// Recursion ends: a message that is nested too deeply was not decoded.
pub(crate) fn txn_request(request: pb::TxnRequest) -> kv::TxnRequest {
    kv::TxnRequest {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(request_op).collect(),
        failure: request.failure.into_iter().map(request_op).collect(),
    }
}

fn request_op(op: pb::RequestOp) -> kv::RequestOp {
    match op.request {
        None => kv::RequestOp::Empty,
        Some(request_op::Request::RequestRange(range)) => {
            kv::RequestOp::Range(range_request(range))
        }
        Some(request_op::Request::RequestPut(put)) => kv::RequestOp::Put(put_request(put)),
        Some(request_op::Request::RequestDeleteRange(delete)) => {
            kv::RequestOp::DeleteRange(delete_range_request(delete))
        }
        Some(request_op::Request::RequestTxn(txn)) => kv::RequestOp::Txn(txn_request(txn)),
    }
}

/// A given side that is absent, or not of the target's kind, counts as 0 or empty.
fn compare(compare: pb::Compare) -> kv::Compare {
    let target = match (compare.target, compare.target_union) {
        (0, Some(TargetUnion::Version(version))) => kv::CompareTarget::Version(version),
        (0, _) => kv::CompareTarget::Version(0),
        (1, Some(TargetUnion::CreateRevision(revision))) => kv::CompareTarget::Create(revision),
        (1, _) => kv::CompareTarget::Create(0),
        (2, Some(TargetUnion::ModRevision(revision))) => kv::CompareTarget::Mod(revision),
        (2, _) => kv::CompareTarget::Mod(0),
        (3, Some(TargetUnion::Value(value))) => kv::CompareTarget::Value(value),
        (3, _) => kv::CompareTarget::Value(bytes::Bytes::new()),
        (4, Some(TargetUnion::Lease(lease))) => kv::CompareTarget::Lease(lease),
        (4, _) => kv::CompareTarget::Lease(0),
        (unknown, _) => kv::CompareTarget::Unknown(unknown),
    };
    kv::Compare {
        result: compare.result.into(),
        target,
        key: compare.key,
        range_end: compare.range_end,
    }
}

pub(crate) fn range_response(
    response: kv::RangeResponse,
    header: pb::ResponseHeader,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(crate) fn put_response(
    response: kv::PutResponse,
    header: pb::ResponseHeader,
) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: response.prev_kv.map(key_value) }
}

pub(crate) fn delete_range_response(
    response: kv::DeleteRangeResponse,
    header: pb::ResponseHeader,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

pub(crate) fn txn_response(
    response: kv::TxnResponse,
    header: pb::ResponseHeader,
) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(response_op).collect(),
    }
}

/// Inner headers carry the revision and nothing else; a nested transaction's is empty.
fn response_op(op: kv::ResponseOp) -> pb::ResponseOp {
    let inner = |revision| pb::ResponseHeader { revision, ..pb::ResponseHeader::default() };
    let response = match op {
        kv::ResponseOp::Range(range) => {
            let header = inner(range.revision);
            response_op::Response::ResponseRange(range_response(range, header))
        }
        kv::ResponseOp::Put(put) => {
            let header = inner(put.revision);
            response_op::Response::ResponsePut(put_response(put, header))
        }
        kv::ResponseOp::DeleteRange(delete) => {
            let header = inner(delete.revision);
            response_op::Response::ResponseDeleteRange(delete_range_response(delete, header))
        }
        kv::ResponseOp::Txn(txn) => {
            response_op::Response::ResponseTxn(txn_response(txn, pb::ResponseHeader::default()))
        }
    };
    pb::ResponseOp { response: Some(response) }
}

pub(crate) fn key_value(pair: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: pair.key,
        create_revision: pair.create_revision,
        mod_revision: pair.mod_revision,
        version: pair.version,
        value: pair.value,
        lease: pair.lease,
    }
}

pub(crate) fn member(member: kv::Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    }
}

/// `header` makes the header for a revision.
pub(crate) fn watch_response(
    response: kv::WatchResponse,
    header: &pb::ResponseHeader,
) -> pb::WatchResponse {
    pb::WatchResponse {
        header: Some(pb::ResponseHeader { revision: response.revision, ..*header }),
        watch_id: response.watch_id,
        created: response.created,
        canceled: response.canceled,
        compact_revision: response.compact_revision,
        cancel_reason: response.cancel_reason.to_owned(),
        fragment: response.fragment,
        events: response.events.into_iter().map(|shared| event(&shared)).collect(),
    }
}

fn event(event: &kv::Event) -> mvccpb::Event {
    let kind = match event.kind {
        kv::EventKind::Put => mvccpb::event::EventType::Put,
        kv::EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv.clone())),
        prev_kv: event.prev_kv.clone().map(key_value),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn given_sides_follow_the_target() {
        use kv::CompareTarget;
        let value = || Some(TargetUnion::Value(Bytes::from_static(b"v")));
        for (target, given, want) in [
            (0, Some(TargetUnion::Version(7)), CompareTarget::Version(7)),
            (1, Some(TargetUnion::CreateRevision(7)), CompareTarget::Create(7)),
            (2, Some(TargetUnion::ModRevision(7)), CompareTarget::Mod(7)),
            (3, value(), CompareTarget::Value(Bytes::from_static(b"v"))),
            (4, Some(TargetUnion::Lease(7)), CompareTarget::Lease(7)),
            // Not given, or of another kind.
            (0, None, CompareTarget::Version(0)),
            (1, value(), CompareTarget::Create(0)),
            (2, Some(TargetUnion::Version(7)), CompareTarget::Mod(0)),
            (3, Some(TargetUnion::Version(7)), CompareTarget::Value(Bytes::new())),
            (4, None, CompareTarget::Lease(0)),
            (5, value(), CompareTarget::Unknown(5)),
            (-1, None, CompareTarget::Unknown(-1)),
        ] {
            let message = pb::Compare {
                result: 3,
                target,
                target_union: given.clone(),
                key: Bytes::from_static(b"k"),
                range_end: Bytes::from_static(b"l"),
            };
            let got = compare(message);
            assert_eq!(got.target, want, "target {target}, given {given:?}");
            assert_eq!(got.result, kv::CompareResult::NotEqual);
            assert_eq!((&got.key[..], &got.range_end[..]), (&b"k"[..], &b"l"[..]));
        }
    }

    #[test]
    fn requests_keep_every_field() {
        let range = range_request(pb::RangeRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"b"),
            limit: 1,
            revision: 2,
            sort_order: 2,
            sort_target: 9,
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 3,
            max_mod_revision: 4,
            min_create_revision: 5,
            max_create_revision: 6,
        });
        let want = kv::RangeRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"b"),
            limit: 1,
            revision: 2,
            sort_order: kv::SortOrder::Descend,
            sort_target: kv::SortTarget::Unknown(9),
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 3,
            max_mod_revision: 4,
            min_create_revision: 5,
            max_create_revision: 6,
        };
        assert_eq!(range, want);
        let put = put_request(pb::PutRequest {
            key: Bytes::from_static(b"a"),
            value: Bytes::from_static(b"v"),
            lease: 1,
            prev_kv: true,
            ignore_value: true,
            ignore_lease: true,
        });
        let want = kv::PutRequest {
            key: Bytes::from_static(b"a"),
            value: Bytes::from_static(b"v"),
            lease: 1,
            prev_kv: true,
            ignore_value: true,
            ignore_lease: true,
        };
        assert_eq!(put, want);
    }

    #[test]
    fn values_are_shared_and_not_copied() {
        let value = Bytes::from(vec![7; 100]);
        let start = value.as_ptr();
        let put = put_request(pb::PutRequest { value, ..pb::PutRequest::default() });
        assert_eq!(put.value.as_ptr(), start);
        let pair = key_value(kv::KeyValue { value: put.value, ..kv::KeyValue::default() });
        assert_eq!(pair.value.as_ptr(), start);
    }

    #[test]
    fn an_operation_without_content_stays_one() {
        let txn = txn_request(pb::TxnRequest {
            success: vec![pb::RequestOp { request: None }],
            ..pb::TxnRequest::default()
        });
        assert_eq!(txn.success, [kv::RequestOp::Empty]);
    }

    #[test]
    fn inner_headers_carry_the_revision_alone_and_a_nested_one_nothing() {
        let outer = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 9, raft_term: 3 };
        let nested = kv::TxnResponse {
            revision: 9,
            succeeded: true,
            responses: vec![kv::ResponseOp::Put(kv::PutResponse { revision: 9, prev_kv: None })],
        };
        let response = kv::TxnResponse {
            revision: 9,
            succeeded: true,
            responses: vec![
                kv::ResponseOp::Range(kv::RangeResponse { revision: 8, ..Default::default() }),
                kv::ResponseOp::DeleteRange(kv::DeleteRangeResponse {
                    revision: 9,
                    ..Default::default()
                }),
                kv::ResponseOp::Txn(nested),
            ],
        };
        let message = txn_response(response, outer);
        assert_eq!(message.header, Some(outer));
        let inner = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
        let mut headers = Vec::new();
        for op in message.responses {
            headers.push(match op.response.unwrap() {
                response_op::Response::ResponseRange(range) => range.header,
                response_op::Response::ResponsePut(put) => put.header,
                response_op::Response::ResponseDeleteRange(delete) => delete.header,
                response_op::Response::ResponseTxn(txn) => {
                    assert_eq!(txn.responses.len(), 1);
                    txn.header
                }
            });
        }
        assert_eq!(headers, [inner(8), inner(9), inner(0)]);
    }
}
