//! Leases as the services see them. Only the leader knows when one ends: it has them end through the
//! log, and the other members ask it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_kv::{Command, KvError, LeaseTimeToLiveResponse, Renewal, Response, Store};
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseTimeToLiveRequest};
use quorate_types::{NodeId, Term};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::local::Local;
use crate::status;
use crate::way::{Way, is_passing};

/// How often expired leases are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Leases that may be on their way out at once.
const EXPIRING_MAX: usize = 100;
/// Wait before a question is asked again whose answer is on its way.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What leases need beside the store.
pub(crate) struct Leases {
    /// Where the time that deadlines count in begins.
    start: Instant,
    /// The next id to give, before it is made positive.
    next_id: AtomicU64,
}

impl Leases {
    pub(crate) fn new(node: NodeId) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = now.as_millis() as u64 & 0xff_ffff_ffff;
        // Unlike those of other members, and of earlier runs of this one.
        let next_id = AtomicU64::new(node.0 << 48 | milliseconds << 8);
        Leases { start: Instant::now(), next_id }
    }

    /// Milliseconds of a clock that never goes back.
    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// An id that no lease has, as far as anyone can know.
    pub(crate) fn free_id(&self) -> i64 {
        loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed) & i64::MAX as u64;
            if id != 0 {
                return id as i64;
            }
        }
    }
}

impl Local {
    /// Has leases end whose time is up, while this member leads; never returns.
    pub(crate) async fn keep_leases(&self) {
        let mut expiring = JoinSet::new();
        let mut noting = JoinSet::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            while expiring.try_join_next().is_some() {}
            while noting.try_join_next().is_some() {}
            let room = EXPIRING_MAX.saturating_sub(expiring.len());
            let commands = match self.look_at_leases(room, noting.is_empty()) {
                Ok(commands) => commands,
                Err(error) => {
                    tracing::error!(%error, "leases do not end any more");
                    return;
                }
            };
            for command in commands {
                let local = self.clone();
                let tasks = match command {
                    Command::LeaseExpire { .. } => &mut expiring,
                    _ => &mut noting,
                };
                // What does not work out is asked for again.
                tasks.spawn(async move { local.propose(&command).await.map(drop) });
            }
        }
    }

    /// What there is to do about leases now.
    fn look_at_leases(
        &self,
        expired_max: usize,
        may_note: bool,
    ) -> Result<Vec<Command>, quorate_kv::StoreError> {
        let (store, now_ms) = (self.store(), self.leases().now_ms());
        let Some(term) = self.leads() else {
            if store.leads_leases().is_some() {
                store.follow_leases()?;
            }
            return Ok(Vec::new());
        };
        let election_ms = self.election_timeout().as_millis() as u64;
        if store.leads_leases() != Some(term) && !store.lead_leases(term, now_ms, election_ms)? {
            return Ok(Vec::new());
        }
        let mut commands = store.leases_expired(now_ms, expired_max)?;
        if may_note {
            commands.extend(store.leases_to_checkpoint(now_ms)?);
        }
        Ok(commands)
    }

    /// The term in which this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> Option<Term> {
        let status = self.status();
        (status.is_leader && status.leader == Some(status.node)).then_some(status.term)
    }

    /// How long a lease is granted for that was asked for `ttl_seconds`: at least so long that a
    /// change of leaders does not use up all of it.
    pub(crate) fn lease_seconds(&self, ttl_seconds: i64) -> i64 {
        let (election, heartbeat) = (self.election_timeout(), self.heartbeat_interval());
        let ticks = election.as_millis() / heartbeat.as_millis().max(1);
        let shortest_ms = (3 * ticks / 2).saturating_mul(heartbeat.as_millis());
        ttl_seconds.max(i64::try_from(shortest_ms.div_ceil(1000)).unwrap_or(i64::MAX)).max(1)
    }

    /// Renews a lease, here or at the leader, and says for how long; 0 if there is no such lease.
    pub(crate) async fn renew_lease(&self, id: i64, is_passed_on: bool) -> Result<i64, Status> {
        let renewed = async {
            loop {
                if let Some(ttl_seconds) = self.renew_here(id).await? {
                    return Ok(ttl_seconds);
                }
                if is_passed_on {
                    return Err(status::of_kv(KvError::NotLeader));
                }
                match self.renew_there(id).await {
                    Err(error) if may_ask_again(&error) => self.before_asking_again().await,
                    outcome => return outcome,
                }
            }
        };
        self.in_time(renewed).await
    }

    /// Renews a lease if this member leads.
    async fn renew_here(&self, id: i64) -> Result<Option<i64>, Status> {
        let mut is_up_to_date = false;
        while let Some(term) = self.leads() {
            match self.store().lease_renew(id, self.leases().now_ms()) {
                Ok(Renewal::Renewed { ttl_seconds }) => {
                    if let Some(ttl_seconds) = self.confirmed(id, term, ttl_seconds).await? {
                        return Ok(Some(ttl_seconds));
                    }
                }
                Ok(Renewal::Expiring) => tokio::time::sleep(ASK_AGAIN).await,
                Ok(Renewal::After(command)) => {
                    self.propose(&command).await?;
                }
                // The grant may be known elsewhere already.
                Err(KvError::LeaseNotFound) if !is_up_to_date => {
                    self.read_barrier().await?;
                    is_up_to_date = true;
                }
                Err(KvError::LeaseNotFound) => return Ok(Some(0)),
                // It has only just been elected.
                Err(KvError::NotPrimaryLessor) => tokio::time::sleep(ASK_AGAIN).await,
                Err(error) => return Err(status::of_kv(error)),
            }
        }
        Ok(None)
    }

    /// What may be told of a renewal that was made in `term`; nothing if this member does not lead in it
    /// any more.
    async fn confirmed(
        &self,
        id: i64,
        term: Term,
        ttl_seconds: i64,
    ) -> Result<Option<i64>, Status> {
        // It may have been deposed without knowing.
        self.read_barrier().await?;
        if self.leads() != Some(term) || self.store().leads_leases() != Some(term) {
            return Ok(None);
        }
        // Its end may have been on its way already, and be known elsewhere.
        match self.store().lease_time_to_live(id, false, self.leases().now_ms()) {
            Ok(left) if left.ttl_seconds < 0 => Ok(Some(0)),
            Ok(_) => {
                self.tally().leases_renewed.fetch_add(1, Ordering::Relaxed);
                Ok(Some(ttl_seconds))
            }
            // It has just been deposed, and cannot say.
            Err(_) => Ok(None),
        }
    }

    async fn renew_there(&self, id: i64) -> Result<i64, Status> {
        let answer = self.ask_leader(async |way| {
            let asked = async {
                let request = way.call(tokio_stream::once(LeaseKeepAliveRequest { id }));
                client(way).lease_keep_alive(request).await?.into_inner().message().await
            };
            // To be renewed twice harms no lease.
            let answer = self.while_it_leads(way.leader(), asked).await?;
            let answer = answer.ok_or_else(|| status::of_kv(KvError::LeaderChanged))?;
            way.check_is_from(answer.header.as_ref()).map(|()| answer.ttl)
        });
        answer.await
    }

    /// How long a lease has to live, by the leader.
    pub(crate) async fn lease_time_to_live(
        &self,
        id: i64,
        wants_keys: bool,
        is_passed_on: bool,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let asked = async {
            loop {
                if let Some(answer) = self.time_to_live_here(id, wants_keys).await? {
                    return Ok(answer);
                }
                if is_passed_on {
                    return Err(status::of_kv(KvError::NotLeader));
                }
                match self.time_to_live_there(id, wants_keys).await {
                    Err(error) if may_ask_again(&error) => self.before_asking_again().await,
                    outcome => return outcome,
                }
            }
        };
        self.in_time(asked).await
    }

    async fn time_to_live_here(
        &self,
        id: i64,
        wants_keys: bool,
    ) -> Result<Option<LeaseTimeToLiveResponse>, Status> {
        while let Some(term) = self.leads() {
            match self.time_to_live_in(term, id, wants_keys).await? {
                Some(answer) => return Ok(Some(answer)),
                None => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
        Ok(None)
    }

    /// How long a lease has to live, by the leader of `term`, which this member is; nothing if it has only just
    /// been elected.
    ///
    /// # Errors
    ///
    /// `LeaderChanged` if it does not lead in that term any more: it may have been renewed elsewhere since.
    async fn time_to_live_in(
        &self,
        term: Term,
        id: i64,
        wants_keys: bool,
    ) -> Result<Option<LeaseTimeToLiveResponse>, Status> {
        self.read_barrier().await?;
        let now_ms = self.leases().now_ms();
        let look = move |store: &Store| Ok(store.lease_time_to_live(id, wants_keys, now_ms));
        // The keys of a lease may be many.
        let answer = match wants_keys {
            true => self.read(look).await?,
            false => self.store().lease_time_to_live(id, wants_keys, now_ms),
        };
        match answer {
            Ok(answer) if self.leads() == Some(term) => Ok(Some(answer)),
            Ok(_) => Err(status::of_kv(KvError::LeaderChanged)),
            Err(KvError::NotPrimaryLessor) => Ok(None),
            Err(error) => Err(status::of_kv(error)),
        }
    }

    async fn time_to_live_there(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let answer = self.ask_leader(async |way| {
            let request = way.call(LeaseTimeToLiveRequest { id, keys });
            let answer = client(way).lease_time_to_live(request).await?.into_inner();
            way.check_is_from(answer.header.as_ref()).map(|()| answer)
        });
        let answer = answer.await?;
        Ok(LeaseTimeToLiveResponse {
            revision: answer.header.map_or(0, |header| header.revision),
            id: answer.id,
            ttl_seconds: answer.ttl,
            granted_seconds: answer.granted_ttl,
            keys: answer.keys,
        })
    }

    /// Grants a lease, under an id of this member's choice if `id` is 0.
    pub(crate) async fn grant_lease(&self, id: i64, ttl_seconds: i64) -> Result<Response, Status> {
        let ttl_seconds = self.lease_seconds(ttl_seconds);
        loop {
            let chosen = if id == 0 { self.leases().free_id() } else { id };
            let command = Command::LeaseGrant { id: chosen, ttl_seconds };
            command.validate(&quorate_kv::Limits::default()).map_err(status::of_kv)?;
            self.check_quota(&command).await?;
            match self.propose(&command).await {
                // Somebody has chosen the same; that says nothing about the next.
                Err(error) if id == 0 && error.message() == KvError::LeaseExist.message() => {}
                outcome => return outcome,
            }
        }
    }
}

fn client(way: &Way) -> LeaseClient<Channel> {
    // The keys of a lease may be many.
    LeaseClient::new(way.channel()).max_decoding_message_size(i32::MAX as usize)
}

/// Whether a question about a lease, which changes nothing if it is asked twice, may find the leader
/// when it is asked again.
fn may_ask_again(error: &Status) -> bool {
    is_passing(error) || !status::is_said(error)
}

#[cfg(test)]
mod tests {
    use quorate_kv::Member;
    use quorate_runtime::{Node, NodeConfig};
    use tokio::sync::watch;

    use super::*;
    use crate::config::Sources;

    /// A member of a cluster of its own, which leads.
    async fn alone(directory: &std::path::Path) -> (Node, Local, Term) {
        let mut sources = Sources::default();
        for (flag, value) in [("heartbeat-interval", "10"), ("election-timeout", "50")] {
            sources.flag(flag, value).unwrap();
        }
        let config = sources.config().unwrap();
        let node = NodeConfig::new(NodeId(1), 7, directory.join("data"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let node = NodeConfig {
            members: vec![Member { id: 1, ..Member::default() }],
            peer_listeners: vec![listener],
            heartbeat_ms: config.heartbeat_ms,
            election_ms: config.election_ms,
            ..node
        };
        let node = Node::start(node).await.unwrap();
        let (_, stopping) = watch::channel(false);
        let local = Local::new(node.clone(), &config, stopping);
        loop {
            local.look_at_leases(0, false).unwrap();
            if let Some(term) = local.store().leads_leases() {
                return (node, local, term);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    #[tokio::test]
    async fn a_renewal_is_not_told_once_its_term_is_over() {
        let directory = tempfile::TempDir::new().unwrap();
        let (node, local, term) = alone(directory.path()).await;
        local.propose(&Command::LeaseGrant { id: 7, ttl_seconds: 60 }).await.unwrap();
        let before = Term(term.0 - 1);
        for (id, term, want) in [(7, term, Some(60)), (8, term, Some(0)), (7, before, None)] {
            assert_eq!(local.confirmed(id, term, 60).await.unwrap(), want, "{id} {term:?}");
        }
        // It knows no more when leases end.
        local.store().follow_leases().unwrap();
        assert_eq!(local.confirmed(7, term, 60).await.unwrap(), None);
        node.shutdown().await;
    }
    #[tokio::test]
    async fn how_long_a_lease_lives_is_not_told_once_the_term_is_over() {
        let directory = tempfile::TempDir::new().unwrap();
        let (node, local, term) = alone(directory.path()).await;
        local.propose(&Command::LeaseGrant { id: 7, ttl_seconds: 60 }).await.unwrap();
        let before = Term(term.0 - 1);
        for wants_keys in [false, true] {
            let answer = local.time_to_live_in(term, 7, wants_keys).await.unwrap().unwrap();
            assert_eq!((answer.id, answer.granted_seconds), (7, 60));
            assert!((0..=60).contains(&answer.ttl_seconds), "{answer:?}");
            let refused = local.time_to_live_in(before, 7, wants_keys).await.unwrap_err();
            assert_eq!(refused.message(), "etcdserver: leader changed");
        }
        // It knows no more when leases end.
        local.store().follow_leases().unwrap();
        assert_eq!(local.time_to_live_in(term, 7, false).await.unwrap(), None);
        node.shutdown().await;
    }
}
