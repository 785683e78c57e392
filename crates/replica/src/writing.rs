//! What the disk has, and what waits for it: the order in which log and machine become durable.
//!
//! ```text
//! queue ─► one group at the disk ─► durable                          (plain writes)
//!          mark of a snapshot, last of its group ─► durable ─► machine installs it ─► durable
//! ```
//! One group is at the disk at a time, and whatever gathers meanwhile is the next one: the slower
//! the disk, the larger the groups. A write with a snapshot counts as durable only once the machine
//! has installed it, and what was queued behind it is written after that.

use bytes::Bytes;
use quorate_codec as codec;
use quorate_raft::Snapshot;
use quorate_types::{Index, LogEntry, Mark, bug};

use crate::{Write, WriteId};

/// The queue in front of one replica's disk.
#[derive(Debug, Default)]
pub struct Writing {
    /// The last write of the group at the disk, and the snapshot that ends it, if one does.
    at_disk: Option<(WriteId, Option<Snapshot>)>,
    /// Being installed in the machine; the write counts as durable after that.
    installing: Option<WriteId>,
    queued: Vec<Write>,
}

/// What follows from a group that is durable in the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// Everything up to this write is durable: tell the replica.
    Persisted(WriteId),
    /// The mark is durable. Install this in the machine, then call [`Writing::on_installed`].
    Install(Snapshot),
}

impl Writing {
    /// Takes in what the replica wants to be durable.
    pub fn queue(&mut self, writes: impl IntoIterator<Item = Write>) {
        self.queued.extend(writes);
    }

    /// The next group for the disk, to be written and synced as one; nothing while the disk or an
    /// installation is under way, or when nothing waits.
    pub fn next_group(&mut self) -> Option<Vec<Write>> {
        if self.at_disk.is_some() || self.installing.is_some() {
            return None;
        }
        let through = self
            .queued
            .iter()
            .position(|write| write.install.is_some() && !bug!("writes-go-on-behind-a-snapshot"))
            .map_or(self.queued.len(), |at| at + 1);
        let rest = self.queued.split_off(through);
        let group = std::mem::replace(&mut self.queued, rest);
        let last = group.last()?;
        self.at_disk = Some((last.id, last.install.clone()));
        Some(group)
    }

    /// The group at the disk is durable; nothing when none was there.
    pub fn on_written(&mut self) -> Option<Written> {
        let (last, install) = self.at_disk.take()?;
        Some(match install {
            Some(_) if bug!("snapshot-counts-before-it-is-installed") => Written::Persisted(last),
            Some(snapshot) => {
                self.installing = Some(last);
                Written::Install(snapshot)
            }
            None => Written::Persisted(last),
        })
    }

    /// The machine has installed what the last group ended with: everything up to the write that is
    /// returned is durable.
    pub fn on_installed(&mut self) -> Option<WriteId> {
        self.installing.take()
    }

    /// Whether a snapshot is on its way from the engine into log and machine.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
            || self.at_disk.as_ref().is_some_and(|(_, install)| install.is_some())
            || self.queued.iter().any(|write| write.install.is_some())
    }

    /// How many writes wait behind the group at the disk.
    pub fn queued_count(&self) -> usize {
        self.queued.len()
    }
}

/// A write in the words of the durable log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// The hard state's record, if it changed.
    pub hard_state: Option<Bytes>,
    /// From here on everything is removed.
    pub cut_from: Option<Index>,
    /// Entries that replace whatever stands at the first one's index and after.
    pub entries: Vec<LogEntry>,
    /// Where the log starts anew, if a snapshot is installed.
    pub install: Option<Mark>,
    /// Whether anything waits for it.
    pub must_sync: bool,
}

impl From<Write> for LogWrite {
    fn from(write: Write) -> Self {
        LogWrite {
            hard_state: write.hard_state.map(|hard_state| hard_state.encode()),
            cut_from: write.cut_from,
            entries: write.entries.iter().map(codec::to_log_entry).collect(),
            install: write.mark,
            must_sync: write.must_sync,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: u64, installs: bool) -> Write {
        Write {
            id: WriteId(id),
            hard_state: None,
            cut_from: None,
            entries: Vec::new().into(),
            install: installs.then(Snapshot::default),
            mark: installs.then(Mark::default),
            must_sync: true,
        }
    }

    #[test]
    fn a_write_with_a_snapshot_is_installing_until_the_machine_has_it() {
        let snapshot = || Some(Snapshot::default());
        let writing = Writing::default;
        for (writing, want) in [
            (writing(), false),
            (Writing { at_disk: Some((WriteId(1), None)), ..writing() }, false),
            (Writing { at_disk: Some((WriteId(1), snapshot())), ..writing() }, true),
            (Writing { installing: Some(WriteId(1)), ..writing() }, true),
            (Writing { queued: vec![write(1, false)], ..writing() }, false),
            (Writing { queued: vec![write(1, false), write(2, true)], ..writing() }, true),
        ] {
            assert_eq!(writing.is_installing(), want);
        }
    }

    #[test]
    fn groups_go_one_at_a_time_and_end_with_a_snapshot() {
        let ids = |group: Option<Vec<Write>>| {
            group.unwrap_or_default().iter().map(|write| write.id.0).collect::<Vec<_>>()
        };
        let mut writing = Writing::default();
        assert_eq!(writing.next_group(), None);
        writing.queue([write(1, false)]);
        assert_eq!(ids(writing.next_group()), [1]);
        writing.queue([write(2, false), write(3, true), write(4, false), write(5, false)]);
        assert_eq!(writing.next_group(), None, "one is at the disk");
        assert_eq!(writing.on_written(), Some(Written::Persisted(WriteId(1))));
        assert_eq!(writing.on_written(), None, "nothing was there");
        assert_eq!(ids(writing.next_group()), [2, 3], "what follows the snapshot waits");
        assert_eq!(writing.on_written(), Some(Written::Install(Snapshot::default())));
        assert_eq!(writing.next_group(), None, "the machine does not have it yet");
        assert_eq!(writing.on_installed(), Some(WriteId(3)));
        assert_eq!(ids(writing.next_group()), [4, 5]);
    }
}
