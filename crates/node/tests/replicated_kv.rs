//! The example program as processes: what its first lines say that it does.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Cluster {
    dir: tempfile::TempDir,
    /// Of each node: for peers, for clients. Node 1 stands first.
    ports: Vec<(u16, u16)>,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    fn new(count: usize) -> Self {
        // All at once, so that they differ.
        let free: Vec<_> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let ports = free.chunks(2).map(|pair| (port(&pair[0]), port(&pair[1]))).collect();
        let processes = (0..count).map(|_| None).collect();
        Cluster { dir: tempfile::tempdir().unwrap(), ports, processes }
    }

    /// Starts node `id` of a group of so many.
    fn start(&mut self, id: usize, group: usize, join: bool) {
        let peers = self.ports[..group].iter().zip(1..);
        let peers: Vec<_> = peers.map(|((port, _), id)| format!("{id}=127.0.0.1:{port}")).collect();
        let log = std::fs::File::options();
        let log = log.clone().create(true).append(true).open(self.path(id, "log")).unwrap();
        let mut command = Command::new(program());
        command.args([id.to_string(), peers.join(",")]);
        command.arg(format!("127.0.0.1:{}", self.ports[id - 1].1)).arg(self.path(id, "data"));
        command.args(join.then_some("join")).stderr(Stdio::from(log));
        self.processes[id - 1] = Some(command.spawn().unwrap());
    }

    fn kill(&mut self, id: usize) {
        let mut process = self.processes[id - 1].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn path(&self, id: usize, what: &str) -> PathBuf {
        self.dir.path().join(format!("{what}{id}"))
    }

    /// What node `id` answers to these lines, if it is there to answer them all.
    fn ask(&self, id: usize, lines: &[String]) -> Option<Vec<String>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[id - 1].1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all((lines.join("\n") + "\n").as_bytes()).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let answers: Vec<_> = BufReader::new(stream).lines().collect::<Result<_, _>>().ok()?;
        (answers.len() == lines.len()).then_some(answers)
    }

    /// Asks one of `nodes` after the other until one gives an answer that will do.
    fn ask_any(
        &self,
        nodes: &[usize],
        line: &str,
        will_do: impl Fn(&str) -> bool,
    ) -> (usize, String) {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < Duration::from_secs(60) {
            for &id in nodes {
                last = self.ask(id, &[line.to_owned()]).map(|mut answers| answers.remove(0));
                if let Some(answer) = last.as_ref().filter(|answer| will_do(answer)) {
                    return (id, answer.clone());
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let logs = nodes.iter().map(|id| std::fs::read_to_string(self.path(*id, "log")));
        panic!("{line}: {last:?}; {:#?}", logs.collect::<Vec<_>>());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The example, which cargo builds along with the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("tests stand in <profile>/deps");
    let program = profile.join("examples").join("replicated_kv");
    assert!(program.exists(), "cargo build -p quorate-node --example replicated_kv");
    program
}

#[test]
fn three_processes_survive_a_kill_and_take_in_a_fourth() {
    let mut cluster = Cluster::new(4);
    (1..=3).for_each(|id| cluster.start(id, 3, false));
    let is_ok = |answer: &str| answer.starts_with("ok ");
    // On a busy machine the leader may change at any time, so every write looks for it anew.
    let put = |cluster: &Cluster, nodes: &[usize], key: &str, value: &str| {
        cluster.ask_any(nodes, &format!("put {key} {value}"), is_ok).0
    };
    let leader = put(&cluster, &[1, 2, 3], "greeting", "hello");
    for id in 1..=3 {
        cluster.ask_any(&[id], "get greeting", |answer| answer == "hello");
    }

    // Killed, passed by a snapshot, back.
    let killed = leader % 3 + 1;
    cluster.kill(killed);
    let mut others: Vec<_> = (1..=3).filter(|id| *id != killed).collect();
    for number in 0..150 {
        let leader = put(&cluster, &others, &format!("key{number}"), &number.to_string());
        others.sort_by_key(|id| *id != leader);
    }
    cluster.start(killed, 3, false);
    for (key, value) in [("key149", "149"), ("greeting", "hello"), ("key", "(none)")] {
        cluster.ask_any(&[killed], &format!("get {key}"), |answer| answer == value);
    }

    let add = format!("add 4 127.0.0.1:{}", cluster.ports[3].0);
    let (leader, _) = cluster.ask_any(&[1, 2, 3], &add, is_ok);
    cluster.start(4, 4, true);
    cluster.ask_any(&[4], "get key149", |answer| answer == "149");
    cluster.ask_any(&[4], "status", |answer| answer.ends_with("voters=(1 2 3 4)"));

    // The others can go without the leader they had.
    cluster.kill(leader);
    let others: Vec<_> = (1..=4).filter(|id| *id != leader).collect();
    put(&cluster, &others, "greeting", "bye");
    cluster.ask_any(&others, &format!("remove {leader}"), is_ok);
    let voters = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let voters = format!("voters=({voters})");
    for id in others {
        cluster.ask_any(&[id], "get greeting", |answer| answer == "bye");
        cluster.ask_any(&[id], "status", |answer| answer.ends_with(&voters));
    }
}
