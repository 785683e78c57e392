//! Real nodes, of which somebody follows what they apply.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, LeaseGrantRequest, PutRequest};
use quorate_proto::quoratepb::log_client::LogClient;
use quorate_proto::quoratepb::log_watch_request::From;
use quorate_proto::quoratepb::{LogEntry, LogWatchRequest, LogWatchResponse};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::node::{self, PATIENCE, connect};

/// What a stream tells, an entry at a time.
struct Watched {
    answers: Streaming<LogWatchResponse>,
    entries: std::vec::IntoIter<LogEntry>,
}

impl Watched {
    async fn open(channel: &Channel, from: Option<From>, stamp: u64) -> Result<Watched, Status> {
        let request = LogWatchRequest { from, previous_stamp: stamp };
        let mut answers = LogClient::new(channel.clone()).watch(request).await?.into_inner();
        let first = answers.message().await?.expect("an answer comes at once");
        Ok(Watched { answers, entries: first.entries.into_iter() })
    }

    async fn next(&mut self) -> Result<LogEntry, Status> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(entry);
            }
            let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
            let answer = answer.expect("something is told")?.expect("it ends with a reason");
            self.entries = answer.entries.into_iter();
        }
    }

    /// The next entry of a kind, with all before it.
    async fn until(&mut self, kind: &str) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        loop {
            entries.push(self.next().await.unwrap());
            if entries.last().is_some_and(|entry| entry.kind == kind) {
                return entries;
            }
        }
    }
}

fn put(key: String) -> PutRequest {
    PutRequest { key: key.into(), value: Bytes::from_static(b"value"), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_told_from_any_place_on_with_either_engine() {
    for engine in ["raft", "zab"] {
        let directory = TempDir::new().unwrap();
        let flags = [("engine", engine)];
        let server = node::ready(&directory, &flags).await;
        let channel = connect(&server).await;
        let mut kv = KvClient::new(channel.clone());
        kv.put(put("a".to_owned())).await.unwrap();
        let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
        kv.delete_range(delete).await.unwrap();

        let mut all = Watched::open(&channel, Some(From::Index(0)), 0).await.unwrap();
        let entries = all.until("delete").await;
        for (before, after) in entries.iter().zip(&entries[1..]) {
            assert_eq!(before.index + 1, after.index, "{engine}");
            assert!(before.revision <= after.revision, "{engine}");
        }
        let [.., put_entry, delete_entry] = &entries[..] else { panic!("{entries:?}") };
        let seen = (&*put_entry.kind, &*put_entry.what, put_entry.revision, put_entry.zab);
        assert_eq!(seen, ("put", "\"a\" (5 bytes)", 2, engine == "zab"));
        assert_eq!((&*delete_entry.what, delete_entry.revision), ("\"a\"", 3));
        assert_eq!(entries[0].index, 2, "the founding is in no log");
        assert_eq!(entries.iter().filter(|entry| entry.kind == "publish").count(), 1);
        if engine == "zab" {
            assert_eq!(put_entry.stamp >> 32, put_entry.term);
        } else {
            assert_eq!(put_entry.stamp, put_entry.term);
        }

        // From a place, a revision, now, and one to come.
        let from = Some(From::Index(delete_entry.index));
        let mut placed = Watched::open(&channel, from, put_entry.stamp).await.unwrap();
        assert_eq!(placed.next().await.unwrap(), *delete_entry);
        let mut revised = Watched::open(&channel, Some(From::Revision(2)), 0).await.unwrap();
        assert_eq!(revised.next().await.unwrap(), *put_entry);
        let mut now = Watched::open(&channel, None, 0).await.unwrap();
        let mut later = Watched::open(&channel, Some(From::Revision(5)), 0).await.unwrap();
        let lease = LeaseGrantRequest { ttl: 60, id: 18 };
        LeaseClient::new(channel.clone()).lease_grant(lease).await.unwrap();
        kv.put(put("b".to_owned())).await.unwrap();
        kv.put(put("c".to_owned())).await.unwrap();
        assert_eq!(now.until("lease-grant").await.len(), 1, "{engine}");
        assert_eq!(later.next().await.unwrap().what, "\"c\" (5 bytes)", "{engine}");

        // Another log than was followed, and what is no place at all.
        for (from, stamp, code) in [
            (From::Index(delete_entry.index), put_entry.stamp + 1, Code::DataLoss),
            (From::Revision(0), 0, Code::InvalidArgument),
        ] {
            let refused = Watched::open(&channel, Some(from), stamp).await.map(|_| ()).unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
        }

        // The server stops, and goes on where it was.
        let last = placed.until("put").await.pop().unwrap();
        server.shutdown().await;
        let ended = loop {
            match later.next().await {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        let server = node::ready(&directory, &flags).await;
        let channel = connect(&server).await;
        let from = Some(From::Index(last.index + 1));
        let mut resumed = Watched::open(&channel, from, last.stamp).await.unwrap();
        let next = resumed.next().await.unwrap();
        assert_eq!((next.index, &*next.what), (last.index + 1, "\"c\" (5 bytes)"), "{engine}");
        let forgotten = Watched::open(&channel, Some(From::Revision(2)), 0).await.map(|_| ());
        assert_eq!(forgotten.unwrap_err().code(), Code::OutOfRange);
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_costs_nothing_and_is_told_what_it_has_missed() {
    let directory = TempDir::new().unwrap();
    let server = node::ready(&directory, &[("snapshot-count", "500")]).await;
    let channel = connect(&server).await;
    // As many as may, none of whom reads what it is told, over a connection of their own.
    let theirs = connect(&server).await;
    let mut slow = Vec::new();
    let refused = loop {
        match Watched::open(&theirs, Some(From::Index(0)), 0).await {
            Ok(watched) => slow.push(watched),
            Err(status) => break status,
        }
    };
    assert_eq!((refused.code(), slow.len()), (Code::ResourceExhausted, 64));
    // More than the log keeps, and the connection holds: such keys are long in words.
    let prefix = &"\u{1}".repeat(100);
    let lanes = (0..64).map(|lane| {
        let mut kv = KvClient::new(channel.clone());
        async move {
            for number in 0..165 {
                kv.put(put(format!("{prefix}{lane}/{number}"))).await.unwrap();
            }
        }
    });
    join_all(lanes).await;
    slow.truncate(1);
    let mut slow = slow.pop().unwrap();
    let mut last = 0;
    let ended = loop {
        match slow.next().await {
            Ok(entry) => last = entry.index,
            Err(status) => break status,
        }
        assert!(last < 10_000, "it was not passed by");
    };
    assert_eq!(ended.code(), Code::OutOfRange, "{ended}");
    // It goes on with what there is.
    let oldest = tokio::time::timeout(PATIENCE, async {
        loop {
            // The seats of those who went are free in a moment.
            match Watched::open(&channel, Some(From::Index(0)), 0).await {
                Ok(watched) => return watched,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let mut oldest = oldest.await.unwrap();
    assert!(last + 1 < oldest.next().await.unwrap().index);
    server.shutdown().await;
}
