//! What a node shows of itself: for applications, for people, and for tests.

use std::fmt;

use bytes::Bytes;
use quorate_types::{Index, NodeId};

use crate::{HardState, MembershipConfig, ProgressMap};

/// What a node is in its group at the moment. etcd's `StateType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Asks whether it would get votes.
    PreCandidate,
}

/// etcd's constant names.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Follower => "StateFollower",
            Role::Candidate => "StateCandidate",
            Role::Leader => "StateLeader",
            Role::PreCandidate => "StatePreCandidate",
        })
    }
}

/// Why a node campaigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CampaignType {
    /// To find out whether it would win.
    PreElection,
    /// To win.
    Election,
    /// Because the leader told it to; nobody's lease stands in its way.
    Transfer,
}

/// What is true of a node now and need not be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// The leader, as far as known; [`NodeId::NONE`] for nobody.
    pub lead: NodeId,
    /// What the node itself is. etcd's `RaftState`.
    pub role: Role,
}

/// The state of a node without its peers; cheap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BasicStatus {
    /// The node.
    pub id: NodeId,
    /// Its term, vote and commit index, whether stored already or not.
    pub hard_state: HardState,
    /// Its role and leader.
    pub soft_state: SoftState,
    /// Highest index whose application was acknowledged.
    pub applied: Index,
    /// Whom it hands leadership to; [`NodeId::NONE`] for nobody.
    pub lead_transferee: NodeId,
}

/// The state of a node, with its membership and, on a leader, its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The node itself.
    pub basic: BasicStatus,
    /// The membership in force.
    pub config: MembershipConfig,
    /// The peers as the leader sees them; empty on others.
    pub progress: ProgressMap,
}

/// What a tracked node is in its group. etcd's `ProgressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaKind {
    /// A voter, in either half.
    Peer,
    /// A learner.
    Learner,
}

/// The answer to a read: it may be served once `index` is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// Everything that was committed when the read was asked is at or below it.
    pub index: Index,
    /// The bytes the read was asked with.
    pub request_ctx: Bytes,
}

/// What became of a snapshot that the application was to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotStatus {
    /// It was sent.
    Finish = 1,
    /// It was not, or not wholly.
    Failure = 2,
}

/// One of a group's first members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// The application's own bytes about it.
    pub context: Bytes,
}

impl Peer {
    /// A member about which there is nothing more to say.
    pub fn new(id: impl Into<NodeId>) -> Self {
        Peer { id: id.into(), context: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_states_are_compared_by_leader_and_role() {
        let state = |lead, role| SoftState { lead: NodeId(lead), role };
        assert_eq!(state(0, Role::Follower), SoftState::default());
        for other in [state(1, Role::Follower), state(0, Role::Candidate), state(1, Role::Leader)] {
            assert_ne!(other, SoftState::default(), "{other:?}");
        }
    }

    #[test]
    fn roles_have_etcds_names_and_numbers() {
        for (role, number, name) in [
            (Role::Follower, 0, "StateFollower"),
            (Role::Candidate, 1, "StateCandidate"),
            (Role::Leader, 2, "StateLeader"),
            (Role::PreCandidate, 3, "StatePreCandidate"),
        ] {
            assert_eq!((role as u8, role.to_string().as_str()), (number, name));
        }
        assert_eq!((SnapshotStatus::Finish as u8, SnapshotStatus::Failure as u8), (1, 2));
    }
}
