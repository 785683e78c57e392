//! `members`: who is in the cluster.

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::{Member, MemberListRequest};

use super::error::CliError;
use super::flags::ClientFlags;

/// Arguments of `members`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct MembersArgs {
    /// Answered by one member alone, which may not have heard of the latest change
    #[arg(long)]
    serializable: bool,
}

impl MembersArgs {
    /// The request.
    pub(super) fn request(&self) -> MemberListRequest {
        MemberListRequest { linearizable: !self.serializable }
    }
}

/// Asks for the members and prints them.
pub(super) async fn list(args: &MembersArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let output = flags.output()?;
    let answer = flags
        .target()?
        .any(async |channel| ClusterClient::new(channel).member_list(args.request()).await)
        .await?;
    output.members(&answer)
}

pub(super) const COLUMNS: [&str; 6] =
    ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];

/// One row, in the order of the columns.
pub(super) fn row(member: &Member) -> [String; 6] {
    // A member learns its name when it starts for the first time.
    let started = if member.name.is_empty() { "unstarted" } else { "started" };
    [
        format!("{:x}", member.id),
        started.to_owned(),
        member.name.clone(),
        member.peer_urls.join(","),
        member.client_urls.join(","),
        member.is_learner.to_string(),
    ]
}
