//! Keys and values. A change goes through the log; a read is confirmed by the leader and then
//! answered from this member's own store.

use quorate_kv as kv;
use quorate_kv::{Command, KvError};
use quorate_proto::etcdserverpb::kv_server::Kv;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::{Streamed, leaderless, range_stream, wants_leader};
use crate::local::Local;
use crate::reading::held;
use crate::{convert, status};

pub(super) struct Service {
    local: Local,
    limits: kv::Limits,
    /// Of a range that is streamed.
    piece_bytes: usize,
}

impl Service {
    /// Ranges that are streamed come in pieces of about `piece_bytes`.
    pub(super) fn new(local: Local, piece_bytes: usize) -> Self {
        let limits = kv::Limits { txn_ops_max: local.txn_ops_max() };
        Service { local, limits, piece_bytes }
    }

    /// Checks a change and takes it through the log.
    async fn change(&self, command: &Command) -> Result<kv::Response, Status> {
        command.validate(&self.limits).map_err(status::of_kv)?;
        self.local.check_quota(command).await?;
        self.local.propose(command).await
    }

    /// A transaction that only reads needs no place in the log.
    async fn read_txn(&self, txn: kv::TxnRequest) -> Result<Response<TxnResponse>, Status> {
        txn.validate(&self.limits).map_err(status::of_kv)?;
        if !txn.is_serializable() {
            self.local.read_barrier().await?;
        }
        let read = move |store: &kv::Store, room: &_| store.read_txn_within(room, &txn);
        let (answer, drawn) = self.local.read_long(read).await?;
        let header = self.local.header(answer.revision);
        Ok(held(convert::txn_response(answer, header), drawn))
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let range = convert::range_request(request.into_inner());
        range.validate().map_err(status::of_kv)?;
        if !range.serializable {
            self.local.check_serves_all()?;
            self.local.read_barrier().await?;
        }
        let (answer, drawn) = if range.range_end.is_empty() {
            self.local.read_one(range).await?
        } else {
            self.local.read_long(move |store, room| store.range_within(room, &range)).await?
        };
        let header = self.local.header(answer.revision);
        Ok(held(convert::range_response(answer, header), drawn))
    }

    type RangeStreamStream = Streamed<RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let wants_leader = wants_leader(request.metadata().as_ref());
        let range = convert::range_request(request.into_inner());
        range.validate().map_err(status::of_kv)?;
        range_stream::check(&range).map_err(status::of_kv)?;
        if !range.serializable {
            self.local.read_barrier().await?;
        }
        let (pieces, outgoing) = range_stream::Pieces::channel();
        let (local, piece_bytes) = (self.local.clone(), self.piece_bytes);
        tokio::spawn(async move {
            tokio::select! {
                () = range_stream::send(&local, range, piece_bytes, &pieces) => {}
                () = pieces.closed() => {}
                () = leaderless(&local), if wants_leader => {
                    let _ = pieces.send((Err(status::of_kv(KvError::NoLeader)), None)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let command = Command::Put(convert::put_request(request.into_inner()));
        match self.change(&command).await? {
            kv::Response::Put(answer) => {
                let header = self.local.header(answer.revision);
                self.local.with_room(convert::put_response(answer, header))
            }
            other => Err(mismatched("a put", &other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let command = Command::DeleteRange(convert::delete_range_request(request.into_inner()));
        match self.change(&command).await? {
            kv::Response::DeleteRange(answer) => {
                let header = self.local.header(answer.revision);
                self.local.with_room(convert::delete_range_response(answer, header))
            }
            other => Err(mismatched("a deletion", &other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let txn = convert::txn_request(request.into_inner());
        if txn.is_read_only() {
            return self.read_txn(txn).await;
        }
        match self.change(&Command::Txn(txn)).await? {
            kv::Response::Txn(answer) => {
                let header = self.local.header(answer.revision);
                self.local.with_room(convert::txn_response(answer, header))
            }
            other => Err(mismatched("a transaction", &other)),
        }
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        let command = Command::Compact(kv::CompactionRequest { revision, physical });
        match self.change(&command).await? {
            kv::Response::Compact(answer) => {
                if physical {
                    self.local.removed(revision).await?;
                }
                let header = Some(self.local.header(answer.revision));
                Ok(Response::new(CompactionResponse { header }))
            }
            other => Err(mismatched("a compaction", &other)),
        }
    }
}

/// The machine answered something else than was asked. The change may have taken effect, so this
/// is nothing to try again.
pub(super) fn mismatched(asked: &str, answer: &kv::Response) -> Status {
    tracing::error!(?answer, "the machine gave no answer to {asked}");
    status::of_kv(KvError::Corrupt)
}
