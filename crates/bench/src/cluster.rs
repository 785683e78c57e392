//! A cluster of child processes on loopback, with fresh folders and ports. It ends with its value:
//! however a run ends (done, failed, panicked, interrupted), no server outlives it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use quorate_proto::tonic::transport::Endpoint;
use tempfile::TempDir;

use crate::usage::Usage;

/// Outgoing connections take ports from here on; a server there may find its port taken.
const PORT_END: u16 = 32768;
const START_LIMIT: Duration = Duration::from_secs(30);
/// A server that was killed may have much to read before it answers.
const REVIVE_LIMIT: Duration = Duration::from_secs(180);
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// So much of the log of a server that failed is shown.
const LOG_TAIL_BYTES: usize = 2000;

/// A server program that takes etcd's flags.
#[derive(Clone, Debug)]
pub struct Program {
    /// As it is called in tables.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Arguments before the flags.
    pub words: &'static [&'static str],
}

/// Loopback ports that nobody listens at, each given out once.
#[derive(Debug)]
pub struct Ports {
    next: u16,
}

impl Ports {
    /// Ports from here on.
    pub fn from(first: u16) -> Ports {
        Ports { next: first }
    }

    fn take(&mut self) -> Result<u16, ClusterError> {
        while self.next < PORT_END {
            let port = self.next;
            self.next += 1;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(ClusterError::NoPort)
    }
}

/// Why there is no cluster, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Every port is taken.
    #[error("no free port below {PORT_END}; begin lower")]
    NoPort,
    /// A folder or process could not be made.
    #[error("cannot start {program}: {reason}")]
    Start {
        /// Its path.
        program: String,
        /// What the system said.
        reason: io::Error,
    },
    /// A server ended by itself.
    #[error("a server of {program} ended by itself; its last words:\n{log}")]
    Ended {
        /// Its name.
        program: &'static str,
        /// The end of its log.
        log: String,
    },
    /// The servers run and yet do not answer.
    #[error("{program} does not answer in time: {reason}; its last words:\n{log}")]
    Silent {
        /// Its name.
        program: &'static str,
        /// What the last attempt met.
        reason: String,
        /// The end of the first server's log.
        log: String,
    },
    /// What a server used could not be read.
    #[error("cannot read what a server of {program} uses: {reason}")]
    Usage {
        /// Its name.
        program: &'static str,
        /// What the system said.
        reason: io::Error,
    },
}

/// A running cluster. Dropping it kills its servers and removes their folders.
#[derive(Debug)]
pub struct Cluster {
    // In this order: the servers end before their folder goes.
    nodes: Vec<Node>,
    name: &'static str,
    folder: TempDir,
}

impl Cluster {
    /// Starts so many servers in a fresh folder inside `parent` and waits until each knows a leader
    /// and the cluster takes a write.
    ///
    /// # Errors
    ///
    /// A server that cannot be started, ends, or does not answer within half a minute.
    pub async fn start(
        program: &Program,
        node_count: usize,
        ports: &mut Ports,
        parent: &Path,
    ) -> Result<Cluster, ClusterError> {
        let failed =
            |reason| ClusterError::Start { program: program.path.display().to_string(), reason };
        let folder = TempDir::with_prefix_in("quorate-compare-", parent).map_err(failed)?;
        let mut places = Vec::new();
        for number in 0..node_count {
            let [client, peer] = [ports.take()?, ports.take()?]
                .map(|port| format!("http://{}:{port}", Ipv4Addr::LOCALHOST));
            places.push((format!("n{number}"), client, peer));
        }
        let members: Vec<String> =
            places.iter().map(|(name, _, peer)| format!("{name}={peer}")).collect();
        let mut cluster = Cluster { nodes: Vec::new(), name: program.name, folder };
        for (name, client, peer) in &places {
            let log = cluster.folder.path().join(format!("{name}.log"));
            let data = cluster.data_folder(name);
            let mut command = Command::new(&program.path);
            command.args(program.words).args(["--name", name]).arg("--data-dir").arg(data);
            for (flag, value) in [
                ("--listen-client-urls", client),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", &members.join(",")),
                ("--initial-cluster-state", &"new".to_owned()),
            ] {
                command.args([flag, value]);
            }
            // Settings of whoever runs this must not reach one of the two programs only.
            for (variable, _) in std::env::vars_os() {
                let text = variable.to_string_lossy();
                if text.starts_with("ETCD_") || text.starts_with("QUORATE_") {
                    command.env_remove(&variable);
                }
            }
            let output = File::create(&log).map_err(failed)?;
            command.stdin(Stdio::null());
            command.stdout(output.try_clone().map_err(failed)?).stderr(output);
            let child = command.spawn().map_err(failed)?;
            let endpoint = Endpoint::from_shared(client.clone()).expect("made of a port");
            let endpoint = endpoint.connect_timeout(CALL_LIMIT).timeout(CALL_LIMIT);
            cluster.nodes.push(Node { child, command, endpoint, log });
        }
        cluster.answers().await?;
        Ok(cluster)
    }

    /// Where clients find the servers.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        // Without the limit that only a start has.
        let fresh = |node: &Node| Endpoint::from(node.endpoint.uri().clone());
        self.nodes.iter().map(fresh).collect()
    }

    /// What all servers together have used.
    ///
    /// # Errors
    ///
    /// A server that has ended.
    pub fn usage(&mut self) -> Result<Usage, ClusterError> {
        self.running()?;
        let usages = self.nodes.iter().map(|node| Usage::of(node.child.id()));
        let usages: io::Result<Vec<Usage>> = usages.collect();
        let usages = usages.map_err(|reason| ClusterError::Usage { program: self.name, reason })?;
        Ok(usages.into_iter().sum())
    }

    /// Process and data folder of each server.
    ///
    /// # Errors
    ///
    /// A server that has ended.
    pub fn servers(&mut self) -> Result<Vec<(u32, PathBuf)>, ClusterError> {
        self.running()?;
        let folder = |number| self.data_folder(&format!("n{number}"));
        let nodes = self.nodes.iter().enumerate();
        Ok(nodes.map(|(number, node)| (node.child.id(), folder(number))).collect())
    }

    /// Kills a server, starts it again after `pause`, and waits until it answers.
    ///
    /// # Errors
    ///
    /// It cannot be started, ends, or does not answer within half a minute.
    pub async fn restart(&mut self, number: usize, pause: Duration) -> Result<(), ClusterError> {
        self.kill(number);
        tokio::time::sleep(pause).await;
        self.spawn(number)?;
        self.answers().await
    }

    /// Ends a server at once, as a lost machine would.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].end();
    }

    /// Starts a server that was killed, and says how long it took until a linearizable read was
    /// answered.
    ///
    /// # Errors
    ///
    /// It cannot be started, ends, or does not answer within three minutes.
    pub async fn revive(&mut self, number: usize) -> Result<Duration, ClusterError> {
        let begun = Instant::now();
        self.spawn(number)?;
        loop {
            let node = &self.nodes[number];
            let Err(reason) = node.reads().await else { return Ok(begun.elapsed()) };
            self.running()?;
            if REVIVE_LIMIT < begun.elapsed() {
                let log = tail(&self.nodes[number].log);
                return Err(ClusterError::Silent { program: self.name, reason, log });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all servers answer, and each knows a leader.
    ///
    /// # Errors
    ///
    /// As of [`Cluster::start`].
    pub async fn settled(&mut self) -> Result<(), ClusterError> {
        self.answers().await
    }

    /// The server that leads, by its own word.
    ///
    /// # Errors
    ///
    /// Nobody leads for half a minute.
    pub async fn leader(&mut self) -> Result<usize, ClusterError> {
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            for (number, node) in self.nodes.iter().enumerate() {
                if node.leads().await == Ok(true) {
                    return Ok(number);
                }
            }
            self.running()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let reason = "nobody leads".to_owned();
        Err(ClusterError::Silent { program: self.name, reason, log: tail(&self.nodes[0].log) })
    }

    fn spawn(&mut self, number: usize) -> Result<(), ClusterError> {
        let node = &mut self.nodes[number];
        node.child = node.command.spawn().map_err(|reason| ClusterError::Start {
            program: node.command.get_program().to_string_lossy().into_owned(),
            reason,
        })?;
        Ok(())
    }

    fn data_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn running(&mut self) -> Result<(), ClusterError> {
        for node in &mut self.nodes {
            // A process that cannot be asked about is as good as ended.
            if !matches!(node.child.try_wait(), Ok(None)) {
                return Err(ClusterError::Ended { program: self.name, log: tail(&node.log) });
            }
        }
        Ok(())
    }

    async fn answers(&mut self) -> Result<(), ClusterError> {
        let begun = Instant::now();
        let mut ready = 0;
        while let Some(node) = self.nodes.get(ready) {
            let Err(reason) = node.answers().await else {
                ready += 1;
                continue;
            };
            self.running()?;
            if START_LIMIT < begun.elapsed() {
                let log = tail(&self.nodes[ready].log);
                return Err(ClusterError::Silent { program: self.name, reason, log });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Node {
    child: Child,
    /// How it was started.
    command: Command,
    endpoint: Endpoint,
    log: PathBuf,
}

impl Node {
    /// Whether it knows a leader and takes a write.
    async fn answers(&self) -> Result<(), String> {
        let channel = self.endpoint.connect().await.map_err(|error| error.to_string())?;
        let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await;
        if status.map_err(|status| status.to_string())?.into_inner().leader == 0 {
            return Err("there is no leader".to_owned());
        }
        let put = PutRequest { key: "ready".into(), ..PutRequest::default() };
        KvClient::new(channel).put(put).await.map_err(|status| status.to_string())?;
        Ok(())
    }

    /// Whether it answers a linearizable read.
    async fn reads(&self) -> Result<(), String> {
        let channel = self.endpoint.connect().await.map_err(|error| error.to_string())?;
        let range = RangeRequest { key: "ready".into(), ..RangeRequest::default() };
        KvClient::new(channel).range(range).await.map_err(|status| status.to_string())?;
        Ok(())
    }

    /// Whether it says that it leads.
    async fn leads(&self) -> Result<bool, String> {
        let channel = self.endpoint.connect().await.map_err(|error| error.to_string())?;
        let status = MaintenanceClient::new(channel).status(StatusRequest {}).await;
        let status = status.map_err(|status| status.to_string())?.into_inner();
        Ok(status.header.is_some_and(|header| header.member_id == status.leader))
    }
}

impl Node {
    fn end(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The folder goes next, so there is nothing to flush.
        self.end();
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_given_out_once() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut ports = Ports::from(20_000);
        let [first, second] = [ports.take().unwrap(), ports.take().unwrap()];
        assert!(first < second && second < PORT_END);
        assert_ne!(Some(first), taken.local_addr().ok().map(|address| address.port()));
        assert!(matches!(Ports::from(PORT_END).take(), Err(ClusterError::NoPort)));
    }

    #[tokio::test]
    async fn a_program_that_ends_or_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let start = async |path: &str| {
            let program = Program { name: "it", path: path.into(), words: &[] };
            let mut ports = Ports::from(20_100);
            Cluster::start(&program, 3, &mut ports, folder.path()).await.unwrap_err().to_string()
        };
        let ended = start("/bin/false").await;
        assert!(ended.starts_with("a server of it ended by itself"), "{ended}");
        let absent = start("/nowhere/program").await;
        assert!(absent.starts_with("cannot start /nowhere/program: "), "{absent}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "folders go with their cluster");
    }

    #[test]
    fn servers_end_with_their_value() {
        let mut command = Command::new("sleep");
        let child = command.arg("1000").spawn().unwrap();
        let pid = child.id();
        let endpoint = Endpoint::from_static("http://127.0.0.1:1");
        let node = Node { child, command, endpoint, log: PathBuf::new() };
        let run = std::thread::spawn(move || {
            let _node = node;
            panic!("in the middle of a run");
        });
        assert!(run.join().is_err());
        assert!(Usage::of(pid).is_err(), "the process is gone");
    }
}
