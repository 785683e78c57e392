//! Who is in the cluster. Its headers carry no revision, as etcd's do not.
//!
//! It is served on two ports. On the peer port it is for members and for those that join: they are
//! told what this member knows, and it changes something only if it leads.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_kv::KvError;
use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use tonic::{Request, Response, Status};

use crate::identity::member_id;
use crate::local::Local;
use crate::membership::{Ask, Changed};
use crate::urls::Url;
use crate::{convert, status};

/// URLs of one member, and bytes of one of them. Every member keeps them all, and tells them to everybody.
const URLS_MAX: usize = 100;
const URL_BYTES_MAX: usize = 2048;

pub(crate) struct Service {
    local: Local,
    serves_peers: bool,
}

impl Service {
    /// For clients.
    pub(super) fn new(local: Local) -> Self {
        Service { local, serves_peers: false }
    }

    /// For the peer port.
    pub(crate) fn for_peers(local: Local) -> Self {
        Service { local, serves_peers: true }
    }

    async fn change(&self, ask: Ask) -> Result<(Option<ResponseHeader>, Changed), Status> {
        let changed = self.local.change_members(ask, self.serves_peers).await?;
        Ok((Some(self.local.header(0)), changed))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.local.read_barrier().await?;
        }
        let mut members = self.local.store().members();
        members.sort_unstable_by_key(|member| member.id);
        Ok(Response::new(MemberListResponse {
            header: Some(self.local.header(0)),
            members: members.into_iter().map(convert::member).collect(),
        }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let MemberAddRequest { peer_urls, is_learner } = request.into_inner();
        check_length(&peer_urls)?;
        let urls: Result<Vec<Url>, _> = peer_urls.iter().map(|url| Url::parse(url)).collect();
        let urls = urls.ok().filter(|urls| !urls.is_empty());
        let mut urls = urls.ok_or_else(|| status::of_kv(KvError::MemberBadURLs))?;
        urls.sort_unstable();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = member_id(&urls, &now.as_secs().to_string());
        let peer_urls = urls.iter().map(|url| url.as_str().to_owned()).collect();
        let (header, changed) = self.change(Ask::Add { id, peer_urls, is_learner }).await?;
        let Changed { members, added } = changed;
        let member = members.iter().find(|member| Some(member.id) == added).cloned();
        Ok(Response::new(MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let (header, changed) = self.change(Ask::Remove(request.get_ref().id)).await?;
        Ok(Response::new(MemberRemoveResponse { header, members: changed.members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let MemberUpdateRequest { id, peer_urls } = request.into_inner();
        check_length(&peer_urls)?;
        let (header, changed) = self.change(Ask::Update { id, peer_urls }).await?;
        Ok(Response::new(MemberUpdateResponse { header, members: changed.members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let promoted = self.change(Ask::Promote(request.get_ref().id)).await;
        self.local.tally().on_promotion(promoted.as_ref().err().map(Status::message));
        let (header, changed) = promoted?;
        Ok(Response::new(MemberPromoteResponse { header, members: changed.members }))
    }
}

/// Refuses URLs that are too long, or too many.
fn check_length(urls: &[String]) -> Result<(), Status> {
    let refused = |why: String| {
        let words = KvError::MemberBadURLs.message();
        Err(Status::invalid_argument(format!("{words}: {why}")))
    };
    if URLS_MAX < urls.len() {
        return refused(format!("{} of them, and a member has at most {URLS_MAX}", urls.len()));
    }
    match urls.iter().map(String::len).find(|bytes| URL_BYTES_MAX < *bytes) {
        Some(bytes) => refused(format!("one is {bytes} bytes long, the limit is {URL_BYTES_MAX}")),
        None => Ok(()),
    }
}
