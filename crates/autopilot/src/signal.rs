//! Two things to wait for that need no runtime: what happens once, and what is asked for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Something that happens once: the end of an execution, or the order to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    is_set: bool,
    wakers: Vec<Waker>,
}

impl Signal {
    /// One that has not happened.
    pub fn new() -> Signal {
        Signal::default()
    }

    /// One that has.
    pub fn already() -> Signal {
        let signal = Signal::new();
        signal.set();
        signal
    }

    /// Makes it happen; a second time changes nothing.
    pub fn set(&self) {
        let wakers = {
            let mut waiting = lock(&self.0);
            waiting.is_set = true;
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        lock(&self.0).is_set
    }

    /// Whether both are the same one.
    pub fn is(&self, other: &Signal) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Is ready once it has happened.
    pub async fn wait(&self) {
        poll_fn(|context| {
            let mut waiting = lock(&self.0);
            match waiting.is_set {
                true => Poll::Ready(()),
                false => {
                    note_waker(&mut waiting.wakers, context);
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

/// Something that can be asked for any number of times and is done once for all of them.
#[derive(Debug, Default)]
pub(crate) struct Request(Mutex<Waiting>);

impl Request {
    pub(crate) fn make(&self) {
        let wakers = {
            let mut waiting = lock(&self.0);
            waiting.is_set = true;
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Is ready once it was asked for; the request is then taken.
    pub(crate) async fn taken(&self) {
        poll_fn(|context| {
            let mut waiting = lock(&self.0);
            match std::mem::take(&mut waiting.is_set) {
                true => Poll::Ready(()),
                false => {
                    note_waker(&mut waiting.wakers, context);
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

/// Which of two was ready first; the first of them if both are.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for one of two and drops the other.
pub(crate) async fn either<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Either<A, B> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(output) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// Runs two that never end beside each other.
pub(crate) async fn both(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let (mut is_first_done, mut is_second_done) = (false, false);
    poll_fn(|context| {
        is_first_done = is_first_done || is_ready(first.as_mut(), context);
        is_second_done = is_second_done || is_ready(second.as_mut(), context);
        if is_first_done && is_second_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn is_ready(future: Pin<&mut impl Future<Output = ()>>, context: &mut Context<'_>) -> bool {
    future.poll(context).is_ready()
}

/// Each task once: one that is polled again and again must not make the list grow.
fn note_waker(wakers: &mut Vec<Waker>, context: &mut Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
        wakers.push(context.waker().clone());
    }
}

/// A panic elsewhere leaves these values whole: nothing is half done while they are locked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
