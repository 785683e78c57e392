//! The handle. Each call becomes one input of the task, or waits on what the task tells; nothing
//! here knows anything of Raft.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quorate_raft::{
    AnyConfChange, AppliedChange, Body, ConfState, Config, Entry, Error, Fatal, Message, Peer,
    RawNode, Ready, SnapshotStatus, Status, Storage, encode_conf_change, is_local_target,
};
use quorate_types::{EntryId, Index, NodeId};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot};

use crate::limits::TICKS_MAX;
use crate::reads::chance;
use crate::task::{Input, NodeTask, Proposal, Tracked, Verdict};
use crate::{Limits, ProposalError, ReadError};

/// A handle to one running node. Clones are handles to the same node; when the last one is gone,
/// the node stops.
///
/// Calls are taken in, in the order in which they were made; only proposals wait for a leader, and
/// let others pass meanwhile.
///
/// Source: etcd's `raft.Node`.
#[derive(Clone, Debug)]
pub struct Node {
    inputs: mpsc::Sender<Input>,
    ticks: mpsc::Sender<()>,
    shared: Arc<Shared>,
}

/// What the handles and the task both see.
#[derive(Debug)]
pub(crate) struct Shared {
    /// At most one Ready on its way. Whoever waits for it holds the lock.
    readies: Mutex<mpsc::Receiver<Ready>>,
    /// Somebody waits for a Ready.
    pub(crate) is_wanted: AtomicBool,
    /// A Ready was handed over and not advanced.
    is_due: AtomicBool,
    /// The task looks at `is_wanted` again.
    pub(crate) wake: Notify,
    pub(crate) stop: Notify,
    /// One permit for each proposal that may wait for its verdict. Closed when the task ends.
    pub(crate) proposals: Semaphore,
    pub(crate) fatal: OnceLock<Fatal>,
}

impl Node {
    /// A node of a new group, whose first members are `peers`; all of them must be started with the
    /// same. Runs as a task of the tokio runtime this is called in. A [`Config::seed`] of 0 is drawn
    /// anew.
    ///
    /// On a log that is not empty it goes on from there, and says so in a warning.
    ///
    /// # Errors
    ///
    /// [`Error::BootstrapWithoutPeers`] without peers: who joins a group, or was in one before, is
    /// [restarted](Node::restart). As [`RawNode::new`] when the options or the storage are bad.
    ///
    /// Source: etcd's `StartNode`.
    pub fn start<S>(config: Config, storage: S, peers: &[Peer]) -> Result<Node, Error>
    where
        S: Storage + Send + 'static,
    {
        let mut raw = RawNode::new(seeded(config), storage)?;
        match raw.bootstrap(peers) {
            Err(error @ Error::BootstrapNonempty) => tracing::warn!("not bootstrapped: {error}"),
            done => done?,
        }
        Ok(Node::spawn(raw))
    }

    /// A node that goes on from what `storage` holds, or that knows nothing yet and joins a group.
    /// Runs as a task of the tokio runtime this is called in. A [`Config::seed`] of 0 is drawn anew.
    ///
    /// # Errors
    ///
    /// As [`RawNode::new`].
    ///
    /// Source: etcd's `RestartNode`.
    pub fn restart<S>(config: Config, storage: S) -> Result<Node, Error>
    where
        S: Storage + Send + 'static,
    {
        Ok(Node::spawn(RawNode::new(seeded(config), storage)?))
    }

    fn spawn<S: Storage + Send + 'static>(raw: RawNode<S>) -> Node {
        let (node, task) = Node::new(raw, Limits::default());
        tokio::spawn(task.run());
        node
    }

    /// A node with limits of the caller's, and the task that the caller is to run: on a runtime or
    /// a thread of its choice. Until then calls wait.
    pub fn new<S: Storage>(raw: RawNode<S>, limits: Limits) -> (Node, NodeTask<S>) {
        let (inputs, inputs_out) =
            mpsc::channel(limits.inputs_max.clamp(1, Semaphore::MAX_PERMITS));
        let (ticks, ticks_out) = mpsc::channel(TICKS_MAX);
        let (readies_in, readies) = mpsc::channel(1);
        let proposals_max = limits.proposals_max.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            readies: Mutex::new(readies),
            is_wanted: AtomicBool::new(false),
            is_due: AtomicBool::new(false),
            wake: Notify::new(),
            stop: Notify::new(),
            proposals: Semaphore::new(proposals_max),
            fatal: OnceLock::new(),
        });
        let task = NodeTask::new(raw, limits, shared.clone(), readies_in, ticks_out, inputs_out);
        (Node { inputs, ticks, shared }, task)
    }

    // The loop of the embedder.

    /// One tick of the clock; never waits. A clock that was held up, as by a disk that was written in
    /// the same task, must not make up for what it missed
    /// (`tokio::time::MissedTickBehavior::Delay`): a leader that is told of two election timeouts at
    /// once finds its followers silent. Where [`Config::lease_ticks`] is set it must, so then it needs
    /// a task of its own, and fewer than 128 ticks of lease. Says whether it was taken: a node that is 128 ticks
    /// behind loses further ones, with a warning.
    pub fn tick(&self) -> bool {
        match self.ticks.try_send(()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(())) => {
                tracing::warn!("a tick is lost: the node has not come to {TICKS_MAX} earlier ones");
                false
            }
            Err(mpsc::error::TrySendError::Closed(())) => false,
        }
    }

    /// The next work there is. With synchronous storage writes there is none before the last is
    /// [advanced](Node::advance).
    ///
    /// Work is put together when it is asked for, so who comes late gets it in one piece. It may be
    /// waited for in a `select`: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] or [`Error::Fatal`], when there will be no more.
    pub async fn ready(&self) -> Result<Ready, Error> {
        let mut readies = self.shared.readies.lock().await;
        let ready = match readies.try_recv() {
            // Somebody asked for it, and left before it came.
            Ok(ready) => Some(ready),
            Err(_) => {
                let _demand = Demand::new(&self.shared);
                readies.recv().await
            }
        };
        let ready = ready.ok_or_else(|| self.ended())?;
        self.shared.is_due.store(true, Ordering::Release);
        Ok(ready)
    }

    /// Reports the work of the last Ready done, and waits until the node knows: what was applied may
    /// be compacted then. Only with synchronous storage writes; with asynchronous ones it is fatal.
    /// Without a Ready to report it does nothing.
    pub async fn advance(&self) {
        // Room first: a future that is dropped while it waits has reported nothing.
        let Ok(room) = self.inputs.reserve().await else { return };
        if self.shared.is_due.swap(false, Ordering::AcqRel) {
            let (reply, done) = oneshot::channel();
            room.send(Input::Advance(reply));
            let _ = done.await;
        }
    }

    /// Puts a committed membership change in force, and gives the membership that results. To be
    /// called once for each membership entry of a Ready, unless the application rejects it.
    /// [`Node::apply_conf_change_at`] is the safer one.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] when it cannot be carried out; [`Error::Stopped`], [`Error::Fatal`].
    pub async fn apply_conf_change(
        &self,
        change: impl Into<AnyConfChange>,
    ) -> Result<ConfState, Error> {
        let change = change.into();
        let applied = self.ask(|reply| Input::ApplyConfChange { at: None, change, reply }).await?;
        applied.map(AppliedChange::into_conf_state)
    }

    /// As [`Node::apply_conf_change`], for the change in the entry at `index`, which is ignored if a
    /// received snapshot covers it already: the node goes on while entries are applied, and may have
    /// taken one in meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Node::apply_conf_change`].
    pub async fn apply_conf_change_at(
        &self,
        index: Index,
        change: impl Into<AnyConfChange>,
    ) -> Result<AppliedChange, Error> {
        let (at, change) = (Some(index), change.into());
        self.ask(|reply| Input::ApplyConfChange { at, change, reply }).await?
    }

    // Messages.

    /// Gives the node a message of a peer or of a storage thread, and waits until there is room for
    /// it. What the engine makes of it is not told. What a storage thread says is known to the node
    /// when this returns, so that entries reported applied may be compacted then.
    ///
    /// A proposal of a peer waits for a leader, as [`Node::propose`] does; so a transport should not
    /// keep other messages waiting behind one. Messages that no peer may send are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Fatal`].
    pub async fn step(&self, message: Message) -> Result<(), Error> {
        if let Body::Propose { entries } = message.body {
            return only_ends(self.submit(entries).await);
        }
        if is_local_target(message.from) {
            return self.ask(|reply| Input::StorageReply(message, reply)).await;
        }
        if message.message_type().is_local() {
            return Ok(());
        }
        self.send(Input::Step(message)).await
    }

    /// Tells a leader that `peer` could not be reached by the last message.
    pub async fn report_unreachable(&self, peer: NodeId) {
        let _ = self.send(Input::Unreachable(peer)).await;
    }

    /// Tells a leader what became of the snapshot it sent to `peer`. It must always be told: until
    /// then the peer gets no entries.
    pub async fn report_snapshot(&self, peer: NodeId, status: SnapshotStatus) {
        let _ = self.send(Input::SnapshotStatus(peer, status)).await;
    }

    // Proposals.

    /// Proposes that `data` be appended to the log. Waits while no leader is known, then says
    /// whether the proposal was taken; that is no promise that it will be committed. See
    /// [`Node::propose_and_wait`].
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] when it was not taken; [`Error::Stopped`], [`Error::Fatal`].
    pub async fn propose(&self, data: impl Into<Bytes>) -> Result<(), Error> {
        self.submit(vec![normal(data)]).await
    }

    /// Proposes a membership change, and waits until it is taken in. Whether the engine refused it
    /// is not told; see [`Node::propose_conf_change_and_wait`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Fatal`].
    pub async fn propose_conf_change(&self, change: impl Into<AnyConfChange>) -> Result<(), Error> {
        only_ends(self.submit(vec![membership(&change.into())]).await)
    }

    /// Proposes `data` and waits for what becomes of it. Gives the place where it is committed: it
    /// will be applied there on every node, and nowhere else.
    ///
    /// Works on the leader only, and waits while there is none. Bound the wait with a timeout:
    /// without a quorum nothing is decided. Of a future that is dropped when the proposal was taken
    /// in, the outcome is unknown.
    ///
    /// # Errors
    ///
    /// All of [`ProposalError`]; [`ProposalError::is_safe_to_retry`] tells those apart after which
    /// it may still be committed.
    pub async fn propose_and_wait(&self, data: impl Into<Bytes>) -> Result<EntryId, ProposalError> {
        self.submit_and_wait(normal(data), None).await
    }

    /// As [`Node::propose_and_wait`], for a membership change. It is in force on a node once that
    /// node has [applied](Node::apply_conf_change) it.
    ///
    /// # Errors
    ///
    /// All of [`ProposalError`]; as [`Refused`](ProposalError::Refused) also that the change cannot
    /// work now ([`Error::ChangeRefused`]).
    pub async fn propose_conf_change_and_wait(
        &self,
        change: impl Into<AnyConfChange>,
    ) -> Result<EntryId, ProposalError> {
        let change = change.into();
        self.submit_and_wait(membership(&change), Some(change)).await
    }

    // Reads.

    /// Asks at which index a read that arrives now may be served. The answer comes in
    /// [`Ready::read_states`] with the same `context`, or never. See [`Node::read`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Fatal`].
    pub async fn read_index(&self, context: impl Into<Bytes>) -> Result<(), Error> {
        self.send(Input::ReadIndex(context.into())).await
    }

    /// The index at which a read that arrives now may be served: a state machine that has applied
    /// it has seen everything that was acknowledged before this call.
    ///
    /// Works on every member. Costs a round of messages and no disk write; the answer comes with a
    /// Ready, so only while somebody takes those. Bound the wait with a timeout: on a follower the
    /// question or its answer may be lost. Who runs groups of a single voter wants
    /// [`Config::postpone_single_voter_reads`].
    ///
    /// # Errors
    ///
    /// All of [`ReadError`]; a read may always be asked again.
    pub async fn read(&self) -> Result<Index, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Read(reply)).await.map_err(ReadError::Ended)?;
        answer.await.unwrap_or_else(|_| Err(ReadError::Ended(self.ended())))
    }

    // Leadership.

    /// Campaigns, unless something speaks against it.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Fatal`].
    pub async fn campaign(&self) -> Result<(), Error> {
        self.send(Input::Campaign).await
    }

    /// Asks the leader `lead` to hand leadership to `transferee`, or, given itself, to keep it.
    pub async fn transfer_leadership(&self, lead: NodeId, transferee: NodeId) {
        let message = Message { from: transferee, ..Message::new(lead, Body::TransferLeader) };
        let _ = self.send(Input::Step(message)).await;
    }

    /// Makes a follower forget its leader, so that it votes for another at once.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], [`Error::Fatal`].
    pub async fn forget_leader(&self) -> Result<(), Error> {
        self.send(Input::ForgetLeader).await
    }

    // The node itself.

    /// The node's state, with its membership and, on a leader, its peers. Of a node that has
    /// stopped, nothing: the default.
    pub async fn status(&self) -> Status {
        self.ask(Input::Status).await.unwrap_or_default()
    }

    /// Stops the node, and waits until it has stopped: the engine and its storage are dropped then.
    /// May be called again, and from several tasks.
    pub async fn stop(&self) {
        self.shared.stop.notify_one();
        self.inputs.closed().await;
    }

    // Inside.

    async fn submit(&self, entries: Vec<Entry>) -> Result<(), Error> {
        self.decide(|reply| Proposal { entries, verdict: Verdict::Plain(reply) }).await?
    }

    async fn submit_and_wait(
        &self,
        entry: Entry,
        change: Option<AnyConfChange>,
    ) -> Result<EntryId, ProposalError> {
        let verdict = |reply| Verdict::Tracked { change, reply };
        let Tracked { proposed, outcome } = self
            .decide(|reply| Proposal { entries: vec![entry], verdict: verdict(reply) })
            .await
            .map_err(ProposalError::Refused)??;
        outcome.await.unwrap_or(Err(ProposalError::Unknown { proposed }))
    }

    /// Puts a proposal before the engine, and waits for its verdict.
    async fn decide<T>(
        &self,
        proposal: impl FnOnce(oneshot::Sender<T>) -> Proposal,
    ) -> Result<T, Error> {
        // Held until there is a verdict, or the caller gives up.
        let _permit = self.shared.proposals.acquire().await.map_err(|_| self.ended())?;
        self.ask(|reply| Input::Propose(proposal(reply))).await
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(input(reply)).await?;
        answer.await.map_err(|_| self.ended())
    }

    async fn send(&self, input: Input) -> Result<(), Error> {
        self.inputs.send(input).await.map_err(|_| self.ended())
    }

    /// Why there is no task any more.
    fn ended(&self) -> Error {
        self.shared.fatal.get().map_or(Error::Stopped, |fatal| fatal.clone().into())
    }
}

/// Somebody waits for a Ready, for as long as this lives.
struct Demand<'a>(&'a Shared);

impl<'a> Demand<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.is_wanted.store(true, Ordering::Release);
        shared.wake.notify_one();
        Demand(shared)
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::Release);
    }
}

/// With chance of its own, unless it is told what to take: nodes and groups must not all campaign at
/// once, whenever they start together.
fn seeded(config: Config) -> Config {
    let seed = if config.seed == 0 { chance() } else { config.seed };
    Config { seed, ..config }
}

fn normal(data: impl Into<Bytes>) -> Entry {
    Entry { data: Some(data.into()), ..Entry::default() }
}

fn membership(change: &AnyConfChange) -> Entry {
    let (kind, data) = encode_conf_change(change);
    Entry { kind: Some(kind), data, ..Entry::default() }
}

/// A refusal is not told to who only wanted the proposal taken in.
fn only_ends(verdict: Result<(), Error>) -> Result<(), Error> {
    match verdict {
        Err(error @ (Error::Stopped | Error::Fatal(_))) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_start_with_chance_of_their_own() {
        let seed = |seed| seeded(Config { seed, ..Config::new(1.into()) }).seed;
        assert_eq!(seed(7), 7);
        assert_ne!(seed(0), seed(0));
    }
}
