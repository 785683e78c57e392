//! Requests that wait for their answer, by identity.
//!
//! Every waiter ends: with the machine's answer, with a refusal, or by the caller's deadline, which
//! drops the receiving half; such leftovers are swept. Their number is bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use quorate_replica::RequestId;
use tokio::sync::oneshot;

/// The waiting halves, keyed by request.
pub(crate) struct Waiters<T> {
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<T>>>,
    count_max: usize,
}

impl<T> Waiters<T> {
    pub(crate) fn new(count_max: usize) -> Self {
        Waiters { waiting: Mutex::new(HashMap::new()), count_max }
    }

    /// Lays a waiter down; nothing when too many wait already.
    pub(crate) fn wait(&self, request: RequestId) -> Option<oneshot::Receiver<T>> {
        let mut waiting = self.lock();
        if self.count_max <= waiting.len() {
            waiting.retain(|_, sender| !sender.is_closed());
            if self.count_max <= waiting.len() {
                return None;
            }
        }
        let (sender, receiver) = oneshot::channel();
        waiting.insert(request, sender);
        Some(receiver)
    }

    /// Gives an answer to whoever waits for it, if anyone here does.
    pub(crate) fn answer(&self, request: RequestId, answer: T) {
        let sender = self.lock().remove(&request);
        if let Some(sender) = sender {
            // The caller may have given up in this moment.
            let _ = sender.send(answer);
        }
    }

    /// Which of these somebody here still waits for, under one lock.
    pub(crate) fn are_waited_for(&self, requests: &[Option<RequestId>]) -> Vec<bool> {
        let waiting = self.lock();
        let waits = |request| waiting.get(&request).is_some_and(|sender| !sender.is_closed());
        requests.iter().map(|request| request.is_some_and(waits)).collect()
    }

    /// Gives several answers under one lock.
    pub(crate) fn answer_all(&self, answers: Vec<(RequestId, T)>) {
        if answers.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let found: Vec<_> = answers
            .into_iter()
            .filter_map(|(request, answer)| Some((waiting.remove(&request)?, answer)))
            .collect();
        drop(waiting);
        for (sender, answer) in found {
            let _ = sender.send(answer);
        }
    }

    /// Takes a waiter away whose caller has given up.
    pub(crate) fn forget(&self, request: RequestId) {
        self.lock().remove(&request);
    }

    /// Ends all: their receivers see that no answer will come.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, oneshot::Sender<T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_bounded_and_every_one_ends() {
        let waiters = Waiters::new(2);
        let mut first = waiters.wait(RequestId(1)).unwrap();
        let second = waiters.wait(RequestId(2)).unwrap();
        assert!(waiters.wait(RequestId(3)).is_none(), "full");
        drop(second);
        let asked = [1, 2, 3].map(|request| Some(RequestId(request)));
        assert_eq!(waiters.are_waited_for(&asked), [true, false, false]);
        assert_eq!(waiters.are_waited_for(&[None, asked[0]]), [false, true]);
        let mut third = waiters.wait(RequestId(3)).unwrap();
        waiters.answer(RequestId(9), "nobody's");
        waiters.answer_all(vec![(RequestId(1), "one"), (RequestId(2), "late")]);
        assert_eq!(first.try_recv(), Ok("one"));
        waiters.close();
        assert!(third.try_recv().is_err());
        assert_eq!(waiters.count(), 0);
    }
}
