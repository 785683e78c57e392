//! `quorate script` as a process: what it prints, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn quorate(args: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.arg("script").args(args).args(files).output().unwrap()
}

fn own(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../script/scripts").join(script)
}

fn written(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("some.txt");
    std::fs::write(&path, text).unwrap();
    path
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn scripts_that_hold_pass_the_check_in_silence() {
    for (language, scripts) in [
        ("raft", ["raft/lease.txt", "raft/joint.txt"]),
        ("quorum", ["quorum/joint.txt", "quorum/votes.txt"]),
        ("confchange", ["confchange/joint.txt", "confchange/simple.txt"]),
    ] {
        let [one, other] = scripts.map(own);
        let output = quorate(&[language, "--check"], &[&one, &other]);
        assert_eq!(output.status.code(), Some(0), "{language}: {output:?}");
        assert_eq!((stdout(&output), stderr(&output)), ("", ""), "{language}");

        let output = quorate(&[language], &[&one]);
        assert_eq!(stdout(&output), std::fs::read_to_string(&one).unwrap(), "printed as it is");
    }
}

#[test]
fn a_difference_is_shown_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = "# A story.\nvote cfg=(1,2,3) votes=(y,y,_)\n----\nVoteLost\n";
    let file = written(&folder, text);
    let output = quorate(&["quorum", "--check"], &[&file]);
    assert_eq!(output.status.code(), Some(1));
    let want = format!(
        "{}: line 2: vote cfg=(1,2,3) votes=(y,y,_)\n  - VoteLost\n  + VoteWon\n",
        file.display()
    );
    assert_eq!(stdout(&output), want);

    let output = quorate(&["quorum"], &[&file]);
    assert_eq!(output.status.code(), Some(0));
    let want = "# A story.\nvote cfg=(1,2,3) votes=(y,y,_)\n----\nVoteWon\n\n";
    assert_eq!(stdout(&output), want);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "the file stays as it is");
}

#[test]
fn log_lines_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let text = "add-nodes 1 voters=(1) index=3\n----\nINFO some other engine logs this\n";
    let output = quorate(&["raft", "--check"], &[&written(&folder, text)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn files_that_are_no_scripts_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.txt");
    let output = quorate(&["raft", "--check"], &[&own("raft/lease.txt"), &missing]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("missing.txt: "), "{}", stderr(&output));

    let malformed = written(&folder, "\ncampaign 1 key=(2\n----\nok\n");
    let output = quorate(&["raft"], &[&malformed]);
    assert_eq!(output.status.code(), Some(2));
    let want = format!(
        "error: {}: line 2: a list is opened with `(` and not closed\n",
        malformed.display()
    );
    assert_eq!((stdout(&output), stderr(&output)), ("", want.as_str()));
}

#[test]
fn a_trace_has_one_object_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.ndjson");
    let flag = format!("--trace={}", trace.display());
    let output = quorate(&["raft", "--check", &flag], &[&own("raft/joint.txt")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = std::fs::read_to_string(&trace).unwrap();
    assert!(text.lines().count() > 50);
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["tag"], "trace");
        assert!(event["event"]["name"].is_string(), "{line}");
    }
    assert_eq!(quorate(&["quorum", &flag], &[&own("quorum/votes.txt")]).status.code(), Some(2));
}
