//! `watch`: prints what happens to keys as it happens. When a member is lost it goes on at the next one,
//! where it left off.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::ANSWER_BYTES_MAX;
use super::answer;
use super::error::CliError;
use super::flags::ClientFlags;
use super::in_turn::InTurn;
use super::keys::interval;
use super::output::Output;
use super::words::words;
use crate::{switches, tell};

/// The exit code of a watch that the server has ended.
const INTERRUPTED: u8 = 5;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    options: WatchOptions,
    /// Read watches and requests for progress from standard input, a line each
    #[arg(short, long)]
    interactive: bool,
    /// A command to run for each event, told of it by ETCD_WATCH_ variables
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(clap::Args, Clone, Debug, Default)]
struct WatchOptions {
    /// The key, or the first of a range
    key: Option<OsString>,
    /// The end of the range, which is not in it
    range_end: Option<OsString>,
    /// All keys that begin with the key
    #[arg(long)]
    prefix: bool,
    /// Everything from this revision on; 0 is from now
    #[arg(long, value_name = "REVISION", default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
    /// Also print what the keys held before
    #[arg(long)]
    prev_kv: bool,
    /// Now and then print how far everything has been told
    #[arg(long)]
    progress_notify: bool,
}

/// A line of an interactive watch.
#[derive(clap::Parser, Debug)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum Line {
    Watch(WatchLine),
    Progress,
}

#[derive(clap::Args, Debug)]
struct WatchLine {
    #[command(flatten)]
    options: WatchOptions,
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Something to ask the server for; of a watch, with the command to run for each of its events.
type Asked = (WatchRequest, Option<Vec<OsString>>);

/// What is watched: what has to be asked for where it goes on.
#[derive(Debug, Default)]
struct Watchers {
    /// Not created yet. They are created in the order in which they were asked for.
    asked: VecDeque<Watcher>,
    by_id: BTreeMap<i64, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    /// From the first revision on that it has not been told.
    create: WatchCreateRequest,
    /// To be run for each of its events.
    command: Vec<OsString>,
}

impl Watchers {
    fn on_asked(&mut self, (request, command): &Asked) {
        if let (Some(RequestUnion::CreateRequest(create)), Some(command)) =
            (&request.request_union, command)
        {
            self.asked.push_back(Watcher { create: create.clone(), command: command.clone() });
        }
    }

    /// Notes how far a watcher is with this, and says what to run for it.
    fn on_response(&mut self, response: &WatchResponse) -> &[OsString] {
        let id = response.watch_id;
        if response.created
            && let Some(watcher) = self.asked.pop_front()
        {
            self.by_id.insert(id, watcher);
        }
        if response.canceled {
            self.by_id.remove(&id);
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let next = match response.events.last().and_then(|event| event.kv.as_ref()) {
            Some(last) => last.mod_revision + 1,
            None => revision + 1,
        };
        for (of, watcher) in &mut self.by_id {
            // Progress that was asked for is that of all of them. A new one is told what comes from now
            // on, if it has not said from where on.
            let is_told = *of == id || id < 0 && !response.created && !response.canceled;
            let start = &mut watcher.create.start_revision;
            if is_told && (!response.created || *start == 0) {
                *start = next.max(*start);
            }
        }
        self.by_id.get(&id).map_or(&[], |watcher| watcher.command.as_slice())
    }

    /// What to ask another member for: all that the last one was asked for and did not end.
    fn anew(&mut self) -> Vec<WatchRequest> {
        let created = std::mem::take(&mut self.by_id).into_values();
        self.asked = created.chain(std::mem::take(&mut self.asked)).collect();
        let create = |watcher: &Watcher| RequestUnion::CreateRequest(watcher.create.clone());
        self.asked.iter().map(|watcher| request(create(watcher))).collect()
    }
}

impl WatchOptions {
    fn request(&self) -> Result<WatchRequest, CliError> {
        let usual = || std::env::var_os("ETCDCTL_WATCH_KEY");
        let Some(key) = self.key.clone().or_else(usual) else {
            return Err(CliError::Arguments(
                "watch in non-interactive mode requires an argument or environment variable: the key \
                 to watch"
                    .to_owned(),
            ));
        };
        let end = self.range_end.clone().or_else(|| std::env::var_os("ETCDCTL_WATCH_RANGE_END"));
        let (key, range_end) = interval(&key, end.as_ref(), self.prefix, false)?;
        Ok(request(RequestUnion::CreateRequest(WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            ..WatchCreateRequest::default()
        })))
    }
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

pub(super) async fn run(args: WatchArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let (target, output) = (flags.target()?, flags.output()?);
    output.refuse_table()?;
    let mut lines = args.interactive.then(lines_of_input);
    let first = match &mut lines {
        None => Some((args.options.request()?, Some(args.command))),
        lines => first_of(lines).await,
    };
    let Some(first) = first else { return Ok(()) };
    let mut members = InTurn::begin(&target).await?;
    let mut watch =
        Watch { output, watchers: Watchers::default(), lines, is_interactive: args.interactive };
    watch.watchers.on_asked(&first);
    let mut requests = vec![first.0];
    loop {
        let why = watch.follow(&mut members, requests).await?;
        members.warn(&why);
        members.go_on().await;
        requests = watch.watchers.anew();
        if requests.is_empty() {
            // Some servers say nothing before the first request.
            requests.push(request(RequestUnion::ProgressRequest(WatchProgressRequest {})));
        }
    }
}

/// What is followed, wherever that is.
struct Watch {
    output: Output,
    watchers: Watchers,
    lines: Option<mpsc::Receiver<Vec<u8>>>,
    is_interactive: bool,
}

impl Watch {
    /// Follows one member until it is lost, and says why.
    ///
    /// # Errors
    ///
    /// What another member would not do better.
    async fn follow(
        &mut self,
        members: &mut InTurn,
        first: Vec<WatchRequest>,
    ) -> Result<String, CliError> {
        let (requests, outgoing) = mpsc::channel(first.len().max(1));
        for request in first {
            // There is room for it.
            let _ = requests.try_send(request);
        }
        let asked = members.request(ReceiverStream::new(outgoing));
        let watch = WatchClient::new(members.channel());
        let mut watch = watch.max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut responses = match watch.watch(asked).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return members.lost(status),
        };
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        members.on_answer();
                        let command = self.watchers.on_response(&response);
                        let goes_on = tell_of(&self.output, &response, command)?;
                        // Of several watchers the others go on.
                        if !goes_on && !self.is_interactive {
                            return Err(canceled());
                        }
                    }
                    Ok(None) => return Err(canceled()),
                    Err(status) => return members.lost(status),
                },
                line = next(&mut self.lines) => match line {
                    Some(line) => if let Some(asked) = understood(&line) {
                        self.watchers.on_asked(&asked);
                        let _ = requests.send(asked.0).await;
                    },
                    None => self.lines = None,
                },
            }
        }
    }
}

/// The lines of standard input as they come; a thread waits for them.
fn lines_of_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n').map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The first request there is; nothing if the input ends before.
async fn first_of(lines: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Asked> {
    loop {
        let line = next(lines).await?;
        if let Some(request) = understood(&line) {
            return Some(request);
        }
    }
}

/// What a line asks for; what asks for nothing is told.
fn understood(line: &[u8]) -> Option<Asked> {
    match parse(line) {
        Ok(request) => request,
        Err(error) => {
            tell::line(&format!("Invalid command: {error}"));
            None
        }
    }
}

/// The next line; never anything where none are read.
async fn next(lines: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

fn canceled() -> CliError {
    CliError::Coded { text: "watch is canceled by the server".to_owned(), code: INTERRUPTED }
}

/// A line of standard input.
fn parse(line: &[u8]) -> Result<Option<Asked>, CliError> {
    let words = words(line).map_err(|why| CliError::Input(why.to_owned()))?;
    if words.is_empty() {
        return Ok(None);
    }
    match switches::parse(&words.into_iter().map(OsString::from_vec).collect::<Vec<_>>()) {
        Ok(Line::Watch(line)) => {
            line.options.request().map(|request| Some((request, Some(line.command))))
        }
        Ok(Line::Progress) => {
            let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
            Ok(Some((request(progress), None)))
        }
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default();
            Err(CliError::Input(why.trim_start_matches("error: ").to_owned()))
        }
    }
}

/// Prints it, and runs what is to be run; false if the watcher has ended.
fn tell_of(
    output: &Output,
    response: &WatchResponse,
    command: &[OsString],
) -> Result<bool, CliError> {
    if response.canceled {
        let why = match (response.compact_revision, response.cancel_reason.as_str()) {
            (0, "") => "etcdserver: watch canceled",
            (0, reason) => reason,
            _ => "etcdserver: mvcc: required revision has been compacted",
        };
        tell::line(&format!("watch was canceled ({why})"));
        output.show(response)?;
        return Ok(false);
    }
    if response.created {
        return Ok(true);
    }
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if response.events.is_empty() {
        output.line(&format!("progress notify: {revision}"))?;
    }
    output.show(response)?;
    if let Some((program, arguments)) = command.split_first() {
        for event in &response.events {
            let pair = event.kv.clone().unwrap_or_default();
            let status = Command::new(program)
                .args(arguments)
                .env("ETCD_WATCH_REVISION", revision.to_string())
                .env("ETCD_WATCH_EVENT_TYPE", format!("{:?}", answer::kind(event)))
                .env("ETCD_WATCH_KEY", super::fields::quoted(&pair.key))
                .env("ETCD_WATCH_VALUE", super::fields::quoted(&pair.value))
                // The lines of an interactive watch are not for it.
                .stdin(Stdio::null())
                .status();
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    tell::line(&format!("command {program:?} error ({status})"));
                    return Err(CliError::Told(1));
                }
                Err(error) => {
                    let text = format!("cannot run {}: {error}", program.to_string_lossy());
                    return Err(CliError::Failed(text));
                }
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::ResponseHeader;
    use quorate_proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn asked(line: &str) -> Asked {
        parse(line.as_bytes()).unwrap().unwrap()
    }

    fn response(watch_id: i64, revision: i64) -> WatchResponse {
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        WatchResponse { watch_id, header, ..WatchResponse::default() }
    }

    #[test]
    fn each_watcher_of_several_has_its_command() {
        let mut watchers = Watchers::default();
        for line in ["watch a -- echo one", "progress", "watch b --prefix", "watch c -- two"] {
            watchers.on_asked(&asked(line));
        }
        let response = |watch_id, created, canceled| WatchResponse {
            created,
            canceled,
            ..response(watch_id, 5)
        };
        for id in [0, 1, -1] {
            watchers.on_response(&response(id, true, id < 0));
        }
        for (id, canceled, want) in [
            (0, false, &["echo", "one"][..]),
            (1, false, &[]),
            (-1, false, &[]), // the third was refused
            (0, true, &[]),
            (0, false, &[]),
        ] {
            assert_eq!(watchers.on_response(&response(id, false, canceled)), want, "{id}");
        }
        for line in ["", "watch", "hop", "watch a b c"] {
            assert!(!matches!(parse(line.as_bytes()), Ok(Some(_))), "{line:?}");
        }
    }

    #[test]
    fn what_was_told_is_not_asked_for_again_and_nothing_is_left_out() {
        let mut watchers = Watchers::default();
        for line in ["watch a", "watch b --rev 3", "watch c --rev 900", "watch d", "watch e"] {
            watchers.on_asked(&asked(line));
        }
        for id in 0..4 {
            watchers.on_response(&WatchResponse { created: true, ..response(id, 100) });
        }
        let starts = |watchers: &mut Watchers| -> Vec<i64> {
            let start = |request: WatchRequest| match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => create.start_revision,
                other => panic!("{other:?}"),
            };
            let starts = watchers.anew().into_iter().map(start).collect();
            let asked = watchers.asked.len() as i64;
            for id in 0..asked - 1 {
                watchers.on_response(&WatchResponse { created: true, ..response(id, 200) });
            }
            starts
        };
        // From the revision at which it was created, or as it was asked for. The last has no answer yet.
        assert_eq!(starts(&mut watchers), [101, 3, 900, 101, 0]);
        let event = |mod_revision| Event {
            kv: Some(KeyValue { mod_revision, ..KeyValue::default() }),
            ..Event::default()
        };
        // History may come with a later revision in its header than that of its events.
        let events = vec![event(7), event(9)];
        watchers.on_response(&WatchResponse { events, ..response(1, 150) });
        watchers.on_response(&response(3, 120)); // progress of one
        assert_eq!(starts(&mut watchers), [101, 10, 900, 121, 0]);
        watchers.on_response(&response(-1, 150)); // progress of all
        watchers.on_response(&WatchResponse { canceled: true, ..response(0, 0) });
        assert_eq!(starts(&mut watchers), [151, 900, 151, 0]);
    }
}
