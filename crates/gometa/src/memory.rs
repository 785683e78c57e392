//! An application in memory: for watchers, which may begin anew each time, and for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_zab::{Address, Command, Entry, Epoch, Op, Zxid};

use crate::{ActionError, ActionHandler};

/// A log and a map of keys in memory. A voter must not run on one: it forgets its promises with the
/// process, and another one of them could lead with an epoch that is already taken.
#[derive(Debug, Default)]
pub struct MemoryActions {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    accepted: (Epoch, Option<Address>),
    current: Epoch,
    log: BTreeMap<Zxid, Command>,
    committed: Zxid,
    map: BTreeMap<String, Bytes>,
    /// The ids of what was applied, in that order.
    applied: Vec<Zxid>,
}

impl MemoryActions {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What stands under a key.
    pub fn value(&self, key: &str) -> Option<Bytes> {
        self.kept().map.get(key).cloned()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.kept().map.len()
    }

    /// The ids of all transactions that were applied, in the order they were.
    pub fn applied(&self) -> Vec<Zxid> {
        self.kept().applied.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActionHandler for MemoryActions {
    fn accepted_epoch(&self) -> Result<(Epoch, Option<Address>), ActionError> {
        Ok(self.kept().accepted.clone())
    }

    fn current_epoch(&self) -> Result<Epoch, ActionError> {
        Ok(self.kept().current)
    }

    fn last_logged_txid(&self) -> Result<Zxid, ActionError> {
        Ok(self.kept().log.keys().next_back().copied().unwrap_or_default())
    }

    fn last_committed_txid(&self) -> Result<Zxid, ActionError> {
        Ok(self.kept().committed)
    }

    fn committed_entries(
        &self,
        after: Zxid,
        last: Zxid,
        bytes_max: u64,
    ) -> Result<Vec<(Zxid, Command)>, ActionError> {
        let mut bytes = 0;
        let mut found = Vec::new();
        if last <= after {
            return Ok(found);
        }
        for (zxid, command) in self.kept().log.range(Zxid(after.0 + 1)..=last) {
            bytes += command.bytes() + 32;
            if bytes_max < bytes && !found.is_empty() {
                break;
            }
            found.push((*zxid, command.clone()));
        }
        Ok(found)
    }

    fn notify_new_accepted_epoch(&self, epoch: Epoch, leader: &Address) -> Result<(), ActionError> {
        self.kept().accepted = (epoch, Some(leader.clone()));
        Ok(())
    }

    fn notify_new_current_epoch(&self, epoch: Epoch) -> Result<(), ActionError> {
        self.kept().current = epoch;
        Ok(())
    }

    fn log_proposal(&self, entries: &[Entry]) -> Result<(), ActionError> {
        let entries = entries.iter().map(|entry| (entry.zxid, entry.command.clone()));
        self.kept().log.extend(entries);
        Ok(())
    }

    fn replace_tail(&self, after: Zxid, entries: &[Entry]) -> Result<(), ActionError> {
        self.kept().log.retain(|zxid, _| *zxid <= after);
        self.log_proposal(entries)
    }

    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError> {
        let mut kept = self.kept();
        for entry in entries {
            let Command { op, key, content } = &entry.command;
            match *op {
                Op::ADD | Op::SET => {
                    kept.map.insert(key.to_string(), content.clone());
                }
                Op::DELETE => {
                    kept.map.remove(&**key);
                }
                _ => {}
            }
            kept.applied.push(entry.zxid);
            kept.committed = entry.zxid;
        }
        Ok(())
    }
}
