//! Requests that have begun to arrive and are not whole: what they hold is bounded for all clients
//! together.
//!
//! Whoever sends a request may stop in the midst of it, in thousands of calls. Once such requests hold too
//! much together, the one that has waited for longest is given up, and nothing was done for it: those that
//! go on are whole soon, however many others there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// What all of them may hold.
const BYTES_MAX: usize = 256 << 20;
/// One that holds less is not counted: a call takes as much by itself.
const FREE_BYTES: usize = 8 << 10;

/// All requests that wait for more of themselves. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    waiting: Arc<Mutex<Waiting>>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    next: u64,
    /// By when they began to wait: what each holds, and who hears when it is given up.
    requests: BTreeMap<u64, (usize, Waker)>,
}

/// The place of one request among them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    unfinished: Unfinished,
    number: u64,
}

impl Unfinished {
    pub(crate) fn new() -> Self {
        Unfinished::of(BYTES_MAX)
    }

    fn of(bytes_max: usize) -> Self {
        Unfinished { waiting: Arc::default(), bytes_max }
    }

    /// A request that holds so much waits for more; false if it is given up. Its waker is called when it is
    /// given up later, to hear so by asking again.
    pub(crate) fn may_wait(&self, place: &mut Option<Place>, bytes: usize, waker: &Waker) -> bool {
        if place.is_none() && bytes < FREE_BYTES {
            return true;
        }
        let mut waiting = self.locked();
        let number = match place {
            Some(place) => {
                if !waiting.leave(place.number) {
                    return false;
                }
                place.number
            }
            None => {
                let number = waiting.next;
                waiting.next += 1;
                *place = Some(Place { unfinished: self.clone(), number });
                number
            }
        };
        waiting.bytes += bytes;
        waiting.requests.insert(number, (bytes, waker.clone()));
        let mut given_up = Vec::new();
        while self.bytes_max < waiting.bytes
            && let Some((_, (bytes, waker))) = waiting.requests.pop_first()
        {
            waiting.bytes -= bytes;
            given_up.push(waker);
        }
        let stays = waiting.requests.contains_key(&number);
        drop(waiting);
        given_up.into_iter().for_each(Waker::wake);
        stays
    }

    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether it was still there.
    fn leave(&mut self, number: u64) -> bool {
        let left = self.requests.remove(&number);
        self.bytes -= left.as_ref().map_or(0, |(bytes, _)| *bytes);
        left.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unfinished.locked().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn wait(unfinished: &Unfinished, place: &mut Option<Place>, kib: usize) -> bool {
        unfinished.may_wait(place, kib * KIB, Waker::noop())
    }

    #[test]
    fn who_has_waited_for_longest_makes_room() {
        let unfinished = Unfinished::of(100 * KIB);
        let [mut first, mut second, mut third] = [None, None, None];
        assert!(wait(&unfinished, &mut first, 40) && wait(&unfinished, &mut second, 40));
        // It holds more, and keeps its place.
        assert!(wait(&unfinished, &mut first, 60));
        assert!(wait(&unfinished, &mut third, 30));
        assert!(!wait(&unfinished, &mut first, 60), "it came first");
        assert!(wait(&unfinished, &mut second, 70) && wait(&unfinished, &mut third, 30));
        assert_eq!(unfinished.locked().bytes, 100 * KIB);
        drop((first, second, third));
        let left = unfinished.locked();
        assert_eq!((left.bytes, left.requests.len()), (0, 0));
    }

    #[test]
    fn one_that_is_too_long_for_all_the_room_is_given_up_itself() {
        let (unfinished, mut place) = (Unfinished::of(100 * KIB), None);
        assert!(wait(&unfinished, &mut place, 100) && !wait(&unfinished, &mut place, 101));
        assert_eq!(unfinished.locked().bytes, 0);
    }

    #[test]
    fn short_ones_are_not_counted_until_they_are_long() {
        let unfinished = Unfinished::of(100 * KIB);
        let mut places: Vec<Option<Place>> = (0..1000).map(|_| None).collect();
        for place in &mut places {
            assert!(wait(&unfinished, place, 7) && place.is_none());
        }
        assert!(wait(&unfinished, &mut places[0], 8) && places[0].is_some());
    }
}
