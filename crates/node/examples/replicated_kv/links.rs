//! The transport. A connection carries one node's messages to one other: its id (8), then frames of
//! a length (4) and a message in etcd's encoding; integers are little-endian.

use std::collections::BTreeMap;

use quorate_codec::{decode_message, encode_message};
use quorate_node::Node;
use quorate_raft::{Body, Message, SnapshotStatus, is_local_target};
use quorate_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{PATIENCE, Result};

const OUTBOX_MAX: usize = 4096;
const FRAME_BYTES_MAX: u32 = 256 << 20;

pub(crate) struct Links {
    pub(crate) node: Node,
    pub(crate) id: NodeId,
    pub(crate) outboxes: BTreeMap<NodeId, (String, mpsc::Sender<Message>)>,
}

impl Links {
    /// `peer` can be reached at `address`.
    pub(crate) fn add(&mut self, peer: NodeId, address: &str) {
        let is_known = self.outboxes.get(&peer).is_some_and(|(known, _)| known == address);
        if peer != self.id && !is_known {
            let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
            tokio::spawn(send_to(self.node.clone(), self.id, address.to_owned(), messages));
            self.outboxes.insert(peer, (address.to_owned(), outbox));
        }
    }

    /// Sends without waiting; what finds no room is lost, as messages may be.
    pub(crate) async fn send(&self, message: Message) {
        let (peer, is_snapshot) = (message.to, is_snapshot(&message));
        let outbox = self.outboxes.get(&peer);
        if outbox.is_none_or(|(_, outbox)| outbox.try_send(message).is_err()) {
            report(&self.node, peer, is_snapshot, false).await;
        }
    }
}

async fn send_to(node: Node, id: NodeId, address: String, mut messages: mpsc::Receiver<Message>) {
    let mut link = None;
    while let Some(message) = messages.recv().await {
        let sent = timeout(PATIENCE, write_to(&mut link, &address, id, &message)).await;
        let is_sent = matches!(sent, Ok(Ok(())));
        link = link.filter(|_| is_sent);
        report(&node, message.to, is_snapshot(&message), is_sent).await;
    }
}

async fn write_to(
    link: &mut Option<TcpStream>,
    address: &str,
    id: NodeId,
    message: &Message,
) -> std::io::Result<()> {
    if link.is_none() {
        let stream = link.insert(TcpStream::connect(address).await?);
        stream.set_nodelay(true)?;
        stream.write_u64_le(id.0).await?;
    }
    let message = encode_message(message).concat();
    let frame = [&(message.len() as u32).to_le_bytes()[..], &message].concat();
    link.as_mut().expect("it is connected now").write_all(&frame).await
}

fn is_snapshot(message: &Message) -> bool {
    matches!(message.body, Body::Snapshot { .. })
}

/// The leader must always hear what became of a snapshot.
async fn report(node: &Node, peer: NodeId, is_snapshot: bool, is_sent: bool) {
    if !is_sent {
        node.report_unreachable(peer).await;
    }
    if is_snapshot {
        let status = if is_sent { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        node.report_snapshot(peer, status).await;
    }
}

pub(crate) async fn accept_peers(listener: TcpListener, id: NodeId, node: Node) {
    while let Ok((stream, address)) = listener.accept().await {
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(error) = hear(BufReader::new(stream), id, node).await {
                tracing::info!("the connection from {address} ended: {error}");
            }
        });
    }
}

async fn hear(mut stream: BufReader<TcpStream>, id: NodeId, node: Node) -> Result<()> {
    let peer = NodeId(stream.read_u64_le().await?);
    loop {
        let bytes = stream.read_u32_le().await?;
        if FRAME_BYTES_MAX < bytes {
            return Err(format!("a message of {bytes} bytes").into());
        }
        let mut frame = Vec::new();
        (&mut stream).take(bytes.into()).read_to_end(&mut frame).await?;
        let message = decode_message(frame.into())?;
        // Nobody speaks for others, or for this node's own storage.
        if message.from != peer || message.to != id || is_local_target(peer) {
            return Err("a message of another node, or for one".into());
        }
        if !matches!(message.body, Body::Propose { .. }) {
            node.step(message).await?;
        }
    }
}
