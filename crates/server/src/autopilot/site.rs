//! What autopilot needs of the member it runs on, and of the cluster: everything is answered from one
//! picture of how things stand, which the node's loop takes from what it knows already. No member is
//! asked anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_autopilot::adapter::{
    CoreChange, CoreMembership, Stalls, Transfer, admits, node_id, server_id, stats_of_leader,
    stats_of_peer,
};
use quorate_autopilot::{
    Action, Answer, ApplicationIntegration, Config, Lack, NodeStatus, Raft, RaftConfiguration,
    RaftError, RaftRole, Server, ServerId, ServerStats, Span, State, Time, TimeProvider,
};
use quorate_kv::{KvError, Member, MemberChange};
use quorate_runtime::{ProposeError, Standing, TokioHost};
use quorate_types::{Index, NodeId};

use super::span;
use crate::local::Local;
use crate::membership::{Rules, lack};

/// What the addresses of one member are joined by.
const BETWEEN_URLS: char = ',';
/// Of the protocol between members: the reference's number for one that knows ids beside addresses.
const RAFT_VERSION: i64 = 3;
/// How often a transfer, or the end of a change, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// This member while it leads.
#[derive(Clone)]
pub(super) struct Site {
    local: Local,
    /// How things stood when autopilot last asked.
    seen: Arc<Mutex<Arc<Standing>>>,
    /// Who has stored nothing for how long.
    stalls: Arc<Mutex<Stalls>>,
    clock: TokioHost,
    /// Members that are being removed.
    removing: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Since when members are looked at.
    since: Instant,
    /// When the last state was made, and how many there were.
    notified: Arc<Mutex<Option<(Instant, u64)>>>,
}

impl Site {
    pub(super) fn new(local: Local) -> Site {
        let (seen, stalls, clock) = (Arc::default(), Arc::default(), TokioHost::current());
        let (removing, notified) = (Arc::default(), Arc::default());
        Site { local, seen, stalls, clock, removing, since: Instant::now(), notified }
    }

    pub(super) fn notified(&self) -> Option<(Instant, u64)> {
        *lock(&self.notified)
    }

    fn seen(&self) -> Arc<Standing> {
        Arc::clone(&lock(&self.seen))
    }

    /// Whether a member's vote could be taken now.
    ///
    /// # Errors
    ///
    /// Why not; one that is not there cannot lose anything, and one without a vote succeeds.
    pub(super) async fn judge_demotion(&self, id: &ServerId) -> Result<(), RaftError> {
        let standing = self.look().await?;
        if !standing.members.iter().any(|member| server_id(NodeId(member.id)) == *id) {
            return Err(RaftError::UnknownServer(id.clone()));
        }
        let action = Action::DemoteVoter { id: id.clone() };
        plan(&self.local.membership_rules(), &standing, &action).map(drop)
    }

    async fn look(&self) -> Result<Arc<Standing>, RaftError> {
        let standing = self.local.node().standing().await;
        let standing = standing.map_err(|error| self.failed(&error))?;
        let standing = Arc::new(standing.ok_or_else(|| self.not_leader())?);
        let matched = standing.matched.iter().filter(|(id, _)| **id != standing.leader);
        let matched = matched.map(|(id, index)| (*id, *index));
        lock(&self.stalls).look(self.clock.now(), standing.last_index, matched);
        *lock(&self.seen) = Arc::clone(&standing);
        Ok(standing)
    }

    /// Makes one change, if the members are still those of `prev_index`, and the change is allowed by
    /// how things stand when it is proposed.
    pub(super) async fn change(
        &self,
        action: Action,
        prev_index: Index,
    ) -> Result<Index, RaftError> {
        let rules = self.local.membership_rules();
        let promoted = match &action {
            Action::AddVoter { id, .. } | Action::ReplaceVoter { promoted: id, .. } => node_id(id),
            _ => None,
        };
        // Before it is: an operator may ask for the same the moment it is so.
        if let Some(id) = promoted {
            self.local.pilot().promoted(id);
        }
        let outcome = self
            .change_if(move |standing| {
                admits(standing.membership_index, prev_index)?;
                plan(&rules, standing, &action)
            })
            .await;
        let may_come = matches!(outcome, Ok(_) | Err(RaftError::Unknown | RaftError::Timeout(_)));
        if let Some(id) = promoted.filter(|_| !may_come) {
            self.local.pilot().not_promoted(id);
        }
        outcome
    }

    /// `judge` says which change, or none if things are as they should be.
    async fn change_if(
        &self,
        judge: impl Fn(&Standing) -> Result<Option<MemberChange>, RaftError> + Send + Sync + 'static,
    ) -> Result<Index, RaftError> {
        let verdict: Arc<Mutex<Option<Result<Index, RaftError>>>> = Arc::default();
        let told = Arc::clone(&verdict);
        let changed = self.local.node().change_members(move |standing| match judge(standing) {
            Ok(Some(change)) => Ok(change),
            Ok(None) => {
                *lock(&told) = Some(Ok(standing.membership_index));
                Err(KvError::Unhealthy)
            }
            Err(why) => {
                *lock(&told) = Some(Err(why));
                Err(KvError::Unhealthy)
            }
        });
        let members = match changed.await {
            Ok(Ok(members)) => members,
            Ok(Err(refused)) => {
                let verdict = lock(&verdict).take();
                return verdict.unwrap_or_else(|| Err(in_words(refused)));
            }
            Err(error) => return Err(self.failed(&error)),
        };
        // Where the change stands in the log. If something came after it, the members are not those that
        // the next change was decided on, and an index of before says so.
        let until = Instant::now() + self.local.election_timeout();
        loop {
            let standing = self.look().await?;
            if standing.is_settled && roster(&standing.members) == roster(&members) {
                return Ok(standing.membership_index);
            }
            if until <= Instant::now() {
                return Ok(Index(1));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn transfer(&self, id: &ServerId) -> Result<(), RaftError> {
        let (clock, standing) = (TokioHost::current(), self.look().await?);
        let timeout = span(self.local.election_timeout());
        let transfer = Transfer::begin(clock.now(), &membership(&standing), id, timeout)?;
        let mut leader = self.local.node().leader();
        let asked = self.local.node().transfer(transfer.to()).await;
        asked.map_err(|error| self.failed(&error))?;
        loop {
            let known = leader.borrow_and_update().known();
            if let Some(outcome) = transfer.outcome(clock.now(), known, standing.leader) {
                return outcome;
            }
            let _ = tokio::time::timeout(LOOK_EVERY, leader.changed()).await;
        }
    }

    /// How long a member must be silent until it counts as failed: as long as it takes to be stable. One
    /// that is only restarted is unhealthy meanwhile, and keeps its place.
    fn silence(&self) -> Silence {
        let settings = self.local.autopilot_settings().unwrap_or_default();
        let stable = u64::try_from(settings.config.server_stabilization_time.0).unwrap_or(0);
        Silence {
            least: self.local.election_timeout().max(Duration::from_nanos(stable)),
            looked_for: self.since.elapsed(),
        }
    }

    /// Removes a member that is still failed when its removal is proposed.
    async fn remove_failed(&self, id: NodeId, prev_index: Index) -> Result<Index, RaftError> {
        let (rules, silence) = (self.local.membership_rules(), self.silence());
        self.change_if(move |standing| {
            admits(standing.membership_index, prev_index)?;
            let member = standing.members.iter().find(|member| member.id == id.0);
            let is_failed =
                |member: &&Member| node_status(standing, member, silence) == NodeStatus::Failed;
            if member.is_some() && member.filter(is_failed).is_none() {
                return Err(RaftError::Refused(format!("{id:x} is back")));
            }
            plan(&rules, standing, &Action::RemoveServer { id: server_id(id) })
        })
        .await
    }

    fn not_leader(&self) -> RaftError {
        RaftError::NotLeader { leader: self.local.leader().map(server_id) }
    }

    fn failed(&self, error: &ProposeError) -> RaftError {
        match error {
            ProposeError::NotLeader => self.not_leader(),
            ProposeError::Timeout => RaftError::Timeout(span(self.local.request_timeout())),
            ProposeError::Stopped => RaftError::Unknown,
            ProposeError::Refused(_) => RaftError::ProposalDropped,
            error => RaftError::Refused(error.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The members as the engine of autopilot wants them.
fn membership(standing: &Standing) -> CoreMembership {
    let of = |is_learner: bool| {
        let members = standing.members.iter();
        members
            .filter(move |member| member.is_learner == is_learner)
            .map(|member| NodeId(member.id))
    };
    let addresses = standing.members.iter().map(|member| (NodeId(member.id), address(member)));
    CoreMembership {
        voters: of(false).collect(),
        voters_outgoing: BTreeSet::new(),
        learners: of(true).collect(),
        addresses: addresses.collect(),
        index: standing.membership_index,
        leader: Some(standing.leader),
    }
}

fn address(member: &Member) -> String {
    member.peer_urls.join(&BETWEEN_URLS.to_string())
}

/// Who is in and who votes.
fn roster(members: &[Member]) -> BTreeMap<u64, (bool, &[String])> {
    let rows = members.iter();
    rows.map(|member| (member.id, (member.is_learner, &member.peer_urls[..]))).collect()
}

/// The change that an action takes, judged by the rules of everybody's changes.
fn plan(
    rules: &Rules,
    standing: &Standing,
    action: &Action,
) -> Result<Option<MemberChange>, RaftError> {
    let membership = membership(standing);
    let Some(change) = membership.plan(action)? else { return Ok(None) };
    let urls = |address: &str| address.split(BETWEEN_URLS).map(str::to_owned).collect();
    let is_there = |id: &NodeId| standing.members.iter().any(|member| member.id == id.0);
    let change = match change {
        CoreChange::AddNode { id, .. } if is_there(&id) => MemberChange::Promote(id.0),
        CoreChange::AddLearner { id, .. } if is_there(&id) => MemberChange::Demote(id.0),
        CoreChange::AddNode { id, address } => {
            MemberChange::Add(Member { id: id.0, peer_urls: urls(&address), ..Member::default() })
        }
        CoreChange::AddLearner { id, address } => MemberChange::Add(Member {
            id: id.0,
            peer_urls: urls(&address),
            is_learner: true,
            ..Member::default()
        }),
        CoreChange::UpdateNode { id, address } => {
            MemberChange::UpdatePeerUrls { id: id.0, peer_urls: urls(&address) }
        }
        CoreChange::RemoveNode { id } => MemberChange::Remove(id.0),
        CoreChange::Replace { demoted, promoted, .. } => {
            MemberChange::Replace { demoted: demoted.0, promoted: promoted.0 }
        }
    };
    rules.judge_change(&change, standing).map_err(in_words)?;
    Ok(Some(change))
}

fn in_words(refused: KvError) -> RaftError {
    let text = refused.message();
    RaftError::Refused(text.strip_prefix("etcdserver: ").unwrap_or(text).to_owned())
}

/// When a silent member counts as failed.
#[derive(Clone, Copy, Debug)]
struct Silence {
    least: Duration,
    /// Nobody is silent for longer: what was heard under an earlier leader says nothing of now.
    looked_for: Duration,
}

/// Whether a member's process runs, as far as the leader can tell: it was not silent for long, or a
/// connection to it stands. Of one that has never published itself nothing is known: it may have been
/// added a moment ago.
fn node_status(standing: &Standing, member: &Member, silence: Silence) -> NodeStatus {
    let id = NodeId(member.id);
    if id == standing.leader {
        return NodeStatus::Alive;
    }
    let heard = standing.heard.get(&id).copied().unwrap_or(Duration::MAX);
    let is_heard = heard.min(silence.looked_for) <= silence.least;
    match (member.name.is_empty(), is_heard || standing.connected.contains_key(&id)) {
        (true, _) => NodeStatus::Unknown,
        (false, true) => NodeStatus::Alive,
        (false, false) => NodeStatus::Failed,
    }
}

/// The leader knows how far everybody is.
fn stats(standing: &Standing, stalls: &Stalls) -> BTreeMap<ServerId, ServerStats> {
    let now = Time::from_unix(0, 0);
    let members = standing.members.iter().map(|member| NodeId(member.id));
    members
        .filter_map(|id| {
            let matched = *standing.matched.get(&id)?;
            let heard_at = standing.heard.get(&id).map(|ago| now.plus(Span(-span(*ago).0)));
            let stats = match id == standing.leader {
                true => stats_of_leader(standing.last_index, standing.last_term),
                false => {
                    let term = standing.matched_terms.get(&id).copied();
                    stalls.weigh(id, stats_of_peer(now, matched, term, heard_at))
                }
            };
            Some((server_id(id), stats))
        })
        .collect()
}

/// The learners that nobody may promote yet.
fn lacking(standing: &Standing) -> BTreeMap<ServerId, Lack> {
    let learners = standing.members.iter().filter(|member| member.is_learner);
    let ids = learners.map(|member| NodeId(member.id));
    ids.filter_map(|id| Some((server_id(id), lack(id, standing)?))).collect()
}

type Changing<'a> = Answer<'a, Result<Index, RaftError>>;

/// The members know no deadlines but those of a request.
impl Raft for Site {
    fn add_nonvoter(&self, id: &ServerId, address: &str, prev: Index, _: Span) -> Changing<'_> {
        let action = Action::AddNonvoter { id: id.clone(), address: address.to_owned() };
        Box::pin(self.change(action, prev))
    }

    fn add_voter(&self, id: &ServerId, address: &str, prev: Index, _: Span) -> Changing<'_> {
        let action = Action::AddVoter { id: id.clone(), address: address.to_owned() };
        Box::pin(self.change(action, prev))
    }

    fn demote_voter(&self, id: &ServerId, prev: Index, _: Span) -> Changing<'_> {
        Box::pin(self.change(Action::DemoteVoter { id: id.clone() }, prev))
    }

    fn remove_server(&self, id: &ServerId, prev: Index, _: Span) -> Changing<'_> {
        Box::pin(self.change(Action::RemoveServer { id: id.clone() }, prev))
    }

    fn get_configuration(&self) -> Answer<'_, Result<RaftConfiguration, RaftError>> {
        Box::pin(async { Ok(membership(&*self.look().await?).configuration()) })
    }

    fn last_index(&self) -> Index {
        self.seen().last_index
    }

    fn leader(&self) -> String {
        let seen = self.seen();
        let leads = |member: &&Member| NodeId(member.id) == seen.leader;
        seen.members.iter().find(leads).map(address).unwrap_or_default()
    }

    fn state(&self) -> RaftRole {
        match self.local.leads() {
            Some(_) => RaftRole::Leader,
            None => RaftRole::Follower,
        }
    }

    fn stats(&self) -> BTreeMap<String, String> {
        [("last_log_term".to_owned(), self.seen().last_term.0.to_string())].into()
    }

    fn leadership_transfer_to_server(
        &self,
        id: &ServerId,
        _address: &str,
    ) -> Answer<'_, Result<(), RaftError>> {
        let id = id.clone();
        Box::pin(async move { self.transfer(&id).await })
    }

    fn can_replace_voters(&self) -> bool {
        true
    }

    fn replace_voter(
        &self,
        demoted: &ServerId,
        promoted: &ServerId,
        address: &str,
        prev: Index,
        _: Span,
    ) -> Changing<'_> {
        let (demoted, promoted) = (demoted.clone(), promoted.clone());
        let address = address.to_owned();
        Box::pin(self.change(Action::ReplaceVoter { demoted, promoted, address }, prev))
    }

    fn receiving_snapshot(&self) -> BTreeSet<ServerId> {
        self.seen().receiving.iter().copied().map(server_id).collect()
    }

    fn lacking(&self) -> BTreeMap<ServerId, Lack> {
        lacking(&self.seen())
    }
}

impl ApplicationIntegration for Site {
    fn autopilot_config(&self) -> Option<Config> {
        match self.local.autopilot_settings() {
            Ok(settings) => {
                // A member counts as well for as long as it would not stand for election itself.
                let election = span(self.local.election_timeout());
                let config = settings.config();
                let last_contact_threshold = config.last_contact_threshold.max(election);
                Some(Config { last_contact_threshold, ..config })
            }
            Err(error) => {
                self.local.pilot().telling().cannot_read(&error);
                None
            }
        }
    }

    fn known_servers(&self) -> BTreeMap<ServerId, Server> {
        let (seen, silence) = (self.seen(), self.silence());
        let server = |member: &Member| Server {
            id: server_id(NodeId(member.id)),
            name: member.name.clone(),
            address: address(member),
            node_status: node_status(&seen, member, silence),
            version: member.version.clone(),
            meta: Some(member.tags.clone()),
            raft_version: RAFT_VERSION,
            is_leader: NodeId(member.id) == seen.leader,
            ..Server::default()
        };
        let servers = seen.members.iter().map(server);
        servers.map(|server| (server.id.clone(), server)).collect()
    }

    fn fetch_server_stats(
        &self,
        _deadline: Span,
        servers: BTreeMap<ServerId, Server>,
    ) -> Answer<'_, BTreeMap<ServerId, ServerStats>> {
        let mut stats = stats(&self.seen(), &lock(&self.stalls));
        stats.retain(|id, _| servers.contains_key(id));
        Box::pin(std::future::ready(stats))
    }

    fn notify_state(&self, _state: &Arc<State>) {
        let mut notified = lock(&self.notified);
        let count = notified.map_or(0, |(_, count)| count);
        *notified = Some((Instant::now(), count + 1));
    }

    fn remove_failed_server(&self, server: &Server) {
        let Some(id) = node_id(&server.id) else { return };
        if !lock(&self.removing).insert(id) {
            return;
        }
        let (site, prev_index) = (self.clone(), self.seen().membership_index);
        tokio::spawn(async move {
            let outcome = site.remove_failed(id, prev_index).await;
            site.local.pilot().telling().removed(id, &outcome);
            lock(&site.removing).remove(&id);
        });
    }
}

#[cfg(test)]
mod tests;
