//! `autopilot`: how the leader sees the members, and what it is told to do about them.

use quorate_autopilot::Settings;
use quorate_proto::quoratepb::autopilot_client::AutopilotClient;
use quorate_proto::quoratepb::{
    AutopilotConfigResponse, AutopilotDemoteRequest, AutopilotExplainRequest,
    AutopilotGetConfigRequest, AutopilotHealthRequest, AutopilotHoldRequest,
    AutopilotSetConfigRequest, AutopilotStateRequest,
};
use serde_json::Value;

use super::With;
use super::error::CliError;
use super::flags::{ClientFlags, Form};
use super::member::MemberArgs;
use super::output::{Output, to_stdout, write_rows};
use super::table::table;
use crate::tell;

/// What a running cluster is asked, or told.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum LiveCommand {
    /// Shows every member as the leader's autopilot sees it, and why nothing is done about it
    State(With<NoArgs>),
    /// Shows whether the members are healthy and how many may fail; exits with 1 when one is unhealthy
    Health(With<NoArgs>),
    /// Shows autopilot's settings
    GetConfig(With<NoArgs>),
    /// Changes some of autopilot's settings
    ///
    /// Durations are written as 200ms, 10s or 24h. `get-config` shows all settings there are.
    SetConfig(With<SetArgs>),
    /// Shows what the next round would do, and why it would not do more; nothing is done
    #[command(visible_alias = "dry-run")]
    Explain(With<NoArgs>),
    /// Has autopilot leave a member as it is, with its vote or without one
    Hold(With<MemberArgs>),
    /// Has autopilot look after a held member again
    Release(With<MemberArgs>),
    /// Takes a member's vote, and holds the member so that it is not promoted again
    Demote(With<MemberArgs>),
}

/// None.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NoArgs {}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SetArgs {
    /// What is to be changed: min-quorum=3 cleanup-dead-servers=false
    #[arg(required = true, value_name = "NAME=VALUE")]
    changes: Vec<String>,
    /// Only if nobody has changed anything since `get-config` showed this index
    #[arg(long, value_name = "INDEX")]
    modify_index: Option<u64>,
}

impl LiveCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            LiveCommand::State(With { args: NoArgs {}, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let answer = target
                    .read(async |channel| {
                        AutopilotClient::new(channel).state(AutopilotStateRequest {}).await
                    })
                    .await?;
                show_state(&output, &answer.json)
            }
            LiveCommand::Health(With { args: NoArgs {}, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let answer = target
                    .read(async |channel| {
                        AutopilotClient::new(channel).health(AutopilotHealthRequest {}).await
                    })
                    .await?;
                show_health(&output, &answer.json)?;
                if answer.healthy { Ok(()) } else { Err(CliError::Told(1)) }
            }
            LiveCommand::GetConfig(With { args: NoArgs {}, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let answer = target
                    .read(async |channel| {
                        AutopilotClient::new(channel).get_config(AutopilotGetConfigRequest {}).await
                    })
                    .await?;
                show_config(&output, &answer)
            }
            LiveCommand::Explain(With { args: NoArgs {}, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let answer = target
                    .read(async |channel| {
                        AutopilotClient::new(channel).explain(AutopilotExplainRequest {}).await
                    })
                    .await?;
                show_outlook(&output, &answer.json)
            }
            LiveCommand::Hold(With { args, flags }) => hold(args.id, true, &flags).await,
            LiveCommand::Release(With { args, flags }) => hold(args.id, false, &flags).await,
            LiveCommand::Demote(With { args: MemberArgs { id }, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let request = AutopilotDemoteRequest { id };
                let answer = target
                    .write(async |channel| AutopilotClient::new(channel).demote(request).await)
                    .await?;
                show_config(&output, &answer)
            }
            LiveCommand::SetConfig(With { args, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let changes = Settings::changes_of(args.changes.iter().map(String::as_str));
                let changes = changes.map_err(|error| CliError::Arguments(error.to_string()))?;
                let request = AutopilotSetConfigRequest {
                    json: Value::Object(changes).to_string(),
                    compare: args.modify_index.is_some(),
                    modify_index: args.modify_index.unwrap_or_default(),
                };
                let answer = target
                    .write(async |channel| {
                        AutopilotClient::new(channel).set_config(request.clone()).await
                    })
                    .await?;
                show_config(&output, &answer)
            }
        }
    }
}

async fn hold(id: u64, held: bool, flags: &ClientFlags) -> Result<(), CliError> {
    let (target, output) = (flags.target()?, flags.output()?);
    let request = AutopilotHoldRequest { id, held };
    let answer =
        target.write(async |channel| AutopilotClient::new(channel).hold(request).await).await?;
    show_config(&output, &answer)
}

const STATE_COLUMNS: [&str; 9] =
    ["ID", "NAME", "STATE", "TYPE", "STATUS", "VERSION", "HEALTHY", "STABLE SINCE", "REASON"];

fn show_state(output: &Output, json: &str) -> Result<(), CliError> {
    let state = parsed(json)?;
    let reasons = &state["Ext"]["reasons"]["servers"];
    let rows = members(&state["Servers"]).map(|(id, one)| {
        let server = &one["Server"];
        [
            id.to_owned(),
            text(&server["Name"]),
            text(&one["State"]),
            text(&server["NodeType"]),
            text(&server["NodeStatus"]),
            text(&server["Version"]),
            text(&one["Health"]["Healthy"]),
            text(&one["Health"]["StableSince"]),
            text(&reasons[id]),
        ]
    });
    let mut lines = summary(&state, &state["Ext"]["optimistic_failure_tolerance"]);
    lines.push(format!("upgrade: {}", text(&state["Ext"]["reasons"]["upgrade"])));
    show(output, json, &lines, STATE_COLUMNS, rows.collect())
}

const HEALTH_COLUMNS: [&str; 8] =
    ["ID", "NAME", "STATUS", "VOTER", "HEALTHY", "LAST CONTACT", "LAST INDEX", "REASON"];

fn show_health(output: &Output, json: &str) -> Result<(), CliError> {
    let health = parsed(json)?;
    let servers = health["Servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names =
        ["ID", "Name", "NodeStatus", "Voter", "Healthy", "LastContact", "LastIndex", "Reason"];
    let rows = servers.iter().map(|one| names.map(|name| text(&one[name])));
    let lines = summary(&health, &health["OptimisticFailureTolerance"]);
    show(output, json, &lines, HEALTH_COLUMNS, rows.collect())
}

const OUTLOOK_COLUMNS: [&str; 4] = ["WHAT", "ID", "NAME", "WHY"];

/// What would be done, what is wanted and would not be, and of all others why nothing is.
fn show_outlook(output: &Output, json: &str) -> Result<(), CliError> {
    let outlook = parsed(json)?;
    let list = |name: &str| outlook[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |id: &str| text(&outlook["Servers"][id]["Name"]);
    let mut rows = Vec::new();
    for action in list("Actions") {
        let ids = action["Servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<String> = ids.iter().map(text).collect();
        let names: Vec<String> = ids.iter().map(|id| name(id)).collect();
        let (ids, names) = (ids.join(" by "), names.join(" by "));
        rows.push([text(&action["Kind"]), ids, names, text(&action["Why"])]);
    }
    for refusal in list("Refusals") {
        let (what, id) = (format!("no {}", text(&refusal["Kind"])), text(&refusal["Server"]));
        let name = name(&id);
        rows.push([what, id, name, text(&refusal["Why"])]);
    }
    let is_told = |id: &str| rows.iter().any(|row| row[1].split(" by ").any(|told| told == id));
    let others = members(&outlook["Servers"]).filter(|(id, _)| !is_told(id));
    let others: Vec<[String; 4]> = others
        .map(|(id, one)| ["nothing".to_owned(), id.to_owned(), name(id), text(&one["Reason"])])
        .collect();
    rows.extend(others);
    let mut lines = vec![
        format!("paused: {}", text(&outlook["Paused"])),
        format!("upgrade: {}", text(&outlook["Upgrade"])),
    ];
    lines.extend(list("Errors").iter().map(|error| format!("cannot plan: {}", text(error))));
    show(output, json, &lines, OUTLOOK_COLUMNS, rows)
}

/// What is set, with what may be a mistake on standard error.
fn show_config(output: &Output, answer: &AutopilotConfigResponse) -> Result<(), CliError> {
    answer.warnings.iter().for_each(|warning| tell::warning(warning));
    let mut config = parsed(&answer.json)?;
    config["create_index"] = answer.create_index.into();
    config["modify_index"] = answer.modify_index.into();
    let rows = members(&config).map(|(name, value)| [name.to_owned(), text(value)]).collect();
    show(output, &config.to_string(), &[], ["SETTING", "VALUE"], rows)
}

/// What stands above a table of members.
fn summary(state: &Value, optimistic: &Value) -> Vec<String> {
    vec![
        format!("healthy: {}", text(&state["Healthy"])),
        format!("leader: {}", text(&state["Leader"])),
        format!(
            "failure tolerance: {} ({} one after the other)",
            text(&state["FailureTolerance"]),
            text(optimistic)
        ),
    ]
}

fn show<const COLUMNS: usize>(
    output: &Output,
    json: &str,
    lines: &[String],
    columns: [&str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
) -> Result<(), CliError> {
    use std::io::Write as _;
    if output.form == Some(Form::Fields) {
        return Err(CliError::Unsupported("fields not supported as output format".to_owned()));
    }
    to_stdout(|out| match output.form {
        Some(Form::Json) => writeln!(out, "{json}"),
        Some(Form::Simple) => write_rows(out, rows.into_iter()),
        Some(Form::Fields | Form::Table) | None => {
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            writeln!(out, "{}", table(columns, rows))
        }
    })
}

fn parsed(json: &str) -> Result<Value, CliError> {
    serde_json::from_str(json)
        .map_err(|error| CliError::Failed(format!("the answer is no JSON ({error})")))
}

/// The members of an object of JSON; none of anything else.
fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// A text without its quotes, a list with commas; anything else as it is.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}
