//! A replica that runs ZAB: its part of each event and effect.
//!
//! The engine speaks over connections; `links.rs` makes them out of messages that may be lost. Its
//! history is the same log as Raft's: an entry's stamp is its id, and its content the command. The
//! members are those of the state that the replica started from, for as long as it runs.

use std::collections::{BTreeMap, VecDeque};

use quorate_raft::{ConfState, Entry, Role, Snapshot, TransferOutcome};
use quorate_types::{Index, Mark, NodeId, Term, bug};
use quorate_zab::{
    Address, Command, Event as ZabEvent, Member, Message as ZabMessage, Op, Outcome, ProposalId,
    ProposeError, ReadFailure, ReadId, Ready, Role as ZabRole, SoftState, Zab,
};

use crate::core::{Core, EngineStatus, PendingWrite, check_writes};
use crate::event::Applying;
use crate::proposals::Asked;
use crate::storage::LogInMemory;
use crate::{
    Config, Event, Fatal, HardState, Initial, Message, Refusal, RequestId, StartError, Write,
    WriteId,
};

mod history;
mod links;
pub(crate) mod packet;

use history::{History, to_log};
use links::Links;
use packet::{Body, Packet};

/// The longest command that fits into a frame with all that goes with it.
const CONTENT_BYTES_MAX: u64 = 19 << 20;

/// Others wait so long for a member that installs a state: ten minutes, with ticks of 100 ms.
const INSTALL_TICKS_MAX: u64 = 6_000;

pub(crate) struct OnZab {
    zab: Zab<History>,
    links: Links,
    /// Writes handed out and not yet durable, oldest first.
    pub(crate) writes: VecDeque<PendingWrite<()>>,
    /// How much they add to the log.
    writes_bytes: u64,
    /// Requests of this node that the engine has, by its name for them.
    requests: BTreeMap<ProposalId, RequestId>,
    voters: Vec<NodeId>,
    soft_state: SoftState,
    /// This node leads an epoch in which nothing was proposed yet.
    opens_epoch: bool,
    /// How much of the present tick is over, as far as it was told.
    elapsed_ms: u64,
    /// The disk stands still: the node is mute until it goes on.
    is_mute: bool,
    /// The engine was told that the log holds more than it may.
    is_stalled: bool,
    /// The last entry that the machine was handed, and its epoch.
    handed: (Index, Term),
    /// In which reign it serves, and how much must have been handed to the machine before it is known
    /// what became of all that was asked for in earlier ones.
    known_at: (u64, Index),
    /// Proposals wait until that is known.
    lays_aside: bool,
}

impl OnZab {
    pub(crate) fn new(core: &mut Core, initial: Initial) -> Result<Self, StartError> {
        let config = &core.config;
        let HardState::Zab(hard_state) = initial.hard_state.clone() else {
            return Err(Fatal("the log is not of this engine".to_owned()).into());
        };
        let voters = initial.conf_state.voters.clone();
        let history = History::new(LogInMemory::new(&initial)?, hard_state);
        let zab = Zab::new(engine_config(config, &voters, core.applied), history, 0);
        let zab = zab.map_err(|error| match error {
            quorate_zab::StartError::Config(error) => StartError::Zab(error),
            quorate_zab::StartError::Storage(error) => Fatal(error.to_string()).into(),
        })?;
        let early_bytes_max = 2 * config.inflight_bytes_max + (4 << 20);
        let open_ticks_max = config.election_ticks.into();
        let links = Links::new(
            config.node,
            config.seed,
            config.message_bytes_max,
            early_bytes_max,
            open_ticks_max,
        );
        let soft_state = zab.glance().soft_state;
        Ok(OnZab {
            zab,
            links,
            writes: VecDeque::new(),
            writes_bytes: 0,
            requests: BTreeMap::new(),
            voters,
            soft_state,
            opens_epoch: false,
            elapsed_ms: 0,
            is_mute: false,
            is_stalled: false,
            handed: (core.applied, Term(0)),
            known_at: (0, Index(0)),
            lays_aside: false,
        })
    }

    pub(crate) fn handle(&mut self, core: &mut Core, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Tick => self.on_tick(core),
            Event::Elapsed(ms) => self.on_elapsed(core, ms),
            Event::Message(Message::Zab(packet)) => self.on_packet(core, packet),
            // The door takes none of the other engine's.
            Event::Message(Message::Raft(_)) => Ok(()),
            Event::ProposeChange { request, .. } => {
                core.effects.refused.push((request, Refusal::Unsupported));
                Ok(())
            }
            Event::Persisted(id) => self.on_persisted(core, id),
            Event::Applied(index) => {
                core.applied = core.applied.max(index);
                self.tell(ZabEvent::Applied(index))?;
                core.answer_reads();
                Ok(())
            }
            Event::Flushed(index) => {
                core.on_flushed(index);
                let applied = core.applied;
                core.compact(&mut self.zab.storage_mut().log, applied);
                Ok(())
            }
            Event::SnapshotMade(snapshot) => {
                core.on_snapshot_made();
                self.zab.storage_mut().keep_snapshot(&snapshot);
                Ok(())
            }
            Event::SnapshotSent { message, ok } => {
                let last = self.log().last();
                if core.on_snapshot_sent(message.to(), ok, last) {
                    self.drop_snapshot(core);
                }
                let mut events = Vec::new();
                // The door takes none of the other engine's.
                if let Message::Zab(packet) = message {
                    self.links.on_shipped(&packet, ok, &mut events);
                }
                self.tell_all(events)
            }
            Event::Unreachable(peer) => {
                self.links.on_unreachable(peer);
                Ok(())
            }
            Event::Absent(peer) => {
                let mut events = Vec::new();
                self.links.on_absent(peer, &mut events);
                self.tell_all(events)
            }
            // Who leads is found by an election, in which the greatest history wins.
            Event::Transfer(target) => {
                core.effects.transfers.push((target, TransferOutcome::Refused));
                Ok(())
            }
            Event::HandOver => self.tell(ZabEvent::Resign),
            Event::Campaign => Ok(()),
            Event::Propose { .. } | Event::Read(_) => {
                unreachable!("the replica itself takes these")
            }
        }
    }

    /// One round of work; whether there may be more.
    pub(crate) fn round(&mut self, core: &mut Core) -> Result<bool, Fatal> {
        let is_stalled = self.is_stalled(core);
        if is_stalled != self.is_stalled {
            self.is_stalled = is_stalled;
            self.tell(ZabEvent::Stalled(is_stalled))?;
        }
        if self.opens_epoch {
            // The machine learns of the epoch by its first entry, as it does of a term.
            let opened = self.zab.propose(Command::set("", bytes::Bytes::new()));
            self.opens_epoch = matches!(opened, Err(ProposeError::Busy));
        }
        // What was lost comes first, or the order would not be that in which it was asked for.
        if core.proposals.awaits_fate(self.reign()) {
            core.park();
            self.lays_aside = true;
        } else if std::mem::take(&mut self.lays_aside) {
            core.unpark();
        }
        while let Some(batch) = core.next_batch() {
            self.propose(core, batch);
        }
        if !core.leader.is_none()
            && let Some(number) = core.reads.next_number(&core.config, core.now_ticks)
        {
            self.zab.read(ReadId(number));
        }
        if !self.zab.has_ready() {
            return Ok(false);
        }
        let ready = self.zab.ready().map_err(fatal)?;
        self.take(core, ready);
        Ok(true)
    }

    /// The end of a turn; whether a snapshot was asked for in vain.
    pub(crate) fn finish(&mut self, core: &mut Core) -> bool {
        self.links.flush();
        for packet in self.links.take_out() {
            match packet.snapshot() {
                Some(metadata) => {
                    core.snapshots.on_sending(packet.to, metadata.index);
                    core.effects.snapshots.push(Message::Zab(packet));
                }
                None => core.effects.messages.push(Message::Zab(packet)),
            }
        }
        self.zab.storage().take_wanted()
    }

    pub(crate) fn status(&self) -> EngineStatus {
        let glance = self.zab.glance();
        let role = match (glance.soft_state.role, glance.soft_state.is_serving) {
            (ZabRole::Leading, true) => Role::Leader,
            (ZabRole::Following | ZabRole::Observing, true) => Role::Follower,
            _ => Role::Candidate,
        };
        let term = Term(glance.epoch.0.into());
        EngineStatus { term, commit: glance.commit, last: glance.last, role }
    }

    pub(crate) fn log(&self) -> &LogInMemory {
        &self.zab.storage().log
    }

    pub(crate) fn conf_state(&self) -> ConfState {
        self.log().conf_state().clone()
    }

    pub(crate) fn matched(&self) -> Vec<(NodeId, Index)> {
        let status = self.zab.status();
        let known =
            |learner: &quorate_zab::LearnerStatus| Some((node_of(&learner.fid)?, learner.matched));
        let mut matched: Vec<_> = status.learners.iter().filter_map(known).collect();
        if status.role == ZabRole::Leading {
            matched.push((status.id, status.last));
        }
        matched
    }

    pub(crate) fn check(&self) {
        check_writes(self.writes.iter());
        self.links.check();
        self.zab.check();
    }

    fn tell(&mut self, event: ZabEvent) -> Result<(), Fatal> {
        self.zab.handle(event).map_err(fatal)
    }

    fn tell_all(&mut self, events: Vec<ZabEvent>) -> Result<(), Fatal> {
        events.into_iter().try_for_each(|event| self.tell(event))
    }

    fn on_tick(&mut self, core: &mut Core) -> Result<(), Fatal> {
        core.now_ticks += 1;
        self.elapsed_ms = 0;
        core.expire();
        let mut events = Vec::new();
        self.fall_silent_if_stalled(core, &mut events);
        self.links.on_tick(core.now_ticks, self.is_installing(core), &mut events);
        self.tell_all(events)?;
        if !self.is_mute {
            self.tell(ZabEvent::Tick { now_ms: core.now_ticks * core.config.tick_ms })?;
        }
        if self.zab.storage().keeps_snapshot() && core.is_snapshot_idle() {
            self.drop_snapshot(core);
        }
        core.follow_peers(|| self.matched());
        let applied = core.applied;
        core.compact_if_long(&mut self.zab.storage_mut().log, applied);
        Ok(())
    }

    /// Time between two ticks. A tick is as long as it is meant to be, whatever another clock says.
    fn on_elapsed(&mut self, core: &Core, ms: u64) -> Result<(), Fatal> {
        self.elapsed_ms = ms.min(core.config.tick_ms);
        let now_ms = core.now_ticks * core.config.tick_ms + self.elapsed_ms;
        if self.goes_by_ticks() || now_ms < self.zab.wake_ms() {
            self.zab.set_now(now_ms);
            return Ok(());
        }
        self.tell(ZabEvent::Tick { now_ms })
    }

    /// While there is a leader, no time matters that is shorter than a tick.
    fn goes_by_ticks(&self) -> bool {
        self.is_mute || self.soft_state.is_serving
    }

    pub(crate) fn wake_ms(&self, core: &Core) -> Option<u64> {
        let tick_ms = core.config.tick_ms;
        let due_ms = self.zab.wake_ms().saturating_sub(core.now_ticks * tick_ms);
        // What is due already has been seen to.
        let wake_ms = due_ms.max(self.elapsed_ms + 1);
        (!self.goes_by_ticks() && wake_ms < tick_ms).then_some(wake_ms)
    }

    /// A node whose disk stands still can neither lead nor vouch for anything: it ends its connections
    /// and takes part in no election until its oldest write is done, so that the others go on. Alone
    /// it would gain nothing by that; and a received snapshot may well take its time.
    fn fall_silent_if_stalled(&mut self, core: &Core, events: &mut Vec<ZabEvent>) {
        let oldest = self.writes.front().filter(|pending| pending.write.install.is_none());
        if !self.is_mute && 1 < self.voters.len() && core.is_stalled(oldest) {
            self.is_mute = true;
            self.links.close_all(events);
        }
    }

    /// Whether a received state is being installed, and others are to wait for that.
    fn is_installing(&self, core: &Core) -> bool {
        let mut installs = self.writes.iter().filter(|pending| pending.write.install.is_some());
        installs.any(|pending| core.now_ticks < pending.since_ticks + INSTALL_TICKS_MAX)
    }

    fn on_packet(&mut self, core: &Core, packet: Packet) -> Result<(), Fatal> {
        if self.is_mute {
            return Ok(());
        }
        let Packet { from, mut body, .. } = packet;
        // Lost: they are said again until there is room for them, or the leader gives this member up.
        if let Body::Data { messages, .. } = &mut body
            && messages.iter().any(is_entry)
            && self.is_stalled(core)
        {
            messages.clear();
        }
        // Each may ask for a further write; what is not taken in is said again.
        let asks = matches!(&body, Body::Data { messages, .. } if !messages.is_empty());
        if asks && core.config.writes_count_max <= self.writes.len() {
            return Ok(());
        }
        let mut events = Vec::new();
        if let Body::Vote(vote) = body {
            events.push(ZabEvent::Datagram { from: election_address(from), vote });
        } else {
            self.links.on_packet(from, body, &mut events);
        }
        self.tell_all(events)
    }

    /// Whether the log holds more than it may, since what is committed cannot be flushed. What is not
    /// committed does not count: it may be what the rest waits for.
    fn is_stalled(&self, core: &Core) -> bool {
        let (log, bytes_max) = (self.log(), core.config.stalled_bytes_max());
        if log.bytes() + self.writes_bytes < bytes_max {
            return false;
        }
        let commit = self.zab.glance().commit;
        let on_its_way = if log.last() < commit { self.writes_bytes } else { 0 };
        bytes_max <= log.bytes_through(commit) + on_its_way
            && !bug!("a-log-that-cannot-be-flushed-grows")
    }

    /// Which time it is that this node follows a leader, or leads; see `passed_on.rs`.
    fn reign(&self) -> u64 {
        self.zab.glance().roles_left
    }

    fn propose(&mut self, core: &mut Core, batch: Vec<(Asked, Entry)>) {
        for (asked, entry) in batch {
            let request = asked.request;
            let reign = self.reign();
            let content = entry.data.clone().unwrap_or_default();
            match self.zab.propose(Command::set("", content)) {
                Ok(id) => {
                    self.requests.insert(id, request);
                    core.proposals.pass_on(reign, [(asked, entry)]);
                }
                Err(why) => core.effects.refused.push((request, refusal(&why))),
            }
        }
    }

    /// Sorts one batch of the engine's work into effects.
    fn take(&mut self, core: &mut Core, ready: Ready) {
        if let Some(soft_state) = ready.soft_state {
            self.on_soft_state(core, soft_state);
        }
        for (to, vote) in ready.datagrams {
            if let (false, Some(to)) = (self.is_mute, node_of(&to)) {
                let packet = Packet { from: core.config.node, to, body: Body::Vote(vote) };
                core.effects.messages.push(Message::Zab(packet));
            }
        }
        for address in ready.connect {
            if let Some(peer) = node_of(&address) {
                self.links.dial(peer, address);
            }
        }
        for (conn, message) in ready.messages {
            self.links.push(conn, message);
        }
        for conn in ready.close {
            self.links.close(conn);
        }
        if let Some(write) = ready.write {
            let write = to_write(write);
            core.effects.writes.push(write.clone());
            let since_ticks = core.now_ticks;
            self.writes_bytes += bytes_of(&write);
            self.writes.push_back(PendingWrite { write, responses: (), since_ticks });
        }
        let mut bytes = 0;
        for entry in ready.committed {
            let (index, term) = (entry.index, Term(entry.zxid.epoch().0.into()));
            let content = entry.command.content;
            bytes += content.len() as u64;
            core.proposals.see_committed(Some(&content));
            self.handed = (index, term);
            core.effects.apply.push(match entry.command.op.is_applied() && !content.is_empty() {
                true => Applying::Command { index, term, entry: content },
                false => Applying::Empty { index, term },
            });
        }
        core.snapshots.on_applying(bytes);
        for (id, outcome) in ready.answers {
            let Some(request) = self.requests.remove(&id) else { continue };
            match outcome {
                Outcome::Refused { reason } => {
                    core.proposals.forget(request);
                    core.effects.refused.push((request, refusal_in_words(&reason)));
                }
                // The machine answers what is applied; of the rest it is seen below what became.
                Outcome::Committed { .. } | Outcome::Unknown | Outcome::Answered { .. } => {}
            }
        }
        self.propose_lost(core);
        for (ReadId(number), answer) in ready.reads {
            let context = core.reads.context(number);
            match answer {
                Ok(index) => core.reads.on_confirmed(&context, index),
                Err(ReadFailure::NoLeader | ReadFailure::Busy | ReadFailure::Unsupported | _) => {
                    core.reads.on_lost(&context, &mut core.effects.reads);
                }
            }
        }
        core.answer_reads();
        core.effects.notes.extend(ready.notes.into_iter().map(Into::into));
    }

    /// Proposes again what earlier leaders were asked for, once it is known that nothing came of it. A
    /// member serves before its leader is established: only what is committed in this epoch shows that no
    /// earlier leader's tail can win any more.
    fn propose_lost(&mut self, core: &mut Core) {
        let reign = self.reign();
        if !self.soft_state.is_serving || !core.proposals.awaits_fate(reign) {
            return;
        }
        if self.known_at.0 < reign {
            self.known_at = (reign, self.zab.glance().last);
        }
        let (index, epoch) = self.handed;
        let is_established = epoch.0 == u64::from(self.zab.glance().epoch.0);
        if (is_established && self.known_at.1 <= index)
            || bug!("what-a-new-leader-holds-is-called-lost")
        {
            core.proposals.refuse_overtaken(reign, &mut core.effects.refused);
            core.proposals.propose_lost(reign);
        }
    }

    fn on_soft_state(&mut self, core: &mut Core, soft_state: SoftState) {
        let leads = |of: SoftState| of.role == ZabRole::Leading && of.is_serving;
        self.opens_epoch = leads(soft_state) && (self.opens_epoch || !leads(self.soft_state));
        self.soft_state = soft_state;
        // Between two epochs of one leader there is a time without one.
        core.on_leader(if soft_state.is_serving { soft_state.leader } else { NodeId::NONE });
    }

    fn on_persisted(&mut self, core: &mut Core, id: WriteId) -> Result<(), Fatal> {
        while self.writes.front().is_some_and(|pending| pending.write.id <= id) {
            let Some(pending) = self.writes.pop_front() else { break };
            self.writes_bytes -= bytes_of(&pending.write);
            if let Some(snapshot) = &pending.write.install {
                core.on_installed(snapshot);
                self.handed = self.handed.max((snapshot.metadata.index, snapshot.metadata.term));
            }
            self.zab.storage_mut().keep(pending.write)?;
            if std::mem::take(&mut self.is_mute) {
                let now_ms = core.now_ticks * core.config.tick_ms;
                self.tell(ZabEvent::StandBack { now_ms })?;
            }
        }
        self.tell(ZabEvent::Persisted(quorate_zab::WriteId(id.0)))?;
        core.answer_reads();
        Ok(())
    }

    fn drop_snapshot(&mut self, core: &mut Core) {
        self.zab.storage_mut().drop_snapshot();
        core.effects.drop_snapshot = true;
    }
}

fn bytes_of(write: &Write) -> u64 {
    write.entries.iter().map(|entry| entry.data.as_ref().map_or(0, |data| data.len() as u64)).sum()
}

/// Whether it makes the log longer.
fn is_entry(message: &ZabMessage) -> bool {
    match message {
        ZabMessage::Proposal(_) | ZabMessage::Inform(_) => true,
        ZabMessage::LogEntry(entry) => {
            ![Op::STREAM_BEGIN, Op::STREAM_END].contains(&entry.command.op)
        }
        _ => false,
    }
}

/// A write in the words that both engines share.
fn to_write(write: quorate_zab::Write) -> Write {
    let quorate_zab::Write { id, install, replace_from, entries, hard_state } = write;
    let mark = install.as_ref().map(|snapshot| Mark {
        index: snapshot.index,
        stamp: snapshot.zxid.0,
        data: snapshot.data.clone(),
    });
    // Nothing stays behind a snapshot, and a tail may go without another in its place.
    let cut_from = match &install {
        Some(snapshot) => Some(snapshot.index.next()),
        None => replace_from.filter(|_| entries.is_empty()),
    };
    let install = install.as_ref().and_then(packet::metadata);
    Write {
        id: WriteId(id.0),
        hard_state: hard_state.map(HardState::Zab),
        cut_from,
        entries: to_log(entries),
        install: install.map(|metadata| Snapshot { metadata, ..Snapshot::default() }),
        mark,
        must_sync: true,
    }
}

fn engine_config(config: &Config, voters: &[NodeId], applied: Index) -> quorate_zab::Config {
    let members = voters.iter().map(|id| member(*id)).collect();
    let election_ms = u64::from(config.election_ticks) * config.tick_ms;
    let keepalive_ms = u64::from(config.heartbeat_ticks) * config.tick_ms;
    let default = quorate_zab::Config::new(member(config.node), members);
    // All that has waited for a leader may be asked of it at once.
    let proposals_count_max = default.proposals_count_max.max(config.parked_count_max);
    quorate_zab::Config {
        seed: config.seed,
        applied,
        keepalive_ms,
        peer_silence_ms: election_ms.max(2 * keepalive_ms),
        sync_timeout_ms: default.sync_timeout_ms.max(3 * election_ms),
        establish_timeout_ms: 3 * election_ms,
        // A voter is worth a pause of some heartbeats.
        outbid_ms: 3 * election_ms,
        accept_timeout_ms: default.accept_timeout_ms.max(3 * election_ms),
        key_bytes_max: 1,
        content_bytes_max: (config.command_bytes_max + crate::ENVELOPE_BYTES as u64)
            .min(CONTENT_BYTES_MAX),
        requests_count_max: default.requests_count_max.max(config.parked_count_max),
        proposals_count_max,
        behind_count_max: default.behind_count_max.max(2 * proposals_count_max as u64),
        proposals_bytes_max: config.uncommitted_bytes_max,
        reads_count_max: config.reads_max,
        connection_bytes_max: config.inflight_bytes_max,
        applying_bytes_max: config.applying_bytes_max,
        // Also who has no vote has to see what is under way, before it takes what it asked for as lost.
        commit_only: false,
        ..default
    }
}

/// A member by the names that the engine knows it by. They order as its id does.
fn member(id: NodeId) -> Member {
    let message = Address::from(format!("{:016x}:m", id.0).as_str());
    Member { id, election: election_address(id), message }
}

fn election_address(id: NodeId) -> Address {
    Address::from(format!("{:016x}:e", id.0).as_str())
}

fn node_of(address: &Address) -> Option<NodeId> {
    let (id, _) = address.as_str().split_once(':')?;
    u64::from_str_radix(id, 16).ok().map(NodeId)
}

fn refusal(why: &ProposeError) -> Refusal {
    match *why {
        ProposeError::Resigning => Refusal::Transferring,
        ProposeError::TooLarge { bytes, bytes_max, .. } => Refusal::TooLarge { bytes, bytes_max },
        ProposeError::Busy => Refusal::Busy,
        _ => Refusal::NoLeader,
    }
}

/// The leader's refusal travels as the text of its error.
fn refusal_in_words(reason: &str) -> Refusal {
    let known = [ProposeError::Resigning, ProposeError::Busy, ProposeError::NoLeader];
    known.iter().find(|why| why.to_string() == reason).map_or(Refusal::Busy, refusal)
}

fn fatal(error: quorate_zab::Fatal) -> Fatal {
    Fatal(error.to_string())
}
