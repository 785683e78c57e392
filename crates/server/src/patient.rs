//! Long answers, and the end of patience with whoever takes nothing of one: their room is everybody's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quorate_kv::{Drawn, KvError};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;

use crate::connection::Ends;
use crate::parts::{PART_BYTES_MAX, Parts};
use crate::status;

/// How long a client may take nothing of an answer, as of a snapshot.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);
/// How long it may do so where others need the room.
const CROWDED_STALL_MAX: Duration = Duration::from_secs(2);
/// A connection has one part on its way, and one at hand.
const TAKEN_BYTES_MAX: usize = 2 * PART_BYTES_MAX;

/// The body of a long answer. It is given up, with its room, when its client has taken no part of it for
/// too long; the client hears so if it takes anything more. Where the room is short by then, or becomes so
/// later, the connection is ended, which alone frees what it has taken. A connection asks for the next part
/// only when the one before has left: whoever takes nothing is not heard here, and a task has to look.
pub(crate) struct Patient {
    left: Arc<Mutex<Left>>,
    watch: AbortHandle,
}

/// What is left of an answer.
struct Left {
    /// None once it was given up.
    answer: Option<Parts>,
    drawn: Drawn,
    /// When a part was last asked for.
    asked: Instant,
    has_told: bool,
}

impl Patient {
    pub(crate) fn new(body: Body, drawn: Drawn, ends: Ends, stall_max: Duration) -> Patient {
        let answer = Some(Parts::of(body));
        let left = Left { answer, drawn, asked: Instant::now(), has_told: false };
        let left = Arc::new(Mutex::new(left));
        let watch = tokio::spawn(watch(Arc::downgrade(&left), ends, stall_max)).abort_handle();
        Patient { left, watch }
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Gives an answer up that nobody takes.
async fn watch(left: Weak<Mutex<Left>>, ends: Ends, stall_max: Duration) {
    let crowded_stall_max = CROWDED_STALL_MAX.min(stall_max);
    loop {
        tokio::time::sleep(crowded_stall_max / 2).await;
        let Some(left) = left.upgrade() else { return };
        let mut left = locked(&left);
        let stalled = left.asked.elapsed();
        if crowded_stall_max <= stalled && left.drawn.is_crowded() {
            left.answer = None;
            tracing::debug!("others need the room of an answer that nobody takes");
            ends.end();
            return;
        }
        if stall_max <= stalled && left.answer.take().is_some() {
            tracing::debug!("a client takes nothing of its answer: it is given up");
            left.drawn.shrink(TAKEN_BYTES_MAX);
        }
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
            Some(answer) => Pin::new(answer).poll_frame(context),
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
            Some(answer) => answer.is_end_stream(),
            None => left.has_told,
        }
    }

    /// Nobody knows: it may be given up.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use quorate_kv::{AnswerRoom, FREE_ANSWER_BYTES};

    use super::*;

    const BYTES: usize = 8 * PART_BYTES_MAX;

    fn patient(room: &Arc<AnswerRoom>, ends: &Ends, stall_max: Duration) -> Patient {
        let drawn = room.draw(FREE_ANSWER_BYTES + BYTES).unwrap();
        let body = Body::new(axum::body::Body::from(vec![7; BYTES]));
        Patient::new(body, drawn, ends.clone(), stall_max)
    }

    async fn next(patient: &mut Patient) -> Option<Frame<Bytes>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *patient).poll_frame(cx)).await;
        frame.map(Result::unwrap)
    }

    #[tokio::test]
    async fn who_takes_nothing_for_too_long_loses_the_rest_and_its_room() {
        for taken in 0..3 {
            let (room, ends) = (AnswerRoom::new(2 * BYTES), Ends::default());
            let whole = room.left_bytes();
            let mut patient = patient(&room, &ends, Duration::from_millis(500));
            for _ in 0..taken {
                assert!(next(&mut patient).await.unwrap().is_data());
            }
            assert_eq!(room.left_bytes(), whole - BYTES);
            let left = whole - (TAKEN_BYTES_MAX - FREE_ANSWER_BYTES);
            while room.left_bytes() < left {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(room.left_bytes(), left, "what the connection may have is counted");
            assert!(!patient.is_end_stream() && !ends.is_over());
            let trailers = next(&mut patient).await.unwrap().into_trailers().unwrap();
            assert_eq!(trailers.get("grpc-status").unwrap(), "14");
            assert!(next(&mut patient).await.is_none() && patient.is_end_stream());
            drop(patient);
            assert_eq!(room.left_bytes(), whole);
        }
    }

    #[tokio::test]
    async fn where_the_room_is_short_whoever_takes_nothing_loses_its_connection() {
        let (narrow, wide) = (AnswerRoom::new(BYTES + BYTES / 4), AnswerRoom::new(2 * BYTES));
        let (ends, stays) = (Ends::default(), Ends::default());
        let waits = patient(&wide, &stays, STALL_MAX);
        let given_up = patient(&narrow, &ends, STALL_MAX);
        let begun = Instant::now();
        while !ends.is_over() {
            assert!(begun.elapsed() < STALL_MAX / 2, "others wait for the room");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(locked(&given_up.left).answer.is_none());
        assert!(!stays.is_over() && locked(&waits.left).answer.is_some(), "nobody needs it here");
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_is_whole_and_its_room_is_free_after_it() {
        let room = AnswerRoom::new(2 * BYTES);
        let whole = room.left_bytes();
        let mut patient = patient(&room, &Ends::default(), STALL_MAX);
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
