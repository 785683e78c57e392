//! The gRPC services of the client port, and what is asked of every call before its service sees it.
//!
//! Services and methods that are not here answer `Unimplemented`, as for an unknown name.

mod autopilot;
pub(crate) mod cluster;
mod election;
mod ended;
mod health;
mod kv;
pub(crate) mod learner;
mod lease;
mod lock;
mod log;
mod maintenance;
mod move_leader;
mod range_stream;
mod watch;

use std::pin::Pin;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use quorate_kv::KvError;
use quorate_proto::etcdserverpb::cluster_server::{self, ClusterServer};
use quorate_proto::etcdserverpb::kv_server::{self, KvServer};
use quorate_proto::etcdserverpb::lease_server::{self, Lease, LeaseServer};
use quorate_proto::etcdserverpb::maintenance_server::{self, Maintenance, MaintenanceServer};
use quorate_proto::etcdserverpb::watch_server::{self, WatchServer};
use quorate_proto::health::health_server::{self, HealthServer};
use quorate_proto::quoratepb::autopilot_server::{self, Autopilot, AutopilotServer};
use quorate_proto::quoratepb::log_server::{self, LogServer};
use quorate_proto::v3electionpb::election_server::{self, ElectionServer};
use quorate_proto::v3lockpb::lock_server::{self, LockServer};
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service as _;

use crate::local::Local;

/// Room for the rest of a message beside the command in it, as etcd grants it.
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// How long a message may be where a command may be so long.
pub(crate) fn message_bytes_max(request_bytes_max: u64) -> usize {
    usize::try_from(request_bytes_max).unwrap_or(usize::MAX).saturating_add(MESSAGE_OVERHEAD_BYTES)
}

/// A streamed answer.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Maintenance by itself, for peers.
pub(crate) fn maintenance(local: Local) -> MaintenanceServer<impl Maintenance> {
    MaintenanceServer::new(maintenance::Service::new(local))
}

/// Autopilot, for peers.
pub(crate) fn autopilot(local: Local) -> AutopilotServer<impl Autopilot> {
    AutopilotServer::new(autopilot::Service::new(local))
}

/// Leases, for peers.
pub(crate) fn lease(local: Local) -> LeaseServer<impl Lease> {
    // The keys of a lease may be many.
    LeaseServer::new(lease::Service::for_peers(local)).max_encoding_message_size(i32::MAX as usize)
}

/// Which service a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Kv,
    Lease,
    Watch,
    Cluster,
    Maintenance,
    Lock,
    Election,
    Autopilot,
    Log,
    Health,
}

impl Api {
    /// Nothing for a service that is not here.
    pub(crate) fn of(path: &str) -> Option<Api> {
        let (service, _) = path.strip_prefix('/')?.split_once('/')?;
        Some(match service {
            kv_server::SERVICE_NAME => Api::Kv,
            lease_server::SERVICE_NAME => Api::Lease,
            watch_server::SERVICE_NAME => Api::Watch,
            cluster_server::SERVICE_NAME => Api::Cluster,
            maintenance_server::SERVICE_NAME => Api::Maintenance,
            lock_server::SERVICE_NAME => Api::Lock,
            election_server::SERVICE_NAME => Api::Election,
            autopilot_server::SERVICE_NAME => Api::Autopilot,
            log_server::SERVICE_NAME => Api::Log,
            health_server::SERVICE_NAME => Api::Health,
            _ => return None,
        })
    }
}

/// All services.
pub(crate) struct Services {
    kv: KvServer<kv::Service>,
    lease: LeaseServer<lease::Service>,
    watch: WatchServer<watch::Service>,
    cluster: ClusterServer<cluster::Service>,
    maintenance: MaintenanceServer<maintenance::Service>,
    lock: LockServer<lock::Service>,
    election: ElectionServer<election::Service>,
    autopilot: AutopilotServer<autopilot::Service>,
    log: LogServer<log::Service>,
    health: HealthServer<health::Service>,
}

impl Services {
    /// `request_bytes_max` is the limit of a command.
    pub(crate) fn new(local: &Local, request_bytes_max: u64) -> Self {
        let message_bytes_max = message_bytes_max(request_bytes_max);
        // Reads are not limited; the wire format ends here.
        let answer_bytes_max = i32::MAX as usize;
        Services {
            kv: KvServer::new(kv::Service::new(local.clone(), message_bytes_max))
                .max_decoding_message_size(message_bytes_max)
                .max_encoding_message_size(answer_bytes_max),
            lease: LeaseServer::new(lease::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max)
                .max_encoding_message_size(answer_bytes_max),
            watch: WatchServer::new(watch::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max)
                .max_encoding_message_size(answer_bytes_max),
            cluster: ClusterServer::new(cluster::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max),
            maintenance: MaintenanceServer::new(maintenance::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max),
            lock: LockServer::new(lock::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max),
            election: ElectionServer::new(election::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max)
                .max_encoding_message_size(answer_bytes_max),
            autopilot: AutopilotServer::new(autopilot::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max),
            log: LogServer::new(log::Service::new(local.clone()))
                .max_decoding_message_size(message_bytes_max),
            health: HealthServer::new(health::Service),
        }
    }

    /// What the service answers.
    pub(crate) async fn call<B>(&self, api: Api, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        // Each is a handle, made to be cloned for a call.
        let answer = match api {
            Api::Kv => self.kv.clone().call(request),
            Api::Lease => self.lease.clone().call(request),
            Api::Watch => self.watch.clone().call(request),
            Api::Cluster => self.cluster.clone().call(request),
            Api::Maintenance => self.maintenance.clone().call(request),
            Api::Lock => self.lock.clone().call(request),
            Api::Election => self.election.clone().call(request),
            Api::Autopilot => self.autopilot.clone().call(request),
            Api::Log => self.log.clone().call(request),
            Api::Health => self.health.clone().call(request),
        };
        match answer.await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Checks the headers of a call.
pub(crate) fn check_headers(local: &Local, headers: &HeaderMap) -> Result<(), KvError> {
    // Not for the version's sake: whoever counts calls by it needs a text.
    if let Some(version) = headers.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(KvError::InvalidClientAPIVersion);
    }
    if wants_leader(headers) && local.leader().is_none() {
        return Err(KvError::NoLeader);
    }
    Ok(())
}

/// Whether the caller wants no answer but an error from a member that knows no leader.
fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// Resolves when this member has known no leader for so long that streams that depend on one end.
async fn leaderless(local: &Local) {
    local.leaderless().await;
}
