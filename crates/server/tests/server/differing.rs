//! Members whose data are not the same.

use std::path::{Path, PathBuf};

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{AlarmRequest, PutRequest, SnapshotRequest};
use quorate_server::snapshot::{Anew, restore};
use tempfile::TempDir;

use crate::node::{self, connect};
use crate::trio::{Trio, eventually};

const CORRUPT: i32 = 2;

fn put(value: &'static str) -> PutRequest {
    PutRequest { key: "k".into(), value: value.into(), ..Default::default() }
}

/// A snapshot of a cluster in which one key was put once.
async fn saved(directory: &Path, value: &'static str) -> PathBuf {
    let data = TempDir::new().unwrap();
    let server = node::ready(&data, &[]).await;
    let channel = connect(&server).await;
    KvClient::new(channel.clone()).put(put(value)).await.unwrap();
    let mut pieces =
        MaintenanceClient::new(channel).snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend_from_slice(&piece.blob);
    }
    server.shutdown().await;
    let file = directory.join(value);
    std::fs::write(&file, bytes).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_member_that_differs_from_the_others_is_named_and_nothing_is_changed_any_more() {
    let directory = TempDir::new().unwrap();
    let one = saved(directory.path(), "one").await;
    let other = saved(directory.path(), "two").await;
    let files = [&one, &one, &other];
    let flags: &[_] = &[("corrupt-check-time", "1s"), ("election-timeout", "1000")];
    let trio = Trio::prepared([flags; 3], |at, config| {
        restore(files[at], config, Anew::default(), &mut |_, _| ()).unwrap();
    })
    .await;
    // Whoever leads, were it that one.
    for at in 0..3 {
        let mut maintenance = trio.maintenance(at).await;
        let alarms = eventually("the alarm is raised", async || {
            let list = maintenance.alarm(AlarmRequest::default()).await.ok()?.into_inner();
            (!list.alarms.is_empty()).then_some(list.alarms)
        });
        let alarms: Vec<_> =
            alarms.await.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect();
        assert_eq!(alarms, [(trio.id(2), CORRUPT)]);
        let refused = trio.kv(at).await.put(put("more")).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: corrupt cluster");
    }
    trio.shutdown().await;
}
