//! `quorate bench`: how fast a cluster answers. Any server of the etcd v3 API can be measured.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quorate_load::{Load, Measured, Progress, Work};
use serde::Serialize;

use crate::client::{CliError, Form, MemberFlags, parse_duration};

/// Measures how fast a cluster answers.
#[derive(clap::Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    work: BenchWork,
}

#[derive(clap::Subcommand, Debug)]
enum BenchWork {
    /// Puts values to keys under bench/, which stay there
    Put {
        /// Each key in turn instead of keys at random
        #[arg(long)]
        sequential: bool,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Reads keys at random that `bench put --sequential` put there
    Get {
        /// Answered from the member's own state, which may be old, without a quorum
        #[arg(long)]
        serializable: bool,
        #[command(flatten)]
        load: LoadArgs,
    },
}

#[derive(clap::Args, Debug)]
struct LoadArgs {
    /// Clients, each with one request under way
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: u32,
    /// HTTP/2 connections that the clients share, to the endpoints in turn
    #[arg(long, value_name = "COUNT", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests in all
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    total: u64,
    /// Stop after this long, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Length of every value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_bytes: usize,
    /// Length of every key
    #[arg(long, value_name = "BYTES", default_value_t = 24)]
    key_bytes: usize,
    /// Number of different keys
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    key_space: u64,
    /// A request without an answer after this long has failed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    request_timeout: Duration,
    /// Stop when failures have been all there was for this long
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    give_up_after: Duration,
    /// Where chance starts
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    flags: MemberFlags,
}

impl LoadArgs {
    fn load(&self, work: Work) -> Load {
        Load {
            client_count: self.clients,
            request_count: self.total,
            duration_max: self.duration,
            request_timeout: self.request_timeout,
            silence_max: self.give_up_after,
            key_bytes: self.key_bytes,
            key_count: self.key_space,
            value_bytes: self.value_bytes,
            seed: self.seed,
            ..Load::new(work)
        }
    }
}

/// Measures, and prints what came of it.
pub(crate) fn run(args: BenchArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::Failed(format!("cannot start threads: {error}")).tell(),
    };
    match runtime.block_on(measure(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.tell(),
    }
}

async fn measure(args: BenchArgs) -> Result<(), CliError> {
    let (work, args) = match args.work {
        BenchWork::Put { sequential: false, load } => (Work::Put, load),
        BenchWork::Put { sequential: true, load } => (Work::Fill, load),
        BenchWork::Get { serializable, load } => (Work::Get { serializable }, load),
    };
    let form = args.flags.form()?;
    let load = args.load(work);
    load.check().map_err(|error| CliError::Arguments(error.to_string()))?;
    let endpoints = args.flags.target(args.request_timeout)?.endpoints();
    // More connections than clients would stand idle.
    let connections = args.connections.min(args.clients);
    let channels = quorate_load::connect(&endpoints, connections)
        .await
        .map_err(|error| CliError::Unreachable(error.to_string()))?;

    let progress = Progress::default();
    let stop_on_signal = tokio::spawn({
        let progress = progress.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                progress.stop();
            }
            // Those under way may take their whole time; whoever asks twice does not want to wait.
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    let bar = tokio::spawn(show(progress.clone(), load.request_count));
    let measured = quorate_load::run(&load, &channels, &progress).await;
    bar.abort();
    stop_on_signal.abort();
    // The bar is gone from the terminal only when its task has let go of it.
    let _ = bar.await;
    let measured = measured.map_err(|error| CliError::Arguments(error.to_string()))?;

    let report = Report::new(&load, connections, &measured);
    let text = match form {
        Some(Form::Json) => {
            serde_json::to_string(&report).map_err(|e| CliError::Output(e.into()))? + "\n"
        }
        None | Some(Form::Simple | Form::Fields | Form::Table) => report.text(),
    };
    let mut output = std::io::stdout();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(CliError::Output)?;
    if measured.given_up {
        return Err(CliError::Failed("stopped early: only failures for a while".to_owned()));
    }
    if measured.answered_count() == 0 && 0 < measured.failed_count() {
        return Err(CliError::Failed("no request succeeded".to_owned()));
    }
    Ok(())
}

/// Draws how far the load has come, until it is aborted.
async fn show(progress: Progress, total: u64) {
    const STYLE: &str = "{bar:40} {pos}/{len} ({per_sec}, {eta} left)";
    let style = ProgressStyle::with_template(STYLE).expect("the template is well-formed");
    let bar = Cleared(ProgressBar::new(total).with_style(style));
    loop {
        bar.0.set_position(progress.ended_count());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Leaves nothing behind on the terminal.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What came of a load, with the units in the names.
#[derive(Serialize)]
struct Report {
    work: &'static str,
    clients: u32,
    connections: u32,
    key_bytes: usize,
    value_bytes: usize,
    answered: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
    seconds: f64,
    per_second: f64,
    latency_ms: LatencyMs,
    failures: Vec<FailureCount>,
    given_up: bool,
}

#[derive(Serialize)]
struct LatencyMs {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

#[derive(Serialize)]
struct FailureCount {
    kind: String,
    count: u64,
}

impl Report {
    fn new(load: &Load, connections: u32, measured: &Measured) -> Report {
        let (work, reads) = match load.work {
            Work::Put => ("put", false),
            Work::Fill => ("put, sequential", false),
            Work::Get { serializable: false } => ("get, linearizable", true),
            Work::Get { serializable: true } => ("get, serializable", true),
            Work::Mixed => ("mixed", false),
        };
        let latency = &measured.latency;
        let quantile = |share| ms(latency.quantile(share));
        let failures = measured.failures.iter();
        Report {
            work,
            clients: load.client_count,
            connections,
            key_bytes: load.key_bytes,
            value_bytes: load.value_bytes,
            answered: measured.answered_count(),
            failed: measured.failed_count(),
            found: reads.then_some(measured.found_count),
            seconds: measured.wall.as_secs_f64(),
            per_second: measured.rate(),
            latency_ms: LatencyMs {
                mean: ms(latency.mean()),
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: ms(latency.max()),
            },
            failures: failures
                .map(|(kind, count)| FailureCount { kind: kind.to_string(), count: *count })
                .collect(),
            given_up: measured.given_up,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<12} {value}").expect("a string takes all");
        };
        let Report { clients, connections, key_bytes, value_bytes, .. } = self;
        line(
            self.work,
            format!(
                "{clients} clients on {connections} connections, keys of {key_bytes} bytes{}",
                match self.found {
                    None => format!(", values of {value_bytes} bytes"),
                    Some(_) => String::new(),
                }
            ),
        );
        line("answered", format!("{} in {:.2} s", self.answered, self.seconds));
        line("throughput", format!("{:.0} per second", self.per_second));
        if 0 < self.answered {
            let LatencyMs { mean, p50, p90, p99, p999, max } = self.latency_ms;
            line(
                "latency",
                format!(
                    "p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, \
                     max {max:.2} ms, mean {mean:.2} ms"
                ),
            );
        }
        if let Some(found) = self.found
            && found < self.answered
        {
            let absent = self.answered - found;
            line("absent", format!("{absent} reads; `bench put --sequential` puts every key"));
        }
        line("failed", self.failed.to_string());
        for FailureCount { kind, count } in &self.failures {
            line("", format!("{count} x {kind}"));
        }
        text
    }
}

fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn arguments_become_a_load() {
        let program = BenchArgs::augment_args(clap::Command::new("bench"));
        let words = "bench get --serializable --clients 7 --connections 3 --total 9 --key-space 5 \
                     --key-bytes 30 --value-bytes 2 --duration 1m --endpoints a:1,b:2";
        let matches = program.try_get_matches_from(words.split_whitespace()).unwrap();
        let BenchWork::Get { serializable: true, load } =
            BenchArgs::from_arg_matches(&matches).unwrap().work
        else {
            panic!("the words ask for serializable reads");
        };
        assert_eq!(load.connections, 3);
        assert_eq!(load.flags.target(load.request_timeout).unwrap().endpoints().len(), 2);
        let load = load.load(Work::Put);
        assert_eq!((load.client_count, load.request_count), (7, 9));
        assert_eq!((load.key_count, load.key_bytes, load.value_bytes), (5, 30, 2));
        assert_eq!(load.duration_max, Some(Duration::from_secs(60)));
        assert_eq!(load.check(), Ok(()));
    }
}
