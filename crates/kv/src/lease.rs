//! Leases as every member knows them: how long each was granted for, and which keys belong to it.
//!
//! ```text
//! a key belongs to at most one lease; a key that belongs to one exists
//! ```
//! When a lease ends is not known here: only the leader's clock counts, and it stands in
//! `lessor.rs`. A lease goes when an entry of the log says so, on every member in the same revision.
//!
//! Which keys belong to a lease is not stored a second time: the newest put of a key names its
//! lease. Rows of the table `lease`: id (8 bytes, big-endian) → granted seconds · remaining seconds,
//! 0 if no checkpoint was made · index of the entry that granted it · term and order of the last
//! checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_types::{Index, Term};

use crate::command::LeaseCheckpoint;
use crate::error::KvError;
use crate::wire::{Malformed, Reader, put_signed, put_varint};

/// The longest time a lease may be granted for.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// About what one lease takes in memory, without its keys; also what a change of one takes until it
/// is flushed.
const LEASE_BYTES: usize = 160;

/// A key that is in two maps at once.
type Key = Arc<[u8]>;

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<i64, Lease>,
    /// The lease of each key that has one.
    owners: BTreeMap<Key, i64>,
    /// Ids whose row in storage is out of date.
    changed: BTreeSet<i64>,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// For how long it was granted; at least 1.
    pub(crate) ttl_seconds: i64,
    /// What was left of it at its last checkpoint; 0 before the first, and after a renewal.
    pub(crate) remaining_seconds: i64,
    /// The last checkpoint that was made of it: its term, and its order within that.
    pub(crate) noted: (Term, u64),
    /// The entry that granted it: tells one lease from a later one of the same id.
    pub(crate) granted: Index,
    /// The keys that go with it.
    pub(crate) keys: BTreeSet<Key>,
}

impl Lease {
    /// How long a new leader has to let it live, at least.
    pub(crate) fn promised_seconds(&self) -> i64 {
        if 0 < self.remaining_seconds { self.remaining_seconds } else { self.ttl_seconds }
    }
}

/// Checks what a lease is to be granted for, at the door and again when it is applied.
pub(crate) fn check_grant(id: i64, ttl_seconds: i64) -> Result<(), KvError> {
    // 0 stands for "no lease" wherever a key names one.
    if id == 0 {
        return Err(KvError::LeaseNotFound);
    }
    if LEASE_TTL_SECONDS_MAX < ttl_seconds {
        return Err(KvError::LeaseTTLTooLarge);
    }
    Ok(())
}

impl Leases {
    pub(crate) fn grant(
        &mut self,
        id: i64,
        ttl_seconds: i64,
        granted: Index,
    ) -> Result<i64, KvError> {
        check_grant(id, ttl_seconds)?;
        if self.leases.contains_key(&id) {
            return Err(KvError::LeaseExist);
        }
        let ttl_seconds = ttl_seconds.max(1);
        let noted = (Term(0), 0);
        let keys = BTreeSet::new();
        let lease = Lease { ttl_seconds, remaining_seconds: 0, noted, granted, keys };
        self.leases.insert(id, lease);
        self.changed.insert(id);
        Ok(ttl_seconds)
    }

    /// Takes a lease away that has no keys left.
    pub(crate) fn remove(&mut self, id: i64) {
        let lease = self.leases.remove(&id);
        assert!(lease.is_some_and(|lease| lease.keys.is_empty()), "keys go before their lease");
        self.changed.insert(id);
    }

    /// Notes what is left of a lease; 0: all of it. Not if it is another one by now, nor if a later
    /// checkpoint came first, which may have been made for a renewal. Returns whether it did.
    pub(crate) fn checkpoint(&mut self, place: (Term, u64), checkpoint: &LeaseCheckpoint) -> bool {
        let LeaseCheckpoint { id, granted, remaining_seconds } = *checkpoint;
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        if lease.granted != granted || place <= lease.noted {
            return false;
        }
        lease.noted = place;
        // Never more than was granted, and never a promise of less than nothing.
        lease.remaining_seconds = remaining_seconds.clamp(0, lease.ttl_seconds);
        self.changed.insert(id);
        true
    }

    /// From now on the key belongs to this lease and to no other; 0: to none.
    pub(crate) fn attach(&mut self, key: &[u8], id: i64) {
        let before = self.owner(key);
        if before == id {
            return;
        }
        self.detach(key);
        if id != 0 {
            let key: Key = key.into();
            let lease = self.leases.get_mut(&id).expect("a put names a lease that is there");
            lease.keys.insert(Arc::clone(&key));
            self.owners.insert(key, id);
        }
    }

    /// The key belongs to no lease any more.
    pub(crate) fn detach(&mut self, key: &[u8]) {
        if let Some(id) = self.owners.remove(key) {
            let lease = self.leases.get_mut(&id).expect("a key belongs to a lease that is there");
            assert!(lease.keys.remove(key), "a lease knows its keys");
        }
    }

    /// The lease a key belongs to; 0: none.
    pub(crate) fn owner(&self, key: &[u8]) -> i64 {
        self.owners.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn has(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// All, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn count(&self) -> usize {
        self.leases.len()
    }

    /// A checksum of all leases, the same on every member.
    pub(crate) fn hash(&self, hash: u32) -> u32 {
        self.iter().fold(hash, |hash, (id, lease)| {
            let hash = crc32c::crc32c_append(hash, &id.to_be_bytes());
            crc32c::crc32c_append(hash, &row(lease))
        })
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Memory of changes that are not in storage yet.
    pub(crate) fn changed_bytes(&self) -> usize {
        self.changed.len() * LEASE_BYTES
    }

    /// The rows to write, `None` where one has to go. They count as written from now on.
    pub(crate) fn take_changed(&mut self) -> Vec<([u8; 8], Option<BytesMut>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|id| (id.to_be_bytes(), self.leases.get(&id).map(row))).collect()
    }

    /// Takes one row of the table.
    pub(crate) fn load(&mut self, key: &[u8], row: &[u8]) -> Result<(), Malformed> {
        let (id, lease) = decode(key, row)?;
        self.leases.insert(id, lease);
        Ok(())
    }

    /// Takes which key belongs to which lease, as of the newest puts. False if one of these leases
    /// is not there.
    pub(crate) fn load_owners(&mut self, owners: BTreeMap<Bytes, i64>) -> bool {
        for (key, id) in owners {
            if !self.has(id) {
                return false;
            }
            self.attach(&key, id);
        }
        true
    }
}

fn row(lease: &Lease) -> BytesMut {
    let mut row = BytesMut::new();
    put_signed(&mut row, lease.ttl_seconds);
    put_signed(&mut row, lease.remaining_seconds);
    put_varint(&mut row, lease.granted.0);
    put_varint(&mut row, lease.noted.0.0);
    put_varint(&mut row, lease.noted.1);
    row
}

/// A row as a cluster begins with it whose log is another one: no entry of it has granted the lease,
/// and none has noted what is left of it.
pub(crate) fn refounded(key: &[u8], row: &[u8]) -> Result<BytesMut, Malformed> {
    let (_, lease) = decode(key, row)?;
    let noted = (Term(0), 0);
    Ok(self::row(&Lease { granted: Index(0), noted, ..lease }))
}

/// Reads a row of the table.
pub(crate) fn decode(key: &[u8], row: &[u8]) -> Result<(i64, Lease), Malformed> {
    let id = i64::from_be_bytes(key.try_into().map_err(|_| Malformed("lease id"))?);
    let mut reader = Reader::new(Bytes::copy_from_slice(row));
    let ttl_seconds = reader.signed()?;
    let remaining_seconds = reader.signed()?;
    let granted = Index(reader.varint()?);
    let noted = (Term(reader.varint()?), reader.varint()?);
    reader.end()?;
    if id == 0
        || !(1..=LEASE_TTL_SECONDS_MAX).contains(&ttl_seconds)
        || !(0..=ttl_seconds).contains(&remaining_seconds)
    {
        return Err(Malformed("a lease that cannot be"));
    }
    Ok((id, Lease { ttl_seconds, remaining_seconds, noted, granted, keys: BTreeSet::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases() -> Leases {
        let mut leases = Leases::default();
        for (id, ttl) in [(7, 60), (-3, 5)] {
            leases.grant(id, ttl, Index(9)).unwrap();
        }
        leases
    }

    #[test]
    fn grants_are_checked() {
        for (id, ttl, want) in [
            (0, 5, Err(KvError::LeaseNotFound)),
            (0, i64::MAX, Err(KvError::LeaseNotFound)),
            (7, LEASE_TTL_SECONDS_MAX + 1, Err(KvError::LeaseTTLTooLarge)),
            (7, 5, Err(KvError::LeaseExist)),
            (-3, 5, Err(KvError::LeaseExist)),
            (8, 5, Ok(5)),
            (8, LEASE_TTL_SECONDS_MAX, Ok(LEASE_TTL_SECONDS_MAX)),
            (i64::MIN, 5, Ok(5)),
            (8, 0, Ok(1)),
            (8, i64::MIN, Ok(1)),
        ] {
            assert_eq!(leases().grant(id, ttl, Index(10)), want, "{id} {ttl}");
        }
    }

    #[test]
    fn a_key_belongs_to_one_lease() {
        let mut leases = leases();
        let keys = |leases: &Leases, id| {
            leases.get(id).unwrap().keys.iter().map(|key| key[0]).collect::<Vec<_>>()
        };
        for key in [b"c", b"a", b"b"] {
            leases.attach(key, 7);
        }
        assert_eq!(keys(&leases, 7), b"abc");
        leases.attach(b"b", -3);
        leases.attach(b"c", 0);
        leases.attach(b"a", 7);
        assert_eq!((keys(&leases, 7), keys(&leases, -3)), (b"a".to_vec(), b"b".to_vec()));
        leases.detach(b"b");
        leases.detach(b"z");
        assert_eq!((leases.owner(b"a"), leases.owner(b"b"), leases.owner(b"c")), (7, 0, 0));
        leases.remove(-3);
        assert!(!leases.has(-3));
    }

    #[test]
    fn checkpoints_are_for_the_lease_they_were_made_for() {
        let mut leases = leases();
        for (place, id, granted, remaining_seconds, want) in [
            ((1, 1), 7, 9, 30, 30),
            ((1, 2), 7, 8, 20, 30), // an earlier one of that id
            ((1, 2), 8, 9, 20, 30),
            ((1, 2), 7, 9, 61, 60),
            ((1, 5), 7, 9, 31, 31),
            ((1, 5), 7, 9, 32, 31), // once is enough
            ((1, 4), 7, 9, 0, 31),  // too late
            ((2, 1), 7, 9, 0, 60),
            ((1, 9), 7, 9, 5, 60),
            ((2, 2), 7, 9, -1, 60),
        ] {
            let one = LeaseCheckpoint { id, granted: Index(granted), remaining_seconds };
            leases.checkpoint((Term(place.0), place.1), &one);
            assert_eq!(leases.get(7).unwrap().promised_seconds(), want, "{place:?} {one:?}");
        }
    }

    #[test]
    fn rows_bring_leases_back() {
        let mut leases = leases();
        let one =
            |remaining_seconds| LeaseCheckpoint { id: 7, granted: Index(9), remaining_seconds };
        assert!(leases.checkpoint((Term(1), 1), &one(12)));
        leases.take_changed();
        assert!(!leases.has_changed());
        leases.grant(1, 1, Index(10)).unwrap();
        leases.remove(-3);
        assert!(leases.checkpoint((Term(1), 2), &one(11)));
        let changed = leases.take_changed();
        let gone: Vec<bool> = changed.iter().map(|(_, row)| row.is_none()).collect();
        assert_eq!(gone, [true, false, false]);
        let mut again = Leases::default();
        for (key, row) in changed {
            if let Some(row) = row {
                again.load(&key, &row).unwrap();
            }
        }
        assert_eq!(again.leases, leases.leases);
        assert_eq!(again.hash(0), leases.hash(0));
        assert!(again.load_owners([(Bytes::from_static(b"k"), 7)].into()));
        assert_eq!(again.owner(b"k"), 7);
        assert!(!again.load_owners([(Bytes::from_static(b"k"), 99)].into()));
        for (key, row) in [
            (&[0; 8][..], &[10, 0, 1, 0, 0][..]),
            (&[1; 8], &[0, 0, 1, 0, 0]),
            (&[1; 8], &[10, 12, 1, 0, 0]),
            (&[1; 8], &[10, 0, 1, 0, 0, 0]),
            (&[1; 7], &[10, 0, 1, 0, 0]),
        ] {
            assert!(again.load(key, row).is_err(), "{key:?} {row:?}");
        }
    }
}
