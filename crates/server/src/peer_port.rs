//! HTTP on the peer port: who the members are, for those that join, changes and questions about leases and
//! autopilot that other members pass on to the leader, and the checksum that members compare.
//!
//! Whoever can reach this port can speak as a peer; it must be open to the cluster's machines alone.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use quorate_proto::etcdserverpb::cluster_server::ClusterServer;
use quorate_runtime::HttpConnection;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;

use crate::grpc;
use crate::grpc::cluster::Service;
use crate::http::{is_grpc, unknown, version};
use crate::local::Local;

/// Serves the connections that come, until the server stops.
pub(crate) async fn serve(
    connections: mpsc::Receiver<HttpConnection>,
    local: Local,
    mut stopping: watch::Receiver<bool>,
) {
    let cluster = ClusterServer::new(Service::for_peers(local.clone()));
    let maintenance = grpc::maintenance(local.clone());
    let lease = grpc::lease(local.clone());
    let autopilot = grpc::autopilot(local.clone());
    let plain = Router::new()
        .route("/members", get(members))
        .route("/version", get(version))
        .with_state(local.clone());
    let router = Routes::new(cluster)
        .add_service(maintenance)
        .add_service(lease)
        .add_service(autopilot)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(local, only_for_peers))
        .merge(plain)
        .fallback(unknown);
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let serving = axum::serve(Connections(connections), router).with_graceful_shutdown(stopped);
    if let Err(error) = serving.await {
        tracing::error!(%error, "no longer answering questions on the peer port");
    }
}

/// Of Maintenance, peers need one thing, and of Lease two. What is meant for another member is nothing for this one.
async fn only_for_peers(State(local): State<Local>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_for_peers =
        match path.strip_prefix("/etcdserverpb.").and_then(|path| path.split_once('/')) {
            Some(("Maintenance", method)) => method == "HashKV",
            Some(("Lease", method)) => matches!(method, "LeaseKeepAlive" | "LeaseTimeToLive"),
            _ => true,
        };
    if !is_for_peers || !is_grpc(request.headers()) {
        return unknown(request).await;
    }
    if let Err(refused) = local.check_is_meant(request.headers()) {
        return refused.into_http();
    }
    next.run(request).await
}

/// As etcd writes it.
async fn members(State(local): State<Local>) -> Response {
    let members: Vec<Value> = local
        .store()
        .members()
        .into_iter()
        .map(|member| {
            let mut value = json!({ "id": member.id, "peerURLs": member.peer_urls });
            if member.is_learner {
                value["isLearner"] = true.into();
            }
            if !member.name.is_empty() {
                value["name"] = member.name.into();
            }
            if !member.client_urls.is_empty() {
                value["clientURLs"] = member.client_urls.into();
            }
            value
        })
        .collect();
    let cluster = format!("{:x}", local.status().cluster);
    let headers =
        [(CONTENT_TYPE.as_str(), "application/json"), ("x-etcd-cluster-id", cluster.as_str())];
    (headers, Value::from(members).to_string()).into_response()
}

struct Connections(mpsc::Receiver<HttpConnection>);

impl Listener for Connections {
    type Io = HttpConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (HttpConnection, SocketAddr) {
        match self.0.recv().await {
            Some(connection) => {
                let address = connection.address();
                (connection, address)
            }
            // The transport has ended; the server does so too.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // The transport keeps it to itself, and nobody asks.
        Err(io::ErrorKind::Unsupported.into())
    }
}
