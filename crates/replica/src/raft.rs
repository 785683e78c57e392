//! A replica that runs Raft: its part of each event and effect.
//!
//! The engine is driven with asynchronous storage writes: what it says to disk and machine comes as
//! messages, with the answers to give back when they are done.

use std::collections::VecDeque;

use quorate_codec as codec;
use quorate_raft::{
    AnyConfChange, AppliedChange, Body, ConfState, DropReason, Entries, Entry, EntryType, Error,
    Message, Note, ProgressState, RawNode, ReadOnlyOption, Ready, Role, SnapshotStatus, SoftState,
    TransferOutcome, decode_conf_change, payload_size,
};
use quorate_types::{EntryId, Index, NodeId, Term, bug};

use crate::core::{Core, EngineStatus, PendingWrite, check_writes};
use crate::envelope::open_change;
use crate::event::Applying;
use crate::proposals::Asked;
use crate::replica::Reach;
use crate::storage::LogInMemory;
use crate::{
    Config, Event, Fatal, Initial, Message as AnyMessage, Refusal, RequestId, StartError, Write,
    WriteId,
};

/// Messages that one turn may lead to; further ones are lost, as in a network.
const MESSAGES_MAX: usize = 65_536;

pub(crate) struct OnRaft {
    raft: RawNode<LogInMemory>,
    /// The memory of every Ready.
    ready: Ready,
    /// Writes handed out and not yet durable, oldest first.
    pub(crate) writes: VecDeque<PendingWrite<Vec<Message>>>,
    last_write: WriteId,
    /// Payload of their entries.
    unwritten_bytes: u64,
    /// Payload appended here as leader since the last Ready.
    taken_bytes: u64,
    /// Committed entries handed to the machine and not yet applied, oldest first.
    pub(crate) applies: VecDeque<PendingApply>,
    /// Proposals wait, by what the engine knew at the last round.
    lays_aside: bool,
    /// The term whose leader was last asked to append something.
    passes_on_in: Term,
}

pub(crate) struct PendingApply {
    last: Index,
    responses: Vec<Message>,
}

impl OnRaft {
    pub(crate) fn new(core: &Core, initial: Initial) -> Result<Self, StartError> {
        let sole_voter = initial.conf_state.voters == [core.config.node];
        let storage = LogInMemory::new(&initial)?;
        let mut raft = RawNode::new(engine_config(&core.config, core.applied), storage)
            .map_err(|error| Fatal(error.to_string()))?;
        if sole_voter {
            // Nobody else could be leading, so there is nothing to wait for.
            raft.campaign().map_err(|error| Fatal(error.to_string()))?;
        }
        Ok(OnRaft {
            raft,
            ready: Ready::default(),
            writes: VecDeque::new(),
            last_write: WriteId(0),
            unwritten_bytes: 0,
            taken_bytes: 0,
            applies: VecDeque::new(),
            lays_aside: false,
            passes_on_in: Term(0),
        })
    }

    pub(crate) fn handle(&mut self, core: &mut Core, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Tick => self.on_tick(core),
            Event::Elapsed(_) => Ok(()),
            Event::Message(AnyMessage::Raft(message)) => self.on_message(core, message),
            // The door takes none of the other engine's.
            Event::Message(AnyMessage::Zab(_)) => Ok(()),
            Event::ProposeChange { request, change } => {
                core.proposals.stage_change(request, &change, core.now_ticks);
                Ok(())
            }
            Event::Persisted(id) => self.on_persisted(core, id),
            Event::Applied(index) => self.on_applied(core, index),
            Event::Flushed(index) => {
                let index = if bug!("compacts-what-is-not-flushed") { core.applied } else { index };
                core.on_flushed(index);
                let applied = self.raft.applied();
                core.compact(self.raft.storage_mut(), applied);
                Ok(())
            }
            Event::SnapshotMade(snapshot) => {
                core.on_snapshot_made();
                self.raft.storage_mut().keep_snapshot(snapshot);
                Ok(())
            }
            Event::SnapshotSent { message, ok } => {
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                let last = self.raft.storage().last();
                if core.on_snapshot_sent(message.to(), ok, last) {
                    self.drop_snapshot(core);
                }
                self.raft.report_snapshot(message.to(), status);
                Ok(())
            }
            Event::Unreachable(peer) | Event::Absent(peer) => {
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
            Event::Propose { .. } | Event::Read(_) => {
                unreachable!("the replica itself takes these")
            }
        }
    }

    /// One round of work; whether there may be more.
    pub(crate) fn round(&mut self, core: &mut Core) -> Result<bool, Fatal> {
        // While it hands over, whoever leads next can have them. And what the engine knows of its leader
        // may be newer than what was told by its last Ready.
        let leads_nobody = self.raft.basic_status().soft_state.lead.is_none();
        if self.raft.is_handing_over() || leads_nobody {
            core.park();
            self.lays_aside = true;
        } else if std::mem::take(&mut self.lays_aside) {
            core.unpark();
        }
        while let Some(batch) = core.next_batch() {
            self.propose(core, batch)?;
        }
        if !core.leader.is_none()
            && let Some(context) = core.reads.next_round(&core.config, core.now_ticks)
        {
            self.raft.read_index(context);
        }
        if !self.raft.has_ready() {
            return Ok(false);
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.raft.ready_into(&mut ready);
        self.taken_bytes = 0;
        if let Some(fatal) = self.raft.fatal() {
            return Err(Fatal(fatal.to_string()));
        }
        self.take(core, &mut ready)?;
        ready.clear();
        self.ready = ready;
        Ok(true)
    }

    /// Whether a snapshot was asked for in vain.
    pub(crate) fn take_wanted(&mut self) -> bool {
        self.raft.storage().take_wanted()
    }

    pub(crate) fn status(&self) -> EngineStatus {
        let basic = self.raft.basic_status();
        EngineStatus {
            term: basic.hard_state.term,
            commit: basic.hard_state.commit,
            last: self.raft.last_index(),
            role: basic.soft_state.role,
        }
    }

    pub(crate) fn log(&self) -> &LogInMemory {
        self.raft.storage()
    }

    pub(crate) fn conf_state(&self) -> ConfState {
        self.raft.conf_state()
    }

    /// Whether it leads and has applied every membership change that there is.
    pub(crate) fn may_change(&self) -> bool {
        let status = self.raft.basic_status();
        status.soft_state.role == Role::Leader
            && self.raft.pending_conf_index() <= self.raft.applied()
            // Its reign has begun: nothing of an earlier one can still come to light.
            && self.raft.entry_term(self.raft.applied()) == Some(status.hard_state.term)
    }

    pub(crate) fn matched(&self) -> Vec<(NodeId, Index)> {
        let mut matched = Vec::new();
        self.raft.for_each_progress(|id, _, progress| matched.push((id, progress.matched)));
        matched
    }

    pub(crate) fn reaches(&self) -> Vec<Reach> {
        let mut reaches = Vec::new();
        self.raft.for_each_progress(|node, _, progress| {
            let is_sent_snapshot = progress.state == ProgressState::Snapshot;
            reaches.push(Reach { node, matched: progress.matched, term: None, is_sent_snapshot });
        });
        for reach in &mut reaches {
            reach.term = self.raft.entry_term(reach.matched);
        }
        reaches
    }

    /// Term of the last entry.
    pub(crate) fn last_term(&self) -> Option<Term> {
        self.raft.entry_term(self.raft.last_index())
    }

    pub(crate) fn check(&self) {
        check_writes(self.writes.iter());
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
    fn hand_over_if_stalled(&mut self, core: &Core) {
        if core.is_stalled(self.writes.front())
            && self.raft.basic_status().soft_state.role == Role::Leader
        {
            self.hand_over(self.raft.storage().last());
        }
    }

    fn on_message(&mut self, core: &Core, mut message: Message) -> Result<(), Fatal> {
        if let Body::Append { entries, .. } = &mut message.body
            && bug!("what-is-not-taken-in-is-answered")
            && self.is_stalled(core)
        {
            *entries = Entries::new();
        }
        let is_lost = match &message.body {
            // Each may ask for a further write; a leader repeats what was lost.
            Body::Append { .. } if core.config.writes_count_max <= self.writes.len() => true,
            // Lost, and not taken in without its entries: an answer to that would call for the same
            // entries at once, again and again, as fast as the network is. So they come with the
            // pace of heartbeats, which also say how much is committed.
            Body::Append { entries, .. } => !entries.is_empty() && self.is_stalled(core),
            Body::Propose { .. } => {
                self.is_stalled(core)
                    || !self.has_room(core)
                    || !self.is_asked_as_leader(message.term)
            }
            _ => false,
        };
        if is_lost {
            return Ok(());
        }
        if let Body::Propose { entries } = &message.body {
            self.count_taken(entries);
            message.term = Term(0);
        }
        self.step(message)
    }

    /// Whether a leader may append more than what is neither committed nor on its way to be. The engine
    /// has a bound of its own, of what was appended in this reign and is not applied yet: one after the
    /// other, leaders that commit nothing would each add their part, and one whose machine is slower
    /// than the others' would lose what they pass on, without a word.
    fn has_room(&self, core: &Core) -> bool {
        let commit = self.raft.basic_status().hard_state.commit;
        let written = self.raft.storage().bytes_after(commit);
        written + self.unwritten_bytes + self.taken_bytes < core.config.uncommitted_bytes_max
    }

    fn count_taken(&mut self, entries: &[Entry]) {
        if self.raft.basic_status().soft_state.role == Role::Leader {
            self.taken_bytes += payload_size(entries);
        }
    }

    /// Whether a proposal that was passed on is for the term in which this node leads. One of a build
    /// that does not say is for whoever leads.
    fn is_asked_as_leader(&self, term: Term) -> bool {
        let status = self.raft.basic_status();
        let leads = status.soft_state.role == Role::Leader && status.hard_state.term == term;
        leads || term == Term(0) || bug!("what-is-passed-on-is-for-any-leader")
    }

    /// Whether the log holds more than it may, since what is committed cannot be flushed. What is not
    /// committed does not count: it may be what the rest waits for.
    fn is_stalled(&self, core: &Core) -> bool {
        let (log, bytes_max) = (self.raft.storage(), core.config.stalled_bytes_max());
        if log.bytes() + self.unwritten_bytes < bytes_max {
            return false;
        }
        let commit = self.raft.basic_status().hard_state.commit;
        let on_its_way = if log.last() < commit { self.unwritten_bytes } else { 0 };
        bytes_max <= log.bytes_through(commit) + on_its_way
            && !bug!("a-log-that-cannot-be-flushed-grows")
    }

    fn on_tick(&mut self, core: &mut Core) -> Result<(), Fatal> {
        core.now_ticks += 1;
        // Before the engine's tick, which forgets now and then who was heard from.
        self.hand_over_if_stalled(core);
        fatal_only(self.raft.tick())?;
        core.expire();
        if !core.leader.is_none()
            && let Some(context) = core.reads.retry(&core.config, core.now_ticks)
        {
            self.raft.read_index(context);
        }
        if self.raft.storage().keeps_snapshot() && core.is_snapshot_idle() {
            self.drop_snapshot(core);
        }
        core.follow_peers(|| self.matched());
        let applied = self.raft.applied();
        core.compact_if_long(self.raft.storage_mut(), applied);
        Ok(())
    }

    fn propose(&mut self, core: &mut Core, batch: Vec<(Asked, Entry)>) -> Result<(), Fatal> {
        let (batch, entries): (Vec<Asked>, Vec<Entry>) = batch.into_iter().unzip();
        let requests = batch.iter().map(|asked| asked.request);
        let status = self.raft.basic_status();
        let leads = status.soft_state.role == Role::Leader;
        let is_change = |entry: &Entry| entry.entry_type() != EntryType::Normal;
        let takes_no_more = self.is_stalled(core) || !self.has_room(core);
        if leads && takes_no_more && !entries.iter().any(is_change) {
            let refused = requests.map(|request| (request, Refusal::Busy));
            core.effects.refused.extend(refused);
            return Ok(());
        }
        if !leads && bug!("proposes-again-what-it-passed-on") {
            core.proposals.park_again(&batch, &entries, core.now_ticks);
        }
        let term = status.hard_state.term;
        self.count_taken(&entries);
        let passed_on = if leads { Vec::new() } else { entries.clone() };
        let message = Message {
            from: core.config.node,
            ..Message::new(core.config.node, Body::Propose { entries })
        };
        match self.raft.step(message) {
            Ok(()) => {
                if leads {
                    let requests: Vec<RequestId> = requests.collect();
                    core.proposals.placed(term, self.raft.last_index(), &requests);
                } else {
                    self.passes_on_in = term;
                    let batch = batch.iter().copied().zip(passed_on);
                    core.proposals.pass_on(term.0, batch);
                }
                Ok(())
            }
            Err(Error::ProposalDropped(why)) => {
                let why = refusal(why);
                core.effects.refused.extend(requests.map(|request| (request, why)));
                Ok(())
            }
            Err(Error::ChangeRefused(_)) => {
                // It was alone in its batch.
                let refused = requests.map(|request| (request, Refusal::Change));
                core.effects.refused.extend(refused);
                Ok(())
            }
            Err(error) => fatal_only(Err(error)),
        }
    }

    /// Sorts one batch of the engine's work into effects.
    fn take(&mut self, core: &mut Core, ready: &mut Ready) -> Result<(), Fatal> {
        if let Some(SoftState { lead, .. }) = ready.soft_state {
            core.on_leader(lead);
        }
        for state in ready.read_states.drain(..) {
            core.reads.on_confirmed(&state.request_ctx, state.index);
        }
        for context in ready.lost_reads.drain(..) {
            core.reads.on_lost(&context, &mut core.effects.reads);
        }
        core.answer_reads();
        for note in ready.notes.drain(..) {
            match note {
                Note::TransferEnded { to, outcome } => {
                    core.effects.transfers.push((to, outcome));
                    core.unpark();
                }
                Note::TransferRefused { to } => {
                    core.effects.transfers.push((to, TransferOutcome::Refused));
                }
                _ => {}
            }
            core.effects.notes.push(note.into());
        }
        // All of it is in the messages; what they share is to be theirs alone.
        (ready.entries, ready.committed_entries) = (Entries::new(), Entries::new());
        for message in ready.messages.drain(..) {
            match message.body {
                Body::StorageAppend { hard_state, entries, snapshot, responses } => {
                    self.last_write = WriteId(self.last_write.0 + 1);
                    let write = Write {
                        id: self.last_write,
                        hard_state: hard_state
                            .filter(|_| !bug!("a-vote-is-not-written"))
                            .map(Into::into),
                        cut_from: None,
                        entries,
                        mark: snapshot.as_ref().map(|snapshot| codec::to_mark(&snapshot.metadata)),
                        install: snapshot.map(|snapshot| *snapshot),
                        must_sync: ready.must_sync && !bug!("a-write-is-not-to-be-synced"),
                    };
                    self.hand_out(core, write, responses);
                }
                Body::StorageApply { entries, responses } => {
                    self.apply(core, entries, responses)?;
                }
                Body::Snapshot { ref snapshot } => {
                    core.snapshots.on_sending(message.to, snapshot.metadata.index);
                    core.effects.snapshots.push(message.into());
                }
                // The engine's own concern every term: see `passed_on.rs`.
                Body::Propose { .. } if message.from == core.config.node => {
                    let term = self.passes_on_in;
                    core.effects.messages.push(Message { term, ..message }.into());
                }
                _ => core.effects.messages.push(message.into()),
            }
        }
        Ok(())
    }

    /// Hands committed entries to the machine, membership changes to the engine as well.
    fn apply(
        &mut self,
        core: &mut Core,
        entries: Entries,
        responses: Vec<Message>,
    ) -> Result<(), Fatal> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let mut bytes = 0;
        for entry in entries {
            bytes += entry.payload_size();
            let (index, term, kind) = (entry.index, entry.term, entry.entry_type());
            let placed = core.proposals.settle(EntryId { term, index }, &mut core.effects.refused);
            let data = entry.data.as_ref().filter(|_| kind == EntryType::Normal);
            core.proposals.see_committed(data);
            core.proposals.propose_lost(term.0);
            let applying = match (kind, entry.data) {
                (EntryType::Normal, Some(data)) if !data.is_empty() => {
                    Applying::Command { index, term, entry: data }
                }
                (EntryType::Normal, _) => Applying::Empty { index, term },
                (EntryType::ConfChange | EntryType::ConfChangeV2, data) => {
                    self.change_membership(core, index, term, kind, &data.unwrap_or_default())?
                }
            };
            if matches!(applying, Applying::Empty { .. })
                && let Some(request) = placed
            {
                // Only a change becomes an empty entry: just now.
                core.effects.refused.push((request, Refusal::Change));
            }
            core.effects.apply.push(applying);
        }
        core.snapshots.on_applying(bytes);
        self.applies.push_back(PendingApply { last, responses });
        Ok(())
    }

    /// A change that cannot be carried out changes nothing, on every member alike.
    fn change_membership(
        &mut self,
        core: &mut Core,
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
        core.memberships += 1;
        core.membership_index = index;
        self.write_commit(core);
        if self.raft.storage().keeps_snapshot() && core.snapshots.none_sending() {
            // Whoever was added just now would find itself missing in it.
            self.drop_snapshot(core);
        }
        Ok(Applying::Membership { index, term, change, conf_state })
    }

    /// That a change is committed is not left to a later write: whoever is started again under the
    /// members of before may wait for the vote of one that is gone.
    fn write_commit(&mut self, core: &mut Core) {
        self.last_write = WriteId(self.last_write.0 + 1);
        let hard_state = self.raft.basic_status().hard_state;
        self.hand_out(core, Write::commit(self.last_write, hard_state.into()), Vec::new());
    }

    /// Asks for a write; the responses are given when it is durable.
    fn hand_out(&mut self, core: &mut Core, write: Write, responses: Vec<Message>) {
        core.effects.writes.push(write.clone());
        self.unwritten_bytes += write.entries.payload_size();
        let since_ticks = core.now_ticks;
        self.writes.push_back(PendingWrite { write, responses, since_ticks });
    }

    fn on_persisted(&mut self, core: &mut Core, id: WriteId) -> Result<(), Fatal> {
        while self.writes.front().is_some_and(|pending| pending.write.id <= id) {
            let Some(PendingWrite { write, responses, .. }) = self.writes.pop_front() else {
                break;
            };
            self.unwritten_bytes -= write.entries.payload_size();
            let storage = self.raft.storage_mut();
            if let Some(snapshot) = &write.install {
                storage.install(snapshot);
                core.on_installed(snapshot);
            }
            let storage = self.raft.storage_mut();
            storage.append(write.entries)?;
            if let Some(crate::HardState::Raft(hard_state)) = write.hard_state {
                storage.keep_hard_state(hard_state);
            }
            for response in responses {
                if response.to == core.config.node {
                    self.step(response)?;
                } else {
                    core.effects.messages.push(response.into());
                }
            }
        }
        core.answer_reads();
        Ok(())
    }

    fn on_applied(&mut self, core: &mut Core, index: Index) -> Result<(), Fatal> {
        core.applied = core.applied.max(index);
        while self.applies.front().is_some_and(|pending| pending.last <= index) {
            let Some(pending) = self.applies.pop_front() else { break };
            for response in pending.responses {
                self.step(response)?;
            }
        }
        core.answer_reads();
        Ok(())
    }

    /// Whether committed entries wait for those before them.
    pub(crate) fn awaits_applied(&self, core: &Core) -> bool {
        let handed_out = self.applies.back().map_or(core.applied, |pending| pending.last);
        handed_out < self.raft.basic_status().hard_state.commit
    }

    fn drop_snapshot(&mut self, core: &mut Core) {
        self.raft.storage_mut().drop_snapshot();
        core.effects.drop_snapshot = true;
    }

    fn step(&mut self, message: Message) -> Result<(), Fatal> {
        fatal_only(self.raft.step(message))
    }
}

fn engine_config(config: &Config, applied: Index) -> quorate_raft::Config {
    quorate_raft::Config {
        id: config.node,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        // Bounded by `OnRaft::has_room`.
        max_uncommitted_entries_size: 0,
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
        narrow_on_refusal: true,
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
