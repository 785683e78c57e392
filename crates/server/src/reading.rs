//! Reads of the store: on which thread, and for how much memory.
//!
//! One key is read at once, on the thread of its call, as long as storage answers at once. A read that
//! waits for a disk would hold up every other call of its thread: so never all threads read at a time,
//! and once storage was seen to take its time, reads that need it go to threads that may wait.
//!
//! Long answers share one room. Who finds it full waits for some to be free, for as long as a request
//! may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quorate_kv::{
    AnswerRoom, Drawn, FREE_ANSWER_BYTES, KvError, RangeRequest, RangeResponse, Store,
};
use quorate_proto::prost::Message;
use tonic::{Response, Status};

use crate::local::Local;
use crate::status;

/// Storage that takes longer for one key has waited for a disk.
const SLOW: Duration = Duration::from_millis(5);
/// How long storage is taken for slow after it was.
const SLOW_FOR: Duration = Duration::from_millis(500);
/// Another's read takes microseconds, if it does not wait: less than to go to another thread.
const TURN_SPINS: u32 = 100;
/// Wait before an answer is tried again that found no room.
const ROOM_POLL: Duration = Duration::from_millis(50);

/// Whether storage answers at once.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    /// In milliseconds since it began.
    slow_until: AtomicU64,
    /// Reads on threads that serve other calls.
    reading: AtomicUsize,
    reading_max: usize,
}

/// A read on a thread that serves other calls.
struct Turn<'a> {
    pace: &'a Pace,
    begun: Instant,
}

impl Pace {
    /// For so many threads that serve calls.
    pub(crate) fn new(threads: usize) -> Self {
        Pace {
            begun: Instant::now(),
            slow_until: AtomicU64::new(0),
            reading: AtomicUsize::new(0),
            reading_max: threads.saturating_sub(1).max(1),
        }
    }

    /// Nothing, if a read should wait elsewhere.
    fn turn(&self, now: Instant) -> Option<Turn<'_>> {
        if self.ms(now) < self.slow_until.load(Ordering::Relaxed) {
            return None;
        }
        for _ in 0..TURN_SPINS {
            let one_more = |count: usize| (count < self.reading_max).then_some(count + 1);
            let order = Ordering::Relaxed;
            if self.reading.fetch_update(order, order, one_more).is_ok() {
                return Some(Turn { pace: self, begun: now });
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Storage was read for so long, until `now`.
    fn on_read(&self, took: Duration, now: Instant) {
        if SLOW < took {
            self.slow_until.fetch_max(self.ms(now + SLOW_FOR), Ordering::Relaxed);
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_millis() as u64
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pace.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps the room of an answer until that is sent, or nobody waits for it any more.
#[derive(Clone)]
pub(crate) struct Held {
    _drawn: Arc<Drawn>,
}

impl Local {
    /// Reads one key.
    pub(crate) async fn read_one(
        &self,
        range: RangeRequest,
    ) -> Result<(RangeResponse, Option<Drawn>), Status> {
        if let Some(answer) = self.try_read_one(&range).map_err(status::of_kv)? {
            return Ok(answer);
        }
        let local = self.clone();
        self.read_long(move |store, room| {
            let begun = Instant::now();
            let answer = store.range_within(room, &range);
            let now = Instant::now();
            local.pace().on_read(now.saturating_duration_since(begun), now);
            answer
        })
        .await
    }

    /// Reads it here, unless that would have to wait.
    fn try_read_one(
        &self,
        range: &RangeRequest,
    ) -> Result<Option<(RangeResponse, Option<Drawn>)>, KvError> {
        let Some(turn) = self.pace().turn(Instant::now()) else {
            let answer = self.store().range_in_memory(range)?;
            return Ok(answer.map(|answer| (answer, None)));
        };
        let answer = self.store().range_within(self.answers(), range);
        let now = Instant::now();
        self.pace().on_read(now.saturating_duration_since(turn.begun), now);
        match answer {
            Err(KvError::RequestTooManyRequests) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Reads the store on a thread that may take its time, for an answer that may be long.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        read: impl Fn(&Store, &Arc<AnswerRoom>) -> Result<T, KvError> + Send + Sync + 'static,
    ) -> Result<T, Status> {
        let (read, begun) = (Arc::new(read), Instant::now());
        loop {
            let (read, room) = (Arc::clone(&read), Arc::clone(self.answers()));
            // The outer answer is that of the thread.
            match self.read(move |store| Ok(read(store, &room))).await? {
                Err(KvError::RequestTooManyRequests)
                    if begun.elapsed() < self.request_timeout() =>
                {
                    tokio::time::sleep(ROOM_POLL).await;
                }
                answer => return answer.map_err(status::of_kv),
            }
        }
    }

    /// An answer to a change, with the room that it takes until it is sent. It waits for none: the
    /// change is made, and whoever asked for it hears so.
    pub(crate) fn with_room<T: Message>(&self, answer: T) -> Result<Response<T>, Status> {
        let bytes = answer.encoded_len();
        if bytes <= FREE_ANSWER_BYTES {
            return Ok(Response::new(answer));
        }
        match self.answers().draw(bytes) {
            Some(drawn) => Ok(held(answer, Some(drawn))),
            None => Err(status::of_kv(KvError::AppliedResponseTooLarge)),
        }
    }
}

/// An answer that keeps its room until it is sent.
pub(crate) fn held<T>(answer: T, drawn: Option<Drawn>) -> Response<T> {
    let mut response = Response::new(answer);
    if let Some(drawn) = drawn.filter(|drawn| 0 < drawn.bytes()) {
        response.extensions_mut().insert(Held { _drawn: Arc::new(drawn) });
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_wait_elsewhere_once_storage_was_slow_and_never_on_all_threads() {
        let pace = Pace::new(3);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let turns = [pace.turn(at(0)), pace.turn(at(0)), pace.turn(at(0))];
        assert_eq!(turns.each_ref().map(Option::is_some), [true, true, false], "one stays free");
        drop(turns);
        for (took, now, next, want) in [
            (1, 1, 1, true),
            (5, 10, 10, true),
            (6, 20, 21, false),
            (0, 300, 300, false), // one that found it in memory says nothing
            (0, 300, 540, true),
            (1000, 2000, 2400, false),
            (1000, 2000, 2600, true),
        ] {
            pace.on_read(Duration::from_millis(took), at(now));
            assert_eq!(pace.turn(at(next)).is_some(), want, "{took} ms at {now}, then at {next}");
        }
        assert_eq!(pace.reading.load(Ordering::Relaxed), 0);
        assert!(Pace::new(1).turn(start).is_some(), "the only one reads");
    }
}
