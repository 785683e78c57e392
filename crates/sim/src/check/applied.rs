//! State machine safety: every machine applies the same entries at the same places, in the order of
//! their terms, each request at most once, and none that was refused (Raft thesis 3.2; exactly-once).

use std::collections::BTreeSet;

use quorate_replica::{Applying, RequestId, open};
use quorate_types::{Index, NodeId, Term};

use super::Finding;

/// The first place of every log; all members begin there.
const FIRST: u64 = 1;

/// What was applied anywhere, by place.
#[derive(Default)]
pub(super) struct Applied {
    /// Term and digest of each entry after the first place.
    entries: Vec<(Term, u32)>,
    requests: BTreeSet<RequestId>,
    refused: BTreeSet<RequestId>,
}

impl Applied {
    /// A machine applies this; whether it is the first one to do so.
    pub(super) fn on_apply(&mut self, node: NodeId, entry: &Applying) -> Result<bool, String> {
        let (index, found) = (entry.index(), digest(entry));
        let at = (index.0 - FIRST) as usize - 1;
        if let Some(known) = self.entries.get(at) {
            if *known != found {
                return Err(format!(
                    "state machine safety: {node} applies {found:?} at {index}, others {known:?}"
                ));
            }
            return Ok(false);
        }
        if at != self.entries.len() {
            return Err(format!("{node} applies {index} after {}: a gap", self.last()));
        }
        if self.entries.last().is_some_and(|(before, _)| found.0 < *before) {
            return Err(format!("order: {found:?} stands at {index}, after a later term"));
        }
        self.entries.push(found);
        if let Applying::Command { entry, .. } = entry
            && let Ok((request, _)) = open(entry.clone())
        {
            if !self.requests.insert(request) {
                return Err(format!("exactly once: request {:x} is applied twice", request.0));
            }
            if self.refused.contains(&request) {
                return Err(format!("refused request {:x} is applied at {index}", request.0));
            }
        }
        Ok(true)
    }

    pub(super) fn on_refused(&mut self, request: RequestId) -> Finding {
        if self.requests.contains(&request) {
            return Err(format!("request {:x} is refused after it was applied", request.0));
        }
        self.refused.insert(request);
        Ok(())
    }

    pub(super) fn last(&self) -> Index {
        Index(FIRST + self.entries.len() as u64)
    }

    pub(super) fn term(&self, index: Index) -> Option<Term> {
        let at = (index.0.checked_sub(FIRST + 1)?) as usize;
        self.entries.get(at).map(|(term, _)| *term)
    }

    pub(super) fn count(&self) -> u64 {
        self.entries.len() as u64
    }
}

fn digest(entry: &Applying) -> (Term, u32) {
    match entry {
        Applying::Command { term, entry, .. } => (*term, crc32c::crc32c(entry)),
        Applying::Empty { term, .. } => (*term, 1),
        Applying::Membership { term, conf_state, .. } => {
            (*term, crc32c::crc32c(format!("{conf_state:?}").as_bytes()))
        }
    }
}
