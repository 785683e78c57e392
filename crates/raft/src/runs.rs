//! A piece of a log in memory: entries one after the other, in the batches they came in.
//!
//! What is asked for mostly lies within one batch, and is then shared. Only a range over several
//! batches is copied.

use quorate_types::Index;

use crate::{Entries, Entry};

/// Room for so many batches is kept while there are none.
const KEPT_COUNT: usize = 4;

/// Entries whose indexes follow each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(
    /// None of them empty.
    Vec<Entries>,
);

impl Runs {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => place(last[last.len() - 1].index - first[0].index) + 1,
            _ => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().flatten()
    }

    /// The entry at `index`, if it is here.
    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let (run, at) = self.find(index)?;
        self.0[run].get(at)
    }

    /// Entries from `lo` up to and excluding `hi`, as many as are encoded in `max_size` bytes and at
    /// least one, if there is one at `lo`.
    pub(crate) fn slice(&self, lo: Index, hi: Index, max_size: u64) -> Entries {
        let Some((run, at)) = self.find(lo).filter(|_| lo < hi) else { return Entries::new() };
        let wanted = place(hi - lo);
        let first = &self.0[run];
        let mut part = first.part(at..first.len().min(at.saturating_add(wanted)));
        let count = part.fitting(max_size).max(1);
        if count < part.len() {
            part = part.part(0..count);
        } else if count < wanted && run + 1 < self.0.len() {
            part = self.join(part, run + 1, wanted, max_size);
        }
        part
    }

    /// Behind `start`, what follows it from `run` on.
    fn join(&self, start: Entries, run: usize, wanted: usize, max_size: u64) -> Entries {
        let mut bytes_left = max_size.saturating_sub(start.encoded_size());
        let mut joined = start.to_vec();
        for run in &self.0[run..] {
            let part = run.part(0..run.len().min(wanted - joined.len()));
            let count = part.fitting(bytes_left);
            joined.extend_from_slice(&part[..count]);
            if count < part.len() || joined.len() == wanted {
                break;
            }
            bytes_left = bytes_left.saturating_sub(part.encoded_size());
        }
        joined.into()
    }

    /// Puts entries behind what is there, in the memory of the last batch if nobody shares it.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let entries = match self.0.last_mut() {
            Some(last) => match last.try_extend(entries) {
                Ok(()) => return,
                Err(entries) => entries,
            },
            None => entries,
        };
        self.push(entries.into());
    }

    /// Puts a batch behind what is there.
    pub(crate) fn push(&mut self, entries: Entries) {
        if !entries.is_empty() {
            self.0.push(entries);
        }
    }

    /// Drops everything from `index` on.
    pub(crate) fn truncate(&mut self, index: Index) {
        while let Some(last) = self.0.last_mut() {
            if last[0].index < index {
                let kept = place(index - last[0].index);
                if kept < last.len() {
                    last.cut(0..kept);
                }
                return;
            }
            self.0.pop();
        }
    }

    /// Drops everything up to and including `index`.
    pub(crate) fn drop_through(&mut self, index: Index) {
        let gone = self.0.partition_point(|run| run[run.len() - 1].index <= index);
        if gone == self.0.len() {
            self.clear();
            return;
        }
        self.0.drain(..gone);
        let first = &mut self.0[0];
        if first[0].index <= index {
            first.cut(place(index - first[0].index) + 1..first.len());
        }
        if 4 * self.0.len() < self.0.capacity() && KEPT_COUNT < self.0.capacity() {
            self.0.shrink_to(2 * self.0.len());
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
        if KEPT_COUNT < self.0.capacity() {
            self.0 = Vec::new();
        }
    }

    /// How many batches there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Which batch has the entry at `index`, and where.
    fn find(&self, index: Index) -> Option<(usize, usize)> {
        let last = self.0.last()?;
        // Most questions are about the end.
        let run = match last[0].index <= index {
            true => self.0.len() - 1,
            false => self.0.partition_point(|run| run[run.len() - 1].index < index),
        };
        let found = &self.0[run];
        let at = place(index - found[0].index);
        (found[0].index <= index && at < found.len()).then_some((run, at))
    }
}

/// By the entries, in whatever batches they are.
impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Runs {}

/// It may be the distance to any index that a peer names.
fn place(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}
