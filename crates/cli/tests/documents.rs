//! The documents tell the truth about the code: what they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The functions that are tests, by the file they stand in: its path under `crates`.
fn tests_by_file() -> BTreeMap<String, BTreeSet<String>> {
    let crates = root().join("crates");
    let mut files = Vec::new();
    sources(&crates, &mut files);
    let mut tests = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut names = BTreeSet::new();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ")
                && is_test
            {
                names.extend(rest.split('(').next().map(str::to_owned));
                is_test = false;
            }
        }
        let path = file.strip_prefix(&crates).unwrap().to_str().unwrap();
        tests.insert(path.to_owned(), names);
    }
    tests
}

/// The names of all functions that are tests.
fn tests() -> BTreeSet<String> {
    tests_by_file().into_values().flatten().collect()
}

/// What stands in backticks in the last cell of each row of each table.
fn named_in_last_cells(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_test_that_safety_names_exists() {
    let tests = tests();
    let named = named_in_last_cells("SAFETY.md");
    assert!(50 < named.len(), "the tables were not read");
    for name in named {
        assert!(tests.contains(&name), "SAFETY.md names {name}, which is no test");
    }
}

/// What stands in backticks in the rows of a document's tables, a list for each row.
fn named_in_rows(document: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    rows.map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned).collect()).collect()
}

#[test]
fn every_test_and_place_that_the_parity_tables_name_exists() {
    let tests = tests_by_file();
    for (document, folder, least) in [
        ("raft-tests", "crates/raft/src", 250),
        ("raft-rules", "crates/raft/src", 400),
        ("raft-better", "crates/raft/src", 35),
        ("autopilot", "crates/autopilot/src", 170),
        ("zab-rules", "crates/zab/src", 300),
        ("etcd-rules", "crates/server/src", 290),
        ("gometa-names", "crates/gometa/src", 40),
    ] {
        let document = format!("docs/parity/{document}.md");
        let mut tests_named = 0;
        for name in named_in_rows(&document).into_iter().flatten() {
            // `raft.rs::step` and `types/src/quorum.rs`: a place in the sources.
            if let Some((file, word)) = name.split_once(".rs") {
                let own = root().join(folder).join(format!("{file}.rs"));
                let path = match own.exists() {
                    true => own,
                    false => root().join("crates").join(format!("{file}.rs")),
                };
                let text = std::fs::read_to_string(path);
                let word = word.trim_start_matches("::");
                let is_there = text.is_ok_and(|text| text.contains(word));
                assert!(is_there, "{document} names {name}, which is nowhere");
            // `raft/tests/engine/reads::a_deposed_leader_answers_nothing`: a test.
            } else if let Some((file, test)) = name.split_once("::") {
                tests_named += 1;
                let of_file = tests.get(&format!("{file}.rs"));
                let is_test = of_file.is_some_and(|tests| tests.contains(test));
                assert!(is_test, "{document} names {name}, which is no test");
            }
        }
        assert!(least <= tests_named, "{document}: {tests_named} tests; the tables were not read");
    }
}

#[test]
fn every_subject_and_rule_has_one_row() {
    let counts = [
        ("raft-tests", 264),
        ("raft-rules", 280),
        ("raft-better", 26),
        ("autopilot", 161),
        ("zab-rules", 330),
        ("etcd-rules", 202),
    ];
    for (document, want) in counts {
        let text = std::fs::read_to_string(root().join(format!("docs/parity/{document}.md")));
        let (mut seen, mut count) = (BTreeSet::new(), 0);
        for line in text.unwrap().lines() {
            let first = line.strip_prefix("| ").and_then(|row| row.split(" |").next());
            if let Some(first) =
                first.filter(|first| !["---", "subject", "rule", "point"].contains(first))
            {
                assert!(seen.insert(first.to_owned()), "{document} has {first} twice");
                let cells = line.split(" | ").count();
                assert_eq!(cells, if document == "raft-tests" { 2 } else { 4 }, "{line}");
                count += 1;
            }
        }
        assert_eq!(count, want, "{document}");
    }
}

#[test]
fn every_file_that_architecture_names_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut checked = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let is_path = name.ends_with(".rs") && name.contains("/src/");
        if is_path {
            checked += 1;
            assert!(root().join("crates").join(name).exists(), "ARCHITECTURE.md names {name}");
        }
    }
    assert!(8 < checked, "the paths were not read");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "SAFETY.md", "PARITY.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") {
                let path = link.split('#').next().unwrap_or_default();
                assert!(root().join(path).exists(), "{document} links to {link}");
            }
        }
    }
}
