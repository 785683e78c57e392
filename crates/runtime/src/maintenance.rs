//! What an operator asks of the state of a running node.

use std::sync::Arc;

use quorate_kv::{BackendError, StoreError};

use crate::node::Node;
use crate::snapshot::Saving;

/// Why an operator's request was not carried out. The node goes on as before, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceError {
    /// The node is stopping, or has stopped.
    #[error("the node is stopping")]
    Stopped,
    /// The disk did not do it.
    #[error("{0}; is there as much space on the volume of the state as the state takes?")]
    Disk(String),
    /// The state cannot be read; the node stops.
    #[error("{0}")]
    State(String),
}

impl Node {
    /// Rewrites the file of the state in the size it needs. Reads and changes go on; changes wait when
    /// too many of them gather meanwhile. Two at a time run one after the other.
    ///
    /// The new file is whole and durable before it takes the name of the old one, so a crash at any
    /// moment leaves one of the two.
    ///
    /// # Errors
    ///
    /// See [`MaintenanceError`].
    ///
    /// Source: etcd's `Defragment`.
    pub async fn defragment(&self) -> Result<(), MaintenanceError> {
        let inner = Arc::clone(&self.inner);
        on_a_thread(move || {
            // Nothing is written after the last thread has let the directory go.
            let Some(_lock) = inner.lock.upgrade() else { return Err(MaintenanceError::Stopped) };
            inner.state_file.defragment(&inner.store).map_err(refusal)
        })
        .await
    }

    /// The state as of now, for a file of an operator's. It holds the state of that moment for as long
    /// as it is held itself.
    ///
    /// # Errors
    ///
    /// See [`MaintenanceError`].
    ///
    /// Source: etcd's `Snapshot`.
    pub async fn save(&self) -> Result<Saving, MaintenanceError> {
        let store = self.store();
        on_a_thread(move || Saving::begin(&store).map_err(refusal)).await
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MaintenanceError> + Send + 'static,
) -> Result<T, MaintenanceError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(MaintenanceError::Stopped))
}

fn refusal(error: StoreError) -> MaintenanceError {
    match error {
        StoreError::Interrupted => MaintenanceError::Stopped,
        StoreError::Backend(BackendError::Failed(why)) => MaintenanceError::Disk(why),
        error => MaintenanceError::State(error.to_string()),
    }
}
