//! A network in this process that loses, delays and cuts. Messages are bytes on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_codec::{decode_message, encode_message};
use quorate_raft::{Body, Message};
use quorate_types::{NodeId, Term};
use tokio::sync::mpsc;
use tokio::time::Instant;

const INBOX_MAX: usize = 1024;

#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Links>>);

struct Links {
    seed: u64,
    inboxes: BTreeMap<NodeId, mpsc::Sender<Message>>,
    cut: BTreeSet<NodeId>,
    /// Of a hundred messages on this way, so many are lost.
    losses: BTreeMap<(NodeId, NodeId), u64>,
    /// Of a hundred messages on this way, so many take up to this long.
    delays: BTreeMap<(NodeId, NodeId), (u64, Duration)>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let (inboxes, cut) = (BTreeMap::new(), BTreeSet::new());
        let (losses, delays) = (BTreeMap::new(), BTreeMap::new());
        Network(Arc::new(Mutex::new(Links { seed, inboxes, cut, losses, delays })))
    }

    /// A new inbox for `id`, in place of the one it had.
    pub(crate) fn join(&self, id: NodeId) -> mpsc::Receiver<Message> {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        self.links(|links| links.inboxes.insert(id, sender));
        inbox
    }

    pub(crate) fn lose(&self, from: NodeId, to: NodeId, percent: u64) {
        self.links(|links| links.losses.insert((from, to), percent));
    }

    pub(crate) fn delay(&self, from: NodeId, to: NodeId, percent: u64, up_to: Duration) {
        self.links(|links| links.delays.insert((from, to), (percent, up_to)));
    }

    pub(crate) fn set_cut(&self, id: NodeId, is_cut: bool) {
        self.links(|links| match is_cut {
            true => links.cut.insert(id),
            false => links.cut.remove(&id),
        });
    }

    /// Sends, without waiting. What meets a full inbox is lost, as is what meets none.
    pub(crate) fn send(&self, message: Message) {
        let (from, to) = (message.from, message.to);
        let found = self.links(|links| {
            let inbox = links.inboxes.get(&to)?.clone();
            let is_cut = links.cut.contains(&from) || links.cut.contains(&to);
            let losses = links.losses.get(&(from, to)).copied().unwrap_or(0);
            let (slow, up_to) = links.delays.get(&(from, to)).copied().unwrap_or_default();
            if is_cut || links.percent() < losses {
                return None;
            }
            let delay = match links.percent() < slow {
                true => up_to * links.percent() as u32 / 100,
                false => Duration::ZERO,
            };
            Some((inbox, delay))
        });
        let Some((inbox, delay)) = found else { return };
        let mut bytes = BytesMut::new();
        encode_message(&message).iter().for_each(|part| bytes.extend_from_slice(part));
        let bytes = bytes.freeze();
        let deliver = move |bytes: Bytes| {
            let message = decode_message(bytes).expect("what was sent can be read");
            let _ = inbox.try_send(message);
        };
        if delay.is_zero() {
            deliver(bytes);
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                deliver(bytes);
            });
        }
    }

    fn links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

impl Links {
    /// 0 to 99, from the seed (splitmix64).
    fn percent(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100
    }
}

fn beat() -> Message {
    let body = Body::HeartbeatReply { context: Bytes::new() };
    Message { to: NodeId(2), from: NodeId(1), term: Term(1), body }
}

#[tokio::test(start_paused = true)]
async fn the_network_loses_as_many_as_it_should() {
    const SENT: u64 = 1000;
    let network = Network::new(1);
    let mut inbox = network.join(NodeId(2));
    network.lose(NodeId(1), NodeId(2), 10);
    let mut lost = 0;
    for _ in 0..SENT {
        network.send(beat());
        lost += u64::from(inbox.try_recv().is_err());
    }
    let want = SENT / 10;
    assert!((want - want / 10..=want + want / 10).contains(&lost), "{lost} of {SENT} were lost");
    network.set_cut(NodeId(1), true);
    network.send(beat());
    assert!(inbox.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_to_at_least_half_of_what_they_may() {
    const SENT: u32 = 1000;
    let (network, up_to) = (Network::new(1), Duration::from_millis(100));
    let mut inbox = network.join(NodeId(2));
    network.delay(NodeId(1), NodeId(2), 10, up_to);
    let started = Instant::now();
    for _ in 0..SENT {
        network.send(beat());
        inbox.recv().await.unwrap();
    }
    let took = started.elapsed();
    // One in ten is slow, and takes half of the longest delay on average; half of that is enough.
    let expected = up_to * SENT / 10 / 2;
    assert!(expected / 2 <= took, "{took:?}");
}
