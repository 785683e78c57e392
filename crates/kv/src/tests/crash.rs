//! A disk that loses what was not synced, and a store that does not mind.

use std::io;
use std::sync::{Arc, Mutex};

use super::random::command;
use super::*;

/// A disk. Writes reach it at a sync; a crash keeps any of those in between, and loses the others.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// What survives for sure.
    durable: Vec<u8>,
    /// What reads see.
    visible: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Calls until the power fails.
    fuse: Option<u64>,
    /// Counts power cycles: who was plugged in before gets errors only.
    cycle: u64,
    seed: u64,
}

#[derive(Debug)]
enum Unsynced {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug)]
pub(super) struct Plugged {
    disk: Disk,
    cycle: u64,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let inner = Inner {
            durable: Vec::new(),
            visible: Vec::new(),
            unsynced: Vec::new(),
            fuse: None,
            cycle: 0,
            seed,
        };
        Disk { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The disk after the power came back.
    pub(super) fn plug_in(&self) -> Plugged {
        let mut inner = self.inner.lock().unwrap();
        inner.cycle += 1;
        inner.fuse = None;
        let mut dice = Dice(inner.seed * 31 + inner.cycle);
        for change in std::mem::take(&mut inner.unsynced) {
            if dice.one_in(2) {
                apply(&mut inner.durable, change);
            }
        }
        inner.visible = inner.durable.clone();
        Plugged { disk: self.clone(), cycle: inner.cycle }
    }

    /// The power fails after so many calls.
    pub(super) fn light(&self, fuse: u64) {
        self.inner.lock().unwrap().fuse = Some(fuse);
    }
}

fn apply(bytes: &mut Vec<u8>, change: Unsynced) {
    match change {
        Unsynced::Length(length) => bytes.resize(length, 0),
        Unsynced::Write { offset, bytes: written } => {
            // The file's length may have been lost with another call.
            if bytes.len() < offset + written.len() {
                bytes.resize(offset + written.len(), 0);
            }
            bytes[offset..offset + written.len()].copy_from_slice(&written);
        }
    }
}

impl Plugged {
    fn inner(&self) -> io::Result<std::sync::MutexGuard<'_, Inner>> {
        let inner = self.disk.inner.lock().unwrap();
        if inner.cycle != self.cycle || inner.fuse == Some(0) {
            return Err(io::Error::other("no power"));
        }
        Ok(inner)
    }

    fn changing(&self) -> io::Result<std::sync::MutexGuard<'_, Inner>> {
        let mut inner = self.inner()?;
        if let Some(fuse) = &mut inner.fuse {
            *fuse -= 1;
        }
        Ok(inner)
    }
}

impl redb::StorageBackend for Plugged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner()?.visible.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner()?;
        let bytes = inner.visible.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::other("beyond the end"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.changing()?;
        inner.visible.resize(len as usize, 0);
        inner.unsynced.push(Unsynced::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.changing()?;
        inner.unsynced.clear();
        inner.durable = inner.visible.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.changing()?;
        let offset = offset as usize;
        inner.visible[offset..offset + data.len()].copy_from_slice(data);
        inner.unsynced.push(Unsynced::Write { offset, bytes: data.to_vec() });
        Ok(())
    }
}

#[test]
fn a_power_cut_loses_only_what_the_log_brings_back() {
    let mut cuts = 0;
    for seed in 1..=60 {
        let mut dice = Dice(seed);
        let disk = Disk::new(seed);
        let open = |disk: &Disk| RedbBackend::open(disk.plug_in(), 1 << 16).unwrap();
        let mut quiet = Node::new();
        let mut log = Vec::new();
        let mut store = Store::create(open(&disk), initial()).unwrap();
        let mut flushed = Index(0);
        disk.light(5 + dice.roll(120));
        let mut index = 0;
        while index < 80 {
            index += 1;
            let command = command(&mut dice, quiet.store.revision());
            let _ = quiet.run(&command);
            log.push(entry(index, &command));
            let applied = store.apply(&log[index as usize - 1..]).map(drop);
            let went_on = applied.and_then(|()| {
                store.compact_step(2)?;
                if dice.one_in(4) {
                    flushed = store.flush()?;
                }
                Ok(())
            });
            if went_on.is_ok() {
                continue;
            }
            cuts += 1;
            assert!(store.failure().is_some());
            assert!(matches!(store.flush(), Err(StoreError::Broken(_))), "a failure is final");
            drop(store);
            store = Store::open(open(&disk)).unwrap();
            let found = store.applied().index;
            assert!(flushed <= found && found <= Index(index), "seed {seed}: {found} of {index}");
            assert!(store.compact_revision() <= store.revision());
            store.apply(&log[found.0 as usize..]).unwrap();
            assert_eq!(store.hash_kv(0), quiet.store.hash_kv(0), "seed {seed}, entry {index}");
            assert_eq!(store.revision(), quiet.store.revision());
            flushed = found;
            disk.light(5 + dice.roll(120));
        }
    }
    assert!(100 < cuts, "{cuts} power cuts test little");
}

#[test]
fn a_power_cut_in_a_restore_leaves_nothing_to_be_taken_for_a_state() {
    let mut node = Node::new();
    for number in 0..40 {
        node.put(&format!("k{number}"), &"v".repeat(200_000));
    }
    let snapshot = node.store.snapshot().unwrap();
    let mut whole = false;
    let mut fuse = 1;
    while !whole {
        let disk = Disk::new(fuse);
        let mut backend = RedbBackend::open(disk.plug_in(), 1 << 16).unwrap();
        disk.light(fuse);
        let mut reader = snapshot.reader();
        let outcome = restore(&mut backend, NodeId(1), || Ok(reader.read(100_000).unwrap()));
        drop(backend);
        let opened = Store::open(RedbBackend::open(disk.plug_in(), 1 << 16).unwrap());
        match opened {
            Ok(store) => {
                assert_eq!(store.hash_kv(0), node.store.hash_kv(0), "cut after {fuse} calls");
                whole = outcome.is_ok();
            }
            Err(StoreError::Missing | StoreError::Incomplete) => {
                assert!(outcome.is_err(), "cut after {fuse} calls");
            }
            Err(error) => panic!("cut after {fuse} calls: {error}"),
        }
        fuse += 1 + fuse / 3;
    }
}
