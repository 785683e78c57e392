//! The `quorate` program: a server, a cluster to play with, and a client.

mod bench;
mod client;
mod playground;
mod script;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Requests are many small allocations that cross threads; see docs/adr/0003-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A replicated key-value store that speaks the etcd v3 API.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, about, arg_required_else_help = true)]
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
}

fn main() -> ExitCode {
    let arguments = serve::with_two_dashes(std::env::args_os());
    match Quorate::parse_from(arguments).program {
        Program::Serve(args) => serve::run(args),
        Program::Playground(args) => playground::run(&args),
        Program::Client(command) => client::run(command),
        Program::Bench(args) => bench::run(args),
        Program::Script(args) => script::run(&args),
    }
}
