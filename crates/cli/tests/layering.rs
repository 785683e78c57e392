//! Holds the layering that ARCHITECTURE.md draws: who may depend on whom, and what pure crates may
//! name. Reads `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate and the crates of ours it may depend on (outside of tests).
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("raft", &["types"]),
    ("node", &["types", "raft"]),
    ("replica", &["types", "raft", "zab", "codec"]),
    ("kv", &["types"]),
    ("autopilot", &["types"]),
    ("zab", &["types"]),
    ("codec", &["types", "raft", "zab"]),
    ("gometa", &["types", "zab", "codec"]),
    ("history", &["types"]),
    ("wal", &["types"]),
    ("net", &["types"]),
    ("runtime", &["types", "raft", "zab", "replica", "kv", "autopilot", "codec", "wal", "net"]),
    ("proto", &[]),
    ("server", &["types", "autopilot", "kv", "runtime", "proto"]),
    ("script", &["types", "raft", "codec"]),
    ("sim", &["types", "autopilot", "raft", "zab", "replica", "codec", "history", "kv", "wal"]),
    ("load", &["proto"]),
    ("chaos", &["types", "history", "proto"]),
    ("bench", &["types", "raft", "zab", "codec", "node", "gometa", "kv", "wal", "proto", "load"]),
    (
        "cli",
        &["types", "raft", "codec", "server", "proto", "autopilot", "script", "sim", "load", "wal"],
    ),
    ("fuzz", &["types", "raft", "zab", "kv", "codec", "wal", "net", "script"]),
    ("xtask", &["proto"]),
];

const PURE: &[&str] = &["types", "raft", "zab", "replica", "kv", "codec", "history", "autopilot"];

/// What the pure crates may use from outside.
const PURE_EXTERNAL: &[&str] =
    &["bytes", "thiserror", "smallvec", "crc32c", "redb", "semver", "serde_json"];

/// Words that mean I/O, a clock, a thread or hidden chance.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "println!",
    "eprintln!",
    "rand::",
    "tokio",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Package (without prefix) → its normal dependencies: (ours, others).
fn dependencies() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let short = |name: &str| name.strip_prefix("quorate-").unwrap_or(name).to_owned();
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let (mut ours, mut others) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            if !dependency["kind"].is_null() {
                continue;
            }
            let name = dependency["name"].as_str().unwrap();
            if dependency["path"].is_string() {
                ours.insert(short(name))
            } else {
                others.insert(name.to_owned())
            };
        }
        found.insert(short(package["name"].as_str().unwrap()), (ours, others));
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a file holds tests only.
fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

#[test]
fn dependencies_point_down() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.iter().map(|(name, below)| (*name, below.iter().copied().collect())).collect();
    for (name, (ours, others)) in dependencies() {
        let Some(below) = allowed.get(name.as_str()) else {
            panic!("crate {name} has no place in the layering: add it here and to ARCHITECTURE.md");
        };
        for dependency in ours {
            assert!(below.contains(dependency.as_str()), "{name} may not know {dependency}");
        }
        if PURE.contains(&name.as_str()) {
            for other in others {
                assert!(
                    PURE_EXTERNAL.contains(&other.as_str()),
                    "{name} is pure and may not depend on {other}"
                );
            }
        }
    }
}

#[test]
fn pure_crates_have_their_lint_and_name_nothing_impure() {
    for name in PURE {
        let directory = root().join("crates").join(name);
        assert!(directory.join("clippy.toml").exists(), "{name} has no clippy.toml");
        let mut files = Vec::new();
        sources(&directory.join("src"), &mut files);
        assert!(!files.is_empty(), "{name} has no sources?");
        for file in files.iter().filter(|file| !is_test(file)) {
            let text = std::fs::read_to_string(file).unwrap();
            // Tests may use threads and files; they stand last.
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in IMPURE {
                    assert!(
                        !code.contains(word),
                        "{}:{}: a pure crate names {word}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn engines_know_no_driver_and_transports_no_engine() {
    let found = dependencies();
    for (above, below) in [
        ("raft", "replica"),
        ("raft", "zab"),
        ("zab", "raft"),
        ("zab", "replica"),
        ("wal", "raft"),
        ("net", "raft"),
        ("kv", "raft"),
    ] {
        assert!(!found[above].0.contains(below), "{above} must not know {below}");
    }
}
