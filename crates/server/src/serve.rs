//! One server, in the order in which its parts may start and must stop.
//!
//! ```text
//! start   every listener is bound       a port in use is an error before any data is touched
//!         identity, data directory      a directory mixed up is an error before anything runs
//!         the node                      from here on it takes part in the cluster
//!         publish name and client URLs  needs a leader: tried until it works
//!         client listeners accept       `ready to serve client requests`
//! stop    the node                      leadership handed over; calls end with `server stopped`
//!         client connections            closed after what was answered is sent
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_kv::{Command, Member};
use quorate_runtime::{Node, NodeConfig, StartError};
use quorate_types::Life;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::accept::{Accepting, Seats};
use crate::calls::Calls;
use crate::config::Config;
use crate::figures::Figures;
use crate::front::Front;
use crate::grpc::message_bytes_max;
use crate::http::Plain;
use crate::identity::{self, Identity, IdentityError};
use crate::joining::{self, JoinError, Joined};
use crate::local::Local;
use crate::open_files::Shares;
use crate::protocol::{Answers, Protocol};
use crate::urls::{Url, UrlError};
use crate::version::{ETCD_VERSION, QUORATE_VERSION};
use crate::{http, peer_port};

/// Wait between two attempts to publish.
const PUBLISH_RETRY: Duration = Duration::from_millis(500);
/// Wait before a member that differs from the others compares once more.
const DIFFERS_RETRY: Duration = Duration::from_secs(60);
/// Time that connections get to end by themselves when the server stops.
const LINGER: Duration = Duration::from_secs(2);
/// Connections at one time to all listeners for metrics together.
const METRICS_CONNECTIONS_MAX: usize = 64;
/// Questions at the peer port that wait to be heard. More are refused.
const QUESTIONS_MAX: usize = 16;

/// A running server.
#[derive(Debug)]
pub struct Server {
    node: NodeHandle,
    identity: Identity,
    client_addresses: Vec<SocketAddr>,
    metrics_addresses: Vec<SocketAddr>,
    ready: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Why a server did not start. Nothing listens or runs after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A listener's address is taken.
    #[error(
        "--{flag}: {address} is in use by another process; stop that one, or set --{flag} to \
         another port"
    )]
    PortInUse {
        /// The setting that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A listener cannot be opened.
    #[error("--{flag}: cannot listen on {address}: {error}{}", hint(error))]
    Listen {
        /// The setting that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A listener's URL names no address.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The data directory belongs to someone else.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no cluster to join, or it does not know this member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The node.
    #[error(transparent)]
    Node(#[from] StartError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

impl Server {
    /// Starts a server. Clients are served once a leader is known: see [`Server::ready`].
    ///
    /// # Errors
    ///
    /// See [`ServeError`].
    pub async fn start(config: &Config) -> Result<Server, ServeError> {
        let clients = bind("listen-client-urls", &config.listen_client_urls)?;
        let metrics = bind("listen-metrics-urls", &config.listen_metrics_urls)?;
        let peers = bind("listen-peer-urls", &config.listen_peer_urls)?;

        let directory = config.data_dir.clone();
        let found = tokio::task::spawn_blocking(move || quorate_runtime::inspect(&directory))
            .await
            .map_err(|error| StartError::Net(error.to_string()))??;
        let found = found.map(|identity| (identity.node, identity.cluster));
        let (identity, joined) = match identity::settle(config, found)? {
            Some(identity) => (identity, None),
            None => {
                let Joined { node, cluster, members } = joining::join(config).await?;
                (Identity { node, cluster, members: Vec::new() }, Some(members))
            }
        };
        tracing::info!(
            name = config.name,
            member = format!("{:x}", identity.node),
            cluster = format!("{:x}", identity.cluster),
            data_dir = %config.data_dir.display(),
            fresh = found.is_none(),
            joins = joined.is_some(),
            version = QUORATE_VERSION,
            etcd_version = ETCD_VERSION,
            "starting"
        );
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }

        let shares = Shares::now(config.client_connections_max);
        let (peer_http, questions) = mpsc::channel(QUESTIONS_MAX);
        let mut node_config = node_config(config, &identity, peers, shares);
        node_config.peer_http = Some(peer_http);
        if let Some(members) = joined {
            node_config.joins = true;
            node_config.members = members;
        }
        let node = Node::start(node_config).await?;
        let (stop, stopping) = watch::channel(false);
        let local = Local::new(node.clone(), config, stopping.clone());
        let client_addresses = clients.iter().map(|(_, _, address)| *address).collect();
        let (ready_sender, ready) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (local, mut stopping) = (local.clone(), stopping.clone());
            let progress_every = config.watch_progress_interval;
            let compaction = config.auto_compaction;
            let compare_every = config.corrupt_check_interval;
            async move {
                let watching = local.watching().clone();
                tokio::select! {
                    () = local.keep_watch() => {}
                    () = local.keep_leases() => {}
                    () = local.keep_autopilot() => {}
                    () = local.keep_compact(compaction) => {}
                    () = local.keep_comparing(compare_every) => {}
                    () = watching.run(|| local.applied(), progress_every) => {}
                    _ = stopping.wait_for(|stop| *stop) => {}
                }
            }
        });
        tasks.spawn(peer_port::serve(questions, local.clone(), stopping.clone()));
        let calls = Arc::new(Calls::new(message_bytes_max(config.request_bytes_max)));
        let figures = Arc::new(Figures::new(local.clone(), Arc::clone(&calls)));
        let plain = Plain { local, figures };
        let metrics_addresses = metrics.iter().map(|(_, _, address)| *address).collect();
        let seats = Seats::new(METRICS_CONNECTIONS_MAX);
        let mut observed = JoinSet::new();
        for listener in metrics {
            let routes = Routes::from(http::observing(plain.clone()));
            serve_on(&mut observed, config, listener, &seats, routes, &stopping);
        }
        let seats = Seats::new(shares.clients);
        tasks.spawn(async move { while observed.join_next().await.is_some() {} });
        let clients = Clients { listeners: clients, seats, calls, plain };
        tasks.spawn(serve_clients(config.clone(), clients, ready_sender, stopping));
        Ok(Server {
            node: NodeHandle(node),
            identity,
            client_addresses,
            metrics_addresses,
            ready,
            stop,
            tasks,
        })
    }

    /// Waits until clients are served. Never returns if the server is stopped before.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the node has broken, and says why: the process should end with an error.
    pub async fn broken(&self) -> String {
        self.node.0.stopped().await
    }

    /// Where clients connect, in the order of the URLs; real ports where a URL asked for any.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Where those connect who only watch this member, as [`Server::client_addresses`]. They are served
    /// from the start.
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.metrics_addresses
    }

    /// Who this member is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Stops the server in order. What was answered stays answered.
    pub async fn shutdown(mut self) {
        tracing::info!("stopping");
        self.node.0.shutdown().await;
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LINGER, ended).await.is_err() {
            tracing::info!("closing the connections that are still open");
            self.tasks.shutdown().await;
        }
        tracing::info!("stopped");
    }
}

/// `Node` has nothing to show.
struct NodeHandle(Node);

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

fn node_config(
    config: &Config,
    identity: &Identity,
    peers: Vec<(Url, TcpListener, SocketAddr)>,
    shares: Shares,
) -> NodeConfig {
    let text = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect();
    let members = identity
        .members
        .iter()
        .map(|member| Member {
            id: member.id.0,
            // Names come with the members' own word that they have started.
            name: String::new(),
            peer_urls: text(&member.peer_urls),
            client_urls: Vec::new(),
            is_learner: false,
            life: Life::NONE,
            ..Member::default()
        })
        .collect();
    NodeConfig {
        members,
        peer_listeners: peers.into_iter().map(|(_, listener, _)| listener).collect(),
        engine: config.engine,
        force_new_cluster: config.force_new_cluster,
        heartbeat_ms: config.heartbeat_ms,
        election_ms: config.election_ms,
        snapshot_count: config.snapshot_count,
        request_bytes_max: config.request_bytes_max,
        peer_connections_max: shares.peers,
        peer_strangers_max: shares.strangers,
        ..NodeConfig::new(identity.node, identity.cluster, config.data_dir.clone())
    }
}

/// Binds every URL, or none.
fn bind(
    flag: &'static str,
    urls: &[Url],
) -> Result<Vec<(Url, TcpListener, SocketAddr)>, ServeError> {
    urls.iter()
        .map(|url| {
            let address = url.bind_address()?;
            let failed = |error: io::Error| match error.kind() {
                io::ErrorKind::AddrInUse => ServeError::PortInUse { flag, address },
                _ => ServeError::Listen { flag, address, error },
            };
            let listener = TcpListener::bind(address).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            Ok((url.clone(), listener, address))
        })
        .collect()
}

type Listener = (Url, TcpListener, SocketAddr);

/// What serving clients takes.
struct Clients {
    listeners: Vec<Listener>,
    seats: Seats,
    calls: Arc<Calls>,
    plain: Plain,
}

/// Publishes this member, then serves until the server stops.
async fn serve_clients(
    config: Config,
    clients: Clients,
    ready: watch::Sender<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    let Clients { listeners, seats, calls, plain } = clients;
    tokio::select! {
        () = publish(&config, &plain.local) => {}
        _ = stopping.wait_for(|stop| *stop) => return,
    }
    if config.initial_corrupt_check {
        tokio::select! {
            () = compare_first(&plain.local) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
    let front = Front::new(plain, calls, config.request_bytes_max);
    let mut serving = JoinSet::new();
    for listener in listeners {
        let address = listener.2;
        if serve_on(&mut serving, &config, listener, &seats, front.clone(), &stopping) {
            tracing::info!(%address, "ready to serve client requests");
        }
    }
    let _ = ready.send(true);
    while serving.join_next().await.is_some() {}
}

/// Begins to serve one listener until the server stops; whether it could.
fn serve_on<S, B>(
    serving: &mut JoinSet<()>,
    config: &Config,
    (url, listener, _): Listener,
    seats: &Seats,
    service: S,
    stopping: &watch::Receiver<bool>,
) -> bool
where
    S: Answers<B>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
{
    let listener =
        listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    match listener {
        Ok(listener) => {
            let accepting = Accepting::new(listener, seats.clone());
            let protocol = Protocol::new(config.keepalive_interval, config.keepalive_timeout);
            serving.spawn(protocol.speak(accepting, service, stopping.clone()));
            true
        }
        Err(error) => {
            tracing::error!(%url, %error, "cannot serve on this listener");
            false
        }
    }
}

/// Tells the cluster this member's name and where clients reach it, until the cluster knows.
async fn publish(config: &Config, local: &Local) {
    let command = Command::PublishMember {
        id: local.status().node.0,
        name: config.name.clone(),
        client_urls: config
            .advertise_client_urls
            .iter()
            .map(|url| url.as_str().to_owned())
            .collect(),
        life: local.life(),
        version: config.autopilot.member_version.clone(),
        tags: config.autopilot.member_tags.clone(),
    };
    loop {
        let outcome = tokio::select! {
            outcome = local.propose(&command) => outcome.map(drop),
            // It may have come with a snapshot, which answers nobody.
            () = known(local, &command) => Ok(()),
        };
        let Err(status) = outcome else { break };
        tracing::warn!(
            reason = status.message(),
            "not published yet; is a majority of the members running and reachable?"
        );
        tokio::time::sleep(PUBLISH_RETRY).await;
    }
    tracing::info!(name = config.name, "published this member's name and client URLs");
}

/// Waits until this member's state has what a publication says.
async fn known(local: &Local, publication: &Command) {
    let Command::PublishMember { id, name, client_urls, life, version, tags } = publication else {
        return std::future::pending().await;
    };
    let is_known = |member: &Member| {
        member.id == *id
            && member.name == *name
            && member.client_urls == *client_urls
            && member.life == *life
            && member.version == *version
            && member.tags == *tags
    };
    let mut applied = local.applied();
    while !local.store().members().iter().any(is_known) {
        if applied.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    // What this member serves follows from what it knows itself to be, and that comes after the state.
    let noted = local.store().applied().index;
    if applied.wait_for(|applied| noted <= *applied).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Compares this member's data with the others' before any client sees it. What differs raises the
/// alarm, which stops changes; a member that differs itself waits here until that is settled.
async fn compare_first(local: &Local) {
    loop {
        match local.compare().await {
            Ok(differing) => {
                local.raise_corrupt(&differing).await;
                let me = local.status().node.0;
                if !differing.contains(&me) && !differing.contains(&0) {
                    return;
                }
                tracing::error!(
                    "this member's data differ from the others': it serves no clients; replace it, or \
                     restore the cluster from a snapshot"
                );
                tokio::time::sleep(DIFFERS_RETRY).await;
            }
            Err(error) => {
                tracing::warn!(reason = error.message(), "not compared with the other members yet");
                tokio::time::sleep(PUBLISH_RETRY).await;
            }
        }
    }
}
