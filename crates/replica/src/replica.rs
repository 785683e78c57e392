//! The replica itself: one event in, all effects out, whichever engine it runs.

use quorate_raft::{Body, ConfState, Entries, Role};
use quorate_types::{Index, NodeId, Term};

use crate::core::Core;
use crate::raft::OnRaft;
use crate::zab::OnZab;
use crate::{
    Config, ConfigError, Effects, Engine, Event, Fatal, FeedError, Initial, Message, Place, feed,
};

/// Rounds of engine work taken in one turn; what is left waits for the next call.
const ROUNDS_MAX: usize = 16;

/// One member of one group.
pub struct Replica {
    core: Core,
    engine: Running,
}

/// The engine, with what only it needs.
enum Running {
    Raft(Box<OnRaft>),
    Zab(Box<OnZab>),
}

/// What changes all the time; cheap to take every turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its term, or epoch.
    pub term: Term,
    /// Highest index it knows to be committed.
    pub commit: Index,
    /// Highest index its machine has applied.
    pub applied: Index,
    /// Its role, in Raft's words. A node of ZAB leads once it is established; one that looks, or
    /// waits for its quorum, is a candidate.
    pub role: Role,
    /// Whom it believes to lead; [`NodeId::NONE`] for nobody.
    pub leader: NodeId,
    /// Differs when the membership may: take a [`Status`] to see it.
    pub memberships: u64,
}

/// How far one member's log is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The member.
    pub node: NodeId,
    /// Up to here it is the leader's.
    pub matched: Index,
    /// The term of the entry there, if the leader still has it.
    pub term: Option<Term>,
    /// Whether it is being sent the state itself.
    pub is_sent_snapshot: bool,
}

/// A picture of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who this is.
    pub node: NodeId,
    /// Which engine it runs.
    pub engine: Engine,
    /// Whom it believes to lead.
    pub leader: Option<NodeId>,
    /// Its role; see [`Glance::role`].
    pub role: Role,
    /// Its term, or epoch.
    pub term: Term,
    /// Highest index it knows to be committed.
    pub commit: Index,
    /// Highest index its machine has applied.
    pub applied: Index,
    /// Highest index whose effects are durable in its machine.
    pub flushed: Index,
    /// First index in its log.
    pub first: Index,
    /// Last index in its log.
    pub last: Index,
    /// Bytes of commands in its log.
    pub log_bytes: u64,
    /// The membership in force.
    pub conf_state: ConfState,
    /// Proposals that wait for a leader.
    pub parked_count: usize,
    /// Reads that wait.
    pub reads_count: usize,
    /// Writes that are not yet durable.
    pub writes_count: usize,
    /// Batches that are not yet applied.
    pub applies_count: usize,
}

impl Replica {
    /// A replica that goes on from what storage holds.
    ///
    /// # Errors
    ///
    /// When the settings do not fit together, or what storage holds contradicts itself or belongs to
    /// a member that runs another engine.
    pub fn new(config: Config, initial: Initial) -> Result<Self, StartError> {
        config.check()?;
        let (wanted, found) = (config.engine, initial.hard_state.engine());
        if wanted != found {
            return Err(StartError::OtherEngine { wanted, found });
        }
        let last = initial.entries.last().map_or(initial.mark.index, |entry| entry.index);
        if last < initial.applied {
            return Err(StartError::LogShort { last, applied: initial.applied });
        }
        let mut core = Core::new(config, initial.applied);
        let engine = match wanted {
            Engine::Raft => Running::Raft(Box::new(OnRaft::new(&core, initial)?)),
            Engine::Zab => Running::Zab(Box::new(OnZab::new(&mut core, initial)?)),
        };
        Ok(Replica { core, engine })
    }

    /// Takes one event in. What follows from it comes out of [`Replica::ready`].
    ///
    /// # Errors
    ///
    /// [`Fatal`] when this node's own storage contradicts itself: stop using the replica.
    pub fn handle(&mut self, event: Event) -> Result<(), Fatal> {
        let core = &mut self.core;
        match event {
            Event::Propose { request, entry } => {
                core.on_propose(request, entry);
                Ok(())
            }
            Event::Read(read) => {
                core.reads.ask(&core.config, read, core.now_ticks, &mut core.effects.reads);
                Ok(())
            }
            event => match &mut self.engine {
                Running::Raft(raft) => raft.handle(core, event),
                Running::Zab(zab) => zab.handle(core, event),
            },
        }
    }

    /// The transport had no room for this message, and did not send any of it. What it passes on to a
    /// leader is refused as [`Busy`](crate::Refusal::Busy); all else the engine sends again by itself.
    pub fn not_sent(&mut self, message: &Message) {
        if let Message::Raft(message) = message
            && let Body::Propose { entries } = &message.body
        {
            let data = entries.iter().filter_map(|entry| entry.data.as_ref());
            self.core.proposals.not_sent(data, &mut self.core.effects.refused);
        }
    }

    /// What is to be done now, if anything.
    ///
    /// # Errors
    ///
    /// [`Fatal`], as in [`Replica::handle`].
    pub fn ready(&mut self) -> Result<Option<Effects>, Fatal> {
        let core = &mut self.core;
        for _ in 0..ROUNDS_MAX {
            let goes_on = match &mut self.engine {
                Running::Raft(raft) => raft.round(core)?,
                Running::Zab(zab) => zab.round(core)?,
            };
            if !goes_on {
                break;
            }
        }
        let wants_snapshot = match &mut self.engine {
            Running::Raft(raft) => raft.take_wanted(),
            Running::Zab(zab) => zab.finish(core),
        };
        if wants_snapshot {
            core.want_snapshot();
        }
        core.effects.flush = core.snapshots.flush_due(&core.config, core.applied, core.now_ticks);
        let effects = std::mem::take(&mut core.effects);
        Ok((!effects.is_empty()).then_some(effects))
    }

    /// When it wants to be told the time, if that is before the next tick: so many milliseconds after the
    /// last one.
    pub fn wake_ms(&self) -> Option<u64> {
        match &self.engine {
            Running::Raft(_) => None,
            Running::Zab(zab) => zab.wake_ms(&self.core),
        }
    }

    /// What changes all the time.
    pub fn glance(&self) -> Glance {
        let status = match &self.engine {
            Running::Raft(raft) => raft.status(),
            Running::Zab(zab) => zab.status(),
        };
        Glance {
            term: status.term,
            commit: status.commit,
            applied: self.core.applied,
            role: status.role,
            leader: self.core.leader,
            memberships: self.core.memberships,
        }
    }

    /// A picture of it.
    pub fn status(&self) -> Status {
        let (status, log, conf_state, writes_count, applies_count) = match &self.engine {
            Running::Raft(raft) => {
                let (writes, applies) = (raft.writes.len(), raft.applies.len());
                (raft.status(), raft.log(), raft.conf_state(), writes, applies)
            }
            Running::Zab(zab) => (zab.status(), zab.log(), zab.conf_state(), zab.writes.len(), 0),
        };
        let core = &self.core;
        Status {
            node: core.config.node,
            engine: core.config.engine,
            leader: core.leader.known(),
            role: status.role,
            term: status.term,
            commit: status.commit,
            applied: core.applied,
            flushed: core.snapshots.flushed(),
            first: log.mark().next(),
            last: status.last,
            log_bytes: log.bytes(),
            conf_state,
            parked_count: core.proposals.parked_count(),
            reads_count: core.reads.count(),
            writes_count,
            applies_count,
        }
    }

    /// Whether it can do something as soon as it hears that more is applied. Otherwise that may be told
    /// whenever something else is.
    pub fn awaits_applied(&self) -> bool {
        match &self.engine {
            Running::Raft(raft) => {
                self.core.reads.await_applied() || raft.awaits_applied(&self.core)
            }
            Running::Zab(_) => true,
        }
    }

    /// Whether this replica leads and has applied every membership change that there is, so that its
    /// machine knows what a further one would change. With ZAB none can be made.
    pub fn may_change(&self) -> bool {
        match &self.engine {
            Running::Raft(raft) => raft.may_change(),
            Running::Zab(_) => false,
        }
    }

    /// How far each member's log is known to match this one, if this replica leads. Nothing with ZAB,
    /// whose members are fixed.
    pub fn matched(&self) -> Vec<(NodeId, Index)> {
        match &self.engine {
            Running::Raft(raft) => raft.matched(),
            Running::Zab(zab) => zab.matched(),
        }
    }

    /// How far each member's log is, its own included, if this replica leads. Nothing with ZAB.
    pub fn reaches(&self) -> Vec<Reach> {
        match &self.engine {
            Running::Raft(raft) => raft.reaches(),
            Running::Zab(_) => Vec::new(),
        }
    }

    /// Term of the last entry of its log. Nothing with ZAB.
    pub fn last_term(&self) -> Option<Term> {
        match &self.engine {
            Running::Raft(raft) => raft.last_term(),
            Running::Zab(_) => None,
        }
    }

    /// The entry that made the membership what it is. After a start, and after a snapshot, an index that
    /// is no less: two that are equal stand for the same membership, as long as the replica runs.
    pub fn membership_index(&self) -> Index {
        self.core.membership_index
    }

    /// What it applied after `place`, for whoever follows that, in order and without gaps: as many
    /// entries as are encoded in `bytes_max`, but no more than some hundreds, and at least one if there
    /// is one. None mean that all has been told so far, or that the place is one that it has not
    /// reached. [`Content`](crate::Content) reads them.
    ///
    /// It costs a copy of each entry without its bytes, and is the log of either engine.
    ///
    /// # Errors
    ///
    /// [`FeedError`] when what comes next is compacted, or the place is in another log.
    pub fn applied_after(&self, place: Place, bytes_max: u64) -> Result<Entries, FeedError> {
        let log = match &self.engine {
            Running::Raft(raft) => raft.log(),
            Running::Zab(zab) => zab.log(),
        };
        feed::after(log, self.core.applied, place, bytes_max)
    }

    /// Asserts what holds between any two calls.
    pub fn check(&self) {
        let core = &self.core;
        let (status, log) = match &self.engine {
            Running::Raft(raft) => (raft.status(), raft.log()),
            Running::Zab(zab) => (zab.status(), zab.log()),
        };
        let flushed = core.snapshots.flushed();
        assert!(flushed <= core.applied, "only applied state can be durable");
        assert!(core.applied <= status.commit, "only committed entries are applied");
        assert!(status.commit <= status.last, "only entries of the log are committed");
        assert!(log.mark() <= flushed, "the log reaches back to durable state");
        match &self.engine {
            Running::Raft(raft) => raft.check(),
            Running::Zab(zab) => zab.check(),
        }
    }
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.snapshots.is_empty()
            && self.writes.is_empty()
            && self.apply.is_empty()
            && self.refused.is_empty()
            && self.reads.is_empty()
            && self.transfers.is_empty()
            && !self.flush
            && !self.make_snapshot
            && !self.drop_snapshot
            && self.compact.is_none()
            && self.notes.is_empty()
    }
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Storage is that of a member that runs the other engine.
    #[error(
        "the data is of a member that runs the engine {found}, and this one is to run {wanted}: run \
         it with {found}, as the rest of its cluster does, or give it a directory of its own"
    )]
    OtherEngine {
        /// The engine that was asked for.
        wanted: Engine,
        /// The engine that wrote the log.
        found: Engine,
    },
    /// The log ends before what the machine's durable state covers.
    #[error(
        "the log ends at {last}, and the state is of {applied}: one of them is an older copy; put back the \
         newer log, or let the member join anew with an empty directory"
    )]
    LogShort {
        /// Its last entry.
        last: Index,
        /// What the state covers.
        applied: Index,
    },
    /// The ZAB engine cannot work with the settings.
    #[error(transparent)]
    Zab(#[from] quorate_zab::ConfigError),
    /// What storage holds contradicts itself.
    #[error(transparent)]
    Storage(#[from] Fatal),
}
