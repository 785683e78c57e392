//! Does the simulator find bugs? Each of these is put back for a while, and has to be found.
//!
//! A bug comes with the seed that found it last. If that one finds it no more, since what seeds stand
//! for has changed, others are tried: `QUORATE_BUGS=all` does so for those that were never found, too,
//! and `QUORATE_BUGS=NAME,NAME` for these alone; `QUORATE_BUGS_FROM=500` goes on from there.

use std::time::Duration;

use quorate_sim::{Engine, Options, attempt};
use quorate_types::bugs;

/// A bug: its name in the code, its number in the catalogue (with a K, among gometa's weaknesses; with an A,
/// among those of autopilot), the file of the code that stands against it, and the seed that finds it with a
/// part of what is said then; no seed, if none is known. Those of ZAB's files are looked for with that engine,
/// those of `autopilot/` with autopilot in the operator's place.
type Bug = (&'static str, &'static str, &'static str, Option<(u64, &'static str)>);

include!("bugs/list.rs");

/// How long a bug may take to be found.
const TIME_MAX: Duration = Duration::from_secs(120);

/// What a run of this seed says is wrong, with this bug of this file.
fn violation(bug: &'static str, file: &str, seed: u64) -> Option<String> {
    let is_zabs = file.starts_with("zab/") || file == "replica/src/zab.rs";
    let engine = if is_zabs { Engine::Zab } else { Engine::Raft };
    let autopilot = file.starts_with("autopilot/");
    let options = Options { engine, autopilot, seconds: Some(120), ..Options::default() };
    bugs::put_back(Some(bug));
    let outcome = attempt(seed, &options, None);
    bugs::put_back(None);
    let why = outcome.violation?;
    // That a run showed little is no finding.
    (!why.ends_with("never happened")).then_some(why)
}

#[expect(clippy::disallowed_methods, reason = "what to try is for whoever runs the tests")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A seed that finds a bug, and what it says.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bound is on the time of whoever waits"
)]
fn find(bug: &'static str, file: &str, known: Option<u64>) -> Option<(u64, String)> {
    let began = std::time::Instant::now();
    let from = setting("QUORATE_BUGS_FROM").and_then(|from| from.parse().ok()).unwrap_or(1);
    known
        .into_iter()
        .chain(from..)
        .take_while(|_| began.elapsed() < TIME_MAX)
        .find_map(|seed| violation(bug, file, seed).map(|why| (seed, why)))
}

#[test]
fn bugs_that_are_put_back_are_found() {
    let which = setting("QUORATE_BUGS").unwrap_or_default();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (bug, _, file, known) in BUGS {
        let is_named = which.split(',').any(|name| name == *bug);
        if !is_named && which != "all" && (known.is_none() || !which.is_empty()) {
            continue;
        }
        match find(bug, file, known.map(|(seed, _)| seed)) {
            Some((seed, why)) => {
                let why = why.lines().next().unwrap_or_default();
                println!("{bug}: seed {seed}: {why}");
            }
            None => {
                println!("{bug}: not found");
                missed.push(*bug);
            }
        }
    }
    let _ = std::panic::take_hook();
    missed.retain(|bug| BUGS.iter().any(|(name, .., known)| name == bug && known.is_some()));
    assert!(missed.is_empty(), "not found in {TIME_MAX:?} each: {missed:?}");
}

/// The table in SAFETY.md names each bug that is found, and nothing else.
#[test]
fn the_table_of_bugs_is_true() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
    let read = |path: &str| {
        let text = std::fs::read_to_string(format!("{root}{path}"));
        text.unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let safety = read("SAFETY.md");
    let (_, section) = safety.split_once("### Bugs that are put back").expect("there is a table");
    let section = section.split("\n#").next().unwrap_or_default();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| ["| H", "| K", "| A"].iter().any(|prefix| line.starts_with(prefix)))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let found = BUGS.iter().filter(|(.., known)| known.is_some());
    let listed = |bug: &str| rows.iter().any(|row| row[2].trim_matches('`') == bug);
    for (bug, hazard, file, _) in found.clone() {
        assert!(listed(bug), "{bug} is found, and not in the table");
        let row = rows.iter().find(|row| row[2].trim_matches('`') == *bug).expect("just found");
        assert_eq!((row[0], row[3].trim_matches('`')), (*hazard, *file), "{bug}");
        let code = read(&format!("crates/{file}"));
        assert!(code.contains(&format!("bug!(\"{bug}\")")), "{file} has no place for {bug}");
    }
    assert_eq!(rows.len(), found.count(), "a row for each");
    assert!(40 <= rows.len(), "{} bugs are found; 40 are wanted", rows.len());
}
