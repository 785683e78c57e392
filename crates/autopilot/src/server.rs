//! What is known about one server: who it is, where it stands, how far its log is, how it feels.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use quorate_types::{Index, Term};

use crate::time::{Span, Time};

/// A value that the engine carries and never looks at: policies and applications speak JSON through it.
pub type Ext = serde_json::Value;

/// A server, for ever: the same text is never given to a second one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub String);

impl ServerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ServerId {
    fn from(id: &str) -> ServerId {
        ServerId(id.to_owned())
    }
}

impl Borrow<str> for ServerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A server's standing in the Raft configuration, with the leader singled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RaftState {
    /// Its suffrage is of no kind that is known here.
    #[default]
    None,
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It receives the log and has no vote.
    NonVoter,
    /// It is to become a voter, and is not yet one.
    Staging,
}

impl RaftState {
    /// Whether it votes or may come to without anybody asking: leader, voter, staging.
    pub fn is_potential_voter(self) -> bool {
        matches!(self, RaftState::Leader | RaftState::Voter | RaftState::Staging)
    }

    /// Whether its vote counts: leader and voter.
    pub fn has_voting_rights(self) -> bool {
        matches!(self, RaftState::Leader | RaftState::Voter)
    }

    /// As the reference writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            RaftState::None => "none",
            RaftState::Leader => "leader",
            RaftState::Voter => "voter",
            RaftState::NonVoter => "non-voter",
            RaftState::Staging => "staging",
        }
    }

    /// What is written so, if any is.
    pub fn from_text(text: &str) -> Option<RaftState> {
        use RaftState::{Leader, NonVoter, None, Staging, Voter};
        [None, Leader, Voter, NonVoter, Staging].into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for RaftState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the application says about a server's process, whatever its log does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeStatus {
    /// Nothing was filled in, which is none of the others; written as an empty text.
    #[default]
    Unset,
    /// The application cannot tell.
    Unknown,
    /// It runs.
    Alive,
    /// It does not, and nobody asked it to stop.
    Failed,
    /// It was asked to go.
    Left,
    /// A word that is none of these; treated as no answer.
    Other(String),
}

impl NodeStatus {
    /// As the reference writes it.
    pub fn as_str(&self) -> &str {
        match self {
            NodeStatus::Unset => "",
            NodeStatus::Unknown => "unknown",
            NodeStatus::Alive => "alive",
            NodeStatus::Failed => "failed",
            NodeStatus::Left => "left",
            NodeStatus::Other(word) => word,
        }
    }
}

impl From<&str> for NodeStatus {
    fn from(text: &str) -> NodeStatus {
        match text {
            "" => NodeStatus::Unset,
            "unknown" => NodeStatus::Unknown,
            "alive" => NodeStatus::Alive,
            "failed" => NodeStatus::Failed,
            "left" => NodeStatus::Left,
            word => NodeStatus::Other(word.to_owned()),
        }
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the promoter means a server to be. Open: a promoter of a user's own has words of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeType {
    /// No promoter has typed it yet; written as an empty text.
    #[default]
    Untyped,
    /// To vote.
    Voter,
    /// Never to vote: it serves reads.
    ReadReplica,
    /// To be the one voter of its zone.
    ZoneVoter,
    /// To vote beside its zone's voter, for a zone that has none.
    ZoneExtraVoter,
    /// To stand by in its zone.
    ZoneStandby,
    /// A word of another promoter.
    Other(String),
}

impl NodeType {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            NodeType::Untyped => "",
            NodeType::Voter => "voter",
            NodeType::ReadReplica => "read-replica",
            NodeType::ZoneVoter => "zone-voter",
            NodeType::ZoneExtraVoter => "zone-extra-voter",
            NodeType::ZoneStandby => "zone-standby",
            NodeType::Other(word) => word,
        }
    }
}

impl From<&str> for NodeType {
    fn from(text: &str) -> NodeType {
        match text {
            "" => NodeType::Untyped,
            "voter" => NodeType::Voter,
            "read-replica" => NodeType::ReadReplica,
            "zone-voter" => NodeType::ZoneVoter,
            "zone-extra-voter" => NodeType::ZoneExtraVoter,
            "zone-standby" => NodeType::ZoneStandby,
            word => NodeType::Other(word.to_owned()),
        }
    }
}

impl fmt::Display for NodeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A server as the application knows it; `node_type` and `ext` are the promoter's to fill in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// Which one.
    pub id: ServerId,
    /// What people call it.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
    /// Whether its process runs.
    pub node_status: NodeStatus,
    /// Of its program.
    pub version: String,
    /// What else the application says about it: zone, version of a migration, and so on.
    pub meta: Option<BTreeMap<String, String>>,
    /// Of the protocol between servers.
    pub raft_version: i64,
    /// Whether the application says that it leads. May be left false by all.
    pub is_leader: bool,
    /// What the promoter means it to be.
    pub node_type: NodeType,
    /// For the promoter, or from it.
    pub ext: Option<Ext>,
}

impl Server {
    /// The value of one of its tags; an empty one counts as none.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let value = self.meta.as_ref()?.get(key)?;
        (!value.is_empty()).then_some(value.as_str())
    }
}

/// How far a server's log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Since it last heard from the leader; 0 for the leader itself, negative for never.
    pub last_contact: Span,
    /// Of the last entry in its log.
    pub last_term: Term,
    /// Of that entry.
    pub last_index: Index,
}

/// Whether a server is well, and since when that is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerHealth {
    /// Whether it is.
    pub healthy: bool,
    /// When `healthy` last changed.
    pub stable_since: Time,
}

impl ServerHealth {
    /// Whether it has been healthy for `least` without a break.
    ///
    /// A start in the future is not stable, even if nothing is asked for.
    pub fn is_stable(&self, now: Time, least: Span) -> bool {
        let span = now.since(self.stable_since);
        self.healthy && self.stable_since <= now && least <= span
    }
}

/// One server of the Raft configuration, with all that is known about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerState {
    /// As the application knows it.
    pub server: Server,
    /// Its standing in the configuration.
    pub state: RaftState,
    /// How far it is.
    pub stats: ServerStats,
    /// How it feels.
    pub health: ServerHealth,
}

impl ServerState {
    /// Whether its vote counts.
    pub fn has_voting_rights(&self) -> bool {
        self.state.has_voting_rights()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_votes_and_who_may_come_to() {
        for (state, votes, may_vote) in [
            (RaftState::Leader, true, true),
            (RaftState::Voter, true, true),
            (RaftState::Staging, false, true),
            (RaftState::NonVoter, false, false),
            (RaftState::None, false, false),
        ] {
            assert_eq!(state.has_voting_rights(), votes, "{state}");
            let server = ServerState { state, ..ServerState::default() };
            assert_eq!(server.has_voting_rights(), votes, "{state}");
            assert_eq!(state.is_potential_voter(), may_vote, "{state}");
        }
    }

    #[test]
    fn words_survive_a_round_trip() {
        for word in ["none", "leader", "voter", "non-voter", "staging"] {
            assert_eq!(RaftState::from_text(word).unwrap().to_string(), word);
        }
        assert_eq!(RaftState::from_text("Leader"), None);
        for word in ["", "unknown", "alive", "failed", "left", "retired"] {
            assert_eq!(NodeStatus::from(word).to_string(), word);
        }
        assert_eq!(NodeStatus::from("alive"), NodeStatus::Alive);
        assert_eq!(NodeStatus::from("ALIVE"), NodeStatus::Other("ALIVE".into()));
        let types = ["", "voter", "read-replica", "zone-voter", "zone-extra-voter", "zone-standby"];
        for word in types.into_iter().chain(["arbiter"]) {
            assert_eq!(NodeType::from(word).to_string(), word);
        }
        assert_eq!(NodeType::from("arbiter"), NodeType::Other("arbiter".into()));
    }

    #[test]
    fn stable_is_healthy_for_long_enough() {
        let second = |second| Time::from_unix(1_600_000_000 + second, 0);
        let ten = Span::from_secs(10);
        for (healthy, since, least, want) in [
            (false, 0, ten, false),
            (true, 9, ten, false),
            (true, 0, ten, true), // to the nanosecond
            (true, -5, ten, true),
            (true, 10, Span::ZERO, true),
            (true, 11, Span::ZERO, false), // in the future
            (true, 11, Span::from_secs(-5), false),
            (false, 0, Span::ZERO, false),
        ] {
            let health = ServerHealth { healthy, stable_since: second(since) };
            assert_eq!(health.is_stable(second(10), least), want, "{health:?} {least}");
        }
        assert!(!ServerHealth::default().is_stable(second(10), Span::ZERO), "no record at all");
    }

    #[test]
    fn an_empty_tag_is_none() {
        let meta = [("zone", "a"), ("rack", "")].map(|(key, value)| (key.into(), value.into()));
        let server = Server { meta: Some(meta.into()), ..Server::default() };
        assert_eq!(server.tag("zone"), Some("a"));
        assert_eq!(server.tag("rack"), None);
        assert_eq!(server.tag("row"), None);
        assert_eq!(Server::default().tag("zone"), None);
    }
}
