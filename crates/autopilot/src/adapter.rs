//! Autopilot's changes on a Raft core in etcd's shape: numeric ids, learners, and proposals that can
//! vanish without a word.
//!
//! [`CoreMembership::plan`] says which one change of the core a wish of autopilot's takes, if any, and
//! refuses what the core would be killed by. [`Changes`] follows one such change from its proposal to
//! its fate, so that every wish has an answer. [`Transfer`] does the same for leadership. They do
//! nothing themselves: whoever drives the core proposes, applies, and tells them.

mod changes;
mod stalls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quorate_types::{Index, NodeId, bug};

use crate::action::Action;
use crate::configuration::{Member, RaftConfiguration, Suffrage};
use crate::interface::RaftError;
use crate::server::ServerId;

pub use changes::{Changes, Fate, Tag, Transfer, admits, stats_of_leader, stats_of_peer};
pub use stalls::Stalls;

/// One change of the core's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreChange {
    /// Makes it a voter.
    AddNode {
        /// Which one.
        id: NodeId,
        /// Where it is.
        address: String,
    },
    /// Makes it a learner, also if it votes.
    AddLearner {
        /// Which one.
        id: NodeId,
        /// Where it is.
        address: String,
    },
    /// Changes its address.
    UpdateNode {
        /// Which one.
        id: NodeId,
        /// Where it is now.
        address: String,
    },
    /// Takes it out.
    RemoveNode {
        /// Which one.
        id: NodeId,
    },
    /// A learner becomes a voter and a voter a learner, in one joint change that leaves by itself.
    Replace {
        /// Who becomes a learner.
        demoted: NodeId,
        /// Where it is.
        demoted_address: String,
        /// Who becomes a voter.
        promoted: NodeId,
        /// Where it is.
        address: String,
    },
}

impl fmt::Display for CoreChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreChange::AddNode { id, address } => write!(f, "add-node {id:x}@{address}"),
            CoreChange::AddLearner { id, address } => write!(f, "add-learner {id:x}@{address}"),
            CoreChange::UpdateNode { id, address } => write!(f, "update-node {id:x}@{address}"),
            CoreChange::RemoveNode { id } => write!(f, "remove-node {id:x}"),
            CoreChange::Replace { demoted, promoted, .. } => {
                write!(f, "replace {demoted:x} by {promoted:x}")
            }
        }
    }
}

/// The membership of the core, as applied, with what is replicated beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreMembership {
    /// Voters, of the incoming half while it is joint.
    pub voters: BTreeSet<NodeId>,
    /// Voters of the outgoing half; empty when it is not joint.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Those that only receive the log.
    pub learners: BTreeSet<NodeId>,
    /// Where each of them is.
    pub addresses: BTreeMap<NodeId, String>,
    /// Of the last change that was applied.
    pub index: Index,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
}

/// The id of a node as autopilot has it: hexadecimal, as etcd writes member ids.
pub fn server_id(id: NodeId) -> ServerId {
    ServerId(format!("{id:x}"))
}

/// The node that an id of autopilot means, if it is one.
pub fn node_id(id: &ServerId) -> Option<NodeId> {
    let number = u64::from_str_radix(id.as_str(), 16).ok()?;
    let node = NodeId(number).known()?;
    // One text a node: neither leading zeros nor a sign nor capitals.
    (server_id(node) == *id).then_some(node)
}

impl CoreMembership {
    /// As autopilot sees it. Voters of both halves are voters.
    pub fn configuration(&self) -> RaftConfiguration {
        let ids: BTreeSet<NodeId> =
            self.voters.union(&self.voters_outgoing).chain(&self.learners).copied().collect();
        let members = ids.into_iter().map(|id| {
            let suffrage = if self.votes(id) { Suffrage::Voter } else { Suffrage::NonVoter };
            Member::new(suffrage, server_id(id), self.address(id))
        });
        RaftConfiguration { members: members.collect(), index: self.index }
    }

    /// The change that does what `action` asks for, or nothing if it is so already.
    ///
    /// # Errors
    ///
    /// What would leave no voter, an id or address that is empty or taken, and the demotion or removal
    /// of the leader: leadership has to go over first. [`Action::TransferLeadership`] and
    /// [`Action::RemoveFailedServer`] are no changes of a membership.
    pub fn plan(&self, action: &Action) -> Result<Option<CoreChange>, RaftError> {
        match action {
            Action::AddNonvoter { id, address } => {
                let id = self.comes_in(id, address)?;
                // Never adds a voter as a learner: in this core that takes its vote.
                let is_there = self.contains(id) && !bug!("an-added-learner-loses-its-vote");
                Ok(match is_there {
                    true => self.moves(id, address),
                    false => Some(CoreChange::AddLearner { id, address: address.clone() }),
                })
            }
            Action::AddVoter { id, address } => {
                let id = self.comes_in(id, address)?;
                Ok(match self.votes(id) {
                    true => self.moves(id, address),
                    false => Some(CoreChange::AddNode { id, address: address.clone() }),
                })
            }
            Action::DemoteVoter { id } => {
                let Some(id) = node_id(id).filter(|id| self.votes(*id)) else { return Ok(None) };
                self.can_lose(id)?;
                Ok(Some(CoreChange::AddLearner { id, address: self.address(id) }))
            }
            Action::RemoveServer { id } => {
                let Some(id) = node_id(id).filter(|id| self.contains(*id)) else { return Ok(None) };
                if self.votes(id) {
                    self.can_lose(id)?;
                }
                Ok(Some(CoreChange::RemoveNode { id }))
            }
            Action::ReplaceVoter { demoted, promoted, address } => {
                let promoted = self.comes_in(promoted, address)?;
                let demoted = node_id(demoted)
                    .filter(|id| self.votes(*id) && *id != promoted)
                    .ok_or_else(|| RaftError::NotAVoter(demoted.clone()))?;
                if self.votes(promoted) {
                    return Err(RaftError::Refused(format!("{promoted:x} votes already")));
                }
                self.does_not_lead(demoted)?;
                let (demoted_address, address) = (self.address(demoted), address.clone());
                Ok(Some(CoreChange::Replace { demoted, demoted_address, promoted, address }))
            }
            Action::TransferLeadership { .. } | Action::RemoveFailedServer(_) => {
                Err(RaftError::Refused(format!("{action} is no change of the membership")))
            }
        }
    }

    /// Whether leadership can be handed to `id`, and to which node that is. The core itself would say
    /// nothing.
    ///
    /// # Errors
    ///
    /// Who is not there, has no vote, or leads already.
    pub fn plan_transfer(&self, id: &ServerId) -> Result<NodeId, RaftError> {
        let node = node_id(id).filter(|node| self.contains(*node));
        let node = node.ok_or_else(|| RaftError::UnknownServer(id.clone()))?;
        match node {
            node if self.leader == Some(node) => Err(RaftError::AlreadyLeader(id.clone())),
            node if !self.votes(node) => Err(RaftError::NotAVoter(id.clone())),
            node => Ok(node),
        }
    }

    /// Whether the core is between two memberships.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    fn votes(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    fn contains(&self, id: NodeId) -> bool {
        self.votes(id) || self.learners.contains(&id)
    }

    fn address(&self, id: NodeId) -> String {
        self.addresses.get(&id).cloned().unwrap_or_default()
    }

    fn moves(&self, id: NodeId, address: &str) -> Option<CoreChange> {
        let is_there = self.addresses.get(&id).is_some_and(|known| known == address);
        (!is_there).then(|| CoreChange::UpdateNode { id, address: address.to_owned() })
    }

    /// Whether a server with this id may have this address.
    fn comes_in(&self, id: &ServerId, address: &str) -> Result<NodeId, RaftError> {
        let node = node_id(id)
            .ok_or_else(|| RaftError::Refused(format!("{:?} is no id of a node", id.as_str())))?;
        if address.is_empty() {
            return Err(RaftError::Refused(format!("{id} has no address")));
        }
        let is_taken = |(other, at): (&NodeId, &String)| *other != node && at == address;
        if let Some((other, _)) = self.addresses.iter().find(|entry| is_taken(*entry)) {
            return Err(RaftError::Refused(format!("{address} is the address of {other:x}")));
        }
        Ok(node)
    }

    fn can_lose(&self, id: NodeId) -> Result<(), RaftError> {
        let is_last = self.voters.iter().all(|voter| *voter == id);
        match is_last {
            true => Err(RaftError::Refused(format!("{id:x} is the last voter"))),
            false => self.does_not_lead(id),
        }
    }

    fn does_not_lead(&self, id: NodeId) -> Result<(), RaftError> {
        match self.leader == Some(id) {
            true => {
                let why = format!("{id:x} leads; leadership has to go over first");
                Err(RaftError::Refused(why))
            }
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
