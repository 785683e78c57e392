//! Whoever follows: discovery and synchronization with the leader, then the broadcast.
//!
//! ```text
//! Connecting ───► ReceiveEpoch ──► SyncReceive ──► ReceiveNewLeader ──► Done
//!   connected;      LeaderInfo;      entries,        NewLeader;           Proposals,
//!   FollowerInfo    EpochAck         end marker      NewLeaderAck         Commits
//! ```
//! A native leader says what may be kept and streams the rest in order, so entries are settled as
//! they come: what is the same stays, and at the first difference everything that follows is
//! replaced. What a gometa leader streams may be in any order and is held until its end.
//!
//! Nothing of an unfinished stream is committed or counts as this epoch's history. Whatever does not
//! fit ends the followership; the next one begins with another election.
//!
//! Not here: what a stream does to the history (`learner/sync.rs`); how long the leader is waited for
//! (`learner/time.rs`); what follows from having a vote (`following.rs`) or none (`observing.rs`).

use std::collections::BTreeMap;

use quorate_types::{Index, bug};

use crate::core::Core;
use crate::event::Fatal;
use crate::note::Note;
use crate::zab::Next;
use crate::{
    Command, Config, ConnId, Epoch, EpochAck, FollowerInfo, LeaderInfo, LeaveReason, Member,
    Message, Outcome, Proposal, ReadFailure, ReadId, Request, Role, SoftState, Storage, Zxid, caps,
    following, observing,
};

mod sync;
mod time;

pub(crate) use time::{ask_whether_there, has_gone_silent, silent_at_ms};

/// How far a learner is. gometa's `FollowerStageCode`, with the connection as a stage of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FollowerStage {
    /// The connection is being made.
    Connecting,
    /// It has introduced itself, and waits for the epoch.
    ReceiveEpoch,
    /// It has promised, and receives what it lacks.
    SyncReceive,
    /// It has everything, and waits for the epoch to begin.
    ReceiveNewLeader,
    /// It takes part in the broadcast.
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Learner {
    voting: bool,
    leader: Member,
    conn: Option<ConnId>,
    stage: FollowerStage,
    /// What LeaderInfo said; everything after it must be of this epoch.
    epoch: Epoch,
    caps: Option<u64>,
    /// When something last went on.
    progress_ms: u64,
    /// The last place known to be the same as the leader's.
    cursor: Index,
    awaits_snapshot: bool,
    /// The leader's last committed id, by its markers.
    stream_committed: Zxid,
    /// What a gometa leader streams.
    collected: BTreeMap<Zxid, Command>,
    collected_bytes: u64,
    is_unordered: bool,
    stream_last: Zxid,
    starts_at_zero: bool,
    /// By then its leader is established, or has given up.
    established_by_ms: u64,
    /// When a gometa leader was last asked whether it is there.
    asked_ms: u64,
    is_silent_port_noted: bool,
}

impl Learner {
    /// Begins to follow.
    pub(crate) fn new<S: Storage>(core: &mut Core<S>, leader: Member) -> Self {
        core.ready.connect.push(leader.message.clone());
        Learner {
            voting: core.config.is_voter(),
            leader,
            conn: None,
            stage: FollowerStage::Connecting,
            epoch: Epoch(0),
            caps: None,
            progress_ms: core.now_ms,
            cursor: Index(0),
            awaits_snapshot: false,
            stream_committed: Zxid::ZERO,
            collected: BTreeMap::new(),
            collected_bytes: 0,
            is_unordered: false,
            stream_last: Zxid::ZERO,
            starts_at_zero: false,
            established_by_ms: 0,
            asked_ms: core.now_ms,
            is_silent_port_noted: false,
        }
    }

    pub(crate) fn stage(&self) -> FollowerStage {
        self.stage
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn leader(&self) -> &Member {
        &self.leader
    }

    pub(crate) fn is_waiting_for(&self, address: &crate::Address) -> bool {
        self.conn.is_none() && self.leader.message == *address
    }

    pub(crate) fn is_on(&self, conn: ConnId) -> bool {
        self.conn == Some(conn)
    }

    /// Whether it was closed on this side, because it took nothing any more.
    pub(crate) fn has_lost_connection<S>(&self, core: &Core<S>) -> bool {
        self.conn.is_some_and(|conn| !core.conns.contains_key(&conn))
    }

    pub(crate) fn soft_state(&self) -> SoftState {
        let role = if self.voting { Role::Following } else { Role::Observing };
        let is_serving = self.stage == FollowerStage::Done;
        SoftState { role, leader: self.leader.id, is_serving }
    }

    /// For [`Zab::check`](crate::Zab::check): what is held of a stream is bounded.
    pub(crate) fn check_bounds<S>(&self, core: &Core<S>) {
        assert!(self.collected_bytes <= core.config.stream_bytes_max, "a stream is bounded");
    }

    fn is_native(&self) -> bool {
        self.caps.is_some()
    }

    /// Whether it is sent committed entries only, and has none but such.
    pub(crate) fn is_commit_only<S>(&self, core: &Core<S>) -> bool {
        wants_commits_only(&core.config) && self.caps.unwrap_or(0) & caps::COMMIT_ONLY != 0
    }

    pub(crate) fn on_connected<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId) {
        self.conn = Some(conn);
        self.stage = FollowerStage::ReceiveEpoch;
        self.progress_ms = core.now_ms;
        let info = FollowerInfo {
            accepted_epoch: core.hard_state.accepted_epoch,
            fid: core.config.own.message.clone(),
            voting: self.voting,
            caps: Some(match wants_commits_only(&core.config) {
                true => caps::ALL,
                false => caps::ALL & !caps::COMMIT_ONLY,
            }),
            accepted_leader: core.hard_state.accepted_leader.clone(),
        };
        core.send(conn, Message::FollowerInfo(info));
    }

    /// Something longer than a message is on its way.
    pub(crate) fn on_progress<S: Storage>(&mut self, core: &Core<S>, conn: ConnId) {
        if self.conn == Some(conn) {
            self.progress_ms = core.now_ms;
        }
    }

    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        message: Message,
    ) -> Result<Next, Fatal> {
        if self.conn != Some(conn) {
            return Ok(Next::Stay);
        }
        self.progress_ms = core.now_ms;
        let kind = message.message_type();
        let out_of_place = Ok(Next::Look(LeaveReason::OutOfPlace(kind)));
        let is_done = self.stage == FollowerStage::Done;
        let is_informed = is_done && self.is_commit_only(core);
        match message {
            Message::LeaderInfo(info) if self.stage == FollowerStage::ReceiveEpoch => {
                self.on_leader_info(core, conn, &info)
            }
            Message::LogEntry(entry) if self.stage == FollowerStage::SyncReceive => {
                self.on_log_entry(core, entry)
            }
            Message::Snapshot(snapshot) if self.awaits_snapshot => self.on_snapshot(core, snapshot),
            Message::NewLeader { epoch } if self.stage == FollowerStage::ReceiveNewLeader => {
                self.on_new_leader(core, conn, epoch)
            }
            Message::Inform(proposal) if is_informed => self.on_inform(core, proposal),
            Message::Proposal(proposal) if is_done && !is_informed => {
                self.on_proposal(core, conn, proposal)
            }
            Message::Commit { zxid } if is_done && !is_informed => self.on_commit(core, zxid),
            Message::Abort { request, fid, error } if is_done => {
                if fid == core.config.own.message {
                    let answer = core.requests.end(request, Outcome::Refused { reason: error });
                    core.ready.answers.extend(answer);
                }
                Ok(Next::Stay)
            }
            Message::Response { request, fid, error, content } if is_done => {
                // To another name it is a sign of life.
                if fid == core.config.own.message {
                    let answer = core.requests.end(request, Outcome::Answered { error, content });
                    core.ready.answers.extend(answer);
                }
                Ok(Next::Stay)
            }
            Message::Ping { number } if is_done => {
                core.send(conn, Message::Pong { number });
                Ok(Next::Stay)
            }
            Message::ReadIndexReply { id, index } if is_done => {
                if let Some(read) = core.reads.remove(&id) {
                    let answer = index.ok_or(ReadFailure::NoLeader);
                    core.ready.reads.push((read, answer));
                }
                Ok(Next::Stay)
            }
            // Before their stage, after it, or never for a learner.
            Message::LeaderInfo(_)
            | Message::LogEntry(_)
            | Message::Snapshot(_)
            | Message::NewLeader { .. }
            | Message::Proposal(_)
            | Message::Commit { .. }
            | Message::Abort { .. }
            | Message::Response { .. }
            | Message::Ping { .. }
            | Message::ReadIndexReply { .. }
            | Message::Vote(_)
            | Message::FollowerInfo(_)
            | Message::EpochAck(_)
            | Message::NewLeaderAck
            | Message::Request(_)
            | Message::Accept { .. }
            | Message::Pong { .. }
            | Message::ReadIndex { .. }
            | Message::Inform(_) => out_of_place,
        }
    }

    // Discovery.

    fn on_leader_info<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        info: &LeaderInfo,
    ) -> Result<Next, Fatal> {
        let leader = self.leader.message.clone();
        if self.voting && info.caps.is_none() {
            core.note(Note::GometaVoter { peer: leader.clone() });
            if !core.config.allow_gometa_voters {
                return Ok(Next::Look(LeaveReason::GometaLeader));
            }
        }
        let promise = match self.voting {
            true => following::promise(core, info.epoch, &leader),
            false => observing::promise(core, info.epoch, &leader),
        };
        if let Err(why) = promise {
            return Ok(Next::Look(why));
        }
        self.epoch = info.epoch;
        self.caps = info.caps;
        self.stage = FollowerStage::SyncReceive;
        self.cursor = core.commit;
        let committed = core.committed_zxid()?;
        let ack = if self.is_native() {
            let logged = core.history.last_zxid();
            EpochAck {
                logged,
                current_epoch: core.hard_state.current_epoch,
                committed: Some(committed),
            }
        } else {
            // Where its stream shall begin, nothing else: all that is not committed is to come
            // again, since nothing else would settle it. A watcher cannot know that such a leader
            // keeps its log, so it asks for all.
            self.starts_at_zero = !self.voting || core.wants_all;
            let logged = if self.starts_at_zero { Zxid::ZERO } else { committed };
            let current_epoch = core.hard_state.current_epoch;
            EpochAck { logged, current_epoch, committed: Some(committed) }
        };
        core.send_held(conn, Message::EpochAck(ack));
        Ok(Next::Stay)
    }

    fn on_new_leader<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        epoch: Epoch,
    ) -> Result<Next, Fatal> {
        if epoch != self.epoch {
            return Ok(Next::Look(LeaveReason::Epoch));
        }
        core.enter_epoch(epoch);
        core.send_held(conn, Message::NewLeaderAck);
        self.stage = FollowerStage::Done;
        self.established_by_ms = core.now_ms.saturating_add(core.config.establish_timeout_ms);
        self.asked_ms = core.now_ms;
        core.wants_all = false;
        if let Some(index) = core.history.place_at_most(self.stream_committed)? {
            core.commit_to(index);
        }
        core.note(Note::Joined { leader: self.leader.id, epoch });
        Ok(Next::Stay)
    }

    // Broadcast.

    fn on_proposal<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        proposal: Proposal,
    ) -> Result<Next, Fatal> {
        let Proposal { zxid, fid, request, command } = proposal;
        let last = core.history.last_zxid();
        if zxid.epoch() != self.epoch {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        let index = if zxid <= last {
            let Some(index) = core.history.place(zxid)? else {
                return Ok(Next::Look(LeaveReason::Gap));
            };
            let first = core.history.first()?;
            if first <= index && core.history.entry(index)?.command != command {
                core.note(Note::Diverged { zxid });
                return Ok(Next::Look(LeaveReason::Diverged));
            }
            index
        } else if zxid.follows(last) || (!self.voting && !self.is_native()) || believes_in_holes() {
            // A gometa leader leaves out what it refused; that concerns voters only, who might
            // lead with this history.
            core.history.append(zxid, command)
        } else {
            return Ok(Next::Look(LeaveReason::Gap));
        };
        if fid == core.config.own.message {
            core.requests.on_proposal(request, index, zxid);
        }
        if self.voting {
            following::accept(core, conn, zxid);
        }
        Ok(Next::Stay)
    }

    /// A transaction that is committed, and with it all before it.
    fn on_inform<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        proposal: Proposal,
    ) -> Result<Next, Fatal> {
        let Proposal { zxid, fid, request, command } = proposal;
        let last = core.history.last_zxid();
        // What the leader was elected with may have been committed by it only now.
        let is_next = match zxid.epoch() == self.epoch {
            true => zxid.follows(last),
            false => last < zxid && zxid.epoch() < self.epoch,
        };
        if !is_next {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        let index = core.history.append(zxid, command);
        if fid == core.config.own.message {
            core.requests.on_proposal(request, index, zxid);
        }
        core.commit_to(index);
        Ok(Next::Stay)
    }

    fn on_commit<S: Storage>(&mut self, core: &mut Core<S>, zxid: Zxid) -> Result<Next, Fatal> {
        if zxid <= core.committed_zxid()? {
            return Ok(Next::Stay);
        }
        // Most often it is the next one.
        let next = core.commit.next();
        if next <= core.history.last() && core.history.zxid(next)? == zxid {
            core.commit_to(next);
            return Ok(Next::Stay);
        }
        match core.history.place(zxid)? {
            Some(index) => {
                core.commit_to(index);
                Ok(Next::Stay)
            }
            None => Ok(Next::Look(LeaveReason::Gap)),
        }
    }

    // Requests and reads of this node.

    pub(crate) fn can_forward(&self) -> bool {
        self.stage == FollowerStage::Done
    }

    /// Whether the leader may be asked for more now; what is under way to it is bounded.
    pub(crate) fn may_ask<S: Storage>(&self, core: &Core<S>) -> bool {
        self.conn.is_some_and(|conn| core.may_ask(conn))
    }

    pub(crate) fn forward<S: Storage>(&self, core: &mut Core<S>, id: u64, command: Command) {
        core.requests.ask(id);
        let request = Message::Request(Request { id, command });
        let is_sent = self.conn.is_some_and(|conn| core.send(conn, request));
        if !is_sent {
            let answer = core.requests.end(id, Outcome::Unknown);
            core.ready.answers.extend(answer);
        }
    }

    pub(crate) fn read<S: Storage>(&self, core: &mut Core<S>, read: ReadId) {
        let failure = if self.stage != FollowerStage::Done {
            Some(ReadFailure::NoLeader)
        } else if core.config.reads_count_max <= core.reads.len() + core.barriers.count() {
            Some(ReadFailure::Busy)
        } else {
            None
        };
        if let Some(failure) = failure {
            core.ready.reads.push((read, Err(failure)));
            return;
        }
        if self.caps.unwrap_or(0) & caps::READ == 0 {
            core.await_barrier(read);
            return;
        }
        core.next_read += 1;
        let id = core.next_read;
        core.reads.insert(id, read);
        if let Some(conn) = self.conn {
            core.send(conn, Message::ReadIndex { id });
        }
    }

    /// Has a gometa leader commit what the reads of this node wait for.
    pub(crate) fn ask_for_barrier<S: Storage>(&self, core: &mut Core<S>) {
        if self.can_forward()
            && self.may_ask(core)
            && let Some((id, command)) = core.next_barrier()
        {
            self.forward(core, id, command);
        }
    }
}

/// Whether this node asks for committed entries only. A voter cannot: it is asked for its word before.
fn wants_commits_only(config: &Config) -> bool {
    config.commit_only && !config.is_voter()
}

/// What a learner does not notice when the guard on the leader's side is taken away as well.
fn believes_in_holes() -> bool {
    bug!("joiners-miss-what-is-under-way") || bug!("ids-are-ordered-as-text")
}
