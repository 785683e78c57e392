//! `lease`: grants, renews, shows and revokes leases.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use quorate_proto::tonic::Status;
use quorate_proto::tonic::transport::Channel;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Revoked, TimeToLive};
use super::endpoints::Target;
use super::error::{CliError, said_by};
use super::in_turn::InTurn;
use super::output::Output;
use super::{ANSWER_BYTES_MAX, Form, With};

/// A lease is renewed so often in its time.
const RENEWALS: u32 = 3;
/// While a lease lives, so many members that do not answer can be given up in turn, and more that are given
/// up in ever less time.
const MEMBERS_IN_TIME: u32 = 3;
/// No lease has a longer time to live.
const LONGEST_SECONDS: u64 = 9_000_000_000;
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
            let renewed = Renewals::open(channel, id).await?.next().await?;
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
    let answer_max = target.command_timeout();
    let members = InTurn::begin(target).await?;
    // How long it lives is known with the first answer.
    let mut renewing = Renewing::new(members, id, Instant::now() + answer_max);
    let mut was_renewed = false;
    loop {
        match renewing.renew().await? {
            Some(answer) if 0 < answer.ttl => {
                output.show(&answer)?;
                was_renewed = true;
                tokio::time::sleep(every(answer.ttl)).await;
            }
            None if !was_renewed => {
                let text = format!("context deadline exceeded: no answer within {answer_max:?}");
                return Err(CliError::Failed(text));
            }
            Some(_) | None => {
                return match output.form {
                    Some(Form::Simple) | None => {
                        output.line(&format!("lease {id:016x} expired or revoked."))
                    }
                    _ => Ok(()),
                };
            }
        }
    }
}

/// How often a lease of so many seconds is renewed.
fn every(ttl_seconds: i64) -> Duration {
    seconds(ttl_seconds.max(1)) / RENEWALS
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0).min(LONGEST_SECONDS))
}

/// Renews one lease, at whichever member answers, for as long as it is known to live. Nobody else says that
/// a lease has ended where the member stands still.
pub(super) struct Renewing {
    id: i64,
    members: InTurn,
    renewals: Option<Renewals>,
    /// The lease lives until then: the renewal that was answered last was asked for its time to live before.
    until: Rc<Cell<Instant>>,
}

impl Renewing {
    /// Begins with the member whose turn it is, with a lease that lives until then.
    pub(super) fn new(members: InTurn, id: i64, until: Instant) -> Renewing {
        Renewing { id, members, renewals: None, until: Rc::new(Cell::new(until)) }
    }

    /// When a lease ends of which so many seconds were asked for now.
    pub(super) fn until(ttl_seconds: i64) -> Instant {
        Instant::now() + seconds(ttl_seconds)
    }

    /// When the lease ends, as far as is known at each time it is looked at, also while it is renewed.
    pub(super) fn until_now(&self) -> Rc<Cell<Instant>> {
        Rc::clone(&self.until)
    }

    /// Renews the lease and says for how long, 0 if it has ended; nothing if nobody has said so in time:
    /// it may have ended.
    ///
    /// # Errors
    ///
    /// What another member would not do better.
    pub(super) async fn renew(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Status> {
        // Whoever was not run for long must not begin.
        let until = self.until.get();
        if until <= Instant::now() {
            return Ok(None);
        }
        match timeout_at(until, self.renew_somewhere()).await {
            Ok(answer) => answer.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn renew_somewhere(&mut self) -> Result<LeaseKeepAliveResponse, Status> {
        loop {
            let asked = Instant::now();
            let patience = self.until.get().saturating_duration_since(asked) / MEMBERS_IN_TIME;
            let why = match timeout(patience, self.ask()).await {
                Ok(Ok(answer)) => {
                    self.until.set(asked + seconds(answer.ttl));
                    self.members.on_answer();
                    return Ok(answer);
                }
                Ok(Err(status)) if !self.members.may_go_on(&status) => return Err(status),
                Ok(Err(status)) => said_by(&status),
                Err(_) => format!("no answer within {patience:?}"),
            };
            // A late answer must not be taken for that to another question.
            self.renewals = None;
            self.members.warn(&why);
            self.members.go_on().await;
        }
    }

    async fn ask(&mut self) -> Result<LeaseKeepAliveResponse, Status> {
        let renewals = match &mut self.renewals {
            Some(renewals) => renewals,
            none => none.insert(Renewals::open(self.members.channel(), self.id).await?),
        };
        renewals.next().await
    }

    /// Renews the lease until it has ended, as far as this client can know.
    ///
    /// # Errors
    ///
    /// As of [`Renewing::renew`].
    pub(super) async fn keep(&mut self) -> Result<(), Status> {
        loop {
            match self.renew().await? {
                Some(answer) if 0 < answer.ttl => tokio::time::sleep(every(answer.ttl)).await,
                _ => return Ok(()),
            }
        }
    }

    /// The members, that one first which was asked last.
    pub(super) fn into_members(self) -> InTurn {
        self.members
    }
}

/// A stream of renewals of one lease at one member.
struct Renewals {
    id: i64,
    /// The first request was sent with the stream: some servers say nothing before.
    is_asked: bool,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: quorate_proto::tonic::Streaming<LeaseKeepAliveResponse>,
}

impl Renewals {
    async fn open(channel: Channel, id: i64) -> Result<Renewals, Status> {
        let (requests, outgoing) = mpsc::channel(1);
        // There is room for it.
        let _ = requests.try_send(LeaseKeepAliveRequest { id });
        let outgoing = ReceiverStream::new(outgoing);
        let answers = LeaseClient::new(channel).lease_keep_alive(outgoing).await?.into_inner();
        Ok(Renewals { id, is_asked: true, requests, answers })
    }

    /// Renews the lease and says for how long; 0 if it has ended.
    async fn next(&mut self) -> Result<LeaseKeepAliveResponse, Status> {
        if !std::mem::take(&mut self.is_asked) {
            let _ = self.requests.send(LeaseKeepAliveRequest { id: self.id }).await;
        }
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("the member has ended the stream"))
    }
}

pub(super) fn parse_lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "expecting ID in Hex".to_owned())
}
