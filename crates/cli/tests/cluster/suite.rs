//! One table of commands and what they print, `suite/checks.txt`, for `etcdctl` and for `quorate` in
//! its place, against this server and against etcd. An expectation that etcd does not meet is wrong.

mod table;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use self::table::{Check, Kept, Program};
use crate::harness::{Cluster, PATIENCE, free_port, quick_directory, quorate, within_patience};

const CHECKS: &str = include_str!("suite/checks.txt");

#[test]
fn the_table_is_long_and_well_formed() {
    let checks = table::read(CHECKS);
    let count = checks.iter().filter(|check| check.is_for(Program::Etcdctl, "ours")).count();
    assert!(170 <= count, "{count} checks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_sees_what_it_expects_of_quorate() {
    if is_installed("etcdctl") {
        let cluster = Cluster::start(1, &[]).await;
        run_all(Program::Etcdctl, "ours", &cluster.endpoint(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorate_takes_the_place_of_etcdctl() {
    let cluster = Cluster::start(1, &[]).await;
    run_all(Program::Quorate, "ours", &cluster.endpoint(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_seen_with_the_other_engine() {
    let cluster = Cluster::start(1, &["--engine", "zab"]).await;
    run_all(Program::Quorate, "zab", &cluster.endpoint(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_sees_the_same_with_the_other_engine() {
    if is_installed("etcdctl") {
        let cluster = Cluster::start(1, &["--engine", "zab"]).await;
        run_all(Program::Etcdctl, "zab", &cluster.endpoint(0));
    }
}

#[test]
fn etcdctl_sees_the_same_of_etcd() {
    if is_installed("etcdctl")
        && let Some(etcd) = Etcd::start()
    {
        run_all(Program::Etcdctl, "etcd", &etcd.endpoint);
    }
}

#[test]
fn quorate_is_a_client_of_etcd() {
    if let Some(etcd) = Etcd::start() {
        run_all(Program::Quorate, "etcd", &etcd.endpoint);
    }
}

/// Whether a program is there; if it is to be there and is not, the test fails.
pub(crate) fn is_installed(program: &str) -> bool {
    let argument = if program == "etcdctl" { "version" } else { "--version" };
    let found = Command::new(program).arg(argument).output().is_ok();
    let wanted = format!("QUORATE_TEST_REQUIRE_{}", program.to_uppercase());
    assert!(found || std::env::var_os(wanted).is_none(), "{program} is required here");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A member of a real etcd.
pub(crate) struct Etcd {
    process: Child,
    pub(crate) endpoint: String,
    _directory: TempDir,
}

impl Etcd {
    /// Starts one, if etcd is installed, and waits until it serves.
    pub(crate) fn start() -> Option<Etcd> {
        if !is_installed("etcd") {
            return None;
        }
        let directory = quick_directory("quorate-test-etcd-");
        let (client, peer) = (free_port(), free_port());
        let endpoint = format!("127.0.0.1:{client}");
        let (client, peer) = (format!("http://{endpoint}"), format!("http://127.0.0.1:{peer}"));
        let log = File::create(directory.path().join("log")).unwrap();
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let etcd = Etcd { process, endpoint, _directory: directory };
        let served = within_patience(|| {
            let asked = client_of(Program::Quorate, &etcd.endpoint).args(["get", "x"]).output();
            asked.unwrap().status.success().then_some(())
        });
        served.expect("etcd serves");
        Some(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client_of(program: Program, endpoint: &str) -> Command {
    let mut command = match program {
        Program::Etcdctl => Command::new("etcdctl"),
        Program::Quorate => quorate(),
    };
    command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", endpoint);
    command.env("ETCDCTL_COMMAND_TIMEOUT", "20s").env("ETCDCTL_DIAL_TIMEOUT", "5s");
    command
}

fn run_all(program: Program, server: &str, endpoint: &str) {
    let mut kept = Kept::new(endpoint);
    let mut wrong = Vec::new();
    for check in table::read(CHECKS) {
        if !check.is_for(program, server) {
            continue;
        }
        if let Err(why) = run(&check, program, endpoint, &mut kept) {
            wrong.push(format!("line {}: {}\n{why}", check.line, check.words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn run(check: &Check, program: Program, endpoint: &str, kept: &mut Kept) -> Result<(), String> {
    let mut command = client_of(program, endpoint);
    command.args(check.words.iter().map(|word| kept.put_in(word)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    if check.goes_on {
        return follow(check, process, kept);
    }
    // Whoever reads nothing may be gone by now.
    let _ = process.stdin.take().unwrap().write_all(check.input.as_bytes());
    let ended = process.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&ended.stdout);
    let errors = String::from_utf8_lossy(&ended.stderr);
    let told = || format!("printed:\n{output}\nsaid:\n{errors}");
    if ended.status.code() != Some(check.code) {
        return Err(format!(
            "ended with {:?}, not {}\n{}",
            ended.status.code(),
            check.code,
            told()
        ));
    }
    if let Some(want) = check.errors_of(program) {
        let want = kept.put_in(want);
        if !errors.lines().any(|line| line.ends_with(&want)) {
            return Err(format!("did not say {want:?}\n{}", told()));
        }
    }
    let lines: Vec<&str> = output.lines().collect();
    let as_wanted = kept.take(&check.output, &lines, check.is_open);
    as_wanted.map_err(|why| format!("{why}\n{}", told()))
}

/// Reads as many lines as are wanted, and stops the program then.
fn follow(check: &Check, mut process: Child, kept: &mut Kept) -> Result<(), String> {
    // More may come.
    let mut input = process.stdin.take().unwrap();
    let _ = input.write_all(check.input.as_bytes());
    let output = BufReader::new(process.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut found = Vec::new();
    while found.len() < check.output.len() {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => found.push(line),
            Err(_) => break,
        }
    }
    let _ = process.kill();
    let _ = process.wait();
    let lines: Vec<&str> = found.iter().map(String::as_str).collect();
    let as_wanted = kept.take(&check.output, &lines, false);
    as_wanted.map_err(|why| format!("{why}\nprinted:\n{}", found.join("\n")))
}
