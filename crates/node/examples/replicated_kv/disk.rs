//! What one node keeps: the durable log, the file of the latest snapshot, and in memory what the
//! engine reads of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_codec::{
    decode_hard_state_record, encode_hard_state_record, from_log_entry, from_mark, to_log_entry,
    to_mark,
};
use quorate_raft::{MemoryStorage, Ready, Snapshot, Storage, StorageError};
use quorate_types::{GroupId, Index, Mark, NodeId};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};

use crate::Result;
use crate::machine::State;

/// Entries that stay in memory behind a snapshot, for followers that are a little late.
const KEPT_ENTRIES: u64 = 100;

pub(crate) struct Disk {
    dir: PathBuf,
    wal: Wal,
    pub(crate) log: MemoryStorage,
}

impl Disk {
    /// Opens what is in `dir`; says whether this node was never started.
    pub(crate) fn open(dir: &Path, id: NodeId) -> Result<(Disk, bool)> {
        std::fs::create_dir_all(dir)?;
        let (disk, place) = (Arc::new(RealDisk), dir.join("log"));
        let options = Options { segment_bytes: 4 << 20 };
        let identity = Identity { cluster: 1, node: id, group: GroupId(1), ..Identity::default() };
        if !Wal::exists(&*disk, &place)? {
            Wal::create(disk.clone(), &place, identity, options.clone(), &Mark::default(), None)?;
        }
        let (wal, found) = Wal::open(disk, &place, options, &mut |_, _| {})?;
        if found.identity != identity {
            return Err(format!("{} belongs to {}", dir.display(), found.identity).into());
        }
        let is_new = found.hard_state.is_none() && found.mark.index == Index(0);

        // The mark that starts the log says which snapshot counts.
        let metadata = from_mark(found.mark)?;
        let data = match metadata.index {
            Index(0) => Bytes::new(),
            index => std::fs::read(snapshot_file(dir, index))?.into(),
        };
        let log = MemoryStorage::new();
        log.apply_snapshot(Snapshot { data, metadata })?;
        for entry in found.entries {
            log.append(&[from_log_entry(entry)?])?;
        }
        if let Some(record) = found.hard_state {
            log.set_hard_state(decode_hard_state_record(record)?);
        }
        Ok((Disk { dir: dir.to_owned(), wal, log }, is_new))
    }

    /// Where the latest snapshot stands.
    pub(crate) fn snapshot_index(&self) -> Result<Index> {
        Ok(self.log.snapshot()?.metadata.index)
    }

    /// Does what a Ready says, durably and then for the engine to read.
    pub(crate) fn save(&mut self, ready: &Ready) -> Result<()> {
        let before = self.snapshot_index()?;
        if let Some(snapshot) = &ready.snapshot {
            self.write_snapshot(snapshot)?; // before the log says that it counts
        }
        let write = Write {
            hard_state: ready.hard_state.as_ref().map(encode_hard_state_record),
            cut_from: None,
            entries: ready.entries.iter().map(to_log_entry).collect(),
            install: ready.snapshot.as_ref().map(|snapshot| to_mark(&snapshot.metadata)),
            must_sync: ready.must_sync,
        };
        if !write.is_empty() {
            self.wal.append(&[write])?;
        }
        if let Some(snapshot) = &ready.snapshot {
            self.log.apply_snapshot(snapshot.clone())?;
            self.remove_snapshot(before);
        }
        self.log.append(&ready.entries)?;
        if let Some(hard_state) = ready.hard_state {
            self.log.set_hard_state(hard_state);
        }
        Ok(())
    }

    /// Lets a snapshot of `state` stand for the log up to there.
    pub(crate) fn compact(&mut self, state: &State) -> Result<()> {
        let (before, applied) = (self.snapshot_index()?, state.applied.index);
        let (members, data) = (Some(state.conf_state.clone()), state.to_text().into());
        let snapshot = self.log.create_snapshot(applied, members, data)?;
        self.write_snapshot(&snapshot)?;
        self.wal.compact(&to_mark(&snapshot.metadata))?;
        self.remove_snapshot(before);
        match self.log.compact(Index(applied.0.saturating_sub(KEPT_ENTRIES))) {
            Ok(()) | Err(StorageError::Compacted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        let file = snapshot_file(&self.dir, snapshot.metadata.index);
        std::fs::write(&file, &snapshot.data)?;
        std::fs::File::open(&file)?.sync_all()?;
        Ok(std::fs::File::open(&self.dir)?.sync_all()?)
    }

    fn remove_snapshot(&self, index: Index) {
        // One that is left behind does no harm.
        let _ = std::fs::remove_file(snapshot_file(&self.dir, index));
    }
}

fn snapshot_file(dir: &Path, index: Index) -> PathBuf {
    dir.join(format!("snapshot-{index}"))
}
