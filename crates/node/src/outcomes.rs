//! What became of the proposals that somebody waits for.
//!
//! A leader knows where it appended a proposal, and a place in a log (index and term) is one entry
//! for ever. So its fate is decided by what is committed, wherever the leadership has gone since:
//!
//! - of the committed entry's term, and up to it: committed, because all logs that hold the later
//!   entry hold this one;
//! - of an earlier term, and beyond it: superseded, because terms never fall along a log;
//! - of an earlier term, and up to it: the entry that is committed there tells.
//!
//! That the entry is gone from this node's log proves nothing: a later leader may still have it.

use std::collections::BTreeMap;

use quorate_types::{EntryId, Index, Term};
use tokio::sync::oneshot;

use crate::ProposalError;

pub(crate) type Outcome = Result<EntryId, ProposalError>;

#[derive(Debug)]
pub(crate) struct Outcomes {
    waiting: BTreeMap<EntryId, oneshot::Sender<Outcome>>,
    /// The commit index that was last looked at.
    seen: Index,
    outcomes_max: usize,
}

impl Outcomes {
    pub(crate) fn new(outcomes_max: usize) -> Self {
        let (waiting, seen) = (BTreeMap::new(), Index(0));
        Outcomes { waiting, seen, outcomes_max: outcomes_max.max(1) }
    }

    /// Whether one more may wait. Those whose callers have left do not count.
    pub(crate) fn check_room(&mut self) -> Result<(), ProposalError> {
        if self.waiting.len() < self.outcomes_max {
            return Ok(());
        }
        self.waiting.retain(|_, outcome| !outcome.is_closed());
        match self.waiting.len() < self.outcomes_max {
            true => Ok(()),
            false => Err(ProposalError::Busy { outcomes_max: self.outcomes_max }),
        }
    }

    /// Waits for the entry that this node, as the leader, has just appended.
    pub(crate) fn wait(&mut self, proposed: EntryId) -> oneshot::Receiver<Outcome> {
        let (sender, outcome) = oneshot::channel();
        let other = self.waiting.insert(proposed, sender);
        assert!(other.is_none(), "a leader appends once at {proposed}");
        outcome
    }

    /// Whether nothing was committed since the last time.
    pub(crate) fn has_seen(&self, committed: Index) -> bool {
        self.seen == committed
    }

    /// Tells those whose fate is decided by the log being committed up to `committed`. `term` is
    /// what this node knows of its log.
    pub(crate) fn settle(&mut self, committed: EntryId, term: impl Fn(Index) -> Option<Term>) {
        self.seen = committed.index;
        if self.waiting.is_empty() {
            return;
        }
        let undecided = EntryId { term: committed.term, index: committed.index.next() };
        let undecided = self.waiting.split_off(&undecided);
        for (proposed, caller) in std::mem::replace(&mut self.waiting, undecided) {
            // Who has left needs no answer.
            let _ = caller.send(fate(proposed, committed, &term));
        }
    }
}

fn fate(proposed: EntryId, committed: EntryId, term: impl Fn(Index) -> Option<Term>) -> Outcome {
    if proposed.term == committed.term {
        return Ok(proposed);
    }
    if committed.index < proposed.index {
        return Err(ProposalError::Superseded { proposed, committed });
    }
    match term(proposed.index) {
        Some(term) if term == proposed.term => Ok(proposed),
        Some(term) => {
            let committed = EntryId { term, index: proposed.index };
            Err(ProposalError::Superseded { proposed, committed })
        }
        // A snapshot stands for it, and does not tell.
        None => Err(ProposalError::Unknown { proposed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> EntryId {
        EntryId::new(term, index)
    }

    #[test]
    fn what_is_committed_decides_the_fate_of_a_place() {
        // The committed log: 1@1 2@1 3@1 4@3 5@3, of which 1 and 2 are compacted.
        let log = |index: Index| match index.0 {
            3 => Some(Term(1)),
            4 | 5 => Some(Term(3)),
            _ => None,
        };
        let committed = at(5, 3);
        let superseded =
            |proposed, committed| Some(Err(ProposalError::Superseded { proposed, committed }));
        for (proposed, want) in [
            (at(4, 3), Some(Ok(at(4, 3)))),
            (at(5, 3), Some(Ok(at(5, 3)))),
            (at(6, 3), None), // may be committed next
            (at(9, 4), None),
            (at(3, 1), Some(Ok(at(3, 1)))),
            (at(4, 1), superseded(at(4, 1), at(4, 3))),
            (at(4, 2), superseded(at(4, 2), at(4, 3))),
            (at(6, 2), superseded(at(6, 2), at(5, 3))), // terms never fall along a log
            (at(2, 1), Some(Err(ProposalError::Unknown { proposed: at(2, 1) }))),
        ] {
            let mut outcomes = Outcomes::new(1);
            let mut outcome = outcomes.wait(proposed);
            outcomes.settle(committed, log);
            assert_eq!(outcome.try_recv().ok(), want, "{proposed}");
        }
    }

    #[test]
    fn callers_that_left_make_room() {
        let mut outcomes = Outcomes::new(2);
        let (one, two) = (outcomes.wait(at(1, 1)), outcomes.wait(at(2, 1)));
        assert_eq!(outcomes.check_room(), Err(ProposalError::Busy { outcomes_max: 2 }));
        drop(one);
        assert_eq!(outcomes.check_room(), Ok(()));
        drop(two);
    }
}
