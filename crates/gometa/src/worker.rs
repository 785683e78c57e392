//! The thread that makes the application's calls that store something.
//!
//! What is committed goes before what is to be written: it is durable already, so their order means
//! nothing to a log; nor does it to a state that takes the place of both, since nothing after it is
//! committed before it is stored. Writes that only append and wait behind each other become one call, so a slow
//! disk makes larger writes and not a longer queue. Within one write promises come first, then
//! entries, then the epoch they are of: a crash between any two of them leaves a state that a node
//! may go on from.
//!
//! The queue is bounded by the engine: by what may be proposed and not committed, what a learner may
//! be sent at a time, and what may be handed out to be applied.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use quorate_types::Index;
use quorate_zab::{Entry, HardState, Snapshot, WriteId, Zxid};
use tokio::sync::{mpsc, oneshot};

use crate::{ActionError, ActionHandler};

/// Work for the thread.
pub(crate) enum Job {
    Write(Writing),
    Commit(Vec<Entry>),
    /// The log is asked for nothing up to here any more.
    Forget(Index, Zxid),
}

/// A write of the engine's, with what the application needs to know of it.
#[derive(Default)]
pub(crate) struct Writing {
    pub(crate) id: WriteId,
    /// Replaces everything, before anything else but promises.
    pub(crate) install: Option<Snapshot>,
    /// The entry after which everything is replaced; nothing when entries are only appended.
    pub(crate) replace_after: Option<Zxid>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) hard_state: Option<HardState>,
}

/// What the thread has done.
#[derive(Debug)]
pub(crate) enum Done {
    Written(WriteId),
    Committed(Index),
    /// A call failed. The thread has ended.
    Failed(ActionError),
}

/// The thread's owner. Dropping it ends the thread after the call it is in.
pub(crate) struct Worker {
    jobs: Option<std_mpsc::Sender<Job>>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Worker {
    /// Starts the thread. What it has done comes out of the receiver.
    pub(crate) fn start(
        actions: Arc<dyn ActionHandler>,
        stored: HardState,
    ) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Done>)> {
        let (jobs, queue) = std_mpsc::channel();
        let (done, results) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("gometa-actions".to_owned()).spawn(move || {
            let mut thread = Thread { actions, stored, done };
            // A panic of the application's is a failed call, and not the program's end.
            let result = catch_unwind(AssertUnwindSafe(|| thread.run(&queue)));
            let failed = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some(ActionError("a call of the application panicked".to_owned())),
            };
            if let Some(error) = failed {
                let _ = thread.done.send(Done::Failed(error));
            }
            let _ = end.send(());
        })?;
        Ok((Worker { jobs: Some(jobs), ended: Some(ended) }, results))
    }

    /// Queues work. When the thread has failed, `Done::Failed` is on its way already.
    pub(crate) fn give(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// Ends the thread, and waits until the call it is in returns.
    pub(crate) async fn end(&mut self) {
        self.jobs = None;
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }
}

struct Thread {
    actions: Arc<dyn ActionHandler>,
    /// The promises as they were stored last.
    stored: HardState,
    done: mpsc::UnboundedSender<Done>,
}

impl Thread {
    fn run(&mut self, queue: &std_mpsc::Receiver<Job>) -> Result<(), ActionError> {
        let mut writes = Vec::new();
        while let Ok(first) = queue.recv() {
            for job in std::iter::once(first).chain(queue.try_iter()) {
                match job {
                    Job::Write(write) => writes.push(write),
                    Job::Commit(entries) => self.commit(&entries)?,
                    Job::Forget(index, last) => self.actions.forget(index, last)?,
                }
            }
            let mut waiting = std::mem::take(&mut writes).into_iter().peekable();
            while let Some(mut write) = waiting.next() {
                while write.is_append() && waiting.peek().is_some_and(Writing::is_append) {
                    if let Some(next) = waiting.next() {
                        write.id = next.id;
                        write.entries.extend(next.entries);
                    }
                }
                self.write(write)?;
            }
        }
        Ok(())
    }

    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError> {
        if let Some(last) = entries.last() {
            self.actions.commit(entries)?;
            let _ = self.done.send(Done::Committed(last.index));
        }
        Ok(())
    }

    fn write(&mut self, write: Writing) -> Result<(), ActionError> {
        let before = self.stored.clone();
        let after = write.hard_state.unwrap_or_else(|| before.clone());
        let promise = (after.accepted_epoch, &after.accepted_leader);
        if promise != (before.accepted_epoch, &before.accepted_leader)
            && let Some(leader) = &after.accepted_leader
        {
            self.actions.notify_new_accepted_epoch(after.accepted_epoch, leader)?;
        }
        if let Some(state) = &write.install {
            self.actions.install(state)?;
        }
        match write.replace_after {
            Some(after) => self.actions.replace_tail(after, &write.entries)?,
            None if write.entries.is_empty() => {}
            None => self.actions.log_proposal(&write.entries)?,
        }
        if after.current_epoch != before.current_epoch {
            self.actions.notify_new_current_epoch(after.current_epoch)?;
        }
        self.stored = after;
        let _ = self.done.send(Done::Written(write.id));
        Ok(())
    }
}

impl Writing {
    /// Whether it adds entries and does nothing else.
    fn is_append(&self) -> bool {
        self.install.is_none() && self.replace_after.is_none() && self.hard_state.is_none()
    }
}

#[cfg(test)]
mod tests;
