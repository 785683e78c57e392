//! Whoever follows: synchronization with the leader, then the broadcast.
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
//! Not here: what follows from having a vote (`following.rs`) or none (`observing.rs`).

use std::collections::BTreeMap;

use quorate_types::{Index, bug};

use crate::core::{Conn, Core, past};
use crate::event::Fatal;
use crate::note::Note;
use crate::zab::Next;
use crate::{
    Command, Config, ConnId, Epoch, EpochAck, FollowerInfo, LeaderInfo, LeaveReason, LogEntry,
    Member, Message, Op, Outcome, Proposal, ReadFailure, ReadId, Request, Role, Snapshot,
    SoftState, Storage, Zxid, caps, following, observing,
};

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

/// No history gets there by itself; one that a peer claims to be longer is not believed.
const INDEX_MAX: Index = Index(u64::MAX / 2);

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
            Message::Snapshot(snapshot) if self.awaits_snapshot => {
                Ok(self.on_snapshot(core, snapshot))
            }
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

    // Synchronization.

    fn on_log_entry<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        entry: LogEntry,
    ) -> Result<Next, Fatal> {
        match entry.command.op {
            Op::STREAM_BEGIN => {
                self.stream_committed = self.stream_committed.max(entry.zxid);
                if self.is_native() {
                    return self.on_plan(core, entry.keep);
                }
                Ok(Next::Stay)
            }
            Op::STREAM_END => {
                self.stream_committed = self.stream_committed.max(entry.zxid);
                self.on_stream_end(core)
            }
            _ if self.awaits_snapshot || self.epoch < entry.zxid.epoch() => {
                Ok(Next::Look(LeaveReason::Diverged))
            }
            _ if self.is_native() => self.settle(core, entry.zxid, entry.command),
            _ => Ok(self.collect(core, entry)),
        }
    }

    /// The leader said what may be kept.
    fn on_plan<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        keep: Option<Zxid>,
    ) -> Result<Next, Fatal> {
        let Some(keep) = keep else {
            self.awaits_snapshot = true;
            return Ok(Next::Stay);
        };
        match core.history.place(keep)? {
            Some(index) if core.commit <= index => {
                self.cursor = index;
                Ok(Next::Stay)
            }
            // It would have this node forget what is committed.
            _ => Ok(Next::Look(LeaveReason::Diverged)),
        }
    }

    fn on_snapshot<S: Storage>(&mut self, core: &mut Core<S>, snapshot: Snapshot) -> Next {
        let is_usable = core.commit < snapshot.index
            && core.handed <= snapshot.index
            && snapshot.zxid.epoch() <= self.epoch
            && snapshot.index <= INDEX_MAX;
        if !is_usable {
            return Next::Look(LeaveReason::Diverged);
        }
        self.awaits_snapshot = false;
        self.cursor = snapshot.index;
        core.install(snapshot);
        Next::Stay
    }

    /// The next entry of the leader's history.
    fn settle<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        zxid: Zxid,
        command: Command,
    ) -> Result<Next, Fatal> {
        let place = self.cursor.next();
        if place <= core.history.last() {
            if core.history.zxid(place)? == zxid {
                self.cursor = place;
                // One id, one content, whoever says it.
                if core.history.entry(place)?.command != command {
                    core.note(Note::Diverged { zxid });
                    return Ok(Next::Look(LeaveReason::Diverged));
                }
                return Ok(Next::Stay);
            }
            if let Err(why) = self.replace_tail(core)? {
                return Ok(Next::Look(why));
            }
        }
        let last = core.history.last_zxid();
        if zxid <= last {
            return Ok(Next::Look(LeaveReason::Diverged));
        }
        // A history that only leaders of ours have made has no gaps; a gometa leader's may have.
        let may_have_gaps = !self.is_native() || core.config.allow_gometa_voters;
        if !zxid.follows(last) && !may_have_gaps && !believes_in_holes() {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        self.cursor = core.history.append(zxid, command);
        Ok(Next::Stay)
    }

    /// Removes everything after the cursor: the leader's history does not have it.
    fn replace_tail<S: Storage>(
        &mut self,
        core: &mut Core<S>,
    ) -> Result<Result<(), LeaveReason>, Fatal> {
        let last = core.history.last();
        if last <= self.cursor {
            return Ok(Ok(()));
        }
        if self.cursor < core.commit {
            // What is committed is in the history of every leader. This is none, or was none.
            core.note(Note::Diverged { zxid: core.history.zxid(self.cursor.next())? });
            return Ok(Err(LeaveReason::Diverged));
        }
        let from = self.cursor.next();
        core.note(Note::TailReplaced { from, last: core.history.last_zxid() });
        core.history.truncate(self.cursor)?;
        Ok(Ok(()))
    }

    /// Keeps what a gometa leader sends until all of it is there.
    fn collect<S: Storage>(&mut self, core: &mut Core<S>, entry: LogEntry) -> Next {
        if entry.zxid.epoch() == Epoch(0) && !self.takes_states(core) {
            // Ids that somebody made up for the keys of a state.
            return Next::Look(LeaveReason::StateStream);
        }
        let op = entry.command.op;
        if !op.is_logged() {
            core.note(Note::OddOperation { zxid: entry.zxid, op });
        }
        self.is_unordered = self.is_unordered || entry.zxid <= self.stream_last;
        self.stream_last = entry.zxid;
        self.collected_bytes = self.collected_bytes.saturating_add(entry.command.bytes() + 32);
        if core.config.stream_bytes_max < self.collected_bytes {
            return Next::Look(LeaveReason::TooLong);
        }
        self.collected.insert(entry.zxid, entry.command);
        Next::Stay
    }

    fn takes_states<S>(&self, core: &Core<S>) -> bool {
        core.config.takes_states && !self.voting && self.starts_at_zero
    }

    /// Whether the stream holds the keys of a state, and not the history that this node has a part of.
    fn is_state(&self, committed: Zxid) -> bool {
        let has_made_up = self.collected.keys().next().is_some_and(|id| id.epoch() == Epoch(0));
        let is_known = committed == Zxid::ZERO || self.collected.contains_key(&committed);
        // Without any key it is one only where such states are taken.
        has_made_up
            || !is_known
            || (self.collected.is_empty() && Zxid::ZERO < self.stream_committed)
    }

    /// A state takes the place of this node's own: merged into it, what was deleted would rise again.
    fn take_state<S: Storage>(&mut self, core: &mut Core<S>, committed: Zxid, zxid: Zxid) -> Next {
        let collected = std::mem::take(&mut self.collected);
        if zxid < committed || zxid.epoch() == Epoch(0) {
            core.note(Note::Diverged { zxid });
            return Next::Look(LeaveReason::Diverged);
        }
        if committed < zxid {
            self.cursor = core.history.last().next();
            core.install(Snapshot::of_commands(self.cursor, zxid, collected.values()));
        }
        Next::Stay
    }

    fn on_stream_end<S: Storage>(&mut self, core: &mut Core<S>) -> Result<Next, Fatal> {
        if self.awaits_snapshot {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        if !self.is_native() {
            // Judged before anything is changed.
            let committed = core.committed_zxid()?;
            let mut highest = self.collected.keys().next_back().copied().unwrap_or(Zxid::ZERO);
            // A state without keys has nothing that would bear its id. A log that cannot be read looks
            // the same, however often it is asked for: what came after it would be applied to nothing.
            let is_bare = self.takes_states(core)
                && self.collected.is_empty()
                && Zxid::ZERO < self.stream_committed;
            if is_bare && committed <= self.stream_committed && !core.config.takes_bare_states {
                core.note(Note::BareState { committed });
                return Ok(Next::Look(LeaveReason::Diverged));
            }
            if is_bare {
                highest = self.stream_committed;
            }
            let has_hole = highest.max(committed) < self.stream_committed;
            if has_hole || (self.is_unordered && !self.starts_at_zero) {
                core.wants_all = true;
                return Ok(Next::Look(LeaveReason::Disordered));
            }
            if self.starts_at_zero && highest < committed {
                // Asked for everything, the leader has less than this node knows to be committed.
                core.note(Note::Diverged { zxid: committed });
                return Ok(Next::Look(LeaveReason::Diverged));
            }
            if self.takes_states(core) && self.is_state(committed) {
                match self.take_state(core, committed, highest) {
                    Next::Stay => {}
                    next => return Ok(next),
                }
            }
            for (zxid, command) in std::mem::take(&mut self.collected) {
                if committed < zxid {
                    match self.settle(core, zxid, command)? {
                        Next::Stay => {}
                        next => return Ok(next),
                    }
                }
            }
        }
        if let Err(why) = self.replace_tail(core)? {
            return Ok(Next::Look(why));
        }
        let is_short = core.history.last_zxid() < self.stream_committed;
        if is_short && !believes_in_holes() {
            return Ok(Next::Look(LeaveReason::Gap));
        }
        self.stage = FollowerStage::ReceiveNewLeader;
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

    // Time.

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
}

impl Learner {
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

/// Whether this node asks for committed entries only. A voter cannot: it is asked for its word before.
fn wants_commits_only(config: &Config) -> bool {
    config.commit_only && !config.is_voter()
}

/// What a learner does not notice when the guard on the leader's side is taken away as well.
fn believes_in_holes() -> bool {
    bug!("joiners-miss-what-is-under-way") || bug!("ids-are-ordered-as-text")
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
