//! `endpoint`: asks every endpoint how it is, not the cluster as a whole.

use std::io::Write;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, HashKvRequest, HashKvResponse, MemberListRequest, RangeRequest,
};
use quorate_proto::tonic::{Code, Response, Status};

use super::endpoints::Target;
use super::error::CliError;
use super::fields::{self, field, quoted};
use super::flags::ClientFlags;
use super::output::{to_stdout, write_json, write_rows};
use super::table::table;
use super::tree::{self, Object, Tree};
use super::{Form, With, status};
use crate::tell;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum EndpointCommand {
    /// Whether every endpoint serves: it confirms a read, and no alarm is active
    Health(With<EndpointArgs>),
    /// What every endpoint is and knows
    Status(With<EndpointArgs>),
    /// The hash of what every endpoint holds
    Hashkv(With<HashArgs>),
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct EndpointArgs {
    /// All endpoints that the members of the cluster advertise
    #[arg(long)]
    cluster: bool,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct HashArgs {
    #[command(flatten)]
    endpoints: EndpointArgs,
    /// Up to this revision; 0 is now
    #[arg(long, value_name = "REVISION", default_value_t = 0, allow_negative_numbers = true)]
    rev: i64,
}

impl EndpointArgs {
    /// The endpoints to ask.
    pub(super) async fn target(&self, flags: &ClientFlags) -> Result<Target, CliError> {
        let target = flags.target()?;
        if !self.cluster {
            return Ok(target);
        }
        let list = target
            .any(async |channel| {
                let request = MemberListRequest { linearizable: false };
                ClusterClient::new(channel).member_list(request).await
            })
            .await?;
        let urls = list.members.into_iter().flat_map(|member| member.client_urls);
        target.of(&urls.collect::<Vec<_>>())
    }
}

impl EndpointCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            EndpointCommand::Health(With { args, flags }) => health(&args, &flags).await,
            EndpointCommand::Status(With { args, flags }) => {
                let target = args.target(&flags).await?;
                status::show(&target, &flags.output()?).await
            }
            EndpointCommand::Hashkv(With { args, flags }) => hash(&args, &flags).await,
        }
    }
}

/// How one endpoint is.
struct Health {
    endpoint: String,
    took: Duration,
    error: Option<String>,
}

async fn health(args: &EndpointArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let output = flags.output()?;
    let target = args.target(flags).await?;
    let begun = Instant::now();
    let answers = target
        .each(async |channel| {
            let range = RangeRequest { key: "health".into(), ..RangeRequest::default() };
            match KvClient::new(channel.clone()).range(range).await {
                Ok(_) => {}
                // It was answered by consensus that this user may not see.
                Err(status) if status.code() == Code::PermissionDenied => {}
                Err(status) => return Err(status),
            }
            let alarms = MaintenanceClient::new(channel).alarm(AlarmRequest::default()).await?;
            let alarms = alarms.into_inner().alarms;
            match alarms.is_empty() {
                true => Ok(Response::new(begun.elapsed())),
                false => {
                    let names = alarms.iter().map(|alarm| alarm.alarm().as_str_name());
                    let names: Vec<_> = names.collect();
                    Err(Status::failed_precondition(format!(
                        "Active Alarm(s): {}",
                        names.join(" ")
                    )))
                }
            }
        })
        .await;
    let found: Vec<Health> = answers
        .into_iter()
        .map(|(endpoint, outcome)| match outcome {
            Ok(took) => Health { endpoint, took, error: None },
            Err(error) => {
                let error = Some(error.without(&endpoint));
                Health { endpoint, took: begun.elapsed(), error }
            }
        })
        .collect();
    to_stdout(|out| match output.form {
        Some(Form::Json) => {
            let list = Tree::list(&found, |one| {
                Object::default()
                    .with("endpoint", one.endpoint.as_str())
                    .with("health", one.error.is_none())
                    .with("took", format!("{:?}", one.took))
                    .some("error", one.error.clone().unwrap_or_default())
            });
            write_json(out, &list)
        }
        Some(Form::Fields) => found.iter().try_for_each(|one| {
            field(out, "Endpoint", quoted(one.endpoint.as_bytes()))?;
            field(out, "Health", one.error.is_none())?;
            field(out, "Took", format_args!("{:?}", one.took))?;
            field(out, "Error", one.error.as_deref().unwrap_or_default())?;
            writeln!(out)
        }),
        Some(Form::Table) => {
            let row = |one: &Health| {
                let error = one.error.clone().unwrap_or_default();
                let health = one.error.is_none().to_string();
                [one.endpoint.clone(), health, format!("{:?}", one.took), error]
            };
            let columns = ["ENDPOINT", "HEALTH", "TOOK", "ERROR"];
            writeln!(out, "{}", table(columns, found.iter().map(row)))
        }
        Some(Form::Simple) | None => {
            found.iter().filter(|one| one.error.is_none()).try_for_each(|one| {
                let Health { endpoint, took, .. } = one;
                writeln!(
                    out,
                    "{endpoint} is healthy: successfully committed proposal: took = {took:?}"
                )
            })
        }
    })?;
    if matches!(output.form, Some(Form::Simple) | None) {
        for Health { endpoint, error, .. } in &found {
            if let Some(error) = error {
                let text = format!("{endpoint} is unhealthy: failed to commit proposal: {error}");
                tell::line(&text);
            }
        }
    }
    match found.iter().all(|one| one.error.is_none()) {
        true => Ok(()),
        false => Err(CliError::Failed("unhealthy cluster".to_owned())),
    }
}

async fn hash(args: &HashArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let output = flags.output()?;
    let target = args.endpoints.target(flags).await?;
    let request = HashKvRequest { revision: args.rev };
    let answers =
        target.each(async |channel| MaintenanceClient::new(channel).hash_kv(request).await).await;
    let mut failed = None;
    let mut found: Vec<(String, HashKvResponse)> = Vec::new();
    for (endpoint, outcome) in answers {
        match outcome {
            Ok(answer) => found.push((endpoint, answer)),
            Err(error) => {
                let why = error.without(&endpoint);
                tell::line(&format!("Failed to get the hash of endpoint {endpoint} ({why})"));
                failed = Some(error);
            }
        }
    }
    let row =
        |(endpoint, answer): &(String, HashKvResponse)| [endpoint.clone(), answer.hash.to_string()];
    to_stdout(|out| match output.form {
        Some(Form::Json) => {
            let list = Tree::list(&found, |(endpoint, answer)| {
                let hash = Object::default()
                    .with("header", tree::header(answer.header.as_ref()))
                    .some("hash", answer.hash)
                    .some("compact_revision", answer.compact_revision)
                    .some("hash_revision", answer.hash_revision);
                Object::default().with("Endpoint", endpoint.as_str()).with("HashKV", hash)
            });
            write_json(out, &list)
        }
        Some(Form::Fields) => found.iter().try_for_each(|(endpoint, answer)| {
            fields::header(out, answer.header.as_ref())?;
            field(out, "Endpoint", quoted(endpoint.as_bytes()))?;
            field(out, "Hash", answer.hash)?;
            writeln!(out)
        }),
        Some(Form::Table) => {
            writeln!(out, "{}", table(["ENDPOINT", "HASH"], found.iter().map(row)))
        }
        Some(Form::Simple) | None => write_rows(out, found.iter().map(row)),
    })?;
    match failed {
        Some(error) => Err(error.with_code(1)),
        None => Ok(()),
    }
}
