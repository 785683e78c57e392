//! The client port: gRPC and plain HTTP on one listener.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tonic::Status;
use tonic::service::Routes;

use crate::grpc::learner;
use crate::local::Local;
use crate::status;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION};

/// Adds `/health` and `/version` to the gRPC services.
pub(crate) fn router(services: Routes, local: Local) -> Router {
    let plain = Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .with_state(local.clone());
    services
        .into_axum_router()
        .layer(middleware::map_response(in_etcds_words))
        .layer(middleware::from_fn_with_state(local, learner::refuse))
        .merge(plain)
        .fallback(unknown)
}

/// Whether this member can serve: it knows a leader, and a read is confirmed. With
/// `?serializable=true` only the member itself is asked about.
async fn health(State(local): State<Local>, uri: Uri) -> Response {
    let wants_local =
        uri.query().unwrap_or_default().split('&').any(|pair| pair == "serializable=true");
    if wants_local {
        return healthy(None);
    }
    if local.leader().is_none() {
        return healthy(Some("RAFT NO LEADER".to_owned()));
    }
    let confirmed = local.read_barrier().await;
    healthy(confirmed.err().map(|status| format!("RANGE ERROR:{}", status.message())))
}

fn healthy(reason: Option<String>) -> Response {
    let (code, word) = match reason {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    answer(code, &json!({ "health": word, "reason": reason.unwrap_or_default() }))
}

/// The versions of the interface that this member has.
pub(crate) async fn version() -> Response {
    let versions = json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": CLUSTER_VERSION,
        "storage": CLUSTER_VERSION,
    });
    answer(StatusCode::OK, &versions)
}

fn answer(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// No such path: in the caller's own language.
async fn unknown(request: Request) -> Response {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        Status::unimplemented("unknown service or method").into_http()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

async fn in_etcds_words(response: Response) -> Response {
    match status::of_too_long_message(response.headers()) {
        Some(status) => status.into_http(),
        None => response,
    }
}
