//! Whole clusters on one thread, from one seed: the production replica, engine, log and state machine
//! on simulated networks, disks and clocks, with clients, faults, and checkers that end a run at the
//! first broken promise.
//!
//! ```
//! use quorate_sim::{Options, run};
//!
//! let outcome = run(1, &Options { seconds: Some(30), ..Options::default() }, None);
//! assert_eq!(outcome.violation, None);
//! println!("{}", outcome.ledger);
//! ```
//!
//! ```text
//! seed ─► plan ─► world: one queue of events by (time, order)
//!                   ├─ node ×n: Replica, Wal, Store on one SimDisk each
//!                   ├─ network, clients, operator, faults
//!                   └─ checks: one promise each
//! ```
//! A run is a function of its seed and options: no clock is read, no thread started, and no map is
//! walked whose order could differ. To see a failing one again, run its seed again.
//!
//! Where to look: `plan.rs` what a seed stands for, `faults.rs` what goes wrong, `node.rs` how a
//! member is carried (as `runtime` does it), `check/` what is promised, `healing.rs` the end.

mod chance;
mod check;
mod clients;
mod disk;
mod faults;
mod healing;
mod ledger;
mod lives;
mod member;
mod network;
mod node;
mod operator;
mod plan;
mod serving;
mod shrink;
mod slant;
mod transfer;
mod watching;
mod world;

pub use faults::Fault;
pub use ledger::Ledger;
pub use quorate_replica::Engine;
pub use shrink::shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;
use world::World;

/// What a run may differ in from what its seed draws.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which engine the members run.
    pub engine: Engine,
    /// Simulated seconds with faults, instead of the one to ten minutes that the seed draws.
    pub seconds: Option<u64>,
    /// Clients, instead of as many as the seed draws.
    pub clients: Option<usize>,
    /// Whether autopilot looks after the members, instead of an operator.
    pub autopilot: bool,
    /// Of the faults that the seed draws, only these.
    pub only: Option<Vec<Fault>>,
}

impl Options {
    /// The command line that repeats a run.
    pub fn command(&self, seed: u64) -> String {
        let mut command = format!("quorate sim --seed {seed}");
        if self.engine != Engine::default() {
            command += &format!(" --engine {}", self.engine);
        }
        if self.autopilot {
            command += " --autopilot";
        }
        if let Some(seconds) = self.seconds {
            command += &format!(" --seconds {seconds}");
        }
        if let Some(clients) = self.clients {
            command += &format!(" --clients {clients}");
        }
        if let Some(only) = &self.only {
            let names: Vec<_> = only.iter().map(|fault| fault.name()).collect();
            command += &format!(
                " --only {}",
                if only.is_empty() { "none".into() } else { names.join(",") }
            );
        }
        command
    }
}

/// The kinds of faults that a seed draws.
pub fn faults_of(seed: u64, options: &Options) -> Vec<Fault> {
    Plan::draw(seed, options).faults.into_iter().map(|(fault, _)| fault).collect()
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// What the run amounted to.
    pub ledger: Ledger,
}

/// Runs one seed to its end, or until a promise is broken. `trace` gets one line for each event.
///
/// # Panics
///
/// Where production code does: that is a finding too.
pub fn run(seed: u64, options: &Options, trace: Option<&mut dyn FnMut(String)>) -> Outcome {
    let plan = Plan::draw(seed, options);
    let duration_us = plan.duration_us;
    let faults = plan.faults.clone();
    let mut world = World::new(seed, plan, trace);
    world.run_until(duration_us);
    if world.checks.violation().is_none() {
        world.heal_and_wait();
    }
    let now = world.now;
    world.checks.on_end_of_run(now);
    if world.checks.violation().is_none() {
        world.check_exercised(&faults);
    }
    let violation = world.checks.violation().map(str::to_owned);
    let mut ledger = world.checks.ledger.clone();
    ledger.seeds = 1;
    ledger.simulated_ms = world.now / 1000;
    ledger.violations = u64::from(violation.is_some());
    Outcome { violation, ledger }
}

/// Runs one seed as [`run`] does; where production code panics, that is the promise that was broken.
pub fn attempt(seed: u64, options: &Options, trace: Option<&mut dyn FnMut(String)>) -> Outcome {
    let ran = catch_unwind(AssertUnwindSafe(|| run(seed, options, trace)));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let ledger = Ledger { seeds: 1, violations: 1, ..Ledger::default() };
        let why = format!("a panic: {}", text.unwrap_or_default());
        Outcome { violation: Some(why), ledger }
    })
}

impl World<'_> {
    /// A run that exercised nothing shows nothing.
    fn check_exercised(&mut self, faults: &[(Fault, u64)]) {
        let ledger = &self.checks.ledger;
        if ledger.commits == 0 || ledger.elections == 0 || ledger.answers == 0 {
            self.checks.fail("nothing happened: no commits, elections or answers".to_owned());
            return;
        }
        let missing = faults.iter().find(|(fault, _)| {
            let happened = ledger.faults.contains_key(fault.name());
            !fault.is_ambient() && !happened && !self.void_faults.contains(fault)
        });
        if let Some((fault, _)) = missing {
            self.checks.fail(format!("{} was drawn and never happened", fault.name()));
        }
    }
}
