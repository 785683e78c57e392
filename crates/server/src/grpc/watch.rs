//! Watching. One stream carries many watchers, and is carried by its connection: what it is told goes
//! out as fast as the client takes it, many responses at a time, and requests come in between.

use std::collections::VecDeque;
use std::pin::Pin;

use quorate_kv as kv;
use quorate_kv::KvError;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::watch_server::Watch;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tonic::{Request, Response, Status, Streaming};

use super::{Streamed, leaderless, wants_leader};
use crate::local::Local;
use crate::watching::Stream;
use crate::{convert, status};

/// Responses that are taken together hold about so many bytes: what leaves for the connection at once.
const TAKEN_BYTES: usize = 32 << 10;

pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Service { local }
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Streamed<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let wants_leader = wants_leader(request.metadata().as_ref());
        let carried = Carried {
            local: self.local.clone(),
            stream: self.local.watching().open(),
            requests: request.into_inner(),
            may_ask: true,
            taken: VecDeque::new(),
            leaderless: wants_leader.then(|| self.leaderless()),
        };
        let responses = futures_util::stream::unfold(Some(carried), |carried| async {
            let mut carried = carried?;
            match carried.next().await {
                Ok(response) => Some((Ok(response), Some(carried))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

impl Service {
    fn leaderless(&self) -> Leaderless {
        let local = self.local.clone();
        Box::pin(async move { leaderless(&local).await })
    }
}

type Leaderless = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream, carried by whoever asks for its responses: it ends with the connection's interest in it.
struct Carried {
    local: Local,
    stream: Stream,
    requests: Streaming<WatchRequest>,
    /// A client that asks for nothing more is told what it has asked for.
    may_ask: bool,
    /// Taken from the watchers, and not asked for yet.
    taken: VecDeque<WatchResponse>,
    /// For those that want to hear when there is no leader.
    leaderless: Option<Leaderless>,
}

impl Carried {
    /// The next response, or why there are no more. Requests come in between what is taken together.
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            if let Some(response) = self.taken.pop_front() {
                return Ok(response);
            }
            let leaderless = async {
                match &mut self.leaderless {
                    Some(leaderless) => leaderless.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                responses = self.stream.told(TAKEN_BYTES) => {
                    let header = self.local.header(0);
                    let of = |response| convert::watch_response(response, &header);
                    self.taken.extend(responses.into_iter().map(of));
                }
                request = self.requests.message(), if self.may_ask => match request? {
                    Some(request) => ask(&self.stream, request).await?,
                    None => self.may_ask = false,
                },
                () = self.local.stopping() => return Err(status::of_kv(KvError::Stopped)),
                () = leaderless => return Err(status::of_kv(KvError::NoLeader)),
            }
        }
    }
}

async fn ask(stream: &Stream, request: WatchRequest) -> Result<(), Status> {
    match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => {
            let create = create_request(create);
            stream.with(move |watches, id, store| watches.create(id, create, store)).await
        }
        Some(RequestUnion::CancelRequest(cancel)) => {
            let watch_id = cancel.watch_id;
            stream
                .with(move |watches, id, store| {
                    watches.cancel(id, watch_id, store);
                    Ok(())
                })
                .await
        }
        Some(RequestUnion::ProgressRequest(_)) => stream.with(kv::Watches::progress).await,
        None => Ok(()),
    }
}

fn create_request(request: WatchCreateRequest) -> kv::WatchCreateRequest {
    let filters = |filter: FilterType| request.filters.contains(&i32::from(filter));
    kv::WatchCreateRequest {
        no_put: filters(FilterType::Noput),
        no_delete: filters(FilterType::Nodelete),
        key: request.key,
        range_end: request.range_end,
        start_revision: request.start_revision,
        progress_notify: request.progress_notify,
        prev_kv: request.prev_kv,
        watch_id: request.watch_id,
        fragment: request.fragment,
    }
}
