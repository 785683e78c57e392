//! `quorate log` as a process: what it prints, and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_codec as codec;
use quorate_raft::{Entry, EntryType, HardState};
use quorate_types::{GroupId, Index, Life, Mark, NodeId, Term};
use quorate_wal::{Identity, Options, RealDisk, Wal, Write};
use quorate_zab::{Epoch, Zxid};
use serde_json::Value;

/// One test at a time: a process that is about to start holds all that is open here for a moment, locks
/// included.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quorate(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.arg("log").args(args).arg(dir).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn hard_state(term: u64, commit: u64) -> Option<bytes::Bytes> {
    let state = HardState { term: Term(term), vote: NodeId(0xab), commit: Index(commit) };
    Some(codec::encode_hard_state_record(&state))
}

fn write(first: u64, count: u64, term: u64) -> Write {
    let entries = (first..first + count).map(|index| {
        let kind = if index == 50 { EntryType::ConfChange } else { EntryType::Normal };
        let data = Some(vec![7; 100].into());
        let entry = Entry { term: Term(term), index: Index(index), kind: Some(kind), data };
        codec::to_log_entry(&entry)
    });
    let entries = entries.collect();
    let hard_state = hard_state(term, first - 1);
    Write { hard_state, cut_from: None, entries, install: None, must_sync: true }
}

/// A data directory with a log, open, whose first segment is gone already.
fn sample() -> (tempfile::TempDir, PathBuf, Wal) {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("wal");
    let disk = Arc::new(RealDisk);
    let owner =
        Identity { cluster: 0xc1, node: NodeId(0x17), group: GroupId(1), life: Life(0x11fe) };
    let options = Options { segment_bytes: 8192 };
    let first = Mark { index: Index(1), stamp: 1, ..Mark::default() };
    Wal::create(disk.clone(), &dir, owner, options.clone(), &first, hard_state(1, 1)).unwrap();
    let (mut wal, _) = Wal::open(disk, &dir, options, &mut |_, _| {}).unwrap();
    wal.append(&[write(2, 1, 2)]).unwrap();
    wal.append(&[write(3, 30, 3)]).unwrap();
    wal.append(&[write(33, 15, 3)]).unwrap();
    let install = Some(Mark { index: Index(47), stamp: 3, ..Mark::default() });
    wal.append(&[Write { install, ..Write::default() }]).unwrap();
    wal.append(&[write(48, 15, 3)]).unwrap();
    (data, dir, wal)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_dump_shows_every_record_on_a_line() {
    let _alone = alone();
    let (data, dir, wal) = sample();
    drop(wal);
    let output = quorate(&["dump"], data.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let want = [
        "SEGMENT     OFFSET KIND     ENTRIES                       BYTES",
        "      2        512 base     47@3                            512  \
         log after 1@1; term 3, vote ab, commit 32",
        "      2       1024 write                                    512  \
         snapshot 47@3, what was behind it kept",
        "      2       1536 write    48@3..62@3                     2048  \
         15 with 1500 bytes, 50 conf-change; term 3, vote ab, commit 47",
        "",
    ]
    .join("\n");
    assert_eq!(stdout(&output), want);
    assert_eq!(stderr(&output), "");
    // The log itself is as good as the directory it is in.
    assert_eq!(stdout(&quorate(&["dump"], &dir)), want);
}

#[test]
fn a_dump_is_an_object_a_line_for_programs() {
    let _alone = alone();
    let (data, ..) = sample();
    let output = quorate(&["dump", "-w", "json"], data.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["base", "write", "write"]);
    assert_eq!(lines[0]["mark"]["index"], 1);
    assert_eq!(lines[0]["last"]["index"], 47);
    assert_eq!(lines[1]["keeps_tail"], true);
    assert_eq!(lines[2]["hard_state"]["vote"], "ab");
    assert_eq!(lines[2]["entries"].as_array().unwrap().len(), 15);
    assert_eq!(lines[2]["entries"][2]["kind"], "conf-change");
    assert_eq!(lines[2]["entries"][14]["index"], 62);
    assert_eq!(lines[2]["entries"][14]["kind"], "normal");
}

#[test]
fn a_dump_says_what_a_write_takes_away() {
    let _alone = alone();
    let (data, _, mut wal) = sample();
    let state = quorate_zab::HardState {
        accepted_epoch: Epoch(4),
        accepted_leader: Some("10.0.0.1:2380".into()),
        current_epoch: Epoch(3),
        committed: Zxid::new(Epoch(3), 15),
    };
    wal.append(&[Write {
        hard_state: Some(codec::encode_zab_hard_state_record(&state)),
        cut_from: Some(Index(60)),
        ..write(60, 1, 4)
    }])
    .unwrap();
    drop(wal);
    let output = quorate(&["dump", "-w", "json"], data.path());
    let last: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    assert_eq!(last["cut_from"], 60);
    assert_eq!(last["entries"][0]["term"], 4);
    let state = serde_json::json!({
        "epoch": 3, "promised": 4, "promised_to": "10.0.0.1:2380", "committed": "3.15"
    });
    assert_eq!(last["hard_state"], state);
    let output = quorate(&["dump"], data.path());
    let line = stdout(&output).lines().last().unwrap();
    assert!(line.contains("60 and all behind it gone"), "{line}");
    assert!(line.contains("epoch 3, promised 4 to 10.0.0.1:2380, committed 3.15"), "{line}");
}

#[test]
fn a_sound_log_is_said_to_be_sound_also_while_its_member_runs() {
    let _alone = alone();
    let (data, dir, wal) = sample();
    let while_open = quorate(&["verify"], data.path());
    drop(wal);
    let output = quorate(&["verify"], data.path());
    for output in [&while_open, &output] {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
        let text = stdout(output);
        for words in [
            &format!("{}: sound", dir.display()),
            "cluster c1, node 17, group 1, life 11fe",
            "starts after  47@3",
            "entries       15, 48@3 to 62@3",
            "hard state    term 3, vote ab, commit 47",
            "torn tail     none",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
    assert!(stdout(&while_open).contains("in use        by a running member"));
    assert!(stdout(&output).contains("in use        no"));
}

#[test]
fn a_damaged_log_is_told_with_file_offset_and_reason() {
    let _alone = alone();
    let (data, dir, wal) = sample();
    drop(wal);
    let file = files(&dir).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1536 + 300] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    for command in ["dump", "verify"] {
        let output = quorate(&[command], data.path());
        assert_eq!(output.status.code(), Some(1), "{command}");
        let text = stderr(&output);
        for words in [file.to_str().unwrap(), "offset 1536", "does not match its checksum"] {
            assert!(text.contains(words), "{command}: {words} is not in\n{text}");
        }
    }
    // What stands before the damage is shown.
    assert_eq!(stdout(&quorate(&["dump"], data.path())).lines().count(), 3);
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "and nothing is changed");

    // An unfinished write at the end is no damage.
    bytes[1536 + 300] ^= 1;
    let end = bytes.len() - 1;
    bytes[end] = 9;
    std::fs::write(&file, &bytes).unwrap();
    let output = quorate(&["verify"], data.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("torn tail     4608 bytes at offset 3584 of"));
    let output = quorate(&["dump"], data.path());
    assert!(stdout(&output).contains(" torn "), "{}", stdout(&output));
}

#[test]
fn a_place_without_a_log_is_named() {
    let _alone = alone();
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    std::fs::write(&file, "no log").unwrap();
    for dir in [data.path().to_owned(), data.path().join("nowhere"), file] {
        for command in ["dump", "verify"] {
            let output = quorate(&[command], &dir);
            assert_eq!(output.status.code(), Some(2), "{command} {}", dir.display());
            let text = stderr(&output);
            assert!(text.contains("no log") && text.contains(dir.to_str().unwrap()), "{text}");
            assert_eq!(stdout(&output), "");
        }
    }
}
