//! A cluster of three under a mixed load for a long time: does anything grow that should not?
//!
//! ```text
//! cargo build --release && cargo run --release -p quorate-bench --bin soak -- --minutes 60
//! ```
//! The keys are a bounded space and old revisions are compacted away, so after a while memory, open
//! files and files on disk should stay what they are. Every interval prints what they are; the last
//! line compares memory early and late. That is for people to judge: the exit code only says whether
//! the cluster stood.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use quorate_bench::cluster::{Cluster, ClusterError, Ports, Program};
use quorate_bench::usage::Usage;
use quorate_load::{Load, Measured, Progress, Work};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use quorate_proto::tonic::transport::Endpoint;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

const NODE_COUNT: usize = 3;
const MIB: f64 = (1 << 20) as f64;
/// How long a member that was killed stays away.
const PAUSE: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Keeps a cluster of three busy for a long time and prints what it holds.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// How long
    #[arg(long, value_name = "COUNT", default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Clients, each with one request under way
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: u32,
    /// Connections that the clients share, at most
    #[arg(long, value_name = "COUNT", default_value_t = 12,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Length of every value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_bytes: usize,
    /// Number of different keys
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    key_space: u64,
    /// Time between two lines
    #[arg(long, value_name = "SECONDS", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Time between two compactions; each keeps the revisions since the one before
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..))]
    compact: u64,
    /// Kill and restart one member after the other
    #[arg(long)]
    restarts: bool,
    /// Time between two restarts
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "restarts",
          value_parser = clap::value_parser!(u64).range(1..))]
    restart_interval: u64,
    /// The quorate program [default: beside this one, or target/release/quorate]
    #[arg(long, value_name = "PATH")]
    quorate: Option<PathBuf>,
    /// Ports are taken from here on, below 32768
    #[arg(long, value_name = "PORT", default_value_t = 26_000)]
    first_port: u16,
    /// Where the members keep their data while they run [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if 0.0 < minutes && minutes <= 1e6 => Ok(minutes),
        _ => Err(format!("{text:?} is no number of minutes such as 10 or 0.5")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}")),
    };
    let mut samples = Vec::new();
    let ended = runtime.block_on(until_signal(&args, &mut samples));
    if let Some(verdict) = verdict(&samples) {
        println!("{verdict}");
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("ended early: {why}")),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// Soaks until all is done or a signal comes. Either way the members have ended when it returns.
async fn until_signal(args: &Args, samples: &mut Vec<Sample>) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        ended = soak(args, samples) => ended,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
    }
}

async fn soak(args: &Args, samples: &mut Vec<Sample>) -> Result<(), String> {
    let load = Load {
        client_count: args.clients,
        request_count: u64::MAX,
        duration_max: Some(Duration::from_secs_f64(args.minutes * 60.0)),
        value_bytes: args.value_bytes,
        key_count: args.key_space,
        ..Load::new(Work::Mixed)
    };
    load.check().map_err(|error| error.to_string())?;
    let program = program(args)?;
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut ports = Ports::from(args.first_port);
    let told = |error: ClusterError| error.to_string();
    let mut cluster =
        Cluster::start(&program, NODE_COUNT, &mut ports, &folder).await.map_err(told)?;
    let endpoints = cluster.endpoints();
    let connections = args.connections.min(args.clients);
    let channels =
        quorate_load::connect(&endpoints, connections).await.map_err(|error| error.to_string())?;

    let progress = Progress::default();
    let mut running = {
        let progress = progress.clone();
        tokio::spawn(async move { quorate_load::run(&load, &channels, &progress).await })
    };
    let compacting = tokio::spawn(compact(endpoints, Duration::from_secs(args.compact)));
    let begun = Instant::now();
    let mut sampling = every(args.interval);
    let mut restarting = every(args.restart_interval);
    let mut restart_count = 0;
    println!("{}", Sample::header());
    let measured = loop {
        tokio::select! {
            measured = &mut running => break measured,
            _ = sampling.tick() => {
                let sample = Sample::take(&mut cluster, begun.elapsed(), &progress)?;
                println!("{}", sample.line(samples.last()));
                samples.push(sample);
            }
            _ = restarting.tick(), if args.restarts => {
                let number = restart_count % NODE_COUNT;
                cluster.restart(number, PAUSE).await.map_err(told)?;
                restart_count += 1;
                println!("n{number} was killed and is back");
            }
        }
    };
    compacting.abort();
    let measured = measured.map_err(|error| error.to_string())?;
    let measured = measured.map_err(|error| error.to_string())?;
    let sample = Sample::take(&mut cluster, begun.elapsed(), &progress)?;
    println!("{}", sample.line(samples.last()));
    samples.push(sample);
    println!("{}", summary(&measured));
    match measured.given_up {
        true => Err("only failures for a while".to_owned()),
        false => Ok(()),
    }
}

/// The program of a release build: beside this one, or else where cargo puts it.
fn program(args: &Args) -> Result<Program, String> {
    let here = std::env::current_exe().ok();
    let beside = here.and_then(|path| Some(path.parent()?.join("quorate")));
    let path = match (&args.quorate, beside) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) if path.is_file() && !cfg!(debug_assertions) => path,
        _ => Path::new("target/release/quorate").to_owned(),
    };
    match path.is_file() {
        true => Ok(Program { name: "quorate", path, words: &["serve"] }),
        false => {
            let path = path.display();
            Err(format!("{path} is not there; build it with: cargo build --release"))
        }
    }
}

/// Ticks this far apart, the first after one of them.
fn every(seconds: u64) -> tokio::time::Interval {
    let period = Duration::from_secs(seconds);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    // After a restart that took its time, one line is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Compacts again and again, each time to the revision of the time before.
async fn compact(endpoints: Vec<Endpoint>, period: Duration) {
    let mut kept = None;
    loop {
        tokio::time::sleep(period).await;
        // A member may be away for the moment; the next one knows as much.
        for endpoint in &endpoints {
            let channel = endpoint.clone().connect_timeout(CALL_LIMIT).timeout(CALL_LIMIT);
            let Ok(channel) = channel.connect().await else { continue };
            let mut kv = KvClient::new(channel);
            let range = RangeRequest { key: "ready".into(), ..RangeRequest::default() };
            let Ok(answer) = kv.range(range).await else { continue };
            let now = answer.into_inner().header.map_or(0, |header| header.revision);
            if let Some(revision) = kept {
                let request = CompactionRequest { revision, physical: false };
                if let Err(status) = kv.compact(request).await {
                    eprintln!("revision {revision} was not compacted: {}", status.message());
                }
            }
            kept = Some(now);
            break;
        }
    }
}

/// What all members hold at one time.
#[derive(Clone, Debug)]
struct Sample {
    at: Duration,
    put_count: u64,
    ended_count: u64,
    members: Vec<Held>,
}

/// What one member holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    resident_bytes: u64,
    open_files: usize,
    log_bytes: u64,
    state_bytes: u64,
}

impl Sample {
    fn take(cluster: &mut Cluster, at: Duration, progress: &Progress) -> Result<Sample, String> {
        let servers = cluster.servers().map_err(|error| error.to_string())?;
        let members: io::Result<Vec<Held>> =
            servers.iter().map(|(process, folder)| Held::by(*process, folder)).collect();
        let members =
            members.map_err(|error| format!("cannot read what a member holds: {error}"))?;
        let (put_count, ended_count) = (progress.put_count(), progress.ended_count());
        Ok(Sample { at, put_count, ended_count, members })
    }

    fn header() -> String {
        format!(
            "{:>7} {:>7} {:>7}  {:>20}  {:>14}  {:>20}  {:>20}",
            "time", "put/s", "all/s", "RSS MiB", "open files", "log MiB", "kv MiB"
        )
    }

    /// A line for people; rates are since the sample before.
    fn line(&self, before: Option<&Sample>) -> String {
        let (since, put, ended) = before.map_or((Duration::ZERO, 0, 0), |before| {
            (before.at, before.put_count, before.ended_count)
        });
        let seconds = (self.at.saturating_sub(since)).as_secs_f64().max(1e-3);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let each = |number: &dyn Fn(&Held) -> String, width: usize| {
            let numbers = self.members.iter().map(|held| format!("{:>width$}", number(held)));
            numbers.collect::<Vec<_>>().join(" ")
        };
        format!(
            "{:>6.0}s {:>7.0} {:>7.0}  {}  {}  {}  {}",
            self.at.as_secs_f64(),
            rate(self.put_count, put),
            rate(self.ended_count, ended),
            each(&|held| format!("{:.1}", held.resident_bytes as f64 / MIB), 6),
            each(&|held| held.open_files.to_string(), 4),
            each(&|held| format!("{:.1}", held.log_bytes as f64 / MIB), 6),
            each(&|held| format!("{:.1}", held.state_bytes as f64 / MIB), 6),
        )
    }
}

impl Held {
    fn by(process: u32, folder: &Path) -> io::Result<Held> {
        Ok(Held {
            resident_bytes: Usage::of(process)?.resident_bytes,
            open_files: std::fs::read_dir(format!("/proc/{process}/fd"))?.count(),
            log_bytes: size(&folder.join("wal")),
            state_bytes: size(&folder.join("kv.redb")),
        })
    }
}

/// The length of a file, or of all files below a folder. What goes away meanwhile does not count.
fn size(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => std::fs::symlink_metadata(path).map_or(0, |file| file.len()),
    }
}

fn summary(measured: &Measured) -> String {
    let mut text = format!(
        "{} requests answered, {:.0} per second, p99 {:.1} ms; {} failed",
        measured.answered_count(),
        measured.rate(),
        measured.latency.quantile(0.99).as_secs_f64() * 1e3,
        measured.failed_count(),
    );
    for (kind, count) in &measured.failures {
        text.push_str(&format!("\n  {count} x {kind}"));
    }
    text
}

/// Memory of each member in the second half beside that in the first quarter: medians, so that one
/// compaction or restart does not decide. Nothing with too few samples.
fn verdict(samples: &[Sample]) -> Option<String> {
    let (early, late) = (samples.len() / 4, samples.len() / 2);
    if early == 0 {
        return None;
    }
    let mut words = Vec::new();
    for number in 0..NODE_COUNT {
        let median = |samples: &[Sample]| {
            let bytes = samples.iter().map(|sample| sample.members[number].resident_bytes);
            let mut bytes: Vec<u64> = bytes.collect();
            bytes.sort_unstable();
            bytes[bytes.len() / 2] as f64 / MIB
        };
        let (before, after) = (median(&samples[..early]), median(&samples[late..]));
        words.push(format!("n{number} {before:.1} -> {after:.1} ({:.2})", after / before));
    }
    Some(format!("verdict: median RSS in MiB, first quarter -> second half: {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, mib: u64) -> Sample {
        let held = Held { resident_bytes: mib << 20, open_files: 7, ..Held::default() };
        Sample {
            at: Duration::from_secs(seconds),
            put_count: 100 * seconds,
            ended_count: 200 * seconds,
            members: vec![held; NODE_COUNT],
        }
    }

    #[test]
    fn early_and_late_memory_are_compared_by_medians() {
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[sample(1, 1), sample(2, 1), sample(3, 1)]), None);
        // One that stands out on either side changes nothing.
        let mib = [10, 99, 10, 10, 10, 10, 20, 20, 20, 99, 20, 20];
        let samples: Vec<Sample> = mib.iter().zip(1..).map(|(mib, at)| sample(at, *mib)).collect();
        let verdict = verdict(&samples).unwrap();
        assert!(verdict.contains("n0 10.0 -> 20.0 (2.00), n1 10.0 -> 20.0 (2.00)"), "{verdict}");
    }

    #[test]
    fn a_line_has_the_rates_since_the_one_before() {
        let (first, second) = (sample(10, 5), sample(30, 5));
        for line in [first.line(None), second.line(Some(&first))] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1..6], ["100", "200", "5.0", "5.0", "5.0"], "{line}");
            assert_eq!(words.len(), 15, "{line}");
        }
        assert_eq!(Sample::header().len(), first.line(None).len());
    }

    #[test]
    fn sizes_are_of_all_files_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), [0; 100]).unwrap();
        std::fs::write(folder.path().join("c"), [0; 11]).unwrap();
        assert_eq!(size(folder.path()), 111);
        assert_eq!(size(&folder.path().join("c")), 11);
        assert_eq!(size(&folder.path().join("nothing")), 0);
        assert!(Held::by(std::process::id(), folder.path()).unwrap().open_files > 2);
    }

    #[test]
    fn arguments_are_checked() {
        for (line, good) in [
            ("soak", true),
            ("soak --minutes 0.5 --clients 4 --value-bytes 10", true),
            ("soak --restarts --restart-interval 5", true),
            ("soak --minutes 0", false),
            ("soak --minutes x", false),
            ("soak --interval 0", false),
        ] {
            assert_eq!(Args::try_parse_from(line.split(' ')).is_ok(), good, "{line}");
        }
    }
}
