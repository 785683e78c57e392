//! A cluster of real `quorate serve` processes under a temporary directory.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long anything that must happen may take on a slow, shared machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    /// The list of members by which it joins, if it was added later.
    pub(crate) joins: Option<String>,
    process: Option<Child>,
}

pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    pub(crate) members: Vec<Member>,
    flags: Vec<String>,
    /// How many files a member may have open, if not as many as this process.
    pub(crate) open_files_max: Option<u32>,
}

impl Cluster {
    /// Starts that many members with further flags, and waits until a write went through.
    pub(crate) async fn start(count: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(count, flags);
        for at in 0..count {
            cluster.spawn(at);
        }
        cluster.settle().await;
        cluster
    }

    /// Chooses ports and directories; starts nothing.
    pub(crate) fn prepare(count: usize, flags: &[&str]) -> Cluster {
        let members = (0..count)
            .map(|at| Member {
                name: format!("n{}", at + 1),
                client_port: free_port(),
                peer_port: free_port(),
                joins: None,
                process: None,
            })
            .collect();
        Cluster {
            directory: TempDir::with_prefix("quorate-test-").unwrap(),
            members,
            flags: flags.iter().map(ToString::to_string).collect(),
            open_files_max: None,
        }
    }

    pub(crate) fn initial_cluster(&self) -> String {
        let parts: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer_port))
            .collect();
        parts.join(",")
    }

    /// One more member, which joins the others named; it is neither added nor started yet.
    pub(crate) fn prepare_joining(&mut self, others: &[usize]) -> usize {
        let at = self.members.len();
        self.members.push(Member {
            name: format!("n{}", at + 1),
            client_port: free_port(),
            peer_port: free_port(),
            joins: None,
            process: None,
        });
        let part = |at: &usize| format!("{}={}", self.members[*at].name, self.peer_url(*at));
        let parts: Vec<String> = others.iter().chain([&at]).map(part).collect();
        self.members[at].joins = Some(parts.join(","));
        at
    }

    pub(crate) fn peer_url(&self, at: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[at].peer_port)
    }

    /// The command that starts a member, without its standard streams.
    pub(crate) fn command(&self, at: usize) -> Command {
        let member = &self.members[at];
        let client = format!("http://127.0.0.1:{}", member.client_port);
        let peer = format!("http://127.0.0.1:{}", member.peer_port);
        let mut command = match self.open_files_max {
            None => quorate(),
            Some(count) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\"")]);
                without_settings(&mut shell).arg(env!("CARGO_BIN_EXE_quorate"));
                shell
            }
        };
        command
            .arg("serve")
            .args(["--name", &member.name])
            .arg("--data-dir")
            .arg(self.data_dir(at))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(match &member.joins {
                None => ["--initial-cluster", &self.initial_cluster()].map(str::to_owned),
                Some(list) => ["--initial-cluster", list].map(str::to_owned),
            })
            .args([
                "--initial-cluster-state",
                if member.joins.is_some() { "existing" } else { "new" },
            ])
            .args(&self.flags)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn data_dir(&self, at: usize) -> PathBuf {
        self.directory.path().join(&self.members[at].name)
    }

    pub(crate) fn log_path(&self, at: usize) -> PathBuf {
        self.directory.path().join(format!("{}.log", self.members[at].name))
    }

    /// Everything a member has logged, over all its lives.
    pub(crate) fn log(&self, at: usize) -> String {
        std::fs::read_to_string(self.log_path(at)).unwrap_or_default()
    }

    pub(crate) fn spawn(&mut self, at: usize) {
        self.spawn_with(at, &[]);
    }

    pub(crate) fn spawn_with(&mut self, at: usize, flags: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path(at)).unwrap();
        let mut command = self.command(at);
        command.args(flags).stdout(log.try_clone().unwrap()).stderr(log);
        self.members[at].process = Some(command.spawn().unwrap());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// SIGTERM, then waits for the end; returns whether it ended well.
    pub(crate) fn stop(&mut self, at: usize) -> bool {
        if self.members[at].process.is_some() {
            self.signal(at, "TERM");
        }
        self.ended(at).is_none_or(|status| status.success())
    }

    /// Sends a signal to a member that runs.
    pub(crate) fn signal(&self, at: usize, name: &str) {
        signal(self.members[at].process.as_ref().unwrap().id(), name);
    }

    /// From now on a member's files may be no longer than this.
    pub(crate) fn limit_files(&self, at: usize, bytes_max: u64) {
        let process = Pid::from_child(self.members[at].process.as_ref().unwrap());
        let limit = Rlimit { current: Some(bytes_max), maximum: Some(bytes_max) };
        prlimit(Some(process), Resource::Fsize, limit).unwrap();
    }

    /// Waits for a member's end; nothing if it had ended before.
    pub(crate) fn ended(&mut self, at: usize) -> Option<ExitStatus> {
        let mut process = self.members[at].process.take()?;
        Some(end_of(&mut process))
    }

    pub(crate) fn is_running(&mut self, at: usize) -> bool {
        let process = self.members[at].process.as_mut();
        process.is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    pub(crate) fn endpoint(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.members[at].client_port)
    }

    /// Waits until every running member answers a linearizable read.
    pub(crate) async fn settle(&mut self) {
        for at in 0..self.members.len() {
            if self.members[at].process.is_none() {
                continue;
            }
            eventually("a member is ready", async || {
                assert!(self.is_running(at), "member {at} ended:\n{}", self.log(at));
                self.read(at, b"settled", false).await
            })
            .await;
        }
    }

    pub(crate) fn channel(&self, at: usize) -> Channel {
        channel(&self.endpoint(at))
    }

    /// One key as a member sees it; nothing when it does not answer.
    pub(crate) async fn read(
        &self,
        at: usize,
        key: &'static [u8],
        serializable: bool,
    ) -> Option<RangeResponse> {
        let request =
            RangeRequest { key: Bytes::from_static(key), serializable, ..Default::default() };
        let mut client = KvClient::new(self.channel(at));
        Some(client.range(request).await.ok()?.into_inner())
    }

    /// Waits until that many revisions were written by others.
    pub(crate) async fn written(&self, at: usize, count: i64) {
        let revision = async || {
            let answer = self.read(at, b"x", true).await;
            answer.and_then(|answer| answer.header).map_or(0, |header| header.revision)
        };
        let goal = revision().await + count;
        eventually("others write", async || (goal <= revision().await).then_some(())).await;
    }

    pub(crate) async fn status(&self, at: usize) -> Option<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel(at));
        Some(client.status(StatusRequest::default()).await.ok()?.into_inner())
    }

    /// The member that leads, as a running one of them says.
    pub(crate) async fn leader(&self) -> usize {
        eventually("someone leads", async || {
            for at in 0..self.members.len() {
                if let Some(status) = self.status(at).await
                    && status.leader != 0
                    && status.header.is_some_and(|header| header.member_id == status.leader)
                {
                    return Some(at);
                }
            }
            None
        })
        .await
    }

    /// Waits until a member has logged something.
    pub(crate) async fn logged(&self, at: usize, text: &str) {
        eventually(text, async || self.log(at).contains(text).then_some(())).await;
    }

    /// Writes `count` keys `prefix/<n>` of 100 bytes, many at a time; each is tried until it works.
    pub(crate) async fn fill(&self, through: &[usize], prefix: &str, count: usize) {
        let lanes = (0..64).map(|lane| {
            let mut client = KvClient::new(self.channel(through[lane % through.len()]));
            async move {
                for number in (lane..count).step_by(64) {
                    let request = PutRequest {
                        key: Bytes::from(format!("{prefix}/{number:08}")),
                        value: Bytes::from(vec![b'v'; 100]),
                        ..Default::default()
                    };
                    eventually("a write works", async || client.put(request.clone()).await.ok())
                        .await;
                }
            }
        });
        join_all(lanes).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
        if std::thread::panicking() {
            for at in 0..self.members.len() {
                let log = self.log(at);
                let from = log.len().saturating_sub(3000);
                let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
                eprintln!("== end of the log of {}\n{}", self.members[at].name, &log[from..]);
            }
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(status.unwrap().success(), "kill -{name} {process}");
}

/// Waits for the end of a process that has been asked to end, or ends by itself.
pub(crate) fn end_of(process: &mut Child) -> ExitStatus {
    match within_patience(|| process.try_wait().unwrap()) {
        Some(status) => status,
        None => {
            process.kill().unwrap();
            panic!("process {} went on", process.id());
        }
    }
}

/// Other processes tell nobody when something about them changes: they are looked at this often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until there is something to see, and gives it.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Blocks until there is something to see, and gives it; nothing if that took too long.
pub(crate) fn within_patience<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if seen.is_some() || deadline < Instant::now() {
            return seen;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// What came of a command: its exit code (-1 for a signal), standard output, standard error.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs a command that ends by itself and writes little.
pub(crate) fn run(command: &mut Command) -> Outcome {
    outcome(start(command))
}

/// Starts a command of which the outcome will be asked for.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a command.
pub(crate) fn outcome(mut process: Child) -> Outcome {
    end_of(&mut process);
    let output = process.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (errors, code) = (text(&output.stderr), output.status.code().unwrap_or(-1));
    assert!(!errors.contains("panicked"), "{errors}");
    Outcome { code, output: text(&output.stdout), errors }
}

/// A directory in memory where there is much of it: syncs cost nothing there. Otherwise an ordinary
/// one.
pub(crate) fn quick_directory(prefix: &str) -> TempDir {
    const ROOM_KIB: u64 = 2 << 20;
    let memory = "/dev/shm";
    let room = Command::new("df").args(["-Pk", memory]).output().ok().and_then(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok()
    });
    match room.is_some_and(|room| ROOM_KIB < room) {
        true => TempDir::with_prefix_in(prefix, memory),
        false => TempDir::with_prefix(prefix),
    }
    .unwrap()
}

pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    without_settings(&mut command);
    command
}

/// Settings of whoever runs the tests must not reach the program.
fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars() {
        if name.starts_with("ETCD") || name.starts_with("QUORATE") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn channel(endpoint: &str) -> Channel {
    Endpoint::from_shared(format!("http://{endpoint}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(15))
        .connect_lazy()
}

/// A port that is free now, below the range from which outgoing connections draw theirs, and that
/// no other test of this process was given.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 14_000 + u16::try_from(std::process::id() % 150).unwrap() * 100;
    for _ in 0..2000 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// What `GET` answers: its code and its body.
pub(crate) fn http_get(endpoint: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(endpoint).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
