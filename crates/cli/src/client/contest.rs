//! `lock` and `elect`: holds a lock, or leads, as long as a command or this program runs. The keys are
//! those of the server's own services and of every other client.

use std::cell::Cell;
use std::ffi::OsString;
use std::future::Future;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response as Op;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use quorate_proto::mvccpb::event::EventType;
use quorate_proto::tonic::transport::Channel;
use quorate_proto::tonic::{Code, Response, Status};
use quorate_proto::v3electionpb::LeaderRequest;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::endpoints::Target;
use super::error::{CliError, said_by};
use super::flags::ClientFlags;
use super::in_turn::InTurn;
use super::keys::bytes;
use super::lease::Renewing;
use super::output::Output;
use crate::tell;

/// Of an election, and of a lock with a TTL that is none.
const USUAL_TTL_SECONDS: i64 = 60;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LockArgs {
    /// Name of the lock
    name: OsString,
    /// What to run while it is held, told of it by ETCD_LOCK_KEY and ETCD_LOCK_REV, without standard
    /// input; without a command the lock is held until this program is stopped
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
    /// Seconds after which a lock is lost whose holder says nothing; 60 if it is not above 0
    #[arg(long, default_value_t = 10, allow_negative_numbers = true)]
    ttl: i64,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ElectArgs {
    /// Name of the election
    name: OsString,
    /// What to proclaim once elected
    proposal: Option<OsString>,
    /// Only print who leads, and each change of it
    #[arg(short, long)]
    listen: bool,
}

pub(super) async fn lock(args: LockArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let output = flags.output()?;
    output.refuse_table()?;
    let ttl = if 0 < args.ttl { args.ttl } else { USUAL_TTL_SECONDS };
    let mut session = Session::open(&flags.target()?, ttl).await?;
    let name = bytes(&args.name);
    let outcome = session.hold(&name, Bytes::new(), async |place, pair, stop| {
        let Some((program, arguments)) = args.command.split_first() else {
            output.place(pair)?;
            stop.asked().await;
            return Ok(());
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("ETCD_LOCK_KEY", OsString::from_vec(place.key.to_vec()))
            .env("ETCD_LOCK_REV", place.revision.to_string())
            .stdin(Stdio::null());
        // On a thread of its own: nobody waits for it once the lock is lost. Until then it is waited for,
        // whoever asks this program to stop: without the lock it must not go on.
        let (done, ran) = oneshot::channel();
        std::thread::spawn(move || {
            let _ = done.send(command.status());
        });
        match ran.await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                Err(CliError::Coded { text: format!("exit status {code}"), code: code.max(1) })
            }
            Ok(Err(error)) => {
                Err(CliError::Failed(format!("cannot run {}: {error}", program.to_string_lossy())))
            }
            Err(error) => Err(CliError::Failed(error.to_string())),
        }
    });
    let outcome = outcome.await;
    session.close().await;
    outcome
}

pub(super) async fn elect(args: ElectArgs, flags: &ClientFlags) -> Result<(), CliError> {
    let output = flags.output()?;
    output.refuse_table()?;
    let target = flags.target()?;
    if args.listen {
        if args.proposal.is_some() {
            let text = "elect takes one election name argument and an optional proposal argument";
            return Err(CliError::Arguments(text.to_owned()));
        }
        return observe(InTurn::begin(&target).await?, &output, bytes(&args.name)).await;
    }
    let Some(proposal) = &args.proposal else {
        return Err(CliError::Arguments("elect without --listen needs a proposal".to_owned()));
    };
    let mut session = Session::open(&target, USUAL_TTL_SECONDS).await?;
    let outcome = session
        .hold(&bytes(&args.name), bytes(proposal), async |_, pair, stop| {
            output.place(pair)?;
            stop.asked().await;
            Ok(())
        })
        .await;
    session.close().await;
    outcome
}

async fn observe(mut members: InTurn, output: &Output, name: Bytes) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let mut told = None;
    loop {
        let lost = tokio::select! {
            lost = observe_one(&mut members, output, &name, &mut told) => lost?,
            () = stop.asked() => return Ok(()),
        };
        members.warn(&lost);
        tokio::select! {
            () = members.go_on() => {}
            () = stop.asked() => return Ok(()),
        }
    }
}

/// Prints who leads as one member says it, until that one is lost, and says why. What was told last is not
/// told again.
async fn observe_one(
    members: &mut InTurn,
    output: &Output,
    name: &Bytes,
    told: &mut Option<(Bytes, i64)>,
) -> Result<String, CliError> {
    let mut elections = ElectionClient::new(members.channel());
    let request = members.request(LeaderRequest { name: name.clone() });
    let mut leaders = match elections.observe(request).await {
        Ok(leaders) => leaders.into_inner(),
        Err(status) => return members.lost(status),
    };
    loop {
        let leader = match leaders.message().await {
            Ok(Some(leader)) => leader,
            Ok(None) => return Ok("the member has ended the stream".to_owned()),
            Err(status) => return members.lost(status),
        };
        members.on_answer();
        let this = leader.kv.as_ref().map(|pair| (pair.key.clone(), pair.mod_revision));
        // It says first who leads now, which the last one may have told.
        if std::mem::replace(told, this.clone()) == this {
            continue;
        }
        let pair = RangeResponse {
            header: leader.header,
            kvs: leader.kv.into_iter().collect(),
            more: false,
            count: 1,
        };
        output.place(&pair)?;
    }
}

/// A place in the line under a name.
struct Place {
    key: Bytes,
    /// The revision that created it.
    revision: i64,
}

/// A lease that is kept alive, and whoever stands in line with it, at whichever member answers.
struct Session {
    members: InTurn,
    lease: i64,
    /// Until then the lease lives without being renewed.
    until: Instant,
    answer_max: Duration,
    has_expired: bool,
}

impl Session {
    async fn open(target: &Target, ttl: i64) -> Result<Session, CliError> {
        let mut session = Session {
            members: InTurn::begin(target).await?,
            lease: 0,
            until: Instant::now(),
            answer_max: target.command_timeout(),
            has_expired: false,
        };
        let request = LeaseGrantRequest { ttl, id: 0 };
        // A lease that is granted by whoever answers too late rests unused until it ends.
        let grant = async |channel| {
            let until = Renewing::until(ttl);
            let granted = LeaseClient::new(channel).lease_grant(request).await?;
            Ok(granted.map(|granted| (granted.id, until)))
        };
        (session.lease, session.until) = session.somewhere_in_time(grant).await?;
        Ok(session)
    }

    /// Waits to be first under a name, unless this program is asked to stop, then does what is to be done
    /// as long as the lease lives.
    async fn hold(
        &mut self,
        name: &Bytes,
        value: Bytes,
        work: impl AsyncFnOnce(&Place, &RangeResponse, &mut Stop) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut stop = Stop::listen()?;
        let mut renewing = Renewing::new(self.members.clone(), self.lease, self.until);
        let until = renewing.until_now();
        let held = async {
            let place = tokio::select! {
                won = self.win(name, value) => won?,
                () = stop.asked() => return Err(CliError::Failed("context canceled".to_owned())),
            };
            let own = RangeRequest { key: place.key.clone(), ..Default::default() };
            let pair = self.somewhere(async |session| session.read(own.clone()).await).await?;
            // This program may have stood still since it was answered.
            if pair.kvs.is_empty() || until.get() <= Instant::now() {
                return Err(CliError::Failed("session is expired".to_owned()));
            }
            work(&place, &pair, &mut stop).await
        };
        let outcome = tokio::select! {
            biased;
            kept = renewing.keep() => Err(kept),
            outcome = held => Ok(outcome),
        };
        // That one has answered last.
        self.members = renewing.into_members();
        match outcome {
            Ok(outcome) => outcome,
            Err(Ok(())) => {
                self.has_expired = true;
                Err(CliError::Failed("session is expired".to_owned()))
            }
            Err(Err(status)) => Err(status.into()),
        }
    }

    /// Gives up what is held, as well as it can be, and says so where it cannot.
    async fn close(mut self) {
        if self.has_expired {
            return;
        }
        let request = LeaseRevokeRequest { id: self.lease };
        let revoke = async |channel| match LeaseClient::new(channel).lease_revoke(request).await {
            // It has ended, or a member that was asked before has revoked it.
            Err(status) if status.code() == Code::NotFound => {
                Ok(Response::new(LeaseRevokeResponse::default()))
            }
            revoked => revoked,
        };
        if let Err(why) = self.somewhere_in_time(revoke).await {
            let lease = self.lease;
            tell::etcdctl_warning(&format!(
                "lease {lease:016x} was perhaps not revoked: {why}; its key stays until it ends"
            ));
        }
    }

    /// Takes a place in the line and waits to be first.
    async fn win(&mut self, name: &Bytes, value: Bytes) -> Result<Place, CliError> {
        let value = &value;
        let place = self.somewhere(async |session| session.enter(name, value).await).await?;
        self.somewhere(async |session| session.be_first(name, &place).await).await?;
        Ok(place)
    }

    /// Does what may be done more than once at one member after the other, until it is done.
    ///
    /// # Errors
    ///
    /// What another member would not do better.
    async fn somewhere<T>(
        &mut self,
        work: impl AsyncFn(&Session) -> Result<T, Status>,
    ) -> Result<T, CliError> {
        loop {
            match work(self).await {
                Ok(done) => return Ok(done),
                Err(status) if self.members.may_go_on(&status) => self.members.go_on().await,
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// The same within the time for one answer, of which each member has its part: one that takes
    /// connections and says nothing leaves time for the others.
    ///
    /// # Errors
    ///
    /// What another member would not do better, or that none has answered in time.
    async fn somewhere_in_time<T>(
        &mut self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let answer_max = self.answer_max;
        let part = answer_max / self.members.count();
        let refused = Cell::new(None);
        let answered = self.somewhere(async |session| {
            let answer = within(part, ask(session.members.channel())).await;
            answer.inspect_err(|status| refused.set(Some(said_by(status))))
        });
        match timeout(answer_max, answered).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let why = refused.take().map_or_else(String::new, |why| format!("; last: {why}"));
                let text =
                    format!("context deadline exceeded: no answer within {answer_max:?}{why}");
                Err(CliError::Failed(text))
            }
        }
    }

    /// The key's name has the lease in it: who enters twice enters once.
    async fn enter(&self, name: &Bytes, value: &Bytes) -> Result<Place, Status> {
        let key: Bytes = [name, format!("/{:x}", self.lease).as_bytes()].concat().into();
        let op = |request| RequestOp { request: Some(request) };
        let (lease, value) = (self.lease, value.clone());
        let put = PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let txn = TxnRequest {
            compare: vec![Compare {
                target: CompareTarget::Create.into(),
                key: key.clone(),
                target_union: Some(TargetUnion::CreateRevision(0)),
                ..Default::default()
            }],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let mut client = KvClient::new(self.members.channel());
        let answer = self.in_time(client.txn(txn)).await?;
        let own = answer.header.map_or(0, |header| header.revision);
        let found = answer.responses.into_iter().find_map(|op| match op.response {
            Some(Op::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        Ok(Place { key, revision: found.map_or(own, |pair| pair.create_revision) })
    }

    /// Waits until nobody stands before a place.
    async fn be_first(&self, name: &Bytes, place: &Place) -> Result<(), Status> {
        loop {
            let before = RangeRequest {
                key: [name, &b"/"[..]].concat().into(),
                range_end: [name, &b"0"[..]].concat().into(),
                limit: 1,
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Create.into(),
                max_create_revision: place.revision - 1,
                ..Default::default()
            };
            let found = self.read(before).await?;
            let revision = found.header.map_or(0, |header| header.revision);
            match found.kvs.into_iter().next() {
                Some(before) => self.until_gone(before.key, revision + 1).await?,
                None => return Ok(()),
            }
        }
    }

    /// Waits until a key is deleted, at the revision or later.
    async fn until_gone(&self, key: Bytes, start_revision: i64) -> Result<(), Status> {
        let (requests, outgoing) = mpsc::channel(1);
        let create = WatchCreateRequest {
            key,
            start_revision,
            filters: vec![FilterType::Noput.into()],
            ..Default::default()
        };
        let union = Some(RequestUnion::CreateRequest(create));
        // There is room for it; the sender stays, as its end would end the stream.
        let _ = requests.try_send(WatchRequest { request_union: union });
        let mut watch = WatchClient::new(self.members.channel());
        let asked = self.members.request(ReceiverStream::new(outgoing));
        let mut responses = watch.watch(asked).await?.into_inner();
        while let Some(response) = responses.message().await? {
            // What is compacted is past: the key is to be read again.
            if response.canceled && response.compact_revision == 0 {
                return Err(Status::unknown(response.cancel_reason));
            }
            let gone = |event: &quorate_proto::mvccpb::Event| event.r#type() == EventType::Delete;
            if response.canceled || response.events.iter().any(gone) {
                return Ok(());
            }
        }
        Err(Status::unavailable("the member has ended the stream"))
    }

    async fn read(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        self.in_time(KvClient::new(self.members.channel()).range(range)).await
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        within(self.answer_max, answer).await
    }
}

/// An answer, or that the member may be lost.
async fn within<T>(
    answer_max: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(answer_max, answer).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::unavailable(format!("no answer within {answer_max:?}"))),
    }
}

/// Whether this program is asked to stop.
pub(super) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    pub(super) fn listen() -> Result<Stop, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::Failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Stop {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
