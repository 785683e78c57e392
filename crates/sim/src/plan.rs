//! What a seed stands for: how large the cluster is, how it is set, what clients do, and which
//! faults are on. Each run has some of them only (swarm testing): what always happens together
//! hides what happens alone.

use quorate_replica::{Config, Engine};
use quorate_types::NodeId;

use crate::Options;
use crate::chance::Chance;
use crate::faults::Fault;
use crate::slant::Slant;

/// One second, in the microseconds that all times here are in.
pub(crate) const SECOND: u64 = 1_000_000;

/// A run, before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) engine: Engine,
    pub(crate) cluster: u64,
    pub(crate) members: usize,
    /// Whether autopilot looks after the members, instead of an operator with whims.
    pub(crate) autopilot: bool,
    /// Simulated time with faults; the end, where all must work again, comes on top.
    pub(crate) duration_us: u64,
    pub(crate) tick_us: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) chunk_bytes: usize,
    /// States are compared whenever the index is a multiple of this.
    pub(crate) compare_every: u64,
    pub(crate) network: NetworkPlan,
    pub(crate) clients: ClientPlan,
    /// What may go wrong, and how often on average, in microseconds.
    pub(crate) faults: Vec<(Fault, u64)>,
    /// How long a process is away on average after a crash.
    pub(crate) restart_us: u64,
    /// How often, in a hundred, what goes wrong goes wrong with the leader.
    pub(crate) aim_percent: u64,
    /// The slowest disk takes up to so many times as long as the plan says.
    pub(crate) disk_spread: u64,
    /// Keys looked at in one step of removing what compaction has forgotten.
    pub(crate) compact_keys: usize,
    /// How fast clocks may run that leases count by, in thousandths above or below what is right.
    /// Nobody can promise much of leases where that is more than [`DRIFT_PERMILLE`].
    pub(crate) drift_permille: u64,
    pub(crate) replica: Config,
    sync_us: u64,
    /// Now and then a disk takes so many times as long.
    hiccup: u64,
}

/// How far clocks may be off, with which no lease may end before its time but for that share.
pub(crate) const DRIFT_PERMILLE: u64 = 100;

#[derive(Clone, Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) delay_us: u64,
    pub(crate) jitter_us: u64,
    pub(crate) loss_permille: u64,
    pub(crate) twice_permille: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) clients: usize,
    /// Whether clients ask at their own pace instead of waiting for answers.
    pub(crate) is_open: bool,
    pub(crate) think_us: u64,
    pub(crate) keys: u64,
    pub(crate) value_bytes_max: u64,
    /// Shares of puts, linearizable reads, serializable reads, deletes, transactions, in a hundred.
    pub(crate) mix: [u64; 5],
    /// History is compacted every so many microseconds; 0 for never.
    pub(crate) compact_us: u64,
    pub(crate) timeout_us: u64,
    pub(crate) watchers: usize,
    /// Whether clients hold leases.
    pub(crate) leases: bool,
    /// Whether each stays with one member, whatever that one says.
    pub(crate) stay: bool,
}

impl Plan {
    /// What a seed stands for, but for what the options say.
    pub(crate) fn draw(seed: u64, options: &Options) -> Plan {
        let only = options.only.as_deref();
        let chance = &mut Chance::new(seed);
        let members = *chance.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let duration_us = options.seconds.unwrap_or(chance.between(60, 600)).max(1) * SECOND;
        let election_ticks = chance.between(5, 20) as u32;
        let replica = Config {
            engine: options.engine,
            election_ticks,
            heartbeat_ticks: chance.between(1, 2) as u32,
            uncommitted_bytes_max: *chance.pick(&[4 << 10, 64 << 10, 1 << 20]),
            message_bytes_max: *chance.pick(&[100, 1 << 10, 16 << 10]),
            inflight_count_max: *chance.pick(&[1, 2, 8, 64]),
            inflight_bytes_max: 64 << 10,
            applying_bytes_max: *chance.pick(&[200, 4 << 10, 64 << 10]),
            writes_count_max: *chance.pick(&[4, 32, 1000]),
            write_ticks_max: chance.between(10, 60),
            parked_count_max: *chance.pick(&[2, 100]),
            parked_ticks_max: 30,
            reads_max: *chance.pick(&[4, 200]),
            read_rounds_max: chance.between(1, 4) as usize,
            read_retry_ticks: chance.between(2, 8),
            flush_entries: *chance.pick(&[10, 50, 200, 1000]),
            flush_bytes: *chance.pick(&[4 << 10, 64 << 10, 1 << 20]),
            flush_ticks: *chance.pick(&[20, 100, 300]),
            tail_entries: *chance.pick(&[0, 2, 20, 200]),
            log_bytes_max: *chance.pick(&[8 << 10, 32 << 10, 256 << 10]),
            command_bytes_max: 16 << 10,
            ..Config::new(NodeId(1), 1)
        };
        let mut faults = draw_faults(chance, members, only);
        if options.engine == Engine::Zab {
            // Its membership is fixed.
            faults.retain(|(fault, _)| !fault.needs_membership());
        }
        let on = |fault| faults.iter().any(|(it, _)| *it == fault);
        let network = NetworkPlan {
            delay_us: *chance.pick(&[100, 500, 2_000, 20_000]),
            jitter_us: if on(Fault::Reordering) { chance.between(1_000, 100_000) } else { 50 },
            loss_permille: if on(Fault::Loss) { chance.between(1, 150) } else { 0 },
            twice_permille: if on(Fault::Duplication) { chance.between(1, 100) } else { 0 },
        };
        let mut clients = draw_clients(chance);
        clients.clients = options.clients.unwrap_or(clients.clients).max(1);
        let clock_rates = on(Fault::ClockRate);
        let mut plan = Plan {
            engine: options.engine,
            cluster: 0x5eed ^ (seed << 16),
            members,
            autopilot: options.autopilot,
            duration_us,
            tick_us: 100_000,
            segment_bytes: *chance.pick(&[4 << 10, 16 << 10, 64 << 10]),
            chunk_bytes: *chance.pick(&[1 << 10, 8 << 10, 64 << 10]),
            compare_every: chance.between(8, 64),
            network,
            clients,
            faults,
            sync_us: *chance.pick(&[100, 1_000, 5_000, 20_000]),
            hiccup: 50,
            restart_us: 2 * u64::from(election_ticks) * 100_000,
            aim_percent: *chance.pick(&[0, 0, 30]),
            disk_spread: *chance.pick(&[1, 1, 4]),
            compact_keys: *chance.pick(&[1, 20, 1000]),
            drift_permille: match chance.below(10) {
                _ if !clock_rates => 0,
                0 => 500,
                _ => DRIFT_PERMILLE,
            },
            replica,
        };
        let allows = |fault: Fault| {
            fault.fits(members)
                && only.is_none_or(|only| only.contains(&fault))
                && (options.engine == Engine::Raft || !fault.needs_membership())
        };
        // They press on Raft's timers. A learner of ZAB takes all that it lacks in one go, and on disks and
        // timers so far apart its leader gives it up each time before it has.
        let slant = match options.engine {
            Engine::Raft => Slant::draw(chance),
            Engine::Zab => Slant::None,
        };
        slant.alter(&mut plan, chance, allows);
        plan.clients.clients = options.clients.unwrap_or(plan.clients.clients);
        plan
    }

    /// Has a fault strike so often on average, whether it was on or not.
    pub(crate) fn set_fault(&mut self, fault: Fault, every_us: u64) {
        self.faults.retain(|(other, _)| *other != fault);
        self.faults.push((fault, every_us));
        self.faults.sort();
    }

    /// The settings of a member: as drawn, or, where `settings` is not 0, what another version of the
    /// program may set otherwise.
    pub(crate) fn replica_config(&self, node: NodeId, seed: u64, settings: u64) -> Config {
        let config = Config { node, seed, ..self.replica.clone() };
        if settings == 0 {
            return config;
        }
        let chance = &mut Chance::new(settings);
        Config {
            message_bytes_max: *chance.pick(&[100, 1 << 10, 16 << 10]),
            inflight_count_max: *chance.pick(&[1, 8, 64]),
            applying_bytes_max: *chance.pick(&[200, 64 << 10]),
            writes_count_max: *chance.pick(&[4, 1000]),
            read_rounds_max: chance.between(1, 4) as usize,
            flush_entries: *chance.pick(&[10, 200]),
            tail_entries: *chance.pick(&[0, 20]),
            ..config
        }
    }

    /// No log of any member ever holds more: what may be stalled, and what comes at once.
    pub(crate) fn log_bytes_max(&self) -> u64 {
        let replica = &self.replica;
        replica.stalled_bytes_max() + 4 * replica.uncommitted_bytes_max + replica.command_bytes_max
    }

    pub(crate) fn election_us(&self) -> u64 {
        u64::from(self.replica.election_ticks) * self.tick_us
    }

    /// From here on no disk stands still for as long as an election timeout, but for a broken one.
    pub(crate) fn calm_disks(&mut self) {
        self.hiccup = (self.election_us() / (4 * self.sync_us)).clamp(1, self.hiccup);
    }

    /// How long one piece of work takes a disk that is so many times as slow as the plan says.
    pub(crate) fn disk_us(&self, chance: &mut Chance, slowness: u64) -> u64 {
        let slow = if chance.permille(5) { self.hiccup } else { slowness };
        slow * chance.between(self.sync_us / 2, 2 * self.sync_us)
    }

    /// How long one piece of work takes the machine.
    pub(crate) fn apply_us(&self, chance: &mut Chance) -> u64 {
        let slow = if chance.permille(5) { 1000 } else { 1 };
        slow * chance.between(20, 300)
    }
}

fn draw_clients(chance: &mut Chance) -> ClientPlan {
    ClientPlan {
        clients: chance.between(1, 6) as usize,
        is_open: chance.percent(30),
        think_us: *chance.pick(&[200_000, 500_000, 1_000_000, 2_000_000]),
        keys: *chance.pick(&[1, 3, 10, 50]),
        value_bytes_max: *chance.pick(&[8, 100, 1000]),
        mix: *chance.pick(&[
            [40, 25, 10, 10, 15],
            [80, 10, 5, 0, 5],
            [20, 60, 10, 5, 5],
            [30, 10, 10, 10, 40],
            [40, 10, 40, 5, 5],
        ]),
        compact_us: *chance.pick(&[0, 10 * SECOND, 60 * SECOND]),
        timeout_us: chance.between(1, 6) * SECOND,
        watchers: *chance.pick(&[0, 1, 1, 2, 4]),
        leases: chance.percent(35),
        stay: false,
    }
}

fn draw_faults(chance: &mut Chance, members: usize, only: Option<&[Fault]>) -> Vec<(Fault, u64)> {
    let quiet = chance.percent(5);
    let share = chance.between(10, 70);
    let mut faults = Vec::new();
    for fault in Fault::ALL {
        // Drawn whether it is on or not, so that to take one away leaves the others as they are.
        let is_drawn = chance.percent(share) && !quiet;
        let every = chance.between(5, 90) * SECOND;
        if is_drawn && fault.fits(members) && only.is_none_or(|only| only.contains(&fault)) {
            faults.push((fault, every));
        }
    }
    faults
}
