//! How each kind of fault strikes.

use quorate_raft::ConfState;
use quorate_replica::Engine;
use quorate_types::NodeId;

use super::Fault;
use crate::disk::{Happened, Kind, Lie, SimDisk};
use crate::member;
use crate::node::{Damage, Node};
use crate::plan::SECOND;
use crate::world::{Event, What, World};

/// How far a clock is set back at most, in one life of a process: leases live longer by that.
const SET_BACK_US_MAX: u64 = 30 * SECOND;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Struck {
    /// It happened.
    Now,
    /// It will, if what it waits for comes, and is counted then.
    Later,
    /// There was nothing it could happen to; there may be soon.
    Nothing,
}

impl From<bool> for Struck {
    fn from(happened: bool) -> Struck {
        if happened { Struck::Now } else { Struck::Nothing }
    }
}

impl World<'_> {
    /// A fault of this kind happens now, if there is anything it can happen to.
    pub(crate) fn strike(&mut self, fault: Fault) -> Struck {
        let Some(target) = self.draw_member() else { return Struck::Nothing };
        let at = self.place(target);
        let pause = self.chance.around(3 * SECOND);
        match fault {
            Fault::Crash => self.crash(target, false).into(),
            Fault::PowerLoss => self.crash(target, true).into(),
            Fault::Blackout => {
                for id in self.members() {
                    self.crash(id, true);
                }
                Struck::Now
            }
            Fault::Ambush => {
                self.nodes[at].is_ambushed = true;
                Struck::Later
            }
            Fault::Rolling | Fault::Upgrade => {
                for (number, id) in (0..).zip(self.members()) {
                    let time = self.now + number * 2 * self.plan.election_us();
                    self.push(time, Event::Restart(id, fault == Fault::Upgrade));
                }
                Struck::Now
            }
            Fault::SyncError => self.fail_next(target, Kind::Sync),
            Fault::WriteError => self.fail_next(target, Kind::Write),
            Fault::ReadError if self.crash(target, false) => self.fail_next(target, Kind::Read),
            Fault::ReadError => Struck::Nothing,
            Fault::DiskFull => {
                let used = self.nodes[at].disk.used_bytes();
                let space = used + self.chance.below(8 << 10);
                self.nodes[at].disk.set_space(space);
                self.nodes[at].excuse.was_full = true;
                self.push(self.now + 2 * pause, Event::FreeDisk(target));
                Struck::Now
            }
            Fault::DiskHang => {
                self.nodes[at].disk_hangs = true;
                self.push(self.now + 2 * pause, Event::FreeDisk(target));
                Struck::Now
            }
            Fault::FlushHang => {
                self.nodes[at].flush_hangs = true;
                self.push(self.now + 6 * pause, Event::FreeDisk(target));
                Struck::Now
            }
            Fault::LostLog => self.lose_log(target).into(),
            Fault::Wipe => self.wipe(target).into(),
            Fault::LostWrite => self.damage(target, Some(Lie::Lost)),
            Fault::MisdirectedWrite => self.damage(target, Some(Lie::Misdirected)),
            Fault::BitRot => self.damage(target, None),
            Fault::Partition | Fault::OneWay | Fault::Link | Fault::Isolation => {
                self.cut(fault, target);
                self.push(self.now + 3 * pause, Event::Heal);
                Struck::Now
            }
            Fault::Loss | Fault::Duplication | Fault::Reordering => Struck::Nothing,
            Fault::Delay => {
                let Some(other) = self.draw_other(target) else { return Struck::Nothing };
                let by = self.chance.between(10_000, 2 * SECOND);
                self.net.slow_down(target, other, by);
                self.push(self.now + 3 * pause, Event::Heal);
                Struck::Now
            }
            Fault::ClockRate => {
                let (tick, drift) = (self.plan.tick_us, self.plan.drift_permille.min(999));
                let rate_permille = self.chance.between(1000 - drift, 1000 + drift);
                self.nodes[at].tick_us = self.chance.between(tick / 2, 2 * tick);
                self.nodes[at].clock.run_at(rate_permille, self.now);
                Struck::Now
            }
            Fault::ClockJump if self.chance.percent(50) => {
                // Never forward again: what a clock shows after that nobody could promise a lease for.
                let back = self.chance.below(SET_BACK_US_MAX);
                let set_back_us = &mut self.nodes[at].clock.set_back_us;
                *set_back_us = back.max(*set_back_us);
                Struck::Now
            }
            Fault::ClockJump => {
                let ticks = self.chance.between(2, 60);
                let (id, life) = (target, self.nodes[at].life);
                for _ in 0..ticks {
                    self.push(self.now, Event::Node { id, life, what: What::ExtraTick });
                }
                Struck::Now
            }
            Fault::Pause => {
                self.nodes[at].paused_until = self.now + pause;
                Struck::Now
            }
            Fault::Replace => self.give_up(target).into(),
            Fault::Membership => {
                self.operator.whim = true;
                self.operator.wants_more ^= self.chance.percent(50);
                Struck::Now
            }
            Fault::Transfer => {
                let Some(leader) = self.leader() else { return Struck::Nothing };
                let what = match self.chance.percent(30) {
                    true => What::HandOver,
                    false => What::Transfer(target),
                };
                self.push(self.now, Event::Any { id: leader, what });
                Struck::Now
            }
        }
    }

    /// Members that take part, running or not.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| !node.is_gone).map(|node| node.id).collect()
    }

    /// Whom something is to happen to: anybody, or the leader, as the plan likes.
    fn draw_member(&mut self) -> Option<NodeId> {
        let members = self.members();
        if self.chance.percent(self.plan.aim_percent)
            && let Some(leader) = self.leader()
            && members.contains(&leader)
        {
            return Some(leader);
        }
        (!members.is_empty()).then(|| *self.chance.pick(&members))
    }

    fn draw_other(&mut self, than: NodeId) -> Option<NodeId> {
        let members: Vec<_> = self.members().into_iter().filter(|id| *id != than).collect();
        (!members.is_empty()).then(|| *self.chance.pick(&members))
    }

    fn fail_next(&mut self, target: NodeId, what: Kind) -> Struck {
        let at = self.place(target);
        self.nodes[at].disk.fail_next(what);
        self.nodes[at].excuse.has_failed = true;
        Struck::Later
    }

    /// Counts what disks were told to do and have done.
    pub(crate) fn count_happened(&mut self, at: usize) {
        for happened in self.nodes[at].disk.take_happened() {
            let fault = match happened {
                Happened::Failed(Kind::Read) => Fault::ReadError,
                Happened::Failed(Kind::Write) => Fault::WriteError,
                Happened::Failed(Kind::Sync) => Fault::SyncError,
                Happened::Lied(Lie::Lost) => Fault::LostWrite,
                Happened::Lied(Lie::Misdirected) => Fault::MisdirectedWrite,
            };
            self.checks.count_fault(fault.name());
            self.trace(self.nodes[at].id, &format!("its disk: {}", fault.name()));
        }
    }

    fn cut(&mut self, fault: Fault, target: NodeId) {
        let members = self.members();
        match fault {
            Fault::OneWay => {
                if let Some(other) = self.draw_other(target) {
                    self.net.cut(target, other);
                }
            }
            Fault::Link => {
                if let Some(other) = self.draw_other(target) {
                    self.net.cut(target, other);
                    self.net.cut(other, target);
                }
            }
            Fault::Isolation => {
                // Of both ways, or of one.
                let ways = self.chance.between(1, 3);
                for other in members.into_iter().filter(|id| *id != target) {
                    if ways & 1 != 0 {
                        self.net.cut(target, other);
                    }
                    if ways & 2 != 0 {
                        self.net.cut(other, target);
                    }
                }
            }
            _ => {
                let side: Vec<bool> = members.iter().map(|_| self.chance.percent(50)).collect();
                for (one, a) in members.iter().zip(&side) {
                    for (other, b) in members.iter().zip(&side) {
                        if a != b {
                            self.net.cut(*one, *other);
                        }
                    }
                }
            }
        }
    }

    /// A member's log goes, if that is no more than a cluster can take.
    fn lose_log(&mut self, target: NodeId) -> bool {
        let at = self.place(target);
        let has_started = self.nodes[at].disk.exists(member::STARTED);
        if self.nodes[at].damage != Damage::None || !self.may_lose(target) || !has_started {
            return false;
        }
        self.nodes[at].damage = Damage::Rot;
        self.crash(target, true);
        self.nodes[at].disk.destroy(member::LOG).is_ok()
    }

    /// A member starts over with nothing, where all others know what it was.
    fn wipe(&mut self, target: NodeId) -> bool {
        let at = self.place(target);
        if self.nodes[at].damage != Damage::None
            || !self.may_lose(target)
            || !self.may_hide_a_loss(target)
            || !self.is_known_to_all(target)
        {
            return false;
        }
        self.nodes[at].damage = Damage::Wiped;
        self.crash(target, true);
        self.nodes[at].disk = SimDisk::default();
        self.nodes[at].known.clear();
        true
    }

    /// Damages a disk, if with it only a minority has ever been damaged.
    fn damage(&mut self, target: NodeId, lie: Option<Lie>) -> Struck {
        let is_damaged = |node: &&Node| node.damage != Damage::None;
        let damaged = self.nodes.iter().filter(is_damaged).count();
        let at = self.place(target);
        let may = self.voters_min().div_ceil(2) - 1;
        if self.nodes[at].damage == Damage::None && may <= damaged {
            return Struck::Nothing; // as much as a cluster can take has happened
        }
        let may_lose = self.may_lose(target) && self.may_hide_a_loss(target);
        if !may_lose || self.nodes[at].damage == Damage::Wiped {
            return Struck::Nothing;
        }
        // What a lie has done stays possible, whatever else happens.
        if lie.is_some() || self.nodes[at].damage == Damage::None {
            self.nodes[at].damage = if lie.is_some() { Damage::Lie } else { Damage::Rot };
        }
        match lie {
            Some(lie) => {
                self.nodes[at].disk.lie_next(lie);
                let later = self.now + self.chance.around(10 * SECOND);
                self.push(later, Event::LosePower(target));
                Struck::Later
            }
            None => {
                self.crash(target, true);
                let flips = *self.chance.pick(&[1, 3, 20]);
                let flips = (0..flips).filter(|_| self.nodes[at].disk.rot(self.chance.number()));
                let count = flips.count();
                self.nodes[at].has_rotted |= 0 < count;
                (0 < count).into()
            }
        }
    }

    /// Of how many voters a cluster may come to consist: autopilot may want fewer than there are members.
    fn voters_min(&self) -> usize {
        match self.is_piloted() {
            true => self.intended_voters_min(),
            false => self.plan.members,
        }
    }

    fn is_piloted(&self) -> bool {
        self.plan.autopilot && self.plan.engine == Engine::Raft
    }

    /// Whether the others are a majority that could go on without this one for good.
    pub(crate) fn may_lose(&self, target: NodeId) -> bool {
        let conf = &self.checks.conf_state;
        let fine = |id: &&NodeId| {
            let node: &Node = &self.nodes[self.place(**id)];
            **id != target && !node.is_gone && node.damage == Damage::None
        };
        let enough = |voters: &[NodeId]| {
            voters.is_empty() || voters.len() / 2 < voters.iter().filter(fine).count()
        };
        // A learner may be made a voter in the moment in which it dies, before anybody can know that, and
        // before those are voters that were to come with it.
        let mut soon = conf.voters.clone();
        let may_vote = |id: &&NodeId| {
            let is_gone = self.nodes[self.place(**id)].is_gone;
            !self.plan.autopilot || !is_gone || self.may_be_promoted(**id)
        };
        soon.extend(conf.learners.iter().filter(|id| !fine(id) && may_vote(id)));
        // Nor has it seen yet who is damaged and runs, and may let the others go.
        let is_hidden = |id: &NodeId| {
            let node = &self.nodes[self.place(*id)];
            *id != target && node.damage != Damage::None && !node.is_gone
        };
        let hides = self.is_piloted() && conf.voters.iter().any(is_hidden);
        // Whoever has not applied the newest membership yet asks those of an earlier one for votes.
        let are_enough = |conf: &ConfState| enough(&conf.voters) && enough(&conf.voters_outgoing);
        let mut others = conf.voters.iter().filter(fine);
        are_enough(conf)
            && others.all(|id| self.checks.conf_state_of(*id).is_none_or(are_enough))
            && enough(&soon)
            && !self.operator.is_changing
            && (!hides || self.may_hide_a_loss(target))
    }

    /// Whether a member may be lost and run on as if it were not: with all that are lost it is a minority of as
    /// few voters as autopilot may come to leave, since it cannot know whom not to count on.
    fn may_hide_a_loss(&self, target: NodeId) -> bool {
        let is_lost = |id: &&NodeId| {
            let node = &self.nodes[self.place(**id)];
            **id != target && (node.is_gone || node.damage != Damage::None)
        };
        let lost = self.checks.conf_state.voters.iter().filter(is_lost).count() + 1;
        !self.is_piloted() || 2 * lost < self.voters_min()
    }

    fn give_up(&mut self, target: NodeId) -> bool {
        if !self.may_lose(target) {
            return false;
        }
        self.crash(target, true);
        let at = self.place(target);
        self.nodes[at].is_gone = true;
        self.trace(target, "gone for good");
        true
    }
}
