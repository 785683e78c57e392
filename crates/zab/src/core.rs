//! What a node is whatever its role: its promises, its history, its clock, its connections, and
//! what it has to say.
//!
//! A message that vouches for a write (LeaderInfo, EpochAck, NewLeader, NewLeaderAck, Accept) waits
//! in its connection until all that was unsaved or being saved when it was queued is durable.
//! What is queued behind it waits, too, unless its place among them means nothing. There is no
//! other way for a message to leave, so none can leave too early.
//!
//! ```text
//! applied <= handed <= min(commit, durable)     commit <= last
//! ```
//! Not here: what a role does with a message (one file a role), when roles change (`zab.rs`).

use std::collections::{BTreeMap, VecDeque};

use quorate_types::{Index, NodeId};

use crate::barrier::Barriers;
use crate::election::{Context, Election, Standing};
use crate::event::{Fatal, Write};
use crate::history::History;
use crate::note::{CloseReason, Note};
use crate::quorum::Voters;
use crate::requests::Requests;
use crate::rng::Rng;
use crate::{
    Address, Config, ConnId, HardState, LeaveReason, Member, Message, MessageType, PeerStatus,
    ReadFailure, ReadId, Ready, SoftState, Storage, Stranger, Vote, WriteId, Zxid,
};

/// What may wait on a connection besides entries of the history and one more window of answers.
const CONTROL_BYTES_MAX: u64 = 1 << 20;

/// One connection, whoever made it.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    /// Whom it leads to, once known.
    pub(crate) peer: Option<Address>,
    pub(crate) opened_ms: u64,
    pub(crate) heard_ms: u64,
    pub(crate) sent_ms: u64,
    /// When something was last written, or began to wait for that.
    pub(crate) written_ms: u64,
    /// What came before anybody had a use for it.
    pub(crate) waiting: Option<Message>,
    /// Not yet handed out, each with the write it waits for.
    held: VecDeque<(WriteId, Message)>,
    held_bytes: u64,
    /// Since when the first of them is the first.
    held_ms: u64,
    /// Sizes of what was handed out and is not written yet.
    unwritten: VecDeque<u64>,
    unwritten_bytes: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Core<S> {
    pub(crate) config: Config,
    pub(crate) voters: Voters,
    pub(crate) now_ms: u64,
    pub(crate) rng: Rng,
    pub(crate) hard_state: HardState,
    is_hard_state_unsaved: bool,
    pub(crate) history: History<S>,
    pub(crate) commit: Index,
    pub(crate) handed: Index,
    pub(crate) applied: Index,
    pub(crate) election: Election,
    pub(crate) status: PeerStatus,
    pub(crate) soft_state: SoftState,
    is_soft_state_new: bool,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) requests: Requests,
    /// Reads of this node that the leader was asked about.
    pub(crate) reads: BTreeMap<u64, ReadId>,
    pub(crate) next_read: u64,
    /// Reads that wait for a transaction of their own.
    pub(crate) barriers: Barriers,
    /// When members last said, in a vote, that they lead or follow.
    pub(crate) answered_ms: BTreeMap<Address, u64>,
    /// The next synchronization with a gometa leader begins at the first entry there is.
    pub(crate) wants_all: bool,
    /// The history can let go of nothing for now.
    pub(crate) is_stalled: bool,
    /// How many roles are over.
    pub(crate) roles_left: u64,
    last_cut: WriteId,
    durable_write: WriteId,
    pub(crate) ready: Ready,
    notes_missed: u64,
}

impl<S: Storage> Core<S> {
    /// What storage remembers.
    pub(crate) fn new(config: Config, storage: S, now_ms: u64) -> Result<Self, Fatal> {
        let hard_state = storage.hard_state()?;
        let history = History::new(storage)?;
        let before = history.first()?.prev();
        let applied = config.applied;
        if hard_state.accepted_epoch < hard_state.current_epoch {
            return Err(Fatal::Damaged { at: Index(0), what: "current epoch above the accepted" });
        }
        if hard_state.accepted_epoch < history.last_zxid().epoch() {
            let at = history.last();
            return Err(Fatal::Damaged { at, what: "an entry of an epoch never promised to" });
        }
        if history.last() < applied {
            return Err(Fatal::Damaged { at: applied, what: "applied beyond the history" });
        }
        if applied < before {
            return Err(Fatal::Damaged { at: before, what: "compacted before it was applied" });
        }
        let hinted = history.place_at_most(hard_state.committed)?.unwrap_or(before);
        let soft_state =
            SoftState { role: crate::Role::Looking, leader: NodeId::NONE, is_serving: false };
        Ok(Core {
            voters: Voters::new(&config),
            now_ms,
            rng: Rng::new(config.seed, config.own.id.0),
            hard_state,
            is_hard_state_unsaved: false,
            commit: hinted.max(applied),
            handed: applied,
            applied,
            history,
            election: Election::new(&config),
            status: PeerStatus::Electing,
            soft_state,
            is_soft_state_new: true,
            conns: BTreeMap::new(),
            requests: Requests::default(),
            reads: BTreeMap::new(),
            next_read: 0,
            barriers: Barriers::default(),
            answered_ms: BTreeMap::new(),
            wants_all: false,
            is_stalled: false,
            roles_left: 0,
            last_cut: WriteId(0),
            durable_write: WriteId(0),
            ready: Ready::default(),
            notes_missed: 0,
            config,
        })
    }

    // Election.

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            status: self.status,
            epoch: self.hard_state.current_epoch,
            logged: self.history.last_zxid(),
            committed: self.committed_hint(),
        }
    }

    /// Lets the election work with what it needs of the rest.
    pub(crate) fn with_election<T>(
        &mut self,
        work: impl FnOnce(&mut Election, &mut Context<'_>) -> T,
    ) -> T {
        let standing = self.standing();
        let out = &mut self.ready.datagrams;
        let mut context = Context { now_ms: self.now_ms, standing, rng: &mut self.rng, out };
        work(&mut self.election, &mut context)
    }

    /// A vote came; names the winner if it ends the ballot.
    pub(crate) fn on_vote(&mut self, from: &Address, vote: Vote) -> Option<Address> {
        let is_active = matches!(vote.status, PeerStatus::Leading | PeerStatus::Following);
        if is_active && self.member_by_election(from).is_some() {
            self.answered_ms.insert(from.clone(), self.now_ms);
        }
        match self.with_election(|election, context| election.on_vote(from, vote, context)) {
            Ok(winner) => winner,
            Err(why) => {
                self.note(Note::DatagramDropped { from: from.clone(), why });
                None
            }
        }
    }

    pub(crate) fn member_by_election(&self, address: &Address) -> Option<&Member> {
        self.config.members.iter().find(|member| member.election == *address)
    }

    pub(crate) fn member_by_message(&self, address: &Address) -> Option<&Member> {
        self.config.members.iter().find(|member| member.message == *address)
    }

    // Promises.

    /// Promises to `epoch`, once it is durable.
    pub(crate) fn accept_epoch(&mut self, epoch: crate::Epoch, leader: Address) {
        assert!(self.hard_state.accepted_epoch < epoch, "an accepted epoch never goes back");
        self.hard_state.accepted_epoch = epoch;
        self.hard_state.accepted_leader = Some(leader);
        self.is_hard_state_unsaved = true;
    }

    /// The history is now that of the leader of `epoch`.
    pub(crate) fn enter_epoch(&mut self, epoch: crate::Epoch) {
        assert!(self.hard_state.current_epoch <= epoch, "a current epoch never goes back");
        assert!(epoch <= self.hard_state.accepted_epoch, "only what was promised to is entered");
        if self.hard_state.current_epoch < epoch {
            self.hard_state.current_epoch = epoch;
            self.is_hard_state_unsaved = true;
        }
        self.election.update_winning_epoch(epoch);
    }

    // What is committed.

    /// Everything up to `index`, which is in the history, is committed.
    pub(crate) fn commit_to(&mut self, index: Index) {
        assert!(index <= self.history.last(), "what is committed is in the history");
        self.commit = self.commit.max(index);
    }

    /// The id of the last entry that is known to be committed.
    pub(crate) fn committed_zxid(&self) -> Result<Zxid, Fatal> {
        self.history.zxid(self.commit)
    }

    /// The same for those who can do without: before the mark of the history there is none.
    pub(crate) fn committed_hint(&self) -> Zxid {
        self.committed_zxid().unwrap_or(self.hard_state.committed)
    }

    /// A snapshot of the leader's replaces history and state.
    pub(crate) fn install(&mut self, snapshot: crate::Snapshot) {
        assert!(self.commit <= snapshot.index, "a state never goes back");
        self.handed = snapshot.index;
        self.commit = snapshot.index;
        self.history.install(snapshot);
    }

    pub(crate) fn on_applied(&mut self, index: Index) -> Result<(), Fatal> {
        if self.handed < index {
            return Err(Fatal::UnknownApplied { index, handed: self.handed });
        }
        self.applied = self.applied.max(index);
        let answers = self.requests.on_applied(self.applied);
        self.ready.answers.extend(answers);
        Ok(())
    }

    // Connections.

    pub(crate) fn open(&mut self, conn: ConnId, peer: Option<Address>) {
        let now_ms = self.now_ms;
        self.conns.insert(
            conn,
            Conn {
                peer,
                opened_ms: now_ms,
                heard_ms: now_ms,
                sent_ms: now_ms,
                written_ms: now_ms,
                waiting: None,
                held: VecDeque::new(),
                held_bytes: 0,
                held_ms: now_ms,
                unwritten: VecDeque::new(),
                unwritten_bytes: 0,
            },
        );
    }

    /// Closes the connection of a stranger if there are as many as may be: of those who have said least, the
    /// oldest. So whoever comes is let in, as it may be a voter: neither those who say nothing nor watchers
    /// can take all places.
    pub(crate) fn make_room_at_the_door(&mut self) {
        if self.conns.len() < self.config.connections_max() {
            return;
        }
        let strangers = self.conns.iter().filter_map(|(conn, open)| {
            self.stranger(*conn).map(|stranger| (stranger, open.opened_ms, *conn))
        });
        let (.., conn) = strangers.min().expect("there are fewer learners than places");
        self.close(conn, CloseReason::TooMany);
    }

    /// Who is at the other end of a connection, as long as that one does not take part.
    pub(crate) fn stranger(&self, conn: ConnId) -> Option<Stranger> {
        let Some(open) = self.conns.get(&conn) else { return Some(Stranger::Silent) };
        if open.peer.is_some() {
            return None;
        }
        Some(match &open.waiting {
            Some(Message::FollowerInfo(info)) => {
                match info.voting && self.member_by_message(&info.fid).is_some() {
                    true => Stranger::Voter,
                    false => Stranger::Watcher,
                }
            }
            _ => Stranger::Silent,
        })
    }

    /// Closes a connection and says why.
    pub(crate) fn close(&mut self, conn: ConnId, why: CloseReason) {
        if let Some(closed) = self.conns.remove(&conn) {
            self.ready.close.push(conn);
            self.note(Note::Closed { conn, peer: closed.peer, why });
        }
    }

    /// Sends a message that vouches for nothing. Says whether the connection could take it.
    pub(crate) fn send(&mut self, to: ConnId, message: Message) -> bool {
        let Some(conn) = self.conns.get_mut(&to) else { return false };
        if conn.held.is_empty() || conn.may_overtake(message.message_type()) {
            conn.hand_out(to, message, self.now_ms, &mut self.ready);
        } else {
            // It waits for what is before it.
            conn.hold(WriteId(0), message, self.now_ms);
        }
        self.close_if_full(to)
    }

    /// Sends a message that vouches for all that this node has not yet saved.
    pub(crate) fn send_held(&mut self, to: ConnId, message: Message) -> bool {
        let write = self.next_durable();
        let Some(conn) = self.conns.get_mut(&to) else { return false };
        if write <= self.durable_write && conn.held.is_empty() {
            conn.hand_out(to, message, self.now_ms, &mut self.ready);
        } else {
            conn.hold(write, message, self.now_ms);
        }
        self.close_if_full(to)
    }

    fn close_if_full(&mut self, to: ConnId) -> bool {
        let Some(conn) = self.conns.get(&to) else { return false };
        let is_full = self.is_full(conn);
        if is_full {
            self.close(to, CloseReason::Full);
        }
        !is_full
    }

    /// Only what does not wait in the history can bring it so far.
    fn is_full(&self, conn: &Conn) -> bool {
        let bytes_max = self.config.connection_bytes_max.saturating_mul(2) + CONTROL_BYTES_MAX;
        bytes_max < conn.bytes() && 8 < conn.unwritten.len() + conn.held.len()
    }

    /// Whether more of the history may be put on a connection.
    pub(crate) fn has_room(&self, conn: ConnId) -> bool {
        let conn = self.conns.get(&conn);
        conn.is_some_and(|conn| conn.bytes() < self.config.connection_bytes_max)
    }

    /// Whether a request may be put on a connection: well below what it is closed for.
    pub(crate) fn may_ask(&self, conn: ConnId) -> bool {
        let bytes_max = self.config.connection_bytes_max.saturating_add(CONTROL_BYTES_MAX);
        self.conns.get(&conn).is_some_and(|conn| conn.bytes() < bytes_max)
    }

    pub(crate) fn on_written(&mut self, conn: ConnId, count: usize) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.written_ms = self.now_ms;
            for bytes in conn.unwritten.drain(..count.min(conn.unwritten.len())) {
                conn.unwritten_bytes -= bytes;
            }
        }
    }

    /// The write after which everything that stands now is durable.
    pub(crate) fn next_durable(&self) -> WriteId {
        match self.has_unsaved() {
            true => WriteId(self.last_cut.0 + 1),
            false => self.last_cut,
        }
    }

    pub(crate) fn is_durable(&self, write: WriteId) -> bool {
        write <= self.durable_write
    }

    fn has_unsaved(&self) -> bool {
        self.is_hard_state_unsaved || self.history.has_unsaved()
    }

    pub(crate) fn on_persisted(&mut self, id: WriteId) -> Result<(), Fatal> {
        if self.last_cut < id {
            return Err(Fatal::UnknownWrite { id: id.0, last: self.last_cut.0 });
        }
        let was_installing = self.history.is_installing();
        self.durable_write = self.durable_write.max(id);
        self.history.on_persisted(id);
        if was_installing && !self.history.is_installing() {
            // The machine now stands where the snapshot does.
            self.applied = self.applied.max(self.handed);
            let answers = self.requests.on_applied(self.applied);
            self.ready.answers.extend(answers);
        }
        for (name, conn) in &mut self.conns {
            conn.release(*name, self.durable_write, self.now_ms, &mut self.ready);
        }
        Ok(())
    }

    /// A name for a request of this node; none that waits has it.
    pub(crate) fn new_request(&mut self) -> u64 {
        loop {
            let id = self.rng.next();
            if id != 0 && !self.requests.is_known(id) {
                return id;
            }
        }
    }

    // Leaving.

    /// A role is over: what belonged to it ends, every connection among it.
    pub(crate) fn leave(&mut self, why: LeaveReason) {
        self.roles_left += 1;
        self.note(Note::Left { why });
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.close(conn, CloseReason::RoleOver);
        }
        let answers = self.requests.lose(self.commit);
        self.ready.answers.extend(answers);
        self.fail_reads();
    }

    pub(crate) fn fail_reads(&mut self) {
        let lost = std::mem::take(&mut self.reads).into_values();
        self.ready.reads.extend(lost.map(|read| (read, Err(ReadFailure::NoLeader))));
        self.fail_barriers(ReadFailure::NoLeader);
    }

    pub(crate) fn set_soft_state(&mut self, soft_state: SoftState) {
        if self.soft_state != soft_state {
            self.soft_state = soft_state;
            self.is_soft_state_new = true;
        }
    }

    // Notes.

    pub(crate) fn note(&mut self, note: Note) {
        if self.ready.notes.len() < self.config.notes_count_max {
            self.ready.notes.push(note);
        } else {
            self.notes_missed += 1;
        }
    }

    // The work that follows.

    /// Takes out what is to be done.
    pub(crate) fn take_ready(&mut self) -> Result<Ready, Fatal> {
        if self.has_unsaved() {
            self.cut_write()?;
        }
        self.hand_out_committed()?;
        if std::mem::take(&mut self.is_soft_state_new) {
            self.ready.soft_state = Some(self.soft_state);
        }
        let count = std::mem::take(&mut self.notes_missed);
        if count > 0 {
            self.ready.notes.push(Note::Missed { count });
        }
        Ok(std::mem::take(&mut self.ready))
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.has_unsaved()
            || self.is_soft_state_new
            || !self.ready.is_empty()
            || self.can_hand_out()
    }

    fn cut_write(&mut self) -> Result<(), Fatal> {
        self.last_cut = WriteId(self.last_cut.0 + 1);
        let mut write = Write { id: self.last_cut, ..Write::default() };
        self.history.cut(&mut write);
        let committed = self.committed_hint().max(self.hard_state.committed);
        if self.hard_state.committed < committed || self.is_hard_state_unsaved {
            self.hard_state.committed = committed;
            write.hard_state = Some(self.hard_state.clone());
        }
        self.is_hard_state_unsaved = false;
        assert!(self.ready.write.is_none(), "one write a Ready");
        self.ready.write = Some(write);
        Ok(())
    }

    fn can_hand_out(&self) -> bool {
        self.handed < self.commit.min(self.history.durable())
            && self.handed - self.applied < self.config.applying_count_max
    }

    fn hand_out_committed(&mut self) -> Result<(), Fatal> {
        if !self.can_hand_out() {
            return Ok(());
        }
        let room = self.config.applying_count_max - (self.handed - self.applied);
        let last = self.commit.min(self.history.durable()).min(self.handed + room);
        let bytes_max = self.config.applying_bytes_max;
        let entries = self.history.entries(self.handed.next(), last, bytes_max)?;
        self.handed += entries.len() as u64;
        self.ready.committed = entries;
        Ok(())
    }

    // Questions for `check()`.

    pub(crate) fn connections_fit(&self) -> bool {
        self.conns.values().all(|conn| !self.is_full(conn))
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = (WriteId, &Message)> {
        self.conns.values().flat_map(|conn| conn.held.iter().map(|(id, message)| (*id, message)))
    }

    pub(crate) fn last_cut(&self) -> WriteId {
        self.last_cut
    }

    pub(crate) fn durable_write(&self) -> WriteId {
        self.durable_write
    }
}

/// The first moment at which more than `wait_ms` are over.
pub(crate) fn past(since_ms: u64, wait_ms: u64) -> u64 {
    since_ms.saturating_add(wait_ms).saturating_add(1)
}

impl Conn {
    /// Since when the driver could write nothing of what it has; nothing if all is written.
    pub(crate) fn stuck_since_ms(&self) -> Option<u64> {
        (!self.unwritten.is_empty()).then_some(self.written_ms)
    }

    /// Since when it is this node's own disk that keeps its synchronization from going on, if so.
    pub(crate) fn awaits_own_disk_since_ms(&self) -> Option<u64> {
        let first = self.held.front().map(|(_, message)| message.message_type());
        let awaits = matches!(first, Some(MessageType::EpochAck | MessageType::NewLeaderAck));
        awaits.then_some(self.held_ms)
    }

    /// Whether anything waits for the own disk.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.held_bytes + self.unwritten_bytes
    }

    fn hold(&mut self, write: WriteId, message: Message, now_ms: u64) {
        if self.held.is_empty() {
            self.held_ms = now_ms;
        }
        self.held_bytes += message.bytes();
        self.held.push_back((write, message));
    }

    fn hand_out(&mut self, own: ConnId, message: Message, now_ms: u64, ready: &mut Ready) {
        let bytes = message.bytes();
        if self.unwritten.is_empty() {
            self.written_ms = now_ms;
        }
        self.unwritten.push_back(bytes);
        self.unwritten_bytes += bytes;
        self.sent_ms = now_ms;
        ready.messages.push((own, message));
    }

    fn release(&mut self, own: ConnId, durable: WriteId, now_ms: u64, ready: &mut Ready) {
        while self.held.front().is_some_and(|(write, _)| *write <= durable)
            && let Some((_, message)) = self.held.pop_front()
        {
            self.held_bytes -= message.bytes();
            self.held_ms = now_ms;
            self.hand_out(own, message, now_ms, ready);
        }
    }

    /// Requests, and signs of life, need not wait for the disk behind an Accept: their order among
    /// each other is kept, and that to Accepts means nothing.
    fn may_overtake(&self, kind: MessageType) -> bool {
        matches!(
            kind,
            MessageType::Request | MessageType::Ping | MessageType::Pong | MessageType::ReadIndex
        ) && self.held.iter().all(|(_, held)| held.message_type() == MessageType::Accept)
    }
}
