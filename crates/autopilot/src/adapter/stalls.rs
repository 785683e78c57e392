//! Who stores nothing although there is something to store: a member whose process runs and whose disk
//! hangs is heard from all the time.

use std::collections::BTreeMap;

use quorate_types::{Index, NodeId};

use crate::server::ServerStats;
use crate::time::{Span, Time};

/// What a leader saw of its peers' logs, look after look.
#[derive(Clone, Debug, Default)]
pub struct Stalls {
    peers: BTreeMap<NodeId, Seen>,
    looked_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    matched: Index,
    /// Whether it had all that there was.
    had_all: bool,
    /// Since when it has not moved although there was more for it.
    since: Time,
}

impl Stalls {
    /// A look: how far each peer matches, and where the leader's own log ends. Peers that are not named
    /// are forgotten.
    pub fn look(&mut self, now: Time, last: Index, matched: impl Iterator<Item = (NodeId, Index)>) {
        let before = std::mem::take(&mut self.peers);
        self.looked_at = now;
        self.peers.extend(matched.map(|(id, matched)| {
            let waits = |seen: &&Seen| !seen.had_all && matched <= seen.matched;
            let since = before.get(&id).filter(waits).map_or(now, |seen| seen.since);
            (id, Seen { matched, had_all: last <= matched, since })
        }));
    }

    /// Stats with this taken for a lack of contact: how long the peer has stored nothing counts if it is
    /// longer than how long it was silent.
    #[must_use]
    pub fn weigh(&self, id: NodeId, stats: ServerStats) -> ServerStats {
        let stalled = match self.peers.get(&id) {
            Some(seen) if !seen.had_all => self.looked_at.since(seen.since),
            _ => Span::ZERO,
        };
        // One that was never heard from stays so.
        match stats.last_contact.is_negative() {
            true => stats,
            false => ServerStats { last_contact: stats.last_contact.max(stalled), ..stats },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stores_nothing_for_long_is_out_of_contact() {
        let peer = NodeId(2);
        let mut stalls = Stalls::default();
        let at = |seconds: i64| Time::from_unix(100 + seconds, 0);
        // Seconds, the end of the leader's log, how far the peer matches, for how long it has stalled.
        for (seconds, last, matched, want) in [
            (0, 10, 10, 0),
            // Behind from now on; that it had all before is no stall.
            (100, 20, 10, 0),
            (102, 30, 10, 2),
            (104, 30, 10, 4),
            // It moves, and is behind all the same.
            (106, 40, 12, 0),
            (108, 40, 12, 2),
            (110, 40, 40, 0),
            (200, 40, 40, 0),
            (202, 41, 40, 0),
            (204, 42, 42, 0),
        ] {
            stalls.look(at(seconds), Index(last), [(peer, Index(matched))].into_iter());
            let heard = ServerStats { last_contact: Span(5), ..ServerStats::default() };
            let contact = stalls.weigh(peer, heard).last_contact;
            assert_eq!(contact, Span::from_secs(want).max(Span(5)), "after {seconds} s");
        }
        stalls.look(at(300), Index(50), [(peer, Index(42))].into_iter());
        stalls.look(at(302), Index(50), [(peer, Index(42))].into_iter());
        let never = ServerStats { last_contact: Span(-1), ..ServerStats::default() };
        assert_eq!(stalls.weigh(peer, never).last_contact, Span(-1));
        stalls.look(at(304), Index(50), std::iter::empty());
        assert_eq!(
            stalls.weigh(peer, ServerStats::default()).last_contact,
            Span::ZERO,
            "forgotten"
        );
    }
}
