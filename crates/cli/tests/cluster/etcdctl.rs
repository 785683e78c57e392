//! An unchanged `etcdctl` against each member.

use std::process::Command;

use crate::harness::Cluster;

/// Runs etcdctl against one member; returns (whether it succeeded, standard output, standard error).
pub(crate) fn etcdctl(
    endpoint: &str,
    arguments: &[&str],
    input: Option<&str>,
) -> (bool, String, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .args(["--command-timeout=20s"])
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(input) = input {
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

pub(crate) fn is_installed() -> bool {
    let found = Command::new("etcdctl").arg("version").output().is_ok();
    assert!(
        found || std::env::var_os("QUORATE_TEST_REQUIRE_ETCDCTL").is_none(),
        "etcdctl is required here and not installed"
    );
    if !found {
        eprintln!("skipped: etcdctl is not installed (Debian's etcd-client)");
    }
    found
}

/// Starts `etcdctl watch` with these arguments against one member; its lines come as it says them.
struct Watch {
    process: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Watch {
    fn start(endpoint: &str, arguments: &[&str]) -> Watch {
        use std::io::{BufRead, BufReader};
        let mut process = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoint}"))
            .arg("watch")
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let output = process.stdout.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Watch { process, lines }
    }

    fn expect(&self, want: &[&str]) {
        for want in want {
            let line = self.lines.recv_timeout(crate::harness::PATIENCE).unwrap();
            assert_eq!(line, *want);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_leases_and_watches_through_each_member() {
    leases_and_watches_through_each_member("raft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_leases_and_watches_through_each_member_with_zab() {
    leases_and_watches_through_each_member("zab").await;
}

async fn leases_and_watches_through_each_member(engine: &str) {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::start(3, &["--engine", engine]).await;
    let mut revision = 0;
    for at in 0..3 {
        let endpoint = cluster.endpoint(at);
        let ok = |arguments: &[&str]| {
            let (succeeded, output, errors) = etcdctl(&endpoint, arguments, None);
            assert!(succeeded, "etcdctl {arguments:?}: {errors}");
            output
        };
        let fails = |arguments: &[&str], want: &str| {
            let (succeeded, output, errors) = etcdctl(&endpoint, arguments, None);
            assert!(!succeeded, "etcdctl {arguments:?}: {output}");
            assert!(errors.contains(want), "etcdctl {arguments:?}: {errors}");
        };
        // `lease 32695410dcc0ca06 granted with TTL(300s)`
        let granted = ok(&["lease", "grant", "300"]);
        let lease = granted.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(granted, format!("lease {lease} granted with TTL(300s)\n"));
        assert!(ok(&["lease", "grant", "1"]).ends_with("granted with TTL(2s)\n"));
        let lease_flag = format!("--lease={lease}");
        for key in ["leased/b", "leased/a"] {
            assert_eq!(ok(&["put", key, "1", &lease_flag]), "OK\n");
        }
        let kept = ok(&["lease", "keep-alive", "--once", &lease]);
        assert_eq!(kept, format!("lease {lease} keepalived with TTL(300)\n"));
        let told = ok(&["lease", "timetolive", "--keys", &lease]);
        let told = told.replace("299s", "300s").replace("298s", "300s");
        let want = format!(
            "lease {lease} granted with TTL(300s), remaining(300s), attached keys([leased/a leased/b])\n"
        );
        assert!(told == want || told.contains("remaining(29"), "{told}");
        assert!(ok(&["lease", "list"]).contains(&lease));
        assert_eq!(ok(&["lease", "revoke", &lease]), format!("lease {lease} revoked\n"));
        assert_eq!(ok(&["get", "--prefix", "leased/"]), "");
        fails(&["lease", "revoke", &lease], "etcdserver: requested lease not found");
        let gone = ok(&["lease", "timetolive", &lease]);
        assert_eq!(gone, format!("lease {lease} already expired\n"));
        fails(&["lease", "keep-alive", "--once", &lease], "etcdserver: requested lease not found");

        // One that is not renewed takes its key with it, and who watches is told.
        let (one, all) = (format!("w{at}/a"), format!("w{at}/"));
        let watch = Watch::start(&endpoint, &["--prefix", &all, "--rev=1", "--prev-kv"]);
        ok(&["put", &one, "1"]);
        watch.expect(&["PUT", &one, "1"]);
        ok(&["put", &one, "2"]);
        watch.expect(&["PUT", &one, "1", &one, "2"]);
        let granted = ok(&["lease", "grant", "2"]);
        let lease = granted.split(' ').nth(1).unwrap().to_owned();
        ok(&["put", &one, "3", &format!("--lease={lease}")]);
        watch.expect(&["PUT", &one, "2", &one, "3"]);
        watch.expect(&["DELETE", &one, "3", &one, ""]);
        // From the past.
        let status = cluster.status(at).await.unwrap();
        let before = revision;
        revision = status.header.unwrap().revision;
        assert!(before < revision);
        let from = format!("--rev={}", before.max(1));
        let watch = Watch::start(&endpoint, &["--prefix", &all, &from]);
        watch.expect(&["PUT", &one, "1", "PUT", &one, "2", "PUT", &one, "3", "DELETE", &one, ""]);
    }
    // Below what is compacted there is nothing to tell.
    let endpoint = cluster.endpoint(0);
    let (compacted, _, errors) = etcdctl(&endpoint, &["compaction", &revision.to_string()], None);
    assert!(compacted, "{errors}");
    let (succeeded, _, errors) = etcdctl(&endpoint, &["watch", "--rev=1", "w0/a"], None);
    assert!(!succeeded && errors.contains("required revision has been compacted"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_against_each_member() {
    works_against_each_member("raft").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_against_each_member_with_zab() {
    works_against_each_member("zab").await;
}

async fn works_against_each_member(engine: &str) {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::start(3, &["--engine", engine]).await;
    for at in 0..3 {
        let endpoint = cluster.endpoint(at);
        let ok = |arguments: &[&str], want: &str| {
            let (succeeded, output, errors) = etcdctl(&endpoint, arguments, None);
            assert!(succeeded, "etcdctl {arguments:?}: {errors}");
            assert_eq!(output, want, "etcdctl {arguments:?}");
        };
        let fails = |arguments: &[&str], want: &str| {
            let (succeeded, _, errors) = etcdctl(&endpoint, arguments, None);
            assert!(!succeeded, "etcdctl {arguments:?} succeeded");
            assert!(errors.contains(want), "etcdctl {arguments:?}: {errors}");
        };
        ok(&["put", "a", "1"], "OK\n");
        ok(&["put", "b", "2"], "OK\n");
        ok(&["put", "c", "3"], "OK\n");
        ok(&["put", "b", "22", "--prev-kv"], "OK\nb\n2\n");
        ok(&["put", "b", "--ignore-value"], "OK\n");
        fails(&["put", "absent", "--ignore-value"], "etcdserver: key not found");
        fails(&["put", "a", "1", "--lease=123"], "etcdserver: requested lease not found");
        ok(&["get", "a"], "a\n1\n");
        ok(&["get", "absent"], "");
        ok(&["get", "a", "c"], "a\n1\nb\n22\n");
        ok(&["get", "", "--prefix", "--keys-only"], "a\n\nb\n\nc\n\n");
        ok(&["get", "b", "--from-key", "--print-value-only"], "22\n3\n");
        ok(&["get", "", "--prefix", "--limit=1"], "a\n1\n");
        ok(&["get", "", "--prefix", "--order=DESCEND", "--sort-by=KEY"], "c\n3\nb\n22\na\n1\n");
        ok(&["get", "", "--prefix", "--order=ASCEND", "--sort-by=MODIFY"], "a\n1\nc\n3\nb\n22\n");
        ok(&["get", "a", "--consistency=s"], "a\n1\n");
        let (_, fields, _) = etcdctl(&endpoint, &["get", "b", "-w", "fields"], None);
        let revision = field(&fields, "\"ModRevision\"");
        assert_eq!(field(&fields, "\"Version\""), 3, "{fields}");
        ok(&["get", "b", &format!("--rev={}", revision - 2)], "b\n2\n");
        fails(
            &["get", "b", "--rev=1000000"],
            "etcdserver: mvcc: required revision is a future revision",
        );

        let transaction =
            "mod(\"a\") > \"0\"\nvalue(\"b\") = \"22\"\n\nput d 4\nget d\n\nput d 5\n\n";
        let (succeeded, output, errors) = etcdctl(&endpoint, &["txn"], Some(transaction));
        assert!(succeeded, "{errors}");
        assert_eq!(output, "SUCCESS\n\nOK\n\nd\n4\n");
        let twice = "\nput d 4\nput d 5\n\n\n";
        let (succeeded, _, errors) = etcdctl(&endpoint, &["txn"], Some(twice));
        assert!(
            !succeeded && errors.contains("etcdserver: duplicate key given in txn request"),
            "{errors}"
        );

        ok(&["compaction", &revision.to_string()], &format!("compacted revision {revision}\n"));
        fails(
            &["compaction", &revision.to_string()],
            "etcdserver: mvcc: required revision has been compacted",
        );
        fails(
            &["get", "b", &format!("--rev={}", revision - 1)],
            "etcdserver: mvcc: required revision has been compacted",
        );
        ok(&["del", "d", "--prev-kv"], "1\nd\n4\n");
        ok(&["del", "", "--prefix"], "3\n");
        ok(&["del", "", "--prefix"], "0\n");

        let (succeeded, output, errors) = etcdctl(&endpoint, &["endpoint", "status"], None);
        assert!(succeeded, "{errors}");
        assert!(output.starts_with(&format!("{endpoint}, ")), "{output}");
        let (_, output, _) = etcdctl(&endpoint, &["member", "list"], None);
        assert_eq!(output.lines().count(), 3, "{output}");
        for name in ["n1", "n2", "n3"] {
            assert!(output.contains(&format!(", started, {name}, http://127.0.0.1:")), "{output}");
        }
        ok(&["endpoint", "health"], "");
    }
}

fn field(fields: &str, name: &str) -> i64 {
    let line = fields.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| {
        panic!("no {name} in {fields}");
    })
}
