//! The store as a list says it is: every version of every key, plainly. It evaluates the commands
//! that clients of the simulator send, one after the other, and knows what any answer must be.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_kv::{
    Command, CompactionResponse, Compare, CompareTarget, DeleteRangeResponse, KeyValue, KvError,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, Response, ResponseOp,
    TxnResponse,
};

#[derive(Debug)]
pub(super) struct Model {
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

impl Default for Model {
    fn default() -> Self {
        Model { keys: BTreeMap::new(), revision: 1, compacted: -1 }
    }
}

impl Model {
    /// What the next command does and answers.
    pub(super) fn apply(&mut self, command: &Command) -> Result<Response, KvError> {
        match command {
            Command::Put(put) => Ok(Response::Put(self.put(put))),
            Command::DeleteRange(delete) => {
                let old = self.at(&delete.key, self.revision).cloned();
                let deleted = i64::from(old.is_some());
                if old.is_some() {
                    self.revision += 1;
                    let versions = self.keys.entry(delete.key.clone()).or_default();
                    versions.push((self.revision, None));
                }
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
            other => unreachable!("clients send no {other:?}"),
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
            lease: 0,
        };
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
