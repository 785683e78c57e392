//! The servers: what a node does once there is a leader, until there is none.
//!
//! Each runs the node's loop until it is killed, or its role is over, and meanwhile takes requests
//! from a [`RequestMgr`] while the node can serve them. A watcher's server goes on for ever, from
//! leader to leader.

use std::sync::Arc;
use std::time::Duration;

use quorate_zab::{Address, Role};
use tokio::sync::{mpsc, oneshot};

use crate::{
    ActionHandler, ClientAuth, CustomRequestHandler, CustomResponse, ElectionSite, Ended, Kill,
    Lanes, NoCustomRequests, NoRequests, RequestMgr, ServerError, SiteConfig, SiteError,
};

/// Leads until the leadership is over. gometa's `RunLeaderServer`. Requests outside the log are
/// answered with gometa's text for that nobody here can.
///
/// # Errors
///
/// [`ServerError::NotServing`] when the quorums did not come about: hold another election.
pub async fn run_leader_server(
    site: &mut ElectionSite,
    requests: &impl RequestMgr,
    kill: &Kill,
) -> Result<Ended, ServerError> {
    run(site, Role::Leading, requests, None::<&NoCustomRequests>, kill, &mut Signals::default())
        .await
}

/// The same, and requests outside the log are answered by `custom`. gometa's
/// `RunLeaderServerWithCustomHandler`; its reset channel is
/// [`SiteHandle::reset`](crate::SiteHandle::reset).
///
/// # Errors
///
/// As [`run_leader_server`].
pub async fn run_leader_server_with_custom_handler(
    site: &mut ElectionSite,
    requests: &impl RequestMgr,
    custom: &impl CustomRequestHandler,
    kill: &Kill,
) -> Result<Ended, ServerError> {
    run(site, Role::Leading, requests, Some(custom), kill, &mut Signals::default()).await
}

/// Follows `leader`, whom the election named, until the followership is over. Requests are sent on
/// to the leader. gometa's `RunFollowerServer`.
///
/// # Errors
///
/// [`ServerError::NotServing`] when the leader could not be reached, or the synchronization failed:
/// hold another election. [`ServerError::NotElected`] when `leader` is not who was elected.
pub async fn run_follower_server(
    site: &mut ElectionSite,
    leader: &Address,
    requests: &impl RequestMgr,
    kill: &Kill,
) -> Result<Ended, ServerError> {
    if site.winner().as_ref() != Some(leader) {
        return Err(ServerError::NotElected("somebody else leads by now"));
    }
    let no_custom = None::<&NoCustomRequests>;
    run(site, Role::Following, requests, no_custom, kill, &mut Signals::default()).await
}

/// Votes, leads and follows until it is killed: elections, and the server of whatever role comes of
/// each. What gometa's sample server does around the package.
///
/// # Errors
///
/// [`SiteError`] when the node must not take part any more.
pub async fn run_server(
    site: &mut ElectionSite,
    requests: &impl RequestMgr,
    custom: Option<&impl CustomRequestHandler>,
    kill: &Kill,
) -> Result<(), SiteError> {
    while let Some(winner) = site.start_election(kill).await? {
        let ended = match site.is_leader() {
            true => run(site, Role::Leading, requests, custom, kill, &mut Signals::default()).await,
            false => run_follower_server(site, &winner, requests, kill).await,
        };
        match ended {
            Ok(Ended::Killed | Ended::NoMoreRequests) => break,
            Ok(Ended::Left(why)) => tracing::info!(?why, "another election"),
            Err(ServerError::Site(error)) => return Err(error),
            Err(error) => tracing::info!(%error, "another election"),
        }
    }
    Ok(())
}

/// After its leader has ended, for whatever reason, an embedded server begins again so much later.
/// gometa's value.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// A leader of one, for watchers, until it is killed or its requests have ended: gometa's "embedded"
/// server. Whenever its leadership ends it begins again 200 ms later; also when the node must not go
/// on, because a call of the application's failed, say: then it is opened anew by `open`, with ports
/// and log. The application may keep its state alone ([`ActionHandler::keeps_history`]).
///
/// # Errors
///
/// That of `open`, when the server cannot begin. What fails later is waited for.
pub async fn run_embedded_server<Opening>(
    mut open: impl FnMut() -> Opening,
    requests: &impl RequestMgr,
    custom: Option<&impl CustomRequestHandler>,
    kill: &Kill,
) -> Result<(), SiteError>
where
    Opening: Future<Output = Result<ElectionSite, SiteError>>,
{
    let mut site = open().await?;
    loop {
        match embedded_turn(&mut site, requests, custom, kill).await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                tracing::error!(%error, "the leader is opened anew");
                site.close().await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = kill.killed() => {
                site.close().await;
                return Ok(());
            }
        }
        if site.is_closed() {
            match open().await {
                Ok(opened) => site = opened,
                Err(error) => tracing::error!(%error, "could not be opened"),
            }
        }
    }
}

/// One leadership; whether there is to be another.
async fn embedded_turn(
    site: &mut ElectionSite,
    requests: &impl RequestMgr,
    custom: Option<&impl CustomRequestHandler>,
    kill: &Kill,
) -> Result<bool, SiteError> {
    if site.start_election(kill).await?.is_none() {
        return Ok(!kill.is_killed());
    }
    match run(site, Role::Leading, requests, custom, kill, &mut Signals::default()).await {
        Ok(Ended::Killed | Ended::NoMoreRequests) => Ok(false),
        Ok(Ended::Left(_)) | Err(ServerError::NotServing(_) | ServerError::NotElected(_)) => {
            Ok(true)
        }
        Err(ServerError::Site(error)) => Err(error),
    }
}

/// What a watcher's run is told and tells, beside its requests.
#[derive(Debug, Default)]
pub struct Signals {
    /// Told once, after the first synchronization. gometa's `readych`.
    pub ready: Option<oneshot::Sender<()>>,
    /// Asks whether the run's loop turns. gometa's `pingch`.
    pub ping: Option<mpsc::Receiver<()>>,
    /// Answers, while a leader is followed; left out when an answer still lies there. gometa's
    /// `alivech`.
    pub alive: Option<mpsc::Sender<()>>,
}

/// Watches a leader that is known, until it is killed; whenever the leader is lost it waits, and
/// connects again. gometa's `RunWatcherServer`.
///
/// # Errors
///
/// [`SiteError`] when the node cannot begin or must not go on. Not when the leader cannot be
/// reached: that is waited for.
pub async fn run_watcher_server(
    config: SiteConfig,
    actions: Arc<dyn ActionHandler>,
    kill: &Kill,
    ready: Option<oneshot::Sender<()>>,
) -> Result<(), SiteError> {
    let signals = Signals { ready, ..Signals::default() };
    watch(config, Lanes::none(), actions, &NoRequests, kill, signals).await
}

/// The same, and requests of this node are sent to the leader. gometa's
/// `RunWatcherServerWithRequest`.
///
/// # Errors
///
/// As [`run_watcher_server`].
pub async fn run_watcher_server_with_request(
    config: SiteConfig,
    actions: Arc<dyn ActionHandler>,
    requests: &impl RequestMgr,
    kill: &Kill,
    signals: Signals,
) -> Result<(), SiteError> {
    watch(config, Lanes::none(), actions, requests, kill, signals).await
}

/// The same, and each connection is authenticated before the protocol begins on it. gometa's
/// `RunWatcherServerWithRequest2`.
///
/// # Errors
///
/// As [`run_watcher_server`]; being refused is no error but a reason to wait.
pub async fn run_watcher_server_with_auth(
    mut config: SiteConfig,
    actions: Arc<dyn ActionHandler>,
    requests: &impl RequestMgr,
    auth: Arc<dyn ClientAuth>,
    kill: &Kill,
    signals: Signals,
) -> Result<(), SiteError> {
    config.client_auth = Some(auth);
    watch(config, Lanes::none(), actions, requests, kill, signals).await
}

/// Watches whoever leads an ensemble: before each turn its members are asked, on the election port
/// in `lanes`. gometa's `RunWatcherServerWithElection`.
///
/// # Errors
///
/// As [`run_watcher_server`].
pub async fn run_watcher_server_with_election(
    config: SiteConfig,
    lanes: Lanes,
    actions: Arc<dyn ActionHandler>,
    requests: &impl RequestMgr,
    kill: &Kill,
    signals: Signals,
) -> Result<(), SiteError> {
    watch(config, lanes, actions, requests, kill, signals).await
}

async fn watch(
    config: SiteConfig,
    lanes: Lanes,
    actions: Arc<dyn ActionHandler>,
    requests: &impl RequestMgr,
    kill: &Kill,
    mut signals: Signals,
) -> Result<(), SiteError> {
    let mut site = ElectionSite::create(config, lanes, actions).await?;
    while site.start_election(kill).await?.is_some() {
        let no_custom = None::<&NoCustomRequests>;
        match run(&mut site, Role::Observing, requests, no_custom, kill, &mut signals).await {
            Ok(Ended::Killed) => break,
            Err(ServerError::Site(error)) => {
                site.close().await;
                return Err(error);
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Runs the node's loop while it has `role`.
async fn run(
    site: &mut ElectionSite,
    role: Role,
    requests: &impl RequestMgr,
    custom: Option<&impl CustomRequestHandler>,
    kill: &Kill,
    signals: &mut Signals,
) -> Result<Ended, ServerError> {
    if site.is_closed() {
        return Err(ServerError::Site(SiteError::Closed));
    }
    if site.soft_state().role != role {
        return Err(ServerError::NotElected("it does not have the role that is to be run"));
    }
    let ended = run_role(site, requests, custom, kill, signals).await;
    // Whatever is not answered by now never will be with certainty.
    site.answer(requests);
    requests.cleanup_on_error();
    if matches!(ended, Ok(Ended::Killed | Ended::NoMoreRequests)) {
        site.close().await;
    }
    ended
}

async fn run_role(
    site: &mut ElectionSite,
    requests: &impl RequestMgr,
    custom: Option<&impl CustomRequestHandler>,
    kill: &Kill,
    signals: &mut Signals,
) -> Result<Ended, ServerError> {
    let role = site.soft_state().role;
    let is_watcher = role == Role::Observing;
    let role_changes = site.role_changes();
    let (mut has_served, mut has_requests, mut has_responses) = (false, true, custom.is_some());
    loop {
        if site.role_changes() != role_changes || site.soft_state().role != role {
            let why = site.left();
            return match has_served {
                true => Ok(Ended::Left(why)),
                false => Err(ServerError::NotServing(why)),
            };
        }
        let is_serving = site.soft_state().is_serving;
        has_served |= is_serving;
        if is_serving && let Some(ready) = signals.ready.take() {
            let _ = ready.send(());
        }
        tokio::select! {
            turned = site.turn() => {
                if let Some(request) = turned? {
                    site.propose(request, requests)?;
                }
            }
            request = requests.next_request(), if is_serving && has_requests => match request {
                Some(request) => site.propose(request, requests)?,
                // A watcher goes on watching.
                None if is_watcher => has_requests = false,
                None => return Ok(Ended::NoMoreRequests),
            },
            response = next_response(custom), if has_responses => match response {
                Some(response) => site.respond(response)?,
                None => has_responses = false,
            },
            asked = next_ping(&mut signals.ping), if is_serving => match asked {
                Some(()) => {
                    if let Some(alive) = &signals.alive {
                        let _ = alive.try_send(());
                    }
                }
                None => signals.ping = None,
            },
            () = kill.killed() => return Ok(Ended::Killed),
        }
        match custom {
            Some(custom) => hand_over(site, custom)?,
            None => site.refuse_custom(),
        }
        site.answer(requests);
    }
}

/// Gives the application the requests outside the log that have come.
fn hand_over(site: &mut ElectionSite, custom: &impl CustomRequestHandler) -> Result<(), SiteError> {
    for asked in site.take_custom() {
        let (origin, request) = (asked.origin.clone(), asked.request.id);
        if let Err(busy) = custom.on_new_request(asked.origin, asked.request) {
            site.respond(CustomResponse {
                origin,
                request,
                error: busy.to_string(),
                content: None,
            })?;
        }
    }
    Ok(())
}

async fn next_response(custom: Option<&impl CustomRequestHandler>) -> Option<CustomResponse> {
    match custom {
        Some(custom) => custom.next_response().await,
        None => None,
    }
}

async fn next_ping(ping: &mut Option<mpsc::Receiver<()>>) -> Option<()> {
    match ping {
        Some(ping) => ping.recv().await,
        None => std::future::pending().await,
    }
}
