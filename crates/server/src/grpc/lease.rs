//! Leases. A grant and a revocation go through the log; renewals and questions go to the leader.
//!
//! These two it serves on its peer port as well, for members that pass them on: there it answers only
//! if it leads.

use quorate_kv as kv;
use quorate_kv::Command;
use quorate_proto::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::kv::mismatched;
use super::{Streamed, leaderless, wants_leader};
use crate::local::Local;
use crate::{status, way};

pub(super) struct Service {
    local: Local,
    serves_peers: bool,
}

impl Service {
    /// For clients.
    pub(super) fn new(local: Local) -> Self {
        Service { local, serves_peers: false }
    }

    /// For the peer port.
    pub(super) fn for_peers(local: Local) -> Self {
        Service { local, serves_peers: true }
    }

    fn is_passed_on(&self, metadata: &MetadataMap) -> bool {
        self.serves_peers || way::is_passed_on(metadata)
    }
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        match self.local.grant_lease(id, ttl).await? {
            kv::Response::LeaseGrant(answer) => Ok(Response::new(LeaseGrantResponse {
                header: Some(self.local.header(answer.revision)),
                id: answer.id,
                ttl: answer.ttl_seconds,
                error: String::new(),
            })),
            other => Err(mismatched("a grant", &other)),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        match self.local.propose(&Command::LeaseRevoke { id }).await? {
            kv::Response::LeaseRevoke(answer) => Ok(Response::new(LeaseRevokeResponse {
                header: Some(self.local.header(answer.revision)),
            })),
            other => Err(mismatched("a revocation", &other)),
        }
    }

    type LeaseKeepAliveStream = Streamed<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let is_passed_on = self.is_passed_on(request.metadata());
        let wants_leader = wants_leader(request.metadata().as_ref());
        let requests = request.into_inner();
        let (answers, outgoing) = mpsc::channel(1);
        let local = self.local.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = keep_alive(&local, requests, is_passed_on, &answers) => outcome,
                () = answers.closed() => Ok(()),
                () = local.stopping() => Err(status::of_kv(kv::KvError::Stopped)),
                () = leaderless(&local), if wants_leader => {
                    Err(status::of_kv(kv::KvError::NoLeader))
                }
            };
            if let Err(status) = outcome {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let is_passed_on = self.is_passed_on(request.metadata());
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let answer = self.local.lease_time_to_live(id, keys, is_passed_on).await?;
        let revision = answer.revision.max(self.local.store().revision());
        self.local.with_room_now(LeaseTimeToLiveResponse {
            header: Some(self.local.header(revision)),
            id: answer.id,
            ttl: answer.ttl_seconds,
            granted_ttl: answer.granted_seconds,
            keys: answer.keys,
        })
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let answer = self.local.read(kv::Store::leases).await?;
        self.local.with_room_now(LeaseLeasesResponse {
            header: Some(self.local.header(answer.revision)),
            leases: answer.ids.into_iter().map(|id| LeaseStatus { id }).collect(),
        })
    }
}

/// Renews one after the other: each request has one answer, in its order.
async fn keep_alive(
    local: &Local,
    mut requests: Streaming<LeaseKeepAliveRequest>,
    is_passed_on: bool,
    answers: &mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
) -> Result<(), Status> {
    while let Some(LeaseKeepAliveRequest { id }) = requests.message().await? {
        // As of before the renewal: it says when the lease was alive for sure.
        let header = Some(local.header(local.store().revision()));
        let ttl = local.renew_lease(id, is_passed_on).await?;
        if answers.send(Ok(LeaseKeepAliveResponse { header, id, ttl })).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
