//! Autopilot over plain HTTP, for dashboards and load balancers. It is set over gRPC alone: this port
//! may be one for those who only watch.
//!
//! ```text
//! /autopilot/state    the cluster as its leader sees it
//! /autopilot/health   the same in short; 429 when something is unhealthy, as Consul has it
//! /autopilot/explain  what the next round would do, and why not more
//! /autopilot/config   what is set
//! ```

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{Plain, answer};

pub(super) fn routes() -> Router<Plain> {
    Router::new()
        .route("/autopilot/state", get(state))
        .route("/autopilot/health", get(health))
        .route("/autopilot/explain", get(explain))
        .route("/autopilot/config", get(config))
}

async fn state(State(plain): State<Plain>) -> Response {
    match plain.local.autopilot_state(false).await {
        Ok(json) => text(StatusCode::OK, json),
        Err(status) => refused(&status),
    }
}

async fn health(State(plain): State<Plain>) -> Response {
    match plain.local.autopilot_health(false).await {
        Ok(health) if health.is_healthy => text(StatusCode::OK, health.json),
        Ok(health) => text(StatusCode::TOO_MANY_REQUESTS, health.json),
        Err(status) => refused(&status),
    }
}

async fn explain(State(plain): State<Plain>) -> Response {
    match plain.local.explain_autopilot(false).await {
        Ok(json) => text(StatusCode::OK, json),
        Err(status) => refused(&status),
    }
}

async fn config(State(plain): State<Plain>) -> Response {
    let set = match plain.local.autopilot_config().await {
        Ok(set) => set,
        Err(status) => return refused(&status),
    };
    let mut json: Value = serde_json::from_str(&set.json).unwrap_or_default();
    json["create_index"] = set.created.into();
    json["modify_index"] = set.modified.into();
    json["warnings"] = set.warnings.into();
    answer(StatusCode::OK, &json)
}

fn text(code: StatusCode, json: String) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// Nobody can say, for now or on this engine.
fn refused(status: &Status) -> Response {
    let code = match status.code() {
        Code::Unimplemented | Code::FailedPrecondition => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(code, &json!({ "error": status.message() }))
}
