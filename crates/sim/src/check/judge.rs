//! The second judge of what clients saw: `quorate-history`, which knows no log, no member and no
//! leader, only who asked what, when, and what came back. It is asked once, when a run is over.
//!
//! `history.rs` and `model.rs` know the order of the log and look while a run goes on; what they
//! take for granted (that revisions come from that order, say) this one does not.
//!
//! When a run is over, the log says what became of requests whose clients never learned: they count as
//! answered so, or as never done. That leaves fewer orders than clients would have to allow, so nothing
//! passes that they could rule out; and there is nothing to guess, so every history is decided.

use std::collections::BTreeMap;

use quorate_history::{
    Action, Compare, Done, History, Item, Operation, Outcome, Request, Response as Answer, Span,
    Verdict, linearizable, no_write_twice, revisions_never_go_back,
};
use quorate_kv::{
    Command, CompareTarget, KeyValue, KvError, RangeRequest, RangeResponse, RequestOp, Response,
    ResponseOp,
};
use quorate_types::Revision;

use super::Finding;
use crate::node::{Ask, Said};
use crate::world::OpId;

/// Clients that stand for one request each are numbered from here on.
const GIVEN_UP: u64 = 1 << 40;

#[derive(Default)]
pub(super) struct Judge {
    /// Nothing is recorded where something else than clients changes keys, as the ends of leases do.
    pub(super) is_off: bool,
    operations: Vec<Operation>,
    open: BTreeMap<OpId, usize>,
}

impl Judge {
    /// `client` is one that has one request under way at a time.
    pub(super) fn on_ask(&mut self, op: OpId, client: u64, now: u64, ask: &Ask) {
        if self.is_off {
            return;
        }
        let Some(request) = request(ask) else { return };
        self.open.insert(op, self.operations.len());
        self.operations.push(Operation::new(client, now, request));
    }

    pub(super) fn on_said(&mut self, op: OpId, now: u64, said: &Said) {
        let Some(at) = self.open.remove(&op) else { return };
        let operation = &mut self.operations[at];
        operation.outcome = match answer(said) {
            Some(response) => Outcome::Answered { at: now, response },
            None => Outcome::Refused,
        };
    }

    pub(super) fn on_give_up(&mut self, op: OpId) {
        // Whoever gave up asks the next thing: this one goes on by itself.
        if let Some(at) = self.open.get(&op) {
            self.operations[*at].client = GIVEN_UP + op;
        }
    }

    /// What it has to say in the end, given what became of requests. That it could not decide is a
    /// failure, too.
    pub(super) fn verdict(
        &mut self,
        now: u64,
        mut fate: impl FnMut(OpId) -> Option<Result<Response, KvError>>,
    ) -> Finding {
        for (op, at) in std::mem::take(&mut self.open) {
            let done = fate(op).and_then(|response| answer(&Said::Changed(response)));
            self.operations[at].outcome = match done {
                Some(response) => Outcome::Answered { at: now, response },
                None => Outcome::Refused,
            };
        }
        let history = History::of(std::mem::take(&mut self.operations));
        match linearizable(&history) {
            Verdict::Linearizable => {}
            Verdict::Violated(violation) => return Err(format!("clients saw: {violation}")),
            Verdict::Undecided { work } => {
                return Err(format!("clients saw what cannot be decided in {work} steps"));
            }
        }
        for promise in [no_write_twice, revisions_never_go_back] {
            promise(&history).map_err(|violation| format!("clients saw: {violation}"))?;
        }
        Ok(())
    }
}

/// What was asked, unless it has no place in a history of keys.
fn request(ask: &Ask) -> Option<Request> {
    let put = |put: &quorate_kv::PutRequest| Action::Put {
        key: put.key.clone(),
        value: put.value.clone(),
    };
    Some(match ask {
        Ask::Read(range) => {
            let request = Request::of([Action::Range(span(range))]);
            if range.serializable { request.serializable() } else { request }
        }
        Ask::Change(Command::Put(one)) => Request::of([put(one)]),
        Ask::Change(Command::DeleteRange(delete)) => Request::delete(delete.key.clone()),
        Ask::Change(Command::Txn(txn)) => {
            let actions = |ops: &[RequestOp]| -> Vec<Action> {
                let action = |op: &RequestOp| match op {
                    RequestOp::Put(one) => put(one),
                    RequestOp::Range(range) => Action::Range(span(range)),
                    other => unreachable!("clients send no {other:?}"),
                };
                ops.iter().map(action).collect()
            };
            let mut request = Request::of(actions(&txn.success)).or_else(actions(&txn.failure));
            for compare in &txn.compare {
                let CompareTarget::Mod(revision) = compare.target else { return None };
                request = request.provided(Compare::modified(compare.key.clone(), revision as u64));
            }
            request
        }
        Ask::Change(_) | Ask::Membership(_) | Ask::Renew(_) => return None,
    })
}

fn span(range: &RangeRequest) -> Span {
    let end = (!range.range_end.is_empty()).then(|| range.range_end.clone());
    Span { key: range.key.clone(), end }
}

/// What was answered; nothing if it was refused.
fn answer(said: &Said) -> Option<Answer> {
    let of = |revision: i64, done: Vec<Done>| Answer::done(revision as u64, done);
    match said {
        Said::Read(Ok(read)) => Some(of(read.revision, vec![found(read)])),
        Said::Changed(Ok(Response::Put(put))) => Some(of(put.revision, vec![written(put)])),
        Said::Changed(Ok(Response::DeleteRange(delete))) => {
            Some(of(delete.revision, vec![Done::Deleted { count: delete.deleted as u64 }]))
        }
        Said::Changed(Ok(Response::Txn(txn))) => {
            let done = txn.responses.iter().map(|one| match one {
                ResponseOp::Put(put) => written(put),
                ResponseOp::Range(read) => found(read),
                other => unreachable!("nobody asked for {other:?}"),
            });
            let answer = of(txn.revision, done.collect());
            Some(if txn.succeeded { answer } else { answer.otherwise() })
        }
        Said::Changed(_) | Said::Read(Err(_)) | Said::Renewed(_) | Said::Refused(_) => None,
    }
}

/// What was there before is told only where it was asked for, which the answer does not say.
fn written(put: &quorate_kv::PutResponse) -> Done {
    Done::Put { previous: put.prev_kv.as_ref().map(|before| vec![item(before)]) }
}

fn found(read: &RangeResponse) -> Done {
    Done::Found { items: read.kvs.iter().map(item).collect() }
}

fn item(pair: &KeyValue) -> Item {
    Item {
        key: pair.key.clone(),
        value: pair.value.clone(),
        created: Some(Revision(pair.create_revision as u64)),
        modified: Some(Revision(pair.mod_revision as u64)),
        version: Some(pair.version as u64),
    }
}
