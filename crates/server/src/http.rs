//! What is plain HTTP on the client port.
//!
//! ```text
//! health    /health, /livez, /readyz
//! /version  what this member is
//! /metrics  its figures
//! /autopilot/state, /autopilot/health, /autopilot/explain, /autopilot/config
//! /debug/vars  this process, on the client port only
//! ```

mod autopilot;
mod health;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tonic::Status;

use crate::figures::Figures;
use crate::local::Local;
use crate::version::{CLUSTER_VERSION, ETCD_VERSION};

/// What the plain endpoints look at.
#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) local: Local,
    pub(crate) figures: Arc<Figures>,
}

/// Everything that is no call of a service that is here.
pub(crate) fn router(plain: Plain) -> Router {
    Router::new()
        .route("/debug/vars", get(vars))
        .with_state(plain.clone())
        .merge(observing(plain))
        .fallback(unknown)
}

/// What those may ask for who only watch this member.
pub(crate) fn observing(plain: Plain) -> Router {
    health::routes()
        .merge(autopilot::routes())
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .with_state(plain)
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

/// Figures in Prometheus' text format, version 0.0.4, as etcd serves them.
async fn metrics(State(plain): State<Plain>) -> Response {
    // It reads files of the system, and waits for locks.
    match tokio::task::spawn_blocking(move || plain.figures.text()).await {
        Ok(Ok(text)) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The process and its place in the cluster, under the names that etcd exports, as far as they mean
/// something here.
async fn vars(State(plain): State<Plain>) -> Response {
    let status = plain.local.status();
    let role = match (status.is_leader, status.is_learner, status.leader) {
        (true, _, _) => "StateLeader",
        (_, true, _) | (_, _, Some(_)) => "StateFollower",
        _ => "StateCandidate",
    };
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let vars = json!({
        "cmdline": words.collect::<Vec<_>>(),
        "file_descriptor_limit": crate::open_files::limit().unwrap_or(0),
        "raft.status": {
            "id": format!("{:x}", status.node),
            "term": status.term.0,
            "commit": status.commit.0,
            "applied": status.applied.0,
            "lead": status.leader.map_or("0".to_owned(), |leader| format!("{leader:x}")),
            "raftState": role,
        },
    });
    answer(StatusCode::OK, &vars)
}

fn answer(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Whether a request says that it is a call. Any web page can have a browser send one that does not, to
/// every address that the browser reaches: such a one is no call, whatever its path.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(header::CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

/// No such path: in the caller's own language.
pub(crate) async fn unknown(request: Request) -> Response {
    if is_grpc(request.headers()) {
        Status::unimplemented("unknown service or method").into_http()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}
