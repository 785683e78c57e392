//! The checks that come before the log: a request that fails one is answered at once, and no
//! member ever sees it. The order of checks is etcd's, since it decides which text a client hears.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::command::{Command, TXN_DEPTH_MAX};
use crate::error::KvError;
use crate::interval::Interval;
use crate::lease::check_grant;
use crate::request::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget, TxnRequest,
};

/// The longest key with its value. Storage and snapshots hold rows of twice this.
pub const PAIR_BYTES_MAX: usize = 512 << 20;

/// What requests are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most compares, or operations of one list, of a transaction. etcd's `--max-txn-ops`.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { txn_ops_max: 128 }
    }
}

impl Command {
    /// Checks a client's command before it is proposed.
    ///
    /// # Errors
    ///
    /// The answer to give the client.
    pub fn validate(&self, limits: &Limits) -> Result<(), KvError> {
        match self {
            Command::Put(put) => put.validate(),
            Command::DeleteRange(delete) => delete.validate(),
            Command::Txn(txn) => txn.validate(limits),
            Command::LeaseGrant { id, ttl_seconds } => check_grant(*id, *ttl_seconds),
            Command::Compact(_)
            | Command::PublishMember { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::LeaseCheckpoint { .. }
            | Command::Alarm(_)
            | Command::SetAutopilot { .. } => Ok(()),
        }
    }
}

impl RangeRequest {
    /// Checks a range before it is served.
    ///
    /// # Errors
    ///
    /// `EmptyKey`, then `InvalidSortOption`.
    pub fn validate(&self) -> Result<(), KvError> {
        if self.key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        match (self.sort_order, self.sort_target) {
            (SortOrder::Unknown(_), _) | (_, SortTarget::Unknown(_)) => {
                Err(KvError::InvalidSortOption)
            }
            _ => Ok(()),
        }
    }
}

impl PutRequest {
    /// Checks a put before it is proposed.
    ///
    /// # Errors
    ///
    /// `EmptyKey`, then `ValueProvided`, then `LeaseProvided`; `RequestTooLarge` last.
    pub fn validate(&self) -> Result<(), KvError> {
        if self.key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(KvError::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(KvError::LeaseProvided);
        }
        if PAIR_BYTES_MAX < self.key.len().saturating_add(self.value.len()) {
            return Err(KvError::RequestTooLarge);
        }
        Ok(())
    }
}

impl DeleteRangeRequest {
    /// Checks a deletion before it is proposed.
    ///
    /// # Errors
    ///
    /// `EmptyKey`.
    pub fn validate(&self) -> Result<(), KvError> {
        if self.key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
    }
}

impl TxnRequest {
    /// Checks a transaction before it is proposed or, if it only reads, served.
    ///
    /// # Errors
    ///
    /// `TooManyOps`, `EmptyKey`, then what the operations' own checks say in their order, an empty
    /// operation being `KeyNotFound`; last `DuplicateKey`.
    pub fn validate(&self, limits: &Limits) -> Result<(), KvError> {
        check_shape(self, limits.txn_ops_max, 1)?;
        written(&self.success)?;
        written(&self.failure)?;
        Ok(())
    }
}

fn check_shape(txn: &TxnRequest, ops_max: usize, depth: usize) -> Result<(), KvError> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if ops_max < ops || TXN_DEPTH_MAX < depth {
        return Err(KvError::TooManyOps);
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(KvError::EmptyKey);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            RequestOp::Empty => return Err(KvError::KeyNotFound),
            RequestOp::Range(range) => range.validate()?,
            RequestOp::Put(put) => put.validate()?,
            RequestOp::DeleteRange(delete) => delete.validate()?,
            // What stands within has to do with the rest.
            RequestOp::Txn(inner) => check_shape(inner, ops_max - ops, depth + 1)?,
        }
    }
    Ok(())
}

/// What a list of operations may change: keys put, each with the place in the list that puts it,
/// and intervals deleted, likewise.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeMap<&'a [u8], usize>,
    deletes: Vec<(Interval<'a>, usize)>,
}

/// Refuses a list in which one operation puts what another puts or deletes. The two lists of a
/// nested transaction exclude each other, so between them anything goes.
fn written(list: &[RequestOp]) -> Result<Written<'_>, KvError> {
    let mut all = Written::default();
    for (place, op) in list.iter().enumerate() {
        match op {
            RequestOp::Empty | RequestOp::Range(_) => {}
            RequestOp::Put(put) => all.put(&put.key, place)?,
            RequestOp::DeleteRange(delete) => {
                all.deletes.push((Interval::new(&delete.key, &delete.range_end), place));
            }
            RequestOp::Txn(txn) => {
                for inner in [written(&txn.success)?, written(&txn.failure)?] {
                    for key in inner.puts.into_keys() {
                        all.put(key, place)?;
                    }
                    let deletes = inner.deletes.into_iter().map(|(interval, _)| (interval, place));
                    all.deletes.extend(deletes);
                }
            }
        }
    }
    let puts = Puts::new(&all.puts);
    for (interval, place) in &all.deletes {
        if puts.any_of_others(*interval, *place) {
            return Err(KvError::DuplicateKey);
        }
    }
    Ok(all)
}

/// Puts in the order of their keys, in which it takes few steps to find out who else puts within an
/// interval, however many puts there are in it.
struct Puts<'a> {
    puts: Vec<(&'a [u8], usize)>,
    /// For each, where the next one is that stands at another place in the list.
    others: Vec<usize>,
}

impl<'a> Puts<'a> {
    fn new(puts: &BTreeMap<&'a [u8], usize>) -> Self {
        let puts: Vec<_> = puts.iter().map(|(key, place)| (*key, *place)).collect();
        let mut others = vec![puts.len(); puts.len()];
        for at in (0..puts.len().saturating_sub(1)).rev() {
            let is_other = puts[at].1 != puts[at + 1].1;
            others[at] = if is_other { at + 1 } else { others[at + 1] };
        }
        Puts { puts, others }
    }

    /// Whether anything is put within the interval by another place in the list than this one.
    fn any_of_others(&self, interval: Interval<'_>, place: usize) -> bool {
        let Some((start, end)) = interval.bounds(None) else { return false };
        let first = self.puts.partition_point(|(key, _)| match start {
            Bound::Included(start) => *key < start,
            Bound::Excluded(start) => *key <= start,
            Bound::Unbounded => false,
        });
        let end = self.puts.partition_point(|(key, _)| match end {
            Bound::Included(end) => *key <= end,
            Bound::Excluded(end) => *key < end,
            Bound::Unbounded => true,
        });
        let of_another = match self.puts.get(first) {
            Some((_, putter)) if *putter == place => self.others[first],
            _ => first,
        };
        of_another < end
    }
}

impl<'a> Written<'a> {
    fn put(&mut self, key: &'a [u8], place: usize) -> Result<(), KvError> {
        match self.puts.insert(key, place) {
            Some(other) if other != place => Err(KvError::DuplicateKey),
            _ => Ok(()),
        }
    }
}
