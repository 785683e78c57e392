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

use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term, bug};

use crate::append::heartbeat_commit;
use crate::log::RaftLog;
use crate::note::{MessageFault, Note, TransferOutcome};
use crate::reads::ReadRequest;
use crate::rng::Rng;
use crate::trace::Tracer;
use crate::{
    Body, Changer, Config, Error, Fatal, HardState, Membership, Message, MessageType, Progress,
    ProgressTracker, ReadState, Storage, TraceLogger, TracingEventName, is_local_target,
};

/// A transfer of leadership after the leader gave way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) to: NodeId,
    /// The tick at which nobody has been heard of for too long.
    pub(crate) until: u64,
}

/// What a node was told since it was last asked for work. A node that is idle hears, and says,
/// nothing but heartbeats and their answers, and need not look for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing that makes work.
    Nothing,
    /// Heartbeats, or a tick that makes some due: beats are owed, and nothing else is new.
    Beats,
    /// More than that, or it is not known.
    Anything,
}

/// So many messages rather go into memory that is there already than bring their own.
const COPIED_COUNT: usize = 8;

/// More than that are queued as other messages are: whoever is told so much is not idle.
const BEATS_OWED_MAX: u32 = 64;

/// What is rarely told with a Ready, and was not told yet; never empty.
#[derive(Debug, Default)]
struct Rarities {
    notes: Vec<Note>,
    notes_missed: u64,
    lost_reads: Vec<Bytes>,
}

impl Rarities {
    fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.notes_missed == 0 && self.lost_reads.is_empty()
    }
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
    /// What happened since the last Ready that could have made work.
    pub(crate) news: News,
    /// See [`Core::owe_beat`].
    pub(crate) beats_owed: u32,
    /// How many of the messages in `held` this node says to itself.
    pub(crate) held_for_self: u32,

    /// Ticks since the node was built. What is due is due at a certain one of them.
    pub(crate) now: u64,
    /// Before this tick nothing is due, unless the node is told something; 0 if that is not known.
    pub(crate) quiet_until: u64,
    /// The tick of the last sign of a leader, or, on a leader, of the last check of its quorum.
    pub(crate) election_since: u64,
    /// How many ticks a follower waits in this term.
    pub(crate) election_timeout: u32,
    /// Whether this node has campaigned since it last knew a leader.
    pub(crate) has_stood: bool,
    /// Before this tick, an order to campaign is obeyed once a membership change is applied.
    pub(crate) late_order_until: u64,
    /// Before this tick, a leader may count on this node to help no other into office; only with
    /// [`Config::lease_ticks`]. Unlike the leader it is known by, it outlasts the term.
    pub(crate) promised_until: u64,
    /// Whether storage surely holds something of this node, so that it keeps to its promises after a
    /// crash, too.
    pub(crate) is_remembered: bool,
    /// A follower waits for a snapshot at or after this index, where its log ended when it asked,
    /// and takes no entries until then.
    pub(crate) snapshot_wanted: Option<Index>,
    /// The membership in force is that of a snapshot at this index, and of what was applied since;
    /// 0 if no snapshot was received since the node was built.
    pub(crate) restored: Index,
    /// This node led, went because it had no vote any more, and has not heard of a leader since. See
    /// [`Core::is_good_candidate`].
    pub(crate) is_gone: bool,
    /// Who this node handed leadership to, while it is not known who leads.
    // These two are boxed, because they are rare.
    pub(crate) handed_over: Option<Box<HandedOver>>,
    /// What became of the last transfer of leadership.
    pub(crate) transfer_outcome: Option<Box<(NodeId, TransferOutcome)>>,
    rng: Rng,

    pub(crate) messages: Vec<Message>,
    pub(crate) held: Vec<Message>,
    pub(crate) read_states: Vec<ReadState>,
    /// Reads asked before the leader's first commit in its term. They outlive a leadership.
    pub(crate) postponed: Vec<ReadRequest>,

    // Boxed, because most of many groups on a node are quiet.
    rarities: Option<Box<Rarities>>,
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
            news: News::Anything,
            beats_owed: 0,
            held_for_self: 0,
            now: 0,
            quiet_until: 0,
            election_since: 0,
            election_timeout: config.election_tick,
            has_stood: false,
            late_order_until: 0,
            promised_until: 0,
            // Else no message goes out before what its Ready is to write.
            is_remembered: !config.async_storage_writes,
            snapshot_wanted: None,
            restored: Index(0),
            is_gone: false,
            handed_over: None,
            transfer_outcome: None,
            rng: Rng::new(config.seed, config.id),
            messages: Vec::new(),
            held: Vec::new(),
            read_states: Vec::new(),
            postponed: Vec::new(),
            rarities: None,
            tracer: Tracer::new(logger),
            config,
        };
        core.trace(TracingEventName::InitState);
        core.install(membership);
        let hard_state = initial.hard_state.unwrap_or_default();
        if !hard_state.is_empty() {
            core.log.load_commit(hard_state.commit)?;
            (core.term, core.vote) = (hard_state.term, hard_state.vote);
            // What it promised before it stopped is not known.
            core.promise();
            core.is_remembered = true;
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
        self.election_since = self.now;
        self.election_timeout = self.draw_election_timeout();
        self.late_order_until = 0;
        self.forget_snapshot_request();
        if !bug!("votes-of-an-earlier-campaign-count") {
            self.tracker.reset_votes();
        }

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
        if let Some(handed_over) = self.handed_over.take() {
            let to = handed_over.to;
            let outcome = match self.lead == to {
                true => TransferOutcome::Transferred,
                false => TransferOutcome::OtherLeader { leader: self.lead },
            };
            self.end_transfer(to, outcome);
        }
    }

    /// Promises a leader to help no other into office for an election timeout.
    pub(crate) fn promise(&mut self) {
        if self.config.lease_ticks > 0 {
            self.promised_until = self.now + u64::from(self.config.election_tick);
        }
    }

    /// Whether a leader may count on that.
    pub(crate) fn has_promised(&self) -> bool {
        self.now < self.promised_until
    }

    /// Gives up on a transfer of which nobody has heard for too long.
    pub(crate) fn end_late_transfer(&mut self) {
        if let Some(handed_over) = self.handed_over.take_if(|of| of.until <= self.now) {
            self.end_transfer(handed_over.to, TransferOutcome::TimedOut);
        }
    }

    /// The next tick at which a node that does not lead has something to do.
    pub(crate) fn due_at(&self) -> u64 {
        let election = match self.is_promotable() {
            true => self.election_since + u64::from(self.election_timeout),
            false => u64::MAX,
        };
        let transfer = self.handed_over.as_ref().map_or(u64::MAX, |of| of.until);
        election.min(transfer)
    }

    pub(crate) fn end_transfer(&mut self, to: NodeId, outcome: TransferOutcome) {
        self.transfer_outcome = Some(Box::new((to, outcome)));
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

    /// Sends a message of whoever it came from on to the leader. Says whether it did.
    pub(crate) fn forward(&mut self, from: NodeId, body: Body) -> bool {
        if self.lead.is_none() {
            self.dropped(body.message_type(), from, MessageFault::NoLeader);
            return false;
        }
        if self.is_full() {
            self.dropped(body.message_type(), from, MessageFault::NoRoom);
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
        if !self.tracker.progress.contains(id) {
            // It has no word any more.
            return;
        }
        match self.held.last_mut() {
            Some(Message { to, from, term: said_in, body: Body::AppendReply { index: said } })
                if self.config.coalesce_appends && (*to, *from, *said_in) == (id, id, term) =>
            {
                *said = index;
            }
            _ => self.send(id, Body::AppendReply { index }),
        }
    }

    /// Whether a round of heartbeats, or an answer to one, may be owed: nobody listens, and it finds
    /// room.
    pub(crate) fn may_owe_beat(&self) -> bool {
        let max = self.config.messages_max;
        let owed = (self.beats_owed as usize + 1) * self.tracker.progress.len();
        !self.tracer.is_on()
            && self.beats_owed < BEATS_OWED_MAX
            && (max == 0 || self.count_for_others() + owed <= max)
    }

    /// A leader owes its peers a round of heartbeats, any other node its leader an answer to one;
    /// both without a context. They are made when there is somebody to take them.
    pub(crate) fn owe_beat(&mut self) {
        self.beats_owed += 1;
        if self.news == News::Nothing {
            self.news = News::Beats;
        }
    }

    /// Puts what is owed behind `messages`.
    pub(crate) fn pay_beats(&mut self, messages: &mut Vec<Message>) {
        let (from, term, committed) = (self.id, self.term, self.log.committed());
        for _ in 0..std::mem::take(&mut self.beats_owed) {
            if self.lead != from {
                let body = Body::HeartbeatReply { context: Bytes::new() };
                messages.push(Message { to: self.lead, from, term, body });
                continue;
            }
            for (to, progress) in self.tracker.progress.iter().filter(|(to, _)| *to != from) {
                let commit = heartbeat_commit(committed, progress);
                let body = Body::Heartbeat { commit, context: Bytes::new() };
                messages.push(Message { to, from, term, body });
            }
        }
    }

    /// Something is about to happen that comes after what is owed.
    pub(crate) fn queue_beats(&mut self) {
        if self.beats_owed > 0 {
            let mut messages = std::mem::take(&mut self.messages);
            self.pay_beats(&mut messages);
            self.messages = messages;
        }
    }

    fn queue(&mut self, message: Message) {
        let kind = message.message_type();
        let vouches = matches!(
            kind,
            MessageType::MsgAppResp | MessageType::MsgVoteResp | MessageType::MsgPreVoteResp
        );
        let is_early = match kind {
            MessageType::MsgVoteResp => bug!("vote-before-disk"),
            MessageType::MsgAppResp => bug!("acknowledgement-before-disk"),
            _ => false,
        };
        let is_own = message.to == self.id;
        let vouches = vouches && (is_own || !is_early);
        if message.to.is_none() || is_local_target(message.to) || (is_own && !vouches) {
            // An odd sender made this node answer itself.
            self.dropped(kind, message.from, MessageFault::NoRecipient);
        } else if !is_own && self.is_full() {
            self.dropped(kind, message.from, MessageFault::NoRoom);
            self.on_lost(&message);
        } else {
            self.trace_sent(&message);
            if vouches {
                self.held_for_self += u32::from(is_own);
                self.held.push(message);
            } else {
                self.messages.push(message);
            }
        }
    }

    /// Whether no more messages to others may wait to be sent.
    pub(crate) fn is_full(&self) -> bool {
        let max = self.config.messages_max;
        max != 0 && max <= self.count_for_others()
    }

    fn count_for_others(&self) -> usize {
        self.messages.len() + self.held.len() - self.held_for_self as usize
    }

    /// A message will not be sent. A network may lose any as well; of what carries the log it is
    /// better to know.
    fn on_lost(&mut self, message: &Message) {
        let Some(progress) = self.tracker.progress.get_mut(message.to) else { return };
        match message.body {
            Body::Append { .. } => progress.become_probe(),
            Body::Snapshot { .. } => {
                // Back to before the snapshot.
                progress.pending_snapshot = Index(0);
                progress.become_probe();
            }
            _ => return,
        }
        // Until it answers a heartbeat.
        progress.msg_app_flow_paused = true;
    }

    /// Takes out the messages that wait for a write.
    pub(crate) fn take_held(&mut self) -> Vec<Message> {
        self.held_for_self = 0;
        std::mem::take(&mut self.held)
    }

    /// Moves the messages that may go at once behind those in `taken`, and their memory with them.
    pub(crate) fn take_messages(&mut self, taken: &mut Vec<Message>) {
        if self.messages.is_empty() {
            return;
        }
        let mut messages = std::mem::take(&mut self.messages);
        let is_short = messages.len() <= COPIED_COUNT.min(taken.capacity());
        if taken.is_empty() && !is_short {
            *taken = messages;
        } else {
            taken.append(&mut messages);
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
            self.rarities.get_or_insert_default().lost_reads.push(request.context());
        }
    }

    pub(crate) fn lost_reads(&self) -> &[Bytes] {
        self.rarities.as_deref().map_or(&[], |rarities| &rarities.lost_reads)
    }

    /// Takes out the contexts of this node's reads that will not be answered, oldest first.
    pub(crate) fn take_lost_reads(&mut self) -> Vec<Bytes> {
        let Some(rarities) = &mut self.rarities else { return Vec::new() };
        let lost_reads = std::mem::take(&mut rarities.lost_reads);
        self.rarities.take_if(|rarities| rarities.is_empty());
        lost_reads
    }

    fn is_own(&self, request: &ReadRequest) -> bool {
        request.from.is_none() || request.from == self.id
    }

    // Notes.

    pub(crate) fn note(&mut self, note: Note) {
        let rarities = self.rarities.get_or_insert_default();
        if rarities.notes.len() < self.config.notes_max {
            rarities.notes.push(note);
        } else {
            rarities.notes_missed += 1;
        }
    }

    pub(crate) fn dropped(&mut self, kind: MessageType, from: NodeId, why: MessageFault) {
        self.note(Note::Dropped { kind, from, why });
    }

    /// Takes out what was noted, oldest first.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        let Some(rarities) = &mut self.rarities else { return Vec::new() };
        let mut notes = std::mem::take(&mut rarities.notes);
        let count = std::mem::take(&mut rarities.notes_missed);
        self.rarities.take_if(|rarities| rarities.is_empty());
        if count > 0 {
            notes.push(Note::Missed { count });
        }
        notes
    }

    pub(crate) fn has_empty_rarities(&self) -> bool {
        self.rarities.as_ref().is_some_and(|rarities| rarities.is_empty())
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

    /// Ticks since [`Core::election_since`].
    pub(crate) fn election_elapsed(&self) -> u64 {
        self.now - self.election_since
    }

    /// Whether this node heard from a leader so lately that no election is due.
    pub(crate) fn is_in_lease(&self) -> bool {
        self.config.check_quorum
            && !self.lead.is_none()
            && self.election_elapsed() < u64::from(self.config.election_tick)
    }

    /// Whether this node may help a candidate into office whose log ends at `last`.
    ///
    /// A node that is gone asks only for what it committed. What it appended after that in its own
    /// term it acknowledged to nobody but itself, and it counts no more: nothing is lost if that
    /// gives way, while the group may be stuck if it does not. In `is_gone` stands that its commit
    /// index is of that term, so that all earlier leaders had from it is committed.
    pub(crate) fn is_good_candidate(&self, last: EntryId) -> Result<bool, Fatal> {
        let index = self.log.committed();
        match self.log.term(index) {
            Ok(term) if self.is_gone => Ok(EntryId { term, index } <= last),
            Ok(_) | Err(_) => self.log.is_up_to_date(last),
        }
    }

    /// The last entry of the log.
    pub(crate) fn last_entry(&self) -> Result<EntryId, Fatal> {
        self.log.last_entry_id()
    }
}
