//! Alarms: what the members have agreed to refuse until somebody says that all is well again.
//!
//! An alarm belongs to the member that raised it, and counts for all. Which requests it stops is
//! decided where entries are applied, so every member refuses the same ones. Rows of the table
//! `alarm`: member (8 bytes, big-endian) · kind (1) → nothing.

use std::collections::BTreeSet;

use crate::command::Command;
use crate::error::KvError;
use crate::request::{AlarmAction, AlarmRequest, AlarmType, RequestOp, TxnRequest};
use crate::wire::Malformed;

/// More are not raised: whoever may raise one could name any member.
pub const ALARMS_MAX: usize = 1024;

const NO_SPACE: u8 = 1;
const CORRUPT: u8 = 2;
const KEY_BYTES: usize = 9;

/// One active alarm. Etcd's `AlarmMember`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Whose it is.
    pub member: u64,
    /// What is wrong.
    pub alarm: AlarmType,
}

/// All active alarms.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    active: BTreeSet<Alarm>,
    /// Those whose row in storage is out of date.
    changed: BTreeSet<Alarm>,
}

impl Alarms {
    /// Does what is asked and returns what etcd lists for it: the alarms asked for, the one that is
    /// active now, or the one that is not any more.
    pub(crate) fn apply(&mut self, request: &AlarmRequest) -> Result<Vec<Alarm>, KvError> {
        let AlarmRequest { action, member, alarm } = *request;
        let one = Alarm { member, alarm };
        Ok(match action {
            AlarmAction::Get => self.list(alarm),
            AlarmAction::Activate if alarm.number().is_some() => {
                if !self.active.contains(&one) {
                    if ALARMS_MAX <= self.active.len() {
                        return Err(KvError::RequestTooManyRequests);
                    }
                    self.active.insert(one);
                    self.changed.insert(one);
                }
                vec![one]
            }
            AlarmAction::Deactivate if self.active.remove(&one) => {
                self.changed.insert(one);
                vec![one]
            }
            AlarmAction::Activate | AlarmAction::Deactivate | AlarmAction::Unknown(_) => Vec::new(),
        })
    }

    /// Those of a kind, or all, by member.
    pub(crate) fn list(&self, alarm: AlarmType) -> Vec<Alarm> {
        let wanted = |one: &&Alarm| alarm == AlarmType::None || one.alarm == alarm;
        self.active.iter().filter(wanted).copied().collect()
    }

    /// Whether a command may be applied. The worse alarm speaks first.
    pub(crate) fn check(&self, command: &Command) -> Result<(), KvError> {
        if self.active.is_empty() {
            return Ok(());
        }
        let is_active = |alarm| self.active.iter().any(|one| one.alarm == alarm);
        if is_active(AlarmType::Corrupt) && changes(command) {
            return Err(KvError::Corrupt);
        }
        if is_active(AlarmType::NoSpace) && grows(command) {
            return Err(KvError::NoSpace);
        }
        Ok(())
    }

    /// A checksum of all alarms, the same on every member.
    pub(crate) fn hash(&self, hash: u32) -> u32 {
        self.active
            .iter()
            .filter_map(to_key)
            .fold(hash, |hash, key| crc32c::crc32c_append(hash, &key))
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The keys of rows to write, or to delete if false. They count as written from now on.
    pub(crate) fn take_changed(&mut self) -> Vec<([u8; KEY_BYTES], bool)> {
        let changed = std::mem::take(&mut self.changed);
        let row = |one: Alarm| Some((to_key(&one)?, self.active.contains(&one)));
        changed.into_iter().filter_map(row).collect()
    }

    /// Takes one row of the table.
    pub(crate) fn load(&mut self, key: &[u8], row: &[u8]) -> Result<(), Malformed> {
        self.active.insert(decode(key, row)?);
        Ok(())
    }
}

impl AlarmType {
    /// As it is stored; nothing for what is no alarm.
    fn number(self) -> Option<u8> {
        match self {
            AlarmType::NoSpace => Some(NO_SPACE),
            AlarmType::Corrupt => Some(CORRUPT),
            AlarmType::None | AlarmType::Unknown(_) => None,
        }
    }
}

fn to_key(one: &Alarm) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&one.member.to_be_bytes());
    key[8] = one.alarm.number()?;
    Some(key)
}

/// Reads a row of the table.
pub(crate) fn decode(key: &[u8], row: &[u8]) -> Result<Alarm, Malformed> {
    let key: &[u8; KEY_BYTES] = key.try_into().map_err(|_| Malformed("alarm's key"))?;
    let [member @ .., kind] = key;
    let alarm = match *kind {
        NO_SPACE => AlarmType::NoSpace,
        CORRUPT => AlarmType::Corrupt,
        _ => return Err(Malformed("kind of alarm")),
    };
    if !row.is_empty() {
        return Err(Malformed("an alarm with more to say"));
    }
    Ok(Alarm { member: u64::from_be_bytes(*member), alarm })
}

/// Whether a command changes data that members may disagree about.
fn changes(command: &Command) -> bool {
    match command {
        Command::Put(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Compact(_)
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseExpire { .. } => true,
        Command::PublishMember { .. }
        | Command::LeaseCheckpoint { .. }
        | Command::Alarm(_)
        | Command::SetAutopilot { .. } => false,
    }
}

/// Whether a command may need room: all that puts or grants, in whichever branch.
fn grows(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::LeaseGrant { .. } => true,
        Command::Txn(txn) => puts(txn),
        Command::DeleteRange(_)
        | Command::Compact(_)
        | Command::LeaseRevoke { .. }
        | Command::LeaseExpire { .. }
        | Command::LeaseCheckpoint { .. }
        | Command::PublishMember { .. }
        | Command::Alarm(_)
        | Command::SetAutopilot { .. } => false,
    }
}

/// Whether a transaction holds a put, in any list at any depth.
fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        RequestOp::Put(_) => true,
        RequestOp::Txn(inner) => puts(inner),
        RequestOp::Empty | RequestOp::Range(_) | RequestOp::DeleteRange(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlarmAction::{Activate, Deactivate, Get};
    use AlarmType::{Corrupt, NoSpace, None, Unknown};

    #[test]
    fn alarms_are_raised_listed_and_ended() {
        let mut alarms = Alarms::default();
        for (action, member, alarm, want) in [
            (Get, 0, None, &[][..]),
            (Activate, 5, NoSpace, &[(5, NoSpace)]),
            (Activate, 5, NoSpace, &[(5, NoSpace)]), // raised already
            (Activate, 3, Corrupt, &[(3, Corrupt)]),
            (Activate, 3, None, &[]),
            (Activate, 3, Unknown(9), &[]),
            (AlarmAction::Unknown(7), 3, NoSpace, &[]),
            (Get, 0, None, &[(3, Corrupt), (5, NoSpace)]),
            (Get, 5, Corrupt, &[(3, Corrupt)]),
            (Get, 0, Unknown(9), &[]),
            (Deactivate, 5, Corrupt, &[]),
            (Deactivate, 4, NoSpace, &[]),
            (Deactivate, 5, NoSpace, &[(5, NoSpace)]),
            (Deactivate, 5, NoSpace, &[]),
            (Get, 0, None, &[(3, Corrupt)]),
        ] {
            let got = alarms.apply(&AlarmRequest { action, member, alarm }).unwrap();
            let got: Vec<_> = got.iter().map(|one| (one.member, one.alarm)).collect();
            assert_eq!(got, want, "{action:?} {member} {alarm:?}");
        }
        let mut again = Alarms::default();
        for (key, is_active) in alarms.take_changed() {
            if is_active {
                again.load(&key, &[]).unwrap();
            }
        }
        assert_eq!(again.active, alarms.active);
        assert!(again.load(&[0; 9], &[]).is_err());
        assert!(again.load(&[1; 9], &[1]).is_err());
        assert!(again.load(&[1; 8], &[]).is_err());
    }

    #[test]
    fn there_is_an_end_to_alarms() {
        let mut alarms = Alarms::default();
        let mut raise =
            |member| alarms.apply(&AlarmRequest { action: Activate, member, alarm: NoSpace });
        for member in 0..ALARMS_MAX as u64 {
            assert!(raise(member).is_ok());
        }
        assert_eq!(raise(u64::MAX), Err(KvError::RequestTooManyRequests));
        assert!(raise(0).is_ok(), "one that is there already");
    }
}
