//! What a member's threads do: the disk's, and the machine's, one piece of work after the other.

use bytes::Bytes;
use quorate_codec as codec;
use quorate_kv::{Apply, Entry, MemberChange};
use quorate_raft::{AnyConfChange, ConfChangeType, SnapshotMetadata};
use quorate_replica::{
    Applying, Engine, Event as ReplicaEvent, LogWrite, Step, Write, WriteId, Written, open,
};
use quorate_types::{Index, Mark};
use quorate_wal::{Wal, WalError};

use super::{ApplyWork, DiskWork, Ended, Going, Node, Said};
use crate::lives::unpublished;
use crate::member;
use crate::world::{Cx, What};

/// How often a write that found the volume full is tried again.
const FULL_RETRY_US: u64 = 200_000;

impl Node {
    /// Gives idle threads their next work.
    pub(super) fn feed(&mut self, cx: &mut Cx<'_>) -> Going {
        while let Some(step) = self.process().writing.next_step() {
            match step {
                Step::Group(group) => {
                    let last = group.last().map_or(WriteId::default(), |write| write.id);
                    let group = group.into_iter().map(log_write).collect();
                    self.process().disk_work.push_back(DiskWork::Write(last, group));
                }
                Step::Settled(last) => self.event(ReplicaEvent::Persisted(last))?,
            }
        }
        let (id, life, hangs, slowness) = (self.id, self.life, self.disk_hangs, self.slowness);
        let process = self.process();
        if !process.disk_is_busy && !process.disk_work.is_empty() {
            process.disk_is_busy = true;
            if !hangs {
                let latency = cx.plan.disk_us(cx.chance, slowness);
                cx.after(latency, id, life, What::Disk);
            }
        }
        if !process.apply_is_busy && !process.apply_work.is_empty() {
            process.apply_is_busy = true;
            // A snapshot's rows go through the disk, too.
            let latency = match process.apply_work.front() {
                Some(ApplyWork::Install(_)) => 5 * cx.plan.disk_us(cx.chance, slowness),
                _ => cx.plan.apply_us(cx.chance),
            };
            cx.after(latency, id, life, What::Apply);
        }
        Ok(())
    }

    /// The disk has done its oldest work, or found that it cannot.
    pub(super) fn on_disk(&mut self, cx: &mut Cx<'_>) -> Going {
        let (id, life, hangs) = (self.id, self.life, self.disk_hangs);
        if hangs {
            return Ok(()); // goes on when it is released
        }
        let disk = self.disk.clone();
        let lies = disk.lies_count();
        let process = self.process();
        process.disk_is_busy = false;
        match process.disk_work.pop_front() {
            None => {}
            Some(DiskWork::Compact(mark)) => compact(&mut process.wal, &mark)?,
            Some(DiskWork::Write(last, group)) => match process.wal.append(&group) {
                Ok(()) => {
                    let is_synced = group.iter().any(syncs);
                    let has_lied = lies < disk.lies_count();
                    cx.checks.on_durable(id, last, is_synced, has_lied);
                    self.on_written(cx)?;
                }
                Err(WalError::Full { .. }) if !process.wal.is_poisoned() => {
                    cx.checks.count("full log waited for");
                    // It waits; compactions behind it do not.
                    let at = process.disk_work.iter().position(is_compaction);
                    if let Some(DiskWork::Compact(mark)) =
                        at.and_then(|at| process.disk_work.remove(at))
                    {
                        compact(&mut process.wal, &mark)?;
                    }
                    process.disk_work.push_front(DiskWork::Write(last, group));
                    process.disk_is_busy = true;
                    cx.after(FULL_RETRY_US, id, life, What::Disk);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            },
        }
        self.feed(cx)
    }

    fn on_written(&mut self, cx: &mut Cx<'_>) -> Going {
        let process = self.process();
        match process.writing.on_written() {
            None => {}
            Some(Written::Persisted(last)) => self.event(ReplicaEvent::Persisted(last))?,
            Some(Written::Install(snapshot)) => {
                process.apply_work.push_back(ApplyWork::Install(snapshot.metadata));
            }
        }
        self.feed(cx)
    }

    pub(super) fn on_apply(&mut self, cx: &mut Cx<'_>) -> Going {
        let (id, life, slowness) = (self.id, self.life, self.slowness);
        let process = self.process();
        process.apply_is_busy = false;
        match process.apply_work.pop_front() {
            None => {}
            Some(ApplyWork::Apply(mut entries)) => {
                while let Some(ApplyWork::Apply(more)) = process.apply_work.front_mut() {
                    entries.append(more);
                    process.apply_work.pop_front();
                }
                self.apply(cx, entries)?;
            }
            Some(ApplyWork::Flush) => {
                // Its commit works on a thread of its own; what it saves is fixed at its begin or
                // anywhere up to its end.
                let early = match cx.chance.percent(50) {
                    true => Some(self.flush()?),
                    false => None,
                };
                self.process().flush_under_way = Some(early);
                let latency = 3 * cx.plan.disk_us(cx.chance, slowness);
                cx.after(latency, id, life, What::Flush);
            }
            Some(ApplyWork::MakeSnapshot) => {
                let view = process.store.snapshot()?;
                let applied = view.applied().clone();
                let conf_state = codec::decode_conf_state_record(applied.conf_state)?;
                let metadata =
                    SnapshotMetadata { conf_state, index: applied.index, term: applied.term };
                process.kept = Some((metadata.clone(), view));
                let snapshot = quorate_raft::Snapshot { data: Bytes::new(), metadata };
                self.event(ReplicaEvent::SnapshotMade(snapshot))?;
            }
            Some(ApplyWork::Install(metadata)) => {
                let disk = self.disk.clone();
                member::replace(&disk, &self.process().store, &metadata).map_err(Ended)?;
                cx.checks.count("snapshots installed");
                self.learn_lives()?;
                let process = self.process();
                cx.checks.on_state(id, &process.store);
                if let Some(write) = process.writing.on_installed() {
                    self.event(ReplicaEvent::Persisted(write))?;
                }
                self.tell(cx)?;
            }
        }
        self.feed(cx)
    }

    fn apply(&mut self, cx: &mut Cx<'_>, entries: Vec<Applying>) -> Going {
        let (id, life, slowness) = (self.id, self.life, self.slowness);
        let process = self.process();
        let mut requests = Vec::with_capacity(entries.len());
        let mut batch = Vec::with_capacity(entries.len());
        for entry in entries {
            cx.checks.on_apply(cx.now, id, &entry);
            let (index, term, request, what) = match entry {
                Applying::Command { index, term, entry } => {
                    let (request, command) = open(entry)?;
                    (index, term, Some(request), Apply::Command(command))
                }
                Applying::Empty { index, term } => (index, term, None, Apply::Empty),
                Applying::Membership { index, term, conf_state, change } => {
                    let conf_state = codec::encode_conf_state_record(&conf_state);
                    let change = who_joins(&change);
                    (index, term, None, Apply::Membership { conf_state, change })
                }
            };
            let answer_wanted =
                request.is_some_and(|request| process.waiters.contains_key(&request));
            requests.push(request);
            batch.push(Entry { index, term, what, answer_wanted });
        }
        let (mut done, mut members_changed) = (0, false);
        while done < batch.len() {
            let process = self.process();
            if process.store.needs_flush() {
                self.flush()?;
            }
            let process = self.process();
            // Stops where states are compared.
            let every = cx.plan.compare_every;
            let until = batch[done..]
                .iter()
                .position(|entry| entry.index.0 % every == 0)
                .map_or(batch.len(), |at| done + at + 1);
            let outcome = process.store.apply(&batch[done..until])?;
            members_changed |= outcome.members_changed;
            for (response, request) in outcome.responses.into_iter().zip(&requests[done..]) {
                done += 1;
                if let Some(request) = request {
                    process.errands.on_outcome(*request);
                }
                let waiter = request.and_then(|request| process.waiters.remove(&request));
                if let Some((client, op)) = waiter {
                    cx.answer(client, op, Said::Changed(response));
                }
            }
            cx.checks.on_state(id, &process.store);
        }
        let last = batch[done - 1].index;
        if members_changed {
            self.learn_lives()?;
        }
        let process = self.process();
        if process.store.removed_revision() < process.store.compact_revision()
            && process.store.compact_step(cx.plan.compact_keys)?
            && process.flush_under_way.is_none()
        {
            process.flush_under_way = Some(None);
            let latency = 3 * cx.plan.disk_us(cx.chance, slowness);
            cx.after(latency, id, life, What::Flush);
        }
        self.tell(cx)?;
        self.event(ReplicaEvent::Applied(last))
    }

    /// Makes all that was applied durable.
    fn flush(&mut self) -> Result<Index, Ended> {
        let index = self.process().store.flush()?;
        self.known = self.lives.clone();
        Ok(index)
    }

    pub(super) fn on_flush(&mut self, cx: &mut Cx<'_>) -> Going {
        let (id, plan) = (self.id, cx.plan);
        let process = self.process();
        let log_bytes = process.replica.status().log_bytes;
        // The other engine's log has no bound yet while state cannot be flushed.
        if plan.engine == Engine::Raft {
            cx.checks.on_log(id, log_bytes, plan.log_bytes_max());
        }
        if self.flush_hangs {
            cx.after(FULL_RETRY_US, self.id, self.life, What::Flush);
            return Ok(());
        }
        let process = self.process();
        let early = process.flush_under_way.take().flatten();
        let index = match early {
            Some(index) => index,
            None => self.flush()?,
        };
        cx.checks.count("flushes");
        self.event(ReplicaEvent::Applied(index))?;
        self.event(ReplicaEvent::Flushed(index))
    }
}

/// The first who joins by a change: the machine's list takes one in at a time, the same everywhere.
fn who_joins(change: &AnyConfChange) -> Option<MemberChange> {
    let joins = |kind| matches!(kind, ConfChangeType::AddNode | ConfChangeType::AddLearnerNode);
    let id = match change {
        AnyConfChange::V1(one) => joins(one.change_type).then_some(one.node_id),
        AnyConfChange::V2(many) => {
            let mut joining = many.changes.iter().filter(|one| joins(one.change_type));
            joining.next().map(|one| one.node_id)
        }
    };
    id.map(|id| MemberChange::Add(unpublished(id)))
}

fn syncs(write: &quorate_wal::Write) -> bool {
    write.must_sync || write.install.is_some()
}

fn is_compaction(work: &DiskWork) -> bool {
    matches!(work, DiskWork::Compact(_))
}

fn log_write(write: Write) -> quorate_wal::Write {
    let LogWrite { hard_state, cut_from, entries, install, must_sync } = write.into();
    quorate_wal::Write { hard_state, cut_from, entries, install, must_sync }
}

/// Compacts the log, if that is possible now: the next compaction makes up for one that is not.
fn compact(wal: &mut Wal, mark: &Mark) -> Result<(), WalError> {
    match wal.compact(mark) {
        Err(WalError::Io { .. } | WalError::Full { .. }) if !wal.is_poisoned() => Ok(()),
        done => done,
    }
}
