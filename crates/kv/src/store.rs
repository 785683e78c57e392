//! The machine as its member holds it: applied by one thread, read by many, flushed by another.
//!
//! The log carries durability. What is applied stays in memory until a flush commits it, together
//! with the applied index, in one transaction; a crash in between loses only what the log replays.
//!
//! Locks are taken in this order: backend, state. The backend's is held through a flush, the state's
//! never while storage is written.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use bytes::Bytes;
use quorate_types::{Index, NodeId, Term};

use crate::alarm::Alarm;
use crate::allowance::{Allowance, CHANGE_ANSWER_BYTES_MAX};
use crate::apply::{Apply, Entry, Outcome};
use crate::backend::{Backend, Batch, Table};
use crate::command::Command;
use crate::error::{KvError, StoreError};
use crate::member::{Member, Members};
use crate::meta::{self, Applied, Meta};
use crate::request::AlarmType;
use crate::response::Response;
use crate::setting::Setting;
use crate::state::State;

/// Entries applied between two chances for readers to take the lock.
const STEP_ENTRIES: usize = 64;

/// Once answers take so much memory, they are handed out before more entries are applied.
const ANSWERS_BYTES: usize = 4 << 20;

/// Once unflushed changes take so much memory, a flush has to end before more entries are applied.
/// The last entry may go beyond it.
pub const OVERLAY_BYTES_MAX: usize = 64 << 20;

/// etcd's key-value store as a replicated machine.
///
/// Shared by `Arc`. Entries are applied by one thread; everything else may be called from any.
pub struct Store {
    backend: Mutex<Box<dyn Backend>>,
    state: RwLock<State>,
    node: NodeId,
    cluster_id: u64,
    size_bytes: AtomicU64,
    in_use_bytes: AtomicU64,
    views_count: AtomicUsize,
    /// Why nothing is done any more.
    failure: OnceLock<String>,
}

/// What a new member's state begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initial {
    /// The member whose state it is.
    pub node: NodeId,
    /// The cluster it belongs to.
    pub cluster_id: u64,
    /// The entry that the state stands for; 0 for a cluster that begins.
    pub applied: Index,
    /// Its term.
    pub term: Term,
    /// The membership as of it, in the engine's bytes.
    pub conf_state: Bytes,
    /// The members as of it.
    pub members: Vec<Member>,
}

impl Store {
    /// Writes a first state into empty storage, durably, and opens it.
    ///
    /// # Errors
    ///
    /// `NotEmpty` when there is something already.
    pub fn create(
        mut backend: impl Backend + 'static,
        initial: Initial,
    ) -> Result<Store, StoreError> {
        if !meta::is_empty(&*backend.view()?)? {
            return Err(StoreError::NotEmpty);
        }
        let Initial { node, cluster_id, applied: index, term, conf_state, members } = initial;
        let applied = Applied { index, term, conf_state };
        let mut batch = Batch::default();
        for (id, row) in Members::new(members).take_changed() {
            batch.put_sealed(Table::Member, &id, &row);
        }
        let (revision, compacted, removed) = (1, -1, -1);
        let autopilot = None;
        Meta { node, cluster_id, applied, revision, compacted, removed, autopilot }
            .write(&mut batch);
        backend.commit(&batch)?;
        Store::open(backend)
    }

    /// Opens what storage holds: the state as of the last flush, whose entries the log replays from
    /// [`Store::applied`] on. It reads every row once.
    ///
    /// # Errors
    ///
    /// `Missing` when the storage is empty, `Incomplete` when a restore was cut off, `Format` when
    /// another version wrote it, `Damaged` when a row is not what was stored, nonsense, or gone.
    pub fn open(backend: impl Backend + 'static) -> Result<Store, StoreError> {
        Store::open_telling(backend, &mut |_, _| {})
    }

    /// As [`Store::open`]; `progress` hears every so often how many bytes of how many are read.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn open_telling(
        backend: impl Backend + 'static,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Store, StoreError> {
        let state = State::load(&backend, progress)?;
        let (node, cluster_id) = (state.meta.node, state.meta.cluster_id);
        let store = Store {
            size_bytes: AtomicU64::new(0),
            in_use_bytes: AtomicU64::new(0),
            views_count: AtomicUsize::new(0),
            backend: Mutex::new(Box::new(backend)),
            state: RwLock::new(state),
            node,
            cluster_id,
            failure: OnceLock::new(),
        };
        store.measure(&**store.backend()?);
        Ok(store)
    }

    /// Applies committed entries, in the order of the log, and answers each. Entries that are
    /// applied already are passed over and answered with [`Response::Nothing`].
    ///
    /// It may end before the last entry, never before the first: hand out the answers, flush if
    /// [`Store::needs_flush`] says so, and come again with the rest.
    ///
    /// A function of the state and the entries alone: every member that wants an answer has the
    /// same.
    ///
    /// # Errors
    ///
    /// The member has to stop. `Command` and `Gap` are found before anything is applied.
    pub fn apply(&self, entries: &[Entry]) -> Result<Outcome, StoreError> {
        self.check()?;
        let mut applied = self.any_state().meta.applied.index;
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            if applied.next() < entry.index {
                return Err(StoreError::Gap { index: entry.index, applied });
            }
            applied = applied.max(entry.index);
            commands.push(match &entry.what {
                Apply::Command(bytes) => match Command::decode(bytes.clone()) {
                    Ok(command) => Some(command),
                    Err(source) => {
                        return Err(StoreError::Command { index: entry.index, source });
                    }
                },
                Apply::Empty | Apply::Membership { .. } => None,
            });
        }
        let mut outcome = Outcome {
            responses: Vec::with_capacity(entries.len()),
            revisions: Vec::with_capacity(entries.len()),
            members_changed: false,
        };
        let mut answers_bytes = 0;
        for (entries, commands) in entries.chunks(STEP_ENTRIES).zip(commands.chunks(STEP_ENTRIES)) {
            let mut state = self.state_mut()?;
            for (entry, command) in entries.iter().zip(commands) {
                match apply_entry(&mut state, entry, command.as_ref(), &mut outcome) {
                    Ok(answer_bytes) => answers_bytes += answer_bytes,
                    Err(error) => {
                        drop(state);
                        return Err(self.fail(error));
                    }
                }
                if ANSWERS_BYTES <= answers_bytes || OVERLAY_BYTES_MAX <= state.overlay_bytes() {
                    return Ok(outcome);
                }
            }
        }
        Ok(outcome)
    }

    /// Makes everything durable that is applied when it begins, in one transaction, and returns
    /// up to where the log is no longer needed. Entries go on being applied meanwhile. Of two
    /// flushes at a time the second waits.
    ///
    /// # Errors
    ///
    /// The member has to stop: no later flush is tried.
    pub fn flush(&self) -> Result<Index, StoreError> {
        self.check()?;
        let mut backend = self.backend()?;
        let flush = self.state_mut()?.begin_flush();
        let Some(flush) = flush else { return Ok(self.flushed_index()) };
        match flush.run(&mut **backend) {
            Ok(view) => self.state_mut()?.finish_flush(&flush, view),
            Err(error) => return Err(self.fail(error)),
        }
        self.measure(&**backend);
        drop(backend);
        // Freed outside every lock: it may be many rows.
        drop(flush);
        Ok(self.flushed_index())
    }

    /// Removes data that compaction has forgotten, looking at `keys_max` keys; true when nothing is
    /// left to do. What it finds goes from storage with the next flush. Readers and entries wait
    /// while it runs, so a thousand keys or so at a time is good.
    ///
    /// # Errors
    ///
    /// When the store has failed before.
    pub fn compact_step(&self, keys_max: usize) -> Result<bool, StoreError> {
        self.check()?;
        Ok(self.state_mut()?.compact_step(keys_max.max(1)))
    }

    /// The last compaction whose data is gone from storage, durably: a physical compaction to this
    /// revision or less may be answered. -1 before the first.
    pub fn removed_revision(&self) -> i64 {
        self.any_state().removed_durably()
    }

    /// Puts another state in the place of this one, which a snapshot restored into `backend` is.
    /// Readers that hold the old state finish on it. Returns the old backend.
    ///
    /// # Errors
    ///
    /// `Stale` when the other state is not newer, `Snapshot` when it belongs to another cluster or
    /// member; both leave everything as it was. Otherwise as [`Store::open`].
    pub fn replace(&self, backend: impl Backend + 'static) -> Result<Box<dyn Backend>, StoreError> {
        self.check()?;
        let fresh = State::load(&backend, &mut |_, _| {})?;
        if fresh.meta.cluster_id != self.cluster_id {
            return Err(StoreError::Snapshot("it belongs to another cluster".to_owned()));
        }
        if fresh.meta.node != self.node {
            return Err(StoreError::Snapshot("it was restored for another member".to_owned()));
        }
        let mut current = self.backend()?;
        let mut state = self.state_mut()?;
        let (offered, applied) = (fresh.meta.applied.index, state.meta.applied.index);
        // The index and all that depends on it change together, and only ever upwards.
        if offered <= applied || fresh.meta.revision < state.meta.revision {
            return Err(StoreError::Stale { offered, applied });
        }
        let old = std::mem::replace(&mut *state, fresh);
        drop(state);
        let old_backend = std::mem::replace(&mut *current, Box::new(backend));
        self.measure(&**current);
        drop(current);
        drop(old);
        Ok(old_backend)
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.any_state().meta.revision
    }

    /// The oldest revision that can be read; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.any_state().meta.compacted
    }

    /// Up to where the log is applied.
    pub fn applied(&self) -> Applied {
        self.any_state().meta.applied.clone()
    }

    /// Up to where the state is durable: the log before it is needed no more.
    pub fn flushed_index(&self) -> Index {
        self.any_state().flushed()
    }

    /// Memory of what waits for a flush, or is being flushed.
    pub fn overlay_bytes(&self) -> usize {
        self.any_state().overlay_bytes()
    }

    /// Whether a flush has to end before more is applied: what waits for one is as much as may be.
    pub fn needs_flush(&self) -> bool {
        OVERLAY_BYTES_MAX <= self.overlay_bytes()
    }

    /// Changes that wait for a flush, or are being flushed.
    pub fn overlay_count(&self) -> usize {
        self.any_state().overlay_count()
    }

    /// Keys known to the index, deleted ones included until compaction forgets them.
    pub fn keys_count(&self) -> usize {
        self.any_state().index.keys_count()
    }

    /// Versions of keys that compaction has forgotten since the store was opened.
    pub fn forgotten_count(&self) -> u64 {
        self.any_state().forgotten_count()
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.any_state().members.list()
    }

    /// The members, and who was one, as they are now.
    pub fn membership(&self) -> Members {
        self.any_state().members.clone()
    }

    /// Makes one member all that is left of the cluster, durably, under a membership that the caller
    /// made to fit. Only for a member whose cluster is lost, and before it takes part in anything.
    ///
    /// # Errors
    ///
    /// The member has to stop. `Damaged` when it is not in the list.
    pub fn keep_only_member(&self, id: u64, conf_state: Bytes) -> Result<(), StoreError> {
        self.check()?;
        let mut state = self.state_mut()?;
        let kept = state.members.keep_only(id);
        kept.map_err(|_| StoreError::Damaged(format!("member {id:x} is not in its own list")))?;
        state.meta.applied.conf_state = conf_state;
        drop(state);
        self.flush().map(drop)
    }

    /// What operators have told autopilot, if they have told it anything.
    pub fn autopilot(&self) -> Option<Setting> {
        self.any_state().meta.autopilot.clone()
    }

    /// The active alarms.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.any_state().alarms.list(AlarmType::None)
    }

    /// The member the state belongs to.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The cluster the state belongs to.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Bytes the storage takes, as of the last flush.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of those that hold something.
    pub fn in_use_bytes(&self) -> u64 {
        self.in_use_bytes.load(Ordering::Relaxed)
    }

    /// How many views of storage are held: by the store itself, by reads, and by snapshots that are
    /// being sent. As of before, while a flush runs.
    pub fn views_count(&self) -> usize {
        if let Ok(backend) = self.backend.try_lock() {
            self.views_count.store(backend.views_count(), Ordering::Relaxed);
        }
        self.views_count.load(Ordering::Relaxed)
    }

    /// Why the store does nothing any more, if so. The member has to stop.
    pub fn failure(&self) -> Option<String> {
        if self.state.is_poisoned() || self.backend.is_poisoned() {
            return Some("a call panicked".to_owned());
        }
        self.failure.get().cloned()
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.failure() {
            Some(failure) => Err(StoreError::Broken(failure)),
            None => Ok(()),
        }
    }

    /// Notes a failure, after which nothing is done any more.
    pub(crate) fn fail(&self, error: StoreError) -> StoreError {
        let _ = self.failure.set(error.to_string());
        error
    }

    /// What a client hears when its read met a failure.
    pub(crate) fn failed_read(&self, error: StoreError) -> KvError {
        self.fail(error);
        KvError::Corrupt
    }

    /// The state, for a read that a client asked for.
    pub(crate) fn state(&self) -> Result<RwLockReadGuard<'_, State>, KvError> {
        self.state.read().map_err(|_| KvError::Stopped)
    }

    /// The state, for figures of it, which are whole even where a call panicked.
    pub(crate) fn any_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> Result<RwLockWriteGuard<'_, State>, StoreError> {
        self.state.write().map_err(|_| StoreError::Broken("a call panicked".to_owned()))
    }

    pub(crate) fn backend(&self) -> Result<MutexGuard<'_, Box<dyn Backend>>, StoreError> {
        self.backend.lock().map_err(|_| StoreError::Broken("a call panicked".to_owned()))
    }

    pub(crate) fn measure(&self, backend: &dyn Backend) {
        self.size_bytes.store(backend.size_bytes(), Ordering::Relaxed);
        self.in_use_bytes.store(backend.in_use_bytes(), Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

/// Applies one entry, and returns how much memory its answer takes.
fn apply_entry(
    state: &mut State,
    entry: &Entry,
    command: Option<&Command>,
    outcome: &mut Outcome,
) -> Result<usize, StoreError> {
    if entry.index <= state.meta.applied.index {
        outcome.responses.push(Ok(Response::Nothing));
        outcome.revisions.push(state.meta.revision);
        return Ok(0);
    }
    let mut allowance = if entry.answer_wanted {
        Allowance::new(CHANGE_ANSWER_BYTES_MAX)
    } else {
        Allowance::none()
    };
    let response = match (&entry.what, command) {
        (Apply::Command(_), Some(command)) => {
            outcome.members_changed |= matches!(command, Command::PublishMember { .. });
            state.apply_command((entry.index, entry.term), command, &mut allowance)?
        }
        (Apply::Membership { conf_state, change }, _) => {
            outcome.members_changed = true;
            state.apply_membership(conf_state, change.as_ref())
        }
        (Apply::Empty, _) => Ok(Response::Nothing),
        (Apply::Command(_), None) => unreachable!("each command was decoded"),
    };
    state.meta.applied.index = entry.index;
    state.meta.applied.term = entry.term;
    // Who cannot be told all is told nothing but that.
    let response =
        response.and_then(|response| match (entry.answer_wanted, allowance.is_spent()) {
            (true, false) => Ok(response),
            (true, true) => Err(KvError::AppliedResponseTooLarge),
            (false, _) => Ok(Response::Nothing),
        });
    outcome.responses.push(response);
    outcome.revisions.push(state.meta.revision);
    Ok(allowance.used_bytes())
}
