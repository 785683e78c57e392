//! When the machine's state is flushed and how far the log may be compacted.
//!
//! ```text
//! mark <= flushed <= applied          the log holds everything after mark
//! ```
//! State that is flushed need not be replayed, so the log up to there may go, but for a tail that
//! lets slow peers catch up by log instead of by snapshot.

use quorate_types::{Index, NodeId};

use crate::Config;

/// How many times `log_bytes_max` the log may hold for peers that get snapshots: less than it may hold at all.
const FED_FACTOR: u64 = 6;

/// Bookkeeping for flushes, compaction, and snapshots to peers.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    flushed: Index,
    /// Bytes applied since the flush under way was begun, or since the last one.
    applied_bytes: u64,
    flushing: bool,
    last_flush_ticks: u64,
    /// Peers that get a snapshot, or had one and have not caught up since.
    fed: Vec<Fed>,
}

/// Who needs the log from behind a snapshot on.
#[derive(Debug)]
struct Fed {
    peer: NodeId,
    /// Up to here it needs none of it.
    index: Index,
    /// Since it has the snapshot: what it follows.
    chase: Option<Chase>,
}

/// A peer that follows the log from behind its snapshot on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chase {
    /// It has caught up when it has come so far.
    pub(crate) goal: Index,
    /// When it is given up unless it has come further.
    pub(crate) until_ticks: u64,
}

impl Snapshots {
    pub(crate) fn new(flushed: Index) -> Self {
        Snapshots { flushed, ..Snapshots::default() }
    }

    pub(crate) fn flushed(&self) -> Index {
        self.flushed
    }

    /// Entries of this many bytes were handed to the machine.
    pub(crate) fn on_applying(&mut self, bytes: u64) {
        self.applied_bytes += bytes;
    }

    /// Whether to flush now; then a flush is under way until [`Snapshots::on_flushed`].
    pub(crate) fn flush_due(&mut self, config: &Config, applied: Index, now_ticks: u64) -> bool {
        // Whatever else is wished for: only what is flushed can leave the log.
        let bytes = config.flush_bytes.min(config.log_bytes_max);
        let due = !self.flushing
            && self.flushed < applied
            && (config.flush_entries <= applied - self.flushed
                || bytes <= self.applied_bytes
                || self.last_flush_ticks + config.flush_ticks <= now_ticks);
        if due {
            self.flushing = true;
            self.applied_bytes = 0;
            self.last_flush_ticks = now_ticks;
        }
        due
    }

    pub(crate) fn on_flushed(&mut self, index: Index) {
        self.flushing = false;
        self.flushed = self.flushed.max(index);
    }

    /// A snapshot with state up to `index` goes to a peer.
    pub(crate) fn on_sending(&mut self, peer: NodeId, index: Index) {
        self.fed.retain(|fed| fed.peer != peer || fed.chase.is_none());
        self.fed.push(Fed { peer, index, chase: None });
    }

    /// It is in place there, and from now on the peer follows the log; or it failed. Returns whether no
    /// snapshot is on its way any more.
    pub(crate) fn on_sent(&mut self, peer: NodeId, chase: Option<Chase>) -> bool {
        let sent = self.fed.iter().position(|fed| fed.peer == peer && fed.chase.is_none());
        match (sent, chase) {
            (Some(place), Some(chase)) => self.fed[place].chase = Some(chase),
            (Some(place), None) => drop(self.fed.remove(place)),
            (None, _) => {}
        }
        self.none_sending()
    }

    /// Whether any peer has its snapshot and not yet what followed.
    pub(crate) fn is_chased(&self) -> bool {
        self.fed.iter().any(|fed| fed.chase.is_some())
    }

    /// How far peers have come. Who has caught up, or stands still, or is gone for as long, needs nothing.
    pub(crate) fn follow(
        &mut self,
        matched: &[(NodeId, Index)],
        now_ticks: u64,
        patience_ticks: u64,
    ) {
        self.fed.retain_mut(|fed| {
            let Some(chase) = &mut fed.chase else { return true };
            let at = matched.iter().find(|(peer, _)| *peer == fed.peer).map(|(_, at)| *at);
            if let Some(at) = at.filter(|at| fed.index < *at) {
                fed.index = at;
                chase.until_ticks = now_ticks + patience_ticks;
            }
            fed.index < chase.goal && now_ticks <= chase.until_ticks
        });
    }

    /// Whether no snapshot is on its way to a peer.
    pub(crate) fn none_sending(&self) -> bool {
        self.fed.iter().all(|fed| fed.chase.is_some())
    }

    /// How far the log may be compacted, if that is worth a record.
    pub(crate) fn compact_through(
        &self,
        config: &Config,
        mark: Index,
        log_bytes: u64,
        bytes_through: impl Fn(Index) -> u64,
    ) -> Option<Index> {
        let mut through = self.flushed - config.tail_entries;
        if config.log_bytes_max < log_bytes {
            // Too long in bytes: give up the tail as far as needed, never more than is flushed.
            let excess = log_bytes - config.log_bytes_max / 2;
            let (mut low, mut high) = (mark.max(through), self.flushed);
            while low < high {
                let middle = low + (high - low) / 2;
                if bytes_through(middle) < excess { low = middle.next() } else { high = middle }
            }
            through = through.max(low);
        }
        // A peer that installs the snapshot on its way needs the log right after it. The bound on
        // bytes wins over that: the peer then gets another snapshot.
        let needed = self.fed.iter().map(|fed| fed.index).min();
        if let Some(needed) = needed
            && log_bytes <= FED_FACTOR * config.log_bytes_max
        {
            through = through.min(needed);
        }
        let through = through.min(self.flushed);
        let worth = (config.tail_entries / 2).max(config.flush_entries / 2).max(1);
        let many = mark + worth <= through;
        (many || (config.log_bytes_max < log_bytes && mark < through)).then_some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            flush_entries: 100,
            flush_bytes: 1000,
            flush_ticks: 10,
            tail_entries: 50,
            log_bytes_max: 10_000,
            ..Config::new(NodeId(1), 1)
        }
    }

    #[test]
    fn flushes_come_by_count_bytes_or_age_and_one_at_a_time() {
        let config = config();
        let mut snapshots = Snapshots::new(Index(7));
        assert!(!snapshots.flush_due(&config, Index(7), 1000), "nothing to flush");
        assert!(!snapshots.flush_due(&config, Index(8), 9));
        assert!(snapshots.flush_due(&config, Index(8), 10), "by age");
        assert!(!snapshots.flush_due(&config, Index(1000), 100), "one is under way");
        snapshots.on_flushed(Index(8));
        assert!(!snapshots.flush_due(&config, Index(107), 11));
        assert!(snapshots.flush_due(&config, Index(108), 11), "by count");
        snapshots.on_flushed(Index(108));
        snapshots.on_applying(1000);
        assert!(snapshots.flush_due(&config, Index(109), 12), "by bytes");
        snapshots.on_flushed(Index(109));
        let config = Config { log_bytes_max: 500, ..config };
        snapshots.on_applying(499);
        assert!(!snapshots.flush_due(&config, Index(110), 13));
        snapshots.on_applying(1);
        assert!(snapshots.flush_due(&config, Index(110), 13), "before the log is too long");
    }

    #[test]
    fn the_log_keeps_a_tail_unless_it_is_too_long_in_bytes() {
        let config = config();
        let mut snapshots = Snapshots::new(Index(0));
        snapshots.on_flushed(Index(200));
        // Ten bytes an entry.
        let through = |mark, log_bytes| {
            snapshots.compact_through(&config, Index(mark), log_bytes, |index| index.0 * 10)
        };
        assert_eq!(through(0, 2_000), Some(Index(150)));
        assert_eq!(through(120, 2_000), None, "not worth a record");
        assert_eq!(
            through(0, 11_000),
            Some(Index(200)),
            "bytes beat the tail, flushed beats bytes"
        );
    }

    /// What may go of a log of ten bytes an entry.
    fn through(snapshots: &Snapshots, log_bytes: u64) -> Option<Index> {
        snapshots.compact_through(&config(), Index(0), log_bytes, |index| index.0 * 10)
    }

    const PATIENCE: u64 = 20;

    /// From the first tick on.
    fn chase(goal: u64) -> Option<Chase> {
        Some(Chase { goal: Index(goal), until_ticks: 1 + PATIENCE })
    }

    fn two_fed() -> Snapshots {
        let mut snapshots = Snapshots::new(Index(0));
        snapshots.on_flushed(Index(500));
        snapshots.on_sending(NodeId(2), Index(130));
        snapshots.on_sending(NodeId(3), Index(120));
        snapshots
    }

    #[test]
    fn a_snapshot_on_its_way_keeps_the_log_after_it() {
        let mut snapshots = two_fed();
        assert_eq!(through(&snapshots, 5_000), Some(Index(120)));
        assert_eq!(through(&snapshots, 60_001), Some(Index(500)), "but not for ever");
        assert!(!snapshots.on_sent(NodeId(3), None));
        assert_eq!(through(&snapshots, 5_000), Some(Index(130)));
        assert!(snapshots.on_sent(NodeId(2), None));
        assert_eq!(through(&snapshots, 5_000), Some(Index(450)));
    }

    #[test]
    fn a_peer_that_has_its_snapshot_keeps_the_log_until_it_has_caught_up() {
        let mut snapshots = two_fed();
        assert!(!snapshots.on_sent(NodeId(3), chase(500)));
        assert!(snapshots.on_sent(NodeId(2), chase(510)));
        assert!(snapshots.is_chased() && snapshots.none_sending());
        let mut follow = |two, three, now_ticks| {
            let matched = [(NodeId(2), Index(two)), (NodeId(3), Index(three))];
            snapshots.follow(&matched, now_ticks, PATIENCE);
            through(&snapshots, 50_000)
        };
        assert_eq!(follow(130, 120, 2), Some(Index(120)));
        assert_eq!(follow(140, 499, 20), Some(Index(140)), "the slower one");
        assert_eq!(follow(509, 500, 30), Some(Index(500)), "one has caught up");
        assert_eq!(follow(510, 500, 31), Some(Index(500)));
        assert!(!snapshots.is_chased());
    }

    #[test]
    fn a_peer_that_stands_still_or_is_gone_keeps_nothing_for_long() {
        for matched in [&[(NodeId(2), Index(130))][..], &[]] {
            let mut snapshots = two_fed();
            snapshots.on_sent(NodeId(3), None);
            snapshots.on_sent(NodeId(2), chase(500));
            // Its connection may be down for a moment.
            snapshots.follow(matched, 1 + PATIENCE, PATIENCE);
            assert_eq!(through(&snapshots, 5_000), Some(Index(130)));
            snapshots.follow(matched, 2 + PATIENCE, PATIENCE);
            assert!(!snapshots.is_chased());
        }
    }

    #[test]
    fn another_snapshot_takes_the_place_of_the_one_before() {
        let mut snapshots = two_fed();
        snapshots.on_sent(NodeId(3), chase(500));
        snapshots.on_sending(NodeId(3), Index(300));
        assert_eq!(through(&snapshots, 5_000), Some(Index(130)));
        assert!(!snapshots.on_sent(NodeId(2), None));
        assert!(snapshots.on_sent(NodeId(3), None));
        assert_eq!(through(&snapshots, 5_000), Some(Index(450)));
    }
}
