use std::path::PathBuf;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use quorate_kv::{Backend, BackendError, Batch, Command, Initial, MemoryBackend};
use quorate_kv::{PutRequest, View};
use quorate_replica::seal;
use quorate_types::Term;

use super::super::*;
use crate::room::Room;

/// Its commits wait for a gate.
struct Gated {
    memory: MemoryBackend,
    gate: Arc<Mutex<()>>,
}

impl Backend for Gated {
    fn view(&self) -> Result<Arc<dyn View>, BackendError> {
        self.memory.view()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BackendError> {
        let _open = self.gate.lock().unwrap();
        self.memory.commit(batch)
    }

    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn in_use_bytes(&self) -> u64 {
        self.memory.in_use_bytes()
    }

    fn defragment(&mut self) -> Result<(), BackendError> {
        self.memory.defragment()
    }
}

struct Rig {
    applier: Applier,
    gate: Arc<Mutex<()>>,
    lock: Arc<File>,
    done: mpsc::UnboundedReceiver<Done>,
}

fn rig() -> Rig {
    let gate = Arc::new(Mutex::new(()));
    let backend = Gated { memory: MemoryBackend::new(), gate: Arc::clone(&gate) };
    let initial = Initial {
        node: quorate_types::NodeId(1),
        cluster_id: 7,
        applied: Index(1),
        term: Term(1),
        conf_state: Bytes::new(),
        members: Vec::new(),
    };
    let lock = Arc::new(tempfile::tempfile().unwrap());
    let metrics = Arc::new(Metrics::default());
    let (sender, done) = mpsc::unbounded_channel();
    let applier = Applier {
        store: Arc::new(Store::create(backend, initial).unwrap()),
        waiters: Arc::new(Waiters::new(10)),
        metrics: Arc::clone(&metrics),
        // Nothing is installed here.
        state_file: Arc::new(StateFile {
            path: PathBuf::new(),
            snap_dir: PathBuf::new(),
            cache_bytes: 0,
            room: Arc::new(Room::new(metrics)),
            building: std::sync::Mutex::default(),
        }),
        lock: Arc::clone(&lock),
        progress: Arc::new(Progress::new(sender.clone())),
        revisions: Arc::new(Revisions::new(Index(0), 1)),
        done: sender,
    };
    Rig { applier, gate, lock, done }
}

#[test]
fn a_flush_holds_the_lock_of_the_directory_until_it_ends() {
    let Rig { applier, gate, lock, mut done } = rig();
    applier.apply(vec![Applying::Empty { index: Index(2), term: Term(1) }]).unwrap();
    assert!(matches!(done.blocking_recv(), Some(Done::Progress(Index(2)))));
    let closed = gate.lock().unwrap();
    applier.begin_flush().unwrap();
    drop(applier);
    assert_eq!(Arc::strong_count(&lock), 2, "its own, and the one of the test");
    drop(closed);
    assert!(matches!(done.blocking_recv(), Some(Done::Flushed(Index(2)))));
    while Arc::strong_count(&lock) != 1 {
        std::thread::yield_now();
    }
}

#[test]
fn whoever_asked_is_answered_once_and_nobody_else() {
    let Rig { applier, mut done, .. } = rig();
    let put = |key: &'static str| {
        let key = Bytes::from_static(key.as_bytes());
        Command::Put(PutRequest { key, ..PutRequest::default() })
    };
    let applying = |index, request, command: Command| {
        let mut entry = BytesMut::new();
        seal(RequestId(request), &mut entry);
        command.encode(&mut entry);
        Applying::Command { index: Index(index), term: Term(1), entry: entry.freeze() }
    };
    let mut first = applier.waiters.wait(RequestId(11)).unwrap();
    let mut second = applier.waiters.wait(RequestId(12)).unwrap();
    let mut other = applier.waiters.wait(RequestId(13)).unwrap();
    let future = quorate_kv::CompactionRequest { revision: 1000, physical: false };
    let batch = vec![
        Applying::Empty { index: Index(2), term: Term(1) },
        applying(3, 11, put("a")),
        applying(4, 99, put("b")), // asked for at another member
        applying(5, 12, Command::Compact(future)), // refused by the machine
    ];
    applier.apply(batch).unwrap();
    assert!(matches!(done.try_recv(), Ok(Done::Progress(Index(5)))));
    assert!(matches!(first.try_recv(), Ok(Answer::Applied(Ok(_)))));
    assert!(matches!(second.try_recv(), Ok(Answer::Applied(Err(_)))));
    assert!(other.try_recv().is_err());
    assert_eq!(applier.waiters.count(), 1);
    // A bad envelope stops the member before anything of its batch is applied.
    let bad = Applying::Command {
        index: Index(7),
        term: Term(1),
        entry: Bytes::from_static(b"\x0212345678"),
    };
    assert!(applier.apply(vec![applying(6, 13, put("c")), bad]).is_err());
    assert_eq!(applier.store.applied().index, Index(5));
}

#[test]
fn a_member_that_cannot_flush_applies_no_more_until_it_can() {
    let Rig { applier, gate, mut done, .. } = rig();
    let store = Arc::clone(&applier.store);
    let put = |index: u64| {
        let mut entry = BytesMut::new();
        seal(RequestId(index), &mut entry);
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from(vec![7; 1 << 20]));
        Command::Put(PutRequest { key, value, ..PutRequest::default() }).encode(&mut entry);
        Applying::Command { index: Index(index), term: Term(1), entry: entry.freeze() }
    };
    let last = Index(100);
    let entries = (2..=last.0).map(put).collect();
    let closed = gate.lock().unwrap();
    let applying = std::thread::spawn(move || applier.apply(entries).map(drop));
    let through = match done.blocking_recv() {
        Some(Done::Progress(through)) => through,
        _ => panic!("entries are applied while there is room in memory"),
    };
    assert!(through < last && store.needs_flush(), "stopped at {through}");
    drop(closed);
    // Nothing was applied between the two: the flush holds what had been applied before it.
    assert!(matches!(done.blocking_recv(), Some(Done::Flushed(index)) if index == through));
    applying.join().unwrap().unwrap();
    assert_eq!(store.applied().index, last);
}
