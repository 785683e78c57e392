//! The shape of the log without its contents: where it starts and ends, which stamps it has, and
//! which segment holds what. Appending and recovering go through the same book, so what is
//! recovered is what was appended:
//! ```text
//! mark.index <= last        stamps never decrease        entries lie in segments in index order
//! ```
//! The last one holds because an entry that is written again takes all behind it away: of two
//! entries that are both still there, the higher was written later.

use std::collections::VecDeque;

use quorate_types::{Index, LogEntry, Mark};

use crate::Misfit;

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    /// As in its name.
    pub(crate) first: Index,
    /// The file's length.
    pub(crate) bytes: u64,
    /// The lowest entry in it that is still part of the log; compaction does not count.
    lives_from: Option<Index>,
}

impl Segment {
    pub(crate) fn new(sequence: u64, first: Index, bytes: u64) -> Self {
        Segment { sequence, first, bytes, lives_from: None }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    mark: Mark,
    last: Index,
    /// Where the stamp changes behind the mark: first index, stamp.
    runs: VecDeque<(Index, u64)>,
    /// Entries up to here, behind the mark, were in segments that are gone. Only while a log is
    /// read: its later records must take them all away. Their stamps in `runs` are lower bounds, but for
    /// that of the last one.
    missing_to: Index,
    segments: VecDeque<Segment>,
}

impl Ledger {
    /// A log that ends at `last`, without the entries up to there.
    pub(crate) fn new(mark: Mark, last: Index, last_stamp: u64) -> Self {
        let mut runs = VecDeque::new();
        if mark.index < last {
            if mark.index.next() < last {
                runs.push_back((mark.index.next(), mark.stamp));
            }
            runs.push_back((last, last_stamp));
        }
        let missing_to = if mark.index < last { last } else { Index(0) };
        Ledger { mark, last, runs, missing_to, segments: VecDeque::new() }
    }

    /// From now on entries go to this segment.
    pub(crate) fn begin_segment(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    /// Appends entries; the first may replace one that is there, with all behind it.
    pub(crate) fn append(&mut self, entries: &[LogEntry]) -> Result<(), Misfit> {
        let Some(first) = entries.first() else { return Ok(()) };
        if first.index <= self.mark.index {
            return Err(Misfit::Covered { index: first.index, mark: self.mark.index });
        }
        if self.last.next() < first.index {
            return Err(Misfit::Gap { index: first.index, wanted: self.last.next() });
        }
        let mut before = self.stamp(first.index.prev()).expect("an index that the log reaches");
        let mut wanted = first.index;
        for &LogEntry { index, stamp, .. } in entries {
            // The highest number has no successor, so it is none of ours.
            if index != wanted || index.0 == u64::MAX {
                return Err(Misfit::Gap { index, wanted });
            }
            if stamp < before {
                return Err(Misfit::Backward { index, stamp, before });
            }
            before = stamp;
            wanted = index.next();
        }

        self.truncate(first.index);
        for &LogEntry { index, stamp, .. } in entries {
            if self.runs.back().is_none_or(|(_, newest)| *newest != stamp) {
                self.runs.push_back((index, stamp));
            }
            self.last = index;
        }
        let segment = self.segments.back_mut().expect("a log has a segment");
        segment.lives_from.get_or_insert(first.index);
        Ok(())
    }

    /// Takes the entries from `from` on away. The stamp of the one before is known from then on.
    pub(crate) fn cut(&mut self, from: Index) -> Result<u64, Misfit> {
        if from <= self.mark.index {
            return Err(Misfit::Covered { index: from, mark: self.mark.index });
        }
        if self.last.next() < from {
            return Err(Misfit::Gap { index: from, wanted: self.last.next() });
        }
        self.truncate(from);
        Ok(self.stamp(self.last).expect("an index that the log reaches"))
    }

    /// The same, as a record has it. Whether it fits: where the stamp can be told, it is the same now.
    pub(crate) fn cut_again(&mut self, from: Index, stamp: u64) -> Result<bool, Misfit> {
        let held = self.cut(from)?;
        if self.last == self.mark.index || !self.is_missing(self.last) {
            return Ok(held == stamp);
        }
        // A lower bound so far.
        if self.runs.back().is_some_and(|(first, _)| *first == self.last) {
            self.runs.pop_back();
        }
        self.runs.push_back((self.last, stamp));
        Ok(held <= stamp)
    }

    /// Forgets the entries from `from` on.
    fn truncate(&mut self, from: Index) {
        while self.runs.back().is_some_and(|(first, _)| from <= *first) {
            self.runs.pop_back();
        }
        for segment in self.segments.iter_mut().rev() {
            match segment.lives_from {
                Some(first) if first < from => break,
                _ => segment.lives_from = None,
            }
        }
        self.last = self.last.min(from.prev());
        self.missing_to = self.missing_to.min(from.prev());
    }

    /// Whether a leader's snapshot at `mark` leaves the entries behind it in place: they are the
    /// leader's if the log holds the very entry that the snapshot ends with.
    pub(crate) fn keeps_tail(&self, mark: &Mark) -> bool {
        self.stamp(mark.index) == Some(mark.stamp)
    }

    /// Starts the log after a leader's snapshot, with what is behind it or without.
    pub(crate) fn install(&mut self, mark: &Mark, keeps_tail: bool) -> Result<(), Misfit> {
        if mark.index < self.mark.index {
            return Err(Misfit::Covered { index: mark.index, mark: self.mark.index });
        }
        if keeps_tail {
            return self.compact(mark);
        }
        self.truncate(self.mark.index.next());
        self.mark = mark.clone();
        self.last = mark.index;
        self.missing_to = Index(0);
        Ok(())
    }

    /// Whether the log may start after `mark`.
    pub(crate) fn check_compact(&self, mark: &Mark) -> Result<(), Misfit> {
        let Mark { index, stamp: named, .. } = *mark;
        if index < self.mark.index {
            return Err(Misfit::Covered { index, mark: self.mark.index });
        }
        let Some(held) = self.stamp(index) else {
            return Err(Misfit::Beyond { index, last: self.last });
        };
        if held != named && self.missing_to < index {
            return Err(Misfit::Stamp { index, named, held });
        }
        Ok(())
    }

    /// Starts the log after `mark`, a place in it.
    pub(crate) fn compact(&mut self, mark: &Mark) -> Result<(), Misfit> {
        self.check_compact(mark)?;
        // The run that the entry after the mark is in stays, and starts there.
        while self.runs.get(1).is_some_and(|(first, _)| *first <= mark.index.next()) {
            self.runs.pop_front();
        }
        if mark.index == self.last {
            self.runs.clear();
        } else if let Some((first, _)) = self.runs.front_mut() {
            *first = mark.index.next().max(*first);
        }
        self.mark = mark.clone();
        Ok(())
    }

    /// Takes the oldest segment off the book if nothing in it is part of the log any more.
    pub(crate) fn retire(&mut self) -> Option<Segment> {
        // The newest stays in any case: records go there.
        if self.segments.len() < 2 {
            return None;
        }
        // Its live entries end where those of the others begin.
        let lives_to = self.segments.iter().skip(1).find_map(|segment| segment.lives_from);
        let lives_to = lives_to.map_or(self.last, Index::prev);
        if self.mark.index < lives_to {
            return None;
        }
        self.segments.pop_front()
    }

    /// Puts back what `retire` took, when it could not be removed.
    pub(crate) fn reinstate(&mut self, segment: Segment) {
        self.segments.push_front(segment);
    }

    /// The stamp at an index, if the log reaches from before it to behind it.
    pub(crate) fn stamp(&self, index: Index) -> Option<u64> {
        if index == self.mark.index {
            return Some(self.mark.stamp);
        }
        if index < self.mark.index || self.last < index {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        Some(self.runs[after - 1].1)
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    pub(crate) fn last(&self) -> Index {
        self.last
    }

    pub(crate) fn last_stamp(&self) -> u64 {
        self.stamp(self.last).expect("the last index is in the log")
    }

    pub(crate) fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    /// Whether the contents of the entry at `index` were in a segment that is gone.
    pub(crate) fn is_missing(&self, index: Index) -> bool {
        index <= self.missing_to
    }

    /// The entries that the log should have and that no segment holds: first and last.
    pub(crate) fn missing(&self) -> Option<(Index, Index)> {
        (self.mark.index < self.missing_to).then_some((self.mark.index.next(), self.missing_to))
    }
}
