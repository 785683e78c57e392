//! One node: what every role shares, the role, and how one role follows another.
//!
//! A message passes three places, in this order: the term gate ([`Raft::gate`]), what all roles do
//! alike (votes, acknowledgements of storage), and the role. A role does not change itself: it says
//! what is [`Next`], and [`Raft::turn`] alone grants it.
//!
//! Source: thesis, figure 3.1; etcd's `raft.Step`.

use std::ops::ControlFlow;
use std::sync::Arc;

use quorate_types::{EntryId, Index, NodeId, Term, bug};

use crate::append::WhenEmpty;
use crate::core::Core;
use crate::leader::Leader;
use crate::log::LogError;
use crate::note::{CampaignRefusal, MessageFault, Note};
use crate::{
    AnyConfChange, AppliedChange, Body, CampaignType, Changer, ConfState, Config, DropReason,
    Entry, EntryType, Error, Fatal, Message, MessageType, ProgressState, Role,
    SnapshotRequestRefusal, SoftState, Storage, TraceLogger, TracingEventName, candidate, follower,
    is_local_target,
};

#[derive(Debug)]
pub(crate) struct Raft<S> {
    pub(crate) core: Core<S>,
    pub(crate) role: RoleState,
}

/// The role, with what only it needs.
#[derive(Debug)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate,
    Candidate,
    // Boxed, because most of many groups on a node do not lead.
    Leader(Box<Leader>),
}

/// What a role asks for after a message or a tick.
#[derive(Debug)]
pub(crate) enum Next {
    Stay,
    /// Become a follower in `term` of `lead`, or of nobody.
    Follow {
        term: Term,
        lead: NodeId,
    },
    /// Become a follower of the sender in the message's term, and handle the message as that.
    // Boxed: it is rare, and all others are small.
    Relay(Box<Message>),
    /// Campaign, if nothing speaks against it.
    Hup(CampaignType),
    /// Go on to the next stage of a campaign.
    Campaign(CampaignType),
    /// Take office.
    Lead,
}

impl<S: Storage> Raft<S> {
    pub(crate) fn new(
        config: Config,
        storage: S,
        logger: Option<Arc<dyn TraceLogger>>,
    ) -> Result<Self, Error> {
        Ok(Raft { core: Core::new(config, storage, logger)?, role: RoleState::Follower })
    }

    /// Handles one message.
    pub(crate) fn step(&mut self, message: Message) -> Result<(), Error> {
        self.core.trace_received(&message);
        if !self.gate(&message) {
            return Ok(());
        }
        let Message { from, term, .. } = message;
        match message.body {
            Body::Hup => self.hup(self.campaign_type()),
            Body::Vote { last, transfer, priority } => {
                let rank = (!transfer).then_some(priority);
                self.on_vote_request(from, term, last, rank, false)
            }
            Body::PreVote { last, transfer, priority } => {
                let rank = (!transfer).then_some(priority);
                self.on_vote_request(from, term, last, rank, true)
            }
            Body::Propose { entries } => self.propose(from, entries).map(drop),
            Body::StorageAppendReply { stable, snapshot } => {
                let snapshot = snapshot.map(|snapshot| snapshot.metadata.index);
                self.on_stored(term, stable, snapshot)
            }
            Body::StorageApplyReply { entries } => match entries.last() {
                Some(last) => {
                    self.on_applied(last.index, entries.encoded_size(), entries.payload_size())
                }
                None => Ok(()),
            },
            _ => self.step_role(message),
        }
    }

    /// Handles a heartbeat that says nothing new, or an answer to one, as [`Raft::step`] would, but
    /// without the way there. Says whether it was that.
    pub(crate) fn step_beat(&mut self, message: &Message) -> bool {
        let core = &mut self.core;
        let &Message { from, term, .. } = message;
        if term != core.term || from.is_none() || core.tracer.is_on() {
            return false;
        }
        match (&mut self.role, &message.body) {
            (RoleState::Follower, Body::Heartbeat { commit, context }) => {
                let is_plain = from == core.lead
                    && *commit <= core.log.committed()
                    && context.is_empty()
                    && core.snapshot_wanted.is_none()
                    && core.may_owe_beat();
                if is_plain {
                    follower::hear_from(core, from);
                    core.owe_beat();
                }
                is_plain
            }
            (RoleState::Leader(leader), Body::HeartbeatReply { context }) => {
                context.is_empty() && from != core.id && leader.hear_from(core, from)
            }
            _ => false,
        }
    }

    fn step_role(&mut self, message: Message) -> Result<(), Error> {
        let core = &mut self.core;
        let next = match &mut self.role {
            RoleState::Follower => follower::step(core, message)?,
            RoleState::PreCandidate => candidate::step(core, CampaignType::PreElection, message)?,
            RoleState::Candidate => candidate::step(core, CampaignType::Election, message)?,
            RoleState::Leader(leader) => leader.step(core, message)?,
        };
        // As nearly always.
        if matches!(next, Next::Stay) { Ok(()) } else { self.turn(next) }
    }

    /// Counts one tick of the clock. Says whether something may be due.
    pub(crate) fn count_tick(&mut self) -> bool {
        self.core.now += 1;
        self.core.quiet_until <= self.core.now
    }

    /// Whether something is due, which [`Raft::on_time`] does. If not, no tick need be looked at
    /// until something is.
    pub(crate) fn is_due(&mut self) -> bool {
        if !matches!(self.role, RoleState::Leader(_)) {
            self.core.end_late_transfer();
        }
        self.core.quiet_until = self.due_at();
        self.core.quiet_until <= self.core.now
    }

    /// The next tick at which this node has something to do, if it is told nothing until then.
    pub(crate) fn due_at(&self) -> u64 {
        match &self.role {
            RoleState::Leader(leader) => leader.due_at(&self.core),
            RoleState::Follower | RoleState::PreCandidate | RoleState::Candidate => {
                self.core.due_at()
            }
        }
    }

    /// If this node leads, and heartbeats are all that is due, owes them. Says whether it does.
    pub(crate) fn beat_if_idle(&mut self) -> bool {
        match &mut self.role {
            RoleState::Leader(leader) => leader.beat_if_idle(&mut self.core),
            RoleState::Follower | RoleState::PreCandidate | RoleState::Candidate => false,
        }
    }

    /// Does what the clock makes due.
    pub(crate) fn on_time(&mut self) -> Result<(), Error> {
        if let RoleState::Leader(leader) = &mut self.role {
            let next = leader.on_time(&mut self.core)?;
            return self.turn(next);
        }
        self.core.election_since = self.core.now;
        self.hup(self.campaign_type())
    }

    // The term gate.

    /// Brings this node to the message's term, or keeps the message away. Says whether it is to be
    /// handled.
    fn gate(&mut self, message: &Message) -> bool {
        let &Message { from, term, .. } = message;
        let kind = message.message_type();
        if !has_good_envelope(message, self.core.id) {
            self.core.dropped(kind, from, MessageFault::Envelope);
            return false;
        }
        if term == Term(0) || term == self.core.term {
            return true;
        }
        if self.core.term < term { self.gate_newer(message) } else { self.gate_older(message) }
    }

    fn gate_newer(&mut self, message: &Message) -> bool {
        let &Message { from, term, .. } = message;
        match message.body {
            Body::Vote { transfer, .. } | Body::PreVote { transfer, .. }
                if !transfer && self.core.is_in_lease() =>
            {
                // A voter that hears from its leader helps nobody else into office.
                let leader = self.core.lead;
                self.core.note(Note::LeaseHeld { candidate: from, leader });
                return false;
            }
            Body::Vote { transfer: false, .. } if self.core.has_promised() => {
                self.core.note(Note::PromiseKept { candidate: from });
                return false;
            }
            // Neither asking nor being promised a vote makes a new term.
            Body::PreVote { .. } | Body::PreVoteReply { reject: false } => {}
            // Our own storage cannot be ahead of us.
            Body::StorageAppendReply { .. } => {
                self.core.dropped(message.message_type(), from, MessageFault::Envelope);
                return false;
            }
            // Only a leader says these.
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                self.follow(term, from);
            }
            _ => self.follow(term, NodeId::NONE),
        }
        true
    }

    fn gate_older(&mut self, message: &Message) -> bool {
        let from = message.from;
        let (core, kind) = (&mut self.core, message.message_type());
        match message.body {
            // A leader that lost touch would otherwise never learn that it must step down, or, with
            // pre-votes, that this node waits at a higher term.
            Body::Append { .. } | Body::Heartbeat { .. }
                if (core.config.check_quorum || core.config.pre_vote)
                    && !bug!("older-terms-are-not-answered") =>
            {
                core.send(from, Body::AppendReply { index: Index(0) });
            }
            // So that a group in which only some use pre-votes cannot get stuck.
            Body::PreVote { .. } => core.send(from, Body::PreVoteReply { reject: true }),
            // What of it still counts is decided there.
            Body::StorageAppendReply { .. } => return true,
            Body::AppendReply { .. } if bug!("acknowledgements-of-earlier-terms-count") => {
                return true;
            }
            _ => core.dropped(kind, from, MessageFault::OldTerm),
        }
        false
    }

    // What all roles do alike.

    /// A candidate whose log ends at `last` asks for a vote in `term`. Its priority counts unless
    /// the leader asked for the election.
    fn on_vote_request(
        &mut self,
        candidate: NodeId,
        term: Term,
        last: EntryId,
        rank: Option<i64>,
        pre_vote: bool,
    ) -> Result<(), Error> {
        if rank.is_some() && self.core.has_promised() {
            self.core.note(Note::PromiseKept { candidate });
            return Ok(());
        }
        let is_outranked = rank.is_some_and(|rank| rank < self.core.config.priority)
            && self.core.vote != candidate
            && self.would_rather_stand(last)?;
        let core = &mut self.core;
        let is_free = core.vote == candidate
            || (core.vote.is_none() && core.lead.is_none())
            || (pre_vote && core.term < term);
        let is_free = is_free || bug!("votes-twice");
        let is_fit = core.is_good_candidate(last)? || bug!("votes-for-any-log");
        let is_granted = is_free && !is_outranked && is_fit;
        let reply = |reject| match pre_vote {
            true => Body::PreVoteReply { reject },
            false => Body::VoteReply { reject },
        };
        if is_granted {
            core.note(Note::VoteGranted { candidate, term, pre_vote });
            core.send_at(term, candidate, reply(false));
            if !pre_vote {
                core.election_since = core.now;
                core.vote = candidate;
            }
        } else {
            core.note(Note::VoteRefused { candidate, term, pre_vote });
            core.send(candidate, reply(true));
        }
        Ok(())
    }

    /// Whether this node, whose priority is higher than that of a candidate whose log ends at
    /// `last`, may hold the candidate up to stand itself.
    fn would_rather_stand(&self, last: EntryId) -> Result<bool, Error> {
        // It has had its chance since, or could not win while the other might.
        Ok(!self.core.has_stood
            && last == self.core.last_entry()?
            && self.campaign_refusal()?.is_none())
    }

    /// A write issued in `term` is durable: the log up to `stable`, and the snapshot at `snapshot`.
    pub(crate) fn on_stored(
        &mut self,
        term: Term,
        stable: Option<EntryId>,
        snapshot: Option<Index>,
    ) -> Result<(), Error> {
        self.core.is_remembered = true;
        // In a later term another leader may have replaced the entries, and even put them back
        // since: what was written then would not be what the log holds after the write under way.
        if let Some(id) = stable
            && (term == self.core.term || bug!("a-write-of-an-earlier-term-counts"))
        {
            self.core.log.stable_to(id);
        }
        if let Some(index) = snapshot {
            self.core.log.stable_snap_to(index);
            self.on_applied(index, 0, 0)?;
        }
        Ok(())
    }

    /// Entries up to `index` are applied, the last of them of so many bytes.
    pub(crate) fn on_applied(
        &mut self,
        index: Index,
        encoded_bytes: u64,
        payload_bytes: u64,
    ) -> Result<(), Error> {
        let core = &mut self.core;
        let applied = index.max(core.log.applied());
        core.log.applied_to(applied, encoded_bytes)?;
        if let RoleState::Leader(leader) = &mut self.role {
            leader.on_applied(core, payload_bytes)?;
        } else if core.now < core.late_order_until && self.campaign_refusal()?.is_none() {
            self.core.late_order_until = 0;
            self.hup(CampaignType::Transfer)?;
        }
        Ok(())
    }

    /// Takes in proposals of `from`. Says where the first of them stands, if this node leads.
    pub(crate) fn propose(
        &mut self,
        from: NodeId,
        entries: Vec<Entry>,
    ) -> Result<Option<EntryId>, Error> {
        let core = &mut self.core;
        let result = match &mut self.role {
            RoleState::Leader(leader) => leader.propose(core, entries).map(Some),
            RoleState::Follower => follower::propose(core, from, entries).map(|()| None),
            RoleState::PreCandidate | RoleState::Candidate => {
                Err(Error::ProposalDropped(DropReason::NoLeader))
            }
        };
        if let Err(Error::ProposalDropped(why)) = result {
            core.note(Note::ProposalDropped { why });
        }
        result
    }

    /// Carries out the membership change at `index`, unless a snapshot has overtaken it.
    pub(crate) fn apply_conf_change_at(
        &mut self,
        index: Index,
        change: &AnyConfChange,
    ) -> Result<AppliedChange, Error> {
        if index <= self.core.restored {
            return Ok(AppliedChange::Overtaken(self.core.tracker.conf_state()));
        }
        self.apply_conf_change(change).map(AppliedChange::Changed)
    }

    /// Carries out a committed membership change.
    pub(crate) fn apply_conf_change(&mut self, change: &AnyConfChange) -> Result<ConfState, Error> {
        let core = &mut self.core;
        if core.log.has_unstable_snapshot() {
            // It was handed out before the snapshot came, whose membership has it already.
            return Ok(core.tracker.conf_state());
        }
        let change = change.as_v2();
        let changer = Changer { tracker: &core.tracker, last_index: core.log.last_index() };
        let membership = if change.leave_joint() {
            changer.leave_joint()?
        } else if let Some(auto_leave) = change.enter_joint() {
            changer.enter_joint(auto_leave, &change.changes)?
        } else {
            changer.simple(&change.changes)?
        };
        core.install(membership);
        let config = &core.tracker.config;
        let note = Note::MembershipChanged {
            voters: config.voters.incoming.0.len(),
            outgoing: config.voters.outgoing.0.len(),
            learners: config.learners.len(),
        };
        let conf_state = config.conf_state();
        core.note(note);
        if let RoleState::Leader(leader) = &mut self.role {
            let next = leader.on_membership(core)?;
            self.turn(next)?;
        }
        Ok(conf_state)
    }

    // Roles.

    /// Gives a role what it asks for. The one place where roles change.
    pub(crate) fn turn(&mut self, next: Next) -> Result<(), Error> {
        match next {
            Next::Stay => Ok(()),
            Next::Follow { term, lead } => {
                self.follow(term, lead);
                Ok(())
            }
            Next::Relay(message) => {
                self.follow(message.term, message.from);
                self.step_role(*message)
            }
            Next::Hup(kind) => self.hup(kind),
            Next::Campaign(kind) => self.campaign(kind),
            Next::Lead => self.lead(),
        }
    }

    pub(crate) fn follow(&mut self, term: Term, lead: NodeId) {
        let core = &mut self.core;
        if let RoleState::Leader(mut leader) =
            std::mem::replace(&mut self.role, RoleState::Follower)
        {
            leader.resign(core, term);
        }
        core.reset(term);
        core.lead = lead;
        core.tracer.role = Role::Follower;
        core.trace(TracingEventName::BecomeFollower);
        core.note(Note::Became { role: Role::Follower, term, leader: lead });
        if !lead.is_none() {
            core.on_leader_known();
        }
    }

    /// Campaigns, unless something speaks against it.
    fn hup(&mut self, kind: CampaignType) -> Result<(), Error> {
        // By the clock, a node campaigns only when what it promised is over.
        let is_promised = kind != CampaignType::Transfer && self.core.has_promised();
        let refusal = self.campaign_refusal()?;
        match refusal.or(is_promised.then_some(CampaignRefusal::Promised)) {
            Some(why) => {
                let core = &mut self.core;
                core.note(Note::CampaignRefused { why });
                if why == CampaignRefusal::UnappliedChange
                    && kind == CampaignType::Transfer
                    && core.config.hand_over_on_removal
                {
                    core.late_order_until = core.now + u64::from(core.config.election_tick);
                }
                Ok(())
            }
            None => self.campaign(kind),
        }
    }

    fn campaign_refusal(&self) -> Result<Option<CampaignRefusal>, Error> {
        Ok(if matches!(self.role, RoleState::Leader(_)) {
            Some(CampaignRefusal::Leader)
        } else if !self.core.is_promotable() {
            Some(CampaignRefusal::NotPromotable)
        } else if self.core.term.next() == self.core.term {
            Some(CampaignRefusal::LastTerm)
        } else if self.core.log.room() == 0 {
            Some(CampaignRefusal::LastIndex)
        } else if self.has_unapplied_change()? {
            Some(CampaignRefusal::UnappliedChange)
        } else {
            None
        })
    }

    /// Whether a membership change is committed and not applied. Whoever campaigned then would
    /// count the votes of a membership that may be two changes old.
    fn has_unapplied_change(&self) -> Result<bool, Error> {
        let core = &self.core;
        let (lo, hi) = (core.log.applied().next(), core.log.committed().next());
        let page_bytes = core.config.applying_bytes_max();
        let found = core.log.scan(lo, hi, page_bytes, |entries| {
            match entries.iter().any(|entry| entry.entry_type() != EntryType::Normal) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match found {
            Ok(found) => Ok(found.is_break()),
            Err(LogError::Fatal(fatal)) => Err(fatal.into()),
            Err(LogError::Compacted) => Err(Fatal::EntriesCompacted { lo, hi }.into()),
            Err(LogError::Unavailable) => Err(Fatal::EntriesUnavailable { lo, hi }.into()),
        }
    }

    fn campaign(&mut self, kind: CampaignType) -> Result<(), Error> {
        let core = &mut self.core;
        let campaign_term = core.term.next();
        assert!(core.term < campaign_term, "no campaign without a higher term");
        let is_pre_vote = kind == CampaignType::PreElection;
        core.has_stood = true;
        if is_pre_vote {
            // Everything but the role and the leader stays: nobody else will notice.
            core.tracker.reset_votes();
            core.forget_snapshot_request();
            core.lead = NodeId::NONE;
            self.role = RoleState::PreCandidate;
            core.tracer.role = Role::PreCandidate;
        } else {
            core.reset(campaign_term);
            core.vote = core.id;
            self.role = RoleState::Candidate;
            core.tracer.role = Role::Candidate;
            core.trace(TracingEventName::BecomeCandidate);
        }
        let (role, term) = (self.role.name(), core.term);
        core.note(Note::Became { role, term, leader: NodeId::NONE });
        core.note(Note::Campaigning { kind, term: campaign_term });

        let last = core.last_entry()?;
        let transfer = kind == CampaignType::Transfer;
        let priority = core.config.priority;
        for voter in core.tracker.config.voters.ids().iter() {
            // Its own vote, too, counts only once it is durable.
            let body = match (voter == core.id, is_pre_vote) {
                (true, true) => Body::PreVoteReply { reject: false },
                (true, false) => Body::VoteReply { reject: false },
                (false, true) => Body::PreVote { last, transfer, priority },
                (false, false) => Body::Vote { last, transfer, priority },
            };
            core.send_at(campaign_term, voter, body);
        }
        Ok(())
    }

    fn lead(&mut self) -> Result<(), Error> {
        let core = &mut self.core;
        let leader = Leader::take_office(core)?;
        self.role = RoleState::Leader(Box::new(leader));
        core.note(Note::Became { role: Role::Leader, term: core.term, leader: core.id });
        core.on_leader_known();
        if let RoleState::Leader(leader) = &mut self.role {
            leader.announce(core)?;
        }
        Ok(())
    }

    /// Asks the leader for a snapshot of all that this node's log holds.
    pub(crate) fn request_snapshot(&mut self) -> Result<(), Error> {
        let core = &mut self.core;
        let last = core.last_entry()?;
        let refusal = if !matches!(self.role, RoleState::Follower) {
            Some(SnapshotRequestRefusal::NotFollower)
        } else if core.lead.is_none() {
            Some(SnapshotRequestRefusal::NoLeader)
        } else if core.log.has_unstable_snapshot() {
            Some(SnapshotRequestRefusal::Installing)
        } else if core.snapshot_wanted.is_some() {
            Some(SnapshotRequestRefusal::Pending)
        } else if last.term != core.term {
            Some(SnapshotRequestRefusal::Behind)
        } else {
            None
        };
        if let Some(why) = refusal {
            return Err(Error::SnapshotRequestRefused(why));
        }
        core.snapshot_wanted = Some(last.index);
        core.note(Note::SnapshotAsked { index: last.index });
        follower::ask_for_snapshot(core);
        Ok(())
    }

    /// Sends `peer` entries if this node leads and pipelines to it. Says how many.
    pub(crate) fn pull_append(&mut self, peer: NodeId, bytes_max: u64) -> Result<u64, Error> {
        let core = &mut self.core;
        let next = |core: &Core<S>| {
            let progress = core.tracker.progress.get(peer);
            progress.filter(|of| of.state == ProgressState::Replicate).map(|of| of.next)
        };
        let is_leader = matches!(self.role, RoleState::Leader(_)) && peer != core.id;
        let Some(before) = next(core).filter(|_| is_leader) else { return Ok(0) };
        let max_size = bytes_max.min(core.config.max_size_per_msg);
        core.send_entries(peer, WhenEmpty::Skip, Some(max_size))?;
        Ok(next(core).map_or(0, |after| after - before))
    }

    /// Makes the appends that were put off until now.
    pub(crate) fn flush_appends(&mut self) -> Result<(), Error> {
        match &mut self.role {
            RoleState::Leader(leader) => leader.flush_appends(&mut self.core),
            RoleState::Follower | RoleState::PreCandidate | RoleState::Candidate => Ok(()),
        }
    }

    fn campaign_type(&self) -> CampaignType {
        match self.core.config.pre_vote {
            true => CampaignType::PreElection,
            false => CampaignType::Election,
        }
    }

    // Questions.

    pub(crate) fn soft_state(&self) -> SoftState {
        SoftState { lead: self.core.lead, role: self.role.name() }
    }

    pub(crate) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            RoleState::Leader(leader) => Some(leader),
            RoleState::Follower | RoleState::PreCandidate | RoleState::Candidate => None,
        }
    }

    pub(crate) fn leader(&self) -> Option<&Leader> {
        match &self.role {
            RoleState::Leader(leader) => Some(leader),
            RoleState::Follower | RoleState::PreCandidate | RoleState::Candidate => None,
        }
    }
}

impl RoleState {
    pub(crate) fn name(&self) -> Role {
        match self {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate => Role::PreCandidate,
            RoleState::Candidate => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }
}

/// Whether a message has the term and the sender that messages of its type must have. A peer may
/// send anything; without this, an append of term 0 or a vote for nobody would be taken seriously.
fn has_good_envelope(message: &Message, id: NodeId) -> bool {
    let has_sender = !message.from.is_none() && !is_local_target(message.from);
    let has_term = message.term != Term(0);
    match message.message_type() {
        MessageType::MsgApp
        | MessageType::MsgVote
        | MessageType::MsgPreVote
        | MessageType::MsgSnap
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResp
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndexResp => has_term && has_sender && message.from != id,
        // These a node also sends to itself.
        MessageType::MsgAppResp | MessageType::MsgVoteResp | MessageType::MsgPreVoteResp => {
            has_term && has_sender
        }
        // These a node also asks of itself, without saying who it is.
        MessageType::MsgProp
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgForgetLeader => !is_local_target(message.from),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp => true,
    }
}
