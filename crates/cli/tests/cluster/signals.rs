//! How a member ends when it is asked to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, end_of, signal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_asked_to_stop_answers_or_refuses_what_is_under_way() {
    let mut cluster = Cluster::start(1, &[]).await;
    let mut answered = Vec::new();
    for (round, name) in ["INT", "TERM"].into_iter().enumerate() {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..16 {
            let channel = cluster.channel(0);
            clients.spawn(async move {
                let mut kv = KvClient::new(channel);
                let mut answered = Vec::new();
                for number in 0.. {
                    let key = format!("{round}/{client}/{number}");
                    let put = PutRequest { key: key.clone().into(), ..PutRequest::default() };
                    match tokio::time::timeout(PATIENCE, kv.put(put)).await {
                        Ok(Ok(_)) => answered.push(key),
                        Ok(Err(status)) => return (answered, Some(status)),
                        Err(_) => return (answered, None),
                    }
                }
                unreachable!("numbers do not end")
            });
        }
        cluster.written(0, 100).await;
        cluster.signal(0, name);
        assert!(cluster.ended(0).unwrap().success(), "after SIG{name}");
        while let Some(client) = clients.join_next().await {
            let (of_client, status) = client.unwrap();
            let status = status.expect("no call is left without an answer");
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            answered.extend(of_client);
        }
        cluster.spawn(0);
        cluster.settle().await;
    }
    assert!(100 < answered.len(), "hardly anything was under way");
    for key in answered {
        let found = cluster.read(0, Box::leak(key.clone().into_boxed_str()).as_bytes(), true).await;
        assert_eq!(found.unwrap().count, 1, "{key} was answered and is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_changes_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    cluster.signal(0, "HUP");
    cluster.fill(&[0], "after", 10).await;
    assert!(cluster.is_running(0));
    cluster.logged(0, "SIGHUP").await;
    assert!(cluster.stop(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_member_at_once() {
    let mut cluster = Cluster::start(1, &[]).await;
    // A request that never ends is waited for, for a moment. This one has begun: its body is asked for.
    let mut client = TcpStream::connect(cluster.endpoint(0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "POST /etcdserverpb.KV/Put HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\
                   Content-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    cluster.signal(0, "TERM");
    cluster.logged(0, "stopping").await;
    cluster.signal(0, "INT");
    assert_eq!(cluster.ended(0).unwrap().code(), Some(1));
    assert!(cluster.log(0).contains("as a second signal asked"), "{}", cluster.log(0));
    // Nothing is lost that way.
    cluster.spawn(0);
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_any_more_changes_nothing() {
    let cluster = Cluster::prepare(1, &["--log-level", "debug"]);
    let mut member = cluster.command(0).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(member.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready to serve") {
        line.clear();
        assert!(0 < log.read_line(&mut line).unwrap(), "the member ended");
    }
    drop(log);
    let put = PutRequest { key: Bytes::from_static(b"k"), ..PutRequest::default() };
    for _ in 0..3 {
        signal(member.id(), "HUP");
        KvClient::new(cluster.channel(0)).put(put.clone()).await.unwrap();
    }
    signal(member.id(), "TERM");
    assert!(end_of(&mut member).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_ends_a_member_with_words() {
    let mut cluster = Cluster::start(1, &[]).await;
    let put =
        PutRequest { key: "k".into(), value: vec![b'v'; 10_000].into(), ..Default::default() };
    let mut client = KvClient::new(cluster.channel(0));
    client.put(put.clone()).await.unwrap();
    cluster.limit_files(0, 1 << 20);
    // The log comes to its mebibyte, in space that it has reserved, after some hundred of these.
    let mut count = 1;
    while client.put(put.clone()).await.is_ok() {
        count += 1;
        assert!(count < 1000, "the log went on");
    }
    assert_eq!(cluster.ended(0).unwrap().code(), Some(1));
    let log = cluster.log(0);
    assert!(log.contains("the node has stopped: ") && log.contains("File too large"), "{log}");

    cluster.spawn(0);
    cluster.settle().await;
    let version = cluster.read(0, b"k", false).await.unwrap().kvs[0].version;
    assert!((count..=count + 1).contains(&version), "{count} were answered, {version} are there");
}

/// As systemd starts what has `Type=notify`, and waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_hears_when_a_member_serves_and_when_it_stops() {
    let cluster = Cluster::prepare(1, &["--logger=zap"]);
    let place = cluster.directory.path().join("notify");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&place).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut member = cluster
        .command(0)
        .env("NOTIFY_SOCKET", &place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut word = [0; 64];
    let mut heard = || {
        let length = supervisor.recv(&mut word).unwrap();
        String::from_utf8_lossy(&word[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    let put = PutRequest { key: "k".into(), ..PutRequest::default() };
    KvClient::new(cluster.channel(0)).put(put).await.unwrap();
    signal(member.id(), "TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert!(end_of(&mut member).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_whole_life_is_json_for_who_wants_that() {
    let mut cluster = Cluster::start(1, &["--log-format", "json"]).await;
    assert!(cluster.stop(0));
    let log = cluster.log(0);
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    let said = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("{message:?} is not in\n{log}"))
    };
    let starting = said("starting");
    assert_eq!((&starting["level"], &starting["name"]), (&"INFO".into(), &"n1".into()));
    assert_eq!(starting["data_dir"], cluster.data_dir(0).to_str().unwrap());
    assert_eq!(starting["fresh"], true);
    assert_eq!(said("ready to serve client requests")["address"], cluster.endpoint(0));
    said("stopped");
}
