//! Synchronization: what a learner keeps of its own history, and what it takes of its leader's.
//!
//! A stream is judged as it comes from a leader of ours, and at its end from one of gometa's. Whatever is
//! kept or replaced, nothing that the leader has as well is ever away from the disk, not even for a moment:
//! it may have been counted.

use quorate_types::{Index, bug};

use super::{FollowerStage, Learner, believes_in_holes};
use crate::core::Core;
use crate::event::Fatal;
use crate::note::Note;
use crate::zab::Next;
use crate::{Command, Epoch, LeaveReason, LogEntry, Op, Snapshot, Storage, Zxid};

/// No history gets there by itself; one that a peer claims to be longer is not believed.
const INDEX_MAX: Index = Index(u64::MAX / 2);

impl Learner {
    pub(super) fn on_log_entry<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        entry: LogEntry,
    ) -> Result<Next, Fatal> {
        match entry.command.op {
            Op::STREAM_BEGIN => {
                self.stream_committed = self.stream_committed.max(entry.zxid);
                if self.is_native() {
                    return self.on_plan(core, entry.keep);
                }
                Ok(Next::Stay)
            }
            Op::STREAM_END => {
                self.stream_committed = self.stream_committed.max(entry.zxid);
                self.on_stream_end(core)
            }
            _ if self.awaits_snapshot || self.epoch < entry.zxid.epoch() => {
                Ok(Next::Look(LeaveReason::Diverged))
            }
            _ if self.is_native() => self.settle(core, entry.zxid, entry.command),
            _ => Ok(self.collect(core, entry)),
        }
    }

    /// The leader said what may be kept.
    fn on_plan<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        keep: Option<Zxid>,
    ) -> Result<Next, Fatal> {
        let Some(keep) = keep else {
            self.awaits_snapshot = true;
            return Ok(Next::Stay);
        };
        match core.history.place(keep)? {
            Some(index) if core.commit <= index => {
                self.cursor = index;
                Ok(Next::Stay)
            }
            // It would have this node forget what is committed.
            _ => Ok(Next::Look(LeaveReason::Diverged)),
        }
    }

    /// A state that stands for what this node has not. If it has that, all of it stays: an entry behind it
    /// may be the leader's, too, and committed because this node holds it.
    pub(super) fn on_snapshot<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        snapshot: Snapshot,
    ) -> Result<Next, Fatal> {
        let is_usable = core.commit < snapshot.index
            && core.handed <= snapshot.index
            && snapshot.zxid.epoch() <= self.epoch
            && snapshot.index <= INDEX_MAX;
        if !is_usable {
            return Ok(Next::Look(LeaveReason::Diverged));
        }
        self.awaits_snapshot = false;
        self.cursor = snapshot.index;
        let has_it = core.history.place(snapshot.zxid)? == Some(snapshot.index);
        if !has_it || bug!("a-snapshot-cuts-entries-that-match") {
            core.install(snapshot);
        }
        Ok(Next::Stay)
    }

    /// The next entry of the leader's history.
    fn settle<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        zxid: Zxid,
        command: Command,
    ) -> Result<Next, Fatal> {
        let place = self.cursor.next();
        if place <= core.history.last() {
            if core.history.zxid(place)? == zxid {
                self.cursor = place;
                // One id, one content, whoever says it.
                if core.history.entry(place)?.command != command {
                    core.note(Note::Diverged { zxid });
                    return Ok(Next::Look(LeaveReason::Diverged));
                }
                return Ok(Next::Stay);
            }
            if let Err(why) = self.replace_tail(core)? {
                return Ok(Next::Look(why));
            }
        }
        let last = core.history.last_zxid();
        if zxid <= last {
            return Ok(Next::Look(LeaveReason::Diverged));
        }
        // A history that only leaders of ours have made has no gaps; a gometa leader's may have.
        let may_have_gaps = !self.is_native() || core.config.allow_gometa_voters;
        if !zxid.follows(last) && !may_have_gaps && !believes_in_holes() {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        self.cursor = core.history.append(zxid, command);
        Ok(Next::Stay)
    }

    /// Removes everything after the cursor: the leader's history does not have it.
    pub(super) fn replace_tail<S: Storage>(
        &mut self,
        core: &mut Core<S>,
    ) -> Result<Result<(), LeaveReason>, Fatal> {
        let last = core.history.last();
        if last <= self.cursor {
            return Ok(Ok(()));
        }
        if self.cursor < core.commit {
            // What is committed is in the history of every leader. This is none, or was none.
            core.note(Note::Diverged { zxid: core.history.zxid(self.cursor.next())? });
            return Ok(Err(LeaveReason::Diverged));
        }
        let from = self.cursor.next();
        core.note(Note::TailReplaced { from, last: core.history.last_zxid() });
        core.history.truncate(self.cursor)?;
        Ok(Ok(()))
    }

    /// Keeps what a gometa leader sends until all of it is there.
    fn collect<S: Storage>(&mut self, core: &mut Core<S>, entry: LogEntry) -> Next {
        if entry.zxid.epoch() == Epoch(0) && !self.takes_states(core) {
            // Ids that somebody made up for the keys of a state.
            return Next::Look(LeaveReason::StateStream);
        }
        let op = entry.command.op;
        if !op.is_logged() {
            core.note(Note::OddOperation { zxid: entry.zxid, op });
        }
        self.is_unordered = self.is_unordered || entry.zxid <= self.stream_last;
        self.stream_last = entry.zxid;
        self.collected_bytes = self.collected_bytes.saturating_add(entry.command.bytes() + 32);
        if core.config.stream_bytes_max < self.collected_bytes {
            return Next::Look(LeaveReason::TooLong);
        }
        self.collected.insert(entry.zxid, entry.command);
        Next::Stay
    }

    fn takes_states<S>(&self, core: &Core<S>) -> bool {
        core.config.takes_states && !self.voting && self.starts_at_zero
    }

    /// Whether the stream holds the keys of a state, and not the history that this node has a part of.
    fn is_state(&self, committed: Zxid) -> bool {
        let has_made_up = self.collected.keys().next().is_some_and(|id| id.epoch() == Epoch(0));
        let is_known = committed == Zxid::ZERO || self.collected.contains_key(&committed);
        // Without any key it is one only where such states are taken.
        has_made_up
            || !is_known
            || (self.collected.is_empty() && Zxid::ZERO < self.stream_committed)
    }

    /// A state takes the place of this node's own: merged into it, what was deleted would rise again.
    fn take_state<S: Storage>(&mut self, core: &mut Core<S>, committed: Zxid, zxid: Zxid) -> Next {
        let collected = std::mem::take(&mut self.collected);
        if zxid < committed || zxid.epoch() == Epoch(0) {
            core.note(Note::Diverged { zxid });
            return Next::Look(LeaveReason::Diverged);
        }
        if committed < zxid {
            self.cursor = core.history.last().next();
            core.install(Snapshot::of_commands(self.cursor, zxid, collected.values()));
        }
        Next::Stay
    }

    fn on_stream_end<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Fatal> {
        if self.awaits_snapshot {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        if !self.is_native() {
            // Judged before anything is changed.
            let committed = core.committed_zxid()?;
            let mut highest = self.collected.keys().next_back().copied().unwrap_or(Zxid::ZERO);
            // A state without keys has nothing that would bear its id. A log that cannot be read looks
            // the same, however often it is asked for: what came after it would be applied to nothing.
            let is_bare = self.takes_states(core)
                && self.collected.is_empty()
                && Zxid::ZERO < self.stream_committed;
            if is_bare && committed <= self.stream_committed && !core.config.takes_bare_states {
                core.note(Note::BareState { committed });
                return Ok(Next::Look(LeaveReason::Diverged));
            }
            if is_bare {
                highest = self.stream_committed;
            }
            let has_hole = highest.max(committed) < self.stream_committed;
            if has_hole || (self.is_unordered && !self.starts_at_zero) {
                core.wants_all = true;
                return Ok(Next::Look(LeaveReason::Disordered));
            }
            if self.starts_at_zero && highest < committed {
                // Asked for everything, the leader has less than this node knows to be committed.
                core.note(Note::Diverged { zxid: committed });
                return Ok(Next::Look(LeaveReason::Diverged));
            }
            if self.takes_states(core) && self.is_state(committed) {
                match self.take_state(core, committed, highest) {
                    Next::Stay => {}
                    next => return Ok(next),
                }
            }
            for (zxid, command) in std::mem::take(&mut self.collected) {
                if committed < zxid {
                    match self.settle(core, zxid, command)? {
                        Next::Stay => {}
                        next => return Ok(next),
                    }
                }
            }
        }
        if let Err(why) = self.replace_tail(core)? {
            return Ok(Next::Look(why));
        }
        let is_short = core.history.last_zxid() < self.stream_committed;
        if is_short && !believes_in_holes() {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        self.stage = FollowerStage::ReceiveNewLeader;
        Ok(Next::Stay)
    }
}
