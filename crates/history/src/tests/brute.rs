//! The third way: every order there is.

use crate::model::State;
use crate::operation::{History, Operation};

/// Whether some order of all answered operations, with any of those of unknown outcome among them,
/// respects real time and explains every answer. Serializable reads must not be in the history.
pub(super) fn linearizable(history: &History) -> bool {
    let operations: Vec<&Operation> = history.operations.iter().collect();
    let open: Vec<&Operation> =
        operations.into_iter().filter(|it| it.answer().is_some() || it.is_unknown()).collect();
    extend(&history.initial, &open)
}

fn extend(state: &State, open: &[&Operation]) -> bool {
    if open.iter().all(|it| it.answer().is_none()) {
        return true;
    }
    open.iter().enumerate().any(|(at, next)| {
        let is_too_early = open.iter().any(|other| {
            other.answer().is_some_and(|(answered_at, _)| answered_at < next.invoked_at)
        });
        if is_too_early {
            return false;
        }
        let mut state = state.clone();
        let said = state.step(&next.request);
        if next.answer().is_some_and(|(_, seen)| !said.allows(seen)) {
            return false;
        }
        let mut rest = open.to_vec();
        rest.remove(at);
        extend(&state, &rest)
    })
}
