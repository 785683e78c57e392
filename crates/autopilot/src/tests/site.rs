//! Surroundings for an `Autopilot`: one thread, a clock that tests move, and a consensus layer and an
//! application that write down what they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use quorate_types::Index;

use crate::*;

/// A clock and the tasks that wait for it.
#[derive(Default)]
pub(super) struct Bench {
    now: Mutex<Span>,
    timers: Mutex<Vec<(Span, Signal)>>,
    tasks: Mutex<Vec<Answer<'static, ()>>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(super) fn epoch() -> Time {
    Time::from_unix(1_600_000_000, 0)
}

impl Bench {
    pub(super) fn elapsed(&self) -> Span {
        *self.now.lock().unwrap()
    }

    /// Tasks that have not ended.
    pub(super) fn task_count(&self) -> usize {
        self.tasks.lock().unwrap().len()
    }

    /// Ends all tasks where they are.
    pub(super) fn drop_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        drop(tasks);
    }

    /// Lets all tasks go as far as they can without time passing.
    pub(super) fn settle(&self) {
        let waker = Waker::from(self.woken.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            self.woken.0.store(false, Ordering::SeqCst);
            let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
            let mut pending: Vec<Answer<'static, ()>> = tasks
                .into_iter()
                .filter_map(|mut task| match task.as_mut().poll(&mut context) {
                    Poll::Ready(()) => None,
                    Poll::Pending => Some(task),
                })
                .collect();
            let mut tasks = self.tasks.lock().unwrap();
            let has_new = !tasks.is_empty();
            pending.append(&mut tasks);
            *tasks = pending;
            if !has_new && !self.woken.0.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Lets so much time pass, one timer after the other.
    pub(super) fn pass(&self, span: Span) {
        let end = self.elapsed().plus(span);
        loop {
            self.settle();
            if !self.ring_next(end) {
                break;
            }
        }
        *self.now.lock().unwrap() = end;
        self.settle();
    }

    /// Moves to the next timer, if it is due by `end`.
    fn ring_next(&self, end: Span) -> bool {
        let next = {
            let mut timers = self.timers.lock().unwrap();
            let next = timers.iter().enumerate().min_by_key(|(number, (due, _))| (*due, *number));
            let Some(number) = next.filter(|(_, (due, _))| *due <= end).map(|(number, _)| number)
            else {
                return false;
            };
            timers.remove(number)
        };
        *self.now.lock().unwrap() = next.0;
        next.1.set();
        true
    }

    /// Waits for an answer, with all tasks going on and time passing.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(self.woken.clone());
        for _ in 0..10_000 {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            self.settle();
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            assert!(self.ring_next(Span(i64::MAX)), "it waits for nothing");
        }
        panic!("it waits for ever");
    }
}

impl Host for Bench {
    fn sleep(&self, span: Span) -> Answer<'static, ()> {
        let signal = Signal::new();
        self.timers.lock().unwrap().push((self.elapsed().plus(span), signal.clone()));
        Box::pin(async move { signal.wait().await })
    }

    fn spawn(&self, task: Answer<'static, ()>) {
        self.tasks.lock().unwrap().push(task);
        self.woken.0.store(true, Ordering::SeqCst);
    }
}

impl TimeProvider for Bench {
    fn now(&self) -> Time {
        epoch().plus(self.elapsed())
    }
}

/// What a site answers with; tests change it at will.
pub(super) struct Facts {
    pub(super) config: Option<Config>,
    pub(super) configuration: Result<RaftConfiguration, RaftError>,
    pub(super) known: BTreeMap<ServerId, Server>,
    pub(super) stats: BTreeMap<ServerId, ServerStats>,
    /// How long fetching stats takes.
    pub(super) stats_take: Span,
    /// How long a change of the configuration takes.
    pub(super) changes_take: Span,
    /// Changes that fail, as they are written down.
    pub(super) failing: BTreeSet<String>,
    pub(super) role: RaftRole,
    pub(super) leader: String,
    pub(super) last_log_term: Option<String>,
    /// Role after the next change, if it is to change.
    pub(super) role_after_change: Option<RaftRole>,
    /// Whom an operator holds from the next change on.
    pub(super) held_after_change: Option<ServerId>,
    pub(super) can_replace: bool,
    pub(super) receiving_snapshot: BTreeSet<ServerId>,
}

pub(super) struct Site {
    pub(super) bench: Arc<Bench>,
    pub(super) facts: Mutex<Facts>,
    /// What was asked, in order.
    pub(super) calls: Mutex<Vec<String>>,
    pub(super) notes: Mutex<Vec<String>>,
    /// Asks this one from inside every call, if there is one.
    pub(super) asked_back: Mutex<Option<Autopilot>>,
}

impl Site {
    /// `LVn`: see the model. All alive and well; the first leads and is this node.
    pub(super) fn new(letters: &str) -> Arc<Site> {
        let mut model = super::model::Model::of(letters);
        model.config.min_quorum = 0;
        let inputs = model.inputs();
        let leader = inputs.leader.as_ref().map(super::model::address).unwrap_or_default();
        Arc::new(Site {
            bench: Arc::default(),
            facts: Mutex::new(Facts {
                config: Some(inputs.config),
                configuration: Ok(inputs.configuration),
                known: inputs.known_servers,
                stats: inputs.fetched_stats,
                stats_take: Span::ZERO,
                changes_take: Span::ZERO,
                failing: BTreeSet::new(),
                role: RaftRole::Leader,
                leader,
                last_log_term: Some("3".to_owned()),
                role_after_change: None,
                held_after_change: None,
                can_replace: false,
                receiving_snapshot: BTreeSet::new(),
            }),
            calls: Mutex::default(),
            notes: Mutex::default(),
            asked_back: Mutex::default(),
        })
    }

    pub(super) fn autopilot(self: &Arc<Site>, options: Options) -> Autopilot {
        let options = options.with_logger(Arc::new(Notebook(self.clone())));
        let (raft, application) = (self.clone(), self.clone());
        Autopilot::new(raft, application, self.bench.clone(), self.bench.clone(), options)
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        change(&mut self.facts.lock().unwrap())
    }

    /// What was asked since the last time.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Of that, what changes something.
    pub(super) fn changed(&self) -> String {
        let is_change = |call: &String| {
            ["add", "demote", "remove", "transfer", "replace"]
                .iter()
                .any(|verb| call.starts_with(verb))
        };
        self.asked().into_iter().filter(is_change).collect::<Vec<_>>().join(", ")
    }

    /// How often it was asked for something that begins so, since the last time.
    pub(super) fn count(&self, call: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|asked| asked.starts_with(call)).count()
    }

    fn note(&self, call: impl Into<String>) {
        let call = call.into();
        let is_update = call.starts_with("notify") || call.starts_with("stats");
        self.calls.lock().unwrap().push(call);
        let asked_back = self.asked_back.lock().unwrap().clone();
        if let Some(autopilot) = asked_back {
            let _ = (autopilot.get_state(), autopilot.is_running());
            let _ = autopilot.get_server_health(&"L0".into());
            // Not from inside a prune: that would be one more prune for ever.
            if is_update {
                autopilot.remove_dead_servers();
            }
        }
    }

    fn change(
        &self,
        call: String,
        guard: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        let guarded = match (guard, timeout) {
            (Index(0), Span::ZERO) => call.clone(),
            (guard, timeout) => format!("{call} after {guard} within {timeout}"),
        };
        self.note(guarded);
        let takes = self.with(|facts| facts.changes_take);
        let sleep = self.bench.sleep(takes);
        Box::pin(async move {
            if takes != Span::ZERO {
                sleep.await;
            }
            self.with(|facts| {
                if let Some(role) = facts.role_after_change.take() {
                    facts.role = role;
                }
                if let Some(held) = facts.held_after_change.take()
                    && let Some(config) = &mut facts.config
                {
                    config.held.insert(held);
                }
                match facts.failing.contains(&call) {
                    true => Err(RaftError::ProposalDropped),
                    false => Ok(guard + 10),
                }
            })
        })
    }
}

impl Raft for Site {
    fn add_nonvoter(
        &self,
        id: &ServerId,
        address: &str,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        self.change(format!("add-nonvoter {id}@{address}"), prev_index, timeout)
    }

    fn add_voter(
        &self,
        id: &ServerId,
        address: &str,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        self.change(format!("add-voter {id}@{address}"), prev_index, timeout)
    }

    fn demote_voter(
        &self,
        id: &ServerId,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        self.change(format!("demote {id}"), prev_index, timeout)
    }

    fn remove_server(
        &self,
        id: &ServerId,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        self.change(format!("remove {id}"), prev_index, timeout)
    }

    fn get_configuration(&self) -> Answer<'_, Result<RaftConfiguration, RaftError>> {
        self.note("configuration");
        let configuration = self.with(|facts| facts.configuration.clone());
        Box::pin(async { configuration })
    }

    fn last_index(&self) -> Index {
        self.note("last-index");
        Index(1000)
    }

    fn leader(&self) -> String {
        self.note("leader");
        self.with(|facts| facts.leader.clone())
    }

    fn state(&self) -> RaftRole {
        self.note("role");
        self.with(|facts| facts.role)
    }

    fn stats(&self) -> BTreeMap<String, String> {
        self.note("raft-stats");
        let term = self.with(|facts| facts.last_log_term.clone());
        term.into_iter().map(|term| ("last_log_term".to_owned(), term)).collect()
    }

    fn leadership_transfer_to_server(
        &self,
        id: &ServerId,
        address: &str,
    ) -> Answer<'_, Result<(), RaftError>> {
        let answer = self.change(format!("transfer {id}@{address}"), Index(0), Span::ZERO);
        Box::pin(async { answer.await.map(|_| ()) })
    }

    fn can_replace_voters(&self) -> bool {
        self.with(|facts| facts.can_replace)
    }

    fn replace_voter(
        &self,
        demoted: &ServerId,
        promoted: &ServerId,
        address: &str,
        prev_index: Index,
        timeout: Span,
    ) -> Answer<'_, Result<Index, RaftError>> {
        self.change(format!("replace {demoted} {promoted}@{address}"), prev_index, timeout)
    }

    fn receiving_snapshot(&self) -> BTreeSet<ServerId> {
        self.with(|facts| facts.receiving_snapshot.clone())
    }
}

impl ApplicationIntegration for Site {
    fn autopilot_config(&self) -> Option<Config> {
        self.note("config");
        self.with(|facts| facts.config.clone())
    }

    fn known_servers(&self) -> BTreeMap<ServerId, Server> {
        self.note("known");
        self.with(|facts| facts.known.clone())
    }

    fn fetch_server_stats(
        &self,
        deadline: Span,
        servers: BTreeMap<ServerId, Server>,
    ) -> Answer<'_, BTreeMap<ServerId, ServerStats>> {
        let ids = servers.keys().map(ServerId::as_str).collect::<Vec<_>>().join(" ");
        self.note(format!("stats {ids} within {deadline}"));
        let takes = self.with(|facts| facts.stats_take);
        let sleep = self.bench.sleep(takes);
        Box::pin(async move {
            if takes != Span::ZERO {
                sleep.await;
            }
            self.with(|facts| facts.stats.clone())
        })
    }

    fn notify_state(&self, state: &Arc<State>) {
        self.note(format!("notify {}", state.servers.len()));
    }

    fn remove_failed_server(&self, server: &Server) {
        self.note(format!("remove-failed {}", server.id));
    }
}

/// Writes down what autopilot says.
struct Notebook(Arc<Site>);

impl Logger for Notebook {
    fn log(&self, note: &Note) {
        self.0.notes.lock().unwrap().push(note.to_string());
    }
}
