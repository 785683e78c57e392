//! What goes out for a call.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quorate_kv::Drawn;
use tonic::Status;
use tonic::body::Body;

use super::Open;
use super::messages::Messages;
use crate::parts::Parts;
use crate::patient::{Patient, STALL_MAX};

/// The body of an answer, whose messages are counted as they are sent. Its call ends with it.
pub(crate) struct Outgoing {
    body: Parts,
    messages: Messages,
    open: Option<Open>,
}

impl Outgoing {
    /// A long answer has drawn its room, which it gives back as it is sent.
    pub(super) fn new(body: Body, drawn: Option<Drawn>, open: Option<Open>) -> Outgoing {
        let body = match drawn {
            Some(drawn) => {
                let ends = open.as_ref().and_then(|open| open.ends.clone()).unwrap_or_default();
                Parts::uncut(Body::new(Patient::new(body, drawn, ends, STALL_MAX)))
            }
            None => Parts::of(body),
        };
        Outgoing { body, messages: Messages::default(), open }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(open)) = (&polled, &mut this.open) {
            if let Some(data) = frame.data_ref() {
                open.method.sent.add(this.messages.feed(data), data.len());
            }
            if let Some(trailers) = frame.trailers_ref() {
                open.learn(trailers);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
