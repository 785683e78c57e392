//! `member`: lists and changes who is in the cluster.

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::{
    MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};

use super::With;
use super::answer::Changed;
use super::error::CliError;
use super::members::{self, MembersArgs};

#[derive(clap::Subcommand, Debug)]
pub(crate) enum MemberCommand {
    /// Lists the members of the cluster
    List(With<MembersArgs>),
    /// Adds a member, and prints what it is to be started with
    Add(With<AddArgs>),
    /// Removes a member
    Remove(With<MemberArgs>),
    /// Tells the cluster where other members reach one of them
    Update(With<UpdateArgs>),
    /// Gives a learner its vote
    Promote(With<MemberArgs>),
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AddArgs {
    /// Name of the new member
    name: String,
    /// Where other members will reach it
    #[arg(long, value_name = "URLS", required = true, value_delimiter = ',')]
    peer_urls: Vec<String>,
    /// Without a vote at first
    #[arg(long)]
    learner: bool,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct MemberArgs {
    /// The member, in hexadecimal
    #[arg(value_parser = parse_member)]
    pub(super) id: u64,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    member: MemberArgs,
    /// Where other members reach it
    #[arg(long, value_name = "URLS", required = true, value_delimiter = ',')]
    peer_urls: Vec<String>,
}

impl MemberCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            MemberCommand::List(With { args, flags }) => members::list(&args, &flags).await,
            MemberCommand::Add(With { args, flags }) => {
                check_urls(&args.peer_urls)?;
                let (target, output) = (flags.target()?, flags.output()?);
                let request =
                    MemberAddRequest { peer_urls: args.peer_urls, is_learner: args.learner };
                let answer = target
                    .write(async |channel| {
                        ClusterClient::new(channel).member_add(request.clone()).await
                    })
                    .await?;
                output.show(&Changed::added(args.name, answer))
            }
            MemberCommand::Remove(With { args: MemberArgs { id }, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let request = MemberRemoveRequest { id };
                let answer = target
                    .write(async |channel| ClusterClient::new(channel).member_remove(request).await)
                    .await?;
                output.show(&Changed::removed(id, answer))
            }
            MemberCommand::Update(With { args, flags }) => {
                check_urls(&args.peer_urls)?;
                let (target, output) = (flags.target()?, flags.output()?);
                let id = args.member.id;
                let request = MemberUpdateRequest { id, peer_urls: args.peer_urls };
                let answer = target
                    .write(async |channel| {
                        ClusterClient::new(channel).member_update(request.clone()).await
                    })
                    .await?;
                output.show(&Changed::updated(id, answer))
            }
            MemberCommand::Promote(With { args: MemberArgs { id }, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let request = MemberPromoteRequest { id };
                let answer = target
                    .write(async |channel| {
                        ClusterClient::new(channel).member_promote(request).await
                    })
                    .await?;
                output.show(&Changed::promoted(id, answer))
            }
        }
    }
}

/// `--peer-urls=` names none.
fn check_urls(urls: &[String]) -> Result<(), CliError> {
    match urls.iter().all(String::is_empty) {
        true => Err(CliError::Arguments("member peer urls not provided".to_owned())),
        false => Ok(()),
    }
}

pub(super) fn parse_member(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "expecting ID in Hex".to_owned())
}
