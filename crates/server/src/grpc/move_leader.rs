//! `Maintenance.MoveLeader`: leadership goes to a member of the operator's choice.

use quorate_kv::KvError;
use quorate_proto::etcdserverpb::{MoveLeaderRequest, MoveLeaderResponse};
use quorate_runtime::Engine;
use quorate_types::NodeId;
use tonic::Status;

use crate::local::Local;
use crate::status;

/// To whoever asks for it. It is final: nobody tries it again.
const NOT_MOVED: &str =
    "etcdserver: a cluster with the ZAB engine elects its leader, and nobody else moves it";

/// Hands leadership over and waits until the other member has it.
///
/// Only the leader can; it answers without a header, as etcd does.
pub(super) async fn move_leader(
    local: &Local,
    request: MoveLeaderRequest,
) -> Result<MoveLeaderResponse, Status> {
    let target = NodeId(request.target_id);
    let own = local.status();
    if own.leader != Some(own.node) {
        return Err(status::of_kv(KvError::NotLeader));
    }
    let members = local.store().members();
    if !members.iter().any(|member| member.id == target.0 && !member.is_learner) {
        return Err(status::of_kv(KvError::BadLeaderTransferee));
    }
    if local.engine() == Engine::Zab {
        return Err(Status::unimplemented(NOT_MOVED));
    }
    let mut leader = local.node().leader();
    let moved = async {
        loop {
            // A transfer has one election timeout to succeed.
            if *leader.borrow() == own.node && target != own.node {
                let asked = local.node().transfer(target).await;
                asked.map_err(|_| status::of_kv(KvError::Stopped))?;
            }
            let arrived = leader.wait_for(|leader| *leader == target);
            if tokio::time::timeout(local.election_timeout(), arrived).await.is_ok() {
                return Ok(MoveLeaderResponse::default());
            }
        }
    };
    tokio::time::timeout(local.request_timeout(), moved)
        .await
        .unwrap_or_else(|_| Err(status::of_kv(KvError::LeaderTransferTimeout)))
}
