//! When leases end, by the clock of the one member that leads.
//!
//! ```text
//! lead    every lease lives at least as long as was promised, and a while longer
//! renew   from now on for the whole of its time
//! expired its time is up: propose that it goes, and again until it has gone
//! follow  nothing is known any more, nothing is promised
//! ```
//! Nothing here is replicated, and nothing here ends a lease: a command that goes through the log
//! does ([`Command::LeaseExpire`]). It names the term it was judged in and the entry that granted the
//! lease, so one that comes late, from a leader that was deposed meanwhile, changes nothing.
//!
//! Time is in milliseconds from any beginning, given by the caller from a clock that only goes
//! forward. If it goes back nevertheless it counts as standing still: a lease may live longer than
//! it should, never shorter.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Term, bug};

use crate::command::{Command, LeaseCheckpoint};
use crate::error::{KvError, StoreError};
use crate::lease::{Lease, Leases};
use crate::response::{LeaseLeasesResponse, LeaseTimeToLiveResponse};
use crate::state::State;
use crate::store::Store;

/// An expired lease whose end was asked for and has not come is asked for again after this long.
const EXPIRE_AGAIN_MS: u64 = 3_000;

/// What is left of a lease is noted this often, so that a change of leaders costs a long lease no
/// more than this. Etcd's interval.
const CHECKPOINT_EVERY_MS: u64 = 300_000;

/// Leases in one command that notes what is left of them.
pub const LEASE_CHECKPOINTS_MAX: usize = 1000;

/// What came of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lives so long from now on, if this member still leads: confirm that before telling
    /// anybody.
    Renewed {
        /// What it was granted for.
        ttl_seconds: i64,
    },
    /// Its time was up, and its end is on its way through the log. Ask again until the lease is
    /// gone.
    Expiring,
    /// A checkpoint promises less. This command takes it back; renew again once it is applied.
    After(Command),
}

/// Deadlines as the leader knows them; nothing while another member leads.
#[derive(Debug, Default)]
pub(crate) struct Lessor {
    reign: Option<Reign>,
    /// The last term that was led and is over.
    over: Term,
}

#[derive(Debug)]
struct Reign {
    term: Term,
    /// How many checkpoints were made in it.
    order: u64,
    /// The latest time ever given.
    now_ms: u64,
    timers: BTreeMap<i64, Timer>,
    /// When to look at which lease: what expires first comes first.
    by_time: BTreeSet<(u64, i64)>,
    /// Likewise for checkpoints.
    by_checkpoint: BTreeSet<(u64, i64)>,
    /// Granted since time was told last: their time begins when it is told next.
    undated: BTreeSet<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    deadline_ms: u64,
    /// When to look at it: at the deadline, and later again and again.
    look_ms: u64,
    checkpoint_ms: Option<u64>,
    /// Its end was asked for, so it cannot be renewed any more.
    is_expired: bool,
    /// The order of the last checkpoint that was made and promises less than the whole of its time,
    /// until a later one takes it back. It may still be on its way, or be lost.
    noted: Option<u64>,
}

impl Lessor {
    /// Gives every lease what was promised and `extension_ms` more.
    fn lead(&mut self, leases: &Leases, term: Term, now_ms: u64, extension_ms: u64) {
        let mut reign = Reign {
            term,
            order: 0,
            now_ms,
            timers: BTreeMap::new(),
            by_time: BTreeSet::new(),
            by_checkpoint: BTreeSet::new(),
            undated: BTreeSet::new(),
        };
        for (id, lease) in leases.iter() {
            if bug!("a-new-leader-knows-of-no-leases") {
                continue;
            }
            let left_ms = milliseconds(lease.promised_seconds()).saturating_add(extension_ms);
            let left_ms =
                if bug!("a-new-leader-cuts-leases-short") { left_ms / 4 } else { left_ms };
            reign.set(id, now_ms.saturating_add(left_ms));
        }
        self.reign = Some(reign);
    }

    fn follow(&mut self) {
        if let Some(reign) = self.reign.take() {
            self.over = reign.term;
        }
    }

    /// A lease was granted.
    pub(crate) fn granted(&mut self, id: i64) {
        if let Some(reign) = &mut self.reign {
            reign.undated.insert(id);
        }
    }

    /// A lease was promised the whole of its time again, by a checkpoint of this term and order.
    pub(crate) fn made_whole(&mut self, id: i64, (term, order): (Term, u64)) {
        let reign = self.reign.as_mut().filter(|reign| reign.term == term);
        if let Some(timer) = reign.and_then(|reign| reign.timers.get_mut(&id)) {
            // What was made after it, and is still to come, promises less again.
            timer.noted = timer.noted.filter(|noted| order < *noted);
        }
    }

    /// A lease is gone.
    pub(crate) fn removed(&mut self, id: i64) {
        if let Some(reign) = &mut self.reign {
            reign.undated.remove(&id);
            reign.unset(id);
        }
    }

    /// The reign as of `now_ms`, if this member leads in `term` or in any.
    fn reign(&mut self, leases: &Leases, now_ms: u64) -> Option<&mut Reign> {
        let reign = self.reign.as_mut()?;
        reign.now_ms = reign.now_ms.max(now_ms);
        for id in std::mem::take(&mut reign.undated) {
            let lease = leases.get(id).expect("a lease that went is not waited for");
            reign.set(id, reign.now_ms.saturating_add(milliseconds(lease.ttl_seconds)));
        }
        Some(reign)
    }
}

impl Reign {
    /// From now on the lease ends at `deadline_ms`.
    fn set(&mut self, id: i64, deadline_ms: u64) {
        self.unset(id);
        // What ends before its next checkpoint needs none.
        let next_ms = self.now_ms.saturating_add(CHECKPOINT_EVERY_MS);
        let checkpoint_ms = (next_ms < deadline_ms).then_some(next_ms);
        let look_ms = deadline_ms;
        let (is_expired, noted) = (false, None);
        let timer = Timer { deadline_ms, look_ms, checkpoint_ms, is_expired, noted };
        self.timers.insert(id, timer);
        self.by_time.insert((look_ms, id));
        self.by_checkpoint.extend(checkpoint_ms.map(|at_ms| (at_ms, id)));
    }

    fn unset(&mut self, id: i64) {
        if let Some(timer) = self.timers.remove(&id) {
            self.by_time.remove(&(timer.look_ms, id));
            if let Some(at_ms) = timer.checkpoint_ms {
                self.by_checkpoint.remove(&(at_ms, id));
            }
        }
    }

    /// The next command that notes what is left of leases.
    fn checkpoint(&mut self, checkpoints: Vec<LeaseCheckpoint>) -> Command {
        self.order += 1;
        Command::LeaseCheckpoint { term: self.term, order: self.order, checkpoints }
    }

    /// The first `count_max` leases whose time is up and whose end has to be asked for.
    fn expired(&mut self, count_max: usize) -> Vec<i64> {
        let now_ms = self.now_ms;
        let due = self.by_time.iter().take_while(|(at_ms, _)| *at_ms <= now_ms);
        let due: Vec<(u64, i64)> = due.take(count_max).copied().collect();
        for (at_ms, id) in &due {
            let timer = self.timers.get_mut(id).expect("each time belongs to a timer");
            timer.is_expired = true;
            let again_ms =
                if bug!("an-end-is-asked-for-once") { u64::MAX } else { EXPIRE_AGAIN_MS };
            timer.look_ms = now_ms.saturating_add(again_ms);
            self.by_time.remove(&(*at_ms, *id));
            self.by_time.insert((timer.look_ms, *id));
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// The first `count_max` leases of which to note what is left, in whole seconds, rounded up: in
    /// the next [`Reign::checkpoint`].
    fn checkpoints(&mut self, count_max: usize) -> Vec<(i64, i64)> {
        let now_ms = self.now_ms;
        let due = self.by_checkpoint.iter().take_while(|(at_ms, _)| *at_ms <= now_ms);
        let due: Vec<(u64, i64)> = due.take(count_max).copied().collect();
        let mut noted = Vec::with_capacity(due.len());
        for (at_ms, id) in due {
            self.by_checkpoint.remove(&(at_ms, id));
            let timer = self.timers.get_mut(&id).expect("each time belongs to a timer");
            let next_ms = now_ms.saturating_add(CHECKPOINT_EVERY_MS);
            timer.checkpoint_ms = (next_ms < timer.deadline_ms).then_some(next_ms);
            self.by_checkpoint.extend(timer.checkpoint_ms.map(|at_ms| (at_ms, id)));
            if now_ms < timer.deadline_ms {
                timer.noted = Some(self.order + 1);
                noted.push((id, (timer.deadline_ms - now_ms).div_ceil(1000) as i64));
            }
        }
        noted
    }
}

/// A member in its own time.
impl Store {
    /// From now on leases end by this member's clock, because it leads in `term`: every lease gets
    /// what was promised and `extension_ms` more, an election timeout, since the old leader may
    /// have renewed it until then. False, and nothing is done, until an entry of that term is
    /// applied: before that some grants may be missing. Nor is anything done once
    /// [`Store::follow_leases`] has ended the term: nobody leads twice in one, and commands of it may
    /// still be on their way.
    ///
    /// # Errors
    ///
    /// When the store has failed before.
    ///
    /// Source: etcd's `Lessor.Promote`.
    pub fn lead_leases(
        &self,
        term: Term,
        now_ms: u64,
        extension_ms: u64,
    ) -> Result<bool, StoreError> {
        let mut state = self.state_mut()?;
        let State { leases, lessor, meta, .. } = &mut *state;
        if meta.applied.term != term || term <= lessor.over {
            return Ok(false);
        }
        if lessor.reign.as_ref().is_none_or(|reign| reign.term != term) {
            lessor.lead(leases, term, now_ms, extension_ms);
        }
        Ok(true)
    }

    /// From now on another member's clock counts. Call it as soon as this one does not lead.
    ///
    /// # Errors
    ///
    /// When the store has failed before.
    ///
    /// Source: etcd's `Lessor.Demote`.
    pub fn follow_leases(&self) -> Result<(), StoreError> {
        self.state_mut()?.lessor.follow();
        Ok(())
    }

    /// The term in which leases end by this member's clock, if they do.
    pub fn leads_leases(&self) -> Option<Term> {
        self.any_state().lessor.reign.as_ref().map(|reign| reign.term)
    }

    /// Gives a lease the whole of its time again. Whoever asked may be told only once this member
    /// has confirmed that it still leads, in the term of [`Store::leads_leases`].
    ///
    /// # Errors
    ///
    /// `NotPrimaryLessor` if this member does not lead; `LeaseNotFound`.
    ///
    /// Source: etcd's `Lessor.Renew`.
    pub fn lease_renew(&self, id: i64, now_ms: u64) -> Result<Renewal, KvError> {
        let mut state = self.state_mut().map_err(|_| KvError::Stopped)?;
        let State { leases, lessor, .. } = &mut *state;
        let reign = lessor.reign(leases, now_ms).ok_or(KvError::NotPrimaryLessor)?;
        let lease = leases.get(id).ok_or(KvError::LeaseNotFound)?;
        let timer = reign.timers.get(&id).expect("each lease has a timer while this member leads");
        if timer.is_expired || timer.deadline_ms <= reign.now_ms {
            return Ok(Renewal::Expiring);
        }
        if lease.remaining_seconds != 0 || timer.noted.is_some() {
            let whole = LeaseCheckpoint { id, granted: lease.granted, remaining_seconds: 0 };
            return Ok(Renewal::After(reign.checkpoint(vec![whole])));
        }
        let ttl_seconds = lease.ttl_seconds;
        reign.set(id, reign.now_ms.saturating_add(milliseconds(ttl_seconds)));
        Ok(Renewal::Renewed { ttl_seconds })
    }

    /// Commands that end the leases whose time is up, at most `count_max`, the oldest first. Each
    /// comes again every few seconds until it is applied. Empty if this member does not lead.
    ///
    /// # Errors
    ///
    /// When the store has failed before.
    pub fn leases_expired(
        &self,
        now_ms: u64,
        count_max: usize,
    ) -> Result<Vec<Command>, StoreError> {
        let mut state = self.state_mut()?;
        let State { leases, lessor, .. } = &mut *state;
        let Some(reign) = lessor.reign(leases, now_ms) else { return Ok(Vec::new()) };
        let term = reign.term;
        let expired = reign.expired(count_max).into_iter();
        Ok(expired
            .map(|id| {
                let granted = known(leases, id).granted;
                Command::LeaseExpire { id, granted, term }
            })
            .collect())
    }

    /// A command that notes what is left of long leases, if it is time for any. At most
    /// [`LEASE_CHECKPOINTS_MAX`] are in one: ask again until there is none. It may be lost.
    ///
    /// # Errors
    ///
    /// When the store has failed before.
    pub fn leases_to_checkpoint(&self, now_ms: u64) -> Result<Option<Command>, StoreError> {
        let mut state = self.state_mut()?;
        let State { leases, lessor, .. } = &mut *state;
        let Some(reign) = lessor.reign(leases, now_ms) else { return Ok(None) };
        let checkpoints: Vec<LeaseCheckpoint> = reign
            .checkpoints(LEASE_CHECKPOINTS_MAX)
            .into_iter()
            .map(|(id, remaining_seconds)| {
                let granted = known(leases, id).granted;
                LeaseCheckpoint { id, granted, remaining_seconds }
            })
            .collect();
        Ok((!checkpoints.is_empty()).then(|| reign.checkpoint(checkpoints)))
    }

    /// How long a lease has to live, in whole seconds, and which keys it has, in their order, if
    /// wanted. An unknown one has -1, as in etcd.
    ///
    /// # Errors
    ///
    /// `NotPrimaryLessor` if this member does not lead, `ResponseTooLarge`.
    pub fn lease_time_to_live(
        &self,
        id: i64,
        wants_keys: bool,
        now_ms: u64,
    ) -> Result<LeaseTimeToLiveResponse, KvError> {
        let mut state = self.state_mut().map_err(|_| KvError::Stopped)?;
        let State { leases, lessor, meta, .. } = &mut *state;
        let reign = lessor.reign(leases, now_ms).ok_or(KvError::NotPrimaryLessor)?;
        let revision = meta.revision;
        let Some(lease) = leases.get(id) else {
            let nothing = LeaseTimeToLiveResponse { ttl_seconds: -1, ..Default::default() };
            return Ok(LeaseTimeToLiveResponse { revision, id, ..nothing });
        };
        let timer = reign.timers.get(&id).expect("each lease has a timer while this member leads");
        let left_ms = timer.deadline_ms.saturating_sub(reign.now_ms);
        let mut allowance = crate::allowance::Allowance::new(crate::RANGE_ANSWER_BYTES_MAX);
        let mut keys = Vec::new();
        for key in lease.keys.iter().filter(|_| wants_keys) {
            if !allowance.take(size_of::<bytes::Bytes>() + key.len()) {
                return Err(KvError::ResponseTooLarge);
            }
            keys.push(bytes::Bytes::copy_from_slice(key));
        }
        let (ttl_seconds, granted_seconds) = ((left_ms / 1000) as i64, lease.ttl_seconds);
        Ok(LeaseTimeToLiveResponse { revision, id, ttl_seconds, granted_seconds, keys })
    }

    /// The ids of all leases: where this member leads those that end first come first, otherwise by
    /// id.
    ///
    /// # Errors
    ///
    /// When the store has failed before.
    pub fn leases(&self) -> Result<LeaseLeasesResponse, KvError> {
        let state = self.state()?;
        let ids = match &state.lessor.reign {
            None => state.leases.iter().map(|(id, _)| id).collect(),
            Some(reign) => {
                let mut by_deadline: Vec<(u64, i64)> =
                    reign.timers.iter().map(|(id, timer)| (timer.deadline_ms, *id)).collect();
                // Their time has not begun, but how long it will be is known.
                by_deadline.extend(reign.undated.iter().map(|id| {
                    let left_ms = milliseconds(known(&state.leases, *id).ttl_seconds);
                    (reign.now_ms.saturating_add(left_ms), *id)
                }));
                by_deadline.sort_unstable();
                by_deadline.into_iter().map(|(_, id)| id).collect()
            }
        };
        Ok(LeaseLeasesResponse { revision: state.meta.revision, ids })
    }

    /// How many leases there are.
    pub fn leases_count(&self) -> usize {
        self.any_state().leases.count()
    }
}

fn known(leases: &Leases, id: i64) -> &Lease {
    leases.get(id).expect("a lease that went has no timer")
}

/// What a lease was granted for is at least 1 and has a limit, so this fits.
fn milliseconds(seconds: i64) -> u64 {
    seconds.unsigned_abs().saturating_mul(1000)
}
