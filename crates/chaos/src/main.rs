//! `quorate-chaos`: breaks clusters of real processes, round after round.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_chaos::{Engine, Kind, Plan, Report, Round, Settings, judge};
use quorate_history::History;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code when something could not be tried, as against: was tried, and is wrong.
const CANNOT: u8 = 2;

/// Breaks clusters of real quorate processes on this machine and judges what their clients saw.
///
/// Round after round, each with a fresh cluster and faults drawn from its seed: processes killed and
/// stopped, lines between members cut, one way too, or slow, disks full, syncs failing, leadership handed
/// over, members replaced, clients cut off or left without answers. What clients saw has to be linearizable,
/// nothing acknowledged may be lost, watchers have to be told all in order and once, no lease may end before
/// its time, and once enough is healed the cluster has to go on.
///
/// Exit codes: 0 all is well, 1 something is wrong or nothing was tested, 2 it could not be tried.
#[derive(Parser, Debug)]
#[command(name = "quorate-chaos", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Job>,
    /// How long, in all rounds
    #[arg(long, value_name = "COUNT", default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// Seed of the first round; each further one takes the next number
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Faults of a round last so long; its beginning and its end come on top
    #[arg(long, value_name = "SECONDS", default_value_t = 45,
          value_parser = clap::value_parser!(u64).range(5..=3600))]
    round: u64,
    /// What orders the clusters' commands
    #[arg(long, value_enum, default_value = "raft")]
    engine: Engine,
    /// Only these kinds of faults, all of them in every round [default: some of all]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    faults: Vec<Kind>,
    /// The quorate program [default: beside this one, or target/release/quorate]
    #[arg(long, value_name = "PATH")]
    quorate: Option<PathBuf>,
    /// Where members keep their data while they run [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Print the plan of the first round and stop
    #[arg(long)]
    plan: bool,
}

#[derive(Subcommand, Debug)]
enum Job {
    /// Judges a history that a round has left, once more
    Check {
        /// Its file
        file: PathBuf,
    },
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| 0.0 < *minutes && *minutes <= 1e6);
    minutes.ok_or_else(|| "a number of minutes such as 10 or 0.5 is needed".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Job::Check { file }) => check(file),
        None => rounds(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(CANNOT)
        }
    }
}

fn check(file: &Path) -> Result<bool, String> {
    let path = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {path}: {error}"))?;
    let history: History = text.parse().map_err(|error| format!("{path}: {error}"))?;
    let failures = judge(&history);
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    println!("{} operations, {} promises broken", history.operations.len(), failures.len());
    Ok(failures.is_empty() && !history.operations.is_empty())
}

fn rounds(args: &Args) -> Result<bool, String> {
    if let Some(kind) = args.faults.iter().find(|kind| !args.engine.kinds().contains(kind)) {
        return Err(format!("{kind} is not for {}", args.engine.name()));
    }
    if args.plan {
        println!("{:#?}", plan(args, args.seed));
        return Ok(true);
    }
    let settings = Settings {
        program: program(args)?,
        parent: args.folder.clone().unwrap_or_else(std::env::temp_dir),
        engine: args.engine,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let mut total = Report::default();
    let ended = runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot hear signals: {error}"));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        tokio::select! {
            ended = all_rounds(args, &settings, &mut total) => ended,
            _ = interrupt.recv() => Err("interrupted".to_owned()),
            _ = terminate.recv() => Err("terminated".to_owned()),
        }
    });
    println!("\n{total}");
    ended?;
    let idle = total.idle();
    for why in &idle {
        println!("FAILED: nothing was tested: {why}");
    }
    let is_well = total.failures.is_empty() && idle.is_empty();
    println!("{}", if is_well { "verdict: all promises kept" } else { "verdict: NOT WELL" });
    Ok(is_well)
}

async fn all_rounds(args: &Args, settings: &Settings, total: &mut Report) -> Result<(), String> {
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let begun = Instant::now();
    let bar = bar(length);
    for seed in args.seed.. {
        let plan = plan(args, seed);
        let kinds: Vec<&str> = plan.kinds.iter().map(|kind| kind.name()).collect();
        let head = format!("seed {seed}: {} members, {}", plan.members, kinds.join(" "));
        bar.set_message(format!("seed {seed}"));
        let before = begun.elapsed();
        let progress = |so_far: Duration| bar.set_position((before + so_far).as_secs());
        let report =
            Round::run(settings, plan, progress).await.map_err(|error| error.to_string())?;
        bar.suspend(|| {
            let word = if report.failures.is_empty() { "well" } else { "NOT WELL" };
            let (ok, refused, unknown) = (report.ok, report.refused, report.unknown);
            println!("{head}: {ok} ok, {refused} refused, {unknown} unknown: {word}");
        });
        let is_well = report.failures.is_empty();
        if let Some(kept) = &report.kept {
            let history = kept.join("history.txt");
            println!("check it again: quorate-chaos check {}", history.display());
        }
        total.add(report);
        // The first failure is the one to look at.
        if !is_well || length <= begun.elapsed() {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn bar(length: Duration) -> ProgressBar {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(length.as_secs()),
        false => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} s");
    bar.with_style(style.expect("a template of ours"))
}

fn plan(args: &Args, seed: u64) -> Plan {
    let length = Duration::from_secs(args.round);
    match args.faults.is_empty() {
        true => Plan::draw(seed, length, &args.engine.kinds()),
        false => Plan::with(seed, length, args.faults.clone()),
    }
}

/// The program that is to be broken, of a release build if nobody says otherwise.
fn program(args: &Args) -> Result<PathBuf, String> {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("quorate"));
    let built = PathBuf::from("target/release/quorate");
    let found = match &args.quorate {
        Some(path) => path.clone(),
        None => beside.filter(|path| path.is_file()).unwrap_or(built),
    };
    if found.is_file() {
        return Ok(found);
    }
    let path = found.display();
    Err(format!("{path} is not there; name it with --quorate, or: cargo build --release"))
}
