//! Elections that the server waits for. Who stands first in the line of a name is elected, and the
//! value of its key is what it proclaims.

use quorate_kv::KvError;
use quorate_proto::v3electionpb::election_server::Election;
use quorate_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Streamed, leaderless, wants_leader};
use crate::line::{Line, Place};
use crate::local::Local;
use crate::{convert, status};

pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Service { local }
    }
}

#[tonic::async_trait]
impl Election for Service {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let CampaignRequest { name, lease, value } = request.into_inner();
        let line = Line::new(&self.local, &name);
        let (place, revision) = line.win(lease, Some(value), KvError::ElectionNotLeader).await?;
        let Place { key, created: rev, lease } = place;
        Ok(Response::new(CampaignResponse {
            header: Some(self.local.header(revision)),
            leader: Some(LeaderKey { name, key, rev, lease }),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let ProclaimRequest { leader, value } = request.into_inner();
        let (name, place) = place(leader)?;
        match Line::new(&self.local, &name).proclaim(&place, value).await? {
            Some(revision) => {
                let header = Some(self.local.header(revision));
                Ok(Response::new(ProclaimResponse { header }))
            }
            None => Err(status::of_kv(KvError::ElectionNotLeader)),
        }
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let line = Line::new(&self.local, &request.into_inner().name);
        match line.leader().await? {
            (Some(pair), revision) => self.local.with_room_now(LeaderResponse {
                header: Some(self.local.header(revision)),
                kv: Some(convert::key_value(pair)),
            }),
            (None, _) => Err(status::of_kv(KvError::ElectionNoLeader)),
        }
    }

    type ObserveStream = Streamed<LeaderResponse>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let wants_leader = wants_leader(request.metadata().as_ref());
        let line = Line::new(&self.local, &request.into_inner().name);
        let (answers, outgoing) = mpsc::channel(1);
        let local = self.local.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = observe(&local, line, &answers) => outcome,
                () = answers.closed() => Ok(()),
                () = leaderless(&local), if wants_leader => Err(status::of_kv(KvError::NoLeader)),
            };
            if let Err(status) = outcome {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (name, place) = place(request.into_inner().leader)?;
        let revision = Line::new(&self.local, &name).resign(&place).await?;
        Ok(Response::new(ResignResponse { header: Some(self.local.header(revision)) }))
    }
}

/// Tells who leads until nobody listens any more.
async fn observe(
    local: &Local,
    line: Line,
    answers: &mpsc::Sender<Result<LeaderResponse, Status>>,
) -> Result<(), Status> {
    let mut leaders = line.leaders().await?;
    loop {
        let (pair, revision) = leaders.next().await?;
        let (header, kv) = (Some(local.header(revision)), Some(convert::key_value(pair)));
        if answers.send(Ok(LeaderResponse { header, kv })).await.is_err() {
            return Ok(());
        }
    }
}

fn place(leader: Option<LeaderKey>) -> Result<(bytes::Bytes, Place), Status> {
    let leader = leader.ok_or_else(|| status::of_kv(KvError::ElectionLeaderMissing))?;
    let LeaderKey { name, key, rev: created, lease } = leader;
    Ok((name, Place { key, created, lease }))
}
