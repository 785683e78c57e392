//! The cluster looks after its own members: no operator in sight but for the settings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use serde_json::Value;
use tonic::transport::Channel;

use crate::harness::{Cluster, Outcome, eventually, http_get, quorate, run};

/// Everything autopilot does in seconds takes tenths of them here.
const QUICK: &[&str] = &[
    "--heartbeat-interval",
    "50",
    "--election-timeout",
    "500",
    "--autopilot-update-interval",
    "100ms",
    "--autopilot-reconcile-interval",
    "300ms",
    "--autopilot-config",
    "cleanup-dead-servers=true,last-contact-threshold=1s,server-stabilization-time=1s,\
     dead-server-threshold=2s,join-grace=2s,target-voters=5",
];

impl Cluster {
    fn autopilot(&self, at: usize, arguments: &[&str]) -> Outcome {
        let mut command = quorate();
        command.arg("autopilot").args(arguments).args(["--endpoints", &self.endpoint(at)]);
        run(&mut command)
    }

    /// How the members stand, by their names, as one of them says.
    fn states(&self, at: usize) -> Option<BTreeMap<String, String>> {
        let outcome = self.autopilot(at, &["state", "-w", "json"]);
        let state: Value = serde_json::from_str(&outcome.output).ok()?;
        let servers = state["Servers"].as_object()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        servers
            .values()
            .map(|one| Some((text(&one["Server"]["Name"])?, text(&one["State"])?)))
            .collect()
    }

    /// The id of a member, by its name.
    fn id_of(&self, at: usize, name: &str) -> String {
        let state = self.autopilot(at, &["state", "-w", "json"]).output;
        let state: Value = serde_json::from_str(&state).unwrap();
        let mut servers = state["Servers"].as_object().unwrap().iter();
        servers.find(|(_, one)| one["Server"]["Name"] == name).map(|(id, _)| id.clone()).unwrap()
    }

    async fn becomes(
        &self,
        at: usize,
        what: &str,
        is_so: impl Fn(&BTreeMap<String, String>) -> bool,
    ) {
        eventually(what, async || self.states(at).filter(&is_so).map(drop)).await;
    }

    /// Adds a learner through a member, and starts it with further flags.
    async fn join_as_learner(&mut self, through: usize, others: &[usize], flags: &[&str]) -> usize {
        let at = self.prepare_joining(others);
        let (name, peers) = (self.members[at].name.clone(), self.peer_url(at));
        let endpoint = self.endpoint(through);
        eventually("a learner is added", async || {
            let mut command = quorate();
            command.args(["member", "add", &name, "--learner", "--peer-urls", &peers]);
            (run(command.args(["--endpoints", &endpoint])).code == 0).then_some(())
        })
        .await;
        self.spawn_with(at, flags);
        self.logged(at, "published").await;
        at
    }
}

fn voters(states: &BTreeMap<String, String>) -> Vec<&str> {
    let votes = |(_, state): &(&String, &String)| ["leader", "voter"].contains(&state.as_str());
    states.iter().filter(votes).map(|(name, _)| name.as_str()).collect()
}

/// A client that knows all members, as an etcd client does: it writes one key after the other, and asks
/// the next member when one refuses. A write fails when nobody can say what became of it, or when it
/// takes too long.
struct Writer {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    channels: Arc<Mutex<Vec<Channel>>>,
    failures: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

/// Nothing was written, says the member: it cannot, or not now. (A member that is gone says nothing,
/// and the connection was refused before anything was sent.)
const REFUSALS: &[&str] =
    &["rpc not supported for learner", "leader changed", "server stopped", "tcp connect error"];
const WRITE_MAX: Duration = Duration::from_secs(10);

impl Writer {
    fn start(channels: Vec<Channel>) -> Writer {
        let writer = Writer {
            acknowledged: Arc::default(),
            stop: Arc::default(),
            channels: Arc::new(Mutex::new(channels)),
            failures: Arc::default(),
            task: tokio::spawn(async {}),
        };
        let (acknowledged, stop) = (Arc::clone(&writer.acknowledged), Arc::clone(&writer.stop));
        let (channels, failures) = (Arc::clone(&writer.channels), Arc::clone(&writer.failures));
        let task = tokio::spawn(async move {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                let number = acknowledged.load(Ordering::Relaxed);
                let begun = Instant::now();
                loop {
                    let channel = {
                        let channels = channels.lock().unwrap();
                        channels[turn % channels.len()].clone()
                    };
                    let request = PutRequest {
                        key: Bytes::from(format!("w/{number:08}")),
                        value: Bytes::from_static(b"v"),
                        ..Default::default()
                    };
                    let Err(error) = KvClient::new(channel).put(request).await else { break };
                    turn += 1;
                    let text = format!("{error:?}");
                    let is_refused = REFUSALS.iter().any(|refusal| text.contains(refusal));
                    if !is_refused || WRITE_MAX < begun.elapsed() {
                        failures.lock().unwrap().push(text);
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        });
        Writer { task, ..writer }
    }

    fn also(&self, channel: Channel) {
        self.channels.lock().unwrap().push(channel);
    }

    async fn goes_on(&self) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + 10;
        eventually("writes go on", async || {
            (goal <= self.acknowledged.load(Ordering::Relaxed)).then_some(())
        })
        .await;
    }

    /// How many writes were acknowledged, and which failed.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let failures = self.failures.lock().unwrap().clone();
        (self.acknowledged.load(Ordering::Relaxed), failures)
    }
}

async fn count(cluster: &Cluster, at: usize) -> usize {
    let request = RangeRequest {
        key: Bytes::from_static(b"w/"),
        range_end: Bytes::from_static(b"w0"),
        count_only: true,
        ..Default::default()
    };
    let mut client = KvClient::new(cluster.channel(at));
    usize::try_from(client.range(request).await.unwrap().into_inner().count).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_takes_the_place_of_a_member_that_died() {
    let mut cluster = Cluster::start(5, QUICK).await;
    let others: Vec<usize> = (0..5).collect();
    let writer = Writer::start(others.iter().map(|at| cluster.channel(*at)).collect());
    let spare = cluster.join_as_learner(0, &others, &[]).await;
    cluster
        .becomes(0, "the spare stands by", |states| {
            states.get("n6").is_some_and(|state| state == "non-voter")
        })
        .await;
    // Five are to vote, and five do: some rounds later it still stands by.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(voters(&cluster.states(0).unwrap()).len(), 5);
    let outcome = cluster.autopilot(spare, &["health"]);
    assert!(outcome.code == 0 && outcome.output.contains("healthy: true"), "{}", outcome.output);

    // The leader dies for good. Who follows it knows what was set.
    let dead = cluster.leader().await;
    let name = cluster.members[dead].name.clone();
    cluster.kill(dead);
    let (left, other) = ((dead + 1) % 5, (dead + 2) % 5);
    cluster
        .becomes(left, "the spare votes and the dead member is gone", |states| {
            voters(states).contains(&"n6") && states.len() == 5 && !states.contains_key(&name)
        })
        .await;
    assert_eq!(voters(&cluster.states(left).unwrap()).len(), 5);
    writer.goes_on().await;
    // Whoever led then has said so.
    let logs: Vec<String> = (0..6).filter(|at| *at != dead).map(|at| cluster.log(at)).collect();
    for said in ["looks after the members", "changes the cluster", "replace "] {
        assert!(logs.iter().any(|log| log.contains(said)), "{said:?} is in no log");
    }

    // The new one counts: with two of the old ones it is a majority.
    let rest: Vec<usize> = (0..5).filter(|at| ![dead, left, other].contains(at)).collect();
    for at in [left, other] {
        cluster.kill(at);
    }
    writer.also(cluster.channel(spare));
    writer.goes_on().await;
    let (written, _) = writer.end().await;
    assert!(written <= count(&cluster, spare).await, "what was acknowledged is there");
    // They are as dead as the first. One after the other they go, as long as three are left.
    cluster.becomes(rest[0], "three are left", |states| voters(states).len() == 3).await;
    cluster.fill(&[rest[0], spare], "after", 10).await;

    // Who was removed hears so, and stops.
    cluster.spawn(dead);
    let status = cluster.ended(dead).unwrap();
    assert!(!status.success());
    assert!(cluster.log(dead).contains("this member was removed from the cluster"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_members_take_over_from_older_ones_without_a_failed_write() {
    let mut cluster = Cluster::prepare(3, QUICK);
    for at in 0..3 {
        cluster.spawn_with(at, &["--member-version", "1.0.0"]);
    }
    cluster.settle().await;
    let set = ["set-config", "disable-upgrade-migration=false", "target-voters=0"];
    assert_eq!(cluster.autopilot(0, &set).code, 0);
    // Through the leader: what another member has passed on to it when it hands over may be lost on the
    // way, as with any change of leaders, and its client hears of that only by waiting in vain.
    let leader = cluster.leader().await;
    let order = [leader, (leader + 1) % 3, (leader + 2) % 3];
    let writer = Writer::start(order.map(|at| cluster.channel(at)).to_vec());
    writer.goes_on().await;
    for number in 0..3 {
        let others: Vec<usize> = (0..3 + number).collect();
        let at = cluster.join_as_learner(0, &others, &["--member-version", "1.1.0"]).await;
        writer.also(cluster.channel(at));
    }
    cluster
        .becomes(3, "the newer ones vote, one of them leads, and the older ones do not", |states| {
            voters(states) == ["n4", "n5", "n6"] && states.len() == 6
        })
        .await;
    let leader = cluster.leader().await;
    assert!((3..6).contains(&leader), "n{} leads", leader + 1);
    writer.goes_on().await;
    // Clients that know only the older ones do not notice.
    for at in 0..3 {
        let mut client = KvClient::new(cluster.channel(at));
        let put = PutRequest { key: Bytes::from_static(b"old"), ..Default::default() };
        client.put(put.clone()).await.unwrap();
        let range = RangeRequest { key: put.key, ..Default::default() };
        assert_eq!(client.range(range).await.unwrap().into_inner().count, 1);
    }

    // The older ones are stopped; who is gone for good is removed.
    for at in 0..3 {
        assert!(cluster.stop(at));
    }
    cluster.becomes(3, "the older ones are gone", |states| states.len() == 3).await;
    writer.goes_on().await;
    let (written, failures) = writer.end().await;
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(written <= count(&cluster, 3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_is_checked_compared_and_kept() {
    let (usual, seeds) = QUICK.split_at(QUICK.len() - 2);
    let mut cluster = Cluster::prepare(3, usual);
    for at in 0..3 {
        cluster.spawn_with(at, seeds);
    }
    cluster.settle().await;
    let config = |cluster: &Cluster, at, arguments: &[&str]| -> Value {
        let outcome = cluster.autopilot(at, &[arguments, &["-w", "json"]].concat());
        assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.errors);
        serde_json::from_str(&outcome.output).unwrap()
    };
    let seeded = config(&cluster, 0, &["get-config"]);
    assert_eq!((&seeded["min_quorum"], &seeded["target_voters"]), (&3.into(), &5.into()));
    let index = seeded["modify_index"].to_string();
    for (arguments, want) in [
        (&["set-config", "min-quorum=0"][..], "min_quorum: cleanup_dead_servers is on"),
        (&["set-config", "min-quorum=x"], "min_quorum: is \"x\" and not a whole number"),
        (&["set-config", "min-quorum=3", "min-quorum=4"], "min_quorum: is named twice"),
        (&["set-config", "max-quorum=1"], "max_quorum: is no setting of autopilot"),
        (&["set-config", "min-quorum=5", "--modify-index", "1"], "the settings are those of index"),
    ] {
        let outcome = cluster.autopilot(1, arguments);
        assert!(outcome.code != 0 && outcome.errors.contains(want), "{}", outcome.errors);
    }
    // Long enough that nobody is removed below.
    let hasty = ["set-config", "dead-server-threshold=4m", "last-contact-threshold=50ms"];
    let outcome = cluster.autopilot(1, &[&hasty[..], &["--modify-index", &index]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    for warning in [
        "warning: dead_server_threshold: 4m0s is less than 5m0s",
        "warning: last_contact_threshold: 50ms is less than the election timeout of 500ms",
    ] {
        assert!(outcome.errors.contains(warning), "{}", outcome.errors);
    }
    let index = config(&cluster, 0, &["get-config"])["modify_index"].to_string();
    let set = ["set-config", "min-quorum=2", "--modify-index", &index];
    assert_eq!(config(&cluster, 1, &set)["min_quorum"], 2);
    assert_ne!(cluster.autopilot(1, &set).code, 0, "another index by now");
    let table = cluster.autopilot(2, &["get-config"]).output;
    assert!(table.contains("min_quorum") && table.contains("modify_index"), "{table}");

    // Any member says how the cluster is; figures of it are the leader's alone.
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    for at in [leader, follower] {
        eventually("all are healthy", async || {
            let (code, body) = http_get(&cluster.endpoint(at), "/autopilot/health");
            (code == 200 && body.contains("\"Healthy\":true")).then_some(())
        })
        .await;
        let (code, body) = http_get(&cluster.endpoint(at), "/autopilot/state");
        let state: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &state["FailureTolerance"]), (200, &1.into()));
        let (code, body) = http_get(&cluster.endpoint(at), "/autopilot/config");
        assert!(code == 200 && body.contains("\"min_quorum\":2"), "{body}");
        let (_, figures) = http_get(&cluster.endpoint(at), "/metrics");
        let has = |name: &str| figures.lines().any(|line| line.starts_with(name));
        assert_eq!(has("quorate_autopilot_healthy 1"), at == leader);
        assert_eq!(has("quorate_autopilot_server_healthy{server_id="), at == leader);
        assert!(has("quorate_autopilot_failures_total"));
    }
    cluster.kill(leader);
    eventually("one is missed", async || {
        let (code, body) = http_get(&cluster.endpoint(follower), "/autopilot/health");
        (code == 429 && body.contains("\"NodeStatus\":\"failed\"")).then_some(())
    })
    .await;
    assert_eq!(cluster.autopilot(follower, &["health"]).code, 1);
    assert_eq!(
        config(&cluster, follower, &["get-config"])["min_quorum"],
        2,
        "after a change of leader"
    );
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        cluster.spawn_with(at, &["--autopilot-config", "min-quorum=7"]);
    }
    cluster.settle().await;
    assert_eq!(
        config(&cluster, 0, &["get-config"])["min_quorum"],
        2,
        "flags are for the beginning"
    );
}

/// Each member was told something else, and nobody writes it down, since autopilot is off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_change_begins_with_what_the_leader_was_told() {
    let slow = ["--autopilot=false", "--heartbeat-interval", "200", "--election-timeout", "2000"];
    let mut cluster = Cluster::prepare(3, &slow);
    let told = |at: usize| 4 + at as u64;
    for at in 0..3 {
        cluster.spawn_with(at, &["--autopilot-config", &format!("min-quorum={}", told(at))]);
    }
    cluster.settle().await;
    let before = cluster.leader().await;
    let follower = (before + 1) % 3;
    let set = ["set-config", "target-voters=9", "--modify-index", "0", "-w", "json"];
    let outcome = cluster.autopilot(follower, &set);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let set: Value = serde_json::from_str(&outcome.output).unwrap();
    // Should another have come to lead meanwhile, it was that one that was asked.
    let leaders = [before, cluster.leader().await].map(told);
    let floor = set["min_quorum"].as_u64().unwrap();
    assert!(leaders.contains(&floor), "{floor} of {leaders:?}, asked of the {follower}th");
    assert_eq!(set["target_voters"], 9);
    // From now on all go by it.
    for at in 0..3 {
        let outcome = cluster.autopilot(at, &["get-config", "-w", "json"]);
        let config: Value = serde_json::from_str(&outcome.output).unwrap();
        assert_eq!(config["min_quorum"], floor, "{}", outcome.errors);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unasked_it_gives_votes_and_takes_none() {
    let mut quick = QUICK.to_vec();
    *quick.last_mut().unwrap() = "last-contact-threshold=1s,server-stabilization-time=1s,\
                                  dead-server-threshold=1s,join-grace=1s";
    let mut cluster = Cluster::start(3, &quick).await;
    let fourth = cluster.join_as_learner(0, &[0, 1, 2], &[]).await;
    cluster.becomes(0, "a learner votes", |states| voters(states).len() == 4).await;
    // To promote it as well is no error, as long as the same member leads.
    let promote = |id: &str| {
        let mut command = quorate();
        command.args(["member", "promote", id, "--endpoints", &cluster.endpoint(1)]);
        run(&mut command)
    };
    let outcome = promote(&cluster.id_of(0, "n4"));
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let outcome = promote(&cluster.id_of(0, "n1"));
    assert!(outcome.errors.contains("can only promote a learner member"), "{}", outcome.errors);

    // One dies, and stays in the list with its vote: nobody has asked for anything else.
    cluster.kill(fourth);
    let leader = cluster.endpoint(cluster.leader().await);
    eventually("it is missed", async || {
        let health: Value = serde_json::from_str(&http_get(&leader, "/autopilot/health").1).ok()?;
        let mut servers = health["Servers"].as_array()?.iter();
        servers.find(|one| one["Name"] == "n4" && one["NodeStatus"] == "failed").map(drop)
    })
    .await;
    // For longer than it takes until one is dead that is to be removed.
    let states_count = |figures: &str| {
        let mut lines = figures.lines();
        let count = lines.find_map(|line| line.strip_prefix("quorate_autopilot_states_total "));
        count.unwrap().parse::<u64>().unwrap()
    };
    let before = states_count(&http_get(&leader, "/metrics").1);
    let figures = eventually("it has had its time", async || {
        let (_, figures) = http_get(&leader, "/metrics");
        (before + 20 < states_count(&figures)).then_some(figures)
    })
    .await;
    assert_eq!(voters(&cluster.states(0).unwrap()).len(), 4);
    assert!(!figures.contains("quorate_autopilot_changes_total{kind=\"removal\"}"), "{figures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_asks_first_and_has_the_last_word() {
    let mut cluster = Cluster::start(3, QUICK).await;
    let told = |cluster: &Cluster, arguments: &[&str]| {
        let outcome = cluster.autopilot(1, arguments);
        assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.errors);
        format!("{}{}", outcome.output, outcome.errors)
    };
    // While it is paused, what it would do is all that it says.
    let paused = told(&cluster, &["set-config", "paused=true"]);
    assert!(paused.contains("warning: paused: nobody is promoted"), "{paused}");
    let fourth = cluster.join_as_learner(0, &[0, 1, 2], &[]).await;
    assert_eq!(fourth, 3);
    let is_row = |line: &str, words: &[&str]| words.iter().all(|word| line.contains(word));
    let explains = async |cluster: &Cluster, words: &[&str]| {
        eventually("it explains itself", async || {
            let table = told(cluster, &["explain"]);
            table.lines().any(|line| is_row(line, words)).then_some(())
        })
        .await;
    };
    explains(&cluster, &["| promotion ", " n4 ", "healthy since"]).await;
    eventually("it explains itself to others as well", async || {
        let (code, body) = http_get(&cluster.endpoint(2), "/autopilot/explain");
        let outlook: Value = serde_json::from_str(&body).ok()?;
        let is_so = code == 200 && outlook["Paused"] == true;
        (is_so && outlook["Actions"][0]["Kind"] == "promotion").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.states(0).unwrap()["n4"], "non-voter");
    eventually("the leader's figures say so", async || {
        let (_, figures) = http_get(&cluster.endpoint(cluster.leader().await), "/metrics");
        figures.contains("quorate_autopilot_paused 1").then_some(())
    })
    .await;

    // Who is held stays as it is.
    let id = cluster.id_of(0, "n4");
    let held = told(&cluster, &["hold", &id]);
    assert!(held.contains("held_servers") && held.contains(&id), "{held}");
    told(&cluster, &["set-config", "paused=false"]);
    explains(&cluster, &["| nothing ", " n4 ", "held: "]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.states(0).unwrap()["n4"], "non-voter");
    told(&cluster, &["release", &id]);
    let votes = |states: &BTreeMap<String, String>| voters(states).contains(&"n4");
    cluster.becomes(0, "the released one votes", votes).await;

    // A vote that was taken by hand does not come back by itself.
    let first = cluster.id_of(0, "n1");
    eventually("its vote is taken", async || {
        let outcome = cluster.autopilot(1, &["demote", &id]);
        if outcome.errors.contains("leadership has to go over first") {
            let leader = cluster.endpoint(cluster.leader().await);
            run(quorate().args(["move-leader", &first, "--endpoints", &leader]));
        }
        (outcome.code == 0).then_some(())
    })
    .await;
    assert_eq!(cluster.autopilot(2, &["demote", &id]).code, 0, "it has none to lose");
    cluster.becomes(0, "the fourth has no vote", |states| states["n4"] == "non-voter").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.states(0).unwrap()["n4"], "non-voter");
    told(&cluster, &["release", &id]);
    cluster.becomes(0, "it votes again", votes).await;

    // What cannot be is refused, and nobody is held for it.
    eventually("who leads keeps its vote", async || {
        let leads = cluster.id_of(0, &cluster.members[cluster.leader().await].name);
        let outcome = cluster.autopilot(1, &["demote", &leads]);
        if outcome.code != 0 && outcome.errors.contains("over first (quorate move-leader ID)") {
            return Some(());
        }
        // Another leads by now.
        cluster.autopilot(1, &["release", &leads]);
        None
    })
    .await;
    let index = told(&cluster, &["get-config", "-w", "json"]);
    for (arguments, want) in [
        (["demote", "abc"], "etcdserver: member not found"),
        (["release", "abc"], "etcdserver: member not found"),
        (["hold", "abc"], "held_servers: abc is no member of the cluster"),
        (["hold", "0"], "held_servers: \"0\" is no id of a member"),
        (["set-config", "held-servers=n4"], "held_servers: \"n4\" is no id of a member"),
        (["set-config", "paused=1"], "paused: is \"1\" and not true or false"),
        (["release", "x"], "Hex"),
    ] {
        let outcome = cluster.autopilot(1, &arguments);
        assert!(outcome.code != 0 && outcome.errors.contains(want), "{}", outcome.errors);
    }
    let config = told(&cluster, &["get-config", "-w", "json"]);
    assert!(config.contains("\"held_servers\":[]"), "{config}");
    assert_eq!(config, index, "nothing was written for what was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_does_not_run_it_says_so() {
    let cluster = Cluster::start(1, &["--engine", "zab"]).await;
    for arguments in [
        &["state"][..],
        &["set-config", "min-quorum=1"],
        &["get-config"],
        &["explain"],
        &["hold", "1"],
        &["demote", "1"],
    ] {
        let outcome = cluster.autopilot(0, arguments);
        assert!(outcome.code != 0 && outcome.errors.contains("zab engine"), "{}", outcome.errors);
    }
    let cluster = Cluster::start(1, &["--autopilot=false"]).await;
    let outcome = cluster.autopilot(0, &["state"]);
    assert!(outcome.errors.contains("autopilot is off on the leader"), "{}", outcome.errors);
    let (code, body) = http_get(&cluster.endpoint(0), "/autopilot/health");
    assert!(code == 404 && body.contains("is off"), "{code} {body}");
}
