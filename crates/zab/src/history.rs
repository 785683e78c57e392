//! The history as one node knows it: what is durable, and behind it what is on its way there.
//!
//! ```text
//! first - 1 <= durable <= last        a write covers a suffix, and its number is later than that
//!                                     of every write before it
//! ```
//! Entries that are not durable are kept in `tail` and shadow whatever storage has at their places,
//! until the write that brings them there, and every write before it, is reported. `durable` steps
//! back only when a tail is replaced.
//!
//! Not here: what is committed (`core.rs`).

use std::collections::VecDeque;

use quorate_types::Index;

use crate::event::{Fatal, Write, WriteId};
use crate::storage::limited;
use crate::{Command, Entry, Snapshot, Storage, StorageError, Zxid};

/// A write that was handed out and is not durable yet.
#[derive(Clone, Copy, Debug)]
struct Cut {
    id: WriteId,
    /// It changes nothing before this place.
    from: Index,
    /// Where the history ended when it was cut.
    last: Index,
    installs: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct History<S> {
    storage: S,
    /// All that is not durable, dense, from `durable + 1` on, or from after `base`.
    tail: VecDeque<Entry>,
    tail_first: Index,
    last: (Index, Zxid),
    durable: Index,
    /// The place a snapshot stands for that is not installed yet.
    base: Option<(Index, Zxid)>,
    /// From here on nothing is in any write yet.
    unsaved_from: Option<Index>,
    unsaved_snapshot: Option<Snapshot>,
    cuts: VecDeque<Cut>,
}

impl<S: Storage> History<S> {
    pub(crate) fn new(storage: S) -> Result<Self, Fatal> {
        let (first, last) = (storage.first_index()?, storage.last_index()?);
        if last.next() < first || first == Index(0) {
            return Err(Fatal::Damaged { at: first, what: "it begins after its end" });
        }
        let zxid = storage.zxid(last)?;
        if last == Index(0) && zxid != Zxid::ZERO {
            return Err(Fatal::Damaged { at: last, what: "an empty history has an id" });
        }
        Ok(History {
            tail: VecDeque::new(),
            tail_first: last.next(),
            last: (last, zxid),
            durable: last,
            base: None,
            unsaved_from: None,
            unsaved_snapshot: None,
            cuts: VecDeque::new(),
            storage,
        })
    }

    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    pub(crate) fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    pub(crate) fn last(&self) -> Index {
        self.last.0
    }

    pub(crate) fn last_zxid(&self) -> Zxid {
        self.last.1
    }

    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    pub(crate) fn has_unsaved(&self) -> bool {
        self.unsaved_from.is_some() || self.unsaved_snapshot.is_some()
    }

    /// Whether a received snapshot is still on its way.
    pub(crate) fn is_installing(&self) -> bool {
        self.base.is_some()
    }

    /// The first place whose entry is kept.
    pub(crate) fn first(&self) -> Result<Index, Fatal> {
        match self.base {
            Some((index, _)) => Ok(index.next()),
            None => Ok(self.storage.first_index()?),
        }
    }

    /// The id of the entry at `index`; of the one before the first it is known, too.
    pub(crate) fn zxid(&self, index: Index) -> Result<Zxid, Fatal> {
        assert!(index <= self.last.0, "asked for an id beyond the end of the history");
        if index == self.last.0 {
            return Ok(self.last.1);
        }
        if self.tail_first <= index {
            return Ok(self.tail[(index - self.tail_first) as usize].zxid);
        }
        match self.base {
            Some((at, zxid)) if at == index => Ok(zxid),
            Some(_) => Err(Fatal::Storage(StorageError::Compacted)),
            None => Ok(self.storage.zxid(index)?),
        }
    }

    /// The same, or nothing if it is no longer known.
    pub(crate) fn known_zxid(&self, index: Index) -> Result<Option<Zxid>, Fatal> {
        match index < self.first()?.prev() {
            true => Ok(None),
            false => self.zxid(index).map(Some),
        }
    }

    /// The last place whose id is not greater than `zxid`, among those whose ids are known; nothing
    /// if even the one before the first entry is greater.
    pub(crate) fn place_at_most(&self, zxid: Zxid) -> Result<Option<Index>, Fatal> {
        if self.last.1 <= zxid {
            return Ok(Some(self.last.0));
        }
        let (mut low, mut high) = (self.first()?.prev(), self.last.0);
        if zxid < self.zxid(low)? {
            return Ok(None);
        }
        // The place is in low..high, high not included.
        while 1 < high - low {
            let middle = low + (high - low) / 2;
            match self.zxid(middle)? <= zxid {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok(Some(low))
    }

    /// The place of the entry with exactly this id.
    pub(crate) fn place(&self, zxid: Zxid) -> Result<Option<Index>, Fatal> {
        Ok(match self.place_at_most(zxid)? {
            Some(index) if self.zxid(index)? == zxid => Some(index),
            _ => None,
        })
    }

    /// Entries from `lo` to `last`, as many as take `bytes_max`, and at least one.
    pub(crate) fn entries(
        &self,
        lo: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, Fatal> {
        assert!(last <= self.last.0 && lo <= last, "asked for entries that are not there");
        if self.tail_first <= lo {
            let from = (lo - self.tail_first) as usize;
            let count = (last - lo + 1) as usize;
            return Ok(limited(self.tail.range(from..from + count), bytes_max));
        }
        if self.base.is_some() {
            return Err(Fatal::Storage(StorageError::Compacted));
        }
        let hi = last.next().min(self.tail_first);
        let entries = self.storage.entries(lo, hi, bytes_max)?;
        let mut before = self.storage.zxid(lo.prev())?;
        for (index, entry) in (lo.0..).map(Index).zip(&entries) {
            if entry.index != index || entry.zxid <= before {
                return Err(Fatal::Damaged { at: index, what: "not the entry of this place" });
            }
            before = entry.zxid;
        }
        match entries.is_empty() || (hi - lo) < entries.len() as u64 {
            true => Err(Fatal::Damaged { at: lo, what: "not as many entries as asked for" }),
            false => Ok(entries),
        }
    }

    pub(crate) fn entry(&self, index: Index) -> Result<Entry, Fatal> {
        let mut found = self.entries(index, index, 0)?;
        found.pop().ok_or(Fatal::Damaged { at: index, what: "no entry" })
    }

    pub(crate) fn append(&mut self, zxid: Zxid, command: Command) -> Index {
        assert!(self.last.1 < zxid, "a history is strictly increasing");
        let index = self.last.0.next();
        assert!(self.last.0 < index, "a history does not end at the last index there is");
        self.tail.push_back(Entry { index, zxid, command });
        self.last = (index, zxid);
        self.unsaved_from.get_or_insert(index);
        index
    }

    /// Removes everything after `index`.
    pub(crate) fn truncate(&mut self, index: Index) -> Result<(), Fatal> {
        if self.last.0 <= index {
            return Ok(());
        }
        let zxid = self.zxid(index)?;
        self.tail.truncate((index.next() - self.tail_first) as usize);
        self.tail_first = self.tail_first.min(index.next());
        self.durable = self.durable.min(index);
        self.last = (index, zxid);
        let from = self.unsaved_from.map_or(index.next(), |from| from.min(index.next()));
        self.unsaved_from = Some(from);
        Ok(())
    }

    /// A snapshot stands for everything, whatever was here.
    pub(crate) fn install(&mut self, snapshot: Snapshot) {
        self.tail.clear();
        self.tail_first = snapshot.index.next();
        self.last = (snapshot.index, snapshot.zxid);
        self.base = Some(self.last);
        self.durable = Index(0);
        self.unsaved_from = None;
        self.unsaved_snapshot = Some(snapshot);
    }

    /// Puts everything that is in no write yet into `write`.
    pub(crate) fn cut(&mut self, write: &mut Write) {
        let mut from = self.last.0.next();
        let installs = self.unsaved_snapshot.is_some();
        write.install = self.unsaved_snapshot.take();
        if let Some(unsaved) = self.unsaved_from.take() {
            from = unsaved;
            write.replace_from = Some(unsaved);
            let skip = (unsaved - self.tail_first) as usize;
            write.entries = self.tail.iter().skip(skip).cloned().collect();
        }
        if installs {
            from = Index(0);
        }
        self.cuts.push_back(Cut { id: write.id, from, last: self.last.0, installs });
    }

    /// All writes up to `id` are durable.
    pub(crate) fn on_persisted(&mut self, id: WriteId) {
        while let Some(cut) = self.cuts.front().copied().filter(|cut| cut.id <= id) {
            self.cuts.pop_front();
            if cut.installs && !self.is_replaced_again() {
                self.base = None;
            }
            // What a later write replaces is not durable as it is now.
            let later = self.cuts.iter().map(|cut| cut.from).chain(self.unsaved_from);
            let later = later.min().unwrap_or(Index(u64::MAX));
            let later = if self.unsaved_snapshot.is_some() { Index(0) } else { later };
            let durable = cut.last.min(later.prev()).min(self.last.0);
            if self.base.is_none() && self.durable < durable {
                self.durable = durable;
            }
        }
        while self.tail_first <= self.durable && self.tail.pop_front().is_some() {
            self.tail_first = self.tail_first.next();
        }
    }

    /// Whether another snapshot follows the one just installed.
    fn is_replaced_again(&self) -> bool {
        self.unsaved_snapshot.is_some() || self.cuts.iter().any(|cut| cut.installs)
    }

    pub(crate) fn check(&self) {
        assert!(self.durable <= self.last.0, "what is durable is in the history");
        let count = self.tail.len() as u64;
        assert!(self.tail_first + count == self.last.0.next(), "the tail ends with the history");
        assert!(self.durable < self.tail_first, "the tail is what is not durable");
        if self.base.is_none() {
            assert!(self.durable.next() == self.tail_first, "and all of it");
        }
        let ids = self.tail.iter().map(|entry| entry.zxid);
        assert!(ids.is_sorted_by(|one, next| one < next), "a history is strictly increasing");
        if let Some(from) = self.unsaved_from {
            assert!(self.tail_first <= from, "what is in no write is not durable");
        }
    }
}

#[cfg(test)]
mod tests;
