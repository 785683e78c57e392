//! What a learner does because it votes: it promises, and it vouches for what it holds.
//!
//! Everything else is the same for whoever follows (`learner.rs`).

use quorate_types::bug;

use crate::core::Core;
use crate::{Address, ConnId, Epoch, LeaveReason, Message, Storage, Zxid};

/// Promises to the leader's epoch, unless that was promised to somebody else or a later one was.
/// The promise binds from the moment it is durable; what vouches for it waits until then.
pub(crate) fn promise<S: Storage>(
    core: &mut Core<S>,
    epoch: Epoch,
    leader: &Address,
) -> Result<(), LeaveReason> {
    let accepted = core.hard_state.accepted_epoch;
    if accepted < epoch {
        core.accept_epoch(epoch, leader.clone());
        return Ok(());
    }
    // Two leaders of one epoch would give one id to two transactions.
    let is_its = core.hard_state.accepted_leader.as_ref() == Some(leader)
        || bug!("a-promise-to-another-leader-counts");
    match accepted == epoch && is_its {
        true => Ok(()),
        false => Err(LeaveReason::Epoch),
    }
}

/// Tells the leader that everything up to `zxid` is held, once it is durable.
pub(crate) fn accept<S: Storage>(core: &mut Core<S>, conn: ConnId, zxid: Zxid) {
    let fid = core.config.own.message.clone();
    core.send_held(conn, Message::Accept { zxid, fid });
}

/// A sign of life for a gometa leader: it takes no notice of an Accept of what is long committed.
pub(crate) fn keep_alive<S: Storage>(core: &mut Core<S>, conn: ConnId) {
    let fid = core.config.own.message.clone();
    core.send(conn, Message::Accept { zxid: Zxid::ZERO, fid });
}
