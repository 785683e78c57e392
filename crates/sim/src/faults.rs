//! What goes wrong, one kind each. A plan says which kinds are on; each strikes again and again, and
//! most end by themselves after a while.

use std::path::Path;

use quorate_types::NodeId;

use crate::disk::{Failing, Lie};
use crate::member;
use crate::node::{Damage, Node};
use crate::plan::SECOND;
use crate::world::{Event, What, World};

/// How far a clock is set back at most, in one life of a process: leases live longer by that.
const SET_BACK_US_MAX: u64 = 30 * SECOND;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process ends at any moment and starts again.
    Crash,
    /// A machine loses power: unsynced writes are lost, torn and reordered.
    PowerLoss,
    /// All members lose power at once.
    Blackout,
    /// Members are stopped and started one after the other.
    Rolling,
    /// A sync fails.
    SyncError,
    /// A write fails.
    WriteError,
    /// A read fails while a member starts.
    ReadError,
    /// A disk is full for a while.
    DiskFull,
    /// A disk does nothing for a while.
    DiskHang,
    /// State cannot be flushed for a while, as where its volume is full; the log can be written.
    FlushHang,
    /// A member's log is gone when it starts, its state or some of it is not.
    LostLog,
    /// A disk reports a write as done that it loses.
    LostWrite,
    /// A disk writes to another place than it was told.
    MisdirectedWrite,
    /// Bits flip on a disk.
    BitRot,
    /// Members are cut into two halves.
    Partition,
    /// One way between two members is cut.
    OneWay,
    /// Two members do not reach each other, but the others.
    Link,
    /// One member is cut off.
    Isolation,
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Duplication,
    /// Messages overtake each other.
    Reordering,
    /// A way between two members becomes slow.
    Delay,
    /// A clock runs fast or slow.
    ClockRate,
    /// A clock jumps: many ticks at once, or it is set back.
    ClockJump,
    /// A process stands still and goes on.
    Pause,
    /// A member loses its disk and is replaced by a new one.
    Replace,
    /// Members become learners, and voters again; new ones join, others go.
    Membership,
    /// Leadership is handed to a member.
    Transfer,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 28] = [
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Blackout,
        Fault::Rolling,
        Fault::SyncError,
        Fault::WriteError,
        Fault::ReadError,
        Fault::DiskFull,
        Fault::DiskHang,
        Fault::FlushHang,
        Fault::LostLog,
        Fault::LostWrite,
        Fault::MisdirectedWrite,
        Fault::BitRot,
        Fault::Partition,
        Fault::OneWay,
        Fault::Link,
        Fault::Isolation,
        Fault::Loss,
        Fault::Duplication,
        Fault::Reordering,
        Fault::Delay,
        Fault::ClockRate,
        Fault::ClockJump,
        Fault::Pause,
        Fault::Replace,
        Fault::Membership,
        Fault::Transfer,
    ];

    /// Its name in ledgers and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::PowerLoss => "power-loss",
            Fault::Blackout => "blackout",
            Fault::Rolling => "rolling-restart",
            Fault::SyncError => "sync-error",
            Fault::WriteError => "write-error",
            Fault::ReadError => "read-error",
            Fault::DiskFull => "disk-full",
            Fault::DiskHang => "disk-hang",
            Fault::FlushHang => "flush-hang",
            Fault::LostLog => "lost-log",
            Fault::LostWrite => "lost-write",
            Fault::MisdirectedWrite => "misdirected-write",
            Fault::BitRot => "bit-rot",
            Fault::Partition => "partition",
            Fault::OneWay => "one-way-cut",
            Fault::Link => "link-cut",
            Fault::Isolation => "isolation",
            Fault::Loss => "loss",
            Fault::Duplication => "duplication",
            Fault::Reordering => "reordering",
            Fault::Delay => "delay",
            Fault::ClockRate => "clock-rate",
            Fault::ClockJump => "clock-jump",
            Fault::Pause => "pause",
            Fault::Replace => "replacement",
            Fault::Membership => "membership",
            Fault::Transfer => "transfer",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether it cannot happen where membership is fixed. A member may be lost there, too: nobody takes
    /// its place.
    pub(crate) fn needs_membership(self) -> bool {
        self == Fault::Membership
    }

    /// Whether it is a property of the network for the whole run, counted by message.
    pub(crate) fn is_ambient(self) -> bool {
        matches!(self, Fault::Loss | Fault::Duplication | Fault::Reordering)
    }

    /// Whether it can happen in a cluster of this size.
    pub(crate) fn fits(self, members: usize) -> bool {
        match self {
            Fault::Partition
            | Fault::OneWay
            | Fault::Link
            | Fault::Isolation
            | Fault::Loss
            | Fault::Duplication
            | Fault::Reordering
            | Fault::Delay
            | Fault::Membership
            | Fault::Transfer => 1 < members,
            // What is lost for good must be a minority.
            Fault::LostLog
            | Fault::LostWrite
            | Fault::MisdirectedWrite
            | Fault::BitRot
            | Fault::Replace => 2 < members,
            _ => true,
        }
    }
}

impl World<'_> {
    /// A fault of this kind happens now, if there is anything it can happen to.
    pub(crate) fn strike(&mut self, fault: Fault) -> bool {
        let Some(target) = self.draw_member() else { return false };
        let at = self.place(target);
        let pause = self.chance.around(3 * SECOND);
        match fault {
            Fault::Crash => self.crash(target, false),
            Fault::PowerLoss => self.crash(target, true),
            Fault::Blackout => {
                for id in self.members() {
                    self.crash(id, true);
                }
                true
            }
            Fault::Rolling => {
                for (number, id) in (0..).zip(self.members()) {
                    let time = self.now + number * 2 * self.plan.election_us();
                    self.push(time, Event::Restart(id));
                }
                true
            }
            Fault::SyncError => self.fail_next(target, Failing::Sync),
            Fault::WriteError => self.fail_next(target, Failing::Write),
            Fault::ReadError => self.crash(target, false) && self.fail_next(target, Failing::Read),
            Fault::DiskFull => {
                let used = self.nodes[at].disk.used_bytes();
                let space = used + self.chance.below(8 << 10);
                self.nodes[at].disk.set_space(space);
                self.nodes[at].excuse.was_full = true;
                self.push(self.now + 2 * pause, Event::FreeDisk(target));
                true
            }
            Fault::DiskHang => {
                self.nodes[at].disk_hangs = true;
                self.push(self.now + 2 * pause, Event::FreeDisk(target));
                true
            }
            Fault::FlushHang => {
                self.nodes[at].flush_hangs = true;
                self.push(self.now + 6 * pause, Event::FreeDisk(target));
                true
            }
            Fault::LostLog => self.lose_log(target),
            Fault::LostWrite => self.damage(target, Some(Lie::Lost)),
            Fault::MisdirectedWrite => self.damage(target, Some(Lie::Misdirected)),
            Fault::BitRot => self.damage(target, None),
            Fault::Partition | Fault::OneWay | Fault::Link | Fault::Isolation => {
                self.cut(fault, target);
                self.push(self.now + 3 * pause, Event::Heal);
                true
            }
            Fault::Loss | Fault::Duplication | Fault::Reordering => false,
            Fault::Delay => {
                let Some(other) = self.draw_other(target) else { return false };
                let by = self.chance.between(10_000, 2 * SECOND);
                self.net.slow_down(target, other, by);
                self.push(self.now + 3 * pause, Event::Heal);
                true
            }
            Fault::ClockRate => {
                let tick = self.plan.tick_us;
                self.nodes[at].tick_us = self.chance.between(tick / 2, 2 * tick);
                true
            }
            Fault::ClockJump if self.chance.percent(50) => {
                // Never forward again: what a clock shows after that nobody could promise a lease for.
                let back = self.chance.below(SET_BACK_US_MAX);
                let set_back_us = &mut self.nodes[at].set_back_us;
                *set_back_us = back.max(*set_back_us);
                true
            }
            Fault::ClockJump => {
                let ticks = self.chance.between(2, 60);
                let (id, life) = (target, self.nodes[at].life);
                for _ in 0..ticks {
                    self.push(self.now, Event::Node { id, life, what: What::ExtraTick });
                }
                true
            }
            Fault::Pause => {
                self.nodes[at].paused_until = self.now + pause;
                true
            }
            Fault::Replace => self.give_up(target),
            Fault::Membership => {
                self.operator.whim = true;
                self.operator.wants_more ^= self.chance.percent(50);
                true
            }
            Fault::Transfer => {
                let Some(leader) = self.leader() else { return false };
                let what = match self.chance.percent(30) {
                    true => What::HandOver,
                    false => What::Transfer(target),
                };
                self.push(self.now, Event::Any { id: leader, what });
                true
            }
        }
    }

    /// Members that take part, running or not.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| !node.is_gone).map(|node| node.id).collect()
    }

    fn draw_member(&mut self) -> Option<NodeId> {
        let members = self.members();
        (!members.is_empty()).then(|| *self.chance.pick(&members))
    }

    fn draw_other(&mut self, than: NodeId) -> Option<NodeId> {
        let members: Vec<_> = self.members().into_iter().filter(|id| *id != than).collect();
        (!members.is_empty()).then(|| *self.chance.pick(&members))
    }

    fn fail_next(&mut self, target: NodeId, what: Failing) -> bool {
        let at = self.place(target);
        self.nodes[at].disk.fail_next(what);
        self.nodes[at].excuse.has_failed = true;
        true
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
        let has_started = self.nodes[at].disk.exists(Path::new(member::STARTED));
        if self.nodes[at].damage == Damage::None && self.may_lose(target) && has_started {
            self.nodes[at].damage = Damage::Rot;
            self.crash(target, true);
            self.nodes[at].disk.lose_dir(Path::new(member::LOG));
        }
        true
    }

    /// Damages a disk, if with it only a minority has ever been damaged.
    fn damage(&mut self, target: NodeId, lie: Option<Lie>) -> bool {
        let is_damaged = |node: &&Node| node.damage != Damage::None;
        let damaged = self.nodes.iter().filter(is_damaged).count();
        let at = self.place(target);
        let may = self.plan.members.div_ceil(2) - 1;
        if self.nodes[at].damage == Damage::None && may <= damaged {
            return true; // as much as a cluster can take has happened
        }
        if !self.may_lose(target) {
            return true;
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
            }
            None => {
                self.crash(target, true);
                let flips = self.chance.between(1, 3);
                for _ in 0..flips {
                    self.nodes[at].disk.rot(&mut self.chance);
                }
            }
        }
        true
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
        // Autopilot may make a learner a voter in the moment in which it dies, before it can know that.
        let mut soon = conf.voters.clone();
        soon.extend(conf.learners.iter().filter(|_| self.plan.autopilot));
        enough(&conf.voters)
            && enough(&soon)
            && enough(&conf.voters_outgoing)
            && !self.operator.is_changing
    }

    fn give_up(&mut self, target: NodeId) -> bool {
        if self.may_lose(target) {
            self.crash(target, true);
            let at = self.place(target);
            self.nodes[at].is_gone = true;
            self.trace(target, "gone for good");
        }
        true
    }
}
