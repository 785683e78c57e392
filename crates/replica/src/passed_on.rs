//! Proposals that were passed on to a leader, until what became of them is known.
//!
//! A message to a leader may be lost, and so may the leader. What is passed on belongs to one *reign*:
//!
//! - *Raft*: a term. Only the leader of that term appends it, and only while it leads. So once an entry of
//!   a later term is committed, all of that term that will ever be committed stands before it.
//! - *ZAB*: one time in which this member followed a leader, or led. Nothing is added to an earlier epoch
//!   once the next one is established, and who leads on in the same one takes nothing more from a connection
//!   once the next one has come. A member serves again before that, with the history that its leader has.
//!   So it is known once as much is committed as that history held, the last of it in the leader's epoch.
//!
//! Whatever of a reign was not among what was committed until then never will be, and can be proposed
//! again: nothing is done twice.

use std::collections::BTreeMap;

use quorate_raft::Entry;
use quorate_types::bug;

use crate::RequestId;

/// What of this node other leaders were asked to append.
#[derive(Debug, Default)]
pub(crate) struct PassedOn {
    // The ids of a node grow, so this is the order in which the requests came.
    requests: BTreeMap<RequestId, Passed>,
    /// When what is proposed again was passed on for the first time.
    again: BTreeMap<RequestId, u64>,
    /// The latest request that was passed on and seen to be committed.
    committed: Option<RequestId>,
}

#[derive(Debug)]
struct Passed {
    reign: u64,
    entry: Entry,
    since_ticks: u64,
}

impl PassedOn {
    /// The leader of `reign` is asked to append this.
    pub(crate) fn add(&mut self, reign: u64, request: RequestId, entry: Entry, now_ticks: u64) {
        let since_ticks = self.again.remove(&request).unwrap_or(now_ticks);
        self.requests.insert(request, Passed { reign, entry, since_ticks });
    }

    /// Whether nothing waits: then nothing that is committed needs to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// It is known what becomes of this request. Says whether it was one that was passed on.
    pub(crate) fn remove(&mut self, request: RequestId) -> bool {
        self.requests.remove(&request).is_some()
    }

    /// This request is committed.
    pub(crate) fn see_committed(&mut self, request: RequestId) {
        if self.remove(request) {
            self.committed = self.committed.max(Some(request));
        }
    }

    /// What earlier reigns than this one were asked for before something that came about. For
    /// [`PassedOn::take_lost`], where leaders are asked in order: then they have refused it, and it was
    /// their word that was lost.
    pub(crate) fn take_overtaken(&mut self, reign: u64) -> Vec<RequestId> {
        let Some(committed) = self.committed else { return Vec::new() };
        let before = self.requests.range(..committed);
        let overtaken =
            before.filter(|(_, passed)| passed.reign < reign).map(|(request, _)| *request);
        let overtaken: Vec<RequestId> = overtaken.collect();
        overtaken.iter().for_each(|request| drop(self.requests.remove(request)));
        overtaken
    }

    /// Whether anything is left of earlier reigns, if none was passed on in this one before that was known.
    pub(crate) fn awaits_fate(&self, reign: u64) -> bool {
        self.requests.first_key_value().is_some_and(|(_, passed)| passed.reign < reign)
    }

    /// All that will ever be committed of what earlier reigns than this one were asked for was looked at:
    /// what was not among it comes back, to be proposed again.
    pub(crate) fn take_lost(&mut self, reign: u64) -> Vec<(RequestId, Entry)> {
        let is_lost = |passed: &Passed| {
            passed.reign < reign
                || (bug!("what-is-under-way-is-called-lost") && passed.reign == reign)
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
