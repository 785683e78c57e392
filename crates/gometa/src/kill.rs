//! One switch that ends everything it was given to.

use std::sync::Arc;

use tokio::sync::watch;

/// A switch that ends a run, whatever it is doing. Clones are the same switch; throwing it again
/// does nothing, and it can be thrown before the run has begun. gometa's `killch`.
#[derive(Clone, Debug)]
pub struct Kill(Arc<watch::Sender<bool>>);

impl Kill {
    /// A switch that was not thrown.
    pub fn new() -> Self {
        Kill(Arc::new(watch::Sender::new(false)))
    }

    /// Throws it.
    pub fn kill(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was thrown.
    pub fn is_killed(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is thrown.
    pub async fn killed(&self) {
        // The sender lives in `self`, so this ends only when the switch is thrown.
        let _ = self.0.subscribe().wait_for(|is_killed| *is_killed).await;
    }
}

impl Default for Kill {
    fn default() -> Self {
        Self::new()
    }
}
