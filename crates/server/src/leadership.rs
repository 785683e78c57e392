//! When leadership came and went lately: what a request that ran out of time is put down to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_kv::KvError;
use quorate_types::NodeId;

/// What was seen of leaders.
#[derive(Debug)]
pub(crate) struct Leadership {
    election: Duration,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    leader: Option<NodeId>,
    elected: Option<Instant>,
    lost: Option<Instant>,
}

impl Leadership {
    pub(crate) fn new(election: Duration) -> Self {
        Leadership { election, seen: Mutex::new(Seen::default()) }
    }

    /// Takes what is known at `now`; to be called every heartbeat or so.
    pub(crate) fn look(&self, leader: Option<NodeId>, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.leader == leader {
            return;
        }
        if seen.leader.is_some() {
            seen.lost = Some(now);
        }
        if leader.is_some() {
            seen.elected = Some(now);
        }
        seen.leader = leader;
    }

    /// Why a request that began at `start` has no answer, as etcd puts it: a leader was elected a
    /// little after the request, so the one before had failed; or the leader was lost meanwhile.
    pub(crate) fn timeout(&self, start: Instant) -> KvError {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let after_failure =
            |elected: Instant| start < elected && elected < start + 2 * self.election;
        if seen.elected.is_some_and(after_failure) && seen.lost.is_some() {
            KvError::TimeoutDueToLeaderFail
        } else if seen.lost.is_some_and(|lost| start < lost) {
            KvError::TimeoutDueToConnectionLost
        } else {
            KvError::Timeout
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_what_was_seen() {
        let t0 = Instant::now() + Duration::from_secs(100);
        let at = |ms: u64| t0 + Duration::from_millis(ms);
        let (n1, n2) = (Some(NodeId(1)), Some(NodeId(2)));
        for (looks, start, want) in [
            (&[][..], 0, KvError::Timeout),
            (&[(0, n1)], 50, KvError::Timeout),
            // The first leader ever: no other one failed.
            (&[(500, n1)], 0, KvError::Timeout),
            (&[(0, n1), (100, None)], 50, KvError::TimeoutDueToConnectionLost),
            (&[(0, n1), (100, None)], 150, KvError::Timeout),
            (&[(0, n1), (100, None), (500, n2)], 50, KvError::TimeoutDueToLeaderFail),
            (&[(0, n1), (100, None), (500, n2)], 200, KvError::TimeoutDueToLeaderFail),
            (&[(0, n1), (100, None), (500, n2)], 600, KvError::Timeout),
            // Elected longer after the request than two election timeouts.
            (&[(0, n1), (100, None), (2500, n2)], 50, KvError::TimeoutDueToConnectionLost),
        ] {
            let leadership = Leadership::new(Duration::from_secs(1));
            for (ms, leader) in looks {
                leadership.look(*leader, at(*ms));
            }
            assert_eq!(leadership.timeout(at(start)), want, "{looks:?} {start}");
        }
    }
}
