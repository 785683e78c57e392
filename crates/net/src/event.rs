//! What the transport tells its user, and why it says no.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use quorate_types::NodeId;

use crate::snapshot::IncomingSnapshot;

/// Something that happened on the network.
///
/// `Message`, `Snapshot`, `SnapshotSent` and `Unreachable` wait for room in the channel. `Connected`
/// and `Refused` are for people: they are left out when the channel is full.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetEvent {
    /// A message, whole and unchanged. Its sender need not be a peer of ours: a node that joins
    /// hears from others before it knows them.
    Message {
        /// The node that the connection belongs to.
        from: NodeId,
        /// What was sent. It may share memory with its neighbours on the wire: who keeps a few
        /// bytes of it for long should copy them.
        payload: Bytes,
    },
    /// A snapshot begins to arrive.
    Snapshot {
        /// The node that sends it.
        from: NodeId,
        /// What the sender gave as header.
        header: Bytes,
        /// The rest, as it comes.
        stream: IncomingSnapshot,
    },
    /// A snapshot that [`Net::send_snapshot`](crate::Net::send_snapshot) took is done with. There
    /// is exactly one such event for each, unless the transport is shut down before.
    SnapshotSent {
        /// The node it went to.
        to: NodeId,
        /// The header it was sent with, to tell one from another.
        header: Bytes,
        /// `Ok` when the receiver has confirmed the whole stream.
        result: Result<(), SnapshotError>,
    },
    /// Messages to this peer were lost, or no connection could be made: one event for each failed
    /// attempt, each lost connection, and each time its queue becomes full.
    Unreachable {
        /// The peer.
        to: NodeId,
        /// Whether nobody listens at any of its addresses: the machine is there and the process is not.
        is_absent: bool,
    },
    /// A connection for messages stands.
    Connected {
        /// The node at the other end.
        peer: NodeId,
        /// Which start of that node it is, as it says.
        incarnation: u64,
        /// Whether the peer dialed, so that this connection brings its messages to us.
        inbound: bool,
    },
    /// A connection was refused, by either side. Of each reason about one a second is reported.
    Refused {
        /// The peer that was dialed, or that the stranger claims to be.
        peer: Option<NodeId>,
        /// The other end, where it is known.
        address: Option<SocketAddr>,
        /// Who refused.
        by: RefusedBy,
        /// Why.
        reason: Refusal,
        /// How many refusals for this reason were left out since the last that was reported.
        suppressed: u64,
    },
}

/// Which end refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedBy {
    /// This node.
    Us,
    /// The other end, as it told us.
    Peer,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// The hello names another cluster.
    WrongCluster,
    /// The hello is meant for another node: an address is wrong, or was given to a new owner.
    WrongReceiver,
    /// The hello comes from a node that it cannot come from: none, or the receiver itself.
    WrongSender,
    /// No protocol version is common to both.
    WrongVersion,
    /// A later start of the same node is connected.
    StaleIncarnation,
    /// Too many connections or snapshots.
    Busy,
    /// An HTTP request on the peer port.
    Http,
    /// A TLS handshake on a port without TLS.
    Tls,
    /// The sender's log is not the one by which the refusing side knows the node: it was lost or
    /// replaced, and with it what the node vouched for.
    OtherLife,
    /// Its messages are of another kind than ours: it runs another engine.
    OtherDialect,
    /// The sender was removed from the cluster, for ever.
    Removed,
    /// Neither a hello nor anything else that is known.
    Garbage,
    /// A hello that is damaged or says what no version of this protocol says.
    BadHello,
    /// No hello in time.
    Silent,
    /// A reason that this version does not know, by number.
    Other(u16),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::WrongCluster => "another cluster",
            Refusal::WrongReceiver => "meant for another node",
            Refusal::WrongSender => "from an impossible node",
            Refusal::WrongVersion => "no common protocol version",
            Refusal::StaleIncarnation => "a later start of the node is connected",
            Refusal::Busy => "too many connections",
            Refusal::Http => "an HTTP request on the peer port",
            Refusal::Tls => "a TLS handshake on a port without TLS",
            Refusal::OtherLife => "the node's log is not the one it is known by",
            Refusal::OtherDialect => {
                "it runs another engine; all members of a cluster run the same one"
            }
            Refusal::Removed => "the node was removed from the cluster",
            Refusal::Garbage => "not a peer",
            Refusal::BadHello => "a damaged hello",
            Refusal::Silent => "no hello in time",
            Refusal::Other(code) => return write!(f, "reason {code}"),
        })
    }
}

/// Why something was not queued. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Too much waits for this peer, or too many snapshots are on their way.
    #[error("too much waits for node {to}; the message is dropped")]
    Full {
        /// The peer.
        to: NodeId,
    },
    /// The peer has no addresses.
    #[error("node {to} is not a peer")]
    UnknownPeer {
        /// The node.
        to: NodeId,
    },
    /// Longer than one of both ends takes.
    #[error("{bytes} bytes do not fit into a frame; the limit is {bytes_max}")]
    TooLarge {
        /// The length.
        bytes: u64,
        /// The limit: the smaller of ours and the one the peer told.
        bytes_max: u64,
    },
    /// The transport is shut down.
    #[error("the transport is shut down")]
    Closed,
}

/// Why a snapshot did not get across.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// No connection could be made.
    #[error("cannot connect: {why}")]
    Unreachable {
        /// What the last attempt failed with.
        why: String,
    },
    /// The other end does not want a connection.
    #[error("the connection was refused: {reason}")]
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The receiver let go of the stream before its end.
    #[error("the receiver declined the snapshot")]
    Declined,
    /// Longer than one of both ends takes.
    #[error("the snapshot is longer than {bytes_max} bytes, the limit")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The source failed.
    #[error("cannot read the snapshot: {why}")]
    Source {
        /// What it said.
        why: String,
    },
    /// The stream was damaged or broke the protocol.
    #[error("the stream is damaged: {why}")]
    Damaged {
        /// In which way.
        why: String,
    },
    /// The connection ended before the stream did.
    #[error("the connection was lost: {why}")]
    Lost {
        /// How.
        why: String,
    },
    /// No progress in time.
    #[error("no progress for {ms} ms")]
    TimedOut {
        /// How long.
        ms: u64,
    },
    /// The transport was shut down, or the peer removed.
    #[error("the transport is shut down or the peer is removed")]
    Closed,
}
