//! What autopilot did and left undone, and why: one line a decision, and counted.
//!
//! What is left undone is wanted again every round. It is said when it begins, and when its reason
//! becomes another.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_autopilot::{Action, ConfigError, Logger, Note, RaftError, Refusal};
use quorate_types::{Index, NodeId};

/// Things said that are remembered, over all members.
const SAID_MAX: usize = 1024;

/// Counts since this member started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// By kind of change.
    pub(crate) changes: BTreeMap<&'static str, u64>,
    /// By reason.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// States that were not made, rounds and removals that did not come to their end.
    pub(crate) failures: u64,
}

#[derive(Debug, Default)]
struct Memory {
    counts: Counts,
    /// What is not done, and why; what failed, and how.
    said: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Telling(Mutex<Memory>);

impl Telling {
    pub(crate) fn counts(&self) -> Counts {
        self.memory().counts.clone()
    }

    /// Another reign: everything is news again.
    pub(super) fn begin(&self) {
        self.memory().said.clear();
    }

    pub(super) fn cannot_read(&self, error: &ConfigError) {
        if self.memory().is_news("settings", &error.to_string()) {
            tracing::warn!(target: "quorate::autopilot", %error, "cannot read what is set; nothing is done");
        }
    }

    /// What came of the removal of a failed member.
    pub(super) fn removed(&self, id: NodeId, outcome: &Result<Index, RaftError>) {
        match outcome {
            Ok(index) => {
                tracing::info!(target: "quorate::autopilot", member = format!("{id:x}"), %index, "removed");
            }
            Err(error) => {
                let is_news = {
                    let mut memory = self.memory();
                    memory.counts.failures += 1;
                    memory.is_news(&format!("removal of {id:x}"), &error.to_string())
                };
                if is_news {
                    let member = format!("{id:x}");
                    tracing::warn!(target: "quorate::autopilot", member, %error, "not removed yet");
                }
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, refusal: &Refusal) {
        let (what, code) = (format!("{} of {}", refusal.wanted, refusal.id), refusal.why.code());
        let is_news = {
            let mut memory = self.memory();
            *memory.counts.refusals.entry(code).or_default() += 1;
            memory.is_news(&what, code)
        };
        match is_news {
            true => tracing::info!(target: "quorate::autopilot", code, "{refusal}"),
            false => tracing::debug!(target: "quorate::autopilot", code, "{refusal}"),
        }
    }

    fn failed(&self, kind: &str, note: &Note) {
        let text = note.to_string();
        let is_news = {
            let mut memory = self.memory();
            memory.counts.failures += 1;
            memory.is_news(kind, &text)
        };
        match is_news {
            true => tracing::warn!(target: "quorate::autopilot", "{text}"),
            false => tracing::debug!(target: "quorate::autopilot", "{text}"),
        }
    }
}

impl Memory {
    /// Whether `what` was not said with these `words` the last time.
    fn is_news(&mut self, what: &str, words: &str) -> bool {
        if self.said.get(what).is_some_and(|said| said == words) {
            return false;
        }
        if SAID_MAX <= self.said.len() {
            self.said.clear();
        }
        self.said.insert(what.to_owned(), words.to_owned());
        true
    }
}

impl Logger for Telling {
    fn log(&self, note: &Note) {
        match note {
            Note::Doing { action, why } => {
                *self.memory().counts.changes.entry(kind(action)).or_default() += 1;
                tracing::info!(target: "quorate::autopilot", %action, why, "changes the cluster");
            }
            Note::Refused(refusal) => self.refused(refusal),
            Note::UpdateFailed(_) => self.failed("state", note),
            Note::ReconcileFailed(_) => self.failed("round", note),
            Note::PruneFailed(_) => self.failed("removals", note),
        }
    }
}

/// One word for what is done, for metrics.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::AddNonvoter { .. } => "add",
        Action::AddVoter { .. } => "promotion",
        Action::DemoteVoter { .. } => "demotion",
        Action::ReplaceVoter { .. } => "replacement",
        Action::RemoveServer { .. } | Action::RemoveFailedServer(_) => "removal",
        Action::TransferLeadership { .. } => "leadership",
    }
}

#[cfg(test)]
mod tests {
    use quorate_autopilot::{Reason, Wanted};

    use super::*;

    #[test]
    fn everything_is_counted_and_news_is_said_once() {
        let telling = Telling::default();
        let id = || "a".into();
        let refused = |why| Note::Refused(Refusal { wanted: Wanted::Removal, id: id(), why });
        let doing = Note::Doing { action: Action::DemoteVoter { id: id() }, why: String::new() };
        for note in [refused(Reason::Leader), refused(Reason::Leader), refused(Reason::Joining)] {
            telling.log(&note);
        }
        telling.log(&doing);
        telling.removed(NodeId(1), &Err(RaftError::Unknown));
        let counts = telling.counts();
        assert_eq!(counts.refusals, [("joining", 1), ("leader", 2)].into());
        assert_eq!(counts.changes, [("demotion", 1)].into());
        assert_eq!(counts.failures, 1);
        let mut memory = telling.memory();
        assert!(!memory.is_news("removal of a", "joining"));
        assert!(memory.is_news("removal of a", "leader"), "the reason is another");
        assert!(memory.is_news("removal of b", "leader"));
        for number in 0..2 * SAID_MAX {
            memory.is_news(&number.to_string(), "");
        }
        assert!(memory.said.len() <= SAID_MAX);
    }
}
