//! The loop that owns the engine: takes what comes, gives out work when it is asked for, answers.
//!
//! All calls but ticks come through one queue, in their order. Proposals step aside while there is
//! no leader. Work is only put together for somebody who waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_raft::{
    AnyConfChange, AppliedChange, Entry, Error, Message, RawNode, Ready, SnapshotStatus, Status,
    Storage,
};
use quorate_types::{EntryId, Index, NodeId, Term};
use tokio::sync::{mpsc, oneshot};

use crate::node::Shared;
use crate::outcomes::{Outcome, Outcomes};
use crate::reads::{ReadAnswer, Reads};
use crate::{Limits, ProposalError};

/// How many inputs are taken before work is given out, so that it comes in larger pieces.
const TURN_INPUTS_MAX: usize = 64;

/// What a handle asks of the node.
#[derive(Debug)]
pub(crate) enum Input {
    Propose(Proposal),
    Step(Message),
    StorageReply(Message, oneshot::Sender<()>),
    Advance(oneshot::Sender<()>),
    ApplyConfChange {
        /// Where its entry stands, if that is said.
        at: Option<Index>,
        change: AnyConfChange,
        reply: oneshot::Sender<Result<AppliedChange, Error>>,
    },
    Campaign,
    ForgetLeader,
    ReadIndex(Bytes),
    Read(oneshot::Sender<ReadAnswer>),
    Unreachable(NodeId),
    SnapshotStatus(NodeId, SnapshotStatus),
    Status(oneshot::Sender<Status>),
}

/// Entries to be proposed, and who is told what the engine says.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) entries: Vec<Entry>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    /// Whether they were taken.
    Plain(oneshot::Sender<Result<(), Error>>),
    /// Where the one entry stands, and what becomes of it.
    Tracked {
        /// The membership change that the entry holds, if it is one.
        change: Option<AnyConfChange>,
        reply: oneshot::Sender<Result<Tracked, ProposalError>>,
    },
}

/// A proposal that was appended.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) proposed: EntryId,
    pub(crate) outcome: oneshot::Receiver<Outcome>,
}

/// The task behind a [`Node`](crate::Node): to be [run](NodeTask::run) by whoever made it.
#[derive(Debug)]
pub struct NodeTask<S> {
    // Fields are dropped in this order. The queue of inputs, which says that the node has stopped,
    // comes last.
    raw: RawNode<S>,
    /// Term and leader as last seen.
    reign: (Term, Option<NodeId>),
    /// Whether proposals are taken.
    is_open: bool,
    /// A Ready was given out and is not advanced yet.
    is_advance_due: bool,
    /// Proposals that wait for a leader. Callers hold a permit each, which bounds those that count.
    blocked: VecDeque<Proposal>,
    proposals_max: usize,
    outcomes: Outcomes,
    reads: Reads,
    readies: mpsc::Sender<Ready>,
    shared: Arc<Shared>,
    ticks: mpsc::Receiver<()>,
    inputs: mpsc::Receiver<Input>,
}

impl<S: Storage> NodeTask<S> {
    pub(crate) fn new(
        raw: RawNode<S>,
        limits: Limits,
        shared: Arc<Shared>,
        readies: mpsc::Sender<Ready>,
        ticks: mpsc::Receiver<()>,
        inputs: mpsc::Receiver<Input>,
    ) -> Self {
        NodeTask {
            reign: (raw.term(), None),
            raw,
            is_open: false,
            is_advance_due: false,
            blocked: VecDeque::new(),
            proposals_max: limits.proposals_max.max(1),
            outcomes: Outcomes::new(limits.outcomes_max),
            reads: Reads::new(limits.reads_max),
            readies,
            shared,
            ticks,
            inputs,
        }
    }

    /// Runs the node until it is stopped, its last handle is gone, or it can go on no more.
    pub async fn run(mut self) {
        let mut inputs = Vec::with_capacity(TURN_INPUTS_MAX);
        let shared = self.shared.clone();
        loop {
            self.give_out();
            if self.has_failed() {
                return;
            }
            tokio::select! {
                biased;
                () = shared.stop.notified() => return,
                // Before the rest, so that a flood of messages does not stop the clock.
                Some(()) = self.ticks.recv() => {
                    // What is fatal is kept, here and below, and looked at in each turn.
                    let _ = self.raw.tick();
                    self.look_around();
                    self.hear_what_waits();
                }
                count = self.inputs.recv_many(&mut inputs, TURN_INPUTS_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for input in inputs.drain(..) {
                        self.on_input(input);
                        self.look_around();
                    }
                }
                () = shared.wake.notified() => {}
            }
        }
    }

    /// After a tick, hears its share of what waits. A node that was held up finds ticks and messages
    /// side by side; to count all the ticks first would be to find its leader silent for as long.
    fn hear_what_waits(&mut self) {
        let share = self.inputs.len().div_ceil(self.ticks.len() + 1);
        for _ in 0..share.min(TURN_INPUTS_MAX) {
            let Ok(input) = self.inputs.try_recv() else { return };
            self.on_input(input);
            self.look_around();
        }
    }

    fn has_failed(&self) -> bool {
        let Some(fatal) = self.raw.fatal() else { return false };
        tracing::error!(id = %self.raw.id(), "the node can go on no more: {fatal}");
        // It is set once, here.
        let _ = self.shared.fatal.set(fatal.clone());
        true
    }

    /// Gives a Ready to whoever waits for one, if there is any.
    fn give_out(&mut self) {
        let is_wanted = self.shared.is_wanted.load(Ordering::Acquire);
        if self.is_advance_due || !is_wanted || !self.raw.has_ready() {
            return;
        }
        // Occupied when who had asked has left; who asks next will find it there.
        let Ok(room) = self.readies.try_reserve() else { return };
        let mut ready = self.raw.ready();
        self.reads.settle(&mut ready.read_states);
        self.reads.settle_lost(&mut ready.lost_reads);
        if ready == Ready::default() {
            return;
        }
        self.shared.is_wanted.store(false, Ordering::Release);
        self.is_advance_due = !self.raw.config().async_storage_writes;
        room.send(ready);
    }

    // The answers to callers that have left go nowhere, here and below.
    fn on_input(&mut self, input: Input) {
        match input {
            Input::Propose(proposal) => self.on_proposal(proposal),
            Input::Step(message) => {
                let _ = self.raw.step(message);
            }
            Input::StorageReply(message, reply) => {
                let _ = self.raw.step(message);
                let _ = reply.send(());
            }
            Input::Advance(reply) => {
                self.is_advance_due = false;
                let _ = self.raw.advance();
                let _ = reply.send(());
            }
            Input::ApplyConfChange { at, change, reply } => {
                let _ = reply.send(self.apply_conf_change(at, &change));
            }
            Input::Campaign => {
                let _ = self.raw.campaign();
            }
            Input::ForgetLeader => {
                let _ = self.raw.forget_leader();
            }
            Input::ReadIndex(context) => self.raw.read_index(context),
            Input::Read(reply) => {
                if self.raw.leader().is_none() {
                    let _ = reply.send(Err(crate::ReadError::NoLeader));
                } else if let Some(context) = self.reads.wait(reply) {
                    self.raw.read_index(context);
                }
            }
            Input::Unreachable(peer) => self.raw.report_unreachable(peer),
            Input::SnapshotStatus(peer, status) => self.raw.report_snapshot(peer, status),
            Input::Status(reply) => {
                let _ = reply.send(self.raw.status());
            }
        }
    }

    fn on_proposal(&mut self, proposal: Proposal) {
        if self.is_open {
            self.propose(proposal);
            return;
        }
        if self.proposals_max <= self.blocked.len() {
            self.blocked.retain(|proposal| !proposal.is_given_up());
        }
        self.blocked.push_back(proposal);
    }

    fn propose(&mut self, proposal: Proposal) {
        if proposal.is_given_up() {
            return;
        }
        let Proposal { entries, verdict } = proposal;
        match verdict {
            Verdict::Plain(reply) => {
                let _ = reply.send(self.raw.propose_entries(entries).map(drop));
            }
            Verdict::Tracked { change, reply } => {
                let _ = reply.send(self.propose_tracked(entries, change));
            }
        }
    }

    fn propose_tracked(
        &mut self,
        entries: Vec<Entry>,
        change: Option<AnyConfChange>,
    ) -> Result<Tracked, ProposalError> {
        if !self.raw.is_leader() {
            return Err(ProposalError::NotLeader { leader: self.raw.leader() });
        }
        self.outcomes.check_room()?;
        if let Some(change) = change {
            self.raw.check_conf_change(&change).map_err(ProposalError::Refused)?;
        }
        match self.raw.propose_entries(entries).map_err(ProposalError::Refused)? {
            Some(proposed) => Ok(Tracked { proposed, outcome: self.outcomes.wait(proposed) }),
            None => Err(ProposalError::NotLeader { leader: self.raw.leader() }),
        }
    }

    fn apply_conf_change(
        &mut self,
        at: Option<Index>,
        change: &AnyConfChange,
    ) -> Result<AppliedChange, Error> {
        let was_tracked = self.is_tracked();
        let applied = match at {
            Some(index) => self.raw.apply_conf_change_at(index, change)?,
            None => AppliedChange::Changed(self.raw.apply_conf_change(change)?),
        };
        let AppliedChange::Changed(conf_state) = &applied else { return Ok(applied) };
        // A node that is still catching up may be a member without knowing it, so only one that
        // was a member can be removed.
        let id = self.raw.id();
        let votes = conf_state.voters.contains(&id) || conf_state.voters_outgoing.contains(&id);
        if was_tracked && !self.is_tracked() && !votes {
            self.is_open = false;
        }
        Ok(applied)
    }

    fn is_tracked(&self) -> bool {
        let (id, mut is_tracked) = (self.raw.id(), false);
        self.raw.for_each_progress(|tracked, _, _| is_tracked |= tracked == id);
        is_tracked
    }

    /// After anything happened: has the leader changed, has the commit index moved?
    fn look_around(&mut self) {
        let reign = (self.raw.term(), self.raw.leader());
        if self.reign != reign {
            let (_, before) = std::mem::replace(&mut self.reign, reign);
            self.reads.fail();
            if before != reign.1 {
                self.on_leader(before);
            }
        }
        let index = self.raw.committed();
        if self.outcomes.has_seen(index) {
            return;
        }
        if let Some(term) = self.raw.entry_term(index) {
            self.outcomes.settle(EntryId { term, index }, |index| self.raw.entry_term(index));
        }
    }

    fn on_leader(&mut self, before: Option<NodeId>) {
        let (id, (term, leader)) = (self.raw.id(), self.reign);
        match (before, leader) {
            (None, Some(leader)) => {
                tracing::info!("raft.node: {id:x} elected leader {leader:x} at term {term}");
            }
            (Some(before), Some(leader)) => tracing::info!(
                "raft.node: {id:x} changed leader from {before:x} to {leader:x} at term {term}"
            ),
            (Some(before), None) => {
                tracing::info!("raft.node: {id:x} lost leader {before:x} at term {term}");
            }
            (None, None) => {}
        }
        self.is_open = leader.is_some();
        if self.is_open {
            for proposal in std::mem::take(&mut self.blocked) {
                self.propose(proposal);
            }
        }
    }
}

impl<S> Drop for NodeTask<S> {
    fn drop(&mut self) {
        // Callers that wait for a permit; those who have one are told by their answers' end.
        self.shared.proposals.close();
    }
}

impl Proposal {
    fn is_given_up(&self) -> bool {
        match &self.verdict {
            Verdict::Plain(reply) => reply.is_closed(),
            Verdict::Tracked { reply, .. } => reply.is_closed(),
        }
    }
}
