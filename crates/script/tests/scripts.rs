//! Every script of this crate prints what it says, and so does every script of etcd's that is at
//! hand.
//!
//! With `QUORATE_REWRITE=1` in the environment, this crate's own scripts are rewritten with what
//! they print, to be read before they are kept.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use quorate_script::{
    FileError, Outcome, is_script_name, run_confchange, run_quorum, run_raft, watch_raft,
};

type Run = fn(&str) -> Result<Outcome, FileError>;

#[test]
fn clusters() {
    run_all(&own("raft"), run_raft, Kept::Here);
    run_all(&upstream("testdata"), run_raft, Kept::Elsewhere);
}

#[test]
fn quorums() {
    run_all(&own("quorum"), run_quorum, Kept::Here);
    run_all(&upstream("quorum/testdata"), run_quorum, Kept::Elsewhere);
}

#[test]
fn membership_changes() {
    run_all(&own("confchange"), run_confchange, Kept::Here);
    run_all(&upstream("confchange/testdata"), run_confchange, Kept::Elsewhere);
}

/// What the engine can note and no script can bring about, with the reason.
const NOT_NOTED: &[(&str, &str)] = &[
    ("SnapshotNotReady", "the application of a script always has a snapshot at hand"),
    ("Missed", "notes are printed after each step, and no step makes so many"),
];

#[test]
fn every_kind_of_note_occurs_in_some_script() {
    let note = fs::read_to_string(workspace().join("crates/raft/src/note.rs")).unwrap();
    let (_, after) = note.split_once("pub enum Note {").unwrap();
    let (body, _) = after.split_once("\n}").unwrap();
    let is_name = |char: char| char.is_ascii_alphanumeric();
    let kinds: BTreeSet<_> = body
        .lines()
        .filter_map(|line| {
            line.strip_prefix("    ").filter(|line| line.starts_with(char::is_uppercase))
        })
        .map(|line| line.split(|char| !is_name(char)).next().unwrap_or_default().to_owned())
        .collect();
    assert!(25 < kinds.len(), "the kinds were not read: {kinds:?}");

    let mut files = Vec::new();
    collect(&own("raft"), &mut files);
    let mut noted = BTreeSet::new();
    for file in files {
        let watched = watch_raft(&fs::read_to_string(&file).unwrap()).unwrap();
        let is_same = is_rewrite() || watched.outcome.diffs.is_empty();
        assert!(
            is_same,
            "{} differs when it is traced: {:?}",
            file.display(),
            watched.outcome.diffs
        );
        for (_, note) in watched.notes {
            let text = format!("{note:?}");
            noted.insert(text.split(|char| !is_name(char)).next().unwrap_or_default().to_owned());
        }
    }
    for kind in kinds {
        let excuse = NOT_NOTED.iter().find(|(name, _)| *name == kind);
        match (noted.contains(&kind), excuse) {
            (true, None) | (false, Some(_)) => {}
            (false, None) => panic!("no script makes a node note {kind}"),
            (true, Some(_)) => panic!("{kind} occurs: it needs no excuse"),
        }
    }
}

#[test]
fn the_table_of_rules_names_every_script_and_no_other() {
    let readme = fs::read_to_string(own("").join("../README.md")).unwrap();
    let named: BTreeSet<_> = readme
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.ends_with(".txt"))
        .map(str::to_owned)
        .collect();
    let mut present = BTreeSet::new();
    for folder in ["raft", "quorum", "confchange"] {
        let mut files = Vec::new();
        collect(&own(folder), &mut files);
        for file in files {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap();
            present.insert(format!("{folder}/{name}"));
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("# "), "{folder}/{name} does not say what it shows");
        }
    }
    assert_eq!(named, present);
}

/// Where scripts are kept.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// In this crate: they must be there, and may be rewritten.
    Here,
    /// Beside the workspace: they may be missing, and are only read.
    Elsewhere,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn own(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(folder)
}

fn upstream(folder: &str) -> PathBuf {
    workspace().join("../shared/conformance/etcd-raft").join(folder)
}

fn run_all(folder: &Path, run: Run, kept: Kept) {
    let mut files = Vec::new();
    collect(folder, &mut files);
    if files.is_empty() {
        assert!(kept == Kept::Elsewhere, "no scripts in {}", folder.display());
        // Past the test harness, which keeps to itself what a passing test prints.
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "SKIPPED: etcd's scripts are not at {}", folder.display());
        return;
    }
    files.sort();
    let mut failed = 0;
    for file in &files {
        let text = fs::read_to_string(file).expect("a script can be read");
        let outcome = run(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if kept == Kept::Here && is_rewrite() {
            if outcome.rewritten != text {
                fs::write(file, outcome.rewritten).expect("a script can be written");
            }
            continue;
        }
        if outcome.diffs.is_empty() {
            assert_eq!(outcome.rewritten, text, "{} would be rewritten", file.display());
            continue;
        }
        failed += 1;
        eprintln!("{} differs:", file.display());
        for diff in &outcome.diffs {
            eprintln!("{diff}");
        }
    }
    assert_eq!(failed, 0, "of {} scripts in {}", files.len(), folder.display());
}

/// All scripts in `folder` and the folders in it.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.expect("a folder can be read");
        if !entry.file_name().to_str().is_some_and(is_script_name) {
            continue;
        }
        if entry.path().is_dir() {
            collect(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how the test is run is for its caller to say")]
fn is_rewrite() -> bool {
    std::env::var("QUORATE_REWRITE").is_ok_and(|value| value == "1")
}
