//! `watch`: prints what happens to keys as it happens.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use clap::Parser;
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
use super::keys::interval;
use super::output::Output;
use super::words::words;
use crate::tell;

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

/// What is to be run for the events of each watcher. Watchers are created in the order in which they
/// were asked for.
#[derive(Debug, Default)]
struct Commands {
    asked: VecDeque<Vec<OsString>>,
    by_watcher: BTreeMap<i64, Vec<OsString>>,
}

impl Commands {
    fn on_asked(&mut self, command: Option<Vec<OsString>>) {
        self.asked.extend(command);
    }

    fn on_response(&mut self, response: &WatchResponse) -> &[OsString] {
        let id = response.watch_id;
        if response.created {
            let command = self.asked.pop_front().unwrap_or_default();
            self.by_watcher.insert(id, command);
        }
        if response.canceled {
            self.by_watcher.remove(&id);
        }
        self.by_watcher.get(&id).map_or(&[], Vec::as_slice)
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
    let (requests, outgoing) = mpsc::channel(1);
    let mut lines = args.interactive.then(lines_of_input);
    // Some servers say nothing before the first request. There is room for it.
    let first = match &mut lines {
        None => Some((args.options.request()?, Some(args.command))),
        lines => first_of(lines).await,
    };
    let Some((first, command)) = first else { return Ok(()) };
    let mut commands = Commands::default();
    commands.on_asked(command);
    let _ = requests.try_send(first);
    let watch = WatchClient::new(target.connect().await?);
    let mut watch = watch.max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut responses = watch.watch(ReceiverStream::new(outgoing)).await?.into_inner();
    loop {
        tokio::select! {
            response = responses.message() => match response? {
                Some(response) => {
                    let goes_on = tell_of(&output, &response, commands.on_response(&response))?;
                    // Of several watchers the others go on.
                    if !goes_on && !args.interactive {
                        break;
                    }
                }
                None => break,
            },
            line = next(&mut lines) => match line {
                Some(line) => if let Some((request, command)) = understood(&line) {
                    commands.on_asked(command);
                    let _ = requests.send(request).await;
                },
                None => lines = None,
            },
        }
    }
    Err(canceled())
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
    match Line::try_parse_from(words.into_iter().map(OsString::from_vec)) {
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
    use super::*;

    #[test]
    fn each_watcher_of_several_has_its_command() {
        let command = |line: &str| {
            let (request, command) = parse(line.as_bytes()).unwrap().unwrap();
            let is_watch = matches!(request.request_union, Some(RequestUnion::CreateRequest(_)));
            assert_eq!(is_watch, command.is_some(), "{line}");
            command
        };
        let mut commands = Commands::default();
        for line in ["watch a -- echo one", "progress", "watch b --prefix", "watch c -- two"] {
            commands.on_asked(command(line));
        }
        let response = |watch_id, created, canceled| WatchResponse {
            watch_id,
            created,
            canceled,
            ..WatchResponse::default()
        };
        for id in [0, 1, -1] {
            commands.on_response(&response(id, true, id < 0));
        }
        for (id, canceled, want) in [
            (0, false, &["echo", "one"][..]),
            (1, false, &[]),
            (-1, false, &[]), // the third was refused
            (0, true, &[]),
            (0, false, &[]),
        ] {
            assert_eq!(commands.on_response(&response(id, false, canceled)), want, "{id}");
        }
        for line in ["", "watch", "hop", "watch a b c"] {
            assert!(!matches!(parse(line.as_bytes()), Ok(Some(_))), "{line:?}");
        }
    }
}
