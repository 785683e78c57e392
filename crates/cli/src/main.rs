//! The `quorate` program: a server, a cluster to play with, a client, and tools.

mod autopilot;
mod bench;
mod client;
mod completion;
mod in_front;
mod log;
mod playground;
mod script;
mod serve;
mod sim;
mod supervisor;
mod switches;
mod tell;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use quorate_server::{ETCD_VERSION, QUORATE_VERSION};

/// The exit code of a program that was asked for what cannot be, and has changed nothing.
const REFUSED: u8 = 2;

/// A replicated key-value store that speaks the etcd v3 API.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, arg_required_else_help = true)]
struct Quorate {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand, Debug)]
enum Program {
    /// Runs one node; without flags a durable one on etcd's default ports
    ///
    /// Every flag can also be set by a variable (--foo-bar by QUORATE_FOO_BAR, or ETCD_FOO_BAR as in
    /// unit files for etcd) or in the file that --config-file names. The command line comes first,
    /// then QUORATE_, then ETCD_, then the file.
    Serve(serve::ServeArgs),
    /// Runs a cluster of several durable nodes on this machine until Ctrl-C
    Playground(playground::PlaygroundArgs),
    #[command(flatten)]
    Client(client::ClientCommand),
    Bench(bench::BenchArgs),
    /// Runs scripts that say what the Raft engine is to do, in the languages of etcd's test files
    Script(script::ScriptArgs),
    /// Shows or checks the durable log of a member, running or not, and changes nothing
    Log(log::LogArgs),
    /// Prints the versions of this program and of the interface it speaks
    ///
    /// The flags of client commands are taken, as etcdctl does, and nobody is asked.
    Version(client::ClientFlags),
    /// Prints a script that completes commands in a shell
    Completion(completion::CompletionArgs),
    /// Shows what autopilot makes of a cluster, and tells it what to do
    #[command(subcommand)]
    Autopilot(autopilot::AutopilotCommand),
    /// Runs whole clusters with faults on simulated time, each from one seed, and checks what they promise
    Sim(sim::SimArgs),
}

fn main() -> ExitCode {
    let arguments = as_understood(std::env::args_os());
    let program = match switches::parse::<Quorate>(&arguments) {
        Ok(quorate) => quorate.program,
        Err(error) => {
            // Whoever read it may be gone; the exit code is left all the same.
            let _ = error.print();
            return ExitCode::from(refusal_code(&arguments, &error));
        }
    };
    quorate_server::hush_panics_of_damage();
    match program {
        Program::Serve(args) => serve::run(args),
        Program::Playground(args) => playground::run(&args),
        Program::Client(command) => client::run(command),
        Program::Bench(args) => bench::run(args),
        Program::Script(args) => script::run(&args),
        Program::Log(args) => log::run(&args),
        Program::Version(_) => print_version(),
        Program::Completion(args) => completion::run(&args),
        Program::Autopilot(command) => autopilot::run(command),
        Program::Sim(args) => sim::run(&args),
    }
}

/// What is taken for the sake of etcd, as this program has it.
fn as_understood(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    in_front::moved_behind(serve::with_two_dashes(arguments), &Quorate::command())
}

/// As `etcdctl version` does.
fn print_version() -> ExitCode {
    let api = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
    let text = format!("quorate version: {QUORATE_VERSION}\nAPI version: {api}\n");
    // Whoever asked may be gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The exit code for arguments that were not taken: 0 for a question that has been answered,
/// `etcdctl`'s for what stands in for it, [`REFUSED`] for the rest.
fn refusal_code(arguments: &[OsString], error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        return 0;
    }
    let program = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let clients = client::ClientCommand::augment_subcommands(clap::Command::new("quorate"));
    match program == "bench" || clients.find_subcommand(program).is_some() {
        true => client::refusal_code(error),
        false => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Option<u8> {
        let words = ["quorate"].into_iter().chain(line.split_whitespace());
        let arguments = as_understood(words.map(OsString::from));
        let refused = switches::parse::<Quorate>(&arguments).err();
        refused.map(|error| refusal_code(&arguments, &error))
    }

    #[test]
    fn the_version_is_told_whatever_flags_of_client_commands_are_there() {
        for line in ["version", "--endpoints a:1 version", "version --endpoints a:1 -w json"] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn refused_arguments_have_an_exit_code_of_their_program() {
        for (line, want) in [
            // Questions.
            ("--help", 0),
            ("-h", 0),
            ("--version", 0),
            ("-V", 0),
            ("help", 0),
            ("help put", 0),
            ("serve --help", 0),
            ("playground -h", 0),
            ("put --help", 0),
            ("bench --help", 0),
            ("bench get --help", 0),
            // No program of that name, or none at all.
            ("", 2),
            ("nosuch", 2),
            ("--nosuch", 2),
            ("--nosuch put a b", 2),
            ("--endpoints a:1", 2),
            ("--endpoints a:1 serve", 2),
            ("help nosuch", 2),
            // Programs that run until they are stopped.
            ("serve --nosuch", 2),
            ("serve stray", 2),
            ("serve -nosuch=1", 2),
            ("serve --name", 2),
            ("playground --nodes many", 2),
            ("playground --offset -1", 2),
            ("playground --nosuch", 2),
            ("playground stray", 2),
            ("log", 2),
            ("log nosuch", 2),
            ("log dump", 2),
            ("log verify a b", 2),
            ("log dump a -w table", 2),
            // Commands that stand in for etcdctl's.
            ("put", 128),
            ("--endpoints a:1 put", 128),
            ("--endpoints a:1 put --help", 0),
            ("put a b c", 128),
            ("put --nosuch a b", 128),
            ("put a b --lease zz", 128),
            ("put a b --endpoints", 128),
            ("get", 128),
            ("get a b c", 128),
            ("get a --limit x", 128),
            ("get a --rev x", 128),
            ("get a --order", 128),
            ("get a --prefix=yes", 128),
            ("--hex=yes get a", 128),
            ("member add x --peer-urls=http://a:1 --learner=", 128),
            ("bench put --sequential=2", 128),
            ("del", 128),
            ("del a b c", 128),
            ("compaction x", 128),
            ("compact x", 128),
            ("txn stray", 128),
            ("status stray", 128),
            ("members stray", 128),
            ("watch-log stray", 128),
            ("watch-log --from x", 128),
            ("watch-log --from 1 --revision 1", 128),
            ("members --nosuch", 128),
            ("snapshot", 128),
            ("snapshot nosuch", 128),
            ("snapshot save", 128),
            ("snapshot status a b", 128),
            ("snapshot restore a --bump-revision x", 128),
            ("bench", 128),
            ("bench nosuch", 128),
            ("bench put stray", 128),
            ("bench put --clients x", 128),
            ("bench put --connections 0", 128),
            ("bench get --duration 5", 128),
            // A word that is none of those there are is not supported, says etcdctl.
            ("get a --order UP", 4),
            ("get a --sort-by LENGTH", 4),
            ("get a --consistency q", 4),
        ] {
            assert_eq!(code(line), Some(want), "quorate {line}");
        }
        for line in [
            "serve",
            "playground",
            "put a b",
            "get a --order ascend",
            "get --prefix=true a",
            "--hex=false get a --keys-only=F",
            "compaction 5 --physical=1",
            "endpoint health --cluster=TRUE",
            "bench put",
        ] {
            assert_eq!(code(line), None, "quorate {line}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Quorate::command().debug_assert();
    }
}
