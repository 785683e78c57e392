//! `lease`: grants, renews, shows and revokes leases.

use std::time::Duration;

use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use quorate_proto::tonic::Status;
use quorate_proto::tonic::transport::Channel;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Revoked, TimeToLive};
use super::endpoints::Target;
use super::error::CliError;
use super::output::Output;
use super::{ANSWER_BYTES_MAX, Form, With};

/// A lease is renewed so often in its time.
const RENEWALS: u64 = 3;
/// What `etcdctl` has for a lease it cannot learn of.
const NOT_LEARNED: u8 = 2;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum LeaseCommand {
    /// Makes a lease of so many seconds
    Grant(With<GrantArgs>),
    /// Ends a lease, and deletes its keys
    Revoke(With<LeaseArgs>),
    /// Shows how long a lease has to live
    Timetolive(With<TimeToLiveArgs>),
    /// Lists all leases
    List(With<NoArgs>),
    /// Renews a lease until it ends
    KeepAlive(With<KeepAliveArgs>),
}

/// Arguments of a command that has none.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NoArgs {}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct GrantArgs {
    /// Seconds to live
    #[arg(allow_negative_numbers = true)]
    ttl: i64,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LeaseArgs {
    /// The lease, in hexadecimal
    #[arg(value_parser = parse_lease, allow_negative_numbers = true)]
    id: i64,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TimeToLiveArgs {
    #[command(flatten)]
    lease: LeaseArgs,
    /// Also show its keys
    #[arg(long)]
    keys: bool,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct KeepAliveArgs {
    #[command(flatten)]
    lease: LeaseArgs,
    /// Renew it once
    #[arg(long)]
    once: bool,
}

impl LeaseCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            LeaseCommand::Grant(With { args, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                output.refuse_table()?;
                let request = LeaseGrantRequest { ttl: args.ttl, id: 0 };
                let granted = target
                    .write(async |channel| LeaseClient::new(channel).lease_grant(request).await)
                    .await;
                output.show(&granted.map_err(|error| error.within("failed to grant lease"))?)
            }
            LeaseCommand::Revoke(With { args, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                output.refuse_table()?;
                let request = LeaseRevokeRequest { id: args.id };
                let revoked = target
                    .write(async |channel| LeaseClient::new(channel).lease_revoke(request).await)
                    .await;
                let answer = revoked.map_err(|error| error.within("failed to revoke lease"))?;
                output.show(&Revoked { id: args.id, answer })
            }
            LeaseCommand::Timetolive(With { args, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                output.refuse_table()?;
                let request = LeaseTimeToLiveRequest { id: args.lease.id, keys: args.keys };
                let answer = target
                    .read(async |channel| {
                        let leases = LeaseClient::new(channel);
                        let mut leases = leases.max_decoding_message_size(ANSWER_BYTES_MAX);
                        leases.lease_time_to_live(request).await
                    })
                    .await
                    .map_err(|error| error.with_code(NOT_LEARNED))?;
                output.show(&TimeToLive { wants_keys: args.keys, answer })
            }
            LeaseCommand::List(With { args: NoArgs {}, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                let answer = target
                    .read(async |channel| {
                        let leases = LeaseClient::new(channel);
                        let mut leases = leases.max_decoding_message_size(ANSWER_BYTES_MAX);
                        leases.lease_leases(LeaseLeasesRequest {}).await
                    })
                    .await?;
                output.show(&answer)
            }
            LeaseCommand::KeepAlive(With { args, flags }) => {
                let (target, output) = (flags.target()?, flags.output()?);
                output.refuse_table()?;
                match args.once {
                    true => keep_alive_once(&target, &output, args.lease.id).await,
                    false => keep_alive(&target, &output, args.lease.id).await,
                }
            }
        }
    }
}

async fn keep_alive_once(target: &Target, output: &Output, id: i64) -> Result<(), CliError> {
    let answer = target
        .read(async |channel| {
            let renewed = Renewing::open(channel, id).await?.renew().await?;
            Ok(quorate_proto::tonic::Response::new(renewed))
        })
        .await
        .map_err(|error| error.with_code(NOT_LEARNED))?;
    match answer.ttl {
        ..=0 => {
            let text = "etcdserver: requested lease not found".to_owned();
            Err(CliError::Coded { text, code: NOT_LEARNED })
        }
        _ => output.show(&answer),
    }
}

async fn keep_alive(target: &Target, output: &Output, id: i64) -> Result<(), CliError> {
    let mut renewing = Renewing::open(target.connect().await?, id).await?;
    loop {
        let answer = renewing.renew().await?;
        if answer.ttl <= 0 {
            return match output.form {
                Some(Form::Simple) | None => {
                    output.line(&format!("lease {id:016x} expired or revoked."))
                }
                _ => Ok(()),
            };
        }
        output.show(&answer)?;
        tokio::time::sleep(every(answer.ttl)).await;
    }
}

/// How often a lease of so many seconds is renewed.
fn every(ttl_seconds: i64) -> Duration {
    let seconds = u64::try_from(ttl_seconds).unwrap_or(1).max(1);
    Duration::from_millis(seconds.saturating_mul(1000) / RENEWALS)
}

/// A stream of renewals of one lease.
pub(super) struct Renewing {
    id: i64,
    /// The first request was sent with the stream: some servers say nothing before.
    is_asked: bool,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: quorate_proto::tonic::Streaming<LeaseKeepAliveResponse>,
}

impl Renewing {
    pub(super) async fn open(channel: Channel, id: i64) -> Result<Renewing, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        // There is room for it.
        let _ = requests.try_send(LeaseKeepAliveRequest { id });
        let outgoing = ReceiverStream::new(outgoing);
        let answers = LeaseClient::new(channel).lease_keep_alive(outgoing).await?.into_inner();
        Ok(Renewing { id, is_asked: true, requests, answers })
    }

    /// Renews the lease and says for how long; 0 if it has ended.
    pub(super) async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, Status> {
        if !std::mem::take(&mut self.is_asked) {
            let _ = self.requests.send(LeaseKeepAliveRequest { id: self.id }).await;
        }
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("the member has ended the stream"))
    }

    /// Renews the lease until it has ended, or nobody can be asked any more.
    pub(super) async fn keep(mut self) -> Result<(), Status> {
        loop {
            match self.renew().await?.ttl {
                ..=0 => return Ok(()),
                ttl => tokio::time::sleep(every(ttl)).await,
            }
        }
    }
}

pub(super) fn parse_lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "expecting ID in Hex".to_owned())
}
