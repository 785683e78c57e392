//! Chores of this workspace that are not part of a build.
//!
//! `cargo run -p xtask -- proto` writes the Rust code of the gRPC definitions anew. That code is
//! committed, so that a build needs neither a protobuf compiler nor a build script; a test here
//! fails when it no longer is what the definitions say.

use std::process::ExitCode;

mod proto;

const USAGE: &str = "usage: cargo run -p xtask -- proto";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["proto"] => proto::write(),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
