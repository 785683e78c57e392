//! `quorate autopilot` as a process: what it prints, and how it ends.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn evaluate(input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["autopilot", "evaluate"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Folders of cases, with the name of the file that holds the state.
fn folders() -> Vec<(PathBuf, &'static str)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![(root.join("crates/autopilot/goldens"), "state.json")];
    let places = ["../shared", "../../shared"].map(|place| root.join(place));
    let data = places.map(|place| place.join("conformance/autopilot/testdata"));
    match data.into_iter().find(|folder| folder.exists()) {
        Some(folder) => folders.push((folder, "state.json.golden")),
        None => eprintln!("skipped: the reference's own cases are not at hand"),
    }
    folders
}

#[test]
fn golden_cases_are_printed_to_the_byte() {
    for (folder, state) in folders() {
        for case in std::fs::read_dir(folder).unwrap() {
            let case = case.unwrap().path();
            let output = evaluate(&std::fs::read(case.join("inputs.json")).unwrap());
            let printed = String::from_utf8(output.stdout).unwrap();
            let want = std::fs::read_to_string(case.join(state)).unwrap();
            assert_eq!(printed, want, "{}", case.display());
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(output.stderr, b"");
        }
    }
}

#[test]
fn unusable_inputs_print_nothing_and_fail() {
    for (input, want) in [
        ("", "not JSON: "),
        ("{", "not JSON: "),
        ("{}", "Config: is missing\n"),
        (r#"{"Config": {}, "RaftConfig": null}"#, "RaftConfig: is missing\n"),
        (
            r#"{"Config": {}, "RaftConfig": {"Servers": 3}}"#,
            "RaftConfig.Servers: is 3 and not a list\n",
        ),
    ] {
        let output = evaluate(input.as_bytes());
        assert_eq!(output.status.code(), Some(1), "{input}");
        assert_eq!(output.stdout, b"", "{input}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with(&format!("error: {want}")), "{told}");
    }
}
