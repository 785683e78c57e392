//! `quorate playground`: a real cluster of durable nodes on this machine, each a process of its own,
//! for as long as this one runs.
//!
//! The data directory remembers how many nodes it has and on which ports, so that the next start
//! finds the same cluster again. Nothing is restarted: what ends stays ended, and is told.

mod plan;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use quorate_proto::etcdserverpb::DeleteRangeRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_server::Engine;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::serve::EXIT_WITH_PARENT;
use crate::{REFUSED, tell};
use plan::Plan;

/// Time that nodes get to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_RETRY: Duration = Duration::from_millis(200);
/// The longest line that is passed on whole.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Starts a cluster of several nodes on this machine, to try things out.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PlaygroundArgs {
    /// How many nodes, 1 to 5: node by node ports go up by 10000, and they end at 65535
    /// [default: 3, or as many as the directory has]
    #[arg(long, value_name = "COUNT")]
    nodes: Option<u16>,
    /// Where the nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "quorate-data")]
    dir: PathBuf,
    /// Added to every port: 2379 for clients and 2380 for peers at the first node
    /// [default: 0, or as the directory has it]
    #[arg(long, value_name = "N")]
    offset: Option<u16>,
    /// What orders the nodes' writes, raft or zab [default: raft, or as the directory has it]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<Engine>,
}

/// One process.
struct Running {
    name: String,
    process: Child,
    /// Closed to ask the process to stop; also when this process dies.
    leash: Option<ChildStdin>,
}

/// Runs the cluster until a signal ends it, until a node ends before the cluster is ready, or until no
/// node is left.
pub(crate) fn run(args: &PlaygroundArgs) -> ExitCode {
    let plan = match Plan::make(args.nodes, args.offset, args.engine, &args.dir) {
        Ok(plan) => plan,
        Err(error) => {
            tell::error(&error);
            return ExitCode::from(REFUSED);
        }
    };
    let outcome = plan.claim().and_then(|_held_until_the_nodes_have_ended| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start threads: {error}"))?;
        runtime.block_on(play(&plan))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn play(plan: &Plan) -> Result<(), String> {
    let no_signals = |error| format!("cannot listen for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;

    let (stop, stopping) = watch::channel(false);
    let mut nodes = JoinSet::new();
    for number in 0..plan.nodes {
        let running = start(plan, number)?;
        nodes.spawn(attend(running, stopping.clone()));
    }
    let mut announcing = JoinSet::new();
    announcing.spawn(announce(plan.clone()));

    let mut left = plan.nodes;
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            Some(_) = announcing.join_next() => {}
            ended = nodes.join_next() => match ended {
                Some(Ok((name, status))) => {
                    left -= 1;
                    say(&format!("{name} has ended ({status}); {left} of {} still run", plan.nodes));
                    // Not with what was asked for, then: its last line says what is in the way.
                    if !announcing.is_empty() {
                        break Err(format!(
                            "{name} ended before the cluster was ready; what it said last is above"
                        ));
                    }
                }
                Some(Err(error)) => break Err(error.to_string()),
                None => break Err("no node is left; what they said last is above".to_owned()),
            },
        }
    };
    announcing.abort_all();
    if !nodes.is_empty() {
        say("stopping the nodes");
    }
    let _ = stop.send(true);
    loop {
        let node = tokio::select! {
            node = nodes.join_next() => node,
            // Who asks twice does not want to wait. Nodes are killed when nobody attends to them.
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        match node {
            None => return ended,
            Some(Ok((name, status))) if !status.starts_with("status 0") => {
                say(&format!("{name} did not stop in order ({status})"));
            }
            Some(_) => {}
        }
    }
    nodes.shutdown().await;
    Err("the nodes were killed, as a second signal asked; their data is as safe as ever".to_owned())
}

fn start(plan: &Plan, number: u16) -> Result<Running, String> {
    let name = plan.name(number);
    let program =
        std::env::current_exe().map_err(|error| format!("which program is this? {error}"))?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .args(plan.flags(number))
        .arg(format!("--{EXIT_WITH_PARENT}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for this process, which then stops the others in order.
        .process_group(0)
        .kill_on_drop(true);
    // The flags say all there is to say.
    for (variable, _) in std::env::vars_os() {
        let is_setting = |prefix| variable.to_string_lossy().starts_with(prefix);
        if is_setting("QUORATE_") || is_setting("ETCD_") {
            command.env_remove(&variable);
        }
    }
    let mut process = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
    let leash = process.stdin.take();
    for stream in [
        process.stdout.take().map(|stream| Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>),
        process.stderr.take().map(|stream| Box::new(stream) as Box<dyn AsyncRead + Send + Unpin>),
    ]
    .into_iter()
    .flatten()
    {
        tokio::spawn(pass_on(stream, prefix(&name, number)));
    }
    Ok(Running { name, process, leash })
}

/// Waits for a process to end, and ends it when the time has come: its name, and how it ended.
async fn attend(mut running: Running, mut stopping: watch::Receiver<bool>) -> (String, String) {
    let ended = tokio::select! {
        ended = running.process.wait() => Some(ended),
        _ = stopping.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            drop(running.leash.take());
            match tokio::time::timeout(STOP_TIMEOUT, running.process.wait()).await {
                Ok(ended) => ended,
                Err(_) => {
                    let _ = running.process.kill().await;
                    running.process.wait().await
                }
            }
        }
    };
    let how = ended.map_or_else(|error| error.to_string(), describe);
    (running.name, how)
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("status {code}"),
        None => status.to_string(),
    }
}

/// Says that the cluster is ready, once a write went through at every node.
async fn announce(plan: Plan) {
    for number in 0..plan.nodes {
        while !writes(&plan.client_url(number)).await {
            tokio::time::sleep(WRITE_RETRY).await;
        }
    }
    // As it was called here it can be called again from here.
    let program = std::env::args().next().unwrap_or_else(|| "quorate".to_owned());
    say(&plan.greeting(&program));
}

/// Whether a write goes through. It deletes what is not there: all of a write's way, and no trace.
async fn writes(url: &str) -> bool {
    let attempt = async {
        let mut client = KvClient::connect(url.to_owned()).await.ok()?;
        let key = "\0quorate playground".into();
        client.delete_range(DeleteRangeRequest { key, ..Default::default() }).await.ok()
    };
    matches!(tokio::time::timeout(WRITE_TIMEOUT, attempt).await, Ok(Some(_)))
}

/// Copies what a node says, line by line, to standard error.
async fn pass_on(stream: impl AsyncRead + Unpin, prefix: String) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if matches!(read, Ok(0) | Err(_)) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        tell::line(&format!("{prefix}{}", text.trim_end()));
    }
}

/// A node's name before its lines, each in its colour where colours can be seen.
fn prefix(name: &str, number: u16) -> String {
    let has_colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if has_colour {
        let colour = [36, 33, 35, 32, 34][usize::from(number) % 5];
        format!("\u{1b}[{colour}m{name}\u{1b}[0m | ")
    } else {
        format!("{name} | ")
    }
}

fn say(text: &str) {
    let mut output = std::io::stdout();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}
