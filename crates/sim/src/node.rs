//! One member as a process on a disk: the production replica, log and machine, carried as `runtime`
//! carries them, with each thread's work an event that takes its time.
//!
//! ```text
//! world ─ events ─► handle ─► replica ─► effects ─► network, disk work, apply work, answers
//!                                                       └─ done later: an event of its own
//! ```
//! A crash may fall into the middle of any work: some of its operations happen, the rest never.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use bytes::{Bytes, BytesMut};
use quorate_codec as codec;
use quorate_kv::{
    Apply, Entry, KvError, RangeRequest, Response, Store, StreamId, WatchLimits, Watches,
};
use quorate_raft::{AnyConfChange, Role, SnapshotMetadata};
use quorate_replica::{
    Applying, Effects, Event as ReplicaEvent, Glance, LogWrite, Message, ReadId, Refusal, Replica,
    RequestId, RequestIds, Step, Write, WriteId, Writing, Written, open, seal, speaks_for,
};
use quorate_types::{Index, Mark, NodeId, Term};
use quorate_wal::{Wal, WalError};

use crate::disk::SimDisk;
use crate::member::{self, Started};
use crate::serving::Listener;
use crate::transfer::{Chunk, Outgoing, Receiver};
use crate::world::{Cx, OpId, What};

/// Requests that may wait for their answer at one member.
pub(crate) const REQUESTS_MAX: usize = 400;
/// How often a write that found the volume full is tried again.
const FULL_RETRY_US: u64 = 200_000;
/// Keys looked at in one step of removing what compaction has forgotten.
const COMPACT_KEYS: usize = 1000;

/// What a client asks.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Change(quorate_kv::Command),
    Read(RangeRequest),
    Membership(AnyConfChange),
    /// A lease is to live on.
    Renew(i64),
}

/// What a read is for.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    Range(RangeRequest),
    /// It only has to be shown that who renewed a lease still leads.
    Renewal {
        lease: i64,
        term: Term,
        ttl_seconds: i64,
    },
}

/// What happened to what a disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Damage {
    #[default]
    None,
    /// Something is not what was written, and shows that.
    Rot,
    /// Something was never written, although the disk said so.
    Lie,
}

/// A member that ends by itself says why; only for these reasons may it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Excuse {
    /// An operation of its disk was made to fail.
    pub(crate) has_failed: bool,
    /// Its disk had no space left.
    pub(crate) was_full: bool,
}

/// What a member answers.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Changed(Result<Response, KvError>),
    Read(Result<quorate_kv::RangeResponse, KvError>),
    /// A lease lives so many seconds from now on.
    #[allow(dead_code, reason = "shown in traces")]
    Renewed(i64),
    /// It certainly has not happened and never will; why, for traces.
    #[allow(dead_code, reason = "shown in traces")]
    Refused(&'static str),
}

/// One member, running or not.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    /// Which process this is: events for an earlier one are void.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    pub(crate) voters_at_birth: Vec<NodeId>,
    pub(crate) tick_us: u64,
    /// How far its clock has been set back since the process started.
    pub(crate) set_back_us: u64,
    pub(crate) paused_until: u64,
    pub(crate) disk_hangs: bool,
    /// Its state cannot be flushed, for want of space, and waits.
    pub(crate) flush_hangs: bool,
    /// It was given up: removed, or its disk has lost what it vouched for.
    pub(crate) is_gone: bool,
    /// Its disk was damaged: it may refuse to start, and then is replaced.
    pub(crate) damage: Damage,
    pub(crate) excuse: Excuse,
}

/// What lives only as long as the process.
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) store: Store,
    pub(crate) started_us: u64,
    pub(crate) ids: RequestIds,
    pub(crate) reads: BTreeMap<ReadId, (usize, OpId, Reading)>,
    pub(crate) next_read: u64,
    pub(crate) watches: Watches,
    pub(crate) listeners: BTreeMap<StreamId, Listener>,
    pub(crate) ticks: u64,
    /// When the last message came from each other member.
    pub(crate) heard: BTreeMap<NodeId, u64>,
    writing: Writing,
    wal: Wal,
    waiters: BTreeMap<RequestId, (usize, OpId)>,
    /// Until when they wait, oldest first.
    deadlines: VecDeque<(u64, RequestId)>,
    disk_work: VecDeque<DiskWork>,
    apply_work: VecDeque<ApplyWork>,
    disk_is_busy: bool,
    apply_is_busy: bool,
    flush_under_way: Option<Option<Index>>,
    kept: Option<(SnapshotMetadata, quorate_kv::Snapshot)>,
    pub(crate) outgoing: BTreeMap<u64, Outgoing>,
    pub(crate) receiver: Receiver,
    last: Option<Glance>,
}

enum DiskWork {
    /// A group, and its last write.
    Write(WriteId, Vec<quorate_wal::Write>),
    Compact(Mark),
}

enum ApplyWork {
    Apply(Vec<Applying>),
    Flush,
    MakeSnapshot,
    Install(SnapshotMetadata),
}

/// Why a process ended by itself.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) String);

impl<E: std::error::Error> From<E> for Ended {
    fn from(error: E) -> Self {
        Ended(error.to_string())
    }
}

pub(crate) type Going = Result<(), Ended>;

impl Node {
    pub(crate) fn new(id: NodeId, voters_at_birth: Vec<NodeId>, tick_us: u64) -> Node {
        Node {
            id,
            disk: SimDisk::default(),
            life: 0,
            process: None,
            voters_at_birth,
            tick_us,
            set_back_us: 0,
            paused_until: 0,
            disk_hangs: false,
            flush_hangs: false,
            is_gone: false,
            damage: Damage::None,
            excuse: Excuse::default(),
        }
    }

    /// Whether it may end for this reason: what was done to its disk explains that, and nothing else.
    pub(crate) fn may_end(&self, why: &str) -> bool {
        let says = |word| why.contains(word);
        (self.excuse.has_failed && (says("injected") || says("I/O error")))
            || (self.excuse.was_full && (says("no storage space") || says("no space left")))
            || (self.damage != Damage::None && says("amage"))
    }

    pub(crate) fn glance(&self) -> Option<Glance> {
        self.process.as_ref().map(|process| process.replica.glance())
    }

    pub(crate) fn leads(&self) -> bool {
        self.glance().is_some_and(|glance| glance.role == Role::Leader)
    }

    /// What its clock shows, in milliseconds since the process started.
    pub(crate) fn clock_ms(&self, now: u64) -> u64 {
        let started = self.process.as_ref().map_or(now, |process| process.started_us);
        (now - started).saturating_sub(self.set_back_us) / 1000
    }

    /// Starts from what the disk holds.
    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> Going {
        self.life += 1;
        self.set_back_us = 0;
        let seed = cx.chance.number();
        let started = member::start(self, cx.plan, seed, cx.now);
        let Started { wal, store, initial } = started.map_err(Ended)?;
        cx.checks.on_start(self.id, self.damage, &initial)?;
        cx.checks.on_state(self.id, &store);
        let config = cx.plan.replica_config(self.id, seed);
        let replica = Replica::new(config, initial)?;
        let started_ms = cx.now / 1000 + self.life;
        let watches = Watches::new(WatchLimits::default(), &store);
        self.process = Some(Process {
            replica,
            store,
            started_us: cx.now,
            watches,
            listeners: BTreeMap::new(),
            ticks: 0,
            heard: BTreeMap::new(),
            writing: Writing::default(),
            wal,
            ids: RequestIds::new(self.id, started_ms),
            waiters: BTreeMap::new(),
            deadlines: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            disk_work: VecDeque::new(),
            apply_work: VecDeque::new(),
            disk_is_busy: false,
            apply_is_busy: false,
            flush_under_way: None,
            kept: None,
            outgoing: BTreeMap::new(),
            receiver: Receiver::default(),
            last: None,
        });
        cx.after(self.tick_us, self.id, self.life, What::Tick);
        self.settle(cx)
    }

    /// Ends the process at once, perhaps in the middle of its work.
    pub(crate) fn crash(&mut self, cx: &mut Cx<'_>, loses_power: bool) {
        let Some(mut process) = self.process.take() else { return };
        // Whoever receives from it notices that the connection is gone.
        for (transfer, outgoing) in std::mem::take(&mut process.outgoing) {
            cx.send_chunk_always(self.id, self.life, outgoing.to, transfer, Chunk::Broken);
        }
        self.life += 1;
        self.disk.light_fuse(cx.chance.below(14));
        if process.disk_is_busy && cx.chance.percent(60) {
            match process.disk_work.front() {
                Some(DiskWork::Write(_, group)) => drop(process.wal.append(group)),
                Some(DiskWork::Compact(mark)) => drop(process.wal.compact(mark)),
                None => {}
            }
        }
        if process.flush_under_way == Some(None) && cx.chance.percent(60) {
            let _ = process.store.flush();
        }
        if let Some(ApplyWork::Install(metadata)) = process.apply_work.front()
            && cx.chance.percent(60)
        {
            let _ = member::replace(&self.disk, &process.store, metadata);
        }
        self.disk.light_fuse(0);
        if let Some((peer, _, transfer)) = process.receiver.take_open() {
            cx.tell_sender(self.id, peer, transfer, false);
        }
        Node::hang_up(cx, std::mem::take(&mut process.listeners).into_values());
        drop(process);
        if loses_power {
            self.disk.lose_power(cx.chance);
        } else {
            self.disk.kill();
        }
        cx.checks.on_end(self.id);
    }

    /// Does what an event asks for.
    pub(crate) fn handle(&mut self, cx: &mut Cx<'_>, what: What) -> Going {
        if let What::Tick = what {
            cx.after(self.tick_us, self.id, self.life, What::Tick);
            self.on_time(cx)?;
        }
        match what {
            What::Tick | What::ExtraTick => {
                self.process().writing.on_tick();
                self.feed(cx)?;
                self.event(ReplicaEvent::Tick)?;
            }
            What::Deliver { from, bytes } => self.on_message(cx, from, bytes)?,
            What::Ask { client, op, ask } => self.on_ask(cx, client, op, ask)?,
            What::Disk => self.on_disk(cx)?,
            What::Apply => self.on_apply(cx)?,
            What::Flush => self.on_flush(cx)?,
            What::SendChunk { transfer } => self.on_send_chunk(cx, transfer)?,
            What::Chunk { from, from_life, transfer, chunk } => {
                self.on_chunk(cx, from, from_life, transfer, chunk)?;
            }
            What::Sent { transfer, ok } => self.on_sent(transfer, ok)?,
            What::Watch { watcher, connection, request, is_slow } => {
                self.on_watch(cx, (watcher, connection), request, is_slow)?;
            }
            What::Unwatch { watcher, connection } => self.on_unwatch(watcher, connection),
            What::Transfer(target) => self.event(ReplicaEvent::Transfer(target))?,
            What::HandOver => self.event(ReplicaEvent::HandOver)?,
            What::Unreachable(to) => self.event(ReplicaEvent::Unreachable(to))?,
        }
        self.settle(cx)
    }

    /// Lets the disk go on that had stopped.
    pub(crate) fn release_disk(&mut self, cx: &mut Cx<'_>) {
        self.disk_hangs = false;
        let (id, life) = (self.id, self.life);
        if let Some(process) = &self.process
            && process.disk_is_busy
        {
            cx.after(1000, id, life, What::Disk);
        }
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("events of a process come only while it runs")
    }

    pub(crate) fn event(&mut self, event: ReplicaEvent) -> Going {
        Ok(self.process().replica.handle(event)?)
    }

    fn on_message(&mut self, cx: &mut Cx<'_>, from: NodeId, bytes: Bytes) -> Going {
        match Message::decode(cx.plan.engine, bytes) {
            Ok(message) if message.to() == self.id && speaks_for(&message, from) => {
                self.process().heard.insert(from, cx.now);
                self.event(ReplicaEvent::Message(message))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                cx.checks.fail(format!("{}: a message cannot be decoded: {error}", self.id));
                Ok(())
            }
        }
    }

    fn on_ask(&mut self, cx: &mut Cx<'_>, client: usize, op: OpId, ask: Ask) -> Going {
        let id = self.id;
        let process = self.process();
        match ask {
            Ask::Read(range) if range.serializable => {
                let answer = process.store.range(&range);
                cx.checks.on_serializable(id, &answer);
                cx.answer(client, op, Said::Read(answer));
                Ok(())
            }
            Ask::Read(range) => {
                process.next_read += 1;
                let read = ReadId(process.next_read);
                process.reads.insert(read, (client, op, Reading::Range(range)));
                self.event(ReplicaEvent::Read(read))
            }
            Ask::Change(command) => {
                // What was passed on may be lost: whoever waits for that waits no longer.
                while let Some(&(until, request)) = process.deadlines.front()
                    && until <= cx.now
                {
                    process.deadlines.pop_front();
                    process.waiters.remove(&request);
                }
                if REQUESTS_MAX <= process.waiters.len() {
                    cx.answer(client, op, Said::Refused("too many wait"));
                    return Ok(());
                }
                let request = process.ids.draw();
                let mut entry = BytesMut::new();
                seal(request, &mut entry);
                command.encode(&mut entry);
                process.waiters.insert(request, (client, op));
                process.deadlines.push_back((cx.now + cx.plan.clients.timeout_us, request));
                cx.checks.on_proposed(request, op);
                self.event(ReplicaEvent::Propose { request, entry: entry.freeze() })
            }
            Ask::Renew(lease) => self.on_renew(cx, client, op, lease),
            Ask::Membership(change) => {
                let request = process.ids.draw();
                process.waiters.insert(request, (client, op));
                self.event(ReplicaEvent::ProposeChange { request, change })
            }
        }
    }

    /// Carries out everything the replica asks for.
    fn settle(&mut self, cx: &mut Cx<'_>) -> Going {
        loop {
            let Some(effects) = self.process().replica.ready()? else { break };
            self.carry_out(cx, effects)?;
        }
        let (id, life) = (self.id, self.life);
        let process = self.process();
        if process.receiver.settle(process.writing.is_installing()) {
            let _ = member::remove_received(&self.disk);
        }
        let process = self.process();
        process.replica.check();
        let glance = process.replica.glance();
        if process.last != Some(glance) {
            let before = process.last.replace(glance);
            let replica = &process.replica;
            cx.checks.on_glance(id, life, before, glance, || replica.status());
        }
        Ok(())
    }

    fn carry_out(&mut self, cx: &mut Cx<'_>, effects: Effects) -> Going {
        let id = self.id;
        for message in effects.messages {
            cx.send(id, message.to(), &message);
        }
        for message in effects.snapshots {
            self.send_snapshot(cx, message)?;
        }
        for write in &effects.writes {
            cx.checks.on_write(id, write);
        }
        let process = self.process();
        process.writing.queue(effects.writes);
        process.disk_work.extend(effects.compact.map(DiskWork::Compact));
        if !effects.apply.is_empty() {
            process.apply_work.push_back(ApplyWork::Apply(effects.apply));
        }
        for (request, refusal) in effects.refused {
            cx.checks.on_refused(request);
            if let Some((client, op)) = process.waiters.remove(&request) {
                cx.answer(client, op, Said::Refused(reason(refusal)));
            }
        }
        for (read, outcome) in effects.reads {
            let Some((client, op, reading)) = self.process().reads.remove(&read) else { continue };
            let said = match outcome {
                Ok(()) => self.on_read_confirmed(cx, &reading),
                Err(_) => Said::Refused("the read was not confirmed"),
            };
            cx.answer(client, op, said);
        }
        let process = self.process();
        if effects.flush {
            process.apply_work.push_back(ApplyWork::Flush);
        }
        if effects.make_snapshot {
            process.apply_work.push_back(ApplyWork::MakeSnapshot);
        }
        if effects.drop_snapshot {
            process.kept = None;
        }
        cx.checks.on_queues(id, process.disk_work.len(), process.apply_work.len());
        self.feed(cx)
    }

    /// Gives idle threads their next work.
    fn feed(&mut self, cx: &mut Cx<'_>) -> Going {
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
        let (id, life, hangs) = (self.id, self.life, self.disk_hangs);
        let process = self.process();
        if !process.disk_is_busy && !process.disk_work.is_empty() {
            process.disk_is_busy = true;
            if !hangs {
                let latency = cx.plan.disk_us(cx.chance);
                cx.after(latency, id, life, What::Disk);
            }
        }
        if !process.apply_is_busy && !process.apply_work.is_empty() {
            process.apply_is_busy = true;
            let latency = cx.plan.apply_us(cx.chance);
            cx.after(latency, id, life, What::Apply);
        }
        Ok(())
    }

    /// The disk has done its oldest work, or found that it cannot.
    fn on_disk(&mut self, cx: &mut Cx<'_>) -> Going {
        let (id, life, hangs, damage) = (self.id, self.life, self.disk_hangs, self.damage);
        if hangs {
            return Ok(()); // goes on when it is released
        }
        let process = self.process();
        process.disk_is_busy = false;
        match process.disk_work.pop_front() {
            None => {}
            Some(DiskWork::Compact(mark)) => compact(&mut process.wal, &mark)?,
            Some(DiskWork::Write(last, group)) => match process.wal.append(&group) {
                Ok(()) => {
                    let is_synced = group.iter().any(syncs);
                    cx.checks.on_durable(id, last, is_synced, damage);
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

    fn on_apply(&mut self, cx: &mut Cx<'_>) -> Going {
        let (id, life) = (self.id, self.life);
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
                    true => Some(process.store.flush()?),
                    false => None,
                };
                process.flush_under_way = Some(early);
                let latency = 3 * cx.plan.disk_us(cx.chance);
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
        let id = self.id;
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
                Applying::Membership { index, term, conf_state, .. } => {
                    let conf_state = codec::encode_conf_state_record(&conf_state);
                    (index, term, None, Apply::Membership { conf_state, change: None })
                }
            };
            let answer_wanted =
                request.is_some_and(|request| process.waiters.contains_key(&request));
            requests.push(request);
            batch.push(Entry { index, term, what, answer_wanted });
        }
        let mut done = 0;
        while done < batch.len() {
            if process.store.needs_flush() {
                process.store.flush()?;
            }
            // Stops where states are compared.
            let every = cx.plan.compare_every;
            let until = batch[done..]
                .iter()
                .position(|entry| entry.index.0 % every == 0)
                .map_or(batch.len(), |at| done + at + 1);
            let outcome = process.store.apply(&batch[done..until])?;
            for (response, request) in outcome.responses.into_iter().zip(&requests[done..]) {
                done += 1;
                let waiter = request.and_then(|request| process.waiters.remove(&request));
                if let Some((client, op)) = waiter {
                    cx.answer(client, op, Said::Changed(response));
                }
            }
            cx.checks.on_state(id, &process.store);
        }
        let last = batch[done - 1].index;
        if process.store.removed_revision() < process.store.compact_revision()
            && process.store.compact_step(COMPACT_KEYS)?
            && process.flush_under_way.is_none()
        {
            process.flush_under_way = Some(None);
            let (latency, life) = (3 * cx.plan.disk_us(cx.chance), self.life);
            cx.after(latency, id, life, What::Flush);
        }
        self.tell(cx)?;
        self.event(ReplicaEvent::Applied(last))
    }

    fn on_flush(&mut self, cx: &mut Cx<'_>) -> Going {
        if self.flush_hangs {
            cx.after(FULL_RETRY_US, self.id, self.life, What::Flush);
            return Ok(());
        }
        let (id, plan) = (self.id, cx.plan);
        let process = self.process();
        let log_bytes = process.replica.status().log_bytes;
        cx.checks.on_log(id, log_bytes, plan.log_bytes_max());
        let early = process.flush_under_way.take().flatten();
        let index = match early {
            Some(index) => index,
            None => process.store.flush()?,
        };
        cx.checks.count("flushes");
        self.event(ReplicaEvent::Applied(index))?;
        self.event(ReplicaEvent::Flushed(index))
    }

    fn send_snapshot(&mut self, cx: &mut Cx<'_>, message: Message) -> Going {
        let to = message.to();
        let (id, life) = (self.id, self.life);
        let process = self.process();
        let kept = match (&process.kept, message.snapshot()) {
            (Some((metadata, view)), Some(wanted)) if *metadata == wanted => Some(view.reader()),
            _ => None,
        };
        let Some(reader) = kept else {
            return self.event(ReplicaEvent::SnapshotSent { to, ok: false });
        };
        let header = Bytes::from(message.encode().concat());
        let transfer = cx.next_transfer();
        process.outgoing.insert(transfer, Outgoing { to, reader, header: Some(header) });
        cx.checks.count("snapshots sent");
        cx.after(0, id, life, What::SendChunk { transfer });
        Ok(())
    }

    fn on_send_chunk(&mut self, cx: &mut Cx<'_>, transfer: u64) -> Going {
        let (id, life) = (self.id, self.life);
        let process = self.process();
        let Some(outgoing) = process.outgoing.get_mut(&transfer) else { return Ok(()) };
        let (to, chunk) = (outgoing.to, outgoing.next(cx.plan.chunk_bytes)?);
        let ends = matches!(chunk, Chunk::End);
        if cx.send_chunk(id, life, to, transfer, chunk) {
            if !ends {
                let pace = cx.chance.between(50, 4_000);
                cx.after(pace, id, life, What::SendChunk { transfer });
            }
            return Ok(());
        }
        // The connection broke; the other end notices as well.
        process.outgoing.remove(&transfer);
        cx.send_chunk_always(id, life, to, transfer, Chunk::Broken);
        self.event(ReplicaEvent::SnapshotSent { to, ok: false })
    }

    fn on_sent(&mut self, transfer: u64, ok: bool) -> Going {
        match self.process().outgoing.remove(&transfer) {
            Some(outgoing) => self.event(ReplicaEvent::SnapshotSent { to: outgoing.to, ok }),
            None => Ok(()),
        }
    }

    fn on_chunk(
        &mut self,
        cx: &mut Cx<'_>,
        from: NodeId,
        from_life: u64,
        transfer: u64,
        chunk: Chunk,
    ) -> Going {
        let (id, disk) = (self.id, self.disk.clone());
        let source = (from, from_life, transfer);
        let (cluster, engine) = (cx.plan.cluster, cx.plan.engine);
        match self.process().receiver.take(&disk, cluster, engine, id, source, chunk) {
            Ok(None) => Ok(()),
            Ok(Some(done)) => {
                cx.tell_sender(id, from, transfer, done.is_some());
                match done {
                    Some(message) => self.event(ReplicaEvent::Message(message)),
                    None => Ok(()),
                }
            }
            Err(error) => {
                cx.tell_sender(id, from, transfer, false);
                cx.checks.count("snapshots not received");
                // A disk that fails here fails no more than the transfer.
                let _: io::Error = error;
                Ok(())
            }
        }
    }
}

fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoLeader => "no leader",
        Refusal::Busy => "busy",
        Refusal::TooLarge { .. } => "too large",
        Refusal::Transferring => "transferring",
        Refusal::Superseded => "superseded",
        Refusal::Change => "change refused",
        Refusal::Removed => "removed",
        _ => "refused",
    }
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
