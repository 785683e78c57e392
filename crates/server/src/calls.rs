//! gRPC calls, counted: which method, what came of it, messages and bytes both ways.
//!
//! A call is counted where it enters and where it ends, by whatever ends it: its answer, its last
//! message, or its client going away. The services know nothing of it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use quorate_kv::KvError;
use quorate_runtime::Histogram;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::connection::Ends;
use crate::parts::Parts;
use crate::patient::{Patient, STALL_MAX};
use crate::reading::Held;
use crate::status;
use crate::unfinished::{Place, Unfinished};

/// Codes of gRPC, by their numbers.
pub(crate) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// Versions of clients that are told apart; all further ones are "other".
const VERSIONS_MAX: usize = 32;
/// One byte for compression, four for the length.
const MESSAGE_HEADER_BYTES: usize = 5;

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

/// Every method of the API by service; those that are streams are named.
const SERVICES: &[(&str, &[(&str, &str)])] = &[
    (
        "etcdserverpb.Auth",
        &[
            ("AuthDisable", UNARY),
            ("AuthEnable", UNARY),
            ("AuthStatus", UNARY),
            ("Authenticate", UNARY),
            ("RoleAdd", UNARY),
            ("RoleDelete", UNARY),
            ("RoleGet", UNARY),
            ("RoleGrantPermission", UNARY),
            ("RoleList", UNARY),
            ("RoleRevokePermission", UNARY),
            ("UserAdd", UNARY),
            ("UserChangePassword", UNARY),
            ("UserDelete", UNARY),
            ("UserGet", UNARY),
            ("UserGrantRole", UNARY),
            ("UserList", UNARY),
            ("UserRevokeRole", UNARY),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", UNARY),
            ("MemberList", UNARY),
            ("MemberPromote", UNARY),
            ("MemberRemove", UNARY),
            ("MemberUpdate", UNARY),
        ],
    ),
    (
        "etcdserverpb.KV",
        &[
            ("Compact", UNARY),
            ("DeleteRange", UNARY),
            ("Put", UNARY),
            ("Range", UNARY),
            ("RangeStream", SERVER_STREAM),
            ("Txn", UNARY),
        ],
    ),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", UNARY),
            ("LeaseKeepAlive", BIDI_STREAM),
            ("LeaseLeases", UNARY),
            ("LeaseRevoke", UNARY),
            ("LeaseTimeToLive", UNARY),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", UNARY),
            ("Defragment", UNARY),
            ("Downgrade", UNARY),
            ("Hash", UNARY),
            ("HashKV", UNARY),
            ("MoveLeader", UNARY),
            ("Snapshot", SERVER_STREAM),
            ("Status", UNARY),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", BIDI_STREAM)]),
    ("grpc.health.v1.Health", &[("Check", UNARY), ("Watch", SERVER_STREAM)]),
    (
        "quoratepb.Autopilot",
        &[
            ("Demote", UNARY),
            ("Explain", UNARY),
            ("GetConfig", UNARY),
            ("Health", UNARY),
            ("Hold", UNARY),
            ("SetConfig", UNARY),
            ("State", UNARY),
        ],
    ),
    ("quoratepb.Log", &[("Watch", SERVER_STREAM)]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", UNARY),
            ("Leader", UNARY),
            ("Observe", SERVER_STREAM),
            ("Proclaim", UNARY),
            ("Resign", UNARY),
        ],
    ),
    ("v3lockpb.Lock", &[("Lock", UNARY), ("Unlock", UNARY)]),
];

/// All that is counted about calls.
#[derive(Debug)]
pub(crate) struct Calls {
    methods: BTreeMap<String, Arc<Method>>,
    /// By what clients say they are: calls that are unary, and those that are not.
    versions: RwLock<BTreeMap<String, [AtomicU64; 2]>>,
    unversioned: [AtomicU64; 2],
    unfinished: Unfinished,
    message_bytes_max: usize,
}

/// What is counted about one method.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    /// As the figures' label has it.
    pub(crate) kind: &'static str,
    started: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    received: Flow,
    sent: Flow,
    /// Of calls that failed, and of those that did not.
    durations: [Histogram; 2],
}

/// One direction of a method's calls.
#[derive(Debug, Default)]
struct Flow {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// The figures of one method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MethodFigures {
    pub(crate) started: u64,
    /// By code.
    pub(crate) handled: [u64; CODES.len()],
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Calls {
    /// A message of a request may be so long.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        let methods = SERVICES.iter().flat_map(|(service, methods)| {
            methods.iter().map(move |(name, kind)| {
                let method = Method {
                    service,
                    name,
                    kind,
                    started: AtomicU64::new(0),
                    handled: Default::default(),
                    received: Flow::default(),
                    sent: Flow::default(),
                    durations: Default::default(),
                };
                (format!("/{service}/{name}"), Arc::new(method))
            })
        });
        Calls {
            methods: methods.collect(),
            versions: RwLock::default(),
            unversioned: Default::default(),
            unfinished: Unfinished::new(),
            message_bytes_max,
        }
    }

    /// Every method, in the order of their paths.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values().map(|method| &**method)
    }

    /// Calls of a method that were answered well.
    pub(crate) fn handled_well(&self, service: &str, name: &str) -> u64 {
        let method = self.methods.get(&format!("/{service}/{name}"));
        method.map_or(0, |method| method.figures().handled[0])
    }

    /// Bytes of messages that were sent and received.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sum = |flow: fn(&Method) -> &Flow| {
            self.methods().map(|method| flow(method).bytes.load(Ordering::Relaxed)).sum()
        };
        (sum(|method| &method.sent), sum(|method| &method.received))
    }

    /// Calls by version of the client, unary ones and streams.
    pub(crate) fn by_version(&self) -> Vec<(String, [u64; 2])> {
        let values = |counts: &[AtomicU64; 2]| {
            [counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed)]
        };
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            versions.iter().map(|(version, counts)| (version.clone(), values(counts))).collect();
        all.push(("unknown".to_owned(), values(&self.unversioned)));
        all
    }

    fn on_version(&self, version: Option<&HeaderValue>, is_stream: bool) {
        let kind = usize::from(is_stream);
        let Some(version) = version.and_then(|version| version.to_str().ok()) else {
            self.unversioned[kind].fetch_add(1, Ordering::Relaxed);
            return;
        };
        {
            let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(counts) = versions.get(version) {
                counts[kind].fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
        let version = if versions.len() < VERSIONS_MAX { version } else { "other" };
        versions.entry(version.to_owned()).or_default()[kind].fetch_add(1, Ordering::Relaxed);
    }
}

impl Method {
    /// How long calls took that were answered well, or were not. Only of calls that are one request
    /// and one answer.
    pub(crate) fn durations(&self, success: bool) -> &Histogram {
        &self.durations[usize::from(success)]
    }

    /// Whether a call is one request and one answer.
    pub(crate) fn is_unary(&self) -> bool {
        self.kind == UNARY
    }

    /// Whether its request is one message, which is handed on only when it has ended.
    fn has_one_request(&self) -> bool {
        self.kind != BIDI_STREAM
    }

    pub(crate) fn figures(&self) -> MethodFigures {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MethodFigures {
            started: value(&self.started),
            handled: std::array::from_fn(|code| value(&self.handled[code])),
            received: value(&self.received.messages),
            sent: value(&self.sent.messages),
        }
    }
}

impl Calls {
    /// A request comes in: its body, counted as it is read, and the call, which [`answered`] ends.
    /// A method that nobody knows is not counted.
    pub(crate) fn begin(&self, request: Request<Body>) -> (Request<Counted>, Option<Open>) {
        let method = self.methods.get(request.uri().path());
        if let Some(method) = method {
            method.started.fetch_add(1, Ordering::Relaxed);
            self.on_version(request.headers().get("client-api-version"), method.kind != UNARY);
        }
        let ends = request.extensions().get::<Ends>().cloned();
        let waiting = || Waiting {
            unfinished: self.unfinished.clone(),
            place: None,
            connection: ends.as_ref().map_or(0, Ends::id),
            headers_bytes: bytes_of(request.headers()),
            message_bytes_max: self.message_bytes_max,
        };
        let counting = |method| Counting {
            method,
            rest: Rest::default(),
            messages: 0,
            direction: Direction::In(waiting()),
        };
        let incoming = method.cloned().map(counting);
        let counted = |body| Counted::of(Parts::uncut(body), incoming, None);
        let request = request.map(counted);
        let (begun, code) = (Instant::now(), Code::Cancelled);
        let open = method.cloned().map(|method| Open { method, code, begun, ends });
        (request, open)
    }
}

/// What goes out for a call: counted as it is sent. The call ends with it.
pub(crate) fn answered(mut response: Response<Body>, mut open: Option<Open>) -> Response<Counted> {
    let drawn = response.extensions_mut().remove::<Held>().and_then(Held::into_drawn);
    let ends = open.as_ref().and_then(|open| open.ends.clone()).unwrap_or_default();
    if let Some(open) = &mut open {
        open.learn(response.headers());
    }
    let counting = open.as_ref().map(|open| Counting {
        method: Arc::clone(&open.method),
        rest: Rest::default(),
        messages: 0,
        direction: Direction::Out,
    });
    response.map(|body| {
        let body = match drawn {
            Some(drawn) => Parts::uncut(Body::new(Patient::new(body, drawn, ends, STALL_MAX))),
            None => Parts::of(body),
        };
        Counted::of(body, counting, open)
    })
}

/// A call that has not ended; counted as handled when it is dropped.
pub(crate) struct Open {
    method: Arc<Method>,
    /// What came of it; as long as nothing did, its client went away.
    code: Code,
    begun: Instant,
    /// Ends its connection.
    ends: Option<Ends>,
}

impl Open {
    fn learn(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Code::from_bytes(code.as_bytes());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(handled) = self.method.handled.get(self.code as usize) {
            handled.fetch_add(1, Ordering::Relaxed);
        }
        if self.method.is_unary() {
            self.method.durations(self.code == Code::Ok).observe(self.begun.elapsed());
        }
    }
}

/// What headers take, about.
fn bytes_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// One direction of a call.
struct Counting {
    method: Arc<Method>,
    rest: Rest,
    /// How many have begun.
    messages: u64,
    direction: Direction,
}

enum Direction {
    In(Waiting),
    Out,
}

/// A request on its way in.
struct Waiting {
    unfinished: Unfinished,
    place: Option<Place>,
    /// On which it comes.
    connection: usize,
    headers_bytes: usize,
    message_bytes_max: usize,
}

impl Counting {
    fn on_bytes(&mut self, bytes: &[u8]) {
        let flow = match self.direction {
            Direction::In(_) => &self.method.received,
            Direction::Out => &self.method.sent,
        };
        flow.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let begun = self.rest.feed(bytes);
        self.messages += begun;
        flow.messages.fetch_add(begun, Ordering::Relaxed);
        let is_whole = !self.method.has_one_request() && self.rest.message_bytes == 0;
        if let Direction::In(waiting) = &mut self.direction
            && is_whole
        {
            waiting.place = None;
        }
    }

    /// Whether the message at hand is the only one of its call. What comes behind that one, where there is to be
    /// nothing, is the library's to throw away.
    fn is_only_one(&self) -> bool {
        let has_second = 1 < self.messages || (self.messages == 1 && 0 < self.rest.header_bytes);
        self.method.has_one_request() && !has_second
    }

    /// Whether what has not come yet is waited for. The only message of a call is not handed on before the
    /// request's end was heard, and its headers are kept beside it: what has come of it counts. For one of
    /// several the library has made room for all of it.
    fn may_wait(&mut self, waker: &Waker) -> bool {
        let is_only_one = self.is_only_one();
        let Direction::In(waiting) = &mut self.direction else { return true };
        let headers_bytes = if self.method.has_one_request() { waiting.headers_bytes } else { 0 };
        let message_bytes = match (is_only_one, self.rest.message_bytes) {
            (true, missing) => self.rest.length_bytes - missing,
            (false, 0) => 0,
            (false, _) => self.rest.length_bytes,
        };
        let held_bytes = headers_bytes + message_bytes;
        let (place, connection) = (&mut waiting.place, waiting.connection);
        waiting.unfinished.may_wait(place, connection, held_bytes, waker)
    }

    /// Whether what has come is kept back until the rest of its message has: as soon as the library knows a
    /// message's length it makes room for all of it, and a client that says so much need not send it. What
    /// is too long is refused by its length.
    fn is_kept_back(&self) -> bool {
        let Direction::In(waiting) = &self.direction else { return false };
        let is_whole = self.rest.message_bytes == 0 && self.rest.header_bytes == 0;
        let may_come = self.rest.length_bytes <= waiting.message_bytes_max;
        self.is_only_one() && !is_whole && may_come
    }
}

/// Where in a stream of messages one is.
#[derive(Debug, Default)]
struct Rest {
    /// Of the header of the next message.
    header: [u8; MESSAGE_HEADER_BYTES],
    header_bytes: usize,
    /// Of the message at hand.
    message_bytes: usize,
    /// The length of the message at hand, or of the last one.
    length_bytes: usize,
}

impl Rest {
    /// How many messages begin in these bytes.
    fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        while !bytes.is_empty() {
            let skipped = self.message_bytes.min(bytes.len());
            self.message_bytes -= skipped;
            bytes = &bytes[skipped..];
            let taken = (MESSAGE_HEADER_BYTES - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_bytes += taken;
            bytes = &bytes[taken..];
            if self.header_bytes == MESSAGE_HEADER_BYTES {
                let [_, length @ ..] = self.header;
                self.length_bytes = u32::from_be_bytes(length) as usize;
                self.message_bytes = self.length_bytes;
                self.header_bytes = 0;
                messages += 1;
            }
        }
        messages
    }
}

/// A body whose messages are counted.
pub(crate) struct Counted {
    body: Parts,
    counting: Option<Counting>,
    /// Of an answer: the call, which ends with it.
    open: Option<Open>,
    /// What has come of a message that is not whole.
    kept_back: BytesMut,
    /// What comes after that.
    trailers: Option<Frame<Bytes>>,
}

impl Counted {
    fn of(body: Parts, counting: Option<Counting>, open: Option<Open>) -> Counted {
        Counted { body, counting, open, kept_back: BytesMut::new(), trailers: None }
    }

    /// Waits for more, or has the call end if it may not.
    fn wait(&mut self, waker: &Waker) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.counting.as_mut().is_none_or(|counting| counting.may_wait(waker)) {
            true => Poll::Pending,
            false => Poll::Ready(Some(Err(status::of_kv(KvError::RequestTooManyRequests)))),
        }
    }

    /// What is to be handed on now that this has come.
    fn whole(&mut self, data: Bytes) -> Option<Frame<Bytes>> {
        let Some(counting) = &mut self.counting else { return Some(Frame::data(data)) };
        counting.on_bytes(&data);
        match (counting.is_kept_back(), self.kept_back.is_empty()) {
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

    /// The body has failed. That of a request does so when its client is gone, or wants no answer any more.
    fn failed(&self, error: Status) -> Status {
        match self.counting.as_ref().map(|counting| &counting.direction) {
            Some(Direction::In(_)) => Status::cancelled("context canceled"),
            _ => error,
        }
    }
}

impl http_body::Body for Counted {
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
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(this.failed(error)))),
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
            if let (Some(trailers), Some(open)) = (frame.trailers_ref(), &mut this.open) {
                open.learn(trailers);
            }
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
    use futures_util::StreamExt;
    use http_body::Body as _;

    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let message = |length: u8| {
            let mut bytes = vec![0, 0, 0, 0, length];
            bytes.resize(MESSAGE_HEADER_BYTES + usize::from(length), 7);
            bytes
        };
        let stream = [message(3), message(0), message(200), message(1)].concat();
        for size in 1..=stream.len() {
            let mut rest = Rest::default();
            let count: u64 = stream.chunks(size).map(|part| rest.feed(part)).sum();
            assert_eq!(count, 4, "in parts of {size}");
            assert_eq!((rest.header_bytes, rest.message_bytes), (0, 0));
        }
    }

    #[test]
    fn versions_are_bounded() {
        let calls = Calls::new(1 << 20);
        for number in 0..100 {
            let version = HeaderValue::from_str(&format!("3.5.{number}")).unwrap();
            calls.on_version(Some(&version), number % 2 == 1);
        }
        calls.on_version(None, false);
        let versions = calls.by_version();
        assert_eq!(versions.len(), VERSIONS_MAX + 2, "and those without one, and all others");
        assert_eq!(versions.iter().map(|(_, counts)| counts[0] + counts[1]).sum::<u64>(), 101);
        assert_eq!(versions.last().unwrap(), &("unknown".to_owned(), [1, 0]));
    }

    #[test]
    fn every_method_has_figures_from_the_start() {
        let calls = Calls::new(1 << 20);
        assert_eq!(calls.methods().count(), 59);
        let paths: Vec<&String> = calls.methods.keys().collect();
        assert!(paths.is_sorted());
    }

    #[test]
    fn a_call_counts_once_by_what_ended_it() {
        let calls = Calls::new(1 << 20);
        let method = calls.methods.values().next().unwrap();
        let open = || Open {
            method: Arc::clone(method),
            code: Code::Cancelled,
            begun: Instant::now(),
            ends: None,
        };
        drop(open());
        let mut answered = open();
        let mut headers = HeaderMap::new();
        answered.learn(&headers); // nothing is known yet
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        answered.learn(&headers);
        drop(answered);
        let handled = method.figures().handled;
        assert_eq!((handled[1], handled[14], handled.iter().sum::<u64>()), (1, 1, 2));
    }

    /// A request of so many bytes whose client sends it in these parts, and then goes on or is gone.
    fn request(method: &str, parts: Vec<Result<Bytes, Status>>) -> (Calls, Request<Counted>) {
        let calls = Calls::new(1 << 20);
        let body = futures_util::stream::iter(parts).chain(futures_util::stream::pending());
        let body = Body::new(axum::body::Body::from_stream(body));
        let request = Request::builder().uri(method).body(body).unwrap();
        let (request, _) = calls.begin(request);
        (calls, request)
    }

    fn next(request: &mut Request<Counted>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
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
        let counted_bytes = |request: &Request<Counted>| {
            let counting = request.body().counting.as_ref().unwrap();
            let Direction::In(waiting) = &counting.direction else { panic!("it comes in") };
            waiting.unfinished.bytes()
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
        assert_eq!(handed_on, MESSAGE_HEADER_BYTES + 1000 * 16_384);
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
