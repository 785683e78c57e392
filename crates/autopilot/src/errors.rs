//! Why an errand did not come to its end: one enum each.

use crate::action::Action;
use crate::config::ConfigError;
use crate::configuration::UnsafeServerAddition;
use crate::interface::RaftError;
use crate::reconcile::RoundError;
use crate::server::ServerId;
use crate::time::Span;

/// Why no new state could be made. The published one stays.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The application has no settings.
    #[error("the application has no configuration for autopilot")]
    NoConfig,
    /// The promoter cannot read its settings.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// Raft does not say who is in.
    #[error("cannot read the raft configuration: {0}")]
    Configuration(#[source] RaftError),
    /// Raft's stats lack `last_log_term`, or it is no number.
    #[error("raft's last_log_term is {0:?} and no number")]
    LastLogTerm(Option<String>),
    /// It took too long.
    #[error("not done within {0}")]
    TooSlow(Span),
}

/// Why a round ended early.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The promoter cannot read its settings.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// Nothing can be planned.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// Raft failed to do it.
    #[error("cannot {action}: {cause}")]
    Action {
        /// What was to be done.
        action: Action,
        /// What came back.
        #[source]
        cause: RaftError,
    },
}

/// Why a prune ended early.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The promoter cannot read its settings.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// Raft does not say who is in.
    #[error("cannot read the raft configuration: {0}")]
    Configuration(#[source] RaftError),
    /// Some of a class were not removed.
    #[error("cannot remove {}", failures.iter().map(|(id, cause)| format!("{id}: {cause}")).collect::<Vec<_>>().join(", "))]
    Removals {
        /// Each of them with what came back.
        failures: Vec<(ServerId, RaftError)>,
    },
}

/// Why a server was not added.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddServerError {
    /// Raft does not say who is in.
    #[error("cannot read the raft configuration: {0}")]
    Configuration(#[source] RaftError),
    /// Those at its address cannot be spared.
    #[error(transparent)]
    Unsafe(#[from] UnsafeServerAddition),
    /// Raft failed to do one of the steps.
    #[error("cannot {action}: {cause}")]
    Action {
        /// What was to be done.
        action: Action,
        /// What came back.
        #[source]
        cause: RaftError,
    },
}

/// Why an option is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {span}: it cannot be less than no time")]
pub struct OptionError {
    /// Its name.
    pub option: &'static str,
    /// What was given.
    pub span: Span,
}
