//! What comes in for a call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use quorate_kv::KvError;
use tonic::Status;
use tonic::body::Body;

use super::messages::Messages;
use super::{Calls, Method};
use crate::status;
use crate::unfinished::{Place, Unfinished};

/// The body of a request, whose messages are counted as they come.
pub(crate) struct Incoming {
    body: Body,
    account: Option<Account>,
    /// What has come of a message that is not whole.
    kept_back: BytesMut,
    /// What comes after that.
    trailers: Option<Frame<Bytes>>,
}

/// How much has come of a request, and what it holds while it waits for more.
pub(super) struct Account {
    method: Arc<Method>,
    messages: Messages,
    /// How many messages have begun.
    begun: u64,
    unfinished: Unfinished,
    place: Option<Place>,
    /// On which it comes.
    connection: usize,
    headers_bytes: usize,
    message_bytes_max: usize,
}

impl Account {
    pub(super) fn new(
        calls: &Calls,
        method: &Arc<Method>,
        connection: usize,
        headers_bytes: usize,
    ) -> Account {
        Account {
            method: Arc::clone(method),
            messages: Messages::default(),
            begun: 0,
            unfinished: calls.unfinished.clone(),
            place: None,
            connection,
            headers_bytes,
            message_bytes_max: calls.message_bytes_max,
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        let begun = self.messages.feed(bytes);
        self.begun += begun;
        self.method.received.add(begun, bytes.len());
        if !self.method.has_one_request() && self.messages.missing_bytes() == 0 {
            self.place = None;
        }
    }

    /// Whether the message at hand is the only one of its call. What comes behind that one, where there is to be
    /// nothing, is the library's to throw away.
    fn is_only_one(&self) -> bool {
        let has_second = 1 < self.begun || (self.begun == 1 && self.messages.is_in_header());
        self.method.has_one_request() && !has_second
    }

    /// Whether what has not come yet is waited for. The only message of a call is not handed on before the
    /// request's end was heard, and its headers are kept beside it: what has come of it counts. For one of
    /// several the library has made room for all of it.
    fn may_wait(&mut self, waker: &Waker) -> bool {
        let headers_bytes = if self.method.has_one_request() { self.headers_bytes } else { 0 };
        let length_bytes = self.messages.length_bytes();
        let message_bytes = match (self.is_only_one(), self.messages.missing_bytes()) {
            (true, missing) => length_bytes - missing,
            (false, 0) => 0,
            (false, _) => length_bytes,
        };
        let held_bytes = headers_bytes + message_bytes;
        self.unfinished.may_wait(&mut self.place, self.connection, held_bytes, waker)
    }

    /// Whether what has come is kept back until the rest of its message has: as soon as the library knows a
    /// message's length it makes room for all of it, and a client that says so much need not send it. What
    /// is too long is refused by its length.
    fn is_kept_back(&self) -> bool {
        let is_whole = self.messages.missing_bytes() == 0 && !self.messages.is_in_header();
        let may_come = self.messages.length_bytes() <= self.message_bytes_max;
        self.is_only_one() && !is_whole && may_come
    }
}

impl Incoming {
    pub(super) fn counted(body: Body, account: Account) -> Incoming {
        Incoming { account: Some(account), ..Incoming::uncounted(body) }
    }

    /// Of a method that nobody knows.
    pub(super) fn uncounted(body: Body) -> Incoming {
        Incoming { body, account: None, kept_back: BytesMut::new(), trailers: None }
    }

    /// Waits for more, or has the call end if it may not.
    fn wait(&mut self, waker: &Waker) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.account.as_mut().is_none_or(|account| account.may_wait(waker)) {
            true => Poll::Pending,
            false => Poll::Ready(Some(Err(status::of_kv(KvError::RequestTooManyRequests)))),
        }
    }

    /// What is to be handed on now that this has come.
    fn whole(&mut self, data: Bytes) -> Option<Frame<Bytes>> {
        let Some(account) = &mut self.account else { return Some(Frame::data(data)) };
        account.on_bytes(&data);
        match (account.is_kept_back(), self.kept_back.is_empty()) {
            (false, true) => Some(Frame::data(data)),
            (is_kept_back, _) => {
                self.kept_back.extend_from_slice(&data);
                (!is_kept_back).then(|| self.give_back())
            }
        }
    }

    fn give_back(&mut self) -> Frame<Bytes> {
        Frame::data(std::mem::take(&mut self.kept_back).freeze())
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return this.wait(context.waker()),
                Poll::Ready(Some(Ok(frame))) => frame,
                // Its client is gone, or wants no answer any more.
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Some(Err(Status::cancelled("context canceled"))));
                }
                // It is not whole, which is for the library to say.
                Poll::Ready(None) if !this.kept_back.is_empty() => {
                    return Poll::Ready(Some(Ok(this.give_back())));
                }
                Poll::Ready(None) => return Poll::Ready(None),
            };
            let frame = match frame.into_data() {
                Ok(data) => match this.whole(data) {
                    Some(frame) => frame,
                    None => continue,
                },
                Err(trailers) if this.kept_back.is_empty() => trailers,
                Err(trailers) => {
                    this.trailers = Some(trailers);
                    this.give_back()
                }
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept_back.is_empty() && self.trailers.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.kept_back.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use futures_util::StreamExt;
    use http_body::Body as _;
    use tonic::Code;

    use super::super::messages::HEADER_BYTES;
    use super::*;

    /// A request of so many bytes whose client sends it in these parts, and then goes on or is gone.
    fn request(method: &str, parts: Vec<Result<Bytes, Status>>) -> (Calls, Request<Incoming>) {
        let calls = Calls::new(1 << 20);
        let body = futures_util::stream::iter(parts).chain(futures_util::stream::pending());
        let body = Body::new(axum::body::Body::from_stream(body));
        let request = Request::builder().uri(method).body(body).unwrap();
        let (request, _) = calls.begin(request);
        (calls, request)
    }

    fn next(request: &mut Request<Incoming>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(request.body_mut()).poll_frame(&mut context)
    }

    /// The header of a message, and so much of it.
    fn message(length: usize, sent: usize) -> Bytes {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        [&[0][..], &length, &vec![7; sent]].concat().into()
    }

    #[test]
    fn the_one_message_of_a_request_is_handed_on_when_it_is_whole() {
        let whole = message(300_000, 300_000);
        let parts = whole.chunks(16_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let (_calls, mut request) = request("/etcdserverpb.KV/Put", parts);
        let Poll::Ready(Some(Ok(frame))) = next(&mut request) else { panic!("it is whole") };
        assert_eq!(frame.into_data().unwrap(), whole);
        assert!(next(&mut request).is_pending());
    }

    #[test]
    fn what_a_client_only_announces_takes_no_room() {
        let put = "/etcdserverpb.KV/Put";
        let counted_bytes = |request: &Request<Incoming>| {
            request.body().account.as_ref().unwrap().unfinished.bytes()
        };
        let (_calls, mut asked) = request(put, vec![Ok(message(1 << 20, 20_000))]);
        assert!(next(&mut asked).is_pending(), "nothing is handed on");
        assert_eq!(counted_bytes(&asked), 20_000);
        let (_calls, mut asked) = request(put, vec![Ok(message((1 << 20) + 1, 20_000))]);
        assert!(next(&mut asked).is_ready(), "it is for the library to refuse");
    }

    /// There is to be one; the library throws further ones away.
    #[test]
    fn what_comes_behind_the_one_message_of_a_request_is_not_kept() {
        // Each part ends in the header of a message.
        let parts = std::iter::once(message(0, 0)).chain((0..1000).map(|_| vec![0; 16_384].into()));
        let (_calls, mut asked) = request("/etcdserverpb.KV/Put", parts.map(Ok).collect());
        let mut handed_on = 0;
        while let Poll::Ready(Some(Ok(frame))) = next(&mut asked) {
            handed_on += frame.into_data().unwrap().len();
            assert!(asked.body().kept_back.is_empty());
        }
        assert_eq!(handed_on, HEADER_BYTES + 1000 * 16_384);
    }

    #[test]
    fn who_is_gone_in_the_midst_of_a_request_has_canceled_it() {
        for method in ["/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"] {
            let gone = Err(Status::unknown("error reading a body from connection"));
            let (_calls, mut request) = request(method, vec![gone]);
            let Poll::Ready(Some(Err(status))) = next(&mut request) else { panic!("{method}") };
            assert_eq!(status.code(), Code::Cancelled, "{method}");
        }
    }
}
