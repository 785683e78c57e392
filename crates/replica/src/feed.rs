//! What was applied lately, in order, for whoever follows it: copies that only serve reads, logs for
//! people, other systems. The same whichever engine runs, since it stands above the machine's entries.
//!
//! ```text
//! first - 1 <= place of a subscriber <= last        kept: first..=last
//! ```
//! Nothing is kept for a single subscriber: it has a place, and asks for what comes after it. So one
//! that is slow holds up nobody and takes no memory; in the end the feed has passed it by, and it is
//! told so. It then takes the state as it is, and goes on from the index that the state stands for. One
//! that lost its connection goes on from its place in the same way.
//!
//! A subscriber has no vote and no part in any quorum. Only what is applied is here, and that is
//! committed: nothing that was told is ever taken back.

use std::collections::VecDeque;

use quorate_types::Index;

use crate::Applying;

/// What each entry takes besides its command.
const ENTRY_BYTES: u64 = 64;

/// The newest applied entries of one replica.
#[derive(Clone, Debug)]
pub struct Feed {
    entries: VecDeque<Applying>,
    bytes: u64,
    last: Index,
    bytes_max: u64,
    count_max: usize,
}

/// Why there is nothing to tell from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The feed has passed it by: take the state, and go on from there.
    #[error("what follows {after} is no longer kept; the first entry that is stands at {first}")]
    PassedBy {
        /// The place that was asked from.
        after: Index,
        /// The first entry that is kept, or would be the next.
        first: Index,
    },
    /// It is a place that this replica has not reached.
    #[error("{after} is not applied here yet; the last entry that is stands at {last}")]
    NotThere {
        /// The place that was asked from.
        after: Index,
        /// The last entry that is applied.
        last: Index,
    },
}

impl Feed {
    /// An empty feed behind `applied`, which keeps up to `bytes_max` bytes and `count_max` entries.
    pub fn new(applied: Index, bytes_max: u64, count_max: usize) -> Self {
        Feed { entries: VecDeque::new(), bytes: 0, last: applied, bytes_max, count_max }
    }

    /// The machine has applied this.
    ///
    /// # Panics
    ///
    /// If it is not the next one: machines apply without gaps.
    pub fn push(&mut self, entry: Applying) {
        assert!(entry.index() == self.last.next(), "entries are applied in order");
        self.last = entry.index();
        self.bytes += bytes_of(&entry);
        self.entries.push_back(entry);
        while self.bytes_max < self.bytes || self.count_max < self.entries.len() {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= bytes_of(&oldest);
        }
    }

    /// The state was replaced by one that stands for everything up to `applied`.
    pub fn restart(&mut self, applied: Index) {
        self.entries.clear();
        (self.bytes, self.last) = (0, applied);
    }

    /// The last entry that is applied.
    pub fn last(&self) -> Index {
        self.last
    }

    /// The first entry that is kept, or the one that will be.
    pub fn first(&self) -> Index {
        self.last.next() - self.entries.len() as u64
    }

    /// What comes after a place, as many entries as take `bytes_max`, and at least one if there is one.
    /// None means that the subscriber has everything so far.
    ///
    /// # Errors
    ///
    /// [`FeedError`] when what follows is not kept, or the place lies ahead.
    pub fn after(&self, place: Index, bytes_max: u64) -> Result<Vec<Applying>, FeedError> {
        let first = self.first();
        if place.next() < first {
            return Err(FeedError::PassedBy { after: place, first });
        }
        if self.last < place {
            return Err(FeedError::NotThere { after: place, last: self.last });
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.entries.range((place.next() - first) as usize..) {
            bytes += bytes_of(entry);
            if bytes_max < bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

fn bytes_of(entry: &Applying) -> u64 {
    let content = match entry {
        Applying::Command { entry, .. } => entry.len() as u64,
        // Members are few.
        Applying::Empty { .. } | Applying::Membership { .. } => 0,
    };
    content + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::Term;

    use super::*;

    fn command(index: u64, bytes: usize) -> Applying {
        let entry = Bytes::from(vec![index as u8; bytes]);
        Applying::Command { index: Index(index), term: Term(1), entry }
    }

    fn feed(bytes_max: u64, count_max: usize) -> Feed {
        let mut feed = Feed::new(Index(1), bytes_max, count_max);
        for index in 2..=9 {
            feed.push(command(index, 10));
        }
        feed
    }

    fn told(feed: &Feed, after: u64, bytes_max: u64) -> Result<Vec<u64>, FeedError> {
        let entries = feed.after(Index(after), bytes_max)?;
        Ok(entries.iter().map(|entry| entry.index().0).collect())
    }

    #[test]
    fn a_subscriber_is_told_everything_after_its_place_once_and_in_order() {
        let mut feed = feed(u64::MAX, usize::MAX);
        for (after, bytes_max, want) in [
            (1, u64::MAX, &[2, 3, 4, 5, 6, 7, 8, 9][..]),
            (6, u64::MAX, &[7, 8, 9]),
            (6, 2 * (10 + ENTRY_BYTES), &[7, 8]),
            (6, 0, &[7]), // always one
            (9, u64::MAX, &[]),
        ] {
            assert_eq!(told(&feed, after, bytes_max).as_deref(), Ok(want), "after {after}");
        }
        let not_there = FeedError::NotThere { after: Index(10), last: Index(9) };
        assert_eq!(told(&feed, 10, 0), Err(not_there));
        // It goes on from where it was.
        feed.push(command(10, 1));
        assert_eq!(told(&feed, 9, 0), Ok(vec![10]));
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_is_passed_by_is_told() {
        for (feed, first) in [
            (feed(u64::MAX, 3), 7),
            (feed(2 * (10 + ENTRY_BYTES), usize::MAX), 8),
            (feed(0, 3), 10), // nothing fits
        ] {
            assert_eq!((feed.first(), feed.last()), (Index(first), Index(9)));
            for after in 0..first - 1 {
                let passed_by = FeedError::PassedBy { after: Index(after), first: Index(first) };
                assert_eq!(told(&feed, after, 0), Err(passed_by));
            }
            assert!(told(&feed, first - 1, 0).is_ok());
        }
    }

    #[test]
    fn a_state_that_is_received_begins_a_feed_anew() {
        let mut feed = feed(u64::MAX, usize::MAX);
        feed.restart(Index(50));
        assert_eq!((feed.first(), feed.last()), (Index(51), Index(50)));
        let passed_by = FeedError::PassedBy { after: Index(9), first: Index(51) };
        assert_eq!(told(&feed, 9, 0), Err(passed_by));
        assert_eq!(told(&feed, 50, 0), Ok(vec![]));
        feed.push(command(51, 1));
        assert_eq!(told(&feed, 50, 0), Ok(vec![51]));
    }
}
