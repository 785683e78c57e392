//! One node: what every role shares, the role, and how one role follows another.
//!
//! A role does not change itself: it says what is [`Next`], and [`Zab::turn`] alone grants it. After
//! each event a leader does what has become possible by it ([`Leading::advance`]), in one place, so
//! that no event can forget to.

use crate::back_off::BackOff;
use crate::core::Core;
use crate::election::Election;
use crate::event::{Fatal, refusal};
use crate::leading::Leading;
use crate::learner::Learner;
use crate::looking::{self, Looking};
use crate::note::{CloseReason, Note, ResignReason};
use crate::{
    Address, Command, Config, ConfigError, ConnId, Event, FollowerStage, LeaveReason, Member,
    Message, PeerStatus, ProposalId, ProposeError, ReadFailure, ReadId, Ready, SoftState, Storage,
};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It looks for a leader.
    Looking,
    /// It follows, and votes.
    Following,
    /// It was elected.
    Leading,
    /// It follows without a vote: a watcher.
    Observing,
}

/// What somebody who is connected, and does not take part yet, has said of itself; least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stranger {
    /// Nothing.
    Silent,
    /// That it has no vote, or is nobody this node knows.
    Watcher,
    /// That it is a member.
    Voter,
}

/// One node of one ensemble.
///
/// Feed it [`Event`]s with [`Zab::handle`], and after each do what [`Zab::ready`] asks for.
#[derive(Clone, Debug)]
pub struct Zab<S> {
    pub(crate) core: Core<S>,
    pub(crate) role: RoleState,
    back_off: BackOff,
    fatal: Option<Fatal>,
}

/// The role, with what only it needs.
#[derive(Clone, Debug)]
pub(crate) enum RoleState {
    Looking(Looking),
    Following(Box<Learner>),
    Observing(Box<Learner>),
    Leading(Box<Leading>),
}

/// What a role asks for after an event.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    Stay,
    /// Give up what there was, and look for a leader.
    Look(LeaveReason),
    /// This node was elected.
    Lead,
    /// Somebody else was.
    Follow(Box<Member>),
}

/// Why a node cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What storage holds contradicts itself.
    #[error(transparent)]
    Storage(#[from] Fatal),
}

impl<S: Storage> Zab<S> {
    /// A node that goes on from what storage holds. It looks for a leader from its first tick on.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the settings do not fit together, or storage is damaged.
    pub fn new(config: Config, storage: S, now_ms: u64) -> Result<Self, StartError> {
        config.check()?;
        let back_off = BackOff::new(&config);
        let mut core = Core::new(config, storage, now_ms)?;
        let role = RoleState::Looking(Looking::new(&mut core, 0));
        Ok(Zab { core, role, back_off, fatal: None })
    }

    /// Takes one event in.
    ///
    /// # Errors
    ///
    /// [`Fatal`], now and for ever after: the node must not take part any more. Nothing a peer says
    /// brings that about.
    pub fn handle(&mut self, event: Event) -> Result<(), Fatal> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        let result = self.on_event(event).and_then(|next| self.turn(next));
        self.remember(result)
    }

    /// Asks for a transaction, or sends a request outside the log. What becomes of it comes in
    /// [`Ready::answers`] under the id returned, exactly once.
    ///
    /// # Errors
    ///
    /// [`ProposeError`], at once: nothing was done. A node that is [fatal](Fatal) has no leader.
    pub fn propose(&mut self, command: Command) -> Result<ProposalId, ProposeError> {
        if self.fatal.is_some() {
            return Err(ProposeError::NoLeader);
        }
        let core = &mut self.core;
        if !command.op.is_custom()
            && let Some(why) = refusal(&command, &core.config, true)
        {
            return Err(why);
        }
        if core.config.requests_count_max <= core.requests.count() {
            return Err(ProposeError::Busy);
        }
        let id = core.new_request();
        match &mut self.role {
            RoleState::Looking(_) => return Err(ProposeError::NoLeader),
            RoleState::Following(learner) | RoleState::Observing(learner) => {
                if !learner.can_forward() {
                    return Err(ProposeError::NoLeader);
                }
                if !learner.may_ask(core) {
                    return Err(ProposeError::Busy);
                }
                learner.forward(core, id, command);
            }
            RoleState::Leading(leading) => leading.propose(core, id, command)?,
        }
        let result = self.turn(Next::Stay);
        // What is placed has an outcome even if the node is not usable any more: none is unknown.
        let _ = self.remember(result);
        Ok(ProposalId(id))
    }

    /// Asks from where on a linearizable read may be served: [`Ready::reads`] has it. It costs one
    /// round of messages and no disk write; reads asked at the same time share a round. Where too many
    /// voters are gometa's, it costs a transaction instead, if there is a
    /// [`barrier_key`](Config::barrier_key).
    ///
    /// A read caught in a change of leader fails, and one on a connection that is lost, too.
    pub fn read(&mut self, read: ReadId) {
        let core = &mut self.core;
        match &mut self.role {
            _ if self.fatal.is_some() => core.ready.reads.push((read, Err(ReadFailure::NoLeader))),
            RoleState::Looking(_) => core.ready.reads.push((read, Err(ReadFailure::NoLeader))),
            RoleState::Following(learner) | RoleState::Observing(learner) => {
                learner.read(core, read);
            }
            RoleState::Leading(leading) => {
                leading.read(core, read);
            }
        }
        let result = if self.fatal.is_none() { self.turn(Next::Stay) } else { Ok(()) };
        let _ = self.remember(result);
    }

    /// Whether there is work.
    pub fn has_ready(&self) -> bool {
        self.core.has_ready()
    }

    /// The work that has gathered; empty if there is none.
    ///
    /// # Errors
    ///
    /// [`Fatal`] as [`Zab::handle`].
    pub fn ready(&mut self) -> Result<Ready, Fatal> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        match self.core.take_ready() {
            Ok(ready) => Ok(ready),
            Err(fatal) => {
                self.fatal = Some(fatal.clone());
                Err(fatal)
            }
        }
    }

    fn remember(&mut self, result: Result<(), Fatal>) -> Result<(), Fatal> {
        if let Err(fatal) = &result {
            self.fatal = Some(fatal.clone());
        }
        result
    }

    fn on_event(&mut self, event: Event) -> Result<Next, Fatal> {
        let core = &mut self.core;
        match event {
            Event::Tick { now_ms } => {
                core.now_ms = core.now_ms.max(now_ms);
                return Ok(self.tick());
            }
            Event::Datagram { from, vote } => {
                if let RoleState::Looking(looking) = &mut self.role
                    && let next @ (Next::Lead | Next::Follow(_)) =
                        looking.before_vote(core, &from, &vote)
                {
                    return Ok(next);
                }
                let winner = core.on_vote(&from, vote);
                return Ok(looking::on_winner(core, winner));
            }
            Event::Accepted { conn } => self.on_accepted(conn),
            Event::Connected { to, conn } => self.on_connected(to, conn),
            Event::ConnectFailed { to } => {
                let is_awaited = self.learner().is_some_and(|learner| learner.is_waiting_for(&to));
                return Ok(match is_awaited {
                    true => Next::Look(LeaveReason::Disconnected),
                    false => Next::Stay,
                });
            }
            Event::Received { conn, message } => return self.on_received(conn, message),
            Event::Written { conn, count } => core.on_written(conn, count),
            Event::Heard { conn } => {
                if let Some(open) = core.conns.get_mut(&conn) {
                    open.heard_ms = core.now_ms;
                }
            }
            Event::Progress { conn } => {
                core.on_written(conn, 0);
                if let Some(open) = core.conns.get_mut(&conn) {
                    open.heard_ms = core.now_ms;
                }
                match &mut self.role {
                    RoleState::Looking(_) => {}
                    RoleState::Following(learner) | RoleState::Observing(learner) => {
                        learner.on_progress(core, conn);
                    }
                    RoleState::Leading(leading) => leading.on_progress(core, conn),
                }
            }
            Event::Closed { conn } => {
                core.conns.remove(&conn);
                if self.learner().is_some_and(|learner| learner.is_on(conn)) {
                    return Ok(Next::Look(LeaveReason::Disconnected));
                }
            }
            Event::Persisted(id) => core.on_persisted(id)?,
            Event::Applied(index) => core.on_applied(index)?,
            Event::Respond { origin, request, error, content } => {
                if let RoleState::Leading(leading) = &mut self.role {
                    leading.respond(core, origin, request, error, content);
                }
            }
            Event::Resign => {
                if let RoleState::Leading(leading) = &mut self.role {
                    leading.resign(core, ResignReason::Asked);
                }
            }
            Event::Stalled(is_stalled) => core.is_stalled = is_stalled,
            Event::StandBack { now_ms } => {
                core.now_ms = core.now_ms.max(now_ms);
                let winner = core.with_election(Election::stand_back);
                return Ok(looking::on_winner(core, winner));
            }
        }
        Ok(Next::Stay)
    }

    fn tick(&mut self) -> Next {
        let core = &mut self.core;
        match &mut self.role {
            RoleState::Looking(looking) => looking.tick(core),
            RoleState::Following(learner) | RoleState::Observing(learner) => learner.tick(core),
            RoleState::Leading(leading) => leading.tick(core),
        }
    }

    /// Before this moment, by the clock of its ticks, a [`Event::Tick`] changes nothing unless something
    /// else happens first. A driver may sleep until then, if it says how late it is, by a tick or with
    /// [`Zab::set_now`], before it reports what woke it.
    pub fn wake_ms(&self) -> u64 {
        let core = &self.core;
        match &self.role {
            _ if self.fatal.is_some() => u64::MAX,
            RoleState::Looking(looking) => looking.wake_ms(core),
            RoleState::Following(learner) | RoleState::Observing(learner) => learner.wake_ms(core),
            RoleState::Leading(leading) => leading.wake_ms(core),
        }
    }

    /// How late it is, for whatever is handled next. What is due by it is done with the next
    /// [`Event::Tick`]; this costs nothing.
    pub fn set_now(&mut self, now_ms: u64) {
        self.core.now_ms = self.core.now_ms.max(now_ms);
    }

    fn on_accepted(&mut self, conn: ConnId) {
        let core = &mut self.core;
        core.make_room_at_the_door();
        core.open(conn, None);
        match &mut self.role {
            RoleState::Looking(_) => {}
            RoleState::Leading(leading) => leading.on_accepted(core, conn),
            RoleState::Following(_) | RoleState::Observing(_) => {
                core.close(conn, CloseReason::NotLeading);
            }
        }
    }

    fn on_connected(&mut self, to: Address, conn: ConnId) {
        let core = &mut self.core;
        match &mut self.role {
            RoleState::Following(learner) | RoleState::Observing(learner)
                if learner.is_waiting_for(&to) =>
            {
                core.open(conn, Some(to));
                learner.on_connected(core, conn);
            }
            _ => {
                core.open(conn, Some(to));
                core.close(conn, CloseReason::Stray);
            }
        }
    }

    fn on_received(&mut self, conn: ConnId, message: Message) -> Result<Next, Fatal> {
        let core = &mut self.core;
        let Some(open) = core.conns.get_mut(&conn) else {
            return Ok(Next::Stay); // closed by this node meanwhile
        };
        open.heard_ms = core.now_ms;
        match &mut self.role {
            // Before anybody keeps it.
            RoleState::Looking(_) | RoleState::Leading(_) if message.has_long_name() => {
                core.close(conn, CloseReason::LongName);
                Ok(Next::Stay)
            }
            RoleState::Looking(looking) => {
                looking.on_message(core, conn, message);
                Ok(Next::Stay)
            }
            RoleState::Following(learner) | RoleState::Observing(learner) => {
                learner.step(core, conn, message)
            }
            RoleState::Leading(leading) => leading.step(core, conn, message),
        }
    }

    /// The one place where roles change.
    fn turn(&mut self, mut next: Next) -> Result<(), Fatal> {
        loop {
            let core = &mut self.core;
            core.settle_barrier();
            let entered = match next {
                Next::Stay => match &mut self.role {
                    RoleState::Leading(leading) => leading.advance(core)?,
                    RoleState::Following(learner) | RoleState::Observing(learner)
                        if learner.has_lost_connection(core) =>
                    {
                        Next::Look(LeaveReason::Disconnected)
                    }
                    RoleState::Following(learner) | RoleState::Observing(learner) => {
                        learner.ask_for_barrier(core);
                        Next::Stay
                    }
                    RoleState::Looking(_) => Next::Stay,
                },
                Next::Look(why) => self.look(why),
                Next::Lead => {
                    core.status = PeerStatus::Leading;
                    let (leading, next) = Leading::new(core)?;
                    self.role = RoleState::Leading(Box::new(leading));
                    core.note(Note::Became { role: Role::Leading });
                    match next {
                        // What came early may already be enough.
                        Next::Stay => match &mut self.role {
                            RoleState::Leading(leading) => leading.advance(core)?,
                            _ => Next::Stay,
                        },
                        other => other,
                    }
                }
                Next::Follow(leader) => {
                    self.follow(*leader);
                    Next::Stay
                }
            };
            if matches!(entered, Next::Stay) {
                break;
            }
            next = entered;
        }
        self.core.settle_barrier();
        self.core.set_soft_state(self.soft_state());
        if self.soft_state().is_serving {
            self.back_off.reset();
            self.core.election.forget_failures();
        }
        Ok(())
    }

    fn look(&mut self, why: LeaveReason) -> Next {
        let core = &mut self.core;
        if let RoleState::Leading(leading) = &mut self.role {
            leading.lose_reads(core);
        }
        if let RoleState::Following(learner) | RoleState::Observing(learner) = &self.role
            && learner.stage() != FollowerStage::Done
        {
            core.election.on_failed(&learner.leader().election, core.now_ms);
        }
        core.leave(why);
        core.status = PeerStatus::Electing;
        core.election.abandon();
        let wait_ms = core.rng.jittered(self.back_off.take());
        let mut looking = Looking::new(core, wait_ms);
        core.note(Note::Became { role: Role::Looking });
        let next = looking.tick(core);
        self.role = RoleState::Looking(looking);
        next
    }

    fn follow(&mut self, leader: Member) {
        let core = &mut self.core;
        // Whoever waits here should look elsewhere.
        for conn in core.conns.keys().copied().collect::<Vec<_>>() {
            core.close(conn, CloseReason::NotLeading);
        }
        let is_voter = core.config.is_voter();
        let learner = Box::new(Learner::new(core, leader));
        let role = learner.soft_state().role;
        if is_voter {
            core.status = PeerStatus::Following;
            self.role = RoleState::Following(learner);
        } else {
            self.role = RoleState::Observing(learner);
        }
        core.note(Note::Became { role });
    }

    fn learner(&self) -> Option<&Learner> {
        match &self.role {
            RoleState::Following(learner) | RoleState::Observing(learner) => Some(learner),
            RoleState::Looking(_) | RoleState::Leading(_) => None,
        }
    }

    fn soft_state(&self) -> SoftState {
        match &self.role {
            RoleState::Looking(_) => SoftState {
                role: Role::Looking,
                leader: quorate_types::NodeId::NONE,
                is_serving: false,
            },
            RoleState::Following(learner) | RoleState::Observing(learner) => learner.soft_state(),
            RoleState::Leading(leading) => leading.soft_state(&self.core),
        }
    }

    /// The id of the entry at `index`; nothing if that is compacted or not there.
    pub fn zxid(&self, index: quorate_types::Index) -> Option<crate::Zxid> {
        let history = &self.core.history;
        if history.last() < index {
            return None;
        }
        history.zxid(index).ok()
    }

    /// Who is at the other end of a connection, if that one does not take part yet; of a connection that was
    /// not reported that is somebody silent. Who has said least makes room when there are too many, the
    /// oldest first: a driver that has more connections than it has reported goes by this, too.
    pub fn stranger(&self, conn: ConnId) -> Option<Stranger> {
        self.core.stranger(conn)
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// What storage this node reads.
    pub fn storage(&self) -> &S {
        self.core.history.storage()
    }

    /// The same, for an application that carries out writes on it. What is changed otherwise must
    /// stay what was reported as durable.
    pub fn storage_mut(&mut self) -> &mut S {
        self.core.history.storage_mut()
    }

    /// What changes all the time; cheap to take.
    pub fn glance(&self) -> crate::Glance {
        let core = &self.core;
        crate::Glance {
            soft_state: core.soft_state,
            epoch: core.hard_state.current_epoch,
            commit: core.commit,
            last: core.history.last(),
            requests_count: core.requests.count(),
            roles_left: core.roles_left,
        }
    }

    /// What it cannot go on from, if so.
    pub fn fatal(&self) -> Option<&Fatal> {
        self.fatal.as_ref()
    }
}
