//! What a round will do, drawn from its seed before it begins.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;

/// What orders a cluster's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Raft.
    #[default]
    Raft,
    /// ZAB, whose members are fixed and whose leaders hand over to nobody in particular.
    Zab,
}

impl Engine {
    /// Its name, as `quorate serve` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Raft => "raft",
            Engine::Zab => "zab",
        }
    }

    /// The kinds of faults that mean something to it.
    pub fn kinds(self) -> Vec<Kind> {
        let is_known =
            |kind: &Kind| self == Engine::Raft || !matches!(kind, Kind::Transfer | Kind::Replace);
        Kind::ALL.into_iter().filter(is_known).collect()
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// `kill -9` of one member, or of most.
    Kill,
    /// `kill -9` of all at once.
    KillAll,
    /// SIGSTOP, and SIGCONT some time later.
    Pause,
    /// Members cut off from the others, both ways.
    Cut,
    /// Members that hear and are not heard, or the other way round.
    CutOneWay,
    /// One pair of members that do not reach each other, while all others reach both.
    CutPart,
    /// Messages that take long.
    Delay,
    /// A line of few bytes a second.
    Throttle,
    /// A volume without space.
    FullDisk,
    /// Syncs that fail.
    FailSync,
    /// Syncs that take long.
    SlowSync,
    /// Leadership handed over.
    Transfer,
    /// A member removed, and added again without its data.
    Replace,
    /// Connections of clients cut, or answers to them lost.
    CutClients,
}

/// Who is hit; found out when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whoever leads.
    Leader,
    /// One that does not.
    Follower,
    /// Any one.
    One,
    /// A majority, leader included.
    Most,
    /// All.
    All,
}

/// A fault and its measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// Who is hit.
    pub whom: Whom,
    /// For a cut: connections end, instead of going silent; of clients, instead of losing answers. For a
    /// one-way cut: what goes out is lost, instead of what comes in.
    pub flavour: bool,
    /// For delays and slow syncs: how long each takes.
    pub by: Duration,
}

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// When it begins, since the clients began.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

/// What a round will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// From which it was drawn.
    pub seed: u64,
    /// How many members.
    pub members: usize,
    /// How many clients, each with one request under way.
    pub clients: usize,
    /// How many keys they share.
    pub keys: usize,
    /// What a client waits between two requests, at most.
    pub think: Duration,
    /// Entries between two snapshots.
    pub snapshot_count: u64,
    /// The kinds that are on.
    pub kinds: Vec<Kind>,
    /// The faults, by when they begin.
    pub strikes: Vec<Strike>,
    /// While clients work under faults.
    pub length: Duration,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::Pause,
        Kind::Cut,
        Kind::CutOneWay,
        Kind::CutPart,
        Kind::Delay,
        Kind::Throttle,
        Kind::FullDisk,
        Kind::FailSync,
        Kind::SlowSync,
        Kind::Transfer,
        Kind::Replace,
        Kind::CutClients,
    ];

    /// Its name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::KillAll => "kill-all",
            Kind::Pause => "pause",
            Kind::Cut => "cut",
            Kind::CutOneWay => "cut-one-way",
            Kind::CutPart => "cut-part",
            Kind::Delay => "delay",
            Kind::Throttle => "throttle",
            Kind::FullDisk => "full-disk",
            Kind::FailSync => "fail-sync",
            Kind::SlowSync => "slow-sync",
            Kind::Transfer => "transfer",
            Kind::Replace => "replace",
            Kind::CutClients => "cut-clients",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Plan {
    /// Draws a plan in which some of `possible` are on. Each of those strikes at least once.
    pub fn draw(seed: u64, length: Duration, possible: &[Kind]) -> Plan {
        let mut chance = Chance::new(seed);
        let mut kinds: Vec<Kind> =
            possible.iter().copied().filter(|_| chance.percent(55)).collect();
        if kinds.is_empty() {
            kinds.extend(possible.first());
        }
        Plan::with(seed, length, kinds)
    }

    /// Draws a plan in which exactly these kinds are on.
    pub fn with(seed: u64, length: Duration, kinds: Vec<Kind>) -> Plan {
        let mut chance = Chance::new(seed.wrapping_mul(3).wrapping_add(1));
        let mut plan = Plan {
            seed,
            members: *chance.pick(&[3, 3, 3, 5]),
            clients: chance.between(4, 10) as usize,
            keys: chance.between(1, 6) as usize,
            think: Duration::from_millis(*chance.pick(&[5, 20, 60])),
            snapshot_count: *chance.pick(&[20, 100, 1000, 10_000]),
            kinds,
            strikes: Vec::new(),
            length,
        };
        if plan.kinds.is_empty() {
            return plan;
        }
        // Quiet at the beginning, then a fault after the other with pauses of a length of this plan's
        // own; now and then the next one begins while the last one lasts.
        let length = length.as_millis() as u64;
        let pause = *chance.pick(&[200, 800, 2500]);
        let overlap = *chance.pick(&[0, 20, 50]);
        let mut at = 1000;
        let mut turn = 0;
        while at + 1000 < length {
            // Each kind once, and then as it comes.
            let kind = match plan.kinds.get(turn) {
                Some(kind) => *kind,
                None => *chance.pick(&plan.kinds),
            };
            turn += 1;
            // Now and then longer than a server waits before it gives a request up.
            let lasts = match plan.kinds.len() < turn && chance.percent(20) {
                true => chance.between(6500, 9000),
                false => chance.between(400, 3500),
            };
            let lasts = lasts.min(length - at);
            let fault = plan.fault(&mut chance, kind);
            let (begin, end) = (Duration::from_millis(at), Duration::from_millis(lasts));
            plan.strikes.push(Strike { at: begin, lasts: end, fault });
            at += match chance.percent(overlap) {
                true => chance.between(100, lasts),
                false => lasts + chance.between(100, pause),
            };
        }
        plan
    }

    fn fault(&self, chance: &mut Chance, kind: Kind) -> Fault {
        let any = [Whom::Leader, Whom::Leader, Whom::Follower, Whom::One];
        let most = [Whom::Leader, Whom::Follower, Whom::Most];
        let whom = match kind {
            Kind::Kill | Kind::Pause => *chance.pick(&most),
            Kind::KillAll => Whom::All,
            Kind::Delay => *chance.pick(&[Whom::Leader, Whom::One, Whom::All]),
            Kind::Throttle | Kind::SlowSync => *chance.pick(&[Whom::Leader, Whom::One, Whom::Most]),
            // Followers have little to tell each other.
            Kind::CutPart => *chance.pick(&[Whom::Leader, Whom::Leader, Whom::Leader, Whom::One]),
            Kind::Cut | Kind::CutOneWay | Kind::FullDisk | Kind::FailSync => *chance.pick(&any),
            Kind::Transfer => Whom::Leader,
            Kind::Replace => *chance.pick(&[Whom::Follower, Whom::Follower, Whom::Leader]),
            Kind::CutClients => *chance.pick(&[Whom::Leader, Whom::One, Whom::Most, Whom::All]),
        };
        let by = Duration::from_millis(*chance.pick(&[20, 100, 300, 900]));
        Fault { kind, whom, flavour: chance.percent(50), by }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(60);

    #[test]
    fn a_plan_is_a_function_of_its_seed() {
        let one = |seed| Plan::draw(seed, LENGTH, &Kind::ALL);
        assert_eq!(one(7), one(7));
        assert_ne!(one(7).strikes, one(8).strikes);
    }

    #[test]
    fn plans_differ_in_what_is_on_and_strike_with_all_of_it() {
        let mut mixes = BTreeSet::new();
        for seed in 0..500 {
            let plan = Plan::draw(seed, LENGTH, &Kind::ALL);
            let on: BTreeSet<Kind> = plan.kinds.iter().copied().collect();
            let struck: BTreeSet<Kind> = plan.strikes.iter().map(|it| it.fault.kind).collect();
            assert_eq!(on, struck, "seed {seed}");
            assert!(!on.is_empty());
            for strike in &plan.strikes {
                assert!(strike.at + strike.lasts <= LENGTH, "seed {seed}: {strike:?}");
            }
            mixes.insert(on);
        }
        assert!(300 < mixes.len(), "only {} mixes", mixes.len());
        let left_out = Kind::ALL.iter().filter(|kind| mixes.iter().any(|mix| !mix.contains(kind)));
        assert_eq!(left_out.count(), Kind::ALL.len(), "each kind is left out at times");
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in Kind::ALL {
            use clap::ValueEnum;
            assert_eq!(Kind::from_str(kind.name(), false), Ok(kind));
        }
    }
}
