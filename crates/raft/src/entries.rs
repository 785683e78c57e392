//! Entries in batches that are shared instead of copied.
//!
//! On its way from a proposal to the state machine an entry is handed to every peer, to the disk and
//! to the application. All of them are handed the same batch, in whole or in part; it goes when the
//! last of them has dropped it. What a batch weighs is known once it is made.
//!
//! Not here: how a log keeps the batches it is made of (`runs.rs`).

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::Entry;

/// Some entries in a row, to be read like a slice. A clone shares them, and costs no memory.
///
/// A part keeps the whole batch in memory that it is a part of.
#[derive(Clone, Default)]
pub struct Entries {
    /// Nothing if there are no entries.
    batch: Option<Arc<Batch>>,
    start: usize,
    end: usize,
}

struct Batch {
    entries: Vec<Entry>,
    /// Of all entries together.
    encoded_bytes: u64,
    payload_bytes: u64,
}

impl Entries {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The entries at these places, shared.
    ///
    /// # Panics
    ///
    /// When there are no such places.
    pub fn part(&self, places: Range<usize>) -> Entries {
        assert!(places.start <= places.end && places.end <= self.len(), "a part lies within");
        if places.is_empty() {
            return Entries::default();
        }
        let (start, end) = (self.start + places.start, self.start + places.end);
        Entries { batch: self.batch.clone(), start, end }
    }

    /// The entries themselves: without a copy if nobody shares them.
    pub fn into_vec(self) -> Vec<Entry> {
        let Entries { batch, start, end } = self;
        let Some(batch) = batch else { return Vec::new() };
        match Arc::try_unwrap(batch) {
            Ok(Batch { mut entries, .. }) => {
                entries.truncate(end);
                entries.drain(..start);
                entries
            }
            Err(batch) => batch.entries[start..end].to_vec(),
        }
    }

    /// Bytes that the entries take encoded. Known without a walk unless they are a part.
    pub fn encoded_size(&self) -> u64 {
        match self.whole() {
            Some(batch) => batch.encoded_bytes,
            None => crate::encoded_size(self),
        }
    }

    /// Bytes of data in the entries. Known without a walk unless they are a part.
    pub fn payload_size(&self) -> u64 {
        match self.whole() {
            Some(batch) => batch.payload_bytes,
            None => crate::payload_size(self),
        }
    }

    /// How many of the first entries are encoded in `max_size` bytes; perhaps none.
    pub(crate) fn fitting(&self, max_size: u64) -> usize {
        // Mostly all of them do, and then so does the batch.
        if self.batch.as_ref().is_none_or(|batch| batch.encoded_bytes <= max_size) {
            return self.len();
        }
        let mut size = 0;
        let too_many = self.iter().position(|entry| {
            size += entry.encoded_size();
            max_size < size
        });
        too_many.unwrap_or(self.len())
    }

    /// Puts `more` behind the entries if nobody shares them; otherwise gives it back.
    pub(crate) fn try_extend(&mut self, more: Vec<Entry>) -> Result<(), Vec<Entry>> {
        let Some(batch) = self.batch.as_mut().and_then(Arc::get_mut) else { return Err(more) };
        if batch.entries.len() != self.end {
            return Err(more);
        }
        let (encoded, payload) = sizes(&more);
        batch.encoded_bytes += encoded;
        batch.payload_bytes += payload;
        batch.entries.extend(more);
        self.end = batch.entries.len();
        Ok(())
    }

    /// Keeps only the entries at these places. What is cut off goes once it is more than what
    /// stays, unless others hold it.
    pub(crate) fn cut(&mut self, places: Range<usize>) {
        *self = self.part(places);
        if self.batch.as_ref().is_some_and(|batch| 2 * self.len() < batch.entries.len()) {
            *self = Entries::from(self.to_vec());
        }
    }

    /// The batch, if this is all of it.
    fn whole(&self) -> Option<&Batch> {
        self.batch.as_deref().filter(|batch| batch.entries.len() == self.len())
    }
}

/// Encoded size and payload size in one walk.
fn sizes(entries: &[Entry]) -> (u64, u64) {
    entries.iter().fold((0, 0), |(encoded, payload), entry| {
        (encoded + entry.encoded_size(), payload + entry.payload_size())
    })
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        match &self.batch {
            Some(batch) => &batch.entries[self.start..self.end],
            None => &[],
        }
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        if entries.is_empty() {
            return Entries::default();
        }
        let (encoded_bytes, payload_bytes) = sizes(&entries);
        let end = entries.len();
        let batch = Batch { entries, encoded_bytes, payload_bytes };
        Entries { batch: Some(Arc::new(batch)), start: 0, end }
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Entries::from(Vec::from_iter(entries))
    }
}

impl IntoIterator for Entries {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl<T: AsRef<[Entry]>> PartialEq<T> for Entries {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::{Index, Term};

    use super::*;

    fn entries(indexes: Range<u64>) -> Entries {
        let data = Some(Bytes::from_static(b"payload"));
        let entry = |at| Entry { term: Term(1), index: Index(at), kind: None, data: data.clone() };
        indexes.map(entry).collect()
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index.0).collect()
    }

    #[test]
    fn a_part_is_what_stands_at_its_places() {
        let all = entries(1..6);
        for (places, want) in
            [(0..5, &[1, 2, 3, 4, 5][..]), (0..2, &[1, 2]), (3..5, &[4, 5]), (2..2, &[])]
        {
            let part = all.part(places.clone());
            assert_eq!(indexes(&part), want, "{places:?}");
            assert_eq!(indexes(&part.part(0..part.len())), want);
            let sizes = (part.encoded_size(), part.payload_size());
            assert_eq!(sizes, (13 * want.len() as u64, 7 * want.len() as u64));
            assert_eq!(indexes(&part.into_vec()), want, "as a copy");
            assert_eq!(indexes(&entries(1..6).part(places).into_vec()), want, "taken over");
        }
    }

    #[test]
    fn as_many_fit_as_are_encoded_in_the_limit() {
        let all = entries(1..6);
        let (part, none) = (all.part(1..4), Entries::new());
        for (max_size, want) in [(u64::MAX, 3), (39, 3), (38, 2), (26, 2), (13, 1), (12, 0), (0, 0)]
        {
            assert_eq!((part.fitting(max_size), none.fitting(max_size)), (want, 0), "{max_size}");
        }
    }

    #[test]
    fn only_what_nobody_shares_grows_in_place() {
        let mut grown = entries(1..3);
        assert!(grown.try_extend(entries(3..4).into_vec()).is_ok());
        assert_eq!((indexes(&grown), grown.encoded_size()), (vec![1, 2, 3], 39));
        let shared = grown.clone();
        assert!(grown.try_extend(entries(4..5).into_vec()).is_err());
        drop(shared);
        grown.cut(0..2);
        assert!(grown.try_extend(entries(3..4).into_vec()).is_err(), "another stands there");
        assert!(Entries::new().try_extend(Vec::new()).is_err());
    }

    #[test]
    fn what_is_cut_off_does_not_stay_in_memory_for_long() {
        let mut cut = entries(1..9);
        let held = |entries: &Entries| entries.batch.as_ref().map(|batch| batch.entries.len());
        for (places, want, held_now) in [
            (1..8, &[2, 3, 4, 5, 6, 7, 8][..], Some(8)),
            (3..7, &[5, 6, 7, 8], Some(8)),
            (0..3, &[5, 6, 7], Some(3)),
            (0..0, &[], None),
        ] {
            cut.cut(places);
            assert_eq!((indexes(&cut).as_slice(), held(&cut)), (want, held_now));
        }
    }

    #[test]
    fn entries_are_compared_by_what_they_hold() {
        let all = entries(1..4);
        assert_eq!(all, entries(1..4));
        assert_eq!(all, entries(1..4).into_vec());
        assert_ne!(all, all.part(0..2));
        assert_eq!(format!("{:?}", all.part(0..1)), format!("{:?}", &all[..1]));
    }
}
