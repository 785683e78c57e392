//! What other threads may know of the loop: the latest status, refreshed every turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_kv::Store;
use quorate_raft::Role;
use quorate_replica::Replica;
use quorate_types::{Index, NodeId, Term};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::node::NodeStatus;
use crate::progress::Progress;

/// Written by the loop, read by everyone.
pub(crate) struct Board {
    node: NodeId,
    cluster: u64,
    store: Arc<Store>,
    term: AtomicU64,
    commit: AtomicU64,
    is_leader: AtomicBool,
    is_learner: AtomicBool,
    /// Whether it has had a vote since it started.
    has_voted: AtomicBool,
    /// The known leader (0: none), watched by whoever waits for one.
    leader: watch::Sender<NodeId>,
    /// What is applied, watched by whoever follows the state.
    applied_to: watch::Sender<Index>,
    /// What is applied and not yet published here.
    pub(crate) progress: Arc<Progress>,
    /// How often the membership was set, as of the last look at it.
    memberships: AtomicU64,
    pub(crate) metrics: Arc<Metrics>,
}

impl Board {
    pub(crate) fn new(
        node: NodeId,
        cluster: u64,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        progress: Arc<Progress>,
    ) -> Self {
        Board {
            node,
            cluster,
            store,
            term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            is_leader: AtomicBool::new(false),
            is_learner: AtomicBool::new(false),
            has_voted: AtomicBool::new(false),
            leader: watch::Sender::new(NodeId::NONE),
            applied_to: watch::Sender::new(Index(0)),
            memberships: AtomicU64::new(0),
            metrics,
            progress,
        }
    }

    /// Takes the replica's picture.
    pub(crate) fn publish(&self, replica: &Replica) {
        let picture = replica.glance();
        self.term.store(picture.term.0, Ordering::Relaxed);
        self.commit.store(picture.commit.0, Ordering::Relaxed);
        self.is_leader.store(picture.role == Role::Leader, Ordering::Relaxed);
        // Before anybody hears of it who then serves by it.
        if self.memberships.swap(picture.memberships, Ordering::Relaxed) != picture.memberships {
            let members = replica.status().conf_state;
            if members.voters.contains(&self.node) {
                self.has_voted.store(true, Ordering::Relaxed);
            }
            self.is_learner.store(members.learners.contains(&self.node), Ordering::Relaxed);
        }
        self.applied_to.send_if_modified(|known| {
            let changed = *known != picture.applied;
            *known = picture.applied;
            changed
        });
        let leader = picture.leader;
        let changed = self.leader.send_if_modified(|known| {
            let changed = *known != leader;
            *known = leader;
            changed
        });
        if changed {
            self.metrics.leader_changes.add(u64::from(!leader.is_none()));
        }
    }

    pub(crate) fn leader(&self) -> watch::Receiver<NodeId> {
        self.leader.subscribe()
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Index> {
        let applied = self.applied_to.subscribe();
        self.progress.ask();
        applied
    }

    /// Whether anybody follows what is applied.
    pub(crate) fn is_followed(&self) -> bool {
        0 < self.applied_to.receiver_count()
    }

    /// Cheap enough to be asked for every call.
    pub(crate) fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    pub(crate) fn has_voted(&self) -> bool {
        self.has_voted.load(Ordering::Relaxed)
    }

    pub(crate) fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.node,
            cluster: self.cluster,
            leader: self.leader.borrow().known(),
            is_leader: self.is_leader.load(Ordering::Relaxed),
            is_learner: self.is_learner(),
            term: Term(self.term.load(Ordering::Relaxed)),
            commit: Index(self.commit.load(Ordering::Relaxed)),
            applied: self.applied_to.borrow().max(self.progress.through()),
            db_bytes: self.store.size_bytes(),
            db_in_use_bytes: self.store.in_use_bytes(),
        }
    }
}
