//! One node: the engine, its ports, its connections and its thread, and the one loop that carries
//! out what the engine asks for.
//!
//! The loop runs while somebody runs it: [`ElectionSite::start_election`], then the server of the
//! role that came out of it. In between the node stands still, and its peers take it for slow. Each
//! turn waits for one thing to happen and then does everything that follows from it without waiting,
//! so a turn that is given up has lost nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::{Index, NodeId};
use quorate_zab::{
    Address, ConnId, CustomRequest, Entry, Epoch, Event, LeaveReason, Message, Note, Outcome,
    PeerStatus, ProposalId, ProposeError, Ready, Role, SoftState, Status, Write, Zab,
};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::conn::{self, Inbound, Link, Shared};
use crate::lanes::Arrival;
use crate::log::Log;
use crate::worker::{Done, Job, Worker, Writing};
use crate::{
    ActionHandler, CustomResponse, Kill, Lanes, RequestHandle, RequestMgr, SiteConfig, SiteError,
};

/// While things happen the engine is told the time in steps of so much; otherwise when it wants to know.
const TIME_STEP_MS: u64 = 5;

/// The shortest and the longest sleep.
const SLEEP_MS: u64 = 1;
const SLEEP_MS_MAX: u64 = 60_000;

/// So much of what has happened is taken in before the work that follows from it is asked for.
const BATCH: usize = 256;

/// Of connections that fail one after the other, one in so many is told of.
const LOG_EVERY: u64 = 100;

/// Most orders from handles that wait.
const ORDERS_MAX: usize = 1024;

/// What others may see of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteStatus {
    /// What it does. gometa's `GetStatus`.
    pub status: PeerStatus,
    /// Who leads: the name of its message port.
    pub leader: Option<Address>,
    /// Whether it takes part in the broadcast: an established leader, or a synchronized learner.
    pub is_serving: bool,
    /// The epoch whose leader's history its log is.
    pub epoch: Epoch,
    /// On a leader, the followers that take part and itself; 0 elsewhere. gometa's
    /// `GetActiveEnsembleSize`; whoever waits for this value to change has its
    /// `GetEnsembleChangeChannel`.
    pub active_ensemble_size: usize,
}

/// What other tasks may ask of a node while it runs.
#[derive(Clone, Debug)]
pub struct SiteHandle {
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<SiteStatus>,
}

/// One order from a handle.
#[derive(Debug)]
pub(crate) enum Order {
    Request(RequestHandle),
    Response(CustomResponse),
    Resign,
    Reset,
}

impl SiteHandle {
    /// What the node does, and each change of it.
    pub fn status(&self) -> watch::Receiver<SiteStatus> {
        self.status.clone()
    }

    /// Hands the node a request beside its [`RequestMgr`]. gometa's `Leader.QueueRequest`. Waits
    /// for room; a node that is gone, or does not serve, refuses it.
    pub async fn queue_request(&self, request: RequestHandle) {
        // What is not taken is dropped, and tells its asker.
        let _ = self.orders.send(Order::Request(request)).await;
    }

    /// Hands the leader the answer to a request outside the log. gometa's `Leader.QueueResponse`.
    pub async fn queue_response(&self, response: CustomResponse) {
        let _ = self.orders.send(Order::Response(response)).await;
    }

    /// Has a leader give up its office, once what is proposed is committed.
    pub async fn resign(&self) {
        let _ = self.orders.send(Order::Resign).await;
    }

    /// Closes all connections, for new certificates say: learners come back at once. A leader of
    /// one stays in office; with more members it loses its quorum, and there is an election.
    pub async fn reset(&self) {
        let _ = self.orders.send(Order::Reset).await;
    }
}

/// One node's part in elections, and whatever outlives them: its ports, connections and log.
pub struct ElectionSite {
    zab: Zab<Log>,
    actions: Arc<dyn ActionHandler>,
    worker: Worker,
    done: mpsc::UnboundedReceiver<Done>,
    /// Handed to the thread and not yet durable.
    writing: VecDeque<Write>,
    writing_bytes: u64,
    writing_bytes_max: u64,
    /// The end of the log when everything in `writing` is durable.
    written_to: Index,

    lanes: Lanes,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Inbound>,
    links: BTreeMap<ConnId, Link>,
    next_conn: u64,
    /// In a row.
    connect_failures: u64,
    /// The tasks of the connections that others have to this node, also before the engine is told of them.
    /// The oldest is the first.
    guests: BTreeMap<ConnId, AbortHandle>,
    tasks: JoinSet<()>,

    began: Instant,
    /// What the engine knows of the time, and when it wants to know again.
    told_ms: u64,
    tick_at: Instant,
    /// Followers may have come or gone since they were counted.
    is_count_due: bool,
    soft_state: SoftState,
    /// How often a role began or ended.
    role_changes: u64,
    left: Option<LeaveReason>,

    answers: Vec<(ProposalId, Outcome)>,
    custom: Vec<CustomRequest>,
    orders: mpsc::Receiver<Order>,
    handle: SiteHandle,
    status: watch::Sender<SiteStatus>,
    failure: Option<SiteError>,
    shutdown: Duration,
}

impl ElectionSite {
    /// Opens the application's log and takes the ports. The node takes part from
    /// [`ElectionSite::start_election`] on.
    ///
    /// # Errors
    ///
    /// [`SiteError`] when the settings do not fit together, or what is stored cannot be read or
    /// contradicts itself.
    pub async fn create(
        config: SiteConfig,
        mut lanes: Lanes,
        actions: Arc<dyn ActionHandler>,
    ) -> Result<Self, SiteError> {
        lanes.seal(config.vote_key);
        lanes.open().await?;
        let has_ports = lanes.election_address().is_some() && lanes.message_address().is_some();
        if config.engine.is_voter() && !has_ports {
            return Err(SiteError::NoPorts);
        }
        let SiteConfig { mut engine, wrap, server_auth, client_auth, .. } = config;
        // Without a handler of the application's, the answer is given here.
        engine.custom_requests = true;
        engine.takes_states = actions.takes_states();
        let (cache_bytes_max, opened) = (config.cache_bytes_max, Arc::clone(&actions));
        let opening = tokio::task::spawn_blocking(move || Log::open(opened, cache_bytes_max));
        let log = match opening.await {
            Ok(log) => log?,
            Err(panic) => return Err(SiteError::Thread(panic.to_string())),
        };
        engine.applied = log.applied();
        let (worker, done) = Worker::start(Arc::clone(&actions), log.hard_state().clone())
            .map_err(|error| SiteError::Thread(error.to_string()))?;
        let zab = Zab::new(engine, log, 0)?;
        let written_to = zab.glance().last;

        let (inbox_sender, inbox) = mpsc::channel(config.inbox_count_max.max(1));
        let inbox_bytes_max = config.inbox_bytes_max.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Shared {
            inbox: inbox_sender,
            inbox_bytes: Arc::new(Semaphore::new(inbox_bytes_max)),
            inbox_bytes_max,
            wrap,
            server_auth,
            client_auth,
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            auth_timeout: Duration::from_millis(config.auth_timeout_ms),
            flush: Duration::from_millis(config.flush_ms),
        };
        let (order_sender, orders) = mpsc::channel(ORDERS_MAX);
        let status = watch::Sender::new(SiteStatus::default());
        let handle = SiteHandle { orders: order_sender, status: status.subscribe() };
        let began = Instant::now();
        let soft_state = SoftState { role: Role::Looking, leader: NodeId::NONE, is_serving: false };
        Ok(ElectionSite {
            zab,
            actions,
            worker,
            done,
            writing: VecDeque::new(),
            writing_bytes: 0,
            writing_bytes_max: config.writing_bytes_max.max(1),
            written_to,
            lanes,
            shared: Arc::new(shared),
            inbox,
            links: BTreeMap::new(),
            next_conn: 0,
            connect_failures: 0,
            guests: BTreeMap::new(),
            tasks: JoinSet::new(),
            began,
            told_ms: 0,
            tick_at: began,
            is_count_due: true,
            soft_state,
            role_changes: 0,
            left: None,
            answers: Vec::new(),
            custom: Vec::new(),
            orders,
            handle,
            status,
            failure: None,
            shutdown: Duration::from_millis(config.shutdown_ms),
        })
    }

    /// Looks for a leader, and names the winner of the election: by its election port. It may be
    /// this node. A node that has a role already names the winner that it has it from.
    ///
    /// Nothing when the site is closed, or killed, which closes it.
    ///
    /// # Errors
    ///
    /// [`SiteError`] when the node must not take part any more.
    pub async fn start_election(&mut self, kill: &Kill) -> Result<Option<Address>, SiteError> {
        if self.is_closed() {
            return Ok(None);
        }
        loop {
            if let Some(winner) = self.winner() {
                return Ok(Some(winner));
            }
            tokio::select! {
                turned = self.turn() => {
                    if let Some(request) = turned? {
                        request.end(Outcome::Refused { reason: ProposeError::NoLeader.to_string() });
                    }
                }
                () = kill.killed() => {
                    self.close().await;
                    return Ok(None);
                }
            }
            // Nobody asks for anything while there is no leader, but an earlier role's requests
            // may end now; they have been told that their outcome is unknown.
            self.answers.clear();
            self.refuse_custom();
        }
    }

    /// Ends everything: connections, ports, tasks, the thread. Doing it again does nothing.
    pub async fn close(&mut self) {
        self.failure.get_or_insert(SiteError::Closed);
        self.links.clear();
        self.tasks.shutdown().await;
        self.lanes = Lanes::none();
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        // A disk may hang; what it still does is nothing new, and no later call follows.
        let _ = tokio::time::timeout(self.shutdown, self.worker.end()).await;
        self.status.send_replace(SiteStatus::default());
    }

    /// Whether it takes part no more, for whatever reason.
    pub fn is_closed(&self) -> bool {
        self.failure.is_some()
    }

    /// Who was elected, while this node leads or follows: by its election port.
    pub fn winner(&self) -> Option<Address> {
        match self.soft_state.role {
            Role::Looking => None,
            Role::Leading => Some(self.own().election.clone()),
            Role::Following | Role::Observing => {
                let leader = self.soft_state.leader;
                let members = &mut self.zab.config().members.iter();
                members.find(|member| member.id == leader).map(|member| member.election.clone())
            }
        }
    }

    /// Whether this node was elected.
    pub fn is_leader(&self) -> bool {
        self.soft_state.role == Role::Leading
    }

    /// Who this is. gometa's `GetFollowerId` is the name of its message port.
    pub fn own(&self) -> &quorate_zab::Member {
        &self.zab.config().own
    }

    /// What the node does, as votes say it. gometa's `GetStatus`.
    pub fn peer_status(&self) -> PeerStatus {
        match self.soft_state.role {
            Role::Looking => PeerStatus::Electing,
            Role::Leading => PeerStatus::Leading,
            Role::Following => PeerStatus::Following,
            Role::Observing => PeerStatus::Watching,
        }
    }

    /// A picture of the engine.
    pub fn status(&self) -> Status {
        self.zab.status()
    }

    /// For other tasks, while this node runs.
    pub fn handle(&self) -> SiteHandle {
        self.handle.clone()
    }

    // What the servers use (`server.rs`).

    pub(crate) fn soft_state(&self) -> SoftState {
        self.soft_state
    }

    pub(crate) fn role_changes(&self) -> u64 {
        self.role_changes
    }

    /// Why the last role ended.
    pub(crate) fn left(&self) -> LeaveReason {
        self.left.unwrap_or(LeaveReason::Disconnected)
    }

    pub(crate) fn take_custom(&mut self) -> Vec<CustomRequest> {
        std::mem::take(&mut self.custom)
    }

    /// Tells those who asked.
    pub(crate) fn answer(&mut self, requests: &impl RequestMgr) {
        let fid = &self.zab.config().own.message;
        for (id, outcome) in self.answers.drain(..) {
            match &outcome {
                Outcome::Refused { reason } => self.actions.abort(fid, id.0, reason),
                Outcome::Answered { error, content } => {
                    self.actions.respond(fid, id.0, error, content.as_ref());
                }
                Outcome::Committed { .. } | Outcome::Unknown => {}
            }
            requests.end_pending_request(id, outcome);
        }
    }

    /// Proposes a request of this node, or sends it to the leader.
    pub(crate) fn propose(
        &mut self,
        mut request: RequestHandle,
        requests: &impl RequestMgr,
    ) -> Result<(), SiteError> {
        self.tell_time()?;
        match self.zab.propose(request.command.clone()) {
            Ok(id) => {
                request.mark_sent();
                requests.add_pending_request(id, request);
            }
            Err(error) => request.end(Outcome::Refused { reason: error.to_string() }),
        }
        self.carry_out()
    }

    /// Sends the answer to a request outside the log.
    pub(crate) fn respond(&mut self, response: CustomResponse) -> Result<(), SiteError> {
        let CustomResponse { origin, request, error, content } = response;
        self.handle_event(Event::Respond { origin, request, error, content })?;
        self.carry_out()
    }

    /// Tells those who asked for something outside the log that nobody here answers.
    pub(crate) fn refuse_custom(&mut self) {
        for request in self.take_custom() {
            let response = CustomResponse {
                origin: request.origin,
                request: request.request.id,
                error: quorate_zab::NO_CUSTOM_HANDLER.to_owned(),
                content: None,
            };
            // What goes wrong shows at the next turn.
            let _ = self.respond(response);
        }
    }

    /// Waits for one thing to happen and does all that follows. A request of a handle's is returned,
    /// since only the role's server can keep it. May be given up at any time.
    pub(crate) async fn turn(&mut self) -> Result<Option<RequestHandle>, SiteError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut asked = None;
        // A learner with a slow disk is sent more than it can store, unless it stops listening.
        let has_room = self.writing_bytes < self.writing_bytes_max;
        tokio::select! {
            Some(done) = self.done.recv() => self.on_done(done)?,
            Some(inbound) = self.inbox.recv(), if has_room => self.on_inbound(inbound)?,
            // Nor would it hear who those are that connect, and send away voters for anybody.
            arrival = self.lanes.next(has_room) => self.on_arrival(arrival)?,
            Some(order) = self.orders.recv() => asked = self.on_order(order)?,
            Some(_) = self.tasks.join_next() => {}
            () = tokio::time::sleep_until(self.tick_at) => {}
        }
        for _ in 0..if has_room { BATCH } else { 0 } {
            let Ok(inbound) = self.inbox.try_recv() else { break };
            self.on_inbound(inbound)?;
        }
        while let Ok(done) = self.done.try_recv() {
            self.on_done(done)?;
        }
        while self.tasks.try_join_next().is_some() {}
        if self.tick_at <= Instant::now() {
            self.tick()?;
        }
        self.carry_out()?;
        Ok(asked)
    }

    // What happens.

    fn tick(&mut self) -> Result<(), SiteError> {
        let now_ms = self.now_ms();
        self.told_ms = now_ms;
        self.is_count_due = true;
        self.pass_on(Event::Tick { now_ms })
    }

    /// What happens is reported with the time at which it does.
    fn tell_time(&mut self) -> Result<(), SiteError> {
        match self.told_ms + TIME_STEP_MS <= self.now_ms() {
            true => self.tick(),
            false => Ok(()),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the next tick is due, if nothing happens until then.
    fn next_tick(&self) -> Instant {
        let now_ms = self.now_ms();
        let sleep_ms = self.zab.wake_ms().saturating_sub(now_ms);
        Instant::now() + Duration::from_millis(sleep_ms.clamp(SLEEP_MS, SLEEP_MS_MAX))
    }

    fn on_done(&mut self, done: Done) -> Result<(), SiteError> {
        match done {
            Done::Written(id) => {
                while self.writing.front().is_some_and(|write| write.id <= id)
                    && let Some(write) = self.writing.pop_front()
                {
                    self.writing_bytes -= bytes(&write);
                    self.zab.storage_mut().written(write);
                }
                self.handle_event(Event::Persisted(id))
            }
            Done::Committed(index) => {
                self.handle_event(Event::Applied(index))?;
                if let Some((index, last)) = self.zab.storage_mut().applied_to(index) {
                    self.worker.give(Job::Forget(index, last));
                }
                Ok(())
            }
            Done::Failed(error) => self.fail(SiteError::Action(error)),
        }
    }

    fn on_inbound(&mut self, inbound: Inbound) -> Result<(), SiteError> {
        match inbound {
            // It made room for another while this was on its way.
            Inbound::Accepted { conn, .. } if !self.guests.contains_key(&conn) => Ok(()),
            Inbound::Accepted { conn, link } => {
                self.links.insert(conn, link);
                self.handle_event(Event::Accepted { conn })
            }
            Inbound::Connected { to, conn, link } => {
                self.connect_failures = 0;
                self.links.insert(conn, link);
                self.handle_event(Event::Connected { to, conn })
            }
            Inbound::ConnectFailed { to, why } => {
                match self.connect_failures.is_multiple_of(LOG_EVERY) {
                    true => tracing::warn!(%to, %why, "could not connect"),
                    false => tracing::debug!(%to, %why, "could not connect"),
                }
                self.connect_failures += 1;
                self.handle_event(Event::ConnectFailed { to })
            }
            Inbound::Received { conn, message: Message::Snapshot(state), .. }
                if !self.actions.takes_states() || state.commands().is_none() =>
            {
                tracing::warn!(?conn, "a state that this application cannot take");
                self.links.remove(&conn);
                self.handle_event(Event::Closed { conn })
            }
            Inbound::Received { conn, message, room } => {
                drop(room);
                self.handle_event(Event::Received { conn, message })
            }
            Inbound::Heard { conn } => self.handle_event(Event::Heard { conn }),
            Inbound::Written { conn, count } => self.handle_event(Event::Written { conn, count }),
            Inbound::Closed { conn } => {
                self.links.remove(&conn);
                self.handle_event(Event::Closed { conn })
            }
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) -> Result<(), SiteError> {
        match arrival {
            Arrival::Vote { mut from, vote } => {
                // A socket for both families shows the addresses of the older one in the newer form.
                from.set_ip(from.ip().to_canonical());
                self.handle_event(Event::Datagram { from: crate::address(from), vote })
            }
            Arrival::Connection { stream, from } => self.admit(stream, from),
        }
    }

    /// Lets in whoever has connected. If there are as many as may be, the oldest of whom it is not known who
    /// they are makes room: a voter may be who comes, and whoever says nothing keeps no place from it.
    fn admit(&mut self, stream: TcpStream, from: SocketAddr) -> Result<(), SiteError> {
        let connections_max = self.zab.config().connections_max();
        if connections_max <= self.guests.len() {
            self.guests.retain(|_, task| !task.is_finished());
        }
        if connections_max <= self.guests.len() {
            let strangers =
                self.guests.keys().filter_map(|conn| Some((self.zab.stranger(*conn)?, *conn)));
            // The engine knows fewer than there may be.
            let Some((_, conn)) = strangers.min() else { return Ok(()) };
            tracing::warn!(%from, "too many connections; the oldest stranger makes room");
            if let Some(task) = self.guests.remove(&conn) {
                task.abort();
            }
            self.links.remove(&conn);
            self.handle_event(Event::Closed { conn })?;
        }
        let (shared, conn) = (Arc::clone(&self.shared), self.name_conn());
        let task = self.tasks.spawn(conn::accepted(shared, conn, stream, from));
        self.guests.insert(conn, task);
        Ok(())
    }

    fn on_order(&mut self, order: Order) -> Result<Option<RequestHandle>, SiteError> {
        match order {
            Order::Request(request) => return Ok(Some(request)),
            Order::Response(response) => self.respond(response)?,
            Order::Resign => self.handle_event(Event::Resign)?,
            Order::Reset => {
                for (conn, _) in std::mem::take(&mut self.links) {
                    self.handle_event(Event::Closed { conn })?;
                }
            }
        }
        Ok(None)
    }

    /// The only way into the engine but for requests and the time.
    fn handle_event(&mut self, event: Event) -> Result<(), SiteError> {
        self.tell_time()?;
        self.is_count_due |= matches!(event, Event::Closed { .. });
        self.pass_on(event)
    }

    fn pass_on(&mut self, event: Event) -> Result<(), SiteError> {
        match self.zab.handle(event) {
            Ok(()) => Ok(()),
            Err(fatal) => self.fail(SiteError::Fatal(fatal)),
        }
    }

    fn fail(&mut self, error: SiteError) -> Result<(), SiteError> {
        tracing::error!(%error, "the node takes part no more");
        // Nobody shall take it for one that does.
        self.links.clear();
        self.tasks.abort_all();
        self.lanes = Lanes::none();
        self.failure = Some(error.clone());
        Err(error)
    }

    // What follows.

    fn carry_out(&mut self) -> Result<(), SiteError> {
        while self.zab.has_ready() {
            match self.zab.ready() {
                Ok(ready) => self.carry_out_ready(ready)?,
                Err(fatal) => self.fail(SiteError::Fatal(fatal))?,
            }
        }
        self.tick_at = self.next_tick();
        self.show();
        Ok(())
    }

    fn carry_out_ready(&mut self, ready: Ready) -> Result<(), SiteError> {
        for note in ready.notes {
            self.on_note(note);
        }
        if let Some(soft_state) = ready.soft_state {
            self.soft_state = soft_state;
        }
        if let Some(write) = ready.write {
            self.write(write);
        }
        for (to, vote) in ready.datagrams {
            self.lanes.send(to.as_str(), &vote);
        }
        for (conn, message) in ready.messages {
            // One that is gone has reported it, or will.
            if let Some(link) = self.links.get(&conn) {
                let _ = link.outbox.send(message);
            }
        }
        for conn in ready.close {
            self.links.remove(&conn);
        }
        for to in ready.connect {
            let (shared, conn) = (Arc::clone(&self.shared), self.name_conn());
            self.tasks.spawn(conn::connect(shared, conn, to));
        }
        if !ready.committed.is_empty() {
            self.worker.give(Job::Commit(ready.committed));
        }
        self.answers.extend(ready.answers);
        self.custom.extend(ready.custom);
        Ok(())
    }

    fn write(&mut self, write: Write) {
        let mut replace_after = None;
        if let Some(state) = &write.install {
            assert!(self.actions.takes_states(), "other states are turned away at the door");
            self.written_to = state.index;
        }
        if let Some(from) = write.replace_from {
            if from <= self.written_to {
                let after = self.zab.zxid(from.prev());
                replace_after = Some(after.expect("a write continues the history it is cut from"));
            }
            self.written_to = write.entries.last().map_or(from.prev(), |entry| entry.index);
        }
        self.worker.give(Job::Write(Writing {
            id: write.id,
            install: write.install.clone(),
            replace_after,
            entries: write.entries.clone(),
            hard_state: write.hard_state.clone(),
        }));
        self.writing_bytes += bytes(&write);
        self.writing.push_back(write);
    }

    fn on_note(&mut self, note: Note) {
        match &note {
            Note::Became { .. } => self.role_changes += 1,
            Note::Left { why } => self.left = Some(*why),
            Note::Synchronized { .. } | Note::Closed { .. } => self.is_count_due = true,
            _ => {}
        }
        match note {
            Note::Diverged { .. } | Note::BareState { .. } | Note::LastEpoch => {
                tracing::error!(?note, "zab");
            }
            Note::GometaVoter { .. } | Note::ElectionPortSilent { .. } => {
                tracing::warn!(?note, "zab");
            }
            // As many as anybody cares to send.
            Note::DatagramDropped { .. } => tracing::debug!(?note, "zab"),
            _ => tracing::info!(?note, "zab"),
        }
    }

    fn name_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    /// Shows others what the node does, if that has changed.
    fn show(&mut self) {
        let counts = std::mem::take(&mut self.is_count_due);
        let SoftState { role, leader, is_serving } = self.soft_state;
        let mut active_ensemble_size = self.status.borrow().active_ensemble_size;
        if role != Role::Leading {
            active_ensemble_size = 0;
        } else if counts || active_ensemble_size == 0 {
            active_ensemble_size = self.zab.status().active_ensemble_size;
        }
        let config = self.zab.config();
        let mut known = config.members.iter().chain([&config.own]);
        let shown = SiteStatus {
            status: self.peer_status(),
            leader: known.find(|member| member.id == leader).map(|found| found.message.clone()),
            is_serving,
            epoch: self.zab.glance().epoch,
            active_ensemble_size,
        };
        self.status.send_if_modified(|before| {
            let is_new = *before != shown;
            if is_new {
                *before = shown;
            }
            is_new
        });
    }
}

fn bytes(write: &Write) -> u64 {
    let state = write.install.as_ref().map_or(0, |state| state.data.len() as u64);
    state + write.entries.iter().map(Entry::bytes).sum::<u64>()
}
