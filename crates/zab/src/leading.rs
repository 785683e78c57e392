//! The node that was elected: it gathers its three quorums, then orders transactions.
//!
//! ```text
//! elected ─► epoch settled ─► epoch promised ─► established ─► resigned, or quorum lost
//!            quorum 1          quorum 2, current  quorum 3: its history is committed,
//!            LeaderInfo        epoch durable      requests are taken
//! ```
//! Its messages step by step: each learner has a [`Peer`] (`leading/peer.rs`), which says how far
//! that one is. What goes to a learner once its plan is made comes out of the history, at the pace
//! its connection takes; nothing is queued twice and nobody waits for the slowest.
//!
//! Not here: the quorums themselves (`consent.rs`); requests, reads, and how long a learner is waited for
//! (`leading/requests.rs`, `reads.rs`, `patience.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_types::{Index, NodeId, bug};

use crate::consent::ConsentState;
use crate::core::{Core, past};
use crate::event::Fatal;
use crate::note::{CloseReason, Note, ResignReason};
use crate::zab::Next;
use crate::{
    Address, ConnId, Epoch, EpochAck, FollowerInfo, LeaderInfo, LeaveReason, Message, ReadId,
    Request, Role, SoftState, Storage, WriteId, Zxid,
};

mod patience;
mod peer;
mod reads;
mod requests;

use patience::{close_if_behind, peer_wake_ms, tick_peer};
pub use peer::LeaderStage;
pub(crate) use peer::Peer;
use reads::Reads;

#[derive(Clone, Debug)]
pub(crate) struct Leading {
    consent: ConsentState,
    peers: BTreeMap<ConnId, Peer>,
    /// How much of the history each voter holds durably, by its own word. It stays true when its
    /// connection ends.
    matched: BTreeMap<NodeId, Index>,
    /// What this leader's history was worth when it was elected.
    own_rank: (Epoch, Zxid),
    /// The end of the history that it was elected with.
    initial: Index,
    /// When it was elected, or the last of its quorums came about.
    quorum_ms: u64,
    /// With this write the current epoch is durable.
    epoch_write: WriteId,
    established_ms: Option<u64>,
    /// The counter of the last transaction of this epoch.
    counter: u32,
    /// Requests of learners that are faster than the own disk.
    waiting: VecDeque<(ConnId, Request)>,
    waiting_bytes: u64,
    /// Who asked for entries that are still on their way to somebody.
    origins: BTreeMap<Index, (Address, u64)>,
    /// Sizes of what is proposed and not committed.
    pending: VecDeque<(Index, u64)>,
    pending_bytes: u64,
    /// Since when it is about to give up its office.
    resigning_ms: Option<u64>,
    /// A voter came that can follow only in a later epoch.
    has_outbidder: bool,
    reads: Reads,
}

impl Leading {
    /// Takes office, with whoever is connected already.
    pub(crate) fn new<S: Storage>(core: &mut Core<S>) -> Result<(Self, Next), Fatal> {
        let accepted = core.hard_state.accepted_epoch;
        let proposed = accepted.next().expect("no ballot is held after the last epoch");
        let mut leading = Leading {
            consent: ConsentState::new(core.config.own.id, core.voters.clone(), proposed),
            peers: BTreeMap::new(),
            matched: BTreeMap::new(),
            own_rank: (core.hard_state.current_epoch, core.history.last_zxid()),
            initial: core.history.last(),
            quorum_ms: core.now_ms,
            epoch_write: WriteId(0),
            established_ms: None,
            counter: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            origins: BTreeMap::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            resigning_ms: None,
            has_outbidder: false,
            reads: Reads::default(),
        };
        let early: Vec<ConnId> = core.conns.keys().copied().collect();
        for conn in early {
            leading.on_accepted(core, conn);
            let waiting = core.conns.get_mut(&conn).and_then(|conn| conn.waiting.take());
            if let Some(message) = waiting
                && let next @ Next::Look(_) = leading.step(core, conn, message)?
            {
                return Ok((leading, next));
            }
        }
        Ok((leading, Next::Stay))
    }

    // Questions.

    pub(crate) fn soft_state<S>(&self, core: &Core<S>) -> SoftState {
        let is_serving = self.is_established();
        SoftState { role: Role::Leading, leader: core.config.own.id, is_serving }
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.consent.epoch()
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established_ms.is_some()
    }

    pub(crate) fn initial(&self) -> Index {
        self.initial
    }

    pub(crate) fn counter(&self) -> u32 {
        self.counter
    }

    pub(crate) fn own_rank(&self) -> (Epoch, Zxid) {
        self.own_rank
    }

    pub(crate) fn matched(&self) -> &BTreeMap<NodeId, Index> {
        &self.matched
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (ConnId, &Peer)> {
        self.peers.iter().map(|(conn, peer)| (*conn, peer))
    }

    /// For [`Zab::check`](crate::Zab::check): what waits here is bounded.
    pub(crate) fn check_bounds<S>(&self, core: &Core<S>) {
        let count_max = core.config.proposals_count_max;
        assert!(self.pending.len() <= count_max, "proposals are bounded");
        assert!(self.waiting.len() <= count_max, "requests that wait for the disk are bounded");
        // One alone always goes.
        let bytes_max = core.config.proposals_bytes_max;
        let fits = |count: usize, bytes: u64| count <= 1 || bytes <= bytes_max;
        let (pending, waiting) = (self.pending.len(), self.waiting.len());
        assert!(fits(pending, self.pending_bytes), "proposals are bounded in bytes");
        assert!(fits(waiting, self.waiting_bytes), "requests that wait are bounded in bytes");
        let origins = self.origins.len() as u64;
        let config = &core.config;
        let origins_max = config.behind_count_max.saturating_add(config.proposals_count_max as u64);
        assert!(origins <= origins_max, "who asked for entries is bounded");
        let reads = self.reads.count() + core.barriers.count();
        assert!(reads <= core.config.reads_count_max, "reads are bounded");
        let count_max = core.config.connections_count_max;
        assert!(self.voteless_count(core) <= count_max, "learners without a vote are bounded");
    }

    /// Connected followers that take part in the broadcast, and the leader itself.
    pub(crate) fn active_ensemble_size<S>(&self, core: &Core<S>) -> usize {
        self.live_voters(core).len()
    }

    fn live_voters<S>(&self, core: &Core<S>) -> BTreeSet<NodeId> {
        let connected = self.peers.iter().filter(|(conn, _)| core.conns.contains_key(conn));
        let live = connected.filter(|(_, peer)| peer.stage == LeaderStage::Live);
        live.filter_map(|(_, peer)| peer.voter).chain([core.config.own.id]).collect()
    }

    /// Learners without a vote that have introduced themselves.
    fn voteless_count<S>(&self, core: &Core<S>) -> usize {
        let connected = self.peers.iter().filter(|(conn, _)| core.conns.contains_key(conn));
        connected.filter(|(_, peer)| peer.is_known() && peer.voter.is_none()).count()
    }

    // What comes in.

    pub(crate) fn on_accepted<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId) {
        self.peers.insert(conn, Peer::new(core.now_ms));
    }

    /// A state is on its way to a learner, or is being installed there: until that is done it owes nothing,
    /// neither the end of its synchronization nor what was proposed since.
    pub(crate) fn on_progress<S: Storage>(&mut self, core: &Core<S>, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(&conn)
            && peer.stage == LeaderStage::AwaitHistory
        {
            peer.progress_ms = core.now_ms;
            peer.asked_ms = peer.asked_ms.map(|_| core.now_ms);
        }
    }

    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        message: Message,
    ) -> Result<Next, Fatal> {
        let Some(peer) = self.peers.get_mut(&conn) else {
            core.close(conn, CloseReason::Stray);
            return Ok(Next::Stay);
        };
        peer.progress_ms = core.now_ms;
        let (stage, kind) = (peer.stage, message.message_type());
        let is_live = stage == LeaderStage::Live;
        match message {
            Message::FollowerInfo(info) if stage == LeaderStage::AwaitInfo => {
                return Ok(self.on_info(core, conn, info));
            }
            Message::EpochAck(ack) if stage == LeaderStage::AwaitPromise => {
                return Ok(self.on_promise(core, conn, ack));
            }
            Message::NewLeaderAck if stage == LeaderStage::AwaitHistory => {
                self.on_history(core, conn);
            }
            // A sign of life of a watcher.
            Message::NewLeaderAck if is_live && peer.voter.is_none() => {}
            Message::Accept { zxid, fid } if is_live && peer.voter.is_some() => {
                self.on_accept(core, conn, zxid, &fid)?;
            }
            Message::Request(request) if is_live => self.on_request(core, conn, request),
            Message::Pong { number } if is_live => {
                if let Some(voter) = peer.voter {
                    self.reads.on_pong(voter, number);
                }
            }
            Message::ReadIndex { id } if is_live && peer.is_native() => {
                self.reads.ask_for_peer(core, conn, id, self.read_index(core));
            }
            // Before their stage, after it, or never for a leader.
            Message::FollowerInfo(_)
            | Message::EpochAck(_)
            | Message::NewLeaderAck
            | Message::Accept { .. }
            | Message::Request(_)
            | Message::Pong { .. }
            | Message::ReadIndex { .. }
            | Message::Vote(_)
            | Message::LeaderInfo(_)
            | Message::LogEntry(_)
            | Message::NewLeader { .. }
            | Message::Proposal(_)
            | Message::Commit { .. }
            | Message::Abort { .. }
            | Message::Response { .. }
            | Message::Ping { .. }
            | Message::Snapshot(_)
            | Message::ReadIndexReply { .. }
            | Message::Inform(_) => {
                core.close(conn, CloseReason::OutOfPlace(kind));
            }
        }
        Ok(Next::Stay)
    }

    /// A learner introduces itself.
    fn on_info<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        info: FollowerInfo,
    ) -> Next {
        let is_native = info.caps.is_some();
        let own = &core.config.own;
        let mut voter = None;
        let mut counts = true;
        if info.voting {
            let member = core.member_by_message(&info.fid).filter(|member| member.id != own.id);
            let Some(id) = member.map(|member| member.id) else {
                core.close(conn, CloseReason::NotVoter);
                return Next::Stay;
            };
            if !is_native {
                core.note(Note::GometaVoter { peer: info.fid.clone() });
                if !core.config.allow_gometa_voters {
                    core.close(conn, CloseReason::GometaVoter);
                    return Next::Stay;
                }
            }
            voter = Some(id);
            let accepted = info.accepted_epoch;
            match self.consent.epoch() {
                Some(epoch) if epoch < accepted => {
                    // It can never follow in this epoch.
                    self.has_outbidder = true;
                    core.close(conn, CloseReason::Outbid);
                    return self.while_in_reach(core);
                }
                Some(epoch) if epoch == accepted => {
                    // It has promised this epoch, and maybe not to this leader: then it must not be
                    // counted again, or two leaders could share the epoch.
                    counts = info.accepted_leader.as_ref() == Some(&core.config.own.message)
                        || bug!("a-promise-to-another-leader-counts");
                    // One of ours will not follow; a gometa follower will, and does no harm.
                    self.has_outbidder |= !counts && is_native;
                }
                _ => {}
            }
        }
        let same = |peer: &Peer| peer.fid == info.fid && peer.voter == voter && peer.is_known();
        let older = self.peers.iter().find(|(other, peer)| **other != conn && same(peer));
        if let Some((older, _)) = older {
            let older = *older;
            core.close(older, CloseReason::Replaced);
            self.forget(older);
        }
        match voter {
            Some(id) if !self.consent.on_info(id, info.accepted_epoch) => {
                core.close(conn, CloseReason::Outbid);
                return Next::Stay;
            }
            None if core.config.connections_count_max <= self.voteless_count(core) => {
                core.close(conn, CloseReason::TooMany);
                return Next::Stay;
            }
            _ => {}
        }
        if let Some(open) = core.conns.get_mut(&conn) {
            open.peer = Some(info.fid.clone());
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return Next::Stay };
        peer.fid = info.fid;
        peer.voter = voter;
        peer.caps = info.caps;
        peer.counts = counts;
        peer.stage = LeaderStage::AwaitEpoch;
        if counts { Next::Stay } else { self.while_in_reach(core) }
    }

    /// A learner has promised.
    fn on_promise<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId, ack: EpochAck) -> Next {
        let Some(peer) = self.peers.get_mut(&conn) else { return Next::Stay };
        if let Some(voter) = peer.voter
            && !self.consent.is_promised()
        {
            if self.own_rank < (ack.current_epoch, ack.logged) {
                // A leader must hold everything that its quorum holds.
                core.close(conn, CloseReason::Ahead);
                return self.while_in_reach(core);
            }
            if peer.counts {
                self.consent.on_promise(voter);
            }
        }
        peer.ack = ack;
        peer.stage = LeaderStage::AwaitQuorum;
        Next::Stay
    }

    /// A learner's history is this leader's.
    fn on_history<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.stage = LeaderStage::Live;
        let (lag, lag_max) = (peer.lag(core), core.config.behind_count_max);
        peer.lag_max = if lag_max < lag { lag.saturating_add(lag_max) } else { lag_max };
        peer.asked_ms = peer.asked_ms.map(|_| core.now_ms);
        let (fid, index) = (peer.fid.clone(), peer.sync_point);
        if let Some(voter) = peer.voter {
            // It vouches for all that was streamed, and for what it had before.
            let matched = self.matched.entry(voter).or_default();
            *matched = (*matched).max(index);
            self.consent.on_history(voter);
        }
        core.note(Note::Synchronized { peer: fid, index });
    }

    /// A follower vouches for everything up to `zxid`.
    fn on_accept<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        zxid: Zxid,
        fid: &Address,
    ) -> Result<(), Fatal> {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let Some(voter) = peer.voter.filter(|_| peer.fid == *fid) else {
            core.close(conn, CloseReason::BadAccept);
            return Ok(());
        };
        if zxid == Zxid::ZERO {
            return Ok(()); // a sign of life
        }
        let known = self.matched.get(&voter).copied().unwrap_or_default();
        let next = known.next();
        let is_next = next <= core.history.last()
            && core.history.known_zxid(next)?.is_some_and(|wanted| wanted == zxid);
        let index = match is_next {
            true => Some(next),
            false => core.history.place(zxid)?,
        };
        match index.filter(|index| *index <= peer.sent) {
            Some(index) => {
                if known < index {
                    self.matched.insert(voter, index);
                }
                peer.asked_ms = (index < peer.sent).then_some(core.now_ms);
            }
            // Late: committed long since, and no longer kept. It goes on, though.
            None if zxid <= core.committed_zxid()? => {
                let is_last = core.history.known_zxid(peer.sent)?.is_none_or(|sent| sent <= zxid);
                peer.asked_ms = (!is_last).then_some(core.now_ms);
            }
            None => core.close(conn, CloseReason::BadAccept),
        }
        Ok(())
    }

    /// A read of this node itself.
    pub(crate) fn read<S: Storage>(&mut self, core: &mut Core<S>, read: ReadId) {
        let index = self.read_index(core);
        self.reads.ask(core, read, index);
    }

    /// What may have been committed so far. Until it is established, that is all it was elected with: then
    /// nobody can commit anything but this leader.
    fn read_index<S>(&self, core: &Core<S>) -> Index {
        if self.is_established() { core.commit } else { self.initial }
    }

    // What follows.

    /// Everything that what has come in since may have made possible.
    pub(crate) fn advance<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Fatal> {
        if let next @ Next::Look(_) = self.sweep(core) {
            return Ok(next);
        }
        self.settle_epoch(core);
        self.settle_promise(core);
        self.establish(core);
        self.plan(core)?;
        self.advance_commit(core);
        while self.is_established()
            && let Some((conn, request)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= request.command.bytes();
            self.take_request(core, conn, request);
        }
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        self.reads.ping(core, &self.peers, self.is_established());
        self.propose_barrier(core);
        for conn in conns {
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.pump(core, conn, &self.origins)?;
            }
        }
        // A lone voter needs nobody's word.
        self.advance_commit(core);
        for (conn, peer) in &mut self.peers {
            close_if_behind(core, *conn, peer);
        }
        self.reads.answer(core, self.is_established());
        self.forget_origins(core);
        if self.may_go(core) {
            return Ok(Next::Look(LeaveReason::Resigned));
        }
        // Some may have been closed on the way.
        Ok(self.sweep(core))
    }

    /// Forgets learners whose connections are gone, and notices when too few are left.
    fn sweep<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        let gone = self.peers.keys().filter(|conn| !core.conns.contains_key(conn));
        let gone: Vec<ConnId> = gone.copied().collect();
        let mut has_lost_voter = false;
        for conn in gone {
            has_lost_voter |= self.forget(conn);
        }
        let is_quorum = || self.consent.is_quorum(&self.live_voters(core));
        match has_lost_voter && self.is_established() && !is_quorum() {
            true => Next::Look(LeaveReason::QuorumLost),
            false => Next::Stay,
        }
    }

    /// Says whether it was a voter.
    fn forget(&mut self, conn: ConnId) -> bool {
        let Some(peer) = self.peers.remove(&conn) else { return false };
        if let Some(voter) = peer.voter {
            self.consent.withdraw(voter);
        }
        peer.voter.is_some()
    }

    fn settle_epoch<S: Storage>(&mut self, core: &mut Core<S>) {
        let Some(epoch) = self.consent.settle_epoch() else { return };
        if core.hard_state.accepted_epoch < epoch {
            core.accept_epoch(epoch, core.config.own.message.clone());
            core.note(Note::EpochSettled { epoch });
            self.quorum_ms = core.now_ms;
        }
        for (conn, peer) in &mut self.peers {
            if peer.stage == LeaderStage::AwaitEpoch {
                // A gometa learner skips what it does not know.
                let caps = Some(match core.config.allow_gometa_voters {
                    true => crate::caps::ALL & !crate::caps::READ,
                    false => crate::caps::ALL,
                });
                core.send_held(*conn, Message::LeaderInfo(LeaderInfo { epoch, caps }));
                peer.stage = LeaderStage::AwaitPromise;
                peer.progress_ms = core.now_ms;
            }
        }
    }

    fn settle_promise<S: Storage>(&mut self, core: &mut Core<S>) {
        let Some(epoch) = self.consent.epoch() else { return };
        if self.consent.is_promised() || !self.consent.settle_promise() {
            return;
        }
        core.enter_epoch(epoch);
        self.epoch_write = core.next_durable();
        core.note(Note::EpochPromised { epoch });
        self.quorum_ms = core.now_ms;
    }

    /// Brings those up to date who have promised.
    fn plan<S: Storage>(&mut self, core: &mut Core<S>) -> Result<(), Fatal> {
        let is_established = self.is_established();
        for (conn, peer) in &mut self.peers {
            // Only then does this leader know all that is committed.
            let is_due = self.consent.is_promised() && (is_established || !peer.is_commit_only());
            let is_waiting = peer.stage == LeaderStage::AwaitQuorum;
            if is_due && is_waiting && core.conns.contains_key(conn) {
                peer.plan(core, *conn)?;
            }
        }
        Ok(())
    }

    /// Once a quorum holds what this leader was elected with, all of it is committed.
    fn establish<S: Storage>(&mut self, core: &mut Core<S>) {
        let Some(epoch) = self.consent.epoch() else { return };
        let is_ready = !self.is_established()
            && self.consent.is_promised()
            && core.is_durable(self.epoch_write)
            && self.initial <= core.history.durable()
            && self.consent.has_histories(&self.live_voters(core));
        if is_ready {
            assert!(core.history.last() == self.initial, "nothing is proposed before");
            self.established_ms = Some(core.now_ms);
            core.commit_to(self.initial);
            if bug!("a-new-leader-passes-over-its-history") {
                core.handed = self.initial;
            }
            core.note(Note::Established { epoch, initial: self.initial });
            self.reads.on_established();
        }
    }

    fn advance_commit<S: Storage>(&mut self, core: &mut Core<S>) {
        if !self.is_established() {
            return;
        }
        let (own, durable) = (core.config.own.id, core.history.durable());
        let held = |id| match id == own {
            true => Some(durable),
            false => self.matched.get(&id).copied(),
        };
        let committed = core.voters.committed_index(held);
        core.commit_to(committed.min(core.history.last()));
        while let Some((index, bytes)) = self.pending.front().copied()
            && index <= core.commit
        {
            self.pending.pop_front();
            self.pending_bytes -= bytes;
        }
    }

    /// Whether the voters that are connected, and may count, can still make a quorum; if not, this
    /// leadership ends at once, and the next epoch will be a greater one.
    fn while_in_reach<S: Storage>(&self, core: &Core<S>) -> Next {
        if self.consent.is_promised() {
            return Next::Stay;
        }
        let connected = self.peers.iter().filter(|(conn, _)| core.conns.contains_key(conn));
        let may_count =
            connected.filter(|(_, peer)| peer.counts).filter_map(|(_, peer)| peer.voter);
        match self.consent.is_quorum(&may_count.chain([core.config.own.id]).collect()) {
            true => Next::Stay,
            false => Next::Look(LeaveReason::OutOfReach),
        }
    }

    /// Whether it is about to give up its office and has nothing left to do. It waits for no watcher, and
    /// not for long until enough voters have heard what is committed: meanwhile nobody can write.
    fn may_go<S: Storage>(&self, core: &Core<S>) -> bool {
        let Some(since_ms) = self.resigning_ms else { return false };
        let is_done =
            self.is_established() && core.commit == core.history.last() && self.waiting.is_empty();
        let is_late = past(since_ms, core.config.accept_timeout_ms) <= core.now_ms;
        let heard = self.peers.values().filter(|peer| peer.has_heard_of_commit(core.commit));
        let heard = heard.filter_map(|peer| peer.voter).chain([core.config.own.id]);
        is_done && (is_late || self.consent.is_quorum(&heard.collect()))
    }

    fn forget_origins<S: Storage>(&mut self, core: &Core<S>) {
        let planned = self.peers.values().filter(|peer| LeaderStage::Streaming <= peer.stage);
        let slowest = planned.map(|peer| peer.sent.max(peer.sync_point)).min();
        let kept = slowest.unwrap_or(core.history.last()).next();
        // Who lags behind more than that has asked for nothing there. Some are told of what is committed only.
        let horizon = core.commit.min(core.history.last());
        let lag_max = core.config.behind_count_max.min(horizon.0);
        let kept = kept.max(Index(horizon.0 - lag_max).next());
        while let Some(first) = self.origins.first_entry()
            && *first.key() < kept
        {
            first.remove();
        }
    }

    // Time.

    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        let now_ms = core.now_ms;
        let establish_ms = core.config.establish_timeout_ms;
        match self.established_ms {
            None if self.quorum_ms.saturating_add(establish_ms) < now_ms => {
                return Next::Look(LeaveReason::NotEstablished);
            }
            Some(since_ms)
                if self.has_outbidder
                    && since_ms.saturating_add(core.config.outbid_ms) < now_ms =>
            {
                self.resign(core, ResignReason::Outbid);
            }
            _ => {}
        }
        self.reads.tick(core);
        for (conn, peer) in &mut self.peers {
            tick_peer(core, *conn, peer);
        }
        Next::Stay
    }

    /// When the time alone next changes something.
    pub(crate) fn wake_ms<S: Storage>(&self, core: &Core<S>) -> u64 {
        let office_ms = match self.established_ms {
            None => past(self.quorum_ms, core.config.establish_timeout_ms),
            Some(since_ms) if self.has_outbidder && self.resigning_ms.is_none() => {
                past(since_ms, core.config.outbid_ms)
            }
            // After that it waits for what it has proposed alone, and not for a time.
            Some(_) => self.resigning_ms.map_or(u64::MAX, |since_ms| {
                let late_ms = past(since_ms, core.config.accept_timeout_ms);
                if core.now_ms < late_ms { late_ms } else { u64::MAX }
            }),
        };
        let peers = self.peers.iter().map(|(conn, peer)| peer_wake_ms(core, *conn, peer));
        peers.fold(office_ms.min(self.reads.wake_ms(core)), u64::min)
    }

    pub(crate) fn lose_reads<S: Storage>(&mut self, core: &mut Core<S>) {
        self.reads.lose(core);
    }
}
