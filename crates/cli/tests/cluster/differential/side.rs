//! One of the two servers: what it answers, without what is its own, and what it tells watchers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    LeaseLeasesRequest, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
    WatchRequest, WatchResponse, request_op, response_op,
};
use quorate_proto::mvccpb::{Event, KeyValue};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::asks::Ask;
use crate::harness::PATIENCE;

/// Answers may hold every value there is.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// What one of the two said.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) revision: i64,
    pub(super) is_refused: bool,
}

pub(super) struct Side {
    is_ours: bool,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    requests: mpsc::Sender<WatchRequest>,
    told: mpsc::UnboundedReceiver<WatchResponse>,
    /// Events by watcher that nobody has taken yet.
    events: BTreeMap<i64, Vec<Event>>,
    /// Answers to creations, and ends of watchers, likewise.
    notices: Vec<WatchResponse>,
    /// By watcher: the last revision it was told of, and whether more of it is to come.
    seen: BTreeMap<i64, (i64, bool)>,
    /// The last notice of progress for the whole stream.
    pub(super) progress: i64,
    /// Responses that were cut.
    pub(super) fragments: u64,
}

impl Side {
    pub(super) async fn new(channel: Channel, is_ours: bool) -> Side {
        let (requests, mut outgoing) = mpsc::channel(1);
        let outgoing = futures_util::stream::poll_fn(move |context| outgoing.poll_recv(context));
        let mut watch =
            WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (sender, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // The answer begins with the first response.
            let mut watch = watch.watch(outgoing).await.unwrap().into_inner();
            while let Ok(Some(response)) = watch.message().await {
                if sender.send(response).is_err() {
                    return;
                }
            }
        });
        Side {
            is_ours,
            kv: KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
            requests,
            told,
            events: BTreeMap::new(),
            notices: Vec::new(),
            seen: BTreeMap::new(),
            progress: 0,
            fragments: 0,
        }
    }

    pub(super) async fn ask(&mut self, ask: &Ask) -> Answer {
        match ask.clone() {
            Ask::Put(put) => answer(self.kv.put(put).await, |put| put.header.as_mut()),
            Ask::Range(range) => answer(self.kv.range(range.clone()).await, |answer| {
                tidy_range(&range, answer);
                answer.header.as_mut()
            }),
            Ask::Delete(delete) => {
                answer(self.kv.delete_range(delete).await, |delete| delete.header.as_mut())
            }
            Ask::Txn(txn) => answer(self.kv.txn(txn.clone()).await, |answer| {
                tidy_txn(&txn, answer);
                answer.header.as_mut()
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
            Ask::KeepAlive(of) => {
                let of = futures_util::stream::iter([of]);
                let answered = match self.lease.lease_keep_alive(of).await {
                    Ok(answers) => answers.into_inner().message().await,
                    Err(status) => Err(status),
                };
                let answered = answered.and_then(|one| one.ok_or(Status::unknown("no answer")));
                answer(answered.map(Response::new), |renewed| renewed.header.as_mut())
            }
            Ask::Leases => answer(self.lease.lease_leases(LeaseLeasesRequest {}).await, |leases| {
                leases.leases.sort_unstable_by_key(|lease| lease.id);
                leases.header.as_mut()
            }),
            Ask::HashKv(of) => answer(self.maintenance.hash_kv(of).await, |hash| {
                // The number is each server's own, and 3.4 does not say of which revision it is.
                (hash.hash, hash.hash_revision) = (0, 0);
                hash.header.as_mut()
            }),
            Ask::Watch(_) => unreachable!("asked on the stream"),
        }
    }

    pub(super) async fn ask_to_watch(&mut self, ask: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(ask) }).await.unwrap();
    }

    /// The next response, filed. Nothing if there is none for a while.
    pub(super) async fn hear(&mut self, patience: std::time::Duration) -> Option<()> {
        let mut response = tokio::time::timeout(patience, self.told.recv()).await.ok()??;
        self.check(&response);
        if let Some(header) = &mut response.header {
            (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
        }
        let is_notice = response.created || response.canceled;
        if is_notice {
            self.notices.push(response);
        } else if response.watch_id == -1 {
            self.progress = response.header.map_or(0, |header| header.revision);
            // A promise to all that are there. etcd 3.4 does not order it with events.
            if self.is_ours {
                for (last, _) in self.seen.values_mut() {
                    *last = self.progress.max(*last);
                }
            }
        } else {
            self.fragments += u64::from(response.fragment);
            self.events.entry(response.watch_id).or_default().extend(response.events);
        }
        Some(())
    }

    /// What holds of every response by itself, and in its place.
    fn check(&mut self, response: &WatchResponse) {
        let (Some(first), Some(last)) = (response.events.first(), response.events.last()) else {
            return;
        };
        let revision_of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let revisions: Vec<i64> = response.events.iter().map(revision_of).collect();
        assert!(revisions.is_sorted(), "{revisions:?}");
        let (first, last) = (revision_of(first), revision_of(last));
        let header = response.header.map_or(0, |header| header.revision);
        assert!(last <= header, "event {last} under header {header}");
        let (before, is_open) = self.seen.get(&response.watch_id).copied().unwrap_or_default();
        let fits = if is_open { before <= first } else { before < first };
        assert!(fits, "watcher {}: {first} after {before}", response.watch_id);
        self.seen.insert(response.watch_id, (last, response.fragment));
    }

    /// How many events of a watcher have come that nobody has taken.
    pub(super) fn events_count(&self, watch_id: i64) -> usize {
        self.events.get(&watch_id).map_or(0, Vec::len)
    }

    /// Whether a watcher has been told all of the last revision.
    pub(super) fn is_whole(&self, watch_id: i64) -> bool {
        self.seen.get(&watch_id).is_none_or(|(_, is_open)| !is_open)
    }

    pub(super) fn take_events(&mut self, watch_id: i64) -> Vec<Event> {
        self.events.remove(&watch_id).unwrap_or_default()
    }

    /// Waits for the next answer to a creation, or the end of a watcher.
    pub(super) async fn notice(&mut self) -> WatchResponse {
        while self.notices.is_empty() {
            self.hear(PATIENCE).await.expect("it is answered");
        }
        self.notices.remove(0)
    }

    /// The id may come to mean another watcher.
    pub(super) fn forget(&mut self, watch_id: i64) {
        self.seen.remove(&watch_id);
        self.events.remove(&watch_id);
    }
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

/// The headers of nested answers are empty, and which of two releases leaves them out altogether is
/// of no interest.
fn tidy_txn(asked: &TxnRequest, answer: &mut TxnResponse) {
    let ops = if answer.succeeded { &asked.success } else { &asked.failure };
    for (op, response) in ops.iter().zip(&mut answer.responses) {
        match (&op.request, &mut response.response) {
            (
                Some(request_op::Request::RequestTxn(asked)),
                Some(response_op::Response::ResponseTxn(inner)),
            ) => {
                inner.header = None;
                tidy_txn(asked, inner);
            }
            (
                Some(request_op::Request::RequestRange(asked)),
                Some(response_op::Response::ResponseRange(range)),
            ) => tidy_range(asked, range),
            _ => {}
        }
    }
}

/// The order of equals is nobody's promise, nor which of them a limit cuts off.
fn tidy_range(asked: &RangeRequest, range: &mut RangeResponse) {
    let place = |kv: &KeyValue| match asked.sort_target {
        1 => (kv.version, Bytes::new()),
        2 => (kv.create_revision, Bytes::new()),
        3 => (kv.mod_revision, Bytes::new()),
        4 => (0, kv.value.clone()),
        _ => (0, kv.key.clone()),
    };
    let kvs = std::mem::take(&mut range.kvs);
    for equals in kvs.chunk_by(|one, other| place(one) == place(other)) {
        let mut equals = equals.to_vec();
        equals.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        range.kvs.extend(equals);
    }
    if range.more
        && asked.sort_target != 0
        && let Some(last) = range.kvs.last().map(place)
    {
        range.kvs.retain(|kv| place(kv) != last);
    }
}
