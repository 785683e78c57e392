//! Machines that have applied the same entries hold the same state, byte for byte; and what one
//! member answers from its own state never goes back while it runs.

use std::collections::BTreeMap;

use quorate_kv::{KvError, RangeResponse, Store};
use quorate_types::{Index, NodeId};

use super::Finding;

#[derive(Default)]
pub(super) struct States {
    pub(super) every: u64,
    /// Hash, revision and compacted revision by index.
    known: BTreeMap<Index, (u32, i64, i64)>,
    /// The newest revision that each member has answered with since it started.
    answered: BTreeMap<NodeId, i64>,
}

/// Places whose state is remembered.
const KNOWN_MAX: usize = 2000;

impl States {
    pub(super) fn on_state(&mut self, node: NodeId, store: &Store) -> Finding {
        let index = store.applied().index;
        // A hash reads every row: the longer the history, the rarer. All members agree on where.
        let every = self.every.max(1);
        let rows = (store.revision() - store.compact_revision().max(0)) as u64;
        if !index.0.is_multiple_of(every) || !(index.0 / every).is_multiple_of(1 + rows / 64) {
            return Ok(());
        }
        let hash = store.hash_kv(0).map_err(|error| {
            format!("{node} cannot hash its state at {index}: {}", error.message())
        })?;
        let found = (hash.hash, store.revision(), store.compact_revision());
        let known = *self.known.entry(index).or_insert(found);
        while KNOWN_MAX < self.known.len() {
            self.known.pop_first();
        }
        if known != found {
            return Err(format!(
                "state equality: {node} has {found:?} at {index}, others {known:?}"
            ));
        }
        Ok(())
    }

    pub(super) fn on_new_process(&mut self, node: NodeId) {
        self.answered.remove(&node);
    }

    pub(super) fn on_serializable(
        &mut self,
        node: NodeId,
        answer: &Result<RangeResponse, KvError>,
    ) -> Finding {
        let Ok(answer) = answer else { return Ok(()) };
        let last = self.answered.entry(node).or_default();
        if answer.revision < *last {
            return Err(format!(
                "serializable reads: {node} answers with revision {} after {last}",
                answer.revision
            ));
        }
        *last = answer.revision;
        Ok(())
    }
}
