//! Whether a history is linearizable, and the shortest story of why it is not.

use std::fmt;

use crate::operation::{History, Operation, Outcome};
use crate::{revisions, search};

/// What came of looking for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is one.
    Linearizable,
    /// There is none.
    Violated(Violation),
    /// None was found within the bound on work. This is a failure of the test: nothing was shown.
    Undecided {
        /// Steps that were tried.
        work: u64,
    },
}

/// A promise that was broken, for a person to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// What cannot be.
    pub why: String,
    /// The operations that show it, few, in the order in which they were asked.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        for operation in &self.operations {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}

impl Violation {
    pub(crate) fn of<'a>(
        why: impl Into<String>,
        operations: impl IntoIterator<Item = &'a Operation>,
    ) -> Violation {
        let mut operations: Vec<_> = operations.into_iter().cloned().collect();
        operations.sort_by_key(|operation| (operation.invoked_at, operation.client));
        operations.dedup();
        Violation { why: why.into(), operations }
    }
}

/// How much work is done for a history of that many operations before it is given up.
pub fn work_max_default(history: &History) -> u64 {
    10_000_000 + 1000 * history.operations.len() as u64
}

/// Whether all operations could have happened one after the other, each at some moment between its
/// request and its answer. Serializable reads only have to show states of that order that were not
/// in the future; see [`crate::serializable_reads`] for the rest of what they promise.
///
/// Cost: `n log n` plus the work to place requests of unknown outcome, within [`work_max_default`].
///
/// Source: Herlihy and Wing, "Linearizability"; the search is Wing and Gong's with Lowe's memory.
pub fn linearizable(history: &History) -> Verdict {
    linearizable_within(history, work_max_default(history))
}

/// The same with another bound on work, in steps of the model.
pub fn linearizable_within(history: &History, work_max: u64) -> Verdict {
    let verdict = judge(history, work_max);
    let Verdict::Violated(found) = verdict else { return verdict };
    Verdict::Violated(shortest(history, work_max).unwrap_or(found))
}

fn judge(history: &History, work_max: u64) -> Verdict {
    if let Some(violation) = malformed(history) {
        return Verdict::Violated(violation);
    }
    let mut answers = history.operations.iter().filter_map(Operation::answer);
    if answers.all(|(_, response)| response.revision.is_some()) {
        revisions::judge(history, work_max)
    } else {
        search::judge(history, work_max)
    }
}

/// An answer that is none: of another form than its request, or there before it.
fn malformed(history: &History) -> Option<Violation> {
    history.operations.iter().find_map(|operation| {
        let (at, response) = operation.answer()?;
        if at < operation.invoked_at {
            return Some(Violation::of("was answered before it was asked", [operation]));
        }
        let fits = response.fits(&operation.request);
        (!fits).then(|| Violation::of("the answer does not fit the request", [operation]))
    })
}

/// The violation in the shortest beginning of the history that has one. What begins well may end
/// badly, but never the other way round.
fn shortest(history: &History, work_max: u64) -> Option<Violation> {
    let mut ends: Vec<u64> =
        history.operations.iter().filter_map(Operation::answer).map(|(at, _)| at).collect();
    ends.sort_unstable();
    ends.dedup();
    let (mut good, mut bad, mut found) = (0, ends.len(), None);
    while good < bad {
        let middle = good + (bad - good) / 2;
        match judge(&until(history, ends[middle]), work_max) {
            Verdict::Violated(violation) => (bad, found) = (middle, Some(violation)),
            Verdict::Linearizable | Verdict::Undecided { .. } => good = middle + 1,
        }
    }
    found
}

/// The history as it was known at that time.
fn until(history: &History, time: u64) -> History {
    let asked = history.operations.iter().filter(|operation| operation.invoked_at <= time);
    let operations = asked.map(|operation| {
        let mut operation = operation.clone();
        if operation.answer().is_some_and(|(at, _)| time < at) {
            operation.outcome = Outcome::Unknown;
        }
        operation
    });
    History { initial: history.initial.clone(), operations: operations.collect() }
}
