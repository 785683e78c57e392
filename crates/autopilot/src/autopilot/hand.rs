//! Carries out what was decided, one action after another, and tells what and why.

use quorate_types::Index;

use super::Shared;
use crate::action::Action;
use crate::interface::{RaftError, RaftRole};
use crate::note::Note;
use crate::server::ServerId;
use crate::state::State;
use crate::time::Span;

/// Carries out actions, one after another.
pub(super) struct Hand<'a> {
    pub(super) shared: &'a Shared,
    /// Of the configuration that the next change is based on: the one decided on, then the own changes.
    pub(super) index: Index,
}

impl Hand<'_> {
    pub(super) async fn act(&mut self, action: &Action, why: &str) -> Result<(), RaftError> {
        let (shared, raft) = (self.shared, &self.shared.raft);
        let strict = shared.strictness();
        if strict.stops_without_leadership && raft.state() != RaftRole::Leader {
            return Err(RaftError::NotLeader { leader: None });
        }
        shared.note(Note::Doing { action: action.clone(), why: why.to_owned() });
        let guard = if strict.names_configuration { self.index } else { Index(0) };
        let timeout = Span::ZERO;
        let answer = match action {
            Action::AddNonvoter { id, address } => raft.add_nonvoter(id, address, guard, timeout),
            Action::AddVoter { id, address } => raft.add_voter(id, address, guard, timeout),
            Action::DemoteVoter { id } => raft.demote_voter(id, guard, timeout),
            Action::ReplaceVoter { demoted, promoted, address } => {
                raft.replace_voter(demoted, promoted, address, guard, timeout)
            }
            Action::RemoveServer { id } => raft.remove_server(id, guard, timeout),
            Action::TransferLeadership { id, address } => {
                let transfer = raft.leadership_transfer_to_server(id, address);
                if let Err(error) = shared.in_time(transfer).await {
                    shared.remember_failed_transfer(id);
                    return Err(error);
                }
                shared.note(Note::Done(action.clone()));
                return Ok(());
            }
            Action::RemoveFailedServer(server) => {
                shared.application.remove_failed_server(server);
                return Ok(());
            }
        };
        self.index = shared.in_time(answer).await?;
        shared.note(Note::Done(action.clone()));
        Ok(())
    }
}

/// Why a round does something, in a few words.
pub(super) fn why_changed(action: &Action, state: &State) -> String {
    let health = |id: &ServerId| match state.servers.get(id).map(|server| server.health) {
        Some(health) if health.healthy => format!("healthy since {}", health.stable_since),
        Some(health) => format!("unhealthy since {}", health.stable_since),
        None => "not in the state".to_owned(),
    };
    match action {
        Action::AddVoter { id, .. } | Action::DemoteVoter { id } => health(id),
        Action::ReplaceVoter { demoted, promoted, .. } => {
            format!("{demoted} {}, {promoted} {}", health(demoted), health(promoted))
        }
        Action::AddNonvoter { .. }
        | Action::RemoveServer { .. }
        | Action::TransferLeadership { .. }
        | Action::RemoveFailedServer(_) => "wanted by the policy".to_owned(),
    }
}

pub(super) fn why_removed(action: &Action) -> (ServerId, String) {
    match action {
        Action::RemoveFailedServer(server) => {
            (server.id.clone(), format!("its status is {:?}", server.node_status.as_str()))
        }
        Action::RemoveServer { id }
        | Action::AddNonvoter { id, .. }
        | Action::AddVoter { id, .. }
        | Action::DemoteVoter { id }
        | Action::ReplaceVoter { demoted: id, .. }
        | Action::TransferLeadership { id, .. } => {
            (id.clone(), "the application does not know it".to_owned())
        }
    }
}
