//! The store as a list says it is: every version of every key, plainly. It evaluates the commands
//! that clients of the simulator send, one after the other, and knows what any answer must be.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_kv::{
    Command, CompactionResponse, Compare, CompareTarget, DeleteRangeResponse, KeyValue, KvError,
    LeaseCheckpointResponse, LeaseGrantResponse, LeaseRevokeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, Response, ResponseOp, TxnResponse,
};
use quorate_types::{Index, Term};

use super::watches::Change;

#[derive(Debug)]
pub(super) struct Model {
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    /// Where each lease was granted, and its keys.
    leases: BTreeMap<i64, (Index, BTreeSet<Bytes>)>,
    /// What the last commands did to keys.
    changes: Vec<Change>,
}

impl Default for Model {
    fn default() -> Self {
        let (keys, leases) = (BTreeMap::new(), BTreeMap::new());
        Model { keys, revision: 1, compacted: -1, leases, changes: Vec::new() }
    }
}

impl Model {
    /// What the next command does and answers.
    pub(super) fn apply(
        &mut self,
        (index, term): (Index, Term),
        command: &Command,
    ) -> Result<Response, KvError> {
        match command {
            Command::Put(put) if put.lease != 0 && !self.leases.contains_key(&put.lease) => {
                Err(KvError::LeaseNotFound)
            }
            Command::Put(put) => Ok(Response::Put(self.put(put))),
            Command::DeleteRange(delete) => {
                let old = self.at(&delete.key, self.revision).cloned();
                let deleted = i64::from(old.is_some());
                self.delete([delete.key.clone()]);
                let prev_kvs = if delete.prev_kv { old.into_iter().collect() } else { Vec::new() };
                Ok(Response::DeleteRange(DeleteRangeResponse {
                    revision: self.revision,
                    deleted,
                    prev_kvs,
                }))
            }
            Command::Txn(txn) => {
                let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
                let mut responses = Vec::new();
                for op in if succeeded { &txn.success } else { &txn.failure } {
                    responses.push(match op {
                        RequestOp::Put(put) => ResponseOp::Put(self.put(put)),
                        RequestOp::Range(range) => {
                            ResponseOp::Range(self.range(range, self.revision))
                        }
                        other => unreachable!("clients send no {other:?}"),
                    });
                }
                Ok(Response::Txn(TxnResponse { revision: self.revision, succeeded, responses }))
            }
            Command::Compact(compact) => {
                if self.revision < compact.revision {
                    return Err(KvError::FutureRev);
                }
                if compact.revision <= self.compacted {
                    return Err(KvError::Compacted);
                }
                self.compacted = compact.revision;
                Ok(Response::Compact(CompactionResponse { revision: self.revision }))
            }
            Command::LeaseGrant { id, ttl_seconds } => {
                if self.leases.contains_key(id) {
                    return Err(KvError::LeaseExist);
                }
                self.leases.insert(*id, (index, BTreeSet::new()));
                let (revision, id, ttl_seconds) = (self.revision, *id, *ttl_seconds);
                Ok(Response::LeaseGrant(LeaseGrantResponse { revision, id, ttl_seconds }))
            }
            Command::LeaseRevoke { id } => self.end_lease(*id, None),
            Command::LeaseExpire { id, granted, term: judged } => match *judged == term {
                true => self.end_lease(*id, Some(*granted)),
                false => Err(KvError::LeaseNotFound),
            },
            Command::LeaseCheckpoint { .. } => {
                let revision = self.revision;
                Ok(Response::LeaseCheckpoint(LeaseCheckpointResponse { revision }))
            }
            // Members say it of themselves, and nobody of keys asks.
            Command::PublishMember { .. } => Ok(Response::Members(Vec::new())),
            other => unreachable!("clients send no {other:?}"),
        }
    }

    /// What was changed since this was asked last.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// A lease goes, and its keys in one revision.
    fn end_lease(&mut self, id: i64, granted: Option<Index>) -> Result<Response, KvError> {
        let lease = self.leases.get(&id);
        let meant = lease.filter(|(index, _)| granted.is_none_or(|granted| granted == *index));
        if meant.is_none() {
            return Err(KvError::LeaseNotFound);
        }
        let keys = self.leases.remove(&id).map(|(_, keys)| keys).unwrap_or_default();
        self.delete(keys);
        Ok(Response::LeaseRevoke(LeaseRevokeResponse { revision: self.revision }))
    }

    /// Takes keys away, all in one revision, which there is only if any of them was there.
    fn delete(&mut self, keys: impl IntoIterator<Item = Bytes>) {
        let revision = self.revision + 1;
        for key in keys {
            let Some(old) = self.at(&key, revision).cloned() else { continue };
            self.detach(&old);
            self.keys.entry(key.clone()).or_default().push((revision, None));
            self.changes.push(Change { revision, key, before: Some(old), after: None });
            self.revision = revision;
        }
    }

    fn detach(&mut self, old: &KeyValue) {
        if let Some((_, keys)) = self.leases.get_mut(&old.lease) {
            keys.remove(&old.key);
        }
    }

    /// What a range found at a revision.
    pub(super) fn range(&self, range: &RangeRequest, revision: i64) -> RangeResponse {
        let kvs: Vec<KeyValue> = if range.range_end.is_empty() {
            self.at(&range.key, revision).cloned().into_iter().collect()
        } else {
            let keys = self.keys.range(range.key.clone()..range.range_end.clone());
            keys.filter_map(|(key, _)| self.at(key, revision).cloned()).collect()
        };
        RangeResponse { revision, count: kvs.len() as i64, kvs, more: false }
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let old = self.at(&put.key, self.revision).cloned();
        self.revision += 1;
        let (create_revision, version) =
            old.as_ref().map_or((self.revision, 1), |old| (old.create_revision, old.version + 1));
        let pair = KeyValue {
            key: put.key.clone(),
            create_revision,
            mod_revision: self.revision,
            version,
            value: put.value.clone(),
            lease: put.lease,
        };
        if let Some(old) = &old {
            self.detach(old);
        }
        if let Some((_, keys)) = self.leases.get_mut(&put.lease) {
            keys.insert(put.key.clone());
        }
        let (revision, key) = (self.revision, put.key.clone());
        let (before, after) = (old.clone(), Some(pair.clone()));
        self.changes.push(Change { revision, key, before, after });
        self.keys.entry(put.key.clone()).or_default().push((self.revision, Some(pair)));
        PutResponse { revision: self.revision, prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn at(&self, key: &Bytes, revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|(at, _)| *at <= revision);
        versions.get(after.checked_sub(1)?)?.1.as_ref()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.at(&compare.key, self.revision);
        match &compare.target {
            CompareTarget::Mod(revision) => pair.map_or(0, |pair| pair.mod_revision) == *revision,
            other => unreachable!("clients compare no {other:?}"),
        }
    }
}
