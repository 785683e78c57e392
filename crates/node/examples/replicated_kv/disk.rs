//! What one node keeps: the durable log, the file of the latest snapshot, and in memory what the
//! engine reads of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_codec::{
    decode_hard_state_record, encode_hard_state_record, from_log_entry, from_mark, to_log_entry,
    to_mark,
};
use quorate_raft::{MemoryStorage, Ready, Snapshot, SnapshotMetadata, StorageError};
use quorate_types::{GroupId, Index, Mark, NodeId};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};

use crate::Result;
use crate::machine::State;

/// Entries that stay in memory behind a snapshot, for followers that are a little late.
const KEPT_ENTRIES: u64 = 100;

pub(crate) struct Disk {
    wal: Wal,
    pub(crate) log: MemoryStorage,
    pub(crate) snapshot: StoredSnapshot,
}

/// The file of a snapshot. The mark that starts the log says which one counts.
pub(crate) struct StoredSnapshot {
    dir: PathBuf,
    pub(crate) index: Index,
    metadata: SnapshotMetadata,
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
        let metadata = from_mark(found.mark)?;
        let snapshot = StoredSnapshot { dir: dir.to_owned(), index: metadata.index, metadata };

        let log = MemoryStorage::new();
        log.apply_snapshot(snapshot.read()?)?;
        let entries = found.entries.into_iter().map(from_log_entry);
        log.append(&entries.collect::<std::result::Result<Vec<_>, _>>()?)?;
        if let Some(record) = found.hard_state {
            log.set_hard_state(decode_hard_state_record(record)?);
        }
        Ok((Disk { wal, log, snapshot }, is_new))
    }

    /// Does what a Ready says, durably and then for the engine to read.
    pub(crate) fn save(&mut self, ready: &Ready) -> Result<()> {
        if let Some(snapshot) = &ready.snapshot {
            self.snapshot.write(snapshot)?; // before the log says that it counts
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
            self.snapshot.replace(snapshot);
        }
        self.log.append(&ready.entries)?;
        if let Some(hard_state) = ready.hard_state {
            self.log.set_hard_state(hard_state);
        }
        Ok(())
    }

    /// Lets a snapshot of `state` stand for the log up to there.
    pub(crate) fn compact(&mut self, state: &State) -> Result<()> {
        let (applied, data) = (state.applied.index, Bytes::from(state.to_text()));
        let snapshot = self.log.create_snapshot(applied, Some(state.conf_state.clone()), data)?;
        self.snapshot.write(&snapshot)?;
        self.wal.compact(&to_mark(&snapshot.metadata))?;
        self.snapshot.replace(&snapshot);
        let kept = Index(applied.0.saturating_sub(KEPT_ENTRIES));
        match self.log.compact(kept) {
            Ok(()) | Err(StorageError::Compacted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl StoredSnapshot {
    fn file(&self, index: Index) -> PathBuf {
        self.dir.join(format!("snapshot-{index}"))
    }

    pub(crate) fn read(&self) -> Result<Snapshot> {
        let data = match self.index {
            Index(0) => Bytes::new(),
            index => std::fs::read(self.file(index))?.into(),
        };
        Ok(Snapshot { data, metadata: self.metadata.clone() })
    }

    fn write(&self, snapshot: &Snapshot) -> Result<()> {
        let file = self.file(snapshot.metadata.index);
        std::fs::write(&file, &snapshot.data)?;
        std::fs::File::open(&file)?.sync_all()?;
        Ok(std::fs::File::open(&self.dir)?.sync_all()?)
    }

    /// The log counts on `snapshot` now; the file before it may go.
    fn replace(&mut self, snapshot: &Snapshot) {
        let before = self.file(self.index);
        self.metadata = snapshot.metadata.clone();
        self.index = snapshot.metadata.index;
        let _ = std::fs::remove_file(before);
    }
}
