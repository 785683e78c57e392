//! The one loop: one event in, all effects out.
//!
//! ```text
//!   calls (bounded) ───┐                       ┌──► net      messages, at once
//!   net (bounded)   ───┼──► Replica::handle ───┼──► disk     one group at a time
//!   disk, apply     ───┤    Replica::ready     ├──► apply    bounded by bytes in the replica
//!   clock           ───┘                       └──► callers  refusals and reads
//! ```
//! It runs on a thread of its own, so that nothing a client asks for can delay a heartbeat. It
//! decides nothing about consensus, nor in which order what becomes durable: that is the replica's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_kv::{Command, MemberChange, Members};
use quorate_net::{Net, NetEvent, PeerStatus, RefusedBy};
use quorate_raft::{Entries, Role};
use quorate_replica as replica;
use quorate_replica::{
    Asked, Effects, Engine, Event, FeedError, LogWrite, Message, Place, ReadFailure, ReadId,
    Refusal, Replica, RequestId, Step, Write, Writing, speaks_for,
};
use quorate_types::{Index, NodeId};
use tokio::sync::{mpsc, oneshot};

use crate::apply::{Done, Work};
use crate::board::Board;
use crate::changing::change_of_engine;
use crate::disk::{self, Written};
use crate::node::{Answer, FatalError, Judge, Standing};
use crate::notes;
use crate::peers::Peers;
use crate::snapshot::{Receiver, Sender};
use crate::waiters::Waiters;

/// Events taken from one queue in one turn, so that no queue starves another.
const BATCH_MAX: usize = 1024;

/// What a handle asks of the loop.
pub(crate) enum Call {
    /// A command.
    Propose { request: RequestId, entry: Bytes },
    /// A change of members.
    Change { request: RequestId, judge: Judge },
    /// How things stand, if this node leads.
    Standing(oneshot::Sender<Option<Standing>>),
    /// A linearizable read.
    Read(oneshot::Sender<Result<(), ReadFailure>>),
    /// What is applied after a place, in as many bytes.
    Follow(Place, u64, oneshot::Sender<Result<Entries, FeedError>>),
    /// Hand leadership to a node.
    Transfer(NodeId),
    /// Hand leadership to whoever is best prepared, if this node leads.
    HandOver,
    /// End.
    Stop,
}

/// Everything the loop holds.
pub(crate) struct Driver {
    pub(crate) node: NodeId,
    pub(crate) engine: Engine,
    pub(crate) peers: Peers,
    /// The members, as of what is told of as applied. The loop never waits for the machine.
    pub(crate) members: Members,
    /// As of where in the log: two that are equal stand for the same list.
    pub(crate) members_index: Index,
    pub(crate) replica: Replica,
    pub(crate) tick: Duration,
    /// When the last tick was told.
    pub(crate) ticked: Instant,
    pub(crate) net: Net,
    pub(crate) board: Arc<Board>,
    pub(crate) waiters: Arc<Waiters<Answer>>,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) net_events: mpsc::Receiver<NetEvent>,
    pub(crate) written: mpsc::UnboundedReceiver<Written>,
    pub(crate) done: mpsc::UnboundedReceiver<Done>,
    pub(crate) disk: blocking::Sender<disk::Work>,
    pub(crate) apply: blocking::Sender<Work>,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) writing: Writing,
    pub(crate) reads: HashMap<ReadId, oneshot::Sender<Result<(), ReadFailure>>>,
    pub(crate) next_read: u64,
    /// When the last message came from each member.
    pub(crate) heard: BTreeMap<NodeId, Instant>,
    /// How far a flush came, while that is not told of as applied.
    pub(crate) flushed: Option<Index>,
}

impl Driver {
    /// Runs until it is told to stop or the node breaks.
    pub(crate) async fn run(mut self) -> Result<(), FatalError> {
        let mut clock = crate::clock::ticks(self.tick);
        // What storage held may already ask for something.
        self.carry_out_all()?;
        let mut has_progress = false;
        loop {
            self.board.metrics.turns.add(1);
            let wake = self.replica.wake_ms().map(|ms| self.ticked + Duration::from_millis(ms));
            tokio::select! {
                due = clock.tick() => self.on_tick(due.elapsed())?,
                () = crate::clock::until(wake) => self.tell_time()?,
                written = self.written.recv() => match written {
                    Some(written) => self.on_written(written)?,
                    None => return Err(FatalError::Thread("the disk thread has ended")),
                },
                done = self.done.recv() => match done {
                    Some(done) => self.on_done(done)?,
                    None => return Err(FatalError::Thread("the apply thread has ended")),
                },
                () = std::future::ready(()), if has_progress => {}
                Some(event) = self.net_events.recv() => self.on_net(event)?,
                call = self.calls.recv() => match call {
                    None | Some(Call::Stop) => return Ok(()),
                    Some(call) => self.on_call(call)?,
                },
            }
            // Connections are read on this thread. Whatever came meanwhile shares the turn: larger
            // batches under load.
            tokio::task::yield_now().await;
            while let Ok(written) = self.written.try_recv() {
                self.on_written(written)?;
            }
            self.see_applied()?;
            for _ in 0..BATCH_MAX {
                let Ok(event) = self.net_events.try_recv() else { break };
                self.on_net(event)?;
            }
            for _ in 0..BATCH_MAX {
                match self.calls.try_recv() {
                    Ok(Call::Stop) => return Ok(()),
                    Ok(call) => self.on_call(call)?,
                    Err(_) => break,
                }
            }
            self.carry_out_all()?;
            if cfg!(debug_assertions) {
                self.replica.check();
            }
            let (board, replica) = (&self.board, &self.replica);
            has_progress = board.progress.settle(replica.glance().applied, || {
                board.is_followed() || replica.awaits_applied() || self.flushed.is_some()
            });
        }
    }

    /// Takes what the machine has to tell, and how far it is.
    fn see_applied(&mut self) -> Result<(), FatalError> {
        // First the index: whatever was told before it is in the queue.
        let through = self.board.progress.through();
        while let Ok(done) = self.done.try_recv() {
            self.on_done(done)?;
        }
        match self.replica.glance().applied < through {
            true => self.on_done(Done::Progress(through)),
            false => Ok(()),
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), FatalError> {
        self.board.metrics.events.add(1);
        self.tell_time()?;
        Ok(self.replica.handle(event)?)
    }

    /// Raft counts ticks, and nothing else.
    fn tell_time(&mut self) -> Result<(), FatalError> {
        if self.engine == Engine::Raft {
            return Ok(());
        }
        let elapsed_ms = u64::try_from(self.ticked.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(self.replica.handle(Event::Elapsed(elapsed_ms))?)
    }

    /// A tick that came `late`.
    fn on_tick(&mut self, late: Duration) -> Result<(), FatalError> {
        let leads = self.replica.glance().role == Role::Leader;
        if leads && self.tick < late {
            self.board.metrics.late_heartbeats.add(1);
        }
        self.peers.on_tick(&self.members, leads)?;
        self.writing.on_tick();
        self.feed_disk()?;
        self.ticked = Instant::now();
        self.on_event(Event::Tick)
    }

    fn on_call(&mut self, call: Call) -> Result<(), FatalError> {
        match call {
            Call::Propose { request, entry } => self.on_event(Event::Propose { request, entry }),
            Call::Change { request, judge } => self.on_change(request, &judge),
            Call::Standing(answer) => {
                let leads = self.replica.glance().role == Role::Leader;
                let _ = answer.send(leads.then(|| self.standing()));
                Ok(())
            }
            Call::Read(answer) => {
                self.next_read += 1;
                let read = ReadId(self.next_read);
                self.reads.insert(read, answer);
                self.on_event(Event::Read(read))
            }
            Call::Follow(place, bytes_max, answer) => {
                let _ = answer.send(self.replica.applied_after(place, bytes_max));
                Ok(())
            }
            Call::Transfer(target) => self.on_event(Event::Transfer(target)),
            Call::HandOver => self.on_event(Event::HandOver),
            Call::Stop => Ok(()),
        }
    }

    /// Judges a change of members by what is applied here, and proposes it in the same turn: no other
    /// change, and no other leader, can come between.
    fn on_change(&mut self, request: RequestId, judge: &Judge) -> Result<(), FatalError> {
        let glance = self.replica.glance();
        if glance.role != Role::Leader {
            self.waiters.answer(request, Answer::NotLeader);
            return Ok(());
        }
        if self.engine == Engine::Zab {
            self.waiters.answer(request, Answer::Refused(Refusal::Unsupported));
            return Ok(());
        }
        if !self.replica.may_change() {
            self.waiters.answer(request, Answer::Refused(Refusal::Change));
            return Ok(());
        }
        let judged = judge(&self.standing()).and_then(|change| {
            self.members.check(&change)?;
            Ok(change)
        });
        match judged {
            Ok(change) => {
                let change = change_of_engine(request, glance.term, &change);
                self.on_event(Event::ProposeChange { request, change })
            }
            Err(refused) => {
                self.waiters.answer(request, Answer::Applied(Err(refused)));
                Ok(())
            }
        }
    }

    fn standing(&self) -> Standing {
        let now = Instant::now();
        let connected = |peer: PeerStatus| {
            Some((peer.id, now.saturating_duration_since(peer.connected_since?)))
        };
        let ago = |(peer, at): (&NodeId, &Instant)| (*peer, now.saturating_duration_since(*at));
        let (reaches, status) = (self.replica.reaches(), self.replica.status());
        let is_applied = self.replica.membership_index() <= self.members_index;
        let receiving = reaches.iter().filter(|reach| reach.is_sent_snapshot);
        Standing {
            leader: self.node,
            members: self.members.list(),
            matched: self.replica.matched().into_iter().collect(),
            matched_terms: reaches.iter().filter_map(|one| Some((one.node, one.term?))).collect(),
            receiving: receiving.map(|reach| reach.node).collect(),
            connected: self.net.peers().into_iter().filter_map(connected).collect(),
            heard: self.heard.iter().map(ago).collect(),
            // Not the engine's, which may be ahead of the list.
            membership_index: self.members_index,
            is_settled: is_applied && status.conf_state.voters_outgoing.is_empty(),
            last_index: status.last,
            last_term: self.replica.last_term().unwrap_or_default(),
        }
    }

    fn on_net(&mut self, event: NetEvent) -> Result<(), FatalError> {
        match event {
            NetEvent::Message { from, payload } => match Message::decode(self.engine, payload) {
                // Who sent it and for whom it is meant was settled when the connection was made;
                // a peer speaks only for itself.
                Ok(message)
                    if message.to() == self.node
                        && speaks_for(&message, from)
                        && can_be_applied(&message) =>
                {
                    if self.members.find(from.0).is_some() {
                        self.heard.insert(from, Instant::now());
                    }
                    self.on_event(Event::Message(message))
                }
                Ok(_) | Err(_) => {
                    self.board.metrics.messages_malformed.add(1);
                    Ok(())
                }
            },
            NetEvent::Snapshot { from, header, stream } => {
                self.receiver.begin(self.node, self.engine, from, header, stream);
                Ok(())
            }
            NetEvent::SnapshotSent { to, header, result } => {
                match &result {
                    Ok(()) => {
                        self.board.metrics.snapshots_sent.add(1);
                        tracing::info!(peer = %format_args!("{to:x}"), "snapshot delivered");
                    }
                    Err(error) => {
                        tracing::warn!(peer = %format_args!("{to:x}"), %error, "snapshot not delivered");
                    }
                }
                match Message::decode(self.engine, header) {
                    Ok(message) => {
                        self.on_event(Event::SnapshotSent { message, ok: result.is_ok() })
                    }
                    Err(_) => {
                        self.board.metrics.messages_malformed.add(1);
                        Ok(())
                    }
                }
            }
            NetEvent::Unreachable { to, is_absent: true } => self.on_event(Event::Absent(to)),
            NetEvent::Unreachable { to, .. } => self.on_event(Event::Unreachable(to)),
            NetEvent::Connected { peer, inbound, .. } => {
                if !inbound {
                    self.peers.on_connected(peer);
                }
                tracing::info!(peer = %format_args!("{peer:x}"), inbound, "peer connected");
                Ok(())
            }
            NetEvent::Refused { peer, address, by, reason, suppressed } => {
                tracing::warn!(
                    peer = peer.map(|peer| format!("{peer:x}")),
                    address = address.map(|address| address.to_string()),
                    ?by,
                    suppressed,
                    "connection refused: {reason}"
                );
                match (by, peer) {
                    (RefusedBy::Peer, Some(peer)) => {
                        self.peers.on_refused(peer, reason, &self.members)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn on_written(&mut self, written: Written) -> Result<(), FatalError> {
        written.map_err(FatalError::Log)?;
        match self.writing.on_written() {
            None => return Ok(()),
            Some(replica::Written::Install(snapshot)) => {
                self.hand_to_apply(Work::Install { snapshot })?;
            }
            Some(replica::Written::Persisted(last)) => self.on_event(Event::Persisted(last))?,
        }
        self.feed_disk()
    }

    fn on_done(&mut self, done: Done) -> Result<(), FatalError> {
        match done {
            Done::Progress(through) => {
                self.on_event(Event::Applied(through))?;
                self.on_flushed()
            }
            Done::Members { through, members } => {
                self.on_members(members, through)?;
                self.on_event(Event::Applied(through))?;
                self.on_flushed()
            }
            Done::Flushed(index) => {
                self.flushed = self.flushed.max(Some(index));
                self.on_flushed()
            }
            Done::SnapshotMade(made) => {
                let snapshot = made.snapshot.clone();
                self.sender.keep(made);
                self.on_event(Event::SnapshotMade(snapshot))
            }
            Done::SnapshotReceived(message, word) => {
                self.receiver.announced(word);
                self.on_event(Event::Message(message))
            }
            Done::Installed(members) => {
                self.board.metrics.snapshots_installed.add(1);
                if let Some(id) = self.writing.on_installed() {
                    self.on_event(Event::Persisted(id))?;
                }
                // Only now does the replica say where in the log they stand.
                self.on_members(members, self.replica.membership_index())?;
                self.on_flushed()?;
                self.feed_disk()
            }
            Done::Failed(error) => Err(error),
        }
    }

    fn on_members(&mut self, members: Members, index: Index) -> Result<(), FatalError> {
        self.peers.on_members_changed(&members)?;
        self.heard.retain(|id, _| members.find(id.0).is_some());
        (self.members, self.members_index) = (members, index);
        Ok(())
    }

    /// A flush that began in the middle of a batch may hold more than is told of as applied. It counts
    /// when that is, with the members as of then: who judges by them must not be ahead of them.
    fn on_flushed(&mut self) -> Result<(), FatalError> {
        match self.flushed.filter(|index| *index <= self.replica.glance().applied) {
            Some(index) => {
                self.flushed = None;
                self.on_event(Event::Flushed(index))
            }
            None => Ok(()),
        }
    }

    fn carry_out_all(&mut self) -> Result<(), FatalError> {
        while let Some(effects) = self.replica.ready()? {
            self.carry_out(effects)?;
        }
        self.receiver.settle(self.writing.is_installing());
        self.board.publish(&self.replica);
        Ok(())
    }

    fn carry_out(&mut self, effects: Effects) -> Result<(), FatalError> {
        for message in effects.messages {
            self.send(message)?;
        }
        for message in effects.snapshots {
            if let Some(event) = self.sender.send(&self.net, message) {
                self.on_event(event)?;
            }
        }
        self.writing.queue(effects.writes);
        if let Some(mark) = effects.compact {
            self.hand_to_disk(disk::Work::Compact(mark))?;
        }
        self.feed_disk()?;
        if !effects.apply.is_empty() {
            self.hand_to_apply(Work::Apply(effects.apply))?;
        }
        for (request, refusal) in effects.refused {
            self.board.metrics.refused.add(1);
            self.waiters.answer(request, Answer::Refused(refusal));
        }
        for (read, outcome) in effects.reads {
            if let Some(answer) = self.reads.remove(&read) {
                let _ = answer.send(outcome);
            }
        }
        if effects.flush {
            self.hand_to_apply(Work::Flush)?;
        }
        if effects.make_snapshot {
            self.hand_to_apply(Work::MakeSnapshot)?;
        }
        if effects.drop_snapshot {
            self.sender.drop_kept();
        }
        for note in effects.notes {
            notes::trace(&note);
        }
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<(), FatalError> {
        if self.net.send(message.to(), message.encode()).is_err() {
            // The transport tells of lost connections itself; the engine repeats what matters to it.
            self.board.metrics.messages_dropped.add(1);
            self.replica.not_sent(&message);
        }
        Ok(())
    }

    /// Hands the disk everything that waits, if it is idle.
    fn feed_disk(&mut self) -> Result<(), FatalError> {
        while let Some(step) = self.writing.next_step() {
            match step {
                Step::Group(group) => {
                    let group = group.into_iter().map(durable_write).collect();
                    self.hand_to_disk(disk::Work::Write(group))?;
                }
                Step::Settled(last) => self.on_event(Event::Persisted(last))?,
            }
        }
        Ok(())
    }

    fn hand_to_disk(&mut self, work: disk::Work) -> Result<(), FatalError> {
        self.disk.send(work).map_err(|_| FatalError::Thread("the disk thread has ended"))
    }

    fn hand_to_apply(&mut self, work: Work) -> Result<(), FatalError> {
        self.apply.send(work).map_err(|_| FatalError::Thread("the apply thread has ended"))
    }
}

/// Whether all that a message wants in the log is what the machine can read.
fn can_be_applied(message: &Message) -> bool {
    let Ok(asked) = message.asked() else { return false };
    asked.into_iter().all(|asked| match asked {
        Asked::Command(command) => Command::decode(command).is_ok(),
        Asked::Change(change) => MemberChange::decode(change).is_ok(),
    })
}

/// A write as the durable log takes it.
fn durable_write(write: Write) -> quorate_wal::Write {
    let LogWrite { hard_state, cut_from, entries, install, must_sync } = write.into();
    quorate_wal::Write { hard_state, cut_from, entries, install, must_sync }
}

#[cfg(test)]
mod tests;
