//! Ensembles of two kinds of nodes, ours and models of gometa's, under faults from a seed: connections
//! break, datagrams are lost, doubled and late, nodes crash and forget what was not synced.
//!
//! ```text
//! voters ours, watchers gometa's    all of ZAB holds for ours; a watcher has some committed prefix
//! voters gometa's, watchers ours    a watcher has what its leaders' logs say is committed, in order
//! voters of both kinds              ours keep their promises; gometa's lose what gometa loses
//! ```
//!
//! A few seeds run with every test; more with `QUORATE_ZAB_SEEDS=0..10000 cargo test --release -p quorate-zab
//! --test engine mixed`.
//!
//! Some leaders let go of their history, and have a state in its place. A watcher of gometa's that is sent one
//! has no ids to compare by, so there what it stores is compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use quorate_types::Index;
use quorate_zab::{
    Address, CloseReason, Command, Config, ConnId, Entry, Epoch, Event, MemoryStorage, Message,
    Note, Op, ReadFailure, ReadId, Role, Snapshot, Storage, SyncPlan, Vote, Write, Zab, Zxid,
};

use crate::gometa::{Disk, Gometa};
use crate::hand::Past;
use crate::net::{Dice, config, member, seeds};
use crate::puppet::Kind;

enum Engine {
    Down,
    Gometa(Box<Gometa>),
    Ours(Box<Zab<MemoryStorage>>),
}

struct Node {
    kind: Kind,
    engine: Engine,
    /// What a gometa process leaves behind.
    disk: Disk,
    storage: MemoryStorage,
    writes: VecDeque<Write>,
    /// Ids that its store has taken: all there are with one of ours, in this life; with gometa's each
    /// where it first came, whenever that was.
    applied: Vec<Zxid>,
    /// What a gometa process stores, and what it stored last in this life.
    store: Store,
    stored: Zxid,
    lives: u64,
}

/// Values by key.
type Store = BTreeMap<String, String>;

fn store(into: &mut Store, command: &Command) {
    let key = command.key.to_string();
    match command.op {
        Op::DELETE => drop(into.remove(&key)),
        _ => drop(into.insert(key, String::from_utf8_lossy(&command.content).into_owned())),
    }
}

struct Link {
    ends: [u64; 2],
    queues: [VecDeque<Message>; 2],
    is_open: [bool; 2],
    is_ending: bool,
}

pub(crate) struct Ensemble {
    seed: u64,
    dice: Dice,
    now_ms: u64,
    voters: u64,
    nodes: BTreeMap<u64, Node>,
    datagrams: Vec<(Address, Address, Vote)>,
    connecting: Vec<(u64, Address)>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    next_value: u64,
    /// What ours have committed, by whichever came first.
    committed: Vec<Zxid>,
    /// The same with what it was, where histories are let go of.
    entries: Vec<Entry>,
    compacts: bool,
    /// What some of the first of them lead to.
    state: (usize, Store),
    /// Learners that were sent a state.
    states: usize,
    /// One of gometa's was turned away, as it lacks what is gone and is not empty.
    is_refused: bool,
    /// One of ours has met a history that it cannot be reconciled with.
    is_diverged: bool,
    /// Reads of ours without an answer, by who was asked, each with the greatest id that any of ours had
    /// applied when it was asked: it must see that. Who crashes forgets them.
    asked: BTreeMap<(u64, ReadId), Zxid>,
    /// Those that were confirmed, each with whose it is, what is to be applied there before it is served, and
    /// what it must see.
    confirmed: Vec<(u64, Index, Zxid)>,
    has_reads: bool,
    /// How many were served.
    reads: usize,
    leaders: BTreeMap<Epoch, u64>,
    pub(crate) has_writes: bool,
    /// Ours take voters of gometa's.
    takes_gometa: bool,
    /// Those that do not start any more.
    pub(crate) gone: BTreeSet<u64>,
    /// One side of a network that is cut in two; empty while it is whole.
    part: BTreeSet<u64>,
    /// Who crashes, and before how many more of its writes, or messages, where all is written at once.
    fuse: Option<(u64, u64)>,
}

impl Ensemble {
    fn new(seed: u64, voters: &[Kind], watchers: &[Kind]) -> Self {
        let mut ensemble = Ensemble::idle(seed, voters, watchers);
        for id in ensemble.ids() {
            ensemble.start(id);
        }
        ensemble
    }

    /// An ensemble of one kind whose voters have all been something else before; nobody runs yet.
    pub(crate) fn with_pasts(seed: u64, kind: Kind, pasts: &[Past]) -> Self {
        let mut ensemble = Ensemble::idle(seed, &vec![kind; pasts.len()], &[]);
        for (id, past) in (1..).zip(pasts) {
            let node = ensemble.at(id);
            (node.disk, node.storage) = (past.disk(), past.storage());
        }
        ensemble
    }

    fn idle(seed: u64, voters: &[Kind], watchers: &[Kind]) -> Self {
        let nodes = (1..).zip(voters.iter().chain(watchers)).map(|(id, kind)| {
            let node = Node {
                kind: *kind,
                engine: Engine::Down,
                disk: Disk::default(),
                storage: MemoryStorage::new(),
                writes: VecDeque::new(),
                applied: Vec::new(),
                store: Store::new(),
                stored: Zxid::ZERO,
                lives: 0,
            };
            (id, node)
        });
        Ensemble {
            seed,
            dice: Dice::new(seed),
            now_ms: 0,
            voters: voters.len() as u64,
            nodes: nodes.collect(),
            datagrams: Vec::new(),
            connecting: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            next_value: 0,
            committed: Vec::new(),
            entries: Vec::new(),
            compacts: false,
            state: (0, Store::new()),
            states: 0,
            is_refused: false,
            is_diverged: false,
            asked: BTreeMap::new(),
            confirmed: Vec::new(),
            has_reads: false,
            reads: 0,
            leaders: BTreeMap::new(),
            has_writes: true,
            takes_gometa: true,
            gone: BTreeSet::new(),
            part: BTreeSet::new(),
            fuse: None,
        }
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    fn at(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("an id of the ensemble")
    }

    /// The network is cut, or whole again: between those named here and the rest nothing goes.
    pub(crate) fn cut(&mut self, part: &[u64]) {
        self.part = part.iter().copied().collect();
        let part = self.part.clone();
        self.break_links(|[one, other]| part.contains(one) != part.contains(other));
    }

    fn is_cut(&self, one: u64, other: u64) -> bool {
        self.part.contains(&one) != self.part.contains(&other)
    }

    /// This one is to crash before it has done so many more writes, or heard so many more messages.
    pub(crate) fn light_fuse(&mut self, id: u64, count: u64) {
        self.fuse = Some((id, count));
    }

    /// Whether it has burnt down now; one that has crashed knows nothing of what it was to do.
    fn burns_down(&mut self, id: u64) -> bool {
        match &mut self.fuse {
            Some((victim, 0)) if *victim == id => {
                self.fuse = None;
                self.crash(id);
                true
            }
            Some((victim, left)) if *victim == id => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }

    pub(crate) fn start(&mut self, id: u64) {
        if self.gone.contains(&id) {
            return;
        }
        let (now_ms, voters, seed) = (self.now_ms, self.voters, self.seed);
        let allow_gometa_voters = self.takes_gometa;
        // Where there is a state to send, it goes out in several pieces.
        let connection_bytes_max = if self.compacts { 200 } else { 4 << 20 };
        let node = self.at(id);
        if !matches!(node.engine, Engine::Down) {
            return;
        }
        node.lives += 1;
        let from = node.storage.snapshot().expect("there is one of nothing at least").index;
        if node.kind == Kind::Ours {
            node.applied.truncate(from.0 as usize); // the rest is applied again
        }
        node.engine = match node.kind {
            Kind::Gometa => {
                let members = (1..=voters).map(member).collect();
                let disk = node.disk.clone();
                let gometa = Gometa::new(member(id), members, disk, now_ms);
                if node.lives == 1 {
                    node.applied.clone_from(&gometa.applied);
                }
                Engine::Gometa(Box::new(gometa))
            }
            Kind::Ours => {
                let config = Config {
                    seed: seed << 16 | node.lives << 8 | id,
                    allow_gometa_voters,
                    barrier_key: Some("barrier".into()),
                    backoff_ms: 50,
                    backoff_ms_max: 200,
                    applied: from,
                    connection_bytes_max,
                    ..config(id, voters)
                };
                let zab = Zab::new(config, node.storage.clone(), now_ms);
                Engine::Ours(Box::new(zab.unwrap_or_else(|why| panic!("seed {seed}: {why}"))))
            }
        };
        self.drive(id);
    }

    fn crash(&mut self, id: u64) {
        let compacts = self.compacts;
        self.asked.retain(|(of, _), _| *of != id);
        self.confirmed.retain(|(of, ..)| *of != id);
        let node = self.at(id);
        match std::mem::replace(&mut node.engine, Engine::Down) {
            // Where leaders have states, watchers keep nothing themselves.
            Engine::Gometa(_) if compacts => {
                node.store.clear();
                node.stored = Zxid::ZERO;
            }
            Engine::Gometa(gometa) => node.disk = gometa.disk,
            Engine::Ours(_) | Engine::Down => node.writes.clear(),
        }
        self.connecting.retain(|(from, _)| *from != id);
        self.break_links(|ends| ends.contains(&id));
    }

    fn break_links(&mut self, of: impl Fn(&[u64; 2]) -> bool) {
        for link in self.links.values_mut().filter(|link| of(&link.ends)) {
            link.is_ending = true;
            for queue in &mut link.queues {
                queue.clear();
            }
        }
    }

    fn handle(&mut self, id: u64, event: Event) {
        let seed = self.seed;
        match &mut self.at(id).engine {
            Engine::Down => {}
            Engine::Gometa(node) => node.handle(event),
            Engine::Ours(zab) => {
                zab.handle(event).unwrap_or_else(|why| panic!("seed {seed}: {id}: {why}"));
            }
        }
        self.drive(id);
    }

    fn drive(&mut self, id: u64) {
        loop {
            let seed = self.seed;
            let node = self.at(id);
            let ready = match &mut node.engine {
                Engine::Down => return,
                Engine::Gometa(gometa) => gometa.take_ready(),
                Engine::Ours(zab) => {
                    zab.ready().unwrap_or_else(|why| panic!("seed {seed}: {id}: {why}"))
                }
            };
            if ready.is_empty() {
                break;
            }
            node.writes.extend(ready.write);
            let is_ours = node.kind == Kind::Ours;
            let mut new = Vec::new();
            for entry in &ready.committed {
                match is_ours {
                    true => new.push(entry.clone()),
                    false => {
                        store(&mut node.store, &entry.command);
                        node.stored = entry.zxid;
                    }
                }
            }
            let is_state =
                |note: &&Note| matches!(note, Note::Planned { plan: SyncPlan::State { .. }, .. });
            let states = ready.notes.iter().filter(is_state).count();
            for zxid in ready.committed.iter().map(|entry| entry.zxid) {
                if is_ours {
                    let last = node.applied.last().copied().unwrap_or(Zxid::ZERO);
                    assert!(last < zxid, "seed {seed}: {id} applies {zxid} after {last}");
                }
                if is_ours || !node.applied.contains(&zxid) {
                    node.applied.push(zxid);
                }
            }
            if let Engine::Ours(zab) = &mut node.engine {
                zab.check();
                for (conn, _) in &ready.messages {
                    zab.handle(Event::Written { conn: *conn, count: 1 }).expect("it was sent");
                }
                for entry in ready.committed {
                    zab.handle(Event::Applied(entry.index)).expect("it was handed out");
                }
            }
            self.states += states;
            let is_refusal =
                |note: &Note| matches!(note, Note::Closed { why: CloseReason::NotEmpty, .. });
            let is_divergence = |note: &Note| matches!(note, Note::Diverged { .. });
            self.is_diverged |= ready.notes.iter().any(is_divergence);
            self.is_refused |= ready.notes.iter().any(is_refusal);
            for (read, answer) in ready.reads {
                self.on_read(id, read, answer);
            }
            for entry in new.into_iter().filter(|_| self.compacts) {
                match self.entries.get(entry.index.0 as usize - 1) {
                    Some(known) => assert_eq!(known.zxid, entry.zxid, "seed {seed}: {id}"),
                    None => self.entries.push(entry),
                }
            }
            let own = member(id).election;
            for (to, vote) in ready.datagrams {
                if self.datagrams.len() < 200 {
                    self.datagrams.push((own.clone(), to, vote));
                }
            }
            self.connecting.extend(ready.connect.into_iter().map(|to| (id, to)));
            for (conn, message) in ready.messages {
                if let Some(link) = self.links.get_mut(&(conn.0 / 2))
                    && !link.is_ending
                {
                    link.queues[(conn.0 % 2) as usize].push_back(message);
                }
            }
            for conn in ready.close {
                if let Some(link) = self.links.get_mut(&(conn.0 / 2)) {
                    link.is_open[(conn.0 % 2) as usize] = false;
                    link.is_ending = true;
                }
            }
        }
        self.serve_reads();
        self.watch(id);
    }

    /// What holds of ours whatever others do.
    fn watch(&mut self, id: u64) {
        let seed = self.seed;
        if let Engine::Gometa(gometa) = &self.nodes[&id].engine
            && self.compacts
            && gometa.is_following()
        {
            let committed = gometa.disk.last_committed;
            // A new leader sends all once more, and may know of less that is committed than it had been told.
            let stored = self.nodes[&id].stored;
            let is_behind = Epoch(0) < stored.epoch() && stored < committed;
            // What is not handed out to anybody yet is looked at later.
            if !is_behind
                && let Ok(at) = self.entries.binary_search_by_key(&committed, |entry| entry.zxid)
            {
                let state = self.state(at + 1);
                assert_eq!(self.nodes[&id].store, state, "seed {seed}: {id} at {committed}");
            }
        }
        let Engine::Ours(zab) = &self.nodes[&id].engine else { return };
        let status = zab.status();
        if let Some(epoch) = status.epoch
            && status.role == Role::Leading
            && status.is_serving
        {
            let leader = *self.leaders.entry(epoch).or_insert(id);
            assert_eq!(leader, id, "seed {seed}: two leaders of epoch {epoch}");
        }
    }

    /// The state after the first entries that were committed.
    fn state(&mut self, count: usize) -> Store {
        if count < self.state.0 {
            self.state = (0, Store::new());
        }
        let (from, state) = &mut self.state;
        self.entries[*from..count].iter().for_each(|entry| store(state, &entry.command));
        *from = count;
        state.clone()
    }

    /// One of ours lets go of most of what it has applied.
    fn compact(&mut self, id: u64) {
        let kept = self.dice.roll(4);
        let node = &self.nodes[&id];
        let applied = node.applied.len() as u64;
        let first = node.storage.first_index().expect("it can be read");
        let durable = node.storage.last_index().expect("it can be read");
        if !matches!(node.engine, Engine::Ours(_)) || durable.0 < applied || applied < first.0 + 4 {
            return;
        }
        let zxid = self.entries[applied as usize - 1].zxid;
        let state: Vec<Command> = self
            .state(applied as usize)
            .into_iter()
            .map(|(key, value)| Command::set(&key, value))
            .collect();
        let state = Snapshot::of_commands(Index(applied), zxid, &state);
        let storage = &self.nodes[&id].storage;
        storage.make_snapshot(Index(applied), state.data).expect("it is durable");
        storage.compact(Index(applied - kept)).expect("it is in the state");
    }

    /// The first of these to hold a committed entry says which it is; all others must say the same.
    fn watch_order(&mut self, of: &[u64]) {
        for (id, node) in self.nodes.iter().filter(|(id, _)| of.contains(*id)) {
            for (at, zxid) in node.applied.iter().enumerate() {
                match self.committed.get(at) {
                    Some(known) => {
                        assert_eq!(known, zxid, "seed {}: node {id} at {at}", self.seed);
                    }
                    None => self.committed.push(*zxid),
                }
            }
        }
    }

    fn sync(&mut self, id: u64) {
        if self.nodes[&id].writes.is_empty() || self.burns_down(id) {
            return;
        }
        let node = self.at(id);
        if let Some(write) = node.writes.pop_front() {
            node.storage.write(&write).expect("a write fits on what is there");
            if let Some(state) = &write.install {
                let known = self.entries[..state.index.0 as usize].iter().map(|entry| entry.zxid);
                let known = known.collect();
                self.at(id).applied = known;
            }
            self.handle(id, Event::Persisted(write.id));
        }
    }

    fn write_something(&mut self, id: u64) {
        self.next_value += 1;
        let mut command = Command::set("k", self.next_value.to_string());
        if self.compacts {
            let key = format!("k{}", self.next_value % 13);
            command = Command::set(&key, self.next_value.to_string());
            if self.next_value.is_multiple_of(7) {
                command.op = Op::DELETE;
            }
        }
        match &mut self.at(id).engine {
            Engine::Down => {}
            Engine::Gometa(node) => drop(node.request(command)),
            Engine::Ours(zab) => drop(zab.propose(command)),
        }
        self.drive(id);
    }

    fn read_something(&mut self, id: u64) {
        let Engine::Ours(_) = self.nodes[&id].engine else { return };
        let ours = self.nodes.values().filter(|node| node.kind == Kind::Ours);
        let last = ours.filter_map(|node| node.applied.last().copied()).max();
        self.next_value += 1;
        let read = ReadId(self.next_value);
        self.asked.insert((id, read), last.unwrap_or(Zxid::ZERO));
        if let Engine::Ours(zab) = &mut self.at(id).engine {
            zab.read(read);
        }
        self.drive(id);
    }

    /// One that failed need not see anything.
    fn on_read(&mut self, id: u64, read: ReadId, answer: Result<Index, ReadFailure>) {
        let asked = self.asked.remove(&(id, read));
        if let (Ok(index), Some(asked)) = (answer, asked) {
            self.confirmed.push((id, index, asked));
        }
    }

    /// A read sees all that ours had applied when it was asked.
    fn serve_reads(&mut self) {
        for (id, index, asked) in std::mem::take(&mut self.confirmed) {
            let applied = &self.nodes[&id].applied;
            if applied.len() < index.0 as usize {
                self.confirmed.push((id, index, asked));
                continue;
            }
            let sees = applied[..index.0 as usize].last().copied().unwrap_or(Zxid::ZERO);
            assert!(asked <= sees, "seed {}: {id} reads {sees} after {asked}", self.seed);
            self.reads += 1;
        }
    }

    fn deliver_datagram(&mut self, is_lossy: bool) {
        if self.datagrams.is_empty() {
            return;
        }
        let at = self.dice.roll(self.datagrams.len() as u64) as usize;
        let (from, to, vote) = match is_lossy && self.dice.is_one_in(20) {
            true => self.datagrams[at].clone(),
            false => self.datagrams.swap_remove(at),
        };
        let is_lost = is_lossy && self.dice.is_one_in(20);
        let find =
            |address: &Address| self.ids().into_iter().find(|id| member(*id).election == *address);
        let (source, target) = (find(&from), find(&to));
        let is_cut = source.zip(target).is_some_and(|(one, other)| self.is_cut(one, other));
        if let Some(target) = target.filter(|_| !is_lost && !is_cut) {
            self.handle(target, Event::Datagram { from, vote });
        }
    }

    fn connect(&mut self) {
        let Some((from, to)) = self.connecting.pop() else { return };
        let target = self.ids().into_iter().find(|id| member(*id).message == to);
        let is_up = |id: &u64| !matches!(self.nodes[id].engine, Engine::Down);
        let is_cut = |id: &u64| self.is_cut(from, *id);
        let Some(target) = target.filter(|id| is_up(id) && !is_cut(id)) else {
            return self.handle(from, Event::ConnectFailed { to });
        };
        let number = self.next_link;
        self.next_link += 1;
        let (ends, queues) = ([from, target], [VecDeque::new(), VecDeque::new()]);
        self.links.insert(number, Link { ends, queues, is_open: [true; 2], is_ending: false });
        self.handle(target, Event::Accepted { conn: ConnId(2 * number + 1) });
        self.handle(from, Event::Connected { to, conn: ConnId(2 * number) });
    }

    fn deliver(&mut self) {
        let busy: Vec<(u64, usize)> = self
            .links
            .iter()
            .flat_map(|(number, link)| {
                let has_news = |end: &usize| {
                    link.is_open[1 - end] && (!link.queues[*end].is_empty() || link.is_ending)
                };
                (0..2).filter(has_news).map(|end| (*number, end)).collect::<Vec<_>>()
            })
            .collect();
        if busy.is_empty() {
            return;
        }
        let (number, end) = busy[self.dice.roll(busy.len() as u64) as usize];
        for _ in 0..=self.dice.roll(4) {
            let Some(link) = self.links.get_mut(&number) else { return };
            let (to, conn) = (link.ends[1 - end], ConnId(2 * number + 1 - end as u64));
            if !link.is_open[1 - end] {
                return;
            }
            if let Some(message) = link.queues[end].pop_front() {
                if self.nodes[&to].kind == Kind::Gometa && self.burns_down(to) {
                    return;
                }
                self.handle(to, Event::Received { conn, message });
            } else if link.is_ending {
                link.is_open[1 - end] = false;
                self.handle(to, Event::Closed { conn });
            }
            self.links.retain(|_, link| link.is_open != [false; 2]);
        }
    }

    /// So many steps, in which those in `mortal` crash, and the connections of those break.
    pub(crate) fn run(&mut self, steps: u64, mortal: &[u64]) {
        let count = self.nodes.len() as u64;
        let has_faults = !mortal.is_empty();
        for _ in 0..steps {
            let id = 1 + self.dice.roll(count);
            match self.dice.roll(100) {
                0..=19 => {
                    self.now_ms += self.dice.roll(12);
                    let now_ms = self.now_ms;
                    self.handle(id, Event::Tick { now_ms });
                }
                20..=34 => self.deliver_datagram(has_faults),
                35..=74 => self.deliver(),
                75..=79 => self.connect(),
                80..=93 => self.sync(id),
                97 if self.has_reads => self.read_something(id),
                94..=97 if self.has_writes => self.write_something(id),
                99 if self.compacts && has_faults => self.compact(id),
                98 if has_faults && self.dice.is_one_in(8) => {
                    let victim = mortal[self.dice.roll(mortal.len() as u64) as usize];
                    match self.dice.roll(3) {
                        0 => self.crash(victim),
                        _ => self.break_links(|ends| ends.contains(&victim)),
                    }
                }
                _ => self.start(id),
            }
        }
    }

    /// No more faults; and in the end no more writes, so that nothing is under way, on no disk either.
    /// Until all have applied the same, or it takes too long.
    pub(crate) fn heal(&mut self) {
        self.run(40_000, &[]);
        self.has_writes = false;
        for _ in 0..20 {
            self.run(4_000, &[]);
            for id in self.ids() {
                while !self.nodes[&id].writes.is_empty() {
                    self.sync(id);
                }
            }
            let mut up = self.nodes.iter().filter(|(id, _)| !self.gone.contains(id));
            let first = up.next().map(|(_, node)| &node.applied);
            if up.all(|(_, node)| Some(&node.applied) == first) {
                return;
            }
        }
    }

    /// One of ours that leads and has nothing under way, if there is one.
    fn settled_leader(&self) -> Option<u64> {
        let is_settled = |id: &u64| match &self.nodes[id].engine {
            Engine::Ours(zab) => {
                let status = zab.status();
                let leads = status.role == Role::Leading && status.is_serving;
                leads && status.commit == status.last && self.nodes[id].writes.is_empty()
            }
            Engine::Gometa(_) | Engine::Down => false,
        };
        self.ids().into_iter().find(is_settled)
    }

    /// Everybody is one of ours now, and starts from a copy of what this one has stored.
    fn start_all_from(&mut self, leader: u64) {
        let of = self.nodes[&leader].storage.clone();
        let (last, first) = (of.last_index().expect("it is there"), Index(1));
        let entries = of.entries(first, last.next(), u64::MAX).expect("nothing is compacted");
        let hard_state = Some(of.hard_state().expect("it is there"));
        let write = Write { replace_from: Some(first), entries, hard_state, ..Write::default() };
        for id in self.ids() {
            self.crash(id);
            let node = self.at(id);
            (node.kind, node.storage) = (Kind::Ours, MemoryStorage::new());
            node.storage.write(&write).expect("a write fits on nothing");
        }
        self.takes_gometa = false;
        self.committed.clear();
        self.gone.clear();
        self.ids().into_iter().for_each(|id| self.start(id));
    }

    pub(crate) fn applied(&self, id: u64) -> &[Zxid] {
        &self.nodes[&id].applied
    }
}

const SEEDS: Range<u64> = 0..25;

#[test]
fn gometa_watchers_of_ours_that_let_go_of_their_history_have_a_committed_state() {
    let (mut committed, mut states) = (0, 0);
    for seed in seeds(SEEDS) {
        let mut ensemble = Ensemble::idle(seed, &[Kind::Ours; 3], &[Kind::Gometa, Kind::Ours]);
        ensemble.compacts = true;
        for id in ensemble.ids() {
            ensemble.start(id);
        }
        for _ in 0..20 {
            ensemble.run(1_000, &[1, 2, 3, 4, 5]);
        }
        ensemble.run(40_000, &[]);
        ensemble.has_writes = false;
        let is_done = |ensemble: &mut Ensemble| {
            let all = ensemble.entries.len();
            let state = ensemble.state(all);
            let has_all = |id: &u64| ensemble.applied(*id).len() == all;
            [1, 2, 3, 5].iter().all(has_all) && ensemble.nodes[&4].store == state
        };
        for _ in 0..120 {
            // One that lacks what is gone has to be emptied; its leader says so, whoever that is by then.
            if std::mem::take(&mut ensemble.is_refused) {
                ensemble.crash(4);
                ensemble.start(4);
            }
            ensemble.run(1_000, &[]);
            if is_done(&mut ensemble) {
                break;
            }
        }
        let has = ensemble.nodes[&4].store.clone();
        assert!(is_done(&mut ensemble), "seed {seed}: {has:?}");
        committed += ensemble.entries.len();
        states += ensemble.states;
    }
    let count = (seeds(SEEDS).end - seeds(SEEDS).start) as usize;
    println!("{committed} entries, {states} states");
    assert!(count * 100 < committed && count < states, "{committed} {states}");
}

#[test]
fn gometa_watchers_of_ours_have_a_committed_prefix() {
    let (mut committed, mut lives) = (0, 0);
    for seed in seeds(SEEDS) {
        let mut ensemble = Ensemble::new(seed, &[Kind::Ours; 3], &[Kind::Gometa, Kind::Ours]);
        for _ in 0..20 {
            ensemble.run(1_000, &[1, 2, 3, 4, 5]);
            ensemble.watch_order(&[1, 2, 3, 4, 5]);
        }
        ensemble.heal();
        ensemble.watch_order(&[1, 2, 3, 4, 5]);
        for id in 1..=5 {
            let (has, all) = (ensemble.applied(id).len(), ensemble.committed.len());
            assert_eq!(has, all, "seed {seed}: node {id}");
        }
        committed += ensemble.committed.len();
        lives += ensemble.nodes[&4].lives;
    }
    let count = (seeds(SEEDS).end - seeds(SEEDS).start) as usize;
    assert!(count * 100 < committed && count as u64 * 2 < lives, "{committed} {lives}");
}

#[test]
fn our_watchers_of_gometa_have_what_its_leaders_committed() {
    let mut committed = 0;
    for seed in seeds(SEEDS) {
        // Three voters lose what they lose when a leader dies; here none does.
        let voters = if seed % 2 == 0 { 1 } else { 3 };
        let watcher = voters + 1;
        let kinds = vec![Kind::Gometa; voters as usize];
        let mut ensemble = Ensemble::new(seed, &kinds, &[Kind::Ours]);
        // Who joins gometa's voters while they write may be left with a hole.
        ensemble.has_writes = false;
        let mut leader = None;
        for _ in 0..200 {
            ensemble.run(4_000, &[]);
            let leads = |id: &u64| match &ensemble.nodes[id].engine {
                Engine::Gometa(node) => node.is_leading(),
                Engine::Ours(_) | Engine::Down => false,
            };
            leader = (1..=voters).find(leads);
            if leader.is_some() {
                break;
            }
        }
        ensemble.has_writes = true;
        let leader = leader.unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        for _ in 0..20 {
            ensemble.run(1_000, &[watcher]);
            ensemble.watch_order(&[leader, watcher]);
        }
        ensemble.heal();
        ensemble.watch_order(&[leader, watcher]);
        let (has, all) = (ensemble.applied(watcher).len(), ensemble.committed.len());
        assert_eq!(has, all, "seed {seed}");
        committed += all;
    }
    let count = (seeds(SEEDS).end - seeds(SEEDS).start) as usize;
    assert!(count * 100 < committed, "{committed}");
}

#[test]
fn among_voters_of_both_kinds_ours_keep_their_promises() {
    let (mut led, mut applied, mut reads) = (0, 0, 0);
    for seed in seeds(SEEDS) {
        let kinds = match seed % 3 {
            0 => [Kind::Ours, Kind::Ours, Kind::Gometa],
            1 => [Kind::Gometa, Kind::Ours, Kind::Ours],
            _ => [Kind::Gometa, Kind::Gometa, Kind::Ours],
        };
        let mut ensemble = Ensemble::new(seed, &kinds, &[]);
        ensemble.has_reads = true;
        ensemble.run(20_000, &[1, 2, 3]);
        ensemble.run(40_000, &[]);
        reads += ensemble.reads;
        led += ensemble.leaders.len();
        for node in ensemble.nodes.values().filter(|node| node.kind == Kind::Ours) {
            applied += node.applied.len();
        }
    }
    let count = (seeds(SEEDS).end - seeds(SEEDS).start) as usize;
    let figures = format!("{led} leaderships, {applied} applied, {reads} reads");
    println!("{figures}");
    assert!(count < led && count * 50 < applied && count * 10 < reads, "{figures}");
}

#[test]
fn once_gometas_voters_are_gone_all_start_from_what_one_leader_of_ours_has() {
    let (mut before, mut committed, mut diverged) = (0, 0, 0);
    for seed in seeds(SEEDS) {
        let mut ensemble = Ensemble::new(seed, &[Kind::Ours, Kind::Ours, Kind::Gometa], &[]);
        ensemble.run(20_000, &[1, 2, 3]);
        ensemble.crash(3);
        ensemble.gone.insert(3);
        ensemble.has_writes = false;
        let mut leader = None;
        for _ in 0..200 {
            ensemble.run(1_000, &[]);
            leader = ensemble.settled_leader();
            if leader.is_some() {
                break;
            }
        }
        let Some(leader) = leader else {
            // What a gometa leader lost one of ours has committed, and the other has not: they cannot go on
            // together, and somebody has to choose.
            assert!(ensemble.is_diverged, "seed {seed}: none of ours leads");
            diverged += 1;
            continue;
        };
        before += ensemble.applied(leader).len();
        ensemble.start_all_from(leader);
        // From here on all of it holds.
        ensemble.has_writes = true;
        for _ in 0..10 {
            ensemble.run(1_000, &[1, 2, 3]);
            ensemble.watch_order(&[1, 2, 3]);
        }
        ensemble.heal();
        ensemble.watch_order(&[1, 2, 3]);
        for id in 1..=3 {
            let (has, all) = (ensemble.applied(id).len(), ensemble.committed.len());
            assert_eq!(has, all, "seed {seed}: node {id}");
        }
        committed += ensemble.committed.len();
    }
    let count = (seeds(SEEDS).end - seeds(SEEDS).start) as usize;
    let figures = format!("{before} before, {committed} in the end, {diverged} diverged");
    println!("{figures}");
    assert!(count * 50 < before && before + count * 50 < committed, "{figures}");
    assert!(diverged * 20 < count, "{figures}");
}
