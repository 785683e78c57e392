//! Checksums that are the same on every member: of retained history, where members have compacted to
//! the same place; and of the whole state, where they have also applied the same entries.
//!
//! It covers what compaction keeps, not what storage happens to hold: how far removal has got, or
//! which flushes, restarts and snapshots a member went through, makes no difference.

use crate::error::{KvError, StoreError};
use crate::index::Stamp;
use crate::read::{OVERTAKEN_MAX, STEP_KEYS};
use crate::response::{HashKvResponse, HashResponse};
use crate::store::Store;

impl Store {
    /// CRC-32C over the whole state: history, leases, alarms, members and
    /// settings. It reads every row. Only
    /// members that stand still can be compared.
    ///
    /// # Errors
    ///
    /// As [`Store::hash_kv`]; `Compacted` if compactions come too fast.
    ///
    /// Source: etcd's `Hash`; the number is our own.
    pub fn hash(&self) -> Result<HashResponse, KvError> {
        let (revision, rest) = {
            let state = self.state()?;
            let hash = state.alarms.hash(state.leases.hash(state.members.hash(0)));
            let hash = match &state.meta.autopilot {
                Some(setting) => crc32c::crc32c_append(hash, &setting.row()),
                None => hash,
            };
            (state.meta.revision, hash)
        };
        let history = self.hash_kv(revision)?;
        let hash = [history.revision, history.compact_revision, i64::from(history.hash)]
            .into_iter()
            .fold(rest, |hash, number| crc32c::crc32c_append(hash, &number.to_be_bytes()));
        Ok(HashResponse { revision: history.revision, hash })
    }

    /// CRC-32C over every retained change up to `revision` (0: all), key by key. It reads every row
    /// of those.
    ///
    /// Two members' hashes can be compared when `compact_revision` and `hash_revision` are equal.
    ///
    /// # Errors
    ///
    /// `FutureRev`, `Compacted`; `Corrupt` when the storage fails or lacks a row.
    ///
    /// Source: etcd's `HashKV`; the number is our own.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, KvError> {
        for tries in 0.. {
            match self.try_hash(revision, tries == OVERTAKEN_MAX)? {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => {} // overtaken by a compaction
                Err(error) => return Err(self.failed_read(error)),
            }
        }
        unreachable!("a hash that keeps the lock is not overtaken")
    }

    fn try_hash(
        &self,
        revision: i64,
        keeps_lock: bool,
    ) -> Result<Result<Option<HashKvResponse>, StoreError>, KvError> {
        let mut state = self.state()?;
        let (current, compacted) = (state.meta.revision, state.meta.compacted);
        if current < revision {
            return Err(KvError::FutureRev);
        }
        if 0 < revision && revision < compacted {
            return Err(KvError::Compacted);
        }
        let hash_revision = if 0 < revision { revision } else { current };
        let keys_max = if keeps_lock { usize::MAX } else { STEP_KEYS };
        let mut hash = 0;
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let mut found = Vec::new();
            let visit = |stamp: &Stamp| {
                found.push((*stamp, state.overlay.row(stamp.revision).cloned()));
            };
            let from = after.as_deref();
            after = state.index.walk_retained(from, compacted, hash_revision, keys_max, visit);
            let rows = state.rows();
            drop(state);
            for (stamp, row) in found {
                let row = match rows.row(&stamp, row) {
                    Ok(row) => row,
                    Err(error) => return Ok(Err(error)),
                };
                hash = crc32c::crc32c_append(hash, &stamp.revision.to_key());
                hash = crc32c::crc32c_append(hash, &row);
            }
            if after.is_none() {
                break;
            }
            state = self.state()?;
            if state.meta.compacted != compacted {
                return Ok(Ok(None));
            }
        }
        let compact_revision = compacted;
        Ok(Ok(Some(HashKvResponse { revision: current, hash, compact_revision, hash_revision })))
    }
}
