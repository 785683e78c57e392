//! A gate closes once, and everybody who waits at it learns so.

use tokio::sync::watch;

#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate(watch::Sender::new(false))
    }

    pub(crate) fn close(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the gate is closed, at once if it already is. May be dropped at any time.
    pub(crate) async fn closed(&self) {
        // It fails only without a sender, and `self` is one.
        let _ = self.0.subscribe().wait_for(|closed| *closed).await;
    }
}
