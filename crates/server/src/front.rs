//! The client port: gRPC and plain HTTP on one listener, and the way of each request to its answer.
//!
//! Calls go straight to their service: what stands between a call and its service is paid by every
//! put. Everything else, for which people and dashboards ask now and then, goes through a router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::http::{Request, Response};
use quorate_kv::KvError;
use tokio::time::Instant;
use tonic::body::Body;
use tower_service::Service;

use crate::calls::{Calls, Outgoing, answered};
use crate::grpc::{Api, Services, check_headers, learner};
use crate::http::{self, Plain};
use crate::local::Local;
use crate::{deadline, status};

/// Everything that clients can ask for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    inner: Arc<Inner>,
}

struct Inner {
    local: Local,
    calls: Arc<Calls>,
    services: Services,
    plain: Router,
}

impl Front {
    /// `request_bytes_max` is the limit of a command.
    pub(crate) fn new(plain: Plain, calls: Arc<Calls>, request_bytes_max: u64) -> Self {
        let local = plain.local.clone();
        let services = Services::new(&local, request_bytes_max);
        Front { inner: Arc::new(Inner { local, calls, services, plain: http::router(plain) }) }
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A call's time begins here.
        let (inner, begun) = (Arc::clone(&self.inner), Instant::now());
        Box::pin(async move {
            let api = Api::of(request.uri().path()).filter(|_| http::is_grpc(request.headers()));
            Ok(match api {
                Some(api) => inner.answer(api, request, begun).await,
                None => inner.answer_plainly(request).await?,
            })
        })
    }
}

impl Inner {
    async fn answer(&self, api: Api, request: Request<Body>, begun: Instant) -> Response<Outgoing> {
        let (request, open) = self.calls.begin(request);
        let response = match self.refusal(api, &request) {
            Some(error) => status::of_kv(error).into_http(),
            None => {
                let limit = deadline::limit(request.headers());
                let unknown = open.is_none().then(|| request.uri().path().to_owned());
                let answer = self.services.call(api, request);
                let response = deadline::kept(begun, limit, answer).await;
                in_etcds_words(response, unknown.as_deref())
            }
        };
        answered(response, open)
    }

    /// Why a call does not reach its service.
    fn refusal<B>(&self, api: Api, request: &Request<B>) -> Option<KvError> {
        // How this process is, is asked of whoever it is.
        if api == Api::Health {
            return None;
        }
        if self.local.refuses_most() && learner::is_refused(request.uri().path()) {
            return Some(KvError::NotSupportedForLearner);
        }
        check_headers(&self.local, request.headers()).err()
    }

    async fn answer_plainly(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Outgoing>, Infallible> {
        let response = self.plain.clone().call(request).await?;
        Ok(answered(response.map(Body::new), None))
    }
}

/// Puts the library's refusals into etcd's words. `unknown` is the path of a method that is not known.
fn in_etcds_words(response: Response<Body>, unknown: Option<&str>) -> Response<Body> {
    let headers = response.headers();
    let status = match unknown {
        Some(path) => status::of_unknown_method(headers, path),
        None => status::of_too_long_message(headers),
    };
    match status {
        Some(status) => status.into_http(),
        None => response,
    }
}
