//! `quorate script`: runs scripts over the Raft engine.
//!
//! Without `--check` each script is printed with what it gave, for a person to read. With it nothing
//! is printed but where a script gave something else than it says. Exit codes: 0 when all is well,
//! 1 when a script checked differs, 2 when a file cannot be read, written, or is no script.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use quorate_script::{Outcome, run_confchange, run_quorum, watch_raft};

use crate::tell;

#[derive(Args, Debug)]
pub(crate) struct ScriptArgs {
    /// What the scripts are written in
    #[arg(value_enum)]
    language: Language,
    /// The scripts
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only compare; log lines (those that begin with DEBUG, INFO, ...) do not count
    #[arg(long)]
    check: bool,
    /// Write the state trace of all nodes here, one JSON object a line (raft only)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// Whole clusters
    Raft,
    /// The arithmetic of quorums
    Quorum,
    /// Changes of membership
    Confchange,
}

const DIFFERENT: u8 = 1;
const FAILED: u8 = 2;

pub(crate) fn run(args: &ScriptArgs) -> ExitCode {
    if args.trace.is_some() && args.language != Language::Raft {
        return failed("--trace: only raft scripts have nodes to trace");
    }
    let (mut is_different, mut trace) = (false, String::new());
    for file in &args.files {
        let outcome = match run_file(args.language, file, &mut trace) {
            Ok(outcome) => outcome,
            Err(error) => return failed(&format!("{}: {error}", file.display())),
        };
        let text = match args.check {
            true => {
                outcome.diffs.iter().map(|diff| format!("{}: {diff}", file.display())).collect()
            }
            false => outcome.rewritten,
        };
        is_different |= args.check && !outcome.diffs.is_empty();
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            return failed(&format!("cannot print: {error}"));
        }
    }
    if let Some(path) = &args.trace
        && let Err(error) = std::fs::write(path, trace)
    {
        return failed(&format!("{}: {error}", path.display()));
    }
    if is_different { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS }
}

/// Runs one script; adds what it traced to `trace`.
fn run_file(language: Language, file: &Path, trace: &mut String) -> Result<Outcome, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let outcome = match language {
        Language::Raft => watch_raft(&text).map(|watched| {
            for line in watched.trace {
                writeln!(trace, "{line}").expect("a string takes all text");
            }
            watched.outcome
        }),
        Language::Quorum => run_quorum(&text),
        Language::Confchange => run_confchange(&text),
    };
    outcome.map_err(|error| error.to_string())
}

fn failed(text: &str) -> ExitCode {
    tell::error(text);
    ExitCode::from(FAILED)
}
