//! The file format that all script languages share.
//!
//! ```text
//! # a comment
//! command arg key=value key=(v1,v2,v3)
//! input, any number of lines
//! ----
//! what the command prints
//! ```
//!
//! A file is read into [`Part`]s that together are the whole text, so that it can be written again
//! with nothing changed but the output of some directives.
//!
//! Source: the format of CockroachDB's `datadriven` package, which etcd's scripts are written in.

/// Why a text is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FileError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: FileErrorReason,
}

/// What is wrong with a line of a script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileErrorReason {
    /// An argument without a name before its `=`.
    #[error("an argument begins with `=`")]
    EmptyKey,
    /// A list of values that does not end.
    #[error("a list is opened with `(` and not closed")]
    OpenList,
    /// Output with blank lines ends in `----` twice, and a blank line.
    #[error("a blank line is missing after the end of the output")]
    NoBlankLine,
    /// `subtest end` without a subtest, or of another one, or a subtest within one, or left open.
    #[error("subtests do not match up")]
    Subtest,
    /// An argument that the command does not take, or with a value it cannot have.
    #[error("{0}")]
    Argument(String),
}

/// Whether a file of this name is a script. Hidden files and what editors leave behind are not.
pub fn is_script_name(name: &str) -> bool {
    !(name.starts_with('.')
        || name.ends_with('~')
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#')))
}

/// A piece of a script's text.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// Comments, blank lines, and what groups directives.
    Verbatim(&'a str),
    /// A command and what it is to print.
    Directive(Directive<'a>),
}

/// One command.
#[derive(Debug)]
pub(crate) struct Directive<'a> {
    /// The line it stands in, from 1.
    pub(crate) line: usize,
    /// Everything before the first `----`.
    pub(crate) head: &'a str,
    /// The `----` and the output, up to the line that ends it.
    pub(crate) tail: &'a str,
    pub(crate) command: String,
    pub(crate) arguments: Vec<Argument>,
    /// The lines between, trimmed at both ends.
    pub(crate) input: String,
    /// What it is to print; every line ended.
    pub(crate) expected: String,
}

/// `key`, or `key=value`, or `key=(value,value)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

/// Reads a whole file.
pub(crate) fn parse(text: &str) -> Result<Vec<Part<'_>>, FileError> {
    let mut lines = Lines { text, at: 0, number: 0 };
    let mut parts = Vec::new();
    let mut subtest: Option<String> = None;
    loop {
        let start = lines.at;
        let Some(line) = lines.next() else { break };
        let number = lines.number;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            parts.push(Part::Verbatim(&text[start..lines.at]));
            continue;
        }
        let mut whole = line.to_owned();
        while whole.ends_with('\\') {
            let Some(next) = lines.next() else { break };
            whole.pop();
            whole.push(' ');
            whole.push_str(next.trim());
        }
        let failed = |reason| FileError { line: number, reason };
        let (command, arguments) = parse_line(&whole).map_err(failed)?;
        if command == "subtest" {
            subtest = step_subtest(subtest, &arguments).map_err(failed)?;
            parts.push(Part::Verbatim(&text[start..lines.at]));
            continue;
        }
        let mut directive = Directive {
            line: number,
            head: "",
            tail: "",
            command,
            arguments,
            input: String::new(),
            expected: String::new(),
        };
        let body = lines.at;
        let mut end = lines.at;
        let mut separated = false;
        while let Some(line) = lines.next() {
            separated = line == SEPARATOR;
            if separated {
                break;
            }
            end = lines.at;
        }
        directive.input = text[body..end].trim().to_owned();
        directive.head = &text[start..end];
        if separated {
            directive.expected = lines.output()?;
        }
        directive.tail = &text[end..lines.at];
        parts.push(Part::Directive(directive));
    }
    match subtest {
        Some(_) => Err(FileError { line: lines.number, reason: FileErrorReason::Subtest }),
        None => Ok(parts),
    }
}

/// `output` as it stands below its directive, with the `----` before it and a blank line after.
pub(crate) fn write_output(output: &str) -> String {
    if output.lines().any(|line| line.trim().is_empty()) {
        format!("{SEPARATOR}\n{SEPARATOR}\n{output}{SEPARATOR}\n{SEPARATOR}\n\n")
    } else {
        format!("{SEPARATOR}\n{output}\n")
    }
}

const SEPARATOR: &str = "----";

/// The lines of a text, without their ends.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.at += length;
        self.number += 1;
        let line = rest[..length].strip_suffix('\n').unwrap_or(&rest[..length]);
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// The expected output that begins here, up to and with the line that ends it.
    fn output(&mut self) -> Result<String, FileError> {
        let mut output = String::new();
        let mut take = |line: &str| {
            output.push_str(line);
            output.push('\n');
        };
        let Some(first) = self.next() else { return Ok(output) };
        if first != SEPARATOR {
            let mut line = Some(first);
            while let Some(text) = line.filter(|line| !line.trim().is_empty()) {
                take(text);
                line = self.next();
            }
            return Ok(output);
        }
        while let Some(line) = self.next() {
            if line != SEPARATOR {
                take(line);
                continue;
            }
            match self.next() {
                Some(SEPARATOR) => {
                    return match self.next() {
                        Some(after) if !after.is_empty() => {
                            let reason = FileErrorReason::NoBlankLine;
                            Err(FileError { line: self.number, reason })
                        }
                        _ => Ok(output),
                    };
                }
                after => {
                    take(line);
                    after.into_iter().for_each(&mut take);
                }
            }
        }
        Ok(output)
    }
}

fn parse_line(line: &str) -> Result<(String, Vec<Argument>), FileErrorReason> {
    let (command, mut rest) = cut(line, " ");
    let mut arguments = Vec::new();
    rest = rest.trim();
    while !rest.is_empty() {
        let (key, after) = cut(rest, " =");
        if key.is_empty() {
            return Err(FileErrorReason::EmptyKey);
        }
        let mut values = Vec::new();
        rest = after;
        if let Some(after) = rest.strip_prefix('=') {
            if let Some(list) = after.strip_prefix('(') {
                rest = parse_list(list, &mut values)?;
            } else {
                let (value, after) = cut(after, " ");
                values.push(value.to_owned());
                rest = after;
            }
        }
        arguments.push(Argument { key: key.to_owned(), values });
        rest = rest.trim();
    }
    Ok((command.to_owned(), arguments))
}

/// Takes in the values of a list up to its end; returns what stands behind.
fn parse_list<'a>(list: &'a str, values: &mut Vec<String>) -> Result<&'a str, FileErrorReason> {
    let (mut open, mut start) = (1, 0);
    for (at, char) in list.char_indices() {
        match char {
            ',' if open == 1 => {
                values.push(value(&list[start..at], values.is_empty()));
                start = at + 1;
            }
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            values.push(value(&list[start..at], values.is_empty()));
            return Ok(&list[at + 1..]);
        }
    }
    Err(FileErrorReason::OpenList)
}

/// A value of a list, without the spaces that follow the comma before it.
fn value(text: &str, is_first: bool) -> String {
    if is_first { text } else { text.trim_start_matches(' ') }.to_owned()
}

/// What stands before the first of `stops`, and the rest from there on.
fn cut<'a>(text: &'a str, stops: &str) -> (&'a str, &'a str) {
    text.split_at(text.find(|char| stops.contains(char)).unwrap_or(text.len()))
}

/// The subtest that is open after this line.
fn step_subtest(
    open: Option<String>,
    arguments: &[Argument],
) -> Result<Option<String>, FileErrorReason> {
    let names: Vec<&str> = arguments.iter().map(|argument| argument.key.as_str()).collect();
    match (names.as_slice(), open) {
        (["end"], Some(_)) => Ok(None),
        (["end", name], Some(open)) if *name == open => Ok(None),
        (["end", ..], _) | ([], _) => Err(FileErrorReason::Subtest),
        ([name], None) => Ok(Some((*name).to_owned())),
        _ => Err(FileErrorReason::Subtest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(text: &str) -> Vec<Directive<'_>> {
        let parts = parse(text).unwrap();
        let whole: String = parts
            .iter()
            .map(|part| match part {
                Part::Verbatim(text) => (*text).to_owned(),
                Part::Directive(directive) => directive.head.to_owned() + directive.tail,
            })
            .collect();
        assert_eq!(whole, text, "the parts are the whole text");
        let directive = |part| match part {
            Part::Verbatim(_) => None,
            Part::Directive(directive) => Some(directive),
        };
        parts.into_iter().filter_map(directive).collect()
    }

    fn arguments(line: &str) -> Vec<(String, Vec<String>)> {
        let (_, arguments) = parse_line(line).unwrap();
        arguments.into_iter().map(|it| (it.key, it.values)).collect()
    }

    #[test]
    fn directives_have_input_and_output() {
        let text = "\n# comment\n  # indented\none a b=c\n----\nok\n\n \ntwo\n  in\n\n# put\n\n----\n\
                    a\n  b\n   \n# between\nthree\n----\n\nfour\n----\nlast";
        let read = directives(text);
        let shown: Vec<_> = read
            .iter()
            .map(|it| (it.line, it.command.as_str(), it.input.as_str(), it.expected.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (4, "one", "", "ok\n"),
                (9, "two", "in\n\n# put", "a\n  b\n"),
                (19, "three", "", ""),
                (22, "four", "", "last\n"),
            ]
        );
    }

    #[test]
    fn a_directive_may_span_lines() {
        let read = directives("one a \\\n   b \\\n c\nin\n----\nout\n");
        assert_eq!(read[0].arguments.len(), 3);
        assert_eq!(read[0].input, "in");
        assert_eq!(directives("one \\")[0].arguments[0].key, "\\");
    }

    #[test]
    fn without_a_separator_the_rest_is_input() {
        let read = directives("one\nin\n\ntwo\n---- \n");
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].input.as_str(), read[0].expected.as_str()), ("in\n\ntwo\n----", ""));
    }

    #[test]
    fn output_may_have_blank_lines() {
        let text = "one\n----\n----\na\n\n----\nb\n----\n----\n\ntwo\n----\nok\n";
        let read = directives(text);
        assert_eq!(read[0].expected, "a\n\n----\nb\n");
        assert_eq!(read[1].expected, "ok\n");
        assert_eq!(write_output("a\n\nb\n"), "----\n----\na\n\nb\n----\n----\n\n");
        assert_eq!(write_output("a\n"), "----\na\n\n");
        assert_eq!(write_output(""), "----\n\n");

        let error = parse("one\n----\n----\na\n----\n----\ntwo\n").unwrap_err();
        assert_eq!(error, FileError { line: 7, reason: FileErrorReason::NoBlankLine });
        assert!(parse("one\n----\n----\na\n----\n----").is_ok());
    }

    #[test]
    fn arguments_have_any_number_of_values() {
        for (line, want) in [
            ("cmd", vec![]),
            ("cmd  a   b", vec![("a", vec![]), ("b", vec![])]),
            ("cmd a=", vec![("a", vec![""])]),
            ("cmd a= b", vec![("a", vec![""]), ("b", vec![])]),
            ("cmd a=b=c", vec![("a", vec!["b=c"])]),
            ("cmd a=() b", vec![("a", vec![""]), ("b", vec![])]),
            ("cmd a=(1, 2,3 )b", vec![("a", vec!["1", "2", "3 "]), ("b", vec![])]),
            ("cmd a=( x,y)", vec![("a", vec![" x", "y"])]),
            ("cmd a=(f(1,2),(3))", vec![("a", vec!["f(1,2)", "(3)"])]),
            ("cmd a=1 a=2", vec![("a", vec!["1"]), ("a", vec!["2"])]),
            ("cmd (a)", vec![("(a)", vec![])]),
        ] {
            let own = |(key, values): (&str, Vec<&str>)| {
                (key.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>())
            };
            assert_eq!(arguments(line), want.into_iter().map(own).collect::<Vec<_>>(), "{line}");
        }
        assert_eq!(parse_line("cmd =a"), Err(FileErrorReason::EmptyKey));
        assert_eq!(parse_line("cmd a=(1,(2)"), Err(FileErrorReason::OpenList));
    }

    #[test]
    fn subtests_match_up() {
        assert_eq!(directives("subtest a\none\n----\nok\n\nsubtest end a\n").len(), 1);
        assert_eq!(directives("subtest a\nsubtest end\nsubtest b\nsubtest end\n").len(), 0);
        for text in ["subtest a\n", "subtest end\n", "subtest a\nsubtest end b\n", "subtest\n"] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.reason, FileErrorReason::Subtest, "{text}");
        }
    }

    #[test]
    fn some_names_are_no_scripts() {
        for (name, want) in [
            ("a.txt", true),
            ("#a", true),
            (".a.txt", false),
            ("a.txt~", false),
            ("#a.txt#", false),
        ] {
            assert_eq!(is_script_name(name), want, "{name}");
        }
    }
}
