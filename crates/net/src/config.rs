//! Settings of the transport, checked once before it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{Life, NodeId};

use crate::frame::{FRAME_BYTES_CEILING, FRAME_BYTES_FLOOR};

/// What a node's transport needs to know. Start from [`NetConfig::new`] and change what differs.
///
/// Limits that a peer must respect (`frame_bytes_max`, `snapshot_bytes_max`) are told to it when a
/// connection opens, so the sender checks them first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The cluster. A connection between nodes of two clusters is refused by either side.
    pub cluster: u64,
    /// This node.
    pub node: NodeId,
    /// Which messages this node speaks, by a number that means nothing here. A connection between
    /// nodes that speak others is refused by either side.
    pub dialect: u8,
    /// Which start of this node this is. It must not shrink from one start to the next: a peer that
    /// holds a connection of a later start refuses an earlier one. Leave it 0 if none is kept.
    pub incarnation: u64,
    /// The life of this node's log. Leave it `NONE` if there is none.
    pub life: Life,
    /// The lives by which other nodes are known at the start; see [`Net::set_lives`](crate::Net::set_lives).
    pub lives: BTreeMap<NodeId, Life>,
    /// Who was removed for ever by the start; see [`Net::set_removed`](crate::Net::set_removed).
    pub removed: BTreeSet<NodeId>,
    /// Where the jitter of reconnects starts from.
    pub seed: u64,

    /// Longest payload of one frame, and so of one message, sent or received.
    pub frame_bytes_max: u32,
    /// Payload bytes that may wait for one peer, those being written included.
    pub queue_bytes_max: u64,
    /// Messages that may wait for one peer, those being written included.
    pub queue_count_max: usize,

    /// Time to connect to one address of a peer, and, apart from that, to resolve one name.
    pub connect_timeout_ms: u64,
    /// Time for both hellos, from the moment a connection stands.
    pub hello_timeout_ms: u64,
    /// A ping goes out this often, whether or not messages do.
    pub ping_interval_ms: u64,
    /// A connection on which nothing was heard for this long is dead (half-open).
    pub silence_ms_max: u64,
    /// A connection that took no byte of a waiting write for this long is dead.
    pub write_ms_max: u64,
    /// Wait before the second attempt to connect; doubled with each further one. The real wait lies
    /// between one half of it and the whole. After a connection that lasted the first attempt is made at
    /// once.
    pub backoff_min_ms: u64,
    /// Longest wait between two attempts to connect.
    pub backoff_max_ms: u64,
    /// Time that what is queued for a connected peer is given at shutdown or removal.
    pub linger_ms_max: u64,

    /// Connections from others, after their hello.
    pub inbound_connections_max: usize,
    /// Connections from others that have not said hello yet. One more ends the oldest of the
    /// address that has most of them.
    pub pending_hellos_max: usize,

    /// Snapshots being received at one time.
    pub inbound_snapshots_max: usize,
    /// Snapshots being sent at one time.
    pub outbound_snapshots_max: usize,
    /// Bytes of a snapshot asked from its source and put into one frame.
    pub snapshot_chunk_bytes: u32,
    /// Longest snapshot, sent or received.
    pub snapshot_bytes_max: u64,
    /// What all snapshots sent by this node may use together; `None` is no bound.
    pub snapshot_bytes_per_second_max: Option<u64>,
    /// A snapshot whose source, reader or peer makes no progress of one chunk for this long fails.
    pub snapshot_stall_ms_max: u64,
    /// How long a receiver that has all of a snapshot may take until it is of use there. Its sender waits as
    /// long, at most.
    pub snapshot_use_ms_max: u64,
}

impl NetConfig {
    /// Settings for nodes in one or a few data centres.
    pub fn new(cluster: u64, node: NodeId) -> NetConfig {
        NetConfig {
            cluster,
            node,
            dialect: 0,
            incarnation: 0,
            life: Life::NONE,
            lives: BTreeMap::new(),
            removed: BTreeSet::new(),
            seed: node.0 ^ cluster,
            frame_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            queue_count_max: 4096,
            connect_timeout_ms: 3_000,
            hello_timeout_ms: 5_000,
            ping_interval_ms: 1_000,
            silence_ms_max: 5_000,
            write_ms_max: 5_000,
            backoff_min_ms: 50,
            backoff_max_ms: 3_000,
            linger_ms_max: 500,
            inbound_connections_max: 256,
            pending_hellos_max: 64,
            inbound_snapshots_max: 8,
            outbound_snapshots_max: 8,
            snapshot_chunk_bytes: 256 << 10,
            snapshot_bytes_max: 1 << 40,
            snapshot_bytes_per_second_max: None,
            snapshot_stall_ms_max: 30_000,
            snapshot_use_ms_max: 600_000,
        }
    }

    /// Whether the settings fit together.
    ///
    /// # Errors
    ///
    /// Names the first setting that does not, and what would.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.node.is_none() {
            return Err(ConfigError::NoNode);
        }
        for (name, value) in self.must_be_positive() {
            if value == 0 {
                return Err(ConfigError::Zero { name });
            }
        }
        if !(FRAME_BYTES_FLOOR..=FRAME_BYTES_CEILING).contains(&self.frame_bytes_max) {
            return Err(ConfigError::FrameBytes { bytes_max: self.frame_bytes_max });
        }
        if self.queue_bytes_max < u64::from(self.frame_bytes_max) {
            return Err(ConfigError::QueueTooSmall {
                queue: self.queue_bytes_max,
                frame: self.frame_bytes_max,
            });
        }
        if self.silence_ms_max / 2 < self.ping_interval_ms {
            return Err(ConfigError::SilenceTooShort {
                silence: self.silence_ms_max,
                ping: self.ping_interval_ms,
            });
        }
        if self.backoff_max_ms < self.backoff_min_ms {
            return Err(ConfigError::Backoff {
                min: self.backoff_min_ms,
                max: self.backoff_max_ms,
            });
        }
        Ok(())
    }

    fn must_be_positive(&self) -> [(&'static str, u64); 17] {
        [
            ("queue_count_max", self.queue_count_max as u64),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("hello_timeout_ms", self.hello_timeout_ms),
            ("ping_interval_ms", self.ping_interval_ms),
            ("silence_ms_max", self.silence_ms_max),
            ("write_ms_max", self.write_ms_max),
            ("backoff_min_ms", self.backoff_min_ms),
            ("linger_ms_max", self.linger_ms_max),
            ("inbound_connections_max", self.inbound_connections_max as u64),
            ("pending_hellos_max", self.pending_hellos_max as u64),
            ("inbound_snapshots_max", self.inbound_snapshots_max as u64),
            ("outbound_snapshots_max", self.outbound_snapshots_max as u64),
            ("snapshot_chunk_bytes", u64::from(self.snapshot_chunk_bytes)),
            ("snapshot_bytes_max", self.snapshot_bytes_max),
            ("snapshot_bytes_per_second_max", self.snapshot_bytes_per_second_max.unwrap_or(1)),
            ("snapshot_stall_ms_max", self.snapshot_stall_ms_max),
            ("snapshot_use_ms_max", self.snapshot_use_ms_max),
        ]
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }

    pub(crate) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    pub(crate) fn silence_max(&self) -> Duration {
        Duration::from_millis(self.silence_ms_max)
    }

    pub(crate) fn write_max(&self) -> Duration {
        Duration::from_millis(self.write_ms_max)
    }

    pub(crate) fn linger_max(&self) -> Duration {
        Duration::from_millis(self.linger_ms_max)
    }

    pub(crate) fn snapshot_stall_max(&self) -> Duration {
        Duration::from_millis(self.snapshot_stall_ms_max)
    }
}

/// Why settings do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The node has no id.
    #[error("node is 0, which names no node")]
    NoNode,
    /// A setting that must not be 0.
    #[error("{name} is 0; make it at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// `frame_bytes_max` is out of range.
    #[error(
        "frame_bytes_max is {bytes_max}; it must lie between {FRAME_BYTES_FLOOR} and \
         {FRAME_BYTES_CEILING}"
    )]
    FrameBytes {
        /// What was set.
        bytes_max: u32,
    },
    /// A single message could never be queued.
    #[error(
        "queue_bytes_max is {queue}, frame_bytes_max {frame}: the longest message would never \
             find room; make the queue at least as large"
    )]
    QueueTooSmall {
        /// `queue_bytes_max`.
        queue: u64,
        /// `frame_bytes_max`.
        frame: u32,
    },
    /// One late ping would end a connection.
    #[error("silence_ms_max is {silence}, ping_interval_ms {ping}: one late ping would end a \
             connection; make it at least {}", 2 * ping)]
    SilenceTooShort {
        /// `silence_ms_max`.
        silence: u64,
        /// `ping_interval_ms`.
        ping: u64,
    },
    /// The bounds of the backoff are the wrong way round.
    #[error("backoff_min_ms is {min}, backoff_max_ms {max}: make the second no smaller")]
    Backoff {
        /// `backoff_min_ms`.
        min: u64,
        /// `backoff_max_ms`.
        max: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let good = NetConfig::new(7, NodeId(1));
        assert_eq!(good.check(), Ok(()));
        type Change = fn(&mut NetConfig);
        for (change, want) in [
            ((|c| c.node = NodeId::NONE) as Change, "node is 0"),
            (|c| c.ping_interval_ms = 0, "ping_interval_ms is 0"),
            (|c| c.snapshot_bytes_per_second_max = Some(0), "snapshot_bytes_per_second_max is 0"),
            (|c| c.frame_bytes_max = 10, "frame_bytes_max is 10"),
            (|c| c.frame_bytes_max = u32::MAX, "frame_bytes_max is 4294967295"),
            (|c| c.queue_bytes_max = 1 << 20, "queue_bytes_max is 1048576"),
            (|c| c.silence_ms_max = 1_999, "make it at least 2000"),
            (|c| c.backoff_max_ms = 49, "backoff_min_ms is 50, backoff_max_ms 49"),
        ] {
            let mut config = good.clone();
            change(&mut config);
            let error = config.check().expect_err(want).to_string();
            assert!(error.contains(want), "{error:?} does not say {want:?}");
        }
    }
}
