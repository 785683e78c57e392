//! Where a node's own requests come from, and how those who ask hear what became of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quorate_zab::{Command, Outcome, ProposalId};
use tokio::sync::{mpsc, oneshot};

/// Where a node's own requests come from. A role that runs asks for them one after the other, and
/// only while it can take them: meanwhile they wait here. gometa's `RequestMgr`.
pub trait RequestMgr: Send + Sync {
    /// The next request; nothing when there will be no more. gometa's `GetRequestChannel`.
    ///
    /// Only the role that runs asks. It may drop the future at any time and ask again: no request
    /// may be lost by that.
    fn next_request(&self) -> impl Future<Output = Option<RequestHandle>> + Send;

    /// The request is about to be proposed, or sent to the leader, under `id`. It is to be kept
    /// until its outcome comes.
    fn add_pending_request(&self, id: ProposalId, request: RequestHandle);

    /// What became of a request that was added. One that is not known any more means nothing.
    fn end_pending_request(&self, id: ProposalId, outcome: Outcome);

    /// The role is over: whatever is pending has an unknown outcome.
    fn cleanup_on_error(&self);
}

/// One request and whoever waits for its outcome. Each ends exactly once: with
/// [`RequestHandle::end`], or by being dropped, which tells the asker whether it was sent.
#[derive(Debug)]
pub struct RequestHandle {
    /// What is asked for.
    pub command: Command,
    /// When.
    pub start_time: Instant,
    is_sent: bool,
    waiter: Option<oneshot::Sender<Outcome>>,
}

impl RequestHandle {
    /// A request, and where its outcome will come.
    pub fn new(command: Command) -> (Self, oneshot::Receiver<Outcome>) {
        let (waiter, outcome) = oneshot::channel();
        let start_time = Instant::now();
        (RequestHandle { command, start_time, is_sent: false, waiter: Some(waiter) }, outcome)
    }

    /// From now on it may be executed.
    pub(crate) fn mark_sent(&mut self) {
        self.is_sent = true;
    }

    /// Tells the asker.
    pub fn end(mut self, outcome: Outcome) {
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.send(outcome);
        }
    }
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        let outcome = match self.is_sent {
            true => Outcome::Unknown,
            false => Outcome::Refused { reason: "the node ended before it was sent".to_owned() },
        };
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.send(outcome);
        }
    }
}

/// A bounded queue of requests: what most applications need of a [`RequestMgr`].
#[derive(Debug)]
pub struct RequestQueue {
    queue: mpsc::Sender<RequestHandle>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<RequestHandle>>,
    pending: Mutex<BTreeMap<ProposalId, RequestHandle>>,
}

impl RequestQueue {
    /// A queue for so many requests that no role has taken yet. Askers beyond them wait.
    pub fn new(count_max: usize) -> Self {
        let (queue, waiting) = mpsc::channel(count_max.max(1));
        RequestQueue {
            queue,
            waiting: tokio::sync::Mutex::new(waiting),
            pending: Mutex::new(BTreeMap::new()),
        }
    }

    /// Asks for a transaction, or for something outside the log, and waits for its outcome. While
    /// no role can take it, it waits. A caller that gives up before it was taken takes it back;
    /// later it does not.
    pub async fn request(&self, command: Command) -> Outcome {
        let (handle, outcome) = RequestHandle::new(command);
        if self.queue.send(handle).await.is_err() {
            return Outcome::Refused { reason: "no requests are taken any more".to_owned() };
        }
        // The handle answers even when it is dropped.
        outcome.await.unwrap_or(Outcome::Unknown)
    }

    /// How many wait for their outcome.
    pub fn pending_count(&self) -> usize {
        self.pending().len()
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<ProposalId, RequestHandle>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No requests are taken any more: those that wait are refused, and roles that ask for more
    /// end.
    pub async fn close(&self) {
        let mut waiting = self.waiting.lock().await;
        waiting.close();
        while waiting.try_recv().is_ok() {}
    }
}

impl RequestMgr for RequestQueue {
    async fn next_request(&self) -> Option<RequestHandle> {
        loop {
            let request = self.waiting.lock().await.recv().await?;
            // Nobody waits for it any more, and nobody has been told of it.
            if request.waiter.as_ref().is_some_and(|waiter| !waiter.is_closed()) {
                return Some(request);
            }
        }
    }

    fn add_pending_request(&self, id: ProposalId, request: RequestHandle) {
        self.pending().insert(id, request);
    }

    fn end_pending_request(&self, id: ProposalId, outcome: Outcome) {
        let request = self.pending().remove(&id);
        if let Some(request) = request {
            request.end(outcome);
        }
    }

    fn cleanup_on_error(&self) {
        let pending = std::mem::take(&mut *self.pending());
        drop(pending); // each tells its asker
    }
}

/// No requests, ever: for watchers that only watch.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRequests;

impl RequestMgr for NoRequests {
    async fn next_request(&self) -> Option<RequestHandle> {
        std::future::pending().await
    }

    fn add_pending_request(&self, _id: ProposalId, _request: RequestHandle) {}

    fn end_pending_request(&self, _id: ProposalId, _outcome: Outcome) {}

    fn cleanup_on_error(&self) {}
}
