//! Which changes of the members may be made, and who makes them: the leader, by how things stand when
//! it proposes them. Other members pass them on to it, at its peer port.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate_autopilot::Lack;
use quorate_kv::{KvError, Member, MemberChange};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_runtime::{Engine, ProposeError, Standing};
use quorate_types::{Index, NodeId};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::convert;
use crate::local::Local;
use crate::status;
use crate::way::Way;

/// How long a member must have been connected until it is counted on. etcd's `HealthInterval`.
const HEALTHY_AFTER_MAX: Duration = Duration::from_secs(5);
/// The same in election timeouts, where those are shorter than usual.
const HEALTHY_AFTER_ELECTIONS: u32 = 5;
/// Of the leader's log, in percent, what a learner must have to be promoted. etcd's `readyPercent`.
const READY_PERCENT: u64 = 90;
/// To whoever asks for other members. It is final: nobody tries it again.
const MEMBERS_ARE_FIXED: &str = "etcdserver: the members of a cluster with the ZAB engine are fixed: those \
                                 of --initial-cluster, as long as it lives";
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A new member.
    Add {
        /// Its id, if this member is the one to judge.
        id: NodeId,
        peer_urls: Vec<String>,
        is_learner: bool,
    },
    /// One goes.
    Remove(u64),
    /// One moves.
    Update { id: u64, peer_urls: Vec<String> },
    /// A learner gets a vote.
    Promote(u64),
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Changed {
    /// The members after the change, by id.
    pub(crate) members: Vec<pb::Member>,
    /// Which of them is new.
    pub(crate) added: Option<u64>,
}

/// Settings that changes are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether a change is refused that may cost the quorum.
    pub(crate) is_strict: bool,
    /// Learners at one time.
    pub(crate) learners_max: usize,
    /// How long a member must have been connected until it is counted on.
    pub(crate) healthy_after: Duration,
}

impl Rules {
    pub(crate) fn new(is_strict: bool, learners_max: usize, election: Duration) -> Rules {
        let healthy_after = HEALTHY_AFTER_MAX.min(HEALTHY_AFTER_ELECTIONS * election);
        Rules { is_strict, learners_max, healthy_after }
    }

    /// Whether a change may be made, in etcd's words. What is wrong with the request itself is told
    /// before what is wrong with the cluster.
    pub(crate) fn judge(&self, ask: &Ask, standing: &Standing) -> Result<MemberChange, KvError> {
        match ask {
            Ask::Add { id, peer_urls, is_learner } => {
                let member = Member {
                    id: id.0,
                    peer_urls: peer_urls.clone(),
                    is_learner: *is_learner,
                    ..Member::default()
                };
                self.judge_add(&member, standing)?;
                Ok(MemberChange::Add(member))
            }
            Ask::Remove(id) => self.judge_remove(*id, standing).map(|()| MemberChange::Remove(*id)),
            Ask::Update { id, peer_urls } => {
                let (id, peer_urls) = (*id, peer_urls.clone());
                Ok(MemberChange::UpdatePeerUrls { id, peer_urls })
            }
            Ask::Promote(id) => {
                self.judge_promote(*id, standing).map(|()| MemberChange::Promote(*id))
            }
        }
    }

    /// Whether autopilot may make a change that its own rules allow: by the rules of everybody's.
    pub(crate) fn judge_change(
        &self,
        change: &MemberChange,
        standing: &Standing,
    ) -> Result<(), KvError> {
        match change {
            MemberChange::Add(member) => self.judge_add(member, standing),
            MemberChange::Promote(id) => self.judge_promote(*id, standing),
            // The others have to do without its vote, whether it stays or not.
            MemberChange::Remove(id) | MemberChange::Demote(id) => self.judge_remove(*id, standing),
            MemberChange::Replace { demoted, promoted } => {
                self.judge_replace(*demoted, *promoted, standing)
            }
            MemberChange::UpdatePeerUrls { .. } => Ok(()),
            // Nobody has thought about it yet.
            _ => Err(KvError::Unhealthy),
        }
    }

    fn judge_add(&self, member: &Member, standing: &Standing) -> Result<(), KvError> {
        let taken: BTreeSet<&String> =
            standing.members.iter().flat_map(|member| &member.peer_urls).collect();
        if member.peer_urls.iter().any(|url| taken.contains(url)) {
            return Err(KvError::PeerURLExist);
        }
        let learners = standing.members.iter().filter(|member| member.is_learner).count();
        if member.is_learner && self.learners_max <= learners {
            return Err(KvError::TooManyLearners);
        }
        if !self.is_strict {
            return Ok(());
        }
        let voters = self.voters(standing);
        // The new one does not run yet. One member alone has to begin somehow.
        let quorum = match (member.is_learner, voters.len()) {
            (true, count) => majority(count),
            (false, 1) => 1,
            (false, count) => majority(count + 1),
        };
        if !member.is_learner && started(&voters) < quorum {
            return Err(KvError::MemberNotEnoughStarted);
        }
        if healthy(&voters) < quorum { Err(KvError::Unhealthy) } else { Ok(()) }
    }

    fn judge_remove(&self, id: u64, standing: &Standing) -> Result<(), KvError> {
        let gone = find(standing, id)?;
        if gone.is_learner {
            return Ok(());
        }
        let voters = self.voters(standing);
        let rest: Vec<Voter> = voters.into_iter().filter(|voter| voter.id != id).collect();
        let quorum = majority(rest.len());
        // Nobody can take the last vote away.
        if rest.is_empty() || self.is_strict && started(&rest) < quorum {
            return Err(KvError::MemberNotEnoughStarted);
        }
        // Without one that is down there is no less than there was.
        let is_up = NodeId(id) == standing.leader || standing.connected.contains_key(&NodeId(id));
        if self.is_strict && is_up && healthy(&rest) < quorum {
            return Err(KvError::Unhealthy);
        }
        Ok(())
    }

    /// As a promotion and a demotion, but for the one number of voters; and the voters of before have to
    /// agree as well.
    fn judge_replace(
        &self,
        demoted: u64,
        promoted: u64,
        standing: &Standing,
    ) -> Result<(), KvError> {
        self.judge_ready(promoted, standing)?;
        if find(standing, demoted)?.is_learner || NodeId(demoted) == standing.leader {
            return Err(KvError::MemberNotEnoughStarted);
        }
        let voters = self.voters(standing);
        let quorum = majority(voters.len());
        let enough_before = quorum <= healthy(&voters);
        let rest: Vec<Voter> = voters.into_iter().filter(|voter| voter.id != demoted).collect();
        let is_up = usize::from(standing.connected.contains_key(&NodeId(promoted)));
        // Whatever is set, a joint change that cannot be agreed on would stop everything.
        match enough_before && quorum <= healthy(&rest) + is_up {
            true => Ok(()),
            false => Err(KvError::Unhealthy),
        }
    }

    /// Whether a learner has enough of the log to vote.
    fn judge_ready(&self, id: u64, standing: &Standing) -> Result<(), KvError> {
        if !find(standing, id)?.is_learner {
            return Err(KvError::MemberNotLearner);
        }
        lack(NodeId(id), standing).map_or(Ok(()), |_| Err(KvError::LearnerNotReady))
    }

    fn judge_promote(&self, id: u64, standing: &Standing) -> Result<(), KvError> {
        self.judge_ready(id, standing)?;
        if !self.is_strict {
            return Ok(());
        }
        let voters = self.voters(standing);
        let quorum = majority(voters.len() + 1);
        if started(&voters) + 1 < quorum {
            return Err(KvError::MemberNotEnoughStarted);
        }
        let is_up = usize::from(standing.connected.contains_key(&NodeId(id)));
        if healthy(&voters) + is_up < quorum { Err(KvError::Unhealthy) } else { Ok(()) }
    }

    fn voters(&self, standing: &Standing) -> Vec<Voter> {
        let connected = |id| standing.connected.get(&id).copied().unwrap_or_default();
        let voters = standing.members.iter().filter(|member| !member.is_learner);
        voters
            .map(|member| Voter {
                id: member.id,
                is_started: !member.name.is_empty(),
                is_healthy: NodeId(member.id) == standing.leader
                    || (standing.connected.contains_key(&NodeId(member.id))
                        && self.healthy_after <= connected(NodeId(member.id))),
            })
            .collect()
    }
}

struct Voter {
    id: u64,
    /// It has published itself.
    is_started: bool,
    /// It is the leader, or has been connected to it for long enough.
    is_healthy: bool,
}

fn majority(count: usize) -> usize {
    count / 2 + 1
}

fn started(voters: &[Voter]) -> usize {
    voters.iter().filter(|voter| voter.is_started).count()
}

fn healthy(voters: &[Voter]) -> usize {
    voters.iter().filter(|voter| voter.is_healthy).count()
}

/// What is missing of the log at a member, if that is too much for a vote.
pub(crate) fn lack(id: NodeId, standing: &Standing) -> Option<Lack> {
    let matched = |id| standing.matched.get(&id).copied().unwrap_or_default();
    let (has, leaders) = (matched(id), matched(standing.leader));
    let least = Index(leaders.0.saturating_mul(READY_PERCENT).div_ceil(100).max(1));
    (has < least).then_some(Lack { has, least })
}

fn find(standing: &Standing, id: u64) -> Result<&Member, KvError> {
    standing.members.iter().find(|member| member.id == id).ok_or(KvError::MemberNotFound)
}

impl Local {
    /// Has the members changed, here or at the leader, and waits until this member knows.
    pub(crate) async fn change_members(
        &self,
        ask: Ask,
        is_passed_on: bool,
    ) -> Result<Changed, Status> {
        if self.engine() == Engine::Zab {
            return Err(Status::unimplemented(MEMBERS_ARE_FIXED));
        }
        let start = Instant::now();
        let changed = async {
            loop {
                let (rules, asked) = (self.membership_rules(), ask.clone());
                let judge = move |standing: &Standing| rules.judge(&asked, standing);
                match self.node().change_members(judge).await {
                    Ok(Ok(members)) => {
                        let added = match &ask {
                            Ask::Add { id, .. } => Some(id.0),
                            _ => None,
                        };
                        let members = members.into_iter().map(convert::member).collect();
                        return Ok(Changed { members, added });
                    }
                    // Autopilot was quicker: what is asked for has been done.
                    Ok(Err(KvError::MemberNotLearner)) if self.has_promoted(&ask) => {
                        let members = self.store().members();
                        let members = members.into_iter().map(convert::member).collect();
                        return Ok(Changed { members, added: None });
                    }
                    Ok(Err(refused)) => return Err(status::of_kv(refused)),
                    Err(ProposeError::NotLeader) if is_passed_on => {
                        return Err(status::of_kv(KvError::NotLeader));
                    }
                    Err(ProposeError::NotLeader) => {}
                    Err(error) => return Err(status::of_propose(&error, self.timeout(start))),
                }
                match self.pass_on(&ask).await {
                    // It was not taken.
                    Err(error) if error.message() == KvError::NotLeader.message() => {
                        self.before_asking_again().await;
                    }
                    Err(error) => return Err(error),
                    Ok(changed) => {
                        // So that the next call finds it here. One that was removed never will.
                        let known = self.read_barrier();
                        let _ = tokio::time::timeout(2 * self.election_timeout(), known).await;
                        return Ok(changed);
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(self.request_timeout(), changed).await;
        in_time.unwrap_or_else(|_| Err(status::of_kv(self.timeout(start))))
    }

    /// Whether a promotion is one that this member's autopilot has made already.
    fn has_promoted(&self, ask: &Ask) -> bool {
        matches!(ask, Ask::Promote(id) if self.pilot().has_promoted(*id))
    }

    /// Asks the leader. [`KvError::NotLeader`] says that nobody has taken the change.
    async fn pass_on(&self, ask: &Ask) -> Result<Changed, Status> {
        let not_taken = || status::of_kv(KvError::NotLeader);
        if self.leader() == Some(self.status().node) {
            return Err(not_taken());
        }
        // Not one of before: what was asked over a way that is lost may have been done.
        let Ok(way) = self.new_way_to_leader().await else { return Err(not_taken()) };
        ask_members(&way, ask).await.map_err(in_etcds_words)
    }
}

/// Has the members changed by the leader.
async fn ask_members(way: &Way, ask: &Ask) -> Result<Changed, Status> {
    let mut client = ClusterClient::new(way.channel());
    let members = match ask.clone() {
        Ask::Add { peer_urls, is_learner, .. } => {
            let request = pb::MemberAddRequest { peer_urls, is_learner };
            let answer = client.member_add(way.call(request)).await?.into_inner();
            let added = answer.member.map(|member| member.id);
            return Ok(Changed { members: answer.members, added });
        }
        Ask::Remove(id) => {
            let request = pb::MemberRemoveRequest { id };
            client.member_remove(way.call(request)).await?.into_inner().members
        }
        Ask::Update { id, peer_urls } => {
            let request = pb::MemberUpdateRequest { id, peer_urls };
            client.member_update(way.call(request)).await?.into_inner().members
        }
        Ask::Promote(id) => {
            let request = pb::MemberPromoteRequest { id };
            client.member_promote(way.call(request)).await?.into_inner().members
        }
    };
    Ok(Changed { members, added: None })
}

/// A client of what a member serves on its peer port.
pub(crate) async fn peer_client(url: &str) -> Result<ClusterClient<Channel>, String> {
    peer_channel(url).await.map(ClusterClient::new)
}

/// A connection to a member's peer port.
pub(crate) async fn peer_channel(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(CONNECT_MAX)
        .keep_alive_timeout(2 * CONNECT_MAX);
    let connecting = tokio::time::timeout(2 * CONNECT_MAX, endpoint.connect()).await;
    match connecting {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(root_cause(&error)),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An answer of another member. One that is not of the member itself says that the connection was
/// lost, and nobody knows what became of the request.
fn in_etcds_words(error: Status) -> Status {
    if status::is_said(&error) {
        return error;
    }
    status::of_kv(KvError::TimeoutDueToConnectionLost)
}

#[cfg(test)]
mod tests;
