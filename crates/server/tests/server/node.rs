//! Nodes with short timers, each with its data in a directory of its own.

use std::path::Path;
use std::time::Duration;

use quorate_server::Server;
use quorate_server::config::{Config, Sources};
use tempfile::TempDir;
use tonic::transport::Channel;

/// What is waited for takes milliseconds, on a machine that has nothing else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The settings of a node, on any ports. `flags` count for more than those that are usual here.
pub(crate) fn config(data: &Path, flags: &[(&str, &str)]) -> Config {
    let mut sources = Sources::default();
    for (flag, value) in [
        ("data-dir", data.to_str().unwrap()),
        ("listen-client-urls", "http://127.0.0.1:0"),
        ("advertise-client-urls", "http://node-1:2379"),
        ("listen-peer-urls", "http://127.0.0.1:0"),
        ("heartbeat-interval", "10"),
        ("election-timeout", "50"),
    ]
    .iter()
    .chain(flags)
    {
        sources.flag(flag, value).unwrap();
    }
    sources.config().unwrap()
}

/// Starts a node.
pub(crate) async fn start(directory: &TempDir, flags: &[(&str, &str)]) -> Server {
    Server::start(&config(&directory.path().join("data"), flags)).await.unwrap()
}

/// Starts a node, and waits until it serves clients.
pub(crate) async fn ready(directory: &TempDir, flags: &[(&str, &str)]) -> Server {
    let server = start(directory, flags).await;
    tokio::time::timeout(PATIENCE, server.ready()).await.unwrap();
    server
}

/// A client's connection to it.
pub(crate) async fn connect(server: &Server) -> Channel {
    let address = server.client_addresses()[0];
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}
