//! What keeps a server from starting, and what it says then.

use std::time::Duration;

use quorate_server::config::Config;
use quorate_server::{ServeError, Server};
use tempfile::TempDir;

use crate::node::config;

async fn refusal(config: &Config) -> String {
    Server::start(config).await.expect_err("it must not start").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_told_before_data_is_touched() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    for flag in ["listen-client-urls", "listen-peer-urls"] {
        let error = Server::start(&config(&data, &[(flag, &url)])).await.unwrap_err();
        assert!(matches!(error, ServeError::PortInUse { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(flag) && text.contains("in use"), "{text}");
        assert!(!data.exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_another_machine_is_told() {
    let directory = TempDir::new().unwrap();
    let flags = [("listen-peer-urls", "http://192.0.2.1:2380")];
    let error = refusal(&config(directory.path(), &flags)).await;
    assert!(error.contains("no interface of this machine"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_cannot_be_used_is_told() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&config(&data, &[])).await.unwrap();
    let error = refusal(&config(&data, &[])).await;
    assert!(error.contains("in use by another process"), "{error}");
    server.shutdown().await;

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refusal(&config(&file, &[])).await;
    assert!(error.contains(file.to_str().unwrap()), "{error}");

    let empty = directory.path().join("empty");
    let error = refusal(&config(&empty, &[("initial-cluster-state", "existing")])).await;
    assert!(error.contains("names no other member"), "{error}");
    assert!(!empty.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_member_is_told() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let cluster = ("initial-cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:2");
    let a = [("name", "a"), ("initial-advertise-peer-urls", "http://127.0.0.1:1"), cluster];
    let b = [("name", "b"), ("initial-advertise-peer-urls", "http://127.0.0.1:2"), cluster];
    let server = Server::start(&config(&data, &a)).await.unwrap();
    // Without the other one there is no leader, so no client is served; it stops all the same.
    let ready = tokio::time::timeout(Duration::from_millis(300), server.ready()).await;
    assert!(ready.is_err(), "one of two is no majority");
    tokio::time::timeout(Duration::from_secs(10), server.shutdown()).await.unwrap();

    let error = refusal(&config(&data, &b)).await;
    assert!(error.contains("belongs to member \"a\""), "{error}");
    let other = [("initial-cluster-token", "another")];
    let error = refusal(&config(&data, &other)).await;
    assert!(error.contains("of cluster"), "{error}");
    // Started with its own flags it is itself again.
    Server::start(&config(&data, &a)).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_leaves_its_ports_and_its_directory_free() {
    let directory = TempDir::new().unwrap();
    let first = Server::start(&config(directory.path(), &[])).await.unwrap();
    let url = format!("http://{}", first.client_addresses()[0]);
    first.ready().await;
    first.shutdown().await;
    let second = config(directory.path(), &[("listen-client-urls", &url)]);
    let second = Server::start(&second).await.unwrap();
    second.ready().await;
    second.shutdown().await;
}
