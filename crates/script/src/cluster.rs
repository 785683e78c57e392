//! Whole clusters: raw nodes with their storages, and the messages between them.
//!
//! Nodes have the ids 1, 2, 3, … in the order they were added. Nothing happens by itself: every
//! tick, Ready, write and delivery is a command of the script.
//!
//! Source: etcd's `rafttest` package and its `testdata`.

mod commands;
mod node;
mod output;

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_raft::{
    Message, Note, TraceLogger, TracingEvent, describe_message, is_local_target, trace_line,
};
use quorate_types::NodeId;

use crate::file::{Directive, FileError, FileErrorReason};
use crate::run::{self, Interpreter, Outcome};

use node::Node;
use output::Output;

/// Runs a script of a cluster, from one without nodes.
///
/// Lines that begin with a log level (`DEBUG`, `INFO`, `WARN`, `ERROR`, `FATAL`) do not count when
/// outputs are compared; the engine's notes are printed as such lines.
///
/// # Errors
///
/// [`FileError`] if `text` is no script, or has arguments that the commands do not take.
pub fn run_raft(text: &str) -> Result<Outcome, FileError> {
    run::run(text, &mut Cluster::default())
}

/// What came of a script, and what its nodes did on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// What came of the script.
    pub outcome: Outcome,
    /// Every note of every node, be it printed or not.
    pub notes: Vec<(NodeId, Note)>,
    /// The state trace of all nodes, in the order things happened: lines of JSON, not ended.
    pub trace: Vec<String>,
}

/// As [`run_raft`]; also tells what the nodes noted, and their state trace. To the same effect: but
/// nodes that are traced take no shortcuts.
///
/// # Errors
///
/// As [`run_raft`].
pub fn watch_raft(text: &str) -> Result<Watched, FileError> {
    let trace = Arc::new(Trace::default());
    let mut cluster = Cluster { trace: Some(trace.clone()), ..Cluster::default() };
    let outcome = run::run(text, &mut cluster)?;
    let trace = trace.take();
    Ok(Watched { outcome, notes: cluster.output.all_notes, trace })
}

/// All nodes, and the messages that are between them.
#[derive(Default)]
struct Cluster {
    nodes: Vec<Node>,
    in_flight: Vec<Message>,
    output: Output,
    trace: Option<Arc<dyn TraceLogger>>,
}

/// The events of all nodes, as lines of JSON.
#[derive(Debug, Default)]
struct Trace(Mutex<Vec<String>>);

impl Trace {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TraceLogger for Trace {
    fn trace_event(&self, event: &TracingEvent<'_>) {
        let line = trace_line(event);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Why a command ended early.
enum Failure {
    /// For the output: what the engine, or the command, has against it.
    Said(String),
    /// The script itself is wrong.
    Script(FileErrorReason),
}

impl From<FileErrorReason> for Failure {
    fn from(reason: FileErrorReason) -> Self {
        Failure::Script(reason)
    }
}

impl From<quorate_raft::Error> for Failure {
    fn from(error: quorate_raft::Error) -> Self {
        Failure::Said(error.to_string())
    }
}

impl From<quorate_raft::StorageError> for Failure {
    fn from(error: quorate_raft::StorageError) -> Self {
        Failure::Said(error.to_string())
    }
}

/// A sentence about an argument that the script has wrong.
fn unfit(text: impl Into<String>) -> Failure {
    Failure::Script(FileErrorReason::Argument(text.into()))
}

impl Interpreter for Cluster {
    fn run(&mut self, directive: &Directive<'_>) -> Result<String, FileErrorReason> {
        let failure = match self.command(directive) {
            Ok(()) => String::new(),
            Err(Failure::Said(text)) => text,
            Err(Failure::Script(reason)) => return Err(reason),
        };
        let printed = self.output.take() + &failure;
        Ok(if printed.is_empty() { "ok".to_owned() } else { printed })
    }

    fn essence(output: &str) -> String {
        let kept: String =
            output.split_inclusive('\n').filter(|line| !output::is_log_line(line)).collect();
        if kept.is_empty() { "ok\n".to_owned() } else { kept }
    }
}

/// Someone whose messages are delivered, or lost.
#[derive(Clone, Copy)]
struct Recipient {
    id: NodeId,
    is_dropping: bool,
}

impl Recipient {
    fn takes(&self, message: &Message, kind: Option<&str>) -> bool {
        // What a node or its storage says to the node itself cannot be lost.
        message.to == self.id
            && !(self.is_dropping && is_within_node(message))
            && kind.is_none_or(|kind| format!("{:?}", message.message_type()) == kind)
    }
}

/// Whether a message does not leave its node.
fn is_within_node(message: &Message) -> bool {
    message.from == message.to || is_local_target(message.from) || is_local_target(message.to)
}

/// Passes that `stabilize` makes over the nodes before it gives up.
const PASSES_MAX: usize = 10_000;

impl Cluster {
    /// Hands each recipient its messages, in the order they were sent, or loses them. Says how many
    /// there were.
    fn deliver(&mut self, recipients: &[Recipient], kind: Option<&str>) -> usize {
        let mut count = 0;
        for recipient in recipients {
            let in_flight = std::mem::take(&mut self.in_flight);
            let (taken, left): (Vec<_>, Vec<_>) =
                in_flight.into_iter().partition(|message| recipient.takes(message, kind));
            self.in_flight = left;
            count += taken.len();
            for message in taken {
                let dropped = if recipient.is_dropping { "dropped: " } else { "" };
                self.output.line(format_args!("{dropped}{}", describe_message(&message, None)));
                if recipient.is_dropping {
                    continue;
                }
                let Some(node) = position(message.to).and_then(|at| self.nodes.get_mut(at)) else {
                    self.output.line(format_args!("there is no node {}", message.to));
                    continue;
                };
                let stepped = node.raw.step(message);
                self.output.notes(node);
                if let Err(error) = stepped {
                    self.output.line(format_args!("{error}"));
                }
            }
        }
        count
    }

    /// One round of work of a node, as its application does it.
    fn process_ready(&mut self, at: usize) -> Result<(), Failure> {
        let Cluster { nodes, in_flight, output, .. } = self;
        let node = &mut nodes[at];
        let ready = node.raw.ready();
        if let Some(fatal) = node.raw.fatal() {
            return Err(Failure::Said(fatal.to_string()));
        }
        output.text(&quorate_raft::describe_ready(&ready, None));
        for note in &ready.notes {
            output.note(node.id, note);
        }
        let done = node.work(ready, in_flight);
        output.notes(node);
        done
    }

    fn process_append(&mut self, at: usize) -> Result<(), Failure> {
        let Some(mut message) = self.nodes[at].append_work.pop_front() else {
            self.output.text("no append work to perform");
            return Ok(());
        };
        let responses = node::take_responses(&mut message);
        self.output.line(format_args!("Processing:\n{}", describe_message(&message, None)));
        let done = self.nodes[at].store_message(message);
        self.output.notes(&mut self.nodes[at]);
        done?;
        self.respond(responses);
        Ok(())
    }

    fn process_apply(&mut self, at: usize) -> Result<(), Failure> {
        let Some(mut message) = self.nodes[at].apply_work.pop_front() else {
            self.output.text("no apply work to perform");
            return Ok(());
        };
        let responses = node::take_responses(&mut message);
        self.output.line(format_args!("Processing:\n{}", describe_message(&message, None)));
        let done = self.nodes[at].apply_message(message);
        self.output.notes(&mut self.nodes[at]);
        done?;
        self.respond(responses);
        Ok(())
    }

    fn respond(&mut self, responses: Vec<Message>) {
        let mut text = "Responses:\n".to_owned();
        for response in &responses {
            writeln!(text, "{}", describe_message(response, None)).expect("a string takes it");
        }
        self.output.text(&text);
        self.in_flight.extend(responses);
    }

    /// Lets the nodes work, and hear from each other, until there is nothing left to do.
    fn stabilize(&mut self, nodes: &[usize]) -> Result<(), Failure> {
        for _ in 0..PASSES_MAX {
            let mut is_done = true;
            for &at in nodes {
                if self.nodes[at].raw.has_ready() {
                    is_done = false;
                    self.indented(at, "handling Ready", |it| it.process_ready(at))?;
                }
            }
            for &at in nodes {
                let recipient = Recipient { id: self.nodes[at].id, is_dropping: false };
                if self.in_flight.iter().any(|message| recipient.takes(message, None)) {
                    is_done = false;
                    self.indented(at, "receiving messages", |it| {
                        it.deliver(&[recipient], None);
                        Ok(())
                    })?;
                }
            }
            for &at in nodes {
                if !self.nodes[at].append_work.is_empty() {
                    is_done = false;
                    self.heading(at, "processing append thread");
                    while !self.nodes[at].append_work.is_empty() {
                        self.nested(|it| it.process_append(at))?;
                    }
                }
            }
            for &at in nodes {
                if !self.nodes[at].apply_work.is_empty() {
                    is_done = false;
                    self.heading(at, "processing apply thread");
                    while !self.nodes[at].apply_work.is_empty() {
                        // What an entry does to the application is no concern of the others.
                        let _ = self.nested(|it| it.process_apply(at));
                    }
                }
            }
            if is_done {
                return Ok(());
            }
        }
        Err(Failure::Said(format!("nothing settled in {PASSES_MAX} passes")))
    }

    /// `work`, under a heading.
    fn indented(
        &mut self,
        at: usize,
        what: &str,
        work: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.heading(at, what);
        self.nested(work)
    }

    fn heading(&mut self, at: usize, what: &str) {
        self.output.line(format_args!("> {} {what}", self.nodes[at].id));
    }

    /// `work`, whose output is indented.
    fn nested(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let outer = self.output.take();
        let done = work(self);
        let inner = self.output.take();
        self.output.text(&outer);
        for line in inner.lines() {
            self.output.line(format_args!("  {line}"));
        }
        done
    }
}

/// The place of a node in the list.
fn position(id: NodeId) -> Option<usize> {
    usize::try_from(id.0).ok()?.checked_sub(1)
}
