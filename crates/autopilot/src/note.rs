//! What autopilot would have logged.

use std::fmt;

use crate::action::Action;
use crate::errors::{PruneError, ReconcileError, UpdateError};
use crate::strict::Refusal;

/// One thing that happened, for people.
#[derive(Clone, Debug)]
pub enum Note {
    /// No new state could be made; the old one stays.
    UpdateFailed(UpdateError),
    /// A round ended early.
    ReconcileFailed(ReconcileError),
    /// A prune ended early.
    PruneFailed(PruneError),
    /// This is done now.
    Doing {
        /// What.
        action: Action,
        /// Why: the code of the policy, the class of a removal.
        why: String,
    },
    /// This was asked of Raft, which has done it.
    Done(Action),
    /// This was wanted and is not done.
    Refused(Refusal),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::UpdateFailed(error) => write!(f, "no new state: {error}"),
            Note::ReconcileFailed(error) => write!(f, "round ended: {error}"),
            Note::PruneFailed(error) => write!(f, "prune ended: {error}"),
            Note::Doing { action, why } => write!(f, "{action}: {why}"),
            Note::Done(action) => write!(f, "{action}: done"),
            Note::Refused(refusal) => refusal.fmt(f),
        }
    }
}
