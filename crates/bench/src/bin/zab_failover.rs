//! How long an ensemble of three is without a leader: ZAB nodes on loopback, over gometa's lanes.
//!
//! ```text
//! cargo run --release -p quorate-bench --bin zab_failover
//! ```
//! Counted is from the moment the leader is killed, or told to resign, until a write that a follower
//! asks for after it is committed and applied there. With a member gone the two that are left cannot
//! be all that agree, so their votes must stand for the finalize wait, 200 ms; when the leader
//! resigns, all three agree and nobody waits. Nothing is synced to a disk.
//!
//! There is no peer in this run: gometa has no build of its own that could be started here.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Table, presets};
use quorate_gometa::{
    ElectionSite, Kill, Lanes, MemoryActions, NoCustomRequests, Peer, RequestQueue, SiteConfig,
    SiteHandle, run_server,
};
use quorate_zab::{Command, Outcome, PeerStatus};
use tokio::task::JoinHandle;

/// Measures failover of a ZAB ensemble.
#[derive(Parser)]
struct Options {
    /// How often each case is measured.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
}

struct Node {
    own: Peer,
    actions: Arc<MemoryActions>,
    requests: Arc<RequestQueue>,
    handle: SiteHandle,
    kill: Kill,
    task: JoinHandle<()>,
}

impl Node {
    async fn start(
        own: Peer,
        members: &[Peer],
        lanes: Lanes,
        actions: Arc<MemoryActions>,
    ) -> Result<Node, Box<dyn Error>> {
        let config = SiteConfig::voter(own, members);
        let mut site = ElectionSite::create(config, lanes, actions.clone()).await?;
        let (handle, kill) = (site.handle(), Kill::new());
        let requests = Arc::new(RequestQueue::new(100));
        let (taken, switch) = (Arc::clone(&requests), kill.clone());
        let task = tokio::spawn(async move {
            let served = run_server(&mut site, &*taken, None::<&NoCustomRequests>, &switch).await;
            if let Err(error) = served {
                eprintln!("a node ended: {error}");
            }
        });
        Ok(Node { own, actions, requests, handle, kill, task })
    }

    async fn serves(&self) -> Result<(), Box<dyn Error>> {
        self.handle.status().wait_for(|now| now.is_serving).await?;
        Ok(())
    }

    fn leads(&self) -> bool {
        self.handle.status().borrow().status == PeerStatus::Leading
    }

    /// Asks until it is done.
    async fn set(&self, key: &str) {
        loop {
            let outcome = self.requests.request(Command::set(key, "x")).await;
            if matches!(outcome, Outcome::Committed { .. }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds = Options::parse().rounds.max(1);
    let mut bound = Vec::new();
    for _ in 0..3 {
        let any = "127.0.0.1:0".parse()?;
        let lanes = Lanes::bind(any, any).await?;
        let election = lanes.election_address().ok_or("no election port")?;
        let message = lanes.message_address().ok_or("no message port")?;
        bound.push((lanes, Peer::new(election, message)));
    }
    let members: Vec<Peer> = bound.iter().map(|(_, own)| *own).collect();
    let mut nodes = Vec::new();
    for (lanes, own) in bound {
        nodes.push(Node::start(own, &members, lanes, Arc::default()).await?);
    }

    let (mut killed, mut resigned) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let leader = leading(&nodes).await?;
        let node = nodes.swap_remove(leader);
        let began = Instant::now();
        node.kill.kill();
        nodes[0].set(&format!("killed {round}")).await;
        killed.push(began.elapsed());
        node.task.await?;
        let lanes = Lanes::bind(node.own.election, node.own.message).await?;
        nodes.push(Node::start(node.own, &members, lanes, node.actions).await?);

        let leader = leading(&nodes).await?;
        let began = Instant::now();
        let epoch = nodes[leader].handle.status().borrow().epoch;
        nodes[leader].handle.resign().await;
        let follower = &nodes[(leader + 1) % 3];
        follower.handle.status().wait_for(|now| epoch < now.epoch).await?;
        follower.set(&format!("resigned {round}")).await;
        resigned.push(began.elapsed());
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header(["leader", "rounds", "median ms", "p99 ms", "most ms"]);
    for (what, mut times) in [("killed", killed), ("resigned, all agree", resigned)] {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let shown = [at(50), at(99), at(100)].map(|ms| format!("{ms:.1}"));
        let [median, p99, most] = shown;
        table.add_row([what.to_owned(), rounds.to_string(), median, p99, most]);
    }
    println!("{table}");
    for node in nodes {
        node.kill.kill();
        node.task.await?;
    }
    Ok(())
}

/// Which of them leads, once all of them serve.
async fn leading(nodes: &[Node]) -> Result<usize, Box<dyn Error>> {
    loop {
        for node in nodes {
            node.serves().await?;
        }
        if let Some(at) = nodes.iter().position(Node::leads) {
            return Ok(at);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
