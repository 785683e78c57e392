//! `quorate autopilot`: what autopilot makes of a cluster.
//!
//! Most of it asks a running cluster, see `client/autopilot.rs`. `evaluate` reads the inputs of a state on standard input and prints the state. Exit codes: 0 when it
//! was printed, 1 when the inputs are not usable; standard output stays empty then.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use clap::Subcommand;

use crate::{client, tell};

/// What is asked of autopilot.
#[derive(Subcommand, Debug)]
pub(crate) enum AutopilotCommand {
    /// Reads the inputs of a state as JSON and prints the state that follows from them
    ///
    /// No clock is read and no server is asked: all that counts stands in the input. The form of both
    /// is that of raft-autopilot's golden files.
    Evaluate,
    #[command(flatten)]
    Live(Box<client::LiveCommand>),
}

pub(crate) fn run(command: AutopilotCommand) -> ExitCode {
    match command {
        AutopilotCommand::Evaluate => evaluate(),
        AutopilotCommand::Live(command) => client::run_live(*command),
    }
}

fn evaluate() -> ExitCode {
    let mut json = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut json) {
        return failed(&format!("cannot read the inputs: {error}"));
    }
    let state = match quorate_autopilot::evaluate(&json) {
        Ok(state) => state,
        Err(error) => return failed(&error.to_string()),
    };
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(state.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot print: {error}")),
    }
}

fn failed(text: &str) -> ExitCode {
    tell::error(text);
    ExitCode::FAILURE
}
