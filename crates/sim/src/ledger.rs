//! What runs amounted to: figures that can be added up.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// Figures of one run or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Runs.
    pub seeds: u64,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Log entries committed.
    pub commits: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Requests that were answered, of all kinds.
    pub answers: u64,
    /// Requests whose fate their client never learned.
    pub unknown: u64,
    /// Runs in which a promise was broken.
    pub violations: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What else happened that a run is to show.
    pub notable: BTreeMap<&'static str, u64>,
}

impl AddAssign<&Ledger> for Ledger {
    fn add_assign(&mut self, other: &Ledger) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        self.commits += other.commits;
        self.elections += other.elections;
        self.answers += other.answers;
        self.unknown += other.unknown;
        self.violations += other.violations;
        for (mine, others) in
            [(&mut self.faults, &other.faults), (&mut self.notable, &other.notable)]
        {
            for (kind, count) in others {
                *mine.entry(kind).or_default() += count;
            }
        }
    }
}

/// One line of `name=number`, sums of which are sums of runs.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { seeds, commits, elections, answers, unknown, violations, .. } = self;
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        let faults: u64 = self.faults.values().sum();
        write!(
            f,
            "ledger seeds={seeds} hours={hours:.2} commits={commits} elections={elections} \
             answers={answers} unknown={unknown} faults={faults} violations={violations}"
        )
    }
}
