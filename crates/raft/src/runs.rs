//! A piece of a log in memory: entries one after the other, in the batches they came in.
//!
//! What is asked for mostly lies within one batch, and is then shared. Only a range over several
//! batches is copied.

use quorate_types::Index;

use crate::{Entries, Entry};

/// Entries whose indexes follow each other: what a storage in memory may keep, so that it shares its
/// entries with whoever gave them and whoever asks for them.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
    len: usize,
}

/// A batch of them; never empty.
#[derive(Clone, Debug)]
struct Run {
    /// The index of the first, which is searched for without a look at the batch.
    first: Index,
    entries: Entries,
}

impl Run {
    /// One past the last index.
    fn end(&self) -> Index {
        self.first + self.entries.len() as u64
    }
}

impl Runs {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(|run| &run.entries)
    }

    /// Bytes of data in all of them. Costs a step for each batch.
    pub fn payload_size(&self) -> u64 {
        self.runs.iter().map(|run| run.entries.payload_size()).sum()
    }

    /// Bytes of data in those after `index`. Costs a step for each of their batches.
    pub fn payload_size_after(&self, index: Index) -> u64 {
        let after = self.runs.iter().rev().take_while(|run| index.next() < run.end());
        let bytes = after.map(|run| match index < run.first {
            true => run.entries.payload_size(),
            false => {
                run.entries.part(place(index.next() - run.first)..run.entries.len()).payload_size()
            }
        });
        bytes.sum()
    }

    /// The entry at `index`, if it is here.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let (run, at) = self.find(index)?;
        self.runs[run].entries.get(at)
    }

    /// Entries from `lo` up to and excluding `hi`, as many as are encoded in `max_size` bytes and at
    /// least one, if there is one at `lo`.
    pub fn slice(&self, lo: Index, hi: Index, max_size: u64) -> Entries {
        let Some((run, at)) = self.find(lo).filter(|_| lo < hi) else { return Entries::new() };
        let wanted = place(hi - lo);
        let first = &self.runs[run].entries;
        let part = first.part(at..first.len().min(at.saturating_add(wanted)));
        let count = part.fitting(max_size).max(1);
        if count < part.len() {
            part.part(0..count)
        } else if count < wanted && run + 1 < self.runs.len() {
            self.join(part, run + 1, wanted, max_size)
        } else {
            part
        }
    }

    /// Behind `start`, what follows it from `run` on.
    fn join(&self, start: Entries, run: usize, wanted: usize, max_size: u64) -> Entries {
        let mut bytes_left = max_size.saturating_sub(start.encoded_size());
        let mut joined = Vec::with_capacity(wanted.min(self.len));
        joined.extend_from_slice(&start);
        for Run { entries, .. } in &self.runs[run..] {
            let part = entries.part(0..entries.len().min(wanted - joined.len()));
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
        let count = entries.len();
        let entries = match self.runs.last_mut() {
            Some(last) => match last.entries.try_extend(entries) {
                Ok(()) => {
                    self.len += count;
                    return;
                }
                Err(entries) => entries,
            },
            None => entries,
        };
        self.push(entries.into());
    }

    /// Puts a batch behind what is there, and goes on sharing it.
    ///
    /// # Panics
    ///
    /// When it does not follow what is there.
    pub fn push(&mut self, entries: Entries) {
        if let Some(first) = entries.first() {
            let end = self.runs.last().map_or(first.index, Run::end);
            assert!(first.index == end, "entries follow each other");
            self.len += entries.len();
            self.runs.push(Run { first: first.index, entries });
        }
    }

    /// Drops everything from `index` on.
    pub fn truncate(&mut self, index: Index) {
        while let Some(last) = self.runs.last_mut().filter(|last| index < last.end()) {
            let kept = place(index - last.first);
            self.len -= last.entries.len() - kept;
            if kept == 0 {
                self.runs.pop();
            } else {
                last.entries.cut(0..kept);
            }
        }
    }

    /// Drops everything up to and including `index`.
    pub fn drop_through(&mut self, index: Index) {
        let whole = self.runs.partition_point(|run| run.end() <= index.next());
        self.len -= self.runs.drain(..whole).map(|run| run.entries.len()).sum::<usize>();
        if let Some(first) = self.runs.first_mut().filter(|first| first.first <= index) {
            let cut = place(index.next() - first.first);
            self.len -= cut;
            first.entries.cut(cut..first.entries.len());
            first.first = index.next();
        }
        self.release();
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.len = 0;
        self.release();
    }

    /// Gives memory back that is not needed: all of it, once there are no batches.
    fn release(&mut self) {
        if 4 * self.runs.len() < self.runs.capacity() {
            self.runs.shrink_to(2 * self.runs.len());
        }
    }

    /// How many batches there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.runs.capacity()
    }

    /// Which batch has the entry at `index`, and where.
    fn find(&self, index: Index) -> Option<(usize, usize)> {
        // Most questions are about the end.
        let run = match self.runs.last() {
            Some(last) if last.first <= index => self.runs.len() - 1,
            _ => self.runs.partition_point(|run| run.first <= index).checked_sub(1)?,
        };
        let at = place(index - self.runs[run].first);
        (at < self.runs[run].entries.len()).then_some((run, at))
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
