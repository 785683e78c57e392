//! Every bad start and every bad request gets an answer that says what is wrong, and costs nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;

use crate::harness::{Cluster, Outcome, quorate, run};

pub(crate) fn assert_refused(mut command: Command, wants: &[&str]) {
    let Outcome { code, output, errors } = run(&mut command);
    let text = errors + &output;
    assert_ne!(code, 0, "{command:?} succeeded: {text}");
    for want in wants {
        assert!(text.contains(want), "{command:?}\nsaid: {text}\nwanted: {want}");
    }
}

#[test]
fn flags_that_cannot_work_are_refused() {
    let serve = |flags: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let mut command = quorate();
        command.arg("serve").args(flags).current_dir(directory.path());
        (command, directory)
    };
    for (flags, wants) in [
        (&["--no-such-flag"][..], &["--no-such-flag"][..]),
        (&["--heartbeat-interval", "100", "--election-timeout", "200"], &["election-timeout"]),
        (&["--election-timeout", "60000"], &["election-timeout", "50000"]),
        (&["--heartbeat-interval", "0"], &["heartbeat-interval"]),
        (&["--listen-client-urls", "http://127.0.0.1:2379"], &["advertise-client-urls"]),
        (
            &[
                "--listen-client-urls",
                "http://example.com:2379",
                "--advertise-client-urls",
                "http://example.com:2379",
            ],
            &["example.com"],
        ),
        (&["--listen-client-urls", "127.0.0.1:2379"], &["127.0.0.1:2379"]),
        (&["--name", "n9", "--initial-cluster", "n1=http://127.0.0.1:2380"], &["n9"]),
        (
            &["--name", "n1", "--initial-cluster", "n1=http://127.0.0.1:9"],
            &["initial-advertise-peer-urls"],
        ),
        (
            &["--initial-cluster", "default=http://localhost:2380,other=http://localhost:2380"],
            &["localhost:2380"],
        ),
        (&["--initial-cluster-state", "maybe"], &["maybe"]),
        (&["--snapshot-count", "0"], &["snapshot-count"]),
        (&["--max-txn-ops", "0"], &["max-txn-ops"]),
        (&["--log-level", "loud"], &["loud"]),
        (&["--config-file", "absent.toml"], &["absent.toml"]),
        (&["stray"], &["stray"]),
    ] {
        let (command, directory) = serve(flags);
        assert_refused(command, wants);
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "{flags:?} left something behind"
        );
    }
}

#[test]
fn a_setting_of_the_environment_that_is_refused_is_named_whole() {
    for name in ["QUORATE_HEX", "ETCDCTL_HEX"] {
        let mut command = quorate();
        command.args(["get", "a"]).env(name, "yes");
        assert_refused(command, &[&format!("Error: {name} in the environment is \"yes\"")]);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::prepare(1, &[]);
    for port in [cluster.members[0].client_port, cluster.members[0].peer_port] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_refused(cluster.command(0), &[&port.to_string(), "in use"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_someone_else_is_refused() {
    let mut cluster = Cluster::start(1, &[]).await;

    let other_ports = Cluster::prepare(1, &[]);
    let mut second = other_ports.command(0);
    second.arg("--data-dir").arg(cluster.data_dir(0));
    // The last of two equal flags is an error of its own; so build the command by hand.
    let mut second = quorate();
    second.arg("serve").args(["--name", "n1", "--data-dir"]).arg(cluster.data_dir(0)).args([
        "--listen-client-urls",
        &format!("http://127.0.0.1:{}", other_ports.members[0].client_port),
        "--advertise-client-urls",
        &format!("http://127.0.0.1:{}", other_ports.members[0].client_port),
        "--listen-peer-urls",
        &format!("http://127.0.0.1:{}", other_ports.members[0].peer_port),
        "--initial-advertise-peer-urls",
        &format!("http://127.0.0.1:{}", other_ports.members[0].peer_port),
        "--initial-cluster",
        &format!("n1=http://127.0.0.1:{}", other_ports.members[0].peer_port),
    ]);
    assert_refused(second, &["in use by another process"]);

    assert!(cluster.stop(0));
    let stranger = Cluster::prepare(1, &["--initial-cluster-token", "another-cluster"]);
    let mut command = quorate();
    let peer = format!("http://127.0.0.1:{}", stranger.members[0].peer_port);
    let client = format!("http://127.0.0.1:{}", stranger.members[0].client_port);
    command
        .args(["serve", "--name", "stranger", "--data-dir"])
        .arg(cluster.data_dir(0))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("stranger={peer}")])
        .args(["--initial-cluster-token", "another-cluster"]);
    assert_refused(command, &["belongs to"]);

    // Nothing was lost by any of it.
    cluster.spawn(0);
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_the_other_engine_is_refused() {
    for (engine, other) in [("raft", "zab"), ("zab", "raft")] {
        let mut cluster = Cluster::start(1, &["--engine", engine]).await;
        assert!(cluster.stop(0));
        let mut stranger = Cluster::prepare(0, &["--engine", other]);
        std::mem::swap(&mut stranger.members, &mut cluster.members);
        std::mem::swap(&mut stranger.directory, &mut cluster.directory);
        let runs = format!("is of a member that runs the engine {engine}");
        assert_refused(stranger.command(0), &[&runs, &format!("--engine {engine}")]);
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let cluster = Cluster::prepare(1, &[]);
    // A file where the directory should be: also fails for a user who may do everything.
    std::fs::write(cluster.data_dir(0), b"not a directory").unwrap();
    assert_refused(cluster.command(0), &[cluster.data_dir(0).to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_with_file_and_offset() {
    let mut cluster = Cluster::start(1, &[]).await;
    cluster.fill(&[0], "k", 200).await;
    cluster.kill(0);
    let wal = cluster.data_dir(0).join("wal");
    let segment = std::fs::read_dir(&wal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .min()
        .expect("a segment");
    let healthy = std::fs::read(&segment).unwrap();
    let mut damaged = healthy.clone();
    damaged[2000] ^= 1;
    std::fs::write(&segment, &damaged).unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert_refused(cluster.command(0), &[name, "offset"]);
    std::fs::write(&segment, &healthy).unwrap();
    cluster.spawn(0);
    cluster.settle().await;
}

/// As after a copy of a directory that was made while its member ran.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_its_state_is_refused_in_words() {
    for engine in ["raft", "zab"] {
        let mut cluster = Cluster::start(1, &["--engine", engine]).await;
        cluster.fill(&[0], "k", 50).await;
        assert!(cluster.stop(0));
        let (wal, kept) = (cluster.data_dir(0).join("wal"), cluster.data_dir(0).join("kept"));
        copy_files(&wal, &kept);
        cluster.spawn(0);
        cluster.settle().await;
        cluster.fill(&[0], "l", 200).await;
        assert!(cluster.stop(0));
        let newer = cluster.data_dir(0).join("newer");
        std::fs::rename(&wal, &newer).unwrap();
        std::fs::rename(&kept, &wal).unwrap();
        assert_refused(cluster.command(0), &["the log ends at", "older copy"]);
        std::fs::remove_dir_all(&wal).unwrap();
        std::fs::rename(&newer, &wal).unwrap();
        cluster.spawn(0);
        cluster.settle().await;
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_both_ports_and_clients_that_vanish_change_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    let ports = [cluster.members[0].client_port, cluster.members[0].peer_port];
    let mut connections = Vec::new();
    for port in ports {
        for garbage in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"",
        ] {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
            connection.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let _ = connection.write_all(garbage);
            let _ = connection.read(&mut [0; 64]);
            connections.push(connection);
        }
    }
    // A client that goes away in the middle of its request.
    for _ in 0..20 {
        let mut client = KvClient::new(cluster.channel(0));
        let request = PutRequest { key: Bytes::from_static(b"gone"), ..Default::default() };
        let _ = tokio::time::timeout(Duration::from_micros(300), client.put(request)).await;
    }
    assert!(cluster.is_running(0));
    cluster.fill(&[0], "after", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_over_the_limits_gets_etcds_error() {
    let cluster = Cluster::start(1, &["--max-request-bytes", "10000"]).await;
    let mut client = KvClient::new(cluster.channel(0));
    let put = |bytes: usize| PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from(vec![0; bytes]),
        ..Default::default()
    };
    client.put(put(9_000)).await.unwrap();
    let error = client.put(put(10_001)).await.unwrap_err();
    assert_eq!(error.message(), "etcdserver: request is too large");
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let error = client.put(put(10_000 + 512 * 1024 + 1)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error}");
    client.put(put(1)).await.unwrap();
}
