//! A member's directory on its simulated disk: made, opened, and its state replaced by a received
//! one, in the order in which `runtime` does it with files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_codec as codec;
use quorate_kv::{RedbBackend, Store};
use quorate_raft::{ConfState, SnapshotMetadata};
use quorate_replica::{
    FIRST, Found, Initial, Start, first_conf_state, first_log, snapshot_at, start as decide,
};
use quorate_types::{EntryId, GroupId, Life, Mark, NodeId};
use quorate_wal::{Disk, DiskFile, Identity, Options, Recovered, Wal};

use crate::disk::{Rows, SimDisk, SimFile};
use crate::lives;
use crate::node::Node;
use crate::plan::Plan;

pub(crate) const LOG: &str = "/wal";
const STATE: &str = "/kv.redb";
const STATE_NEW: &str = "/kv.new";
pub(crate) const STARTED: &str = "/started";
const SNAP: &str = "/snap";
/// A snapshot that is being received.
pub(crate) const RECEIVING: &str = "/snap/receiving.tmp";

const CACHE_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// What storage gave back.
pub(crate) struct Started {
    pub(crate) wal: Wal,
    pub(crate) store: Store,
    pub(crate) initial: Initial,
    pub(crate) life: Life,
}

/// Opens the member's directory, or makes a new one.
pub(crate) fn start(node: &Node, plan: &Plan, seed: u64) -> Result<Started, String> {
    let disk = &node.disk;
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = Options { segment_bytes: node.segment_bytes };
    if !disk.exists(Path::new(SNAP)) {
        disk.create_dir(Path::new(SNAP)).map_err(text)?;
    }
    if !Wal::exists(disk, Path::new(LOG)).map_err(text)? {
        make_state(node, plan)?;
        let (mark, hard_state) = first_log(plan.engine);
        let (cluster, life) = (plan.cluster, Life(seed.max(1)));
        let identity = Identity { cluster, node: node.id, group: GroupId(1), life };
        let path = Path::new(LOG);
        Wal::create(Arc::clone(&shared), path, identity, options.clone(), &mark, Some(hard_state))
            .map_err(text)?;
    }
    let (wal, recovered) =
        Wal::open(shared, Path::new(LOG), options, &mut |_, _| {}).map_err(text)?;
    if recovered.identity.node != node.id || recovered.identity.cluster != plan.cluster {
        return Err("the log belongs to someone else".to_owned());
    }
    let store = open_state(node, plan, &recovered.mark)?;
    if !disk.exists(Path::new(STARTED)) {
        disk.create_file(Path::new(STARTED)).and_then(|file| file.sync_all()).map_err(text)?;
        sync_names(disk, "/").map_err(text)?;
    }
    let applied = store.applied();
    let life = recovered.identity.life;
    let Recovered { mark, hard_state, entries, .. } = recovered;
    let initial = Initial::recover(mark, hard_state, entries, applied.index, applied.conf_state)
        .map_err(text)?;
    remove_received(disk).map_err(text)?;
    Ok(Started { wal, store, initial, life })
}

fn make_state(node: &Node, plan: &Plan) -> Result<(), String> {
    let disk = &node.disk;
    let mut found = Found::default();
    if disk.exists(Path::new(STATE)) {
        found.applied = Some(open(disk)?.applied().index);
    }
    found.has_started = disk.exists(Path::new(STARTED));
    if let Start::LogMissing { applied } = decide(found) {
        return Err(format!("the log is missing; the state reaches {applied}"));
    }
    remove(disk, STATE_NEW).map_err(text)?;
    let initial = quorate_kv::Initial {
        node: node.id,
        cluster_id: plan.cluster,
        applied: FIRST.0,
        term: FIRST.1,
        conf_state: first_conf_state(node.voters_at_birth.clone()),
        members: node.voters_at_birth.iter().copied().map(lives::unpublished).collect(),
    };
    drop(Store::create(backend(disk, STATE_NEW, true)?, initial).map_err(text)?);
    put_in_place(disk).map_err(text)
}

fn open_state(node: &Node, plan: &Plan, mark: &Mark) -> Result<Store, String> {
    let disk = &node.disk;
    let mut found = Found { mark: Some(mark.index), has_started: true, ..Found::default() };
    if disk.exists(Path::new(STATE)) {
        let store = open(disk)?;
        if (store.node(), store.cluster_id()) != (node.id, plan.cluster) {
            return Err("the state belongs to someone else".to_owned());
        }
        found.applied = Some(store.applied().index);
        if decide(found) == Start::Replay {
            return Ok(store);
        }
    }
    let EntryId { index, term } = snapshot_at(mark, plan.engine);
    let metadata = SnapshotMetadata { index, term, conf_state: ConfState::default() };
    if !disk.exists(received(&metadata)) {
        return Err(format!("the log begins after {}, and no snapshot is there", mark.index));
    }
    restore(disk, node.id, &metadata)?;
    put_in_place(disk).map_err(text)?;
    open(disk)
}

/// Restores a received snapshot in place of the state of a running store.
pub(crate) fn replace(
    disk: &SimDisk,
    store: &Store,
    metadata: &SnapshotMetadata,
) -> Result<(), String> {
    let fresh = restore(disk, store.node(), metadata)?;
    put_in_place(disk).map_err(text)?;
    store.replace(fresh).map_err(text).map(drop)
}

fn restore(
    disk: &SimDisk,
    node: NodeId,
    metadata: &SnapshotMetadata,
) -> Result<RedbBackend, String> {
    remove(disk, STATE_NEW).map_err(text)?;
    let mut fresh = backend(disk, STATE_NEW, true)?;
    let file = disk.open_file(&received(metadata)).map_err(text)?;
    let mut pieces = Pieces { file: &file, offset: 0 };
    let applied = quorate_kv::restore(&mut fresh, node, || pieces.next()).map_err(text)?;
    if applied.index != metadata.index {
        return Err(format!("the snapshot reaches {}, not {}", applied.index, metadata.index));
    }
    Ok(fresh)
}

/// Syncs and verifies what was received, and gives it its name.
pub(crate) fn finish_received(
    disk: &SimDisk,
    cluster: u64,
    file: &SimFile,
    metadata: &SnapshotMetadata,
) -> io::Result<()> {
    file.sync_all()?;
    let mut pieces = Pieces { file, offset: 0 };
    let (found, applied) = quorate_kv::verify(|| pieces.next()).map_err(io::Error::other)?;
    let conf_state =
        codec::decode_conf_state_record(applied.conf_state).map_err(io::Error::other)?;
    let held = SnapshotMetadata { conf_state, index: applied.index, term: applied.term };
    if (found, &held) != (cluster, metadata) {
        return Err(io::Error::other("it is not what its message says"));
    }
    disk.rename(Path::new(RECEIVING), &received(metadata))?;
    sync_names(disk, SNAP)
}

/// Removes every received snapshot.
pub(crate) fn remove_received(disk: &SimDisk) -> io::Result<()> {
    for name in disk.list(Path::new(SNAP))? {
        disk.remove(&Path::new(SNAP).join(name))?;
    }
    sync_names(disk, SNAP)
}

fn received(metadata: &SnapshotMetadata) -> PathBuf {
    Path::new(SNAP).join(format!("{:016x}-{:016x}.snap", metadata.index.0, metadata.term.0))
}

fn open(disk: &SimDisk) -> Result<Store, String> {
    Store::open(backend(disk, STATE, false)?).map_err(text)
}

fn backend(disk: &SimDisk, path: &str, creates: bool) -> Result<RedbBackend, String> {
    let rows = Rows::open(disk, Path::new(path), creates).map_err(text)?;
    RedbBackend::open(rows, CACHE_BYTES).map_err(text)
}

fn put_in_place(disk: &SimDisk) -> io::Result<()> {
    disk.open_file(Path::new(STATE_NEW))?.sync_all()?;
    disk.rename(Path::new(STATE_NEW), Path::new(STATE))?;
    sync_names(disk, "/")
}

fn sync_names(disk: &SimDisk, dir: &str) -> io::Result<()> {
    disk.open_dir(Path::new(dir))?.sync()
}

fn remove(disk: &SimDisk, path: &str) -> io::Result<()> {
    match disk.remove(Path::new(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A file in pieces.
struct Pieces<'a> {
    file: &'a SimFile,
    offset: u64,
}

impl Pieces<'_> {
    fn next(&mut self) -> io::Result<Bytes> {
        let mut buffer = vec![0; PIECE_BYTES];
        let read = self.file.read_at(&mut buffer, self.offset)?;
        self.offset += read as u64;
        buffer.truncate(read);
        Ok(Bytes::from(buffer))
    }
}
