//! The log as it is applied, over gRPC: a service of ours. One task carries a stream, as fast as its
//! client takes it.

use std::time::Duration;

use quorate_kv::KvError;
use quorate_proto::quoratepb::log_server::Log;
use quorate_proto::quoratepb::log_watch_request::From;
use quorate_proto::quoratepb::{LogEntry, LogWatchRequest, LogWatchResponse};
use quorate_runtime::{Engine, FeedError, FollowError, FollowFrom, Followed, Following, Place};
use quorate_types::Index;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tonic::{Request, Response, Status};

use super::ended::Ended;
use super::{Streamed, leaderless, wants_leader};
use crate::in_words::in_words;
use crate::local::Local;
use crate::status;

/// Answers between the log and the connection.
const RESPONSES_MAX: usize = 2;

/// How long a client may take nothing: it has one of few seats.
const STALL_MAX: Duration = Duration::from_secs(60);

pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Service { local }
    }
}

#[tonic::async_trait]
impl Log for Service {
    type WatchStream = Streamed<LogWatchResponse>;

    async fn watch(
        &self,
        request: Request<LogWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let wants_leader = wants_leader(request.metadata().as_ref());
        let from = from(&request.into_inner())?;
        let following = self.local.node().follow(from).await.map_err(of_follow)?;
        let (responses, end, outgoing) = Ended::channel(RESPONSES_MAX);
        let local = self.local.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = carry(&local, following, &responses) => outcome,
                () = responses.closed() => Ok(()),
                () = local.stopping() => Err(status::of_kv(KvError::Stopped)),
                () = leaderless(&local), if wants_leader => Err(status::of_kv(KvError::NoLeader)),
            };
            // Whoever has gone hears no end either.
            let _ = end.send(outcome);
        });
        Ok(Response::new(Box::pin(outgoing)))
    }
}

fn from(request: &LogWatchRequest) -> Result<FollowFrom, Status> {
    Ok(match request.from {
        None => FollowFrom::Now,
        Some(From::Index(0)) => FollowFrom::Oldest,
        Some(From::Index(index)) => FollowFrom::After(Place {
            index: Index(index).prev(),
            stamp: Some(request.previous_stamp).filter(|stamp| *stamp != 0),
        }),
        Some(From::Revision(revision)) if revision <= 0 => {
            return Err(Status::invalid_argument("revisions begin with 1"));
        }
        Some(From::Revision(revision)) => FollowFrom::Revision(revision),
    })
}

/// Tells everything there is, and what comes, until that cannot go on.
async fn carry(
    local: &Local,
    mut following: Following,
    responses: &mpsc::Sender<LogWatchResponse>,
) -> Result<(), Status> {
    let mut entries = Vec::new();
    loop {
        let node = local.status();
        let response = LogWatchResponse {
            cluster_id: node.cluster,
            member_id: node.node.0,
            entries,
            next_index: following.place().index.next().0,
        };
        match responses.send_timeout(response, STALL_MAX).await {
            Ok(()) => {}
            Err(SendTimeoutError::Closed(_)) => return Ok(()),
            Err(SendTimeoutError::Timeout(_)) => {
                return Err(Status::aborted("the client takes nothing"));
            }
        }
        let told = following.next().await.map_err(of_follow)?;
        entries = told.into_iter().map(|entry| log_entry(local.engine(), entry)).collect();
    }
}

fn log_entry(engine: Engine, entry: Followed) -> LogEntry {
    let (kind, what) = in_words(&entry.what);
    LogEntry {
        index: entry.index.0,
        term: entry.era.0,
        stamp: entry.stamp,
        revision: entry.revision.unwrap_or_default(),
        kind: kind.to_owned(),
        what,
        bytes: entry.bytes,
        zab: engine == Engine::Zab,
    }
}

/// `Unavailable` says that it may go on elsewhere; whoever hears `OutOfRange` may find what it wants at
/// another member, too, but not here.
fn of_follow(error: FollowError) -> Status {
    let text = error.to_string();
    match error {
        FollowError::Feed(FeedError::OtherLog { .. }) | FollowError::Unreadable { .. } => {
            Status::data_loss(text)
        }
        FollowError::Feed(_) | FollowError::Forgotten { .. } => Status::out_of_range(text),
        FollowError::Busy => Status::resource_exhausted(text),
        FollowError::Stopped => status::of_kv(KvError::Stopped),
        _ => Status::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_request_says_where_to_begin() {
        let after = |index, stamp| FollowFrom::After(Place { index: Index(index), stamp });
        for (asked, previous_stamp, want) in [
            (None, 0, Some(FollowFrom::Now)),
            (Some(From::Index(0)), 0, Some(FollowFrom::Oldest)),
            (Some(From::Index(1)), 0, Some(after(0, None))),
            (Some(From::Index(8)), 3, Some(after(7, Some(3)))),
            (Some(From::Revision(4)), 0, Some(FollowFrom::Revision(4))),
            (Some(From::Revision(0)), 0, None),
            (Some(From::Revision(-1)), 0, None),
        ] {
            let found = from(&LogWatchRequest { previous_stamp, from: asked });
            assert_eq!(found.ok(), want, "{asked:?}");
        }
    }

    #[test]
    fn each_end_says_what_would_help() {
        let passed_by = FeedError::PassedBy { after: Index(3), first: Index(9) };
        let other = FeedError::OtherLog { index: Index(3), found: 1, wanted: 2 };
        for (error, code) in [
            (passed_by.into(), Code::OutOfRange),
            (other.into(), Code::DataLoss),
            (FollowError::Forgotten { revision: 3, first: 9 }, Code::OutOfRange),
            (FollowError::Busy, Code::ResourceExhausted),
            (FollowError::Stopped, Code::Unavailable),
        ] {
            assert_eq!(of_follow(error.clone()).code(), code, "{error:?}");
        }
    }
}
