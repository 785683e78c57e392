//! `watch`: prints what happens to keys as it happens.

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

#[derive(clap::Args, Clone, Debug)]
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
    Watch(WatchOptions),
    Progress,
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
        None => Some(args.options.request()?),
        lines => first_of(lines).await,
    };
    let Some(first) = first else { return Ok(()) };
    let _ = requests.try_send(first);
    let watch = WatchClient::new(target.connect().await?);
    let mut watch = watch.max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut responses = watch.watch(ReceiverStream::new(outgoing)).await?.into_inner();
    loop {
        tokio::select! {
            response = responses.message() => match response? {
                Some(response) => tell_of(&output, &response, &args.command)?,
                None => break,
            },
            line = next(&mut lines) => match line {
                Some(line) => if let Some(request) = understood(&line) {
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
async fn first_of(lines: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<WatchRequest> {
    loop {
        let line = next(lines).await?;
        if let Some(request) = understood(&line) {
            return Some(request);
        }
    }
}

/// What a line asks for; what asks for nothing is told.
fn understood(line: &[u8]) -> Option<WatchRequest> {
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
fn parse(line: &[u8]) -> Result<Option<WatchRequest>, CliError> {
    let words = words(line).map_err(|why| CliError::Input(why.to_owned()))?;
    if words.is_empty() {
        return Ok(None);
    }
    match Line::try_parse_from(words.into_iter().map(OsString::from_vec)) {
        Ok(Line::Watch(options)) => options.request().map(Some),
        Ok(Line::Progress) => {
            Ok(Some(request(RequestUnion::ProgressRequest(WatchProgressRequest {}))))
        }
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default();
            Err(CliError::Input(why.trim_start_matches("error: ").to_owned()))
        }
    }
}

fn tell_of(
    output: &Output,
    response: &WatchResponse,
    command: &[OsString],
) -> Result<(), CliError> {
    if response.canceled {
        let why = match (response.compact_revision, response.cancel_reason.as_str()) {
            (0, "") => "etcdserver: watch canceled",
            (0, reason) => reason,
            _ => "etcdserver: mvcc: required revision has been compacted",
        };
        tell::line(&format!("watch was canceled ({why})"));
        return Err(canceled());
    }
    if response.created {
        return Ok(());
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
    Ok(())
}
