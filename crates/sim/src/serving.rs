//! What a member does for clients beside answering: it tells watchers, and has leases end while it
//! leads, as `server` does it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use quorate_kv::{Command, Renewal, StreamId, WatchCreateRequest};
use quorate_raft::Role;
use quorate_replica::{Event as ReplicaEvent, ReadId, RequestId, seal};
use quorate_types::Term;

use crate::node::{Going, Node, Reading, Said};
use crate::plan::SECOND;
use crate::watching::Told;
use crate::world::{Cx, OpId};

/// Leases that may be on their way out at once.
const EXPIRING_MAX: usize = 100;
/// How often watchers hear how far they are, in ticks.
const PROGRESS_TICKS: u64 = 20;

/// Who listens on a stream of watchers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) watcher: usize,
    pub(crate) connection: u64,
    /// Takes one response a tick, instead of all at once.
    is_slow: bool,
    /// When the last word arrives: the next one comes after it.
    last_us: u64,
}

/// What a member has asked for by itself about leases: until it is applied or refused, or until when
/// its outcome is waited for.
#[derive(Debug, Default)]
pub(crate) struct Errands {
    expiring: BTreeMap<RequestId, u64>,
    noting: BTreeMap<RequestId, u64>,
}

impl Errands {
    pub(crate) fn on_outcome(&mut self, request: RequestId) {
        self.expiring.remove(&request);
        self.noting.remove(&request);
    }

    /// What was passed on or cut off may be lost, and nobody says so.
    fn forget_overdue(&mut self, now: u64) {
        self.expiring.retain(|_, until| now < *until);
        self.noting.retain(|_, until| now < *until);
    }
}

impl Node {
    // ── watchers ──

    pub(crate) fn on_watch(
        &mut self,
        cx: &mut Cx<'_>,
        (watcher, connection): (usize, u64),
        request: WatchCreateRequest,
        is_slow: bool,
    ) -> Going {
        let process = self.process();
        let stream = process.watches.open();
        let listener = Listener { watcher, connection, is_slow, last_us: 0 };
        process.listeners.insert(stream, listener);
        process.watches.create(stream, request, &process.store)?;
        self.tell(cx)
    }

    pub(crate) fn on_unwatch(&mut self, watcher: usize, connection: u64) {
        let process = self.process();
        let is_its = |one: &Listener| (one.watcher, one.connection) == (watcher, connection);
        let stream = process.listeners.iter().find(|(_, one)| is_its(one)).map(|(id, _)| *id);
        if let Some(stream) = stream {
            process.listeners.remove(&stream);
            process.watches.close(stream);
        }
    }

    /// Tells watchers what there is to tell.
    pub(crate) fn tell(&mut self, cx: &mut Cx<'_>) -> Going {
        let process = self.process();
        if process.listeners.is_empty() {
            return Ok(());
        }
        loop {
            let more = process.watches.advance(&process.store)?;
            for stream in process.watches.take_ready() {
                let Some(listener) = process.listeners.get_mut(&stream) else { continue };
                while !listener.is_slow
                    && let Some(response) = process.watches.take(stream)
                {
                    listener.send(cx, Told::Response(response));
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Now and then: slow ones take something, all hear how far they are.
    fn tell_by_time(&mut self, cx: &mut Cx<'_>) -> Going {
        let process = self.process();
        if process.listeners.is_empty() {
            return Ok(());
        }
        let streams: Vec<StreamId> = process.listeners.keys().copied().collect();
        for stream in streams {
            if process.ticks.is_multiple_of(PROGRESS_TICKS) {
                process.watches.progress(stream, &process.store)?;
            }
            let Some(listener) = process.listeners.get_mut(&stream) else { continue };
            if listener.is_slow
                && let Some(response) = process.watches.take(stream)
            {
                listener.send(cx, Told::Response(response));
            }
        }
        if process.ticks.is_multiple_of(PROGRESS_TICKS) {
            process.watches.notify_progress();
        }
        self.tell(cx)
    }

    // ── leases ──

    /// What is to be done again and again.
    pub(crate) fn on_time(&mut self, cx: &mut Cx<'_>) -> Going {
        self.process().ticks += 1;
        self.publish(cx)?;
        self.tell_by_time(cx)?;
        if !cx.plan.clients.leases {
            return Ok(());
        }
        let now_ms = self.clock_ms(cx.now);
        let led = self.leads_in();
        let process = self.process();
        process.errands.forget_overdue(cx.now);
        let Some(term) = led else {
            if process.store.leads_leases().is_some() {
                process.store.follow_leases()?;
            }
            return Ok(());
        };
        let election_ms = cx.plan.election_us() / 1000;
        let store = &process.store;
        if store.leads_leases() != Some(term) && !store.lead_leases(term, now_ms, election_ms)? {
            return Ok(());
        }
        let room = EXPIRING_MAX.saturating_sub(process.errands.expiring.len());
        let mut commands = store.leases_expired(now_ms, room)?;
        if process.errands.noting.is_empty() {
            commands.extend(store.leases_to_checkpoint(now_ms)?);
        }
        // As long as the server waits for any request.
        let until = cx.now + 5 * SECOND + 2 * cx.plan.election_us();
        for command in commands {
            let (request, entry) = self.draw_own(cx, &command);
            let errands = &mut self.process().errands;
            match command {
                Command::LeaseExpire { .. } => errands.expiring.insert(request, until),
                _ => errands.noting.insert(request, until),
            };
            self.event(ReplicaEvent::Propose { request, entry })?;
        }
        Ok(())
    }

    /// A client wants a lease to live on.
    pub(crate) fn on_renew(
        &mut self,
        cx: &mut Cx<'_>,
        client: usize,
        op: OpId,
        lease: i64,
    ) -> Going {
        let Some(term) = self.leads_in() else {
            cx.answer(client, op, Said::Refused("not the leader"));
            return Ok(());
        };
        let now_ms = self.clock_ms(cx.now);
        let process = self.process();
        match process.store.lease_renew(lease, now_ms) {
            Ok(Renewal::Renewed { ttl_seconds }) => {
                // It may have been deposed without knowing.
                process.next_read += 1;
                let read = ReadId(process.next_read);
                let reading = Reading::Renewal { lease, term, ttl_seconds };
                process.reads.insert(read, (client, op, reading));
                self.event(ReplicaEvent::Read(read))
            }
            Ok(Renewal::After(command)) => {
                cx.answer(client, op, Said::Refused("renew again"));
                self.propose_own(cx, &command)
            }
            Ok(Renewal::Expiring) | Err(_) => {
                cx.answer(client, op, Said::Refused("not renewed"));
                Ok(())
            }
        }
    }

    /// A read is confirmed: now it may be answered.
    pub(crate) fn on_read_confirmed(&mut self, cx: &Cx<'_>, reading: &Reading) -> Said {
        let led = self.leads_in();
        let now_ms = self.clock_ms(cx.now);
        let process = self.process();
        let store = &process.store;
        match reading {
            Reading::Range(range) => Said::Read(store.range(range)),
            Reading::Renewal { lease, term, ttl_seconds } => {
                let still_leads = led == Some(*term) && store.leads_leases() == Some(*term);
                let lives = |left: quorate_kv::LeaseTimeToLiveResponse| 0 <= left.ttl_seconds;
                let is_there = store.lease_time_to_live(*lease, false, now_ms).is_ok_and(lives);
                if still_leads && is_there {
                    Said::Renewed(*ttl_seconds)
                } else {
                    Said::Refused("not renewed")
                }
            }
        }
    }

    /// The term in which this member leads, as far as it knows.
    fn leads_in(&mut self) -> Option<Term> {
        let id = self.id;
        let glance = self.process().replica.glance();
        (glance.role == Role::Leader && glance.leader == id).then_some(glance.term)
    }

    /// Asks for something that no client wants.
    pub(crate) fn propose_own(&mut self, cx: &mut Cx<'_>, command: &Command) -> Going {
        let (request, entry) = self.draw_own(cx, command);
        self.event(ReplicaEvent::Propose { request, entry })
    }

    fn draw_own(&mut self, cx: &mut Cx<'_>, command: &Command) -> (RequestId, Bytes) {
        let request = self.process().ids.draw();
        let mut entry = BytesMut::new();
        seal(request, &mut entry);
        command.encode(&mut entry);
        cx.checks.on_proposed_by_member(request);
        (request, entry.freeze())
    }

    /// All that listen hear that the process is gone.
    pub(crate) fn hang_up(cx: &mut Cx<'_>, listeners: impl Iterator<Item = Listener>) {
        for mut listener in listeners {
            listener.send(cx, Told::Closed);
        }
    }
}

impl Listener {
    fn send(&mut self, cx: &mut Cx<'_>, told: Told) {
        let delay = cx.chance.between(50, 2_000);
        self.last_us = (cx.now + delay).max(self.last_us + 1);
        cx.tell_watcher(self.last_us, self.watcher, self.connection, told);
    }
}
