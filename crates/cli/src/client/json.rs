//! Answers as JSON, in the shape of `etcdctl -w json`: names as in the protocol, keys and values in
//! base64, whole numbers as numbers, and nothing for what is zero or empty.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::{etcdserverpb as pb, mvccpb};
use serde::Serialize;

#[derive(Serialize)]
struct Header {
    #[serde(skip_serializing_if = "is_zero")]
    cluster_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    member_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    raft_term: u64,
}

#[derive(Serialize)]
struct KeyValue {
    #[serde(skip_serializing_if = "is_zero")]
    key: String,
    #[serde(skip_serializing_if = "is_zero")]
    create_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    mod_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    version: i64,
    #[serde(skip_serializing_if = "is_zero")]
    value: String,
    #[serde(skip_serializing_if = "is_zero")]
    lease: i64,
}

/// The answer to a put.
#[derive(Serialize)]
pub(super) struct Put {
    #[serde(skip_serializing_if = "is_zero")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    prev_kv: Option<KeyValue>,
}

/// The answer to a get.
#[derive(Serialize)]
pub(super) struct Range {
    #[serde(skip_serializing_if = "is_zero")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    kvs: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero")]
    more: bool,
    #[serde(skip_serializing_if = "is_zero")]
    count: i64,
}

/// The answer to a deletion.
#[derive(Serialize)]
pub(super) struct Delete {
    #[serde(skip_serializing_if = "is_zero")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    deleted: i64,
    #[serde(skip_serializing_if = "is_zero")]
    prev_kvs: Vec<KeyValue>,
}

/// The answer to a transaction.
#[derive(Serialize)]
pub(super) struct Txn {
    #[serde(skip_serializing_if = "is_zero")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    succeeded: bool,
    #[serde(skip_serializing_if = "is_zero")]
    responses: Vec<Op>,
}

#[derive(Serialize)]
struct Op {
    #[serde(rename = "Response")]
    response: Option<OpKind>,
}

#[derive(Serialize)]
enum OpKind {
    #[serde(rename = "ResponseRange")]
    Range(Range),
    #[serde(rename = "ResponsePut")]
    Put(Put),
    #[serde(rename = "ResponseDeleteRange")]
    Delete(Delete),
    #[serde(rename = "ResponseTxn")]
    Txn(Txn),
}

/// The answer to a question for the members.
#[derive(Serialize)]
pub(super) struct Members {
    #[serde(skip_serializing_if = "is_zero")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    name: String,
    #[serde(rename = "peerURLs", skip_serializing_if = "is_zero")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", skip_serializing_if = "is_zero")]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner", skip_serializing_if = "is_zero")]
    is_learner: bool,
}

/// One endpoint and its status.
#[derive(Serialize)]
pub(super) struct EndpointStatus {
    #[serde(rename = "Endpoint")]
    endpoint: String,
    #[serde(rename = "Status")]
    status: Status,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(skip_serializing_if = "is_zero")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_zero")]
    version: String,
    #[serde(skip_serializing_if = "is_zero")]
    db_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    leader: u64,
    #[serde(skip_serializing_if = "is_zero")]
    raft_index: u64,
    #[serde(skip_serializing_if = "is_zero")]
    raft_term: u64,
    #[serde(skip_serializing_if = "is_zero")]
    raft_applied_index: u64,
    #[serde(skip_serializing_if = "is_zero")]
    errors: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    db_size_in_use: i64,
    #[serde(skip_serializing_if = "is_zero")]
    is_learner: bool,
    #[serde(skip_serializing_if = "is_zero")]
    storage_version: String,
    #[serde(skip_serializing_if = "is_zero")]
    db_size_quota: i64,
    #[serde(skip_serializing_if = "is_zero")]
    downgrade_info: Option<Downgrade>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Downgrade {
    #[serde(skip_serializing_if = "is_zero")]
    enabled: bool,
    #[serde(skip_serializing_if = "is_zero")]
    target_version: String,
}

/// One endpoint and its status.
pub(super) fn of_status(endpoint: &str, status: &pb::StatusResponse) -> EndpointStatus {
    EndpointStatus {
        endpoint: endpoint.to_owned(),
        status: Status {
            header: of_header(status.header.as_ref()),
            version: status.version.clone(),
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors.clone(),
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: status.storage_version.clone(),
            db_size_quota: status.db_size_quota,
            downgrade_info: status.downgrade_info.as_ref().map(|downgrade| Downgrade {
                enabled: downgrade.enabled,
                target_version: downgrade.target_version.clone(),
            }),
        },
    }
}

impl From<&mvccpb::KeyValue> for KeyValue {
    fn from(kv: &mvccpb::KeyValue) -> KeyValue {
        KeyValue {
            key: STANDARD.encode(&kv.key),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: STANDARD.encode(&kv.value),
            lease: kv.lease,
        }
    }
}

impl From<&pb::PutResponse> for Put {
    fn from(put: &pb::PutResponse) -> Put {
        Put {
            header: of_header(put.header.as_ref()),
            prev_kv: put.prev_kv.as_ref().map(KeyValue::from),
        }
    }
}

impl From<&pb::RangeResponse> for Range {
    fn from(range: &pb::RangeResponse) -> Range {
        Range {
            header: of_header(range.header.as_ref()),
            kvs: range.kvs.iter().map(KeyValue::from).collect(),
            more: range.more,
            count: range.count,
        }
    }
}

impl From<&pb::DeleteRangeResponse> for Delete {
    fn from(delete: &pb::DeleteRangeResponse) -> Delete {
        Delete {
            header: of_header(delete.header.as_ref()),
            deleted: delete.deleted,
            prev_kvs: delete.prev_kvs.iter().map(KeyValue::from).collect(),
        }
    }
}

impl From<&pb::TxnResponse> for Txn {
    fn from(txn: &pb::TxnResponse) -> Txn {
        let op = |op: &pb::ResponseOp| Op {
            response: op.response.as_ref().map(|response| match response {
                Response::ResponseRange(range) => OpKind::Range(range.into()),
                Response::ResponsePut(put) => OpKind::Put(put.into()),
                Response::ResponseDeleteRange(delete) => OpKind::Delete(delete.into()),
                Response::ResponseTxn(txn) => OpKind::Txn(txn.into()),
            }),
        };
        Txn {
            header: of_header(txn.header.as_ref()),
            succeeded: txn.succeeded,
            responses: txn.responses.iter().map(op).collect(),
        }
    }
}

impl From<&pb::MemberListResponse> for Members {
    fn from(list: &pb::MemberListResponse) -> Members {
        let member = |member: &pb::Member| Member {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        };
        Members {
            header: of_header(list.header.as_ref()),
            members: list.members.iter().map(member).collect(),
        }
    }
}

fn of_header(header: Option<&pb::ResponseHeader>) -> Option<Header> {
    header.map(|header| Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    })
}

fn is_zero(field: &impl Zero) -> bool {
    field.is_zero()
}

/// What the protocol does not send.
trait Zero {
    fn is_zero(&self) -> bool;
}

impl Zero for i64 {
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Zero for u64 {
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Zero for bool {
    fn is_zero(&self) -> bool {
        !self
    }
}

impl Zero for String {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Zero for Vec<T> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Zero for Option<T> {
    fn is_zero(&self) -> bool {
        self.is_none()
    }
}
