//! Bodies in parts of a bounded length.
//!
//! A connection takes a part whole once its client takes one byte of it, and keeps one more at hand, and
//! what it has taken is in nobody's account. After the last part it takes the end of the answer with it,
//! and all of that answer's room is free: so the last one is shorter still.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quorate_kv::FREE_ANSWER_BYTES;
use tonic::Status;
use tonic::body::Body;

/// So much at a time.
pub(crate) const PART_BYTES_MAX: usize = 16 << 10;

pub(crate) struct Parts {
    body: Body,
    /// What is left of what was too long.
    rest: Bytes,
    is_cut: bool,
}

impl Parts {
    /// The body in parts.
    pub(crate) fn of(body: Body) -> Parts {
        Parts { body, rest: Bytes::new(), is_cut: true }
    }

    /// The body as it comes, which is in parts already.
    pub(crate) fn uncut(body: Body) -> Parts {
        Parts { is_cut: false, ..Parts::of(body) }
    }

    fn next(&mut self) -> Frame<Bytes> {
        let left = self.rest.len();
        let part = match left {
            _ if !self.is_cut => left,
            0..=FREE_ANSWER_BYTES => left,
            _ => PART_BYTES_MAX.min(left - FREE_ANSWER_BYTES),
        };
        Frame::data(self.rest.split_to(part))
    }
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        Poll::Ready(Some(Ok(this.next())))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Of what is still to come.
    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[tokio::test]
    async fn long_parts_are_cut_and_nothing_is_lost() {
        let (part, last) = (PART_BYTES_MAX, FREE_ANSWER_BYTES);
        for bytes in [0, 1, last, last + 1, part, part + last, part + last + 1, 5 * part + 7] {
            let whole: Bytes = (0..bytes).map(|at| at as u8).collect();
            let mut parts = Parts::of(Body::new(axum::body::Body::from(whole.clone())));
            let (mut got, mut last_bytes) = (Vec::new(), 0);
            while !parts.is_end_stream() {
                assert_eq!(parts.size_hint().exact(), Some((bytes - got.len()) as u64));
                let next = std::future::poll_fn(|cx| Pin::new(&mut parts).poll_frame(cx)).await;
                let Some(frame) = next else { break };
                let part = frame.unwrap().into_data().unwrap();
                assert!(!part.is_empty() && part.len() <= PART_BYTES_MAX);
                last_bytes = part.len();
                got.extend_from_slice(&part);
            }
            assert_eq!(got, whole, "{bytes}");
            assert!(last_bytes <= FREE_ANSWER_BYTES, "{bytes}: {last_bytes} in the last one");
        }
    }
}
