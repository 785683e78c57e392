//! Histories as text, one operation a line: for people, and for files that are checked again.
//!
//! ```text
//! initial @1
//! c1 10..20: put "k" "a" -> @2 put
//! c2 via 3 15..?: if modified "k" = 2 and value "k" = "a" then put "k" "b" else get "k"
//! c3 30..40: serializable range "a" "z" -> @2 found "k" "a" @2/2 v1;
//! c4 50..!: delete "k"
//! ```
//! Times are `asked..answered`, with `?` for an unknown outcome and `!` for a refusal. Behind `->` stand
//! the revision (if known), `no` if the conditions did not hold, and what came of each action: `put`
//! (with `replaced` and the former item, if it was asked for), `deleted COUNT`, or `found` with items and a
//! semicolon at their end. An item is key, value, `@created/modified` and `v` with the version, the last
//! two if known.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use quorate_types::Revision;

use crate::model::{Held, State};
use crate::operation::{
    Action, Compare, Done, History, Item, Operation, Outcome, Relation, Request, Response, Span,
    Target,
};

/// A line that is none of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {expected} expected, and there is {found}")]
pub struct TextError {
    /// Which, counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

/// A key or a value in quotes.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "initial @{}", self.initial.revision)?;
        for (key, held) in &self.initial.items {
            let Held { value, created, modified, version } = held;
            let item = Item::new(key.clone(), value.clone());
            write!(f, " {}", item.at(created.0, modified.0, *version))?;
        }
        writeln!(f)?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.client)?;
        if let Some(member) = self.member {
            write!(f, " via {member}")?;
        }
        write!(f, " {}..", self.invoked_at)?;
        match &self.outcome {
            Outcome::Unknown => write!(f, "?: {}", self.request),
            Outcome::Refused => write!(f, "!: {}", self.request),
            Outcome::Answered { at, response } => {
                write!(f, "{at}: {} -> {response}", self.request)
            }
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.serializable {
            write!(f, "serializable ")?;
        }
        for (at, compare) in self.compares.iter().enumerate() {
            write!(f, "{} {compare} ", if at == 0 { "if" } else { "and" })?;
        }
        if !self.compares.is_empty() {
            write!(f, "then ")?;
        }
        actions(f, &self.then)?;
        if !self.otherwise.is_empty() {
            write!(f, " else ")?;
            actions(f, &self.otherwise)?;
        }
        Ok(())
    }
}

fn actions(f: &mut fmt::Formatter<'_>, actions: &[Action]) -> fmt::Result {
    if actions.is_empty() {
        return write!(f, "nothing");
    }
    for (at, action) in actions.iter().enumerate() {
        write!(f, "{}{action}", if at == 0 { "" } else { " also " })?;
    }
    Ok(())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many, Span { key, end }) = match self {
            Action::Put { key, value } => {
                return write!(f, "put {} {}", Quoted(key), Quoted(value));
            }
            Action::Delete(span) => ("delete", "delete-range", span),
            Action::Range(span) => ("get", "range", span),
        };
        match end {
            None => write!(f, "{one} {}", Quoted(key)),
            Some(end) => write!(f, "{many} {} {}", Quoted(key), Quoted(end)),
        }
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match self.relation {
            Relation::Equal => "=",
            Relation::Unequal => "!=",
            Relation::Greater => ">",
            Relation::Less => "<",
        };
        let key = Quoted(&self.key);
        match &self.target {
            Target::Value(value) => write!(f, "value {key} {relation} {}", Quoted(value)),
            Target::Version(version) => write!(f, "version {key} {relation} {version}"),
            Target::Created(revision) => write!(f, "created {key} {relation} {revision}"),
            Target::Modified(revision) => write!(f, "modified {key} {relation} {revision}"),
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision {
            Some(revision) => write!(f, "@{revision}")?,
            None => write!(f, "@?")?,
        }
        if !self.succeeded {
            write!(f, " no")?;
        }
        self.done.iter().try_for_each(|done| write!(f, " {done}"))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, items) = match self {
            Done::Put { previous: None } => return write!(f, "put"),
            Done::Deleted { count } => return write!(f, "deleted {count}"),
            Done::Put { previous: Some(items) } => ("put replaced", items),
            Done::Found { items } => ("found", items),
        };
        write!(f, "{word}")?;
        items.iter().try_for_each(|item| write!(f, " {item}"))?;
        write!(f, " ;")
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Quoted(&self.key), Quoted(&self.value))?;
        let number = |it: Option<Revision>| it.map_or("?".to_owned(), |it| it.to_string());
        if self.created.is_some() || self.modified.is_some() {
            write!(f, " @{}/{}", number(self.created), number(self.modified))?;
        }
        self.version.map_or(Ok(()), |version| write!(f, " v{version}"))
    }
}

impl FromStr for History {
    type Err = TextError;

    /// Reads what `Display` wrote. Empty lines and those that begin with `#` are passed over.
    fn from_str(text: &str) -> Result<History, TextError> {
        let mut history = History::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = Words { rest: line, line: number + 1 };
            if words.takes("initial") {
                history.initial = words.state()?;
            } else {
                history.operations.push(words.operation()?);
            }
            if !words.rest.is_empty() {
                return words.fail("the end of the line");
            }
        }
        Ok(history)
    }
}

/// What is left of a line.
struct Words<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Words<'a> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, TextError> {
        let found = match self.rest {
            "" => "nothing more".to_owned(),
            rest => format!("{:?}", rest.chars().take(40).collect::<String>()),
        };
        Err(TextError { line: self.line, expected, found })
    }

    /// The next word, up to a space.
    fn peek(&self) -> &'a str {
        self.rest.split(' ').next().unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default().trim_start();
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.peek() == word;
        if is_next {
            self.skip(word.len());
        }
        is_next
    }

    /// The next word without what it begins with.
    fn after(&mut self, prefix: &str, expected: &'static str) -> Result<&'a str, TextError> {
        let word = self.peek();
        let Some(rest) = word.strip_prefix(prefix) else { return self.fail(expected) };
        self.skip(word.len());
        Ok(rest)
    }

    fn number(&mut self, prefix: &str, expected: &'static str) -> Result<u64, TextError> {
        let before = self.rest;
        let word = self.after(prefix, expected)?;
        word.parse().or_else(|_| Words { rest: before, line: self.line }.fail(expected))
    }

    fn bytes(&mut self) -> Result<Bytes, TextError> {
        let expected = "a text in quotes";
        let Some(text) = self.rest.strip_prefix('"') else { return self.fail(expected) };
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes().iter().enumerate();
        while let Some((at, byte)) = rest.next() {
            bytes.push(match byte {
                b'"' => {
                    self.skip(at + 2);
                    return Ok(bytes.into());
                }
                b'\\' => match rest.next().map(|(_, byte)| *byte) {
                    Some(b't') => b'\t',
                    Some(b'r') => b'\r',
                    Some(b'n') => b'\n',
                    Some(byte @ (b'\'' | b'"' | b'\\')) => byte,
                    Some(b'x') => {
                        let digits = text.get(at + 2..at + 4);
                        let byte = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
                        let Some(byte) = byte else { return self.fail(expected) };
                        rest.nth(1);
                        byte
                    }
                    _ => return self.fail(expected),
                },
                byte => *byte,
            });
        }
        self.fail(expected)
    }

    fn state(&mut self) -> Result<State, TextError> {
        let mut state =
            State { revision: Revision(self.number("@", "a revision")?), ..State::default() };
        while self.rest.starts_with('"') {
            let item = self.item()?;
            let (Some(created), Some(modified), Some(version)) =
                (item.created, item.modified, item.version)
            else {
                return self.fail("an item with revisions and version");
            };
            let held = Held { value: item.value, created, modified, version };
            state.items.insert(item.key, held);
        }
        Ok(state)
    }

    fn operation(&mut self) -> Result<Operation, TextError> {
        let client = self.number("c", "a client such as c1")?;
        let via = self.takes("via");
        let member = if via { Some(self.number("", "a member")?) } else { None };
        let expected = "times such as 10..20:";
        let times = self.peek();
        let Some((asked, answered)) = times.strip_suffix(':').and_then(|it| it.split_once(".."))
        else {
            return self.fail(expected);
        };
        let Ok(invoked_at) = asked.parse() else { return self.fail(expected) };
        let answered_at = answered.parse::<u64>();
        if answered_at.is_err() && answered != "?" && answered != "!" {
            return self.fail(expected);
        }
        self.skip(times.len());
        let request = self.request()?;
        let outcome = match answered_at {
            Ok(at) => {
                if !self.takes("->") {
                    return self.fail("-> and an answer");
                }
                Outcome::Answered { at, response: self.response()? }
            }
            Err(_) if answered == "?" => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        Ok(Operation { client, member, invoked_at, request, outcome })
    }

    fn request(&mut self) -> Result<Request, TextError> {
        let mut request =
            Request { serializable: self.takes("serializable"), ..Request::default() };
        if self.takes("if") {
            request.compares.push(self.compare()?);
            while self.takes("and") {
                request.compares.push(self.compare()?);
            }
            if !self.takes("then") {
                return self.fail("and, or then");
            }
        }
        request.then = self.actions()?;
        if self.takes("else") {
            request.otherwise = self.actions()?;
        }
        Ok(request)
    }

    fn compare(&mut self) -> Result<Compare, TextError> {
        let kind = self.peek();
        self.skip(kind.len());
        let key = self.bytes()?;
        let relation = match self.peek() {
            "=" => Relation::Equal,
            "!=" => Relation::Unequal,
            ">" => Relation::Greater,
            "<" => Relation::Less,
            _ => return self.fail("=, !=, > or <"),
        };
        self.skip(self.peek().len());
        let target = match kind {
            "value" => Target::Value(self.bytes()?),
            "version" => Target::Version(self.number("", "a version")?),
            "created" => Target::Created(Revision(self.number("", "a revision")?)),
            "modified" => Target::Modified(Revision(self.number("", "a revision")?)),
            _ => return self.fail("value, version, created or modified before this"),
        };
        Ok(Compare { key, relation, target })
    }

    fn actions(&mut self) -> Result<Vec<Action>, TextError> {
        if self.takes("nothing") {
            return Ok(Vec::new());
        }
        let mut actions = vec![self.action()?];
        while self.takes("also") {
            actions.push(self.action()?);
        }
        Ok(actions)
    }

    fn action(&mut self) -> Result<Action, TextError> {
        let word = self.peek();
        if !["put", "delete", "get", "delete-range", "range"].contains(&word) {
            return self.fail("put, get, range, delete or delete-range");
        }
        self.skip(word.len());
        let key = self.bytes()?;
        Ok(match word {
            "put" => Action::Put { key, value: self.bytes()? },
            "delete" => Action::Delete(Span { key, end: None }),
            "get" => Action::Range(Span { key, end: None }),
            "delete-range" => Action::Delete(Span { key, end: Some(self.bytes()?) }),
            _ => Action::Range(Span { key, end: Some(self.bytes()?) }),
        })
    }

    fn response(&mut self) -> Result<Response, TextError> {
        let revision = match self.takes("@?") {
            true => None,
            false => Some(Revision(self.number("@", "a revision")?)),
        };
        let mut response = Response { revision, succeeded: !self.takes("no"), done: Vec::new() };
        while !self.rest.is_empty() {
            response.done.push(if self.takes("put") {
                let replaced = self.takes("replaced");
                Done::Put { previous: if replaced { Some(self.items()?) } else { None } }
            } else if self.takes("deleted") {
                Done::Deleted { count: self.number("", "a count")? }
            } else if self.takes("found") {
                Done::Found { items: self.items()? }
            } else {
                return self.fail("put, deleted or found");
            });
        }
        Ok(response)
    }

    fn items(&mut self) -> Result<Vec<Item>, TextError> {
        let mut items = Vec::new();
        while !self.takes(";") {
            items.push(self.item()?);
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<Item, TextError> {
        let mut item = Item::new(self.bytes()?, self.bytes()?);
        if self.rest.starts_with('@') {
            let expected = "revisions such as @2/3";
            let both = self.after("@", expected)?;
            let Some((created, modified)) = both.split_once('/') else {
                return self.fail(expected);
            };
            item.created = created.parse().ok().map(Revision);
            item.modified = modified.parse().ok().map(Revision);
        }
        if self.rest.starts_with('v') {
            item.version = Some(self.number("v", "a version")?);
        }
        Ok(item)
    }
}
