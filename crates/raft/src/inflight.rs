//! The window of appends that a peer has not acknowledged yet.
//!
//! It bounds how much is under way to a peer, by count and by payload bytes. The count is a hard
//! limit; the byte limit is soft, one append may overshoot it. Memory grows with what is under
//! way and goes back when nothing is, because thousands of groups may share a process.

use std::collections::VecDeque;

use quorate_types::Index;

/// Room for so many appends is kept while the window is empty.
const KEPT_COUNT: usize = 8;

/// Appends under way to one peer: the last index and the payload bytes of each, oldest first.
///
/// Source: etcd's `tracker.Inflights`.
#[derive(Clone, Debug)]
pub struct Inflights {
    // Only leaders have one, and most of many groups on a node do not lead.
    window: Option<Box<Window>>,
    bytes_max: u64,
    count_max: u32,
    /// So many of them may be under way now: fewer after a refusal, until acknowledgements come.
    open: u32,
}

#[derive(Clone, Debug, Default)]
struct Window {
    appends: VecDeque<(Index, u64)>,
    /// Of all appends together.
    bytes: u64,
}

impl Inflights {
    /// An empty window for at most `count_max` appends and about `bytes_max` bytes; 0 bytes means
    /// no limit by bytes. Takes no memory until something is added.
    pub fn new(count_max: usize, bytes_max: u64) -> Self {
        let count_max = u32::try_from(count_max).unwrap_or(u32::MAX);
        Inflights { window: None, bytes_max, count_max, open: count_max }
    }

    /// Takes in an append of `bytes` whose last entry is `last`. Appends are added in order, and
    /// never to a full window.
    pub fn add(&mut self, last: Index, bytes: u64) {
        assert!(!self.is_full(), "nothing is sent while the window is full");
        let window = self.window.get_or_insert_default();
        let count = window.appends.len();
        if count == window.appends.capacity() {
            // Twice as much, up to the limit.
            window.appends.reserve_exact(count.max(4).min(self.count_max as usize - count));
        }
        window.appends.push_back((last, bytes));
        window.bytes = window.bytes.saturating_add(bytes);
    }

    /// Frees every append whose last entry is at or before `to`.
    pub fn free_le(&mut self, to: Index) {
        let Some(window) = &mut self.window else {
            return;
        };
        while let Some(&(last, bytes)) = window.appends.front() {
            if to < last {
                return;
            }
            window.bytes = window.bytes.saturating_sub(bytes);
            window.appends.pop_front();
        }
        if KEPT_COUNT < window.appends.capacity() {
            self.window = None;
        }
    }

    /// Gives memory back if nothing is under way.
    pub(crate) fn rest(&mut self) {
        if self.count() == 0 {
            self.window = None;
        }
    }

    /// Frees everything.
    pub fn reset(&mut self) {
        self.window = None;
    }

    /// Leaves room for one append only, until more are acknowledged.
    pub(crate) fn narrow(&mut self) {
        self.open = self.open.min(1);
    }

    /// Leaves room for one append more, within its limit.
    pub(crate) fn widen(&mut self) {
        self.open = self.open.saturating_add(1).min(self.count_max);
    }

    /// Whether nothing more may be sent.
    pub fn is_full(&self) -> bool {
        self.open as usize <= self.count()
            || (self.bytes_max != 0 && self.bytes_max <= self.bytes())
    }

    /// How many appends are under way.
    pub fn count(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.appends.len())
    }

    /// How many payload bytes are under way.
    pub fn bytes(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.bytes)
    }

    /// The last index and the payload bytes of each append under way, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Index, u64)> {
        self.window.iter().flat_map(|window| window.appends.iter().copied())
    }
}

/// By limits and what is under way, whatever memory is kept.
impl PartialEq for Inflights {
    fn eq(&self, other: &Self) -> bool {
        self.bytes_max == other.bytes_max
            && self.count_max == other.count_max
            && self.open == other.open
            && self.iter().eq(other.iter())
    }
}

impl Eq for Inflights {}

#[cfg(test)]
mod tests;
