//! What a replica is whichever engine it runs: its settings, what waits in it, and the effects that
//! gather until they are asked for.

use quorate_raft::{Entry, Role, Snapshot};
use quorate_types::{Index, Mark, NodeId, Term, bug};

use crate::proposals::{Asked, Proposals};
use crate::reads::Reads;
use crate::snapshots::{Chase, Snapshots};
use crate::storage::LogInMemory;
use crate::{Config, ENVELOPE_BYTES, Effects, Refusal, RequestId, Write};

pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) proposals: Proposals,
    pub(crate) reads: Reads,
    pub(crate) snapshots: Snapshots,
    pub(crate) applied: Index,
    /// Who can be asked; [`NodeId::NONE`] while nobody can.
    pub(crate) leader: NodeId,
    pub(crate) now_ticks: u64,
    pub(crate) snapshot_made_ticks: u64,
    /// Whether one was asked for that is not ready yet.
    pub(crate) making_snapshot: bool,
    /// How often the membership in force was set.
    pub(crate) memberships: u64,
    /// Where in the log that was; after a start, up to where the log was applied then.
    pub(crate) membership_index: Index,
    pub(crate) effects: Effects,
}

/// What an engine tells of itself.
pub(crate) struct EngineStatus {
    pub(crate) term: Term,
    pub(crate) commit: Index,
    pub(crate) last: Index,
    pub(crate) role: Role,
}

/// A write that was handed out and is not durable yet.
pub(crate) struct PendingWrite<R> {
    pub(crate) write: Write,
    /// What the engine wants done when it is.
    pub(crate) responses: R,
    pub(crate) since_ticks: u64,
}

impl Core {
    pub(crate) fn new(config: Config, applied: Index) -> Self {
        Core {
            proposals: Proposals::default(),
            reads: Reads::new(config.seed),
            snapshots: Snapshots::new(applied),
            applied,
            leader: NodeId::NONE,
            now_ticks: 0,
            snapshot_made_ticks: 0,
            making_snapshot: false,
            memberships: 1,
            membership_index: applied,
            effects: Effects::default(),
            config,
        }
    }

    pub(crate) fn on_propose(&mut self, request: RequestId, entry: bytes::Bytes) {
        let bytes = entry.len().saturating_sub(ENVELOPE_BYTES) as u64;
        if self.config.command_bytes_max < bytes {
            let bytes_max = self.config.command_bytes_max;
            self.effects.refused.push((request, Refusal::TooLarge { bytes, bytes_max }));
            return;
        }
        self.proposals.stage(request, entry, self.now_ticks);
    }

    /// The next proposals of the turn, as many as fit into a message, if there is somebody to take
    /// them; without a leader all of them wait for one.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<(Asked, Entry)>> {
        if !self.proposals.has_staged() {
            return None;
        }
        if self.leader.is_none() {
            self.park();
            return None;
        }
        Some(self.proposals.take_staged(self.config.message_bytes_max))
    }

    /// Lets the proposals of the turn wait for somebody who takes them.
    pub(crate) fn park(&mut self) {
        self.proposals.park(&self.config, &mut self.effects.refused);
    }

    /// There is somebody again, if there is a leader.
    pub(crate) fn unpark(&mut self) {
        if !self.leader.is_none() {
            self.proposals.unpark();
        }
    }

    /// Who can be asked is another one now.
    pub(crate) fn on_leader(&mut self, leader: NodeId) {
        if leader == self.leader {
            return;
        }
        self.leader = leader;
        if bug!("unknown-is-called-refused") {
            self.proposals.refuse_placed(&mut self.effects.refused);
        }
        self.reads.on_leader_change(&mut self.effects.reads);
        self.unpark();
    }

    /// Ends what waited too long for a leader.
    pub(crate) fn expire(&mut self) {
        let ticks_max = self.config.parked_ticks_max;
        self.proposals.expire(ticks_max, self.now_ticks, &mut self.effects.refused);
        self.reads.expire(self.now_ticks, &mut self.effects.reads);
    }

    pub(crate) fn answer_reads(&mut self) {
        self.reads.on_applied(self.applied, &mut self.effects.reads);
    }

    pub(crate) fn on_flushed(&mut self, index: Index) {
        // A flush may be reported before the entries it holds are reported as applied.
        self.snapshots.on_flushed(index.min(self.applied));
    }

    pub(crate) fn on_snapshot_made(&mut self) {
        self.snapshot_made_ticks = self.now_ticks;
        self.making_snapshot = false;
    }

    /// Whether whoever needed the snapshot that is kept has caught up or gone: it pins storage for
    /// nothing.
    pub(crate) fn is_snapshot_idle(&self) -> bool {
        let patience = self.peer_patience_ticks();
        self.snapshots.none_sending() && self.snapshot_made_ticks + patience < self.now_ticks
    }

    /// How long a peer that needs something may stand still before nothing is kept for it.
    fn peer_patience_ticks(&self) -> u64 {
        10 * u64::from(self.config.election_ticks)
    }

    /// A snapshot is in place at its peer, or failed, while the log reaches to `last`. Whether none is on
    /// its way any more.
    pub(crate) fn on_snapshot_sent(&mut self, peer: NodeId, ok: bool, last: Index) -> bool {
        let until_ticks = self.now_ticks + self.peer_patience_ticks();
        self.snapshots.on_sent(peer, ok.then_some(Chase { goal: last, until_ticks }))
    }

    /// Lets go of the log that was kept for peers which have caught up since their snapshots.
    pub(crate) fn follow_peers(&mut self, matched: impl FnOnce() -> Vec<(NodeId, Index)>) {
        if self.snapshots.is_chased() {
            let patience = self.peer_patience_ticks();
            self.snapshots.follow(&matched(), self.now_ticks, patience);
        }
    }

    pub(crate) fn want_snapshot(&mut self) {
        if !self.making_snapshot {
            self.making_snapshot = true;
            self.effects.make_snapshot = true;
        }
    }

    /// How far `log` may be compacted now, of what the engine takes for applied; does it, and says it.
    pub(crate) fn compact(&mut self, log: &mut LogInMemory, applied: Index) {
        let through =
            self.snapshots.compact_through(&self.config, log.mark(), log.bytes(), |index| {
                log.bytes_through(index)
            });
        // The machine may be in the middle of a batch, of which the engine knows only when it is
        // done: until then it may look at what it believes not to be applied.
        let through = through.map(|through| through.min(applied));
        if let Some(through) = through.filter(|through| log.mark() < *through)
            && let Some(stamp) = log.stamp(through)
        {
            log.compact(through);
            let mark = Mark { index: through, stamp: stamp.0, data: bytes::Bytes::new() };
            self.effects.compact = Some(mark);
        }
    }

    /// Lets go of what can go, if the log is too long: where all of it was flushed before a crash, no
    /// further flush comes that would do it.
    pub(crate) fn compact_if_long(&mut self, log: &mut LogInMemory, applied: Index) {
        if self.config.log_bytes_max < log.bytes() {
            self.compact(log, applied);
        }
    }

    /// A snapshot is in log and machine.
    pub(crate) fn on_installed(&mut self, snapshot: &Snapshot) {
        let index = snapshot.metadata.index;
        self.applied = self.applied.max(index);
        self.snapshots.on_flushed(index);
        self.proposals.forget_through(index);
        self.memberships += 1;
        self.membership_index = index;
    }

    /// Since how many ticks `oldest` waits for the disk, if that is so long that it says something,
    /// and now is the time to do something about it: not with every tick.
    pub(crate) fn is_stalled<R>(&self, oldest: Option<&PendingWrite<R>>) -> bool {
        let Some(oldest) = oldest else { return false };
        let waited = self.now_ticks - oldest.since_ticks;
        // Whatever is done has one election timeout to succeed.
        let again = 2 * u64::from(self.config.election_ticks);
        self.config.write_ticks_max <= waited
            && (waited - self.config.write_ticks_max).is_multiple_of(again)
    }
}

/// Asserts that writes are numbered in order.
pub(crate) fn check_writes<'a, R: 'a>(writes: impl Iterator<Item = &'a PendingWrite<R>> + Clone) {
    for (earlier, later) in writes.clone().zip(writes.skip(1)) {
        assert!(earlier.write.id < later.write.id, "writes are numbered in order");
    }
}
