//! Proposals that were passed on to a leader, until what became of them is known.
//!
//! A message to a leader may be lost, and so may the leader. What is passed on says for which term: only
//! the leader of that term appends it, and only while it leads. So once an entry of a later term is
//! committed, all of that term that will ever be committed stands before it. Whatever of a term was not
//! among what was committed until then never will be, and can be proposed again: nothing is done twice.

use std::collections::BTreeMap;

use quorate_raft::Entry;
use quorate_types::{Term, bug};

use crate::RequestId;

/// What of this node other leaders were asked to append.
#[derive(Debug, Default)]
pub(crate) struct PassedOn {
    // The ids of a node grow, so this is the order in which the requests came.
    requests: BTreeMap<RequestId, Passed>,
    /// When what is proposed again was passed on for the first time.
    again: BTreeMap<RequestId, u64>,
}

#[derive(Debug)]
struct Passed {
    term: Term,
    entry: Entry,
    since_ticks: u64,
}

impl PassedOn {
    /// The leader of `term` is asked to append this.
    pub(crate) fn add(&mut self, term: Term, request: RequestId, entry: Entry, now_ticks: u64) {
        let since_ticks = self.again.remove(&request).unwrap_or(now_ticks);
        self.requests.insert(request, Passed { term, entry, since_ticks });
    }

    /// Whether nothing waits: then nothing that is committed needs to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// It is known what becomes of this request. Says whether it was one that was passed on.
    pub(crate) fn remove(&mut self, request: RequestId) -> bool {
        self.requests.remove(&request).is_some()
    }

    /// An entry of `term` is committed, and all before it were looked at: what earlier leaders have not
    /// appended by now comes back, to be proposed again.
    pub(crate) fn take_lost(&mut self, term: Term) -> Vec<(RequestId, Entry)> {
        let is_lost = |passed: &Passed| {
            passed.term < term || (bug!("what-is-under-way-is-called-lost") && passed.term == term)
        };
        let lost = self.requests.iter().filter(|(_, passed)| is_lost(passed));
        let lost: Vec<RequestId> = lost.map(|(request, _)| *request).collect();
        let take = |request: RequestId| {
            let passed = self.requests.remove(&request)?;
            self.again.insert(request, passed.since_ticks);
            Some((request, passed.entry))
        };
        lost.into_iter().filter_map(take).collect()
    }

    /// Forgets whose callers have been told by now that nobody knows: nobody is to see it done after
    /// that.
    pub(crate) fn expire(&mut self, ticks_max: u64, now_ticks: u64) {
        self.requests.retain(|_, passed| now_ticks < passed.since_ticks + ticks_max);
        self.again.retain(|_, since_ticks| now_ticks < *since_ticks + ticks_max);
    }

    /// What was committed was not seen, only what came of it: what became of each is unknown.
    pub(crate) fn forget(&mut self) {
        self.requests.clear();
    }
}
