//! Nodes that can be killed, started again on the same ports, and stopped without being killed.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quorate_gometa::{
    CustomRequestHandler, ElectionSite, Kill, Lanes, MemoryActions, NoCustomRequests, Peer,
    RequestQueue, SiteConfig, SiteError, SiteHandle, SiteStatus, run_server,
};
use quorate_zab::{Command, Outcome, PeerStatus};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Nothing here takes nearly as long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// An address of loopback that the system chooses.
pub(crate) const ANY: &str = "127.0.0.1:0";

pub(crate) fn any() -> SocketAddr {
    ANY.parse().unwrap()
}

/// Ports, bound, and the name that goes with them.
pub(crate) async fn ports() -> (Lanes, Peer) {
    let election = UdpSocket::bind(ANY).await.unwrap();
    let message = TcpListener::bind(ANY).await.unwrap();
    let peer = Peer::new(election.local_addr().unwrap(), message.local_addr().unwrap());
    (Lanes::of(Some(election), Some(message)), peer)
}

/// One node, running.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) actions: Arc<MemoryActions>,
    pub(crate) requests: Arc<RequestQueue>,
    pub(crate) handle: SiteHandle,
    pub(crate) kill: Kill,
    is_stopped: Arc<AtomicBool>,
    task: JoinHandle<Result<(), SiteError>>,
}

/// What a test changes of a node's settings.
pub(crate) type Tune = fn(&mut SiteConfig);

impl Node {
    pub(crate) async fn start(
        lanes: Lanes,
        own: Peer,
        members: &[Peer],
        actions: Arc<MemoryActions>,
        tune: Tune,
    ) -> Node {
        Self::start_with(lanes, own, members, actions, tune, None::<Arc<NoCustomRequests>>).await
    }

    pub(crate) async fn start_with(
        lanes: Lanes,
        own: Peer,
        members: &[Peer],
        actions: Arc<MemoryActions>,
        tune: Tune,
        custom: Option<Arc<impl CustomRequestHandler + 'static>>,
    ) -> Node {
        let mut config = SiteConfig::voter(own, members);
        tune(&mut config);
        let mut site = ElectionSite::create(config, lanes, actions.clone()).await.unwrap();
        let handle = site.handle();
        let (requests, kill) = (Arc::new(RequestQueue::new(1000)), Kill::new());
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (taken, switch) = (Arc::clone(&requests), kill.clone());
        let serve = async move { run_server(&mut site, &*taken, custom.as_deref(), &switch).await };
        let task = tokio::spawn(Stoppable(Box::pin(serve), Arc::clone(&is_stopped)));
        Node { peer: own, actions, requests, handle, kill, is_stopped, task }
    }

    /// As SIGSTOP does it: its ports stay open, and nothing is done any more.
    pub(crate) fn stop(&self, is_stopped: bool) {
        self.is_stopped.store(is_stopped, Ordering::SeqCst);
    }

    /// Ends it, and gives back what it had stored.
    pub(crate) async fn end(self) -> (Peer, Arc<MemoryActions>) {
        self.kill.kill();
        timeout(LONG, self.task).await.expect("a killed node ends").unwrap().unwrap();
        (self.peer, self.actions)
    }

    pub(crate) fn status(&self) -> SiteStatus {
        self.handle.status().borrow().clone()
    }

    pub(crate) async fn set(&self, key: &str, value: &str) -> Outcome {
        let asked = self.requests.request(Command::set(key, value.to_owned()));
        timeout(LONG, asked).await.expect("an outcome comes")
    }

    pub(crate) async fn must_set(&self, key: &str, value: &str) {
        let outcome = self.set(key, value).await;
        assert!(matches!(outcome, Outcome::Committed { .. }), "{key}: {outcome:?}");
    }

    /// Asks again and again: a leader may just have been lost.
    pub(crate) async fn insist(&self, key: &str, value: &str) {
        let began = Instant::now();
        while !matches!(self.set(key, value).await, Outcome::Committed { .. }) {
            assert!(began.elapsed() < LONG, "{key} in vain");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let value = self.actions.value(key)?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    pub(crate) async fn serves(&self) {
        let mut status = self.handle.status();
        let served = timeout(LONG, status.wait_for(|now| now.is_serving)).await;
        served.expect("it serves in time").expect("it lives");
    }
}

/// Polled no more while the flag is set.
struct Stoppable<F>(Pin<Box<F>>, Arc<AtomicBool>);

impl<F: Future> Future for Stoppable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.1.load(Ordering::SeqCst) {
            let waker = context.waker().clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        self.0.as_mut().poll(context)
    }
}

/// An ensemble of so many, each serving.
pub(crate) async fn ensemble(count: usize, tune: Tune) -> Vec<Node> {
    let mut bound = Vec::new();
    for _ in 0..count {
        bound.push(ports().await);
    }
    let members: Vec<Peer> = bound.iter().map(|(_, peer)| *peer).collect();
    let mut nodes = Vec::new();
    for (lanes, own) in bound {
        nodes.push(Node::start(lanes, own, &members, Arc::default(), tune).await);
    }
    for node in &nodes {
        node.serves().await;
    }
    nodes
}

pub(crate) fn members(nodes: &[Node]) -> Vec<Peer> {
    nodes.iter().map(|node| node.peer).collect()
}

/// Which of them leads, once exactly one does. A leader whose quorum was just ended is elected anew.
pub(crate) fn leader(nodes: &[Node]) -> usize {
    let is_leading = |node: &Node| node.status().status == PeerStatus::Leading;
    let began = Instant::now();
    loop {
        let leading: Vec<usize> = (0..nodes.len()).filter(|at| is_leading(&nodes[*at])).collect();
        if let [leader] = leading[..] {
            return leader;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{} lead", leading.len());
        // Not on a thread that the nodes need.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "in vain waited for: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// All have applied the same, in the same order.
pub(crate) async fn agree(nodes: &[&Arc<MemoryActions>]) {
    let is_same = || nodes.windows(2).all(|pair| pair[0].applied() == pair[1].applied());
    until("the same everywhere", is_same).await;
}
