//! Reads of the store: on which thread, and for how much memory.
//!
//! One key is read at once, on the thread of its call, as long as storage answers at once. A read that
//! waits for a disk would hold up every other call of its thread: so never all threads read at a time,
//! if there are two or more, and once storage was seen to take its time, reads that need it go to
//! threads that may wait. Of those there is a bound, and what nobody waits for any more when its turn
//! comes is not read.
//!
//! Long answers share one room. Who finds it full waits until there is as much as was lacking, for as
//! long as a request may take, and then tries while no other one tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quorate_kv::{
    AnswerRoom, Drawn, FREE_ANSWER_BYTES, KvError, RangeRequest, RangeResponse, Store, Unanswered,
};
use quorate_proto::prost::Message;
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore};
use tokio::task::JoinError;
use tokio::time::timeout_at;
use tonic::{Response, Status};

use crate::local::Local;
use crate::status;

/// Storage that takes longer for one key has waited for a disk.
const SLOW: Duration = Duration::from_millis(5);
/// So many of the last 64 reads were slow, and it is storage that is: now and then one only waited for
/// a processor.
const SLOW_COUNT: u32 = 4;
/// How long storage is taken for slow after it was.
const SLOW_FOR: Duration = Duration::from_millis(500);
/// Another's read takes microseconds, if it does not wait: less than to go to another thread.
const TURN_SPINS: u32 = 100;
/// Nobody is refused an answer of this length that is there already, whatever others have taken.
const SHORT_BYTES_MAX: usize = 64 << 10;
/// Threads that wait for storage at a time. It leaves others to whatever else may have to wait.
const THREADS_MAX: usize = 128;

/// What all reads of this member share.
pub(crate) struct Reading {
    pace: Pace,
    /// Threads that may wait for storage, as far as they are free.
    threads: Arc<Semaphore>,
    answers: Arc<AnswerRoom>,
    /// Some of the room for long answers was given back.
    freed: Arc<Notify>,
    /// Held by the one that tries again. Who tries at once with others takes from them what they need.
    again: Mutex<()>,
}

impl Reading {
    /// For so many threads that serve calls, with so much room for long answers.
    pub(crate) fn new(threads: usize, answer_bytes_max: usize) -> Self {
        Reading::with(threads, answer_bytes_max, THREADS_MAX)
    }

    fn with(threads: usize, answer_bytes_max: usize, threads_max: usize) -> Self {
        let freed = Arc::new(Notify::new());
        let rung = Arc::clone(&freed);
        Reading {
            pace: Pace::new(threads),
            threads: Arc::new(Semaphore::new(threads_max)),
            answers: AnswerRoom::telling(answer_bytes_max, move || rung.notify_waiters()),
            freed,
            again: Mutex::new(()),
        }
    }

    /// Does it on a thread that may take its time, unless nobody waits for it by the time that one is
    /// free.
    pub(crate) async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = Arc::clone(&self.threads).acquire_owned().await;
        let turn = turn.expect("nobody closes it");
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await
    }

    /// Waits until there is so much room for an answer, and until no other one tries again.
    async fn turn(&self, needed_bytes: usize) -> MutexGuard<'_, ()> {
        loop {
            // Made before it looks, it hears of whatever is given back from here on.
            let freed = self.freed.notified();
            if self.answers.left_bytes() < needed_bytes {
                freed.await;
                continue;
            }
            let turn = self.again.lock().await;
            if needed_bytes <= self.answers.left_bytes() {
                return turn;
            }
        }
    }
}

/// Whether storage answers at once.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    /// The last reads, a bit for each: whether it was slow.
    recent: AtomicU64,
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
            recent: AtomicU64::new(0),
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
        let (is_slow, order) = (SLOW < took, Ordering::Relaxed);
        if !is_slow && self.recent.load(order) == 0 {
            return;
        }
        let with_this = |recent: u64| recent << 1 | u64::from(is_slow);
        let before = self.recent.fetch_update(order, order, |recent| Some(with_this(recent)));
        let recent = before.map_or_else(with_this, with_this);
        if is_slow && SLOW_COUNT <= recent.count_ones() {
            self.slow_until.fetch_max(self.ms(now + SLOW_FOR), order);
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
    drawn: Arc<Drawn>,
}

impl Held {
    pub(crate) fn of(drawn: Drawn) -> Held {
        Held { drawn: Arc::new(drawn) }
    }

    /// The room itself, for the only one that keeps it.
    pub(crate) fn into_drawn(self) -> Option<Drawn> {
        Arc::into_inner(self.drawn)
    }
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
            local.reading().pace.on_read(now.saturating_duration_since(begun), now);
            answer
        })
        .await
    }

    /// Reads it here, unless that would have to wait.
    fn try_read_one(
        &self,
        range: &RangeRequest,
    ) -> Result<Option<(RangeResponse, Option<Drawn>)>, KvError> {
        let Some(turn) = self.reading().pace.turn(Instant::now()) else {
            let Some(answer) = self.store().range_in_memory(range)? else { return Ok(None) };
            let bytes = answer.kvs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
            return Ok(self.reading().answers.draw(bytes).map(|drawn| (answer, Some(drawn))));
        };
        let answer = self.store().range_within(&self.reading().answers, range);
        let now = Instant::now();
        self.reading().pace.on_read(now.saturating_duration_since(turn.begun), now);
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Unanswered::Crowded { .. }) => Ok(None),
            Err(Unanswered::Refused(refused)) => Err(refused),
        }
    }

    /// Reads the store on a thread that may take its time, for an answer that may be long.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        read: impl Fn(&Store, &Arc<AnswerRoom>) -> Result<T, Unanswered> + Send + Sync + 'static,
    ) -> Result<T, Status> {
        let (read, reading) = (Arc::new(read), self.reading());
        let try_it = || {
            let (read, room) = (Arc::clone(&read), Arc::clone(&reading.answers));
            // The outer answer is that of the thread.
            self.read(move |store| Ok(read(store, &room)))
        };
        let until = tokio::time::Instant::now() + self.request_timeout();
        let mut answer = try_it().await?;
        while let Err(Unanswered::Crowded { needed_bytes }) = answer
            && tokio::time::Instant::now() < until
        {
            let Ok(_turn) = timeout_at(until, reading.turn(needed_bytes)).await else { break };
            answer = try_it().await?;
        }
        answer.map_err(|unanswered| status::of_kv(unanswered.into()))
    }

    /// An answer to a change, with the room that it takes until it is sent. It waits for none: the
    /// change is made, and whoever asked for it hears so.
    pub(crate) fn with_room<T: Message>(&self, answer: T) -> Result<Response<T>, Status> {
        self.with_room_or(KvError::AppliedResponseTooLarge, answer)
    }

    /// The answer to a question, which is there already: it waits for no room, since it would take as
    /// much meanwhile.
    pub(crate) fn with_room_now<T: Message>(&self, answer: T) -> Result<Response<T>, Status> {
        self.with_room_or(KvError::RequestTooManyRequests, answer)
    }

    fn with_room_or<T: Message>(&self, why_not: KvError, answer: T) -> Result<Response<T>, Status> {
        let bytes = answer.encoded_len();
        if bytes <= FREE_ANSWER_BYTES {
            return Ok(Response::new(answer));
        }
        match self.reading().answers.draw(bytes) {
            Some(drawn) => Ok(held(answer, Some(drawn))),
            None if bytes <= SHORT_BYTES_MAX => Ok(Response::new(answer)),
            None => Err(status::of_kv(why_not)),
        }
    }
}

/// An answer that keeps its room until it is sent.
pub(crate) fn held<T>(answer: T, drawn: Option<Drawn>) -> Response<T> {
    let mut response = Response::new(answer);
    if let Some(drawn) = drawn.filter(|drawn| 0 < drawn.bytes()) {
        response.extensions_mut().insert(Held::of(drawn));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn reads_wait_elsewhere_once_storage_was_slow_and_never_on_all_threads() {
        let pace = Pace::new(3);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let turns = [pace.turn(at(0)), pace.turn(at(0)), pace.turn(at(0))];
        assert_eq!(turns.each_ref().map(Option::is_some), [true, true, false], "one stays free");
        drop(turns);
        for (took, times, now, next, want) in [
            (1, 100, 1, 1, true),
            (5, 100, 10, 10, true),
            (6, 3, 20, 21, true), // a few had to wait for something else
            (6, 1, 30, 31, false),
            (0, 10, 300, 300, false), // those that found it in memory say nothing
            (0, 10, 300, 550, true),
            (1000, 1, 2000, 2400, false), // it was slow not long ago
            (1000, 1, 2000, 2600, true),
            (0, 64, 3000, 3000, true),
            (1000, 1, 4000, 4001, true), // by now that is forgotten
        ] {
            for _ in 0..times {
                pace.on_read(Duration::from_millis(took), at(now));
            }
            let found = pace.turn(at(next)).is_some();
            assert_eq!(found, want, "{times} of {took} ms at {now}, then at {next}");
        }
        assert_eq!(pace.reading.load(Ordering::Relaxed), 0);
        assert!(Pace::new(1).turn(start).is_some(), "the only one reads");
    }

    #[test]
    fn a_busy_machine_is_no_slow_storage() {
        let (pace, start) = (Pace::new(2), Instant::now());
        for number in 0..10_000 {
            let took = Duration::from_millis(if number % 100 == 0 { 20 } else { 0 });
            pace.on_read(took, start);
            assert!(pace.turn(start).is_some(), "read {number}");
        }
    }

    #[tokio::test]
    async fn reads_that_nobody_waits_for_are_not_done() {
        let reading = Arc::new(Reading::with(1, 0, 2));
        let done = Arc::new(AtomicUsize::new(0));
        let read = |wait: Option<mpsc::Receiver<()>>| {
            let (reading, done) = (Arc::clone(&reading), Arc::clone(&done));
            tokio::spawn(async move {
                let work = move || {
                    // An error is its end.
                    wait.map(|wait| wait.recv());
                    done.fetch_add(1, Ordering::Relaxed);
                };
                reading.on_thread(work).await.unwrap();
            })
        };
        let (held, wait) = mpsc::channel();
        let (held_too, wait_too) = mpsc::channel();
        let slow = [read(Some(wait)), read(Some(wait_too))];
        while 0 < reading.threads.available_permits() {
            tokio::task::yield_now().await;
        }
        let abandoned: Vec<_> = (0..1000).map(|_| read(None)).collect();
        tokio::task::yield_now().await;
        for one in abandoned {
            one.abort();
            assert!(one.await.unwrap_err().is_cancelled(), "it has no thread");
        }
        let last = read(None);
        drop((held, held_too));
        for one in slow.into_iter().chain([last]) {
            one.await.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 3, "the slow ones, and who still waited");
        assert_eq!(reading.threads.available_permits(), 2);
    }

    #[test]
    fn who_found_no_room_waits_for_what_it_lacked_and_tries_while_no_other_does() {
        let mib = 1 << 20;
        let reading = Reading::with(1, 4 * mib, 1);
        let mut context = Context::from_waker(Waker::noop());
        let draw =
            |mib_count: usize| reading.answers.draw(FREE_ANSWER_BYTES + mib_count * mib).unwrap();
        let (two, one, last) = (draw(2), draw(1), draw(1));
        let mut large = pin!(reading.turn(3 * mib));
        let mut small = pin!(reading.turn(mib));
        let mut other = pin!(reading.turn(mib));
        assert!(large.as_mut().poll(&mut context).is_pending());
        assert!(small.as_mut().poll(&mut context).is_pending());
        drop(one);
        // One may try; the large one would do so in vain, and another one would be in the way.
        let Poll::Ready(turn) = small.as_mut().poll(&mut context) else { panic!("there is room") };
        assert!(large.as_mut().poll(&mut context).is_pending());
        assert!(other.as_mut().poll(&mut context).is_pending());
        let taken = draw(1);
        drop(turn);
        assert!(other.as_mut().poll(&mut context).is_pending(), "it was taken meanwhile");
        drop((taken, two));
        let Poll::Ready(turn) = large.as_mut().poll(&mut context) else { panic!("there is room") };
        assert!(other.as_mut().poll(&mut context).is_pending());
        drop(turn);
        assert!(other.as_mut().poll(&mut context).is_ready());
        drop(last);
    }
}
