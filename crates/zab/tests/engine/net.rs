//! An ensemble in memory: nodes with disks that forget what is not synced, datagrams that may be
//! lost, and connections that keep the order and may break; and a watcher over all of it that knows
//! what ZAB promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use quorate_types::{Index, NodeId};
use quorate_zab::{
    Address, Command, Config, ConnId, Entry, Epoch, Event, Member, MemoryStorage, Message, Note,
    Outcome, ProposalId, ReadFailure, ReadId, Role, Status, Storage, Vote, Write, Zab, Zxid,
};

/// Numbers from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    pub(crate) fn is_one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// More seeds on request: `QUORATE_ZAB_SEEDS=1000..2000`.
#[allow(clippy::disallowed_methods, reason = "a test may be told how much to do")]
pub(crate) fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("QUORATE_ZAB_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("two numbers with two dots between them");
    from.parse().unwrap()..to.parse().unwrap()
}

pub(crate) fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        election: format!("10.0.0.{id}:5001").as_str().into(),
        message: format!("10.0.0.{id}:5002").as_str().into(),
    }
}

/// Nodes 1 to `size` vote; a higher id is a watcher.
pub(crate) fn config(id: u64, size: u64) -> Config {
    Config { seed: id, ..Config::new(member(id), (1..=size).map(member).collect()) }
}

pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) storage: MemoryStorage,
    pub(crate) zab: Option<Zab<MemoryStorage>>,
    /// Handed out and not synced; lost in a crash.
    pub(crate) writes: VecDeque<Write>,
    /// Handed out and not applied.
    applying: VecDeque<Entry>,
    /// What its machine holds: ids by index, from 1 on.
    pub(crate) applied: Vec<Zxid>,
    pub(crate) notes: Vec<Note>,
    pub(crate) answers: Vec<(ProposalId, Outcome)>,
    pub(crate) reads: Vec<(ReadId, Result<Index, ReadFailure>)>,
    pub(crate) custom: Vec<quorate_zab::CustomRequest>,
    /// Requests of this life without an outcome, and what they ask for.
    pub(crate) open: BTreeMap<ProposalId, Command>,
    lives: u64,
    /// Its disk takes and finishes everything at once.
    pub(crate) is_fast: bool,
}

/// A connection as its two ends see it: the maker's end is even, the other odd.
struct Link {
    ends: [u64; 2],
    queues: [VecDeque<Message>; 2],
    /// Whether an end is still open.
    is_open: [bool; 2],
    /// Whether the other end has closed, and the end will learn of it after what was sent.
    is_ending: bool,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) dice: Dice,
    pub(crate) now_ms: u64,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) datagrams: Vec<(Address, Address, Vote)>,
    connecting: Vec<(u64, Address)>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Who does nothing: no time passes, and nothing comes on connections, not even their end.
    pub(crate) stopped: BTreeSet<u64>,
    /// Nodes are told the time when they want to know, and when something happens.
    pub(crate) is_lazy: bool,
    /// No connection is made where one of the two ways is cut.
    pub(crate) is_connecting_both_ways: bool,
    pub(crate) ticks: u64,
    next_command: u64,
    next_read: u64,
    /// What each id stands for, and which one it follows.
    contents: BTreeMap<Zxid, (Command, Zxid, Index)>,
    /// What is committed: ids by index, from 1 on.
    pub(crate) committed: Vec<Zxid>,
    pub(crate) leaders: BTreeMap<Epoch, u64>,
    /// To whom a quorum has promised each epoch.
    promised_to: BTreeMap<Epoch, u64>,
    promises: BTreeMap<(u64, Epoch), Option<Address>>,
    /// What was committed when a read was asked.
    asked: BTreeMap<ReadId, usize>,
    /// What was refused: it must not happen.
    refused: Vec<Command>,
    pub(crate) committed_answers: usize,
    pub(crate) answered_reads: usize,
    /// Messages sent, by sender and receiver.
    pub(crate) trace: Vec<(u64, u64, Message)>,
    pub(crate) is_traced: bool,
}

impl World {
    pub(crate) fn new(seed: u64, configs: impl IntoIterator<Item = Config>) -> Self {
        let mut world = World {
            seed,
            dice: Dice::new(seed),
            now_ms: 1_000,
            nodes: BTreeMap::new(),
            datagrams: Vec::new(),
            connecting: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            cut: BTreeSet::new(),
            stopped: BTreeSet::new(),
            is_lazy: false,
            is_connecting_both_ways: false,
            ticks: 0,
            next_command: 0,
            next_read: 0,
            contents: BTreeMap::new(),
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            promised_to: BTreeMap::new(),
            promises: BTreeMap::new(),
            asked: BTreeMap::new(),
            refused: Vec::new(),
            committed_answers: 0,
            answered_reads: 0,
            trace: Vec::new(),
            is_traced: false,
        };
        for config in configs {
            let id = config.own.id.0;
            let node = Node {
                config,
                storage: MemoryStorage::new(),
                zab: None,
                writes: VecDeque::new(),
                applying: VecDeque::new(),
                applied: Vec::new(),
                notes: Vec::new(),
                answers: Vec::new(),
                reads: Vec::new(),
                custom: Vec::new(),
                open: BTreeMap::new(),
                lives: 0,
                is_fast: true,
            };
            world.nodes.insert(id, node);
        }
        world
    }

    /// An ensemble of `size`, and `watchers` that follow it, all running.
    pub(crate) fn ensemble(size: u64, watchers: u64) -> Self {
        let mut world = World::new(1, (1..=size + watchers).map(|id| config(id, size)));
        for id in 1..=size + watchers {
            world.start(id);
        }
        world
    }

    pub(crate) fn at(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub(crate) fn status(&self, id: u64) -> Status {
        self.nodes[&id].zab.as_ref().expect("a node that runs").status()
    }

    pub(crate) fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].zab.is_some()
    }

    /// The established leader of the highest epoch.
    pub(crate) fn leader(&self) -> Option<u64> {
        let up = self.nodes.iter().filter(|(_, node)| node.zab.is_some());
        let leading = up.map(|(id, _)| (self.status(*id), *id));
        let serving =
            leading.filter(|(status, _)| status.role == Role::Leading && status.is_serving);
        serving.max_by_key(|(status, _)| status.epoch).map(|(_, id)| id)
    }

    pub(crate) fn start(&mut self, id: u64) {
        let now_ms = self.now_ms;
        let node = self.at(id);
        if node.zab.is_some() {
            return;
        }
        node.lives += 1;
        let snapshot = node.storage.snapshot().unwrap();
        node.applied.truncate(snapshot.index.0 as usize);
        let config = Config {
            seed: node.config.seed.wrapping_add(node.lives << 32),
            applied: snapshot.index,
            ..node.config.clone()
        };
        let zab = Zab::new(config, node.storage.clone(), now_ms);
        node.zab = Some(zab.unwrap_or_else(|error| panic!("node {id}: {error}")));
    }

    /// Ends a node. What it had not synced is gone; its connections break.
    pub(crate) fn crash(&mut self, id: u64) {
        let node = self.at(id);
        node.zab = None;
        node.writes.clear();
        node.applying.clear();
        node.open.clear();
        self.break_links(|link| link.ends.contains(&id));
        self.connecting.retain(|(from, _)| *from != id);
    }

    fn break_links(&mut self, of: impl Fn(&Link) -> bool) {
        for link in self.links.values_mut().filter(|link| of(link)) {
            link.is_ending = true;
            for queue in &mut link.queues {
                queue.clear();
            }
        }
    }

    /// Breaks a connection between two nodes, with whatever is on it.
    pub(crate) fn disconnect(&mut self, one: u64, other: u64) {
        self.break_links(|link| link.ends.contains(&one) && link.ends.contains(&other));
    }

    /// No more messages between those in `some` and the others.
    pub(crate) fn partition(&mut self, some: &[u64]) {
        self.cut.clear();
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for one in &ids {
            for other in &ids {
                if some.contains(one) != some.contains(other) {
                    self.cut.insert((*one, *other));
                }
            }
        }
    }

    pub(crate) fn handle(&mut self, id: u64, event: Event) {
        let (seed, now_ms, is_lazy) = (self.seed, self.now_ms, self.is_lazy);
        if let Some(zab) = &mut self.at(id).zab {
            let is_tick = matches!(event, Event::Tick { .. });
            if is_lazy && !is_tick {
                zab.handle(Event::Tick { now_ms }).expect("it goes on");
            }
            let is_idle = is_tick && now_ms < zab.wake_ms() && !zab.has_ready();
            zab.handle(event).unwrap_or_else(|error| panic!("seed {seed}: node {id}: {error}"));
            assert!(!is_idle || !zab.has_ready(), "seed {seed}: node {id} was not to wake yet");
        }
        self.drive(id);
    }

    /// Carries out what a node asks for.
    pub(crate) fn drive(&mut self, id: u64) {
        let seed = self.seed;
        while let Some(zab) = &mut self.at(id).zab
            && zab.has_ready()
        {
            let ready = zab.ready().unwrap_or_else(|error| panic!("seed {seed}: {id}: {error}"));
            zab.check();
            let own = member(id).election;
            for (to, vote) in ready.datagrams {
                if self.datagrams.len() < 400 {
                    self.datagrams.push((own.clone(), to, vote));
                }
            }
            self.connecting.extend(ready.connect.into_iter().map(|to| (id, to)));
            for (conn, message) in ready.messages {
                self.put(id, conn, message);
            }
            for conn in ready.close {
                self.close_end(conn);
            }
            for note in &ready.notes {
                if let Note::EpochPromised { epoch } = note {
                    let known = *self.promised_to.entry(*epoch).or_insert(id);
                    assert_eq!(known, id, "seed {seed}: epoch {epoch} is promised to two leaders");
                }
            }
            let node = self.nodes.get_mut(&id).unwrap();
            node.writes.extend(ready.write);
            node.applying.extend(ready.committed);
            node.custom.extend(ready.custom);
            node.notes.extend(ready.notes);
            for (proposal, outcome) in ready.answers {
                self.on_answer(id, proposal, outcome);
            }
            for (read, answer) in ready.reads {
                self.on_read_answer(id, read, answer);
            }
            self.watch(id);
            if self.nodes[&id].is_fast {
                while self.sync_one(id) || self.apply_one(id) {}
            }
        }
    }

    fn put(&mut self, id: u64, conn: ConnId, message: Message) {
        let end = (conn.0 % 2) as usize;
        let Some(link) = self.links.get_mut(&(conn.0 / 2)) else { return };
        assert_eq!(link.ends[end], id, "a node writes to its own end");
        if self.is_traced {
            self.trace.push((id, link.ends[1 - end], message.clone()));
        }
        if !link.is_ending {
            link.queues[end].push_back(message);
        }
        if let Some(zab) = &mut self.at(id).zab {
            zab.handle(Event::Written { conn, count: 1 }).unwrap();
        }
    }

    fn close_end(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&(conn.0 / 2)) {
            link.is_open[(conn.0 % 2) as usize] = false;
            link.is_ending = true;
        }
    }

    /// Syncs the oldest write of a node.
    pub(crate) fn sync_one(&mut self, id: u64) -> bool {
        let Some(write) = self.at(id).writes.pop_front() else { return false };
        self.watch_write(id, &write);
        let node = self.at(id);
        node.storage.write(&write).unwrap();
        if let Some(snapshot) = &write.install {
            let (index, zxid) = (snapshot.index.0 as usize, snapshot.zxid);
            assert_eq!(self.committed.get(index - 1), Some(&zxid), "a state that never was");
            let state = self.committed[..index].to_vec();
            let node = self.at(id);
            node.applying.clear();
            node.applied = state;
        }
        self.handle_quietly(id, Event::Persisted(write.id));
        true
    }

    /// Applies the next entry of a node.
    pub(crate) fn apply_one(&mut self, id: u64) -> bool {
        let seed = self.seed;
        let node = self.at(id);
        let Some(entry) = node.applying.pop_front() else { return false };
        let at = node.applied.len() as u64 + 1;
        assert_eq!(entry.index.0, at, "seed {seed}: node {id} skips or repeats");
        node.applied.push(entry.zxid);
        let known = self.committed.get(at as usize - 1);
        assert_eq!(known, Some(&entry.zxid), "seed {seed}: node {id} applies at {at}");
        self.handle_quietly(id, Event::Applied(Index(at)));
        true
    }

    fn handle_quietly(&mut self, id: u64, event: Event) {
        if let Some(zab) = &mut self.at(id).zab {
            zab.handle(event).unwrap();
        }
        self.watch(id);
    }

    // The network.

    fn by_election(&self, address: &Address) -> Option<u64> {
        self.nodes.keys().copied().find(|id| member(*id).election == *address)
    }

    pub(crate) fn deliver_datagram(&mut self, at: usize, is_lost: bool, is_doubled: bool) {
        let (from, to, vote) = match is_doubled {
            true => self.datagrams[at].clone(),
            false => self.datagrams.swap_remove(at),
        };
        let (Some(one), Some(other)) = (self.by_election(&from), self.by_election(&to)) else {
            return;
        };
        if !is_lost && !self.cut.contains(&(one, other)) && self.is_up(other) {
            self.handle(other, Event::Datagram { from, vote });
        }
    }

    /// Somebody who can write down any address sends a node that looks for a leader votes of all others.
    pub(crate) fn mislead(&mut self, id: u64, candidate: u64) {
        if !self.is_up(id) || self.status(id).role != Role::Looking {
            return;
        }
        let vote = Vote {
            round: self.status(id).round + 1,
            candidate: member(candidate).election,
            // Greater than whatever it would say for itself.
            epoch: Epoch(1_000_000),
            ..Vote::default()
        };
        let others = self.nodes[&id].config.members.iter().filter(|member| member.id.0 != id);
        let others: Vec<Address> = others.map(|member| member.election.clone()).collect();
        for from in others {
            self.handle(id, Event::Datagram { from, vote: vote.clone() });
        }
    }

    /// Makes a connection that was asked for, or fails to.
    pub(crate) fn connect_one(&mut self, at: usize) {
        let (from, to) = self.connecting.swap_remove(at);
        let target = self.nodes.keys().copied().find(|id| member(*id).message == to);
        let needs_back = self.is_connecting_both_ways;
        let target = target.filter(|id| {
            let is_cut = self.cut.contains(&(from, *id));
            self.is_up(*id) && !is_cut && !(needs_back && self.cut.contains(&(*id, from)))
        });
        let Some(target) = target else {
            self.handle(from, Event::ConnectFailed { to });
            return;
        };
        let link = self.next_link;
        self.next_link += 1;
        let ends = [from, target];
        let queues = [VecDeque::new(), VecDeque::new()];
        self.links.insert(link, Link { ends, queues, is_open: [true; 2], is_ending: false });
        self.handle(target, Event::Accepted { conn: ConnId(2 * link + 1) });
        self.handle(from, Event::Connected { to, conn: ConnId(2 * link) });
    }

    pub(crate) fn connecting(&self) -> usize {
        self.connecting.len()
    }

    /// The links on which something can happen.
    pub(crate) fn busy_links(&self) -> Vec<(u64, usize)> {
        let mut busy = Vec::new();
        for (id, link) in &self.links {
            for end in 0..2 {
                let is_cut = self.cut.contains(&(link.ends[end], link.ends[1 - end]));
                let is_stopped = self.stopped.contains(&link.ends[1 - end]);
                let is_heard = link.is_open[1 - end] && !is_stopped;
                let has_news = is_heard && (!link.queues[end].is_empty() || link.is_ending);
                if has_news && (!is_cut || link.is_ending) {
                    busy.push((*id, end));
                }
            }
        }
        busy
    }

    /// The next thing from one end of a link reaches the other.
    pub(crate) fn deliver_on(&mut self, id: u64, end: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (to, conn) = (link.ends[1 - end], ConnId(2 * id + 1 - end as u64));
        if let Some(message) = link.queues[end].pop_front() {
            if link.is_open[1 - end] {
                self.handle(to, Event::Received { conn, message });
            }
        } else if link.is_ending {
            if std::mem::replace(&mut link.is_open[1 - end], false) {
                self.handle(to, Event::Closed { conn });
            }
            self.links.retain(|_, link| link.is_open != [false; 2]);
        }
    }

    /// Delivers everything, in order, until nothing is left to deliver.
    pub(crate) fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            if !self.datagrams.is_empty() {
                let (from, to, vote) = self.datagrams.remove(0);
                self.datagrams.insert(0, (from, to, vote));
                self.deliver_first_datagram();
            } else if !self.connecting.is_empty() {
                self.connect_one(0);
            } else if let Some((link, end)) = self.busy_links().first().copied() {
                self.deliver_on(link, end);
            } else {
                return;
            }
        }
        panic!("seed {}: it never comes to rest\n{}", self.seed, self.describe());
    }

    /// Delivers everything, until nothing is left to deliver, in an order that only connections keep.
    pub(crate) fn deliver_in_any_order(&mut self) {
        loop {
            let busy = self.busy_links();
            let (votes, connects) = (self.datagrams.len(), self.connecting.len());
            let count = votes + connects + busy.len();
            if count == 0 {
                return;
            }
            let at = self.dice.roll(count as u64) as usize;
            if at < votes {
                self.deliver_datagram(at, false, false);
            } else if at < votes + connects {
                self.connect_one(at - votes);
            } else {
                let (link, end) = busy[at - votes - connects];
                self.deliver_on(link, end);
            }
        }
    }

    fn deliver_first_datagram(&mut self) {
        let (from, to, vote) = self.datagrams.remove(0);
        let (Some(one), Some(other)) = (self.by_election(&from), self.by_election(&to)) else {
            return;
        };
        if !self.cut.contains(&(one, other)) && self.is_up(other) {
            self.handle(other, Event::Datagram { from, vote });
        }
    }

    /// Lets time pass, with everything delivered at once.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += 10;
            let running = self.nodes.keys().filter(|id| !self.stopped.contains(id));
            for id in running.copied().collect::<Vec<_>>() {
                let now_ms = self.now_ms;
                let wake_ms = self.nodes[&id].zab.as_ref().map_or(0, Zab::wake_ms);
                if self.is_lazy && now_ms < wake_ms {
                    continue;
                }
                self.ticks += 1;
                self.handle(id, Event::Tick { now_ms });
            }
            self.deliver_all();
        }
    }

    /// Until somebody leads; says who.
    pub(crate) fn run_until_led(&mut self) -> u64 {
        for _ in 0..500 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.run_ms(10);
        }
        panic!("seed {}: nobody leads", self.seed);
    }

    // Clients.

    pub(crate) fn propose(&mut self, id: u64) -> Option<ProposalId> {
        self.next_command += 1;
        let command = Command::set("k", self.next_command.to_be_bytes().to_vec());
        self.propose_command(id, command)
    }

    pub(crate) fn propose_command(&mut self, id: u64, command: Command) -> Option<ProposalId> {
        let zab = self.at(id).zab.as_mut()?;
        match zab.propose(command.clone()) {
            Ok(proposal) => {
                let node = self.at(id);
                assert!(node.open.insert(proposal, command).is_none(), "an id twice");
                self.drive(id);
                Some(proposal)
            }
            Err(_) => {
                self.refused.push(command);
                None
            }
        }
    }

    pub(crate) fn read(&mut self, id: u64) -> ReadId {
        self.next_read += 1;
        let read = ReadId(self.next_read);
        self.asked.insert(read, self.committed.len());
        if let Some(zab) = self.at(id).zab.as_mut() {
            zab.read(read);
        }
        self.drive(id);
        read
    }

    fn on_answer(&mut self, id: u64, proposal: ProposalId, outcome: Outcome) {
        let seed = self.seed;
        let node = self.at(id);
        let command = node.open.remove(&proposal);
        let command =
            command.unwrap_or_else(|| panic!("seed {seed}: node {id}: {proposal:?} twice"));
        node.answers.push((proposal, outcome.clone()));
        match outcome {
            Outcome::Committed { index, zxid } => {
                let applied = node.applied.get(index.0 as usize - 1).copied();
                assert_eq!(applied, Some(zxid), "seed {seed}: answered before it was applied");
                assert_eq!(self.contents[&zxid].0, command, "seed {seed}: another one's answer");
                self.committed_answers += 1;
            }
            Outcome::Refused { .. } => self.refused.push(command),
            Outcome::Answered { .. } | Outcome::Unknown => {}
        }
    }

    fn on_read_answer(&mut self, id: u64, read: ReadId, answer: Result<Index, ReadFailure>) {
        let asked = self.asked.remove(&read).expect("a read is answered once");
        if let Ok(index) = answer {
            let seed = self.seed;
            assert!(asked as u64 <= index.0, "seed {seed}: read at {index}, committed {asked}");
            self.answered_reads += 1;
        }
        self.at(id).reads.push((read, answer));
    }

    // The watcher.

    /// Everything that reaches a disk: contents, order and promises.
    fn watch_write(&mut self, id: u64, write: &Write) {
        let seed = self.seed;
        let config = &self.nodes[&id].config;
        let is_informed = config.commit_only && !config.is_voter();
        let storage = self.nodes[&id].storage.clone();
        if let Some(from) = write.replace_from {
            let mut before = match &write.install {
                Some(snapshot) if snapshot.index.next() == from => snapshot.zxid,
                _ => storage.zxid(from.prev()).unwrap(),
            };
            for entry in &write.entries {
                let what = (entry.command.clone(), before, entry.index);
                assert!(entry.zxid.follows(before), "seed {seed}: {} after {before}", entry.zxid);
                let known = self.contents.entry(entry.zxid).or_insert_with(|| what.clone());
                assert_eq!(
                    *known, what,
                    "seed {seed}: node {id}: two histories with {}",
                    entry.zxid
                );
                before = entry.zxid;
                let at = entry.index.0 as usize - 1;
                let is_committed = self.committed.get(at) == Some(&entry.zxid);
                assert!(is_committed || !is_informed, "seed {seed}: {id} has {}", entry.zxid);
            }
        }
        // What is committed is never removed, not even for a moment.
        let installed = write.install.as_ref().map(|snapshot| snapshot.index.next());
        let changed_from = installed.into_iter().chain(write.replace_from).min();
        let last = storage.last_index().unwrap();
        let mut at = changed_from.unwrap_or(last.next()).max(storage.first_index().unwrap());
        while at <= last {
            let old = storage.zxid(at).unwrap();
            let written = write.entries.iter().find(|entry| entry.index == at);
            let stays = written.is_some_and(|entry| entry.zxid == old);
            let is_committed = self.committed.get(at.0 as usize - 1) == Some(&old);
            assert!(!is_committed || stays, "seed {seed}: node {id} forgets {old}");
            at = at.next();
        }
        if let Some(next) = &write.hard_state {
            let now = storage.hard_state().unwrap();
            assert!(now.accepted_epoch <= next.accepted_epoch, "seed {seed}: node {id}");
            assert!(now.current_epoch <= next.current_epoch, "seed {seed}: node {id}");
            assert!(now.committed <= next.committed, "seed {seed}: node {id}");
            assert!(next.current_epoch <= next.accepted_epoch, "seed {seed}: node {id}");
            if self.nodes[&id].config.is_voter() {
                let leader = next.accepted_leader.clone();
                let promised = self.promises.entry((id, next.accepted_epoch));
                let promised = promised.or_insert_with(|| leader.clone());
                assert_eq!(*promised, leader, "seed {seed}: node {id} promises twice");
            }
        }
    }

    /// Everything that a node claims.
    pub(crate) fn watch(&mut self, id: u64) {
        let seed = self.seed;
        let Some(zab) = &self.nodes[&id].zab else { return };
        zab.check();
        let status = zab.status();
        let claimed = status.commit.0 as usize;
        // One order for all.
        if 0 < claimed && claimed <= self.committed.len() {
            let zxid = zab.zxid(status.commit).unwrap();
            let known = self.committed[claimed - 1];
            assert_eq!(known, zxid, "seed {seed}: node {id} commits another at {claimed}");
        }
        if self.committed.len() < claimed {
            let new: Vec<Zxid> = (self.committed.len() + 1..=claimed)
                .map(|at| zab.zxid(Index(at as u64)).unwrap())
                .collect();
            let zxid = *new.last().unwrap();
            // A leader, or one that has given up its office in the same step.
            let is_leader = matches!(status.role, Role::Leading | Role::Looking);
            assert!(is_leader, "seed {seed}: node {id} commits by itself");
            // A quorum holds it, durably, at this moment.
            let voters = self.nodes.values().filter(|node| node.config.is_voter());
            let held = voters.clone().filter(|node| {
                let at = Index(claimed as u64);
                node.storage.zxid(at) == Ok(zxid) || at < node.storage.first_index().unwrap()
            });
            assert!(
                voters.clone().count() / 2 < held.count(),
                "seed {seed}: {zxid} is committed by {id} without a quorum"
            );
            self.committed.extend(new);
        }
        if status.role == Role::Leading && status.is_serving {
            let epoch = status.epoch.unwrap();
            let zab = self.nodes[&id].zab.as_ref().unwrap();
            if let Some(known) = self.leaders.insert(epoch, id) {
                assert_eq!(known, id, "seed {seed}: two leaders of epoch {epoch}");
            } else {
                // A new leader has all that was ever committed, and committed it itself.
                let initial = status.initial.unwrap().0 as usize;
                let epochs = self.committed.iter().filter(|zxid| zxid.epoch() < epoch).count();
                assert!(epochs <= initial, "seed {seed}: leader {id} lacks what is committed");
                let last = zab.zxid(Index(epochs as u64)).unwrap_or_default();
                let want = epochs.checked_sub(1).map_or(Zxid::ZERO, |at| self.committed[at]);
                assert_eq!(last, want, "seed {seed}: leader {id} has another history");
                assert!(initial as u64 <= status.commit.0, "seed {seed}: leader {id}");
            }
        }
    }

    /// What holds of the whole run.
    pub(crate) fn watch_all(&self) {
        let seed = self.seed;
        let committed: Vec<&Command> =
            self.committed.iter().map(|zxid| &self.contents[zxid].0).collect();
        for refused in &self.refused {
            assert!(!committed.contains(&refused), "seed {seed}: {refused:?} was refused");
        }
        assert!(self.committed.is_sorted_by(|one, next| one < next), "seed {seed}: order");
    }

    /// What everybody is and has noted lately.
    pub(crate) fn describe(&self) -> String {
        let up = self.nodes.iter().filter(|(_, node)| node.zab.is_some());
        let lines = up.map(|(id, node)| {
            let notes = &node.notes[node.notes.len().saturating_sub(12)..];
            format!("{id}: {:?}\n   {notes:?}", self.status(*id))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Whether everybody who runs holds and has applied the same.
    pub(crate) fn has_converged(&self) -> bool {
        let up = self.nodes.iter().filter(|(_, node)| node.zab.is_some());
        self.leader().is_some()
            && up.clone().all(|(id, node)| {
                let status = self.status(*id);
                status.is_serving
                    && node.applied == self.committed
                    && status.last.0 as usize == self.committed.len()
                    && node.open.is_empty()
            })
    }
}
