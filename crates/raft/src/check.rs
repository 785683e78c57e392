//! What holds of a node between any two calls.
//!
//! Each line is a promise that other code relies on. None of it can be broken from outside; what
//! comes from outside is checked where it enters, and answered with an error or a note.

use quorate_types::NodeId;

use crate::raft::{Raft, RoleState};
use crate::{Body, ProgressState, Storage};

impl<S: Storage> Raft<S> {
    pub(crate) fn check(&self) {
        self.check_log();
        self.check_role();
        self.check_queues();
        self.check_clock();
    }

    fn check_log(&self) {
        let log = &self.core.log;
        assert!(log.applied() <= log.applying(), "what is applied was handed out");
        assert!(log.applying() <= log.committed(), "only what is committed is handed out");
        assert!(log.committed() <= log.last_index(), "what is committed is in the log");
    }

    fn check_role(&self) {
        let core = &self.core;
        assert!(core.election_timeout > 0, "an election timeout takes time");
        match &self.role {
            RoleState::Follower => {
                assert!(core.lead != core.id, "a follower does not follow itself");
            }
            RoleState::PreCandidate => assert!(core.lead.is_none(), "it misses a leader"),
            RoleState::Candidate => {
                assert!(core.lead.is_none(), "it misses a leader");
                assert!(core.vote == core.id, "a candidate votes for itself");
            }
            RoleState::Leader(leader) => {
                assert!(core.lead == core.id, "a leader knows who leads");
                assert!(leader.transferee() != core.id, "it need not hand over to itself");
                assert!(leader.pending_change() <= core.log.last_index(), "a change has an entry");
                self.check_progress();
            }
        }
        if let Some(wanted) = core.snapshot_wanted {
            assert!(
                matches!(self.role, RoleState::Follower),
                "only a follower asks for a snapshot"
            );
            assert!(wanted == core.log.last_index(), "a log that is to be replaced does not grow");
        }
        let own = core.tracker.progress.get(core.id);
        assert!(
            core.is_learner == own.is_some_and(|own| own.is_learner),
            "a node knows whether it is a learner"
        );
    }

    fn check_clock(&self) {
        let core = &self.core;
        assert!(core.election_since <= core.now, "no leader was heard from in the future");
        let is_quiet = core.now < core.quiet_until;
        assert!(!is_quiet || core.quiet_until <= self.due_at(), "nothing is due in quiet times");
    }

    fn check_progress(&self) {
        let core = &self.core;
        let last = core.log.last_index();
        for (id, progress) in core.tracker.progress.iter() {
            assert!(progress.matched < progress.next, "what matches need not be sent");
            assert!(progress.matched <= last, "nobody matches beyond the log");
            let has_pending = progress.pending_snapshot.0 > 0;
            let is_waiting = progress.state == ProgressState::Snapshot;
            assert!(has_pending == is_waiting, "a peer waits for a certain snapshot");
            if progress.state != ProgressState::Replicate {
                assert!(progress.inflights.count() == 0, "only appends in a pipeline are counted");
            }
            assert!(id != NodeId::NONE, "nobody is no member");
        }
    }

    fn check_queues(&self) {
        assert!(!self.core.has_empty_rarities(), "what is rare is not kept in vain");
        for message in &self.core.messages {
            assert!(message.to != self.core.id, "only what vouches for a write goes to itself");
        }
        let for_self = self.core.held.iter().filter(|message| message.to == self.core.id);
        assert!(for_self.count() == self.core.held_for_self as usize, "what is held is counted");
        for message in &self.core.held {
            let vouches = matches!(
                message.body,
                Body::AppendReply { .. }
                    | Body::AppendRefusal { .. }
                    | Body::VoteReply { .. }
                    | Body::PreVoteReply { .. }
            );
            assert!(vouches, "only what vouches for a write waits for it");
        }
    }
}
