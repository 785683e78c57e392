//! What autopilot needs from its surroundings: a consensus layer, an application, a clock, and a place
//! to run. The names of the first two are the reference's.
//!
//! Whatever may take time answers with a future; the engine waits for each answer before it asks for
//! the next thing, and gives up by itself on one that never comes. What is not a future must answer
//! at once. No lock is held while any of this is called, so that all of it may call back.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use quorate_types::Index;

use crate::config::Config;
use crate::configuration::RaftConfiguration;
use crate::note::Note;
use crate::server::{Server, ServerId, ServerStats};
use crate::state::State;
use crate::time::{Span, Time};

/// An answer that comes later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The role of the local node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftRole {
    /// It follows.
    Follower,
    /// It wants to lead.
    Candidate,
    /// It leads.
    Leader,
    /// It takes part no more.
    Shutdown,
}

/// Why Raft did not do, or did not say, what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RaftError {
    /// Only the leader can.
    #[error("not the leader{}", leader.as_ref().map(|id| format!("; ask {id}")).unwrap_or_default())]
    NotLeader {
        /// Who is, if that is known.
        leader: Option<ServerId>,
    },
    /// The configuration is not the one that was named any more. Nothing was changed.
    #[error("the configuration has changed: it is of {latest}, not of {named}")]
    ConfigChanged {
        /// What the caller went by.
        named: Index,
        /// What it is.
        latest: Index,
    },
    /// Another change is under way. Nothing was changed; try again later.
    #[error("another change of the configuration is under way; try again later")]
    ConfigChangeInProgress,
    /// The proposal was not taken. Nothing was changed; try again later.
    #[error("the proposal was dropped; try again later")]
    ProposalDropped,
    /// Leadership was lost: the change may still come.
    #[error("leadership was lost; whether the change was made is not known")]
    Unknown,
    /// No answer within the deadline: the change may still come.
    #[error("no answer within {0}; whether the change was made is not known")]
    Timeout(Span),
    /// Only a voter can lead.
    #[error("{0} has no vote")]
    NotAVoter(ServerId),
    /// There is no such server.
    #[error("{0} is not in the configuration")]
    UnknownServer(ServerId),
    /// It leads already.
    #[error("{0} leads already")]
    AlreadyLeader(ServerId),
    /// The change makes no sense.
    #[error("refused: {0}")]
    Refused(String),
    /// Whatever else an implementation meets.
    #[error(transparent)]
    Other(Arc<dyn Error + Send + Sync>),
}

/// The consensus layer, on this node.
///
/// An implementation refuses a change that leaves no voter, an empty id or address, and a second server
/// with an id or address that is taken. `prev_index` other than 0 means: only if the configuration
/// of that index is still the latest one. A `timeout` of zero means the implementation's own.
/// The answer to a change is the index of its entry.
pub trait Raft: Send + Sync {
    /// Absent: comes in without a vote. Present: only its address changes, a vote is never taken away.
    fn add_nonvoter(
        &self,
        id: &ServerId,
        address: &str,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>>;

    /// Absent or without a vote: becomes a voter. Voter already: only its address changes.
    fn add_voter(
        &self,
        id: &ServerId,
        address: &str,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>>;

    /// Takes its vote; it goes on receiving the log. Absent: succeeds and changes nothing.
    fn demote_voter(
        &self,
        id: &ServerId,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>>;

    /// Takes it out. Absent: succeeds and changes nothing.
    fn remove_server(
        &self,
        id: &ServerId,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>>;

    /// The latest configuration, committed or not.
    fn get_configuration(&self) -> Answer<'_, Result<RaftConfiguration, RaftError>>;

    /// The last index of the local log or snapshot.
    fn last_index(&self) -> Index;

    /// Address of the leader as this node sees it; empty if there is none.
    fn leader(&self) -> String;

    /// The role of this node.
    fn state(&self) -> RaftRole;

    /// Numbers as text, of which `last_log_term` is read.
    fn stats(&self) -> BTreeMap<String, String>;

    /// Succeeds once leadership was handed over.
    fn leadership_transfer_to_server(
        &self,
        id: &ServerId,
        address: &str,
    ) -> Answer<'_, Result<(), RaftError>>;

    /// Whether [`replace_voter`](Self::replace_voter) can be asked for. Beyond the reference.
    fn can_replace_voters(&self) -> bool {
        false
    }

    /// Demotes one and promotes the other in one joint change. Beyond the reference.
    fn replace_voter(
        &self,
        demoted: &ServerId,
        _promoted: &ServerId,
        _address: &str,
        _prev_index: Index,
        _timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        let refusal = format!("{demoted} cannot be replaced in one change");
        Box::pin(async { Err(RaftError::Refused(refusal)) })
    }

    /// Who is being sent a snapshot by this node. Beyond the reference.
    fn receiving_snapshot(&self) -> BTreeSet<ServerId> {
        BTreeSet::new()
    }

    /// To whom no vote could be given now, since too much of the log is missing there: such a server is not
    /// promoted, and the built-in policies do without it. While a policy asks for it alone, nobody is demoted.
    /// Beyond the reference.
    fn lacking(&self) -> BTreeMap<ServerId, Lack> {
        BTreeMap::new()
    }
}

/// What a server has of the log, and what it must have to be given a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// The last entry it has.
    pub has: Index,
    /// The last entry it must have.
    pub least: Index,
}

/// The program around it.
pub trait ApplicationIntegration: Send + Sync {
    /// The latest settings, or nothing: then no state is made and nothing is changed.
    fn autopilot_config(&self) -> Option<Config>;

    /// Every server the application knows, those that failed or left too. Must not wait.
    fn known_servers(&self) -> BTreeMap<ServerId, Server>;

    /// The stats of those of `servers` that answer within `deadline`; who does not is missing.
    fn fetch_server_stats(
        &self,
        deadline: Span,
        servers: BTreeMap<ServerId, Server>,
    ) -> Answer<'_, BTreeMap<ServerId, ServerStats>>;

    /// Told after every update of the state, when it can be read already.
    fn notify_state(&self, state: &Arc<State>);

    /// Makes a failed server go away, in its own time: returns at once.
    fn remove_failed_server(&self, server: &Server);
}

/// A clock. All of autopilot's times come from it.
pub trait TimeProvider: Send + Sync {
    /// What time it is.
    fn now(&self) -> Time;
}

/// Where autopilot runs: something that can wait and has room for a task.
pub trait Host: Send + Sync {
    /// Is ready after `span`.
    fn sleep(&self, span: Span) -> Answer<'static, ()>;

    /// Runs `task` beside everything else until it ends.
    fn spawn(&self, task: Answer<'static, ()>);
}

/// Who is told what autopilot did and why; the caller scopes it as `autopilot`.
pub trait Logger: Send + Sync {
    /// One thing that happened.
    fn log(&self, note: &Note);
}

/// A logger that forgets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence;

impl Logger for Silence {
    fn log(&self, _note: &Note) {}
}

impl fmt::Display for RaftRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RaftRole::Follower => "follower",
            RaftRole::Candidate => "candidate",
            RaftRole::Leader => "leader",
            RaftRole::Shutdown => "shutdown",
        })
    }
}
