//! The language of `checks.txt`, which says itself what it is.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Etcdctl,
    Quorate,
}

/// One command and what is to come of it.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// Where it stands.
    pub(super) line: usize,
    only: Vec<String>,
    pub(super) words: Vec<String>,
    pub(super) goes_on: bool,
    pub(super) input: String,
    pub(super) code: i32,
    errors: Option<String>,
    errors_of_etcdctl: Option<String>,
    pub(super) output: Vec<String>,
    /// More output may follow.
    pub(super) is_open: bool,
}

impl Check {
    pub(super) fn is_for(&self, program: Program, server: &str) -> bool {
        let program = match program {
            Program::Etcdctl => "etcdctl",
            Program::Quorate => "quorate",
        };
        let names = |all: [&str; 2]| self.only.iter().any(|name| all.contains(&name.as_str()));
        let has = |name: &str| self.only.iter().any(|only| only == name);
        let is_servers = match server {
            // Ours, with the other engine.
            "zab" => !has("raft") && (!names(["ours", "etcd"]) || has("ours")),
            server => !names(["ours", "etcd"]) || has(server),
        };
        is_servers && (!names(["etcdctl", "quorate"]) || has(program))
    }

    pub(super) fn errors_of(&self, program: Program) -> Option<&str> {
        match (&self.errors, program) {
            (None, Program::Etcdctl) => self.errors_of_etcdctl.as_deref(),
            (errors, _) => errors.as_deref(),
        }
    }
}

/// Reads the table.
pub(super) fn read(text: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    let mut only = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(names) = line.strip_prefix("@ ") {
            only = names.split_whitespace().map(str::to_owned).collect();
            continue;
        }
        let goes_on = line.starts_with("~ ");
        if goes_on || line.starts_with("$ ") {
            let (line, words) = (number + 1, words(&line[2..]));
            let only = std::mem::take(&mut only);
            checks.push(Check { line, only, words, goes_on, ..Check::default() });
            continue;
        }
        let check = checks.last_mut().unwrap_or_else(|| panic!("line {}: no command", number + 1));
        if let Some(input) = line.strip_prefix('|') {
            check.input.push_str(input.strip_prefix(' ').unwrap_or(input));
            check.input.push('\n');
        } else if let Some(code) = line.strip_prefix("= ") {
            check.code = code.parse().unwrap();
        } else if let Some(errors) = line.strip_prefix("! ") {
            check.errors = Some(errors.to_owned());
        } else if let Some(errors) = line.strip_prefix("!etcdctl ") {
            check.errors_of_etcdctl = Some(errors.to_owned());
        } else if line == "..." {
            check.is_open = true;
        } else {
            check.output.push(if line == "\\" { String::new() } else { line.to_owned() });
        }
    }
    checks
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// What was kept under names.
#[derive(Debug)]
pub(super) struct Kept(BTreeMap<String, String>);

impl Kept {
    pub(super) fn new(endpoint: &str) -> Kept {
        Kept(BTreeMap::from([("endpoint".to_owned(), endpoint.to_owned())]))
    }

    /// The text with what was kept in place of names.
    pub(super) fn put_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.0 {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    /// Compares lines with what is wanted, and keeps what has a name.
    pub(super) fn take(
        &mut self,
        want: &[String],
        found: &[&str],
        is_open: bool,
    ) -> Result<(), String> {
        for (number, want) in want.iter().enumerate() {
            let want = self.put_in(want);
            let Some(line) = found.get(number) else {
                return Err(format!("line {} is missing: {want}", number + 1));
            };
            let mut kept = Vec::new();
            if !matches(&want, line, &mut kept) {
                return Err(format!("line {} is not {want}\n{}{line}", number + 1, " ".repeat(11)));
            }
            self.0.extend(kept);
        }
        match found.get(want.len()) {
            Some(more) if !is_open => Err(format!("line {} is too many: {more}", want.len() + 1)),
            _ => Ok(()),
        }
    }
}

/// Whether a line is as wanted; what has a name is kept.
fn matches(want: &str, line: &str, kept: &mut Vec<(String, String)>) -> bool {
    let open = want.find('{').into_iter().flat_map(|from| {
        // Braces of JSON are no placeholders.
        want[from..].match_indices('{').filter_map(move |(at, _)| placeholder(want, from + at))
    });
    let Some((from, name, kind, after)) = open.take(1).next() else { return want == line };
    let Some(rest) = line.strip_prefix(&want[..from]) else { return false };
    let fits = |letter: char| match kind {
        "num" => letter.is_ascii_digit(),
        "hex" => letter.is_ascii_hexdigit(),
        "id" => letter.is_ascii_hexdigit() || letter == ' ',
        _ => true,
    };
    let longest = rest.find(|letter| !fits(letter)).unwrap_or(rest.len());
    for end in (0..=longest).rev().filter(|end| rest.is_char_boundary(*end)) {
        if end == 0 && kind != "any" {
            return false;
        }
        let before = kept.len();
        if name != "_" {
            let value = if kind == "id" { rest[..end].trim_start() } else { &rest[..end] };
            kept.push((name.to_owned(), value.to_owned()));
        }
        if matches(after, &rest[end..], kept) {
            return true;
        }
        kept.truncate(before);
    }
    false
}

/// A placeholder at a brace: where, its name, its kind, and what follows it.
fn placeholder(want: &str, at: usize) -> Option<(usize, &str, &str, &str)> {
    let (inner, after) = want[at + 1..].split_once('}')?;
    let (name, kind) = inner.split_once(':')?;
    ["num", "hex", "id", "any"].contains(&kind).then_some((at, name, kind, after))
}

#[test]
fn lines_are_compared_with_placeholders() {
    for (want, line, is_so, kept) in [
        ("a", "a", true, &[][..]),
        ("a", "b", false, &[]),
        (r#"{"x":{_:num}}"#, r#"{"x":17}"#, true, &[]),
        (r#"{"x":{_:num}}"#, r#"{"x":}"#, false, &[]),
        (r#"{"x":{_:num}}"#, r#"{"x":"17"}"#, false, &[]),
        ("lease {L:hex} ok", "lease 0af3 ok", true, &[("L", "0af3")]),
        ("{_:any}, {N:num}", "a, b, 3", true, &[("N", "3")]),
        ("{_:any}", "", true, &[]),
        ("9{_:num}s", "98s", true, &[]),
        ("Member {M:id} added", "Member  af3 added", true, &[("M", "af3")]),
    ] {
        let mut found = Vec::new();
        assert_eq!(matches(want, line, &mut found), is_so, "{want} {line}");
        let kept: Vec<_> = kept.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        assert_eq!(found, kept, "{want} {line}");
    }
    assert_eq!(words(r#"put "a b" '' c"d e""#), ["put", "a b", "", "cd e"]);
}
