//! Linearizability of what clients saw, and no acknowledged write lost.
//!
//! The log is one order of all changes, and revisions say where in it a read stands. So the order
//! that linearizability asks for is known and need not be searched; what remains to be shown is that
//! it respects real time (whatever ended before something began stands before it) and that every
//! answer is what the model says there.

use std::collections::{BTreeMap, BTreeSet};

use quorate_kv::{Command, KvError, RangeRequest, RangeResponse, Response};
use quorate_replica::{Applying, RequestId, open};
use quorate_types::Index;

use super::Finding;
use super::leases::Leases;
use super::model::Model;
use super::watches::Changes;
use crate::node::{Ask, Said};
use crate::world::OpId;

#[derive(Default)]
pub(super) struct Clients {
    model: Model,
    open: BTreeMap<OpId, Open>,
    requests: BTreeMap<RequestId, OpId>,
    /// What came of those that are committed and not answered.
    fates: BTreeMap<OpId, Result<Response, KvError>>,
    /// Those that a member makes for itself.
    own: BTreeSet<RequestId>,
    pub(super) leases: Leases,
    pub(super) changes: Changes,
    /// What has been answered by now: nothing that begins later may stand before it.
    floor: Floor,
}

#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    index: Index,
    revision: i64,
}

/// An operation without an answer.
struct Open {
    ask: Ask,
    asked_at: u64,
    floor: Floor,
    /// Where it was committed, and what it must have answered.
    done: Option<(Index, Result<Response, KvError>, i64)>,
}

impl Clients {
    pub(super) fn revision(&self) -> i64 {
        self.model.revision
    }

    pub(super) fn compacted(&self) -> i64 {
        self.model.compacted
    }

    pub(super) fn on_ask(&mut self, op: OpId, now: u64, ask: &Ask) {
        let open = Open { ask: ask.clone(), asked_at: now, floor: self.floor, done: None };
        self.open.insert(op, open);
    }

    pub(super) fn on_proposed(&mut self, request: RequestId, op: OpId) {
        self.requests.insert(request, op);
    }

    pub(super) fn on_proposed_by_member(&mut self, request: RequestId) {
        self.own.insert(request);
    }

    /// An entry is committed, in the order of the log.
    pub(super) fn on_commit(&mut self, now: u64, entry: &Applying) -> Finding {
        let Applying::Command { index, term, entry } = entry else { return Ok(()) };
        let (request, command) =
            open(entry.clone()).map_err(|error| format!("entry {index}: {error}"))?;
        let command =
            Command::decode(command).map_err(|error| format!("entry {index}: {error}"))?;
        let response = self.model.apply((*index, *term), &command);
        self.changes.extend(self.model.take_changes());
        self.leases.on_commit(now, &command, &response)?;
        if self.own.remove(&request) {
            return Ok(());
        }
        let op = self.requests.remove(&request);
        let Some(op) = op else {
            return Err(format!("request {:x} at {index} was never made", request.0));
        };
        self.fates.insert(op, response.clone());
        let Some(open) = self.open.get_mut(&op) else { return Ok(()) };
        if *index <= open.floor.index {
            return Err(format!(
                "linearizability: an operation asked after {} stands at {index}",
                open.floor.index
            ));
        }
        let asked = matches!(&open.ask, Ask::Change(asked) if *asked == command);
        if !asked {
            return Err(format!("entry {index} is not what was asked for"));
        }
        open.done = Some((*index, response, self.model.revision));
        Ok(())
    }

    pub(super) fn on_said(&mut self, op: OpId, _now: u64, said: &Said) -> Finding {
        let Some(open) = self.open.remove(&op) else { return Ok(()) }; // given up before
        self.fates.remove(&op);
        match (said, &open.ask) {
            (Said::Refused(_), _) => match open.done {
                Some((index, ..)) => Err(format!("what was refused stands at {index}")),
                None => Ok(()),
            },
            (Said::Changed(_), Ask::Membership(_)) => Ok(()),
            (Said::Renewed(_), Ask::Renew(lease)) => self.leases.on_promise(*lease, open.asked_at),
            (Said::Changed(answer), _) => {
                let Some((index, want, revision)) = open.done else {
                    return Err("a change was acknowledged that is not committed".to_owned());
                };
                if *answer != want {
                    return Err(format!("answer at {index}: {answer:?} instead of {want:?}"));
                }
                self.floor.index = self.floor.index.max(index);
                self.floor.revision = self.floor.revision.max(revision);
                match answer {
                    Ok(Response::LeaseGrant(lease)) => {
                        self.leases.on_promise(lease.id, open.asked_at)
                    }
                    _ => Ok(()),
                }
            }
            (Said::Read(answer), Ask::Read(range)) => self.on_read(range, answer, open.floor),
            (Said::Renewed(_), _) => Err("a lease was renewed that nobody asked for".to_owned()),
            (Said::Read(_), _) => Err("a read was answered that nobody asked for".to_owned()),
        }
    }

    /// What came of a request that nobody was told of.
    pub(super) fn take_fate(&mut self, op: OpId) -> Option<Result<Response, KvError>> {
        self.fates.remove(&op)
    }

    /// It may still happen, at any time. Whether it had no answer.
    pub(super) fn on_give_up(&mut self, op: OpId) -> bool {
        self.open.remove(&op).is_some()
    }

    fn on_read(
        &mut self,
        range: &RangeRequest,
        answer: &Result<RangeResponse, KvError>,
        floor: Floor,
    ) -> Finding {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(format!("a read failed: {}", error.message())),
        };
        let revision = answer.revision;
        if self.model.revision < revision {
            return Err(format!("a read shows revision {revision}, which is not committed"));
        }
        let want = self.model.range(range, revision);
        if *answer != want {
            return Err(format!("a read at {revision} shows {answer:?} instead of {want:?}"));
        }
        if range.serializable {
            return Ok(());
        }
        if revision < floor.revision {
            return Err(format!(
                "linearizability: a read shows revision {revision} after {} was seen",
                floor.revision
            ));
        }
        self.floor.revision = self.floor.revision.max(revision);
        Ok(())
    }
}
