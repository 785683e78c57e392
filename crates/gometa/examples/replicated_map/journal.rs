//! A member's log and promises in one file, a line of JSON for each thing that is stored. What is
//! stored is synced before the call returns. A last line without its end was never acknowledged and
//! is cut off; any other line that cannot be read is damage.
//!
//! The map is in memory: when the file is opened again, all of the log is applied again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_gometa::{ActionError, ActionHandler};
use quorate_zab::{Address, Command, Entry, Epoch, Op, Zxid};
use serde_json::{Value, json};

pub(crate) struct Journal {
    kept: Mutex<Kept>,
}

struct Kept {
    file: File,
    accepted: (Epoch, Option<Address>),
    current: Epoch,
    log: BTreeMap<Zxid, Command>,
    map: BTreeMap<String, String>,
    applied: Zxid,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> Result<Self, ActionError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64)?;
        file.sync_all()?;
        let mut kept = Kept {
            file,
            accepted: (Epoch(0), None),
            current: Epoch(0),
            log: BTreeMap::new(),
            map: BTreeMap::new(),
            applied: Zxid::ZERO,
        };
        for (number, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
            if !line.is_empty() && kept.replay(line).is_none() {
                return Err(ActionError(format!("line {} is damaged", number + 1)));
            }
        }
        Ok(Journal { kept: Mutex::new(kept) })
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        self.kept().map.get(key).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Stores one line.
    fn store(&mut self, line: &Value) -> Result<(), ActionError> {
        self.file.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.file.sync_data()?)
    }

    /// Takes in what a line says; nothing when it says nothing that was ever stored.
    fn replay(&mut self, line: &[u8]) -> Option<()> {
        let line: Value = serde_json::from_slice(line).ok()?;
        if let Some(promise) = line.get("accepted") {
            let epoch = u32::try_from(promise[0].as_u64()?).ok()?;
            self.accepted = (Epoch(epoch), Some(Address::from(promise[1].as_str()?)));
        } else if let Some(epoch) = line.get("current") {
            self.current = Epoch(u32::try_from(epoch.as_u64()?).ok()?);
        } else {
            if let Some(after) = line.get("after") {
                let after = Zxid(after.as_u64()?);
                self.log.retain(|zxid, _| *zxid <= after);
            }
            for entry in line.get("log")?.as_array()? {
                let command = Command {
                    op: Op(u32::try_from(entry[1].as_u64()?).ok()?),
                    key: entry[2].as_str()?.into(),
                    content: entry[3].as_str()?.to_owned().into(),
                };
                self.log.insert(Zxid(entry[0].as_u64()?), command);
            }
        }
        Some(())
    }
}

fn lines(entries: &[Entry]) -> Vec<Value> {
    let line = |Entry { zxid, command, .. }: &Entry| {
        json!([zxid.0, command.op.0, *command.key, String::from_utf8_lossy(&command.content)])
    };
    entries.iter().map(line).collect()
}

impl ActionHandler for Journal {
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
        Ok(self.kept().applied)
    }

    fn committed_entries(
        &self,
        after: Zxid,
        last: Zxid,
        bytes_max: u64,
    ) -> Result<Vec<(Zxid, Command)>, ActionError> {
        let kept = self.kept();
        let mut bytes = 0;
        let wanted = kept.log.range(after..=last.max(after)).filter(|(zxid, _)| after < **zxid);
        let fitting = wanted.take_while(|(_, command)| {
            let is_first = bytes == 0;
            bytes += command.bytes() + 1;
            is_first || bytes <= bytes_max
        });
        Ok(fitting.map(|(zxid, command)| (*zxid, command.clone())).collect())
    }

    fn notify_new_accepted_epoch(&self, epoch: Epoch, leader: &Address) -> Result<(), ActionError> {
        let mut kept = self.kept();
        kept.store(&json!({ "accepted": [epoch.0, leader.as_str()] }))?;
        kept.accepted = (epoch, Some(leader.clone()));
        Ok(())
    }

    fn notify_new_current_epoch(&self, epoch: Epoch) -> Result<(), ActionError> {
        let mut kept = self.kept();
        kept.store(&json!({ "current": epoch.0 }))?;
        kept.current = epoch;
        Ok(())
    }

    fn log_proposal(&self, entries: &[Entry]) -> Result<(), ActionError> {
        let mut kept = self.kept();
        kept.store(&json!({ "log": lines(entries) }))?;
        kept.log.extend(entries.iter().map(|entry| (entry.zxid, entry.command.clone())));
        Ok(())
    }

    fn replace_tail(&self, after: Zxid, entries: &[Entry]) -> Result<(), ActionError> {
        let mut kept = self.kept();
        // One line: after a crash all of it is there, or nothing.
        kept.store(&json!({ "after": after.0, "log": lines(entries) }))?;
        kept.log.retain(|zxid, _| *zxid <= after);
        kept.log.extend(entries.iter().map(|entry| (entry.zxid, entry.command.clone())));
        Ok(())
    }

    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError> {
        let mut kept = self.kept();
        for Entry { zxid, command, .. } in entries {
            let value = || String::from_utf8_lossy(&command.content).into_owned();
            match command.op {
                Op::ADD | Op::SET => {
                    kept.map.insert(command.key.to_string(), value());
                }
                Op::DELETE => {
                    kept.map.remove(&*command.key);
                }
                _ => {}
            }
            kept.applied = *zxid;
        }
        Ok(())
    }
}
