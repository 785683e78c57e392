//! Three nodes of one cluster in this process, each of which can be cut off from the others.

use std::net::SocketAddr;

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{MoveLeaderRequest, StatusRequest, StatusResponse};
use quorate_server::Server;
use quorate_server::config::Config;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::node::{self, PATIENCE, connect};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Who is cut off from the others, if anybody is.
type Cut = Option<u64>;

/// Three members that run, and the lines between them.
pub(crate) struct Trio {
    servers: [Option<Server>; 3],
    ids: [u64; 3],
    cut: watch::Sender<Cut>,
    _doors: JoinSet<()>,
    _directory: TempDir,
}

impl Trio {
    /// Starts three members, each with flags of its own, and waits until they serve clients.
    pub(crate) async fn start(flags: [&[(&str, &str)]; 3]) -> Trio {
        Trio::prepared(flags, |_, _| ()).await
    }

    /// As [`Trio::start`]; `prepare` sees what each will be started with before.
    pub(crate) async fn prepared(
        flags: [&[(&str, &str)]; 3],
        prepare: impl Fn(usize, &Config),
    ) -> Trio {
        let directory = TempDir::new().unwrap();
        let (cut, watched) = watch::channel(None);
        let mut doors = JoinSet::new();
        let (mut urls, mut behind) = (Vec::new(), Vec::new());
        for port in 1..=NAMES.len() {
            let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = free_address();
            // Nobody listens at the first of two.
            let dead = format!("http://127.0.0.1:{port}");
            urls.push([dead, format!("http://{}", door.local_addr().unwrap())]);
            behind.push(format!("http://{address}"));
            doors.spawn(serve(door, address, watched.clone()));
        }
        let parts: Vec<_> = NAMES
            .iter()
            .zip(&urls)
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        let urls: Vec<_> = urls.iter().map(|urls| urls.join(",")).collect();
        let cluster = parts.join(",");
        let mut servers = Vec::new();
        for at in 0..3 {
            let usual = [
                ("name", NAMES[at]),
                ("listen-peer-urls", &behind[at]),
                ("initial-advertise-peer-urls", &urls[at]),
                ("initial-cluster", &cluster),
                // Who leads is for the tests to say.
                ("autopilot", "false"),
            ];
            let data = directory.path().join(NAMES[at]);
            let config = node::config(&data, &[&usual, flags[at]].concat());
            prepare(at, &config);
            servers.push(Server::start(&config).await.unwrap());
        }
        for server in &servers {
            tokio::time::timeout(PATIENCE, server.ready()).await.unwrap();
        }
        let ids = [0, 1, 2].map(|at| servers[at].identity().node.0);
        let mut servers = servers.into_iter();
        let servers = [0, 1, 2].map(|_| servers.next());
        Trio { servers, ids, cut, _doors: doors, _directory: directory }
    }

    pub(crate) fn id(&self, at: usize) -> u64 {
        self.ids[at]
    }

    pub(crate) fn server(&self, at: usize) -> &Server {
        self.servers[at].as_ref().expect("it runs")
    }

    pub(crate) async fn channel(&self, at: usize) -> Channel {
        connect(self.server(at)).await
    }

    pub(crate) async fn kv(&self, at: usize) -> KvClient<Channel> {
        KvClient::new(self.channel(at).await)
    }

    pub(crate) async fn lease(&self, at: usize) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel(at).await)
    }

    pub(crate) async fn maintenance(&self, at: usize) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel(at).await)
    }

    pub(crate) async fn status(&self, at: usize) -> StatusResponse {
        self.maintenance(at).await.status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Which of these members leads, as it says itself.
    pub(crate) async fn leader(&self, among: &[usize]) -> usize {
        eventually("one of them leads", async || {
            for at in among {
                if self.status(*at).await.leader == self.ids[*at] {
                    return Some(*at);
                }
            }
            None
        })
        .await
    }

    /// Has a member lead, and all know it.
    pub(crate) async fn lead(&self, at: usize) {
        let target_id = self.ids[at];
        eventually("it leads", async || {
            let leader = self.leader(&[0, 1, 2]).await;
            if leader != at {
                let mut maintenance = self.maintenance(leader).await;
                // It may have lost an election meanwhile.
                let _ = maintenance.move_leader(MoveLeaderRequest { target_id }).await;
            }
            for one in 0..3 {
                if self.status(one).await.leader != target_id {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// From now on nothing passes between this member and the others.
    pub(crate) fn cut_off(&self, at: usize) {
        self.cut.send_replace(Some(self.ids[at]));
    }

    /// From now on all reach each other again. What was sent meanwhile is lost.
    pub(crate) fn heal(&self) {
        self.cut.send_replace(None);
    }

    pub(crate) async fn stop(&mut self, at: usize) {
        self.servers[at].take().expect("it runs").shutdown().await;
    }

    pub(crate) async fn shutdown(mut self) {
        for at in 0..3 {
            if let Some(server) = self.servers[at].take() {
                server.shutdown().await;
            }
        }
    }
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Carries connections to a member.
async fn serve(door: TcpListener, behind: SocketAddr, cut: watch::Receiver<Cut>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((near, _)) = door.accept() => {
                let cut = cut.clone();
                connections.spawn(async move {
                    // Either side may end it whenever it likes.
                    let _ = carry(near, behind, cut).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until one of its ends is cut off.
async fn carry(
    mut near: TcpStream,
    behind: SocketAddr,
    mut cut: watch::Receiver<Cut>,
) -> std::io::Result<()> {
    // A magic word and a frame's header, then versions, purpose and cluster, then who speaks to whom.
    const MAGIC: u8 = 0xd1;
    const WHO: usize = 8 + 9 + 16;
    let mut said = vec![near.read_u8().await?];
    let mut ends = None;
    if said[0] == MAGIC {
        said.resize(WHO + 16, 0);
        near.read_exact(&mut said[1..]).await?;
        let id = |at| u64::from_le_bytes(*said[at..].first_chunk().unwrap());
        ends = Some([id(WHO), id(WHO + 8)]);
    }
    // What else the members ask each other does not say who asks.
    let is_cut = |cut: &Cut| cut.is_some_and(|id| ends.is_none_or(|ends| ends.contains(&id)));
    if is_cut(&cut.borrow()) {
        return Ok(());
    }
    let mut far = TcpStream::connect(behind).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    far.write_all(&said).await?;
    tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut near, &mut far) => carried.map(drop),
        _ = cut.wait_for(is_cut) => Ok(()),
    }
}
