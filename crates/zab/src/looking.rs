//! A node without a leader: it holds a ballot, or, without a vote, asks.
//!
//! Whoever connects meanwhile may have finished the ballot first and have found that this node
//! won: it is kept waiting for as long as a ballot may still take, and no longer.

use crate::core::{Core, past};
use crate::election::Election;
use crate::note::{CloseReason, Note};
use crate::zab::Next;
use crate::{Address, ConnId, Epoch, Message, PeerStatus, Storage, Vote};

#[derive(Clone, Debug)]
pub(crate) struct Looking {
    /// When the ballot begins; nothing once it has, or if it never will.
    begin_at_ms: Option<u64>,
}

impl Looking {
    /// Begins a ballot after `wait_ms`.
    pub(crate) fn new<S: Storage>(core: &mut Core<S>, wait_ms: u64) -> Self {
        let is_voter = core.config.is_voter();
        if is_voter && core.hard_state.accepted_epoch == Epoch::LAST {
            // There is no epoch that this node, or anybody with its vote, could begin.
            core.note(Note::LastEpoch);
            return Looking { begin_at_ms: None };
        }
        Looking { begin_at_ms: Some(core.now_ms.saturating_add(wait_ms)) }
    }

    /// Begins the ballot if it is time, and looks after those who wait.
    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        self.close_those_who_waited(core);
        if self.begin_at_ms.is_some_and(|at| at <= core.now_ms) {
            return self.begin(core);
        }
        let winner = core.with_election(Election::tick);
        on_winner(core, winner)
    }

    fn begin<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        self.begin_at_ms = None;
        if core.config.is_leader_known {
            return Next::Follow(Box::new(core.config.members[0].clone()));
        }
        let winner = core.with_election(Election::start);
        core.note(Note::BallotStarted { round: core.election.round() });
        on_winner(core, winner)
    }

    /// Another member holds a ballot: this one's vote may be what it lacks, so it waits no longer.
    pub(crate) fn before_vote<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: &Address,
        vote: &Vote,
    ) -> Next {
        let is_ballot = vote.status == PeerStatus::Electing && !vote.solicit;
        let is_wanted = is_ballot && core.config.is_voter();
        match is_wanted && self.begin_at_ms.is_some() && core.member_by_election(from).is_some() {
            true => self.begin(core),
            false => Next::Stay,
        }
    }

    pub(crate) fn on_message<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: ConnId,
        message: Message,
    ) {
        let Some(conn) = core.conns.get_mut(&from) else { return };
        if conn.waiting.is_some() || !matches!(message, Message::FollowerInfo(_)) {
            // Nobody says more than its name before the leader has spoken.
            core.close(from, CloseReason::OutOfPlace(message.message_type()));
        } else {
            conn.waiting = Some(message);
        }
    }

    /// When the time alone next changes something.
    pub(crate) fn wake_ms<S>(&self, core: &Core<S>) -> u64 {
        let opened = core.conns.values().map(|conn| conn.opened_ms);
        let closes = opened.min().map_or(u64::MAX, |oldest| past(oldest, patience_ms(core)));
        let begins = self.begin_at_ms.unwrap_or(u64::MAX);
        closes.min(begins).min(core.election.wake_ms())
    }

    fn close_those_who_waited<S: Storage>(&mut self, core: &mut Core<S>) {
        let wait_ms = patience_ms(core);
        let late = core
            .conns
            .iter()
            .filter(|(_, conn)| conn.opened_ms.saturating_add(wait_ms) < core.now_ms);
        for conn in late.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            core.close(conn, CloseReason::Waiting);
        }
    }
}

/// How long a ballot may still take for those who have heard of its end already.
fn patience_ms<S>(core: &Core<S>) -> u64 {
    core.config.finalize_ms.saturating_mul(6) / 5 + 100
}

/// What follows from the end of a ballot.
pub(crate) fn on_winner<S: Storage>(core: &mut Core<S>, winner: Option<Address>) -> Next {
    let Some(address) = winner else { return Next::Stay };
    let round = core.election.winner().map_or(0, |winner| winner.round);
    core.note(Note::Elected { leader: address.clone(), round });
    if address == core.config.own.election {
        return Next::Lead;
    }
    let member = core.member_by_election(&address).cloned();
    Next::Follow(Box::new(member.expect("only members are voted for")))
}
