//! Runs seeds and says how fast that was, with every seed that fails:
//!
//! ```text
//! cargo run --release -p quorate-sim --example seeds -- 1..1001 seconds=30 jobs=2
//! cargo run --release -p quorate-sim --example seeds -- 17 seconds=30 trace
//! ```
//!
//! Further words: `engine=zab`, `autopilot`, `clients=1`, `only=crash,power-loss`, `shrink` for one seed, and
//! `bug=NAME` for one of the bugs that tests put back, until it is found `times=1` times.
//! `quorate sim` does the same for whoever has it built; this needs a fraction of the time to build.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use quorate_sim::{Fault, Ledger, Options, attempt, shrink};
use quorate_types::bugs;

/// A fifth of a run is spent on memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Wanted {
    seeds: Range<u64>,
    options: Options,
    jobs: u64,
    traces: bool,
    shrinks: bool,
    bug: Option<&'static str>,
    times: u64,
}

fn main() {
    let wanted = Wanted::parse(std::env::args().skip(1));
    let (seed, options) = (wanted.seeds.start, &wanted.options);
    bugs::put_back(wanted.bug);
    if wanted.traces {
        let outcome = attempt(seed, options, Some(&mut |line| println!("{line}")));
        println!("{:?}\n{}", outcome.violation, outcome.ledger);
    } else if wanted.shrinks {
        match shrink(seed, options, &mut |options| attempt(seed, options, None).violation) {
            Some((options, why)) => println!("{why}\nagain: {}", options.command(seed)),
            None => println!("seed {seed} breaks nothing"),
        }
    } else {
        wanted.sweep();
    }
}

impl Wanted {
    fn parse(words: impl Iterator<Item = String>) -> Wanted {
        let (seeds, options) = (1..21, Options::default());
        let (traces, shrinks) = (false, false);
        let mut wanted =
            Wanted { seeds, options, jobs: 1, traces, shrinks, bug: None, times: u64::MAX };
        let number = |text: &str| text.parse::<u64>().expect("a number");
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match name {
                "trace" => wanted.traces = true,
                "shrink" => wanted.shrinks = true,
                "autopilot" => wanted.options.autopilot = true,
                "jobs" => wanted.jobs = number(value),
                "bug" => wanted.bug = Some(value.to_owned().leak()),
                "times" => wanted.times = number(value),
                "seconds" => wanted.options.seconds = Some(number(value)),
                "clients" => wanted.options.clients = Some(number(value) as usize),
                "engine" => wanted.options.engine = value.parse().expect("raft or zab"),
                "only" => {
                    wanted.options.only = Some(value.split(',').filter_map(Fault::named).collect());
                }
                seeds => {
                    wanted.seeds = match seeds.split_once("..") {
                        Some((first, last)) => number(first)..number(last),
                        None => number(seeds)..number(seeds) + 1,
                    }
                }
            }
        }
        wanted
    }

    #[expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "an example tells how fast it ran"
    )]
    fn sweep(&self) {
        let began = std::time::Instant::now();
        let next = AtomicU64::new(self.seeds.start);
        let total = Mutex::new(Ledger::default());
        let found = AtomicU64::new(0);
        let work = || {
            bugs::put_back(self.bug);
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if self.seeds.end <= seed || self.times <= found.load(Ordering::Relaxed) {
                    return;
                }
                let started = std::time::Instant::now();
                let outcome = attempt(seed, &self.options, None);
                let took = started.elapsed().as_secs_f64();
                if let Some(why) = &outcome.violation {
                    println!("seed {seed}, {took:.1} s: {why}");
                    found.fetch_add(1, Ordering::Relaxed);
                }
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                *total += &outcome.ledger;
                if total.seeds.is_multiple_of(100) {
                    println!("after {:.0} s: {total}", began.elapsed().as_secs_f64());
                }
            }
        };
        thread::scope(|scope| (0..self.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
        let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        let took = began.elapsed().as_secs_f64() * self.jobs as f64;
        let speed = total.simulated_ms as f64 / 1000.0 / took;
        println!("{total}\n{:?}\n{:?}", total.faults, total.notable);
        println!("{speed:.0} times real time on each of {} cores", self.jobs);
    }
}
