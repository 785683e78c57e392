//! Saved snapshots: what is in one, and a data directory made of it.

use std::path::Path;

use quorate_kv::Member;
pub use quorate_runtime::{Part, SavedError, SavedStatus, inspect_open, inspect_saved};
use quorate_runtime::{RestoreConfig, restore_saved};
use quorate_types::Life;

use crate::config::Config;
use crate::identity::{self, IdentityError};
use crate::urls::Url;

/// Why no data directory was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The settings name no member of a new cluster.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The settings are those of a member that joins a cluster.
    #[error("what is restored begins a new cluster: leave out --initial-cluster-state existing")]
    Joins,
    /// The file or the directory.
    #[error(transparent)]
    Saved(#[from] SavedError),
}

/// How a state begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anew {
    /// Added to the current revision, so that no client of the old cluster has seen a higher one.
    pub bump_revision: u64,
    /// Whether all history counts as compacted, so that watchers of the old cluster start anew.
    pub mark_compacted: bool,
}

/// Makes the data directory of a member of a new cluster out of a saved snapshot. `config` is what the
/// member will be started with. Answers what was in the file.
///
/// # Errors
///
/// See [`RestoreError`]. Nothing is left behind after one.
pub fn restore(
    file: &Path,
    config: &Config,
    anew: Anew,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SavedStatus, RestoreError> {
    let identity = identity::settle(config, None)?.ok_or(RestoreError::Joins)?;
    let text = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect();
    let members = identity.members.iter().map(|member| Member {
        id: member.id.0,
        // As in any new cluster: names come with the members' own word that they have started.
        name: String::new(),
        peer_urls: text(&member.peer_urls),
        client_urls: Vec::new(),
        is_learner: false,
        life: Life::NONE,
        ..Member::default()
    });
    let restore = RestoreConfig {
        node: identity.node,
        cluster: identity.cluster,
        engine: config.engine,
        members: members.collect(),
        data_dir: config.data_dir.clone(),
        bump_revision: anew.bump_revision,
        mark_compacted: anew.mark_compacted,
    };
    Ok(restore_saved(file, &restore, progress)?)
}
