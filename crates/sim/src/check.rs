//! What is promised, checked while a run goes on. One promise each, one file each; the first that is
//! broken ends the run.

mod applied;
mod epochs;
mod history;
mod judge;
mod leases;
mod logs;
mod model;
mod queues;
mod states;
#[cfg(test)]
mod tests;
mod watches;

use quorate_kv::{KvError, RangeResponse, Store, WatchResponse};
use quorate_raft::ConfState;
use quorate_replica::{Applying, Fatal, Glance, Initial, RequestId, Status, Write, WriteId};
use quorate_types::{Index, NodeId};

use crate::ledger::Ledger;
use crate::node::{Ask, Damage, Said};
use crate::watching::Watched;
use crate::world::OpId;

/// All of them.
#[derive(Default)]
pub(crate) struct Checks {
    applied: applied::Applied,
    logs: logs::Logs,
    epochs: epochs::Epochs,
    states: states::States,
    history: history::Clients,
    judge: judge::Judge,
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

    /// The membership that a member goes by, as far as it has been looked at.
    pub(crate) fn conf_state_of(&self, id: NodeId) -> Option<&ConfState> {
        self.logs.conf_state_of(id)
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

    /// A member read this from its disk, which may have lied about what it had to write for that. An
    /// error when the disk was damaged and has lost something.
    pub(crate) fn on_start(
        &mut self,
        node: NodeId,
        damage: Damage,
        has_lied: bool,
        has_rotted: bool,
        initial: &Initial,
    ) -> Result<(), Fatal> {
        let finding = self.epochs.on_start(node, initial);
        self.note(finding);
        let harm = logs::Harm { is_wiped: damage == Damage::Wiped, has_lied, has_rotted };
        match self.logs.on_start(node, initial, harm) {
            // All that a log can't tell from a write cut short: it has to be known from outside.
            Err(logs::Lost::LastGroups) if damage == Damage::Lie => {
                self.count("lost what nobody could know of");
                Err(Fatal("it has lost its last groups of writes".to_owned()))
            }
            Err(lost) => {
                self.fail(lost.to_string());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    pub(crate) fn on_end(&mut self, node: NodeId) {
        self.logs.on_end(node);
    }

    pub(crate) fn on_write(&mut self, node: NodeId, write: &Write) {
        let finding = self.logs.on_write(node, write);
        self.note(finding);
        let finding = self.epochs.on_write(node, write, &self.logs);
        self.note(finding);
    }

    /// So many writes more were done, in order, and synced or not, or the disk lied about that.
    pub(crate) fn on_durable(
        &mut self,
        node: NodeId,
        last: WriteId,
        is_synced: bool,
        has_lied: bool,
    ) {
        self.logs.on_durable(node, last, is_synced, has_lied);
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

    pub(crate) fn on_apply(&mut self, now: u64, node: NodeId, entry: &Applying) {
        let finding = self.applied.on_apply(node, entry);
        let finding = finding.and_then(|is_new| match is_new {
            true => {
                if let Applying::Membership { conf_state, .. } = entry {
                    self.conf_state = conf_state.clone();
                }
                self.epochs.on_commit(entry)?;
                self.history.on_commit(now, entry)
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

    pub(crate) fn on_events(&mut self, events: usize) {
        let finding = queues::check_events(events);
        self.note(finding);
    }

    pub(crate) fn on_log(&mut self, node: NodeId, bytes: u64, bytes_max: u64) {
        let finding = queues::check_log(node, bytes, bytes_max);
        self.note(finding);
    }

    pub(crate) fn on_proposed(&mut self, request: RequestId, op: OpId) {
        self.history.on_proposed(request, op);
    }

    pub(crate) fn on_proposed_by_member(&mut self, request: RequestId) {
        self.history.on_proposed_by_member(request);
    }

    pub(crate) fn on_refused(&mut self, request: RequestId) {
        let finding = self.applied.on_refused(request);
        self.note(finding);
    }

    // ── what clients see ──

    /// `client` is one that has one request under way at a time.
    pub(crate) fn on_ask(&mut self, op: OpId, client: u64, now: u64, ask: &Ask) {
        self.history.on_ask(op, now, ask);
        self.judge.on_ask(op, client, now, ask);
    }

    pub(crate) fn on_said(&mut self, op: OpId, now: u64, said: &Said) {
        self.ledger.answers += 1;
        self.judge.on_said(op, now, said);
        let finding = self.history.on_said(op, now, said);
        self.note(finding);
    }

    pub(crate) fn on_give_up(&mut self, op: OpId) {
        self.judge.on_give_up(op);
        if self.history.on_give_up(op) {
            self.ledger.unknown += 1;
        }
    }

    pub(crate) fn on_told(&mut self, watched: &mut Watched, response: &WatchResponse) {
        let (revision, compacted) = (self.history.revision(), self.history.compacted());
        let finding = self.history.changes.on_told(watched, response, revision, compacted);
        *self.ledger.notable.entry("events told").or_default() += response.events.len() as u64;
        if watched.has_ended {
            self.count("watches that came too late");
        }
        self.note(finding);
    }

    /// Nothing is judged by what clients saw alone where leases change keys.
    pub(crate) fn leases_change_keys(&mut self) {
        self.judge.is_off = true;
    }

    /// Clocks that leases count by may be so many thousandths off.
    pub(crate) fn allow_drift(&mut self, drift_permille: u64) {
        self.history.leases.allow_drift(drift_permille);
    }

    pub(crate) fn leases_alive(&self) -> usize {
        self.history.leases.alive()
    }

    /// All is over: what can be said only then.
    pub(crate) fn on_end_of_run(&mut self, now: u64) {
        *self.ledger.notable.entry("leases expired").or_default() +=
            self.history.leases.expired() as u64;
        if self.violation.is_none() {
            let finding = self.judge.verdict(now, |op| self.history.take_fate(op));
            self.note(finding);
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
