//! The watchers of this member, and what drives them: each time something was applied, they are told
//! what changed, on threads that may read storage. Nothing that applies entries waits for it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_kv::{KvError, Store, StreamId, WatchLimits, WatchResponse, Watches};
use quorate_types::Index;
use tokio::sync::{Notify, watch};
use tonic::Status;

use crate::status;

/// Shared by all watch streams.
pub(crate) struct Watching {
    store: Arc<Store>,
    shared: Mutex<Shared>,
    /// Somebody has room again who is behind, or is the first to watch.
    wanted: Notify,
    /// Events that were handed to a stream's connection.
    events: AtomicU64,
}

struct Shared {
    watches: Watches,
    /// Who waits for what a stream is told.
    wakers: BTreeMap<StreamId, Arc<Notify>>,
}

/// Streams, watchers, and those of them that are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) streams: usize,
    pub(crate) watchers: usize,
    pub(crate) slow: usize,
    /// Events that were sent.
    pub(crate) events: u64,
    /// Events that wait for their stream's connection.
    pub(crate) waiting_events: usize,
}

/// An open stream, which ends when this is dropped.
pub(crate) struct Stream {
    watching: Arc<Watching>,
    id: StreamId,
    told: Arc<Notify>,
}

impl Watching {
    /// Responses longer than `response_bytes_max` are cut for those who want that.
    pub(crate) fn new(store: Arc<Store>, response_bytes_max: usize) -> Self {
        let limits = WatchLimits { response_bytes_max, ..WatchLimits::default() };
        let watches = Watches::new(limits, &store);
        let shared = Mutex::new(Shared { watches, wakers: BTreeMap::new() });
        Watching { store, shared, wanted: Notify::new(), events: AtomicU64::new(0) }
    }

    /// Tells watchers what is applied, which `follow` begins to follow, and every so often how far they
    /// are. Ends with the storage, or with the node while anybody watches.
    pub(crate) async fn run(
        self: Arc<Self>,
        follow: impl Fn() -> watch::Receiver<Index>,
        progress_every: Duration,
    ) {
        let mut progress = pin!(tokio::time::sleep(a_little_more_than(progress_every)));
        let mut applied = None;
        loop {
            tokio::select! {
                is_over = ended(&mut applied) => {
                    if is_over {
                        return;
                    }
                }
                () = self.wanted.notified() => {}
                () = &mut progress => {
                    let next = a_little_more_than(progress_every);
                    progress.as_mut().reset(tokio::time::Instant::now() + next);
                    let told = self.with(|watches, _| {
                        watches.notify_progress();
                        Ok(())
                    });
                    if told.await.is_err() {
                        return;
                    }
                }
            }
            // Writes cost nothing here while nobody watches. Who begins to, begins at what is there.
            if self.shared().watches.watchers_count() == 0 {
                applied = None;
                continue;
            }
            applied.get_or_insert_with(&follow);
            loop {
                match self.with(Watches::advance).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(status) => {
                        tracing::error!(%status, "watchers are told nothing any more");
                        return;
                    }
                }
            }
        }
    }

    /// Opens a stream.
    pub(crate) fn open(self: &Arc<Self>) -> Stream {
        let mut shared = self.shared();
        let id = shared.watches.open();
        let told = Arc::new(Notify::new());
        shared.wakers.insert(id, Arc::clone(&told));
        Stream { watching: Arc::clone(self), id, told }
    }

    /// How many streams and watchers there are.
    pub(crate) fn counts(&self) -> Counts {
        let shared = self.shared();
        Counts {
            streams: shared.watches.streams_count(),
            watchers: shared.watches.watchers_count(),
            slow: shared.watches.slow_count(),
            events: self.events.load(Ordering::Relaxed),
            waiting_events: shared.watches.waiting_events_count(),
        }
    }

    /// Does something that may read storage, and wakes who is told something by it.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Watches, &Store) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, Status> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut shared = this.shared();
            let had_watchers = 0 < shared.watches.watchers_count();
            let outcome = work(&mut shared.watches, &this.store);
            if !had_watchers && 0 < shared.watches.watchers_count() {
                this.wanted.notify_one();
            }
            for stream in shared.watches.take_ready() {
                if let Some(waker) = shared.wakers.get(&stream) {
                    waker.notify_one();
                }
            }
            outcome
        });
        match done.await {
            Ok(outcome) => outcome.map_err(status::of_kv),
            Err(error) => {
                tracing::error!(%error, "watchers were not told");
                Err(status::of_kv(KvError::Stopped))
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until more is applied, for ever if that is not followed; true when there will be no more.
async fn ended(applied: &mut Option<watch::Receiver<Index>>) -> bool {
    match applied {
        Some(applied) => applied.changed().await.is_err(),
        None => std::future::pending().await,
    }
}

impl Stream {
    /// Does something with this stream.
    pub(crate) async fn with(
        &self,
        work: impl FnOnce(&mut Watches, StreamId, &Store) -> Result<(), KvError> + Send + 'static,
    ) -> Result<(), Status> {
        let id = self.id;
        let mut work = work;
        // What is new is told in steps, between which others get their turn.
        loop {
            let step = move |watches: &mut Watches, store: &Store| {
                if watches.advance_synced(store)? {
                    return Ok(Some(work));
                }
                work(watches, id, store).map(|()| None)
            };
            match self.watching.with(step).await? {
                Some(not_yet) => work = not_yet,
                None => return Ok(()),
            }
        }
    }

    /// Waits until it is told something, and takes of it as many responses as hold about so many
    /// bytes. Nothing is lost where this is dropped before it ends.
    pub(crate) async fn told(&self, bytes_max: usize) -> Vec<WatchResponse> {
        loop {
            let responses = self.take(bytes_max);
            if !responses.is_empty() {
                return responses;
            }
            self.told.notified().await;
        }
    }

    fn take(&self, bytes_max: usize) -> Vec<WatchResponse> {
        let mut shared = self.watching.shared();
        let responses = shared.watches.take_many(self.id, bytes_max);
        if !responses.is_empty() && shared.watches.is_behind() {
            self.watching.wanted.notify_one();
        }
        let events: usize = responses.iter().map(|response| response.events.len()).sum();
        self.watching.events.fetch_add(events as u64, Ordering::Relaxed);
        responses
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut shared = self.watching.shared();
        shared.watches.close(self.id);
        shared.wakers.remove(&self.id);
    }
}

/// Up to a tenth more, so that members do not tell all their watchers at the same moment for ever.
fn a_little_more_than(span: Duration) -> Duration {
    let tenth = u64::try_from(span.as_micros() / 10).unwrap_or(u64::MAX);
    span + Duration::from_micros(RandomState::new().hash_one(()) % tenth.max(1))
}
