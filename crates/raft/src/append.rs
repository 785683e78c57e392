//! How a leader's log gets to its peers: appends, snapshots in place of what is compacted, and
//! heartbeats.
//!
//! Each peer's [`Progress`](crate::Progress) says what may be sent to it now. Appends carry the
//! leader's commit index as it is, heartbeats no more than the peer is known to hold, since a
//! heartbeat does not check that the logs agree. All loops over peers run in ascending order.
//!
//! Source: etcd's `maybeSendAppend` and its callers.

use bytes::Bytes;
use quorate_types::{EntryId, Index, NodeId, bug};

use crate::core::Core;
use crate::log::LogError;
use crate::note::Note;
use crate::{Body, Entries, Fatal, Progress, ProgressState, Storage};

/// Whether an append is worth sending that carries nothing but the commit index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenEmpty {
    Send,
    Skip,
}

impl<S: Storage> Core<S> {
    /// Sends every peer an append, unless it is paused.
    pub(crate) fn broadcast_append(&mut self, when_empty: WhenEmpty) -> Result<(), Fatal> {
        let commit = self.log.committed();
        let mut place = 0;
        while let Some((peer, progress)) = self.tracker.progress.at(place) {
            place += 1;
            // To a peer whose entries are pulled, only news of the commit index goes.
            let is_idle = self.is_pulled(progress) && !progress.can_bump_commit(commit);
            if peer != self.id {
                self.send_append(peer, if is_idle { WhenEmpty::Skip } else { when_empty })?;
            }
        }
        Ok(())
    }

    /// Sends every peer what it has not been sent yet, be it entries or the commit index.
    pub(crate) fn broadcast_due(&mut self) -> Result<(), Fatal> {
        let commit = self.log.committed();
        let mut place = 0;
        while let Some(peer) = self.tracker.progress.id_at(place) {
            place += 1;
            if peer == self.id {
                continue;
            }
            while self.send_append(peer, WhenEmpty::Skip)? {}
            let progress = self.tracker.progress.get(peer);
            if progress.is_some_and(|progress| progress.can_bump_commit(commit)) {
                self.send_append(peer, WhenEmpty::Send)?;
            }
        }
        Ok(())
    }

    /// Whether entries go to this peer only when the driver asks for them.
    fn is_pulled(&self, progress: &Progress) -> bool {
        self.config.pull_appends && progress.state == ProgressState::Replicate
    }

    /// Sends `peer` the entries it needs next, unless those are pulled, or a snapshot if they are not
    /// there any more. Says whether anything was sent.
    pub(crate) fn send_append(
        &mut self,
        peer: NodeId,
        when_empty: WhenEmpty,
    ) -> Result<bool, Fatal> {
        match self.tracker.progress.get(peer) {
            Some(progress) if self.is_pulled(progress) => {
                // There is something to find out if entries are under way, which may be lost.
                let is_news = progress.can_bump_commit(self.log.committed());
                let is_idle = progress.next == progress.matched.next() && !is_news;
                let when_empty = if is_idle { WhenEmpty::Skip } else { when_empty };
                self.send_entries(peer, when_empty, None)
            }
            _ => self.send_entries(peer, when_empty, Some(self.config.max_size_per_msg)),
        }
    }

    /// As [`Core::send_append`], with entries of up to `max_size` bytes encoded, at least one, or
    /// without any.
    pub(crate) fn send_entries(
        &mut self,
        peer: NodeId,
        when_empty: WhenEmpty,
        max_size: Option<u64>,
    ) -> Result<bool, Fatal> {
        let Some(progress) = self.tracker.progress.get_mut(peer) else { return Ok(false) };
        if progress.is_paused() {
            return Ok(false);
        }
        let index = progress.next.prev();
        let term = match self.log.term(index) {
            Ok(term) => term,
            Err(LogError::Compacted | LogError::Unavailable) => {
                return self.send_snapshot(peer, Index(0));
            }
            Err(LogError::Fatal(fatal)) => return Err(fatal),
        };
        // While the window is full, only an empty append goes out: its answer frees the window if
        // what filled it was lost.
        let is_throttled =
            progress.state == ProgressState::Replicate && progress.inflights.is_full();
        let entries = match max_size {
            Some(max_size) if !is_throttled => self.log.entries(progress.next, max_size),
            Some(_) | None => Ok(Entries::new()),
        };
        let entries = match entries {
            Ok(entries) if entries.is_empty() && when_empty == WhenEmpty::Skip => return Ok(false),
            Ok(entries) => entries,
            Err(LogError::Fatal(fatal)) => return Err(fatal),
            Err(_) if when_empty == WhenEmpty::Skip => return Ok(false),
            Err(_) => return self.send_snapshot(peer, Index(0)),
        };

        let commit = self.log.committed();
        progress.sent_entries(entries.len() as u64, entries.payload_size());
        progress.sent_commit(commit);
        self.send(peer, Body::Append { prev: EntryId { term, index }, entries, commit });
        Ok(true)
    }

    /// Sends `peer` a snapshot at `from` or after, if it can be reached and one is ready. Says
    /// whether it did.
    pub(crate) fn send_snapshot(&mut self, peer: NodeId, from: Index) -> Result<bool, Fatal> {
        let Some(progress) = self.tracker.progress.get_mut(peer) else { return Ok(false) };
        if !progress.recent_active {
            return Ok(false);
        }
        let Some(snapshot) = self.log.snapshot(from)? else {
            self.note(Note::SnapshotNotReady { peer });
            return Ok(false);
        };
        if snapshot.is_empty() {
            return Err(Fatal::EmptySnapshot);
        }
        if snapshot.metadata.index < progress.matched {
            // Storage compacted more than its snapshot covers; until there is a newer one, this one
            // is no help.
            self.note(Note::SnapshotNotReady { peer });
            return Ok(false);
        }
        progress.become_snapshot(snapshot.metadata.index);
        self.note(Note::SnapshotSent { peer, snapshot: snapshot.id() });
        self.send(peer, Body::Snapshot { snapshot: Box::new(snapshot) });
        Ok(true)
    }

    /// Sends every peer a heartbeat.
    pub(crate) fn broadcast_heartbeat(&mut self, context: &Bytes) {
        let committed = self.log.committed();
        let mut place = 0;
        while let Some((peer, progress)) = self.tracker.progress.at_mut(place) {
            place += 1;
            if peer == self.id {
                continue;
            }
            let commit = heartbeat_commit(committed, progress);
            progress.sent_commit(commit);
            self.send(peer, Body::Heartbeat { commit, context: context.clone() });
        }
    }

    /// As [`Core::broadcast_heartbeat`], without a context and with the next Ready.
    pub(crate) fn owe_heartbeats(&mut self) {
        let committed = self.log.committed();
        let peers = self.tracker.progress.iter_mut().filter(|(peer, _)| *peer != self.id);
        let mut has_peers = false;
        for (_, progress) in peers {
            progress.sent_commit(heartbeat_commit(committed, progress));
            progress.inflights.rest();
            has_peers = true;
        }
        if has_peers {
            self.owe_beat();
        }
    }
}

/// The commit index that a heartbeat may carry: a peer's log may differ from ours beyond what matches.
pub(crate) fn heartbeat_commit(committed: Index, peer: &Progress) -> Index {
    if bug!("heartbeats-commit-past-what-matches") {
        committed
    } else {
        committed.min(peer.matched)
    }
}
