//! The apply thread: gives committed entries to the machine, in order, and answers who waits.
//!
//! Everything that changes the machine as a whole (flush, snapshot, install) goes through the same
//! inbox as entries, so it falls between two entries by construction.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Instant;

use quorate_codec as codec;
use quorate_kv::{Apply, CommandKind, Entry, MemberChange, Members, Store};
use quorate_raft::{Snapshot, SnapshotMetadata};
use quorate_replica::{Applying, Message, RequestId, open, open_change};
use quorate_types::Index;
use tokio::sync::mpsc;

use crate::machine::{Reading, StateFile};
use crate::metrics::{Metrics, SLOW_APPLY};
use crate::node::{Answer, FatalError};
use crate::peers::agree;
use crate::progress::Progress;
use crate::revisions::Revisions;
use crate::snapshot::{Source, Word, described};
use crate::waiters::Waiters;

/// Entries taken from the inbox at once.
const BATCH_MAX: usize = 4096;

/// Entries given to the machine in one call. Where answers are large it comes back with the rest,
/// which is then read once more.
const CALL_MAX: usize = 256;

/// Keys looked at in one step of removing what compaction has forgotten.
const COMPACT_KEYS: usize = 1000;

/// Work for the apply thread, in order.
#[derive(Debug)]
pub(crate) enum Work {
    /// Apply these.
    Apply(Vec<Applying>),
    /// Make the state durable.
    Flush,
    /// Keep a view of the state ready to be sent.
    MakeSnapshot,
    /// Replace the state by a received one.
    Install {
        /// Which.
        snapshot: Snapshot,
    },
}

/// What came of it, and of what other threads do for the loop.
pub(crate) enum Done {
    /// Everything up to here is applied, and somebody waits for that; see the type of this name.
    Progress(Index),
    /// The members may differ from before, by what is applied up to here.
    Members {
        /// The last index.
        through: Index,
        /// The members as of then.
        members: Members,
    },
    /// Everything up to here is durable in the state.
    Flushed(Index),
    /// A view is ready.
    SnapshotMade(Made),
    /// A snapshot was received whole; this is its message, and how to tell who sent it that it is of use.
    SnapshotReceived(Message, Word),
    /// The received state is in place, with these members.
    Installed(Members),
    /// The machine cannot go on.
    Failed(FatalError),
}

/// A view of the state that can be read any number of times.
pub(crate) struct Made {
    /// What it stands for.
    pub(crate) snapshot: Snapshot,
    /// Starts reading it.
    pub(crate) open: Box<dyn Fn() -> io::Result<Source> + Send>,
}

/// What the thread works with.
pub(crate) struct Applier {
    pub(crate) store: Arc<Store>,
    pub(crate) waiters: Arc<Waiters<Answer>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) state_file: Arc<StateFile>,
    /// The directory's lock: held as long as anything here may write.
    pub(crate) lock: Arc<File>,
    pub(crate) done: mpsc::UnboundedSender<Done>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) revisions: Arc<Revisions>,
}

impl Applier {
    /// Runs until its inbox closes; then makes the state durable. A failure is final.
    pub(crate) fn run(self, inbox: blocking::Receiver<Work>) {
        // What compaction has forgotten is removed in small steps, one after each piece of other work
        // and more when there is none; a restart resumes it.
        let mut removing = true;
        let mut compacted = self.store.compact_revision();
        let mut next = None;
        loop {
            let work = match next.take() {
                Some(work) => work,
                None if removing => match inbox.try_recv() {
                    Ok(work) => work,
                    Err(blocking::TryRecvError::Disconnected) => break,
                    Err(blocking::TryRecvError::Empty) => {
                        removing = !self.remove_some();
                        continue;
                    }
                },
                None => match inbox.recv() {
                    Ok(work) => work,
                    Err(blocking::RecvError) => break,
                },
            };
            let outcome = match work {
                Work::Apply(entries) => {
                    let entries = gather(entries, &inbox, &mut next);
                    self.apply(entries)
                }
                Work::Flush => self.begin_flush(),
                Work::MakeSnapshot => self.begin_snapshot(),
                Work::Install { snapshot } => self.install(&snapshot),
            };
            let failed = outcome.is_err();
            if let Some(done) = outcome.unwrap_or_else(|error| Some(Done::Failed(error)))
                && self.done.send(done).is_err()
            {
                break;
            }
            if failed {
                return;
            }
            let now = self.store.compact_revision();
            removing |= now != compacted;
            compacted = now;
            // However much there is to apply.
            if removing {
                removing = !self.remove_some();
            }
        }
        if let Err(error) = self.store.flush() {
            tracing::error!(%error, "the state was not flushed; the log is replayed at the next start");
        }
    }

    /// One step of removing what compaction has forgotten; true when nothing is left. The end is
    /// flushed at once, because a physical compaction waits for it.
    fn remove_some(&self) -> bool {
        match self.store.compact_step(COMPACT_KEYS) {
            Ok(false) => false,
            Ok(true) => {
                if self.store.removed_revision() < self.store.compact_revision()
                    && let Err(error) = self.begin_flush()
                {
                    let _ = self.done.send(Done::Failed(error));
                }
                true
            }
            Err(error) => {
                let _ = self.done.send(Done::Failed(failed(error)));
                true
            }
        }
    }

    fn apply(&self, entries: Vec<Applying>) -> Result<Option<Done>, FatalError> {
        let started = Instant::now();
        let mut members_changed = false;
        let mut requests: Vec<Option<RequestId>> = Vec::with_capacity(entries.len());
        let mut kinds: Vec<Option<CommandKind>> = Vec::with_capacity(entries.len());
        let mut batch = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut kind = None;
            let (index, term, what) = match entry {
                Applying::Command { index, term, entry } => {
                    let (request, command) = open(entry)
                        .map_err(|error| FatalError::Machine(format!("at {index}: {error}")))?;
                    requests.push(Some(request));
                    kind = CommandKind::of_encoded(&command);
                    if let Some(kind) = kind {
                        self.metrics.applied.on_command(kind);
                    }
                    (index, term, Apply::Command(command))
                }
                Applying::Empty { index, term } => {
                    requests.push(None);
                    (index, term, Apply::Empty)
                }
                Applying::Membership { index, term, change, conf_state } => {
                    members_changed = true;
                    let opened = open_change(change.as_v2().context);
                    requests.push(opened.as_ref().map(|(request, ..)| *request));
                    let change = opened.map(|(_, _, bytes)| MemberChange::decode(bytes));
                    let change = change
                        .transpose()
                        .map_err(|error| FatalError::Machine(format!("at {index}: {error}")))?;
                    let conf_state = codec::encode_conf_state_record(&conf_state);
                    (index, term, Apply::Membership { conf_state, change })
                }
            };
            kinds.push(kind);
            batch.push(Entry { index, term, what, answer_wanted: false });
        }
        let calls = batch.chunks_mut(CALL_MAX).zip(requests.chunks(CALL_MAX));
        for ((entries, requests), kinds) in calls.zip(kinds.chunks(CALL_MAX)) {
            self.apply_call(entries, requests, kinds, members_changed)?;
        }
        if members_changed {
            check_members(&self.store)?;
        }
        self.metrics.applied_entries.add(batch.len() as u64);
        let took = started.elapsed();
        self.metrics.apply_batch.observe(took);
        self.metrics.slow_applies.add(u64::from(SLOW_APPLY < took));
        Ok(None)
    }

    /// Applies these, answers who waits, and tells the loop.
    fn apply_call(
        &self,
        entries: &mut [Entry],
        requests: &[Option<RequestId>],
        kinds: &[Option<CommandKind>],
        members_changed: bool,
    ) -> Result<(), FatalError> {
        for (entry, wanted) in entries.iter_mut().zip(self.waiters.are_waited_for(requests)) {
            entry.answer_wanted = wanted;
        }
        let mut done = 0;
        while done < entries.len() {
            if self.store.needs_flush() {
                self.flush_first()?;
            }
            let started = Instant::now();
            let applied = self.store.apply(&entries[done..]).map_err(failed)?;
            let count = u32::try_from(applied.responses.len()).unwrap_or(u32::MAX);
            let each = started.elapsed() / count.max(1);
            for (kind, response) in kinds[done..].iter().zip(&applied.responses) {
                if let Some(kind) = kind {
                    self.metrics.applied.on_applied(*kind, response.is_ok(), each);
                }
            }
            let may_differ = members_changed || applied.members_changed;
            let from = done;
            done += applied.responses.len();
            let indices = entries[from..done].iter().map(|entry| entry.index);
            self.revisions.on_applied(indices.zip(applied.revisions));
            let answers = requests[from..done]
                .iter()
                .zip(applied.responses)
                .filter_map(|(request, response)| Some(((*request)?, Answer::Applied(response))))
                .collect();
            let through = entries[done - 1].index;
            if may_differ {
                let members = self.store.membership();
                let _ = self.done.send(Done::Members { through, members });
            }
            // After the members, so that who knows of this knows of them.
            self.progress.on_applied(through);
            // Whoever has an answer finds it applied, wherever it looks.
            self.waiters.answer_all(answers);
        }
        Ok(())
    }

    /// Changes come faster than they are flushed: they wait here, and entries in the log, instead of
    /// growing in memory. A flush under way ends first.
    fn flush_first(&self) -> Result<(), FatalError> {
        let started = Instant::now();
        let index = self.store.flush().map_err(failed)?;
        self.metrics.flushes.add(1);
        self.metrics.flush.observe(started.elapsed());
        let _ = self.done.send(Done::Flushed(index));
        Ok(())
    }

    /// The commit runs on a thread of its own; entries are applied meanwhile.
    fn begin_flush(&self) -> Result<Option<Done>, FatalError> {
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        self.beside("quorate-flush", move || {
            let started = Instant::now();
            let index = store.flush().map_err(failed)?;
            metrics.flushes.add(1);
            metrics.flush.observe(started.elapsed());
            Ok(Done::Flushed(index))
        })
    }

    /// So does the flush that a snapshot begins with: it waits for a rewriting of the whole file.
    fn begin_snapshot(&self) -> Result<Option<Done>, FatalError> {
        let store = Arc::clone(&self.store);
        self.beside("quorate-view", move || make_snapshot(&store).map(Done::SnapshotMade))
    }

    /// Does something on a thread of its own, and tells the loop what came of it.
    fn beside(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<Done, FatalError> + Send + 'static,
    ) -> Result<Option<Done>, FatalError> {
        let (done, lock) = (self.done.clone(), Arc::clone(&self.lock));
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _ = done.send(work().unwrap_or_else(Done::Failed));
                drop(lock);
            })
            .map_err(|error| FatalError::Machine(format!("cannot start a thread: {error}")))?;
        Ok(None)
    }

    fn install(&self, snapshot: &Snapshot) -> Result<Option<Done>, FatalError> {
        self.metrics.installing.set(1);
        let replaced = self.state_file.replace(&self.store, &snapshot.metadata);
        self.metrics.installing.set(0);
        replaced.map_err(FatalError::Machine)?;
        self.revisions.restart(self.store.applied().index, self.store.revision());
        Ok(Some(Done::Installed(self.store.membership())))
    }
}

fn make_snapshot(store: &Store) -> Result<Made, FatalError> {
    let view = store.snapshot().map_err(failed)?;
    let applied = view.applied();
    let conf_state = codec::decode_conf_state_record(applied.conf_state.clone())
        .map_err(|error| FatalError::Machine(error.to_string()))?;
    let metadata = SnapshotMetadata { conf_state, index: applied.index, term: applied.term };
    Ok(Made {
        snapshot: described(metadata),
        open: Box::new(move || Ok(Box::new(Reading::new(view.reader())) as Source)),
    })
}

/// There are two lists of members, the engine's and the machine's. They change together, and a member
/// on which they differ must not go on.
pub(crate) fn check_members(store: &Store) -> Result<(), FatalError> {
    let applied = store.applied();
    let conf_state = codec::decode_conf_state_record(applied.conf_state)
        .map_err(|error| FatalError::Machine(error.to_string()))?;
    let members = store.membership();
    // One that joins knows the list before it has any state.
    if applied.index == Index(0) || agree(&conf_state, &members) {
        return Ok(());
    }
    let members = members.list();
    let members: Vec<_> = members.iter().map(|member| (member.id, member.is_learner)).collect();
    Err(FatalError::Machine(format!(
        "at {}: the membership in force is {conf_state:?}, and the list of members says {members:?} \
         (whether each is a learner)",
        applied.index
    )))
}

/// Adds what came meanwhile to the batch; other work waits its turn.
fn gather(
    mut entries: Vec<Applying>,
    inbox: &blocking::Receiver<Work>,
    next: &mut Option<Work>,
) -> Vec<Applying> {
    while entries.len() < BATCH_MAX {
        match inbox.try_recv() {
            Ok(Work::Apply(more)) => entries.extend(more),
            Ok(other) => {
                *next = Some(other);
                break;
            }
            Err(_) => break,
        }
    }
    entries
}

fn failed(error: impl std::fmt::Display) -> FatalError {
    FatalError::Machine(error.to_string())
}

#[cfg(test)]
mod tests;
