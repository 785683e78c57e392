//! What this server has done, counted for its figures alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use quorate_runtime::Histogram;

/// Nothing here is on the way of a read or a write of keys.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Leases renewed here, as their leader.
    pub(crate) leases_renewed: AtomicU64,
    /// How long defragmentations took.
    pub(crate) defragment: Histogram,
    /// Those under way.
    pub(crate) defragmenting: AtomicU64,
    /// How long it took to send a snapshot to the end.
    pub(crate) snapshot: Histogram,
    promoted: AtomicU64,
    /// By reason.
    not_promoted: Mutex<BTreeMap<String, u64>>,
}

/// A defragmentation under way.
pub(crate) struct Defragmenting<'a> {
    tally: &'a Tally,
    begun: Instant,
}

impl Tally {
    pub(crate) fn defragmenting(&self) -> Defragmenting<'_> {
        self.defragmenting.fetch_add(1, Ordering::Relaxed);
        Defragmenting { tally: self, begun: Instant::now() }
    }

    /// Counts what came of the promotion of a learner. Reasons are the machine's words, so they are
    /// few.
    pub(crate) fn on_promotion(&self, refusal: Option<&str>) {
        match refusal {
            None => {
                self.promoted.fetch_add(1, Ordering::Relaxed);
            }
            Some(reason) => {
                let mut reasons = self.not_promoted.lock().unwrap_or_else(PoisonError::into_inner);
                *reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
    }

    /// Learners that were promoted, and those that were not, by reason.
    pub(crate) fn promotions(&self) -> (u64, Vec<(String, u64)>) {
        let reasons = self.not_promoted.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = reasons.iter().map(|(reason, count)| (reason.clone(), *count)).collect();
        (self.promoted.load(Ordering::Relaxed), reasons)
    }
}

impl Drop for Defragmenting<'_> {
    fn drop(&mut self) {
        self.tally.defragmenting.fetch_sub(1, Ordering::Relaxed);
        self.tally.defragment.observe(self.begun.elapsed());
    }
}
