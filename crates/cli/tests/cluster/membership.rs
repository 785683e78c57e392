//! Members come, go and move while clients write, as an operator does it with `etcdctl`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::transport::Channel;

use crate::bad_input::assert_refused;
use crate::etcdctl::{etcdctl, is_installed};
use crate::harness::{Cluster, eventually};

const QUICK: &[&str] =
    &["--autopilot=false", "--heartbeat-interval", "50", "--election-timeout", "500"];

impl Cluster {
    /// Runs etcdctl against one member until it works; what it says.
    async fn ctl(&self, at: usize, arguments: &[&str]) -> String {
        let endpoint = self.endpoint(at);
        eventually(&format!("etcdctl {arguments:?}"), async || {
            // A cluster that has just changed may not be healthy for long enough yet.
            let (succeeded, output, _) = etcdctl(&endpoint, arguments, None);
            succeeded.then_some(output)
        })
        .await
    }

    /// Runs etcdctl against one member; what it complains of.
    fn ctl_fails(&self, at: usize, arguments: &[&str], want: &str) {
        let (succeeded, output, errors) = etcdctl(&self.endpoint(at), arguments, None);
        assert!(!succeeded && errors.contains(want), "etcdctl {arguments:?}: {output} {errors}");
    }

    /// A member's id as its log has it.
    async fn id(&self, at: usize) -> String {
        let status = eventually("a member answers", async || self.status(at).await).await;
        format!("{:x}", status.header.unwrap().member_id)
    }

    /// Adds a member through another, starts it, and waits until it serves.
    async fn join(&mut self, through: usize, others: &[usize]) -> usize {
        let at = self.prepare_joining(others);
        let peers = format!("--peer-urls={}", self.peer_url(at));
        let added = self.ctl(through, &["member", "add", &self.members[at].name, &peers]).await;
        assert!(added.contains("added to cluster"), "{added}");
        assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
        self.spawn(at);
        self.settle().await;
        at
    }

    async fn removed(&mut self, at: usize) {
        let status = self.ended(at).expect("it was running");
        assert!(!status.success());
        let said = "this member was removed from the cluster";
        assert!(self.log(at).contains(said), "{}", self.log(at));
        assert!(!self.log(at).contains("panicked"));
    }
}

/// Writes `w/<n>` one after the other to whichever member takes it, until it is told to stop.
struct Writer {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    channels: Arc<std::sync::Mutex<Vec<Channel>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    fn start(channels: Vec<Channel>) -> Writer {
        let (acknowledged, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let channels = Arc::new(std::sync::Mutex::new(channels));
        let task = tokio::spawn({
            let (acknowledged, stop, channels) =
                (Arc::clone(&acknowledged), Arc::clone(&stop), Arc::clone(&channels));
            async move {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    let number = acknowledged.load(Ordering::Relaxed);
                    let channel = {
                        let channels = channels.lock().unwrap();
                        channels[turn % channels.len()].clone()
                    };
                    let request = PutRequest {
                        key: Bytes::from(format!("w/{number:08}")),
                        value: Bytes::from_static(b"v"),
                        ..Default::default()
                    };
                    match KvClient::new(channel).put(request).await {
                        Ok(_) => _ = acknowledged.fetch_add(1, Ordering::Relaxed),
                        Err(_) => turn += 1,
                    }
                }
            }
        });
        Writer { acknowledged, stop, channels, task }
    }

    fn turn_to(&self, channels: Vec<Channel>) {
        *self.channels.lock().unwrap() = channels;
    }

    /// Waits until something more is written.
    async fn goes_on(&self) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + 10;
        eventually("writes go on", async || {
            (goal <= self.acknowledged.load(Ordering::Relaxed)).then_some(())
        })
        .await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// How many keys of the writer a member has, by itself.
async fn count(cluster: &Cluster, at: usize, serializable: bool) -> usize {
    let request = RangeRequest {
        key: Bytes::from_static(b"w/"),
        range_end: Bytes::from_static(b"w0"),
        count_only: true,
        serializable,
        ..Default::default()
    };
    let mut client = KvClient::new(cluster.channel(at));
    usize::try_from(client.range(request).await.unwrap().into_inner().count).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_shrinks_while_it_is_written_to() {
    if !is_installed() {
        return;
    }
    let mut cluster = Cluster::start(1, QUICK).await;
    let alone = cluster.id(0).await;
    cluster.ctl_fails(0, &["member", "remove", &alone], "not enough started members");
    let writer = Writer::start(vec![cluster.channel(0)]);
    writer.goes_on().await;

    // From one to two: nothing is written until the second runs, and it can join nevertheless.
    let second = cluster.join(0, &[0]).await;
    writer.goes_on().await;

    // The third learns first.
    let third = cluster.prepare_joining(&[0, second]);
    let peers = format!("--peer-urls={}", cluster.peer_url(third));
    let added = cluster.ctl(second, &["member", "add", "n3", "--learner", &peers]).await;
    let learner = added.split_whitespace().nth(1).unwrap().to_owned();
    let more = ["member", "add", "n4", "--learner", "--peer-urls=http://127.0.0.1:1"];
    cluster.ctl_fails(0, &more, "too many learner members in cluster");
    cluster.ctl_fails(
        0,
        &["member", "promote", &learner],
        "can only promote a learner member which is in sync with leader",
    );
    cluster.spawn(third);
    cluster.logged(third, "published").await;
    cluster.ctl_fails(third, &["put", "k", "v"], "rpc not supported for learner");
    assert!(cluster.status(third).await.unwrap().is_learner);
    assert!(cluster.read(third, b"w/00000000", true).await.is_some());
    assert!(cluster.read(third, b"w/00000000", false).await.is_none(), "not linearizable");
    // Through whoever it is asked, the leader decides.
    for at in [0, second] {
        if cluster.leader().await != at {
            let promoted = cluster.ctl(at, &["member", "promote", &learner]).await;
            assert!(promoted.contains("promoted in cluster"), "{promoted}");
            break;
        }
    }
    cluster.settle().await;
    cluster.ctl_fails(0, &["member", "promote", &learner], "can only promote a learner member");
    writer.goes_on().await;

    let fourth = cluster.join(second, &[0, second, third]).await;
    let fifth = cluster.join(fourth, &[0, second, third, fourth]).await;
    let all = [0, second, third, fourth, fifth];
    writer.turn_to(all.map(|at| cluster.channel(at)).to_vec());
    writer.goes_on().await;
    let list = cluster.ctl(fifth, &["member", "list"]).await;
    assert_eq!(list.matches(", started, ").count(), 5, "{list}");

    // The leader itself goes, and stops; the others go on without it.
    let leader = cluster.leader().await;
    let id = cluster.id(leader).await;
    let removed = cluster.ctl(leader, &["member", "remove", &id]).await;
    assert!(removed.contains(&format!("{id} removed from cluster")), "{removed}");
    cluster.removed(leader).await;
    let rest: Vec<usize> = all.into_iter().filter(|at| *at != leader).collect();
    writer.turn_to(rest.iter().map(|at| cluster.channel(*at)).collect());
    writer.goes_on().await;
    cluster.ctl_fails(rest[0], &["member", "remove", &id], "member not found");
    // It does not come back, whether it knows or not.
    cluster.spawn(leader);
    cluster.removed(leader).await;

    // One dies for good, and another takes its place.
    let (dead, dead_id) = (rest[3], cluster.id(rest[3]).await);
    cluster.kill(dead);
    writer.turn_to(rest[..3].iter().map(|at| cluster.channel(*at)).collect());
    cluster.ctl(rest[0], &["member", "remove", &dead_id]).await;
    writer.goes_on().await;
    let spare = cluster.join(rest[1], &rest[..3]).await;
    cluster.spawn(dead);
    cluster.removed(dead).await;

    let written = writer.end().await;
    for at in [rest[0], rest[1], rest[2], spare] {
        assert!(written <= count(&cluster, at, false).await, "what was acknowledged is there");
    }
    // Through a restart of everything it stays so, whatever the flags said once.
    for at in [rest[0], rest[1], rest[2], spare] {
        cluster.kill(at);
    }
    for at in [rest[0], rest[1], rest[2], spare] {
        cluster.spawn(at);
    }
    cluster.settle().await;
    let list = cluster.ctl(spare, &["member", "list"]).await;
    assert_eq!(list.lines().count(), 4, "{list}");
    assert!(written <= count(&cluster, spare, false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_and_addresses_move_as_the_operator_says() {
    if !is_installed() {
        return;
    }
    let mut cluster = Cluster::start(3, QUICK).await;
    let leader = cluster.leader().await;
    let (next, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (next_id, other_id) = (cluster.id(next).await, cluster.id(other).await);
    let moved = cluster.ctl(leader, &["move-leader", &next_id]).await;
    assert!(moved.contains("Leadership transferred from"), "{moved}");
    assert_eq!(cluster.leader().await, next);
    cluster.ctl_fails(next, &["move-leader", "1234"], "bad leader transferee");
    cluster.ctl_fails(other, &["move-leader", &other_id], "no leader endpoint given");

    // A member moves to another port.
    let taken = format!("--peer-urls={}", cluster.peer_url(leader));
    cluster.ctl_fails(0, &["member", "update", &other_id, &taken], "Peer URLs already exists");
    let url = "--peer-urls=http://127.0.0.1:1";
    cluster.ctl_fails(0, &["member", "update", "1234", url], "member not found");
    cluster.ctl_fails(0, &["member", "remove", "1234"], "member not found");
    cluster.ctl_fails(0, &["member", "promote", "1234"], "member not found");
    assert!(cluster.stop(other));
    cluster.members[other].peer_port = crate::harness::free_port();
    let moved = format!("--peer-urls={}", cluster.peer_url(other));
    let updated = cluster.ctl(leader, &["member", "update", &other_id, &moved]).await;
    assert!(updated.contains(&format!("{other_id} updated in cluster")), "{updated}");
    // What founded the cluster does not describe it any more.
    cluster.members[other].joins = Some(cluster.initial_cluster());
    cluster.spawn(other);
    cluster.settle().await;
    let list = cluster.ctl(other, &["member", "list"]).await;
    assert!(list.contains(&cluster.peer_url(other)), "{list}");
    // Both ways: it alone makes the majority with each of the others.
    cluster.kill(next);
    cluster.fill(&[leader, other], "after", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_left_goes_on_alone_when_it_is_told_to() {
    let mut cluster = Cluster::start(3, QUICK).await;
    cluster.fill(&[0, 1, 2], "w", 100).await;
    eventually("the third has it all", async || {
        (count(&cluster, 2, true).await == 100).then_some(())
    })
    .await;
    for at in 0..3 {
        cluster.kill(at);
    }
    cluster.spawn_with(2, &["--force-new-cluster"]);
    cluster.settle().await;
    assert_eq!(count(&cluster, 2, false).await, 100);
    cluster.fill(&[2], "w/more", 10).await;
    assert!(cluster.log(2).contains("this is the only member from now on"));
    // One of the others would take part in something else: it is told, and stops.
    cluster.spawn(0);
    cluster.removed(0).await;

    cluster.kill(2);
    cluster.spawn(2);
    cluster.settle().await;
    assert_eq!(count(&cluster, 2, false).await, 110);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_join_is_told_why() {
    let mut cluster = Cluster::start(1, QUICK).await;
    let stranger = cluster.prepare_joining(&[0]);
    assert_refused(cluster.command(stranger), &["Add this one first", "member add n2"]);
    let nobody = cluster.prepare_joining(&[]);
    assert_refused(cluster.command(nobody), &["names no other member"]);
    assert!(cluster.stop(0));
    assert_refused(cluster.command(stranger), &["is the cluster running"]);
    let mut forced = cluster.command(stranger);
    forced.arg("--force-new-cluster");
    assert_refused(forced, &["holds no data to go on with"]);
}
