//! This member as the services see it: proposals, confirmed reads and headers, with failures
//! already in etcd's words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_kv::{Command, KvError, Response, Store};
use quorate_proto::etcdserverpb::ResponseHeader;
use quorate_runtime::{Engine, Metrics, Node, NodeStatus, PeerStatus, ProposeError};
use quorate_types::{Index, Life, NodeId};
use tokio::sync::watch;
use tonic::Status;

use crate::autopilot::Pilot;
use crate::config::Config;
use crate::grpc::message_bytes_max;
use crate::leadership::Leadership;
use crate::leases::{ASK_AGAIN, Leases};
use crate::long_commands::LongCommands;
use crate::membership::Rules;
use crate::quota::Quota;
use crate::reading::Reading;
use crate::status;
use crate::tally::Tally;
use crate::watching::Watching;
use crate::way::KnownWay;

/// How often to see whether compacted data is gone.
const REMOVED_POLL: Duration = Duration::from_millis(20);

/// How often to see whether a disk is full, for what could not go on.
const FULL_POLL: Duration = Duration::from_millis(100);

/// Streams that depend on a leader end when there was none for so many election timeouts, as in etcd.
const LEADERLESS_ELECTIONS: u32 = 3;

/// A confirmation that takes longer is a slow one. etcd asks again after this.
const SLOW_READ: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Local {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    store: Arc<Store>,
    leadership: Arc<Leadership>,
    /// Whether there was no leader for so long that nobody waits for one any more.
    is_leaderless: watch::Sender<bool>,
    used_bytes: Arc<AtomicU64>,
    quota: Arc<Quota>,
    txn_ops_max: usize,
    quota_bytes_max: Option<u64>,
    look_every: Duration,
    election_timeout: Duration,
    request_timeout: Duration,
    membership_rules: Rules,
    leases: Arc<Leases>,
    known_way: KnownWay,
    watching: Arc<Watching>,
    pilot: Arc<Pilot>,
    engine: Engine,
    stopping: watch::Receiver<bool>,
    reads: Arc<Reads>,
    tally: Arc<Tally>,
    reading: Reading,
    long: LongCommands,
}

/// Reads that went other than they should.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Were confirmed, or not, after more than [`SLOW_READ`].
    pub(crate) slow: AtomicU64,
    /// Were not confirmed.
    pub(crate) failed: AtomicU64,
}

impl Local {
    /// `stopping` becomes true when the server stops.
    pub(crate) fn new(node: Node, config: &Config, stopping: watch::Receiver<bool>) -> Self {
        // As much as a message may have that comes in.
        let watch_bytes_max = message_bytes_max(config.request_bytes_max);
        let inner = Inner {
            leases: Arc::new(Leases::new(node.status().node)),
            known_way: KnownWay::default(),
            watching: Arc::new(Watching::new(node.store(), watch_bytes_max)),
            pilot: Arc::new(Pilot::new(config.autopilot.clone())),
            engine: config.engine,
            stopping,
            reads: Arc::default(),
            tally: Arc::default(),
            reading: Reading::new(
                tokio::runtime::Handle::current().metrics().num_workers(),
                config.answer_bytes_max,
            ),
            long: LongCommands::new(),
            election_timeout: Duration::from_millis(config.election_ms),
            store: node.store(),
            node,
            leadership: Arc::new(Leadership::new(Duration::from_millis(config.election_ms))),
            is_leaderless: watch::Sender::new(false),
            used_bytes: Arc::default(),
            quota: Arc::default(),
            txn_ops_max: config.txn_ops_max,
            quota_bytes_max: config.quota_bytes_max,
            look_every: Duration::from_millis(config.heartbeat_ms),
            request_timeout: Duration::from_millis(5000 + 2 * config.election_ms),
            membership_rules: Rules::new(
                config.is_reconfig_strict,
                config.learners_max,
                Duration::from_millis(config.election_ms),
            ),
        };
        Local { inner: Arc::new(inner) }
    }

    /// Keeps an eye on who leads and on how much the state holds; never returns.
    pub(crate) async fn keep_watch(&self) {
        let leaderless_max = LEADERLESS_ELECTIONS * self.election_timeout();
        let (mut looked, mut unled) = (Instant::now(), Duration::ZERO);
        let mut follow = self.inner.node.leader();
        loop {
            let (leader, now) = (self.leader(), Instant::now());
            self.inner.leadership.look(leader, now);
            // A process that was held up has not looked for a leader all that time.
            let step = now.saturating_duration_since(looked).min(self.election_timeout());
            unled = if leader.is_some() { Duration::ZERO } else { unled + step };
            looked = now;
            let is_leaderless = leaderless_max <= unled;
            self.inner
                .is_leaderless
                .send_if_modified(|known| std::mem::replace(known, is_leaderless) != is_leaderless);
            // What waits for a flush is not in the storage's own count yet.
            let used = self.inner.store.in_use_bytes() + self.inner.store.overlay_bytes() as u64;
            self.inner.used_bytes.store(used, Ordering::Relaxed);
            tokio::select! {
                Ok(()) = follow.changed() => {}
                () = tokio::time::sleep(self.inner.look_every) => {}
            }
        }
    }

    /// The answer of this member's machine to a command, once it has applied it. Long ones wait until there
    /// are few others under way.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Response, Status> {
        let turn = self.inner.long.turn(command.encoded_len(), self.inner.request_timeout);
        let turn = turn.await.map_err(status::of_kv)?;
        let start = Instant::now();
        let outcome = match turn {
            None => self.inner.node.propose(command).await,
            // It is under way until it is done, and has its turn until then, whether or not its caller waits.
            Some(turn) => {
                let (node, command) = (self.inner.node.clone(), command.clone());
                let proposed = tokio::spawn(async move {
                    let _turn = turn;
                    node.propose(&command).await
                });
                proposed.await.unwrap_or(Err(ProposeError::Stopped))
            }
        };
        match outcome {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(status::of_kv(error)),
            Err(error) => Err(status::of_propose(&error, self.inner.leadership.timeout(start))),
        }
    }

    /// After it, what the store answers is linearizable.
    pub(crate) async fn read_barrier(&self) -> Result<(), Status> {
        let start = Instant::now();
        let outcome = self.inner.node.read_barrier().await;
        if SLOW_READ < start.elapsed() {
            self.inner.reads.slow.fetch_add(1, Ordering::Relaxed);
        }
        outcome.map_err(|error| {
            self.inner.reads.failed.fetch_add(1, Ordering::Relaxed);
            status::of_read(&error, self.inner.leadership.timeout(start))
        })
    }

    /// Waits until what a compaction forgot is gone from this member's storage, durably.
    pub(crate) async fn removed(&self, revision: i64) -> Result<(), Status> {
        let gone = async {
            while self.inner.store.removed_revision() < revision {
                tokio::time::sleep(REMOVED_POLL).await;
            }
        };
        // However long that takes: the compaction itself is done.
        tokio::select! {
            () = gone => Ok(()),
            () = self.stopping() => Err(status::of_kv(KvError::Stopped)),
        }
    }

    /// Reads the store on a thread that may take its time: an interval can be long. It waits for one of
    /// those to be free.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = Arc::clone(&self.inner.store);
        match self.inner.reading.on_thread(move || read(&store)).await {
            Ok(answer) => answer.map_err(status::of_kv),
            Err(error) => {
                tracing::error!(%error, "a read did not end");
                Err(status::of_kv(KvError::Stopped))
            }
        }
    }

    /// A header with this revision.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        let status = self.inner.node.status();
        ResponseHeader {
            cluster_id: status.cluster,
            member_id: status.node.0,
            revision,
            raft_term: status.term.0,
        }
    }

    /// Whether it leaves most calls to others, as etcd's learners do: it may be far behind. Whose vote
    /// was taken while it runs is not, and clients know it: it passes on what they ask, as a follower
    /// does, until it ends.
    pub(crate) fn refuses_most(&self) -> bool {
        self.inner.node.is_learner() && !self.inner.node.has_voted()
    }

    /// Refuses what a learner does not serve.
    pub(crate) fn check_serves_all(&self) -> Result<(), Status> {
        if self.refuses_most() {
            return Err(status::of_kv(KvError::NotSupportedForLearner));
        }
        Ok(())
    }

    /// What a request that began at `start` and has no answer is put down to.
    pub(crate) fn timeout(&self, start: Instant) -> KvError {
        self.inner.leadership.timeout(start)
    }

    pub(crate) fn membership_rules(&self) -> Rules {
        self.inner.membership_rules
    }

    pub(crate) fn node(&self) -> &Node {
        &self.inner.node
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(crate) fn life(&self) -> Life {
        self.inner.node.life()
    }

    pub(crate) fn status(&self) -> NodeStatus {
        self.inner.node.status()
    }

    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        self.inner.node.metrics()
    }

    /// What is full, if changes are refused for it.
    pub(crate) fn full_disk(&self) -> Option<&'static str> {
        let metrics = self.metrics();
        if metrics.disk_full.value() != 0 {
            return Some(
                "no space left on the volume of the log: changes are refused until there is",
            );
        }
        let is_full = metrics.state_full.value() != 0;
        is_full.then_some(
            "no space left on the volume of the state: changes are refused until there is",
        )
    }

    /// Waits until a disk is full, and says which.
    pub(crate) async fn disk_filling(&self) -> &'static str {
        loop {
            if let Some(full) = self.full_disk() {
                return full;
            }
            tokio::time::sleep(FULL_POLL).await;
        }
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// What all reads share.
    pub(crate) fn reading(&self) -> &Reading {
        &self.inner.reading
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        self.inner.node.peers()
    }

    /// How many proposals wait for their answer.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.node.waiting()
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.inner.node.status().leader
    }

    /// Who leads, as far as is known; no member while nobody does.
    pub(crate) fn follow_leader(&self) -> watch::Receiver<NodeId> {
        self.inner.node.leader()
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.inner.leases
    }

    pub(crate) fn known_way(&self) -> &KnownWay {
        &self.inner.known_way
    }

    pub(crate) fn watching(&self) -> &Arc<Watching> {
        &self.inner.watching
    }

    pub(crate) fn pilot(&self) -> &Pilot {
        &self.inner.pilot
    }

    pub(crate) fn engine(&self) -> Engine {
        self.inner.engine
    }

    /// Follows what is applied.
    pub(crate) fn applied(&self) -> watch::Receiver<Index> {
        self.inner.node.applied()
    }

    /// Waits until this member has known no leader for so long that streams that depend on one end.
    pub(crate) async fn leaderless(&self) {
        let mut is_leaderless = self.inner.is_leaderless.subscribe();
        let _ = is_leaderless.wait_for(|it| *it).await;
    }

    /// Waits a little before a question for the leader is asked again: if there is none, until there is
    /// one. The caller bounds it.
    pub(crate) async fn before_asking_again(&self) {
        let mut leader = self.inner.node.leader();
        let is_known = *leader.borrow_and_update() != NodeId::NONE;
        // An error is the end of the node.
        if is_known || leader.wait_for(|leader| *leader != NodeId::NONE).await.is_err() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// What comes of `work`, unless it takes longer than a request may.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.request_timeout(), work).await {
            Ok(outcome) => outcome,
            Err(_) if self.leader().is_none() => Err(status::of_kv(KvError::NoLeader)),
            Err(_) => Err(status::of_kv(KvError::Timeout)),
        }
    }

    /// Waits until the server stops.
    pub(crate) async fn stopping(&self) {
        let mut stopping = self.inner.stopping.clone();
        let _ = stopping.wait_for(|stop| *stop).await;
    }

    pub(crate) fn election_timeout(&self) -> Duration {
        self.inner.election_timeout
    }

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        self.inner.look_every
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.request_timeout
    }

    pub(crate) fn txn_ops_max(&self) -> usize {
        self.inner.txn_ops_max
    }

    pub(crate) fn quota_bytes_max(&self) -> Option<u64> {
        self.inner.quota_bytes_max
    }

    /// Bytes the state holds, as of a moment ago.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.inner.used_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn quota(&self) -> &Quota {
        &self.inner.quota
    }
}
