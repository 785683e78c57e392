//! Refusals, told to people at a bearable rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_types::NodeId;
use tokio::sync::mpsc;

use crate::event::{NetEvent, Refusal, RefusedBy};

const INTERVAL: Duration = Duration::from_secs(1);

/// Each reason has its own clock, so that a flood of one does not hide another; and each peer that was
/// dialed and refuses, since it matters how many of them do.
#[derive(Debug)]
pub(crate) struct Notes {
    events: mpsc::Sender<NetEvent>,
    clocks: Mutex<BTreeMap<Key, Clock>>,
    refused: AtomicU64,
}

/// Who refused, why, and which peer that was, if it was dialed.
type Key = (RefusedBy, Refusal, Option<NodeId>);

#[derive(Debug)]
struct Clock {
    told: Instant,
    suppressed: u64,
}

impl Notes {
    pub(crate) fn new(events: mpsc::Sender<NetEvent>) -> Notes {
        Notes { events, clocks: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// How many connections were refused, by either side.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn refusal(
        &self,
        by: RefusedBy,
        reason: Refusal,
        peer: Option<NodeId>,
        address: Option<SocketAddr>,
    ) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let Some(suppressed) = self.may_tell(by, reason, peer, Instant::now()) else {
            return;
        };
        tracing::info!(?peer, ?address, ?by, %reason, suppressed, "connection refused");
        // For people: with a full channel there are worse things to tell them.
        let _ = self.events.try_send(NetEvent::Refused { peer, address, by, reason, suppressed });
    }

    /// How many were left out before this one, if this one is to be told.
    fn may_tell(
        &self,
        by: RefusedBy,
        reason: Refusal,
        peer: Option<NodeId>,
        now: Instant,
    ) -> Option<u64> {
        // Unknown reasons share a clock, and so do strangers: nobody must make the map grow by inventing
        // some.
        let peer = peer.filter(|_| by == RefusedBy::Peer);
        let key = match reason {
            Refusal::Other(_) => (by, Refusal::Other(0), peer),
            known => (by, known, peer),
        };
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        match clocks.get_mut(&key) {
            Some(clock) if now.duration_since(clock.told) < INTERVAL => {
                clock.suppressed += 1;
                None
            }
            Some(clock) => {
                clock.told = now;
                Some(std::mem::take(&mut clock.suppressed))
            }
            None => {
                clocks.insert(key, Clock { told: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_a_second() {
        let (events, _inbox) = mpsc::channel(1);
        let notes = Notes::new(events);
        let start = Instant::now();
        for (ms, by, reason, want) in [
            (0, RefusedBy::Us, Refusal::Http, Some(0)),
            (1, RefusedBy::Us, Refusal::Http, None),
            (1, RefusedBy::Us, Refusal::WrongCluster, Some(0)), // another reason
            (2, RefusedBy::Peer, Refusal::Http, Some(0)),       // another side
            (999, RefusedBy::Us, Refusal::Http, None),
            (1_000, RefusedBy::Us, Refusal::Http, Some(2)),
            (1_001, RefusedBy::Us, Refusal::Http, None),
            (2_000, RefusedBy::Peer, Refusal::Other(40), Some(0)),
            (2_001, RefusedBy::Peer, Refusal::Other(41), None), // unknown ones share
        ] {
            let got = notes.may_tell(by, reason, None, start + Duration::from_millis(ms));
            assert_eq!(got, want, "{by:?} {reason} at {ms}");
        }
        for (by, peer, want) in [
            (RefusedBy::Peer, 1, Some(0)),
            (RefusedBy::Peer, 1, None),
            (RefusedBy::Peer, 2, Some(0)), // another peer
            (RefusedBy::Us, 1, Some(0)),
            (RefusedBy::Us, 2, None), // whoever that is
        ] {
            let got = notes.may_tell(by, Refusal::Removed, Some(NodeId(peer)), start);
            assert_eq!(got, want, "{by:?} {peer}");
        }
    }
}
