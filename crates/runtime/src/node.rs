//! A handle to one running node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::BytesMut;
use quorate_kv::{Command, KvError, Member, MemberChange, Response, Store};
use quorate_net::{HttpConnection, Net};
use quorate_replica::{Engine, Fatal, ReadFailure, Refusal, RequestId, RequestIds, seal};
use quorate_types::{Index, Life, NodeId, Term};
use quorate_wal::WalError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::board::Board;
use crate::drive::Call;
use crate::machine::StateFile;
use crate::metrics::Metrics;
use crate::revisions::Revisions;
use crate::waiters::Waiters;

/// Wait before a change of members is asked for again that found another under way.
const CHANGE_AGAIN: Duration = Duration::from_millis(20);

/// How one node is set up.
#[derive(Debug)]
pub struct NodeConfig {
    /// Who this is; never the id of another node, past ones included.
    pub node: NodeId,
    /// The cluster it belongs to.
    pub cluster: u64,
    /// What orders the cluster's commands; the same at all members, and for as long as it lives.
    pub engine: Engine,
    /// Where its log and state live. Created if it is missing, for its owner only.
    pub data_dir: PathBuf,
    /// The members of a new cluster, this node among them. Ignored where data is present.
    pub members: Vec<Member>,
    /// Whether those are the members of a cluster that runs already, which this node was added to: it
    /// begins with nothing, and gets the state from the leader. Ignored where data is present.
    pub joins: bool,
    /// Whether to go on as the only member of a cluster whose others are lost, with all that this
    /// node's log and state hold. What the others alone had is gone, and they must never come back.
    pub force_new_cluster: bool,
    /// Where peers connect.
    pub peer_listeners: Vec<TcpListener>,
    /// Who answers HTTP requests on the peer port; without it they are refused.
    pub peer_http: Option<mpsc::Sender<HttpConnection>>,
    /// Heartbeat interval, which is also the tick.
    pub heartbeat_ms: u64,
    /// Election timeout; at least twice the heartbeat interval.
    pub election_ms: u64,
    /// State is flushed, and the log compacted, every so many applied entries.
    pub snapshot_count: u64,
    /// The longest command.
    pub request_bytes_max: u64,
    /// Memory for pages of stored values.
    pub cache_bytes: usize,
    /// Requests that wait for their answer, over which further ones are refused as busy.
    pub requests_max: usize,
    /// Who follow what is applied at one time, over which further ones are refused as busy.
    pub followers_max: usize,
    /// Connections of peers at one time.
    pub peer_connections_max: usize,
    /// Connections to the peer port at one time by who has not said who it is.
    pub peer_strangers_max: usize,
}

impl NodeConfig {
    /// A node with etcd's default times and limits.
    pub fn new(node: NodeId, cluster: u64, data_dir: PathBuf) -> Self {
        NodeConfig {
            node,
            cluster,
            engine: Engine::Raft,
            data_dir,
            members: Vec::new(),
            joins: false,
            force_new_cluster: false,
            peer_listeners: Vec::new(),
            peer_http: None,
            heartbeat_ms: 100,
            election_ms: 1000,
            snapshot_count: 10_000,
            request_bytes_max: 1536 * 1024,
            cache_bytes: 64 << 20,
            requests_max: 20_000,
            followers_max: 64,
            peer_connections_max: 256,
            peer_strangers_max: 64,
        }
    }
}

/// One running node. Cheap to clone; the node runs until [`Node::shutdown`].
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) life: Life,
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) board: Arc<Board>,
    pub(crate) store: Arc<Store>,
    pub(crate) state_file: Arc<StateFile>,
    /// The directory's lock, for who is about to write in it.
    pub(crate) lock: Weak<File>,
    pub(crate) engine: Engine,
    pub(crate) revisions: Arc<Revisions>,
    /// One permit for each that may follow what is applied.
    pub(crate) followers: Arc<Semaphore>,
    pub(crate) waiters: Arc<Waiters<Answer>>,
    pub(crate) ids: Mutex<RequestIds>,
    pub(crate) net: Net,
    pub(crate) stopped: watch::Receiver<Option<String>>,
    pub(crate) threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    pub(crate) request_bytes_max: u64,
    pub(crate) request_timeout: Duration,
    pub(crate) election_timeout: Duration,
}

/// What ends a proposal's wait.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The machine applied it.
    Applied(Result<Response, KvError>),
    /// It will never be applied.
    Refused(Refusal),
    /// It is a change of members, and those only a leader judges.
    NotLeader,
}

/// What is known of a cluster by its leader, before it proposes a change of its members: the list as
/// the change would find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The leader.
    pub leader: NodeId,
    /// The members, by id.
    pub members: Vec<Member>,
    /// How far each member's log is known to match the leader's, its own included.
    pub matched: BTreeMap<NodeId, Index>,
    /// The term of the entry there, of those whose entry the leader still has.
    pub matched_terms: BTreeMap<NodeId, Term>,
    /// Who is being sent the state itself.
    pub receiving: BTreeSet<NodeId>,
    /// For how long each other member has been connected; without those that are not.
    pub connected: BTreeMap<NodeId, Duration>,
    /// How long ago a message came from each other member; without those from whom none did.
    pub heard: BTreeMap<NodeId, Duration>,
    /// The entry that made the membership what it is, or a later one. As long as this node runs, two
    /// that are equal stand for the same membership.
    pub membership_index: Index,
    /// Whether the engine goes by these members alone: no change is about to be applied, or half made.
    pub is_settled: bool,
    /// The end of the leader's log.
    pub last_index: Index,
    /// The term of the entry there.
    pub last_term: Term,
}

/// Decides about a change of members, by how things stand. It may be asked more than once.
pub(crate) type Judge = Arc<dyn Fn(&Standing) -> Result<MemberChange, KvError> + Send + Sync>;

/// A picture of a node, taken a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who it is.
    pub node: NodeId,
    /// The cluster it belongs to.
    pub cluster: u64,
    /// Whom it believes to lead.
    pub leader: Option<NodeId>,
    /// Whether it leads, as far as it knows.
    pub is_leader: bool,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Its term.
    pub term: Term,
    /// Highest index it knows to be committed.
    pub commit: Index,
    /// Highest index its machine has applied.
    pub applied: Index,
    /// Bytes its state takes on disk.
    pub db_bytes: u64,
    /// Bytes of those that hold something.
    pub db_in_use_bytes: u64,
}

/// Why a proposal has no answer of the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// It was not taken and never will be: safe to try again.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is for the leader to take, and this node is not it: it was not taken.
    #[error("this node does not lead")]
    NotLeader,
    /// The disk has no space left: it was not taken. Reads go on.
    #[error("no space left on the disk; free some and try again")]
    DiskFull,
    /// Its fate is unknown: it may still be applied, at most once.
    #[error("no answer in time; the request may or may not take effect")]
    Timeout,
    /// The node is stopping; the fate of the request is unknown.
    #[error("the node is stopping")]
    Stopped,
}

/// Why a read was not confirmed. Reads have no effect: safe to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// See [`ReadFailure`].
    #[error(transparent)]
    Failed(#[from] ReadFailure),
    /// No leader confirmed it in time.
    #[error("no leader confirmed the read in time")]
    Timeout,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// What an operator hears when the log is not the one by which the cluster knows the member.
pub(crate) const OTHER_LIFE: &str = "member has already been bootstrapped: the cluster knows it by \
    data that is not in its directory, and what it acknowledged may be lost with that. Put back the \
    directory as it was when the member last ran; an older copy or an empty one will not do. The \
    other members go on while they are a majority";

/// What an operator hears of a member that was removed.
pub(crate) const REMOVED: &str = "this member was removed from the cluster and takes no part in it any \
    more, under this id never again. To bring it back, add it as a new member (`member add`) and start \
    it with an empty data directory and --initial-cluster-state existing";

/// Why a node broke. It takes part in nothing any more; its data is as safe as its disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FatalError {
    /// The log refuses further writes.
    #[error("the log failed: {0}")]
    Log(#[from] WalError),
    /// The engine found its own storage contradicting itself.
    #[error("the replica stopped: {0}")]
    Replica(#[from] Fatal),
    /// The machine failed.
    #[error("the state machine failed: {0}")]
    Machine(String),
    /// The cluster knows this member by another log.
    #[error("{OTHER_LIFE}{}", peer.map(|peer| format!(" (so says member {peer:x})")).unwrap_or_default())]
    OtherLife {
        /// The peer that said so; nothing when this node's own state does.
        peer: Option<NodeId>,
    },
    /// This member was removed.
    #[error("{REMOVED}{}", peer.map(|peer| format!(" (so says member {peer:x})")).unwrap_or_default())]
    Removed {
        /// The peer that said so; nothing when this node's own state does.
        peer: Option<NodeId>,
    },
    /// A thread is gone.
    #[error("{0}")]
    Thread(&'static str),
}

impl Node {
    /// Asks for a command and waits until this node's machine has applied it.
    ///
    /// # Errors
    ///
    /// The outer error says whether the command was refused (safe to try again) or its fate is
    /// unknown. The inner one is the machine's answer.
    pub async fn propose(
        &self,
        command: &Command,
    ) -> Result<Result<Response, KvError>, ProposeError> {
        let inner = &*self.inner;
        let request = self.draw();
        let mut entry =
            BytesMut::with_capacity(quorate_replica::ENVELOPE_BYTES + command.encoded_len());
        seal(request, &mut entry);
        command.encode(&mut entry);
        let bytes = (entry.len() - quorate_replica::ENVELOPE_BYTES) as u64;
        if inner.request_bytes_max < bytes {
            let bytes_max = inner.request_bytes_max;
            return Err(Refusal::TooLarge { bytes, bytes_max }.into());
        }
        let metrics = &inner.board.metrics;
        if metrics.disk_full.value() != 0 || metrics.state_full.value() != 0 {
            return Err(ProposeError::DiskFull);
        }
        if metrics.disk_out_of_files.value() != 0 {
            return Err(Refusal::Busy.into());
        }
        let call = Call::Propose { request, entry: entry.freeze() };
        self.in_time(self.answer(request, call)).await
    }

    /// Asks for a change of the members, if this node leads: `judge` says which, or why not, by how
    /// things then stand. Waits until this node's machine has applied it, and answers the members
    /// after it. A change that finds another one under way waits for its end.
    ///
    /// # Errors
    ///
    /// As [`Node::propose`]; [`ProposeError::NotLeader`] when this node does not lead.
    pub async fn change_members(
        &self,
        judge: impl Fn(&Standing) -> Result<MemberChange, KvError> + Send + Sync + 'static,
    ) -> Result<Result<Vec<Member>, KvError>, ProposeError> {
        let judge: Judge = Arc::new(judge);
        let changed = async {
            loop {
                let request = self.draw();
                let call = Call::Change { request, judge: Arc::clone(&judge) };
                match self.answer(request, call).await {
                    // Nothing was changed, so things may stand otherwise in a moment.
                    Err(ProposeError::Refused(Refusal::Change)) => {
                        tokio::time::sleep(CHANGE_AGAIN).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        Ok(match self.in_time(changed).await? {
            Ok(Response::Members(members)) => Ok(members),
            Ok(_) => Ok(self.inner.store.members()),
            Err(refused) => Err(refused),
        })
    }

    /// How things stand, if this node leads, as far as it knows; nothing if it does not.
    ///
    /// # Errors
    ///
    /// When the node is stopping, or is too busy to say.
    pub async fn standing(&self) -> Result<Option<Standing>, ProposeError> {
        let asked = async {
            let (answer, standing) = oneshot::channel();
            let calls = &self.inner.calls;
            calls.send(Call::Standing(answer)).await.map_err(|_| ProposeError::Stopped)?;
            standing.await.map_err(|_| ProposeError::Stopped)
        };
        tokio::time::timeout(self.inner.request_timeout, asked)
            .await
            .unwrap_or(Err(ProposeError::Timeout))
    }

    fn draw(&self) -> RequestId {
        self.inner.ids.lock().unwrap_or_else(PoisonError::into_inner).draw()
    }

    /// Makes a call and waits for its answer, however long that takes.
    async fn answer(
        &self,
        request: RequestId,
        call: Call,
    ) -> Result<Result<Response, KvError>, ProposeError> {
        let inner = &*self.inner;
        let Some(answer) = inner.waiters.wait(request) else {
            return Err(Refusal::Busy.into());
        };
        // The waiter goes however this ends: answered, out of time, or the caller gone.
        let _forget = Forget { waiters: &inner.waiters, request };
        inner.calls.send(call).await.map_err(|_| ProposeError::Stopped)?;
        match answer.await {
            Ok(Answer::Applied(result)) => Ok(result),
            Ok(Answer::Refused(refusal)) => Err(refusal.into()),
            Ok(Answer::NotLeader) => Err(ProposeError::NotLeader),
            Err(_) => Err(ProposeError::Stopped),
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, ProposeError>>,
    ) -> Result<T, ProposeError> {
        let outcome = tokio::time::timeout(self.inner.request_timeout, work).await;
        outcome.unwrap_or_else(|_| {
            self.inner.board.metrics.unknown.add(1);
            Err(ProposeError::Timeout)
        })
    }

    /// Waits until this node's state holds everything that was answered before the call: after it,
    /// what [`Node::store`] answers is linearizable.
    ///
    /// It costs a share of one round of heartbeats and no disk write.
    ///
    /// # Errors
    ///
    /// When no leader confirmed it in time, or the leader changed meanwhile. Safe to try again.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let inner = &*self.inner;
        tokio::time::timeout(inner.request_timeout, async {
            let (answer, confirmed) = oneshot::channel();
            inner.calls.send(Call::Read(answer)).await.map_err(|_| ReadError::Stopped)?;
            match confirmed.await {
                Ok(outcome) => Ok(outcome?),
                Err(_) => Err(ReadError::Stopped),
            }
        })
        .await
        .unwrap_or(Err(ReadError::Timeout))
    }

    /// The machine's state, as of what is applied here.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.inner.store)
    }

    /// The life of its log, which it tells the cluster when it publishes itself.
    pub fn life(&self) -> Life {
        self.inner.life
    }

    /// A picture of the node.
    pub fn status(&self) -> NodeStatus {
        self.inner.board.status()
    }

    /// Whether it has no vote, as in its status.
    pub fn is_learner(&self) -> bool {
        self.inner.board.is_learner()
    }

    /// Whether it has had a vote since it started, be it one that was taken since.
    pub fn has_voted(&self) -> bool {
        self.inner.board.has_voted()
    }

    /// Its figures.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.inner.board.metrics)
    }

    /// Its connections to peers.
    pub fn peers(&self) -> Vec<quorate_net::PeerStatus> {
        self.inner.net.peers()
    }

    /// How many requests wait for their answer.
    pub fn waiting(&self) -> usize {
        self.inner.waiters.count()
    }

    /// The longest command, in bytes.
    pub fn request_bytes_max(&self) -> u64 {
        self.inner.request_bytes_max
    }

    /// Follows how far the log is applied: it changes after the state did. What changes faster than
    /// it is looked at is seen once.
    pub fn applied(&self) -> watch::Receiver<Index> {
        self.inner.board.applied()
    }

    /// Asks the leader, if this node is it, to hand over to `target`.
    ///
    /// # Errors
    ///
    /// When the node is stopping.
    pub async fn transfer(&self, target: NodeId) -> Result<(), ProposeError> {
        self.inner.calls.send(Call::Transfer(target)).await.map_err(|_| ProposeError::Stopped)
    }

    /// Follows who leads, as far as this node knows; [`NodeId::NONE`] for nobody.
    pub fn leader(&self) -> watch::Receiver<NodeId> {
        self.inner.board.leader()
    }

    /// Waits until the node has stopped by itself, which it does only when it broke; says why.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.inner.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the node has stopped".to_owned(),
        }
    }

    /// Stops the node: leadership is handed over if others can take it, state is flushed, threads
    /// end. Whoever still waits learns that the node is stopping.
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        if self.status().is_leader {
            let me = self.status().node;
            let mut leader = inner.board.leader();
            let _ = inner.calls.send(Call::HandOver).await;
            let handed_over = leader.wait_for(|leader| *leader != me && !leader.is_none());
            let _ = tokio::time::timeout(inner.election_timeout, handed_over).await;
        }
        let _ = inner.calls.send(Call::Stop).await;
        let threads =
            std::mem::take(&mut *inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
        inner.waiters.close();
    }
}

/// Takes a waiter away when the caller's future ends or is dropped.
struct Forget<'a> {
    waiters: &'a Waiters<Answer>,
    request: quorate_replica::RequestId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiters.forget(self.request);
    }
}
