//! The log of one node: what storage holds, and after it what storage does not hold yet.
//!
//! ```text
//! applied <= applying <= committed <= last
//! ```
//! `committed` may pass what is stable: a quorum holds an entry that this disk does not yet (thesis
//! 10.2.1). `applying` moves when committed entries are handed out, `applied` when the application
//! acknowledges them; in between they count against a limit of bytes. None of the three goes back.
//!
//! Whatever cannot be unless there is a bug or a damaged disk is a [`Fatal`].
//!
//! Source: etcd's `raftLog`. Not here: who moves `committed` (`leader.rs`, `follower.rs`).

use std::ops::ControlFlow;

use quorate_types::{EntryId, Index, Term, bug};

use crate::unstable::Unstable;
use crate::{Entries, Entry, Fatal, Snapshot, Storage, StorageError};

/// The last index at which an entry may stand: marks one past the last entry must have a number.
pub(crate) const INDEX_MAX: Index = Index(u64::MAX - 1);

/// Why a term or a range of the log cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// It lies before the log.
    #[error("requested index is unavailable due to compaction")]
    Compacted,
    /// It lies after the log.
    #[error("requested entry at index is unavailable")]
    Unavailable,
    /// The node cannot go on.
    #[error("{0}")]
    Fatal(#[from] Fatal),
}

/// Why entries do not make a piece of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SliceError {
    /// An entry does not follow the one before it.
    #[error("leader term {term}: entries {before} and {after} not consistent")]
    Inconsistent { term: Term, before: EntryId, after: EntryId },
    /// The last entry is from a later term than the leader that sent it.
    #[error("leader term {term}: entry {last} has a newer term")]
    NewerTerm { term: Term, last: EntryId },
    /// There is no index after the last entry.
    #[error("leader term {term}: entry {last} leaves no room after it")]
    LastIndex { term: Term, last: EntryId },
}

/// A piece of a leader's log: dense indexes after `prev`, terms that never fall, none above the
/// leader's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSlice {
    prev: EntryId,
    entries: Entries,
}

impl LogSlice {
    /// The entries after `prev`, as the leader of `term` has them.
    pub(crate) fn new(term: Term, prev: EntryId, entries: Entries) -> Result<Self, SliceError> {
        let mut before = prev;
        for entry in &entries {
            let after = entry.id();
            let follows = before.index.0.checked_add(1) == Some(after.index.0);
            if !follows || after.term < before.term {
                return Err(SliceError::Inconsistent { term, before, after });
            }
            before = after;
        }
        if term < before.term {
            return Err(SliceError::NewerTerm { term, last: before });
        }
        if INDEX_MAX < before.index && !entries.is_empty() {
            return Err(SliceError::LastIndex { term, last: before });
        }
        Ok(LogSlice { prev, entries })
    }

    /// The last index; that of `prev` when there are no entries.
    fn last_index(&self) -> Index {
        self.prev.index + self.entries.len() as u64
    }
}

/// The log of one node.
#[derive(Debug)]
pub(crate) struct RaftLog<S> {
    storage: S,
    unstable: Unstable,
    committed: Index,
    applying: Index,
    applied: Index,
    /// Encoded size of what may be handed out and not yet acknowledged.
    applying_bytes_max: u64,
    /// Encoded size of what is.
    applying_bytes: u64,
    applying_paused: bool,
}

impl<S: Storage> RaftLog<S> {
    /// The log that `storage` holds, with nothing committed but what is compacted. At most about
    /// `applying_bytes_max` bytes of entries are handed out and not acknowledged; 0 means one entry
    /// at a time.
    pub(crate) fn new(storage: S, applying_bytes_max: u64) -> Result<Self, Fatal> {
        let first = storage.first_index()?;
        let last = storage.last_index()?;
        if last.next() < first {
            return Err(Fatal::StorageInverted { first, last });
        }
        if INDEX_MAX < last {
            return Err(Fatal::StorageFull { last });
        }
        Ok(RaftLog {
            storage,
            unstable: Unstable::after(last),
            committed: first.prev(),
            applying: first.prev(),
            applied: first.prev(),
            applying_bytes_max: applying_bytes_max.max(1),
            applying_bytes: 0,
            applying_paused: false,
        })
    }

    /// Takes over the commit index that was stored.
    pub(crate) fn load_commit(&mut self, commit: Index) -> Result<(), Fatal> {
        let (first, last) = (self.committed, self.last_index());
        if commit < first || last < commit {
            return Err(Fatal::StoredCommitOutOfRange { commit, first, last });
        }
        self.committed = commit;
        Ok(())
    }

    // Appending.

    /// Takes in a leader's entries if they connect to the log, and commits what of them the leader
    /// has committed. Says up to where the log now matches the leader's; nothing if they do not
    /// connect.
    pub(crate) fn maybe_append(
        &mut self,
        slice: LogSlice,
        committed: Index,
    ) -> Result<Option<Index>, Fatal> {
        if !self.match_term(slice.prev)? {
            return Ok(None);
        }
        let last_new = slice.last_index();
        if let Some(conflict) = self.find_conflict(&slice.entries)? {
            if conflict <= self.committed {
                let committed = self.committed;
                return Err(Fatal::CommittedConflict { index: conflict, committed });
            }
            let entries = slice.entries;
            let known = (conflict - slice.prev.index.next()) as usize;
            self.check_append(&entries[known..])?;
            self.unstable.truncate_and_share(entries.part(known..entries.len()));
        }
        let last_new_or_any =
            if bug!("commits-what-was-not-compared") { self.last_index() } else { last_new };
        self.commit_to(committed.min(last_new_or_any))?;
        Ok(Some(last_new))
    }

    /// Appends `entries`, which are dense, in place of everything from the first one's index on.
    /// Returns the last index.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> Result<Index, Fatal> {
        self.check_append(&entries)?;
        self.unstable.truncate_and_append(entries);
        Ok(self.last_index())
    }

    fn check_append(&self, entries: &[Entry]) -> Result<(), Fatal> {
        let Some(first) = entries.first() else { return Ok(()) };
        let (at, after, last) = (first.index, first.index.prev(), self.last_index());
        if after < self.committed || at == Index(0) {
            return Err(Fatal::AppendBeforeCommit { after, committed: self.committed });
        }
        if last < after {
            return Err(Fatal::AppendGap { last, at });
        }
        Ok(())
    }

    /// The index of the first of `entries` that the log does not have, be it that another stands
    /// there or that it is new; nothing if it has them all.
    pub(crate) fn find_conflict(&self, entries: &[Entry]) -> Result<Option<Index>, Fatal> {
        if bug!("a-short-append-cuts-what-follows") {
            let open = entries.iter().find(|entry| self.committed < entry.index);
            return Ok(open.map(|entry| entry.index));
        }
        for entry in entries {
            if bug!("keeps-a-conflicting-tail") && entry.index <= self.last_index() {
                continue;
            }
            if !self.match_term(entry.id())? {
                return Ok(Some(entry.index));
            }
        }
        Ok(None)
    }

    /// The last place at or before `index` that a log may share whose entry at `index` is of
    /// `term`: the largest one whose term here is at most `term`, or not known. An unknown term is
    /// given as 0.
    pub(crate) fn find_conflict_by_term(&self, index: Index, term: Term) -> Result<EntryId, Fatal> {
        // Terms never fall along a log, so that "at most `term`, or compacted" holds up to some
        // place and not after it.
        let probe = |index| -> Result<Option<EntryId>, Fatal> {
            match self.term(index) {
                Ok(ours) if term < ours => Ok(None),
                Ok(ours) => Ok(Some(EntryId { term: ours, index })),
                Err(LogError::Compacted | LogError::Unavailable) => {
                    Ok(Some(EntryId { term: Term(0), index }))
                }
                Err(LogError::Fatal(fatal)) => Err(fatal),
            }
        };
        if let Some(found) = probe(index)? {
            return Ok(found);
        }
        // Holds at `held`, which is compacted or 0, and not at `beyond`.
        let mut held = self.first_index()?.prev().prev();
        let mut found = EntryId { term: Term(0), index: held };
        let mut beyond = index;
        while held.next() < beyond {
            let middle = held + (beyond - held) / 2;
            match probe(middle)? {
                Some(id) => (held, found) = (middle, id),
                None => beyond = middle,
            }
        }
        Ok(found)
    }

    /// Whether the log is known to have this entry.
    pub(crate) fn match_term(&self, id: EntryId) -> Result<bool, Fatal> {
        match self.term(id.index) {
            Ok(term) => Ok(term == id.term),
            Err(LogError::Compacted | LogError::Unavailable) => {
                Ok(bug!("an-unknown-term-is-a-match"))
            }
            Err(LogError::Fatal(fatal)) => Err(fatal),
        }
    }

    /// Whether a log that ends at `last` is at least as good as this one.
    pub(crate) fn is_up_to_date(&self, last: EntryId) -> Result<bool, Fatal> {
        // By term, then by index.
        Ok(self.last_entry_id()? <= last)
    }

    // Committing.

    /// Raises the commit index to `to`, if it is below.
    pub(crate) fn commit_to(&mut self, to: Index) -> Result<(), Fatal> {
        if to <= self.committed {
            return Ok(());
        }
        let last = self.last_index();
        if last < to {
            return Err(Fatal::CommitOutOfRange { to, last });
        }
        self.committed = to;
        Ok(())
    }

    /// Commits up to `id`, if that is news and the log has that very entry. Says whether it did.
    pub(crate) fn maybe_commit(&mut self, id: EntryId) -> Result<bool, Fatal> {
        // No entry that a leader appended is of term 0.
        let is_own_term = bug!("commits-older-terms") || self.match_term(id)?;
        if id.index <= self.committed || id.term == Term(0) || !is_own_term {
            return Ok(false);
        }
        self.commit_to(id.index)?;
        Ok(true)
    }

    // Handing out for application.

    /// Committed entries to hand out for application, at least one if there is any and application
    /// is not paused; with `allow_unstable` also such as this node's disk does not hold yet.
    pub(crate) fn next_committed_ents(&self, allow_unstable: bool) -> Result<Entries, Fatal> {
        if !self.has_next_committed_ents(allow_unstable) {
            return Ok(Entries::new());
        }
        let (lo, hi) = (self.applying.next(), self.max_appliable_index(allow_unstable).next());
        let bytes_left = match self.applying_bytes_max {
            u64::MAX => u64::MAX,
            max => max.saturating_sub(self.applying_bytes),
        };
        match self.slice(lo, hi, bytes_left) {
            Ok(entries) => Ok(entries),
            Err(LogError::Fatal(fatal)) => Err(fatal),
            Err(LogError::Compacted) => Err(Fatal::EntriesCompacted { lo, hi }),
            Err(LogError::Unavailable) => Err(Fatal::EntriesUnavailable { lo, hi }),
        }
    }

    /// Whether committed entries can be handed out for application.
    pub(crate) fn has_next_committed_ents(&self, allow_unstable: bool) -> bool {
        // The application is to see the snapshot first.
        !self.applying_paused
            && self.unstable.snapshot().is_none()
            && self.applying < self.max_appliable_index(allow_unstable)
    }

    /// Entries up to `to`, of `bytes` encoded, were handed out for application. Pauses it when the
    /// limit is reached, or would be by the next entry.
    pub(crate) fn accept_applying(
        &mut self,
        to: Index,
        bytes: u64,
        allow_unstable: bool,
    ) -> Result<(), Fatal> {
        if self.committed < to {
            let (applying, committed) = (self.applying, self.committed);
            return Err(Fatal::ApplyingOutOfRange { to, applying, committed });
        }
        self.applying = to;
        self.applying_bytes = self.applying_bytes.saturating_add(bytes);
        // Had there been room for more, `to` would be the last one that can be applied.
        self.applying_paused = self.applying_bytes_max <= self.applying_bytes
            || to < self.max_appliable_index(allow_unstable);
        Ok(())
    }

    /// Entries up to `to`, the last of them of `bytes` encoded, are applied. `to` must not be below
    /// the applied index.
    pub(crate) fn applied_to(&mut self, to: Index, bytes: u64) -> Result<(), Fatal> {
        if self.committed < to || to < self.applied {
            let (applied, committed) = (self.applied, self.committed);
            return Err(Fatal::AppliedOutOfRange { to, applied, committed });
        }
        self.applied = to;
        self.applying = self.applying.max(to);
        self.applying_bytes = self.applying_bytes.saturating_sub(bytes);
        self.applying_paused = self.applying_bytes_max <= self.applying_bytes;
        Ok(())
    }

    fn max_appliable_index(&self, allow_unstable: bool) -> Index {
        if bug!("applies-what-is-not-committed") {
            self.last_index()
        } else if allow_unstable {
            self.committed
        } else {
            self.committed.min(self.unstable.offset().prev())
        }
    }

    // Handing out for writing.

    /// Entries that are neither stable nor handed out for writing.
    pub(crate) fn next_unstable_ents(&self) -> Entries {
        self.unstable.next_entries()
    }

    /// Whether there are such entries.
    pub(crate) fn has_next_unstable_ents(&self) -> bool {
        self.unstable.has_next_entries()
    }

    /// Whether there are entries that are not stable, handed out or not.
    pub(crate) fn has_unstable_ents(&self) -> bool {
        self.unstable.len() > 0
    }

    /// The received snapshot, if it is neither stable nor handed out for writing.
    pub(crate) fn next_unstable_snapshot(&self) -> Option<&Snapshot> {
        self.unstable.next_snapshot()
    }

    /// Whether a received snapshot is not stable, handed out or not.
    pub(crate) fn has_unstable_snapshot(&self) -> bool {
        self.unstable.snapshot().is_some()
    }

    /// Everything unstable was handed out for writing.
    pub(crate) fn accept_unstable(&mut self) {
        self.unstable.accept_in_progress();
    }

    /// The log is durable up to `id`. Says whether the log has that entry, as something unstable;
    /// if not, nothing changes. The caller makes sure that the acknowledgement is of this term: an
    /// older one may name an entry that was replaced and came back (the ABA race).
    pub(crate) fn stable_to(&mut self, id: EntryId) -> bool {
        self.unstable.stable_to(id)
    }

    /// The snapshot at `index` is durable.
    pub(crate) fn stable_snap_to(&mut self, index: Index) {
        self.unstable.stable_snapshot_to(index);
    }

    /// Everything is replaced by a received snapshot, which is committed as a whole.
    pub(crate) fn restore(&mut self, snapshot: impl Into<Box<Snapshot>>) {
        let snapshot = snapshot.into();
        assert!(self.committed <= snapshot.metadata.index, "what is committed stays so");
        self.committed = snapshot.metadata.index;
        self.unstable.restore(snapshot);
    }

    // Reading.

    /// The term of the entry at `index`, which lies between the one before the first and the last.
    pub(crate) fn term(&self, index: Index) -> Result<Term, LogError> {
        if let Some(term) = self.unstable.term(index) {
            return Ok(term);
        }
        if self.last_index() < index {
            return Err(LogError::Unavailable);
        }
        // Storage itself knows what it has compacted.
        if self.unstable.snapshot().is_some() {
            return Err(LogError::Compacted);
        }
        self.storage.term(index).map_err(|error| match error {
            StorageError::Compacted => LogError::Compacted,
            StorageError::Unavailable => LogError::Unavailable,
            other => LogError::Fatal(Fatal::Storage(other)),
        })
    }

    /// Entries from `lo` to the end, as many as are encoded in `max_size` bytes and at least one;
    /// none if `lo` lies beyond the end.
    pub(crate) fn entries(&self, lo: Index, max_size: u64) -> Result<Entries, LogError> {
        let last = self.last_index();
        if last < lo {
            return Ok(Entries::new());
        }
        self.slice(lo, last.next(), max_size)
    }

    /// Entries from `lo` up to and excluding `hi`, as many as are encoded in `max_size` bytes and
    /// at least one.
    pub(crate) fn slice(&self, lo: Index, hi: Index, max_size: u64) -> Result<Entries, LogError> {
        self.check_bounds(lo, hi)?;
        if lo == hi {
            return Ok(Entries::new());
        }
        let offset = self.unstable.offset();
        if offset <= lo {
            return Ok(self.unstable.slice(lo, hi, max_size));
        }
        let cut = hi.min(offset);
        let entries = self.stored(lo, cut, max_size)?;
        if hi <= offset || (entries.len() as u64) < cut - lo {
            return Ok(entries);
        }
        let mut bytes_left = u64::MAX;
        if max_size != u64::MAX {
            bytes_left = max_size.saturating_sub(entries.encoded_size());
            if bytes_left == 0 {
                return Ok(entries);
            }
        }
        let unstable = self.unstable.slice(offset, hi, bytes_left);
        // "At least one" holds already, so that a single entry too large for the rest is left out.
        if unstable.len() > 1 || unstable.encoded_size() <= bytes_left {
            let mut both = entries.into_vec();
            both.extend_from_slice(&unstable);
            return Ok(both.into());
        }
        Ok(entries)
    }

    /// Shows `visit` all entries from `lo` up to and excluding `hi`, in pages of about `page_bytes`
    /// encoded, until it breaks off.
    pub(crate) fn scan<B>(
        &self,
        lo: Index,
        hi: Index,
        page_bytes: u64,
        mut visit: impl FnMut(&[Entry]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, LogError> {
        let mut lo = lo;
        while lo < hi {
            let page = self.slice(lo, hi, page_bytes)?;
            if let ControlFlow::Break(found) = visit(&page) {
                return Ok(ControlFlow::Break(found));
            }
            lo += page.len() as u64;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The latest snapshot, the one received or else storage's, which is to be at `from` or after.
    /// Nothing while there is none.
    pub(crate) fn snapshot(&self, from: Index) -> Result<Option<Snapshot>, Fatal> {
        let snapshot = match self.unstable.snapshot() {
            Some(snapshot) => Ok(snapshot.clone()),
            None if from == Index(0) => self.storage.snapshot(),
            None => self.storage.snapshot_from(from),
        };
        match snapshot {
            Ok(snapshot) => {
                let (index, last) = (snapshot.metadata.index, self.last_index());
                if last < index {
                    return Err(Fatal::SnapshotOutOfRange { index, last });
                }
                Ok((from <= index).then_some(snapshot))
            }
            Err(StorageError::SnapshotTemporarilyUnavailable) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    // Marks.

    /// The first index that may be available.
    pub(crate) fn first_index(&self) -> Result<Index, Fatal> {
        match self.unstable.first_index() {
            Some(first) => Ok(first),
            None => Ok(self.storage.first_index()?),
        }
    }

    /// The last index.
    pub(crate) fn last_index(&self) -> Index {
        // Storage need not be asked: once nothing is unstable, what it holds ends where the next
        // unstable entry would go.
        self.unstable.last_index()
    }

    /// How many entries more there are indexes for.
    pub(crate) fn room(&self) -> u64 {
        INDEX_MAX - self.last_index()
    }

    /// The last entry; 0@0 in an empty log.
    pub(crate) fn last_entry_id(&self) -> Result<EntryId, Fatal> {
        let index = self.last_index();
        match self.term(index) {
            Ok(term) => Ok(EntryId { term, index }),
            Err(LogError::Compacted | LogError::Unavailable) => Err(Fatal::TermUnknown { index }),
            Err(LogError::Fatal(fatal)) => Err(fatal),
        }
    }

    /// Highest index known to be committed.
    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    /// Highest index handed out for application.
    pub(crate) fn applying(&self) -> Index {
        self.applying
    }

    /// Highest index whose application was acknowledged.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// What the log is stored in.
    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    pub(crate) fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    fn check_bounds(&self, lo: Index, hi: Index) -> Result<(), LogError> {
        if hi < lo {
            return Err(Fatal::SliceInverted { lo, hi }.into());
        }
        // What is unstable is not compacted, so storage need not be asked.
        if lo < self.unstable.offset() && lo < self.first_index()? {
            return Err(LogError::Compacted);
        }
        let last = self.last_index();
        if last.next() < hi {
            let first = self.first_index()?;
            return Err(Fatal::SliceOutOfBound { lo, hi, first, last }.into());
        }
        Ok(())
    }

    /// Entries that storage holds.
    fn stored(&self, lo: Index, hi: Index, max_size: u64) -> Result<Entries, LogError> {
        let entries = self.storage.entries(lo, hi, max_size).map_err(|error| match error {
            StorageError::Compacted => LogError::Compacted,
            StorageError::Unavailable => Fatal::EntriesUnavailable { lo, hi }.into(),
            other => LogError::Fatal(Fatal::Storage(other)),
        })?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(Fatal::EntriesMisplaced { lo, hi }.into());
        };
        let count = entries.len() as u64;
        if first.index != lo || last.index.next() != lo + count || hi - lo < count {
            return Err(Fatal::EntriesMisplaced { lo, hi }.into());
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
