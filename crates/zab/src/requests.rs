//! The requests of this node that wait for their outcome.
//!
//! ```text
//! asked ──► placed ──► committed ──► applied here: Committed
//!   │          └── leader lost: Unknown
//!   ├── Abort: Refused      ├── Response: Answered
//!   └── leader lost: Unknown
//! ```
//! A request that was sent on is *asked* until its Proposal comes by; one on the leader itself is
//! *placed* at once. Each leaves exactly once. Nothing is ever sent again from here.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::Index;

use crate::{Outcome, ProposalId, Zxid};

#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    /// All that wait, wherever they are.
    known: BTreeSet<u64>,
    asked: BTreeSet<u64>,
    placed: BTreeMap<Index, (u64, Zxid)>,
}

impl Requests {
    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn is_known(&self, id: u64) -> bool {
        self.known.contains(&id)
    }

    /// Where a request stands in the history; nothing while it is only asked.
    pub(crate) fn place_of(&self, id: u64) -> Option<Index> {
        if self.asked.contains(&id) {
            return None;
        }
        self.placed.iter().find(|(_, (placed, _))| *placed == id).map(|(index, _)| *index)
    }

    pub(crate) fn ask(&mut self, id: u64) {
        self.known.insert(id);
        self.asked.insert(id);
    }

    /// A request of this node stands in the history.
    pub(crate) fn place(&mut self, id: u64, index: Index, zxid: Zxid) {
        self.known.insert(id);
        self.asked.remove(&id);
        self.placed.insert(index, (id, zxid));
    }

    /// The Proposal of a request of this node came by. One that is not waited for any more, or
    /// never was, is somebody's mistake and changes nothing.
    pub(crate) fn on_proposal(&mut self, id: u64, index: Index, zxid: Zxid) {
        if self.asked.contains(&id) {
            self.place(id, index, zxid);
        }
    }

    /// Ends a request that was not placed.
    pub(crate) fn end(&mut self, id: u64, outcome: Outcome) -> Option<(ProposalId, Outcome)> {
        let is_asked = self.asked.remove(&id);
        if is_asked {
            self.known.remove(&id);
        }
        is_asked.then_some((ProposalId(id), outcome))
    }

    /// Ends what is applied up to here.
    pub(crate) fn on_applied(&mut self, applied: Index) -> Vec<(ProposalId, Outcome)> {
        let mut answers = Vec::new();
        while let Some(first) = self.placed.first_entry()
            && *first.key() <= applied
        {
            let (index, (id, zxid)) = first.remove_entry();
            self.known.remove(&id);
            answers.push((ProposalId(id), Outcome::Committed { index, zxid }));
        }
        answers
    }

    /// The leader, or this node's leadership, is lost: only what is committed keeps waiting.
    pub(crate) fn lose(&mut self, committed: Index) -> Vec<(ProposalId, Outcome)> {
        let lost = self.placed.split_off(&committed.next());
        let ids = std::mem::take(&mut self.asked).into_iter();
        let ids: Vec<u64> = ids.chain(lost.into_values().map(|(id, _)| id)).collect();
        for id in &ids {
            self.known.remove(id);
        }
        ids.into_iter().map(|id| (ProposalId(id), Outcome::Unknown)).collect()
    }
}
