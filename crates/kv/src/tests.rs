//! What the crate promises, seen from outside: rule by rule, and against a model.

mod alarms;
mod answers;
mod commands;
mod crash;
mod damage;
mod defragment;
mod durability;
mod leases;
mod model;
mod random;
mod readers;
mod rules;
mod snapshots;
mod txns;
mod watches;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_types::{Index, Life, NodeId, Term};

use crate::*;

/// A store with a log: each call is one entry.
struct Node {
    store: Store,
    log: Vec<Entry>,
    /// Of the entries to come.
    term: Term,
}

impl Node {
    fn new() -> Self {
        Node::on(MemoryBackend::new())
    }

    fn on(backend: impl Backend + 'static) -> Self {
        Node { store: Store::create(backend, initial()).unwrap(), log: Vec::new(), term: Term(3) }
    }

    fn run(&mut self, command: &Command) -> Result<Response, KvError> {
        let entry = Entry { term: self.term, ..entry(self.log.len() as u64 + 1, command) };
        self.log.push(entry.clone());
        let mut outcome = self.store.apply(&[entry]).unwrap();
        assert_eq!(outcome.responses.len(), 1);
        outcome.responses.remove(0)
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        match self.run(&Command::Put(put(key, value))) {
            Ok(Response::Put(response)) => response.revision,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, key: &str, end: &str) -> DeleteRangeResponse {
        let delete = DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: true };
        match self.run(&Command::DeleteRange(delete)) {
            Ok(Response::DeleteRange(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    fn txn(&mut self, txn: TxnRequest) -> Result<TxnResponse, KvError> {
        match self.run(&Command::Txn(txn))? {
            Response::Txn(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    fn compact(&mut self, revision: i64) -> Result<i64, KvError> {
        let compact = CompactionRequest { revision, physical: false };
        match self.run(&Command::Compact(compact))? {
            Response::Compact(response) => Ok(response.revision),
            other => panic!("{other:?}"),
        }
    }

    fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.store.range(&request)
    }

    fn grant(&mut self, id: i64, ttl_seconds: i64) -> Result<LeaseGrantResponse, KvError> {
        match self.run(&Command::LeaseGrant { id, ttl_seconds })? {
            Response::LeaseGrant(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    fn put_leased(&mut self, key: &str, lease: i64) {
        self.run(&Command::Put(PutRequest { lease, ..put(key, "") })).unwrap();
    }

    /// `key=value` of all pairs, at a revision.
    fn all_at(&self, revision: i64) -> Result<Vec<String>, KvError> {
        let answer = self.range(RangeRequest { revision, ..range("\0", "\0") })?;
        Ok(pairs(&answer.kvs))
    }
}

/// Rows in memory whose uses are told.
struct Watched {
    rows: MemoryBackend,
    /// Called before each commit, which waits for it.
    on_commit: Arc<dyn Fn() + Send + Sync>,
    /// Called before each row is fetched by its key.
    on_get: Arc<dyn Fn(Table) + Send + Sync>,
}

impl Watched {
    fn new(rows: MemoryBackend) -> Self {
        Watched { rows, on_commit: Arc::new(|| ()), on_get: Arc::new(|_| ()) }
    }
}

impl Backend for Watched {
    fn view(&self) -> Result<Arc<dyn View>, BackendError> {
        let on_get = Arc::clone(&self.on_get);
        Ok(Arc::new(WatchedView { rows: self.rows.view()?, on_get }))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), BackendError> {
        (self.on_commit)();
        self.rows.commit(batch)
    }

    fn size_bytes(&self) -> u64 {
        self.rows.size_bytes()
    }

    fn in_use_bytes(&self) -> u64 {
        self.rows.in_use_bytes()
    }

    fn defragment(&mut self) -> Result<(), BackendError> {
        self.rows.defragment()
    }
}

struct WatchedView {
    rows: Arc<dyn View>,
    on_get: Arc<dyn Fn(Table) + Send + Sync>,
}

impl View for WatchedView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        (self.on_get)(table);
        self.rows.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.rows.scan(table, from, visit)
    }
}

impl Store {
    /// The keys of a lease, whoever leads.
    fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let state = self.any_state();
        let keys = state.leases.get(id).into_iter().flat_map(|lease| &lease.keys);
        keys.map(|key| Bytes::copy_from_slice(key)).collect()
    }
}

fn initial() -> Initial {
    let member = Member { id: 1, peer_urls: vec!["http://p1".to_owned()], ..Member::default() };
    let conf_state = Bytes::from_static(b"conf");
    let members = vec![member];
    let (applied, term) = (Index(0), Term(0));
    Initial { node: NodeId(1), cluster_id: 77, applied, term, conf_state, members }
}

fn entry(index: u64, command: &Command) -> Entry {
    let mut bytes = BytesMut::new();
    command.encode(&mut bytes);
    let what = Apply::Command(bytes.freeze());
    Entry { index: Index(index), term: Term(3), what, answer_wanted: true }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..RangeRequest::default() }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false }
}

fn pairs(kvs: &[KeyValue]) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect()
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len() as u64) as usize]
    }
}
