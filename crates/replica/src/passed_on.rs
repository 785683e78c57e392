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
use crate::proposals::Asked;

/// What of this node other leaders were asked to append.
#[derive(Debug, Default)]
pub(crate) struct PassedOn {
    /// By their numbers: in the order in which they came.
    waiting: BTreeMap<u64, Passed>,
    numbers: BTreeMap<RequestId, u64>,
    /// The latest that was passed on and seen to be committed.
    committed: u64,
}

#[derive(Debug)]
struct Passed {
    reign: u64,
    asked: Asked,
    entry: Entry,
}

impl PassedOn {
    /// The leader of `reign` is asked to append this.
    pub(crate) fn add(&mut self, reign: u64, asked: Asked, entry: Entry) {
        self.numbers.insert(asked.request, asked.number);
        self.waiting.insert(asked.number, Passed { reign, asked, entry });
    }

    /// Whether nothing waits: then nothing that is committed needs to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// It is known what becomes of this request. Says whether it was one that was passed on.
    pub(crate) fn remove(&mut self, request: RequestId) -> bool {
        self.take(request).is_some()
    }

    fn take(&mut self, request: RequestId) -> Option<Passed> {
        let number = self.numbers.remove(&request)?;
        self.waiting.remove(&number)
    }

    /// This request is committed.
    pub(crate) fn see_committed(&mut self, request: RequestId) {
        if let Some(passed) = self.take(request) {
            self.committed = self.committed.max(passed.asked.number);
        }
    }

    /// What earlier reigns than this one were asked for before something that came about. For
    /// [`PassedOn::take_lost`], where leaders are asked in order: then they have refused it, and it was
    /// their word that was lost.
    pub(crate) fn take_overtaken(&mut self, reign: u64) -> Vec<RequestId> {
        let before = self.waiting.range(..self.committed).map(|(_, passed)| passed);
        let overtaken = before.filter(|passed| passed.reign < reign);
        let overtaken: Vec<RequestId> = overtaken.map(|passed| passed.asked.request).collect();
        overtaken.iter().for_each(|request| drop(self.take(*request)));
        overtaken
    }

    /// Whether anything is left of earlier reigns, if none was passed on in this one before that was known.
    pub(crate) fn awaits_fate(&self, reign: u64) -> bool {
        self.waiting.first_key_value().is_some_and(|(_, passed)| passed.reign < reign)
    }

    /// All that will ever be committed of what earlier reigns than this one were asked for was looked at:
    /// what was not among it comes back, to be proposed again.
    pub(crate) fn take_lost(&mut self, reign: u64) -> Vec<(Asked, Entry)> {
        let is_lost = |passed: &&Passed| {
            passed.reign < reign
                || (bug!("what-is-under-way-is-called-lost") && passed.reign == reign)
        };
        let lost = self.waiting.values().filter(is_lost);
        let lost: Vec<RequestId> = lost.map(|passed| passed.asked.request).collect();
        let taken = lost.into_iter().filter_map(|request| self.take(request));
        taken.map(|passed| (passed.asked, passed.entry)).collect()
    }

    /// Forgets what came so long ago that its callers have been told that nobody knows what became of
    /// it: it is not proposed again. It may still be done, as a leader was asked for it.
    pub(crate) fn expire(&mut self, ticks_max: u64, now_ticks: u64) {
        let is_due = |passed: &Passed| passed.asked.since_ticks + ticks_max <= now_ticks;
        while let Some(first) = self.waiting.first_entry()
            && is_due(first.get())
        {
            let passed = first.remove();
            self.numbers.remove(&passed.asked.request);
        }
    }

    /// What was committed was not seen, only what came of it: what became of each is unknown.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.numbers.clear();
    }
}
