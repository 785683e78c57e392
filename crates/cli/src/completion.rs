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
    // Whoever asked may be gone.
    let _ = std::io::stdout().write_all(&script(args.shell));
    ExitCode::SUCCESS
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::Quorate::command(), "quorate", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_is_told_of_all_commands_and_their_flags() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            let program = crate::Quorate::command();
            for command in program.get_subcommands().map(clap::Command::get_name) {
                assert!(script.contains(command), "{shell}: {command}");
            }
            for word in ["hashkv", "keep-alive", "print-value-only", "initial-cluster"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
