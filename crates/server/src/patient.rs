//! Long answers, and the end of patience with whoever takes nothing of one: their room is everybody's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use quorate_kv::KvError;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;

use crate::calls::PART_BYTES_MAX;
use crate::reading::Held;
use crate::status;

/// How long a client may take nothing of an answer, as of a snapshot.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);

/// The body of a long answer. It is given up, with its room, when its client has taken no part of it for
/// too long; the client hears so if it takes anything more. A connection asks for the next part only when
/// the one before has left: whoever takes nothing is not heard here, and a task has to look.
pub(crate) struct Patient {
    left: Arc<Mutex<Left>>,
    watch: AbortHandle,
}

/// What is left of an answer.
struct Left {
    /// None once it was given up.
    answer: Option<Answer>,
    /// When a part was last asked for.
    asked: Instant,
    has_told: bool,
}

struct Answer {
    body: Body,
    /// Of a part that was too long.
    rest: Bytes,
    _held: Held,
}

impl Patient {
    pub(crate) fn new(body: Body, held: Held, stall_max: Duration) -> Patient {
        let answer = Some(Answer { body, rest: Bytes::new(), _held: held });
        let left = Left { answer, asked: Instant::now(), has_told: false };
        let left = Arc::new(Mutex::new(left));
        let watch = tokio::spawn(watch(Arc::downgrade(&left), stall_max)).abort_handle();
        Patient { left, watch }
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Gives an answer up that nobody takes.
async fn watch(left: Weak<Mutex<Left>>, stall_max: Duration) {
    let mut wait = stall_max;
    loop {
        tokio::time::sleep(wait).await;
        let Some(left) = left.upgrade() else { return };
        let mut left = locked(&left);
        let stalled = left.asked.elapsed();
        if stall_max <= stalled {
            left.answer = None;
            tracing::warn!("a client takes nothing of its long answer: it is given up");
            return;
        }
        wait = stall_max - stalled;
    }
}

fn locked(left: &Mutex<Left>) -> MutexGuard<'_, Left> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut left = locked(&self.left);
        let left = &mut *left;
        left.asked = Instant::now();
        match &mut left.answer {
            Some(answer) => answer.poll_part(context),
            None if left.has_told => Poll::Ready(None),
            None => {
                left.has_told = true;
                let headers =
                    status::of_kv(KvError::Timeout).into_http::<()>().into_parts().0.headers;
                Poll::Ready(Some(Ok(Frame::trailers(headers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let left = locked(&self.left);
        match &left.answer {
            Some(answer) => answer.rest.is_empty() && answer.body.is_end_stream(),
            None => left.has_told,
        }
    }

    /// Nobody knows: it may be given up.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Answer {
    fn poll_part(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(PART_BYTES_MAX));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

#[cfg(test)]
mod tests {
    use quorate_kv::{AnswerRoom, FREE_ANSWER_BYTES};

    use super::*;

    const BYTES: usize = 4 * PART_BYTES_MAX;

    fn patient(room: &Arc<AnswerRoom>, stall_max: Duration) -> Patient {
        let held = Held::of(room.draw(FREE_ANSWER_BYTES + BYTES).unwrap());
        let body = Body::new(axum::body::Body::from(vec![7; BYTES]));
        Patient::new(body, held, stall_max)
    }

    async fn next(patient: &mut Patient) -> Option<Frame<Bytes>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *patient).poll_frame(cx)).await;
        frame.map(Result::unwrap)
    }

    #[tokio::test]
    async fn who_takes_nothing_for_too_long_loses_the_rest_and_its_room() {
        for taken in 0..3 {
            let room = AnswerRoom::new(2 * BYTES);
            let whole = room.left_bytes();
            let mut patient = patient(&room, Duration::from_millis(500));
            for _ in 0..taken {
                assert!(next(&mut patient).await.unwrap().is_data());
            }
            assert!(room.left_bytes() < whole);
            while room.left_bytes() < whole {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(!patient.is_end_stream());
            let trailers = next(&mut patient).await.unwrap().into_trailers().unwrap();
            assert_eq!(trailers.get("grpc-status").unwrap(), "14");
            assert!(next(&mut patient).await.is_none() && patient.is_end_stream());
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_is_whole_and_its_room_is_free_after_it() {
        let room = AnswerRoom::new(2 * BYTES);
        let whole = room.left_bytes();
        let mut patient = patient(&room, STALL_MAX);
        let mut got = 0;
        while let Some(frame) = next(&mut patient).await {
            let part = frame.into_data().unwrap();
            assert!(part.len() <= PART_BYTES_MAX);
            got += part.len();
        }
        assert_eq!(got, BYTES);
        assert!(room.left_bytes() < whole);
        drop(patient);
        assert_eq!(room.left_bytes(), whole);
    }
}
