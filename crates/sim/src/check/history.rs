//! Linearizability of what clients saw, and no acknowledged write lost.
//!
//! The log is one order of all changes, and revisions say where in it a read stands. So the order
//! that linearizability asks for is known and need not be searched; what remains to be shown is that
//! it respects real time (whatever ended before something began stands before it) and that every
//! answer is what the model says there.

use std::collections::BTreeMap;

use quorate_kv::{Command, KvError, RangeRequest, RangeResponse, Response};
use quorate_replica::{Applying, RequestId, open};
use quorate_types::Index;

use super::Finding;
use super::model::Model;
use crate::node::{Ask, Said};
use crate::world::OpId;

#[derive(Default)]
pub(super) struct Clients {
    model: Model,
    open: BTreeMap<OpId, Open>,
    requests: BTreeMap<RequestId, OpId>,
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

    pub(super) fn on_ask(&mut self, op: OpId, _client: usize, _now: u64, ask: &Ask) {
        self.open.insert(op, Open { ask: ask.clone(), floor: self.floor, done: None });
    }

    pub(super) fn on_proposed(&mut self, request: RequestId, op: OpId) {
        self.requests.insert(request, op);
    }

    /// An entry is committed, in the order of the log.
    pub(super) fn on_commit(&mut self, entry: &Applying) -> Finding {
        let Applying::Command { index, entry, .. } = entry else { return Ok(()) };
        let (request, command) =
            open(entry.clone()).map_err(|error| format!("entry {index}: {error}"))?;
        let command =
            Command::decode(command).map_err(|error| format!("entry {index}: {error}"))?;
        let response = self.model.apply(&command);
        let op = self.requests.remove(&request);
        let Some(op) = op else {
            return Err(format!("request {:x} at {index} was never made", request.0));
        };
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
        match (said, &open.ask) {
            (Said::Refused(_), _) => match open.done {
                Some((index, ..)) => Err(format!("what was refused stands at {index}")),
                None => Ok(()),
            },
            (Said::Changed(_), Ask::Membership(_)) => Ok(()),
            (Said::Changed(answer), _) => {
                let Some((index, want, revision)) = open.done else {
                    return Err("a change was acknowledged that is not committed".to_owned());
                };
                if *answer != want {
                    return Err(format!("answer at {index}: {answer:?} instead of {want:?}"));
                }
                self.floor.index = self.floor.index.max(index);
                self.floor.revision = self.floor.revision.max(revision);
                Ok(())
            }
            (Said::Read(answer), Ask::Read(range)) => self.on_read(range, answer, open.floor),
            (Said::Read(_), _) => Err("a read was answered that nobody asked for".to_owned()),
        }
    }

    /// It may still happen, at any time.
    pub(super) fn on_give_up(&mut self, op: OpId) {
        self.open.remove(&op);
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
