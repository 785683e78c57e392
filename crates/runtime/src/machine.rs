//! The machine's state as a file: made, opened, and replaced by a received snapshot.
//!
//! A new file is always built under another name, complete and synced, then renamed over the old
//! one; the directory is synced after that. So the name stands for a whole state at every moment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_kv::{
    BackendError, Founding, Initial, RedbBackend, SnapshotContents, SnapshotReader, Store,
    StoreError, View,
};
use quorate_net::SnapshotSource;
use quorate_raft::SnapshotMetadata;
use quorate_types::NodeId;
use redb::backends::FileBackend;

use crate::room::{Patient, Room};
use crate::snapshot::Chunks;

/// How often long work says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// Where the state of a member lives, and how it is opened.
#[derive(Debug)]
pub(crate) struct StateFile {
    pub(crate) path: PathBuf,
    /// Where received snapshots lie.
    pub(crate) snap_dir: PathBuf,
    /// Memory for pages of stored values.
    pub(crate) cache_bytes: usize,
    pub(crate) room: Arc<Room>,
    /// Held by whoever builds a new file: there is one name for those.
    pub(crate) building: Mutex<()>,
}

impl StateFile {
    /// Makes the state of a new member, in place of whatever unfinished one is there.
    pub(crate) fn create(&self, initial: Initial) -> Result<(), String> {
        let fresh = self.unfinished();
        remove(&fresh)?;
        let store = Store::create(self.backend(&fresh)?, initial).map_err(text)?;
        drop(store);
        self.put_in_place(&fresh).map_err(text)
    }

    /// Makes the state of a new member out of a snapshot of another cluster, of which `next` gives the
    /// pieces.
    pub(crate) fn found(
        &self,
        founding: &Founding,
        next: impl FnMut() -> io::Result<Bytes>,
    ) -> Result<SnapshotContents, String> {
        let fresh = self.unfinished();
        remove(&fresh)?;
        let mut backend = self.backend(&fresh)?;
        let contents = quorate_kv::refound(&mut backend, founding, next).map_err(text)?;
        drop(backend);
        self.put_in_place(&fresh).map_err(text)?;
        Ok(contents)
    }

    /// Moves the rows of a running store to a new file of the size they need. It takes as much space
    /// again as they do, until the old file goes.
    pub(crate) fn defragment(&self, store: &Store) -> Result<(), StoreError> {
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.room.is_running() {
            return Err(StoreError::Interrupted);
        }
        let failed = |why: String| StoreError::Backend(BackendError::Failed(why));
        let fresh = self.unfinished();
        remove(&fresh).map_err(failed)?;
        let is_in_use = Arc::new(AtomicBool::new(false));
        let backend = self.backend_in(&fresh, Arc::clone(&is_in_use)).map_err(failed)?;
        let mut progress = told_now_and_then("defragmenting the state");
        let mut go_on = |done, total| {
            progress(done, total);
            self.room.is_running()
        };
        let moved = store.defragment(backend, &mut go_on, || {
            is_in_use.store(true, Ordering::Release);
            self.put_in_place(&fresh)
        });
        if moved.is_err() && store.failure().is_none() {
            // What is left of it would be removed by the next one as well.
            let _ = remove(&fresh);
        }
        moved
    }

    /// Opens the state that is there.
    pub(crate) fn open(&self) -> Result<Store, String> {
        let mut progress = told_now_and_then("reading the state");
        Store::open_telling(self.backend(&self.path)?, &mut progress).map_err(text)
    }

    /// Opens the state that is there if it is that of a member of a cluster; that of another is left as it
    /// is.
    pub(crate) fn open_of(&self, node: NodeId, cluster: u64) -> Result<Store, String> {
        let mut progress = told_now_and_then("reading the state");
        let judge = |view: &dyn View| match quorate_kv::owner(view) {
            Some((found, of)) if (found, of) != (node, cluster) => {
                Err(BackendError::Failed(format!(
                    "it belongs to member {found:x} of cluster {of:x}, not to member {node:x} of \
                     cluster {cluster:x}; put the file of this member back"
                )))
            }
            // What cannot be read is told when it is read.
            Some(_) | None => Ok(()),
        };
        let backend = self.backend_if(&self.path, Arc::new(AtomicBool::new(true)), judge)?;
        Store::open_telling(backend, &mut progress).map_err(text)
    }

    /// Restores a received snapshot in place of the state, which nobody has open, and opens it.
    pub(crate) fn install(
        &self,
        node: NodeId,
        metadata: &SnapshotMetadata,
    ) -> Result<Store, String> {
        let fresh = self.restored(node, metadata)?;
        drop(fresh);
        self.put_in_place(&self.unfinished()).map_err(text)?;
        self.open()
    }

    /// Restores a received snapshot in place of the state of a running store. Readers of the old
    /// state finish on it.
    pub(crate) fn replace(
        &self,
        store: &Arc<Store>,
        metadata: &SnapshotMetadata,
    ) -> Result<(), String> {
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = self.restored(store.node(), metadata)?;
        // The open file goes with its name; a crash from here on finds either state whole.
        self.put_in_place(&self.unfinished()).map_err(text)?;
        store.replace(fresh).map_err(text).map(drop)
    }

    /// A received snapshot as a state under another name.
    fn restored(&self, node: NodeId, metadata: &SnapshotMetadata) -> Result<RedbBackend, String> {
        let fresh = self.unfinished();
        remove(&fresh)?;
        let mut backend = self.backend(&fresh)?;
        let mut chunks = self.room.open(|| Chunks::open(&self.snap_dir, metadata)).map_err(text)?;
        let total = chunks.len().map_err(text)?;
        let (mut done, mut progress) = (0, told_now_and_then("restoring a snapshot"));
        let next = || {
            let chunk = chunks.next()?;
            done += chunk.len() as u64;
            progress(done, total);
            Ok(chunk)
        };
        let applied = quorate_kv::restore(&mut backend, node, next).map_err(text)?;
        if applied.index != metadata.index {
            return Err(format!(
                "the received snapshot reaches index {}, its message said {}",
                applied.index, metadata.index
            ));
        }
        Ok(backend)
    }

    fn backend(&self, path: &Path) -> Result<RedbBackend, String> {
        self.backend_in(path, Arc::new(AtomicBool::new(true)))
    }

    /// `is_in_use` says from when on a full volume is waited out.
    fn backend_in(&self, path: &Path, is_in_use: Arc<AtomicBool>) -> Result<RedbBackend, String> {
        self.backend_if(path, is_in_use, |_| Ok(()))
    }

    fn backend_if(
        &self,
        path: &Path,
        is_in_use: Arc<AtomicBool>,
        judge: impl FnOnce(&dyn View) -> Result<(), BackendError>,
    ) -> Result<RedbBackend, String> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = self.room.open(|| options.open(path)).map_err(text)?;
        let storage = FileBackend::new(file).map_err(text)?;
        let room = Arc::clone(&self.room);
        let storage = Patient { storage, room, is_in_use };
        RedbBackend::open_if(storage, self.cache_bytes, judge).map_err(text)
    }

    fn unfinished(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    fn put_in_place(&self, fresh: &Path) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        // Both before anything is done: a failed sync cannot be tried again.
        let (file, names) = self.room.open(|| Ok((File::open(fresh)?, File::open(directory)?)))?;
        file.sync_all()?;
        fs::rename(fresh, &self.path)?;
        names.sync_all()
    }
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(text(error)),
        _ => Ok(()),
    }
}

/// Says every two seconds how many bytes of how many are done of something that may take long.
pub(crate) fn told_now_and_then(what: &'static str) -> impl FnMut(u64, u64) {
    let mut told = Instant::now();
    move |done, total| {
        if TOLD_EVERY <= told.elapsed() {
            told = Instant::now();
            let percent = done.saturating_mul(100) / total.max(1);
            tracing::info!(done_bytes = done, total_bytes = total, "{what}: {percent} %");
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The machine's state as the transport reads it.
pub(crate) struct Reading {
    reader: SnapshotReader,
}

impl Reading {
    pub(crate) fn new(reader: SnapshotReader) -> Self {
        Reading { reader }
    }
}

impl SnapshotSource for Reading {
    fn read(&mut self, max: usize) -> io::Result<Bytes> {
        self.reader.read(max).map_err(io::Error::other)
    }
}
