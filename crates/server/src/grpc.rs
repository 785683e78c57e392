//! The gRPC services of the client port, and what is asked of every call before its service sees it.
//!
//! Services and methods that are not here answer `Unimplemented`, as for an unknown name.

pub(crate) mod cluster;
mod election;
mod health;
mod kv;
pub(crate) mod learner;
mod lease;
mod lock;
mod maintenance;
mod move_leader;
mod range_stream;
mod watch;

use std::pin::Pin;
use std::time::Duration;

use quorate_kv::KvError;
use quorate_proto::etcdserverpb::cluster_server::ClusterServer;
use quorate_proto::etcdserverpb::kv_server::KvServer;
use quorate_proto::etcdserverpb::lease_server::LeaseServer;
use quorate_proto::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use quorate_proto::etcdserverpb::watch_server::WatchServer;
use quorate_proto::health::health_server::HealthServer;
use quorate_proto::v3electionpb::election_server::ElectionServer;
use quorate_proto::v3lockpb::lock_server::LockServer;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::{Request, Status};

use crate::local::Local;
use crate::status;

/// Room for the rest of a message beside the command in it, as etcd grants it.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// A streamed answer.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Maintenance by itself, for peers.
pub(crate) fn maintenance(local: Local) -> MaintenanceServer<impl Maintenance> {
    MaintenanceServer::new(maintenance::Service::new(local))
}

/// All services; `request_bytes_max` is the limit of a command.
pub(crate) fn routes(local: &Local, request_bytes_max: u64) -> Routes {
    let message_bytes_max = usize::try_from(request_bytes_max)
        .unwrap_or(usize::MAX)
        .saturating_add(MESSAGE_OVERHEAD_BYTES);
    let door = Door { local: local.clone() };
    let kv = KvServer::new(kv::Service::new(local.clone(), message_bytes_max))
        .max_decoding_message_size(message_bytes_max)
        // Reads are not limited; the wire format ends here.
        .max_encoding_message_size(i32::MAX as usize);
    let cluster = ClusterServer::new(cluster::Service::new(local.clone()))
        .max_decoding_message_size(message_bytes_max);
    let maintenance = MaintenanceServer::new(maintenance::Service::new(local.clone()))
        .max_decoding_message_size(message_bytes_max);
    let lease = LeaseServer::new(lease::Service::new(local.clone()))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(i32::MAX as usize);
    let watch = WatchServer::new(watch::Service::new(local.clone()))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(i32::MAX as usize);
    let lock = LockServer::new(lock::Service::new(local.clone()))
        .max_decoding_message_size(message_bytes_max);
    let election = ElectionServer::new(election::Service::new(local.clone()))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(i32::MAX as usize);
    Routes::new(InterceptedService::new(kv, door.clone()))
        .add_service(InterceptedService::new(lease, door.clone()))
        .add_service(InterceptedService::new(watch, door.clone()))
        .add_service(InterceptedService::new(cluster, door.clone()))
        .add_service(InterceptedService::new(maintenance, door.clone()))
        .add_service(InterceptedService::new(lock, door.clone()))
        .add_service(InterceptedService::new(election, door))
        .add_service(HealthServer::new(health::Service))
}

/// Checks the metadata of a call.
#[derive(Clone)]
struct Door {
    local: Local,
}

impl Interceptor for Door {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata();
        // Not for the version's sake: whoever counts calls by it needs a text.
        if let Some(version) = headers.get("client-api-version")
            && std::str::from_utf8(version.as_bytes()).is_err()
        {
            return Err(status::of_kv(KvError::InvalidClientAPIVersion));
        }
        if wants_leader(headers) && self.local.leader().is_none() {
            return Err(status::of_kv(KvError::NoLeader));
        }
        Ok(request)
    }
}

/// Whether the caller wants no answer but an error from a member that knows no leader.
fn wants_leader(headers: &MetadataMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// A stream that depends on a leader ends when there was none so often, an election timeout apart.
const LEADERLESS_MAX: u32 = 3;

/// Resolves when this member has known no leader for so long that streams that depend on one end.
async fn leaderless(local: &Local) {
    let mut looks = tokio::time::interval(local.election_timeout().max(Duration::from_millis(1)));
    let mut leaderless = 0;
    while leaderless < LEADERLESS_MAX {
        looks.tick().await;
        leaderless = if local.leader().is_some() { 0 } else { leaderless + 1 };
    }
}
