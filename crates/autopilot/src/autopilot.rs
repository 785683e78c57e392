//! The autopilot of one server: a state that is kept up to date, and rounds that act on it.
//!
//! ```text
//! updater   every update interval:     gather → State::next → publish → notify
//! main      every reconcile interval:  reconcile, then prune; when asked: prune
//! ```
//! Both belong to one task of the [`Host`], and a slow answer to one does not hold up the other. The
//! decisions are made elsewhere (`state.rs`, `reconcile.rs`, `prune.rs`), as functions; here they are
//! supplied with facts and carried out, one action after another. Time and waiting come from outside,
//! so that a simulator can drive all of it on one thread.

mod hand;
mod options;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quorate_types::{Index, Term};

use crate::action::Action;
use crate::configuration::{plan_add_server, plan_remove_server};
use crate::errors::{AddServerError, PruneError, ReconcileError, UpdateError};
use crate::interface::{
    Answer, ApplicationIntegration, Host, Raft, RaftError, RaftRole, TimeProvider,
};
use crate::note::Note;
use crate::prune::{Prune, plan_prune};
use crate::reconcile::{Round, RoundError, plan_reconcile};
use crate::server::{NodeStatus, Server, ServerHealth, ServerId, ServerStats};
use crate::signal::{Either, Request, Signal, both, either, lock};
use crate::state::{Inputs, State};
use crate::strict::{Reason, Refusal, Strictness};
use crate::time::{Span, Time};

use hand::{Hand, why_changed, why_removed};
pub use options::{DEFAULT_RECONCILE_INTERVAL, DEFAULT_UPDATE_INTERVAL, Options};

/// How long `start` waits for its first state.
const FIRST_UPDATE_MAX: Span = Span::from_secs(1);
/// An answer of Raft that takes longer is not waited for.
const RAFT_ANSWER_MAX: Span = Span::from_secs(30);

/// Whether the background work goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutionStatus {
    /// It does not.
    #[default]
    NotRunning,
    /// It does.
    Running,
    /// It was told to end and has not yet.
    ShuttingDown,
}

impl ExecutionStatus {
    /// As the reference writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            ExecutionStatus::NotRunning => "not-running",
            ExecutionStatus::Running => "running",
            ExecutionStatus::ShuttingDown => "shutting-down",
        }
    }
}

impl std::fmt::Display for ExecutionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What would be done if a round were due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// In this order, each with its reason: the changes of a round, then the removals of a prune. They are
    /// planned on one state: what a round changes may change what is removed after it.
    pub actions: Vec<(String, Action)>,
    /// What is wanted and would not be done.
    pub refusals: Vec<Refusal>,
    /// Why a round or a prune cannot be planned.
    pub errors: Vec<String>,
}

/// Watches one cluster and looks after its membership. Clones are the same one.
///
/// One per server; only the leader's acts: started when leadership is gained and stopped when it is
/// lost, or running everywhere with reconciliation off on all but the leader.
#[derive(Clone)]
pub struct Autopilot(Arc<Shared>);

struct Shared {
    raft: Arc<dyn Raft>,
    application: Arc<dyn ApplicationIntegration>,
    time: Arc<dyn TimeProvider>,
    host: Arc<dyn Host>,
    options: Options,
    is_reconciling: AtomicBool,
    rounds: AtomicU64,
    strictness: Mutex<Arc<Strictness>>,
    state: Mutex<Arc<State>>,
    /// Whom leadership failed to go over to in this run, and when.
    failed_transfers: Mutex<BTreeMap<ServerId, Time>>,
    prune_request: Request,
    execution: Mutex<Execution>,
}

#[derive(Default)]
struct Execution {
    status: ExecutionStatus,
    /// The order to end.
    stop: Signal,
    /// Set once it has ended.
    done: Signal,
}

impl Autopilot {
    /// One that does nothing yet and has an empty state.
    pub fn new(
        raft: Arc<dyn Raft>,
        application: Arc<dyn ApplicationIntegration>,
        time: Arc<dyn TimeProvider>,
        host: Arc<dyn Host>,
        options: Options,
    ) -> Autopilot {
        Autopilot(Arc::new(Shared {
            raft,
            application,
            time: options.time.clone().unwrap_or(time),
            host,
            is_reconciling: AtomicBool::new(options.is_reconciling),
            strictness: Mutex::new(Arc::new(options.strictness.clone())),
            options,
            rounds: AtomicU64::new(0),
            state: Mutex::default(),
            failed_transfers: Mutex::default(),
            prune_request: Request::default(),
            execution: Mutex::new(Execution { done: Signal::already(), ..Execution::default() }),
        }))
    }

    /// Begins the background work, which ends with [`stop`](Self::stop) or once `context` is set.
    ///
    /// Waits for the first state, but at most a second; without it the work begins all the same. If
    /// an earlier execution is still ending, the new one waits for its end and has no first state.
    /// While one runs, nothing happens.
    pub async fn start(&self, context: Signal) {
        let (stop, done, before) = {
            let mut execution = lock(&self.0.execution);
            if execution.status == ExecutionStatus::Running {
                return;
            }
            let is_ending = execution.status == ExecutionStatus::ShuttingDown;
            let before = is_ending.then(|| execution.done.clone());
            *execution = Execution {
                status: ExecutionStatus::Running,
                stop: Signal::new(),
                done: Signal::new(),
            };
            (execution.stop.clone(), execution.done.clone(), before)
        };
        let has_first_state = before.is_none();
        let first = Signal::new();
        let finish = Finish { shared: self.0.clone(), done, first: first.clone() };
        self.0.host.spawn(Box::pin(execute(finish, stop, context, before)));
        // The task makes the first state, not this future, which may be dropped at any time.
        if has_first_state {
            first.wait().await;
        }
    }

    /// Orders the background work to end and says when it has: at once, if there is none. All states
    /// are forgotten then.
    pub fn stop(&self) -> Signal {
        let (stop, done) = {
            let mut execution = lock(&self.0.execution);
            if execution.status == ExecutionStatus::NotRunning {
                return Signal::already();
            }
            execution.status = ExecutionStatus::ShuttingDown;
            (execution.stop.clone(), execution.done.clone())
        };
        // Not under the lock: whoever is woken may ask for the status.
        stop.set();
        done
    }

    /// Whether the background work goes on, and what is set once it has ended.
    pub fn is_running(&self) -> (ExecutionStatus, Signal) {
        let execution = lock(&self.0.execution);
        match execution.status {
            ExecutionStatus::NotRunning => (ExecutionStatus::NotRunning, Signal::already()),
            status => (status, execution.done.clone()),
        }
    }

    /// The latest state; an empty one before the first and after the last.
    pub fn get_state(&self) -> Arc<State> {
        self.0.state()
    }

    /// The health of one server in the latest state.
    pub fn get_server_health(&self, id: &ServerId) -> Option<ServerHealth> {
        self.get_state().servers.get(id).map(|server| server.health)
    }

    /// A state of now, which is neither published nor told to anybody. Dropping the future cancels it.
    ///
    /// # Errors
    ///
    /// When a fact is missing that every state needs.
    pub async fn compute_state(&self) -> Result<State, UpdateError> {
        self.0.compute_state(self.0.stats_deadline()).await
    }

    /// What a round and the prune after it would do now, and what not; nothing is done. It is told as if
    /// reconciliation were on, also while it is off. Beyond the reference.
    pub async fn explain(&self) -> Outlook {
        let mut outlook = Outlook::default();
        match self.0.plan_round() {
            Ok(Some((state, round))) => {
                let why = |action: Action| (why_changed(&action, &state), action);
                outlook.actions.extend(round.actions.into_iter().map(why));
                outlook.refusals = round.refusals;
            }
            Ok(None) => {}
            Err(error) => outlook.errors.push(error.to_string()),
        }
        match self.0.plan_prune().await {
            Ok(Some((_, prune))) => {
                let why = |action: Action| (why_removed(&action).1, action);
                outlook.actions.extend(prune.classes.into_iter().flatten().map(why));
                outlook.refusals.extend(prune.refusals);
            }
            Ok(None) => {}
            Err(error) => outlook.errors.push(error.to_string()),
        }
        outlook
    }

    /// The strict rules from now on; all that is remembered stays. Beyond the reference.
    pub fn set_strictness(&self, strictness: Strictness) {
        *lock(&self.0.strictness) = Arc::new(strictness);
    }

    /// Rounds that were begun since this was made. Beyond the reference.
    pub fn round_count(&self) -> u64 {
        self.0.rounds.load(Ordering::Relaxed)
    }

    /// Lets rounds and prunes happen from now on.
    pub fn enable_reconciliation(&self) {
        self.0.is_reconciling.store(true, Ordering::SeqCst);
    }

    /// Lets no round and no prune happen from now on; the state is kept up to date all the same.
    pub fn disable_reconciliation(&self) {
        self.0.is_reconciling.store(false, Ordering::SeqCst);
    }

    /// Whether rounds and prunes happen.
    pub fn reconciliation_enabled(&self) -> bool {
        self.0.is_reconciling.load(Ordering::SeqCst)
    }

    /// Asks for a prune soon. Requests that wait are one; one that is made while nothing runs is served
    /// by the next execution.
    pub fn remove_dead_servers(&self) {
        self.0.prune_request.make();
    }

    /// Adds a server without a vote, or changes its address; whoever else is at its address goes first.
    /// Looks at the Raft configuration only. A prune is asked for when something was done.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read, when too many voters would have to go, and when a step
    /// fails; the steps after it are not tried.
    pub async fn add_server(&self, server: &Server) -> Result<(), AddServerError> {
        let configuration = self.0.configuration().await.map_err(AddServerError::Configuration)?;
        let actions = plan_add_server(&configuration, server)?;
        if actions.is_empty() {
            return Ok(());
        }
        let mut hand = self.0.hand(configuration.index);
        for action in actions {
            let why = "a server is added by hand";
            hand.act(&action, why)
                .await
                .map_err(|cause| AddServerError::Action { action, cause })?;
        }
        self.remove_dead_servers();
        Ok(())
    }

    /// Removes a server; one that is not there succeeds.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read or Raft fails to remove it.
    pub async fn remove_server(&self, id: &ServerId) -> Result<(), RaftError> {
        let configuration = self.0.configuration().await?;
        match plan_remove_server(&configuration, id) {
            Some(action) => {
                self.0.hand(configuration.index).act(&action, "a server is removed by hand").await
            }
            None => Ok(()),
        }
    }

    /// How many servers of the Raft configuration have a vote.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be read.
    pub async fn num_voters(&self) -> Result<usize, RaftError> {
        Ok(self.0.configuration().await?.voter_count())
    }
}

/// The background work from its begin to its end. `before` ends first.
async fn execute(finish: Finish, stop: Signal, context: Signal, before: Option<Signal>) {
    let shared = finish.shared.clone();
    let has_first_state = before.is_none();
    if let Some(before) = before {
        // Even if this is to end meanwhile: no third execution may begin while the first one works.
        before.wait().await;
    }
    let work = async {
        if has_first_state {
            shared.first_update().await;
        }
        finish.first.set();
        both(shared.updater(), shared.main()).await;
    };
    // The order to end is looked at first: who was stopped while it waited asks nobody anything.
    either(either(stop.wait(), context.wait()), work).await;
}

/// Puts everything back when an execution ends, also when a callback of it panicked.
struct Finish {
    shared: Arc<Shared>,
    /// Set once the execution has ended.
    done: Signal,
    /// Set once there was time for a first state.
    first: Signal,
}

impl Drop for Finish {
    fn drop(&mut self) {
        *lock(&self.shared.state) = Arc::default();
        lock(&self.shared.failed_transfers).clear();
        let mut execution = lock(&self.shared.execution);
        // Unless the next one has been started already.
        if execution.done.is(&self.done) {
            execution.status = ExecutionStatus::NotRunning;
        }
        drop(execution);
        self.first.set();
        self.done.set();
    }
}

impl Shared {
    fn state(&self) -> Arc<State> {
        lock(&self.state).clone()
    }

    fn strictness(&self) -> Arc<Strictness> {
        lock(&self.strictness).clone()
    }

    fn remember_failed_transfer(&self, id: &ServerId) {
        lock(&self.failed_transfers).insert(id.clone(), self.time.now());
    }

    fn stats_deadline(&self) -> Span {
        Span(self.options.update_interval.0 / 2)
    }

    async fn first_update(&self) {
        let update = self.update(self.stats_deadline().min(FIRST_UPDATE_MAX));
        if let Either::Second(()) = either(update, self.host.sleep(FIRST_UPDATE_MAX)).await {
            self.note(Note::UpdateFailed(UpdateError::TooSlow(FIRST_UPDATE_MAX)));
        }
    }

    async fn updater(&self) {
        let mut timer = self.host.sleep(self.options.update_interval);
        loop {
            timer.await;
            timer = self.host.sleep(self.options.update_interval);
            self.update(self.stats_deadline()).await;
        }
    }

    async fn main(&self) {
        let mut timer = self.host.sleep(self.options.reconcile_interval);
        loop {
            match either(&mut timer, self.prune_request.taken()).await {
                Either::First(()) => {
                    timer = self.host.sleep(self.options.reconcile_interval);
                    if let Err(error) = self.reconcile().await {
                        self.note(Note::ReconcileFailed(error));
                    }
                }
                Either::Second(()) => {}
            }
            if let Err(error) = self.prune().await {
                self.note(Note::PruneFailed(error));
            }
        }
    }

    async fn update(&self, deadline: Span) {
        match self.compute_state(deadline).await {
            Ok(state) => {
                let state = Arc::new(state);
                // Published first, and told without a lock: who is told may ask for it.
                *lock(&self.state) = state.clone();
                self.application.notify_state(&state);
            }
            Err(error) => self.note(Note::UpdateFailed(error)),
        }
    }

    async fn compute_state(&self, deadline: Span) -> Result<State, UpdateError> {
        let inputs = self.gather(deadline).await?;
        Ok(State::next(&inputs, &*self.options.promoter, &self.strictness()))
    }

    /// All facts for a state. The last index is read right before the stats that are compared with it.
    async fn gather(&self, deadline: Span) -> Result<Inputs, UpdateError> {
        let now = self.time.now();
        let current = self.state();
        let first_state_time = current.first_state_time().unwrap_or(now);
        let config = self.application.autopilot_config().ok_or(UpdateError::NoConfig)?;
        self.options.promoter.check_config(&config)?;
        let configuration = self.configuration().await.map_err(UpdateError::Configuration)?;
        let known_servers = self.application.known_servers();
        let claimed = known_servers.iter().find(|(_, server)| server.is_leader);
        let leader = match claimed {
            Some((id, _)) => Some(id.clone()),
            None => {
                let address = self.raft.leader();
                let member = configuration.at_address(&address).filter(|_| !address.is_empty());
                member.map(|member| member.id.clone())
            }
        };
        let last_index = self.raft.last_index();
        let is_leader = self.raft.state() == RaftRole::Leader;
        let last_log_term = self.raft.stats().remove("last_log_term");
        let last_term = match last_log_term.as_deref().map(str::parse) {
            Some(Ok(term)) => Term(term),
            _ => return Err(UpdateError::LastLogTerm(last_log_term)),
        };
        let fetched_stats = self.fetch(deadline, &known_servers).await;
        Ok(Inputs {
            now,
            first_state_time,
            config,
            current: Some(State::clone(&current)),
            configuration,
            known_servers,
            last_index,
            last_term,
            fetched_stats,
            leader,
            is_leader,
            receiving_snapshot: self.raft.receiving_snapshot(),
            lacking: self.raft.lacking(),
            failed_transfers: lock(&self.failed_transfers).clone(),
        })
    }

    /// The stats of all that have not left. An application that does not keep to its deadline is waited
    /// for once as long again; then its answer counts as none.
    async fn fetch(
        &self,
        deadline: Span,
        known: &BTreeMap<ServerId, Server>,
    ) -> BTreeMap<ServerId, ServerStats> {
        let is_asked = |server: &Server| server.node_status != NodeStatus::Left;
        let asked = known.iter().filter(|(_, server)| is_asked(server));
        let asked = asked.map(|(id, server)| (id.clone(), server.clone())).collect();
        let fetch = self.application.fetch_server_stats(deadline, asked);
        match either(fetch, self.host.sleep(deadline.times(2))).await {
            Either::First(stats) => stats,
            Either::Second(()) => BTreeMap::new(),
        }
    }

    async fn reconcile(&self) -> Result<(), ReconcileError> {
        if !self.is_reconciling.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let Some((state, round)) = self.plan_round()? else { return Ok(()) };
        round.refusals.into_iter().for_each(|refusal| self.note(Note::Refused(refusal)));
        let mut hand = self.hand(state.configuration_index);
        for (number, action) in round.actions.into_iter().enumerate() {
            if !self.is_reconciling.load(Ordering::SeqCst) {
                break;
            }
            // The rest was planned together with it: the next round plans anew.
            if let Some(refusal) = self.held_since(number, &action) {
                self.note(Note::Refused(refusal));
                break;
            }
            let why = why_changed(&action, &state);
            hand.act(&action, &why)
                .await
                .map_err(|cause| ReconcileError::Action { action, cause })?;
        }
        Ok(())
    }

    /// Whether an operator has come to hold whom a planned action is about. Of the first action the plan
    /// itself has just asked.
    fn held_since(&self, number: usize, action: &Action) -> Option<Refusal> {
        if number == 0 {
            return None;
        }
        let config = self.application.autopilot_config()?;
        let id = action.servers().into_iter().find(|id| config.held.contains(*id))?;
        Some(Refusal { wanted: action.wanted(), id: id.clone(), why: Reason::Held })
    }

    /// What the published state asks for; nothing without settings.
    fn plan_round(&self) -> Result<Option<(Arc<State>, Round)>, ReconcileError> {
        let Some(config) = self.application.autopilot_config() else { return Ok(None) };
        let state = self.state();
        if state.leader.is_none() {
            return Err(RoundError::NoLeader.into());
        }
        let (options, now) = (&self.options, self.time.now());
        options.promoter.check_config(&config)?;
        let changes = options.promoter.calculate_promotions_and_demotions(now, &config, &state);
        let strictness = self.strictness();
        let can_replace = strictness.replaces_jointly && self.raft.can_replace_voters();
        let round = plan_reconcile(now, &config, &state, &changes, &strictness, can_replace)?;
        Ok(Some((state, round)))
    }

    async fn prune(&self) -> Result<(), PruneError> {
        if !self.is_reconciling.load(Ordering::SeqCst) {
            return Ok(());
        }
        let Some((index, prune)) = self.plan_prune().await? else { return Ok(()) };
        prune.refusals.into_iter().for_each(|refusal| self.note(Note::Refused(refusal)));
        let mut hand = self.hand(index);
        let mut number = 0;
        for class in prune.classes {
            let mut failures = Vec::new();
            for action in class {
                let refusal = self.held_since(number, &action);
                number += 1;
                if let Some(refusal) = refusal {
                    self.note(Note::Refused(refusal));
                    continue;
                }
                let (id, why) = why_removed(&action);
                if let Err(cause) = hand.act(&action, &why).await {
                    failures.push((id, cause));
                }
            }
            if !failures.is_empty() {
                return Err(PruneError::Removals { failures });
            }
        }
        Ok(())
    }

    /// Who would go, decided on the configuration of that index; nothing without settings or while
    /// nobody is to be removed.
    async fn plan_prune(&self) -> Result<Option<(Index, Prune)>, PruneError> {
        let Some(config) = self.application.autopilot_config() else { return Ok(None) };
        if !config.cleanup_dead_servers {
            return Ok(None);
        }
        let options = &self.options;
        options.promoter.check_config(&config)?;
        let configuration = self.configuration().await.map_err(PruneError::Configuration)?;
        let known = self.application.known_servers();
        let (now, state) = (self.time.now(), self.state());
        let prune = plan_prune(
            now,
            &config,
            &configuration,
            &known,
            &state,
            &*options.promoter,
            &self.strictness(),
        );
        Ok(Some((configuration.index, prune)))
    }

    async fn configuration(&self) -> Result<crate::RaftConfiguration, RaftError> {
        self.in_time(self.raft.get_configuration()).await
    }

    async fn in_time<T>(&self, answer: Answer<'_, Result<T, RaftError>>) -> Result<T, RaftError> {
        match either(answer, self.host.sleep(RAFT_ANSWER_MAX)).await {
            Either::First(result) => result,
            Either::Second(()) => Err(RaftError::Timeout(RAFT_ANSWER_MAX)),
        }
    }

    /// A hand for actions that were decided on the configuration of `index`.
    fn hand(&self, index: Index) -> Hand<'_> {
        Hand { shared: self, index }
    }

    fn note(&self, note: Note) {
        self.options.logger.log(&note);
    }
}
