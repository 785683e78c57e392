//! What Raft promises, looked at from outside after every step: what was said is compared with what
//! disks hold, what was committed with what any other node committed, and quorums are counted here
//! once more.

use std::collections::BTreeMap;

use quorate_raft::{Body, ConfState, Entry, Message, RawNode, Ready, Storage, StorageError};
use quorate_types::{Index, NodeId, Term};

use super::replica::Replica;

#[derive(Default)]
pub(super) struct Watcher {
    seed: u64,
    /// The terms of all that anybody has committed: of the entry at index 1 first.
    committed: Vec<Term>,
    /// What anybody has applied.
    pub(super) applied: Vec<(Term, Vec<u8>)>,
    /// Up to where each node's commits were looked at.
    seen: BTreeMap<u64, u64>,
    pub(super) leaders: BTreeMap<Term, u64>,
    /// Whom a node has given its vote in a term.
    votes: BTreeMap<(u64, Term), u64>,
    /// The membership that each applied change leads to.
    memberships: BTreeMap<u64, ConfState>,
    /// For each read asked, the highest index that was committed anywhere.
    reads: BTreeMap<Vec<u8>, u64>,
    pub(super) answered: usize,
}

impl Watcher {
    pub(super) fn new(seed: u64) -> Self {
        Watcher { seed, ..Watcher::default() }
    }

    /// A node says something: what it vouches for is on its disk.
    pub(super) fn on_sent(&mut self, message: &Message, sender: &Replica) {
        let (seed, Message { from, to, term, .. }) = (self.seed, message);
        let stored = sender.hard_state();
        match message.body {
            Body::VoteReply { reject: false } => {
                let voted = *self.votes.entry((from.0, *term)).or_insert(to.0);
                assert_eq!(voted, to.0, "seed {seed}: {from} votes twice at {term}");
                let is_stored = *term < stored.term || (stored.term, stored.vote) == (*term, *to);
                assert!(is_stored, "seed {seed}: {from} votes before its disk: {stored:?}");
            }
            Body::AppendReply { index } => {
                // What it held was good when it said so; in a later term it may be replaced.
                let last = sender.storage.last_index().unwrap();
                let is_stored = *term < stored.term || (stored.term == *term && index <= last);
                assert!(is_stored, "seed {seed}: {from} acknowledges {index} before its disk");
            }
            _ => {}
        }
    }

    pub(super) fn on_read_asked<'a>(
        &mut self,
        context: Vec<u8>,
        nodes: impl Iterator<Item = &'a RawNode<quorate_raft::MemoryStorage>>,
    ) {
        let highest = nodes.map(|node| node.committed().0).max().unwrap_or(0);
        self.reads.insert(context, highest.max(self.committed.len() as u64));
    }

    pub(super) fn on_reads(&mut self, ready: &Ready) {
        for read in &ready.read_states {
            let asked_at = self.reads[&read.request_ctx.to_vec()];
            assert!(asked_at <= read.index.0, "seed {}: stale read {read:?}", self.seed);
            self.answered += 1;
        }
    }

    pub(super) fn on_applied(&mut self, id: u64, entry: &Entry) {
        let seed = self.seed;
        let at = entry.index.0 as usize - 1;
        assert_eq!(
            self.committed.get(at),
            Some(&entry.term),
            "seed {seed}: node {id} applies what nobody committed at {}",
            entry.index
        );
        let what = (entry.term, entry.payload().to_vec());
        match self.applied.get(at) {
            Some(known) => assert_eq!(*known, what, "seed {seed}: node {id} at {}", entry.index),
            None => self.applied.push(what),
        }
    }

    /// A node changed its membership by what it applied at `index`.
    pub(super) fn on_membership(&mut self, id: u64, index: Index, conf_state: &ConfState) {
        let known = self.memberships.entry(index.0).or_insert_with(|| conf_state.clone());
        assert!(
            known.is_equivalent(conf_state),
            "seed {}: node {id} at {index}: {conf_state:?}, not {known:?}",
            self.seed
        );
    }

    /// A node has a snapshot's membership in force.
    pub(super) fn on_installed(&self, id: u64, index: Index, conf_state: &ConfState) {
        if let Some((_, known)) = self.memberships.range(..=index.0).next_back() {
            assert!(
                known.is_equivalent(conf_state),
                "seed {}: node {id} with the snapshot at {index}: {conf_state:?}, not {known:?}",
                self.seed
            );
        }
    }

    /// Something happened to node `id`.
    pub(super) fn on_step(&mut self, id: u64, replicas: &BTreeMap<u64, Replica>) {
        let seed = self.seed;
        let Some(node) = &replicas[&id].node else {
            self.seen.remove(&id);
            return;
        };
        node.check();
        assert_eq!(node.fatal(), None, "seed {seed}: node {id}");
        if node.is_leader() {
            match self.leaders.insert(node.term(), id) {
                Some(known) => {
                    assert_eq!(known, id, "seed {seed}: two leaders at term {}", node.term());
                }
                None => self.on_leader(id, node, replicas),
            }
        }
        self.on_commit(id, node, replicas);
    }

    /// A new leader: a quorum voted for it, and it has all that anybody has committed.
    fn on_leader(
        &self,
        id: u64,
        node: &RawNode<quorate_raft::MemoryStorage>,
        replicas: &BTreeMap<u64, Replica>,
    ) {
        let (seed, term) = (self.seed, node.term());
        let own = replicas[&id].hard_state();
        let has_own = (own.term, own.vote) == (term, NodeId(id));
        assert!(
            has_own || !node.config().lead_after_own_vote,
            "seed {seed}: {id} leads {term} before its own vote is stored"
        );
        let has_voted =
            |voter: NodeId| voter.0 == id || self.votes.get(&(voter.0, term)) == Some(&id);
        assert!(
            is_quorum(&node.conf_state(), has_voted),
            "seed {seed}: {id} leads {term} without a quorum"
        );
        let first = replicas[&id].storage.first_index().unwrap();
        for (index, term) in (1..).map(Index).zip(&self.committed) {
            let has = node.entry_term(index);
            assert!(
                has == Some(*term) || (has.is_none() && index < first),
                "seed {seed}: leader {id} lacks {index}@{term}, has {has:?}"
            );
        }
    }

    /// All that a node takes for committed is what everybody else takes for it, and on the disks of a
    /// quorum when its leader says so.
    fn on_commit(
        &mut self,
        id: u64,
        node: &RawNode<quorate_raft::MemoryStorage>,
        replicas: &BTreeMap<u64, Replica>,
    ) {
        let (seed, committed) = (self.seed, node.committed());
        let seen = self.seen.insert(id, committed.0).unwrap_or(0);
        for index in (seen + 1..=committed.0).map(Index) {
            let known = self.committed.get(index.0 as usize - 1);
            match (node.entry_term(index), known) {
                (Some(term), Some(known)) => {
                    assert_eq!(term, *known, "seed {seed}: node {id} commits another {index}");
                }
                (Some(term), None) => self.committed.push(term),
                (None, known) => {
                    assert!(known.is_some(), "seed {seed}: node {id} compacted {index} too early");
                }
            }
        }
        if seen < committed.0 && node.is_leader() && node.entry_term(committed) == Some(node.term())
        {
            let holds = |voter: NodeId| {
                let term = replicas[&voter.0].storage.term(committed);
                term == Ok(node.term()) || term == Err(StorageError::Compacted)
            };
            assert!(
                is_quorum(&node.conf_state(), holds),
                "seed {seed}: leader {id} commits {committed} without a quorum of disks"
            );
        }
    }

    /// Two logs with the same entry somewhere are the same up to there.
    pub(super) fn on_logs(&self, replicas: &BTreeMap<u64, Replica>) {
        let log = |replica: &Replica| {
            let (first, last) =
                (replica.storage.first_index().unwrap(), replica.storage.last_index().unwrap());
            match first <= last {
                true => replica.storage.entries(first, last.next(), u64::MAX).unwrap().into_vec(),
                false => vec![],
            }
        };
        let logs: Vec<Vec<Entry>> = replicas.values().map(log).collect();
        for one in &logs {
            for other in &logs {
                let at = |log: &[Entry], index: Index| {
                    let first = log.first()?.index;
                    log.get(index.0.checked_sub(first.0)? as usize).cloned()
                };
                let same =
                    |entry: &&Entry| at(other, entry.index).is_some_and(|o| o.id() == entry.id());
                let Some(highest) = one.iter().rev().find(same) else { continue };
                for entry in one.iter().take_while(|entry| entry.index <= highest.index) {
                    if let Some(also) = at(other, entry.index) {
                        assert_eq!(*entry, also, "seed {}: logs differ", self.seed);
                    }
                }
            }
        }
    }

    pub(super) fn committed(&self) -> usize {
        self.committed.len()
    }
}

/// Whether most of each half of the voters do.
fn is_quorum(members: &ConfState, does: impl Fn(NodeId) -> bool) -> bool {
    [&members.voters, &members.voters_outgoing]
        .into_iter()
        .all(|half| half.is_empty() || half.len() < 2 * half.iter().filter(|id| does(**id)).count())
}
