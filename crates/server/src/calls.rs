//! gRPC calls, counted: which method, what came of it, messages and bytes both ways.
//!
//! A call is counted where it enters and where it ends, by whatever ends it: its answer, its last
//! message, or its client going away. The services know nothing of it.

mod incoming;
mod messages;
mod outgoing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, Request, Response};
use quorate_runtime::Histogram;
use tonic::Code;
use tonic::body::Body;

pub(crate) use self::incoming::Incoming;
pub(crate) use self::outgoing::Outgoing;
use crate::connection::Ends;
use crate::reading::Held;
use crate::unfinished::Unfinished;

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

impl Flow {
    fn add(&self, messages: u64, bytes: usize) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
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
    pub(crate) fn begin(&self, request: Request<Body>) -> (Request<Incoming>, Option<Open>) {
        let Some(method) = self.methods.get(request.uri().path()) else {
            return (request.map(Incoming::uncounted), None);
        };
        method.started.fetch_add(1, Ordering::Relaxed);
        self.on_version(request.headers().get("client-api-version"), method.kind != UNARY);
        let ends = request.extensions().get::<Ends>().cloned();
        let open = Open {
            method: Arc::clone(method),
            code: Code::Cancelled,
            begun: Instant::now(),
            ends: ends.clone(),
        };
        (self.counted(method, ends.as_ref(), request), Some(open))
    }

    fn counted(
        &self,
        method: &Arc<Method>,
        ends: Option<&Ends>,
        request: Request<Body>,
    ) -> Request<Incoming> {
        let connection = ends.map_or(0, Ends::id);
        let headers_bytes = bytes_of(request.headers());
        let account = incoming::Account::new(self, method, connection, headers_bytes);
        request.map(|body| Incoming::counted(body, account))
    }
}

/// What goes out for a call: counted as it is sent. The call ends with it.
pub(crate) fn answered(mut response: Response<Body>, mut open: Option<Open>) -> Response<Outgoing> {
    let drawn = response.extensions_mut().remove::<Held>().and_then(Held::into_drawn);
    if let Some(open) = &mut open {
        open.learn(response.headers());
    }
    response.map(|body| Outgoing::new(body, drawn, open))
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

/// What headers take, about: each of them has an entry of its own in their table, however short it is.
fn bytes_of(headers: &HeaderMap) -> usize {
    const ENTRY_BYTES: usize = 96;
    headers.iter().map(|(name, value)| ENTRY_BYTES + name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_count_as_what_they_take_however_short_they_are() {
        let mut headers = HeaderMap::new();
        for _ in 0..1000 {
            headers.append("x", HeaderValue::from_static(""));
        }
        assert!(1000 * size_of::<HeaderValue>() < bytes_of(&headers));
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
}
