//! Which engine orders a group's commands, and what it must not forget.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use quorate_codec as codec;
use quorate_codec::DecodeError;
use quorate_types::Term;
use quorate_zab::Zxid;

/// The protocol that orders the commands of a group. All its members run the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Raft.
    #[default]
    Raft,
    /// ZAB.
    Zab,
}

impl Engine {
    /// Every one there is.
    pub const ALL: [Engine; 2] = [Engine::Raft, Engine::Zab];

    /// Its name, as settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Raft => "raft",
            Engine::Zab => "zab",
        }
    }

    /// The reign that an entry of this stamp is of: its term, or the epoch of its id.
    pub fn era(self, stamp: u64) -> Term {
        match self {
            Engine::Raft => Term(stamp),
            Engine::Zab => Term(Zxid(stamp).epoch().0.into()),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no engine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine {name:?}; it is raft or zab")]
pub struct UnknownEngine {
    /// The name.
    pub name: String,
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        let found = Engine::ALL.into_iter().find(|engine| engine.name() == name);
        found.ok_or_else(|| UnknownEngine { name: name.to_owned() })
    }
}

/// What an engine must not forget besides its log. It stands in the log, so it also tells whose
/// log that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HardState {
    /// Term, vote and commit index.
    Raft(quorate_raft::HardState),
    /// The epochs, whom they were promised to, and what is committed.
    Zab(quorate_zab::HardState),
}

impl Default for HardState {
    fn default() -> Self {
        HardState::Raft(quorate_raft::HardState::default())
    }
}

impl From<quorate_raft::HardState> for HardState {
    fn from(hard_state: quorate_raft::HardState) -> Self {
        HardState::Raft(hard_state)
    }
}

impl HardState {
    /// Whose it is.
    pub fn engine(&self) -> Engine {
        match self {
            HardState::Raft(_) => Engine::Raft,
            HardState::Zab(_) => Engine::Zab,
        }
    }

    /// As a record of the log.
    pub fn encode(&self) -> Bytes {
        match self {
            HardState::Raft(hard_state) => codec::encode_hard_state_record(hard_state),
            HardState::Zab(hard_state) => codec::encode_zab_hard_state_record(hard_state),
        }
    }

    /// From a record of the log, whichever engine wrote it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when neither engine wrote it, or a newer version did.
    pub fn decode(record: Bytes) -> Result<Self, DecodeError> {
        if codec::is_zab_hard_state_record(&record) {
            return codec::decode_zab_hard_state_record(record).map(HardState::Zab);
        }
        codec::decode_hard_state_record(record).map(HardState::Raft)
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{Index, NodeId};
    use quorate_zab::Epoch;

    use super::*;

    #[test]
    fn engines_have_names() {
        for engine in Engine::ALL {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        let unknown = "paxos".parse::<Engine>().unwrap_err();
        assert_eq!(unknown.to_string(), "there is no engine \"paxos\"; it is raft or zab");
    }

    #[test]
    fn a_hard_state_tells_whose_it_is() {
        let raft = quorate_raft::HardState { term: Term(5), vote: NodeId(2), commit: Index(9) };
        let zab = quorate_zab::HardState {
            accepted_epoch: Epoch(7),
            accepted_leader: Some("0000000000000002:m".into()),
            current_epoch: Epoch(6),
            committed: Zxid::new(Epoch(6), 12),
        };
        for hard_state in [
            HardState::Raft(raft),
            HardState::Raft(quorate_raft::HardState::default()),
            HardState::Zab(zab),
            HardState::Zab(quorate_zab::HardState::default()),
        ] {
            assert_eq!(HardState::decode(hard_state.encode()), Ok(hard_state));
        }
        for record in [&b""[..], b"\x02", b"\x81", b"\x82\0\0\0\0", b"\x81123456789012345\x01"] {
            assert!(HardState::decode(Bytes::from_static(record)).is_err(), "{record:?}");
        }
    }
}
