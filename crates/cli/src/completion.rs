//! `quorate completion`: what a shell needs to complete commands.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `completion`.
#[derive(clap::Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Quorate::command(), "quorate", &mut script);
    // Whoever asked may be gone.
    let _ = std::io::stdout().write_all(&script);
    ExitCode::SUCCESS
}
