//! What the protocol asks of the application: gometa's `ActionHandler`.
//!
//! The application keeps four things for the protocol: the epoch it has promised to and to whom, the
//! epoch whose leader's history its log is, the log, and the machine's state with the id of the last
//! transaction in it. One that keeps its state alone has no more of a log than what the state does not
//! cover yet, and a little that it does. Every call that stores something returns once that is durable; an error, or a
//! panic, ends the node's part in the ensemble until it is opened again.
//!
//! One thread makes all calls that store something, one after the other. Calls that read may come
//! at the same time, from another.

use bytes::Bytes;
use quorate_types::Index;
use quorate_zab::{Address, Command, Entry, Epoch, Snapshot, Zxid};

/// Why a call of an [`ActionHandler`] failed: the application's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ActionError(pub String);

impl From<std::io::Error> for ActionError {
    fn from(error: std::io::Error) -> Self {
        ActionError(error.to_string())
    }
}

impl From<&str> for ActionError {
    fn from(text: &str) -> Self {
        ActionError(text.to_owned())
    }
}

/// The application's side of one node: its log, its promises and its machine.
///
/// The names are gometa's. What gometa asks for besides is known to the node itself:
/// `GetEnsembleSize`, `GetFollowerId` and `GetQuorumVerifier` stand in its
/// [settings](crate::SiteConfig), `GetStatus` is [`ElectionSite::peer_status`](crate::ElectionSite::peer_status),
/// and `GetNextTxnId` is the engine's alone.
pub trait ActionHandler: Send + Sync + 'static {
    /// The epoch promised to last, and the leader it was promised to; 0 and nobody at first.
    ///
    /// # Errors
    ///
    /// What cannot be read ends the node.
    fn accepted_epoch(&self) -> Result<(Epoch, Option<Address>), ActionError>;

    /// The epoch whose leader's history the log is; 0 at first. Never above the accepted one.
    ///
    /// # Errors
    ///
    /// What cannot be read ends the node.
    fn current_epoch(&self) -> Result<Epoch, ActionError>;

    /// The id of the last transaction in the log; 0 while it is empty.
    ///
    /// # Errors
    ///
    /// What cannot be read ends the node.
    fn last_logged_txid(&self) -> Result<Zxid, ActionError>;

    /// The id of the last transaction in the machine's state; 0 while there is none.
    ///
    /// # Errors
    ///
    /// What cannot be read ends the node.
    fn last_committed_txid(&self) -> Result<Zxid, ActionError>;

    /// Transactions of the log after `after` and up to `last`, in ascending order of their ids: as
    /// many as take about `bytes_max`, and at least one, if there is any. Despite gometa's name for
    /// it (`GetCommitedEntries`): committed or not.
    ///
    /// # Errors
    ///
    /// Damage is an error and never the end of the log: it ends the node.
    fn committed_entries(
        &self,
        after: Zxid,
        last: Zxid,
        bytes_max: u64,
    ) -> Result<Vec<(Zxid, Command)>, ActionError>;

    /// Stores the promise to `epoch`, made to `leader`. Durable on return.
    ///
    /// # Errors
    ///
    /// What is not durable for certain ends the node.
    fn notify_new_accepted_epoch(&self, epoch: Epoch, leader: &Address) -> Result<(), ActionError>;

    /// Stores that the log is now the history of the leader of `epoch`. Durable on return.
    ///
    /// # Errors
    ///
    /// What is not durable for certain ends the node.
    fn notify_new_current_epoch(&self, epoch: Epoch) -> Result<(), ActionError>;

    /// Puts transactions at the end of the log, several at a time where several wait. Durable on
    /// return.
    ///
    /// # Errors
    ///
    /// What is not durable for certain ends the node. To refuse a request, refuse it before it is
    /// proposed: here it has an id, and members may hold it already.
    fn log_proposal(&self, entries: &[Entry]) -> Result<(), ActionError>;

    /// Removes everything after `after` from the log, none of which was ever committed, and puts
    /// `entries` there, in one step: after a crash the one is there or the other. Durable on return.
    /// gometa has nothing like it and keeps what no leader has.
    ///
    /// # Errors
    ///
    /// What is not durable for certain ends the node.
    fn replace_tail(&self, after: Zxid, entries: &[Entry]) -> Result<(), ActionError>;

    /// Applies transactions of the log to the machine, in order, and moves the last committed id to
    /// that of the last one. State and id become durable together, or the state is the same when
    /// what comes after the id is applied again. What is not
    /// [applied](quorate_zab::Op::is_applied) moves the id alone. Each transaction comes once while
    /// the node runs.
    ///
    /// # Errors
    ///
    /// Any error ends the node.
    fn commit(&self, entries: &[Entry]) -> Result<(), ActionError>;

    /// Whether the log is kept whole, which is the default and what gometa does in an ensemble. A node
    /// that says no is told what it may [forget](ActionHandler::forget), and must be able to say its
    /// [state](ActionHandler::state): gometa's "embedded" form, a leader of one with watchers.
    fn keeps_history(&self) -> bool {
        true
    }

    /// Where the log begins: place and id of the last transaction that it no longer has, since the
    /// state covers it. At or before the last committed one; 0 and 0, the default, for a whole log.
    ///
    /// # Errors
    ///
    /// What cannot be read ends the node.
    fn log_start(&self) -> Result<(Index, Zxid), ActionError> {
        Ok((Index(0), Zxid::ZERO))
    }

    /// The log is asked for nothing up to `last` any more, at the place `index`, all of which is
    /// committed. If it is removed, the log's start and the removal become durable together. Only for
    /// an application that does not keep its history.
    ///
    /// # Errors
    ///
    /// Any error ends the node.
    fn forget(&self, index: Index, last: Zxid) -> Result<(), ActionError> {
        let _ = (index, last);
        Ok(())
    }

    /// The machine's state as of one moment, as the transactions that make it out of nothing
    /// ([`Snapshot::of_commands`]), with place and id of the last transaction in it: for a watcher
    /// that needs what is forgotten. Nothing, the default, where the history is kept. It is made by the
    /// node's loop, which stands still meanwhile; to a node of ours it must fit into one frame.
    ///
    /// # Errors
    ///
    /// What cannot be read ends the node.
    fn state(&self) -> Result<Option<Snapshot>, ActionError> {
        Ok(None)
    }

    /// Whether a leader's state may take the place of this application's: see
    /// [`ActionHandler::install`]. Without, no leader that keeps its state alone can be watched.
    fn takes_states(&self) -> bool {
        false
    }

    /// Puts `state` ([`Snapshot::commands`]) in the place of machine and log, whatever was there, in
    /// one step; the log begins after it. Durable on return. What is deleted has no trace in it.
    ///
    /// # Errors
    ///
    /// What is not durable for certain ends the node.
    fn install(&self, state: &Snapshot) -> Result<(), ActionError> {
        let _ = state;
        Err(ActionError::from("this application takes no states"))
    }

    /// Puts a transaction in the log and, if `commit`, applies it: for filling a log from
    /// elsewhere, before the node runs. The node itself logs and commits in two steps.
    ///
    /// # Errors
    ///
    /// Those of the two steps.
    fn log_and_commit(&self, entry: &Entry, commit: bool) -> Result<(), ActionError> {
        self.log_proposal(std::slice::from_ref(entry))?;
        if commit { self.commit(std::slice::from_ref(entry)) } else { Ok(()) }
    }

    /// A request of this node, `fid`, was refused and will never be executed. Whoever waits for it
    /// is told by the node; this is for the application's own books. It must not block.
    fn abort(&self, fid: &Address, request: u64, error: &str) {
        let _ = (fid, request, error);
    }

    /// A request of this node, `fid`, was answered outside the log. As [`ActionHandler::abort`].
    fn respond(&self, fid: &Address, request: u64, error: &str, content: Option<&Bytes>) {
        let _ = (fid, request, error, content);
    }
}
