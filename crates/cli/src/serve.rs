//! `quorate serve`: one node of a cluster.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use quorate_server::config::{Config, FLAGS, Flag, IGNORED, LogFormat, LogLevel, Sources};
use quorate_server::{ETCD_VERSION, QUORATE_VERSION, Server, raise_open_files};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::{REFUSED, supervisor, tell};

/// Hidden: stop when standard input ends, so that no child outlives whoever started it.
pub(crate) const EXIT_WITH_PARENT: &str = "exit-with-parent";

/// What etcd answers and exits; a flag, not a setting.
const VERSION: &str = "version";

/// The settings of the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    given: Vec<(&'static str, String)>,
    exit_with_parent: bool,
    wants_version: bool,
}

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let flags = flags().map(|flag| {
            let help = match flag.default {
                "" => flag.help.to_owned(),
                default => format!("{} [default: {default}]", flag.help),
            };
            // Those that change nothing have nothing to say about themselves.
            let argument = Arg::new(flag.name).long(flag.name).value_name(flag.value);
            let argument = argument.help(help).hide(flag.help.is_empty());
            // As in etcd: by itself it says yes, and a value is part of the same word.
            let argument = match flag.value {
                "BOOL" => {
                    argument.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                _ => argument,
            };
            argument
                // Sizes may be negative; so may a typing error, which is told by its own text.
                .allow_hyphen_values(flag.value == "BYTES")
        });
        let version = Arg::new(VERSION)
            .long(VERSION)
            .action(ArgAction::SetTrue)
            .help("Print the versions of etcd's interface and of quorate, and exit");
        command.args(flags).arg(version).arg(
            Arg::new(EXIT_WITH_PARENT).long(EXIT_WITH_PARENT).action(ArgAction::SetTrue).hide(true),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = ServeArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.given = flags()
            .filter_map(|flag| Some((flag.name, matches.get_one::<String>(flag.name)?.clone())))
            .collect();
        self.exit_with_parent = matches.get_flag(EXIT_WITH_PARENT);
        self.wants_version = matches.get_flag(VERSION);
        Ok(())
    }
}

/// What the command line may say: settings, and what is taken for etcd's sake.
fn flags() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().chain(IGNORED)
}

/// etcd takes `-name` for `--name`; so do we.
pub(crate) fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_none_or(|program| program != "serve") {
        return arguments;
    }
    for argument in &mut arguments[2..] {
        let Some(text) = argument.to_str() else { continue };
        let Some(rest) = text.strip_prefix('-') else { continue };
        let name = rest.split('=').next().unwrap_or_default();
        if name == VERSION || flags().any(|flag| flag.name == name) {
            *argument = format!("--{rest}").into();
        }
    }
    arguments
}

/// Runs the node until a signal ends it, or until it breaks.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    if args.wants_version {
        // etcd's line first, as scripts look for it; whoever asked may be gone.
        let text = format!("etcd Version: {ETCD_VERSION}\nQuorate Version: {QUORATE_VERSION}\n");
        let _ = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let config = match settings(&args) {
        Ok(config) => config,
        Err(problems) => {
            for line in problems.lines() {
                tell::error(line);
            }
            return ExitCode::from(REFUSED);
        }
    };
    start_log(&config);
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell::error(&format!("cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(serve(&config, args.exit_with_parent));
    runtime.shutdown_background();
    code
}

fn settings(args: &ServeArgs) -> Result<Config, String> {
    let mut sources = Sources::default();
    for (flag, value) in &args.given {
        sources.flag(flag, value).map_err(|error| error.to_string())?;
    }
    sources.environment(std::env::vars_os());
    sources.file();
    sources.config().map_err(|problems| problems.to_string())
}

async fn serve(config: &Config, exit_with_parent: bool) -> ExitCode {
    // Asked for before anything starts: a signal in between must not kill a half-started node.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tell::error(&format!("cannot listen for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let orphaned = exit_with_parent.then(end_of_input);
    let server = tokio::select! {
        server = Server::start(config) => match server {
            Ok(server) => server,
            Err(error) => {
                tell::error(&error.to_string());
                return ExitCode::FAILURE;
            }
        },
        () = signals.second() => return stopped_at_once(),
    };
    let announced = async {
        server.ready().await;
        supervisor::tell("READY=1");
        std::future::pending::<Infallible>().await
    };
    let broken = tokio::select! {
        () = signals.first() => None,
        () = or_never(orphaned) => None,
        reason = server.broken() => Some(reason),
        never = announced => match never {},
    };
    supervisor::tell("STOPPING=1");
    let stopped = tokio::select! {
        () = server.shutdown() => true,
        () = signals.another() => false,
    };
    match (broken, stopped) {
        (Some(reason), _) => {
            tell::error(&format!("the node has stopped: {reason}"));
            ExitCode::FAILURE
        }
        (None, false) => stopped_at_once(),
        (None, true) => ExitCode::SUCCESS,
    }
}

fn stopped_at_once() -> ExitCode {
    tell::error("stopped before everything had ended, as a second signal asked");
    ExitCode::FAILURE
}

/// SIGTERM and SIGINT, counted together: one asks for an end in order, two for an end at once.
/// SIGHUP is passed over, since there is nothing to read again and a closed terminal is no reason for
/// a member to leave its cluster. SIGXFSZ, which would end the process without a word, is passed over for
/// good: a write past the limit of a file's size fails, and is told and handled like others that fail.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    count: u32,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        // Who listens once changes for ever what the signal does.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            count: 0,
        })
    }

    /// Resolves once there was a signal.
    async fn first(&mut self) {
        self.reach(1).await;
    }

    /// Resolves once there were two.
    async fn second(&mut self) {
        self.reach(2).await;
    }

    /// Resolves at the next signal that asks for an end.
    async fn another(&mut self) {
        self.reach(self.count + 1).await;
    }

    async fn reach(&mut self, count: u32) {
        while self.count < count {
            tokio::select! {
                _ = self.terminate.recv() => self.count += 1,
                _ = self.interrupt.recv() => self.count += 1,
                _ = self.hangup.recv() => tracing::info!("SIGHUP changes nothing; SIGTERM stops"),
            }
        }
    }
}

/// Resolves when standard input ends.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut rest = [0; 256];
        let mut input = std::io::stdin().lock();
        while !matches!(input.read(&mut rest), Ok(0) | Err(_)) {}
        let _ = ended.send(());
    });
    end
}

async fn or_never(end: Option<oneshot::Receiver<()>>) {
    match end {
        Some(end) => {
            let _ = end.await;
        }
        None => std::future::pending().await,
    }
}

/// Logs to standard error: our own lines at the level asked for, of others only what may go wrong.
fn start_log(config: &Config) {
    let level = match config.log_level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let others = if level == "error" { "error" } else { "warn" };
    let log = tracing_subscriber::fmt()
        .with_env_filter(format!("{others},quorate={level}"))
        // It would tell standard error that standard error is gone, and panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // Who already has a log has asked for nothing else.
    let _ = match config.log_format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => log
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .try_init(),
    };
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<ServeArgs, clap::Error> {
        let arguments = with_two_dashes(arguments.iter().map(OsString::from));
        let program = ServeArgs::augment_args(Command::new("serve"));
        ServeArgs::from_arg_matches(&program.try_get_matches_from(&arguments[1..])?)
    }

    #[test]
    fn flags_are_taken_in_all_spellings() {
        for arguments in [
            &["quorate", "serve", "--name", "a", "--max-txn-ops", "7"][..],
            &["quorate", "serve", "--name=a", "--max-txn-ops=7"],
            &["quorate", "serve", "-name", "a", "-max-txn-ops=7"],
        ] {
            let args = parse(arguments).unwrap();
            assert_eq!(args.given, [("name", "a".into()), ("max-txn-ops", "7".into())]);
            assert!(!args.exit_with_parent);
        }
        let args = parse(&["quorate", "serve", "--quota-backend-bytes", "-1"]).unwrap();
        assert_eq!(settings(&args).unwrap().quota_bytes_max, None);
        assert!(parse(&["quorate", "serve", "--exit-with-parent"]).unwrap().exit_with_parent);
        for (flag, want) in [
            ("--strict-reconfig-check=false", ("strict-reconfig-check", "false")),
            ("--force-new-cluster", ("force-new-cluster", "true")),
            ("-force-new-cluster=true", ("force-new-cluster", "true")),
            // What etcd has beyond this is taken, too.
            ("-logger=zap", ("logger", "zap")),
            ("--enable-pprof", ("enable-pprof", "true")),
        ] {
            let args = parse(&["quorate", "serve", flag, "--name", "a"]).unwrap();
            assert_eq!(args.given, [("name", "a".to_owned()), (want.0, want.1.to_owned())]);
        }
        for spelling in ["--version", "-version"] {
            assert!(parse(&["quorate", "serve", spelling]).unwrap().wants_version, "{spelling}");
        }
    }

    #[test]
    fn what_is_not_known_ends_with_status_2() {
        for arguments in [
            &["quorate", "serve", "--colour", "x"][..],
            &["quorate", "serve", "stray"],
            &["quorate", "serve", "-nme", "x"],
            &["quorate", "serve", "--force-new-cluster", "true"],
            &["quorate", "serve", "--name"],
        ] {
            assert_eq!(parse(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
        }
    }
}
