//! `quorate log`: the durable log of a member, for people. Files are only read, with the checks that a
//! member makes at its start.
//!
//! It takes no lock: a member may run, or start, meanwhile. While one runs, its last write may be on
//! the way, so what stands behind the last whole record is then not looked at, and the answer is about
//! the log as it was a moment ago.
//!
//! Exit codes: 0 when the log is sound, 1 when it is damaged or not to be understood, 2 when it could
//! not be read or there is none.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_raft::EntryType;
use quorate_types::{Index, LogEntry, Mark};
use quorate_wal::{RealDisk, Record, Seen, Survey, Wal, WalError};
use serde::Serialize;

use crate::tell;

const DAMAGED: u8 = 1;
const FAILED: u8 = 2;
/// Shorter logs are read before anyone would look at a bar.
const BAR_BYTES_MIN: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Subcommand, Debug)]
enum LogCommand {
    /// Prints one line for each record
    Dump {
        /// The data directory of a member, or its log
        dir: PathBuf,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Form::Simple)]
        write_out: Form,
    },
    /// Reads everything with all checks, and says what is there
    Verify {
        /// The data directory of a member, or its log
        dir: PathBuf,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Aligned columns
    Simple,
    /// An object a line
    Json,
}

pub(crate) fn run(args: &LogArgs) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = match &args.command {
        LogCommand::Dump { dir, write_out } => dump(dir, *write_out, &mut out),
        LogCommand::Verify { dir } => verify(dir, &mut out),
    };
    let done = done.and_then(|()| out.flush().map_err(Failure::Output));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = out.flush();
            tell::error(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}: no log is in it, nor in {} under it; name a member's data directory", .0.display(), .0.join("wal").display())]
    NoLog(PathBuf),
    #[error(transparent)]
    Log(#[from] WalError),
    #[error("cannot print: {0}")]
    Output(io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Log(
                WalError::Damaged { .. } | WalError::Foreign { .. } | WalError::Format { .. },
            ) => DAMAGED,
            Failure::NoLog(_) | Failure::Log(_) | Failure::Output(_) => FAILED,
        }
    }
}

/// The log that someone means who names a directory.
fn log_dir(dir: &Path) -> Result<PathBuf, Failure> {
    for dir in [dir.to_owned(), dir.join("wal")] {
        if dir.is_dir() && Wal::exists(&RealDisk, &dir)? {
            return Ok(dir);
        }
    }
    Err(Failure::NoLog(dir.to_owned()))
}

fn survey(dir: &Path, visit: &mut dyn FnMut(Seen<'_>)) -> Result<Survey, WalError> {
    let mut bar: Option<ProgressBar> = None;
    let mut progress = |done, total| {
        if total < BAR_BYTES_MIN {
            return;
        }
        // It hides itself where nobody looks, as in a pipe.
        let bar = bar.get_or_insert_with(|| {
            let style = "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left";
            let style = ProgressStyle::with_template(style).expect("the words above are known");
            ProgressBar::new(total).with_style(style)
        });
        bar.set_position(done);
    };
    let found = Wal::survey(&RealDisk, dir, &mut progress, visit);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    found
}

fn dump(dir: &Path, form: Form, out: &mut impl io::Write) -> Result<(), Failure> {
    let dir = log_dir(dir)?;
    let mut printed = match form {
        Form::Simple => {
            writeln!(out, "{}", line("SEGMENT", "OFFSET", "KIND", "ENTRIES", "BYTES", ""))
        }
        Form::Json => Ok(()),
    };
    let mut segment = 0;
    let found = survey(&dir, &mut |seen| match seen {
        Seen::Segment { sequence, .. } => segment = sequence,
        Seen::Record { offset, bytes, record, .. } if printed.is_ok() => {
            printed = match form {
                Form::Simple => writeln!(out, "{}", simple(segment, offset, bytes, record)),
                Form::Json => json(out, &Line::of(segment, offset, bytes, record)),
            };
        }
        _ => {}
    });
    printed.map_err(Failure::Output)?;
    let found = found?;
    if let Some(torn) = &found.recovered.torn {
        let printed = match form {
            Form::Simple => writeln!(
                out,
                "{}",
                line(
                    segment,
                    torn.offset,
                    "torn",
                    "",
                    torn.bytes,
                    "an unfinished write; cut off at the next start"
                )
            ),
            Form::Json => json(out, &Line::torn(segment, torn.offset, torn.bytes)),
        };
        printed.map_err(Failure::Output)?;
    }
    if found.is_live {
        out.flush().map_err(Failure::Output)?;
        tell::warning("a member has this log open; what it wrote meanwhile is not shown");
    }
    Ok(())
}

fn verify(dir: &Path, out: &mut impl io::Write) -> Result<(), Failure> {
    let dir = log_dir(dir)?;
    let found = survey(&dir, &mut |_| {})?;
    let Survey { recovered, segments_count, records_count, bytes, is_live, .. } = &found;
    let mark = place(recovered.mark.index, recovered.mark.stamp);
    let entries = match (recovered.entries.first(), recovered.entries.last()) {
        (Some(first), Some(last)) => format!(
            "{}, {} to {}",
            recovered.entries.len(),
            place(first.index, first.stamp),
            place(last.index, last.stamp)
        ),
        _ => "none".to_owned(),
    };
    let torn = recovered.torn.as_ref().map_or("none".to_owned(), |torn| {
        format!(
            "{} bytes at offset {} of {}: an unfinished write that nobody was told of; the next \
             start cuts it off",
            torn.bytes,
            torn.offset,
            torn.file.display()
        )
    });
    let in_use = match is_live {
        true => "by a running member: what it wrote last was not looked at",
        false => "no",
    };
    let rows = [
        ("log", format!("{}: sound", dir.display())),
        ("owner", recovered.identity.to_string()),
        ("segments", format!("{segments_count}, {bytes} bytes")),
        ("records", records_count.to_string()),
        ("starts after", mark),
        ("entries", entries),
        ("hard state", hard_state(recovered.hard_state.as_ref())),
        ("torn tail", torn),
        ("in use", in_use.to_owned()),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<13} {value}").map_err(Failure::Output)?;
    }
    Ok(())
}

/// One line of columns.
fn line(
    segment: impl ToString,
    offset: impl ToString,
    kind: &str,
    entries: &str,
    bytes: impl ToString,
    holds: &str,
) -> String {
    let [segment, offset, bytes] = [segment.to_string(), offset.to_string(), bytes.to_string()];
    let line = format!("{segment:>7} {offset:>10} {kind:<8} {entries:<24} {bytes:>10}  {holds}");
    line.trim_end().to_owned()
}

fn simple(segment: u64, offset: u64, bytes: u64, record: &Record) -> String {
    let (kind, entries, holds) = match record {
        Record::Base(base) => (
            "base",
            place(base.last, base.last_stamp),
            format!("log after {}; {}", mark(&base.mark), hard_state(base.hard_state.as_ref())),
        ),
        Record::Write { hard_state: state, install, cut, entries } => {
            let mut holds = Vec::new();
            if let Some((snapshot, keeps_tail)) = install {
                let tail = if *keeps_tail { "kept" } else { "gone" };
                holds.push(format!("snapshot {}, what was behind it {tail}", mark(snapshot)));
            }
            if let Some((from, _)) = cut {
                holds.push(format!("{from} and all behind it gone"));
            }
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                let data: usize = entries.iter().map(|entry| entry.data.len()).sum();
                let count = last.index - first.index + 1;
                holds.push(format!("{count} with {data} bytes{}", changes(entries)));
            }
            if state.is_some() {
                holds.push(hard_state(state.as_ref()));
            }
            ("write", range(entries), holds.join("; "))
        }
        Record::Compact(place) => ("compact", mark(place), String::new()),
        Record::Seal(next) => ("seal", String::new(), format!("segment {next} follows")),
    };
    line(segment, offset, kind, &entries, bytes, &holds)
}

/// The entries of a write, as first and last.
fn range(entries: &[LogEntry]) -> String {
    match entries {
        [] => String::new(),
        [one] => place(one.index, one.stamp),
        [first, .., last] => {
            format!("{}..{}", place(first.index, first.stamp), place(last.index, last.stamp))
        }
    }
}

/// Which of the entries are no commands.
fn changes(entries: &[LogEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let kind = kind(entry);
        if kind != NORMAL {
            write!(text, ", {} {kind}", entry.index).expect("a string takes all text");
        }
    }
    text
}

const NORMAL: &str = "normal";

/// What an entry is, as the codec reads it.
fn kind(entry: &LogEntry) -> &'static str {
    match quorate_codec::from_log_entry(entry.clone()).map(|entry| entry.kind.unwrap_or_default()) {
        Ok(EntryType::Normal) => NORMAL,
        Ok(EntryType::ConfChange) => "conf-change",
        Ok(EntryType::ConfChangeV2) => "conf-change-v2",
        Err(_) => "unknown",
    }
}

fn place(index: Index, stamp: u64) -> String {
    format!("{index}@{stamp}")
}

fn mark(mark: &Mark) -> String {
    place(mark.index, mark.stamp)
}

fn hard_state(state: Option<&Bytes>) -> String {
    let Some(state) = state else { return "no hard state".to_owned() };
    if quorate_codec::is_zab_hard_state_record(state) {
        return match quorate_codec::decode_zab_hard_state_record(state.clone()) {
            Ok(state) => format!(
                "epoch {}, promised {} to {}, committed {}",
                state.current_epoch,
                state.accepted_epoch,
                state.accepted_leader.as_ref().map_or("nobody", |leader| leader.as_str()),
                state.committed
            ),
            Err(error) => format!("a hard state of {} bytes: {error}", state.len()),
        };
    }
    match quorate_codec::decode_hard_state_record(state.clone()) {
        Ok(state) => {
            format!("term {}, vote {:x}, commit {}", state.term.0, state.vote.0, state.commit)
        }
        Err(error) => format!("a hard state of {} bytes: {error}", state.len()),
    }
}

/// A record as an object.
#[derive(Serialize)]
struct Line {
    segment: u64,
    offset: u64,
    bytes: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keeps_tail: Option<bool>,
    /// The first entry that was taken away, with all behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_from: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_segment: Option<u64>,
}

#[derive(Serialize)]
struct Place {
    index: u64,
    term: u64,
}

#[derive(Serialize)]
struct Entry {
    index: u64,
    term: u64,
    kind: &'static str,
    bytes: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum State {
    Raft { term: u64, vote: String, commit: u64 },
    Zab { epoch: u32, promised: u32, promised_to: Option<String>, committed: String },
    Unknown { bytes: usize },
}

impl Line {
    fn new(segment: u64, offset: u64, bytes: u64, kind: &'static str) -> Self {
        Line {
            segment,
            offset,
            bytes,
            kind,
            mark: None,
            last: None,
            hard_state: None,
            keeps_tail: None,
            cut_from: None,
            entries: Vec::new(),
            next_segment: None,
        }
    }

    fn torn(segment: u64, offset: u64, bytes: u64) -> Self {
        Line::new(segment, offset, bytes, "torn")
    }

    fn of(segment: u64, offset: u64, bytes: u64, record: &Record) -> Self {
        let of_kind = |kind| Line::new(segment, offset, bytes, kind);
        let mark = |mark: &Mark| Some(Place { index: mark.index.0, term: mark.stamp });
        match record {
            Record::Base(base) => Line {
                mark: mark(&base.mark),
                last: Some(Place { index: base.last.0, term: base.last_stamp }),
                hard_state: base.hard_state.as_ref().map(State::of),
                ..of_kind("base")
            },
            Record::Write { hard_state, install, cut, entries } => Line {
                mark: install.as_ref().and_then(|(snapshot, _)| mark(snapshot)),
                keeps_tail: install.as_ref().map(|(_, keeps_tail)| *keeps_tail),
                cut_from: cut.map(|(from, _)| from.0),
                hard_state: hard_state.as_ref().map(State::of),
                entries: entries.iter().map(Entry::of).collect(),
                ..of_kind("write")
            },
            Record::Compact(place) => Line { mark: mark(place), ..of_kind("compact") },
            Record::Seal(next) => Line { next_segment: Some(*next), ..of_kind("seal") },
        }
    }
}

impl Entry {
    fn of(entry: &LogEntry) -> Self {
        Entry {
            index: entry.index.0,
            term: entry.stamp,
            kind: kind(entry),
            bytes: entry.data.len(),
        }
    }
}

impl State {
    fn of(state: &Bytes) -> Self {
        if quorate_codec::is_zab_hard_state_record(state) {
            return match quorate_codec::decode_zab_hard_state_record(state.clone()) {
                Ok(read) => State::Zab {
                    epoch: read.current_epoch.0,
                    promised: read.accepted_epoch.0,
                    promised_to: read.accepted_leader.map(|leader| leader.as_str().to_owned()),
                    committed: read.committed.to_string(),
                },
                Err(_) => State::Unknown { bytes: state.len() },
            };
        }
        match quorate_codec::decode_hard_state_record(state.clone()) {
            Ok(read) => State::Raft {
                term: read.term.0,
                vote: format!("{:x}", read.vote.0),
                commit: read.commit.0,
            },
            Err(_) => State::Unknown { bytes: state.len() },
        }
    }
}

fn json(out: &mut impl io::Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
