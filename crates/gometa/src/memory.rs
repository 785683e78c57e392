//! An application in memory: for watchers, which may begin anew each time, and for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_types::Index;
use quorate_zab::{Address, Command, Entry, Epoch, Op, Snapshot, Zxid};

use crate::{ActionError, ActionHandler};

/// A log and a map of keys in memory. A voter must not run on one: it forgets its promises with the
/// process, and another one of them could lead with an epoch that is already taken.
#[derive(Debug, Default)]
pub struct MemoryActions {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whether the log may go up to what is applied.
    is_state_alone: bool,
    /// The place before the log, and the id there.
    start: (Index, Zxid),
    accepted: (Epoch, Option<Address>),
    current: Epoch,
    log: BTreeMap<Zxid, Command>,
    committed: (Index, Zxid),
    map: BTreeMap<String, Bytes>,
    /// The ids of what was applied, in that order, since a state was installed.
    applied: Vec<Zxid>,
}

impl MemoryActions {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that keeps its state alone: of the log only what the node still needs.
    pub fn of_state() -> Self {
        let kept = Kept { is_state_alone: true, ..Kept::default() };
        MemoryActions { kept: Mutex::new(kept) }
    }

    /// What stands under a key.
    pub fn value(&self, key: &str) -> Option<Bytes> {
        self.kept().map.get(key).cloned()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.kept().map.len()
    }

    /// The ids of all transactions that were applied, in the order they were; since a leader's state
    /// took the place of this one, if one did.
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
        let kept = self.kept();
        Ok(kept.log.keys().next_back().copied().unwrap_or(kept.start.1))
    }

    fn last_committed_txid(&self) -> Result<Zxid, ActionError> {
        Ok(self.kept().committed.1)
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
            kept.apply(&entry.command);
            kept.applied.push(entry.zxid);
            kept.committed = (entry.index, entry.zxid);
        }
        Ok(())
    }

    fn keeps_history(&self) -> bool {
        !self.kept().is_state_alone
    }

    fn log_start(&self) -> Result<(Index, Zxid), ActionError> {
        Ok(self.kept().start)
    }

    fn forget(&self, index: Index, last: Zxid) -> Result<(), ActionError> {
        let mut kept = self.kept();
        kept.start = (index, last);
        kept.log.retain(|zxid, _| last < *zxid);
        Ok(())
    }

    fn state(&self) -> Result<Option<Snapshot>, ActionError> {
        let kept = self.kept();
        let set = |(key, content): (&String, &Bytes)| Command::set(key, content.clone());
        let commands: Vec<Command> = kept.map.iter().map(set).collect();
        let (index, zxid) = kept.committed;
        Ok(kept.is_state_alone.then(|| Snapshot::of_commands(index, zxid, &commands)))
    }

    fn takes_states(&self) -> bool {
        true
    }

    fn install(&self, state: &Snapshot) -> Result<(), ActionError> {
        let commands = state.commands().ok_or(ActionError::from("a state of another kind"))?;
        let mut kept = self.kept();
        kept.log.clear();
        kept.map.clear();
        kept.applied.clear();
        (kept.start, kept.committed) = ((state.index, state.zxid), (state.index, state.zxid));
        commands.iter().for_each(|command| kept.apply(command));
        Ok(())
    }
}

impl Kept {
    fn apply(&mut self, Command { op, key, content }: &Command) {
        match *op {
            Op::ADD | Op::SET => {
                self.map.insert(key.to_string(), content.clone());
            }
            Op::DELETE => {
                self.map.remove(&**key);
            }
            _ => {}
        }
    }
}
