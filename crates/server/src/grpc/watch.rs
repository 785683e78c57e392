//! Watching. One stream carries many watchers; one task carries a stream: what it is told goes out
//! as fast as the client takes it, and requests come in between.

use std::pin::pin;

use quorate_kv as kv;
use quorate_kv::KvError;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::watch_server::Watch;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Streamed, leaderless, wants_leader};
use crate::local::Local;
use crate::watching::Stream;
use crate::{convert, status};

/// Responses between the watchers and the connection. All others wait where they are bounded in
/// bytes.
const RESPONSES_MAX: usize = 4;

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
        let (responses, outgoing) = mpsc::channel(RESPONSES_MAX);
        let stream = self.local.watching().open();
        let requests = request.into_inner();
        let local = self.local.clone();
        tokio::spawn(async move {
            if let Err(status) = carry(&local, stream, requests, &responses, wants_leader).await {
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// Carries a stream until its client has gone, or an error is to end it. A client that asks for
/// nothing more is told what it has asked for.
async fn carry(
    local: &Local,
    stream: Stream,
    mut requests: Streaming<WatchRequest>,
    responses: &mpsc::Sender<Result<WatchResponse, Status>>,
    wants_leader: bool,
) -> Result<(), Status> {
    let mut leaderless = pin!(leaderless(local));
    let mut may_ask = true;
    loop {
        while let Some(response) = stream.take() {
            let response = convert::watch_response(response, |revision| local.header(revision));
            if responses.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = stream.told() => {}
            request = requests.message(), if may_ask => match request? {
                Some(request) => ask(&stream, request).await?,
                None => may_ask = false,
            },
            () = responses.closed() => return Ok(()),
            () = local.stopping() => return Err(status::of_kv(KvError::Stopped)),
            () = &mut leaderless, if wants_leader => {
                return Err(status::of_kv(KvError::NoLeader));
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
