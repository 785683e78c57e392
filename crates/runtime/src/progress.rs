//! How far the machine is, for the loop: told without waking it while nobody waits for that.
//!
//! To wake a thread costs more than what the loop does with the news. It looks for itself in every
//! turn; it is woken when somebody follows what is applied, or the replica can do something by it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_types::Index;
use tokio::sync::mpsc;

use crate::apply::Done;

/// Written by the apply thread, read by the loop.
pub(crate) struct Progress {
    through: AtomicU64,
    is_awaited: AtomicBool,
    done: mpsc::UnboundedSender<Done>,
}

impl Progress {
    /// The loop is woken through `done`.
    pub(crate) fn new(done: mpsc::UnboundedSender<Done>) -> Self {
        Progress { through: AtomicU64::new(0), is_awaited: AtomicBool::new(true), done }
    }

    /// Up to where all is applied; 0 before anything is.
    pub(crate) fn through(&self) -> Index {
        Index(self.through.load(Ordering::SeqCst))
    }

    /// Everything up to `through` is applied.
    pub(crate) fn on_applied(&self, through: Index) {
        // This order and that in `settle` leave no gap: either the loop sees the index before it
        // sleeps, or this thread sees that it is awaited.
        self.through.store(through.0, Ordering::SeqCst);
        if self.is_awaited.load(Ordering::SeqCst) {
            let _ = self.done.send(Done::Progress(through));
        }
    }

    /// Somebody begins to follow what is applied: the loop looks at once, and finds them.
    pub(crate) fn ask(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
        let _ = self.done.send(Done::Progress(self.through()));
    }

    /// The loop is about to sleep, knowing of everything up to `known`, and says whether it is to be
    /// woken by more; true when there is more already.
    pub(crate) fn settle(&self, known: Index, is_awaited: impl FnOnce() -> bool) -> bool {
        // Somebody who asks meanwhile must not be overlooked: first the mark, then the look.
        self.is_awaited.store(false, Ordering::SeqCst);
        if !is_awaited() {
            return false;
        }
        self.is_awaited.store(true, Ordering::SeqCst);
        known < self.through()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_is_woken_when_somebody_waits() {
        let (done, mut told) = mpsc::unbounded_channel();
        let progress = Progress::new(done);
        let mut wakes = |progress: &Progress, index| {
            progress.on_applied(Index(index));
            let count = std::iter::from_fn(|| told.try_recv().ok()).count();
            (progress.through(), count)
        };
        assert_eq!(wakes(&progress, 1), (Index(1), 1), "before the loop's first turn");
        assert!(!progress.settle(Index(1), || false));
        assert_eq!(wakes(&progress, 2), (Index(2), 0));
        assert!(!progress.settle(Index(2), || true));
        assert_eq!(wakes(&progress, 3), (Index(3), 1));
        assert!(progress.settle(Index(2), || true), "3 came before it said so");
        assert!(!progress.settle(Index(3), || false));
        progress.ask();
        assert_eq!(wakes(&progress, 4), (Index(4), 2), "for the question, and for what came");
    }

    #[test]
    fn who_asks_while_the_loop_goes_to_sleep_is_not_overlooked() {
        let (done, mut told) = mpsc::unbounded_channel();
        let progress = Progress::new(done);
        progress.settle(Index(0), || {
            progress.ask();
            false // the look came too early
        });
        assert!(told.try_recv().is_ok(), "the loop turns once more, and finds who asked");
    }
}
