//! Snapshots that peers ask for, because the state they have is of no use.
//!
//! Such a peer takes no entries until it has its snapshot, and asks again with every heartbeat; so
//! a request that was answered may be forgotten, whatever becomes of the answer.
//!
//! Source: `request_snapshot` of the crate `raft`.

use quorate_types::{Index, NodeId};

use super::Leader;
use crate::core::Core;
use crate::note::{MessageFault, Note};
use crate::{Error, MessageType, ProgressState, Storage};

impl Leader {
    /// `from` asks for a snapshot at or after `index`, where its log ends.
    pub(super) fn on_snapshot_request<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        index: Index,
    ) -> Result<(), Error> {
        let last = core.log.last_index();
        let Some(progress) = core.tracker.progress.get_mut(from) else {
            core.dropped(MessageType::MsgAppResp, from, MessageFault::NotMember);
            return Ok(());
        };
        progress.recent_active = true;
        if from == core.id || index == Index(0) || last < index {
            core.dropped(MessageType::MsgAppResp, from, MessageFault::Malformed);
            return Ok(());
        }
        let is_under_way =
            progress.state == ProgressState::Snapshot && index <= progress.pending_snapshot;
        // It has taken entries since, so it does not wait any more.
        let is_late = index < progress.matched;
        if is_under_way || is_late {
            return Ok(());
        }
        match self.snapshot_requests.iter_mut().find(|(peer, _)| *peer == from) {
            Some((_, asked)) => *asked = index,
            None => {
                self.snapshot_requests.push((from, index));
                core.note(Note::SnapshotRequested { peer: from, index });
            }
        }
        self.serve_snapshot_request(core, from)
    }

    /// Sends `peer` the snapshot it asked for, if it did and there is one.
    pub(super) fn serve_snapshot_request<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        peer: NodeId,
    ) -> Result<(), Error> {
        let place = self.snapshot_requests.iter().position(|(asked, _)| *asked == peer);
        let Some(place) = place else { return Ok(()) };
        let index = self.snapshot_requests[place].1;
        let matched = core.tracker.progress.get(peer).map(|progress| progress.matched);
        let is_over = matched.is_none_or(|matched| index < matched);
        // There can be no such snapshot before all it must cover is applied.
        if is_over || (index <= core.log.applied() && core.send_snapshot(peer, index)?) {
            self.snapshot_requests.swap_remove(place);
        }
        Ok(())
    }
}
