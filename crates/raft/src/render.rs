//! One batch of work, in the two ways a driver may want it.
//!
//! The messages that the core holds back vouch for the write of this batch. Synchronously, those to
//! others come after the rest of the messages, to be sent once the batch is written, and those to
//! the node itself wait for `advance`. Asynchronously, all of them are answers to the one message
//! that carries the write.

use quorate_types::{EntryId, Index, Term};

use crate::core::News;
use crate::{
    Body, Error, Fatal, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Message, RawNode, Ready, Storage,
    must_sync,
};

/// What [`RawNode::advance`] reports, in this order.
#[derive(Debug, Default)]
pub(crate) struct OnAdvance {
    /// What the node says to itself once its writes are durable.
    pub(crate) own: Vec<Message>,
    pub(crate) stored: Option<Stored>,
    pub(crate) applied: Option<Applied>,
}

/// A write under way, as it was when it was issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) term: Term,
    pub(crate) stable: Option<EntryId>,
    pub(crate) snapshot: Option<Index>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    pub(crate) index: Index,
    pub(crate) encoded_bytes: u64,
    pub(crate) payload_bytes: u64,
}

impl<S: Storage> RawNode<S> {
    pub(crate) fn may_apply_unstable(&self) -> bool {
        // Written by another thread, an entry may be applied only once it is stable; otherwise the
        // driver writes it first.
        !self.raft.core.config.async_storage_writes
    }

    pub(crate) fn check_advanced(&self) -> Result<(), Error> {
        match self.on_advance.is_some() {
            true => Err(Fatal::ReadyWithoutAdvance.into()),
            false => Ok(()),
        }
    }

    /// Fills an empty Ready with all the work there is, and remembers that it was handed out.
    pub(crate) fn take_work(&mut self, ready: &mut Ready) -> Result<(), Error> {
        self.check_advanced()?;
        self.raft.flush_appends()?;
        self.gather(ready)?;
        let core = &mut self.raft.core;
        core.take_messages(&mut ready.messages);
        if !core.read_states.is_empty() {
            ready.read_states = std::mem::take(&mut core.read_states);
        }
        ready.lost_reads = core.take_lost_reads();
        ready.notes = core.take_notes();
        // With entries or a snapshot there may be more to do once they are stored or applied.
        let is_last = ready.entries.is_empty()
            && ready.committed_entries.is_empty()
            && ready.snapshot.is_none();
        let is_written = core.held.is_empty() && !core.log.has_unstable_ents();
        if is_last && is_written && ready.hard_state.is_none() && ready.soft_state.is_none() {
            // As of an idle node: messages, and nothing to write or to remember.
            core.trace(crate::TracingEventName::Ready);
        } else {
            let held = core.take_held();
            self.render(ready, held);
            self.accept_marks(ready)?;
        }
        self.raft.core.news = if is_last { News::Nothing } else { News::Anything };
        Ok(())
    }

    /// Fills an empty Ready, in its place since it is large, but for what the core queues.
    pub(crate) fn gather(&self, ready: &mut Ready) -> Result<(), Error> {
        let core = &self.raft.core;
        if core.log.has_next_unstable_ents() {
            ready.entries = core.log.next_unstable_ents();
        }
        if core.log.has_next_committed_ents(self.may_apply_unstable()) {
            ready.committed_entries = core.log.next_committed_ents(self.may_apply_unstable())?;
        }
        if let Some(snapshot) = core.log.next_unstable_snapshot() {
            ready.snapshot = Some(snapshot.clone());
        }
        let (soft_state, hard_state) = (self.raft.soft_state(), core.hard_state());
        if soft_state != self.soft_state {
            ready.soft_state = Some(soft_state);
        }
        if hard_state != self.hard_state {
            ready.hard_state = Some(hard_state);
        }
        if ready.hard_state.is_some() || !ready.entries.is_empty() {
            ready.must_sync = must_sync(&hard_state, &self.hard_state, ready.entries.len());
        }
        Ok(())
    }

    /// Gives the messages that vouch for this Ready's write the place they have in this way of
    /// driving: after the write, or as answers to it.
    pub(crate) fn render(&mut self, ready: &mut Ready, held: Vec<Message>) {
        if self.raft.core.config.async_storage_writes {
            ready.messages.extend(self.storage_append(ready, held));
            ready.messages.extend(self.storage_apply(ready));
            return;
        }
        let id = self.raft.core.id;
        for message in held {
            if message.to == id {
                self.on_advance.get_or_insert_default().own.push(message);
            } else {
                ready.messages.push(message);
            }
        }
    }

    /// Remembers what was handed out.
    pub(crate) fn accept_marks(&mut self, ready: &Ready) -> Result<(), Error> {
        if let Some(soft_state) = ready.soft_state {
            self.soft_state = soft_state;
        }
        if let Some(hard_state) = ready.hard_state {
            self.hard_state = hard_state;
        }
        let may_apply_unstable = self.may_apply_unstable();
        let applied = ready.committed_entries.last().map(|last| {
            let entries = &ready.committed_entries;
            let (encoded_bytes, payload_bytes) = (entries.encoded_size(), entries.payload_size());
            Applied { index: last.index, encoded_bytes, payload_bytes }
        });
        if may_apply_unstable {
            let stored = self.storage_append_reply(ready);
            if stored.is_some() || applied.is_some() {
                let on_advance = self.on_advance.get_or_insert_default();
                (on_advance.stored, on_advance.applied) = (stored, applied);
            }
        }
        let log = &mut self.raft.core.log;
        log.accept_unstable();
        if let Some(Applied { index, encoded_bytes, .. }) = applied {
            log.accept_applying(index, encoded_bytes, may_apply_unstable)?;
        }
        self.raft.core.trace(crate::TracingEventName::Ready);
        Ok(())
    }

    /// The work for the append thread, if there is any. `held` goes out when it is done.
    pub(crate) fn storage_append(&self, ready: &Ready, held: Vec<Message>) -> Option<Message> {
        let is_needed = !ready.entries.is_empty()
            || ready.hard_state.is_some()
            || ready.snapshot.is_some()
            || !held.is_empty();
        if !is_needed {
            return None;
        }
        let id = self.raft.core.id;
        let snapshot = || ready.snapshot.clone().map(Box::new);
        let mut responses = held;
        if let Some(Stored { term, stable, .. }) = self.storage_append_reply(ready) {
            responses.push(Message {
                to: id,
                from: LOCAL_APPEND_THREAD,
                term,
                body: Body::StorageAppendReply { stable, snapshot: snapshot() },
            });
        }
        Some(Message {
            to: LOCAL_APPEND_THREAD,
            from: id,
            term: ready.hard_state.map_or(Term(0), |hard_state| hard_state.term),
            body: Body::StorageAppend {
                hard_state: ready.hard_state,
                entries: ready.entries.clone(),
                snapshot: snapshot(),
                responses,
            },
        })
    }

    /// What to report once the writes issued with `ready` are durable. While anything is unstable,
    /// every write is acknowledged, for the whole log: an acknowledgement of an earlier term does
    /// not count, and this makes up for it.
    pub(crate) fn storage_append_reply(&self, ready: &Ready) -> Option<Stored> {
        let core = &self.raft.core;
        let stable = match core.log.has_unstable_ents() {
            true => core.log.last_entry_id().ok(),
            false => None,
        };
        let snapshot = ready.snapshot.as_ref().map(|snapshot| snapshot.metadata.index);
        (stable.is_some() || snapshot.is_some()).then_some(Stored {
            term: core.term,
            stable,
            snapshot,
        })
    }

    /// The work for the apply thread, if there is any.
    pub(crate) fn storage_apply(&self, ready: &Ready) -> Option<Message> {
        if ready.committed_entries.is_empty() {
            return None;
        }
        let id = self.raft.core.id;
        let entries = || ready.committed_entries.clone();
        let reply = Message {
            to: id,
            from: LOCAL_APPLY_THREAD,
            term: Term(0),
            body: Body::StorageApplyReply { entries: entries() },
        };
        Some(Message {
            to: LOCAL_APPLY_THREAD,
            from: id,
            term: Term(0),
            body: Body::StorageApply { entries: entries(), responses: vec![reply] },
        })
    }
}
