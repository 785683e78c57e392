//! `quorate serve` beside etcd: clusters of three on loopback, one after the other, under the same
//! load. Prints the medians of several repeats, and what processor time and memory they took.
//!
//! ```text
//! cargo build --release && cargo run --release -p quorate-bench --bin compare
//! cargo build --release && cargo run --release -p quorate-bench --bin compare -- --marks
//! cargo build --release && cargo run --release -p quorate-bench --bin compare -- --engines
//! ```
//! The second one takes half an hour: it also measures watchers, the memory of a million keys, restarts
//! with them, and failovers, and prints each number beside what it is to reach. The third compares the
//! two engines of quorate with each other: puts, and how soon there are writes again after a leader
//! was killed.
//!
//! Load generator and servers share the machine, so the numbers compare the two programs, and say
//! little about either on machines of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use quorate_bench::cluster::Program;
use quorate_bench::compare::{self, Comparison, Plan};
use quorate_bench::marks::{self, Figures, MarksPlan};
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
    /// Also measure watchers, memory, restarts and failovers, and print all that is to be reached
    #[arg(long)]
    marks: bool,
    /// Measure puts and failovers of quorate's two engines, instead of quorate and etcd
    #[arg(long, conflicts_with_all = ["only", "marks", "serializable", "etcd"])]
    engines: bool,
    /// With --marks: how many watchers there are
    #[arg(long, value_name = "COUNT", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    watchers: u32,
    /// With --marks: puts that they are told of
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    watched_puts: u64,
    /// With --marks: keys whose memory is measured
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    mark_keys: u64,
    /// With --marks: restarts with them
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    restarts: usize,
    /// With --marks and --engines: leaders killed
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    failovers: usize,
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
    let marks_plan = args.marks.then_some(MarksPlan {
        watcher_count: args.watchers,
        watched_put_count: args.watched_puts,
        key_count: args.mark_keys,
        restart_count: args.restarts,
        failover_count: args.failovers,
    });
    let further = match marks_plan {
        Some(marks_plan) => Further::Marks(marks_plan),
        None if args.engines => Further::Failovers(args.failovers),
        None => Further::Nothing,
    };
    let mut figures = Vec::new();
    let measuring = until_signal(&plan, &further, &mut comparison, &mut figures);
    let ended = runtime.block_on(measuring);
    print(&args, &plan, &comparison, &figures);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&format!("ended early: {why}")),
    }
}

/// What is measured beyond the loads.
enum Further {
    Nothing,
    Marks(MarksPlan),
    /// So many of each program.
    Failovers(usize),
}

fn print(args: &Args, plan: &Plan, comparison: &Comparison, figures: &[Figures]) {
    let rows = comparison.rows(plan);
    if args.json {
        let all = match args.marks || args.engines {
            true => serde_json::json!({ "loads": rows, "marks": figures }),
            false => serde_json::json!(rows),
        };
        println!("{all:#}");
        return;
    }
    // An empty table would only hide why it is empty.
    if !comparison.is_empty() {
        println!("{}", comparison.table(plan));
    }
    if args.marks && !(rows.is_empty() && figures.is_empty()) {
        println!("{}", marks::table(plan, &rows, figures));
    }
    if args.engines && !figures.is_empty() {
        println!("{}", marks::failover_table(figures));
    }
}

/// Measures until all is done or a signal comes. Either way the servers have ended when it returns.
async fn until_signal(
    plan: &Plan,
    further: &Further,
    comparison: &mut Comparison,
    figures: &mut Vec<Figures>,
) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let measure = async {
        compare::run(plan, comparison).await.map_err(|error| error.to_string())?;
        let ended = match further {
            Further::Nothing => Ok(()),
            Further::Marks(marks_plan) => marks::run(plan, marks_plan, figures).await,
            Further::Failovers(count) => marks::failovers(plan, *count, figures).await,
        };
        ended.map_err(|error| error.to_string())
    };
    tokio::select! {
        ended = measure => ended,
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
        if args.engines {
            let words = &["serve", "--engine", "raft"];
            programs.push(Program { name: "raft", path: path.clone(), words });
            programs.push(Program { name: "zab", path, words: &["serve", "--engine", "zab"] });
        } else {
            programs.push(Program { name: "quorate", path, words: &["serve"] });
        }
    }
    if args.only != Some(Only::Quorate) && !args.engines {
        let path = args.etcd.clone();
        match path.is_file() {
            true => programs.push(Program { name: "etcd", path, words: &[] }),
            false if args.only.is_some() => return Err(format!("{} is not there", path.display())),
            false => eprintln!("{} is not there: only quorate is measured", path.display()),
        }
    }
    let mut works = vec![Work::Put];
    if !args.engines {
        works.push(Work::Get { serializable: false });
    }
    if args.serializable || args.marks {
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
