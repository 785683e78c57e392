//! The state's file as bytes: damaged ones, and those of every released format.
//!
//! In a process of their own, whose panics go unprinted: the storage below panics on some damaged files,
//! and that it goes no further is part of what is tested.

mod damage;
mod formats;

use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use quorate_kv::{
    Applied, Apply, Command, DeleteRangeRequest, Entry, Initial, Member, PutRequest, RedbBackend,
    Store,
};
use quorate_types::{Index, NodeId, Term};
use redb::StorageBackend;

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct Contents(Arc<Mutex<Vec<u8>>>);

impl Contents {
    fn new(bytes: Vec<u8>) -> Self {
        Contents(Arc::new(Mutex::new(bytes)))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl StorageBackend for Contents {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let held = bytes.get(offset as usize..end as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(held);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // As much as a file system of this test would take.
        if 1 << 28 < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let place = bytes.get_mut(offset as usize..end as usize);
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

/// All that a store says of itself.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    hash: u32,
    applied: Applied,
    revision: i64,
    compacted: i64,
    members: Vec<Member>,
}

impl Held {
    fn of(store: &Store) -> Result<Held, String> {
        let hash = store.hash_kv(0).map_err(|error| error.to_string())?.hash;
        Ok(Held {
            hash,
            applied: store.applied(),
            revision: store.revision(),
            compacted: store.compact_revision(),
            members: store.members(),
        })
    }
}

fn open(contents: &Contents) -> Result<Store, String> {
    let backend =
        RedbBackend::open(contents.clone(), 1 << 16).map_err(|error| error.to_string())?;
    Store::open(backend).map_err(|error| error.to_string())
}

fn initial() -> Initial {
    let urls = vec!["http://seven:2380".to_owned()];
    let member = Member { id: 7, name: "seven".to_owned(), peer_urls: urls, ..Member::default() };
    let conf_state = Bytes::from_static(b"members");
    Initial {
        node: NodeId(7),
        cluster_id: 9,
        members: vec![member],
        conf_state,
        ..Initial::default()
    }
}

/// The entry of this number: puts and deletes of a few keys.
fn entry(number: u64) -> Entry {
    let key = Bytes::from(format!("key {}", number % 9));
    let command = match number % 7 {
        0 => Command::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }),
        _ => Command::Put(PutRequest {
            key,
            value: Bytes::from(format!("value {number}")),
            ..PutRequest::default()
        }),
    };
    let mut bytes = BytesMut::new();
    command.encode(&mut bytes);
    let what = Apply::Command(bytes.freeze());
    Entry { index: Index(number), term: Term(1), what, answer_wanted: false }
}

/// A store that applied as many entries, flushed every ten.
fn filled(contents: &Contents, entries: u64) -> Store {
    let backend = RedbBackend::open(contents.clone(), 1 << 20).unwrap();
    let store = Store::create(backend, initial()).unwrap();
    for number in 1..=entries {
        store.apply(&[entry(number)]).unwrap();
        if number % 10 == 0 {
            store.flush().unwrap();
        }
    }
    store
}
