//! How long a learner waits for its leader, and how it shows a gometa leader that it is there.

use super::{FollowerStage, Learner};
use crate::core::{Conn, Core, past};
use crate::note::Note;
use crate::zab::Next;
use crate::{ConnId, LeaveReason, Member, Storage, following, observing};

impl Learner {
    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        let now_ms = core.now_ms;
        let own = self.conn.and_then(|conn| core.conns.get(&conn));
        if let Some(since_ms) = own.and_then(Conn::awaits_own_disk_since_ms) {
            // The leader waits, too: that it says nothing is not its fault. But it waits no longer
            // than this; after that it has given this node up, or is gone itself.
            let until_ms = since_ms.saturating_add(core.config.sync_timeout_ms);
            self.progress_ms = self.progress_ms.max(now_ms.min(until_ms));
        }
        if let Some(own) = own
            && core.history.is_installing()
        {
            // A state may well take longer than that. A leader that still says something waits for it.
            self.progress_ms = self.progress_ms.max(own.heard_ms);
        }
        if self.stage != FollowerStage::Done {
            let deadline_ms = self.progress_ms.saturating_add(core.config.sync_timeout_ms);
            return match deadline_ms < now_ms {
                true => Next::Look(LeaveReason::TimedOut),
                false => Next::Stay,
            };
        }
        core.excuse_leader();
        if self.barrier_by_ms(core) <= now_ms {
            return Next::Look(LeaveReason::TimedOut);
        }
        let Some(conn) = self.conn else { return Next::Stay };
        let Some(own) = core.conns.get(&conn) else { return Next::Stay };
        let (heard_ms, sent_ms) = (own.heard_ms, own.sent_ms);
        // Whatever waits for the disk will be one, and another would wait behind it.
        let is_holding = own.is_holding();
        let silence_ms = core.config.peer_silence_ms;
        if self.is_native() {
            let since_ms = heard_ms.max(self.progress_ms);
            return match since_ms.saturating_add(silence_ms) < now_ms {
                true => Next::Look(LeaveReason::Silent),
                false => Next::Stay,
            };
        }
        let keepalive_ms = core.config.keepalive_ms;
        if self.asked_ms.saturating_add(keepalive_ms) <= now_ms {
            self.asked_ms = now_ms;
            ask_whether_there(core, &self.leader.election);
        }
        let factor = if self.voting { 1 } else { observing::KEEP_ALIVE_FACTOR };
        if !is_holding && sent_ms.saturating_add(keepalive_ms.saturating_mul(factor)) <= now_ms {
            match self.voting {
                true => following::keep_alive(core, conn),
                false => observing::keep_alive(core, conn),
            }
        }
        match has_gone_silent(core, conn, &self.leader, &mut self.is_silent_port_noted) {
            true => Next::Look(LeaveReason::Silent),
            false => Next::Stay,
        }
    }

    /// When the time alone next changes something.
    pub(crate) fn wake_ms<S>(&self, core: &Core<S>) -> u64 {
        let config = &core.config;
        if self.stage != FollowerStage::Done {
            return past(self.progress_ms, config.sync_timeout_ms);
        }
        let Some(own) = self.conn.and_then(|conn| core.conns.get(&conn)) else { return u64::MAX };
        let barrier_ms = self.barrier_by_ms(core);
        if self.is_native() {
            let silent_ms = past(own.heard_ms.max(self.progress_ms), config.peer_silence_ms);
            return silent_ms.min(barrier_ms);
        }
        let factor = if self.voting { 1 } else { observing::KEEP_ALIVE_FACTOR };
        let shown_ms = own.sent_ms.saturating_add(config.keepalive_ms.saturating_mul(factor));
        let shown_ms = if own.is_holding() { u64::MAX } else { shown_ms };
        let asked_ms = self.asked_ms.saturating_add(config.keepalive_ms);
        let silent_ms = silent_at_ms(core, own, &self.leader, self.is_silent_port_noted);
        asked_ms.min(shown_ms).min(silent_ms).min(barrier_ms)
    }

    /// When its leader is given up if it has not committed what reads of this node wait for.
    fn barrier_by_ms<S>(&self, core: &Core<S>) -> u64 {
        core.barriers.since_ms().map_or(u64::MAX, |since_ms| {
            past(since_ms.max(self.established_by_ms), core.config.accept_timeout_ms)
        })
    }
}

/// Asks a gometa peer on its election port: whoever leads or follows answers.
pub(crate) fn ask_whether_there<S: Storage>(core: &mut Core<S>, address: &crate::Address) {
    let standing = core.standing();
    let vote = core.election.question(standing);
    core.ready.datagrams.push((address.clone(), vote));
}

/// Whether a gometa peer has neither answered nor said anything for too long. One whose election
/// port never answered since it connected has only its connection to show that it lives: its silence
/// means nothing.
pub(crate) fn has_gone_silent<S: Storage>(
    core: &mut Core<S>,
    conn: ConnId,
    peer: &Member,
    is_noted: &mut bool,
) -> bool {
    let Some(of) = core.conns.get(&conn) else { return true };
    let (opened_ms, heard_ms) = (of.opened_ms, of.heard_ms);
    let silence_ms = core.config.peer_silence_ms;
    let answered_ms = core.answered_ms.get(&peer.election).copied();
    match answered_ms.filter(|answered_ms| opened_ms <= *answered_ms) {
        Some(answered_ms) => heard_ms.max(answered_ms).saturating_add(silence_ms) < core.now_ms,
        None => {
            let is_late = opened_ms.saturating_add(silence_ms) < core.now_ms;
            if is_late && !std::mem::replace(is_noted, true) {
                core.note(Note::ElectionPortSilent { peer: peer.election.clone() });
            }
            false
        }
    }
}

/// When [`has_gone_silent`] next finds something, if nothing comes.
pub(crate) fn silent_at_ms<S>(core: &Core<S>, of: &Conn, peer: &Member, is_noted: bool) -> u64 {
    let silence_ms = core.config.peer_silence_ms;
    let answered_ms = core.answered_ms.get(&peer.election).copied();
    match answered_ms.filter(|answered_ms| of.opened_ms <= *answered_ms) {
        Some(answered_ms) => past(of.heard_ms.max(answered_ms), silence_ms),
        None if is_noted => u64::MAX,
        None => past(of.opened_ms, silence_ms),
    }
}
