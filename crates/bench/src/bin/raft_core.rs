//! quorate-raft beside raft-rs: groups of three nodes on one thread, under the same work.
//!
//! ```text
//! cargo run --release -p quorate-bench --bin raft_core                     all, a few minutes
//! cargo run --release -p quorate-bench --bin raft_core -- --quick          rougher, half a minute
//! cargo run --release -p quorate-bench --bin raft_core -- --only 256/64/
//! cargo run --release -p quorate-bench --bin raft_core -- --instructions   counted by callgrind
//! ```
//! Medians over repeats in which the libraries take turns. Both keep their logs in their own memory
//! storage; every run checks that every node has applied every entry. `each-coalesced` means
//! `batch_append` for raft-rs. Bytes of an idle replica: `--bin raft_footprint`.
//!
//! What it said on two busy cores, of processor time with `--quick` and of instructions
//! (`--instructions`); the last column compares with raft-rs's default, one append a proposal:
//! ```text
//!                                      quorate            raft-rs            times   default
//! 256 B, 64 a batch, moved
//!   batched                        84 ns    538       716 ns   2,299        8.5
//!   each                        1,786 ns 13,185     2,430 ns  15,191        1.4
//!   each-coalesced                211 ns  1,609     1,009 ns   5,743        4.8      11.5
//! the same, encoded
//!   batched                       506 ns  3,560     1,002 ns   5,774        2.0
//!   each                        5,120 ns 37,957     5,260 ns  37,768        1.0
//!   each-coalesced                648 ns  4,639     1,400 ns   8,891        2.2       8.1
//! a tick of an idle group
//!   with a round of heartbeats           1,907     1,048 ns   6,896        3.6
//!   with nothing due                       139        76 ns     433        3.1
//! ```
//! Over all 54 cases: moved 0.9 to 19 times, encoded 0.9 to 3.8. Where it is about 1, a copy that
//! both make (`each` copies the payload, a wire copies it once more) takes most of the time.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use comfy_table::{Table, presets};
use quorate_bench::raft_core::cases::{Case, Figure, Library, alternate, instructions_each};
use quorate_bench::raft_core::{handles, measure, small};

/// Measures our Raft core and raft-rs under the same work, in turn.
#[derive(Parser, Debug)]
struct Args {
    /// Fewer repeats and shorter ones
    #[arg(long)]
    quick: bool,
    /// Only this part
    #[arg(long)]
    part: Option<Part>,
    /// Of the replication, only cases whose name (payload/batch/proposals/wire) contains this
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Count instructions with callgrind instead of measuring time; needs valgrind
    #[arg(long)]
    instructions: bool,
    /// How often everything is measured [default: 7, or 3 when quick]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: Option<u16>,
    /// Do one thing so often, without measuring it; what callgrind is given to count
    #[arg(long, value_name = "LIBRARY WORK COUNT", num_args = 3)]
    do_only: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Entries from proposal to application on three nodes
    Replication,
    /// Ticks of an idle group
    Idle,
    /// Committed index, status, and proposals one by one
    Small,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match &args.do_only {
        Some(words) => do_only(words),
        None => measure_all(&args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(args: &Args) -> Result<(), String> {
    if args.instructions && !measure::has_valgrind() {
        return Err(
            "there is no valgrind here, so instructions cannot be counted; install it, or \
                    leave --instructions out"
                .to_owned(),
        );
    }
    let wants = |part| args.part.is_none_or(|only| only == part);
    let only_replication = args.only.is_some();
    if wants(Part::Replication) {
        replication(args)?;
    }
    if wants(Part::Idle) && !only_replication {
        idle(args)?;
    }
    if wants(Part::Small) && !only_replication && !args.instructions {
        small_costs(args);
    }
    Ok(())
}

impl Args {
    fn repeats(&self) -> usize {
        self.repeats.map_or(if self.quick { 3 } else { 7 }, usize::from)
    }

    fn cases(&self) -> Vec<Case> {
        let words = self.only.as_deref().unwrap_or_default();
        let mut cases = Case::all();
        cases.retain(|case| case.to_string().contains(words));
        cases
    }
}

// Replication.

fn replication(args: &Args) -> Result<(), String> {
    let cases = args.cases();
    if cases.is_empty() {
        let names: Vec<String> = Case::all().iter().map(ToString::to_string).collect();
        return Err(format!("no such case; there are:\n{}", names.join("\n")));
    }
    let measured: Result<Vec<(Case, Vec<Figure>)>, String> =
        cases.into_iter().map(|case| Ok((case, replication_of(args, case)?))).collect();
    let measured = measured?;
    let mut table = table(&["payload", "batch", "proposals", "wire"], args.instructions, "entry");
    for (case, figures) in &measured {
        let mut words = vec![
            case.payload_bytes.to_string(),
            case.batch.to_string(),
            case.proposals().to_owned(),
            case.wire().to_owned(),
        ];
        // The option that coalesces is not raft-rs's default, which is the one to beat.
        let default = Case { coalesce: false, ..*case };
        let theirs = measured.iter().find(|(other, _)| *other == default);
        let by_default = theirs.filter(|_| case.coalesce).map(|(_, figures)| figures[2]);
        words.extend(figure_words(figures, by_default, args.instructions));
        table.add_row(words);
    }
    println!("Entries from proposal to application on all three nodes.\n{table}\n");
    Ok(())
}

fn replication_of(args: &Args, case: Case) -> Result<Vec<Figure>, String> {
    if args.instructions {
        let rounds = (case.rounds(64).max(2), case.rounds(64).max(2) + case.rounds(1024));
        return counted(|library| {
            let arguments = |rounds| do_only_words(library, &case.to_string(), rounds);
            instructions_each(arguments, rounds, case.batch)
        });
    }
    let entries = match (case.batch, case.payload_bytes) {
        (1, _) => 10_000,
        (_, 4096) => 32_768,
        _ => 65_536,
    };
    let rounds = case.rounds(if args.quick { entries / 4 } else { entries });
    Ok(alternate(&Library::ALL, args.repeats(), |library| {
        (library.replicate(case, rounds, |work| measure::cost(work)), rounds * case.batch)
    }))
}

// Idle groups.

fn idle(args: &Args) -> Result<(), String> {
    let mut table = table(&["tick of an idle group of three"], args.instructions, "tick");
    for (what, work, beats) in
        [("with a round of heartbeats", "beat", true), ("with nothing due", "tick", false)]
    {
        let figures = if args.instructions {
            counted(|library| {
                let arguments = |ticks| do_only_words(library, work, ticks);
                instructions_each(arguments, (100, 1100), 1)
            })?
        } else {
            let ticks = if args.quick { 10_000 } else { 50_000 };
            alternate(&Library::ALL, args.repeats(), |library| {
                (library.tick(beats, ticks, |work| measure::cost(work)), ticks)
            })
        };
        let mut words = vec![what.to_owned()];
        words.extend(figure_words(&figures, None, args.instructions));
        table.add_row(words);
    }
    println!("{table}\n");
    Ok(())
}

// Small costs.

fn small_costs(args: &Args) {
    for (title, costs) in [
        ("The committed index.", small::committed_index(args.repeats())),
        ("A leader's status.", small::status(args.repeats())),
        ("A proposal through the handle of a node.", handles::proposals(args.repeats())),
    ] {
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED);
        table.set_header(["members", "call", "CPU ns"]);
        for cost in costs {
            table.add_row([
                cost.members.to_string(),
                cost.call.to_owned(),
                format!("{:.1}", cost.cpu_ns),
            ]);
        }
        println!("{title}\n{table}\n");
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header([
        "voters",
        "library",
        "CPU ns",
        "Readies",
        "first_index",
        "last_index",
        "term",
        "entries",
        "others",
    ]);
    for cost in small::proposals(args.repeats()) {
        let mut words =
            vec![cost.voters.to_string(), cost.library.to_owned(), format!("{:.0}", cost.cpu_ns)];
        words.push(format!("{:.2}", cost.readies));
        words.extend(cost.storage_calls.iter().map(|calls| format!("{calls:.2}")));
        table.add_row(words);
    }
    println!("One proposal, committed before the next: of the leader, and CPU of all.\n{table}\n");
}

// Tables.

fn table(firsts: &[&str], instructions: bool, each: &str) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    let mut headings: Vec<String> = firsts.iter().map(|&first| first.to_owned()).collect();
    let plural = if each == "entry" { "entries" } else { "ticks" };
    let unit = if instructions { "instructions" } else { "CPU ns" };
    if !instructions {
        headings.extend(Library::ALL.map(|library| format!("{} {plural}/s", library.name())));
    }
    headings.extend(Library::ALL.map(|library| format!("{} {unit}/{each}", library.name())));
    headings.extend(["raft-rs/quorate".to_owned(), "raft-rs/async".to_owned()]);
    if each == "entry" {
        headings.push("raft-rs default/quorate".to_owned());
    }
    table.set_header(headings);
    table
}

/// The figures in the order of [`Library::ALL`], and how many times as much raft-rs takes.
fn figure_words(figures: &[Figure], by_default: Option<Figure>, instructions: bool) -> Vec<String> {
    let mut words = Vec::new();
    if !instructions {
        words.extend(figures.iter().map(|figure| format!("{:.0}", figure.per_second)));
    }
    words.extend(figures.iter().map(|figure| format!("{:.0}", figure.cpu_ns)));
    let [ours, ours_async, theirs] = figures else { return words };
    words.push(format!("{:.2}", theirs.cpu_ns / ours.cpu_ns));
    words.push(format!("{:.2}", theirs.cpu_ns / ours_async.cpu_ns));
    let by_default = by_default.map(|theirs| format!("{:.2}", theirs.cpu_ns / ours.cpu_ns));
    words.extend(by_default);
    words
}

// Instructions.

fn counted(count: impl Fn(Library) -> Result<f64, String>) -> Result<Vec<Figure>, String> {
    // In the field for what one costs, which here is instructions.
    let figure = |library| Ok(Figure { cpu_ns: count(library)?, per_second: 0.0 });
    Library::ALL.into_iter().map(figure).collect()
}

fn do_only_words(library: Library, work: &str, count: usize) -> Vec<String> {
    vec!["--do-only".to_owned(), library.name().to_owned(), work.to_owned(), count.to_string()]
}

/// Without looking at a clock: the wrapper around it does not bear callgrind.
fn do_only(words: &[String]) -> Result<(), String> {
    let [name, work, count] = words else { return Err("three words are needed".to_owned()) };
    let library = Library::ALL.into_iter().find(|library| library.name() == name);
    let library = library.ok_or_else(|| format!("no library {name}"))?;
    let count = count.parse().map_err(|_| format!("{count} is no number"))?;
    if work == "beat" || work == "tick" {
        library.tick(work == "beat", count, |work| work());
        return Ok(());
    }
    let case = Case::all().into_iter().find(|case| case.to_string() == *work);
    library.replicate(case.ok_or_else(|| format!("no work {work}"))?, count, |work| work());
    Ok(())
}
