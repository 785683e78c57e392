//! What a learner does because it has no vote: it only remembers epochs, and it comes back after a
//! while instead of holding an election.
//!
//! Everything else is the same for whoever follows (`learner.rs`).

use crate::core::Core;
use crate::{Address, ConnId, Epoch, LeaveReason, Message, Storage};

/// Remembers the highest epoch seen, so that a leader of the past is not followed. It is no promise:
/// nobody counts it.
pub(crate) fn promise<S: Storage>(
    core: &mut Core<S>,
    epoch: Epoch,
    leader: &Address,
) -> Result<(), LeaveReason> {
    let accepted = core.hard_state.accepted_epoch;
    if accepted < epoch {
        core.accept_epoch(epoch, leader.clone());
    }
    if epoch < accepted { Err(LeaveReason::Epoch) } else { Ok(()) }
}

/// A sign of life for a gometa leader, which must not be an Accept. It costs the leader a line of
/// its log, so it comes rarely.
pub(crate) fn keep_alive<S: Storage>(core: &mut Core<S>, conn: ConnId) {
    core.send(conn, Message::NewLeaderAck);
}

/// How much rarer the signs of life of a watcher are than those of a follower.
pub(crate) const KEEP_ALIVE_FACTOR: u64 = 10;
