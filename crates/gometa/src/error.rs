//! Why a node cannot begin, or cannot go on.

use std::io;

use quorate_zab::{ConfigError, Fatal, LeaveReason, StartError};

use crate::ActionError;

/// Why a node cannot begin, or must not take part any more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A voter without the ports that members talk to.
    #[error("a voter needs an election port and a message port")]
    NoPorts,
    /// The thread for the application's calls could not be started.
    #[error("no thread for the application's calls: {0}")]
    Thread(String),
    /// A port could not be used.
    #[error("a port could not be used: {0}")]
    Port(String),
    /// A call of the application failed: what it stores is not certain any more.
    #[error("the application's storage failed: {0}")]
    Action(#[from] ActionError),
    /// The engine cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// It was closed.
    #[error("the election site is closed")]
    Closed,
}

impl From<StartError> for SiteError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => SiteError::Config(error),
            StartError::Storage(fatal) => SiteError::Fatal(fatal),
        }
    }
}

impl From<io::Error> for SiteError {
    fn from(error: io::Error) -> Self {
        SiteError::Port(error.to_string())
    }
}

/// How a leader's or a follower's run came to its end. Then there is another election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was killed, and the site is closed.
    Killed,
    /// There will be no more requests, and the site is closed.
    NoMoreRequests,
    /// The role is over.
    Left(LeaveReason),
}

/// Why a role could not be taken, or not gone on with.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody else was elected, or nobody.
    #[error("this node has another role: {0}")]
    NotElected(&'static str),
    /// An elected leader did not get its quorums, or a follower did not get through its
    /// synchronization. There may be another election.
    #[error("the role ended before it began to serve: {0:?}")]
    NotServing(LeaveReason),
    /// The node must not take part any more.
    #[error(transparent)]
    Site(#[from] SiteError),
}
