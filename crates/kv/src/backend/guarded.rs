//! Storage that is not changed before what it holds was found sound: until then changes are remembered,
//! and seen by who reads. Lifting the guard makes them, in their order, with the syncs between them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The storage below, with its length at hand. Clones share it.
#[derive(Debug)]
pub(super) struct Guarded<S>(Arc<Inner<S>>);

#[derive(Debug)]
struct Inner<S> {
    storage: S,
    size_bytes: Arc<AtomicU64>,
    /// Whether changes go through. Never back to false.
    is_lifted: AtomicBool,
    held_back: Mutex<HeldBack>,
}

/// What is still to be done below. Few and short: opening writes little.
#[derive(Debug)]
struct HeldBack {
    changes: Vec<Change>,
    /// How long the storage is below.
    below_bytes: u64,
}

#[derive(Debug)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
    Sync,
}

impl<S> Clone for Guarded<S> {
    fn clone(&self) -> Self {
        Guarded(Arc::clone(&self.0))
    }
}

impl<S: StorageBackend> Guarded<S> {
    pub(super) fn new(storage: S) -> io::Result<Self> {
        let below_bytes = storage.len()?;
        Ok(Guarded(Arc::new(Inner {
            storage,
            size_bytes: Arc::new(AtomicU64::new(below_bytes)),
            is_lifted: AtomicBool::new(false),
            held_back: Mutex::new(HeldBack { changes: Vec::new(), below_bytes }),
        })))
    }

    /// The storage's length, kept up to date.
    pub(super) fn size_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.size_bytes)
    }

    /// Makes what was held back, and lets everything through from now on.
    pub(super) fn lift(&self) -> io::Result<()> {
        for change in self.held_back().changes.drain(..) {
            match change {
                Change::Length(bytes) => self.0.storage.set_len(bytes)?,
                Change::Write(offset, data) => self.0.storage.write(offset, &data)?,
                Change::Sync => self.0.storage.sync_data()?,
            }
        }
        self.0.is_lifted.store(true, Ordering::Release);
        Ok(())
    }

    fn is_lifted(&self) -> bool {
        self.0.is_lifted.load(Ordering::Acquire)
    }

    fn held_back(&self) -> MutexGuard<'_, HeldBack> {
        self.0.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldBack {
    /// What would be read at `offset` after all of the changes; the caller knows that it is there.
    fn read(&self, below: &impl StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.fill(0);
        let there = self.below_bytes.min(end).saturating_sub(offset) as usize;
        below.read(offset, &mut out[..there])?;
        for change in &self.changes {
            match change {
                // What is cut off and comes back reads as zeros.
                Change::Length(bytes) if *bytes < end => {
                    let cut = bytes.saturating_sub(offset) as usize;
                    out[cut..].fill(0);
                }
                Change::Write(at, data) => {
                    let (from, to) = (offset.max(*at), end.min(at + data.len() as u64));
                    if from < to {
                        let data = &data[(from - at) as usize..(to - at) as usize];
                        out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(data);
                    }
                }
                Change::Length(_) | Change::Sync => {}
            }
        }
        Ok(())
    }
}

impl<S: StorageBackend> StorageBackend for Guarded<S> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.size_bytes.load(Ordering::Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_lifted() {
            return self.0.storage.read(offset, out);
        }
        if self.len()? < offset.saturating_add(out.len() as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.held_back().read(&self.0.storage, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.is_lifted() {
            true => self.0.storage.set_len(len)?,
            false => self.held_back().changes.push(Change::Length(len)),
        }
        self.0.size_bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_lifted() {
            return self.0.storage.sync_data();
        }
        self.held_back().changes.push(Change::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is_lifted() {
            return self.0.storage.write(offset, data);
        }
        self.held_back().changes.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.storage.close()
    }
}
