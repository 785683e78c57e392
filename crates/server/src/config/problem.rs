//! What can be wrong with settings, in words that say what would help.

use std::fmt;

use super::ELECTION_HEARTBEATS_MIN;
use crate::urls::UrlError;

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such setting.
    #[error("{origin}: no setting {name:?}{}", hint.map(|hint| format!("; did you mean {hint:?}?")).unwrap_or_default())]
    Unknown {
        /// Where it was given.
        origin: String,
        /// Its name.
        name: String,
        /// A setting that is called almost so.
        hint: Option<&'static str>,
    },
    /// A value of another type.
    #[error("{origin}: {value:?} is not {want}")]
    NotA {
        /// Where it was given.
        origin: String,
        /// What was given.
        value: String,
        /// What is needed.
        want: &'static str,
    },
    /// No text where some is needed.
    #[error("{origin}: it is empty; leave it out for the default")]
    Empty {
        /// Where it was given.
        origin: String,
    },
    /// A number that cannot work.
    #[error("{origin}: {value} is out of range; use {min} to {max}")]
    OutOfRange {
        /// Where it was given.
        origin: String,
        /// What was given.
        value: u64,
        /// The least that works.
        min: u64,
        /// The most that works.
        max: u64,
    },
    /// A URL that cannot be used.
    #[error("{origin}: {error}")]
    Url {
        /// Where it was given.
        origin: String,
        /// What is wrong with it.
        error: UrlError,
    },
    /// One URL twice in one list.
    #[error("{origin}: {url} is there twice")]
    UrlTwice {
        /// Where it was given.
        origin: String,
        /// The URL.
        url: String,
    },
    /// Clients and peers on one port.
    #[error("--listen-client-urls and --listen-peer-urls both name {url}; use two ports")]
    SharedListener {
        /// The URL.
        url: String,
    },
    /// Clients would be told the default, where nobody may listen.
    #[error(
        "--listen-client-urls is given without --advertise-client-urls: what should clients be told \
         to connect to? Try --advertise-client-urls {listen}"
    )]
    AdvertiseMissing {
        /// What is listened on.
        listen: String,
    },
    /// Elections before a leader can show itself.
    #[error(
        "--election-timeout is {election} ms, --heartbeat-interval {heartbeat} ms: a few late \
         heartbeats would start an election; make the timeout at least {} ms",
        heartbeat.saturating_mul(ELECTION_HEARTBEATS_MIN)
    )]
    ElectionTooSoon {
        /// Election timeout in ms.
        election: u64,
        /// Heartbeat interval in ms.
        heartbeat: u64,
    },
    /// A name that cannot stand in `--initial-cluster`, or in a path.
    #[error("{origin}: {name:?} cannot be a member's name: {why}")]
    Name {
        /// Where it was given.
        origin: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An element of `--initial-cluster` without a name.
    #[error(
        "{origin}: {part:?} is not NAME=URL; write the list as n1=http://h1:2380,n2=http://h2:2380"
    )]
    ClusterSyntax {
        /// Where it was given.
        origin: String,
        /// The element.
        part: String,
    },
    /// This node is not in its own cluster.
    #[error(
        "--initial-cluster names {names}, and not this member, {name:?}; add {name}=<its peer URL>, \
         or set --name"
    )]
    ClusterWithoutSelf {
        /// The names in it.
        names: String,
        /// This node's.
        name: String,
    },
    /// Members change, with an engine whose members are fixed.
    #[error(
        "{flag} does not go with --engine zab, whose members are fixed when the cluster is made; leave \
         it out, or run --engine raft"
    )]
    FixedMembers {
        /// The flag, with its value.
        flag: &'static str,
    },
    /// Others would be told one address, and this node another.
    #[error(
        "--initial-cluster gives {name} the peer URLs {listed}, --initial-advertise-peer-urls says \
         {advertised}; they must be the same"
    )]
    ClusterUrlsDiffer {
        /// This node's name.
        name: String,
        /// Its URLs in the list.
        listed: String,
        /// The URLs it advertises.
        advertised: String,
    },
    /// Something that is made of parts, of which one is wrong.
    #[error("{origin}: {why}")]
    Part {
        /// Where it was given.
        origin: String,
        /// Which one, and why.
        why: String,
    },
    /// The file cannot be used.
    #[error("config file {path}: {why}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
}

/// Everything that is wrong with the settings; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<ConfigError>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
