//! Members that are replaced, and leaders that hand over, as an operator would have it.
//!
//! A member is removed, its data is thrown away, and it joins again as a new one under its old name and
//! addresses. What was asked for may happen late or never, so each step looks at what the members are
//! before it asks again.

use std::path::Path;
use std::time::Duration;

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    self as pb, MemberAddRequest, MemberListRequest, MemberRemoveRequest, MoveLeaderRequest,
    StatusRequest,
};
use quorate_proto::tonic::transport::Channel;
use quorate_proto::tonic::{Response, Status};

use crate::cluster::{Cluster, ClusterError, failed};
use crate::disk::BALLAST;

/// What one step may take; more of them come.
const STEP_LIMIT: Duration = Duration::from_millis(800);
/// What it may take to hand over, which is tried but once.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(2500);

/// How far a member is on its way out and in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is to be removed, if it is not yet.
    Leaving,
    /// It is out and has no data.
    Out,
    /// It was added, and has not said yet that it serves.
    Joining,
}

impl Cluster {
    /// Begins to replace a member, unless another one is being replaced.
    pub(crate) fn replace(&mut self, at: usize) -> bool {
        let is_free = !self.is_changing();
        if is_free {
            // It ends by itself as soon as it hears of it.
            self.members[at].change = Some(Change::Leaving);
        }
        is_free
    }

    /// Whether a member is being replaced.
    pub(crate) fn is_changing(&self) -> bool {
        self.members.iter().any(|member| member.change.is_some())
    }

    /// One step of a replacement that is under way.
    pub(crate) async fn change(&mut self) -> Result<(), ClusterError> {
        let Some(at) = self.members.iter().position(|member| member.change.is_some()) else {
            return Ok(());
        };
        let url = self.peer_url(at);
        match self.members[at].change {
            Some(Change::Joining) => {
                let mut client = MaintenanceClient::new(self.members[at].control.clone());
                if in_time(client.status(StatusRequest::default())).await.is_some() {
                    self.members[at].change = None;
                }
            }
            Some(Change::Leaving) => {
                let Some((through, list)) = self.list(at).await else { return Ok(()) };
                match list.iter().find(|member| member.peer_urls == [url.clone()]) {
                    Some(member) => {
                        let request = MemberRemoveRequest { id: member.id };
                        // Whatever is said: the next step sees what came of it.
                        in_time(self.cluster(through).member_remove(request)).await;
                    }
                    None => {
                        self.kill(at);
                        self.wipe(at)?;
                        self.members[at].change = Some(Change::Out);
                    }
                }
            }
            Some(Change::Out) => {
                let Some((through, list)) = self.list(at).await else { return Ok(()) };
                if list.iter().any(|member| member.peer_urls == [url.clone()]) {
                    let name = |member: &pb::Member| {
                        let urls = (0..self.members.len()).map(|at| (at, self.peer_url(at)));
                        let mut urls = urls.filter(|(_, url)| member.peer_urls == [url.clone()]);
                        urls.next().map(|(at, url)| format!("{}={url}", self.members[at].name))
                    };
                    let names: Vec<String> = list.iter().filter_map(name).collect();
                    let member = &mut self.members[at];
                    member.joins = Some(names.join(","));
                    member.change = Some(Change::Joining);
                } else {
                    let request = MemberAddRequest { peer_urls: vec![url], is_learner: false };
                    in_time(self.cluster(through).member_add(request)).await;
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Has a leader hand over to another member; whether it says that it did.
    pub(crate) async fn hand_over(&self, leader: usize, to: usize) -> bool {
        let control = |at: usize| MaintenanceClient::new(self.members[at].control.clone());
        let handed_over = async {
            let status = control(to).status(StatusRequest::default()).await.ok()?;
            let target_id = status.into_inner().header?.member_id;
            control(leader).move_leader(MoveLeaderRequest { target_id }).await.ok()
        };
        matches!(tokio::time::timeout(HAND_OVER_LIMIT, handed_over).await, Ok(Some(_)))
    }

    /// The members as another one than this knows them for certain, and which one that is.
    async fn list(&mut self, not: usize) -> Option<(usize, Vec<pb::Member>)> {
        let count = self.members.len();
        self.asked = (self.asked + 1) % count;
        if self.asked == not {
            self.asked = (self.asked + 1) % count;
        }
        let request = MemberListRequest { linearizable: true };
        let list = in_time(self.cluster(self.asked).member_list(request)).await?;
        Some((self.asked, list.members))
    }

    fn cluster(&self, at: usize) -> ClusterClient<Channel> {
        ClusterClient::new(self.members[at].control.clone())
    }

    /// Throws away what a member knew.
    fn wipe(&self, at: usize) -> Result<(), ClusterError> {
        let folder = self.data_folder(at);
        let wipe = |folder: &Path| {
            for file in std::fs::read_dir(folder)? {
                let path = file?.path();
                match path.is_dir() {
                    true => std::fs::remove_dir_all(path)?,
                    false if path.ends_with(BALLAST) => {}
                    false => std::fs::remove_file(path)?,
                }
            }
            Ok(())
        };
        wipe(&folder).map_err(failed("wipe", &folder))
    }
}

/// An answer, if there is a good one in time.
async fn in_time<T>(asked: impl Future<Output = Result<Response<T>, Status>>) -> Option<T> {
    let answer = tokio::time::timeout(STEP_LIMIT, asked).await.ok()?;
    Some(answer.ok()?.into_inner())
}
