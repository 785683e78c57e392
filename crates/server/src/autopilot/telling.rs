//! What autopilot did and left undone, and why: one line a decision, and counted once.
//!
//! What is left undone is wanted again every round, and so is what fails. It is said and counted when it
//! begins, when its reason becomes another, and when it comes again after a while without it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_autopilot::{Action, ConfigError, Logger, Note, RaftError, Refusal};
use quorate_types::{Index, NodeId};

/// Things said that are remembered, over all members.
const SAID_MAX: usize = 1024;

/// Counts since this member started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Made, by kind of change.
    pub(crate) changes: BTreeMap<&'static str, u64>,
    /// Wanted and not made, by reason.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// States that were not made, rounds and removals that did not come to their end.
    pub(crate) failures: u64,
}

#[derive(Debug, Default)]
struct Memory {
    counts: Counts,
    /// What is done or not done, with its reason, and when that was last so.
    said: BTreeMap<String, (String, Instant)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Telling {
    memory: Mutex<Memory>,
    news_after: Duration,
}

impl Telling {
    /// What was not so for `news_after` is news when it is so again.
    pub(super) fn new(news_after: Duration) -> Telling {
        Telling { memory: Mutex::default(), news_after }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.memory().counts.clone()
    }

    /// Another reign: everything is news again.
    pub(super) fn begin(&self) {
        self.memory().said.clear();
    }

    pub(super) fn cannot_read(&self, error: &ConfigError) {
        if self.is_news("settings", &error.to_string()) {
            tracing::warn!(target: "quorate::autopilot", %error, "cannot read what is set; nothing is done");
        }
    }

    /// What came of the removal of a failed member.
    pub(super) fn removed(&self, id: NodeId, outcome: &Result<Index, RaftError>) {
        let member = format!("{id:x}");
        match outcome {
            Ok(index) => {
                *self.memory().counts.changes.entry("removal").or_default() += 1;
                tracing::info!(target: "quorate::autopilot", member, %index, "removed");
            }
            Err(error) => {
                if self.is_news(&format!("removal of {id:x}"), &error.to_string()) {
                    self.memory().counts.failures += 1;
                    tracing::warn!(target: "quorate::autopilot", member, %error, "not removed yet");
                }
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `what` was not said with these `words` lately.
    fn is_news(&self, what: &str, words: &str) -> bool {
        self.is_news_at(Instant::now(), what, words)
    }

    fn is_news_at(&self, now: Instant, what: &str, words: &str) -> bool {
        let mut memory = self.memory();
        if let Some((said, at)) = memory.said.get_mut(what)
            && said == words
            && now.saturating_duration_since(*at) < self.news_after
        {
            *at = now;
            return false;
        }
        if SAID_MAX <= memory.said.len() {
            memory.said.clear();
        }
        memory.said.insert(what.to_owned(), (words.to_owned(), now));
        true
    }

    fn doing(&self, action: &Action, why: &str) {
        match self.is_news(&format!("doing {action}"), why) {
            true => {
                tracing::info!(target: "quorate::autopilot", %action, why, "changes the cluster");
            }
            false => tracing::debug!(target: "quorate::autopilot", %action, why, "tries it again"),
        }
    }

    fn done(&self, action: &Action) {
        {
            let mut memory = self.memory();
            *memory.counts.changes.entry(kind(action)).or_default() += 1;
            // To do the same once more is another decision.
            memory.said.remove(&format!("doing {action}"));
        }
        tracing::info!(target: "quorate::autopilot", %action, "done");
    }

    fn refused(&self, refusal: &Refusal) {
        let (what, code) = (format!("{} of {}", refusal.wanted, refusal.id), refusal.why.code());
        match self.is_news(&what, code) {
            true => {
                *self.memory().counts.refusals.entry(code).or_default() += 1;
                tracing::info!(target: "quorate::autopilot", code, "{refusal}");
            }
            false => tracing::debug!(target: "quorate::autopilot", code, "{refusal}"),
        }
    }

    fn failed(&self, kind: &str, note: &Note) {
        let text = note.to_string();
        match self.is_news(kind, &text) {
            true => {
                self.memory().counts.failures += 1;
                tracing::warn!(target: "quorate::autopilot", "{text}");
            }
            false => tracing::debug!(target: "quorate::autopilot", "{text}"),
        }
    }
}

impl Logger for Telling {
    fn log(&self, note: &Note) {
        match note {
            Note::Doing { action, why } => self.doing(action, why),
            Note::Done(action) => self.done(action),
            Note::Refused(refusal) => self.refused(refusal),
            Note::UpdateFailed(_) => self.failed("state", note),
            Note::ReconcileFailed(_) => self.failed("round", note),
            Note::PruneFailed(_) => self.failed("removals", note),
        }
    }
}

/// One word for what is done, for metrics.
pub(super) fn kind(action: &Action) -> &'static str {
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
    fn a_decision_is_counted_and_said_once() {
        let telling = Telling::new(Duration::from_secs(30));
        let id = || "a".into();
        let refused = |why| Note::Refused(Refusal { wanted: Wanted::Removal, id: id(), why });
        let action = || Action::DemoteVoter { id: id() };
        let doing = || Note::Doing { action: action(), why: "unhealthy".to_owned() };
        for note in [
            refused(Reason::Leader),
            refused(Reason::Leader),
            refused(Reason::Joining),
            refused(Reason::Joining),
            // It is tried round after round, and made at last; and once more later.
            doing(),
            doing(),
            Note::Done(action()),
            doing(),
            Note::Done(action()),
        ] {
            telling.log(&note);
        }
        for _ in 0..3 {
            telling.removed(NodeId(1), &Err(RaftError::Unknown));
        }
        telling.removed(NodeId(1), &Err(RaftError::ProposalDropped));
        telling.removed(NodeId(1), &Ok(Index(5)));
        let counts = telling.counts();
        assert_eq!(counts.refusals, [("joining", 1), ("leader", 1)].into());
        assert_eq!(counts.changes, [("demotion", 2), ("removal", 1)].into());
        assert_eq!(counts.failures, 2);
    }

    #[test]
    fn what_comes_again_after_a_while_is_news() {
        let telling = Telling::new(Duration::from_secs(30));
        let (began, what) = (Instant::now(), "removal of a");
        let is_news =
            |seconds, words| telling.is_news_at(began + Duration::from_secs(seconds), what, words);
        assert!(is_news(0, "joining"));
        assert!(!is_news(20, "joining"));
        assert!(!is_news(40, "joining"), "it never ceased");
        assert!(is_news(50, "leader"), "another reason");
        assert!(is_news(80, "leader"), "it was gone meanwhile");
        assert!(telling.is_news("removal of b", "leader"));
        for number in 0..2 * SAID_MAX {
            telling.is_news(&number.to_string(), "");
        }
        assert!(telling.memory().said.len() <= SAID_MAX);
    }
}
