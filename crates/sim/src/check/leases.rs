//! Leases: none ends before the time that was promised to its client, none is renewed once it is
//! gone, and none is immortal. Revoked ones may go at any time.

use std::collections::BTreeMap;

use quorate_kv::{Command, KvError, Response};

use super::Finding;
use crate::plan::DRIFT_PERMILLE;

/// All leases that were ever granted.
#[derive(Default)]
pub(super) struct Leases {
    /// How far clocks may be off.
    drift_permille: u64,
    held: BTreeMap<i64, Held>,
}

#[derive(Debug)]
struct Held {
    ttl_us: u64,
    /// Until when its clients may rely on it, at least.
    promised_until: u64,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: u64,
    /// Whether its time was up, rather than that somebody revoked it.
    expired: bool,
}

impl Leases {
    pub(super) fn allow_drift(&mut self, drift_permille: u64) {
        self.drift_permille = drift_permille;
    }

    /// A command was committed, and this came of it.
    pub(super) fn on_commit(
        &mut self,
        now: u64,
        command: &Command,
        response: &Result<Response, KvError>,
    ) -> Finding {
        if response.is_err() {
            return Ok(());
        }
        match command {
            Command::LeaseGrant { id, ttl_seconds } => {
                let ttl_us = 1_000_000 * ttl_seconds.unsigned_abs();
                self.held.insert(*id, Held { ttl_us, promised_until: 0, ended: None });
                Ok(())
            }
            Command::LeaseRevoke { id } => self.end(*id, Ended { at: now, expired: false }),
            Command::LeaseExpire { id, .. } => self.end(*id, Ended { at: now, expired: true }),
            _ => Ok(()),
        }
    }

    /// A client was told that it has the lease from now on, which it had asked for at `asked_at`.
    pub(super) fn on_promise(&mut self, id: i64, asked_at: u64) -> Finding {
        let Some(held) = self.held.get_mut(&id) else {
            return Err(format!("lease {id} was promised and never granted"));
        };
        // Members count in whole milliseconds, and by a clock that is somewhat fast. By one that is
        // wholly wrong nothing is promised.
        let lives_us = match self.drift_permille <= DRIFT_PERMILLE {
            true => held.ttl_us * 1000 / (1000 + self.drift_permille),
            false => 1_000,
        };
        held.promised_until = held.promised_until.max(asked_at + lives_us - 1_000);
        match held.ended {
            Some(ended) if ended.at < asked_at => {
                Err(format!("lease {id} ended at {} us and was renewed later", ended.at))
            }
            Some(ended) => held.check_end(id, ended),
            None => Ok(()),
        }
    }

    /// Leases that have not ended.
    pub(super) fn alive(&self) -> usize {
        self.held.values().filter(|held| held.ended.is_none()).count()
    }

    /// How many ended because their time was up.
    pub(super) fn expired(&self) -> usize {
        let expired = |held: &&Held| held.ended.is_some_and(|ended| ended.expired);
        self.held.values().filter(expired).count()
    }

    fn end(&mut self, id: i64, ended: Ended) -> Finding {
        let Some(held) = self.held.get_mut(&id) else {
            return Err(format!("lease {id} ended and was never granted"));
        };
        held.ended = Some(ended);
        held.check_end(id, ended)
    }
}

impl Held {
    fn check_end(&self, id: i64, ended: Ended) -> Finding {
        if ended.expired && ended.at < self.promised_until {
            return Err(format!(
                "lease {id} ends at {} us, and was promised until {}",
                ended.at, self.promised_until
            ));
        }
        Ok(())
    }
}
