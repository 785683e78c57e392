//! One learner, as its leader sees it.
//!
//! ```text
//! AwaitInfo ─► AwaitEpoch ─► AwaitPromise ─► AwaitQuorum ─► Streaming ─► AwaitHistory ─► Live
//! FollowerInfo  quorum 1,      EpochAck       quorum 2,      the plan,    NewLeaderAck
//!               LeaderInfo                    current epoch  NewLeader
//! ```
//! The plan is made at one instant. It fixes the *sync point*, the end of the leader's history then,
//! proposals and all: up to it entries are streamed, after it they are proposed. So nothing can
//! fall between, and what happens meanwhile waits in the history.
//!
//! For a watcher that wants committed entries only the history ends with what is committed: its sync
//! point lies there, and it is informed of what comes after. Its plan is made once the leader is
//! established, and so knows of everything that was ever committed.

use std::collections::{BTreeMap, VecDeque};

use quorate_types::{Index, NodeId, bug};

use crate::config::FRAME_CONTENT_BYTES_MAX;
use crate::core::Core;
use crate::event::Fatal;
use crate::note::{CloseReason, Note, SyncPlan};
use crate::{
    Address, ConnId, EpochAck, LogEntry, Message, Proposal, Snapshot, Storage, StorageError, Zxid,
    caps,
};

/// Bytes of entries read out of the history at a time.
const BATCH_BYTES: u64 = 64 << 10;

/// How far a learner is, as its leader sees it. gometa's `LeaderStageCode`, with what ends a stage
/// told apart from what begins the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaderStage {
    /// It has connected.
    AwaitInfo,
    /// It waits until it is settled which epoch begins.
    AwaitEpoch,
    /// It was told the epoch.
    AwaitPromise,
    /// It has promised, and waits until a quorum has; or for a snapshot to be ready.
    AwaitQuorum,
    /// It is sent what it lacks.
    Streaming,
    /// It was told that the epoch begins.
    AwaitHistory,
    /// It takes part in the broadcast.
    Live,
}

/// What goes before the entries of a stream.
enum Head {
    Nothing,
    /// To one of ours.
    Snapshot(Snapshot),
    /// To one of gometa's.
    State(VecDeque<LogEntry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) stage: LeaderStage,
    pub(crate) fid: Address,
    /// Which member it is, if it votes.
    pub(crate) voter: Option<NodeId>,
    pub(crate) caps: Option<u64>,
    /// Whether its promise counts.
    pub(crate) counts: bool,
    pub(crate) ack: EpochAck,
    /// A state that is still to be streamed, before any entry.
    state: VecDeque<LogEntry>,
    /// Entries up to here are on their way, or there.
    pub(crate) sent: Index,
    pub(crate) sync_point: Index,
    /// So many entries may be on their way to it, once it takes part.
    pub(crate) lag_max: u64,
    /// It was told that everything up to here is committed.
    pub(crate) commit_sent: Index,
    /// When something last came from it.
    pub(crate) progress_ms: u64,
    /// Since when it owes an Accept.
    pub(crate) asked_ms: Option<u64>,
    /// When it was last asked, on its election port, whether it is there.
    pub(crate) questioned_ms: u64,
    pub(crate) is_silent_port_noted: bool,
}

impl Peer {
    pub(crate) fn new(now_ms: u64) -> Self {
        Peer {
            stage: LeaderStage::AwaitInfo,
            fid: Address::default(),
            voter: None,
            caps: None,
            counts: false,
            ack: EpochAck::default(),
            state: VecDeque::new(),
            sent: Index(0),
            sync_point: Index(0),
            lag_max: 0,
            commit_sent: Index(0),
            progress_ms: now_ms,
            asked_ms: None,
            questioned_ms: now_ms,
            is_silent_port_noted: false,
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.stage != LeaderStage::AwaitInfo
    }

    pub(crate) fn is_native(&self) -> bool {
        self.caps.is_some()
    }

    /// Whether it is to have nothing that is not committed.
    pub(crate) fn is_commit_only(&self) -> bool {
        self.voter.is_none() && self.caps.unwrap_or(0) & caps::COMMIT_ONLY != 0
    }

    /// The end of the history as far as it concerns this learner.
    pub(crate) fn horizon<S: Storage>(&self, core: &Core<S>) -> Index {
        if self.is_commit_only() { core.commit } else { core.history.last() }
    }

    /// How many entries are still to be sent to it.
    pub(crate) fn lag<S: Storage>(&self, core: &Core<S>) -> u64 {
        self.horizon(core) - self.sent
    }

    /// Whether it is further behind than anybody may fall, since it was when its synchronization ended.
    pub(crate) fn is_catching_up<S: Storage>(&self, core: &Core<S>) -> bool {
        core.config.behind_count_max < self.lag_max
    }

    /// Whether it takes part, and will learn of a commit without this leader's doing anything more.
    pub(crate) fn has_heard_of_commit(&self, commit: Index) -> bool {
        self.stage == LeaderStage::Live && commit <= self.commit_sent
    }

    /// Decides how this learner is brought up to date, and opens its stream.
    pub(crate) fn plan<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
    ) -> Result<(), Fatal> {
        let Some((plan, head)) = self.choose(core, conn)? else { return Ok(()) };
        core.note(Note::Planned { peer: self.fid.clone(), plan });
        let committed = core.committed_zxid()?;
        let (after, keep) = match plan {
            SyncPlan::Difference { after } => (after, Some(core.history.zxid(after)?)),
            SyncPlan::Truncation { keep } => (keep, Some(core.history.zxid(keep)?)),
            SyncPlan::Snapshot { index } | SyncPlan::State { index } => (index, None),
            SyncPlan::Replay { after } => (after, None),
        };
        core.send(conn, Message::LogEntry(LogEntry::begin(committed, keep)));
        match head {
            Head::Nothing => {}
            Head::Snapshot(snapshot) => drop(core.send(conn, Message::Snapshot(snapshot))),
            Head::State(state) => self.state = state,
        }
        self.sent = after;
        self.sync_point = self.horizon(core);
        // By the begin marker. What is committed later a gometa learner takes for committed only when it
        // is told so of each, as it goes by the marker it had when the entry came.
        self.commit_sent = core.commit.min(self.sync_point);
        self.stage = LeaderStage::Streaming;
        self.progress_ms = core.now_ms;
        Ok(())
    }

    /// The plan, and what goes before the entries; none if there is none yet, or none at all.
    fn choose<S: Storage>(
        &self,
        core: &mut Core<S>,
        conn: ConnId,
    ) -> Result<Option<(SyncPlan, Head)>, Fatal> {
        if !self.is_native() {
            return self.choose_for_gometa(core, conn);
        }
        let before = core.history.first()?.prev();
        if let Some(after) = core.history.place(self.ack.logged)? {
            let after = after.min(self.horizon(core));
            return Ok(Some((SyncPlan::Difference { after }, Head::Nothing)));
        }
        let committed = self.ack.committed.unwrap_or(Zxid::ZERO);
        if let Some(keep) = core.history.place(committed)? {
            // By its own word; it may be wrong.
            let keep = keep.min(self.horizon(core));
            return Ok(Some((SyncPlan::Truncation { keep }, Head::Nothing)));
        }
        if core.history.zxid(before)? < committed {
            // It has committed what this history never had.
            core.note(Note::Diverged { zxid: committed });
            core.close(conn, CloseReason::NoPlan);
            return Ok(None);
        }
        let Some(snapshot) = snapshot(core)? else { return Ok(None) };
        if snapshot.index < before || !self.can_take(&snapshot) {
            core.close(conn, CloseReason::NoPlan);
            return Ok(None);
        }
        let plan = SyncPlan::Snapshot { index: snapshot.index };
        Ok(Some((plan, Head::Snapshot(snapshot))))
    }

    /// Nothing settles what a gometa learner already has but to send it again: what it has logged it may
    /// not have applied, and would not apply any more. And a state, which has no deletions, can only be
    /// merged into what it has. So once something is gone, only a learner without anything can be served.
    fn choose_for_gometa<S: Storage>(
        &self,
        core: &mut Core<S>,
        conn: ConnId,
    ) -> Result<Option<(SyncPlan, Head)>, Fatal> {
        let (before, last) = (core.history.first()?.prev(), core.history.last());
        let is_too_long = |after: Index| core.config.replay_count_max < last - after;
        let logged = self.ack.logged;
        if before == Index(0) && !is_too_long(before) {
            return Ok(Some((SyncPlan::Replay { after: before }, Head::Nothing)));
        }
        if logged != Zxid::ZERO {
            core.close(conn, CloseReason::NotEmpty);
            return Ok(None);
        }
        let Some(snapshot) = snapshot(core)? else { return Ok(None) };
        let index = snapshot.index;
        match snapshot.stream() {
            Some(state) if before <= index && !is_too_long(index) => {
                Ok(Some((SyncPlan::State { index }, Head::State(state))))
            }
            _ => {
                core.close(conn, CloseReason::NoPlan);
                Ok(None)
            }
        }
    }

    /// Whether it knows snapshots, and a frame carries this one.
    fn can_take(&self, snapshot: &Snapshot) -> bool {
        let is_short = (snapshot.data.len() as u64) <= FRAME_CONTENT_BYTES_MAX;
        self.caps.unwrap_or(0) & caps::PLAN != 0 && is_short
    }

    /// Sends what the connection has room for.
    pub(crate) fn pump<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        origins: &BTreeMap<Index, (Address, u64)>,
    ) -> Result<(), Fatal> {
        while core.has_room(conn) {
            let is_more = match self.stage {
                LeaderStage::Streaming => self.stream(core, conn)?,
                LeaderStage::AwaitHistory | LeaderStage::Live => {
                    self.broadcast(core, conn, origins)?
                }
                LeaderStage::AwaitInfo
                | LeaderStage::AwaitEpoch
                | LeaderStage::AwaitPromise
                | LeaderStage::AwaitQuorum => false,
            };
            if !is_more {
                break;
            }
        }
        Ok(())
    }

    /// The next part of the stream. Says whether there is more to say.
    fn stream<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId) -> Result<bool, Fatal> {
        if let Some(entry) = self.state.pop_front() {
            return Ok(core.send(conn, Message::LogEntry(entry)));
        }
        if self.sent < self.sync_point {
            for entry in self.next_entries(core, conn, self.sync_point)? {
                self.sent = entry.index;
                let is_committed = entry.index <= core.commit;
                if (bug!("joiners-miss-what-is-under-way") && !is_committed)
                    || (bug!("ids-are-ordered-as-text")
                        && entry.zxid.0.to_string() < self.ack.logged.0.to_string())
                {
                    continue;
                }
                let entry = LogEntry { zxid: entry.zxid, command: entry.command, keep: None };
                core.send(conn, Message::LogEntry(entry));
            }
            return Ok(core.conns.contains_key(&conn));
        }
        // What is committed by now, not when the stream began.
        let committed_by_now = core.commit.min(self.sync_point);
        let Some(committed) = core.history.known_zxid(committed_by_now)? else {
            core.close(conn, CloseReason::Behind);
            return Ok(false);
        };
        if self.is_native() {
            self.commit_sent = committed_by_now;
        }
        core.send(conn, Message::LogEntry(LogEntry::end(committed)));
        let epoch = core.hard_state.current_epoch;
        core.send_held(conn, Message::NewLeader { epoch });
        self.stage = LeaderStage::AwaitHistory;
        self.progress_ms = core.now_ms;
        Ok(true)
    }

    /// The next proposals and commits. Says whether there is more to say.
    fn broadcast<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        origins: &BTreeMap<Index, (Address, u64)>,
    ) -> Result<bool, Fatal> {
        if !self.is_native() && self.commit_sent < self.sync_point {
            // What a gometa learner has from the stream must be committed before the first live
            // proposal, or it takes the Commit for one out of order.
            return self.commit_next(core, conn, self.sync_point);
        }
        let mut is_more = false;
        let last = self.horizon(core);
        if self.sent < last {
            for entry in self.next_entries(core, conn, last)? {
                self.sent = entry.index;
                let (fid, request) = origins.get(&entry.index).cloned().unwrap_or_default();
                let (zxid, command) = (entry.zxid, entry.command);
                let proposal = Proposal { zxid, fid, request, command };
                core.send(
                    conn,
                    match self.is_commit_only() {
                        true => Message::Inform(proposal),
                        false => Message::Proposal(proposal),
                    },
                );
            }
            self.asked_ms.get_or_insert(core.now_ms);
            is_more = self.sent < last && core.conns.contains_key(&conn);
        }
        if self.is_commit_only() {
            self.commit_sent = self.sent;
            return Ok(is_more);
        }
        let is_behind = self.commit_next(core, conn, self.sent)?;
        Ok(is_more || is_behind)
    }

    /// Tells of commits up to `last`: of one to a gometa learner, of all at once to one of ours. Says
    /// whether it did.
    fn commit_next<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        last: Index,
    ) -> Result<bool, Fatal> {
        let last = core.commit.min(last);
        if last <= self.commit_sent {
            return Ok(false);
        }
        let next = if self.is_native() { last } else { self.commit_sent.next() };
        let Some(zxid) = core.history.known_zxid(next)? else {
            core.close(conn, CloseReason::Behind);
            return Ok(false);
        };
        self.commit_sent = next;
        core.send(conn, Message::Commit { zxid });
        Ok(core.conns.contains_key(&conn))
    }

    /// What comes next, up to `last`; nothing, and no connection, if it is no longer kept.
    fn next_entries<S: Storage>(
        &self,
        core: &mut Core<S>,
        conn: ConnId,
        last: Index,
    ) -> Result<Vec<crate::Entry>, Fatal> {
        if self.sent.next() < core.history.first()? {
            core.close(conn, CloseReason::Behind);
            return Ok(Vec::new());
        }
        let bytes_max = BATCH_BYTES.min(core.config.connection_bytes_max);
        core.history.entries(self.sent.next(), last, bytes_max)
    }
}

/// The latest snapshot; nothing while it is being prepared: it is asked for again with the next tick.
fn snapshot<S: Storage>(core: &Core<S>) -> Result<Option<Snapshot>, Fatal> {
    match core.history.storage().snapshot() {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(StorageError::SnapshotPending) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
