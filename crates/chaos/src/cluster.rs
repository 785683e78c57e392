//! The processes of one cluster: started, killed, stopped, gone on, and started again when they end.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::StatusRequest;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::tonic::transport::{Channel, Endpoint};
use rustix::process::{Pid, Signal, kill_process};

use crate::changes::Change;
use crate::disk::Volume;
use crate::plan::Engine;
use crate::proxy::{self, Lines};
use crate::syncs::{Library, Syncs, VARIABLE};

/// What a client waits for an answer: longer than a change of leader takes.
const CALL_LIMIT: Duration = Duration::from_millis(1500);
/// What a patient one waits: longer than a server does before it says what it knows.
const PATIENT_CALL_LIMIT: Duration = Duration::from_secs(12);
/// Heartbeats and elections quick enough that a round sees many of them.
const HEARTBEAT_MS: &str = "50";
const ELECTION_MS: &str = "500";
/// How long a member that ended by itself stays down.
const RESTART_PAUSE: Duration = Duration::from_millis(300);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No port is free.
    #[error("no free port from {PORT_FIRST} to {PORT_LAST}")]
    NoPort,
    /// A file, a folder or a process could not be made.
    #[error("cannot {doing} {what}: {reason}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        what: String,
        /// What the system said.
        reason: io::Error,
    },
}

pub(crate) fn failed(
    doing: &'static str,
    what: &Path,
) -> impl FnOnce(io::Error) -> ClusterError + use<> {
    let what = what.display().to_string();
    move |reason| ClusterError::Io { doing, what, reason }
}

/// One member and its process.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) channel: Channel,
    pub(crate) patient_channel: Channel,
    /// For whoever looks after it: no fault of the clients' lines is on it.
    pub(crate) control: Channel,
    /// Where it listens for peers itself, behind its proxy.
    peer_port: u16,
    client_port: u16,
    process: Option<Child>,
    /// How often it was started.
    pub(crate) life: u64,
    /// Faults that keep it down, and that keep it stopped.
    pub(crate) down: usize,
    pub(crate) paused: usize,
    ended_at: Option<Instant>,
    pub(crate) volume: Option<Volume>,
    /// Faults that keep its volume full, and its syncs bad.
    pub(crate) full: usize,
    pub(crate) unsynced: usize,
    pub(crate) syncs: Option<Syncs>,
    /// Whether its disk gave it a reason to end in this life.
    pub(crate) is_excused: bool,
    /// Set while it is being replaced, which is a reason to end as well: until it serves again.
    pub(crate) change: Option<Change>,
    /// The members that it joined, if it was not there from the beginning.
    pub(crate) joins: Option<String>,
}

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) lines: Lines,
    /// Between clients and members, if they can be cut.
    pub(crate) client_lines: Option<Lines>,
    /// The member that was asked last who the members are.
    pub(crate) asked: usize,
    run: Run,
    folder: PathBuf,
    peers: Vec<SocketAddr>,
    library: Option<Library>,
}

/// What every member runs, and how.
pub(crate) struct Run {
    pub(crate) program: PathBuf,
    pub(crate) engine: Engine,
    /// Entries between two snapshots.
    pub(crate) snapshot_count: u64,
}

/// A member that ended though nobody had killed it.
pub(crate) struct Ended {
    pub(crate) member: usize,
    pub(crate) status: String,
    pub(crate) is_excused: bool,
}

impl Cluster {
    /// Chooses ports and opens the lines; starts nothing.
    pub(crate) async fn prepare(
        run: Run,
        folder: &Path,
        count: usize,
        library: Option<Library>,
        cuts_clients: bool,
    ) -> Result<Cluster, ClusterError> {
        let (mut members, mut peers, mut doors) = (Vec::new(), Vec::new(), Vec::new());
        let mut client_doors = Vec::new();
        for at in 0..count {
            let (client_port, peer_port) = (free_port()?, free_port()?);
            let door = proxy::listener().await.map_err(failed("open", Path::new("a proxy")))?;
            peers.push(door.local_addr().map_err(failed("open", Path::new("a proxy")))?);
            doors.push((door, SocketAddr::from((Ipv4Addr::LOCALHOST, peer_port))));
            let name = format!("n{}", at + 1);
            let syncs = Syncs { order: folder.join(format!("{name}.syncs")) };
            let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, client_port));
            let mut front = behind;
            if cuts_clients {
                let door = proxy::listener().await.map_err(failed("open", Path::new("a proxy")))?;
                front = door.local_addr().map_err(failed("open", Path::new("a proxy")))?;
                client_doors.push((door, behind));
            }
            let endpoint = |to: SocketAddr| {
                let endpoint = Endpoint::from_shared(format!("http://{to}"));
                let endpoint = endpoint.expect("made of a port");
                endpoint.connect_timeout(Duration::from_millis(500))
            };
            let control = endpoint(behind).timeout(CALL_LIMIT).connect_lazy();
            let endpoint = endpoint(front);
            members.push(Member {
                name,
                channel: endpoint.clone().timeout(CALL_LIMIT).connect_lazy(),
                patient_channel: endpoint.timeout(PATIENT_CALL_LIMIT).connect_lazy(),
                control,
                peer_port,
                client_port,
                process: None,
                life: 0,
                down: 0,
                paused: 0,
                ended_at: None,
                volume: None,
                full: 0,
                unsynced: 0,
                syncs: library.is_some().then_some(syncs),
                is_excused: false,
                change: None,
                joins: None,
            });
        }
        let folder = folder.to_owned();
        let lines = Lines::open(doors);
        let client_lines = cuts_clients.then(|| Lines::for_clients(client_doors));
        Ok(Cluster { members, lines, client_lines, asked: 0, run, folder, peers, library })
    }

    /// Where others reach a member.
    pub(crate) fn peer_url(&self, at: usize) -> String {
        format!("http://{}", self.peers[at])
    }

    pub(crate) fn data_folder(&self, at: usize) -> PathBuf {
        self.folder.join(&self.members[at].name)
    }

    pub(crate) fn log(&self, at: usize) -> PathBuf {
        self.folder.join(format!("{}.log", self.members[at].name))
    }

    /// Starts a member that does not run.
    pub(crate) fn start(&mut self, at: usize) -> Result<(), ClusterError> {
        let log = self.log(at);
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(failed("open", &log))?;
        let errors = output.try_clone().map_err(failed("open", &log))?;
        let mut command = self.command(at);
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let member = &mut self.members[at];
        // Before it can answer: whoever asked in its former life must not take it for that one.
        member.life += 1;
        member.is_excused = 0 < member.full || 0 < member.unsynced;
        let process = command.spawn().map_err(failed("start", &self.run.program))?;
        self.lines.set_process(at, process.id());
        member.process = Some(process);
        member.ended_at = None;
        Ok(())
    }

    fn command(&self, at: usize) -> Command {
        let member = &self.members[at];
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let founders: Vec<String> = (self.members.iter().enumerate())
            .map(|(at, member)| format!("{}={}", member.name, self.peer_url(at)))
            .collect();
        let (state, everybody) = match &member.joins {
            Some(members) => ("existing", members.clone()),
            None => ("new", founders.join(",")),
        };
        let mut command = Command::new(&self.run.program);
        // A setting of whoever runs this would reach all members and make a seed another one.
        for (name, _) in std::env::vars_os() {
            if ["ETCD", "QUORATE"].iter().any(|it| name.to_string_lossy().starts_with(it)) {
                command.env_remove(name);
            }
        }
        if let (Some(library), Some(syncs)) = (&self.library, &member.syncs) {
            command.env("LD_PRELOAD", &library.path).env(VARIABLE, &syncs.order);
        }
        // With a pipe as its input it ends when this process does, however that ends.
        command.args(["serve", "--exit-with-parent", "--name", &member.name]);
        command.arg("--data-dir").arg(self.data_folder(at));
        for (flag, value) in [
            ("--listen-client-urls", url(member.client_port)),
            ("--advertise-client-urls", url(member.client_port)),
            ("--listen-peer-urls", url(member.peer_port)),
            // Peers reach it through its proxy only.
            ("--initial-advertise-peer-urls", self.peer_url(at)),
            ("--initial-cluster", everybody),
            ("--initial-cluster-state", state.to_owned()),
            ("--engine", self.run.engine.name().to_owned()),
            ("--heartbeat-interval", HEARTBEAT_MS.to_owned()),
            ("--election-timeout", ELECTION_MS.to_owned()),
            ("--snapshot-count", self.run.snapshot_count.to_string()),
        ] {
            command.arg(flag).arg(value);
        }
        command
    }

    /// `kill -9`; whether it ran.
    pub(crate) fn kill(&mut self, at: usize) -> bool {
        let Some(mut process) = self.members[at].process.take() else { return false };
        let was_running = matches!(process.try_wait(), Ok(None));
        // An error means that it has ended.
        let _ = process.kill();
        let _ = process.wait();
        was_running
    }

    /// Stops a member where it stands, or lets it go on; whether it runs.
    pub(crate) fn signal(&self, at: usize, signal: Signal) -> bool {
        let process = self.members[at].process.as_ref();
        let id = process.and_then(|process| Pid::from_raw(i32::try_from(process.id()).ok()?));
        id.is_some_and(|id| kill_process(id, signal).is_ok())
    }

    /// Starts again what is not kept down, and tells who ended by itself.
    pub(crate) fn tend(&mut self) -> Result<Vec<Ended>, ClusterError> {
        let mut ended = Vec::new();
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if let Some(process) = &mut member.process
                && let Ok(Some(status)) = process.try_wait()
            {
                member.process = None;
                member.ended_at = Some(Instant::now());
                let is_excused = member.is_excused || member.change.is_some();
                ended.push(Ended { member: at, status: status.to_string(), is_excused });
            }
            let has_rested = member.ended_at.is_none_or(|it| RESTART_PAUSE < it.elapsed());
            let is_out = member.change == Some(Change::Out);
            if member.process.is_none() && member.down == 0 && has_rested && !is_out {
                self.start(at)?;
            }
        }
        Ok(ended)
    }

    /// The member that says of itself that it leads, in the highest term.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let asked = self.members.iter().map(|member| {
            let mut client = MaintenanceClient::new(member.control.clone());
            tokio::spawn(async move {
                let status = client.status(StatusRequest::default());
                let status = tokio::time::timeout(Duration::from_millis(300), status).await;
                let status = status.ok()?.ok()?.into_inner();
                let id = status.header?.member_id;
                (status.leader == id).then_some(status.raft_term)
            })
        });
        let mut leader = None;
        for (at, term) in asked.collect::<Vec<_>>().into_iter().enumerate() {
            leader = leader.max(term.await.ok().flatten().map(|term| (term, at)));
        }
        leader.map(|(_, at)| at)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}

const PORT_FIRST: u16 = 10_000;
const PORT_LAST: u16 = 13_999;

/// A port that is free now and that nobody in this process was given, below those from which outgoing
/// connections are made: a member comes back to it after it was killed.
fn free_port() -> Result<u16, ClusterError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORT_LAST - PORT_FIRST + 1;
    let base = (std::process::id() % 40) as u16 * 100;
    let mut ports = (0..span)
        .map(|_| PORT_FIRST + (base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % span);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).ok_or(ClusterError::NoPort)
}
