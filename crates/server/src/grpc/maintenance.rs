//! What an operator asks of one member.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_kv as kv;
use quorate_kv::{AlarmType, Command, KvError};
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use quorate_runtime::{MaintenanceError, Saving};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tonic::{Request, Response, Status};

use super::ended::Ended;
use super::kv::mismatched;
use super::move_leader::move_leader;
use super::{Streamed, leaderless, wants_leader};
use crate::local::Local;
use crate::status;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION};

/// Snapshots that are sent at a time. Each keeps storage from using the space of what is deleted.
const SNAPSHOTS_MAX: usize = 8;
/// Pieces of a snapshot between the disk and the connection.
const PIECES_MAX: usize = 8;
/// How long a client may take nothing of a snapshot.
const STALL_MAX: Duration = Duration::from_secs(60);

pub(super) struct Service {
    local: Local,
    defragmenting: Arc<Mutex<()>>,
    snapshots: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        let snapshots = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
        Service { local, defragmenting: Arc::default(), snapshots }
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.local.status();
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push(KvError::NoLeader.message().to_owned());
        }
        errors.extend(self.local.store().alarms().iter().map(text));
        errors.extend(self.local.full_disk().map(str::to_owned));
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

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let AlarmRequest { action, member_id, alarm } = request.into_inner();
        let request = kv::AlarmRequest {
            action: kv::AlarmAction::from(action),
            member: member_id,
            alarm: AlarmType::from(alarm),
        };
        let raises = request.action == kv::AlarmAction::Activate;
        match self.local.propose(&Command::Alarm(request)).await? {
            kv::Response::Alarm(answer) => {
                if raises {
                    for alarm in &answer.alarms {
                        tracing::warn!(alarm = text(alarm), "an alarm was raised by request");
                    }
                }
                let member = |alarm: &kv::Alarm| AlarmMember {
                    member_id: alarm.member,
                    alarm: i32::from(alarm.alarm),
                };
                Ok(Response::new(AlarmResponse {
                    header: Some(self.local.header(answer.revision)),
                    alarms: answer.alarms.iter().map(member).collect(),
                }))
            }
            other => Err(mismatched("an alarm", &other)),
        }
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        // They would wait for each other on threads that others need, and go on when their caller is
        // gone.
        let turn = Arc::clone(&self.defragmenting).lock_owned().await;
        let local = self.local.clone();
        let defragmented = tokio::spawn(async move {
            let _turn = turn;
            let _counted = local.tally().defragmenting();
            let before = local.status().db_bytes;
            tracing::info!(db_bytes = before, "defragmenting");
            let outcome = local.node().defragment().await;
            tracing::info!(db_bytes = local.status().db_bytes, before, "defragmented");
            outcome
        });
        match defragmented.await {
            Ok(outcome) => outcome.map_err(|error| failed("defragmentation", &error))?,
            Err(_) => return Err(status::of_kv(KvError::Stopped)),
        }
        // etcd's has no header.
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let answer = self.local.read(kv::Store::hash).await?;
        let header = Some(self.local.header(answer.revision));
        Ok(Response::new(HashResponse { header, hash: answer.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let revision = request.get_ref().revision;
        let answer = self.local.read(move |store| store.hash_kv(revision)).await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.local.header(answer.revision)),
            hash: answer.hash,
            compact_revision: answer.compact_revision,
            hash_revision: answer.hash_revision,
        }))
    }

    type SnapshotStream = Streamed<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let wants_leader = wants_leader(request.metadata().as_ref());
        let place = Arc::clone(&self.snapshots)
            .try_acquire_owned()
            .map_err(|_| status::of_kv(KvError::RequestTooManyRequests))?;
        // What the state holds is flushed first, and that would wait for space.
        if let Some(full) = self.local.full_disk() {
            return Err(without_space(full));
        }
        // Who goes away meanwhile leaves his place only when the work is done.
        let local = self.local.clone();
        let begun = tokio::spawn(async move { (local.node().save().await, place) });
        let begun = tokio::select! {
            begun = begun => begun,
            full = self.local.disk_filling() => return Err(without_space(full)),
        };
        let (saving, place) = begun.map_err(|_| status::of_kv(KvError::Stopped))?;
        let saving = saving.map_err(|error| failed("a snapshot", &error))?;
        let (pieces, end, outgoing) = Ended::channel(PIECES_MAX);
        let (local, runtime) = (self.local.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            // Whoever has gone hears no end either.
            let _ = end.send(send(saving, &pieces, &local, &runtime, wants_leader));
            drop(place);
        });
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        move_leader(&self.local, request.into_inner()).await.map(Response::new)
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let DowngradeRequest { action, version } = request.into_inner();
        let refusal = match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => downgrade_refusal(&version),
            Ok(DowngradeAction::Cancel) => KvError::NoInflightDowngrade,
            Err(_) => KvError::UnknownMethod,
        };
        self.local.read_barrier().await?;
        Err(status::of_kv(refusal))
    }
}

/// Why the cluster cannot go back to a version: there is no older format of its storage that it could
/// write.
fn downgrade_refusal(version: &str) -> KvError {
    let parts: Vec<&str> = version.strip_prefix('v').unwrap_or(version).split('.').collect();
    let are_numbers = parts
        .iter()
        .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u32>().is_ok());
    match (2..=3).contains(&parts.len()) && are_numbers {
        true => KvError::InvalidDowngradeTargetVersion,
        false => KvError::WrongDowngradeVersionFormat,
    }
}

/// Sends a snapshot piece by piece, as fast as the client takes it.
///
/// # Errors
///
/// What the client hears when it does not get all of it.
fn send(
    mut saving: Saving,
    pieces: &mpsc::Sender<SnapshotResponse>,
    local: &Local,
    runtime: &Handle,
    wants_leader: bool,
) -> Result<(), Status> {
    let begun = Instant::now();
    let mut leaderless = pin!(leaderless(local));
    loop {
        let piece = match saving.next_piece() {
            Ok(Some(piece)) => SnapshotResponse {
                header: None,
                remaining_bytes: piece.remaining_bytes,
                blob: piece.bytes,
                version: CLUSTER_VERSION.to_owned(),
            },
            Ok(None) => {
                local.tally().snapshot.observe(begun.elapsed());
                return Ok(());
            }
            Err(error) => {
                tracing::error!(%error, "a snapshot could not be read");
                return Err(status::of_kv(KvError::Corrupt));
            }
        };
        // A client that takes nothing must not hold the state of that moment for ever.
        let sent = runtime.block_on(async {
            tokio::select! {
                sent = tokio::time::timeout(STALL_MAX, pieces.send(piece)) => match sent {
                    Ok(Ok(())) => Ok(()),
                    // It has gone, or may as well have.
                    Ok(Err(_)) | Err(_) => Err(KvError::Timeout),
                },
                () = local.stopping() => Err(KvError::Stopped),
                () = &mut leaderless, if wants_leader => Err(KvError::NoLeader),
            }
        });
        sent.map_err(status::of_kv)?;
    }
}

/// What a client hears of a failure that has no word of etcd's.
fn failed(what: &str, error: &MaintenanceError) -> Status {
    tracing::error!(%error, "{what} failed");
    match error {
        MaintenanceError::Stopped => status::of_kv(KvError::Stopped),
        MaintenanceError::Disk(_) => Status::resource_exhausted(format!("{what} failed: {error}")),
        _ => status::of_kv(KvError::Corrupt),
    }
}

/// Why there is no snapshot now.
fn without_space(full: &str) -> Status {
    Status::resource_exhausted(format!("a snapshot failed: {full}"))
}

/// As etcd writes one in a status, down to the space at its end.
fn text(alarm: &kv::Alarm) -> String {
    let kind = match alarm.alarm {
        AlarmType::NoSpace => "alarm:NOSPACE ".to_owned(),
        AlarmType::Corrupt => "alarm:CORRUPT ".to_owned(),
        AlarmType::None => String::new(),
        AlarmType::Unknown(number) => format!("alarm:{number} "),
    };
    match alarm.member {
        0 => kind,
        member => format!("memberID:{member} {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_written_as_etcd_writes_them() {
        for (member, alarm, want) in [
            (123, AlarmType::NoSpace, "memberID:123 alarm:NOSPACE "),
            (u64::MAX, AlarmType::Corrupt, "memberID:18446744073709551615 alarm:CORRUPT "),
            (0, AlarmType::Corrupt, "alarm:CORRUPT "),
        ] {
            assert_eq!(text(&kv::Alarm { member, alarm }), want);
        }
    }

    #[test]
    fn versions_to_go_back_to_are_two_or_three_numbers() {
        use KvError::{
            InvalidDowngradeTargetVersion as Invalid, WrongDowngradeVersionFormat as Wrong,
        };
        for (version, want) in [
            ("3.5", Invalid),
            ("3.5.0", Invalid),
            ("3.7.1", Invalid),
            ("0.0", Invalid),
            ("", Wrong),
            ("3", Wrong),
            ("3.", Wrong),
            (".5", Wrong),
            ("3.5.0.1", Wrong),
            ("3.x", Wrong),
            ("3.-5", Wrong),
            ("3.+5", Wrong),
            ("three", Wrong),
            ("3.99999999999", Wrong),
        ] {
            assert_eq!(downgrade_refusal(version), want, "{version:?}");
        }
    }
}
