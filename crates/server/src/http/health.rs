//! Whether this member is alive, ready, and can serve: for load balancers, supervisors and people.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use quorate_kv::{AlarmType, RangeRequest};
use serde_json::json;
use tonic::Status;

use super::{Plain, answer};

/// What is looked at, and which of it `/livez` and `/readyz` look at.
const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
    Check::DiskSpace,
];

pub(super) fn routes() -> Router<Plain> {
    Router::new()
        .route("/health", get(health).head(StatusCode::METHOD_NOT_ALLOWED))
        .route("/livez", get(async |plain, uri| all(plain, uri, LIVEZ).await))
        .route("/livez/{check}", get(async |path, plain, uri| one(path, plain, uri, LIVEZ).await))
        .route("/readyz", get(async |plain, uri| all(plain, uri, READYZ).await))
        .route("/readyz/{check}", get(async |path, plain, uri| one(path, plain, uri, READYZ).await))
}

/// Whether this member can serve: no alarm is active, it knows a leader, and a read is confirmed.
/// With `serializable=true` only the member itself is asked about; `exclude=NOSPACE` passes over an
/// alarm.
///
/// Source: etcd's `/health`.
async fn health(State(plain): State<Plain>, uri: Uri) -> Response {
    let reason = unhealthy(&plain, &Query::of(&uri)).await;
    plain.figures.on_health(reason.is_none());
    let (code, word) = match reason {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    answer(code, &json!({ "health": word, "reason": reason.unwrap_or_default() }))
}

async fn unhealthy(plain: &Plain, query: &Query<'_>) -> Option<String> {
    let is_local = query.values("serializable").any(|value| value == "true");
    for alarm in plain.local.store().alarms() {
        let name = alarm_name(alarm.alarm);
        if !query.values("exclude").any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !is_local && plain.local.leader().is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = read(plain, is_local).await.err()?;
    Some(format!("RANGE ERROR:{}", read.message()))
}

/// The names of alarms as they are excluded.
fn alarm_name(alarm: AlarmType) -> &'static str {
    match alarm {
        AlarmType::NoSpace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
        AlarmType::None | AlarmType::Unknown(_) => "UNKNOWN",
    }
}

async fn read(plain: &Plain, is_local: bool) -> Result<(), Status> {
    if !is_local {
        plain.local.read_barrier().await?;
    }
    let range = RangeRequest { key: "health".into(), limit: 1, ..RangeRequest::default() };
    plain.local.read(move |store| store.range(&range)).await.map(drop)
}

/// Something about a member that is well or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
    /// Not one of etcd's, which ends when its disk is full.
    DiskSpace,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
            Check::DiskSpace => "disk_space",
        }
    }

    async fn failure(self, plain: &Plain) -> Option<String> {
        match self {
            Check::DataCorruption => {
                let mut alarms = plain.local.store().alarms().into_iter();
                let is_corrupt = alarms.any(|alarm| alarm.alarm == AlarmType::Corrupt);
                is_corrupt.then(|| "alarm activated: CORRUPT".to_owned())
            }
            Check::SerializableRead => said(read(plain, true).await),
            Check::LinearizableRead => said(read(plain, false).await),
            Check::NonLearner => {
                plain.local.status().is_learner.then(|| "not supported for learner".to_owned())
            }
            Check::DiskSpace => plain.local.full_disk().map(str::to_owned),
        }
    }
}

fn said(outcome: Result<(), Status>) -> Option<String> {
    outcome.err().map(|status| status.message().to_owned())
}

/// Source: etcd's `/livez` and `/readyz`.
async fn all(State(plain): State<Plain>, uri: Uri, checks: &'static [Check]) -> Response {
    let query = Query::of(&uri);
    let excluded: BTreeSet<&str> = query.values("exclude").collect();
    let checks = checks.iter().copied().filter(|check| !excluded.contains(check.name()));
    told(&plain, checks, query.has("verbose")).await
}

async fn one(
    Path(name): Path<String>,
    State(plain): State<Plain>,
    uri: Uri,
    checks: &'static [Check],
) -> Response {
    match checks.iter().find(|check| check.name() == name) {
        Some(check) => {
            let is_verbose = Query::of(&uri).has("verbose");
            told(&plain, std::iter::once(*check), is_verbose).await
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn told(plain: &Plain, checks: impl Iterator<Item = Check>, is_verbose: bool) -> Response {
    let mut lines = String::new();
    let mut code = StatusCode::OK;
    for check in checks {
        let name = check.name();
        lines.push_str(&match check.failure(plain).await {
            None => format!("[+]{name} ok\n"),
            Some(why) => {
                code = StatusCode::SERVICE_UNAVAILABLE;
                format!("[-]{name} failed: {why}\n")
            }
        });
    }
    let body = match (code, is_verbose) {
        (StatusCode::OK, true) => lines + "ok\n",
        (StatusCode::OK, false) => "ok\n".to_owned(),
        _ => lines,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, body).into_response()
}

/// The part of a URL after the question mark. Names and values here need no escapes.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn of(uri: &'a Uri) -> Self {
        Query(uri.query().unwrap_or_default())
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn values(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    fn has(&self, name: &'a str) -> bool {
        self.values(name).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_fall_into_names_and_values() {
        let uri: Uri = "/health?exclude=NOSPACE&verbose&exclude=CORRUPT&x=".parse().unwrap();
        let query = Query::of(&uri);
        assert_eq!(query.values("exclude").collect::<Vec<_>>(), ["NOSPACE", "CORRUPT"]);
        for (name, want) in [("verbose", true), ("x", true), ("y", false), ("exclude", true)] {
            assert_eq!(query.has(name), want, "{name}");
        }
        assert!(!Query::of(&"/health".parse().unwrap()).has("verbose"));
    }
}
