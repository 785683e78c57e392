//! Requests that have begun to arrive and are not whole: what they hold is bounded for all clients
//! together.
//!
//! Whoever sends a request may stop in the midst of it, in thousands of calls. Once such requests hold too
//! much together, whoever has sent most on one connection loses the one of its requests that has waited for
//! longest, and nothing was done for it: others' are whole soon, however many of its there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// What all of them may hold.
const BYTES_MAX: usize = 512 << 20;
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
    connections: BTreeMap<usize, Connection>,
}

/// What waits on one connection.
#[derive(Debug, Default)]
struct Connection {
    bytes: usize,
    /// By when they began to wait: what each holds, and who hears when it is given up.
    requests: BTreeMap<u64, (usize, Waker)>,
}

/// The place of one request among them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    unfinished: Unfinished,
    connection: usize,
    number: u64,
}

impl Unfinished {
    pub(crate) fn new() -> Self {
        Unfinished::of(BYTES_MAX)
    }

    fn of(bytes_max: usize) -> Self {
        Unfinished { waiting: Arc::default(), bytes_max }
    }

    /// A request of a connection that holds so much waits for more; false if it is given up. Its waker is
    /// called when it is given up later, to hear so by asking again.
    pub(crate) fn may_wait(
        &self,
        place: &mut Option<Place>,
        connection: usize,
        bytes: usize,
        waker: &Waker,
    ) -> bool {
        if place.is_none() && bytes < FREE_BYTES {
            return true;
        }
        let mut waiting = self.locked();
        let number = match place {
            Some(place) => {
                if !waiting.leave(connection, place.number) {
                    return false;
                }
                place.number
            }
            None => {
                let number = waiting.next;
                waiting.next += 1;
                *place = Some(Place { unfinished: self.clone(), connection, number });
                number
            }
        };
        waiting.enter(connection, number, bytes, waker.clone());
        let mut given_up = Vec::new();
        while self.bytes_max < waiting.bytes
            && let Some((its, waker)) = waiting.give_up()
        {
            given_up.push((its, waker));
        }
        drop(waiting);
        let stays = given_up.iter().all(|(its, _)| *its != number);
        given_up.into_iter().for_each(|(_, waker)| waker.wake());
        stays
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.locked().bytes
    }

    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn enter(&mut self, connection: usize, number: u64, bytes: usize, waker: Waker) {
        let of = self.connections.entry(connection).or_default();
        of.requests.insert(number, (bytes, waker));
        of.bytes += bytes;
        self.bytes += bytes;
    }

    /// Whether it was still there.
    fn leave(&mut self, connection: usize, number: u64) -> bool {
        let Some(of) = self.connections.get_mut(&connection) else { return false };
        let Some((bytes, _)) = of.requests.remove(&number) else { return false };
        of.bytes -= bytes;
        self.bytes -= bytes;
        if of.requests.is_empty() {
            self.connections.remove(&connection);
        }
        true
    }

    /// The oldest request of the connection that holds most.
    fn give_up(&mut self) -> Option<(u64, Waker)> {
        let (connection, of) = self.connections.iter().max_by_key(|(_, of)| of.bytes)?;
        let (number, (_, waker)) = of.requests.first_key_value()?;
        let (connection, number, waker) = (*connection, *number, waker.clone());
        self.leave(connection, number);
        Some((number, waker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unfinished.locked().leave(self.connection, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn wait(
        unfinished: &Unfinished,
        place: &mut Option<Place>,
        connection: usize,
        kib: usize,
    ) -> bool {
        unfinished.may_wait(place, connection, kib * KIB, Waker::noop())
    }

    #[test]
    fn of_one_connection_the_request_that_has_waited_for_longest_makes_room() {
        let unfinished = Unfinished::of(100 * KIB);
        let [mut first, mut second, mut third] = [None, None, None];
        assert!(wait(&unfinished, &mut first, 1, 40) && wait(&unfinished, &mut second, 1, 40));
        // It holds more, and keeps its place.
        assert!(wait(&unfinished, &mut first, 1, 60));
        assert!(wait(&unfinished, &mut third, 1, 30));
        assert!(!wait(&unfinished, &mut first, 1, 60), "it came first");
        assert!(wait(&unfinished, &mut second, 1, 70) && wait(&unfinished, &mut third, 1, 30));
        assert_eq!(unfinished.locked().bytes, 100 * KIB);
        drop((first, second, third));
        let left = unfinished.locked();
        assert_eq!((left.bytes, left.connections.len()), (0, 0));
    }

    #[test]
    fn whoever_holds_most_on_a_connection_makes_room_and_no_other_does() {
        let unfinished = Unfinished::of(100 * KIB);
        let mut modest = None;
        assert!(wait(&unfinished, &mut modest, 1, 20));
        let mut greedy: Vec<Option<Place>> = (0..10).map(|_| None).collect();
        for place in &mut greedy {
            assert!(wait(&unfinished, place, 2, 10));
        }
        let given_up = |place: &mut Option<Place>| !wait(&unfinished, place, 2, 10);
        let counts = [given_up(&mut greedy[0]), given_up(&mut greedy[1]), given_up(&mut greedy[2])];
        assert_eq!(counts, [true, true, false], "the oldest of its own");
        assert!(wait(&unfinished, &mut modest, 1, 20), "though it came before them");
        // It holds most by now, and is given up for what it asks.
        assert!(wait(&unfinished, &mut modest, 1, 20) && !wait(&unfinished, &mut modest, 1, 90));
    }

    #[test]
    fn one_that_is_too_long_for_all_the_room_is_given_up_itself() {
        let (unfinished, mut place) = (Unfinished::of(100 * KIB), None);
        assert!(wait(&unfinished, &mut place, 1, 100) && !wait(&unfinished, &mut place, 1, 101));
        assert_eq!(unfinished.locked().bytes, 0);
    }

    #[test]
    fn short_ones_are_not_counted_until_they_are_long() {
        let unfinished = Unfinished::of(100 * KIB);
        let mut places: Vec<Option<Place>> = (0..1000).map(|_| None).collect();
        for place in &mut places {
            assert!(wait(&unfinished, place, 1, 7) && place.is_none());
        }
        assert!(wait(&unfinished, &mut places[0], 1, 8) && places[0].is_some());
    }
}
