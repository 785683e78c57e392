//! A leader: appends proposals, moves the commit index, and keeps its followers.
//!
//! What a leadership needs lives here and ends with it; what the leader knows about its peers is in
//! the membership, since it changes with it.
//!
//! Not here: how entries get to a peer (`append.rs`), reads that wait for a quorum (`reads.rs`),
//! handing the office over (`leader/transfer.rs`), leaving it without a vote
//! (`leader/departure.rs`), snapshots that peers ask for (`leader/requests.rs`).

mod departure;
mod requests;
mod transfer;

use quorate_types::{EntryId, Index, NodeId, Term, bug};

use departure::Departure;

use crate::append::WhenEmpty;
use crate::change_wire::decode_conf_change;
use crate::core::Core;
use crate::note::{MessageFault, Note, TransferOutcome};
use crate::raft::Next;
use crate::reads::{ReadRequest, Reads};
use crate::snapshot::MEMBERS_MAX;
use crate::{
    AnyConfChange, Body, ChangeRefusal, DropReason, Entry, EntryType, Error, Message, MessageType,
    ProgressState, ReadOnlyOption, Role, Storage, TracingEventName, is_local_target, payload_size,
};

#[derive(Debug, Default)]
pub(crate) struct Leader {
    /// The tick of the last heartbeats.
    heartbeat_since: u64,
    /// The tick at which this leadership began.
    office_since: u64,
    /// Whom leadership is being handed to; [`NodeId::NONE`] for nobody.
    transferee: NodeId,
    /// The last membership change that may not be applied yet stands at or before this index.
    pending_change: Index,
    /// Payload of this term's entries that are not applied: an estimate, never too high for long.
    uncommitted_bytes: u64,
    reads: Reads,
    /// Whether peers are to be sent what they have not been sent yet when the next Ready is made.
    appends_due: bool,
    /// Members that asked for a snapshot at or after an index, and were not sent one yet.
    snapshot_requests: Vec<(NodeId, Index)>,
    /// Whether this leader has told another node to campaign. Voters elect that one in spite of the
    /// lease, now or, if the order is late, at any time in this term.
    has_ordered: bool,
    /// Set while this leader has no vote any more, and has not left office yet.
    departure: Option<Departure>,
}

impl Leader {
    /// Takes office at the present term: the candidate's work is done, and an empty entry opens
    /// the term, since only with it what earlier leaders left can be committed.
    pub(crate) fn take_office<S: Storage>(core: &mut Core<S>) -> Result<Self, Error> {
        core.reset(core.term);
        core.lead = core.id;
        core.promised_until = 0;
        if let Some(own) = core.tracker.progress.get_mut(core.id) {
            own.become_replicate();
            own.recent_active = true;
        }
        // Somewhere in what is already there a change may stand; looking for it is not worth it.
        let pending_change = core.log.last_index();
        let (heartbeat_since, office_since) = (core.now, core.now);
        let mut leader =
            Leader { pending_change, heartbeat_since, office_since, ..Leader::default() };
        core.tracer.role = Role::Leader;
        core.trace(TracingEventName::BecomeLeader);
        leader.append(core, vec![Entry::default()])?;
        Ok(leader)
    }

    /// Leaves office, to go on in `term`.
    pub(crate) fn resign<S: Storage>(&mut self, core: &mut Core<S>, term: Term) {
        let mut count = 0;
        for request in self.reads.take_all() {
            count += 1;
            core.lose_read(&request);
        }
        if core.config.report_lost_reads {
            for request in std::mem::take(&mut core.postponed) {
                count += 1;
                core.lose_read(&request);
            }
        }
        if count > 0 {
            core.note(Note::ReadsLost { count });
        }
        core.is_gone = core.config.hand_over_on_removal
            && !core.tracker.config.voters.contains(core.id)
            && has_committed_in_term(core);
        self.resign_in_transfer(core, term);
    }

    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        message: Message,
    ) -> Result<Next, Error> {
        let (from, kind) = (message.from, message.message_type());
        match message.body {
            Body::AppendReply { index } => {
                self.on_append_reply(core, from, index)?;
                return self.depart_if_known(core);
            }
            // Nobody refuses what follows nothing: it is a request (see the variant's comment).
            Body::AppendRefusal { index: Index(0), hint } if core.config.snapshot_on_request => {
                self.on_snapshot_request(core, from, hint.index)?;
            }
            Body::AppendRefusal { index, hint } => on_append_refusal(core, from, index, hint)?,
            Body::HeartbeatReply { context } => self.on_heartbeat_reply(core, from, &context)?,
            Body::ReadIndex { entries } => self.on_read(core, ReadRequest { from, entries }),
            Body::Beat => self.beat(core),
            Body::CheckQuorum => return Ok(check_quorum(core)),
            Body::Unreachable => on_unreachable(core, from),
            Body::SnapshotStatus { reject } => on_snapshot_status(core, from, reject),
            Body::TransferLeader => self.on_transfer(core, from)?,
            // A second leader in one term cannot be.
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                core.dropped(kind, from, MessageFault::Role);
            }
            // Late votes, and what only followers do.
            Body::VoteReply { .. }
            | Body::PreVoteReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndexReply { .. }
            | Body::ForgetLeader => {}
            // Handled before the role is looked at, or by storage.
            Body::Hup
            | Body::Propose { .. }
            | Body::Vote { .. }
            | Body::PreVote { .. }
            | Body::StorageAppend { .. }
            | Body::StorageAppendReply { .. }
            | Body::StorageApply { .. }
            | Body::StorageApplyReply { .. } => {}
        }
        Ok(Next::Stay)
    }

    // The clock.

    /// The next tick at which something is due.
    pub(crate) fn due_at<S: Storage>(&self, core: &Core<S>) -> u64 {
        let heartbeat = self.heartbeat_since + u64::from(core.config.heartbeat_tick);
        let election = core.election_since + u64::from(core.config.election_tick);
        let departure = self.departure.as_ref().map_or(u64::MAX, Departure::ends_at);
        heartbeat.min(election).min(departure)
    }

    fn is_heartbeat_due<S: Storage>(&self, core: &Core<S>) -> bool {
        u64::from(core.config.heartbeat_tick) <= core.now - self.heartbeat_since
    }

    /// Owes heartbeats if nothing else is due, and nothing is to be said with them. Says whether it
    /// does.
    pub(crate) fn beat_if_idle<S: Storage>(&mut self, core: &mut Core<S>) -> bool {
        let is_idle = self.is_heartbeat_due(core)
            && core.election_elapsed() < u64::from(core.config.election_tick)
            && self.departure.is_none()
            && self.transferee.is_none()
            && self.reads.len() == 0
            && self.stamp(core).is_none()
            && core.may_owe_beat();
        if is_idle {
            self.heartbeat_since = core.now;
            core.owe_heartbeats();
        }
        is_idle
    }

    /// Does what is due.
    pub(crate) fn on_time<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Error> {
        if u64::from(core.config.election_tick) <= core.election_elapsed() {
            core.election_since = core.now;
            if core.config.check_quorum {
                let next = check_quorum(core);
                if !matches!(next, Next::Stay) {
                    return Ok(next);
                }
            }
            self.end_transfer(core, TransferOutcome::TimedOut);
        }
        if self.is_heartbeat_due(core) {
            self.heartbeat_since = core.now;
            self.beat(core);
            self.repeat_order(core);
        }
        self.depart_if_late(core)
    }

    fn beat<S: Storage>(&mut self, core: &mut Core<S>) {
        core.broadcast_heartbeat(&self.reads.context(self.stamp(core)));
    }

    /// A tick has passed that brings no heartbeat nearer.
    pub(crate) fn skip_tick(&mut self) {
        self.heartbeat_since += 1;
    }

    /// What heartbeats say about when they were sent, where that matters: the ticks of this
    /// leadership, counted from [`Config::lease_ticks`](crate::Config::lease_ticks) on, so that a
    /// lease that began at 0 is over.
    fn stamp<S>(&self, core: &Core<S>) -> Option<u64> {
        let lease_ticks = u64::from(core.config.lease_ticks);
        (lease_ticks > 0).then(|| core.now - self.office_since + lease_ticks)
    }

    /// Whether nobody else can have been elected so far.
    fn has_lease<S: Storage>(&self, core: &Core<S>) -> bool {
        if core.config.read_only_option != ReadOnlyOption::LeaseBased || self.has_ordered {
            return false;
        }
        let Some(now) = self.stamp(core) else { return true };
        let since = self.reads.tick_of_quorum(&core.tracker.config.voters, core.id, now);
        now - since < u64::from(core.config.lease_ticks)
    }

    // Proposals.

    /// Appends proposals, or none of them. Says where the first one stands.
    pub(crate) fn propose<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        mut entries: Vec<Entry>,
    ) -> Result<EntryId, Error> {
        if entries.is_empty() {
            return Err(Error::ProposalDropped(DropReason::Malformed));
        }
        if self.departure.is_none() && !core.tracker.progress.contains(core.id) {
            return Err(Error::ProposalDropped(DropReason::NotMember));
        }
        if self.is_handing_over() {
            return Err(Error::ProposalDropped(DropReason::TransferPending));
        }
        let before = self.pending_change;
        let first =
            self.admit_changes(core, &mut entries).and_then(|()| self.append(core, entries));
        if first.is_err() {
            self.pending_change = before;
        }
        let first = first?;
        self.announce(core)?;
        Ok(first)
    }

    /// Tells peers about new entries or a new commit index: now, or with the next Ready.
    pub(crate) fn announce<S: Storage>(&mut self, core: &mut Core<S>) -> Result<(), Error> {
        if core.config.coalesce_appends {
            self.appends_due = true;
        } else {
            core.broadcast_append(WhenEmpty::Send)?;
        }
        Ok(())
    }

    /// Makes the appends that were put off.
    pub(crate) fn flush_appends<S: Storage>(&mut self, core: &mut Core<S>) -> Result<(), Error> {
        if std::mem::take(&mut self.appends_due) {
            core.broadcast_due()?;
        }
        Ok(())
    }

    /// Why a membership change cannot be proposed now.
    pub(crate) fn change_refusal<S: Storage>(
        &self,
        core: &Core<S>,
        change: &AnyConfChange,
    ) -> Option<ChangeRefusal> {
        let is_joint = core.tracker.config.is_joint();
        if core.config.disable_conf_change_validation {
            None
        } else if core.log.applied() < self.pending_change {
            Some(ChangeRefusal::Unapplied)
        } else if is_joint && !change.is_empty() {
            Some(ChangeRefusal::StillJoint)
        } else if !is_joint && change.is_empty() {
            Some(ChangeRefusal::NotJoint)
        } else {
            None
        }
    }

    /// Replaces membership changes that cannot work now by empty entries, so that at most one is
    /// between proposal and application.
    fn admit_changes<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        entries: &mut [Entry],
    ) -> Result<(), Error> {
        let mut index = core.log.last_index();
        for entry in entries {
            index = index.next();
            let kind = entry.entry_type();
            if kind == EntryType::Normal {
                continue;
            }
            let change = decode_conf_change(kind, entry.payload()).ok().filter(names_nodes);
            let Some(change) = change else {
                return Err(Error::ProposalDropped(DropReason::Malformed));
            };
            if let Some(why) = self.change_refusal(core, &change) {
                core.note(Note::ChangeRefused { index, why });
                if core.config.refuse_changes {
                    return Err(Error::ChangeRefused(why));
                }
                *entry = Entry { kind: Some(EntryType::Normal), ..Entry::default() };
            } else {
                self.pending_change = index;
                core.trace_change(&change);
            }
        }
        Ok(())
    }

    /// Appends entries of this term. This node's own copy counts once it is durable.
    fn append<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        mut entries: Vec<Entry>,
    ) -> Result<EntryId, Error> {
        if core.log.room() < entries.len() as u64 {
            return Err(Error::ProposalDropped(DropReason::LogFull));
        }
        let bytes = payload_size(&entries);
        let total = self.uncommitted_bytes.saturating_add(bytes);
        // One of any size passes when nothing waits, or it never would.
        if bytes > 0 && self.uncommitted_bytes > 0 && core.config.uncommitted_bytes_max() < total {
            return Err(Error::ProposalDropped(DropReason::Uncommitted));
        }
        self.uncommitted_bytes = total;

        let first = EntryId { term: core.term, index: core.log.last_index().next() };
        let mut index = first.index;
        for entry in &mut entries {
            entry.term = core.term;
            entry.index = index;
            index = index.next();
            if entry.entry_type() == EntryType::Normal {
                core.trace(TracingEventName::Replicate);
            }
        }
        let last = core.log.append(entries)?;
        core.acknowledge_own(last);
        if bug!("own-copy-counts-before-its-disk")
            && let Some(own) = core.tracker.progress.get_mut(core.id)
        {
            own.maybe_update(last);
        }
        Ok(first)
    }

    /// The application took in so many bytes of payload more.
    pub(crate) fn on_applied<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        payload_bytes: u64,
    ) -> Result<(), Error> {
        let is_due = core.tracker.config.auto_leave && !bug!("a-joint-membership-is-never-left");
        if is_due && self.pending_change <= core.log.applied() {
            let leave = Entry { kind: Some(EntryType::ConfChangeV2), ..Entry::default() };
            match self.propose(core, vec![leave]) {
                Ok(id) => core.note(Note::LeavingJoint { index: id.index }),
                // Tried again at the next acknowledgement.
                Err(Error::ProposalDropped(why)) => core.note(Note::ProposalDropped { why }),
                // Noted where it was refused.
                Err(Error::ChangeRefused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(payload_bytes);
        Ok(())
    }

    // Answers of followers.

    /// The log of `from` matches ours up to `index`, durably.
    fn on_append_reply<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        index: Index,
    ) -> Result<(), Error> {
        let last = core.log.last_index();
        let Some(progress) = core.tracker.progress.get_mut(from) else {
            core.dropped(MessageType::MsgAppResp, from, MessageFault::NotMember);
            return Ok(());
        };
        progress.recent_active = true;
        if last < index {
            core.dropped(MessageType::MsgAppResp, from, MessageFault::Malformed);
            return Ok(());
        }
        // A peer that is probed although it has everything has nothing new to tell; nor has one that
        // had all that its snapshot covers, and asked for it.
        let is_over = match progress.state {
            ProgressState::Probe => progress.matched == index,
            ProgressState::Snapshot => {
                progress.matched == index && progress.pending_snapshot <= index
            }
            ProgressState::Replicate => false,
        };
        if !progress.maybe_update(index) && !is_over {
            return Ok(());
        }
        match progress.state {
            ProgressState::Probe => progress.become_replicate(),
            ProgressState::Snapshot => {
                // Whichever snapshot it got: what follows is in the log.
                if core.log.first_index()? <= progress.matched.next() {
                    progress.become_probe();
                    progress.become_replicate();
                }
            }
            ProgressState::Replicate => {
                progress.inflights.free_le(index);
                progress.inflights.widen();
            }
        }
        let has_all = progress.matched == last;
        let is_behind = progress.can_bump_commit(core.log.committed());
        let has_room = progress.next <= last && !progress.is_paused();

        if self.advance_commit(core)? {
            self.announce(core)?;
        } else if core.config.coalesce_appends {
            self.appends_due |= from != core.id && (is_behind || has_room);
        } else if from != core.id && is_behind {
            core.send_append(from, WhenEmpty::Send)?;
        }
        if from != core.id && !core.config.coalesce_appends {
            // There may be room in its window for more than one append now.
            while core.send_append(from, WhenEmpty::Skip)? {}
        }
        if from == self.transferee && has_all {
            self.flush_appends(core)?;
            self.order_campaign(core, from);
        }
        Ok(())
    }

    /// A peer answers a heartbeat. Says whether that was all there is to it: the peer has everything,
    /// and wants nothing.
    pub(crate) fn hear_from<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) -> bool {
        let last = core.log.last_index();
        let Some(progress) = core.tracker.progress.get_mut(peer) else { return false };
        if progress.matched < last
            || progress.state == ProgressState::Probe
            || !self.snapshot_requests.is_empty()
        {
            return false;
        }
        progress.recent_active = true;
        progress.msg_app_flow_paused = false;
        true
    }

    fn on_heartbeat_reply<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        context: &[u8],
    ) -> Result<(), Error> {
        let last = core.log.last_index();
        let Some(progress) = core.tracker.progress.get_mut(from) else {
            core.dropped(MessageType::MsgHeartbeatResp, from, MessageFault::NotMember);
            return Ok(());
        };
        progress.recent_active = true;
        progress.msg_app_flow_paused = false;
        // An append that was lost is not answered; this makes up for it. A peer that was probed
        // without need gets the chance to say so.
        if progress.matched < last || progress.state == ProgressState::Probe {
            core.send_append(from, WhenEmpty::Send)?;
        }
        self.serve_snapshot_request(core, from)?;
        if !context.is_empty() {
            if self.reads.acknowledge(from, context, self.stamp(core)) {
                self.answer_confirmed_reads(core);
            } else {
                core.dropped(MessageType::MsgHeartbeatResp, from, MessageFault::Malformed);
            }
        }
        Ok(())
    }

    /// Commits what a quorum holds, if it is of this term. Says whether the commit index moved.
    fn advance_commit<S: Storage>(&mut self, core: &mut Core<S>) -> Result<bool, Error> {
        let quorum_holds = EntryId { term: core.term, index: core.tracker.committed() };
        let has_moved = core.log.maybe_commit(quorum_holds)?;
        core.trace(TracingEventName::Commit);
        if !has_moved {
            return Ok(false);
        }
        self.release_postponed_reads(core);
        Ok(true)
    }

    // Reads.

    fn on_read<S: Storage>(&mut self, core: &mut Core<S>, request: ReadRequest) {
        let has_room = self.reads.len() + core.postponed.len() < core.config.reads_max;
        let fault = match (request.entries.len(), has_room) {
            (1, true) => None,
            (1, false) => Some(MessageFault::TooManyReads),
            _ => Some(MessageFault::Malformed),
        };
        if let Some(why) = fault {
            core.lose_read(&request);
            core.dropped(MessageType::MsgReadIndex, request.from, why);
            return;
        }
        // Without other voters nobody else can lead.
        let is_alone = decides_alone(core) && !core.config.postpone_single_voter_reads;
        let may_trail = !has_committed_in_term(core) && !bug!("reads-before-its-first-commit");
        if !is_alone && may_trail {
            // What earlier leaders committed may reach further than this node knows yet.
            core.postponed.push(request);
        } else if self.take_read(core, request) {
            self.beat(core);
        }
    }

    /// Answers a read, or lets it wait for a quorum. Says whether a quorum must be asked.
    fn take_read<S: Storage>(&mut self, core: &mut Core<S>, request: ReadRequest) -> bool {
        let index = core.log.committed();
        let is_certain =
            decides_alone(core) || self.has_lease(core) || bug!("reads-without-a-quorum");
        if is_certain {
            core.answer_read(request, index);
        } else {
            self.reads.push(core.id, request, index);
        }
        !is_certain
    }

    fn release_postponed_reads<S: Storage>(&mut self, core: &mut Core<S>) {
        let mut must_ask = false;
        for request in std::mem::take(&mut core.postponed) {
            must_ask |= self.take_read(core, request);
        }
        if must_ask {
            self.beat(core);
        }
    }

    fn answer_confirmed_reads<S: Storage>(&mut self, core: &mut Core<S>) {
        let mut confirmed = self.reads.take_confirmed(&core.tracker.config.voters);
        // Most answers of followers confirm nothing new.
        let Some(first) = confirmed.next() else { return };
        let confirmed: Vec<_> = std::iter::once(first).chain(confirmed).collect();
        for (request, index) in confirmed {
            core.answer_read(request, index);
        }
    }

    // Membership.

    /// Another membership is in force.
    pub(crate) fn on_membership<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Error> {
        self.snapshot_requests.retain(|(peer, _)| core.tracker.progress.contains(*peer));
        if core.is_learner || !core.tracker.progress.contains(core.id) {
            return match core.config.step_down_on_removal {
                true => self.depart(core),
                false => Ok(Next::Stay),
            };
        }
        self.departure = None;
        if core.tracker.config.voters.incoming.0.is_empty() {
            return Ok(Next::Stay);
        }
        // The quorum may be smaller now.
        let when_empty = match self.advance_commit(core)? {
            true => WhenEmpty::Send,
            // New members are probed at once.
            false => WhenEmpty::Skip,
        };
        core.broadcast_append(when_empty)?;
        self.answer_confirmed_reads(core);
        if !core.tracker.config.voters.contains(self.transferee) {
            self.end_transfer(core, TransferOutcome::TargetRemoved);
        }
        Ok(Next::Stay)
    }

    // Questions.

    pub(crate) fn transferee(&self) -> NodeId {
        self.transferee
    }

    /// Whether proposals are refused until another leads, or this one goes on.
    pub(crate) fn is_handing_over(&self) -> bool {
        !self.transferee.is_none() || self.departure.is_some()
    }

    pub(crate) fn has_appends_due(&self) -> bool {
        self.appends_due
    }

    pub(crate) fn pending_change(&self) -> Index {
        self.pending_change
    }

    pub(crate) fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes
    }

    pub(crate) fn reads_waiting(&self) -> usize {
        self.reads.len()
    }
}

/// The log of `from` does not connect after `index`, and perhaps does after `hint`.
fn on_append_refusal<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    index: Index,
    hint: EntryId,
) -> Result<(), Error> {
    let Some(progress) = core.tracker.progress.get_mut(from) else {
        core.dropped(MessageType::MsgAppResp, from, MessageFault::NotMember);
        return Ok(());
    };
    progress.recent_active = true;
    // Where its log has terms that ours does not, skip all of them at once.
    let mut guess = hint.index;
    if hint.term.0 > 0 {
        guess = core.log.find_conflict_by_term(hint.index, hint.term)?.index;
    }
    if !progress.maybe_decr_to(index, guess) {
        return Ok(());
    }
    let next = progress.next;
    if progress.state == ProgressState::Replicate {
        progress.become_probe();
        if core.config.narrow_on_refusal {
            progress.inflights.narrow();
        }
    }
    core.note(Note::PeerDiverged { peer: from, refused: index, next });
    core.send_append(from, WhenEmpty::Send)?;
    Ok(())
}

/// Steps down if no quorum was heard from since the last time, and starts listening anew.
fn check_quorum<S: Storage>(core: &mut Core<S>) -> Next {
    let is_active = core.tracker.quorum_active();
    for (id, progress) in core.tracker.progress.iter_mut() {
        if id != core.id {
            progress.recent_active = false;
        }
    }
    if is_active || bug!("a-leader-without-quorum-stays") {
        return Next::Stay;
    }
    core.note(Note::QuorumLost { term: core.term });
    Next::Follow { term: core.term, lead: NodeId::NONE }
}

fn on_unreachable<S: Storage>(core: &mut Core<S>, peer: NodeId) {
    let Some(progress) = core.tracker.progress.get_mut(peer) else { return };
    // What is under way is probably lost.
    if progress.state == ProgressState::Replicate {
        progress.become_probe();
    }
    core.note(Note::PeerUnreachable { peer });
}

fn on_snapshot_status<S: Storage>(core: &mut Core<S>, peer: NodeId, failed: bool) {
    let Some(progress) = core.tracker.progress.get_mut(peer) else { return };
    if progress.state != ProgressState::Snapshot {
        return;
    }
    if failed {
        // Back to before the snapshot.
        progress.pending_snapshot = Index(0);
    }
    progress.become_probe();
    // Until it answers, or a heartbeat does: it may need a while to install it.
    progress.msg_app_flow_paused = true;
    core.note(Note::SnapshotReported { peer, failed });
}

/// Whether this node is the only voter. A leader that was removed, or made a learner, is not: whoever
/// votes may have elected itself meanwhile.
fn decides_alone<S: Storage>(core: &Core<S>) -> bool {
    core.tracker.is_singleton() && core.tracker.config.voters.contains(core.id)
}

/// Whether a change keeps to ids that may be those of nodes, and to a number of them.
fn names_nodes(change: &AnyConfChange) -> bool {
    let changes = change.as_v2().changes;
    let names_others = changes.iter().any(|single| is_local_target(single.node_id));
    changes.len() <= MEMBERS_MAX && !names_others
}

/// Whether the commit index stands on an entry of this term, so that no earlier leader can have
/// committed beyond it.
fn has_committed_in_term<S: Storage>(core: &Core<S>) -> bool {
    core.log.term(core.log.committed()).is_ok_and(|term| term == core.term)
}
