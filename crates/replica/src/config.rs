//! The settings of one replica, checked once.

use quorate_types::NodeId;

use crate::Engine;

/// All bounds and times of one replica. Times are in ticks; a tick is the heartbeat interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this is.
    pub node: NodeId,
    /// Which engine orders commands. All members run the same, and always the same.
    pub engine: Engine,
    /// How long a tick is, for an engine that counts milliseconds.
    pub tick_ms: u64,
    /// Where this replica's chance starts, and which life of it this is: it must differ between
    /// nodes and between two lives of one node.
    pub seed: u64,
    /// Base election timeout.
    pub election_ticks: u32,
    /// A leader sends heartbeats every so many ticks.
    pub heartbeat_ticks: u32,
    /// A command longer than this is refused.
    pub command_bytes_max: u64,
    /// Commands appended by a leader that are not committed yet, or not durable here. One more batch is
    /// taken while they are fewer. With ZAB: what is proposed and not yet committed.
    pub uncommitted_bytes_max: u64,
    /// Entries in one append message.
    pub message_bytes_max: u64,
    /// Unacknowledged append messages to one peer, by count.
    pub inflight_count_max: u32,
    /// Unacknowledged append messages to one peer, by bytes.
    pub inflight_bytes_max: u64,
    /// Entries handed to the machine and not yet applied.
    pub applying_bytes_max: u64,
    /// Writes that are not yet durable, over which peers' appends are lost: they send them again.
    pub writes_count_max: usize,
    /// A leader whose oldest write waits so long for its disk hands over to a voter whose disk has
    /// more of the log, if there is one.
    pub write_ticks_max: u64,
    /// Proposals that wait for a leader, by count.
    pub parked_count_max: usize,
    /// Proposals that wait for a leader, by bytes.
    pub parked_bytes_max: u64,
    /// How long after it came a proposal that waits for a leader is refused, and one that a leader was asked
    /// for is not proposed again.
    pub parked_ticks_max: u64,
    /// Reads that wait, over all rounds.
    pub reads_max: usize,
    /// Rounds of read confirmation under way at once; further reads join the next one.
    pub read_rounds_max: usize,
    /// A round that got no answer for so long is asked again (its message may be lost).
    pub read_retry_ticks: u64,
    /// State is flushed after so many applied entries (etcd's `snapshot-count`).
    pub flush_entries: u64,
    /// ... or after so many bytes of them, or after `log_bytes_max` if that is less.
    pub flush_bytes: u64,
    /// ... or after this long, if anything was applied.
    pub flush_ticks: u64,
    /// Entries kept for slow peers behind the flushed state when the log is compacted.
    pub tail_entries: u64,
    /// The log is compacted beyond `tail_entries` when it holds more than this.
    pub log_bytes_max: u64,
}

/// How many times `log_bytes_max` the log may hold of what is committed, before it takes no more: only
/// where state cannot be flushed does it get that far.
const STALLED_FACTOR: u64 = 8;

impl Config {
    /// Defaults for `node`: 100 ms ticks and a second's election timeout in mind, as etcd has.
    pub fn new(node: NodeId, seed: u64) -> Self {
        Config {
            node,
            engine: Engine::Raft,
            tick_ms: 100,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 1,
            command_bytes_max: 1536 * 1024,
            uncommitted_bytes_max: 64 << 20,
            message_bytes_max: 1 << 20,
            inflight_count_max: 256,
            inflight_bytes_max: 16 << 20,
            applying_bytes_max: 16 << 20,
            writes_count_max: 10_000,
            write_ticks_max: 50,
            parked_count_max: 10_000,
            parked_bytes_max: 16 << 20,
            parked_ticks_max: 70,
            reads_max: 100_000,
            read_rounds_max: 4,
            read_retry_ticks: 5,
            flush_entries: 10_000,
            flush_bytes: 16 << 20,
            flush_ticks: 300,
            tail_entries: 5_000,
            log_bytes_max: 64 << 20,
        }
    }

    /// So many bytes of committed entries the log may hold that it cannot let go of. A member that
    /// has them takes no further ones, neither from its leader nor, where it leads, from clients.
    pub fn stalled_bytes_max(&self) -> u64 {
        self.log_bytes_max.saturating_mul(STALLED_FACTOR)
    }

    /// Whether the settings fit together.
    ///
    /// # Errors
    ///
    /// The first that does not, by name.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive: [(&'static str, u64); 15] = [
            ("tick_ms", self.tick_ms),
            ("heartbeat_ticks", self.heartbeat_ticks.into()),
            ("command_bytes_max", self.command_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("message_bytes_max", self.message_bytes_max),
            ("inflight_count_max", self.inflight_count_max.into()),
            ("applying_bytes_max", self.applying_bytes_max),
            ("writes_count_max", self.writes_count_max as u64),
            ("write_ticks_max", self.write_ticks_max),
            ("parked_count_max", self.parked_count_max as u64),
            ("reads_max", self.reads_max as u64),
            ("read_rounds_max", self.read_rounds_max as u64),
            ("flush_entries", self.flush_entries),
            ("flush_bytes", self.flush_bytes),
            ("flush_ticks", self.flush_ticks),
        ];
        if self.node.is_none() {
            return Err(ConfigError::NoNode);
        }
        for (field, value) in positive {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        if self.election_ticks < 2 * self.heartbeat_ticks {
            return Err(ConfigError::ElectionTooSoon {
                election: self.election_ticks,
                heartbeat: self.heartbeat_ticks,
            });
        }
        if self.inflight_bytes_max < self.message_bytes_max {
            return Err(ConfigError::WindowTooSmall {
                window: self.inflight_bytes_max,
                message: self.message_bytes_max,
            });
        }
        Ok(())
    }
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The id 0 means "no node".
    #[error("node is 0, which means no node; give each node its own id")]
    NoNode,
    /// A bound or time of zero would stop everything.
    #[error("{field} is 0; make it at least 1")]
    Zero {
        /// Its name.
        field: &'static str,
    },
    /// One lost heartbeat would start an election.
    #[error(
        "election_ticks is {election}, heartbeat_ticks {heartbeat}: one lost heartbeat would start \
         an election; make it at least {}", 2 * heartbeat
    )]
    ElectionTooSoon {
        /// The election timeout.
        election: u32,
        /// The heartbeat interval.
        heartbeat: u32,
    },
    /// The window would not hold one message.
    #[error("inflight_bytes_max is {window}, below message_bytes_max, {message}")]
    WindowTooSmall {
        /// The window.
        window: u64,
        /// One message.
        message: u64,
    },
}
