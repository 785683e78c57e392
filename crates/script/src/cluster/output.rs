//! What a command prints, and how much of it.

use std::fmt::{Arguments, Write};

use quorate_raft::{CampaignRefusal, Note};
use quorate_types::NodeId;

use super::node::Node;

/// How weighty a log line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    /// Above all: nothing is printed, be it a log line or not.
    None,
}

const LEVELS: [(Level, &str); 6] = [
    (Level::Debug, "DEBUG"),
    (Level::Info, "INFO"),
    (Level::Warn, "WARN"),
    (Level::Error, "ERROR"),
    (Level::Fatal, "FATAL"),
    (Level::None, "NONE"),
];

impl Level {
    /// The level of this name, in capitals or not.
    pub(super) fn named(name: &str) -> Result<Level, String> {
        let found = LEVELS.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        found.map(|(level, _)| *level).ok_or_else(|| {
            let names: Vec<_> = LEVELS.iter().map(|(_, name)| *name).collect();
            format!("log levels must be either of [{}]", names.join(" "))
        })
    }
}

/// Whether a line is a log line, which does not count.
pub(super) fn is_log_line(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    LEVELS.iter().any(|(level, name)| *level != Level::None && *name == word)
}

/// The output of one command.
#[derive(Debug, Default)]
pub(super) struct Output {
    text: String,
    /// What is less weighty is not printed.
    pub(super) level: Level,
    /// Every note of the run, printed or not.
    pub(super) all_notes: Vec<(NodeId, Note)>,
}

impl Output {
    /// Takes out what was printed.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Prints as it is.
    pub(super) fn text(&mut self, text: &str) {
        if self.level < Level::None {
            self.text.push_str(text);
        }
    }

    /// Prints, and ends the line.
    pub(super) fn line(&mut self, line: Arguments<'_>) {
        if self.level < Level::None {
            writeln!(self.text, "{line}").expect("a string takes all text");
        }
    }

    /// Prints what the node noted since it was last asked.
    pub(super) fn notes(&mut self, node: &mut Node) {
        for note in node.raw.take_notes() {
            self.note(node.id, &note);
        }
    }

    /// Prints a note as a log line.
    pub(super) fn note(&mut self, id: NodeId, note: &Note) {
        self.all_notes.push((id, *note));
        let level = level(note);
        if self.level <= level {
            let (_, name) = LEVELS[level as usize];
            self.line(format_args!("{name} {id} {note}"));
        }
    }
}

/// How weighty etcd's library finds what the note tells.
fn level(note: &Note) -> Level {
    match note {
        Note::AppendRefused { .. }
        | Note::PeerDiverged { .. }
        | Note::PeerUnreachable { .. }
        | Note::SnapshotSent { .. }
        | Note::SnapshotNotReady { .. }
        | Note::SnapshotReported { .. }
        | Note::TransferRefused { .. }
        | Note::Dropped { .. }
        | Note::CampaignRefused { why: CampaignRefusal::Leader } => Level::Debug,
        Note::CampaignRefused { .. } | Note::QuorumLost { .. } => Level::Warn,
        Note::ForgetRefused => Level::Error,
        _ => Level::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_stand_at_their_place() {
        for (place, (level, name)) in LEVELS.iter().enumerate() {
            assert_eq!(*level as usize, place);
            assert_eq!(Level::named(&name.to_lowercase()), Ok(*level));
        }
        let text = "log levels must be either of [DEBUG INFO WARN ERROR FATAL NONE]";
        assert_eq!(Level::named("loud"), Err(text.to_owned()));
    }

    #[test]
    fn log_lines_begin_with_a_level() {
        for (line, want) in [
            ("INFO 1 became follower", true),
            ("  DEBUG x\n", true),
            ("WARN", true),
            ("FATAL\n", true),
            ("INFORMATION", false),
            ("NONE of these", false),
            ("> 1 INFO", false),
            ("", false),
        ] {
            assert_eq!(is_log_line(line), want, "{line}");
        }
    }
}
