//! `quorate sim`: whole clusters from seeds, with faults, on simulated time.
//!
//! Exit codes: 0 when every promise was kept, 1 when one was broken, 2 for arguments that make no
//! sense. A failing seed is printed with the command that repeats it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_sim::{Engine, Fault, Ledger, Options, attempt, shrink};

const VIOLATED: u8 = 1;

#[derive(Args, Debug)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Runs this seed alone
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs these seeds: FIRST..LAST, the last left out
    #[arg(long, value_parser = seeds, default_value = "1..101")]
    seeds: Range<u64>,
    /// Goes on with further seeds until so many simulated hours have passed
    #[arg(long)]
    hours: Option<f64>,
    #[command(flatten)]
    run: RunArgs,
    /// Seeds run at once; as many as there are processors if not given
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints one line for each event; for one seed
    #[arg(long, requires = "seed")]
    trace: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Finds a smaller run that fails as well
    Shrink {
        /// The seed that fails
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        run: RunArgs,
    },
}

#[derive(Args, Debug, Clone)]
struct RunArgs {
    /// Which engine the members run: raft or zab
    #[arg(long, default_value_t)]
    engine: Engine,
    /// Autopilot looks after the members, instead of an operator with whims
    #[arg(long)]
    autopilot: bool,
    /// Simulated minutes with faults, instead of those that the seed draws
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// The same in seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Clients, instead of as many as the seed draws
    #[arg(long)]
    clients: Option<usize>,
    /// Of the faults that the seed draws, only these; "none" for none
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    only: Option<Vec<Option<Fault>>>,
}

impl RunArgs {
    fn options(&self) -> Options {
        let only = self.only.as_ref();
        Options {
            engine: self.engine,
            autopilot: self.autopilot,
            seconds: self.seconds.or(self.minutes.map(|minutes| 60 * minutes)),
            clients: self.clients,
            only: only.map(|only| only.iter().copied().flatten().collect()),
        }
    }
}

pub(crate) fn run(args: &SimArgs) -> ExitCode {
    let options = args.run.options();
    match &args.what {
        Some(What::Shrink { seed, run }) => shrink_seed(*seed, &run.options()),
        None => match args.seed {
            Some(seed) => run_one(seed, &options, args.trace),
            None => run_many(args, &options),
        },
    }
}

fn run_one(seed: u64, options: &Options, traces: bool) -> ExitCode {
    let mut print = |line: String| println!("{line}");
    let trace: Option<&mut dyn FnMut(String)> = if traces { Some(&mut print) } else { None };
    let outcome = attempt(seed, options, trace);
    report(&outcome.ledger);
    match &outcome.violation {
        None => ExitCode::SUCCESS,
        Some(why) => {
            println!("seed {seed} breaks a promise: {why}");
            println!("again: {}", options.command(seed));
            ExitCode::from(VIOLATED)
        }
    }
}

fn run_many(args: &SimArgs, options: &Options) -> ExitCode {
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let wanted_ms = args.hours.map(|hours| (hours * 3_600_000.0) as u64);
    let Range { start, end } = args.seeds.clone();
    let bar = ProgressBar::new(wanted_ms.map_or(end - start, |ms| ms / 60_000));
    let unit = if wanted_ms.is_some() { "simulated minutes" } else { "seeds" };
    let style =
        format!("{{elapsed_precise}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} left {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&style) {
        bar.set_style(style);
    }
    let (next, total) = (AtomicU64::new(start), Mutex::new(Ledger::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let done_ms = total.lock().unwrap_or_else(PoisonError::into_inner).simulated_ms;
                    let is_over = wanted_ms.map_or(end <= seed, |wanted| wanted <= done_ms);
                    if is_over {
                        return;
                    }
                    let outcome = attempt(seed, options, None);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    *total += &outcome.ledger;
                    match wanted_ms {
                        Some(_) => bar.set_position(total.simulated_ms / 60_000),
                        None => bar.inc(1),
                    }
                    if let Some(why) = &outcome.violation {
                        bar.set_message(format!("{} broke", total.violations));
                        let again = options.command(seed);
                        bar.suspend(|| {
                            println!("seed {seed} breaks a promise: {why}\nagain: {again}");
                        });
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&total);
    ExitCode::from(if total.violations == 0 { 0 } else { VIOLATED })
}

fn shrink_seed(seed: u64, options: &Options) -> ExitCode {
    let bar = ProgressBar::new_spinner();
    let mut fails = |options: &Options| {
        bar.set_message(options.command(seed));
        bar.tick();
        attempt(seed, options, None).violation
    };
    let smaller = shrink(seed, options, &mut fails);
    bar.finish_and_clear();
    match smaller {
        Some((options, why)) => {
            println!("seed {seed} still breaks a promise: {why}\nagain: {}", options.command(seed));
            ExitCode::from(VIOLATED)
        }
        None => {
            println!("seed {seed} breaks nothing");
            ExitCode::SUCCESS
        }
    }
}

fn report(ledger: &Ledger) {
    let line = |counts: &BTreeMap<&'static str, u64>| {
        let counts = counts.iter().map(|(what, count)| format!("{what} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    println!("faults: {}", line(&ledger.faults));
    println!("also: {}", line(&ledger.notable));
    println!("{ledger}");
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wanted = "two numbers, FIRST..LAST";
    let (first, last) = text.split_once("..").ok_or(wanted)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wanted.to_owned());
    let (first, last) = (number(first)?, number(last)?);
    if last <= first {
        return Err("the last has to be greater than the first".to_owned());
    }
    Ok(first..last)
}

fn fault(name: &str) -> Result<Option<Fault>, String> {
    if name == "none" {
        return Ok(None);
    }
    let known = || Fault::ALL.map(Fault::name).join(", ");
    Fault::named(name).map(Some).ok_or_else(|| format!("one of: {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds_are_checked() {
        for (text, want) in
            [("1..3", Some(1..3)), ("3..3", None), ("3", None), ("a..b", None), ("5..2", None)]
        {
            assert_eq!(seeds(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        for known in Fault::ALL {
            assert_eq!(fault(known.name()), Ok(Some(known)));
        }
        assert_eq!(fault("none"), Ok(None));
        assert!(fault("earthquake").unwrap_err().contains("bit-rot"));
    }
}
