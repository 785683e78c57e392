//! `alarm`, `compaction`, `defrag` and `move-leader`: what an operator does now and then.

use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, DefragmentRequest, MoveLeaderRequest,
    StatusRequest,
};

use super::With;
use super::endpoint::EndpointArgs;
use super::endpoints::Target;
use super::error::CliError;
use super::flags::ClientFlags;
use super::lease::NoArgs;
use super::member::parse_member;
use super::status;
use crate::tell;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum AlarmCommand {
    /// Lists all active alarms
    List(With<NoArgs>),
    /// Ends all active alarms
    Disarm(With<NoArgs>),
}

impl AlarmCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            AlarmCommand::List(With { args: NoArgs {}, flags }) => {
                flags.output()?.show(&alarm(&flags.target()?, AlarmRequest::default()).await?)
            }
            AlarmCommand::Disarm(With { args: NoArgs {}, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let mut ended = AlarmResponse::default();
                for active in alarm(&target, AlarmRequest::default()).await?.alarms {
                    let request = AlarmRequest {
                        action: AlarmAction::Deactivate.into(),
                        member_id: active.member_id,
                        alarm: active.alarm,
                    };
                    ended.alarms.extend(alarm(&target, request).await?.alarms);
                }
                output.show(&ended)
            }
        }
    }
}

/// Alarms are asked for through the log; to do it twice does no harm.
async fn alarm(target: &Target, request: AlarmRequest) -> Result<AlarmResponse, CliError> {
    target.read(async |channel| MaintenanceClient::new(channel).alarm(request).await).await
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CompactionArgs {
    /// Everything that was replaced or deleted before this revision is forgotten
    #[arg(allow_negative_numbers = true)]
    revision: i64,
    /// Wait until it is gone from the storage of the member that answers
    #[arg(long)]
    physical: bool,
}

pub(super) async fn compact(args: &CompactionArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let CompactionArgs { revision, physical } = *args;
    let request = CompactionRequest { revision, physical };
    flags.target()?.write(async |channel| KvClient::new(channel).compact(request).await).await?;
    flags.output()?.line(&format!("compacted revision {revision}"))
}

pub(super) async fn defragment(args: &EndpointArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let output = flags.output()?;
    let mut has_failed = false;
    // One after the other: a member that does it may be slow meanwhile, and the others are needed.
    let target = args.target(flags).await?;
    for (endpoint, target) in target.names().zip(target.one_by_one()) {
        let outcome = target
            .write(async |channel| {
                MaintenanceClient::new(channel).defragment(DefragmentRequest {}).await
            })
            .await;
        match outcome {
            Ok(_) => output.line(&format!("Finished defragmenting etcd member[{endpoint}]"))?,
            Err(error) => {
                has_failed = true;
                let why = error.without(endpoint);
                tell::line(&format!("Failed to defragment etcd member[{endpoint}] ({why})"));
            }
        }
    }
    match has_failed {
        true => Err(CliError::Told(1)),
        false => Ok(()),
    }
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct MoveLeaderArgs {
    /// The member that is to lead, in hexadecimal
    #[arg(value_parser = parse_member)]
    id: u64,
}

pub(super) async fn move_leader(
    args: &MoveLeaderArgs,
    flags: &ClientFlags,
) -> Result<(), CliError> {
    let (target, output) = (flags.target()?, flags.output()?);
    let (endpoint, id) = leader(&target).await?;
    let request = MoveLeaderRequest { target_id: args.id };
    target
        .of(&[endpoint])?
        .write(async |channel| MaintenanceClient::new(channel).move_leader(request).await)
        .await?;
    output.line(&format!("Leadership transferred from {id:x} to {:x}", args.id))
}

/// The endpoint of the leader, and its id.
///
/// # Errors
///
/// None of the endpoints is the leader's, or there are some of which that is not known.
async fn leader(target: &Target) -> Result<(String, u64), CliError> {
    let answers = target
        .each(async |channel| MaintenanceClient::new(channel).status(StatusRequest {}).await)
        .await;
    let (mut answered, mut failed) = (false, Vec::new());
    for (endpoint, outcome) in answers {
        match outcome {
            Ok(status) => {
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Ok((endpoint, status.leader));
                }
                answered = true;
            }
            Err(error) => failed.push((endpoint, error)),
        }
    }
    for (endpoint, error) in &failed {
        status::tell_failed(endpoint, error);
    }
    match failed.pop() {
        Some((_, error)) if !answered => Err(error),
        Some(_) => Err(CliError::Failed("no endpoint that answered is the leader's".to_owned())),
        None => {
            let endpoints = target.names().collect::<Vec<_>>().join(" ");
            let text = format!("no leader endpoint given at [{endpoints}]");
            Err(CliError::Arguments(text))
        }
    }
}
