//! Auto-compaction: which history the leader has forgotten without being asked.
//!
//! *Periodic*: the revision is noted every tenth of the retention (of an hour, if that is shorter);
//! what was current one retention ago is compacted, first after a whole retention, then every
//! retention or hour. *By revision*: every five minutes, all but the last so many revisions.
//!
//! Every member takes notes, so that a new leader knows the past as well.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quorate_kv::{Command, CompactionRequest, KvError};

use crate::config::AutoCompaction;
use crate::local::Local;

/// How often history is compacted to so many revisions.
const BY_REVISION_EVERY: Duration = Duration::from_secs(5 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Notes of one retention.
const NOTES_PER_INTERVAL: u32 = 10;

impl Local {
    /// Compacts by itself while this member leads; never returns.
    pub(crate) async fn keep_compact(&self, settings: AutoCompaction) {
        let Some(mut plan) = Plan::new(settings) else {
            return std::future::pending().await;
        };
        let begun = Instant::now();
        loop {
            let status = self.status();
            if let Some(revision) =
                plan.look(begun.elapsed(), self.store().revision(), status.is_leader)
            {
                let request = CompactionRequest { revision, physical: false };
                match self.propose(&Command::Compact(request)).await {
                    Ok(_) => tracing::info!(revision, "compacted history by itself"),
                    // Somebody else was first.
                    Err(error) if error.message() == KvError::Compacted.message() => {}
                    Err(error) => {
                        tracing::warn!(revision, reason = error.message(), "history not compacted");
                        tokio::time::sleep(plan.every()).await;
                        continue;
                    }
                }
                plan.done(begun.elapsed(), revision);
            }
            tokio::time::sleep(plan.every()).await;
        }
    }
}

/// When to compact what, by a clock that its caller reads.
#[derive(Debug)]
enum Plan {
    Periodic {
        retention: Duration,
        /// Between two compactions.
        interval: Duration,
        /// Revisions at the last looks, the oldest first.
        notes: VecDeque<i64>,
        notes_max: usize,
        /// When the last compaction was; at first, when the notes begin.
        last: Duration,
        last_revision: i64,
    },
    ByRevision {
        retained: i64,
        last_revision: i64,
    },
}

impl Plan {
    fn new(settings: AutoCompaction) -> Option<Plan> {
        match settings {
            AutoCompaction::Off => None,
            AutoCompaction::Revision(retained) => {
                Some(Plan::ByRevision { retained, last_revision: 0 })
            }
            AutoCompaction::Periodic(retention) => {
                let interval = retention.min(HOUR);
                let every = interval / NOTES_PER_INTERVAL;
                let count = retention.as_nanos() / every.as_nanos().max(1);
                Some(Plan::Periodic {
                    retention,
                    interval,
                    notes: VecDeque::new(),
                    notes_max: usize::try_from(count).unwrap_or(usize::MAX).saturating_add(1),
                    last: Duration::ZERO,
                    last_revision: 0,
                })
            }
        }
    }

    /// How long from one look to the next.
    fn every(&self) -> Duration {
        match self {
            Plan::Periodic { interval, .. } => *interval / NOTES_PER_INTERVAL,
            Plan::ByRevision { .. } => BY_REVISION_EVERY,
        }
    }

    /// Notes the current revision; says what is to be compacted now, if anything.
    fn look(&mut self, now: Duration, revision: i64, leads: bool) -> Option<i64> {
        match self {
            Plan::Periodic { retention, interval, notes, notes_max, last, last_revision } => {
                notes.push_back(revision);
                if *notes_max < notes.len() {
                    notes.pop_front();
                }
                let wait = if *last == Duration::ZERO { *retention } else { *interval };
                let oldest = *notes.front()?;
                (leads && *last + wait <= now && oldest != *last_revision).then_some(oldest)
            }
            Plan::ByRevision { retained, last_revision } => {
                let oldest = revision.saturating_sub(*retained);
                (leads && 0 < oldest && oldest != *last_revision).then_some(oldest)
            }
        }
    }

    /// It was done.
    fn done(&mut self, now: Duration, revision: i64) {
        match self {
            Plan::Periodic { last, last_revision, .. } => {
                (*last, *last_revision) = (now, revision);
            }
            Plan::ByRevision { last_revision, .. } => *last_revision = revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as often as it wants to, at a revision that rises by one a minute; minutes and revisions
    /// of all compactions.
    fn compactions(
        settings: AutoCompaction,
        minutes: u64,
        leads: impl Fn(u64) -> bool,
    ) -> Vec<(u64, i64)> {
        let mut plan = Plan::new(settings).unwrap();
        let (mut now, mut all) = (Duration::ZERO, Vec::new());
        while now <= Duration::from_secs(60 * minutes) {
            let minute = now.as_secs() / 60;
            if let Some(revision) = plan.look(now, 100 + minute as i64, leads(minute)) {
                all.push((minute, revision));
                plan.done(now, revision);
            }
            now += plan.every();
        }
        all
    }

    #[test]
    fn what_was_current_a_retention_ago_is_compacted() {
        let hours = |count| AutoCompaction::Periodic(count * HOUR);
        let minutes = |count: u64| AutoCompaction::Periodic(Duration::from_secs(60 * count));
        for (settings, until, want) in [
            (hours(1), 59, &[][..]),
            (hours(1), 190, &[(60, 100), (120, 160), (180, 220)]),
            (hours(3), 310, &[(180, 100), (240, 160), (300, 220)]),
            (minutes(10), 32, &[(10, 100), (20, 110), (30, 120)]),
        ] {
            assert_eq!(compactions(settings, until, |_| true), want, "{settings:?}");
        }
        // Who comes to lead has taken notes before.
        let late = compactions(hours(1), 140, |minute| 100 <= minute);
        assert_eq!(late, [(102, 42 + 100)]);
        let mut notes = Plan::new(hours(5)).unwrap();
        for minute in 0..100_000 {
            notes.look(Duration::from_secs(60 * minute), 1, false);
        }
        let Plan::Periodic { notes, .. } = notes else { panic!("of the other kind") };
        assert_eq!(notes.len(), 51);
    }

    #[test]
    fn an_idle_store_is_compacted_once() {
        for settings in [AutoCompaction::Periodic(HOUR), AutoCompaction::Revision(10)] {
            let mut plan = Plan::new(settings).unwrap();
            let mut count = 0;
            for look in 0..500 {
                let now = look * plan.every();
                if let Some(revision) = plan.look(now, 50, true) {
                    count += 1;
                    plan.done(now, revision);
                }
            }
            assert_eq!(count, 1, "{settings:?}");
        }
    }

    #[test]
    fn so_many_revisions_are_kept() {
        let kept = compactions(AutoCompaction::Revision(102), 21, |_| true);
        assert_eq!(kept, [(5, 3), (10, 8), (15, 13), (20, 18)]);
        assert_eq!(compactions(AutoCompaction::Revision(1000), 100, |_| true), []);
        assert!(Plan::new(AutoCompaction::Off).is_none());
    }
}
