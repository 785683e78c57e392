//! An application whose disk fails once.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_gometa::{ActionError, ActionHandler, MemoryActions};
use quorate_zab::{Address, Command, Entry, Epoch, Zxid};

/// Its disk fails once, when it is told to.
#[derive(Default)]
pub(crate) struct Failing {
    pub(crate) memory: MemoryActions,
    pub(crate) fails: AtomicBool,
}

impl ActionHandler for Failing {
    fn accepted_epoch(&self) -> Result<(Epoch, Option<Address>), ActionError> {
        self.memory.accepted_epoch()
    }
    fn current_epoch(&self) -> Result<Epoch, ActionError> {
        self.memory.current_epoch()
    }
    fn last_logged_txid(&self) -> Result<Zxid, ActionError> {
        self.memory.last_logged_txid()
    }
    fn last_committed_txid(&self) -> Result<Zxid, ActionError> {
        self.memory.last_committed_txid()
    }
    fn committed_entries(
        &self,
        after: Zxid,
        last: Zxid,
        bytes_max: u64,
    ) -> Result<Vec<(Zxid, Command)>, ActionError> {
        self.memory.committed_entries(after, last, bytes_max)
    }
    fn notify_new_accepted_epoch(&self, epoch: Epoch, leader: &Address) -> Result<(), ActionError> {
        self.memory.notify_new_accepted_epoch(epoch, leader)
    }
    fn notify_new_current_epoch(&self, epoch: Epoch) -> Result<(), ActionError> {
        self.memory.notify_new_current_epoch(epoch)
    }
    fn log_proposal(&self, entries: &[Entry]) -> Result<(), ActionError> {
        match self.fails.swap(false, Ordering::SeqCst) {
            true => Err("disk full".into()),
            false => self.memory.log_proposal(entries),
        }
    }
    fn replace_tail(&self, after: Zxid, entries: &[Entry]) -> Result<(), ActionError> {
        self.memory.replace_tail(after, entries)
    }
    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError> {
        self.memory.commit(entries)
    }
}
