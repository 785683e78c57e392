//! What a node is whatever its role: its term and vote, its log, its membership, its clock, and
//! what it has to say.
//!
//! A message that vouches for a write (an answer to an append, a vote) waits in `held` until all
//! that was unstable when it was queued is durable; everything else waits in `messages` and may go
//! at once. There is no other way for a message to leave, so none can leave too early. The two ways
//! of driving a node are two renderings of this (`raw_node.rs`).
//!
//! Not here: what a role does with a message (`follower.rs`, `candidate.rs`, `leader.rs`), when
//! roles change (`raft.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term, bug};

use crate::log::RaftLog;
use crate::note::{MessageFault, Note, TransferOutcome};
use crate::reads::ReadRequest;
use crate::rng::Rng;
use crate::trace::Tracer;
use crate::{
    Body, Changer, Config, Error, Fatal, HardState, Membership, Message, MessageType, Progress,
    ProgressTracker, ReadState, Storage, TraceLogger, TracingEventName,
};

/// A transfer of leadership after the leader gave way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) to: NodeId,
    pub(crate) ticks_left: u32,
}

#[derive(Debug)]
pub(crate) struct Core<S> {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) term: Term,
    pub(crate) vote: NodeId,
    /// The leader of this term, as far as known; the node itself when it leads.
    pub(crate) lead: NodeId,
    pub(crate) log: RaftLog<S>,
    pub(crate) tracker: ProgressTracker,
    /// Whether this node is a learner in its own membership.
    pub(crate) is_learner: bool,

    /// Ticks since the last sign of a leader, or, on a leader, since the last check of its quorum.
    pub(crate) election_elapsed: u32,
    /// How many ticks a follower waits in this term.
    pub(crate) election_timeout: u32,
    /// Whether this node has campaigned since it last knew a leader.
    pub(crate) has_stood: bool,
    /// For so many ticks more, an order to campaign is obeyed once a membership change is applied.
    pub(crate) late_order_ticks: u32,
    /// A follower waits for a snapshot at or after this index, where its log ended when it asked,
    /// and takes no entries until then.
    pub(crate) snapshot_wanted: Option<Index>,
    /// Who this node handed leadership to, while it is not known who leads.
    pub(crate) handed_over: Option<HandedOver>,
    /// What became of the last transfer of leadership.
    pub(crate) transfer_outcome: Option<(NodeId, TransferOutcome)>,
    rng: Rng,

    pub(crate) messages: Vec<Message>,
    pub(crate) held: Vec<Message>,
    pub(crate) read_states: Vec<ReadState>,
    pub(crate) lost_reads: Vec<Bytes>,
    /// Reads asked before the leader's first commit in its term. They outlive a leadership.
    pub(crate) postponed: VecDeque<ReadRequest>,

    notes: Vec<Note>,
    notes_missed: u64,
    pub(crate) tracer: Tracer,
}

impl<S: Storage> Core<S> {
    /// What storage remembers, as a follower without a leader.
    pub(crate) fn new(
        config: Config,
        storage: S,
        logger: Option<Arc<dyn TraceLogger>>,
    ) -> Result<Self, Error> {
        let log = RaftLog::new(storage, config.applying_bytes_max())?;
        let initial = log.storage().initial_state()?;
        let tracker = ProgressTracker::new(config.max_inflight_msgs, config.max_inflight_bytes);
        let changer = Changer { tracker: &tracker, last_index: log.last_index() };
        let membership = changer.restore(&initial.conf_state).map_err(Fatal::Change)?;
        let mut core = Core {
            id: config.id,
            term: Term(0),
            vote: NodeId::NONE,
            lead: NodeId::NONE,
            log,
            tracker,
            is_learner: false,
            election_elapsed: 0,
            election_timeout: config.election_tick,
            has_stood: false,
            late_order_ticks: 0,
            snapshot_wanted: None,
            handed_over: None,
            transfer_outcome: None,
            rng: Rng::new(config.seed, config.id),
            messages: Vec::new(),
            held: Vec::new(),
            read_states: Vec::new(),
            lost_reads: Vec::new(),
            postponed: VecDeque::new(),
            notes: Vec::new(),
            notes_missed: 0,
            tracer: Tracer::new(logger),
            config,
        };
        core.trace(TracingEventName::InitState);
        core.install(membership);
        let hard_state = initial.hard_state.unwrap_or_default();
        if !hard_state.is_empty() {
            core.log.load_commit(hard_state.commit)?;
            (core.term, core.vote) = (hard_state.term, hard_state.vote);
        }
        if core.config.applied > Index(0) {
            core.log.applied_to(core.config.applied, 0)?;
        }
        core.reset(core.term);
        core.trace(TracingEventName::BecomeFollower);
        Ok(core)
    }

    /// Puts a membership in force.
    pub(crate) fn install(&mut self, membership: Membership) {
        self.trace_apply_change(&membership.config.voters.incoming.0);
        self.tracker.config = membership.config;
        self.tracker.progress = membership.progress;
        self.is_learner = self.tracker.progress.get(self.id).is_some_and(|own| own.is_learner);
    }

    /// Starts over in `term`, which may be the present one, without a leader.
    pub(crate) fn reset(&mut self, term: Term) {
        if self.term != term {
            assert!(self.term < term, "terms only rise");
            self.term = term;
            self.vote = NodeId::NONE;
        }
        self.lead = NodeId::NONE;
        self.election_elapsed = 0;
        self.election_timeout = self.draw_election_timeout();
        self.late_order_ticks = 0;
        self.forget_snapshot_request();
        self.tracker.reset_votes();

        let last = self.log.last_index();
        let (id, window) = (self.id, self.tracker.inflights());
        for (member, progress) in self.tracker.progress.iter_mut() {
            let is_learner = progress.is_learner;
            *progress = Progress::new(last.next(), window.clone());
            progress.is_learner = is_learner;
            if member == id {
                progress.matched = last;
            }
        }
    }

    fn draw_election_timeout(&mut self) -> u32 {
        let (min, max) = self.config.election_range();
        let width = u32::try_from(max - u64::from(min)).unwrap_or(u32::MAX);
        min.saturating_add(self.rng.below(width))
    }

    /// It became known who leads.
    pub(crate) fn on_leader_known(&mut self) {
        self.has_stood = false;
        if let Some(HandedOver { to, .. }) = self.handed_over.take() {
            let outcome = match self.lead == to {
                true => TransferOutcome::Transferred,
                false => TransferOutcome::OtherLeader { leader: self.lead },
            };
            self.end_transfer(to, outcome);
        }
    }

    /// A tick of a node that does not lead.
    pub(crate) fn tick_orders(&mut self) {
        self.late_order_ticks = self.late_order_ticks.saturating_sub(1);
        if let Some(handed_over) = &mut self.handed_over {
            handed_over.ticks_left = handed_over.ticks_left.saturating_sub(1);
            if handed_over.ticks_left == 0 {
                let to = handed_over.to;
                self.handed_over = None;
                self.end_transfer(to, TransferOutcome::TimedOut);
            }
        }
    }

    pub(crate) fn end_transfer(&mut self, to: NodeId, outcome: TransferOutcome) {
        self.transfer_outcome = Some((to, outcome));
        self.note(Note::TransferEnded { to, outcome });
    }

    /// Who should lead next: the voter that has most of the log, of those that were heard from
    /// lately if there are any.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        let voters = &self.tracker.config.voters.incoming.0;
        let members = self.tracker.progress.iter();
        let others = members.filter(|(id, _)| *id != self.id && voters.contains(*id));
        // The first of equals.
        others.rev().max_by_key(|(_, of)| (of.recent_active, of.matched)).map(|(id, _)| id)
    }

    pub(crate) fn forget_snapshot_request(&mut self) {
        if let Some(index) = self.snapshot_wanted.take() {
            self.note(Note::SnapshotRequestEnded { index });
        }
    }

    // Sending.

    /// Queues a message of this node at its term.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        self.queue(Message { to, from: self.id, term: self.term, body });
    }

    /// Queues a message that concerns another term: a request for votes, or the answer to one.
    pub(crate) fn send_at(&mut self, term: Term, to: NodeId, body: Body) {
        self.queue(Message { to, from: self.id, term, body });
    }

    /// Sends a message of whoever it came from on to the leader. Says whether there is one.
    pub(crate) fn forward(&mut self, from: NodeId, body: Body) -> bool {
        if self.lead.is_none() {
            self.dropped(body.message_type(), from, MessageFault::NoLeader);
            return false;
        }
        let from = from.known().unwrap_or(self.id);
        let term = match body.message_type() {
            // They mean the same in every term.
            MessageType::MsgProp | MessageType::MsgReadIndex => Term(0),
            _ => self.term,
        };
        self.queue(Message { to: self.lead, from, term, body });
        true
    }

    /// Queues a leader's word for its own log up to `index`. With appends, it may be coalesced.
    pub(crate) fn acknowledge_own(&mut self, index: Index) {
        let (id, term) = (self.id, self.term);
        match self.held.last_mut() {
            Some(Message { to, from, term: said_in, body: Body::AppendReply { index: said } })
                if self.config.coalesce_appends && (*to, *from, *said_in) == (id, id, term) =>
            {
                *said = index;
            }
            _ => self.send(id, Body::AppendReply { index }),
        }
    }

    fn queue(&mut self, message: Message) {
        let vouches = matches!(
            message.message_type(),
            MessageType::MsgAppResp | MessageType::MsgVoteResp | MessageType::MsgPreVoteResp
        );
        let is_early = match message.message_type() {
            MessageType::MsgVoteResp => bug!("vote-before-disk"),
            MessageType::MsgAppResp => bug!("acknowledgement-before-disk"),
            _ => false,
        };
        let vouches = vouches && (message.to == self.id || !is_early);
        if message.to.is_none() || (message.to == self.id && !vouches) {
            // An odd sender made this node answer itself.
            let kind = message.body.message_type();
            self.dropped(kind, message.from, MessageFault::NoRecipient);
        } else if vouches {
            self.trace_sent(&message);
            self.held.push(message);
        } else {
            self.trace_sent(&message);
            self.messages.push(message);
        }
    }

    // Reads.

    /// Answers a read that may be served at `index`.
    pub(crate) fn answer_read(&mut self, request: ReadRequest, index: Index) {
        if self.is_own(&request) {
            let request_ctx = request.context();
            self.read_states.push(ReadState { index, request_ctx });
        } else {
            self.send(request.from, Body::ReadIndexReply { index, entries: request.entries });
        }
    }

    /// Says, if that is wanted, that a read of this node will not be answered.
    pub(crate) fn lose_read(&mut self, request: &ReadRequest) {
        if self.config.report_lost_reads && self.is_own(request) {
            self.lost_reads.push(request.context());
        }
    }

    fn is_own(&self, request: &ReadRequest) -> bool {
        request.from.is_none() || request.from == self.id
    }

    // Notes.

    pub(crate) fn note(&mut self, note: Note) {
        if self.notes.len() < self.config.notes_max {
            self.notes.push(note);
        } else {
            self.notes_missed += 1;
        }
    }

    pub(crate) fn dropped(&mut self, kind: MessageType, from: NodeId, why: MessageFault) {
        self.note(Note::Dropped { kind, from, why });
    }

    /// Takes out what was noted, oldest first.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.notes);
        let count = std::mem::take(&mut self.notes_missed);
        if count > 0 {
            notes.push(Note::Missed { count });
        }
        notes
    }

    // Questions.

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    /// Whether this node could lead: it votes, and has its log complete.
    pub(crate) fn is_promotable(&self) -> bool {
        let own = self.tracker.progress.get(self.id);
        own.is_some_and(|own| !own.is_learner) && !self.log.has_unstable_snapshot()
    }

    pub(crate) fn is_past_election_timeout(&self) -> bool {
        self.election_timeout <= self.election_elapsed
    }

    /// Whether this node heard from a leader so lately that no election is due.
    pub(crate) fn is_in_lease(&self) -> bool {
        self.config.check_quorum
            && !self.lead.is_none()
            && self.election_elapsed < self.config.election_tick
    }

    /// The last entry of the log.
    pub(crate) fn last_entry(&self) -> Result<EntryId, Fatal> {
        self.log.last_entry_id()
    }
}
