//! What an operator asks of one member.

use quorate_kv::KvError;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use tonic::{Request, Response, Status};

use super::move_leader::move_leader;
use super::{Streamed, not_yet};
use crate::local::Local;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION};

pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Service { local }
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.local.status();
        let errors = match status.leader {
            Some(_) => Vec::new(),
            None => vec![KvError::NoLeader.message().to_owned()],
        };
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: Some(self.local.header(self.local.store().revision())),
            version: ETCD_VERSION.to_owned(),
            // Clients divide by it.
            db_size: signed(status.db_bytes.max(1)),
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors,
            db_size_in_use: signed(status.db_in_use_bytes),
            is_learner: status.is_learner,
            storage_version: CLUSTER_VERSION.to_owned(),
            db_size_quota: self.local.quota_bytes_max().map_or(-1, signed),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    /// No alarm is ever raised yet, so there are none to list; health checks ask for them.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        if request.get_ref().action() != AlarmAction::Get {
            return not_yet("Alarm with an action other than GET");
        }
        self.local.read_barrier().await?;
        Ok(Response::new(AlarmResponse {
            header: Some(self.local.header(self.local.store().revision())),
            alarms: Vec::new(),
        }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        not_yet("Defragment")
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        not_yet("Hash")
    }

    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        not_yet("HashKV")
    }

    type SnapshotStream = Streamed<SnapshotResponse>;

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        not_yet("Snapshot")
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        move_leader(&self.local, request.into_inner()).await.map(Response::new)
    }

    async fn downgrade(
        &self,
        _: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        not_yet("Downgrade")
    }
}
