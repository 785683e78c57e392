//! The machine as one would explain it: a list of all states there ever were. It shares no code
//! with the machine but the types of questions and answers.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::{Index, Term};

use crate::*;

type Pairs = BTreeMap<Bytes, KeyValue>;

#[derive(Default)]
pub(super) struct Model {
    /// `states[n]` is the state after revision n + 1.
    states: Vec<Pairs>,
    compacted: i64,
    /// Where each lease was granted.
    leases: BTreeMap<i64, Index>,
    alarms: BTreeSet<Alarm>,
}

impl Model {
    pub(super) fn new() -> Self {
        Model { states: vec![Pairs::new()], compacted: -1, ..Model::default() }
    }

    pub(super) fn revision(&self) -> i64 {
        self.states.len() as i64
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(super) fn leases(&self) -> Vec<(i64, Index)> {
        self.leases.iter().map(|(id, granted)| (*id, *granted)).collect()
    }

    pub(super) fn alarms(&self) -> Vec<Alarm> {
        self.alarms.iter().copied().collect()
    }

    /// The keys of a lease.
    pub(super) fn keys_of(&self, id: i64) -> Vec<Bytes> {
        let pairs = self.states.last().unwrap().values();
        pairs.filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    fn refused(&self, command: &Command) -> Result<(), KvError> {
        let has = |kind| self.alarms.iter().any(|alarm| alarm.alarm == kind);
        let is_bookkeeping = matches!(command, Command::Alarm(_) | Command::LeaseCheckpoint { .. });
        if has(AlarmType::Corrupt) && !is_bookkeeping {
            return Err(KvError::Corrupt);
        }
        let grows = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => format!("{txn:?}").contains("PutRequest"),
            _ => false,
        };
        if has(AlarmType::NoSpace) && grows { Err(KvError::NoSpace) } else { Ok(()) }
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Response {
        let one = Alarm { member: request.member, alarm: request.alarm };
        let alarms = match request.action {
            AlarmAction::Get => {
                let all = request.alarm == AlarmType::None;
                self.alarms().into_iter().filter(|one| all || one.alarm == request.alarm).collect()
            }
            AlarmAction::Activate => {
                self.alarms.insert(one);
                vec![one]
            }
            AlarmAction::Deactivate if self.alarms.remove(&one) => vec![one],
            _ => Vec::new(),
        };
        Response::Alarm(AlarmResponse { revision: self.revision(), alarms })
    }

    pub(super) fn apply(
        &mut self,
        (index, term): (Index, Term),
        command: &Command,
    ) -> Result<Response, KvError> {
        self.refused(command)?;
        match command {
            Command::Alarm(request) => return Ok(self.alarm(request)),
            Command::LeaseGrant { id, ttl_seconds } => {
                if self.leases.contains_key(id) {
                    return Err(KvError::LeaseExist);
                }
                self.leases.insert(*id, index);
                let (revision, id, ttl_seconds) = (self.revision(), *id, *ttl_seconds);
                return Ok(Response::LeaseGrant(LeaseGrantResponse { revision, id, ttl_seconds }));
            }
            Command::LeaseCheckpoint { .. } => {
                let revision = self.revision();
                return Ok(Response::LeaseCheckpoint(LeaseCheckpointResponse { revision }));
            }
            Command::LeaseExpire { id, granted, term: judged }
                if *judged != term || self.leases.get(id) != Some(granted) =>
            {
                return Err(KvError::LeaseNotFound);
            }
            _ => {}
        }
        if let Command::LeaseRevoke { id } | Command::LeaseExpire { id, .. } = command {
            self.leases.remove(id).ok_or(KvError::LeaseNotFound)?;
            let mut after = self.states.last().cloned().unwrap();
            let before = after.len();
            after.retain(|_, kv| kv.lease != *id);
            if after.len() < before {
                self.states.push(after);
            }
            return Ok(Response::LeaseRevoke(LeaseRevokeResponse { revision: self.revision() }));
        }
        let before = self.states.last().cloned().unwrap_or_default();
        let mut work = Work { model: self, after: before.clone(), before, written: false };
        let response = match command {
            Command::Put(put) => work.put(put).map(Response::Put)?,
            Command::DeleteRange(delete) => Response::DeleteRange(work.delete(delete)),
            Command::Txn(txn) => {
                work.check(txn)?;
                let answer = work.txn(txn)?;
                let revision = work.revision();
                Response::Txn(TxnResponse { revision, ..answer })
            }
            Command::Compact(compact) => {
                let revision = self.revision();
                if compact.revision > revision {
                    return Err(KvError::FutureRev);
                }
                if compact.revision <= self.compacted {
                    return Err(KvError::Compacted);
                }
                self.compacted = compact.revision;
                return Ok(Response::Compact(CompactionResponse { revision }));
            }
            Command::PublishMember { .. } => unreachable!("not asked of the model"),
            _ => unreachable!("answered above"),
        };
        let Work { after, written, .. } = work;
        if written {
            self.states.push(after);
        }
        Ok(response)
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        self.readable(request)?;
        let place = if request.revision <= 0 { self.revision() } else { request.revision };
        Ok(answer(request, &self.states[place as usize - 1], self.revision()))
    }

    fn readable(&self, request: &RangeRequest) -> Result<(), KvError> {
        if request.revision > self.revision() {
            return Err(KvError::FutureRev);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(KvError::Compacted);
        }
        Ok(())
    }
}

struct Work<'a> {
    model: &'a Model,
    before: Pairs,
    after: Pairs,
    written: bool,
}

impl Work<'_> {
    fn revision(&self) -> i64 {
        self.model.revision() + i64::from(self.written)
    }

    fn put(&mut self, put: &PutRequest) -> Result<PutResponse, KvError> {
        if put.lease != 0 && !self.model.leases.contains_key(&put.lease) {
            return Err(KvError::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.before.contains_key(&put.key) {
            return Err(KvError::KeyNotFound);
        }
        self.written = true;
        let revision = self.revision();
        let old = self.after.get(&put.key).cloned();
        let mut kv = old.clone().unwrap_or(KeyValue {
            key: put.key.clone(),
            create_revision: revision,
            ..KeyValue::default()
        });
        kv.mod_revision = revision;
        kv.version += 1;
        if !put.ignore_value {
            kv.value = put.value.clone();
        }
        if !put.ignore_lease {
            kv.lease = put.lease;
        }
        self.after.insert(put.key.clone(), kv);
        Ok(PutResponse { revision, prev_kv: if put.prev_kv { old } else { None } })
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone: Vec<KeyValue> = self
            .after
            .values()
            .filter(|kv| within(&kv.key, &delete.key, &delete.range_end))
            .cloned()
            .collect();
        self.written |= !gone.is_empty();
        for kv in &gone {
            self.after.remove(&kv.key);
        }
        DeleteRangeResponse {
            revision: self.revision(),
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, KvError> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                RequestOp::Empty => unreachable!("refused before"),
                RequestOp::Put(put) => ResponseOp::Put(self.put(put)?),
                RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete(delete)),
                RequestOp::Txn(inner) => ResponseOp::Txn(self.txn(inner)?),
                RequestOp::Range(range) => {
                    let state = match range.revision {
                        ..=0 => &self.after,
                        past => &self.model.states[past as usize - 1],
                    };
                    ResponseOp::Range(answer(range, state, self.revision()))
                }
            });
        }
        Ok(TxnResponse { revision: 0, succeeded, responses })
    }

    /// Puts first, then ranges, each in the order in which they will run.
    fn check(&self, txn: &TxnRequest) -> Result<(), KvError> {
        let mut ops = Vec::new();
        self.flatten(txn, &mut ops);
        for op in &ops {
            match op {
                RequestOp::Empty => return Err(KvError::KeyNotFound),
                RequestOp::Put(put) => {
                    let keeps = put.ignore_value || put.ignore_lease;
                    if keeps && !self.before.contains_key(&put.key) {
                        return Err(KvError::KeyNotFound);
                    }
                    if put.lease != 0 && !self.model.leases.contains_key(&put.lease) {
                        return Err(KvError::LeaseNotFound);
                    }
                }
                _ => {}
            }
        }
        for op in ops {
            let RequestOp::Range(range) = op else { continue };
            if range.revision < 0 && range.revision < self.model.compacted {
                return Err(KvError::Compacted);
            }
            self.model.readable(range)?;
        }
        Ok(())
    }

    fn flatten<'t>(&self, txn: &'t TxnRequest, ops: &mut Vec<&'t RequestOp>) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        for op in if holds { &txn.success } else { &txn.failure } {
            match op {
                RequestOp::Txn(inner) => self.flatten(inner, ops),
                op => ops.push(op),
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let absent = KeyValue::default();
        let mut kvs: Vec<&KeyValue> = self
            .before
            .values()
            .filter(|kv| within(&kv.key, &compare.key, &compare.range_end))
            .collect();
        if kvs.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(&absent);
        }
        kvs.iter().all(|kv| {
            let relation = match &compare.target {
                CompareTarget::Version(given) => kv.version.cmp(given),
                CompareTarget::Create(given) => kv.create_revision.cmp(given),
                CompareTarget::Mod(given) => kv.mod_revision.cmp(given),
                CompareTarget::Lease(given) => kv.lease.cmp(given),
                CompareTarget::Value(given) => kv.value.cmp(given),
                CompareTarget::Unknown(_) => Ordering::Equal,
            };
            match compare.result {
                CompareResult::Equal => relation == Ordering::Equal,
                CompareResult::NotEqual => relation != Ordering::Equal,
                CompareResult::Greater => relation == Ordering::Greater,
                CompareResult::Less => relation == Ordering::Less,
                CompareResult::Unknown(_) => true,
            }
        })
    }
}

fn within(key: &[u8], first: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == first,
        [0] => key >= first,
        end => key >= first && key < end,
    }
}

fn answer(request: &RangeRequest, state: &Pairs, revision: i64) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = state
        .values()
        .filter(|kv| within(&kv.key, &request.key, &request.range_end))
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse { revision, kvs: Vec::new(), more: false, count };
    }
    kvs.retain(|kv| {
        (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
            && (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
            && (request.min_create_revision == 0
                || kv.create_revision >= request.min_create_revision)
            && (request.max_create_revision == 0
                || kv.create_revision <= request.max_create_revision)
    });
    // Equal ones by key, so that there is one right answer.
    kvs.sort_by(|one, other| {
        let relation = match request.sort_target {
            SortTarget::Key | SortTarget::Unknown(_) => Ordering::Equal,
            SortTarget::Version => one.version.cmp(&other.version),
            SortTarget::Create => one.create_revision.cmp(&other.create_revision),
            SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
            SortTarget::Value => one.value.cmp(&other.value),
        };
        let relation = relation.then_with(|| one.key.cmp(&other.key));
        if request.sort_order == SortOrder::Descend { relation.reverse() } else { relation }
    });
    let more = request.limit > 0 && kvs.len() as i64 > request.limit;
    if more {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    RangeResponse { revision, kvs, more, count }
}
