//! The machine's state as a file: made, opened, and replaced by a received snapshot.
//!
//! A new file is always built under another name, complete and synced, then renamed over the old
//! one; the directory is synced after that. So the name stands for a whole state at every moment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_kv::{Initial, RedbBackend, SnapshotReader, Store};
use quorate_net::SnapshotSource;
use quorate_raft::SnapshotMetadata;
use quorate_types::{Index, NodeId, Term};
use redb::backends::FileBackend;

use crate::node::NodeConfig;
use crate::room::{Patient, Room};
use crate::snapshot::Chunks;

/// How often long work says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// Makes the state of a new member of a new cluster, in place of whatever unfinished one is there.
pub(crate) fn create(
    path: &Path,
    config: &NodeConfig,
    room: &Arc<Room>,
    conf_state: Bytes,
) -> Result<(), String> {
    let fresh = unfinished(path);
    remove(&fresh)?;
    let initial = Initial {
        node: config.node,
        cluster_id: config.cluster,
        // The first place of every log: all members begin with the same state.
        applied: Index(1),
        term: Term(1),
        conf_state,
        members: config.members.clone(),
    };
    let store = Store::create(backend(&fresh, config.cache_bytes, room)?, initial).map_err(text)?;
    drop(store);
    put_in_place(&fresh, path, room).map_err(text)
}

/// Opens the state that is there.
pub(crate) fn open(path: &Path, cache_bytes: usize, room: &Arc<Room>) -> Result<Store, String> {
    let mut progress = told_now_and_then("reading the state");
    Store::open_telling(backend(path, cache_bytes, room)?, &mut progress).map_err(text)
}

/// Restores a received snapshot in place of the state, which nobody has open, and opens it.
pub(crate) fn install(
    node: NodeId,
    path: &Path,
    snap_dir: &Path,
    metadata: &SnapshotMetadata,
    cache_bytes: usize,
    room: &Arc<Room>,
) -> Result<Store, String> {
    let fresh = restored(node, path, snap_dir, metadata, cache_bytes, room)?;
    drop(fresh);
    put_in_place(&unfinished(path), path, room).map_err(text)?;
    open(path, cache_bytes, room)
}

/// Restores a received snapshot in place of the state of a running store. Readers of the old state
/// finish on it.
pub(crate) fn replace(
    store: &Arc<Store>,
    path: &Path,
    snap_dir: &Path,
    metadata: &SnapshotMetadata,
    cache_bytes: usize,
    room: &Arc<Room>,
) -> Result<(), String> {
    let fresh = restored(store.node(), path, snap_dir, metadata, cache_bytes, room)?;
    // The open file goes with its name; a crash from here on finds either state whole.
    put_in_place(&unfinished(path), path, room).map_err(text)?;
    store.replace(fresh).map_err(text).map(drop)
}

fn restored(
    node: NodeId,
    path: &Path,
    snap_dir: &Path,
    metadata: &SnapshotMetadata,
    cache_bytes: usize,
    room: &Arc<Room>,
) -> Result<RedbBackend, String> {
    let fresh = unfinished(path);
    remove(&fresh)?;
    let mut backend = backend(&fresh, cache_bytes, room)?;
    let mut chunks = room.open(|| Chunks::open(snap_dir, metadata)).map_err(text)?;
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

fn backend(path: &Path, cache_bytes: usize, room: &Arc<Room>) -> Result<RedbBackend, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = room.open(|| options.open(path)).map_err(text)?;
    let storage = FileBackend::new(file).map_err(text)?;
    let room = Arc::clone(room);
    RedbBackend::open(Patient { storage, room }, cache_bytes).map_err(text)
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(text(error)),
        _ => Ok(()),
    }
}

fn put_in_place(fresh: &Path, path: &Path, room: &Room) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    // Both before anything is done: a failed sync cannot be tried again.
    let (file, names) = room.open(|| Ok((File::open(fresh)?, File::open(directory)?)))?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    names.sync_all()
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
