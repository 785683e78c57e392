//! `quorate serve` beside etcd: clusters of three on loopback, one after the other, under the same
//! load. Prints the medians of several repeats, and what processor time and memory they took.
//!
//! ```text
//! cargo build --release && cargo run --release -p quorate-bench --bin compare
//! ```
//! Load generator and servers share the machine, so the numbers compare the two programs, and say
//! little about either on machines of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use quorate_bench::cluster::Program;
use quorate_bench::compare::{self, Comparison, Plan};
use quorate_load::Work;
use tokio::signal::unix::{SignalKind, signal};

/// Measures clusters of quorate and of etcd under the same load, in turn.
#[derive(Parser, Debug)]
struct Args {
    /// The quorate program [default: beside this one, or target/release/quorate]
    #[arg(long, value_name = "PATH")]
    quorate: Option<PathBuf>,
    /// The etcd program
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Measure only one of the two
    #[arg(long)]
    only: Option<Only>,
    /// Clients, one measurement each
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<u32>,
    /// Connections that the clients share, at most
    #[arg(long, value_name = "COUNT", default_value_t = 12,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests of one measurement, at most
    #[arg(long, value_name = "COUNT", default_value_t = 50_000)]
    requests: u64,
    /// Length of one measurement, at most
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// How often everything is measured
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    repeats: usize,
    /// Servers of a cluster
    #[arg(long, value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Length of every value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_bytes: usize,
    /// Number of different keys
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    key_space: u64,
    /// Also measure serializable reads
    #[arg(long)]
    serializable: bool,
    /// Ports are taken from here on, below 32768
    #[arg(long, value_name = "PORT", default_value_t = 24_000)]
    first_port: u16,
    /// Where the servers keep their data while they run [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    Quorate,
    Etcd,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan = match plan(&args) {
        Ok(plan) => plan,
        Err(why) => return fail(&why),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}")),
    };
    let mut comparison = Comparison::default();
    let ended = runtime.block_on(until_signal(&plan, &mut comparison));
    match args.json {
        true => match serde_json::to_string_pretty(&comparison.rows(&plan)) {
            Ok(json) => println!("{json}"),
            Err(error) => return fail(&error.to_string()),
        },
        // An empty table would only hide why it is empty.
        false if comparison.is_empty() => {}
        false => println!("{}", comparison.table(&plan)),
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("ended early: {why}")),
    }
}

/// Measures until all is done or a signal comes. Either way the servers have ended when it returns.
async fn until_signal(plan: &Plan, comparison: &mut Comparison) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        ended = compare::run(plan, comparison) => ended.map_err(|error| error.to_string()),
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
        _ = hangup.recv() => Err("the terminal has gone".to_owned()),
    }
}

fn plan(args: &Args) -> Result<Plan, String> {
    let mut programs = Vec::new();
    if args.only != Some(Only::Etcd) {
        let path = args.quorate.clone().unwrap_or_else(built);
        if !path.is_file() {
            let path = path.display();
            return Err(format!("{path} is not there; build it with: cargo build --release"));
        }
        programs.push(Program { name: "quorate", path, words: &["serve"] });
    }
    if args.only != Some(Only::Quorate) {
        let path = args.etcd.clone();
        match path.is_file() {
            true => programs.push(Program { name: "etcd", path, words: &[] }),
            false if args.only.is_some() => return Err(format!("{} is not there", path.display())),
            false => eprintln!("{} is not there: only quorate is measured", path.display()),
        }
    }
    let mut works = vec![Work::Put, Work::Get { serializable: false }];
    if args.serializable {
        works.push(Work::Get { serializable: true });
    }
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: the load generator itself is slow");
    }
    for program in &programs {
        let version = version(&program.path).unwrap_or_else(|| "unknown version".to_owned());
        eprintln!("{}: {} ({version})", program.name, program.path.display());
    }
    if let Some(kind) = in_memory(&folder) {
        let folder = folder.display();
        eprintln!("{folder} is {kind}, where a sync costs nothing; --folder names another place");
    }
    Ok(Plan {
        programs,
        works,
        client_counts: args.clients.clone(),
        connections_max: args.connections,
        request_count: args.requests,
        duration_max: Duration::from_secs(args.seconds),
        repeat_count: args.repeats,
        node_count: args.nodes.into(),
        value_bytes: args.value_bytes,
        key_count: args.key_space,
        first_port: args.first_port,
        folder,
    })
}

/// The program of a release build: beside this one, or else where cargo puts it.
fn built() -> PathBuf {
    let here = std::env::current_exe().ok();
    let beside = here.and_then(|path| Some(path.parent()?.join("quorate")));
    match beside {
        Some(path) if path.is_file() && !cfg!(debug_assertions) => path,
        _ => Path::new("target/release/quorate").to_owned(),
    }
}

fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.to_owned())
}

/// The kind of file system when it keeps files in memory only.
fn in_memory(folder: &Path) -> Option<&'static str> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let (_, kind) = mounts
        .filter(|(place, _)| folder.starts_with(place))
        .max_by_key(|(place, _)| place.len())?;
    ["tmpfs", "ramfs"].into_iter().find(|memory| *memory == kind)
}

fn fail(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}
