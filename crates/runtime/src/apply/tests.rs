use bytes::{Bytes, BytesMut};
use quorate_kv::{
    Command, CompactionRequest, Initial, MemoryBackend, PutRequest, RangeRequest, RequestOp,
};
use quorate_kv::{Response, TxnRequest};
use quorate_replica::seal;
use quorate_types::Term;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::room::Room;

mod answers;

struct Bench {
    applier: Applier,
    told: mpsc::UnboundedReceiver<Done>,
    _directory: TempDir,
}

fn bench() -> Bench {
    let directory = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::default());
    let (done, told) = mpsc::unbounded_channel();
    let applier = Applier {
        store: Arc::new(Store::create(MemoryBackend::new(), Initial::default()).unwrap()),
        waiters: Arc::new(Waiters::new(100)),
        metrics: Arc::clone(&metrics),
        state_file: Arc::new(StateFile {
            path: directory.path().join("kv.redb"),
            snap_dir: directory.path().join("snap"),
            cache_bytes: 1 << 20,
            room: Arc::new(Room::new(metrics)),
            building: std::sync::Mutex::default(),
        }),
        lock: Arc::new(File::create(directory.path().join("lock")).unwrap()),
        progress: Arc::new(Progress::new(done.clone())),
        revisions: Arc::new(Revisions::new(Index(0), 1)),
        done,
    };
    Bench { applier, told, _directory: directory }
}

/// An entry; its request has the same number.
fn entry(index: u64, command: &Command) -> Applying {
    let mut entry = BytesMut::new();
    seal(RequestId(index), &mut entry);
    command.encode(&mut entry);
    Applying::Command { index: Index(index), term: Term(1), entry: entry.freeze() }
}

fn put(key: &'static str, bytes: usize) -> PutRequest {
    let value = vec![7; bytes].into();
    PutRequest { key: Bytes::from_static(key.as_bytes()), value, ..PutRequest::default() }
}

fn answered(mut receiver: oneshot::Receiver<Answer>) -> Result<Response, quorate_kv::KvError> {
    match receiver.try_recv() {
        Ok(Answer::Applied(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_larger_than_a_call_reach_each_who_waits() {
    let mut bench = bench();
    let all = || {
        let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        RequestOp::Range(RangeRequest { key, range_end, ..RangeRequest::default() })
    };
    let reads = Command::Txn(TxnRequest {
        success: vec![RequestOp::Put(put("n", 1)), all(), all(), all()],
        ..TxnRequest::default()
    });
    let mut entries = vec![entry(1, &Command::Put(put("large", 1 << 20)))];
    entries.extend((2..=300).map(|index| entry(index, &reads)));
    let waits = |request| bench.applier.waiters.wait(RequestId(request)).unwrap();
    let waiting: Vec<_> = [2, 3, 4, 150, 256, 257, 300].map(waits).into();
    bench.applier.apply(entries).unwrap();
    let mut reached = Vec::new();
    while let Ok(Done::Progress(through)) = bench.told.try_recv() {
        reached.push(through.0);
    }
    // Two answers of three mebibytes are enough for once.
    assert_eq!(reached, [3, 150, 256, 300]);
    for (place, receiver) in waiting.into_iter().enumerate() {
        match answered(receiver) {
            Ok(Response::Txn(txn)) => assert_eq!(txn.responses.len(), 4, "waiter {place}"),
            other => panic!("waiter {place}: {other:?}"),
        }
    }
    assert_eq!(bench.applier.waiters.count(), 0);
}

#[test]
fn changes_wait_for_a_flush_rather_than_grow() {
    let mut bench = bench();
    let mut index = 0;
    // More than twice as much as may wait, in one batch.
    let keep = |number: usize| {
        let key = ["a", "b", "c", "d"][number];
        RequestOp::Put(PutRequest { ignore_value: true, ..put(key, 0) })
    };
    let keeps = TxnRequest { success: (0..4).map(keep).collect(), ..TxnRequest::default() };
    let puts = ["a", "b", "c", "d"].map(|key| Command::Put(put(key, 1 << 20)));
    let all = puts.into_iter().chain(std::iter::repeat_n(Command::Txn(keeps), 39));
    let entries = all
        .map(|command| {
            index += 1;
            entry(index, &command)
        })
        .collect();
    bench.applier.apply(entries).unwrap();
    assert!(bench.applier.store.overlay_bytes() <= quorate_kv::OVERLAY_BYTES_MAX + (5 << 20));
    assert_eq!(bench.applier.metrics.flushes.value(), 2);
    let mut told = Vec::new();
    while let Ok(done) = bench.told.try_recv() {
        match done {
            Done::Progress(through) => told.push(("applied", through.0)),
            Done::Flushed(index) => told.push(("flushed", index.0)),
            _ => panic!("neither applied nor flushed"),
        }
    }
    let want =
        [("applied", 19), ("flushed", 19), ("applied", 35), ("flushed", 35), ("applied", index)];
    assert_eq!(told, want);
    assert_eq!(bench.applier.store.applied().index, Index(index));
}

#[test]
fn what_compaction_forgot_is_removed_however_busy_the_machine_is() {
    let Bench { applier, told: _told, _directory } = bench();
    let keys = 5000;
    let put = |index: u64| {
        let key = Bytes::from(format!("{:04}", index % keys));
        Command::Put(PutRequest { key, ..PutRequest::default() })
    };
    applier.apply((1..=2 * keys).map(|index| entry(index, &put(index))).collect()).unwrap();
    let store = Arc::clone(&applier.store);
    let revision = store.revision();
    let compact = CompactionRequest { revision, physical: false };
    // All of it is there before anything is done, so there is never a moment of rest.
    let (inbox, work) = blocking::channel();
    inbox.send(Work::Apply(vec![entry(2 * keys + 1, &Command::Compact(compact))])).unwrap();
    for number in 0..20 {
        inbox.send(Work::Flush).unwrap();
        let index = 2 * keys + 2 + number;
        inbox.send(Work::Apply(vec![entry(index, &put(index))])).unwrap();
    }
    drop(inbox);
    applier.run(work);
    assert_eq!((store.compact_revision(), store.removed_revision()), (revision, revision));
}
