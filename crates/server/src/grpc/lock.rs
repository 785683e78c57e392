//! Locks that the server waits for. Who stands first in the line of a name holds its lock.

use quorate_kv::{Command, DeleteRangeRequest, KvError, Limits};
use quorate_proto::v3lockpb::lock_server::Lock;
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::kv::mismatched;
use crate::line::Line;
use crate::local::Local;
use crate::status;

pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Service { local }
    }
}

#[tonic::async_trait]
impl Lock for Service {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockRequest { name, lease } = request.into_inner();
        let line = Line::new(&self.local, &name);
        let (place, revision) = line.win(lease, None, KvError::SessionExpired).await?;
        Ok(Response::new(LockResponse {
            header: Some(self.local.header(revision)),
            key: place.key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let key = request.into_inner().key;
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let command = Command::DeleteRange(delete);
        command.validate(&Limits::default()).map_err(status::of_kv)?;
        match self.local.propose(&command).await? {
            quorate_kv::Response::DeleteRange(answer) => Ok(Response::new(UnlockResponse {
                header: Some(self.local.header(answer.revision)),
            })),
            other => Err(mismatched("a deletion", &other)),
        }
    }
}
