//! The settings of one node, checked once, when it is built.
//!
//! Where gometa has a constant for the same thing, the default is its value, unless a remark says
//! otherwise.

use std::sync::Arc;

use quorate_types::{Index, NodeId};

use crate::{Address, FID_BYTES_MAX, Quorums};

/// One member of the ensemble: a node that votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is to the rest of the program.
    pub id: NodeId,
    /// The address of its election port, which is its name in votes.
    pub election: Address,
    /// The address of its message port, which is its name everywhere else.
    pub message: Address,
}

/// All settings of one node. Start from [`Config::new`] and set what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is, and its concrete addresses: a wildcard would name every node alike.
    pub own: Member,
    /// The ensemble. A node that is not in it is a watcher.
    pub members: Vec<Member>,
    /// A watcher's leader is the one member there is: it is followed without asking who leads.
    pub is_leader_known: bool,
    /// Who of the members are enough. The same on every node.
    pub quorums: Quorums,
    /// Names the ensemble in votes, so that those of another one are dropped.
    pub cluster: Option<u64>,
    /// Where chance starts from. It must differ from start to start: request ids are drawn from it.
    pub seed: u64,
    /// The machine's state covers the history up to here when the node starts.
    pub applied: Index,

    /// Whether voters that are gometa processes are taken, as leader and as followers. Most of what
    /// this engine promises does not hold among them: for migration and tests. Their histories may have
    /// gaps, which a node, a watcher too, takes from leaders of ours only with this, even when they are gone.
    pub allow_gometa_voters: bool,
    /// The key of transactions that change nothing, for linearizable reads where too few voters, or not the
    /// leader, can confirm one otherwise: gometa processes among them. The machine sees it set to nothing,
    /// so the application has no key of this name. Without, such reads are
    /// [`Unsupported`](crate::ReadFailure::Unsupported).
    pub barrier_key: Option<Arc<str>>,
    /// Whether a watcher wants committed entries only, where its leader is one of ours: each in one
    /// message instead of two, and none before it is committed.
    pub commit_only: bool,
    /// Whether the application answers requests outside the log.
    pub custom_requests: bool,
    /// Whether learners may have [`Op::BROADCAST`](crate::Op::BROADCAST) proposed.
    pub allow_broadcast: bool,

    /// After this long without news the own vote is sent again; then after twice as long, and so on.
    pub ballot_ms: u64,
    /// The longest time between two sendings of the own vote.
    pub ballot_ms_max: u64,
    /// How long a quorum of equal votes must last, unless all members agree.
    pub finalize_ms: u64,
    /// One synchronization may stand still for so long. gometa: 300 s for all of it.
    pub sync_timeout_ms: u64,
    /// An elected leader waits so long for each of its three quorums: 3 times at most. gometa: 100 s in
    /// all.
    pub establish_timeout_ms: u64,
    /// A connection that is silent for so long is given a sign of life.
    pub keepalive_ms: u64,
    /// A peer that is silent for so long is given up. gometa never does that.
    pub peer_silence_ms: u64,
    /// A voter that leaves a proposal unanswered for so long is given up, and so is an established leader
    /// that does not get committed what reads wait for. gometa never does that.
    pub accept_timeout_ms: u64,
    /// A leader that refuses a voter because it promised to a later epoch resigns, once it has led
    /// for so long, so that the voter can come back.
    pub outbid_ms: u64,
    /// A watcher that lost its leader waits so long; then twice as long, and so on.
    pub backoff_ms: u64,
    /// The longest time between two turns of a watcher.
    pub backoff_ms_max: u64,

    /// Longest key, in bytes.
    pub key_bytes_max: u64,
    /// Longest content, in bytes. Together with the key it must fit in a frame.
    pub content_bytes_max: u64,
    /// Most proposals that wait for a quorum; more are refused.
    pub proposals_count_max: usize,
    /// Most bytes of proposals that wait for a quorum. One alone is always taken.
    pub proposals_bytes_max: u64,
    /// Most requests of this node that wait for their outcome.
    pub requests_count_max: usize,
    /// Most linearizable reads that wait.
    pub reads_count_max: usize,
    /// Most bytes handed out for one connection and not yet written. What comes from the history
    /// waits there; a connection that overflows with anything else is closed.
    pub connection_bytes_max: u64,
    /// A learner may be so many entries behind once it is up to date; over it, its connection is closed.
    /// One that is further behind when its synchronization ends may fall behind by so many more, and
    /// what it asks for is refused until it has caught up.
    pub behind_count_max: u64,
    /// Most learners without a vote that a leader has. Voters and strangers find a place besides:
    /// [`Config::connections_max`].
    pub connections_count_max: usize,
    /// Most bytes of a stream of a gometa leader, which must be held until its end.
    pub stream_bytes_max: u64,
    /// A watcher takes the state of a gometa leader that keeps no history in place of its own: the
    /// application installs a [`Snapshot`](crate::Snapshot) of [`commands`](crate::Snapshot::commands).
    /// Otherwise such a leader is left. Voters never take one. One without keys is not followed:
    /// [`BareState`](crate::Note::BareState).
    pub takes_states: bool,
    /// A watcher that takes states takes one without keys, too. A gometa leader that cannot read its log
    /// sends the same, and then this node has nothing of it and does not know: only where the leader is
    /// known to keep no history, and to have none of its keys left.
    pub takes_bare_states: bool,
    /// A gometa learner is sent so many entries again at most; one that needs more is refused.
    pub replay_count_max: u64,
    /// Most bytes of committed entries in one Ready. One entry always goes.
    pub applying_bytes_max: u64,
    /// Most entries handed out and not yet reported as applied.
    pub applying_count_max: u64,
    /// A leader resigns when so few transactions are left in its epoch.
    pub counter_reserve: u32,
    /// Most notes kept between two Readys.
    pub notes_count_max: usize,
}

impl Config {
    /// The defaults, for a node of an ensemble.
    pub fn new(own: Member, members: Vec<Member>) -> Self {
        Config {
            own,
            members,
            is_leader_known: false,
            quorums: Quorums::majority(),
            cluster: None,
            seed: 0,
            applied: Index(0),
            allow_gometa_voters: false,
            barrier_key: None,
            commit_only: true,
            custom_requests: false,
            allow_broadcast: false,
            ballot_ms: 50,
            ballot_ms_max: 500,
            finalize_ms: 200,
            sync_timeout_ms: 10_000,
            establish_timeout_ms: 10_000,
            keepalive_ms: 500,
            peer_silence_ms: 5_000,
            accept_timeout_ms: 5_000,
            outbid_ms: 30_000,
            backoff_ms: 1_000,
            backoff_ms_max: 30_000,
            key_bytes_max: 64 << 10,
            content_bytes_max: 16 << 20,
            proposals_count_max: 10_000,
            proposals_bytes_max: 64 << 20,
            requests_count_max: 10_000,
            reads_count_max: 10_000,
            connection_bytes_max: 4 << 20,
            behind_count_max: 100_000,
            connections_count_max: 150,
            stream_bytes_max: 256 << 20,
            takes_states: false,
            takes_bare_states: false,
            replay_count_max: 100_000,
            applying_bytes_max: 4 << 20,
            applying_count_max: 10_000,
            counter_reserve: 1_000_000,
            notes_count_max: 1_000,
        }
    }

    /// Whether this node has a vote.
    pub fn is_voter(&self) -> bool {
        self.members.iter().any(|member| member.id == self.own.id)
    }

    /// Most connections at all. Beyond those of learners without a vote there are two for each member, which
    /// may come back before its old connection is known to be gone. A stranger makes room for who comes.
    pub fn connections_max(&self) -> usize {
        self.connections_count_max.saturating_add(2 * self.members.len())
    }

    /// Whether the settings fit together.
    ///
    /// # Errors
    ///
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.own.id.is_none() || self.members.is_empty() {
            return Err(ConfigError::Nobody);
        }
        for (at, member) in self.members.iter().enumerate() {
            let others = &self.members[..at];
            let is_same = |other: &&Member| {
                other.id == member.id
                    || other.election == member.election
                    || other.message == member.message
            };
            if member.id.is_none() || others.iter().any(|other| is_same(&other)) {
                return Err(ConfigError::Ambiguous { id: member.id });
            }
            let is_own = is_same(&&self.own);
            if is_own && *member != self.own {
                return Err(ConfigError::Ambiguous { id: member.id });
            }
        }
        for address in [&self.own.election, &self.own.message] {
            let host = address.as_str().rsplit_once(':').map_or("", |(host, _)| host);
            if ["", "0.0.0.0", "[::]", "::"].contains(&host) {
                return Err(ConfigError::Wildcard { address: address.clone() });
            }
        }
        let nodes = [&self.own].into_iter().chain(&self.members);
        if let Some(bytes) = nodes.map(|member| member.message.as_str().len()).max()
            && FID_BYTES_MAX < bytes
        {
            return Err(ConfigError::LongAddress { bytes });
        }
        if !self.quorums.is_sound(self.members.iter().map(|member| member.id)) {
            return Err(ConfigError::Quorums);
        }
        if self.is_leader_known && (self.is_voter() || self.members.len() != 1) {
            return Err(ConfigError::LeaderKnown);
        }
        if FRAME_CONTENT_BYTES_MAX < self.key_bytes_max.saturating_add(self.content_bytes_max) {
            return Err(ConfigError::TooLargeForFrames {
                bytes: self.key_bytes_max.saturating_add(self.content_bytes_max),
                bytes_max: FRAME_CONTENT_BYTES_MAX,
            });
        }
        let barrier_bytes = self.barrier_key.as_ref().map_or(0, |key| key.len() as u64);
        if self.key_bytes_max < barrier_bytes {
            let bytes_max = self.key_bytes_max;
            return Err(ConfigError::BarrierKey { bytes: barrier_bytes, bytes_max });
        }
        for (name, value) in [
            ("ballot_ms", self.ballot_ms),
            ("finalize_ms", self.finalize_ms),
            ("keepalive_ms", self.keepalive_ms),
            ("sync_timeout_ms", self.sync_timeout_ms),
            ("establish_timeout_ms", self.establish_timeout_ms),
            ("accept_timeout_ms", self.accept_timeout_ms),
            ("backoff_ms", self.backoff_ms),
            ("proposals_count_max", self.proposals_count_max as u64),
            ("requests_count_max", self.requests_count_max as u64),
            ("connection_bytes_max", self.connection_bytes_max),
            ("applying_count_max", self.applying_count_max),
            ("connections_count_max", self.connections_count_max as u64),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { name });
            }
        }
        if self.ballot_ms_max < self.ballot_ms || self.backoff_ms_max < self.backoff_ms {
            return Err(ConfigError::Inverted);
        }
        if self.behind_count_max < self.proposals_count_max as u64 {
            return Err(ConfigError::BehindTooSoon {
                behind: self.behind_count_max,
                proposals: self.proposals_count_max,
            });
        }
        if self.peer_silence_ms < self.keepalive_ms.saturating_mul(2) {
            return Err(ConfigError::SilenceTooSoon {
                silence: self.peer_silence_ms,
                keepalive: self.keepalive_ms,
            });
        }
        if self.counter_reserve == u32::MAX {
            return Err(ConfigError::ReserveTooLarge { reserve: self.counter_reserve });
        }
        Ok(())
    }
}

/// What key and content may take together, so that their frame stays below gometa's limit of 20 MiB.
pub(crate) const FRAME_CONTENT_BYTES_MAX: u64 = (20 << 20) - (4 << 10);

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No own id, or no members.
    #[error("a node needs an id other than 0 and an ensemble of at least one member")]
    Nobody,
    /// Two nodes share a name.
    #[error(
        "member {id} shares its id or an address with another, or differs from what it is itself"
    )]
    Ambiguous {
        /// The later of the two.
        id: NodeId,
    },
    /// An own address that does not say where this node is.
    #[error("address {address:?} names no host; give the one that others reach this node at")]
    Wildcard {
        /// The address.
        address: Address,
    },
    /// A message port's address that no leader takes for a name.
    #[error("the address of a message port has {bytes} bytes; it may have {FID_BYTES_MAX}")]
    LongAddress {
        /// Its length.
        bytes: usize,
    },
    /// The rule of quorums is none.
    #[error("the rule of quorums could elect two leaders at once, or none at all")]
    Quorums,
    /// Only a watcher of one member can know who leads.
    #[error("the leader is known only to a watcher of a single member")]
    LeaderKnown,
    /// Requests could be taken that no frame can carry.
    #[error("key and content may have {bytes} bytes together; a frame carries {bytes_max}")]
    TooLargeForFrames {
        /// Both limits together.
        bytes: u64,
        /// What a frame carries.
        bytes_max: u64,
    },
    /// The key of barriers is none that could be proposed.
    #[error("barrier_key has {bytes} bytes; a key may have {bytes_max}")]
    BarrierKey {
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A time or limit that must not be 0.
    #[error("{name} must not be 0")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// The longest wait is shorter than the shortest.
    #[error("the longest wait of ballots or of back-off is shorter than the first")]
    Inverted,
    /// A leader would give up its followers for what it proposes at once.
    #[error(
        "behind_count_max is {behind}, proposals_count_max {proposals}: whoever is sent all of these \
         would be given up"
    )]
    BehindTooSoon {
        /// How many entries a learner may be behind.
        behind: u64,
        /// How many may be proposed and not committed.
        proposals: usize,
    },
    /// Peers would be given up between two signs of life.
    #[error(
        "peer_silence_ms is {silence}, keepalive_ms {keepalive}: one lost sign of life would end a \
         connection; make it at least {}", keepalive.saturating_mul(2)
    )]
    SilenceTooSoon {
        /// The time after which a peer is given up.
        silence: u64,
        /// The time between signs of life.
        keepalive: u64,
    },
    /// Nothing could be proposed in an epoch.
    #[error("counter_reserve is {reserve}: all of an epoch")]
    ReserveTooLarge {
        /// The setting.
        reserve: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id: NodeId(id),
            election: format!("10.0.0.{id}:1").as_str().into(),
            message: format!("10.0.0.{id}:2").as_str().into(),
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        type Change = fn(&mut Config);
        let table: [(Change, Option<ConfigError>); 19] = [
            (|_| {}, None),
            (|c| c.own = member(9), None), // a watcher
            (|c| c.is_leader_known = true, Some(ConfigError::LeaderKnown)),
            (
                |c| {
                    c.own = member(9);
                    c.members.truncate(1);
                    c.is_leader_known = true;
                },
                None,
            ),
            (|c| c.members.clear(), Some(ConfigError::Nobody)),
            (|c| c.own.id = NodeId::NONE, Some(ConfigError::Nobody)),
            (|c| c.members[2].id = NodeId(2), Some(ConfigError::Ambiguous { id: NodeId(2) })),
            (
                |c| c.members[2].message = c.members[1].message.clone(),
                Some(ConfigError::Ambiguous { id: NodeId(3) }),
            ),
            (
                |c| c.members[0].election = "elsewhere:1".into(),
                Some(ConfigError::Ambiguous { id: NodeId(1) }),
            ),
            (
                |c| {
                    c.own = member(9);
                    c.own.election = "[::]:9998".into();
                },
                Some(ConfigError::Wildcard { address: "[::]:9998".into() }),
            ),
            (
                |c| c.members[1].message = "x".repeat(1025).as_str().into(),
                Some(ConfigError::LongAddress { bytes: 1025 }),
            ),
            (
                |c| c.content_bytes_max = 20 << 20,
                Some(ConfigError::TooLargeForFrames {
                    bytes: (20 << 20) + (64 << 10),
                    bytes_max: FRAME_CONTENT_BYTES_MAX,
                }),
            ),
            (
                |c| (c.barrier_key, c.key_bytes_max) = (Some("key".into()), 2),
                Some(ConfigError::BarrierKey { bytes: 3, bytes_max: 2 }),
            ),
            (|c| c.finalize_ms = 0, Some(ConfigError::Zero { name: "finalize_ms" })),
            (|c| c.ballot_ms = 501, Some(ConfigError::Inverted)),
            (
                |c| c.behind_count_max = 9_999,
                Some(ConfigError::BehindTooSoon { behind: 9_999, proposals: 10_000 }),
            ),
            (|c| c.backoff_ms_max = 999, Some(ConfigError::Inverted)),
            (
                |c| c.peer_silence_ms = 999,
                Some(ConfigError::SilenceTooSoon { silence: 999, keepalive: 500 }),
            ),
            (
                |c| c.counter_reserve = u32::MAX,
                Some(ConfigError::ReserveTooLarge { reserve: u32::MAX }),
            ),
        ];
        for (at, (change, want)) in table.into_iter().enumerate() {
            let mut config = Config::new(member(1), vec![member(1), member(2), member(3)]);
            change(&mut config);
            assert_eq!(config.check().err(), want, "row {at}");
        }
    }
}
