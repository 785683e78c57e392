//! Replicas in a small world made of one thread and one seed: messages are lost, delayed and
//! reordered, disks forget what was not synced, nodes crash at any step. After every step the
//! promises are checked; at the end the world heals and everything must go on. All of it holds
//! whichever engine the replicas run.
//!
//! `QUORATE_SEEDS=first..last` runs other seeds than the usual ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{BufMut, BytesMut};
use quorate_raft::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType,
    ConfChangeV2, ConfState, Entry, Role, Snapshot, SnapshotMetadata,
};
use quorate_replica::{
    Applying, Config, Content, Effects, Engine, Event, FIRST, FeedError, HardState, Initial,
    Message, Place, ReadId, Refusal, Replica, RequestId, Write, first_log, open, seal,
};
use quorate_types::{Index, Mark, NodeId, Term};

/// A small generator of chance (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What a machine holds: every request it applied, in order, and how far it has come.
#[derive(Clone, Default, Debug, PartialEq)]
struct Machine {
    applied: Index,
    term: Term,
    conf_state: ConfState,
    requests: Vec<RequestId>,
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    mark: Mark,
    entries: Vec<Entry>,
    hard_state: HardState,
    machine: Machine,
}

impl Disk {
    fn write(&mut self, write: &Write) {
        if let Some(mark) = &write.mark {
            let connects = self.stamp(mark.index) == Some(mark.stamp);
            self.entries.retain(|entry| connects && mark.index < entry.index);
            self.mark = mark.clone();
        }
        if let Some(from) = write.cut_from {
            self.entries.retain(|entry| entry.index < from);
        }
        for entry in &write.entries {
            if entry.index <= self.mark.index {
                continue;
            }
            self.entries.truncate((entry.index - self.mark.index) as usize - 1);
            self.entries.push(entry.clone());
        }
        if let Some(hard_state) = &write.hard_state {
            self.hard_state = hard_state.clone();
        }
    }

    fn compact(&mut self, mark: &Mark) {
        if mark.index <= self.mark.index {
            return; // a snapshot was installed meanwhile
        }
        self.entries.retain(|entry| mark.index < entry.index);
        self.mark = mark.clone();
    }

    fn stamp(&self, index: Index) -> Option<u64> {
        if index == self.mark.index {
            return Some(self.mark.stamp);
        }
        self.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term.0)
    }
}

enum DiskWork {
    Write(Box<Write>),
    Compact(Mark),
}

struct Node {
    id: NodeId,
    replica: Option<Replica>,
    disk: Disk,
    /// What a crash may leave of it: writes that need not be durable came after this.
    synced: Option<Disk>,
    machine: Machine,
    writes: VecDeque<DiskWork>,
    applies: VecDeque<Applying>,
    flushing: Option<Machine>,
    kept: Option<Machine>,
    /// The one snapshot that was received whole and is not installed yet.
    received: Option<Machine>,
    /// Its mark is in the log; the machine takes it in next.
    installing: Option<Write>,
}

struct World {
    engine: Engine,
    seed: u64,
    chance: Chance,
    nodes: Vec<Node>,
    /// With the machine's state, when the message is a snapshot.
    network: Vec<(Message, Option<Machine>)>,
    next_request: u64,
    next_read: u64,
    /// Which log entry was committed where; all nodes must agree.
    committed: BTreeMap<Index, (Term, Option<RequestId>)>,
    /// Requests that a node's machine applied while it waited for them.
    acknowledged: BTreeSet<RequestId>,
    refused: BTreeSet<RequestId>,
    /// Reads: how many acknowledged requests each must see.
    reads: BTreeMap<ReadId, (usize, BTreeSet<RequestId>)>,
    reads_answered: usize,
    snapshots_installed: usize,
    /// Crashes between the mark in the log and the state it stands for.
    halfway: usize,
    changes: usize,
    restarts: usize,
    healed: bool,
    follower: Follower,
}

/// Somebody who follows what is applied, now at one node, now at another.
#[derive(Default)]
struct Follower {
    place: Place,
    looks: usize,
    told: usize,
    passed_by: usize,
}

fn config(engine: Engine, id: NodeId, seed: u64) -> Config {
    Config {
        engine,
        election_ticks: 10,
        flush_entries: 8,
        tail_entries: 2,
        message_bytes_max: 200,
        inflight_bytes_max: 1000,
        inflight_count_max: 4,
        applying_bytes_max: 200,
        uncommitted_bytes_max: 2000,
        parked_count_max: 5,
        ..Config::new(id, seed)
    }
}

impl World {
    fn new(engine: Engine, seed: u64, size: u64) -> World {
        let voters: Vec<_> = (1..=size).map(NodeId).collect();
        let conf_state = ConfState { voters: voters.clone(), ..ConfState::default() };
        let (applied, term) = FIRST;
        let machine = Machine { applied, term, conf_state, requests: Vec::new() };
        let (mark, hard_state) = first_log(engine);
        let disk = Disk {
            mark,
            hard_state: HardState::decode(hard_state).unwrap(),
            machine: machine.clone(),
            entries: Vec::new(),
        };
        let nodes = voters
            .into_iter()
            .map(|id| Node {
                id,
                replica: None,
                disk: disk.clone(),
                synced: None,
                machine: machine.clone(),
                writes: VecDeque::new(),
                applies: VecDeque::new(),
                flushing: None,
                kept: None,
                received: None,
                installing: None,
            })
            .collect();
        let mut world = World {
            engine,
            seed,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            nodes,
            network: Vec::new(),
            next_request: 0,
            next_read: 0,
            committed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            refused: BTreeSet::new(),
            reads: BTreeMap::new(),
            reads_answered: 0,
            snapshots_installed: 0,
            halfway: 0,
            changes: 0,
            restarts: 0,
            healed: false,
            follower: Follower::default(),
        };
        for at in 0..world.nodes.len() {
            world.restart(at);
        }
        world
    }

    /// Starts from what the disk holds. A received snapshot that the log names is installed first.
    fn restart(&mut self, at: usize) {
        let seed = self.chance.below(1 << 30) as u64;
        let node = &mut self.nodes[at];
        let disk = &mut node.disk;
        if disk.machine.applied < disk.mark.index {
            let whole = node.received.iter().find(|machine| machine.applied == disk.mark.index);
            disk.machine = whole.expect("a mark in the log rests on a durable file").clone();
            self.halfway += 1;
        }
        node.received = None;
        node.machine = disk.machine.clone();
        let initial = Initial {
            mark: disk.mark.clone(),
            entries: disk.entries.clone(),
            hard_state: disk.hard_state.clone(),
            applied: disk.machine.applied,
            conf_state: disk.machine.conf_state.clone(),
        };
        node.replica = Some(Replica::new(config(self.engine, node.id, seed), initial).unwrap());
        self.drain(at);
    }

    fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.replica = None;
        // Unsynced writes reach the disk up to some point, in order, or not at all.
        let mut kept = self.chance.below(node.writes.len() + 1);
        if let Some(synced) = node.synced.take()
            && self.chance.one_in(2)
        {
            let machine = std::mem::take(&mut node.disk.machine);
            node.disk = Disk { machine, ..synced };
            kept = 0;
        }
        for work in node.writes.drain(..).take(kept) {
            match work {
                DiskWork::Write(write) => {
                    let stop = write.install.is_some();
                    node.disk.write(&write);
                    if stop {
                        break;
                    }
                }
                DiskWork::Compact(mark) => node.disk.compact(&mark),
            }
        }
        node.applies.clear();
        node.flushing = None;
        node.kept = None;
        // The new state may have its name already; the file it came from is still there.
        if let Some(write) = node.installing.take()
            && self.chance.one_in(2)
        {
            let received = node.received.clone().expect("installed from a durable file");
            assert_eq!(Some(received.applied), write.install.map(|it| it.metadata.index));
            node.disk.machine = received;
        }
        self.reads.retain(|_, (asked, _)| *asked != at);
    }

    fn handle(&mut self, at: usize, event: Event) {
        let Some(replica) = &mut self.nodes[at].replica else { return };
        replica.handle(event).unwrap();
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        while let Some(effects) = self.nodes[at].replica.as_mut().unwrap().ready().unwrap() {
            self.carry_out(at, effects);
        }
        self.nodes[at].replica.as_ref().unwrap().check();
    }

    fn carry_out(&mut self, at: usize, effects: Effects) {
        let node = &mut self.nodes[at];
        self.network.extend(effects.messages.into_iter().map(|message| (message, None)));
        let mut failed = Vec::new();
        for message in effects.snapshots {
            let wanted = message.snapshot().map(|metadata| metadata.index);
            // One that was made since is another state.
            match &node.kept {
                Some(machine) if wanted == Some(machine.applied) => {
                    self.network.push((message, Some(machine.clone())));
                }
                _ => failed.push(message),
            }
        }
        node.writes
            .extend(effects.writes.into_iter().map(|write| DiskWork::Write(Box::new(write))));
        match effects.compact {
            // Its place is durable by now, so it need not wait for what is not.
            Some(mark) if self.chance.one_in(2) => {
                node.disk.compact(&mark);
                node.synced = None;
            }
            compact => node.writes.extend(compact.map(DiskWork::Compact)),
        }
        node.applies.extend(effects.apply);
        if effects.flush {
            node.flushing = Some(node.machine.clone());
        }
        if effects.drop_snapshot {
            node.kept = None;
        }
        for (request, why) in effects.refused {
            assert!(why != Refusal::Unsupported || self.engine == Engine::Zab, "Raft can do all");
            assert!(self.refused.insert(request), "refused twice");
            assert!(!self.acknowledged.contains(&request), "refused after it was applied");
        }
        let requests: BTreeSet<_> = match effects.reads.is_empty() {
            true => BTreeSet::new(),
            false => node.machine.requests.iter().copied().collect(),
        };
        for (read, outcome) in effects.reads {
            let Some((asked, must_see)) = self.reads.remove(&read) else { panic!("whose read?") };
            assert_eq!(asked, at);
            if outcome.is_ok() {
                self.reads_answered += 1;
                let missing = must_see.difference(&requests).next();
                assert_eq!(missing, None, "seed {}: a stale read", self.seed);
            }
        }
        let made = effects.make_snapshot.then(|| node.machine.clone());
        if let Some(machine) = made {
            let metadata = SnapshotMetadata {
                conf_state: machine.conf_state.clone(),
                index: machine.applied,
                term: machine.term,
            };
            node.kept = Some(machine);
            let snapshot = Snapshot { metadata, ..Snapshot::default() };
            node.replica.as_mut().unwrap().handle(Event::SnapshotMade(snapshot)).unwrap();
        }
        for message in failed {
            let event = Event::SnapshotSent { message, ok: false };
            self.nodes[at].replica.as_mut().unwrap().handle(event).unwrap();
        }
    }

    /// The disk finishes its oldest work.
    fn persist(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.installing.is_some() {
            return self.install(at);
        }
        match node.writes.pop_front() {
            None => {}
            Some(DiskWork::Compact(mark)) => {
                node.disk.compact(&mark);
                node.synced = None;
            }
            Some(DiskWork::Write(write)) => {
                let syncs = write.must_sync || write.install.is_some();
                node.synced = match node.synced.take() {
                    _ if syncs => None,
                    None => Some(node.disk.clone()),
                    earlier => earlier,
                };
                node.disk.write(&write);
                if write.install.is_some() {
                    node.installing = Some(*write);
                    if !self.healed && self.chance.one_in(2) {
                        self.crash(at);
                    }
                } else {
                    self.handle(at, Event::Persisted(write.id));
                }
            }
        }
    }

    /// The machine takes in the snapshot whose mark is in the log, after all that was handed to it
    /// before.
    fn install(&mut self, at: usize) {
        while !self.nodes[at].applies.is_empty() {
            self.apply(at);
        }
        let node = &mut self.nodes[at];
        let Some(write) = node.installing.take() else { return };
        let machine = node.received.take().expect("the file stays until it is installed");
        assert_eq!(Some(machine.applied), write.install.map(|it| it.metadata.index));
        node.machine = machine.clone();
        node.disk.machine = machine;
        self.snapshots_installed += 1;
        // A flush of the new state may be reported before the installation.
        if self.chance.one_in(4) {
            let index = self.nodes[at].machine.applied;
            self.handle(at, Event::Flushed(index));
        }
        self.handle(at, Event::Persisted(write.id));
    }

    /// The machine applies its oldest entry.
    fn apply(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(applying) = node.applies.pop_front() else { return };
        let (index, term, request) = match applying {
            Applying::Command { index, term, entry } => (index, term, Some(open(entry).unwrap().0)),
            Applying::Empty { index, term } => (index, term, None),
            Applying::Membership { index, term, conf_state, .. } => {
                node.machine.conf_state = conf_state;
                self.changes += 1;
                (index, term, None)
            }
        };
        assert_eq!(index, node.machine.applied.next(), "each entry once, in order");
        node.machine.applied = index;
        node.machine.term = term;
        let known = self.committed.entry(index).or_insert((term, request));
        assert_eq!(*known, (term, request), "seed {}: two entries at {index}", self.seed);
        if let Some(request) = request {
            assert!(!node.machine.requests.contains(&request), "applied twice");
            node.machine.requests.push(request);
            assert!(!self.refused.contains(&request), "seed {}: refused and applied", self.seed);
            self.acknowledged.insert(request);
        }
        self.handle(at, Event::Applied(index));
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let which = if self.healed { 0 } else { self.chance.below(self.network.len()) };
        let (message, machine) = self.network.remove(which);
        let lost = !self.healed && self.chance.one_in(10);
        // The transport never delivers a message twice; the engine copes with it all the same, but
        // for a forwarded proposal, which would be proposed twice.
        if !self.healed && machine.is_none() && !message.is_proposal() && self.chance.one_in(20) {
            self.network.push((message.clone(), None)); // delivered twice
        }
        let to = message.to().0 as usize - 1;
        let from = message.from().0 as usize - 1;
        let up = self.nodes[to].replica.is_some();
        if let Some(machine) = machine {
            let ok = up && !lost && self.nodes[to].received.is_none();
            if ok {
                self.nodes[to].received = Some(machine);
                self.handle(to, Event::Message(message.clone()));
                let node = &mut self.nodes[to];
                let awaited = |work: &DiskWork| match work {
                    DiskWork::Write(write) => write.install.is_some(),
                    DiskWork::Compact(_) => false,
                };
                if !node.writes.iter().any(awaited) {
                    node.received = None; // of no use to the engine
                }
            }
            self.handle(from, Event::SnapshotSent { message, ok });
        } else if up && !lost {
            self.handle(to, Event::Message(message));
        }
    }

    fn propose(&mut self, at: usize) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let mut entry = BytesMut::new();
        seal(request, &mut entry);
        entry.put_bytes(b'x', self.chance.below(60));
        self.handle(at, Event::Propose { request, entry: entry.freeze() });
    }

    /// Makes a voter a learner or the other way round, in one of all ways. Asked of the leader, so
    /// that two voters stay: of fewer, a leader that leaves may know alone that it was let go.
    fn change(&mut self, at: usize) {
        let replica = self.nodes[at].replica.as_ref();
        if replica.is_none_or(|replica| replica.glance().role != Role::Leader) {
            return;
        }
        let ConfState { voters, learners, .. } = self.nodes[at].machine.conf_state.clone();
        let step = |change_type| {
            move |node_id: &NodeId| ConfChangeSingle { change_type, node_id: *node_id }
        };
        let mut changes: Vec<_> = learners.iter().map(step(ConfChangeType::AddNode)).collect();
        changes.truncate(self.chance.below(3));
        if self.chance.one_in(10) {
            // Committed all the same, and carried out by nobody.
            changes = voters.iter().map(step(ConfChangeType::AddLearnerNode)).collect();
        } else if 2 < voters.len() && self.chance.one_in(2) {
            let voter = voters[self.chance.below(voters.len())];
            changes.insert(0, step(ConfChangeType::AddLearnerNode)(&voter));
        }
        let Some(&ConfChangeSingle { change_type, node_id }) = changes.first() else { return };
        let change = if self.chance.one_in(2) {
            AnyConfChange::V1(ConfChange { change_type, node_id, ..ConfChange::default() })
        } else {
            let transition = [None, Some(ConfChangeTransition::JointImplicit)];
            let transition = transition[self.chance.below(2)];
            AnyConfChange::V2(ConfChangeV2 { transition, changes, ..ConfChangeV2::default() })
        };
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.handle(at, Event::ProposeChange { request, change });
    }

    fn read(&mut self, at: usize) {
        if self.nodes[at].replica.is_none() {
            return;
        }
        self.next_read += 1;
        let read = ReadId(self.next_read);
        self.reads.insert(read, (at, self.acknowledged.clone()));
        self.handle(at, Event::Read(read));
    }

    fn step(&mut self) {
        let at = self.chance.below(self.nodes.len());
        match self.chance.below(100) {
            0..12 => self.handle(at, Event::Tick),
            12..55 => self.deliver(),
            55..70 => self.persist(at),
            70..85 => self.apply(at),
            85..92 => self.propose(at),
            92 => match self.chance.one_in(3) {
                true => self.change(at),
                false => self.propose(at),
            },
            93..96 => self.read(at),
            96 => {
                if let Some(machine) = self.nodes[at].flushing.take() {
                    let node = &mut self.nodes[at];
                    if node.disk.machine.applied < machine.applied {
                        node.disk.machine = machine.clone();
                    }
                    self.handle(at, Event::Flushed(machine.applied));
                }
            }
            97 => {
                let to = NodeId(self.chance.below(self.nodes.len()) as u64 + 1);
                let event = match self.chance.below(4) {
                    0 | 1 => Event::Transfer(to),
                    2 => Event::Unreachable(to),
                    // As of a process that is back before anybody hears that it had gone.
                    _ => Event::Absent(to),
                };
                self.handle(at, event);
            }
            98 if !self.healed && self.chance.one_in(8) && self.nodes[at].replica.is_some() => {
                self.crash(at);
            }
            _ if self.nodes[at].replica.is_none() => {
                self.restarts += 1;
                self.restart(at);
            }
            _ => {}
        }
    }

    /// The follower takes what there is at the node where it is.
    fn follow(&mut self) {
        let Follower { place, looks, told, passed_by } = &mut self.follower;
        *looks += 1;
        let at = *looks / 100 % self.nodes.len();
        let Some(replica) = &self.nodes[at].replica else { return };
        match replica.applied_after(*place, 100) {
            Ok(entries) => {
                for entry in &entries {
                    let founding = if place.index == Index(0) { FIRST.0 } else { place.index };
                    assert_eq!(entry.index, founding.next(), "seed {}: a gap", self.seed);
                    let request = match Content::of(entry).unwrap() {
                        Content::Command(_) => Some(open(entry.data.clone().unwrap()).unwrap().0),
                        Content::Empty | Content::Change(_) => None,
                    };
                    let heard = (self.engine.era(entry.term.0), request);
                    let applied = self.committed.get(&entry.index);
                    assert_eq!(applied, Some(&heard), "seed {}: told of another", self.seed);
                    *place = Place { index: entry.index, stamp: Some(entry.term.0) };
                    *told += 1;
                }
            }
            Err(FeedError::PassedBy { first, .. }) => {
                assert!(place.index.next() < first);
                *place = Place { index: first.prev(), stamp: None };
                *passed_by += 1;
            }
            Err(other) => panic!("seed {}: {other}", self.seed),
        }
    }

    fn leaders(&self) -> usize {
        let live = self.nodes.iter().filter_map(|node| node.replica.as_ref());
        live.filter(|replica| replica.glance().role == Role::Leader).count()
    }
}

fn run(engine: Engine, seed: u64, size: u64) -> World {
    let mut world = World::new(engine, seed, size);
    for step in 0..12_000 {
        world.healed = 6000 <= step;
        world.step();
        world.follow();
    }
    // Everything in flight comes to its end.
    for _ in 0..400 {
        for at in 0..world.nodes.len() {
            if world.nodes[at].replica.is_none() {
                world.restart(at);
            }
            world.handle(at, Event::Tick);
            // At least once: a sole voter sends nothing.
            loop {
                world.deliver();
                for at in 0..world.nodes.len() {
                    while !world.nodes[at].writes.is_empty() || world.nodes[at].installing.is_some()
                    {
                        world.persist(at);
                    }
                    while !world.nodes[at].applies.is_empty() {
                        world.apply(at);
                    }
                    if let Some(machine) = world.nodes[at].flushing.take() {
                        world.nodes[at].disk.machine = machine.clone();
                        world.handle(at, Event::Flushed(machine.applied));
                    }
                }
                if world.network.is_empty() {
                    break;
                }
            }
        }
    }
    world
}

#[test]
fn promises_hold_under_faults_and_work_goes_on_after_them() {
    promises_hold(Engine::Raft);
}

#[test]
fn promises_hold_with_the_second_engine() {
    promises_hold(Engine::Zab);
}

fn promises_hold(engine: Engine) {
    let (mut acknowledged, mut reads, mut snapshots, mut restarts) = (0, 0, 0, 0);
    let (mut halfway, mut changes) = (0, 0);
    let (mut told, mut passed_by) = (0, 0);
    for seed in seeds() {
        let size = if seed % 4 == 0 { 5 } else { 3 };
        let world = run(engine, seed, size);
        assert_eq!(world.leaders(), 1, "seed {seed}: one leader at the end");
        let first = &world.nodes[0].machine;
        for node in &world.nodes {
            assert_eq!(
                node.machine,
                *first,
                "seed {seed}: machines differ at the end: {:?}",
                [node, &world.nodes[0]].map(|node| node.replica.as_ref().map(Replica::status))
            );
        }
        let held: BTreeSet<_> = first.requests.iter().copied().collect();
        assert_eq!(held.len(), first.requests.len(), "seed {seed}: a request was applied twice");
        let lost = world.acknowledged.difference(&held).next();
        assert_eq!(lost, None, "seed {seed}: an acknowledged request is gone");
        assert!(
            world.reads.is_empty(),
            "seed {seed}: reads without an answer: {:?}",
            world.reads.len()
        );
        acknowledged += world.acknowledged.len();
        reads += world.reads_answered;
        snapshots += world.snapshots_installed;
        restarts += world.restarts;
        halfway += world.halfway;
        changes += world.changes;
        told += world.follower.told;
        passed_by += world.follower.passed_by;
    }
    // A run in which nothing happened shows nothing.
    assert!(4000 < acknowledged, "{acknowledged} requests");
    assert!(1000 < reads, "{reads} reads");
    assert!(10 < snapshots, "{snapshots} snapshots installed");
    assert!(100 < restarts, "{restarts} restarts");
    assert!(3 < halfway, "{halfway} crashes amid an installation");
    assert!(2000 < told, "{told} entries told");
    assert!(10 < passed_by, "the follower was passed by {passed_by} times");
    match engine {
        Engine::Raft => assert!(100 < changes, "{changes} membership changes"),
        Engine::Zab => assert_eq!(changes, 0, "its membership is fixed"),
    }
}

#[expect(clippy::disallowed_methods, reason = "which seeds to run is for whoever runs the tests")]
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("QUORATE_SEEDS") else { return 1..41 };
    let (first, last) = text.split_once("..").expect("QUORATE_SEEDS=first..last");
    let number = |text: &str| text.parse().expect("QUORATE_SEEDS=first..last");
    number(first)..number(last)
}
