//! A node under test, of either kind, whose peers speak gometa's dialect and are played by hand.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::Index;
use quorate_zab::{
    Address, Command, Config, ConnId, Epoch, EpochAck, Event, FollowerInfo, LeaderInfo, LogEntry,
    MemoryStorage, Message, Op, Outcome, PeerStatus, Role, Snapshot, Vote, Zab, Zxid,
};

use crate::gometa::Gometa;
use crate::hand::{Past, entry, new_leader};
use crate::net::{config, member};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Gometa,
    Ours,
}

pub(crate) enum Engine {
    Gometa(Box<Gometa>),
    Ours(Box<Zab<MemoryStorage>>, MemoryStorage),
}

/// The node under test.
pub(crate) struct Puppet {
    engine: Engine,
    pub(crate) own: u64,
    pub(crate) size: u64,
    pub(crate) now_ms: u64,
    pub(crate) out: Vec<(ConnId, Message)>,
    pub(crate) datagrams: Vec<(Address, Vote)>,
    pub(crate) connect: Vec<Address>,
    pub(crate) closed: Vec<ConnId>,
    pub(crate) applied: Vec<Zxid>,
    /// Keys that are in the store.
    keys: BTreeSet<String>,
    next_conn: u64,
    /// What became of each request, in the order they were made; empty while nothing has.
    fates: Vec<&'static str>,
    requests: BTreeMap<u64, usize>,
}

impl Puppet {
    pub(crate) fn new(kind: Kind, own: u64, size: u64, past: &Past) -> Self {
        let engine = match kind {
            Kind::Gometa => {
                let disk = past.disk();
                let members = (1..=size).map(member).collect();
                Engine::Gometa(Box::new(Gometa::new(member(own), members, disk, 0)))
            }
            Kind::Ours => {
                let mut config = config(own, size);
                (config.allow_gometa_voters, config.takes_states) = (true, true);
                Self::ours(config, past)
            }
        };
        Self::of(engine, own, size)
    }

    pub(crate) fn ours(config: Config, past: &Past) -> Engine {
        let storage = past.storage();
        let zab = Zab::new(config, storage.clone(), 0).expect("settings that fit together");
        Engine::Ours(Box::new(zab), storage)
    }

    pub(crate) fn of(engine: Engine, own: u64, size: u64) -> Self {
        let applied = match &engine {
            Engine::Gometa(node) => node.applied.clone(),
            Engine::Ours(..) => Vec::new(),
        };
        let mut puppet = Puppet {
            engine,
            own,
            size,
            now_ms: 0,
            out: Vec::new(),
            datagrams: Vec::new(),
            connect: Vec::new(),
            closed: Vec::new(),
            applied,
            keys: BTreeSet::new(),
            next_conn: 0,
            fates: Vec::new(),
            requests: BTreeMap::new(),
        };
        puppet.pass(10);
        puppet
    }

    pub(crate) fn handle(&mut self, event: Event) {
        match &mut self.engine {
            Engine::Gometa(node) => node.handle(event),
            Engine::Ours(zab, _) => zab.handle(event).expect("no peer can break a node"),
        }
        self.drive();
    }

    pub(crate) fn drive(&mut self) {
        loop {
            let ready = match &mut self.engine {
                Engine::Gometa(node) => node.take_ready(),
                Engine::Ours(zab, _) => zab.ready().expect("no peer can break a node"),
            };
            let answers = self.gometa().map(|node| std::mem::take(&mut node.answers));
            for (id, error) in answers.unwrap_or_default() {
                self.end(id, if error.is_empty() { "committed" } else { "error" });
            }
            if ready.is_empty() {
                return;
            }
            let state = ready.write.as_ref().and_then(|write| write.install.as_ref());
            if let Some(commands) = state.and_then(Snapshot::commands) {
                self.keys.clear();
                commands.iter().for_each(|command| self.store(command));
            }
            for entry in &ready.committed {
                self.applied.push(entry.zxid);
                self.store(&entry.command);
            }
            if let Engine::Ours(zab, storage) = &mut self.engine {
                zab.check();
                for (conn, _) in &ready.messages {
                    zab.handle(Event::Written { conn: *conn, count: 1 }).unwrap();
                }
                if let Some(write) = ready.write {
                    storage.write(&write).unwrap();
                    zab.handle(Event::Persisted(write.id)).unwrap();
                }
                for entry in ready.committed {
                    zab.handle(Event::Applied(entry.index)).unwrap();
                }
            }
            for (id, outcome) in ready.answers {
                let fate = match outcome {
                    Outcome::Committed { .. } => "committed",
                    Outcome::Refused { .. } => "refused",
                    Outcome::Unknown => "unknown",
                    _ => "answered",
                };
                self.end(id.0, fate);
            }
            self.out.extend(ready.messages);
            self.datagrams.extend(ready.datagrams);
            self.connect.extend(ready.connect);
            self.closed.extend(ready.close);
        }
    }

    fn store(&mut self, command: &Command) {
        match command.op {
            Op::DELETE => self.keys.remove(&*command.key),
            _ => self.keys.insert(command.key.to_string()),
        };
    }

    pub(crate) fn keys(&self) -> String {
        self.keys.iter().cloned().collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            self.handle(Event::Tick { now_ms: self.now_ms });
        }
    }

    pub(crate) fn hear(&mut self, conn: ConnId, message: Message) {
        self.handle(Event::Received { conn, message });
    }

    pub(crate) fn hear_vote(&mut self, from: u64, vote: Vote) {
        self.handle(Event::Datagram { from: member(from).election, vote });
    }

    pub(crate) fn sent(&mut self, to: ConnId) -> Vec<Message> {
        let (taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.out).into_iter().partition(|(conn, _)| *conn == to);
        self.out = kept;
        taken.into_iter().map(|(_, message)| message).collect()
    }

    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        !self.closed.contains(&conn)
    }

    pub(crate) fn leads(&self) -> bool {
        match &self.engine {
            Engine::Gometa(node) => node.is_leading(),
            Engine::Ours(zab, _) => {
                let status = zab.status();
                status.role == Role::Leading && status.is_serving
            }
        }
    }

    pub(crate) fn follows(&self) -> bool {
        match &self.engine {
            Engine::Gometa(node) => node.is_following(),
            Engine::Ours(zab, _) => {
                let status = zab.status();
                status.role == Role::Following && status.is_serving
            }
        }
    }

    pub(crate) fn looks(&self) -> bool {
        match &self.engine {
            Engine::Gometa(node) => node.is_electing(),
            Engine::Ours(zab, _) => zab.status().role == Role::Looking,
        }
    }

    /// Ids of the transactions in the store, each once, in the order they came.
    pub(crate) fn applied(&self) -> String {
        let mut once: Vec<Zxid> = Vec::new();
        for zxid in &self.applied {
            if !once.contains(zxid) {
                once.push(*zxid);
            }
        }
        said(&once)
    }

    pub(crate) fn history(&self) -> String {
        match &self.engine {
            Engine::Gometa(node) => said(&node.disk.ids()),
            Engine::Ours(zab, _) => {
                let last = zab.status().last.0;
                said(&(1..=last).filter_map(|at| zab.zxid(Index(at))).collect::<Vec<_>>())
            }
        }
    }

    // What its peers do.

    /// All other members vote for `winner`.
    pub(crate) fn elect(&mut self, winner: u64) {
        let standing = self.datagrams.last().map(|(_, vote)| vote.clone()).expect("it votes");
        let epoch = if winner == self.own { standing.epoch } else { Epoch(1000) };
        let vote = Vote { candidate: member(winner).election, epoch, ..standing };
        let own = self.own;
        for other in (1..=self.size).filter(|other| *other != own) {
            self.hear_vote(other, vote.clone());
        }
        // gometa waits even where all agree.
        self.pass(210);
    }

    pub(crate) fn accept(&mut self) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.handle(Event::Accepted { conn });
        conn
    }

    pub(crate) fn introduce(&mut self, conn: ConnId, of: u64, accepted: u32, voting: bool) {
        let fid = member(of).message;
        let accepted_epoch = Epoch(accepted);
        let info = FollowerInfo { accepted_epoch, fid, voting, ..FollowerInfo::default() };
        self.hear(conn, Message::FollowerInfo(info));
    }

    pub(crate) fn promise(&mut self, conn: ConnId, current: u32, logged: Zxid) {
        let current_epoch = Epoch(current);
        self.hear(conn, Message::EpochAck(EpochAck { logged, current_epoch, committed: None }));
    }

    /// A learner goes all the way; says what it was sent.
    pub(crate) fn join(
        &mut self,
        of: u64,
        epochs: u32,
        logged: Zxid,
        voting: bool,
    ) -> (ConnId, Vec<Message>) {
        let conn = self.accept();
        self.introduce(conn, of, epochs, voting);
        self.promise(conn, epochs, logged);
        let sent = self.sent(conn);
        self.hear(conn, Message::NewLeaderAck);
        (conn, sent)
    }

    /// The member of the highest id leads `size`, with 1, and as many more as it takes, beside it.
    pub(crate) fn leading(kind: Kind, size: u64, past: &Past) -> (Self, Vec<ConnId>) {
        let mut puppet = Puppet::new(kind, size, size, past);
        puppet.elect(size);
        let conns = puppet.gather(past);
        assert!(puppet.leads(), "{kind:?}");
        (puppet, conns)
    }

    pub(crate) fn gather(&mut self, past: &Past) -> Vec<ConnId> {
        let followers = self.size / 2;
        let conns: Vec<ConnId> = (0..followers).map(|_| self.accept()).collect();
        for (of, conn) in (1..).zip(&conns) {
            self.introduce(*conn, of, past.accepted, true);
        }
        for conn in &conns {
            self.promise(*conn, past.current, Zxid::ZERO);
        }
        for conn in &conns {
            self.hear(*conn, Message::NewLeaderAck);
        }
        self.out.clear();
        conns
    }

    /// Node 1 of three follows 3 in `epoch`, up to its EpochAck; says what that asks for.
    pub(crate) fn promised(kind: Kind, past: &Past, epoch: u32) -> (Self, ConnId, Zxid) {
        let mut puppet = Puppet::new(kind, 1, 3, past);
        let conn = puppet.follow(epoch);
        let sent = puppet.sent(conn);
        let Some(Message::EpochAck(ack)) = sent.last() else { panic!("{kind:?}: {sent:?}") };
        let logged = ack.logged;
        (puppet, conn, logged)
    }

    pub(crate) fn follow(&mut self, epoch: u32) -> ConnId {
        self.elect(3);
        self.reach(epoch)
    }

    /// It learns, as a watcher, that 3 leads, and reaches it.
    pub(crate) fn watch(&mut self, epoch: u32) -> ConnId {
        let candidate = member(3).election;
        for of in 1..=3 {
            let status = if of == 3 { PeerStatus::Leading } else { PeerStatus::Following };
            let (epoch, candidate) = (Epoch(epoch), candidate.clone());
            self.hear_vote(of, Vote { round: 7, status, epoch, candidate, ..Vote::default() });
        }
        self.pass(300);
        self.reach(epoch)
    }

    fn reach(&mut self, epoch: u32) -> ConnId {
        let to = member(3).message;
        assert_eq!(self.connect.pop(), Some(to.clone()));
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.handle(Event::Connected { to, conn });
        self.hear(conn, Message::LeaderInfo(LeaderInfo { epoch: Epoch(epoch), caps: None }));
        conn
    }

    /// What a gometa leader streams of `ids` after `start`, the first `committed` of them committed.
    pub(crate) fn stream(
        &mut self,
        conn: ConnId,
        start: Zxid,
        ids: &[Zxid],
        committed: Zxid,
        epoch: u32,
    ) {
        self.hear(conn, Message::LogEntry(LogEntry::begin(committed, None)));
        for zxid in ids.iter().filter(|zxid| start < **zxid) {
            self.hear(conn, entry(*zxid));
        }
        self.hear(conn, Message::LogEntry(LogEntry::end(committed)));
        self.hear(conn, new_leader(epoch));
    }

    /// Node 1 of three follows in `epoch`, with nothing that it lacks.
    pub(crate) fn following(kind: Kind, epoch: u32) -> (Self, ConnId) {
        let (mut puppet, conn, _) = Puppet::promised(kind, &Past::default(), epoch);
        puppet.stream(conn, Zxid::ZERO, &[], Zxid::ZERO, epoch);
        assert!(puppet.follows(), "{kind:?}");
        puppet.sent(conn);
        (puppet, conn)
    }

    pub(crate) fn request(&mut self, text: &str) {
        let command = Command::set("k", text.to_owned());
        let asked = match &mut self.engine {
            Engine::Gometa(node) => Ok(node.request(command)),
            Engine::Ours(zab, _) => zab.propose(command).map(|id| id.0),
        };
        self.fates.push(if asked.is_ok() { "" } else { "refused" });
        if let Ok(id) = asked {
            self.requests.insert(id, self.fates.len() - 1);
        }
        self.drive();
    }

    fn end(&mut self, id: u64, fate: &'static str) {
        let slot = self.requests.remove(&id).expect("each request ends once");
        self.fates[slot] = fate;
    }

    pub(crate) fn fates(&self) -> String {
        self.fates.join(" ")
    }

    /// The follower `of` holds `zxid`.
    pub(crate) fn hold(&mut self, conn: ConnId, of: u64, zxid: Zxid) {
        self.hear(conn, Message::Accept { zxid, fid: member(of).message });
    }

    pub(crate) fn gometa(&mut self) -> Option<&mut Gometa> {
        match &mut self.engine {
            Engine::Gometa(node) => Some(node.as_mut()),
            Engine::Ours(..) => None,
        }
    }
}

pub(crate) fn said(ids: &[Zxid]) -> String {
    ids.iter().map(Zxid::to_string).collect::<Vec<_>>().join(" ")
}

pub(crate) fn streamed(messages: &[Message]) -> Vec<Zxid> {
    let entries = messages.iter().filter_map(|message| match message {
        Message::LogEntry(entry)
            if ![Op::STREAM_BEGIN, Op::STREAM_END].contains(&entry.command.op) =>
        {
            Some(entry.zxid)
        }
        _ => None,
    });
    entries.collect()
}

pub(crate) fn either(is: bool, one: &str, other: &str) -> String {
    if is { one } else { other }.to_owned()
}
