//! The client half of the program: keys, leases, watches, members and what operators do, against any
//! server of the etcd v3 API. Flags, plain output, JSON and exit codes are `etcdctl`'s, so that a
//! script needs only the program's name changed.
//!
//! A request goes to the first endpoint that can be reached. A read is asked again elsewhere when a
//! member cannot serve it; a write never is, once it may have arrived. What is about the endpoints
//! themselves goes to all of them at once.

mod answer;
mod autopilot;
mod contest;
mod endpoint;
mod endpoints;
mod error;
mod fields;
mod flags;
mod in_turn;
mod json;
mod keys;
mod kv;
mod lease;
mod maintain;
mod member;
mod members;
mod output;
mod snapshot;
mod status;
mod table;
mod tree;
mod txn;
mod watch;
mod watch_log;
mod words;

use std::process::ExitCode;

pub(crate) use autopilot::LiveCommand;
use clap::error::{ContextKind, ContextValue, ErrorKind};
pub(crate) use error::CliError;
pub(crate) use flags::{ClientFlags, Form, MemberFlags};
use quorate_proto::etcdserverpb::kv_client::KvClient;
pub(crate) use quorate_server::parse_duration;

/// A command that talks to a running cluster.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum ClientCommand {
    /// Puts a value to a key; without a value reads it from standard input
    Put(With<kv::PutArgs>),
    /// Reads a key, or all keys of a range
    Get(With<kv::GetArgs>),
    /// Deletes a key, or all keys of a range, and prints how many there were
    Del(With<kv::DelArgs>),
    /// Runs a transaction that it reads from standard input
    ///
    /// Three blocks of lines, each ended by an empty line: what must hold, what is done when all of it
    /// does, and what is done otherwise.
    ///
    ///     value("color") = "red"        also version, create, mod, lease; also != < >
    ///
    ///     put color blue                put, get and del with the flags of the commands
    ///     get size
    ///
    ///     get color
    ///
    #[command(verbatim_doc_comment)]
    Txn(With<txn::TxnArgs>),
    /// Asks every endpoint how it is
    Status(With<status::StatusArgs>),
    /// Lists the members of the cluster
    Members(With<members::MembersArgs>),
    /// Prints what happens to a key, or to all keys of a range, as it happens
    Watch(With<watch::WatchArgs>),
    /// Prints the log as the members apply it, a line an entry, until it is stopped
    WatchLog(With<watch_log::WatchLogArgs>),
    /// Grants, renews, shows and revokes leases
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Lists and changes the members of the cluster
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Asks every endpoint how it is
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Lists and ends alarms
    #[command(subcommand)]
    Alarm(maintain::AlarmCommand),
    /// Forgets history before a revision
    #[command(visible_alias = "compact")]
    Compaction(With<maintain::CompactionArgs>),
    /// Has every endpoint give back the space on disk that it does not need
    Defrag(With<endpoint::EndpointArgs>),
    /// Hands leadership to another member
    MoveLeader(With<maintain::MoveLeaderArgs>),
    /// Takes a lock, and holds it while a command runs, or until it is stopped
    Lock(With<contest::LockArgs>),
    /// Takes part in an election, and leads until it is stopped
    Elect(With<contest::ElectArgs>),
    /// Saves the state of a member to a file, checks such a file, makes a new cluster of it
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
}

/// What a command takes, and what all of them take.
#[derive(clap::Args, Debug)]
pub(crate) struct With<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs a command to its end and tells on standard error why it failed.
pub(crate) fn run(command: ClientCommand) -> ExitCode {
    to_its_end(command.run())
}

/// The same for what an operator asks of autopilot.
pub(crate) fn run_live(command: LiveCommand) -> ExitCode {
    to_its_end(command.run())
}

fn to_its_end(command: impl Future<Output = Result<(), CliError>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::Failed(format!("cannot start: {error}")).tell(),
    };
    match runtime.block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.tell(),
    }
}

/// The exit code for arguments that clap did not take, as `etcdctl` has them: it looks at the words
/// that a flag allows itself, and calls another one unsupported. (For flags it does not know it has 1.)
pub(crate) fn refusal_code(error: &clap::Error) -> u8 {
    let given = |what| match error.get(what) {
        Some(ContextValue::String(word)) => !word.is_empty(),
        Some(ContextValue::Strings(words)) => !words.is_empty(),
        _ => false,
    };
    let is_another_word = error.kind() == ErrorKind::InvalidValue
        && given(ContextKind::InvalidValue)
        && given(ContextKind::ValidValue);
    match is_another_word {
        true => CliError::Unsupported(String::new()).exit_code(),
        false => CliError::Arguments(String::new()).exit_code(),
    }
}

impl ClientCommand {
    /// Runs the command; its answer goes to standard output.
    ///
    /// # Errors
    ///
    /// Arguments that make no sense, no endpoint that can be reached, or what a member answered.
    async fn run(self) -> Result<(), CliError> {
        match self {
            ClientCommand::Snapshot(command) => command.run().await,
            ClientCommand::Put(With { args, flags }) => {
                let target = flags.target()?;
                let output = flags.output()?;
                output.refuse_table()?;
                let put = args.request()?;
                let answer = target
                    .write(async |channel| KvClient::new(channel).put(put.clone()).await)
                    .await?;
                output.put(&answer)
            }
            ClientCommand::Get(With { args, flags }) => {
                let target = flags.target()?;
                let output = flags.output()?;
                args.refuse_values_in(&output)?;
                let range = args.request()?;
                let answer = target
                    .read(async |channel| {
                        let kv = KvClient::new(channel);
                        kv.max_decoding_message_size(ANSWER_BYTES_MAX).range(range.clone()).await
                    })
                    .await?;
                output.range(&answer, args.shown())
            }
            ClientCommand::Del(With { args, flags }) => {
                let target = flags.target()?;
                let output = flags.output()?;
                output.refuse_table()?;
                let delete = args.request()?;
                let answer = target
                    .write(async |channel| {
                        let kv = KvClient::new(channel);
                        let mut kv = kv.max_decoding_message_size(ANSWER_BYTES_MAX);
                        kv.delete_range(delete.clone()).await
                    })
                    .await?;
                output.delete(&answer)
            }
            ClientCommand::Txn(With { args, flags }) => {
                let target = flags.target()?;
                let output = flags.output()?;
                output.refuse_table()?;
                let txn = args.request(std::io::stdin().lock())?;
                let answer = target
                    .write(async |channel| {
                        let kv = KvClient::new(channel);
                        kv.max_decoding_message_size(ANSWER_BYTES_MAX).txn(txn.clone()).await
                    })
                    .await?;
                output.txn(&answer)
            }
            ClientCommand::Status(With { args: status::StatusArgs {}, flags }) => {
                status::show(&flags.target()?, &flags.output()?).await
            }
            ClientCommand::Members(With { args, flags }) => members::list(&args, &flags).await,
            ClientCommand::Watch(With { args, flags }) => watch::run(args, &flags).await,
            ClientCommand::WatchLog(with) => watch_log::run(with).await,
            ClientCommand::Lease(command) => command.run().await,
            ClientCommand::Member(command) => command.run().await,
            ClientCommand::Endpoint(command) => command.run().await,
            ClientCommand::Alarm(command) => command.run().await,
            ClientCommand::Compaction(With { args, flags }) => {
                maintain::compact(&args, &flags).await
            }
            ClientCommand::Defrag(With { args, flags }) => {
                maintain::defragment(&args, &flags).await
            }
            ClientCommand::MoveLeader(With { args, flags }) => {
                maintain::move_leader(&args, &flags).await
            }
            ClientCommand::Lock(With { args, flags }) => contest::lock(args, &flags).await,
            ClientCommand::Elect(With { args, flags }) => contest::elect(args, &flags).await,
        }
    }
}

/// What etcd's own client takes in one answer.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
