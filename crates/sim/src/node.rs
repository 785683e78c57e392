//! One member as a process on a disk: the production replica, log and machine, carried as `runtime`
//! carries them, with each thread's work an event that takes its time.
//!
//! ```text
//! world ─ events ─► handle ─► replica ─► effects ─► network, disk work, apply work, answers
//!                                                       └─ done later: an event of its own
//! ```
//! A crash may fall into the middle of any work: some of its operations happen, the rest never.

mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use quorate_kv::{KvError, RangeRequest, Response, Store, StreamId, WatchLimits, Watches};
use quorate_raft::{AnyConfChange, Role, SnapshotMetadata};
use quorate_replica::{
    Applying, Effects, Event as ReplicaEvent, Glance, Message, ReadId, Refusal, Replica, RequestId,
    RequestIds, WriteId, Writing, seal, speaks_for,
};
use quorate_types::{Index, Life, Mark, NodeId, Term};
use quorate_wal::Wal;

use crate::chance::Chance;
use crate::disk::{DiskFault, SimDisk};
use crate::lives::OTHER_LIFE;
use crate::member::{self, Started};
use crate::plan::Plan;
use crate::serving::{Errands, Listener};
use crate::transfer::{Chunk, Outgoing, Receiver};
use crate::world::{Cx, OpId, What};

/// Requests that may wait for their answer at one member.
pub(crate) const REQUESTS_MAX: usize = 400;

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
    /// All of it is gone.
    Wiped,
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
    pub(crate) clock: Clock,
    /// How many times as slow as others its disk is.
    pub(crate) slowness: u64,
    /// What its settings begin with.
    pub(crate) settings: u64,
    pub(crate) segment_bytes: u64,
    /// It loses power as soon as it has said something with its disk at work.
    pub(crate) is_ambushed: bool,
    /// It has said something since this was asked last.
    pub(crate) has_spoken: bool,
    /// What processes up to this one said and was on its way is lost.
    pub(crate) unheard: u64,
    /// By which log it goes on.
    pub(crate) log_life: Life,
    /// By which logs it knows members, and by which of them for good.
    pub(crate) lives: BTreeMap<NodeId, Life>,
    pub(crate) known: BTreeMap<NodeId, Life>,
    /// Who has refused it since it started.
    pub(crate) denied_by: BTreeSet<NodeId>,
    pub(crate) paused_until: u64,
    pub(crate) disk_hangs: bool,
    /// Its state cannot be flushed, for want of space, and waits.
    pub(crate) flush_hangs: bool,
    /// It was given up: removed, or its disk has lost what it vouched for.
    pub(crate) is_gone: bool,
    /// Its disk was damaged: it may refuse to start, and then is replaced.
    pub(crate) damage: Damage,
    /// Bits were flipped on its disk since it last started.
    pub(crate) has_rotted: bool,
    pub(crate) excuse: Excuse,
}

/// The clock that leases count by: it begins with the process, and nobody sees how fast it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it had shown when its rate was changed last, and when that was.
    shown_us: u64,
    since_us: u64,
    rate_permille: u64,
    /// How far it has been set back since the process started.
    pub(crate) set_back_us: u64,
}

impl Clock {
    fn start(&mut self, now: u64) {
        *self = Clock { shown_us: 0, since_us: now, set_back_us: 0, ..*self };
    }

    fn us(&self, now: u64) -> u64 {
        self.shown_us + (now - self.since_us) * self.rate_permille / 1000
    }

    pub(crate) fn run_at(&mut self, rate_permille: u64, now: u64) {
        *self = Clock { shown_us: self.us(now), since_us: now, rate_permille, ..*self };
    }

    fn ms(&self, now: u64) -> u64 {
        self.us(now).saturating_sub(self.set_back_us) / 1000
    }
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
    pub(crate) errands: Errands,
    /// When the last tick came.
    ticked_us: u64,
    /// When it is to be told the time between two ticks.
    wake_us: Option<u64>,
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
    pub(crate) kept: Option<(SnapshotMetadata, quorate_kv::Snapshot)>,
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
    pub(crate) fn new(
        id: NodeId,
        voters_at_birth: Vec<NodeId>,
        plan: &Plan,
        chance: &mut Chance,
    ) -> Node {
        let clock = Clock { shown_us: 0, since_us: 0, rate_permille: 1000, set_back_us: 0 };
        Node {
            id,
            disk: SimDisk::default(),
            life: 0,
            process: None,
            voters_at_birth,
            tick_us: plan.tick_us + chance.below(plan.tick_us / 10),
            clock,
            slowness: chance.between(1, plan.disk_spread),
            settings: 0,
            segment_bytes: plan.segment_bytes,
            is_ambushed: false,
            has_spoken: false,
            unheard: 0,
            log_life: Life::NONE,
            lives: BTreeMap::new(),
            known: BTreeMap::new(),
            denied_by: BTreeSet::new(),
            paused_until: 0,
            disk_hangs: false,
            flush_hangs: false,
            is_gone: false,
            damage: Damage::None,
            has_rotted: false,
            excuse: Excuse::default(),
        }
    }

    /// Whether it may end for this reason: what was done to its disk explains that, and nothing else.
    pub(crate) fn may_end(&self, why: &str) -> bool {
        let says = |word| why.contains(word);
        (self.excuse.has_failed && (says("injected") || says("I/O error")))
            || (self.excuse.was_full && (says("no storage space") || says("no space left")))
            || (self.damage != Damage::None && says("amage"))
            || (self.damage == Damage::Wiped && says(OTHER_LIFE))
    }

    pub(crate) fn glance(&self) -> Option<Glance> {
        self.process.as_ref().map(|process| process.replica.glance())
    }

    /// Whether its disk is at work, or has work to do.
    pub(crate) fn is_writing(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.disk_is_busy)
    }

    pub(crate) fn leads(&self) -> bool {
        self.glance().is_some_and(|glance| glance.role == Role::Leader)
    }

    /// What its clock shows, in milliseconds since the process started.
    pub(crate) fn clock_ms(&self, now: u64) -> u64 {
        self.clock.ms(now)
    }

    /// Starts from what the disk holds.
    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> Going {
        self.life += 1;
        self.clock.start(cx.now);
        self.denied_by.clear();
        self.is_ambushed = false;
        let seed = cx.chance.number();
        let lies = self.disk.lies_count();
        let started = member::start(self, cx.plan, seed);
        let has_lied = lies < self.disk.lies_count();
        let Started { wal, store, initial, life } = started.map_err(Ended)?;
        self.log_life = life;
        self.lives = self.known.clone();
        let has_rotted = std::mem::take(&mut self.has_rotted);
        cx.checks.on_start(self.id, self.damage, has_lied, has_rotted, &initial)?;
        cx.checks.on_state(self.id, &store);
        let config = cx.plan.replica_config(self.id, seed, self.settings);
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
            errands: Errands::default(),
            ticked_us: cx.now,
            wake_us: None,
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
        self.learn_lives()?;
        self.settle(cx)
    }

    /// Ends the process at once, perhaps in the middle of its work.
    pub(crate) fn crash(&mut self, cx: &mut Cx<'_>, loses_power: bool) {
        let Some(mut process) = self.process.take() else { return };
        // Whoever receives from it notices that the connection is gone.
        for (transfer, outgoing) in std::mem::take(&mut process.outgoing) {
            let to = outgoing.message.to();
            cx.send_chunk_always(self.id, self.life, to, transfer, Chunk::Broken);
        }
        if loses_power && cx.chance.percent(50) {
            self.unheard = self.life;
        }
        self.life += 1;
        // A commit of the machine's rows takes more operations than a write of the log.
        let ops = *cx.chance.pick(&[14, 14, 80]);
        self.disk.fail_in(cx.chance.below(ops), DiskFault::End);
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
        self.disk.fail_in(0, DiskFault::End);
        if let Some((peer, _, transfer)) = process.receiver.take_open() {
            cx.tell_sender(self.id, peer, transfer, false);
        }
        Node::hang_up(cx, std::mem::take(&mut process.listeners).into_values());
        drop(process);
        if loses_power {
            self.disk.restart(cx.chance.number());
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
        self.tell_time(cx)?;
        match what {
            What::Wake => {}
            What::Tick | What::ExtraTick => {
                self.process().writing.on_tick();
                self.feed(cx)?;
                self.process().ticked_us = cx.now;
                self.event(ReplicaEvent::Tick)?;
            }
            What::Deliver { from, bytes, .. } => self.on_message(cx, from, bytes)?,
            What::RefusedLife { by, life } => self.on_refused_life(by, life)?,
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

    /// How much of a tick is over, by this node's clock.
    fn tell_time(&mut self, cx: &Cx<'_>) -> Going {
        let elapsed_us = (cx.now - self.process().ticked_us) * cx.plan.tick_us / self.tick_us;
        self.event(ReplicaEvent::Elapsed(elapsed_us / 1000))
    }

    /// Has the replica told the time when it wants to know it.
    fn wake_in_time(&mut self, cx: &mut Cx<'_>) {
        let (tick_us, id, life) = (self.tick_us, self.id, self.life);
        let process = self.process();
        // Rounded up: a moment too early would be in vain.
        let since_us = |ms: u64| (ms * 1000 * tick_us).div_ceil(cx.plan.tick_us);
        let wake_us = process.replica.wake_ms().map(|ms| process.ticked_us + since_us(ms));
        if let Some(at) = wake_us.filter(|_| process.wake_us != wake_us) {
            cx.after(at.saturating_sub(cx.now), id, life, What::Wake);
        }
        process.wake_us = wake_us;
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
        self.wake_in_time(cx);
        Ok(())
    }

    fn carry_out(&mut self, cx: &mut Cx<'_>, effects: Effects) -> Going {
        let id = self.id;
        self.has_spoken |= !effects.messages.is_empty();
        for message in effects.messages {
            cx.send(id, self.life, message.to(), &message);
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
            process.errands.on_outcome(request);
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
