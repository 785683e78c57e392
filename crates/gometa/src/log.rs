//! The application's log as the engine reads it: by place instead of by id.
//!
//! Ids of one epoch follow each other without a gap, so a log is a few *runs*, each known by its
//! first place and id; a place is found without reading anything. The entries at the end are kept,
//! so that what is sent and applied soon after it was written is not read again.
//!
//! Of an application that keeps its state alone, a log begins after what is applied and no longer
//! among the entries kept here.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_types::Index;
use quorate_zab::{Address, Entry, Epoch, HardState, Snapshot, Storage, StorageError, Write, Zxid};

use crate::{ActionError, ActionHandler};

/// How much is read at a time when a log is opened.
const SCAN_BYTES: u64 = 4 << 20;

/// Entries whose ids follow each other by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Index,
    zxid: Zxid,
}

/// One application's log, and what of it is known without asking.
pub(crate) struct Log {
    actions: Arc<dyn ActionHandler>,
    hard_state: HardState,
    /// The place before the first entry, and the id there.
    before: (Index, Zxid),
    /// Ascending in both.
    runs: Vec<Run>,
    last: Index,
    /// What is applied, where the application keeps its state alone; 0 elsewhere.
    covered: Index,
    /// The end of the log, dense.
    cache: VecDeque<Entry>,
    cache_bytes: u64,
    cache_bytes_max: u64,
}

impl Log {
    /// Reads the promises, and the ids of the whole log.
    pub(crate) fn open(
        actions: Arc<dyn ActionHandler>,
        cache_bytes_max: u64,
    ) -> Result<Self, ActionError> {
        let (accepted_epoch, accepted_leader): (Epoch, Option<Address>) =
            actions.accepted_epoch()?;
        let hard_state = HardState {
            accepted_epoch,
            accepted_leader,
            current_epoch: actions.current_epoch()?,
            committed: actions.last_committed_txid()?,
        };
        // One that has nothing in it ends where it begins.
        let before = actions.log_start()?;
        let logged = actions.last_logged_txid()?.max(before.1);
        if hard_state.committed < before.1 {
            return Err(ActionError(format!(
                "the log begins after {}, but only {} is applied",
                before.1, hard_state.committed
            )));
        }
        let mut log = Log {
            actions,
            hard_state,
            before,
            runs: Vec::new(),
            last: before.0,
            covered: Index(0),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
        };
        while log.last_zxid() < logged {
            let read = log.actions.committed_entries(log.last_zxid(), logged, SCAN_BYTES)?;
            if read.is_empty() {
                return Err(ActionError(format!(
                    "the log ends at {}, but the last logged id is {logged}",
                    log.last_zxid()
                )));
            }
            for (zxid, command) in read {
                if zxid <= log.last_zxid() || logged < zxid {
                    return Err(ActionError(format!(
                        "the log has {zxid} behind {}, and its last id is {logged}",
                        log.last_zxid()
                    )));
                }
                log.push(Entry { index: log.last.next(), zxid, command });
            }
        }
        if logged < log.hard_state.committed {
            return Err(ActionError(format!(
                "{} is applied, but the log ends at {logged}",
                log.hard_state.committed
            )));
        }
        Ok(log)
    }

    /// How much of the log is in the machine's state.
    pub(crate) fn applied(&self) -> Index {
        let committed = self.hard_state.committed;
        let run = self.runs.partition_point(|run| run.zxid <= committed);
        let Some(run) = run.checked_sub(1).map(|at| self.runs[at]) else { return self.before.0 };
        let end = self.runs.iter().find(|other| run.first < other.first);
        let last = end.map_or(self.last, |next| next.first.prev());
        last.min(run.first + (committed.0 - run.zxid.0))
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn last_zxid(&self) -> Zxid {
        self.zxid_at(self.last)
    }

    /// Everything up to `index` is applied. Names the end of what the application may forget, if there
    /// is more of it now.
    pub(crate) fn applied_to(&mut self, index: Index) -> Option<(Index, Zxid)> {
        if self.actions.keeps_history() {
            return None;
        }
        self.covered = self.covered.max(index).min(self.last);
        let kept = self.cache.front().map_or(self.last, |entry| entry.index.prev());
        let last = self.covered.min(kept);
        if last <= self.before.0 {
            return None;
        }
        self.before = (last, self.zxid_at(last));
        while 1 < self.runs.len() && self.runs[1].first <= last.next() {
            self.runs.remove(0);
        }
        Some(self.before)
    }

    /// A write is durable.
    pub(crate) fn written(&mut self, write: Write) {
        if let Some(state) = write.install {
            self.before = (state.index, state.zxid);
            self.last = state.index;
            self.covered = state.index;
            self.runs.clear();
            self.cache.clear();
            self.cache_bytes = 0;
        }
        if let Some(from) = write.replace_from {
            self.truncate(from.prev());
            for entry in write.entries {
                assert!(entry.index == self.last.next(), "a log is dense");
                self.push(entry);
            }
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
    }

    fn push(&mut self, entry: Entry) {
        let follows = !self.runs.is_empty() && self.last_zxid().0 + 1 == entry.zxid.0;
        if !follows {
            self.runs.push(Run { first: entry.index, zxid: entry.zxid });
        }
        self.last = entry.index;
        self.cache_bytes += entry.bytes();
        self.cache.push_back(entry);
        while self.cache_bytes_max < self.cache_bytes
            && let Some(oldest) = self.cache.pop_front()
        {
            self.cache_bytes -= oldest.bytes();
        }
    }

    fn truncate(&mut self, last: Index) {
        while self.cache.back().is_some_and(|entry| last < entry.index)
            && let Some(removed) = self.cache.pop_back()
        {
            self.cache_bytes -= removed.bytes();
        }
        self.runs.retain(|run| run.first <= last);
        self.last = self.last.min(last);
    }

    /// The id at a place from the one before the first to the last.
    fn zxid_at(&self, index: Index) -> Zxid {
        let run = self.runs.partition_point(|run| run.first <= index);
        match run.checked_sub(1).map(|at| self.runs[at]) {
            Some(run) if self.before.0 < index => Zxid(run.zxid.0 + (index - run.first)),
            _ => self.before.1,
        }
    }
}

impl Storage for Log {
    fn hard_state(&self) -> Result<HardState, StorageError> {
        Ok(self.hard_state.clone())
    }

    fn first_index(&self) -> Result<Index, StorageError> {
        Ok(self.before.0.next())
    }

    fn last_index(&self) -> Result<Index, StorageError> {
        Ok(self.last)
    }

    fn zxid(&self, index: Index) -> Result<Zxid, StorageError> {
        match index {
            _ if index < self.before.0 => Err(StorageError::Compacted),
            _ if self.last < index => Err(StorageError::Unavailable),
            _ => Ok(self.zxid_at(index)),
        }
    }

    fn entries(&self, lo: Index, hi: Index, bytes_max: u64) -> Result<Vec<Entry>, StorageError> {
        if lo <= self.before.0 {
            return Err(StorageError::Compacted);
        }
        if hi <= lo || self.last.next() < hi {
            return Err(StorageError::Unavailable);
        }
        if let Some(first) = self.cache.front().map(|entry| entry.index)
            && first <= lo
        {
            let from = (lo - first) as usize;
            let wanted = self.cache.range(from..from + (hi - lo) as usize);
            return Ok(limited(wanted.cloned(), bytes_max));
        }
        let (after, last) = (self.zxid_at(lo.prev()), self.zxid_at(hi.prev()));
        let read = self.actions.committed_entries(after, last, bytes_max);
        let read = read.map_err(|error| StorageError::Other(error.to_string()))?;
        let mut entries = Vec::with_capacity(read.len());
        for (at, (zxid, command)) in read.into_iter().enumerate() {
            let index = lo + at as u64;
            if hi <= index || zxid != self.zxid_at(index) {
                let want = self.zxid_at(index.min(self.last));
                return Err(StorageError::Other(format!("the log has {zxid} in place of {want}")));
            }
            entries.push(Entry { index, zxid, command });
        }
        Ok(limited(entries.into_iter(), bytes_max))
    }

    /// The application's state. Without one the log is kept whole, as gometa keeps its own, and nobody
    /// needs a state.
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        let state = self.actions.state();
        let state = state.map_err(|error| StorageError::Other(error.to_string()))?;
        let Some(state) = state else { return Ok(Snapshot::default()) };
        let is_known = self.before.0 <= state.index && state.index <= self.last;
        if !is_known || self.zxid_at(state.index) != state.zxid {
            let (index, zxid) = (state.index, state.zxid);
            let what = format!("the state is said to be that after {zxid}, at place {index}");
            return Err(StorageError::Other(what));
        }
        Ok(state)
    }
}

/// The first, and those after it that fit in `bytes_max` with it.
fn limited(entries: impl Iterator<Item = Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut taken: Vec<Entry> = Vec::new();
    let mut bytes = 0_u64;
    for entry in entries {
        bytes = bytes.saturating_add(entry.bytes());
        if bytes_max < bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry);
    }
    taken
}

#[cfg(test)]
mod tests;
