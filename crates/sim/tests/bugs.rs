//! Does the simulator find bugs? Each of these is put back for a while, and has to be found.
//!
//! `QUORATE_BUGS=all` tries every one of them; otherwise only those that are found quickly.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_sim::{Options, run};
use quorate_types::bugs;

/// Each bug, and whether it is found within a few seeds.
const BUGS: &[(&str, bool)] = &[
    ("leads-before-its-own-vote", false),
    ("vote-before-disk", false),
    ("acknowledgement-before-disk", true),
    ("votes-twice", false),
    ("votes-for-any-log", true),
    ("keeps-a-conflicting-tail", false),
    ("commits-what-was-not-compared", false),
    ("commits-older-terms", false),
    ("reads-without-a-quorum", false),
    ("commits-with-a-minority", true),
    ("elects-with-a-minority", true),
    ("reads-before-it-has-applied", true),
    ("snapshot-counts-before-it-is-installed", true),
    ("writes-go-on-behind-a-snapshot", false),
    ("compacts-what-is-not-flushed", false),
    ("a-write-is-not-to-be-synced", true),
    ("refused-and-proposed", true),
    ("requests-of-two-lives-are-one", true),
    ("log-is-not-synced", true),
    ("segment-forgets-the-hard-state", true),
    ("segment-is-named-but-not-for-good", false),
    ("compaction-takes-one-too-many", false),
    ("damaged-rows-are-believed", false),
];

/// Seeds tried for a bug.
const SEEDS_MAX: u64 = 400;

/// The seed that finds a bug, and what it says.
fn find(bug: &'static str) -> Option<(u64, String)> {
    let options = Options { seconds: Some(120), ..Options::default() };
    bugs::put_back(Some(bug));
    let found = (1..=SEEDS_MAX).find_map(|seed| {
        let ran = catch_unwind(AssertUnwindSafe(|| run(seed, &options, None).violation));
        let why = ran.unwrap_or_else(|_| Some("a panic".to_owned()))?;
        // That a run showed little is no finding.
        (!why.ends_with("never happened")).then_some((seed, why))
    });
    bugs::put_back(None);
    found
}

#[test]
fn bugs_that_are_put_back_are_found() {
    #[expect(clippy::disallowed_methods, reason = "how many to try is for whoever runs the tests")]
    let all = std::env::var("QUORATE_BUGS").is_ok_and(|which| which == "all");
    let mut missed = Vec::new();
    for (bug, is_quick) in BUGS {
        if !all && !is_quick {
            continue;
        }
        match find(bug) {
            Some((seed, why)) => println!("{bug}: seed {seed}: {why}"),
            None => missed.push(*bug),
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}
