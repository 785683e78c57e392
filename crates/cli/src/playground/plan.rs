//! Which nodes there are, where, and with which flags.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use quorate_server::Engine;

const NODES_DEFAULT: u16 = 3;
const NODES_MAX: u16 = 5;
const CLIENT_PORT: u16 = 2379;
const PORT_STEP: u16 = 10_000;
/// What the directory remembers.
const FILE: &str = "playground.toml";

/// A cluster on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) nodes: u16,
    offset: u16,
    engine: Engine,
    dir: PathBuf,
}

/// The directory, kept from other playgrounds for as long as this lives or this process does.
#[derive(Debug)]
pub(super) struct Claim {
    _directory: File,
}

impl Plan {
    /// What was asked for, and what the directory remembers where nothing was.
    pub(super) fn make(
        nodes: Option<u16>,
        offset: Option<u16>,
        engine: Option<Engine>,
        dir: &Path,
    ) -> Result<Plan, String> {
        let saved = saved(dir)?;
        let (saved_nodes, saved_offset) = saved.map(|(nodes, offset, _)| (nodes, offset)).unzip();
        let saved_engine = saved.map(|(_, _, engine)| engine);
        let plan = Plan {
            nodes: agree("--nodes", nodes, saved_nodes, NODES_DEFAULT, dir)?,
            offset: agree("--offset", offset, saved_offset, 0, dir)?,
            engine: agree("--engine", engine, saved_engine, Engine::Raft, dir)?,
            dir: dir.to_owned(),
        };
        if !(1..=NODES_MAX).contains(&plan.nodes) {
            return Err(format!(
                "--nodes is {}; use 1 to {NODES_MAX}: each node's ports are {PORT_STEP} above the \
                 one before, and ports end at 65535",
                plan.nodes
            ));
        }
        let highest = u32::from(CLIENT_PORT + PORT_STEP * (plan.nodes - 1)) + 1;
        if u32::from(u16::MAX) < highest + u32::from(plan.offset) {
            return Err(format!(
                "--offset is {}; with {} nodes use at most {}, since ports end at 65535",
                plan.offset,
                plan.nodes,
                u32::from(u16::MAX) - highest
            ));
        }
        Ok(plan)
    }

    /// Makes sure that nobody else runs this cluster and that its ports are free, and writes down what
    /// the next start has to find. Nothing is written unless all of it can be had.
    pub(super) fn claim(&self) -> Result<Claim, String> {
        // First, since a playground on this directory is also what holds the ports.
        let held = self.lock()?;
        self.check_ports()?;
        let claim = match held {
            Some(claim) => claim,
            None => {
                std::fs::create_dir_all(&self.dir)
                    .map_err(|error| format!("cannot make {}: {error}", self.dir.display()))?;
                self.lock()?.ok_or_else(|| format!("{} has just gone", self.dir.display()))?
            }
        };
        self.save()?;
        Ok(claim)
    }

    /// Locks the directory; nothing when there is none.
    fn lock(&self) -> Result<Option<Claim>, String> {
        let dir = self.dir.display();
        let directory = match File::open(&self.dir) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot open {dir}: {error}")),
        };
        match directory.try_lock() {
            Ok(()) => Ok(Some(Claim { _directory: directory })),
            Err(TryLockError::WouldBlock) => Err(format!(
                "another playground runs on {dir}; stop that one first, or use another --dir and \
                 --offset"
            )),
            Err(TryLockError::Error(error)) => Err(format!("cannot lock {dir}: {error}")),
        }
    }

    /// Whether every port is free. Another process may still be faster.
    fn check_ports(&self) -> Result<(), String> {
        let mut taken = Vec::new();
        for number in 0..self.nodes {
            for (port, whom) in
                [(self.client_port(number), "clients"), (self.peer_port(number), "peers")]
            {
                if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                    let name = self.name(number);
                    taken.push(format!("port {port} ({whom} of {name}): {error}"));
                }
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}; stop what listens there (another playground?), or move all ports with --offset",
            taken.join(", ")
        ))
    }

    /// Writes down what the next start has to find.
    fn save(&self) -> Result<(), String> {
        let path = self.dir.join(FILE);
        let Plan { nodes, offset, engine, .. } = self;
        let text = format!("nodes = {nodes}\noffset = {offset}\nengine = {engine}\n");
        std::fs::write(&path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    pub(super) fn name(&self, number: u16) -> String {
        format!("n{}", number + 1)
    }

    pub(super) fn client_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.client_port(number))
    }

    fn peer_url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.peer_port(number))
    }

    fn client_port(&self, number: u16) -> u16 {
        CLIENT_PORT + PORT_STEP * number + self.offset
    }

    fn peer_port(&self, number: u16) -> u16 {
        self.client_port(number) + 1
    }

    /// The flags of one node.
    pub(super) fn flags(&self, number: u16) -> Vec<String> {
        let name = self.name(number);
        let (client, peer) = (self.client_url(number), self.peer_url(number));
        let cluster: Vec<String> = (0..self.nodes)
            .map(|number| format!("{}={}", self.name(number), self.peer_url(number)))
            .collect();
        let data = self.dir.join(&name).to_string_lossy().into_owned();
        [
            ("name", name),
            ("data-dir", data),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer),
            ("initial-cluster", cluster.join(",")),
            ("initial-cluster-token", "quorate-playground".to_owned()),
            ("engine", self.engine.to_string()),
        ]
        .into_iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect()
    }

    /// What a user wants to know once the cluster is there; `program` is how this one was called.
    pub(super) fn greeting(&self, program: &str) -> String {
        let endpoints: Vec<String> =
            (0..self.nodes).map(|number| self.client_url(number)).collect();
        let endpoints = endpoints.join(",");
        let data = self.dir.display();
        format!(
            "cluster is ready: {} nodes, data in {data}\n\
             endpoints: {endpoints}\n\
             from another terminal, try:\n  \
               {program} put greeting hello --endpoints {endpoints}\n  \
               {program} get greeting --endpoints {endpoints}\n  \
               {program} status --endpoints {endpoints}\n\
             or with any client of etcd:\n  \
               etcdctl --endpoints {endpoints} put greeting hello\n  \
               etcdctl --endpoints {endpoints} get greeting\n  \
               etcdctl --endpoints {endpoints} endpoint status -w table\n\
             Ctrl-C stops the nodes; the next start finds their data again",
            self.nodes
        )
    }
}

/// What the directory remembers, if anything.
fn saved(dir: &Path) -> Result<Option<(u16, u16, Engine)>, String> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(str::trim)
    };
    let number = |key: &str| value(key).and_then(|value| value.parse::<u16>().ok());
    // Directories of earlier versions name none.
    let engine = value("engine").map_or(Ok(Engine::Raft), str::parse);
    match (number("nodes"), number("offset"), engine) {
        (Some(nodes), Some(offset), Ok(engine)) => Ok(Some((nodes, offset, engine))),
        _ => Err(format!(
            "{} does not say how many nodes there are; repair it (nodes = 3, offset = 0), or use \
             another --dir",
            path.display()
        )),
    }
}

/// A cluster keeps its shape: what is asked for has to be what is there.
fn agree<T: PartialEq + std::fmt::Display>(
    flag: &str,
    asked: Option<T>,
    saved: Option<T>,
    default: T,
    dir: &Path,
) -> Result<T, String> {
    match (asked, saved) {
        (Some(asked), Some(saved)) if asked != saved => Err(format!(
            "{} holds a cluster with {flag} {saved}, not {asked}; leave {flag} out to start it \
             again, or use another --dir",
            dir.display()
        )),
        (asked, saved) => Ok(asked.or(saved).unwrap_or(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("quorate-plan-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn shapes_that_cannot_work_are_refused() {
        let dir = scratch("shapes");
        for (nodes, offset, want) in [
            (None, None, Ok((3, 12379))),
            (Some(1), Some(7), Ok((1, 12386))),
            (Some(5), Some(23_155), Ok((5, 35_534))),
            (Some(0), None, Err("use 1 to 5")),
            (Some(6), None, Err("use 1 to 5")),
            (Some(5), Some(23_156), Err("use at most 23155")),
            (Some(3), Some(65_535), Err("use at most 43155")),
        ] {
            match (Plan::make(nodes, offset, None, &dir), want) {
                (Ok(plan), Ok((count, second_port))) => {
                    assert_eq!((plan.nodes, plan.client_port(1)), (count, second_port));
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, want) => panic!("{nodes:?} {offset:?}: got {got:?}, want {want:?}"),
            }
        }
    }

    #[test]
    fn a_directory_keeps_its_shape() {
        let dir = scratch("kept");
        std::fs::create_dir(&dir).unwrap();
        Plan::make(Some(2), Some(5), Some(Engine::Zab), &dir).unwrap().save().unwrap();
        let again = Plan::make(None, None, None, &dir).unwrap();
        assert_eq!((again.nodes, again.offset), (2, 5));
        for (nodes, offset) in [(Some(3), None), (None, Some(0))] {
            let error = Plan::make(nodes, offset, None, &dir).unwrap_err();
            assert!(error.contains("holds a cluster with"), "{error}");
        }
        std::fs::write(dir.join(FILE), "nodes = many\n").unwrap();
        assert!(Plan::make(None, None, None, &dir).unwrap_err().contains("repair it"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn ports_in_use_are_told_before_anything_starts() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let Some(offset) = port.checked_sub(CLIENT_PORT) else { return };
        let plan = Plan { nodes: 1, offset, engine: Engine::Raft, dir: scratch("ports") };
        let error = plan.check_ports().unwrap_err();
        assert!(error.contains(&format!("port {port} (clients of n1)")), "{error}");
    }

    /// The clients' port of a node, taken, and its offset; the peers' port is free, and stays so: it is
    /// below those that a system gives to who asks for any.
    fn taken_beside_free() -> (TcpListener, u16) {
        let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let first = 12_000 + u16::try_from(std::process::id() % 9000).unwrap();
        let taken = |port: u16| bind(port).ok().filter(|_| bind(port + 1).is_ok());
        let mut ports = (first..32_000).filter_map(|port| Some((taken(port)?, port - CLIENT_PORT)));
        ports.next().expect("two of these ports are free")
    }

    #[test]
    fn a_directory_is_claimed_once_and_not_touched_in_vain() {
        let dir = scratch("claimed");
        let (taken, offset) = taken_beside_free();
        let plan = Plan { nodes: 1, offset, engine: Engine::Raft, dir: dir.clone() };
        assert!(plan.claim().unwrap_err().contains("move all ports with --offset"));
        assert!(!dir.exists());
        drop(taken);
        let claim = plan.claim().unwrap();
        let error = plan.claim().unwrap_err();
        assert!(error.starts_with("another playground runs on"), "{error}");
        drop(claim);
        plan.claim().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn every_node_is_told_of_all() {
        let plan = Plan { nodes: 3, offset: 0, engine: Engine::Raft, dir: PathBuf::from("d") };
        let flags = plan.flags(1);
        for want in [
            "--name=n2",
            "--data-dir=d/n2",
            "--listen-client-urls=http://127.0.0.1:12379",
            "--initial-cluster=n1=http://127.0.0.1:2380,n2=http://127.0.0.1:12380,\
             n3=http://127.0.0.1:22380",
        ] {
            assert!(flags.iter().any(|flag| flag == want), "{want} in {flags:?}");
        }
    }

    #[test]
    fn the_greeting_shows_commands_of_both_programs_on_one_screen() {
        let plan = Plan { nodes: 5, offset: 100, engine: Engine::Raft, dir: PathBuf::from("d") };
        let greeting = plan.greeting("target/release/quorate");
        assert!(greeting.starts_with("cluster is ready"));
        for program in ["target/release/quorate ", "etcdctl "] {
            let commands =
                greeting.lines().filter(|line| line.trim_start().starts_with(program)).count();
            assert_eq!(commands, 3, "{greeting}");
        }
        assert!(greeting.contains("http://127.0.0.1:42479"), "{greeting}");
        assert!(greeting.lines().count() < 20, "{greeting}");
    }
}
