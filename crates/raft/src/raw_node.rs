//! The face of the engine: a node without threads, driven by its owner.
//!
//! Inputs go in ([`RawNode::tick`], [`RawNode::step`], [`RawNode::propose`], ...), work comes out
//! ([`RawNode::ready`]). Two ways of driving it exist, and both let a message that vouches for a
//! write go only once that write is durable:
//!
//! - *synchronous*: the driver writes what a [`Ready`] holds, then sends its messages, then calls
//!   [`RawNode::advance`]. What the node owes itself (its own vote, its own copy of an entry) counts
//!   from then on.
//! - *asynchronous* ([`Config::async_storage_writes`]): a Ready's messages to
//!   [`LOCAL_APPEND_THREAD`](crate::LOCAL_APPEND_THREAD) and
//!   [`LOCAL_APPLY_THREAD`](crate::LOCAL_APPLY_THREAD) carry the work and the answers to deliver
//!   when it is done; the next Ready need not wait for it.
//!
//! Once a [`Fatal`] happened, every call fails with it and no work comes out any more.
//!
//! Source: etcd's `raft.RawNode`.

use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, Term};

use crate::change_wire::encode_conf_change;
use crate::core::News;
use crate::leader::Leader;
use crate::raft::Raft;
use crate::render::{Applied, OnAdvance, Stored};
use crate::{
    AnyConfChange, AppliedChange, BasicStatus, Body, ConfChange, ConfChangeType, ConfState, Config,
    Entry, Error, Fatal, HardState, Message, Note, Peer, Progress, Ready, ReplicaKind, Role,
    SnapshotStatus, SoftState, Status, Storage, TraceLogger, TransferOutcome, is_local_target,
};

/// One node of one group. See the module's comment.
#[derive(Debug)]
pub struct RawNode<S> {
    pub(crate) raft: Raft<S>,
    /// As last handed out.
    pub(crate) soft_state: SoftState,
    /// As last handed out.
    pub(crate) hard_state: HardState,
    // Boxed, because most of many groups on a node are quiet.
    pub(crate) on_advance: Option<Box<OnAdvance>>,
    // Boxed, because hardly any of many groups on a node ever has one.
    fatal: Option<Box<Fatal>>,
}

impl<S: Storage> RawNode<S> {
    /// A node that goes on from what `storage` holds.
    ///
    /// # Errors
    ///
    /// When the options do not fit together, storage fails, or what it holds is damaged.
    pub fn new(config: Config, storage: S) -> Result<Self, Error> {
        Self::build(config, storage, None)
    }

    /// As [`RawNode::new`]; tells `logger` what the node does, from its first moment on. etcd's
    /// `Config.TraceLogger`.
    ///
    /// # Errors
    ///
    /// As [`RawNode::new`].
    pub fn new_traced(
        config: Config,
        storage: S,
        logger: Arc<dyn TraceLogger>,
    ) -> Result<Self, Error> {
        Self::build(config, storage, Some(logger))
    }

    fn build(
        config: Config,
        storage: S,
        logger: Option<Arc<dyn TraceLogger>>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let raft = Raft::new(config, storage, logger)?;
        Ok(RawNode {
            soft_state: raft.soft_state(),
            hard_state: raft.core.hard_state(),
            raft,
            on_advance: None,
            fatal: None,
        })
    }

    /// Gives an empty log its first membership: a committed entry for each of `peers`, in force at
    /// once, so that the node can campaign. All first members must be given the same peers.
    ///
    /// Preferable is a storage that starts with a snapshot of the first membership.
    ///
    /// # Errors
    ///
    /// Without peers, with one whose id names no node, on a log that is not empty, and when storage
    /// fails. Nothing has changed then.
    pub fn bootstrap(&mut self, peers: &[Peer]) -> Result<(), Error> {
        self.run(|node| {
            if peers.is_empty() {
                return Err(Error::BootstrapWithoutPeers);
            }
            let is_nobody = |peer: &&Peer| peer.id.is_none() || is_local_target(peer.id);
            if let Some(Peer { id, .. }) = peers.iter().find(is_nobody) {
                return Err(Error::BootstrapPeer { id: *id });
            }
            let raft = &mut node.raft;
            let stored = raft.core.log.storage().last_index()?;
            // A node that has seen a later term is no new one, even if its log is empty.
            let is_new = raft.core.term <= Term(1) && raft.core.log.last_index() == Index(0);
            if stored != Index(0) || !is_new {
                return Err(Error::BootstrapNonempty);
            }
            // So that the first Ready tells the application to store the term and the commit index.
            node.hard_state = HardState::default();
            raft.follow(Term(1), NodeId::NONE);
            let add = |peer: &Peer| {
                AnyConfChange::V1(ConfChange {
                    id: 0,
                    change_type: ConfChangeType::AddNode,
                    node_id: peer.id,
                    context: peer.context.clone(),
                })
            };
            let entry = |(peer, index)| {
                let (kind, data) = encode_conf_change(&add(peer));
                Entry { term: Term(1), index: Index(index), kind: Some(kind), data }
            };
            raft.core.log.append(peers.iter().zip(1..).map(entry).collect())?;
            raft.core.log.commit_to(Index(peers.len() as u64))?;
            for peer in peers {
                raft.apply_conf_change(&add(peer))?;
            }
            Ok(())
        })
    }

    // Inputs.

    /// One tick of the clock. Allocates nothing while nothing is due.
    ///
    /// # Errors
    ///
    /// Only a [`Fatal`].
    pub fn tick(&mut self) -> Result<(), Error> {
        // Most ticks of most nodes are counted, and that is all.
        if self.raft.count_tick() { self.heed_tick() } else { Ok(()) }
    }

    // Apart, so that a tick that is only counted does not pay for what it does not do.
    #[inline(never)]
    fn heed_tick(&mut self) -> Result<(), Error> {
        if self.fatal.is_none() {
            if !self.raft.is_due() {
                self.settle();
                return Ok(());
            }
            // Most of what is due is a leader's pulse.
            if self.raft.beat_if_idle() {
                return Ok(());
            }
        }
        self.run(|node| node.raft.on_time())
    }

    /// Notices that all work is done, so that nobody need look for some until there is more.
    fn settle(&mut self) {
        if self.raft.core.news == News::Anything && !self.has_work() {
            self.raft.core.news = News::Nothing;
        }
        self.check_if_debug();
    }

    /// Lets time pass for a group that is known to be quiet: the node grows impatient, and does
    /// nothing about it. etcd's library has this method only for old users.
    pub fn tick_quiesced(&mut self) {
        // A lease runs out all the same, and so does what a voter promised.
        self.raft.core.now += 1;
        self.raft.core.quiet_until = 0;
        if let Some(leader) = self.raft.leader_mut() {
            leader.skip_tick();
        }
    }

    /// Campaigns, unless something speaks against it.
    ///
    /// # Errors
    ///
    /// Only a [`Fatal`].
    pub fn campaign(&mut self) -> Result<(), Error> {
        self.run(|node| node.raft.step(Message::new(NodeId::NONE, Body::Hup)))
    }

    /// Proposes that `data` be appended to the log. Taking it is no promise that it will be
    /// committed; on a follower it only means that it was sent on to the leader.
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] when it was not taken.
    pub fn propose(&mut self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.propose_at(data).map(drop)
    }

    /// As [`RawNode::propose`]; says where the entry stands if this node leads. Exactly when an
    /// entry of this term is committed at this index, it is this one.
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] when it was not taken.
    pub fn propose_at(&mut self, data: impl Into<Bytes>) -> Result<Option<EntryId>, Error> {
        let entry = Entry { data: Some(data.into()), ..Entry::default() };
        self.propose_entries(vec![entry])
    }

    /// Proposes several entries (type and data only) at once, all of which are taken or none. They
    /// travel in one append. Says where the first stands if this node leads; the others follow it.
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] when they were not taken, and when there are none.
    pub fn propose_entries(&mut self, entries: Vec<Entry>) -> Result<Option<EntryId>, Error> {
        let id = self.id();
        self.run(|node| node.raft.propose(id, entries))
    }

    /// Proposes a membership change. One that cannot work now becomes an empty entry, and the
    /// proposal succeeds all the same; see [`RawNode::check_conf_change`],
    /// [`Config::refuse_changes`] and [`Note::ChangeRefused`].
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] when it was not taken; [`Error::ChangeRefused`] with
    /// [`Config::refuse_changes`] only.
    pub fn propose_conf_change(&mut self, change: impl Into<AnyConfChange>) -> Result<(), Error> {
        self.propose_conf_change_at(change).map(drop)
    }

    /// As [`RawNode::propose_conf_change`]; says where the entry stands if this node leads.
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] when it was not taken.
    pub fn propose_conf_change_at(
        &mut self,
        change: impl Into<AnyConfChange>,
    ) -> Result<Option<EntryId>, Error> {
        let (kind, data) = encode_conf_change(&change.into());
        self.propose_entries(vec![Entry { kind: Some(kind), data, ..Entry::default() }])
    }

    /// Whether this leader would append `change` as it is. Who asks first gets a verdict that
    /// [`RawNode::propose_conf_change`] does not give.
    ///
    /// # Errors
    ///
    /// [`Error::ChangeRefused`] with the reason; [`Error::ProposalDropped`] when this node does not
    /// lead.
    pub fn check_conf_change(&self, change: &AnyConfChange) -> Result<(), Error> {
        let Some(leader) = self.raft.leader() else {
            return Err(Error::ProposalDropped(crate::DropReason::NoLeader));
        };
        match leader.change_refusal(&self.raft.core, change) {
            Some(why) => Err(Error::ChangeRefused(why)),
            None => Ok(()),
        }
    }

    /// Puts a committed membership change in force. The application calls it once for each
    /// membership entry it applies, unless it rejects the change. The membership it returns belongs
    /// into the next snapshot.
    ///
    /// With asynchronous storage writes a snapshot may be installed while the apply thread still has
    /// entries from before it. Who does not rule that out wants [`RawNode::apply_conf_change_at`]:
    /// without the index, a change that the snapshot covers is carried out once more.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] when the change cannot be carried out; the membership stays as it was, on
    /// every node alike.
    pub fn apply_conf_change(&mut self, change: &AnyConfChange) -> Result<ConfState, Error> {
        self.run(|node| node.raft.apply_conf_change(change))
    }

    /// As [`RawNode::apply_conf_change`], for the change in the entry at `index`, which is ignored
    /// if a received snapshot covers it already.
    ///
    /// # Errors
    ///
    /// As [`RawNode::apply_conf_change`].
    pub fn apply_conf_change_at(
        &mut self,
        index: Index,
        change: &AnyConfChange,
    ) -> Result<AppliedChange, Error> {
        self.run(|node| node.raft.apply_conf_change_at(index, change))
    }

    /// Gives the node a message, of a peer or of a storage thread.
    ///
    /// # Errors
    ///
    /// [`Error::StepLocalMsg`] for a message that no peer may send, [`Error::StepPeerNotFound`] for
    /// an answer of a node that is no member, [`Error::ProposalDropped`] for a proposal that was
    /// not taken. All of them may be ignored; a [`Fatal`] may not.
    pub fn step(&mut self, message: Message) -> Result<(), Error> {
        if self.fatal.is_none() && self.raft.step_beat(&message) {
            self.check_if_debug();
            return Ok(());
        }
        self.step_any(message)
    }

    // Apart, so that a heartbeat does not pay for what it does not need.
    #[inline(never)]
    fn step_any(&mut self, message: Message) -> Result<(), Error> {
        self.run(|node| {
            let kind = message.message_type();
            if !is_local_target(message.from) {
                if kind.is_local() {
                    return Err(Error::StepLocalMsg);
                }
                let progress = &node.raft.core.tracker.progress;
                if kind.is_response() && !progress.contains(message.from) {
                    return Err(Error::StepPeerNotFound);
                }
            }
            node.raft.step(message)
        })
    }

    /// Tells a leader that `peer` could not be reached by the last message.
    pub fn report_unreachable(&mut self, peer: NodeId) {
        self.tell(peer, Body::Unreachable);
    }

    /// Tells a leader what became of the snapshot it sent to `peer`. It must always be told: until
    /// then the peer gets no entries.
    pub fn report_snapshot(&mut self, peer: NodeId, status: SnapshotStatus) {
        let reject = status == SnapshotStatus::Failure;
        self.tell(peer, Body::SnapshotStatus { reject });
    }

    /// Asks the leader to hand leadership to `transferee`, or, given the leader itself, to keep it.
    /// What becomes of it is told where it was asked, if that is the leader:
    /// [`RawNode::transfer_outcome`].
    pub fn transfer_leader(&mut self, transferee: NodeId) {
        self.tell(transferee, Body::TransferLeader);
    }

    /// What became of the last transfer of leadership that this node was told to make as a leader,
    /// and to whom; nothing before the first, and while one is under way. Exactly one outcome
    /// follows every transfer, unless this node is lost before; each also comes as a
    /// [`Note::TransferEnded`] or [`Note::TransferRefused`]. What is refused while another is under
    /// way comes as a note alone.
    pub fn transfer_outcome(&self) -> Option<(NodeId, TransferOutcome)> {
        self.raft.core.transfer_outcome.as_deref().copied()
    }

    /// Whether this node leads and takes no proposals, because it gives its office to another.
    pub fn is_handing_over(&self) -> bool {
        self.raft.leader().is_some_and(Leader::is_handing_over)
    }

    /// Of the other voters, the one that has most of the log, as far as this leader knows; if any
    /// was heard from lately, of those. The first of equals.
    pub fn successor(&self) -> Option<NodeId> {
        self.raft.leader()?;
        self.raft.core.successor()
    }

    /// Asks the leader for a snapshot that covers this follower's whole log, because the state it
    /// has applied is of no use, damaged for example.
    ///
    /// It comes as [`Ready::snapshot`], and its index may be no higher than what is applied here:
    /// whoever asks must be ready to install that. Until then the node takes no entries; it repeats
    /// the request with every heartbeat, and forgets it ([`Note::SnapshotRequestEnded`]) when the
    /// term changes, when it campaigns, and with [`RawNode::cancel_snapshot_request`]. The last is
    /// the way out of waiting for a leader that knows no such requests: one without
    /// [`Config::snapshot_on_request`], or etcd's.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotRequestRefused`] when it makes no sense now.
    ///
    /// Source: `RawNode::request_snapshot` of the crate `raft`.
    pub fn request_snapshot(&mut self) -> Result<(), Error> {
        self.run(|node| node.raft.request_snapshot())
    }

    /// Sends `peer` entries that it has not been sent: as many as are encoded in `bytes_max` bytes
    /// and in [`Config::max_size_per_msg`], at least one. Says how many; 0 if there is nothing to
    /// send, or if they cannot go now: this node does not lead, the window is full, or the peer is
    /// probed or waits for a snapshot, which the leader sees to by itself.
    ///
    /// Meant for [`Config::pull_appends`]; without it, entries have mostly been sent before. Whom it
    /// is worth asking for, [`RawNode::for_each_progress`] shows: peers whose `next` is not beyond
    /// [`RawNode::last_index`]. One that leadership is transferred to needs them soon.
    ///
    /// # Errors
    ///
    /// Only a [`Fatal`].
    pub fn pull_append(&mut self, peer: NodeId, bytes_max: u64) -> Result<u64, Error> {
        self.run(|node| node.raft.pull_append(peer, bytes_max))
    }

    /// Takes that request back. A snapshot that is under way may come all the same, and is then
    /// installed only if it is news.
    pub fn cancel_snapshot_request(&mut self) {
        self.raft.core.forget_snapshot_request();
    }

    /// The index at or after which this follower wants a snapshot, while it waits for one.
    pub fn requested_snapshot(&self) -> Option<Index> {
        self.raft.core.snapshot_wanted
    }

    /// Asks at which index a read that arrives now may be served. The answer comes in
    /// [`Ready::read_states`] with the same `context`; serve the read once that index is applied.
    ///
    /// A request may be lost on its way. Its answer costs the leader a round of heartbeats, and no
    /// disk write.
    ///
    /// Source: thesis 6.4; etcd's `MsgReadIndex`.
    pub fn read_index(&mut self, context: impl Into<Bytes>) {
        let entry = Entry { data: Some(context.into()), ..Entry::default() };
        self.tell(NodeId::NONE, Body::ReadIndex { entries: vec![entry] });
    }

    /// Makes a follower forget its leader, so that it votes for another at once.
    ///
    /// # Errors
    ///
    /// Only a [`Fatal`].
    pub fn forget_leader(&mut self) -> Result<(), Error> {
        self.run(|node| node.raft.step(Message::new(NodeId::NONE, Body::ForgetLeader)))
    }

    // Outputs.

    /// Takes out the work there is. Nothing when a [`Fatal`] happened; see [`RawNode::fatal`].
    pub fn ready(&mut self) -> Ready {
        let mut ready = Ready::default();
        self.ready_into(&mut ready);
        ready
    }

    /// As [`RawNode::ready`], in the memory of an earlier Ready, of whatever node, whose content is
    /// dropped. A driver of many groups that has one for all of them asks the allocator for nothing
    /// while they are idle: heartbeats and their answers are made in its memory. The Ready is to be
    /// cleared ([`Ready::clear`]) as soon as its work is done: entries that it holds on to cannot grow
    /// in their place.
    pub fn ready_into(&mut self, ready: &mut Ready) {
        ready.clear();
        let core = &mut self.raft.core;
        if core.news == News::Beats && self.on_advance.is_none() && self.fatal.is_none() {
            core.pay_beats(&mut ready.messages);
            ready.notes = core.take_notes();
            core.news = News::Nothing;
            self.check_if_debug();
            return;
        }
        self.take_any_work(ready);
    }

    #[inline(never)]
    fn take_any_work(&mut self, ready: &mut Ready) {
        if self.run(|node| node.take_work(ready)).is_err() {
            ready.clear();
        }
    }

    /// Computes the work there is and leaves it there. Notes are left out. For those who accept
    /// work later than they look at it; [`RawNode::ready`] is cheaper.
    pub fn ready_without_accept(&mut self) -> Ready {
        if self.run(|node| node.raft.flush_appends()).is_err() {
            return Ready::default();
        }
        // A failure will show again where it can be kept.
        let mut ready = Ready::default();
        if self.gather(&mut ready).is_err() {
            return Ready::default();
        }
        let core = &self.raft.core;
        ready.messages.clone_from(&core.messages);
        ready.read_states.clone_from(&core.read_states);
        ready.lost_reads.extend_from_slice(core.lost_reads());
        let mut held = core.held.clone();
        if !core.config.async_storage_writes {
            held.retain(|message| message.to != core.id);
            ready.messages.append(&mut held);
        } else {
            ready.messages.extend(self.storage_append(&ready, held));
            ready.messages.extend(self.storage_apply(&ready));
        }
        ready
    }

    /// Takes out the work that [`RawNode::ready_without_accept`] computed. Nothing else may have
    /// happened to the node in between.
    ///
    /// # Errors
    ///
    /// Only a [`Fatal`]: among others when something happened in between.
    pub fn accept_ready(&mut self, ready: &Ready) -> Result<(), Error> {
        self.run(|node| {
            node.check_advanced()?;
            let mut now = node.ready_without_accept();
            now.notes.clone_from(&ready.notes);
            if now != *ready {
                return Err(Fatal::StaleReady.into());
            }
            let core = &mut node.raft.core;
            core.messages.clear();
            core.read_states.clear();
            core.take_lost_reads();
            let held = core.take_held();
            if !core.config.async_storage_writes {
                let id = core.id;
                let own: Vec<_> = held.into_iter().filter(|held| held.to == id).collect();
                if !own.is_empty() {
                    node.on_advance.get_or_insert_default().own = own;
                }
            }
            node.accept_marks(ready)
        })
    }

    /// Whether there is work. Agrees with what [`RawNode::ready`] would give, but for notes, which
    /// are no work (and see [`Config::coalesce_appends`]).
    pub fn has_ready(&self) -> bool {
        match self.raft.core.news {
            News::Nothing => false,
            News::Beats => self.fatal.is_none(),
            News::Anything => self.fatal.is_none() && self.has_work(),
        }
    }

    // Apart, as in `tick`.
    #[inline(never)]
    fn has_work(&self) -> bool {
        let core = &self.raft.core;
        core.beats_owed > 0 || self.has_work_but_beats()
    }

    fn has_work_but_beats(&self) -> bool {
        let core = &self.raft.core;
        let hard_state = core.hard_state();
        !core.messages.is_empty()
            || !core.held.is_empty()
            || core.log.has_next_unstable_ents()
            || core.log.has_next_committed_ents(self.may_apply_unstable())
            || (hard_state != self.hard_state && !hard_state.is_empty())
            || self.raft.soft_state() != self.soft_state
            || core.log.next_unstable_snapshot().is_some()
            || !core.read_states.is_empty()
            || !core.lost_reads().is_empty()
            || self.raft.leader().is_some_and(Leader::has_appends_due)
    }

    /// Reports the work of the last Ready done: written, and applied or on its way to be. Only with
    /// synchronous storage writes.
    ///
    /// # Errors
    ///
    /// Only a [`Fatal`].
    pub fn advance(&mut self) -> Result<(), Error> {
        // Most Readies of a quiet group ask for no write.
        let is_nothing = self.on_advance.is_none() && self.fatal.is_none();
        if is_nothing && !self.raft.core.config.async_storage_writes {
            Ok(())
        } else {
            self.report_done()
        }
    }

    #[inline(never)]
    fn report_done(&mut self) -> Result<(), Error> {
        self.run(|node| {
            if node.raft.core.config.async_storage_writes {
                return Err(Fatal::AdvanceWithAsyncWrites.into());
            }
            let Some(on_advance) = node.on_advance.take() else { return Ok(()) };
            let OnAdvance { own, stored, applied } = *on_advance;
            for message in own {
                // Refusals do not matter: who is told is who would have to act on them.
                if let Err(Error::Fatal(fatal)) = node.raft.step(message) {
                    return Err(fatal.into());
                }
            }
            if let Some(Stored { term, stable, snapshot }) = stored {
                node.raft.on_stored(term, stable, snapshot)?;
            }
            if let Some(Applied { index, encoded_bytes, payload_bytes }) = applied {
                node.raft.on_applied(index, encoded_bytes, payload_bytes)?;
            }
            Ok(())
        })
    }

    /// Takes out what was noted since the last Ready.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.raft.core.take_notes()
    }

    // Questions.

    /// What made the node unusable, if anything did.
    pub fn fatal(&self) -> Option<&Fatal> {
        self.fatal.as_deref()
    }

    /// The node's state without its peers; allocates nothing.
    pub fn basic_status(&self) -> BasicStatus {
        let core = &self.raft.core;
        BasicStatus {
            id: core.id,
            hard_state: core.hard_state(),
            soft_state: self.raft.soft_state(),
            applied: core.log.applied(),
            lead_transferee: self.raft.leader().map_or(NodeId::NONE, Leader::transferee),
        }
    }

    /// The node's state, with its membership and, on a leader, its peers.
    pub fn status(&self) -> Status {
        let tracker = &self.raft.core.tracker;
        let progress = match self.raft.leader() {
            Some(_) => tracker.progress.clone(),
            None => crate::ProgressMap::new(),
        };
        Status { basic: self.basic_status(), config: tracker.config.clone(), progress }
    }

    /// Shows `visit` every tracked node, ascending. Allocates nothing. etcd's `WithProgress`.
    pub fn for_each_progress(&self, mut visit: impl FnMut(NodeId, ReplicaKind, &Progress)) {
        for (id, progress) in self.raft.core.tracker.progress.iter() {
            let kind = match progress.is_learner {
                true => ReplicaKind::Learner,
                false => ReplicaKind::Peer,
            };
            visit(id, kind, progress);
        }
    }

    /// The node.
    pub fn id(&self) -> NodeId {
        self.raft.core.id
    }

    /// Its options.
    pub fn config(&self) -> &Config {
        &self.raft.core.config
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.raft.core.term
    }

    /// The leader of this term, as far as known.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.core.lead.known()
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.raft.role.name()
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.raft.leader().is_some()
    }

    /// Whether it is a learner in its own membership.
    pub fn is_learner(&self) -> bool {
        self.raft.core.is_learner
    }

    /// Whether it could be elected: it is a voter in its own membership, and no snapshot waits to
    /// be installed.
    pub fn is_promotable(&self) -> bool {
        self.raft.core.is_promotable()
    }

    /// Last index of the log, stored or not.
    pub fn last_index(&self) -> Index {
        self.raft.core.log.last_index()
    }

    /// Highest index known to be committed.
    pub fn committed(&self) -> Index {
        self.raft.core.log.committed()
    }

    /// Highest index whose application was acknowledged.
    pub fn applied(&self) -> Index {
        self.raft.core.log.applied()
    }

    /// Term of the entry at `index`, if that is known.
    pub fn entry_term(&self, index: Index) -> Option<Term> {
        self.raft.core.log.term(index).ok()
    }

    /// What the log is stored in.
    pub fn storage(&self) -> &S {
        self.raft.core.log.storage()
    }

    /// What the log is stored in, for a driver that keeps its storage inside the node. It may write
    /// what a Ready asked for, and compact what is applied; nothing else.
    pub fn storage_mut(&mut self) -> &mut S {
        self.raft.core.log.storage_mut()
    }

    /// The membership in force.
    pub fn conf_state(&self) -> ConfState {
        self.raft.core.tracker.conf_state()
    }

    /// The index up to which a membership change may wait for application; 0 unless the node leads.
    pub fn pending_conf_index(&self) -> Index {
        self.raft.leader().map_or(Index(0), Leader::pending_change)
    }

    /// Payload bytes of a leader's entries that are not applied yet; 0 unless the node leads.
    pub fn uncommitted_size(&self) -> u64 {
        self.raft.leader().map_or(0, Leader::uncommitted_bytes)
    }

    /// How many reads wait on this node: for a quorum, or for the leader's first commit.
    pub fn pending_reads(&self) -> usize {
        let waiting = self.raft.leader().map_or(0, Leader::reads_waiting);
        waiting + self.raft.core.postponed.len()
    }

    /// Ticks since the last sign of a leader or, on a leader, since the last check of its quorum.
    pub fn election_elapsed(&self) -> u32 {
        u32::try_from(self.raft.core.election_elapsed()).unwrap_or(u32::MAX)
    }

    /// How many ticks without a leader make this node campaign.
    pub fn randomized_election_timeout(&self) -> u32 {
        self.raft.core.election_timeout
    }

    /// Fixes that number until the node's role changes next. For tests and scripts.
    pub fn set_randomized_election_timeout(&mut self, ticks: u32) {
        self.raft.core.election_timeout = ticks.max(1);
        self.raft.core.quiet_until = 0;
    }

    /// Asserts what holds between any two calls. Costs about as much as a heartbeat round.
    pub fn check(&self) {
        self.raft.check();
        let core = &self.raft.core;
        let (is_owing, has_more) = (core.beats_owed > 0, self.has_work_but_beats());
        match core.news {
            News::Nothing => assert!(!is_owing && !has_more, "who is quiet has no work"),
            News::Beats => {
                assert!(is_owing && !has_more, "who has a pulse alone has no other work");
            }
            News::Anything => {}
        }
    }

    // Inside.

    /// Does `work` unless the node is unusable, and makes it so if the work says so.
    fn run<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(fatal) = &self.fatal {
            return Err(Fatal::clone(fatal).into());
        }
        self.raft.core.queue_beats();
        self.raft.core.news = News::Anything;
        self.raft.core.quiet_until = 0;
        let result = work(self);
        match &result {
            Err(Error::Fatal(fatal)) => self.fatal = Some(Box::new(fatal.clone())),
            Err(_) | Ok(_) => self.check_if_debug(),
        }
        result
    }

    fn check_if_debug(&self) {
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    /// Steps a message that only this node makes; only a fatal condition could be an error.
    fn tell(&mut self, from: NodeId, body: Body) {
        let message = Message { from, ..Message::new(NodeId::NONE, body) };
        // What is fatal is kept, and shows with the next call.
        let _ = self.run(|node| node.raft.step(message));
    }
}
