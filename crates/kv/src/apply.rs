//! Entries of the log, applied one after the other: a function of the state and the entry, and of
//! nothing else.
//!
//! An entry is checked whole before it changes anything. All changes of one entry stand under one
//! new revision, which no reader sees before the last of them is made.
//!
//! Rows are read for an answer only where somebody waits for it, and only as many as an answer may
//! hold. Neither makes a difference to the state, or to which requests are refused.

use bytes::Bytes;
use quorate_types::{Index, Term, bug};

use crate::allowance::Allowance;
use crate::command::{Command, LeaseCheckpoint};
use crate::error::{KvError, StoreError};
use crate::interval::Interval;
use crate::member::MemberChange;
use crate::read::{Scan, check_txn_range, compares_hold};
use crate::request::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use crate::response::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, KeyValue, LeaseCheckpointResponse,
    LeaseGrantResponse, LeaseRevokeResponse, PutResponse, RangeResponse, Response, ResponseOp,
    TxnResponse,
};
use crate::revision::Revision;
use crate::row;
use crate::setting::Setting;
use crate::state::State;

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// What it asks for.
    pub what: Apply,
    /// Whether somebody here waits for the answer.
    pub answer_wanted: bool,
}

/// What an entry asks of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Apply {
    /// A [`Command`], as bytes.
    Command(Bytes),
    /// Nothing, as the first entry of each leader.
    Empty,
    /// A change of membership that the engine has made.
    Membership {
        /// The membership after it, in the engine's bytes.
        conf_state: Bytes,
        /// What it does to the list of members, if anything.
        change: Option<MemberChange>,
    },
}

/// What applying some entries came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One answer for each entry that was applied, in their order: at least one, and fewer than
    /// there were entries where answers or unflushed changes have grown too large to go on. What an
    /// unwanted answer would have been is left out: it is [`Response::Nothing`], or the refusal.
    pub responses: Vec<Result<Response, KvError>>,
    /// The revision after each of these entries, in their order. One that changes no key makes none.
    pub revisions: Vec<i64>,
    /// Whether the list of members may differ from before.
    pub members_changed: bool,
}

/// An answer to a client, or the reason why there can be none.
type Answer<T> = Result<Result<T, KvError>, StoreError>;

impl State {
    /// Applies the command of an entry. Rows for the answer come out of `allowance`; once that is
    /// spent, they are left out.
    pub(crate) fn apply_command(
        &mut self,
        (index, term): (Index, Term),
        command: &Command,
        allowance: &mut Allowance,
    ) -> Answer<Response> {
        if let Err(refused) = self.alarms.check(command) {
            return Ok(Err(refused));
        }
        Ok(match command {
            Command::Put(put) => self.put(put, allowance)?.map(Response::Put),
            Command::DeleteRange(delete) => {
                let mut change = Change::new(self, allowance);
                let response = change.delete_range(delete)?;
                change.finish();
                Ok(Response::DeleteRange(response))
            }
            Command::Txn(txn) => self.txn(txn, allowance)?.map(Response::Txn),
            Command::Compact(compact) => self.compact(*compact).map(Response::Compact),
            Command::PublishMember { id, name, client_urls, life, version, tags } => {
                let published = self.members.publish(*id, name, client_urls, *life);
                published.and_then(|()| {
                    self.members.tag(*id, version, tags)?;
                    Ok(Response::Members(self.members.list()))
                })
            }
            Command::LeaseGrant { id, ttl_seconds } => {
                self.lease_grant(*id, *ttl_seconds, index).map(Response::LeaseGrant)
            }
            Command::LeaseRevoke { id } => {
                self.lease_revoke(*id, None, allowance)?.map(Response::LeaseRevoke)
            }
            // Who was deposed since then does not know of renewals.
            Command::LeaseExpire { term: judged, .. }
                if *judged != term && !bug!("a-deposed-leader-ends-leases") =>
            {
                Err(KvError::LeaseNotFound)
            }
            Command::LeaseExpire { id, granted, .. } => {
                self.lease_revoke(*id, Some(*granted), allowance)?.map(Response::LeaseRevoke)
            }
            Command::LeaseCheckpoint { term: judged, order, checkpoints } => {
                if *judged == term {
                    self.lease_checkpoint((term, *order), checkpoints);
                }
                let revision = self.meta.revision;
                Ok(Response::LeaseCheckpoint(LeaseCheckpointResponse { revision }))
            }
            Command::Alarm(alarm) => self.alarm(alarm).map(Response::Alarm),
            Command::SetAutopilot { settings, expected } => {
                Ok(self.set_autopilot(index, settings, *expected))
            }
        })
    }

    pub(crate) fn apply_membership(
        &mut self,
        conf_state: &Bytes,
        change: Option<&MemberChange>,
    ) -> Result<Response, KvError> {
        // Out of the entry, which would otherwise stay in memory whole.
        self.meta.applied.conf_state = Bytes::copy_from_slice(conf_state);
        if let Some(change) = change {
            self.members.change(change)?;
        }
        Ok(Response::Members(self.members.list()))
    }

    fn put(&mut self, put: &PutRequest, allowance: &mut Allowance) -> Answer<PutResponse> {
        if let Err(refused) = check_lease(self, put).and_then(|()| check_kept(self, put)) {
            return Ok(Err(refused));
        }
        let mut change = Change::new(self, allowance);
        let response = change.put(put)?;
        change.finish();
        Ok(Ok(response))
    }

    fn txn(&mut self, txn: &TxnRequest, allowance: &mut Allowance) -> Answer<TxnResponse> {
        let mut choices = Vec::new();
        choose(self, txn, &mut choices)?;
        // Whatever is wrong with a put is told before what is wrong with any range.
        for check in [check_write, check_read] {
            if let Err(refused) = check_ops(self, txn, &mut choices.iter(), check) {
                return Ok(Err(refused));
            }
        }
        let mut change = Change::new(self, allowance);
        let mut response = change.txn(txn, &mut choices.iter())?;
        response.revision = change.revision();
        change.finish();
        Ok(Ok(response))
    }

    fn compact(&mut self, compact: CompactionRequest) -> Result<CompactionResponse, KvError> {
        if self.meta.revision < compact.revision {
            return Err(KvError::FutureRev);
        }
        let is_local = bug!("an-answer-depends-on-what-is-removed-here");
        if compact.revision <= if is_local { self.meta.removed } else { self.meta.compacted } {
            return Err(KvError::Compacted);
        }
        self.meta.compacted = compact.revision;
        Ok(CompactionResponse { revision: self.meta.revision })
    }

    fn lease_grant(
        &mut self,
        id: i64,
        ttl_seconds: i64,
        granted: Index,
    ) -> Result<LeaseGrantResponse, KvError> {
        let ttl_seconds = self.leases.grant(id, ttl_seconds, granted)?;
        self.lessor.granted(id);
        Ok(LeaseGrantResponse { revision: self.meta.revision, id, ttl_seconds })
    }

    /// Takes a lease and its keys away, if it is the one that was `granted` there.
    fn lease_revoke(
        &mut self,
        id: i64,
        granted: Option<Index>,
        allowance: &mut Allowance,
    ) -> Answer<LeaseRevokeResponse> {
        let lease = self.leases.get(id);
        let lease = lease.filter(|lease| granted.is_none_or(|granted| granted == lease.granted));
        let Some(lease) = lease else { return Ok(Err(KvError::LeaseNotFound)) };
        let keys: Vec<_> = lease.keys.iter().cloned().collect();
        let mut change = Change::new(self, allowance);
        for key in &keys {
            change.delete(key);
        }
        change.finish();
        self.leases.remove(id);
        self.lessor.removed(id);
        Ok(Ok(LeaseRevokeResponse { revision: self.meta.revision }))
    }

    fn lease_checkpoint(&mut self, place: (Term, u64), checkpoints: &[LeaseCheckpoint]) {
        for one in checkpoints {
            if self.leases.checkpoint(place, one) && one.remaining_seconds == 0 {
                self.lessor.made_whole(one.id, place);
            }
        }
    }

    /// The index of the entry is that of the setting, so that two that expect the same cannot both do.
    fn set_autopilot(
        &mut self,
        index: Index,
        settings: &Bytes,
        expected: Option<Index>,
    ) -> Response {
        let setting = &mut self.meta.autopilot;
        let modified = setting.as_ref().map(|setting| setting.modified);
        let succeeded = expected.is_none_or(|expected| expected == modified.unwrap_or_default());
        if succeeded {
            let created = setting.as_ref().map_or(index, |setting| setting.created);
            // Out of the entry, which would otherwise stay in memory whole.
            let value = Bytes::copy_from_slice(settings);
            *setting = Some(Setting { value, created, modified: index });
        }
        Response::SetAutopilot { succeeded, setting: setting.clone() }
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Result<AlarmResponse, KvError> {
        let alarms = self.alarms.apply(request)?;
        Ok(AlarmResponse { revision: self.meta.revision, alarms })
    }
}

/// Notes which list each transaction runs, outermost first, each before those within it. Every
/// compare looks at the state as it was before the outermost one.
fn choose(state: &State, txn: &TxnRequest, choices: &mut Vec<bool>) -> Result<(), StoreError> {
    let succeeded = compares_hold(state, &txn.compare, state.meta.revision)?;
    choices.push(succeeded);
    for op in chosen(txn, succeeded) {
        if let RequestOp::Txn(inner) = op {
            choose(state, inner, choices)?;
        }
    }
    Ok(())
}

fn chosen(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// Checks all that will run, nested ones in their place, against the state as it was before any of
/// it.
fn check_ops(
    state: &State,
    txn: &TxnRequest,
    choices: &mut std::slice::Iter<'_, bool>,
    check: fn(&State, &RequestOp) -> Result<(), KvError>,
) -> Result<(), KvError> {
    for op in chosen(txn, next(choices)) {
        match op {
            RequestOp::Txn(inner) => check_ops(state, inner, choices, check)?,
            op => check(state, op)?,
        }
    }
    Ok(())
}

fn check_write(state: &State, op: &RequestOp) -> Result<(), KvError> {
    match op {
        RequestOp::Empty => Err(KvError::KeyNotFound),
        // The other way round than outside of a transaction, as in etcd.
        RequestOp::Put(put) => check_kept(state, put).and_then(|()| check_lease(state, put)),
        RequestOp::Range(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_) => Ok(()),
    }
}

fn check_read(state: &State, op: &RequestOp) -> Result<(), KvError> {
    match op {
        RequestOp::Range(range) => {
            range.validate()?;
            check_txn_range(range, state.meta.revision, state.meta.compacted)
        }
        RequestOp::Empty | RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_) => {
            Ok(())
        }
    }
}

fn next(choices: &mut std::slice::Iter<'_, bool>) -> bool {
    *choices.next().expect("each transaction that runs has chosen")
}

fn check_lease(state: &State, put: &PutRequest) -> Result<(), KvError> {
    if put.lease == 0 || state.leases.has(put.lease) { Ok(()) } else { Err(KvError::LeaseNotFound) }
}

fn check_kept(state: &State, put: &PutRequest) -> Result<(), KvError> {
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && state.index.at(&put.key, state.meta.revision).is_none() {
        return Err(KvError::KeyNotFound);
    }
    Ok(())
}

/// The changes of one entry, all under one revision. It fails only when storage fails, and then the
/// member stops: what was changed so far is above the current revision and is never flushed.
struct Change<'a> {
    state: &'a mut State,
    allowance: &'a mut Allowance,
    next: Revision,
}

impl<'a> Change<'a> {
    fn new(state: &'a mut State, allowance: &'a mut Allowance) -> Self {
        let next = Revision { main: state.meta.revision + 1, sub: 0 };
        Change { state, allowance, next }
    }

    /// The new revision, if anything was changed by now, or else the current one.
    fn revision(&self) -> i64 {
        if self.next.sub == 0 { self.state.meta.revision } else { self.next.main }
    }

    /// Shows the new revision to readers.
    fn finish(self) {
        self.state.meta.revision = self.revision();
    }

    fn put(&mut self, put: &PutRequest) -> Result<PutResponse, StoreError> {
        let answers_old = put.prev_kv && !self.allowance.is_spent();
        let old = if answers_old || put.ignore_value { self.old(&put.key)? } else { None };
        let kept = old.as_ref().filter(|_| put.ignore_value);
        let value = kept.map_or(&put.value, |old| &old.value).clone();
        let lease = if put.ignore_lease { self.state.leases.owner(&put.key) } else { put.lease };
        self.state.leases.attach(&put.key, lease);
        let revision = self.draw();
        let stamp = self.state.index.put(&put.key, revision);
        let row = row::put(&KeyValue {
            key: put.key.clone(),
            create_revision: stamp.created,
            mod_revision: revision.main,
            version: stamp.version,
            value,
            lease,
        });
        self.state.record(revision, row);
        let prev_kv = old.filter(|old| answers_old && self.allowance.take(old.memory_bytes()));
        Ok(PutResponse { revision: revision.main, prev_kv })
    }

    fn delete_range(
        &mut self,
        delete: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, StoreError> {
        let interval = Interval::new(&delete.key, &delete.range_end);
        let mut found = Vec::new();
        self.state.index.walk(interval, None, self.next.main, usize::MAX, |key, stamp| {
            found.push((Box::<[u8]>::from(key), *stamp));
            std::ops::ControlFlow::Continue(())
        });
        let mut prev_kvs = Vec::new();
        if delete.prev_kv && !self.allowance.is_spent() {
            for (_, stamp) in &found {
                let pair = self.state.pair(stamp)?;
                if !self.allowance.take(pair.memory_bytes()) {
                    break;
                }
                prev_kvs.push(pair);
            }
        }
        for (key, _) in &found {
            self.delete(key);
        }
        let deleted = found.len() as i64;
        Ok(DeleteRangeResponse { revision: self.revision(), deleted, prev_kvs })
    }

    /// Deletes a key that is there.
    fn delete(&mut self, key: &[u8]) {
        let revision = self.draw();
        self.state.index.delete(key, revision);
        if !bug!("a-deleted-key-stays-with-its-lease") {
            self.state.leases.detach(key);
        }
        self.state.record(revision, row::tombstone(key));
    }

    fn range(&mut self, range: &RangeRequest) -> Result<RangeResponse, StoreError> {
        if self.allowance.is_spent() {
            return Ok(RangeResponse::default());
        }
        // What this entry has written is seen; a state of the past is what it was.
        let main = if 0 < range.revision { range.revision } else { self.next.main };
        let mut scan = Scan::new(range, main);
        let mut budget = usize::MAX;
        let done = scan.step(self.state, &mut budget, self.allowance);
        assert!(done, "a walk without a limit ends");
        scan.finish(&self.state.rows(), self.revision(), self.allowance)
    }

    fn txn(
        &mut self,
        txn: &TxnRequest,
        choices: &mut std::slice::Iter<'_, bool>,
    ) -> Result<TxnResponse, StoreError> {
        let succeeded = next(choices);
        let ops = chosen(txn, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                RequestOp::Empty => unreachable!("an empty operation was refused before"),
                RequestOp::Range(range) => ResponseOp::Range(self.range(range)?),
                RequestOp::Put(put) => ResponseOp::Put(self.put(put)?),
                RequestOp::DeleteRange(delete) => {
                    ResponseOp::DeleteRange(self.delete_range(delete)?)
                }
                RequestOp::Txn(inner) => ResponseOp::Txn(self.txn(inner, choices)?),
            });
        }
        // The header of a nested answer is empty; the outermost one is filled by the caller.
        Ok(TxnResponse { revision: 0, succeeded, responses })
    }

    fn draw(&mut self) -> Revision {
        let revision = self.next;
        self.next.sub = revision.sub.checked_add(1).expect("fewer changes than keys in memory");
        revision
    }

    fn old(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        let stamp = self.state.index.at(key, self.next.main);
        stamp.map(|stamp| self.state.pair(&stamp)).transpose()
    }
}
