//! The way to the leader, for what only it knows or decides: at its peer port, since what it advertises to clients
//! need not lead there from another member's machine.
//!
//! What stands behind an address may change at any moment, and may be of another cluster then. So whoever answers
//! there has to say who it is before it is asked anything; each call names the member that it is meant for, and
//! nobody else takes it; and a way is forgotten with the first call that it does not carry.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use futures_util::future::select_ok;
use quorate_kv::KvError;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::{MemberListRequest, ResponseHeader};
use quorate_types::NodeId;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::local::Local;
use crate::membership::peer_channel;
use crate::status;

/// Marks a call that a member passes on, and says to whom: whoever gets it answers, or does not lead.
const PASSED_ON: &str = "quorate-passed-on";
/// What builds before this one say instead of a member: they mean whoever gets it.
const TO_ANYBODY: &str = "true";
/// How long whoever answers at a peer URL may take to say who it is.
const INTRODUCTION_MAX: Duration = Duration::from_secs(2);
/// How long a connection to the leader's peer port is kept: that port ends every one after 30 seconds.
const WAY_MAX: Duration = Duration::from_secs(20);

/// The way that was found last. Who has it looks for another one while there is none.
#[derive(Default)]
pub(crate) struct KnownWay(tokio::sync::Mutex<Option<Way>>);

/// A connection to the leader's peer port.
#[derive(Clone)]
pub(crate) struct Way {
    cluster: u64,
    leader: NodeId,
    /// What led there.
    peer_urls: Vec<String>,
    channel: Channel,
    since: Instant,
}

/// Forgets a way when whoever asks over it goes before there is an answer.
struct Unanswered<'a> {
    known: &'a KnownWay,
    /// When it was found, until there is an answer.
    since: Option<Instant>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        // Who has it looks for another one.
        if let (Some(since), Ok(mut way)) = (self.since, self.known.0.try_lock()) {
            way.take_if(|known| known.since == since);
        }
    }
}

impl Way {
    pub(crate) fn leader(&self) -> NodeId {
        self.leader
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A call that nobody takes but this leader, and that is not passed on once more.
    pub(crate) fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(name) = MetadataValue::<Ascii>::try_from(name(self.cluster, self.leader)) {
            request.metadata_mut().insert(PASSED_ON, name);
        }
        request
    }

    /// Whether an answer is this leader's.
    pub(crate) fn check_is_from(&self, header: Option<&ResponseHeader>) -> Result<(), Status> {
        check_is_from(self.cluster, self.leader, header)
    }
}

/// A member among those of all clusters.
fn name(cluster: u64, member: NodeId) -> String {
    format!("{cluster:x}/{:x}", member.0)
}

fn check_is_from(
    cluster: u64,
    member: NodeId,
    header: Option<&ResponseHeader>,
) -> Result<(), Status> {
    match header.is_some_and(|header| (header.cluster_id, header.member_id) == (cluster, member.0))
    {
        true => Ok(()),
        false => Err(Status::unavailable("somebody else answers at a peer URL of that member")),
    }
}

/// Whether another member has passed a call on.
pub(crate) fn is_passed_on(metadata: &MetadataMap) -> bool {
    metadata.contains_key(PASSED_ON)
}

/// Whether another try may find the leader.
pub(crate) fn is_passing(error: &Status) -> bool {
    error.code() == Code::Unavailable || error.message() == KvError::NotLeader.message()
}

impl Local {
    /// Asks the leader something, over a way that is kept for a while as long as it leads there.
    ///
    /// # Errors
    ///
    /// `Unavailable` if there is no way; what `ask` has for an error.
    pub(crate) async fn ask_leader<T>(
        &self,
        ask: impl AsyncFnOnce(&Way) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let way = self.way_to_leader().await?;
        let mut unanswered = Unanswered { known: self.known_way(), since: Some(way.since) };
        let answer = ask(&way).await;
        unanswered.since = None;
        let is_lost = |error: &Status| {
            !status::is_said(error) || error.message() == KvError::NotLeader.message()
        };
        if answer.as_ref().is_err_and(is_lost) {
            self.known_way().0.lock().await.take_if(|known| known.since == way.since);
        }
        answer
    }

    /// The way of before, as long as it may lead there, or a new one.
    async fn way_to_leader(&self) -> Result<Way, Status> {
        let mut way = self.known_way().0.lock().await;
        // Only now: while others looked for one, the leader may have changed.
        let (leader, peer_urls) = self.leaders_urls()?;
        let is_usable = |known: &&Way| {
            known.leader == leader
                && known.peer_urls == peer_urls
                && known.since.elapsed() < WAY_MAX
        };
        if let Some(known) = way.as_ref().filter(is_usable) {
            return Ok(known.clone());
        }
        Ok(way.insert(self.find_way(leader, peer_urls).await?).clone())
    }

    /// A new connection to the leader, which has just said who it is.
    ///
    /// # Errors
    ///
    /// `Unavailable` if there is none: nothing was asked of anybody.
    pub(crate) async fn new_way_to_leader(&self) -> Result<Way, Status> {
        let (leader, peer_urls) = self.leaders_urls()?;
        self.find_way(leader, peer_urls).await
    }

    fn leaders_urls(&self) -> Result<(NodeId, Vec<String>), Status> {
        let no_leader = || status::of_kv(KvError::NoLeader);
        let leader = self.leader().ok_or_else(no_leader)?;
        let mut members = self.store().members().into_iter();
        let peer_urls = members.find(|member| member.id == leader.0).map(|member| member.peer_urls);
        let peer_urls = peer_urls.filter(|urls| !urls.is_empty()).ok_or_else(no_leader)?;
        Ok((leader, peer_urls))
    }

    async fn find_way(&self, leader: NodeId, peer_urls: Vec<String>) -> Result<Way, Status> {
        // Any one will do, and some may lead nowhere from here.
        let all = peer_urls.iter().map(|url| Box::pin(self.reach(leader, url)));
        let (channel, _) = self.while_it_leads(leader, select_ok(all)).await?;
        let (cluster, since) = (self.status().cluster, Instant::now());
        Ok(Way { cluster, leader, peer_urls, channel, since })
    }

    /// Waits no longer than that member leads, as far as is known here.
    ///
    /// # Errors
    ///
    /// `Unavailable` when it leads no more, besides those of `work`: its effects may come all the same.
    pub(crate) async fn while_it_leads<T>(
        &self,
        leader: NodeId,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut known = self.follow_leader();
        tokio::select! {
            biased;
            done = work => done,
            _ = known.wait_for(|known| *known != leader) => {
                Err(Status::unavailable("the member that was asked leads no more"))
            }
        }
    }

    /// Connects to a peer URL of a member, if it is that member's.
    async fn reach(&self, member: NodeId, url: &str) -> Result<Channel, Status> {
        let channel = peer_channel(url).await.map_err(Status::unavailable)?;
        let mut client = ClusterClient::new(channel.clone());
        let introduction = client.member_list(MemberListRequest { linearizable: false });
        match tokio::time::timeout(INTRODUCTION_MAX, introduction).await {
            Ok(answer) => {
                check_is_from(self.status().cluster, member, answer?.get_ref().header.as_ref())?;
                Ok(channel)
            }
            Err(_) => Err(Status::unavailable("it does not say who it is")),
        }
    }

    /// Refuses a call that was passed on to another member than this one, which stood behind this address before, or
    /// will. Nothing has come of it: it may be passed on again.
    pub(crate) fn check_is_meant(&self, headers: &HeaderMap) -> Result<(), Status> {
        let status = self.status();
        let own = name(status.cluster, status.node);
        match headers.get(PASSED_ON) {
            Some(to)
                if to.as_bytes() != own.as_bytes() && to.as_bytes() != TO_ANYBODY.as_bytes() =>
            {
                Err(status::of_kv(KvError::NotLeader))
            }
            _ => Ok(()),
        }
    }
}
