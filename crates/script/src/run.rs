//! Runs the directives of a file and sets what they print against what they are to print.

use crate::file::{self, Directive, FileError, FileErrorReason, Part};

/// What came of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The script with what it printed. Where that is as good as what stood there, nothing changed.
    pub rewritten: String,
    /// Where it is not, in the order of the script; none if all is as expected.
    pub diffs: Vec<Diff>,
}

/// A directive that did not print what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The line of the directive, from 1.
    pub line: usize,
    /// The directive's line.
    pub directive: String,
    /// What it is to print.
    pub expected: String,
    /// What it printed.
    pub actual: String,
}

impl std::fmt::Display for Diff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "line {}: {}", self.line, self.directive)?;
        let (expected, actual): (Vec<_>, Vec<_>) =
            (self.expected.lines().collect(), self.actual.lines().collect());
        let same = expected.iter().zip(&actual).take_while(|(one, other)| one == other).count();
        for line in &expected[..same] {
            writeln!(f, "    {line}")?;
        }
        for line in &expected[same..] {
            writeln!(f, "  - {line}")?;
        }
        for line in &actual[same..] {
            writeln!(f, "  + {line}")?;
        }
        Ok(())
    }
}

/// Something that carries out directives.
pub(crate) trait Interpreter {
    /// What `directive` prints.
    fn run(&mut self, directive: &Directive<'_>) -> Result<String, FileErrorReason>;

    /// The part of an output that counts.
    fn essence(output: &str) -> String {
        output.to_owned()
    }
}

/// Runs all of `text`.
pub(crate) fn run<I: Interpreter>(text: &str, with: &mut I) -> Result<Outcome, FileError> {
    let mut outcome = Outcome { rewritten: String::new(), diffs: Vec::new() };
    for part in file::parse(text)? {
        let directive = match part {
            Part::Verbatim(text) => {
                outcome.rewritten.push_str(text);
                continue;
            }
            Part::Directive(directive) => directive,
        };
        let mut actual =
            with.run(&directive).map_err(|reason| FileError { line: directive.line, reason })?;
        if !actual.is_empty() && !actual.ends_with('\n') {
            actual.push('\n');
        }
        outcome.rewritten.push_str(directive.head);
        let is_same = I::essence(&actual) == I::essence(&directive.expected);
        // Of a script that is just being written, even an output that does not count is of use.
        let is_blank = directive.expected.is_empty() && !directive.tail.is_empty();
        if is_same && !is_blank {
            outcome.rewritten.push_str(directive.tail);
            continue;
        }
        if !directive.head.ends_with('\n') {
            outcome.rewritten.push('\n');
        }
        outcome.rewritten.push_str(&file::write_output(&actual));
        if is_same {
            continue;
        }
        outcome.diffs.push(Diff {
            line: directive.line,
            directive: directive.head.lines().next().unwrap_or_default().to_owned(),
            expected: I::essence(&directive.expected),
            actual: I::essence(&actual),
        });
    }
    Ok(outcome)
}

impl Directive<'_> {
    /// The arguments without a value.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().filter(|it| it.values.is_empty()).map(|it| it.key.as_str())
    }

    /// Every value of every argument that has one, with its key, in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arguments
            .iter()
            .flat_map(|it| it.values.iter().map(move |value| (it.key.as_str(), value.as_str())))
    }
}

/// A whole number.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, FileErrorReason> {
    // Rust's own parser takes a leading plus.
    if text.starts_with('+') {
        return Err(FileErrorReason::Argument(format!("`{text}` is not a number")));
    }
    text.parse().map_err(|_| FileErrorReason::Argument(format!("`{text}` is not a number")))
}

/// One of the words that stand for true and false; nothing for any other.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// As [`truth`], in an argument that the file must have right.
pub(crate) fn boolean(text: &str) -> Result<bool, FileErrorReason> {
    truth(text).ok_or_else(|| FileErrorReason::Argument(format!("`{text}` is not a boolean")))
}
