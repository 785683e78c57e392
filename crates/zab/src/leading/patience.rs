//! How long a leader waits for one of its learners, at each stage, and when it shows it a sign of life.

use bytes::Bytes;

use crate::core::{Conn, Core, past};
use crate::leading::{LeaderStage, Peer};
use crate::learner::{ask_whether_there, has_gone_silent, silent_at_ms};
use crate::note::CloseReason;
use crate::{ConnId, KEEP_ALIVE_FID, Message, Storage};

/// When the time alone next changes something with a peer: [`tick_peer`], foreseen.
pub(super) fn peer_wake_ms<S: Storage>(core: &Core<S>, conn: ConnId, peer: &Peer) -> u64 {
    let Some(open) = core.conns.get(&conn) else { return u64::MAX };
    let config = &core.config;
    let silence_ms = config.peer_silence_ms;
    let stuck_ms = open.stuck_since_ms().map_or(u64::MAX, |since_ms| past(since_ms, silence_ms));
    if peer.stage != LeaderStage::Live {
        return stuck_ms.min(synchronized_by_ms(core, open, peer).saturating_add(1));
    }
    let asked_ms = peer.asked_ms.filter(|_| peer.voter.is_some());
    let accepted_ms = asked_ms.map_or(u64::MAX, |since| past(since, config.accept_timeout_ms));
    let wake_ms = stuck_ms.min(accepted_ms);
    if peer.is_native() {
        return wake_ms.min(past(open.heard_ms, silence_ms));
    }
    let wake_ms = wake_ms.min(open.sent_ms.saturating_add(config.keepalive_ms));
    let Some(member) = core.member_by_message(&peer.fid).filter(|_| peer.voter.is_some()) else {
        return wake_ms;
    };
    let questioned_ms = peer.questioned_ms.saturating_add(config.keepalive_ms);
    let silent_ms = silent_at_ms(core, open, member, peer.is_silent_port_noted);
    wake_ms.min(questioned_ms).min(silent_ms)
}

/// The last moment by which a peer's synchronization must have gone on.
fn synchronized_by_ms<S: Storage>(core: &Core<S>, open: &Conn, peer: &Peer) -> u64 {
    let since_ms = match peer.stage {
        // It is this node that lets it wait.
        LeaderStage::AwaitEpoch | LeaderStage::AwaitQuorum => u64::MAX,
        // Proposals follow NewLeader at once, and may go on for ever: they are no progress.
        LeaderStage::AwaitHistory => {
            let asked_ms = peer.asked_ms.unwrap_or(u64::MAX);
            peer.progress_ms.max(open.written_ms).min(asked_ms)
        }
        _ => peer.progress_ms.max(open.written_ms),
    };
    since_ms.saturating_add(core.config.sync_timeout_ms)
}

/// Gives up a peer that takes part and is further behind than it may be; says whether it did. One that was
/// when its synchronization ended, and has caught up, may fall behind no further than others from then on:
/// not at the moment when it is as far behind as anybody may be, since what comes next might be too much.
pub(super) fn close_if_behind<S: Storage>(
    core: &mut Core<S>,
    conn: ConnId,
    peer: &mut Peer,
) -> bool {
    if peer.stage != LeaderStage::Live {
        return false;
    }
    let (lag, lag_max) = (peer.lag(core), core.config.behind_count_max);
    if lag <= lag_max / 2 {
        peer.lag_max = lag_max;
    }
    let is_behind = peer.lag_max < lag;
    if is_behind {
        core.close(conn, CloseReason::Behind);
    }
    is_behind
}

/// Gives up a peer that does not go on, and shows it a sign of life otherwise.
pub(super) fn tick_peer<S: Storage>(core: &mut Core<S>, conn: ConnId, peer: &mut Peer) {
    let now_ms = core.now_ms;
    let Some(open) = core.conns.get(&conn) else { return };
    let (heard_ms, sent_ms) = (open.heard_ms, open.sent_ms);
    let silence_ms = core.config.peer_silence_ms;
    if open.stuck_since_ms().is_some_and(|since| since.saturating_add(silence_ms) < now_ms) {
        core.close(conn, CloseReason::Full);
        return;
    }
    if peer.stage != LeaderStage::Live {
        if synchronized_by_ms(core, open, peer) < now_ms {
            core.close(conn, CloseReason::Silent);
        }
        return;
    }
    if peer.voter.is_some()
        && let Some(asked_ms) = peer.asked_ms
        && asked_ms.saturating_add(core.config.accept_timeout_ms) < now_ms
    {
        core.close(conn, CloseReason::NotAccepting);
        return;
    }
    if close_if_behind(core, conn, peer) {
        return;
    }
    if peer.is_native() {
        if heard_ms.saturating_add(silence_ms) < now_ms {
            core.close(conn, CloseReason::Silent);
        }
        return;
    }
    let keepalive_ms = core.config.keepalive_ms;
    if sent_ms.saturating_add(keepalive_ms) <= now_ms {
        let fid = KEEP_ALIVE_FID.into();
        let content = Some(Bytes::new());
        core.send(conn, Message::Response { request: 0, fid, error: String::new(), content });
    }
    // A watcher has no election port that would answer.
    let Some(member) = core.member_by_message(&peer.fid).filter(|_| peer.voter.is_some()).cloned()
    else {
        return;
    };
    if peer.questioned_ms.saturating_add(keepalive_ms) <= now_ms {
        peer.questioned_ms = now_ms;
        ask_whether_there(core, &member.election);
    }
    if has_gone_silent(core, conn, &member, &mut peer.is_silent_port_noted) {
        core.close(conn, CloseReason::Silent);
    }
}
