//! The data directory of a member of a new cluster, made of a saved snapshot of an old one.
//!
//! ```text
//! part.rs: state, then log, all durable ─► <data-dir>
//! ```
//! The directory gets its name when it is whole, so what has the name can be started. One that is there, and
//! empty, gets the log first and the state last: with one and not the other no member starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use quorate_kv::{Founding, Member};
use quorate_replica::{Engine, FIRST, first_conf_state, first_log};
use quorate_types::NodeId;
use quorate_wal::{Identity, Options, RealDisk, Wal};

use crate::machine::StateFile;
use crate::metrics::Metrics;
use crate::part::{self, Part};
use crate::room::Room;
use crate::snapshot::{SavedError, SavedFile, SavedStatus, sync_directory};
use crate::start::{GROUP, Layout, STATE_FILE, draw_life};

/// Memory for pages while a state is made.
const CACHE_BYTES: usize = 64 << 20;

/// What is to be made of a saved snapshot.
#[derive(Clone, Debug)]
pub struct RestoreConfig {
    /// The member.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: u64,
    /// What orders its writes.
    pub engine: Engine,
    /// The members of that cluster, this one among them.
    pub members: Vec<Member>,
    /// The directory; it must be empty or not be there.
    pub data_dir: PathBuf,
    /// Added to the current revision.
    pub bump_revision: u64,
    /// Whether all history counts as compacted.
    pub mark_compacted: bool,
}

/// Makes a data directory of a saved snapshot, from which a member of a new cluster starts. The file is
/// checked whole before anything is made. `progress` hears how many bytes of how many are done.
///
/// # Errors
///
/// See [`SavedError`]. After one, the directory is as it was.
///
/// Source: etcd's `snapshot restore`.
pub fn restore_saved(
    file: &Path,
    config: &RestoreConfig,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SavedStatus, SavedError> {
    let directory = &config.data_dir;
    let failed = |what| {
        let path = directory.clone();
        move |error| SavedError::Io { what, path, error }
    };
    part::remove_abandoned(directory);
    if !is_free(directory).map_err(failed("cannot read"))? {
        return Err(SavedError::NotEmpty { path: directory.clone() });
    }
    let mut saved = SavedFile::open(file)?;
    let total = 2 * saved.file_bytes;
    saved.check(&mut |done| progress(done, total))?;
    let part = Part::directory(directory).map_err(failed("cannot make"))?;
    let status = make(&mut saved, part.path(), config, &mut |done| progress(done, total))?;
    part.keep_directory(STATE_FILE).map_err(failed("cannot make"))?;
    progress(total, total);
    Ok(status)
}

fn make(
    saved: &mut SavedFile,
    part: &Path,
    config: &RestoreConfig,
    progress: &mut dyn FnMut(u64),
) -> Result<SavedStatus, SavedError> {
    let unmade = |error: &dyn std::fmt::Display| SavedError::Io {
        what: "cannot make",
        path: config.data_dir.clone(),
        error: io::Error::other(error.to_string()),
    };
    let layout = Layout::new(part);
    let room = Arc::new(Room::new(Arc::new(Metrics::default())));
    let state_file = StateFile {
        path: layout.kv.clone(),
        snap_dir: layout.snap.clone(),
        cache_bytes: CACHE_BYTES,
        room,
        building: Mutex::default(),
    };
    let voters = config.members.iter().map(|member| NodeId(member.id)).collect();
    let founding = Founding {
        initial: quorate_kv::Initial {
            node: config.node,
            cluster_id: config.cluster,
            applied: FIRST.0,
            term: FIRST.1,
            conf_state: first_conf_state(voters),
            members: config.members.clone(),
        },
        bump_revision: config.bump_revision,
        mark_compacted: config.mark_compacted,
    };
    let mut done = saved.file_bytes;
    let mut outcome = None;
    saved.stream(|next| {
        let made = state_file.found(&founding, || {
            let piece = next()?;
            done += piece.len() as u64;
            progress(done);
            Ok(piece)
        });
        outcome = Some(made);
        Ok(())
    })?;
    let contents = outcome.expect("the stream was read").map_err(|why| unmade(&why))?;

    let identity =
        Identity { cluster: config.cluster, node: config.node, group: GROUP, life: draw_life() };
    let (first, hard_state) = first_log(config.engine);
    let disk = Arc::new(RealDisk);
    Wal::create(disk, &layout.wal, identity, Options::default(), &first, Some(hard_state))
        .map_err(|error| unmade(&error))?;
    sync_directory(part).map_err(|error| unmade(&error))?;
    Ok(SavedStatus { hash: saved.hash, contents, file_bytes: saved.file_bytes })
}

/// Whether nothing is there.
fn is_free(directory: &Path) -> io::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
