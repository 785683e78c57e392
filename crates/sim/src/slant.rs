//! What some runs lean to. Most faults are rare and far apart, so that what needs several of them
//! within one round trip hardly ever happens; a slant brings those together, and clients with them.

use crate::chance::Chance;
use crate::faults::Fault;
use crate::plan::{Plan, SECOND};

/// What a run leans to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Slant {
    /// To nothing.
    #[default]
    None,
    /// Elections all the time, on disks that are slow, by messages that come late, with members that
    /// lose power in the midst of it.
    Elections,
    /// Leaders that are cut off and do not know, and clients who stay with them.
    Deposed,
    /// More writes than disks and volumes take.
    Load,
    /// Leases, and leaders that change or are overloaded.
    Leases,
}

impl Slant {
    pub(crate) fn draw(chance: &mut Chance) -> Slant {
        match chance.below(100) {
            0..=11 => Slant::Elections,
            12..=19 => Slant::Deposed,
            20..=22 => Slant::Load,
            23..=27 => Slant::Leases,
            _ => Slant::None,
        }
    }

    /// Alters a plan that was drawn without it; `allows` says which faults may be on.
    pub(crate) fn alter(
        self,
        plan: &mut Plan,
        chance: &mut Chance,
        allows: impl Fn(Fault) -> bool,
    ) {
        let often: &[(Fault, u64)] = match self {
            Slant::None => return,
            Slant::Elections => &[(Fault::Ambush, 1), (Fault::Delay, 2), (Fault::Transfer, 2)],
            Slant::Deposed => &[(Fault::Isolation, 3), (Fault::ClockRate, 10), (Fault::Ambush, 10)],
            Slant::Load => &[(Fault::FlushHang, 15), (Fault::PowerLoss, 20)],
            Slant::Leases => &[(Fault::Transfer, 1), (Fault::DiskHang, 10)],
        };
        for (fault, seconds) in often.iter().copied().filter(|(fault, _)| allows(*fault)) {
            let every = chance.between(seconds * SECOND / 2, 2 * seconds * SECOND);
            plan.set_fault(fault, every);
        }
        match self {
            Slant::None => {}
            Slant::Elections => {
                let replica = &mut plan.replica;
                replica.election_ticks = chance.between(2, 5) as u32;
                replica.heartbeat_ticks = 1;
                plan.restart_us = *chance.pick(&[20_000, 100_000, 300_000]);
                plan.aim_percent = 60;
                plan.disk_spread = *chance.pick(&[1, 5, 30]);
                if allows(Fault::Loss) && chance.percent(60) {
                    plan.network.loss_permille = chance.between(50, 400);
                    plan.set_fault(Fault::Loss, SECOND);
                }
                if allows(Fault::Reordering) && chance.percent(60) {
                    plan.network.jitter_us = chance.between(50_000, 500_000);
                    plan.set_fault(Fault::Reordering, SECOND);
                }
            }
            Slant::Deposed => {
                let (replica, clients) = (&mut plan.replica, &mut plan.clients);
                replica.election_ticks = chance.between(2, 6) as u32;
                replica.heartbeat_ticks = 1;
                plan.restart_us = *chance.pick(&[100_000, 500_000]);
                plan.aim_percent = 80;
                clients.stay = true;
                clients.clients = 2 * plan.members.min(3);
                clients.is_open = false;
                clients.think_us = *chance.pick(&[10_000, 30_000, 100_000]);
                clients.timeout_us = *chance.pick(&[SECOND / 5, SECOND]);
                clients.keys = *chance.pick(&[1, 3]);
                clients.mix = [45, 45, 0, 0, 10];
            }
            Slant::Load => {
                let (replica, clients) = (&mut plan.replica, &mut plan.clients);
                replica.log_bytes_max = 8 << 10;
                replica.uncommitted_bytes_max = *chance.pick(&[4 << 10, 64 << 10]);
                replica.tail_entries = *chance.pick(&[0, 2]);
                plan.disk_spread = *chance.pick(&[1, 10]);
                clients.clients = 4;
                clients.is_open = true;
                clients.think_us = *chance.pick(&[50_000, 150_000]);
                clients.value_bytes_max = *chance.pick(&[1000, 4000]);
                clients.mix = [80, 5, 5, 0, 10];
            }
            Slant::Leases => {
                let (replica, clients) = (&mut plan.replica, &mut plan.clients);
                replica.uncommitted_bytes_max = *chance.pick(&[100, 1000, 64 << 10]);
                clients.leases = true;
                clients.think_us = *chance.pick(&[50_000, 200_000]);
                clients.mix = [60, 20, 5, 5, 10];
            }
        }
    }
}
