//! What is promised, checked while a run goes on. One promise each, one file each; the first that is
//! broken ends the run.

mod applied;
mod history;
mod logs;
mod model;
mod queues;
mod states;

use quorate_kv::{KvError, RangeResponse, Store};
use quorate_raft::ConfState;
use quorate_replica::{Applying, Fatal, Glance, Initial, RequestId, Status, Write, WriteId};
use quorate_types::{Index, NodeId};

use crate::ledger::Ledger;
use crate::node::{Ask, Said};
use crate::world::OpId;

/// All of them.
#[derive(Default)]
pub(crate) struct Checks {
    applied: applied::Applied,
    logs: logs::Logs,
    states: states::States,
    history: history::Clients,
    pub(crate) ledger: Ledger,
    /// The newest membership that any machine has applied.
    pub(crate) conf_state: ConfState,
    violation: Option<String>,
}

/// What a checker finds wrong.
type Finding = Result<(), String>;

impl Checks {
    pub(crate) fn new(voters: &[NodeId]) -> Checks {
        Checks {
            conf_state: ConfState { voters: voters.to_vec(), ..ConfState::default() },
            ..Checks::default()
        }
    }

    /// The first promise that was broken.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.ledger.notable.entry(what).or_default() += 1;
    }

    pub(crate) fn count_fault(&mut self, what: &'static str) {
        *self.ledger.faults.entry(what).or_default() += 1;
    }

    fn note(&mut self, finding: Finding) {
        if let Err(why) = finding {
            self.fail(why);
        }
    }

    /// Highest index that any machine has applied.
    pub(crate) fn committed(&self) -> Index {
        self.applied.last()
    }

    /// The newest revision of the store.
    pub(crate) fn revision(&self) -> i64 {
        self.history.revision()
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.history.compacted()
    }

    // ── what members do ──

    /// A member read this from its disk. An error when the disk was damaged and has lost something.
    pub(crate) fn on_start(
        &mut self,
        node: NodeId,
        is_damaged: bool,
        initial: &Initial,
    ) -> Result<(), Fatal> {
        match self.logs.on_start(node, initial) {
            Err(why) if is_damaged => Err(Fatal(why)),
            finding => {
                self.note(finding);
                Ok(())
            }
        }
    }

    pub(crate) fn on_end(&mut self, node: NodeId) {
        self.logs.on_end(node);
    }

    pub(crate) fn on_write(&mut self, node: NodeId, write: &Write) {
        let finding = self.logs.on_write(node, write);
        self.note(finding);
    }

    /// So many writes more were done, in order, and synced or not.
    pub(crate) fn on_durable(&mut self, node: NodeId, last: WriteId, is_synced: bool) {
        self.logs.on_durable(node, last, is_synced);
    }

    pub(crate) fn on_glance(
        &mut self,
        node: NodeId,
        life: u64,
        before: Option<Glance>,
        now: Glance,
        status: impl Fn() -> Status,
    ) {
        let finding = self.logs.on_glance(node, life, before, now, &self.applied, status);
        self.ledger.elections = self.logs.terms_led();
        self.note(finding);
    }

    pub(crate) fn on_apply(&mut self, node: NodeId, entry: &Applying) {
        let finding = self.applied.on_apply(node, entry);
        let finding = finding.and_then(|is_new| match is_new {
            true => {
                if let Applying::Membership { conf_state, .. } = entry {
                    self.conf_state = conf_state.clone();
                }
                self.history.on_commit(entry)
            }
            false => Ok(()),
        });
        self.ledger.commits = self.applied.count();
        self.note(finding);
    }

    pub(crate) fn on_state(&mut self, node: NodeId, store: &Store) {
        let finding = self.states.on_state(node, store);
        self.note(finding);
    }

    pub(crate) fn expect_states_every(&mut self, every: u64) {
        self.states.every = every;
    }

    pub(crate) fn on_queues(&mut self, node: NodeId, disk: usize, apply: usize) {
        let finding = queues::check(node, disk, apply);
        self.note(finding);
    }

    pub(crate) fn on_proposed(&mut self, request: RequestId, op: OpId) {
        self.history.on_proposed(request, op);
    }

    pub(crate) fn on_refused(&mut self, request: RequestId) {
        let finding = self.applied.on_refused(request);
        self.note(finding);
    }

    // ── what clients see ──

    pub(crate) fn on_ask(&mut self, op: OpId, client: usize, now: u64, ask: &Ask) {
        self.history.on_ask(op, client, now, ask);
    }

    pub(crate) fn on_said(&mut self, op: OpId, now: u64, said: &Said) {
        self.ledger.answers += 1;
        let finding = self.history.on_said(op, now, said);
        self.note(finding);
    }

    pub(crate) fn on_give_up(&mut self, op: OpId) {
        if self.history.on_give_up(op) {
            self.ledger.unknown += 1;
        }
    }

    pub(crate) fn on_serializable(
        &mut self,
        node: NodeId,
        answer: &Result<RangeResponse, KvError>,
    ) {
        let finding = self.states.on_serializable(node, answer);
        self.note(finding);
    }

    pub(crate) fn on_new_process(&mut self, node: NodeId) {
        self.states.on_new_process(node);
    }
}
