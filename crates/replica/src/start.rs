//! What a member's storage means when it starts: what is to be done first, and what the replica
//! goes on from.
//!
//! | log | state | means |
//! | --- | --- | --- |
//! | absent | absent, or never started | a new member: state and log are made, the log last |
//! | absent | with history, or it has started | the log is lost: what was acknowledged may be gone |
//! | present | absent or behind the log's mark | a snapshot was being installed: install it |
//! | present | at or after the mark | replay the log after the state |
//!
//! A member that joins a running cluster begins with a state that covers nothing and an empty log.

use bytes::Bytes;
use quorate_codec as codec;
use quorate_codec::DecodeError;
use quorate_raft::ConfState;
use quorate_types::{EntryId, Index, LogEntry, Mark, NodeId, Term, bug};
use quorate_zab::{Epoch, Zxid};

use crate::{Engine, HardState, Initial};

/// The first place of every log: all members of a new cluster begin with the same state.
pub const FIRST: (Index, Term) = (Index(1), Term(1));

/// What a member's storage holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where the log starts, if there is one.
    pub mark: Option<Index>,
    /// What the state covers, if there is one.
    pub applied: Option<Index>,
    /// Whether the member may have said a word to anyone.
    pub has_started: bool,
}

/// What is to be done before the replica starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Make the state, then the log: this is a new member.
    Make,
    /// Refuse: the log is gone, and with it what this member acknowledged.
    LogMissing {
        /// What the state covers.
        applied: Index,
    },
    /// Install the received snapshot of the log's mark, or refuse if it is not there.
    Install {
        /// Where the log starts.
        mark: Index,
        /// What the state covers; 0 for none.
        applied: Index,
    },
    /// Go on with both.
    Replay,
}

/// Reads the table above.
pub fn start(found: Found) -> Start {
    let applied = found.applied.unwrap_or_default();
    match found.mark {
        // The state of a new member covers the first place; one that covers more took part.
        None if bug!("a-lost-log-is-a-new-one") => Start::Make,
        None if FIRST.0 < applied || found.has_started => Start::LogMissing { applied },
        None => Start::Make,
        Some(_) if found.applied.is_some() && bug!("a-state-behind-the-log-is-believed") => {
            Start::Replay
        }
        Some(mark) if found.applied.is_none() || applied < mark => Start::Install { mark, applied },
        Some(_) => Start::Replay,
    }
}

/// The mark and the hard state that the log of a new member begins with.
pub fn first_log(engine: Engine) -> (Mark, Bytes) {
    let (index, term) = FIRST;
    let (stamp, hard_state) = match engine {
        Engine::Raft => {
            let default = quorate_raft::HardState::default();
            (term.0, HardState::Raft(quorate_raft::HardState { term, commit: index, ..default }))
        }
        Engine::Zab => {
            // No transaction has counter 0, so every other id of the first epoch follows this one.
            let epoch = Epoch(term.0 as u32);
            let first = Zxid::new(epoch, 0);
            let hard_state = quorate_zab::HardState {
                accepted_epoch: epoch,
                accepted_leader: None,
                current_epoch: epoch,
                committed: first,
            };
            (first.0, HardState::Zab(hard_state))
        }
    };
    (Mark { index, stamp, data: Bytes::new() }, hard_state.encode())
}

/// The place of the snapshot that a log of `engine` starts after, as the machine knows it: by the
/// term, or the epoch, of its last entry.
pub fn snapshot_at(mark: &Mark, engine: Engine) -> EntryId {
    EntryId { term: engine.era(mark.stamp), index: mark.index }
}

/// The membership that the state of a new member begins with, as its machine keeps it.
pub fn first_conf_state(mut voters: Vec<NodeId>) -> Bytes {
    voters.sort_unstable();
    codec::encode_conf_state_record(&ConfState { voters, ..ConfState::default() })
}

/// The mark and the hard state that the log of a member begins with that joins a running cluster.
/// It holds nothing, and no other log fits behind nothing: the leader sends it the state. For Raft
/// alone: with ZAB members are fixed.
pub fn joining_log() -> (Mark, Bytes) {
    (Mark::default(), HardState::default().encode())
}

/// The membership that the state of a joining member begins with: it counts nobody and cannot
/// campaign before it knows who the members are.
pub fn joining_conf_state() -> Bytes {
    codec::encode_conf_state_record(&ConfState::default())
}

impl Initial {
    /// What a log gave back, and a machine that covers it up to `applied`, under the membership that
    /// the machine keeps.
    ///
    /// # Errors
    ///
    /// When the records are not what this or an earlier version writes.
    pub fn recover(
        mark: Mark,
        hard_state: Option<Bytes>,
        entries: Vec<LogEntry>,
        applied: Index,
        conf_state: Bytes,
    ) -> Result<Initial, DecodeError> {
        Ok(Initial {
            mark,
            entries: entries.into_iter().map(codec::from_log_entry).collect::<Result<_, _>>()?,
            hard_state: hard_state.map(HardState::decode).transpose()?.unwrap_or_default(),
            applied,
            conf_state: codec::decode_conf_state_record(conf_state)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_storage_holds_says_how_to_start() {
        let replay = Start::Replay;
        let missing = |applied| Start::LogMissing { applied: Index(applied) };
        let install = |mark, applied| Start::Install { mark: Index(mark), applied: Index(applied) };
        for (mark, applied, has_started, want) in [
            (None, None, false, Start::Make),
            (None, Some(1), false, Start::Make), // the log was never finished
            (None, None, true, missing(0)),
            (None, Some(1), true, missing(1)),
            (None, Some(2), false, missing(2)),
            (Some(1), None, true, install(1, 0)),
            (Some(9), Some(8), true, install(9, 8)),
            (Some(9), Some(9), true, replay),
            (Some(1), Some(1), false, replay), // stopped before it was noted
            (Some(9), Some(12), true, replay),
        ] {
            let found = Found { mark: mark.map(Index), applied: applied.map(Index), has_started };
            assert_eq!(start(found), want, "{found:?}");
        }
    }

    #[test]
    fn a_new_member_goes_on_from_its_first_log() {
        for engine in Engine::ALL {
            let (mark, hard_state) = first_log(engine);
            assert_eq!(snapshot_at(&mark, engine), EntryId { term: FIRST.1, index: FIRST.0 });
            let conf_state = first_conf_state(vec![NodeId(3), NodeId(1)]);
            let initial =
                Initial::recover(mark, Some(hard_state), Vec::new(), FIRST.0, conf_state).unwrap();
            assert_eq!(initial.hard_state.engine(), engine);
            assert_eq!(initial.conf_state.voters, [NodeId(1), NodeId(3)]);
        }
        let nonsense = Bytes::from_static(b"\xffx");
        let mark = Mark::default();
        assert!(Initial::recover(mark, None, Vec::new(), FIRST.0, nonsense).is_err());
    }
}
