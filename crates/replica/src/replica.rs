//! The replica itself: one event in, all effects out.

use std::collections::VecDeque;

use quorate_raft::{
    AnyConfChange, AppliedChange, Body, ConfState, DropReason, Entries, Entry, EntryType, Error,
    Message, Note, RawNode, ReadOnlyOption, Ready, Role, SnapshotStatus, SoftState,
    TransferOutcome, decode_conf_change,
};
use quorate_types::{EntryId, Index, Mark, NodeId, Term, bug};

use crate::envelope::open_change;
use crate::event::Applying;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::snapshots::Snapshots;
use crate::storage::LogInMemory;
use crate::{
    Config, ConfigError, ENVELOPE_BYTES, Effects, Event, Fatal, Initial, Refusal, RequestId, Write,
    WriteId,
};

/// Rounds of engine work taken in one turn; what is left waits for the next call.
const ROUNDS_MAX: usize = 16;

/// Messages that one turn may lead to; further ones are lost, as in a network.
const MESSAGES_MAX: usize = 65_536;

/// One member of one group.
pub struct Replica {
    config: Config,
    raft: RawNode<LogInMemory>,
    proposals: Proposals,
    reads: Reads,
    snapshots: Snapshots,
    /// Writes handed out and not yet durable, oldest first.
    writes: VecDeque<PendingWrite>,
    last_write: WriteId,
    /// Committed entries handed to the machine and not yet applied, oldest first.
    applies: VecDeque<PendingApply>,
    applied: Index,
    leader: NodeId,
    now_ticks: u64,
    snapshot_made_ticks: u64,
    /// Whether one was asked for that is not ready yet.
    making_snapshot: bool,
    /// How often the membership in force was set.
    memberships: u64,
    effects: Effects,
}

struct PendingWrite {
    write: Write,
    responses: Vec<Message>,
    since_ticks: u64,
}

struct PendingApply {
    last: Index,
    responses: Vec<Message>,
}

/// What changes all the time; cheap to take every turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its term.
    pub term: Term,
    /// Highest index it knows to be committed.
    pub commit: Index,
    /// Highest index its machine has applied.
    pub applied: Index,
    /// Its role.
    pub role: Role,
    /// Whom it believes to lead; [`NodeId::NONE`] for nobody.
    pub leader: NodeId,
    /// Differs when the membership may: take a [`Status`] to see it.
    pub memberships: u64,
}

/// A picture of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who this is.
    pub node: NodeId,
    /// Whom it believes to lead.
    pub leader: Option<NodeId>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Highest index it knows to be committed.
    pub commit: Index,
    /// Highest index its machine has applied.
    pub applied: Index,
    /// Highest index whose effects are durable in its machine.
    pub flushed: Index,
    /// First index in its log.
    pub first: Index,
    /// Last index in its log.
    pub last: Index,
    /// Bytes of commands in its log.
    pub log_bytes: u64,
    /// The membership in force.
    pub conf_state: ConfState,
    /// Proposals that wait for a leader.
    pub parked_count: usize,
    /// Reads that wait.
    pub reads_count: usize,
    /// Writes that are not yet durable.
    pub writes_count: usize,
    /// Batches that are not yet applied.
    pub applies_count: usize,
}

impl Replica {
    /// A replica that goes on from what storage holds.
    ///
    /// # Errors
    ///
    /// When the settings do not fit together, or what storage holds contradicts itself.
    pub fn new(config: Config, initial: Initial) -> Result<Self, StartError> {
        config.check()?;
        let applied = initial.applied;
        let sole_voter = initial.conf_state.voters == [config.node];
        let storage = LogInMemory::new(&initial)?;
        let mut raft = RawNode::new(engine_config(&config, applied), storage)
            .map_err(|error| Fatal(error.to_string()))?;
        if sole_voter {
            // Nobody else could be leading, so there is nothing to wait for.
            raft.campaign().map_err(|error| Fatal(error.to_string()))?;
        }
        Ok(Replica {
            raft,
            proposals: Proposals::default(),
            reads: Reads::new(config.seed),
            snapshots: Snapshots::new(applied),
            writes: VecDeque::new(),
            last_write: WriteId(0),
            applies: VecDeque::new(),
            applied,
            leader: NodeId::NONE,
            now_ticks: 0,
            snapshot_made_ticks: 0,
            making_snapshot: false,
            memberships: 1,
            effects: Effects::default(),
            config,
        })
    }

    /// Takes one event in. What follows from it comes out of [`Replica::ready`].
    ///
    /// # Errors
    ///
    /// [`Fatal`] when this node's own storage contradicts itself: stop using the replica.
    pub fn handle(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Tick => self.on_tick(),
            Event::Message(message) => self.on_message(message),
            Event::Propose { request, entry } => {
                self.on_propose(request, entry);
                Ok(())
            }
            Event::ProposeChange { request, change } => {
                self.proposals.stage_change(request, &change);
                Ok(())
            }
            Event::Read(read) => {
                self.reads.ask(&self.config, read, &mut self.effects.reads);
                Ok(())
            }
            Event::Persisted(id) => self.on_persisted(id),
            Event::Applied(index) => self.on_applied(index),
            Event::Flushed(index) => {
                // A flush may be reported before the entries it holds are reported as applied.
                let index = if bug!("compacts-what-is-not-flushed") { self.applied } else { index };
                self.snapshots.on_flushed(index.min(self.applied));
                self.compact()
            }
            Event::SnapshotMade(snapshot) => {
                self.snapshot_made_ticks = self.now_ticks;
                self.making_snapshot = false;
                self.raft.storage_mut().keep_snapshot(snapshot);
                Ok(())
            }
            Event::SnapshotSent { to, ok } => {
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                if self.snapshots.on_sent() {
                    self.drop_snapshot();
                }
                self.raft.report_snapshot(to, status);
                Ok(())
            }
            Event::Unreachable(peer) => {
                self.raft.report_unreachable(peer);
                Ok(())
            }
            Event::Transfer(target) => {
                self.raft.transfer_leader(target);
                Ok(())
            }
            Event::HandOver => {
                self.hand_over(Index(0));
                Ok(())
            }
            Event::Campaign => fatal_only(self.raft.campaign()),
        }
    }

    /// What is to be done now, if anything.
    ///
    /// # Errors
    ///
    /// [`Fatal`], as in [`Replica::handle`].
    pub fn ready(&mut self) -> Result<Option<Effects>, Fatal> {
        for _ in 0..ROUNDS_MAX {
            self.propose_staged()?;
            if !self.leader.is_none()
                && let Some(context) = self.reads.next_round(&self.config, self.now_ticks)
            {
                self.raft.read_index(context);
            }
            if !self.raft.has_ready() {
                break;
            }
            let ready = self.raft.ready();
            if let Some(fatal) = self.raft.fatal() {
                return Err(Fatal(fatal.to_string()));
            }
            self.take(ready)?;
        }
        if self.raft.storage().take_wanted() && !self.making_snapshot {
            self.making_snapshot = true;
            self.effects.make_snapshot = true;
        }
        self.effects.flush = self.snapshots.flush_due(&self.config, self.applied, self.now_ticks);
        let effects = std::mem::take(&mut self.effects);
        Ok((!effects.is_empty()).then_some(effects))
    }

    /// What changes all the time.
    pub fn glance(&self) -> Glance {
        let basic = self.raft.basic_status();
        Glance {
            term: basic.hard_state.term,
            commit: basic.hard_state.commit,
            applied: self.applied,
            role: basic.soft_state.role,
            leader: self.leader,
            memberships: self.memberships,
        }
    }

    /// A picture of it.
    pub fn status(&self) -> Status {
        let basic = self.raft.basic_status();
        let storage = self.raft.storage();
        Status {
            node: self.config.node,
            leader: self.leader.known(),
            role: basic.soft_state.role,
            term: basic.hard_state.term,
            commit: basic.hard_state.commit,
            applied: self.applied,
            flushed: self.snapshots.flushed(),
            first: storage.mark().next(),
            last: self.raft.last_index(),
            log_bytes: storage.bytes(),
            conf_state: self.raft.conf_state(),
            parked_count: self.proposals.parked_count(),
            reads_count: self.reads.count(),
            writes_count: self.writes.len(),
            applies_count: self.applies.len(),
        }
    }

    /// Whether this replica leads and has applied every membership change that there is, so that its
    /// machine knows what a further one would change.
    pub fn may_change(&self) -> bool {
        let status = self.raft.basic_status();
        status.soft_state.role == Role::Leader
            && self.raft.pending_conf_index() <= self.raft.applied()
            // Its reign has begun: nothing of an earlier one can still come to light.
            && self.raft.entry_term(self.raft.applied()) == Some(status.hard_state.term)
    }

    /// How far each member's log is known to match this one, if this replica leads.
    pub fn matched(&self) -> Vec<(NodeId, Index)> {
        let mut matched = Vec::new();
        self.raft.for_each_progress(|id, _, progress| matched.push((id, progress.matched)));
        matched
    }

    /// Asserts what holds between any two calls.
    pub fn check(&self) {
        let status = self.status();
        assert!(status.flushed <= status.applied, "only applied state can be durable");
        assert!(status.applied <= status.commit, "only committed entries are applied");
        assert!(status.commit <= status.last, "only entries of the log are committed");
        assert!(status.first <= status.flushed.next(), "the log reaches back to durable state");
        let ordered = self.writes.iter().zip(self.writes.iter().skip(1));
        for (earlier, later) in ordered {
            assert!(earlier.write.id < later.write.id, "writes are numbered in order");
        }
    }

    /// Hands leadership to the voter that has most of the log, if it has more than `behind` and was
    /// heard from lately.
    fn hand_over(&mut self, behind: Index) {
        let Some(target) = self.raft.successor() else { return };
        let mut is_fit = false;
        self.raft.for_each_progress(|id, _, progress| {
            is_fit |= id == target && progress.recent_active && behind < progress.matched;
        });
        if is_fit {
            self.raft.transfer_leader(target);
        }
    }

    /// A leader needs a disk: one that is full or hangs keeps commands from this node's machine,
    /// and reads with them. Whoever has written what this disk has not can do better.
    fn hand_over_if_stalled(&mut self) {
        let Some(oldest) = self.writes.front() else { return };
        let waited = self.now_ticks - oldest.since_ticks;
        // Not with every tick: a transfer has one election timeout to succeed.
        let again = 2 * u64::from(self.config.election_ticks);
        let due = self.config.write_ticks_max <= waited
            && (waited - self.config.write_ticks_max).is_multiple_of(again);
        if due && self.raft.basic_status().soft_state.role == Role::Leader {
            self.hand_over(self.raft.storage().last());
        }
    }

    fn on_message(&mut self, message: Message) -> Result<(), Fatal> {
        // Each may ask for a further write; a leader repeats what was lost.
        let asks = matches!(message.body, Body::Append { .. });
        if asks && self.config.writes_count_max <= self.writes.len() {
            return Ok(());
        }
        self.step(message)
    }

    fn on_tick(&mut self) -> Result<(), Fatal> {
        self.now_ticks += 1;
        // Before the engine's tick, which forgets now and then who was heard from.
        self.hand_over_if_stalled();
        fatal_only(self.raft.tick())?;
        self.proposals.expire(self.now_ticks, &mut self.effects.refused);
        if !self.leader.is_none()
            && let Some(context) = self.reads.retry(&self.config, self.now_ticks)
        {
            self.raft.read_index(context);
        }
        let patience = 10 * u64::from(self.config.election_ticks);
        if self.raft.storage().keeps_snapshot()
            && self.snapshots.none_sending()
            && self.snapshot_made_ticks + patience < self.now_ticks
        {
            // Whoever needed it has caught up or gone; it pins storage for nothing.
            self.drop_snapshot();
        }
        Ok(())
    }

    fn on_propose(&mut self, request: RequestId, entry: bytes::Bytes) {
        let bytes = entry.len().saturating_sub(ENVELOPE_BYTES) as u64;
        if self.config.command_bytes_max < bytes {
            let bytes_max = self.config.command_bytes_max;
            self.effects.refused.push((request, Refusal::TooLarge { bytes, bytes_max }));
            return;
        }
        self.proposals.stage(request, entry);
    }

    /// Hands all proposals of the turn to the engine, in batches that fit into a message.
    fn propose_staged(&mut self) -> Result<(), Fatal> {
        if self.leader.is_none() {
            if self.proposals.has_staged() {
                self.proposals.park(&self.config, self.now_ticks, &mut self.effects.refused);
            }
            return Ok(());
        }
        while self.proposals.has_staged() {
            let batch = self.proposals.take_staged(self.config.message_bytes_max);
            self.propose(batch)?;
        }
        Ok(())
    }

    fn propose(&mut self, batch: Vec<(RequestId, Entry)>) -> Result<(), Fatal> {
        let (requests, entries): (Vec<RequestId>, Vec<Entry>) = batch.into_iter().unzip();
        let status = self.raft.basic_status();
        let leads = status.soft_state.role == Role::Leader;
        let message = Message {
            from: self.config.node,
            ..Message::new(self.config.node, Body::Propose { entries })
        };
        match self.raft.step(message) {
            Ok(()) => {
                if leads {
                    self.proposals.placed(
                        status.hard_state.term,
                        self.raft.last_index(),
                        &requests,
                    );
                }
                Ok(())
            }
            Err(Error::ProposalDropped(why)) => {
                let why = refusal(why);
                self.effects.refused.extend(requests.into_iter().map(|request| (request, why)));
                Ok(())
            }
            Err(Error::ChangeRefused(_)) => {
                // It was alone in its batch.
                let refused = requests.into_iter().map(|request| (request, Refusal::Change));
                self.effects.refused.extend(refused);
                Ok(())
            }
            Err(error) => fatal_only(Err(error)),
        }
    }

    /// Sorts one batch of the engine's work into effects.
    fn take(&mut self, ready: Ready) -> Result<(), Fatal> {
        if let Some(SoftState { lead, .. }) = ready.soft_state
            && lead != self.leader
        {
            self.leader = lead;
            self.reads.on_leader_change(&mut self.effects.reads);
            if !lead.is_none() {
                self.proposals.unpark();
            }
        }
        for state in ready.read_states {
            self.reads.on_confirmed(&state.request_ctx, state.index);
        }
        for context in ready.lost_reads {
            self.reads.on_lost(&context, &mut self.effects.reads);
        }
        self.reads.on_applied(self.applied, &mut self.effects.reads);
        for note in ready.notes {
            match note {
                Note::TransferEnded { to, outcome } => self.effects.transfers.push((to, outcome)),
                Note::TransferRefused { to } => {
                    self.effects.transfers.push((to, TransferOutcome::Refused));
                }
                _ => {}
            }
            self.effects.notes.push(note);
        }
        for message in ready.messages {
            match message.body {
                Body::StorageAppend { hard_state, entries, snapshot, responses } => {
                    self.last_write = WriteId(self.last_write.0 + 1);
                    let write = Write {
                        id: self.last_write,
                        hard_state,
                        entries,
                        install: snapshot.map(|snapshot| *snapshot),
                        must_sync: ready.must_sync && !bug!("a-write-is-not-to-be-synced"),
                    };
                    self.effects.writes.push(write.clone());
                    let since_ticks = self.now_ticks;
                    self.writes.push_back(PendingWrite { write, responses, since_ticks });
                }
                Body::StorageApply { entries, responses } => self.apply(entries, responses)?,
                Body::Snapshot { ref snapshot } => {
                    self.snapshots.on_sending(snapshot.metadata.index);
                    self.effects.snapshots.push(message);
                }
                _ => self.effects.messages.push(message),
            }
        }
        Ok(())
    }

    /// Hands committed entries to the machine, membership changes to the engine as well.
    fn apply(&mut self, entries: Entries, responses: Vec<Message>) -> Result<(), Fatal> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let mut bytes = 0;
        for entry in entries {
            bytes += entry.payload_size();
            let (index, term, kind) = (entry.index, entry.term, entry.entry_type());
            let placed = self.proposals.settle(EntryId { term, index }, &mut self.effects.refused);
            let applying = match (kind, entry.data) {
                (EntryType::Normal, Some(data)) if !data.is_empty() => {
                    Applying::Command { index, term, entry: data }
                }
                (EntryType::Normal, _) => Applying::Empty { index, term },
                (EntryType::ConfChange | EntryType::ConfChangeV2, data) => {
                    self.change_membership(index, term, kind, &data.unwrap_or_default())?
                }
            };
            if matches!(applying, Applying::Empty { .. })
                && let Some(request) = placed
            {
                // Only a change becomes an empty entry: just now.
                self.effects.refused.push((request, Refusal::Change));
            }
            self.effects.apply.push(applying);
        }
        self.snapshots.on_applying(bytes);
        self.applies.push_back(PendingApply { last, responses });
        Ok(())
    }

    /// A change that cannot be carried out changes nothing, on every member alike.
    fn change_membership(
        &mut self,
        index: Index,
        term: Term,
        kind: EntryType,
        data: &[u8],
    ) -> Result<Applying, Fatal> {
        let change: AnyConfChange = decode_conf_change(kind, data).map_err(|error| {
            Fatal(format!("committed membership change at {index} is damaged: {error}"))
        })?;
        let judged = open_change(change.as_v2().context).map(|(_, judged, _)| judged);
        if judged.is_some_and(|judged| judged != term) {
            // It was forwarded to a leader that did not judge it.
            return Ok(Applying::Empty { index, term });
        }
        let conf_state = match self.raft.apply_conf_change_at(index, &change) {
            Ok(AppliedChange::Changed(conf_state)) => conf_state,
            // The state that comes with the snapshot has it already.
            Ok(AppliedChange::Overtaken(_)) | Err(Error::Change(_)) => {
                return Ok(Applying::Empty { index, term });
            }
            Err(error) => return Err(Fatal(error.to_string())),
        };
        self.memberships += 1;
        if self.raft.storage().keeps_snapshot() && self.snapshots.none_sending() {
            // Whoever was added just now would find itself missing in it.
            self.drop_snapshot();
        }
        Ok(Applying::Membership { index, term, change, conf_state })
    }

    fn on_persisted(&mut self, id: WriteId) -> Result<(), Fatal> {
        while self.writes.front().is_some_and(|pending| pending.write.id <= id) {
            let Some(PendingWrite { write, responses, .. }) = self.writes.pop_front() else {
                break;
            };
            let storage = self.raft.storage_mut();
            if let Some(snapshot) = &write.install {
                let index = snapshot.metadata.index;
                storage.install(snapshot);
                self.applied = self.applied.max(index);
                self.snapshots.on_flushed(index);
                self.proposals.forget_through(index);
                self.memberships += 1;
            }
            let storage = self.raft.storage_mut();
            storage.append(write.entries)?;
            if let Some(hard_state) = write.hard_state {
                storage.keep_hard_state(hard_state);
            }
            for response in responses {
                if response.to == self.config.node {
                    self.step(response)?;
                } else {
                    self.effects.messages.push(response);
                }
            }
        }
        self.reads.on_applied(self.applied, &mut self.effects.reads);
        Ok(())
    }

    fn on_applied(&mut self, index: Index) -> Result<(), Fatal> {
        self.applied = self.applied.max(index);
        while self.applies.front().is_some_and(|pending| pending.last <= index) {
            let Some(pending) = self.applies.pop_front() else { break };
            for response in pending.responses {
                self.step(response)?;
            }
        }
        self.reads.on_applied(self.applied, &mut self.effects.reads);
        Ok(())
    }

    fn compact(&mut self) -> Result<(), Fatal> {
        let storage = self.raft.storage();
        let through = self.snapshots.compact_through(
            &self.config,
            storage.mark(),
            storage.bytes(),
            |index| storage.bytes_through(index),
        );
        // The machine may be in the middle of a batch, of which the engine knows only when it is
        // done: until then it may look at what it believes not to be applied.
        let through = through.map(|through| through.min(self.raft.applied()));
        if let Some(through) = through.filter(|through| storage.mark() < *through)
            && let Some(stamp) = storage.stamp(through)
        {
            self.raft.storage_mut().compact(through);
            let mark = Mark { index: through, stamp: stamp.0, data: bytes::Bytes::new() };
            self.effects.compact = Some(mark);
        }
        Ok(())
    }

    fn drop_snapshot(&mut self) {
        self.raft.storage_mut().drop_snapshot();
        self.effects.drop_snapshot = true;
    }

    fn step(&mut self, message: Message) -> Result<(), Fatal> {
        fatal_only(self.raft.step(message))
    }
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.snapshots.is_empty()
            && self.writes.is_empty()
            && self.apply.is_empty()
            && self.refused.is_empty()
            && self.reads.is_empty()
            && self.transfers.is_empty()
            && !self.flush
            && !self.make_snapshot
            && !self.drop_snapshot
            && self.compact.is_none()
            && self.notes.is_empty()
    }
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What storage holds contradicts itself.
    #[error(transparent)]
    Storage(#[from] Fatal),
}

fn engine_config(config: &Config, applied: Index) -> quorate_raft::Config {
    quorate_raft::Config {
        id: config.node,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        max_uncommitted_entries_size: config.uncommitted_bytes_max,
        max_committed_size_per_ready: config.applying_bytes_max,
        max_inflight_msgs: config.inflight_count_max as usize,
        max_inflight_bytes: config.inflight_bytes_max,
        max_size_per_msg: config.message_bytes_max,
        read_only_option: ReadOnlyOption::Safe,
        applied,
        async_storage_writes: true,
        check_quorum: true,
        pre_vote: true,
        step_down_on_removal: true,
        hand_over_on_removal: true,
        retry_transfer: true,
        refuse_changes: true,
        coalesce_appends: true,
        report_lost_reads: true,
        postpone_single_voter_reads: true,
        lead_after_own_vote: true,
        reads_max: config.reads_max,
        messages_max: MESSAGES_MAX,
        seed: config.seed,
        ..quorate_raft::Config::default()
    }
}

fn refusal(why: DropReason) -> Refusal {
    match why {
        DropReason::TransferPending => Refusal::Transferring,
        DropReason::NotMember => Refusal::Removed,
        DropReason::Uncommitted | DropReason::MessagesFull => Refusal::Busy,
        _ => Refusal::NoLeader,
    }
}

/// Messages that come to nothing are normal; only broken storage of our own ends the replica.
fn fatal_only(result: Result<(), Error>) -> Result<(), Fatal> {
    match result {
        Err(error @ (Error::Fatal(_) | Error::Storage(_))) => Err(Fatal(error.to_string())),
        Ok(()) | Err(_) => Ok(()),
    }
}
