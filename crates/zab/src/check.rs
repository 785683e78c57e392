//! What holds of a node between any two calls.
//!
//! Each line is a promise that other code relies on. None of it can be broken from outside; what
//! comes from outside is checked where it enters, and answered by closing a connection.

use crate::core::Core;
use crate::leading::Leading;
use crate::zab::RoleState;
use crate::{FollowerStage, LeaderStage, Message, PeerStatus, Storage, Zab};

impl<S: Storage> Zab<S> {
    /// Asserts what holds between any two calls; for tests.
    ///
    /// # Panics
    ///
    /// If something does not hold: a bug in here.
    pub fn check(&self) {
        let core = &self.core;
        core.history.check();
        check_marks(core);
        check_held(core);
        check_bounds(core);
        match &self.role {
            RoleState::Looking(_) => {
                assert!(core.status == PeerStatus::Electing, "who looks says so");
            }
            RoleState::Following(learner) => {
                learner.check_bounds(core);
                assert!(core.status == PeerStatus::Following, "who follows says so");
                assert!(!core.election.is_in_progress(), "who follows holds no ballot");
                assert!(learner.epoch() <= core.hard_state.accepted_epoch, "it has promised");
            }
            RoleState::Observing(learner) => {
                learner.check_bounds(core);
                let is_informed =
                    learner.stage() == FollowerStage::Done && learner.is_commit_only(core);
                let has_more = core.commit < core.history.last();
                assert!(!is_informed || !has_more, "a watcher has nothing that is not committed");
                assert!(core.status == PeerStatus::Electing, "a watcher answers nobody");
                assert!(!core.config.is_voter(), "voters do not watch");
            }
            RoleState::Leading(leading) => check_leading(core, leading),
        }
    }
}

fn check_marks<S: Storage>(core: &Core<S>) {
    let (hard_state, history) = (&core.hard_state, &core.history);
    assert!(hard_state.current_epoch <= hard_state.accepted_epoch, "it entered what it promised");
    assert!(core.applied <= core.handed, "what is applied was handed out");
    assert!(core.handed <= core.commit, "only what is committed is handed out");
    assert!(core.commit <= history.last(), "what is committed is in the history");
    let epoch = history.last_zxid().epoch();
    assert!(epoch <= hard_state.accepted_epoch, "a history has no entry of an epoch not promised");
}

fn check_held<S: Storage>(core: &Core<S>) {
    assert!(core.durable_write() <= core.last_cut(), "what is durable was handed out");
    for (write, _) in core.held() {
        assert!(write.0 <= core.last_cut().0 + 1, "nothing waits for a write that may never be");
    }
    for (_, message) in &core.ready.messages {
        assert!(!matches!(message, Message::Vote(_)), "votes travel in datagrams");
    }
}

/// What is kept for others, and for those who ask, is bounded by the settings.
fn check_bounds<S: Storage>(core: &Core<S>) {
    let config = &core.config;
    assert!(core.connections_fit(), "what waits on a connection is bounded");
    assert!(core.conns.len() <= config.connections_max(), "connections are bounded");
    assert!(core.requests.count() <= config.requests_count_max, "requests are bounded");
    let reads = core.reads.len() + core.barriers.count();
    assert!(reads <= config.reads_count_max, "reads are bounded");
    assert!(core.ready.notes.len() <= config.notes_count_max + 1, "notes are bounded");
}

fn check_leading<S: Storage>(core: &Core<S>, leading: &Leading) {
    leading.check_bounds(core);
    let last = core.history.last();
    assert!(core.status == PeerStatus::Leading, "who leads says so");
    assert!(core.config.is_voter(), "watchers do not lead");
    assert!(leading.initial() <= last, "a leader removes nothing");
    if let Some(epoch) = leading.epoch() {
        assert!(core.hard_state.accepted_epoch == epoch, "a leader promises to itself");
    }
    if leading.is_established() {
        assert!(leading.initial() <= core.commit, "what it was elected with is committed");
        assert!(leading.epoch() == Some(core.hard_state.current_epoch), "it is in its own epoch");
        let proposed = u64::from(leading.counter());
        assert!(last - leading.initial() == proposed, "it proposed all that came after");
    } else {
        assert!(leading.initial() == last, "nothing is proposed before it is established");
        assert!(leading.own_rank().1 == core.history.last_zxid(), "its history stands still");
    }
    for held in leading.matched().values() {
        assert!(*held <= last, "nobody holds what was never proposed");
    }
    for (_, peer) in leading.peers() {
        assert!(peer.sent <= last && peer.sync_point <= last, "what is sent is in the history");
        assert!(peer.commit_sent <= core.commit, "nobody is told of more than is committed");
        if peer.stage == LeaderStage::Live {
            assert!(peer.sync_point <= peer.sent, "who is synchronized was sent everything");
            assert!(peer.lag(core) <= peer.lag_max, "who falls too far behind is closed at once");
        }
    }
}
