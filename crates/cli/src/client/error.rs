//! Why a command failed, and the exit code by which a script can tell.

use std::process::ExitCode;

use quorate_proto::tonic::Status;

use crate::tell;

/// Why a command failed. The exit codes are `etcdctl`'s, but for a cluster that cannot be reached:
/// `etcdctl` calls that 1 although it has a code for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// What a member answered, or another failure that no other variant names. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// No endpoint could be reached. Exit code 2.
    #[error("no endpoint can be reached: {0}; is a member running there? --endpoints names others")]
    Unreachable(String),
    /// What standard input held makes no sense. Exit code 3.
    #[error("{0}")]
    Input(String),
    /// The command has no such form of output. Exit code 4.
    #[error("{0}")]
    Unsupported(String),
    /// Standard output took no more. Exit code 6.
    #[error("cannot write the answer: {0}")]
    Output(std::io::Error),
    /// The arguments make no sense together. Exit code 128.
    #[error("{0}")]
    Arguments(String),
    /// What `etcdctl` has another exit code for.
    #[error("{text}")]
    Coded {
        /// Why.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// All has been told; only the exit code is left.
    #[error("exit code {0}")]
    Told(u8),
}

impl CliError {
    /// Writes the reason to standard error.
    pub(crate) fn tell(self) -> ExitCode {
        match &self {
            CliError::Told(_) => {}
            // Whoever read the output has seen enough of it, as `head` does.
            CliError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            _ => tell::etcdctl_error(&self.to_string()),
        }
        ExitCode::from(self.exit_code())
    }

    /// The reason within a text that says what was tried.
    pub(super) fn within(self, what: &str) -> CliError {
        match self {
            CliError::Failed(why) => CliError::Failed(format!("{what} ({why})")),
            other => other,
        }
    }

    /// The same reason with another exit code.
    pub(super) fn with_code(self, code: u8) -> CliError {
        match self {
            CliError::Failed(text) => CliError::Coded { text, code },
            other => other,
        }
    }

    /// The reason alone, for a line that names the endpoint already.
    pub(super) fn without(&self, endpoint: &str) -> String {
        match self {
            CliError::Unreachable(why) => {
                why.strip_prefix(endpoint).and_then(|why| why.strip_prefix(": ")).unwrap_or(why)
            }
            error => return error.to_string(),
        }
        .to_owned()
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Unreachable(_) => 2,
            CliError::Input(_) => 3,
            CliError::Unsupported(_) => 4,
            CliError::Output(_) => 6,
            CliError::Arguments(_) => 128,
            CliError::Coded { code, .. } => *code,
            CliError::Told(code) => *code,
        }
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> CliError {
        CliError::Failed(said_by(&status))
    }
}

/// What a member said, or what broke on the way to it.
pub(crate) fn said_by(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => format!("the connection broke: {}", innermost(cause)),
        None if status.message().is_empty() => format!("{:?} without a reason", status.code()),
        None => status.message().to_owned(),
    }
}

/// The cause at the bottom: above it stand only words like "transport error".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
