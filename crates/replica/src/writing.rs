//! What the disk has, and what waits for it: the order in which log and machine become durable.
//!
//! ```text
//! queue ─► one group at the disk ─► durable                          (plain writes)
//!          mark of a snapshot, last of its group ─► durable ─► machine installs it ─► durable
//! ```
//! One group is at the disk at a time, and whatever gathers meanwhile is the next one: the slower
//! the disk, the larger the groups. A write with a snapshot counts as durable only once the machine
//! has installed it, and what was queued behind it is written after that.
//!
//! A write that only moves the commit index promises nothing: what it says can be learnt again. While
//! the disk is idle it is settled at once, and goes to the disk with the next group, or by itself
//! after one to two ticks without any.

use bytes::Bytes;
use quorate_codec as codec;
use quorate_raft::Snapshot;
use quorate_types::{Index, LogEntry, Mark, bug};

use crate::{HardState, Write, WriteId};

/// The queue in front of one replica's disk.
#[derive(Debug, Default)]
pub struct Writing {
    /// The last write of the group at the disk, and the snapshot that ends it, if one does.
    at_disk: Option<(WriteId, Option<Snapshot>)>,
    /// Being installed in the machine; the write counts as durable after that.
    installing: Option<WriteId>,
    queued: Vec<Write>,
    /// The newest of what was settled without the disk, and not written since.
    owed: Option<Owed>,
}

/// A commit index that the log does not have yet.
#[derive(Debug)]
struct Owed {
    id: WriteId,
    hard_state: HardState,
    /// Ticks since the oldest commit index that this one stands for.
    ticks: u32,
}

/// Ticks after which an idle disk is given the commit index.
const OWED_TICKS_MAX: u32 = 2;

/// What is to be done with what was queued.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// To be written and synced as one, then [`Writing::on_written`].
    Group(Vec<Write>),
    /// Nothing up to this write needs the disk: tell the replica that it is durable.
    Settled(WriteId),
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

    /// What is next; nothing while the disk or an installation is under way, or when nothing waits.
    /// To be asked again until there is nothing.
    pub fn next_step(&mut self) -> Option<Step> {
        if self.at_disk.is_some() || self.installing.is_some() {
            return None;
        }
        if !self.queued.is_empty() && !self.queued.iter().any(needs_disk) {
            return self.settle().map(Step::Settled);
        }
        let mut group = self.next_group();
        if let Some(Owed { id, hard_state, ticks }) = self.owed.take() {
            if group.is_empty() {
                if ticks < OWED_TICKS_MAX {
                    self.owed = Some(Owed { id, hard_state, ticks });
                    return None;
                }
                group.push(Write::commit(id, hard_state));
            } else {
                // Before all that was written after it, even if there is a newer one: a crash may leave
                // the first of the group and not the rest, and what follows a change of members must
                // not be durable before it is known that the change is committed.
                group[0].hard_state.get_or_insert(hard_state);
            }
        }
        let last = group.last()?;
        self.at_disk = Some((last.id, last.install.clone()));
        Some(Step::Group(group))
    }

    /// One tick went by: [`Writing::next_step`] may have something to do.
    pub fn on_tick(&mut self) {
        if let Some(owed) = &mut self.owed {
            owed.ticks = owed.ticks.saturating_add(1);
        }
    }

    /// Everything queued, up to the first snapshot.
    fn next_group(&mut self) -> Vec<Write> {
        let through = self
            .queued
            .iter()
            .position(|write| write.install.is_some() && !bug!("writes-go-on-behind-a-snapshot"))
            .map_or(self.queued.len(), |at| at + 1);
        let rest = self.queued.split_off(through);
        std::mem::replace(&mut self.queued, rest)
    }

    /// Takes what is queued, none of which needs the disk, as done.
    fn settle(&mut self) -> Option<WriteId> {
        let last = self.queued.last()?.id;
        let ticks = self.owed.as_ref().map_or(0, |owed| owed.ticks);
        for write in self.queued.drain(..) {
            if let Some(hard_state) = write.hard_state {
                self.owed = Some(Owed { id: last, hard_state, ticks });
            }
        }
        Some(last)
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

/// Whether something would be lost that was vouched for, or is about to be.
fn needs_disk(write: &Write) -> bool {
    write.must_sync
        || write.install.is_some()
        || write.cut_from.is_some()
        || !write.entries.is_empty()
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
    /// Whether it is to be synced.
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

    /// The ids of the next group; nothing if there is none, or if something was settled instead.
    fn group(writing: &mut Writing) -> Vec<u64> {
        match writing.next_step() {
            Some(Step::Group(group)) => group.iter().map(|write| write.id.0).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn groups_go_one_at_a_time_and_end_with_a_snapshot() {
        let mut writing = Writing::default();
        assert_eq!(writing.next_step(), None);
        writing.queue([write(1, false)]);
        assert_eq!(group(&mut writing), [1]);
        writing.queue([write(2, false), write(3, true), write(4, false), write(5, false)]);
        assert_eq!(writing.next_step(), None, "one is at the disk");
        assert_eq!(writing.on_written(), Some(Written::Persisted(WriteId(1))));
        assert_eq!(writing.on_written(), None, "nothing was there");
        assert_eq!(group(&mut writing), [2, 3], "what follows the snapshot waits");
        assert_eq!(writing.on_written(), Some(Written::Install(Snapshot::default())));
        assert_eq!(writing.next_step(), None, "the machine does not have it yet");
        assert_eq!(writing.on_installed(), Some(WriteId(3)));
        assert_eq!(group(&mut writing), [4, 5]);
    }

    fn state(commit: u64) -> HardState {
        quorate_raft::HardState { commit: Index(commit), ..Default::default() }.into()
    }

    fn commit(id: u64, index: u64) -> Write {
        Write { must_sync: false, ..Write::commit(WriteId(id), state(index)) }
    }

    /// The commit indexes of the next group, by write.
    fn commits(writing: &mut Writing) -> Vec<Option<u64>> {
        let Some(Step::Group(group)) = writing.next_step() else { return Vec::new() };
        let commit = |state: &HardState| match state {
            HardState::Raft(state) => state.commit.0,
            HardState::Zab(state) => state.committed.0,
        };
        group.iter().map(|write| write.hard_state.as_ref().map(commit)).collect()
    }

    #[test]
    fn a_commit_index_needs_no_disk_of_its_own() {
        let mut writing = Writing::default();
        writing.queue([commit(1, 10), commit(2, 11)]);
        assert_eq!(writing.next_step(), Some(Step::Settled(WriteId(2))));
        assert_eq!(writing.next_step(), None);

        writing.queue([write(3, false)]);
        assert_eq!(commits(&mut writing), [Some(11)], "the newest goes with the next group");
        writing.queue([commit(4, 12)]);
        assert_eq!(writing.next_step(), None, "what it follows is not durable yet");
        assert_eq!(writing.on_written(), Some(Written::Persisted(WriteId(3))));
        assert_eq!(writing.next_step(), Some(Step::Settled(WriteId(4))));

        writing.queue([write(5, false), commit(6, 13)]);
        assert_eq!(commits(&mut writing), [Some(12), Some(13)], "in their order");
        writing.on_written();
        assert_eq!(writing.next_step(), None, "nothing is owed");
    }

    #[test]
    fn an_idle_disk_is_given_the_commit_index_after_a_while() {
        let mut writing = Writing::default();
        writing.queue([commit(1, 10)]);
        assert_eq!(writing.next_step(), Some(Step::Settled(WriteId(1))));
        writing.on_tick();
        assert_eq!(writing.next_step(), None);
        writing.queue([commit(2, 11)]);
        assert_eq!(writing.next_step(), Some(Step::Settled(WriteId(2))));
        writing.on_tick();
        let Some(Step::Group(group)) = writing.next_step() else { panic!("not written") };
        assert_eq!(group, [Write::commit(WriteId(2), state(11))]);
        assert!(group[0].must_sync, "or it may never be durable");
        assert_eq!(writing.on_written(), Some(Written::Persisted(WriteId(2))));
        writing.on_tick();
        writing.on_tick();
        assert_eq!(writing.next_step(), None, "once");
    }

    #[test]
    fn what_is_vouched_for_goes_to_the_disk() {
        let entries = vec![quorate_raft::Entry::default()].into();
        let vote = Write { must_sync: true, ..commit(1, 1) };
        let unsynced = Write { entries, ..commit(1, 1) };
        let install = Write { install: Some(Snapshot::default()), ..commit(1, 1) };
        for write in [vote, unsynced, install] {
            let mut writing = Writing::default();
            writing.queue([write]);
            assert_eq!(group(&mut writing), [1]);
        }
    }
}
