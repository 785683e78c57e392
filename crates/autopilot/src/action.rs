//! What autopilot asks the outside to do. An action is done, and answered, before the next begins.

use std::fmt;

use crate::server::{Server, ServerId};
use crate::strict::Wanted;

/// One thing to do. Everything but [`Action::RemoveFailedServer`] is asked of Raft.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Let it receive the log, or change its address; never takes a vote away.
    AddNonvoter {
        /// Which server.
        id: ServerId,
        /// Where it is.
        address: String,
    },
    /// Give it a vote, or change its address.
    AddVoter {
        /// Which server.
        id: ServerId,
        /// Where it is.
        address: String,
    },
    /// Take its vote; it goes on receiving the log.
    DemoteVoter {
        /// Which server.
        id: ServerId,
    },
    /// Both in one change of a joint configuration: neither happens without the other.
    ReplaceVoter {
        /// Whose vote goes.
        demoted: ServerId,
        /// Whose vote comes.
        promoted: ServerId,
        /// Where the promoted one is.
        address: String,
    },
    /// Take it out of the configuration.
    RemoveServer {
        /// Which server.
        id: ServerId,
    },
    /// Hand leadership to it.
    TransferLeadership {
        /// Which server.
        id: ServerId,
        /// Where it is.
        address: String,
    },
    /// Asked of the application: make this failed server go away.
    RemoveFailedServer(Box<Server>),
}

impl Action {
    /// Whom it is about: one server, or the two of a replacement, whose vote goes first.
    pub fn servers(&self) -> Vec<&ServerId> {
        match self {
            Action::ReplaceVoter { demoted, promoted, .. } => vec![demoted, promoted],
            Action::RemoveFailedServer(server) => vec![&server.id],
            Action::AddNonvoter { id, .. }
            | Action::AddVoter { id, .. }
            | Action::DemoteVoter { id }
            | Action::RemoveServer { id }
            | Action::TransferLeadership { id, .. } => vec![id],
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        match self {
            Action::AddNonvoter { .. } | Action::AddVoter { .. } => Wanted::Promotion,
            Action::DemoteVoter { .. } | Action::ReplaceVoter { .. } => Wanted::Demotion,
            Action::RemoveServer { .. } | Action::RemoveFailedServer(_) => Wanted::Removal,
            Action::TransferLeadership { .. } => Wanted::Leadership,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::AddNonvoter { id, address } => write!(f, "add-nonvoter {id}@{address}"),
            Action::AddVoter { id, address } => write!(f, "add-voter {id}@{address}"),
            Action::DemoteVoter { id } => write!(f, "demote {id}"),
            Action::ReplaceVoter { demoted, promoted, address } => {
                write!(f, "replace {demoted} by {promoted}@{address}")
            }
            Action::RemoveServer { id } => write!(f, "remove {id}"),
            Action::TransferLeadership { id, address } => write!(f, "transfer to {id}@{address}"),
            Action::RemoveFailedServer(server) => write!(f, "remove-failed {}", server.id),
        }
    }
}
