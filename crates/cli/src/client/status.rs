//! `status`: how each endpoint is.

use quorate_proto::etcdserverpb::{StatusRequest, StatusResponse};

use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::endpoints::Target;
use super::error::CliError;
use super::output::Output;
use crate::tell;

/// Arguments of `status`: none of its own.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct StatusArgs {}

/// Asks every endpoint how it is and prints that.
pub(super) async fn show(target: &Target, output: &Output) -> Result<(), CliError> {
    let answers = target
        .each(async |channel| MaintenanceClient::new(channel).status(StatusRequest {}).await)
        .await;
    for (name, outcome) in &answers {
        if let Err(error) = outcome {
            tell_failed(name, error);
        }
    }
    output.status(&answers)?;
    self::outcome(&answers)
}

/// What came of asking one endpoint.
pub(super) type Answer = (String, Result<StatusResponse, CliError>);

pub(super) const COLUMNS: [&str; 10] = [
    "ENDPOINT",
    "ID",
    "VERSION",
    "DB SIZE",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
];

/// One row, in the order of the columns.
pub(super) fn row(endpoint: &str, status: &StatusResponse) -> [String; 10] {
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    [
        endpoint.to_owned(),
        format!("{id:x}"),
        status.version.clone(),
        size(status.db_size),
        (status.leader == id).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ]
}

/// The row of an endpoint without a status, for people: scripts get what `etcdctl` prints, which is
/// the endpoints that answered.
pub(super) fn row_of_failed(endpoint: &str, error: &CliError) -> [String; 10] {
    let mut row = std::array::from_fn(|_| "-".to_owned());
    row[0] = endpoint.to_owned();
    row[9] = match error {
        CliError::Unreachable(_) => "cannot be reached",
        _ => "no status",
    }
    .to_owned();
    row
}

/// Tells of an endpoint without a status.
pub(super) fn tell_failed(endpoint: &str, error: &CliError) {
    let why = error.without(endpoint);
    tell::line(&format!("Failed to get the status of endpoint {endpoint} ({why})"));
}

/// Success only when every endpoint answered; what failed has been told. `etcdctl` has one code for
/// this, however many failed and however they did.
pub(super) fn outcome(answers: &[Answer]) -> Result<(), CliError> {
    match answers.iter().all(|(_, outcome)| outcome.is_ok()) {
        true => Ok(()),
        false => Err(CliError::Told(1)),
    }
}

/// A size in decimal units with two figures at least, as `etcdctl` prints it.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes.max(0) as f64;
    let mut unit = 0;
    while 1000.0 <= value && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let rounded = (value * 10.0 + 0.5).floor() / 10.0;
    match unit {
        1.. if rounded < 10.0 => format!("{rounded:.1} {}", UNITS[unit]),
        _ => format!("{rounded:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [
            (0, "0 B"),
            (7, "7 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9949, "9.9 kB"),
            (20480, "20 kB"),
            (1_310_720, "1.3 MB"),
            (2_147_483_648, "2.1 GB"),
            (i64::MAX, "9.2 EB"),
            (-5, "0 B"),
        ] {
            assert_eq!(size(bytes), want, "{bytes}");
        }
    }
}
