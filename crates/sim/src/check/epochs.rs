//! The promises that only ZAB makes.
//!
//! *Promises*: an epoch that a member promised to is never given up for an earlier one, nor promised
//! to a second leader; the current epoch does not pass it and does not go back; a history has no entry
//! of an epoch that was not promised to. *History*: ids grow by one within an epoch, and an epoch
//! begins with one; an id has one place in all histories; entries of an epoch are there only once its
//! leader is established. *Order*: what one member asks for is applied in the order it asked.
//!
//! What holds of both engines is elsewhere: one leader an epoch, one content and one past for each
//! place, leaders that lack nothing, commits that a majority holds (`logs.rs`), one order of what is
//! applied, once, and none that was refused (`applied.rs`), what clients see (`history.rs`). What a
//! member holds to between any two calls is asserted by its replica's `check`, after every event.

use std::collections::BTreeMap;

use quorate_replica::{Applying, HardState, Initial, RequestId, Write, open};
use quorate_types::{Index, NodeId, Term};
use quorate_zab::Zxid;

use super::Finding;
use super::logs::Logs;

/// Ids whose places are remembered; the oldest go first.
const PLACES_MAX: usize = 50_000;

/// The node that a request came from stands in its upper bits.
const NODE_SHIFT: u32 = 48;

#[derive(Default)]
pub(super) struct Epochs {
    /// What each member has asked its disk to remember, last. Nothing where the engine is another.
    promises: BTreeMap<NodeId, quorate_zab::HardState>,
    places: BTreeMap<Zxid, Index>,
    /// The last request of each member that was applied.
    requests: BTreeMap<u64, RequestId>,
}

impl Epochs {
    pub(super) fn on_start(&mut self, node: NodeId, initial: &Initial) -> Finding {
        let HardState::Zab(found) = &initial.hard_state else { return Ok(()) };
        self.promises.insert(node, found.clone());
        let mut last = Zxid(initial.mark.stamp);
        for entry in &initial.entries {
            let zxid = Zxid(entry.term.0);
            follows(node, last, zxid)?;
            last = zxid;
        }
        check_bounds(node, found, last)
    }

    /// `logs` have taken the write in.
    pub(super) fn on_write(&mut self, node: NodeId, write: &Write, logs: &Logs) -> Finding {
        if let Some(HardState::Zab(next)) = &write.hard_state
            && let Some(known) = self.promises.insert(node, next.clone())
        {
            let went_back = next.accepted_epoch < known.accepted_epoch
                || next.current_epoch < known.current_epoch
                || next.committed < known.committed;
            let is_second = next.accepted_epoch == known.accepted_epoch
                && known.accepted_leader != next.accepted_leader;
            if went_back || is_second {
                return Err(format!("promises: {node} goes from {known:?} to {next:?}"));
            }
        }
        let Some(promises) = self.promises.get(&node) else { return Ok(()) };
        let mut last = None;
        for entry in &write.entries {
            let zxid = Zxid(entry.term.0);
            let before = last.or_else(|| logs.written(node, entry.index.prev()));
            if let Some(Term(before)) = before {
                follows(node, Zxid(before), zxid)?;
            }
            last = Some(entry.term);
            let place = *self.places.entry(zxid).or_insert(entry.index);
            if place != entry.index {
                return Err(format!(
                    "history: {node} holds {zxid} at {}, not {place}",
                    entry.index
                ));
            }
            // Who leads may write in the turn in which it is established.
            let epoch = zxid.epoch();
            let is_own = promises.accepted_epoch == epoch
                && promises.accepted_leader.as_ref().is_some_and(|leader| {
                    leader.as_str().split(':').next() == Some(&format!("{:016x}", node.0))
                });
            if !is_own && !logs.has_led(Term(epoch.0.into())) {
                return Err(format!("history: {node} holds {zxid}, and nobody leads that epoch"));
            }
        }
        while PLACES_MAX < self.places.len() {
            self.places.pop_first();
        }
        match last {
            Some(Term(last)) => check_bounds(node, promises, Zxid(last)),
            None => Ok(()),
        }
    }

    /// An entry is applied for the first time.
    pub(super) fn on_commit(&mut self, entry: &Applying) -> Finding {
        if self.promises.is_empty() {
            return Ok(());
        }
        let Applying::Command { index, entry, .. } = entry else { return Ok(()) };
        let Ok((request, _)) = open(entry.clone()) else { return Ok(()) };
        let node = request.0 >> NODE_SHIFT;
        match self.requests.insert(node, request) {
            Some(before) if request < before => Err(format!(
                "order: request {:x} of member {node} is applied at {index}, after {:x}",
                request.0, before.0
            )),
            _ => Ok(()),
        }
    }
}

fn check_bounds(node: NodeId, promises: &quorate_zab::HardState, last: Zxid) -> Finding {
    let (accepted, current) = (promises.accepted_epoch, promises.current_epoch);
    if accepted < current || accepted < last.epoch() {
        return Err(format!(
            "promises: {node} has promised epoch {accepted}, is in {current}, and holds {last}"
        ));
    }
    Ok(())
}

fn follows(node: NodeId, last: Zxid, next: Zxid) -> Finding {
    // What a cluster begins with has no id of a leader's.
    match next.follows(last) || last.epoch() == quorate_zab::Epoch(0) {
        true => Ok(()),
        false => Err(format!("history: {node} holds {next} after {last}")),
    }
}
