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
    for target in args.target(flags).await?.one_by_one() {
        let outcomes = target
            .each(async |channel| {
                MaintenanceClient::new(channel).defragment(DefragmentRequest {}).await
            })
            .await;
        for (endpoint, outcome) in outcomes {
            match outcome {
                Ok(_) => {
                    output.line(&format!("Finished defragmenting etcd member[{endpoint}]"))?;
                }
                Err(error) => {
                    has_failed = true;
                    let why = error.without(&endpoint);
                    tell::line(&format!("Failed to defragment etcd member[{endpoint}] ({why})"));
                }
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
    let answers = target
        .each(async |channel| MaintenanceClient::new(channel).status(StatusRequest {}).await)
        .await;
    let leader = answers.into_iter().find_map(|(endpoint, outcome)| {
        let status = outcome.ok()?;
        let id = status.header.as_ref()?.member_id;
        (status.leader == id).then_some((endpoint, id))
    });
    let Some((endpoint, id)) = leader else {
        let endpoints = target.names().collect::<Vec<_>>().join(" ");
        let text = format!("no leader endpoint given at [{endpoints}]");
        return Err(CliError::Arguments(text));
    };
    let request = MoveLeaderRequest { target_id: args.id };
    target
        .of(&[endpoint])?
        .write(async |channel| MaintenanceClient::new(channel).move_leader(request).await)
        .await?;
    output.line(&format!("Leadership transferred from {id:x} to {:x}", args.id))
}
