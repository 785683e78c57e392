//! `watch-log`: prints the log as the members apply it, a line an entry. When a member cannot go on it
//! continues at the next one, where it left off.

use std::io::{self, Write};
use std::time::Duration;

use quorate_proto::quoratepb::log_client::LogClient;
use quorate_proto::quoratepb::log_watch_request::From;
use quorate_proto::quoratepb::{LogEntry, LogWatchRequest, LogWatchResponse};
use quorate_proto::tonic::{Code, Request, Status};
use serde::Serialize;

use super::contest::Stop;
use super::endpoints::Target;
use super::error::{CliError, said_by};
use super::flags::Form;
use super::output::{Output, to_stdout, write_json};
use super::{ANSWER_BYTES_MAX, With};
use crate::tell;

/// When no member could go on, they are asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct WatchLogArgs {
    /// Everything from the entry of this index on; 0 is from the oldest that is kept. Without it from
    /// now on
    #[arg(long, value_name = "INDEX", conflicts_with = "revision")]
    from: Option<u64>,
    /// Everything from the entry on that makes this revision of the keys
    #[arg(long, value_name = "REVISION")]
    revision: Option<i64>,
    /// Ends after the entry of this index
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
}

pub(super) async fn run(with: With<WatchLogArgs>) -> Result<(), CliError> {
    let With { args, flags } = with;
    let (target, output) = (flags.target()?, flags.output()?);
    refuse_other_forms(&output)?;
    let mut stop = Stop::listen()?;
    tokio::select! {
        outcome = follow(&target, &args, &output) => outcome,
        () = stop.asked() => Ok(()),
    }
}

fn refuse_other_forms(output: &Output) -> Result<(), CliError> {
    output.refuse_table()?;
    match output.form {
        Some(Form::Fields) => {
            Err(CliError::Unsupported("fields not supported as output format".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Follows one member after the other.
async fn follow(target: &Target, args: &WatchLogArgs, output: &Output) -> Result<(), CliError> {
    let mut told = Told::new(args);
    let mut failures: Vec<Failure> = Vec::new();
    let mut warned = false;
    let alone = target.names().count() == 1;
    for member in target.one_by_one().collect::<Vec<_>>().iter().cycle() {
        let begun = told.answers;
        let failure = match follow_one(member, alone, &mut told, output).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if let Failure::Final(error) = failure {
            return Err(error);
        }
        if begun != told.answers {
            failures.clear();
            warned = false;
        }
        // The only member's word is told at the end, if that is now.
        let ends = match &failure {
            Failure::Gone(_) | Failure::Final(_) => alone,
            Failure::Unreachable(_) => alone && !told.has_begun(),
            Failure::ForNow(_) => false,
        };
        if !warned && !ends {
            let name = member.names().next().unwrap_or_default();
            let next = if alone { "trying again" } else { "trying the next one" };
            tell::etcdctl_warning(&format!("{name}: {}; {next}", failure.text(name)));
        }
        failures.push(failure);
        if failures.len() < target.names().count() {
            continue;
        }
        // Nobody could go on. That passes, unless somebody said that it does not.
        warned = true;
        let mut unreachable = Vec::new();
        for failure in failures.drain(..) {
            match failure {
                Failure::Gone(error) | Failure::Final(error) => return Err(error),
                Failure::Unreachable(why) => unreachable.push(why),
                Failure::ForNow(_) => {}
            }
        }
        if !told.has_begun() && unreachable.len() == target.names().count() {
            return Err(CliError::Unreachable(unreachable.join("; ")));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    Ok(())
}

/// Why one member could not go on.
#[derive(Debug)]
enum Failure {
    /// It cannot be reached.
    Unreachable(String),
    /// It may in a moment, or another one can.
    ForNow(String),
    /// It does not have what comes next. Another one may.
    Gone(CliError),
    /// Nobody can.
    Final(CliError),
}

impl Failure {
    fn of(status: &Status) -> Failure {
        let text = said_by(status);
        match status.code() {
            Code::OutOfRange => {
                let text = format!("{text}; --from 0 begins with the oldest entry that is kept");
                Failure::Gone(CliError::Failed(text))
            }
            Code::DataLoss | Code::InvalidArgument => Failure::Final(CliError::Failed(text)),
            Code::Unimplemented => {
                let text = format!("the member is no Quorate of this version: {text}");
                Failure::Final(CliError::Failed(text))
            }
            _ => Failure::ForNow(text),
        }
    }

    fn text(&self, name: &str) -> String {
        match self {
            Failure::Unreachable(why) | Failure::ForNow(why) => {
                why.strip_prefix(name).and_then(|why| why.strip_prefix(": ")).unwrap_or(why).into()
            }
            Failure::Gone(error) | Failure::Final(error) => error.to_string(),
        }
    }
}

async fn follow_one(
    member: &Target,
    alone: bool,
    told: &mut Told,
    output: &Output,
) -> Result<(), Failure> {
    let channel = member.connect_watched().await.map_err(|error| match error {
        CliError::Unreachable(why) => Failure::Unreachable(why),
        error => Failure::Final(error),
    })?;
    let mut client = LogClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut request = Request::new(told.request());
    if !alone {
        // One that has lost the others says so, instead of telling nothing any more.
        request.metadata_mut().insert("hasleader", "true".parse().expect("it is ASCII"));
    }
    let answers = client.watch(request).await;
    let mut answers = answers.map_err(|status| Failure::of(&status))?.into_inner();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if told.take(&answer, output).map_err(Failure::Final)? {
                    return Ok(());
                }
            }
            Ok(None) => return Err(Failure::ForNow("the member has ended the stream".to_owned())),
            Err(status) => return Err(Failure::of(&status)),
        }
    }
}

/// How far everything has been printed.
#[derive(Debug, Default)]
struct Told {
    from: Option<From>,
    to: u64,
    /// Answers so far.
    answers: u64,
    cluster: u64,
    /// The entry printed last.
    last: Option<(u64, u64)>,
}

impl Told {
    fn new(args: &WatchLogArgs) -> Told {
        let from = match (args.from, args.revision) {
            (Some(index), _) => Some(From::Index(index)),
            (None, Some(revision)) => Some(From::Revision(revision)),
            (None, None) => None,
        };
        Told { from, to: args.to.unwrap_or(u64::MAX), ..Told::default() }
    }

    fn has_begun(&self) -> bool {
        0 < self.answers
    }

    /// What is to be told next.
    fn request(&self) -> LogWatchRequest {
        match self.last {
            Some((index, stamp)) => LogWatchRequest {
                from: Some(From::Index(index.saturating_add(1))),
                previous_stamp: stamp,
            },
            None => LogWatchRequest { from: self.from, previous_stamp: 0 },
        }
    }

    /// Prints what is new; true when that was the last.
    fn take(&mut self, answer: &LogWatchResponse, output: &Output) -> Result<bool, CliError> {
        if self.has_begun() && answer.cluster_id != self.cluster {
            return Err(CliError::Failed(format!(
                "member {:x} is of cluster {:x}, and what was printed is of cluster {:x}",
                answer.member_id, answer.cluster_id, self.cluster
            )));
        }
        self.cluster = answer.cluster_id;
        self.answers += 1;
        let mut shown = Vec::new();
        for entry in &answer.entries {
            if let Some((last, _)) = self.last
                && entry.index != last.saturating_add(1)
            {
                let (member, index) = (answer.member_id, entry.index);
                let text = format!("member {member:x} told of entry {index} after {last}");
                return Err(CliError::Failed(text));
            }
            self.last = Some((entry.index, entry.stamp));
            if entry.index <= self.to {
                shown.push(entry);
            }
        }
        to_stdout(|out| shown.iter().try_for_each(|entry| write(out, output, entry)))?;
        // From a revision, the next entry may be one that is passed over.
        if self.last.is_none() && !matches!(self.from, Some(From::Revision(_))) {
            self.from = Some(From::Index(answer.next_index));
        }
        Ok(self.to < answer.next_index)
    }
}

/// An entry as an object.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    zxid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    kind: &'a str,
    bytes: u64,
    what: &'a str,
}

fn write(out: &mut impl Write, output: &Output, entry: &LogEntry) -> io::Result<()> {
    // The epoch in the upper half, the counter in the lower.
    let zxid = entry.zab.then(|| format!("{}.{}", entry.term, entry.stamp & 0xffff_ffff));
    let LogEntry { index, term, kind, bytes, what, .. } = entry;
    let revision = Some(entry.revision).filter(|revision| *revision != 0);
    if output.form == Some(Form::Json) {
        let (index, term, bytes) = (*index, *term, *bytes);
        return write_json(out, &Line { index, term, zxid, revision, kind, bytes, what });
    }
    let place = format!("{index}@{}", zxid.unwrap_or_else(|| term.to_string()));
    let revision = revision.map_or("-".to_owned(), |revision| revision.to_string());
    let line = format!("{place:<12} {kind:<12} rev {revision:<8} {what}");
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(from: Option<u64>, revision: Option<i64>, to: Option<u64>) -> WatchLogArgs {
        WatchLogArgs { from, revision, to }
    }

    fn answer(indices: std::ops::Range<u64>) -> LogWatchResponse {
        let entry = |index| LogEntry { index, stamp: 3, term: 3, ..LogEntry::default() };
        LogWatchResponse {
            cluster_id: 7,
            next_index: indices.end,
            entries: indices.map(entry).collect(),
            ..LogWatchResponse::default()
        }
    }

    #[test]
    fn it_goes_on_where_it_left_off() {
        let output = Output { form: None, hex: false };
        let request = |from, previous_stamp| LogWatchRequest { from, previous_stamp };
        for (args, answers, want) in [
            (args(None, None, None), vec![], request(None, 0)),
            (args(None, None, None), vec![answer(9..9)], request(Some(From::Index(9)), 0)),
            (args(Some(0), None, None), vec![answer(4..4)], request(Some(From::Index(4)), 0)),
            (args(Some(4), None, None), vec![answer(4..7)], request(Some(From::Index(7)), 3)),
            (
                args(None, Some(5), None),
                vec![answer(4..4)],
                request(Some(From::Revision(5)), 0), // entries before it are passed over
            ),
            (
                args(None, Some(5), None),
                vec![answer(4..4), answer(6..8)],
                request(Some(From::Index(8)), 3),
            ),
        ] {
            let mut told = Told::new(&args);
            for answer in &answers {
                assert!(!told.take(answer, &output).unwrap(), "{args:?}");
            }
            assert_eq!(told.request(), want, "{args:?} after {answers:?}");
        }
    }

    #[test]
    fn it_ends_where_it_is_told_to_and_where_something_is_wrong() {
        let output = Output { form: None, hex: false };
        let mut told = Told::new(&args(Some(4), None, Some(6)));
        assert!(!told.take(&answer(4..6), &output).unwrap());
        assert!(told.take(&answer(6..9), &output).unwrap());
        let mut past = Told::new(&args(None, None, Some(6)));
        assert!(past.take(&answer(9..9), &output).unwrap(), "there is nothing to wait for");

        let mut told = Told::new(&args(Some(4), None, None));
        told.take(&answer(4..6), &output).unwrap();
        assert!(told.take(&answer(7..8), &output).is_err(), "a gap");
        let other = LogWatchResponse { cluster_id: 8, ..answer(6..7) };
        assert!(told.take(&other, &output).is_err(), "another cluster");
    }

    #[test]
    fn a_line_has_all_there_is_to_say() {
        let put = LogEntry {
            index: 12,
            term: 2,
            stamp: 2,
            revision: 8,
            kind: "put".to_owned(),
            what: "\"a\" (4 bytes)".to_owned(),
            bytes: 20,
            zab: false,
        };
        let empty = LogEntry {
            stamp: 2 << 32 | 5,
            revision: 0,
            kind: "empty".to_owned(),
            what: String::new(),
            bytes: 0,
            zab: true,
            ..put.clone()
        };
        for (entry, form, want) in [
            (&put, None, "12@2         put          rev 8        \"a\" (4 bytes)\n"),
            (&empty, None, "12@2.5       empty        rev -\n"),
            (
                &put,
                Some(Form::Json),
                "{\"index\":12,\"term\":2,\"revision\":8,\"kind\":\"put\",\"bytes\":20,\
                 \"what\":\"\\\"a\\\" (4 bytes)\"}\n",
            ),
            (
                &empty,
                Some(Form::Json),
                "{\"index\":12,\"term\":2,\"zxid\":\"2.5\",\"kind\":\"empty\",\"bytes\":0,\"what\":\"\"}\n",
            ),
        ] {
            let mut out = Vec::new();
            write(&mut out, &Output { form, hex: false }, entry).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
